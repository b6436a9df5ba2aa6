/* SPDX-License-Identifier: MIT */
/*
 * Finding the VMs of a volume when it is mounted, and starting those that are to start. One thread for all volumes,
 * which looks twice a second whether there is something to do: everything it does may wait for a disk. What the shell does to
 * a VM's directory afterwards is followed in the shell's own thread, so that its next command finds it.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "vm/machine.h"
#include "vm/node.h"
#include "vm/vm_directory_private.h"
#include "volume/volume_file.h"

#define LOOK_NS (NS_PER_S / 2)

bool vm_waits_for_storage(const struct config_vm *vm)
{
    if ((vm->kernel && volume_file_will_come(vm->kernel)) || (vm->initrd && volume_file_will_come(vm->initrd)))
        return true;
    for (uint32_t i = 0; i < vm->disk_count; i++) {
        const char *disk = vm->disks[i], *storage = config_disk_storage(disk);
        if (storage ? storage_will_come(storage) : volume_file_will_come(disk))
            return true;
    }
    return false;
}

/* ---- One VM ---- */

/*
 * The list follows what is on the volumes in two steps: take() makes the VM, refresh() reads its vm.conf. Both only by whoever
 * has `busy`, so that no two threads make one VM.
 */
static struct wait_queue turn;
static uint32_t busy;

static bool try_busy(void)
{
    return !__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE);
}

static void begin_turn(void)
{
    wait_event(&turn, try_busy());
}

static void end_turn(void)
{
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    wake_all(&turn);
}

/* Why a VM's directory is looked at. */
enum cause { MOUNTED, TOUCHED, OTHERS_TOUCHED };

/* Its vm.conf; the argument is an enum cause. ERR_NOT_FOUND: it has none, and is no VM any more. */
static enum status read_anew(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    const enum cause *cause = arg;
    char before[VM_TEXT_BYTES];

    if (vm->state != VM_STOPPED && vm->state != VM_SAVED) {
        vm->changed |= *cause == TOUCHED;
        return OK;
    }
    snprintf(before, sizeof before, "%s", vm->problem);
    enum status status = vm_directory_load(vm, text, text_bytes);
    if (status == ERR_NOT_FOUND) {
        vm_list_remove(vm);
        vm->gone = true;
        log_info("vm %s: its vm.conf is gone from volume %s, and so is the VM", vm->name, vm->config.volume);
    }
    if (status != OK)
        return status;
    if (vm->problem[0]) {
        vm->starts = false;
        if (*cause == MOUNTED || strcmp(before, vm->problem))
            log_error("vm %s: %s", vm->name, vm->problem);
        return OK;
    }
    if (*cause != MOUNTED)
        return OK;
    vm->starts = vm->config.start == CONFIG_START_AUTO && vm->state == VM_STOPPED;
    if (vm->starts && vm_directory_check(vm, text, text_bytes) != OK) {
        vm->starts = false;
        log_warning("%s", text);
    }
    return OK;
}

/* False: it is no VM any more. */
static bool refresh(const char *name, enum cause cause)
{
    char text[VM_TEXT_BYTES] = "";
    enum status status = vm_call(name, read_anew, &cause, text, sizeof text);

    if (status != OK && status != ERR_NOT_FOUND)
        log_error("%s", text);
    return status != ERR_NOT_FOUND;
}

/* False: it cannot be a VM of this node. */
static bool take(const char *volume, const char *name)
{
    struct vm_info info;
    struct config_vm config;
    char text[VM_TEXT_BYTES] = "";

    if (!config_name_ok(name)) {
        log_error("volume %s: the directory %s has a vm.conf and a name that no VM can have; rename it: up to 63 "
                  "letters, digits, '.', "
                  "'_' and '-', a letter or digit first",
                  volume, name);
        return false;
    }
    bool there = vm_info_find(name, &info);
    if (there && strcmp(info.volume, volume)) {
        log_error("vm %s: there is one in " VOLUME_ROOT
                  "%s/%s too, which this node does not take: there is one of that name already, "
                  "%s%s; rename one of the two",
                  name, volume, name, info.volume[0] ? "on volume " : "not on a volume", info.volume);
        return false;
    }
    if (there)
        return true;
    config_vm_defaults(&config, name);
    config.volume = volume;
    if (vm_create(&config, text, sizeof text) == OK)
        return true;
    log_error("%s", text);
    return false;
}

/* ---- A volume that was mounted ---- */

/* All VMs of a volume; or, without one, those with which something is wrong, which may be right by now. */
static void refresh_all(const char *volume)
{
    struct vm_info info;

    for (unsigned i = 0; vm_info_get(i, &info);) {
        bool meant = volume ? !strcmp(info.volume, volume) : info.volume[0] && info.problem[0];
        if (!meant || refresh(info.name, volume ? MOUNTED : OTHERS_TOUCHED))
            i++; /* else the next one has its place in the list */
    }
}

static void search(const char *volume)
{
    char *name = kzalloc(CSV_NAME_BYTES + 1), text[VOLUME_TEXT];
    enum status status = name ? OK : ERR_NO_MEMORY;
    uint64_t cursor = 0;
    bool damaged;

    begin_turn();
    while (status == OK) {
        status = vm_directory_next(volume, &cursor, name, &damaged, text, sizeof text);
        if (status == OK && damaged)
            log_error("volume %s: the directory %s is damaged, and no VM there can be found; `csv scrub %s` says more", volume,
                      name, volume);
        else if (status == OK)
            (void)take(volume, name);
    }
    if (status != ERR_NOT_FOUND)
        log_error("volume %s: not all of its VMs could be looked for (%s); `csv scrub %s` says more", volume,
                  status_name(status), volume);
    refresh_all(volume);
    end_turn();
    kfree(name, CSV_NAME_BYTES + 1);
}

/* ---- What the shell does to files ---- */

/* The VM's name and its volume's, where the path is a VM's directory or a file in one; *file is "" or the file's name. */
static bool take_apart(const char *path, char volume[CONFIG_MAX_NAME_BYTES + 1], char name[CSV_NAME_BYTES + 1],
                       const char **file)
{
    const char *at, *inside;
    size_t bytes;

    if (!volume_path(path, &at, &bytes, &inside) || bytes > CONFIG_MAX_NAME_BYTES)
        return false;
    snprintf(volume, CONFIG_MAX_NAME_BYTES + 1, "%.*s", (int)bytes, at);
    while (*inside == '/')
        inside++;
    bytes = strcspn(inside, "/");
    if (!bytes || bytes > CSV_NAME_BYTES)
        return false;
    snprintf(name, CSV_NAME_BYTES + 1, "%.*s", (int)bytes, inside);
    for (*file = inside + bytes; **file == '/'; ++*file)
        ;
    return true;
}

void vm_directory_touched(const char *path)
{
    char volume[CONFIG_MAX_NAME_BYTES + 1], name[CSV_NAME_BYTES + 1], conf[VM_PATH_BYTES], text[VM_TEXT_BYTES];
    const char *file;
    struct csv_stat stat;
    struct vm_info info;

    if (!take_apart(path, volume, name, &file) || (*file && strcmp(file, "vm.conf") && strcmp(file, VM_STATE_FILE)))
        return;
    begin_turn();
    vm_directory_path(volume, name, "vm.conf", conf);
    bool known = vm_info_find(name, &info) && !strcmp(info.volume, volume);
    if (known || (vm_file_stat(name, conf, &stat, text, sizeof text) == OK && take(volume, name)))
        (void)refresh(name, strcmp(file, VM_STATE_FILE) ? TOUCHED : OTHERS_TOUCHED);
    refresh_all(NULL);
    end_turn();
}

bool vm_directory_is_in_use(const char *path, char *name)
{
    char volume[CONFIG_MAX_NAME_BYTES + 1], first[CSV_NAME_BYTES + 1];
    const char *file;
    struct vm_info info;

    if (!take_apart(path, volume, first, &file) || *file || !vm_info_find(first, &info) || strcmp(info.volume, volume))
        return false;
    snprintf(name, CONFIG_MAX_NAME_BYTES + 1, "%s", info.name);
    return info.state != VM_STOPPED && info.state != VM_SAVED;
}

/* ---- Starting ---- */

/* OK: it is to start now. */
static enum status is_ready(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    (void)arg;
    (void)text;
    (void)text_bytes;
    if (!vm->starts || vm_waits_for_storage(&vm->config))
        return ERR_BUSY;
    vm->starts = false;
    return OK;
}

static void start_what_waits(void)
{
    struct vm_info info;
    char text[VM_TEXT_BYTES];

    for (unsigned i = 0; vm_info_get(i, &info); i++) {
        if (!info.starts || vm_call(info.name, is_ready, NULL, text, sizeof text) != OK)
            continue;
        if (vm_order(info.name, VM_ORDER_START, text, sizeof text) != OK)
            log_error("%s", text);
    }
}

static void look(void *arg)
{
    uint64_t seen[CONFIG_MAX_STORAGES] = { 0 }; /* the mount that was searched last, and 1 */
    struct volume_info *info = kzalloc(sizeof *info);
    (void)arg;

    while (info) {
        for (unsigned i = 0; i < CONFIG_MAX_STORAGES && volume_info_get(i, info); i++) {
            if (info->state != VOLUME_MOUNTED || seen[i] == info->csv.generation + 1)
                continue;
            seen[i] = info->csv.generation + 1;
            search(info->name);
        }
        start_what_waits();
        thread_sleep_ns(LOOK_NS);
    }
}

void vm_directories_watch(void)
{
    static bool watched;

    if (watched)
        return;
    watched = thread_create("vm search", 0, look, NULL);
    if (!watched)
        log_error("node: no memory to look for VMs on volumes; give the VMs less");
}

void vm_directories_start(const struct config *config)
{
    bool any = false;

    wait_queue_init(&turn, "vm search");
    for (uint32_t i = 0; i < config->storage_count; i++)
        any |= config->storages[i].volume && !config->storages[i].error_count;
    if (any)
        vm_directories_watch();
}
