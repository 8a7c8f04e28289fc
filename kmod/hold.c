// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bios that cannot go on: held until a verdict, the end of a fence, their
 * deadline, or a noflush suspend that pushes them back.
 */
#include "shim.h"

/* What the daemon is asked about; other errors are the caller's to see. */
bool dmr_may_fault(struct dmr_bio *pb, blk_status_t status)
{
	enum req_op op = pb->opf & REQ_OP_MASK;

	if ((status == BLK_STS_MEDIUM || status == BLK_STS_IOERR) &&
	    (op == REQ_OP_READ || op == REQ_OP_WRITE) && !(pb->opf & REQ_RAHEAD))
		return true;
	atomic64_inc(&pb->t->inst->passed);
	return false;
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

/*
 * Takes a bio that cannot go on. On any other answer than DMR_HELD it is still
 * the caller's. Its deadline runs from the first time and is never reset.
 */
enum dmr_hold dmr_hold(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	struct dmr_instance *inst = pb->t->inst;
	bool unready = test_bit(DMR_SLOW_UNREADY, &inst->slow);
	unsigned long flags;

	if (error)
		pb->error = error;
	spin_lock_irqsave(&inst->lock, flags);
	if (reason != DMR_OP_DONE && inst->pushback) {
		spin_unlock_irqrestore(&inst->lock, flags);
		return DMR_PUSHBACK;
	}
	if ((reason == DMR_FAULT || reason == DMR_HEAL) && !READ_ONCE(inst->owner) &&
	    !inst->queue_unowned) {
		atomic64_inc(&inst->unowned);
		spin_unlock_irqrestore(&inst->lock, flags);
		return DMR_REFUSED;
	}
	if (!pb->held) {
		/* One bio of any size always has room. */
		if (inst->held_bios &&
		    (inst->held_bios >= inst->max_held_bios ||
		     inst->held_sectors + dmr_len(pb) > inst->max_held_sectors)) {
			atomic64_inc(&inst->refused);
			spin_unlock_irqrestore(&inst->lock, flags);
			return DMR_REFUSED;
		}
		pb->held = true;
		pb->deadline = jiffies +
			msecs_to_jiffies(unready ? inst->ready_ms : inst->hold_ms);
		inst->held_bios++;
		inst->held_sectors += dmr_len(pb);
		atomic_inc(&dmr_live_bios);
	}
	pb->reason = reason;
	list_add_tail(&pb->node, &inst->incoming);
	/* Under the lock: after it, the worker may end the bio and its table. */
	queue_work(inst->wq, &inst->work);
	queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
	spin_unlock_irqrestore(&inst->lock, flags);
	return DMR_HELD;
}

static blk_status_t last_word(const struct dmr_bio *pb, enum dmr_reason reason)
{
	if (pb->error)
		return pb->error;
	return reason == DMR_HEAL ? BLK_STS_MEDIUM : BLK_STS_IOERR;
}

/* For a bio that was submitted by us and so is ended by us. */
void dmr_hold_or_end(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	switch (dmr_hold(pb, reason, error)) {
	case DMR_HELD:
		break;
	case DMR_PUSHBACK:
		dmr_end(pb, BLK_STS_DM_REQUEUE);
		break;
	case DMR_REFUSED:
		dmr_end(pb, last_word(pb, reason));
		break;
	}
}

/* Ends a bio that map or end_io has kept; on no list. */
void dmr_end(struct dmr_bio *pb, blk_status_t status)
{
	struct dmr_instance *inst = pb->t->inst;
	struct bio *bio = dmr_to_bio(pb);
	unsigned long flags;

	if (pb->held) {
		spin_lock_irqsave(&inst->lock, flags);
		inst->held_bios--;
		inst->held_sectors -= dmr_len(pb);
		spin_unlock_irqrestore(&inst->lock, flags);
		atomic_dec(&dmr_live_bios);
	}
	pb->ended = true;
	bio->bi_status = status;
	bio_endio(bio);
}

/* A flush counts for a failure only if it was sent after it. */
void dmr_flush_done(struct dmr_bio *pb, blk_status_t status)
{
	struct dmr_instance *inst = pb->t->inst;
	int bit = pb->dest == DMR_DATA ? DMR_SLOW_DATA_FLUSH : DMR_SLOW_SPARE_FLUSH;
	unsigned long flags;

	if (!status && !test_bit(bit, &inst->slow))
		return;
	spin_lock_irqsave(&inst->lock, flags);
	if (status) {
		inst->flush_fails[pb->dest]++;
		set_bit(bit, &inst->slow);
		dmr_ring(inst);
	} else if (inst->flush_fails[pb->dest] == pb->gen) {
		clear_bit(bit, &inst->slow);
	}
	spin_unlock_irqrestore(&inst->lock, flags);
}

/* A fence is gone: the parked bios look again. Needs inst->mutex. */
void dmr_unpark(struct dmr_instance *inst)
{
	struct dmr_bio *pb;

	list_for_each_entry(pb, &inst->parked, node)
		pb->reason = DMR_PARK;
	spin_lock_irq(&inst->lock);
	list_splice_tail_init(&inst->parked, &inst->incoming);
	queue_work(inst->wq, &inst->work);
	spin_unlock_irq(&inst->lock);
}

static bool fenced(struct dmr_instance *inst, struct dmr_bio *pb)
{
	struct dmr_place p;

	if (!dmr_view(inst)->ready)
		return true;
	if (dmr_is_flush(pb))
		return false;
	dmr_lookup(dmr_view(inst), dmr_start(pb), dmr_len(pb), &p);
	return p.what == DMR_FENCED;
}

/* Returns whether a fence was added. */
static bool open_fault(struct dmr_instance *inst, struct dmr_bio *pb)
{
	struct dmr_fault *f;

	if (dmr_fault_overlaps(inst, dmr_start(pb), dmr_len(pb))) {
		list_add_tail(&pb->node, &inst->parked);
		return false;
	}
	f = dmr_fault_new(inst, dmr_start(pb), dmr_len(pb));
	if (!f) {
		atomic64_inc(&inst->refused);
		dmr_end(pb, last_word(pb, pb->reason));
		return false;
	}
	f->flags |= DM_REMAP_FAULT_F_HELD;
	if (op_is_write(pb->opf))
		f->flags |= DM_REMAP_FAULT_F_WRITE;
	if (pb->reason == DMR_HEAL)
		f->flags |= DM_REMAP_FAULT_F_HEAL;
	f->status = pb->reason == DMR_HEAL ? DM_REMAP_STATUS_OK :
					     dmr_wire_status(pb->error);
	f->pb = pb;
	pb->fault = f;
	return true;
}

void dmr_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, work);
	struct dmr_bio *pb, *next;
	bool published = false, ring = false;
	struct dmr_fault *f;
	LIST_HEAD(incoming);
	LIST_HEAD(go);

	mutex_lock(&inst->mutex);
	spin_lock_irq(&inst->lock);
	list_splice_init(&inst->incoming, &incoming);
	spin_unlock_irq(&inst->lock);

	list_for_each_entry_safe(pb, next, &incoming, node) {
		list_del_init(&pb->node);
		if (pb->reason == DMR_OP_DONE) {
			dmr_fault_op_done(inst, pb->fault);
			ring = true;
		} else if (READ_ONCE(inst->pushback)) {
			dmr_end(pb, BLK_STS_DM_REQUEUE);
		} else if (pb->reason == DMR_PARK) {
			list_add_tail(&pb->node, fenced(inst, pb) ? &inst->parked : &go);
		} else {
			published |= open_fault(inst, pb);
		}
	}
	if (published) {
		dmr_publish_fences(inst);
		/* After this every lookup sees the fences, so they may be listed. */
		synchronize_rcu_expedited();
		list_for_each_entry(f, &inst->faults, node)
			f->listed = true;
		ring = true;
	}
	if (ring)
		dmr_ring(inst);
	mutex_unlock(&inst->mutex);

	list_for_each_entry_safe(pb, next, &go, node) {
		list_del_init(&pb->node);
		dmr_issue(pb);
	}
}

static bool is_due(const struct dmr_bio *pb)
{
	return time_after_eq(jiffies, pb->deadline);
}

void dmr_deadline_work(struct work_struct *work)
{
	struct dmr_instance *inst =
		container_of(work, struct dmr_instance, deadlines.work);
	struct dmr_bio *pb, *next_pb;
	struct dmr_fault *f, *next;

	mutex_lock(&inst->mutex);
	list_for_each_entry_safe(pb, next_pb, &inst->parked, node)
		if (is_due(pb)) {
			list_del_init(&pb->node);
			atomic64_inc(&inst->expired);
			dmr_end(pb, last_word(pb, pb->reason));
		}
	list_for_each_entry_safe(f, next, &inst->faults, node) {
		pb = f->pb;
		if (!pb || f->state == DM_REMAP_FAULT_BUSY || !is_due(pb))
			continue;
		dmr_fault_lose_bio(inst, f);
		atomic64_inc(&inst->expired);
		dmr_end(pb, last_word(pb, pb->reason));
	}
	mutex_unlock(&inst->mutex);
	if (READ_ONCE(inst->held_bios))
		queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
}

/* A noflush suspend: every hold ends, and a later one is refused. */
void dmr_push_back(struct dmr_instance *inst)
{
	struct dmr_bio *pb, *next_pb;
	struct dmr_fault *f, *next;

	spin_lock_irq(&inst->lock);
	inst->pushback = true;
	spin_unlock_irq(&inst->lock);

	mutex_lock(&inst->mutex);
	list_for_each_entry_safe(pb, next_pb, &inst->parked, node) {
		list_del_init(&pb->node);
		dmr_end(pb, BLK_STS_DM_REQUEUE);
	}
	list_for_each_entry_safe(f, next, &inst->faults, node) {
		pb = f->pb;
		/* A busy one follows when its I/O returns. */
		if (!pb || f->state == DM_REMAP_FAULT_BUSY)
			continue;
		dmr_fault_lose_bio(inst, f);
		dmr_end(pb, BLK_STS_DM_REQUEUE);
	}
	mutex_unlock(&inst->mutex);
}
