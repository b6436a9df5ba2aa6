/* SPDX-License-Identifier: MIT */
/*
 * Open files of a mounted volume, and their bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs.h"
#include "say.h"

/* ---- Open files ---- */

enum status fs_file_open(struct fs *fs, struct fs_node *node, struct fuse_file_info *info)
{
    struct fs_file *open_file = fs_node_is_dead(node) ? NULL : calloc(1, sizeof(*open_file));
    if (!open_file)
        return fs_node_is_dead(node) ? ERR_NOT_FOUND : ERR_NO_MEMORY;
    enum status status = csv_open(fs->tool.volume, node->inode, &open_file->file);
    if (!status && info->flags & O_TRUNC) {
        fs_changes(fs);
        status = csv_set_size(open_file->file, 0);
        if (status && csv_close(open_file->file))
            say_error("%s: a file could not be closed", fs->tool.device->name);
    }
    if (status) {
        free(open_file);
        return status;
    }
    open_file->node = node;
    node->opens++;
    open_file->next = fs->files;
    fs->files = open_file;
    info->fh = (uintptr_t)open_file;
    info->keep_cache = 1; /* nobody but the kernel changes the file */
    return OK;
}

static void close_one(struct fs *fs, struct fs_file *open_file)
{
    enum status status = csv_close(open_file->file);
    if (status)
        say_error("%s: a file could not be closed: %s", fs->tool.device->name, say_status(status));
    open_file->node->opens--;
    free(open_file);
}

static void close_file(struct fs *fs, struct fs_file *open_file)
{
    struct fs_file **at = &fs->files;
    while (*at != open_file)
        at = &(*at)->next;
    *at = open_file->next;
    close_one(fs, open_file);
}

void fs_files_close(struct fs *fs)
{
    while (fs->files)
        close_file(fs, fs->files);
}

static struct csv_file *file_of(struct fuse_file_info *info)
{
    return ((struct fs_file *)(uintptr_t)info->fh)->file;
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    enum status status = fs_file_open(fs, fs_node(fs, node), info);
    if (status)
        fuse_reply_err(req, fs_errno(fs, status));
    else
        fuse_reply_open(req, info);
}

static void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    (void)node;
    if (!fs->read_only)
        fs_changes(fs); /* a file without a name goes now */
    close_file(fs, (struct fs_file *)(uintptr_t)info->fh);
    fuse_reply_err(req, 0);
}

/* ---- Bytes ---- */

static void op_read(fuse_req_t req, fuse_ino_t node, size_t bytes, off_t offset, struct fuse_file_info *info)
{
    uint64_t done = 0;
    char *answer = malloc(bytes ? bytes : 1);
    (void)node;
    enum status status = answer ? csv_read(file_of(info), (uint64_t)offset, answer, bytes, &done) : ERR_NO_MEMORY;
    if (status)
        fuse_reply_err(req, fs_errno(fs_of(req), status));
    else
        fuse_reply_buf(req, answer, done);
    free(answer);
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t bytes, off_t offset,
                     struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    (void)node;
    fs_changes(fs);
    enum status status = csv_write(file_of(info), (uint64_t)offset, data, bytes);
    if (status)
        fuse_reply_err(req, fs_errno(fs, status));
    else
        fuse_reply_write(req, bytes);
}

/* Nothing is kept back for a close: what was written is with the volume. */
static void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node;
    (void)info;
    fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int data_only, struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    (void)node;
    (void)data_only;
    (void)info;
    fuse_reply_err(req, fs->read_only ? 0 : fs_errno(fs, csv_sync(fs->tool.volume)));
}

/*
 * The format has no blocks beyond a file's end, so preallocating there without moving the end is refused; what lies
 * before the end is done.
 */
static int allocate(struct csv_file *file, int mode, uint64_t offset, uint64_t count, enum status *status)
{
    uint64_t size = csv_size(file), within = offset < size ? MIN(count, size - offset) : 0;
    bool keep = mode & FALLOC_FL_KEEP_SIZE;
    *status = OK;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
        if (keep && within < count)
            return EOPNOTSUPP;
        *status = csv_preallocate(file, offset, count);
        return 0;
    case FALLOC_FL_PUNCH_HOLE: /* only with KEEP_SIZE, which the kernel sees to */
        if (within)
            *status = csv_punch(file, offset, within);
        return 0;
    case FALLOC_FL_ZERO_RANGE:
        if (keep && within < count)
            return EOPNOTSUPP;
        if (within)
            *status = csv_punch(file, offset, within);
        if (!*status)
            *status = csv_preallocate(file, offset, count);
        return 0;
    default:
        return EOPNOTSUPP;
    }
}

static void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t count,
                         struct fuse_file_info *info)
{
    struct fs *fs = fs_of(req);
    enum status status;
    (void)node;
    fs_changes(fs);
    int error = allocate(file_of(info), mode, (uint64_t)offset, (uint64_t)count, &status);
    if (!error && !status) { /* a hole is a change as a write is, to whoever looks at the time */
        struct csv_attributes now = { .set_modified = true, .modified_ns = tool_now_ns() };
        status = csv_set_attributes(fs->tool.volume, csv_inode_of(file_of(info)), &now);
    }
    fuse_reply_err(req, error ? error : fs_errno(fs, status));
}

/* SEEK_DATA and SEEK_HOLE; the kernel does the others itself. Unwritten blocks count as a hole: they read as zeros. */
static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, struct fuse_file_info *info)
{
    struct csv_file *file = file_of(info);
    uint64_t size = csv_size(file), at = (uint64_t)offset;
    struct csv_mapping mapping;
    (void)node;
    if (offset < 0 || at >= size || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
        fuse_reply_err(req, whence == SEEK_DATA || whence == SEEK_HOLE ? ENXIO : EINVAL);
        return;
    }
    while (at < size) {
        enum status status = csv_map(file, at, size - at, &mapping);
        if (status) {
            fuse_reply_err(req, fs_errno(fs_of(req), status));
            return;
        }
        bool hole = mapping.kind == CSV_MAP_HOLE || mapping.kind == CSV_MAP_UNWRITTEN;
        if (hole == (whence == SEEK_HOLE))
            break;
        at += mapping.bytes;
    }
    if (at >= size && whence == SEEK_DATA)
        fuse_reply_err(req, ENXIO);
    else
        fuse_reply_lseek(req, (off_t)MIN(at, size));
}

void fs_files_operations(struct fuse_lowlevel_ops *operations)
{
    operations->open = op_open;
    operations->release = op_release;
    operations->read = op_read;
    operations->write = op_write;
    operations->flush = op_flush;
    operations->fsync = op_fsync;
    operations->fallocate = op_fallocate;
    operations->lseek = op_lseek;
}
