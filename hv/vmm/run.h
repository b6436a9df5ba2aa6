/* SPDX-License-Identifier: MIT */
/*
 * The run loop of a vCPU: the one gate that every VM entry passes, and the one place where events are chosen.
 *
 * A vCPU is a kernel thread. It runs guest code until an exit, hands the exit to vcpu_ops.exit, and enters again. What
 * others want of it they write into vcpu->requests and kick: the loop looks at that one word with host interrupts off
 * before each entry, and a kick that comes later is an interrupt, which ends the guest's run at once. So nothing that
 * is asked for waits for the guest, and an exit without requests pays one compare.
 */
#ifndef VMM_RUN_H
#define VMM_RUN_H

#include "kernel/cpu.h"
#include "vmm/vmm.h"

enum vcpu_request {
    REQ_EVENT = 1,  /* interrupts, NMIs, the window: choose again what to inject */
    REQ_TIMER = 2,  /* a deadline of the vCPU has passed: ops->timer */
    REQ_PARK = 4,   /* bring all state into vcpu->state and wait until it is taken away */
    REQ_STOP = 8,   /* end the thread */
    REQ_OWNER = 16, /* ops->request: INIT, SIPI, reset and what else the machine wants done on the thread */
    REQ_LEAVE = 32, /* only leave the guest once */
};

struct vcpu_ops {
    /* Handles an exit. False: the vCPU cannot go on (the machine has been told why) and its loop parks. */
    bool (*exit)(struct vcpu *vcpu, struct vm_exit *exit);
    /* Before the next three are asked: hands requests to the CPU where that delivers them by itself (vmm.h). */
    void (*interrupt_hand_over)(struct vcpu *vcpu);
    /* Something is requested that ends HLT, whoever delivers it. */
    bool (*interrupt_wakes)(struct vcpu *vcpu);
    /* The interrupt to inject now if the guest can take one: 0..255, or -1. Does not take it yet. */
    int (*interrupt_pending)(struct vcpu *vcpu);
    /* It is being delivered: returns the vector (the 8259 is acknowledged here, so it may differ from the peek). */
    int (*interrupt_take)(struct vcpu *vcpu);
    /* It was taken, and its delivery ran into an exception: it is requested again. */
    void (*interrupt_return)(struct vcpu *vcpu, uint8_t vector);
    /* CR8 below which a held-back interrupt could go, 0 = none. */
    unsigned (*tpr_threshold)(struct vcpu *vcpu);
    void (*timer)(struct vcpu *vcpu);
    /* REQ_OWNER. Returns true if the vCPU may run (false: it waits for a SIPI, or the machine holds it). */
    bool (*request)(struct vcpu *vcpu);
    /* The run deadline has passed: called once on each vCPU's thread, then the vCPU waits until it is moved. */
    void (*deadline)(struct vcpu *vcpu);
};

extern const struct vmm_backend *vmm; /* the one that this host has; NULL = no virtualization */

/* Chooses the backend and switches it on, on all CPUs. On failure `why` says what is missing and how to get it. */
enum status vmm_init(char *why, size_t why_bytes) MUST_CHECK;
/* All CPUs, before power-off or reset. */
void vmm_disable(void);

/* The thread function of a vCPU: runs until REQ_STOP. vcpu->cpu and ->thread are set by it. */
void vcpu_main(void *vcpu);

/* Sets request bits and makes the vCPU look at them. Any context. */
void vcpu_request(struct vcpu *vcpu, uint32_t requests);

/* Park: waits until the vCPU has left the guest and its state is in vcpu->state. Thread context, not its own. */
void vcpu_park(struct vcpu *vcpu);
/* After vcpu_park: takes the wish back, and waits until the vCPU has left the park. Thread context, not its own. */
void vcpu_unpark(struct vcpu *vcpu);
/* Ends the thread and waits for it. */
void vcpu_stop(struct vcpu *vcpu);

/*
 * The vCPU, if it is in the guest, has left it once after this returns, and flushes stale translations before it enters
 * again. Thread context of another vCPU's or no vCPU's thread; or the vCPU's own.
 */
void vcpu_flush_wait(struct vcpu *vcpu);

static inline bool vcpu_past_deadline(const struct vcpu *vcpu)
{
    uint64_t deadline = __atomic_load_n(&vcpu->vm->run_deadline_tsc, __ATOMIC_ACQUIRE);

    return unlikely(deadline != UINT64_MAX) && rdtsc() >= deadline;
}

/* The gate: does anything keep the vCPU from being entered on `cpu`, this one? With interrupts off and in_guest set. */
static inline bool vcpu_gate_shut(const struct vcpu *vcpu, const struct cpu *cpu)
{
    return cpu->wanted || __atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED) || vcpu_past_deadline(vcpu);
}

/* The run deadline of the whole VM, in host nanoseconds (TIME_NEVER: none). `vcpus` are all of it. Thread context. */
void vmm_set_deadline(struct vm_core *vm, struct vcpu *const *vcpus, unsigned count, uint64_t deadline_ns);

/* Puts an exception into the empty event slot; combined with one that is there as SDM vol. 3A, table 6-5 says. */
void vcpu_inject_exception(struct vcpu *vcpu, const struct event *event);
void vcpu_inject_gp(struct vcpu *vcpu);
void vcpu_inject_ud(struct vcpu *vcpu);

/* RIP past the instruction that exited; clears the interrupt shadow and does the single-step trap. */
void vcpu_skip_carefully(struct vcpu *vcpu, unsigned length);
static inline void vcpu_skip(struct vcpu *vcpu, unsigned length)
{
    struct cpu_state *s = &vcpu->state;
    uint64_t rip = s->rip + length;

    /* Far from a wrap, no trap, no shadow: nothing but RIP moves. */
    if (unlikely((rip ^ s->rip) >> 16 || (s->rflags & (RFLAGS_TF | RFLAGS_RF)) ||
                 (s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS))))
        vcpu_skip_carefully(vcpu, length);
    else
        s->rip = rip;
}

#endif
