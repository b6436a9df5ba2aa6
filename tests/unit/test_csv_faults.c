/* SPDX-License-Identifier: MIT */
/*
 * What deliberate faults in csv/ have shown to be unguarded elsewhere: the journal is never overrun, the length in a commit
 * block counts, a disk that fails ends all changes until the next mount, a block is given up once, no bitmap makes
 * the journal a place for data, and no count of references is believed that cannot be.
 */
#include "csv_fixture.h"
#include "csv/tree.h"
#include "csv/volume.h"

#define SMALL (64 * MIB)

/* A change that is durable: of few blocks, so that those of the log are all that is used up. */
static void turn(struct bench *b, uint64_t inode, int64_t number)
{
    struct csv_attributes attributes = { .set_modified = true, .modified_ns = number };
    ok(csv_set_attributes(b->volume, inode, &attributes));
    ok(csv_sync(b->volume));
}

/* The log goes on to its end and beyond; wherever the power goes, the volume is as at the last sync or the next one. */
static void test_never_overrun(void **state)
{
    struct bench b;
    struct csv_stat stat;
    uint64_t inode, seed = 1, used = 0;
    size_t synced[400], turns = 0;
    unsigned checkpoints = 0, after = 0;
    (void)state;
    bench_init(&b, SMALL);
    ok(create(&b, csv_root(b.volume), "f", &inode));
    uint64_t largest = b.volume->transaction_limit + b.volume->transaction_limit / CSV_JD_IMAGES + 4;
    do
        turn(&b, inode, 0);
    while (b.volume->used < b.volume->journal_blocks / 2);
    struct fake_csv_disk *start = fake_disk_copy(b.disk);
    fake_disk_record(b.disk);
    while (turns < ARRAY_COUNT(synced) && after < 8) { /* a checkpoint, and some more */
        turn(&b, inode, (int64_t)turns + 1);
        synced[turns++] = b.disk->record_count;
        checkpoints += b.volume->used < used;
        after += checkpoints > 0;
        used = b.volume->used;
        assert_true(used + largest <= b.volume->journal_blocks);
    }
    assert_int_equal(checkpoints, 1);
    csv_abandon(b.volume);
    for (size_t count = 0, done = 0; count <= b.disk->record_count; count++) {
        while (done < turns && synced[done] <= count)
            done++;
        struct bench left = { .disk = fake_disk_cut(start, b.disk, count, count % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_NONE, &seed) };
        fake_memory_init(&left.memory);
        enum status status = bench_mount(&left);
        if (status)
            print_error("cut at %zu: %s\n", count, left.message);
        ok(status);
        ok(csv_stat(left.volume, inode, &stat));
        assert_in_range(stat.modified_ns, done, done + 1);
        bench_check(&left);
        ok(csv_unmount(left.volume));
        fake_disk_free(left.disk);
    }
    fake_disk_free(start);
    fake_disk_free(b.disk);
}

/* A commit block tells how long its transaction is; one of another length is none, whatever its checksums say. */
static void test_commit_length(void **state)
{
    (void)state;
    for (int more = -1; more <= 1; more++) {
        struct bench b;
        uint8_t block[CSV_BLOCK_BYTES];
        uint64_t inode;
        bench_init(&b, SMALL);
        ok(csv_sync(b.volume));
        ok(create(&b, csv_root(b.volume), "f", &inode));
        ok(csv_sync(b.volume));
        uint64_t commit = b.volume->journal + b.volume->head - 1;
        csv_abandon(b.volume);
        fake_disk_peek(b.disk, commit * CSV_BLOCK_BYTES, block, sizeof(block));
        assert_int_equal(le32_get(block), CSV_COMMIT);
        le32_put(block + CSV_JC_BLOCKS, le32_get(block + CSV_JC_BLOCKS) + (uint32_t)more);
        bench_seal(&b, commit, block);
        enum status status = bench_mount(&b);
        assert_int_equal(status, more ? ERR_CORRUPT : OK);
        if (more)
            assert_non_null(strstr(b.message, "journal is damaged"));
        else
            bench_end(&b);
        if (more)
            fake_disk_free(b.disk);
    }
}

/*
 * The disk fails once, at each access of a sync in turn, and works again at once. What is durable is not known then: nothing
 * more is changed, and all say so, until a mount has found out.
 */
static void test_failed_sync_ends_changes(void **state)
{
    bool failed = true;
    (void)state;
    for (long after = 0; failed; after++) {
        struct bench b;
        struct csv_info info;
        uint64_t inode;
        bench_init(&b, SMALL);
        struct csv_file *file = make_file(&b, "f");
        ok(csv_sync(b.volume));
        ok(create(&b, csv_root(b.volume), "g", &inode));
        b.disk->fail_after = after;
        failed = csv_sync(b.volume) != OK;
        b.disk->fail_after = -1;
        uint64_t writes = b.disk->writes;
        csv_statfs(b.volume, &info);
        assert_int_equal(info.read_only, failed);
        if (failed) {
            assert_int_equal(csv_sync(b.volume), ERR_READ_ONLY);
            assert_int_equal(create(&b, csv_root(b.volume), "h", &inode), ERR_READ_ONLY);
            assert_int_equal(csv_write(file, 0, "late", 4), ERR_READ_ONLY);
            assert_int_equal(csv_set_size(file, 100), ERR_READ_ONLY);
            assert_int_equal(b.disk->writes, writes);
        }
        assert_true(after < 20);
        csv_abandon(b.volume);
        ok(bench_mount(&b));
        at(&b, "f");
        if (!failed)
            at(&b, "g");
        bench_end(&b);
    }
}

/* Twice in one transaction, when the bitmap does not tell yet that the first one has given it up. */
static void test_given_up_twice(void **state)
{
    struct bench b;
    struct csv_mapping m;
    static uint8_t data[8 * CSV_BLOCK_BYTES];
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_sync(b.volume));
    ok(csv_map(file, 0, sizeof(data), &m));
    uint64_t block = m.disk_offset / CSV_BLOCK_BYTES;
    ok(csv_begin(b.volume));
    ok(csv_free_blocks(b.volume, block, 8));
    ok(csv_free_blocks(b.volume, block + 3, 1));
    ok(csv_end(b.volume, OK));
    assert_int_equal(csv_sync(b.volume), ERR_CORRUPT);
    assert_non_null(strstr(csv_problem(b.volume), "blocks are freed that are free"));
    assert_int_equal(csv_write(file, 0, data, 1), ERR_READ_ONLY);
    csv_abandon(b.volume);
    ok(bench_mount(&b));
    file = open_file(&b, "f");
    ok(csv_close(file));
    bench_end(&b);
}

/* A bitmap, with a good checksum, that says so of what has its fixed place. */
static void test_fixed_places(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct bench b;
        uint8_t block[CSV_BLOCK_BYTES];
        uint64_t start = 0, count = 0;
        bench_init(&b, SMALL);
        uint64_t place[] = { b.volume->journal, b.volume->journal + b.volume->journal_blocks - 1, CSV_AT_ROOT,
                             CSV_AT_SUPER_MIDDLE };
        ok(csv_unmount(b.volume));
        fake_disk_peek(b.disk, CSV_BLOCK_BYTES, block, sizeof(block)); /* the one group */
        assert_int_equal(le32_get(block), CSV_GROUP);
        block[CSV_GR_BITMAP + place[i] / 8] &= (uint8_t)~(1u << place[i] % 8);
        le32_put(block + CSV_GR_FREE, le32_get(block + CSV_GR_FREE) + 1);
        bench_seal(&b, 1, block);
        ok(bench_mount(&b));
        ok(csv_begin(b.volume));
        assert_int_equal(csv_end(b.volume, csv_alloc_data(b.volume, place[i], 1, &start, &count)), ERR_CORRUPT);
        assert_non_null(strstr(csv_problem(b.volume), "fixed places are free"));
        b.volume->meta_goal = place[i];
        ok(csv_begin(b.volume));
        assert_int_equal(csv_end(b.volume, csv_alloc_meta(b.volume, &start)), ERR_CORRUPT);
        csv_abandon(b.volume);
        fake_disk_free(b.disk);
    }
}

/* The record of a run of shared blocks: as it should be, of none or one reference, and of runs that lie where no data may be. */
static void test_impossible_counts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct bench b;
        struct csv_block *root;
        uint64_t alike, references, inode;
        uint8_t value[CSV_COUNT_VALUE_BYTES];
        static uint8_t data[4 * CSV_BLOCK_BYTES];
        struct csv_mapping m;
        bench_init(&b, SMALL);
        struct csv_file *file = make_file(&b, "f");
        ok(csv_write(file, 0, data, sizeof(data)));
        ok(csv_clone(file, csv_root(b.volume), "c", 1, &inode));
        ok(csv_map(file, 0, sizeof(data), &m));
        assert_int_equal(m.kind, CSV_MAP_SHARED);
        uint64_t start = m.disk_offset / CSV_BLOCK_BYTES;
        struct { uint64_t key; uint32_t blocks, count; } record[] = {
            { start, 4, 2 }, { start, 4, 1 }, { start, 4, 0 }, { start, 0, 2 }, { start, (uint32_t)(b.volume->blocks - start), 2 },
            { b.volume->journal, 8, 2 },
        };
        ok(csv_begin(b.volume));
        ok(csv_root_block(b.volume, &root));
        struct csv_tree tree = csv_counts_tree(b.volume, root);
        ok(csv_tree_remove(&tree, start));
        le32_put(value, record[i].blocks);
        le32_put(value + 4, record[i].count);
        ok(csv_tree_insert(&tree, record[i].key, value, sizeof(value)));
        ok(csv_end(b.volume, OK));
        uint64_t asked = i == 5 ? b.volume->journal : start;
        assert_int_equal(csv_references(b.volume, asked, 4, &alike, &references), i ? ERR_CORRUPT : OK);
        if (i && i < 5) {
            assert_int_equal(csv_write(file, 0, data, 1), ERR_CORRUPT);
            assert_int_equal(csv_set_size(file, 0), OK); /* what cannot be freed now is tried again later */
            assert_true(b.volume->unfinished);
        }
        ok(csv_close(file));
        csv_abandon(b.volume);
        fake_disk_free(b.disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_overrun),
        cmocka_unit_test(test_commit_length),
        cmocka_unit_test(test_failed_sync_ends_changes),
        cmocka_unit_test(test_given_up_twice),
        cmocka_unit_test(test_fixed_places),
        cmocka_unit_test(test_impossible_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
