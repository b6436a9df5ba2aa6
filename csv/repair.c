/* SPDX-License-Identifier: MIT */
/*
 * Mending a volume, while nobody has it mounted. The order: superblock, mount record, journal; the volume root; all
 * that can be reached; what cannot, if names were lost. Then the bitmaps get all blocks that are in use, so that blocks
 * for new tree nodes can be had; then files and directories become what is good of them; then, from what there is now,
 * reference counts, bitmaps and counters are made exact. Changes go through the journal like all others, and each step
 * leaves a volume that is not worse than before: a repair that is cut off is begun again.
 *
 * What is not repaired: data (it has no checksums), and a disk that cannot be read.
 */
#include "csv/repair.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void csv_fix_say(struct csv_fixer *f, const char *format, ...)
{
    char text[CSV_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    f->repair->mended++;
    if (f->repair->report)
        f->repair->report(f->repair->context, text);
}

/* ---- What is not journaled ---- */

static enum status read_record(struct csv_fixer *f, const struct csv_mount_options *options, uint32_t *state,
                               char *message)
{
    enum status status = csv_mount_record_read(f->v, state);
    if (status != ERR_CORRUPT)
        return status ? status : csv_may_own(f->v, options, *state, message);
    if (!options->take_over) {
        snprintf(message, CSV_MESSAGE_BYTES, "both mount records are damaged, so who has the volume mounted is not "
                 "known: if it is certain that nobody has, take it over");
        return ERR_BUSY;
    }
    *state = 1;
    csv_fix_say(f, "the mount record is written anew");
    return OK;
}

static enum status read_journal(struct csv_fixer *f, bool unclean, char *message)
{
    enum status status = csv_replay(f->v, unclean);
    if (status != ERR_CORRUPT)
        return status;
    if (!f->repair->discard_journal) {
        snprintf(message, CSV_MESSAGE_BYTES, "the journal is damaged (%.90s): allow that the last transactions are "
                 "discarded, and what they changed is mended", f->v->problem);
        return ERR_CORRUPT;
    }
    csv_fix_say(f, "the journal is damaged (%s): what it still told is taken over, the rest is discarded",
                f->v->problem);
    f->new_journal = true;
    return csv_journal_reset(f->v);
}

static enum status open_volume(struct csv_fixer *f, const struct csv_mount_options *options, char *message)
{
    struct csv *v = f->v;
    uint32_t state = 0;
    enum status status = csv_super_read(v, false, message);
    if (status)
        return status;
    v->checking = true;
    v->transaction_limit = csv_transaction_limit(v->journal_blocks);
    status = read_record(f, options, &state, message);
    if (!status)
        status = csv_alloc_init(v);
    if (!status)
        status = read_journal(f, state != 0, message);
    if (!status)
        status = csv_own(v, options, state);
    v->used += f->new_journal && !v->used; /* so that a head is written */
    if (!status)
        status = csv_checkpoint(v);
    if (!status && f->new_journal)
        status = csv_write_head(v);
    if (!status && v->super_good < CSV_SUPER_COPIES) {
        csv_fix_say(f, "only %u of %u superblocks are good: all are written anew", v->super_good, CSV_SUPER_COPIES);
        status = csv_super_write(v, v->super);
    }
    return status;
}

/* ---- The volume root ---- */

/* A block that is made anew, whatever it was. */
static enum status fresh(struct csv *v, uint64_t number, uint32_t type, uint64_t owner, struct csv_block **block)
{
    struct csv_block *old = csv_block_find(v, number);
    if (old)
        csv_block_drop(v, old);
    return csv_block_new(v, number, type, owner, block);
}

static enum status new_root(struct csv *v)
{
    struct csv_block *block;
    enum status status = fresh(v, CSV_AT_ROOT, CSV_ROOT, 0, &block);
    if (status)
        return status;
    csv_node_init(block->bytes + CSV_RT_COUNTS_NODE, CSV_RT_COUNTS_BYTES, 0);
    csv_node_init(block->bytes + CSV_RT_ORPHANS_NODE, CSV_RT_ORPHANS_BYTES, 0);
    le64_put(block->bytes + CSV_RT_DIRECTORY, csv_root_place(v));
    return OK;
}

static enum status new_root_directory(struct csv *v)
{
    struct csv_block *root, *block;
    enum status status = csv_root_block(v, &root);
    if (!status)
        status = csv_block_change(v, root);
    if (status)
        return status;
    v->root_directory = csv_root_place(v);
    le64_put(root->bytes + CSV_RT_DIRECTORY, v->root_directory);
    if (!csv_inode_get(v, v->root_directory, CSV_IS_DIRECTORY, &block))
        return OK;
    status = fresh(v, v->root_directory, CSV_INODE, v->root_directory, &block);
    if (!status)
        csv_root_directory_make(v, block->bytes);
    return status;
}

/* What was to be deleted is found by nothing, and is free in the end; what was to be cut is cut at its size. */
static enum status no_orphans(struct csv *v)
{
    struct csv_block *block;
    enum status status = csv_root_block(v, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    csv_node_init(block->bytes + CSV_RT_ORPHANS_NODE, CSV_RT_ORPHANS_BYTES, 0);
    le64_put(block->bytes + CSV_RT_ORPHANS, 0);
    return OK;
}

static enum status operate(struct csv *v, enum status (*body)(struct csv *v))
{
    enum status status = csv_begin(v);
    return status ? status : csv_end(v, body(v));
}

static enum status fix_root(struct csv_fixer *f)
{
    struct csv *v = f->v;
    struct csv_block *block;
    enum status status = csv_root_block(v, &block);
    if (status == ERR_CORRUPT) {
        csv_fix_say(f, "the volume root is made anew");
        status = operate(v, new_root);
        if (!status)
            status = csv_root_block(v, &block);
    }
    if (status)
        return status;
    f->had_orphans = csv_node_count(block->bytes + CSV_RT_ORPHANS_NODE) > 0;
    v->root_directory = le64_get(block->bytes + CSV_RT_DIRECTORY);
    status = csv_inode_get(v, v->root_directory, CSV_IS_DIRECTORY, &block);
    if (status == ERR_CORRUPT || status == ERR_INVALID) {
        csv_fix_say(f, "the root directory is damaged: it is made anew");
        f->names_lost = true;
        status = operate(v, new_root_directory);
    }
    if (!status && f->had_orphans)
        status = operate(v, no_orphans);
    return status;
}

/* ---- Groups ---- */

static unsigned ones_of(uint8_t byte)
{
    unsigned ones = 0;
    for (; byte; byte &= (uint8_t)(byte - 1))
        ones++;
    return ones;
}

/* What a group's bitmap should be; `old`: bits that stay set, or NULL. Returns the free blocks. */
static uint32_t right_bitmap(const struct csv_fixer *f, uint64_t group, const uint8_t *old, uint8_t *right)
{
    size_t from = group * (CSV_GROUP_BLOCKS / 8);
    uint32_t free = 0;
    for (unsigned i = 0; i < CSV_GROUP_BLOCKS / 8; i++) {
        right[i] = (uint8_t)(f->meta[from + i] | f->data[from + i] | (old ? old[i] : 0));
        free += 8u - ones_of(right[i]);
    }
    return free;
}

static enum status put_group(struct csv *v, uint64_t group, bool damaged, const uint8_t *right, uint32_t free)
{
    struct csv_block *block;
    uint64_t number = csv_group_block(group);
    enum status status = damaged ? fresh(v, number, CSV_GROUP, 0, &block)
                                 : csv_block_get(v, number, CSV_GROUP, 0, &block);
    if (!status)
        status = csv_block_change(v, block);
    if (status)
        return status;
    le32_put(block->bytes + CSV_GR_NUMBER, (uint32_t)group);
    le32_put(block->bytes + CSV_GR_FREE, free);
    le16_put(block->bytes + CSV_GR_GRANT, CSV_NO_GRANT);
    le64_put(block->bytes + CSV_GR_GRANT_GENERATION, 0);
    memcpy(block->bytes + CSV_GR_BITMAP, right, CSV_GROUP_BLOCKS / 8);
    csv_alloc_reload(v, block);
    return OK;
}

/* exact: no bit is set that should not be; else only those that must be are added. Tells each difference once. */
static enum status fix_group(struct csv_fixer *f, uint64_t group, bool exact, uint8_t *right, uint64_t *sum)
{
    struct csv *v = f->v;
    struct csv_block *block;
    unsigned leaked = 0, lost = 0;
    csv_breathe(v);
    enum status status = csv_block_get(v, csv_group_block(group), CSV_GROUP, 0, &block);
    bool damaged = status == ERR_CORRUPT;
    if (status && !damaged)
        return status;
    const uint8_t *had = damaged ? NULL : block->bytes + CSV_GR_BITMAP;
    uint32_t free = right_bitmap(f, group, exact ? NULL : had, right);
    *sum += free;
    for (unsigned i = 0; had && i < CSV_GROUP_BLOCKS / 8; i++) {
        leaked += ones_of(had[i] & (uint8_t)~right[i]);
        lost += ones_of(right[i] & (uint8_t)~had[i]);
    }
    bool counts = had && le32_get(block->bytes + CSV_GR_FREE) + leaked == free + lost;
    if (damaged)
        csv_fix_say(f, "group %llu is damaged: it is made anew", (unsigned long long)group);
    if (lost)
        csv_fix_say(f, "group %llu: %u blocks in use were free in the bitmap", (unsigned long long)group, lost);
    if (leaked && !f->had_orphans)
        csv_fix_say(f, "group %llu: %u blocks that nothing has are free now", (unsigned long long)group, leaked);
    if (had && !counts)
        csv_fix_say(f, "group %llu: its count of free blocks is put right", (unsigned long long)group);
    if (!damaged && !leaked && !lost && counts && le16_get(block->bytes + CSV_GR_GRANT) == CSV_NO_GRANT)
        return OK;
    status = csv_begin(v);
    return status ? status : csv_end(v, put_group(v, group, damaged, right, free));
}

struct root_field {
    unsigned offset;
    uint64_t value;
    const char *what; /* NULL: not told */
};

static enum status put_fields(struct csv_fixer *f, const struct root_field *field, size_t count)
{
    struct csv_block *root;
    enum status status = csv_root_block(f->v, &root);
    if (!status)
        status = csv_block_change(f->v, root);
    for (size_t i = 0; i < count && !status; i++) {
        if (field[i].what && le64_get(root->bytes + field[i].offset) != field[i].value)
            csv_fix_say(f, "the volume's count of %s is put right", field[i].what);
        le64_put(root->bytes + field[i].offset, field[i].value);
    }
    return status;
}

static enum status fix_fields(struct csv_fixer *f, const struct root_field *field, size_t count)
{
    enum status status = csv_begin(f->v);
    return status ? status : csv_end(f->v, put_fields(f, field, count));
}

static enum status fix_groups(struct csv_fixer *f, bool exact)
{
    struct csv *v = f->v;
    uint64_t free = 0;
    uint8_t *right = csv_alloc(v, CSV_GROUP_BLOCKS / 8);
    enum status status = right ? OK : ERR_NO_MEMORY;
    for (uint64_t group = 0; group < v->groups && !status; group++)
        status = fix_group(f, group, exact, right, &free);
    csv_free(v, right, CSV_GROUP_BLOCKS / 8);
    if (status)
        return status;
    struct root_field field = { CSV_RT_FREE, free, exact || f->had_orphans ? NULL : "free blocks" };
    return fix_fields(f, &field, 1);
}

/* ---- Counters ---- */

static enum status fix_counters(struct csv_fixer *f)
{
    struct csv_block *block;
    uint64_t generation = 0;
    enum status status = OK;
    for (size_t i = 0; i < f->found_count && !status; i++) {
        csv_breathe(f->v);
        status = csv_inode_get(f->v, f->found[i].inode, 0, &block);
        if (!status)
            generation = MAX(generation, le64_get(block->bytes + CSV_IN_GENERATION));
    }
    if (!status)
        status = csv_root_block(f->v, &block);
    if (status)
        return status;
    if (generation == UINT64_MAX)
        return csv_corrupt(f->v, CSV_AT_ROOT, "an inode has the last generation of all");
    uint64_t next = le64_get(block->bytes + CSV_RT_GENERATION);
    const struct root_field field[] = {
        { CSV_RT_INODES, f->found_count, f->had_orphans ? NULL : "inodes" },
        { CSV_RT_GENERATION, MAX(next, generation + 1), "generations" },
        { CSV_RT_ORPHANS, 0, "orphans" },
        { CSV_RT_GRANTED, 0, NULL },
    };
    return fix_fields(f, field, ARRAY_COUNT(field));
}

/* The nodes of the tree of reference counts, which csv_fix_claim() does not know. */
static enum status claim_counts(struct csv_fixer *f)
{
    struct csv_block *root;
    struct csv_list list = { 0 };
    bool damaged;
    enum status status = csv_root_block(f->v, &root);
    if (status)
        return status;
    struct csv_tree tree = csv_counts_tree(f->v, root);
    status = csv_fix_collect(f, &tree, &list, f->meta, &damaged);
    csv_list_free(f->v, &list);
    return status;
}

/* ---- All of it ---- */

static enum status look(struct csv_fixer *f)
{
    enum status status = fix_root(f);
    if (!status)
        status = csv_fix_enter(f, f->v->root_directory, f->v->root_directory, 0);
    if (!status)
        status = csv_fix_walk(f);
    if (!status)
        status = csv_fix_claim(f);
    size_t before = f->found_count;
    if (!status)
        status = csv_fix_scan(f);
    return status || before == f->found_count ? status : csv_fix_claim(f);
}

static enum status mend(struct csv_fixer *f)
{
    enum status status = claim_counts(f);
    if (!status)
        status = fix_groups(f, false);
    csv_sort(f->found, f->found_count, sizeof(*f->found));
    if (!status)
        status = csv_fix_inodes(f);
    if (!status)
        status = csv_fix_lost_and_found(f);
    if (!status)
        status = csv_fix_claim(f);
    if (!status)
        status = csv_fix_counts(f);
    if (!status)
        status = claim_counts(f);
    if (!status)
        status = fix_groups(f, true);
    return status ? status : fix_counters(f);
}

static enum status repair(struct csv_fixer *f, const struct csv_mount_options *options, char *message)
{
    struct csv *v = f->v;
    enum status status = open_volume(f, options, message);
    if (status)
        return status;
    size_t bytes = v->groups * (CSV_GROUP_BLOCKS / 8);
    f->seen = csv_alloc_zeroed(v, bytes);
    f->meta = csv_alloc_zeroed(v, bytes);
    f->data = csv_alloc_zeroed(v, bytes);
    status = f->seen && f->meta && f->data ? look(f) : ERR_NO_MEMORY;
    if (!status)
        status = mend(f);
    if (!status)
        status = csv_commit(v);
    if (!status && le64_get(v->super + CSV_SU_GROWN_FROM)) { /* the bitmaps are right now, whatever was done of it */
        le64_put(v->super + CSV_SU_GROWN_FROM, 0);
        status = csv_super_write(v, v->super);
    }
    csv_free(v, f->seen, bytes);
    csv_free(v, f->meta, bytes);
    csv_free(v, f->data, bytes);
    csv_free(v, f->found, f->found_room * sizeof(*f->found));
    csv_free(v, f->turn, f->turn_room * sizeof(*f->turn));
    return status;
}

static void keep_first(void *context, const char *text)
{
    char *first = context;
    if (!first[0])
        snprintf(first, CSV_MESSAGE_BYTES, "the repair is not complete: %.150s", text);
}

/* After the repair fsck must find nothing. */
static enum status prove(struct csv_disk *disk, const struct csv_memory *memory, struct csv_mount_options options,
                         char *message)
{
    struct csv *v;
    options.read_only = true;
    enum status status = csv_mount(disk, memory, &options, &v, message);
    if (status)
        return status;
    struct csv_check check = { .report = keep_first, .context = message };
    status = csv_check(v, &check);
    if (status)
        snprintf(message, CSV_MESSAGE_BYTES, "the repaired volume cannot be checked: %s", status_name(status));
    csv_abandon(v);
    return status ? status : check.problems ? ERR_CORRUPT : OK;
}

enum status csv_repair(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mount_options *options,
                       struct csv_repair *report, char *message)
{
    struct csv_mount_options writing = *options;
    writing.read_only = writing.discard = false;
    message[0] = 0;
    report->mended = report->lost = report->rescued = 0;
    struct csv_fixer f = { .v = csv_volume_new(disk, memory, &writing), .repair = report };
    if (!f.v) {
        snprintf(message, CSV_MESSAGE_BYTES, "there is no memory for a volume");
        return ERR_NO_MEMORY;
    }
    enum status status = repair(&f, &writing, message);
    if (status && !message[0])
        snprintf(message, CSV_MESSAGE_BYTES, "the volume cannot be repaired: %s%s%.120s", status_name(status),
                 f.v->problem[0] ? ": " : "", f.v->problem);
    if (status) {
        csv_volume_free(f.v);
        return status;
    }
    status = csv_unmount(f.v);
    if (status)
        snprintf(message, CSV_MESSAGE_BYTES, "the repaired volume could not be written: %s", status_name(status));
    return status ? status : prove(disk, memory, writing, message);
}
