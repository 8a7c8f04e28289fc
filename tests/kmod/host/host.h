/* SPDX-License-Identifier: GPL-2.0-only */
/* The parts of the host, for each other. */
#ifndef HOST_H
#define HOST_H

#include "shim.h"

/* memory.c: the allocation of requests, counted from the next, that fails; 0: none */
extern unsigned int host_memory_fails;
extern bool host_request;

/* disk.c */
int host_disk_init(struct block_device *bdev, dev_t dev, u64 sectors, unsigned int block);
void host_disk_exit(struct block_device *bdev);
/* Everything that stalled disks hold back comes back in the middle of the next change of the table. */
extern bool host_interrupt_store;
void host_interrupts(void);

/* An application's read, write, flush or discard. */
struct host_io {
	u64 id, start, len;
	blk_opf_t opf;
	unsigned int left;		/* its bios, and who submits */
	blk_status_t status;
	bool pushed_back;		/* of a flush */
	u64 *found;			/* of a read */
};

/* dm.c: the device */
extern struct dm_target host_target;
int host_dm_init(u64 sectors, unsigned int argc, char **argv);
void host_dm_exit(void);
void host_io_submit(u64 id, blk_opf_t opf, u64 start, u64 len);
void host_suspend(bool noflush);
int host_resume(void);

/* netlink.c */
extern struct genl_family *host_family;
void host_request_from(u32 portid, const u8 *payload, size_t len);
void host_socket_ends(u32 portid);

/* main.c: a line to the other side */
void host_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void host_say_bytes(const char *word, const void *data, size_t len);

#endif
