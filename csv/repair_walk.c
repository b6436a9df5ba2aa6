/* SPDX-License-Identifier: MIT */
/*
 * What there is on a damaged volume. A tree is read as far as it can be: a node that is damaged, or has keys that are
 * not its own to have, is left out with all below it. Since the ranges of keys do not overlap, no node is visited
 * twice, and the records come in their order, whatever somebody wrote.
 *
 * Which inodes are kept: those that are reached from the root directory, each by the first entry that names it; and
 * inodes that nothing names although the bitmap has them in use: a part of a directory is gone, or an earlier repair
 * was cut off.
 */
#include <string.h>

#include "csv/check.h"
#include "csv/repair.h"

#define LIST_HEAD 10u

/* ---- Lists ---- */

enum status csv_list_add(struct csv *v, struct csv_list *list, uint64_t key, const void *value, unsigned bytes)
{
    if (list->room - list->used < LIST_HEAD + bytes) {
        size_t room = list->room ? list->room * 2 : 4096;
        uint8_t *larger = csv_alloc(v, room);
        if (!larger)
            return ERR_NO_MEMORY;
        if (list->used)
            memcpy(larger, list->bytes, list->used);
        csv_free(v, list->bytes, list->room);
        list->bytes = larger;
        list->room = room;
    }
    le64_put(list->bytes + list->used, key);
    le16_put(list->bytes + list->used + 8, (uint16_t)bytes);
    memcpy(list->bytes + list->used + LIST_HEAD, value, bytes);
    list->used += LIST_HEAD + bytes;
    list->count++;
    return OK;
}

bool csv_list_next(const struct csv_list *list, size_t *at, struct csv_record *record)
{
    if (*at >= list->used)
        return false;
    record->key = le64_get(list->bytes + *at);
    record->bytes = le16_get(list->bytes + *at + 8);
    memcpy(record->value, list->bytes + *at + LIST_HEAD, record->bytes);
    *at += LIST_HEAD + record->bytes;
    return true;
}

void csv_list_free(struct csv *v, struct csv_list *list)
{
    csv_free(v, list->bytes, list->room);
    memset(list, 0, sizeof(*list));
}

/* ---- Trees ---- */

struct collect {
    struct csv_fixer *f;
    struct csv_tree *tree;
    struct csv_list *list;
    uint8_t *nodes;
    bool damaged;
};

/* A child: its bytes, copied, if it is what a child there should be. */
static enum status child_take(struct collect *c, uint64_t number, unsigned level, uint64_t low, uint64_t high,
                              uint8_t *bytes, bool *good)
{
    struct csv *v = c->f->v;
    struct csv_block *block;
    *good = false;
    if (!csv_may_hold(v, number, 1))
        return OK;
    csv_breathe(v);
    enum status status = csv_block_get(v, number, c->tree->type, c->tree->owner, &block);
    if (status)
        return status == ERR_CORRUPT ? OK : status;
    memcpy(bytes, block->bytes, CSV_BLOCK_BYTES);
    const uint8_t *area = bytes + CSV_H_BYTES;
    unsigned count = csv_node_count(area);
    *good = csv_node_level(area) + 1 == level && count && csv_node_key(area, 0) >= low &&
            csv_node_key(area, count - 1) <= high;
    return OK;
}

static enum status collect_node(struct collect *c, uint8_t *area, uint64_t high)
{
    unsigned count = csv_node_count(area), level = csv_node_level(area);
    uint8_t *child = level ? csv_alloc(c->f->v, CSV_BLOCK_BYTES) : NULL;
    enum status status = level && !child ? ERR_NO_MEMORY : OK;
    for (unsigned i = 0; i < count && !status; i++) {
        unsigned bytes;
        const uint8_t *value = csv_node_value(area, i, &bytes);
        uint64_t key = csv_node_key(area, i), last = i + 1 < count ? csv_node_key(area, i + 1) - 1 : high;
        bool good;
        if (!level) {
            status = csv_list_add(c->f->v, c->list, key, value, bytes);
            continue;
        }
        uint64_t number = le64_get(value);
        status = child_take(c, number, level, key, last, child, &good);
        if (status)
            break;
        c->damaged |= !good;
        if (good && c->nodes)
            csv_bit_set(c->nodes, number);
        if (good)
            status = collect_node(c, child + CSV_H_BYTES, last);
    }
    csv_free(c->f->v, child, CSV_BLOCK_BYTES);
    return status;
}

enum status csv_fix_collect(struct csv_fixer *f, struct csv_tree *tree, struct csv_list *list, uint8_t *nodes,
                            bool *damaged)
{
    struct collect c = { f, tree, list, nodes, false };
    uint8_t *area = csv_alloc(f->v, tree->bytes);
    if (!area)
        return ERR_NO_MEMORY;
    memcpy(area, tree->root->bytes + tree->offset, tree->bytes);
    c.damaged = csv_node_level(area) && !csv_node_count(area);
    enum status status = collect_node(&c, area, UINT64_MAX);
    csv_free(f->v, area, tree->bytes);
    *damaged = c.damaged;
    return status;
}

/* ---- Names ---- */

enum status csv_fix_enter(struct csv_fixer *f, uint64_t inode, uint64_t parent, uint64_t key)
{
    struct csv *v = f->v;
    struct csv_block *block;
    if (!csv_may_hold(v, inode, 1) || csv_bit(f->seen, inode))
        return ERR_NOT_FOUND;
    csv_breathe(v);
    enum status status = csv_inode_get(v, inode, 0, &block);
    if (status)
        return status == ERR_CORRUPT ? ERR_NOT_FOUND : status;
    status = csv_check_room(v, (void **)&f->found, f->found_count, &f->found_room, sizeof(*f->found));
    if (status)
        return status;
    csv_bit_set(f->seen, inode);
    f->found[f->found_count++] = (struct csv_found){ inode, parent, key, le16_get(block->bytes + CSV_IN_TYPE) };
    return OK;
}

static enum status walk_directory(struct csv_fixer *f, uint64_t directory)
{
    struct csv *v = f->v;
    struct csv_block *block;
    struct csv_list list = { 0 };
    struct csv_record record;
    bool damaged = false;
    enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &block);
    if (status)
        return status;
    struct csv_tree tree = csv_inode_tree(v, block);
    status = csv_fix_collect(f, &tree, &list, NULL, &damaged);
    if (damaged)
        csv_fix_say(f, "directory %llu: a part of it is damaged, and left out", (unsigned long long)directory);
    f->names_lost |= damaged;
    for (size_t at = 0; !status && csv_list_next(&list, &at, &record);) {
        uint64_t inode = le64_get(record.value);
        status = csv_fix_enter(f, inode, directory, record.key);
        if (status != ERR_NOT_FOUND)
            continue;
        status = OK;
        const char *name = (const char *)record.value + CSV_ENTRY_FIXED_BYTES;
        unsigned bytes = record.bytes - CSV_ENTRY_FIXED_BYTES;
        bool twice = csv_may_hold(v, inode, 1) && csv_bit(f->seen, inode);
        f->repair->lost += !twice;
        csv_fix_say(f, "directory %llu: the name \"%.*s\" is taken out: inode %llu is %s",
                    (unsigned long long)directory, csv_name_ok(name, bytes) ? (int)MIN(bytes, 80) : 0, name,
                    (unsigned long long)inode, twice ? "named by another entry" : "damaged, and lost");
        f->names_lost = true; /* a directory takes what it named with it */
    }
    csv_list_free(v, &list);
    return status;
}

enum status csv_fix_walk(struct csv_fixer *f)
{
    enum status status = OK;
    for (; !status && f->walked < f->found_count; f->walked++)
        if (f->found[f->walked].type == CSV_IS_DIRECTORY)
            status = walk_directory(f, f->found[f->walked].inode);
    return status;
}

const struct csv_found *csv_fix_lookup(const struct csv_fixer *f, uint64_t inode)
{
    size_t low = 0, high = f->found_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->found[middle].inode < inode)
            low = middle + 1;
        else
            high = middle;
    }
    return low < f->found_count && f->found[low].inode == inode ? &f->found[low] : NULL;
}

/* ---- Blocks ---- */

static enum status turn_add(struct csv_fixer *f, uint64_t block, int64_t references)
{
    enum status status = csv_check_room(f->v, (void **)&f->turn, f->turn_count, &f->turn_room, sizeof(*f->turn));
    if (!status)
        f->turn[f->turn_count++] = (struct csv_turn){ block, references };
    return status;
}

static enum status claim_extents(struct csv_fixer *f, const struct csv_list *list)
{
    struct csv_record record;
    enum status status = OK;
    for (size_t at = 0; !status && csv_list_next(list, &at, &record);) {
        uint64_t disk = le64_get(record.value) & CSV_EXTENT_BLOCK_MASK, count = le32_get(record.value + 8);
        if (!csv_may_hold(f->v, disk, count))
            continue; /* it will not stay */
        for (uint64_t block = disk; block < disk + count; block++)
            csv_bit_set(f->data, block);
        status = turn_add(f, disk, 1);
        if (!status)
            status = turn_add(f, disk + count, -1);
    }
    return status;
}

static void claim_run(struct csv_fixer *f, uint64_t start, uint64_t count)
{
    for (uint64_t block = start; block < start + count; block++)
        csv_bit_set(f->meta, block);
}

/* The fixed places, and what lies beyond the volume in its last group. */
static void claim_fixed(struct csv_fixer *f)
{
    const struct csv *v = f->v;
    claim_run(f, 0, CSV_AT_FREE);
    claim_run(f, CSV_AT_SUPER_MIDDLE, 1);
    claim_run(f, v->journal, v->journal_blocks);
    claim_run(f, v->database, v->database_blocks);
    claim_run(f, v->blocks - 1, v->groups * CSV_GROUP_BLOCKS - (v->blocks - 1));
    for (uint64_t region = 0; region < v->blocks; region += CSV_REGION_BLOCKS)
        claim_run(f, region, CSV_REGION_FIXED);
}

enum status csv_fix_claim(struct csv_fixer *f)
{
    struct csv *v = f->v;
    size_t bytes = v->groups * (CSV_GROUP_BLOCKS / 8);
    enum status status = OK;
    memset(f->meta, 0, bytes);
    memset(f->data, 0, bytes);
    f->turn_count = 0;
    claim_fixed(f);
    for (size_t i = 0; i < f->found_count && !status; i++) {
        struct csv_block *block;
        struct csv_list list = { 0 };
        bool damaged;
        csv_breathe(v);
        status = csv_inode_get(v, f->found[i].inode, 0, &block);
        if (status)
            return status;
        csv_bit_set(f->meta, f->found[i].inode);
        struct csv_tree tree = csv_inode_tree(v, block);
        status = csv_fix_collect(f, &tree, &list, f->meta, &damaged);
        if (!status && f->found[i].type == CSV_IS_FILE)
            status = claim_extents(f, &list);
        csv_list_free(v, &list);
    }
    csv_sort(f->turn, f->turn_count, sizeof(*f->turn));
    return status;
}

/* ---- Inodes without a name ---- */

/* True if a block in use, that nothing has, is the inode of a file or directory that had a name. */
static enum status is_candidate(struct csv_fixer *f, uint64_t number, bool *is)
{
    struct csv_block *block;
    *is = false;
    csv_breathe(f->v);
    enum status status = csv_block_get(f->v, number, CSV_INODE, number, &block);
    if (!status)
        *is = le32_get(block->bytes + CSV_IN_LINKS) > 0;
    return status == ERR_CORRUPT ? OK : status;
}

/* Takes candidates that nothing named so far. Pass 0: directories whose parent is none, 1: all directories, 2: all. */
static enum status scan_pass(struct csv_fixer *f, const uint8_t *candidate, unsigned pass)
{
    struct csv *v = f->v;
    enum status status = OK;
    for (uint64_t number = 0; number < v->blocks && !status; number++) {
        struct csv_block *block;
        if (!candidate[number / 8]) {
            number |= 7;
            continue;
        }
        if (!csv_bit(candidate, number) || csv_bit(f->seen, number))
            continue;
        csv_breathe(v);
        status = csv_inode_get(v, number, 0, &block);
        if (status)
            break;
        uint64_t parent = le64_get(block->bytes + CSV_IN_PARENT);
        bool directory = le16_get(block->bytes + CSV_IN_TYPE) == CSV_IS_DIRECTORY;
        if (pass < 2 && (!directory || (!pass && parent < v->blocks && csv_bit(candidate, parent))))
            continue;
        status = csv_fix_enter(f, number, CSV_NO_PARENT, 0);
        if (status)
            break;
        csv_fix_say(f, "%s %llu has lost its name: it goes to lost+found", directory ? "directory" : "file",
                    (unsigned long long)number);
        f->repair->rescued++;
        status = csv_fix_walk(f);
    }
    return status;
}

/* The bits of a group that are in use, and that nothing has. A damaged group tells nothing: all, if names were lost. */
static enum status unclaimed(struct csv_fixer *f, uint64_t group, uint8_t *left)
{
    struct csv_block *block;
    size_t from = group * (CSV_GROUP_BLOCKS / 8);
    csv_breathe(f->v);
    enum status status = csv_block_get(f->v, csv_group_block(group), CSV_GROUP, 0, &block);
    if (status && status != ERR_CORRUPT)
        return status;
    if (status)
        memset(left, f->names_lost ? 0xff : 0, CSV_GROUP_BLOCKS / 8);
    else
        memcpy(left, block->bytes + CSV_GR_BITMAP, CSV_GROUP_BLOCKS / 8);
    for (size_t i = 0; i < CSV_GROUP_BLOCKS / 8; i++)
        left[i] &= (uint8_t)~(f->meta[from + i] | f->data[from + i]);
    return OK;
}

static enum status scan_group(struct csv_fixer *f, uint64_t group, uint8_t *candidate, bool *any)
{
    uint8_t left[CSV_GROUP_BLOCKS / 8];
    enum status status = unclaimed(f, group, left);
    for (uint64_t i = 0; i < CSV_GROUP_BLOCKS && !status; i++) {
        uint64_t number = group * CSV_GROUP_BLOCKS + i;
        bool is = false;
        if (!csv_bit(left, i) || !csv_may_hold(f->v, number, 1))
            continue;
        status = is_candidate(f, number, &is);
        if (!status && is)
            csv_bit_set(candidate, number);
        *any |= is;
    }
    return status;
}

enum status csv_fix_scan(struct csv_fixer *f)
{
    struct csv *v = f->v;
    size_t bytes = v->groups * (CSV_GROUP_BLOCKS / 8);
    bool any = false;
    if (f->had_orphans && !f->names_lost)
        return OK; /* what nothing has is theirs */
    uint8_t *candidate = csv_alloc_zeroed(v, bytes);
    enum status status = candidate ? OK : ERR_NO_MEMORY;
    for (uint64_t group = 0; group < v->groups && !status; group++)
        status = scan_group(f, group, candidate, &any);
    for (unsigned pass = 0; pass < 3 && !status && any; pass++)
        status = scan_pass(f, candidate, pass);
    csv_free(v, candidate, bytes);
    return status;
}
