// SPDX-License-Identifier: GPL-2.0-only
/*
 * The owner's words. Each is checked whole before it changes anything.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/netlink.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "shim.h"

#define refuse(extack, err, text) ({ NL_SET_ERR_MSG(extack, text); err; })

int dmr_claim(struct dmr_instance *inst, u32 portid, u64 start, u64 sectors,
	      u32 unit, u64 commit, struct netlink_ext_ack *extack)
{
	struct dmr_index *empty = NULL, *old;
	unsigned long *used = NULL, *retired = NULL;
	u64 end;
	int r = 0;

	if (!is_power_of_2(unit) || unit < 8 || unit > 2048 || unit % inst->block)
		return refuse(extack, -EINVAL,
			      "slot unit: want a power of two of 8 to 2048 sectors that the logical block divides");
	if (!sectors || sectors > DM_REMAP_MAX_SLOT_SECTORS || start % unit || sectors % unit ||
	    check_add_overflow(start, sectors, &end) || end > inst->spare_sectors)
		return refuse(extack, -ERANGE, "slot area is empty, unaligned, too large or outside the spare");
	used = kvcalloc(BITS_TO_LONGS(sectors), sizeof(long), GFP_KERNEL);
	retired = kvcalloc(BITS_TO_LONGS(sectors), sizeof(long), GFP_KERNEL);
	empty = dmr_index_alloc(0);
	if (!used || !retired || !empty) {
		r = -ENOMEM;
		goto out;
	}
	mutex_lock(&inst->mutex);
	if (inst->owner && inst->owner != portid) {
		r = refuse(extack, -EBUSY, "instance is claimed by another socket");
	} else if (commit < inst->commit) {
		r = refuse(extack, -ESTALE, "table ends below the last commit installed here");
	} else if (inst->used && (inst->slot_start != start || inst->slot_sectors != sectors ||
				  inst->slot_unit != unit)) {
		r = refuse(extack, -EINVAL, "slot area differs from the one this instance has");
	} else {
		if (!dmr_view(inst)->ready) {
			old = dmr_view(inst)->index;
			swap(inst->used, used);
			swap(inst->retired, retired);
			inst->loaded = 0;
			inst->slot_start = start;
			inst->slot_sectors = sectors;
			inst->slot_unit = unit;
			dmr_publish(inst, empty, false);
			synchronize_rcu_expedited();
			empty = old;
		}
		WRITE_ONCE(inst->owner, portid);
		inst->commit = commit;
	}
	mutex_unlock(&inst->mutex);
out:
	kvfree(used);
	kvfree(retired);
	dmr_index_free(empty);
	return r;
}

static bool in_slot_area(struct dmr_instance *inst, u64 slot, u64 len)
{
	return slot >= inst->slot_start && len <= inst->slot_sectors &&
	       slot - inst->slot_start <= inst->slot_sectors - len;
}

static bool slots_used(struct dmr_instance *inst, u64 slot, u64 len)
{
	u64 first = slot - inst->slot_start;

	return find_next_bit(inst->used, first + len, first) < first + len;
}

static int load_one(struct dmr_instance *inst, struct dmr_edit *edit,
		    const struct dm_remap_extent *e, struct netlink_ext_ack *extack)
{
	bool slot = e->kind != DM_REMAP_POISON_DATA;
	u64 end = inst->loaded;
	int r;

	if (!e->len || e->kind == DM_REMAP_DIRECT || e->kind > DM_REMAP_RETIRED ||
	    memchr_inv(e->pad, 0, sizeof(e->pad)))
		return refuse(extack, -EINVAL, "extent is empty, of unknown kind or has padding that is not zero");
	if (slot ? !in_slot_area(inst, e->slot, e->len) : e->slot)
		return refuse(extack, -ERANGE, "extent's slot is outside the slot area");
	if (slot && slots_used(inst, e->slot, e->len))
		return refuse(extack, -EEXIST, "two extents, or a retired range, share a sector of the spare");
	if (e->kind != DM_REMAP_RETIRED) {
		if (e->start < inst->loaded || check_add_overflow(e->start, (u64)e->len, &end) ||
		    end > inst->sectors || (e->start | e->len) % inst->block)
			return refuse(extack, -ERANGE,
				      "extent is out of order, unaligned, or past the end of the device");
	} else if (e->start) {
		return refuse(extack, -EINVAL, "a retired range has no start");
	}
	r = e->kind == DM_REMAP_RETIRED ? 0 : dmr_edit_set(edit, e);
	if (r)
		return r;
	inst->loaded = end;
	if (slot)
		bitmap_set(inst->used, e->slot - inst->slot_start, e->len);
	if (e->kind == DM_REMAP_RETIRED)
		bitmap_set(inst->retired, e->slot - inst->slot_start, e->len);
	return 0;
}

/* Takes back the slots of the first extents of a refused load. */
static void unload(struct dmr_instance *inst, const struct dm_remap_extent *e, unsigned int nr)
{
	for (; nr--; e++) {
		if (e->kind == DM_REMAP_POISON_DATA)
			continue;
		bitmap_clear(inst->used, e->slot - inst->slot_start, e->len);
		if (e->kind == DM_REMAP_RETIRED)
			bitmap_clear(inst->retired, e->slot - inst->slot_start, e->len);
	}
}

/* Publishes the edit and frees what it replaced. */
static void finish_edit(struct dmr_instance *inst, struct dmr_edit *edit)
{
	struct dmr_view *v = dmr_view(inst);
	struct dmr_index *old = v->index;

	dmr_edit_commit(edit);
	dmr_publish(inst, edit->index, v->ready);
	synchronize_rcu_expedited();
	kvfree(old);
	dmr_chunks_free(edit->dead);
}

int dmr_load(struct dmr_instance *inst, const struct dm_remap_extent *e,
	     unsigned int nr, struct netlink_ext_ack *extack)
{
	u64 loaded = inst->loaded;
	struct dmr_edit edit;
	unsigned int i;
	int r;

	if (dmr_view(inst)->ready)
		return refuse(extack, -EBUSY, "instance is ready: nothing can be loaded");
	r = dmr_edit_begin(&edit, dmr_view(inst)->index, nr);
	if (r)
		return r;
	for (i = 0; i < nr; i++) {
		r = load_one(inst, &edit, &e[i], extack);
		if (r) {
			dmr_edit_abort(&edit);
			unload(inst, e, i);
			inst->loaded = loaded;
			return r;
		}
	}
	finish_edit(inst, &edit);
	return 0;
}

int dmr_ready(struct dmr_instance *inst, struct netlink_ext_ack *extack)
{
	if (!dmr_view(inst)->ready) {
		dmr_publish(inst, dmr_view(inst)->index, true);
		dmr_unpark(inst);
	}
	return 0;
}

/* Is every extent that the range touches of one of the kinds? */
static bool covers_only(struct dmr_instance *inst, u64 start, u64 len, unsigned int kinds)
{
	u64 end = start + len;

	while (start < end) {
		const struct dm_remap_extent *e = dmr_index_find(dmr_view(inst)->index, start);

		if (!e || e->start >= end)
			return kinds & BIT(DM_REMAP_DIRECT);
		if (e->start > start && !(kinds & BIT(DM_REMAP_DIRECT)))
			return false;
		if (!(kinds & BIT(e->kind)))
			return false;
		start = e->start + e->len;
	}
	return true;
}

/* Does the piece poison exactly the slot that the range has? */
static bool same_slot(struct dmr_instance *inst, u64 start, u64 len, u64 slot)
{
	const struct dm_remap_extent *e = dmr_index_find(dmr_view(inst)->index, start);

	return e && e->kind == DM_REMAP_MAPPED && e->start <= start &&
	       e->start + e->len >= start + len && e->slot + (start - e->start) == slot;
}

static bool own_slot(const struct dmr_fault *f, u64 slot, u32 len)
{
	unsigned int i;

	for (i = 0; f->placing && i < f->nr_pieces; i++)
		if (f->pieces[i].kind == DM_REMAP_MAPPED && f->pieces[i].slot == slot &&
		    f->pieces[i].len >= len && f->pieces[i].result == DM_REMAP_STATUS_OK)
			return true;
	return false;
}

static int check_piece(struct dmr_instance *inst, const struct dmr_fault *f, bool place,
		       const struct dm_remap_piece *p, struct netlink_ext_ack *extack)
{
	u64 start = f->start + p->offset, units = round_up((u64)p->len, inst->slot_unit);
	const unsigned int poison = BIT(DM_REMAP_POISON_DATA) | BIT(DM_REMAP_POISON_SLOT);
	const unsigned int sound = BIT(DM_REMAP_DIRECT) | BIT(DM_REMAP_MAPPED);
	bool ok;

	if (!p->len || p->result || memchr_inv(p->pad, 0, sizeof(p->pad)) ||
	    (p->offset | p->len) % inst->block)
		return refuse(extack, -EINVAL, "piece is empty, unaligned, or has fields that must be zero");
	if (p->offset > f->len || p->len > f->len - p->offset)
		return refuse(extack, -ERANGE, "piece is outside its fault");
	if (!place) {
		ok = p->kind == DM_REMAP_DIRECT && !p->slot &&
		     covers_only(inst, start, p->len, sound);
		return ok ? 0 : refuse(extack, -EINVAL, "a piece of TRY has no kind or slot, and no poison below it");
	}
	switch (p->kind) {
	case DM_REMAP_DIRECT:
		ok = !p->slot && !f->pb && covers_only(inst, start, p->len, BIT(DM_REMAP_MAPPED) |
							BIT(DM_REMAP_POISON_DATA));
		break;
	case DM_REMAP_MAPPED:
		if (p->slot % inst->slot_unit || !in_slot_area(inst, p->slot, units))
			return refuse(extack, -ERANGE, "slot is unaligned or outside the slot area");
		if (slots_used(inst, p->slot, units) && !own_slot(f, p->slot, p->len))
			return refuse(extack, -EEXIST, "slot is in use or retired");
		ok = true;
		break;
	case DM_REMAP_POISON_DATA:
		ok = !p->slot && !(f->flags & DM_REMAP_FAULT_F_WRITE) &&
		     covers_only(inst, start, p->len, BIT(DM_REMAP_DIRECT));
		break;
	case DM_REMAP_POISON_SLOT:
		ok = !(f->flags & DM_REMAP_FAULT_F_WRITE) &&
		     same_slot(inst, start, p->len, p->slot);
		break;
	default:
		ok = false;
	}
	if (ok && f->pb && (f->flags & DM_REMAP_FAULT_F_WRITE) && p->kind != DM_REMAP_MAPPED)
		ok = covers_only(inst, start, p->len, ~poison);
	return ok ? 0 : refuse(extack, -EINVAL, "piece's kind is not allowed over what the table has there");
}

static int check_pieces(struct dmr_instance *inst, const struct dmr_fault *f, bool place,
			const struct dm_remap_piece *p, unsigned int nr,
			struct netlink_ext_ack *extack)
{
	u64 done = 0;
	unsigned int i;
	int r;

	for (i = 0; i <= nr; i++) {
		u64 to = i < nr ? p[i].offset : f->len;

		if (to < done)
			return refuse(extack, -EINVAL, "pieces overlap or are out of order");
		/* What a held write leaves out is written where it is. */
		if (place && f->pb && (f->flags & DM_REMAP_FAULT_F_WRITE) && to <= f->len &&
		    !covers_only(inst, f->start + done, to - done,
				 BIT(DM_REMAP_DIRECT) | BIT(DM_REMAP_MAPPED)))
			return refuse(extack, -EINVAL, "a write must place all poison that it covers");
		if (i == nr)
			break;
		r = check_piece(inst, f, place, &p[i], extack);
		if (r)
			return r;
		done = (u64)p[i].offset + p[i].len;
	}
	return 0;
}

static void take_slots(struct dmr_instance *inst, const struct dmr_fault *f)
{
	unsigned int i;

	for (i = 0; i < f->nr_pieces; i++)
		if (f->pieces[i].kind == DM_REMAP_MAPPED)
			bitmap_set(inst->used, f->pieces[i].slot - inst->slot_start,
				   round_up(f->pieces[i].len, inst->slot_unit));
}

/* Two pieces of one message must not share a slot: taking marks it used. */
static bool slots_distinct(struct dmr_instance *inst, const struct dm_remap_piece *p,
			   unsigned int nr)
{
	unsigned int i, j;

	for (i = 0; i < nr; i++)
		for (j = 0; p[i].kind == DM_REMAP_MAPPED && j < i; j++)
			if (p[j].kind == DM_REMAP_MAPPED &&
			    p[i].slot < p[j].slot + round_up(p[j].len, inst->slot_unit) &&
			    p[j].slot < p[i].slot + round_up(p[i].len, inst->slot_unit))
				return false;
	return true;
}

/* TRY or PLACE. A work sends what is to be written, so that no request waits for a disk. */
int dmr_start_op(struct dmr_instance *inst, u64 id, bool place,
		 const struct dm_remap_piece *pieces, unsigned int nr,
		 struct netlink_ext_ack *extack)
{
	struct dm_remap_piece *copy;
	struct dmr_fault *f;
	bool io;
	int r;

	copy = kvmalloc_array(nr, sizeof(*pieces), GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, pieces, nr * sizeof(*pieces));
	f = dmr_fault_find(inst, id);
	if (!f) {
		r = refuse(extack, -ENOENT, "no such fault");
		goto out;
	}
	io = f->pb && (f->flags & DM_REMAP_FAULT_F_WRITE);
	if (f->state == DM_REMAP_FAULT_BUSY ||
	    (f->state == DM_REMAP_FAULT_PLACED && !(place && f->pb))) {
		r = refuse(extack, -EBUSY, "the fault is busy or placed");
		goto out;
	}
	if (!place && !io) {
		r = refuse(extack, -EINVAL, "TRY is for held writes");
		goto out;
	}
	r = check_pieces(inst, f, place, copy, nr, extack);
	if (!r && place && !slots_distinct(inst, copy, nr))
		r = refuse(extack, -EEXIST, "two pieces share a slot");
	if (r)
		goto out;
	dmr_slots_forget(inst, f);
	swap(f->pieces, copy);
	f->nr_pieces = nr;
	f->placing = place;
	f->rest_failed = false;
	if (place)
		take_slots(inst, f);
	if (io) {
		f->state = DM_REMAP_FAULT_BUSY;
		queue_work(inst->wq, &f->op);
	} else {
		f->state = DM_REMAP_FAULT_PLACED;
		f->flags |= DM_REMAP_FAULT_F_PINNED;
		dmr_ring(inst);
	}
out:
	kvfree(copy);
	return r;
}

static int edit_fault(struct dmr_edit *edit, const struct dmr_fault *f)
{
	unsigned int i;
	int r = 0;

	for (i = 0; !r && i < f->nr_pieces; i++) {
		const struct dm_remap_piece *p = &f->pieces[i];
		const struct dm_remap_extent e = {
			.start = f->start + p->offset,
			.len = p->len,
			.kind = p->kind,
			.slot = p->slot,
		};

		r = dmr_edit_set(edit, &e);
	}
	return r;
}

/* The slots that the fault's pieces replace are retired, but not poisoned ones kept. */
static void retire_replaced(struct dmr_instance *inst, const struct dmr_fault *f)
{
	unsigned int i;

	for (i = 0; i < f->nr_pieces; i++) {
		const struct dm_remap_piece *p = &f->pieces[i];
		u64 at = f->start + p->offset, end = at + p->len;

		while (p->kind == DM_REMAP_MAPPED && at < end) {
			const struct dm_remap_extent *e = dmr_index_find(dmr_view(inst)->index, at);

			if (!e || e->start >= end)
				break;
			at = max(at, e->start);
			if (e->kind != DM_REMAP_POISON_DATA)
				bitmap_set(inst->retired,
					   e->slot + (at - e->start) - inst->slot_start,
					   min(end, e->start + e->len) - at);
			at = e->start + e->len;
		}
	}
}

int dmr_install(struct dmr_instance *inst, u64 commit, const u64 *ids,
		unsigned int nr, struct netlink_ext_ack *extack)
{
	unsigned int i, j, changes = 0;
	struct dmr_bio *pb, *next;
	struct dmr_edit edit;
	struct dmr_fault *f;
	bool direct = false;
	LIST_HEAD(done);
	int r;

	if (commit < inst->commit)
		return refuse(extack, -ESTALE, "commit is below the last one installed here");
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f && ids[i] < inst->next_fault && ids[i])
			continue;
		if (!f)
			return refuse(extack, -ENOENT, "no such fault");
		if (f->state != DM_REMAP_FAULT_PLACED)
			return refuse(extack, -EBUSY, "a fault is not placed");
		changes += f->nr_pieces;
	}
	/* A change that splits an extent adds two. */
	r = dmr_edit_begin(&edit, dmr_view(inst)->index, 2 * changes);
	for (i = 0; !r && i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		r = f ? edit_fault(&edit, f) : 0;
		if (r)
			dmr_edit_abort(&edit);
	}
	if (r)
		return r;
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f)
			continue;
		retire_replaced(inst, f);
		for (j = 0; j < f->nr_pieces; j++)
			direct |= f->pieces[j].kind == DM_REMAP_DIRECT;
		pb = f->pb;
		if (pb && !(f->flags & DM_REMAP_FAULT_F_WRITE)) {
			/* It looks again, as if it had been parked. */
			list_add_tail(&pb->node, &inst->parked);
			pb = NULL;
		}
		if (pb)
			list_add_tail(&pb->node, &done);
		dmr_fault_end(inst, f);
		atomic64_inc(&inst->installs);
	}
	if (direct)
		WRITE_ONCE(inst->direct_gen, inst->gen + 1);
	inst->commit = commit;
	finish_edit(inst, &edit);
	/* Only now, with the mapping visible, are the placed writes done. */
	list_for_each_entry_safe(pb, next, &done, node) {
		list_del_init(&pb->node);
		dmr_end(pb, BLK_STS_OK);
	}
	dmr_unpark(inst);
	return 0;
}

int dmr_release(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack)
{
	struct dmr_fault *f = dmr_fault_find(inst, id);

	if (!f)
		return refuse(extack, -ENOENT, "no such fault");
	if (f->state == DM_REMAP_FAULT_BUSY)
		return refuse(extack, -EBUSY, "the fault is busy");
	dmr_slots_forget(inst, f);
	if (f->pb)
		list_add_tail(&f->pb->node, &inst->parked);
	dmr_fault_end(inst, f);
	atomic64_inc(&inst->releases);
	dmr_publish_fences(inst);
	dmr_unpark(inst);
	return 0;
}

int dmr_fail(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack)
{
	struct dmr_fault *f = dmr_fault_find(inst, id);
	struct dmr_bio *pb;

	if (!f || !f->pb)
		return refuse(extack, -ENOENT, "no such fault, or its bio has left");
	if (f->state == DM_REMAP_FAULT_BUSY)
		return refuse(extack, -EBUSY, "the fault is busy");
	pb = f->pb;
	dmr_fault_lose_bio(inst, f);
	atomic64_inc(&inst->fails);
	dmr_end(pb, dmr_last_word(pb));
	return 0;
}

int dmr_fence(struct dmr_instance *inst, u64 start, u64 len, u64 *id,
	      struct netlink_ext_ack *extack)
{
	struct dmr_fault *f;
	u64 end;

	if (!len || check_add_overflow(start, len, &end) || end > inst->sectors ||
	    (start | len) % inst->block)
		return refuse(extack, -ERANGE, "range is empty, unaligned or past the end of the device");
	if (!dmr_view(inst)->ready)
		return refuse(extack, -EBUSY, "instance is not ready");
	if (dmr_fault_overlaps(inst, start, len))
		return refuse(extack, -EBUSY, "range overlaps a fault");
	f = dmr_fault_new(inst, start, len);
	if (!f)
		return refuse(extack, -EBUSY, "too many faults");
	f->flags = DM_REMAP_FAULT_F_FENCE;
	dmr_publish_fences(inst);
	synchronize_rcu_expedited();
	f->listed = true;
	*id = f->id;
	return 0;
}
