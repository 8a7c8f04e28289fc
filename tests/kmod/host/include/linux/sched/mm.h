/* SPDX-License-Identifier: GPL-2.0-only */
/* Sections in which no allocation may do I/O. */
#ifndef HOST_SCHED_MM_H
#define HOST_SCHED_MM_H

#include <linux/slab.h>

static inline unsigned int memalloc_noio_save(void)
{
	return host_noio++;
}

static inline void memalloc_noio_restore(unsigned int was)
{
	host_noio = was;
}

#endif
