/* SPDX-License-Identifier: MIT */
/*
 * Frames, pools and queues (see frame.h).
 *
 * A pool's frames come back on `returned`, a list that any context pushes to and that only the pool's own context
 * empties, whole, by one exchange. So no element is ever taken from it while others look at it, and a compare-exchange
 * cannot be fooled by an element that left and came again.
 *
 * Two flags let one side sleep: `wanted` of a pool and `producer_waits` of a queue. Who sets one looks again
 * afterwards; who makes room does that first and looks at the flag then. Both orders are sequentially consistent, so
 * one of the two sees the other.
 */
#include <string.h>

#include "net/frame.h"

void frame_put(struct frame *frame)
{
    while (frame && __atomic_sub_fetch(&frame->references, 1, __ATOMIC_ACQ_REL) == 0) {
        struct frame *parent = frame->parent;

        frame->owner->release(frame->owner, frame);
        frame = parent;
    }
}

void frame_init(struct frame *frame, struct frame_owner *owner)
{
    frame->owner = owner;
    frame->parent = frame->next = NULL;
    frame->references = 1;
    frame->bytes = 0;
    frame->segment_count = frame->own_count = 0;
    frame->tagged = frame->ecn = false;
    frame->tci = 0;
    frame->checksum = FRAME_CHECKSUM_THERE;
    frame->gso = FRAME_GSO_NONE;
    frame->checksum_start = frame->checksum_offset = 0;
    frame->gso_bytes = frame->header_bytes = 0;
}

void frame_copy_facts(struct frame *to, const struct frame *from)
{
    to->tagged = from->tagged;
    to->tci = from->tci;
    to->checksum = from->checksum;
    to->gso = from->gso;
    to->ecn = from->ecn;
    to->checksum_start = from->checksum_start;
    to->checksum_offset = from->checksum_offset;
    to->gso_bytes = from->gso_bytes;
    to->header_bytes = from->header_bytes;
}

/* One loop for both directions: what is copied to is the segments' bytes or the caller's. */
static size_t copy(const struct frame *frame, uint32_t offset, uint8_t *to, const uint8_t *from, size_t count)
{
    size_t done = 0;

    for (unsigned i = 0; i < frame->segment_count && done < count; i++) {
        const struct frame_segment *s = &frame->segment[i];
        size_t part;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        part = MIN((size_t)(s->bytes - offset), count - done);
        if (to)
            memcpy(to + done, s->at + offset, part);
        else
            memcpy(s->at + offset, from + done, part);
        offset = 0;
        done += part;
    }
    return done;
}

size_t frame_read(const struct frame *frame, uint32_t offset, void *bytes, size_t count)
{
    const struct frame_segment *s = &frame->segment[0];

    if (frame->segment_count && range_within(offset, count, s->bytes)) { /* headers, nearly always */
        memcpy(bytes, s->at + offset, count);
        return count;
    }
    return copy(frame, offset, bytes, NULL, count);
}

size_t frame_write(struct frame *frame, uint32_t offset, const void *bytes, size_t count)
{
    return copy(frame, offset, NULL, bytes, count);
}

bool frame_append_part(struct frame *frame, struct frame *parent, uint32_t offset, uint32_t count)
{
    if (!range_within(offset, count, parent->bytes))
        return false;
    if (!frame->parent)
        frame->parent = frame_get(parent);
    for (unsigned i = 0; i < parent->segment_count && count; i++) {
        const struct frame_segment *s = &parent->segment[i];
        uint32_t part;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        if (frame->segment_count == FRAME_SEGMENTS_MAX)
            return false;
        part = MIN(s->bytes - offset, count);
        frame->segment[frame->segment_count++] = (struct frame_segment){ s->at + offset, part };
        frame->bytes += part;
        count -= part;
        offset = 0;
    }
    return true;
}

/* ---- Pools ---- */

static void release(struct frame_owner *owner, struct frame *frame)
{
    struct frame_pool *pool = CONTAINER_OF(owner, struct frame_pool, owner);
    struct frame *first = __atomic_load_n(&pool->returned, __ATOMIC_RELAXED);

    __atomic_fetch_add(&pool->releasing, 1, __ATOMIC_SEQ_CST);
    do
        frame->next = first;
    while (!__atomic_compare_exchange_n(&pool->returned, &first, frame, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    if (__atomic_load_n(&pool->wanted, __ATOMIC_SEQ_CST) && __atomic_exchange_n(&pool->wanted, 0, __ATOMIC_SEQ_CST) &&
        pool->freed)
        pool->freed(pool->context);
    __atomic_fetch_sub(&pool->releasing, 1, __ATOMIC_RELEASE); /* the last that is touched of the pool */
}

void frame_pool_init(struct frame_pool *pool, struct frame *frames, uint32_t frame_count, struct frame_chunk *chunks,
                     uint32_t *chunk_numbers, uint32_t chunk_count, void (*freed)(void *context), void *context)
{
    memset(pool, 0, sizeof(*pool));
    pool->owner.release = release;
    pool->frames = frames;
    pool->chunks = chunks;
    pool->frame_count = pool->free_frame_count = frame_count;
    pool->chunk_count = pool->free_chunk_count = chunk_count;
    pool->free_chunks = chunk_numbers;
    pool->freed = freed;
    pool->context = context;
    for (uint32_t i = 0; i < frame_count; i++) {
        frames[i].next = pool->free_frames;
        pool->free_frames = &frames[i];
    }
    for (uint32_t i = 0; i < chunk_count; i++)
        chunk_numbers[i] = chunk_count - 1 - i;
}

static void free_chunks(struct frame_pool *pool, const struct frame *frame)
{
    for (unsigned i = 0; i < frame->own_count; i++) {
        size_t offset = (size_t)(frame->segment[i].at - pool->chunks->bytes);

        pool->free_chunks[pool->free_chunk_count++] = (uint32_t)(offset / sizeof(struct frame_chunk));
    }
}

static void collect(struct frame_pool *pool)
{
    struct frame *frame = __atomic_exchange_n(&pool->returned, NULL, __ATOMIC_SEQ_CST);

    while (frame) {
        struct frame *next = frame->next;

        free_chunks(pool, frame);
        frame->next = pool->free_frames;
        pool->free_frames = frame;
        pool->free_frame_count++;
        frame = next;
    }
}

static uint32_t chunks_for(uint32_t bytes)
{
    return bytes ? (bytes + FRAME_HEADROOM + FRAME_CHUNK_BYTES - 1) / FRAME_CHUNK_BYTES : 0;
}

static bool has(const struct frame_pool *pool, uint32_t bytes)
{
    return pool->free_frames && pool->free_chunk_count >= chunks_for(bytes);
}

bool frame_pool_has(struct frame_pool *pool, uint32_t bytes)
{
    if (has(pool, bytes))
        return true;
    collect(pool);
    if (has(pool, bytes))
        return true;
    __atomic_store_n(&pool->wanted, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->returned, __ATOMIC_SEQ_CST))
        collect(pool);
    if (!has(pool, bytes))
        return false;
    __atomic_store_n(&pool->wanted, 0, __ATOMIC_SEQ_CST);
    return true;
}

uint32_t frame_pool_in_use(struct frame_pool *pool)
{
    if (__atomic_load_n(&pool->returned, __ATOMIC_RELAXED))
        collect(pool);
    return pool->frame_count - MIN(pool->free_frame_count, pool->free_chunk_count * pool->frame_count / pool->chunk_count);
}

struct frame *frame_pool_get(struct frame_pool *pool, uint32_t bytes)
{
    struct frame *frame;
    uint32_t head = FRAME_HEADROOM;

    if (bytes > FRAME_BYTES_MAX)
        return NULL;
    if (!has(pool, bytes))
        collect(pool);
    if (!has(pool, bytes))
        return NULL;
    frame = pool->free_frames;
    pool->free_frames = frame->next;
    pool->free_frame_count--;
    frame_init(frame, &pool->owner);
    frame->bytes = bytes;
    while (bytes) {
        struct frame_chunk *chunk = &pool->chunks[pool->free_chunks[--pool->free_chunk_count]];
        uint32_t part = MIN(bytes, FRAME_CHUNK_BYTES - head);

        frame->segment[frame->segment_count++] = (struct frame_segment){ chunk->bytes + head, part };
        bytes -= part;
        head = 0;
    }
    frame->own_count = frame->segment_count;
    return frame;
}

uint8_t *frame_push_head(struct frame *frame, uint32_t count)
{
    frame->segment[0].at -= count;
    frame->segment[0].bytes += count;
    frame->bytes += count;
    return frame->segment[0].at;
}

bool frame_pool_idle(struct frame_pool *pool)
{
    collect(pool);
    return pool->free_frame_count == pool->frame_count && !__atomic_load_n(&pool->releasing, __ATOMIC_ACQUIRE);
}

/* ---- Queues ---- */

void frame_queue_init(struct frame_queue *q, struct frame **slots, uint32_t size)
{
    memset(q, 0, sizeof(*q));
    q->slot = slots;
    q->size = size;
}

uint32_t frame_queue_count(const struct frame_queue *q)
{
    uint32_t taken = __atomic_load_n(&q->taken, __ATOMIC_ACQUIRE);

    return __atomic_load_n(&q->put, __ATOMIC_ACQUIRE) - taken;
}

static bool full(const struct frame_queue *q)
{
    return q->put - __atomic_load_n(&q->taken, __ATOMIC_SEQ_CST) == q->size;
}

bool frame_queue_put(struct frame_queue *q, struct frame *frame)
{
    if (full(q))
        return false;
    q->slot[q->put & (q->size - 1)] = frame;
    __atomic_store_n(&q->put, q->put + 1, __ATOMIC_RELEASE);
    return true;
}

bool frame_queue_has_room(struct frame_queue *q)
{
    if (!full(q))
        return true;
    __atomic_store_n(&q->producer_waits, 1, __ATOMIC_SEQ_CST);
    if (full(q))
        return false;
    __atomic_store_n(&q->producer_waits, 0, __ATOMIC_SEQ_CST);
    return true;
}

bool frame_queue_begin(struct frame_queue *q)
{
    return !__atomic_exchange_n(&q->consuming, 1, __ATOMIC_ACQUIRE);
}

struct frame *frame_queue_first(const struct frame_queue *q)
{
    if (q->taken == __atomic_load_n(&q->put, __ATOMIC_ACQUIRE))
        return NULL;
    return q->slot[q->taken & (q->size - 1)];
}

struct frame *frame_queue_take(struct frame_queue *q)
{
    struct frame *frame = q->slot[q->taken & (q->size - 1)];

    __atomic_store_n(&q->taken, q->taken + 1, __ATOMIC_SEQ_CST);
    return frame;
}

bool frame_queue_end(struct frame_queue *q)
{
    bool room = frame_queue_count(q) < q->size;

    __atomic_store_n(&q->consuming, 0, __ATOMIC_RELEASE);
    return room && __atomic_load_n(&q->producer_waits, __ATOMIC_SEQ_CST) &&
           __atomic_exchange_n(&q->producer_waits, 0, __ATOMIC_SEQ_CST);
}

uint32_t frame_queue_purge(struct frame_queue *q, bool *wake)
{
    uint32_t count = 0;

    *wake = false;
    if (!frame_queue_begin(q))
        return 0;
    while (frame_queue_first(q)) {
        frame_put(frame_queue_take(q));
        count++;
    }
    *wake = frame_queue_end(q);
    return count;
}
