/* SPDX-License-Identifier: MIT */
/*
 * The log at mount. It is read twice, transaction by transaction: once to see that all of one is there and whole, then
 * to take its images into memory as logged blocks: the same state that the writer had after its last commit. A
 * checkpoint then writes them home, or, on a read-only mount, they stay in memory and nothing is written at all.
 */
#include <stdio.h>
#include <string.h>

#include "csv/volume.h"
#include "kernel/crc32c.h"

/* A window of the journal in v->io. */
struct log_reader {
    struct csv *v;
    uint64_t first, count;
};

static enum status log_block(struct log_reader *r, uint64_t position, const uint8_t **bytes)
{
    struct csv *v = r->v;
    if (position < r->first || position - r->first >= r->count) {
        r->first = position;
        r->count = 0;
        uint64_t count = MIN(v->journal_blocks - position, CSV_IO_BLOCKS);
        enum status status = csv_read_blocks(v, v->journal + position, v->io, count);
        if (status)
            return status;
        r->count = count;
    }
    *bytes = v->io + (position - r->first) * CSV_BLOCK_BYTES;
    return OK;
}

/* True if the bytes are a log block of this type, place and transaction. */
static bool is_log(const struct csv *v, const uint8_t *bytes, uint32_t type, uint64_t position, uint64_t number)
{
    return le32_get(bytes + CSV_H_TYPE) == type && le64_get(bytes + CSV_H_SEQUENCE) == number &&
           csv_sealed(v, bytes, type, v->journal + position);
}

static enum status take_revocations(struct csv *v, const uint8_t *bytes)
{
    for (uint32_t i = 0; i < le32_get(bytes + CSV_J_COUNT); i++) {
        struct csv_block *block = csv_block_find(v, le64_get(bytes + CSV_J_LIST + 8 * i));
        if (block)
            csv_block_drop(v, block);
    }
    return OK;
}

static enum status take_image(struct csv *v, uint64_t number, const uint8_t *bytes)
{
    struct csv_block *block = csv_block_find(v, number);
    if (block)
        csv_block_drop(v, block);
    bool group = le32_get(bytes) == CSV_GROUP && le32_get(bytes + CSV_GR_NUMBER) < v->groups;
    if (number >= v->blocks || (number != CSV_AT_ROOT && !csv_may_hold(v, number, 1) && !group))
        return csv_corrupt(v, number, "the journal has an image for a place that is not journaled");
    return csv_block_logged(v, number, bytes);
}

/*
 * Goes through the transaction `number` at `position`. take false: *blocks is its length, 0 if it is not there as a
 * whole. take true: its images go into memory.
 */
static enum status transaction(struct log_reader *r, uint64_t position, uint64_t number, bool take, uint64_t *blocks)
{
    struct csv *v = r->v;
    uint8_t list[CSV_JD_IMAGES * CSV_JD_ENTRY_BYTES];
    uint32_t images = 0, image = 0, crc = 0;
    *blocks = 0;
    for (uint64_t count = 1; count <= v->journal_blocks; count++) {
        const uint8_t *bytes;
        enum status status = log_block(r, position, &bytes);
        if (status)
            return status;
        if (image < images) {
            const uint8_t *entry = list + image++ * CSV_JD_ENTRY_BYTES;
            if (crc32c(0, bytes, CSV_BLOCK_BYTES) != le32_get(entry + 8))
                return OK;
            if (take)
                status = take_image(v, le64_get(entry), bytes);
        } else if (is_log(v, bytes, CSV_DESCRIPTOR, position, number)) {
            images = le32_get(bytes + CSV_J_COUNT);
            image = 0;
            if (images > CSV_JD_IMAGES)
                return OK;
            memcpy(list, bytes + CSV_J_LIST, images * CSV_JD_ENTRY_BYTES);
        } else if (is_log(v, bytes, CSV_REVOCATIONS, position, number)) {
            if (le32_get(bytes + CSV_J_COUNT) > CSV_JR_BLOCKS)
                return OK;
            if (take)
                status = take_revocations(v, bytes);
        } else {
            if (is_log(v, bytes, CSV_COMMIT, position, number) && le32_get(bytes + CSV_JC_BLOCKS) == count &&
                le32_get(bytes + CSV_JC_CRC) == crc)
                *blocks = count;
            return OK;
        }
        if (status)
            return status;
        crc = crc32c(crc, bytes, CSV_BLOCK_BYTES);
        position = (position + 1) % v->journal_blocks;
    }
    return OK;
}

/* Where the log ends, nothing newer may follow: see the specification. */
static enum status nothing_newer(struct log_reader *r, uint64_t number)
{
    struct csv *v = r->v;
    for (uint64_t position = 0; position < v->journal_blocks; position++) {
        const uint8_t *bytes;
        enum status status = log_block(r, position, &bytes);
        if (status)
            return status;
        if (le32_get(bytes + CSV_H_TYPE) == CSV_COMMIT && le64_get(bytes + CSV_H_SEQUENCE) >= number &&
            csv_sealed(v, bytes, CSV_COMMIT, v->journal + position))
            return csv_corrupt(v, v->journal + position, "the journal is damaged: a transaction after its end");
    }
    return OK;
}

static enum status read_head(struct csv *v)
{
    bool found = false;
    for (unsigned i = 0; i < 2; i++) {
        enum status status = csv_read_blocks(v, CSV_AT_JOURNAL_HEAD + i, v->io, 1);
        if (status)
            return status;
        if (!csv_sealed(v, v->io, CSV_JOURNAL_HEAD, CSV_AT_JOURNAL_HEAD + i) ||
            le64_get(v->io + CSV_H_SEQUENCE) > CSV_LAST_SEQUENCE ||
            (found && le64_get(v->io + CSV_H_SEQUENCE) < v->head_sequence))
            continue;
        if (le64_get(v->io + CSV_JH_TAIL) >= v->journal_blocks)
            return csv_corrupt(v, CSV_AT_JOURNAL_HEAD + i, "a journal head with a tail outside of the journal");
        found = true;
        v->head_sequence = le64_get(v->io + CSV_H_SEQUENCE);
        v->head = le64_get(v->io + CSV_JH_TAIL);
        v->number = le64_get(v->io + CSV_JH_NUMBER);
    }
    return found ? OK : csv_corrupt(v, CSV_AT_JOURNAL_HEAD, "both journal heads are damaged");
}

enum status csv_replay(struct csv *v, bool unclean)
{
    struct log_reader reader = { .v = v };
    enum status status = read_head(v);
    while (!status) {
        uint64_t blocks;
        status = transaction(&reader, v->head, v->number, false, &blocks);
        if (status)
            return status;
        if (!blocks)
            return unclean ? nothing_newer(&reader, v->number) : OK;
        if (v->used + blocks > v->journal_blocks)
            return csv_corrupt(v, v->journal, "the journal is damaged: more transactions than it has room for");
        uint64_t taken;
        status = transaction(&reader, v->head, v->number, true, &taken);
        if (!status && taken != blocks) /* somebody writes it */
            status = csv_corrupt(v, v->journal + v->head, "the journal changed while it was read");
        v->head = (v->head + blocks) % v->journal_blocks;
        v->used += blocks;
        v->number++;
        v->replayed++;
    }
    return status;
}

enum status csv_journal_reset(struct csv *v)
{
    static const uint32_t type[] = { CSV_DESCRIPTOR, CSV_REVOCATIONS, CSV_COMMIT };
    struct log_reader reader = { .v = v };
    for (uint64_t position = 0; position < v->journal_blocks; position++) {
        const uint8_t *bytes;
        enum status status = log_block(&reader, position, &bytes);
        if (status)
            return status;
        uint64_t number = le64_get(bytes + CSV_H_SEQUENCE);
        for (unsigned i = 0; i < ARRAY_COUNT(type); i++)
            if (number >= v->number && number < CSV_LAST_SEQUENCE && is_log(v, bytes, type[i], position, number))
                v->number = number + 1;
    }
    v->head = 0;
    v->used = 0;
    return OK;
}
