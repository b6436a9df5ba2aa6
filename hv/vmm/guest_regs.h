/* SPDX-License-Identifier: MIT */
/*
 * Guest registers that neither a VMCS nor a VMCB switches, and that both backends therefore switch alike.
 *
 * Two kinds. DR0-3 and TSC_AUX mean nothing to the hypervisor (an exit leaves DR7 with no breakpoint on: SDM vol. 3C,
 * 28.5.1; APM vol. 2, 15.6), so they stay in the CPU after an exit and are saved only when another vCPU needs the CPU:
 * struct guest_regs holds them meanwhile. XSS and SPEC_CTRL mean something, so they are switched around each entry, but
 * only where the guest's value differs from the host's; `swap` says so. For these vcpu->state is the home. (XCR0 goes
 * with the vector state, in run.c.)
 *
 * SPEC_CTRL. Its accesses exit until the guest has written a bit that the host runs without. Before that the guest runs
 * with the host's value, which restrains speculation as much as its own or more, and costs nothing; a guest that only
 * sets what enhanced IBRS wants stays there for good. After that it reads and writes the register itself, without an exit,
 * and it is switched at each entry and exit. A CPU that switches SPEC_CTRL itself (SVM) needs none of this.
 *
 * Interrupts off in all of these.
 */
#ifndef VMM_GUEST_REGS_H
#define VMM_GUEST_REGS_H

#include "vmm/vmm.h"

struct guest_regs {
    uint64_t dr[4], tsc_aux; /* home of those that stay, while the CPU holds another vCPU's */
    bool swap;               /* guest_regs_enter and guest_regs_leave have something to do */
    bool spec_ctrl;          /* the guest reads and writes SPEC_CTRL itself */
    uint64_t spec_ctrl_valid; /* bits that it may set; what else it writes, since the CPU has more, is dropped at exits */
};

/* Once for each CPU, when virtualization is switched on: clears XSS, which the firmware may have left set. */
void guest_regs_host_init(void);

/* The registers that stay: CPU to home, and home to CPU. */
void guest_regs_save(struct guest_regs *regs);
void guest_regs_restore(const struct guest_regs *regs);

/*
 * Recomputes regs->swap after STATE_MISC changed. True once at most: from the next entry on the guest is to reach SPEC_CTRL
 * without an exit, which the backend arranges.
 */
bool guest_regs_changed(struct guest_regs *regs, const struct cpu_state *state);

/* Just before an entry and just after its exit, if regs->swap. */
void guest_regs_enter(const struct guest_regs *regs, const struct cpu_state *state);
void guest_regs_leave(const struct guest_regs *regs, struct cpu_state *state);

/* A WRMSR of a value that came from outside: one that the CPU refuses is dropped with a warning that names `what`. */
void guest_wrmsr(const struct vcpu *vcpu, const char *what, uint32_t msr, uint64_t value);

#endif
