/* SPDX-License-Identifier: MIT */
/*
 * The split virtqueue, device side (VIRTIO 1.2, 2.7). Everything in guest memory is the driver's word: each index and
 * each descriptor is copied once, the copy is checked, and only the copy is used. What breaks the rules breaks the
 * queue, with a reason, until the driver resets the device; it never costs more than a bounded walk.
 *
 *   - avail.idx more than the ring's size (less what is in flight) ahead; a head or next outside the table;
 *   - a chain longer than the ring (so every loop ends), an indirect table inside another, one with NEXT, of no or a
 *     ragged size, or with more than VIRTQ_SEGMENTS_MAX entries;
 *   - a readable descriptor behind a writable one; a buffer that is not RAM from end to end.
 *
 * Descriptors of length 0 are skipped. Rings and buffers are reached through struct gmem_ops only. Device lock context.
 */
#ifndef VDEV_VIRTQUEUE_H
#define VDEV_VIRTQUEUE_H

#include "vdev/vdev.h"

#define VIRTQ_SIZE_MAX 1024    /* the largest ring that a device may offer */
#define VIRTQ_SEGMENTS_MAX 128 /* buffers of one chain */

/* Layout in guest memory (VIRTIO 1.2, 2.7.5). */
#define VIRTQ_DESC_NEXT 1u
#define VIRTQ_DESC_WRITE 2u
#define VIRTQ_DESC_INDIRECT 4u
#define VIRTQ_AVAIL_NO_INTERRUPT 1u
#define VIRTQ_USED_NO_NOTIFY 1u
struct virtq_desc { uint64_t address; uint32_t bytes; uint16_t flags, next; };
_Static_assert(sizeof(struct virtq_desc) == 16, "virtq_desc is 16 bytes in guest memory");

/* What the queues of one device share. */
struct virtq_shared {
    const struct gmem_ops *memory;
    bool event_idx, indirect;                    /* negotiated features */
    unsigned budget;                             /* what gmem_ops.prepare may still do in this turn */
    bool later;                                  /* the chain that is being walked needs more than that */
    struct virtq_desc table[VIRTQ_SEGMENTS_MAX]; /* the copy of an indirect table while a chain is walked */
};

struct virtqueue {
    struct virtq_shared *shared;
    uint16_t size_max; /* what the device offers */
    /* Set by the driver before it enables the queue. */
    uint16_t size;
    bool enabled;
    uint16_t vector; /* MSI-X vector, VIRTQ_NO_VECTOR: none */
    uint64_t desc, avail, used;
    /* Walker's state. All indices run free and wrap at 65536. */
    uint16_t next_avail;   /* next entry of avail to take */
    uint16_t seen_avail;   /* avail.idx as last copied and checked */
    uint16_t next_used;    /* next entry of used to fill */
    uint16_t shown_used;   /* used.idx as the driver was last told */
    uint16_t in_flight;    /* chains taken and not pushed back */
    bool notify_off;       /* the driver was asked not to notify */
    const char *broken;    /* NULL, or what the driver did wrong */
};
#define VIRTQ_NO_VECTOR 0xffffu

/* One buffer chain, copied: device-readable segments first, then the device-writable ones. */
struct virtq_chain {
    uint16_t head;
    uint32_t generation; /* of the device, filled by its owner: a chain of an earlier life is never pushed */
    unsigned readable_count, writable_count;
    uint64_t readable_bytes, writable_bytes;
    struct gmem_segment segment[VIRTQ_SEGMENTS_MAX];
};

enum virtq_result { VIRTQ_EMPTY, VIRTQ_CHAIN, VIRTQ_BROKEN, VIRTQ_LATER };

/* size_max: power of two, 1 to VIRTQ_SIZE_MAX. */
void virtq_init(struct virtqueue *vq, struct virtq_shared *shared, uint16_t size_max);
/* Forgets everything that the driver set. */
void virtq_reset(struct virtqueue *vq);
/* The driver enables the queue: checks size, alignment and that the rings are RAM. False: vq->broken says why. */
bool virtq_enable(struct virtqueue *vq);

/*
 * Takes the next chain. VIRTQ_EMPTY: nothing there, and the driver will notify when there is (notifications are
 * switched on and the ring is looked at again before it says so). VIRTQ_BROKEN: vq->broken says why. VIRTQ_LATER: its
 * memory could not be prepared within shared->budget; it has not been taken, and is walked anew the next time.
 */
enum virtq_result virtq_pop(struct virtqueue *vq, struct virtq_chain *chain);
/* Asks the driver not to notify, until the next VIRTQ_EMPTY. A hint: it may notify all the same. */
void virtq_hush(struct virtqueue *vq);
/*
 * Gives a chain back: `written` bytes were written into its writable segments. The driver sees it at virtq_flush.
 * A head that the guest has put into flight twice is its own mistake and harmless here.
 */
void virtq_push(struct virtqueue *vq, uint16_t head, uint32_t written);
/* Shows the driver all that was pushed. True: it wants an interrupt for it. */
bool virtq_flush(struct virtqueue *vq);

/*
 * Undoing: where the walker stands, and back to there, so that chains taken since can be taken anew and those given
 * back since were not. Allowed as long as virtq_flush has not shown any of it to the driver. What was written into
 * their buffers stays written: they are the device's until it gives them back.
 */
struct virtq_mark { uint16_t next_avail, next_used, in_flight; };
struct virtq_mark virtq_mark(const struct virtqueue *vq);
void virtq_rollback(struct virtqueue *vq, const struct virtq_mark *mark);

/*
 * Copies between a chain and a flat buffer, starting `offset` bytes into its readable (or writable) segments. Returns
 * the bytes copied: fewer than count where the chain ends or memory refuses.
 */
size_t virtq_read(const struct virtqueue *vq, const struct virtq_chain *chain, uint64_t offset, void *bytes,
                  size_t count);
size_t virtq_write(const struct virtqueue *vq, const struct virtq_chain *chain, uint64_t offset, const void *bytes,
                   size_t count);

/* Queue state inside the owner's section. Nothing may be in flight. Restore checks ranges and fails the stream. */
void virtq_save(const struct virtqueue *vq, struct stream_writer *w);
void virtq_restore(struct virtqueue *vq, struct stream_reader *r);

#endif
