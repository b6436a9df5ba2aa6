/* SPDX-License-Identifier: MIT */
/*
 * What tests of the network share: pools of frames whose return is checked, ports that write down what they are given,
 * and packets built and judged byte by byte, by code that shares nothing with what is tested.
 */
#ifndef TESTS_FAKE_NET_H
#define TESTS_FAKE_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/ethernet.h"
#include "net/netport.h"

/* ---- Pools ---- */

struct fake_pool {
    struct frame_pool pool;
    struct frame *frames;
    struct frame_chunk *chunks;
    uint32_t *numbers;
    unsigned freed;
};

static inline void fake_freed(void *context)
{
    __atomic_fetch_add(&((struct fake_pool *)context)->freed, 1, __ATOMIC_SEQ_CST);
}

static inline void fake_pool_make(struct fake_pool *p, uint32_t frames, uint32_t chunks)
{
    p->frames = calloc(frames, sizeof(*p->frames));
    p->chunks = aligned_alloc(64, chunks * sizeof(*p->chunks));
    p->numbers = calloc(chunks, sizeof(*p->numbers));
    p->freed = 0;
    memset(p->chunks, 0xdd, chunks * sizeof(*p->chunks));
    frame_pool_init(&p->pool, p->frames, frames, p->chunks, p->numbers, chunks, fake_freed, p);
}

/* All that was taken must have come back. */
static inline void fake_pool_free(struct fake_pool *p)
{
    assert_true(frame_pool_idle(&p->pool));
    assert_int_equal(p->pool.free_chunk_count, p->pool.chunk_count);
    free(p->frames);
    free(p->chunks);
    free(p->numbers);
}

static inline struct frame *fake_frame(struct fake_pool *p, const void *bytes, uint32_t count)
{
    struct frame *frame = frame_pool_get(&p->pool, count);

    assert_non_null(frame);
    assert_int_equal(frame_write(frame, 0, bytes, count), count);
    return frame;
}

/* ---- Ports ---- */

#define FAKE_PORT_FRAMES 512

struct fake_port {
    struct netport port;
    struct frame *slots[64], *out_slots[64];
    struct frame *got[FAKE_PORT_FRAMES];
    unsigned got_count, flushes, rooms, kicks;
    bool full;
};

static inline bool fake_give(struct netport *port, struct frame *frame)
{
    struct fake_port *p = CONTAINER_OF(port, struct fake_port, port);

    if (p->full || p->got_count == FAKE_PORT_FRAMES)
        return false;
    p->got[p->got_count++] = frame_get(frame);
    return true;
}

static inline void fake_flush(struct netport *port)
{
    CONTAINER_OF(port, struct fake_port, port)->flushes++;
}

static inline void fake_room(struct netport *port)
{
    CONTAINER_OF(port, struct fake_port, port)->rooms++;
}

static inline void fake_kicked(void *context)
{
    ((struct fake_port *)context)->kicks++;
}

static inline void fake_port_make(struct fake_port *p, const char *name, uint64_t mac, uint32_t offloads)
{
    static const struct netport_ops ops = { .give = fake_give, .flush = fake_flush, .room = fake_room };

    memset(p, 0, sizeof(*p));
    p->port = (struct netport){ .ops = &ops, .name = name, .mac = mac, .mtu = 1500, .offloads = offloads, .link = 1,
                                .kick = fake_kicked, .kick_context = p };
    frame_queue_init(&p->port.inbox, p->slots, 64);
}

/* Gives back what the port got. */
static inline unsigned fake_port_clear(struct fake_port *p)
{
    unsigned count = p->got_count;

    while (p->got_count)
        frame_put(p->got[--p->got_count]);
    return count;
}

/* ---- Packets ---- */

/* The sum of RFC 1071, as its first definition says: 16-bit words in the order of the wire, one after the other. */
static inline uint16_t fake_sum(const uint8_t *bytes, size_t count, uint32_t sum)
{
    for (size_t i = 0; i < count; i++) {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* The pseudo-header's sum for the packet at `ip`. */
static inline uint16_t fake_pseudo(const uint8_t *ip, unsigned protocol, uint32_t transport_bytes)
{
    uint8_t tail[8] = { [7] = (uint8_t)protocol };

    be32_put(tail, transport_bytes);
    if (ip[0] >> 4 == 4)
        return fake_sum(tail, 8, fake_sum(ip + 12, 8, 0));
    return fake_sum(tail, 8, fake_sum(ip + 8, 32, 0));
}

struct fake_packet {
    bool ip6, udp;
    unsigned tags;          /* inner tags among the bytes */
    unsigned ip_options;    /* bytes: IPv4 options, or IPv6 extension headers; multiples of 4 or 8 */
    unsigned tcp_options;   /* bytes, multiple of 4 */
    uint32_t payload, sequence;
    uint16_t id;
    uint8_t flags;
};

static inline uint8_t fake_payload(uint32_t i)
{
    return (uint8_t)(i * 7 + i / 251 + 3);
}

/* Writes the frame, with checksums left as `partial` says: pseudo-header's sum, or complete. Returns its length. */
static inline uint32_t fake_packet_build(const struct fake_packet *p, uint8_t *frame, bool partial)
{
    uint8_t *ip, *l4;
    uint32_t l3_bytes = (p->ip6 ? 40 : 20) + p->ip_options, l4_bytes = (p->udp ? 8 : 20 + p->tcp_options);
    uint32_t at = 12, total = l4_bytes + p->payload;
    unsigned sum_at = p->udp ? 6 : 16, protocol = p->udp ? 17 : 6;

    memset(frame, 0, 14 + 4 * p->tags + l3_bytes + l4_bytes);
    memcpy(frame, "\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a", 12);
    for (unsigned i = 0; i < p->tags; i++, at += 4)
        memcpy(frame + at, i ? "\x81\0\0\x07" : "\x88\xa8\0\x05", 4);
    memcpy(frame + at, p->ip6 ? "\x86\xdd" : "\x08\0", 2);
    ip = frame + at + 2;
    l4 = ip + l3_bytes;
    if (p->ip6) {
        ip[0] = 0x60;
        be16_put(ip + 4, (uint16_t)(p->ip_options + total));
        ip[6] = p->ip_options ? 60 : (uint8_t)protocol;
        ip[7] = 64;
        for (unsigned i = 0; i < 32; i++)
            ip[8 + i] = (uint8_t)(0x20 + i * 5);
        if (p->ip_options) {
            ip[40] = (uint8_t)protocol;
            ip[41] = (uint8_t)(p->ip_options / 8 - 1);
        }
    } else {
        ip[0] = (uint8_t)(0x40 | l3_bytes / 4);
        be16_put(ip + 2, (uint16_t)(l3_bytes + total));
        be16_put(ip + 4, p->id);
        ip[6] = 0x40;
        ip[8] = 64;
        ip[9] = (uint8_t)protocol;
        memcpy(ip + 12, "\x0a\x01\x02\x03\xc0\xa8\xfe\x09", 8);
        memset(ip + 20, 1, p->ip_options);
        be16_put(ip + 10, (uint16_t)~fake_sum(ip, l3_bytes, 0));
    }
    be16_put(l4, 0x1234);
    be16_put(l4 + 2, 0x01bb);
    if (p->udp) {
        be16_put(l4 + 4, (uint16_t)total);
    } else {
        be32_put(l4 + 4, p->sequence);
        be32_put(l4 + 8, 0x55667788);
        l4[12] = (uint8_t)(l4_bytes / 4 << 4);
        l4[13] = p->flags;
        be16_put(l4 + 14, 0x7fff);
        memset(l4 + 20, 1, p->tcp_options);
    }
    for (uint32_t i = 0; i < p->payload; i++)
        l4[l4_bytes + i] = fake_payload(i);
    if (partial) {
        be16_put(l4 + sum_at, fake_pseudo(ip, protocol, total));
    } else {
        uint16_t sum = (uint16_t)~fake_sum(l4, total, fake_pseudo(ip, protocol, total));

        be16_put(l4 + sum_at, sum ? sum : 0xffff);
    }
    return (uint32_t)(l4 - frame) + total;
}

static inline uint32_t fake_packet_transport(const struct fake_packet *p)
{
    return 14 + 4 * p->tags + (p->ip6 ? 40 : 20) + p->ip_options;
}

#endif
