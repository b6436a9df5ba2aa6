/* SPDX-License-Identifier: MIT */
/*
 * The bytes on the disk are those of docs/csv-format.md: offsets stand here as the page has them, in numbers, so that
 * a change of csv/format.h that changes the format does not pass. Also vectors for the checksum and the name hash.
 */
#include "csv_fixture.h"
#include "csv/volume.h"
#include "kernel/crc32c.h"

static struct bench b;
static uint64_t file_inode, directory_inode;

static uint64_t get(uint64_t block, unsigned offset, unsigned width)
{
    uint8_t bytes[8] = { 0 };
    fake_disk_peek(b.disk, block * 4096 + offset, bytes, width);
    return le64_get(bytes);
}

static void expect_text(uint64_t block, unsigned offset, const char *text, size_t count)
{
    char bytes[64];
    fake_disk_peek(b.disk, block * 4096 + offset, bytes, count);
    assert_memory_equal(bytes, text, count);
}

/* Section 2: type, number, owner, and the checksum as it is described. */
static void expect_header(uint64_t block, const char *type, uint64_t owner)
{
    uint8_t image[16 + 8 + 4096];
    memcpy(image, "a volume's uuid", 16);
    le64_put(image + 16, block);
    fake_disk_peek(b.disk, block * 4096, image + 24, 4096);
    uint32_t stored = le32_get(image + 24 + 4);
    memset(image + 24 + 4, 0, 4);
    assert_int_equal(crc32c(0, image, sizeof(image)), stored);
    expect_text(block, 0, type, 4);
    assert_int_equal(get(block, 8, 8), block);
    assert_int_equal(get(block, 16, 8), owner);
}

static int make(void **state)
{
    static uint8_t data[5 * 4096];
    uint64_t clone;
    (void)state;
    bench_init(&b, 64 * MIB);
    csv_set_time(b.volume, 0x1122334455667788);
    ok(csv_mkdir(b.volume, csv_root(b.volume), "dir", 3, 0750, &directory_inode));
    struct csv_file *file = make_file(&b, "file");
    file_inode = csv_inode_of(file);
    ok(csv_write(file, 4096, data, sizeof(data)));
    ok(csv_preallocate(file, 40960, 8192));
    ok(csv_clone(file, directory_inode, "clone", 5, &clone));
    ok(csv_close(file));
    ok(csv_unmount(b.volume));
    return 0;
}

static int end(void **state)
{
    (void)state;
    fake_disk_free(b.disk);
    return 0;
}

static void test_superblocks(void **state)
{
    static const uint64_t place[3] = { 0, 8192, 16383 };
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        expect_header(place[i], "TCSU", 0);
        expect_text(place[i], 32, "TASUKCSV", 8);
        assert_int_equal(get(place[i], 40, 4), 1);
        assert_int_equal(get(place[i], 44, 4), i);
        expect_text(place[i], 48, "a volume's uuid", 16);
        expect_text(place[i], 64, "Volume1", 8);
        assert_int_equal(get(place[i], 128, 8) | get(place[i], 136, 8) | get(place[i], 144, 8), 0);
        assert_int_equal(get(place[i], 152, 8), 16384);
        assert_int_equal(get(place[i], 160, 4), 4096);
        assert_int_equal(get(place[i], 164, 4), 16384);
        assert_int_equal(get(place[i], 168, 4), 16);
        assert_int_equal(get(place[i], 172, 4), 512);
        assert_int_equal(get(place[i], 176, 8), 2080); /* the journal, behind the database log */
        assert_int_equal(get(place[i], 184, 8), 1024);
        assert_int_equal(get(place[i], 192, 8), 32);
        assert_int_equal(get(place[i], 200, 4), 64);
        assert_int_equal(get(place[i], 204, 4), 16);
        assert_int_equal(get(place[i], 208, 8), 1056);
        assert_int_equal(get(place[i], 216, 8), 1024);
        expect_text(place[i], 224, "0123456789abcde", 16);
        assert_int_equal(get(place[i], 240, 8), 500);
    }
}

static void test_fixed_blocks(void **state)
{
    uint64_t newest = get(17, 24, 8) > get(18, 24, 8) ? 17 : 18;
    (void)state;
    expect_header(17, "TCMR", 0);
    expect_header(18, "TCMR", 0);
    assert_int_equal(get(newest, 32, 4), 0); /* clean */
    assert_int_equal(get(newest, 40, 8), 1); /* generation */
    expect_text(newest, 48, "alpha's uuid 16", 16);
    expect_text(newest, 64, "alpha", 6);
    assert_int_equal(get(newest == 17 ? 18 : 17, 32, 4), 1); /* mounted, before */
    expect_header(19, "TCRT", 0);
    assert_int_equal(get(19, 48, 8), 4); /* inodes */
    assert_int_equal(get(19, 64, 8), 0);
    assert_int_equal(get(19, 256 + 2, 2), 1); /* one record of references: 5 blocks, 2 of them */
    assert_int_equal(get(19, 256 + 4, 2), 2304 - 8);
    assert_int_equal(get(19, 256 + 2304 - 8, 4), 5);
    assert_int_equal(get(19, 256 + 2304 - 4, 4), 2);
    assert_int_equal(get(19, 2560 + 2, 2), 0);
    expect_header(1, "TCGR", 0);
    assert_int_equal(get(1, 32, 4), 0);
    assert_int_equal(get(1, 36, 4), get(19, 40, 8));
    assert_int_equal(get(1, 40, 2), 0xffff);
    assert_int_equal(get(1, 2048, 8), UINT64_MAX);
    assert_int_equal(get(1, 2048 + 2047, 1) & 0x80, 0x80); /* the last superblock */
    expect_header(20, "TCJH", 0);
    expect_header(21, "TCJH", 0);
}

static void test_inodes(void **state)
{
    uint64_t root = get(19, 32, 8);
    (void)state;
    expect_header(root, "TCIN", root);
    assert_int_equal(get(root, 32, 2), 2);
    assert_int_equal(get(root, 36, 4), 1);
    assert_int_equal(get(root, 40, 8), 2); /* entries */
    assert_int_equal(get(root, 64, 8), root);
    expect_header(directory_inode, "TCIN", directory_inode);
    assert_int_equal(get(directory_inode, 64, 8), root);
    assert_int_equal(get(directory_inode, 96, 4), 0750);
    expect_header(file_inode, "TCIN", file_inode);
    assert_int_equal(get(file_inode, 32, 2), 1);
    assert_int_equal(get(file_inode, 40, 8), 40960 + 8192);
    assert_int_equal(get(file_inode, 48, 8), 7);
    for (unsigned at_byte = 72; at_byte <= 88; at_byte += 8)
        assert_int_equal(get(file_inode, at_byte, 8), 0x1122334455667788);
    /* Its root node: two extents, the first shared, the second unwritten. */
    assert_int_equal(get(file_inode, 256, 2), 0);
    assert_int_equal(get(file_inode, 256 + 2, 2), 2);
    assert_int_equal(get(file_inode, 256 + 16, 8), 1);
    unsigned value = 256 + (unsigned)get(file_inode, 256 + 16 + 8, 2);
    assert_int_equal(get(file_inode, 256 + 16 + 10, 2), 12);
    assert_int_equal(get(file_inode, value, 8) >> 48, 0x8000);
    assert_int_equal(get(file_inode, value + 8, 4), 5);
    assert_int_equal(get(file_inode, 256 + 28, 8), 10);
    value = 256 + (unsigned)get(file_inode, 256 + 28 + 8, 2);
    assert_int_equal(get(file_inode, value, 8) >> 48, 0x4000);
    assert_int_equal(get(file_inode, value + 8, 4), 2);
}

static void test_directory(void **state)
{
    static const uint8_t key[16] = "0123456789abcde";
    (void)state;
    /* One entry, "clone". */
    assert_int_equal(get(directory_inode, 256 + 2, 2), 1);
    assert_int_equal(get(directory_inode, 256 + 16, 8), csv_name_hash(key, "clone", 5) & ~UINT64_C(255));
    unsigned value = 256 + (unsigned)get(directory_inode, 256 + 16 + 8, 2);
    assert_int_equal(get(directory_inode, 256 + 16 + 10, 2), 9 + 5);
    assert_int_equal(get(directory_inode, value + 8, 1), 1);
    expect_text(directory_inode, value + 9, "clone", 5);
}

/* The vectors of the paper: key 00 .. 0f, messages of 0 .. n bytes 00, 01, ... */
static void test_hash(void **state)
{
    uint8_t key[16];
    char message[15];
    (void)state;
    for (unsigned i = 0; i < 16; i++)
        key[i] = (uint8_t)i;
    for (unsigned i = 0; i < 15; i++)
        message[i] = (char)i;
    assert_true(csv_name_hash(key, message, 15) == 0xa129ca6149be45e5);
    assert_true(csv_name_hash(key, message, 0) == 0x726fdb47dd0e0e31);
    assert_true(csv_name_hash(key, message, 8) == 0x93f5f5799a932462);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_superblocks), cmocka_unit_test(test_fixed_blocks), cmocka_unit_test(test_inodes),
        cmocka_unit_test(test_directory),   cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, make, end);
}
