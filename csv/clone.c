/* SPDX-License-Identifier: MIT */
/*
 * A clone: a new file with the same blocks. It grows as an orphan without a name, a piece an operation, and gets its
 * name in the last one; a power cut before that leaves nothing but references, which the mount takes back.
 */
#include "csv/tree.h"
#include "csv/volume.h"

static enum status clone_begin(struct csv *v, struct csv_file *file, uint64_t *inode)
{
    struct csv_block *from, *to;
    enum status status = csv_inode_get(v, file->inode, CSV_IS_FILE, &from);
    if (!status)
        status = csv_inode_new(v, CSV_IS_FILE, 0, le32_get(from->bytes + CSV_IN_MODE), &to);
    if (status)
        return status;
    le64_put(to->bytes + CSV_IN_SIZE, le64_get(from->bytes + CSV_IN_SIZE));
    le32_put(to->bytes + CSV_IN_UID, le32_get(from->bytes + CSV_IN_UID));
    le32_put(to->bytes + CSV_IN_GID, le32_get(from->bytes + CSV_IN_GID));
    *inode = to->number;
    return csv_orphan_add(v, to->number, CSV_ORPHAN_DELETE);
}

/* Shares what the operation has room for, from *block on. *block == CSV_FILE_BLOCKS: all done. */
static enum status clone_some(struct csv *v, struct csv_file *file, uint64_t inode, uint64_t *block)
{
    struct csv_block *from, *root;
    enum status status = csv_root_block(v, &root);
    if (!status && csv_nearly_full(v, root))
        status = ERR_NO_SPACE;
    if (!status)
        status = csv_inode_get(v, file->inode, CSV_IS_FILE, &from);
    if (!status)
        status = csv_block_change(v, from);
    if (status)
        return status;
    csv_map_bump(from);
    while (!status && csv_has_room(v)) {
        struct csv_extent extent;
        uint64_t done;
        status = csv_extent_find(v, file->inode, *block, &extent);
        if (status == ERR_NOT_FOUND) {
            *block = CSV_FILE_BLOCKS;
            return OK;
        }
        if (status)
            return status;
        uint64_t first = MAX(extent.file, *block), skip = first - extent.file;
        if (extent.flags & CSV_EXTENT_UNWRITTEN) {
            *block = extent.file + extent.count;
            continue;
        }
        status = csv_share(v, extent.disk + skip, extent.count - skip, &done);
        struct csv_extent part = { first, extent.disk + skip, done, CSV_EXTENT_SHARED };
        if (!status && !(extent.flags & CSV_EXTENT_SHARED)) {
            status = csv_extent_cut(v, file->inode, &extent, first, first + done);
            if (!status)
                status = csv_extent_add(v, file->inode, &part);
        }
        if (!status)
            status = csv_extent_add(v, inode, &part);
        *block = first + done;
    }
    return status;
}

static enum status clone_end(struct csv *v, uint64_t inode, uint64_t directory, const char *name, size_t bytes)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, CSV_IS_FILE, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    le32_put(block->bytes + CSV_IN_LINKS, 1);
    status = csv_entry_add(v, directory, name, bytes, inode, CSV_IS_FILE);
    return status ? status : csv_orphan_remove(v, inode);
}

static enum status clone_steps(struct csv *v, struct csv_file *file, uint64_t inode, uint64_t directory,
                               const char *name, size_t bytes)
{
    enum status status = OK;
    unsigned tries = 0;
    for (uint64_t block = 0; !status && block < CSV_FILE_BLOCKS;) {
        uint64_t next = block;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, clone_some(v, file, inode, &next));
        if (!status)
            block = next;
        else if (!csv_worth_again(v, &status, &tries))
            return status;
    }
    if (status)
        return status;
    do {
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, clone_end(v, inode, directory, name, bytes));
    } while (csv_worth_again(v, &status, &tries));
    return status;
}

enum status csv_clone(struct csv_file *file, uint64_t directory, const char *name, size_t bytes, uint64_t *inode)
{
    struct csv *v = file->volume;
    struct csv_entry entry;
    uint64_t key;
    enum status status = csv_entry_find(v, directory, name, bytes, &entry, &key);
    if (status != ERR_NOT_FOUND)
        return status ? status : ERR_EXISTS;
    status = csv_settle(file);
    if (status)
        return status;
    unsigned tries = 0;
    do {
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, clone_begin(v, file, inode));
    } while (csv_worth_again(v, &status, &tries));
    if (status)
        return status;
    status = clone_steps(v, file, *inode, directory, name, bytes);
    if (status)
        csv_orphan_try(v, *inode, CSV_ORPHAN_DELETE);
    return status;
}
