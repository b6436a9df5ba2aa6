/* SPDX-License-Identifier: MIT */
/*
 * A volume and its files as volume.c, volume_file.c and volume_io.c know them.
 *
 * Locks, outermost first: the volume's, a file's, the user's own. A file's lock guards its requests and the map of the
 * file in memory (csv_map_share()); nobody waits under it.
 */
#ifndef VOLUME_VOLUME_PRIVATE_H
#define VOLUME_VOLUME_PRIVATE_H

#include "kernel/thread.h"
#include "volume/volume.h"
#include "volume/volume_disk.h"
#include "volume/volume_file.h"

#define VOLUME_IOS (2 * VOLUME_FILE_REQUESTS) /* those of the user, and of what he has cancelled what the disk still has */
#define VOLUME_PATH_SHOWN 160u

struct call;

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
    uint8_t *buffer;                 /* VOLUME_BUFFER_BYTES, for what is copied; the thread's; NULL: no file was opened yet */
    bool dirty;                      /* files' maps have changed since the last commit; the thread's */
    bool stuck;                      /* a file's request may be stuck, and is to be tried again; the thread's */
    struct volume *next;
};

#define VOLUME_BUFFER_BYTES (128u * 1024)

extern const struct csv_memory volume_memory;

/* A volume of that name for the node, mounted by its thread when its storage is there; the strings must stay. NULL: no memory. */
struct volume *volume_new(const char *name, const char *storage);

/* ---- A file's requests ---- */

enum io_state {
    IO_FREE,
    IO_WAITS,  /* in the list of those that wait for the volume's thread */
    IO_THREAD, /* the volume's thread has it, or will: in the list of those that came back from the disk */
    IO_DISK,   /* a piece of it is at the disk */
};

/* A request; the only place that knows what is under way. The file's lock, but what `state` says is somebody's. */
struct file_io {
    struct disk_request piece;
    struct disk_request *whole; /* NULL: cancelled */
    struct volume_file *file;
    struct file_io *next;       /* of the list that it is in */
    enum io_state state;
    enum disk_op op;
    bool fua;
    bool exclusive;             /* nothing else may be under way in its blocks: it changes the map there */
    bool fill;                  /* its blocks are there, some unwritten: to be told as written when the disk has them */
    bool was_stuck;             /* the user was told so */
    uint64_t offset, bytes, at; /* of the request, kept for when it is gone; how much of it is done */
    uint64_t lead, part;        /* of the piece: zeros in front of the request's bytes; how many of these it has */
};

struct volume_file {
    struct volume *volume;
    struct csv_file *csv;
    struct volume_file_user *user;  /* NULL: closed */
    struct spinlock lock;
    struct file_io *free;
    struct file_io *waiting, **waiting_end;
    struct file_io *back;           /* from the disk, for the thread */
    unsigned busy;                  /* not free */
    unsigned exclusive, cancelled;  /* of those that wait no more; a hold counts as exclusive */
    bool stuck;                     /* the first that waits cannot be done now: the volume is full, for one */
    bool told;                      /* the user was told so, and not yet that it is over */
    bool changed;                   /* the map has changes that are not durable; changed by the thread */
    bool over;                      /* the volume is gone */
    bool work;                      /* something for the thread; atomic */
    char path[VOLUME_PATH_SHOWN];
    struct volume_file *next;
    struct file_io io[VOLUME_IOS];
};

/* ---- volume_io.c ---- */

void volume_io_init(struct volume_file *f);
/* A request of the user's: sent on at once, or left to the volume's thread. */
void volume_io_submit(struct volume_file *f, struct disk_request *request);
/* Ends all as ERR_CANCELLED. The file's lock is held. */
void volume_io_cancel(struct volume_file *f);
/* What waits at a file. The volume's thread; true: something was done. */
bool volume_io_work(struct volume_file *f);
/* Keeps requests away from the disk, when those that are there have been answered; and lets them go on. The volume's thread. */
void volume_io_hold(struct volume_file *f);
void volume_io_release(struct volume_file *f);
/* csv_sync(), for all files. The volume's thread. */
enum status volume_files_sync(struct volume *v) MUST_CHECK;
/* Something is to be done for the file; whoever calls holds the lock, and touches the file no more. */
void volume_io_unlock_and_wake(struct volume_file *f);

/* ---- volume_file.c ---- */

/* What waits at the files of a volume. The volume's thread; true: something was done. */
bool volume_files_work(struct volume *v);
/* Whether something waits there. The volume's thread. */
bool volume_files_wait(const struct volume *v);
/* There may be space again: what is stuck is tried again. Any thread. */
void volume_files_retry(struct volume *v);
/* No file takes requests any more, and what there was is cancelled. The volume's thread. */
void volume_files_end(struct volume *v);
/* The disk is away, or back: for the files' users. The network service's thread. */
void volume_files_tell(struct volume *v, bool away, const char *why);
struct volume *volume_find(const char *name, size_t bytes);
/* All volumes, for volume_file.c. */
struct volume *volume_first(void);

#endif
