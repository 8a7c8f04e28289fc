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
	dmr_count(pb->t->inst, DMR_PASSED);
	return false;
}

/* How a bio ends that nobody could help. */
blk_status_t dmr_last_word(const struct dmr_bio *pb)
{
	return pb->error ?: BLK_STS_IOERR;
}

/* How a hold ends without a verdict; BLK_STS_OK: not yet. */
blk_status_t dmr_hold_over(const struct dmr_bio *pb)
{
	if (dm_noflush_suspending(pb->t->ti))
		return BLK_STS_DM_REQUEUE;
	if (!pb->held || time_before(jiffies, pb->deadline))
		return BLK_STS_OK;
	dmr_count(pb->t->inst, DMR_EXPIRED);
	return dmr_last_word(pb);
}

/* A discard has no pages to hold. */
static unsigned int held_len(const struct dmr_bio *pb)
{
	return dmr_is_discard(pb) ? 0 : dmr_len(pb);
}

static blk_status_t hold_locked(struct dmr_bio *pb, enum dmr_reason reason)
{
	struct dmr_instance *inst = pb->t->inst;
	blk_status_t over = dmr_hold_over(pb);
	unsigned int ms = test_bit(DMR_SLOW_UNREADY, &inst->slow) ? inst->ready_ms : inst->hold_ms;

	if (over && reason != DMR_OP_DONE)
		return over;
	if ((reason == DMR_FAULT || reason == DMR_HEAL) && !READ_ONCE(inst->owner) &&
	    !inst->queue_unowned) {
		dmr_count(inst, DMR_UNOWNED);
		return dmr_last_word(pb);
	}
	/* One bio of any size always has room. */
	if (!pb->held && inst->held_bios &&
	    (inst->held_bios >= inst->max_held_bios ||
	     inst->held_sectors + held_len(pb) > inst->max_held_sectors)) {
		dmr_count(inst, DMR_REFUSALS);
		return dmr_last_word(pb);
	}
	if (!pb->held) {
		pb->held = true;
		pb->deadline = jiffies + msecs_to_jiffies(ms);
		inst->held_bios++;
		inst->held_sectors += held_len(pb);
		atomic_inc(&dmr_live_bios);
	}
	pb->reason = reason;
	list_add_tail(&pb->node, &inst->incoming);
	/* Under the lock: after it, the worker may end the bio and its table. */
	queue_work(inst->wq, &inst->work);
	queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
	return BLK_STS_OK;
}

/*
 * Takes a bio that cannot go on. If it returns a status, the bio is still the caller's and ends with
 * that. The deadline runs from the first time and is never reset.
 */
blk_status_t dmr_hold(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	struct dmr_instance *inst = pb->t->inst;
	unsigned long flags;
	blk_status_t status;

	/* Nothing of it is in flight that a poller could wait for. */
	dmr_to_bio(pb)->bi_cookie = BLK_QC_T_NONE;
	if (error)
		pb->error = error;
	if (reason == DMR_HEAL)
		pb->error = BLK_STS_MEDIUM;
	spin_lock_irqsave(&inst->lock, flags);
	status = hold_locked(pb, reason);
	spin_unlock_irqrestore(&inst->lock, flags);
	return status;
}

/* For a bio that is ended by us. */
void dmr_hold_or_end(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	blk_status_t status = dmr_hold(pb, reason, error);

	if (status)
		dmr_end(pb, status);
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
		inst->held_sectors -= held_len(pb);
		spin_unlock_irqrestore(&inst->lock, flags);
		atomic_dec(&dmr_live_bios);
	}
	pb->ended = true;
	/* What it was sent to may be gone by now; our own disk is not. */
	bio->bi_bdev = dm_disk(inst->md)->part0;
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	bio->bi_status = status;
	bio_endio(bio);
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
	if (!dmr_is_ready(inst))
		return true;
	/* Any part of it: the rest alone would come straight back. */
	return !dmr_is_flush(pb) &&
	       dmr_fault_overlaps(inst, dmr_start(pb), dmr_len(pb));
}

/* Returns whether a fence was added. */
static bool open_fault(struct dmr_instance *inst, struct dmr_bio *pb)
{
	struct dmr_fault *f = NULL;

	if (!dmr_fault_overlaps(inst, dmr_start(pb), dmr_len(pb)))
		f = dmr_fault_new(inst, dmr_start(pb), dmr_len(pb));
	if (!f) {
		/* Also for want of a free fault: it is sent again when one has ended. */
		list_add_tail(&pb->node, &inst->parked);
		return false;
	}
	f->flags = DM_REMAP_FAULT_F_HELD;
	if (op_is_write(pb->opf))
		f->flags |= DM_REMAP_FAULT_F_WRITE;
	if (pb->reason == DMR_HEAL)
		f->flags |= DM_REMAP_FAULT_F_HEAL;
	else
		f->status = dmr_wire_status(pb->error);
	f->pb = pb;
	pb->fault = f;
	return true;
}

/* Sending may block: what waits its turn stays where its deadline finds it. */
static struct dmr_bio *next_to_go(struct dmr_instance *inst)
{
	struct dmr_bio *pb;

	spin_lock_irq(&inst->lock);
	pb = list_first_entry_or_null(&inst->go, struct dmr_bio, node);
	if (pb)
		list_del_init(&pb->node);
	spin_unlock_irq(&inst->lock);
	return pb;
}

void dmr_send_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, send);
	struct dmr_bio *pb;

	while ((pb = next_to_go(inst)))
		dmr_issue(pb);
}

void dmr_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, work);
	struct dmr_bio *pb, *next;
	bool published = false, ring = false;
	blk_status_t over;
	LIST_HEAD(incoming);
	LIST_HEAD(go);		/* no longer fenced */

	mutex_lock(&inst->mutex);
	spin_lock_irq(&inst->lock);
	list_splice_init(&inst->incoming, &incoming);
	spin_unlock_irq(&inst->lock);

	list_for_each_entry_safe(pb, next, &incoming, node) {
		list_del_init(&pb->node);
		if (pb->reason == DMR_OP_DONE) {
			dmr_fault_op_done(pb->fault);
			ring = true;
			continue;
		}
		over = dmr_hold_over(pb);
		if (over)
			dmr_end(pb, over);
		else if (pb->reason == DMR_PARK)
			list_add_tail(&pb->node, fenced(inst, pb) ? &inst->parked : &go);
		else
			published |= open_fault(inst, pb);
	}
	if (published)
		dmr_publish_fences(inst);
	if (ring)
		dmr_ring(inst);
	spin_lock_irq(&inst->lock);
	list_splice_tail(&go, &inst->go);
	spin_unlock_irq(&inst->lock);
	queue_work(inst->wq, &inst->send);
	mutex_unlock(&inst->mutex);
}

/* The results of an operation are not thrown away: its fault sees to what is over. */
static void take_over(struct list_head *from, struct list_head *out)
{
	struct dmr_bio *pb, *next;

	list_for_each_entry_safe(pb, next, from, node) {
		if (pb->reason == DMR_OP_DONE)
			continue;
		pb->status = dmr_hold_over(pb);
		if (pb->status)
			list_move_tail(&pb->node, out);
	}
}

/* Deadlines, and a noflush suspend, which ends every hold: a later one sees that under the lock. */
void dmr_end_holds(struct dmr_instance *inst)
{
	struct dmr_bio *pb, *next_pb;
	struct dmr_fault *f, *next;
	LIST_HEAD(out);

	mutex_lock(&inst->mutex);
	take_over(&inst->parked, &out);
	spin_lock_irq(&inst->lock);
	take_over(&inst->incoming, &out);
	take_over(&inst->go, &out);
	spin_unlock_irq(&inst->lock);
	list_for_each_entry_safe(f, next, &inst->faults, node) {
		pb = f->pb;
		/* A busy one follows when its I/O returns. */
		if (!pb || f->state == DM_REMAP_FAULT_BUSY)
			continue;
		pb->status = dmr_hold_over(pb);
		if (!pb->status)
			continue;
		dmr_fault_lose_bio(f, "left");
		list_add_tail(&pb->node, &out);
	}
	list_for_each_entry_safe(pb, next_pb, &out, node) {
		list_del_init(&pb->node);
		dmr_end(pb, pb->status);
	}
	mutex_unlock(&inst->mutex);
}

void dmr_deadline_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, deadlines.work);

	dmr_end_holds(inst);
	if (READ_ONCE(inst->held_bios))
		queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
}
