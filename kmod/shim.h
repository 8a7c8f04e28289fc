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
 * a bio that cannot go on.
 */
#ifndef DMR_SHIM_H
#define DMR_SHIM_H

#include <linux/bio.h>
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/kref.h>
#include <linux/maple_tree.h>
#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <uapi/dm_remap.h>

#define DM_MSG_PREFIX "remap"

/* Preallocated, so that a fence needs no memory. */
#define DMR_MAX_FAULTS 512

enum dmr_dest { DMR_DATA, DMR_SPARE };

enum dmr_what { DMR_GO, DMR_FENCED, DMR_POISONED };

struct dmr_place {
	enum dmr_what what;
	enum dmr_dest dest;
	u64 sector;
	unsigned int len;		/* sectors to which this answer applies */
};

/* Why a bio came to the worker, or must; the graver ones last. */
enum dmr_reason { DMR_NONE, DMR_PARK, DMR_HEAL, DMR_FAULT, DMR_OP_DONE };

struct dmr_bio {
	struct dmr_target *t;
	struct bvec_iter iter;		/* of the mapped device, as it came */
	blk_opf_t opf;
	u64 gen;			/* of a flush: its device's failed flushes */
	u64 dest_sector;
	u8 dest;
	bool ended;			/* by us: end_io lets it through */
	bool held;			/* counted as held */
	u8 reason;
	u8 next;			/* enum dmr_reason, when its clones are back */
	blk_status_t error;		/* its original error */
	blk_status_t status;		/* of its clones */
	atomic_t pending;		/* clones under way, and their submitter */
	unsigned long deadline;
	struct list_head node;		/* incoming, parked, go, or a local list */
	struct dmr_fault *fault;
};

struct dmr_fault {
	struct list_head node;		/* inst->faults: readers use RCU */
	struct list_head spare;		/* inst->free_faults */
	unsigned long cookie;		/* grace period after its publication, or its end */
	struct dmr_instance *inst;
	u64 id;
	u64 start;
	u64 len;
	u8 state;
	u32 flags;			/* DM_REMAP_FAULT_F_ */
	u8 status;			/* enum dm_remap_status */
	bool published;			/* its fence has been */
	bool listed;			/* its fence is seen by every lookup */
	bool placing;			/* busy with PLACE rather than TRY */
	bool rest_failed;		/* an unlisted part of PLACE failed */
	bool installing;		/* some of it is in the table already */
	struct dmr_bio *pb;
	struct work_struct op;		/* TRY or PLACE */
	unsigned int nr_pieces;
	struct dm_remap_piece *pieces;
};

/* Bits of inst->slow; zero lets map answer without a lookup. */
enum dmr_slow {
	DMR_SLOW_UNREADY,
	DMR_SLOW_EXTENTS,
	DMR_SLOW_FENCES,
	DMR_SLOW_DATA_FLUSH,
	DMR_SLOW_SPARE_FLUSH
};

/* Counted since the instance began; struct dm_remap_counters says what each is. */
enum dmr_count {
	DMR_FAULTS,
	DMR_INSTALLS,
	DMR_RELEASES,
	DMR_FAILS,
	DMR_EXPIRED,
	DMR_REFUSALS,
	DMR_UNOWNED,
	DMR_PASSED,
	DMR_POISON_READS,
	DMR_REDONE,
	DMR_COUNTS
};

/* One mapped device on one data and one spare, shared by its tables. */
struct dmr_instance {
	struct list_head node;
	struct kref kref;
	unsigned int users;		/* targets; under dmr_instances_lock */
	u32 id;
	struct mapped_device *md;
	dev_t dm_dev, data_dev, spare_dev;
	u64 sectors;
	u64 spare_sectors;
	u32 block;			/* sectors */

	unsigned long slow;
	u64 gen;
	u64 direct_gen;			/* of the last change back to direct */
	struct maple_tree table;	/* read under RCU, in any context */

	struct mutex mutex;
	unsigned long extents;
	u32 owner;			/* port id; 0: none */
	u64 commit;
	u64 slot_start, slot_sectors;
	u32 slot_unit;
	unsigned long *used;		/* sectors of the slot area */
	unsigned long *retired;
	u64 loaded;			/* end of the last loaded extent */
	u64 next_fault;
	struct list_head faults;	/* in order of id */
	struct list_head free_faults;
	struct dmr_fault *pool;
	struct list_head parked;

	spinlock_t lock;
	struct list_head incoming;
	struct list_head go;		/* unfenced, to be sent */
	bool queue_unowned;
	bool flush_owed;		/* a failed spare flush that no caller was told of */
	u64 flush_fails[2];
	u64 held_bios, held_sectors;
	u64 max_held_bios, max_held_sectors;
	unsigned int hold_ms, ready_ms;

	struct bio_set clones;
	struct workqueue_struct *wq;
	struct work_struct work, send;
	struct rcu_work listing;
	struct delayed_work deadlines;
	struct delayed_work doorbell;
	bool bell;

	atomic64_t counts[DMR_COUNTS];
};

struct dmr_target {
	struct dm_target *ti;
	struct dmr_instance *inst;
	struct dm_dev *data, *spare;
	unsigned int hold_ms, ready_ms, max_held_bios, max_held_kib;
	bool queue_unowned;
};

static inline struct bio *dmr_to_bio(struct dmr_bio *pb)
{
	return dm_bio_from_per_bio_data(pb, sizeof(*pb));
}

static inline u64 dmr_start(const struct dmr_bio *pb)
{
	return pb->iter.bi_sector;
}

static inline unsigned int dmr_len(const struct dmr_bio *pb)
{
	return pb->iter.bi_size >> SECTOR_SHIFT;
}

static inline bool dmr_is_flush(const struct dmr_bio *pb)
{
	return pb->opf & REQ_PREFLUSH;
}

static inline bool dmr_is_discard(const struct dmr_bio *pb)
{
	return (pb->opf & REQ_OP_MASK) == REQ_OP_DISCARD;
}

static inline bool dmr_is_ready(const struct dmr_instance *inst)
{
	return !test_bit(DMR_SLOW_UNREADY, &inst->slow);
}

static inline void dmr_count(struct dmr_instance *inst, enum dmr_count what)
{
	atomic64_inc(&inst->counts[what]);
}

/* main.c: live objects, zero when the module is idle */
extern atomic_t dmr_live_instances, dmr_live_faults, dmr_live_bios;

/* target.c: map and end_io */
extern struct target_type dmr_target_type;
struct block_device *dmr_bdev(struct dmr_target *t, enum dmr_dest dest);
unsigned int dmr_block(struct dmr_target *t);

/* instance.c */
extern struct mutex dmr_instances_lock;
extern struct list_head dmr_instances;
int dmr_instance_join(struct dmr_target *t);
void dmr_instance_leave(struct dmr_instance *inst);
struct dmr_instance *dmr_instance_get(u32 id, struct netlink_ext_ack *extack);
void dmr_instance_put(struct dmr_instance *inst);

/* table.c: extents */
bool dmr_table_next(struct maple_tree *table, u64 start, u64 end, struct dm_remap_extent *e);
int dmr_table_set(struct dmr_instance *inst, const struct dm_remap_extent *e);
void dmr_table_clear(struct dmr_instance *inst);

/* hold.c: bios that cannot go on */
blk_status_t dmr_hold(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error);
void dmr_hold_or_end(struct dmr_bio *pb, enum dmr_reason reason, blk_status_t error);
void dmr_end(struct dmr_bio *pb, blk_status_t status);
void dmr_unpark(struct dmr_instance *inst);
void dmr_end_holds(struct dmr_instance *inst);
blk_status_t dmr_hold_over(const struct dmr_bio *pb);
blk_status_t dmr_last_word(const struct dmr_bio *pb);
bool dmr_may_fault(struct dmr_bio *pb, blk_status_t status);
void dmr_work(struct work_struct *work);
void dmr_send_work(struct work_struct *work);
void dmr_deadline_work(struct work_struct *work);

/* flush.c: what a failed flush means for later ones */
blk_status_t dmr_flush_done(struct dmr_bio *pb, blk_status_t status);
void dmr_owner_flush_failed(struct dmr_instance *inst);
bool dmr_fua_fails(const struct dmr_bio *pb);

/* issue.c: lookups, and clones of what is held */
void dmr_lookup(struct dmr_instance *inst, u64 sector, unsigned int len, struct dmr_place *place);
bool dmr_stale(struct dmr_instance *inst, u64 gen, u64 sector, unsigned int len,
	       enum dmr_dest dest, u64 dest_sector);
int dmr_clones_init(struct dmr_instance *inst);
u8 dmr_wire_status(blk_status_t status);
void dmr_issue(struct dmr_bio *pb);
void dmr_op_work(struct work_struct *work);

/* fault.c: faults and their fences; all need inst->mutex */
struct dmr_fault *dmr_fault_new(struct dmr_instance *inst, u64 start, u64 len);
struct dmr_fault *dmr_fault_find(struct dmr_instance *inst, u64 id);
bool dmr_fault_overlaps(struct dmr_instance *inst, u64 start, u64 len);
void dmr_fault_end(struct dmr_fault *f, const char *how);
void dmr_fault_lose_bio(struct dmr_fault *f, const char *how);
void dmr_fault_op_done(struct dmr_fault *f);
void dmr_fault_trace(const struct dmr_fault *f, const char *state);
void dmr_slots_forget(struct dmr_instance *inst, const struct dm_remap_piece *p, unsigned int nr);
void dmr_publish(struct dmr_instance *inst);
void dmr_publish_fences(struct dmr_instance *inst);
void dmr_listing_work(struct work_struct *work);
void dmr_owner_gone(struct dmr_instance *inst);

#define dmr_refuse(extack, err, text) ({ NL_SET_ERR_MSG(extack, text); err; })

/* verdict.c and place.c: the owner's words; all need inst->mutex */
int dmr_claim(struct dmr_instance *inst, u32 portid, u64 start, u64 sectors, u32 unit, u64 commit,
	      struct netlink_ext_ack *extack);
int dmr_load(struct dmr_instance *inst, const struct dm_remap_extent *e, unsigned int nr,
	     struct netlink_ext_ack *extack);
void dmr_ready(struct dmr_instance *inst);
int dmr_start_op(struct dmr_instance *inst, u64 id, bool place,
		 const struct dm_remap_piece *pieces, unsigned int nr,
		 struct netlink_ext_ack *extack);
int dmr_install(struct dmr_instance *inst, u64 commit, const u64 *ids, unsigned int nr,
		struct netlink_ext_ack *extack);
int dmr_release(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack);
int dmr_fail(struct dmr_instance *inst, u64 id, struct netlink_ext_ack *extack);
int dmr_fence(struct dmr_instance *inst, u64 start, u64 len, u64 *id,
	      struct netlink_ext_ack *extack);
bool dmr_in_slot_area(struct dmr_instance *inst, u64 slot, u64 len);
bool dmr_slots_used(struct dmr_instance *inst, u64 slot, u64 len);

/* netlink.c: requests; list.c: answers and the doorbell */
int dmr_netlink_init(void);
void dmr_netlink_exit(void);
struct genl_family;
extern struct genl_family dmr_family;
int dmr_check_attrs(u8 cmd, struct nlattr **attrs, struct netlink_ext_ack *extack);
int dmr_dump_start(struct netlink_callback *cb);
int dmr_instance_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int dmr_fault_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int dmr_extent_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
void dmr_ring(struct dmr_instance *inst);
void dmr_doorbell_work(struct work_struct *work);

#endif
