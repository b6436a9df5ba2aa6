/* SPDX-License-Identifier: MIT */
/*
 * The blocks that are not journaled: superblock and mount record. Everything in them is checked here, once, so that the
 * rest of the code may rely on the geometry.
 */
#include <stdio.h>
#include <string.h>

#include "csv/volume.h"
#include "kernel/crc32c.h"
#include "kernel/text.h"

static const char magic[8] = "TASUKCSV";

uint64_t csv_usable_blocks(uint64_t disk_bytes)
{
    uint64_t blocks = disk_bytes >> CSV_BLOCK_SHIFT;
    return blocks % CSV_REGION_BLOCKS < CSV_REGION_LEAST ? blocks - blocks % CSV_REGION_BLOCKS : blocks;
}

static uint64_t place_of(unsigned copy, uint64_t blocks)
{
    return copy == 0 ? 0 : copy == 1 ? CSV_AT_SUPER_MIDDLE : blocks - 1;
}

/* A superblock's checksum is that of its own volume. */
static bool super_sealed(struct csv *v, const uint8_t *bytes, uint64_t number)
{
    uint32_t before = v->crc_seed;
    v->crc_seed = crc32c(0, bytes + CSV_SU_UUID, 16);
    bool sealed = csv_sealed(v, bytes, CSV_SUPER, number) && !memcmp(bytes + CSV_SU_MAGIC, magic, sizeof(magic)) &&
                  le64_get(bytes + CSV_H_SEQUENCE) <= CSV_LAST_SEQUENCE;
    v->crc_seed = before;
    return sealed;
}

static bool area_ok(uint64_t start, uint64_t count, uint64_t blocks)
{
    if (start < CSV_AT_FREE || !range_within(start, count, blocks - 1) ||
        range_overlaps(start, count, CSV_AT_SUPER_MIDDLE, 1))
        return false;
    /* No region may begin within it. */
    uint64_t region = start / CSV_REGION_BLOCKS * CSV_REGION_BLOCKS;
    return start - region >= CSV_REGION_FIXED && start + count <= region + CSV_REGION_BLOCKS;
}

/* What is wrong with the geometry, or NULL. */
static const char *geometry_fault(const uint8_t *bytes)
{
    uint64_t blocks = le64_get(bytes + CSV_SU_BLOCKS);
    uint64_t journal = le64_get(bytes + CSV_SU_JOURNAL), journal_blocks = le64_get(bytes + CSV_SU_JOURNAL_BLOCKS);
    uint64_t database = le64_get(bytes + CSV_SU_DATABASE), database_blocks = le64_get(bytes + CSV_SU_DATABASE_BLOCKS);
    if (blocks < CSV_MIN_BYTES >> CSV_BLOCK_SHIFT || blocks > CSV_MAX_BYTES >> CSV_BLOCK_SHIFT ||
        blocks != csv_usable_blocks(blocks << CSV_BLOCK_SHIFT))
        return "an impossible size";
    if (le32_get(bytes + CSV_SU_BLOCK_BYTES) != CSV_BLOCK_BYTES ||
        le32_get(bytes + CSV_SU_GROUP_BLOCKS) != CSV_GROUP_BLOCKS ||
        le32_get(bytes + CSV_SU_REGION_GROUPS) != CSV_REGION_GROUPS || le64_get(bytes + CSV_SU_SLOTS) != CSV_AT_SLOTS ||
        le32_get(bytes + CSV_SU_SLOT_COUNT) != CSV_SLOTS || le32_get(bytes + CSV_SU_SLOT_BLOCKS) != CSV_SLOT_BLOCKS)
        return "a geometry that this version does not know";
    if (journal_blocks < CSV_JOURNAL_MIN || journal_blocks > CSV_JOURNAL_MAX ||
        !area_ok(journal, journal_blocks, blocks) || !area_ok(database, database_blocks, blocks) ||
        range_overlaps(journal, journal_blocks, database, database_blocks))
        return "a journal or database log out of place";
    uint64_t from = le64_get(bytes + CSV_SU_GROWN_FROM);
    if (from && (from >= blocks || from < CSV_MIN_BYTES >> CSV_BLOCK_SHIFT))
        return "an impossible growth";
    return NULL;
}

/* Text for people: what is no character that can be shown becomes a question mark. */
static void take_text(char *to, const uint8_t *from, size_t bytes)
{
    const char *text = (const char *)from;
    size_t at = 0, end = strnlen(text, bytes - 1);
    memset(to, 0, bytes);
    while (at < end) {
        uint32_t code;
        unsigned length = utf8_decode(text + at, end - at, &code);
        if (!length || code < 32 || (code >= 127 && code < 160))
            to[at] = '?';
        else
            memcpy(to + at, text + at, length);
        at += length ? length : 1;
    }
    for (size_t i = 0; i < end; i++) /* a character of two bytes that became one */
        to[i] = to[i] ? to[i] : '?';
}

static void take_over(struct csv *v, const uint8_t *bytes)
{
    memcpy(v->uuid, bytes + CSV_SU_UUID, sizeof(v->uuid));
    memcpy(v->hash_key, bytes + CSV_SU_HASH_KEY, sizeof(v->hash_key));
    take_text(v->label, bytes + CSV_SU_LABEL, sizeof(v->label));
    v->crc_seed = crc32c(0, v->uuid, sizeof(v->uuid));
    v->super_sequence = le64_get(bytes + CSV_H_SEQUENCE);
    v->blocks = le64_get(bytes + CSV_SU_BLOCKS);
    v->groups = (v->blocks + CSV_GROUP_BLOCKS - 1) / CSV_GROUP_BLOCKS;
    v->journal = le64_get(bytes + CSV_SU_JOURNAL);
    v->journal_blocks = le64_get(bytes + CSV_SU_JOURNAL_BLOCKS);
    v->database = le64_get(bytes + CSV_SU_DATABASE);
    v->database_blocks = le64_get(bytes + CSV_SU_DATABASE_BLOCKS);
}

static enum status check(struct csv *v, const uint8_t *bytes, bool read_only, char *message)
{
    uint32_t version = le32_get(bytes + CSV_SU_VERSION);
    const char *fault;
    if (version > CSV_FORMAT_VERSION) {
        snprintf(message, CSV_MESSAGE_BYTES,
                 "the volume has format version %u, and this program knows %u: use a newer one",
                 version, CSV_FORMAT_VERSION);
        return ERR_VERSION;
    }
    if (le64_get(bytes + CSV_SU_REFUSE) || (!read_only && le64_get(bytes + CSV_SU_READ_ONLY))) {
        snprintf(message, CSV_MESSAGE_BYTES,
                 "the volume uses features that this program does not know (%llx, %llx): use a "
                 "newer one%s", (unsigned long long)le64_get(bytes + CSV_SU_REFUSE),
                 (unsigned long long)le64_get(bytes + CSV_SU_READ_ONLY),
                 le64_get(bytes + CSV_SU_REFUSE) ? "" : ", or mount it read-only");
        return ERR_UNSUPPORTED;
    }
    fault = version ? geometry_fault(bytes) : "version 0";
    if (fault) {
        snprintf(message, CSV_MESSAGE_BYTES, "the superblock has %s: mend it with `tasuki-csv fsck --repair`", fault);
        return ERR_CORRUPT;
    }
    if (v->disk->bytes >> CSV_BLOCK_SHIFT < le64_get(bytes + CSV_SU_BLOCKS)) {
        snprintf(message, CSV_MESSAGE_BYTES,
                 "the disk has %llu blocks of 4 KiB, and the volume %llu: the LUN was cut; make "
                 "it as large as it was", (unsigned long long)(v->disk->bytes >> CSV_BLOCK_SHIFT),
                 (unsigned long long)le64_get(bytes + CSV_SU_BLOCKS));
        return ERR_RANGE;
    }
    return OK;
}

enum status csv_super_read(struct csv *v, bool read_only, char *message)
{
    uint64_t blocks = csv_usable_blocks(v->disk->bytes);
    uint8_t *best = v->super;
    unsigned good = 0, newest = 0;
    enum status failed = OK, status = OK;
    for (unsigned copy = 0; copy < CSV_SUPER_COPIES; copy++) {
        uint64_t number = place_of(copy, good ? le64_get(best + CSV_SU_BLOCKS) : blocks);
        if (!number && copy)
            continue;
        if (!range_within(number, 1, v->disk->bytes >> CSV_BLOCK_SHIFT))
            continue; /* cut off; check() says so */
        status = csv_read_blocks(v, number, v->io, 1);
        failed = status ? status : failed;
        if (status || !super_sealed(v, v->io, number))
            continue;
        if (!good++ || le64_get(v->io + CSV_H_SEQUENCE) > le64_get(best + CSV_H_SEQUENCE)) {
            memcpy(best, v->io, CSV_BLOCK_BYTES);
            newest = 0;
        }
        newest += le64_get(v->io + CSV_H_SEQUENCE) == le64_get(best + CSV_H_SEQUENCE) &&
                  !memcmp(v->io + CSV_SU_UUID, best + CSV_SU_UUID, sizeof(v->uuid));
    }
    if (!good && failed) {
        snprintf(message, CSV_MESSAGE_BYTES, "the disk cannot be read: %s", status_name(failed));
        status = failed;
    } else if (!good) {
        const char *content = csv_foreign(v);
        snprintf(message, CSV_MESSAGE_BYTES, content ? "the disk has no volume but %s: take the right disk, or, if that may be "
                                                       "lost, make a volume with `tasuki-csv mkfs --force`"
                                                     : "the disk is empty: make a volume on it with `tasuki-csv mkfs`", content);
        status = ERR_NOT_FOUND;
    } else {
        status = check(v, best, read_only, message);
    }
    if (!status) {
        take_over(v, best);
        v->super_good = newest;
    }
    return status;
}

void csv_super_count(struct csv *v, unsigned *good)
{
    *good = 0;
    for (unsigned copy = 0; copy < CSV_SUPER_COPIES; copy++) {
        *good += !csv_read_blocks(v, place_of(copy, v->blocks), v->io, 1) &&
                 csv_sealed(v, v->io, CSV_SUPER, place_of(copy, v->blocks)) &&
                 le64_get(v->io + CSV_H_SEQUENCE) == v->super_sequence;
    }
}

enum status csv_super_write(struct csv *v, uint8_t *bytes)
{
    uint64_t blocks = le64_get(bytes + CSV_SU_BLOCKS);
    enum status status = OK;
    memcpy(bytes + CSV_SU_MAGIC, magic, sizeof(magic));
    v->super_sequence++;
    for (unsigned copy = 0; copy < CSV_SUPER_COPIES && !status; copy++) {
        uint64_t number = place_of(copy, blocks);
        le32_put(bytes + CSV_SU_COPY, copy);
        csv_seal(v, bytes, CSV_SUPER, number, 0, v->super_sequence);
        status = csv_write_blocks(v, number, bytes, 1, false);
        if (!status)
            status = csv_flush(v);
    }
    return status;
}

/* ---- Mount record ---- */

enum status csv_mount_record_read(struct csv *v, uint32_t *state)
{
    bool found = false;
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *bytes = v->io;
        enum status status = csv_read_blocks(v, CSV_AT_MOUNT_RECORD + i, v->io, 1);
        if (status)
            return status;
        if (!csv_sealed(v, bytes, CSV_MOUNT_RECORD, CSV_AT_MOUNT_RECORD + i) ||
            le64_get(bytes + CSV_H_SEQUENCE) > CSV_LAST_SEQUENCE ||
            (found && le64_get(bytes + CSV_H_SEQUENCE) < v->mount_sequence))
            continue;
        found = true;
        *state = le32_get(bytes + CSV_MR_STATE);
        v->mount_sequence = le64_get(bytes + CSV_H_SEQUENCE);
        v->generation = le64_get(bytes + CSV_MR_GENERATION);
        v->unclean = le64_get(bytes + CSV_MR_UNCLEAN);
        v->owner_kind = le32_get(bytes + CSV_MR_KIND);
        v->owner_key = le64_get(bytes + CSV_MR_KEY);
        memcpy(v->owner_uuid, bytes + CSV_MR_UUID, sizeof(v->owner_uuid));
        take_text(v->owner_name, bytes + CSV_MR_NAME, sizeof(v->owner_name));
    }
    return found ? OK : csv_corrupt(v, CSV_AT_MOUNT_RECORD, "both mount records are damaged");
}

enum status csv_mount_record_write(struct csv *v, uint32_t state)
{
    uint8_t *bytes = v->io;
    uint64_t place = CSV_AT_MOUNT_RECORD + (v->mount_sequence + 1) % 2;
    memset(bytes, 0, CSV_BLOCK_BYTES);
    le32_put(bytes + CSV_MR_STATE, state);
    le32_put(bytes + CSV_MR_KIND, v->owner_kind);
    le64_put(bytes + CSV_MR_GENERATION, v->generation);
    memcpy(bytes + CSV_MR_UUID, v->owner_uuid, sizeof(v->owner_uuid));
    memcpy(bytes + CSV_MR_NAME, v->owner_name, sizeof(v->owner_name));
    le64_put(bytes + CSV_MR_KEY, v->owner_key);
    le64_put(bytes + CSV_MR_TIME, (uint64_t)v->now_ns);
    le64_put(bytes + CSV_MR_UNCLEAN, v->unclean);
    csv_seal(v, bytes, CSV_MOUNT_RECORD, place, 0, v->mount_sequence + 1);
    enum status status = csv_write_blocks(v, place, bytes, 1, true);
    if (!status)
        v->mount_sequence++;
    return status;
}

bool csv_owner_generation(const uint8_t uuid[16], const uint8_t *bytes, uint64_t *generation)
{
    uint32_t seed = crc32c(0, uuid, 16);
    uint64_t last = 0;
    bool found = false;

    for (unsigned i = 0; i < 2; i++, bytes += CSV_BLOCK_BYTES) {
        uint64_t sequence = le64_get(bytes + CSV_H_SEQUENCE);
        if (le32_get(bytes + CSV_H_TYPE) != CSV_MOUNT_RECORD || le64_get(bytes + CSV_H_NUMBER) != CSV_AT_MOUNT_RECORD + i ||
            le32_get(bytes + CSV_H_CRC) != csv_checksum(seed, CSV_AT_MOUNT_RECORD + i, bytes) || (found && sequence < last))
            continue;
        found = true;
        last = sequence;
        *generation = le64_get(bytes + CSV_MR_GENERATION);
    }
    return found;
}
