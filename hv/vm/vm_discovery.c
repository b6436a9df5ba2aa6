/* SPDX-License-Identifier: MIT */
/*
 * Finding the VMs of a volume when it is mounted, and starting those that are to start. One thread for all volumes,
 * which looks twice a second whether there is something to do: everything it does may wait for a disk.
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

/* ---- Finding ---- */

/* Its vm.conf, when its volume is mounted; the argument is not used. */
static enum status found(struct vm *vm, void *arg, char *text, size_t text_bytes)
{
    (void)arg;
    if (vm->state != VM_STOPPED && vm->state != VM_SAVED)
        return OK;
    enum status status = vm_directory_load(vm, text, text_bytes);
    if (status != OK)
        return status;
    if (vm->problem[0]) {
        log_error("vm %s: %s", vm->name, vm->problem);
        return OK;
    }
    vm->starts = vm->config.start == CONFIG_START_AUTO && vm->state == VM_STOPPED;
    if (vm->starts && vm_directory_check(vm, text, text_bytes) != OK) {
        vm->starts = false;
        log_warning("%s", text);
    }
    return OK;
}

static void take(const char *volume, const char *name)
{
    struct vm_info info;
    struct config_vm config;
    char text[VM_TEXT_BYTES] = "";

    if (!config_name_ok(name)) {
        log_error("volume %s: the directory %s has a vm.conf and a name that no VM can have; rename it: up to 63 "
                  "letters, digits, '.', "
                  "'_' and '-', a letter or digit first",
                  volume, name);
        return;
    }
    if (vm_info_find(name, &info) && strcmp(info.volume, volume)) {
        log_error("vm %s: there is one in " VOLUME_ROOT
                  "%s/%s too, which this node does not take: there is one of that name already, "
                  "%s%s; rename one of the two",
                  name, volume, name, info.volume[0] ? "on volume " : "not on a volume", info.volume);
        return;
    }
    config_vm_defaults(&config, name);
    config.volume = volume;
    enum status status = vm_info_find(name, &info) ? OK : vm_create(&config, text, sizeof text);
    if (status == OK)
        status = vm_call(name, found, NULL, text, sizeof text);
    if (status != OK)
        log_error("%s", text);
}

static void search(const char *volume)
{
    char *name = kzalloc(CSV_NAME_BYTES + 1), text[VOLUME_TEXT];
    enum status status = name ? OK : ERR_NO_MEMORY;
    uint64_t cursor = 0;

    while (status == OK) {
        status = vm_directory_next(volume, &cursor, name, text, sizeof text);
        if (status == OK)
            take(volume, name);
    }
    if (status != ERR_NOT_FOUND)
        log_error("volume %s: its VMs could not be looked for (%s); `csv mount %s` tries again", volume,
                  status_name(status), volume);
    kfree(name, CSV_NAME_BYTES + 1);
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

void vm_directories_start(const struct config *config)
{
    bool any = false;

    for (uint32_t i = 0; i < config->storage_count; i++)
        any |= config->storages[i].volume && !config->storages[i].error_count;
    if (any && !thread_create("vm search", 0, look, NULL))
        log_error("node: no memory to look for VMs on volumes; give the VMs less");
}
