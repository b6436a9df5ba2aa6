/* SPDX-License-Identifier: MIT */
/*
 * What stays of a file or directory, and how it is written. The records that are kept are compared with those that were
 * read; if anything differs, or a part of the tree was damaged, the tree is written anew: its nodes into free blocks,
 * the leaves first, and then the root in one operation. So a power cut leaves the old tree or the new one, and a repair
 * can be done again.
 *
 * Files: an extent stays as far as it lies where data may be, within the size, behind the extent before it, and not on
 * a block of metadata. Blocks that several extents have become shared ones: each file goes on reading what it read, and
 * the next write separates them. (Unwritten ones are given up: they read as zeros.)
 * Directories: an entry stays if its inode does. One whose name is none, or is there twice, gets another name.
 */
#include <stdio.h>
#include <string.h>

#include "csv/repair.h"

#define CHILD_BYTES 8u

/* ---- A new tree ---- */

struct sorted {
    uint64_t key, at; /* in the list */
};

/* One level that is being written: nodes behind each other. */
struct level {
    struct csv_fixer *f;
    const struct csv_tree *tree;
    unsigned number;
    struct csv_list children; /* of the level above */
};

/* As many records of the list as one node takes, from *next on, into a node of its own. */
static enum status write_node(struct level *l, const struct csv_list *list, const struct sorted *order, size_t *next)
{
    struct csv *v = l->f->v;
    struct csv_block *block;
    uint64_t number;
    uint8_t value[CHILD_BYTES];
    size_t at_record = *next;
    enum status status = csv_begin(v);
    if (status)
        return status;
    status = csv_alloc_meta(v, &number);
    if (!status)
        status = csv_block_new(v, number, l->tree->type, l->tree->owner, &block);
    if (!status) {
        uint8_t *area = block->bytes + CSV_H_BYTES;
        csv_node_init(area, CSV_NODE_BYTES, l->number);
        for (; at_record < list->count; at_record++) {
            struct csv_record record;
            size_t at = order[at_record].at;
            (void)csv_list_next(list, &at, &record);
            if (csv_node_room(area) < CSV_N_SLOT_BYTES + record.bytes)
                break;
            csv_node_insert(area, csv_node_count(area), record.key, record.value, record.bytes);
        }
    }
    status = csv_end(v, status);
    if (status)
        return status;
    le64_put(value, number);
    status = csv_list_add(v, &l->children, order[*next].key, value, sizeof(value));
    *next = at_record;
    return status;
}

/* The order of a list's records by their keys. */
static enum status sort_list(struct csv *v, const struct csv_list *list, struct sorted **order)
{
    struct csv_record record;
    size_t i = 0;
    *order = csv_alloc(v, (list->count + 1) * sizeof(**order));
    if (!*order)
        return ERR_NO_MEMORY;
    for (size_t at = 0, before = 0; csv_list_next(list, &at, &record); before = at)
        (*order)[i++] = (struct sorted){ record.key, before };
    csv_sort(*order, list->count, sizeof(**order));
    return OK;
}

static size_t list_needs(const struct csv_list *list)
{
    return list->used - list->count * 10 + list->count * CSV_N_SLOT_BYTES;
}

/* Puts records, in their order, into the root. */
static enum status write_root(struct csv_tree *tree, const struct csv_list *list, const struct sorted *order,
                              unsigned level)
{
    enum status status = csv_block_change(tree->v, tree->root);
    if (status)
        return status;
    uint8_t *area = tree->root->bytes + tree->offset;
    csv_node_init(area, tree->bytes, level);
    for (size_t i = 0; i < list->count; i++) {
        struct csv_record record;
        size_t at = order[i].at;
        (void)csv_list_next(list, &at, &record);
        csv_node_insert(area, (unsigned)i, record.key, record.value, record.bytes);
    }
    return OK;
}

/*
 * Writes all but the root of a new tree with these records. *top becomes what the root takes, *order its order; both
 * are freed by the caller.
 */
static enum status write_levels(struct csv_fixer *f, const struct csv_tree *tree, const struct csv_list *list,
                                struct csv_list *top, struct sorted **order, unsigned *level)
{
    struct csv *v = f->v;
    struct csv_list below = { 0 };
    const struct csv_list *from = list;
    enum status status = OK;
    *level = 0;
    *order = NULL;
    while (!status) {
        status = sort_list(v, from, order);
        if (status || list_needs(from) + CSV_N_SLOTS <= tree->bytes)
            break;
        struct level l = { .f = f, .tree = tree, .number = (*level)++ };
        for (size_t next = 0; !status && next < from->count;)
            status = write_node(&l, from, *order, &next);
        csv_free(v, *order, (from->count + 1) * sizeof(**order));
        *order = NULL;
        csv_list_free(v, &below);
        below = l.children;
        from = &below;
    }
    if (!status && from == list) { /* all fits into the root: a copy */
        struct csv_record record;
        for (size_t at = 0; !status && csv_list_next(list, &at, &record);)
            status = csv_list_add(v, &below, record.key, record.value, record.bytes);
    }
    *top = below;
    return status;
}

static enum status put_root(struct csv *v, struct csv_tree *tree, const struct csv_list *top,
                            const struct sorted *order, unsigned level)
{
    struct csv_block *root;
    enum status status = tree->owner ? csv_inode_get(v, tree->owner, 0, &root) : csv_root_block(v, &root);
    if (status)
        return status;
    tree->root = root;
    return write_root(tree, top, order, level);
}

static enum status tree_write(struct csv_fixer *f, struct csv_tree *tree, const struct csv_list *list)
{
    struct csv *v = f->v;
    struct csv_list top;
    struct sorted *order;
    unsigned level;
    enum status status = write_levels(f, tree, list, &top, &order, &level);
    if (!status)
        status = csv_begin(v);
    if (!status)
        status = csv_end(v, put_root(v, tree, &top, order, level));
    csv_free(v, order, order ? (top.count + 1) * sizeof(*order) : 0);
    csv_list_free(v, &top);
    return status;
}

static bool same(const struct csv_list *a, const struct csv_list *b)
{
    return a->used == b->used && (!a->used || !memcmp(a->bytes, b->bytes, a->used));
}

/* ---- Files ---- */

struct file_fix {
    struct csv_fixer *f;
    uint64_t inode, end, limit; /* of the file's blocks: where the last extent ended; the size */
    struct csv_list kept;
    uint64_t blocks;
};

/* The first turn behind `block`; *references: how many extents have `block`. */
static size_t turn_after(const struct csv_fixer *f, uint64_t block, int64_t *references)
{
    size_t low = 0, high = f->turn_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->turn[middle].block <= block)
            low = middle + 1;
        else
            high = middle;
    }
    *references = low ? f->turn[low - 1].references : 0;
    return low;
}

/* False where another turn of the same block follows, whose sum counts. */
static bool is_last_turn(const struct csv_fixer *f, size_t index)
{
    return index + 1 == f->turn_count || f->turn[index + 1].block != f->turn[index].block;
}

static enum status keep(struct file_fix *x, const struct csv_extent *extent)
{
    uint8_t value[CSV_EXTENT_VALUE_BYTES];
    if (!extent->count)
        return OK;
    le64_put(value, extent->disk | extent->flags);
    le32_put(value + 8, (uint32_t)extent->count);
    x->blocks += extent->count;
    return csv_list_add(x->f->v, &x->kept, extent->file, value, sizeof(value));
}

/* True if the block may stay in this extent. */
static bool may_keep(struct file_fix *x, const struct csv_extent *extent, uint64_t block)
{
    int64_t references;
    if (csv_bit(x->f->meta, block))
        return false;
    if (!(extent->flags & CSV_EXTENT_UNWRITTEN))
        return true;
    (void)turn_after(x->f, block, &references);
    return references < 2;
}

/* The parts of an extent whose blocks may stay; it becomes a shared one if any of them has another reference. */
static enum status keep_parts(struct file_fix *x, struct csv_extent extent)
{
    int64_t references;
    enum status status = OK;
    if (!extent.flags) {
        size_t next = turn_after(x->f, extent.disk, &references);
        bool more = references > 1;
        for (; !more && next < x->f->turn_count && x->f->turn[next].block < extent.disk + extent.count; next++)
            more = x->f->turn[next].references > 1 && is_last_turn(x->f, next);
        if (more) {
            csv_fix_say(x->f, "file %llu: blocks from %llu on belong to another file too: they are shared from now on",
                        (unsigned long long)x->inode, (unsigned long long)extent.disk);
            extent.flags = CSV_EXTENT_SHARED;
        }
    }
    for (uint64_t at = 0; at < extent.count && !status;) {
        uint64_t first = at;
        while (at < extent.count && may_keep(x, &extent, extent.disk + at))
            at++;
        status = keep(x, &(struct csv_extent){ extent.file + first, extent.disk + first, at - first, extent.flags });
        if (at < extent.count)
            csv_fix_say(x->f, "file %llu: block %llu of it is given up: %llu on the disk is somebody else's",
                        (unsigned long long)x->inode, (unsigned long long)(extent.file + at),
                        (unsigned long long)(extent.disk + at));
        while (at < extent.count && !may_keep(x, &extent, extent.disk + at))
            at++;
    }
    return status;
}

static enum status fix_extent(struct file_fix *x, const struct csv_record *record)
{
    uint64_t word = le64_get(record->value);
    struct csv_extent e = { record->key, word & CSV_EXTENT_BLOCK_MASK, le32_get(record->value + 8),
                            word & ~CSV_EXTENT_BLOCK_MASK };
    if ((e.flags && e.flags != CSV_EXTENT_SHARED && e.flags != CSV_EXTENT_UNWRITTEN) ||
        !csv_may_hold(x->f->v, e.disk, e.count) || !range_within(e.file, e.count, CSV_FILE_BLOCKS)) {
        csv_fix_say(x->f, "file %llu: an impossible extent at its block %llu is taken out",
                    (unsigned long long)x->inode, (unsigned long long)e.file);
        return OK;
    }
    uint64_t first = MAX(e.file, x->end), end = MIN(e.file + e.count, x->limit);
    if (first != e.file)
        csv_fix_say(x->f, "file %llu: extents overlap at its block %llu: the first one stays",
                    (unsigned long long)x->inode, (unsigned long long)e.file);
    if (first >= end)
        return OK; /* what lies beyond the size would have been freed by a mount */
    x->end = end;
    return keep_parts(x, (struct csv_extent){ first, e.disk + (first - e.file), end - first, e.flags });
}

/* ---- Directories ---- */

struct directory_fix {
    struct csv_fixer *f;
    uint64_t inode;
    struct csv_list kept, moved; /* moved: entries that need another key */
    struct csv_record previous;
};

/* Another name, of the inode's number. */
static void new_name(struct csv_record *record)
{
    char name[32];
    int bytes = snprintf(name, sizeof(name), "#%llu", (unsigned long long)le64_get(record->value));
    memcpy(record->value + CSV_ENTRY_FIXED_BYTES, name, (size_t)bytes);
    record->bytes = CSV_ENTRY_FIXED_BYTES + (unsigned)bytes;
}

static enum status fix_entry(struct directory_fix *x, struct csv_record *record)
{
    struct csv_fixer *f = x->f;
    const struct csv_found *found = csv_fix_lookup(f, le64_get(record->value));
    const char *name = (const char *)record->value + CSV_ENTRY_FIXED_BYTES;
    unsigned bytes = record->bytes - CSV_ENTRY_FIXED_BYTES;
    if (!found || found->parent != x->inode || found->key != record->key)
        return OK; /* said when it was found out */
    if (record->value[8] != found->type)
        csv_fix_say(f, "directory %llu: \"%.*s\" gets the type of its inode", (unsigned long long)x->inode,
                    csv_name_ok(name, bytes) ? (int)bytes : 0, name);
    record->value[8] = (uint8_t)found->type;
    bool twice = x->kept.count && bytes == x->previous.bytes - CSV_ENTRY_FIXED_BYTES &&
                 !memcmp(name, x->previous.value + CSV_ENTRY_FIXED_BYTES, bytes);
    bool good = csv_name_ok(name, bytes);
    if (twice || !good) {
        new_name(record);
        csv_fix_say(f, "directory %llu: an entry whose name is %s is called \"#%llu\" from now on",
                    (unsigned long long)x->inode, good ? "there twice" : "none",
                    (unsigned long long)le64_get(record->value));
        return csv_list_add(f->v, &x->moved, 0, record->value, record->bytes);
    }
    uint64_t base = csv_name_hash(f->v->hash_key, name, bytes) & ~UINT64_C(0xff);
    if ((record->key & ~UINT64_C(0xff)) != base || (record->key & 0xff) >= CSV_HASH_SLOTS) {
        csv_fix_say(f, "directory %llu: \"%.*s\" is put where its hash says", (unsigned long long)x->inode, (int)bytes,
                    name);
        return csv_list_add(f->v, &x->moved, 0, record->value, record->bytes);
    }
    x->previous = *record;
    return csv_list_add(f->v, &x->kept, record->key, record->value, record->bytes);
}

static bool has_key(const struct csv_list *list, uint64_t key)
{
    struct csv_record record;
    for (size_t at = 0; csv_list_next(list, &at, &record);)
        if (record.key == key)
            return true;
    return false;
}

/* Entries that were moved get the lowest key that is free for them. */
static enum status place_moved(struct directory_fix *x)
{
    struct csv_record record;
    enum status status = OK;
    for (size_t at = 0; !status && csv_list_next(&x->moved, &at, &record);) {
        uint64_t key = csv_name_hash(x->f->v->hash_key, (const char *)record.value + CSV_ENTRY_FIXED_BYTES,
                                     record.bytes - CSV_ENTRY_FIXED_BYTES) & ~UINT64_C(0xff);
        while ((key & 0xff) < CSV_HASH_SLOTS - 1 && has_key(&x->kept, key))
            key++;
        status = csv_list_add(x->f->v, &x->kept, key, record.value, record.bytes);
    }
    return status;
}

/* ---- Inodes ---- */

/* What the inode itself should say. `count`: blocks of a file, entries of a directory. */
static enum status fix_fields(struct csv_fixer *f, const struct csv_found *found, uint64_t count)
{
    struct csv_block *block;
    bool directory = found->type == CSV_IS_DIRECTORY;
    unsigned at = directory ? CSV_IN_SIZE : CSV_IN_BLOCKS;
    enum status status = csv_inode_get(f->v, found->inode, 0, &block);
    if (status)
        return status;
    uint64_t parent = le64_get(block->bytes + CSV_IN_PARENT);
    uint64_t right = directory && found->parent != CSV_NO_PARENT ? found->parent : parent;
    if (le64_get(block->bytes + at) == count && le32_get(block->bytes + CSV_IN_LINKS) == 1 && parent == right)
        return OK;
    csv_fix_say(f, "%s %llu: its %s, links or parent are put right", directory ? "directory" : "file",
                (unsigned long long)found->inode, directory ? "count of entries" : "count of blocks");
    status = csv_begin(f->v);
    if (status)
        return status;
    status = csv_inode_get(f->v, found->inode, 0, &block);
    if (!status)
        status = csv_block_change(f->v, block);
    if (!status) {
        le64_put(block->bytes + at, count);
        le32_put(block->bytes + CSV_IN_LINKS, 1);
        le64_put(block->bytes + CSV_IN_PARENT, right);
    }
    return csv_end(f->v, status);
}

static enum status fix_inode(struct csv_fixer *f, const struct csv_found *found)
{
    struct csv *v = f->v;
    struct csv_block *block;
    struct csv_list list = { 0 };
    struct csv_record record;
    bool damaged, directory = found->type == CSV_IS_DIRECTORY;
    struct file_fix file = { .f = f, .inode = found->inode };
    struct directory_fix entries = { .f = f, .inode = found->inode };
    csv_breathe(v);
    enum status status = csv_inode_get(v, found->inode, 0, &block);
    if (status)
        return status;
    uint64_t size = le64_get(block->bytes + CSV_IN_SIZE);
    file.limit = (size + CSV_BLOCK_BYTES - 1) >> CSV_BLOCK_SHIFT;
    struct csv_tree tree = csv_inode_tree(v, block);
    status = csv_fix_collect(f, &tree, &list, NULL, &damaged);
    for (size_t at = 0; !status && csv_list_next(&list, &at, &record);)
        status = directory ? fix_entry(&entries, &record) : fix_extent(&file, &record);
    if (!status && directory)
        status = place_moved(&entries);
    struct csv_list *kept = directory ? &entries.kept : &file.kept;
    uint64_t count = directory ? kept->count : file.blocks;
    if (!status && damaged && !directory)
        csv_fix_say(f, "file %llu: a part of its map is damaged: what it had there reads as zeros",
                    (unsigned long long)found->inode);
    if (!status && (damaged || !same(&list, kept)))
        status = tree_write(f, &tree, kept);
    csv_list_free(v, &list);
    csv_list_free(v, &file.kept);
    csv_list_free(v, &entries.kept);
    csv_list_free(v, &entries.moved);
    return status ? status : fix_fields(f, found, count);
}

enum status csv_fix_inodes(struct csv_fixer *f)
{
    int64_t references = 0;
    enum status status = OK;
    for (size_t i = 0; i < f->turn_count; i++) /* from changes to sums */
        f->turn[i].references = references += f->turn[i].references;
    for (size_t i = 0; i < f->found_count && !status; i++)
        status = fix_inode(f, &f->found[i]);
    return status;
}

/* ---- Counts ---- */

/* Runs of blocks with one count above 1, as the turns (changes) say. */
static enum status list_counts(struct csv_fixer *f, struct csv_list *list)
{
    int64_t references = 0;
    uint64_t start = 0;
    struct csv_run run = { 0, 0 };
    int64_t run_references = 0;
    enum status status = OK;
    for (size_t i = 0; i <= f->turn_count && !status; i++) {
        uint64_t block = i < f->turn_count ? f->turn[i].block : UINT64_MAX;
        int64_t here = i < f->turn_count && block > start && references > 1 ? references : 0;
        bool longer = here && here == run_references && run.start + run.count == start &&
                      csv_may_hold(f->v, run.start, run.count + (block - start));
        if (longer) {
            run.count += block - start;
        } else if (here || i == f->turn_count) {
            uint8_t value[CSV_COUNT_VALUE_BYTES];
            le32_put(value, (uint32_t)run.count);
            le32_put(value + 4, (uint32_t)run_references);
            if (run.count)
                status = csv_list_add(f->v, list, run.start, value, sizeof(value));
            run = (struct csv_run){ start, here ? block - start : 0 };
            run_references = here;
        }
        if (i < f->turn_count)
            references += f->turn[i].references;
        start = block;
    }
    return status;
}

enum status csv_fix_counts(struct csv_fixer *f)
{
    struct csv *v = f->v;
    struct csv_block *root;
    struct csv_list had = { 0 }, right = { 0 };
    bool damaged;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_counts_tree(v, root);
    status = csv_fix_collect(f, &tree, &had, NULL, &damaged);
    if (!status)
        status = list_counts(f, &right);
    if (!status && (damaged || !same(&had, &right))) {
        csv_fix_say(f, "the reference counts are written anew");
        status = tree_write(f, &tree, &right);
    }
    csv_list_free(v, &had);
    csv_list_free(v, &right);
    return status;
}

/* ---- lost+found ---- */

static enum status give_name(struct csv *v, uint64_t directory, const struct csv_found *found)
{
    char name[32];
    struct csv_block *block;
    enum status status = csv_begin(v);
    if (status)
        return status;
    int bytes = snprintf(name, sizeof(name), "#%llu", (unsigned long long)found->inode);
    status = csv_entry_add(v, directory, name, (size_t)bytes, found->inode, (uint32_t)found->type);
    if (!status)
        status = csv_inode_get(v, found->inode, 0, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (!status && found->type == CSV_IS_DIRECTORY)
        le64_put(block->bytes + CSV_IN_PARENT, directory);
    return csv_end(v, status);
}

/* The directory /lost+found, or another one if that name is a file's. */
static enum status lost_and_found(struct csv *v, uint64_t *directory, bool *made)
{
    char name[32];
    *made = false;
    for (unsigned i = 0; i < 10; i++) {
        struct csv_entry entry;
        int bytes = i ? snprintf(name, sizeof(name), "lost+found.%u", i) : snprintf(name, sizeof(name), "lost+found");
        enum status status = csv_lookup(v, v->root_directory, name, (size_t)bytes, &entry);
        *directory = entry.inode;
        if (status == ERR_NOT_FOUND) {
            *made = true;
            return csv_mkdir(v, v->root_directory, name, (size_t)bytes, 0700, directory);
        }
        if (status || entry.type == CSV_IS_DIRECTORY)
            return status;
    }
    return ERR_EXISTS;
}

enum status csv_fix_lost_and_found(struct csv_fixer *f)
{
    uint64_t directory = 0;
    enum status status = OK;
    size_t count = f->found_count;
    for (size_t i = 0; i < count && !status; i++) {
        bool made;
        if (f->found[i].parent != CSV_NO_PARENT)
            continue;
        if (!directory) {
            status = lost_and_found(f->v, &directory, &made);
            if (!status && made)
                status = csv_fix_enter(f, directory, f->v->root_directory, 0);
            if (status)
                return status;
        }
        status = give_name(f->v, directory, &f->found[i]);
        f->found[i].parent = directory;
        if (status == ERR_EXISTS)
            status = OK; /* of an earlier repair that was cut off */
    }
    return status;
}
