/* SPDX-License-Identifier: MIT */
/*
 * Files of volumes as disks. See volume_file.h.
 *
 * Requests come from the user's threads into the file's queue and are taken by the volume's thread, in order. One that
 * touches only what is written is sent on in pieces, one for each stretch of disk, the next when the one before it is
 * answered; any number of requests is under way so. All others wait until nothing of the file is under way, since the
 * volume's core wants that before a map changes, and are carried out through a buffer, by csv_write() and csv_punch().
 *
 * A flush that finds no change of the map since the last one is the disk's flush; else it is csv_sync(), which puts
 * the disk's flush before the commit.
 *
 * The requester's memory is touched under the file's lock and only while the request is still his: volume_file_cancel()
 * takes all requests away at once, whatever the disk does. What is under way then ends without him, and the file is
 * closed when the last piece has been answered.
 */
#include "volume/volume_file.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "kernel/time.h"
#include "volume/volume_private.h"

#define REQUESTS 64u
#define BUFFER_BYTES (128u * 1024)
#define ZERO_BYTES 4096u

struct file_io {
    struct disk_request piece;
    struct disk_request *whole;  /* NULL: cancelled; the file's lock */
    struct volume_file *file;
    uint64_t offset, bytes, at;  /* of the whole, kept for when it is gone; how much of it is done */
    enum disk_op op;
    bool busy, again;            /* again: the next piece is to be sent */
};

struct volume_file {
    struct volume *volume;
    struct csv_file *csv;
    struct storage_user *user;   /* NULL: closed */
    struct spinlock lock;
    struct disk_request *first, **last;
    struct disk_request *alone;  /* carried out by the thread; NULL: none, or cancelled meanwhile */
    unsigned under_way;
    bool work;                   /* something for the thread */
    bool changed;                /* the map has changes that are not durable; the thread's */
    uint8_t *buffer;
    struct file_io io[REQUESTS];
    struct volume_file *next;
};

static const uint8_t zeroes[ZERO_BYTES];

/* Whoever calls holds the file: a request of his is under way. */
static void wake(struct volume_file *f)
{
    __atomic_store_n(&f->work, true, __ATOMIC_RELEASE);
    wake_all(&f->volume->wake);
}

/* The same after the last word to a file, which may be gone as soon as it is unlocked. */
static void unlock_and_wake(struct volume_file *f)
{
    struct volume *v = f->volume;

    __atomic_store_n(&f->work, true, __ATOMIC_RELEASE);
    spin_unlock(&f->lock);
    wake_all(&v->wake);
}

/* ---- Pieces ---- */

/* Ends a request that is under way, if it is still somebody's. */
static void finish(struct file_io *io, enum status status)
{
    struct volume_file *f = io->file;

    spin_lock(&f->lock);
    struct disk_request *whole = io->whole;
    io->whole = NULL;
    io->busy = io->again = false;
    f->under_way--;
    if (whole)
        whole->done(whole, status);
    unlock_and_wake(f);
}

static bool get(struct disk_request *piece, uint64_t at, void *bytes, uint32_t count)
{
    struct file_io *io = piece->owner;

    spin_lock(&io->file->lock);
    bool ok = io->whole && io->whole->get(io->whole, io->at + at, bytes, count);
    spin_unlock(&io->file->lock);
    return ok;
}

static bool put(struct disk_request *piece, uint64_t at, const void *bytes, uint32_t count)
{
    struct file_io *io = piece->owner;

    spin_lock(&io->file->lock);
    bool ok = io->whole && io->whole->put(io->whole, io->at + at, bytes, count);
    spin_unlock(&io->file->lock);
    return ok;
}

static void piece_done(struct disk_request *piece, enum status status)
{
    struct file_io *io = piece->owner;

    io->at += piece->bytes;
    if (status != OK || io->at == io->bytes) {
        finish(io, status);
        return;
    }
    __atomic_store_n(&io->again, true, __ATOMIC_RELEASE);
    wake(io->file);
}

static void send(struct file_io *io, uint64_t disk_offset, uint64_t bytes, bool fua)
{
    io->piece = (struct disk_request){ .op = io->op, .fua = fua, .offset = disk_offset, .bytes = bytes, .get = get, .put = put,
                                       .done = piece_done, .owner = io };
    storage_submit(io->file->volume->disk.storage, &io->piece);
}

static bool give_zeroes(struct file_io *io, uint64_t bytes)
{
    bool ok = true;

    spin_lock(&io->file->lock);
    for (uint64_t done = 0, part; ok && done < bytes; done += part) {
        part = MIN(bytes - done, (uint64_t)ZERO_BYTES);
        ok = io->whole && io->whole->put(io->whole, io->at + done, zeroes, (uint32_t)part);
    }
    spin_unlock(&io->file->lock);
    io->at += bytes;
    return ok;
}

/* Sends the next piece, or ends the request. */
static void go_on(struct file_io *io)
{
    struct csv_mapping map;

    io->again = false;
    while (io->at < io->bytes) {
        enum status status = csv_map(io->file->csv, io->offset + io->at, io->bytes - io->at, &map);
        if (status != OK) {
            finish(io, status);
            return;
        }
        if (map.kind == CSV_MAP_WRITTEN || (map.kind == CSV_MAP_SHARED && io->op == DISK_READ)) {
            send(io, map.disk_offset, map.bytes, io->op == DISK_WRITE && io->whole && io->whole->fua);
            return;
        }
        if (!give_zeroes(io, map.bytes)) {
            finish(io, ERR_IO);
            return;
        }
    }
    finish(io, OK);
}

/* ---- Requests ---- */

/* Whether it leaves the map as it is. */
static bool in_place(struct volume_file *f, const struct disk_request *r)
{
    struct csv_mapping map;

    if (r->op == DISK_READ)
        return true;
    if (r->op != DISK_WRITE)
        return false;
    for (uint64_t at = 0; at < r->bytes; at += map.bytes)
        if (csv_map(f->csv, r->offset + at, r->bytes - at, &map) != OK || map.kind != CSV_MAP_WRITTEN)
            return false;
    return true;
}

static enum status write_through_buffer(struct volume_file *f, uint64_t offset, uint64_t bytes)
{
    enum status status = OK;

    for (uint64_t at = 0, part; at < bytes && status == OK; at += part) {
        part = MIN(bytes - at, (uint64_t)BUFFER_BYTES);
        spin_lock(&f->lock);
        bool ok = f->alone && f->alone->get(f->alone, at, f->buffer, (uint32_t)part);
        spin_unlock(&f->lock);
        status = ok ? csv_write(f->csv, offset + at, f->buffer, part) : ERR_CANCELLED;
    }
    return status;
}

/* Nothing else of this file is under way. */
static void carry_out(struct volume_file *f, struct disk_request *r)
{
    enum disk_op op = r->op;
    uint64_t offset = r->offset, bytes = r->bytes;
    bool fua = r->fua;
    enum status status = OK;

    csv_set_time(f->volume->csv, (int64_t)time_unix_ns());
    if (op == DISK_WRITE)
        status = write_through_buffer(f, offset, bytes);
    else if (op == DISK_DISCARD || op == DISK_WRITE_ZEROES)
        status = csv_punch(f->csv, offset, bytes);
    f->changed |= op != DISK_FLUSH;
    if (status == OK && (op == DISK_FLUSH || fua)) {
        status = f->changed ? csv_sync(f->volume->csv) : f->volume->disk.csv.flush(&f->volume->disk.csv);
        f->changed &= status != OK;
    }
    spin_lock(&f->lock);
    r = f->alone;
    f->alone = NULL;
    if (r)
        r->done(r, status);
    spin_unlock(&f->lock);
}

static struct file_io *free_io(struct volume_file *f)
{
    for (unsigned i = 0; i < REQUESTS; i++)
        if (!f->io[i].busy)
            return &f->io[i];
    return NULL;
}

/* Takes the first request, if it can be begun now. False: there is none, or it has to wait. */
static bool begin(struct volume_file *f)
{
    struct file_io *io = free_io(f);

    spin_lock(&f->lock);
    struct disk_request *r = f->first;
    bool place = r && f->volume->csv && in_place(f, r);
    if (!r || (place ? !io : f->under_way != 0)) {
        spin_unlock(&f->lock);
        return false;
    }
    if (!(f->first = r->next))
        f->last = &f->first;
    if (!f->volume->csv) {
        r->done(r, ERR_IO);
        spin_unlock(&f->lock);
        return true;
    }
    if (!place) {
        f->alone = r;
        spin_unlock(&f->lock);
        carry_out(f, r);
        return true;
    }
    f->under_way++;
    io->whole = r;
    io->file = f;
    io->op = r->op;
    io->offset = r->offset;
    io->bytes = r->bytes;
    io->at = 0;
    io->busy = true;
    spin_unlock(&f->lock);
    go_on(io);
    return true;
}

static bool work(struct volume_file *f)
{
    bool did = false;

    if (!__atomic_exchange_n(&f->work, false, __ATOMIC_ACQUIRE))
        return false;
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (f->io[i].busy && __atomic_load_n(&f->io[i].again, __ATOMIC_ACQUIRE)) {
            go_on(&f->io[i]);
            did = true;
        }
    }
    while (begin(f))
        did = true;
    return did;
}

/* ---- The volume's thread ---- */

static void free_file(struct volume_file *f)
{
    kfree(f->buffer, BUFFER_BYTES);
    kfree(f, sizeof *f);
}

/* Closed by its user, and all that was under way is answered. */
static bool bury(struct volume *v)
{
    bool did = false;

    for (struct volume_file **link = &v->files; *link;) {
        struct volume_file *f = *link;
        spin_lock(&f->lock);
        bool over = !f->user && !f->under_way && !f->alone;
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
        free_file(f);
        did = true;
    }
    return did;
}

bool volume_files_work(struct volume *v)
{
    bool did = false;

    for (struct volume_file *f = v->files; f; f = f->next)
        did |= work(f);
    return bury(v) || did;
}

bool volume_files_wait(const struct volume *v)
{
    for (const struct volume_file *f = v->files; f; f = f->next)
        if (__atomic_load_n(&f->work, __ATOMIC_ACQUIRE))
            return true;
    return false;
}

void volume_files_tell(struct volume *v, bool away, const char *why)
{
    spin_lock(&v->lock);
    for (struct volume_file *f = v->files; f; f = f->next) {
        spin_lock(&f->lock);
        if (f->user && away)
            (volume_disk_is_fenced(&v->disk) && f->user->fenced ? f->user->fenced : f->user->lost)(f->user, why);
        else if (f->user)
            f->user->back(f->user);
        spin_unlock(&f->lock);
    }
    spin_unlock(&v->lock);
}

/* ---- Users ---- */

struct opening {
    const char *path;
    struct volume *volume;
    struct storage_user *user;
    struct volume_file *file;
    uint64_t bytes;
    bool taken;
};

static enum status open_here(struct csv *csv, void *arg)
{
    struct opening *o = arg;
    struct volume_file *f;
    uint64_t inode;
    enum status status = csv_walk(csv, o->path, &inode);

    if (status != OK)
        return status;
    for (f = o->volume->files; f; f = f->next)
        if (csv_inode_of(f->csv) == inode) {
            o->taken = true;
            return ERR_BUSY;
        }
    f = kzalloc(sizeof *f);
    if (!f || !(f->buffer = kzalloc(BUFFER_BYTES)) || (status = csv_open(csv, inode, &f->csv)) != OK) {
        if (f)
            free_file(f);
        return status == OK ? ERR_NO_MEMORY : status;
    }
    o->bytes = csv_size(f->csv);
    struct csv_mapping map; /* from now on the map is in memory, and nobody waits for it under a lock */
    if (o->bytes && (status = csv_map(f->csv, 0, 1, &map)) != OK) {
        (void)!csv_close(f->csv);
        free_file(f);
        return status;
    }
    f->volume = o->volume;
    f->user = o->user;
    f->lock = (struct spinlock)SPINLOCK_INIT("volume file");
    f->last = &f->first;
    o->file = f;
    spin_lock(&o->volume->lock);
    f->next = o->volume->files;
    o->volume->files = f;
    spin_unlock(&o->volume->lock);
    return OK;
}

enum status volume_file_open(const char *path, struct storage_user *user, struct volume_file **file,
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
    if (o.taken)
        snprintf(text, text_bytes, "%s is another disk already; stop the VM that has it", path);
    else if (!text[0] && status == ERR_NOT_FOUND)
        snprintf(text, text_bytes, "%s does not exist; `ls` shows what there is", path);
    else if (!text[0])
        snprintf(text, text_bytes, "%s cannot be opened (%s)", path, status_name(status));
    return status;
}

bool volume_file_in_use(const struct csv *csv, uint64_t inode)
{
    for (const struct volume *v = volume_first(); v; v = v->next)
        for (const struct volume_file *f = v->csv == csv ? v->files : NULL; f; f = f->next)
            if (csv_inode_of(f->csv) == inode)
                return true;
    return false;
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
    request->next = NULL;
    spin_lock(&file->lock);
    *file->last = request;
    file->last = &request->next;
    spin_unlock(&file->lock);
    wake(file);
}

void volume_file_cancel(struct volume_file *file)
{
    spin_lock(&file->lock);
    for (struct disk_request *r = file->first, *next; r; r = next) {
        next = r->next;
        r->done(r, ERR_CANCELLED);
    }
    file->first = NULL;
    file->last = &file->first;
    if (file->alone)
        file->alone->done(file->alone, ERR_CANCELLED);
    file->alone = NULL;
    for (unsigned i = 0; i < REQUESTS; i++) {
        struct file_io *io = &file->io[i];
        if (io->busy && io->whole)
            io->whole->done(io->whole, ERR_CANCELLED);
        io->whole = NULL;
    }
    spin_unlock(&file->lock);
}

void volume_file_close(struct volume_file *file)
{
    volume_file_cancel(file);
    spin_lock(&file->lock);
    file->user = NULL;
    unlock_and_wake(file);
}
