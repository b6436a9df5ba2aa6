/* SPDX-License-Identifier: MIT */
/*
 * The virtio device and its registers (see virtio_pci.h). The file goes from the inside out: interrupts, breaking and
 * reset; queues; then the registers of VIRTIO 1.2, 4.1.4, as the driver sees them. Saving is in virtio_state.c.
 *
 * The order that a driver must keep (3.1.1) is enforced where breaking it would let a queue run by rules that were
 * never agreed on: features are frozen by FEATURES_OK, a queue cannot be enabled before it, DRIVER_OK cannot be set
 * without it.
 */
#include <string.h>

#include "kernel/index_mask.h"
#include "kernel/log.h"
#include "vdev/virtio_internal.h"
#include "vdev/virtio_pci.h"

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_VIRTIO 0x1040
#define PCI_SUBSYSTEM_VIRTIO 0x1100

/* The pages of the BAR. */
#define BAR_COMMON 0x000u
#define BAR_COMMON_BYTES 0x38u
#define BAR_ISR 0x400u
#define BAR_ISR_BYTES 4u
#define BAR_DEVICE 0x800u
#define BAR_DEVICE_BYTES 0x400u
#define BAR_MSIX_TABLE 0x2000u
#define BAR_MSIX_PBA 0x3000u

/* Kinds of vendor capability (4.1.4). */
#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_ISR 3
#define CAP_DEVICE 4
#define CAP_PCI_CFG 5
#define CAP_PCI_CFG_DATA 16u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

/* Breaks of one device that are logged: a driver that resets and breaks in a loop does not own the log. */
#define LOGGED_BREAKS 8

/* Frames of guest memory that one virtio_process prepares: zeroing 2 MiB takes some 100 microseconds. */
#define FRAMES_PER_TURN 2

/* ---- Interrupts ---- */

static void interrupt(struct virtio_device *dev, uint16_t vector, uint8_t isr)
{
    if (vpci_msix_enabled(&dev->function)) {
        if (vector != VIRTQ_NO_VECTOR)
            vpci_msix_notify(&dev->function, vector);
        return;
    }
    dev->isr |= isr;
    vpci_set_intx(&dev->function, true);
}

bool virtio_is_live(const struct virtio_device *dev)
{
    return (dev->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) == VIRTIO_STATUS_DRIVER_OK &&
           !dev->resetting;
}

void virtio_config_changed(struct virtio_device *dev)
{
    dev->config_generation++;
    if (virtio_is_live(dev))
        interrupt(dev, dev->config_vector, ISR_CONFIG);
}

void virtio_break(struct virtio_device *dev, const char *reason)
{
    bool was_live = virtio_is_live(dev);

    if (dev->resetting || dev->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    dev->status |= VIRTIO_STATUS_NEEDS_RESET;
    /* With the device all its queues: a chain that was taken is never given back, and a saved state has to tell why. */
    for (unsigned i = 0; i < dev->model->queue_count; i++) {
        if (!dev->queue[i].broken)
            dev->queue[i].broken = reason;
    }
    if (dev->break_count++ < LOGGED_BREAKS)
        log_warning("%s: %s stopped, its driver broke the rules: %s", dev->owner.name, dev->model->kind, reason);
    if (was_live)
        interrupt(dev, dev->config_vector, ISR_CONFIG);
}

/* ---- Reset ---- */

static void finish_reset(struct virtio_device *dev)
{
    dev->resetting = false;
    dev->status = 0;
}

/* What writing 0 to the status register does. */
void virtio_driver_reset(struct virtio_device *dev)
{
    if (dev->resetting)
        return;
    dev->generation++;
    __atomic_store_n(&dev->notified, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < dev->model->queue_count; i++)
        virtq_reset(&dev->queue[i]);
    dev->accepted = 0;
    dev->offered_select = dev->accepted_select = 0;
    dev->queue_select = 0;
    dev->config_vector = VIRTQ_NO_VECTOR;
    dev->shared.event_idx = dev->shared.indirect = false;
    dev->isr = 0;
    vpci_set_intx(&dev->function, false);
    /* What the pending bits announced is gone; left set, they would be sent when the driver unmasks (PCI 3.0, 6.8.3.4). */
    dev->function.msix.pending = 0;
    if (dev->model->reset)
        dev->model->reset(dev);
    if (dev->in_flight)
        dev->resetting = true;
    else
        finish_reset(dev);
}

void virtio_reset(struct virtio_device *dev)
{
    virtio_driver_reset(dev);
    dev->config_generation = 0;
    dev->quiesced = false;
}

/* ---- Queues ---- */

bool virtio_may_work(const struct virtio_device *dev)
{
    return virtio_is_live(dev) && !dev->quiesced && vpci_is_master(&dev->function);
}

static void ring_doorbell(struct virtio_device *dev)
{
    if (dev->owner.doorbell)
        dev->owner.doorbell(dev->owner.context, dev);
}

void virtio_want(struct virtio_device *dev, unsigned queue)
{
    /* The driver's write of avail.idx is ordered before this; the walker clears the bit before it reads avail.idx. */
    if (!(__atomic_fetch_or(&dev->notified, BIT(queue), __ATOMIC_SEQ_CST) & BIT(queue)))
        ring_doorbell(dev);
}

void virtio_notify(struct virtio_device *dev, uint64_t offset)
{
    if (offset < (uint64_t)dev->model->queue_count * VIRTIO_NOTIFY_MULTIPLIER)
        virtio_want(dev, (unsigned)(offset / VIRTIO_NOTIFY_MULTIPLIER));
}

/* All queues get a look: something that held them back is gone. */
static void want_all(struct virtio_device *dev)
{
    __atomic_fetch_or(&dev->notified, BIT(dev->model->queue_count) - 1, __ATOMIC_SEQ_CST);
    ring_doorbell(dev);
}

bool virtio_notify_range(const struct virtio_device *dev, uint64_t *gpa, uint64_t *bytes)
{
    const struct vpci_bar *bar = &dev->function.bar[0];

    *gpa = bar->mapped + VIRTIO_NOTIFY_OFFSET;
    *bytes = PAGE_BYTES;
    return bar->is_mapped;
}

static void flush_queue(struct virtio_device *dev, unsigned queue)
{
    struct virtqueue *vq = &dev->queue[queue];

    if (virtq_flush(vq))
        interrupt(dev, vq->vector, ISR_QUEUE);
    if (vq->broken)
        virtio_break(dev, vq->broken);
}

bool virtio_process(struct virtio_device *dev, uint64_t now_ns)
{
    uint64_t bits;

    if (!virtio_may_work(dev))
        return false; /* the bits stay for the time when it may */
    dev->now_ns = now_ns;
    dev->processing = true;
    dev->shared.budget = FRAMES_PER_TURN;
    bits = __atomic_exchange_n(&dev->notified, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < dev->model->queue_count && virtio_is_live(dev); i++) {
        if (!(bits & BIT(i)) || !dev->queue[i].enabled)
            continue;
        virtq_hush(&dev->queue[i]);
        if (dev->model->process(dev, i, now_ns))
            __atomic_fetch_or(&dev->notified, BIT(i), __ATOMIC_SEQ_CST);
    }
    dev->processing = false;
    for (unsigned i = 0; i < dev->model->queue_count && virtio_is_live(dev); i++)
        flush_queue(dev, i);
    return __atomic_load_n(&dev->notified, __ATOMIC_SEQ_CST) && virtio_may_work(dev);
}

enum virtq_result virtio_pop(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
    enum virtq_result result;

    if (!virtio_may_work(dev))
        return VIRTQ_EMPTY;
    result = virtq_pop(&dev->queue[queue], chain);
    if (result == VIRTQ_BROKEN)
        virtio_break(dev, dev->queue[queue].broken);
    if (result == VIRTQ_LATER) {
        virtio_want(dev, queue);
        result = VIRTQ_EMPTY;
    }
    if (result == VIRTQ_CHAIN) {
        chain->generation = dev->generation;
        dev->in_flight++;
    }
    return result;
}

bool virtio_owns(const struct virtio_device *dev, const struct virtq_chain *chain)
{
    return chain->generation == dev->generation && virtio_is_live(dev);
}

void virtio_push(struct virtio_device *dev, unsigned queue, const struct virtq_chain *chain, uint32_t written)
{
    dev->in_flight--;
    if (virtio_owns(dev, chain)) {
        virtq_push(&dev->queue[queue], chain->head, written);
        if (!dev->processing)
            flush_queue(dev, queue);
    }
    if (dev->resetting && !dev->in_flight)
        finish_reset(dev);
}

struct virtio_mark virtio_mark(const struct virtio_device *dev, unsigned queue)
{
    return (struct virtio_mark){ virtq_mark(&dev->queue[queue]), dev->in_flight };
}

void virtio_rollback(struct virtio_device *dev, unsigned queue, const struct virtio_mark *mark)
{
    virtq_rollback(&dev->queue[queue], &mark->queue);
    dev->in_flight = mark->in_flight;
}

void virtio_quiesce(struct virtio_device *dev)
{
    dev->quiesced = true;
}

unsigned virtio_in_flight(const struct virtio_device *dev)
{
    return dev->in_flight;
}

void virtio_resume(struct virtio_device *dev)
{
    dev->quiesced = false;
    want_all(dev);
}

/* ---- Common configuration (4.1.4.3) ---- */

static struct virtqueue *selected(struct virtio_device *dev)
{
    unsigned count = dev->model->queue_count;

    return dev->queue_select < count ? &dev->queue[index_mask(dev->queue_select, count)] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

/* The aligned dword at that offset; fields of queues that are not there read 0. */
static uint32_t common_dword(struct virtio_device *dev, unsigned offset)
{
    static const struct virtqueue none;
    const struct virtqueue *vq = selected(dev);
    bool there = vq != NULL;

    if (!there)
        vq = &none;
    switch (offset) {
    case 0x00: return dev->offered_select;
    case 0x04: return feature_word(dev->offered, dev->offered_select);
    case 0x08: return dev->accepted_select;
    case 0x0c: return feature_word(dev->accepted, dev->accepted_select);
    case 0x10: return dev->config_vector | dev->model->queue_count << 16;
    case 0x14: return dev->status | (uint32_t)dev->config_generation << 8 | (uint32_t)dev->queue_select << 16;
    case 0x18: return vq->size | (uint32_t)(there ? vq->vector : VIRTQ_NO_VECTOR) << 16;
    case 0x1c: return vq->enabled | (uint32_t)(there ? dev->queue_select : 0) << 16;
    case 0x20: return (uint32_t)vq->desc;
    case 0x24: return (uint32_t)(vq->desc >> 32);
    case 0x28: return (uint32_t)vq->avail;
    case 0x2c: return (uint32_t)(vq->avail >> 32);
    case 0x30: return (uint32_t)vq->used;
    case 0x34: return (uint32_t)(vq->used >> 32);
    default: return 0;
    }
}

bool virtio_features_acceptable(const struct virtio_device *dev)
{
    return !(dev->accepted & ~dev->offered) && dev->accepted & VIRTIO_F_VERSION_1 &&
           (!dev->model->features_ok || dev->model->features_ok(dev->accepted));
}

void virtio_apply_features(struct virtio_device *dev)
{
    dev->shared.event_idx = dev->accepted & VIRTIO_F_EVENT_IDX;
    dev->shared.indirect = dev->accepted & VIRTIO_F_INDIRECT_DESC;
}

/* Bits are only ever added; 0 resets (2.1.1). */
static void write_status(struct virtio_device *dev, uint8_t value)
{
    uint8_t added = (uint8_t)(value & ~dev->status);

    if (!value) {
        virtio_driver_reset(dev);
        return;
    }
    dev->status |= added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    if (added & VIRTIO_STATUS_FEATURES_OK && virtio_features_acceptable(dev)) {
        dev->status |= VIRTIO_STATUS_FEATURES_OK;
        virtio_apply_features(dev);
    }
    if (!(added & VIRTIO_STATUS_DRIVER_OK) || dev->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    if (!(dev->status & VIRTIO_STATUS_FEATURES_OK)) {
        virtio_break(dev, "DRIVER_OK without FEATURES_OK");
        return;
    }
    dev->status |= VIRTIO_STATUS_DRIVER_OK;
    want_all(dev);
}

static void write_feature(struct virtio_device *dev, uint32_t value)
{
    if (dev->status & VIRTIO_STATUS_FEATURES_OK)
        return; /* frozen */
    if (dev->accepted_select < 2) {
        unsigned shift = 32 * dev->accepted_select;

        dev->accepted = (dev->accepted & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
    }
}

static void enable_queue(struct virtio_device *dev, struct virtqueue *vq)
{
    if (!(dev->status & VIRTIO_STATUS_FEATURES_OK))
        virtio_break(dev, "a queue was enabled before FEATURES_OK");
    else if (!virtq_enable(vq))
        virtio_break(dev, vq->broken);
}

static uint16_t checked_vector(const struct virtio_device *dev, uint32_t value)
{
    return value < dev->function.msix.count ? (uint16_t)value : VIRTQ_NO_VECTOR;
}

static void set_half(uint64_t *address, unsigned high, uint32_t value)
{
    *address = high ? (uint32_t)*address | (uint64_t)value << 32 : (*address & ~0xffffffffull) | value;
}

/* Registers of the selected queue. Its place and size are frozen once it is enabled. */
static void write_queue(struct virtio_device *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct virtqueue *vq = selected(dev);

    if (!vq || dev->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    if (offset == 0x1a && size == 2) {
        vq->vector = checked_vector(dev, value);
        return;
    }
    if (vq->enabled)
        return;
    if (offset == 0x18 && size == 2) {
        vq->size = (uint16_t)value;
    } else if (offset == 0x1c && size == 2) {
        if (value == 1)
            enable_queue(dev, vq);
    } else if (offset >= 0x20 && size == 4) {
        uint64_t *area[] = { &vq->desc, &vq->avail, &vq->used };

        set_half(area[(offset - 0x20) / 8], offset & 4, value);
    }
}

/* Fields are written with accesses of their own width, 64-bit ones by halves (4.1.3.1); anything else is dropped. */
static void common_write(struct virtio_device *dev, unsigned offset, unsigned size, uint32_t value)
{
    if (dev->resetting || offset % size)
        return;
    switch (offset << 4 | size) {
    case 0x004: dev->offered_select = value; break;
    case 0x084: dev->accepted_select = value; break;
    case 0x0c4: write_feature(dev, value); break;
    case 0x102: dev->config_vector = checked_vector(dev, value); break;
    case 0x141: write_status(dev, (uint8_t)value); break;
    case 0x162: dev->queue_select = (uint16_t)value; break;
    default:
        if (offset >= 0x18 && offset < BAR_COMMON_BYTES)
            write_queue(dev, offset, size, value);
    }
}

/* ---- The BAR ---- */

static uint64_t page0_read(struct virtio_device *dev, unsigned offset, unsigned size)
{
    if (offset >= BAR_DEVICE) {
        uint8_t bytes[8] = { 0 };
        uint64_t value = 0;

        if (!dev->model->config_read || !range_within(offset - BAR_DEVICE, size, dev->model->config_bytes))
            return 0;
        dev->model->config_read(dev, offset - BAR_DEVICE, size, bytes);
        for (unsigned i = 0; i < size; i++)
            value |= (uint64_t)bytes[i] << 8 * i;
        return value;
    }
    if (offset == BAR_ISR) {
        uint8_t isr = dev->isr;

        dev->isr = 0;
        vpci_set_intx(&dev->function, false);
        return isr;
    }
    if (offset % size)
        return 0;
    if (size == 8)
        return common_dword(dev, offset) | (uint64_t)common_dword(dev, offset + 4) << 32;
    return common_dword(dev, offset & ~3u) >> 8 * (offset & 3) & (uint32_t)(BIT(8 * size) - 1);
}

static void page0_write(struct virtio_device *dev, unsigned offset, unsigned size, uint64_t value)
{
    if (offset >= BAR_DEVICE) {
        uint8_t bytes[8];

        if (!dev->model->config_write || !range_within(offset - BAR_DEVICE, size, dev->model->config_bytes))
            return;
        for (unsigned i = 0; i < size; i++)
            bytes[i] = (uint8_t)(value >> 8 * i);
        dev->model->config_write(dev, offset - BAR_DEVICE, size, bytes);
    } else if (size == 8) {
        common_write(dev, offset, 4, (uint32_t)value);
        common_write(dev, offset + 4, 4, (uint32_t)(value >> 32));
    } else {
        common_write(dev, offset, size, (uint32_t)value);
    }
}

static uint64_t bar_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct virtio_device *dev = device;

    dev->now_ns = now_ns;
    if (offset < VIRTIO_NOTIFY_OFFSET)
        return page0_read(dev, (unsigned)offset, size);
    if (offset >= BAR_MSIX_TABLE)
        return vpci_msix_read(&dev->function, offset >= BAR_MSIX_PBA, offset & (PAGE_BYTES - 1), size);
    return 0;
}

static void bar_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct virtio_device *dev = device;

    dev->now_ns = now_ns;
    if (offset < VIRTIO_NOTIFY_OFFSET)
        page0_write(dev, (unsigned)offset, size, value);
    else if (offset < BAR_MSIX_TABLE)
        virtio_notify(dev, offset - VIRTIO_NOTIFY_OFFSET);
    else if (offset < BAR_MSIX_PBA)
        vpci_msix_write(&dev->function, offset - BAR_MSIX_TABLE, size, value);
}

static const struct vdev_ops bar_ops = { .read = bar_read, .write = bar_write };

/* ---- PCI configuration access capability (4.1.4.9): the BAR through a window in configuration space ---- */

/* False: the driver has not described an access that can be made. */
static bool window(const struct virtio_device *dev, uint32_t *offset, unsigned *size)
{
    const uint8_t *cap = dev->function.config + dev->cfg_cap;
    uint32_t length = cap[12] | (uint32_t)cap[13] << 8 | (uint32_t)cap[14] << 16 | (uint32_t)cap[15] << 24;

    *offset = cap[8] | (uint32_t)cap[9] << 8 | (uint32_t)cap[10] << 16 | (uint32_t)cap[11] << 24;
    *size = length;
    return cap[4] == 0 && (length == 1 || length == 2 || length == 4) && *offset % length == 0 &&
           range_within(*offset, length, VIRTIO_BAR_BYTES);
}

static uint32_t window_read(void *device, unsigned config_offset, unsigned size, uint32_t stored)
{
    struct virtio_device *dev = device;
    uint32_t offset;
    unsigned window_size;

    (void)size;
    if (!window(dev, &offset, &window_size))
        return stored;
    return (uint32_t)bar_read(dev, offset, window_size, dev->now_ns) >> 8 * (config_offset & 3);
}

static void window_write(void *device, unsigned config_offset, unsigned size, uint32_t value)
{
    struct virtio_device *dev = device;
    uint32_t offset;
    unsigned window_size;

    if (window(dev, &offset, &window_size) && size == window_size && config_offset % 4 == 0)
        bar_write(dev, offset, window_size, value, dev->now_ns);
}

static void command_changed(void *device)
{
    struct virtio_device *dev = device;

    if (virtio_may_work(dev) && __atomic_load_n(&dev->notified, __ATOMIC_SEQ_CST))
        ring_doorbell(dev);
}

static void bar_moved(void *device, unsigned bar)
{
    struct virtio_device *dev = device;

    (void)bar;
    if (dev->owner.notify_moved)
        dev->owner.notify_moved(dev->owner.context, dev);
}

static const struct vpci_function_ops function_ops = {
    .config_read = window_read,
    .config_write = window_write,
    .command_changed = command_changed,
    .bar_moved = bar_moved,
};

/* ---- Building ---- */

static enum status add_cap(struct virtio_device *dev, uint8_t kind, uint8_t bytes, uint32_t offset, uint32_t length,
                           uint32_t extra, unsigned *at)
{
    const uint32_t words[] = { offset, length, extra };
    uint8_t cap[20] = { PCI_CAP_VENDOR, 0, bytes, kind };

    for (unsigned i = 0; i < 12; i++)
        cap[8 + i] = (uint8_t)(words[i / 4] >> 8 * (i % 4));
    return vpci_add_cap(&dev->function, cap, bytes, at);
}

static enum status add_caps(struct virtio_device *dev)
{
    enum status status = add_cap(dev, CAP_COMMON, 16, BAR_COMMON, BAR_COMMON_BYTES, 0, NULL);

    if (status == OK)
        status = add_cap(dev, CAP_ISR, 16, BAR_ISR, BAR_ISR_BYTES, 0, NULL);
    if (status == OK && dev->model->config_bytes)
        status = add_cap(dev, CAP_DEVICE, 16, BAR_DEVICE, dev->model->config_bytes, 0, NULL);
    if (status == OK)
        status = add_cap(dev, CAP_NOTIFY, 20, VIRTIO_NOTIFY_OFFSET,
                         dev->model->queue_count * VIRTIO_NOTIFY_MULTIPLIER, VIRTIO_NOTIFY_MULTIPLIER, NULL);
    if (status == OK)
        status = add_cap(dev, CAP_PCI_CFG, 20, 0, 0, 0, &dev->cfg_cap);
    if (status != OK)
        return status;
    dev->function.writable[dev->cfg_cap + 4] = 0xff;
    memset(dev->function.writable + dev->cfg_cap + 8, 0xff, 12);
    vpci_hook_config(&dev->function, dev->cfg_cap + CAP_PCI_CFG_DATA, 4);
    return vpci_add_msix(&dev->function, dev->model->queue_count + 1, 0, BAR_MSIX_TABLE, BAR_MSIX_PBA);
}

enum status virtio_init(struct virtio_device *dev, const struct virtio_model *model, const struct virtio_owner *owner,
                        struct virtqueue *queues, uint64_t features, struct vpci *pci, unsigned slot)
{
    enum status status;

    if (!model->queue_count || model->queue_count > VIRTIO_QUEUES_MAX || model->config_bytes > BAR_DEVICE_BYTES)
        return ERR_INVALID;
    memset(dev, 0, sizeof(*dev));
    dev->model = model;
    dev->owner = *owner;
    dev->shared.memory = owner->memory;
    dev->queue = queues;
    dev->offered = features | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    dev->config_vector = VIRTQ_NO_VECTOR;
    for (unsigned i = 0; i < model->queue_count; i++)
        virtq_init(&queues[i], &dev->shared, model->queue_size);
    vpci_function_init(&dev->function, &function_ops, dev, PCI_VENDOR_VIRTIO,
                       (uint16_t)(PCI_DEVICE_VIRTIO + model->type), 1, model->class_code, PCI_VENDOR_VIRTIO,
                       PCI_SUBSYSTEM_VIRTIO);
    status = vpci_add_bar(&dev->function, 0, VIRTIO_BAR_BYTES, false, false, &bar_ops);
    if (status == OK)
        status = add_caps(dev);
    if (status == OK)
        status = vpci_attach(pci, &dev->function, slot);
    return status;
}
