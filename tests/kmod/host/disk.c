// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two disks. A sector holds the number of the I/O that wrote it, and of what sector of the mapped
 * device: what is found elsewhere is garbage. An I/O takes effect when it comes back.
 */
#include "host.h"

#define LATENCY 100
#define STALLED 1000

struct block_device host_disks[2];
bool host_interrupt_store;

struct flight {
	struct host_event event;
	struct list_head node;
	struct bio *bio;
};

static LIST_HEAD(flights);

int host_disk_init(struct block_device *bdev, dev_t dev, u64 sectors, unsigned int block)
{
	*bdev = (struct block_device){ .bd_dev = dev, .sectors = sectors, .block = block,
				       .bad_status = BLK_STS_MEDIUM };
	bdev->content = calloc(sectors, sizeof(*bdev->content));
	for (u64 s = 0; s < sectors; s++)
		bdev->content[s].of = HOST_GARBAGE;
	return 0;
}

void host_disk_exit(struct block_device *bdev)
{
	free(bdev->content);
}

static blk_status_t flush(struct block_device *bdev)
{
	if (!bdev->bad_flushes)
		return BLK_STS_OK;
	bdev->bad_flushes--;
	return BLK_STS_IOERR;
}

static blk_status_t land(struct bio *bio)
{
	struct block_device *bdev = bio->bi_bdev;
	bool write = op_is_write(bio->bi_opf);
	u8 bad = write ? HOST_BAD_WRITE : HOST_BAD_READ;
	blk_status_t status = BLK_STS_OK;
	u64 n = bio_sectors(bio), of = bio->bi_iter.of;
	struct host_sector *s;

	if (bdev->gone)
		return BLK_STS_OFFLINE;
	if ((bio->bi_opf & REQ_FUA) && !bdev->fua)
		host_bug("FUA goes to a disk that has none");
	if (bio->bi_opf & REQ_PREFLUSH) {
		if (n || (bio->bi_opf & REQ_FUA))
			host_bug("a flush has data, or asks for FUA");
		return flush(bdev);
	}
	if ((bio->bi_opf & REQ_OP_MASK) == REQ_OP_DISCARD)
		return BLK_STS_OK;
	if (!dmr_inside(bio->bi_iter.bi_sector, n, bdev->sectors))
		host_bug("I/O past the end of a disk");
	s = bdev->content + bio->bi_iter.bi_sector;
	for (u64 i = 0; i < n; i++)
		if (s[i].bad & bad)
			status = bdev->bad_status;
	for (u64 i = 0; i < n; i++, of++) {
		if (write && !(s[i].bad & bad)) {
			s[i].tag = bio->io->id;
			s[i].of = of;
		} else if (!write && !status) {
			bio->io->found[of - bio->io->start] =
				s[i].of == of ? s[i].tag : HOST_GARBAGE;
		}
	}
	return status;
}

/* An interrupt. */
static void returns(struct flight *flight)
{
	struct bio *bio = flight->bio;

	list_del(&flight->node);
	free(flight);
	bio->under_way = false;
	bio->bi_status = land(bio);
	/* As the block layer leaves it. */
	bio->bi_iter.bi_size = 0;
	host_interrupt = true;
	bio_endio(bio);
	host_interrupt = false;
}

static void comes_back(struct host_event *event)
{
	struct flight *flight = container_of(event, struct flight, event);

	if (flight->bio->bi_bdev->stalled)
		host_event_in(event, STALLED);
	else
		returns(flight);
}

void host_interrupts(void)
{
	struct flight *flight, *next;

	if (!host_interrupt_store || host_interrupt)
		return;
	host_interrupt_store = false;
	list_for_each_entry_safe(flight, next, &flights, node) {
		if (!flight->bio->bi_bdev->stalled)
			continue;
		host_event_cancel(&flight->event);
		returns(flight);
	}
}

void host_submit(struct bio *bio)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	host_might_sleep();
	if (bio->under_way)
		host_bug("a bio is submitted twice");
	bio->under_way = true;
	flight->bio = bio;
	flight->event.happen = comes_back;
	list_add_tail(&flight->node, &flights);
	host_event_in(&flight->event, LATENCY);
}

void bio_endio(struct bio *bio)
{
	if (bio->under_way)
		host_bug("a bio ends that is under way");
	bio->bi_end_io(bio);
}

int bioset_init(struct bio_set *set, unsigned int pool, unsigned int front, int flags)
{
	set->front = front;
	return 0;
}

void bioset_exit(struct bio_set *set)
{
	if (set->allocated)
		host_bug("clones outlive their bio set");
}

struct bio *bio_alloc_clone(struct block_device *bdev, struct bio *from, gfp_t gfp,
			    struct bio_set *set)
{
	char *whole = calloc(1, set->front + sizeof(struct bio));
	struct bio *bio = (struct bio *)(whole + set->front);

	host_might_sleep();
	if (from->bi_flags & 1U << BIO_REMAPPED)
		host_bug("a clone inherits that its parent was remapped");
	*bio = (struct bio){ .bi_bdev = bdev, .bi_opf = from->bi_opf, .bi_flags = 1U << BIO_CLONED,
			     .bi_iter = from->bi_iter, .io = from->io, .set = set,
			     .set_front = set->front };
	set->allocated++;
	return bio;
}

void bio_put(struct bio *bio)
{
	bio->set->allocated--;
	free((char *)bio - bio->set_front);
}
