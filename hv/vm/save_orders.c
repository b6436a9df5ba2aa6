/* SPDX-License-Identifier: MIT */
/*
 * The orders save, restore and describe, as a VM's thread carries them out: parking before, threads and states after.
 * save.c does the work between.
 *
 * At no moment is there neither a machine nor a whole stream: a machine is taken down when its stream is finished, and
 * a stream is dropped when the machine that was made of it is whole. What fails in between leaves the one that there is.
 */
#include <stdio.h>

#include "kernel/log.h"
#include "vm/machine_net.h"
#include "vm/save.h"
#include "vm/saved.h"
#include "vm/vm_directory.h"

/* The memory that the stream is in. */
static void free_saved(struct vm *vm)
{
    struct saved *saved = vm->saved;

    vm->saved = NULL;
    saved_destroy(saved);
}

enum status vm_drop_saved(struct vm *vm, char *text, size_t text_bytes)
{
    free_saved(vm);
    return vm->config.volume && vm->state == VM_SAVED ? vm_directory_drop(vm, text, text_bytes) : OK;
}

/* What the guest itself has brought about, and this thread has not looked at yet, comes before a save. */
static bool guest_was_first(const struct vm *vm)
{
    return (__atomic_load_n(&vm->orders, __ATOMIC_SEQ_CST) | vm->deferred_orders) &
           (ORDER_GUEST_OFF | ORDER_GUEST_RESET | ORDER_FAILED);
}

/*
 * ERR_CANCELLED: the volume failed in the moment in which the state got its name. A guest that went on then, and was found as saved after the node's end, would go back to where its disks
 * no longer are.
 */
static enum status save_to_volume(struct vm *vm, bool paused, char *text, size_t text_bytes)
{
    char why[VM_TEXT_BYTES] = "";
    enum status status = vm_directory_save(vm, paused, text, text_bytes);

    if (status == ERR_CANCELLED && vm_directory_drop(vm, why, sizeof why) == OK)
        status = ERR_IO;
    if (status == ERR_CANCELLED)
        snprintf(text, text_bytes,
                 "vm %s: its volume failed in the last step: it is paused, and its state may be saved or not; see to the "
                 "volume, then `vm resume %s` and never restore that state, or `vm stop %s --hard`",
                 vm->name, vm->name, vm->name);
    return status;
}

enum status vm_do_save(struct vm *vm, char *text, size_t text_bytes)
{
    bool paused = vm->state == VM_PAUSED;
    enum status status = ERR_BUSY;

    if (vm->state != VM_RUNNING && !paused) {
        snprintf(text, text_bytes, "vm %s: it is %s; only a running or paused VM can be saved", vm->name,
                 vm_state_name(vm->state));
        return ERR_BUSY;
    }
    if (!paused)
        vm_park_all(vm);
    if (guest_was_first(vm))
        snprintf(text, text_bytes, "vm %s: the guest is just going down by itself; `vm show %s` tells how", vm->name,
                 vm->name);
    else if (save_quiesce(vm, text, text_bytes)) {
        if (!paused)
            vm_stop_clocks(vm);
        if (vm->config.volume) {
            status = vm_directory_same(vm, text, text_bytes);
            if (status == OK)
                status = save_to_volume(vm, paused, text, text_bytes);
        } else {
            status = save_write(vm, paused, NULL, text, text_bytes);
        }
        if (status == OK) {
            if (vm->saved)
                vm->saved_bytes = vm->saved->bytes;
            vm->saved_guest_ns = machine_now(vm);
            vm_take_down(vm);
            vm_set_state(vm, VM_SAVED);
            return OK;
        }
        save_resume_devices(vm);
        if (status == ERR_CANCELLED) { /* its clocks stand */
            vm_set_state(vm, VM_PAUSED);
            return status;
        }
    }
    if (!paused) {
        vm_start_clocks(vm);
        vm_unpark_all(vm);
    }
    return status;
}

enum status vm_do_restore(struct vm *vm, char *text, size_t text_bytes)
{
    enum status status;
    bool paused;

    if (vm_starts_refused(vm, text, text_bytes))
        return ERR_CANCELLED;
    if (vm->state != VM_SAVED) {
        snprintf(text, text_bytes, "vm %s: it is %s and has no saved state; `vm save %s` makes one of a running VM",
                 vm->name, vm_state_name(vm->state), vm->name);
        return ERR_BUSY;
    }
    if (vm->config.volume) {
        status = vm_directory_load(vm, text, text_bytes);
        if (status == OK)
            status = vm_directory_check(vm, text, text_bytes);
        if (status == OK)
            status = vm_directory_fetch(vm, text, text_bytes);
        if (status != OK)
            return status;
    }
    status = save_read(vm, &paused, text, text_bytes);
    if (status == OK)
        status = vm_start_threads(vm, REQ_PARK, text, text_bytes);
    if (status == OK) /* from a volume: before anything of the guest goes on, see vm_directory.h */
        status = vm_drop_saved(vm, text, text_bytes);
    if (status != OK) {
        vm_take_down(vm);
        if (vm->config.volume)
            free_saved(vm);
        snprintf(vm->reason, sizeof vm->reason, "%s", text);
        log_error("%s", text);
        return status;
    }
    if (machine_mark_disks(vm, text, text_bytes) != OK) /* there is no way back any more */
        log_warning("%s", text);
    text[0] = '\0';
    if (!paused)
        vm_start_clocks(vm);
    save_resume_devices(vm);
    if (!paused)
        vm_unpark_all(vm);
    vm->changed = false;
    vm_set_state(vm, paused ? VM_PAUSED : VM_RUNNING);
    if (paused)
        snprintf(text, text_bytes, "vm %s: restored, and paused as it was; `vm resume %s` lets it run", vm->name,
                 vm->name);
    vm_signal(vm, ORDER_WORK);
    if (!paused)
        machine_nets_announce(vm);
    return OK;
}

enum status vm_do_describe(struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->state != VM_SAVED) {
        snprintf(text, text_bytes, "vm %s: it is %s and has no saved state; `vm save %s` makes one of a running VM",
                 vm->name, vm_state_name(vm->state), vm->name);
        return ERR_NOT_FOUND;
    }
    enum status status = vm->config.volume ? vm_directory_fetch(vm, text, text_bytes) : OK;
    if (status == OK)
        save_describe(vm, vm->order_argument);
    if (vm->config.volume)
        free_saved(vm);
    return status;
}
