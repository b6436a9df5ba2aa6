/* SPDX-License-Identifier: MIT */
/*
 * Changes to VMs on volumes: making one, its vm.conf, its disks. What changes one that there is runs in its own thread,
 * so that nothing else is done to it meanwhile.
 *
 * A vm.conf is read, changed as text, parsed again, and only then written: a change that would make it worse is refused
 * with the parser's own words.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "vm/config_vm.h"
#include "vm/machine.h"
#include "vm/node.h"
#include "vm/save.h"
#include "vm/vm_directory_private.h"

#define SECTOR_BYTES 512u

static enum status no_memory(const char *name, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "vm %s: the node has no memory left to change its vm.conf; stop another VM", name);
    return ERR_NO_MEMORY;
}

/* The parser's words are "CAUSE: CURE", an order's "CAUSE; CURE". */
static void part_cure(char *words)
{
    char *last = NULL;

    for (char *at = words; (at = strstr(at, ": ")); at += 2)
        last = at;
    if (last)
        *last = ';';
}

/* ---- The text ---- */

/* Two buffers, between which the text goes with each change. */
struct draft {
    char *text, *other;
    size_t bytes;
};

static bool draft_make(struct draft *d)
{
    *d = (struct draft){ .text = kzalloc(VM_CONF_MAX_BYTES), .other = kzalloc(VM_CONF_MAX_BYTES) };
    return d->text && d->other;
}

static void draft_free(struct draft *d)
{
    kfree(d->text, VM_CONF_MAX_BYTES);
    kfree(d->other, VM_CONF_MAX_BYTES);
}

static enum status draft_change(struct draft *d, const char *name, const struct config_change *change, char *text,
                                size_t text_bytes)
{
    size_t bytes;
    enum status status = config_edit(d->text, d->bytes, change, d->other, VM_CONF_MAX_BYTES, &bytes);

    if (status == ERR_NOT_FOUND)
        snprintf(text, text_bytes, "vm %s: its vm.conf has no section [vm %s]; add it", name, name);
    else if (status == ERR_INVALID)
        snprintf(text, text_bytes,
                 "vm %s: %s: the value cannot stand on a line; leave out control characters, and a # behind a blank",
                 name, change->key);
    else if (status != OK)
        snprintf(text, text_bytes, "vm %s: its vm.conf would be larger than %lu KiB; make it smaller", name,
                 VM_CONF_MAX_BYTES / KIB);
    if (status != OK)
        return status;
    char *old = d->text;
    d->text = d->other;
    d->other = old;
    d->bytes = bytes;
    return OK;
}

static bool has(const struct config *config, const char *text)
{
    for (uint32_t i = 0; i < config->diagnostic_count; i++)
        if (!strcmp(config->diagnostics[i].text, text))
            return true;
    return false;
}

/* What is wrong with it that was not before, in a change's words; false: nothing. */
static bool is_worse(const struct config *before, const struct config *after, char *words, size_t bytes)
{
    for (uint32_t i = 0; i < after->diagnostic_count; i++) {
        const struct config_diagnostic *d = &after->diagnostics[i];
        if (d->severity != CONFIG_ERROR || has(before, d->text))
            continue;
        snprintf(words, bytes, "line %u, column %u: %s", d->line, d->column, d->text);
        part_cure(words);
        return true;
    }
    return false;
}

/* Whether the parser found a value for the key. */
static bool is_read(const struct config *config, const char *key)
{
    struct message m = { NULL, 0 };
    enum config_vm_key index = config_vm_find_key(key, strlen(key), &m);

    return config->vm_count && index != CONFIG_VM_KEYS && config->vms[0].key_line[index];
}

/* ---- vm set ---- */

struct setting {
    const struct config_change *change;
    bool take_over;
};

static enum status not_on_volume(const struct vm *vm, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes,
             "vm %s: it is not on a volume, so nothing of it can be changed here; change its section of tasuki.conf "
             "and restart the node",
             vm->name);
    return ERR_UNSUPPORTED;
}

/* What may not be changed, or not now. */
static enum status check_set(const struct vm *vm, const struct setting *s, char *text, size_t text_bytes)
{
    bool owner = !strcmp(s->change->key, "owner"), start = !strcmp(s->change->key, "start");

    if (!vm->config.volume)
        return not_on_volume(vm, text, text_bytes);
    if (!strcmp(s->change->key, "uuid") && (s->change->count || vm->state != VM_STOPPED)) {
        snprintf(text, text_bytes,
                 "vm %s: its uuid is what it is known by, and is not chosen; --default gives one that is stopped another",
                 vm->name);
        return ERR_UNSUPPORTED;
    }
    if (owner && vm->built) {
        snprintf(text, text_bytes, "vm %s: it is %s here; stop or save it before another node gets it", vm->name,
                 vm_state_name(vm->state));
        return ERR_BUSY;
    }
    if (vm->state == VM_SAVED && !owner && !start) {
        snprintf(text, text_bytes,
                 "vm %s: it is saved, and goes on only as it was; `vm restore %s` first, or drop the state by `vm stop "
                 "%s --hard`",
                 vm->name, vm->name, vm->name);
        return ERR_BUSY;
    }
    return owner && s->take_over ? OK : vm_directory_owned(vm, text, text_bytes);
}

/* Each value by itself, for words that name it alone. */
static enum status check_values(const struct vm *vm, const struct config_change *change, char *text, size_t text_bytes)
{
    char reason[VM_TEXT_BYTES / 2] = "";
    struct config_vm scratch;

    config_vm_defaults(&scratch, vm->name);
    struct message m = { reason, sizeof reason };
    enum config_vm_key key = config_vm_find_key(change->key, strlen(change->key), &m);
    enum status status = key == CONFIG_VM_KEYS ? ERR_NOT_FOUND : OK;
    if (status == OK && change->count > 1 && !config_vm_repeatable(key)) {
        snprintf(reason, sizeof reason, "it takes one value: put quotes around one with blanks");
        status = ERR_INVALID;
    }
    for (unsigned i = 0; i < change->count && status == OK; i++)
        status = config_vm_set(&scratch, change->key, change->values[i], reason, sizeof reason);
    part_cure(reason);
    if (status != OK)
        snprintf(text, text_bytes, "vm %s: %s: %s", vm->name, change->key, reason);
    return status;
}

static enum status write_change(struct vm *vm, const struct config_change *change, struct draft *d, char *text,
                                size_t text_bytes)
{
    char path[VM_PATH_BYTES], problem[VM_TEXT_BYTES];
    uint64_t count;
    void *file;

    vm_directory_path(vm->config.volume, vm->name, "vm.conf", path);
    enum status status = vm_file_read(vm->name, path, VM_CONF_MAX_BYTES, &file, &count, text, text_bytes);
    if (status != OK)
        return status;
    memcpy(d->text, file, count);
    d->bytes = count;
    kfree(file, count + 1);
    struct vm_conf *before = vm_conf_parse(vm->name, d->text, d->bytes), *after = NULL;
    status = draft_change(d, vm->name, change, text, text_bytes);
    if (status == OK)
        after = vm_conf_parse(vm->name, d->text, d->bytes);
    if (status == OK && (!before || !after)) {
        status = no_memory(vm->name, text, text_bytes);
    } else if (status == OK && is_worse(&before->config, &after->config, problem, sizeof problem)) {
        snprintf(text, text_bytes, "vm %s: nothing was changed, since its vm.conf would be wrong in %s", vm->name,
                 problem);
        status = ERR_INVALID;
    }
    if (status == OK && change->count && !is_read(&after->config, change->key)) {
        snprintf(text, text_bytes,
                 "vm %s: its vm.conf is in such disorder that %s would not be read from it; correct the "
                 "file first",
                 vm->name, change->key);
        status = ERR_INVALID;
    }
    vm_conf_free(before);
    vm_conf_free(after);
    return status == OK ? vm_file_replace(vm->name, path, d->text, d->bytes, text, text_bytes) : status;
}

/* Writes it, and says from when on it holds. */
static enum status change_conf(struct vm *vm, const struct config_change *change, char *text, size_t text_bytes)
{
    struct draft d;
    enum status status = draft_make(&d) ? write_change(vm, change, &d, text, text_bytes)
                                        : no_memory(vm->name, text, text_bytes);

    draft_free(&d);
    if (status != OK)
        return status;
    if (!vm->built)
        return vm_directory_load(vm, text, text_bytes);
    vm->changed = true;
    snprintf(text, text_bytes,
             "vm %s: %s is changed; the VM is %s as it was started, and has it from its next start on", vm->name,
             change->key, vm_state_name(vm->state));
    return OK;
}

static enum status set(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    const struct setting *s = arg;
    enum status status = check_set(vm, s, text, text_bytes);

    if (status == OK)
        status = check_values(vm, s->change, text, text_bytes);
    return status == OK ? change_conf(vm, s->change, text, text_bytes) : status;
}

enum status vm_directory_set(const char *name, const struct config_change *change, bool take_over, char *text,
                             size_t text_bytes)
{
    struct setting s = { change, take_over };

    return vm_call(name, set, &s, text, text_bytes);
}

/* ---- vm disk ---- */

/* The disk of vm.conf that is meant: its whole path. */
static bool has_disk(const struct vm *vm, const char *path)
{
    for (uint32_t i = 0; i < vm->config.disk_count; i++)
        if (!strcmp(vm->config.disks[i], path))
            return true;
    return false;
}

static enum status add_disk(struct vm *vm, const struct vm_disk_order *o, const char *path, char *text,
                            size_t text_bytes)
{
    struct config_change change = { .key = "disk", .values = &o->disk, .count = 1, .add = true };
    char why[VM_TEXT_BYTES];
    struct csv_stat stat;
    enum status status = OK;

    if (has_disk(vm, path)) {
        snprintf(text, text_bytes, "vm %s: it has disk %s already; name another", vm->name, o->disk);
        return ERR_EXISTS;
    }
    if (vm->config.disk_count == CONFIG_MAX_DISKS) {
        snprintf(text, text_bytes, "vm %s: it has %u disks, and no VM has more; remove one", vm->name,
                 CONFIG_MAX_DISKS);
        return ERR_NO_MEMORY;
    }
    if (o->bytes)
        status = vm_disk_make(vm->name, path, o->bytes, o->preallocate, text, text_bytes);
    else if (config_disk_on_volume(path))
        status = vm_file_stat(vm->name, path, &stat, text, text_bytes);
    if (status != OK)
        return status;
    status = change_conf(vm, &change, text, text_bytes);
    if (status != OK && o->bytes) /* no file without its line */
        (void)!vm_file_remove(vm->name, path, why, sizeof why);
    return status;
}

/* A copy of a disk. A running guest is held for the moment, with nothing of its requests under way. */
static enum status copy_disk(struct vm *vm, const char *path, const char *to, char *text, size_t text_bytes)
{
    bool running = vm->state == VM_RUNNING;

    if (running)
        vm_park_all(vm);
    enum status status = !vm->built || save_quiesce(vm, text, text_bytes) ? OK : ERR_BUSY;
    if (status == OK) {
        status = vm_disk_clone(vm->name, path, to, vm->built, text, text_bytes);
        if (vm->built)
            save_resume_devices(vm);
    }
    if (running)
        vm_unpark_all(vm);
    return status;
}

/* The names that the node itself gives in a VM's directory. */
static bool is_reserved(const char *path)
{
    static const char *const names[] = { "vm.conf", "vm.conf.new", VM_STATE_FILE, VM_STATE_FILE ".new" };
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool reserved = false;

    for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
        reserved |= !strcmp(name, names[i]);
    return reserved;
}

/* Of a VM that runs too, whose guest is told. */
static enum status grow_disk(struct vm *vm, const char *path, uint64_t bytes, char *text, size_t text_bytes)
{
    for (uint32_t i = 0; vm->built && i < vm->config.disk_count; i++)
        if (!strcmp(vm->config.disks[i], path))
            return machine_grow_disk(vm, i, bytes, text, text_bytes);
    return vm_disk_grow(vm->name, path, bytes, text, text_bytes);
}

/* `snapshot`: its path. */
static enum status revert_disk(struct vm *vm, const struct vm_disk_order *o, const char *path, const char *snapshot,
                               char *text, size_t text_bytes)
{
    char kept[VM_PATH_BYTES];
    struct csv_stat stat;
    enum status status = ERR_NOT_FOUND;

    if (vm->built) {
        snprintf(text, text_bytes, "vm %s: it is %s, and its disk in use; stop it first", vm->name, vm_state_name(vm->state));
        return ERR_BUSY;
    }
    int bytes = snprintf(kept, sizeof kept, "%s.%s%s", path, o->keep ? "" : "before-", o->keep ? o->keep : o->to);
    if ((size_t)bytes >= sizeof kept || is_reserved(kept)) {
        snprintf(text, text_bytes, "vm %s: what the disk is now cannot be kept under that name; choose one by --keep", vm->name);
        return ERR_INVALID;
    }
    if (!o->discard)
        status = vm_file_stat(vm->name, kept, &stat, text, text_bytes);
    if (status == OK) {
        snprintf(text, text_bytes,
                 "vm %s: %s is there already, and what the disk is now would be kept under that name; choose another by "
                 "--keep, or --discard it",
                 vm->name, kept);
        return ERR_EXISTS;
    }
    if (status != ERR_NOT_FOUND)
        return status;
    text[0] = '\0';
    status = vm_disk_revert(vm->name, path, snapshot, o->discard ? NULL : strrchr(kept, '/') + 1, text, text_bytes);
    if (status == OK && !o->discard)
        snprintf(text, text_bytes, "vm %s: %s is what %s is; what it was before is %s", vm->name, o->disk,
                 strrchr(snapshot, '/') + 1, strrchr(kept, '/') + 1);
    return status;
}

static enum status check_paths(const struct vm *vm, const struct vm_disk_order *o, const char *path, const char *to,
                               bool short_enough, char *text, size_t text_bytes)
{
    if (!short_enough) {
        snprintf(text, text_bytes, "vm %s: the path is too long; use a shorter one", vm->name);
        return ERR_INVALID;
    }
    if ((o->work == VM_DISK_ADD && is_reserved(path)) || is_reserved(to)) {
        snprintf(text, text_bytes, "vm %s: that name is not a disk's, but one that the node itself uses; choose another",
                 vm->name);
        return ERR_INVALID;
    }
    if (o->bytes % SECTOR_BYTES || o->bytes > CSV_FILE_BYTES) {
        snprintf(text, text_bytes,
                 "vm %s: a disk cannot have %lu bytes; write a multiple of %u of at most 64 TiB, such as 10G", vm->name,
                 o->bytes, SECTOR_BYTES);
        return ERR_INVALID;
    }
    return OK;
}

static enum status disk(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    const struct vm_disk_order *o = arg;
    char path[VM_PATH_BYTES], to[VM_PATH_BYTES] = "", name[VM_PATH_BYTES];
    enum status status = vm->config.volume ? vm_directory_owned(vm, text, text_bytes) : not_on_volume(vm, text, text_bytes);

    if (status != OK)
        return status;
    bool fits = vm_directory_resolve(vm->config.volume, vm->name, o->disk, path);
    bool copies = o->work == VM_DISK_CLONE || o->work == VM_DISK_SNAPSHOT;
    bool labelled = o->work == VM_DISK_SNAPSHOT || o->work == VM_DISK_REVERT;
    if (vm->state == VM_SAVED && !copies) {
        snprintf(text, text_bytes,
                 "vm %s: it is saved, and goes on only with the disks that it had; `vm restore %s` first, or drop the "
                 "state by `vm stop %s --hard`",
                 vm->name, vm->name, vm->name);
        return ERR_BUSY;
    }
    if (copies || labelled) {
        fits &= (size_t)snprintf(name, sizeof name, "%s.%s", o->disk, o->to) < sizeof name;
        fits &= vm_directory_resolve(vm->config.volume, vm->name, labelled ? name : o->to, to);
    }
    status = check_paths(vm, o, path, to, fits, text, text_bytes);
    if (status != OK)
        return status;
    if (o->work != VM_DISK_ADD && (!has_disk(vm, path) || !config_disk_on_volume(path))) {
        snprintf(text, text_bytes, "vm %s: it has no disk %s on a volume; `vm show %s` lists its disks", vm->name,
                 o->disk, vm->name);
        return ERR_NOT_FOUND;
    }
    switch (o->work) {
    case VM_DISK_ADD: return add_disk(vm, o, path, text, text_bytes);
    case VM_DISK_GROW: return grow_disk(vm, path, o->bytes, text, text_bytes);
    case VM_DISK_REVERT: return revert_disk(vm, o, path, to, text, text_bytes);
    case VM_DISK_CLONE:
    case VM_DISK_SNAPSHOT: return copy_disk(vm, path, to, text, text_bytes);
    }
    return ERR_INVALID;
}

enum status vm_directory_disk(const char *name, const struct vm_disk_order *order, char *text, size_t text_bytes)
{
    struct vm_disk_order copy = *order;

    return vm_call(name, disk, &copy, text, text_bytes);
}

/* ---- vm create ---- */

static enum status load(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    (void)arg;
    return vm_directory_load(vm, text, text_bytes);
}

static enum status write_new(const char *volume, const char *name, struct draft *d, const struct vm_setting *settings,
                             unsigned count, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES], directory[VM_PATH_BYTES], state[VM_PATH_BYTES], uuid[CONFIG_UUID_CHARACTERS + 1], problem[VM_TEXT_BYTES],
        why[VM_TEXT_BYTES];
    struct csv_stat stat;
    enum status status = OK;

    vm_uuid_make(uuid);
    d->bytes = (size_t)snprintf(d->text, VM_CONF_MAX_BYTES, "[vm %s]\nuuid = %s\nowner = %s\n", name, uuid,
                                node_name());
    struct vm_conf *before = vm_conf_parse(name, d->text, d->bytes), *after = NULL;
    for (unsigned i = 0; i < count && status == OK; i++) {
        struct config_change change = { .key = settings[i].key, .values = &settings[i].value, .count = 1, .add = true };
        status = draft_change(d, name, &change, text, text_bytes);
    }
    if (status == OK)
        after = vm_conf_parse(name, d->text, d->bytes);
    if (status == OK && (!before || !after)) {
        status = no_memory(name, text, text_bytes);
    } else if (status == OK && is_worse(&before->config, &after->config, problem, sizeof problem)) {
        snprintf(text, text_bytes, "vm %s: nothing was made, since its vm.conf would be wrong in %s", name, problem);
        status = ERR_INVALID;
    }
    vm_conf_free(before);
    vm_conf_free(after);
    if (status != OK)
        return status;
    vm_directory_path(volume, name, "", directory);
    vm_directory_path(volume, name, "vm.conf", path);
    status = vm_file_stat(name, path, &stat, text, text_bytes);
    if (status == OK) {
        snprintf(text, text_bytes, "vm %s: %s is there already; choose another name", name, path);
        return ERR_EXISTS;
    }
    if (status != ERR_NOT_FOUND)
        return status;
    vm_directory_path(volume, name, VM_STATE_FILE, state);
    status = vm_file_stat(name, state, &stat, text, text_bytes);
    if (status == OK) {
        snprintf(text, text_bytes, "vm %s: %s is there, the state of a VM that is no more; `rm` it, or choose another name",
                 name, state);
        return ERR_EXISTS;
    }
    if (status != ERR_NOT_FOUND)
        return status;
    text[0] = '\0';
    status = vm_directory_make(name, directory, text, text_bytes);
    bool made = status == OK;
    if (made || status == ERR_EXISTS) /* one with the disks of a VM that was deleted */
        status = vm_file_replace(name, path, d->text, d->bytes, text, text_bytes);
    if (status != OK && made)
        (void)!vm_file_remove(name, directory, why, sizeof why);
    return status;
}

enum status vm_directory_create(const char *volume, const char *name, const struct vm_setting *settings, unsigned count,
                                char *text, size_t text_bytes)
{
    struct config_vm config;
    struct vm_info info;
    struct draft d;

    if (vm_info_find(name, &info)) {
        snprintf(text, text_bytes, "vm %s: there is one of that name already; choose another or delete it", name);
        return ERR_EXISTS;
    }
    enum status status = draft_make(&d) ? write_new(volume, name, &d, settings, count, text, text_bytes)
                                        : no_memory(name, text, text_bytes);
    draft_free(&d);
    if (status != OK)
        return status;
    config_vm_defaults(&config, name);
    config.volume = volume;
    status = vm_create(&config, text, text_bytes);
    return status == OK ? vm_call(name, load, NULL, text, text_bytes) : status;
}
