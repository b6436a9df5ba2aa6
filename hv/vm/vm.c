/* SPDX-License-Identifier: MIT */
/*
 * The VMs that there are: the list, what is told of each, and their consoles' rings.
 *
 * A struct vm is found by name under the list's lock and held by a reference, so that `vm delete` cannot pull it away from
 * under a reader of its console. The list holds one reference, the VM's thread (orders.c) another; the last one frees.
 */
#include "vm/vm.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "vm/machine.h"
#include "vm/machine_net.h"

static struct spinlock list_lock = SPINLOCK_INIT("vm list");
static struct vm *vms[VM_MAX];
static unsigned vm_count;

const char *vm_state_name(enum vm_state state)
{
    static const char *const names[] = { "stopped", "running", "paused", "saved", "failed" };
    return names[state];
}

/* ---- The list ---- */

struct vm *vm_get(const char *name)
{
    struct vm *found = NULL;
    uint64_t flags = spin_lock_irqsave(&list_lock);

    for (unsigned i = 0; i < vm_count && !found; i++)
        if (!strcmp(vms[i]->name, name))
            found = vms[i];
    if (found)
        found->references++;
    spin_unlock_irqrestore(&list_lock, flags);
    return found;
}

static void vm_free(struct vm *vm)
{
    kfree(vm->console_ring, vm->console_mask + 1);
    kfree(vm->strings, vm->strings_bytes);
    kfree(vm, sizeof *vm);
}

void vm_list_remove(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&list_lock);

    for (unsigned i = 0; i < vm_count; i++) {
        if (vms[i] == vm) {
            memmove(&vms[i], &vms[i + 1], (vm_count - i - 1) * sizeof vms[0]);
            vm_count--;
            vm->references--;
            break;
        }
    }
    spin_unlock_irqrestore(&list_lock, flags);
}

void vm_hold(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&list_lock);
    vm->references++;
    spin_unlock_irqrestore(&list_lock, flags);
}

void vm_put(struct vm *vm)
{
    uint64_t flags = spin_lock_irqsave(&list_lock);
    bool last = --vm->references == 0;
    spin_unlock_irqrestore(&list_lock, flags);
    if (last)
        vm_free(vm);
}

enum status vm_no_such(const char *name, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "vm %s: there is no such VM; `vm list` shows those that there are", name);
    return ERR_NOT_FOUND;
}

/* ---- Making one ---- */

static const char *copy_string(struct vm *vm, size_t *used, const char *string)
{
    if (!string)
        return NULL;
    char *copy = vm->strings + *used;
    size_t bytes = strlen(string) + 1;
    memcpy(copy, string, bytes);
    *used += bytes;
    return copy;
}

static size_t string_bytes(const char *string)
{
    return string ? strlen(string) + 1 : 0;
}

static bool copy_config(struct vm *vm, const struct config_vm *config)
{
    size_t bytes = string_bytes(config->kernel) + string_bytes(config->initrd) + string_bytes(config->cmdline) +
                   string_bytes(config->cpu) + string_bytes(config->uuid) + string_bytes(config->owner) +
                   string_bytes(config->volume) + 1;

    for (uint32_t i = 0; i < config->disk_count; i++)
        bytes += string_bytes(config->disks[i]);
    vm->strings = kzalloc(bytes);
    if (!vm->strings)
        return false;
    vm->strings_bytes = bytes;
    size_t used = 0;
    vm->config = *config;
    vm->config.name = vm->name;
    vm->config.kernel = copy_string(vm, &used, config->kernel);
    vm->config.initrd = copy_string(vm, &used, config->initrd);
    vm->config.cmdline = copy_string(vm, &used, config->cmdline);
    vm->config.cpu = copy_string(vm, &used, config->cpu);
    vm->config.uuid = copy_string(vm, &used, config->uuid);
    vm->config.owner = copy_string(vm, &used, config->owner);
    vm->config.volume = copy_string(vm, &used, config->volume);
    for (uint32_t i = 0; i < config->disk_count; i++)
        vm->config.disks[i] = copy_string(vm, &used, config->disks[i]);
    return true;
}

enum status vm_reconfigure(struct vm *vm, const struct config_vm *config, const char *problem, char *text, size_t text_bytes)
{
    struct vm *fresh = kzalloc(sizeof *fresh);

    if (!fresh || !copy_config(fresh, config)) {
        kfree(fresh, sizeof *fresh);
        snprintf(text, text_bytes, "vm %s: the node has no memory left for its configuration; stop another VM", vm->name);
        return ERR_NO_MEMORY;
    }
    uint64_t flags = spin_lock_irqsave(&list_lock);
    char *strings = vm->strings;
    size_t bytes = vm->strings_bytes;
    vm->config = fresh->config;
    vm->config.name = vm->name;
    vm->strings = fresh->strings;
    vm->strings_bytes = fresh->strings_bytes;
    str_copy(vm->problem, sizeof vm->problem, problem);
    spin_unlock_irqrestore(&list_lock, flags);
    kfree(strings, bytes);
    kfree(fresh, sizeof *fresh);
    return OK;
}

/* Of two with one UUID that do not run: a copy has been made later, and two of one moment have an order too. */
static bool is_older(const struct vm *a, const struct vm *b)
{
    int64_t made_a = __atomic_load_n(&a->made_ns, __ATOMIC_RELAXED), made_b = __atomic_load_n(&b->made_ns, __ATOMIC_RELAXED);

    return made_a != made_b ? made_a < made_b : strcmp(a->name, b->name) < 0;
}

bool vm_uuid_taken(const struct vm *vm, const char *uuid, char *name)
{
    bool taken = false;
    uint64_t flags = spin_lock_irqsave(&list_lock);

    for (unsigned i = 0; i < vm_count && !taken; i++) {
        taken = vms[i] != vm && vms[i]->config.uuid && !strcmp(vms[i]->config.uuid, uuid) &&
                (vms[i]->built || is_older(vms[i], vm));
        if (taken)
            str_copy(name, CONFIG_MAX_NAME_BYTES + 1, vms[i]->name);
    }
    spin_unlock_irqrestore(&list_lock, flags);
    return taken;
}

enum status vm_create(const struct config_vm *config, char *text, size_t text_bytes)
{
    struct vm *vm = vm_get(config->name);

    if (vm) {
        vm_put(vm);
        snprintf(text, text_bytes, "vm %s: there is one of that name already; choose another or delete it", config->name);
        return ERR_EXISTS;
    }
    vm = kzalloc(sizeof *vm);
    if (!vm)
        goto no_memory;
    snprintf(vm->name, sizeof vm->name, "%s", config->name);
    vm->console_ring = kzalloc(VM_CONSOLE_BYTES);
    vm->console_mask = VM_CONSOLE_BYTES - 1;
    if (!vm->console_ring || !copy_config(vm, config))
        goto no_memory;
    vm->lock = (struct spinlock)SPINLOCK_INIT("machine");
    vm->console_lock = (struct spinlock)SPINLOCK_INIT("vm console");
    vm->run_deadline_ns = TIME_NEVER;
    wait_queue_init(&vm->queue, "vm");
    wait_queue_init(&vm->done, "vm order");
    vm->since_ns = time_now_ns();
    vm->references = 2; /* the list's and the thread's */
    vm->order_busy = 1; /* whoever finds it before it has its thread waits */
    if (config->volume) /* it is listed from here on, and nobody may take it for one without faults */
        str_copy(vm->problem, sizeof vm->problem, VM_NOT_READ);

    uint64_t flags = spin_lock_irqsave(&list_lock);
    bool room = vm_count < VM_MAX;
    if (room)
        vms[vm_count++] = vm;
    spin_unlock_irqrestore(&list_lock, flags);
    if (!room) {
        vm_free(vm);
        snprintf(text, text_bytes, "vm %s: a node has %u VMs at most; delete one first", config->name, VM_MAX);
        return ERR_NO_MEMORY;
    }
    if (!thread_create(vm->name, thread_pick_cpu(), vm_thread, vm)) {
        vm_list_remove(vm);
        vm->gone = true; /* whoever has found it meanwhile */
        vm_orders_open(vm);
        vm_put(vm);
        snprintf(text, text_bytes, "vm %s: the node has no memory left for its thread; stop another VM", config->name);
        return ERR_NO_MEMORY;
    }
    vm_orders_open(vm);
    return OK;

no_memory:
    if (vm)
        vm_free(vm);
    snprintf(text, text_bytes, "vm %s: the node has no memory left for it; stop another VM", config->name);
    return ERR_NO_MEMORY;
}

/* ---- What is told of them ---- */

void vm_show_cpus(struct vm *vm, bool show)
{
    uint64_t flags = spin_lock_irqsave(&list_lock);
    vm->cpus_shown = show;
    spin_unlock_irqrestore(&list_lock, flags);
}

static void fill_info(const struct vm *vm, struct vm_info *info)
{
    struct page_usage usage = { 0 };

    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%s", vm->name);
    info->state = vm->state;
    snprintf(info->reason, sizeof info->reason, "%s", vm->reason);
    info->since_ns = vm->since_ns;
    info->vcpu_count = vm->config.vcpus;
    info->memory_bytes = vm->config.memory_bytes;
    info->disk_count = vm->config.disk_count;
    info->card_count = vm->config.card_count;
    for (uint32_t i = 0; i < vm->config.card_count; i++) {
        snprintf(info->card[i].network, sizeof info->card[i].network, "%s", vm->config.cards[i].network);
        info->card[i].mac = machine_net_mac(&vm->config, i);
    }
    str_copy(info->volume, sizeof info->volume, vm->config.volume ? vm->config.volume : "");
    str_copy(info->owner, sizeof info->owner, vm->config.owner ? vm->config.owner : "");
    str_copy(info->uuid, sizeof info->uuid, vm->config.uuid ? vm->config.uuid : "");
    str_copy(info->problem, sizeof info->problem, vm->problem);
    info->changed = vm->changed;
    info->starts = vm->starts;
    info->saved_bytes = vm->state == VM_SAVED ? vm->saved_bytes : 0;
    info->reset_count = vm->reset_count;
    snprintf(info->cpu_model, sizeof info->cpu_model, "%s",
             vm->built ? vm->model.name : vm->config.cpu ? vm->config.cpu : "host");
    info->tsc_khz = vm->built || (vm->saved && vm->state == VM_SAVED) ? vm->model.tsc_khz : vm->config.tsc_khz;
    if (vm->built) {
        if (page_owner_usage(vm->core.owner, &usage))
            info->held_bytes = usage.bytes;
        info->guest_ns = machine_now(vm);
        info->guest_zero_ns = vm->clock_base_ns;
        info->apic_virtualization = vm->core.apic_assist;
        for (unsigned i = 0; vm->cpus_shown && i < vm->cpu_count; i++)
            info->exits += vcpu_exit_count(vm->vcpu[i]);
    } else if (vm->state == VM_SAVED && vm->saved) {
        if (page_owner_usage(vm->saved_owner, &usage))
            info->held_bytes = usage.bytes;
        info->guest_ns = vm->saved_guest_ns;
    }
}

bool vm_info_get(unsigned index, struct vm_info *info)
{
    uint64_t flags = spin_lock_irqsave(&list_lock);
    bool found = index < vm_count;

    if (found)
        fill_info(vms[index], info);
    spin_unlock_irqrestore(&list_lock, flags);
    return found;
}

bool vm_info_find(const char *name, struct vm_info *info)
{
    struct vm *vm = vm_get(name);

    if (!vm)
        return false;
    uint64_t flags = spin_lock_irqsave(&list_lock);
    fill_info(vm, info);
    spin_unlock_irqrestore(&list_lock, flags);
    vm_put(vm);
    return true;
}

bool vm_disk_get(const char *name, unsigned i, char path[VM_DISK_BYTES])
{
    struct vm *vm = vm_get(name);

    if (!vm)
        return false;
    uint64_t flags = spin_lock_irqsave(&list_lock);
    bool found = i < vm->config.disk_count;
    if (found)
        str_copy(path, VM_DISK_BYTES, vm->config.disks[i]);
    spin_unlock_irqrestore(&list_lock, flags);
    vm_put(vm);
    return found;
}

/* ---- Console ---- */

void vm_console_output(struct vm *vm, const void *bytes, size_t count)
{
    const char *from = bytes;

    spin_lock(&vm->console_lock);
    for (size_t i = 0; i < count; i++)
        vm->console_ring[vm->console_written++ & vm->console_mask] = from[i];
    spin_unlock(&vm->console_lock);
}

/* With the lock held: the oldest position that the ring still has. */
static uint64_t console_oldest(const struct vm *vm)
{
    uint64_t bytes = vm->console_mask + 1;

    return MAX(vm->console_oldest, vm->console_written > bytes ? vm->console_written - bytes : 0);
}

/* Another size for the ring; what fits of the newest bytes stays. Without memory it stays as it is. */
static void console_resize(struct vm *vm, uint64_t bytes)
{
    char *ring = kzalloc(bytes), *old = ring;
    uint64_t old_bytes = bytes;

    if (!ring)
        return;
    spin_lock(&vm->console_lock);
    uint64_t oldest = console_oldest(vm);
    if (vm->console_written - oldest > MIN(bytes, VM_CONSOLE_BYTES))
        oldest = vm->console_written - MIN(bytes, VM_CONSOLE_BYTES);
    if (vm->console_mask + 1 != bytes) {
        for (uint64_t at = oldest, run; at < vm->console_written; at += run) {
            uint64_t from = at & vm->console_mask, to = at & (bytes - 1);
            run = MIN(MIN(vm->console_mask + 1 - from, bytes - to), vm->console_written - at);
            memcpy(ring + to, vm->console_ring + from, run);
        }
        old = vm->console_ring;
        old_bytes = vm->console_mask + 1;
        vm->console_ring = ring;
        vm->console_mask = bytes - 1;
        vm->console_oldest = oldest;
    }
    spin_unlock(&vm->console_lock);
    kfree(old, old_bytes);
}

bool vm_console_open(const char *name, uint64_t *position)
{
    struct vm *vm = vm_get(name);

    if (!vm)
        return false;
    console_resize(vm, VM_CONSOLE_OPEN_BYTES);
    spin_lock(&vm->console_lock);
    *position = console_oldest(vm);
    spin_unlock(&vm->console_lock);
    vm_put(vm);
    return true;
}

void vm_console_close(const char *name)
{
    struct vm *vm = vm_get(name);

    if (!vm)
        return;
    console_resize(vm, VM_CONSOLE_BYTES);
    vm_put(vm);
}

size_t vm_console_read(const char *name, uint64_t *position, void *bytes, size_t count, uint64_t *lost)
{
    struct vm *vm = vm_get(name);
    char *to = bytes;
    size_t copied = 0;

    *lost = 0;
    if (!vm)
        return 0;
    spin_lock(&vm->console_lock);
    uint64_t oldest = console_oldest(vm);
    if (*position < oldest) {
        *lost = oldest - *position;
        *position = oldest;
    }
    while (copied < count && *position < vm->console_written)
        to[copied++] = vm->console_ring[(*position)++ & vm->console_mask];
    spin_unlock(&vm->console_lock);
    vm_put(vm);
    return copied;
}

size_t vm_console_write(const char *name, const void *bytes, size_t count)
{
    struct vm *vm = vm_get(name);
    const uint8_t *from = bytes;
    size_t taken = 0;

    if (!vm)
        return 0;
    spin_lock(&vm->console_lock);
    while (taken < count && vm->input_count < MACHINE_CONSOLE_INPUT)
        vm->input[(vm->input_first + vm->input_count++) % MACHINE_CONSOLE_INPUT] = from[taken++];
    spin_unlock(&vm->console_lock);
    vm_signal(vm, ORDER_WORK);
    vm_put(vm);
    return taken;
}
