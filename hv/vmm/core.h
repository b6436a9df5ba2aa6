/* SPDX-License-Identifier: MIT */
/*
 * Threads of one core share caches, buffers and predictors, so that what runs on one can be spied on from the other. VMs
 * take turns on a core (vmm/core_turn.h), unless the admin allows them to share it (`share-cores` in [node]).
 *
 * The claim. Before a vCPU enters the guest its CPU has the core's turn for its VM. It keeps it over exits, and while a
 * thread of the hypervisor takes its place for a moment; it gives it up when it sleeps, when another vCPU takes its place,
 * and when it is asked to. cpu->core_wanted says that the claim is to be made, or given up: the gate of run.c tests it in
 * one word with cpu->reschedule, so that an entry costs nothing more. Whoever asks a CPU to leave sets the flag and
 * then sends it an interrupt, and waits until that CPU has left by itself.
 *
 * Where no core has two threads nothing here is ever called but core_begin, core_cancel and core_check, which do nothing.
 *
 * What is not covered: the hypervisor's own threads, and its handling of another VM's exits, may run beside a guest on the
 * other thread of its core.
 */
#ifndef VMM_CORE_H
#define VMM_CORE_H

#include "kernel/cpu.h"
#include "kernel/status.h"
#include "vmm/vmm.h"

/* Once, all CPUs up, before the first guest. share: VMs may use the threads of one core at the same moment. */
enum status core_init(bool share) MUST_CHECK;
/* VMs are kept apart, and there are cores with more than one thread. */
bool core_apart(void);
/* Some core has more than one thread. */
bool core_any_shared(void);

/* The vCPU's thread, once thread_runs_guest() has been called: from now on the claim is made. */
void core_begin(void);
/* The gate has found core_wanted: the claim is given up, if there is one. Interrupts on. */
void core_give_way(struct cpu *cpu);
/* Makes the claim, or waits until something has changed: the turn, a request, time. Interrupts on; the vCPU's thread. */
void core_enter(struct vcpu *vcpu);

/* The vCPU does not want in any longer, for now. Its thread. */
void core_cancel_wait(struct vcpu *vcpu);
static inline void core_cancel(struct vcpu *vcpu)
{
    if (unlikely(vcpu->core_waiter.queued))
        core_cancel_wait(vcpu);
}

/* It has just been in the guest: was the claim there? Counts and logs where not. Its thread. */
void core_check(const struct vcpu *vcpu);

#endif
