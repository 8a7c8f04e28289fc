/* SPDX-License-Identifier: GPL-2.0-only */
/* Bits, and maps of them. */
#ifndef HOST_BITMAP_H
#define HOST_BITMAP_H

#include <linux/types.h>

#define BIT(n) (1UL << (n))
#define GENMASK(high, low) ((~0UL >> (63 - (high))) & (~0UL << (low)))
#define GENMASK_ULL(high, low) GENMASK(high, low)
#define BITS_TO_LONGS(n) (((n) + 63) / 64)

static inline bool test_bit(u64 n, const unsigned long *map)
{
	return map[n / 64] >> (n % 64) & 1;
}

static inline unsigned int __fls(unsigned long bits)
{
	return 63 - __builtin_clzl(bits);
}

static inline void set_bit(u64 n, unsigned long *map)
{
	map[n / 64] |= BIT(n % 64);
}

static inline void clear_bit(u64 n, unsigned long *map)
{
	map[n / 64] &= ~BIT(n % 64);
}

static inline void assign_bit(u64 n, unsigned long *map, bool set)
{
	(set ? set_bit : clear_bit)(n, map);
}

/* The kernel's take an unsigned int. */
static inline void bitmap_set(unsigned long *map, unsigned int first, unsigned int n)
{
	while (n--)
		set_bit(first++, map);
}

static inline void bitmap_clear(unsigned long *map, unsigned int first, unsigned int n)
{
	while (n--)
		clear_bit(first++, map);
}

static inline unsigned long find_next(const unsigned long *map, unsigned long size,
				      unsigned long from, bool set)
{
	while (from < size && test_bit(from, map) != set)
		from++;
	return from < size ? from : size;
}

#define find_next_bit(map, size, from) find_next(map, size, from, true)
#define find_next_zero_bit(map, size, from) find_next(map, size, from, false)

#endif
