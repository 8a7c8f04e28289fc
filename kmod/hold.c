// SPDX-License-Identifier: GPL-2.0-only
/* Bios that cannot go on: until a verdict, a fence's end, a deadline, or a noflush suspend. */
#include "shim.h"

/* How a hold ends without a verdict; BLK_STS_OK: not yet. */
blk_status_t dmr_hold_over(const struct dmr_bio *pb)
{
	if (dm_noflush_suspending(pb->t->ti))
		return BLK_STS_DM_REQUEUE;
	if (!pb->held || time_before(jiffies, pb->deadline))
		return BLK_STS_OK;
	dmr_count(pb->t->inst, expired);
	return pb->error;
}

/* A discard has no pages to hold. */
static unsigned int held_len(const struct dmr_bio *pb)
{
	return dmr_is_discard(pb) ? 0 : pb->place.len;
}

static blk_status_t hold_locked(struct dmr_bio *pb, enum dmr_reason reason)
{
	struct dmr_instance *inst = pb->t->inst;
	blk_status_t over = dmr_hold_over(pb);
	bool taken = reason == DMR_REDO;
	unsigned int ms = inst->opt.value[dmr_is_ready(inst) ? DMR_HOLD_MS : DMR_READY_MS];

	if (over)
		return over;
	if (reason >= DMR_HEAL && !READ_ONCE(inst->owner) && !inst->opt.queue_unowned) {
		dmr_count(inst, unowned);
		return pb->error;
	}
	if (!pb->held) {
		/* What its disk has taken was bounded by that. One bio of any size always has room. */
		if (!taken && inst->held_bios[0] && (inst->held_bios[0] >= inst->opt.value[DMR_MAX_BIOS] ||
		     inst->held_sectors[0] + held_len(pb) > 2ULL * inst->opt.value[DMR_MAX_KIB])) {
			dmr_count(inst, refused);
			return pb->error;
		}
		pb->held = true;
		pb->taken = taken;
		pb->deadline = jiffies + msecs_to_jiffies(ms);
		inst->held_bios[taken]++;
		inst->held_sectors[taken] += held_len(pb);
	}
	pb->reason = reason;
	list_add_tail(&pb->node, &inst->incoming);
	/* Under the lock: after it, the worker may end the bio and its table. */
	queue_work(inst->wq, &inst->work);
	queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
	return BLK_STS_OK;
}

/* Takes a bio that cannot go on, unless it returns a status: the caller ends the bio with that. */
blk_status_t dmr_hold(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	struct dmr_instance *inst = pb->t->inst;
	unsigned long flags;
	blk_status_t status;

	/* Nothing of it is in flight that a poller could wait for. */
	dmr_to_bio(pb)->bi_cookie = BLK_QC_T_NONE;
	if (error)
		pb->error = error;
	spin_lock_irqsave(&inst->lock, flags);
	status = hold_locked(pb, reason);
	spin_unlock_irqrestore(&inst->lock, flags);
	return status;
}

/* For a bio that is ended by us; in map, too. */
int dmr_hold_or_end(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	blk_status_t status = dmr_hold(pb, reason, error);

	return status ? dmr_end(pb, status) : DM_MAPIO_SUBMITTED;
}

/* Ends a bio that map or end_io keeps; on no list. */
int dmr_end(struct dmr_bio *pb, blk_status_t status)
{
	struct dmr_instance *inst = pb->t->inst;
	struct bio *bio = dmr_to_bio(pb);
	unsigned long flags;

	if (pb->held) {
		spin_lock_irqsave(&inst->lock, flags);
		inst->held_bios[pb->taken]--;
		inst->held_sectors[pb->taken] -= held_len(pb);
		spin_unlock_irqrestore(&inst->lock, flags);
	}
	pb->ended = true;
	/* What it was sent to may be gone by now; our own disk is not. */
	bio->bi_bdev = dm_disk(inst->md)->part0;
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	bio->bi_status = status;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

/* A fence is gone: the parked bios look again. Needs inst->mutex. */
void dmr_unpark(struct dmr_instance *inst)
{
	spin_lock_irq(&inst->lock);
	list_splice_tail_init(&inst->parked, &inst->incoming);
	queue_work(inst->wq, &inst->work);
	spin_unlock_irq(&inst->lock);
}

static bool fenced(struct dmr_instance *inst, struct dmr_bio *pb)
{
	/* Any part of it: the rest alone would come straight back. */
	return !dmr_is_ready(inst) ||
	       (!dmr_is_flush(pb) && dmr_fault_overlaps(inst, pb->place.start, pb->place.len));
}

static bool open_fault(struct dmr_instance *inst, struct dmr_bio *pb)
{
	struct dmr_fault *f = dmr_fault_new(inst, pb->place.start, pb->place.len);
	bool heal = pb->reason == DMR_HEAL;

	if (!f)
		return false;
	f->flags = DM_REMAP_FAULT_F_HELD | (heal ? DM_REMAP_FAULT_F_HEAL : 0) |
		   (op_is_write(pb->opf) ? DM_REMAP_FAULT_F_WRITE : 0);
	f->status = heal ? DM_REMAP_STATUS_OK : dmr_wire_status(pb->error);
	f->pb = pb;
	pb->fault = f;
	return true;
}

/* Sending may block: what waits its turn stays where its deadline finds it. */
void dmr_send_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, send);
	struct dmr_bio *pb;

	do {
		spin_lock_irq(&inst->lock);
		pb = list_first_entry_or_null(&inst->go, struct dmr_bio, node);
		if (pb)
			list_del_init(&pb->node);
		spin_unlock_irq(&inst->lock);
		if (pb)
			dmr_issue(pb);
	} while (pb);
}

void dmr_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, work);
	struct dmr_bio *pb, *next;
	LIST_HEAD(incoming);
	LIST_HEAD(go);		/* no longer fenced */
	blk_status_t over;

	mutex_lock(&inst->mutex);
	spin_lock_irq(&inst->lock);
	list_splice_init(&inst->incoming, &incoming);
	spin_unlock_irq(&inst->lock);

	list_for_each_entry_safe(pb, next, &incoming, node) {
		list_del_init(&pb->node);
		over = dmr_hold_over(pb);
		if (over) {
			dmr_end(pb, over);
			continue;
		}
		/* Without a free fault, too: it is sent again when one has ended. */
		if (fenced(inst, pb) || (pb->reason >= DMR_HEAL && !open_fault(inst, pb)))
			list_add_tail(&pb->node, &inst->parked);
		else if (pb->reason < DMR_HEAL)
			list_add_tail(&pb->node, &go);
		pb->reason = DMR_PARK;	/* when it comes again */
	}
	spin_lock_irq(&inst->lock);
	list_splice_tail(&go, &inst->go);
	spin_unlock_irq(&inst->lock);
	queue_work(inst->disk_wq, &inst->send);
	mutex_unlock(&inst->mutex);
}

static void take_over(struct list_head *from, struct list_head *out)
{
	struct dmr_bio *pb, *next;

	list_for_each_entry_safe(pb, next, from, node) {
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
	list_for_each_entry_safe(f, next, &inst->faults, node)
		dmr_fault_expire(f);
	take_over(&inst->parked, &out);
	spin_lock_irq(&inst->lock);
	take_over(&inst->incoming, &out);
	take_over(&inst->go, &out);
	spin_unlock_irq(&inst->lock);
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
	if (READ_ONCE(inst->held_bios[0]) || READ_ONCE(inst->held_bios[1]))
		queue_delayed_work(inst->wq, &inst->deadlines, HZ / 4);
}
