/* SPDX-License-Identifier: MIT */
/* The driver's side of a split virtqueue. See virtio_ring.h. */
#include "drivers/virtio_ring.h"

#define END 0xffff

void virtio_ring_init(struct virtio_ring *ring, void *desc, void *avail, void *used, struct virtio_slot *slot, uint16_t size)
{
    *ring = (struct virtio_ring){ .desc = desc, .avail = avail, .used = used, .slot = slot, .size = size, .free_count = size };
    for (uint16_t i = 0; i < size; i++)
        slot[i] = (struct virtio_slot){ .next = (uint16_t)(i + 1 < size ? i + 1 : END) };
}

bool virtio_ring_put(struct virtio_ring *ring, const struct virtio_piece *piece, unsigned out, unsigned in, void *cookie)
{
    unsigned count = out + in;
    uint16_t head = ring->free, at = head;
    uint32_t writable = 0;

    if (!count || count > ring->free_count)
        return false;
    for (unsigned i = 0; i < count; i++, at = ring->slot[at].next) {
        volatile struct virtio_desc *d = &ring->desc[at];
        bool last = i + 1 == count;
        d->address = piece[i].address;
        d->bytes = piece[i].bytes;
        d->flags = (uint16_t)((i >= out ? VIRTIO_DESC_WRITE : 0) | (last ? 0 : VIRTIO_DESC_NEXT));
        d->next = last ? 0 : ring->slot[at].next;
        writable += i >= out ? piece[i].bytes : 0;
        ring->free = ring->slot[at].next;
    }
    ring->free_count = (uint16_t)(ring->free_count - count);
    ring->slot[head].cookie = cookie;
    ring->slot[head].count = (uint16_t)count;
    ring->slot[head].writable = writable;
    ring->avail->ring[ring->put % ring->size] = head;
    ring->put++;
    __atomic_store_n(&ring->avail->idx, ring->put, __ATOMIC_RELEASE);
    return true;
}

static void *release(struct virtio_ring *ring, uint16_t head)
{
    struct virtio_slot *slot = &ring->slot[head];
    uint16_t last = head;

    for (unsigned i = 1; i < slot->count; i++)
        last = ring->slot[last].next;
    ring->slot[last].next = ring->free;
    ring->free = head;
    ring->free_count = (uint16_t)(ring->free_count + slot->count);
    slot->count = 0;
    return slot->cookie;
}

enum virtio_taken virtio_ring_take(struct virtio_ring *ring, void **cookie, uint32_t *bytes)
{
    uint16_t idx = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);

    if (idx == ring->taken)
        return VIRTIO_NONE;
    uint32_t id = ring->used->ring[ring->taken % ring->size].id;
    *bytes = ring->used->ring[ring->taken % ring->size].bytes;
    if ((uint16_t)(idx - ring->taken) > ring->size || id >= ring->size || !ring->slot[id].count ||
        *bytes > ring->slot[id].writable)
        return VIRTIO_NONSENSE;
    ring->taken++;
    *cookie = release(ring, (uint16_t)id);
    return VIRTIO_TAKEN;
}

bool virtio_ring_drop(struct virtio_ring *ring, void **cookie)
{
    for (uint16_t i = 0; i < ring->size; i++) {
        if (ring->slot[i].count) {
            *cookie = release(ring, i);
            return true;
        }
    }
    return false;
}

bool virtio_ring_wants_notice(const struct virtio_ring *ring)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index is written before the flag is read (2.7.13.3.1) */
    return !(ring->used->flags & VIRTIO_USED_NO_NOTIFY);
}

void virtio_ring_interrupt(struct virtio_ring *ring, bool on)
{
    ring->avail->flags = on ? 0 : VIRTIO_AVAIL_NO_INTERRUPT;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
