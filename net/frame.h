/* SPDX-License-Identifier: MIT */
/*
 * An Ethernet frame on its way through the node, and the memory that frames live in. Pure.
 *
 * A frame is a list of segments, references to bytes that somebody else may hold as well, and what is known about them:
 * length, VLAN tag, checksum, segmentation. docs/decisions/0008 has the reasons for what follows.
 *
 *   - Bytes from the destination address on, without the checksum at the end of the wire's frame, not padded.
 *   - One IEEE 802.1Q tag (type 0x8100), the outermost, is in `tci`, never in the bytes. Who takes a frame in takes the
 *     tag out, who puts it on a wire puts it back. Further tags, and 0x88a8, are payload.
 *   - **A frame does not change once it has been given away.** All who hold a reference read the same bytes. Who needs
 *     others (a tag, a checksum, smaller pieces) makes a frame of its own, whose segments may be parts of the first
 *     one's memory: it then holds a reference to that as its parent.
 *   - Segments are physically contiguous and in memory that devices may read (the direct map), so that a driver can
 *     hand them to a card as they are. They are never guest memory: what a guest could change under us is copied first.
 *
 * References. Whoever makes a frame has the first one. frame_get adds one, frame_put gives one back; with the last one
 * the frame goes to its owner's `release`, in whatever context that was. A call that takes a frame says whether it
 * takes over the caller's reference or leaves it with the caller; nothing here takes one over but frame_queue_put, and
 * only if it returns true.
 *
 * Pools. Each producer (a guest's card, a card's driver, the switch) has a pool of its own, so that a producer whose
 * frames wait somewhere runs out of its own memory and nobody else's. Frames are taken in one context; they come back
 * from any, by an atomic list, without a lock.
 */
#ifndef NET_FRAME_H
#define NET_FRAME_H

#include "kernel/types.h"

#define FRAME_CHUNK_BYTES 2048u    /* what pools hand out: two in a page; an ordinary frame fits into one */
#define FRAME_HEADROOM 64u         /* left free before the bytes of a frame that is filled in (frame_pool_get) */
#define FRAME_BYTES_MAX 65568u     /* an IP packet of 65535 bytes, an Ethernet header, inner tags */
#define FRAME_SEGMENTS_MAX 36u     /* FRAME_BYTES_MAX and headroom in chunks, and a header of its own before them */

struct frame_pool;
struct frame;

/* What gets a frame back when nobody holds it any more. Any context. */
struct frame_owner {
    void (*release)(struct frame_owner *owner, struct frame *frame);
};

struct frame_segment {
    uint8_t *at;
    uint32_t bytes; /* 1 or more */
};

/* The transport checksum (and, with `good`, nothing is promised about IPv4's own). */
enum frame_checksum {
    FRAME_CHECKSUM_THERE,   /* it stands in the frame; nobody has looked at it */
    FRAME_CHECKSUM_GOOD,    /* the same, and somebody we trust found it right (or the bytes never left this machine) */
    FRAME_CHECKSUM_MISSING, /* to be made over [checksum_start, end) and put at checksum_start + checksum_offset, where
                               the sum of the pseudo-header stands */
};

enum frame_gso {
    FRAME_GSO_NONE,
    FRAME_GSO_TCP4, /* IPv4 and TCP, to be cut into segments of gso_bytes of payload each; the checksum is MISSING */
    FRAME_GSO_TCP6,
};

struct frame {
    struct frame_owner *owner;
    struct frame *parent;       /* whose memory segments lie in, or NULL; one reference is held */
    struct frame *next;         /* the pool's list */
    uint32_t references;        /* atomic */
    uint32_t bytes;             /* of all segments */
    uint16_t segment_count;
    uint16_t own_count;         /* the first of them: the frame's own memory, which goes back with it */
    /* What is known about the bytes. */
    bool tagged;
    uint16_t tci;               /* priority, drop eligible, VLAN (0: only a priority); 0 where not tagged */
    uint8_t checksum, gso;      /* enum frame_checksum, enum frame_gso */
    bool ecn;                   /* the TCP header has CWR set: only the first piece may keep it (RFC 3168, 6.1.2) */
    uint16_t checksum_start, checksum_offset;
    uint16_t gso_bytes;         /* payload of each piece, 1 or more with GSO */
    uint16_t header_bytes;      /* with GSO: from the destination address to the end of the TCP header */
    struct frame_segment segment[FRAME_SEGMENTS_MAX];
};

static inline struct frame *frame_get(struct frame *frame)
{
    __atomic_fetch_add(&frame->references, 1, __ATOMIC_RELAXED);
    return frame;
}

/* Gives a reference back. The caller must not touch the frame any more. Any context. */
void frame_put(struct frame *frame);

/*
 * Makes a frame its maker's: one reference, no segments, nothing known. For owners of frames; `owner` stays as long as
 * the frame does.
 */
void frame_init(struct frame *frame, struct frame_owner *owner);

/* Copies `count` bytes from `offset` on out of the frame; returns how many there were. Any context. */
size_t frame_read(const struct frame *frame, uint32_t offset, void *bytes, size_t count);

/* Copies bytes into a frame that the caller alone holds, over its segments; returns how many fit. */
size_t frame_write(struct frame *frame, uint32_t offset, const void *bytes, size_t count);

/* Copies what is known about the bytes, VLAN tag included, but neither the bytes nor their count. */
void frame_copy_facts(struct frame *to, const struct frame *from);

/*
 * Appends [offset, offset + count) of `parent`'s bytes to a frame that the caller alone holds; the first call takes a
 * reference to `parent`, which must be the same in further ones. False: no segment is left, or the range is not within
 * `parent`; some of it may have been appended.
 */
bool frame_append_part(struct frame *frame, struct frame *parent, uint32_t offset, uint32_t count) MUST_CHECK;

/* ---- Pools ---- */

struct frame_chunk { uint8_t bytes[FRAME_CHUNK_BYTES]; } ALIGNED(64);

struct frame_pool {
    struct frame_owner owner;
    struct frame *frames;        /* frame_count of them */
    struct frame_chunk *chunks;  /* chunk_count of them */
    uint32_t frame_count, chunk_count;
    /* Only where frames are taken: */
    struct frame *free_frames;
    uint32_t free_frame_count, free_chunk_count;
    uint32_t *free_chunks;       /* numbers of free chunks: a stack */
    /* Any context: */
    struct frame *returned;      /* atomic */
    uint32_t releasing;          /* atomic: how many are just giving a frame back */
    uint32_t wanted;             /* atomic: somebody waits for `freed` */
    void (*freed)(void *context);
    void *context;
};

/*
 * All memory is the caller's and stays: frames, chunks (page-aligned or not, each within physically contiguous
 * memory), and room for chunk_count numbers. `freed` (may be NULL) is called, once and in any context, when a frame
 * came back after frame_pool_has said no: it may only wake somebody.
 */
void frame_pool_init(struct frame_pool *pool, struct frame *frames, uint32_t frame_count, struct frame_chunk *chunks,
                     uint32_t *chunk_numbers, uint32_t chunk_count, void (*freed)(void *context), void *context);

/*
 * True if a frame of `bytes` can be had now. False: `freed` will be called when something has come back. The pool's one
 * context, as the next.
 */
bool frame_pool_has(struct frame_pool *pool, uint32_t bytes) MUST_CHECK;

/*
 * How many of its frames are in use, or how many that would be if chunks are scarcer; it has some of both. The pool's
 * context.
 */
uint32_t frame_pool_in_use(struct frame_pool *pool);

/*
 * A frame with segments for `bytes` (0 to FRAME_BYTES_MAX) in memory that nobody else holds, after FRAME_HEADROOM free
 * bytes in the first chunk; what the memory holds is anything. With 0 it has no segments. NULL: the pool has not got
 * that much.
 */
struct frame *frame_pool_get(struct frame_pool *pool, uint32_t bytes);

/*
 * Puts `count` (1 to FRAME_HEADROOM at most, over all calls) bytes of room before the first segment of a frame that
 * frame_pool_get made and the caller alone holds; returns where they are.
 */
uint8_t *frame_push_head(struct frame *frame, uint32_t count);

/*
 * True if all frames are back, and nobody is still at it: the pool's memory may go, and `freed` is not called any more.
 * One context, when nobody takes frames any more.
 */
bool frame_pool_idle(struct frame_pool *pool);

/* ---- Queues between two contexts ---- */

/*
 * Frames from one producer's context to a consumer's. Either side may be on any CPU. The consumer's side is guarded by
 * a flag, so that somebody else may empty a queue whose consumer does not come (frame_queue_purge): who finds the flag
 * taken gets nothing.
 */
struct frame_queue {
    struct frame **slot;
    uint32_t size;           /* of slot[], a power of two */
    uint32_t put, taken;     /* atomic, run free */
    uint32_t consuming;      /* atomic flag */
    uint32_t producer_waits; /* atomic flag */
};

void frame_queue_init(struct frame_queue *q, struct frame **slots, uint32_t size);

/* Takes over the caller's reference. False: full, and the reference stays with the caller. The producer's context. */
bool frame_queue_put(struct frame_queue *q, struct frame *frame) MUST_CHECK;
/*
 * True if there is room. False: the next frame_queue_take or _purge that makes room says so to its caller. The
 * producer's context.
 */
bool frame_queue_has_room(struct frame_queue *q) MUST_CHECK;
uint32_t frame_queue_count(const struct frame_queue *q);

/* The consumer's side, for a burst: false: somebody else is at it. */
bool frame_queue_begin(struct frame_queue *q) MUST_CHECK;
/* The oldest frame, which stays in the queue, or NULL. Between begin and end. */
struct frame *frame_queue_first(const struct frame_queue *q);
/* Takes the oldest one out, with its reference. Between begin and end; frame_queue_first was not NULL. */
struct frame *frame_queue_take(struct frame_queue *q);
/* Ends the burst. True: the producer waited for room, and there is some now: it is to be woken. */
bool frame_queue_end(struct frame_queue *q);

/* Gives back all frames that wait; returns how many. Any context. *wake as frame_queue_end. */
uint32_t frame_queue_purge(struct frame_queue *q, bool *wake);

#endif
