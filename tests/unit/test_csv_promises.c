/* SPDX-License-Identifier: MIT */
/*
 * Promises of csv/csv.h for the moments when something else goes wrong: a disk or memory that fails for once, a volume
 * that is full, work that had to be left for later, an inode number that was kept too long. None of these may lose
 * bytes, bring old ones back, or be answered with OK though nothing was done.
 */
#include "csv/volume.h"
#include "csv_fixture.h"

#define SMALL (64 * MIB)
#define BLOCK 4096ull

/* Reads and writes so many blocks of metadata that all that are clean leave memory. */
static void evict(struct bench *b)
{
    uint64_t directory, inode;
    char name[CSV_NAME_BYTES + 1];
    ok(csv_mkdir(b->volume, csv_root(b->volume), "many", 4, 0755, &directory));
    for (unsigned i = 0; i < 400; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        ok(create(b, directory, name, &inode));
    }
    ok(csv_sync(b->volume));
    ok(csv_checkpoint(b->volume));
    for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
        struct csv_entry entry;
        struct csv_stat stat;
        if (csv_readdir(b->volume, directory, &cursor, &entry))
            break;
        ok(csv_stat(b->volume, entry.inode, &stat));
    }
}

static bool all_zero(struct csv_file *file, uint64_t offset, uint64_t count)
{
    uint8_t *bytes = malloc(count);
    uint64_t done;
    bool zero = true;
    ok(csv_read(file, offset, bytes, count, &done));
    for (uint64_t i = 0; i < done; i++)
        zero = zero && !bytes[i];
    free(bytes);
    return zero;
}

/* A disk that fails for a moment: what is answered with OK was done. */
static void test_no_quiet_failure(void **state)
{
    static uint8_t data[64 * 4096];
    struct bench b;
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    pattern(data, sizeof(data), 1);
    ok(csv_write(file, 0, data, sizeof(data)));
    evict(&b);
    b.disk->fail_after = 0;
    enum status punched = csv_punch(file, 0, sizeof(data)), cut = csv_set_size(file, 5000);
    enum status longer = csv_preallocate(file, 0, 4096);
    b.disk->fail_after = -1;
    assert_int_equal(punched, ERR_IO);
    assert_int_equal(cut, ERR_IO);
    assert_int_equal(longer, ERR_IO);
    assert_int_equal(csv_size(file), sizeof(data));
    assert_false(all_zero(file, 0, sizeof(data)));
    ok(csv_close(file));
    bench_end(&b);
}

/* A file that was cut, but whose blocks could not be freed at once, does not show them when it grows again. */
static void test_cut_and_grown(void **state)
{
    static uint8_t data[40 * 4096];
    unsigned left = 0;
    (void)state;
    pattern(data, sizeof(data), 2);
    for (unsigned how = 0; how < 4; how++)
        for (long n = 0; n < 12; n++) {
            struct bench b;
            uint64_t clone;
            bench_init(&b, SMALL);
            struct csv_file *file = make_file(&b, "f");
            ok(csv_write(file, 0, data, sizeof(data)));
            b.memory.fail_after = n;
            enum status status = csv_set_size(file, 5000);
            b.memory.fail_after = -1;
            left += !status && b.volume->unfinished;
            if (!status) {
                struct csv_mapping map;
                ok(csv_map(file, 8192, sizeof(data), &map));
                assert_int_equal(map.kind, CSV_MAP_HOLE);
                if (how == 0)
                    ok(csv_set_size(file, sizeof(data)));
                else if (how == 1)
                    ok(csv_write(file, sizeof(data) - 1, "", 1));
                else if (how == 2)
                    ok(csv_preallocate(file, 0, sizeof(data)));
                else
                    ok(csv_clone(file, csv_root(b.volume), "c", 1, &clone));
                assert_true(all_zero(file, 5000, sizeof(data)));
            }
            ok(csv_close(file));
            bench_remount(&b);
            bench_end(&b);
        }
    assert_true(left > 0);
}

/* Cut and grown again before either is durable: after a power cut the old size has the old bytes. */
static void test_cut_is_before_or_after(void **state)
{
    static uint8_t data[3 * 4096], got[3 * 4096];
    struct bench b;
    uint64_t seed = 5, done;
    (void)state;
    pattern(data, sizeof(data), 3);
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_close(file));
    ok(csv_unmount(b.volume));
    struct fake_csv_disk *start = fake_disk_copy(b.disk);
    fake_disk_record(b.disk);
    ok(bench_mount(&b));
    file = open_file(&b, "f");
    ok(csv_set_size(file, 5000));
    ok(csv_write(file, 9000, "x", 1));
    ok(csv_sync(b.volume));
    ok(csv_close(file));
    ok(csv_unmount(b.volume));
    for (size_t count = 0; count <= b.disk->record_count; count++) {
        struct bench left = { .disk = fake_disk_cut(start, b.disk, count, FAKE_CUT_ALL, &seed) };
        fake_memory_init(&left.memory);
        ok(bench_mount(&left));
        file = open_file(&left, "f");
        ok(csv_read(file, 0, got, sizeof(got), &done));
        if (done == sizeof(data))
            assert_memory_equal(got, data, sizeof(data));
        ok(csv_close(file));
        bench_end(&left);
    }
    fake_disk_free(start);
    fake_disk_free(b.disk);
}

/* A flush that failed may have lost what was written before it: no later sync may say that it is durable. */
static void test_failed_flush(void **state)
{
    static uint8_t data[4096];
    struct bench b;
    struct csv_mapping m;
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_sync(b.volume));
    ok(csv_map(file, 0, 4096, &m));
    ok(b.disk->disk.write(&b.disk->disk, m.disk_offset, data, 4096, false));
    b.disk->fail_after = 0;
    assert_int_equal(csv_sync(b.volume), ERR_IO);
    b.disk->fail_after = -1;
    assert_int_equal(csv_sync(b.volume), ERR_READ_ONLY);
    ok(csv_close(file));
    csv_abandon(b.volume);
    ok(bench_mount(&b));
    bench_end(&b);
}

/* Memory that is short for a moment does not end a volume: the sync fails, and the next one is as good as any. */
static void test_sync_without_memory(void **state)
{
    static uint8_t data[20 * 4096];
    unsigned failed = 0;
    (void)state;
    for (long n = 0; n < 6; n++) {
        struct bench b;
        uint64_t inode;
        bench_init(&b, 256 * MIB);
        struct csv_file *file = make_file(&b, "f");
        ok(csv_write(file, 0, data, sizeof(data)));
        ok(csv_close(file));
        evict(&b);
        ok(csv_unlink(b.volume, csv_root(b.volume), "f", 1));
        struct csv_block *group = csv_block_find(b.volume, csv_group_block(0));
        if (group && !group->is_changed && !group->is_logged)
            csv_block_drop(b.volume, group); /* as if others had been used since */
        b.memory.fail_after = n;
        enum status status = csv_sync(b.volume);
        b.memory.fail_after = -1;
        failed += status != OK;
        assert_true(status == OK || status == ERR_NO_MEMORY);
        ok(create(&b, csv_root(b.volume), "g", &inode));
        ok(csv_sync(b.volume));
        for (unsigned i = 0; i < 300; i++) { /* over a checkpoint */
            ok(create(&b, csv_root(b.volume), "x", &inode));
            b.memory.fail_after = i % 3;
            (void)!csv_sync(b.volume);
            b.memory.fail_after = -1;
            ok(csv_unlink(b.volume, csv_root(b.volume), "x", 1));
            ok(csv_sync(b.volume));
        }
        csv_abandon(b.volume);
        ok(bench_mount(&b));
        at(&b, "g");
        bench_end(&b);
    }
    assert_true(failed > 0);
}

/* The number of an inode that is gone does not open what lies there now. */
static void test_old_numbers(void **state)
{
    struct bench b;
    struct csv_mount_options options = bench_options();
    uint64_t directory, inode, made;
    struct csv_stat stat;
    struct csv_file *file;
    struct csv_entry entry;
    (void)state;
    for (unsigned durable = 0; durable < 2; durable++) {
        bench_format(&b, SMALL);
        options.discard = false;
        ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message));
        ok(csv_mkdir(b.volume, csv_root(b.volume), "d", 1, 0755, &directory));
        ok(create(&b, csv_root(b.volume), "f", &inode));
        ok(csv_unmount(b.volume)); /* both are at home */
        ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message));
        ok(csv_rmdir(b.volume, csv_root(b.volume), "d", 1));
        ok(csv_unlink(b.volume, csv_root(b.volume), "f", 1));
        if (durable)
            ok(csv_sync(b.volume));
        assert_int_equal(create(&b, directory, "x", &made), ERR_INVALID);
        assert_int_equal(csv_lookup(b.volume, directory, "x", 1, &entry), ERR_INVALID);
        assert_int_equal(csv_stat(b.volume, inode, &stat), ERR_INVALID);
        assert_int_equal(csv_open(b.volume, inode, &file), ERR_INVALID);
        bench_end(&b);
    }
}

/* A volume without a free block for data or names still turns what was preallocated to written. */
static void test_full_and_preallocated(void **state)
{
    static uint8_t data[MIB];
    struct bench b;
    uint64_t inode, end = 24 * MIB;
    char name[32];
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *disk = make_file(&b, "disk"), *rest = make_file(&b, "rest");
    ok(csv_preallocate(disk, 0, end));
    enum status status = OK;
    for (uint64_t at_byte = 0; !status; at_byte += sizeof(data))
        status = csv_write(rest, at_byte, data, sizeof(data));
    assert_int_equal(status, ERR_NO_SPACE);
    status = OK;
    for (unsigned i = 0; !status; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        status = create(&b, csv_root(b.volume), name, &inode);
    }
    assert_int_equal(status, ERR_NO_SPACE);
    assert_int_equal(csv_clone(disk, csv_root(b.volume), "clone", 5, &inode), ERR_NO_SPACE);
    for (uint64_t at_byte = 0; at_byte < end; at_byte += 8192) /* as many extents as there can be */
        ok(csv_converted(disk, at_byte, 4096));
    ok(csv_sync(b.volume));
    bench_check(&b);
    ok(csv_close(disk));
    ok(csv_unlink(b.volume, csv_root(b.volume), "disk", 4));
    ok(csv_write(rest, GIB, data, sizeof(data)));
    ok(csv_close(rest));
    bench_remount(&b);
    bench_end(&b);
}

/* A search for space over many full groups keeps memory within the cache's limit. */
static void test_many_full_groups(void **state)
{
    struct bench b;
    uint8_t block[4096];
    uint64_t root_free = 0;
    (void)state;
    bench_format(&b, 96 * GIB);
    uint64_t groups = 96 * GIB / (64 * MIB), last = groups - 1;
    for (uint64_t group = 0; group < groups; group++) {
        fake_disk_peek(b.disk, csv_group_block(group) * BLOCK, block, sizeof(block));
        if (group && group != last) { /* but for one block in the middle */
            memset(block + CSV_GR_BITMAP, 0xff, 2048);
            block[CSV_GR_BITMAP + 1000] = 0x7f;
            le32_put(block + CSV_GR_FREE, 1);
            bench_seal(&b, csv_group_block(group), block);
        }
        root_free += le32_get(block + CSV_GR_FREE);
    }
    fake_disk_peek(b.disk, CSV_AT_ROOT * BLOCK, block, sizeof(block));
    le64_put(block + CSV_RT_FREE, root_free);
    bench_seal(&b, CSV_AT_ROOT, block);
    ok(bench_mount(&b));
    struct csv_file *file = make_file(&b, "f");
    size_t before = b.memory.used;
    static uint8_t data[MIB];
    b.memory.peak = 0;
    for (unsigned i = 0; i < 70; i++)
        ok(csv_write(file, i * sizeof(data), data, sizeof(data)));
    assert_true(b.memory.peak < before + 400 * 4500);
    ok(csv_close(file));
    ok(csv_unmount(b.volume));
    fake_disk_free(b.disk);
}

/* The last close of a file without a name, at a moment when nothing can be read: a later sync frees its blocks. */
static void test_close_fails(void **state)
{
    static uint8_t data[4096];
    struct bench b;
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_unlink(b.volume, csv_root(b.volume), "f", 1));
    evict(&b);
    b.disk->fail_after = 0;
    (void)!csv_close(file);
    b.disk->fail_after = -1;
    ok(csv_sync(b.volume));
    assert_int_equal(bench_check(&b).orphans, 0);
    bench_end(&b);
}

static unsigned rests;

static void count_rest(struct csv_disk *disk)
{
    (void)disk;
    rests++;
}

/* Whatever takes long in memory asks again and again whether others want the CPU: at least once for each extent. */
static void test_rests(void **state)
{
    struct bench b;
    struct csv_mapping map;
    uint64_t inode;
    (void)state;
    bench_init(&b, 64 * MIB);
    struct csv_file *f = make_file(&b, "file");
    for (unsigned i = 0; i < 1000; i++)
        ok(csv_write(f, i * 8192ull, "x", 1));
    ok(csv_sync(b.volume));
    b.disk->disk.rest = count_rest;
    csv_map_drop(f);
    rests = 0;
    ok(csv_map(f, 0, 1, &map));
    assert_true(rests >= 1000);
    rests = 0;
    ok(csv_clone(f, csv_root(b.volume), "clone", 5, &inode));
    assert_true(rests >= 1000);
    rests = 0;
    ok(csv_unlink(b.volume, csv_root(b.volume), "clone", 5));
    assert_true(rests >= 1000);
    rests = 0;
    ok(csv_preallocate(f, 0, 8 * MIB));
    assert_true(rests >= 1000);
    rests = 0;
    ok(csv_converted(f, 0, 8 * MIB));
    assert_true(rests >= 1000);
    ok(csv_sync(b.volume));
    for (unsigned i = 0; i < 300; i++)
        ok(csv_punch(f, i * 8192ull, 4096));
    rests = 0;
    ok(csv_sync(b.volume)); /* the commit looks at each run of blocks that was freed, and enters it */
    assert_true(rests >= 600);
    ok(csv_close(f));
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rests),
        cmocka_unit_test(test_no_quiet_failure),     cmocka_unit_test(test_cut_and_grown),
        cmocka_unit_test(test_cut_is_before_or_after), cmocka_unit_test(test_failed_flush),
        cmocka_unit_test(test_sync_without_memory),  cmocka_unit_test(test_old_numbers),
        cmocka_unit_test(test_full_and_preallocated), cmocka_unit_test(test_many_full_groups),
        cmocka_unit_test(test_close_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
