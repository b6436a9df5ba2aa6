/* SPDX-License-Identifier: MIT */
/*
 * A volume on a fake disk, for the tests of csv/: made, mounted, checked, with short names for what tests do all the
 * time.
 */
#ifndef CSV_FIXTURE_H
#define CSV_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#include "csv/volume.h"
#include "kernel/crc32c.h"
#include "fake_csv_disk.h"

#define ok(call) assert_int_equal((call), OK)

struct bench {
    struct fake_csv_disk *disk;
    struct fake_memory memory;
    struct csv *volume;
    char message[CSV_MESSAGE_BYTES];
};

static inline struct csv_mount_options bench_options(void)
{
    return (struct csv_mount_options){ .owner_uuid = "alpha's uuid 16", .owner_name = "alpha", .now_ns = 1000,
                                       .discard = true, .cache_blocks = 256 };
}

static inline enum status bench_mount(struct bench *b)
{
    struct csv_mount_options options = bench_options();
    return csv_mount(&b->disk->disk, &b->memory.memory, &options, &b->volume, b->message);
}

static inline void bench_format(struct bench *b, uint64_t bytes)
{
    struct csv_mkfs_options options = { .uuid = "a volume's uuid", .hash_key = "0123456789abcde", .label = "Volume1",
                                        .now_ns = 500 };
    memset(b, 0, sizeof(*b));
    b->disk = fake_disk_new(bytes);
    fake_memory_init(&b->memory);
    ok(csv_mkfs(&b->disk->disk, &b->memory.memory, &options));
    assert_int_equal(b->memory.used, 0);
}

/* Writes a block whose checksum is right, as block `number` of the volume that bench_format() makes. */
static inline void bench_seal(struct bench *b, uint64_t number, uint8_t *block)
{
    le64_put(block + CSV_H_NUMBER, number);
    le32_put(block + CSV_H_CRC, csv_checksum(crc32c(0, (const uint8_t *)"a volume's uuid", 16), number, block));
    fake_disk_poke(b->disk, number * CSV_BLOCK_BYTES, block, CSV_BLOCK_BYTES);
}

static inline void bench_init(struct bench *b, uint64_t bytes)
{
    bench_format(b, bytes);
    ok(bench_mount(b));
}

static inline void bench_report(void *context, const char *text)
{
    (void)context;
    print_error("fsck: %s\n", text);
}

/* fsck must find nothing. */
static inline struct csv_check bench_check(struct bench *b)
{
    struct csv_check check = { .report = bench_report };
    ok(csv_check(b->volume, &check));
    assert_int_equal(check.problems, 0);
    return check;
}

static inline void bench_remount(struct bench *b)
{
    ok(csv_unmount(b->volume));
    assert_int_equal(b->memory.used, 0);
    ok(bench_mount(b));
}

static inline void bench_end(struct bench *b)
{
    bench_check(b);
    ok(csv_unmount(b->volume));
    assert_int_equal(b->memory.used, 0);
    fake_disk_free(b->disk);
}

static inline uint64_t at(struct bench *b, const char *path)
{
    uint64_t inode = 0;
    ok(csv_walk(b->volume, path, &inode));
    return inode;
}

static inline enum status create(struct bench *b, uint64_t directory, const char *name, uint64_t *inode)
{
    return csv_create(b->volume, directory, name, strlen(name), 0644, inode);
}

static inline struct csv_file *make_file(struct bench *b, const char *name)
{
    uint64_t inode;
    struct csv_file *file;
    ok(create(b, csv_root(b->volume), name, &inode));
    ok(csv_open(b->volume, inode, &file));
    return file;
}

static inline struct csv_file *open_file(struct bench *b, const char *path)
{
    struct csv_file *file;
    ok(csv_open(b->volume, at(b, path), &file));
    return file;
}

/* Bytes that tell where they belong. */
static inline void pattern(uint8_t *bytes, size_t count, uint32_t tag)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)((tag * 2654435761u >> 8) + i / 512 * 7 + i);
}

#endif
