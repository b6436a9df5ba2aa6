/* SPDX-License-Identifier: MIT */
/*
 * Disks with something else on them: each is named, and no mount writes to it; nor to a volume over whose beginning something
 * else was put, though two of its superblocks are whole. The repair, which an admin asks for, takes that one back.
 */
#include "csv/repair.h"
#include "csv_fixture.h"

#define SMALL (64 * MIB)
#define BLOCK 4096ull

static const struct {
    uint64_t at;
    const char *value, *name;
    unsigned count;
} disks[] = {
    { 512, "EFI PART", "GPT", 8 },       { 4096, "EFI PART", "GPT", 8 },    { 1080, "\x53\xef", "ext4", 2 },
    { 0, "XFSB", "XFS", 4 },             { 65600, "_BHRfS_M", "Btrfs", 8 }, { 3, "NTFS    ", "NTFS", 8 },
    { 3, "ReFS", "ReFS", 4 },            { 3, "EXFAT   ", "exFAT", 8 },     { 82, "FAT32", "FAT", 5 },
    { 54, "FAT16", "FAT", 5 },           { 54, "FAT12", "FAT", 5 },         { 512, "LABELONE", "LVM", 8 },
    { 0, "LUKS\xba\xbe", "LUKS", 6 },    { 4096, "\xfc\x4e\x2b\xa9", "RAID", 4 },
    { 4086, "SWAPSPACE2", "swap", 10 },  { 32769, "CD001", "ISO 9660", 5 }, { 0, "vhdxfile", "VHDX", 8 },
    { 0, "QFI\xfb", "qcow2", 4 },        { 510, "\x55\xaa", "MBR", 2 },
    { 40000, "something", "does not know", 9 },
};

static enum status no_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    (void)disk;
    (void)bytes;
    (void)fua;
    fail_msg("%lu bytes are written at %lu", (unsigned long)count, (unsigned long)offset);
    return ERR_IO;
}

static void refused(struct bench *b, enum status expected, const char *word, const char *cure)
{
    struct csv_disk disk = b->disk->disk;

    b->disk->disk.write = no_write;
    assert_int_equal(bench_mount(b), expected);
    if (!strstr(b->message, word) || !strstr(b->message, cure))
        fail_msg("%s: %s", word, b->message);
    b->disk->disk = disk;
}

static void what_a_disk_holds_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(disks); i++) {
        struct bench b = { .disk = fake_disk_new(SMALL) };
        fake_memory_init(&b.memory);
        refused(&b, ERR_NOT_FOUND, "empty", "tasuki-csv mkfs`");
        fake_disk_poke(b.disk, disks[i].at, disks[i].value, disks[i].count);
        refused(&b, ERR_NOT_FOUND, disks[i].name, "mkfs --force");
        fake_disk_free(b.disk);
    }
}

static void a_volume_with_something_over_its_beginning_is_not_written(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_COUNT(disks); i++) {
        struct bench b;
        struct csv_mount_options options = bench_options();
        struct csv_repair repair = { 0 };
        if (disks[i].at >= BLOCK) /* it leaves the first superblock alone */
            continue;
        bench_format(&b, SMALL);
        fake_disk_poke(b.disk, disks[i].at, disks[i].value, disks[i].count);
        refused(&b, ERR_CORRUPT, disks[i].name, "fsck --repair");
        options.read_only = true;
        ok(csv_mount(&b.disk->disk, &b.memory.memory, &options, &b.volume, b.message));
        ok(csv_unmount(b.volume));
        options.read_only = false;
        ok(csv_repair(&b.disk->disk, &b.memory.memory, &options, &repair, b.message));
        ok(bench_mount(&b));
        bench_end(&b);
    }
}

/* A beginning that is damaged, and nothing known: the other superblocks are there for that. */
static void a_damaged_beginning_is_mended(void **state)
{
    struct bench b;
    (void)state;
    bench_format(&b, SMALL);
    fake_disk_poke(b.disk, 100, "something", 9);
    ok(bench_mount(&b));
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_disk_holds_is_named),
        cmocka_unit_test(a_volume_with_something_over_its_beginning_is_not_written),
        cmocka_unit_test(a_damaged_beginning_is_mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
