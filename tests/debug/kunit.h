/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef DMR_KUNIT_H
#define DMR_KUNIT_H

#include <kunit/test.h>
#include "shim.h"

/* An instance as instance.c makes it, as far as table and holds go; freed with the test. */
struct dmr_instance *dmr_test_instance(struct kunit *test, bool ready);

extern struct kunit_suite dmr_table_suite, dmr_hold_suite, dmr_wrong_suite;

#endif
