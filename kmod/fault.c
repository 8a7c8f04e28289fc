// SPDX-License-Identifier: GPL-2.0-only
/* Faults, and the fences that they are to lookups. All but the works needs inst->mutex. */
#include "shim.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

/* After a change of table or fences: who reads the new generation sees it, and the slow bits. */
void dmr_publish(struct dmr_instance *inst)
{
	/* Up to the first install nobody's data was on the spare that a failed flush could lose. */
	if (inst->extents && dmr_is_ready(inst) && !test_bit(DMR_SLOW_EXTENTS, &inst->slow))
		clear_bit(DMR_SLOW_SPARE_FLUSH, &inst->slow);
	assign_bit(DMR_SLOW_EXTENTS, &inst->slow, inst->extents);
	assign_bit(DMR_SLOW_FENCES, &inst->slow, !list_empty(&inst->faults));
	/* Pairs with the acquires in dmr_map(), dmr_lookup() and stale(). */
	smp_store_release(&inst->gen, inst->gen + 1);
}

/* A fault is listed a grace period after it began: every lookup sees its fence then. */
void dmr_listing_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(to_rcu_work(work), struct dmr_instance, listing);
	struct dmr_fault *f;

	mutex_lock(&inst->mutex);
	list_for_each_entry(f, &inst->faults, node) {
		if (f->listed)
			continue;
		f->listed = poll_state_synchronize_rcu(f->cookie);
		if (f->listed)
			dmr_ring(inst);
		else
			queue_rcu_work(inst->wq, &inst->listing);
	}
	mutex_unlock(&inst->mutex);
}

bool dmr_fault_overlaps(struct dmr_instance *inst, u64 start, u64 len)
{
	struct dmr_fault *f;

	list_for_each_entry(f, &inst->faults, node)
		if (f->start < start + len && start < f->start + f->len)
			return true;
	return false;
}

struct dmr_fault *dmr_fault_find(struct dmr_instance *inst, u64 id)
{
	struct dmr_fault *f;

	list_for_each_entry(f, &inst->faults, node)
		if (f->id == id)
			return f->listed ? f : NULL;
	return NULL;
}

/* Lifts the fence. */
void dmr_fault_end(struct dmr_fault *f, const char *how)
{
	trace_dm_remap_fault(f, how);
	if (f->placing && !f->installing)
		dmr_slots_mark(f->inst, f->pieces, f->nr_pieces, false);
	if (f->pb)
		f->pb->fault = NULL;
	kfree(f->pieces);
	smp_wmb();	/* the table first; pairs with dmr_lookup() */
	list_del_rcu(&f->node);
	f->cookie = get_state_synchronize_rcu();
	list_add_tail(&f->spare, &f->inst->free_faults);
	f->inst->open_faults--;
	atomic_dec(&dmr_live_faults);
	dmr_publish(f->inst);
	dmr_unpark(f->inst);
}

/* Its bio ends: an unpinned fault does too, a pinned one stays. */
void dmr_fault_lose_bio(struct dmr_fault *f, blk_status_t status, const char *how)
{
	struct dmr_bio *pb = f->pb;

	pb->fault = NULL;
	f->pb = NULL;
	f->flags &= ~DM_REMAP_FAULT_F_HELD;
	if (f->flags & DM_REMAP_FAULT_F_PINNED)
		trace_dm_remap_fault(f, how);
	else
		dmr_fault_end(f, how);
	dmr_end(pb, status);
}

/* If its bio has been held for too long; a busy one is asked again when its I/O returns. */
void dmr_fault_expire(struct dmr_fault *f)
{
	blk_status_t over = f->pb && f->state != DM_REMAP_FAULT_BUSY ? dmr_hold_over(f->pb) : 0;

	if (over)
		dmr_fault_lose_bio(f, over, "left");
}

/* The I/O of a TRY or PLACE has returned. */
static void op_done(struct work_struct *work)
{
	struct dmr_fault *f = container_of(work, struct dmr_fault, op_done);
	struct dmr_instance *inst = f->inst;
	bool failed = f->rest_failed;
	struct dm_remap_piece *p;

	mutex_lock(&inst->mutex);
	for (p = f->pieces; f->placing && p < f->pieces + f->nr_pieces; p++)
		if (p->result != DM_REMAP_STATUS_OK) {
			failed = true;
			bitmap_set(inst->retired, p->slot - inst->slot_start,
				   round_up(p->len, inst->slot_unit));
		}
	f->state = DM_REMAP_FAULT_OPEN;
	if (f->placing && !failed) {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
	}
	trace_dm_remap_fault(f, !f->placing ? "tried" : failed ? "not placed" : "placed");
	dmr_fault_expire(f);
	dmr_ring(inst);
	mutex_unlock(&inst->mutex);
}

/* NULL: the bound on faults is reached. */
struct dmr_fault *dmr_fault_new(struct dmr_instance *inst, u64 start, u64 len)
{
	struct dmr_fault *f = list_first_entry_or_null(&inst->free_faults, struct dmr_fault, spare);

	if (!f)
		return NULL;
	list_del(&f->spare);
	cond_synchronize_rcu_expedited(f->cookie);	/* nobody reads it any more */
	*f = (struct dmr_fault){ .inst = inst, .id = inst->next_fault++, .start = start, .len = len };
	INIT_WORK(&f->op, dmr_op_work);
	INIT_WORK(&f->op_done, op_done);
	list_add_tail_rcu(&f->node, &inst->faults);
	dmr_publish(inst);
	f->cookie = get_state_synchronize_rcu();
	queue_rcu_work(inst->wq, &inst->listing);
	dmr_count(inst, faults);
	inst->open_faults++;
	atomic_inc(&dmr_live_faults);
	trace_dm_remap_fault(f, "open");
	return f;
}

/* Fences without a bio end with their owner; what is pinned waits for the next. */
void dmr_owner_gone(struct dmr_instance *inst)
{
	struct dmr_fault *f, *next;

	WRITE_ONCE(inst->owner, 0);
	list_for_each_entry_safe(f, next, &inst->faults, node)
		if ((f->flags & DM_REMAP_FAULT_F_FENCE) && !(f->flags & DM_REMAP_FAULT_F_PINNED))
			dmr_fault_end(f, "owner gone");
}
