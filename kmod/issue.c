// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a sector lives now, and the clones that take a held bio there. The
 * bio that device-mapper gave us is submitted at most once, by map; whatever
 * comes later goes through clones of it, so none of its spent state (its
 * iterator, flags, remaining count, cgroup) has to be rebuilt.
 */
#include <linux/rculist.h>

#include "shim.h"

struct dmr_clone {
	struct dmr_bio *pb;
	struct dm_remap_piece *piece;	/* of TRY or PLACE */
	u64 gen;
	u64 start;			/* sector of the mapped device */
	u64 dest_sector;
	unsigned int len;
	u8 dest;
	struct bio bio;
};

int dmr_clones_init(struct dmr_instance *inst)
{
	return bioset_init(&inst->clones, BIO_POOL_SIZE, offsetof(struct dmr_clone, bio), 0);
}

static void lookup_extent(struct dmr_instance *inst, u64 sector, unsigned int len,
			  struct dmr_place *place)
{
	struct dm_remap_extent e;

	*place = (struct dmr_place){ .what = DMR_GO, .dest = DMR_DATA, .sector = sector, .len = len };
	if (!dmr_table_next(&inst->table, sector, sector + len, &e))
		return;
	if (e.start > sector) {
		place->len = e.start - sector;
		return;
	}
	place->len = e.len;
	if (e.kind != DM_REMAP_MAPPED) {
		place->what = DMR_POISONED;
		return;
	}
	place->dest = DMR_SPARE;
	place->sector = e.slot;
}

/* Does a fence cover the sector? *len becomes the part of the range to which the answer applies. */
static bool fenced(struct dmr_instance *inst, u64 sector, unsigned int *len)
{
	const struct dmr_fault *f;

	if (test_bit(DMR_SLOW_UNREADY, &inst->slow))
		return true;
	list_for_each_entry_rcu(f, &inst->faults, node) {
		u64 edge = f->start > sector ? f->start : f->start + f->len;

		if (edge <= sector)
			continue;
		*len = min_t(u64, *len, edge - sector);
		if (f->start <= sector)
			return true;
	}
	return false;
}

/*
 * Fences hide what they cover. One RCU section for both: what a fence hides changes only a grace
 * period after the fence was published.
 */
void dmr_lookup(struct dmr_instance *inst, u64 sector, unsigned int len, struct dmr_place *place)
{
	bool hidden;

	rcu_read_lock();
	hidden = fenced(inst, sector, &len);
	smp_rmb();	/* the table after the fences; pairs with dmr_fault_end() and dmr_ready() */
	if (hidden)
		*place = (struct dmr_place){ .what = DMR_FENCED, .len = len };
	else
		lookup_extent(inst, sector, len, place);
	rcu_read_unlock();
}

/* Would a write that went to this place with this generation go elsewhere? */
bool dmr_stale(struct dmr_instance *inst, u64 gen, u64 sector, unsigned int len,
	       enum dmr_dest dest, u64 dest_sector)
{
	struct dmr_place p;

	/* Pairs with dmr_publish(): an old generation saw the table it went by. */
	if (likely(smp_load_acquire(&inst->gen) == gen))
		return false;
	if (gen < READ_ONCE(inst->direct_gen))
		return true;
	dmr_lookup(inst, sector, len, &p);
	return p.what != DMR_GO || p.dest != dest || p.sector != dest_sector ||
	       p.len < len;
}

u8 dmr_wire_status(blk_status_t status)
{
	switch (status) {
	case BLK_STS_OK:
		return DM_REMAP_STATUS_OK;
	case BLK_STS_MEDIUM:
		return DM_REMAP_STATUS_MEDIUM;
	case BLK_STS_IOERR:
		return DM_REMAP_STATUS_IOERR;
	default:
		return DM_REMAP_STATUS_OTHER;
	}
}

/* What one clone, or the submitter, found: the first error and the gravest need. */
static void note(struct dmr_bio *pb, blk_status_t status, enum dmr_reason next)
{
	struct dmr_instance *inst = pb->t->inst;
	unsigned long flags;

	spin_lock_irqsave(&inst->lock, flags);
	if (!pb->status)
		pb->status = status;
	if (next > pb->next)
		pb->next = next;
	spin_unlock_irqrestore(&inst->lock, flags);
}

/* The last of a bio's clones is back, and so is their submitter. */
static void put_pending(struct dmr_bio *pb)
{
	if (!atomic_dec_and_test(&pb->pending))
		return;
	if (pb->fault)
		dmr_hold(pb, DMR_OP_DONE, BLK_STS_OK);
	else if (dmr_is_flush(pb))
		dmr_end(pb, dmr_flush_done(pb, pb->status));
	else if (!pb->next || (pb->next == DMR_FAULT && !dmr_may_fault(pb, pb->status)))
		dmr_end(pb, pb->status);
	else
		dmr_hold_or_end(pb, pb->next, pb->status);
}

static void clone_end_io(struct bio *bio)
{
	struct dmr_clone *c = container_of(bio, struct dmr_clone, bio);
	struct dmr_bio *pb = c->pb;
	struct dmr_fault *f = pb->fault;
	struct dmr_instance *inst = pb->t->inst;

	if (f) {
		u8 st = dmr_wire_status(bio->bi_status);

		/* Several clones may write one piece: only errors are stored. */
		if (c->piece && st)
			c->piece->result = st;
		else if (st)
			f->rest_failed = true;
	} else if (bio->bi_status) {
		note(pb, bio->bi_status, DMR_FAULT);
	} else if (op_is_write(pb->opf) && !dmr_is_flush(pb) &&
		   dmr_stale(inst, c->gen, c->start, c->len, c->dest, c->dest_sector)) {
		dmr_count(inst, DMR_REDONE);
		note(pb, BLK_STS_OK, DMR_PARK);
	}
	bio_put(bio);
	put_pending(pb);
}

static void submit_clone(struct dmr_bio *pb, struct dm_remap_piece *piece, u64 gen,
			 u64 start, const struct dmr_place *p, blk_opf_t more)
{
	struct bio *orig = dmr_to_bio(pb), *bio;
	struct dmr_clone *c;

	orig->bi_iter = pb->iter;
	/* Left by its first trip; a clone would inherit it and miss its partition. */
	bio_clear_flag(orig, BIO_REMAPPED);
	/* The bio set's reserve makes this wait, never fail. */
	bio = bio_alloc_clone(dmr_bdev(pb->t, p->dest), orig, GFP_NOIO,
			      &pb->t->inst->clones);
	c = container_of(bio, struct dmr_clone, bio);
	c->pb = pb;
	c->piece = piece;
	c->gen = gen;
	c->start = start;
	c->dest = p->dest;
	c->dest_sector = p->sector;
	c->len = p->len;
	/* The bio set has no cache that REQ_ALLOC_CACHE could mean. */
	bio->bi_opf = (pb->opf & ~(REQ_NOWAIT | REQ_POLLED | REQ_ALLOC_CACHE)) | more;
	bio->bi_end_io = clone_end_io;
	if (!dmr_is_flush(pb)) {
		bio_advance(bio, (start - dmr_start(pb)) << SECTOR_SHIFT);
		bio->bi_iter.bi_size = p->len << SECTOR_SHIFT;
		bio->bi_iter.bi_sector = p->sector;
	}
	atomic_inc(&pb->pending);
	dm_submit_bio_remap(orig, bio);
}

/* Sends a held bio through the table, cut at its edges. */
void dmr_issue(struct dmr_bio *pb)
{
	struct dmr_instance *inst = pb->t->inst;
	u64 gen, sector = dmr_start(pb);
	unsigned int left = dmr_len(pb);
	struct dmr_place p;

	/* Before the table, as in map; pairs with dmr_publish(). */
	gen = smp_load_acquire(&inst->gen);

	pb->status = BLK_STS_OK;
	pb->next = DMR_NONE;
	atomic_set(&pb->pending, 1);
	if (dmr_fua_fails(pb)) {
		note(pb, BLK_STS_IOERR, DMR_NONE);
		left = 0;
	}
	if (dmr_is_flush(pb)) {
		p = (struct dmr_place){ .dest = pb->dest };
		pb->gen = READ_ONCE(inst->flush_fails[pb->dest]);
		submit_clone(pb, NULL, gen, 0, &p, 0);
		left = 0;
	}
	while (left) {
		dmr_lookup(inst, sector, left, &p);
		if (dmr_is_discard(pb) && (p.what == DMR_POISONED || p.dest == DMR_SPARE))
			goto next;
		if (p.what == DMR_FENCED) {
			note(pb, BLK_STS_OK, DMR_PARK);
			break;
		}
		if (p.what == DMR_POISONED && op_is_write(pb->opf)) {
			note(pb, BLK_STS_OK, DMR_HEAL);
			break;
		}
		if (p.what == DMR_POISONED) {
			dmr_count(inst, DMR_POISON_READS);
			note(pb, BLK_STS_MEDIUM, DMR_NONE);
			break;
		}
		submit_clone(pb, NULL, gen, sector, &p, 0);
next:
		sector += p.len;
		left -= p.len;
	}
	put_pending(pb);
}

/* Writes a range of the fault's bio to wherever the table points. */
static void write_rest(struct dmr_fault *f, struct dm_remap_piece *piece,
		       u64 start, u64 end)
{
	struct dmr_place p;

	while (start < end) {
		lookup_extent(f->inst, start, end - start, &p);
		submit_clone(f->pb, piece, 0, start, &p, REQ_NOMERGE);
		start += p.len;
	}
}

/*
 * TRY or PLACE for a held write. The fault is busy, so that nobody else
 * touches it or its bio until DMR_OP_DONE; a work of its own, since the
 * submission may wait for memory or for a device's queue.
 */
void dmr_op_work(struct work_struct *work)
{
	struct dmr_fault *f = container_of(work, struct dmr_fault, op);
	struct dmr_bio *pb = f->pb;
	u64 done = f->start;
	unsigned int i;

	atomic_set(&pb->pending, 1);
	for (i = 0; i < f->nr_pieces; i++) {
		struct dm_remap_piece *piece = &f->pieces[i];
		struct dmr_place p = { .dest = DMR_SPARE, .sector = piece->slot, .len = piece->len };
		u64 start = f->start + piece->offset;

		piece->result = DM_REMAP_STATUS_OK;
		if (f->placing) {
			write_rest(f, NULL, done, start);
			submit_clone(pb, piece, 0, start, &p, REQ_NOMERGE);
		} else {
			write_rest(f, piece, start, start + piece->len);
		}
		done = start + piece->len;
	}
	if (f->placing)
		write_rest(f, NULL, done, f->start + f->len);
	put_pending(pb);
}
