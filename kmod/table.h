/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of extents: sorted, not overlapping, in chunks, so that a change
 * copies a chunk and the index of chunks, and readers need no lock.
 */
#ifndef DMR_TABLE_H
#define DMR_TABLE_H

#include <linux/types.h>
#include <uapi/dm_remap.h>

#define DMR_CHUNK 128

struct dmr_chunk {
	struct dmr_chunk *next;		/* on the list of dead chunks */
	unsigned int nr;
	bool fresh;			/* made by the edit under way */
	struct dm_remap_extent e[DMR_CHUNK];
};

struct dmr_index {
	unsigned int nr;		/* chunks, none of them empty */
	unsigned int room;
	unsigned long extents;
	struct dmr_chunk *chunk[];
};

/* One change of many ranges, private until dmr_edit_commit(). */
struct dmr_edit {
	struct dmr_index *index;
	struct dmr_chunk *dead;		/* replaced chunks of the old index */
};

struct dmr_index *dmr_index_alloc(unsigned int room);
void dmr_index_free(struct dmr_index *index);
const struct dm_remap_extent *dmr_index_find(const struct dmr_index *index,
					     u64 sector);

/* Each of at most @changes dmr_edit_set() calls; -ENOMEM at any step. */
int dmr_edit_begin(struct dmr_edit *edit, const struct dmr_index *old,
		   unsigned int changes);
int dmr_edit_set(struct dmr_edit *edit, const struct dm_remap_extent *ext);
void dmr_edit_commit(struct dmr_edit *edit);
void dmr_edit_abort(struct dmr_edit *edit);
void dmr_chunks_free(struct dmr_chunk *dead);

#endif
