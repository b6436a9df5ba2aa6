/* SPDX-License-Identifier: MIT */
/*
 * Names and attributes of a mounted volume. The kernel checks permissions (default_permissions), that a directory is
 * one, and what may replace what in a rename; here is what only the volume knows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs.h"
#include "say.h"

void fs_changes(struct fs *fs)
{
    csv_set_time(fs->tool.volume, tool_now_ns());
    fs->dirty = true;
}

int fs_errno(const struct fs *fs, enum status status)
{
    switch (status) {
    case OK:
        return 0;
    case ERR_NO_MEMORY:
        return ENOMEM;
    case ERR_INVALID:
        return EINVAL;
    case ERR_RANGE:
        return EFBIG;
    case ERR_NOT_FOUND:
        return ENOENT;
    case ERR_EXISTS:
        return EEXIST;
    case ERR_BUSY:
        return EBUSY;
    case ERR_NO_SPACE:
        return ENOSPC;
    case ERR_READ_ONLY:
        return EROFS;
    case ERR_NOT_EMPTY:
        return ENOTEMPTY;
    case ERR_CORRUPT:
        say_error("%s: %s: unmount the volume and run `tasuki-csv fsck --repair`", fs->tool.device->name, csv_problem(fs->tool.volume));
        return EIO;
    default:
        return EIO;
    }
}

static struct timespec time_of(int64_t ns)
{
    int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
    if (rest < 0) {
        rest += 1000000000;
        seconds--;
    }
    return (struct timespec){ .tv_sec = seconds, .tv_nsec = rest };
}

/* What is out of the format's reach (some 292 years from 1970) becomes its first or last time. */
static int64_t ns_of(struct timespec time)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)time.tv_sec, INT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, (int64_t)time.tv_nsec, &ns))
        return time.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

static void attributes_of(const struct csv_stat *from, struct stat *to)
{
    bool directory = from->type == CSV_IS_DIRECTORY;
    memset(to, 0, sizeof(*to));
    to->st_ino = from->inode;
    to->st_mode = (directory ? S_IFDIR : S_IFREG) | (from->mode & 07777);
    to->st_nlink = from->links; /* a directory's is always 1: its subdirectories are not counted */
    to->st_uid = from->uid;
    to->st_gid = from->gid;
    to->st_size = (off_t)(directory ? from->size * 64 : from->size);
    to->st_blocks = (blkcnt_t)(directory ? CSV_BLOCK_BYTES / 512 : from->blocks * (CSV_BLOCK_BYTES / 512));
    to->st_blksize = CSV_BLOCK_BYTES;
    to->st_mtim = to->st_atim = time_of(from->modified_ns);
    to->st_ctim = time_of(from->changed_ns);
}

/* Answers with an entry for an inode. */
static void reply_entry(fuse_req_t req, uint64_t inode)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry = { .attr_timeout = FS_CACHE_S, .entry_timeout = FS_CACHE_S };
    struct csv_stat stat;
    enum status status = csv_stat(fs->tool.volume, inode, &stat);
    entry.ino = status ? 0 : fs_node_take(fs, inode);
    if (!entry.ino) {
        fuse_reply_err(req, status ? fs_errno(fs, status) : ENOMEM);
        return;
    }
    entry.generation = stat.generation;
    attributes_of(&stat, &entry.attr);
    fuse_reply_entry(req, &entry);
}

/* A name that the kernel passes: 0, or why it is none of this volume's. */
static int name_fault(const char *name)
{
    return strlen(name) > CSV_NAME_BYTES ? ENAMETOOLONG : 0;
}

/* The errno of an operation on a name: what is no name of a volume's (not UTF-8, control characters) is EILSEQ. */
static int name_errno(const struct fs *fs, enum status status)
{
    return status == ERR_INVALID ? EILSEQ : fs_errno(fs, status);
}

/* The directory of a request: 0, or ENOENT if it is gone. */
static int directory_of(struct fs *fs, fuse_ino_t number, uint64_t *inode)
{
    struct fs_node *node = fs_node(fs, number);
    *inode = node->inode;
    return fs_node_is_dead(node) ? ENOENT : 0;
}

/* ---- Looking ---- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct csv_entry entry;
    uint64_t in;
    int error = directory_of(fs, parent, &in);
    if (!error)
        error = name_fault(name);
    if (!error)
        error = name_errno(fs, csv_lookup(fs->tool.volume, in, name, strlen(name), &entry));
    if (error)
        fuse_reply_err(req, error);
    else
        reply_entry(req, entry.inode);
}

static void reply_attributes(fuse_req_t req, const struct fs_node *node)
{
    struct fs *fs = fs_of(req);
    struct csv_stat stat;
    struct stat attributes;
    enum status status = fs_node_stat(fs, node, &stat);
    if (status) {
        fuse_reply_err(req, fs_errno(fs, status));
        return;
    }
    attributes_of(&stat, &attributes);
    fuse_reply_attr(req, &attributes, FS_CACHE_S);
}

static void op_getattr(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info)
{
    (void)info;
    reply_attributes(req, fs_node(fs_of(req), number));
}

static enum status set_size(struct fs *fs, uint64_t inode, uint64_t bytes)
{
    struct csv_file *file;
    enum status status = csv_open(fs->tool.volume, inode, &file);
    if (status)
        return status;
    status = csv_set_size(file, bytes);
    enum status closed = csv_close(file);
    return status ? status : closed;
}

/* Access times are not kept: setting one changes nothing, and is no error. */
static enum status set_attributes(struct fs *fs, const struct fs_node *node, const struct stat *to, int set)
{
    struct csv_attributes attributes = {
        .set_mode = set & FUSE_SET_ATTR_MODE,
        .set_owner = set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID),
        .set_modified = set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW),
        .mode = to->st_mode & 07777,
    };
    struct csv_stat now;
    if (fs_node_is_dead(node))
        return ERR_NOT_FOUND;
    enum status status = csv_stat(fs->tool.volume, node->inode, &now);
    if (status)
        return status;
    attributes.uid = set & FUSE_SET_ATTR_UID ? to->st_uid : now.uid;
    attributes.gid = set & FUSE_SET_ATTR_GID ? to->st_gid : now.gid;
    attributes.modified_ns = set & FUSE_SET_ATTR_MTIME_NOW ? tool_now_ns() : ns_of(to->st_mtim);
    if (set & FUSE_SET_ATTR_SIZE)
        status = set_size(fs, node->inode, (uint64_t)to->st_size);
    if (!status && (attributes.set_mode || attributes.set_owner || attributes.set_modified))
        status = csv_set_attributes(fs->tool.volume, node->inode, &attributes);
    return status;
}

static void op_setattr(fuse_req_t req, fuse_ino_t number, struct stat *to, int set, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fs_node *node = fs_node(fs, number);
    (void)info;
    fs_changes(fs);
    enum status status = set_attributes(fs, node, to, set);
    if (status)
        fuse_reply_err(req, fs_errno(fs, status));
    else
        reply_attributes(req, node);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
    struct csv_info info;
    (void)node;
    csv_statfs(fs_of(req)->tool.volume, &info);
    struct statvfs answer = { .f_bsize = CSV_BLOCK_BYTES, .f_frsize = CSV_BLOCK_BYTES, .f_blocks = info.blocks,
                              .f_bfree = info.free_blocks, .f_bavail = info.free_blocks,
                              .f_files = info.inodes + info.free_blocks, .f_ffree = info.free_blocks,
                              .f_favail = info.free_blocks, .f_namemax = CSV_NAME_BYTES };
    fuse_reply_statfs(req, &answer);
}

/* ---- Making ---- */

/* A new file or directory with the caller's owner; the group is the directory's where that has its set-group-ID bit. */
static int make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, bool directory, uint64_t *inode)
{
    struct fs *fs = fs_of(req);
    struct csv *volume = fs->tool.volume;
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    size_t bytes = strlen(name);
    struct csv_attributes owner = { .set_owner = true, .uid = caller->uid, .gid = caller->gid };
    struct csv_stat stat;
    uint64_t in;
    int error = directory_of(fs, parent, &in);
    if (!error)
        error = name_fault(name);
    if (error)
        return error;
    fs_changes(fs);
    enum status status = csv_stat(volume, in, &stat);
    if (status)
        return fs_errno(fs, status);
    if (stat.mode & S_ISGID) {
        owner.gid = stat.gid;
        mode |= directory ? S_ISGID : 0;
    }
    status = directory ? csv_mkdir(volume, in, name, bytes, mode & 07777, inode)
                       : csv_create(volume, in, name, bytes, mode & 07777, inode);
    if (status)
        return name_errno(fs, status);
    if (owner.uid || owner.gid)
        status = csv_set_attributes(volume, *inode, &owner);
    if (status && (directory ? csv_rmdir(volume, in, name, bytes) : csv_unlink(volume, in, name, bytes)))
        say_error("%s: was made with a wrong owner, and cannot be removed", name);
    return fs_errno(fs, status);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    uint64_t inode;
    int error = make(req, parent, name, mode, true, &inode);
    if (error)
        fuse_reply_err(req, error);
    else
        reply_entry(req, inode);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    uint64_t inode;
    (void)device;
    int error = S_ISREG(mode) ? make(req, parent, name, mode, false, &inode) : EPERM;
    if (error)
        fuse_reply_err(req, error);
    else
        reply_entry(req, inode);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry = { .attr_timeout = FS_CACHE_S, .entry_timeout = FS_CACHE_S };
    struct csv_stat stat;
    uint64_t inode;
    int error = make(req, parent, name, mode, false, &inode);
    if (!error)
        error = fs_errno(fs, csv_stat(fs->tool.volume, inode, &stat));
    if (!error)
        entry.ino = fs_node_take(fs, inode);
    if (!error && !entry.ino)
        error = ENOMEM;
    if (!error)
        error = fs_errno(fs, fs_file_open(fs, fs_node(fs, entry.ino), info));
    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    entry.generation = stat.generation;
    attributes_of(&stat, &entry.attr);
    fuse_reply_create(req, &entry, info);
}

/* What the format does not have. EPERM is what POSIX and Linux have for a file system without them. */
static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    (void)parent;
    (void)name;
    fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
    (void)node;
    (void)parent;
    (void)name;
    fuse_reply_err(req, EPERM);
}

/* ---- Removing, renaming ---- */

/* What a name stands for that is about to go. ERR_NOT_FOUND. */
static enum status stat_name(struct fs *fs, uint64_t in, const char *name, struct csv_stat *stat)
{
    struct csv_entry entry;
    enum status status = csv_lookup(fs->tool.volume, in, name, strlen(name), &entry);
    return status ? status : csv_stat(fs->tool.volume, entry.inode, stat);
}

static int remove_name(struct fs *fs, fuse_ino_t parent, const char *name, bool directory)
{
    struct csv_stat last;
    uint64_t in;
    int error = directory_of(fs, parent, &in);
    if (!error)
        error = name_fault(name);
    if (error)
        return error;
    fs_changes(fs);
    enum status status = stat_name(fs, in, name, &last);
    if (!status)
        status = directory ? csv_rmdir(fs->tool.volume, in, name, strlen(name))
                           : csv_unlink(fs->tool.volume, in, name, strlen(name));
    if (!status)
        fs_node_lost_name(fs, &last);
    return name_errno(fs, status);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, remove_name(fs_of(req), parent, name, false));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, remove_name(fs_of(req), parent, name, true));
}

static int rename_errno(struct fs *fs, uint64_t from, const char *name, uint64_t to, const char *to_name,
                        unsigned flags)
{
    struct csv_stat moved, replaced;
    int error = name_fault(to_name);
    if (!error)
        error = name_fault(name);
    if (error)
        return error;
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return EINVAL; /* two files cannot be exchanged in one step */
    enum status status = stat_name(fs, from, name, &moved);
    if (status)
        return name_errno(fs, status);
    status = stat_name(fs, to, to_name, &replaced);
    if (status && status != ERR_NOT_FOUND)
        return name_errno(fs, status);
    bool replaces = !status && replaced.inode != moved.inode;
    if (!status && flags & RENAME_NOREPLACE)
        return EEXIST;
    status = csv_rename(fs->tool.volume, from, name, strlen(name), to, to_name, strlen(to_name));
    if (!status && replaces)
        fs_node_lost_name(fs, &replaced);
    return fs_errno(fs, status);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
    struct fs *fs = fs_of(req);
    uint64_t from, to;
    fs_changes(fs);
    int error = directory_of(fs, parent, &from);
    if (!error)
        error = directory_of(fs, new_parent, &to);
    if (!error)
        error = rename_errno(fs, from, name, to, new_name, flags);
    fuse_reply_err(req, error);
}

/* ---- Listing ---- */

static void op_opendir(fuse_req_t req, fuse_ino_t number, struct fuse_file_info *info)
{
    struct fs_directory *directory = calloc(1, sizeof(*directory));
    (void)number;
    if (!directory) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    info->fh = (uintptr_t)directory;
    fuse_reply_open(req, info);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node;
    free((struct fs_directory *)(uintptr_t)info->fh);
    fuse_reply_err(req, 0);
}

/* Positions: 0 before ".", 1 before "..", 2 before the first entry, then half of the cursor, never that low. */
static off_t position_of(uint64_t cursor)
{
    uint64_t half = cursor / 2 + (cursor & 1);
    return (off_t)MIN(MAX(half, 3), (uint64_t)INT64_MAX);
}

static uint64_t cursor_of(const struct fs_directory *directory, off_t position)
{
    if (position == directory->position)
        return directory->cursor;
    return position <= 2 ? 0 : (uint64_t)position * 2;
}

/* Adds an entry to the answer. False: it is full. */
static bool add(fuse_req_t req, char *answer, size_t bytes, size_t *used, const char *name, uint64_t inode,
                uint32_t type, off_t next)
{
    struct stat stat = { .st_ino = inode, .st_mode = type == CSV_IS_DIRECTORY ? S_IFDIR : S_IFREG };
    size_t need = fuse_add_direntry(req, answer + *used, bytes - *used, name, &stat, next);
    if (need > bytes - *used)
        return false;
    *used += need;
    return true;
}

static enum status list(fuse_req_t req, uint64_t inode, const struct csv_stat *stat, struct fs_directory *directory,
                        off_t position, char *answer, size_t bytes, size_t *used)
{
    struct csv *volume = fs_of(req)->tool.volume;
    struct csv_entry entry;
    if (position == 0 && !add(req, answer, bytes, used, ".", inode, CSV_IS_DIRECTORY, 1))
        return OK;
    if (position <= 1 && !add(req, answer, bytes, used, "..", stat->parent, CSV_IS_DIRECTORY, 2))
        return OK;
    uint64_t cursor = cursor_of(directory, position);
    for (;;) {
        uint64_t next = cursor;
        enum status status = csv_readdir(volume, inode, &next, &entry);
        if (status)
            return status == ERR_NOT_FOUND ? OK : status;
        if (!add(req, answer, bytes, used, entry.name, entry.inode, entry.type, position_of(next)))
            return OK;
        cursor = directory->cursor = next;
        directory->position = position_of(next);
    }
}

/* A directory that was removed while it is open has no entries. */
static void op_readdir(fuse_req_t req, fuse_ino_t number, size_t bytes, off_t position, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fs_node *node = fs_node(fs, number);
    struct fs_directory *directory = (struct fs_directory *)(uintptr_t)info->fh;
    struct csv_stat stat;
    size_t used = 0;
    char *answer = malloc(bytes);
    enum status status = answer ? OK : ERR_NO_MEMORY;
    if (!status && !fs_node_is_dead(node)) {
        status = csv_stat(fs->tool.volume, node->inode, &stat);
        if (!status)
            status = list(req, node->inode, &stat, directory, position, answer, bytes, &used);
    }
    if (status && !used)
        fuse_reply_err(req, fs_errno(fs, status));
    else
        fuse_reply_buf(req, answer, used);
    free(answer);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t node, int data_only, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    (void)node;
    (void)data_only;
    (void)info;
    fuse_reply_err(req, fs->read_only ? 0 : fs_errno(fs, csv_sync(fs->tool.volume)));
}

void fs_names_operations(struct fuse_lowlevel_ops *operations)
{
    operations->lookup = op_lookup;
    operations->getattr = op_getattr;
    operations->setattr = op_setattr;
    operations->statfs = op_statfs;
    operations->mkdir = op_mkdir;
    operations->mknod = op_mknod;
    operations->create = op_create;
    operations->symlink = op_symlink;
    operations->link = op_link;
    operations->unlink = op_unlink;
    operations->rmdir = op_rmdir;
    operations->rename = op_rename;
    operations->opendir = op_opendir;
    operations->readdir = op_readdir;
    operations->releasedir = op_releasedir;
    operations->fsyncdir = op_fsyncdir;
}
