/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtio network card beside its packets: features are what is there and go together, commands do what
 * they say and nothing else, filters filter, flows keep to their queue, and a save keeps what the driver set and
 * neither loses nor doubles a packet of the guest's.
 */
#include "net_card_fixture.h"

/* ---- Features, configuration, commands ---- */

static void features_are_what_is_there(void **state)
{
    struct bench *b = bench_pairs(0, 2, true);
    static const struct { uint64_t take; bool good; } sets[] = {
        { F_CSUM | F_HOST_TSO4, true }, { F_HOST_TSO4, false }, { F_HOST_TSO6, false }, { F_CSUM | F_HOST_ECN, false },
        { F_GUEST_TSO4, false }, { F_GUEST_TSO6 | F_GUEST_CSUM, true }, { F_GUEST_CSUM | F_GUEST_ECN, false },
        { F_CTRL_RX, false }, { F_CTRL_VLAN, false }, { F_MQ, false }, { F_ANNOUNCE, false }, { F_CTRL_MAC, false },
        { F_RX_EXTRA, false }, { F_MQ | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_ANNOUNCE | F_CTRL_MAC, true },
        { 0, true },
    };
    uint64_t config = fake_bar(b->guest, SLOT) + REG_DEVICE;

    (void)state;
    assert_int_equal(fake_config_read(b->guest, SLOT, 0, 4), 0x10411af4);
    assert_int_equal(fake_config_read(b->guest, SLOT, 8, 4) >> 8, 0x020000);
    assert_int_equal(fake_features(b->guest, b->dev),
                     0x8000000130ffbbabull | BIT(63)); /* each bit has its line in docs/guest-interface.md */
    assert_int_equal(fake_mmio_read(b->guest, config, 4), 0xaa005402);
    assert_int_equal(fake_mmio_read(b->guest, config + 4, 2), 0xccbb);
    assert_int_equal(fake_mmio_read(b->guest, config + 6, 2), 1);
    assert_int_equal(fake_mmio_read(b->guest, config + 8, 2), 2);
    assert_int_equal(fake_mmio_read(b->guest, config + 10, 2), 1500);
    assert_int_equal(fake_mmio_read(b->guest, config + 12, 4), 10000);
    assert_int_equal(fake_mmio_read(b->guest, config + 16, 1), 1);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_QUEUE_COUNT, 2), 5);
    for (unsigned i = 0; i < ARRAY_COUNT(sets); i++) {
        fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
        fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 3);
        fake_accept(b->guest, b->dev, sets[i].take | VIRTIO_F_VERSION_1);
        fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0xb);
        assert_int_equal(fake_reg(b->guest, b->dev, REG_STATUS, 1), sets[i].good ? 0xb : 3);
    }
    bench_free(b);
    b = bench_new(0);
    assert_false(fake_features(b->guest, b->dev) & (F_MQ | F_CTRL_MAC));
    bench_free(b);
}

static void the_link_and_the_announcement_are_seen(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    uint64_t config = fake_bar(b->guest, SLOT) + REG_DEVICE;
    unsigned generation = fake_reg(b->guest, b->dev, REG_GENERATION, 1);
    struct frame *frame = inward(b, 100);

    (void)state;
    assert_true(b->net.port.ops->give(&b->net.port, frame));
    virtio_net_set_link(&b->net, false);
    assert_int_equal(frame->references, 1);
    frame_put(frame);
    assert_int_equal(fake_mmio_read(b->guest, config + 6, 2), 0);
    assert_int_not_equal(fake_reg(b->guest, b->dev, REG_GENERATION, 1), generation);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1) & 2, 2);
    virtio_net_set_link(&b->net, false);
    assert_int_equal(fake_reg(b->guest, b->dev, REG_ISR, 1) & 2, 0);
    virtio_net_set_link(&b->net, true);
    assert_true(virtio_net_announce(&b->net));
    assert_int_equal(fake_mmio_read(b->guest, config + 6, 2), 3);
    bench_free(b);
    b = bench_new(ALL_FEATURES & ~F_ANNOUNCE);
    assert_false(virtio_net_announce(&b->net));
    bench_free(b);
}

/* A command with its data; returns the answer, or 0xff where there was none. */
static unsigned command(struct bench *b, unsigned kind, unsigned code, const void *data, uint32_t bytes)
{
    const struct gmem_segment s[] = { { GPA(COMMAND), 2 }, { GPA(COMMAND + 16), bytes }, { GPA(COMMAND + 4096), 1 } };
    const struct gmem_segment bare[] = { s[0], s[2] };
    uint32_t id, written;

    b->guest->ram[COMMAND] = (uint8_t)kind;
    b->guest->ram[COMMAND + 1] = (uint8_t)code;
    if (bytes)
        memcpy(b->guest->ram + COMMAND + 16, data, bytes);
    b->guest->ram[COMMAND + 4096] = 0xff;
    fake_chain(&b->q[b->control], bytes ? s : bare, bytes ? 2 : 1, 1);
    fake_run(b->guest, b->dev, b->control);
    if (fake_used(&b->q[b->control], &id, &written))
        assert_int_equal(written, 1);
    return b->guest->ram[COMMAND + 4096];
}

static bool hears(struct bench *b, uint64_t to, int vlan)
{
    struct frame *frame = inward(b, 10);
    struct header header;
    bool heard;

    eth_address_put(frame->segment[0].at, to);
    frame->tagged = vlan >= 0;
    frame->tci = vlan >= 0 ? (uint16_t)vlan : 0;
    offer_buffers(b, 0, 1, 2048);
    assert_true(give(b, frame));
    heard = received(b, 0, &header) > 0;
    frame_put(frame);
    return heard;
}

static void filters_do_what_they_are_told(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    const uint64_t group = 0x01005e000005ull, other = 0x025400000001ull;
    uint8_t tables[4 + 6 + 4 + 6 + 1] = { 1, 0, 0, 0, 0x02, 0x54, 0, 0, 0, 0x01, 1, 0, 0, 0, 0x01, 0, 0x5e, 0, 0, 5 };
    uint8_t many[8 + 6 * 100] = { 0 };
    static const uint8_t on = 1, off = 0, two = 2;
    uint16_t vlan = 9;

    (void)state;
    assert_true(hears(b, MAC, -1) && hears(b, other, -1) && hears(b, group, -1)); /* no filter yet */
    assert_int_equal(command(b, 0, 0, &off, 1), 0);
    assert_true(hears(b, MAC, -1) && hears(b, ETH_BROADCAST, -1));
    assert_false(hears(b, other, -1) || hears(b, group, -1));
    assert_int_equal(command(b, 1, 0, tables, 20), 0);
    assert_true(hears(b, other, -1) && hears(b, group, -1));
    assert_false(hears(b, other + 1, -1) || hears(b, group + 1, -1));
    assert_int_equal(command(b, 0, 1, &on, 1), 0);
    assert_true(hears(b, group + 1, -1));
    assert_int_equal(command(b, 0, 3, &on, 1), 0);
    assert_false(hears(b, group, -1));
    assert_true(hears(b, ETH_BROADCAST, -1));
    assert_int_equal(command(b, 0, 5, &on, 1), 0);
    assert_false(hears(b, ETH_BROADCAST, -1));
    assert_int_equal(command(b, 0, 2, &on, 1), 0);
    assert_true(hears(b, other + 1, -1));
    assert_int_equal(command(b, 0, 4, &on, 1), 0);
    assert_false(hears(b, MAC, -1));
    assert_int_equal(command(b, 0, 0, &on, 1), 0);
    assert_true(hears(b, MAC, -1) && hears(b, group, -1));
    /* More addresses than are kept: all pass. */
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(command(b, 0, i, &off, 1), 0);
    many[4] = 65;
    assert_int_equal(command(b, 1, 0, many, 8 + 6 * 65), 0);
    assert_true(hears(b, group + 77, -1));
    assert_false(hears(b, other, -1));
    /* VLANs: only what was added; untagged always. */
    assert_int_equal(command(b, 0, 0, &on, 1), 0);
    assert_true(hears(b, MAC, -1));
    assert_false(hears(b, MAC, 9));
    assert_int_equal(command(b, 2, 0, &vlan, 2), 0);
    assert_true(hears(b, MAC, 9));
    assert_false(hears(b, MAC, 8));
    assert_int_equal(command(b, 2, 1, &vlan, 2), 0);
    assert_false(hears(b, MAC, 9));
    /* What is refused changes nothing. */
    vlan = 4096;
    assert_int_equal(command(b, 2, 0, &vlan, 2), 1);
    assert_int_equal(command(b, 2, 0, &vlan, 1), 1);
    assert_int_equal(command(b, 2, 2, &vlan, 2), 1);
    assert_int_equal(command(b, 0, 0, &two, 1), 1);
    assert_int_equal(command(b, 0, 6, &on, 1), 1);
    assert_int_equal(command(b, 0, 0, "\0\0", 2), 1);
    assert_int_equal(command(b, 0, 0, NULL, 0), 1);
    assert_int_equal(command(b, 9, 0, &on, 1), 1);
    assert_int_equal(command(b, 4, 0, "\1\0", 2), 1); /* no MQ */
    assert_int_equal(command(b, 1, 1, "\2\0\0\0\0\1", 6), 1); /* no other address */
    for (uint32_t cut = 0; cut <= sizeof(tables); cut++)
        assert_int_equal(command(b, 1, 0, tables, cut), cut != 20);
    b->net.modes = 1;
    memset(tables, 0xff, 4);
    assert_int_equal(command(b, 1, 0, tables, sizeof(tables)), 1);
    assert_true(hears(b, MAC, -1));
    assert_false(broken(b));
    bench_free(b);
}

static void commands_need_their_features(void **state)
{
    struct bench *b = bench_new(F_CTRL_VQ | F_MRG);
    static const uint8_t off = 0;
    uint8_t tables[8] = { 0 };

    (void)state;
    assert_int_equal(command(b, 0, 0, &off, 1), 1);
    assert_int_equal(command(b, 1, 0, tables, 8), 1);
    assert_int_equal(command(b, 2, 0, "\1\0", 2), 1);
    assert_int_equal(command(b, 3, 0, NULL, 0), 1);
    assert_true(hears(b, 0x025400000001ull, 77));
    bench_free(b);
    /* Another address, where the owner allows it. */
    b = bench_pairs(ALL_FEATURES, 1, true);
    assert_int_equal(command(b, 1, 1, "\1\0\0\0\0\1", 6), 1);
    assert_int_equal(command(b, 1, 1, "\2\0\0\0\0\1", 6), 0);
    assert_int_equal(command(b, 0, 0, &off, 1), 0);
    assert_true(hears(b, 0x020000000001ull, -1));
    assert_false(hears(b, MAC, -1));
    assert_true(virtio_net_announce(&b->net));
    assert_int_equal(command(b, 3, 0, NULL, 0), 0);
    assert_false(b->net.announce);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0); /* a reset brings the old one back */
    assert_int_equal(fake_mmio_read(b->guest, fake_bar(b->guest, SLOT) + REG_DEVICE, 4), 0xaa005402);
    bench_free(b);
    /* Commands without a place for the answer, or without a head. */
    for (unsigned i = 0; i < 2; i++) {
        const struct gmem_segment s[] = { { GPA(COMMAND), i ? 1 : 3 }, { GPA(COMMAND + 64), 1 } };

        b = bench_new(ALL_FEATURES);
        fake_chain(&b->q[2], s, 1, i);
        fake_run(b->guest, b->dev, 2);
        assert_true(broken(b));
        bench_free(b);
    }
}

static void flows_keep_to_their_queue(void **state)
{
    struct bench *b = bench_pairs(ALL_FEATURES, 4, false);
    unsigned used[4] = { 0 };
    struct header header;

    (void)state;
    assert_int_equal(b->control, 8);
    for (unsigned i = 0; i < 4; i++)
        offer_buffers(b, 2 * i, 128, 2048);
    for (unsigned round = 0; round < 2; round++) {
        int first[32];

        for (unsigned flow = 0; flow < 32; flow++) {
            struct fake_packet packet = { .payload = 10 };
            uint32_t bytes = fake_packet_build(&packet, raw, false);
            struct frame *frame;
            int where = -1;

            be16_put(raw + 34, (uint16_t)(50000 + flow));
            eth_address_put(raw, MAC);
            for (unsigned again = 0; again < 2; again++) {
                frame = fake_frame(&b->pool, raw, bytes);
                assert_true(give(b, frame));
                frame_put(frame);
                where = -1;
                for (unsigned i = 0; i < 4; i++)
                    if (received(b, 2 * i, &header) > 0)
                        where = (int)i;
                assert_true(where >= 0 && (!again || where == first[flow]));
                first[flow] = where;
            }
            used[where] += round;
            assert_true(round || !where); /* one pair until the driver says otherwise */
        }
        assert_int_equal(command(b, 4, 0, "\4\0", 2), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(used[i] >= 2);
    assert_int_equal(command(b, 4, 0, "\5\0", 2), 1);
    assert_int_equal(command(b, 4, 0, "\0\0", 2), 1);
    assert_int_equal(b->net.active_pairs, 4);
    /* Every transmit queue sends. */
    for (unsigned i = 0; i < 4; i++) {
        offer_packet(b, 2 * i + 1, &(struct header){ 0 }, raw, 60, 100);
        fake_run(b->guest, b->dev, 2 * i + 1);
        struct frame *frame = sent(b);
        assert_non_null(frame);
        frame_put(frame);
    }
    bench_free(b);
    /* Without MQ the control queue is the third (5.1.2). */
    b = bench_pairs(ALL_FEATURES & ~F_MQ, 4, false);
    assert_int_equal(command(b, 0, 0, "\1", 1), 0);
    bench_free(b);
}

/* ---- State ---- */

static void a_save_keeps_what_the_driver_set(void **state)
{
    struct bench *b = bench_pairs(ALL_FEATURES, 2, true), *c = bench_pairs(0, 2, true);
    uint8_t tables[4 + 6 + 4 + 6] = { 1, 0, 0, 0, 0x02, 0x54, 0, 0, 0, 0x01, 1, 0, 0, 0, 0x01, 0, 0x5e, 0, 0, 5 };
    struct frame *frame = inward(b, 100);
    struct header header;
    uint32_t id, written, packets = 0;

    (void)state;
    assert_int_equal(command(b, 0, 0, "\0", 1), 0);
    assert_int_equal(command(b, 1, 0, tables, sizeof(tables)), 0);
    assert_int_equal(command(b, 1, 1, "\2\0\0\0\0\1", 6), 0);
    assert_int_equal(command(b, 2, 0, "\x09\0", 2), 0);
    assert_int_equal(command(b, 4, 0, "\2\0", 2), 0);
    offer_buffers(b, 0, 4, 2048);
    memset(raw, 0x77, 100);
    for (unsigned i = 0; i < 12; i++)
        offer_packet(b, 1, &(struct header){ 0 }, raw, 60 + i, 100);
    fake_run(b->guest, b->dev, 1); /* eight fit into the inbox, four stay in the ring */
    assert_true(b->net.port.ops->give(&b->net.port, frame)); /* one has not reached the guest: a wire may lose it */
    virtio_quiesce(b->dev);
    (void)virtio_process(b->dev, 0);
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), OK);
    assert_false(c->net.port.ops->give(&c->net.port, frame)); /* not before it goes on */
    frame_put(frame);
    virtio_resume(c->dev);
    while (virtio_process(c->dev, 0))
        ;
    for (struct frame *f; (f = sent(b)); packets++) {
        assert_int_equal(f->bytes, 60 + packets);
        frame_put(f);
    }
    assert_int_equal(packets, 8);
    for (struct frame *f; (f = sent(c)); packets++) {
        assert_int_equal(f->bytes, 60 + packets);
        frame_put(f);
    }
    assert_int_equal(packets, 12); /* none lost, none twice */
    memcpy(c->q, b->q, sizeof(c->q));
    for (unsigned i = 0; i < VIRTIO_NET_QUEUES_MAX; i++)
        c->q[i].guest = c->guest;
    c->control = b->control;
    packets = 0;
    while (fake_used(&c->q[1], &id, &written))
        packets++;
    assert_int_equal(packets, 12);
    assert_int_equal(c->net.mac, 0x020000000001ull);
    assert_int_equal(c->net.active_pairs, 2);
    assert_true(c->net.vlans[0] == BIT(9) && c->net.unicast_count == 1 && c->net.multicast_count == 1);
    frame = inward(c, 50);
    eth_address_put(frame->segment[0].at, 0x025400000001ull);
    c->net.active_pairs = 1;
    assert_true(give(c, frame));
    assert_int_equal(received(c, 0, &header), 104);
    eth_address_put(frame->segment[0].at, MAC); /* it has another one now */
    assert_true(give(c, frame));
    assert_int_equal(received(c, 0, &header), -1);
    frame_put(frame);
    bench_free(b);
    bench_free(c);
}

/* A card that its driver broke is no reason not to restore the VM: it is as broken as it was. */
static void a_broken_card_is_saved_as_broken(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES), *c = bench_new(0);

    (void)state;
    offer_packet(b, 1, &(struct header){ .gso_type = 1 }, raw, 100, 200);
    fake_run(b->guest, b->dev, 1);
    assert_true(broken(b));
    virtio_quiesce(b->dev);
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), OK);
    virtio_resume(c->dev);
    assert_true(broken(c));
    bring_up(c, ALL_FEATURES);
    assert_false(broken(c));
    bench_free(b);
    bench_free(c);
}

static void a_stream_that_lies_is_refused(void **state)
{
    struct bench *b = bench_pairs(ALL_FEATURES, 2, true), *c = bench_pairs(0, 2, true);
    enum { CONFIGURED, MTU, TAKEN, ANNOUNCED, PAIRS, TABLE, COUNT };

    (void)state;
    virtio_quiesce(b->dev);
    for (unsigned i = 0; i < COUNT; i++) {
        struct virtio_net before = b->net;

        b->net.configured_mac += i == CONFIGURED;
        b->net.port.mtu -= i == MTU;
        b->net.mac |= i == TAKEN ? BIT(40) : 0;
        b->net.announce = i == ANNOUNCED;
        if (i == ANNOUNCED)
            b->net.device.accepted &= ~F_ANNOUNCE;
        b->net.active_pairs += i == PAIRS ? 2 : 0;
        b->net.multicast_count = i == TABLE;
        b->net.multicast[0] = BIT(48);
        assert_int_equal(fake_save(b->guest, b->dev), OK);
        memcpy(c->guest->ram, b->guest->ram, sizeof(c->guest->ram));
        assert_int_equal(fake_restore(c->guest, c->dev, b->guest), ERR_RANGE);
        assert_int_equal(c->dev->status, 0);
        assert_int_equal(c->net.mac, MAC);
        assert_int_equal(c->net.active_pairs, 1);
        b->net = before;
    }
    /* Features that do not go together. */
    b->net.device.accepted &= ~F_CSUM;
    assert_int_equal(fake_save(b->guest, b->dev), OK);
    assert_int_equal(fake_restore(c->guest, c->dev, b->guest), ERR_RANGE);
    bench_free(b);
    bench_free(c);
}

static void a_wrong_configuration_is_refused(void **state)
{
    struct bench *b = bench_new(0);
    struct virtio_owner owner = fake_owner(b->guest);
    const struct virtio_net_config good = {
        .mac = MAC, .mtu = 1500, .pairs = 1, .frames = b->frames, .chunks = b->chunks, .chunk_numbers = b->numbers,
        .frame_count = 16, .chunk_count = 48, .inbox = b->inbox, .outbox = b->outbox, .inbox_size = 8,
        .outbox_size = 16,
    };
    struct virtio_net_config bad[10];
    static struct virtio_net other;

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        bad[i] = good;
    bad[0].mac = 0;
    bad[1].mac = 0x010000000001ull;
    bad[2].mtu = 67;
    bad[3].mtu = 65536;
    bad[4].pairs = 0;
    bad[5].pairs = VIRTIO_NET_PAIRS_MAX + 1;
    bad[6].inbox_size = 7;
    bad[7].outbox_size = 0;
    bad[8].chunk_count = VIRTIO_NET_CHUNKS_MIN - 1;
    bad[9].mac = BIT(48) | MAC;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(virtio_net_init(&other, &owner, &b->guest->pci, SLOT + 1, &bad[i]), ERR_INVALID);
    bad[0] = good;
    bad[0].pairs = VIRTIO_NET_PAIRS_MAX;
    assert_int_equal(virtio_net_init(&other, &owner, &b->guest->pci, SLOT + 1, &bad[0]), OK);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_what_is_there),
        cmocka_unit_test(the_link_and_the_announcement_are_seen),
        cmocka_unit_test(filters_do_what_they_are_told),
        cmocka_unit_test(commands_need_their_features),
        cmocka_unit_test(flows_keep_to_their_queue),
        cmocka_unit_test(a_save_keeps_what_the_driver_set),
        cmocka_unit_test(a_broken_card_is_saved_as_broken),
        cmocka_unit_test(a_stream_that_lies_is_refused),
        cmocka_unit_test(a_wrong_configuration_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
