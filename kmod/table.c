// SPDX-License-Identifier: GPL-2.0-only
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "table.h"

static u64 ext_end(const struct dm_remap_extent *e)
{
	return e->start + e->len;
}

struct dmr_index *dmr_index_alloc(unsigned int room)
{
	struct dmr_index *index;

	index = kvzalloc(struct_size(index, chunk, room), GFP_KERNEL);
	if (index)
		index->room = room;
	return index;
}

void dmr_index_free(struct dmr_index *index)
{
	unsigned int i;

	if (!index)
		return;
	for (i = 0; i < index->nr; i++)
		kfree(index->chunk[i]);
	kvfree(index);
}

void dmr_chunks_free(struct dmr_chunk *dead)
{
	while (dead) {
		struct dmr_chunk *next = dead->next;

		kfree(dead);
		dead = next;
	}
}

/* The first chunk, and in it the first extent, that ends after @sector. */
static bool position(const struct dmr_index *index, u64 sector,
		     unsigned int *ci, unsigned int *i)
{
	unsigned int lo = 0, hi = index->nr;
	const struct dmr_chunk *c;

	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;

		c = index->chunk[mid];
		if (ext_end(&c->e[c->nr - 1]) > sector)
			hi = mid;
		else
			lo = mid + 1;
	}
	*ci = lo;
	*i = 0;
	if (lo == index->nr)
		return false;
	c = index->chunk[lo];
	lo = 0;
	hi = c->nr;
	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (ext_end(&c->e[mid]) > sector)
			hi = mid;
		else
			lo = mid + 1;
	}
	*i = lo;
	return true;
}

/* The first extent that ends after @sector, or NULL. */
const struct dm_remap_extent *dmr_index_find(const struct dmr_index *index,
					     u64 sector)
{
	unsigned int ci, i;

	return position(index, sector, &ci, &i) ? &index->chunk[ci]->e[i] : NULL;
}

int dmr_edit_begin(struct dmr_edit *edit, const struct dmr_index *old,
		   unsigned int changes)
{
	/* A change splits at most one chunk. */
	edit->index = dmr_index_alloc(old->nr + changes + 1);
	if (!edit->index)
		return -ENOMEM;
	edit->dead = NULL;
	edit->index->nr = old->nr;
	edit->index->extents = old->extents;
	memcpy(edit->index->chunk, old->chunk, old->nr * sizeof(old->chunk[0]));
	return 0;
}

static struct dmr_chunk *writable(struct dmr_edit *edit, unsigned int ci)
{
	struct dmr_chunk *old = edit->index->chunk[ci], *c;

	if (old->fresh)
		return old;
	c = kmemdup(old, sizeof(*old), GFP_KERNEL);
	if (!c)
		return NULL;
	c->fresh = true;
	old->next = edit->dead;
	edit->dead = old;
	edit->index->chunk[ci] = c;
	return c;
}

static void add_chunk(struct dmr_index *index, unsigned int ci,
		      struct dmr_chunk *c)
{
	memmove(&index->chunk[ci + 1], &index->chunk[ci],
		(index->nr - ci) * sizeof(index->chunk[0]));
	index->chunk[ci] = c;
	index->nr++;
}

static int insert(struct dmr_edit *edit, unsigned int ci, unsigned int i,
		  const struct dm_remap_extent *ext)
{
	struct dmr_index *index = edit->index;
	struct dmr_chunk *c, *half;

	if (index->extents >= DM_REMAP_MAX_EXTENTS)
		return -ENOSPC;
	if (ci == index->nr && ci) {
		ci--;
		i = index->chunk[ci]->nr;
	}
	if (!index->nr || index->chunk[ci]->nr == DMR_CHUNK) {
		half = kzalloc(sizeof(*half), GFP_KERNEL);
		if (!half)
			return -ENOMEM;
		half->fresh = true;
		if (!index->nr) {
			add_chunk(index, 0, half);
		} else {
			c = writable(edit, ci);
			if (!c) {
				kfree(half);
				return -ENOMEM;
			}
			/* Appending is what a load does: leave chunks full. */
			half->nr = i == DMR_CHUNK ? 0 : DMR_CHUNK / 2;
			c->nr -= half->nr;
			memcpy(half->e, &c->e[c->nr], half->nr * sizeof(c->e[0]));
			add_chunk(index, ci + 1, half);
			if (i > c->nr || !half->nr) {
				ci++;
				i -= c->nr;
			}
		}
	}
	c = writable(edit, ci);
	if (!c)
		return -ENOMEM;
	memmove(&c->e[i + 1], &c->e[i], (c->nr - i) * sizeof(c->e[0]));
	c->e[i] = *ext;
	c->nr++;
	index->extents++;
	return 0;
}

static void drop_entry(struct dmr_edit *edit, unsigned int ci, unsigned int i)
{
	struct dmr_index *index = edit->index;
	struct dmr_chunk *c = index->chunk[ci];

	c->nr--;
	index->extents--;
	memmove(&c->e[i], &c->e[i + 1], (c->nr - i) * sizeof(c->e[0]));
	if (c->nr)
		return;
	kfree(c);
	index->nr--;
	memmove(&index->chunk[ci], &index->chunk[ci + 1],
		(index->nr - ci) * sizeof(index->chunk[0]));
}

static void trim_front(struct dm_remap_extent *e, u64 start)
{
	if (e->kind != DM_REMAP_POISON_DATA)
		e->slot += start - e->start;
	e->len -= start - e->start;
	e->start = start;
}

/* The range becomes @ext; of kind DIRECT, it becomes no extent at all. */
int dmr_edit_set(struct dmr_edit *edit, const struct dm_remap_extent *ext)
{
	u64 start = ext->start, end = ext_end(ext);
	unsigned int ci, i;

	while (position(edit->index, start, &ci, &i)) {
		struct dm_remap_extent *e = &edit->index->chunk[ci]->e[i];
		struct dm_remap_extent rest = *e;
		struct dmr_chunk *c;
		int r;

		if (e->start >= end)
			break;
		c = writable(edit, ci);
		if (!c)
			return -ENOMEM;
		e = &c->e[i];
		if (e->start >= start && ext_end(e) <= end) {
			drop_entry(edit, ci, i);
			continue;
		}
		if (e->start >= start) {
			trim_front(e, end);
			break;
		}
		e->len = start - e->start;
		if (ext_end(&rest) > end) {
			trim_front(&rest, end);
			r = insert(edit, ci, i + 1, &rest);
			if (r)
				return r;
			break;
		}
	}
	if (ext->kind == DM_REMAP_DIRECT)
		return 0;
	position(edit->index, start, &ci, &i);
	return insert(edit, ci, i, ext);
}

void dmr_edit_commit(struct dmr_edit *edit)
{
	unsigned int i;

	for (i = 0; i < edit->index->nr; i++)
		edit->index->chunk[i]->fresh = false;
}

void dmr_edit_abort(struct dmr_edit *edit)
{
	unsigned int i;

	for (i = 0; i < edit->index->nr; i++)
		if (edit->index->chunk[i]->fresh)
			kfree(edit->index->chunk[i]);
	kvfree(edit->index);
}
