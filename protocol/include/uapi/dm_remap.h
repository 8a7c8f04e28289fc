/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * dm_remap_shim - the generic netlink conversation with its policy daemon
 *
 * This header is the manual of the protocol and its only source of numbers.
 *
 * Family "dm_remap", multicast group "faults", both for CAP_SYS_ADMIN in the
 * initial user and network namespaces only: the messages steer raw blocks.
 * All integers are in host byte order. A sector is 512 bytes. Device numbers
 * are (major << 32) | minor. Every request is validated strictly: attributes
 * that a command does not list are refused, and errors carry an extack text.
 *
 * The kernel owns the queue of faults. The multicast DOORBELL says only that
 * there is something to list; it is repeated every second until the owner
 * lists (FAULT_GET), so losing it loses nothing.
 *
 * A session: CLAIM, LOAD..., READY (a fresh instance) or CLAIM, FAULT_GET,
 * then INSTALL or RELEASE for what is placed (one that is already ready).
 * A fault: FAULT_GET shows it open; TRY finds its bad pieces; PLACE writes it
 * to slots and, once that is done, pins its fence; the daemon flushes the
 * spare, lists once more to see that no flush of the spare failed meanwhile,
 * commits, and sends INSTALL, which changes the table and completes the bio.
 * A flush that somebody else sends and that fails may also lose what a flush of
 * the daemon's own was to cover, which then succeeds: after each of these it
 * reads spare_flush_errors, and what it wrote before is unknown if that rose.
 *
 *	open   -> busy    TRY, PLACE (I/O is on its way)
 *	open   -> placed  PLACE without a held write: the fence is pinned
 *	busy   -> open    TRY is done, or a piece of PLACE failed
 *	busy   -> placed  PLACE is done: the fence is pinned
 *	placed -> busy    PLACE again, while the bio is held (the spare's
 *			  flush failed, so the old place is void)
 *	placed -> ended   INSTALL, RELEASE
 *	open   -> ended   RELEASE, FAIL, its bio left (deadline, noflush
 *			  suspend), its owner left (FENCE only)
 *
 * Errors common to the commands: ESRCH no such instance; EACCES the sender
 * has not claimed it (dumps need no claim); ENOENT no such fault; EBUSY a
 * fault's state does not allow it now (list and try again); ERANGE a range or
 * slot is outside its device, slot area or fault, out of order there or not
 * aligned; ENOSPC the table would have too many extents; EINVAL anything else that is malformed; ENOMEM try again:
 * nothing was changed, except that a LOAD is to be the same again, unless the
 * table begins anew with CLAIM, and that an INSTALL may be half done: its
 * faults then end by INSTALL only.
 */
#ifndef _UAPI_DM_REMAP_H
#define _UAPI_DM_REMAP_H

#include <linux/types.h>

#define DM_REMAP_GENL_NAME	"dm_remap"
#define DM_REMAP_GENL_VERSION	1
#define DM_REMAP_MCGRP_FAULTS	"faults"

/* The longest range of one bio's fault, in sectors; longer bios are split. */
#define DM_REMAP_MAX_FAULT_SECTORS	2048
/* The most pieces of one TRY or PLACE; what they leave out keeps its extent. */
#define DM_REMAP_MAX_PIECES		1024
/* The most extents of one LOAD. */
#define DM_REMAP_MAX_LOAD		2048
/* The most faults of one INSTALL. */
#define DM_REMAP_MAX_INSTALL		1024
/* The largest slot area, in sectors (64 GiB). */
#define DM_REMAP_MAX_SLOT_SECTORS	(1ULL << 27)
/* The most extents of one instance. */
#define DM_REMAP_MAX_EXTENTS		1048576

/**
 * enum dm_remap_cmd - commands
 *
 * @DM_REMAP_CMD_INSTANCE_GET: dump: every instance, one message each, with
 *	INSTANCE, DM_DEV, DATA_DEV, SPARE_DEV, SECTORS, BLOCK, INSTANCE_FLAGS,
 *	GENERATION, COMMIT, COUNTERS and, once claimed, SLOT_START,
 *	SLOT_SECTORS, SLOT_UNIT, and OWNER while it is owned.
 * @DM_REMAP_CMD_CLAIM: do: bind INSTANCE to the sending socket, whose end is
 *	the end of the claim. SLOT_START, SLOT_SECTORS and SLOT_UNIT are set by
 *	the first claim and must be repeated by later ones. COMMIT is the last
 *	commit that the claimant's table holds. EBUSY: owned by another
 *	socket; ESTALE: COMMIT is below the instance's last one.
 *	Claiming an instance that is not ready drops what was loaded so far.
 * @DM_REMAP_CMD_LOAD: do: INSTANCE, EXTENTS; only before READY. Extents are in
 *	rising order of start over all LOADs; RETIRED ones have start 0 and may
 *	stand anywhere. EEXIST: two extents, or a retired range, share a sector
 *	of the spare.
 * @DM_REMAP_CMD_READY: do: INSTANCE; ends the fence over everything that an
 *	instance starts with. Once ready, a no-op.
 * @DM_REMAP_CMD_FAULT_GET: dump: INSTANCE; first one INSTANCE_GET message, then
 *	one message a fault or fence, in rising order of FAULT_ID, with
 *	INSTANCE, FAULT_ID, START, LEN, FAULT_STATE, FAULT_FLAGS,
 *	STATUS, DEADLINE_MS (while a bio is held) and PIECES (of the last
 *	TRY or PLACE, with results, which say nothing while it is busy). Sent
 *	by the owner it answers the doorbell.
 * @DM_REMAP_CMD_EXTENT_GET: dump: INSTANCE; messages with EXTENTS, first the
 *	table in rising order of start, then the retired slots. Changes made
 *	during the dump may or may not show.
 * @DM_REMAP_CMD_TRY: do: INSTANCE, FAULT_ID, PIECES (kind DIRECT, slot 0); the
 *	held write's pieces are written to where the table points, one bio
 *	each at least. For write faults only.
 * @DM_REMAP_CMD_PLACE: do: INSTANCE, FAULT_ID, PIECES; says what the range shall
 *	become. A held write's MAPPED pieces are written to their slots and
 *	its unlisted parts to where the table points. For a fence or a read
 *	nothing is written: the daemon itself writes the slots after PLACE has
 *	accepted them. A slot is a multiple of SLOT_UNIT and fills whole units.
 *	EEXIST: a slot is in use or retired. ENOENT: the write has left, too.
 * @DM_REMAP_CMD_INSTALL: do: INSTANCE, COMMIT, FAULT_IDS, all placed, or nothing is
 *	installed. A fault that has already ended is passed over: a placed
 *	one ends only by its owner's INSTALL or RELEASE. A held write
 *	completes, unless a flush of either disk has failed since PLACE; other
 *	held bios, and that, go through the table again. ESTALE: COMMIT
 *	is below the last installed one.
 * @DM_REMAP_CMD_RELEASE: do: INSTANCE, FAULT_ID; lifts the fence, leaves the table,
 *	and sends the held bio through the table again.
 * @DM_REMAP_CMD_FAIL: do: INSTANCE, FAULT_ID; ends the held bio with its
 *	original error. A pinned fence stays. ENOENT: its bio has left, too.
 * @DM_REMAP_CMD_FENCE: do: INSTANCE, START, LEN; a fault without a bio. Replies with
 *	FAULT_ID, after every I/O that is looked up later sees the fence.
 *	EBUSY: it overlaps a fault, the instance is not ready, or it has as many
 *	faults as it can.
 * @DM_REMAP_CMD_DOORBELL: event: INSTANCE.
 * @DM_REMAP_CMD_FLUSH_FAILED: do: INSTANCE; a flush of the spare that did not come
 *	through the mapped device has failed. No claim is needed: a daemon that
 *	opens the spare sends some, too. It counts in spare_flush_fails, and the
 *	next flush of the mapped device fails although its disks obey: what its
 *	callers wrote to slots before may be lost, and they were told of no failure.
 *	That holds before READY, too, unless no extent was loaded.
 *	So do FUA writes, until a flush after that one has succeeded.
 */
enum dm_remap_cmd {
	DM_REMAP_CMD_UNSPEC,
	DM_REMAP_CMD_INSTANCE_GET,
	DM_REMAP_CMD_CLAIM,
	DM_REMAP_CMD_LOAD,
	DM_REMAP_CMD_READY,
	DM_REMAP_CMD_FAULT_GET,
	DM_REMAP_CMD_EXTENT_GET,
	DM_REMAP_CMD_TRY,
	DM_REMAP_CMD_PLACE,
	DM_REMAP_CMD_INSTALL,
	DM_REMAP_CMD_RELEASE,
	DM_REMAP_CMD_FAIL,
	DM_REMAP_CMD_FENCE,
	DM_REMAP_CMD_DOORBELL,
	DM_REMAP_CMD_FLUSH_FAILED,
	__DM_REMAP_CMD_MAX,
	DM_REMAP_CMD_MAX = __DM_REMAP_CMD_MAX - 1
};

/**
 * enum dm_remap_attr - attributes
 *
 * @DM_REMAP_A_INSTANCE: u32, from 1; never used again before the module leaves.
 * @DM_REMAP_A_DM_DEV: u64, the mapped device.
 * @DM_REMAP_A_DATA_DEV: u64.
 * @DM_REMAP_A_SPARE_DEV: u64.
 * @DM_REMAP_A_SECTORS: u64, length of the mapped device.
 * @DM_REMAP_A_BLOCK: u32, its logical block, in sectors.
 * @DM_REMAP_A_INSTANCE_FLAGS: u32, enum dm_remap_instance_flags.
 * @DM_REMAP_A_GENERATION: u64, rises with every change of table or fences.
 * @DM_REMAP_A_COMMIT: u64, sequence of a commit; 0 before the first.
 * @DM_REMAP_A_COUNTERS: struct dm_remap_counters.
 * @DM_REMAP_A_SLOT_START: u64, first sector of the slot area on the spare.
 * @DM_REMAP_A_SLOT_SECTORS: u64, its length.
 * @DM_REMAP_A_SLOT_UNIT: u32, the spare's physical block in sectors, a power of
 *	two from 8 to 2048; slots start at its multiples.
 * @DM_REMAP_A_OWNER: u32, port id of the owner's socket.
 * @DM_REMAP_A_EXTENTS: array of struct dm_remap_extent.
 * @DM_REMAP_A_FAULT_ID: u64, from 1, rising; never used again in an instance.
 * @DM_REMAP_A_FAULT_IDS: array of u64.
 * @DM_REMAP_A_START: u64, first sector of a range of the mapped device.
 * @DM_REMAP_A_LEN: u64, its length in sectors.
 * @DM_REMAP_A_FAULT_STATE: u8, enum dm_remap_fault_state.
 * @DM_REMAP_A_FAULT_FLAGS: u32, enum dm_remap_fault_flags.
 * @DM_REMAP_A_STATUS: u8, enum dm_remap_status, the bio's original error.
 * @DM_REMAP_A_DEADLINE_MS: u32, what is left of the held bio's time.
 * @DM_REMAP_A_PIECES: array of struct dm_remap_piece, in rising order of offset,
 *	not overlapping.
 * @DM_REMAP_A_PAD: alignment.
 */
enum dm_remap_attr {
	DM_REMAP_A_UNSPEC,
	DM_REMAP_A_INSTANCE,
	DM_REMAP_A_DM_DEV,
	DM_REMAP_A_DATA_DEV,
	DM_REMAP_A_SPARE_DEV,
	DM_REMAP_A_SECTORS,
	DM_REMAP_A_BLOCK,
	DM_REMAP_A_INSTANCE_FLAGS,
	DM_REMAP_A_GENERATION,
	DM_REMAP_A_COMMIT,
	DM_REMAP_A_COUNTERS,
	DM_REMAP_A_SLOT_START,
	DM_REMAP_A_SLOT_SECTORS,
	DM_REMAP_A_SLOT_UNIT,
	DM_REMAP_A_OWNER,
	DM_REMAP_A_EXTENTS,
	DM_REMAP_A_FAULT_ID,
	DM_REMAP_A_FAULT_IDS,
	DM_REMAP_A_START,
	DM_REMAP_A_LEN,
	DM_REMAP_A_FAULT_STATE,
	DM_REMAP_A_FAULT_FLAGS,
	DM_REMAP_A_STATUS,
	DM_REMAP_A_DEADLINE_MS,
	DM_REMAP_A_PIECES,
	DM_REMAP_A_PAD,
	__DM_REMAP_A_MAX,
	DM_REMAP_A_MAX = __DM_REMAP_A_MAX - 1
};

/**
 * enum dm_remap_kind - what a range of the mapped device is
 *
 * @DM_REMAP_DIRECT: on the data device; has no extent. In PLACE: give the
 *	mapping or poison up.
 * @DM_REMAP_MAPPED: on the spare, at slot.
 * @DM_REMAP_POISON_DATA: unreadable; slot is 0.
 * @DM_REMAP_POISON_SLOT: unreadable at slot, and the data device is stale.
 * @DM_REMAP_RETIRED: EXTENTS only: sectors of the spare that must not be used
 *	again; start is 0.
 *
 * PLACE allows DIRECT over MAPPED and POISON_DATA, MAPPED over anything,
 * POISON_DATA over DIRECT, POISON_SLOT over MAPPED with the slot it has.
 */
enum dm_remap_kind {
	DM_REMAP_DIRECT,
	DM_REMAP_MAPPED,
	DM_REMAP_POISON_DATA,
	DM_REMAP_POISON_SLOT,
	DM_REMAP_RETIRED
};

/* An extent of the table, or a retired range of the spare. */
struct dm_remap_extent {
	__u64 start;	/* first sector of the mapped device */
	__u64 slot;	/* first sector of the spare */
	__u32 len;	/* sectors */
	__u8 kind;	/* enum dm_remap_kind */
	__u8 pad[3];	/* zero */
};

/* A piece of a fault. */
struct dm_remap_piece {
	__u32 offset;	/* sectors from the fault's start */
	__u32 len;	/* sectors */
	__u64 slot;	/* first sector of the spare, or 0 */
	__u8 kind;	/* enum dm_remap_kind; DIRECT in TRY */
	__u8 result;	/* enum dm_remap_status of its I/O; 0 in requests */
	__u8 pad[6];	/* zero */
};

/**
 * enum dm_remap_fault_state - see the diagram above
 */
enum dm_remap_fault_state {
	DM_REMAP_FAULT_OPEN,
	DM_REMAP_FAULT_BUSY,
	DM_REMAP_FAULT_PLACED
};

/**
 * enum dm_remap_fault_flags
 *
 * @DM_REMAP_FAULT_F_WRITE: its bio writes.
 * @DM_REMAP_FAULT_F_HELD: its bio is held.
 * @DM_REMAP_FAULT_F_PINNED: the fence outlives bio, deadline and owner.
 * @DM_REMAP_FAULT_F_FENCE: made by FENCE.
 * @DM_REMAP_FAULT_F_HEAL: a write over poison that no disk has refused.
 */
enum dm_remap_fault_flags {
	DM_REMAP_FAULT_F_WRITE	= 1 << 0,
	DM_REMAP_FAULT_F_HELD	= 1 << 1,
	DM_REMAP_FAULT_F_PINNED	= 1 << 2,
	DM_REMAP_FAULT_F_FENCE	= 1 << 3,
	DM_REMAP_FAULT_F_HEAL	= 1 << 4
};

/**
 * enum dm_remap_instance_flags
 *
 * @DM_REMAP_INSTANCE_F_READY: serves I/O.
 * @DM_REMAP_INSTANCE_F_QUEUE: queue_if_no_daemon.
 * @DM_REMAP_INSTANCE_F_DATA_FLUSH_BAD: no flush of the data device has been
 *	answered with success since one failed.
 * @DM_REMAP_INSTANCE_F_SPARE_FLUSH_BAD: likewise, of the spare.
 */
enum dm_remap_instance_flags {
	DM_REMAP_INSTANCE_F_READY		= 1 << 0,
	DM_REMAP_INSTANCE_F_QUEUE		= 1 << 1,
	DM_REMAP_INSTANCE_F_DATA_FLUSH_BAD	= 1 << 2,
	DM_REMAP_INSTANCE_F_SPARE_FLUSH_BAD	= 1 << 3
};

/**
 * enum dm_remap_status - how an I/O ended
 *
 * @DM_REMAP_STATUS_OK: it succeeded, or has no error of its own.
 * @DM_REMAP_STATUS_MEDIUM: the device says that the medium is bad.
 * @DM_REMAP_STATUS_IOERR: the device does not say why.
 * @DM_REMAP_STATUS_OTHER: any other error: transport, offline, ...
 * @DM_REMAP_STATUS_NOT_DONE: it was not attempted.
 */
enum dm_remap_status {
	DM_REMAP_STATUS_OK,
	DM_REMAP_STATUS_MEDIUM,
	DM_REMAP_STATUS_IOERR,
	DM_REMAP_STATUS_OTHER,
	DM_REMAP_STATUS_NOT_DONE
};

/* Counts since the instance began; gauges are marked so. Grows at its end. */
struct dm_remap_counters {
	__u64 faults;			/* faults opened, heals included */
	__u64 installs;			/* faults installed */
	__u64 releases;			/* faults released */
	__u64 fails;			/* FAIL verdicts */
	__u64 expired;			/* held bios ended by their deadline */
	__u64 refused;			/* bios not held: the bound was reached */
	__u64 unowned;			/* errors passed up for want of an owner */
	__u64 passed;			/* errors passed up by their class */
	__u64 poison_reads;		/* reads failed at poison */
	__u64 redone;			/* writes repeated after a table change */
	__u64 spare_flush_errors;	/* flushes of the spare that came through map and failed */
	__u64 data_flush_fails;		/* failed flushes of the data device */
	__u64 spare_flush_fails;	/* these, and FLUSH_FAILED */
	__u64 held_bios;		/* gauge */
	__u64 held_sectors;		/* gauge */
	__u64 extents;			/* gauge */
	__u64 open_faults;		/* gauge, fences included */
};

#endif /* _UAPI_DM_REMAP_H */
