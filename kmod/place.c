// SPDX-License-Identifier: GPL-2.0-only
/* TRY and PLACE: what the pieces of a fault may be. Everything here needs inst->mutex. */
#include "shim.h"
#include "trace.h"

bool dmr_slots_used(struct dmr_instance *inst, u64 slot, u64 len)
{
	u64 first = slot - inst->slot_start;

	return find_next_bit(inst->used, first + len, first) < first + len;
}

/* What was placed but will not be installed is free again, unless it failed. */
void dmr_slots_mark(struct dmr_instance *inst, const struct dm_remap_piece *p, u32 nr, bool used)
{
	for (; nr--; p++) {
		u64 first = p->slot - inst->slot_start, len = round_up(p->len, inst->slot_unit);

		if (p->kind == DM_REMAP_MAPPED && used)
			bitmap_set(inst->used, first, len);
		else if (p->kind == DM_REMAP_MAPPED && !test_bit(first, inst->retired))
			bitmap_clear(inst->used, first, len);
	}
}

#define SOUND (BIT(DM_REMAP_DIRECT) | BIT(DM_REMAP_MAPPED))

/* Is everything in the range of one of the kinds? */
static bool covers_only(struct dmr_instance *inst, u64 start, u64 len, unsigned int kinds)
{
	struct dm_remap_extent e;
	u64 end = start + len;

	for (; start < end; start += e.len) {
		dmr_table_at(inst, start, end, &e);
		if (!(kinds & BIT(e.kind)))
			return false;
	}
	return true;
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
	struct dm_remap_extent e;
	bool ok;

	if (!p->len || p->result || memchr_inv(p->pad, 0, sizeof(p->pad)) ||
	    (p->offset | p->len) % inst->block)
		return dmr_refuse(extack, -EINVAL, "piece is empty, unaligned or not zero-padded");
	if (!dmr_inside(p->offset, p->len, f->len))
		return dmr_refuse(extack, -ERANGE, "piece is outside its fault");
	if (place && p->kind == DM_REMAP_MAPPED) {
		if (p->slot % inst->slot_unit ||
		    !dmr_inside(p->slot - inst->slot_start, units, inst->slot_sectors))
			return dmr_refuse(extack, -ERANGE, "slot is unaligned or outside the slot area");
		if (dmr_slots_used(inst, p->slot, units))
			return dmr_refuse(extack, -EEXIST, "slot is in use or retired");
		dmr_slots_mark(inst, p, 1, true);
		return 0;
	}
	dmr_table_at(inst, start, start + p->len, &e);
	if (!place)
		ok = p->kind == DM_REMAP_DIRECT && !p->slot && covers_only(inst, start, p->len, SOUND);
	else if (p->kind == DM_REMAP_DIRECT)
		ok = !f->pb && !p->slot && covers_only(inst, start, p->len, BIT(DM_REMAP_MAPPED) |
						       BIT(DM_REMAP_POISON_DATA));
	else if (f->flags & DM_REMAP_FAULT_F_WRITE)
		ok = false;
	else if (p->kind == DM_REMAP_POISON_DATA)
		ok = !p->slot && covers_only(inst, start, p->len, BIT(DM_REMAP_DIRECT));
	else
		ok = p->kind == DM_REMAP_POISON_SLOT && e.kind == DM_REMAP_MAPPED &&
		     e.len == p->len && e.slot == p->slot;
	return ok ? 0 : dmr_refuse(extack, -EINVAL,
				   "piece's kind or slot does not go with what the table has there");
}

/* Takes the slots of the pieces if all are right. */
static int check_pieces(const struct dmr_fault *f, bool place, const struct dm_remap_piece *p,
			unsigned int nr, struct netlink_ext_ack *extack)
{
	unsigned int i;
	u64 done = 0;
	int r = 0;

	for (i = 0; !r && i <= nr; i++) {
		u64 to = i < nr ? p[i].offset : f->len;

		if (to < done)
			r = dmr_refuse(extack, -EINVAL, "pieces overlap or are out of order");
		/* What a held write leaves out is written where it is. */
		else if (place && writes(f) && to <= f->len &&
			 !covers_only(f->inst, f->start + done, to - done, SOUND))
			r = dmr_refuse(extack, -EINVAL, "a write must place all poison that it covers");
		else if (i < nr)
			r = check_piece(f, place, &p[i], extack);
		done = to + (i < nr ? p[i].len : 0);
	}
	if (r)
		dmr_slots_mark(f->inst, p, i - 1, false);
	return r;
}

/* A work sends what is to be written, so that no request waits for a disk. */
int dmr_start_op(struct sk_buff *skb, struct genl_info *info)
{
	const struct nlattr *pieces = info->attrs[DM_REMAP_A_PIECES];
	unsigned int nr = nla_len(pieces) / sizeof(struct dm_remap_piece);
	bool place = info->genlhdr->cmd == DM_REMAP_CMD_PLACE;
	struct dmr_instance *inst = info->user_ptr[0];
	struct dmr_fault *f = info->user_ptr[1];
	struct dm_remap_piece *new;
	int r;

	if (f->state == DM_REMAP_FAULT_BUSY || f->installing ||
	    (f->state == DM_REMAP_FAULT_PLACED && !(place && f->pb)))
		return dmr_refuse(info->extack, -EBUSY, "the fault is busy or placed");
	if (!writes(f) && (!place || (f->flags & DM_REMAP_FAULT_F_WRITE)))
		return dmr_refuse(info->extack, place ? -ENOENT : -EINVAL,
				  "TRY, and PLACE of a write, are for held writes");
	/* Each may add two, as it may split an extent. INSTALL, which must not fail, does not ask. */
	if (place && inst->extents + 2 * nr > DM_REMAP_MAX_EXTENTS)
		return dmr_refuse(info->extack, -ENOSPC, "too many extents");
	new = nla_memdup(pieces, DMR_GFP);
	if (!new)
		return -ENOMEM;
	/* The slots that the fault has are free for this. */
	if (f->placing)
		dmr_slots_mark(inst, f->pieces, f->nr_pieces, false);
	r = check_pieces(f, place, new, nr, info->extack);
	if (r) {
		if (f->placing)
			dmr_slots_mark(inst, f->pieces, f->nr_pieces, true);
		kfree(new);
		return r;
	}
	kfree(f->pieces);
	f->pieces = new;
	f->nr_pieces = nr;
	f->placing = place;
	f->rest_failed = false;
	if (writes(f)) {
		f->state = DM_REMAP_FAULT_BUSY;
		queue_work(inst->disk_wq, &f->op);
	} else {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
		dmr_ring(inst);
	}
	trace_dm_remap_fault(f, writes(f) ? "busy" : "placed");
	return 0;
}
