/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtual switch: frames reach whom they are for and nobody else, VLANs and guests are kept apart, a
 * guest can neither take another's address nor fill the table.
 */
#include "vswitch_fixture.h"

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
    assert_ptr_equal(vswitch_where(&b->sw, 0, MAC_B, b->now), &b->vb);
    vswitch_detach(&b->sw, &b->vb);
    attach(b, &b->vb, &b->b, &plain);
    for (unsigned vlan = 1; vlan < 4096; vlan++)
        assert_null(vswitch_where(&b->sw, (uint16_t)vlan, MAC_B, b->now)); /* just now, and in one VLAN only */
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

/* Two tags, or one that is only a priority before another: the second one never is the first on a wire. */
static void a_second_tag_is_no_way_into_another_vlan(void **state)
{
    struct bench *b = bench_bare();
    const struct vswitch_port_config trunk = { .trunk = true }, ten = { .vlan = 10 };
    struct vswitch_port *vps[] = { &b->va, &b->vb, &b->vc, &b->vwire };
    struct fake_port *ports[] = { &b->wire, &b->a, &b->b, &b->c };
    static const int outer[] = { -1, 0, 0xe000, 10, 20 };

    (void)state;
    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &plain);
    attach(b, &b->vb, &b->b, &ten);
    attach(b, &b->vc, &b->c, &trunk);
    for (unsigned from = 0; from < ARRAY_COUNT(vps); from++) {
        for (unsigned i = 0; i < ARRAY_COUNT(outer); i++) {
            for (uint32_t bytes = 14; bytes < 100; bytes += bytes < 20 ? 1 : 40) {
                struct frame *frame = frame_of(b, ALL, vps[from]->port->mac ? vps[from]->port->mac : STATION, bytes);

                be16_put(frame->segment[0].at + 12, ETH_TYPE_VLAN);
                if (bytes >= 16)
                    be16_put(frame->segment[0].at + 14, 20);
                frame->tagged = outer[i] >= 0;
                frame->tci = outer[i] >= 0 ? (uint16_t)outer[i] : 0;
                clear(b);
                vswitch_input(&b->sw, vps[from], frame, b->now);
                frame_put(frame);
                for (unsigned j = 0; j < ARRAY_COUNT(ports); j++)
                    for (unsigned k = 0; k < ports[j]->got_count; k++)
                        assert_true(ports[j]->got[k]->tagged);
            }
        }
    }
    clear(b);
    assert_true(b->vwire.counters.drop[VSWITCH_DROP_VLAN] > 0);
    /* On a trunk the outer tag stays, and what is within goes along. */
    struct frame *frame = frame_of(b, ALL, MAC_C, 100);
    be16_put(frame->segment[0].at + 12, ETH_TYPE_VLAN);
    frame->tagged = true;
    frame->tci = 10;
    vswitch_input(&b->sw, &b->vc, frame, b->now);
    frame_put(frame);
    assert_int_equal(b->wire.got_count, 1);
    assert_int_equal(b->wire.got[0]->tci, 10);
    assert_int_equal(b->b.got_count, 0);
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

/* A flow's frames are not looked up each time: whatever changes the answer has to count for the very next one. */
static void a_flow_that_went_one_way_follows_each_change(void **state)
{
    struct bench *b = bench_new();

    (void)state;
    attach(b, &b->vspare, &b->spare, &(struct vswitch_port_config){ .any_source = true, .quota = 8 });
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
        assert_int_equal(b->a.got_count, 1);
        assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
        assert_int_equal(b->wire.got_count, 1);
    }
    b->a.port.link = 0; /* the receiver is away, and nobody else has its address */
    send(b, &b->vwire, MAC_A, STATION);
    assert_int_equal(b->a.got_count, 0);
    b->a.port.link = 1;
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
    vswitch_port_deadline(&b->va, b->now);
    send(b, &b->vwire, MAC_A, STATION);
    assert_int_equal(b->a.got_count, 0);
    vswitch_port_deadline(&b->va, TIME_NEVER);
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
    /* The station moves, and comes back. */
    send(b, &b->vspare, ALL, STATION);
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
    assert_int_equal(b->spare.got_count, 1);
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
    assert_int_equal(b->wire.got_count, 1);
    /* A PAUSE frame of the same two does not get through. */
    struct frame *frame = frame_of(b, MAC_A, STATION, 60);
    be16_put(frame->segment[0].at + 12, ETH_TYPE_MAC_CONTROL);
    clear(b);
    vswitch_input(&b->sw, &b->vwire, frame, b->now);
    assert_int_equal(clear(b), 0);
    frame_put(frame);
    /* What sends is not forgotten, however long it goes on; what only receives is, when its time is over. */
    for (uint64_t end = b->now + VSWITCH_AGE_NS + 2 * S; b->now < end; b->now += S / 4) {
        assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
        vswitch_tick(&b->sw, b->now);
    }
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 1);
    for (uint64_t end = b->now + VSWITCH_AGE_NS; b->now < end; b->now += S / 4)
        send(b, &b->va, STATION, MAC_A);
    assert_int_equal(send(b, &b->va, STATION, MAC_A), 2); /* unknown again */
    /* The receiver's address goes to another port; then one appears that owns the sender's. */
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
    vswitch_detach(&b->sw, &b->va);
    fake_port_clear(&b->c);
    vswitch_detach(&b->sw, &b->vc);
    fake_port_make(&b->c, "heir", MAC_A, 0);
    attach(b, &b->vc, &b->c, &plain);
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 1);
    assert_int_equal(b->c.got_count, 1);
    fake_port_clear(&b->a);
    fake_port_make(&b->a, "owner", STATION, 0);
    attach(b, &b->va, &b->a, &plain);
    assert_int_equal(send(b, &b->vwire, MAC_A, STATION), 0);
    assert_int_equal(b->vwire.counters.drop[VSWITCH_DROP_SOURCE], 1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_go_to_whom_they_are_for),
        cmocka_unit_test(a_flooded_frame_is_not_copied),
        cmocka_unit_test(stations_are_learnt_move_and_age),
        cmocka_unit_test(isolated_ports_do_not_meet),
        cmocka_unit_test(vlans_are_separate),
        cmocka_unit_test(a_guest_cannot_choose_its_vlan),
        cmocka_unit_test(a_second_tag_is_no_way_into_another_vlan),
        cmocka_unit_test(no_frame_ever_leaves_its_vlan),
        cmocka_unit_test(a_guest_sends_from_its_own_address_only),
        cmocka_unit_test(nobody_takes_an_address_that_a_port_owns),
        cmocka_unit_test(a_flow_that_went_one_way_follows_each_change),
        cmocka_unit_test(a_hundred_thousand_addresses_push_nobody_out),
        cmocka_unit_test(the_table_is_not_promised_twice),
        cmocka_unit_test(frames_between_two_ends_of_a_cable_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
