// SPDX-License-Identifier: GPL-2.0-only
/*
 * The owner's words but for TRY and PLACE, which are in place.c. Each is checked whole before it
 * changes anything. Everything here needs inst->mutex.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "shim.h"

int dmr_claim(struct dmr_instance *inst, u32 portid, u64 start, u64 sectors, u32 unit, u64 commit,
	      struct netlink_ext_ack *extack)
{
	unsigned long *used, *retired;
	u64 end;

	if (!is_power_of_2(unit) || unit < 8 || unit > 2048 || unit % inst->block)
		return dmr_refuse(extack, -EINVAL,
				  "slot unit: want a power of two of 8 to 2048 sectors that the logical block divides");
	if (!sectors || sectors > DM_REMAP_MAX_SLOT_SECTORS || start % unit || sectors % unit ||
	    check_add_overflow(start, sectors, &end) || end > inst->spare_sectors)
		return dmr_refuse(extack, -ERANGE,
				  "slot area is empty, unaligned, too large or outside the spare");
	if (inst->owner && inst->owner != portid)
		return dmr_refuse(extack, -EBUSY, "instance is claimed by another socket");
	if (commit < inst->commit)
		return dmr_refuse(extack, -ESTALE, "table ends below the last commit installed here");
	if (inst->used && (inst->slot_start != start || inst->slot_sectors != sectors ||
			   inst->slot_unit != unit))
		return dmr_refuse(extack, -EINVAL, "slot area differs from the one this instance has");
	if (!dmr_is_ready(inst)) {
		used = kvcalloc(BITS_TO_LONGS(sectors), sizeof(long), GFP_KERNEL);
		retired = kvcalloc(BITS_TO_LONGS(sectors), sizeof(long), GFP_KERNEL);
		if (!used || !retired) {
			kvfree(used);
			kvfree(retired);
			return -ENOMEM;
		}
		kvfree(inst->used);
		kvfree(inst->retired);
		inst->used = used;
		inst->retired = retired;
		inst->slot_start = start;
		inst->slot_sectors = sectors;
		inst->slot_unit = unit;
		dmr_table_clear(inst);
		inst->loaded = 0;
	}
	WRITE_ONCE(inst->owner, portid);
	inst->commit = commit;
	return 0;
}

bool dmr_in_slot_area(struct dmr_instance *inst, u64 slot, u64 len)
{
	return slot >= inst->slot_start && len <= inst->slot_sectors &&
	       slot - inst->slot_start <= inst->slot_sectors - len;
}

bool dmr_slots_used(struct dmr_instance *inst, u64 slot, u64 len)
{
	u64 first = slot - inst->slot_start;

	return find_next_bit(inst->used, first + len, first) < first + len;
}

/* Checks an extent and takes its sectors of the spare. */
static int admit(struct dmr_instance *inst, const struct dm_remap_extent *e,
		 struct netlink_ext_ack *extack)
{
	bool slot = e->kind != DM_REMAP_POISON_DATA;
	u64 end = inst->loaded;

	if (!e->len || e->kind == DM_REMAP_DIRECT || e->kind > DM_REMAP_RETIRED ||
	    memchr_inv(e->pad, 0, sizeof(e->pad)))
		return dmr_refuse(extack, -EINVAL,
				  "extent is empty, of unknown kind or has padding that is not zero");
	if (slot ? !dmr_in_slot_area(inst, e->slot, e->len) || e->slot % inst->block : e->slot)
		return dmr_refuse(extack, -ERANGE, "extent's slot is unaligned or outside the slot area");
	if (slot && dmr_slots_used(inst, e->slot, e->len))
		return dmr_refuse(extack, -EEXIST,
				  "two extents, or a retired range, share a sector of the spare");
	if (e->kind == DM_REMAP_RETIRED && e->start)
		return dmr_refuse(extack, -EINVAL, "a retired range has no start");
	if (e->kind != DM_REMAP_RETIRED &&
	    (e->start < inst->loaded || check_add_overflow(e->start, (u64)e->len, &end) ||
	     end > inst->sectors || (e->start | e->len) % inst->block))
		return dmr_refuse(extack, -ERANGE,
				  "extent is out of order, unaligned, or past the end of the device");
	inst->loaded = end;
	if (slot)
		bitmap_set(inst->used, e->slot - inst->slot_start, e->len);
	if (e->kind == DM_REMAP_RETIRED)
		bitmap_set(inst->retired, e->slot - inst->slot_start, e->len);
	return 0;
}

static void take_back(struct dmr_instance *inst, const struct dm_remap_extent *e, unsigned int nr)
{
	for (; nr--; e++) {
		if (e->kind != DM_REMAP_POISON_DATA)
			bitmap_clear(inst->used, e->slot - inst->slot_start, e->len);
		if (e->kind == DM_REMAP_RETIRED)
			bitmap_clear(inst->retired, e->slot - inst->slot_start, e->len);
	}
}

int dmr_load(struct dmr_instance *inst, const struct dm_remap_extent *e, unsigned int nr,
	     struct netlink_ext_ack *extack)
{
	u64 loaded = inst->loaded;
	unsigned int i;
	int r = 0;

	if (dmr_is_ready(inst))
		return dmr_refuse(extack, -EBUSY, "instance is ready: nothing can be loaded");
	if (inst->extents + nr > DM_REMAP_MAX_EXTENTS)
		return dmr_refuse(extack, -ENOSPC, "too many extents");
	for (i = 0; i < nr; i++) {
		r = admit(inst, &e[i], extack);
		if (r) {
			take_back(inst, e, i);
			inst->loaded = loaded;
			return r;
		}
	}
	for (i = 0; !r && i < nr; i++)
		if (e[i].kind != DM_REMAP_RETIRED)
			r = dmr_table_set(inst, &e[i]);
	/* Half of it is there: a load begins anew with CLAIM. */
	if (r)
		dmr_owner_gone(inst);
	return r;
}

void dmr_ready(struct dmr_instance *inst)
{
	if (dmr_is_ready(inst))
		return;
	dmr_publish(inst);
	/* Last: on the way to a table with extents no map may find no bit set. Pairs with dmr_lookup(). */
	smp_mb__before_atomic();
	clear_bit(DMR_SLOW_UNREADY, &inst->slow);
	dmr_unpark(inst);
}

/* The slots under a piece are retired, but for those that it keeps: poisoned, or set already. */
static void retire_replaced(struct dmr_instance *inst, const struct dm_remap_extent *new)
{
	u64 at = new->start, end = at + new->len;
	struct dm_remap_extent e;

	while (new->kind == DM_REMAP_MAPPED && dmr_table_next(&inst->table, at, end, &e)) {
		if (e.kind != DM_REMAP_POISON_DATA && e.slot != new->slot + (e.start - new->start))
			bitmap_set(inst->retired, e.slot - inst->slot_start, e.len);
		at = e.start + e.len;
	}
}

/* May stop half way for want of memory; done again, it does the same. */
static int set_pieces(struct dmr_fault *f)
{
	unsigned int i;
	int r = 0;

	f->installing = true;
	for (i = 0; !r && i < f->nr_pieces; i++) {
		const struct dm_remap_piece *p = &f->pieces[i];
		const struct dm_remap_extent e = {
			.start = f->start + p->offset,
			.len = p->len,
			.kind = p->kind,
			.slot = p->slot,
		};

		retire_replaced(f->inst, &e);
		r = dmr_table_set(f->inst, &e);
		if (p->kind == DM_REMAP_DIRECT)
			WRITE_ONCE(f->inst->direct_gen, f->inst->gen + 1);
	}
	return r;
}

int dmr_install(struct dmr_instance *inst, u64 commit, const u64 *ids, unsigned int nr,
		struct netlink_ext_ack *extack)
{
	struct dmr_bio *pb, *next;
	struct dmr_fault *f;
	LIST_HEAD(done);
	unsigned int i;
	int r = 0;

	if (commit < inst->commit)
		return dmr_refuse(extack, -ESTALE, "commit is below the last one installed here");
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f && (!ids[i] || ids[i] >= inst->next_fault))
			return dmr_refuse(extack, -ENOENT, "no such fault");
		if (f && f->state != DM_REMAP_FAULT_PLACED)
			return dmr_refuse(extack, -EBUSY, "a fault is not placed");
	}
	for (i = 0; !r && i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		r = f ? set_pieces(f) : 0;
	}
	if (r)
		return r;
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f)
			continue;
		/* What was not written by PLACE looks again, as if it had been parked. */
		if (f->pb)
			list_add_tail(&f->pb->node, f->flags & DM_REMAP_FAULT_F_WRITE ?
				      &done : &inst->parked);
		dmr_fault_end(f, "installed");
		dmr_count(inst, DMR_INSTALLS);
	}
	inst->commit = commit;
	dmr_publish(inst);
	/* Only now, with the mapping visible, are the placed writes done. */
	list_for_each_entry_safe(pb, next, &done, node) {
		list_del_init(&pb->node);
		dmr_end(pb, dmr_fua_fails(pb) ? BLK_STS_IOERR : BLK_STS_OK);
	}
	dmr_unpark(inst);
	return 0;
}

int dmr_release(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack)
{
	struct dmr_fault *f = dmr_fault_find(inst, id);

	if (!f)
		return dmr_refuse(extack, -ENOENT, "no such fault");
	if (f->state == DM_REMAP_FAULT_BUSY || f->installing)
		return dmr_refuse(extack, -EBUSY, "the fault is busy, or partly installed");
	if (f->pb)
		list_add_tail(&f->pb->node, &inst->parked);
	dmr_fault_end(f, "released");
	dmr_count(inst, DMR_RELEASES);
	dmr_publish(inst);
	dmr_unpark(inst);
	return 0;
}

int dmr_fail(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack)
{
	struct dmr_fault *f = dmr_fault_find(inst, id);
	struct dmr_bio *pb;

	if (!f || !f->pb)
		return dmr_refuse(extack, -ENOENT, "no such fault, or its bio has left");
	if (f->state == DM_REMAP_FAULT_BUSY)
		return dmr_refuse(extack, -EBUSY, "the fault is busy");
	pb = f->pb;
	dmr_fault_lose_bio(f, "failed");
	dmr_count(inst, DMR_FAILS);
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
		return dmr_refuse(extack, -ERANGE,
				  "range is empty, unaligned or past the end of the device");
	if (!dmr_is_ready(inst))
		return dmr_refuse(extack, -EBUSY, "instance is not ready");
	if (dmr_fault_overlaps(inst, start, len))
		return dmr_refuse(extack, -EBUSY, "range overlaps a fault");
	f = dmr_fault_new(inst, start, len);
	if (!f)
		return dmr_refuse(extack, -EBUSY, "too many faults");
	f->flags = DM_REMAP_FAULT_F_FENCE;
	f->published = true;
	dmr_publish(inst);
	synchronize_rcu_expedited();
	f->listed = true;
	*id = f->id;
	return 0;
}
