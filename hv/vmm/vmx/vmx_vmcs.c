/* SPDX-License-Identifier: MIT */
/*
 * Which VMCS is current on this CPU and whose registers it holds; what every VMCS holds from its first day; letting go
 * of one; printing one. Interrupts are off in all of it.
 */
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "vmm/dirty.h"
#include "vmm/stage2.h"
#include "vmm/vmx/vmx.h"

#define MSR_VMX_MISC 0x485

#define PLE_GAP_CYCLES 128      /* PAUSEs that follow each other this closely are one loop (SDM vol. 3C, 26.1.3) ... */
#define PLE_WINDOW_CYCLES 4096  /* ... and one that lasts this long exits */

void vmx_write_failed(enum vmcs_field field, uint64_t value)
{
    log_error("vmx: VMWRITE of 0x%llx to field 0x%04x failed, error %llu", (unsigned long long)value, (unsigned)field,
              (unsigned long long)vmread(VMCS_INSTRUCTION_ERROR));
}

void vmx_evict(struct vmx_cpu *cpu)
{
    if (cpu->owner)
        vmx_registers_save(cpu->owner->backend);
    cpu->owner = NULL;
    cpu->current = NULL;
}

/* What differs from CPU to CPU, or is the host's. 27.2.2 and 27.2.3 have the rules. */
static void host_fields(void)
{
    const struct cpu *cpu = this_cpu();

    vmwrite(VMCS_HOST_CR0, read_cr0());
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
    vmwrite(VMCS_HOST_PAT, rdmsr(MSR_PAT));
    vmwrite(VMCS_HOST_CS_SELECTOR, SEL_KERNEL_CS);
    vmwrite(VMCS_HOST_SS_SELECTOR, SEL_KERNEL_DS);
    vmwrite(VMCS_HOST_DS_SELECTOR, SEL_KERNEL_DS);
    vmwrite(VMCS_HOST_ES_SELECTOR, SEL_KERNEL_DS);
    vmwrite(VMCS_HOST_FS_SELECTOR, 0);
    vmwrite(VMCS_HOST_GS_SELECTOR, 0);
    vmwrite(VMCS_HOST_TR_SELECTOR, SEL_TSS);
    vmwrite(VMCS_HOST_FS_BASE, rdmsr(MSR_FS_BASE));
    vmwrite(VMCS_HOST_GS_BASE, rdmsr(MSR_GS_BASE));
    vmwrite(VMCS_HOST_TR_BASE, cpu->tss_base);
    vmwrite(VMCS_HOST_GDTR_BASE, cpu->gdt_base);
    vmwrite(VMCS_HOST_IDTR_BASE, cpu->idt_base);
    vmwrite(VMCS_HOST_SYSENTER_CS, 0);
    vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
    vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
    vmwrite(VMCS_HOST_RIP, (uint64_t)vmx_exit_entry);
}

/*
 * Half a millisecond of the preemption timer, which begins anew at each entry (the field is not saved at exits;
 * 26.6.4): no stretch in the guest is longer, whatever becomes of the host's interrupts. In Bochs 2.7 a guest that was
 * entered with RFLAGS.IF clear keeps them out, and one that spins so would never leave.
 */
static uint32_t preemption_ticks(void)
{
    uint64_t ticks = time_tsc_khz() / 2 >> (rdmsr(MSR_VMX_MISC) & 0x1f);

    return ticks ? (uint32_t)MIN(ticks, UINT32_MAX) : 1;
}

/* An instruction whose control is clear is #UD in the guest (25.6.2), as where the CPU lacks it. */
static uint32_t secondary_controls(const struct vm_core *vm)
{
    uint32_t hidden = (vm->instructions & INSTRUCTION_RDTSCP ? 0 : CPU2_RDTSCP) |
                      (vm->instructions & INSTRUCTION_INVPCID ? 0 : CPU2_INVPCID) |
                      (vm->instructions & INSTRUCTION_XSAVES ? 0 : CPU2_XSAVES);

    return (vmx_caps.secondary & ~(hidden & ~vmx_caps.secondary_required)) |
           (vm->tsc_multiplier != TSC_UNSCALED ? CPU2_TSC_SCALING : 0);
}

static void control_fields(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    v->processor_controls = vmx_caps.processor;
    v->secondary_controls = secondary_controls(vcpu->vm);
    v->tpr_threshold = 0;
    vmwrite(VMCS_PIN_CONTROLS, vmx_caps.pin);
    if (vmx_caps.pin & PIN_PREEMPTION_TIMER)
        vmwrite(VMCS_PREEMPTION_TIMER, preemption_ticks());
    vmwrite(VMCS_PROCESSOR_CONTROLS, v->processor_controls);
    vmwrite(VMCS_SECONDARY_CONTROLS, v->secondary_controls);
    vmwrite(VMCS_EXIT_CONTROLS, vmx_caps.exit);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_caps.entry);
    vmwrite(VMCS_EXCEPTION_BITMAP, BIT(EXC_DB) | BIT(EXC_AC) | BIT(EXC_MC));
    vmwrite(VMCS_PAGE_FAULT_MASK, 0);
    vmwrite(VMCS_PAGE_FAULT_MATCH, 0);
    vmwrite(VMCS_CR3_TARGET_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
    vmwrite(VMCS_TPR_THRESHOLD, 0);
    vmwrite(VMCS_MSR_BITMAP, vmx_msr_bitmap(vcpu).v);
    vmwrite(VMCS_VIRTUAL_APIC_ADDRESS, v->virtual_apic_page.v);
    if (vcpu->apic_registers) {
        vmwrite(VMCS_APIC_ACCESS_ADDRESS, vcpu->vm->apic_page.v);
        for (unsigned i = 0; i < ARRAY_COUNT(v->eoi_exits); i++)
            vmwrite(VMCS_EOI_EXIT_0 + 2 * i, v->eoi_exits[i]);
    }
    vmwrite(VMCS_EPT_POINTER, v->eptp);
    vmwrite(VMCS_CR0_MASK, ~CR0_GUEST);
    vmwrite(VMCS_CR4_MASK, ~CR4_GUEST);
    if (v->secondary_controls & CPU2_VPID)
        vmwrite(VMCS_VPID, v->vpid);
    if (v->secondary_controls & CPU2_PAUSE_LOOP) {
        vmwrite(VMCS_PLE_GAP, PLE_GAP_CYCLES);
        vmwrite(VMCS_PLE_WINDOW, PLE_WINDOW_CYCLES);
    }
    if (v->secondary_controls & CPU2_XSAVES)
        vmwrite(VMCS_XSS_EXITING_BITMAP, 0);
    if (v->secondary_controls & CPU2_TSC_SCALING)
        vmwrite(VMCS_TSC_MULTIPLIER, vcpu->vm->tsc_multiplier);
    vmwrite(VMCS_VMCS_LINK_POINTER, UINT64_MAX);
    vmwrite(VMCS_GUEST_ACTIVITY, 0);
    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
    vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
    v->rip = ~vcpu->state.rip; /* so that the first entry writes them */
    v->rsp = ~vcpu->state.gpr[GPR_RSP];
    v->rflags = ~vcpu->state.rflags;
    v->cr8 = ~vcpu->state.cr8;
    v->host_rsp = 0;
}

/* None may be left from an earlier stay on this CPU, from an earlier owner of its VPID, or from another mode of its APIC. */
void vmx_flush_all(const struct vmx_vcpu *v)
{
    bool ok = invept(vmx_caps.invept_single ? INVALIDATE_SINGLE : INVALIDATE_ALL, v->eptp);

    if (vmx_caps.vpid)
        ok &= invvpid(vmx_caps.invvpid_single ? INVALIDATE_SINGLE : INVALIDATE_ALL, v->vpid);
    if (!ok)
        log_error("vmx: INVEPT or INVVPID failed (EPT pointer 0x%llx, VPID %u)", (unsigned long long)v->eptp, v->vpid);
}

bool vmx_reach(struct vmx_cpu *cpu, struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend;

    if (cpu->vmcs == v)
        return true;
    if (vcpu->last_cpu != (int)this_cpu()->id || !vmptrld(v->vmcs.v))
        return false;
    cpu->vmcs = v;
    cpu->current = NULL;
    return true;
}

/* The VMCS is on no CPU: it becomes this one's. */
static bool adopt(struct vmx_cpu *cpu, struct vcpu *vcpu, struct vmx_vcpu *v)
{
    cpu->vmcs = NULL;
    if (!vmclear(v->vmcs.v) || !vmptrld(v->vmcs.v)) {
        log_error("vcpu %u: VMCLEAR or VMPTRLD of its VMCS at 0x%llx failed", vcpu->id, (unsigned long long)v->vmcs.v);
        return false;
    }
    cpu->vmcs = v;
    vcpu->last_cpu = (int)this_cpu()->id;
    v->launched = false;
    if (!v->initialized) {
        control_fields(vcpu, v);
        v->initialized = true;
    }
    host_fields();
    vmx_flush_all(v);
    return true;
}

bool vmx_attach(struct vmx_cpu *cpu, struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend;

    if (vcpu->last_cpu == -1 ? !adopt(cpu, vcpu, v) : !vmx_reach(cpu, vcpu)) {
        log_error("vcpu %u: cannot enter on CPU %u, it was not parked on CPU %d", vcpu->id, this_cpu()->id,
                  vcpu->last_cpu);
        return false;
    }
    if (cpu->owner != vcpu) {
        vmx_evict(cpu);
        vmx_registers_restore(v);
        cpu->owner = vcpu;
    }
    cpu->current = vcpu;
    return true;
}

void vmx_release(struct vcpu *vcpu)
{
    struct vmx_cpu *cpu = vmm_this_cpu();
    struct vmx_vcpu *v = vcpu->backend;

    if (vcpu->last_cpu == -1)
        return;
    if (!cpu || !vmx_reach(cpu, vcpu)) {
        log_error("vcpu %u: was to be parked on CPU %u, but it is on CPU %d", vcpu->id, this_cpu()->id, vcpu->last_cpu);
        return;
    }
    vcpu_load(&vmm_backend_vmx, vcpu, STATE_ALL);
    if (cpu->owner == vcpu)
        vmx_evict(cpu);
    if (!vmclear(v->vmcs.v))
        log_error("vcpu %u: VMCLEAR of its VMCS failed", vcpu->id);
    cpu->vmcs = NULL;
    cpu->current = NULL;
    vcpu->last_cpu = -1;
}

static void drain(struct vmx_vcpu *v, struct stage2 *stage2)
{
    /* After the last entry the CPU exits, and begins again at the first. */
    v->pml_next = (unsigned)dirty_log_drain(stage2, v->pml_log, (int)v->pml_next) % PML_ENTRIES;
}

void vmx_pml_drain_own(struct vcpu *vcpu, bool flush)
{
    struct stage2 *stage2 = vcpu->vm->memory;

    spin_lock(&stage2->lock);
    drain(vcpu->backend, stage2);
    if (flush)
        __atomic_store_n(&vcpu->flush_wanted, false, __ATOMIC_SEQ_CST);
    spin_unlock(&stage2->lock);
}

void vmx_pml_drain(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend;
    struct stage2 *stage2 = vcpu->vm->memory;

    if (!v->pml_log)
        return;
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    if (vcpu->flush_wanted)
        drain(v, stage2);
    spin_unlock_irqrestore(&stage2->lock, flags);
}

#define DUMP_FIELD(name, encoding) { #name, encoding },
static const struct { const char *name; uint16_t encoding; } dump_fields[] = { VMCS_FIELDS(DUMP_FIELD) };
#undef DUMP_FIELD

static void dump_field(const char *name, enum vmcs_field field)
{
    uint64_t value;
    bool ok;

    __asm__ volatile("vmread %2, %0; seta %1" : "=r"(value), "=qm"(ok) : "r"((uint64_t)field) : "cc");
    if (ok)
        log_info("  %-24s %016llx", name, (unsigned long long)value); /* fields that this CPU lacks are left out */
}

void vmx_dump(struct vcpu *vcpu)
{
    struct vmx_cpu *cpu = vmm_this_cpu();
    struct vmx_vcpu *v = vcpu->backend;
    bool parked = vcpu->last_cpu == -1;

    log_info("vcpu %u: VMCS at %llx, last CPU %d, VPID %u", vcpu->id, (unsigned long long)v->vmcs.v, vcpu->last_cpu,
              v->vpid);
    if (!cpu || !v->initialized || (parked ? !vmptrld(v->vmcs.v) : !vmx_reach(cpu, vcpu))) {
        log_info("vcpu %u: its VMCS cannot be read here", vcpu->id);
        return;
    }
    for (unsigned i = 0; i < ARRAY_COUNT(dump_fields); i++)
        dump_field(dump_fields[i].name, dump_fields[i].encoding);
    if (parked) {
        if (!vmclear(v->vmcs.v))
            log_info("vcpu %u: VMCLEAR of its VMCS failed", vcpu->id);
        cpu->vmcs = NULL;
        cpu->current = NULL;
    }
}
