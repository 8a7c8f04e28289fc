/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_remap

#if !defined(DMR_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DMR_TRACE_H

#include <linux/tracepoint.h>

/* A fault or fence has come to a state: open, busy, tried, placed, installed, released, failed... */
TRACE_EVENT(dm_remap_fault,
	TP_PROTO(const struct dmr_fault *f, const char *state),
	TP_ARGS(f, state),
	TP_STRUCT__entry(
		__field(u32, instance)
		__field(u64, id)
		__field(u64, start)
		__field(u64, len)
		__array(char, state, 16)
	),
	TP_fast_assign(
		__entry->instance = f->inst->id;
		__entry->id = f->id;
		__entry->start = f->start;
		__entry->len = f->len;
		strscpy(__entry->state, state, sizeof(__entry->state));
	),
	TP_printk("instance %u fault %llu sectors %llu+%llu %s", __entry->instance, __entry->id,
		  __entry->start, __entry->len, __entry->state)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
