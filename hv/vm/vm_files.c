/* SPDX-License-Identifier: MIT */
/* Files of VMs on volumes. See vm_files.h. */
#include "vm/vm_files.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "volume/volume_file.h"

#define PIECE_BYTES (256 * KIB)
#define LOOKS 64 /* directory entries of one call */

/* What one call is about; the functions below run in the volume's thread. */
struct job {
    const char *path; /* on its volume */
    char directory[VM_PATH_BYTES];
    const char *name, *to;
    char fresh[CSV_NAME_BYTES + 1]; /* the name of what is not in place yet */
    struct csv_stat stat, old;
    uint64_t offset, count, done;
    const void *from;
    void *bytes;
    bool preallocate, quiet, unknown, changed;
};

static enum status look_up(struct csv *csv, const struct job *job, const char *name, uint64_t *parent, uint64_t *inode)
{
    struct csv_entry entry;
    enum status status = csv_walk(csv, job->directory, parent);

    if (status == OK)
        status = csv_lookup(csv, *parent, name, strlen(name), &entry);
    if (status == OK)
        *inode = entry.inode;
    return status;
}

static enum status stat_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t inode;
    enum status status = csv_walk(csv, job->path, &inode);

    return status == OK ? csv_stat(csv, inode, &job->stat) : status;
}

static enum status close_file(struct csv_file *file, enum status status)
{
    enum status closed = csv_close(file);

    return status == OK ? closed : status;
}

static enum status read_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    struct csv_file *file;
    enum status status = stat_here(csv, arg);

    job->changed = status == OK && (job->stat.inode != job->old.inode || job->stat.generation != job->old.generation ||
                                    job->stat.size != job->old.size);
    if (status != OK || job->changed)
        return status;
    status = csv_open(csv, job->stat.inode, &file);
    if (status != OK)
        return status;
    return close_file(file, csv_read(file, job->offset, job->bytes, job->count, &job->done));
}

static enum status unlink_if_there(struct csv *csv, const struct job *job, const char *name)
{
    uint64_t parent, inode;
    enum status status = look_up(csv, job, name, &parent, &inode);

    if (status == OK)
        status = csv_unlink(csv, parent, name, strlen(name));
    return status == ERR_NOT_FOUND ? OK : status;
}

static enum status begin_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t parent, inode;
    enum status status = unlink_if_there(csv, job, job->fresh);

    if (status == OK)
        status = csv_walk(csv, job->directory, &parent);
    return status == OK ? csv_create(csv, parent, job->fresh, strlen(job->fresh), 0600, &inode) : status;
}

static enum status append_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    struct csv_file *file;
    uint64_t parent, inode;
    enum status status = look_up(csv, job, job->fresh, &parent, &inode);

    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    return close_file(file, csv_write(file, job->offset, job->from, job->count));
}

static enum status commit_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t parent, inode;
    enum status status = look_up(csv, job, job->fresh, &parent, &inode);

    if (status == OK)
        status = csv_sync(csv); /* all of it is there before its name says so */
    if (status == OK)
        status = csv_rename(csv, parent, job->fresh, strlen(job->fresh), parent, job->name, strlen(job->name));
    if (status != OK)
        return status;
    status = csv_sync(csv);
    job->unknown = status != OK;
    return status;
}

static enum status discard_here(struct csv *csv, void *arg)
{
    struct job *job = arg;

    return unlink_if_there(csv, job, job->fresh);
}

static enum status replace_here(struct csv *csv, void *arg)
{
    enum status status = begin_here(csv, arg);

    if (status == OK)
        status = append_here(csv, arg);
    if (status == OK)
        return commit_here(csv, arg);
    (void)!discard_here(csv, arg);
    return status;
}

static enum status remove_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t parent, inode;
    struct csv_stat stat;
    enum status status = look_up(csv, job, job->name, &parent, &inode);

    if (status == OK)
        status = csv_stat(csv, inode, &stat);
    if (status == OK && stat.type == CSV_IS_FILE && volume_file_in_use(csv, inode))
        status = ERR_BUSY;
    if (status == OK)
        status = stat.type == CSV_IS_DIRECTORY ? csv_rmdir(csv, parent, job->name, strlen(job->name))
                                               : csv_unlink(csv, parent, job->name, strlen(job->name));
    if (status == ERR_NOT_FOUND)
        return OK;
    return status == OK ? csv_sync(csv) : status;
}

static enum status mkdir_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t parent, inode;
    enum status status = csv_walk(csv, job->directory, &parent);

    if (status == OK)
        status = csv_mkdir(csv, parent, job->name, strlen(job->name), 0755, &inode);
    return status == OK ? csv_sync(csv) : status;
}

static enum status make_disk_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    struct csv_file *file;
    uint64_t parent, inode;
    enum status status = csv_walk(csv, job->directory, &parent);

    if (status == OK)
        status = csv_create(csv, parent, job->name, strlen(job->name), 0600, &inode);
    if (status != OK)
        return status;
    status = csv_open(csv, inode, &file);
    if (status == OK) {
        status = job->preallocate ? csv_preallocate(file, 0, job->count) : OK;
        if (status == OK)
            status = csv_set_size(file, job->count);
        status = close_file(file, status);
    }
    if (status != OK) {
        (void)!csv_unlink(csv, parent, job->name, strlen(job->name));
        return status;
    }
    return csv_sync(csv);
}

static enum status grow_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    struct csv_file *file;
    enum status status = stat_here(csv, arg);

    if (status == OK && volume_file_in_use(csv, job->stat.inode))
        status = ERR_BUSY;
    if (status == OK && job->count < job->stat.size)
        status = ERR_RANGE;
    if (status == OK)
        status = csv_open(csv, job->stat.inode, &file);
    if (status != OK)
        return status;
    status = close_file(file, csv_set_size(file, job->count));
    return status == OK ? csv_sync(csv) : status;
}

static enum status clone_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    struct csv_file *file;
    uint64_t parent, inode;
    enum status status = csv_walk(csv, job->path, &inode);

    if (status == OK && volume_file_in_use(csv, inode) && !job->quiet)
        status = ERR_BUSY;
    if (status == OK)
        status = csv_walk(csv, job->directory, &parent);
    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    uint64_t held = inode;
    volume_file_hold(csv, held);
    status = close_file(file, csv_clone(file, parent, job->name, strlen(job->name), &inode));
    volume_file_release(csv, held);
    return status == OK ? csv_sync(csv) : status;
}

/* A clone of a file beside the job's. */
static enum status clone_beside(struct csv *csv, uint64_t inode, uint64_t parent, const char *name)
{
    struct csv_file *file;
    uint64_t clone;
    enum status status = csv_open(csv, inode, &file);

    return status == OK ? close_file(file, csv_clone(file, parent, name, strlen(name), &clone)) : status;
}

/* job->path: the snapshot; job->name: the disk; job->to: what the disk was is to be called. */
static enum status revert_here(struct csv *csv, void *arg)
{
    struct job *job = arg;
    uint64_t snapshot, parent, disk;
    enum status status = csv_walk(csv, job->path, &snapshot);

    if (status == OK)
        status = look_up(csv, job, job->name, &parent, &disk);
    if (status == OK && (volume_file_in_use(csv, disk) || volume_file_in_use(csv, snapshot)))
        status = ERR_BUSY;
    if (status == OK && job->to)
        status = clone_beside(csv, disk, parent, job->to);
    if (status != OK)
        return status;
    status = unlink_if_there(csv, job, job->fresh);
    if (status == OK)
        status = clone_beside(csv, snapshot, parent, job->fresh);
    if (status == OK)
        return commit_here(csv, arg);
    (void)!unlink_if_there(csv, job, job->fresh);
    if (job->to)
        (void)!unlink_if_there(csv, job, job->to);
    return status;
}

/* ---- Calls ---- */

static enum status say(const char *who, const char *path, enum status status, const char *why, char *text,
                       size_t text_bytes)
{
    const char *cause = status_name(status), *cure = "look at the volume by `csv show`";

    if (status == OK)
        return OK;
    if (why[0]) {
        snprintf(text, text_bytes, "vm %s: %s", who, why);
        return status;
    }
    switch (status) {
    case ERR_NOT_FOUND: cause = "there is no such file", cure = "correct the path, or put the file there"; break;
    case ERR_EXISTS:
        cause = "there is one of that name already", cure = "choose another name, or remove it first";
        break;
    case ERR_BUSY: cause = "a VM has it as a disk", cure = "stop the VM first"; break;
    case ERR_NO_SPACE:
        cause = "the volume is full", cure = "remove what is not needed; `df` shows how much there is";
        break;
    case ERR_READ_ONLY: cause = "the volume takes no changes", cure = "`csv show` says why"; break;
    case ERR_INVALID: cause = "that cannot be done with it", cure = "`stat` shows what it is"; break;
    case ERR_RANGE: cause = "it is larger than that", cure = "`stat` shows how large it is"; break;
    case ERR_NO_MEMORY: cause = "the node has no memory left for it", cure = "stop another VM"; break;
    case ERR_NOT_EMPTY: cause = "the directory is not empty", cure = "remove what is in it first"; break;
    default: break;
    }
    snprintf(text, text_bytes, "vm %s: %s: %s; %s", who, path, cause, cure);
    return status;
}

/* Takes the path apart; the job's directory and name are those of `target`. */
static enum status run(const char *who, const char *path, const char *target, volume_fn *fn, struct job *job,
                       char *text, size_t text_bytes)
{
    const char *volume, *target_volume, *inside;
    size_t volume_bytes, target_bytes;
    char why[VOLUME_TEXT] = "";

    if (!volume_path(path, &volume, &volume_bytes, &job->path) ||
        !volume_path(target, &target_volume, &target_bytes, &inside)) {
        snprintf(text, text_bytes, "vm %s: %s: it is no path on a volume; write " VOLUME_ROOT "VOLUME/PATH", who, path);
        return ERR_INVALID;
    }
    const char *slash = strrchr(inside, '/');
    if (volume_bytes != target_bytes || memcmp(volume, target_volume, volume_bytes)) {
        snprintf(text, text_bytes, "vm %s: %s: it is on another volume; name a place on the same", who, target);
        return ERR_INVALID;
    }
    if (!slash || !slash[1] || (size_t)(slash - inside) >= sizeof job->directory ||
        strlen(slash) + 4 > sizeof job->fresh) {
        snprintf(text, text_bytes, "vm %s: %s: it is no file's path, or too long; write " VOLUME_ROOT "VOLUME/PATH",
                 who, target);
        return ERR_INVALID;
    }
    memcpy(job->directory, inside, (size_t)(slash - inside));
    job->directory[slash - inside] = '\0';
    job->name = slash + 1;
    snprintf(job->fresh, sizeof job->fresh, "%s.new", job->name);
    enum status status = volume_call(volume, volume_bytes, fn, job, why, sizeof why);
    if (status == ERR_NOT_FOUND && why[0])
        status = ERR_INVALID; /* it is the volume that is not there */
    return say(who, target, status, why, text, text_bytes);
}

static enum status run_new(const char *who, const char *path, const char *target, volume_fn *fn, const struct job *with,
                           char *text, size_t text_bytes)
{
    struct job *job = kzalloc(sizeof *job);

    if (!job)
        return say(who, path, ERR_NO_MEMORY, "", text, text_bytes);
    *job = *with;
    enum status status = run(who, path, target, fn, job, text, text_bytes);
    bool unknown = job->unknown;
    kfree(job, sizeof *job);
    return unknown ? ERR_CANCELLED : status;
}

enum status vm_file_stat(const char *who, const char *path, struct csv_stat *stat, char *text, size_t text_bytes)
{
    struct job *job = kzalloc(sizeof *job);

    if (!job)
        return say(who, path, ERR_NO_MEMORY, "", text, text_bytes);
    enum status status = run(who, path, path, stat_here, job, text, text_bytes);
    *stat = job->stat;
    kfree(job, sizeof *job);
    return status;
}

enum status vm_file_read_at(const char *who, const char *path, const struct csv_stat *file, uint64_t offset,
                            void *bytes, uint64_t count, char *text, size_t text_bytes)
{
    struct job *job = kzalloc(sizeof *job);
    enum status status = OK;

    if (!job)
        return say(who, path, ERR_NO_MEMORY, "", text, text_bytes);
    job->old = *file;
    for (uint64_t at = 0; at < count && status == OK; at += job->done) {
        job->offset = offset + at;
        job->bytes = (uint8_t *)bytes + at;
        job->count = MIN(count - at, PIECE_BYTES);
        status = run(who, path, path, read_here, job, text, text_bytes);
        if (status == OK && (job->changed || !job->done)) {
            snprintf(text, text_bytes, "vm %s: %s: somebody changes it; try again", who, path);
            status = ERR_BUSY;
        }
    }
    kfree(job, sizeof *job);
    return status;
}

enum status vm_file_read(const char *who, const char *path, uint64_t most, void **bytes, uint64_t *count, char *text,
                         size_t text_bytes)
{
    struct job *job = kzalloc(sizeof *job);
    uint8_t *to = NULL;
    uint64_t size = 0;

    if (!job)
        return say(who, path, ERR_NO_MEMORY, "", text, text_bytes);
    enum status status = run(who, path, path, stat_here, job, text, text_bytes);
    if (status == OK && job->stat.type != CSV_IS_FILE)
        status = say(who, path, ERR_INVALID, "", text, text_bytes);
    if (status != OK)
        goto out;
    size = job->stat.size;
    if (size > most) {
        snprintf(text, text_bytes, "vm %s: %s: it has %lu bytes, and may have %lu; make it smaller", who, path, size,
                 most);
        status = ERR_RANGE;
        goto out;
    }
    if (!(to = kzalloc(size + 1))) {
        status = say(who, path, ERR_NO_MEMORY, "", text, text_bytes);
        goto out;
    }
    status = vm_file_read_at(who, path, &job->stat, 0, to, size, text, text_bytes);
    if (status != OK)
        kfree(to, size + 1);
    *bytes = to;
    *count = size;
out:
    kfree(job, sizeof *job);
    return status;
}

enum status vm_file_replace(const char *who, const char *path, const void *bytes, size_t count, char *text,
                            size_t text_bytes)
{
    return run_new(who, path, path, replace_here, &(struct job){ .from = bytes, .count = count }, text, text_bytes);
}

enum status vm_file_begin(struct vm_file_writer *w, const char *who, const char *path, char *text, size_t text_bytes)
{
    *w = (struct vm_file_writer){ .who = who, .path = path };
    return run_new(who, path, path, begin_here, &(struct job){ .count = 0 }, text, text_bytes);
}

enum status vm_file_append(struct vm_file_writer *w, const void *bytes, size_t count, char *text, size_t text_bytes)
{
    enum status status = OK;

    for (size_t at = 0, piece; at < count && status == OK; at += piece) {
        piece = MIN(count - at, PIECE_BYTES);
        status = run_new(w->who, w->path, w->path, append_here,
                         &(struct job){ .from = (const uint8_t *)bytes + at, .count = piece, .offset = w->bytes }, text,
                         text_bytes);
        w->bytes += piece;
    }
    return status;
}

enum status vm_file_commit(struct vm_file_writer *w, char *text, size_t text_bytes)
{
    return run_new(w->who, w->path, w->path, commit_here, &(struct job){ .count = 0 }, text, text_bytes);
}

void vm_file_discard(struct vm_file_writer *w)
{
    char text[VOLUME_TEXT + VM_PATH_BYTES];

    (void)!run_new(w->who, w->path, w->path, discard_here, &(struct job){ .count = 0 }, text, sizeof text);
}

enum status vm_file_remove(const char *who, const char *path, char *text, size_t text_bytes)
{
    return run_new(who, path, path, remove_here, &(struct job){ .count = 0 }, text, text_bytes);
}

enum status vm_directory_make(const char *who, const char *path, char *text, size_t text_bytes)
{
    return run_new(who, path, path, mkdir_here, &(struct job){ .count = 0 }, text, text_bytes);
}

enum status vm_disk_make(const char *who, const char *path, uint64_t bytes, bool preallocate, char *text,
                         size_t text_bytes)
{
    return run_new(who, path, path, make_disk_here, &(struct job){ .count = bytes, .preallocate = preallocate }, text,
                   text_bytes);
}

enum status vm_disk_grow(const char *who, const char *path, uint64_t bytes, char *text, size_t text_bytes)
{
    return run_new(who, path, path, grow_here, &(struct job){ .count = bytes }, text, text_bytes);
}

enum status vm_disk_clone(const char *who, const char *path, const char *to, bool quiet, char *text, size_t text_bytes)
{
    return run_new(who, path, to, clone_here, &(struct job){ .quiet = quiet }, text, text_bytes);
}

enum status vm_disk_revert(const char *who, const char *path, const char *snapshot, const char *keep, char *text,
                           size_t text_bytes)
{
    return run_new(who, snapshot, path, revert_here, &(struct job){ .to = keep }, text, text_bytes);
}

/* ---- Looking for VMs ---- */

struct search {
    uint64_t cursor;
    bool found, damaged;
    struct csv_entry entry, conf;
};

static enum status search_here(struct csv *csv, void *arg)
{
    struct search *s = arg;

    for (unsigned i = 0; i < LOOKS; i++) {
        enum status status = csv_readdir(csv, csv_root(csv), &s->cursor, &s->entry);
        if (status != OK)
            return status;
        if (s->entry.type != CSV_IS_DIRECTORY)
            continue;
        status = csv_lookup(csv, s->entry.inode, "vm.conf", 7, &s->conf);
        if (status == OK || status == ERR_CORRUPT) {
            s->found = true;
            s->damaged = status != OK;
            return OK;
        }
        if (status != ERR_NOT_FOUND)
            return status;
    }
    return OK;
}

enum status vm_directory_next(const char *volume, uint64_t *cursor, char *name, bool *damaged, char *text,
                              size_t text_bytes)
{
    struct search *s = kzalloc(sizeof *s);
    enum status status = OK;

    if (!s) {
        snprintf(text, text_bytes, "volume %s: the node has no memory left to look for VMs; stop a VM", volume);
        return ERR_NO_MEMORY;
    }
    s->cursor = *cursor;
    while (status == OK && !s->found)
        status = volume_call(volume, strlen(volume), search_here, s, text, text_bytes);
    *cursor = s->cursor;
    *damaged = s->damaged;
    if (status == OK)
        snprintf(name, CSV_NAME_BYTES + 1, "%s", s->entry.name);
    kfree(s, sizeof *s);
    return status;
}
