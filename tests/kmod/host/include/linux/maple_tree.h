/* SPDX-License-Identifier: GPL-2.0-only */
/* Ranges to values, as the maple tree keeps them: neighbours with one value stay two. See maple.c. */
#ifndef HOST_MAPLE_TREE_H
#define HOST_MAPLE_TREE_H

#include <linux/bitmap.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#define MT_FLAGS_USE_RCU 1

struct host_range { unsigned long first, last; void *value; };
struct maple_tree { struct host_range *ranges; size_t nr, room; bool storing, rcu; };
struct ma_state { struct maple_tree *tree; unsigned long index, last; bool begun; };

#define MA_STATE(name, mt, from, to) \
	struct ma_state name = { .tree = (mt), .index = (from), .last = (to) }

void *mas_find(struct ma_state *mas, unsigned long max);
int mtree_store_range(struct maple_tree *mt, unsigned long first, unsigned long last, void *value,
		      gfp_t gfp);
void mtree_destroy(struct maple_tree *mt);

static inline void mt_init_flags(struct maple_tree *mt, unsigned int flags)
{
	*mt = (struct maple_tree){ .rcu = flags & MT_FLAGS_USE_RCU };
}

static inline void mt_set_in_rcu(struct maple_tree *mt)
{
	mt->rcu = true;
}

static inline void mt_clear_in_rcu(struct maple_tree *mt)
{
	mt->rcu = false;
}

static inline void mas_set(struct ma_state *mas, unsigned long index)
{
	mas->index = mas->last = index;
	mas->begun = false;
}

static inline void *xa_mk_value(unsigned long value)
{
	return (void *)(value << 1 | 1);
}

static inline unsigned long xa_to_value(const void *p)
{
	return (unsigned long)p >> 1;
}

#endif
