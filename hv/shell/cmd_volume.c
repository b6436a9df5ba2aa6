/* SPDX-License-Identifier: MIT */
/* csv, ls and its like: the node's volumes, and what is on them. */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/time.h"
#include "shell/tables.h"
#include "vm/vm_directory.h"
#include "volume/volume_file.h"

#define TEXT_BYTES (VOLUME_TEXT + 120)
#define BATCH 32 /* entries of a directory that are fetched at once */
#define PATH_BYTES 1024
#define SCRUB_BLOCKS 64 /* of metadata that one call reads */
#define PROGRESS_NS NS_PER_S

/* ---- The volumes ---- */

static void offer_volumes(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    struct volume_info *info = kzalloc(sizeof *info);
    (void)shell;

    for (unsigned i = 0; info && volume_info_get(i, info); i++)
        offer(to, info->name);
    kfree(info, sizeof *info);
}

static void offer_storages(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    struct storage_info *info = kzalloc(sizeof *info);
    (void)shell;

    for (unsigned i = 0; info && storage_info_get(i, info); i++)
        offer(to, info->name);
    kfree(info, sizeof *info);
}

static void show_size(struct out *out, const char *name, uint64_t blocks, bool known)
{
    char whole[32];

    snprintf(whole, sizeof whole, "%s_bytes", name);
    if (known)
        out_bytes(out, name, blocks * CSV_BLOCK_BYTES);
    else
        out_null(out, out->json ? whole : name);
}

static enum status csv_list(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct volume_info *info = kzalloc(sizeof *info);
    (void)call;

    if (!info)
        return ERR_NO_MEMORY;
    out_array_begin(out, "volumes");
    for (unsigned i = 0; volume_info_get(i, info); i++) {
        bool known = info->csv.blocks;
        out_object_begin(out, NULL);
        out_string(out, "volume", info->name);
        out_string(out, "storage", info->storage);
        out_string(out, "state", volume_state_name(info->state));
        show_size(out, "size", info->csv.blocks, known);
        show_size(out, "free", info->csv.free_blocks, known);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "problems");
    for (unsigned i = 0; volume_info_get(i, info); i++) {
        if (!info->problem[0])
            continue;
        out_object_begin(out, NULL);
        out_string(out, "volume", info->name);
        out_string(out, "problem", info->problem);
        out_object_end(out);
    }
    out_array_end(out);
    kfree(info, sizeof *info);
    return OK;
}

static enum status no_volume(struct shell *shell, const char *name)
{
    return out_error(&shell->out, ERR_NOT_FOUND, name, "`csv list` lists those that there are", "there is no such volume");
}

static enum status csv_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct volume_info *info = kzalloc(sizeof *info);
    unsigned i = 0;

    if (!info)
        return ERR_NO_MEMORY;
    while (volume_info_get(i, info) && strcmp(info->name, call->argument[0]))
        i++;
    if (!info->name || strcmp(info->name, call->argument[0])) {
        kfree(info, sizeof *info);
        return no_volume(shell, call->argument[0]);
    }
    bool known = info->csv.blocks;
    out_string(out, "volume", info->name);
    out_string(out, "storage", info->storage);
    out_string(out, "state", volume_state_name(info->state));
    out_string(out, "problem", info->problem[0] ? info->problem : NULL);
    out_string(out, "label", info->csv.label[0] ? info->csv.label : NULL);
    show_size(out, "size", info->csv.blocks, known);
    show_size(out, "free", info->csv.free_blocks, known);
    show_size(out, "journal", info->csv.journal_blocks, known);
    out_uint(out, "inodes", info->csv.inodes);
    out_uint(out, "generation", info->csv.generation);
    out_uint(out, "replayed", info->csv.replayed);
    out_bool(out, "read_only", info->csv.read_only);
    out_uint(out, "calls", info->calls);
    kfree(info, sizeof *info);
    return OK;
}

static enum status csv_mount_command(struct shell *shell, const struct command_call *call)
{
    char text[TEXT_BYTES];
    enum status status = volume_mount(call->argument[0], command_option(call, "--take-over") != NULL, text, sizeof text);

    if (status != OK)
        return out_error_text(&shell->out, status, call->argument[0], text);
    out_message(&shell->out, "volume %s: mounted", call->argument[0]);
    return OK;
}

/* ---- Scrubbing ---- */

struct scrub {
    struct csv_scrub scrub;
    char first[CSV_MESSAGE_BYTES];
};

static void note_problem(void *context, const char *text)
{
    struct scrub *scrub = context;

    if (!scrub->first[0])
        snprintf(scrub->first, sizeof scrub->first, "%s", text);
}

static enum status scrub_here(struct csv *csv, void *arg)
{
    struct scrub *scrub = arg;

    return csv_scrub_step(csv, &scrub->scrub, SCRUB_BLOCKS);
}

/* A line that the next one is written over; not for a program. */
static void show_progress(const struct out *out, const char *name, uint64_t blocks)
{
    char line[CONFIG_MAX_NAME_BYTES + 64];

    if (out->json)
        return;
    snprintf(line, sizeof line, "\r%s: %lu MiB of metadata read\x1b[K\r", name, blocks * CSV_BLOCK_BYTES / MIB);
    sink_puts(out->sink, blocks ? line : "\r\x1b[K");
}

/* A few blocks a call, so that what others ask of the volume goes on between. */
static enum status csv_scrub_command(struct shell *shell, const struct command_call *call)
{
    const char *name = call->argument[0];
    struct out *out = &shell->out;
    struct scrub scrub = { .first = "" };
    char text[TEXT_BYTES];
    uint64_t told_ns = time_now_ns();
    enum status status = OK;

    scrub.scrub.report = note_problem;
    scrub.scrub.context = &scrub;
    while (status == OK && !scrub.scrub.done) {
        status = volume_call(name, strlen(name), scrub_here, &scrub, text, sizeof text);
        if (time_now_ns() - told_ns >= PROGRESS_NS) {
            told_ns = time_now_ns();
            show_progress(out, name, scrub.scrub.blocks);
        }
    }
    show_progress(out, name, 0);
    csv_scrub_end(&scrub.scrub);
    if (status != OK)
        return text[0] ? out_error_text(out, status, name, text) : status;
    if (scrub.scrub.problems > scrub.scrub.mended)
        return out_error(out, ERR_CORRUPT, name, "stop what uses it and run `tasuki-csv fsck` on its disk",
                         "%lu problems in its metadata, %lu of them mended, the first: %s", scrub.scrub.problems,
                         scrub.scrub.mended, scrub.first);
    out_string(out, "volume", name);
    out_uint(out, "problems", scrub.scrub.problems);
    out_uint(out, "mended", scrub.scrub.mended);
    out_bytes(out, "read", scrub.scrub.blocks * CSV_BLOCK_BYTES);
    if (scrub.first[0])
        out_string(out, "first", scrub.first);
    return OK;
}

/* ---- Making and growing ---- */

static enum status csv_add(struct shell *shell, const struct command_call *call)
{
    const char *storage = call->argument[0], *name = command_option(call, "--name");
    char text[TEXT_BYTES];

    if (!strncmp(storage, "storage:", 8))
        storage += 8;
    name = name ? name : storage;
    enum status status = volume_add(storage, name, command_option(call, "--force") != NULL, text, sizeof text);
    if (status != OK)
        return out_error_text(&shell->out, status, storage, text);
    vm_directories_watch();
    out_message(&shell->out, "volume %s: made and mounted as " VOLUME_ROOT "%s; write `volume = %s` into [storage %s], so that the "
                             "node mounts it when it starts", name, name, name, storage);
    return OK;
}

static enum status csv_grow_command(struct shell *shell, const struct command_call *call)
{
    const char *name = call->argument[0];
    char text[TEXT_BYTES];
    uint64_t before, after;
    enum status status = volume_grow(name, &before, &after, text, sizeof text);

    if (status != OK)
        return text[0] ? out_error_text(&shell->out, status, name, text)
                       : out_error(&shell->out, status, name, "`csv show` and `log show` say more", "it did not grow (%s)",
                                   status_name(status));
    out_string(&shell->out, "volume", name);
    out_bytes(&shell->out, "before", before);
    out_bytes(&shell->out, "size", after);
    return OK;
}

/* ---- Paths ---- */

/* A name in a directory, or the root, on the volume of `volume`. */
struct place {
    const char *volume;
    size_t volume_bytes;
    const char *path;
    /* In the volume's thread. */
    uint64_t directory;
    const char *name;
    size_t name_bytes;
};

static bool take_place(struct shell *shell, const char *text, struct place *place)
{
    if (volume_path(text, &place->volume, &place->volume_bytes, &place->path))
        return true;
    (void)out_error(&shell->out, ERR_INVALID, text, "write " VOLUME_ROOT "VOLUME/PATH; `csv list` lists the volumes",
                    "it is no path on a volume");
    return false;
}

/* Parts the last name from its directory. ERR_INVALID: it is the root. */
static enum status find_parent(struct csv *csv, struct place *place)
{
    size_t end = strlen(place->path), begin;
    char parent[PATH_BYTES];

    while (end && place->path[end - 1] == '/')
        end--;
    for (begin = end; begin && place->path[begin - 1] != '/';)
        begin--;
    if (begin == end)
        return ERR_INVALID;
    if (begin >= sizeof parent)
        return ERR_RANGE;
    memcpy(parent, place->path, begin);
    parent[begin] = '\0';
    place->name = place->path + begin;
    place->name_bytes = end - begin;
    return csv_walk(csv, parent, &place->directory);
}

/* What a call has ended with, for the path `object`; `text`: what the volume said of it. */
static enum status tell(struct shell *shell, const char *object, enum status status, char *text)
{
    const char *cure = NULL, *cause = status_name(status);

    if (status == OK || text[0])
        return status == OK ? OK : out_error_text(&shell->out, status, object, text);
    switch (status) {
    case ERR_NOT_FOUND: cause = "there is no such file or directory", cure = "`ls` shows what there is"; break;
    case ERR_BUSY: cause = "a VM has it as a disk", cure = "stop the VM first"; break;
    case ERR_EXISTS: cause = "there is one of that name already", cure = "choose another name, or remove it first"; break;
    case ERR_NOT_EMPTY: cause = "the directory is not empty", cure = "remove what is in it first"; break;
    case ERR_NO_SPACE: cause = "the volume is full", cure = "remove what is not needed; `df` shows how much there is"; break;
    case ERR_READ_ONLY: cause = "the volume takes no changes", cure = "`csv show` says why"; break;
    case ERR_INVALID: cause = "that cannot be done with it", cure = "`stat` shows what it is"; break;
    case ERR_RANGE: cause = "the path is too long", cure = "write a shorter one"; break;
    case ERR_NO_MEMORY: cause = "the node has no memory left for it", cure = "stop another VM"; break;
    default: break;
    }
    return out_error(&shell->out, status, object, cure, "%s", cause);
}

static enum status on_volume(struct shell *shell, const struct place *place, const char *object, volume_fn *fn, void *arg)
{
    char text[TEXT_BYTES];
    enum status status = volume_call(place->volume, place->volume_bytes, fn, arg, text, sizeof text);

    return tell(shell, object, status, text);
}

/* ---- ls and stat ---- */

struct listing {
    const char *path;
    uint64_t directory, cursor;
    unsigned count;
    bool begun, is_file;
    unsigned unreadable, unnamed; /* entries whose inode is damaged, and those of them that `damage` has no room for */
    char damage[256], problem[128]; /* their names and inodes; what is wrong with the first */
    struct { struct csv_entry entry; struct csv_stat stat; bool readable; } item[BATCH];
};

/* An entry whose inode cannot be read: its type is what the directory says, and nothing else is known. */
static void note_unreadable(struct listing *l, const struct csv *csv, const struct csv_entry *entry)
{
    size_t used = strlen(l->damage);
    char text[CSV_NAME_BYTES + 48];
    int bytes = snprintf(text, sizeof text, "%s%s (inode %lu)", used ? ", " : "", entry->name, entry->inode);

    if (!l->unreadable++)
        snprintf(l->problem, sizeof l->problem, "%s", csv_problem(csv));
    if (l->unnamed || used + (size_t)bytes >= sizeof l->damage)
        l->unnamed++;
    else
        memcpy(l->damage + used, text, (size_t)bytes + 1);
}

static void stat_item(struct listing *l, struct csv *csv, enum status *status)
{
    const struct csv_entry *entry = &l->item[l->count].entry;
    struct csv_stat *stat = &l->item[l->count].stat;

    *status = csv_stat(csv, entry->inode, stat);
    l->item[l->count].readable = *status == OK;
    if (*status != ERR_CORRUPT && *status != ERR_INVALID) /* invalid: the inode is free, though an entry names it */
        return;
    *stat = (struct csv_stat){ .inode = entry->inode, .type = entry->type };
    note_unreadable(l, csv, entry);
    *status = OK;
}

static enum status list_here(struct csv *csv, void *arg)
{
    struct listing *l = arg;
    enum status status = OK;

    l->count = 0;
    if (!l->begun) {
        struct csv_stat stat;
        status = csv_walk(csv, l->path, &l->directory);
        if (status == OK)
            status = csv_stat(csv, l->directory, &stat);
        if (status != OK)
            return status;
        if (stat.type != CSV_IS_DIRECTORY) {
            l->is_file = true;
            l->item[l->count].readable = true;
            l->item[l->count++].stat = stat;
            return OK;
        }
        l->begun = true;
    }
    while (status == OK && l->count < BATCH) {
        status = csv_readdir(csv, l->directory, &l->cursor, &l->item[l->count].entry);
        if (status == OK)
            stat_item(l, csv, &status);
        if (status == OK)
            l->count++;
    }
    return status == ERR_NOT_FOUND ? OK : status; /* the directory's end */
}

static void show_entry(struct out *out, const char *name, const struct csv_stat *stat, bool readable)
{
    out_object_begin(out, NULL);
    out_string(out, "name", name);
    out_string(out, "type", stat->type == CSV_IS_DIRECTORY ? "directory" : "file");
    if (stat->type == CSV_IS_DIRECTORY || !readable)
        out_null(out, out->json ? "size_bytes" : "size");
    else
        out_bytes(out, "size", stat->size);
    if (readable) {
        out_bytes(out, "held", stat->blocks * CSV_BLOCK_BYTES);
        out_time(out, "modified", (uint64_t)(stat->modified_ns < 0 ? 0 : stat->modified_ns / 1000000000));
    } else {
        out_null(out, out->json ? "held_bytes" : "held");
        out_null(out, "modified");
    }
    out_object_end(out);
}

/* After the whole list: which of it could not be read, and what helps. */
static enum status tell_unreadable(struct out *out, const char *object, const struct listing *l)
{
    char more[32] = "";

    if (!l->unreadable)
        return OK;
    if (l->unnamed)
        snprintf(more, sizeof more, " and %u more", l->unnamed);
    return out_error(out, ERR_CORRUPT, object,
                     "stop what uses the volume and run `tasuki-csv fsck --repair` on its disk",
                     "%u of its entries cannot be read: %s%s: %s", l->unreadable, l->damage, more, l->problem);
}

/* /ClusterStorage itself: the volumes. */
static bool is_root(const char *text)
{
    size_t bytes = sizeof VOLUME_ROOT - 2;

    return !strncmp(text, VOLUME_ROOT, bytes) && (!text[bytes] || !strcmp(text + bytes, "/"));
}

static enum status ls(struct shell *shell, const struct command_call *call)
{
    const char *text = call->count ? call->argument[0] : VOLUME_ROOT;
    struct out *out = &shell->out;
    struct place place;

    if (is_root(text))
        return csv_list(shell, call);
    if (!take_place(shell, text, &place))
        return ERR_INVALID;
    struct listing *l = kzalloc(sizeof *l);
    if (!l)
        return ERR_NO_MEMORY;
    l->path = place.path;
    enum status status = on_volume(shell, &place, text, list_here, l);
    if (status == OK)
        out_array_begin(out, "entries");
    while (status == OK && l->count) {
        for (unsigned i = 0; i < l->count; i++)
            show_entry(out, l->is_file ? text : l->item[i].entry.name, &l->item[i].stat, l->item[i].readable);
        if (l->is_file || l->count < BATCH)
            break;
        status = on_volume(shell, &place, text, list_here, l);
    }
    if (status == OK) {
        out_array_end(out);
        status = tell_unreadable(out, text, l);
    }
    kfree(l, sizeof *l);
    return status;
}

struct look {
    const char *path;
    struct csv_stat stat;
};

static enum status look_here(struct csv *csv, void *arg)
{
    struct look *look = arg;
    uint64_t inode;
    enum status status = csv_walk(csv, look->path, &inode);

    return status == OK ? csv_stat(csv, inode, &look->stat) : status;
}

static enum status stat_command(struct shell *shell, const struct command_call *call)
{
    const char *text = call->argument[0];
    struct out *out = &shell->out;
    struct place place;
    struct look look;

    if (!take_place(shell, text, &place))
        return ERR_INVALID;
    look.path = place.path;
    enum status status = on_volume(shell, &place, text, look_here, &look);
    if (status != OK)
        return status;
    const struct csv_stat *stat = &look.stat;
    bool directory = stat->type == CSV_IS_DIRECTORY;
    out_string(out, "path", text);
    out_string(out, "type", directory ? "directory" : "file");
    if (directory)
        out_uint(out, "entries", stat->size);
    else
        out_bytes(out, "size", stat->size);
    out_bytes(out, "held", stat->blocks * CSV_BLOCK_BYTES);
    out_uint(out, "inode", stat->inode);
    out_uint(out, "links", stat->links);
    out_stringf(out, "mode", "%03o", stat->mode);
    out_time(out, "modified", (uint64_t)(stat->modified_ns < 0 ? 0 : stat->modified_ns / 1000000000));
    return OK;
}

/* ---- Changes ---- */

struct change {
    struct place from, to;
    bool blame_to; /* it failed for what `to` is */
};

static enum status mkdir_here(struct csv *csv, void *arg)
{
    struct change *c = arg;
    uint64_t inode;
    enum status status = find_parent(csv, &c->from);

    if (status == OK)
        status = csv_mkdir(csv, c->from.directory, c->from.name, c->from.name_bytes, 0755, &inode);
    return status == OK ? csv_sync(csv) : status;
}

static enum status rm_here(struct csv *csv, void *arg)
{
    struct change *c = arg;
    struct csv_entry entry;
    enum status status = find_parent(csv, &c->from);

    if (status == OK)
        status = csv_lookup(csv, c->from.directory, c->from.name, c->from.name_bytes, &entry);
    if (status == OK && volume_file_in_use(csv, entry.inode))
        status = ERR_BUSY;
    if (status == OK)
        status = entry.type == CSV_IS_DIRECTORY ? csv_rmdir(csv, c->from.directory, c->from.name, c->from.name_bytes)
                                                : csv_unlink(csv, c->from.directory, c->from.name, c->from.name_bytes);
    return status == OK ? csv_sync(csv) : status;
}

static enum status mv_here(struct csv *csv, void *arg)
{
    struct change *c = arg;
    struct csv_entry entry;
    enum status status = find_parent(csv, &c->from);

    if (status == OK)
        status = csv_lookup(csv, c->from.directory, c->from.name, c->from.name_bytes, &entry);
    if (status != OK)
        return status;
    c->blame_to = true;
    status = find_parent(csv, &c->to);
    if (status != OK)
        return status;
    c->blame_to = csv_lookup(csv, c->to.directory, c->to.name, c->to.name_bytes, &entry) == OK;
    if (c->blame_to && volume_file_in_use(csv, entry.inode))
        status = ERR_BUSY;
    if (status == OK)
        status = csv_rename(csv, c->from.directory, c->from.name, c->from.name_bytes, c->to.directory, c->to.name,
                            c->to.name_bytes);
    return status == OK ? csv_sync(csv) : status;
}

static enum status cp_here(struct csv *csv, void *arg)
{
    struct change *c = arg;
    struct csv_file *file;
    uint64_t inode;
    enum status status = csv_walk(csv, c->from.path, &inode);

    if (status == OK && volume_file_in_use(csv, inode))
        status = ERR_BUSY;
    if (status == OK)
        status = csv_open(csv, inode, &file);
    if (status != OK)
        return status;
    c->blame_to = true;
    status = find_parent(csv, &c->to);
    if (status == OK)
        status = csv_clone(file, c->to.directory, c->to.name, c->to.name_bytes, &inode);
    enum status closed = csv_close(file);
    status = status == OK ? closed : status;
    return status == OK ? csv_sync(csv) : status;
}

static enum status change_one(struct shell *shell, const struct command_call *call, volume_fn *fn)
{
    struct change change = { .blame_to = false };

    if (!take_place(shell, call->argument[0], &change.from))
        return ERR_INVALID;
    enum status status = on_volume(shell, &change.from, call->argument[0], fn, &change);
    if (status == OK)
        vm_directory_touched(call->argument[0]);
    return status;
}

static enum status change_two(struct shell *shell, const struct command_call *call, volume_fn *fn)
{
    struct change change = { .blame_to = false };
    char text[TEXT_BYTES];

    if (!take_place(shell, call->argument[0], &change.from) || !take_place(shell, call->argument[1], &change.to))
        return ERR_INVALID;
    if (change.from.volume_bytes != change.to.volume_bytes ||
        memcmp(change.from.volume, change.to.volume, change.to.volume_bytes))
        return out_error(&shell->out, ERR_UNSUPPORTED, call->argument[1], "name a place on the same volume",
                         "it is on another volume");
    enum status status = volume_call(change.from.volume, change.from.volume_bytes, fn, &change, text, sizeof text);
    if (status == OK) {
        vm_directory_touched(call->argument[0]);
        vm_directory_touched(call->argument[1]);
    }
    return tell(shell, call->argument[change.blame_to], status, text);
}

static enum status mkdir_command(struct shell *shell, const struct command_call *call)
{
    return change_one(shell, call, mkdir_here);
}

static enum status rm_command(struct shell *shell, const struct command_call *call)
{
    return change_one(shell, call, rm_here);
}

static enum status mv_command(struct shell *shell, const struct command_call *call)
{
    char name[CONFIG_MAX_NAME_BYTES + 1];

    if (vm_directory_is_in_use(call->argument[0], name))
        return out_error(&shell->out, ERR_BUSY, call->argument[0], "stop the VM first", "it is the directory of VM %s, which runs",
                         name);
    return change_two(shell, call, mv_here);
}

static enum status cp_command(struct shell *shell, const struct command_call *call)
{
    return change_two(shell, call, cp_here);
}

/* ---- The tables ---- */

static const struct command_argument volume_argument[] = {
    { .name = "VOLUME", .help = "its name", .names = offer_volumes },
    { .name = NULL },
};
static const struct command_argument storage_argument[] = {
    { .name = "DISK", .help = "a storage, as `disk list` names it", .names = offer_storages },
    { .name = NULL },
};
static const struct command_option add_options[] = {
    { .name = "--name", .value = "VOLUME", .help = "its name; left out: the storage's" },
    { .name = "--force", .help = "even if the disk holds something, which is lost" },
    { .name = NULL },
};
static const struct command_argument ls_argument[] = {
    { .name = "PATH", .help = VOLUME_ROOT "VOLUME/...; left out: the volumes", .optional = true },
    { .name = NULL },
};
static const struct command_argument path_argument[] = {
    { .name = "PATH", .help = VOLUME_ROOT "VOLUME/..." },
    { .name = NULL },
};
static const struct command_argument two_paths[] = {
    { .name = "FROM", .help = VOLUME_ROOT "VOLUME/..." },
    { .name = "TO", .help = "its new path, on the same volume" },
    { .name = NULL },
};

static const struct command_option mount_options[] = {
    { .name = "--take-over", .help = "preempt whoever has it reserved or mounted: only who is certainly gone" },
    { .name = NULL },
};

const struct command volume_commands[] = {
    { .noun = "csv", .verb = "list", .summary = "List the cluster shared volumes", .run = csv_list },
    { .noun = "csv", .verb = "show", .summary = "Show one volume", .arguments = volume_argument, .run = csv_show },
    { .noun = "csv", .verb = "mount", .summary = "Try again to mount a volume", .arguments = volume_argument,
      .options = mount_options, .run = csv_mount_command },
    { .noun = "csv", .verb = "scrub", .summary = "Read and check all metadata of a volume", .arguments = volume_argument,
      .run = csv_scrub_command, .help = "The volume stays in use. A block that is damaged on the disk is written anew from memory "
                                        "where it is whole there." },
    { .noun = "csv", .verb = "add", .summary = "Make a volume on a disk, and mount it", .arguments = storage_argument,
      .options = add_options, .run = csv_add, .help = "The disk must be empty. The node forgets the volume when it restarts, unless "
                                                      "its configuration names it." },
    { .noun = "csv", .verb = "grow", .summary = "Make a volume as large as its disk", .arguments = volume_argument,
      .run = csv_grow_command, .help = "Its files stay in use. The node sees a disk's new size when it logs in to the storage." },
    { .noun = "ls", .summary = "List a directory of a volume", .arguments = ls_argument, .run = ls },
    { .noun = "stat", .summary = "Show a file or directory of a volume", .arguments = path_argument, .run = stat_command },
    { .noun = "df", .summary = "Show how much space the volumes have", .run = csv_list },
    { .noun = "mkdir", .summary = "Make a directory on a volume", .arguments = path_argument, .run = mkdir_command },
    { .noun = "rm", .summary = "Remove a file or an empty directory from a volume", .arguments = path_argument,
      .run = rm_command },
    { .noun = "mv", .summary = "Rename a file or directory of a volume", .arguments = two_paths, .run = mv_command },
    { .noun = "cp", .summary = "Copy a file of a volume", .arguments = two_paths, .run = cp_command,
      .help = "The copy shares the file's blocks until one of the two is written." },
    { .noun = NULL },
};
