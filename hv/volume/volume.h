/* SPDX-License-Identifier: MIT */
/*
 * The node's volumes: for each [storage NAME] with `volume = VOLUME` a thread that mounts the volume on its disk as soon as
 * the disk is there, and serves it. The volume's core (csv/csv.h) belongs to that thread; others reach it by volume_call().
 * What a volume holds is named /ClusterStorage/VOLUME/PATH.
 *
 * Mounting takes the disk's reservation before its first write (net/storage.h); a stranger's refuses it. A node that was fenced
 * writes nothing more: its VMs stand still until they are stopped, then the volume is left as it is.
 *
 * A volume that cannot be mounted says why, and is tried again when `csv mount` asks for it; one whose disk is not there, or
 * is reserved by somebody else, is tried again by itself.
 */
#ifndef VOLUME_VOLUME_H
#define VOLUME_VOLUME_H

#include "csv/csv.h"
#include "net/storage.h"
#include "vm/config.h"

#define VOLUME_TEXT (STORAGE_TEXT + CSV_MESSAGE_BYTES)
#define VOLUME_ROOT "/ClusterStorage/"

/* Starts what the configuration has. Boot, after net_start(). The configuration must stay. */
void volume_start(const struct config *config);
/* Unmounts all volumes, for the node goes down; gives up on one whose disk does not answer for some seconds. */
void volume_stop(void);

enum volume_state { VOLUME_WAITS, VOLUME_FAILED, VOLUME_MOUNTED, VOLUME_AWAY };
const char *volume_state_name(enum volume_state state);

struct volume_info {
    const char *name, *storage;
    enum volume_state state;
    char problem[VOLUME_TEXT]; /* of a volume that is not simply mounted; "": none */
    struct csv_info csv;       /* as it was after the last call; zeros: never mounted */
    uint64_t calls;
};
/* Volume number i, in the order of the configuration; false behind the last. Any thread; does not wait for disks. */
bool volume_info_get(unsigned i, struct volume_info *info);

/*
 * Runs fn(csv, arg) in the thread of the volume of that name (`bytes` long) and returns what it returned; waits for it,
 * and so for the disk. Not OK with *text: ERR_NOT_FOUND (no such volume), ERR_BUSY (it is not mounted), or fn's own, where
 * *text is what the volume has to say of it ("": nothing). Thread context, not from a volume's thread.
 */
typedef enum status volume_fn(struct csv *csv, void *arg);
enum status volume_call(const char *name, size_t bytes, volume_fn *fn, void *arg, char *text, size_t text_bytes) MUST_CHECK;

/*
 * Tries to mount it now; `take_over`: also from whoever has its reservation or has it mounted, which an admin says is gone. As
 * volume_call().
 */
enum status volume_mount(const char *name, bool take_over, char *text, size_t text_bytes) MUST_CHECK;

/*
 * Makes a volume `name` on the disk of a storage, and mounts it; from now on it is among the node's volumes, until the node
 * restarts or for as long as the configuration says so. Nothing but `force` makes it write over what the disk holds. Not OK
 * with *text: ERR_EXISTS (a volume of that name, or the disk holds something, which *text names), ERR_INVALID (the name),
 * ERR_RANGE (the disk's size), ERR_READ_ONLY; as volume_mount(); as storage_open(). One caller at a time.
 */
enum status volume_add(const char *storage, const char *name, bool force, char *text, size_t text_bytes) MUST_CHECK;

/* Makes the volume as large as its disk is by now. Its size in bytes before and after. As volume_call(). */
enum status volume_grow(const char *name, uint64_t *before, uint64_t *after, char *text, size_t text_bytes) MUST_CHECK;

/*
 * Takes /ClusterStorage/VOLUME/PATH apart: the volume's name is the *bytes at *volume, *path what follows it ("" for its
 * root). False: it is no such path.
 */
bool volume_path(const char *text, const char **volume, size_t *bytes, const char **path) MUST_CHECK;

#endif
