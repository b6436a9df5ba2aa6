/* SPDX-License-Identifier: MIT */
/*
 * A file of a volume as a disk of a VM: requests as a storage takes them (net/storage.h), by offsets in the file.
 *
 * What lies in written blocks goes to the storage as it is, with the requester's own memory and any number at once; what
 * changes the file's map (the first write of a block, a discard) is done by the volume's thread alone, when nothing of
 * this file is under way.
 */
#ifndef VOLUME_VOLUME_FILE_H
#define VOLUME_VOLUME_FILE_H

#include "volume/volume.h"

struct volume_file;

struct volume_file_info {
    uint64_t bytes;
    uint32_t block_bytes; /* of requests' offsets and lengths */
};

/*
 * Opens a file by its path (volume_path()) for `user`, who stays until volume_file_close(). One user at a time. Not OK with
 * *text. Thread context.
 */
enum status volume_file_open(const char *path, struct storage_user *user, struct volume_file **file,
                             struct volume_file_info *info, char *text, size_t text_bytes) MUST_CHECK;
/* Whether its volume is configured and not mounted yet, for want of its disk. */
bool volume_file_will_come(const char *path);
/* Whether a file is somebody's disk. In its volume's thread. */
bool volume_file_in_use(const struct csv *csv, uint64_t inode);
/* Hands a request over, as storage_submit(); done() is called in the storage's or the volume's thread. No wait. */
void volume_file_submit(struct volume_file *file, struct disk_request *request);
/* Ends what is left of the user's requests as ERR_CANCELLED; afterwards nothing of his is touched. Does not wait for disks. */
void volume_file_cancel(struct volume_file *file);
/* The same, and gives the file back. */
void volume_file_close(struct volume_file *file);

#endif
