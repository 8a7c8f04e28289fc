// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests in the kernel: the shipped table.c and hold.c, compiled into this module, with the rest of
 * the target in its tests' hands.
 */
#include "kunit.h"

static void free_table(void *data)
{
	dmr_table_clear(data);
}

struct dmr_instance *dmr_test_instance(struct kunit *test, bool ready)
{
	struct dmr_instance *inst = kunit_kzalloc(test, sizeof(*inst), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, inst);
	mt_init_flags(&inst->table, MT_FLAGS_USE_RCU);
	mutex_init(&inst->mutex);
	spin_lock_init(&inst->lock);
	INIT_LIST_HEAD(&inst->faults);
	INIT_LIST_HEAD(&inst->free_faults);
	INIT_LIST_HEAD(&inst->parked);
	INIT_LIST_HEAD(&inst->incoming);
	INIT_LIST_HEAD(&inst->go);
	if (!ready)
		set_bit(DMR_SLOW_UNREADY, &inst->slow);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, free_table, inst));
	return inst;
}

kunit_test_suites(&dmr_table_suite, &dmr_hold_suite, &dmr_wrong_suite);

MODULE_DESCRIPTION("Tests of dm_remap_shim's table and holds");
MODULE_AUTHOR("dm-remap maintainers");
MODULE_LICENSE("GPL");
