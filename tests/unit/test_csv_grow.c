/* SPDX-License-Identifier: MIT */
/*
 * A volume that grows: over groups and regions, with files open and with the power cut at every write. It has its old
 * size or the new one, nothing is lost, and what was gained can be used to the last block.
 */
#include "csv_fixture.h"

#define BLOCK 4096ull

/* A disk that is larger than it says. */
static void begin(struct bench *b, uint64_t bytes, uint64_t later)
{
    struct csv_mkfs_options options = { .uuid = "a volume's uuid", .hash_key = "0123456789abcde", .label = "Volume1" };
    memset(b, 0, sizeof(*b));
    b->disk = fake_disk_new(later);
    b->disk->disk.bytes = bytes;
    fake_memory_init(&b->memory);
    ok(csv_mkfs(&b->disk->disk, &b->memory.memory, &options));
    ok(bench_mount(b));
}

static void finish(struct bench *b, uint64_t later)
{
    b->disk->disk.bytes = later; /* so that all of it is freed */
    fake_disk_free(b->disk);
}

static void fill_up(struct bench *b, const char *name, uint64_t *bytes)
{
    static uint8_t data[MIB];
    struct csv_file *file = make_file(b, name);
    *bytes = 0;
    for (uint64_t part = sizeof(data); part >= BLOCK;) {
        pattern(data, part, (uint32_t)(*bytes / BLOCK));
        if (csv_write(file, *bytes, data, part) == OK)
            *bytes += part;
        else
            part /= 2;
    }
    ok(csv_set_size(file, *bytes));
    ok(csv_close(file));
}

static void expect_filled(struct bench *b, const char *name, uint64_t bytes)
{
    static uint8_t data[MIB], got[MIB];
    struct csv_file *file = open_file(b, name);
    uint64_t done;
    assert_int_equal(csv_size(file), bytes);
    for (uint64_t at_byte = 0; at_byte + sizeof(data) <= bytes; at_byte += sizeof(data)) {
        pattern(data, sizeof(data), (uint32_t)(at_byte / BLOCK));
        ok(csv_read(file, at_byte, got, sizeof(got), &done));
        assert_memory_equal(got, data, sizeof(data));
    }
    ok(csv_close(file));
}

static void test_sizes(void **state)
{
    static const uint64_t size[][2] = {
        { 64 * MIB, 64 * MIB + BLOCK }, { 64 * MIB + 7 * BLOCK, 70 * MIB }, { 64 * MIB, 128 * MIB },
        { 100 * MIB, 300 * MIB }, { 60 * 16 * MIB, 1100 * MIB }, { 1 * GIB, 1 * GIB + 63 * BLOCK },
        { 1 * GIB, 1 * GIB + 64 * BLOCK }, { 1 * GIB + 100 * BLOCK, 3 * GIB + 512 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(size); i++) {
        struct bench b;
        struct csv_info before, after;
        uint64_t inode, gained = size[i][1] / BLOCK - size[i][0] / BLOCK;
        begin(&b, size[i][0], size[i][1]);
        struct csv_file *file = make_file(&b, "open");
        ok(csv_write(file, 0, "bytes", 5));
        csv_statfs(b.volume, &before);
        ok(csv_grow(b.volume)); /* nothing to gain */
        b.disk->disk.bytes = size[i][1];
        ok(csv_grow(b.volume));
        csv_statfs(b.volume, &after);
        if (size[i][1] == 1 * GIB + 63 * BLOCK) { /* too few for a region */
            assert_int_equal(after.blocks, before.blocks);
        } else {
            assert_int_equal(after.blocks, size[i][1] / BLOCK);
            assert_true(after.free_blocks >= before.free_blocks);
            assert_true(after.free_blocks + 1024 + 3 * 17 >= before.free_blocks + gained);
        }
        bench_check(&b);
        ok(csv_write(file, 5, "more", 4));
        ok(csv_close(file));
        bench_remount(&b);
        csv_statfs(b.volume, &before);
        assert_int_equal(after.blocks, before.blocks);
        assert_int_equal(at(&b, "open"), (ok(csv_walk(b.volume, "open", &inode)), inode));
        bench_check(&b);
        ok(csv_unmount(b.volume));
        finish(&b, size[i][1]);
    }
}

/* To the last block, before and after. */
static void test_full(void **state)
{
    struct bench b;
    uint64_t first, second;
    (void)state;
    begin(&b, 64 * MIB + 5 * BLOCK, 200 * MIB);
    fill_up(&b, "first", &first);
    b.disk->disk.bytes = 200 * MIB;
    ok(csv_grow(b.volume));
    fill_up(&b, "second", &second);
    assert_true(first + second > 183 * MIB);
    bench_check(&b);
    bench_remount(&b);
    expect_filled(&b, "first", first);
    expect_filled(&b, "second", second);
    bench_check(&b);
    ok(csv_unmount(b.volume));
    finish(&b, 200 * MIB);
}

static bool there(struct bench *b, const char *path)
{
    uint64_t inode;
    enum status status = csv_walk(b->volume, path, &inode);
    assert_true(status == OK || status == ERR_NOT_FOUND);
    return !status;
}

static void test_cut(void **state)
{
    struct bench b;
    struct csv_info info;
    uint64_t inode, seed = 9;
    unsigned old_size = 0, new_size = 0;
    (void)state;
    begin(&b, 64 * MIB, 200 * MIB);
    ok(create(&b, csv_root(b.volume), "f", &inode));
    ok(csv_unmount(b.volume));
    b.disk->disk.bytes = 200 * MIB;
    struct fake_csv_disk *start = fake_disk_copy(b.disk);
    ok(bench_mount(&b));
    fake_disk_free(start);
    start = fake_disk_copy(b.disk);
    fake_disk_record(b.disk);
    ok(create(&b, csv_root(b.volume), "logged", &inode)); /* in the journal, ... */
    ok(csv_sync(b.volume));
    ok(csv_unlink(b.volume, csv_root(b.volume), "f", 1)); /* ... and not there yet: changes that a growth finds */
    ok(create(&b, csv_root(b.volume), "pending", &inode));
    ok(csv_grow(b.volume));
    size_t grown = b.disk->record_count;
    ok(create(&b, csv_root(b.volume), "g", &inode));
    ok(csv_unmount(b.volume));
    for (size_t count = 0; count <= b.disk->record_count; count++)
        for (unsigned i = 0; i < 6; i++) {
            enum fake_cut cut = i == 0 ? FAKE_CUT_ALL : i == 1 ? FAKE_CUT_NONE : FAKE_CUT_RANDOM;
            struct bench left = { .disk = fake_disk_cut(start, b.disk, count, cut, &seed) };
            fake_memory_init(&left.memory);
            ok(bench_mount(&left));
            csv_statfs(left.volume, &info);
            old_size += info.blocks == 64 * MIB / BLOCK;
            new_size += info.blocks == 200 * MIB / BLOCK;
            if (count >= grown) {
                assert_int_equal(info.blocks, 200 * MIB / BLOCK);
                at(&left, "logged");
                at(&left, "pending");
            } else if (!there(&left, "pending")) {
                at(&left, "f");
            }
            bench_check(&left);
            ok(csv_grow(left.volume));
            csv_statfs(left.volume, &info);
            assert_int_equal(info.blocks, 200 * MIB / BLOCK);
            bench_end(&left);
        }
    assert_true(old_size > 10 && new_size > 10);
    fake_disk_free(start);
    fake_disk_free(b.disk);
}

/* A disk or memory that fails in the midst of it. */
static void test_failures(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++)
        for (long n = 0; n < 60; n++) {
            struct bench b;
            begin(&b, 64 * MIB, 200 * MIB);
            b.disk->disk.bytes = 200 * MIB;
            *(kind ? &b.memory.fail_after : &b.disk->fail_after) = n;
            enum status status = csv_grow(b.volume);
            b.memory.fail_after = b.disk->fail_after = -1;
            if (status)
                assert_int_equal(status, kind ? ERR_NO_MEMORY : ERR_IO);
            csv_abandon(b.volume);
            assert_int_equal(b.memory.used, 0);
            ok(bench_mount(&b));
            ok(csv_grow(b.volume));
            bench_end(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sizes), cmocka_unit_test(test_full),
                                        cmocka_unit_test(test_cut), cmocka_unit_test(test_failures) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
