/* SPDX-License-Identifier: MIT */
/*
 * A volume under a directory, by FUSE's low-level interface: what its files share. mount.c has the session, fs_nodes.c
 * what the kernel knows, fs_names.c names and attributes, fs_files.c open files and their bytes. One thread does
 * everything, so the volume has one user.
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

/* An inode that the kernel knows (fs_nodes.c). */
struct fs_node {
    struct fs_node *next;
    uint64_t inode;
    uint64_t known; /* how often the kernel was told of it, less how often it forgot */
    uint64_t opens; /* of a file */
    bool removed;   /* it has no name any more */
    struct csv_stat last; /* what it was then */
};

/* An open file. */
struct fs_file {
    struct fs_file *next;
    struct fs_node *node;
    struct csv_file *file;
};

/*
 * An open directory. A position in a listing is a key of 64 bits, and that of a directory stream 63, so that one bit
 * is lost; for who reads on where he was (practically everybody) the exact one is kept here.
 */
struct fs_directory {
    uint64_t cursor; /* exact, for the position below */
    off_t position;
};

struct fs {
    struct tool tool;
    bool read_only;
    bool dirty; /* since the last sync */
    struct fs_file *files;
    struct fs_node root, **bucket;
    unsigned bucket_bits;
    size_t node_count;
};

static inline struct fs *fs_of(fuse_req_t req) { return fuse_req_userdata(req); }

/* Sets the volume's time, and remembers that there is something to sync. Before every change. */
void fs_changes(struct fs *fs);
/* The errno of a status; damage is also said. */
int fs_errno(const struct fs *fs, enum status status);

/* ---- fs_nodes.c ---- */

struct fs_node *fs_node(struct fs *fs, fuse_ino_t number);
/* The node number of an inode that the kernel is about to be told of. 0: no memory. */
fuse_ino_t fs_node_take(struct fs *fs, uint64_t inode);
/* An inode has lost its name; `last` is what it was before. */
void fs_node_lost_name(struct fs *fs, const struct csv_stat *last);
/* True if the inode is gone: its number may stand for something else. */
static inline bool fs_node_is_dead(const struct fs_node *node) { return node->removed && !node->opens; }
/* Also of a dead one. */
enum status fs_node_stat(struct fs *fs, const struct fs_node *node, struct csv_stat *stat) MUST_CHECK;
void fs_nodes_free(struct fs *fs);

/* ---- fs_files.c ---- */

/* Opens a file for a request; cuts it to nothing if the flags say so. */
enum status fs_file_open(struct fs *fs, struct fs_node *node, struct fuse_file_info *info) MUST_CHECK;
/* All that are still open, before the volume is unmounted. */
void fs_files_close(struct fs *fs);

/* Enter their operations into the table. */
void fs_nodes_operations(struct fuse_lowlevel_ops *operations);
void fs_names_operations(struct fuse_lowlevel_ops *operations);
void fs_files_operations(struct fuse_lowlevel_ops *operations);

#endif
