/* SPDX-License-Identifier: MIT */
/*
 * Promises of the volume while nothing goes wrong, and of what a mount refuses: names and bytes are there after a
 * remount, fsck finds nothing after each step, a failed operation leaves nothing, all memory comes back.
 */
#include "csv/volume.h"
#include "csv_fixture.h"
#include "kernel/crc32c.h"

#define SMALL (64 * MIB)

static void test_empty(void **state)
{
    struct bench b;
    struct csv_info info;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        bench_init(&b, i == 0 ? SMALL : i == 1 ? 3 * GIB + 5 * 4096 : 64 * GIB + 100 * MIB + 512);
        struct csv_check check = bench_check(&b);
        assert_int_equal(check.directories, 1);
        csv_statfs(b.volume, &info);
        assert_string_equal(info.label, "Volume1");
        assert_int_equal(info.inodes, 1);
        assert_true(info.free_blocks > info.blocks / 2);
        bench_remount(&b);
        bench_end(&b);
    }
}

static void test_largest(void **state)
{
    struct csv_mkfs_options options = { .label = "" };
    struct fake_csv_disk disk = { .disk = { .bytes = CSV_MAX_BYTES + 4096, .sector_bytes = 512 } };
    struct fake_memory memory;
    (void)state;
    fake_memory_init(&memory);
    assert_int_equal(csv_mkfs(&disk.disk, &memory.memory, &options), ERR_RANGE);
    disk.disk.bytes = CSV_MIN_BYTES - 512;
    assert_int_equal(csv_mkfs(&disk.disk, &memory.memory, &options), ERR_RANGE);
    disk.disk.bytes = CSV_MIN_BYTES;
    disk.disk.sector_bytes = 1024;
    assert_int_equal(csv_mkfs(&disk.disk, &memory.memory, &options), ERR_INVALID);
}

static void test_names(void **state)
{
    struct bench b;
    struct csv_entry entry;
    uint64_t inode, dir, root;
    char longest[CSV_NAME_BYTES + 1];
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    memset(longest, 'x', sizeof(longest));
    ok(csv_create(b.volume, root, longest, CSV_NAME_BYTES, 0600, &inode));
    assert_int_equal(csv_create(b.volume, root, longest, CSV_NAME_BYTES + 1, 0600, &inode), ERR_INVALID);
    static const char *const bad[] = { "", ".", "..", "a/b", "a\nb", "\x7f", "\xc3", "\xed\xa0\x80", "\xff" };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(create(&b, root, bad[i], &inode), ERR_INVALID);
    ok(create(&b, root, "gr\xc3\xb6\xc3\x9f" "e", &inode));
    ok(create(&b, root, "...", &inode));
    ok(create(&b, root, "A", &inode));
    ok(create(&b, root, "a", &inode)); /* case counts */
    assert_int_equal(create(&b, root, "a", &inode), ERR_EXISTS);
    ok(csv_mkdir(b.volume, root, "d", 1, 0755, &dir));
    ok(create(&b, dir, "f", &inode));
    assert_int_equal(at(&b, "/d//f/"), inode);
    assert_int_equal(csv_lookup(b.volume, inode, "x", 1, &entry), ERR_INVALID);
    assert_int_equal(csv_rmdir(b.volume, root, "d", 1), ERR_NOT_EMPTY);
    assert_int_equal(csv_unlink(b.volume, root, "d", 1), ERR_INVALID);
    assert_int_equal(csv_rmdir(b.volume, root, "a", 1), ERR_INVALID);
    assert_int_equal(csv_unlink(b.volume, root, "nobody", 6), ERR_NOT_FOUND);
    bench_remount(&b);
    assert_int_equal(at(&b, "/d/f"), inode);
    ok(csv_unlink(b.volume, dir, "f", 1));
    ok(csv_rmdir(b.volume, root, "d", 1));
    assert_int_equal(csv_walk(b.volume, "/d", &inode), ERR_NOT_FOUND);
    bench_end(&b);
}

static void test_rename(void **state)
{
    struct bench b;
    struct csv_stat stat;
    uint64_t a, x, root, inode;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    ok(csv_mkdir(b.volume, root, "a", 1, 0755, &a));
    ok(csv_mkdir(b.volume, a, "x", 1, 0755, &x));
    ok(create(&b, root, "f", &inode));
    assert_int_equal(csv_rename(b.volume, root, "a", 1, x, "a", 1), ERR_INVALID);
    assert_int_equal(csv_rename(b.volume, root, "a", 1, a, "a", 1), ERR_INVALID);
    assert_int_equal(csv_rename(b.volume, root, "f", 1, root, "a", 1), ERR_INVALID);
    assert_int_equal(csv_rename(b.volume, root, "f", 1, inode, "a", 1), ERR_INVALID);
    ok(csv_rename(b.volume, root, "f", 1, root, "f", 1));
    ok(csv_rename(b.volume, root, "f", 1, x, "g", 1));
    assert_int_equal(at(&b, "a/x/g"), inode);
    ok(csv_rename(b.volume, a, "x", 1, root, "y", 1));
    ok(csv_stat(b.volume, x, &stat));
    assert_int_equal(stat.parent, root);
    bench_check(&b);
    assert_int_equal(csv_rename(b.volume, root, "a", 1, root, "y", 1), ERR_NOT_EMPTY);
    ok(csv_rename(b.volume, root, "y", 1, root, "a", 1)); /* over an empty directory */
    struct csv_file *file = make_file(&b, "h");
    ok(csv_write(file, 0, "hello", 5));
    ok(csv_close(file));
    ok(csv_rename(b.volume, root, "h", 1, x, "g", 1)); /* over a file */
    ok(csv_stat(b.volume, at(&b, "a/g"), &stat));
    assert_int_equal(stat.size, 5);
    bench_end(&b);
}

/* A directory of 100,000 entries: found, listed once each while others come and go, and emptied. */
static void test_large_directory(void **state)
{
    enum { COUNT = 100000 };
    struct bench b;
    struct csv_entry entry;
    uint64_t root, inode, cursor = 0, listed = 0;
    char name[64];
    static uint8_t seen[COUNT];
    (void)state;
    bench_init(&b, 512 * MIB);
    root = csv_root(b.volume);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "file-%u-with-a-name-of-%u", i, i * 7);
        ok(create(&b, root, name, &inode));
    }
    bench_remount(&b);
    bench_check(&b);
    uint64_t reads = b.disk->reads;
    ok(csv_lookup(b.volume, root, "file-777-with-a-name-of-5439", 28, &entry));
    assert_true(b.disk->reads - reads <= 4);
    memset(seen, 0, sizeof(seen));
    while (csv_readdir(b.volume, root, &cursor, &entry) == OK) {
        unsigned i;
        assert_int_equal(sscanf(entry.name, "file-%u-", &i), 1);
        assert_int_equal(seen[i]++, 0);
        if (listed++ % 2)
            ok(csv_unlink(b.volume, root, entry.name, entry.name_bytes));
    }
    assert_int_equal(listed, COUNT);
    bench_check(&b);
    cursor = 0;
    while (csv_readdir(b.volume, root, &cursor, &entry) == OK)
        ok(csv_unlink(b.volume, root, entry.name, entry.name_bytes));
    bench_remount(&b);
    assert_int_equal(bench_check(&b).files, 0);
    bench_end(&b);
}

static void expect(struct csv_file *file, uint64_t offset, uint64_t count, const uint8_t *bytes)
{
    uint8_t *got = malloc(count);
    uint64_t done;
    ok(csv_read(file, offset, got, count, &done));
    assert_int_equal(done, count);
    if (bytes)
        assert_memory_equal(got, bytes, count);
    else
        for (uint64_t i = 0; i < count; i++)
            assert_int_equal(got[i], 0);
    free(got);
}

static void test_bytes(void **state)
{
    struct bench b;
    struct csv_stat stat;
    static uint8_t data[300000];
    (void)state;
    bench_init(&b, SMALL);
    pattern(data, sizeof(data), 1);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 1000, data, sizeof(data)));
    expect(file, 0, 1000, NULL);
    expect(file, 1000, sizeof(data), data);
    ok(csv_write(file, 5 * GIB + 77, data, 5000)); /* sparse */
    expect(file, 1000 + sizeof(data), 100000, NULL);
    expect(file, 5 * GIB + 77, 5000, data);
    ok(csv_stat(b.volume, csv_inode_of(file), &stat));
    assert_int_equal(stat.size, 5 * GIB + 77 + 5000);
    assert_true(stat.blocks < 80);
    bench_check(&b);
    ok(csv_write(file, 5000, data, 10)); /* in place */
    memcpy(data + 4000, data, 10);
    ok(csv_close(file));
    bench_remount(&b);
    file = open_file(&b, "f");
    expect(file, 1000, sizeof(data), data);
    /* Cut within a block, and grown again: zeros, not the old bytes. */
    ok(csv_set_size(file, 1500));
    ok(csv_set_size(file, 20000));
    expect(file, 1000, 500, data);
    expect(file, 1500, 18500, NULL);
    ok(csv_set_size(file, 1600));
    ok(csv_write(file, 9000, "x", 1));
    expect(file, 1500, 7500, NULL);
    ok(csv_set_size(file, 0));
    ok(csv_stat(b.volume, csv_inode_of(file), &stat));
    assert_int_equal(stat.blocks, 0);
    assert_int_equal(csv_set_size(file, CSV_FILE_BYTES + 1), ERR_RANGE);
    assert_int_equal(csv_write(file, CSV_FILE_BYTES - 1, "ab", 2), ERR_RANGE);
    ok(csv_write(file, CSV_FILE_BYTES - 1, "b", 1));
    expect(file, CSV_FILE_BYTES - 1, 1, (const uint8_t *)"b");
    ok(csv_close(file));
    bench_end(&b);
}

static void test_punch_and_preallocate(void **state)
{
    struct bench b;
    struct csv_mapping m;
    static uint8_t data[64 * 4096];
    (void)state;
    bench_init(&b, SMALL);
    pattern(data, sizeof(data), 2);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_punch(file, 5000, 20000));
    expect(file, 0, 5000, data);
    expect(file, 5000, 20000, NULL);
    expect(file, 25000, sizeof(data) - 25000, data + 25000);
    ok(csv_map(file, 8192, 100000, &m));
    assert_int_equal(m.kind, CSV_MAP_HOLE);
    assert_int_equal(m.bytes, 24576 - 8192);
    ok(csv_preallocate(file, 0, 2 * sizeof(data)));
    assert_int_equal(csv_size(file), 2 * sizeof(data));
    expect(file, 5000, 20000, NULL);
    expect(file, sizeof(data), sizeof(data), NULL);
    ok(csv_map(file, 8192 + 512, 4096, &m));
    assert_int_equal(m.kind, CSV_MAP_UNWRITTEN);
    assert_int_equal(m.bytes, 4096);
    /* The data path: in place, then converted. */
    fake_disk_poke(b.disk, m.disk_offset - 512, data, 4096);
    expect(file, 8192, 4096, NULL);
    ok(csv_converted(file, 8192, 4096));
    expect(file, 8192, 4096, data);
    expect(file, 12288, 4096, NULL);
    ok(csv_map(file, 8192, 1, &m));
    assert_int_equal(m.kind, CSV_MAP_WRITTEN);
    /* A part of an unwritten block: the rest is zeros, not what the disk had. */
    ok(csv_map(file, 12288, 4096, &m));
    fake_disk_poke(b.disk, m.disk_offset, data, 4096);
    ok(csv_write(file, 12288 + 100, "abc", 3));
    expect(file, 12288, 100, NULL);
    expect(file, 12288 + 103, 4096 - 103, NULL);
    assert_int_equal(csv_preallocate(file, 0, 100 * MIB), ERR_NO_SPACE);
    assert_int_equal(csv_size(file), 2 * sizeof(data));
    ok(csv_punch(file, 0, CSV_FILE_BYTES));
    expect(file, 0, 2 * sizeof(data), NULL);
    ok(csv_close(file));
    bench_end(&b);
}

static void test_clones(void **state)
{
    struct bench b;
    struct csv_mapping m;
    struct csv_file *clone[3];
    static uint8_t data[100 * 4096], other[100 * 4096];
    uint64_t inode, root;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    pattern(data, sizeof(data), 3);
    pattern(other, sizeof(other), 4);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    for (unsigned i = 0; i < 3; i++) {
        char name[] = { 'c', (char)('0' + i), 0 };
        ok(csv_clone(file, root, name, 2, &inode));
        ok(csv_open(b.volume, inode, &clone[i]));
        assert_int_equal(csv_clone(file, root, name, 2, &inode), ERR_EXISTS);
    }
    struct csv_check check = bench_check(&b);
    assert_int_equal(check.shared_blocks, 100);
    ok(csv_map(file, 0, 4096, &m));
    assert_int_equal(m.kind, CSV_MAP_SHARED);
    ok(csv_write(clone[0], 10 * 4096 + 5, other, 3 * 4096)); /* the rest of the first and last block stays */
    expect(file, 0, sizeof(data), data);
    expect(clone[1], 0, sizeof(data), data);
    expect(clone[0], 0, 10 * 4096 + 5, data);
    expect(clone[0], 10 * 4096 + 5, 3 * 4096, other);
    expect(clone[0], 13 * 4096 + 5, sizeof(data) - 13 * 4096 - 5, data + 13 * 4096 + 5);
    bench_check(&b);
    ok(csv_punch(file, 0, 50 * 4096));
    ok(csv_set_size(clone[1], 4096));
    expect(clone[2], 0, sizeof(data), data);
    bench_check(&b);
    for (unsigned i = 0; i < 3; i++)
        ok(csv_close(clone[i]));
    ok(csv_unlink(b.volume, root, "c0", 2));
    ok(csv_unlink(b.volume, root, "c1", 2));
    ok(csv_unlink(b.volume, root, "c2", 2));
    assert_int_equal(bench_check(&b).shared_blocks, 0);
    ok(csv_write(file, 50 * 4096, other, 4096)); /* nobody shares it any more: in place */
    ok(csv_map(file, 50 * 4096, 4096, &m));
    assert_int_equal(m.kind, CSV_MAP_WRITTEN);
    ok(csv_close(file));
    bench_end(&b);
}

/* A file that is open keeps its bytes without a name, also over a crash: then it goes. */
static void test_unlinked_while_open(void **state)
{
    struct bench b;
    struct csv_info before, after;
    static uint8_t data[50000];
    (void)state;
    bench_init(&b, SMALL);
    csv_statfs(b.volume, &before);
    pattern(data, sizeof(data), 5);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_unlink(b.volume, csv_root(b.volume), "f", 1));
    expect(file, 0, sizeof(data), data);
    ok(csv_set_size(file, 40000));
    assert_int_equal(bench_check(&b).orphans, 1);
    ok(csv_close(file));
    assert_int_equal(bench_check(&b).orphans, 0);
    file = make_file(&b, "g");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_unlink(b.volume, csv_root(b.volume), "g", 1));
    ok(csv_sync(b.volume));
    csv_abandon(b.volume);
    assert_int_equal(b.memory.used, 0);
    ok(bench_mount(&b));
    csv_statfs(b.volume, &after);
    assert_int_equal(after.free_blocks, before.free_blocks);
    assert_int_equal(after.inodes, 1);
    bench_end(&b);
}

/*
 * One extent whose blocks have many counts: it is released in several operations, each of what it has room for. Of
 * two files, so that both what is still shared and what is not is released.
 */
static void test_release_in_parts(void **state)
{
    struct bench b;
    static uint8_t data[4 * MIB];
    struct csv_file *clone[2];
    struct csv_info before, after;
    uint64_t inode, root;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    csv_statfs(b.volume, &before);
    struct csv_file *file = make_file(&b, "f");
    for (uint64_t at = 0; at < 4 * MIB; at += sizeof(data))
        ok(csv_write(file, at, data, sizeof(data)));
    for (unsigned i = 0; i < 2; i++) {
        char name[] = { 'c', (char)('0' + i), 0 };
        ok(csv_clone(file, root, name, 2, &inode));
        ok(csv_open(b.volume, inode, &clone[i]));
    }
    for (uint64_t at = 0; at < 4 * MIB; at += 2 * 4096)
        ok(csv_punch(clone[0], at, 4096));
    for (uint64_t at = 0; at < 4 * MIB; at += 3 * 4096)
        ok(csv_punch(clone[1], at, 4096));
    bench_check(&b);
    ok(csv_close(file));
    unsigned limit = b.volume->transaction_limit;
    b.volume->transaction_limit = 30;
    ok(csv_unlink(b.volume, root, "f", 1));
    b.volume->transaction_limit = limit;
    bench_check(&b);
    for (unsigned i = 0; i < 2; i++) {
        char name[] = { 'c', (char)('0' + i), 0 };
        ok(csv_close(clone[i]));
        ok(csv_unlink(b.volume, root, name, 2));
        bench_check(&b);
    }
    csv_statfs(b.volume, &after);
    assert_int_equal(after.free_blocks, before.free_blocks);
    bench_end(&b);
}

static void test_full(void **state)
{
    struct bench b;
    struct csv_info info;
    static uint8_t data[MIB];
    uint64_t root, inode, files = 0;
    char name[16];
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    struct csv_file *file = make_file(&b, "f");
    enum status status = OK;
    for (uint64_t at_byte = 0; !status; at_byte += sizeof(data))
        status = csv_write(file, at_byte, data, sizeof(data));
    assert_int_equal(status, ERR_NO_SPACE);
    csv_statfs(b.volume, &info);
    assert_int_equal(info.free_blocks, 0);
    bench_check(&b);
    do {
        snprintf(name, sizeof(name), "%llu", (unsigned long long)files);
        status = create(&b, root, name, &inode);
        files += !status;
    } while (!status && files < 10000);
    assert_int_equal(status, ERR_NO_SPACE);
    bench_check(&b);
    assert_int_equal(csv_clone(file, root, "c", 1, &inode), ERR_NO_SPACE);
    bench_check(&b);
    /* A full volume can delete, and what was freed can be had at once. */
    ok(csv_unlink(b.volume, root, "0", 1));
    ok(csv_set_size(file, MIB));
    ok(csv_write(file, MIB, data, sizeof(data)));
    ok(csv_close(file));
    bench_remount(&b);
    bench_end(&b);
}

/* Ten thousand extents: the map agrees with the tree, and the file goes away in many transactions. */
static void test_many_extents(void **state)
{
    enum { COUNT = 4000 };
    struct bench b;
    struct csv_mapping m;
    struct csv_file *odd, *even;
    uint64_t clone, root;
    uint8_t block[4096];
    (void)state;
    bench_init(&b, 128 * MIB);
    root = csv_root(b.volume);
    even = make_file(&b, "even");
    odd = make_file(&b, "odd");
    ok(csv_map(even, 0, 1, &m));
    for (uint32_t i = 0; i < COUNT; i++) { /* neither can be one run */
        pattern(block, sizeof(block), i);
        ok(csv_write(even, i * 4096ull, block, sizeof(block)));
        ok(csv_write(odd, i * 8192ull, block, sizeof(block)));
    }
    assert_true(bench_check(&b).extents > COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t got[4096];
        uint32_t index = i * 2654435761u % COUNT;
        pattern(block, sizeof(block), index);
        ok(csv_map(odd, index * 8192ull + 512, 512, &m));
        assert_int_equal(m.kind, CSV_MAP_WRITTEN);
        fake_disk_peek(b.disk, m.disk_offset, got, 512);
        assert_memory_equal(got, block + 512, 512);
        ok(csv_map(even, index * 4096ull, 512, &m));
        fake_disk_peek(b.disk, m.disk_offset, got, 512);
        assert_memory_equal(got, block, 512);
    }
    ok(csv_clone(odd, root, "clone", 5, &clone));
    bench_check(&b);
    ok(csv_close(even));
    ok(csv_close(odd));
    ok(csv_unlink(b.volume, root, "odd", 3));
    bench_check(&b);
    ok(csv_unlink(b.volume, root, "even", 4));
    bench_remount(&b);
    even = open_file(&b, "clone");
    ok(csv_set_size(even, 8192 * 10));
    ok(csv_close(even));
    assert_int_equal(bench_check(&b).extents, 10);
    bench_end(&b);
}

static void test_grants(void **state)
{
    struct bench b;
    struct csv_mapping m;
    uint64_t first, blocks, again;
    static uint8_t data[MIB];
    (void)state;
    bench_init(&b, 256 * MIB);
    ok(csv_grant(b.volume, 3, 60 * MIB, &first, &blocks));
    ok(csv_grant(b.volume, 4, 60 * MIB, &again, &blocks));
    assert_true(again != first);
    assert_int_equal(csv_grant(b.volume, 64, MIB, &again, &blocks), ERR_INVALID);
    struct csv_file *file = make_file(&b, "f");
    for (uint64_t i = 0; i < 100; i++) {
        ok(csv_write(file, i * MIB, data, sizeof(data)));
        ok(csv_map(file, i * MIB, MIB, &m));
        assert_false(range_overlaps(m.disk_offset / 4096, m.bytes / 4096, first, blocks));
    }
    bench_check(&b);
    ok(csv_grant_end(b.volume, 3));
    ok(csv_grant(b.volume, 5, 60 * MIB, &again, &blocks));
    assert_int_equal(again, first);
    ok(csv_close(file));
    bench_remount(&b); /* an unmount takes all back */
    ok(csv_grant(b.volume, 6, 60 * MIB, &again, &blocks));
    bench_end(&b);
}

/* ---- What a mount refuses ---- */

static void test_owner(void **state)
{
    struct bench b;
    struct csv *second;
    char message[CSV_MESSAGE_BYTES];
    (void)state;
    bench_init(&b, SMALL);
    struct csv_mount_options options = bench_options();
    memcpy(options.owner_uuid, "beta's uuid is x", 16);
    options.owner_name = "beta";
    assert_int_equal(csv_mount(&b.disk->disk, &b.memory.memory, &options, &second, message), ERR_BUSY);
    assert_non_null(strstr(message, "node \"alpha\""));
    struct csv_file *file = make_file(&b, "f");
    ok(csv_close(file));
    ok(csv_sync(b.volume));
    csv_abandon(b.volume); /* alpha dies */
    options.read_only = true;
    ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, message));
    at(&b, "f");
    bench_check(&b);
    uint64_t writes = b.disk->writes;
    assert_int_equal(csv_unlink(b.volume, csv_root(b.volume), "f", 1), ERR_READ_ONLY);
    ok(csv_unmount(b.volume));
    assert_int_equal(b.disk->writes, writes);
    options.read_only = false;
    options.take_over = true;
    ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, message));
    at(&b, "f");
    bench_end(&b);
}

static void change_super(struct bench *b, unsigned offset, uint64_t value)
{
    /* A checksum that fits, as a newer version would write it. */
    uint8_t block[4096];
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t number = i == 0 ? 0 : i == 1 ? CSV_AT_SUPER_MIDDLE : SMALL / 4096 - 1;
        fake_disk_peek(b->disk, number * 4096, block, 4096);
        if (offset == CSV_SU_VERSION)
            le32_put(block + offset, (uint32_t)value);
        else
            le64_put(block + offset, value);
        le32_put(block + CSV_H_CRC, csv_checksum(crc32c(0, block + CSV_SU_UUID, 16), number, block));
        fake_disk_poke(b->disk, number * 4096, block, 4096);
    }
}

static void test_refusals(void **state)
{
    struct bench b;
    (void)state;
    bench_format(&b, SMALL);
    change_super(&b, CSV_SU_VERSION, 2);
    assert_int_equal(bench_mount(&b), ERR_VERSION);
    change_super(&b, CSV_SU_VERSION, 1);
    change_super(&b, CSV_SU_REFUSE, 4);
    assert_int_equal(bench_mount(&b), ERR_UNSUPPORTED);
    change_super(&b, CSV_SU_REFUSE, 0);
    change_super(&b, CSV_SU_READ_ONLY, 4);
    assert_int_equal(bench_mount(&b), ERR_UNSUPPORTED);
    struct csv_mount_options options = bench_options();
    options.read_only = true;
    ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message));
    ok(csv_unmount(b.volume));
    change_super(&b, CSV_SU_READ_ONLY, 0);
    change_super(&b, CSV_SU_IGNORE, 4);
    ok(bench_mount(&b));
    ok(csv_unmount(b.volume));
    b.disk->disk.bytes = 40 * MIB; /* the LUN was cut */
    assert_int_equal(bench_mount(&b), ERR_RANGE);
    b.disk->disk.bytes = SMALL;
    assert_true(b.message[0]);
    fake_disk_free(b.disk);
    b.disk = fake_disk_new(SMALL);
    assert_int_equal(bench_mount(&b), ERR_NOT_FOUND);
    assert_int_equal(b.memory.used, 0);
    fake_disk_free(b.disk);
}

/* Any one or two superblocks may be lost; the mount brings them back. */
static void test_superblocks(void **state)
{
    static const uint64_t place[3] = { 0, CSV_AT_SUPER_MIDDLE, SMALL / 4096 - 1 };
    (void)state;
    for (unsigned lost = 1; lost < 7; lost++) {
        struct bench b;
        uint8_t junk[4096] = { 1 };
        bench_format(&b, SMALL);
        for (unsigned i = 0; i < 3; i++)
            if (lost >> i & 1)
                fake_disk_poke(b.disk, place[i] * 4096, junk, 4096);
        ok(bench_mount(&b));
        bench_end(&b);
    }
}

/* An operation that runs out of memory at any allocation, or meets an error at any access, leaves a sound volume. */
static void test_memory_runs_out(void **state)
{
    struct bench b;
    static uint8_t data[40 * 4096];
    uint64_t root, inode;
    char name[32];
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    struct csv_file *file = make_file(&b, "f");
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_clone(file, root, "old", 3, &inode));
    unsigned failed[5] = { 0 };
    for (unsigned kind = 0; kind < 5; kind++)
        for (long n = 0;; n++) {
            enum status status = ERR_INVALID;
            snprintf(name, sizeof(name), "new%u", kind);
            b.memory.fail_after = n;
            switch (kind) {
            case 0: status = csv_write(file, 4096, data, 5 * 4096 + 100); break;
            case 1: status = csv_clone(file, root, name, 4, &inode); break;
            case 2: status = csv_rename(b.volume, root, "f", 1, root, "old", 3); break;
            case 3: status = csv_punch(file, 100, 10 * 4096); break;
            case 4: status = csv_set_size(file, 5000); break;
            }
            b.memory.fail_after = -1;
            bench_check(&b);
            if (!status)
                break;
            assert_int_equal(status, ERR_NO_MEMORY);
            failed[kind]++;
        }
    for (unsigned kind = 0; kind < 5; kind++)
        assert_true(failed[kind]);
    ok(csv_close(file));
    bench_end(&b);
}

static void test_disk_fails(void **state)
{
    static uint8_t data[20 * 4096];
    (void)state;
    bool done = false;
    for (long n = 0; !done; n++) {
        struct bench b;
        uint64_t inode;
        bench_init(&b, SMALL);
        struct csv_file *file = make_file(&b, "f");
        ok(csv_sync(b.volume));
        b.disk->fail_after = n;
        enum status status = csv_write(file, 100, data, sizeof(data));
        if (!status)
            status = csv_sync(b.volume);
        if (!status)
            status = create(&b, csv_root(b.volume), "g", &inode);
        if (!status)
            status = csv_sync(b.volume);
        done = !status;
        b.disk->fail_after = -1;
        csv_abandon(b.volume);
        assert_int_equal(b.memory.used, 0);
        ok(bench_mount(&b));
        bench_end(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rename),
        cmocka_unit_test(test_large_directory),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_punch_and_preallocate),
        cmocka_unit_test(test_clones),
        cmocka_unit_test(test_unlinked_while_open),
        cmocka_unit_test(test_release_in_parts), cmocka_unit_test(test_full),
        cmocka_unit_test(test_many_extents),
        cmocka_unit_test(test_grants),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_superblocks),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_disk_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
