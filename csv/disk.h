/* SPDX-License-Identifier: MIT */
/*
 * What the volume's core stands on: a disk and memory, both handed in.
 *
 * The disk is synchronous: a call returns when the device has answered. In the hypervisor the caller is the volume's
 * thread, which waits; in the host tool it is pread and pwrite; in tests a fake that forgets what was not flushed.
 * An answered write is visible to later reads, and durable after an answered flush or if it was written with FUA.
 */
#ifndef CSV_DISK_H
#define CSV_DISK_H

#include "kernel/status.h"
#include "kernel/types.h"

struct csv_disk {
    uint64_t bytes;        /* of the LUN */
    uint32_t sector_bytes; /* 512 or 4096 */
    void *context;
    /* All offsets and counts are in bytes, multiples of sector_bytes, within the disk. */
    enum status (*read)(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count);
    /* fua: durable when it returns (a glue whose device has no FUA writes and flushes). */
    enum status (*write)(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua);
    enum status (*flush)(struct csv_disk *disk);
    /* Zeros may be written by any means; durable as a write without FUA. May be NULL: the core writes zeros itself. */
    enum status (*write_zeroes)(struct csv_disk *disk, uint64_t offset, uint64_t count);
    /* A hint that the bytes are not needed; they read as anything afterwards. May be NULL. */
    enum status (*discard)(struct csv_disk *disk, uint64_t offset, uint64_t count);
    /* Called again and again in long computations, so that others may have the CPU for a moment. May be NULL. */
    void (*rest)(struct csv_disk *disk);
};

struct csv_memory {
    void *context;
    void *(*alloc)(void *context, size_t bytes); /* any content, aligned to 16; NULL: none left */
    void (*free)(void *context, void *ptr, size_t bytes);
};

#endif
