/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dm_remap_shim - look up, redirect, hold what failed, report, reissue
 *
 * Contexts: map runs in the submitter's process context; end_io and the ends of clones in any
 * context, hard interrupts included; everything else in process context, on a WQ_MEM_RECLAIM
 * workqueue or in a netlink request, where memory allocation never does I/O.
 *
 * Locks, outermost first:
 *	dmr_instances_lock	the list of instances, ctr and dtr
 *	inst->mutex		faults, parked bios, writers of the table, owner
 *	inst->lock (irq)	incoming bios, held counts, flush state
 * No lock is taken to look up: readers use RCU. map and end_io take only inst->lock, and only for
 * a bio that cannot go on or was held, and for flushes while one has failed.
 */
#ifndef DMR_SHIM_H
#define DMR_SHIM_H

#include <linux/bio.h>
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/log2.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <uapi/dm_remap.h>
#include "compat.h"

#define DM_MSG_PREFIX "remap"

/* Preallocated, so that a fence needs no memory. */
#define DMR_MAX_FAULTS 512

enum dmr_dest { DMR_DATA, DMR_SPARE, DMR_FENCED, DMR_POISONED };

/* Where a range of the mapped device is, as a lookup saw it. */
struct dmr_place {
	u64 gen;
	u64 start;			/* of the mapped device */
	u64 sector;			/* of the disk */
	unsigned int len;
	u8 dest;			/* enum dmr_dest */
};

/* Why a bio comes to the worker, the graver last. REDO: a write goes again, or is flushed behind. */
enum dmr_reason { DMR_NONE, DMR_REDO, DMR_PARK, DMR_HEAL, DMR_FAULT };

struct dmr_bio {
	struct dmr_target *t;
	struct bvec_iter iter;		/* of the mapped device, as it came */
	blk_opf_t opf;
	struct dmr_place place;
	u64 fails[2];			/* flushes of each disk that had failed when it was sent */
	u8 owes;			/* disks to flush, before it ends: see dmr_fua_owed() */
	bool ended, held, taken;	/* by us: end_io lets it through; by a disk, before it was held */
	u8 reason;
	unsigned long needs;		/* bits: enum dmr_reason, of its clones */
	blk_status_t error;		/* how it ends if nobody can help */
	blk_status_t status;		/* of its clones */
	atomic_t pending;		/* clones under way, and their submitter */
	unsigned long deadline;		/* from the first hold; never reset */
	struct list_head node;		/* incoming, parked, go, or a local list */
	struct dmr_fault *fault;
};

/* What takes a held bio, or a part of it, to a disk. */
struct dmr_clone {
	struct dmr_bio *pb;
	struct dm_remap_piece *piece;	/* of TRY or PLACE */
	struct dmr_place place;
	struct bio bio;
};

struct dmr_fault {
	struct list_head node;		/* inst->faults: readers use RCU */
	struct list_head spare;		/* inst->free_faults */
	unsigned long cookie;		/* grace period after its beginning, or its end */
	struct dmr_instance *inst;
	u64 id, start, len;
	u8 state;
	u32 flags;			/* DM_REMAP_FAULT_F_ */
	u8 status;			/* enum dm_remap_status */
	bool listed;			/* its fence is seen by every lookup */
	bool placing;			/* busy with PLACE rather than TRY */
	bool rest_failed;		/* an unlisted part of PLACE failed */
	bool installing;		/* some of it is in the table already */
	struct dmr_bio *pb;
	struct work_struct op, op_done;	/* TRY or PLACE, and its I/O's return */
	unsigned int nr_pieces;
	struct dm_remap_piece *pieces;
};

/* Bits of inst->slow; zero lets map answer without a lookup. */
enum dmr_slow {
	DMR_SLOW_UNREADY, DMR_SLOW_EXTENTS, DMR_SLOW_FENCES, DMR_SLOW_DATA_FLUSH, DMR_SLOW_SPARE_FLUSH
};

/* One a field, though nobody counts with those of the gauges. */
#define DMR_COUNTS (sizeof(struct dm_remap_counters) / sizeof(u64))
#define dmr_count(inst, what) \
	atomic64_inc(&(inst)->counts[offsetof(struct dm_remap_counters, what) / sizeof(u64)])

enum dmr_option { DMR_HOLD_MS, DMR_READY_MS, DMR_MAX_BIOS, DMR_MAX_KIB, DMR_OPTIONS };

struct dmr_options {
	unsigned int value[DMR_OPTIONS];
	bool queue_unowned;
};

/* One mapped device on one data and one spare, shared by its tables. */
struct dmr_instance {
	struct list_head node;
	struct kref kref;
	unsigned int users;		/* targets; under dmr_instances_lock */
	u32 id;
	struct mapped_device *md;
	dev_t dm_dev, data_dev, spare_dev;
	u64 sectors, spare_sectors;
	u32 block;			/* sectors */

	unsigned long slow;
	u64 gen;
	u64 direct_gen;			/* of the last change back to direct */
	struct maple_tree table;	/* read under RCU, in any context */
	bool storing;			/* but not in an interrupt while this is set */

	struct mutex mutex;
	unsigned long extents, open_faults;
	unsigned int noio;		/* of the request under way */
	u32 owner;			/* port id; 0: none */
	u64 commit;
	u64 slot_start, slot_sectors;
	u32 slot_unit;
	unsigned long *used, *retired;	/* sectors of the slot area */
	u64 loaded;			/* end of the last loaded extent */
	u64 next_fault;
	struct list_head faults;	/* in order of id */
	struct list_head free_faults, parked;
	struct dmr_fault *pool;

	spinlock_t lock;
	struct list_head incoming, go;	/* go: unfenced, to be sent */
	struct dmr_options opt;
	u8 flush_owed;			/* bits: disks, if no caller was told of a failed flush */
	u64 flush_fails[2];
	u64 held_bios[2], held_sectors[2];	/* the second: of those that were taken */

	struct bio_set clones;
	struct workqueue_struct *wq, *disk_wq;	/* without memory one thread each: disks may block it */
	struct work_struct work, send;
	struct rcu_work listing;
	struct delayed_work deadlines, doorbell;
	bool bell;

	atomic64_t counts[DMR_COUNTS];
};

struct dmr_target {
	struct dm_target *ti;
	struct dmr_instance *inst;
	struct dm_dev *dev[2];		/* data and spare */
	struct dmr_options opt;
};

static inline struct bio *dmr_to_bio(struct dmr_bio *pb)
{
	return dm_bio_from_per_bio_data(pb, sizeof(*pb));
}

static inline bool dmr_is_flush(const struct dmr_bio *pb)
{
	return pb->opf & REQ_PREFLUSH;
}

/* What a write that is where it belongs has to do yet: it becomes a flush. */
static inline enum dmr_reason dmr_written(struct dmr_bio *pb)
{
	if (likely(!pb->owes) || dmr_is_flush(pb))
		return DMR_NONE;
	pb->opf |= REQ_PREFLUSH;
	return DMR_REDO;
}

static inline bool dmr_is_discard(const struct dmr_bio *pb)
{
	return (pb->opf & REQ_OP_MASK) == REQ_OP_DISCARD;
}

/* A discard of what is not on the data disk does nothing. */
static inline bool dmr_is_noop(const struct dmr_bio *pb, const struct dmr_place *p)
{
	return dmr_is_discard(pb) && (p->dest == DMR_SPARE || p->dest == DMR_POISONED);
}

static inline bool dmr_is_ready(const struct dmr_instance *inst)
{
	return !test_bit(DMR_SLOW_UNREADY, &inst->slow);
}

/* Under inst->mutex, which deadlines need: no memory is an error at once, and the daemon asks again. */
#define DMR_GFP (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)

#define dmr_u64(info, name) nla_get_u64((info)->attrs[DM_REMAP_A_##name])
#define dmr_refuse(extack, err, text) ({ NL_SET_ERR_MSG(extack, text); err; })

/* Is a range that somebody gave within the first @size sectors? */
static inline bool dmr_inside(u64 start, u64 len, u64 size)
{
	return len && len <= size && start <= size - len;
}

/* target.c: map, end_io, and live objects, which are none when the module is idle */
extern atomic_t dmr_live_instances, dmr_live_faults;
unsigned int dmr_block(struct dmr_target *t);
int dmr_bad(struct dm_target *ti, int r, char *text);

/* instance.c */
extern struct mutex dmr_instances_lock;
extern struct list_head dmr_instances;
int dmr_instance_join(struct dmr_target *t);
void dmr_instance_leave(struct dmr_instance *inst);
struct dmr_instance *dmr_instance_get(struct nlattr **attrs, struct netlink_ext_ack *extack);
void dmr_instance_free(struct kref *kref);

/* table.c: extents */
void dmr_table_at(struct dmr_instance *inst, u64 start, u64 end, struct dm_remap_extent *e);
int dmr_table_set(struct dmr_instance *inst, const struct dm_remap_extent *e);
void dmr_table_clear(struct dmr_instance *inst);

/* hold.c: bios that cannot go on */
blk_status_t dmr_hold(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error);
int dmr_hold_or_end(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error);
int dmr_end(struct dmr_bio *pb, blk_status_t status);
void dmr_unpark(struct dmr_instance *inst);
void dmr_end_holds(struct dmr_instance *inst);
blk_status_t dmr_hold_over(const struct dmr_bio *pb);
void dmr_work(struct work_struct *work);
void dmr_send_work(struct work_struct *work);
void dmr_deadline_work(struct work_struct *work);

/* flush.c: what a failed flush means for later ones */
void dmr_sends(struct dmr_bio *pb);
blk_opf_t dmr_fua_owed(struct dmr_bio *pb, enum dmr_dest dest);
blk_status_t dmr_flush_done(struct dmr_bio *pb, enum dmr_dest dest, blk_status_t status);
bool dmr_fua_fails(const struct dmr_bio *pb);

/* issue.c: lookups, and clones of what is held */
void dmr_lookup(struct dmr_instance *inst, u64 start, unsigned int len, struct dmr_place *place);
enum dmr_reason dmr_need(struct dmr_bio *pb, const struct dmr_place *sent, blk_status_t status);
bool dmr_passes(struct dmr_bio *pb, blk_status_t status);
u8 dmr_wire_status(blk_status_t status);
void dmr_issue(struct dmr_bio *pb);
void dmr_op_work(struct work_struct *work);

/* fault.c: faults and their fences; all but dmr_listing_work() need inst->mutex */
struct dmr_fault *dmr_fault_new(struct dmr_instance *inst, u64 start, u64 len);
struct dmr_fault *dmr_fault_find(struct dmr_instance *inst, u64 id);
bool dmr_fault_overlaps(struct dmr_instance *inst, u64 start, u64 len);
void dmr_fault_end(struct dmr_fault *f, const char *how);
void dmr_fault_lose_bio(struct dmr_fault *f, blk_status_t status, const char *how);
void dmr_fault_expire(struct dmr_fault *f);
void dmr_publish(struct dmr_instance *inst);
void dmr_listing_work(struct work_struct *work);
void dmr_owner_gone(struct dmr_instance *inst);

/* place.c: what a fault's pieces may be, and the slots they take; all need inst->mutex */
bool dmr_slots_used(struct dmr_instance *inst, u64 slot, u64 len);
void dmr_slots_mark(struct dmr_instance *inst, const struct dm_remap_piece *p, u32 nr, bool used);

/* netlink.c: who may send what; verdict.c, place.c and flush.c: what is done then */
#define DMR_NR_OPS 13
extern const struct genl_ops dmr_ops[DMR_NR_OPS];
extern struct genl_family dmr_family;
int dmr_netlink_init(void);
void dmr_netlink_exit(void);
int dmr_check_attrs(u8 cmd, struct nlattr **attrs, struct netlink_ext_ack *extack);
int dmr_start_op(struct sk_buff *skb, struct genl_info *info);
int dmr_flush_failed(struct sk_buff *skb, struct genl_info *info);

/* list.c: answers and the doorbell */
int dmr_dump_start(struct netlink_callback *cb);
int dmr_instance_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int dmr_fault_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int dmr_extent_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
void dmr_ring(struct dmr_instance *inst);
void dmr_doorbell_work(struct work_struct *work);

#endif
