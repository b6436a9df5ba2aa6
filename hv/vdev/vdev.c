/* SPDX-License-Identifier: MIT */
/*
 * Timer queues and buses: the two things that all device models hang on. Both are small sorted sets (a machine has
 * some ten timers and some thirty ranges), so a list and a table do.
 *
 * Invariants: a timer is in its queue exactly when its deadline is not VTIMER_OFF, and the queue is ascending; the
 * ranges of a bus are ascending, not empty, and do not overlap.
 */
#include "vdev/vdev.h"

#include <string.h>

#include "kernel/index_mask.h"

void vtimer_init(struct vtimer *timer, struct vtimer_queue *queue, void (*fire)(struct vtimer *, uint64_t now_ns))
{
    *timer = (struct vtimer){ .deadline_ns = VTIMER_OFF, .fire = fire, .queue = queue };
}

static void take_out(struct vtimer *timer)
{
    struct vtimer **place = &timer->queue->first;
    while (*place != timer)
        place = &(*place)->next;
    *place = timer->next;
    timer->next = NULL;
}

void vtimer_arm(struct vtimer *timer, uint64_t deadline_ns)
{
    struct vtimer_queue *queue = timer->queue;
    if (timer->deadline_ns == deadline_ns)
        return;
    uint64_t before = vtimer_next(queue);
    if (timer->deadline_ns != VTIMER_OFF)
        take_out(timer);
    timer->deadline_ns = deadline_ns;
    if (deadline_ns != VTIMER_OFF) {
        struct vtimer **place = &queue->first;
        while (*place && (*place)->deadline_ns <= deadline_ns)
            place = &(*place)->next;
        timer->next = *place;
        *place = timer;
    }
    if (!queue->running && queue->changed && vtimer_next(queue) != before)
        queue->changed(queue->context);
}

/* The first due timer that this run has not fired yet. */
static struct vtimer *next_due(const struct vtimer_queue *queue, uint64_t now_ns)
{
    for (struct vtimer *timer = queue->first; timer && timer->deadline_ns <= now_ns; timer = timer->next)
        if (timer->fired_run != queue->run)
            return timer;
    return NULL;
}

void vtimer_run(struct vtimer_queue *queue, uint64_t now_ns)
{
    uint64_t before = vtimer_next(queue);
    if (before > now_ns)
        return;
    queue->run++;
    queue->running = true;
    for (struct vtimer *timer; (timer = next_due(queue, now_ns)) != NULL;) {
        timer->fired_run = queue->run;
        take_out(timer);
        timer->deadline_ns = VTIMER_OFF;
        timer->fire(timer, now_ns);
    }
    queue->running = false;
    if (queue->changed && vtimer_next(queue) != before)
        queue->changed(queue->context);
}

uint64_t vtimer_next(const struct vtimer_queue *queue)
{
    return queue->first ? queue->first->deadline_ns : VTIMER_OFF;
}

/* ---- Buses ---- */

enum status vbus_add(struct vbus *bus, uint64_t base, uint64_t bytes, const struct vdev_ops *ops, void *device)
{
    if (!bytes || base + (bytes - 1) < base)
        return ERR_INVALID;
    unsigned at = 0;
    for (; at < bus->count; at++) {
        const struct vbus_range *range = &bus->range[at];
        if (range_overlaps(base, bytes, range->base, range->bytes))
            return ERR_EXISTS;
        if (range->base > base)
            break;
    }
    if (bus->count == VBUS_RANGES)
        return ERR_NO_MEMORY;
    memmove(&bus->range[at + 1], &bus->range[at], (bus->count - at) * sizeof(bus->range[0]));
    bus->range[at] = (struct vbus_range){ base, bytes, ops, device };
    bus->count++;
    return OK;
}

void vbus_remove(struct vbus *bus, uint64_t base, const void *device)
{
    for (unsigned at = 0; at < bus->count; at++) {
        if (bus->range[at].base != base || bus->range[at].device != device)
            continue;
        bus->count--;
        memmove(&bus->range[at], &bus->range[at + 1], (bus->count - at) * sizeof(bus->range[0]));
        return;
    }
}

const struct vbus_range *vbus_find(const struct vbus *bus, uint64_t address, unsigned size)
{
    unsigned low = 0, high = bus->count; /* the range that may hold it is the last one with base <= address */
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (bus->range[middle].base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return NULL;
    const struct vbus_range *range = &bus->range[low - 1];
    return range_within(address - range->base, size, range->bytes) ? range : NULL;
}

static uint64_t all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(size * 8) - 1;
}

bool vbus_read(const struct vbus *bus, uint64_t address, unsigned size, uint64_t *value, uint64_t now_ns)
{
    const struct vbus_range *range = vbus_find(bus, address, size);
    if (!range || !range->ops->read) {
        *value = all_ones(size);
        return range != NULL;
    }
    *value = range->ops->read(range->device, index_mask(address - range->base, range->bytes), size, now_ns) & all_ones(size);
    return true;
}

bool vbus_write(const struct vbus *bus, uint64_t address, unsigned size, uint64_t value, uint64_t now_ns)
{
    const struct vbus_range *range = vbus_find(bus, address, size);
    if (!range)
        return false;
    if (range->ops->write)
        range->ops->write(range->device, index_mask(address - range->base, range->bytes), size, value & all_ones(size), now_ns);
    return true;
}
