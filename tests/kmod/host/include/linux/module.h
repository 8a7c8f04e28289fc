/* SPDX-License-Identifier: GPL-2.0-only */
/* What the module says of itself is for modinfo; its beginning and end are for the host. */
#ifndef HOST_MODULE_H
#define HOST_MODULE_H

#define THIS_MODULE NULL
#define HOST_NOTHING struct host_nothing
#define module_param_named(name, value, type, mode) HOST_NOTHING
#define MODULE_PARM_DESC(name, text) HOST_NOTHING
#define MODULE_DESCRIPTION(text) HOST_NOTHING
#define MODULE_AUTHOR(text) HOST_NOTHING
#define MODULE_LICENSE(text) HOST_NOTHING
#define MODULE_ALIAS(text) HOST_NOTHING
#define MODULE_ALIAS_GENL_FAMILY(text) HOST_NOTHING

int host_module_init(void);
void host_module_exit(void);

#define module_init(f) int host_module_init(void) { return f(); }
#define module_exit(f) void host_module_exit(void) { f(); }

#endif
