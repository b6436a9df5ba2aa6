/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing the bytes of a file, by the volume's own thread or the host tool. (A guest's I/O on mapped,
 * written blocks does not come here.)
 *
 * A write is done in pieces that lie in one extent or one hole. The data goes to the disk first, and then the
 * operation changes the map: as long as the transaction is not committed nobody sees new blocks, and the commit's
 * flush comes after the data. A block that is written in part is filled up with zeros, or with what it held if it is
 * shared.
 */
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"

#define NO_BLOCK UINT64_MAX
#define PIECE_BLOCKS 4096u /* 16 MiB at most in one operation */

static enum status read_block(struct csv *v, uint64_t block, uint8_t *bytes)
{
    if (block != NO_BLOCK)
        return csv_read_blocks(v, block, bytes, 1);
    memset(bytes, 0, CSV_BLOCK_BYTES);
    return OK;
}

/*
 * Writes `count` bytes (NULL: zeros) at byte `skip` of the blocks from `block` on. Blocks that are written in part keep
 * the rest of `old` (blocks in parallel; NO_BLOCK: zeros).
 */
static enum status put_data(struct csv *v, uint64_t block, uint64_t skip, const uint8_t *bytes, uint64_t count,
                            uint64_t old)
{
    while (count) {
        uint64_t part = MIN(count, CSV_BLOCK_BYTES - skip);
        enum status status;
        if (skip || part < CSV_BLOCK_BYTES || !bytes) {
            status = part < CSV_BLOCK_BYTES ? read_block(v, old, v->io) : OK;
            if (status)
                return status;
            if (bytes)
                memcpy(v->io + skip, bytes, part);
            else
                memset(v->io + skip, 0, part);
            status = csv_write_blocks(v, block, v->io, 1, false);
        } else {
            part = count & ~(uint64_t)(CSV_BLOCK_BYTES - 1);
            status = csv_write_blocks(v, block, bytes, part >> CSV_BLOCK_SHIFT, false);
        }
        if (status)
            return status;
        uint64_t blocks = (skip + part) >> CSV_BLOCK_SHIFT;
        block += blocks;
        old = old == NO_BLOCK ? old : old + blocks;
        bytes = bytes ? bytes + part : NULL;
        count -= part;
        skip = 0;
    }
    return OK;
}

/* A range of bytes to write: all in one operation, as far as `count` is left. */
struct piece {
    struct csv_file *file;
    uint64_t offset, count;
    const uint8_t *bytes; /* NULL: zeros */
    bool fill_holes;      /* false: what is not written stays as it is (it reads as zeros) */
};

static uint64_t piece_first(const struct piece *p) { return p->offset >> CSV_BLOCK_SHIFT; }
static uint64_t piece_skip(const struct piece *p) { return p->offset & (CSV_BLOCK_BYTES - 1); }

/* Cuts the piece so that it ends in the block before `end`. */
static void piece_limit(struct piece *p, uint64_t end)
{
    uint64_t last = MIN(end, piece_first(p) + PIECE_BLOCKS) << CSV_BLOCK_SHIFT;
    p->count = MIN(p->count, last - p->offset);
}

static uint64_t piece_blocks(const struct piece *p)
{
    return (piece_skip(p) + p->count + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
}

/* Into new blocks, at a hole. */
static enum status write_new(struct csv *v, struct piece *p, uint64_t goal)
{
    uint64_t start, count;
    enum status status = csv_alloc_data(v, goal, piece_blocks(p), &start, &count);
    if (status)
        return status;
    piece_limit(p, piece_first(p) + count);
    status = put_data(v, start, piece_skip(p), p->bytes, p->count, NO_BLOCK);
    if (status)
        return status;
    return csv_extent_add(v, p->file->inode, &(struct csv_extent){ piece_first(p), start, count, 0 });
}

static enum status write_hole(struct csv *v, struct piece *p, const struct csv_extent *next)
{
    struct csv_extent before;
    uint64_t goal = 0;
    piece_limit(p, next ? next->file : CSV_FILE_BLOCKS);
    if (!p->fill_holes)
        return OK;
    if (piece_first(p)) {
        enum status status = csv_extent_find(v, p->file->inode, piece_first(p) - 1, &before);
        if (status && status != ERR_NOT_FOUND)
            return status;
        if (!status && before.file < piece_first(p))
            goal = before.disk + before.count;
    }
    return write_new(v, p, goal);
}

/* Takes this piece's blocks out of the extent and enters them again, with other flags. */
static enum status reflag(struct csv *v, struct piece *p, const struct csv_extent *extent, uint64_t flags)
{
    uint64_t first = piece_first(p), end = first + piece_blocks(p);
    enum status status = csv_extent_cut(v, p->file->inode, extent, first, end);
    if (status)
        return status;
    return csv_extent_add(v, p->file->inode, &(struct csv_extent){ first, extent->disk + (first - extent->file),
                                                                  end - first, flags });
}

/*
 * Blocks that are shared, or were once. Those with one reference are written in place, unless that may be true only
 * since this transaction: until it is durable, a power cut would bring back a file that still has them.
 */
static enum status write_shared(struct csv *v, struct piece *p, const struct csv_extent *extent)
{
    uint64_t first = piece_first(p), disk = extent->disk + (first - extent->file);
    uint64_t alike, references, start, count, done;
    struct csv_block *inode;
    enum status status = csv_references(v, disk, piece_blocks(p), &alike, &references);
    if (!status)
        status = csv_inode_get(v, p->file->inode, CSV_IS_FILE, &inode);
    if (!status)
        status = csv_block_change(v, inode);
    if (status)
        return status;
    csv_map_bump(inode);
    piece_limit(p, first + alike);
    if (references == 1 && !v->unshared) {
        status = put_data(v, disk, piece_skip(p), p->bytes, p->count, disk);
        return status ? status : reflag(v, p, extent, 0);
    }
    status = csv_alloc_data(v, 0, piece_blocks(p), &start, &count);
    if (status)
        return status;
    piece_limit(p, first + count);
    status = put_data(v, start, piece_skip(p), p->bytes, p->count, disk);
    if (!status)
        status = csv_extent_cut(v, p->file->inode, extent, first, first + count);
    if (!status)
        status = csv_extent_add(v, p->file->inode, &(struct csv_extent){ first, start, count, 0 });
    if (!status)
        status = csv_release(v, disk, count, &done);
    return !status && done < count ? ERR_NO_MEMORY : status;
}

/* Writes the first part of *p, whose count becomes what was done. */
static enum status write_some(struct csv *v, struct piece *p)
{
    struct csv_extent extent;
    enum status status = csv_extent_find(v, p->file->inode, piece_first(p), &extent);
    if (status && status != ERR_NOT_FOUND)
        return status;
    if (status || extent.file > piece_first(p))
        return write_hole(v, p, status ? NULL : &extent);
    piece_limit(p, extent.file + extent.count);
    uint64_t disk = extent.disk + (piece_first(p) - extent.file);
    if (extent.flags & CSV_EXTENT_SHARED)
        return write_shared(v, p, &extent);
    if (!(extent.flags & CSV_EXTENT_UNWRITTEN))
        return put_data(v, disk, piece_skip(p), p->bytes, p->count, disk);
    if (!p->fill_holes)
        return OK;
    status = put_data(v, disk, piece_skip(p), p->bytes, p->count, NO_BLOCK);
    return status ? status : reflag(v, p, &extent, 0);
}

/* One operation: a piece, and the size if it is to follow. */
static enum status write_piece(struct csv *v, struct piece *p, bool grow)
{
    struct piece whole = *p;
    struct csv_block *inode;
    enum status status;
    unsigned tries = 0;
    do {
        *p = whole;
        status = csv_begin(v);
        if (status)
            return status;
        status = write_some(v, p);
        if (!status && grow)
            status = csv_inode_get(v, p->file->inode, CSV_IS_FILE, &inode);
        if (!status && grow)
            status = csv_block_change(v, inode);
        if (!status && grow) {
            uint64_t end = p->offset + p->count;
            le64_put(inode->bytes + CSV_IN_SIZE, MAX(le64_get(inode->bytes + CSV_IN_SIZE), end));
            csv_touch(v, inode, true);
        }
        status = csv_end(v, status);
    } while (csv_worth_again(v, &status, &tries));
    return status;
}

static enum status write_range(struct csv_file *file, uint64_t offset, const uint8_t *bytes, uint64_t count, bool grow)
{
    for (uint64_t done = 0; done < count;) {
        struct piece p = { file, offset + done, count - done, bytes ? bytes + done : NULL, grow };
        enum status status = write_piece(file->volume, &p, grow);
        if (status)
            return status;
        done += p.count;
    }
    return OK;
}

enum status csv_size_of(struct csv_file *file, uint64_t *size)
{
    struct csv_block *inode;
    enum status status = csv_inode_get(file->volume, file->inode, CSV_IS_FILE, &inode);
    if (!status)
        *size = le64_get(inode->bytes + CSV_IN_SIZE);
    return status;
}

/*
 * Before bytes up to `end` are written: a file of `size` that was cut within a block keeps, on the disk, what it had in the rest of that
 * block. Until the cut is durable a power cut brings the longer file back, and it must not have those bytes beside new ones.
 */
static enum status cut_first(struct csv *v, uint64_t size, uint64_t end)
{
    return v->was_cut && size % CSV_BLOCK_BYTES && end > ALIGN_DOWN(size, CSV_BLOCK_BYTES) ? csv_commit(v) : OK;
}

enum status csv_zero_part(struct csv_file *file, uint64_t from, uint64_t to)
{
    uint64_t size;
    if (from >= to)
        return OK;
    enum status status = csv_size_of(file, &size);
    if (!status)
        status = cut_first(file->volume, size, to);
    return status ? status : write_range(file, from, NULL, to - from, false);
}

enum status csv_zero_tail(struct csv_file *file)
{
    uint64_t size;
    enum status status = csv_size_of(file, &size);
    return status ? status : csv_zero_part(file, size, ALIGN_UP(size, CSV_BLOCK_BYTES));
}

enum status csv_write(struct csv_file *file, uint64_t offset, const void *bytes, uint64_t count)
{
    uint64_t size;
    if (!range_within(offset, count, CSV_FILE_BYTES))
        return ERR_RANGE;
    enum status status = csv_size_of(file, &size);
    if (!status)
        status = cut_first(file->volume, size, offset + count);
    if (!status && range_within(offset, count, size))
        return write_range(file, offset, bytes, count, true);
    if (!status)
        status = csv_settle(file);
    if (!status && count && offset > size)
        status = csv_zero_tail(file);
    return status ? status : write_range(file, offset, bytes, count, true);
}

/* ---- Reading ---- */

/* Bytes from one run of blocks. */
static enum status get_data(struct csv *v, uint64_t block, uint64_t skip, uint8_t *bytes, uint64_t count)
{
    while (count) {
        uint64_t part = MIN(count, CSV_BLOCK_BYTES - skip);
        enum status status;
        if (part < CSV_BLOCK_BYTES) {
            status = csv_read_blocks(v, block, v->io, 1);
            memcpy(bytes, v->io + skip, part);
        } else {
            part = count & ~(uint64_t)(CSV_BLOCK_BYTES - 1);
            status = csv_read_blocks(v, block, bytes, part >> CSV_BLOCK_SHIFT);
        }
        if (status)
            return status;
        block += (skip + part) >> CSV_BLOCK_SHIFT;
        bytes += part;
        count -= part;
        skip = 0;
    }
    return OK;
}

enum status csv_read(struct csv_file *file, uint64_t offset, void *bytes, uint64_t count, uint64_t *done)
{
    uint64_t size;
    *done = 0;
    csv_breathe(file->volume);
    enum status status = csv_size_of(file, &size);
    if (status || offset >= size)
        return status;
    count = MIN(count, size - offset);
    while (*done < count) {
        uint64_t at = offset + *done, block = at >> CSV_BLOCK_SHIFT, part = count - *done;
        struct csv_extent extent;
        uint8_t *to = (uint8_t *)bytes + *done;
        status = csv_extent_find(file->volume, file->inode, block, &extent);
        if (status && status != ERR_NOT_FOUND)
            return status;
        bool hole = status || extent.file > block;
        if (!status)
            part = MIN(part, ((hole ? extent.file : extent.file + extent.count) << CSV_BLOCK_SHIFT) - at);
        if (hole || extent.flags & CSV_EXTENT_UNWRITTEN) {
            memset(to, 0, part);
        } else {
            status = get_data(file->volume, extent.disk + (block - extent.file), at & (CSV_BLOCK_BYTES - 1), to, part);
            if (status)
                return status;
        }
        *done += part;
    }
    return OK;
}

/* ---- Unwritten to written ---- */

static enum status convert_some(struct csv *v, struct csv_file *file, uint64_t *block, uint64_t end)
{
    enum status status = OK;
    while (!status && *block < end && csv_has_room(v)) {
        struct csv_extent extent;
        status = csv_extent_find(v, file->inode, *block, &extent);
        if (status == ERR_NOT_FOUND || (!status && extent.file >= end)) {
            *block = end;
            return OK;
        }
        if (status)
            return status;
        uint64_t first = MAX(*block, extent.file), last = MIN(end, extent.file + extent.count);
        if (extent.flags & CSV_EXTENT_UNWRITTEN) {
            struct csv_extent written = { first, extent.disk + (first - extent.file), last - first, 0 };
            status = csv_extent_cut(v, file->inode, &extent, first, last);
            if (!status)
                status = csv_extent_add(v, file->inode, &written);
        }
        *block = last;
    }
    return status;
}

enum status csv_converted(struct csv_file *file, uint64_t offset, uint64_t count)
{
    if (!range_within(offset, count, CSV_FILE_BYTES))
        return ERR_RANGE;
    uint64_t block = offset >> CSV_BLOCK_SHIFT, end = (offset + count + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
    enum status status = OK;
    unsigned tries = 0;
    while (!status && block < end) {
        uint64_t next = block;
        status = csv_begin(file->volume);
        if (!status)
            status = csv_end(file->volume, convert_some(file->volume, file, &next, end));
        if (!status)
            block = next;
        else if (!csv_worth_again(file->volume, &status, &tries))
            break;
    }
    return status;
}
