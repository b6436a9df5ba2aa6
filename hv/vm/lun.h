/* SPDX-License-Identifier: MIT */
/*
 * A VM's disk that is a logical unit, or a file on a volume: a struct blkdev whose requests go to a storage of the node
 * (net/storage.h) or to the volume (volume/volume_file.h), with the guest's own segments, and come back through the VM's
 * thread. Private to vm/.
 *
 * Between two threads: submit() and lun_complete() run under the machine's device lock; the storage's thread copies data
 * from and to guest memory while a request is under way, puts the request into the list of those that are done, and
 * signals the VM. So nothing is answered while the VM is paused, and its memory changes only where it asked for it.
 *
 * When the storage is away for long it says so (`lost`), and the VM's thread pauses the VM (orders.c) until it is back. The
 * same where a volume cannot take a write for now, for it is full (`stuck`).
 */
#ifndef VM_LUN_H
#define VM_LUN_H

#include "kernel/spinlock.h"
#include "net/storage.h"
#include "vdev/vdev.h"
#include "volume/volume_file.h"

#define LUN_REQUESTS 32

struct vm;

struct lun_request {
    struct disk_request disk;
    struct blk_request *blk;    /* NULL: free */
    struct lun *lun;
    unsigned segment;           /* where the last piece of data was, and ... */
    uint64_t segment_at;        /* ... where that segment begins in the request */
    enum status status;
    struct lun_request *next;   /* of those that are done */
};

struct lun {
    struct blkdev dev;
    struct volume_file_user user;
    struct vm *vm;
    struct storage *storage;    /* one of the two, or none: not open */
    struct volume_file *file;
    struct spinlock lock;       /* of the list of what is done, and of the reasons */
    struct lun_request *done, **done_end;
    unsigned in_flight;         /* requests that the guest waits for; device lock */
    bool lost, stuck, fenced;   /* atomic; fenced: another node has it, for good */
    uint64_t grown;             /* atomic: a storage's unit is that large now, and the guest does not know; 0: it does */
    char why[STORAGE_TEXT], why_stuck[STORAGE_TEXT];
    char identity[SCSI_NAME_BYTES]; /* of a storage's unit */
    struct csv_stat noted;          /* of a file, when lun_note() looked last */
    struct lun_request request[LUN_REQUESTS];
};

/* Takes the storage of that name, or the file of that path. Text where it fails. The VM's thread. */
enum status lun_open(struct lun *lun, struct vm *vm, const char *storage, char *text, size_t text_bytes) MUST_CHECK;
enum status lun_open_file(struct lun *lun, struct vm *vm, const char *path, char *text, size_t text_bytes) MUST_CHECK;
/* Gives it back; what the guest waited for is cancelled. Nothing is answered any more. Not open: nothing. */
void lun_close(struct lun *lun);
/* Answers what is done. Device lock. */
void lun_complete(struct lun *lun);
/* Waits up to `ns` for what is under way, then cancels it; answered it is either way. No lock; all vCPUs are parked. */
void lun_drain(struct lun *lun, uint64_t ns);
/* It is away for long; why, in words (STORAGE_TEXT bytes). Any thread. */
bool lun_is_lost(struct lun *lun, char *why);
/* It is lost for good: another node has fenced this one. Any thread. */
bool lun_is_fenced(const struct lun *lun);
/* A write waits for its volume to take it; likewise. */
bool lun_is_stuck(struct lun *lun, char *why);
/* Looks how its file is now: lun->noted. A storage: nothing. May wait. The VM's thread, likewise the next. */
enum status lun_note(struct lun *lun, char *text, size_t text_bytes) MUST_CHECK;
/* Its file is a running guest's from now on, and has another time of modification, durably. A storage: nothing. */
enum status lun_mark(struct lun *lun, char *text, size_t text_bytes) MUST_CHECK;
/* Makes its file larger, and the disk with it; the guest is not told yet. Not of a storage. No lock. */
enum status lun_grow(struct lun *lun, uint64_t bytes, char *text, size_t text_bytes) MUST_CHECK;
/* A storage's unit has grown, and so has the disk now; the guest is not told yet. Device lock. */
bool lun_has_grown(struct lun *lun);
/* Tries that write again; until the answer nothing is stuck. */
void lun_retry(struct lun *lun);

#endif
