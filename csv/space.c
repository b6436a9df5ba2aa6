/* SPDX-License-Identifier: MIT */
/*
 * Sizes, holes, space in advance, and orphans: what may take many transactions. Each loop here does as much as one
 * operation has room for, ends it, and goes on where it was. What must not stay half done is in the orphan tree
 * meanwhile.
 */
#include "csv/tree.h"
#include "csv/volume.h"

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
}

/*
 * Frees what is mapped in [*first, end) of a file, as much as the operation has room for; *first is where to go on,
 * `end` when nothing is left.
 */
static enum status unmap_some(struct csv *v, uint64_t inode, uint64_t *first, uint64_t end)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, CSV_IS_FILE, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    csv_map_bump(block);
    while (!status && *first < end && csv_has_room(v)) {
        struct csv_extent extent;
        uint64_t done;
        status = csv_extent_find(v, inode, *first, &extent);
        if (status == ERR_NOT_FOUND || (!status && extent.file >= end)) {
            *first = end;
            return OK;
        }
        if (status)
            return status;
        uint64_t from = MAX(*first, extent.file), to = MIN(end, extent.file + extent.count);
        uint64_t disk = extent.disk + (from - extent.file);
        if (extent.flags & CSV_EXTENT_SHARED) {
            status = csv_release(v, disk, to - from, &done);
        } else {
            done = to - from;
            status = csv_free_blocks(v, disk, done);
        }
        if (!status)
            status = csv_extent_cut(v, inode, &extent, from, from + done);
        *first = from + done;
    }
    return status;
}

/* ---- Orphans ---- */

static enum status finish_some(struct csv *v, uint64_t inode, uint8_t kind, uint64_t *first, bool *finished)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, 0, &block);
    if (status)
        return status;
    bool file = le16_get(block->bytes + CSV_IN_TYPE) == CSV_IS_FILE;
    if (kind == CSV_ORPHAN_TRUNCATE)
        *first = MAX(*first, blocks_of(le64_get(block->bytes + CSV_IN_SIZE)));
    if (file)
        status = unmap_some(v, inode, first, CSV_FILE_BLOCKS);
    if (status || (file && *first < CSV_FILE_BLOCKS))
        return status;
    *finished = true;
    status = csv_orphan_remove(v, inode);
    return status || kind != CSV_ORPHAN_DELETE ? status : csv_inode_free(v, block);
}

enum status csv_orphan_finish(struct csv *v, uint64_t inode, uint8_t kind)
{
    bool finished = false;
    unsigned tries = 0;
    for (uint64_t first = 0; !finished;) {
        uint64_t next = first;
        enum status status = csv_begin(v);
        if (!status)
            status = csv_end(v, finish_some(v, inode, kind, &next, &finished));
        finished = finished && !status;
        if (!status)
            first = next;
        else if (!csv_worth_again(v, &status, &tries))
            return status;
    }
    return OK;
}

enum status csv_orphans_finish(struct csv *v)
{
    enum status first = OK;
    for (uint64_t key = 0;;) {
        struct csv_block *root;
        struct csv_record record;
        enum status status = csv_root_block(v, &root);
        if (status)
            return status;
        struct csv_tree tree = csv_orphans_tree(v, root);
        status = csv_tree_from(&tree, key, &record);
        if (status || v->failed)
            return status && status != ERR_NOT_FOUND ? status : first;
        key = record.key + 1;
        if (record.value[0] == CSV_ORPHAN_DELETE && csv_file_find(v, record.key))
            continue; /* its last close does it */
        if (record.value[0] != CSV_ORPHAN_DELETE && record.value[0] != CSV_ORPHAN_TRUNCATE)
            status = csv_corrupt(v, record.key, "an orphan of an unknown kind");
        else
            status = csv_orphan_finish(v, record.key, record.value[0]);
        first = first ? first : status;
    }
}

enum status csv_settle(struct csv_file *file)
{
    struct csv *v = file->volume;
    uint8_t kind;
    if (!v->unfinished)
        return OK;
    enum status status = csv_orphan_kind(v, file->inode, &kind);
    return status || kind != CSV_ORPHAN_TRUNCATE ? status : csv_orphan_finish(v, file->inode, kind);
}

void csv_orphan_try(struct csv *v, uint64_t inode, uint8_t kind)
{
    if (csv_orphan_finish(v, inode, kind))
        v->unfinished = true;
}

/* ---- Sizes ---- */

static enum status set_size(struct csv *v, struct csv_file *file, uint64_t bytes, bool *cut)
{
    struct csv_block *inode;
    struct csv_extent last;
    enum status status = csv_inode_get(v, file->inode, CSV_IS_FILE, &inode);
    if (!status)
        status = csv_block_change(v, inode);
    if (status)
        return status;
    v->was_cut |= bytes < le64_get(inode->bytes + CSV_IN_SIZE) && bytes % CSV_BLOCK_BYTES;
    le64_put(inode->bytes + CSV_IN_SIZE, bytes);
    csv_touch(v, inode, true);
    status = csv_extent_last(v, file->inode, &last);
    if (status)
        return status == ERR_NOT_FOUND ? OK : status;
    if (last.file + last.count <= blocks_of(bytes))
        return OK;
    status = csv_orphan_add(v, file->inode, CSV_ORPHAN_TRUNCATE);
    *cut = !status;
    return status;
}

/* A file without a name has an orphan record already, which frees everything: its blocks can wait, but not its size. */
static enum status unmap_beyond(struct csv *v, struct csv_file *file, uint64_t bytes)
{
    enum status status = OK;
    for (uint64_t first = blocks_of(bytes); !status && first < CSV_FILE_BLOCKS;) {
        uint64_t next = first;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, unmap_some(v, file->inode, &next, CSV_FILE_BLOCKS));
        first = next;
    }
    return status;
}

enum status csv_set_size(struct csv_file *file, uint64_t bytes)
{
    struct csv *v = file->volume;
    bool cut;
    uint64_t size;
    if (bytes > CSV_FILE_BYTES)
        return ERR_RANGE;
    enum status status = csv_settle(file);
    if (!status)
        status = csv_size_of(file, &size);
    if (!status && bytes > size)
        status = csv_zero_tail(file);
    if (status)
        return status;
    unsigned tries = 0;
    do {
        cut = false;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, set_size(v, file, bytes, &cut));
    } while (csv_worth_again(v, &status, &tries));
    if (status == ERR_EXISTS) {
        status = unmap_beyond(v, file, bytes);
        if (!status)
            status = csv_begin(v);
        if (!status)
            status = csv_end(v, set_size(v, file, bytes, &cut));
    }
    if (!status && cut) {
        csv_orphan_try(v, file->inode, CSV_ORPHAN_TRUNCATE);
        if (v->unfinished)
            csv_map_drop(file);
    }
    return status;
}

/* ---- Space in advance ---- */

/* The hole at or after *block, before `end`. *block == end: none. */
static enum status next_hole(struct csv *v, uint64_t inode, uint64_t *block, uint64_t end, uint64_t *hole_end,
                             uint64_t *goal)
{
    struct csv_extent extent;
    for (;;) {
        enum status status = csv_extent_find(v, inode, *block, &extent);
        *hole_end = end;
        if (status == ERR_NOT_FOUND || *block >= end)
            return OK;
        if (status)
            return status;
        if (extent.file > *block) {
            *hole_end = MIN(end, extent.file);
            return OK;
        }
        *block = MIN(end, extent.file + extent.count);
        *goal = extent.disk + extent.count;
    }
}

static enum status fill_some(struct csv *v, uint64_t inode, uint64_t *block, uint64_t end)
{
    uint64_t goal = 0, hole_end, start, count;
    enum status status = OK;
    while (!status && csv_has_room(v)) {
        status = next_hole(v, inode, block, end, &hole_end, &goal);
        if (status || *block >= end)
            return status;
        status = csv_alloc_data(v, goal, hole_end - *block, &start, &count);
        if (status)
            return status;
        status = csv_extent_add(v, inode, &(struct csv_extent){ *block, start, count, CSV_EXTENT_UNWRITTEN });
        *block += count;
        goal = start + count;
    }
    return status;
}

static enum status enough(struct csv_file *file, uint64_t block, uint64_t end)
{
    struct csv *v = file->volume;
    struct csv_info info;
    uint64_t holes = 0, goal, hole_end;
    for (; block < end; block = hole_end) {
        csv_breathe(v);
        enum status status = next_hole(v, file->inode, &block, end, &hole_end, &goal);
        if (status)
            return status;
        holes += hole_end - block;
    }
    csv_statfs(v, &info);
    return holes > info.free_blocks ? ERR_NO_SPACE : OK;
}

enum status csv_preallocate(struct csv_file *file, uint64_t offset, uint64_t count)
{
    struct csv *v = file->volume;
    if (!range_within(offset, count, CSV_FILE_BYTES))
        return ERR_RANGE;
    if (!count)
        return OK;
    uint64_t block = offset >> CSV_BLOCK_SHIFT, end = blocks_of(offset + count), size = 0;
    enum status status = csv_settle(file);
    if (!status)
        status = enough(file, block, end);
    if (!status)
        status = csv_size_of(file, &size);
    if (!status && offset + count > size)
        status = csv_set_size(file, offset + count);
    unsigned tries = 0;
    while (!status && block < end) {
        uint64_t next = block;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, fill_some(v, file->inode, &next, end));
        if (!status)
            block = next;
        else if (!csv_worth_again(v, &status, &tries))
            break;
    }
    return status;
}

/* ---- Holes ---- */

enum status csv_punch(struct csv_file *file, uint64_t offset, uint64_t count)
{
    struct csv *v = file->volume;
    uint64_t size;
    if (!range_within(offset, count, CSV_FILE_BYTES))
        return ERR_RANGE;
    enum status status = csv_size_of(file, &size);
    if (status || offset >= size || !count)
        return status;
    /* What lies beyond the size may go with its block. */
    uint64_t end = offset + count >= size ? ALIGN_UP(size, CSV_BLOCK_BYTES) : offset + count;
    uint64_t first = ALIGN_UP(offset, CSV_BLOCK_BYTES), last = ALIGN_DOWN(end, CSV_BLOCK_BYTES);
    if (first > last)
        return csv_zero_part(file, offset, end);
    status = csv_zero_part(file, offset, first);
    if (!status)
        status = csv_zero_part(file, last, end);
    unsigned tries = 0;
    for (uint64_t block = first >> CSV_BLOCK_SHIFT; !status && block < last >> CSV_BLOCK_SHIFT;) {
        uint64_t next = block;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, unmap_some(v, file->inode, &next, last >> CSV_BLOCK_SHIFT));
        if (!status)
            block = next;
        else if (!csv_worth_again(v, &status, &tries))
            break;
    }
    return status;
}
