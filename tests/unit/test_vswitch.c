/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtual switch: frames reach whom they are for and nobody else, VLANs and guests are kept apart, a guest can
 * neither take another's address nor fill the table, a deadline stops frames, and what a port cannot do is done for it.
 */
#include "fake_net.h"
#include "net/announce.h"
#include "net/offload.h"
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

static void attach(struct bench *b, struct vswitch_port *vp, struct fake_port *port,
                   const struct vswitch_port_config *config)
{
    assert_int_equal(vswitch_attach(&b->sw, vp, &port->port, config, b->now), OK);
}

static struct bench *bench_bare(void)
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

static struct bench *bench_new(void)
{
    struct bench *b = bench_bare();

    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &plain);
    attach(b, &b->vb, &b->b, &plain);
    attach(b, &b->vc, &b->c, &plain);
    attach(b, &b->vnode, &b->node, &plain);
    return b;
}

static unsigned clear(struct bench *b)
{
    return fake_port_clear(&b->wire) + fake_port_clear(&b->a) + fake_port_clear(&b->b) + fake_port_clear(&b->c) +
           fake_port_clear(&b->node) + fake_port_clear(&b->spare);
}

static void bench_free(struct bench *b)
{
    clear(b);
    fake_pool_free(&b->own);
    fake_pool_free(&b->pool);
    free(b);
}

static struct frame *frame_of(struct bench *b, uint64_t to, uint64_t from, uint32_t bytes)
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
static unsigned send_tagged(struct bench *b, struct vswitch_port *vp, uint64_t to, uint64_t from, int tci)
{
    struct frame *frame = frame_of(b, to, from, 100);

    clear(b);
    frame->tagged = tci >= 0;
    frame->tci = tci >= 0 ? (uint16_t)tci : 0;
    vswitch_input(&b->sw, vp, frame, b->now);
    vswitch_flush(&b->sw);
    frame_put(frame);
    return b->wire.got_count + b->a.got_count + b->b.got_count + b->c.got_count + b->node.got_count + b->spare.got_count;
}

static unsigned send(struct bench *b, struct vswitch_port *vp, uint64_t to, uint64_t from)
{
    return send_tagged(b, vp, to, from, -1);
}

/* ---- Where frames go ---- */

static void frames_go_to_whom_they_are_for(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1);
    assert_int_equal(b->b.got_count, 1);
    assert_int_equal(b->b.flushes, 1);
    assert_int_equal(b->a.flushes, 0);
    assert_int_equal(send(b, &b->vwire, MAC_NODE, STATION), 1);
    assert_int_equal(b->node.got_count, 1);
    /* To all but the sender. */
    assert_int_equal(send(b, &b->va, ALL, MAC_A), 4);
    assert_int_equal(b->a.got_count, 0);
    assert_int_equal(b->va.counters.flooded, 1);
    assert_int_equal(send(b, &b->vwire, 0x01005e000001ull, STATION), 4);
    assert_int_equal(b->wire.got_count, 0);
    /* A station that is not known is out there; nobody in here gets its frames. */
    assert_int_equal(send(b, &b->va, STATION + 9, MAC_A), 1);
    assert_int_equal(b->wire.got_count, 1);
    assert_int_equal(send(b, &b->vwire, STATION + 9, STATION), 0);
    /* A station behind the port that the frame came from. */
    assert_int_equal(send(b, &b->vwire, ALL, STATION + 9), 4);
    assert_int_equal(send(b, &b->vwire, STATION + 9, STATION), 0);
    assert_int_equal(b->vwire.counters.drop[VSWITCH_DROP_LOCAL], 1);
    assert_int_equal(send(b, &b->va, MAC_A, MAC_A), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_LOCAL], 1);
    bench_free(b);
}

static void a_flooded_frame_is_not_copied(void **state)
{
    struct bench *b = bench_new();
    struct frame *frame = frame_of(b, ALL, MAC_A, 1500);

    (void)state;
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_ptr_equal(b->wire.got[0], frame);
    assert_ptr_equal(b->b.got[0], frame);
    assert_ptr_equal(b->node.got[0], frame);
    assert_int_equal(frame->references, 5);
    assert_int_equal(b->own.pool.free_frame_count, 400);
    frame_put(frame);
    bench_free(b);
}

static void stations_are_learnt_move_and_age(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    attach(b, &b->vspare, &b->spare, &(struct vswitch_port_config){ .any_source = true, .quota = 4 });
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 2); /* unknown: to both that may have it */
    send(b, &b->vwire, ALL, STATION);
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
    assert_int_equal(b->wire.got_count, 1);
    send(b, &b->vspare, ALL, STATION); /* it moved */
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
    assert_int_equal(b->spare.got_count, 1);
    assert_int_equal(b->vwire.learnt, 0);
    assert_int_equal(b->vspare.learnt, 1);
    /* Each frame from it renews it; silence for 300 s ends it. */
    b->now += VSWITCH_AGE_NS - 1;
    send(b, &b->vspare, ALL, STATION);
    b->now += VSWITCH_AGE_NS - 1;
    vswitch_tick(&b->sw, b->now);
    assert_ptr_equal(vswitch_where(&b->sw, 0, STATION, b->now), &b->vspare);
    b->now++;
    assert_null(vswitch_where(&b->sw, 0, STATION, b->now));
    assert_int_equal(b->vspare.learnt, 1);
    vswitch_tick(&b->sw, b->now + S);
    assert_int_equal(b->vspare.learnt, 0);
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1); /* what is owned does not age */
    assert_int_equal(b->b.got_count, 1);
    bench_free(b);
}

static void isolated_ports_do_not_meet(void **state)
{
    struct bench *b = bench_bare();
    const struct vswitch_port_config one = { .group = 1 }, two = { .group = 2 };
    struct vswitch_port_config uplink = physical;

    (void)state;
    uplink.group = 3;
    attach(b, &b->vwire, &b->wire, &uplink);
    b->spare.port.mac = 0;
    attach(b, &b->vspare, &b->spare, &uplink);
    attach(b, &b->va, &b->a, &one);
    attach(b, &b->vb, &b->b, &one);
    attach(b, &b->vc, &b->c, &two);
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 0);
    assert_int_equal(send(b, &b->va, MAC_C, MAC_A), 1);
    assert_int_equal(send(b, &b->va, ALL, MAC_A), 3);
    assert_int_equal(b->b.got_count, 0);
    assert_int_equal(send(b, &b->vwire, ALL, STATION), 3);
    assert_int_equal(b->spare.got_count, 0); /* no loop over two cards of one LAN */
    bench_free(b);
}

/* ---- VLANs ---- */

static void vlans_are_separate(void **state)
{
    struct bench *b = bench_bare();
    uint64_t set[64] = { [0] = BIT(10) | BIT(20) };
    const struct vswitch_port_config ten = { .vlan = 10 }, twenty = { .vlan = 20 };
    const struct vswitch_port_config trunk = { .trunk = true, .vlan = 30, .trunk_set = set };
    static const int tags[] = { -1, 0, 10, 20, 30, 40, 0xfff, 0xa00a };

    (void)state;
    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &ten);
    attach(b, &b->vb, &b->b, &twenty);
    attach(b, &b->vc, &b->c, &trunk);
    attach(b, &b->vnode, &b->node, &plain);
    /* From the wire, by each tag: who gets it, and with which tag. */
    for (unsigned i = 0; i < ARRAY_COUNT(tags); i++) {
        int id = tags[i] < 0 ? 0 : tags[i] & 0xfff;

        send_tagged(b, &b->vwire, ALL, STATION, tags[i]);
        assert_int_equal(b->a.got_count, id == 10);
        assert_int_equal(b->b.got_count, id == 20);
        assert_int_equal(b->c.got_count, id == 10 || id == 20 || id == 30);
        assert_int_equal(b->node.got_count, id == 0);
        for (unsigned j = 0; j < b->a.got_count; j++)
            assert_false(b->a.got[j]->tagged);
        if (b->c.got_count) {
            assert_int_equal(b->c.got[0]->tagged, id != 30);
            assert_int_equal(b->c.got[0]->tci, id == 30 ? 0 : tags[i]);
        }
    }
    assert_int_equal(b->vwire.counters.drop[VSWITCH_DROP_VLAN], 1); /* 4095 */
    /* Unicast does not cross either. */
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1);
    assert_int_equal(b->wire.got_count, 1);
    /* One address may be two stations, in two VLANs at two ports. */
    send_tagged(b, &b->vwire, ALL, STATION, 10);
    assert_ptr_equal(vswitch_where(&b->sw, 10, STATION, b->now), &b->vwire);
    assert_null(vswitch_where(&b->sw, 11, STATION, b->now));
    bench_free(b);
}

static void a_guest_cannot_choose_its_vlan(void **state)
{
    struct bench *b = bench_bare();
    uint64_t set[64] = { [0] = BIT(10) };
    const struct vswitch_port_config ten = { .vlan = 10 }, trunk = { .trunk = true, .trunk_set = set };

    (void)state;
    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &ten);
    attach(b, &b->vb, &b->b, &trunk);
    for (int id = 1; id < 4096; id++)
        assert_int_equal(send_tagged(b, &b->va, ALL, MAC_A, id), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_VLAN], 4095);
    assert_int_equal(send_tagged(b, &b->va, ALL, MAC_A, 0xe000), 2); /* only a priority: its own VLAN */
    assert_int_equal(b->wire.got[0]->tci, 0xe00a);
    assert_true(b->wire.got[0]->tagged);
    for (int id = 1; id < 4096; id++)
        assert_int_equal(send_tagged(b, &b->vb, ALL, MAC_B, id) > 0, id == 10);
    bench_free(b);
}

/* Random configurations and frames against the rule in its plainest form. */
static void no_frame_ever_leaves_its_vlan(void **state)
{
    uint64_t seed = 99;

    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct bench *b = bench_bare();
        struct fake_port *ports[5] = { &b->wire, &b->a, &b->b, &b->c, &b->node };
        struct vswitch_port *vps[5] = { &b->vwire, &b->va, &b->vb, &b->vc, &b->vnode };
        struct vswitch_port_config config[5];
        uint64_t set[5][64];

        memset(set, 0, sizeof(set));
        for (unsigned i = 0; i < 5; i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            set[i][0] = seed >> 32 & 0xf;
            config[i] = (struct vswitch_port_config){ .trunk = i == 0 || seed >> 40 & 1, .vlan = seed >> 44 & 3,
                                                      .trunk_set = set[i], .any_source = i == 0 || seed >> 50 & 1 };
            config[i].quota = config[i].any_source ? 8 : 0;
            attach(b, vps[i], ports[i], &config[i]);
        }
        for (unsigned n = 0; n < 300; n++) {
            unsigned from = (unsigned)(seed >> 33) % 5;
            int tag = (int)(seed >> 40 & 7) - 1;
            uint64_t source, to = seed >> 60 & 1 ? ALL : 0x020000000000ull + (seed >> 50 & 7);
            unsigned vlan = tag > 0 ? (unsigned)tag : config[from].vlan;
            bool in = tag <= 0 || (config[from].trunk && (set[from][0] >> tag & 1 || config[from].vlan == tag));

            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            source = config[from].any_source ? STATION + (seed >> 55) : ports[from]->port.mac;
            if (tag > 3)
                in = false;
            send_tagged(b, vps[from], to, source, tag);
            for (unsigned i = 0; i < 5; i++) {
                bool member = config[i].vlan == vlan || (config[i].trunk && vlan && vlan < 64 && set[i][0] >> vlan & 1);

                if (!ports[i]->got_count)
                    continue;
                assert_true(in && member && i != from);
                assert_int_equal(ports[i]->got_count, 1);
                assert_int_equal(ports[i]->got[0]->tagged ? ports[i]->got[0]->tci : config[i].vlan, vlan);
                assert_true(!ports[i]->got[0]->tagged || (config[i].trunk && vlan != config[i].vlan));
            }
            if (in && to == ALL && tag <= 3)
                for (unsigned i = 0; i < 5; i++)
                    assert_int_equal(ports[i]->got_count, i != from && (config[i].vlan == vlan || (config[i].trunk &&
                                     vlan && set[i][0] >> vlan & 1)));
        }
        bench_free(b);
    }
}

/* ---- What a guest may not ---- */

static void a_guest_sends_from_its_own_address_only(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    assert_int_equal(send(b, &b->va, ALL, STATION), 0);
    assert_int_equal(send(b, &b->va, MAC_C, MAC_B), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_SOURCE], 2);
    assert_null(vswitch_where(&b->sw, 0, STATION, b->now));
    assert_ptr_equal(vswitch_where(&b->sw, 0, MAC_B, b->now), &b->vb);
    /* Sources that no station has. */
    attach(b, &b->vspare, &b->spare, &(struct vswitch_port_config){ .any_source = true, .quota = 8 });
    assert_int_equal(send(b, &b->vspare, ALL, 0), 0);
    assert_int_equal(send(b, &b->vspare, ALL, ALL), 0);
    assert_int_equal(send(b, &b->vspare, ALL, 0x010000000001ull), 0);
    assert_int_equal(b->vspare.counters.drop[VSWITCH_DROP_MALFORMED], 3);
    bench_free(b);
}

static void nobody_takes_an_address_that_a_port_owns(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    attach(b, &b->vspare, &b->spare, &(struct vswitch_port_config){ .any_source = true, .quota = 8 });
    assert_int_equal(send(b, &b->vspare, ALL, MAC_B), 0);
    assert_int_equal(send(b, &b->vwire, ALL, MAC_B), 0);
    assert_int_equal(b->vspare.counters.drop[VSWITCH_DROP_SOURCE], 1);
    assert_int_equal(b->vwire.counters.drop[VSWITCH_DROP_SOURCE], 1);
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1);
    assert_int_equal(b->b.got_count, 1);
    /* A second port with the same address in the same VLAN is refused; in another VLAN it is another station. */
    fake_port_make(&b->c, "again", MAC_B, 0);
    vswitch_detach(&b->sw, &b->vc);
    assert_int_equal(vswitch_attach(&b->sw, &b->vc, &b->c.port, &plain, b->now), ERR_EXISTS);
    attach(b, &b->vc, &b->c, &(struct vswitch_port_config){ .vlan = 7 });
    assert_int_equal(send_tagged(b, &b->vwire, MAC_B, STATION, 7), 1);
    assert_int_equal(b->c.got_count, 1);
    assert_int_equal(send(b, &b->vwire, MAC_B, STATION), 1);
    assert_int_equal(b->b.got_count, 1);
    bench_free(b);
}

static void a_hundred_thousand_addresses_push_nobody_out(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    attach(b, &b->vspare, &b->spare, &(struct vswitch_port_config){ .any_source = true, .quota = 16 });
    for (unsigned i = 0; i < 40; i++)
        send(b, &b->vwire, ALL, STATION + i);
    for (unsigned i = 0; i < 100000; i++)
        send(b, &b->vspare, MAC_A, 0x0a0000000000ull + i * 7919ull);
    assert_int_equal(b->vspare.learnt, 16);
    assert_int_equal(b->vspare.counters.learn_refused, 100000 - 16);
    assert_int_equal(b->vspare.counters.in_frames, 100000);
    for (unsigned i = 0; i < 40; i++)
        assert_ptr_equal(vswitch_where(&b->sw, 0, STATION + i, b->now), &b->vwire);
    for (unsigned i = 40; i < 64; i++) { /* and the wire still has the room that it was promised */
        send(b, &b->vwire, ALL, STATION + i);
        assert_ptr_equal(vswitch_where(&b->sw, 0, STATION + i, b->now), &b->vwire);
    }
    /* Nor can it take what others had learnt before it, once its quota is used up. */
    send(b, &b->vspare, ALL, STATION);
    assert_ptr_equal(vswitch_where(&b->sw, 0, STATION, b->now), &b->vwire);
    /* The stranger on the wire can do no more. */
    for (unsigned i = 0; i < 100000; i++)
        send(b, &b->vwire, MAC_A, 0x0e0000000000ull + i);
    assert_int_equal(b->vwire.learnt, 64);
    assert_ptr_equal(vswitch_where(&b->sw, 0, MAC_C, b->now), &b->vc);
    bench_free(b);
}

static void the_table_is_not_promised_twice(void **state)
{
    struct bench *b = bench_new(); /* 64 + 4 of 256 */
    struct vswitch_port_config config = { .any_source = true, .quota = TABLE - 68 };

    (void)state;
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &config, b->now), ERR_NO_MEMORY);
    config.quota = UINT32_MAX;
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &config, b->now), ERR_NO_MEMORY);
    config.quota = TABLE - 69;
    attach(b, &b->vspare, &b->spare, &config);
    for (unsigned i = 0; i < TABLE; i++)
        send(b, &b->vspare, MAC_A, STATION + i);
    assert_int_equal(b->sw.table.used, TABLE - 64);
    vswitch_detach(&b->sw, &b->vspare);
    assert_int_equal(b->sw.table.used, 4);
    attach(b, &b->vspare, &b->spare, &config);
    /* What makes no sense is refused. */
    vswitch_detach(&b->sw, &b->vspare);
    config = (struct vswitch_port_config){ .quota = 1 };
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &config, b->now), ERR_INVALID);
    config = (struct vswitch_port_config){ .vlan = 4095 };
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &config, b->now), ERR_INVALID);
    b->spare.port.mac = 0x010000000001ull;
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &plain, b->now), ERR_INVALID);
    b->spare.port.mac = 0;
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &plain, b->now), ERR_INVALID);
    b->spare.port.mac = MAC_A + 100;
    b->spare.port.mtu = 67;
    assert_int_equal(vswitch_attach(&b->sw, &b->vspare, &b->spare.port, &plain, b->now), ERR_INVALID);
    bench_free(b);
}

static void frames_between_two_ends_of_a_cable_stop(void **state)
{
    struct bench *b = bench_new();
    struct frame *frame;

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(send(b, &b->va, 0x0180c2000000ull + i, MAC_A), 0);
    assert_int_equal(send(b, &b->va, 0x0180c2000010ull, MAC_A), 4);
    frame = frame_of(b, MAC_B, MAC_A, 60); /* PAUSE to a station */
    be16_put(frame->segment[0].at + 12, ETH_TYPE_MAC_CONTROL);
    clear(b);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(clear(b), 0);
    frame_put(frame);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_CONTROL], 17);
    frame = frame_of(b, MAC_B, MAC_A, 14);
    frame->segment[0].bytes = frame->bytes = 13;
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(clear(b), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_MALFORMED], 1);
    frame_put(frame);
    bench_free(b);
}

/* ---- Deadlines and links ---- */

static void frames_stop_at_the_deadline(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    vswitch_port_deadline(&b->va, b->now + 1000);
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1);
    /* Queued in time, and not yet taken: it stops all the same. */
    assert_true(frame_queue_put(&b->a.port.inbox, frame_of(b, MAC_B, MAC_A, 100)));
    clear(b);
    b->now += 1000;
    assert_false(vswitch_run(&b->sw, b->now));
    assert_int_equal(clear(b), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_DEADLINE], 1);
    assert_int_equal(send(b, &b->va, ALL, MAC_A), 0);
    assert_int_equal(vswitch_announce(&b->sw, &b->va, b->now), ERR_BUSY);
    /* Nothing goes to it, and its address may be somewhere else now: another node has taken the VM over. */
    assert_int_equal(send(b, &b->vb, MAC_A, MAC_B), 1);
    assert_int_equal(b->wire.got_count, 1);
    assert_int_equal(b->a.got_count, 0);
    assert_int_equal(send(b, &b->vwire, ALL, MAC_A), 3);
    assert_int_equal(b->a.got_count, 0);
    assert_ptr_equal(vswitch_where(&b->sw, 0, MAC_A, b->now), &b->vwire);
    /* The deadline is moved on: it owns its address again at once. */
    vswitch_port_deadline(&b->va, b->now + 1000);
    assert_int_equal(send(b, &b->vb, MAC_A, MAC_B), 1);
    assert_int_equal(b->a.got_count, 1);
    assert_int_equal(send(b, &b->vwire, ALL, MAC_A), 0);
    vswitch_port_deadline(&b->va, TIME_NEVER);
    b->now += 1ull << 60;
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 1);
    bench_free(b);
}

static void a_port_without_a_link_is_not_there(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    b->a.port.link = 0;
    assert_int_equal(send(b, &b->va, MAC_B, MAC_A), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_DOWN], 1);
    assert_int_equal(send(b, &b->vb, ALL, MAC_B), 3);
    assert_int_equal(b->a.got_count, 0);
    assert_int_equal(send(b, &b->vb, MAC_A, MAC_B), 1);
    assert_int_equal(b->wire.got_count, 1);
    b->a.port.link = 1;
    assert_int_equal(send(b, &b->vb, MAC_A, MAC_B), 1);
    assert_int_equal(b->a.got_count, 1);
    bench_free(b);
}

/* ---- Queues and pressure ---- */

static void inboxes_take_turns_and_slow_their_senders(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        assert_true(frame_queue_put(&b->a.port.inbox, frame_of(b, MAC_C, MAC_A, 60 + i)));
    assert_false(frame_queue_has_room(&b->a.port.inbox));
    assert_true(frame_queue_put(&b->b.port.inbox, frame_of(b, MAC_C, MAC_B, 60)));
    assert_true(vswitch_run(&b->sw, b->now));
    assert_int_equal(b->c.got_count, VSWITCH_BURST + 1); /* b did not wait for all of a's */
    assert_int_equal(b->c.flushes, 1);
    assert_int_equal(b->a.rooms, 1);
    assert_false(vswitch_run(&b->sw, b->now));
    assert_int_equal(b->c.got_count, 65);
    assert_int_equal(b->a.rooms, 1);
    for (unsigned i = 0, next = 60; i < 65; i++) /* in order, those of one sender */
        if (eth_address(b->c.got[i]->segment[0].at + 6) == MAC_A)
            assert_int_equal(b->c.got[i]->bytes, next++);
    /* A port that takes nothing loses its own frames, not others'. */
    clear(b);
    b->b.full = true;
    assert_int_equal(send(b, &b->va, ALL, MAC_A), 3);
    assert_int_equal(b->vb.counters.drop[VSWITCH_DROP_BUSY], 1);
    assert_int_equal(b->va.counters.in_frames, 65);
    assert_int_equal(b->vc.counters.out_frames, 66);
    bench_free(b);
}

static bool queue_give(struct netport *port, struct frame *frame)
{
    if (!frame_queue_has_room(&port->outbox))
        return false;
    return frame_queue_put(&port->outbox, frame_get(frame));
}

static void what_waits_at_a_standing_port_is_given_back(void **state)
{
    static const struct netport_ops ops = { .give = queue_give, .room = fake_room };
    struct bench *b = bench_new();

    (void)state;
    b->c.port.ops = &ops;
    frame_queue_init(&b->c.port.outbox, b->c.out_slots, 4);
    vswitch_tick(&b->sw, b->now);
    for (unsigned i = 0; i < 6; i++)
        send(b, &b->va, MAC_C, MAC_A);
    assert_int_equal(b->vc.counters.drop[VSWITCH_DROP_BUSY], 2);
    vswitch_tick(&b->sw, b->now += VSWITCH_STALL_NS - 1);
    assert_int_equal(frame_queue_count(&b->c.port.outbox), 4);
    assert_true(frame_queue_begin(&b->c.port.outbox)); /* it comes, just in time */
    frame_put(frame_queue_take(&b->c.port.outbox));
    frame_queue_end(&b->c.port.outbox);
    vswitch_tick(&b->sw, b->now += 1);
    assert_int_equal(frame_queue_count(&b->c.port.outbox), 3);
    vswitch_tick(&b->sw, b->now += VSWITCH_STALL_NS);
    assert_int_equal(frame_queue_count(&b->c.port.outbox), 0);
    assert_int_equal(b->vc.counters.drop[VSWITCH_DROP_STALLED], 3);
    assert_true(frame_pool_idle(&b->pool.pool));
    /* Past its deadline at once; and when it leaves. */
    send(b, &b->va, MAC_C, MAC_A);
    vswitch_port_deadline(&b->vc, b->now);
    vswitch_tick(&b->sw, b->now);
    assert_int_equal(b->vc.counters.drop[VSWITCH_DROP_DEADLINE], 1);
    vswitch_port_deadline(&b->vc, TIME_NEVER);
    send(b, &b->va, MAC_C, MAC_A);
    assert_true(frame_queue_put(&b->c.port.inbox, frame_of(b, MAC_A, MAC_C, 60)));
    vswitch_detach(&b->sw, &b->vc);
    assert_true(frame_pool_idle(&b->pool.pool));
    bench_free(b);
}

/* ---- Offloads ---- */

static uint8_t raw[FRAME_BYTES_MAX];

/* A TCP packet from a to the station's address, as a guest with offloads hands it over. */
static struct frame *large(struct bench *b, uint64_t to, uint32_t payload, uint16_t gso)
{
    struct fake_packet packet = { .payload = payload, .flags = 0x18 };
    uint32_t bytes = fake_packet_build(&packet, raw, true);
    struct frame *frame;

    eth_address_put(raw, to);
    eth_address_put(raw + 6, MAC_A);
    frame = fake_frame(&b->pool, raw, bytes);
    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = 34;
    frame->checksum_offset = 16;
    frame->gso = gso ? FRAME_GSO_TCP4 : FRAME_GSO_NONE;
    frame->gso_bytes = gso;
    assert_null(offload_check(frame));
    return frame;
}

static bool checksum_right(const struct frame *frame)
{
    uint8_t bytes[2048];
    size_t count = frame_read(frame, 0, bytes, sizeof(bytes));

    return frame->checksum != FRAME_CHECKSUM_MISSING &&
           fake_sum(bytes + 34, count - 34, fake_pseudo(bytes + 14, 6, (uint32_t)count - 34)) == 0xffff;
}

static void a_port_gets_what_it_can_use(void **state)
{
    struct bench *b = bench_new();
    struct frame *frame = large(b, ALL, 5000, 1400);

    (void)state;
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->b.got_count, 1); /* takes it whole */
    assert_ptr_equal(b->b.got[0], frame);
    assert_int_equal(b->vb.counters.finished, 0);
    assert_int_equal(b->wire.got_count, 4); /* computes checksums, cannot cut */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(b->wire.got[i]->checksum, FRAME_CHECKSUM_MISSING);
    assert_int_equal(b->node.got_count, 4); /* nothing at all */
    for (unsigned i = 0; i < 4; i++)
        assert_true(checksum_right(b->node.got[i]));
    assert_int_equal(b->vnode.counters.finished, 1);
    assert_int_equal(b->vnode.counters.out_frames, 4);
    frame_put(frame);
    clear(b);
    frame = large(b, MAC_NODE, 1000, 0);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->node.got_count, 1);
    assert_true(checksum_right(b->node.got[0]));
    frame_put(frame);
    /* A port that lost an ability in the meantime. */
    clear(b);
    b->b.port.offloads = NETPORT_CHECKSUM | NETPORT_TSO6;
    frame = large(b, MAC_B, 5000, 1400);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->b.got_count, 4);
    frame_put(frame);
    bench_free(b);
}

static void no_frame_is_larger_than_the_mtu(void **state)
{
    struct bench *b = bench_new();
    struct frame *frame;

    (void)state;
    b->b.port.mtu = 1400;
    for (unsigned i = 0; i < 2; i++) {
        frame = frame_of(b, MAC_B, MAC_A, 1414 + i);
        vswitch_input(&b->sw, &b->va, frame, b->now);
        assert_int_equal(b->b.got_count, 1);
        frame_put(frame);
    }
    assert_int_equal(b->vb.counters.drop[VSWITCH_DROP_TOO_BIG], 1);
    clear(b);
    for (unsigned i = 0; i < 2; i++) {
        frame = large(b, MAC_B, 20000, (uint16_t)(1360 + i));
        vswitch_input(&b->sw, &b->va, frame, b->now);
        assert_int_equal(b->b.got_count, 1);
        frame_put(frame);
    }
    assert_int_equal(b->vb.counters.drop[VSWITCH_DROP_TOO_BIG], 2);
    bench_free(b);
}

static void without_memory_frames_are_lost_and_counted(void **state)
{
    struct bench *b = bench_bare();
    struct fake_pool tiny;
    struct frame *frame;

    (void)state;
    fake_pool_make(&tiny, 2, 2);
    b->sw.pool = &tiny.pool;
    attach(b, &b->va, &b->a, &plain);
    attach(b, &b->vnode, &b->node, &plain);
    b->wire.port.link = 1;
    attach(b, &b->vwire, &b->wire, &(struct vswitch_port_config){ .any_source = true, .trunk = true, .vlan = 9 });
    frame = large(b, MAC_NODE, 5000, 1400);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->node.got_count, 2);
    assert_int_equal(b->vnode.counters.drop[VSWITCH_DROP_MEMORY], 1);
    frame_put(frame);
    clear(b);
    /* Its tag for the wire needs a frame. */
    attach(b, &b->vb, &b->b, &(struct vswitch_port_config){ .vlan = 5 });
    assert_int_equal(send(b, &b->vb, STATION, MAC_B), 1);
    assert_int_equal(b->wire.got[0]->tci, 5);
    clear(b);
    struct frame *held[2] = { frame_pool_get(&tiny.pool, 0), frame_pool_get(&tiny.pool, 0) };
    assert_int_equal(send(b, &b->vb, STATION, MAC_B), 0);
    assert_int_equal(b->vwire.counters.drop[VSWITCH_DROP_MEMORY], 1);
    frame_put(held[0]);
    frame_put(held[1]);
    clear(b);
    fake_pool_free(&tiny);
    bench_free(b);
}

/* ---- Announcements ---- */

static void a_vm_that_arrived_is_announced(void **state)
{
    struct bench *b = bench_new();
    uint8_t bytes[64];
    static const uint8_t ip[4] = { 10, 0, 0, 7 };

    (void)state;
    assert_int_equal(vswitch_announce(&b->sw, &b->va, b->now), OK);
    assert_int_equal(b->wire.got_count, 1);
    assert_int_equal(b->wire.flushes, 1);
    assert_int_equal(b->a.got_count, 0);
    assert_int_equal(frame_read(b->wire.got[0], 0, bytes, sizeof(bytes)), 60);
    assert_memory_equal(bytes, "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x80\x35\0\x01\x08\0\x06\x04\0\x03"
                               "\x02\0\0\0\0\x01\0\0\0\0\x02\0\0\0\0\x01\0\0\0\0", 42);
    for (unsigned i = 42; i < 60; i++)
        assert_int_equal(bytes[i], 0);
    announce_arp(bytes, MAC_B, ip);
    assert_memory_equal(bytes, "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x02\x08\x06\0\x01\x08\0\x06\x04\0\x01"
                               "\x02\0\0\0\0\x02\x0a\0\0\x07\0\0\0\0\0\0\x0a\0\0\x07", 42);
    assert_int_equal(vswitch_announce(&b->sw, &b->vwire, b->now), ERR_INVALID);
    b->a.port.link = 0;
    assert_int_equal(vswitch_announce(&b->sw, &b->va, b->now), ERR_BUSY);
    bench_free(b);
}

static void every_drop_has_a_word(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VSWITCH_DROP_COUNT; i++) {
        assert_non_null(vswitch_drop_name(i));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(vswitch_drop_name(i), vswitch_drop_name(j));
    }
    assert_string_equal(vswitch_drop_name(VSWITCH_DROP_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_go_to_whom_they_are_for),
        cmocka_unit_test(a_flooded_frame_is_not_copied),
        cmocka_unit_test(stations_are_learnt_move_and_age),
        cmocka_unit_test(isolated_ports_do_not_meet),
        cmocka_unit_test(vlans_are_separate),
        cmocka_unit_test(a_guest_cannot_choose_its_vlan),
        cmocka_unit_test(no_frame_ever_leaves_its_vlan),
        cmocka_unit_test(a_guest_sends_from_its_own_address_only),
        cmocka_unit_test(nobody_takes_an_address_that_a_port_owns),
        cmocka_unit_test(a_hundred_thousand_addresses_push_nobody_out),
        cmocka_unit_test(the_table_is_not_promised_twice),
        cmocka_unit_test(frames_between_two_ends_of_a_cable_stop),
        cmocka_unit_test(frames_stop_at_the_deadline),
        cmocka_unit_test(a_port_without_a_link_is_not_there),
        cmocka_unit_test(inboxes_take_turns_and_slow_their_senders),
        cmocka_unit_test(what_waits_at_a_standing_port_is_given_back),
        cmocka_unit_test(a_port_gets_what_it_can_use),
        cmocka_unit_test(no_frame_is_larger_than_the_mtu),
        cmocka_unit_test(without_memory_frames_are_lost_and_counted),
        cmocka_unit_test(a_vm_that_arrived_is_announced),
        cmocka_unit_test(every_drop_has_a_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
