/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's integers, macros and barriers. There is one thread, so that a barrier is nothing. */
#ifndef HOST_TYPES_H
#define HOST_TYPES_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef unsigned long long u64, __u64;
typedef long long s64;
typedef u64 sector_t;
typedef unsigned int gfp_t;

/* As in the kernel, not as in the C library. */
#undef MAJOR
#undef MINOR
#undef MKDEV
#define MKDEV(major, minor) ((dev_t)(major) << 20 | (minor))
#define MAJOR(dev) ((u32)((dev) >> 20))
#define MINOR(dev) ((u32)((dev) & ((1U << 20) - 1)))

#define BITS_PER_LONG 64
#define SZ_32K 0x8000
#define SECTOR_SHIFT 9

#define likely(x) (x)
#define unlikely(x) (x)
#define __init
#define __exit
#define __ro_after_init

#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#define smp_load_acquire(p) READ_ONCE(*(p))
#define smp_store_release(p, value) WRITE_ONCE(*(p), value)
#define smp_store_mb(x, value) WRITE_ONCE(x, value)
#define smp_wmb() ((void)0)
#define smp_rmb() ((void)0)
#define smp_mb__before_atomic() ((void)0)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max_t(type, a, b) max((type)(a), (type)(b))
#define min_t(type, a, b) min((type)(a), (type)(b))
/* Of powers of two. */
#define round_up(x, unit) (((x) + (unit) - 1) & ~((__typeof__(x))(unit) - 1))
#define round_down(x, unit) ((x) & ~((__typeof__(x))(unit) - 1))

#define ERR_PTR(error) ((void *)(long)(error))
#define PTR_ERR(p) ((long)(p))
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095L)

static inline s64 sign_extend64(u64 value, int index)
{
	return (s64)(value << (63 - index)) >> (63 - index);
}

static inline const void *memchr_inv(const void *p, int c, size_t n)
{
	for (const u8 *b = p; n--; b++)
		if (*b != (u8)c)
			return b;
	return NULL;
}

/* A mistake that the kernel would not survive, or that lockdep would report. */
#define host_bug(text) \
	(fprintf(stderr, "BUG: %s (%s:%d)\n", text, __FILE__, __LINE__), abort())

#endif
