/* SPDX-License-Identifier: MIT */
/*
 * Which segments make one packet (see coalesce.h). All comparisons are against the copy of the first segment's header, in
 * which the fields that may differ are skipped; sequence numbers wrap.
 */
#include <string.h>

#include "kernel/bytes.h"
#include "net/checksum.h"
#include "net/coalesce.h"
#include "net/ethernet.h"
#include "net/ip.h"

#define IP4_FRAGMENT_MASK 0xbfffu /* all but "don't fragment": the reserved bit, more fragments, offset */

static uint16_t folded(uint64_t sum)
{
    sum = (sum >> 32) + (uint32_t)sum;
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}

static bool find_ip4(const uint8_t *ip, uint32_t left, struct coalesce_segment *s)
{
    if (left < IP4_BYTES + TCP_BYTES || ip[0] != 0x45 || ip[IP4_PROTOCOL] != IP_PROTOCOL_TCP ||
        be16_get(ip + IP4_FRAGMENT) & IP4_FRAGMENT_MASK || folded(net_sum(ip, IP4_BYTES)) != 0xffff)
        return false;
    s->is_ip6 = false;
    s->tcp = ETH_HEADER_BYTES + IP4_BYTES;
    s->end = ETH_HEADER_BYTES + be16_get(ip + IP4_TOTAL);
    return true;
}

static bool find_ip6(const uint8_t *ip, uint32_t left, struct coalesce_segment *s)
{
    if (left < IP6_BYTES + TCP_BYTES || ip[0] >> 4 != 6 || ip[IP6_NEXT] != IP_PROTOCOL_TCP)
        return false;
    s->is_ip6 = true;
    s->tcp = ETH_HEADER_BYTES + IP6_BYTES;
    s->end = s->tcp + be16_get(ip + IP6_PAYLOAD);
    return true;
}

/* Finds the segment in a frame. False: there is none, or it has to go by itself. */
static bool find(const uint8_t *frame, uint32_t count, struct coalesce_segment *s)
{
    const uint8_t *ip = frame + ETH_HEADER_BYTES, *tcp;

    if (count < ETH_HEADER_BYTES + IP4_BYTES + TCP_BYTES)
        return false;
    uint16_t type = be16_get(frame + ETH_TYPE_OFFSET);
    if (type == ETH_TYPE_IPV4 ? !find_ip4(ip, count - ETH_HEADER_BYTES, s)
                              : type != ETH_TYPE_IPV6 || !find_ip6(ip, count - ETH_HEADER_BYTES, s))
        return false;
    tcp = frame + s->tcp;
    s->payload = s->tcp + (tcp[TCP_LENGTH] >> 4) * 4u;
    return s->payload >= s->tcp + TCP_BYTES && s->end > s->payload && s->end <= count && !(tcp[TCP_LENGTH] & 0x0f) &&
           (tcp[TCP_FLAGS] & ~TCP_PSH) == TCP_ACK && !be16_get(tcp + TCP_URGENT);
}

/* TCP's checksum with its pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1): the sum over all is ones. */
static bool is_sound(const uint8_t *frame, const struct coalesce_segment *s)
{
    uint32_t bytes = s->end - s->tcp, addresses = s->is_ip6 ? 32u : 8u;
    uint64_t sum = net_sum(frame + s->tcp - addresses, addresses + bytes); /* the addresses stand right before TCP's header */

    sum = (sum >> 32) + (uint32_t)sum; /* 2^32 = 1 here, and there is room for the rest now */
    sum += (uint16_t)__builtin_bswap16((uint16_t)bytes);
    sum += (uint16_t)__builtin_bswap16(IP_PROTOCOL_TCP);
    return folded(sum) == 0xffff;
}

/* The same connection, and in all else that TCP or IP would tell apart the same. */
static bool is_alike(const struct coalesce *packet, const uint8_t *frame, const struct coalesce_segment *s)
{
    const uint8_t *header = packet->header, *tcp = frame + s->tcp, *first = header + s->tcp;

    if (s->is_ip6 != packet->is_ip6 || s->payload != packet->header_bytes)
        return false;
    if (s->is_ip6 ? memcmp(frame, header, ETH_HEADER_BYTES + IP6_PAYLOAD) ||
                        memcmp(frame + ETH_HEADER_BYTES + IP6_NEXT, header + ETH_HEADER_BYTES + IP6_NEXT, IP6_BYTES - IP6_NEXT)
                  : memcmp(frame, header, ETH_HEADER_BYTES + IP4_TOTAL) ||
                        memcmp(frame + ETH_HEADER_BYTES + IP4_FRAGMENT, header + ETH_HEADER_BYTES + IP4_FRAGMENT,
                               IP4_SUM - IP4_FRAGMENT) ||
                        memcmp(frame + ETH_HEADER_BYTES + IP4_SOURCE, header + ETH_HEADER_BYTES + IP4_SOURCE,
                               IP4_BYTES - IP4_SOURCE))
        return false;
    return !memcmp(tcp, first, TCP_SEQUENCE) &&
           !memcmp(tcp + TCP_ACKNOWLEDGED, first + TCP_ACKNOWLEDGED, TCP_FLAGS - TCP_ACKNOWLEDGED) &&
           !memcmp(tcp + TCP_WINDOW, first + TCP_WINDOW, 2) &&
           !memcmp(tcp + TCP_BYTES, first + TCP_BYTES, s->payload - s->tcp - TCP_BYTES);
}

enum coalesce_verdict coalesce_judge(const struct coalesce *packet, const uint8_t *frame, uint32_t count, bool is_good,
                                     struct coalesce_segment *s)
{
    if (!find(frame, count, s) || s->end > COALESCE_BYTES_MAX || (!is_good && !is_sound(frame, s)))
        return COALESCE_ALONE;
    return packet->segment_count && packet->segment_count < COALESCE_SEGMENTS_MAX &&
                   s->end - s->payload <= COALESCE_BYTES_MAX - packet->frame_bytes &&
                   be32_get(frame + s->tcp + TCP_SEQUENCE) == packet->next_sequence && is_alike(packet, frame, s)
               ? COALESCE_JOINS : COALESCE_BEGINS;
}

void coalesce_begin(struct coalesce *packet, const uint8_t *frame, const struct coalesce_segment *s)
{
    memcpy(packet->header, frame, s->payload);
    packet->segment_count = 1;
    packet->header_bytes = s->payload;
    packet->frame_bytes = s->end;
    packet->next_sequence = be32_get(frame + s->tcp + TCP_SEQUENCE) + (s->end - s->payload);
    packet->is_ip6 = s->is_ip6;
    packet->push = frame[s->tcp + TCP_FLAGS] & TCP_PSH;
}

void coalesce_join(struct coalesce *packet, const uint8_t *frame, const struct coalesce_segment *s)
{
    packet->segment_count++;
    packet->frame_bytes += s->end - s->payload;
    packet->next_sequence += s->end - s->payload;
    packet->push |= (frame[s->tcp + TCP_FLAGS] & TCP_PSH) != 0;
}

void coalesce_end(struct coalesce *packet, uint8_t *first_frame)
{
    uint8_t *ip = first_frame + ETH_HEADER_BYTES;
    uint32_t ip_bytes = packet->frame_bytes - ETH_HEADER_BYTES, segments = packet->segment_count;

    packet->segment_count = 0;
    if (segments < 2)
        return;
    if (packet->is_ip6) {
        be16_put(ip + IP6_PAYLOAD, (uint16_t)(ip_bytes - IP6_BYTES));
    } else {
        be16_put(ip + IP4_TOTAL, (uint16_t)ip_bytes);
        be16_put(ip + IP4_SUM, 0);
        uint16_t sum = (uint16_t)~folded(net_sum(ip, IP4_BYTES));
        memcpy(ip + IP4_SUM, &sum, sizeof sum); /* sums are in the order of memory */
    }
    if (packet->push)
        ip[(packet->is_ip6 ? IP6_BYTES : IP4_BYTES) + TCP_FLAGS] |= TCP_PSH;
}
