// SPDX-License-Identifier: GPL-2.0-only
/* The device-mapper target: map and end_io, its tables, and the module. */
#include "shim.h"

/* The logical block of the mapped device, in sectors. */
unsigned int dmr_block(struct dmr_target *t)
{
	return max(bdev_logical_block_size(t->dev[DMR_DATA]->bdev),
		   bdev_logical_block_size(t->dev[DMR_SPARE]->bdev)) >> SECTOR_SHIFT;
}

static int go(struct dmr_bio *pb, struct bio *bio)
{
	bio_set_dev(bio, pb->t->dev[pb->place.dest]->bdev);
	bio->bi_iter.bi_sector = pb->place.sector;
	if (unlikely(pb->opf & REQ_FUA)) {
		dmr_sends(pb);
		bio->bi_opf &= ~dmr_fua_owed(pb, pb->place.dest);
	}
	return DM_MAPIO_REMAPPED;
}

static int map_flush(struct dmr_bio *pb, struct bio *bio)
{
	enum dmr_dest dest = dm_bio_get_target_bio_nr(bio) ? DMR_SPARE : DMR_DATA;

	pb->place = (struct dmr_place){ .dest = dest };
	dmr_sends(pb);
	pb->owes = BIT(dest);
	return likely(dmr_is_ready(pb->t->inst)) ? go(pb, bio) : dmr_hold_or_end(pb, DMR_PARK, BLK_STS_OK);
}

static int map_slow(struct dmr_bio *pb, struct bio *bio)
{
	const struct dmr_place *p = &pb->place;

	if (dmr_fua_fails(pb))
		return dmr_end(pb, BLK_STS_IOERR);
	dmr_lookup(pb->t->inst, p->start, p->len, &pb->place);
	if (p->len < bio_sectors(bio)) {
		dm_accept_partial_bio(bio, p->len);
		pb->iter = bio->bi_iter;
	}
	if (dmr_is_noop(pb, p))
		return dmr_end(pb, BLK_STS_OK);
	if (p->dest == DMR_DATA || p->dest == DMR_SPARE)
		return go(pb, bio);
	if (p->dest == DMR_POISONED && !op_is_write(pb->opf)) {
		dmr_count(pb->t->inst, poison_reads);
		return dmr_end(pb, BLK_STS_MEDIUM);
	}
	if (pb->opf & REQ_RAHEAD)
		return dmr_end(pb, BLK_STS_IOERR);
	if (pb->opf & REQ_NOWAIT)
		return dmr_end(pb, BLK_STS_AGAIN);
	return p->dest == DMR_FENCED ? dmr_hold_or_end(pb, DMR_PARK, BLK_STS_OK) :
				       dmr_hold_or_end(pb, DMR_HEAL, BLK_STS_MEDIUM);
}

static int dmr_map(struct dm_target *ti, struct bio *bio)
{
	struct dmr_target *t = ti->private;
	struct dmr_bio *pb = dm_per_bio_data(bio, sizeof(*pb));
	u64 start = bio->bi_iter.bi_sector;

	pb->t = t;
	pb->iter = bio->bi_iter;
	pb->opf = bio->bi_opf;
	pb->ended = pb->held = false;
	pb->error = BLK_STS_IOERR;
	pb->fault = NULL;
	pb->owes = 0;
	if (unlikely(bio->bi_opf & REQ_PREFLUSH))
		return map_flush(pb, bio);
	/* The generation before the table; pairs with dmr_publish(). */
	pb->place = (struct dmr_place){ .gen = smp_load_acquire(&t->inst->gen), .start = start,
					.sector = start, .len = bio_sectors(bio), .dest = DMR_DATA };
	return likely(!READ_ONCE(t->inst->slow)) ? go(pb, bio) : map_slow(pb, bio);
}

static int dmr_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dmr_bio *pb = dm_per_bio_data(bio, sizeof(*pb));
	enum dmr_reason need = DMR_NONE;

	if (unlikely(pb->ended))
		return DM_ENDIO_DONE;
	if (unlikely(dmr_is_flush(pb)))
		*error = dmr_flush_done(pb, pb->place.dest, *error);
	else if (likely(!*error) || !dmr_passes(pb, *error))
		need = dmr_need(pb, &pb->place, *error) ?: dmr_written(pb);
	if (likely(!need))
		return DM_ENDIO_DONE;
	*error = dmr_hold(pb, need, *error);
	if (*error == BLK_STS_DM_REQUEUE)
		return DM_ENDIO_REQUEUE;
	return *error ? DM_ENDIO_DONE : DM_ENDIO_INCOMPLETE;
}

#define OPTION(name, max, preset) { #name, { 1, max, "Invalid " #name " (1 to " #max ")" }, preset }

static const struct {
	const char *name;
	struct dm_arg arg;
	unsigned int preset;
} dmr_known_options[DMR_OPTIONS] = {
	[DMR_HOLD_MS] = OPTION(hold_deadline_ms, 119000, 60000),
	[DMR_READY_MS] = OPTION(ready_deadline_ms, 119000, 60000),
	[DMR_MAX_BIOS] = OPTION(max_held_bios, 65536, 1024),
	[DMR_MAX_KIB] = OPTION(max_held_kib, 4194304, 65536),
};

int dmr_bad(struct dm_target *ti, int r, char *text)
{
	ti->error = text;
	return r;
}

static int parse_option(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	const char *name = dm_shift_arg(as);
	unsigned int i;

	for (i = 0; i < DMR_OPTIONS; i++)
		if (!strcmp(name, dmr_known_options[i].name))
			return dm_read_arg(&dmr_known_options[i].arg, as, t->opt.value + i, &ti->error);
	if (strcmp(name, "queue_if_no_daemon"))
		return dmr_bad(ti, -EINVAL, "Unknown option");
	t->opt.queue_unowned = true;
	return 0;
}

static int parse_options(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	static const struct dm_arg count = { 0, 2 * DMR_OPTIONS + 1, "Invalid number of options" };
	unsigned int i, n;
	int r = 0;

	for (i = 0; i < DMR_OPTIONS; i++)
		t->opt.value[i] = dmr_known_options[i].preset;
	if (!as->argc)
		return 0;
	r = dm_read_arg_group(&count, as, &n, &ti->error);
	if (!r && as->argc != n)
		r = dmr_bad(ti, -EINVAL, "Number of options does not match");
	while (!r && as->argc)
		r = parse_option(ti, t, as);
	return r;
}

static void dmr_dtr(struct dm_target *ti)
{
	struct dmr_target *t = ti->private;
	unsigned int i;

	if (t->inst)
		dmr_instance_leave(t->inst);
	for (i = 0; i < ARRAY_SIZE(t->dev); i++)
		if (t->dev[i])
			dm_put_device(ti, t->dev[i]);
	kfree(t);
}

static int open_devices(struct dm_target *ti, struct dmr_target *t, struct dm_arg_set *as)
{
	struct block_device *data, *spare;
	int i, r;

	for (i = 0; i < 2; i++) {
		r = dm_get_device(ti, dm_shift_arg(as), dm_table_get_mode(ti->table), t->dev + i);
		if (r)
			return dmr_bad(ti, r, i ? "Cannot open the spare" : "Cannot open the data device");
	}
	data = t->dev[DMR_DATA]->bdev;
	spare = t->dev[DMR_SPARE]->bdev;
	if (data == spare)
		return dmr_bad(ti, -EINVAL, "Data and spare are the same device");
	if (bdev_is_zoned(data) || bdev_is_zoned(spare))
		return dmr_bad(ti, -EINVAL, "Zoned devices are not supported");
	if (ti->begin || ti->len % dmr_block(t) || ti->len > bdev_nr_sectors(data))
		return dmr_bad(ti, -EINVAL,
			   "Length is not of whole logical blocks inside the data device");
	return 0;
}

/* <data_dev> <spare_dev> [<#opts> <opts>...] */
static int dmr_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct dmr_target *t;
	int r;

	if (argc < 2)
		return dmr_bad(ti, -EINVAL, "Want <data_dev> <spare_dev> [<#opts> <opts>...]");
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t)
		return dmr_bad(ti, -ENOMEM, "Cannot allocate target");
	t->ti = ti;
	ti->private = t;
	r = open_devices(ti, t, &as) ?: parse_options(ti, t, &as) ?:
	    dm_set_target_max_io_len(ti, DM_REMAP_MAX_FAULT_SECTORS) ?: dmr_instance_join(t);
	if (r) {
		dmr_dtr(ti);
		return r;
	}
	ti->num_flush_bios = 2;
	ti->num_discard_bios = 1;
	ti->discards_supported = !!bdev_max_discard_sectors(t->dev[DMR_DATA]->bdev);
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
	inst->opt = t->opt;
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
		DMEMIT("%s %s %lu %lu %llu %llu %llu", dmr_is_ready(inst) ? "ready" : "not-ready",
		       inst->owner ? "owned" : "no-owner", inst->extents, inst->open_faults,
		       inst->held_bios[0] + inst->held_bios[1],
		       inst->held_sectors[0] + inst->held_sectors[1], inst->commit);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %d", t->dev[DMR_DATA]->name, t->dev[DMR_SPARE]->name,
		       2 * DMR_OPTIONS + t->opt.queue_unowned);
		for (i = 0; i < DMR_OPTIONS; i++)
			DMEMIT(" %s %u", dmr_known_options[i].name, t->opt.value[i]);
		if (t->opt.queue_unowned)
			DMEMIT(" queue_if_no_daemon");
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",data_device_name=%s,spare_device_name=%s;", t->dev[DMR_DATA]->name,
		       t->dev[DMR_SPARE]->name);
		break;
	}
	mutex_unlock(&inst->mutex);
}

static int dmr_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct dmr_target *t = ti->private;
	struct dm_dev *spare = t->dev[DMR_SPARE];

	return fn(ti, t->dev[DMR_DATA], 0, ti->len, data) ?:
	       fn(ti, spare, 0, round_down(bdev_nr_sectors(spare->bdev), dmr_block(t)), data);
}

static struct target_type dmr_target_type = {
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

atomic_t dmr_live_instances, dmr_live_faults;

module_param_named(live_instances, dmr_live_instances.counter, int, 0444);
MODULE_PARM_DESC(live_instances, "Instances in memory");
module_param_named(live_faults, dmr_live_faults.counter, int, 0444);
MODULE_PARM_DESC(live_faults, "Faults and fences in memory");

static int __init dmr_init(void)
{
	int r = dmr_netlink_init();

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
