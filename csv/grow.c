/* SPDX-License-Identifier: MIT */
/*
 * A volume gets as large as its disk became. The order (section 3.1 of docs/csv-format.md): new groups where nobody
 * looks yet, the superblocks, one transaction for what changes in old blocks, the superblocks again. Until the last of
 * these the superblock says that a growth is under way; finishing it is idempotent, so a mount just does it.
 */
#include <string.h>

#include "csv/volume.h"

static enum status write_new_groups(struct csv *v, uint64_t first)
{
    enum status status = OK;
    for (uint64_t group = first; group < v->groups && !status; group++) {
        (void)csv_group_make(v, group, v->io);
        status = csv_write_blocks(v, csv_group_block(group), v->io, 1, false);
    }
    return status ? status : csv_flush(v);
}

/* The sum of all groups' free blocks, and of the blocks of the last old group that are in use from now on. */
static enum status sum_free(struct csv *v, uint64_t *free)
{
    *free = 0;
    for (uint64_t group = 0; group < v->groups; group++) {
        struct csv_block *block;
        csv_breathe(v);
        enum status status = csv_block_get(v, csv_group_block(group), CSV_GROUP, 0, &block);
        if (status)
            return status;
        *free += le32_get(block->bytes + CSV_GR_FREE);
    }
    return OK;
}

/* The old last group, and the root's count. `free`: the sum as it is now. */
static enum status open_old_end(struct csv *v, uint64_t from, uint64_t free)
{
    struct csv_block *block, *root;
    uint64_t group = (from - 1) / CSV_GROUP_BLOCKS, end = MIN((group + 1) * CSV_GROUP_BLOCKS, v->blocks);
    enum status status = csv_block_get(v, csv_group_block(group), CSV_GROUP, 0, &block);
    if (!status)
        status = csv_root_block(v, &root);
    if (!status)
        status = csv_block_change(v, block);
    if (!status)
        status = csv_block_change(v, root);
    if (status)
        return status;
    uint32_t more = 0;
    for (uint64_t number = from - 1; number < end; number++) {
        uint8_t *byte = block->bytes + CSV_GR_BITMAP + number % CSV_GROUP_BLOCKS / 8, bit = (uint8_t)(1u << number % 8);
        if (csv_may_hold(v, number, 1) && *byte & bit) {
            *byte &= (uint8_t)~bit;
            more++;
        }
    }
    le32_put(block->bytes + CSV_GR_FREE, le32_get(block->bytes + CSV_GR_FREE) + more);
    le64_put(root->bytes + CSV_RT_FREE, free + more);
    csv_alloc_reload(v, block);
    return OK;
}

enum status csv_grow_finish(struct csv *v)
{
    uint64_t from = le64_get(v->super + CSV_SU_GROWN_FROM), free;
    if (!from)
        return OK;
    enum status status = sum_free(v, &free);
    if (!status)
        status = csv_begin(v);
    if (status)
        return status;
    status = csv_end(v, open_old_end(v, from, free));
    if (!status)
        status = csv_commit(v);
    if (!status)
        status = csv_checkpoint(v);
    le64_put(v->super + CSV_SU_GROWN_FROM, 0);
    return status ? status : csv_super_write(v, v->super);
}

/* Tables with an element for each group, of the new size. */
static enum status larger_tables(struct csv *v, uint64_t groups)
{
    uint16_t *free = csv_alloc(v, groups * sizeof(*free));
    uint8_t *granted = csv_alloc_zeroed(v, groups / 8 + 1);
    if (!free || !granted) {
        csv_free(v, free, groups * sizeof(*free));
        csv_free(v, granted, groups / 8 + 1);
        return ERR_NO_MEMORY;
    }
    memset(free, 0xff, groups * sizeof(*free));
    memcpy(free, v->group_free, v->groups * sizeof(*free));
    memcpy(granted, v->group_granted, v->groups / 8 + 1);
    csv_free(v, v->group_free, v->groups * sizeof(*free));
    csv_free(v, v->group_granted, v->groups / 8 + 1);
    v->group_free = free;
    v->group_granted = granted;
    return OK;
}

enum status csv_grow(struct csv *v)
{
    uint64_t blocks = csv_usable_blocks(MIN(v->disk->bytes, CSV_MAX_BYTES)), from = v->blocks, old_groups = v->groups;
    uint64_t groups = (blocks + CSV_GROUP_BLOCKS - 1) / CSV_GROUP_BLOCKS;
    if (v->read_only || v->failed)
        return ERR_READ_ONLY;
    if (blocks <= from)
        return OK;
    enum status status = csv_commit(v);
    if (!status)
        status = csv_checkpoint(v);
    if (!status)
        status = larger_tables(v, groups);
    if (status)
        return status;
    v->blocks = blocks;
    v->groups = groups;
    status = write_new_groups(v, old_groups);
    le64_put(v->super + CSV_SU_BLOCKS, blocks);
    le64_put(v->super + CSV_SU_GROWN_FROM, from);
    if (!status)
        status = csv_super_write(v, v->super);
    if (!status)
        status = csv_grow_finish(v);
    if (status)
        v->failed = status; /* how large the volume is, the next mount finds out */
    return status;
}
