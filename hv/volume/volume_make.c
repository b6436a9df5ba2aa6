/* SPDX-License-Identifier: MIT */
/* Volumes that an admin makes in the node, and makes larger. See volume.h. */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/text.h"
#include "kernel/time.h"
#include "volume/volume_private.h"

/* ---- Making ---- */

static void draw_uuid(uint8_t uuid[16])
{
    random_bytes(uuid, 16);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* version 4, variant 1 (RFC 9562, 5.4) */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static enum status format(struct volume_disk *disk, const char *storage, const char *name, char *text, size_t text_bytes)
{
    struct csv_mkfs_options options = { .label = name, .now_ns = (int64_t)time_unix_ns() };

    draw_uuid(options.uuid);
    random_bytes(options.hash_key, sizeof options.hash_key);
    enum status status = csv_mkfs(&disk->csv, &volume_memory, &options);
    if (status == OK)
        status = disk->csv.flush(&disk->csv);
    if (status == ERR_RANGE)
        snprintf(text, text_bytes, "storage %s: its disk has %lu MiB; a volume needs 64 MiB to 64 TiB", storage,
                 disk->csv.bytes / MIB);
    else if (status != OK)
        snprintf(text, text_bytes, "storage %s: no volume was made (%s); `log show` has more", storage, status_name(status));
    return status;
}

static enum status make(struct volume_disk *disk, const char *storage, const char *name, bool force, char *text,
                        size_t text_bytes)
{
    const char *what = NULL;
    enum status status = force ? OK : csv_content(&disk->csv, &volume_memory, &what);

    if (status != OK) {
        snprintf(text, text_bytes, "storage %s: its disk cannot be read (%s); `disk list` shows its state", storage,
                 status_name(status));
        return status;
    }
    if (what) {
        snprintf(text, text_bytes, "storage %s: its disk holds %s; if that may be lost, `csv add %s --force`", storage, what,
                 storage);
        return ERR_EXISTS;
    }
    return format(disk, storage, name, text, text_bytes);
}

/* With a volume of its own, which nobody else knows, since the disk belongs to one. */
static enum status make_on(const char *storage, const char *name, bool force, char *text, size_t text_bytes)
{
    struct volume *v = kzalloc(sizeof *v);
    uint64_t key;

    if (!v) {
        snprintf(text, text_bytes, "volume %s: the node has no memory left; stop another VM", name);
        return ERR_NO_MEMORY;
    }
    v->lock = (struct spinlock)SPINLOCK_INIT("volume");
    wait_queue_init(&v->wake, "volume");
    enum status status = volume_disk_open(&v->disk, v, storage, name, text, text_bytes);
    if (status != OK) {
        kfree(v, sizeof *v);
        return status;
    }
    status = volume_disk_reserve(&v->disk, false, &key, text, text_bytes); /* before the first write */
    if (status == OK) {
        status = make(&v->disk, storage, name, force, text, text_bytes);
        volume_disk_release(&v->disk);
    }
    volume_disk_close(&v->disk);
    kfree(v, sizeof *v);
    return status;
}

/* ---- Adding ---- */

static const struct volume *on_storage(const char *storage)
{
    const struct volume *v = volume_first();

    while (v && strcmp(v->storage, storage))
        v = v->next;
    return v;
}

static enum status may_add(const char *storage, const char *name, char *text, size_t text_bytes)
{
    const struct volume *same = volume_find(name, strlen(name)), *there = on_storage(storage);

    if (!config_name_ok(name)) {
        snprintf(text, text_bytes, "%s cannot be a volume's name: write up to 63 letters, digits, '.', '_' and '-', a letter or "
                                   "digit first", name);
        return ERR_INVALID;
    }
    if (same && same != there) {
        snprintf(text, text_bytes, "volume %s: there is one of that name, on storage %s; choose another by --name", name,
                 same->storage);
        return ERR_EXISTS;
    }
    if (there && there != same) {
        snprintf(text, text_bytes, "storage %s: it is to hold volume %s; `csv add %s --name %s`", storage, there->name, storage,
                 there->name);
        return ERR_EXISTS;
    }
    if (there && there->mounted) {
        snprintf(text, text_bytes, "storage %s: it holds volume %s, which is mounted; `csv show %s` shows it", storage, name, name);
        return ERR_EXISTS;
    }
    return OK;
}

/* "NAME\0STORAGE\0", for as long as there is the node. */
static struct volume *new_with_names(const char *name, const char *storage)
{
    size_t name_bytes = strlen(name) + 1, bytes = name_bytes + strlen(storage) + 1;
    char *names = kzalloc(bytes);

    if (!names)
        return NULL;
    memcpy(names, name, name_bytes);
    memcpy(names + name_bytes, storage, bytes - name_bytes);
    struct volume *v = volume_new(names, names + name_bytes);
    if (!v)
        kfree(names, bytes);
    return v;
}

enum status volume_add(const char *storage, const char *name, bool force, char *text, size_t text_bytes)
{
    enum status status = may_add(storage, name, text, text_bytes);

    if (status == OK)
        status = make_on(storage, name, force, text, text_bytes);
    if (status != OK)
        return status;
    log_info("volume %s: made on storage %s", name, storage);
    if (!volume_find(name, strlen(name)) && !new_with_names(name, storage)) {
        snprintf(text, text_bytes, "volume %s: it was made, but the node has no memory for it; stop another VM", name);
        return ERR_NO_MEMORY;
    }
    return volume_mount(name, false, text, text_bytes);
}

/* ---- Growing ---- */

struct growing {
    struct volume *volume;
    uint64_t before, after;
};

static enum status grow_here(struct csv *csv, void *arg)
{
    struct growing *g = arg;
    struct csv_info info;

    csv_statfs(csv, &info);
    g->before = info.blocks * CSV_BLOCK_BYTES;
    volume_disk_measure(&g->volume->disk, g->volume->storage);
    enum status status = csv_grow(csv);
    csv_statfs(csv, &info);
    g->after = info.blocks * CSV_BLOCK_BYTES;
    return status;
}

enum status volume_grow(const char *name, uint64_t *before, uint64_t *after, char *text, size_t text_bytes)
{
    struct growing growing = { .volume = volume_find(name, strlen(name)) };
    enum status status = volume_call(name, strlen(name), grow_here, &growing, text, text_bytes);

    *before = growing.before;
    *after = growing.after;
    return status;
}
