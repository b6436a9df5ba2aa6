/* SPDX-License-Identifier: MIT */
/*
 * Light exits: what is answered in the exit itself, from the few registers that C may change, and followed by the next
 * entry at once. CPUID leaves that say the same always, and first writes of a page under the dirty log, which are most of
 * what a guest exits for while it is saved or moved. docs/decisions/0006 has the reasons.
 *
 * Who does what. The entry code (vmx_entry.S, svm_entry.S) saves the registers that C may change, looks at the exit's code,
 * and calls the backend's light function, which is made of what stands here. True: all is done, the guest is entered
 * again. False: nothing has been done, and the exit goes the full way as if this had not been tried.
 *
 * What holds in a light function:
 *  - Interrupts are off from the exit to the entry, and in_guest stays 1: for everybody else the vCPU has not left the
 *    guest. Whoever wants something of it has sent an interrupt, or will, and that one ends the next entry before the
 *    guest's first instruction. So nothing depends on the gate here; it is passed all the same (vcpu_gate_shut), so that
 *    there is no entry without it, and a guest that only ever exits lightly is as easy to stop as any other.
 *  - flush_wanted is left to the next full exit, which comes at once since a kick comes with it.
 *  - vcpu->state is not current but for the registers that C may change; what is asked of vcpu_load() is not either.
 *  - On SVM the guest's GS is in the CPU, and NMIs wait: no this_cpu(), no thread, no log, no lock that is waited for.
 *    So everything is inlined: `make` refuses a call in svm_light.o.
 *  - There is no room for a barrier: on a CPU that needs one around each run, vmm/guard.c takes light exits away.
 *  - A guest that has SPEC_CTRL or XSS of its own (regs.swap) never has a light exit, but the function runs with its values
 *    until `wants`, which is unknown then, has said so. XSS means nothing here. SPEC_CTRL bears on indirect branches and on
 *    returns without their call: there is none of the former (`make` refuses them in both objects), and the one return
 *    is to the call just before. docs/speculation.md.
 *  - Whatever makes an exit or its instruction unusual goes the full way: an event that was being delivered, an interrupt
 *    shadow, RFLAGS.TF and RF, RIP near a wrap, registers to be swapped, a wish that the backend has not served.
 */
#ifndef VMM_LIGHT_H
#define VMM_LIGHT_H

#include "vmm/cpuid_model.h"
#include "vmm/run.h"
#include "vmm/stage2.h"

/* The next RIP, and whether nothing but RIP moves: as vcpu_skip() has it. */
static inline bool light_next_rip(uint64_t rip, uint64_t length, uint64_t rflags, uint64_t *next)
{
    *next = rip + length;
    return !((rip ^ *next) >> 16 | (rflags & (RFLAGS_TF | RFLAGS_RF)));
}

/* What CPUID says for a leaf if that depends on nothing else; NULL: the full way. */
static inline const struct cpuid_entry *light_cpuid(const struct vcpu *vcpu, uint32_t leaf)
{
    const struct cpuid_entry *entry = cpuid_find_first(vcpu->cpuid, leaf);

    return likely(!entry->flags) ? entry : NULL;
}

#endif
