/* SPDX-License-Identifier: MIT */
/*
 * The split virtqueue walker (see virtqueue.h). One rule runs through it: a value from guest memory is in a local
 * variable before it is looked at, so that a driver that changes the ring under the walk changes nothing. Each loop is
 * bounded by a number that does not come from guest memory, or was checked against one.
 *
 * Order against the driver (VIRTIO 1.2, 2.7.13): avail.idx is read before the entries it covers; used entries are
 * written before used.idx; used.idx before used_event is looked at, and avail_event before avail.idx is looked at
 * again.
 */
#include <string.h>

#include "vdev/virtqueue.h"

#include "kernel/index_mask.h"

/* Offsets in the avail and used rings. */
#define AVAIL_FLAGS 0u
#define AVAIL_IDX 2u
#define AVAIL_RING 4u
#define USED_FLAGS 0u
#define USED_IDX 2u
#define USED_RING 4u
#define USED_ENTRY_BYTES 8u

static bool is_power_of_two(uint32_t value)
{
    return value && !(value & (value - 1));
}

static uint64_t avail_bytes(const struct virtqueue *vq)
{
    return AVAIL_RING + 2ull * vq->size + (vq->shared->event_idx ? 2 : 0);
}

static uint64_t used_bytes(const struct virtqueue *vq)
{
    return USED_RING + (uint64_t)USED_ENTRY_BYTES * vq->size + (vq->shared->event_idx ? 2 : 0);
}

static bool is_ram(const struct virtqueue *vq, uint64_t gpa, uint64_t bytes)
{
    const struct gmem_ops *memory = vq->shared->memory;

    return range_within(gpa, bytes, UINT64_MAX) && memory->valid(memory->context, GPA(gpa), bytes);
}

static bool break_queue(struct virtqueue *vq, const char *reason)
{
    if (!vq->broken)
        vq->broken = reason;
    return false;
}

/* False, with shared->later set: the memory needs another turn. */
static bool prepare(struct virtqueue *vq, uint64_t gpa, uint64_t bytes)
{
    struct virtq_shared *shared = vq->shared;
    const struct gmem_ops *memory = shared->memory;

    if (memory->prepare && !memory->prepare(memory->context, GPA(gpa), bytes, &shared->budget))
        shared->later = true;
    return !shared->later;
}

static bool ring_read(struct virtqueue *vq, uint64_t gpa, void *bytes, uint64_t count)
{
    const struct gmem_ops *memory = vq->shared->memory;

    return memory->read(memory->context, GPA(gpa), bytes, count) || break_queue(vq, "a ring is not in RAM any more");
}

static bool ring_write(struct virtqueue *vq, uint64_t gpa, const void *bytes, uint64_t count)
{
    const struct gmem_ops *memory = vq->shared->memory;

    return memory->write(memory->context, GPA(gpa), bytes, count) || break_queue(vq, "a ring is not in RAM any more");
}

void virtq_init(struct virtqueue *vq, struct virtq_shared *shared, uint16_t size_max)
{
    memset(vq, 0, sizeof(*vq));
    vq->shared = shared;
    vq->size_max = size_max;
    virtq_reset(vq);
}

void virtq_reset(struct virtqueue *vq)
{
    struct virtq_shared *shared = vq->shared;
    uint16_t size_max = vq->size_max;

    memset(vq, 0, sizeof(*vq));
    vq->shared = shared;
    vq->size_max = size_max;
    vq->size = size_max;
    vq->vector = VIRTQ_NO_VECTOR;
}

static bool check_setup(struct virtqueue *vq)
{
    if (!is_power_of_two(vq->size) || vq->size > vq->size_max)
        return break_queue(vq, "queue size is no power of two or too large");
    if (vq->desc & 15 || vq->avail & 1 || vq->used & 3)
        return break_queue(vq, "a ring is not aligned");
    if (!is_ram(vq, vq->desc, sizeof(struct virtq_desc) * (uint64_t)vq->size) ||
        !is_ram(vq, vq->avail, avail_bytes(vq)) || !is_ram(vq, vq->used, used_bytes(vq)))
        return break_queue(vq, "a ring is not in RAM");
    return true;
}

bool virtq_enable(struct virtqueue *vq)
{
    if (vq->broken || !check_setup(vq))
        return false;
    vq->enabled = true;
    return true;
}

/* Copies and checks avail.idx. False: the queue is broken. */
static bool look(struct virtqueue *vq)
{
    uint16_t idx;

    if (!ring_read(vq, vq->avail + AVAIL_IDX, &idx, sizeof(idx)))
        return false;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (vq->in_flight > vq->size || (uint16_t)(idx - vq->next_avail) > vq->size - vq->in_flight)
        return break_queue(vq, "the avail index is ahead by more than the ring's size");
    vq->seen_avail = idx;
    return true;
}

/* Asks the driver to notify when it adds the next chain. */
static bool listen(struct virtqueue *vq)
{
    const uint16_t flags = 0;

    vq->notify_off = false;
    if (vq->shared->event_idx)
        return ring_write(vq, vq->used + USED_RING + (uint64_t)USED_ENTRY_BYTES * vq->size, &vq->next_avail, 2);
    return ring_write(vq, vq->used + USED_FLAGS, &flags, sizeof(flags));
}

void virtq_hush(struct virtqueue *vq)
{
    const uint16_t flags = VIRTQ_USED_NO_NOTIFY;

    if (!vq->enabled || vq->broken || vq->notify_off)
        return;
    /* With event indices an avail_event that is not moved on is silence enough. */
    if (vq->shared->event_idx || ring_write(vq, vq->used + USED_FLAGS, &flags, sizeof(flags)))
        vq->notify_off = true;
}

static bool add_segment(struct virtqueue *vq, struct virtq_chain *chain, const struct virtq_desc *desc)
{
    unsigned count = chain->readable_count + chain->writable_count;

    if (!(desc->flags & VIRTQ_DESC_WRITE) && chain->writable_bytes)
        return break_queue(vq, "a readable buffer after a writable one");
    if (!desc->bytes)
        return true;
    if (count == VIRTQ_SEGMENTS_MAX)
        return break_queue(vq, "a chain with too many buffers");
    if (!is_ram(vq, desc->address, desc->bytes))
        return break_queue(vq, "a buffer is not in RAM");
    if (!prepare(vq, desc->address, desc->bytes))
        return false;
    chain->segment[count] = (struct gmem_segment){ .gpa = GPA(desc->address), .bytes = desc->bytes };
    if (desc->flags & VIRTQ_DESC_WRITE) {
        chain->writable_count++;
        chain->writable_bytes += desc->bytes;
    } else {
        chain->readable_count++;
        chain->readable_bytes += desc->bytes;
    }
    return true;
}

/* Copies the indirect table that `desc` names; *count is its length. */
static bool open_table(struct virtqueue *vq, const struct virtq_desc *desc, unsigned *count)
{
    if (!vq->shared->indirect)
        return break_queue(vq, "an indirect table that was not negotiated");
    if (desc->flags & VIRTQ_DESC_NEXT)
        return break_queue(vq, "an indirect descriptor with a next one");
    if (!desc->bytes || desc->bytes % sizeof(struct virtq_desc))
        return break_queue(vq, "an indirect table of a wrong size");
    if (desc->bytes / sizeof(struct virtq_desc) > VIRTQ_SEGMENTS_MAX)
        return break_queue(vq, "an indirect table with too many entries");
    if (!is_ram(vq, desc->address, desc->bytes))
        return break_queue(vq, "an indirect table is not in RAM");
    if (!prepare(vq, desc->address, desc->bytes))
        return false;
    *count = desc->bytes / (unsigned)sizeof(struct virtq_desc);
    return ring_read(vq, desc->address, vq->shared->table, desc->bytes);
}

static bool walk(struct virtqueue *vq, struct virtq_chain *chain)
{
    unsigned table_count = vq->size, steps = 0;
    uint16_t index = chain->head;
    bool in_table = false;

    for (;;) {
        struct virtq_desc desc;

        if (index >= table_count)
            return break_queue(vq, "a descriptor index outside its table");
        if (steps++ == table_count)
            return break_queue(vq, "a chain longer than its table: a loop");
        if (in_table)
            desc = vq->shared->table[index_mask(index, table_count)];
        else if (!ring_read(vq, vq->desc + sizeof(desc) * (uint64_t)index, &desc, sizeof(desc)))
            return false;

        if (desc.flags & VIRTQ_DESC_INDIRECT) {
            if (in_table)
                return break_queue(vq, "an indirect table in an indirect table");
            if (!open_table(vq, &desc, &table_count))
                return false;
            in_table = true;
            index = 0;
            steps = 0;
            continue;
        }
        if (!add_segment(vq, chain, &desc))
            return false;
        if (!(desc.flags & VIRTQ_DESC_NEXT))
            return true;
        index = desc.next;
    }
}

enum virtq_result virtq_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
    if (vq->broken)
        return VIRTQ_BROKEN;
    if (!vq->enabled)
        return VIRTQ_EMPTY;
    if (vq->next_avail == vq->seen_avail && !look(vq))
        return VIRTQ_BROKEN;
    if (vq->next_avail == vq->seen_avail) {
        if (!listen(vq))
            return VIRTQ_BROKEN;
        /* The driver writes avail.idx, then looks whether to notify; we write that, then look at avail.idx. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (!look(vq))
            return VIRTQ_BROKEN;
        if (vq->next_avail == vq->seen_avail)
            return VIRTQ_EMPTY;
        virtq_hush(vq);
    }

    chain->readable_count = chain->writable_count = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (!ring_read(vq, vq->avail + AVAIL_RING + 2ull * (vq->next_avail & (vq->size - 1u)), &chain->head, 2))
        return VIRTQ_BROKEN;
    vq->shared->later = false;
    if (!walk(vq, chain))
        return vq->broken ? VIRTQ_BROKEN : VIRTQ_LATER;
    vq->next_avail++;
    vq->in_flight++;
    return VIRTQ_CHAIN;
}

void virtq_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    const uint32_t entry[2] = { head, written };

    if (vq->in_flight)
        vq->in_flight--;
    if (!vq->enabled || vq->broken)
        return;
    if (ring_write(vq, vq->used + USED_RING + (uint64_t)USED_ENTRY_BYTES * (vq->next_used & (vq->size - 1u)), entry,
                   sizeof(entry)))
        vq->next_used++;
}

bool virtq_flush(struct virtqueue *vq)
{
    uint16_t old = vq->shown_used, event, flags;

    if (!vq->enabled || vq->broken || vq->next_used == old)
        return false;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    if (!ring_write(vq, vq->used + USED_IDX, &vq->next_used, sizeof(vq->next_used)))
        return false;
    vq->shown_used = vq->next_used;
    /* The driver writes used_event, then looks at used.idx; we write that, then look at used_event. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!vq->shared->event_idx)
        return ring_read(vq, vq->avail + AVAIL_FLAGS, &flags, sizeof(flags)) && !(flags & VIRTQ_AVAIL_NO_INTERRUPT);
    if (!ring_read(vq, vq->avail + AVAIL_RING + 2ull * vq->size, &event, sizeof(event)))
        return false;
    /* Wanted when entry number `event` is among those just shown, [old, next_used), modulo 65536 (2.7.7.2). */
    return (uint16_t)(event - old) < (uint16_t)(vq->next_used - old);
}

struct virtq_mark virtq_mark(const struct virtqueue *vq)
{
    return (struct virtq_mark){ vq->next_avail, vq->next_used, vq->in_flight };
}

void virtq_rollback(struct virtqueue *vq, const struct virtq_mark *mark)
{
    vq->next_avail = mark->next_avail;
    vq->next_used = mark->next_used;
    vq->in_flight = mark->in_flight;
}

/* Copies between `bytes` and `count` segments from `offset` on; returns what was copied. */
static size_t copy(const struct virtqueue *vq, const struct gmem_segment *segment, unsigned segment_count,
                   uint64_t offset, uint8_t *bytes, size_t count, bool to_guest)
{
    const struct gmem_ops *memory = vq->shared->memory;
    size_t done = 0;

    for (unsigned i = 0; i < segment_count && done < count; i++) {
        size_t part;
        gpa_t gpa;
        bool ok;

        if (offset >= segment[i].bytes) {
            offset -= segment[i].bytes;
            continue;
        }
        part = MIN((size_t)(segment[i].bytes - offset), count - done);
        gpa = GPA(segment[i].gpa.v + offset);
        offset = 0;
        ok = to_guest ? memory->write(memory->context, gpa, bytes + done, part)
                      : memory->read(memory->context, gpa, bytes + done, part);
        if (!ok)
            break;
        done += part;
    }
    return done;
}

size_t virtq_read(const struct virtqueue *vq, const struct virtq_chain *chain, uint64_t offset, void *bytes,
                  size_t count)
{
    return copy(vq, chain->segment, chain->readable_count, offset, bytes, count, false);
}

size_t virtq_write(const struct virtqueue *vq, const struct virtq_chain *chain, uint64_t offset, const void *bytes,
                   size_t count)
{
    /* copy() reads from its buffer only when it writes to the guest, so the const is kept. */
    return copy(vq, chain->segment + chain->readable_count, chain->writable_count, offset, (uint8_t *)(uintptr_t)bytes,
                count, true);
}

void virtq_save(const struct virtqueue *vq, struct stream_writer *w)
{
    stream_put_u16(w, vq->size);
    stream_put_u16(w, vq->vector);
    stream_put_u8(w, vq->enabled);
    stream_put_u8(w, vq->broken != NULL);
    stream_put_u64(w, vq->desc);
    stream_put_u64(w, vq->avail);
    stream_put_u64(w, vq->used);
    stream_put_u16(w, vq->next_avail);
    stream_put_u16(w, vq->next_used);
}

void virtq_restore(struct virtqueue *vq, struct stream_reader *r)
{
    uint8_t enabled, broken;

    virtq_reset(vq);
    vq->size = stream_get_u16(r);
    vq->vector = stream_get_u16(r);
    enabled = stream_get_u8(r);
    broken = stream_get_u8(r);
    vq->desc = stream_get_u64(r);
    vq->avail = stream_get_u64(r);
    vq->used = stream_get_u64(r);
    vq->next_avail = vq->seen_avail = stream_get_u16(r);
    vq->next_used = vq->shown_used = stream_get_u16(r);
    if (r->error)
        return;
    if (enabled > 1 || broken > 1) {
        stream_fail(r, ERR_RANGE, "a queue's flag is neither 0 nor 1");
        return;
    }
    if (enabled && !check_setup(vq)) {
        stream_fail(r, ERR_RANGE, "virtqueue: %s", vq->broken);
        return;
    }
    if (enabled && !broken && vq->next_avail != vq->next_used) {
        stream_fail(r, ERR_RANGE, "virtqueue: %u chains taken, %u given back", vq->next_avail, vq->next_used);
        return;
    }
    vq->enabled = enabled;
    if (broken)
        vq->broken = "broken before it was saved";
    vq->notify_off = true; /* so that the next look at an empty ring writes what the driver is to see */
}
