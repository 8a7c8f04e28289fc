// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <net/genetlink.h>

#include "shim.h"

atomic_t dmr_live_instances, dmr_live_faults, dmr_live_bios;

static int live_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%d\n", atomic_read(kp->arg));
}

static const struct kernel_param_ops live_ops = { .get = live_get };

module_param_cb(live_instances, &live_ops, &dmr_live_instances, 0444);
MODULE_PARM_DESC(live_instances, "Instances in memory");
module_param_cb(live_faults, &live_ops, &dmr_live_faults, 0444);
MODULE_PARM_DESC(live_faults, "Faults and fences in memory");
module_param_cb(live_bios, &live_ops, &dmr_live_bios, 0444);
MODULE_PARM_DESC(live_bios, "Held bios");

static int __init dmr_init(void)
{
	int r;

	r = dmr_netlink_init();
	if (r)
		return r;
	r = dm_register_target(&dmr_target_type);
	if (r)
		dmr_netlink_exit();
	return r;
}

static void __exit dmr_exit(void)
{
	dm_unregister_target(&dmr_target_type);
	dmr_netlink_exit();
}

module_init(dmr_init);
module_exit(dmr_exit);

MODULE_DESCRIPTION(DM_NAME " target that keeps disks with bad sectors in service");
MODULE_AUTHOR("dm-remap maintainers");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-remap");
MODULE_ALIAS_GENL_FAMILY(DM_REMAP_GENL_NAME);
