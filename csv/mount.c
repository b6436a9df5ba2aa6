/* SPDX-License-Identifier: MIT */
/*
 * Mounting and unmounting: the order of section 4 of docs/csv-format.md. Until the mount record is written nothing is
 * written, so a mount that is refused leaves no trace.
 */
#include <stdio.h>
#include <string.h>

#include "csv/volume.h"
#include "kernel/text.h"

#define DEFAULT_CACHE 4096u
#define LEAST_CACHE 256u

void csv_volume_free(struct csv *v)
{
    while (v->files) {
        struct csv_file *file = v->files;
        v->files = file->next;
        csv_free(v, file->extent, file->extent_room * sizeof(*file->extent));
        csv_free(v, file, sizeof(*file));
    }
    if (v->hash) {
        csv_blocks_drop_all(v);
        csv_free(v, v->hash, v->hash_size * sizeof(*v->hash));
    }
    csv_runs_free(v, &v->freed);
    csv_runs_free(v, &v->revoked);
    csv_free(v, v->group_free, v->groups * sizeof(*v->group_free));
    csv_free(v, v->group_granted, v->groups / 8 + 1);
    csv_free(v, v->super, CSV_BLOCK_BYTES);
    csv_free(v, v->io, CSV_IO_BLOCKS * CSV_BLOCK_BYTES);
    struct csv_memory memory = v->memory;
    memory.free(memory.context, v, sizeof(*v));
}

struct csv *csv_volume_new(struct csv_disk *disk, const struct csv_memory *memory,
                           const struct csv_mount_options *options)
{
    struct csv *v = memory->alloc(memory->context, sizeof(*v));
    if (!v)
        return NULL;
    memset(v, 0, sizeof(*v));
    v->disk = disk;
    v->memory = *memory;
    v->read_only = options->read_only;
    v->discard = options->discard;
    v->now_ns = options->now_ns;
    v->block_limit = options->cache_blocks ? MAX(options->cache_blocks, LEAST_CACHE) : DEFAULT_CACHE;
    csv_link_init(&v->recent);
    csv_link_init(&v->changed);
    csv_link_init(&v->logged);
    csv_link_init(&v->undo);
    for (v->hash_size = 256; v->hash_size < v->block_limit;)
        v->hash_size *= 2;
    v->io = csv_alloc(v, CSV_IO_BLOCKS * CSV_BLOCK_BYTES);
    v->hash = csv_alloc_zeroed(v, v->hash_size * sizeof(*v->hash));
    v->super = csv_alloc(v, CSV_BLOCK_BYTES);
    if (!v->io || !v->hash || !v->super) {
        csv_volume_free(v);
        return NULL;
    }
    return v;
}

enum status csv_may_own(struct csv *v, const struct csv_mount_options *options, uint32_t state, char *message)
{
    if (state && !options->read_only && !options->take_over &&
        memcmp(v->owner_uuid, options->owner_uuid, sizeof(v->owner_uuid))) {
        snprintf(message, CSV_MESSAGE_BYTES, "the volume is mounted by %s \"%s\": unmount it there, or, if that one is "
                 "certainly gone, take it over", v->owner_kind ? "the host tool on" : "node", v->owner_name);
        return ERR_BUSY;
    }
    return OK;
}

enum status csv_own(struct csv *v, const struct csv_mount_options *options, uint32_t state)
{
    memcpy(v->owner_uuid, options->owner_uuid, sizeof(v->owner_uuid));
    memset(v->owner_name, 0, sizeof(v->owner_name));
    str_copy(v->owner_name, sizeof(v->owner_name), options->owner_name ? options->owner_name : "");
    v->owner_kind = options->owner_kind;
    v->owner_key = options->owner_key;
    v->generation++;
    v->unclean += state ? 1 : 0;
    return csv_mount_record_write(v, 1);
}

/* The volume root must be there and hold what the code relies on. */
static enum status take_root(struct csv *v)
{
    struct csv_block *block;
    enum status status = csv_root_block(v, &block);
    if (status)
        return status;
    v->root_directory = le64_get(block->bytes + CSV_RT_DIRECTORY);
    if (le64_get(block->bytes + CSV_RT_FREE) > v->blocks)
        return csv_corrupt(v, CSV_AT_ROOT, "more free blocks than there are");
    v->checking = true; /* fsck must get this far */
    status = csv_inode_get(v, v->root_directory, CSV_IS_DIRECTORY, &block);
    v->checking = false;
    return status == ERR_INVALID ? csv_corrupt(v, v->root_directory, "the root directory is none") : status;
}

static enum status start(struct csv *v, const struct csv_mount_options *options, uint32_t state)
{
    enum status status = csv_own(v, options, state);
    if (!status)
        status = csv_checkpoint(v);
    if (!status && v->super_good < CSV_SUPER_COPIES)
        status = csv_super_write(v, v->super);
    if (!status)
        status = csv_grow_finish(v);
    if (!status && csv_orphans_finish(v))
        v->unfinished = true; /* one that is damaged, or needs space, does not keep the others' volume away */
    if (!status)
        status = csv_grant_end(v, CSV_NO_GRANT);
    return status ? status : csv_commit(v);
}

static enum status mount(struct csv *v, const struct csv_mount_options *options, char *message)
{
    uint32_t state = 0;
    if (v->disk->sector_bytes != 512 && v->disk->sector_bytes != CSV_BLOCK_BYTES) {
        snprintf(message, CSV_MESSAGE_BYTES, "the disk has sectors of %u bytes: a volume needs 512 or 4096",
                 v->disk->sector_bytes);
        return ERR_UNSUPPORTED;
    }
    enum status status = csv_super_read(v, options->read_only, message);
    if (status)
        return status;
    const char *over = options->read_only ? NULL : csv_overwritten(v);
    if (over) {
        snprintf(message, CSV_MESSAGE_BYTES, "the volume's beginning was overwritten by %s: take the right disk, or, if the "
                 "volume is what shall be kept, `tasuki-csv fsck --repair`", over);
        return ERR_CORRUPT;
    }
    v->transaction_limit = csv_transaction_limit(v->journal_blocks);
    status = csv_mount_record_read(v, &state);
    if (!status)
        status = csv_may_own(v, options, state, message);
    if (!status)
        status = csv_alloc_init(v);
    if (!status)
        status = csv_replay(v, state != 0);
    if (!status)
        status = take_root(v);
    if (!status && !options->read_only)
        status = start(v, options, state);
    return status;
}

enum status csv_mount(struct csv_disk *disk, const struct csv_memory *memory, const struct csv_mount_options *options,
                      struct csv **volume, char *message)
{
    message[0] = 0;
    struct csv *v = csv_volume_new(disk, memory, options);
    if (!v) {
        snprintf(message, CSV_MESSAGE_BYTES, "there is no memory for a volume");
        return ERR_NO_MEMORY;
    }
    enum status status = mount(v, options, message);
    if (status) {
        if (!message[0] && status == ERR_CORRUPT)
            snprintf(message, CSV_MESSAGE_BYTES, "the volume is damaged: %.110s; see what `tasuki-csv fsck` says, and mend it "
                                                 "with `fsck --repair`", v->problem);
        else if (!message[0])
            snprintf(message, CSV_MESSAGE_BYTES, "the volume cannot be mounted: %s%s%.120s", status_name(status),
                     v->problem[0] ? ": " : "", v->problem);
        csv_volume_free(v);
        return status;
    }
    *volume = v;
    return OK;
}

/* Orphans that could not be freed when it was their time. */
static void finish_later(struct csv *v)
{
    if (v->unfinished && !csv_orphans_finish(v))
        v->unfinished = false;
}

enum status csv_unmount(struct csv *v)
{
    if (v->files)
        return ERR_BUSY;
    enum status status = OK;
    if (!v->read_only) {
        finish_later(v);
        status = csv_grant_end(v, CSV_NO_GRANT);
        if (!status)
            status = csv_commit(v);
        if (!status)
            status = csv_flush(v);
        if (!status)
            status = csv_checkpoint(v);
        if (!status)
            status = csv_mount_record_write(v, 0);
    }
    csv_volume_free(v);
    return status;
}

void csv_abandon(struct csv *v)
{
    csv_volume_free(v);
}

void csv_set_time(struct csv *v, int64_t now_ns)
{
    v->now_ns = now_ns;
}

enum status csv_sync(struct csv *v)
{
    if (v->read_only || v->failed)
        return ERR_READ_ONLY;
    finish_later(v);
    bool something = v->changed_count || v->freed.count;
    enum status status = csv_commit(v);
    if (status || something)
        return status;
    v->failed = csv_flush(v); /* after an error nobody knows what was lost, and no later flush tells */
    return v->failed;
}

const char *csv_problem(const struct csv *v)
{
    return v->problem;
}

void csv_statfs(struct csv *v, struct csv_info *info)
{
    struct csv_block *root;
    memset(info, 0, sizeof(*info));
    memcpy(info->uuid, v->uuid, sizeof(info->uuid));
    memcpy(info->label, v->label, sizeof(info->label));
    info->blocks = v->blocks;
    info->generation = v->generation;
    info->journal_blocks = v->journal_blocks;
    info->replayed = v->replayed;
    info->read_only = v->read_only || v->failed;
    if (csv_root_block(v, &root))
        return;
    uint64_t free = le64_get(root->bytes + CSV_RT_FREE) + v->pending_free, reserve = csv_reserve(v);
    info->free_blocks = free > reserve ? free - reserve : 0;
    info->inodes = le64_get(root->bytes + CSV_RT_INODES);
}
