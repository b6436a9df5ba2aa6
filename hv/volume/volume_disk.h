/* SPDX-License-Identifier: MIT */
/*
 * A storage of the node (net/storage.h) as the volume's core wants a disk: each call waits for the answer. It belongs to one
 * thread, the volume's.
 *
 * A storage that is away keeps its calls waiting, for as long as it takes; who shows the volume sees that it is lost. Only
 * storage_cancel() ends them before.
 */
#ifndef VOLUME_VOLUME_DISK_H
#define VOLUME_VOLUME_DISK_H

#include "csv/csv.h"
#include "kernel/thread.h"
#include "net/storage.h"

struct volume;

struct volume_disk {
    struct csv_disk csv;
    struct storage_user user;
    struct volume *volume;
    struct storage *storage;    /* NULL: not open */
    struct wait_queue answered;
    struct spinlock lock;       /* of `why` */
    bool lost;                  /* atomic: away for longer than the storage's timeout */
    bool fenced;                /* atomic: another node has the reservation, nothing is written any more; for good */
    char why[STORAGE_TEXT];
    bool fua;                   /* the unit can write through its cache */
    uint64_t rested_ns;         /* when the volume's thread last gave up its CPU in a long computation */
};

/*
 * Takes the storage of that name for the volume. Not OK with text: ERR_NOT_FOUND, ERR_BUSY (somebody has it), ERR_IO (not
 * known yet), ERR_NO_MEMORY.
 */
enum status volume_disk_open(struct volume_disk *disk, struct volume *volume, const char *storage, const char *name, char *text,
                             size_t text_bytes) MUST_CHECK;
/*
 * Takes the reservation; before the first write. As storage_take(), *key is the key. And tells of the volume's mount, which
 * each proof looks for from now on; after it. And gives it back, after the last write.
 */
enum status volume_disk_reserve(struct volume_disk *disk, bool take_over, uint64_t *key, char *text, size_t text_bytes) MUST_CHECK;
void volume_disk_mounted(struct volume_disk *disk, const struct csv_info *info);
void volume_disk_release(struct volume_disk *disk);
/* Another node has fenced this one. Any thread. */
bool volume_disk_is_fenced(const struct volume_disk *disk);
/* Its size by now, where it has grown since. */
void volume_disk_measure(struct volume_disk *disk, const char *storage);
/* Gives it back. Not open: nothing. */
void volume_disk_close(struct volume_disk *disk);
/* Whether it is away for long, and why (STORAGE_TEXT bytes). Any thread. */
bool volume_disk_is_lost(struct volume_disk *disk, char *why);

#endif
