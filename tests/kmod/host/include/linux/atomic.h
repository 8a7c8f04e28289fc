/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters, and counted references. */
#ifndef HOST_ATOMIC_H
#define HOST_ATOMIC_H

#include <linux/types.h>

typedef struct { int counter; } atomic_t;
typedef struct { s64 counter; } atomic64_t;

#define atomic_inc(v) ((void)(v)->counter++)
#define atomic_dec(v) ((void)(v)->counter--)
#define atomic_set(v, n) ((void)((v)->counter = (n)))
#define atomic_dec_and_test(v) (!--(v)->counter)
#define atomic64_inc(v) ((void)(v)->counter++)
#define atomic64_read(v) ((v)->counter)

struct kref { int count; };

static inline void kref_init(struct kref *kref)
{
	kref->count = 1;
}

static inline void kref_get(struct kref *kref)
{
	if (kref->count++ <= 0)
		host_bug("a reference to what is gone");
}

static inline bool kref_get_unless_zero(struct kref *kref)
{
	return kref->count && kref->count++;
}

static inline void kref_put(struct kref *kref, void (*release)(struct kref *kref))
{
	if (!--kref->count)
		release(kref);
}

#endif
