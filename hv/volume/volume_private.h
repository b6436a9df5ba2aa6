/* SPDX-License-Identifier: MIT */
/* A volume as volume.c and volume_file.c know it. */
#ifndef VOLUME_VOLUME_PRIVATE_H
#define VOLUME_VOLUME_PRIVATE_H

#include "kernel/thread.h"
#include "volume/volume.h"
#include "volume/volume_disk.h"

struct call;
struct volume_file;

struct volume {
    const char *name, *storage;
    struct volume_disk disk;
    struct csv *csv;                 /* NULL: not mounted; the thread's */
    struct spinlock lock;            /* of what follows */
    struct call *first, **last;
    bool failed;                     /* not to be tried again by itself */
    bool mounted;
    bool ended;                      /* no call is taken any more */
    char problem[VOLUME_TEXT];
    struct csv_info info;
    uint64_t calls;
    struct wait_queue wake, callers;
    bool stop, stopped;
    struct volume_file *files;       /* the thread's; changed under the lock */
    struct volume *next;
};

/* What waits at the files of a volume. The volume's thread; true: something was done. */
bool volume_files_work(struct volume *v);
/* Whether something waits there; any thread. */
bool volume_files_wait(const struct volume *v);
/* The disk is away, or back: for the files' users. The network service's thread. */
void volume_files_tell(struct volume *v, bool away, const char *why);
struct volume *volume_find(const char *name, size_t bytes);
/* All volumes, for volume_file.c. */
struct volume *volume_first(void);

#endif
