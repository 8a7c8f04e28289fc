/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory. The host can let one allocation of a request fail. */
#ifndef HOST_SLAB_H
#define HOST_SLAB_H

#include <linux/lock.h>

#define GFP_ATOMIC 1U
#define GFP_NOIO 2U
#define GFP_KERNEL 3U
#define __GFP_NORETRY 4U
#define __GFP_NOWARN 8U

/* Whether an allocation, of the kind that may fail, does. */
bool host_no_memory(gfp_t gfp);
/* In a memalloc_noio section. */
extern int host_noio;

static inline void *kzalloc(size_t size, gfp_t gfp)
{
	return host_no_memory(gfp) ? NULL : calloc(1, size);
}

static inline void *kvcalloc(size_t n, size_t size, gfp_t gfp)
{
	return host_no_memory(gfp) ? NULL : calloc(n, size);
}

#define kfree(p) free((void *)(p))
#define kvfree(p) (host_might_sleep(), free((void *)(p)))

#endif
