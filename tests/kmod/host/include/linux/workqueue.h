/* SPDX-License-Identifier: GPL-2.0-only */
/* Works, and time, in which they happen: one event after the other; see time.c. */
#ifndef HOST_WORKQUEUE_H
#define HOST_WORKQUEUE_H

#include <linux/rculist.h>

/* A jiffy is a microsecond. */
#define HZ 1000000UL
#define jiffies host_now
#define msecs_to_jiffies(ms) ((unsigned long)(ms) * 1000)
#define jiffies_to_msecs(j) ((unsigned int)((j) / 1000))
#define time_before(a, b) ((long)((a) - (b)) < 0)
#define time_after(a, b) time_before(b, a)

extern unsigned long host_now;

struct host_event {
	struct list_head node;		/* while it is due */
	unsigned long at;
	void (*happen)(struct host_event *event);
	bool due;
};

void host_event_in(struct host_event *event, unsigned long after);
void host_event_cancel(struct host_event *event);
void host_run(unsigned long us);

#define WQ_MEM_RECLAIM 1
#define WQ_UNBOUND 2
#define WQ_MAX_ACTIVE 512

struct workqueue_struct { unsigned int flags; };
struct work_struct { struct host_event event; void (*func)(struct work_struct *work); };
struct delayed_work { struct work_struct work; };
struct rcu_work { struct work_struct work; };

void host_work_happens(struct host_event *event);
void host_rcu_work_happens(struct host_event *event);

#define INIT_WORK(w, f) \
	(*(w) = (struct work_struct){ .event.happen = host_work_happens, .func = (f) })
#define INIT_DELAYED_WORK(w, f) INIT_WORK(&(w)->work, f)
#define INIT_RCU_WORK(w, f) \
	(*(w) = (struct rcu_work){ .work = { .event.happen = host_rcu_work_happens, .func = (f) } })
#define to_rcu_work(w) container_of(w, struct rcu_work, work)

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int active);
void destroy_workqueue(struct workqueue_struct *wq);
void flush_workqueue(struct workqueue_struct *wq);
void cancel_work_sync(struct work_struct *work);
bool queue_work(struct workqueue_struct *wq, struct work_struct *work);
bool queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work, unsigned long after);
bool mod_delayed_work(struct workqueue_struct *wq, struct delayed_work *work, unsigned long after);
bool queue_rcu_work(struct workqueue_struct *wq, struct rcu_work *work);
bool flush_rcu_work(struct rcu_work *work);

#define cancel_delayed_work_sync(w) cancel_work_sync(&(w)->work)

#endif
