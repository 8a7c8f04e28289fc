/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locks of one thread: nothing is ever waited for, so that a lock which is taken already is a deadlock.
 * What may sleep is refused where sleeping is.
 */
#ifndef HOST_LOCK_H
#define HOST_LOCK_H

#include <linux/types.h>

struct mutex { bool held; };
typedef struct { bool held; } spinlock_t;

#define DEFINE_MUTEX(name) struct mutex name

/* Spinlocks held and RCU sections open; whether an interrupt is being served. */
extern int host_atomic;
extern bool host_interrupt;

#define in_task() (!host_interrupt)

static inline void host_might_sleep(void)
{
	if (host_atomic || host_interrupt)
		host_bug("sleeping where that is forbidden");
}

static inline void mutex_init(struct mutex *m)
{
	m->held = false;
}

static inline void mutex_lock(struct mutex *m)
{
	host_might_sleep();
	if (m->held)
		host_bug("a mutex is taken twice");
	m->held = true;
}

static inline void mutex_unlock(struct mutex *m)
{
	if (!m->held)
		host_bug("a mutex is not held");
	m->held = false;
}

static inline void spin_lock_init(spinlock_t *l)
{
	l->held = false;
}

static inline void spin_lock_irqsave_(spinlock_t *l)
{
	if (l->held)
		host_bug("a spinlock is taken twice");
	l->held = true;
	host_atomic++;
}

static inline void spin_unlock_irqrestore_(spinlock_t *l)
{
	if (!l->held)
		host_bug("a spinlock is not held");
	l->held = false;
	host_atomic--;
}

#define spin_lock_irqsave(l, flags) ((flags) = 0, spin_lock_irqsave_(l))
#define spin_unlock_irqrestore(l, flags) ((void)(flags), spin_unlock_irqrestore_(l))

/* Its end lets interrupts in, which an interrupt must not. */
static inline void spin_lock_irq(spinlock_t *l)
{
	if (host_interrupt)
		host_bug("spin_lock_irq() in an interrupt");
	spin_lock_irqsave_(l);
}

#define spin_unlock_irq(l) spin_unlock_irqrestore_(l)

#endif
