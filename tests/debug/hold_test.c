// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds: what is admitted, what ends them, and that each bio ends once. Faults, fences, the disk and
 * suspends are this file's; workqueue, locks and clock are real.
 */
#include <linux/delay.h>
#include <linux/device-mapper.h>

struct bio *test_to_bio(void *pb);
static bool test_noflush;
static struct gendisk test_disk;
#define dm_bio_from_per_bio_data(pb, size) ((void)(size), test_to_bio(pb))
#define dm_noflush_suspending(ti) ((void)(ti), READ_ONCE(test_noflush))
#define dm_disk(md) ((void)(md), &test_disk)

#include "kunit.h"
#include "../kmod/hold.c"

#define BIOS 4

struct test_bio {
	struct dmr_bio pb;
	struct bio bio;
	atomic_t ended;
	blk_status_t status;
};

static struct test {
	struct dmr_instance *inst;
	struct dmr_target target;
	struct test_bio bios[BIOS];
	struct dmr_fault fault;
	bool fence, no_fault;
	atomic_t opened, issued;
} *test_now;

struct bio *test_to_bio(void *pb)
{
	return &container_of(pb, struct test_bio, pb)->bio;
}

bool dmr_fault_overlaps(struct dmr_instance *inst, u64 start, u64 len)
{
	return test_now->fence;
}

struct dmr_fault *dmr_fault_new(struct dmr_instance *inst, u64 start, u64 len)
{
	if (test_now->no_fault)
		return NULL;
	atomic_inc(&test_now->opened);
	test_now->fence = true;
	test_now->fault = (struct dmr_fault){ .inst = inst, .start = start, .len = len };
	list_add_tail(&test_now->fault.node, &inst->faults);
	return &test_now->fault;
}

void dmr_fault_expire(struct dmr_fault *f)
{
	blk_status_t over = f->pb ? dmr_hold_over(f->pb) : 0;
	struct dmr_bio *pb = f->pb;

	if (!over)
		return;
	list_del_init(&f->node);
	f->pb = NULL;
	dmr_end(pb, over);
}

u8 dmr_wire_status(blk_status_t status)
{
	return status ? DM_REMAP_STATUS_IOERR : DM_REMAP_STATUS_OK;
}

void dmr_issue(struct dmr_bio *pb)
{
	atomic_inc(&test_now->issued);
	dmr_end(pb, BLK_STS_OK);
}

static void ended(struct bio *bio)
{
	struct test_bio *b = container_of(bio, struct test_bio, bio);

	b->status = bio->bi_status;
	atomic_inc(&b->ended);
}

static void stop_works(void *data)
{
	struct dmr_instance *inst = data;

	cancel_delayed_work_sync(&inst->deadlines);
	destroy_workqueue(inst->wq);
	test_noflush = false;
}

/* An owned, ready instance, and writes of 8 sectors that have failed. */
static struct test *begin(struct kunit *test)
{
	struct test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	test_now = t;
	t->inst = dmr_test_instance(test, true);
	t->target.inst = t->inst;
	t->inst->owner = 1;
	t->inst->opt = (struct dmr_options){ .value = { [DMR_HOLD_MS] = 60000, [DMR_READY_MS] = 30000,
							[DMR_MAX_BIOS] = 100, [DMR_MAX_KIB] = 1000 } };
	INIT_WORK(&t->inst->work, dmr_work);
	INIT_WORK(&t->inst->send, dmr_send_work);
	INIT_DELAYED_WORK(&t->inst->deadlines, dmr_deadline_work);
	t->inst->wq = alloc_workqueue("dm_remap_kunit", WQ_MEM_RECLAIM, 0);
	KUNIT_ASSERT_NOT_NULL(test, t->inst->wq);
	t->inst->disk_wq = t->inst->wq;
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, stop_works, t->inst));
	for (i = 0; i < BIOS; i++) {
		struct test_bio *b = &t->bios[i];

		bio_init(&b->bio, NULL, NULL, 0, REQ_OP_WRITE);
		b->bio.bi_end_io = ended;
		b->pb = (struct dmr_bio){ .t = &t->target, .opf = REQ_OP_WRITE, .error = BLK_STS_IOERR,
					  .place = { .start = 100 * i, .len = 8 } };
		INIT_LIST_HEAD(&b->pb.node);
	}
	return t;
}

static u64 counted(struct test *t, size_t at)
{
	return atomic64_read(&t->inst->counts[at / sizeof(u64)]);
}

#define expect_counted(test, t, what, n) \
	KUNIT_EXPECT_EQ(test, n, counted(t, offsetof(struct dm_remap_counters, what)))

static void settle(struct test *t)
{
	/* The first queues the work that sends. */
	flush_work(&t->inst->work);
	flush_work(&t->inst->send);
}

static void expect_ended(struct kunit *test, struct test_bio *b, blk_status_t status)
{
	KUNIT_EXPECT_EQ(test, 1, atomic_read(&b->ended));
	KUNIT_EXPECT_EQ(test, (__force u8)status, (__force u8)b->status);
}

static void expect_nothing_held(struct kunit *test, struct test *t)
{
	unsigned int taken;

	for (taken = 0; taken < 2; taken++) {
		KUNIT_EXPECT_EQ(test, 0, t->inst->held_bios[taken]);
		KUNIT_EXPECT_EQ(test, 0, t->inst->held_sectors[taken]);
	}
}

/* Ends whatever is held, as a noflush suspend does. */
static void push_back(struct kunit *test, struct test *t)
{
	WRITE_ONCE(test_noflush, true);
	dmr_end_holds(t->inst);
	settle(t);
	expect_nothing_held(test, t);
}

/* What has returned was in flight before, and is no more of it. */
static void the_bound_on_bios(struct kunit *test)
{
	struct test *t = begin(test);

	t->fence = true;
	t->inst->opt.value[DMR_MAX_BIOS] = 2;
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[1].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, (__force u8)BLK_STS_MEDIUM,
			(__force u8)dmr_hold(&t->bios[2].pb, DMR_PARK, BLK_STS_MEDIUM));
	expect_counted(test, t, refused, 1);
	KUNIT_EXPECT_EQ(test, 2, t->inst->held_bios[0]);
	KUNIT_EXPECT_EQ(test, 16, t->inst->held_sectors[0]);
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[3].pb, DMR_REDO, BLK_STS_OK));
	KUNIT_EXPECT_EQ(test, 2, t->inst->held_bios[0]);
	KUNIT_EXPECT_EQ(test, 1, t->inst->held_bios[1]);
	KUNIT_EXPECT_EQ(test, 8, t->inst->held_sectors[1]);
	settle(t);
	push_back(test, t);
	expect_ended(test, &t->bios[0], BLK_STS_DM_REQUEUE);
	expect_ended(test, &t->bios[1], BLK_STS_DM_REQUEUE);
	expect_ended(test, &t->bios[3], BLK_STS_DM_REQUEUE);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&t->bios[2].ended));
}

/* One of any size has room; a discard takes none. */
static void the_bound_on_sectors(struct kunit *test)
{
	struct test *t = begin(test);

	t->fence = true;
	t->inst->opt.value[DMR_MAX_KIB] = 8;
	t->bios[0].pb.place.len = 2048;
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_NE(test, 0, (__force u8)dmr_hold(&t->bios[1].pb, DMR_PARK, BLK_STS_IOERR));
	settle(t);
	push_back(test, t);
	WRITE_ONCE(test_noflush, false);

	t->bios[1].pb.opf = REQ_OP_DISCARD;
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[1].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, 0, t->inst->held_sectors[0]);
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[2].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[3].pb, DMR_PARK, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, 16, t->inst->held_sectors[0]);
	settle(t);
	push_back(test, t);
}

/* A new fault is for an owner, or for a queue; who waits for a fence needs neither. */
static void without_an_owner(struct kunit *test)
{
	struct test *t = begin(test);

	t->inst->owner = 0;
	KUNIT_EXPECT_EQ(test, (__force u8)BLK_STS_IOERR,
			(__force u8)dmr_hold(&t->bios[0].pb, DMR_FAULT, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, (__force u8)BLK_STS_MEDIUM,
			(__force u8)dmr_hold(&t->bios[1].pb, DMR_HEAL, BLK_STS_MEDIUM));
	expect_counted(test, t, unowned, 2);
	expect_nothing_held(test, t);
	t->fence = true;
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[2].pb, DMR_PARK, BLK_STS_OK));
	t->inst->opt.queue_unowned = true;
	KUNIT_EXPECT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_FAULT, BLK_STS_IOERR));
	KUNIT_EXPECT_EQ(test, 2, t->inst->held_bios[0]);
	settle(t);
	push_back(test, t);
}

/* It runs from the first time, and ends with the bio's own error. */
static void a_deadline_is_never_reset(struct kunit *test)
{
	struct test *t = begin(test);
	struct test_bio *b = &t->bios[0];
	unsigned long deadline, begun = jiffies;
	unsigned int i;

	t->fence = true;
	t->inst->opt.value[DMR_HOLD_MS] = 1000;
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&b->pb, DMR_FAULT, BLK_STS_MEDIUM));
	deadline = b->pb.deadline;
	KUNIT_EXPECT_TRUE(test, time_before_eq(deadline, jiffies + msecs_to_jiffies(1000)));
	settle(t);
	msleep(100);
	/* The fence goes, and another comes before the bio has looked. */
	mutex_lock(&t->inst->mutex);
	dmr_unpark(t->inst);
	mutex_unlock(&t->inst->mutex);
	settle(t);
	KUNIT_EXPECT_EQ(test, deadline, b->pb.deadline);
	for (i = 0; !atomic_read(&b->ended) && i < 3000; i++)
		msleep(20);
	expect_ended(test, b, BLK_STS_MEDIUM);
	KUNIT_EXPECT_FALSE(test, time_before(jiffies, begun + msecs_to_jiffies(1000)));
	expect_counted(test, t, expired, 1);
	expect_nothing_held(test, t);
}

static void unready_has_its_own_deadline(struct kunit *test)
{
	struct test *t = begin(test);
	unsigned long before = jiffies + msecs_to_jiffies(30000);

	set_bit(DMR_SLOW_UNREADY, &t->inst->slow);
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_PARK, BLK_STS_OK));
	KUNIT_EXPECT_TRUE(test, time_in_range(t->bios[0].pb.deadline, before,
					      jiffies + msecs_to_jiffies(30000)));
	settle(t);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&t->issued));
	clear_bit(DMR_SLOW_UNREADY, &t->inst->slow);
	mutex_lock(&t->inst->mutex);
	dmr_unpark(t->inst);
	mutex_unlock(&t->inst->mutex);
	settle(t);
	KUNIT_EXPECT_EQ(test, 1, atomic_read(&t->issued));
	expect_ended(test, &t->bios[0], BLK_STS_OK);
	expect_nothing_held(test, t);
}

/* Parked, with a fault, and not looked at yet: all come back, and what comes later does not get in. */
static void a_noflush_suspend_ends_every_hold(struct kunit *test)
{
	struct test *t = begin(test);
	unsigned int i;

	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_FAULT, BLK_STS_IOERR));
	settle(t);
	KUNIT_EXPECT_EQ(test, 1, atomic_read(&t->opened));
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[1].pb, DMR_PARK, BLK_STS_OK));
	settle(t);
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[2].pb, DMR_PARK, BLK_STS_OK));
	push_back(test, t);
	for (i = 0; i < 3; i++)
		expect_ended(test, &t->bios[i], BLK_STS_DM_REQUEUE);
	KUNIT_EXPECT_EQ(test, (__force u8)BLK_STS_DM_REQUEUE,
			(__force u8)dmr_hold(&t->bios[3].pb, DMR_FAULT, BLK_STS_IOERR));
	expect_nothing_held(test, t);
	expect_counted(test, t, expired, 0);
}

/* Without a free fault it waits for one. */
static void a_heal_waits_for_a_fault(struct kunit *test)
{
	struct test *t = begin(test);

	t->no_fault = true;
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[0].pb, DMR_HEAL, BLK_STS_MEDIUM));
	settle(t);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&t->opened));
	KUNIT_EXPECT_EQ(test, 1, t->inst->held_bios[0]);
	KUNIT_EXPECT_EQ(test, (__force u8)BLK_STS_MEDIUM, (__force u8)t->bios[0].pb.error);
	push_back(test, t);
	WRITE_ONCE(test_noflush, false);

	t->no_fault = false;
	KUNIT_ASSERT_EQ(test, 0, dmr_hold(&t->bios[1].pb, DMR_HEAL, BLK_STS_MEDIUM));
	settle(t);
	KUNIT_EXPECT_EQ(test, 1, atomic_read(&t->opened));
	KUNIT_EXPECT_EQ(test, DM_REMAP_FAULT_F_HELD | DM_REMAP_FAULT_F_HEAL | DM_REMAP_FAULT_F_WRITE,
			t->fault.flags);
	KUNIT_EXPECT_EQ(test, DM_REMAP_STATUS_OK, t->fault.status);
	push_back(test, t);
}

static struct kunit_case hold_cases[] = {
	KUNIT_CASE(the_bound_on_bios),
	KUNIT_CASE(the_bound_on_sectors),
	KUNIT_CASE(without_an_owner),
	KUNIT_CASE(a_deadline_is_never_reset),
	KUNIT_CASE(unready_has_its_own_deadline),
	KUNIT_CASE(a_noflush_suspend_ends_every_hold),
	KUNIT_CASE(a_heal_waits_for_a_fault),
	{}
};

struct kunit_suite dmr_hold_suite = { .name = "dm_remap_hold", .test_cases = hold_cases };
