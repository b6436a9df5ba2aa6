/* SPDX-License-Identifier: MIT */
/*
 * The run loop. See run.h for the idea; here is the order, which is what makes it right:
 *
 *   1. interrupts off
 *   2. in_guest = 1, with a full barrier
 *   3. does this CPU's scheduler want it, or another VM the core? a request? the run deadline? in_guest = 0, interrupts on,
 *      do that, start over
 *   4. enter, exit
 *   5. in_guest = 0, interrupts on, the exit's handler
 *
 * Whoever wants something sets a request bit (or flush_wanted, or the deadline), with a full barrier, and then looks at
 * in_guest. Either it sees 1 and sends an IPI, which is pending at 4 and ends the run before the guest's first
 * instruction; or it sees 0, and then 3 comes later than the request and sees it. Yielding goes before requests: a
 * guest whose neighbours never stop asking for something must not keep the CPU.
 *
 * Where the CPU delivers a guest's interrupts by itself, an interrupt that is posted is a request like any other: 3 sees
 * it, choose_event hands it to the CPU, and the entry delivers it. Only the 8259's interrupts are injected then.
 */
#include "vmm/run.h"

#include <stdio.h>
#include <string.h>

#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/node.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/trap.h"
#include "vmm/core.h"
#include "vmm/vector.h"

const struct vmm_backend *vmm;

static bool vmm_enable_failed;
static bool first_entry_seen;

/* ---- Switching virtualization on ---- */

static void enable_here(void *arg)
{
    (void)arg;
    if (vmm->cpu_enable() == OK)
        this_cpu()->virtualization_on = true;
    else
        vmm_enable_failed = true;
}

static void disable_here(void *arg)
{
    (void)arg;
    if (this_cpu()->virtualization_on)
        vmm->cpu_disable();
    this_cpu()->virtualization_on = false;
}

enum status vmm_init(char *why, size_t why_bytes)
{
    const struct vmm_backend *backend = cpu_features.vendor == CPU_INTEL ? &vmm_backend_vmx : &vmm_backend_svm;

    if (!backend->probe(why, why_bytes))
        return ERR_UNSUPPORTED;
    vmm = backend;
    vector_init();
    cpu_call_all(enable_here, NULL);
    if (vmm_enable_failed) {
        snprintf(why, why_bytes, "%s could not be switched on on every CPU; see the log for which and why", vmm->name);
        cpu_call_all(disable_here, NULL);
        vmm = NULL;
        return ERR_UNSUPPORTED;
    }
    return OK;
}

void vmm_disable(void)
{
    if (vmm)
        cpu_call_all(disable_here, NULL);
}

/* ---- Requests from others ---- */

void vcpu_request(struct vcpu *vcpu, uint32_t requests)
{
    __atomic_fetch_or(&vcpu->requests, requests, __ATOMIC_SEQ_CST);
    /* On its own thread nothing has to be woken. Not so in an interrupt: the thread may be on its way to sleep. */
    if (vcpu->thread == thread_current() && irq_enabled())
        return;
    wake_all(&vcpu->queue);
    struct cpu *cpu = __atomic_load_n(&vcpu->cpu, __ATOMIC_ACQUIRE);
    if (cpu && cpu != this_cpu() && __atomic_load_n(&vcpu->in_guest, __ATOMIC_SEQ_CST))
        apic_ipi(cpu->apic_id, VECTOR_KICK);
}

void vcpu_park(struct vcpu *vcpu)
{
    vcpu_request(vcpu, REQ_PARK);
    wait_event(&vcpu->queue, __atomic_load_n(&vcpu->parked, __ATOMIC_ACQUIRE));
}

void vcpu_unpark(struct vcpu *vcpu)
{
    /* In this order: the count moves after `parked` is taken back. */
    uint32_t seen = __atomic_load_n(&vcpu->unpark_count, __ATOMIC_ACQUIRE);
    bool parked = __atomic_load_n(&vcpu->parked, __ATOMIC_ACQUIRE);

    __atomic_fetch_and(&vcpu->requests, ~(uint32_t)REQ_PARK, __ATOMIC_SEQ_CST);
    wake_all(&vcpu->queue);
    if (!parked)
        return;
    /* It may park itself again at once, so its state alone would not tell that it has been away. */
    wait_event(&vcpu->queue, __atomic_load_n(&vcpu->unpark_count, __ATOMIC_ACQUIRE) != seen ||
                                 __atomic_load_n(&vcpu->stopped, __ATOMIC_ACQUIRE));
}

void vcpu_stop(struct vcpu *vcpu)
{
    vcpu_request(vcpu, REQ_STOP);
    wait_event(&vcpu->queue, __atomic_load_n(&vcpu->stopped, __ATOMIC_ACQUIRE));
}

/* Out of line, so that a vCPU that is not in the guest costs its caller nothing. */
static __attribute__((noinline)) void wait_outside(struct vcpu *vcpu)
{
    vcpu_request(vcpu, REQ_LEAVE);
    /* The backend takes the wish back between two entries, and flushes then. */
    while (__atomic_load_n(&vcpu->in_guest, __ATOMIC_ACQUIRE) && __atomic_load_n(&vcpu->flush_wanted, __ATOMIC_ACQUIRE)) {
        if (vcpu->cpu == this_cpu())
            break; /* its thread is not running while ours does */
        cpu_pause();
    }
}

void vcpu_flush_wait(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->flush_wanted, true, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&vcpu->in_guest, __ATOMIC_SEQ_CST))
        wait_outside(vcpu);
}

static void vcpu_timer_fired(struct timer *timer)
{
    vcpu_request(CONTAINER_OF(timer, struct vcpu, timer), REQ_TIMER);
}

static void deadline_fired(struct timer *timer)
{
    vcpu_request(CONTAINER_OF(timer, struct vcpu, deadline_timer), REQ_LEAVE);
}

void vmm_set_deadline(struct vm_core *vm, struct vcpu *const *vcpus, unsigned count, uint64_t deadline_ns)
{
    __atomic_store_n(&vm->run_deadline_tsc, time_ns_to_tsc(deadline_ns), __ATOMIC_SEQ_CST);
    /* Each vCPU's thread arms its own CPU's timer, so that the interrupt comes where the guest runs. */
    for (unsigned i = 0; i < count; i++)
        vcpu_request(vcpus[i], REQ_OWNER | REQ_LEAVE);
}

/* ---- Events ---- */

void vcpu_inject_exception(struct vcpu *vcpu, const struct event *event)
{
    struct event *slot = &vcpu->state.pending;

    if (slot->type != EVENT_EXCEPTION) {
        /* The delivery of an interrupt ran into this exception: the exception goes first, the interrupt waits again. */
        if (slot->type == EVENT_NMI)
            vcpu->nmi_pending = true;
        else if (slot->type == EVENT_EXTERNAL)
            vcpu->ops->interrupt_return(vcpu, slot->vector);
        *slot = *event;
        __atomic_fetch_or(&vcpu->requests, REQ_EVENT, __ATOMIC_SEQ_CST);
        return;
    }
    /* SDM vol. 3A, table 6-5: contributory exceptions are #DE, #TS, #NP, #SS, #GP. */
    const uint32_t contributory = 1u << EXC_DE | 1u << EXC_TS | 1u << EXC_NP | 1u << EXC_SS | 1u << EXC_GP;
    bool first_contributory = contributory >> slot->vector & 1, second_contributory = contributory >> event->vector & 1;
    if (slot->vector == EXC_DF) {
        struct vm_exit shutdown = { .kind = EXIT_SHUTDOWN };
        if (second_contributory || event->vector == EXC_PF) {
            if (!vcpu->ops->exit(vcpu, &shutdown))
                __atomic_fetch_or(&vcpu->requests, REQ_PARK, __ATOMIC_SEQ_CST);
            return;
        }
    }
    if ((first_contributory && second_contributory) ||
        (slot->vector == EXC_PF && (second_contributory || event->vector == EXC_PF)))
        *slot = (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_DF, .has_error = true };
    else
        *slot = *event;
}

void vcpu_inject_gp(struct vcpu *vcpu)
{
    vcpu_inject_exception(vcpu, &(struct event){ .type = EVENT_EXCEPTION, .vector = EXC_GP, .has_error = true });
}

void vcpu_inject_ud(struct vcpu *vcpu)
{
    vcpu_inject_exception(vcpu, &(struct event){ .type = EVENT_EXCEPTION, .vector = EXC_UD });
}

/* A #DB for a trap that the CPU has not delivered: what it would have left in the registers, and the event. */
static void debug_trap(struct vcpu *vcpu, uint32_t reasons)
{
    struct cpu_state *s = &vcpu->state;

    if (s->pending.type != EVENT_NONE || !(reasons & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_STEP)))
        return;
    vcpu_load(vmm, vcpu, STATE_DEBUG);
    s->dr6 |= reasons & (PENDING_DEBUG_HITS | PENDING_DEBUG_STEP);
    s->dr7 &= ~BIT(13); /* GD, LBR and BTF, as any #DB clears them (SDM vol. 3B, 18.2.4, 18.4.1, 18.4.3) */
    s->debugctl &= ~(BIT(0) | BIT(1));
    vcpu->dirty |= STATE_DEBUG;
    s->pending = (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_DB };
}

/* Traps that were held back, taken out of the state. */
static uint32_t pending_debug_take(struct vcpu *vcpu)
{
    struct cpu_state *s = &vcpu->state;

    vcpu_load(vmm, vcpu, STATE_TRAP);
    uint32_t reasons = s->pending_debug;
    if (unlikely(reasons)) {
        s->pending_debug = 0;
        vcpu->dirty |= STATE_TRAP;
    }
    return reasons;
}

void vcpu_skip_carefully(struct vcpu *vcpu, unsigned length)
{
    struct cpu_state *s = &vcpu->state;
    uint64_t rip = s->rip + length;

    /*
     * It wraps at 4 GiB, where the code is not 64-bit code. 16-bit code does not wrap at 64 KiB: it meets its segment's
     * limit at the next fetch (Intel 80386 Programmer's Reference Manual, 14.7).
     */
    if (unlikely((rip ^ s->rip) >> 32)) {
        vcpu_load(vmm, vcpu, STATE_CR | STATE_SEG);
        if (!cpu_mode64(s))
            rip = (uint32_t)rip;
    }
    s->rip = rip;
    uint32_t traps = 0;
    if (unlikely(s->rflags & (RFLAGS_TF | RFLAGS_RF))) {
        s->rflags &= ~RFLAGS_RF;
        if (s->rflags & RFLAGS_TF) {
            vcpu_load(vmm, vcpu, STATE_DEBUG);
            if (!(s->debugctl & BIT(1))) /* BTF: only branches trap */
                traps = PENDING_DEBUG_STEP;
        }
        vcpu->dirty |= STATE_BASE;
    }
    vcpu_load(vmm, vcpu, STATE_INTR);
    if (unlikely(s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS))) {
        s->interruptibility &= ~(uint32_t)(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
        vcpu->dirty |= STATE_INTR;
        traps |= pending_debug_take(vcpu); /* of the MOV SS before this instruction */
    }
    if (unlikely(traps))
        debug_trap(vcpu, traps);
}

/* Chooses what is injected at the next entry, and which windows to ask for. */
static void choose_event(struct vcpu *vcpu)
{
    struct cpu_state *s = &vcpu->state;

    vcpu->ops->interrupt_hand_over(vcpu);
    int vector = vcpu->ops->interrupt_pending(vcpu);

    vcpu_load(vmm, vcpu, STATE_INTR);
    bool shadow = s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    /*
     * A debug trap that an exit came before goes first (SDM vol. 3A, 6.9): an entry that injects would drop it (27.7.3).
     * Where there is nothing to inject, the CPU that holds one delivers it itself.
     */
    if (!shadow && s->pending.type == EVENT_NONE && (vector >= 0 || vcpu->nmi_pending || (vcpu->valid & STATE_TRAP)))
        debug_trap(vcpu, pending_debug_take(vcpu));
    bool free_slot = s->pending.type == EVENT_NONE;

    if (vcpu->nmi_pending && free_slot && !shadow && !(s->interruptibility & INTERRUPTIBILITY_NMI)) {
        vcpu->nmi_pending = false;
        s->pending = (struct event){ .type = EVENT_NMI, .vector = EXC_NMI };
        free_slot = false;
    }
    vcpu->want_nmi_window = vcpu->nmi_pending;

    if (vector >= 0 && free_slot && !shadow && (s->rflags & RFLAGS_IF)) {
        vector = vcpu->ops->interrupt_take(vcpu);
        s->pending = (struct event){ .type = EVENT_EXTERNAL, .vector = (uint8_t)vector };
        vector = vcpu->ops->interrupt_pending(vcpu);
    }
    vcpu->want_irq_window = vector >= 0;
    vcpu->tpr_threshold = (uint8_t)vcpu->ops->tpr_threshold(vcpu);
}

/* True if HLT ends: an NMI, or an interrupt while IF is set. */
static bool wakes(struct vcpu *vcpu)
{
    return (vcpu->nmi_pending && !(vcpu->state.interruptibility & INTERRUPTIBILITY_NMI)) || vcpu->state.pending.type != EVENT_NONE ||
           ((vcpu->state.rflags & RFLAGS_IF) && vcpu->ops->interrupt_wakes(vcpu));
}

/* ---- The loop ---- */

static void park(struct vcpu *vcpu)
{
    core_cancel(vcpu);
    irq_disable();
    vcpu_load(vmm, vcpu, STATE_ALL);
    vmm->park(vcpu);
    vector_release(vcpu);
    irq_enable();
    timer_cancel(&vcpu->timer);
    timer_cancel(&vcpu->deadline_timer);
    __atomic_store_n(&vcpu->parked, true, __ATOMIC_RELEASE);
    wake_all(&vcpu->queue);
}

/* Sleeps until somebody asks for something. */
static void wait_for_request(struct vcpu *vcpu)
{
    core_cancel(vcpu);
    wait_event(&vcpu->queue, __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST));
}

/* Does what is asked for; false ends the thread. Interrupts on. */
static bool serve(struct vcpu *vcpu)
{
    uint32_t requests = __atomic_fetch_and(&vcpu->requests, REQ_PARK | REQ_STOP, __ATOMIC_SEQ_CST);

    if (requests & REQ_STOP) {
        park(vcpu);
        return false;
    }
    if (requests & REQ_PARK) {
        park(vcpu);
        wait_event(&vcpu->queue, __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) & REQ_STOP ||
                                     !(__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) & REQ_PARK));
        __atomic_store_n(&vcpu->parked, false, __ATOMIC_RELEASE);
        __atomic_fetch_add(&vcpu->unpark_count, 1, __ATOMIC_RELEASE);
        wake_all(&vcpu->queue);
        __atomic_fetch_or(&vcpu->requests, REQ_EVENT | REQ_TIMER | REQ_OWNER, __ATOMIC_SEQ_CST);
        return true;
    }
    if (requests & REQ_TIMER)
        vcpu->ops->timer(vcpu);
    if (requests & REQ_OWNER) {
        uint64_t tsc = __atomic_load_n(&vcpu->vm->run_deadline_tsc, __ATOMIC_ACQUIRE);
        timer_arm(&vcpu->deadline_timer, tsc == UINT64_MAX ? TIME_NEVER : time_tsc_to_ns(tsc));
        if (!vcpu->ops->request(vcpu)) {
            wait_for_request(vcpu);
            __atomic_fetch_or(&vcpu->requests, REQ_OWNER | REQ_EVENT, __ATOMIC_SEQ_CST);
            return true;
        }
    }
    if (vcpu->state.halted) {
        if (!wakes(vcpu)) {
            wait_for_request(vcpu);
            return true;
        }
        vcpu->state.halted = false;
    }
    choose_event(vcpu);
    return true;
}

/* The gate is shut: the vCPU waits until the deadline is moved or somebody wants its state. */
static void hold_at_deadline(struct vcpu *vcpu)
{
    uint64_t deadline = __atomic_load_n(&vcpu->vm->run_deadline_tsc, __ATOMIC_ACQUIRE);

    if (deadline != vcpu->deadline_told) {
        vcpu->deadline_told = deadline;
        vcpu->ops->deadline(vcpu);
    }
    core_cancel(vcpu);
    while (vcpu_past_deadline(vcpu) && !(__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) & (REQ_PARK | REQ_STOP))) {
        wait_event(&vcpu->queue, !vcpu_past_deadline(vcpu) || __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) &
                                                             (REQ_PARK | REQ_STOP));
    }
}

void vcpu_main(void *arg)
{
    struct vcpu *vcpu = arg;
    struct cpu *cpu = this_cpu();
    struct vm_exit exit;

    timer_init(&vcpu->timer, vcpu_timer_fired);
    timer_init(&vcpu->deadline_timer, deadline_fired);
    vcpu->thread = thread_current();
    thread_runs_guest();
    core_begin();
    __atomic_store_n(&vcpu->cpu, cpu, __ATOMIC_RELEASE);
    __atomic_fetch_or(&vcpu->requests, REQ_EVENT | REQ_TIMER | REQ_OWNER, __ATOMIC_SEQ_CST);
    if (!__atomic_exchange_n(&first_entry_seen, true, __ATOMIC_RELAXED))
        log_info("first guest: entered %lu TSC ticks after the firmware was left",
                 rdtsc() - boot_info_get()->tsc_at_exit);

    for (;;) {
        irq_disable();
        if (unlikely(vector_owner[cpu->id] != vcpu))
            vector_acquire(vcpu);
        __atomic_exchange_n(&vcpu->in_guest, 1, __ATOMIC_SEQ_CST);
        if (unlikely(vcpu_gate_shut(vcpu, cpu))) {
            __atomic_store_n(&vcpu->in_guest, 0, __ATOMIC_RELEASE);
            irq_enable();
            if (unlikely(cpu->core_wanted))
                core_give_way(cpu);
            if (cpu->reschedule) {
                thread_yield();
            } else if (__atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED)) {
                if (!serve(vcpu))
                    break;
            } else if (vcpu_past_deadline(vcpu)) {
                hold_at_deadline(vcpu);
            } else if (cpu->core_wanted) {
                core_enter(vcpu);
            }
            continue;
        }
        vmm->run(vcpu, &exit);
        __atomic_store_n(&vcpu->in_guest, 0, __ATOMIC_RELEASE);
        irq_enable();
        if (unlikely(!vcpu->ops->exit(vcpu, &exit)))
            __atomic_fetch_or(&vcpu->requests, REQ_PARK, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&vcpu->cpu, NULL, __ATOMIC_RELEASE);
    vcpu->thread = NULL; /* the next thread may get its address */
    thread_guest_cpu_give(cpu->id);
    wake_all_set(&vcpu->queue, &vcpu->stopped);
}
