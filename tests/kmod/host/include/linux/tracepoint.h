/* SPDX-License-Identifier: GPL-2.0-only */
/* Nobody listens to tracepoints. */
#define TP_PROTO(...) __VA_ARGS__
#define TRACE_EVENT(name, proto, ...) static inline void trace_##name(proto) {} struct host_nothing
