/* SPDX-License-Identifier: MIT */
/*
 * Files of volumes as disks: who has one, from open to close. What becomes of their requests is in volume_io.c. See
 * volume_file.h.
 *
 * A file that was closed stays as long as the disk has a piece of a request of it; the volume's thread then closes it.
 */
#include "volume/volume_file.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "kernel/time.h"
#include "volume/volume_private.h"

/* ---- The volume's thread ---- */

/* Closed by its user, and all that was under way is answered. */
static bool bury(struct volume *v)
{
    bool did = false;

    for (struct volume_file **link = &v->files; *link;) {
        struct volume_file *f = *link;
        spin_lock(&f->lock);
        bool over = !f->user && !f->busy;
        spin_unlock(&f->lock);
        if (!over) {
            link = &f->next;
            continue;
        }
        spin_lock(&v->lock);
        *link = f->next;
        spin_unlock(&v->lock);
        if (v->csv)
            (void)!csv_close(f->csv);
        v->dirty = true; /* where it was the last name of a file */
        kfree(f, sizeof *f);
        did = true;
    }
    return did;
}

bool volume_files_work(struct volume *v)
{
    bool did = false;

    for (struct volume_file *f = v->files; f; f = f->next)
        did |= volume_io_work(f);
    return bury(v) || did;
}

bool volume_files_wait(const struct volume *v)
{
    for (const struct volume_file *f = v->files; f; f = f->next)
        if (__atomic_load_n(&f->work, __ATOMIC_ACQUIRE))
            return true;
    return false;
}

void volume_files_retry(struct volume *v)
{
    for (struct volume_file *f = v->files; f; f = f->next)
        volume_file_retry(f);
}

void volume_files_end(struct volume *v)
{
    for (struct volume_file *f = v->files; f; f = f->next) {
        spin_lock(&f->lock);
        f->over = true;
        volume_io_cancel(f);
        volume_io_unlock_and_wake(f);
    }
}

/* ---- The network service's thread ---- */

/* The volume's and the file's lock are held. */
static void tell_away(struct volume_file *f, const char *why)
{
    struct storage_user *user = &f->user->disk;

    if (volume_disk_is_fenced(&f->volume->disk) && user->fenced)
        user->fenced(user, why);
    else
        user->lost(user, why);
}

void volume_files_tell(struct volume *v, bool away, const char *why)
{
    spin_lock(&v->lock);
    for (struct volume_file *f = v->files; f; f = f->next) {
        spin_lock(&f->lock);
        if (f->user && away)
            tell_away(f, why);
        else if (f->user)
            f->user->disk.back(&f->user->disk);
        spin_unlock(&f->lock);
    }
    spin_unlock(&v->lock);
}

/* ---- Users ---- */

struct opening {
    const char *path;
    struct volume *volume;
    struct volume_file_user *user;
    struct volume_file *file;
    uint64_t bytes;
    enum { TAKEN_NOT, TAKEN_BY_USER, TAKEN_BY_DISK } taken;
};

/* The volume's thread. */
static void take_lock(void *context)
{
    struct volume_file *f = context;

    spin_lock(&f->lock);
}

static void give_lock(void *context)
{
    struct volume_file *f = context;

    spin_unlock(&f->lock);
}

static enum status take_up(struct csv *csv, struct opening *o, uint64_t inode, struct volume_file *f)
{
    enum status status = csv_open(csv, inode, &f->csv);
    struct csv_mapping map;

    if (status != OK)
        return status;
    o->bytes = csv_size(f->csv);
    if (o->bytes && (status = csv_map(f->csv, 0, 1, &map)) != OK) { /* from now on the map is in memory */
        (void)!csv_close(f->csv);
        return status;
    }
    f->volume = o->volume;
    f->user = o->user;
    f->lock = (struct spinlock)SPINLOCK_INIT("volume file");
    str_copy(f->path, sizeof f->path, o->path);
    volume_io_init(f);
    csv_map_share(f->csv, &(struct csv_map_lock){ take_lock, give_lock, f });
    return OK;
}

/* Enters it among those who are told of the disk; who is told that it is away is told when it is back. */
static void enter(struct volume *v, struct volume_file *f)
{
    char why[STORAGE_TEXT];

    spin_lock(&v->lock);
    f->next = v->files;
    v->files = f;
    if (volume_disk_is_lost(&v->disk, why))
        tell_away(f, why);
    spin_unlock(&v->lock);
}

static enum status open_here(struct csv *csv, void *arg)
{
    struct opening *o = arg;
    struct volume *v = o->volume;
    uint64_t inode;
    enum status status = csv_walk(csv, o->path, &inode);

    if (status != OK)
        return status;
    for (const struct volume_file *f = v->files; f; f = f->next)
        if (csv_inode_of(f->csv) == inode) {
            o->taken = f->user ? TAKEN_BY_USER : TAKEN_BY_DISK;
            return ERR_BUSY;
        }
    if (!v->buffer && !(v->buffer = kzalloc(VOLUME_BUFFER_BYTES)))
        return ERR_NO_MEMORY;
    struct volume_file *f = kzalloc(sizeof *f);
    if (!f)
        return ERR_NO_MEMORY;
    status = take_up(csv, o, inode, f);
    if (status != OK) {
        kfree(f, sizeof *f);
        return status;
    }
    o->file = f;
    enter(v, f);
    return OK;
}

/* The user's thread. */
enum status volume_file_open(const char *path, struct volume_file_user *user, struct volume_file **file,
                             struct volume_file_info *info, char *text, size_t text_bytes)
{
    struct opening o = { .user = user };
    const char *name;
    size_t bytes;

    if (!volume_path(path, &name, &bytes, &o.path)) {
        snprintf(text, text_bytes, "%s is no path on a volume; write " VOLUME_ROOT "VOLUME/PATH", path);
        return ERR_INVALID;
    }
    o.volume = volume_find(name, bytes);
    enum status status = volume_call(name, bytes, open_here, &o, text, text_bytes);
    if (status == OK && o.bytes < CSV_BLOCK_BYTES) {
        snprintf(text, text_bytes, "%s is too small for a disk; put an image there", path);
        volume_file_close(o.file);
        return ERR_INVALID;
    }
    if (status == OK) {
        *file = o.file;
        info->bytes = ALIGN_DOWN(o.bytes, CSV_BLOCK_BYTES);
        info->block_bytes = o.volume->disk.csv.sector_bytes;
        return OK;
    }
    if (o.taken == TAKEN_BY_USER)
        snprintf(text, text_bytes, "%s is another disk already; stop the VM that has it", path);
    else if (o.taken == TAKEN_BY_DISK)
        snprintf(text, text_bytes, "%s: the disk below still has a write of its last user; try again when it has answered", path);
    else if (!text[0] && status == ERR_NOT_FOUND)
        snprintf(text, text_bytes, "%s does not exist; `ls` shows what there is", path);
    else if (!text[0])
        snprintf(text, text_bytes, "%s cannot be opened (%s)", path, status_name(status));
    return status;
}

struct looking {
    struct volume_file *file;
    struct csv_stat *stat;
    uint64_t bytes;
};

static enum status stat_here(struct csv *csv, void *arg)
{
    struct looking *l = arg;

    return csv_stat(csv, csv_inode_of(l->file->csv), l->stat);
}

static enum status mark_here(struct csv *csv, void *arg)
{
    struct looking *l = arg;
    struct csv_attributes later = { .set_modified = true };
    enum status status = stat_here(csv, arg);

    if (status != OK)
        return status;
    later.modified_ns = MAX((int64_t)time_unix_ns(), l->stat->modified_ns + 1);
    status = csv_set_attributes(csv, l->stat->inode, &later);
    return status == OK ? csv_sync(csv) : status;
}

static enum status look(struct volume_file *file, volume_fn *fn, struct csv_stat *stat, char *text, size_t text_bytes)
{
    struct looking l = { file, stat, 0 };
    const char *volume = file->volume->name;
    enum status status = volume_call(volume, strlen(volume), fn, &l, text, text_bytes);

    if (status != OK && !text[0])
        snprintf(text, text_bytes, "%s: its volume does not take it (%s); `csv show %s` says more", file->path,
                 status_name(status), volume);
    return status;
}

enum status volume_file_stat(struct volume_file *file, struct csv_stat *stat, char *text, size_t text_bytes)
{
    return look(file, stat_here, stat, text, text_bytes);
}

enum status volume_file_mark(struct volume_file *file, char *text, size_t text_bytes)
{
    struct csv_stat stat;

    return look(file, mark_here, &stat, text, text_bytes);
}

/* What is mapped stays where it is, so nothing that is under way has to be waited for. */
static enum status grow_here(struct csv *csv, void *arg)
{
    struct looking *l = arg;
    struct csv_file *file = l->file->csv;

    if (l->bytes < csv_size(file))
        return ERR_RANGE;
    enum status status = csv_set_size(file, l->bytes);
    return status == OK ? csv_sync(csv) : status;
}

enum status volume_file_grow(struct volume_file *file, uint64_t *bytes, char *text, size_t text_bytes)
{
    struct looking l = { file, NULL, *bytes };
    const char *volume = file->volume->name;
    enum status status = volume_call(volume, strlen(volume), grow_here, &l, text, text_bytes);

    if (status == OK)
        *bytes = ALIGN_DOWN(*bytes, CSV_BLOCK_BYTES);
    else if (status == ERR_RANGE)
        snprintf(text, text_bytes, "%s: it is larger than that; `stat` shows how large it is", file->path);
    else if (!text[0])
        snprintf(text, text_bytes, "%s: its volume does not take it (%s); `csv show %s` says more", file->path,
                 status_name(status), volume);
    return status;
}

static struct volume_file *disk_of(const struct csv *csv, uint64_t inode)
{
    for (struct volume *v = volume_first(); v; v = v->next)
        for (struct volume_file *f = v->csv == csv ? v->files : NULL; f; f = f->next)
            if (csv_inode_of(f->csv) == inode)
                return f;
    return NULL;
}

bool volume_file_in_use(const struct csv *csv, uint64_t inode)
{
    return disk_of(csv, inode);
}

void volume_file_hold(const struct csv *csv, uint64_t inode)
{
    struct volume_file *f = disk_of(csv, inode);

    if (f)
        volume_io_hold(f);
}

void volume_file_release(const struct csv *csv, uint64_t inode)
{
    struct volume_file *f = disk_of(csv, inode);

    if (f)
        volume_io_release(f);
}

/* It is logged in, so that the volume's thread mounts at its next look. */
static bool is_there(const char *storage)
{
    struct storage_info *info = kzalloc(sizeof *info);
    bool there = false;

    for (unsigned i = 0; info && !there && storage_info_get(i, info); i++)
        there = !strcmp(info->name, storage) && info->disk.known && !info->user[0];
    kfree(info, sizeof *info);
    return there;
}

bool volume_file_will_come(const char *path)
{
    struct volume_info *info = kzalloc(sizeof *info);
    const char *name, *rest;
    size_t bytes;
    bool comes = false;

    if (info && volume_path(path, &name, &bytes, &rest))
        for (unsigned i = 0; !comes && volume_info_get(i, info); i++)
            comes = info->state == VOLUME_WAITS && strlen(info->name) == bytes && !memcmp(info->name, name, bytes) &&
                    (storage_will_come(info->storage) || is_there(info->storage));
    kfree(info, sizeof *info);
    return comes;
}

void volume_file_submit(struct volume_file *file, struct disk_request *request)
{
    volume_io_submit(file, request);
}

void volume_file_retry(struct volume_file *file)
{
    spin_lock(&file->lock);
    file->stuck = false;
    if (file->waiting)
        volume_io_unlock_and_wake(file);
    else
        spin_unlock(&file->lock);
}

void volume_file_cancel(struct volume_file *file)
{
    spin_lock(&file->lock);
    volume_io_cancel(file);
    spin_unlock(&file->lock);
}

void volume_file_close(struct volume_file *file)
{
    spin_lock(&file->lock);
    volume_io_cancel(file);
    file->user = NULL;
    volume_io_unlock_and_wake(file);
}
