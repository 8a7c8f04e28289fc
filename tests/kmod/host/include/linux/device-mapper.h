/* SPDX-License-Identifier: GPL-2.0-only */
/* One mapped device with one target; see dm.c. */
#ifndef HOST_DEVICE_MAPPER_H
#define HOST_DEVICE_MAPPER_H

#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/workqueue.h>

#define DM_NAME "device-mapper"
#define DM_MAPIO_SUBMITTED 0
#define DM_MAPIO_REMAPPED 1
#define DM_ENDIO_DONE 0
#define DM_ENDIO_INCOMPLETE 1
#define DM_ENDIO_REQUEUE 2
#define DM_TARGET_SINGLETON 1
#define DM_TARGET_NOWAIT 2

struct mapped_device { struct gendisk disk; };
struct dm_table { struct mapped_device *md; };
struct dm_dev { struct block_device *bdev; char name[16]; };

struct dm_target {
	struct dm_table *table;
	struct target_type *type;
	sector_t begin, len;
	u32 max_io_len;
	unsigned int num_flush_bios, num_discard_bios, per_io_data_size;
	void *private;
	char *error;
	bool discards_supported, accounts_remapped_io;
};

typedef enum { STATUSTYPE_INFO, STATUSTYPE_TABLE, STATUSTYPE_IMA } status_type_t;
typedef int (*iterate_devices_callout_fn)(struct dm_target *ti, struct dm_dev *dev, sector_t start,
					  sector_t len, void *data);

struct target_type {
	const char *name;
	unsigned int version[3];
	u64 features;
	struct module *module;
	int (*ctr)(struct dm_target *ti, unsigned int argc, char **argv);
	void (*dtr)(struct dm_target *ti);
	int (*map)(struct dm_target *ti, struct bio *bio);
	int (*end_io)(struct dm_target *ti, struct bio *bio, blk_status_t *error);
	void (*presuspend)(struct dm_target *ti);
	int (*preresume)(struct dm_target *ti);
	void (*status)(struct dm_target *ti, status_type_t type, unsigned int flags, char *result,
		       unsigned int maxlen);
	int (*iterate_devices)(struct dm_target *ti, iterate_devices_callout_fn fn, void *data);
};

int dm_register_target(struct target_type *type);
void dm_unregister_target(struct target_type *type);

struct dm_arg_set { unsigned int argc; char **argv; };
struct dm_arg { unsigned int min, max; char *error; };

const char *dm_shift_arg(struct dm_arg_set *as);
int dm_read_arg(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *value, char **error);
int dm_read_arg_group(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *n, char **error);

int dm_get_device(struct dm_target *ti, const char *path, int mode, struct dm_dev **dev);
void dm_put_device(struct dm_target *ti, struct dm_dev *dev);
int dm_set_target_max_io_len(struct dm_target *ti, sector_t len);
int dm_noflush_suspending(struct dm_target *ti);

#define dm_table_get_mode(table) ((void)(table), 3)
#define dm_table_get_md(table) ((table)->md)
#define dm_disk(md) (&(md)->disk)

/* The target's own data stands before the bio. */
#define dm_per_bio_data(bio, size) ((void *)((char *)(bio) - (size)))
#define dm_bio_from_per_bio_data(data, size) ((struct bio *)((char *)(data) + (size)))

unsigned int dm_bio_get_target_bio_nr(const struct bio *bio);
void dm_accept_partial_bio(struct bio *bio, unsigned int sectors);
void dm_submit_bio_remap(struct bio *orig, struct bio *clone);

#define DMEMIT(...) (sz += snprintf(result + sz, maxlen - sz, __VA_ARGS__))
#define DMEMIT_TARGET_NAME_VERSION(type) DMEMIT("target_name=%s", (type)->name)

#endif
