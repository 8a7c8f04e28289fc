// SPDX-License-Identifier: GPL-2.0-only
/* The table of extents against an array with an entry a sector, which cannot be wrong in the same way. */
#include <linux/prandom.h>

#include "kunit.h"
#include "../kmod/table.c"

#define SECTORS 1024

struct flat {
	u8 kind[SECTORS];
	u64 slot[SECTORS];
};

/* What @set does, sector by sector. */
static void flat_set(struct flat *flat, const struct dm_remap_extent *e)
{
	u64 i;

	for (i = 0; i < e->len; i++) {
		flat->kind[e->start + i] = e->kind;
		flat->slot[e->start + i] = e->kind == DM_REMAP_MAPPED ||
					   e->kind == DM_REMAP_POISON_SLOT ? e->slot + i : 0;
	}
}

static void expect_equal(struct kunit *test, struct dmr_instance *inst, const struct flat *flat)
{
	u64 at = 0, i;

	while (at < SECTORS) {
		struct dm_remap_extent e;

		dmr_table_at(inst, at, SECTORS, &e);
		KUNIT_ASSERT_EQ(test, at, e.start);
		KUNIT_ASSERT_GT(test, e.len, 0);
		KUNIT_ASSERT_LE(test, at + e.len, SECTORS);
		for (i = 0; i < e.len; i++) {
			KUNIT_ASSERT_EQ_MSG(test, flat->kind[at + i], e.kind, "sector %llu", at + i);
			if (flat->slot[at + i])
				KUNIT_ASSERT_EQ_MSG(test, flat->slot[at + i], e.slot + i,
						    "sector %llu", at + i);
		}
		at += e.len;
	}
}

static unsigned long entries(struct dmr_instance *inst)
{
	unsigned long count = 0, index = 0;

	while (mt_find(&inst->table, &index, ULONG_MAX))
		count++;
	return count;
}

static void set(struct kunit *test, struct dmr_instance *inst, struct flat *flat, u64 start, u32 len,
		u8 kind, u64 slot)
{
	struct dm_remap_extent e = { .start = start, .len = len, .kind = kind, .slot = slot };

	KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &e));
	flat_set(flat, &e);
}

static void empty_is_direct(struct kunit *test)
{
	struct dmr_instance *inst = dmr_test_instance(test, true);
	struct dm_remap_extent e;

	dmr_table_at(inst, 7, 107, &e);
	KUNIT_EXPECT_EQ(test, 7, e.start);
	KUNIT_EXPECT_EQ(test, 100, e.len);
	KUNIT_EXPECT_EQ(test, DM_REMAP_DIRECT, e.kind);
}

/* One extent in the middle; the lookup ends where the answer changes, or where it is told to. */
static void a_lookup_ends_at_an_edge(struct kunit *test)
{
	struct dmr_instance *inst = dmr_test_instance(test, true);
	struct dm_remap_extent e = { .start = 100, .len = 10, .kind = DM_REMAP_MAPPED, .slot = 5000 };

	KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &e));
	dmr_table_at(inst, 95, 200, &e);
	KUNIT_EXPECT_EQ(test, DM_REMAP_DIRECT, e.kind);
	KUNIT_EXPECT_EQ(test, 5, e.len);
	dmr_table_at(inst, 95, 98, &e);
	KUNIT_EXPECT_EQ(test, 3, e.len);
	dmr_table_at(inst, 103, 200, &e);
	KUNIT_EXPECT_EQ(test, DM_REMAP_MAPPED, e.kind);
	KUNIT_EXPECT_EQ(test, 5003, e.slot);
	KUNIT_EXPECT_EQ(test, 7, e.len);
	dmr_table_at(inst, 103, 105, &e);
	KUNIT_EXPECT_EQ(test, 2, e.len);
	dmr_table_at(inst, 110, 200, &e);
	KUNIT_EXPECT_EQ(test, DM_REMAP_DIRECT, e.kind);
	KUNIT_EXPECT_EQ(test, 90, e.len);
}

/* The distance from sector to slot is signed, and as wide as the largest device. */
static void slots_far_below_and_above(struct kunit *test)
{
	static const u64 ends[] = { 0, 8, (1ULL << 55) - 8 };
	struct dmr_instance *inst = dmr_test_instance(test, true);
	unsigned int from, to;

	for (from = 0; from < ARRAY_SIZE(ends); from++)
		for (to = 0; to < ARRAY_SIZE(ends); to++) {
			struct dm_remap_extent e = { .start = ends[from], .len = 8, .slot = ends[to],
						     .kind = DM_REMAP_POISON_SLOT };

			KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &e));
			dmr_table_at(inst, ends[from] + 3, ends[from] + 8, &e);
			KUNIT_EXPECT_EQ(test, DM_REMAP_POISON_SLOT, e.kind);
			KUNIT_EXPECT_EQ(test, ends[to] + 3, e.slot);
			KUNIT_EXPECT_EQ(test, 5, e.len);
		}
}

/* Direct takes away, from the middle of one extent and over the edges of two. */
static void direct_cuts_and_counts(struct kunit *test)
{
	struct dmr_instance *inst = dmr_test_instance(test, true);
	struct flat *flat = kunit_kzalloc(test, sizeof(*flat), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, flat);
	set(test, inst, flat, 100, 30, DM_REMAP_MAPPED, 4000);
	KUNIT_EXPECT_EQ(test, 1, inst->extents);
	set(test, inst, flat, 110, 10, DM_REMAP_DIRECT, 0);
	KUNIT_EXPECT_EQ(test, 2, inst->extents);
	expect_equal(test, inst, flat);
	set(test, inst, flat, 105, 20, DM_REMAP_DIRECT, 0);
	KUNIT_EXPECT_EQ(test, 2, inst->extents);
	expect_equal(test, inst, flat);
	set(test, inst, flat, 0, SECTORS, DM_REMAP_DIRECT, 0);
	KUNIT_EXPECT_EQ(test, 0, inst->extents);
	KUNIT_EXPECT_EQ(test, 0, entries(inst));
	expect_equal(test, inst, flat);
}

/* Whatever is set in whatever order; once before the table is ready, and once after. */
static void random_changes(struct kunit *test)
{
	struct dmr_instance *inst = dmr_test_instance(test, false);
	struct flat *flat = kunit_kzalloc(test, sizeof(*flat), GFP_KERNEL);
	struct rnd_state rnd;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, flat);
	prandom_seed_state(&rnd, 1);
	for (i = 0; i < 1000; i++) {
		u64 start = prandom_u32_state(&rnd) % SECTORS;
		u32 len = 1 + prandom_u32_state(&rnd) % min_t(u64, 64, SECTORS - start);
		u8 kind = prandom_u32_state(&rnd) % 4;
		u64 slot = kind == DM_REMAP_MAPPED || kind == DM_REMAP_POISON_SLOT ?
			   8 * (1 + prandom_u32_state(&rnd)) : 0;

		if (i == 500)
			clear_bit(DMR_SLOW_UNREADY, &inst->slow);
		set(test, inst, flat, start, len, kind, slot);
		KUNIT_ASSERT_EQ(test, entries(inst), inst->extents);
		if (i % 20 == 0)
			expect_equal(test, inst, flat);
	}
	expect_equal(test, inst, flat);
	dmr_table_clear(inst);
	KUNIT_EXPECT_EQ(test, 0, inst->extents);
	KUNIT_EXPECT_EQ(test, 0, entries(inst));
	KUNIT_EXPECT_TRUE(test, mt_in_rcu(&inst->table));
}

/*
 * Kernels free a wrong address when a tree in RCU mode ends whose root has as many children as it
 * has room for: the end of the root's description is cleared, which is the last child then.
 */
static void tables_of_every_size_end(struct kunit *test)
{
	u32 size, i;

	for (size = 1; size < 160; size++) {
		struct dmr_instance *inst = dmr_test_instance(test, false);

		for (i = 0; i < size; i++) {
			struct dm_remap_extent e = { .start = 2 * i, .len = 1, .slot = 8 * i,
						     .kind = DM_REMAP_MAPPED };

			KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &e));
		}
		dmr_table_clear(inst);
		rcu_barrier();
	}
}

/* The same for a branch that one store takes away. */
static void a_store_over_many_extents(struct kunit *test)
{
	u32 from, i;

	for (from = 0; from < 32; from += 4) {
		struct dmr_instance *inst = dmr_test_instance(test, true);
		struct dm_remap_extent e = { .start = 2 * from, .len = 2048 - 2 * from };

		for (i = 0; i < 1024; i++) {
			struct dm_remap_extent one = { .start = 2 * i, .len = 1, .slot = 8 * i,
						       .kind = DM_REMAP_MAPPED };

			KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &one));
		}
		KUNIT_ASSERT_EQ(test, 0, dmr_table_set(inst, &e));
		KUNIT_EXPECT_EQ(test, from, inst->extents);
		rcu_barrier();
	}
}

static struct kunit_case table_cases[] = {
	KUNIT_CASE(empty_is_direct),
	KUNIT_CASE(a_lookup_ends_at_an_edge),
	KUNIT_CASE(slots_far_below_and_above),
	KUNIT_CASE(direct_cuts_and_counts),
	KUNIT_CASE(random_changes),
	KUNIT_CASE(tables_of_every_size_end),
	KUNIT_CASE(a_store_over_many_extents),
	{}
};

struct kunit_suite dmr_table_suite = { .name = "dm_remap_table", .test_cases = table_cases };

/* The control: an account of the table that forgets a sector. */
static void forgets_a_sector(struct kunit *test)
{
	struct dmr_instance *inst = dmr_test_instance(test, true);
	struct flat *flat = kunit_kzalloc(test, sizeof(*flat), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, flat);
	set(test, inst, flat, 100, 8, DM_REMAP_MAPPED, 4000);
	flat->kind[103] = DM_REMAP_DIRECT;
	expect_equal(test, inst, flat);
}

static struct kunit_case wrong_cases[] = {
	KUNIT_CASE(forgets_a_sector),
	{}
};

struct kunit_suite dmr_wrong_suite = { .name = "wrong_on_purpose", .test_cases = wrong_cases };
