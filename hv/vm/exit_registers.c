/* SPDX-License-Identifier: MIT */
/*
 * Model-specific and control registers of a guest: what may be written (the CPU model and its limits decide), what a
 * write brings with it (long mode, PDPTEs, stale translations, timers), and the #GP where a real CPU has one.
 */
#include <string.h>

#include "kernel/log.h"
#include "kernel/time.h"
#include "vm/exits.h"
#include "vmm/vector.h"

/* ---- Model-specific registers ---- */

/* Reads of an APIC register are on a hot path (x2APIC): no lock, no load of state. */
static bool msr_read(struct machine_cpu *cpu, uint32_t msr, uint64_t *value)
{
    struct vm *vm = cpu->vm;
    struct vcpu *vcpu = &cpu->vcpu;
    struct msr_rule rule = msr_policy(&vm->model, msr);

    switch (rule.kind) {
    case MSR_CONSTANT:
        *value = rule.value;
        return true;
    case MSR_SWITCHED:
        vcpu_load(vmm, vcpu, STATE_ALL);
        return msr_switched_read(&vcpu->state, msr, value);
    case MSR_STORED:
        return msr_state_read(&cpu->msrs, &vm->model, msr, value);
    case MSR_IS_TSC:
        *value = msr == MSR_TSC ? machine_tsc(vm) + vcpu->tsc_offset : cpu->tsc_adjust;
        return true;
    case MSR_IS_APIC:
        return vlapic_msr_read(&cpu->apic, msr, value, machine_now(vm));
    case MSR_IS_EFER:
        vcpu_load(vmm, vcpu, STATE_CR);
        *value = vcpu->state.efer;
        return true;
    case MSR_IS_HYPERV: {
        uint64_t tsc = machine_tsc(vm) + vcpu->tsc_offset - cpu->tsc_adjust; /* the machine's, whatever this guest wrote to its own */
        spin_lock(&vm->lock);
        bool ok = hyperv_msr_read(&vm->hyperv, &cpu->hyperv, msr, value, tsc, machine_now(vm));
        spin_unlock(&vm->lock);
        return ok;
    }
    default:
        return false;
    }
}

static bool guest_write_efer(struct vcpu *vcpu, uint64_t value)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    vcpu_load(vmm, vcpu, STATE_CR);
    if (!msr_efer_ok(&vcpu->state, &cpu->vm->model.limits, value))
        return false;
    bool active = (value & EFER_LME) && (vcpu->state.cr0 & CR0_PG);
    if ((value ^ vcpu->state.efer) & EFER_NXE)
        vcpu->flush_wanted = true;
    vcpu->state.efer = (value & ~EFER_LMA) | (active ? EFER_LMA : 0);
    vcpu->dirty |= STATE_CR;
    return true;
}

static bool guest_write_tsc(struct machine_cpu *cpu, uint32_t msr, uint64_t value)
{
    struct vcpu *vcpu = &cpu->vcpu;
    uint64_t delta = msr == MSR_TSC ? value - (machine_tsc(cpu->vm) + vcpu->tsc_offset) : value - cpu->tsc_adjust;

    cpu->tsc_adjust += delta; /* SDM vol. 3B, 18.17.3: a write of either moves both */
    vcpu->tsc_offset += delta;
    vcpu->tsc_offset_changed = true;
    vlapic_tsc_changed(&cpu->apic, machine_now(cpu->vm));
    return true;
}

static bool msr_write(struct machine_cpu *cpu, uint32_t msr, uint64_t value)
{
    struct vm *vm = cpu->vm;
    struct vcpu *vcpu = &cpu->vcpu;
    struct msr_rule rule = msr_policy(&vm->model, msr);

    switch (rule.kind) {
    case MSR_CONSTANT:
        return rule.drop_writes;
    case MSR_SWITCHED:
        vcpu_load(vmm, vcpu, STATE_ALL);
        if (!msr_switched_write(&vcpu->state, &vm->model.limits, msr, value))
            return false;
        vcpu_debugctl_limit(vmm, &vcpu->state);
        vcpu->dirty |= STATE_SYSCALL | STATE_SEG | STATE_DEBUG | STATE_MISC;
        return true;
    case MSR_STORED:
        return msr_state_write(&cpu->msrs, &vm->model, msr, value);
    case MSR_IS_TSC:
        return guest_write_tsc(cpu, msr, value);
    case MSR_IS_APIC: {
        bool ok = vlapic_msr_write(&cpu->apic, msr, value, machine_now(vm));
        vcpu->state.cr8 = vlapic_cr8(&cpu->apic);
        /* Two are frequent, and what comes of them for this vCPU kicks it: the timer's deadline and ICR. */
        if (msr != MSR_TSC_DEADLINE && msr != MSR_X2APIC_FIRST + 0x30)
            vcpu_request(vcpu, REQ_EVENT);
        if (msr == MSR_APIC_BASE)
            machine_apic_page_update(vm);
        return ok;
    }
    case MSR_IS_EFER:
        return guest_write_efer(vcpu, value);
    case MSR_IS_HYPERV: {
        spin_lock(&vm->lock);
        bool ok = hyperv_msr_write(&vm->hyperv, &cpu->hyperv, msr, value);
        spin_unlock(&vm->lock);
        return ok;
    }
    case MSR_COMMAND:
        if (value & ~rule.value)
            return false;
        if (msr == MSR_PRED_CMD || msr == MSR_FLUSH_CMD)
            wrmsr(msr, value);
        return true;
    default:
        return false;
    }
}

/* Why an access to that MSR was refused. */
static const char *refusal(const struct vm *vm, uint32_t msr, bool write)
{
    switch (msr_policy(&vm->model, msr).kind) {
    case MSR_DENY: return "which its CPU model does not have";
    case MSR_CONSTANT: return "which is read-only";
    default: return write ? "which does not take that value" : "which cannot be read";
    }
}

/* The first refusal of each MSR is logged, up to a bound: a guest must not own the log. */
static void log_refused_msr(struct vcpu *vcpu, uint32_t msr, const uint64_t *value)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;
    const char *why = refusal(vm, msr, value);

    spin_lock(&vm->lock);
    bool told = vm->refused_msr_count == MACHINE_REFUSED_MSRS;
    for (unsigned i = 0; i < vm->refused_msr_count && !told; i++)
        told = vm->refused_msr[i] == msr;
    if (!told)
        vm->refused_msr[vm->refused_msr_count++] = msr;
    spin_unlock(&vm->lock);
    if (told)
        return;
    if (value)
        log_info("vm %s: vCPU %u writes 0x%lx to MSR 0x%x, %s: #GP", vm->name, vcpu->id, *value, msr, why);
    else
        log_info("vm %s: vCPU %u reads MSR 0x%x, %s: #GP", vm->name, vcpu->id, msr, why);
}

bool exit_rdmsr(struct vcpu *vcpu, const struct vm_exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->state.gpr[GPR_RCX];
    uint64_t value;

    if (!msr_read(machine_cpu_of(vcpu), msr, &value)) {
        log_refused_msr(vcpu, msr, NULL);
        return fault_gp(vcpu);
    }
    vcpu->state.gpr[GPR_RAX] = (uint32_t)value;
    vcpu->state.gpr[GPR_RDX] = value >> 32;
    return finish(vcpu, exit);
}

bool exit_wrmsr(struct vcpu *vcpu, const struct vm_exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->state.gpr[GPR_RCX];
    uint64_t value = vcpu->state.gpr[GPR_RDX] << 32 | (uint32_t)vcpu->state.gpr[GPR_RAX];

    if (!msr_write(machine_cpu_of(vcpu), msr, value)) {
        log_refused_msr(vcpu, msr, &value);
        return fault_gp(vcpu);
    }
    return finish(vcpu, exit);
}

/* ---- Control registers ---- */

/* PAE paging: the CPU caches the four PDPTEs when CR3 is loaded or paging is changed (SDM vol. 3A, 4.4.1). */
static bool load_pdptes(struct machine_cpu *cpu, uint64_t cr0, uint64_t cr4)
{
    struct cpu_state *s = &cpu->vcpu.state;
    uint64_t entry[4];

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (s->efer & EFER_LME) || vmm->features->pdptes_in_memory)
        return true;
    if (!gmem_read(&cpu->vm->gmem, GPA(s->cr3 & 0xffffffe0), entry, sizeof entry))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if ((entry[i] & 1) && (entry[i] & (0x1e6 | ~(BIT(cpu->vm->model.limits.physical_bits) - 1))))
            return false;
    memcpy(s->pdpte, entry, sizeof entry);
    return true;
}

static bool guest_write_cr0(struct machine_cpu *cpu, uint64_t value)
{
    struct cpu_state *s = &cpu->vcpu.state;
    const uint64_t defined = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    uint64_t old = s->cr0;

    if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    value = (value & defined) | CR0_ET;
    if (!(value & CR0_PG) && (s->cr4 & CR4_PCIDE))
        return false;
    if ((value & CR0_PG) && !(old & CR0_PG) && (s->efer & EFER_LME)) {
        vcpu_load(vmm, &cpu->vcpu, STATE_SEG);
        if (!(s->cr4 & CR4_PAE) || (s->seg[SEG_CS].attributes & SEG_L))
            return false;
        s->efer |= EFER_LMA;
    } else if (!(value & CR0_PG) && (old & CR0_PG) && (s->efer & EFER_LMA)) {
        vcpu_load(vmm, &cpu->vcpu, STATE_SEG);
        if (s->seg[SEG_CS].attributes & SEG_L)
            return false;
        s->efer &= ~EFER_LMA;
    }
    if (((value ^ old) & (CR0_PG | CR0_CD | CR0_NW)) && !load_pdptes(cpu, value, s->cr4)) {
        s->efer = (old & CR0_PG) && (s->efer & EFER_LME) ? s->efer | EFER_LMA : s->efer & ~EFER_LMA;
        return false;
    }
    s->cr0 = value;
    if ((value ^ old) & (CR0_PG | CR0_WP))
        cpu->vcpu.flush_wanted = true;
    return true;
}

static bool guest_write_cr4(struct machine_cpu *cpu, uint64_t value)
{
    struct cpu_state *s = &cpu->vcpu.state;
    uint64_t changed = value ^ s->cr4;

    if (value & ~cpu->vm->model.limits.cr4_valid)
        return false;
    if (cpu_long_mode(s) && (!(value & CR4_PAE) || (changed & CR4_LA57)))
        return false;
    if ((changed & value & CR4_PCIDE) && (!cpu_long_mode(s) || (s->cr3 & 0xfff)))
        return false;
    if ((changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)) && !load_pdptes(cpu, s->cr0, value))
        return false;
    s->cr4 = value;
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_LA57))
        cpu->vcpu.flush_wanted = true;
    return true;
}

bool exit_cr_write(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    struct cpu_state *s = &vcpu->state;
    uint64_t value = exit->cr.value;
    bool ok;

    vcpu_load(vmm, vcpu, STATE_CR);
    switch (exit->cr.number) {
    case 0:
        if (exit->cr.clts)
            value = s->cr0 & ~CR0_TS;
        else if (exit->cr.lmsw) /* LMSW sets PE but does not clear it (SDM vol. 2A) */
            value = (s->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | (value & (CR0_PE | CR0_MP | CR0_EM | CR0_TS));
        ok = guest_write_cr0(cpu, value);
        break;
    case 4:
        ok = guest_write_cr4(cpu, value);
        break;
    case 8:
        ok = value <= 15;
        if (ok) {
            s->cr8 = value;
            vlapic_recall(&cpu->apic);
            (void)vlapic_set_cr8(&cpu->apic, value);
            vcpu_request(vcpu, REQ_EVENT);
        }
        break;
    default:
        return fault_ud(vcpu);
    }
    if (!ok)
        return fault_gp(vcpu);
    vcpu->dirty |= STATE_CR;
    return finish(vcpu, exit);
}

bool exit_cr_read(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct cpu_state *s = &vcpu->state;

    vcpu_load(vmm, vcpu, STATE_CR);
    s->gpr[exit->cr.gpr] = exit->cr.number == 0   ? s->cr0
                           : exit->cr.number == 3 ? s->cr3
                           : exit->cr.number == 4 ? s->cr4
                                                  : s->cr8;
    return finish(vcpu, exit);
}

bool exit_xsetbv(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    uint64_t value = vcpu->state.gpr[GPR_RDX] << 32 | (uint32_t)vcpu->state.gpr[GPR_RAX];

    vcpu_load(vmm, vcpu, STATE_CR | STATE_CS | STATE_MISC);
    if (!(vcpu->state.cr4 & CR4_OSXSAVE))
        return fault_ud(vcpu);
    if (cpu_cpl(&vcpu->state) || (uint32_t)vcpu->state.gpr[GPR_RCX] || !cpuid_xcr0_ok(&cpu->vm->model, value))
        return fault_gp(vcpu);
    vcpu_set_xcr0(vcpu, value);
    return finish(vcpu, exit);
}
