// SPDX-License-Identifier: GPL-2.0-only
/* The answers: lists of instances, faults and extents, and the doorbell that asks for one. */
#include "shim.h"

static u64 dev_wire(dev_t dev)
{
	return (u64)MAJOR(dev) << 32 | MINOR(dev);
}

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, DM_REMAP_A_PAD);
}

static u32 instance_flags(struct dmr_instance *inst)
{
	return (dmr_is_ready(inst) ? DM_REMAP_INSTANCE_F_READY : 0) |
	       (inst->opt.queue_unowned ? DM_REMAP_INSTANCE_F_QUEUE : 0) |
	       (test_bit(DMR_SLOW_DATA_FLUSH, &inst->slow) ? DM_REMAP_INSTANCE_F_DATA_FLUSH_BAD : 0) |
	       (test_bit(DMR_SLOW_SPARE_FLUSH, &inst->slow) ? DM_REMAP_INSTANCE_F_SPARE_FLUSH_BAD : 0);
}

static void *start_message(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd)
{
	return genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &dmr_family,
			   NLM_F_MULTI, cmd);
}

static int end_message(struct sk_buff *skb, void *hdr, int failed)
{
	if (failed) {
		genlmsg_cancel(skb, hdr);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return 0;
}

static int put_instance(struct sk_buff *skb, struct netlink_callback *cb, struct dmr_instance *inst)
{
	void *hdr = start_message(skb, cb, DM_REMAP_CMD_INSTANCE_GET);
	struct dm_remap_counters c = {
		.data_flush_fails = READ_ONCE(inst->flush_fails[DMR_DATA]),
		.spare_flush_fails = READ_ONCE(inst->flush_fails[DMR_SPARE]),
		.held_bios = READ_ONCE(inst->held_bios[0]) + READ_ONCE(inst->held_bios[1]),
		.held_sectors = READ_ONCE(inst->held_sectors[0]) + READ_ONCE(inst->held_sectors[1]),
		.extents = inst->extents,
		.open_faults = inst->open_faults,
	};
	int i, bad;

	for (i = 0; i < DMR_COUNTS; i++)
		((u64 *)&c)[i] += atomic64_read(&inst->counts[i]);
	bad = !hdr || nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id) ||
	      put_u64(skb, DM_REMAP_A_DM_DEV, dev_wire(inst->dm_dev)) ||
	      put_u64(skb, DM_REMAP_A_DATA_DEV, dev_wire(inst->data_dev)) ||
	      put_u64(skb, DM_REMAP_A_SPARE_DEV, dev_wire(inst->spare_dev)) ||
	      put_u64(skb, DM_REMAP_A_SECTORS, inst->sectors) ||
	      nla_put_u32(skb, DM_REMAP_A_BLOCK, inst->block) ||
	      nla_put_u32(skb, DM_REMAP_A_INSTANCE_FLAGS, instance_flags(inst)) ||
	      put_u64(skb, DM_REMAP_A_GENERATION, inst->gen) ||
	      put_u64(skb, DM_REMAP_A_COMMIT, inst->commit) ||
	      nla_put(skb, DM_REMAP_A_COUNTERS, sizeof(c), &c);
	if (!bad && inst->used)
		bad = put_u64(skb, DM_REMAP_A_SLOT_START, inst->slot_start) ||
		      put_u64(skb, DM_REMAP_A_SLOT_SECTORS, inst->slot_sectors) ||
		      nla_put_u32(skb, DM_REMAP_A_SLOT_UNIT, inst->slot_unit);
	if (!bad && inst->owner)
		bad = nla_put_u32(skb, DM_REMAP_A_OWNER, inst->owner);
	return end_message(skb, hdr, bad);
}

static int put_fault(struct sk_buff *skb, struct netlink_callback *cb,
		     struct dmr_instance *inst, const struct dmr_fault *f)
{
	void *hdr = start_message(skb, cb, DM_REMAP_CMD_FAULT_GET);
	int bad = !hdr || nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id) ||
		  put_u64(skb, DM_REMAP_A_FAULT_ID, f->id) ||
		  put_u64(skb, DM_REMAP_A_START, f->start) || put_u64(skb, DM_REMAP_A_LEN, f->len) ||
		  nla_put_u8(skb, DM_REMAP_A_FAULT_STATE, f->state) ||
		  nla_put_u32(skb, DM_REMAP_A_FAULT_FLAGS, f->flags) ||
		  nla_put_u8(skb, DM_REMAP_A_STATUS, f->status);

	if (!bad && f->pb)
		bad = nla_put_u32(skb, DM_REMAP_A_DEADLINE_MS,
				  jiffies_to_msecs(max_t(long, f->pb->deadline - jiffies, 0)));
	/* The results of a busy one are being written: they say nothing yet, and its slots are taken. */
	if (!bad && f->nr_pieces)
		bad = nla_put(skb, DM_REMAP_A_PIECES, f->nr_pieces * sizeof(*f->pieces), f->pieces);
	return end_message(skb, hdr, bad);
}

int dmr_dump_start(struct netlink_callback *cb)
{
	if (!netlink_capable(cb->skb, CAP_SYS_ADMIN))
		return -EPERM;
	return dmr_check_attrs(genl_dumpit_info(cb)->op.cmd, dmr_dump_attrs(cb), cb->extack);
}

/* args[0]: the next instance */
int dmr_instance_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst;
	int r = 0;

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node) {
		if (inst->id < cb->args[0])
			continue;
		mutex_lock(&inst->mutex);
		r = put_instance(skb, cb, inst);
		mutex_unlock(&inst->mutex);
		if (r)
			break;
		cb->args[0] = inst->id + 1;
	}
	mutex_unlock(&dmr_instances_lock);
	return r && skb->len ? skb->len : r;
}

/* args[0]: the next fault; 0: the instance itself comes first */
int dmr_fault_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = dmr_instance_get(dmr_dump_attrs(cb), cb->extack);
	struct dmr_fault *f;
	int r = 0;

	if (IS_ERR(inst))
		return PTR_ERR(inst);
	mutex_lock(&inst->mutex);
	if (!cb->args[0]) {
		/* Before faults and counts are read: what comes later rings again. */
		if (NETLINK_CB(cb->skb).portid == inst->owner)
			smp_store_mb(inst->bell, false); /* pairs with dmr_flush_done() */
		r = put_instance(skb, cb, inst);
		cb->args[0] = 1;
	}
	list_for_each_entry(f, &inst->faults, node) {
		if (r || f->id < cb->args[0] || !f->listed)
			continue;
		r = put_fault(skb, cb, inst, f);
		if (!r)
			cb->args[0] = f->id + 1;
		else	/* The next has room for it, and no more: memory may wait for what is held. */
			cb->min_dump_alloc = 256 + f->nr_pieces * sizeof(*f->pieces);
	}
	mutex_unlock(&inst->mutex);
	kref_put(&inst->kref, dmr_instance_free);
	return r && skb->len ? skb->len : r;
}

static int put_extent(struct sk_buff *skb, struct netlink_callback *cb, struct dmr_instance *inst,
		      const struct dm_remap_extent *e)
{
	void *hdr = start_message(skb, cb, DM_REMAP_CMD_EXTENT_GET);

	return end_message(skb, hdr, !hdr || nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id) ||
				     nla_put(skb, DM_REMAP_A_EXTENTS, sizeof(*e), e));
}

/* The extent at or after @at; past the table come the retired slots. */
static bool next_extent(struct dmr_instance *inst, u64 at, struct dm_remap_extent *e)
{
	u64 first;

	for (; at < inst->sectors; at += e->len) {
		dmr_table_at(inst, at, inst->sectors, e);
		if (e->kind != DM_REMAP_DIRECT)
			return true;
	}
	if (!inst->used)
		return false;
	first = find_next_bit(inst->retired, inst->slot_sectors, at - inst->sectors);
	*e = (struct dm_remap_extent){ .slot = inst->slot_start + first, .kind = DM_REMAP_RETIRED };
	e->len = find_next_zero_bit(inst->retired, inst->slot_sectors, first) - first;
	return e->len;
}

/* args[0]: the next sector of the table, or, past it, of the slot area */
int dmr_extent_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = dmr_instance_get(dmr_dump_attrs(cb), cb->extack);
	struct dm_remap_extent e;
	int r = 0;

	if (IS_ERR(inst))
		return PTR_ERR(inst);
	mutex_lock(&inst->mutex);
	while (next_extent(inst, cb->args[0], &e) && !(r = put_extent(skb, cb, inst, &e)))
		cb->args[0] = e.len + (e.kind == DM_REMAP_RETIRED ?
				       inst->sectors + e.slot - inst->slot_start : e.start);
	mutex_unlock(&inst->mutex);
	kref_put(&inst->kref, dmr_instance_free);
	return r && skb->len ? skb->len : r;
}

/* The doorbell; in any context. */
void dmr_ring(struct dmr_instance *inst)
{
	smp_store_mb(inst->bell, true);	/* what it is for comes first; pairs with dmr_fault_dumpit() */
	mod_delayed_work(inst->wq, &inst->doorbell, 0);
}

/* Rings once a second until the owner lists, or soon if there is no memory, which other works must not wait for here. */
void dmr_doorbell_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, doorbell.work);
	struct sk_buff *skb;
	void *hdr;

	if (!READ_ONCE(inst->bell))
		return;
	skb = genlmsg_new(nla_total_size(4), GFP_ATOMIC | __GFP_NOWARN);
	if (skb) {
		hdr = genlmsg_put(skb, 0, 0, &dmr_family, 0, DM_REMAP_CMD_DOORBELL);
		nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id);
		genlmsg_end(skb, hdr);
		/* Nobody listening is no error: it rings again. */
		genlmsg_multicast_netns(&dmr_family, &init_net, skb, 0, 0, GFP_ATOMIC | __GFP_NOWARN);
	}
	queue_delayed_work(inst->wq, &inst->doorbell, skb ? HZ : HZ / 10);
}
