/* SPDX-License-Identifier: MIT */
/*
 * Commit and checkpoint: section 12 of docs/csv-format.md.
 *
 * The order of writes is all there is to it: body, flush, commit block with FUA; and later home blocks, flush, journal
 * head with FUA. The flush of a commit also makes durable whatever data was written before, so extents may turn from
 * unwritten to written, or be new and written, in the same transaction. A checkpoint is only made right after a commit:
 * then no block in memory is newer than the log, and each can be written home as it stands. Any error of the disk here
 * ends all changes (v->failed): what is durable is not known any more, and the next mount finds out. Too little memory
 * does not: it is found before anything is changed.
 */
#include <string.h>

#include "csv/volume.h"
#include "kernel/crc32c.h"

size_t csv_transaction_limit(uint64_t journal_blocks)
{
    uint64_t quarter = journal_blocks / 4;
    return (size_t)(quarter - quarter / CSV_JD_IMAGES - 4);
}

/* ---- The log ---- */

struct log_writer {
    struct csv *v;
    uint64_t position; /* of the next block */
    uint32_t count, crc;
    uint64_t held;     /* blocks in v->io that were not written yet */
    enum status status;
};

static void write_held(struct log_writer *w)
{
    struct csv *v = w->v;
    uint64_t first = (w->position + v->journal_blocks - w->held) % v->journal_blocks;
    if (!w->status && w->held)
        w->status = csv_write_blocks(v, v->journal + first, v->io, w->held, false);
    w->held = 0;
}

/* Room for the next block of the transaction; what is put there stays until log_put(). */
static uint8_t *log_room(struct log_writer *w)
{
    return w->v->io + w->held * CSV_BLOCK_BYTES;
}

static void log_put(struct log_writer *w)
{
    w->crc = crc32c(w->crc, log_room(w), CSV_BLOCK_BYTES);
    w->count++;
    w->held++;
    w->position = (w->position + 1) % w->v->journal_blocks;
    if (w->held == CSV_IO_BLOCKS || !w->position)
        write_held(w);
}

static void seal_log(struct log_writer *w, uint32_t type)
{
    csv_seal(w->v, log_room(w), type, w->v->journal + w->position, 0, w->v->number);
}

static void put_revocations(struct log_writer *w)
{
    const struct csv_runs *revoked = &w->v->revoked;
    for (size_t at = 0; at < revoked->count;) {
        uint8_t *block = log_room(w);
        size_t count = MIN(revoked->count - at, CSV_JR_BLOCKS);
        memset(block, 0, CSV_BLOCK_BYTES);
        le32_put(block + CSV_J_COUNT, (uint32_t)count);
        for (size_t i = 0; i < count; i++)
            le64_put(block + CSV_J_LIST + 8 * i, revoked->run[at++].start);
        seal_log(w, CSV_REVOCATIONS);
        log_put(w);
    }
}

/* A descriptor and its images, from `link` on; returns the link behind the last one. */
static struct csv_link *put_images(struct log_writer *w, struct csv_link *link)
{
    struct csv *v = w->v;
    uint8_t *block = log_room(w);
    struct csv_link *end = link;
    uint32_t count = 0;
    memset(block, 0, CSV_BLOCK_BYTES);
    for (; end != &v->changed && count < CSV_JD_IMAGES; end = end->next, count++) {
        const struct csv_block *image = CONTAINER_OF(end, struct csv_block, changed);
        uint8_t *entry = block + CSV_J_LIST + count * CSV_JD_ENTRY_BYTES;
        csv_seal(v, image->bytes, le32_get(image->bytes + CSV_H_TYPE), image->number,
                 le64_get(image->bytes + CSV_H_OWNER), v->number);
        le64_put(entry, image->number);
        le32_put(entry + 8, crc32c(0, image->bytes, CSV_BLOCK_BYTES));
    }
    le32_put(block + CSV_J_COUNT, count);
    seal_log(w, CSV_DESCRIPTOR);
    log_put(w);
    for (; link != end; link = link->next) {
        memcpy(log_room(w), CONTAINER_OF(link, struct csv_block, changed)->bytes, CSV_BLOCK_BYTES);
        log_put(w);
    }
    return end;
}

static enum status write_transaction(struct csv *v, struct log_writer *w)
{
    put_revocations(w);
    for (struct csv_link *link = v->changed.next; link != &v->changed;)
        link = put_images(w, link);
    write_held(w);
    enum status status = w->status;
    if (!status)
        status = csv_flush(v);
    if (status)
        return status;
    uint8_t *block = v->io;
    memset(block, 0, CSV_BLOCK_BYTES);
    le32_put(block + CSV_JC_BLOCKS, w->count + 1);
    le32_put(block + CSV_JC_CRC, w->crc);
    le64_put(block + CSV_JC_GENERATION, v->generation);
    le64_put(block + CSV_JC_TIME, (uint64_t)v->now_ns);
    seal_log(w, CSV_COMMIT);
    return csv_write_blocks(v, v->journal + w->position, block, 1, true);
}

/* ---- Commit ---- */

/* What the transaction freed is not logged; its blocks leave memory when it is durable. */
static void leave_freed(struct csv *v, bool durable)
{
    for (size_t i = 0; i < v->revoked.count; i++) {
        struct csv_block *block = csv_block_find(v, v->revoked.run[i].start);
        if (!block)
            continue;
        if (durable) {
            csv_block_drop(v, block);
        } else if (block->is_changed) {
            csv_link_remove(&block->changed);
            block->is_changed = false;
            v->changed_count--;
        }
    }
}

static void all_logged(struct csv *v)
{
    while (v->changed.next != &v->changed) {
        struct csv_block *block = CONTAINER_OF(v->changed.next, struct csv_block, changed);
        csv_link_remove(&block->changed);
        block->is_changed = false;
        if (!block->is_logged) {
            block->is_logged = true;
            csv_link_add(&v->logged, &block->logged);
            v->logged_count++;
        }
    }
    v->changed_count = 0;
}

static void discard_freed(struct csv *v)
{
    if (!v->discard || !v->disk->discard)
        return;
    for (size_t i = 0; i < v->freed.count; i++) /* a hint: a device that refuses it loses nothing */
        (void)!v->disk->discard(v->disk, v->freed.run[i].start << CSV_BLOCK_SHIFT,
                                v->freed.run[i].count << CSV_BLOCK_SHIFT);
}

static enum status commit(struct csv *v)
{
    struct log_writer w = { .v = v, .position = v->head };
    enum status status = csv_apply_freed(v);
    if (status)
        return status;
    leave_freed(v, false);
    status = write_transaction(v, &w);
    if (status)
        return status;
    v->head = (w.position + 1) % v->journal_blocks;
    v->used += w.count + 1;
    v->number++;
    all_logged(v);
    leave_freed(v, true);
    discard_freed(v);
    v->freed.count = v->revoked.count = 0;
    v->freed_groups = v->pending_free = 0;
    v->unshared = v->was_cut = false;
    return OK;
}

enum status csv_commit(struct csv *v)
{
    if (v->failed || v->read_only)
        return ERR_READ_ONLY;
    if (!v->changed_count && !v->freed.count)
        return OK;
    enum status status = csv_load_freed(v);
    if (status == ERR_NO_MEMORY)
        return status; /* nothing was changed: another time */
    if (!status)
        status = commit(v);
    if (!status && (v->journal_blocks - v->used < v->journal_blocks / 4 + 1 || v->logged_count > v->block_limit / 2))
        status = csv_checkpoint(v);
    if (status)
        v->failed = status;
    return status;
}

/* ---- Checkpoint ---- */

struct home {
    uint64_t number;
    struct csv_block *block;
};

/* Writes a sorted array home, neighbours together. */
static enum status write_sorted(struct csv *v, const struct home *home, size_t count)
{
    for (size_t i = 0; i < count;) {
        size_t run = 0;
        while (i + run < count && run < CSV_IO_BLOCKS && home[i + run].number == home[i].number + run) {
            memcpy(v->io + run * CSV_BLOCK_BYTES, home[i + run].block->bytes, CSV_BLOCK_BYTES);
            run++;
        }
        enum status status = csv_write_blocks(v, home[i].number, v->io, run, false);
        if (status)
            return status;
        i += run;
    }
    return OK;
}

/* Without memory to sort them in: one by one. */
static enum status write_unsorted(struct csv *v)
{
    enum status status = OK;
    for (struct csv_link *link = v->logged.next; link != &v->logged && !status; link = link->next) {
        const struct csv_block *block = CONTAINER_OF(link, struct csv_block, logged);
        status = csv_write_blocks(v, block->number, block->bytes, 1, false);
    }
    return status;
}

static enum status write_home(struct csv *v)
{
    size_t count = v->logged_count, at = 0;
    if (!count)
        return OK;
    struct home *home = csv_alloc(v, count * sizeof(*home));
    if (!home)
        return write_unsorted(v);
    for (struct csv_link *link = v->logged.next; link != &v->logged; link = link->next, at++) {
        home[at].block = CONTAINER_OF(link, struct csv_block, logged);
        home[at].number = home[at].block->number;
    }
    csv_sort(home, count, sizeof(*home));
    enum status status = write_sorted(v, home, count);
    csv_free(v, home, count * sizeof(*home));
    return status;
}

enum status csv_write_head(struct csv *v)
{
    memset(v->io, 0, CSV_BLOCK_BYTES);
    le64_put(v->io + CSV_JH_TAIL, (v->head + v->journal_blocks - v->used) % v->journal_blocks);
    le64_put(v->io + CSV_JH_NUMBER, v->number);
    uint64_t place = CSV_AT_JOURNAL_HEAD + (v->head_sequence + 1) % 2;
    csv_seal(v, v->io, CSV_JOURNAL_HEAD, place, 0, v->head_sequence + 1);
    enum status status = csv_write_blocks(v, place, v->io, 1, true);
    if (!status)
        v->head_sequence++;
    return status;
}

enum status csv_checkpoint(struct csv *v)
{
    if (v->changed_count)
        return ERR_BUSY;
    if (!v->used)
        return OK;
    enum status status = write_home(v);
    if (!status)
        status = csv_flush(v);
    if (status)
        return status;
    while (v->logged.next != &v->logged) {
        struct csv_block *block = CONTAINER_OF(v->logged.next, struct csv_block, logged);
        csv_link_remove(&block->logged);
        block->is_logged = false;
    }
    v->logged_count = 0;
    v->used = 0;
    return csv_write_head(v);
}
