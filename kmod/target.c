// SPDX-License-Identifier: GPL-2.0-only
/* The device-mapper target: map and end_io, and its tables. */
#include <linux/module.h>
#include <linux/slab.h>

#include "shim.h"

struct block_device *dmr_bdev(struct dmr_target *t, enum dmr_dest dest)
{
	return dest == DMR_DATA ? t->data->bdev : t->spare->bdev;
}

/* The logical block of the mapped device, in sectors. */
unsigned int dmr_block(struct dmr_target *t)
{
	return max(bdev_logical_block_size(t->data->bdev),
		   bdev_logical_block_size(t->spare->bdev)) >> SECTOR_SHIFT;
}

static int end_now(struct dmr_bio *pb, blk_status_t status)
{
	dmr_end(pb, status);
	return DM_MAPIO_SUBMITTED;
}

static int hold_in_map(struct dmr_bio *pb, enum dmr_reason reason)
{
	dmr_hold_or_end(pb, reason, BLK_STS_OK);
	return DM_MAPIO_SUBMITTED;
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

static int map_slow(struct dmr_bio *pb, struct bio *bio)
{
	struct dmr_instance *inst = pb->t->inst;
	bool write = op_is_write(pb->opf);
	struct dmr_place p;

	if (dmr_fua_fails(pb))
		return end_now(pb, BLK_STS_IOERR);
	dmr_lookup(inst, dmr_start(pb), dmr_len(pb), &p);
	if (p.len < dmr_len(pb)) {
		dm_accept_partial_bio(bio, p.len);
		pb->iter = bio->bi_iter;
	}
	if (dmr_is_discard(pb) && (p.what == DMR_POISONED || p.dest == DMR_SPARE))
		return end_now(pb, BLK_STS_OK);
	if (p.what == DMR_GO)
		return go(pb, bio, p.dest, p.sector);
	if (p.what == DMR_POISONED && !write) {
		dmr_count(inst, DMR_POISON_READS);
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

static int hold_in_end_io(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t *error)
{
	*error = dmr_hold(pb, reason, *error);
	if (*error == BLK_STS_DM_REQUEUE)
		return DM_ENDIO_REQUEUE;
	return *error ? DM_ENDIO_DONE : DM_ENDIO_INCOMPLETE;
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
	if (unlikely(*error))
		return dmr_may_fault(pb, *error) ? hold_in_end_io(pb, DMR_FAULT, error) :
						   DM_ENDIO_DONE;
	if (likely(bio_op(bio) != REQ_OP_WRITE) ||
	    likely(!dmr_stale(inst, pb->gen, dmr_start(pb), dmr_len(pb), pb->dest,
			      pb->dest_sector)))
		return DM_ENDIO_DONE;
	/* The table changed under it: it is not acknowledged, so it may be repeated. */
	dmr_count(inst, DMR_REDONE);
	return hold_in_end_io(pb, DMR_PARK, error);
}

static const struct dmr_option {
	const char *name;
	struct dm_arg arg;
	size_t at;
	unsigned int preset;
} dmr_options[] = {
	{ "hold_deadline_ms", { 1, 119000, "Invalid hold_deadline_ms (1 to 119000)" },
	  offsetof(struct dmr_target, hold_ms), 60000 },
	{ "ready_deadline_ms", { 1, 119000, "Invalid ready_deadline_ms (1 to 119000)" },
	  offsetof(struct dmr_target, ready_ms), 60000 },
	{ "max_held_bios", { 1, 65536, "Invalid max_held_bios (1 to 65536)" },
	  offsetof(struct dmr_target, max_held_bios), 1024 },
	{ "max_held_kib", { 1, 1 << 22, "Invalid max_held_kib (1 to 4194304)" },
	  offsetof(struct dmr_target, max_held_kib), 65536 },
};

static unsigned int *option(struct dmr_target *t, const struct dmr_option *o)
{
	return (void *)t + o->at;
}

static int parse_option(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	const char *name = dm_shift_arg(as);
	unsigned int i;

	if (!strcmp(name, "queue_if_no_daemon")) {
		t->queue_unowned = true;
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(dmr_options); i++)
		if (!strcmp(name, dmr_options[i].name))
			return dm_read_arg(&dmr_options[i].arg, as, option(t, &dmr_options[i]),
					   &ti->error);
	ti->error = "Unknown option";
	return -EINVAL;
}

static int parse_options(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	static const struct dm_arg count = { 0, 2 * ARRAY_SIZE(dmr_options) + 1,
					     "Invalid number of options" };
	unsigned int i, n;
	int r = 0;

	for (i = 0; i < ARRAY_SIZE(dmr_options); i++)
		*option(t, &dmr_options[i]) = dmr_options[i].preset;
	if (!as->argc)
		return 0;
	r = dm_read_arg_group(&count, as, &n, &ti->error);
	if (!r && as->argc != n) {
		ti->error = "Number of options does not match";
		r = -EINVAL;
	}
	while (!r && as->argc)
		r = parse_option(ti, t, as);
	return r;
}

static void dmr_dtr(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;

	if (t->inst)
		dmr_instance_leave(t->inst);
	if (t->spare)
		dm_put_device(ti, t->spare);
	if (t->data)
		dm_put_device(ti, t->data);
	kfree(t);
}

static int open_devices(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
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
	if (ti->begin || ti->len % dmr_block(t) || ti->len > bdev_nr_sectors(t->data->bdev)) {
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
		r = dmr_instance_join(t);
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
		dmr_end_holds(t->inst);
}

/* From here on this table's options are the instance's. */
static int dmr_preresume(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;
	struct dmr_instance *inst = t->inst;

	spin_lock_irq(&inst->lock);
	inst->hold_ms = t->hold_ms;
	inst->ready_ms = t->ready_ms;
	inst->max_held_bios = t->max_held_bios;
	inst->max_held_sectors = 2ULL * t->max_held_kib;
	inst->queue_unowned = t->queue_unowned;
	if (!inst->owner)
		dmr_ring(inst);
	spin_unlock_irq(&inst->lock);
	return 0;
}

/* INFO: state owner extents faults held_bios held_sectors commit */
static void dmr_status(struct dm_target *ti, status_type_t type, unsigned int flags,
		       char *result, unsigned int maxlen)
{
	struct dmr_target *t = ti->private;
	struct dmr_instance *inst = t->inst;
	unsigned int sz = 0, i;

	mutex_lock(&inst->mutex);
	switch (type) {
	case STATUSTYPE_INFO:
		DMEMIT("%s %s %lu %zu %llu %llu %llu",
		       dmr_is_ready(inst) ? "ready" : "not-ready",
		       inst->owner ? "owned" : "no-owner", inst->extents,
		       list_count_nodes(&inst->faults), inst->held_bios, inst->held_sectors,
		       inst->commit);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %zu", t->data->name, t->spare->name,
		       2 * ARRAY_SIZE(dmr_options) + t->queue_unowned);
		for (i = 0; i < ARRAY_SIZE(dmr_options); i++)
			DMEMIT(" %s %u", dmr_options[i].name, *option(t, &dmr_options[i]));
		if (t->queue_unowned)
			DMEMIT(" queue_if_no_daemon");
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
	return r ?: fn(ti, t->spare, 0, round_down(bdev_nr_sectors(t->spare->bdev), dmr_block(t)),
		       data);
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
	.preresume = dmr_preresume,
	.status = dmr_status,
	.iterate_devices = dmr_iterate_devices,
};
