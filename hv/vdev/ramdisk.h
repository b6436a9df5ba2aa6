/* SPDX-License-Identifier: MIT */
/*
 * A disk in the hypervisor's memory: the RAM copy of an image that came with the boot. It is held in chunks of 2 MiB
 * that need not be contiguous. Requests complete inside submit(). Flush does nothing: there is nothing more durable
 * behind it.
 */
#ifndef VDEV_RAMDISK_H
#define VDEV_RAMDISK_H

#include "vdev/vdev.h"

#define RAMDISK_CHUNK_BYTES (2 * MIB)

struct ramdisk {
    struct blkdev dev;
    /*
     * The memory of chunk `index`, valid until the next call; NULL: cannot be had, the request fails with ERR_IO. It is
     * only read if `write` is false.
     */
    void *(*chunk)(void *context, uint64_t index, bool write);
    void *context;
};

/* bytes: the disk's size, a multiple of 512. */
void ramdisk_init(struct ramdisk *disk, uint64_t bytes, bool read_only, void *(*chunk)(void *context, uint64_t index, bool write),
                  void *context);
/* The same over an array with a pointer for each chunk; the array and the chunks must stay. */
void ramdisk_init_array(struct ramdisk *disk, uint64_t bytes, bool read_only, void **chunks);

#endif
