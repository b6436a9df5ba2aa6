/* SPDX-License-Identifier: MIT */
/*
 * Metadata blocks in memory, and operations.
 *
 * A block is clean (as at home), logged (in the journal, newer than home, must stay in memory until the checkpoint),
 * changed (newer than the journal), or changed on top of logged. The first change within an operation keeps a copy of
 * the bytes, so that csv_end() can take the operation back; that also restores free counts, because those live in
 * blocks. Blocks are evicted, the one used longest ago first, only between operations and only if clean.
 */
#include <stdio.h>
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"
#include "kernel/crc32c.h"

void *csv_alloc(struct csv *v, size_t bytes)
{
    return v->memory.alloc(v->memory.context, bytes);
}

void *csv_alloc_zeroed(struct csv *v, size_t bytes)
{
    void *ptr = csv_alloc(v, bytes);
    if (ptr)
        memset(ptr, 0, bytes);
    return ptr;
}

void csv_free(struct csv *v, void *ptr, size_t bytes)
{
    if (ptr)
        v->memory.free(v->memory.context, ptr, bytes);
}

enum status csv_corrupt(struct csv *v, uint64_t number, const char *what)
{
    snprintf(v->problem, sizeof(v->problem), "block %llu: %s", (unsigned long long)number, what);
    return ERR_CORRUPT;
}

/* ---- Checksums and disk transfers ---- */

uint32_t csv_checksum(uint32_t crc_seed, uint64_t number, const uint8_t *bytes)
{
    static const uint8_t zeros[4];
    uint8_t place[8];
    le64_put(place, number);
    uint32_t crc = crc32c(crc_seed, place, sizeof(place));
    crc = crc32c(crc, bytes, CSV_H_CRC);
    crc = crc32c(crc, zeros, sizeof(zeros));
    return crc32c(crc, bytes + CSV_H_CRC + 4, CSV_BLOCK_BYTES - CSV_H_CRC - 4);
}

void csv_seal(const struct csv *v, uint8_t *bytes, uint32_t type, uint64_t number, uint64_t owner, uint64_t sequence)
{
    le32_put(bytes + CSV_H_TYPE, type);
    le64_put(bytes + CSV_H_NUMBER, number);
    le64_put(bytes + CSV_H_OWNER, owner);
    le64_put(bytes + CSV_H_SEQUENCE, sequence);
    le32_put(bytes + CSV_H_CRC, csv_checksum(v->crc_seed, number, bytes));
}

bool csv_sealed(const struct csv *v, const uint8_t *bytes, uint32_t type, uint64_t number)
{
    return le32_get(bytes + CSV_H_TYPE) == type && le64_get(bytes + CSV_H_NUMBER) == number &&
           le32_get(bytes + CSV_H_CRC) == csv_checksum(v->crc_seed, number, bytes);
}

enum status csv_read_blocks(struct csv *v, uint64_t number, void *bytes, uint64_t count)
{
    return v->disk->read(v->disk, number << CSV_BLOCK_SHIFT, bytes, count << CSV_BLOCK_SHIFT);
}

enum status csv_write_blocks(struct csv *v, uint64_t number, const void *bytes, uint64_t count, bool fua)
{
    return v->disk->write(v->disk, number << CSV_BLOCK_SHIFT, bytes, count << CSV_BLOCK_SHIFT, fua);
}

enum status csv_flush(struct csv *v)
{
    return v->disk->flush(v->disk);
}

/* ---- The table ---- */

static struct csv_block **bucket(struct csv *v, uint64_t number)
{
    return &v->hash[(number * 0x9e3779b97f4a7c15ull >> 32) & (v->hash_size - 1)];
}

struct csv_block *csv_block_find(struct csv *v, uint64_t number)
{
    struct csv_block *block = *bucket(v, number);
    while (block && block->number != number)
        block = block->hash_next;
    return block;
}

static struct csv_block *block_make(struct csv *v, uint64_t number)
{
    struct csv_block *block = csv_alloc_zeroed(v, sizeof(*block));
    if (!block)
        return NULL;
    block->bytes = csv_alloc(v, CSV_BLOCK_BYTES);
    if (!block->bytes) {
        csv_free(v, block, sizeof(*block));
        return NULL;
    }
    block->number = number;
    csv_link_init(&block->changed);
    csv_link_init(&block->logged);
    csv_link_init(&block->undo);
    csv_link_add(&v->recent, &block->recent);
    struct csv_block **head = bucket(v, number);
    block->hash_next = *head;
    *head = block;
    v->block_count++;
    return block;
}

static void leave_changed(struct csv *v, struct csv_block *block)
{
    if (block->is_changed) {
        csv_link_remove(&block->changed);
        block->is_changed = false;
        v->changed_count--;
    }
}

void csv_block_drop(struct csv *v, struct csv_block *block)
{
    struct csv_block **at = bucket(v, block->number);
    while (*at != block)
        at = &(*at)->hash_next;
    *at = block->hash_next;
    leave_changed(v, block);
    if (block->is_logged) {
        csv_link_remove(&block->logged);
        v->logged_count--;
    }
    csv_link_remove(&block->recent);
    csv_link_remove(&block->undo);
    csv_free(v, block->before, CSV_BLOCK_BYTES);
    csv_free(v, block->bytes, CSV_BLOCK_BYTES);
    csv_free(v, block, sizeof(*block));
    v->block_count--;
}

void csv_blocks_drop_all(struct csv *v)
{
    while (v->recent.next != &v->recent)
        csv_block_drop(v, CONTAINER_OF(v->recent.next, struct csv_block, recent));
}

void csv_rest(const struct csv *v)
{
    if (v->disk->rest)
        v->disk->rest(v->disk);
}

void csv_breathe(struct csv *v)
{
    csv_rest(v);
    struct csv_link *link = v->recent.prev;
    while (v->block_count > v->block_limit && link != &v->recent) {
        struct csv_block *block = CONTAINER_OF(link, struct csv_block, recent);
        link = link->prev;
        if (!block->is_changed && !block->is_logged)
            csv_block_drop(v, block);
    }
}

void csv_block_shed(struct csv *v, struct csv_block *block)
{
    if (block && v->block_count > v->block_limit && !block->is_changed && !block->is_logged)
        csv_block_drop(v, block);
}

static enum status owner_check(struct csv *v, const struct csv_block *block, uint32_t type, uint64_t owner)
{
    if (le32_get(block->bytes + CSV_H_TYPE) != type)
        return csv_corrupt(v, block->number, "it is of another type than what refers to it says");
    if (le64_get(block->bytes + CSV_H_OWNER) != owner)
        return csv_corrupt(v, block->number, "it belongs to another owner than what refers to it");
    if (block->is_freed)
        return csv_corrupt(v, block->number, "it is referred to after it was freed");
    return OK;
}

/* Beyond the header: what the code relies on when it walks a block. */
static const char *content_fault(uint64_t number, const uint8_t *bytes, uint32_t type)
{
    const char *fault = NULL;
    switch (type) {
    case CSV_EXTENTS:
    case CSV_DIRECTORY:
    case CSV_COUNTS:
    case CSV_ORPHANS:
        return csv_node_fault(bytes + CSV_H_BYTES, CSV_NODE_BYTES, type);
    case CSV_INODE:
        if (le16_get(bytes + CSV_IN_TYPE) != CSV_IS_FILE && le16_get(bytes + CSV_IN_TYPE) != CSV_IS_DIRECTORY)
            return "an inode of an unknown type";
        if (le16_get(bytes + CSV_IN_TYPE) == CSV_IS_FILE && le64_get(bytes + CSV_IN_SIZE) > CSV_FILE_BYTES)
            return "a file of an impossible size";
        return csv_node_fault(bytes + CSV_IN_NODE, CSV_IN_NODE_BYTES,
                              le16_get(bytes + CSV_IN_TYPE) == CSV_IS_FILE ? CSV_EXTENTS : CSV_DIRECTORY);
    case CSV_ROOT:
        fault = csv_node_fault(bytes + CSV_RT_COUNTS_NODE, CSV_RT_COUNTS_BYTES, CSV_COUNTS);
        return fault ? fault : csv_node_fault(bytes + CSV_RT_ORPHANS_NODE, CSV_RT_ORPHANS_BYTES, CSV_ORPHANS);
    case CSV_GROUP:
        if (csv_group_block(le32_get(bytes + CSV_GR_NUMBER)) != number ||
            le32_get(bytes + CSV_GR_FREE) > CSV_GROUP_BLOCKS)
            return "a group with a wrong number or count";
        return NULL;
    default:
        return "a type that does not belong here";
    }
}

const char *csv_block_fault(struct csv *v, uint64_t number, const uint8_t *bytes)
{
    uint32_t type = le32_get(bytes + CSV_H_TYPE);
    return csv_sealed(v, bytes, type, number) ? content_fault(number, bytes, type) : "its checksum is wrong";
}

enum status csv_block_get(struct csv *v, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **out)
{
    if (number >= v->blocks)
        return csv_corrupt(v, number, "it is referred to, but beyond the end of the volume");
    struct csv_block *block = csv_block_find(v, number);
    enum status status = OK;
    if (!block) {
        block = block_make(v, number);
        if (!block)
            return ERR_NO_MEMORY;
        status = csv_read_blocks(v, number, block->bytes, 1);
        const char *fault = status ? NULL : csv_block_fault(v, number, block->bytes);
        if (fault)
            status = csv_corrupt(v, number, fault);
        if (status) {
            csv_block_drop(v, block);
            return status;
        }
    }
    status = owner_check(v, block, type, owner);
    if (status)
        return status;
    csv_link_remove(&block->recent);
    csv_link_add(&v->recent, &block->recent);
    block->seen = v->operation;
    *out = block;
    return OK;
}

enum status csv_block_logged(struct csv *v, uint64_t number, const uint8_t *bytes)
{
    struct csv_block *block = block_make(v, number);
    if (!block)
        return ERR_NO_MEMORY;
    memcpy(block->bytes, bytes, CSV_BLOCK_BYTES);
    const char *fault = csv_block_fault(v, number, bytes);
    if (fault) {
        csv_block_drop(v, block);
        snprintf(v->problem, sizeof(v->problem), "block %llu in the journal: %s", (unsigned long long)number, fault);
        return ERR_CORRUPT;
    }
    block->is_logged = true;
    csv_link_add(&v->logged, &block->logged);
    v->logged_count++;
    return OK;
}

/* ---- Changes ---- */

enum status csv_block_change(struct csv *v, struct csv_block *block)
{
    if (v->in_operation && block->operation != v->operation) {
        block->before = csv_alloc(v, CSV_BLOCK_BYTES);
        if (!block->before)
            return ERR_NO_MEMORY;
        memcpy(block->before, block->bytes, CSV_BLOCK_BYTES);
        block->was_changed = block->is_changed;
        block->operation = v->operation;
        csv_link_add(&v->undo, &block->undo);
        v->undo_count++;
    }
    if (!block->is_changed) {
        block->is_changed = true;
        csv_link_add(&v->changed, &block->changed);
        v->changed_count++;
    }
    return OK;
}

enum status csv_block_new(struct csv *v, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **out)
{
    struct csv_block *block = csv_block_find(v, number);
    if (block && (block->is_changed || block->is_logged || (v->in_operation && block->seen == v->operation)))
        return csv_corrupt(v, number, "the bitmap says that it is free, but it is in use");
    if (block) /* somebody looked at what it was before it was freed */
        csv_block_drop(v, block);
    block = block_make(v, number);
    if (!block)
        return ERR_NO_MEMORY;
    memset(block->bytes, 0, CSV_BLOCK_BYTES);
    le32_put(block->bytes + CSV_H_TYPE, type);
    le64_put(block->bytes + CSV_H_NUMBER, number);
    le64_put(block->bytes + CSV_H_OWNER, owner);
    enum status status = csv_block_change(v, block);
    if (status) {
        csv_block_drop(v, block);
        return status;
    }
    block->is_new = true;
    *out = block;
    return OK;
}

enum status csv_block_free(struct csv *v, struct csv_block *block)
{
    enum status status = csv_block_change(v, block);
    if (!status)
        status = csv_runs_add(v, &v->revoked, block->number, 1);
    if (!status)
        status = csv_free_blocks(v, block->number, 1);
    if (!status)
        block->is_freed = true;
    return status;
}

/* ---- Operations ---- */

size_t csv_weight(const struct csv *v)
{
    return v->changed_count + v->freed_groups + v->revoked.count / CSV_JR_BLOCKS + 2;
}

bool csv_has_room(const struct csv *v)
{
    csv_rest(v);
    return v->undo_count + (v->freed_groups - v->freed_groups_before) < v->transaction_limit / 5;
}

enum status csv_begin(struct csv *v)
{
    if (v->failed || v->read_only)
        return ERR_READ_ONLY;
    if (csv_weight(v) > v->transaction_limit / 2) {
        enum status status = csv_commit(v);
        if (status)
            return status;
    }
    csv_breathe(v);
    v->operation++;
    v->in_operation = true;
    v->freed_before = v->freed.count;
    v->revoked_before = v->revoked.count;
    v->freed_groups_before = v->freed_groups;
    v->pending_free_before = v->pending_free;
    return OK;
}

static void keep(struct csv *v, struct csv_block *block)
{
    csv_link_remove(&block->undo);
    csv_free(v, block->before, CSV_BLOCK_BYTES);
    block->before = NULL;
    block->is_new = false;
}

static void take_back(struct csv *v, struct csv_block *block)
{
    block->is_freed = false;
    if (block->is_new) {
        csv_block_drop(v, block);
        return;
    }
    memcpy(block->bytes, block->before, CSV_BLOCK_BYTES);
    if (!block->was_changed)
        leave_changed(v, block);
    if (le32_get(block->bytes + CSV_H_TYPE) == CSV_GROUP)
        csv_alloc_reload(v, block);
    keep(v, block);
}

enum status csv_end(struct csv *v, enum status status)
{
    if (!status && csv_weight(v) > v->transaction_limit) {
        status = ERR_NO_MEMORY;
        snprintf(v->problem, sizeof(v->problem), "an operation is larger than the journal allows");
    }
    if (status)
        csv_maps_forget(v);
    while (v->undo.next != &v->undo) {
        struct csv_block *block = CONTAINER_OF(v->undo.next, struct csv_block, undo);
        if (status)
            take_back(v, block);
        else
            keep(v, block);
    }
    if (status) {
        v->freed.count = v->freed_before;
        v->revoked.count = v->revoked_before;
        v->freed_groups = v->freed_groups_before;
        v->pending_free = v->pending_free_before;
    }
    v->undo_count = 0;
    v->in_operation = false;
    return status;
}

bool csv_worth_again(struct csv *v, enum status *status, unsigned *tries)
{
    if (*status != ERR_NO_SPACE || !v->freed.count || (*tries)++)
        return false;
    *status = csv_commit(v);
    return !*status;
}

/* ---- Lists and sorting ---- */

enum status csv_runs_add(struct csv *v, struct csv_runs *runs, uint64_t start, uint64_t count)
{
    if (runs->count == runs->room) {
        size_t room = runs->room ? runs->room * 2 : 64;
        struct csv_run *run = csv_alloc(v, room * sizeof(*run));
        if (!run)
            return ERR_NO_MEMORY;
        if (runs->count)
            memcpy(run, runs->run, runs->count * sizeof(*run));
        csv_free(v, runs->run, runs->room * sizeof(*run));
        runs->run = run;
        runs->room = room;
    }
    runs->run[runs->count++] = (struct csv_run){ start, count };
    return OK;
}

void csv_runs_free(struct csv *v, struct csv_runs *runs)
{
    csv_free(v, runs->run, runs->room * sizeof(*runs->run));
    memset(runs, 0, sizeof(*runs));
}

static uint64_t sort_key(const uint8_t *element)
{
    uint64_t key;
    memcpy(&key, element, sizeof(key));
    return key;
}

static void sift(uint8_t *base, size_t root, size_t count, size_t bytes)
{
    uint8_t held[64];
    memcpy(held, base + root * bytes, bytes);
    uint64_t key = sort_key(held);
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && sort_key(base + (child + 1) * bytes) > sort_key(base + child * bytes))
            child++;
        if (sort_key(base + child * bytes) <= key)
            break;
        memcpy(base + root * bytes, base + child * bytes, bytes);
    }
    memcpy(base + root * bytes, held, bytes);
}

void csv_sort(void *elements, size_t count, size_t bytes)
{
    uint8_t *base = elements, held[64];
    for (size_t i = count / 2; i-- > 0;)
        sift(base, i, count, bytes);
    for (size_t i = count; i-- > 1;) {
        memcpy(held, base + i * bytes, bytes);
        memcpy(base + i * bytes, base, bytes);
        memcpy(base, held, bytes);
        sift(base, 0, i, bytes);
    }
}
