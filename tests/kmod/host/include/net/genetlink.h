/* SPDX-License-Identifier: GPL-2.0-only */
/* Generic netlink: messages, attributes, a family and who it tells; see netlink.c. */
#ifndef HOST_GENETLINK_H
#define HOST_GENETLINK_H

#include <linux/slab.h>
#include <linux/types.h>

#define NETLINK_GENERIC 16
#define NETLINK_URELEASE 1
#define NOTIFY_DONE 0
#define NLM_F_MULTI 2
#define GENL_MCAST_CAP_SYS_ADMIN 1
#define CAP_SYS_ADMIN 21

struct nlmsghdr { u32 nlmsg_len; u16 nlmsg_type, nlmsg_flags; u32 nlmsg_seq, nlmsg_pid; };
struct genlmsghdr { u8 cmd, version; u16 reserved; };
struct nlattr { u16 nla_len, nla_type; };

static inline int nla_len(const struct nlattr *a)
{
	return a->nla_len - (int)sizeof(*a);
}

static inline void *nla_data(const struct nlattr *a)
{
	return (void *)(a + 1);
}

static inline void *nla_memdup(const struct nlattr *a, gfp_t gfp)
{
	void *copy = host_no_memory(gfp) ? NULL : malloc(nla_len(a));

	return copy ? memcpy(copy, nla_data(a), nla_len(a)) : NULL;
}

static inline u32 nla_get_u32(const struct nlattr *a)
{
	u32 value;

	memcpy(&value, nla_data(a), sizeof(value));
	return value;
}

static inline u64 nla_get_u64(const struct nlattr *a)
{
	u64 value;

	memcpy(&value, nla_data(a), sizeof(value));
	return value;
}

/* Messages one after the other. */
struct sk_buff { char *data; unsigned int len, room, begun; u32 portid; };

#define NETLINK_CB(skb) (*(skb))
#define SKB_WITH_OVERHEAD(size) ((size) - 320)
#define nla_total_size(n) ((n) + 4)
#define nla_total_size_64bit(n) ((n) + 8)

struct sk_buff *genlmsg_new(size_t payload, gfp_t gfp);
void nlmsg_free(struct sk_buff *skb);
int nla_put(struct sk_buff *skb, int type, int len, const void *data);

static inline int nla_put_u8(struct sk_buff *skb, int type, u8 value)
{
	return nla_put(skb, type, sizeof(value), &value);
}

static inline int nla_put_u32(struct sk_buff *skb, int type, u32 value)
{
	return nla_put(skb, type, sizeof(value), &value);
}

static inline int nla_put_u64_64bit(struct sk_buff *skb, int type, u64 value, int pad)
{
	return (void)pad, nla_put(skb, type, sizeof(value), &value);
}

struct netlink_ext_ack { const char *text; const struct nlattr *bad; };

#define NL_SET_ERR_MSG(extack, message) ((void)((extack)->text = (message)))
#define NL_SET_BAD_ATTR(extack, attr) ((void)((extack)->bad = (attr)))

struct net { int none; };
extern struct net init_net;

struct genl_info {
	u32 snd_seq, snd_portid;
	const struct genlmsghdr *genlhdr;
	struct nlattr **attrs;
	void *user_ptr[2];
	struct netlink_ext_ack *extack;
};

struct genl_split_ops { u8 cmd; };

struct netlink_callback {
	struct sk_buff *skb;		/* the request */
	const struct nlmsghdr *nlh;
	struct netlink_ext_ack *extack;
	struct genl_dumpit_info *data;
	u32 min_dump_alloc;
	long args[6];
};

struct genl_dumpit_info { struct genl_split_ops op; struct genl_info info; };

#define genl_dumpit_info(cb) ((const struct genl_dumpit_info *)(cb)->data)

struct genl_ops {
	u8 cmd;
	int (*doit)(struct sk_buff *skb, struct genl_info *info);
	int (*start)(struct netlink_callback *cb);
	int (*dumpit)(struct sk_buff *skb, struct netlink_callback *cb);
};

enum { NLA_UNSPEC, NLA_U32, NLA_U64, NLA_BINARY };

struct nla_policy { u8 type; };
struct genl_multicast_group { const char *name; u8 flags; };

struct genl_family {
	const char *name;
	unsigned int version, maxattr;
	const struct nla_policy *policy;
	int (*pre_doit)(const struct genl_split_ops *ops, struct sk_buff *skb, struct genl_info *info);
	void (*post_doit)(const struct genl_split_ops *ops, struct sk_buff *skb,
			  struct genl_info *info);
	bool parallel_ops;
	struct module *module;
	const struct genl_ops *ops;
	unsigned int n_ops, resv_start_op, n_mcgrps;
	const struct genl_multicast_group *mcgrps;
};

int genl_register_family(struct genl_family *family);
void genl_unregister_family(struct genl_family *family);
void *genlmsg_put(struct sk_buff *skb, u32 portid, u32 seq, const struct genl_family *family,
		  int flags, u8 cmd);
void genlmsg_end(struct sk_buff *skb, void *hdr);
void genlmsg_cancel(struct sk_buff *skb, void *hdr);
int genlmsg_reply(struct sk_buff *skb, struct genl_info *info);
int genlmsg_multicast_netns(const struct genl_family *family, struct net *net, struct sk_buff *skb,
			    u32 portid, unsigned int group, gfp_t gfp);

#define genlmsg_put_reply(skb, info, family, flags, cmd) \
	genlmsg_put(skb, (info)->snd_portid, (info)->snd_seq, family, flags, cmd)
#define netlink_capable(skb, cap) ((void)(skb), true)

struct netlink_notify { struct net *net; u32 portid; int protocol; };

struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long event, void *data);
};

int netlink_register_notifier(struct notifier_block *nb);
int netlink_unregister_notifier(struct notifier_block *nb);

#endif
