/* SPDX-License-Identifier: MIT */
/*
 * Checksums and cutting in software (see offload.h). Sums are over 16-bit words as they stand in memory (RFC 1071,
 * 2(B): the order of bytes does not matter to them), folded late; only what goes into a header is in the network's
 * order.
 *
 * Where a header begins is a guest's word: it is checked, and masked before it leads to the next one (index_mask.h).
 */
#include <string.h>

#include "net/checksum.h"
#include "net/ethernet.h"
#include "net/ip.h"
#include "net/offload.h"

#include "kernel/bytes.h"
#include "kernel/index_mask.h"

/* Fields of the headers that only this file reads, beside net/ip.h (RFC 791, RFC 8200). */
#define IP4_FRAGMENT_MASK 0x3fffu /* more fragments, offset */
#define IP6_HOP_OPTIONS 0u
#define IP6_ROUTING 43u
#define IP6_FRAGMENT 44u
#define IP6_DESTINATION_OPTIONS 60u
#define IP6_EXTENSIONS_MAX 8u
#define IP6_EXTENSION_BYTES 8u /* the smallest */
#define IP6_SEGMENTS_LEFT 3u   /* in a routing header */

/* So that a tag among the bytes does not move it out of its 16 bits. */
#define CHECKSUM_START_MAX (UINT16_MAX - 2 * ETH_TAG_BYTES)

/* ---- Sums ---- */

static uint32_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* A sum as it is meant in headers: its first byte is the high one. */
static uint16_t swap(uint32_t sum)
{
    return (uint16_t)((sum & 0xff) << 8 | sum >> 8);
}

uint16_t offload_sum(const struct frame *frame, uint32_t offset, uint32_t count)
{
    uint64_t sum = 0;
    bool odd = false; /* the bytes so far end in the middle of a word */

    for (unsigned i = 0; i < frame->segment_count && count; i++) {
        const struct frame_segment *s = &frame->segment[i];
        uint32_t part, here;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        part = MIN(s->bytes - offset, count);
        here = fold(net_sum(s->at + offset, part));
        sum += odd ? swap(here) : here;
        odd ^= part & 1;
        count -= part;
        offset = 0;
    }
    return swap(fold(sum));
}

/* What goes into a header for that sum. 0 would mean "none" to UDP (RFC 768), and 0xffff is the same number to all. */
static uint16_t sealed(uint32_t sum)
{
    uint16_t value = (uint16_t)~fold(sum);

    return value ? value : 0xffff;
}

/* The sum of addresses, protocol and length that stands before TCP's own (RFC 9293, 3.1; RFC 8200, 8.1). */
static uint32_t pseudo_sum(const struct offload_headers *h, uint32_t transport_bytes)
{
    const uint8_t *ip = h->bytes + h->network;
    uint64_t sum = h->is_ip6 ? fold(net_sum(ip + IP6_SOURCE, 32)) : fold(net_sum(ip + IP4_SOURCE, 8));

    return fold((uint64_t)swap(fold(sum)) + h->protocol + (transport_bytes >> 16) + (transport_bytes & 0xffff));
}

/*
 * The same for a piece of `transport_bytes`. On the way by a routing header the sum has the last destination, which stands
 * somewhere in that header, by its kind: then it is taken from the sum for the whole that whoever sent the frame put there.
 */
static uint32_t piece_sum(const struct offload_headers *h, uint32_t transport_bytes)
{
    uint32_t whole_bytes = h->packet_bytes - (h->transport - h->network);

    if (!h->is_routed)
        return pseudo_sum(h, transport_bytes);
    return fold((uint64_t)be16_get(h->bytes + h->transport + TCP_SUM) + (0xffff - whole_bytes) + transport_bytes);
}

/* ---- Headers ---- */

static bool headers_ip4(struct offload_headers *h)
{
    const uint8_t *ip = h->bytes + h->network;
    uint32_t header_bytes;

    if (!range_within(h->network, IP4_BYTES, h->count) || ip[0] >> 4 != 4)
        return false;
    header_bytes = (ip[0] & 15u) * 4;
    h->packet_bytes = be16_get(ip + IP4_TOTAL);
    if (header_bytes < IP4_BYTES || !range_within(h->network, header_bytes, h->count) || h->packet_bytes < header_bytes)
        return false;
    h->is_fragment = be16_get(ip + IP4_FRAGMENT) & IP4_FRAGMENT_MASK;
    h->protocol = h->is_fragment ? 0 : ip[IP4_PROTOCOL];
    h->transport = h->network + header_bytes;
    return true;
}

static bool headers_ip6(struct offload_headers *h)
{
    const uint8_t *ip = h->bytes + h->network;
    uint32_t at = h->network + IP6_BYTES;
    uint8_t next;

    if (!range_within(h->network, IP6_BYTES, h->count) || ip[0] >> 4 != 6)
        return false;
    h->is_ip6 = true;
    h->packet_bytes = IP6_BYTES + be16_get(ip + IP6_PAYLOAD);
    next = ip[IP6_NEXT];
    for (unsigned i = 0; i < IP6_EXTENSIONS_MAX; i++) {
        if (next == IP6_FRAGMENT) {
            h->is_fragment = true;
            next = 0xff;
        }
        if (next != IP6_HOP_OPTIONS && next != IP6_ROUTING && next != IP6_DESTINATION_OPTIONS)
            break;
        if (!range_within(at, IP6_EXTENSION_BYTES, h->count))
            return false;
        at = (uint32_t)index_mask(at, OFFLOAD_HEADER_MAX - IP6_EXTENSION_BYTES + 1);
        h->is_routed |= next == IP6_ROUTING && h->bytes[at + IP6_SEGMENTS_LEFT];
        next = h->bytes[at];
        at += 8u + h->bytes[at + 1] * 8u;
    }
    if (at >= h->count || at - h->network > h->packet_bytes)
        return false;
    h->protocol = h->is_fragment ? 0 : next;
    h->transport = (uint32_t)index_mask(at, OFFLOAD_HEADER_MAX);
    return true;
}

bool offload_headers(const struct frame *frame, struct offload_headers *h)
{
    uint32_t at = ETH_TYPE_OFFSET;

    h->count = (uint32_t)frame_read(frame, 0, h->bytes, sizeof(h->bytes));
    h->is_ip6 = h->is_fragment = h->is_routed = false;
    h->protocol = 0;
    if (h->count < ETH_HEADER_BYTES)
        return false;
    h->type = be16_get(h->bytes + at);
    for (unsigned i = 0; i < 2 && (h->type == ETH_TYPE_VLAN || h->type == ETH_TYPE_SERVICE_VLAN); i++) {
        at += ETH_TAG_BYTES;
        if (at + 2 > h->count)
            return false;
        h->type = be16_get(h->bytes + at);
    }
    h->network = at + 2;
    if (h->type == ETH_TYPE_IPV4 ? !headers_ip4(h) : h->type == ETH_TYPE_IPV6 ? !headers_ip6(h) : true)
        return false;
    return h->packet_bytes <= frame->bytes - h->network;
}

const char *offload_check(struct frame *frame)
{
    struct offload_headers h;
    uint32_t tcp_bytes, payload;

    if (frame->checksum == FRAME_CHECKSUM_MISSING &&
        (frame->checksum_start < ETH_HEADER_BYTES || frame->checksum_start > CHECKSUM_START_MAX ||
         (uint64_t)frame->checksum_start + frame->checksum_offset + 2 > frame->bytes))
        return "a checksum beyond the end of the frame";
    if (frame->gso == FRAME_GSO_NONE)
        return NULL;
    if (!frame->gso_bytes)
        return "pieces of no size";
    if (frame->checksum != FRAME_CHECKSUM_MISSING)
        return "a frame to be cut that does not ask for its checksum";
    if (!offload_headers(frame, &h) || h.is_ip6 != (frame->gso == FRAME_GSO_TCP6) || h.protocol != IP_PROTOCOL_TCP ||
        !range_within(h.transport, TCP_BYTES, h.count))
        return "a frame to be cut that is no such TCP packet";
    tcp_bytes = (h.bytes[h.transport + TCP_LENGTH] >> 4) * 4u;
    if (tcp_bytes < TCP_BYTES || !range_within(h.transport, tcp_bytes, h.count) ||
        !range_within(h.transport - h.network, tcp_bytes, h.packet_bytes))
        return "a TCP header longer than its packet";
    if (frame->checksum_start != h.transport || frame->checksum_offset != TCP_SUM)
        return "a TCP checksum at a wrong place";
    payload = h.packet_bytes - (h.transport - h.network) - tcp_bytes;
    if ((payload + frame->gso_bytes - 1) / frame->gso_bytes > OFFLOAD_PIECES_MAX)
        return "a frame to be cut into too many pieces";
    frame->header_bytes = (uint16_t)(h.transport + tcp_bytes);
    frame->ecn = h.bytes[h.transport + TCP_FLAGS] & TCP_CWR;
    return NULL;
}

/* ---- New frames ---- */

/* A frame of the first `own` bytes of `frame`, copied, and all others by reference. */
static struct frame *copy_head(struct frame_pool *pool, struct frame *frame, uint32_t own)
{
    struct frame *copy = frame_pool_get(pool, own);

    if (!copy)
        return NULL;
    frame_copy_facts(copy, frame);
    frame_read(frame, 0, copy->segment[0].at, own);
    if (!frame_append_part(copy, frame, own, frame->bytes - own)) {
        frame_put(copy);
        return NULL;
    }
    return copy;
}

struct frame *offload_checksum(struct frame_pool *pool, struct frame *frame)
{
    uint32_t at = (uint32_t)frame->checksum_start + frame->checksum_offset;
    struct frame *copy;
    uint8_t field[2];

    if (at + 2 <= FRAME_CHUNK_BYTES - FRAME_HEADROOM) {
        copy = copy_head(pool, frame, at + 2);
    } else { /* nobody has headers as long as that, but it was asked for: all of it is copied */
        copy = frame_pool_get(pool, frame->bytes);
        if (copy) {
            uint32_t offset = 0;

            frame_copy_facts(copy, frame);
            for (unsigned i = 0; i < copy->segment_count; offset += copy->segment[i++].bytes)
                frame_read(frame, offset, copy->segment[i].at, copy->segment[i].bytes);
        }
    }
    if (!copy)
        return NULL;
    be16_put(field, sealed(offload_sum(frame, frame->checksum_start, frame->bytes - frame->checksum_start)));
    frame_write(copy, at, field, 2);
    copy->checksum = FRAME_CHECKSUM_GOOD;
    return copy;
}

struct frame *offload_tag(struct frame_pool *pool, struct frame *frame)
{
    struct frame *copy = frame_pool_get(pool, ETH_TYPE_OFFSET + ETH_TAG_BYTES);
    uint8_t *at;

    if (!copy)
        return NULL;
    frame_copy_facts(copy, frame);
    at = copy->segment[0].at;
    frame_read(frame, 0, at, ETH_TYPE_OFFSET);
    be16_put(at + ETH_TYPE_OFFSET, ETH_TYPE_VLAN);
    be16_put(at + ETH_TYPE_OFFSET + 2, frame->tci);
    copy->tagged = false;
    copy->tci = 0;
    if (copy->checksum == FRAME_CHECKSUM_MISSING)
        copy->checksum_start = (uint16_t)(copy->checksum_start + ETH_TAG_BYTES);
    if (copy->gso != FRAME_GSO_NONE)
        copy->header_bytes = (uint16_t)(copy->header_bytes + ETH_TAG_BYTES);
    if (!frame_append_part(copy, frame, ETH_TYPE_OFFSET, frame->bytes - ETH_TYPE_OFFSET)) {
        frame_put(copy);
        return NULL;
    }
    return copy;
}

/* ---- Cutting ---- */

bool offload_cut_begin(struct offload_cut *cut, struct frame *frame, bool checksum)
{
    cut->frame = frame;
    cut->checksum = checksum;
    cut->done = cut->piece_count = 0;
    cut->failed = false;
    return frame->gso != FRAME_GSO_NONE && offload_headers(frame, &cut->headers);
}

/* The headers of one piece, whose own bytes are at `at`. */
static void piece_headers(const struct offload_cut *cut, uint8_t *at, uint32_t payload, bool last)
{
    const struct offload_headers *h = &cut->headers;
    uint32_t header_bytes = cut->frame->header_bytes;
    uint8_t *ip = at + h->network, *tcp = at + h->transport;

    memcpy(at, h->bytes, header_bytes);
    if (h->is_ip6) {
        be16_put(ip + IP6_PAYLOAD, (uint16_t)(header_bytes - h->network - IP6_BYTES + payload));
    } else {
        be16_put(ip + IP4_TOTAL, (uint16_t)(header_bytes - h->network + payload));
        be16_put(ip + IP4_ID, (uint16_t)(be16_get(ip + IP4_ID) + cut->piece_count));
        be16_put(ip + IP4_SUM, 0);
        be16_put(ip + IP4_SUM, (uint16_t)~swap(fold(net_sum(ip, h->transport - h->network))));
    }
    be32_put(tcp + TCP_SEQUENCE, be32_get(tcp + TCP_SEQUENCE) + cut->done);
    if (cut->piece_count)
        tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
    if (!last)
        tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    be16_put(tcp + TCP_SUM, (uint16_t)piece_sum(h, header_bytes - h->transport + payload));
}

struct frame *offload_cut_next(struct offload_cut *cut, struct frame_pool *pool)
{
    struct frame *frame = cut->frame, *piece;
    const struct offload_headers *h = &cut->headers;
    uint32_t header_bytes = frame->header_bytes;
    uint32_t left = h->packet_bytes - (header_bytes - h->network) - cut->done, payload = MIN(left, frame->gso_bytes);

    if (!left && cut->piece_count)
        return NULL;
    piece = frame_pool_get(pool, header_bytes);
    if (!piece) {
        cut->failed = true;
        return NULL;
    }
    frame_copy_facts(piece, frame);
    piece->gso = FRAME_GSO_NONE;
    piece->gso_bytes = piece->header_bytes = 0;
    piece->ecn = false;
    piece_headers(cut, piece->segment[0].at, payload, payload == left);
    if (payload && !frame_append_part(piece, frame, header_bytes + cut->done, payload)) {
        frame_put(piece);
        cut->failed = true;
        return NULL;
    }
    if (cut->checksum) {
        be16_put(piece->segment[0].at + h->transport + TCP_SUM,
                 sealed(offload_sum(piece, h->transport, piece->bytes - h->transport)));
        piece->checksum = FRAME_CHECKSUM_GOOD;
    }
    cut->done += payload;
    cut->piece_count++;
    return piece;
}

/* ---- Flows ---- */

uint32_t offload_flow(const struct frame *frame)
{
    struct offload_headers h;
    uint32_t flow = 0;
    const uint8_t *ip;

    if (!offload_headers(frame, &h))
        return 0;
    ip = h.bytes + h.network;
    for (unsigned i = 0; i < (h.is_ip6 ? 32u : 8u); i += 4)
        flow ^= be32_get(ip + (h.is_ip6 ? IP6_SOURCE : IP4_SOURCE) + i);
    if ((h.protocol == IP_PROTOCOL_TCP || h.protocol == IP_PROTOCOL_UDP) && range_within(h.transport, 4, h.count))
        flow ^= (uint32_t)(be16_get(h.bytes + h.transport) ^ be16_get(h.bytes + h.transport + 2)) * 0x10001u;
    /* Neighbours differ in low bits of the addresses and of the ports: mix them into all. */
    flow *= 0x9e3779b1u;
    return flow ^ flow >> 16;
}

