/* SPDX-License-Identifier: MIT */
/*
 * A file's extents: in its tree on disk, and, once somebody asked for a mapping, in a sorted array in memory that
 * follows every change of the tree. The array is what the data path looks at: the extent that was found last or the
 * next one, or else a binary search. When a change of the array cannot be made (no memory) or is taken back, the array
 * is dropped and read again by the next csv_map_load().
 */
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"

static enum status extent_take(struct csv *v, uint64_t inode, const struct csv_record *record,
                               struct csv_extent *extent)
{
    uint64_t word = le64_get(record->value);
    extent->file = record->key;
    extent->count = le32_get(record->value + 8);
    extent->disk = word & CSV_EXTENT_BLOCK_MASK;
    extent->flags = word & (CSV_EXTENT_UNWRITTEN | CSV_EXTENT_SHARED);
    if ((word & ~CSV_EXTENT_BLOCK_MASK) != extent->flags ||
        !range_within(extent->file, extent->count, CSV_FILE_BLOCKS) ||
        extent->flags == (CSV_EXTENT_UNWRITTEN | CSV_EXTENT_SHARED) || !csv_may_hold(v, extent->disk, extent->count))
        return csv_corrupt(v, inode, "an extent of this inode is impossible");
    return OK;
}

static enum status tree_of(struct csv *v, uint64_t inode, struct csv_tree *tree)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, CSV_IS_FILE, &block);
    if (!status)
        *tree = csv_inode_tree(v, block);
    return status;
}

enum status csv_extent_find(struct csv *v, uint64_t inode, uint64_t block, struct csv_extent *extent)
{
    struct csv_tree tree;
    struct csv_record record;
    enum status status = tree_of(v, inode, &tree);
    if (status)
        return status;
    status = csv_tree_upto(&tree, block, &record);
    if (!status)
        status = extent_take(v, inode, &record, extent);
    if (!status && extent->file + extent->count > block)
        return OK;
    if (status && status != ERR_NOT_FOUND)
        return status;
    status = csv_tree_from(&tree, block, &record);
    return status ? status : extent_take(v, inode, &record, extent);
}

enum status csv_extent_last(struct csv *v, uint64_t inode, struct csv_extent *extent)
{
    struct csv_tree tree;
    struct csv_record record;
    enum status status = tree_of(v, inode, &tree);
    if (!status)
        status = csv_tree_upto(&tree, UINT64_MAX, &record);
    return status ? status : extent_take(v, inode, &record, extent);
}

/* ---- The array ---- */

/* Who changes it holds the file's lock for that moment; who only reads it in the volume's thread, where it is changed, need not. */
static void array_lock(struct csv_file *file)
{
    if (file->lock.take)
        file->lock.take(file->lock.context);
}

static void array_unlock(struct csv_file *file)
{
    if (file->lock.give)
        file->lock.give(file->lock.context);
}

static void array_drop(struct csv_file *file)
{
    csv_free(file->volume, file->extent, file->extent_room * sizeof(*file->extent));
    file->extent = NULL;
    file->extent_count = file->extent_room = file->last = 0;
    file->mapped = false;
}

/* The first extent that ends behind `block`: the last one that begins at it or before, or the one after that. */
static size_t array_find(const struct csv_file *file, uint64_t block)
{
    const struct csv_extent *extent = file->extent;
    size_t low = 0, high = file->extent_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (extent[middle].file <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low && block - extent[low - 1].file < extent[low - 1].count ? low - 1 : low;
}

/* Puts `count` extents in the place of `old` ones at `index`. */
static bool array_splice(struct csv_file *file, size_t index, size_t old, const struct csv_extent *extent, size_t count)
{
    if (file->extent_count - old + count > file->extent_room) {
        size_t room = MAX(file->extent_room * 2, 16);
        struct csv_extent *larger = csv_alloc(file->volume, room * sizeof(*larger));
        if (!larger)
            return false;
        if (file->extent_count)
            memcpy(larger, file->extent, file->extent_count * sizeof(*larger));
        csv_free(file->volume, file->extent, file->extent_room * sizeof(*larger));
        file->extent = larger;
        file->extent_room = room;
    }
    if (count != old && index + old < file->extent_count)
        memmove(file->extent + index + count, file->extent + index + old,
                (file->extent_count - index - old) * sizeof(*extent));
    for (size_t i = 0; i < count; i++)
        file->extent[index + i] = extent[i];
    file->extent_count = file->extent_count - old + count;
    return true;
}

/* The parts of an extent before `first` and from `end` on; how many there are. */
static size_t rest_of(const struct csv_extent *extent, uint64_t first, uint64_t end, struct csv_extent rest[2])
{
    size_t count = 0;
    if (first > extent->file)
        rest[count++] = (struct csv_extent){ extent->file, extent->disk, first - extent->file, extent->flags };
    if (end < extent->file + extent->count)
        rest[count++] = (struct csv_extent){ end, extent->disk + (end - extent->file),
                                             extent->file + extent->count - end, extent->flags };
    return count;
}

static bool joins(const struct csv *v, const struct csv_extent *a, const struct csv_extent *b)
{
    return a->file + a->count == b->file && a->disk + a->count == b->disk && a->flags == b->flags &&
           csv_may_hold(v, a->disk, a->count + b->count);
}

static void array_cut(struct csv_file *file, uint64_t first, uint64_t end)
{
    struct csv_extent rest[2];
    size_t index = array_find(file, first);
    if (index == file->extent_count)
        return;
    const struct csv_extent *extent = &file->extent[index];
    size_t count = rest_of(extent, first, end, rest);
    /* In a damaged tree extents may overlap; the array then had another one. */
    if (extent->file > first || extent->file + extent->count < end || !array_splice(file, index, 1, rest, count))
        array_drop(file);
}

static void array_add(struct csv_file *file, const struct csv_extent *extent)
{
    struct csv_extent joined = *extent;
    size_t index = array_find(file, extent->file), old = 0;
    if (index && joins(file->volume, &file->extent[index - 1], &joined)) {
        index--;
        old++;
        joined.file = file->extent[index].file;
        joined.disk = file->extent[index].disk;
        joined.count += file->extent[index].count;
    }
    if (index + old < file->extent_count && joins(file->volume, &joined, &file->extent[index + old]))
        joined.count += file->extent[index + old++].count;
    bool overlap = index + old < file->extent_count && file->extent[index + old].file < joined.file + joined.count;
    if (overlap || !array_splice(file, index, old, &joined, 1))
        array_drop(file);
}

struct csv_file *csv_file_find(struct csv *v, uint64_t inode)
{
    struct csv_file *file = v->files;
    while (file && file->inode != inode)
        file = file->next;
    return file;
}

/* The open file whose array must follow a change, or NULL. */
static struct csv_file *follower(struct csv *v, uint64_t inode)
{
    struct csv_file *file = csv_file_find(v, inode);
    if (file)
        file->changed_operation = v->operation;
    return file && file->mapped ? file : NULL;
}

void csv_maps_forget(struct csv *v)
{
    for (struct csv_file *file = v->files; file; file = file->next)
        if (file->changed_operation == v->operation)
            csv_map_drop(file);
}

enum status csv_map_load(struct csv_file *file)
{
    struct csv *v = file->volume;
    struct csv_extent extent;
    uint64_t size = 0;
    if (file->mapped)
        return OK;
    enum status status = csv_size_of(file, &size);
    uint64_t end = (size + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT; /* what lies beyond waits for being freed */
    for (uint64_t block = 0; !status; block = extent.file + extent.count) {
        csv_breathe(v);
        status = block < end ? csv_extent_find(v, file->inode, block, &extent) : ERR_NOT_FOUND;
        if (!status && extent.file < block)
            status = csv_corrupt(v, file->inode, "extents of this inode overlap");
        if (!status && extent.file >= end)
            status = ERR_NOT_FOUND;
        if (!status)
            extent.count = MIN(extent.count, end - extent.file);
        if (!status && !array_splice(file, file->extent_count, 0, &extent, 1))
            status = ERR_NO_MEMORY;
    }
    if (status != ERR_NOT_FOUND) {
        csv_map_drop(file);
        return status;
    }
    array_lock(file);
    file->mapped = true;
    array_unlock(file);
    return OK;
}

/* ---- Changes of both ---- */

static void extent_put(uint8_t value[CSV_EXTENT_VALUE_BYTES], const struct csv_extent *extent)
{
    le64_put(value, extent->disk | extent->flags);
    le32_put(value + 8, (uint32_t)extent->count);
}

static enum status blocks_changed(struct csv *v, struct csv_block *inode, uint64_t delta)
{
    enum status status = csv_block_change(v, inode);
    if (!status)
        le64_put(inode->bytes + CSV_IN_BLOCKS, le64_get(inode->bytes + CSV_IN_BLOCKS) + delta);
    return status;
}

enum status csv_extent_cut(struct csv *v, uint64_t inode, const struct csv_extent *extent, uint64_t first, uint64_t end)
{
    struct csv_tree tree;
    struct csv_extent rest[2];
    uint8_t value[CSV_EXTENT_VALUE_BYTES];
    size_t count = rest_of(extent, first, end, rest), at = 0;
    enum status status = tree_of(v, inode, &tree);
    if (!status)
        status = blocks_changed(v, tree.root, first - end);
    if (status)
        return status;
    if (count && rest[0].file == extent->file) {
        extent_put(value, &rest[at++]);
        status = csv_tree_replace(&tree, extent->file, value, sizeof(value));
    } else {
        status = csv_tree_remove(&tree, extent->file);
    }
    if (!status && at < count) {
        extent_put(value, &rest[at]);
        status = csv_tree_insert(&tree, rest[at].file, value, sizeof(value));
    }
    struct csv_file *file = follower(v, inode);
    if (!status && file) {
        array_lock(file);
        array_cut(file, first, end);
        array_unlock(file);
    }
    return status;
}

/* The extent of the tree that joins with this one, before or after it: taken out, and *extent is both. */
static enum status join_near(struct csv *v, struct csv_tree *tree, uint64_t inode, bool before,
                             struct csv_extent *extent)
{
    struct csv_record record;
    struct csv_extent near;
    enum status status = before ? csv_tree_upto(tree, extent->file, &record)
                                : csv_tree_from(tree, extent->file + extent->count, &record);
    if (!status)
        status = extent_take(v, inode, &record, &near);
    if (status)
        return status == ERR_NOT_FOUND ? OK : status;
    if (before ? !joins(v, &near, extent) : !joins(v, extent, &near))
        return OK;
    if (before) {
        extent->file = near.file;
        extent->disk = near.disk;
    }
    extent->count += near.count;
    return csv_tree_remove(tree, near.file);
}

enum status csv_extent_add(struct csv *v, uint64_t inode, const struct csv_extent *extent)
{
    struct csv_tree tree;
    struct csv_extent joined = *extent;
    uint8_t value[CSV_EXTENT_VALUE_BYTES];
    enum status status = tree_of(v, inode, &tree);
    if (!status)
        status = blocks_changed(v, tree.root, extent->count);
    if (!status)
        status = join_near(v, &tree, inode, true, &joined);
    if (!status)
        status = join_near(v, &tree, inode, false, &joined);
    if (status)
        return status;
    extent_put(value, &joined);
    status = csv_tree_insert(&tree, joined.file, value, sizeof(value));
    struct csv_file *file = follower(v, inode);
    if (!status && file) {
        array_lock(file);
        array_add(file, extent);
        array_unlock(file);
    }
    return status;
}

void csv_map_drop(struct csv_file *file)
{
    array_lock(file);
    array_drop(file);
    array_unlock(file);
}

void csv_map_share(struct csv_file *file, const struct csv_map_lock *lock)
{
    file->lock = *lock;
}

void csv_map_bump(struct csv_block *inode)
{
    le64_put(inode->bytes + CSV_IN_MAP_VERSION, le64_get(inode->bytes + CSV_IN_MAP_VERSION) + 1);
}

/* ---- The data path ---- */

static bool holds(const struct csv_file *file, size_t index, uint64_t block)
{
    return index < file->extent_count && block - file->extent[index].file < file->extent[index].count;
}

bool csv_map_now(struct csv_file *file, uint64_t offset, uint64_t count, struct csv_mapping *mapping)
{
    if (unlikely(!file->mapped))
        return false;
    uint64_t block = offset >> CSV_BLOCK_SHIFT, end = UINT64_MAX;
    size_t index = file->last;
    if (!holds(file, index, block)) {
        index++;
        if (!holds(file, index, block))
            index = array_find(file, block);
        file->last = index;
    }
    mapping->file_offset = offset;
    mapping->kind = CSV_MAP_HOLE;
    mapping->disk_offset = 0;
    if (index < file->extent_count) {
        const struct csv_extent *extent = file->extent + index;
        end = extent->file << CSV_BLOCK_SHIFT;
        if (extent->file <= block) {
            end = (extent->file + extent->count) << CSV_BLOCK_SHIFT;
            mapping->kind = extent->flags & CSV_EXTENT_UNWRITTEN ? CSV_MAP_UNWRITTEN
                            : extent->flags & CSV_EXTENT_SHARED ? CSV_MAP_SHARED : CSV_MAP_WRITTEN;
            mapping->disk_offset = (extent->disk << CSV_BLOCK_SHIFT) + (offset - (extent->file << CSV_BLOCK_SHIFT));
        }
    }
    mapping->bytes = MIN(count, end - offset);
    return true;
}

enum status csv_map(struct csv_file *file, uint64_t offset, uint64_t count, struct csv_mapping *mapping)
{
    enum status status = csv_map_load(file);
    if (status)
        return status;
    array_lock(file);
    (void)!csv_map_now(file, offset, count, mapping);
    array_unlock(file);
    return OK;
}
