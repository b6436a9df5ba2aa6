/* SPDX-License-Identifier: MIT */
/*
 * Promises of the virtio network card: packets cross whole, with what is known about them; pressure slows the guest and
 * loses nothing of what it sends; what the guest has no room for is lost as a whole; a driver that lies breaks its
 * card.
 */
#include "net/offload.h"
#include "net_card_fixture.h"

/* ---- Out of the guest ---- */

static void packets_leave_as_they_are(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    static const uint32_t cuts[] = { 7, 12, 13, 100, 5000 };
    uint32_t id, written;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cuts); i++) {
        struct fake_packet packet = { .payload = 300 + i, .udp = i & 1 };
        uint32_t bytes = fake_packet_build(&packet, raw, false);
        struct frame *frame;

        offer_packet(b, 1, &(struct header){ 0 }, raw, bytes, cuts[i]);
        fake_run(b->guest, b->dev, 1);
        assert_true(fake_used(&b->q[1], &id, &written));
        assert_int_equal(written, 0);
        frame = sent(b);
        assert_non_null(frame);
        assert_int_equal(b->kicks, i + 1);
        assert_int_equal(frame_read(frame, 0, flat, sizeof(flat)), bytes);
        assert_memory_equal(flat, raw, bytes);
        assert_int_equal(frame->checksum, FRAME_CHECKSUM_THERE);
        assert_int_equal(frame->gso, FRAME_GSO_NONE);
        assert_false(frame->tagged);
        /* The guest may have its buffer again: what it writes there does not matter to the frame. */
        memset(b->guest->ram + 0x500000, 0xee, 0x100000);
        frame_read(frame, 0, flat, bytes);
        assert_memory_equal(flat, raw, bytes);
        frame_put(frame);
    }
    assert_int_equal(b->net.counters.sent_frames, ARRAY_COUNT(cuts));
    bench_free(b);
}

static void offloads_and_tags_are_understood(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct fake_packet packet = { .payload = 60000, .ip6 = true, .flags = 0x90 };
    uint32_t bytes = fake_packet_build(&packet, raw, true);
    struct header header = { .flags = 1, .gso_type = 4 | 0x80, .header_bytes = 74, .gso_bytes = 1400, .start = 54,
                             .offset = 16 };
    struct frame *frame;

    (void)state;
    offer_packet(b, 1, &header, raw, bytes, 4096);
    /* The same with a VLAN tag, its offsets 4 further on. */
    memmove(raw + 16, raw + 12, bytes - 12);
    memcpy(raw + 12, "\x81\0\xa0\x0b", 4);
    header.start += 4;
    header.header_bytes += 4;
    offer_packet(b, 1, &header, raw, bytes + 4, 4096);
    memmove(raw + 12, raw + 16, bytes - 12);
    for (unsigned i = 0; i < 2; i++) {
        fake_run(b->guest, b->dev, 1);
        frame = sent(b);
        assert_non_null(frame);
        assert_int_equal(frame->tagged, i);
        assert_int_equal(frame->tci, i ? 0xa00b : 0);
        assert_int_equal(frame->checksum, FRAME_CHECKSUM_MISSING);
        assert_int_equal(frame->checksum_start, 54);
        assert_int_equal(frame->checksum_offset, 16);
        assert_int_equal(frame->gso, FRAME_GSO_TCP6);
        assert_int_equal(frame->gso_bytes, 1400);
        assert_int_equal(frame->header_bytes, 74);
        assert_true(frame->ecn);
        assert_int_equal(frame_read(frame, 0, flat, sizeof(flat)), bytes);
        assert_memory_equal(flat, raw, bytes);
        frame_put(frame);
    }
    bench_free(b);
}

static void pressure_slows_the_guest_and_loses_nothing(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    uint32_t id, written, done = 0, next = 0;
    struct frame *frame;

    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct fake_packet packet = { .payload = 100 + i };
        uint32_t bytes = fake_packet_build(&packet, raw, false);

        memcpy(b->guest->ram + 0x500000 + i * 1024, &(struct header){ 0 }, 12);
        memcpy(b->guest->ram + 0x500000 + i * 1024 + 12, raw, bytes);
        fake_chain(&b->q[1], &(struct gmem_segment){ GPA(0x500000 + i * 1024), bytes + 12 }, 1, 0);
    }
    fake_run(b->guest, b->dev, 1);
    while (fake_used(&b->q[1], &id, &written))
        done++;
    assert_int_equal(done, 8); /* what the inbox takes */
    assert_int_equal(b->net.counters.send_waits, 1);
    b->guest->doorbells = 0;
    while ((frame = sent(b))) {
        assert_int_equal(frame->bytes, 154 + next++);
        frame_put(frame);
        virtio_process(b->dev, 0); /* the card was woken */
    }
    assert_true(b->guest->doorbells > 0);
    assert_int_equal(next, 40);
    /* The pool: the other side keeps frames, so large ones wait for their memory. */
    struct fake_packet packet = { .payload = 60000 };
    uint32_t bytes = fake_packet_build(&packet, raw, true);
    struct header header = { .flags = 1, .gso_type = 1, .gso_bytes = 1400, .start = 34, .offset = 16 };
    for (unsigned i = 0; i < 3; i++)
        offer_packet(b, 1, &header, raw, bytes, 4096);
    fake_run(b->guest, b->dev, 1);
    struct frame *first = sent(b);
    assert_non_null(first);
    virtio_process(b->dev, 0);
    assert_null(sent(b));
    assert_int_equal(virtio_in_flight(b->dev), 0);
    b->guest->doorbells = 0;
    frame_put(first);
    assert_int_equal(b->guest->doorbells, 1);
    virtio_process(b->dev, 0);
    first = sent(b);
    assert_non_null(first);
    frame_put(first);
    virtio_process(b->dev, 0);
    first = sent(b);
    assert_non_null(first);
    frame_put(first);
    virtio_process(b->dev, 0);
    assert_null(sent(b));
    assert_int_equal(b->net.counters.sent_frames, 43);
    bench_free(b);
}

static void what_makes_no_sense_is_lost_and_counted(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct header tcp = { .flags = 1, .gso_type = 1, .gso_bytes = 1000, .start = 34, .offset = 16 };
    uint32_t id, written;

    (void)state;
    memset(raw, 0, sizeof(raw));
    offer_packet(b, 1, &(struct header){ 0 }, raw, 0, 100);
    offer_packet(b, 1, &(struct header){ 0 }, raw, 13, 100);
    offer_packet(b, 1, &tcp, raw, 2000, 4096); /* no TCP packet */
    offer_packet(b, 1, &(struct header){ .flags = 1, .start = 13, .offset = 0 }, raw, 100, 4096);
    memcpy(raw + 12, "\x81\0\0\x05", 4);
    offer_packet(b, 1, &(struct header){ .flags = 1, .start = 17, .offset = 0 }, raw, 100, 4096);
    fake_run(b->guest, b->dev, 1);
    for (unsigned i = 0; i < 5; i++)
        assert_true(fake_used(&b->q[1], &id, &written));
    assert_null(sent(b));
    assert_int_equal(b->net.counters.send_malformed, 5);
    assert_false(broken(b));
    bench_free(b);
}

static void a_lying_header_breaks_the_card(void **state)
{
    static const struct { uint64_t features; struct header header; uint32_t bytes; } lies[] = {
        { ~F_CSUM & ~F_HOST_TSO4 & ~F_HOST_TSO6 & ~F_HOST_ECN, { .flags = 1, .start = 34, .offset = 16 }, 100 },
        { ~0ull, { .flags = 1, .start = 84, .offset = 15 }, 100 },
        { ~0ull, { .flags = 1, .start = 0xffff, .offset = 0xffff }, 100 },
        { ~F_HOST_TSO4, { .flags = 1, .gso_type = 1, .gso_bytes = 1000, .start = 34, .offset = 16 }, 2000 },
        { ~F_HOST_TSO6, { .flags = 1, .gso_type = 4, .gso_bytes = 1000, .start = 54, .offset = 16 }, 2000 },
        { ~F_HOST_ECN, { .flags = 1, .gso_type = 0x81, .gso_bytes = 1000, .start = 34, .offset = 16 }, 2000 },
        { ~0ull, { .flags = 1, .gso_type = 3, .gso_bytes = 1000, .start = 34, .offset = 6 }, 2000 },
        { ~0ull, { .flags = 1, .gso_type = 0x80, .gso_bytes = 1000, .start = 34, .offset = 6 }, 2000 },
        { ~0ull, { .flags = 1, .gso_type = 1, .gso_bytes = 0, .start = 34, .offset = 16 }, 2000 },
        { ~0ull, { .flags = 0, .gso_type = 1, .gso_bytes = 1000 }, 2000 },
        { ~0ull, { .flags = 1, .gso_type = 1, .gso_bytes = 9, .header_bytes = 2001, .start = 34, .offset = 16 }, 2000 },
        { ~0ull, { 0 }, FRAME_BYTES_MAX + 1 },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
        struct bench *b = bench_new(ALL_FEATURES & lies[i].features);

        memset(raw, 0, sizeof(raw));
        offer_packet(b, 1, &lies[i].header, raw, lies[i].bytes, 4096);
        fake_run(b->guest, b->dev, 1);
        assert_true(broken(b));
        assert_null(sent(b));
        assert_int_equal(fake_get16(b->guest, b->q[1].used + 2), 0);
        /* The driver resets it, and it works. */
        bring_up(b, ALL_FEATURES);
        offer_packet(b, 1, &(struct header){ 0 }, raw, 60, 100);
        fake_run(b->guest, b->dev, 1);
        struct frame *frame = sent(b);
        assert_non_null(frame);
        frame_put(frame);
        bench_free(b);
    }
    /* Chains that are no packets. */
    for (unsigned i = 0; i < 3; i++) {
        struct bench *b = bench_new(ALL_FEATURES);
        const struct gmem_segment s[] = { { GPA(0x500000), i == 0 ? 11 : 100 }, { GPA(0x600000), 100 } };

        fake_chain(&b->q[1], i == 2 ? s + 1 : s, i == 2 ? 0 : 1, i == 0 ? 0 : 1);
        fake_run(b->guest, b->dev, 1);
        assert_true(broken(b));
        assert_null(sent(b));
        bench_free(b);
    }
}

/* ---- Into the guest ---- */

static void packets_arrive_whole(void **state)
{
    (void)state;
    for (unsigned merge = 0; merge < 2; merge++) {
        struct bench *b = bench_new(merge ? ALL_FEATURES : ALL_FEATURES & ~F_MRG);
        struct frame *frame = inward(b, 1000);
        struct header header;

        offer_buffers(b, 0, 2, 2048);
        b->guest->gsi_changes = 0;
        assert_true(give(b, frame));
        assert_int_equal(received(b, 0, &header), 1054);
        assert_memory_equal(flat, raw, 1054);
        assert_int_equal(header.buffers, 1);
        assert_int_equal(header.flags, 0);
        assert_int_equal(header.gso_type, 0);
        assert_true(b->guest->gsi_changes > 0);
        /* Known to be good; with a tag; to be completed by the receiver. */
        frame->checksum = FRAME_CHECKSUM_GOOD;
        frame->tagged = true;
        frame->tci = 0x2007;
        b->net.vlans[0] |= BIT(7);
        assert_true(give(b, frame));
        assert_int_equal(received(b, 0, &header), 1058);
        assert_int_equal(header.flags, 2);
        assert_memory_equal(flat, raw, 12);
        assert_memory_equal(flat + 12, "\x81\0\x20\x07", 4);
        assert_memory_equal(flat + 16, raw + 12, 1042);
        frame->checksum = FRAME_CHECKSUM_MISSING;
        frame->checksum_start = 34;
        frame->checksum_offset = 16;
        offer_buffers(b, 0, 1, 2048);
        assert_true(give(b, frame));
        assert_int_equal(received(b, 0, &header), 1058);
        assert_int_equal(header.flags, 1);
        assert_int_equal(header.start, 38);
        assert_int_equal(header.offset, 16);
        frame_put(frame);
        assert_int_equal(b->net.counters.received_frames, 3);
        bench_free(b);
    }
}

static void large_packets_spread_over_buffers(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct fake_packet packet = { .payload = 50000, .flags = 0x80 };
    uint32_t bytes = fake_packet_build(&packet, raw, true);
    struct frame *frame = fake_frame(&b->pool, raw, bytes);
    struct header header;

    (void)state;
    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = 34;
    frame->checksum_offset = 16;
    frame->gso = FRAME_GSO_TCP4;
    frame->gso_bytes = 1448;
    assert_null(offload_check(frame));
    offer_buffers(b, 0, 40, 1536);
    assert_true(give(b, frame));
    assert_int_equal(received(b, 0, &header), bytes);
    assert_memory_equal(flat, raw, bytes);
    assert_int_equal(header.buffers, (bytes + 12 + 1535) / 1536);
    assert_int_equal(header.gso_type, 0x81);
    assert_int_equal(header.gso_bytes, 1448);
    assert_int_equal(header.header_bytes, 54);
    assert_int_equal(header.flags, 1);
    /* Too few buffers for the next: it is lost whole, and the buffers serve a smaller one. */
    assert_true(give(b, frame));
    assert_int_equal(received(b, 0, &header), -1);
    assert_int_equal(b->net.counters.receive_none, 1);
    assert_int_equal(virtio_in_flight(b->dev), 0);
    struct frame *small = inward(b, 3000);
    assert_true(give(b, small));
    assert_int_equal(received(b, 0, &header), 3054);
    assert_memory_equal(flat, raw, 3054);
    frame_put(small);
    frame_put(frame);
    bench_free(b);
}

static void without_buffers_packets_are_lost_and_counted(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES & ~F_MRG);
    struct frame *frame = inward(b, 1000), *small;
    struct header header;

    (void)state;
    assert_true(give(b, frame));
    assert_int_equal(b->net.counters.receive_none, 1);
    assert_int_equal(frame->references, 1);
    offer_buffers(b, 0, 1, 500);
    assert_true(give(b, frame));
    assert_int_equal(b->net.counters.receive_small, 1);
    assert_false(broken(b));
    small = inward(b, 400); /* and its buffer is there for one that fits */
    assert_true(give(b, small));
    assert_int_equal(received(b, 0, &header), 454);
    frame_put(small);
    /* A card that nobody runs takes nothing. */
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_false(give(b, frame));
    bring_up(b, ALL_FEATURES);
    assert_true(give(b, frame));
    virtio_quiesce(b->dev);
    assert_false(give(b, frame));
    virtio_resume(b->dev);
    fake_config_write(b->guest, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_false(give(b, frame));
    assert_int_equal(frame->references, 1);
    frame_put(frame);
    bench_free(b);
}

static void the_outbox_is_bounded_and_a_reset_empties_it(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct frame *frame = inward(b, 100);

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(b->net.port.ops->give(&b->net.port, frame), i < 16);
    assert_int_equal(frame->references, 17);
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_equal(frame->references, 1);
    frame_put(frame);
    bench_free(b);
}

static void a_receive_buffer_without_room_for_a_header_breaks_the_card(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct bench *b = bench_new(ALL_FEATURES);
        struct frame *frame = inward(b, 100);
        const struct gmem_segment s[] = { { GPA(BUFFERS), 100 }, { GPA(BUFFERS + 4096), 2048 } };

        if (i)
            fake_chain(&b->q[0], s, 1, 1); /* one that is to be read from */
        else
            offer_buffers(b, 0, 1, 11);
        assert_true(give(b, frame));
        assert_true(broken(b));
        assert_int_equal(frame->references, 1);
        frame_put(frame);
        bench_free(b);
    }
}

static bool cold;
static bool prepare(void *context, gpa_t gpa, uint64_t count, unsigned *budget)
{
    (void)context, (void)gpa, (void)count;
    if (cold && *budget < 2)
        return false;
    *budget -= cold ? 2 : 0;
    return true;
}

/* A packet waits, and is not lost, while the guest's memory is made ready; all others behind it too, in order. */
static void a_packet_waits_for_memory_to_be_made_ready(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct frame *frame = inward(b, 5000), *next = inward(b, 100);
    struct header header;
    unsigned turns = 0;

    (void)state;
    offer_buffers(b, 0, 8, 2048);
    b->guest->memory.prepare = prepare;
    cold = true;
    assert_true(b->net.port.ops->give(&b->net.port, frame));
    assert_true(b->net.port.ops->give(&b->net.port, next));
    b->net.port.ops->flush(&b->net.port);
    while (turns < 3 && virtio_process(b->dev, 0))
        turns++; /* one buffer a turn is not enough for three */
    assert_int_equal(turns, 3);
    assert_int_equal(received(b, 0, &header), -1);
    cold = false;
    while (virtio_process(b->dev, 0))
        ;
    assert_int_equal(received(b, 0, &header), 5054);
    assert_int_equal(received(b, 0, &header), 154);
    assert_int_equal(b->net.counters.receive_none, 0);
    frame_put(frame);
    frame_put(next);
    bench_free(b);
}

static void a_driver_with_fewer_features_gets_no_more(void **state)
{
    struct bench *b = bench_new(ALL_FEATURES);
    struct frame *frame = inward(b, 1000);
    struct header header;

    (void)state;
    assert_int_equal(b->net.port.offloads, NETPORT_CHECKSUM | NETPORT_TSO4 | NETPORT_TSO6 | NETPORT_TSO_ECN);
    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = 34;
    frame->checksum_offset = 16;
    fake_set_reg(b->guest, b->dev, REG_STATUS, 1, 0);
    assert_int_equal(b->net.port.offloads, 0);
    bring_up(b, F_MRG);
    assert_int_equal(b->net.port.offloads, 0);
    offer_buffers(b, 0, 2, 2048);
    assert_true(give(b, frame)); /* made for the driver before */
    assert_int_equal(b->net.counters.receive_changed, 1);
    assert_int_equal(received(b, 0, &header), -1);
    frame->checksum = FRAME_CHECKSUM_GOOD;
    assert_true(give(b, frame));
    assert_int_equal(received(b, 0, &header), 1054);
    assert_int_equal(header.flags, 0); /* DATA_VALID is not for it either */
    frame_put(frame);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_leave_as_they_are),
        cmocka_unit_test(offloads_and_tags_are_understood),
        cmocka_unit_test(pressure_slows_the_guest_and_loses_nothing),
        cmocka_unit_test(what_makes_no_sense_is_lost_and_counted),
        cmocka_unit_test(a_lying_header_breaks_the_card),
        cmocka_unit_test(packets_arrive_whole),
        cmocka_unit_test(large_packets_spread_over_buffers),
        cmocka_unit_test(without_buffers_packets_are_lost_and_counted),
        cmocka_unit_test(the_outbox_is_bounded_and_a_reset_empties_it),
        cmocka_unit_test(a_receive_buffer_without_room_for_a_header_breaks_the_card),
        cmocka_unit_test(a_packet_waits_for_memory_to_be_made_ready),
        cmocka_unit_test(a_driver_with_fewer_features_gets_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
