/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the virtual switch share: a switch with a physical card, three guests and the node, and frames
 * from any of them. Each test program includes it once.
 */
#ifndef TESTS_VSWITCH_FIXTURE_H
#define TESTS_VSWITCH_FIXTURE_H

#include "fake_net.h"
#include "net/vswitch.h"

#include "kernel/time.h"

#define S UINT64_C(1000000000)
#define MAC_A 0x020000000001ull
#define MAC_B 0x020000000002ull
#define MAC_C 0x020000000003ull
#define MAC_NODE 0x0200000000eeull
#define STATION 0x021100000000ull /* and on: somewhere out on the LAN */
#define ALL ETH_BROADCAST
#define TABLE 256
#define ALL_OFFLOADS (NETPORT_CHECKSUM | NETPORT_TSO4 | NETPORT_TSO6 | NETPORT_TSO_ECN)

/* A switch with a physical card, three guests and the node. */
struct bench {
    struct vswitch sw;
    struct mac_entry entries[TABLE];
    uint32_t buckets[64];
    struct fake_pool own, pool;
    struct fake_port wire, a, b, c, node, spare;
    struct vswitch_port vwire, va, vb, vc, vnode, vspare;
    uint64_t now;
};

static const struct vswitch_port_config physical = { .trunk = true, .any_source = true, .quota = 64 };
static const struct vswitch_port_config plain = { 0 };

static inline void attach(struct bench *b, struct vswitch_port *vp, struct fake_port *port,
                   const struct vswitch_port_config *config)
{
    assert_int_equal(vswitch_attach(&b->sw, vp, &port->port, config, b->now), OK);
}

static inline struct bench *bench_bare(void)
{
    struct bench *b = calloc(1, sizeof(*b));

    fake_pool_make(&b->own, 400, 400);
    fake_pool_make(&b->pool, 400, 400);
    b->now = 5 * S;
    vswitch_init(&b->sw, b->entries, TABLE, b->buckets, 64, 12345, &b->own.pool);
    fake_port_make(&b->wire, "wire", 0, NETPORT_CHECKSUM);
    fake_port_make(&b->a, "a", MAC_A, ALL_OFFLOADS);
    fake_port_make(&b->b, "b", MAC_B, ALL_OFFLOADS);
    fake_port_make(&b->c, "c", MAC_C, ALL_OFFLOADS);
    fake_port_make(&b->node, "node", MAC_NODE, 0);
    fake_port_make(&b->spare, "spare", 0x020000000099ull, 0);
    return b;
}

static inline struct bench *bench_new(void)
{
    struct bench *b = bench_bare();

    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &plain);
    attach(b, &b->vb, &b->b, &plain);
    attach(b, &b->vc, &b->c, &plain);
    attach(b, &b->vnode, &b->node, &plain);
    return b;
}

static inline unsigned clear(struct bench *b)
{
    return fake_port_clear(&b->wire) + fake_port_clear(&b->a) + fake_port_clear(&b->b) + fake_port_clear(&b->c) +
           fake_port_clear(&b->node) + fake_port_clear(&b->spare);
}

static inline void bench_free(struct bench *b)
{
    clear(b);
    fake_pool_free(&b->own);
    fake_pool_free(&b->pool);
    free(b);
}

static inline struct frame *frame_of(struct bench *b, uint64_t to, uint64_t from, uint32_t bytes)
{
    struct frame *frame = frame_pool_get(&b->pool.pool, bytes);

    for (unsigned i = 0; i < frame->segment_count; i++)
        memset(frame->segment[i].at, 0x5a, frame->segment[i].bytes);
    eth_address_put(frame->segment[0].at, to);
    eth_address_put(frame->segment[0].at + 6, from);
    be16_put(frame->segment[0].at + 12, 0x88b5);
    return frame;
}

/* One frame from the port; returns how many ports got one. `tci`: -1 without a tag. */
static inline unsigned send_tagged(struct bench *b, struct vswitch_port *vp, uint64_t to, uint64_t from, int tci)
{
    struct frame *frame = frame_of(b, to, from, 100);

    clear(b);
    frame->tagged = tci >= 0;
    frame->tci = tci >= 0 ? (uint16_t)tci : 0;
    vswitch_input(&b->sw, vp, frame, b->now);
    vswitch_flush(&b->sw);
    frame_put(frame);
    return b->wire.got_count + b->a.got_count + b->b.got_count + b->c.got_count + b->node.got_count +
           b->spare.got_count;
}

static inline unsigned send(struct bench *b, struct vswitch_port *vp, uint64_t to, uint64_t from)
{
    return send_tagged(b, vp, to, from, -1);
}

#endif
