/* SPDX-License-Identifier: MIT */
/*
 * The volume's core (csv/) by itself, on a disk in memory, for `make bench`: what operations on metadata take, what
 * mounting a volume with 100,000 files takes, and what replaying a full journal takes. With the name of a file as
 * argument it leaves the volume there, for a node to mount.
 *
 * "csv: NAME COUNT NANOSECONDS" for each figure: of COUNT operations together. An operation is durable when csv_sync()
 * has returned; `_durable` rows call it after each one, the others once at the end.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "csv/csv.h"
#include "kernel/crc32c.h"

#define DISK_BYTES (1ull << 30)
#define FILES 100000u
#define FEW 2000u
#define NAME_BYTES 24u

static uint8_t *disk_memory;
static uint64_t flushes, written;

static void fail(const char *what, enum status status)
{
    fprintf(stderr, "csv: %s: %s\n", what, status_name(status));
    exit(1);
}

static void check(enum status status, const char *what)
{
    if (status != OK)
        fail(what, status);
}

static enum status disk_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    (void)disk;
    memcpy(bytes, disk_memory + offset, count);
    return OK;
}

static enum status disk_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    (void)disk;
    memcpy(disk_memory + offset, bytes, count);
    written += count;
    flushes += fua;
    return OK;
}

static enum status disk_flush(struct csv_disk *disk)
{
    (void)disk;
    flushes++;
    return OK;
}

static void *allocate(void *context, size_t bytes)
{
    (void)context;
    return malloc(bytes);
}

static void release(void *context, void *memory, size_t bytes)
{
    (void)context;
    (void)bytes;
    free(memory);
}

static struct csv_disk disk = {
    .bytes = DISK_BYTES, .sector_bytes = 512, .read = disk_read, .write = disk_write, .flush = disk_flush,
};
static const struct csv_memory memory = { .alloc = allocate, .free = release };
static struct csv *volume;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void report(const char *name, unsigned count, uint64_t begin)
{
    printf("csv: %s %u %" PRIu64 "\n", name, count, now_ns() - begin);
}

static void mount(void)
{
    struct csv_mount_options options = { .owner_name = "bench", .owner_kind = 1, .take_over = true, .now_ns = 1 };
    char message[CSV_MESSAGE_BYTES];
    enum status status = csv_mount(&disk, &memory, &options, &volume, message);

    if (status != OK) {
        fprintf(stderr, "csv: %s\n", message);
        fail("mount", status);
    }
}

static size_t name_of(char *name, const char *kind, unsigned i)
{
    return (size_t)snprintf(name, NAME_BYTES, "%s-%06u", kind, i);
}

static void create(unsigned count, const char *kind, bool durable)
{
    char name[NAME_BYTES];
    uint64_t inode;

    for (unsigned i = 0; i < count; i++) {
        check(csv_create(volume, csv_root(volume), name, name_of(name, kind, i), 0644, &inode), "create");
        if (durable)
            check(csv_sync(volume), "sync");
    }
    check(csv_sync(volume), "sync");
}

static void look_up(unsigned count, const char *kind)
{
    struct csv_entry entry;
    struct csv_stat stat;
    char name[NAME_BYTES];

    for (unsigned i = 0; i < count; i++) {
        check(csv_lookup(volume, csv_root(volume), name, name_of(name, kind, i), &entry), "lookup");
        check(csv_stat(volume, entry.inode, &stat), "stat");
    }
}

static void rename_all(unsigned count, const char *kind, const char *to)
{
    char name[NAME_BYTES], other[NAME_BYTES];

    for (unsigned i = 0; i < count; i++)
        check(csv_rename(volume, csv_root(volume), name, name_of(name, kind, i), csv_root(volume), other,
                         name_of(other, to, i)), "rename");
    check(csv_sync(volume), "sync");
}

static void unlink_all(unsigned count, const char *kind)
{
    char name[NAME_BYTES];

    for (unsigned i = 0; i < count; i++)
        check(csv_unlink(volume, csv_root(volume), name, name_of(name, kind, i)), "unlink");
    check(csv_sync(volume), "sync");
}

static void measure_operations(void)
{
    uint64_t begin = now_ns();
    create(FEW, "few", false);
    report("create", FEW, begin);
    begin = now_ns();
    create(FEW, "durable", true);
    report("create_durable", FEW, begin);
    begin = now_ns();
    look_up(FEW, "few");
    report("look_up", FEW, begin);
    begin = now_ns();
    rename_all(FEW, "few", "other");
    report("rename", FEW, begin);
    begin = now_ns();
    unlink_all(FEW, "other");
    unlink_all(FEW, "durable");
    report("unlink", 2 * FEW, begin);
}

/* As much as the journal holds, and then a power cut. */
static void measure_replay(void)
{
    struct csv_info info;
    uint64_t most = 0;
    char name[NAME_BYTES];
    uint64_t inode;

    for (unsigned i = 0; i < FEW; i++) { /* the journal is emptied now and then; how full it is after so many varies */
        check(csv_create(volume, csv_root(volume), name, name_of(name, "cut", i), 0644, &inode), "create");
        check(csv_sync(volume), "sync");
    }
    csv_abandon(volume);
    uint64_t begin = now_ns();
    mount();
    csv_statfs(volume, &info);
    most = info.replayed;
    report("replay", (unsigned)most, begin);
    unlink_all(FEW, "cut");
}

/* The disk as a sparse file. */
static void leave(const char *path)
{
    static const uint8_t zeroes[4096];
    FILE *file = fopen(path, "w");

    if (!file)
        fail("the file", ERR_IO);
    for (uint64_t at = 0; at < DISK_BYTES; at += sizeof zeroes)
        if (memcmp(disk_memory + at, zeroes, sizeof zeroes) &&
            (fseeko(file, (off_t)at, SEEK_SET) || fwrite(disk_memory + at, sizeof zeroes, 1, file) != 1))
            fail("the file", ERR_IO);
    if (fflush(file) || ftruncate(fileno(file), (off_t)DISK_BYTES))
        fail("the file", ERR_IO);
    fclose(file);
}

int main(int count, char **argument)
{
    struct csv_mkfs_options make = { .uuid = { 1 }, .hash_key = { 2 }, .label = "bench", .now_ns = 1 };

    crc32c_use_hardware(true);
    disk_memory = mmap(NULL, DISK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (disk_memory == MAP_FAILED)
        fail("memory for the disk", ERR_NO_MEMORY);
    check(csv_mkfs(&disk, &memory, &make), "mkfs");
    mount();
    measure_operations();
    measure_replay();
    uint64_t begin = now_ns();
    create(FILES, "file", false);
    report("create_100k", FILES, begin);
    check(csv_unmount(volume), "unmount");
    begin = now_ns();
    mount();
    report("mount_100k", 1, begin);
    check(csv_unmount(volume), "unmount");
    printf("csv: flushes %" PRIu64 ", MiB written %" PRIu64 "\n", flushes, written >> 20);
    if (count > 1)
        leave(argument[1]);
    return 0;
}
