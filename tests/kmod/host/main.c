// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads commands, a line each, and answers with lines that end with a dot alone.
 *
 *	new SECTORS BLOCK SPARE OPTION...	the device; first
 *	ask PORT HEX				a request
 *	close PORT				the end of a socket
 *	io ID OP START LEN			OP: r read, a read ahead, w write, f write with FUA, s flush
 *	run US					time passes
 *	bad DISK START LEN FLAGS		1 to reads, 2 to writes, 0 to none
 *	error DISK STATUS			what bad sectors answer; first MEDIUM
 *	stall DISK 0|1		gone DISK 0|1	flushes DISK N: so many fail
 *	memory N				the Nth allocation of the next request fails
 *	interrupt				what is stalled returns in the next change of the table
 *	look START LEN				a lookup
 *	suspend 0|1				1: noflush
 *	resume
 *
 * At the end of its input it takes the device down and unloads.
 */
#include <stdarg.h>
#include "host.h"

void host_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void host_say_bytes(const char *word, const void *data, size_t len)
{
	printf("%s ", word);
	for (const u8 *b = data; len--; b++)
		printf("%02x", *b);
	putchar('\n');
}

static u64 number(char **words)
{
	char *word = strsep(words, " ");

	if (!word)
		host_bug("a command lacks a number");
	return strtoull(word, NULL, 10);
}

static struct block_device *disk(char **words)
{
	return &host_disks[number(words) & 1];
}

static void create(char *words)
{
	u64 sectors = number(&words), block = number(&words), spare = number(&words);
	char *argv[16] = { "0", "1" };
	unsigned int argc = 2;

	while (words && argc < ARRAY_SIZE(argv))
		argv[argc++] = strsep(&words, " ");
	host_disk_init(&host_disks[0], MKDEV(8, 0), sectors, block << SECTOR_SHIFT);
	host_disk_init(&host_disks[1], MKDEV(8, 16), spare, block << SECTOR_SHIFT);
	if (host_module_init() || host_dm_init(sectors, argc, argv))
		host_bug(host_target.error ?: "the module does not load");
}

static u8 digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void ask(char *words)
{
	u32 port = number(&words);
	size_t len = strlen(words) / 2;
	u8 *payload = malloc(len);

	for (size_t i = 0; i < len; i++)
		payload[i] = digit(words[2 * i]) << 4 | digit(words[2 * i + 1]);
	host_request_from(port, payload, len);
	free(payload);
}

static void io(char *words)
{
	u64 id = number(&words);
	const char *op = strsep(&words, " ");
	u64 start = number(&words), len = number(&words);
	blk_opf_t opf = *op == 'r' ? REQ_OP_READ :
			*op == 'a' ? REQ_OP_READ | REQ_RAHEAD :
			*op == 'w' ? REQ_OP_WRITE :
			*op == 'f' ? REQ_OP_WRITE | REQ_FUA : REQ_OP_WRITE | REQ_PREFLUSH;

	host_io_submit(id, opf, start, len);
}

static void bad(char *words)
{
	struct block_device *bdev = disk(&words);
	u64 start = number(&words), len = number(&words), flags = number(&words);

	for (; len--; start++)
		bdev->content[start].bad = flags;
}

static void look(char *words)
{
	static const char *const dests[] = { "data", "spare", "fenced", "poisoned" };
	struct dmr_target *t = host_target.private;
	u64 start = number(&words), len = number(&words);
	struct dmr_place p;

	dmr_lookup(t->inst, start, len, &p);
	host_say("place %s %llu %u", dests[p.dest],
		 p.dest == DMR_DATA || p.dest == DMR_SPARE ? p.sector : 0, p.len);
}

static void carry_out(char *words)
{
	const char *word = strsep(&words, " ");
	struct block_device *bdev;

	if (!strcmp(word, "new")) {
		create(words);
	} else if (!strcmp(word, "ask")) {
		ask(words);
	} else if (!strcmp(word, "close")) {
		host_socket_ends(number(&words));
	} else if (!strcmp(word, "io")) {
		io(words);
	} else if (!strcmp(word, "run")) {
		host_run(number(&words));
	} else if (!strcmp(word, "bad")) {
		bad(words);
	} else if (!strcmp(word, "error")) {
		bdev = disk(&words);
		bdev->bad_status = number(&words);
	} else if (!strcmp(word, "fua")) {
		bdev = disk(&words);
		bdev->fua = number(&words);
	} else if (!strcmp(word, "stall")) {
		bdev = disk(&words);
		bdev->stalled = number(&words);
	} else if (!strcmp(word, "gone")) {
		bdev = disk(&words);
		bdev->gone = number(&words);
	} else if (!strcmp(word, "flushes")) {
		bdev = disk(&words);
		bdev->bad_flushes = number(&words);
	} else if (!strcmp(word, "memory")) {
		host_memory_fails = number(&words);
	} else if (!strcmp(word, "interrupt")) {
		host_interrupt_store = true;
	} else if (!strcmp(word, "look")) {
		look(words);
	} else if (!strcmp(word, "suspend")) {
		host_suspend(number(&words));
	} else if (!strcmp(word, "resume")) {
		host_say("done %d", -host_resume());
	} else {
		host_bug(word);
	}
}

/* As `dmsetup remove` and `rmmod` do, once nothing is under way. */
static void take_down(void)
{
	host_dm_exit();
	host_module_exit();
	if (dmr_live_instances.counter || dmr_live_faults.counter)
		host_bug("objects outlive the module");
	host_disk_exit(&host_disks[0]);
	host_disk_exit(&host_disks[1]);
}

int main(void)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;

	while ((len = getline(&line, &room, stdin)) > 0) {
		line[len - 1] = '\0';
		carry_out(line);
		puts(".");
		fflush(stdout);
	}
	free(line);
	take_down();
	return 0;
}
