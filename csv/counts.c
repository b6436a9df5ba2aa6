/* SPDX-License-Identifier: MIT */
/*
 * How many extents refer to a block, where it is more than one: runs of blocks with one count, in a tree of the volume.
 * A run of blocks is walked in pieces of one count each; a piece gets its new count, or, from 1 downwards, is freed.
 */
#include "csv/tree.h"
#include "csv/volume.h"

struct piece {
    uint64_t start, blocks; /* the part asked for */
    uint64_t count;         /* references */
    uint64_t record_start, record_blocks; /* of the record that it lies in, if count > 1 */
};

static enum status record_take(struct csv *v, const struct csv_record *record, struct piece *piece)
{
    piece->record_start = record->key;
    piece->record_blocks = le32_get(record->value);
    piece->count = le32_get(record->value + 4);
    if (piece->count < 2 || !csv_may_hold(v, record->key, piece->record_blocks))
        return csv_corrupt(v, record->key, "the reference count of a run of blocks is impossible");
    return OK;
}

/* The piece that begins at `start`, at most `count` blocks. */
static enum status piece_at(struct csv *v, struct csv_tree *tree, uint64_t start, uint64_t count, struct piece *piece)
{
    struct csv_record record;
    enum status status = csv_tree_upto(tree, start, &record);
    if (!status) {
        status = record_take(v, &record, piece);
        if (!status && start - record.key < piece->record_blocks) {
            piece->start = start;
            piece->blocks = MIN(count, record.key + piece->record_blocks - start);
            return OK;
        }
    }
    if (status && status != ERR_NOT_FOUND)
        return status;
    status = csv_tree_from(tree, start, &record);
    if (status && status != ERR_NOT_FOUND)
        return status;
    *piece = (struct piece){ .start = start, .blocks = count, .count = 1 };
    if (!status && record.key - start < count)
        piece->blocks = record.key - start;
    return OK;
}

static enum status put(struct csv_tree *tree, uint64_t start, uint64_t blocks, uint64_t count)
{
    uint8_t value[CSV_COUNT_VALUE_BYTES];
    if (!blocks)
        return OK;
    le32_put(value, (uint32_t)blocks);
    le32_put(value + 4, (uint32_t)count);
    return csv_tree_insert(tree, start, value, sizeof(value));
}

/* Enters a run, joined with neighbours of the same count. */
static enum status put_joined(struct csv *v, struct csv_tree *tree, uint64_t start, uint64_t blocks, uint64_t count)
{
    struct csv_record record;
    struct piece near;
    enum status status = csv_tree_upto(tree, start, &record);
    if (!status)
        status = record_take(v, &record, &near);
    if (!status && near.count == count && near.record_start + near.record_blocks == start &&
        csv_may_hold(v, near.record_start, near.record_blocks + blocks)) {
        status = csv_tree_remove(tree, near.record_start);
        start = near.record_start;
        blocks += near.record_blocks;
    }
    if (status && status != ERR_NOT_FOUND)
        return status;
    status = csv_tree_from(tree, start + blocks, &record);
    if (!status)
        status = record_take(v, &record, &near);
    if (!status && near.count == count && near.record_start == start + blocks &&
        csv_may_hold(v, start, blocks + near.record_blocks)) {
        status = csv_tree_remove(tree, near.record_start);
        blocks += near.record_blocks;
    }
    if (status && status != ERR_NOT_FOUND)
        return status;
    return put(tree, start, blocks, count);
}

static enum status set_count(struct csv *v, struct csv_tree *tree, const struct piece *piece, uint64_t count)
{
    enum status status = OK;
    if (piece->count > 1) {
        uint64_t end = piece->start + piece->blocks, record_end = piece->record_start + piece->record_blocks;
        status = csv_tree_remove(tree, piece->record_start);
        if (!status)
            status = put(tree, piece->record_start, piece->start - piece->record_start, piece->count);
        if (!status)
            status = put(tree, end, record_end - end, piece->count);
    }
    return status || count < 2 ? status : put_joined(v, tree, piece->start, piece->blocks, count);
}

/* Walks [start, start + count): each piece's count is raised or lowered by one. */
static enum status change(struct csv *v, uint64_t start, uint64_t count, bool more, uint64_t *done)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (!status && !csv_may_hold(v, start, count))
        status = csv_corrupt(v, start, "an extent lies where no data may be");
    if (status)
        return status;
    struct csv_tree tree = csv_counts_tree(v, root);
    for (*done = 0; !status && *done < count && (!*done || csv_has_room(v));) {
        struct piece piece;
        status = piece_at(v, &tree, start + *done, count - *done, &piece);
        if (status)
            return status;
        if (more && piece.count == UINT32_MAX)
            return ERR_NO_SPACE;
        if (!more && piece.count == 1) {
            status = csv_free_blocks(v, piece.start, piece.blocks);
        } else {
            v->unshared |= !more;
            status = set_count(v, &tree, &piece, more ? piece.count + 1 : piece.count - 1);
        }
        *done += piece.blocks;
    }
    return status;
}

enum status csv_share(struct csv *v, uint64_t start, uint64_t count, uint64_t *done)
{
    return change(v, start, count, true, done);
}

enum status csv_release(struct csv *v, uint64_t start, uint64_t count, uint64_t *done)
{
    return change(v, start, count, false, done);
}

enum status csv_references(struct csv *v, uint64_t start, uint64_t count, uint64_t *alike, uint64_t *references)
{
    struct csv_block *root;
    struct piece piece;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_counts_tree(v, root);
    status = piece_at(v, &tree, start, count, &piece);
    if (status)
        return status;
    *alike = piece.blocks;
    *references = piece.count;
    return OK;
}
