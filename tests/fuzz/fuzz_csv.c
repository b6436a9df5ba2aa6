/* SPDX-License-Identifier: MIT */
/*
 * Metadata that somebody else wrote: blocks of a real volume are changed at random and their checksums made good, so
 * that nothing but the code's own checks stands between them and the pointers. The volume is mounted, checked, listed,
 * read and changed. Whatever it answers, it must not crash or hang; and a volume that fsck finds sound must be so
 * after changes.
 *
 * Input: a byte (bit 0: a volume with a log to replay; bit 1: mounted read-only; bit 2: the log's checksums are made
 * good too; bit 3: it is repaired first; bit 4: a volume with a tree of files without names), then changes: which block
 * (2 bytes), offset (2), count (1), bytes. Blocks are also those that the log has for other places.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csv/csv.h"
#include "csv/volume.h"
#include "kernel/crc32c.h"
#include "fake_csv_disk.h"

#define DISK_BYTES (64 * MIB)
#define BLOCKS 4096u

struct image {
    struct fake_csv_disk *disk;
    uint32_t block[BLOCKS]; /* that are metadata */
    size_t count;
};
static struct image image[3];
static uint32_t seed;

static void require(bool condition)
{
    if (!condition)
        abort();
}

static struct csv_mount_options options(bool read_only)
{
    return (struct csv_mount_options){ .owner_uuid = "fuzz", .owner_name = "fuzz", .read_only = read_only,
                                       .take_over = true, .discard = true, .cache_blocks = 256 };
}

static void must(enum status status)
{
    require(status == OK);
}

/* Trees of all kinds and more than one level. */
static void fill(struct csv *v)
{
    static uint8_t data[40000];
    char name[CSV_NAME_BYTES + 1];
    uint64_t directory, inode;
    struct csv_file *file;
    must(csv_mkdir(v, csv_root(v), "d", 1, 0755, &directory));
    for (unsigned i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        must(csv_create(v, directory, name, strlen(name), 0644, &inode));
    }
    must(csv_create(v, csv_root(v), "f", 1, 0644, &inode));
    must(csv_open(v, inode, &file));
    for (unsigned i = 0; i < 400; i++)
        must(csv_write(file, i * 8192ull, data, 100));
    must(csv_clone(file, csv_root(v), "c", 1, &inode));
    for (unsigned i = 0; i < 400; i += 3)
        must(csv_write(file, i * 8192ull, data, 100));
    must(csv_preallocate(file, 4 * MIB, MIB));
    must(csv_sync(v));
    must(csv_unlink(v, directory, name, strlen(name)));
    must(csv_close(file));
    must(csv_sync(v));
}

/* So many files without names that their records fill nodes. */
static void orphan(struct csv *v)
{
    char name[32];
    for (unsigned i = 0; i < 200; i++) {
        uint64_t inode;
        struct csv_file *file;
        snprintf(name, sizeof(name), "%u", i);
        must(csv_create(v, csv_root(v), name, strlen(name), 0644, &inode));
        must(csv_open(v, inode, &file)); /* and never closed */
        must(csv_unlink(v, csv_root(v), name, strlen(name)));
    }
    must(csv_sync(v));
    must(csv_checkpoint(v));
}

/* The journal of a volume of this size. */
#define LOG 2080u
#define LOG_BLOCKS 1024u

static bool in_log(uint64_t number)
{
    return number >= LOG && number < LOG + LOG_BLOCKS;
}

static void find_blocks(struct image *i)
{
    for (uint64_t number = 0; number < DISK_BYTES / 4096 && i->count < BLOCKS; number++) {
        uint8_t head[16];
        fake_disk_peek(i->disk, number * 4096, head, sizeof(head));
        if (head[0] == 'T' && head[1] == 'C' && (in_log(number) || le64_get(head + 8) == number))
            i->block[i->count++] = (uint32_t)number;
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct csv_mkfs_options made = { .uuid = "uuid of fuzzing", .hash_key = "hash key", .label = "fuzz" };
    char message[CSV_MESSAGE_BYTES];
    (void)argc;
    (void)argv;
    crc32c_use_hardware(__builtin_cpu_supports("sse4.2"));
    seed = crc32c(0, made.uuid, 16);
    for (unsigned i = 0; i < 3; i++) {
        struct csv_mount_options o = options(false);
        struct fake_memory memory;
        struct csv *v;
        fake_memory_init(&memory);
        image[i].disk = fake_disk_new(DISK_BYTES);
        must(csv_mkfs(&image[i].disk->disk, &memory.memory, &made));
        must(csv_mount(&image[i].disk->disk, &memory.memory, &o, &v, message));
        (i == 2 ? orphan : fill)(v);
        if (i)
            csv_abandon(v);
        else
            must(csv_unmount(v));
        find_blocks(&image[i]);
    }
    return 0;
}

static void edit(struct fake_csv_disk *disk, const struct image *from, const uint8_t *data, size_t size)
{
    while (size >= 5) {
        uint64_t number = from->block[le16_get(data) % from->count];
        size_t offset = le16_get(data + 2) % 4096, count = MIN((size_t)data[4], MIN(size - 5, 4096 - offset));
        uint8_t block[4096];
        fake_disk_peek(disk, number * 4096, block, sizeof(block));
        uint64_t home = le64_get(block + CSV_H_NUMBER); /* of an image in the log: elsewhere */
        memcpy(block + offset, data + 5, count);
        le32_put(block + CSV_H_CRC, csv_checksum(seed, home, block));
        fake_disk_poke(disk, number * 4096, block, sizeof(block));
        data += 5 + count;
        size -= 5 + count;
    }
}

static void reseal(struct fake_csv_disk *disk, uint64_t number, uint8_t *block)
{
    le32_put(block + CSV_H_CRC, csv_checksum(seed, number, block));
    fake_disk_poke(disk, number * 4096, block, 4096);
}

/* Goes through the log from its first block on as a reader does, and makes the checksums of images and commits fit. */
static void reseal_log(struct fake_csv_disk *disk)
{
    uint8_t descriptor[4096] = { 0 }, block[4096];
    uint64_t at = 0;
    uint32_t images = 0, image = 0, crc = 0;
    for (uint64_t i = 0; i < LOG_BLOCKS; i++) {
        fake_disk_peek(disk, (LOG + i) * 4096, block, sizeof(block));
        if (image < images) {
            le32_put(descriptor + CSV_J_LIST + image++ * CSV_JD_ENTRY_BYTES + 8, crc32c(0, block, sizeof(block)));
            if (image == images)
                reseal(disk, LOG + at, descriptor);
        } else if (le32_get(block) == CSV_DESCRIPTOR) {
            memcpy(descriptor, block, sizeof(block));
            images = MIN(le32_get(block + CSV_J_COUNT), CSV_JD_IMAGES);
            image = 0;
            at = i;
        } else if (le32_get(block) == CSV_COMMIT) {
            uint32_t blocks = le32_get(block + CSV_JC_BLOCKS);
            crc = 0;
            for (uint64_t j = blocks && blocks - 1 <= i ? i - (blocks - 1) : i; j < i; j++) {
                uint8_t before[4096];
                fake_disk_peek(disk, (LOG + j) * 4096, before, sizeof(before));
                crc = crc32c(crc, before, sizeof(before));
            }
            le32_put(block + CSV_JC_CRC, crc);
            reseal(disk, LOG + i, block);
        }
    }
}

static void look(struct csv *v, uint64_t directory, unsigned depth)
{
    struct csv_entry entry;
    struct csv_stat stat;
    struct csv_file *file;
    uint64_t cursor = 0, done;
    uint8_t bytes[5000];
    for (unsigned i = 0; i < 100 && csv_readdir(v, directory, &cursor, &entry) == OK; i++) {
        struct csv_mapping m;
        (void)!csv_stat(v, entry.inode, &stat);
        if (entry.type == CSV_IS_DIRECTORY && depth < 4)
            look(v, entry.inode, depth + 1);
        if (csv_open(v, entry.inode, &file) != OK)
            continue;
        for (uint64_t offset = 0; offset < 5 * MIB && csv_map(file, offset, MIB, &m) == OK; offset += m.bytes)
            require(m.bytes > 0 && m.bytes <= MIB && (m.kind == CSV_MAP_HOLE || m.disk_offset < DISK_BYTES));
        (void)!csv_read(file, 8000, bytes, sizeof(bytes), &done);
        (void)!csv_close(file);
    }
}

static void change(struct csv *v)
{
    static uint8_t data[20000];
    struct csv_file *file;
    uint64_t inode, root = csv_root(v);
    if (csv_walk(v, "f", &inode) == OK && csv_open(v, inode, &file) == OK) {
        (void)!csv_write(file, 5000, data, sizeof(data));
        (void)!csv_punch(file, 100000, 900000);
        (void)!csv_preallocate(file, 200000, 100000);
        (void)!csv_converted(file, 200000, 50000);
        (void)!csv_clone(file, root, "new", 3, &inode);
        (void)!csv_set_size(file, 12345);
        (void)!csv_close(file);
    }
    (void)!csv_rename(v, root, "f", 1, root, "c", 1);
    (void)!csv_mkdir(v, root, "m", 1, 0755, &inode);
    (void)!csv_rename(v, root, "d", 1, root, "m", 1);
    (void)!csv_unlink(v, root, "new", 3);
    (void)!csv_sync(v);
}

static uint64_t problems(struct csv *v)
{
    struct csv_check check = { 0 };
    return csv_check(v, &check) ? UINT64_MAX : check.problems;
}

static void attempt(const struct image *from, const uint8_t *data, size_t size, unsigned how)
{
    bool read_only = how >> 1 & 1;
    struct csv_mount_options o = options(read_only);
    struct fake_csv_disk *disk = fake_disk_over(from->disk);
    struct fake_memory memory;
    struct csv *v;
    char message[CSV_MESSAGE_BYTES];
    fake_memory_init(&memory);
    edit(disk, from, data, size);
    if (how & 4)
        reseal_log(disk);
    if (how & 8) {
        struct csv_repair repair = { .discard_journal = true };
        enum status repaired = csv_repair(&disk->disk, &memory.memory, &o, &repair, message);
        require((repaired == OK) == (message[0] == 0) && memory.used == 0);
    }
    enum status status = csv_mount(&disk->disk, &memory.memory, &o, &v, message);
    require((status == OK) == (message[0] == 0));
    if (!status) {
        uint64_t before = problems(v);
        look(v, csv_root(v), 0);
        if (!read_only)
            change(v);
        require(before || !problems(v));
        csv_abandon(v);
    }
    require(memory.used == 0);
    fake_disk_free(disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size) {
        attempt(&image[data[0] & 16 ? 2 : data[0] & 1], data + 1, size - 1, data[0]);
    }
    return 0;
}
