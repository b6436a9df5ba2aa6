/* SPDX-License-Identifier: MIT */
/*
 * Light exits of SVM; vmm/light.h has the rules. Called by svm_entry.S with GIF clear, the guest's FS, GS, TR and LDTR in
 * the CPU, and the registers that C may change in vcpu->state (RAX is in the VMCB). A VMRUN after a light exit finds the
 * VMCB as the CPU left it but for RIP and RAX, which no clean bit covers (APM vol. 2, 15.15.3).
 */
#include "vmm/light.h"
#include "vmm/svm/svm.h"

_Static_assert(ENTRY_VMCB_EXIT_CODE == offsetof(struct vmcb, exit_code) && ENTRY_EXIT_CPUID == SVM_EXIT_CPUID &&
               ENTRY_EXIT_NPF == SVM_EXIT_NPF && ENTRY_DIRECT_BASE == HV_DIRECT_BASE, "what svm_entry.S looks at");

/* May this exit be a light one, as far as the vCPU is concerned? */
static inline bool usual(const struct vcpu *vcpu, const struct svm_vcpu *v)
{
    return !(svm_exit_unusual(v, v->vmcb) | (vcpu_wants(vcpu) ^ v->wants)) && !vcpu_gate_shut(vcpu, vcpu->cpu);
}

bool svm_light_cpuid(struct vcpu *vcpu)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    const struct cpuid_entry *entry = light_cpuid(vcpu, (uint32_t)vmcb->rax);
    unsigned length = svm_instruction_length(v);
    uint64_t *gpr = vcpu->state.gpr, next;

    if (unlikely(!entry) || unlikely(!length) || unlikely(!light_next_rip(vmcb->rip, length, vmcb->rflags, &next)) ||
        unlikely(!usual(vcpu, v)))
        return false;
    vmcb->rip = next;
    vmcb->rax = entry->eax;
    gpr[GPR_RBX] = entry->ebx;
    gpr[GPR_RCX] = entry->ecx;
    gpr[GPR_RDX] = entry->edx;
    vcpu->exits[EXIT_CPUID]++;
    return true;
}

bool svm_light_memory(struct vcpu *vcpu)
{
    struct svm_vcpu *v = vcpu->backend;
    const struct vmcb *vmcb = v->vmcb;

    if (unlikely((vmcb->exit_info1 & (SVM_NPF_WRITE | SVM_NPF_FETCH)) != SVM_NPF_WRITE) || unlikely(!usual(vcpu, v)) ||
        !stage2_write_fault_light(vcpu->vm->memory, vmcb->exit_info2))
        return false;
    vcpu->exits[EXIT_MEMORY]++;
    return true;
}
