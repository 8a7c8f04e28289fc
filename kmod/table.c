// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of extents: a maple tree from sectors of the mapped device to where they are. A value
 * holds the kind and the distance to the slot rather than the slot, so that it stays true for any
 * part of the range: the tree splits and trims ranges by itself.
 *
 * Readers need RCU only: writers change what a fence hides, or what is not ready.
 */
#include "shim.h"

/* A tree's index and value are a long. */
static_assert(BITS_PER_LONG == 64);

#define KIND_WIDTH 2
#define DISTANCE_WIDTH 60

static void *encode(const struct dm_remap_extent *e)
{
	u64 distance = e->kind == DM_REMAP_POISON_DATA ? 0 : e->slot - e->start;

	if (e->kind == DM_REMAP_DIRECT)
		return NULL;
	return xa_mk_value((distance & GENMASK_ULL(DISTANCE_WIDTH - 1, 0)) << KIND_WIDTH | e->kind);
}

/* What is at the start of the range @start to @end, and how far; DIRECT where there is no extent. */
void dmr_table_at(struct dmr_instance *inst, u64 start, u64 end, struct dm_remap_extent *e)
{
	MA_STATE(mas, &inst->table, start, start);
	void *value;

	rcu_read_lock();
	value = mas_find(&mas, end - 1);
	rcu_read_unlock();
	*e = (struct dm_remap_extent){ .start = start, .len = min_t(u64, end - start, UINT_MAX) };
	if (!value)
		return;
	e->len = min_t(u64, e->len, (mas.index > start ? mas.index : mas.last + 1) - start);
	if (mas.index > start)
		return;
	e->kind = xa_to_value(value) & GENMASK(KIND_WIDTH - 1, 0);
	if (e->kind != DM_REMAP_POISON_DATA)
		e->slot = start + sign_extend64(xa_to_value(value) >> KIND_WIDTH, DISTANCE_WIDTH - 1);
}

/* A lookup goes round until a writer is done; one that interrupts a writer would for ever: stale(). */
static int store(struct dmr_instance *inst, u64 start, u64 last, void *value)
{
	int r;

	WRITE_ONCE(inst->storing, dmr_is_ready(inst));	/* before that nobody looks up */
	r = mtree_store_range(&inst->table, start, last, value, inst->storing ? GFP_ATOMIC : DMR_GFP);
	WRITE_ONCE(inst->storing, false);
	return r;
}

/* Nobody looks up. In RCU mode a tree ends as badly as a branch of it: see dmr_table_set(). */
void dmr_table_clear(struct dmr_instance *inst)
{
	mt_clear_in_rcu(&inst->table);
	mtree_destroy(&inst->table);
	mt_set_in_rcu(&inst->table);
	inst->extents = 0;
}

/*
 * The range becomes @e; of kind DIRECT, no extent at all. Needs inst->mutex. What is inside goes an
 * extent at a time: a full branch that one store takes away is freed wrongly, by mt_clear_meta().
 */
int dmr_table_set(struct dmr_instance *inst, const struct dm_remap_extent *e)
{
	MA_STATE(mas, &inst->table, e->start, e->start);
	long more = e->kind != DM_REMAP_DIRECT;
	u64 end = e->start + e->len;
	void *found;
	int r;

	for (;; mas_set(&mas, mas.last + 1)) {
		rcu_read_lock();
		found = mas_find(&mas, end - 1);
		rcu_read_unlock();
		if (!found)
			break;
		if (mas.index < e->start || mas.last >= end || mas.last - mas.index + 1 == e->len) {
			more += (mas.index < e->start) + (mas.last >= end) - 1;
			continue;
		}
		r = store(inst, mas.index, mas.last, NULL);
		if (r)
			return r;
		inst->extents--;
	}
	r = store(inst, e->start, end - 1, encode(e));
	if (!r)
		inst->extents += more;
	return r;
}
