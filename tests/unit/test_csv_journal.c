/* SPDX-License-Identifier: MIT */
/*
 * Promises of the journal that power cuts alone do not show: a node that became data is not written over by replay, a
 * log that is damaged after it was durable is refused and not shortened quietly, blocks of other places, volumes and
 * times are not taken, a sync reaches the disk when there is nothing to commit, and the log goes round.
 */
#include "csv_fixture.h"
#include "csv/volume.h"

#define SMALL (64 * MIB)

/* Nodes of a large directory are freed, and their blocks become a file's data while the log still has the nodes. */
static void test_revocations(void **state)
{
    enum { COUNT = 1500 };
    struct bench b;
    static uint8_t data[MIB], got[MIB];
    char name[64];
    uint64_t inode, root, size = 0, done;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "a rather long name, so that nodes are many: %u", i);
        ok(create(&b, root, name, &inode));
    }
    ok(csv_sync(b.volume));
    bench_remount(&b);
    for (unsigned i = 0; i < 40; i++) { /* into the log they come */
        snprintf(name, sizeof(name), "a rather long name, so that nodes are many: %u", i);
        ok(csv_unlink(b.volume, root, name, strlen(name)));
    }
    ok(csv_sync(b.volume));
    for (unsigned i = 40; i < COUNT; i++) {
        snprintf(name, sizeof(name), "a rather long name, so that nodes are many: %u", i);
        ok(csv_unlink(b.volume, root, name, strlen(name)));
    }
    ok(csv_sync(b.volume));
    struct csv_file *file = make_file(&b, "f");
    enum status status = OK;
    for (; !status; size += sizeof(data)) {
        pattern(data, sizeof(data), (uint32_t)size);
        status = csv_write(file, size, data, sizeof(data));
    }
    assert_int_equal(status, ERR_NO_SPACE);
    size -= sizeof(data);
    ok(csv_sync(b.volume));
    assert_true(b.volume->used > 0); /* the log still has it all */
    csv_abandon(b.volume);
    ok(bench_mount(&b));
    bench_check(&b);
    file = open_file(&b, "f");
    for (uint64_t at_byte = 0; at_byte < size; at_byte += sizeof(data)) {
        pattern(data, sizeof(data), (uint32_t)at_byte);
        ok(csv_read(file, at_byte, got, sizeof(got), &done));
        assert_memory_equal(got, data, sizeof(data));
    }
    ok(csv_close(file));
    bench_end(&b);
}

/* Three transactions in the log; *first to first[3] are where they begin and end. */
static void three_transactions(struct bench *b, uint64_t first[4])
{
    static const char *const name[3] = { "one", "two", "three" };
    uint64_t inode;
    bench_init(b, SMALL);
    ok(csv_sync(b->volume));
    for (unsigned i = 0; i < 3; i++) {
        first[i] = b->volume->journal + b->volume->head;
        ok(create(b, csv_root(b->volume), name[i], &inode));
        ok(csv_sync(b->volume));
    }
    first[3] = b->volume->journal + b->volume->head;
    csv_abandon(b->volume);
}

static void flip(struct bench *b, uint64_t block, unsigned offset)
{
    uint8_t byte;
    fake_disk_peek(b->disk, block * 4096 + offset, &byte, 1);
    byte ^= 0x10;
    fake_disk_poke(b->disk, block * 4096 + offset, &byte, 1);
}

static void test_damaged_log(void **state)
{
    struct bench b;
    uint64_t first[4];
    (void)state;
    three_transactions(&b, first);
    for (uint64_t block = first[0]; block < first[3]; block++)
        for (unsigned offset = 1; offset < 4096; offset += 455) {
            flip(&b, block, offset);
            enum status status = bench_mount(&b);
            if (block == first[3] - 1) { /* as if it had never been written */
                uint64_t inode;
                ok(status);
                assert_int_equal(csv_walk(b.volume, "three", &inode), ERR_NOT_FOUND);
                fake_disk_free(b.disk);
                csv_abandon(b.volume);
                return;
            }
            assert_int_equal(status, ERR_CORRUPT);
            assert_non_null(strstr(b.message, "journal is damaged"));
            flip(&b, block, offset);
        }
    fail();
}

/* A block of the same log from another place does not count as the one that should be there. */
static void test_misplaced(void **state)
{
    struct bench b;
    uint64_t first[4];
    uint8_t block[4096];
    (void)state;
    three_transactions(&b, first);
    fake_disk_peek(b.disk, (first[3] - 1) * 4096, block, 4096);
    fake_disk_poke(b.disk, first[3] * 4096, block, 4096);
    ok(bench_mount(&b));
    assert_int_equal(b.volume->replayed, 3);
    bench_check(&b);
    ok(csv_unmount(b.volume));
    /* An inode that lies where another one should. */
    uint64_t one, two;
    ok(bench_mount(&b));
    one = at(&b, "one");
    two = at(&b, "two");
    ok(csv_unmount(b.volume));
    fake_disk_peek(b.disk, one * 4096, block, 4096);
    fake_disk_poke(b.disk, two * 4096, block, 4096);
    ok(bench_mount(&b));
    struct csv_stat stat;
    assert_int_equal(csv_stat(b.volume, two, &stat), ERR_CORRUPT);
    ok(csv_stat(b.volume, one, &stat));
    struct csv_check check = { 0 };
    ok(csv_check(b.volume, &check));
    assert_true(check.problems > 0);
    ok(csv_unmount(b.volume));
    fake_disk_free(b.disk);
}

/* The same LUN, made anew: nothing of the old volume counts, not even its log. */
static void test_old_volume(void **state)
{
    struct bench b;
    struct csv_mkfs_options options = { .uuid = "another's uuid.", .label = "" };
    uint64_t first[4], inode;
    (void)state;
    three_transactions(&b, first);
    uint8_t *journal = malloc(1024 * 4096);
    fake_disk_peek(b.disk, first[0] / 1024 * 1024 * 4096, journal, 1024 * 4096);
    ok(csv_mkfs(&b.disk->disk, &b.memory.memory, &options));
    fake_disk_poke(b.disk, first[0] * 4096, journal + first[0] % 1024 * 4096, (first[3] - first[0]) * 4096);
    ok(bench_mount(&b));
    assert_int_equal(b.volume->replayed, 0);
    assert_int_equal(csv_walk(b.volume, "one", &inode), ERR_NOT_FOUND);
    free(journal);
    bench_end(&b);
}

/* Data written in place: nothing to commit, but a sync is a flush. */
static void test_sync_flushes(void **state)
{
    struct bench b;
    struct csv_mapping m;
    static uint8_t data[8192];
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_preallocate(file, 0, 65536));
    ok(csv_sync(b.volume));
    uint64_t flushes = b.disk->flushes;
    ok(csv_sync(b.volume));
    assert_int_equal(b.disk->flushes, flushes + 1);
    /* Ranges that turn to written cost one flush, and one commit, together. */
    for (uint64_t i = 0; i < 65536; i += 8192) {
        ok(csv_map(file, i, 4096, &m));
        assert_int_equal(m.kind, CSV_MAP_UNWRITTEN);
        ok(b.disk->disk.write(&b.disk->disk, m.disk_offset, data, 4096, false));
        ok(csv_converted(file, i, 4096));
    }
    flushes = b.disk->flushes;
    ok(csv_sync(b.volume));
    assert_int_equal(b.disk->flushes, flushes + 1);
    ok(csv_close(file));
    bench_end(&b);
}

/* Many times round the ring, with the log left full at the end. */
static void test_round(void **state)
{
    struct bench b;
    uint64_t inode, commits = 0, root, checkpoints = 0, used;
    char name[32];
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "n%u", i % 50);
        if (i % 100 < 50)
            ok(create(&b, root, name, &inode));
        else
            ok(csv_unlink(b.volume, root, name, strlen(name)));
        used = b.volume->used;
        ok(csv_sync(b.volume));
        commits++;
        checkpoints += b.volume->used < used;
        if (i % 700 == 350) {
            uint64_t expected = b.volume->number;
            csv_abandon(b.volume);
            ok(bench_mount(&b));
            assert_true(b.volume->number >= expected);
            bench_check(&b);
        }
    }
    assert_true(checkpoints >= 10);
    assert_true(commits * 3 > 2 * b.volume->journal_blocks);
    bench_end(&b);
}

/* A transaction of so many blocks. */
static void large_transaction(struct bench *b, unsigned blocks)
{
    struct csv_block *block;
    ok(csv_begin(b->volume));
    for (unsigned i = 0; i < blocks; i++)
        ok(csv_inode_new(b->volume, CSV_IS_FILE, 0, 0644, &block));
    ok(csv_end(b->volume, OK));
    ok(csv_commit(b->volume));
}

/* The first transaction after a checkpoint may lie where the old tail was: the new head must be durable by then. */
static void test_head_before_reuse(void **state)
{
    struct bench b;
    uint64_t inode, seed = 4;
    (void)state;
    bench_init(&b, SMALL);
    ok(create(&b, csv_root(b.volume), "f", &inode));
    while (b.volume->journal_blocks - b.volume->used > 262)
        for (unsigned i = 0; i < 2; i++) {
            ok(i ? csv_unlink(b.volume, csv_root(b.volume), "x", 1) : create(&b, csv_root(b.volume), "x", &inode));
            ok(csv_sync(b.volume));
            if (b.volume->journal_blocks - b.volume->used <= 262)
                break;
        }
    assert_true(b.volume->used > 0);
    struct fake_csv_disk *start = fake_disk_copy(b.disk);
    fake_disk_record(b.disk);
    large_transaction(&b, 180);
    assert_int_equal(b.volume->used, 0); /* a checkpoint */
    large_transaction(&b, 180);
    csv_abandon(b.volume);
    for (size_t count = 0; count <= b.disk->record_count; count++)
        for (unsigned i = 0; i < 10; i++) {
            enum fake_cut cut = i ? FAKE_CUT_RANDOM : FAKE_CUT_NONE;
            struct bench left = { .disk = fake_disk_cut(start, b.disk, count, cut, &seed) };
            fake_memory_init(&left.memory);
            enum status status = bench_mount(&left);
            if (status)
                print_error("cut at %zu: %s\n", count, left.message);
            ok(status);
            at(&left, "f");
            ok(csv_unmount(left.volume));
            fake_disk_free(left.disk);
        }
    fake_disk_free(start);
    fake_disk_free(b.disk);
}

/* Both heads gone, one head gone. */
static void test_heads(void **state)
{
    struct bench b;
    uint64_t first[4], one;
    uint8_t junk[4096] = { 1 };
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        three_transactions(&b, first);
        fake_disk_poke(b.disk, (CSV_AT_MOUNT_RECORD + i) * 4096ull, junk, 4096);
        if (bench_mount(&b) == OK) {
            one = at(&b, "one");
            assert_true(one);
            bench_end(&b);
        } else {
            fail();
        }
    }
    three_transactions(&b, first);
    fake_disk_poke(b.disk, CSV_AT_JOURNAL_HEAD * 4096ull, junk, 4096);
    fake_disk_poke(b.disk, (CSV_AT_JOURNAL_HEAD + 1) * 4096ull, junk, 4096);
    assert_int_equal(bench_mount(&b), ERR_CORRUPT);
    assert_non_null(strstr(b.message, "journal heads"));
    fake_disk_free(b.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_revocations), cmocka_unit_test(test_damaged_log), cmocka_unit_test(test_misplaced),
        cmocka_unit_test(test_old_volume),  cmocka_unit_test(test_sync_flushes), cmocka_unit_test(test_round),
        cmocka_unit_test(test_heads),       cmocka_unit_test(test_head_before_reuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
