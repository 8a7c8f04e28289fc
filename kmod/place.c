// SPDX-License-Identifier: GPL-2.0-only
/* TRY and PLACE: what the pieces of a fault may be. Everything here needs inst->mutex. */
#include <linux/mm.h>
#include <linux/slab.h>

#include "shim.h"

#define SOUND (BIT(DM_REMAP_DIRECT) | BIT(DM_REMAP_MAPPED))

/* Is everything that the table has in the range of one of the kinds? */
static bool covers_only(struct dmr_instance *inst, u64 start, u64 len, unsigned int kinds)
{
	u64 at = start, end = start + len;
	struct dm_remap_extent e = {};

	while (at < end) {
		bool found = dmr_table_next(&inst->table, at, end, &e);

		if ((!found || e.start > at) && !(kinds & BIT(DM_REMAP_DIRECT)))
			return false;
		if (!found)
			break;
		if (!(kinds & BIT(e.kind)))
			return false;
		at = e.start + e.len;
	}
	return true;
}

/* Does the piece poison exactly the slot that the range has? */
static bool same_slot(struct dmr_instance *inst, u64 start, u64 len, u64 slot)
{
	struct dm_remap_extent e;

	return dmr_table_next(&inst->table, start, start + len, &e) && e.start == start &&
	       e.len == len && e.kind == DM_REMAP_MAPPED && e.slot == slot;
}

/* Is a held write to put its data where the piece is? */
static bool writes(const struct dmr_fault *f)
{
	return f->pb && (f->flags & DM_REMAP_FAULT_F_WRITE);
}

/* A slot that the piece names is taken at once, so that no later piece has it too. */
static int check_piece(const struct dmr_fault *f, bool place, const struct dm_remap_piece *p,
		       struct netlink_ext_ack *extack)
{
	struct dmr_instance *inst = f->inst;
	u64 start = f->start + p->offset, units = round_up((u64)p->len, inst->slot_unit);
	bool ok;

	if (!p->len || p->result || memchr_inv(p->pad, 0, sizeof(p->pad)) ||
	    (p->offset | p->len) % inst->block)
		return dmr_refuse(extack, -EINVAL,
				  "piece is empty, unaligned, or has fields that must be zero");
	if (p->offset > f->len || p->len > f->len - p->offset)
		return dmr_refuse(extack, -ERANGE, "piece is outside its fault");
	if (!place) {
		ok = p->kind == DM_REMAP_DIRECT && !p->slot &&
		     covers_only(inst, start, p->len, SOUND);
		return ok ? 0 : dmr_refuse(extack, -EINVAL,
					   "a piece of TRY has no kind or slot, and no poison below it");
	}
	switch (p->kind) {
	case DM_REMAP_DIRECT:
		ok = !p->slot && !f->pb &&
		     covers_only(inst, start, p->len,
				 BIT(DM_REMAP_MAPPED) | BIT(DM_REMAP_POISON_DATA));
		break;
	case DM_REMAP_MAPPED:
		if (p->slot % inst->slot_unit || !dmr_in_slot_area(inst, p->slot, units))
			return dmr_refuse(extack, -ERANGE, "slot is unaligned or outside the slot area");
		if (dmr_slots_used(inst, p->slot, units))
			return dmr_refuse(extack, -EEXIST, "slot is in use or retired");
		bitmap_set(inst->used, p->slot - inst->slot_start, units);
		return 0;
	case DM_REMAP_POISON_DATA:
		ok = !p->slot && !(f->flags & DM_REMAP_FAULT_F_WRITE) &&
		     covers_only(inst, start, p->len, BIT(DM_REMAP_DIRECT));
		break;
	case DM_REMAP_POISON_SLOT:
		ok = !(f->flags & DM_REMAP_FAULT_F_WRITE) && same_slot(inst, start, p->len, p->slot);
		break;
	default:
		ok = false;
	}
	return ok ? 0 : dmr_refuse(extack, -EINVAL,
				   "piece's kind is not allowed over what the table has there");
}

/* Returns how many pieces, from the first, are right. */
static unsigned int check_pieces(const struct dmr_fault *f, bool place,
				 const struct dm_remap_piece *p, unsigned int nr, int *r,
				 struct netlink_ext_ack *extack)
{
	unsigned int i;
	u64 done = 0;

	for (i = 0; i <= nr; i++) {
		u64 to = i < nr ? p[i].offset : f->len;

		*r = 0;
		if (to < done)
			*r = dmr_refuse(extack, -EINVAL, "pieces overlap or are out of order");
		/* What a held write leaves out is written where it is. */
		else if (place && writes(f) && to <= f->len &&
			 !covers_only(f->inst, f->start + done, to - done, SOUND))
			*r = dmr_refuse(extack, -EINVAL, "a write must place all poison that it covers");
		else if (i < nr)
			*r = check_piece(f, place, &p[i], extack);
		if (*r || i == nr)
			break;
		done = (u64)p[i].offset + p[i].len;
	}
	return i;
}

static void take_slots(const struct dmr_fault *f)
{
	unsigned int i;

	for (i = 0; i < f->nr_pieces; i++)
		if (f->pieces[i].kind == DM_REMAP_MAPPED)
			bitmap_set(f->inst->used, f->pieces[i].slot - f->inst->slot_start,
				   round_up(f->pieces[i].len, f->inst->slot_unit));
}

/* A work sends what is to be written, so that no request waits for a disk. */
int dmr_start_op(struct dmr_instance *inst, u64 id, bool place,
		 const struct dm_remap_piece *pieces, unsigned int nr,
		 struct netlink_ext_ack *extack)
{
	struct dmr_fault *f = dmr_fault_find(inst, id);
	struct dm_remap_piece *new;
	unsigned int good;
	int r;

	if (!f)
		return dmr_refuse(extack, -ENOENT, "no such fault");
	if (f->state == DM_REMAP_FAULT_BUSY || f->installing ||
	    (f->state == DM_REMAP_FAULT_PLACED && !(place && f->pb)))
		return dmr_refuse(extack, -EBUSY, "the fault is busy or placed");
	if (!place && !writes(f))
		return dmr_refuse(extack, -EINVAL, "TRY is for held writes");
	/* Each may add two, as it may split an extent. INSTALL, which must not fail, does not ask. */
	if (place && inst->extents + 2 * nr > DM_REMAP_MAX_EXTENTS)
		return dmr_refuse(extack, -ENOSPC, "too many extents");
	new = kvmalloc_array(nr, sizeof(*new), GFP_KERNEL);
	if (!new)
		return -ENOMEM;
	memcpy(new, pieces, nr * sizeof(*new));
	/* The slots that the fault has are free for this. */
	if (f->placing)
		dmr_slots_forget(inst, f->pieces, f->nr_pieces);
	good = check_pieces(f, place, new, nr, &r, extack);
	if (r) {
		dmr_slots_forget(inst, new, good);
		if (f->placing)
			take_slots(f);
		kvfree(new);
		return r;
	}
	kvfree(f->pieces);
	f->pieces = new;
	f->nr_pieces = nr;
	f->placing = place;
	f->rest_failed = false;
	if (writes(f)) {
		f->state = DM_REMAP_FAULT_BUSY;
		queue_work(inst->wq, &f->op);
	} else {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
		dmr_ring(inst);
	}
	dmr_fault_trace(f, writes(f) ? "busy" : "placed");
	return 0;
}
