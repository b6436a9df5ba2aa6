/* SPDX-License-Identifier: MIT */
/*
 * Descriptor rings of the Intel gigabit family. See e1000_ring.h.
 *
 * The card writes descriptors while they are read here, so they are volatile, and "done" is read with an acquire: what the
 * card wrote before it is then seen. What a descriptor says otherwise (its length) is checked against what the buffer has.
 */
#include "drivers/e1000_ring.h"

#include <string.h>

#define TRANSMIT_PIECE_MAX 16288

static unsigned wrap(unsigned at, unsigned count)
{
    return at >= count ? at - count : at;
}

static unsigned used(unsigned next, unsigned tail, unsigned count)
{
    return wrap(tail + count - next, count);
}

/* ---- Receiving ---- */

void e1000_receive_init(struct e1000_receive_ring *ring, void *desc, unsigned count, uint32_t buffer_bytes)
{
    memset(desc, 0, count * sizeof(struct e1000_receive));
    *ring = (struct e1000_receive_ring){ .desc = desc, .count = count, .buffer_bytes = buffer_bytes };
}

unsigned e1000_receive_room(const struct e1000_receive_ring *ring)
{
    return ring->count - 1 - used(ring->next, ring->tail, ring->count);
}

unsigned e1000_receive_give(struct e1000_receive_ring *ring, uint64_t buffer)
{
    unsigned at = ring->tail;
    volatile struct e1000_receive *d = &ring->desc[at];

    d->address = buffer;
    d->bytes = 0;
    d->errors = 0;
    d->status = 0;
    ring->tail = wrap(at + 1, ring->count);
    return at;
}

uint32_t e1000_receive_bytes(const struct e1000_receive_ring *ring, unsigned at)
{
    return ring->desc[at].bytes;
}

static bool checksum_good(uint8_t status, uint8_t errors)
{
    if (status & E1000_RECEIVE_NO_CHECKSUM || errors & (E1000_ERROR_TCP_CHECKSUM | E1000_ERROR_IP_CHECKSUM))
        return false;
    return status & E1000_RECEIVE_TCP_CHECKSUM;
}

enum e1000_frame e1000_receive_take(struct e1000_receive_ring *ring, unsigned max_pieces, uint32_t max_bytes,
                                    struct e1000_received *frame)
{
    unsigned held = used(ring->next, ring->tail, ring->count), at = ring->next;
    enum e1000_frame result = E1000_FRAME_GOOD;
    uint64_t bytes = 0;

    for (unsigned count = 1; count <= held; count++, at = wrap(at + 1, ring->count)) {
        volatile struct e1000_receive *d = &ring->desc[at];
        uint8_t status = __atomic_load_n(&d->status, __ATOMIC_ACQUIRE);
        if (!(status & E1000_RECEIVE_DONE))
            break;
        uint32_t length = d->bytes;
        uint8_t errors = d->errors;
        bytes += length;
        if (length > ring->buffer_bytes)
            result = E1000_FRAME_NONSENSE;
        else if (result == E1000_FRAME_GOOD && (count > max_pieces || bytes > max_bytes))
            result = E1000_FRAME_TOO_LONG;
        bool end = status & E1000_RECEIVE_END;
        if (end && result == E1000_FRAME_GOOD && (errors & E1000_ERROR_FRAME))
            result = E1000_FRAME_DAMAGED;
        if (!end && count < held && result != E1000_FRAME_NONSENSE)
            continue;
        if (!end && result == E1000_FRAME_GOOD)
            result = E1000_FRAME_TOO_LONG; /* all of the ring, and no end: nothing more can come */
        *frame = (struct e1000_received){ .first = ring->next, .count = count, .bytes = (uint32_t)bytes,
                                          .checksum_good = checksum_good(status, errors) };
        ring->next = wrap(at + 1, ring->count);
        return result;
    }
    return E1000_FRAME_NONE;
}

/* ---- Sending ---- */

void e1000_transmit_init(struct e1000_transmit_ring *ring, void *desc, struct e1000_sent *sent, unsigned count)
{
    memset(desc, 0, count * sizeof(struct e1000_transmit));
    *ring = (struct e1000_transmit_ring){ .desc = desc, .sent = sent, .count = count };
}

unsigned e1000_transmit_room(const struct e1000_transmit_ring *ring)
{
    return ring->count - 1 - used(ring->next, ring->tail, ring->count);
}

bool e1000_transmit_put(struct e1000_transmit_ring *ring, const struct e1000_piece *piece, unsigned pieces, void *cookie,
                        unsigned checksum_start, unsigned checksum_at)
{
    uint8_t command = E1000_TRANSMIT_FCS | (checksum_at ? E1000_TRANSMIT_CHECKSUM : 0);
    const uint8_t last = E1000_TRANSMIT_END | E1000_TRANSMIT_REPORT | E1000_TRANSMIT_DELAY;
    unsigned at = ring->tail;

    if (!pieces || pieces > e1000_transmit_room(ring) || checksum_start > 255 || checksum_at > 255)
        return false;
    for (unsigned i = 0; i < pieces; i++)
        if (!piece[i].bytes || piece[i].bytes > TRANSMIT_PIECE_MAX)
            return false;
    for (unsigned i = 0; i < pieces; i++, at = wrap(at + 1, ring->count)) {
        volatile struct e1000_transmit *d = &ring->desc[at];
        d->address = piece[i].address;
        d->bytes = (uint16_t)piece[i].bytes;
        d->checksum_start = checksum_at ? (uint8_t)checksum_start : 0;
        d->checksum_at = (uint8_t)checksum_at;
        d->special = 0;
        d->status = 0;
        d->command = (uint8_t)(command | (i + 1 == pieces ? last : 0));
        ring->sent[ring->tail] = (struct e1000_sent){ cookie, at };
    }
    ring->tail = at;
    return true;
}

bool e1000_transmit_drop(struct e1000_transmit_ring *ring, void **cookie)
{
    const struct e1000_sent *oldest = &ring->sent[ring->next];

    if (ring->next == ring->tail)
        return false;
    *cookie = oldest->cookie;
    ring->next = wrap(oldest->end + 1, ring->count);
    return true;
}

bool e1000_transmit_take(struct e1000_transmit_ring *ring, void **cookie)
{
    if (ring->next == ring->tail)
        return false;
    uint8_t status = __atomic_load_n(&ring->desc[ring->sent[ring->next].end].status, __ATOMIC_ACQUIRE);
    return (status & E1000_TRANSMIT_DONE) && e1000_transmit_drop(ring, cookie);
}
