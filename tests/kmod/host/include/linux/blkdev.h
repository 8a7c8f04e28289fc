/* SPDX-License-Identifier: GPL-2.0-only */
/* Disks: what each sector holds, and which do not work. */
#ifndef HOST_BLKDEV_H
#define HOST_BLKDEV_H

#include <linux/bio.h>

struct host_sector { u64 tag, of; u8 bad; };

#define HOST_BAD_READ 1
#define HOST_BAD_WRITE 2
/* What a sector reads as that nobody has written, or not there. */
#define HOST_GARBAGE (~0ULL)

struct block_device {
	dev_t bd_dev;
	u64 sectors;
	unsigned int block;		/* bytes */
	struct host_sector *content;
	blk_status_t bad_status;
	unsigned int bad_flushes;
	bool stalled, gone, fua;
};

struct gendisk { struct block_device *part0; };

extern struct block_device host_disks[2];

void host_submit(struct bio *bio);

#define bdev_logical_block_size(bdev) ((bdev)->block)
#define bdev_nr_sectors(bdev) ((bdev)->sectors)
#define bdev_write_cache(bdev) ((void)(bdev), true)
#define bdev_fua(bdev) ((bdev)->fua)
#define bdev_get_queue(bdev) (bdev)
#define queue_is_mq(queue) ((void)(queue), true)
#define bdev_is_zoned(bdev) ((void)(bdev), false)
#define bdev_max_discard_sectors(bdev) ((void)(bdev), UINT_MAX)

static inline dev_t disk_devt(struct gendisk *disk)
{
	return disk->part0->bd_dev;
}

#endif
