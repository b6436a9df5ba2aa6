/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtual switch to its ports: a deadline stops frames, slow ports hurt nobody else, what a port
 * cannot do is done for it, and a VM that moved is announced.
 */
#include "net/announce.h"
#include "net/offload.h"
#include "vswitch_fixture.h"

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
    send(b, &b->va, MAC_C, MAC_A); /* and when its cable is pulled */
    b->c.port.link = 0;
    vswitch_tick(&b->sw, b->now);
    assert_int_equal(b->vc.counters.drop[VSWITCH_DROP_STALLED], 4);
    b->c.port.link = 1;
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
    struct frame *frame = large(b, MAC_B, 5000, 1400);

    (void)state;
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->b.got_count, 1); /* takes it whole */
    assert_ptr_equal(b->b.got[0], frame);
    assert_int_equal(b->vb.counters.finished, 0);
    frame_put(frame);
    frame = large(b, STATION, 5000, 1400);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(b->wire.got_count, 4); /* computes checksums, cannot cut */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(b->wire.got[i]->checksum, FRAME_CHECKSUM_MISSING);
    frame_put(frame);
    frame = large(b, MAC_NODE, 5000, 1400);
    vswitch_input(&b->sw, &b->va, frame, b->now);
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
    /* One to be cut for everybody. */
    clear(b);
    frame = large(b, ALL, 5000, 1400);
    vswitch_input(&b->sw, &b->va, frame, b->now);
    assert_int_equal(clear(b), 0);
    assert_int_equal(b->va.counters.drop[VSWITCH_DROP_MALFORMED], 1);
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

/* A port that is slow to take frames that had to be made for it does not use up what they are made of. */
static void a_slow_port_leaves_memory_to_make_frames(void **state)
{
    static const struct netport_ops keeps = { .give = queue_give };
    static struct frame *slots[1024];
    struct bench *b = bench_bare();
    const struct vswitch_port_config five = { .vlan = 5 };
    bool wake;

    (void)state;
    b->a.port.ops = &keeps;
    frame_queue_init(&b->a.port.outbox, slots, 1024);
    frame_queue_init(&b->c.port.outbox, b->c.out_slots, 64);
    attach(b, &b->vwire, &b->wire, &physical);
    attach(b, &b->va, &b->a, &five);
    attach(b, &b->vc, &b->c, &five);
    attach(b, &b->vnode, &b->node, &five);
    for (unsigned i = 0; i < 1000; i++) { /* each loses its tag for a */
        struct frame *frame = frame_of(b, MAC_A, STATION, 100);

        frame->tagged = true;
        frame->tci = 5;
        vswitch_input(&b->sw, &b->vwire, frame, b->now);
        frame_put(frame);
        if (i % 10)
            continue;
        assert_int_equal(send_tagged(b, &b->vwire, MAC_C, STATION, 5), 1);
        assert_int_equal(send_tagged(b, &b->vwire, MAC_NODE, STATION, 5), 1);
        assert_int_equal(send(b, &b->vnode, STATION, MAC_NODE), 1);
        clear(b);
    }
    assert_true(frame_queue_count(&b->a.port.outbox) >= 100);
    assert_true(b->va.counters.drop[VSWITCH_DROP_BUSY] > 500);
    (void)frame_queue_purge(&b->a.port.outbox, &wake);
    bench_free(b);
}

static unsigned narrow_room, narrow_got[3];

static bool narrow_give(struct netport *port, struct frame *frame)
{
    (void)port;
    if (!narrow_room)
        return false;
    narrow_room--;
    narrow_got[(eth_address(frame->segment[0].at + 6) & 3) - 1]++;
    return true;
}

/* A way out that takes little each round is shared by those who want it, in whatever order they joined. */
static void a_narrow_way_out_is_shared(void **state)
{
    static const struct netport_ops narrow = { .give = narrow_give };
    struct bench *b = bench_new();
    struct fake_port *ports[] = { &b->a, &b->b, &b->c };
    static const uint64_t macs[] = { MAC_A, MAC_B, MAC_C };

    (void)state;
    b->wire.port.ops = &narrow;
    memset(narrow_got, 0, sizeof(narrow_got));
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < 3; i++)
            while (frame_queue_count(&ports[i]->port.inbox) < 40)
                assert_true(frame_queue_put(&ports[i]->port.inbox, frame_of(b, STATION, macs[i], 60)));
        narrow_room = 8;
        assert_true(vswitch_run(&b->sw, b->now));
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_true(narrow_got[i] >= 300 * 8 / 5);
        vswitch_detach(&b->sw, i == 0 ? &b->va : i == 1 ? &b->vb : &b->vc);
    }
    bench_free(b);
}

/* Many small pieces are much work too. */
static void a_turn_is_bounded_for_cutting_too(void **state)
{
    static const struct netport_ops narrow = { .give = narrow_give };
    struct bench *b = bench_new();
    unsigned turns = 0;
    bool more = true;

    (void)state;
    b->node.port.ops = &narrow;
    memset(narrow_got, 0, sizeof(narrow_got));
    for (unsigned i = 0; i < 30; i++)
        assert_true(frame_queue_put(&b->a.port.inbox, large(b, MAC_NODE, 250, 1)));
    while (more) {
        unsigned before = narrow_got[0];

        narrow_room = 100000;
        more = vswitch_run(&b->sw, b->now);
        assert_true(narrow_got[0] - before <= 1024 + 250);
        assert_true(++turns < 30);
    }
    assert_int_equal(narrow_got[0], 30 * 250);
    bench_free(b);
}

/* What a frame costs for all who get it counts: a broadcast to many ports whose checksum each of them needs is much work. */
static void a_turn_is_bounded_for_floods_too(void **state)
{
    static struct fake_port ports[40];
    static struct vswitch_port vports[40];
    struct bench *b = bench_bare();
    struct frame *frame;
    unsigned given = 0, turns = 0;
    bool more = true;

    (void)state;
    attach(b, &b->va, &b->a, &plain);
    for (unsigned i = 0; i < 40; i++) {
        fake_port_make(&ports[i], "many", 0x020000001000ull + i, 0);
        attach(b, &vports[i], &ports[i], &plain);
    }
    for (unsigned i = 0; i < 64; i++) {
        frame = large(b, ALL, 1400, 0);
        assert_true(frame_queue_put(&b->a.port.inbox, frame));
    }
    while (more) {
        unsigned frames = 0, before = given;

        more = vswitch_run(&b->sw, b->now);
        for (unsigned i = 0; i < 40; i++) {
            frames += ports[i].got_count;
            given += fake_port_clear(&ports[i]);
            assert_int_equal(vports[i].counters.drop[VSWITCH_DROP_MEMORY], 0);
        }
        assert_int_equal(given, before + frames);
        assert_true(frames * 1454 < VSWITCH_TURN_BYTES + 40 * 1454);
        assert_true(++turns <= 64);
    }
    assert_int_equal(given, 64 * 40);
    bench_free(b);
}

/* However much waits, a turn ends soon, and the ports after the one that it ended at are next. */
static void a_turn_is_bounded_and_the_next_goes_on(void **state)
{
    struct bench *b = bench_new();
    unsigned turns = 1;

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        assert_true(frame_queue_put(&b->a.port.inbox, large(b, MAC_C, 60000, 1400)));
    for (unsigned i = 0; i < 5; i++)
        assert_true(frame_queue_put(&b->b.port.inbox, frame_of(b, MAC_C, MAC_B, 100)));
    assert_true(vswitch_run(&b->sw, b->now));
    assert_true(b->c.got_count < 11);
    while (vswitch_run(&b->sw, b->now))
        assert_true(++turns < 5);
    assert_int_equal(b->c.got_count, 11);
    /* A port that is next and leaves. */
    b->sw.turn = &b->va;
    vswitch_detach(&b->sw, &b->va);
    assert_true(frame_queue_put(&b->b.port.inbox, frame_of(b, MAC_C, MAC_B, 100)));
    assert_false(vswitch_run(&b->sw, b->now));
    assert_int_equal(b->c.got_count, 12);
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
        cmocka_unit_test(frames_stop_at_the_deadline),
        cmocka_unit_test(a_port_without_a_link_is_not_there),
        cmocka_unit_test(inboxes_take_turns_and_slow_their_senders),
        cmocka_unit_test(what_waits_at_a_standing_port_is_given_back),
        cmocka_unit_test(a_port_gets_what_it_can_use),
        cmocka_unit_test(no_frame_is_larger_than_the_mtu),
        cmocka_unit_test(without_memory_frames_are_lost_and_counted),
        cmocka_unit_test(a_slow_port_leaves_memory_to_make_frames),
        cmocka_unit_test(a_narrow_way_out_is_shared),
        cmocka_unit_test(a_turn_is_bounded_for_cutting_too),
        cmocka_unit_test(a_turn_is_bounded_for_floods_too),
        cmocka_unit_test(a_turn_is_bounded_and_the_next_goes_on),
        cmocka_unit_test(a_vm_that_arrived_is_announced),
        cmocka_unit_test(every_drop_has_a_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
