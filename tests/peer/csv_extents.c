/* SPDX-License-Identifier: MIT */
/*
 * Puts a file of so many extents on a volume, for `make bench`:
 *
 *     csv_extents VOLUME NAME EXTENTS
 *
 * VOLUME is a disk with a file system as `tasuki-csv mkfs` makes it. /NAME and /NAME.between are written a block
 * (4 KiB) at a time by turns, through the volume's core (csv/), which gives each new block the next place: so the
 * blocks of each lie between those of the other, and every block of /NAME is an extent of its own. The same volume
 * gives the same file each time. It is then looked at by its map: with another number of extents this fails.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "csv/csv.h"
#include "kernel/crc32c.h"

#define BLOCK 4096u

static void check(enum status status, const char *what)
{
    if (status == OK)
        return;
    fprintf(stderr, "csv_extents: %s: %s\n", what, status_name(status));
    exit(1);
}

static int fd;

static enum status disk_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    (void)disk;
    return pread(fd, bytes, count, (off_t)offset) == (ssize_t)count ? OK : ERR_IO;
}

static enum status disk_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    (void)disk, (void)fua;
    return pwrite(fd, bytes, count, (off_t)offset) == (ssize_t)count ? OK : ERR_IO;
}

/* Who reads the volume next does it through the same page cache. */
static enum status disk_flush(struct csv_disk *disk)
{
    (void)disk;
    return OK;
}

static void *allocate(void *context, size_t bytes)
{
    (void)context;
    return malloc(bytes);
}

static void release(void *context, void *memory, size_t bytes)
{
    (void)context, (void)bytes;
    free(memory);
}

static struct csv_disk disk = { .sector_bytes = 512, .read = disk_read, .write = disk_write, .flush = disk_flush };
static const struct csv_memory memory = { .alloc = allocate, .free = release };
static struct csv *volume;

static struct csv_file *create(const char *name)
{
    struct csv_file *file;
    uint64_t inode;

    check(csv_create(volume, csv_root(volume), name, strlen(name), 0644, &inode), name);
    check(csv_open(volume, inode, &file), name);
    return file;
}

/* Stretches of written blocks that lie one behind the other on the disk. */
static uint64_t extents_of(struct csv_file *file, uint64_t bytes)
{
    struct csv_mapping map;
    uint64_t count = 0, next = 0;

    for (uint64_t at = 0; at < bytes; at += map.bytes) {
        check(csv_map(file, at, bytes - at, &map), "the map");
        count += map.kind != CSV_MAP_WRITTEN || map.disk_offset != next;
        next = map.disk_offset + map.bytes;
    }
    return count;
}

int main(int count, char **argument)
{
    struct csv_mount_options options = { .owner_name = "bench", .owner_kind = 1, .now_ns = 1 };
    char message[CSV_MESSAGE_BYTES], between[256];
    uint8_t block[BLOCK];
    struct stat stat;

    if (count != 4) {
        fprintf(stderr, "usage: csv_extents VOLUME NAME EXTENTS\n");
        return 1;
    }
    uint64_t extents = strtoull(argument[3], NULL, 10);
    fd = open(argument[1], O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) < 0) {
        perror(argument[1]);
        return 1;
    }
    disk.bytes = (uint64_t)stat.st_size;
    crc32c_use_hardware(true);
    if (csv_mount(&disk, &memory, &options, &volume, message) != OK) {
        fprintf(stderr, "csv_extents: %s\n", message);
        return 1;
    }
    snprintf(between, sizeof between, "%s.between", argument[2]);
    struct csv_file *file = create(argument[2]), *other = create(between);
    for (uint64_t i = 0; i < extents; i++) {
        memset(block, (int)i | 1, sizeof block); /* no zeros: a target reads a file without holes faster */
        check(csv_write(file, i * BLOCK, block, BLOCK), "a write");
        check(csv_write(other, i * BLOCK, block, BLOCK), "a write");
    }
    uint64_t found = extents_of(file, extents * BLOCK);
    check(csv_close(file), "closing");
    check(csv_close(other), "closing");
    check(csv_unmount(volume), "unmounting");
    if (found != extents)
        fprintf(stderr, "csv_extents: %s has %lu extents, not %lu\n", argument[2], found, extents);
    return found != extents;
}
