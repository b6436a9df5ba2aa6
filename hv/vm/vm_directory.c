/* SPDX-License-Identifier: MIT */
/* A VM and its directory, in the VM's thread. See vm_directory.h; vm_discovery.c finds them. */
#include "vm/vm_directory.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/text.h"
#include "vm/machine.h"
#include "vm/node.h"
#include "vm/vm_directory_private.h"
#include "vm/vm_files.h"

void vm_directory_path(const char *volume, const char *name, const char *file, char path[VM_PATH_BYTES])
{
    snprintf(path, VM_PATH_BYTES, VOLUME_ROOT "%s/%s%s%s", volume, name, file[0] ? "/" : "", file);
}

bool vm_directory_resolve(const char *volume, const char *name, const char *path, char resolved[VM_PATH_BYTES])
{
    if (config_disk_storage(path) || path[0] == '/' || path[0] == '\\')
        snprintf(resolved, VM_PATH_BYTES, "%s", path);
    else
        vm_directory_path(volume, name, path, resolved);
    return strlen(path) + sizeof VOLUME_ROOT + 2 * (CONFIG_MAX_NAME_BYTES + 1) < VM_PATH_BYTES;
}

/* ---- Reading vm.conf ---- */

static const struct config_diagnostic *first_error(const struct config *config)
{
    for (uint32_t i = 0; i < config->diagnostic_count; i++)
        if (config->diagnostics[i].severity == CONFIG_ERROR)
            return &config->diagnostics[i];
    return NULL;
}

/* The first error, with the file's path, line and column; "": none. */
static void tell_problem(const struct config *config, const char *path, char *text, size_t text_bytes)
{
    const struct config_diagnostic *d = first_error(config);

    text[0] = '\0';
    if (d)
        snprintf(text, text_bytes, "%s, line %u, column %u: %s", path, d->line, d->column, d->text);
}

struct vm_conf *vm_conf_parse(const char *name, const char *text, size_t bytes)
{
    struct vm_conf *conf = kzalloc(sizeof *conf);

    if (!conf)
        return NULL;
    conf->strings_bytes = bytes + 1;
    if (!(conf->strings = kzalloc(conf->strings_bytes))) {
        kfree(conf, sizeof *conf);
        return NULL;
    }
    config_parse_vm(&conf->config, node_config(), name, text, bytes, conf->strings);
    return conf;
}

void vm_conf_free(struct vm_conf *conf)
{
    if (conf)
        kfree(conf->strings, conf->strings_bytes);
    kfree(conf, sizeof *conf);
}

static const char *resolve_into(struct vm_conf *conf, unsigned slot, const char *volume, const char *name,
                                const char *path)
{
    if (!path)
        return NULL;
    conf->too_long |= !vm_directory_resolve(volume, name, path, conf->path[slot]);
    return conf->path[slot];
}

/* The VM as it is to be built: paths whole, and its volume. */
static struct config_vm resolved(struct vm_conf *conf, const struct vm *vm)
{
    const char *volume = vm->config.volume;
    struct config_vm config;

    if (!conf->config.vm_count) {
        config_vm_defaults(&config, vm->name);
        config.error_count = 1;
    } else {
        config = conf->config.vms[0];
        config.kernel = resolve_into(conf, 0, volume, vm->name, config.kernel);
        config.initrd = resolve_into(conf, 1, volume, vm->name, config.initrd);
        for (uint32_t i = 0; i < config.disk_count; i++)
            config.disks[i] = resolve_into(conf, 2 + i, volume, vm->name, config.disks[i]);
    }
    config.volume = volume;
    return config;
}

static enum status no_memory(const struct vm *vm, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "vm %s: the node has no memory left to read its vm.conf; stop another VM", vm->name);
    return ERR_NO_MEMORY;
}

void vm_uuid_make(char uuid[CONFIG_UUID_CHARACTERS + 1])
{
    uint8_t b[16];

    random_bytes(b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 4122, 4.4: version 4, and its variant */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(uuid, CONFIG_UUID_CHARACTERS + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Nobody's, or this node's. */
static bool is_ours(const struct config_vm *config)
{
    return !config->owner || !strcmp(config->owner, node_name());
}

/* Writes what it lacks of UUID and owner into the text, which is *bytes long and has room for VM_CONF_MAX_BYTES. */
static enum status adopt(struct vm *vm, const struct config_vm *config, const char *path, char *conf, size_t *bytes,
                         char *text, size_t text_bytes)
{
    char uuid[CONFIG_UUID_CHARACTERS + 1], *room = kzalloc(VM_CONF_MAX_BYTES);
    const char *values[2] = { uuid, node_name() };
    static const char *const keys[2] = { "uuid", "owner" };
    enum status status = OK;

    if (!room)
        return no_memory(vm, text, text_bytes);
    vm_uuid_make(uuid);
    for (unsigned i = 0; i < 2 && status == OK; i++) {
        struct config_change change = { .key = keys[i], .values = &values[i], .count = 1 };
        if (i ? config->owner : config->uuid)
            continue;
        status = config_edit(conf, *bytes, &change, room, VM_CONF_MAX_BYTES, bytes);
        if (status == OK)
            memcpy(conf, room, *bytes);
        else
            snprintf(text, text_bytes, "vm %s: its vm.conf is too large to write %s into it; make it smaller", vm->name,
                     keys[i]);
    }
    if (status == OK)
        status = vm_file_replace(vm->name, path, conf, *bytes, text, text_bytes);
    if (status == OK)
        log_info("vm %s: %s had no %s: this node wrote it there", vm->name, path,
                 !config->uuid && !config->owner ? "uuid and owner"
                 : config->uuid                  ? "owner"
                                                 : "uuid");
    kfree(room, VM_CONF_MAX_BYTES);
    return status;
}

/* vm.conf in a buffer of VM_CONF_MAX_BYTES, and parsed. */
static enum status read_conf(struct vm *vm, const char *path, char *buffer, size_t *bytes, struct vm_conf **conf,
                             char *text, size_t text_bytes)
{
    uint64_t count;
    void *file;
    enum status status = vm_file_read(vm->name, path, VM_CONF_MAX_BYTES, &file, &count, text, text_bytes);

    if (status != OK)
        return status;
    memcpy(buffer, file, count);
    kfree(file, count + 1);
    *bytes = count;
    *conf = vm_conf_parse(vm->name, buffer, count);
    return *conf ? OK : no_memory(vm, text, text_bytes);
}

/* Saved or not, as the directory says. */
static enum status look_for_state(struct vm *vm, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES];
    struct csv_stat stat;

    vm_directory_path(vm->config.volume, vm->name, VM_STATE_FILE, path);
    enum status status = vm_file_stat(vm->name, path, &stat, text, text_bytes);
    if (status != OK && status != ERR_NOT_FOUND)
        return status;
    vm->saved_bytes = status == OK ? stat.size : 0;
    if (status == OK && vm->state == VM_STOPPED)
        vm_set_state(vm, VM_SAVED);
    else if (status == ERR_NOT_FOUND && vm->state == VM_SAVED && !vm->saved)
        vm_set_state(vm, VM_STOPPED);
    if (!is_ours(&vm->config))
        goto out;
    /* What this node left there when it went down while it saved. */
    vm_directory_path(vm->config.volume, vm->name, VM_STATE_FILE ".new", path);
    if (vm_file_stat(vm->name, path, &stat, text, text_bytes) == OK &&
        vm_file_remove(vm->name, path, text, text_bytes) != OK)
        log_warning("%s", text);
out:
    text[0] = '\0';
    return OK;
}

/* What keeps a vm.conf from being read at all is wrong with it as a line that makes no sense is; the rest may pass. */
static bool is_lasting(enum status status)
{
    return status == ERR_RANGE || status == ERR_INVALID || status == ERR_CORRUPT;
}

/* An error's text without the VM's name, which stands in front. */
static const char *words(const struct vm *vm, const char *text)
{
    size_t bytes = strlen("vm ") + strlen(vm->name) + strlen(": ");

    return strlen(text) > bytes ? text + bytes : text;
}

/* The VM of a vm.conf that cannot be read. */
static enum status take_nothing(struct vm *vm, const char *why, char *text, size_t text_bytes)
{
    struct config_vm nothing;
    char problem[VM_TEXT_BYTES];

    snprintf(problem, sizeof problem, "%s", words(vm, why));
    config_vm_defaults(&nothing, vm->name);
    nothing.volume = vm->config.volume;
    nothing.error_count = 1;
    return vm_reconfigure(vm, &nothing, problem, text, text_bytes);
}

/* When its directory was made; of two with one UUID the older one has it. */
static void note_age(struct vm *vm)
{
    char path[VM_PATH_BYTES], text[VM_TEXT_BYTES];
    struct csv_stat stat;

    vm_directory_path(vm->config.volume, vm->name, "", path);
    if (vm_file_stat(vm->name, path, &stat, text, sizeof text) == OK)
        __atomic_store_n(&vm->made_ns, stat.created_ns, __ATOMIC_RELAXED);
}

/* A vm.conf without UUID or owner that may be this node's gets them; what fails of that is *problem. */
static enum status complete(struct vm *vm, const char *path, char *buffer, size_t bytes, struct vm_conf **conf,
                            char problem[VM_TEXT_BYTES], char *text, size_t text_bytes)
{
    const struct config_vm *config = &(*conf)->config.vms[0];

    if (!(*conf)->config.vm_count || first_error(&(*conf)->config) || !is_ours(config) || (config->uuid && config->owner))
        return OK;
    if (adopt(vm, config, path, buffer, &bytes, text, text_bytes) != OK) {
        snprintf(problem, VM_TEXT_BYTES, "%s", words(vm, text));
        text[0] = '\0';
        return OK;
    }
    vm_conf_free(*conf);
    *conf = vm_conf_parse(vm->name, buffer, bytes);
    return *conf ? OK : no_memory(vm, text, text_bytes);
}

static enum status load(struct vm *vm, char *buffer, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES], problem[VM_TEXT_BYTES] = "", other[CONFIG_MAX_NAME_BYTES + 1];
    struct vm_conf *conf = NULL;
    size_t bytes;

    vm_directory_path(vm->config.volume, vm->name, "vm.conf", path);
    enum status status = read_conf(vm, path, buffer, &bytes, &conf, text, text_bytes);
    if (is_lasting(status)) {
        char why[VM_TEXT_BYTES];
        snprintf(why, sizeof why, "%s", text);
        status = take_nothing(vm, why, text, text_bytes);
        return status == OK ? look_for_state(vm, text, text_bytes) : status;
    }
    if (status == OK)
        status = complete(vm, path, buffer, bytes, &conf, problem, text, text_bytes);
    if (status != OK)
        return status;
    note_age(vm);
    struct config_vm built = resolved(conf, vm);
    if (!problem[0])
        tell_problem(&conf->config, path, problem, sizeof problem);
    if (!problem[0] && conf->too_long)
        snprintf(problem, sizeof problem, "%s: a path there is longer than %u bytes; shorten it", path,
                 (unsigned)(VM_PATH_BYTES - sizeof VOLUME_ROOT - 2 * (CONFIG_MAX_NAME_BYTES + 1)));
    if (!problem[0] && built.uuid && vm_uuid_taken(vm, built.uuid, other))
        snprintf(problem, sizeof problem,
                 "%s, line %u, column 1: its uuid is that of vm %s, whose directory is older; `vm set %s uuid --default` "
                 "gives this one another",
                 path, built.key_line[CONFIG_VM_UUID], other, vm->name);
    if (problem[0])
        built.error_count = MAX(built.error_count, 1u);
    status = vm_reconfigure(vm, &built, problem, text, text_bytes);
    vm_conf_free(conf);
    return status == OK ? look_for_state(vm, text, text_bytes) : status;
}

enum status vm_directory_load(struct vm *vm, char *text, size_t text_bytes)
{
    char *buffer = kzalloc(VM_CONF_MAX_BYTES);

    if (!buffer)
        return no_memory(vm, text, text_bytes);
    enum status status = load(vm, buffer, text, text_bytes);
    kfree(buffer, VM_CONF_MAX_BYTES);
    return status;
}

enum status vm_directory_check(const struct vm *vm, char *text, size_t text_bytes)
{
    const char *owner = vm->config.owner;

    if (vm->problem[0]) {
        snprintf(text, text_bytes, "vm %s: %s; correct it there, or by `vm set`", vm->name, vm->problem);
        return ERR_INVALID;
    }
    if (owner && !strcmp(owner, node_name()))
        return OK;
    snprintf(text, text_bytes,
             "vm %s: it belongs to node %s and runs nowhere else; `vm set %s owner %s` there hands it over, or here "
             "with --take-over if that node is sure not to run it",
             vm->name, owner ? owner : "(none)", vm->name, node_name());
    return ERR_BUSY;
}

enum status vm_directory_owned(const struct vm *vm, char *text, size_t text_bytes)
{
    const char *owner = vm->config.owner;

    if (!owner || !strcmp(owner, node_name()))
        return OK;
    snprintf(text, text_bytes,
             "vm %s: it belongs to node %s, which alone changes it; hand it over there by `vm set %s owner %s`, or "
             "take it here by the same with --take-over if that node is sure not to run it",
             vm->name, owner, vm->name, node_name());
    return ERR_BUSY;
}

/* ---- Whether it is as it was started ---- */

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

/* The first key of two configurations that differs, of those that a running VM cannot change; NULL: none. */
static const char *difference(const struct config_vm *a, const struct config_vm *b)
{
    if (a->memory_bytes != b->memory_bytes)
        return "memory";
    if (a->vcpus != b->vcpus)
        return "vcpus";
    if (!same_text(a->kernel, b->kernel))
        return "kernel";
    if (!same_text(a->initrd, b->initrd))
        return "initrd";
    if (!same_text(a->cmdline, b->cmdline))
        return "cmdline";
    if (!same_text(a->cpu, b->cpu))
        return "cpu";
    if (a->tsc_khz != b->tsc_khz)
        return "tsc-frequency";
    if (!same_text(a->uuid, b->uuid))
        return "uuid";
    if (a->disk_count != b->disk_count || a->card_count != b->card_count)
        return a->disk_count != b->disk_count ? "disk" : "network";
    for (uint32_t i = 0; i < a->disk_count; i++)
        if (!same_text(a->disks[i], b->disks[i]))
            return "disk";
    for (uint32_t i = 0; i < a->card_count; i++)
        if (strcmp(a->cards[i].network, b->cards[i].network) || a->cards[i].mac != b->cards[i].mac)
            return "network";
    return NULL;
}

enum status vm_directory_same(struct vm *vm, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES], *buffer = kzalloc(VM_CONF_MAX_BYTES);
    struct vm_conf *conf = NULL;
    const char *key = NULL;
    size_t bytes;

    if (!buffer)
        return no_memory(vm, text, text_bytes);
    vm_directory_path(vm->config.volume, vm->name, "vm.conf", path);
    enum status status = read_conf(vm, path, buffer, &bytes, &conf, text, text_bytes);
    kfree(buffer, VM_CONF_MAX_BYTES);
    if (status != OK)
        return status;
    struct config_vm now = resolved(conf, vm);
    if (!first_error(&conf->config))
        key = difference(&vm->config, &now);
    if (first_error(&conf->config)) {
        snprintf(text, text_bytes, "vm %s: its vm.conf is wrong now, and the VM could not be restored; correct it by `vm set`",
                 vm->name);
        status = ERR_INVALID;
    } else if (key) {
        snprintf(text, text_bytes,
                 "vm %s: %s in its vm.conf is not as it was when it was started, and a saved VM goes on only with what it "
                 "had; set it back by `vm set %s %s`, or shut it down",
                 vm->name, key, vm->name, key);
        status = ERR_BUSY;
    }
    vm_conf_free(conf);
    return status;
}

/* ---- Its saved state: vm_saved_file.c ---- */

enum status vm_directory_drop(struct vm *vm, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES];

    vm_directory_path(vm->config.volume, vm->name, VM_STATE_FILE, path);
    enum status status = vm_file_remove(vm->name, path, text, text_bytes);
    if (status == OK)
        vm->saved_bytes = 0;
    return status;
}

/* ---- Its end ---- */

/* Whether a whole path lies right in the VM's directory. */
static bool is_inside(const struct vm *vm, const char *path)
{
    char directory[VM_PATH_BYTES];

    vm_directory_path(vm->config.volume, vm->name, "", directory);
    size_t bytes = strlen(directory);
    return !strncmp(path, directory, bytes) && path[bytes] == '/' && path[bytes + 1] && !strchr(path + bytes + 1, '/');
}

/* What this node leaves in it when a power cut comes amid a change or a save. */
static void remove_remains(const struct vm *vm)
{
    static const char *const names[] = { "vm.conf.new", VM_STATE_FILE ".new" };
    char path[VM_PATH_BYTES], why[VM_TEXT_BYTES];

    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        vm_directory_path(vm->config.volume, vm->name, names[i], path);
        if (vm_file_remove(vm->name, path, why, sizeof why) != OK)
            log_warning("%s", why);
    }
}

/*
 * Its state first: a state without a vm.conf would wait there for another VM of that name.
 */
enum status vm_directory_remove(struct vm *vm, bool disks, char *text, size_t text_bytes)
{
    char path[VM_PATH_BYTES], why[VM_TEXT_BYTES] = "";
    enum status status = vm_directory_load(vm, text, text_bytes);

    if (status == OK)
        status = vm_directory_owned(vm, text, text_bytes);
    else if (status == ERR_NOT_FOUND) /* somebody has removed its vm.conf before */
        status = OK;
    if (status == OK)
        status = vm_directory_drop(vm, text, text_bytes);
    if (status != OK)
        return status;
    if (vm->state == VM_SAVED)
        vm_set_state(vm, VM_STOPPED);
    vm_directory_path(vm->config.volume, vm->name, "vm.conf", path);
    status = vm_file_remove(vm->name, path, text, text_bytes);
    if (status != OK && status != ERR_NOT_FOUND)
        return status;
    /* From here on it is no VM any more, and what stays is told. */
    text[0] = '\0';
    remove_remains(vm);
    status = OK;
    for (uint32_t i = 0; disks && i < vm->config.disk_count; i++)
        if (is_inside(vm, vm->config.disks[i])) {
            enum status removed = vm_file_remove(vm->name, vm->config.disks[i], why, sizeof why);
            status = status == OK ? removed : status;
        }
    vm_directory_path(vm->config.volume, vm->name, "", path);
    if (status != OK)
        log_error("%s", why);
    if (vm_file_remove(vm->name, path, why, sizeof why) != OK)
        snprintf(text, text_bytes, "vm %s: deleted; what else is in %s stays%s", vm->name, path,
                 disks ? "" : ", its disks among it; --disks removes these too");
    return OK;
}
