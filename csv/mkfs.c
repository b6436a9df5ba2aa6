/* SPDX-License-Identifier: MIT */
/*
 * An empty volume. The superblock goes last: a mkfs that is cut off leaves no volume, or the old one's superblock with
 * blocks that do not have its UUID, and both are refused.
 */
#include <string.h>

#include "csv/tree.h"
#include "csv/volume.h"
#include "kernel/crc32c.h"
#include "kernel/text.h"

static enum status zero(struct csv *v, uint64_t start, uint64_t count)
{
    if (v->disk->write_zeroes)
        return v->disk->write_zeroes(v->disk, start << CSV_BLOCK_SHIFT, count << CSV_BLOCK_SHIFT);
    memset(v->io, 0, CSV_IO_BLOCKS * CSV_BLOCK_BYTES);
    enum status status = OK;
    for (uint64_t at = 0; at < count && !status; at += CSV_IO_BLOCKS)
        status = csv_write_blocks(v, start + at, v->io, MIN(count - at, CSV_IO_BLOCKS), false);
    return status;
}

/* Where the next area of so many blocks goes: behind fixed places that it would run over. */
static uint64_t place(uint64_t at, uint64_t count)
{
    if (range_overlaps(at, count, CSV_AT_SUPER_MIDDLE, 1))
        at = CSV_AT_SUPER_MIDDLE + 1;
    if (at / CSV_REGION_BLOCKS != (at + count - 1) / CSV_REGION_BLOCKS)
        at = ((at + count - 1) / CSV_REGION_BLOCKS) * CSV_REGION_BLOCKS + CSV_REGION_FIXED;
    return at;
}

static void lay_out(struct csv *v)
{
    uint64_t bytes = v->blocks << CSV_BLOCK_SHIFT;
    v->groups = (v->blocks + CSV_GROUP_BLOCKS - 1) / CSV_GROUP_BLOCKS;
    v->journal_blocks = bytes < GIB ? 1024 : bytes < 64 * GIB ? 8192 : 32768;
    v->database_blocks = bytes < GIB ? 1024 : bytes < 64 * GIB ? 4096 : 16384;
    v->database = place(CSV_AT_FREE, v->database_blocks);
    v->journal = place(v->database + v->database_blocks, v->journal_blocks);
}

uint64_t csv_root_place(const struct csv *v)
{
    uint64_t at = CSV_AT_FREE;
    while (!csv_may_hold(v, at, 1))
        at++;
    return at;
}

static bool in_use(const struct csv *v, uint64_t block)
{
    return !csv_may_hold(v, block, 1) || block == v->root_directory;
}

uint32_t csv_group_make(const struct csv *v, uint64_t group, uint8_t *bytes)
{
    uint64_t first = group * CSV_GROUP_BLOCKS;
    uint32_t free = 0;
    uint64_t fixed = MAX(v->journal + v->journal_blocks, v->database + v->database_blocks);
    unsigned look = CSV_GROUP_BLOCKS;
    memset(bytes, 0, CSV_BLOCK_BYTES);
    if (first >= MAX(fixed, CSV_AT_SUPER_MIDDLE + 1) && first + CSV_GROUP_BLOCKS < v->blocks) {
        look = CSV_REGION_FIXED; /* nothing else in it can be fixed */
        free = CSV_GROUP_BLOCKS - look;
    }
    for (unsigned i = 0; i < look; i++) {
        if (in_use(v, first + i))
            bytes[CSV_GR_BITMAP + i / 8] |= (uint8_t)(1u << i % 8);
        else
            free++;
    }
    le32_put(bytes + CSV_GR_NUMBER, (uint32_t)group);
    le32_put(bytes + CSV_GR_FREE, free);
    le16_put(bytes + CSV_GR_GRANT, CSV_NO_GRANT);
    csv_seal(v, bytes, CSV_GROUP, csv_group_block(group), 0, 0);
    return free;
}

/* All groups, a region's blocks in one write; *free is their sum. */
static enum status write_groups(struct csv *v, uint64_t *free)
{
    for (uint64_t group = 0; group < v->groups; group += CSV_REGION_GROUPS) {
        uint64_t count = MIN(v->groups - group, CSV_REGION_GROUPS);
        for (uint64_t i = 0; i < count; i++)
            *free += csv_group_make(v, group + i, v->io + i * CSV_BLOCK_BYTES);
        enum status status = csv_write_blocks(v, csv_group_block(group), v->io, count, false);
        if (status)
            return status;
    }
    return OK;
}

void csv_root_directory_make(const struct csv *v, uint8_t *bytes)
{
    le16_put(bytes + CSV_IN_TYPE, CSV_IS_DIRECTORY);
    le32_put(bytes + CSV_IN_LINKS, 1);
    le64_put(bytes + CSV_IN_GENERATION, 1);
    le64_put(bytes + CSV_IN_PARENT, v->root_directory);
    le64_put(bytes + CSV_IN_CREATED, (uint64_t)v->now_ns);
    le64_put(bytes + CSV_IN_MODIFIED, (uint64_t)v->now_ns);
    le64_put(bytes + CSV_IN_CHANGED, (uint64_t)v->now_ns);
    le32_put(bytes + CSV_IN_MODE, 0755);
    csv_node_init(bytes + CSV_IN_NODE, CSV_IN_NODE_BYTES, 0);
}

static enum status write_root(struct csv *v, uint64_t free)
{
    uint8_t *bytes = v->io;
    memset(bytes, 0, CSV_BLOCK_BYTES);
    le64_put(bytes + CSV_RT_DIRECTORY, v->root_directory);
    le64_put(bytes + CSV_RT_FREE, free);
    le64_put(bytes + CSV_RT_INODES, 1);
    le64_put(bytes + CSV_RT_GENERATION, 2);
    csv_node_init(bytes + CSV_RT_COUNTS_NODE, CSV_RT_COUNTS_BYTES, 0);
    csv_node_init(bytes + CSV_RT_ORPHANS_NODE, CSV_RT_ORPHANS_BYTES, 0);
    csv_seal(v, bytes, CSV_ROOT, CSV_AT_ROOT, 0, 0);
    enum status status = csv_write_blocks(v, CSV_AT_ROOT, bytes, 1, false);
    if (status)
        return status;
    memset(bytes, 0, CSV_BLOCK_BYTES);
    csv_root_directory_make(v, bytes);
    csv_seal(v, bytes, CSV_INODE, v->root_directory, v->root_directory, 0);
    return csv_write_blocks(v, v->root_directory, bytes, 1, false);
}

static enum status write_super(struct csv *v)
{
    uint8_t *bytes = v->io;
    memset(bytes, 0, CSV_BLOCK_BYTES);
    le32_put(bytes + CSV_SU_VERSION, CSV_FORMAT_VERSION);
    memcpy(bytes + CSV_SU_UUID, v->uuid, sizeof(v->uuid));
    memcpy(bytes + CSV_SU_LABEL, v->label, sizeof(v->label));
    le64_put(bytes + CSV_SU_BLOCKS, v->blocks);
    le32_put(bytes + CSV_SU_BLOCK_BYTES, CSV_BLOCK_BYTES);
    le32_put(bytes + CSV_SU_GROUP_BLOCKS, CSV_GROUP_BLOCKS);
    le32_put(bytes + CSV_SU_REGION_GROUPS, CSV_REGION_GROUPS);
    le32_put(bytes + CSV_SU_SECTOR_BYTES, v->disk->sector_bytes);
    le64_put(bytes + CSV_SU_JOURNAL, v->journal);
    le64_put(bytes + CSV_SU_JOURNAL_BLOCKS, v->journal_blocks);
    le64_put(bytes + CSV_SU_SLOTS, CSV_AT_SLOTS);
    le32_put(bytes + CSV_SU_SLOT_COUNT, CSV_SLOTS);
    le32_put(bytes + CSV_SU_SLOT_BLOCKS, CSV_SLOT_BLOCKS);
    le64_put(bytes + CSV_SU_DATABASE, v->database);
    le64_put(bytes + CSV_SU_DATABASE_BLOCKS, v->database_blocks);
    memcpy(bytes + CSV_SU_HASH_KEY, v->hash_key, sizeof(v->hash_key));
    le64_put(bytes + CSV_SU_CREATED, (uint64_t)v->now_ns);
    return csv_super_write(v, bytes);
}

/* The old superblocks go first, then everything else, then the new ones. */
static enum status make(struct csv *v)
{
    uint64_t free = 0;
    enum status status = zero(v, 0, CSV_AT_FREE);
    if (!status)
        status = zero(v, CSV_AT_SUPER_MIDDLE, 1);
    if (!status)
        status = zero(v, v->blocks - 1, 1);
    if (!status)
        status = csv_flush(v);
    if (!status)
        status = zero(v, v->database, v->database_blocks);
    if (!status)
        status = zero(v, v->journal, v->journal_blocks);
    if (!status)
        status = write_groups(v, &free);
    if (!status)
        status = write_root(v, free);
    v->number = 1;
    for (unsigned i = 0; i < 2 && !status; i++)
        status = csv_write_head(v);
    for (unsigned i = 0; i < 2 && !status; i++)
        status = csv_mount_record_write(v, 0);
    if (!status)
        status = csv_flush(v);
    return status ? status : write_super(v);
}

static bool label_ok(const char *label)
{
    size_t bytes = strlen(label);
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        unsigned length = utf8_decode(label + at, bytes - at, &code);
        if (!length || code < 32 || code == 127)
            return false;
        at += length;
    }
    return bytes < CSV_LABEL_BYTES;
}

enum status csv_mkfs(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mkfs_options *options)
{
    const char *label = options->label ? options->label : "";
    if (disk->bytes < CSV_MIN_BYTES || disk->bytes > CSV_MAX_BYTES)
        return ERR_RANGE;
    if (!label_ok(label) || (disk->sector_bytes != 512 && disk->sector_bytes != CSV_BLOCK_BYTES))
        return ERR_INVALID;
    struct csv *v = memory->alloc(memory->context, sizeof(*v));
    if (!v)
        return ERR_NO_MEMORY;
    memset(v, 0, sizeof(*v));
    v->disk = disk;
    v->memory = *memory;
    v->now_ns = options->now_ns;
    memcpy(v->uuid, options->uuid, sizeof(v->uuid));
    memcpy(v->hash_key, options->hash_key, sizeof(v->hash_key));
    str_copy(v->label, sizeof(v->label), label);
    v->crc_seed = crc32c(0, v->uuid, sizeof(v->uuid));
    v->blocks = csv_usable_blocks(disk->bytes);
    lay_out(v);
    v->root_directory = csv_root_place(v);
    enum status status = ERR_NO_MEMORY;
    v->io = csv_alloc(v, CSV_IO_BLOCKS * CSV_BLOCK_BYTES);
    if (v->io)
        status = make(v);
    csv_free(v, v->io, CSV_IO_BLOCKS * CSV_BLOCK_BYTES);
    memory->free(memory->context, v, sizeof(*v));
    return status;
}
