/* SPDX-License-Identifier: MIT */
/*
 * fsck: walks from the root directory and the orphan tree through everything that is there, and proves that each block
 * has the use that it should have. It relies on nothing but the checks that every block passes when it is read. What
 * is found wrong is reported and left out of what follows, so one damaged block gives the reports that it deserves,
 * and no crash.
 */
#include "csv/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void csv_check_say(struct csv_checker *c, const char *format, ...)
{
    char text[CSV_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    c->check->problems++;
    if (c->check->report)
        c->check->report(c->check->context, text);
}

enum status csv_check_pass(struct csv_checker *c, enum status status)
{
    if (status != ERR_CORRUPT)
        return status;
    csv_check_say(c, "%s", c->v->problem);
    return OK;
}

bool csv_check_use(struct csv_checker *c, uint64_t number, const char *what)
{
    if (!csv_may_hold(c->v, number, 1)) {
        csv_check_say(c, "block %llu is used as %s, but is no place for it", (unsigned long long)number, what);
        return false;
    }
    if (c->used[number / 8] >> number % 8 & 1) {
        csv_check_say(c, "block %llu is used as %s, and has another use", (unsigned long long)number, what);
        return false;
    }
    c->used[number / 8] |= (uint8_t)(1u << number % 8);
    return true;
}

enum status csv_check_room(struct csv *v, void **array, size_t count, size_t *room, size_t bytes)
{
    if (count < *room)
        return OK;
    size_t larger = *room ? *room * 2 : 64;
    void *copy = csv_alloc(v, larger * bytes);
    if (!copy)
        return ERR_NO_MEMORY;
    if (count)
        memcpy(copy, *array, count * bytes);
    csv_free(v, *array, *room * bytes);
    *array = copy;
    *room = larger;
    return OK;
}

/* ---- Trees ---- */

struct walk {
    struct csv_tree *tree;
    enum status (*each)(struct csv_checker *c, const struct csv_record *record);
};

/* A node, copied, whose keys must lie in [low, high]. */
static enum status walk_node(struct csv_checker *c, const struct walk *w, uint8_t *area, uint64_t low, uint64_t high)
{
    unsigned count = csv_node_count(area), level = csv_node_level(area);
    uint8_t *child = level ? csv_alloc(c->v, CSV_BLOCK_BYTES) : NULL;
    enum status status = level && !child ? ERR_NO_MEMORY : OK;
    if (count && (csv_node_key(area, 0) < low || csv_node_key(area, count - 1) > high))
        csv_check_say(c, "a tree of %llu has keys outside of their node's range", (unsigned long long)w->tree->owner);
    for (unsigned i = 0; i < count && !status; i++) {
        struct csv_record record = { .key = csv_node_key(area, i) };
        const uint8_t *value = csv_node_value(area, i, &record.bytes);
        memcpy(record.value, value, record.bytes);
        if (!level) {
            status = w->each(c, &record);
            continue;
        }
        uint64_t number = le64_get(record.value);
        struct csv_block *block;
        if (!csv_check_use(c, number, "a tree node"))
            continue;
        csv_breathe(c->v);
        status = csv_block_get(c->v, number, w->tree->type, w->tree->owner, &block);
        if (status) {
            status = csv_check_pass(c, status);
            continue;
        }
        memcpy(child, block->bytes, CSV_BLOCK_BYTES);
        if (csv_node_level(child + CSV_H_BYTES) + 1 != level || !csv_node_count(child + CSV_H_BYTES))
            csv_check_say(c, "block %llu: a tree node of a wrong level, or empty", (unsigned long long)number);
        else
            status = walk_node(c, w, child + CSV_H_BYTES, record.key,
                               i + 1 < count ? csv_node_key(area, i + 1) - 1 : high);
    }
    csv_free(c->v, child, CSV_BLOCK_BYTES);
    return status;
}

enum status csv_check_tree(struct csv_checker *c, struct csv_tree *tree,
                           enum status (*each)(struct csv_checker *c, const struct csv_record *record))
{
    struct walk w = { tree, each };
    uint8_t *area = csv_alloc(c->v, tree->bytes);
    if (!area)
        return ERR_NO_MEMORY;
    memcpy(area, tree->root->bytes + tree->offset, tree->bytes);
    enum status status = OK;
    if (csv_node_level(area) && !csv_node_count(area))
        csv_check_say(c, "the tree of %llu has an inner root without records", (unsigned long long)tree->owner);
    else
        status = walk_node(c, &w, area, 0, UINT64_MAX);
    csv_free(c->v, area, tree->bytes);
    return status;
}

/* ---- Files ---- */

static enum status edge_add(struct csv_checker *c, uint64_t block, int references, int exclusive)
{
    enum status status = csv_check_room(c->v, (void **)&c->edge, c->edge_count, &c->edge_room, sizeof(*c->edge));
    if (!status)
        c->edge[c->edge_count++] = (struct csv_edge){ block, references, exclusive };
    return status;
}

static enum status each_extent(struct csv_checker *c, const struct csv_record *record)
{
    uint64_t word = le64_get(record->value), count = le32_get(record->value + 8), disk = word & CSV_EXTENT_BLOCK_MASK;
    uint64_t flags = word & ~CSV_EXTENT_BLOCK_MASK;
    bool shared = flags == CSV_EXTENT_SHARED;
    if ((flags && !shared && flags != CSV_EXTENT_UNWRITTEN) || !count || !csv_may_hold(c->v, disk, count) ||
        !range_within(record->key, count, CSV_FILE_BLOCKS)) {
        csv_check_say(c, "inode %llu has an impossible extent", (unsigned long long)c->owner);
        return OK;
    }
    if (record->key < c->last_end)
        csv_check_say(c, "inode %llu has extents that overlap", (unsigned long long)c->owner);
    if (record->key + count > c->size_blocks)
        csv_check_say(c, "inode %llu has blocks beyond its size", (unsigned long long)c->owner);
    c->last_end = record->key + count;
    c->blocks += count;
    c->check->extents++;
    enum status status = edge_add(c, disk, 1, !shared);
    return status ? status : edge_add(c, disk + count, -1, shared ? 0 : -1);
}

/* An inode that was reached once: its own fields and its extents. Directories are only entered in the list. */
static enum status check_inode(struct csv_checker *c, uint64_t inode, uint32_t type, uint32_t links, uint64_t parent)
{
    struct csv *v = c->v;
    struct csv_block *block;
    uint8_t kind;
    if (!csv_check_use(c, inode, "an inode"))
        return OK;
    csv_breathe(v);
    enum status status = csv_orphan_kind(v, inode, &kind);
    if (!status)
        status = csv_inode_get(v, inode, 0, &block);
    if (status)
        return csv_check_pass(c, status);
    const uint8_t *bytes = block->bytes;
    c->inodes++;
    if (le64_get(bytes + CSV_IN_GENERATION) >= c->generation)
        csv_check_say(c, "inode %llu has a generation that was not given to any yet", (unsigned long long)inode);
    if (type && le16_get(bytes + CSV_IN_TYPE) != type)
        csv_check_say(c, "inode %llu is not of the type that its directory says", (unsigned long long)inode);
    if (le32_get(bytes + CSV_IN_LINKS) != links || (!links && kind != CSV_ORPHAN_DELETE) ||
        (links && kind == CSV_ORPHAN_DELETE))
        csv_check_say(c, "inode %llu has %u links, and should have %u", (unsigned long long)inode,
                      le32_get(bytes + CSV_IN_LINKS), links);
    if (le16_get(bytes + CSV_IN_TYPE) == CSV_IS_DIRECTORY) {
        status = csv_check_room(v, (void **)&c->directory, c->directory_count, &c->directory_room,
                                sizeof(*c->directory));
        if (!status)
            c->directory[c->directory_count++] = (struct csv_place){ inode, parent };
        return status;
    }
    uint64_t blocks = le64_get(bytes + CSV_IN_BLOCKS), size = le64_get(bytes + CSV_IN_SIZE);
    c->check->files++;
    c->owner = inode;
    c->blocks = c->last_end = 0;
    c->size_blocks = kind ? CSV_FILE_BLOCKS : (size + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
    struct csv_tree tree = csv_inode_tree(v, block);
    status = csv_check_tree(c, &tree, each_extent);
    if (!status && c->blocks != blocks)
        csv_check_say(c, "inode %llu says that it has %llu blocks, and has %llu", (unsigned long long)inode,
                      (unsigned long long)blocks, (unsigned long long)c->blocks);
    return status;
}

/* ---- Directories ---- */

static enum status each_entry(struct csv_checker *c, const struct csv_record *record)
{
    const char *name = (const char *)record->value + CSV_ENTRY_FIXED_BYTES;
    size_t bytes = record->bytes - CSV_ENTRY_FIXED_BYTES;
    uint64_t directory = c->owner;
    c->entries++;
    if (!csv_name_ok(name, bytes))
        csv_check_say(c, "directory %llu has an entry whose name is none", (unsigned long long)directory);
    else if (((csv_name_hash(c->v->hash_key, name, bytes) ^ record->key) & ~UINT64_C(0xff)) ||
             (record->key & 0xff) >= CSV_HASH_SLOTS)
        csv_check_say(c, "directory %llu has an entry that is not where its name's hash says",
                      (unsigned long long)directory);
    if (c->entries > 1 && !((record->key ^ c->previous.key) & ~UINT64_C(0xff)) &&
        record->bytes == c->previous.bytes && !memcmp(name, c->previous.value + CSV_ENTRY_FIXED_BYTES, bytes))
        csv_check_say(c, "directory %llu has the name \"%.*s\" twice", (unsigned long long)directory, (int)bytes, name);
    c->previous = *record;
    if (record->value[8] != CSV_IS_FILE && record->value[8] != CSV_IS_DIRECTORY) {
        csv_check_say(c, "directory %llu has an entry of an unknown type", (unsigned long long)directory);
        return OK;
    }
    uint64_t entries = c->entries;
    enum status status = check_inode(c, le64_get(record->value), record->value[8], 1, directory);
    c->owner = directory;
    c->entries = entries;
    return status;
}

static enum status check_directory(struct csv_checker *c, struct csv_place place)
{
    struct csv_block *block;
    csv_breathe(c->v);
    enum status status = csv_inode_get(c->v, place.inode, CSV_IS_DIRECTORY, &block);
    if (status)
        return csv_check_pass(c, status);
    if (le64_get(block->bytes + CSV_IN_PARENT) != place.parent)
        csv_check_say(c, "directory %llu names another parent than the one that has it",
                      (unsigned long long)place.inode);
    uint64_t entries = le64_get(block->bytes + CSV_IN_SIZE);
    c->check->directories++;
    c->owner = place.inode;
    c->entries = 0;
    struct csv_tree tree = csv_inode_tree(c->v, block);
    status = csv_check_tree(c, &tree, each_entry);
    if (!status && c->entries != entries)
        csv_check_say(c, "directory %llu says that it has %llu entries, and has %llu", (unsigned long long)place.inode,
                      (unsigned long long)entries, (unsigned long long)c->entries);
    return status;
}

static enum status check_directories(struct csv_checker *c)
{
    enum status status = OK;
    while (!status && c->directory_count)
        status = check_directory(c, c->directory[--c->directory_count]);
    return status;
}

/* ---- Orphans, and all of it ---- */

static enum status each_orphan(struct csv_checker *c, const struct csv_record *record)
{
    c->orphan_records++;
    c->check->orphans++;
    if (record->value[0] == CSV_ORPHAN_DELETE)
        return check_inode(c, record->key, CSV_IS_FILE, 0, 0);
    struct csv_block *block;
    if (record->value[0] != CSV_ORPHAN_TRUNCATE || !csv_may_hold(c->v, record->key, 1) ||
        !(c->used[record->key / 8] >> record->key % 8 & 1) ||
        csv_inode_get(c->v, record->key, CSV_IS_FILE, &block))
        csv_check_say(c, "the orphan record of %llu is wrong", (unsigned long long)record->key);
    return OK;
}

static enum status check_all(struct csv_checker *c)
{
    struct csv *v = c->v;
    struct csv_block *root;
    unsigned good;
    csv_super_count(v, &good);
    if (good < CSV_SUPER_COPIES)
        csv_check_say(c, "only %u of %u superblocks are good", good, CSV_SUPER_COPIES);
    enum status status = csv_root_block(v, &root);
    if (!status)
        c->generation = le64_get(root->bytes + CSV_RT_GENERATION);
    if (!status)
        status = check_inode(c, v->root_directory, CSV_IS_DIRECTORY, 1, v->root_directory);
    if (!status)
        status = check_directories(c);
    if (!status)
        status = csv_root_block(v, &root);
    if (status)
        return csv_check_pass(c, status);
    struct csv_tree orphans = csv_orphans_tree(v, root);
    status = csv_check_tree(c, &orphans, each_orphan);
    return status ? status : csv_check_space(c);
}

enum status csv_check(struct csv *v, struct csv_check *check)
{
    struct csv_checker c = { .v = v, .check = check };
    void (*report)(void *context, const char *text) = check->report;
    void *context = check->context;
    *check = (struct csv_check){ .report = report, .context = context };
    enum status status = v->read_only || v->failed ? OK : csv_commit(v);
    if (status)
        return status;
    c.used = csv_alloc_zeroed(v, v->groups * (CSV_GROUP_BLOCKS / 8));
    if (!c.used)
        return ERR_NO_MEMORY;
    v->checking = true;
    status = check_all(&c);
    v->checking = false;
    csv_free(v, c.used, v->groups * (CSV_GROUP_BLOCKS / 8));
    csv_free(v, c.edge, c.edge_room * sizeof(*c.edge));
    csv_free(v, c.directory, c.directory_room * sizeof(*c.directory));
    return status;
}
