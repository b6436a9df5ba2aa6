/* SPDX-License-Identifier: MIT */
/*
 * dirty_log_drain(): what it makes of each kind of entry in a CPU's page-modification log. The entries are written by
 * hand, as no simulated CPU would have them all. Whatever an entry names, no page may be lost: one of a frame that is
 * not in mode PML goes to the bitmap, from where the same collect takes it.
 */
#include "dirty_fixture.h"

#define ENTRIES 512
#define OTHER 512 /* test pages of frame 1, which is only read and so stays in one piece */

static uint64_t entries[ENTRIES];
static bool drain_now;      /* in the next collect */
static int first, last;     /* where that drain begins, what it has returned */
static uint64_t pool[16];   /* guest physical addresses that entries name */
static unsigned pml_count, other_count, pool_count; /* of the pool: in mode PML; then in RAM, else; then nowhere */

/* ---- What is expected ---- */

static bool *named_pool;    /* which of the pool are named by entries that are to be drained */
static uint64_t *want_out, *want_bitmap;

static void set_bit(uint64_t *bitmap, uint64_t gpa)
{
    bitmap[gpa / PAGE_BYTES / 64] |= BIT(gpa / PAGE_BYTES % 64);
}

static uint64_t *leaf_of(uint64_t gpa)
{
    uint64_t bytes, *leaf = pt_leaf(&core.stage2, gpa, &bytes);

    assert_non_null(leaf);
    assert_int_equal(bytes, PAGE_BYTES);
    return leaf;
}

/* Sets the dirty bits of all leaves in mode PML; finds out what the entries name. Returns the index that must come. */
static int expect(int next)
{
    memset(named_pool, 0, ARRAY_COUNT(pool));
    for (unsigned i = 0; i < pml_count; i++)
        __atomic_fetch_or(leaf_of(pool[i]), core.stage2.format->dirty, __ATOMIC_SEQ_CST);
    for (; next >= 0 && entries[next] != DIRTY_LOG_EMPTY; next--)
        for (unsigned i = 0; i < pool_count; i++)
            named_pool[i] |= entries[next] == pool[i];
    return next;
}

/* Entries that were drained are empty now, the others as they were. */
static void check_entries(const uint64_t *before, int from, int to)
{
    for (int i = 0; i < ENTRIES; i++)
        assert_int_equal(entries[i], i <= from && i > to ? DIRTY_LOG_EMPTY : before[i]);
}

/* Of pages in mode PML that an entry has named the dirty bit is gone (`armed`) or not yet; of the others it is there. */
static void check_dirty_bits(bool armed)
{
    for (unsigned i = 0; i < pml_count; i++)
        assert_int_equal(!(*leaf_of(pool[i]) & core.stage2.format->dirty), armed && named_pool[i]);
}

/* The log's bitmap has the named pages of the pool from `begin` on, and no other bit. */
static void check_bitmap(unsigned begin)
{
    memset(want_bitmap, 0, out_words * 8);
    for (unsigned i = begin; i < other_count; i++)
        if (named_pool[i])
            set_bit(want_bitmap, pool[i]);
    assert_memory_equal(stage2.log.bitmap, want_bitmap, out_words * 8);
}

/* ---- Both ways ---- */

static void outside(struct vm_core *of)
{
    (void)of;
    for (unsigned i = 0; i < VCPUS; i++) {
        vcpus[i].flush_wanted = vcpus[i].drain_wanted = true;
        vcpu_outside(&vcpus[i]);
    }
}

static int drain(int next)
{
    spin_lock(&stage2.lock);
    next = dirty_log_drain(&stage2, entries, next);
    spin_unlock(&stage2.lock);
    return next;
}

/* In a collect: pages in mode PML are in `out` and armed again at once, the others in the bitmap. */
static void drain_all(struct vm_core *of)
{
    outside(of);
    if (!drain_now)
        return;
    last = drain(first);
    for (unsigned i = 0; i < pml_count; i++)
        if (named_pool[i])
            set_bit(want_out, pool[i]);
    assert_memory_equal(out, want_out, out_words * 8);
    check_dirty_bits(true);
    check_bitmap(pml_count);
    assert_int_equal(stage2.log.list_count, 0);
}

static const struct dirty_ops ops = { outside, drain_all, NULL };

/* A collect, which must end with all that was named and with one page (`preset`) that was in `out` before. */
static void collect(uint64_t preset)
{
    uint64_t count, want = 0;

    memset(out, 0, out_words * 8);
    set_bit(out, preset);
    memcpy(want_out, out, out_words * 8);
    assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
    for (unsigned i = 0; i < other_count; i++) {
        if (named_pool[i])
            set_bit(want_out, pool[i]);
        want += named_pool[i] && pool[i] != preset;
    }
    assert_memory_equal(out, want_out, out_words * 8);
    assert_int_equal(count, want);
    check_dirty_bits(true);
}

/* Drains these entries from `next` on, each way. */
static void try(int next)
{
    uint64_t before[ENTRIES];
    int want = expect(next);

    memcpy(before, entries, sizeof before);
    drain_now = true;
    first = next;
    collect(pool[0]);
    drain_now = false;
    assert_int_equal(last, want);
    check_entries(before, next, want);

    /* While no collect drains: pages in mode PML are in the list, as long as it has room, and nothing is armed yet. */
    for (unsigned room = 0; room < 2; room++) {
        uint64_t list_max = stage2.log.list_max, listed = 0;

        memcpy(entries, before, sizeof before);
        (void)expect(next);
        stage2.log.list_max = room ? ENTRIES : 1;
        for (int i = next; i > want; i--)
            for (unsigned p = 0; p < pml_count; p++)
                listed += entries[i] == pool[p];
        assert_int_equal(drain(next), want);
        assert_int_equal(stage2.log.list_count, MIN(listed, stage2.log.list_max));
        stage2.log.list_max = list_max;
        check_entries(before, next, want);
        check_dirty_bits(false);
        if (room)
            check_bitmap(pml_count);
        collect(pool[other_count - 1]);
    }
}

/* ---- Tests ---- */

static void begin(void)
{
    static const struct variant pml = { &pt_format_ept, DIRTY_PML, true, false };
    const uint64_t written[] = { 0, 1, 63, 511, LOW_PAGES, PAGES - 1 };
    const uint64_t others[] = { OTHER, OTHER + 99, LOW_PAGES + 600 }; /* the last in a frame that nobody has touched */
    uint64_t value, count;

    fixture_start(&pml, RAM, 3 * GIB + 16 * MIB);
    named_pool = calloc(ARRAY_COUNT(pool), sizeof *named_pool);
    want_out = calloc(out_words, 8);
    want_bitmap = calloc(out_words, 8);
    drain_now = false;
    assert_true(vcpu_access(&vcpus[1], gpa_of(OTHER), false, &value));
    assert_int_equal(dirty_log_start(&stage2, DIRTY_PML, &ops), OK);
    pool_count = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(written); i++) {
        pool[pool_count++] = gpa_of(written[i]);
        assert_true(vcpu_access(&vcpus[0], gpa_of(written[i]), true, &value));
    }
    pml_count = pool_count;
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++)
        pool[pool_count++] = gpa_of(others[i]);
    other_count = pool_count;
    assert_int_equal(gpa_of(PAGES - 1) / PAGE_BYTES, stage2.log.bits - 1); /* so the next is the first out of range */
    pool[pool_count++] = stage2.log.bits * PAGE_BYTES;
    pool[pool_count++] = BIT(51);
    pool[pool_count++] = UINT64_MAX & ~(PAGE_BYTES - 1); /* not the empty entry, though of the same page */
    assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
    assert_int_equal(count, pml_count);
    memset(entries, 0xff, sizeof entries);
}

static void end(void)
{
    dirty_log_stop(&stage2);
    free(named_pool);
    free(want_out);
    free(want_bitmap);
    fixture_stop();
}

/* One of each kind, alone: at the first entry, at the last, and none. */
static void each_kind(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < pool_count; i++) {
        memset(entries, 0xff, sizeof entries);
        entries[511] = pool[i];
        try(511); /* 510 comes */
        memset(entries, 0xff, sizeof entries);
        entries[0] = pool[i];
        entries[511] = pool[0]; /* above where it begins */
        try(0); /* -1 comes */
        memset(entries, 0xff, sizeof entries);
        entries[0] = entries[511] = pool[i];
        try(-1); /* the log is full and drained: nothing is looked at */
        memset(entries, 0xff, sizeof entries);
        entries[509] = pool[i];
        try(511); /* nor what lies below an empty entry */
    }
    end();
}

/* Kinds in any order and number, the whole log among them; a page may be named twice. */
static void mixtures(void **state)
{
    (void)state;
    begin();
    for (unsigned round = 0; round < 300; round++) {
        unsigned kinds = round % 3 == 0 ? pml_count : pool_count;
        int next = round % 4 == 0 ? 511 : (int)fake_below(ENTRIES), count = (int)fake_below((uint64_t)next + 2);

        memset(entries, 0xff, sizeof entries);
        if (round % 8 == 0)
            count = next + 1;
        for (int i = next; i > next - count; i--)
            entries[i] = pool[fake_below(kinds)];
        if (count <= next - 1 && round % 2)
            entries[fake_below((uint64_t)(next - count))] = pool[0]; /* below an empty one */
        try(next);
    }
    end();
}

/* While the log is off an entry is taken away, and nothing is noted. */
static void stopped(void **state)
{
    uint64_t count;

    (void)state;
    begin();
    dirty_log_stop(&stage2);
    for (unsigned i = 0; i < pool_count; i++)
        entries[511 - i] = pool[i];
    assert_int_equal(drain(511), 511 - (int)pool_count);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_int_equal(entries[i], DIRTY_LOG_EMPTY);
    assert_int_equal(dirty_log_start(&stage2, DIRTY_PML, &ops), OK);
    assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
    assert_int_equal(count, 0);
    end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind),
        cmocka_unit_test(mixtures),
        cmocka_unit_test(stopped),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
