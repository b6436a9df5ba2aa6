/* SPDX-License-Identifier: MIT */
/*
 * vcpu->state <-> VMCS, group by group; STATE_BASE and STATE_INTR come and go in vmx_run.c too. The VMCS of the vCPU is
 * current (vmx_reach), except where only registers are touched.
 *
 * What is stored is what the guest sees, plus what VM entry demands (SDM vol. 3C, 27.3.1) and the guest cannot notice:
 * the fixed bits of CR0 and CR4 behind read shadows, accessed bits of segments, granularity that fits the limit.
 */
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "vmm/vmx/vmx.h"

void vmx_registers_save(struct vmx_vcpu *v)
{
    guest_regs_save(&v->regs);
    v->away = (struct vmx_away){
        .cr2 = read_cr2(),
        .dr6 = read_dr6(),
        .star = rdmsr(MSR_STAR),
        .lstar = rdmsr(MSR_LSTAR),
        .cstar = rdmsr(MSR_CSTAR),
        .fmask = rdmsr(MSR_FMASK),
        .kernel_gs_base = rdmsr(MSR_KERNEL_GS_BASE),
    };
}

void vmx_registers_restore(const struct vmx_vcpu *v)
{
    guest_regs_restore(&v->regs);
    write_cr2(v->away.cr2);
    write_dr6(v->away.dr6);
    wrmsr(MSR_STAR, v->away.star);
    wrmsr(MSR_LSTAR, v->away.lstar);
    wrmsr(MSR_CSTAR, v->away.cstar);
    wrmsr(MSR_FMASK, v->away.fmask);
    wrmsr(MSR_KERNEL_GS_BASE, v->away.kernel_gs_base);
}

/* 27.3.1.2. `s` selects the rules: TR busy, LDTR an LDT, the others code and data that have been accessed. */
static void segment_store(unsigned s, struct segment from)
{
    uint32_t a = from.attributes & 0x1f0ff; /* bits 11-8 and from 17 on are reserved */

    if (!(a & SEG_P))
        a |= SEG_UNUSABLE;
    if (s == SEG_TR)
        a = (a & SEG_UNUSABLE) ? 0x8b : (a & ~(uint32_t)SEG_S) | 2 | 1;
    else if (s == SEG_LDTR)
        a = (a & SEG_UNUSABLE) ? a : (a & ~(uint32_t)(SEG_S | SEG_TYPE_MASK)) | 2;
    else if (!(a & SEG_UNUSABLE))
        a |= 1;
    if (!(a & SEG_UNUSABLE)) {
        if (from.limit > 0xfffff) {
            a |= SEG_G;
            from.limit |= 0xfff;
        } else if ((from.limit & 0xfff) != 0xfff) {
            a &= ~(uint32_t)SEG_G;
        }
    }
    vmwrite(VMCS_GUEST_ES_SELECTOR + 2 * s, from.selector);
    vmwrite(VMCS_GUEST_ES_LIMIT + 2 * s, from.limit);
    vmwrite(VMCS_GUEST_ES_RIGHTS + 2 * s, a);
    vmwrite(VMCS_GUEST_ES_BASE + 2 * s, from.base);
}

static void segment_load(unsigned s, struct segment *to)
{
    to->selector = (uint16_t)vmread(VMCS_GUEST_ES_SELECTOR + 2 * s);
    to->limit = (uint32_t)vmread(VMCS_GUEST_ES_LIMIT + 2 * s);
    to->attributes = (uint32_t)vmread(VMCS_GUEST_ES_RIGHTS + 2 * s);
    to->base = vmread(VMCS_GUEST_ES_BASE + 2 * s);
}

static bool pae_paging(const struct cpu_state *s)
{
    return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

static void control_store(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    const struct cpu_state *s = &vcpu->state;

    v->cr0_shadow = s->cr0;
    v->cr4_shadow = s->cr4;
    vmwrite(VMCS_CR0_READ_SHADOW, s->cr0);
    vmwrite(VMCS_CR4_READ_SHADOW, s->cr4);
    vmwrite(VMCS_GUEST_CR0, ((s->cr0 & ~(CR0_CD | CR0_NW)) | vmx_caps.cr0_set | CR0_ET) & UINT32_MAX);
    vmwrite(VMCS_GUEST_CR3, s->cr3);
    vmwrite(VMCS_GUEST_CR4, (s->cr4 | vmx_caps.cr4_set | CR4_MCE) & vmx_caps.cr4_allowed);
    vmwrite(VMCS_GUEST_EFER, s->efer);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_caps.entry | (s->efer & EFER_LMA ? ENTRY_IA32E : 0));
    if (pae_paging(s))
        for (unsigned i = 0; i < 4; i++)
            vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, s->pdpte[i]);
    v->away.cr2 = s->cr2;
}

static void control_load(const struct vmx_vcpu *v, struct cpu_state *s)
{
    s->cr0 = (vmread(VMCS_GUEST_CR0) & CR0_GUEST) | (v->cr0_shadow & ~CR0_GUEST);
    s->cr3 = vmread(VMCS_GUEST_CR3);
    s->cr4 = (vmread(VMCS_GUEST_CR4) & CR4_GUEST) | (v->cr4_shadow & ~CR4_GUEST);
    s->efer = vmread(VMCS_GUEST_EFER);
    bool pae = pae_paging(s);
    for (unsigned i = 0; i < 4; i++)
        s->pdpte[i] = pae ? vmread(VMCS_GUEST_PDPTE0 + 2 * i) : 0;
}

static void table_load(struct cpu_state *s)
{
    s->gdtr.base = vmread(VMCS_GUEST_GDTR_BASE);
    s->gdtr.limit = (uint16_t)vmread(VMCS_GUEST_GDTR_LIMIT);
    s->idtr.base = vmread(VMCS_GUEST_IDTR_BASE);
    s->idtr.limit = (uint16_t)vmread(VMCS_GUEST_IDTR_LIMIT);
}

static void table_store(const struct cpu_state *s)
{
    vmwrite(VMCS_GUEST_GDTR_BASE, s->gdtr.base);
    vmwrite(VMCS_GUEST_GDTR_LIMIT, s->gdtr.limit);
    vmwrite(VMCS_GUEST_IDTR_BASE, s->idtr.base);
    vmwrite(VMCS_GUEST_IDTR_LIMIT, s->idtr.limit);
}

/* The registers that no transition switches: from v, which the caller has just filled. */
static void away_load(const struct vmx_vcpu *v, struct cpu_state *s, unsigned groups)
{
    if (groups & STATE_CR)
        s->cr2 = v->away.cr2;
    if (groups & STATE_SYSCALL) {
        s->star = v->away.star;
        s->lstar = v->away.lstar;
        s->cstar = v->away.cstar;
        s->fmask = v->away.fmask;
        s->kernel_gs_base = v->away.kernel_gs_base;
        s->tsc_aux = v->regs.tsc_aux;
    }
    if (groups & STATE_DEBUG) {
        for (unsigned i = 0; i < 4; i++)
            s->dr[i] = v->regs.dr[i];
        s->dr6 = v->away.dr6;
    }
}

static void syscall_store(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    const struct cpu_state *s = &vcpu->state;

    vmwrite(VMCS_GUEST_SYSENTER_CS, (uint32_t)s->sysenter_cs);
    vmwrite(VMCS_GUEST_SYSENTER_ESP, s->sysenter_esp);
    vmwrite(VMCS_GUEST_SYSENTER_EIP, s->sysenter_eip);
    v->away.star = s->star;
    v->away.lstar = s->lstar;
    v->away.cstar = s->cstar;
    v->away.fmask = s->fmask;
    v->away.kernel_gs_base = s->kernel_gs_base;
    v->regs.tsc_aux = (uint32_t)s->tsc_aux;
}

/* The registers of one group from vcpu->state to the CPU; values from outside may be refused. */
static void registers_store(struct vcpu *vcpu, unsigned groups)
{
    const struct cpu_state *s = &vcpu->state;

    if (groups & STATE_CR)
        write_cr2(s->cr2);
    if (groups & STATE_SYSCALL) {
        guest_wrmsr(vcpu, "STAR", MSR_STAR, s->star);
        guest_wrmsr(vcpu, "LSTAR", MSR_LSTAR, s->lstar);
        guest_wrmsr(vcpu, "CSTAR", MSR_CSTAR, s->cstar);
        guest_wrmsr(vcpu, "SFMASK", MSR_FMASK, s->fmask);
        guest_wrmsr(vcpu, "KERNEL_GS_BASE", MSR_KERNEL_GS_BASE, s->kernel_gs_base);
        if (cpu_features.rdtscp)
            wrmsr(MSR_TSC_AUX, (uint32_t)s->tsc_aux);
    }
    if (groups & STATE_DEBUG) {
        write_dr0(s->dr[0]);
        write_dr1(s->dr[1]);
        write_dr2(s->dr[2]);
        write_dr3(s->dr[3]);
        write_dr6((uint32_t)s->dr6);
    }
}

static void debug_store(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    const struct cpu_state *s = &vcpu->state;

    vmwrite(VMCS_GUEST_DR7, (uint32_t)s->dr7 | BIT(10));
    vmwrite(VMCS_GUEST_DEBUGCTL, s->debugctl);
    for (unsigned i = 0; i < 4; i++)
        v->regs.dr[i] = s->dr[i];
    v->away.dr6 = s->dr6;
}

/*
 * 27.3.1.5: STI blocks only while IF is set, not both kinds at once; while one of them blocks, a single-step trap is
 * pending exactly if TF is set (and DEBUGCTL.BTF clear).
 */
static void interruptibility_store(const struct cpu_state *s, unsigned groups)
{
    uint32_t value = s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI);
    uint64_t pending = groups & STATE_TRAP ? s->pending_debug & PENDING_DEBUG_VALID : vmread(VMCS_GUEST_PENDING_DEBUG);

    if ((value & INTERRUPTIBILITY_MOV_SS) || !(s->rflags & RFLAGS_IF))
        value &= ~(uint32_t)INTERRUPTIBILITY_STI;
    if (value & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)) {
        pending &= ~PENDING_DEBUG_STEP;
        if ((s->rflags & RFLAGS_TF) && !(vmread(VMCS_GUEST_DEBUGCTL) & BIT(1)))
            pending |= PENDING_DEBUG_STEP;
    }
    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, value);
    vmwrite(VMCS_GUEST_PENDING_DEBUG, pending);
}

void vmx_load(struct vcpu *vcpu, unsigned groups)
{
    struct vmx_vcpu *v = vcpu->backend;
    struct cpu_state *s = &vcpu->state;
    uint64_t flags = irq_save(); /* another vCPU's thread may not make its VMCS current in the middle of this */
    struct vmx_cpu *cpu = vmm_this_cpu();

    if (!cpu || !vmx_reach(cpu, vcpu)) {
        log_error("vcpu %u: its state is on CPU %d and cannot be read from CPU %u", vcpu->id, vcpu->last_cpu,
                  this_cpu()->id);
        irq_restore(flags);
        return;
    }
    if (groups & STATE_CR)
        control_load(v, s);
    if (groups & STATE_SEG) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            segment_load(i, &s->seg[i]);
    } else if ((groups & STATE_CS) && !(vcpu->valid & STATE_SEG)) {
        segment_load(SEG_CS, &s->seg[SEG_CS]);
        segment_load(SEG_SS, &s->seg[SEG_SS]);
    }
    if (groups & STATE_TABLE)
        table_load(s);
    if (groups & STATE_SYSCALL) {
        s->sysenter_cs = vmread(VMCS_GUEST_SYSENTER_CS);
        s->sysenter_esp = vmread(VMCS_GUEST_SYSENTER_ESP);
        s->sysenter_eip = vmread(VMCS_GUEST_SYSENTER_EIP);
    }
    if (groups & STATE_DEBUG) {
        s->dr7 = vmread(VMCS_GUEST_DR7);
        s->debugctl = vmread(VMCS_GUEST_DEBUGCTL);
    }
    if (groups & (STATE_CR | STATE_SYSCALL | STATE_DEBUG)) {
        if (cpu->owner != vcpu)
            away_load(v, s, groups);
        else if (groups & (STATE_SYSCALL | STATE_DEBUG)) {
            vmx_registers_save(v);
            away_load(v, s, groups);
        } else
            s->cr2 = read_cr2();
    }
    if (groups & STATE_INTR)
        s->interruptibility = (uint32_t)vmread(VMCS_GUEST_INTERRUPTIBILITY) &
                              (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI);
    if (groups & STATE_TRAP)
        s->pending_debug = (uint32_t)vmread(VMCS_GUEST_PENDING_DEBUG) & PENDING_DEBUG_VALID;
    if (groups & STATE_MISC)
        s->pat = vmread(VMCS_GUEST_PAT); /* xcr0, xss, spec_ctrl: vcpu->state is their home */
    irq_restore(flags);
}

/* At an entry: the VMCS is current and the CPU holds this vCPU's registers. */
void vmx_store(struct vcpu *vcpu, unsigned groups)
{
    struct vmx_vcpu *v = vcpu->backend;
    const struct cpu_state *s = &vcpu->state;

    if (groups & STATE_CR)
        control_store(vcpu, v);
    if (groups & STATE_SEG)
        for (unsigned i = 0; i < SEG_COUNT; i++)
            segment_store(i, s->seg[i]);
    if (groups & STATE_TABLE)
        table_store(s);
    if (groups & STATE_SYSCALL)
        syscall_store(vcpu, v);
    if (groups & STATE_DEBUG)
        debug_store(vcpu, v);
    if (groups & (STATE_INTR | STATE_DEBUG | STATE_TRAP))
        interruptibility_store(s, groups);
    if (groups & STATE_MISC) {
        vmwrite(VMCS_GUEST_PAT, s->pat);
        if (guest_regs_changed(&v->regs, s))
            vmwrite(VMCS_MSR_BITMAP, vmx_msr_bitmap(vcpu).v);
    }
    registers_store(vcpu, groups);
}
