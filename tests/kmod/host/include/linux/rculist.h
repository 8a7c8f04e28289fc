/* SPDX-License-Identifier: GPL-2.0-only */
/* Doubly linked lists, with those that readers walk under RCU. */
#ifndef HOST_RCULIST_H
#define HOST_RCULIST_H

#include <linux/rcupdate.h>
#include <linux/types.h>

struct list_head { struct list_head *next, *prev; };

#define LIST_HEAD(name) struct list_head name = { &(name), &(name) }

static inline void INIT_LIST_HEAD(struct list_head *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}

static inline void list_add_tail(struct list_head *n, struct list_head *l)
{
	n->next = l;
	n->prev = l->prev;
	l->prev->next = n;
	l->prev = n;
}

static inline void list_unlink(struct list_head *n)
{
	if (n->next->prev != n || n->prev->next != n)
		host_bug("a list is broken");
	n->next->prev = n->prev;
	n->prev->next = n->next;
}

static inline void list_del(struct list_head *n)
{
	list_unlink(n);
	n->next = n->prev = NULL;
}

static inline void list_del_init(struct list_head *n)
{
	list_unlink(n);
	INIT_LIST_HEAD(n);
}

static inline void list_move_tail(struct list_head *n, struct list_head *l)
{
	list_unlink(n);
	list_add_tail(n, l);
}

static inline void list_splice_tail(struct list_head *from, struct list_head *l)
{
	if (list_empty(from))
		return;
	from->next->prev = l->prev;
	l->prev->next = from->next;
	from->prev->next = l;
	l->prev = from->prev;
}

static inline void list_splice_tail_init(struct list_head *from, struct list_head *l)
{
	list_splice_tail(from, l);
	INIT_LIST_HEAD(from);
}

/* In front of what is there, which kmod never has. */
static inline void list_splice_init(struct list_head *from, struct list_head *l)
{
	if (!list_empty(l))
		host_bug("only into an empty list");
	list_splice_tail_init(from, l);
}

static inline size_t list_count_nodes(struct list_head *l)
{
	size_t n = 0;

	for (struct list_head *at = l->next; at != l; at = at->next)
		n++;
	return n;
}

#define list_entry(p, type, member) container_of(p, type, member)
#define list_first_entry_or_null(l, type, member) \
	(list_empty(l) ? NULL : list_entry((l)->next, type, member))
#define list_for_each_entry(p, l, member) \
	for ((p) = list_entry((l)->next, __typeof__(*(p)), member); &(p)->member != (l); \
	     (p) = list_entry((p)->member.next, __typeof__(*(p)), member))
#define list_for_each_entry_safe(p, n, l, member) \
	for ((p) = list_entry((l)->next, __typeof__(*(p)), member), \
	     (n) = list_entry((p)->member.next, __typeof__(*(p)), member); &(p)->member != (l); \
	     (p) = (n), (n) = list_entry((n)->member.next, __typeof__(*(n)), member))

#define list_add_tail_rcu list_add_tail

/* A reader may still stand on it: it keeps its way on. */
static inline void list_del_rcu(struct list_head *n)
{
	list_unlink(n);
	n->prev = NULL;
}

#define list_for_each_entry_rcu(p, l, member) \
	for (host_reads(), (p) = list_entry((l)->next, __typeof__(*(p)), member); \
	     &(p)->member != (l); (p) = list_entry((p)->member.next, __typeof__(*(p)), member))

#endif
