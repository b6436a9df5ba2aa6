/* SPDX-License-Identifier: MIT */
/* Promises of the virtqueue walker: good chains come through whole, each lie breaks the queue, suppression is exact. */
#include "fake_guest.h"

#define RING 0x100000ull
#define DATA 0x200000ull
#define TABLE 0x300000ull

struct bench {
    struct fake_guest *guest;
    struct virtq_shared shared;
    struct virtqueue vq;
    struct fake_queue q;
    struct virtq_chain chain;
};

static struct bench *bench_new(uint16_t size, bool event_idx)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->guest = fake_guest_new();
    b->shared.memory = &b->guest->memory;
    b->shared.event_idx = event_idx;
    b->shared.indirect = true;
    virtq_init(&b->vq, &b->shared, 256);
    b->q = fake_queue_at(b->guest, RING, size);
    b->q.event_idx = event_idx;
    b->vq.size = size;
    b->vq.desc = b->q.desc;
    b->vq.avail = b->q.avail;
    b->vq.used = b->q.used;
    assert_true(virtq_enable(&b->vq));
    return b;
}

static void bench_free(struct bench *b)
{
    free(b->guest);
    free(b);
}

/* The queue must refuse the next chain for a reason that has `word` in it, and stay refused. */
static void expect_broken(struct bench *b, const char *word)
{
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_BROKEN);
    assert_non_null(b->vq.broken);
    if (!strstr(b->vq.broken, word))
        fail_msg("broken because \"%s\", not because of \"%s\"", b->vq.broken, word);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_BROKEN);
    assert_int_equal(b->vq.in_flight, 0);
    assert_false(virtq_flush(&b->vq));
    virtq_push(&b->vq, 0, 0);
    assert_int_equal(fake_get16(b->guest, b->q.used + 2), 0);
    bench_free(b);
}

static void test_chain(void **state)
{
    struct bench *b = bench_new(16, false);
    const struct gmem_segment s[] = { { GPA(DATA), 16 }, { GPA(DATA + 0x1000), 0 }, { GPA(DATA + 0x2000), 100 },
                                      { GPA(DATA + 0x3000), 0 }, { GPA(DATA + 0x4000), 7 } };
    uint8_t bytes[200], pattern[120];
    uint32_t id, written;

    (void)state;
    for (unsigned i = 0; i < 116; i++)
        b->guest->ram[i < 16 ? DATA + i : DATA + 0x2000 + i - 16] = (uint8_t)(i * 7);
    b->q.next_desc = 14; /* wraps in the table */
    fake_chain(&b->q, s, 3, 2);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.head, 14);
    assert_int_equal(b->chain.readable_count, 2); /* empty descriptors are skipped */
    assert_int_equal(b->chain.writable_count, 1);
    assert_int_equal(b->chain.readable_bytes, 116);
    assert_int_equal(b->chain.writable_bytes, 7);
    assert_int_equal(virtq_read(&b->vq, &b->chain, 10, bytes, sizeof(bytes)), 106);
    for (unsigned i = 0; i < 106; i++)
        assert_int_equal(bytes[i], (uint8_t)((i + 10) * 7));
    memset(pattern, 0xab, sizeof(pattern));
    assert_int_equal(virtq_write(&b->vq, &b->chain, 3, pattern, sizeof(pattern)), 4);
    assert_int_equal(b->guest->ram[DATA + 0x4002], 0);
    assert_int_equal(b->guest->ram[DATA + 0x4006], 0xab);
    assert_int_equal(b->guest->ram[DATA + 0x4007], 0);
    assert_int_equal(virtq_write(&b->vq, &b->chain, 7, pattern, 1), 0);
    assert_int_equal(virtq_write(&b->vq, &b->chain, UINT64_MAX, pattern, 1), 0);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
    /* Nothing is shown before the flush. */
    virtq_push(&b->vq, 14, 7);
    assert_false(fake_used(&b->q, &id, &written));
    assert_true(virtq_flush(&b->vq));
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(id, 14);
    assert_int_equal(written, 7);
    assert_false(virtq_flush(&b->vq));
    bench_free(b);
}

static void test_indirect(void **state)
{
    struct bench *b = bench_new(8, false);
    uint32_t id, written;

    (void)state;
    /* One direct descriptor, then a table whose entries are linked out of order. The WRITE flag on it is ignored. */
    fake_desc(b->guest, b->q.desc, 0, DATA, 16, VIRTQ_DESC_NEXT, 5);
    fake_desc(b->guest, b->q.desc, 5, TABLE, 4 * 16, VIRTQ_DESC_INDIRECT | VIRTQ_DESC_WRITE, 0);
    fake_desc(b->guest, TABLE, 0, DATA + 0x1000, 1, VIRTQ_DESC_NEXT, 3);
    fake_desc(b->guest, TABLE, 3, DATA + 0x2000, 2, VIRTQ_DESC_WRITE | VIRTQ_DESC_NEXT, 1);
    fake_desc(b->guest, TABLE, 1, DATA + 0x3000, 3, VIRTQ_DESC_WRITE, 0);
    fake_offer(&b->q, 0);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.readable_count, 2);
    assert_int_equal(b->chain.writable_count, 2);
    assert_int_equal(b->chain.segment[2].gpa.v, DATA + 0x2000);
    assert_int_equal(b->chain.segment[3].gpa.v, DATA + 0x3000);
    virtq_push(&b->vq, b->chain.head, 5);
    assert_true(virtq_flush(&b->vq));
    assert_true(fake_used(&b->q, &id, &written));
    /* A full table is longer than this ring, and that is how Linux uses them. */
    for (uint16_t i = 0; i < VIRTQ_SEGMENTS_MAX; i++)
        fake_desc(b->guest, TABLE, i, DATA + 0x1000ull * i, 0x1000,
                  i + 1 < VIRTQ_SEGMENTS_MAX ? VIRTQ_DESC_NEXT : 0, (uint16_t)(i + 1));
    fake_desc(b->guest, b->q.desc, 2, TABLE, VIRTQ_SEGMENTS_MAX * 16, VIRTQ_DESC_INDIRECT, 0);
    fake_offer(&b->q, 2);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.readable_count, VIRTQ_SEGMENTS_MAX);
    assert_int_equal(b->chain.readable_bytes, VIRTQ_SEGMENTS_MAX * 0x1000);
    bench_free(b);
}

static void test_wrap(void **state)
{
    /* 70000 chains through a ring of 4: all indices wrap, and nothing is lost or doubled. */
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        struct bench *b = bench_new(4, event_idx);
        const struct gmem_segment s = { GPA(DATA), 4 };
        uint32_t id, written;

        (void)state;
        for (uint32_t i = 0; i < 70000; i++) {
            uint16_t head = fake_chain(&b->q, &s, 0, 1);

            assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
            assert_int_equal(b->chain.head, head);
            virtq_push(&b->vq, head, i);
            fake_put16(b->guest, b->q.avail + 4 + 2 * 4, b->q.used_idx); /* used_event */
            assert_true(virtq_flush(&b->vq));
            assert_true(fake_used(&b->q, &id, &written));
            assert_int_equal(id, head);
            assert_int_equal(written, i);
            if (i % 3 == 0)
                assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
        }
        bench_free(b);
    }
}

static void test_loop(void **state)
{
    struct bench *b = bench_new(8, false);

    (void)state;
    fake_desc(b->guest, b->q.desc, 0, DATA, 16, VIRTQ_DESC_NEXT, 1);
    fake_desc(b->guest, b->q.desc, 1, DATA, 16, VIRTQ_DESC_NEXT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "loop");

    b = bench_new(8, false); /* of empty descriptors, which take no room */
    fake_desc(b->guest, b->q.desc, 3, 0, 0, VIRTQ_DESC_NEXT, 3);
    fake_offer(&b->q, 3);
    expect_broken(b, "loop");

    b = bench_new(8, false); /* in an indirect table */
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_desc(b->guest, TABLE, 0, DATA, 16, VIRTQ_DESC_NEXT, 1);
    fake_desc(b->guest, TABLE, 1, DATA, 16, VIRTQ_DESC_NEXT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "loop");
}

static void test_long_chain(void **state)
{
    struct bench *b = bench_new(256, false);

    (void)state;
    for (uint16_t i = 0; i <= VIRTQ_SEGMENTS_MAX; i++)
        fake_desc(b->guest, b->q.desc, i, DATA, 16, i < VIRTQ_SEGMENTS_MAX ? VIRTQ_DESC_NEXT : 0, (uint16_t)(i + 1));
    fake_offer(&b->q, 0);
    expect_broken(b, "too many buffers");

    b = bench_new(8, false); /* exactly the ring's length is fine */
    for (uint16_t i = 0; i < 8; i++)
        fake_desc(b->guest, b->q.desc, i, DATA, 16, i < 7 ? VIRTQ_DESC_NEXT : 0, (uint16_t)(i + 1));
    fake_offer(&b->q, 0);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.readable_count, 8);
    bench_free(b);
}

static void test_bad_indirect(void **state)
{
    static const uint32_t sizes[] = { 0, 1, 15, 17, 31 };
    struct bench *b = bench_new(8, false);

    (void)state;
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_desc(b->guest, TABLE, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "in an indirect table");

    b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT | VIRTQ_DESC_NEXT, 1);
    fake_offer(&b->q, 0);
    expect_broken(b, "next");

    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        b = bench_new(8, false);
        fake_desc(b->guest, b->q.desc, 0, TABLE, sizes[i], VIRTQ_DESC_INDIRECT, 0);
        fake_offer(&b->q, 0);
        expect_broken(b, "wrong size");
    }

    b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, TABLE, 0xfffffff0, VIRTQ_DESC_INDIRECT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "too many entries");

    b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, FAKE_HOLE - 16, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "not in RAM");

    b = bench_new(8, false);
    b->shared.indirect = false;
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "not negotiated");

    b = bench_new(8, false); /* next leads out of the indirect table, though it is inside the ring */
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_desc(b->guest, TABLE, 0, DATA, 16, VIRTQ_DESC_NEXT, 2);
    fake_offer(&b->q, 0);
    expect_broken(b, "outside");
}

static void test_avail_jump(void **state)
{
    struct bench *b = bench_new(8, false);
    const struct gmem_segment s = { GPA(DATA), 4 };

    (void)state;
    fake_put16(b->guest, b->q.avail + 2, 9);
    expect_broken(b, "ahead");

    b = bench_new(8, false); /* backwards is a jump by nearly 65536 */
    fake_put16(b->guest, b->q.avail + 2, 0xffff);
    expect_broken(b, "ahead");

    b = bench_new(8, false); /* a full ring is fine, but with one of it still in flight it is one too many */
    for (unsigned i = 0; i < 8; i++)
        fake_chain(&b->q, &s, 0, 1);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    fake_put16(b->guest, b->q.avail + 2, 9);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_BROKEN);
    assert_non_null(strstr(b->vq.broken, "ahead"));
    bench_free(b);
}

static void test_bad_indices(void **state)
{
    struct bench *b = bench_new(8, false);

    (void)state;
    fake_offer(&b->q, 8);
    expect_broken(b, "outside");
    b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, DATA, 16, VIRTQ_DESC_NEXT, 0xffff);
    fake_offer(&b->q, 0);
    expect_broken(b, "outside");
}

static void test_bad_buffers(void **state)
{
    static const struct { uint64_t gpa; uint32_t bytes; } bad[] = {
        { FAKE_HOLE - 8, 16 },              /* half MMIO */
        { FAKE_HOLE + FAKE_HOLE_BYTES - 1, 2 },
        { FAKE_HOLE - 16, 0xffffffff },     /* across the hole and RAM's end */
        { FAKE_RAM_BYTES - 1, 2 },
        { 0xfee00000, 4 },
        { UINT64_MAX - 3, 16 },             /* address + length overflows */
        { UINT64_MAX, 1 },
        { 0x8000000000000000, 0x1000 },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        struct bench *b = bench_new(8, false);
        const struct gmem_segment s[] = { { GPA(DATA), 16 }, { GPA(bad[i].gpa), bad[i].bytes } };

        fake_chain(&b->q, s, i & 1 ? 2 : 1, i & 1 ? 0 : 1);
        expect_broken(b, "not in RAM");
    }

    struct bench *b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, DATA, 16, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 1);
    fake_desc(b->guest, b->q.desc, 1, DATA, 16, 0, 0);
    fake_offer(&b->q, 0);
    expect_broken(b, "readable");
}

static void test_bad_rings(void **state)
{
    static const struct { uint16_t size; uint64_t desc, avail, used; } bad[] = {
        { 0, RING, RING, RING },       { 3, RING, RING, RING },       { 512, RING, RING, RING },
        { 8, RING + 8, RING, RING },   { 8, RING, RING + 1, RING },   { 8, RING, RING, RING + 2 },
        { 8, FAKE_HOLE - 64, RING, RING }, { 8, RING, FAKE_HOLE - 16, RING }, { 8, RING, RING, FAKE_HOLE - 64 },
        { 8, UINT64_MAX - 15, RING, RING }, { 8, RING, UINT64_MAX - 1, RING }, { 8, RING, RING, UINT64_MAX - 3 },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        struct bench *b = bench_new(8, false);

        virtq_reset(&b->vq);
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY); /* not enabled: does nothing */
        b->vq.size = bad[i].size;
        b->vq.desc = bad[i].desc;
        b->vq.avail = bad[i].avail;
        b->vq.used = bad[i].used;
        assert_false(virtq_enable(&b->vq));
        assert_non_null(b->vq.broken);
        assert_false(b->vq.enabled);
        bench_free(b);
    }
}

/* The driver changes what was read, right after it was read: the copy that was checked is the one that is used. */
static void spoil(struct fake_guest *guest, uint64_t gpa, uint64_t count)
{
    memset(guest->ram + gpa, 0xff, count);
}

static void test_changed_under_walk(void **state)
{
    struct bench *b = bench_new(8, false);
    const struct gmem_segment s[] = { { GPA(DATA), 16 }, { GPA(DATA + 0x1000), 32 } };

    (void)state;
    fake_chain(&b->q, s, 1, 1);
    b->guest->after_read = spoil;
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.readable_bytes, 16);
    assert_int_equal(b->chain.writable_bytes, 32);
    assert_int_equal(b->chain.segment[1].gpa.v, DATA + 0x1000);
    b->guest->after_read = NULL;
    bench_free(b);

    b = bench_new(8, false);
    fake_desc(b->guest, b->q.desc, 0, TABLE, 32, VIRTQ_DESC_INDIRECT, 0);
    fake_desc(b->guest, TABLE, 0, DATA, 16, VIRTQ_DESC_NEXT, 1);
    fake_desc(b->guest, TABLE, 1, DATA + 0x1000, 8, VIRTQ_DESC_WRITE, 0);
    fake_offer(&b->q, 0);
    b->guest->after_read = spoil;
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(b->chain.writable_bytes, 8);
    /* And no byte of ring or table is fetched twice. */
    b->guest->after_read = NULL;
    for (unsigned i = 0; i < b->guest->trace_count; i++) {
        for (unsigned j = i + 1; j < b->guest->trace_count; j++)
            assert_false(!b->guest->trace[i].write && !b->guest->trace[j].write &&
                         range_overlaps(b->guest->trace[i].gpa, b->guest->trace[i].count, b->guest->trace[j].gpa,
                                        b->guest->trace[j].count));
    }
    bench_free(b);
}

/* Position of the first access of that kind to that byte, from `from` on; fails if there is none. */
static unsigned trace_find(struct bench *b, unsigned from, uint64_t gpa, bool write)
{
    for (unsigned i = from; i < b->guest->trace_count; i++) {
        if (b->guest->trace[i].write == write && b->guest->trace[i].gpa == gpa)
            return i;
    }
    fail_msg("no access to 0x%llx", (unsigned long long)gpa);
    return 0;
}

static void test_order(void **state)
{
    (void)state;
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        struct bench *b = bench_new(8, event_idx);
        const struct gmem_segment s = { GPA(DATA), 4 };
        unsigned at;

        fake_chain(&b->q, &s, 0, 1);
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
        at = trace_find(b, 0, b->q.avail + 2, false);     /* avail.idx, then the entry, then the descriptor */
        at = trace_find(b, at, b->q.avail + 4, false);
        trace_find(b, at, b->q.desc, false);
        b->guest->trace_count = 0;
        virtq_push(&b->vq, 0, 4);
        virtq_flush(&b->vq);
        at = trace_find(b, 0, b->q.used + 4, true);       /* entry, then used.idx, then the driver's wish */
        at = trace_find(b, at, b->q.used + 2, true);
        trace_find(b, at, event_idx ? b->q.avail + 4 + 16 : b->q.avail, false);
        b->guest->trace_count = 0;
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
        at = trace_find(b, 0, event_idx ? b->q.used + 4 + 64 : b->q.used, true); /* our wish, then avail.idx again */
        trace_find(b, at, b->q.avail + 2, false);
        bench_free(b);
    }
}

static struct fake_queue *late_queue;

/* Adds a chain just after the device has seen an empty ring, when a driver that was hushed would not notify. */
static void add_late(struct fake_guest *guest, uint64_t gpa, uint64_t count)
{
    const struct gmem_segment s = { GPA(DATA), 4 };

    (void)count;
    if (gpa != late_queue->avail + 2)
        return;
    guest->after_read = NULL;
    fake_chain(late_queue, &s, 0, 1);
}

static void test_no_lost_notification(void **state)
{
    (void)state;
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        struct bench *b = bench_new(8, event_idx);

        virtq_hush(&b->vq);
        late_queue = &b->q;
        b->guest->after_read = add_late;
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
        bench_free(b);
    }
}

static void test_notify_suppression(void **state)
{
    struct bench *b = bench_new(8, false);
    const struct gmem_segment s = { GPA(DATA), 4 };

    (void)state;
    virtq_hush(&b->vq);
    assert_int_equal(fake_get16(b->guest, b->q.used), VIRTQ_USED_NO_NOTIFY);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
    assert_int_equal(fake_get16(b->guest, b->q.used), 0);
    bench_free(b);

    b = bench_new(8, true);
    for (unsigned i = 0; i < 3; i++)
        fake_chain(&b->q, &s, 0, 1);
    for (unsigned i = 0; i < 3; i++) {
        virtq_hush(&b->vq);
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
        assert_int_equal(fake_get16(b->guest, b->q.used + 4 + 64), 0); /* avail_event stays where it was */
    }
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
    assert_int_equal(fake_get16(b->guest, b->q.used + 4 + 64), 3); /* notify when entry 3 is added */
    assert_int_equal(fake_get16(b->guest, b->q.used), 0);          /* flags are not used with event indices */
    bench_free(b);
}

static void test_interrupt_suppression(void **state)
{
    struct bench *b = bench_new(8, false);
    const struct gmem_segment s = { GPA(DATA), 4 };

    (void)state;
    fake_chain(&b->q, &s, 0, 1);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    fake_put16(b->guest, b->q.avail, VIRTQ_AVAIL_NO_INTERRUPT);
    virtq_push(&b->vq, 0, 0);
    assert_false(virtq_flush(&b->vq));
    assert_int_equal(fake_get16(b->guest, b->q.used + 2), 1);
    bench_free(b);
}

/* Every start, batch and event around the wrap: an interrupt exactly if the event is one of those just shown. */
static void test_event_index(void **state)
{
    static const uint16_t starts[] = { 0, 1, 7, 0x7fff, 0x8000, 0xfffc, 0xffff };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(starts); i++) {
        for (unsigned batch = 1; batch <= 8; batch++) {
            for (int event = -10; event <= 18; event++) {
                struct bench *b = bench_new(8, true);
                bool wanted = event >= 0 && event < (int)batch;

                b->vq.next_avail = b->vq.seen_avail = b->vq.next_used = b->vq.shown_used = starts[i];
                fake_put16(b->guest, b->q.avail + 4 + 16, (uint16_t)(starts[i] + event));
                for (unsigned j = 0; j < batch; j++)
                    virtq_push(&b->vq, 0, 0);
                if (virtq_flush(&b->vq) != wanted)
                    fail_msg("start %u, batch %u, event %d", starts[i], batch, event);
                bench_free(b);
            }
        }
    }
}

static void test_rollback(void **state)
{
    struct bench *b = bench_new(8, false);
    const struct gmem_segment s = { GPA(DATA), 4 };
    struct virtq_mark mark;
    uint32_t id, written;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        fake_chain(&b->q, &s, 0, 1);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    virtq_push(&b->vq, b->chain.head, 1);
    mark = virtq_mark(&b->vq);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    virtq_push(&b->vq, b->chain.head, 2);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
    virtq_rollback(&b->vq, &mark);
    assert_int_equal(b->vq.in_flight, 0);
    assert_true(virtq_flush(&b->vq));
    assert_true(fake_used(&b->q, &id, &written));
    assert_int_equal(written, 1);
    assert_false(fake_used(&b->q, &id, &written)); /* what was taken back was never shown */
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_CHAIN);
        assert_int_equal(b->chain.head, i);
        virtq_push(&b->vq, b->chain.head, 10 + i);
    }
    assert_int_equal(virtq_pop(&b->vq, &b->chain), VIRTQ_EMPTY);
    assert_true(virtq_flush(&b->vq));
    for (unsigned i = 1; i < 3; i++) {
        assert_true(fake_used(&b->q, &id, &written));
        assert_int_equal(id, i);
        assert_int_equal(written, 10 + i);
    }
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_indirect),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_long_chain),
        cmocka_unit_test(test_bad_indirect),
        cmocka_unit_test(test_avail_jump),
        cmocka_unit_test(test_bad_indices),
        cmocka_unit_test(test_bad_buffers),
        cmocka_unit_test(test_bad_rings),
        cmocka_unit_test(test_changed_under_walk),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_no_lost_notification),
        cmocka_unit_test(test_notify_suppression),
        cmocka_unit_test(test_interrupt_suppression),
        cmocka_unit_test(test_event_index),
        cmocka_unit_test(test_rollback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
