/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of a split virtqueue (virtio 1.2, 2.7): chains of buffers out to a device and back. Pure core over
 * memory that it is given; the notification register is the driver's.
 *
 * The device may write into the used ring what it likes. What a chain consists of is kept in memory that it cannot reach,
 * and an element that names no chain it has is NONSENSE, upon which the driver resets it.
 */
#ifndef DRIVERS_VIRTIO_RING_H
#define DRIVERS_VIRTIO_RING_H

#include "kernel/types.h"

#define VIRTIO_RING_MAX 256 /* descriptors; each of the three parts fits into a page */

struct virtio_desc { /* 2.7.5 */
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
};
#define VIRTIO_DESC_NEXT 1
#define VIRTIO_DESC_WRITE 2 /* the device writes */
struct virtio_avail { /* 2.7.6 */
    uint16_t flags, idx, ring[];
};
#define VIRTIO_AVAIL_NO_INTERRUPT 1
struct virtio_used { /* 2.7.8 */
    uint16_t flags, idx;
    struct { uint32_t id, bytes; } ring[];
};
#define VIRTIO_USED_NO_NOTIFY 1

struct virtio_slot { /* of a descriptor */
    void *cookie;        /* of the chain that begins here */
    uint16_t next;       /* in its chain, or in the free list */
    uint16_t count;      /* of the chain that begins here; 0: none does */
    uint32_t writable;   /* bytes that the device may write into that chain */
};

struct virtio_ring {
    volatile struct virtio_desc *desc;
    volatile struct virtio_avail *avail;
    volatile struct virtio_used *used;
    struct virtio_slot *slot;
    uint16_t size;       /* a power of two */
    uint16_t free, free_count;
    uint16_t put, taken; /* as the indices in the rings, running free */
};

/* desc, avail and used are zeroed pages that the device can read and write; `slot` has room for `size` elements. */
void virtio_ring_init(struct virtio_ring *ring, void *desc, void *avail, void *used, struct virtio_slot *slot, uint16_t size);

struct virtio_piece {
    uint64_t address;
    uint32_t bytes; /* 1 or more */
};
/* Gives the device a chain: `out` pieces that it reads, then `in` that it writes. False: no room; nothing was done. */
bool virtio_ring_put(struct virtio_ring *ring, const struct virtio_piece *piece, unsigned out, unsigned in, void *cookie) MUST_CHECK;

enum virtio_taken { VIRTIO_NONE, VIRTIO_TAKEN, VIRTIO_NONSENSE };
/* The oldest chain that the device is done with: its cookie, and how many bytes it wrote. */
enum virtio_taken virtio_ring_take(struct virtio_ring *ring, void **cookie, uint32_t *bytes);
/* After the device was reset: any chain that it still had. False: none. */
bool virtio_ring_drop(struct virtio_ring *ring, void **cookie);

/* True if the device wants to be told of new chains. */
bool virtio_ring_wants_notice(const struct virtio_ring *ring);
/* Whether the device shall interrupt for this ring. After switching on, take once more: it may have been done meanwhile. */
void virtio_ring_interrupt(struct virtio_ring *ring, bool on);

#endif
