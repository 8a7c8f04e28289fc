/* SPDX-License-Identifier: GPL-2.0-only */
/* Bios whose data is the number of who wrote it; see disk.c. */
#ifndef HOST_BIO_H
#define HOST_BIO_H

#include <linux/atomic.h>
#include <linux/types.h>

typedef u8 blk_status_t;
typedef u32 blk_opf_t;

#define BLK_STS_OK 0
#define BLK_STS_MEDIUM 7
#define BLK_STS_IOERR 10
#define BLK_STS_DM_REQUEUE 11
#define BLK_STS_AGAIN 12
#define BLK_STS_OFFLINE 16

enum req_op { REQ_OP_READ, REQ_OP_WRITE, REQ_OP_FLUSH, REQ_OP_DISCARD };

#define REQ_OP_MASK ((blk_opf_t)0xff)
#define REQ_NOMERGE ((blk_opf_t)1 << 8)
#define REQ_FUA ((blk_opf_t)1 << 9)
#define REQ_PREFLUSH ((blk_opf_t)1 << 10)
#define REQ_RAHEAD ((blk_opf_t)1 << 11)
#define REQ_NOWAIT ((blk_opf_t)1 << 12)
#define REQ_POLLED ((blk_opf_t)1 << 13)
#define REQ_ALLOC_CACHE ((blk_opf_t)1 << 14)

#define BLK_QC_T_NONE -1U
#define BIO_POOL_SIZE 2
enum { BIO_CLONED, BIO_QOS_THROTTLED, BIO_QOS_MERGED, BIO_REMAPPED };

struct bvec_iter {
	sector_t bi_sector;
	unsigned int bi_size;
	u64 of;				/* sector of the mapped device that its data is of */
};

struct bio {
	struct block_device *bi_bdev;
	blk_opf_t bi_opf;
	unsigned int bi_flags;
	blk_status_t bi_status;
	unsigned int bi_cookie;
	struct bvec_iter bi_iter;
	void (*bi_end_io)(struct bio *bio);
	struct host_io *io;		/* whose data it is */
	struct bio_set *set;
	unsigned int set_front;
	bool under_way;
};

struct bio_set { unsigned int front, allocated; };

static inline bool op_is_write(blk_opf_t opf)
{
	return opf & 1;
}

static inline unsigned int bio_sectors(const struct bio *bio)
{
	return bio->bi_iter.bi_size >> SECTOR_SHIFT;
}

static inline void bio_clear_flag(struct bio *bio, unsigned int flag)
{
	bio->bi_flags &= ~(1U << flag);
}

static inline void bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_clear_flag(bio, BIO_REMAPPED);
	bio->bi_bdev = bdev;
}

static inline void bio_advance(struct bio *bio, unsigned int bytes)
{
	if (bytes > bio->bi_iter.bi_size)
		host_bug("a bio is advanced beyond its end");
	bio->bi_iter.bi_size -= bytes;
	bio->bi_iter.bi_sector += bytes >> SECTOR_SHIFT;
	bio->bi_iter.of += bytes >> SECTOR_SHIFT;
}

int bioset_init(struct bio_set *set, unsigned int pool, unsigned int front, int flags);
void bioset_exit(struct bio_set *set);
struct bio *bio_alloc_clone(struct block_device *bdev, struct bio *from, gfp_t gfp,
			    struct bio_set *set);
void bio_put(struct bio *bio);
void bio_endio(struct bio *bio);

#endif
