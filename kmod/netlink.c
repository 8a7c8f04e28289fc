// SPDX-License-Identifier: GPL-2.0-only
/*
 * The requests: attributes in, and whether the sender may. What the messages mean is in
 * <uapi/dm_remap.h>; what they do is in verdict.c and place.c.
 */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <net/genetlink.h>

#include "compat.h"
#include "shim.h"

#define ATTR(name) BIT(DM_REMAP_A_##name)

/* The attributes that each command takes: all of these, and no other. */
static const u32 takes[] = {
	[DM_REMAP_CMD_INSTANCE_GET] = 0,
	[DM_REMAP_CMD_CLAIM] = ATTR(INSTANCE) | ATTR(SLOT_START) | ATTR(SLOT_SECTORS) |
			       ATTR(SLOT_UNIT) | ATTR(COMMIT),
	[DM_REMAP_CMD_LOAD] = ATTR(INSTANCE) | ATTR(EXTENTS),
	[DM_REMAP_CMD_READY] = ATTR(INSTANCE),
	[DM_REMAP_CMD_FAULT_GET] = ATTR(INSTANCE),
	[DM_REMAP_CMD_EXTENT_GET] = ATTR(INSTANCE),
	[DM_REMAP_CMD_TRY] = ATTR(INSTANCE) | ATTR(FAULT_ID) | ATTR(PIECES),
	[DM_REMAP_CMD_PLACE] = ATTR(INSTANCE) | ATTR(FAULT_ID) | ATTR(PIECES),
	[DM_REMAP_CMD_INSTALL] = ATTR(INSTANCE) | ATTR(COMMIT) | ATTR(FAULT_IDS),
	[DM_REMAP_CMD_RELEASE] = ATTR(INSTANCE) | ATTR(FAULT_ID),
	[DM_REMAP_CMD_FAIL] = ATTR(INSTANCE) | ATTR(FAULT_ID),
	[DM_REMAP_CMD_FENCE] = ATTR(INSTANCE) | ATTR(START) | ATTR(LEN),
	[DM_REMAP_CMD_FLUSH_FAILED] = ATTR(INSTANCE),
};

int dmr_check_attrs(u8 cmd, struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	unsigned int i;

	for (i = 1; i <= DM_REMAP_A_MAX; i++) {
		bool given = attrs && attrs[i];

		if (given && !(takes[cmd] & BIT(i))) {
			NL_SET_ERR_MSG_ATTR(extack, attrs[i], "the command has no such attribute");
			return -EINVAL;
		}
		if (!given && (takes[cmd] & BIT(i)))
			return dmr_refuse(extack, -EINVAL, "a required attribute is missing");
	}
	return 0;
}

/*
 * Before every command: the messages steer raw blocks, and GENL_ADMIN_PERM would let CAP_NET_ADMIN
 * in. Takes inst->mutex, under which no allocation may do I/O.
 */
static int pre_doit(const struct genl_split_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst;
	int r;

	if (!netlink_capable(skb, CAP_SYS_ADMIN))
		return -EPERM;
	r = dmr_check_attrs(ops->cmd, info->attrs, info->extack);
	if (r)
		return r;
	inst = dmr_instance_get(nla_get_u32(info->attrs[DM_REMAP_A_INSTANCE]), info->extack);
	if (IS_ERR(inst))
		return PTR_ERR(inst);
	info->user_ptr[0] = inst;
	info->user_ptr[1] = (void *)(unsigned long)memalloc_noio_save();
	mutex_lock(&inst->mutex);
	return 0;
}

static void post_doit(const struct genl_split_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];

	mutex_unlock(&inst->mutex);
	memalloc_noio_restore((unsigned long)info->user_ptr[1]);
	dmr_instance_put(inst);
}

static u64 get_u64(struct genl_info *info, int attr)
{
	return nla_get_u64(info->attrs[attr]);
}

/* The elements of an array attribute, or a negative error. */
static int array(struct genl_info *info, int attr, size_t size, unsigned int max, const void **data)
{
	unsigned int len = nla_len(info->attrs[attr]);

	if (len % size || len / size > max) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[attr],
				    "it has too many elements, or not whole ones");
		return -EINVAL;
	}
	*data = nla_data(info->attrs[attr]);
	return len / size;
}

static int claim(struct dmr_instance *inst, struct genl_info *info)
{
	return dmr_claim(inst, info->snd_portid, get_u64(info, DM_REMAP_A_SLOT_START),
			 get_u64(info, DM_REMAP_A_SLOT_SECTORS),
			 nla_get_u32(info->attrs[DM_REMAP_A_SLOT_UNIT]),
			 get_u64(info, DM_REMAP_A_COMMIT), info->extack);
}

static int load(struct dmr_instance *inst, struct genl_info *info)
{
	const void *e;
	int n = array(info, DM_REMAP_A_EXTENTS, sizeof(struct dm_remap_extent), DM_REMAP_MAX_LOAD,
		      &e);

	return n < 0 ? n : dmr_load(inst, e, n, info->extack);
}

static int start_op(struct dmr_instance *inst, struct genl_info *info)
{
	const void *pieces;
	int n = array(info, DM_REMAP_A_PIECES, sizeof(struct dm_remap_piece), DM_REMAP_MAX_PIECES,
		      &pieces);

	return n < 0 ? n : dmr_start_op(inst, get_u64(info, DM_REMAP_A_FAULT_ID),
					info->genlhdr->cmd == DM_REMAP_CMD_PLACE, pieces, n,
					info->extack);
}

static int install(struct dmr_instance *inst, struct genl_info *info)
{
	const void *ids;
	int n = array(info, DM_REMAP_A_FAULT_IDS, sizeof(u64), DM_REMAP_MAX_INSTALL, &ids);

	return n < 0 ? n : dmr_install(inst, get_u64(info, DM_REMAP_A_COMMIT), ids, n, info->extack);
}

static int fence(struct dmr_instance *inst, struct genl_info *info)
{
	struct sk_buff *reply = genlmsg_new(nla_total_size_64bit(8), GFP_KERNEL);
	void *hdr;
	u64 id;
	int r;

	if (!reply)
		return -ENOMEM;
	r = dmr_fence(inst, get_u64(info, DM_REMAP_A_START), get_u64(info, DM_REMAP_A_LEN), &id,
		      info->extack);
	if (r) {
		nlmsg_free(reply);
		return r;
	}
	hdr = genlmsg_put_reply(reply, info, &dmr_family, 0, DM_REMAP_CMD_FENCE);
	nla_put_u64_64bit(reply, DM_REMAP_A_FAULT_ID, id, DM_REMAP_A_PAD);
	genlmsg_end(reply, hdr);
	return genlmsg_reply(reply, info);
}

static int doit(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];
	u8 cmd = info->genlhdr->cmd;

	if (cmd == DM_REMAP_CMD_CLAIM)
		return claim(inst, info);
	if (inst->owner != info->snd_portid)
		return dmr_refuse(info->extack, -EACCES, "the sender has not claimed the instance");
	switch (cmd) {
	case DM_REMAP_CMD_LOAD:
		return load(inst, info);
	case DM_REMAP_CMD_READY:
		dmr_ready(inst);
		return 0;
	case DM_REMAP_CMD_TRY:
	case DM_REMAP_CMD_PLACE:
		return start_op(inst, info);
	case DM_REMAP_CMD_INSTALL:
		return install(inst, info);
	case DM_REMAP_CMD_RELEASE:
		return dmr_release(inst, get_u64(info, DM_REMAP_A_FAULT_ID), info->extack);
	case DM_REMAP_CMD_FAIL:
		return dmr_fail(inst, get_u64(info, DM_REMAP_A_FAULT_ID), info->extack);
	case DM_REMAP_CMD_FENCE:
		return fence(inst, info);
	case DM_REMAP_CMD_FLUSH_FAILED:
		dmr_owner_flush_failed(inst);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* The socket that has claimed an instance has ended. */
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

static const struct nla_policy dmr_policy[] = {
	[DM_REMAP_A_INSTANCE] = { .type = NLA_U32 },
	[DM_REMAP_A_COMMIT] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_START] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_SECTORS] = { .type = NLA_U64 },
	[DM_REMAP_A_SLOT_UNIT] = { .type = NLA_U32 },
	[DM_REMAP_A_EXTENTS] = { .type = NLA_BINARY },
	[DM_REMAP_A_FAULT_ID] = { .type = NLA_U64 },
	[DM_REMAP_A_FAULT_IDS] = { .type = NLA_BINARY },
	[DM_REMAP_A_START] = { .type = NLA_U64 },
	[DM_REMAP_A_LEN] = { .type = NLA_U64 },
	[DM_REMAP_A_PIECES] = { .type = NLA_BINARY },
	[DM_REMAP_A_MAX] = {},
};

#define DUMP(name, dump) \
	{ .cmd = DM_REMAP_CMD_##name, .start = dmr_dump_start, .dumpit = dump }
#define DO(name) { .cmd = DM_REMAP_CMD_##name, .doit = doit }

static const struct genl_ops dmr_ops[] = {
	DUMP(INSTANCE_GET, dmr_instance_dumpit),
	DUMP(FAULT_GET, dmr_fault_dumpit),
	DUMP(EXTENT_GET, dmr_extent_dumpit),
	DO(CLAIM),
	DO(LOAD),
	DO(READY),
	DO(TRY),
	DO(PLACE),
	DO(INSTALL),
	DO(RELEASE),
	DO(FAIL),
	DO(FENCE),
	DO(FLUSH_FAILED),
};

static const struct genl_multicast_group dmr_groups[] = {
	{ .name = DM_REMAP_MCGRP_FAULTS, .flags = GENL_MCAST_CAP_SYS_ADMIN },
};

struct genl_family dmr_family __ro_after_init = {
	.name = DM_REMAP_GENL_NAME,
	.version = DM_REMAP_GENL_VERSION,
	.maxattr = DM_REMAP_A_MAX,
	.policy = dmr_policy,
	.pre_doit = pre_doit,
	.post_doit = post_doit,
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
