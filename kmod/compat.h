/* SPDX-License-Identifier: GPL-2.0-only */
/* Every difference between the kernels that the module builds for. */
#ifndef DMR_COMPAT_H
#define DMR_COMPAT_H

#include <linux/version.h>
#include <net/genetlink.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define genl_split_ops genl_ops		/* what pre_doit is given */
#endif

static inline struct nlattr **dmr_dump_attrs(struct netlink_callback *cb)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return genl_dumpit_info(cb)->info.attrs;
#else
	return genl_dumpit_info(cb)->attrs;
#endif
}

#endif
