// SPDX-License-Identifier: GPL-2.0-only
/* Time, in microseconds, and what is to happen in it: in order of time, then in the order it was asked for. */
#include "host.h"

unsigned long host_now = 1000000;
unsigned long host_grace_periods;
int host_readers;
int host_atomic;
bool host_interrupt;

static LIST_HEAD(events);

void host_event_in(struct host_event *event, unsigned long after)
{
	struct host_event *at;

	event->at = host_now + after;
	event->due = true;
	list_for_each_entry(at, &events, node)
		if (at->at > event->at)
			break;
	list_add_tail(&event->node, &at->node);
}

void host_event_cancel(struct host_event *event)
{
	if (event->due)
		list_del(&event->node);
	event->due = false;
}

void host_run(unsigned long us)
{
	unsigned long until = host_now + us;
	struct host_event *event;

	while ((event = list_first_entry_or_null(&events, struct host_event, node)) &&
	       event->at <= until) {
		host_now = event->at;
		host_event_cancel(event);
		event->happen(event);
		if (host_atomic)
			host_bug("a lock or an RCU section outlives its work");
	}
	host_now = until;
}

/* A work begins a microsecond after it was queued. */
#define SOON 1

void host_work_happens(struct host_event *event)
{
	struct work_struct *work = container_of(event, struct work_struct, event);

	work->func(work);
}

/* Nobody reads between two events: that is a grace period. */
void host_rcu_work_happens(struct host_event *event)
{
	host_grace_periods++;
	host_work_happens(event);
}

static bool queue(struct work_struct *work, unsigned long after)
{
	if (work->event.due)
		return false;
	host_event_in(&work->event, after);
	return true;
}

bool queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	return queue(work, SOON);
}

bool queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work, unsigned long after)
{
	return queue(&work->work, max(after, SOON));
}

bool mod_delayed_work(struct workqueue_struct *wq, struct delayed_work *work, unsigned long after)
{
	host_event_cancel(&work->work.event);
	return queue(&work->work, max(after, SOON));
}

bool queue_rcu_work(struct workqueue_struct *wq, struct rcu_work *work)
{
	return queue(&work->work, SOON);
}

bool flush_rcu_work(struct rcu_work *work)
{
	bool due = work->work.event.due;

	if (due) {
		host_event_cancel(&work->work.event);
		host_rcu_work_happens(&work->work.event);
	}
	return due;
}

void cancel_work_sync(struct work_struct *work)
{
	host_might_sleep();
	host_event_cancel(&work->event);
}

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int active)
{
	struct workqueue_struct *wq = calloc(1, sizeof(*wq));

	wq->flags = flags;
	return wq;
}

void destroy_workqueue(struct workqueue_struct *wq)
{
	free(wq);
}

/* What is queued without a delay is done first. */
void flush_workqueue(struct workqueue_struct *wq)
{
	host_might_sleep();
	host_run(SOON);
}
