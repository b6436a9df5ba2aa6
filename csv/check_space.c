/* SPDX-License-Identifier: MIT */
/*
 * The second half of fsck. The beginnings and ends of all extents, sorted, are swept once: between two of them all
 * blocks have the same number of references, which must be what the reference-count tree says. After that `used` has a
 * bit for each block that anything refers to, and must agree with the bitmaps to the bit.
 */
#include "csv/check.h"

/* Blocks [start, end) with so many references, `exclusive` of them by extents that are not marked as shared. */
static enum status check_segment(struct csv_checker *c, uint64_t start, uint64_t end, int64_t references,
                                 int64_t exclusive)
{
    if (references > 1 && exclusive)
        csv_check_say(c, "blocks %llu to %llu have %lld references, but an extent is not marked as shared",
                      (unsigned long long)start, (unsigned long long)(end - 1), (long long)references);
    if (references > 1)
        c->check->shared_blocks += end - start;
    for (uint64_t block = start; block < end; block++)
        csv_check_use(c, block, "data");
    while (start < end) {
        uint64_t alike, counted;
        enum status status = csv_references(c->v, start, end - start, &alike, &counted);
        if (status)
            return csv_check_pass(c, status);
        if (counted != (uint64_t)references)
            csv_check_say(c, "block %llu has %lld references, and is counted with %llu", (unsigned long long)start,
                          (long long)references, (unsigned long long)counted);
        start += alike;
        csv_breathe(c->v);
    }
    return OK;
}

static enum status sweep(struct csv_checker *c)
{
    int64_t references = 0, exclusive = 0;
    uint64_t start = 0;
    enum status status = OK;
    csv_sort(c->edge, c->edge_count, sizeof(*c->edge));
    for (size_t i = 0; i < c->edge_count && !status; i++) {
        if (references && c->edge[i].block > start)
            status = check_segment(c, start, c->edge[i].block, references, exclusive);
        references += c->edge[i].references;
        exclusive += c->edge[i].exclusive;
        start = c->edge[i].block;
    }
    return status;
}

static enum status each_count(struct csv_checker *c, const struct csv_record *record)
{
    uint64_t blocks = le32_get(record->value);
    if (le32_get(record->value + 4) < 2 || !csv_may_hold(c->v, record->key, blocks) || record->key < c->last_end)
        csv_check_say(c, "the reference count of block %llu is impossible", (unsigned long long)record->key);
    c->last_end = record->key + blocks;
    c->counted_blocks += blocks;
    return OK;
}

/* What differs in a byte of the bitmap: blocks without a use, and blocks in use that are free. */
static void differ(uint8_t bitmap, uint8_t used, unsigned *leaked, unsigned *lost)
{
    for (unsigned i = 0; i < 8; i++) {
        *leaked += bitmap >> i & 1 && !(used >> i & 1);
        *lost += !(bitmap >> i & 1) && used >> i & 1;
    }
}

/* One group's bitmap; *free becomes what it really has free. */
static void compare(struct csv_checker *c, uint64_t group, const uint8_t *bitmap, uint64_t *free)
{
    static const uint8_t ones[16] = { 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4 };
    const uint8_t *used = c->used + group * (CSV_GROUP_BLOCKS / 8);
    unsigned leaked = 0, lost = 0;
    for (unsigned i = 0; i < CSV_GROUP_BLOCKS / 8; i++) {
        *free += 8u - ones[bitmap[i] & 15] - ones[bitmap[i] >> 4];
        if (bitmap[i] != used[i])
            differ(bitmap[i], used[i], &leaked, &lost);
    }
    if (leaked)
        csv_check_say(c, "group %llu: %u blocks are in use in the bitmap, but nothing has them",
                      (unsigned long long)group, leaked);
    if (lost)
        csv_check_say(c, "group %llu: %u blocks are free in the bitmap, but in use", (unsigned long long)group, lost);
}

static enum status check_groups(struct csv_checker *c, uint64_t *free, uint64_t *granted)
{
    for (uint64_t group = 0; group < c->v->groups; group++) {
        struct csv_block *block;
        uint64_t zeros = 0;
        csv_breathe(c->v);
        enum status status = csv_block_get(c->v, csv_group_block(group), CSV_GROUP, 0, &block);
        if (status) {
            status = csv_check_pass(c, status);
            if (status)
                return status;
            continue;
        }
        compare(c, group, block->bytes + CSV_GR_BITMAP, &zeros);
        if (le32_get(block->bytes + CSV_GR_NUMBER) != group || le32_get(block->bytes + CSV_GR_FREE) != zeros)
            csv_check_say(c, "group %llu says that it has %u free blocks, and has %llu", (unsigned long long)group,
                          le32_get(block->bytes + CSV_GR_FREE), (unsigned long long)zeros);
        *granted += le16_get(block->bytes + CSV_GR_GRANT) != CSV_NO_GRANT;
        *free += zeros;
    }
    return OK;
}

static void counter(struct csv_checker *c, const struct csv_block *root, unsigned offset, uint64_t real,
                    const char *what)
{
    if (le64_get(root->bytes + offset) != real)
        csv_check_say(c, "the volume says that it has %llu %s, and has %llu",
                      (unsigned long long)le64_get(root->bytes + offset), what, (unsigned long long)real);
}

static void use(struct csv_checker *c, uint64_t start, uint64_t count)
{
    for (uint64_t block = start; block < start + count; block++)
        c->used[block / 8] |= (uint8_t)(1u << block % 8);
}

/* The fixed places, and what lies beyond the volume in its last group. */
static void use_fixed(struct csv_checker *c)
{
    const struct csv *v = c->v;
    use(c, 0, CSV_AT_FREE);
    use(c, CSV_AT_SUPER_MIDDLE, 1);
    use(c, v->journal, v->journal_blocks);
    use(c, v->database, v->database_blocks);
    use(c, v->blocks - 1, v->groups * CSV_GROUP_BLOCKS - (v->blocks - 1));
    for (uint64_t region = 0; region < v->blocks; region += CSV_REGION_BLOCKS)
        use(c, region, CSV_REGION_FIXED);
}

enum status csv_check_space(struct csv_checker *c)
{
    struct csv_block *root;
    uint64_t free = 0, granted = 0;
    enum status status = sweep(c);
    if (!status)
        status = csv_root_block(c->v, &root);
    if (status)
        return status;
    use_fixed(c);
    struct csv_tree counts = csv_counts_tree(c->v, root);
    c->last_end = 0;
    status = csv_check_tree(c, &counts, each_count);
    if (!status && c->counted_blocks != c->check->shared_blocks)
        csv_check_say(c, "%llu blocks are counted as shared, and %llu are", (unsigned long long)c->counted_blocks,
                      (unsigned long long)c->check->shared_blocks);
    if (!status)
        status = check_groups(c, &free, &granted);
    if (!status)
        status = csv_root_block(c->v, &root);
    if (status)
        return status;
    c->check->used_blocks = c->v->groups * CSV_GROUP_BLOCKS - free;
    counter(c, root, CSV_RT_FREE, free, "free blocks");
    counter(c, root, CSV_RT_INODES, c->inodes, "inodes");
    counter(c, root, CSV_RT_ORPHANS, c->orphan_records, "orphans");
    counter(c, root, CSV_RT_GRANTED, granted, "granted groups");
    return OK;
}
