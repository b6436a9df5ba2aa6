/* SPDX-License-Identifier: MIT */
/*
 * Light exits of VMX; vmm/light.h has the rules. Called by vmx_entry.S with the VMCS current and the registers that C may
 * change in vcpu->state. The VMCS keeps what is not written here, so the next full exit reads all of it anew.
 *
 * Only so many come one after the other. In Bochs 2.7 a guest that was entered with RFLAGS.IF clear keeps the host's
 * interrupts out until its next exit, and after a light exit they are still kept out: one that did nothing but such exits
 * would have its CPU for ever. (The preemption timer does not help: it begins anew at each entry.)
 */
#include "vmm/light.h"
#include "vmm/vmx/vmx.h"

_Static_assert(ENTRY_VMCS_EXIT_REASON == VMCS_EXIT_REASON && ENTRY_REASON_CPUID == REASON_CPUID &&
               ENTRY_REASON_EPT_VIOLATION == REASON_EPT_VIOLATION, "what vmx_entry.S looks at");

/* May this exit be a light one, as far as the vCPU is concerned? */
static inline bool usual(const struct vcpu *vcpu, const struct vmx_vcpu *v)
{
    return v->light_left && vcpu_wants(vcpu) == v->wants && !vcpu_gate_shut(vcpu, vcpu->cpu);
}

bool vmx_light_cpuid(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend;
    uint64_t *gpr = vcpu->state.gpr, next;
    const struct cpuid_entry *entry = light_cpuid(vcpu, (uint32_t)gpr[GPR_RAX]);

    if (unlikely(!entry) ||
        unlikely(!light_next_rip(vmread(VMCS_GUEST_RIP), vmread(VMCS_EXIT_INSTRUCTION_LENGTH), vmread(VMCS_GUEST_RFLAGS), &next)) ||
        unlikely(vmread(VMCS_GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)) ||
        unlikely(!usual(vcpu, v)) || unlikely(!vmwrite_ok(VMCS_GUEST_RIP, next)))
        return false;
    gpr[GPR_RAX] = entry->eax;
    gpr[GPR_RBX] = entry->ebx;
    gpr[GPR_RCX] = entry->ecx;
    gpr[GPR_RDX] = entry->edx;
    v->light_left--;
    vcpu->exits[EXIT_CPUID]++;
    return true;
}

/* An event whose delivery met the fault is put back the full way, as is NMI blocking that an IRET had ended (28.2.3). */
bool vmx_light_memory(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend;
    const uint64_t plain = QUALIFICATION_EPT_WRITE, odd = QUALIFICATION_EPT_FETCH | QUALIFICATION_NMI_UNBLOCKED;

    if (unlikely((vmread(VMCS_EXIT_QUALIFICATION) & (plain | odd)) != plain) ||
        unlikely(vmread(VMCS_IDT_VECTORING_INFO) & INTERRUPTION_VALID) || unlikely(!usual(vcpu, v)) ||
        !stage2_write_fault_light(vcpu->vm->memory, vmread(VMCS_GUEST_PHYSICAL_ADDRESS)))
        return false;
    v->light_left--;
    vcpu->exits[EXIT_MEMORY]++;
    return true;
}
