// SPDX-License-Identifier: GPL-2.0-only
/* Which allocation fails, and the ranges of the maple tree. */
#include "host.h"

unsigned int host_memory_fails;
bool host_request;
int host_noio;

bool host_no_memory(gfp_t gfp)
{
	if (gfp != GFP_ATOMIC)
		host_might_sleep();
	if (host_request && !host_noio)
		host_bug("a request allocates where that may do I/O");
	if (host_request && gfp != GFP_ATOMIC && !(gfp & __GFP_NORETRY))
		host_bug("a request waits for memory with the mutex that deadlines need");
	return host_request && host_memory_fails && !--host_memory_fails;
}

/* The first range that ends at or after @from. */
static size_t at(const struct maple_tree *mt, unsigned long from)
{
	size_t low = 0, high = mt->nr;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (mt->ranges[middle].last < from)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void *mas_find(struct ma_state *mas, unsigned long max)
{
	const struct maple_tree *mt = mas->tree;
	unsigned long from = mas->begun ? mas->last + 1 : mas->index;
	size_t i;

	host_reads();
	/* The kernel's walks round until the writer, which is below it on the stack, is done. */
	if (mt->storing)
		host_bug("a lookup interrupts a store");
	if (from > max || (mas->begun && !from))
		return NULL;
	mas->begun = true;
	i = at(mt, from);
	if (i == mt->nr || mt->ranges[i].first > max)
		return NULL;
	mas->index = mt->ranges[i].first;
	mas->last = mt->ranges[i].last;
	return mt->ranges[i].value;
}

static void put(struct maple_tree *mt, unsigned long first, unsigned long last, void *value)
{
	size_t from = at(mt, first), to = at(mt, last), n = 0;
	struct host_range new[3];

	if (from < mt->nr && mt->ranges[from].first < first)
		new[n++] = (struct host_range){ mt->ranges[from].first, first - 1,
						mt->ranges[from].value };
	if (value)
		new[n++] = (struct host_range){ first, last, value };
	if (to < mt->nr && mt->ranges[to].first <= last) {
		if (mt->ranges[to].last > last)
			new[n++] = (struct host_range){ last + 1, mt->ranges[to].last,
							mt->ranges[to].value };
		to++;
	}
	if (mt->nr + 2 > mt->room) {
		mt->room = 2 * mt->room + 16;
		mt->ranges = realloc(mt->ranges, mt->room * sizeof(*mt->ranges));
	}
	memmove(mt->ranges + from + n, mt->ranges + to, (mt->nr - to) * sizeof(*mt->ranges));
	memcpy(mt->ranges + from, new, n * sizeof(*new));
	mt->nr = mt->nr - (to - from) + n;
}

int mtree_store_range(struct maple_tree *mt, unsigned long first, unsigned long last, void *value,
		      gfp_t gfp)
{
	if (!mt->rcu)
		host_bug("readers of this tree use RCU");
	if (first > last || !((unsigned long)value & 1 || !value))
		host_bug("no range, or no value");
	if (host_no_memory(gfp))
		return -ENOMEM;
	mt->storing = true;
	host_interrupts();
	mt->storing = false;
	put(mt, first, last, value);
	return 0;
}

void mtree_destroy(struct maple_tree *mt)
{
	free(mt->ranges);
	*mt = (struct maple_tree){ .rcu = false };
}
