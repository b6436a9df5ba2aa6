/* SPDX-License-Identifier: MIT */
/*
 * A volume under a directory, by FUSE's low-level interface: what its files share. mount.c has the session, fs_names.c
 * names and attributes, fs_files.c open files and their bytes. One thread does everything, so the volume has one user.
 *
 * A FUSE node number is the inode number; FUSE's root, 1, is the volume's (no inode of a volume has number 1). The
 * kernel tells a new file from an old one of the same number by the generation, which goes with every entry. Nothing is
 * kept for a node that is only known: a file that lost its name stays readable for those that have it open.
 *
 * Changes are made durable by fsync, and after some seconds by the session. What a program may rely on, and what it may
 * not (links, devices, access times), docs/tasuki-csv.md lists.
 */
#ifndef TOOLS_CSV_FS_H
#define TOOLS_CSV_FS_H

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>

#include "tool.h"

#define FS_CACHE_S 1.0 /* how long the kernel may keep names and attributes; all changes go through it anyway */

/* An open file. */
struct fs_file {
    struct fs_file *next;
    struct csv_file *file;
};

/*
 * An open directory. A position in a listing is a key of 64 bits, and that of a directory stream 63, so that one bit
 * is lost; for who reads on where he was (practically everybody) the exact one is kept here.
 */
struct fs_directory {
    uint64_t generation;
    uint64_t cursor; /* exact, for the position below */
    off_t position;
};

struct fs {
    struct tool tool;
    bool read_only;
    bool dirty; /* since the last sync */
    struct fs_file *files;
};

static inline struct fs *fs_of(fuse_req_t req) { return fuse_req_userdata(req); }
static inline struct csv *fs_volume(fuse_req_t req) { return fs_of(req)->tool.volume; }

/* The inode number of a node, and the other way round. */
uint64_t fs_inode(const struct fs *fs, fuse_ino_t node);
fuse_ino_t fs_node(const struct fs *fs, uint64_t inode);

/* Sets the volume's time, and remembers that there is something to sync. Before every change. */
void fs_changes(struct fs *fs);
/* The errno of a status; damage is also said. */
int fs_errno(const struct fs *fs, enum status status);
void fs_attributes(const struct csv_stat *from, struct stat *to);
/* Answers with an entry for an inode; with `info` (of an opened file) as create does. */
void fs_reply_entry(fuse_req_t req, uint64_t inode, const struct fuse_file_info *info);

/* Opens a file for a request. */
enum status fs_file_open(struct fs *fs, uint64_t inode, struct fuse_file_info *info) MUST_CHECK;
void fs_file_close(struct fs *fs, struct fuse_file_info *info);
/* All that are still open, before the volume is unmounted. */
void fs_files_close(struct fs *fs);

/* Enter their operations into the table. */
void fs_names_operations(struct fuse_lowlevel_ops *operations);
void fs_files_operations(struct fuse_lowlevel_ops *operations);

#endif
