// SPDX-License-Identifier: GPL-2.0-only
/* Who may send what. What the messages mean is in <uapi/dm_remap.h>, what they do in verdict.c, place.c, flush.c. */
#include "shim.h"

#define ATTR(name) BIT(DM_REMAP_A_##name)

/* The attributes that each command takes: all of these, and no other. */
static const u32 takes[] = {
	[DM_REMAP_CMD_CLAIM] = ATTR(INSTANCE) | ATTR(SLOT_START) | ATTR(SLOT_SECTORS) |
			       ATTR(SLOT_UNIT) | ATTR(COMMIT),
	[DM_REMAP_CMD_LOAD] = ATTR(INSTANCE) | ATTR(EXTENTS),
	[DM_REMAP_CMD_READY ... DM_REMAP_CMD_EXTENT_GET] = ATTR(INSTANCE),
	[DM_REMAP_CMD_TRY ... DM_REMAP_CMD_PLACE] = ATTR(INSTANCE) | ATTR(FAULT_ID) | ATTR(PIECES),
	[DM_REMAP_CMD_INSTALL] = ATTR(INSTANCE) | ATTR(COMMIT) | ATTR(FAULT_IDS),
	[DM_REMAP_CMD_RELEASE ... DM_REMAP_CMD_FAIL] = ATTR(INSTANCE) | ATTR(FAULT_ID),
	[DM_REMAP_CMD_FENCE] = ATTR(INSTANCE) | ATTR(START) | ATTR(LEN),
	[DM_REMAP_CMD_FLUSH_FAILED] = ATTR(INSTANCE),
};

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

static const struct {
	u16 size, most;
} arrays[DM_REMAP_A_MAX + 1] = {
	[DM_REMAP_A_EXTENTS] = { sizeof(struct dm_remap_extent), DM_REMAP_MAX_LOAD },
	[DM_REMAP_A_FAULT_IDS] = { sizeof(u64), DM_REMAP_MAX_INSTALL },
	[DM_REMAP_A_PIECES] = { sizeof(struct dm_remap_piece), DM_REMAP_MAX_PIECES },
};

int dmr_check_attrs(u8 cmd, struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	unsigned int i;

	for (i = 1; i <= DM_REMAP_A_MAX; i++) {
		struct nlattr *attr = attrs ? attrs[i] : NULL;
		bool taken = takes[cmd] & BIT(i);

		NL_SET_BAD_ATTR(extack, attr);
		if (attr && !taken)
			return dmr_refuse(extack, -EINVAL, "the command has no such attribute");
		if (!attr && taken)
			return dmr_refuse(extack, -EINVAL, "a required attribute is missing");
		if (attr && arrays[i].size && (nla_len(attr) % arrays[i].size ||
					       nla_len(attr) / arrays[i].size > arrays[i].most))
			return dmr_refuse(extack, -EINVAL, "not whole elements, or too many");
	}
	return 0;
}

static void post_doit(const struct genl_split_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];

	memalloc_noio_restore(inst->noio);
	mutex_unlock(&inst->mutex);
	kref_put(&inst->kref, dmr_instance_free);
}

/*
 * Before every command: the messages steer raw blocks, and GENL_ADMIN_PERM would let CAP_NET_ADMIN
 * in. Takes inst->mutex, under which no allocation may do I/O. The commands find the instance in
 * user_ptr[0] and their fault in user_ptr[1].
 */
static int pre_doit(const struct genl_split_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	bool anybody = ops->cmd == DM_REMAP_CMD_CLAIM || ops->cmd == DM_REMAP_CMD_FLUSH_FAILED;
	struct nlattr *fault = info->attrs[DM_REMAP_A_FAULT_ID];
	struct dmr_instance *inst;
	int r;

	if (!netlink_capable(skb, CAP_SYS_ADMIN))
		return -EPERM;
	r = dmr_check_attrs(ops->cmd, info->attrs, info->extack);
	if (r)
		return r;
	inst = dmr_instance_get(info->attrs, info->extack);
	if (IS_ERR(inst))
		return PTR_ERR(inst);
	mutex_lock(&inst->mutex);
	inst->noio = memalloc_noio_save();
	info->user_ptr[0] = inst;
	info->user_ptr[1] = fault ? dmr_fault_find(inst, nla_get_u64(fault)) : NULL;
	if (!anybody && inst->owner != info->snd_portid)
		r = dmr_refuse(info->extack, -EACCES, "the sender has not claimed the instance");
	else if (fault && !info->user_ptr[1])
		r = dmr_refuse(info->extack, -ENOENT, "no such fault");
	if (r)
		post_doit(ops, skb, info);
	return r;
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

static const struct genl_multicast_group dmr_groups[] = {
	{ .name = DM_REMAP_MCGRP_FAULTS, .flags = GENL_MCAST_CAP_SYS_ADMIN } };

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
	.n_ops = DMR_NR_OPS,
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
