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

uint64_t fs_inode(const struct fs *fs, fuse_ino_t node)
{
    return node == FUSE_ROOT_ID ? csv_root(fs->tool.volume) : node;
}

fuse_ino_t fs_node(const struct fs *fs, uint64_t inode)
{
    return inode == csv_root(fs->tool.volume) ? FUSE_ROOT_ID : inode;
}

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
        say_error("%s: %s: unmount the volume and run `fsck`", fs->tool.device->name, csv_problem(fs->tool.volume));
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

void fs_attributes(const struct csv_stat *from, struct stat *to)
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

void fs_reply_entry(fuse_req_t req, uint64_t inode, const struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry = { .attr_timeout = FS_CACHE_S, .entry_timeout = FS_CACHE_S };
    struct csv_stat stat;
    enum status status = csv_stat(fs->tool.volume, inode, &stat);
    if (status) {
        fuse_reply_err(req, fs_errno(fs, status));
        return;
    }
    entry.ino = fs_node(fs, inode);
    entry.generation = stat.generation;
    fs_attributes(&stat, &entry.attr);
    if (info)
        fuse_reply_create(req, &entry, info);
    else
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

/* ---- Looking ---- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct csv_entry entry;
    int error = name_fault(name);
    if (!error)
        error = name_errno(fs, csv_lookup(fs->tool.volume, fs_inode(fs, parent), name, strlen(name), &entry));
    if (error)
        fuse_reply_err(req, error);
    else
        fs_reply_entry(req, entry.inode, NULL);
}

static void reply_attributes(fuse_req_t req, fuse_ino_t node)
{
    struct fs *fs = fs_of(req);
    struct csv_stat stat;
    struct stat attributes;
    enum status status = csv_stat(fs->tool.volume, fs_inode(fs, node), &stat);
    if (status) {
        fuse_reply_err(req, fs_errno(fs, status));
        return;
    }
    fs_attributes(&stat, &attributes);
    fuse_reply_attr(req, &attributes, FS_CACHE_S);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)info;
    reply_attributes(req, node);
}

/* Access times are not kept: setting one changes nothing, and is no error. */
static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *to, int set, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct csv_attributes attributes = {
        .set_mode = set & FUSE_SET_ATTR_MODE,
        .set_owner = set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID),
        .set_modified = set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW),
        .mode = to->st_mode & 07777,
    };
    uint64_t inode = fs_inode(fs, node);
    struct csv_file *file;
    struct csv_stat now = { 0 };
    fs_changes(fs);
    enum status status = csv_stat(fs->tool.volume, inode, &now);
    attributes.uid = set & FUSE_SET_ATTR_UID ? to->st_uid : now.uid;
    attributes.gid = set & FUSE_SET_ATTR_GID ? to->st_gid : now.gid;
    attributes.modified_ns = set & FUSE_SET_ATTR_MTIME_NOW
                                 ? tool_now_ns()
                                 : to->st_mtim.tv_sec * INT64_C(1000000000) + to->st_mtim.tv_nsec;
    if (!status && set & FUSE_SET_ATTR_SIZE) {
        status = csv_open(fs->tool.volume, inode, &file);
        if (!status) {
            status = csv_set_size(file, (uint64_t)to->st_size);
            enum status closed = csv_close(file);
            status = status ? status : closed;
        }
    }
    if (!status && (attributes.set_mode || attributes.set_owner || attributes.set_modified))
        status = csv_set_attributes(fs->tool.volume, inode, &attributes);
    (void)info;
    if (status)
        fuse_reply_err(req, fs_errno(fs, status));
    else
        reply_attributes(req, node);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
    struct csv_info info;
    (void)node;
    csv_statfs(fs_volume(req), &info);
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
    uint64_t in = fs_inode(fs, parent);
    size_t bytes = strlen(name);
    struct csv_attributes owner = { .set_owner = true, .uid = caller->uid, .gid = caller->gid };
    struct csv_stat stat;
    int error = name_fault(name);
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
        fs_reply_entry(req, inode, NULL);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    uint64_t inode;
    (void)device;
    int error = S_ISREG(mode) ? make(req, parent, name, mode, false, &inode) : EPERM;
    if (error)
        fuse_reply_err(req, error);
    else
        fs_reply_entry(req, inode, NULL);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    uint64_t inode;
    int error = make(req, parent, name, mode, false, &inode);
    if (!error)
        error = fs_errno(fs, fs_file_open(fs, inode, info));
    if (error)
        fuse_reply_err(req, error);
    else
        fs_reply_entry(req, inode, info);
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

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    fs_changes(fs);
    int error = name_fault(name);
    if (!error)
        error = name_errno(fs, csv_unlink(fs->tool.volume, fs_inode(fs, parent), name, strlen(name)));
    fuse_reply_err(req, error);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    fs_changes(fs);
    int error = name_fault(name);
    if (!error)
        error = name_errno(fs, csv_rmdir(fs->tool.volume, fs_inode(fs, parent), name, strlen(name)));
    fuse_reply_err(req, error);
}

static int rename_errno(struct fs *fs, uint64_t from, const char *name, uint64_t to, const char *to_name, unsigned flags)
{
    struct csv_entry there;
    int error = name_fault(to_name);
    if (!error)
        error = name_fault(name);
    if (error)
        return error;
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return EINVAL; /* two files cannot be exchanged in one step */
    enum status status = csv_lookup(fs->tool.volume, to, to_name, strlen(to_name), &there);
    if (status && status != ERR_NOT_FOUND)
        return name_errno(fs, status);
    if (!status && flags & RENAME_NOREPLACE)
        return EEXIST;
    return fs_errno(fs, csv_rename(fs->tool.volume, from, name, strlen(name), to, to_name, strlen(to_name)));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
    struct fs *fs = fs_of(req);
    fs_changes(fs);
    fuse_reply_err(req, rename_errno(fs, fs_inode(fs, parent), name, fs_inode(fs, new_parent), new_name, flags));
}

/* ---- Listing ---- */

static void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fs_directory *directory = calloc(1, sizeof(*directory));
    struct csv_stat stat;
    enum status status = directory ? csv_stat(fs->tool.volume, fs_inode(fs, node), &stat) : ERR_NO_MEMORY;
    if (status) {
        free(directory);
        fuse_reply_err(req, fs_errno(fs, status));
        return;
    }
    directory->generation = stat.generation;
    info->fh = (uintptr_t)directory;
    fuse_reply_open(req, info);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node;
    free((struct fs_directory *)(uintptr_t)info->fh);
    fuse_reply_err(req, 0);
}

/* Positions: 0 before ".", 1 before "..", 2 before the first entry, then half of the cursor, which is never that low. */
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
static bool add(fuse_req_t req, char *answer, size_t bytes, size_t *used, const char *name, uint64_t inode, uint32_t type,
                off_t next)
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
    struct csv *volume = fs_volume(req);
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

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t bytes, off_t position, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    struct fs_directory *directory = (struct fs_directory *)(uintptr_t)info->fh;
    uint64_t inode = fs_inode(fs, node);
    struct csv_stat stat;
    size_t used = 0;
    char *answer = malloc(bytes);
    enum status status = answer ? csv_stat(fs->tool.volume, inode, &stat) : ERR_NO_MEMORY;
    if (!status && stat.type == CSV_IS_DIRECTORY && stat.generation == directory->generation)
        status = list(req, inode, &stat, directory, position, answer, bytes, &used);
    /* A directory that was removed while it was open has no entries. */
    if (status && status != ERR_NOT_FOUND && !used)
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
