/* SPDX-License-Identifier: MIT */
/*
 * The life of a VM: its thread, its mailbox and its states.
 *
 * The VM's thread is the only one that changes vm->state, builds, boots, parks or takes down. An order from outside is a
 * bit; the thread carries out what it finds, guests' own wishes (power-off, reset) and faults included, one after the
 * other. Whoever gave an order waits for vm->order_done; orders of several admins come one at a time (order_busy).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "vm/machine.h"
#include "vm/machine_net.h"
#include "vm/vm.h"
#include "vm/vm_directory.h"
#include "vmm/core.h"

#define RESETS_AT_ONCE 8
#define RESET_WINDOW_NS (10 * NS_PER_S)

_Static_assert(VM_ORDER_COUNT <= 16, "orders from outside are bits 0 to 15, those from inside begin at ORDER_WORK");

/* ---- The mailbox ---- */

void vm_signal(struct vm *vm, uint32_t orders)
{
    __atomic_fetch_or(&vm->orders, orders, __ATOMIC_SEQ_CST);
    wake_all(&vm->queue);
}

void vm_fail(struct vm *vm, const char *format, ...)
{
    va_list args;

    spin_lock(&vm->lock);
    if (!vm->reason[0]) {
        va_start(args, format);
        vsnprintf(vm->reason, sizeof vm->reason, format, args);
        va_end(args);
        log_error("vm %s: stopped: %s", vm->name, vm->reason);
    }
    __atomic_fetch_or(&vm->orders, ORDER_FAILED, __ATOMIC_SEQ_CST);
    spin_unlock(&vm->lock);
    wake_all(&vm->queue);
}

void vm_set_state(struct vm *vm, enum vm_state state)
{
    vm->state = state;
    vm->since_ns = time_now_ns();
    spin_lock(&vm->lock);
    /* A guest may fail before its start has been told; the reason then belongs to what comes next. */
    if (state != VM_FAILED && !(__atomic_load_n(&vm->orders, __ATOMIC_SEQ_CST) & ORDER_FAILED))
        vm->reason[0] = '\0';
    spin_unlock(&vm->lock);
    log_info("vm %s: %s", vm->name, vm_state_name(state));
}

/* ---- Carrying out: the VM's thread ---- */

void vm_park_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vcpu_request(vm->vcpu[i], REQ_PARK);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        if (!vm->vcpu[i]->stopped)
            vcpu_park(vm->vcpu[i]);
}

void vm_unpark_all(struct vm *vm)
{
    /* A vCPU that has stopped itself must not go on before this thread has seen why; it does so next. */
    if (__atomic_load_n(&vm->orders, __ATOMIC_SEQ_CST) & (ORDER_FAILED | ORDER_GUEST_RESET | ORDER_GUEST_OFF))
        return;
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vcpu_unpark(vm->vcpu[i]);
}

/* The guest's clocks stand still from vm_stop_clocks to vm_start_clocks. All vCPUs are parked. */
void vm_stop_clocks(struct vm *vm)
{
    vm->paused_at_tsc = rdtsc();
    vm->paused_at_ns = time_tsc_to_ns(vm->paused_at_tsc);
    vm->clock_stopped = true;
}

void vm_start_clocks(struct vm *vm)
{
    uint64_t tsc = rdtsc(), stood_ns = time_tsc_to_ns(tsc) - vm->paused_at_ns;

    if (!vm->clock_stopped)
        return;
    uint64_t stood_tsc = tsc_scale(vm->core.tsc_multiplier, tsc) - machine_tsc(vm);
    vm->clock_stopped = false;
    vm->clock_base_ns += stood_ns;
    vm->tsc_offset -= stood_tsc;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        vm->vcpu[i]->tsc_offset -= stood_tsc;
        vm->vcpu[i]->tsc_offset_changed = true;
    }
    spin_lock(&vm->lock);
    vrtc_set_world(&vm->rtc, time_unix_ns(), machine_now(vm));
    spin_unlock(&vm->lock);
}

static void stop_threads(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        if (vm->vcpu[i])
            vcpu_request(vm->vcpu[i], REQ_STOP);
    /* Waits even for one that has ended: its thread may still be letting go of the queue's lock. */
    for (unsigned i = 0; i < vm->cpu_count; i++)
        if (vm->vcpu[i])
            vcpu_stop(vm->vcpu[i]);
}

void vm_take_down(struct vm *vm)
{
    if (!vm->built)
        return;
    vm_show_cpus(vm, false);
    stop_threads(vm);
    machine_destroy(vm);
}

/* `requests`: what the vCPUs find at once; REQ_PARK keeps them out of the guest. */
enum status vm_start_threads(struct vm *vm, uint32_t requests, char *text, size_t text_bytes)
{
    unsigned placed[CONFIG_MAX_VCPUS];

    machine_apic_page_update(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        struct vcpu *vcpu = vm->vcpu[i];
        char name[32];

        snprintf(name, sizeof name, "%.20s/%u", vm->name, i);
        vcpu->requests = REQ_PARK; /* none enters before all are there */
        vcpu->stopped = false;
        vcpu->parked = false;
        unsigned where = placed[i] = thread_guest_cpu_take(placed, i, core_apart());
        if (!thread_create(name, where, vcpu_main, vcpu)) {
            thread_guest_cpu_give(where);
            vcpu->stopped = true;
            snprintf(text, text_bytes, "vm %s: no memory for the thread of vCPU %u; stop another VM", vm->name, i);
            return ERR_NO_MEMORY;
        }
    }
    vm_show_cpus(vm, true);
    vm_park_all(vm); /* waits for each: what is unparked, now or later, is in the park */
    if (!(requests & REQ_PARK))
        vm_unpark_all(vm);
    return OK;
}

static bool starts_refused;

void vm_refuse_starts(void)
{
    __atomic_store_n(&starts_refused, true, __ATOMIC_SEQ_CST);
}

bool vm_starts_refused(const struct vm *vm, char *text, size_t text_bytes)
{
    bool refused = __atomic_load_n(&starts_refused, __ATOMIC_SEQ_CST);

    if (refused)
        snprintf(text, text_bytes, "vm %s: the node is going down; start it when the node is up again", vm->name);
    return refused;
}

static enum status do_start(struct vm *vm, char *text, size_t text_bytes)
{
    enum status status;

    if (vm_starts_refused(vm, text, text_bytes))
        return ERR_CANCELLED;
    vm->starts = false;
    if (vm->config.volume && !vm->built) {
        status = vm_directory_load(vm, text, text_bytes);
        if (status == OK && vm->state == VM_STOPPED)
            status = vm_directory_check(vm, text, text_bytes);
        if (status != OK)
            return status;
    }
    if (vm->state == VM_SAVED) {
        snprintf(text, text_bytes, "vm %s: its state is saved; `vm restore %s` lets it go on, `vm stop %s --hard` drops it",
                 vm->name, vm->name, vm->name);
        return ERR_BUSY;
    }
    if (vm->state != VM_STOPPED) {
        snprintf(text, text_bytes, "vm %s: it is %s already; `vm stop %s` first", vm->name, vm_state_name(vm->state), vm->name);
        return ERR_BUSY;
    }
    if (vm->config.error_count) {
        snprintf(text, text_bytes, "vm %s: its section of tasuki.conf has errors; `config show` lists them", vm->name);
        return ERR_INVALID;
    }
    vm->changed = false;
    status = machine_build(vm, NULL, text, text_bytes);
    if (status == OK)
        status = machine_boot(vm, text, text_bytes);
    if (status == OK)
        status = machine_mark_disks(vm, text, text_bytes);
    if (status == OK)
        status = vm_start_threads(vm, 0, text, text_bytes);
    if (status != OK) {
        vm_take_down(vm);
        return status;
    }
    vm_set_state(vm, VM_RUNNING);
    return OK;
}

static enum status do_stop(struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->state == VM_STOPPED) {
        snprintf(text, text_bytes, "vm %s: it is stopped already; `vm start %s` starts it", vm->name, vm->name);
        return ERR_BUSY;
    }
    if (vm->state == VM_SAVED && vm->config.volume) { /* another node's state is not this one's to drop */
        enum status status = vm_directory_load(vm, text, text_bytes);
        if (status == OK)
            status = vm_directory_owned(vm, text, text_bytes);
        if (status != OK && status != ERR_NOT_FOUND)
            return status;
        text[0] = '\0';
    }
    vm_take_down(vm);
    bool saved = vm->state == VM_SAVED;
    enum status status = vm_drop_saved(vm, text, text_bytes);
    if (status != OK)
        return status;
    if (saved)
        snprintf(text, text_bytes, "vm %s: stopped; its saved state is dropped", vm->name);
    vm->waits_for_disk = false;
    vm_set_state(vm, VM_STOPPED);
    return OK;
}

static enum status do_reset(struct vm *vm, char *text, size_t text_bytes)
{
    enum status status;

    if (!vm->built) {
        snprintf(text, text_bytes, "vm %s: it is %s; `vm start %s` boots it", vm->name, vm_state_name(vm->state), vm->name);
        return ERR_BUSY;
    }
    vm_park_all(vm);
    /* What the guest did to itself before it was parked ends with the life that it belongs to. */
    __atomic_fetch_and(&vm->orders, ~(uint32_t)(ORDER_FAILED | ORDER_GUEST_RESET | ORDER_GUEST_OFF), __ATOMIC_SEQ_CST);
    vm->deferred_orders = 0;
    vm_start_clocks(vm);
    machine_reset(vm);
    vm->reason[0] = '\0';
    status = machine_boot(vm, text, text_bytes);
    if (status != OK) {
        vm_take_down(vm);
        vm_set_state(vm, VM_STOPPED);
        return status;
    }
    vm->reset_count++;
    vm->waits_for_disk = false;
    vm_set_state(vm, VM_RUNNING);
    vm_unpark_all(vm);
    vm_signal(vm, ORDER_DISKS); /* one that is away still is */
    return OK;
}

static enum status do_pause(struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->state == VM_PAUSED && vm->waits_for_disk) {
        vm->waits_for_disk = false; /* from now on the admin's pause */
        vm_set_state(vm, VM_PAUSED);
        return OK;
    }
    if (vm->state != VM_RUNNING) {
        snprintf(text, text_bytes, "vm %s: it is %s; only a running VM can be paused", vm->name, vm_state_name(vm->state));
        return ERR_BUSY;
    }
    vm_park_all(vm);
    vm_stop_clocks(vm);
    vm_set_state(vm, VM_PAUSED);
    return OK;
}

static void resume(struct vm *vm)
{
    vm->waits_for_disk = false;
    vm_start_clocks(vm);
    vm_set_state(vm, VM_RUNNING);
    uint32_t deferred = vm->deferred_orders;
    vm->deferred_orders = 0;
    if (!deferred)
        vm_unpark_all(vm);
    vm_signal(vm, ORDER_WORK | deferred);
    machine_nets_announce(vm);
}

static enum status do_resume(struct vm *vm, char *text, size_t text_bytes)
{
    char why[STORAGE_TEXT];

    if (vm->state != VM_PAUSED) {
        snprintf(text, text_bytes, "vm %s: it is %s; only a paused VM can be resumed", vm->name, vm_state_name(vm->state));
        return ERR_BUSY;
    }
    if (machine_disk_fenced(vm) && machine_disk_lost(vm, why)) {
        snprintf(text, text_bytes, "vm %s: another node has its disk, and it does not go on; stop it (%.120s)", vm->name, why);
        return ERR_FENCED;
    }
    if (machine_disk_lost(vm, why)) {
        vm->waits_for_disk = true;
        snprintf(text, text_bytes, "vm %s: its disk is away; it goes on by itself when that is back (%.100s)", vm->name, why);
        return ERR_BUSY;
    }
    machine_retry_disks(vm);
    resume(vm);
    return OK;
}

/* Why it waits; said again where that is another reason now. */
static void tell_why(struct vm *vm, const char *why)
{
    bool fenced = machine_disk_fenced(vm);
    char reason[sizeof vm->reason];

    snprintf(reason, sizeof reason, "%s%.200s", fenced ? "" : "waits for its disk: ", why);
    if (fenced && strcmp(reason, vm->reason))
        log_error("vm %s: another node has its disk; what it had yet to write is discarded, and it does not go on: stop it. %s",
                  vm->name, why);
    else if (!vm->reason[0])
        log_error("vm %s: paused, since its disk is away: %s; it goes on when the disk is back", vm->name, why);
    memcpy(vm->reason, reason, sizeof reason);
}

/* The same for a write that its volume does not take. */
static void tell_stuck(struct vm *vm, const char *why)
{
    if (strcmp(vm->reason, why))
        log_error("vm %s: paused, since a write of it has to wait: %s; it goes on when that is done, and `vm resume %s` tries "
                  "again", vm->name, why, vm->name);
    str_copy(vm->reason, sizeof vm->reason, why);
}

/*
 * A storage is lost, or is back, or its unit has grown; or a volume does not take a write, or has taken it. A guest that waits for its disk stands
 * still, clocks and all, so that no time-out of its own ends what goes on when the storage is back.
 */
static void follow_disks(struct vm *vm)
{
    char why[STORAGE_TEXT], text[VM_TEXT_BYTES];

    machine_tell_grown_disks(vm);
    bool lost = machine_disk_lost(vm, why), stuck = !lost && machine_disk_stuck(vm, why);

    if ((lost || stuck) && vm->state == VM_RUNNING && do_pause(vm, text, sizeof text) == OK) {
        vm->waits_for_disk = true;
        vm->reason[0] = '\0';
        (lost ? tell_why : tell_stuck)(vm, why);
    } else if ((lost || stuck) && vm->state == VM_PAUSED && vm->waits_for_disk) {
        (lost ? tell_why : tell_stuck)(vm, why);
    } else if (!lost && !stuck && vm->state == VM_PAUSED && vm->waits_for_disk) {
        log_info("vm %s: its disk is back", vm->name);
        resume(vm);
    }
}

static enum status do_shutdown(struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->state != VM_RUNNING) {
        snprintf(text, text_bytes, "vm %s: it is %s; only a running VM can be asked to shut down", vm->name,
                 vm_state_name(vm->state));
        return ERR_BUSY;
    }
    spin_lock(&vm->lock);
    bool listens = vpm_button_enabled(&vm->pm);
    if (listens)
        vpm_power_button(&vm->pm);
    spin_unlock(&vm->lock);
    if (!listens) {
        snprintf(text, text_bytes, "vm %s: the guest does not listen to its power button; `vm stop %s --hard` pulls the plug",
                 vm->name, vm->name);
        return ERR_UNSUPPORTED;
    }
    return OK;
}

/* What `vm inspect` shows of a vCPU: copied while it is parked, printed when it runs again. */
struct cpu_snapshot {
    struct cpu_state state;
    uint64_t exit_count, exits[EXIT_KINDS];
    bool waits_for_sipi;
    struct vlapic_summary apic;
    uint64_t now_ns;
};

static void log_cpu(const struct vm *vm, unsigned id, const struct cpu_snapshot *cpu)
{
    const struct cpu_state *s = &cpu->state;

    log_info("vm %s: vCPU %u: rip %lx rsp %lx rflags %lx cs %x/%lx%s%s", vm->name, id, s->rip, s->gpr[GPR_RSP], s->rflags,
             s->seg[SEG_CS].selector, s->seg[SEG_CS].base, s->halted ? ", halted" : "",
             cpu->waits_for_sipi ? ", waits for SIPI" : "");
    log_info("  rax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx rbp %lx", s->gpr[GPR_RAX], s->gpr[GPR_RBX], s->gpr[GPR_RCX],
             s->gpr[GPR_RDX], s->gpr[GPR_RSI], s->gpr[GPR_RDI], s->gpr[GPR_RBP]);
    log_info("  cr0 %lx cr2 %lx cr3 %lx cr4 %lx efer %lx pending %u/%u shadow %x exits %lu", s->cr0, s->cr2, s->cr3, s->cr4,
             s->efer, s->pending.type, s->pending.vector, s->interruptibility, cpu->exit_count);
    log_info("  apic base %lx svr %x tpr %x ppr %x requested %x in service %x%s; timer %x%s %lu us", cpu->apic.base_msr,
             cpu->apic.svr, cpu->apic.tpr, cpu->apic.ppr, cpu->apic.requested, cpu->apic.in_service,
             cpu->apic.lent ? " (by the CPU)" : "", cpu->apic.lvt_timer,
             cpu->apic.timer_ns == VTIMER_OFF ? " off," : cpu->apic.timer_ns < cpu->now_ns ? " late by" : " in",
             cpu->apic.timer_ns == VTIMER_OFF        ? 0
             : cpu->apic.timer_ns < cpu->now_ns ? (cpu->now_ns - cpu->apic.timer_ns) / 1000
                                                : (cpu->apic.timer_ns - cpu->now_ns) / 1000);
    for (unsigned kind = 0; kind < EXIT_KINDS; kind++)
        if (cpu->exits[kind])
            log_info("  exits of kind %u: %lu", kind, cpu->exits[kind]);
}

static enum status do_inspect(struct vm *vm, char *text, size_t text_bytes)
{
    if (!vm->built) {
        snprintf(text, text_bytes, "vm %s: it is %s and has no registers; start it first", vm->name,
                 vm_state_name(vm->state));
        return ERR_BUSY;
    }
    struct cpu_snapshot *snapshot = kzalloc(vm->cpu_count * sizeof *snapshot);
    if (!snapshot) {
        snprintf(text, text_bytes, "vm %s: the node has no memory left to look at it; stop another VM", vm->name);
        return ERR_NO_MEMORY;
    }
    if (vm->state == VM_RUNNING)
        vm_park_all(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        snapshot[i].state = vm->vcpu[i]->state;
        snapshot[i].exit_count = vcpu_exit_count(vm->vcpu[i]);
        memcpy(snapshot[i].exits, vm->vcpu[i]->exits, sizeof snapshot[i].exits);
        snapshot[i].waits_for_sipi = vm->cpu[i]->waits_for_sipi;
        snapshot[i].now_ns = machine_now(vm);
        vlapic_summarize(&vm->cpu[i]->apic, &snapshot[i].apic);
    }
    if (vm->state == VM_RUNNING)
        vm_unpark_all(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        log_cpu(vm, i, &snapshot[i]);
        thread_yield();
    }
    kfree(snapshot, vm->cpu_count * sizeof *snapshot);
    return OK;
}

static enum status do_deadline(struct vm *vm, char *text, size_t text_bytes)
{
    const uint64_t *deadline_ns = vm->order_argument;

    (void)text;
    (void)text_bytes;
    vm->run_deadline_ns = *deadline_ns; /* of a VM that does not run: for its next start */
    if (vm->built)
        vmm_set_deadline(&vm->core, vm->vcpu, vm->cpu_count, *deadline_ns);
    machine_nets_deadline(vm);
    vm_signal(vm, ORDER_WORK);
    return OK;
}

/* Last of all orders. Out of the list first, so that nobody finds it any more; those who have it hold a reference. */
static enum status do_delete(struct vm *vm, char *text, size_t text_bytes)
{
    if (vm->state != VM_STOPPED && vm->state != VM_SAVED) {
        snprintf(text, text_bytes, "vm %s: it is %s; `vm stop %s --hard` first", vm->name, vm_state_name(vm->state), vm->name);
        return ERR_BUSY;
    }
    const bool *disks = vm->order_argument;
    enum status status = vm->config.volume ? vm_directory_remove(vm, *disks, text, text_bytes) : vm_drop_saved(vm, text, text_bytes);
    if (status != OK)
        return status;
    vm_list_remove(vm);
    vm_take_down(vm);
    vm->gone = true;
    return OK;
}

struct vm_called {
    vm_call_fn *fn;
    void *arg;
};

static enum status do_call(struct vm *vm, char *text, size_t text_bytes)
{
    const struct vm_called *called = vm->order_argument;

    return called->fn(vm, called->arg, text, text_bytes);
}

static enum status (*const order_functions[VM_ORDER_COUNT])(struct vm *vm, char *text, size_t text_bytes) = {
    [VM_ORDER_START] = do_start, [VM_ORDER_STOP] = do_stop,   [VM_ORDER_SHUTDOWN] = do_shutdown,
    [VM_ORDER_RESET] = do_reset, [VM_ORDER_PAUSE] = do_pause, [VM_ORDER_RESUME] = do_resume,
    [VM_ORDER_INSPECT] = do_inspect, [VM_ORDER_SAVE] = vm_do_save, [VM_ORDER_RESTORE] = vm_do_restore,
    [VM_ORDER_DESCRIBE] = vm_do_describe, [VM_ORDER_DIRTY_START] = track_start, [VM_ORDER_DIRTY_COLLECT] = track_collect,
    [VM_ORDER_DIRTY_STOP] = track_stop, [VM_ORDER_DEADLINE] = do_deadline, [VM_ORDER_DELETE] = do_delete,
    [VM_ORDER_CALL] = do_call,
};

/*
 * A guest that falls over again and again must not fill the log and the CPU with its resets: after RESETS_AT_ONCE of
 * them within RESET_WINDOW_NS it is left as it is, for somebody to look at.
 */
static bool resets_too_often(struct vm *vm)
{
    uint64_t now = time_now_ns();

    if (now - vm->reset_window_ns > RESET_WINDOW_NS) {
        vm->reset_window_ns = now;
        vm->resets_in_window = 0;
    }
    return ++vm->resets_in_window > RESETS_AT_ONCE;
}

/* What the guest brought about by itself. */
static void follow_guest(struct vm *vm, uint32_t orders)
{
    char text[VM_TEXT_BYTES] = "";

    if (!vm->built)
        return;
    if ((orders & ORDER_GUEST_RESET) && vm->state == VM_RUNNING && resets_too_often(vm)) {
        vm_fail(vm, "its guest was reset %u times within %lu s; `vm reset %s` tries once more", RESETS_AT_ONCE,
                RESET_WINDOW_NS / NS_PER_S, vm->name);
        orders = (orders & ~(uint32_t)ORDER_GUEST_RESET) | ORDER_FAILED;
    }
    if ((orders & ORDER_FAILED) && (vm->state == VM_RUNNING || vm->state == VM_PAUSED)) {
        if (vm->state == VM_RUNNING) {
            vm_park_all(vm);
            vm_stop_clocks(vm);
        }
        vm_set_state(vm, VM_FAILED);
        (void)!do_inspect(vm, text, sizeof text); /* its registers, for whoever wants to know why */
    }
    if (orders & ORDER_DISKS)
        follow_disks(vm);
    if (orders & ORDER_GUEST_OFF) {
        log_info("vm %s: the guest switched itself off", vm->name);
        (void)!do_stop(vm, text, sizeof text);
    }
    if ((orders & ORDER_GUEST_RESET) && vm->state == VM_PAUSED)
        vm->deferred_orders |= ORDER_GUEST_RESET; /* the vCPU that asked waits for it; it comes with `vm resume` */
    if ((orders & ORDER_GUEST_RESET) && vm->state == VM_RUNNING && do_reset(vm, text, sizeof text) != OK)
        log_error("%s", text);
}

static void carry_out(struct vm *vm, uint32_t orders)
{
    follow_guest(vm, orders);
    for (unsigned i = 0; i < VM_ORDER_COUNT; i++) {
        if (!(orders & BIT(i)))
            continue;
        vm->result_text[0] = '\0';
        vm->result = order_functions[i](vm, vm->result_text, sizeof vm->result_text);
        wake_all_set(&vm->done, &vm->order_done);
    }
}

void vm_thread(void *arg)
{
    struct vm *vm = arg;

    for (;;) {
        wait_event(&vm->queue, __atomic_load_n(&vm->orders, __ATOMIC_SEQ_CST));
        uint32_t orders = __atomic_exchange_n(&vm->orders, 0, __ATOMIC_SEQ_CST);
        if (orders & ~(uint32_t)ORDER_WORK)
            carry_out(vm, orders);
        if (vm->gone)
            break;
        bool more = vm->state == VM_RUNNING && machine_work(vm);
        if (more)
            __atomic_fetch_or(&vm->orders, ORDER_WORK, __ATOMIC_SEQ_CST);
        if (more || thread_should_yield())
            thread_yield();
    }
    vm_put(vm);
}

/* ---- Giving an order ---- */

static bool try_busy(struct vm *vm)
{
    return !__atomic_exchange_n(&vm->order_busy, 1, __ATOMIC_SEQ_CST);
}

void vm_orders_open(struct vm *vm)
{
    __atomic_store_n(&vm->order_busy, 0, __ATOMIC_SEQ_CST);
    wake_all(&vm->done);
}

/* An order with something to take along, which lives until the order is done. */
static enum status give_order(const char *name, enum vm_order order, void *argument, char *text, size_t text_bytes)
{
    struct vm *vm = vm_get(name);

    if (!vm)
        return vm_no_such(name, text, text_bytes);
    wait_event(&vm->done, try_busy(vm));
    if (vm->gone) { /* deleted while we waited for our turn */
        vm_orders_open(vm);
        vm_put(vm);
        return vm_no_such(name, text, text_bytes);
    }
    vm->order_done = false;
    vm->order_argument = argument;
    vm_signal(vm, (uint32_t)BIT(order));
    wait_event(&vm->done, __atomic_load_n(&vm->order_done, __ATOMIC_ACQUIRE));
    enum status status = vm->result;
    snprintf(text, text_bytes, "%s", vm->result_text);
    vm_orders_open(vm);
    vm_put(vm);
    return status;
}

enum status vm_order(const char *name, enum vm_order order, char *text, size_t text_bytes)
{
    return give_order(name, order, NULL, text, text_bytes);
}

enum status vm_saved_describe(const char *name, struct vm_saved *description, char *text, size_t text_bytes)
{
    return give_order(name, VM_ORDER_DESCRIBE, description, text, text_bytes);
}

enum status vm_dirty(const char *name, enum vm_order order, struct vm_dirty *dirty, char *text, size_t text_bytes)
{
    return give_order(name, order, dirty, text, text_bytes);
}

enum status vm_set_deadline(const char *name, uint64_t deadline_ns, char *text, size_t text_bytes)
{
    return give_order(name, VM_ORDER_DEADLINE, &deadline_ns, text, text_bytes);
}

enum status vm_delete(const char *name, bool disks, char *text, size_t text_bytes)
{
    return give_order(name, VM_ORDER_DELETE, &disks, text, text_bytes);
}

enum status vm_call(const char *name, vm_call_fn *fn, void *arg, char *text, size_t text_bytes)
{
    struct vm_called called = { fn, arg };

    return give_order(name, VM_ORDER_CALL, &called, text, text_bytes);
}
