/* SPDX-License-Identifier: MIT */
/*
 * A virtio device in the state stream. The stream is not trusted: whatever it says, the device afterwards is in a state
 * that a driver could have brought it into, or it is reset and the stream has failed.
 */
#include "vdev/virtio_internal.h"
#include "vdev/virtio_pci.h"

#define STATUS_SETUP (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK)
#define STATUS_KNOWN (STATUS_SETUP | VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED)

static void save_body(struct stream_writer *w, void *arg)
{
    const struct virtio_device *dev = arg;

    stream_put_u16(w, dev->model->type);
    stream_put_u64(w, dev->accepted);
    stream_put_u32(w, dev->offered_select);
    stream_put_u32(w, dev->accepted_select);
    stream_put_u16(w, dev->queue_select);
    stream_put_u16(w, dev->config_vector);
    stream_put_u8(w, dev->status);
    stream_put_u8(w, dev->config_generation);
    stream_put_u8(w, dev->isr);
    stream_put_u8(w, (uint8_t)dev->model->queue_count);
    for (unsigned i = 0; i < dev->model->queue_count; i++)
        virtq_save(&dev->queue[i], w);
    if (dev->model->save)
        dev->model->save(dev, w);
}

void virtio_save(struct virtio_device *dev, struct stream_writer *w)
{
    if (dev->in_flight) {
        if (!w->error)
            w->error = ERR_BUSY;
        return;
    }
    stream_section(w, VIRTIO_STREAM_TAG, dev->function.slot, VIRTIO_STREAM_VERSION, STREAM_MANDATORY, save_body, dev);
}

static void check_status(const struct virtio_device *dev, struct stream_reader *r)
{
    if (r->error)
        return;
    if (dev->status & ~STATUS_KNOWN)
        stream_fail(r, ERR_RANGE, "%s: unknown status bits 0x%x", dev->owner.name, dev->status);
    else if (dev->status & VIRTIO_STATUS_FEATURES_OK && !virtio_features_acceptable(dev))
        stream_fail(r, ERR_RANGE, "%s: the guest uses features 0x%llx, this device offers 0x%llx", dev->owner.name,
                    (unsigned long long)dev->accepted, (unsigned long long)dev->offered);
    else if (dev->status & VIRTIO_STATUS_DRIVER_OK && !(dev->status & VIRTIO_STATUS_FEATURES_OK))
        stream_fail(r, ERR_RANGE, "%s: DRIVER_OK without FEATURES_OK", dev->owner.name);
}

static uint16_t restore_vector(const struct virtio_device *dev, uint16_t vector)
{
    return vector < dev->function.msix.count ? vector : VIRTQ_NO_VECTOR;
}

static void restore_queues(struct virtio_device *dev, struct stream_reader *r)
{
    unsigned count = stream_get_u8(r);

    if (!r->error && count != dev->model->queue_count)
        stream_fail(r, ERR_RANGE, "%s: %u queues, this device has %u", dev->owner.name, count,
                    dev->model->queue_count);
    for (unsigned i = 0; !r->error && i < count; i++) {
        virtq_restore(&dev->queue[i], r);
        dev->queue[i].vector = restore_vector(dev, dev->queue[i].vector);
        if (!r->error && dev->queue[i].enabled && !(dev->status & VIRTIO_STATUS_FEATURES_OK))
            stream_fail(r, ERR_RANGE, "%s: queue %u enabled without FEATURES_OK", dev->owner.name, i);
        if (!r->error && dev->queue[i].broken)
            dev->status |= VIRTIO_STATUS_NEEDS_RESET;
    }
}

void virtio_restore(struct virtio_device *dev, struct stream_reader *r)
{
    unsigned type;

    if (r->version > VIRTIO_STREAM_VERSION) {
        stream_fail(r, ERR_VERSION, "%s: section of version %u, this one knows %u", dev->owner.name, r->version,
                    VIRTIO_STREAM_VERSION);
        return;
    }
    if (dev->in_flight) {
        stream_fail(r, ERR_BUSY, "%s: has requests in flight", dev->owner.name);
        return;
    }
    virtio_driver_reset(dev);
    dev->quiesced = true;
    type = stream_get_u16(r);
    if (!r->error && type != dev->model->type)
        stream_fail(r, ERR_RANGE, "%s: virtio type %u, this device is %u", dev->owner.name, type, dev->model->type);
    dev->accepted = stream_get_u64(r);
    dev->offered_select = stream_get_u32(r);
    dev->accepted_select = stream_get_u32(r);
    dev->queue_select = stream_get_u16(r);
    dev->config_vector = restore_vector(dev, stream_get_u16(r));
    dev->status = stream_get_u8(r);
    dev->config_generation = stream_get_u8(r);
    dev->isr = stream_get_u8(r) & 3;
    check_status(dev, r);
    if (!r->error && dev->status & VIRTIO_STATUS_FEATURES_OK)
        virtio_apply_features(dev); /* the size of the rings depends on them */
    restore_queues(dev, r);
    if (!r->error && dev->model->restore)
        dev->model->restore(dev, r);
    if (r->error)
        virtio_driver_reset(dev);
    else
        vpci_set_intx(&dev->function, dev->isr != 0);
}
