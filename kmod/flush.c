// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a failed flush means for later ones (I7). It may have lost any write since the last good
 * one, so somebody must hear of it: its caller, or the next one if a daemon sent it by itself.
 */
#include "shim.h"

/* Before a write or flush is sent: a flush that fails from here on may lose it. */
void dmr_sends(struct dmr_bio *pb)
{
	pb->owes = 0;
	pb->fails[DMR_DATA] = READ_ONCE(pb->t->inst->flush_fails[DMR_DATA]);
	pb->fails[DMR_SPARE] = READ_ONCE(pb->t->inst->flush_fails[DMR_SPARE]);
}

/*
 * REQ_FUA, if the block layer would make it a flush behind the write: the error would not tell a bad
 * medium from a failed flush, which has lost what others wrote. So that flush is ours. Of FUA that
 * stands for a command of the disk only a driver of requests can be trusted.
 */
blk_opf_t dmr_fua_owed(struct dmr_bio *pb, enum dmr_dest dest)
{
	struct block_device *bdev = pb->t->dev[dest]->bdev;

	if (!(pb->opf & REQ_FUA) || !bdev_write_cache(bdev) ||
	    (bdev_fua(bdev) && queue_is_mq(bdev_get_queue(bdev))))
		return 0;
	pb->owes |= BIT(dest);
	return REQ_FUA;
}

/*
 * A flush's success counts only if no other of that disk failed since the bio was sent, and lost what it
 * covers; a FUA write, which has a length, hears so for itself. With no extent the spare has no data.
 */
blk_status_t dmr_flush_done(struct dmr_bio *pb, enum dmr_dest dest, blk_status_t status)
{
	struct dmr_instance *inst = pb->t->inst;
	int bit = dest == DMR_SPARE ? DMR_SLOW_SPARE_FLUSH : DMR_SLOW_DATA_FLUSH;
	unsigned long flags;

	if (!status && !test_bit(bit, &inst->slow) && READ_ONCE(inst->flush_fails[dest]) == pb->fails[dest])
		return status;
	spin_lock_irqsave(&inst->lock, flags);
	if (status) {
		inst->flush_fails[dest]++;
		if (dest == DMR_SPARE)
			dmr_count(inst, spare_flush_errors);
		dmr_ring(inst);
	} else if (inst->flush_fails[dest] != pb->fails[dest] || (inst->flush_owed & BIT(dest))) {
		if (!pb->place.len)
			inst->flush_owed &= ~BIT(dest);
		status = BLK_STS_IOERR;
	}
	/* What is told, too: device-mapper drops it if data follows, which has to fail then. */
	assign_bit(bit, &inst->slow, status);
	if (dest == DMR_SPARE && !test_bit(DMR_SLOW_EXTENTS, &inst->slow))
		status = BLK_STS_OK;
	/* If the other disk's is pushed back, the flush comes again, and nobody sees this. */
	if (status && dm_noflush_suspending(pb->t->ti))
		inst->flush_owed |= BIT(dest);
	spin_unlock_irqrestore(&inst->lock, flags);
	return status;
}

/* A flush of the spare has failed that did not come through map: whoever opens it sends some, too. */
int dmr_flush_failed(struct sk_buff *skb, struct genl_info *info)
{
	struct dmr_instance *inst = info->user_ptr[0];

	spin_lock_irq(&inst->lock);
	inst->flush_fails[DMR_SPARE]++;
	/* Before READY it is not known whose data may be lost. */
	if (inst->slow & (BIT(DMR_SLOW_EXTENTS) | BIT(DMR_SLOW_UNREADY)))
		inst->flush_owed |= BIT(DMR_SPARE);
	set_bit(DMR_SLOW_SPARE_FLUSH, &inst->slow);
	spin_unlock_irq(&inst->lock);
	return 0;
}

/* After a failed flush nothing may claim to be durable until one succeeds. */
bool dmr_fua_fails(const struct dmr_bio *pb)
{
	const unsigned long *slow = &pb->t->inst->slow;

	return (pb->opf & REQ_FUA) && (test_bit(DMR_SLOW_DATA_FLUSH, slow) ||
		(test_bit(DMR_SLOW_SPARE_FLUSH, slow) && test_bit(DMR_SLOW_EXTENTS, slow)));
}
