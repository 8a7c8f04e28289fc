// SPDX-License-Identifier: GPL-2.0-only
/* Faults, and the fences that they are to lookups. Everything here needs inst->mutex. */
#include <linux/rculist.h>
#include <linux/slab.h>

#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void dmr_fault_trace(const struct dmr_fault *f, const char *state)
{
	trace_dm_remap_fault(f->inst->id, f->id, f->start, f->len, state);
}

/*
 * After a change of table or fences, which lookups see by themselves. The generation rises last: who
 * reads the new one sees the change and the new slow bits.
 */
void dmr_publish(struct dmr_instance *inst)
{
	assign_bit(DMR_SLOW_EXTENTS, &inst->slow, inst->extents);
	assign_bit(DMR_SLOW_FENCES, &inst->slow, !list_empty(&inst->faults));
	/* Pairs with the acquires in map, dmr_issue() and dmr_stale(). */
	smp_store_release(&inst->gen, inst->gen + 1);
}

/*
 * Publishes new fences. Their faults are listed when every lookup sees them: a grace period later,
 * which nobody waits for under inst->mutex, since deadlines need that.
 */
void dmr_publish_fences(struct dmr_instance *inst)
{
	struct dmr_fault *f;

	dmr_publish(inst);
	list_for_each_entry_reverse(f, &inst->faults, node) {
		if (f->published)
			break;
		f->published = true;
		f->cookie = get_state_synchronize_rcu();
	}
	queue_rcu_work(inst->wq, &inst->listing);
}

void dmr_listing_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(to_rcu_work(work), struct dmr_instance, listing);
	bool ring = false, more = false;
	struct dmr_fault *f;

	mutex_lock(&inst->mutex);
	list_for_each_entry(f, &inst->faults, node) {
		if (f->listed)
			continue;
		f->listed = poll_state_synchronize_rcu(f->cookie);
		ring |= f->listed;
		more |= !f->listed;
	}
	if (ring)
		dmr_ring(inst);
	if (more)
		queue_rcu_work(inst->wq, &inst->listing);
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

/* NULL: the bound on faults is reached. Its fence still has to be published. */
struct dmr_fault *dmr_fault_new(struct dmr_instance *inst, u64 start, u64 len)
{
	struct dmr_fault *f = list_first_entry_or_null(&inst->free_faults, struct dmr_fault, spare);

	if (!f)
		return NULL;
	list_del(&f->spare);
	cond_synchronize_rcu_expedited(f->cookie);	/* nobody reads it any more */
	memset(f, 0, sizeof(*f));
	INIT_WORK(&f->op, dmr_op_work);
	f->inst = inst;
	f->id = inst->next_fault++;
	f->start = start;
	f->len = len;
	list_add_tail_rcu(&f->node, &inst->faults);
	dmr_count(inst, DMR_FAULTS);
	atomic_inc(&dmr_live_faults);
	dmr_fault_trace(f, "open");
	return f;
}

struct dmr_fault *dmr_fault_find(struct dmr_instance *inst, u64 id)
{
	struct dmr_fault *f;

	list_for_each_entry(f, &inst->faults, node)
		if (f->id == id)
			return f->listed ? f : NULL;
	return NULL;
}

/* Slots that were placed but will not be installed are free again, unless they failed. */
void dmr_slots_forget(struct dmr_instance *inst, const struct dm_remap_piece *p, unsigned int nr)
{
	u64 s;

	for (; nr--; p++)
		for (s = p->slot; p->kind == DM_REMAP_MAPPED &&
				  s < p->slot + round_up(p->len, inst->slot_unit); s++)
			if (!test_bit(s - inst->slot_start, inst->retired))
				clear_bit(s - inst->slot_start, inst->used);
}

/* Lifts the fence. To be published, and dmr_unpark() called. */
void dmr_fault_end(struct dmr_fault *f, const char *how)
{
	dmr_fault_trace(f, how);
	if (f->placing && !f->installing)
		dmr_slots_forget(f->inst, f->pieces, f->nr_pieces);
	if (f->pb)
		f->pb->fault = NULL;
	kvfree(f->pieces);
	f->pieces = NULL;
	smp_wmb();	/* the table first; pairs with dmr_lookup() */
	list_del_rcu(&f->node);
	f->cookie = get_state_synchronize_rcu();
	list_add_tail(&f->spare, &f->inst->free_faults);
	atomic_dec(&dmr_live_faults);
}

/* Its bio leaves: an unpinned fault ends, a pinned one stays. */
void dmr_fault_lose_bio(struct dmr_fault *f, const char *how)
{
	f->pb->fault = NULL;
	f->pb = NULL;
	f->flags &= ~DM_REMAP_FAULT_F_HELD;
	if (f->flags & DM_REMAP_FAULT_F_PINNED) {
		dmr_fault_trace(f, how);
		return;
	}
	dmr_fault_end(f, how);
	dmr_publish(f->inst);
	dmr_unpark(f->inst);
}

/* The I/O of a TRY or PLACE has returned. */
void dmr_fault_op_done(struct dmr_fault *f)
{
	struct dmr_instance *inst = f->inst;
	struct dmr_bio *pb = f->pb;
	bool failed = f->rest_failed;
	blk_status_t over;
	unsigned int i;

	for (i = 0; i < f->nr_pieces; i++) {
		struct dm_remap_piece *p = &f->pieces[i];

		if (f->placing && p->result != DM_REMAP_STATUS_OK) {
			failed = true;
			bitmap_set(inst->retired, p->slot - inst->slot_start,
				   round_up(p->len, inst->slot_unit));
		}
	}
	if (f->placing && !failed) {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
		dmr_fault_trace(f, "placed");
	} else {
		f->state = DM_REMAP_FAULT_OPEN;
		dmr_fault_trace(f, f->placing ? "not placed" : "tried");
	}
	/* However busy its owner keeps it. */
	over = dmr_hold_over(pb);
	if (over) {
		dmr_fault_lose_bio(f, "left");
		dmr_end(pb, over);
	}
}

/* Fences without a bio end with their owner; what is pinned waits for the next. */
void dmr_owner_gone(struct dmr_instance *inst)
{
	struct dmr_fault *f, *next;
	bool lifted = false;

	WRITE_ONCE(inst->owner, 0);
	list_for_each_entry_safe(f, next, &inst->faults, node)
		if ((f->flags & DM_REMAP_FAULT_F_FENCE) && !(f->flags & DM_REMAP_FAULT_F_PINNED)) {
			dmr_fault_end(f, "owner gone");
			lifted = true;
		}
	if (lifted) {
		dmr_publish(inst);
		dmr_unpark(inst);
	}
}
