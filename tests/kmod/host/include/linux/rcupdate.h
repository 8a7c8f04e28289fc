/* SPDX-License-Identifier: GPL-2.0-only */
/* RCU: a grace period ends when the host lets it, between two works; see time.c. */
#ifndef HOST_RCUPDATE_H
#define HOST_RCUPDATE_H

#include <linux/lock.h>

extern int host_readers;
extern unsigned long host_grace_periods;

static inline void rcu_read_lock(void)
{
	host_readers++;
	host_atomic++;
}

static inline void rcu_read_unlock(void)
{
	host_readers--;
	host_atomic--;
}

static inline void host_reads(void)
{
	if (!host_readers)
		host_bug("what RCU protects is read outside of it");
}

static inline unsigned long get_state_synchronize_rcu(void)
{
	return host_grace_periods + 1;
}

static inline unsigned long get_completed_synchronize_rcu(void)
{
	return host_grace_periods;
}

static inline bool poll_state_synchronize_rcu(unsigned long cookie)
{
	return host_grace_periods >= cookie;
}

static inline void synchronize_rcu_expedited(void)
{
	host_might_sleep();
	host_grace_periods++;
}

static inline void cond_synchronize_rcu_expedited(unsigned long cookie)
{
	if (!poll_state_synchronize_rcu(cookie))
		synchronize_rcu_expedited();
}

#endif
