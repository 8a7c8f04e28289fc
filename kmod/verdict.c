// SPDX-License-Identifier: GPL-2.0-only
/* What the messages do, but for TRY, PLACE and FLUSH_FAILED. Each is checked whole before it changes anything. */
#include "shim.h"

static int claim(struct sk_buff *skb, struct genl_info *info)
{
	u64 start = dmr_u64(info, SLOT_START), commit = dmr_u64(info, COMMIT);
	u64 sectors = dmr_u64(info, SLOT_SECTORS);
	u32 unit = nla_get_u32(info->attrs[DM_REMAP_A_SLOT_UNIT]);
	struct dmr_instance *inst = info->user_ptr[0];
	struct netlink_ext_ack *extack = info->extack;
	unsigned long *used;

	if (!is_power_of_2(unit) || unit < 8 || unit > 2048 || unit % inst->block)
		return dmr_refuse(extack, -EINVAL,
				  "slot unit: want a power of two of 8 to 2048 sectors that the logical block divides");
	if (sectors > DM_REMAP_MAX_SLOT_SECTORS || start % unit || sectors % unit ||
	    !dmr_inside(start, sectors, inst->spare_sectors))
		return dmr_refuse(extack, -ERANGE,
				  "slot area is empty, unaligned, too large or outside the spare");
	if (inst->owner && inst->owner != info->snd_portid)
		return dmr_refuse(extack, -EBUSY, "instance is claimed by another socket");
	if (commit < inst->commit)
		return dmr_refuse(extack, -ESTALE, "table ends below the last commit installed here");
	if (inst->used && (inst->slot_start != start || inst->slot_sectors != sectors ||
			   inst->slot_unit != unit))
		return dmr_refuse(extack, -EINVAL, "slot area differs from the one this instance has");
	if (!dmr_is_ready(inst)) {
		used = kvcalloc(2 * BITS_TO_LONGS(sectors), sizeof(long), DMR_GFP);
		if (!used)
			return -ENOMEM;
		kvfree(inst->used);
		inst->used = used;
		inst->retired = used + BITS_TO_LONGS(sectors);
		inst->slot_start = start;
		inst->slot_sectors = sectors;
		inst->slot_unit = unit;
		dmr_table_clear(inst);
		inst->loaded = 0;
	}
	WRITE_ONCE(inst->owner, info->snd_portid);
	inst->commit = commit;
	return 0;
}

/* Checks an extent and takes its sectors of the spare. */
static int admit(struct dmr_instance *inst, const struct dm_remap_extent *e,
		 struct netlink_ext_ack *extack)
{
	bool slot = e->kind != DM_REMAP_POISON_DATA, retired = e->kind == DM_REMAP_RETIRED;

	if (!e->len || e->kind == DM_REMAP_DIRECT || e->kind > DM_REMAP_RETIRED ||
	    memchr_inv(e->pad, 0, sizeof(e->pad)))
		return dmr_refuse(extack, -EINVAL,
				  "extent is empty, of unknown kind or has padding that is not zero");
	if (slot ? e->slot % inst->block ||
		   !dmr_inside(e->slot - inst->slot_start, e->len, inst->slot_sectors) : e->slot)
		return dmr_refuse(extack, -ERANGE, "extent's slot is unaligned or outside the slot area");
	if (slot && dmr_slots_used(inst, e->slot, e->len))
		return dmr_refuse(extack, -EEXIST, "extent shares a sector of the spare");
	if (retired && e->start)
		return dmr_refuse(extack, -EINVAL, "a retired range has no start");
	if (!retired && (e->start < inst->loaded || (e->start | e->len) % inst->block ||
			 !dmr_inside(e->start, e->len, inst->sectors)))
		return dmr_refuse(extack, -ERANGE, "extent is unsorted, unaligned or past the end");
	if (retired)
		bitmap_set(inst->retired, e->slot - inst->slot_start, e->len);
	else
		inst->loaded = e->start + e->len;
	if (slot)
		bitmap_set(inst->used, e->slot - inst->slot_start, e->len);
	return 0;
}

static void take_back(struct dmr_instance *inst, const struct dm_remap_extent *e)
{
	if (e->kind != DM_REMAP_POISON_DATA)
		bitmap_clear(inst->used, e->slot - inst->slot_start, e->len);
	if (e->kind == DM_REMAP_RETIRED)
		bitmap_clear(inst->retired, e->slot - inst->slot_start, e->len);
}

static int load(struct sk_buff *skb, struct genl_info *info)
{
	const struct dm_remap_extent *e = nla_data(info->attrs[DM_REMAP_A_EXTENTS]);
	unsigned int i, j, nr = nla_len(info->attrs[DM_REMAP_A_EXTENTS]) / sizeof(*e);
	struct dmr_instance *inst = info->user_ptr[0];
	u64 loaded = inst->loaded;
	int r = 0;

	if (dmr_is_ready(inst))
		return dmr_refuse(info->extack, -EBUSY, "instance is ready: nothing can be loaded");
	if (inst->extents + nr > DM_REMAP_MAX_EXTENTS)
		return dmr_refuse(info->extack, -ENOSPC, "too many extents");
	for (i = 0; i < nr; i++) {
		r = admit(inst, &e[i], info->extack);
		if (r)
			break;
	}
	for (j = 0; !r && j < nr; j++)
		if (e[j].kind != DM_REMAP_RETIRED)
			r = dmr_table_set(inst, &e[j]);
	if (r) {
		/* Of what was set already nothing is looked up: the same LOAD sets it again. */
		while (i--)
			take_back(inst, &e[i]);
		inst->loaded = loaded;
	}
	return r;
}

static int ready(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];

	if (dmr_is_ready(inst))
		return 0;
	if (!inst->extents)
		inst->flush_owed = 0;	/* nobody's data is on the spare */
	dmr_publish(inst);
	/* Last: on the way to a table with extents no map may find no bit set. Pairs with dmr_lookup(). */
	smp_mb__before_atomic();
	clear_bit(DMR_SLOW_UNREADY, &inst->slow);
	dmr_unpark(inst);
	return 0;
}

/* The slots under a piece are retired, but for those that it keeps: poisoned, or set already. */
static void retire_replaced(struct dmr_instance *inst, const struct dm_remap_extent *new)
{
	u64 at = new->start, end = at + new->len;
	struct dm_remap_extent e;

	for (; new->kind == DM_REMAP_MAPPED && at < end; at += e.len) {
		dmr_table_at(inst, at, end, &e);
		if ((e.kind == DM_REMAP_MAPPED || e.kind == DM_REMAP_POISON_SLOT) &&
		    e.slot != new->slot + (at - new->start))
			bitmap_set(inst->retired, e.slot - inst->slot_start, e.len);
	}
}

/* May stop half way for want of memory; done again, it does the same. */
static int set_pieces(struct dmr_fault *f)
{
	const struct dm_remap_piece *p;
	int r = 0;

	f->installing = true;
	for (p = f->pieces; !r && p < f->pieces + f->nr_pieces; p++) {
		const struct dm_remap_extent e = { .start = f->start + p->offset, .len = p->len,
						   .slot = p->slot, .kind = p->kind };

		retire_replaced(f->inst, &e);
		r = dmr_table_set(f->inst, &e);
		if (p->kind == DM_REMAP_DIRECT)
			WRITE_ONCE(f->inst->direct_gen, f->inst->gen + 1);
	}
	return r;
}

static int install(struct sk_buff *skb, struct genl_info *info)
{
	const u64 *ids = nla_data(info->attrs[DM_REMAP_A_FAULT_IDS]);
	unsigned int i, nr = nla_len(info->attrs[DM_REMAP_A_FAULT_IDS]) / sizeof(*ids);
	u64 commit = dmr_u64(info, COMMIT);
	struct dmr_instance *inst = info->user_ptr[0];
	struct dmr_bio *pb, *next;
	struct dmr_fault *f;
	LIST_HEAD(done);
	bool written;
	int r;

	if (commit < inst->commit)
		return dmr_refuse(info->extack, -ESTALE, "commit is below the last one installed here");
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f && (!ids[i] || ids[i] >= inst->next_fault))
			return dmr_refuse(info->extack, -ENOENT, "no such fault");
		if (f && f->state != DM_REMAP_FAULT_PLACED)
			return dmr_refuse(info->extack, -EBUSY, "a fault is not placed");
	}
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		r = f ? set_pieces(f) : 0;
		if (r)
			return r;
	}
	inst->commit = commit;
	/* Before a fence is lifted: what lies on the spare from then on, its flush may lose. */
	dmr_publish(inst);
	for (i = 0; i < nr; i++) {
		f = dmr_fault_find(inst, ids[i]);
		if (!f)
			continue;
		/* What PLACE has not written, or a flush may have lost since, looks again. */
		written = f->pb && (f->flags & DM_REMAP_FAULT_F_WRITE) &&
			  f->pb->fails[DMR_DATA] == READ_ONCE(inst->flush_fails[DMR_DATA]) &&
			  f->pb->fails[DMR_SPARE] == READ_ONCE(inst->flush_fails[DMR_SPARE]);
		if (f->pb)
			list_add_tail(&f->pb->node, written ? &done : &inst->parked);
		dmr_fault_end(f, "installed");
		dmr_count(inst, installs);
	}
	/* Only now, with the mapping visible, are the placed writes done. */
	list_for_each_entry_safe(pb, next, &done, node) {
		list_del_init(&pb->node);
		if (dmr_written(pb))
			dmr_hold_or_end(pb, DMR_REDO, BLK_STS_OK);
		else
			dmr_end(pb, dmr_fua_fails(pb) ? BLK_STS_IOERR : BLK_STS_OK);
	}
	return 0;
}

static int release(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];
	struct dmr_fault *f = info->user_ptr[1];

	if (f->state == DM_REMAP_FAULT_BUSY || f->installing)
		return dmr_refuse(info->extack, -EBUSY, "the fault is busy, or partly installed");
	if (f->pb)
		list_add_tail(&f->pb->node, &inst->parked);
	dmr_fault_end(f, "released");
	dmr_count(inst, releases);
	return 0;
}

static int fail(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_fault *f = info->user_ptr[1];
	struct dmr_bio *pb = f->pb;

	if (!pb)
		return dmr_refuse(info->extack, -ENOENT, "its bio has left");
	if (f->state == DM_REMAP_FAULT_BUSY)
		return dmr_refuse(info->extack, -EBUSY, "the fault is busy");
	dmr_count(f->inst, fails);
	dmr_fault_lose_bio(f, pb->error, "failed");
	return 0;
}

static int fence(struct sk_buff *skb, struct genl_info *info)
{
	u64 start = dmr_u64(info, START), len = dmr_u64(info, LEN);
	struct dmr_instance *inst = info->user_ptr[0];
	struct netlink_ext_ack *extack = info->extack;
	struct dmr_fault *f;
	struct sk_buff *reply;
	void *hdr;

	if ((start | len) % inst->block || !dmr_inside(start, len, inst->sectors))
		return dmr_refuse(extack, -ERANGE, "range is empty, unaligned or past the end");
	if (!dmr_is_ready(inst))
		return dmr_refuse(extack, -EBUSY, "instance is not ready");
	if (dmr_fault_overlaps(inst, start, len))
		return dmr_refuse(extack, -EBUSY, "range overlaps a fault");
	reply = genlmsg_new(nla_total_size_64bit(8), DMR_GFP);
	if (!reply)
		return -ENOMEM;
	f = dmr_fault_new(inst, start, len);
	if (!f) {
		nlmsg_free(reply);
		return dmr_refuse(extack, -EBUSY, "too many faults");
	}
	f->flags = DM_REMAP_FAULT_F_FENCE;
	synchronize_rcu_expedited();
	f->listed = true;
	hdr = genlmsg_put_reply(reply, info, &dmr_family, 0, DM_REMAP_CMD_FENCE);
	nla_put_u64_64bit(reply, DM_REMAP_A_FAULT_ID, f->id, DM_REMAP_A_PAD);
	genlmsg_end(reply, hdr);
	return genlmsg_reply(reply, info);
}

#define DUMP(name, dump) { .cmd = DM_REMAP_CMD_##name, .start = dmr_dump_start, .dumpit = dump }
#define DO(name, act) { .cmd = DM_REMAP_CMD_##name, .doit = act }

const struct genl_ops dmr_ops[DMR_NR_OPS] = {
	DUMP(INSTANCE_GET, dmr_instance_dumpit),
	DUMP(FAULT_GET, dmr_fault_dumpit),
	DUMP(EXTENT_GET, dmr_extent_dumpit),
	DO(CLAIM, claim),
	DO(LOAD, load),
	DO(READY, ready),
	DO(TRY, dmr_start_op),
	DO(PLACE, dmr_start_op),
	DO(INSTALL, install),
	DO(RELEASE, release),
	DO(FAIL, fail),
	DO(FENCE, fence),
	DO(FLUSH_FAILED, dmr_flush_failed),
};
