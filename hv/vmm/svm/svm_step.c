/* SPDX-License-Identifier: MIT */
/*
 * One instruction of the guest, then an exit, by RFLAGS.TF: for the end of an interrupt shadow, for NMIs, and for an
 * instruction that has to run without its intercept. The guest must see nothing of it:
 *
 *   - The #DB that follows is ours. DR6.BS, which it sets and which is sticky, is put back to what it was; B0-B3 too,
 *     unless the instruction met a breakpoint of the guest's, which the guest then gets alone.
 *   - A fault in the instruction would push RFLAGS with our TF, so all faults are intercepted meanwhile and injected
 *     with TF taken back.
 *   - An instruction that stores RFLAGS is not stepped. One that loads them leaves the guest's own TF there.
 *   - Nothing is injected at an entry that steps (svm_run.c sees to it).
 *
 * A guest that single-steps by itself has an exit after each instruction as it is: nothing is borrowed then.
 */
#include "kernel/cpu.h"
#include "vmm/svm/svm.h"

#define DR6_BS BIT(14)
#define DR6_HITS 0xfull
/* Faults. #DB, #AC and #MC are intercepted always; #BP and #OF come of instructions that are not stepped. */
#define STEP_EXCEPTIONS                                                                                                \
    ((uint32_t)(BIT(EXC_DE) | BIT(EXC_BR) | BIT(EXC_UD) | BIT(EXC_NM) | BIT(EXC_TS) | BIT(EXC_NP) | BIT(EXC_SS) |     \
                BIT(EXC_GP) | BIT(EXC_PF) | BIT(EXC_MF) | BIT(EXC_XM) | BIT(21)))

bool svm_step_start(struct vcpu *vcpu)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    struct cpu_state *s = &vcpu->state;
    uint8_t bytes[15];

    v->odd = true;
    v->step_rip = s->rip;
    if (s->rflags & RFLAGS_TF)
        return true;
    unsigned count = vmm_instruction_bytes(vcpu, bytes); /* none: the CPU takes the fault, and we with it */
    enum flags_use use = svm_decode_flags(bytes, count, cpu_mode64(s));
    if (use == FLAGS_STORED)
        return false;
    s->rflags |= RFLAGS_TF;
    v->stepping = true;
    v->step_loads = use == FLAGS_LOADED;
    v->step_dr6 = vmcb->dr6 & (DR6_BS | DR6_HITS);
    vmcb->dr6 &= ~(DR6_BS | DR6_HITS);
    vmcb->exceptions |= STEP_EXCEPTIONS;
    vmcb->clean &= ~(uint32_t)(SVM_CLEAN_DRX | SVM_CLEAN_INTERCEPTS);
    return true;
}

bool svm_step_end(struct vcpu *vcpu)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    bool trapped = vmcb->exit_code == SVM_EXIT_EXCEPTION + EXC_DB && (vmcb->dr6 & DR6_BS);

    v->stepping = false;
    if (!v->step_loads || !(trapped || vmcb->rip != v->step_rip))
        vcpu->state.rflags &= ~RFLAGS_TF;
    bool hit = vmcb->dr6 & DR6_HITS;
    vmcb->dr6 = (vmcb->dr6 & ~DR6_BS) | (hit ? v->step_dr6 & DR6_BS : v->step_dr6);
    vmcb->exceptions &= ~STEP_EXCEPTIONS;
    vmcb->clean &= ~(uint32_t)(SVM_CLEAN_DRX | SVM_CLEAN_INTERCEPTS);
    return trapped && !hit;
}
