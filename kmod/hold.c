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

/* Outside a noflush suspend device-mapper takes no bio back, whatever presuspend said. */
bool dmr_pushing_back(struct dmr_bio *pb)
{
	return READ_ONCE(pb->t->inst->pushback) && dm_noflush_suspending(pb->t->ti);
}

/* A discard has no pages to hold. */
static unsigned int held_len(const struct dmr_bio *pb)
{
	return dmr_is_discard(pb) ? 0 : dmr_len(pb);
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

	if (reason == DMR_HEAL)
		error = BLK_STS_MEDIUM;
	if (error)
		pb->error = error;
	spin_lock_irqsave(&inst->lock, flags);
	if (reason != DMR_OP_DONE && dmr_pushing_back(pb)) {
		spin_unlock_irqrestore(&inst->lock, flags);
		return DMR_PUSHBACK;
	}
	if ((reason == DMR_FAULT || reason == DMR_HEAL) && !READ_ONCE(inst->owner) &&
	    !inst->queue_unowned) {
		dmr_count(inst, DMR_UNOWNED);
		spin_unlock_irqrestore(&inst->lock, flags);
		return DMR_REFUSED;
	}
	if (!pb->held) {
		/* One bio of any size always has room. */
		if (inst->held_bios &&
		    (inst->held_bios >= inst->max_held_bios ||
		     inst->held_sectors + held_len(pb) > inst->max_held_sectors)) {
			dmr_count(inst, DMR_REFUSALS);
			spin_unlock_irqrestore(&inst->lock, flags);
			return DMR_REFUSED;
		}
		pb->held = true;
		pb->deadline = jiffies +
			msecs_to_jiffies(unready ? inst->ready_ms : inst->hold_ms);
		inst->held_bios++;
		inst->held_sectors += held_len(pb);
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

/* How a bio ends that nobody could help. */
blk_status_t dmr_last_word(const struct dmr_bio *pb)
{
	return pb->error ?: BLK_STS_IOERR;
}

bool dmr_is_due(const struct dmr_bio *pb)
{
	return time_after_eq(jiffies, pb->deadline);
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
		dmr_end(pb, dmr_last_word(pb));
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
	if (!dmr_view(inst)->ready)
		return true;
	/* Any part of it: the rest alone would come straight back. */
	return !dmr_is_flush(pb) &&
	       dmr_fault_overlaps(inst, dmr_start(pb), dmr_len(pb));
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
		/* As many as can be fenced: it is sent again when one of them has ended. */
		list_add_tail(&pb->node, &inst->parked);
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

void dmr_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, work);
	struct dmr_bio *pb, *next;
	bool published = false, ring = false;
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
		} else if (dmr_pushing_back(pb)) {
			dmr_end(pb, BLK_STS_DM_REQUEUE);
		} else if (dmr_is_due(pb)) {
			dmr_count(inst, DMR_EXPIRED);
			dmr_end(pb, dmr_last_word(pb));
		} else if (pb->reason == DMR_PARK) {
			list_add_tail(&pb->node, fenced(inst, pb) ? &inst->parked : &go);
		} else {
			published |= open_fault(inst, pb);
		}
	}
	if (published)
		dmr_fences_seen(inst);
	if (published || ring)
		dmr_ring(inst);
	spin_lock_irq(&inst->lock);
	list_splice_tail(&go, &inst->go);
	spin_unlock_irq(&inst->lock);
	mutex_unlock(&inst->mutex);

	/* Sending may block: what waits its turn stays where its deadline finds it. */
	while ((pb = next_to_go(inst)))
		dmr_issue(pb);
}

/* The results of an operation are not thrown away: its fault sees to the deadline. */
static void take_due(struct list_head *from, struct list_head *late)
{
	struct dmr_bio *pb, *next;

	list_for_each_entry_safe(pb, next, from, node)
		if (dmr_is_due(pb) && pb->reason != DMR_OP_DONE)
			list_move_tail(&pb->node, late);
}

void dmr_deadline_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, deadlines.work);
	struct dmr_bio *pb, *next_pb;
	struct dmr_fault *f, *next;
	LIST_HEAD(late);

	mutex_lock(&inst->mutex);
	take_due(&inst->parked, &late);
	spin_lock_irq(&inst->lock);
	take_due(&inst->incoming, &late);
	take_due(&inst->go, &late);
	spin_unlock_irq(&inst->lock);
	list_for_each_entry_safe(f, next, &inst->faults, node) {
		pb = f->pb;
		if (!pb || f->state == DM_REMAP_FAULT_BUSY || !dmr_is_due(pb))
			continue;
		dmr_fault_lose_bio(f, "expired");
		list_add_tail(&pb->node, &late);
	}
	list_for_each_entry_safe(pb, next_pb, &late, node) {
		list_del_init(&pb->node);
		dmr_count(inst, DMR_EXPIRED);
		dmr_end(pb, dmr_last_word(pb));
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
		dmr_fault_lose_bio(f, "pushed back");
		dmr_end(pb, BLK_STS_DM_REQUEUE);
	}
	mutex_unlock(&inst->mutex);
}
