// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a sector lives now, and the clones that take a held bio there. The bio that device-mapper
 * gave us is submitted at most once, by map; whatever comes later goes through clones of it, so none
 * of its spent state (its iterator, flags, remaining count, cgroup) has to be rebuilt.
 */
#include "shim.h"

static void lookup_extent(struct dmr_instance *inst, struct dmr_place *p)
{
	struct dm_remap_extent e;

	dmr_table_at(inst, p->start, p->start + p->len, &e);
	p->len = e.len;
	p->sector = e.kind == DM_REMAP_DIRECT ? p->start : e.slot;
	p->dest = e.kind == DM_REMAP_DIRECT ? DMR_DATA :
		  e.kind == DM_REMAP_MAPPED ? DMR_SPARE : DMR_POISONED;
}

/* Does a fence cover its start? Its length becomes that to which the answer applies. */
static bool fenced(struct dmr_instance *inst, struct dmr_place *p)
{
	const struct dmr_fault *f;

	if (!dmr_is_ready(inst))
		return true;
	list_for_each_entry_rcu(f, &inst->faults, node) {
		u64 edge = f->start > p->start ? f->start : f->start + f->len;

		if (edge <= p->start)
			continue;
		p->len = min_t(u64, p->len, edge - p->start);
		if (f->start <= p->start)
			return true;
	}
	return false;
}

/* One RCU section for both: what a fence hides changes only a grace period after it was published. */
void dmr_lookup(struct dmr_instance *inst, u64 start, unsigned int len, struct dmr_place *p)
{
	/* Before the table; pairs with dmr_publish(). */
	*p = (struct dmr_place){ .gen = smp_load_acquire(&inst->gen), .start = start, .len = len,
				 .dest = DMR_FENCED };
	rcu_read_lock();
	if (!fenced(inst, p)) {
		smp_rmb();	/* pairs with dmr_fault_end() and dmr_ready() */
		lookup_extent(inst, p);
	}
	rcu_read_unlock();
}

/* Would what went there go elsewhere now? */
static bool stale(struct dmr_instance *inst, const struct dmr_place *sent)
{
	struct dmr_place now;

	/* Pairs with dmr_publish(): an old generation saw the table it went by. */
	if (likely(smp_load_acquire(&inst->gen) == sent->gen))
		return false;
	if (READ_ONCE(inst->storing) && !in_task())
		return true;
	dmr_lookup(inst, sent->start, sent->len, &now);
	return sent->gen < READ_ONCE(inst->direct_gen) || now.dest != sent->dest ||
	       now.sector != sent->sector || now.len < sent->len;
}

/* What becomes of I/O that has returned; of DMR_NONE, that it ends. An error: see dmr_passes(). */
enum dmr_reason dmr_need(struct dmr_bio *pb, const struct dmr_place *sent, blk_status_t status)
{
	if (likely(!status) && likely((pb->opf & REQ_OP_MASK) != REQ_OP_WRITE))
		return DMR_NONE;
	if (likely(!stale(pb->t->inst, sent)))
		return status ? DMR_FAULT : DMR_NONE;
	/* The table changed under it: it is not acknowledged, so it may be repeated. */
	dmr_count(pb->t->inst, redone);
	return DMR_REDO;
}

/* Is it an error that the daemon is not asked about, but the caller's to see? Counts those. */
bool dmr_passes(struct dmr_bio *pb, blk_status_t status)
{
	enum req_op op = pb->opf & REQ_OP_MASK;

	if (!status || ((status == BLK_STS_MEDIUM || status == BLK_STS_IOERR) &&
			(op == REQ_OP_READ || op == REQ_OP_WRITE) && !(pb->opf & REQ_RAHEAD)))
		return false;
	dmr_count(pb->t->inst, passed);
	return true;
}

u8 dmr_wire_status(blk_status_t status)
{
	return !status ? DM_REMAP_STATUS_OK :
	       status == BLK_STS_MEDIUM ? DM_REMAP_STATUS_MEDIUM :
	       status == BLK_STS_IOERR ? DM_REMAP_STATUS_IOERR : DM_REMAP_STATUS_OTHER;
}

/* What one clone, or the submitter, found: an error, and what it needs. */
static void note(struct dmr_bio *pb, blk_status_t status, enum dmr_reason next)
{
	if (status)
		WRITE_ONCE(pb->status, status);
	set_bit(next, &pb->needs);
}

/* The last of a bio's clones is back, and so is their submitter. */
static void put_pending(struct dmr_bio *pb)
{
	enum dmr_reason need;

	if (!atomic_dec_and_test(&pb->pending))
		return;
	if (pb->fault) {
		queue_work(pb->t->inst->wq, &pb->fault->op_done);
		return;
	}
	need = __fls(pb->needs | BIT(DMR_NONE));
	if (!need && !pb->status)
		need = dmr_written(pb);
	if (!need || dmr_passes(pb, pb->status))
		dmr_end(pb, pb->status);
	else
		dmr_hold_or_end(pb, need, pb->status);
}

static void clone_end_io(struct bio *bio)
{
	struct dmr_clone *c = container_of(bio, struct dmr_clone, bio);
	struct dmr_bio *pb = c->pb;
	u8 status = dmr_wire_status(bio->bi_status);

	if (pb->fault) {
		/* Several clones may write one piece: only errors are stored. */
		if (c->piece && status)
			c->piece->result = status;
		else if (status)
			pb->fault->rest_failed = true;
	} else if (dmr_is_flush(pb)) {
		note(pb, dmr_flush_done(pb, c->place.dest, bio->bi_status), DMR_NONE);
	} else {
		note(pb, bio->bi_status, dmr_need(pb, &c->place, bio->bi_status));
	}
	bio_put(bio);
	put_pending(pb);
}

static void submit_clone(struct dmr_bio *pb, struct dm_remap_piece *piece,
			 const struct dmr_place *p, blk_opf_t more)
{
	struct bio *orig = dmr_to_bio(pb), *bio;
	struct dmr_clone *c;

	orig->bi_iter = pb->iter;
	/* Left by its first trip; a clone would inherit it and miss its partition. */
	bio_clear_flag(orig, BIO_REMAPPED);
	/* The bio set's reserve makes this wait, never fail. */
	bio = bio_alloc_clone(pb->t->dev[p->dest]->bdev, orig, GFP_NOIO, &pb->t->inst->clones);
	c = container_of(bio, struct dmr_clone, bio);
	c->pb = pb;
	c->piece = piece;
	c->place = *p;
	/* The bio set has no cache that REQ_ALLOC_CACHE could mean. A piece is flushed before it counts. */
	bio->bi_opf = (pb->opf & ~(REQ_NOWAIT | REQ_POLLED | REQ_ALLOC_CACHE)) | more;
	bio->bi_opf &= ~(piece || dmr_is_flush(pb) ? REQ_FUA : dmr_fua_owed(pb, p->dest));
	bio->bi_end_io = clone_end_io;
	if (dmr_is_flush(pb)) {
		bio->bi_iter.bi_size = 0;
	} else {
		bio_advance(bio, (p->start - pb->place.start) << SECTOR_SHIFT);
		bio->bi_iter.bi_size = p->len << SECTOR_SHIFT;
		bio->bi_iter.bi_sector = p->sector;
	}
	atomic_inc(&pb->pending);
	dm_submit_bio_remap(orig, bio);
}

/* The part of a held bio that begins at @p; false: the rest cannot go. */
static bool issue_part(struct dmr_bio *pb, const struct dmr_place *p)
{
	if (p->dest == DMR_FENCED) {
		note(pb, BLK_STS_OK, DMR_PARK);
	} else if (p->dest != DMR_POISONED) {
		submit_clone(pb, NULL, p, 0);
		return true;
	} else if (op_is_write(pb->opf)) {
		note(pb, BLK_STS_MEDIUM, DMR_HEAL);
	} else {
		dmr_count(pb->t->inst, poison_reads);
		note(pb, BLK_STS_MEDIUM, DMR_NONE);
	}
	return false;
}

/* Sends a held bio through the table, cut at its edges. */
void dmr_issue(struct dmr_bio *pb)
{
	struct dmr_instance *inst = pb->t->inst;
	u64 at = pb->place.start, end = at + pb->place.len;
	struct dmr_place p = { };

	pb->status = BLK_STS_OK;
	pb->needs = 0;
	atomic_set(&pb->pending, 1);
	if (dmr_is_flush(pb)) {
		for (p.dest = DMR_DATA; p.dest <= DMR_SPARE; p.dest++)
			if (pb->owes & BIT(p.dest))
				submit_clone(pb, NULL, &p, 0);
	} else if (dmr_fua_fails(pb)) {
		note(pb, BLK_STS_IOERR, DMR_NONE);
	} else {
		dmr_sends(pb);
		for (; at < end; at += p.len) {
			dmr_lookup(inst, at, end - at, &p);
			if (!dmr_is_noop(pb, &p) && !issue_part(pb, &p))
				break;
		}
	}
	put_pending(pb);
}

/* Writes a range of the fault's bio to wherever the table points. */
static void write_rest(struct dmr_fault *f, struct dm_remap_piece *piece, u64 start, u64 end)
{
	struct dmr_place p;

	for (; start < end; start += p.len) {
		p = (struct dmr_place){ .start = start, .len = end - start };
		lookup_extent(f->inst, &p);
		submit_clone(f->pb, piece, &p, REQ_NOMERGE);
	}
}

/*
 * TRY or PLACE for a held write. The fault is busy, so that nobody else touches it or its bio until
 * op_done; a work of its own, since the submission may wait for memory or for a device's queue.
 */
void dmr_op_work(struct work_struct *work)
{
	struct dmr_fault *f = container_of(work, struct dmr_fault, op);
	struct dm_remap_piece *piece;
	struct dmr_bio *pb = f->pb;
	u64 done = f->start;

	dmr_sends(pb);
	atomic_set(&pb->pending, 1);
	for (piece = f->pieces; piece < f->pieces + f->nr_pieces; piece++) {
		u64 start = f->start + piece->offset;
		struct dmr_place p = { .start = start, .sector = piece->slot, .len = piece->len,
				       .dest = DMR_SPARE };

		piece->result = DM_REMAP_STATUS_OK;
		if (f->placing) {
			write_rest(f, NULL, done, start);
			submit_clone(pb, piece, &p, REQ_NOMERGE);
		} else {
			write_rest(f, piece, start, start + piece->len);
		}
		done = start + piece->len;
	}
	if (f->placing)
		write_rest(f, NULL, done, f->start + f->len);
	put_pending(pb);
}
