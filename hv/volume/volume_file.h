/* SPDX-License-Identifier: MIT */
/*
 * A file of a volume as a disk of a VM: requests as a storage takes them (net/storage.h), by offsets in the file.
 *
 * What lies in written blocks goes to the storage at once, in the user's thread, with the requester's own memory and any
 * number at a time. What changes the file's map (the first write of a block, a discard) is left to the volume's thread;
 * requests for other blocks go on meanwhile.
 *
 * A write that cannot be done for now (no block is left, or no memory, or the volume takes no changes) is not answered: it
 * is stuck, and all that comes behind it, and the user is told. It is tried again every few seconds, when the volume has
 * changed, and when the user asks for it.
 */
#ifndef VOLUME_VOLUME_FILE_H
#define VOLUME_VOLUME_FILE_H

#include "volume/volume.h"

#define VOLUME_FILE_REQUESTS 32u /* of one user at a time */

struct volume_file;

struct volume_file_user {
    struct storage_user disk; /* its lost() and back(): of the volume's disk, and also from the volume's thread */
    /* Why a write is stuck, in words with the file's name and a cure; again after each try. The volume's thread. */
    void (*stuck)(struct volume_file_user *user, const char *why);
    /* No longer, however the request ended. The volume's or the storage's thread. */
    void (*freed)(struct volume_file_user *user);
};

struct volume_file_info {
    uint64_t bytes;
    uint32_t block_bytes; /* of requests' offsets and lengths */
};

/*
 * Opens a file by its path (volume_path()) for `user`, who stays until volume_file_close(). One user at a time. Not OK with
 * *text. Thread context.
 */
enum status volume_file_open(const char *path, struct volume_file_user *user, struct volume_file **file,
                             struct volume_file_info *info, char *text, size_t text_bytes) MUST_CHECK;
/*
 * How it is now, whatever its name has become; and: it gets another time of modification, durably. Both wait for the volume's
 * thread; not OK with *text, "CAUSE; CURE". Thread context.
 */
enum status volume_file_stat(struct volume_file *file, struct csv_stat *stat, char *text, size_t text_bytes) MUST_CHECK;
enum status volume_file_mark(struct volume_file *file, char *text, size_t text_bytes) MUST_CHECK;
/*
 * Makes it so large, durably, while its requests go on; *bytes is as much of that as can be asked for, as in volume_file_info.
 * ERR_RANGE: it is larger. Likewise.
 */
enum status volume_file_grow(struct volume_file *file, uint64_t *bytes, char *text, size_t text_bytes) MUST_CHECK;
/* Whether its volume is configured and not mounted yet, for want of its disk. */
bool volume_file_will_come(const char *path);
/* Whether a file is somebody's disk. In its volume's thread. */
bool volume_file_in_use(const struct csv *csv, uint64_t inode);
/*
 * For a call that changes the map of a whole file, a clone: waits for what of it is at the disk, and sends nothing more there
 * until volume_file_release(). A file that is nobody's disk: nothing. In its volume's thread.
 */
void volume_file_hold(const struct csv *csv, uint64_t inode);
void volume_file_release(const struct csv *csv, uint64_t inode);
/*
 * Hands a request over, as storage_submit(); done() is called in the storage's or the volume's thread, or at once. No wait.
 * ERR_BUSY: more than VOLUME_FILE_REQUESTS; ERR_CANCELLED: the volume is gone.
 */
void volume_file_submit(struct volume_file *file, struct disk_request *request);
/* Ends what is left of the user's requests as ERR_CANCELLED; afterwards nothing of his is touched. Does not wait for disks. */
void volume_file_cancel(struct volume_file *file);
/* Tries what is stuck again. */
void volume_file_retry(struct volume_file *file);
/* Cancels, and gives the file back. */
void volume_file_close(struct volume_file *file);

#endif
