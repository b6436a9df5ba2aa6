/* SPDX-License-Identifier: MIT */
/*
 * Which blocks are in use: one bitmap a group.
 *
 * Taking blocks sets bits at once, in the running operation. Giving them back only enters them in v->freed; the bits
 * are cleared by csv_apply_freed() when the transaction is put together. So nothing that a transaction frees is taken
 * again before that transaction is durable. Data is placed where the caller wishes (behind the file's last extent),
 * metadata from the beginning of the volume, so the two do not break each other's runs. The last blocks are kept for
 * metadata, and a quarter of them for that of files that are there: a full volume can still delete, and turn what was
 * preallocated to written.
 */
#include <string.h>

#include "csv/volume.h"

#define BITS CSV_GROUP_BLOCKS
#define GOOD_RUN 1024u /* 4 MiB: where there is one, a shorter run is not taken */

static bool bit_get(const uint8_t *map, unsigned bit)
{
    return map[bit / 8] >> (bit % 8) & 1;
}

/* The first bit of this value at or after `bit`, or BITS. */
static unsigned bit_next(const uint8_t *map, unsigned bit, bool value)
{
    while (bit < BITS && bit % 64) {
        if (bit_get(map, bit) == value)
            return bit;
        bit++;
    }
    for (; bit < BITS; bit += 64) {
        uint64_t word = le64_get(map + bit / 8) ^ (value ? 0 : ~UINT64_C(0));
        if (word)
            return bit + (unsigned)__builtin_ctzll(word);
    }
    return BITS;
}

/* The first run of at least `want` free blocks from `from` on, or else the longest one; 0 if all are in use. */
static unsigned find_run(const uint8_t *map, unsigned from, unsigned want, unsigned *start)
{
    unsigned best = 0;
    for (unsigned at = bit_next(map, from, false); at < BITS;) {
        unsigned end = bit_next(map, at, true);
        if (end - at > best) {
            best = end - at;
            *start = at;
        }
        if (best >= want)
            break;
        at = bit_next(map, end, false);
    }
    return best;
}

static enum status group_get(struct csv *v, uint64_t group, struct csv_block **block)
{
    enum status status = csv_block_get(v, csv_group_block(group), CSV_GROUP, 0, block);
    if (!status && le32_get((*block)->bytes + CSV_GR_NUMBER) != group)
        status = csv_corrupt(v, (*block)->number, "a group with a wrong number");
    if (!status)
        csv_alloc_reload(v, *block);
    return status;
}

void csv_alloc_reload(struct csv *v, const struct csv_block *block)
{
    uint32_t group = le32_get(block->bytes + CSV_GR_NUMBER);
    bool granted = le16_get(block->bytes + CSV_GR_GRANT) != CSV_NO_GRANT;
    v->group_free[group] = (uint16_t)le32_get(block->bytes + CSV_GR_FREE);
    v->group_granted[group / 8] = (uint8_t)((v->group_granted[group / 8] & ~(1u << group % 8)) |
                                            (unsigned)granted << group % 8);
}

enum status csv_alloc_init(struct csv *v)
{
    v->group_free = csv_alloc(v, v->groups * sizeof(*v->group_free));
    v->group_granted = csv_alloc_zeroed(v, v->groups / 8 + 1);
    if (!v->group_free || !v->group_granted)
        return ERR_NO_MEMORY;
    memset(v->group_free, 0xff, v->groups * sizeof(*v->group_free));
    uint64_t fixed = MAX(v->journal + v->journal_blocks, v->database + v->database_blocks);
    v->data_goal = fixed + (v->blocks - fixed) / 16;
    v->meta_goal = CSV_AT_FREE;
    return OK;
}

uint64_t csv_reserve(const struct csv *v)
{
    return MIN(v->blocks / 64, 1024);
}

bool csv_may_hold(const struct csv *v, uint64_t start, uint64_t count)
{
    if (!count || !range_within(start, count, v->blocks - 1) || start < CSV_AT_FREE)
        return false;
    if (range_overlaps(start, count, v->journal, v->journal_blocks) ||
        range_overlaps(start, count, v->database, v->database_blocks) ||
        range_overlaps(start, count, CSV_AT_SUPER_MIDDLE, 1))
        return false;
    return start % CSV_REGION_BLOCKS >= CSV_REGION_FIXED &&
           start / CSV_REGION_BLOCKS == (start + count - 1) / CSV_REGION_BLOCKS;
}

/* Bytes at a time: a group has 32,000 bits, and a large file thousands of groups. */
static void bits_put(uint8_t *map, unsigned first, unsigned count, bool value)
{
    for (; count && first % 8; first++, count--)
        map[first / 8] = (uint8_t)(value ? map[first / 8] | 1u << first % 8 : map[first / 8] & ~(1u << first % 8));
    memset(map + first / 8, value ? 0xff : 0, count / 8);
    for (first += count - count % 8, count %= 8; count; first++, count--)
        map[first / 8] = (uint8_t)(value ? map[first / 8] | 1u << first % 8 : map[first / 8] & ~(1u << first % 8));
}

/* Changes `count` bits of a group, which must all be the other way. */
static enum status bits_set(struct csv *v, uint64_t group, unsigned first, unsigned count, bool used)
{
    struct csv_block *block;
    enum status status = group_get(v, group, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    uint8_t *map = block->bytes + CSV_GR_BITMAP;
    if (bit_next(map, first, used) < first + count)
        return csv_corrupt(v, block->number,
                           used ? "blocks are taken that are in use" : "blocks are freed that are free");
    bits_put(map, first, count, used);
    uint32_t free = le32_get(block->bytes + CSV_GR_FREE);
    if (used ? free < count : free + count > BITS)
        return csv_corrupt(v, block->number, "a group's count of free blocks does not agree with its bitmap");
    le32_put(block->bytes + CSV_GR_FREE, used ? free - count : free + count);
    csv_alloc_reload(v, block);
    return csv_root_add(v, CSV_RT_FREE, used ? -(int64_t)count : (int64_t)count);
}

static bool granted(const struct csv *v, uint64_t group)
{
    return v->group_granted[group / 8] >> group % 8 & 1;
}

/*
 * A run of at most `want` blocks; `good`: shorter ones are only taken if nothing else is left. A run that begins at the
 * goal itself is taken whatever its length.
 */
static enum status take_run(struct csv *v, uint64_t goal, unsigned want, unsigned good, uint64_t *start,
                            uint64_t *count)
{
    uint64_t first = goal < v->blocks ? goal / BITS : 0;
    struct csv_block *passed = NULL; /* a group that was of no use: a search over many must not fill the memory */
    for (unsigned least = good; least; least = least == 1 ? 0 : 1)
        for (uint64_t i = 0; i < v->groups; i++) {
            uint64_t group = (first + i) % v->groups;
            unsigned at = 0, run = 0;
            if (v->group_free[group] < least || granted(v, group))
                continue;
            struct csv_block *block;
            csv_block_shed(v, passed);
            enum status status = group_get(v, group, &block);
            if (status)
                return status;
            passed = block;
            if (granted(v, group))
                continue;
            const uint8_t *map = block->bytes + CSV_GR_BITMAP;
            if (!i && goal < v->blocks) {
                run = find_run(map, goal % BITS, want, &at);
                if (run < least && bit_next(map, goal % BITS, false) == goal % BITS) {
                    at = goal % BITS;
                    run = bit_next(map, at, true) - at;
                } else if (run < least) {
                    run = 0;
                }
            }
            if (!run)
                run = find_run(map, 0, want, &at);
            if (run < least && !(run && !i && at == goal % BITS))
                continue;
            run = MIN(run, want);
            *start = group * BITS + at;
            *count = run;
            if (!csv_may_hold(v, *start, run))
                return csv_corrupt(v, block->number, "the bitmap says that fixed places are free");
            return bits_set(v, group, at, run, true);
        }
    return ERR_NO_SPACE;
}

enum status csv_alloc_data(struct csv *v, uint64_t goal, uint64_t want, uint64_t *start, uint64_t *count)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    if (status)
        return status;
    uint64_t free = le64_get(root->bytes + CSV_RT_FREE), reserve = csv_reserve(v);
    if (free <= reserve)
        return ERR_NO_SPACE;
    want = MIN(want, MIN(free - reserve, BITS));
    status = take_run(v, goal ? goal : v->data_goal, (unsigned)want, (unsigned)MIN(want, GOOD_RUN), start, count);
    if (!status)
        v->data_goal = *start + *count;
    return status;
}

enum status csv_alloc_meta(struct csv *v, uint64_t *number)
{
    uint64_t count;
    enum status status = take_run(v, v->meta_goal, 1, 1, number, &count);
    if (!status)
        v->meta_goal = *number + 1;
    return status;
}

enum status csv_in_use(struct csv *v, uint64_t number, bool *used)
{
    struct csv_block *block;
    enum status status = group_get(v, number / BITS, &block);
    if (!status)
        *used = bit_get(block->bytes + CSV_GR_BITMAP, number % BITS);
    return status;
}

bool csv_nearly_full(const struct csv *v, const struct csv_block *root)
{
    return le64_get(root->bytes + CSV_RT_FREE) <= csv_reserve(v) / 4;
}

/* Calls bits_set, or only looks, for each group of a run. */
static enum status each_group(struct csv *v, uint64_t start, uint64_t count, bool clear)
{
    while (count) {
        uint64_t group = start / BITS;
        unsigned first = start % BITS, part = (unsigned)MIN(count, BITS - first);
        struct csv_block *block;
        enum status status = clear ? bits_set(v, group, first, part, false) : group_get(v, group, &block);
        if (status)
            return status;
        if (!clear && bit_next(block->bytes + CSV_GR_BITMAP, first, false) < first + part)
            return csv_corrupt(v, block->number, "blocks that something refers to are free in the bitmap");
        start += part;
        count -= part;
    }
    return OK;
}

enum status csv_free_blocks(struct csv *v, uint64_t start, uint64_t count)
{
    if (!csv_may_hold(v, start, count))
        return csv_corrupt(v, start, "it is freed, but is no place for data");
    enum status status = each_group(v, start, count, false);
    if (status)
        return status;
    uint64_t first = start / BITS, last = (start + count - 1) / BITS;
    const struct csv_run *before = v->freed.count ? &v->freed.run[v->freed.count - 1] : NULL;
    v->freed_groups += last - first + (before && (before->start + before->count - 1) / BITS == first ? 0 : 1);
    v->pending_free += count;
    return csv_runs_add(v, &v->freed, start, count);
}

enum status csv_load_freed(struct csv *v)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    for (size_t i = 0; i < v->freed.count && !status; i++) {
        csv_rest(v);
        status = each_group(v, v->freed.run[i].start, v->freed.run[i].count, false);
    }
    return status;
}

enum status csv_apply_freed(struct csv *v)
{
    for (size_t i = 0; i < v->freed.count; i++) {
        csv_rest(v);
        enum status status = each_group(v, v->freed.run[i].start, v->freed.run[i].count, true);
        if (status)
            return status;
    }
    if (v->freed.count && v->freed.run[0].start < v->meta_goal)
        v->meta_goal = CSV_AT_FREE;
    return OK;
}

/* ---- Grants ---- */

static enum status grant(struct csv *v, uint32_t slot, uint64_t bytes, uint64_t *first, uint64_t *blocks)
{
    for (uint64_t i = 0; i < v->groups; i++) {
        uint64_t group = (v->data_goal / BITS + i) % v->groups;
        struct csv_block *block;
        if (v->group_free[group] < bytes >> CSV_BLOCK_SHIFT || granted(v, group))
            continue;
        enum status status = group_get(v, group, &block);
        if (status)
            return status;
        if (v->group_free[group] < bytes >> CSV_BLOCK_SHIFT || granted(v, group))
            continue;
        status = csv_block_change(v, block);
        if (status)
            return status;
        le16_put(block->bytes + CSV_GR_GRANT, (uint16_t)slot);
        le64_put(block->bytes + CSV_GR_GRANT_GENERATION, v->generation);
        csv_alloc_reload(v, block);
        *first = group * BITS;
        *blocks = MIN(BITS, v->blocks - *first);
        return csv_root_add(v, CSV_RT_GRANTED, 1);
    }
    return ERR_NO_SPACE;
}

enum status csv_grant(struct csv *v, uint32_t slot, uint64_t bytes, uint64_t *first, uint64_t *blocks)
{
    if (slot >= CSV_SLOTS)
        return ERR_INVALID;
    enum status status = csv_begin(v);
    if (status)
        return status;
    return csv_end(v, grant(v, slot, bytes, first, blocks));
}

/* Takes grants back from group *group on, as many as an operation may; *group is where to go on. */
static enum status grant_end_some(struct csv *v, uint32_t slot, uint64_t *group)
{
    struct csv_block *root;
    enum status status = csv_root_block(v, &root);
    for (unsigned looked = 0; !status && *group < v->groups && csv_has_room(v) && looked < 256; ++*group) {
        struct csv_block *block;
        if (v->group_free[*group] != CSV_UNKNOWN_FREE && !granted(v, *group))
            continue;
        if (!le64_get(root->bytes + CSV_RT_GRANTED)) {
            *group = v->groups;
            break;
        }
        looked++;
        status = group_get(v, *group, &block);
        if (status || !granted(v, *group) ||
            (slot != CSV_NO_GRANT && le16_get(block->bytes + CSV_GR_GRANT) != slot))
            continue;
        status = csv_block_change(v, block);
        if (status)
            break;
        le16_put(block->bytes + CSV_GR_GRANT, CSV_NO_GRANT);
        le64_put(block->bytes + CSV_GR_GRANT_GENERATION, 0);
        csv_alloc_reload(v, block);
        status = csv_root_add(v, CSV_RT_GRANTED, -1);
    }
    return status;
}

enum status csv_grant_end(struct csv *v, uint32_t slot)
{
    enum status status = slot < CSV_SLOTS || slot == CSV_NO_GRANT ? OK : ERR_INVALID;
    for (uint64_t group = 0; !status && group < v->groups;) {
        status = csv_begin(v);
        if (!status)
            status = csv_end(v, grant_end_some(v, slot, &group));
    }
    return status;
}
