// SPDX-License-Identifier: GPL-2.0-only
/* What device-mapper does around a target: splits, completions, suspend and resume. */
#include "host.h"

struct dm_target host_target;
static struct target_type *registered;
static struct block_device mapped;
static struct mapped_device md = { .disk.part0 = &mapped };
static struct dm_table table = { .md = &md };

/* A bio of the mapped device; the target's data stands before it. */
struct dm_io {
	struct bio bio;
	unsigned int target_nr;
	u64 start, len;
	void *whole;
};

/* What waits for the end of a suspend. */
struct put_off {
	struct list_head node;
	struct host_io *io;
	u64 start, len;
};

static LIST_HEAD(deferred);
static unsigned int under_way;
/* How much of a bio map has taken. */
static u64 taken;
static enum { RUNNING, NOFLUSH, FLUSHING, SUSPENDED } state = SUSPENDED;

int dm_register_target(struct target_type *type)
{
	registered = type;
	return 0;
}

void dm_unregister_target(struct target_type *type)
{
	registered = NULL;
}

const char *dm_shift_arg(struct dm_arg_set *as)
{
	if (!as->argc)
		return NULL;
	as->argc--;
	return *as->argv++;
}

int dm_read_arg(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *value, char **error)
{
	const char *text = dm_shift_arg(as);
	char *end;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;

	if (!text || !*text || *end || n < arg->min || n > arg->max) {
		*error = arg->error;
		return -EINVAL;
	}
	*value = n;
	return 0;
}

int dm_read_arg_group(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *n, char **error)
{
	int r = dm_read_arg(arg, as, n, error);

	if (!r && *n > as->argc) {
		*error = "Too few arguments";
		return -EINVAL;
	}
	return r;
}

int dm_get_device(struct dm_target *ti, const char *path, int mode, struct dm_dev **dev)
{
	if (strcmp(path, "0") && strcmp(path, "1"))
		return -ENODEV;
	*dev = calloc(1, sizeof(**dev));
	(*dev)->bdev = &host_disks[path[0] - '0'];
	snprintf((*dev)->name, sizeof((*dev)->name), "8:%s", path);
	return 0;
}

void dm_put_device(struct dm_target *ti, struct dm_dev *dev)
{
	free(dev);
}

int dm_set_target_max_io_len(struct dm_target *ti, sector_t len)
{
	ti->max_io_len = len;
	return 0;
}

int dm_noflush_suspending(struct dm_target *ti)
{
	return state == NOFLUSH;
}

int host_dm_init(u64 sectors, unsigned int argc, char **argv)
{
	mapped = (struct block_device){ .bd_dev = MKDEV(253, 0), .sectors = sectors };
	host_target = (struct dm_target){ .table = &table, .type = registered, .len = sectors };
	return registered->ctr(&host_target, argc, argv) ?: host_resume();
}

void host_dm_exit(void)
{
	registered->dtr(&host_target);
}

static void defer(struct host_io *io, u64 start, u64 len)
{
	struct put_off *p = calloc(1, sizeof(*p));

	p->io = io;
	p->start = start;
	p->len = len;
	list_add_tail(&p->node, &deferred);
}

static void tell(const struct host_io *io)
{
	char text[24 * DM_REMAP_MAX_FAULT_SECTORS] = "", *at = text;

	for (u64 i = 0; io->found && !io->status && i < io->len; i++)
		at += snprintf(at, 22, " %llu", io->found[i]);
	host_say("end %llu %u%s", io->id, io->status, text);
}

static void io_put(struct host_io *io)
{
	if (--io->left)
		return;
	if (io->pushed_back) {
		io->pushed_back = false;
		io->status = BLK_STS_OK;
		io->left = 1;
		defer(io, 0, 0);
		return;
	}
	tell(io);
	free(io->found);
	free(io);
}

static void is_drained(void)
{
	if ((state == NOFLUSH || state == FLUSHING) && !under_way) {
		state = SUSPENDED;
		host_say("suspended");
	}
}

/* A bio that is pushed back comes again; a flush as a whole, though it is one for each disk. */
static void push_back(struct host_io *io, u64 start, u64 len)
{
	if (state != NOFLUSH)
		host_bug("a bio is pushed back, and no suspend takes it");
	if (io->opf & REQ_PREFLUSH) {
		io->pushed_back = true;
		return;
	}
	io->left++;
	defer(io, start, len);
}

static void clone_endio(struct bio *bio)
{
	struct dm_io *d = container_of(bio, struct dm_io, bio);
	blk_status_t error = bio->bi_status;
	struct host_io *io = d->bio.io;
	int r = host_target.type->end_io(&host_target, bio, &error);

	if (r == DM_ENDIO_INCOMPLETE)
		return;
	if (r == DM_ENDIO_REQUEUE || error == BLK_STS_DM_REQUEUE)
		push_back(io, d->start, d->len);
	else if (error && !io->status)
		io->status = error;
	free(d->whole);
	under_way--;
	io_put(io);
	is_drained();
}

static struct dm_io *alloc_io(struct host_io *io, u64 start, u64 len)
{
	size_t front = round_up((size_t)host_target.per_io_data_size, 16UL);
	char *whole = calloc(1, front + sizeof(struct dm_io));
	struct dm_io *d = (struct dm_io *)(whole + front);

	/* Not zeroes: map must not count on them. */
	memset(whole, 0xa5, front);
	d->whole = whole;
	d->start = start;
	d->len = len;
	d->bio = (struct bio){ .bi_bdev = &mapped, .bi_opf = io->opf, .bi_flags = 1U << BIO_CLONED,
			       .bi_end_io = clone_endio, .io = io };
	d->bio.bi_iter = (struct bvec_iter){ start, len << SECTOR_SHIFT, start };
	return d;
}

unsigned int dm_bio_get_target_bio_nr(const struct bio *bio)
{
	return container_of(bio, struct dm_io, bio)->target_nr;
}

void dm_accept_partial_bio(struct bio *bio, unsigned int sectors)
{
	struct dm_io *d = container_of(bio, struct dm_io, bio);

	if (!sectors || sectors > bio_sectors(bio))
		host_bug("map takes none of a bio, or more than there is");
	bio->bi_iter.bi_size = sectors << SECTOR_SHIFT;
	d->len = taken = sectors;
}

/* A clone's data is that of the original's iterator, which the target has restored. */
void dm_submit_bio_remap(struct bio *orig, struct bio *clone)
{
	struct dm_io *d = container_of(orig, struct dm_io, bio);
	u64 skipped = clone->bi_iter.of - d->start;

	if (!(clone->bi_opf & REQ_PREFLUSH) &&
	    (skipped > d->len || bio_sectors(clone) > d->len - skipped))
		host_bug("a clone is not of its parent's range");
	host_submit(clone);
}

static void map(struct host_io *io, unsigned int target_nr, u64 start, u64 len)
{
	struct dm_io *d = alloc_io(io, start, len);

	d->target_nr = target_nr;
	io->left++;
	under_way++;
	taken = len;
	if (host_target.type->map(&host_target, &d->bio) == DM_MAPIO_REMAPPED) {
		d->bio.bi_flags |= 1U << BIO_REMAPPED;
		host_submit(&d->bio);
	}
}

static void enter(struct host_io *io, u64 start, u64 len)
{
	u64 end = start + len, unit = host_target.max_io_len;

	if (io->opf & REQ_PREFLUSH) {
		for (unsigned int nr = 0; nr < host_target.num_flush_bios; nr++)
			map(io, nr, 0, 0);
		return;
	}
	for (; start < end; start += taken)
		map(io, 0, start, min(end - start, unit - start % unit));
}

void host_io_submit(u64 id, blk_opf_t opf, u64 start, u64 len)
{
	struct host_io *io = calloc(1, sizeof(*io));

	*io = (struct host_io){ .id = id, .opf = opf, .start = start, .len = len, .left = 1 };
	if (!op_is_write(opf) && len)
		io->found = calloc(len, sizeof(*io->found));
	if (state == RUNNING) {
		enter(io, start, len);
		io_put(io);
	} else {
		defer(io, start, len);
	}
}

void host_suspend(bool noflush)
{
	if (state != RUNNING)
		return;
	state = noflush ? NOFLUSH : FLUSHING;
	host_target.type->presuspend(&host_target);
	is_drained();
}

/* EBUSY: it is not suspended, or not yet. */
int host_resume(void)
{
	struct put_off *p, *next;
	LIST_HEAD(all);
	int r;

	if (state != SUSPENDED)
		return -EBUSY;
	r = host_target.type->preresume(&host_target);
	if (r)
		return r;
	state = RUNNING;
	list_splice_tail_init(&deferred, &all);
	list_for_each_entry_safe(p, next, &all, node) {
		struct host_io *io = p->io;

		enter(io, p->start, p->len);
		free(p);
		io_put(io);
	}
	return 0;
}
