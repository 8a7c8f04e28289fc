// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mistake of each kind that the debug kernel's checkers are there for, made on purpose when the
 * module is loaded: what a checker does not report here, it would not report elsewhere.
 */
#include <linux/debug_locks.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *kind = "";
module_param(kind, charp, 0444);
MODULE_PARM_DESC(kind, "Which mistake to make");

static void *allocated(void)
{
	void *memory = kmalloc(100, GFP_KERNEL);

	/* The compiler must not see what is done with it. */
	OPTIMIZER_HIDE_VAR(memory);
	return memory;
}

static void leak(void)
{
	int i;

	/* A pointer to the last may be left on a stack, where kmemleak takes it for a use. */
	for (i = 0; i < 16; i++)
		allocated();
}

static void use_after_free(void)
{
	char *memory = allocated();

	kfree(memory);
	OPTIMIZER_HIDE_VAR(memory);
	if (memory)
		WRITE_ONCE(memory[10], 1);
}

static void out_of_bounds(void)
{
	char *memory = allocated();

	if (memory)
		WRITE_ONCE(memory[100], 1);
	kfree(memory);
}

static DEFINE_SPINLOCK(spin);

static void sleep_in_atomic(void)
{
	spin_lock(&spin);
	kfree(allocated());
	spin_unlock(&spin);
}

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static void lock_order(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

/* Nothing is reported, but from here on nothing would be. */
static void switch_lockdep_off(void)
{
	debug_locks_off();
}

static int __rcu *shared;

static void rcu_without_lock(void)
{
	kfree(rcu_dereference(shared));
}

static void expired(struct timer_list *timer)
{
}

static void free_active_timer(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return;
	timer_setup(timer, expired, 0);
	mod_timer(timer, jiffies + 3600 * HZ);
	kfree(timer);
}

static const struct {
	const char *kind;
	void (*make)(void);
} mistakes[] = {
	{ "leak", leak },
	{ "use-after-free", use_after_free },
	{ "out-of-bounds", out_of_bounds },
	{ "sleep-in-atomic", sleep_in_atomic },
	{ "lock-order", lock_order },
	{ "lockdep-off", switch_lockdep_off },
	{ "rcu-without-lock", rcu_without_lock },
	{ "free-active-timer", free_active_timer },
};

static int __init mistakes_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mistakes); i++)
		if (!strcmp(kind, mistakes[i].kind)) {
			mistakes[i].make();
			return 0;
		}
	return -EINVAL;
}

static void __exit mistakes_exit(void)
{
}

module_init(mistakes_init);
module_exit(mistakes_exit);

MODULE_DESCRIPTION("Mistakes made on purpose, for tests of a debug kernel's checkers");
MODULE_AUTHOR("dm-remap maintainers");
MODULE_LICENSE("GPL");
