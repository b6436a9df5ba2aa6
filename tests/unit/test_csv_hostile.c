/* SPDX-License-Identifier: MIT */
/*
 * Volumes that somebody wrote on purpose: every checksum is right, and something else is a lie. Whatever it is, the
 * memory of the program and the disk beyond the volume stay untouched, the answer is an error with a reason, and fsck
 * says what is wrong. (tests/fuzz/fuzz_csv.c tries at random; here stand the lies that chance does not find.)
 */
#include "csv/tree.h"
#include "csv_fixture.h"

#define SMALL (64 * MIB)
#define BLOCK 4096ull

static unsigned said;
static char first_said[CSV_MESSAGE_BYTES];

static void hear(void *context, const char *text)
{
    (void)context;
    if (!said++)
        snprintf(first_said, sizeof(first_said), "%s", text);
}

/* fsck must find something, and says this. */
static void expect_problem(struct bench *b, const char *words)
{
    struct csv_check check = { .report = hear };
    said = 0;
    ok(csv_check(b->volume, &check));
    assert_true(said > 0);
    if (!strstr(first_said, words))
        print_error("fsck: %s\n", first_said);
    assert_non_null(strstr(first_said, words));
}

static void peek(struct bench *b, uint64_t number, uint8_t *block)
{
    fake_disk_peek(b->disk, number * BLOCK, block, BLOCK);
}

/* ---- The log ---- */

/* Where mkfs puts the journal of a small volume, and its ring. */
static uint64_t log_place(uint64_t position)
{
    return 2080 + position % 1024;
}

/* Transaction number `t` at `position` of the journal, with one image; the checksums as they should be, or not. */
static void forge(struct bench *b, uint64_t position, uint64_t t, uint64_t home, uint8_t *image, bool image_crc,
                  bool commit_crc)
{
    uint8_t block[3][BLOCK] = { { 0 }, { 0 }, { 0 } };
    uint32_t seed = crc32c(0, (const uint8_t *)"a volume's uuid", 16);
    le64_put(image + CSV_H_NUMBER, home);
    le32_put(image + CSV_H_CRC, csv_checksum(seed, home, image));
    memcpy(block[1], image, BLOCK);
    le32_put(block[0], CSV_DESCRIPTOR);
    le64_put(block[0] + CSV_H_SEQUENCE, t);
    le32_put(block[0] + CSV_J_COUNT, 1);
    le64_put(block[0] + CSV_J_LIST, home);
    le32_put(block[0] + CSV_J_LIST + 8, crc32c(0, image, BLOCK) ^ !image_crc);
    bench_seal(b, log_place(position), block[0]);
    fake_disk_poke(b->disk, log_place(position + 1) * BLOCK, block[1], BLOCK);
    le32_put(block[2], CSV_COMMIT);
    le64_put(block[2] + CSV_H_SEQUENCE, t);
    le32_put(block[2] + CSV_JC_BLOCKS, 3);
    le32_put(block[2] + CSV_JC_CRC, crc32c(0, block[0], 2 * BLOCK) ^ !commit_crc);
    le64_put(block[2] + CSV_JC_GENERATION, 1);
    bench_seal(b, log_place(position + 2), block[2]);
}

/* A volume that was unmounted, and where its log would go on. */
static void format_used(struct bench *b, uint64_t *position, uint64_t *number)
{
    uint64_t inode;
    bench_init(b, SMALL);
    ok(create(b, csv_root(b->volume), "f", &inode));
    ok(csv_sync(b->volume));
    *position = b->volume->head;
    *number = b->volume->number;
    ok(csv_unmount(b->volume));
}

/* A transaction is taken only if each image's checksum and that of the whole agree; each counts by itself. */
static void test_log_checksums(void **state)
{
    (void)state;
    for (unsigned good = 0; good < 4; good++) {
        struct bench b;
        uint64_t position, number;
        uint8_t image[BLOCK];
        format_used(&b, &position, &number);
        peek(&b, CSV_AT_ROOT, image);
        le64_put(image + CSV_RT_GENERATION, 7777);
        forge(&b, position, number, CSV_AT_ROOT, image, good & 1, good & 2);
        ok(bench_mount(&b));
        assert_int_equal(b.volume->replayed, good == 3);
        struct csv_block *root;
        ok(csv_root_block(b.volume, &root));
        assert_int_equal(le64_get(root->bytes + CSV_RT_GENERATION) == 7777, good == 3);
        ok(csv_unmount(b.volume));
        fake_disk_free(b.disk);
    }
}

/* An image whose home is beyond the volume, or a group that the volume does not have. */
static void test_log_beyond(void **state)
{
    static const uint32_t group[] = { 1, 15, 16, 40, 1u << 20, UINT32_MAX };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(group); i++) {
        struct bench b;
        uint64_t position, number;
        uint8_t image[BLOCK];
        format_used(&b, &position, &number);
        peek(&b, 1, image);
        le32_put(image + CSV_GR_NUMBER, group[i]);
        forge(&b, position, number, csv_group_block(group[i]), image, true, true);
        assert_int_equal(bench_mount(&b), ERR_CORRUPT);
        assert_non_null(strstr(b.message, "journal"));
        assert_int_equal(b.memory.used, 0);
        fake_disk_free(b.disk);
    }
}

static struct csv_disk changing;
static struct fake_csv_disk *behind;
static uint64_t changing_block;
static unsigned changing_reads;

static enum status read_changing(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    (void)disk;
    enum status status = behind->disk.read(&behind->disk, offset, bytes, count);
    uint64_t at_byte = changing_block * BLOCK;
    if (!status && at_byte >= offset && at_byte - offset < count && changing_reads++)
        ((uint8_t *)bytes)[at_byte - offset] ^= 1;
    return status;
}

/* A log that is another one when it is read again: half of it is not taken for all of it. */
static void test_log_changes(void **state)
{
    (void)state;
    for (unsigned block = 0; block < 3; block++) {
        struct bench b;
        uint64_t position, number;
        uint8_t image[BLOCK];
        struct csv_mount_options options = bench_options();
        format_used(&b, &position, &number);
        position = 1022; /* over the ring's end, so that no one read has all of it */
        for (unsigned i = 0; i < 2; i++) {
            peek(&b, CSV_AT_JOURNAL_HEAD + i, image);
            le64_put(image + CSV_JH_TAIL, position);
            le64_put(image + CSV_JH_NUMBER, number);
            bench_seal(&b, CSV_AT_JOURNAL_HEAD + i, image);
        }
        peek(&b, CSV_AT_ROOT, image);
        forge(&b, position, number, CSV_AT_ROOT, image, true, true);
        behind = b.disk;
        changing = b.disk->disk;
        changing.context = b.disk;
        changing.read = read_changing;
        changing_block = log_place(position + block);
        changing_reads = 0;
        options.read_only = true;
        enum status status = csv_mount(&changing, &b.memory.memory, &options, &b.volume, b.message);
        if (!status) { /* it was read once only */
            assert_int_equal(b.volume->replayed, 1);
            assert_true(changing_reads <= 1);
            ok(csv_unmount(b.volume));
        }
        fake_disk_free(b.disk);
    }
}

/* ---- Numbers at their end ---- */

static void test_last_sequences(void **state)
{
    static const uint64_t block[] = { CSV_AT_JOURNAL_HEAD, CSV_AT_JOURNAL_HEAD + 1, CSV_AT_MOUNT_RECORD,
                                      CSV_AT_MOUNT_RECORD + 1 };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(block); i++) { /* the other copy counts */
        struct bench b;
        struct csv_mount_options options = bench_options();
        uint8_t bytes[BLOCK];
        uint64_t inode;
        bench_format(&b, SMALL);
        peek(&b, block[i], bytes);
        le64_put(bytes + CSV_H_SEQUENCE, UINT64_MAX);
        bench_seal(&b, block[i], bytes);
        ok(bench_mount(&b));
        for (unsigned n = 0; n < 200; n++) { /* once round the ring */
            ok(create(&b, csv_root(b.volume), "a", &inode));
            ok(csv_sync(b.volume));
            ok(csv_unlink(b.volume, csv_root(b.volume), "a", 1));
            ok(csv_sync(b.volume));
        }
        csv_abandon(b.volume);
        options.owner_uuid[0] ^= 1;
        assert_int_equal(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message), ERR_BUSY);
        ok(bench_mount(&b));
        bench_end(&b);
    }
}

/* ---- Text ---- */

static void test_text(void **state)
{
    static const uint64_t place[3] = { 0, CSV_AT_SUPER_MIDDLE, SMALL / BLOCK - 1 };
    struct bench b;
    struct csv_info info;
    uint8_t bytes[BLOCK];
    (void)state;
    bench_init(&b, SMALL);
    csv_abandon(b.volume);
    for (unsigned i = 0; i < 3; i++) {
        peek(&b, place[i], bytes);
        memcpy(bytes + CSV_SU_LABEL, "a\x1b[2J\xffz", 8);
        bench_seal(&b, place[i], bytes);
    }
    for (unsigned i = 0; i < 2; i++) {
        peek(&b, CSV_AT_MOUNT_RECORD + i, bytes);
        memcpy(bytes + CSV_MR_NAME, "b\x1b[2J\nz", 8);
        bench_seal(&b, CSV_AT_MOUNT_RECORD + i, bytes);
    }
    struct csv_mount_options options = bench_options();
    options.owner_uuid[0] ^= 1;
    assert_int_equal(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message), ERR_BUSY);
    assert_non_null(strstr(b.message, "b?[2J?z"));
    ok(bench_mount(&b));
    csv_statfs(b.volume, &info);
    assert_string_equal(info.label, "a?[2J?z");
    bench_end(&b);
}

/* ---- Superblocks ---- */

/* One that cannot be read does not take the others with it; one of another volume does not count. */
static uint64_t unreadable;

static enum status read_but_one(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    (void)disk;
    if (offset == unreadable * BLOCK && count == BLOCK)
        return ERR_IO;
    return behind->disk.read(&behind->disk, offset, bytes, count);
}

static void test_unreadable_super(void **state)
{
    static const uint64_t place[3] = { 0, CSV_AT_SUPER_MIDDLE, SMALL / BLOCK - 1 };
    struct csv_mount_options options = bench_options();
    (void)state;
    options.read_only = true;
    for (unsigned i = 0; i < 3; i++) {
        struct bench b;
        bench_format(&b, SMALL);
        behind = b.disk;
        changing = b.disk->disk;
        changing.read = read_but_one;
        unreadable = place[i];
        ok(csv_mount(&changing, &b.memory.memory, &options, &b.volume, b.message));
        expect_problem(&b, "superblocks");
        ok(csv_unmount(b.volume));
        fake_disk_free(b.disk);
    }
}

static void test_foreign_super(void **state)
{
    struct bench b;
    struct csv_mkfs_options other = { .uuid = "another's uuid.", .label = "" };
    uint8_t bytes[BLOCK];
    (void)state;
    bench_format(&b, SMALL);
    ok(csv_mkfs(&b.disk->disk, &b.memory.memory, &other));
    peek(&b, CSV_AT_SUPER_MIDDLE, bytes);
    fake_disk_free(b.disk);
    bench_format(&b, SMALL);
    fake_disk_poke(b.disk, CSV_AT_SUPER_MIDDLE * BLOCK, bytes, BLOCK);
    ok(bench_mount(&b));
    bench_end(&b);
}

static void test_sectors(void **state)
{
    struct bench b;
    (void)state;
    bench_format(&b, SMALL);
    b.disk->disk.sector_bytes = 8192;
    assert_int_equal(bench_mount(&b), ERR_UNSUPPORTED);
    assert_non_null(strstr(b.message, "8192"));
    fake_disk_free(b.disk);
}

/* ---- Trees ---- */

static uint64_t directory_with(struct bench *b, unsigned names)
{
    uint64_t directory, inode;
    char name[CSV_NAME_BYTES + 1];
    bench_init(b, SMALL);
    ok(csv_mkdir(b->volume, csv_root(b->volume), "d", 1, 0755, &directory));
    for (unsigned i = 0; i < names; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        ok(create(b, directory, name, &inode));
    }
    return directory;
}

/* A node that has the same child twice: nothing joins it with itself. */
static void test_child_twice(void **state)
{
    struct bench b;
    uint8_t inode[BLOCK], child[BLOCK] = { 0 }, value[8];
    uint64_t directory = directory_with(&b, 3), place = SMALL / BLOCK - 100;
    char name[CSV_NAME_BYTES + 1];
    (void)state;
    ok(csv_unmount(b.volume));
    peek(&b, directory, inode);
    uint8_t *root = inode + CSV_IN_NODE;
    uint64_t low = csv_node_key(root, 0), high = csv_node_key(root, 2);
    csv_node_init(child + CSV_H_BYTES, CSV_NODE_BYTES, 0);
    csv_node_move(root, 0, child + CSV_H_BYTES);
    csv_node_init(root, CSV_IN_NODE_BYTES, 1);
    le64_put(value, place);
    csv_node_insert(root, 0, low, value, 8);
    csv_node_insert(root, 1, high + 1, value, 8);
    le32_put(child, CSV_DIRECTORY);
    le64_put(child + CSV_H_OWNER, directory);
    bench_seal(&b, place, child);
    bench_seal(&b, directory, inode);
    ok(bench_mount(&b));
    expect_problem(&b, "");
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        assert_int_equal(csv_unlink(b.volume, directory, name, strlen(name)), ERR_CORRUPT);
    }
    csv_abandon(b.volume);
    assert_int_equal(b.memory.used, 0);
    fake_disk_free(b.disk);
}

/* A bitmap that offers blocks in use as free ones: none of them is taken from under the operation. */
static void test_free_but_used(void **state)
{
    (void)state;
    for (unsigned names = 10; names < 40; names++) {
        struct bench b;
        uint8_t bytes[BLOCK];
        char name[CSV_NAME_BYTES + 1];
        uint64_t inode, directory = directory_with(&b, names), root = csv_root(b.volume);
        for (unsigned i = 0; i < 30; i++) {
            snprintf(name, sizeof(name), "%0201u", i);
            ok(create(&b, root, name, &inode));
        }
        ok(csv_unmount(b.volume));
        peek(&b, 1, bytes);
        for (uint64_t i = root + 1; i < root + 200; i++)
            bytes[CSV_GR_BITMAP + i / 8] &= (uint8_t)~(1u << i % 8);
        bytes[CSV_GR_BITMAP + directory / 8] |= (uint8_t)(1u << directory % 8);
        bench_seal(&b, 1, bytes);
        ok(bench_mount(&b));
        for (unsigned i = 0; i < 30; i++) { /* the directory grows; no inode is made */
            snprintf(name, sizeof(name), "%0201u", i);
            (void)!csv_rename(b.volume, root, name, strlen(name), directory, name, strlen(name));
            snprintf(name, sizeof(name), "%0200u", i);
            (void)!csv_rename(b.volume, directory, name, strlen(name), root, name, strlen(name));
        }
        csv_abandon(b.volume);
        assert_int_equal(b.memory.used, 0);
        fake_disk_free(b.disk);
    }
}

/* Directories that are each other's parents, far from the root: a move into one of them ends. */
static void test_parents_in_a_circle(void **state)
{
    struct bench b;
    uint64_t a, c, d, root;
    uint8_t bytes[BLOCK];
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    ok(csv_mkdir(b.volume, root, "a", 1, 0755, &a));
    ok(csv_mkdir(b.volume, a, "c", 1, 0755, &c));
    ok(csv_mkdir(b.volume, root, "d", 1, 0755, &d));
    ok(csv_unmount(b.volume));
    peek(&b, a, bytes);
    le64_put(bytes + CSV_IN_PARENT, c);
    bench_seal(&b, a, bytes);
    ok(bench_mount(&b));
    uint64_t recent = b.volume->operation;
    assert_int_equal(csv_rename(b.volume, root, "d", 1, c, "d", 1), ERR_CORRUPT);
    assert_true(b.volume->operation == recent + 1);
    expect_problem(&b, "another parent");
    csv_abandon(b.volume);
    fake_disk_free(b.disk);
}

/* Extents of one file that overlap never give a mapping outside of the file's own blocks. */
static void test_overlapping_extents(void **state)
{
    struct bench b;
    struct csv_mapping m;
    static uint8_t data[100 * 4096];
    uint8_t bytes[BLOCK], value[CSV_EXTENT_VALUE_BYTES];
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *file = make_file(&b, "f");
    uint64_t inode = csv_inode_of(file);
    ok(csv_write(file, 0, data, sizeof(data)));
    ok(csv_map(file, 0, 1, &m));
    uint64_t disk = m.disk_offset / BLOCK;
    ok(csv_close(file));
    ok(csv_unmount(b.volume));
    peek(&b, inode, bytes);
    le64_put(value, disk + 1000);
    le32_put(value + 8, 10);
    csv_node_insert(bytes + CSV_IN_NODE, 1, 50, value, sizeof(value));
    bench_seal(&b, inode, bytes);
    peek(&b, 1, bytes); /* the blocks are in use, so that they can be freed */
    for (uint64_t i = disk + 1000; i < disk + 1010; i++)
        bytes[CSV_GR_BITMAP + i / 8] |= (uint8_t)(1u << i % 8);
    bench_seal(&b, 1, bytes);
    ok(bench_mount(&b));
    file = open_file(&b, "f");
    (void)!csv_map(file, 0, 1, &m);
    (void)!csv_punch(file, 40 * BLOCK, 30 * BLOCK);
    (void)!csv_punch(file, 50 * BLOCK, 10 * BLOCK);
    for (uint64_t at_byte = 0; at_byte < sizeof(data) && !csv_map(file, at_byte, BLOCK, &m); at_byte += BLOCK)
        assert_true(m.kind == CSV_MAP_HOLE || at_byte < 40 * BLOCK || at_byte >= 70 * BLOCK);
    ok(csv_close(file));
    csv_abandon(b.volume);
    fake_disk_free(b.disk);
}

/* ---- Directories and orphans ---- */

static void test_entry_type(void **state)
{
    struct bench b;
    struct csv_entry entry;
    uint8_t bytes[BLOCK];
    uint64_t cursor = 0, directory = directory_with(&b, 1);
    (void)state;
    ok(csv_unmount(b.volume));
    peek(&b, directory, bytes);
    csv_node_value(bytes + CSV_IN_NODE, 0, NULL)[8] = 7;
    bench_seal(&b, directory, bytes);
    ok(bench_mount(&b));
    assert_int_equal(csv_readdir(b.volume, directory, &cursor, &entry), ERR_CORRUPT);
    expect_problem(&b, "unknown type");
    ok(csv_unmount(b.volume));
    fake_disk_free(b.disk);
}

static void test_name_twice(void **state)
{
    struct bench b;
    struct csv_block *block;
    struct csv_record record;
    uint64_t inode, root;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    ok(create(&b, root, "a", &inode));
    ok(create(&b, root, "b", &inode));
    ok(csv_begin(b.volume));
    ok(csv_inode_get(b.volume, root, CSV_IS_DIRECTORY, &block));
    struct csv_tree tree = csv_inode_tree(b.volume, block);
    uint64_t a = csv_name_hash(b.volume->hash_key, "a", 1) & ~UINT64_C(255);
    uint64_t other = csv_name_hash(b.volume->hash_key, "b", 1) & ~UINT64_C(255);
    ok(csv_tree_from(&tree, other, &record));
    assert_int_equal(record.key, other);
    record.value[CSV_ENTRY_FIXED_BYTES] = 'a';
    ok(csv_tree_remove(&tree, other));
    ok(csv_tree_insert(&tree, a + 1, record.value, record.bytes));
    ok(csv_end(b.volume, OK));
    expect_problem(&b, "twice");
    ok(csv_unmount(b.volume));
    fake_disk_free(b.disk);
}

/* Names of one hash, which nobody can prepare: the entries are put where those of another name would be. */
static void test_collisions(void **state)
{
    struct bench b;
    struct csv_block *block;
    struct csv_entry entry;
    uint64_t inode[CSV_HASH_SLOTS], root, made, cursor = 0;
    uint8_t value[CSV_VALUE_BYTES];
    unsigned listed = 0;
    (void)state;
    bench_init(&b, SMALL);
    root = csv_root(b.volume);
    uint64_t base = csv_name_hash(b.volume->hash_key, "a", 1) & ~UINT64_C(255);
    for (unsigned i = 0; i < CSV_HASH_SLOTS; i++) { /* all but one place are taken */
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        if (i == 100)
            continue;
        ok(csv_begin(b.volume));
        ok(csv_inode_new(b.volume, CSV_IS_FILE, 0, 0644, &block));
        inode[i] = block->number;
        le32_put(block->bytes + CSV_IN_LINKS, 1);
        ok(csv_inode_get(b.volume, root, CSV_IS_DIRECTORY, &block));
        ok(csv_block_change(b.volume, block));
        le64_put(block->bytes + CSV_IN_SIZE, le64_get(block->bytes + CSV_IN_SIZE) + 1);
        struct csv_tree tree = csv_inode_tree(b.volume, block);
        le64_put(value, inode[i]);
        value[8] = CSV_IS_FILE;
        memcpy(value + CSV_ENTRY_FIXED_BYTES, name, strlen(name));
        ok(csv_tree_insert(&tree, base + i, value, (unsigned)(CSV_ENTRY_FIXED_BYTES + strlen(name))));
        ok(csv_end(b.volume, OK));
    }
    assert_int_equal(csv_lookup(b.volume, root, "a", 1, &entry), ERR_NOT_FOUND);
    ok(create(&b, root, "a", &made));
    ok(csv_lookup(b.volume, root, "a", 1, &entry));
    assert_int_equal(entry.inode, made);
    uint64_t key;
    ok(csv_entry_find(b.volume, root, "a", 1, &entry, &key));
    assert_int_equal(key, base + 100);
    ok(csv_unlink(b.volume, root, "a", 1));
    ok(csv_begin(b.volume));
    ok(csv_inode_get(b.volume, root, CSV_IS_DIRECTORY, &block));
    ok(csv_block_change(b.volume, block));
    struct csv_tree tree = csv_inode_tree(b.volume, block);
    ok(csv_tree_insert(&tree, base + 100, value, CSV_ENTRY_FIXED_BYTES + 4));
    ok(csv_end(b.volume, OK));
    assert_int_equal(create(&b, root, "a", &made), ERR_NO_SPACE); /* no place is left */
    while (csv_readdir(b.volume, root, &cursor, &entry) == OK)
        listed++;
    assert_int_equal(listed, CSV_HASH_SLOTS);
    csv_abandon(b.volume);
    fake_disk_free(b.disk);
}

static void test_orphan_records(void **state)
{
    struct bench b;
    uint64_t directory, inode;
    struct csv_block *block;
    (void)state;
    bench_init(&b, SMALL);
    ok(csv_mkdir(b.volume, csv_root(b.volume), "d", 1, 0755, &directory));
    ok(csv_begin(b.volume));
    ok(csv_orphan_add(b.volume, directory, CSV_ORPHAN_TRUNCATE));
    ok(csv_end(b.volume, OK));
    expect_problem(&b, "orphan record");
    csv_abandon(b.volume);
    fake_disk_free(b.disk);
    bench_init(&b, SMALL);
    ok(create(&b, csv_root(b.volume), "f", &inode));
    ok(csv_begin(b.volume));
    ok(csv_inode_get(b.volume, inode, 0, &block));
    ok(csv_block_change(b.volume, block));
    le64_put(block->bytes + CSV_IN_GENERATION, 1000);
    ok(csv_end(b.volume, OK));
    expect_problem(&b, "generation");
    csv_abandon(b.volume);
    fake_disk_free(b.disk);
}

/* A damaged orphan is one lost file, not a volume that cannot be mounted. */
static void test_damaged_orphan(void **state)
{
    struct bench b;
    uint8_t junk[BLOCK] = { 1 };
    (void)state;
    bench_init(&b, SMALL);
    struct csv_file *bad = make_file(&b, "bad"), *good = make_file(&b, "good");
    uint64_t inode = csv_inode_of(bad);
    static uint8_t data[20 * 4096];
    ok(csv_write(good, 0, data, sizeof(data)));
    ok(csv_unlink(b.volume, csv_root(b.volume), "bad", 3));
    ok(csv_unlink(b.volume, csv_root(b.volume), "good", 4));
    ok(csv_sync(b.volume));
    ok(csv_checkpoint(b.volume));
    csv_abandon(b.volume);
    fake_disk_poke(b.disk, inode * BLOCK, junk, sizeof(junk));
    ok(bench_mount(&b));
    struct csv_check check = { .report = hear };
    ok(csv_check(b.volume, &check));
    assert_int_equal(check.orphans, 1); /* the other one is gone */
    ok(create(&b, csv_root(b.volume), "f", &inode));
    ok(csv_sync(b.volume));
    expect_problem(&b, "checksum");
    ok(csv_unmount(b.volume));
    fake_disk_free(b.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_checksums),    cmocka_unit_test(test_log_beyond),
        cmocka_unit_test(test_log_changes),      cmocka_unit_test(test_last_sequences),
        cmocka_unit_test(test_text),             cmocka_unit_test(test_unreadable_super),
        cmocka_unit_test(test_foreign_super),    cmocka_unit_test(test_sectors),
        cmocka_unit_test(test_child_twice),      cmocka_unit_test(test_free_but_used),
        cmocka_unit_test(test_parents_in_a_circle), cmocka_unit_test(test_overlapping_extents),
        cmocka_unit_test(test_entry_type),       cmocka_unit_test(test_name_twice),
        cmocka_unit_test(test_orphan_records),   cmocka_unit_test(test_damaged_orphan),
        cmocka_unit_test(test_collisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
