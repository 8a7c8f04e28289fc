// SPDX-License-Identifier: GPL-2.0-only
/* The instances: what consecutive tables of one mapped device on the same disks share. */
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "shim.h"

DEFINE_MUTEX(dmr_instances_lock);
LIST_HEAD(dmr_instances);
static u32 dmr_next_instance = 1;

static void instance_free(struct kref *kref)
{
	struct dmr_instance *inst = container_of(kref, struct dmr_instance, kref);
	struct dmr_fault *f;

	/* A netlink request may have queued work after the last table left. */
	cancel_work_sync(&inst->work);
	cancel_work_sync(&inst->send);
	while (flush_rcu_work(&inst->listing))
		;
	cancel_delayed_work_sync(&inst->deadlines);
	WRITE_ONCE(inst->bell, false);
	cancel_delayed_work_sync(&inst->doorbell);
	list_for_each_entry(f, &inst->faults, node) {
		kvfree(f->pieces);
		atomic_dec(&dmr_live_faults);
	}
	mtree_destroy(&inst->table);
	kvfree(inst->pool);
	kvfree(inst->used);
	kvfree(inst->retired);
	bioset_exit(&inst->clones);
	if (inst->wq)
		destroy_workqueue(inst->wq);
	atomic_dec(&dmr_live_instances);
	kfree(inst);
}

void dmr_instance_put(struct dmr_instance *inst)
{
	kref_put(&inst->kref, instance_free);
}

struct dmr_instance *dmr_instance_get(u32 id, struct netlink_ext_ack *extack)
{
	struct dmr_instance *inst, *found = ERR_PTR(-ESRCH);

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node)
		if (inst->id == id) {
			kref_get(&inst->kref);
			found = inst;
		}
	mutex_unlock(&dmr_instances_lock);
	if (IS_ERR(found))
		NL_SET_ERR_MSG(extack, "no such instance");
	return found;
}

static struct dmr_instance *instance_new(struct dmr_target *t, struct mapped_device *md)
{
	struct dmr_instance *inst = kzalloc(sizeof(*inst), GFP_KERNEL);
	unsigned int i;

	if (!inst)
		return NULL;
	atomic_inc(&dmr_live_instances);
	kref_init(&inst->kref);
	mt_init_flags(&inst->table, MT_FLAGS_USE_RCU);
	mutex_init(&inst->mutex);
	spin_lock_init(&inst->lock);
	INIT_LIST_HEAD(&inst->faults);
	INIT_LIST_HEAD(&inst->free_faults);
	INIT_LIST_HEAD(&inst->parked);
	INIT_LIST_HEAD(&inst->incoming);
	INIT_LIST_HEAD(&inst->go);
	INIT_WORK(&inst->work, dmr_work);
	INIT_WORK(&inst->send, dmr_send_work);
	INIT_RCU_WORK(&inst->listing, dmr_listing_work);
	INIT_DELAYED_WORK(&inst->deadlines, dmr_deadline_work);
	INIT_DELAYED_WORK(&inst->doorbell, dmr_doorbell_work);
	inst->md = md;
	inst->dm_dev = disk_devt(dm_disk(md));
	inst->data_dev = t->data->bdev->bd_dev;
	inst->spare_dev = t->spare->bdev->bd_dev;
	inst->sectors = t->ti->len;
	inst->spare_sectors = bdev_nr_sectors(t->spare->bdev);
	inst->block = dmr_block(t);
	inst->next_fault = 1;
	inst->gen = 1;
	inst->slow = BIT(DMR_SLOW_UNREADY);
	inst->pool = kvcalloc(DMR_MAX_FAULTS, sizeof(*inst->pool), GFP_KERNEL);
	inst->wq = alloc_workqueue("dm_remap", WQ_MEM_RECLAIM, WQ_MAX_ACTIVE);
	if (!inst->pool || !inst->wq || dmr_clones_init(inst)) {
		dmr_instance_put(inst);
		return NULL;
	}
	for (i = 0; i < DMR_MAX_FAULTS; i++) {
		inst->pool[i].cookie = get_completed_synchronize_rcu();
		list_add_tail(&inst->pool[i].spare, &inst->free_faults);
	}
	inst->id = dmr_next_instance++;
	list_add_tail(&inst->node, &dmr_instances);
	return inst;
}

static bool shares_disk(const struct dmr_instance *inst, dev_t data, dev_t spare)
{
	return inst->spare_dev == spare || inst->spare_dev == data ||
	       inst->data_dev == spare || inst->data_dev == data;
}

/* The instance of this mapped device on these disks; made by its first table. */
int dmr_instance_join(struct dmr_target *t)
{
	struct mapped_device *md = dm_table_get_md(t->ti->table);
	dev_t data = t->data->bdev->bd_dev, spare = t->spare->bdev->bd_dev;
	/* A daemon's request waits for this lock: nothing under it may wait for I/O. */
	unsigned int noio = memalloc_noio_save();
	struct dmr_instance *inst;
	int r = 0;

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node) {
		if (inst->md == md && inst->data_dev == data && inst->spare_dev == spare) {
			if (inst->sectors == t->ti->len)
				goto found;
			t->ti->error = "Length differs from the one this device has";
			r = -EBUSY;
			goto out;
		}
		if (inst->md != md && shares_disk(inst, data, spare)) {
			t->ti->error = "Data or spare is used by another mapped device";
			r = -EBUSY;
			goto out;
		}
	}
	inst = instance_new(t, md);
	if (!inst) {
		t->ti->error = "Cannot allocate instance";
		r = -ENOMEM;
		goto out;
	}
found:
	inst->users++;
	t->inst = inst;
out:
	mutex_unlock(&dmr_instances_lock);
	memalloc_noio_restore(noio);
	return r;
}

void dmr_instance_leave(struct dmr_instance *inst)
{
	bool last;

	mutex_lock(&dmr_instances_lock);
	last = !--inst->users;
	if (last)
		list_del(&inst->node);
	mutex_unlock(&dmr_instances_lock);
	if (last)
		dmr_instance_put(inst);
}
