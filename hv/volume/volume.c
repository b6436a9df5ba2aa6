/* SPDX-License-Identifier: MIT */
/*
 * The node's volumes and their threads. See volume.h.
 *
 * A thread has a list of calls, as the network service has. After each of them it does what waits at files, tries to mount,
 * and commits what changed: at the latest COMMIT_NS after the change, so that it is durable soon even where nobody asked for
 * it. As often a file's request that is stuck is tried again: what it waits for need not come by this volume's calls.
 *
 * What the shell shows is copied after each call under the volume's lock: looking at a volume whose disk is away must not
 * wait for the disk.
 */
#include "volume/volume.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "volume/volume_private.h"

#define RETRY_NS NS_PER_S            /* between two looks whether the disk is there */
#define COMMIT_NS (5 * NS_PER_S)
#define STOP_NS (5 * NS_PER_S)
#define CACHE_BLOCKS 1024u

struct call {
    volume_fn *fn;                   /* NULL: mount now */
    void *arg;
    bool take_over;                  /* of a mount: whoever has the volume is gone */
    char *text;
    size_t text_bytes;
    enum status status;
    bool done;
    struct call *next;
};

static const char *node;
static struct volume *volumes;

/* ---- Mounting ---- */

static void *take(void *context, size_t bytes)
{
    (void)context;
    return kzalloc(bytes);
}

static void give(void *context, void *memory, size_t bytes)
{
    (void)context;
    kfree(memory, bytes);
}

const struct csv_memory volume_memory = { .alloc = take, .free = give };

static void say(struct volume *v, bool failed, const char *problem)
{
    spin_lock(&v->lock);
    bool news = strcmp(v->problem, problem);
    v->failed = failed;
    v->mounted = v->csv;
    str_copy(v->problem, sizeof v->problem, problem);
    spin_unlock(&v->lock);
    if (news && failed)
        log_error("volume %s: %s", v->name, problem);
}

static void note(struct volume *v)
{
    struct csv_info info = { 0 };

    if (v->csv)
        csv_statfs(v->csv, &info);
    spin_lock(&v->lock);
    if (v->csv)
        v->info = info;
    v->mounted = v->csv;
    spin_unlock(&v->lock);
}

/* The node's name, spread over 16 bytes: the same node may mount what it left mounted. */
static void identity(uint8_t uuid[16])
{
    uint64_t hash = 0xcbf29ce484222325ull;

    for (unsigned half = 0; half < 2; half++) {
        for (const char *c = node; *c; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
        hash = (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9ull;
        memcpy(uuid + half * 8, &hash, 8);
    }
}

static void mount(struct volume *v, bool take_over)
{
    struct csv_mount_options options = { .owner_name = node, .now_ns = (int64_t)time_unix_ns(), .cache_blocks = CACHE_BLOCKS };
    char text[VOLUME_TEXT] = "", message[CSV_MESSAGE_BYTES] = "";

    enum status status = volume_disk_open(&v->disk, v, v->storage, v->name, text, sizeof text);
    if (status != OK) {
        say(v, status == ERR_NOT_FOUND || status == ERR_READ_ONLY, text); /* else it may come, or its user may go */
        return;
    }
    status = volume_disk_reserve(&v->disk, take_over, &options.owner_key, text, sizeof text);
    if (status != OK) {
        volume_disk_close(&v->disk);
        if (status == ERR_BUSY) { /* a stranger's, who may let it go: then it is mounted */
            str_append(text, sizeof text, ". Unmount it there, let that one release it, or, if it is certainly gone, `csv mount "
                       "--take-over`");
            if (strcmp(v->problem, text))
                log_error("volume %s: %s", v->name, text);
        }
        say(v, status == ERR_UNSUPPORTED, text);
        return;
    }
    identity(options.owner_uuid);
    options.take_over = take_over;
    options.discard = v->disk.csv.discard;
    status = csv_mount(&v->disk.csv, &volume_memory, &options, &v->csv, message);
    if (status != OK) {
        v->csv = NULL;
        volume_disk_release(&v->disk);
        volume_disk_close(&v->disk);
        snprintf(text, sizeof text, "%s", message[0] ? message : status_name(status));
        say(v, true, text);
        return;
    }
    say(v, false, "");
    note(v);
    volume_disk_mounted(&v->disk, &v->info);
    log_info("volume %s: mounted from storage %s, generation %lu, %lu transactions replayed", v->name, v->storage,
             v->info.generation, v->info.replayed);
}

/* ---- Calls ---- */

struct volume *volume_find(const char *name, size_t bytes)
{
    struct volume *v = volumes;

    while (v && (strlen(v->name) != bytes || memcmp(v->name, name, bytes)))
        v = v->next;
    return v;
}

struct volume *volume_first(void)
{
    return volumes;
}

static enum status post(struct volume *v, struct call *call)
{
    spin_lock(&v->lock);
    bool taken = !v->ended;
    if (taken) {
        __atomic_store_n(v->last, call, __ATOMIC_RELEASE); /* v->first is looked at without the lock */
        v->last = &call->next;
    }
    spin_unlock(&v->lock);
    if (!taken) {
        snprintf(call->text, call->text_bytes, "volume %s: nobody serves it: the node goes down, or had no memory for it", v->name);
        return ERR_BUSY;
    }
    wake_all(&v->wake);
    wait_event(&v->callers, __atomic_load_n(&call->done, __ATOMIC_ACQUIRE));
    return call->status;
}

static enum status call_volume(const char *name, size_t bytes, struct call *call)
{
    struct volume *v = volume_find(name, bytes);

    call->text[0] = '\0';
    if (v)
        return post(v, call);
    snprintf(call->text, call->text_bytes, "volume %.*s: there is none; `csv list` lists those that there are", (int)bytes,
             name);
    return ERR_NOT_FOUND;
}

enum status volume_call(const char *name, size_t bytes, volume_fn *fn, void *arg, char *text, size_t text_bytes)
{
    struct call call = { .fn = fn, .arg = arg, .text = text, .text_bytes = text_bytes };

    return call_volume(name, bytes, &call);
}

enum status volume_mount(const char *name, bool take_over, char *text, size_t text_bytes)
{
    struct call call = { .take_over = take_over, .text = text, .text_bytes = text_bytes };

    return call_volume(name, strlen(name), &call);
}

static struct call *next_call(struct volume *v)
{
    spin_lock(&v->lock);
    struct call *call = v->first;
    if (call && !(v->first = call->next))
        v->last = &v->first;
    spin_unlock(&v->lock);
    return call;
}

static void not_mounted(const struct volume *v, struct call *call)
{
    call->status = ERR_BUSY;
    snprintf(call->text, call->text_bytes, "volume %s: it is not mounted: %s; `csv mount %s` tries again", v->name,
             v->problem[0] ? v->problem : "its disk is not there yet", v->name);
}

static void serve(struct volume *v, struct call *call)
{
    if (!call->fn && !v->csv)
        mount(v, call->take_over);
    if (!v->csv) {
        not_mounted(v, call);
    } else if (volume_disk_is_fenced(&v->disk)) {
        call->status = ERR_FENCED;
        snprintf(call->text, call->text_bytes, "volume %s: another node has taken it over (`csv list` says who); stop the VMs "
                 "that have disks there", v->name);
    } else if (!call->fn) {
        call->status = OK;
    } else {
        csv_set_time(v->csv, (int64_t)time_unix_ns());
        call->status = call->fn(v->csv, call->arg);
        if (call->status == ERR_CORRUPT)
            snprintf(call->text, call->text_bytes, "volume %s: %s; stop what uses it and run `tasuki-csv fsck --repair` on "
                     "its disk", v->name, csv_problem(v->csv));
        v->calls++;
        v->dirty = true;
        note(v);
        volume_files_retry(v);
    }
    wake_all_set(&v->callers, &call->done); /* *call is the caller's stack, and gone after this */
}

/* ---- The thread ---- */

/* Another node has it now. Files that VMs have open are waited for: until they are closed nothing of the volume may go. */
static bool is_to_be_abandoned(const struct volume *v)
{
    return v->csv && volume_disk_is_fenced(&v->disk) && !v->files;
}

static void abandon(struct volume *v)
{
    char why[STORAGE_TEXT] = "";

    (void)volume_disk_is_lost(&v->disk, why);
    csv_abandon(v->csv);
    v->csv = NULL;
    volume_disk_close(&v->disk);
    say(v, true, why);
    note(v);
}

/* What is under way at files may end, and they are closed; false: something still is. */
static bool files_end(struct volume *v)
{
    uint64_t deadline = time_now_ns() + STOP_NS;

    volume_files_end(v);
    do {
        while (volume_files_work(v))
            ;
    } while (v->files && wait_event_until(&v->wake, volume_files_wait(v), deadline));
    return !v->files;
}

static void unmount(struct volume *v)
{
    if (!v->csv)
        return;
    bool alone = files_end(v);
    if (is_to_be_abandoned(v)) {
        abandon(v);
        return;
    }
    enum status status = alone ? csv_unmount(v->csv) : volume_disk_is_fenced(&v->disk) ? ERR_FENCED : csv_sync(v->csv);
    if (status != OK || !alone)
        log_warning("volume %s: not left in order (%s); the next mount replays its journal", v->name,
                    status == OK ? "a VM has a disk there" : status_name(status));
    if (!alone)
        csv_abandon(v->csv);
    v->csv = NULL;
    volume_disk_release(&v->disk);
    volume_disk_close(&v->disk);
    note(v);
}

/* What changed becomes durable; a failure is not the end: who asks for a change is told. */
static void commit(struct volume *v)
{
    enum status status = volume_files_sync(v);

    if (status != OK && status != ERR_NO_MEMORY) {
        char text[VOLUME_TEXT];
        snprintf(text, sizeof text, "it takes no more changes (%s) %s", status_name(status), csv_problem(v->csv));
        say(v, true, text);
    }
    note(v);
    volume_files_retry(v);
}

static void run(void *arg)
{
    struct volume *v = arg;
    uint64_t retry_ns = 0, commit_ns = TIME_NEVER;

    while (!__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE)) {
        struct call *call = next_call(v);
        if (call)
            serve(v, call);
        if (volume_files_work(v)) {
            note(v);
            thread_yield();
            if (commit_ns != TIME_NEVER && time_now_ns() < commit_ns)
                continue;
        }
        if (is_to_be_abandoned(v)) {
            abandon(v);
            continue;
        }
        uint64_t now = time_now_ns();
        if (v->csv && (v->dirty || v->stuck) && commit_ns == TIME_NEVER)
            commit_ns = now + COMMIT_NS;
        if (!v->csv && !v->failed && now >= retry_ns) {
            mount(v, false);
            retry_ns = now + RETRY_NS;
        }
        if (v->csv && now >= commit_ns) {
            commit_ns = TIME_NEVER;
            v->stuck = false;
            if (v->dirty && !volume_disk_is_fenced(&v->disk)) /* not dirty: a guest's flush was before */
                commit(v);
            else
                volume_files_retry(v);
            continue;
        }
        (void)wait_event_until(&v->wake, __atomic_load_n(&v->first, __ATOMIC_ACQUIRE) || volume_files_wait(v) ||
                                             is_to_be_abandoned(v) || __atomic_load_n(&v->stop, __ATOMIC_ACQUIRE),
                               v->csv ? commit_ns : v->failed ? TIME_NEVER : retry_ns);
    }
    unmount(v);
    spin_lock(&v->lock);
    v->ended = true;
    spin_unlock(&v->lock);
    for (struct call *call; (call = next_call(v)) != NULL;) {
        not_mounted(v, call);
        wake_all_set(&v->callers, &call->done);
    }
    wake_all_set(&v->callers, &v->stopped);
}

struct volume *volume_new(const char *name, const char *storage)
{
    struct volume **last = &volumes, *v = kzalloc(sizeof *v);

    if (!v)
        return NULL;
    v->name = name;
    v->storage = storage;
    v->lock = (struct spinlock)SPINLOCK_INIT("volume");
    v->last = &v->first;
    wait_queue_init(&v->wake, "volume");
    wait_queue_init(&v->callers, "volume callers");
    while (*last)
        last = &(*last)->next;
    __atomic_store_n(last, v, __ATOMIC_RELEASE); /* others go through the list meanwhile */
    if (!thread_create(v->name, thread_pick_cpu(), run, v)) {
        log_error("volume %s: no memory for its thread; give the VMs less", v->name);
        v->failed = v->ended = v->stopped = true;
    }
    return v;
}

void volume_start(const struct config *config)
{
    node = config->node.name ? config->node.name : "node";
    for (uint32_t i = 0; i < config->storage_count; i++) {
        const struct config_storage *s = &config->storages[i];
        if (s->volume && !s->error_count && !volume_new(s->volume, s->name)) {
            log_error("volume %s: no memory for it; give the VMs less", s->volume);
            return;
        }
    }
}

void volume_stop(void)
{
    uint64_t deadline = time_now_ns() + STOP_NS;

    for (struct volume *v = volumes; v; v = v->next) {
        __atomic_store_n(&v->stop, true, __ATOMIC_RELEASE);
        wake_all(&v->wake);
    }
    for (struct volume *v = volumes; v; v = v->next)
        if (!wait_event_until(&v->callers, __atomic_load_n(&v->stopped, __ATOMIC_ACQUIRE), deadline))
            log_warning("volume %s: its disk does not answer; the next mount replays its journal", v->name);
}

/* ---- What there is ---- */

const char *volume_state_name(enum volume_state state)
{
    static const char *const names[] = { [VOLUME_WAITS] = "waits for its disk", [VOLUME_FAILED] = "not mounted",
                                         [VOLUME_MOUNTED] = "mounted", [VOLUME_AWAY] = "its disk is away" };

    return names[state];
}

bool volume_info_get(unsigned i, struct volume_info *info)
{
    struct volume *v = volumes;

    while (v && i--)
        v = v->next;
    if (!v)
        return false;
    spin_lock(&v->lock);
    *info = (struct volume_info){ .name = v->name, .storage = v->storage, .csv = v->info, .calls = v->calls,
                                  .state = v->mounted ? VOLUME_MOUNTED : v->failed ? VOLUME_FAILED : VOLUME_WAITS };
    str_copy(info->problem, sizeof info->problem, v->problem);
    spin_unlock(&v->lock);
    if (info->state == VOLUME_MOUNTED && volume_disk_is_lost(&v->disk, info->problem))
        info->state = VOLUME_AWAY;
    return true;
}

bool volume_path(const char *text, const char **volume, size_t *bytes, const char **path)
{
    size_t root = sizeof VOLUME_ROOT - 1, length = 0;

    if (strncmp(text, VOLUME_ROOT, root))
        return false;
    text += root;
    while (text[length] && text[length] != '/')
        length++;
    *volume = text;
    *bytes = length;
    *path = text + length;
    return length;
}
