// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink as the module sees it: requests come parsed, dumps go on until they are empty. */
#include <stdarg.h>
#include "host.h"

#define FAMILY_TYPE 32
#define HEADERS (sizeof(struct nlmsghdr) + sizeof(struct genlmsghdr))

struct net init_net;
struct genl_family *host_family;
static struct notifier_block *notifier;

int genl_register_family(struct genl_family *family)
{
	host_family = family;
	return 0;
}

void genl_unregister_family(struct genl_family *family)
{
	host_family = NULL;
}

int netlink_register_notifier(struct notifier_block *nb)
{
	notifier = nb;
	return 0;
}

int netlink_unregister_notifier(struct notifier_block *nb)
{
	notifier = NULL;
	return 0;
}

void host_socket_ends(u32 portid)
{
	struct netlink_notify n = { .net = &init_net, .portid = portid, .protocol = NETLINK_GENERIC };

	notifier->notifier_call(notifier, NETLINK_URELEASE, &n);
}

static struct sk_buff *skb_new(unsigned int room)
{
	struct sk_buff *skb = calloc(1, sizeof(*skb));

	skb->data = calloc(1, room);
	skb->room = room;
	return skb;
}

struct sk_buff *genlmsg_new(size_t payload, gfp_t gfp)
{
	return host_no_memory(gfp) ? NULL : skb_new(HEADERS + payload);
}

void nlmsg_free(struct sk_buff *skb)
{
	free(skb->data);
	free(skb);
}

static void *take(struct sk_buff *skb, unsigned int len)
{
	void *at = skb->data + skb->len;

	len = round_up(len, 4U);
	if (len > skb->room - skb->len)
		return NULL;
	skb->len += len;
	return at;
}

int nla_put(struct sk_buff *skb, int type, int len, const void *data)
{
	struct nlattr *a = take(skb, sizeof(*a) + len);

	if (!a)
		return -EMSGSIZE;
	*a = (struct nlattr){ .nla_len = sizeof(*a) + len, .nla_type = type };
	memcpy(nla_data(a), data, len);
	return 0;
}

void *genlmsg_put(struct sk_buff *skb, u32 portid, u32 seq, const struct genl_family *family,
		  int flags, u8 cmd)
{
	unsigned int begun = skb->len;
	struct nlmsghdr *h = take(skb, HEADERS);
	struct genlmsghdr *g = (struct genlmsghdr *)(h + 1);

	if (!h)
		return NULL;
	*h = (struct nlmsghdr){ .nlmsg_type = FAMILY_TYPE, .nlmsg_flags = flags, .nlmsg_seq = seq,
				.nlmsg_pid = portid };
	*g = (struct genlmsghdr){ .cmd = cmd, .version = family->version };
	skb->begun = begun;
	return g + 1;
}

void genlmsg_end(struct sk_buff *skb, void *hdr)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(skb->data + skb->begun);

	h->nlmsg_len = skb->len - skb->begun;
}

void genlmsg_cancel(struct sk_buff *skb, void *hdr)
{
	if (hdr)
		skb->len = skb->begun;
}

int genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	host_say_bytes("answer", skb->data, skb->len);
	nlmsg_free(skb);
	return 0;
}

/* Nobody keeps up with the doorbell, nor has to: it rang since the last time, or did not. */
int genlmsg_multicast_netns(const struct genl_family *family, struct net *net, struct sk_buff *skb,
			    u32 portid, unsigned int group, gfp_t gfp)
{
	host_say_bytes("bell", skb->data, skb->len);
	nlmsg_free(skb);
	return 0;
}

static int parse(const u8 *payload, size_t len, struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	while (len >= sizeof(struct nlattr)) {
		struct nlattr *a = (struct nlattr *)payload;
		size_t whole = round_up((size_t)a->nla_len, 4UL);
		u8 type = a->nla_type <= host_family->maxattr ?
			  host_family->policy[a->nla_type].type : NLA_UNSPEC;

		if (a->nla_len < sizeof(*a) || a->nla_len > len || !type ||
		    (type == NLA_U32 && nla_len(a) != 4) || (type == NLA_U64 && nla_len(a) != 8)) {
			extack->text = "the attributes are malformed";
			return -EINVAL;
		}
		attrs[a->nla_type] = a;
		payload += min(whole, len);
		len -= min(whole, len);
	}
	return len ? -EINVAL : 0;
}

static int do_it(const struct genl_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	const struct genl_split_ops split = { .cmd = ops->cmd };
	int r = host_family->pre_doit(&split, skb, info);

	if (r)
		return r;
	host_request = true;
	r = ops->doit(skb, info);
	host_request = false;
	host_family->post_doit(&split, skb, info);
	return r;
}

static int dump(const struct genl_ops *ops, struct sk_buff *skb, struct genl_info *info)
{
	const struct nlmsghdr nlh = { .nlmsg_seq = info->snd_seq };
	struct genl_dumpit_info data = { .op.cmd = ops->cmd, .info = *info };
	struct netlink_callback cb = { .skb = skb, .nlh = &nlh, .extack = info->extack, .data = &data };
	int r = ops->start(&cb), more = !r;

	while (more) {
		struct sk_buff *out = skb_new(max(cb.min_dump_alloc, 4096U));

		more = ops->dumpit(out, &cb);
		if (more < 0)
			r = more;
		if (more >= 0 && out->len)
			host_say_bytes("answer", out->data, out->len);
		more = more > 0;
		nlmsg_free(out);
	}
	return r;
}

/* @payload: a generic netlink header and attributes. */
void host_request_from(u32 portid, const u8 *payload, size_t len)
{
	struct nlattr *attrs[DM_REMAP_A_MAX + 1] = { };
	struct netlink_ext_ack extack = { };
	const struct genlmsghdr *h = (const struct genlmsghdr *)payload;
	struct sk_buff skb = { .portid = portid };
	struct genl_info info = { .snd_seq = 1, .snd_portid = portid, .genlhdr = h, .attrs = attrs,
				  .extack = &extack };
	int r = parse(payload + sizeof(*h), len - sizeof(*h), attrs, &extack);
	const struct genl_ops *ops = host_family->ops;

	while (ops->cmd != h->cmd)
		if (++ops == host_family->ops + host_family->n_ops)
			host_bug("no such command");
	if (!r)
		r = ops->doit ? do_it(ops, &skb, &info) : dump(ops, &skb, &info);
	if (ops->doit)
		host_memory_fails = 0;
	if (r && r != -ENOMEM && !extack.text)
		host_bug("a refusal that does not say why");
	host_say("done %d", -r);
}
