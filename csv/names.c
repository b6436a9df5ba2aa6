/* SPDX-License-Identifier: MIT */
/*
 * The name space: each function is one operation on directories and inodes. A file that loses its name becomes an
 * orphan in the same operation; its blocks go right after, or when the last one closes it.
 */
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"

/* ---- Looking ---- */

enum status csv_lookup(struct csv *v, uint64_t directory, const char *name, size_t bytes, struct csv_entry *entry)
{
    uint64_t key;
    csv_breathe(v);
    return csv_entry_find(v, directory, name, bytes, entry, &key);
}

enum status csv_walk(struct csv *v, const char *path, uint64_t *inode)
{
    *inode = v->root_directory;
    for (;;) {
        struct csv_entry entry;
        path += strspn(path, "/");
        size_t bytes = strcspn(path, "/");
        if (!bytes)
            return OK;
        enum status status = csv_lookup(v, *inode, path, bytes, &entry);
        if (status)
            return status;
        *inode = entry.inode;
        path += bytes;
    }
}

enum status csv_stat(struct csv *v, uint64_t inode, struct csv_stat *stat)
{
    struct csv_block *block;
    csv_breathe(v);
    enum status status = csv_inode_get(v, inode, 0, &block);
    if (status)
        return status;
    const uint8_t *bytes = block->bytes;
    *stat = (struct csv_stat){
        .inode = inode,
        .generation = le64_get(bytes + CSV_IN_GENERATION),
        .type = le16_get(bytes + CSV_IN_TYPE),
        .links = le32_get(bytes + CSV_IN_LINKS),
        .mode = le32_get(bytes + CSV_IN_MODE),
        .uid = le32_get(bytes + CSV_IN_UID),
        .gid = le32_get(bytes + CSV_IN_GID),
        .size = le64_get(bytes + CSV_IN_SIZE),
        .blocks = le64_get(bytes + CSV_IN_BLOCKS),
        .parent = le64_get(bytes + CSV_IN_PARENT),
        .map_version = le64_get(bytes + CSV_IN_MAP_VERSION),
        .created_ns = (int64_t)le64_get(bytes + CSV_IN_CREATED),
        .modified_ns = (int64_t)le64_get(bytes + CSV_IN_MODIFIED),
        .changed_ns = (int64_t)le64_get(bytes + CSV_IN_CHANGED),
    };
    return OK;
}

static enum status set_attributes(struct csv *v, uint64_t inode, const struct csv_attributes *attributes)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, 0, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    csv_touch(v, block, false);
    if (attributes->set_mode)
        le32_put(block->bytes + CSV_IN_MODE, attributes->mode & 07777);
    if (attributes->set_owner) {
        le32_put(block->bytes + CSV_IN_UID, attributes->uid);
        le32_put(block->bytes + CSV_IN_GID, attributes->gid);
    }
    if (attributes->set_modified)
        le64_put(block->bytes + CSV_IN_MODIFIED, (uint64_t)attributes->modified_ns);
    return OK;
}

enum status csv_set_attributes(struct csv *v, uint64_t inode, const struct csv_attributes *attributes)
{
    enum status status = csv_begin(v);
    return status ? status : csv_end(v, set_attributes(v, inode, attributes));
}

/* ---- Making ---- */

static enum status make(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t type, uint32_t mode,
                        uint64_t *inode)
{
    struct csv_block *block;
    struct csv_entry entry;
    uint64_t key;
    enum status status = csv_entry_find(v, directory, name, bytes, &entry, &key);
    if (status != ERR_NOT_FOUND)
        return status ? status : ERR_EXISTS;
    status = csv_inode_new(v, type, type == CSV_IS_DIRECTORY ? directory : 0, mode, &block);
    if (status)
        return status;
    le32_put(block->bytes + CSV_IN_LINKS, 1);
    *inode = block->number;
    return csv_entry_add(v, directory, name, bytes, block->number, type);
}

static enum status make_again(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t type,
                              uint32_t mode, uint64_t *inode)
{
    enum status status;
    unsigned tries = 0;
    do {
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, make(v, directory, name, bytes, type, mode, inode));
    } while (csv_worth_again(v, &status, &tries));
    return status;
}

enum status csv_create(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t mode,
                       uint64_t *inode)
{
    return make_again(v, directory, name, bytes, CSV_IS_FILE, mode, inode);
}

enum status csv_mkdir(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t mode, uint64_t *inode)
{
    return make_again(v, directory, name, bytes, CSV_IS_DIRECTORY, mode, inode);
}

/* ---- Taking away ---- */

/* An inode loses its only name: a file becomes an orphan (*orphan), an empty directory goes at once. */
static enum status lose(struct csv *v, const struct csv_entry *entry, bool *orphan)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, entry->inode, entry->type, &block);
    if (status)
        return status == ERR_INVALID ? csv_corrupt(v, entry->inode, "its directory says another type") : status;
    if (entry->inode == v->root_directory || le32_get(block->bytes + CSV_IN_LINKS) != 1)
        return csv_corrupt(v, entry->inode, "an inode with an entry, but another count of links");
    if (entry->type == CSV_IS_DIRECTORY)
        return csv_node_count(block->bytes + CSV_IN_NODE) ? ERR_NOT_EMPTY : csv_inode_free(v, block);
    status = csv_block_change(v, block);
    if (status)
        return status;
    le32_put(block->bytes + CSV_IN_LINKS, 0);
    csv_touch(v, block, false);
    *orphan = true;
    return csv_orphan_add(v, entry->inode, CSV_ORPHAN_DELETE);
}

static enum status remove_name(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t type,
                               struct csv_entry *entry, bool *orphan)
{
    uint64_t key;
    enum status status = csv_entry_find(v, directory, name, bytes, entry, &key);
    if (status)
        return status;
    if (entry->type != type)
        return ERR_INVALID;
    status = lose(v, entry, orphan);
    return status ? status : csv_entry_remove(v, directory, key);
}

static void finish_unless_open(struct csv *v, uint64_t inode)
{
    if (!csv_file_find(v, inode))
        csv_orphan_try(v, inode, CSV_ORPHAN_DELETE);
}

static enum status remove_any(struct csv *v, uint64_t directory, const char *name, size_t bytes, uint32_t type)
{
    struct csv_entry entry;
    bool orphan;
    enum status status;
    unsigned tries = 0;
    do {
        orphan = false;
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, remove_name(v, directory, name, bytes, type, &entry, &orphan));
    } while (csv_worth_again(v, &status, &tries));
    if (!status && orphan)
        finish_unless_open(v, entry.inode);
    return status;
}

enum status csv_unlink(struct csv *v, uint64_t directory, const char *name, size_t bytes)
{
    return remove_any(v, directory, name, bytes, CSV_IS_FILE);
}

enum status csv_rmdir(struct csv *v, uint64_t directory, const char *name, size_t bytes)
{
    return remove_any(v, directory, name, bytes, CSV_IS_DIRECTORY);
}

/* ---- Renaming ---- */

/*
 * ERR_INVALID if `directory` is `inode` or lies below it. A circle of parents, which a damaged volume may have, is
 * found by one directory of the way that is kept, and changed after 1, 2, 4 ... steps (Brent 1980).
 */
static enum status not_below(struct csv *v, uint64_t directory, uint64_t inode)
{
    uint64_t kept = 0;
    for (uint64_t steps = 0, until = 1; directory != kept; steps++) {
        struct csv_block *block;
        if (directory == inode)
            return ERR_INVALID;
        if (directory == v->root_directory)
            return OK;
        enum status status = csv_inode_get(v, directory, CSV_IS_DIRECTORY, &block);
        if (status)
            return status;
        if (steps == until) {
            until *= 2;
            kept = directory;
        }
        directory = le64_get(block->bytes + CSV_IN_PARENT);
    }
    return csv_corrupt(v, directory, "directories that are each other's parents");
}

struct rename {
    uint64_t from, to;
    const char *from_name, *to_name;
    size_t from_bytes, to_bytes;
    struct csv_entry replaced;
    bool orphan;
};

/* The entry at the new name: set if it is there, else made. */
static enum status rename_to(struct csv *v, struct rename *r, const struct csv_entry *entry)
{
    uint64_t key;
    enum status status = csv_entry_find(v, r->to, r->to_name, r->to_bytes, &r->replaced, &key);
    if (status == ERR_NOT_FOUND)
        return csv_entry_add(v, r->to, r->to_name, r->to_bytes, entry->inode, entry->type);
    if (status)
        return status;
    if (r->replaced.type != entry->type)
        return ERR_INVALID;
    if (r->replaced.inode == entry->inode)
        return csv_corrupt(v, entry->inode, "two entries name this inode");
    status = lose(v, &r->replaced, &r->orphan);
    return status ? status : csv_entry_set(v, r->to, key, entry->inode, entry->type);
}

static enum status rename_all(struct csv *v, struct rename *r)
{
    struct csv_entry entry;
    struct csv_block *block;
    uint64_t key;
    r->orphan = false;
    enum status status = csv_entry_find(v, r->from, r->from_name, r->from_bytes, &entry, &key);
    if (status)
        return status;
    if (r->from == r->to && r->from_bytes == r->to_bytes && !memcmp(r->from_name, r->to_name, r->to_bytes))
        return OK;
    if (entry.type == CSV_IS_DIRECTORY && r->from != r->to)
        status = not_below(v, r->to, entry.inode);
    if (!status)
        status = rename_to(v, r, &entry);
    if (!status)
        status = csv_entry_remove(v, r->from, key);
    if (!status)
        status = csv_inode_get(v, entry.inode, 0, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    csv_touch(v, block, false);
    if (entry.type == CSV_IS_DIRECTORY)
        le64_put(block->bytes + CSV_IN_PARENT, r->to);
    return OK;
}

enum status csv_rename(struct csv *v, uint64_t from, const char *from_name, size_t from_bytes, uint64_t to,
                       const char *to_name, size_t to_bytes)
{
    struct rename r = { .from = from, .to = to, .from_name = from_name, .to_name = to_name, .from_bytes = from_bytes,
                        .to_bytes = to_bytes };
    enum status status;
    unsigned tries = 0;
    do {
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, rename_all(v, &r));
    } while (csv_worth_again(v, &status, &tries));
    if (!status && r.orphan)
        finish_unless_open(v, r.replaced.inode);
    return status;
}

/* ---- Open files ---- */

enum status csv_open(struct csv *v, uint64_t inode, struct csv_file **file)
{
    struct csv_block *block;
    enum status status = csv_inode_get(v, inode, CSV_IS_FILE, &block);
    if (status)
        return status;
    *file = csv_file_find(v, inode);
    if (!*file) {
        *file = csv_alloc_zeroed(v, sizeof(**file));
        if (!*file)
            return ERR_NO_MEMORY;
        (*file)->volume = v;
        (*file)->inode = inode;
        (*file)->next = v->files;
        v->files = *file;
    }
    (*file)->opens++;
    return OK;
}

enum status csv_close(struct csv_file *file)
{
    struct csv *v = file->volume;
    struct csv_block *block;
    uint64_t inode = file->inode;
    if (--file->opens)
        return OK;
    for (struct csv_file **at = &v->files; *at; at = &(*at)->next)
        if (*at == file) {
            *at = file->next;
            break;
        }
    csv_free(v, file->extent, file->extent_room * sizeof(*file->extent));
    csv_free(v, file, sizeof(*file));
    enum status status = csv_inode_get(v, inode, CSV_IS_FILE, &block);
    if (status)
        v->unfinished = true; /* it may be an orphan */
    if (status || v->read_only || le32_get(block->bytes + CSV_IN_LINKS))
        return status;
    csv_orphan_try(v, inode, CSV_ORPHAN_DELETE);
    return OK;
}

uint64_t csv_inode_of(const struct csv_file *file)
{
    return file->inode;
}

uint64_t csv_size(struct csv_file *file)
{
    struct csv_block *block;
    if (csv_inode_get(file->volume, file->inode, CSV_IS_FILE, &block))
        return 0;
    return le64_get(block->bytes + CSV_IN_SIZE);
}
