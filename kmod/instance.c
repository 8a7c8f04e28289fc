// SPDX-License-Identifier: GPL-2.0-only
/* The instances: what consecutive tables of one mapped device on the same disks share. */
#include "shim.h"

DEFINE_MUTEX(dmr_instances_lock);
LIST_HEAD(dmr_instances);
static u32 dmr_next_instance = 1;

void dmr_instance_free(struct kref *kref)
{
	struct dmr_instance *inst = container_of(kref, struct dmr_instance, kref);
	struct dmr_fault *f;

	/* A netlink request may have queued work after the last table left. */
	if (inst->wq)
		flush_workqueue(inst->wq);
	if (inst->disk_wq)
		destroy_workqueue(inst->disk_wq);
	while (flush_rcu_work(&inst->listing))
		;
	cancel_delayed_work_sync(&inst->deadlines);
	WRITE_ONCE(inst->bell, false);
	cancel_delayed_work_sync(&inst->doorbell);
	list_for_each_entry(f, &inst->faults, node) {
		kfree(f->pieces);
		atomic_dec(&dmr_live_faults);
	}
	dmr_table_clear(inst);
	kvfree(inst->pool);
	kvfree(inst->used);
	bioset_exit(&inst->clones);
	if (inst->wq)
		destroy_workqueue(inst->wq);
	atomic_dec(&dmr_live_instances);
	kfree(inst);
}

/* The one that a request names. */
struct dmr_instance *dmr_instance_get(struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	struct dmr_instance *inst, *found = ERR_PTR(-ESRCH);
	u32 id = nla_get_u32(attrs[DM_REMAP_A_INSTANCE]);

	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node)
		if (inst->id == id && kref_get_unless_zero(&inst->kref))
			found = inst;
	mutex_unlock(&dmr_instances_lock);
	if (IS_ERR(found))
		NL_SET_ERR_MSG(extack, "no such instance");
	return found;
}

static struct dmr_instance *instance_new(struct dmr_target *t)
{
	struct block_device *data = t->dev[DMR_DATA]->bdev, *spare = t->dev[DMR_SPARE]->bdev;
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
	inst->md = dm_table_get_md(t->ti->table);
	inst->dm_dev = disk_devt(dm_disk(inst->md));
	inst->data_dev = data->bd_dev;
	inst->spare_dev = spare->bd_dev;
	inst->sectors = t->ti->len;
	inst->spare_sectors = bdev_nr_sectors(spare);
	inst->block = dmr_block(t);
	inst->next_fault = 1;
	inst->gen = 1;
	inst->slow = BIT(DMR_SLOW_UNREADY);
	inst->pool = kvcalloc(DMR_MAX_FAULTS, sizeof(*inst->pool), GFP_KERNEL);
	/* Unbound: an owner that is a realtime task keeps its processor. */
	inst->wq = alloc_workqueue("dm_remap", WQ_MEM_RECLAIM | WQ_UNBOUND, WQ_MAX_ACTIVE);
	inst->disk_wq = alloc_workqueue("dm_remap_disk", WQ_MEM_RECLAIM | WQ_UNBOUND, WQ_MAX_ACTIVE);
	if (!inst->pool || !inst->wq || !inst->disk_wq ||
	    bioset_init(&inst->clones, BIO_POOL_SIZE, offsetof(struct dmr_clone, bio), 0)) {
		kref_put(&inst->kref, dmr_instance_free);
		return NULL;
	}
	for (i = 0; i < DMR_MAX_FAULTS; i++) {
		inst->pool[i].cookie = get_completed_synchronize_rcu();
		list_add_tail(&inst->pool[i].spare, &inst->free_faults);
	}
	return inst;
}

/* The instance of this mapped device on these disks; made by its first table. */
int dmr_instance_join(struct dmr_target *t)
{
	/* A daemon's request waits for the lock: nothing under it may wait for memory, thus for I/O. */
	struct dmr_instance *new = instance_new(t), *inst, *found = NULL;
	int r = 0;

	if (!new)
		return dmr_bad(t->ti, -ENOMEM, "Cannot allocate instance");
	mutex_lock(&dmr_instances_lock);
	list_for_each_entry(inst, &dmr_instances, node) {
		bool data = inst->data_dev == new->data_dev, spare = inst->spare_dev == new->spare_dev;

		if (inst->md == new->md && data && spare)
			found = inst;
		if (inst->md != new->md && (data || spare || inst->data_dev == new->spare_dev ||
					    inst->spare_dev == new->data_dev))
			r = dmr_bad(t->ti, -EBUSY, "Data or spare is used by another mapped device");
	}
	if (!r && found && (found->sectors != new->sectors || found->block != new->block))
		r = dmr_bad(t->ti, -EBUSY, "Length or block differs from the one this device has");
	if (!r && !found) {
		found = new;
		new->id = dmr_next_instance++;
		list_add_tail(&new->node, &dmr_instances);
	}
	if (!r) {
		found->users++;
		kref_get(&found->kref);
		t->inst = found;
	}
	mutex_unlock(&dmr_instances_lock);
	kref_put(&new->kref, dmr_instance_free);
	return r;
}

void dmr_instance_leave(struct dmr_instance *inst)
{
	mutex_lock(&dmr_instances_lock);
	if (!--inst->users)
		list_del(&inst->node);
	mutex_unlock(&dmr_instances_lock);
	kref_put(&inst->kref, dmr_instance_free);
}
