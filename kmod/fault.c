// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults, the fences they put up, and the view that shows both to lookups.
 * Everything here needs inst->mutex.
 */
#include <linux/slab.h>
#include <linux/sort.h>

#include "shim.h"

struct dmr_view *dmr_view(struct dmr_instance *inst)
{
	return rcu_dereference_protected(inst->view, lockdep_is_held(&inst->mutex));
}

static int by_start(const void *a, const void *b)
{
	const struct dmr_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void assign_slow(struct dmr_instance *inst, int bit, bool value)
{
	if (value)
		set_bit(bit, &inst->slow);
	else
		clear_bit(bit, &inst->slow);
}

/*
 * Two views take turns, so this needs no memory; a view is written only when
 * nobody can read it any more. The generation rises last: who reads the new
 * one sees the new view and the new slow bits.
 */
void dmr_publish(struct dmr_instance *inst, struct dmr_index *index, bool ready)
{
	struct dmr_view *v = inst->other, *old = dmr_view(inst);
	struct dmr_fault *f;

	cond_synchronize_rcu_expedited(v->cookie);
	v->index = index;
	v->ready = ready;
	v->nr_fences = 0;
	list_for_each_entry(f, &inst->faults, node)
		v->fences[v->nr_fences++] = (struct dmr_range){
			.start = f->start,
			.end = f->start + f->len,
		};
	sort(v->fences, v->nr_fences, sizeof(v->fences[0]), by_start, NULL);
	rcu_assign_pointer(inst->view, v);
	assign_slow(inst, DMR_SLOW_UNREADY, !ready);
	assign_slow(inst, DMR_SLOW_EXTENTS, index->extents);
	assign_slow(inst, DMR_SLOW_FENCES, v->nr_fences);
	/* Pairs with the acquires in map, dmr_issue() and dmr_stale(). */
	smp_store_release(&inst->gen, inst->gen + 1);
	old->cookie = start_poll_synchronize_rcu_expedited();
	inst->other = old;
}

void dmr_publish_fences(struct dmr_instance *inst)
{
	struct dmr_view *v = dmr_view(inst);

	dmr_publish(inst, v->index, v->ready);
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
	struct dmr_fault *f = list_first_entry_or_null(&inst->free_faults,
						       struct dmr_fault, node);

	if (!f)
		return NULL;
	list_del(&f->node);
	memset(f, 0, sizeof(*f));
	INIT_WORK(&f->op, dmr_op_work);
	f->id = inst->next_fault++;
	f->start = start;
	f->len = len;
	list_add_tail(&f->node, &inst->faults);
	atomic64_inc(&inst->faults_opened);
	atomic_inc(&dmr_live_faults);
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
void dmr_slots_forget(struct dmr_instance *inst, struct dmr_fault *f)
{
	unsigned int i;

	for (i = 0; f->placing && i < f->nr_pieces; i++) {
		const struct dm_remap_piece *p = &f->pieces[i];
		u64 s, first = p->slot - inst->slot_start;

		if (p->kind != DM_REMAP_MAPPED)
			continue;
		for (s = first; s < first + round_up(p->len, inst->slot_unit); s++)
			if (!test_bit(s, inst->retired))
				clear_bit(s, inst->used);
	}
}

/* The fence is lifted at the next publication. */
void dmr_fault_end(struct dmr_instance *inst, struct dmr_fault *f)
{
	if (f->pb)
		f->pb->fault = NULL;
	kvfree(f->pieces);
	f->pieces = NULL;
	list_move(&f->node, &inst->free_faults);
	atomic_dec(&dmr_live_faults);
}

/* Its bio leaves: an unpinned fault ends, a pinned one stays. */
void dmr_fault_lose_bio(struct dmr_instance *inst, struct dmr_fault *f)
{
	f->pb->fault = NULL;
	f->pb = NULL;
	f->flags &= ~DM_REMAP_FAULT_F_HELD;
	if (f->flags & DM_REMAP_FAULT_F_PINNED)
		return;
	dmr_slots_forget(inst, f);
	dmr_fault_end(inst, f);
	dmr_publish_fences(inst);
	dmr_unpark(inst);
}

static void retire_slot(struct dmr_instance *inst, const struct dm_remap_piece *p)
{
	bitmap_set(inst->retired, p->slot - inst->slot_start,
		   round_up(p->len, inst->slot_unit));
}

/* The I/O of a TRY or PLACE has returned. */
void dmr_fault_op_done(struct dmr_instance *inst, struct dmr_fault *f)
{
	struct dmr_bio *pb = f->pb;
	bool failed = f->rest_failed;
	unsigned int i;

	for (i = 0; i < f->nr_pieces; i++) {
		struct dm_remap_piece *p = &f->pieces[i];

		if (!f->placing) {
			if (p->result == DM_REMAP_STATUS_OK)
				bitmap_set(f->good, p->offset, p->len);
		} else if (p->result != DM_REMAP_STATUS_OK) {
			failed = true;
			if (p->kind == DM_REMAP_MAPPED)
				retire_slot(inst, p);
		}
	}
	if (f->placing && !failed) {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
	} else {
		f->state = DM_REMAP_FAULT_OPEN;
	}
	if (dmr_pushing_back(pb)) {
		dmr_fault_lose_bio(inst, f);
		dmr_end(pb, BLK_STS_DM_REQUEUE);
	} else if (dmr_is_due(pb)) {
		/* However busy its owner keeps it. */
		dmr_fault_lose_bio(inst, f);
		atomic64_inc(&inst->expired);
		dmr_end(pb, dmr_last_word(pb));
	}
}

/* Fences without a bio end with their owner; what is pinned waits for the next. */
void dmr_owner_gone(struct dmr_instance *inst)
{
	struct dmr_fault *f, *next;
	bool lifted = false;

	WRITE_ONCE(inst->owner, 0);
	list_for_each_entry_safe(f, next, &inst->faults, node)
		if ((f->flags & DM_REMAP_FAULT_F_FENCE) &&
		    !(f->flags & DM_REMAP_FAULT_F_PINNED)) {
			dmr_fault_end(inst, f);
			lifted = true;
		}
	if (lifted) {
		dmr_publish_fences(inst);
		dmr_unpark(inst);
	}
}
