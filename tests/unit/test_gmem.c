/* SPDX-License-Identifier: MIT */
/*
 * Guest memory. Promises guarded: no byte of what was in host memory before is ever seen, however the first touches of
 * many threads meet; no access outside of RAM, in the hole, or across its borders; copies across frames; compare and
 * exchange of every size; the dirty log is marked exactly; every frame is given back.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_memory.h"
#include "vdev/vdev.h"
#include "vmm/dirty.h"
#include "vmm/gmem.h"

#define RAM (6 * GIB)

static struct vm_core core;
static struct gmem gmem;
static struct page_totals totals_before;

static void start(uint64_t bytes)
{
    fake_memory_start(RAM);
    memset(&core, 0, sizeof core);
    page_totals_get(&totals_before);
    assert_true(page_owner_create("demo", &core.owner));
    assert_int_equal(gmem_create(&gmem, &core, bytes), OK);
}

static void stop(void)
{
    struct page_totals after;

    gmem_destroy(&gmem);
    page_owner_destroy(core.owner);
    page_totals_get(&after);
    assert_memory_equal(&totals_before, &after, sizeof after);
    fake_memory_stop();
}

/* Dirties host memory behind the guest's frame, as its former owner left it. */
static void soil(uint64_t gpa, uint64_t bytes)
{
    uint64_t index;

    for (uint64_t at = ALIGN_DOWN(gpa, LARGE_PAGE_BYTES); at < gpa + bytes; at += LARGE_PAGE_BYTES) {
        assert_true(gmem_index(&gmem, at, &index));
        memset(gmem_window(HPA((gmem.frames[index] & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES)), 0x5a, LARGE_PAGE_BYTES);
    }
}

static void layout(void **state)
{
    static const struct { uint64_t bytes, end, huge_pages, large_pages; } cases[] = {
        { 1, 2 * MIB, 0, 1 },
        { 256 * MIB, 256 * MIB, 0, 128 },
        { 256 * MIB + 1, 258 * MIB, 0, 129 },
        { GIB, GIB, 1, 0 },
        { 3 * GIB, 3 * GIB, 3, 0 },
        { 3 * GIB + 2 * MIB, 4 * GIB + 2 * MIB, 3, 1 },
        { 4 * GIB + 6 * MIB, 5 * GIB + 6 * MIB, 4, 3 },
    };
    struct page_usage usage;
    uint64_t index;
    hpa_t hpa;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        start(cases[i].bytes);
        assert_int_equal(gmem_end(&gmem), cases[i].end);
        assert_true(page_owner_usage(core.owner, &usage));
        assert_int_equal(usage.huge_pages, cases[i].huge_pages);
        assert_int_equal(usage.large_pages, cases[i].large_pages);
        assert_int_equal(usage.small_pages, gmem.table_pages);
        assert_true(gmem_index(&gmem, cases[i].end - 1, &index));
        assert_int_equal(index, gmem.bytes / LARGE_PAGE_BYTES - 1);
        assert_false(gmem_hpa(&gmem, GPA(cases[i].end), &hpa));
        assert_false(gmem_hpa(&gmem, GPA(0xc0000000), &hpa));
        assert_false(gmem_hpa(&gmem, GPA(4 * GIB - 1), &hpa));
        assert_int_equal(gmem_hpa(&gmem, GPA(4 * GIB), &hpa), cases[i].end > 4 * GIB);
        assert_false(gmem_hpa(&gmem, GPA(BIT(52) - 1), &hpa));
        assert_false(gmem_hpa(&gmem, GPA(UINT64_MAX), &hpa));
        stop();
    }
}

static void too_much(void **state)
{
    struct page_totals before, after;

    (void)state;
    fake_memory_start(RAM);
    memset(&core, 0, sizeof core);
    page_totals_get(&before);
    assert_int_equal(gmem_create(&gmem, &core, RAM), ERR_NO_MEMORY);
    assert_int_equal(gmem_create(&gmem, &core, UINT64_MAX), ERR_INVALID);
    assert_int_equal(gmem_create(&gmem, &core, 0), ERR_INVALID);
    gmem_destroy(&gmem);
    page_totals_get(&after);
    assert_memory_equal(&before, &after, sizeof after);
    fake_memory_stop();
}

static void borders(void **state)
{
    uint8_t bytes[64] = { 1 };
    struct gmem_ops ops;

    (void)state;
    start(3 * GIB + 4 * MIB); /* low 3 GiB, high 4 MiB */
    gmem_ops_init(&ops, &gmem);
    static const struct { uint64_t gpa, count; bool valid; } cases[] = {
        { 0, 1, true }, { 0, 3 * GIB, true }, { 0, 3 * GIB + 1, false }, { 3 * GIB - 8, 8, true },
        { 3 * GIB - 8, 9, false }, { 3 * GIB, 1, false }, { 4 * GIB - 1, 1, false }, { 4 * GIB - 1, 2, false },
        { 4 * GIB, 4 * MIB, true }, { 4 * GIB, 4 * MIB + 1, false }, { 4 * GIB + 4 * MIB, 1, false },
        { 4 * GIB + 4 * MIB - 1, 1, true }, { 3 * GIB - 1, GIB + 2, false }, { UINT64_MAX, 1, false },
        { UINT64_MAX, 2, false }, { UINT64_MAX - 7, 8, false }, { 0, UINT64_MAX, false }, { 8, UINT64_MAX, false },
        { 4 * GIB, UINT64_MAX, false }, { 4 * GIB + 8, UINT64_MAX - 4 * GIB, false }, { BIT(52), 8, false },
        { UINT64_MAX, 0, true },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        gpa_t gpa = GPA(cases[i].gpa);
        assert_int_equal(gmem_valid(&gmem, gpa, cases[i].count), cases[i].valid);
        assert_int_equal(ops.valid(ops.context, gpa, cases[i].count), cases[i].valid);
        if (cases[i].count <= sizeof bytes || !cases[i].valid) {
            assert_int_equal(gmem_read(&gmem, gpa, bytes, cases[i].count), cases[i].valid);
            assert_int_equal(ops.read(ops.context, gpa, bytes, cases[i].count), cases[i].valid);
            assert_int_equal(gmem_write(&gmem, gpa, bytes, cases[i].count), cases[i].valid);
            assert_int_equal(ops.write(ops.context, gpa, bytes, cases[i].count), cases[i].valid);
            assert_int_equal(gmem_zero(&gmem, gpa, cases[i].count), cases[i].valid);
        }
    }
    assert_null(gmem_peek(&gmem, GPA(3 * GIB), 1));
    assert_null(gmem_peek(&gmem, GPA(4090), 7));
    assert_non_null(gmem_peek(&gmem, GPA(4090), 6));
    assert_null(gmem_peek(&gmem, GPA(UINT64_MAX), 1));
    stop();
}

/* Random reads and writes against a flat copy, over frame borders. */
static void copies(void **state)
{
    const uint64_t base = GIB, size = 6 * MIB;
    uint8_t *model = calloc(1, size), *buffer = malloc(size);

    (void)state;
    start(GIB + size);
    soil(base, size);
    for (unsigned round = 0; round < 400; round++) {
        uint64_t count = 1 + fake_below(fake_below(4) ? 300 : 3 * MIB), at = fake_below(size - count + 1);
        switch (fake_below(3)) {
        case 0:
            for (uint64_t i = 0; i < count; i++)
                buffer[i] = (uint8_t)(round + i * 7);
            memcpy(model + at, buffer, count);
            assert_true(gmem_write(&gmem, GPA(base + at), buffer, count));
            break;
        case 1:
            memset(model + at, 0, count);
            assert_true(gmem_zero(&gmem, GPA(base + at), count));
            break;
        default:
            assert_true(gmem_read(&gmem, GPA(base + at), buffer, count));
            assert_memory_equal(buffer, model + at, count);
            if (at % PAGE_BYTES + MIN(count, 16) <= PAGE_BYTES)
                assert_memory_equal(gmem_peek(&gmem, GPA(base + at), MIN(count, 16)), model + at, MIN(count, 16));
        }
    }
    assert_true(gmem_read(&gmem, GPA(base), buffer, size));
    assert_memory_equal(buffer, model, size);
    stop();
    free(model);
    free(buffer);
}

static void compare_exchange(void **state)
{
    static const size_t sizes[] = { 1, 2, 4, 8, 16 };
    uint8_t memory[32], expected[16], desired[16];
    bool equal;

    (void)state;
    start(4 * MIB);
    for (unsigned round = 0; round < 2000; round++) {
        size_t size = sizes[fake_below(5)];
        uint64_t offset = size == 16 ? fake_below(2) * 16 : fake_below(32 - size + 1), gpa = 2 * MIB - 32 + offset;
        bool match = fake_below(2);

        assert_true(gmem_read(&gmem, GPA(2 * MIB - 32), memory, 32));
        memcpy(expected, memory + offset, size);
        for (unsigned i = 0; i < 16; i++)
            desired[i] = (uint8_t)fake_random();
        if (!match)
            expected[fake_below(size)] ^= (uint8_t)(1 + fake_below(255));
        assert_true(gmem_compare_exchange(&gmem, GPA(gpa), expected, desired, size, &equal));
        assert_int_equal(equal, match);
        if (match)
            memcpy(memory + offset, desired, size);
        uint8_t now[32];
        assert_true(gmem_read(&gmem, GPA(2 * MIB - 32), now, 32));
        assert_memory_equal(now, memory, 32);
    }
    assert_false(gmem_compare_exchange(&gmem, GPA(2 * MIB - 4), expected, desired, 8, &equal)); /* two pages */
    assert_false(gmem_compare_exchange(&gmem, GPA(8), expected, desired, 16, &equal));
    assert_false(gmem_compare_exchange(&gmem, GPA(8), expected, desired, 3, &equal));
    assert_false(gmem_compare_exchange(&gmem, GPA(8), expected, desired, 0, &equal));
    assert_false(gmem_compare_exchange(&gmem, GPA(4 * MIB), expected, desired, 4, &equal));
    assert_false(gmem_compare_exchange(&gmem, GPA(UINT64_MAX - 3), expected, desired, 4, &equal));
    stop();
}

#define THREADS 4
#define RACE_FRAMES 24

static pthread_barrier_t barrier;

/* Every frame is met by all threads at once: each must see zeros and its own byte, never what was there before. */
static void *toucher(void *argument)
{
    unsigned id = (unsigned)(uintptr_t)argument;
    static uint8_t zeros[4096];
    uint8_t bytes[4096];
    uintptr_t bad = 0;

    for (uint64_t frame = 0; frame < RACE_FRAMES; frame++) {
        uint64_t mine = frame * LARGE_PAGE_BYTES + (id + 1) * 64 * KIB;
        pthread_barrier_wait(&barrier);
        if (id % 2) {
            uint8_t one = (uint8_t)(id + 1);
            bad += !gmem_write(&gmem, GPA(mine), &one, 1);
            bad += !gmem_read(&gmem, GPA(mine), bytes, 1) || bytes[0] != one;
        } else {
            bad += !gmem_read(&gmem, GPA(mine), bytes, sizeof bytes) || memcmp(bytes, zeros, sizeof bytes) != 0;
            const uint8_t *peek = gmem_peek(&gmem, GPA((frame + 1) * LARGE_PAGE_BYTES - 1), 1);
            bad += *peek != 0;
        }
    }
    return (void *)bad;
}

static void first_touch_race(void **state)
{
    pthread_t threads[THREADS];
    void *bad;

    (void)state;
    start(RACE_FRAMES * LARGE_PAGE_BYTES);
    soil(0, RACE_FRAMES * LARGE_PAGE_BYTES);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, toucher, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &bad);
        assert_int_equal((uintptr_t)bad, 0);
    }
    for (uint64_t frame = 0; frame < RACE_FRAMES; frame++) {
        uint8_t byte;
        assert_true(gmem_read(&gmem, GPA(frame * LARGE_PAGE_BYTES + 2 * 64 * KIB), &byte, 1));
        assert_int_equal(byte, 2); /* nobody zeroed the frame again */
    }
    pthread_barrier_destroy(&barrier);
    stop();
}

/* Zeroing before the first use comes in portions, and what it left is not done again. */
static void prepared_in_portions(void **state)
{
    unsigned budget = 2;
    uint8_t byte = 7;

    (void)state;
    start(16 * MIB);
    soil(0, 16 * MIB);
    gpa_t from = GPA(LARGE_PAGE_BYTES - 1);
    uint64_t count = 3 * LARGE_PAGE_BYTES + 2; /* five frames */
    assert_false(gmem_prepare(&gmem, from, count, &budget));
    assert_int_equal(budget, 0);
    assert_true(gmem_write(&gmem, GPA(0), &byte, 1));
    budget = 2;
    assert_false(gmem_prepare(&gmem, from, count, &budget));
    budget = 2;
    assert_true(gmem_prepare(&gmem, from, count, &budget));
    assert_int_equal(budget, 1);
    budget = 0;
    assert_true(gmem_prepare(&gmem, from, count, &budget));
    assert_true(gmem_prepare(&gmem, GPA(15 * MIB), 0, &budget));
    assert_false(gmem_prepare(&gmem, GPA(15 * MIB), 1, &budget));
    assert_true(gmem_read(&gmem, GPA(0), &byte, 1));
    assert_int_equal(byte, 7);
    assert_true(gmem_read(&gmem, GPA(4 * LARGE_PAGE_BYTES), &byte, 1));
    assert_int_equal(byte, 0);
    stop();
}

/* The marks of hypervisor writes: all pages of the range, no others; reads, and exchanges that fail, mark nothing. */
static void dirty_marks(void **state)
{
    uint64_t bitmap[5 * 64 + 5] = { 0 };
    uint8_t bytes[3 * PAGE_BYTES] = { 0 };
    uint64_t expected = 0, desired = 1;
    bool equal;

    (void)state;
    start(64 * MIB);
    core.dirty_bits = 5 * 4096;
    core.dirty_bitmap = bitmap;
    assert_true(gmem_write(&gmem, GPA(5 * PAGE_BYTES - 1), bytes, 1));
    assert_true(gmem_write(&gmem, GPA(63 * PAGE_BYTES + 8), bytes, PAGE_BYTES));
    assert_true(gmem_zero(&gmem, GPA(511 * PAGE_BYTES), 2 * PAGE_BYTES + 1));
    assert_true(gmem_read(&gmem, GPA(9 * PAGE_BYTES), bytes, 10));
    assert_true(gmem_write(&gmem, GPA(20 * PAGE_BYTES), bytes, 0));
    assert_true(gmem_compare_exchange(&gmem, GPA(12000 * PAGE_BYTES), &desired, &expected, 8, &equal) && !equal);
    assert_true(gmem_compare_exchange(&gmem, GPA(12001 * PAGE_BYTES), &expected, &desired, 8, &equal) && equal);
    assert_false(gmem_write(&gmem, GPA(64 * MIB - 1), bytes, 2));
    static const uint64_t dirty[] = { 4, 63, 64, 511, 512, 513, 12001 };
    for (unsigned i = 0; i < ARRAY_COUNT(dirty); i++) {
        uint64_t word = dirty[i] / 64;
        assert_true(bitmap[word] & BIT(dirty[i] % 64));
        bitmap[word] &= ~BIT(dirty[i] % 64);
        assert_true(bitmap[5 * 64 + word / 64] & BIT(word % 64));
    }
    for (unsigned word = 0; word < 5 * 64; word++)
        assert_int_equal(bitmap[word], 0);
    unsigned marked = 0;
    for (unsigned word = 0; word < 5 * 64; word++)
        marked += bitmap[5 * 64 + word / 64] >> word % 64 & 1;
    assert_int_equal(marked, 5); /* words 0, 1, 7, 8 and 187 */
    dirty_log_mark(&core, core.dirty_bits); /* beyond the bitmap: ignored */
    dirty_log_mark(&core, UINT64_MAX);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),           cmocka_unit_test(too_much),         cmocka_unit_test(borders),
        cmocka_unit_test(copies),           cmocka_unit_test(compare_exchange), cmocka_unit_test(first_touch_race),
        cmocka_unit_test(dirty_marks),      cmocka_unit_test(prepared_in_portions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
