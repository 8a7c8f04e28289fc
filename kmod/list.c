// SPDX-License-Identifier: GPL-2.0-only
/* The answers: lists of instances, faults and extents, and the doorbell that asks for one. */
#include <net/genetlink.h>

#include "compat.h"
#include "shim.h"

static u64 dev_wire(dev_t dev)
{
	return (u64)MAJOR(dev) << 32 | MINOR(dev);
}

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, DM_REMAP_A_PAD);
}

static void fill_counters(struct dmr_instance *inst, struct dm_remap_counters *c)
{
	unsigned int i;

	/* struct dm_remap_counters begins with what enum dmr_count counts, in its order. */
	BUILD_BUG_ON(offsetof(struct dm_remap_counters, data_flush_fails) != 8 * DMR_COUNTS);
	for (i = 0; i < DMR_COUNTS; i++)
		((u64 *)c)[i] = atomic64_read(&inst->counts[i]);
	c->data_flush_fails = READ_ONCE(inst->flush_fails[DMR_DATA]);
	c->spare_flush_fails = READ_ONCE(inst->flush_fails[DMR_SPARE]);
	c->held_bios = READ_ONCE(inst->held_bios);
	c->held_sectors = READ_ONCE(inst->held_sectors);
	c->extents = inst->extents;
	c->open_faults = list_count_nodes(&inst->faults);
}

static u32 instance_flags(struct dmr_instance *inst)
{
	u32 flags = 0;

	if (dmr_is_ready(inst))
		flags |= DM_REMAP_INSTANCE_F_READY;
	if (inst->queue_unowned)
		flags |= DM_REMAP_INSTANCE_F_QUEUE;
	if (test_bit(DMR_SLOW_DATA_FLUSH, &inst->slow))
		flags |= DM_REMAP_INSTANCE_F_DATA_FLUSH_BAD;
	if (test_bit(DMR_SLOW_SPARE_FLUSH, &inst->slow))
		flags |= DM_REMAP_INSTANCE_F_SPARE_FLUSH_BAD;
	return flags;
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

static int put_instance(struct sk_buff *skb, struct netlink_callback *cb,
			struct dmr_instance *inst)
{
	void *hdr = start_message(skb, cb, DM_REMAP_CMD_INSTANCE_GET);
	struct dm_remap_counters c;
	int bad;

	if (!hdr)
		return -EMSGSIZE;
	fill_counters(inst, &c);
	bad = nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id) ||
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
	int bad;

	if (!hdr)
		return -EMSGSIZE;
	bad = nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id) ||
	      put_u64(skb, DM_REMAP_A_FAULT_ID, f->id) ||
	      put_u64(skb, DM_REMAP_A_START, f->start) ||
	      put_u64(skb, DM_REMAP_A_LEN, f->len) ||
	      nla_put_u8(skb, DM_REMAP_A_FAULT_STATE, f->state) ||
	      nla_put_u32(skb, DM_REMAP_A_FAULT_FLAGS, f->flags) ||
	      nla_put_u8(skb, DM_REMAP_A_STATUS, f->status);
	if (!bad && f->pb) {
		unsigned long now = jiffies, end = f->pb->deadline;

		bad = nla_put_u32(skb, DM_REMAP_A_DEADLINE_MS,
				  time_after(end, now) ? jiffies_to_msecs(end - now) : 0);
	}
	/* The results of a busy one are being written. */
	if (!bad && f->nr_pieces && f->state != DM_REMAP_FAULT_BUSY)
		bad = nla_put(skb, DM_REMAP_A_PIECES, f->nr_pieces * sizeof(*f->pieces),
			      f->pieces);
	return end_message(skb, hdr, bad);
}

/* A fault with all its pieces has to fit into one buffer. */
int dmr_dump_start(struct netlink_callback *cb)
{
	cb->min_dump_alloc = SKB_WITH_OVERHEAD(SZ_32K);
	if (!netlink_capable(cb->skb, CAP_SYS_ADMIN))
		return -EPERM;
	return dmr_check_attrs(genl_dumpit_info(cb)->op.cmd, dmr_dump_attrs(cb), cb->extack);
}

static struct dmr_instance *dumped_instance(struct netlink_callback *cb)
{
	return dmr_instance_get(nla_get_u32(dmr_dump_attrs(cb)[DM_REMAP_A_INSTANCE]), cb->extack);
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
	return skb->len;
}

/* args[0]: the next fault; 0: the instance itself comes first */
int dmr_fault_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = dumped_instance(cb);
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
	}
	mutex_unlock(&inst->mutex);
	dmr_instance_put(inst);
	return skb->len;
}

/* args[0]: the next sector of the table; args[1]: of the slot area, plus one */
int dmr_extent_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = dumped_instance(cb);
	struct dm_remap_extent e = {};
	struct nlattr *array;
	void *hdr;
	int n = 0;

	if (IS_ERR(inst))
		return PTR_ERR(inst);
	hdr = start_message(skb, cb, DM_REMAP_CMD_EXTENT_GET);
	if (!hdr || nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id))
		goto out;
	array = nla_reserve(skb, DM_REMAP_A_EXTENTS, 0);
	if (!array)
		goto out;
	mutex_lock(&inst->mutex);
	for (; !cb->args[1] && skb_tailroom(skb) >= sizeof(e); n++) {
		if (!dmr_table_next(&inst->table, cb->args[0], inst->sectors, &e)) {
			cb->args[1] = 1;
			break;
		}
		nla_append(skb, sizeof(e), &e);
		cb->args[0] = e.start + e.len;
	}
	e = (struct dm_remap_extent){ .kind = DM_REMAP_RETIRED };
	for (; cb->args[1] && inst->used && skb_tailroom(skb) >= sizeof(e); n++) {
		u64 s = find_next_bit(inst->retired, inst->slot_sectors, cb->args[1] - 1);

		if (s >= inst->slot_sectors)
			break;
		e.slot = inst->slot_start + s;
		e.len = find_next_zero_bit(inst->retired, inst->slot_sectors, s) - s;
		nla_append(skb, sizeof(e), &e);
		cb->args[1] = s + e.len + 1;
	}
	mutex_unlock(&inst->mutex);
	array->nla_len = skb_tail_pointer(skb) - (unsigned char *)array;
out:
	if (hdr)
		end_message(skb, hdr, !n);
	dmr_instance_put(inst);
	return skb->len;
}

/* --- the doorbell --- */

/* May be called in any context. */
void dmr_ring(struct dmr_instance *inst)
{
	WRITE_ONCE(inst->bell, true);
	mod_delayed_work(inst->wq, &inst->doorbell, 0);
}

/* Rings once a second until the owner lists. */
void dmr_doorbell_work(struct work_struct *work)
{
	struct dmr_instance *inst = container_of(work, struct dmr_instance, doorbell.work);
	struct sk_buff *skb;
	void *hdr;

	if (!READ_ONCE(inst->bell))
		return;
	skb = genlmsg_new(nla_total_size(4), GFP_NOIO);
	if (skb) {
		hdr = genlmsg_put(skb, 0, 0, &dmr_family, 0, DM_REMAP_CMD_DOORBELL);
		nla_put_u32(skb, DM_REMAP_A_INSTANCE, inst->id);
		genlmsg_end(skb, hdr);
		/* Nobody listening is no error: it rings again. */
		genlmsg_multicast_netns(&dmr_family, &init_net, skb, 0, 0, GFP_NOIO);
	}
	queue_delayed_work(inst->wq, &inst->doorbell, HZ);
}
