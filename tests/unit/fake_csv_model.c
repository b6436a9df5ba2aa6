/* SPDX-License-Identifier: MIT */
/* The model of fake_csv_model.h: an array of nodes, searched from the front. */
#include "fake_csv_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE (~0u)

/* Bytes of files are used again: a model is copied with each step, and most of the time would go to the allocator. */
#define SPARE 512
static uint8_t *spare[SPARE];
static unsigned spare_count;

static uint8_t *bytes_new(void)
{
    return spare_count ? spare[--spare_count] : malloc(MODEL_FILE_BYTES);
}

static void bytes_free(uint8_t *bytes)
{
    if (bytes && spare_count < SPARE)
        spare[spare_count++] = bytes;
    else
        free(bytes);
}

void model_init(struct model *m)
{
    memset(m, 0, sizeof(*m));
    m->node[0] = (struct model_node){ .used = true, .directory = true };
    m->next_id = 1;
}

void model_copy(struct model *to, const struct model *from)
{
    *to = *from;
    for (unsigned i = 0; i < MODEL_NODES; i++)
        if (from->node[i].bytes) {
            to->node[i].bytes = bytes_new();
            memcpy(to->node[i].bytes, from->node[i].bytes, MODEL_FILE_BYTES);
        }
}

void model_free(struct model *m)
{
    for (unsigned i = 0; i < MODEL_NODES; i++)
        bytes_free(m->node[i].bytes);
}

static unsigned child(const struct model *m, unsigned parent, const char *name, size_t bytes)
{
    for (unsigned i = 1; i < MODEL_NODES; i++)
        if (m->node[i].used && m->node[i].parent == parent && strlen(m->node[i].name) == bytes &&
            !memcmp(m->node[i].name, name, bytes))
            return i;
    return NONE;
}

/* The directory that a path's last name is in, and that name. NONE: it is not there. */
static unsigned parent_of(const struct model *m, const char *path, const char **name)
{
    unsigned node = 0;
    for (const char *slash; node != NONE && (slash = strchr(path, '/')); path = slash + 1)
        node = child(m, node, path, (size_t)(slash - path));
    *name = path;
    return node != NONE && m->node[node].directory ? node : NONE;
}

static bool has_children(const struct model *m, unsigned node)
{
    for (unsigned i = 1; i < MODEL_NODES; i++)
        if (m->node[i].used && m->node[i].parent == node)
            return true;
    return false;
}

static unsigned node_new(struct model *m, unsigned parent, const char *name, bool directory)
{
    unsigned i = 1;
    while (i < MODEL_NODES && m->node[i].used)
        i++;
    if (i == MODEL_NODES)
        return NONE;
    m->node[i] = (struct model_node){ .used = true, .directory = directory, .parent = parent, .id = m->next_id++ };
    snprintf(m->node[i].name, sizeof(m->node[i].name), "%s", name);
    if (!directory)
        m->node[i].bytes = memset(bytes_new(), 0, MODEL_FILE_BYTES);
    return i;
}

static void node_free(struct model *m, unsigned node)
{
    bytes_free(m->node[node].bytes);
    m->node[node] = (struct model_node){ 0 };
}

static void fill(uint8_t *bytes, uint64_t offset, uint64_t count, uint32_t tag)
{
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(1 + (tag * 2654435761u >> 7 ^ (offset + i) / 512 * 31 ^ (offset + i)) % 251);
}

static void zero_from(struct model_node *n, uint64_t from)
{
    memset(n->bytes + from, 0, MODEL_FILE_BYTES - from);
}

/* Is `directory` `node`, or below it? */
static bool below(const struct model *m, unsigned directory, unsigned node)
{
    for (; directory; directory = m->node[directory].parent)
        if (directory == node)
            return true;
    return false;
}

static enum status rename_model(struct model *m, unsigned node, const struct model_op *op)
{
    const char *name;
    unsigned parent = parent_of(m, op->to, &name), there;
    if (parent == NONE)
        return ERR_NOT_FOUND;
    there = child(m, parent, name, strlen(name));
    if (there == node)
        return OK;
    if (m->node[node].directory && below(m, parent, node))
        return ERR_INVALID;
    if (there != NONE) {
        if (m->node[there].directory != m->node[node].directory)
            return ERR_INVALID;
        if (has_children(m, there))
            return ERR_NOT_EMPTY;
        node_free(m, there);
    }
    m->node[node].parent = parent;
    snprintf(m->node[node].name, sizeof(m->node[node].name), "%s", name);
    return OK;
}

static enum status make_model(struct model *m, unsigned parent, unsigned node, const char *name, bool directory)
{
    if (node != NONE)
        return ERR_EXISTS;
    return node_new(m, parent, name, directory) == NONE ? ERR_NO_MEMORY : OK;
}

static enum status clone_model(struct model *m, unsigned node, const struct model_op *op)
{
    const char *name;
    unsigned parent = parent_of(m, op->to, &name);
    if (parent == NONE)
        return ERR_NOT_FOUND;
    if (child(m, parent, name, strlen(name)) != NONE)
        return ERR_EXISTS;
    unsigned made = node_new(m, parent, name, false);
    if (made == NONE)
        return ERR_NO_MEMORY;
    memcpy(m->node[made].bytes, m->node[node].bytes, MODEL_FILE_BYTES);
    m->node[made].size = m->node[node].size;
    return OK;
}

static enum status file_model(struct model *m, unsigned node, const struct model_op *op)
{
    struct model_node *n = &m->node[node];
    uint64_t end = op->offset + op->count;
    switch (op->kind) {
    case OP_WRITE:
        fill(n->bytes + op->offset, op->offset, op->count, op->tag);
        n->size = op->count ? (uint32_t)MAX(n->size, end) : n->size;
        return OK;
    case OP_SET_SIZE:
        n->size = (uint32_t)op->offset;
        zero_from(n, op->offset);
        return OK;
    case OP_PUNCH:
        if (op->offset < n->size)
            memset(n->bytes + op->offset, 0, MIN(end, n->size) - op->offset);
        return OK;
    case OP_PREALLOCATE:
        n->size = op->count ? (uint32_t)MAX(n->size, end) : n->size;
        return OK;
    default:
        return ERR_INVALID;
    }
}

static enum status apply(struct model *m, const struct model_op *op)
{
    const char *name;
    unsigned parent = parent_of(m, op->path, &name);
    if (parent == NONE)
        return ERR_NOT_FOUND;
    unsigned node = child(m, parent, name, strlen(name));
    if (op->kind == OP_CREATE || op->kind == OP_MKDIR)
        return make_model(m, parent, node, name, op->kind == OP_MKDIR);
    if (node == NONE)
        return ERR_NOT_FOUND;
    if (op->kind == OP_RENAME)
        return rename_model(m, node, op);
    if (m->node[node].directory != (op->kind == OP_RMDIR))
        return ERR_INVALID;
    switch (op->kind) {
    case OP_RMDIR:
        if (has_children(m, node))
            return ERR_NOT_EMPTY;
        node_free(m, node);
        return OK;
    case OP_UNLINK:
        node_free(m, node);
        return OK;
    case OP_CLONE:
        return clone_model(m, node, op);
    default:
        return file_model(m, node, op);
    }
}

/* ---- The volume ---- */

static enum status walk_parent(struct csv *v, const char *path, uint64_t *directory, const char **name)
{
    char head[256];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    snprintf(head, sizeof(head), "%.*s", (int)(slash ? slash - path : 0), path);
    return csv_walk(v, head, directory);
}

static enum status file_real(struct csv *v, uint64_t inode, const struct model_op *op)
{
    struct csv_file *file;
    enum status status = csv_open(v, inode, &file);
    if (status)
        return status;
    if (op->kind == OP_WRITE) {
        uint8_t *bytes = malloc(op->count + 1);
        fill(bytes, op->offset, op->count, op->tag);
        status = csv_write(file, op->offset, bytes, op->count);
        free(bytes);
    } else if (op->kind == OP_SET_SIZE) {
        status = csv_set_size(file, op->offset);
    } else if (op->kind == OP_PUNCH) {
        status = csv_punch(file, op->offset, op->count);
    } else if (op->kind == OP_PREALLOCATE) {
        status = csv_preallocate(file, op->offset, op->count);
    } else {
        const char *name;
        uint64_t directory, made;
        status = walk_parent(v, op->to, &directory, &name);
        if (!status)
            status = csv_clone(file, directory, name, strlen(name), &made);
    }
    enum status closed = csv_close(file);
    return status ? status : closed;
}

static enum status real(struct csv *v, const struct model_op *op)
{
    const char *name, *to_name;
    uint64_t directory, to, inode;
    struct csv_entry entry;
    if (op->kind == OP_SYNC)
        return csv_sync(v);
    enum status status = walk_parent(v, op->path, &directory, &name);
    if (status)
        return status;
    size_t bytes = strlen(name);
    switch (op->kind) {
    case OP_CREATE: return csv_create(v, directory, name, bytes, 0644, &inode);
    case OP_MKDIR: return csv_mkdir(v, directory, name, bytes, 0755, &inode);
    case OP_UNLINK: return csv_unlink(v, directory, name, bytes);
    case OP_RMDIR: return csv_rmdir(v, directory, name, bytes);
    case OP_RENAME:
        status = csv_lookup(v, directory, name, bytes, &entry);
        if (!status)
            status = walk_parent(v, op->to, &to, &to_name);
        return status ? status : csv_rename(v, directory, name, bytes, to, to_name, strlen(to_name));
    default:
        status = csv_lookup(v, directory, name, bytes, &entry);
        return status ? status : file_real(v, entry.inode, op);
    }
}

enum status model_do(struct model *m, struct csv *volume, const struct model_op *op)
{
    enum status got = real(volume, op), expected = op->kind == OP_SYNC ? OK : apply(m, op);
    /* A path that goes through a file: one says "not found", the other "not a directory". */
    bool same = got == expected || (got == ERR_INVALID && expected == ERR_NOT_FOUND) ||
                (got == ERR_NOT_FOUND && expected == ERR_INVALID);
    if (!same) {
        fprintf(stderr, "operation %d on %s (%s) at %llu + %llu: the volume says %s, the model %s (%s)\n", op->kind,
                op->path,
                op->to ? op->to : "", (unsigned long long)op->offset, (unsigned long long)op->count, status_name(got),
                status_name(expected), csv_problem(volume));
        abort();
    }
    return got;
}

/* ---- Comparing ---- */

static char fault[300];

/* Each sector of the file's bytes must be what the file of this id has there in one of the models. */
static bool bytes_match(const struct model *models, size_t count, const struct model_node *n, const uint8_t *got,
                        const char *name)
{
    for (uint32_t from = 0; from < n->size; from += 512) {
        uint32_t part = MIN(512, n->size - from);
        bool found = false;
        for (size_t i = 0; i < count && !found; i++)
            for (unsigned j = 1; j < MODEL_NODES && !found; j++) {
                const struct model_node *other = &models[i].node[j];
                found = other->used && other->id == n->id && other->bytes &&
                        !memcmp(other->bytes + from, got + from, part);
            }
        if (!found) {
            snprintf(fault, sizeof(fault), "%s: the bytes at %u are none that it ever had", name, from);
            return false;
        }
    }
    return true;
}

static bool file_matches(const struct model *models, size_t count, const struct model_node *n, struct csv *v,
                         uint64_t inode)
{
    struct csv_file *file;
    struct csv_stat stat;
    uint64_t done;
    if (csv_stat(v, inode, &stat) || stat.size != n->size || csv_open(v, inode, &file)) {
        snprintf(fault, sizeof(fault), "%s: cannot be opened, or has another size", n->name);
        return false;
    }
    uint8_t *got = bytes_new();
    bool same = !csv_read(file, 0, got, MODEL_FILE_BYTES, &done) && done == n->size;
    if (same)
        same = bytes_match(models, count, n, got, n->name);
    else
        snprintf(fault, sizeof(fault), "%s: cannot be read", n->name);
    bytes_free(got);
    return !csv_close(file) && same;
}

static bool directory_matches(const struct model *models, size_t count, const struct model *m, unsigned node,
                              struct csv *v, uint64_t inode)
{
    struct csv_entry entry;
    uint64_t cursor = 0;
    unsigned entries = 0, expected = 0;
    enum status status;
    while (!(status = csv_readdir(v, inode, &cursor, &entry))) {
        unsigned at = child(m, node, entry.name, entry.name_bytes);
        entries++;
        if (at == NONE || m->node[at].directory != (entry.type == CSV_IS_DIRECTORY)) {
            snprintf(fault, sizeof(fault), "%s should not be there", entry.name);
            return false;
        }
        if (m->node[at].directory ? !directory_matches(models, count, m, at, v, entry.inode)
                                  : !file_matches(models, count, &m->node[at], v, entry.inode))
            return false;
    }
    for (unsigned i = 1; i < MODEL_NODES; i++)
        expected += m->node[i].used && m->node[i].parent == node;
    if (status != ERR_NOT_FOUND || entries != expected) {
        snprintf(fault, sizeof(fault), "%s has %u entries instead of %u", m->node[node].name, entries, expected);
        return false;
    }
    return true;
}

const char *model_matches_any(const struct model *models, size_t count, struct csv *volume)
{
    for (size_t i = count; i-- > 0;)
        if (directory_matches(models, count, &models[i], 0, volume, csv_root(volume)))
            return "";
    return fault;
}

const char *model_matches(const struct model *m, struct csv *volume)
{
    return model_matches_any(m, 1, volume);
}

/* ---- Random operations ---- */

static void path_of(const struct model *m, unsigned node, char text[128])
{
    char tail[128] = "";
    for (; node; node = m->node[node].parent) {
        char longer[128];
        snprintf(longer, sizeof(longer), "%s%s%.60s", m->node[node].name, tail[0] ? "/" : "", tail);
        memcpy(tail, longer, sizeof(tail));
    }
    memcpy(text, tail, sizeof(tail));
}

static unsigned pick(const struct model *m, uint64_t *seed, bool directory)
{
    unsigned found = directory ? 0 : NONE, seen = directory;
    for (unsigned i = 1; i < MODEL_NODES; i++)
        if (m->node[i].used && m->node[i].directory == directory && fake_random(seed) % ++seen == 0)
            found = i;
    return found;
}

static unsigned depth(const struct model *m, unsigned node)
{
    unsigned count = 0;
    for (; node; node = m->node[node].parent)
        count++;
    return count;
}

/* A name in some directory, new or old. */
static void some_name(const struct model *m, uint64_t *seed, char text[128])
{
    char head[128];
    unsigned directory = pick(m, seed, true);
    if (depth(m, directory) > 3)
        directory = 0;
    path_of(m, directory, head);
    snprintf(text, 128, "%.60s%sn%u", head, head[0] ? "/" : "", (unsigned)(fake_random(seed) % 12));
}

struct model_op model_random_op(const struct model *m, uint64_t *seed, char text[2][128])
{
    static const uint8_t weight[OP_KINDS] = { 6, 3, 4, 2, 5, 12, 5, 4, 3, 3, 3 };
    unsigned roll = (unsigned)(fake_random(seed) % 50), kind = 0, used = 0;
    while (roll >= weight[kind])
        roll -= weight[kind++];
    for (unsigned i = 0; i < MODEL_NODES; i++)
        used += m->node[i].used;
    if (used > MODEL_NODES - 3 && (kind == OP_CREATE || kind == OP_MKDIR || kind == OP_CLONE))
        kind = OP_UNLINK;
    struct model_op op = { .kind = kind, .path = text[0], .to = text[1], .tag = (uint32_t)fake_random(seed) };
    op.offset = fake_random(seed) % (MODEL_FILE_BYTES / 2);
    op.count = fake_random(seed) % (fake_random(seed) % 4 ? 9000 : MODEL_FILE_BYTES / 2);
    if (fake_random(seed) % 2) {
        op.offset &= ~UINT64_C(4095);
        op.count &= ~UINT64_C(4095);
    }
    unsigned node = kind == OP_CREATE || kind == OP_MKDIR ? NONE
                    : pick(m, seed, kind == OP_RMDIR || (kind == OP_RENAME && fake_random(seed) % 3 == 0));
    if (node == NONE || !node)
        some_name(m, seed, text[0]);
    else
        path_of(m, node, text[0]);
    some_name(m, seed, text[1]);
    return op;
}
