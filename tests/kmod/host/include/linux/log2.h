/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef HOST_LOG2_H
#define HOST_LOG2_H

#include <linux/types.h>

static inline bool is_power_of_2(u64 n)
{
	return n && !(n & (n - 1));
}

#endif
