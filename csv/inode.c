/* SPDX-License-Identifier: MIT */
/* The volume root's fields, inodes, and the orphan tree: the small records that all operations are made of. */
#include "csv/tree.h"
#include "csv/volume.h"

enum status csv_root_block(struct csv *v, struct csv_block **block)
{
    return csv_block_get(v, CSV_AT_ROOT, CSV_ROOT, 0, block);
}

enum status csv_root_add(struct csv *v, unsigned offset, int64_t delta)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (!status)
        status = csv_block_change(v, root);
    if (status)
        return status;
    uint64_t value = le64_get(root->bytes + offset);
    if (delta < 0 && value < (uint64_t)-delta)
        return csv_corrupt(v, CSV_AT_ROOT, "a counter of the volume is too small");
    le64_put(root->bytes + offset, value + (uint64_t)delta);
    return OK;
}

uint64_t csv_root(const struct csv *v)
{
    return v->root_directory;
}

enum status csv_inode_get(struct csv *v, uint64_t inode, uint32_t type, struct csv_block **block)
{
    if (!csv_may_hold(v, inode, 1))
        return csv_corrupt(v, inode, "it is referred to as an inode, but is no place for one");
    const struct csv_block *held = csv_block_find(v, inode);
    bool used = true;
    if (held)
        used = !held->is_freed;
    else if (!v->checking && !v->read_only && csv_in_use(v, inode, &used))
        used = true; /* a damaged group ends allocations in it, and nothing else */
    if (!used) {
        (void)!csv_corrupt(v, inode, "it is asked for as an inode, but is free");
        return ERR_INVALID;
    }
    enum status status = csv_block_get(v, inode, CSV_INODE, inode, block);
    if (!status && type && le16_get((*block)->bytes + CSV_IN_TYPE) != type)
        return ERR_INVALID;
    return status;
}

enum status csv_inode_new(struct csv *v, uint32_t type, uint64_t parent, uint32_t mode, struct csv_block **block)
{
    uint64_t number;
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (!status && csv_nearly_full(v, root))
        status = ERR_NO_SPACE;
    if (!status)
        status = csv_alloc_meta(v, &number);
    if (!status)
        status = csv_block_new(v, number, CSV_INODE, number, block);
    if (!status)
        status = csv_root_add(v, CSV_RT_INODES, 1);
    if (!status)
        status = csv_root_add(v, CSV_RT_GENERATION, 1);
    if (status)
        return status;
    uint8_t *bytes = (*block)->bytes;
    le16_put(bytes + CSV_IN_TYPE, (uint16_t)type);
    le64_put(bytes + CSV_IN_GENERATION, le64_get(root->bytes + CSV_RT_GENERATION) - 1);
    le64_put(bytes + CSV_IN_PARENT, parent);
    le64_put(bytes + CSV_IN_CREATED, (uint64_t)v->now_ns);
    le32_put(bytes + CSV_IN_MODE, mode & 07777);
    csv_node_init(bytes + CSV_IN_NODE, CSV_IN_NODE_BYTES, 0);
    csv_touch(v, *block, true);
    return OK;
}

enum status csv_inode_free(struct csv *v, struct csv_block *block)
{
    if (csv_node_count(block->bytes + CSV_IN_NODE))
        return csv_corrupt(v, block->number, "an inode is freed whose tree is not empty");
    enum status status = csv_root_add(v, CSV_RT_INODES, -1);
    return status ? status : csv_block_free(v, block);
}

void csv_touch(struct csv *v, struct csv_block *inode, bool modified)
{
    le64_put(inode->bytes + CSV_IN_CHANGED, (uint64_t)v->now_ns);
    if (modified)
        le64_put(inode->bytes + CSV_IN_MODIFIED, (uint64_t)v->now_ns);
}

enum status csv_orphan_add(struct csv *v, uint64_t inode, uint8_t kind)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_orphans_tree(v, root);
    status = csv_tree_insert(&tree, inode, &kind, 1);
    return status ? status : csv_root_add(v, CSV_RT_ORPHANS, 1);
}

enum status csv_orphan_remove(struct csv *v, uint64_t inode)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_orphans_tree(v, root);
    status = csv_tree_remove(&tree, inode);
    return status ? status : csv_root_add(v, CSV_RT_ORPHANS, -1);
}

enum status csv_orphan_kind(struct csv *v, uint64_t inode, uint8_t *kind)
{
    struct csv_block *root;
    struct csv_record record;
    *kind = 0;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_orphans_tree(v, root);
    status = csv_tree_from(&tree, inode, &record);
    if (!status && record.key == inode)
        *kind = record.value[0];
    return status == ERR_NOT_FOUND ? OK : status;
}
