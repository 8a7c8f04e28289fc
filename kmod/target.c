// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device-mapper target: map and end_io, and the instances that
 * consecutive tables of one mapped device share.
 */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "shim.h"

DEFINE_MUTEX(dmr_instances_lock);
LIST_HEAD(dmr_instances);
static u32 dmr_next_instance = 1;

struct block_device *dmr_bdev(struct dmr_target *t, enum dmr_dest dest)
{
	return dest == DMR_DATA ? t->data->bdev : t->spare->bdev;
}

static int end_now(struct dmr_bio *pb, blk_status_t status)
{
	dmr_end(pb, status);
	return DM_MAPIO_SUBMITTED;
}

static int hold_in_map(struct dmr_bio *pb, enum dmr_reason reason)
{
	switch (dmr_hold(pb, reason, BLK_STS_OK)) {
	case DMR_HELD:
		return DM_MAPIO_SUBMITTED;
	case DMR_PUSHBACK:
		return DM_MAPIO_REQUEUE;
	default:
		return end_now(pb, dmr_last_word(pb));
	}
}

static int go(struct dmr_bio *pb, struct bio *bio, enum dmr_dest dest, u64 sector)
{
	pb->dest = dest;
	pb->dest_sector = sector;
	bio->bi_bdev = dmr_bdev(pb->t, dest);
	bio->bi_iter.bi_sector = sector;
	return DM_MAPIO_REMAPPED;
}

static int map_flush(struct dmr_bio *pb, struct bio *bio)
{
	struct dmr_instance *inst = pb->t->inst;
	enum dmr_dest dest = dm_bio_get_target_bio_nr(bio) ? DMR_SPARE : DMR_DATA;

	pb->dest = dest;
	if (unlikely(test_bit(DMR_SLOW_UNREADY, &inst->slow)))
		return hold_in_map(pb, DMR_PARK);
	pb->gen = READ_ONCE(inst->flush_fails[dest]);
	return go(pb, bio, dest, 0);
}

/* After a failed flush nothing may claim to be durable until one succeeds. */
static bool flush_is_bad(struct dmr_instance *inst)
{
	return test_bit(DMR_SLOW_DATA_FLUSH, &inst->slow) ||
	       (test_bit(DMR_SLOW_SPARE_FLUSH, &inst->slow) &&
		test_bit(DMR_SLOW_EXTENTS, &inst->slow));
}

static int map_slow(struct dmr_bio *pb, struct bio *bio)
{
	struct dmr_instance *inst = pb->t->inst;
	bool write = op_is_write(pb->opf);
	struct dmr_place p;

	if ((pb->opf & REQ_FUA) && flush_is_bad(inst))
		return end_now(pb, BLK_STS_IOERR);

	rcu_read_lock();
	dmr_lookup(rcu_dereference(inst->view), dmr_start(pb), dmr_len(pb), &p);
	rcu_read_unlock();
	if (p.len < dmr_len(pb)) {
		dm_accept_partial_bio(bio, p.len);
		pb->iter = bio->bi_iter;
	}
	if (p.what != DMR_FENCED && bio_op(bio) == REQ_OP_DISCARD &&
	    (p.what == DMR_POISONED || p.dest == DMR_SPARE))
		return end_now(pb, BLK_STS_OK);
	if (p.what == DMR_GO)
		return go(pb, bio, p.dest, p.sector);
	if (p.what == DMR_POISONED && !write) {
		atomic64_inc(&inst->poison_reads);
		return end_now(pb, BLK_STS_MEDIUM);
	}
	if (pb->opf & REQ_RAHEAD)
		return end_now(pb, BLK_STS_IOERR);
	if (pb->opf & REQ_NOWAIT)
		return end_now(pb, BLK_STS_AGAIN);
	return hold_in_map(pb, p.what == DMR_FENCED ? DMR_PARK : DMR_HEAL);
}

static int dmr_map(struct dm_target *ti, struct bio *bio)
{
	struct dmr_target *t = ti->private;
	struct dmr_bio *pb = dm_per_bio_data(bio, sizeof(*pb));

	pb->t = t;
	pb->iter = bio->bi_iter;
	pb->opf = bio->bi_opf;
	pb->ended = false;
	pb->held = false;
	pb->error = BLK_STS_OK;
	pb->fault = NULL;
	if (unlikely(bio->bi_opf & REQ_PREFLUSH))
		return map_flush(pb, bio);
	/* Before the table; pairs with dmr_publish(). */
	pb->gen = smp_load_acquire(&t->inst->gen);
	if (likely(!READ_ONCE(t->inst->slow)))
		return go(pb, bio, DMR_DATA, bio->bi_iter.bi_sector);
	return map_slow(pb, bio);
}

static int hold_in_end_io(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error)
{
	switch (dmr_hold(pb, reason, error)) {
	case DMR_HELD:
		return DM_ENDIO_INCOMPLETE;
	case DMR_PUSHBACK:
		return DM_ENDIO_REQUEUE;
	default:
		return DM_ENDIO_DONE;
	}
}

static int dmr_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dmr_bio *pb = dm_per_bio_data(bio, sizeof(*pb));
	struct dmr_instance *inst = pb->t->inst;

	if (unlikely(pb->ended))
		return DM_ENDIO_DONE;
	if (unlikely(dmr_is_flush(pb))) {
		*error = dmr_flush_done(pb, *error);
		return DM_ENDIO_DONE;
	}
	if (unlikely(*error)) {
		if (!dmr_may_fault(pb, *error))
			return DM_ENDIO_DONE;
		return hold_in_end_io(pb, DMR_FAULT, *error);
	}
	if (likely(bio_op(bio) != REQ_OP_WRITE) ||
	    likely(!dmr_stale(inst, pb->gen, dmr_start(pb), dmr_len(pb), pb->dest,
			      pb->dest_sector)))
		return DM_ENDIO_DONE;
	/* The table changed under it: it is not acknowledged, so it may be repeated. */
	atomic64_inc(&inst->redone);
	switch (dmr_hold(pb, DMR_PARK, BLK_STS_OK)) {
	case DMR_HELD:
		return DM_ENDIO_INCOMPLETE;
	case DMR_PUSHBACK:
		return DM_ENDIO_REQUEUE;
	default:
		*error = BLK_STS_IOERR;
		return DM_ENDIO_DONE;
	}
}

/* --- instances --- */

static void instance_free(struct kref *kref)
{
	struct dmr_instance *inst = container_of(kref, struct dmr_instance, kref);
	struct dmr_fault *f;

	/* A netlink request may have queued work after the last table left. */
	cancel_work_sync(&inst->work);
	cancel_delayed_work_sync(&inst->deadlines);
	WRITE_ONCE(inst->bell, false);
	cancel_delayed_work_sync(&inst->doorbell);
	list_for_each_entry(f, &inst->faults, node) {
		kvfree(f->pieces);
		atomic_dec(&dmr_live_faults);
	}
	if (inst->view) {
		dmr_index_free(rcu_dereference_protected(inst->view, true)->index);
		kvfree(rcu_dereference_protected(inst->view, true));
	}
	kvfree(inst->other);
	kvfree(inst->pool);
	kvfree(inst->used);
	kvfree(inst->retired);
	bioset_exit(&inst->clones);
	if (inst->wq)
		destroy_workqueue(inst->wq);
	atomic_dec(&dmr_live_instances);
	kfree(inst);
}

void dmr_instance_put(struct dmr_instance *inst)
{
	kref_put(&inst->kref, instance_free);
}

struct dmr_instance *dmr_instance_get(u32 id)
{
	struct dmr_instance *inst, *found = NULL;

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node)
		if (inst->id == id) {
			kref_get(&inst->kref);
			found = inst;
		}
	mutex_unlock(&dmr_instances_lock);
	return found;
}

static struct dmr_instance *instance_new(struct dmr_target *t, struct mapped_device *md)
{
	struct dmr_instance *inst = kzalloc(sizeof(*inst), GFP_KERNEL);
	struct dmr_view *view;
	unsigned int i;

	if (!inst)
		return NULL;
	atomic_inc(&dmr_live_instances);
	kref_init(&inst->kref);
	mutex_init(&inst->mutex);
	spin_lock_init(&inst->lock);
	INIT_LIST_HEAD(&inst->faults);
	INIT_LIST_HEAD(&inst->free_faults);
	INIT_LIST_HEAD(&inst->parked);
	INIT_LIST_HEAD(&inst->incoming);
	INIT_LIST_HEAD(&inst->go);
	INIT_WORK(&inst->work, dmr_work);
	INIT_DELAYED_WORK(&inst->deadlines, dmr_deadline_work);
	INIT_DELAYED_WORK(&inst->doorbell, dmr_doorbell_work);
	inst->md = md;
	inst->dm_dev = disk_devt(dm_disk(md));
	inst->data_dev = t->data->bdev->bd_dev;
	inst->spare_dev = t->spare->bdev->bd_dev;
	inst->sectors = t->ti->len;
	inst->spare_sectors = bdev_nr_sectors(t->spare->bdev);
	inst->block = max(bdev_logical_block_size(t->data->bdev),
			  bdev_logical_block_size(t->spare->bdev)) >> SECTOR_SHIFT;
	inst->next_fault = 1;
	inst->gen = 1;
	inst->slow = BIT(DMR_SLOW_UNREADY);
	view = kvzalloc(sizeof(*view), GFP_KERNEL);
	RCU_INIT_POINTER(inst->view, view);
	inst->other = kvzalloc(sizeof(*view), GFP_KERNEL);
	inst->pool = kvcalloc(DMR_MAX_FAULTS, sizeof(*inst->pool), GFP_KERNEL);
	inst->wq = alloc_workqueue("dm_remap", WQ_MEM_RECLAIM, 0);
	if (!view || !inst->other || !inst->pool || !inst->wq ||
	    dmr_clones_init(inst))
		goto bad;
	inst->other->cookie = get_state_synchronize_rcu();
	view->index = dmr_index_alloc(0);
	if (!view->index)
		goto bad;
	for (i = 0; i < DMR_MAX_FAULTS; i++)
		list_add_tail(&inst->pool[i].node, &inst->free_faults);
	inst->id = dmr_next_instance++;
	list_add_tail(&inst->node, &dmr_instances);
	return inst;
bad:
	dmr_instance_put(inst);
	return NULL;
}

/* The instance of this mapped device on these disks; made by its first table. */
static int join_instance(struct dmr_target *t)
{
	struct mapped_device *md = dm_table_get_md(t->ti->table);
	dev_t data = t->data->bdev->bd_dev, spare = t->spare->bdev->bd_dev;
	/* A daemon's request waits for this lock: nothing under it may wait for I/O. */
	unsigned int noio = memalloc_noio_save();
	struct dmr_instance *inst;
	int r = 0;

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node) {
		if (inst->md == md && inst->data_dev == data && inst->spare_dev == spare) {
			if (inst->sectors == t->ti->len)
				goto found;
			t->ti->error = "Length differs from the one this device has";
			r = -EBUSY;
			goto out;
		}
		if (inst->spare_dev == spare && inst->md != md) {
			t->ti->error = "Spare is used by another mapped device";
			r = -EBUSY;
			goto out;
		}
	}
	inst = instance_new(t, md);
	if (!inst) {
		t->ti->error = "Cannot allocate instance";
		r = -ENOMEM;
		goto out;
	}
found:
	inst->users++;
	t->inst = inst;
out:
	mutex_unlock(&dmr_instances_lock);
	memalloc_noio_restore(noio);
	return r;
}

static void leave_instance(struct dmr_target *t)
{
	struct dmr_instance *inst = t->inst;
	bool last;

	mutex_lock(&dmr_instances_lock);
	last = !--inst->users;
	if (last)
		list_del(&inst->node);
	mutex_unlock(&dmr_instances_lock);
	if (last)
		dmr_instance_put(inst);
}

/* --- tables --- */

static int parse_options(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	static const struct dm_arg count = { 0, 9, "Invalid number of options" };
	unsigned int n, kib = 64 << 10, bios = 1024;
	int r = 0;

	t->hold_ms = 60000;
	t->ready_ms = 60000;
	if (as->argc) {
		r = dm_read_arg_group(&count, as, &n, &ti->error);
		if (r)
			return r;
		if (as->argc != n) {
			ti->error = "Number of options does not match";
			return -EINVAL;
		}
	}
	while (as->argc) {
		static const struct dm_arg ms = { 1, 119000, "Invalid deadline (1 to 119000 ms)" };
		static const struct dm_arg many = { 1, 65536, "Invalid max_held_bios (1 to 65536)" };
		static const struct dm_arg size = { 1, 1 << 22, "Invalid max_held_kib (1 to 4194304)" };
		const char *name = dm_shift_arg(as);

		if (!strcmp(name, "queue_if_no_daemon"))
			t->queue_unowned = true;
		else if (!strcmp(name, "hold_deadline_ms"))
			r = dm_read_arg(&ms, as, &t->hold_ms, &ti->error);
		else if (!strcmp(name, "ready_deadline_ms"))
			r = dm_read_arg(&ms, as, &t->ready_ms, &ti->error);
		else if (!strcmp(name, "max_held_bios"))
			r = dm_read_arg(&many, as, &bios, &ti->error);
		else if (!strcmp(name, "max_held_kib"))
			r = dm_read_arg(&size, as, &kib, &ti->error);
		else {
			ti->error = "Unknown option";
			r = -EINVAL;
		}
		if (r)
			return r;
	}
	t->max_held_bios = bios;
	t->max_held_sectors = 2ULL * kib;
	return 0;
}

static void dmr_dtr(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;

	if (t->inst)
		leave_instance(t);
	if (t->spare)
		dm_put_device(ti, t->spare);
	if (t->data)
		dm_put_device(ti, t->data);
	kfree(t);
}

static int open_devices(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	unsigned int block;

	if (dm_get_device(ti, dm_shift_arg(as), dm_table_get_mode(ti->table), &t->data)) {
		ti->error = "Cannot open the data device";
		return -ENODEV;
	}
	if (dm_get_device(ti, dm_shift_arg(as), dm_table_get_mode(ti->table), &t->spare)) {
		ti->error = "Cannot open the spare device";
		return -ENODEV;
	}
	if (t->data->bdev == t->spare->bdev) {
		ti->error = "Data and spare are the same device";
		return -EINVAL;
	}
	if (bdev_is_zoned(t->data->bdev) || bdev_is_zoned(t->spare->bdev)) {
		ti->error = "Zoned devices are not supported";
		return -EINVAL;
	}
	block = max(bdev_logical_block_size(t->data->bdev),
		    bdev_logical_block_size(t->spare->bdev)) >> SECTOR_SHIFT;
	if (ti->begin || ti->len % block || ti->len > bdev_nr_sectors(t->data->bdev)) {
		ti->error = "Length is not of whole logical blocks inside the data device";
		return -EINVAL;
	}
	return 0;
}

/* <data_dev> <spare_dev> [<#opts> <opts>...] */
static int dmr_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct dmr_target *t;
	int r;

	if (argc < 2) {
		ti->error = "Want <data_dev> <spare_dev> [<#opts> <opts>...]";
		return -EINVAL;
	}
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "Cannot allocate target";
		return -ENOMEM;
	}
	t->ti = ti;
	ti->private = t;
	r = open_devices(ti, t, &as);
	if (!r)
		r = parse_options(ti, t, &as);
	if (!r)
		r = dm_set_target_max_io_len(ti, DM_REMAP_MAX_FAULT_SECTORS);
	if (!r)
		r = join_instance(t);
	if (r) {
		dmr_dtr(ti);
		return r;
	}
	ti->num_flush_bios = 2;
	ti->num_discard_bios = 1;
	ti->discards_supported = !!bdev_max_discard_sectors(t->data->bdev);
	ti->per_io_data_size = sizeof(struct dmr_bio);
	ti->accounts_remapped_io = true;
	return 0;
}

static void dmr_presuspend(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;

	if (dm_noflush_suspending(ti))
		dmr_push_back(t->inst);
}

static void end_push_back(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;

	spin_lock_irq(&t->inst->lock);
	t->inst->pushback = false;
	spin_unlock_irq(&t->inst->lock);
}

/* From here on this table's options are the instance's. */
static int dmr_preresume(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;
	struct dmr_instance *inst = t->inst;

	spin_lock_irq(&inst->lock);
	inst->pushback = false;
	inst->hold_ms = t->hold_ms;
	inst->ready_ms = t->ready_ms;
	inst->max_held_bios = t->max_held_bios;
	inst->max_held_sectors = t->max_held_sectors;
	inst->queue_unowned = t->queue_unowned;
	if (!inst->owner)
		dmr_ring(inst);
	spin_unlock_irq(&inst->lock);
	return 0;
}

static void dmr_status(struct dm_target *ti, status_type_t type, unsigned int flags,
		       char *result, unsigned int maxlen)
{
	struct dmr_target *t = ti->private;
	struct dmr_instance *inst = t->inst;
	unsigned int sz = 0, faults = 0;
	struct list_head *pos;

	mutex_lock(&inst->mutex);
	switch (type) {
	case STATUSTYPE_INFO:
		/* state owner extents faults held_bios held_sectors commit */
		list_for_each(pos, &inst->faults)
			faults++;
		DMEMIT("%s %s %lu %u %llu %llu %llu",
		       dmr_view(inst)->ready ? "ready" : "not-ready",
		       inst->owner ? "owned" : "no-owner", dmr_view(inst)->index->extents,
		       faults, inst->held_bios, inst->held_sectors,
		       inst->commit);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %u hold_deadline_ms %u ready_deadline_ms %u max_held_bios %llu max_held_kib %llu%s",
		       t->data->name, t->spare->name, 8 + t->queue_unowned, t->hold_ms,
		       t->ready_ms, t->max_held_bios, t->max_held_sectors / 2,
		       t->queue_unowned ? " queue_if_no_daemon" : "");
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",data_device_name=%s,spare_device_name=%s;", t->data->name,
		       t->spare->name);
		break;
	}
	mutex_unlock(&inst->mutex);
}

static int dmr_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct dmr_target *t = ti->private;
	int r;

	r = fn(ti, t->data, 0, ti->len, data);
	return r ?: fn(ti, t->spare, 0, bdev_nr_sectors(t->spare->bdev), data);
}

struct target_type dmr_target_type = {
	.name = "remap",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_SINGLETON | DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = dmr_ctr,
	.dtr = dmr_dtr,
	.map = dmr_map,
	.end_io = dmr_end_io,
	.presuspend = dmr_presuspend,
	.presuspend_undo = end_push_back,
	.preresume = dmr_preresume,
	.status = dmr_status,
	.iterate_devices = dmr_iterate_devices,
};
