/* SPDX-License-Identifier: MIT */
/*
 * Files of VMs on volumes, for the VMs' own threads and the shell: whole ones read and replaced, large ones written
 * piece by piece and then put in place, all through the volume's thread (volume/volume.h). Every function waits for the
 * disk; none may be called in a volume's thread.
 *
 * A path is /ClusterStorage/VOLUME/.... `who` is the VM's name; where a function fails, `text` is "vm WHO: CAUSE;
 * CURE". Common errors, which the comments do not repeat: ERR_INVALID (it is no such path, or the node has no such
 * volume), ERR_BUSY (the volume is not mounted), and those of the volume's core (csv/csv.h). Pieces are small enough
 * that other work of the volume comes between them.
 */
#ifndef VM_VM_FILES_H
#define VM_VM_FILES_H

#include "volume/volume.h"

#define VM_PATH_BYTES 1024

/*
 * All of a file, at most `most` bytes of it: *bytes is from kzalloc(*count + 1), with a NUL at its end. ERR_NOT_FOUND,
 * ERR_RANGE (it is larger), ERR_BUSY (it was changed meanwhile).
 */
enum status vm_file_read(const char *who, const char *path, uint64_t most, void **bytes, uint64_t *count, char *text,
                         size_t text_bytes) MUST_CHECK;
/* So many bytes of a file that vm_file_stat() told about. ERR_BUSY: it is another one now. */
enum status vm_file_read_at(const char *who, const char *path, const struct csv_stat *file, uint64_t offset,
                            void *bytes, uint64_t count, char *text, size_t text_bytes) MUST_CHECK;
/* OK with what is there; ERR_NOT_FOUND. */
enum status vm_file_stat(const char *who, const char *path, struct csv_stat *stat, char *text, size_t text_bytes)
    MUST_CHECK;
/*
 * The file is these bytes, durably, or what it was: a new file PATH.new is written and flushed, then renamed.
 * ERR_CANCELLED: the last flush failed, and nobody knows which of the two it is.
 */
enum status vm_file_replace(const char *who, const char *path, const void *bytes, size_t count, char *text,
                            size_t text_bytes) MUST_CHECK;
/* The same in pieces: begin, any number of appends, then commit or discard. The path must stay. */
struct vm_file_writer {
    const char *who, *path;
    uint64_t bytes;
};
enum status vm_file_begin(struct vm_file_writer *w, const char *who, const char *path, char *text, size_t text_bytes)
    MUST_CHECK;
enum status vm_file_append(struct vm_file_writer *w, const void *bytes, size_t count, char *text, size_t text_bytes)
    MUST_CHECK;
enum status vm_file_commit(struct vm_file_writer *w, char *text, size_t text_bytes) MUST_CHECK;
void vm_file_discard(struct vm_file_writer *w);
/* Durably. One that is not there is OK. Directories: empty ones. */
enum status vm_file_remove(const char *who, const char *path, char *text, size_t text_bytes) MUST_CHECK;
enum status vm_directory_make(const char *who, const char *path, char *text, size_t text_bytes) MUST_CHECK;

/* A disk: a new file of that size, its blocks reserved or not. Durably. ERR_EXISTS. */
enum status vm_disk_make(const char *who, const char *path, uint64_t bytes, bool preallocate, char *text,
                         size_t text_bytes) MUST_CHECK;
/* Larger, never smaller (ERR_RANGE); not one in use (ERR_BUSY). */
enum status vm_disk_grow(const char *who, const char *path, uint64_t bytes, char *text, size_t text_bytes) MUST_CHECK;
/* A copy that shares its blocks, on the same volume. ERR_EXISTS; ERR_BUSY: in use, unless `quiet`: nothing of it is
 * under way. */
enum status vm_disk_clone(const char *who, const char *path, const char *to, bool quiet, char *text, size_t text_bytes)
    MUST_CHECK;

/*
 * The disk becomes what the snapshot is, at once and durably, or stays what it was: a clone of the snapshot takes its name. Before
 * that, what it was is cloned as `keep`, a name beside it; NULL: it is lost. ERR_EXISTS: `keep` is there already; ERR_BUSY: one of
 * the two is in use; ERR_CANCELLED: the last flush failed, and nobody knows which of the two it is.
 */
enum status vm_disk_revert(const char *who, const char *path, const char *snapshot, const char *keep, char *text,
                           size_t text_bytes) MUST_CHECK;

/*
 * The next directory of the volume's root, from *cursor (0: the first) on, that has a file vm.conf. ERR_NOT_FOUND: no
 * more. `name` has CSV_NAME_BYTES + 1 bytes. *damaged: whether it has one cannot be told, since it cannot be read.
 */
enum status vm_directory_next(const char *volume, uint64_t *cursor, char *name, bool *damaged, char *text,
                              size_t text_bytes) MUST_CHECK;

#endif
