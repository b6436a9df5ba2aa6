/* SPDX-License-Identifier: MIT */
/*
 * Volumes of 4 and 64 TiB: the last block can be used, no number is too small for its place, and what is done to a few
 * files takes a few reads, not one for each of a million groups. The disk keeps what is written, but for the blocks of
 * groups that are as mkfs made them: those it makes again when they are read.
 */
#include "csv_fixture.h"

#define TIB (1024 * GIB)
#define BLOCK 4096ull
#define BUCKETS 65536u

struct page {
    struct page *next;
    uint64_t number;
    uint8_t bytes[BLOCK];
};

struct vast {
    struct csv_disk disk;
    struct csv like; /* what csv_group_make() needs */
    struct page *bucket[BUCKETS];
    bool making; /* mkfs is under way */
    uint64_t reads;
};

static struct page **find(struct vast *d, uint64_t number)
{
    struct page **at = &d->bucket[number * 0x9e3779b97f4a7c15 >> 48];
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

/* The group of a block that is as mkfs leaves it, if it is not one of the first or last regions. */
static bool is_plain_group(const struct vast *d, uint64_t number, uint64_t *group)
{
    uint64_t region = number / CSV_REGION_BLOCKS, within = number % CSV_REGION_BLOCKS;
    *group = region * CSV_REGION_GROUPS + within - 1;
    return region > 1 && region + 2 < d->disk.bytes / BLOCK / CSV_REGION_BLOCKS && within >= 1 &&
           within <= CSV_REGION_GROUPS;
}

static enum status vast_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    struct vast *d = disk->context;
    uint8_t *to = bytes;
    assert_true(range_within(offset, count, disk->bytes) && !(offset % BLOCK) && !(count % BLOCK));
    d->reads++;
    for (uint64_t i = 0; i < count / BLOCK; i++, to += BLOCK) {
        uint64_t group, number = offset / BLOCK + i;
        struct page *page = *find(d, number);
        if (page)
            memcpy(to, page->bytes, BLOCK);
        else if (is_plain_group(d, number, &group))
            (void)csv_group_make(&d->like, group, to);
        else
            memset(to, 0, BLOCK);
    }
    return OK;
}

static enum status vast_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    struct vast *d = disk->context;
    (void)fua;
    assert_true(range_within(offset, count, disk->bytes) && !(offset % BLOCK) && !(count % BLOCK));
    for (uint64_t i = 0; i < count / BLOCK; i++) {
        uint64_t group, number = offset / BLOCK + i;
        if (d->making && is_plain_group(d, number, &group))
            continue;
        struct page **at = find(d, number);
        if (!*at) {
            *at = calloc(1, sizeof(**at));
            (*at)->number = number;
        }
        memcpy((*at)->bytes, (const uint8_t *)bytes + i * BLOCK, BLOCK);
    }
    return OK;
}

static enum status vast_flush(struct csv_disk *disk)
{
    (void)disk;
    return OK;
}

static enum status vast_zeroes(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    (void)disk;
    (void)offset;
    (void)count; /* mkfs, on zeros */
    return OK;
}

static struct vast *vast_new(uint64_t bytes, struct fake_memory *memory)
{
    struct csv_mkfs_options options = { .uuid = "a volume's uuid", .hash_key = "0123456789abcde", .label = "vast" };
    struct vast *d = calloc(1, sizeof(*d));
    crc32c_use_hardware(__builtin_cpu_supports("sse4.2"));
    fake_memory_init(memory);
    d->disk = (struct csv_disk){ .bytes = bytes, .sector_bytes = 4096, .context = d, .read = vast_read,
                                 .write = vast_write, .flush = vast_flush, .write_zeroes = vast_zeroes };
    d->making = true;
    ok(csv_mkfs(&d->disk, &memory->memory, &options));
    d->making = false;
    d->like.blocks = bytes / BLOCK;
    d->like.journal = 20000; /* anywhere in the first region */
    d->like.database = 20000;
    d->like.crc_seed = crc32c(0, options.uuid, 16);
    return d;
}

static void vast_free(struct vast *d)
{
    for (size_t i = 0; i < BUCKETS; i++)
        while (d->bucket[i]) {
            struct page *page = d->bucket[i];
            d->bucket[i] = page->next;
            free(page);
        }
    free(d);
}

static enum status vast_mount(struct vast *d, struct fake_memory *memory, struct csv **v)
{
    struct csv_mount_options options = bench_options();
    char message[CSV_MESSAGE_BYTES];
    return csv_mount(&d->disk, &memory->memory, &options, v, message);
}

/* Writes where the volume ends, and reads it again after a remount. */
static void use_the_end(struct vast *d, struct fake_memory *memory)
{
    static uint8_t data[MIB], got[MIB];
    struct csv *v;
    struct csv_mapping m;
    struct csv_file *file;
    struct csv_info info;
    uint64_t inode, a, c, done;
    ok(vast_mount(d, memory, &v));
    csv_statfs(v, &info);
    assert_int_equal(info.blocks, d->disk.bytes / BLOCK);
    assert_true(info.free_blocks > info.blocks / 1000 * 998);
    ok(csv_create(v, csv_root(v), "f", 1, 0644, &inode));
    ok(csv_open(v, inode, &file));
    pattern(data, sizeof(data), 1);
    v->data_goal = v->blocks - 1 - MIB / BLOCK; /* the very last blocks that can be had */
    ok(csv_write(file, CSV_FILE_BYTES - MIB, data, MIB));
    ok(csv_map(file, CSV_FILE_BYTES - MIB, MIB, &m));
    assert_int_equal(m.kind, CSV_MAP_WRITTEN);
    assert_int_equal(m.bytes, MIB);
    assert_int_equal(m.disk_offset, d->disk.bytes - BLOCK - MIB);
    ok(csv_write(file, 0, data, 100)); /* and from the beginning again */
    ok(csv_map(file, 0, 1, &m));
    assert_true(m.kind == CSV_MAP_WRITTEN && m.disk_offset < d->disk.bytes - MIB);
    ok(csv_preallocate(file, GIB, 200 * GIB));
    ok(csv_converted(file, 100 * GIB, 3 * GIB));
    ok(csv_clone(file, csv_root(v), "clone", 5, &inode));
    ok(csv_punch(file, 50 * GIB, 100 * GIB));
    ok(csv_mkdir(v, csv_root(v), "a", 1, 0755, &a));
    ok(csv_mkdir(v, a, "c", 1, 0755, &c));
    ok(csv_close(file));
    ok(csv_unmount(v));
    assert_int_equal(memory->used, 0);
    d->reads = 0;
    ok(vast_mount(d, memory, &v));
    assert_true(d->reads < 40);
    ok(csv_walk(v, "clone", &inode));
    ok(csv_open(v, inode, &file));
    ok(csv_read(file, CSV_FILE_BYTES - MIB, got, MIB, &done));
    assert_int_equal(done, MIB);
    assert_memory_equal(got, data, MIB);
    ok(csv_close(file));
    /* Directories in a circle: the way up ends, though there are 2^34 blocks. */
    struct csv_block *block;
    ok(csv_begin(v));
    ok(csv_inode_get(v, a, CSV_IS_DIRECTORY, &block));
    ok(csv_block_change(v, block));
    le64_put(block->bytes + CSV_IN_PARENT, c);
    ok(csv_end(v, OK));
    ok(csv_mkdir(v, csv_root(v), "d", 1, 0755, &inode));
    assert_int_equal(csv_rename(v, csv_root(v), "d", 1, c, "d", 1), ERR_CORRUPT);
    ok(csv_begin(v));
    ok(csv_inode_get(v, a, CSV_IS_DIRECTORY, &block));
    ok(csv_block_change(v, block));
    le64_put(block->bytes + CSV_IN_PARENT, csv_root(v));
    ok(csv_end(v, OK));
    ok(csv_unlink(v, csv_root(v), "f", 1));
    ok(csv_unmount(v));
    assert_int_equal(memory->used, 0);
    assert_true(memory->peak < 40 * MIB);
}

static void test_4_tib(void **state)
{
    struct fake_memory memory;
    struct vast *d = vast_new(4 * TIB, &memory);
    struct csv *v;
    struct csv_check check = { .report = bench_report };
    (void)state;
    use_the_end(d, &memory);
    ok(vast_mount(d, &memory, &v));
    ok(csv_check(v, &check));
    assert_int_equal(check.problems, 0);
    ok(csv_unmount(v));
    vast_free(d);
}

static void test_64_tib(void **state)
{
    struct fake_memory memory;
    struct vast *d = vast_new(64 * TIB, &memory);
    (void)state;
    use_the_end(d, &memory);
    vast_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_4_tib), cmocka_unit_test(test_64_tib) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
