/* SPDX-License-Identifier: MIT */
/*
 * Trees of nodes. A search leaves a path: the nodes from the root to a leaf, and in each the record that was taken.
 *
 * An insertion that finds no room makes some (moves a full root's records a level down, or splits the uppermost full
 * node on the path) and searches again; each round changes one thing, so there is no case of its own for splits that
 * go up. A removal joins nodes on the way up. Slots of inner nodes hold a key that is not above the first key below
 * them.
 */
#include <string.h>

#include "csv/tree.h"

#define CHILD_BYTES 8u
#define MAX_DEPTH (CSV_MAX_LEVEL + 1)

struct path {
    unsigned depth; /* steps; the last one is the leaf */
    struct { struct csv_block *block; unsigned index; } step[MAX_DEPTH];
};

struct csv_tree csv_inode_tree(struct csv *v, struct csv_block *inode)
{
    uint32_t type = le16_get(inode->bytes + CSV_IN_TYPE) == CSV_IS_FILE ? CSV_EXTENTS : CSV_DIRECTORY;
    return (struct csv_tree){ v, inode, CSV_IN_NODE, CSV_IN_NODE_BYTES, type, inode->number };
}

struct csv_tree csv_counts_tree(struct csv *v, struct csv_block *root)
{
    return (struct csv_tree){ v, root, CSV_RT_COUNTS_NODE, CSV_RT_COUNTS_BYTES, CSV_COUNTS, 0 };
}

struct csv_tree csv_orphans_tree(struct csv *v, struct csv_block *root)
{
    return (struct csv_tree){ v, root, CSV_RT_ORPHANS_NODE, CSV_RT_ORPHANS_BYTES, CSV_ORPHANS, 0 };
}

static uint8_t *area_of(const struct csv_tree *tree, struct csv_block *block)
{
    return block == tree->root ? block->bytes + tree->offset : block->bytes + CSV_H_BYTES;
}

/*
 * The child that record `index` of a node names. Its keys must lie between those of the record and the next one, so no
 * two records of a node can have one child.
 */
static enum status child_get(struct csv_tree *tree, struct csv_block *block, unsigned index, struct csv_block **child)
{
    uint8_t *area = area_of(tree, block);
    uint64_t number = le64_get(csv_node_value(area, index, NULL));
    enum status status = csv_block_get(tree->v, number, tree->type, tree->owner, child);
    if (status)
        return status;
    const uint8_t *below = area_of(tree, *child);
    unsigned count = csv_node_count(below);
    if (csv_node_level(below) + 1 != csv_node_level(area) || !count || *child == tree->root)
        return csv_corrupt(tree->v, number, "a tree node of another level than its parent says, or an empty one");
    if (csv_node_key(below, 0) < csv_node_key(area, index) ||
        (index + 1 < csv_node_count(area) && csv_node_key(below, count - 1) >= csv_node_key(area, index + 1)))
        return csv_corrupt(tree->v, number, "a tree node with keys outside of the range that its parent gives it");
    return OK;
}

/* The path to the first record of at least `key`; the leaf's index may be its count. */
static enum status search(struct csv_tree *tree, uint64_t key, struct path *path)
{
    struct csv_block *block = tree->root;
    path->depth = 0;
    for (;;) {
        const uint8_t *area = area_of(tree, block);
        unsigned index = csv_node_find(area, key), level = csv_node_level(area);
        if (level) {
            if (!csv_node_count(area))
                return csv_corrupt(tree->v, block->number, "an inner tree node without records");
            if (index && (index == csv_node_count(area) || csv_node_key(area, index) != key))
                index--;
        }
        path->step[path->depth].block = block;
        path->step[path->depth++].index = index;
        if (!level)
            return OK;
        enum status status = child_get(tree, block, index, &block);
        if (status)
            return status;
    }
}

/* From a path whose leaf is exhausted to the first record of the next leaf, or the last one of the leaf before. */
static enum status turn(struct csv_tree *tree, struct path *path, bool forward)
{
    unsigned at = path->depth - 1;
    for (;;) {
        if (!at)
            return ERR_NOT_FOUND;
        at--;
        unsigned count = csv_node_count(area_of(tree, path->step[at].block));
        if (forward ? path->step[at].index + 1 < count : path->step[at].index > 0)
            break;
    }
    path->step[at].index += forward ? 1 : -1u;
    for (; at + 1 < path->depth; at++) {
        struct csv_block *child;
        enum status status = child_get(tree, path->step[at].block, path->step[at].index, &child);
        if (status)
            return status;
        path->step[at + 1].block = child;
        path->step[at + 1].index = forward ? 0 : csv_node_count(area_of(tree, child)) - 1;
    }
    return OK;
}

static void take(struct csv_tree *tree, const struct path *path, struct csv_record *record)
{
    unsigned index = path->step[path->depth - 1].index;
    uint8_t *area = area_of(tree, path->step[path->depth - 1].block);
    record->key = csv_node_key(area, index);
    const uint8_t *value = csv_node_value(area, index, &record->bytes);
    memcpy(record->value, value, record->bytes);
}

enum status csv_tree_from(struct csv_tree *tree, uint64_t key, struct csv_record *record)
{
    struct path path;
    enum status status = search(tree, key, &path);
    if (status)
        return status;
    if (path.step[path.depth - 1].index == csv_node_count(area_of(tree, path.step[path.depth - 1].block))) {
        status = turn(tree, &path, true);
        if (status)
            return status;
    }
    take(tree, &path, record);
    return OK;
}

enum status csv_tree_upto(struct csv_tree *tree, uint64_t key, struct csv_record *record)
{
    struct path path;
    enum status status = search(tree, key, &path);
    if (status)
        return status;
    unsigned *index = &path.step[path.depth - 1].index;
    const uint8_t *area = area_of(tree, path.step[path.depth - 1].block);
    if (*index == csv_node_count(area) || csv_node_key(area, *index) != key) {
        if (*index)
            --*index;
        else if ((status = turn(tree, &path, false)))
            return status;
    }
    take(tree, &path, record);
    return OK;
}

/* ---- Insertion ---- */

static enum status node_new(struct csv_tree *tree, unsigned level, struct csv_block **block)
{
    uint64_t number;
    enum status status = csv_alloc_meta(tree->v, &number);
    if (!status)
        status = csv_block_new(tree->v, number, tree->type, tree->owner, block);
    if (!status)
        csv_node_init((*block)->bytes + CSV_H_BYTES, CSV_NODE_BYTES, level);
    return status;
}

static void add_child(uint8_t *area, unsigned index, uint64_t key, uint64_t number)
{
    uint8_t value[CHILD_BYTES];
    le64_put(value, number);
    csv_node_insert(area, index, key, value, sizeof(value));
}

/* The root's records move into a block of their own. */
static enum status push_down(struct csv_tree *tree)
{
    uint8_t *area = area_of(tree, tree->root);
    struct csv_block *child;
    if (csv_node_level(area) == CSV_MAX_LEVEL)
        return ERR_NO_SPACE;
    enum status status = node_new(tree, csv_node_level(area), &child);
    if (!status)
        status = csv_block_change(tree->v, tree->root);
    if (status)
        return status;
    uint64_t first = csv_node_key(area, 0);
    csv_node_move(area, 0, child->bytes + CSV_H_BYTES);
    csv_node_init(area, tree->bytes, csv_node_level(area) + 1);
    add_child(area, 0, first, child->number);
    return OK;
}

/* Where to split: in the middle of the bytes, or before the last record where the tree grows at its end. */
static unsigned split_index(const uint8_t *area, unsigned index)
{
    unsigned count = csv_node_count(area), bytes = 0, total = csv_node_used(area, CSV_NODE_BYTES);
    if (index + 1 >= count)
        return count - 1;
    unsigned at = 0;
    while (at < count - 1 && bytes < total / 2)
        bytes += CSV_N_SLOT_BYTES + le16_get(area + CSV_N_SLOTS + at++ * CSV_N_SLOT_BYTES + 10);
    return at ? at : 1;
}

static enum status split(struct csv_tree *tree, const struct path *path, unsigned at)
{
    struct csv_block *left = path->step[at].block, *parent = path->step[at - 1].block, *right;
    uint8_t *area = area_of(tree, left);
    enum status status = node_new(tree, csv_node_level(area), &right);
    if (!status)
        status = csv_block_change(tree->v, left);
    if (!status)
        status = csv_block_change(tree->v, parent);
    if (status)
        return status;
    csv_node_move(area, split_index(area, path->step[at].index), right->bytes + CSV_H_BYTES);
    add_child(area_of(tree, parent), path->step[at - 1].index + 1, csv_node_key(right->bytes + CSV_H_BYTES, 0),
              right->number);
    return OK;
}

/* One step towards room for a record at the end of the path. */
static enum status make_room(struct csv_tree *tree, const struct path *path)
{
    unsigned at = path->depth - 1;
    while (at && csv_node_room(area_of(tree, path->step[at - 1].block)) < CSV_N_SLOT_BYTES + CHILD_BYTES)
        at--;
    return at ? split(tree, path, at) : push_down(tree);
}

/* A key below all others: the slots on the way must not be above it. */
static enum status lower_keys(struct csv_tree *tree, const struct path *path, uint64_t key)
{
    for (unsigned i = 0; i + 1 < path->depth; i++) {
        uint8_t *area = area_of(tree, path->step[i].block);
        if (csv_node_key(area, path->step[i].index) <= key)
            continue;
        enum status status = csv_block_change(tree->v, path->step[i].block);
        if (status)
            return status;
        csv_node_set_key(area, path->step[i].index, key);
    }
    return OK;
}

enum status csv_tree_insert(struct csv_tree *tree, uint64_t key, const void *value, unsigned bytes)
{
    for (;;) {
        struct path path;
        enum status status = search(tree, key, &path);
        if (status)
            return status;
        struct csv_block *leaf = path.step[path.depth - 1].block;
        unsigned index = path.step[path.depth - 1].index;
        uint8_t *area = area_of(tree, leaf);
        if (index < csv_node_count(area) && csv_node_key(area, index) == key)
            return ERR_EXISTS;
        if (csv_node_room(area) >= CSV_N_SLOT_BYTES + bytes) {
            status = lower_keys(tree, &path, key);
            if (!status)
                status = csv_block_change(tree->v, leaf);
            if (!status)
                csv_node_insert(area, index, key, value, bytes);
            return status;
        }
        status = make_room(tree, &path);
        if (status)
            return status;
    }
}

/* ---- Removal ---- */

/* Joins record `index` and the one after it of a node into one child, if both fit into three quarters of it. */
static enum status join(struct csv_tree *tree, struct csv_block *parent, unsigned index, bool *joined)
{
    struct csv_block *left, *right;
    uint8_t *area = area_of(tree, parent);
    enum status status = child_get(tree, parent, index, &left);
    if (!status)
        status = child_get(tree, parent, index + 1, &right);
    if (status)
        return status;
    uint8_t *to = area_of(tree, left), *from = area_of(tree, right);
    *joined = csv_node_used(to, CSV_NODE_BYTES) + csv_node_used(from, CSV_NODE_BYTES) <= CSV_NODE_BYTES * 3 / 4;
    if (!*joined)
        return OK;
    status = csv_block_change(tree->v, left);
    if (!status)
        status = csv_block_change(tree->v, parent);
    if (!status)
        status = csv_block_change(tree->v, right);
    if (status)
        return status;
    csv_node_move(from, 0, to);
    csv_node_remove(area, index + 1);
    return csv_block_free(tree->v, right);
}

/* A root with one child whose records fit takes them in. */
static enum status pull_up(struct csv_tree *tree)
{
    uint8_t *area = area_of(tree, tree->root);
    while (csv_node_level(area) && csv_node_count(area) == 1) {
        struct csv_block *child;
        enum status status = child_get(tree, tree->root, 0, &child);
        if (status)
            return status;
        uint8_t *below = area_of(tree, child);
        if (csv_node_used(below, CSV_NODE_BYTES) > tree->bytes * 3 / 4)
            return OK;
        status = csv_block_change(tree->v, tree->root);
        if (!status)
            status = csv_block_change(tree->v, child);
        if (status)
            return status;
        csv_node_init(area, tree->bytes, csv_node_level(below));
        csv_node_move(below, 0, area);
        status = csv_block_free(tree->v, child);
        if (status)
            return status;
    }
    return OK;
}

/* After a record left the node at `at` of the path: empty nodes go, small ones are joined. */
static enum status tidy(struct csv_tree *tree, const struct path *path)
{
    for (unsigned at = path->depth - 1; at; at--) {
        struct csv_block *block = path->step[at].block, *parent = path->step[at - 1].block;
        unsigned index = path->step[at - 1].index;
        uint8_t *area = area_of(tree, block), *above = area_of(tree, parent);
        bool joined = false;
        enum status status;
        if (!csv_node_count(area)) {
            status = csv_block_change(tree->v, parent);
            if (status)
                return status;
            csv_node_remove(above, index);
            status = csv_block_free(tree->v, block);
            joined = true;
        } else {
            if (csv_node_used(area, CSV_NODE_BYTES) > CSV_NODE_BYTES / 4)
                break;
            status = index + 1 < csv_node_count(above) ? join(tree, parent, index, &joined) : OK;
            if (!status && !joined && index)
                status = join(tree, parent, index - 1, &joined);
        }
        if (status)
            return status;
        if (!joined)
            break;
    }
    uint8_t *area = area_of(tree, tree->root);
    if (csv_node_level(area) && !csv_node_count(area))
        csv_node_init(area, tree->bytes, 0); /* its last child went; it is changed already */
    return pull_up(tree);
}

/* The path to a record that is there. */
static enum status find(struct csv_tree *tree, uint64_t key, struct path *path)
{
    enum status status = search(tree, key, path);
    if (status)
        return status;
    const uint8_t *area = area_of(tree, path->step[path->depth - 1].block);
    unsigned index = path->step[path->depth - 1].index;
    return index < csv_node_count(area) && csv_node_key(area, index) == key ? OK : ERR_NOT_FOUND;
}

/* The same, and the leaf that holds it may be changed. */
static enum status find_to_change(struct csv_tree *tree, uint64_t key, struct path *path)
{
    enum status status = find(tree, key, path);
    return status ? status : csv_block_change(tree->v, path->step[path->depth - 1].block);
}

enum status csv_tree_remove(struct csv_tree *tree, uint64_t key)
{
    struct path path;
    enum status status = find_to_change(tree, key, &path);
    if (status)
        return status;
    struct csv_block *leaf = path.step[path.depth - 1].block;
    csv_node_remove(area_of(tree, leaf), path.step[path.depth - 1].index);
    return tidy(tree, &path);
}

enum status csv_tree_replace(struct csv_tree *tree, uint64_t key, const void *value, unsigned bytes)
{
    struct path path;
    enum status status = find_to_change(tree, key, &path);
    if (status)
        return status;
    struct csv_block *leaf = path.step[path.depth - 1].block;
    unsigned had;
    uint8_t *to = csv_node_value(area_of(tree, leaf), path.step[path.depth - 1].index, &had);
    if (had != bytes)
        return ERR_INVALID;
    memcpy(to, value, bytes);
    return OK;
}
