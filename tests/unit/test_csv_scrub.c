/* SPDX-License-Identifier: MIT */
/* The scrub beside changes of the volume that it reads: what it must not take for damage, and what it leaves behind. */
#include "csv_fixture.h"

#define SMALL (64 * MIB)
#define BLOCK 4096ull

static char told[CSV_MESSAGE_BYTES];

static void hear(void *context, const char *text)
{
    (void)context;
    if (!told[0])
        snprintf(told, sizeof(told), "%s", text);
}

enum taker { NOT_DURABLE, NOBODY, INODE, NODE, BYTES, TAKERS };

/* The block of a directory that was removed gets another user. */
static void take_block(struct bench *b, struct csv_file *f, uint64_t block, enum taker taker)
{
    static uint8_t bytes[BLOCK];
    struct csv_mapping map;
    uint64_t inode = block;
    memset(bytes, 0xa5, sizeof(bytes));
    ok(csv_sync(b->volume));
    if (taker == INODE)
        ok(create(b, csv_root(b->volume), "new", &inode));
    for (uint64_t i = 0; i < 300 && taker == NODE; i++)
        ok(csv_write(f, i * 2 * BLOCK, bytes, 1));
    if (taker == BYTES) {
        b->volume->data_goal = block;
        ok(csv_write(f, 0, bytes, sizeof(bytes)));
        ok(csv_map(f, 0, 1, &map));
        inode = map.disk_offset / BLOCK;
    }
    assert_int_equal(inode, block);
    ok(csv_sync(b->volume));
}

/* What is removed between two steps is no damage: neither before that is durable, nor when something else has its block. */
static void test_scrub_removed(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 30 * TAKERS; round++) {
        struct bench b;
        struct csv_scrub s = { .report = hear };
        uint64_t gone;
        bench_init(&b, SMALL);
        struct csv_file *f = make_file(&b, "file");
        ok(csv_mkdir(b.volume, csv_root(b.volume), "gone", 4, 0755, &gone));
        ok(csv_sync(b.volume));
        told[0] = 0;
        for (unsigned i = 0; i < round / TAKERS && !s.done; i++)
            ok(csv_scrub_step(b.volume, &s, 1));
        ok(csv_rmdir(b.volume, csv_root(b.volume), "gone", 4));
        if (round % TAKERS != NOT_DURABLE)
            take_block(&b, f, gone, round % TAKERS);
        while (!s.done)
            ok(csv_scrub_step(b.volume, &s, 1));
        if (s.problems)
            print_message("round %u: %s\n", round, told);
        assert_int_equal(s.problems, 0);
        ok(csv_close(f));
        bench_end(&b);
    }
}

/* A scrub whose volume has gone between two steps leaves nothing behind, and can go on with the next mount. */
static void test_scrub_abandoned(void **state)
{
    struct bench b;
    struct csv_scrub s = { .report = hear };
    (void)state;
    bench_init(&b, SMALL);
    ok(csv_scrub_step(b.volume, &s, 10));
    csv_abandon(b.volume);
    ok(bench_mount(&b));
    ok(csv_scrub_step(b.volume, &s, 10));
    csv_abandon(b.volume);
    csv_scrub_end(&s);
    assert_null(s.state);
    assert_int_equal(b.memory.used, 0);
    ok(bench_mount(&b));
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scrub_removed),
        cmocka_unit_test(test_scrub_abandoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
