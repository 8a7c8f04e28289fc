// SPDX-License-Identifier: GPL-2.0-only
/*
 * The conversation: attributes in, attributes out, and the doorbell. What the
 * messages mean is in <uapi/dm_remap.h>; what they do is in verdict.c.
 */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <net/genetlink.h>

#include "compat.h"
#include "shim.h"

static struct genl_family dmr_family;

static u64 dev_wire(dev_t dev)
{
	return (u64)MAJOR(dev) << 32 | MINOR(dev);
}

/* --- requests --- */

/* The messages steer raw blocks; GENL_ADMIN_PERM would let CAP_NET_ADMIN in. */
static bool may_steer(struct sk_buff *skb)
{
	return netlink_capable(skb, CAP_SYS_ADMIN);
}

static struct dmr_instance *get_instance(struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	struct dmr_instance *inst;

	if (!attrs || !attrs[DM_REMAP_A_INSTANCE]) {
		NL_SET_ERR_MSG(extack, "INSTANCE is missing");
		return ERR_PTR(-EINVAL);
	}
	inst = dmr_instance_get(nla_get_u32(attrs[DM_REMAP_A_INSTANCE]));
	if (!inst) {
		NL_SET_ERR_MSG(extack, "no such instance");
		return ERR_PTR(-ESRCH);
	}
	return inst;
}

static bool has(struct genl_info *info, const u8 *wanted, unsigned int n)
{
	while (n--)
		if (!info->attrs[wanted[n]]) {
			NL_SET_ERR_MSG(info->extack, "a required attribute is missing");
			return false;
		}
	return true;
}

#define HAS(info, ...) \
	has(info, (const u8 []){ __VA_ARGS__ }, sizeof((const u8 []){ __VA_ARGS__ }))

/* The elements of an array attribute, or a negative error. */
static int count(struct genl_info *info, int attr, size_t size, unsigned int max)
{
	unsigned int len = nla_len(info->attrs[attr]);

	if (len % size || len / size > max) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[attr],
				    "array is too long or not of whole elements");
		return -EINVAL;
	}
	return len / size;
}

/* Runs one owner's command under inst->mutex, where no allocation does I/O. */
static int owned(struct genl_info *info,
		 int (*run)(struct dmr_instance *inst, struct genl_info *info))
{
	struct dmr_instance *inst = get_instance(info->attrs, info->extack);
	unsigned int noio;
	int r;

	if (IS_ERR(inst))
		return PTR_ERR(inst);
	noio = memalloc_noio_save();
	mutex_lock(&inst->mutex);
	if (inst->owner != info->snd_portid) {
		NL_SET_ERR_MSG(info->extack, "the sender has not claimed the instance");
		r = -EACCES;
	} else {
		r = run(inst, info);
	}
	mutex_unlock(&inst->mutex);
	memalloc_noio_restore(noio);
	dmr_instance_put(inst);
	return r;
}

static int claim_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst;
	unsigned int noio;
	int r;

	if (!may_steer(skb))
		return -EPERM;
	if (!HAS(info, DM_REMAP_A_SLOT_START, DM_REMAP_A_SLOT_SECTORS, DM_REMAP_A_SLOT_UNIT,
		 DM_REMAP_A_COMMIT))
		return -EINVAL;
	inst = get_instance(info->attrs, info->extack);
	if (IS_ERR(inst))
		return PTR_ERR(inst);
	noio = memalloc_noio_save();
	r = dmr_claim(inst, info->snd_portid, nla_get_u64(info->attrs[DM_REMAP_A_SLOT_START]),
		      nla_get_u64(info->attrs[DM_REMAP_A_SLOT_SECTORS]),
		      nla_get_u32(info->attrs[DM_REMAP_A_SLOT_UNIT]),
		      nla_get_u64(info->attrs[DM_REMAP_A_COMMIT]), info->extack);
	memalloc_noio_restore(noio);
	dmr_instance_put(inst);
	return r;
}

static int run_load(struct dmr_instance *inst, struct genl_info *info)
{
	int n;

	if (!HAS(info, DM_REMAP_A_EXTENTS))
		return -EINVAL;
	n = count(info, DM_REMAP_A_EXTENTS, sizeof(struct dm_remap_extent), DM_REMAP_MAX_LOAD);
	return n < 0 ? n : dmr_load(inst, nla_data(info->attrs[DM_REMAP_A_EXTENTS]), n,
				    info->extack);
}

static int run_ready(struct dmr_instance *inst, struct genl_info *info)
{
	return dmr_ready(inst, info->extack);
}

static int run_op(struct dmr_instance *inst, struct genl_info *info)
{
	int n;

	if (!HAS(info, DM_REMAP_A_FAULT_ID, DM_REMAP_A_PIECES))
		return -EINVAL;
	n = count(info, DM_REMAP_A_PIECES, sizeof(struct dm_remap_piece), DM_REMAP_MAX_PIECES);
	return n < 0 ? n : dmr_start_op(inst, nla_get_u64(info->attrs[DM_REMAP_A_FAULT_ID]),
					info->genlhdr->cmd == DM_REMAP_CMD_PLACE,
					nla_data(info->attrs[DM_REMAP_A_PIECES]), n,
					info->extack);
}

static int run_install(struct dmr_instance *inst, struct genl_info *info)
{
	int n;

	if (!HAS(info, DM_REMAP_A_COMMIT, DM_REMAP_A_FAULT_IDS))
		return -EINVAL;
	n = count(info, DM_REMAP_A_FAULT_IDS, sizeof(u64), DM_REMAP_MAX_INSTALL);
	return n < 0 ? n : dmr_install(inst, nla_get_u64(info->attrs[DM_REMAP_A_COMMIT]),
				       nla_data(info->attrs[DM_REMAP_A_FAULT_IDS]), n,
				       info->extack);
}

static int run_release(struct dmr_instance *inst, struct genl_info *info)
{
	if (!HAS(info, DM_REMAP_A_FAULT_ID))
		return -EINVAL;
	return dmr_release(inst, nla_get_u64(info->attrs[DM_REMAP_A_FAULT_ID]), info->extack);
}

static int run_fail(struct dmr_instance *inst, struct genl_info *info)
{
	if (!HAS(info, DM_REMAP_A_FAULT_ID))
		return -EINVAL;
	return dmr_fail(inst, nla_get_u64(info->attrs[DM_REMAP_A_FAULT_ID]), info->extack);
}

static int run_fence(struct dmr_instance *inst, struct genl_info *info)
{
	struct sk_buff *reply;
	void *hdr;
	u64 id;
	int r;

	if (!HAS(info, DM_REMAP_A_START, DM_REMAP_A_LEN))
		return -EINVAL;
	reply = genlmsg_new(nla_total_size_64bit(8), GFP_KERNEL);
	if (!reply)
		return -ENOMEM;
	r = dmr_fence(inst, nla_get_u64(info->attrs[DM_REMAP_A_START]),
		      nla_get_u64(info->attrs[DM_REMAP_A_LEN]), &id, info->extack);
	if (r) {
		nlmsg_free(reply);
		return r;
	}
	hdr = genlmsg_put_reply(reply, info, &dmr_family, 0, DM_REMAP_CMD_FENCE);
	nla_put_u64_64bit(reply, DM_REMAP_A_FAULT_ID, id, DM_REMAP_A_PAD);
	genlmsg_end(reply, hdr);
	return genlmsg_reply(reply, info);
}

#define DOIT(name)								\
static int name##_doit(struct sk_buff *skb, struct genl_info *info)		\
{										\
	return may_steer(skb) ? owned(info, run_##name) : -EPERM;		\
}

DOIT(load)
DOIT(ready)
DOIT(op)
DOIT(install)
DOIT(release)
DOIT(fail)
DOIT(fence)

/* --- answers --- */

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, DM_REMAP_A_PAD);
}

static void fill_counters(struct dmr_instance *inst, struct dm_remap_counters *c)
{
	struct dmr_fault *f;

	*c = (struct dm_remap_counters){
		.faults = atomic64_read(&inst->faults_opened),
		.installs = atomic64_read(&inst->installs),
		.releases = atomic64_read(&inst->releases),
		.fails = atomic64_read(&inst->fails),
		.expired = atomic64_read(&inst->expired),
		.refused = atomic64_read(&inst->refused),
		.unowned = atomic64_read(&inst->unowned),
		.passed = atomic64_read(&inst->passed),
		.poison_reads = atomic64_read(&inst->poison_reads),
		.redone = atomic64_read(&inst->redone),
		.data_flush_fails = READ_ONCE(inst->flush_fails[DMR_DATA]),
		.spare_flush_fails = READ_ONCE(inst->flush_fails[DMR_SPARE]),
		.held_bios = READ_ONCE(inst->held_bios),
		.held_sectors = READ_ONCE(inst->held_sectors),
		.extents = dmr_view(inst)->index->extents,
	};
	list_for_each_entry(f, &inst->faults, node)
		c->open_faults++;
}

static u32 instance_flags(struct dmr_instance *inst)
{
	u32 flags = 0;

	if (dmr_view(inst)->ready)
		flags |= DM_REMAP_INSTANCE_F_READY;
	if (inst->queue_unowned)
		flags |= DM_REMAP_INSTANCE_F_QUEUE;
	if (READ_ONCE(inst->pushback))
		flags |= DM_REMAP_INSTANCE_F_NOFLUSH;
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
static int dump_start(struct netlink_callback *cb)
{
	cb->min_dump_alloc = SZ_32K;
	return may_steer(cb->skb) ? 0 : -EPERM;
}

/* args[0]: the next instance */
static int instance_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
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
static int fault_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = get_instance(dmr_dump_attrs(cb), cb->extack);
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
static int extent_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dmr_instance *inst = get_instance(dmr_dump_attrs(cb), cb->extack);
	const struct dm_remap_extent *e;
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
	while (!cb->args[1] && skb_tailroom(skb) >= sizeof(*e)) {
		e = dmr_index_find(dmr_view(inst)->index, cb->args[0]);
		if (!e) {
			cb->args[1] = 1;
			break;
		}
		nla_append(skb, sizeof(*e), e);
		cb->args[0] = e->start + e->len;
		n++;
	}
	while (cb->args[1] && inst->used && skb_tailroom(skb) >= sizeof(*e)) {
		u64 s = find_next_bit(inst->retired, inst->slot_sectors, cb->args[1] - 1);
		struct dm_remap_extent gone = { .kind = DM_REMAP_RETIRED };

		if (s >= inst->slot_sectors)
			break;
		gone.slot = inst->slot_start + s;
		gone.len = find_next_zero_bit(inst->retired, inst->slot_sectors, s) - s;
		nla_append(skb, sizeof(gone), &gone);
		cb->args[1] = s + gone.len + 1;
		n++;
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
	struct dmr_instance *inst =
		container_of(work, struct dmr_instance, doorbell.work);
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

/* --- the owner's end --- */

static int socket_gone(struct notifier_block *nb, unsigned long event, void *data)
{
	const struct netlink_notify *n = data;
	struct dmr_instance *inst;

	if (event != NETLINK_URELEASE || n->protocol != NETLINK_GENERIC || n->net != &init_net)
		return NOTIFY_DONE;
	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node) {
		mutex_lock(&inst->mutex);
		if (inst->owner == n->portid)
			dmr_owner_gone(inst);
		mutex_unlock(&inst->mutex);
	}
	mutex_unlock(&dmr_instances_lock);
	return NOTIFY_DONE;
}

static struct notifier_block dmr_notifier = { .notifier_call = socket_gone };

/* --- the family --- */

static const struct nla_policy claim_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_COMMIT] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_START] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_SECTORS] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_UNIT] = { .type = NLA_U32 },
};

static const struct nla_policy instance_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
};

static const struct nla_policy load_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_EXTENTS] = { .type = NLA_BINARY },
};

static const struct nla_policy fault_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_FAULT_ID] = { .type = NLA_U64 },
};

static const struct nla_policy op_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_FAULT_ID] = { .type = NLA_U64 },
	[DM_REMAP_A_PIECES] = { .type = NLA_BINARY },
};

static const struct nla_policy install_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_COMMIT] = { .type = NLA_U64 },
	[DM_REMAP_A_FAULT_IDS] = { .type = NLA_BINARY },
};

static const struct nla_policy fence_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_START] = { .type = NLA_U64 },
	[DM_REMAP_A_LEN] = { .type = NLA_U64 },
};

#define OP(name, table) .cmd = DM_REMAP_CMD_##name, .policy = table, .maxattr = ARRAY_SIZE(table) - 1

static const struct genl_ops dmr_ops[] = {
	{ .cmd = DM_REMAP_CMD_INSTANCE_GET, .start = dump_start, .dumpit = instance_dumpit, },
	{ OP(CLAIM, claim_policy), .doit = claim_doit, },
	{ OP(LOAD, load_policy), .doit = load_doit, },
	{ OP(READY, instance_policy), .doit = ready_doit, },
	{ OP(FAULT_GET, instance_policy), .start = dump_start, .dumpit = fault_dumpit, },
	{ OP(EXTENT_GET, instance_policy), .start = dump_start, .dumpit = extent_dumpit, },
	{ OP(TRY, op_policy), .doit = op_doit, },
	{ OP(PLACE, op_policy), .doit = op_doit, },
	{ OP(INSTALL, install_policy), .doit = install_doit, },
	{ OP(RELEASE, fault_policy), .doit = release_doit, },
	{ OP(FAIL, fault_policy), .doit = fail_doit, },
	{ OP(FENCE, fence_policy), .doit = fence_doit, },
};

static const struct genl_multicast_group dmr_groups[] = {
	{ .name = DM_REMAP_MCGRP_FAULTS, .flags = GENL_MCAST_CAP_SYS_ADMIN },
};

static struct genl_family dmr_family __ro_after_init = {
	.name = DM_REMAP_GENL_NAME,
	.version = DM_REMAP_GENL_VERSION,
	.maxattr = DM_REMAP_A_MAX,
	.parallel_ops = true,
	.module = THIS_MODULE,
	.ops = dmr_ops,
	.n_ops = ARRAY_SIZE(dmr_ops),
	.resv_start_op = DM_REMAP_CMD_UNSPEC + 1,
	.mcgrps = dmr_groups,
	.n_mcgrps = ARRAY_SIZE(dmr_groups),
};

int __init dmr_netlink_init(void)
{
	int r = genl_register_family(&dmr_family);

	if (r)
		return r;
	r = netlink_register_notifier(&dmr_notifier);
	if (r)
		genl_unregister_family(&dmr_family);
	return r;
}

void dmr_netlink_exit(void)
{
	netlink_unregister_notifier(&dmr_notifier);
	genl_unregister_family(&dmr_family);
}
