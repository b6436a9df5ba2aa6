/* SPDX-License-Identifier: MIT */
/*
 * A long journey of a virtio network card: thousands of numbered packets both ways, with rings and pools that run dry,
 * buffers of all sizes, and saves after which another machine goes on. Every packet that the guest sends arrives once,
 * whole and in order; of those that come in, none arrives twice, torn or out of order, and each that does not arrive
 * was counted.
 */
#include "net_card_fixture.h"

#define STEPS 60000u
#define MAX_HELD 6

struct journey {
    struct bench *b[2];
    unsigned now; /* where the guest is */
    uint64_t seed;
    uint32_t offered, arrived;              /* out of the guest */
    uint32_t given, refused, last, received; /* into it */
    uint32_t taken_back;                    /* frames that waited in an outbox when its card was left behind */
    struct frame *held[MAX_HELD];
    unsigned held_count, moves;
};

static uint32_t below(struct journey *j, uint32_t limit)
{
    j->seed = j->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(j->seed >> 33) % limit;
}

/* Packet number n: its length and bytes follow from the number. */
static uint32_t numbered(uint32_t n, uint8_t *bytes)
{
    uint32_t count = 64 + n * 2654435761u % 1400;

    for (uint32_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(n * 31 + i * 7);
    memcpy(bytes, "\x02\x54\0\xaa\xbb\xcc\x02\0\0\0\0\x07\x88\xb5", 14);
    memcpy(bytes + 14, &n, 4);
    return count;
}

static struct bench *here(struct journey *j)
{
    return j->b[j->now];
}

static void guest_sends(struct journey *j)
{
    struct bench *b = here(j);
    uint32_t id, written, count;

    while (fake_used(&b->q[1], &id, &written))
        ;
    if ((uint16_t)(b->q[1].avail_idx - b->q[1].used_idx) >= 15)
        return;
    count = numbered(j->offered, raw);
    offer_packet(b, 1, &(struct header){ 0 }, raw, count, 200 + below(j, 1500));
    j->offered++;
    if (below(j, 3))
        fake_kick(b->guest, b->dev, 1);
}

/* The switch takes what there is, and keeps some of it for a while, which keeps the card's memory. */
static void switch_takes(struct journey *j, struct bench *b, bool keep)
{
    struct frame *frame;

    while ((frame = sent(b))) {
        uint32_t count = numbered(j->arrived, raw);

        assert_int_equal(frame_read(frame, 0, flat, sizeof(flat)), count);
        assert_memory_equal(flat, raw, count);
        j->arrived++;
        if (keep && j->held_count < MAX_HELD)
            j->held[j->held_count++] = frame;
        else
            frame_put(frame);
        if (keep && !below(j, 4))
            break;
    }
}

static void switch_lets_go(struct journey *j)
{
    while (j->held_count)
        frame_put(j->held[--j->held_count]);
}

static void guest_adds_buffers(struct journey *j)
{
    struct bench *b = here(j);

    if ((uint16_t)(b->q[0].avail_idx - b->q[0].used_idx) < 100)
        offer_buffers(b, 0, 1 + below(j, 4), b->dev->accepted & F_MRG ? 12 + below(j, 1700) : 1200);
}

static void switch_gives(struct journey *j)
{
    struct bench *b = here(j);
    uint32_t count = numbered(j->given, raw);
    struct frame *frame = fake_frame(&b->pool, raw, count);

    if (!b->net.port.ops->give(&b->net.port, frame))
        j->refused++;
    frame_put(frame);
    j->given++;
    if (below(j, 2))
        b->net.port.ops->flush(&b->net.port);
}

static void guest_receives(struct journey *j)
{
    struct bench *b = here(j);
    struct header header;
    int count;

    while ((count = received(b, 0, &header)) >= 0) {
        uint32_t n;

        memcpy(&n, flat + 14, 4);
        assert_true(n < j->given && (!j->received || n > j->last));
        assert_int_equal(count, numbered(n, raw));
        assert_memory_equal(flat, raw, (size_t)count);
        j->last = n;
        j->received++;
    }
}

/* The guest goes on on the other machine. */
static void move(struct journey *j)
{
    struct bench *from = here(j), *to = j->b[!j->now];
    uint64_t lost = from->net.counters.receive_none + from->net.counters.receive_small;
    uint32_t waiting = frame_queue_count(&from->net.port.outbox);

    virtio_quiesce(from->dev);
    assert_false(virtio_process(from->dev, 0));
    switch_takes(j, from, false);
    switch_lets_go(j);
    assert_int_equal(fake_save(from->guest, from->dev), OK);
    memcpy(to->guest->ram, from->guest->ram, sizeof(to->guest->ram));
    memcpy(to->q, from->q, sizeof(to->q));
    for (unsigned i = 0; i < VIRTIO_NET_QUEUES_MAX; i++)
        to->q[i].guest = to->guest;
    assert_int_equal(fake_restore(to->guest, to->dev, from->guest), OK);
    virtio_resume(to->dev);
    virtio_net_close(&from->net);
    assert_int_equal(lost, from->net.counters.receive_none + from->net.counters.receive_small);
    j->taken_back += waiting;
    j->now = !j->now;
    j->moves++;
}

static void journey(uint64_t features, uint64_t seed)
{
    struct journey j = { .seed = seed };
    uint64_t lost = 0;

    for (unsigned i = 0; i < 2; i++)
        j.b[i] = bench_new(i ? 0 : features);
    for (unsigned step = 0; step < STEPS; step++) {
        switch (below(&j, 32)) {
        case 0 ... 8: guest_sends(&j); break;
        case 9 ... 12: switch_takes(&j, here(&j), true); break;
        case 13: switch_lets_go(&j); break;
        case 14 ... 15: guest_adds_buffers(&j); break;
        case 16 ... 23: switch_gives(&j); break;
        case 24: guest_receives(&j); break;
        case 25:
            if (!below(&j, 20))
                move(&j);
            break;
        default: (void)virtio_process(here(&j)->dev, 0); break;
        }
        assert_int_equal(virtio_in_flight(here(&j)->dev), 0);
    }
    /* All that is under way gets there. */
    for (unsigned i = 0; i < 50; i++) {
        fake_run(here(&j)->guest, here(&j)->dev, 1);
        fake_run(here(&j)->guest, here(&j)->dev, 0);
        switch_takes(&j, here(&j), false);
        switch_lets_go(&j);
        guest_receives(&j);
    }
    assert_int_equal(j.arrived, j.offered);
    for (unsigned i = 0; i < 2; i++)
        lost += j.b[i]->net.counters.receive_none + j.b[i]->net.counters.receive_small;
    assert_int_equal(j.received + lost + j.refused + j.taken_back, j.given);
    assert_true(j.moves > 10 && j.offered > 2000 && j.received > 2000 && lost > 100);
    assert_true(j.b[0]->net.counters.send_waits > 10);
    for (unsigned i = 0; i < 2; i++) {
        assert_false(broken(j.b[i]));
        bench_free(j.b[i]);
    }
}

static void with_merged_buffers(void **state)
{
    (void)state;
    journey(ALL_FEATURES, 1);
    journey(~0ull, 2); /* event indices too */
}

static void with_a_buffer_for_each_packet(void **state)
{
    (void)state;
    journey(ALL_FEATURES & ~F_MRG, 3);
    journey(~F_MRG, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_merged_buffers),
        cmocka_unit_test(with_a_buffer_for_each_packet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
