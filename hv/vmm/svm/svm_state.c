/* SPDX-License-Identifier: MIT */
/*
 * vcpu->state <-> VMCB, group by group. STATE_BASE is not here: svm_run.c moves it at every entry and exit.
 *
 * What is stored is what the guest sees, but for EFER.SVME, which VMRUN demands (AMD APM vol. 2, 15.5.1), and CR0.CD
 * and CR0.NW, which would make the guest's accesses uncached; while the guest has one of them set, its reads and writes
 * of CR0 are intercepted, so it never notices.
 */
#include "kernel/cpu.h"
#include "vmm/svm/svm.h"
#include "vmm/vector.h"

/* VMX access rights to VMCB attributes and back: the upper nibble moves by four bits, unusable means not present. */
static void segment_store(struct vmcb_segment *to, const struct segment *from)
{
    uint32_t a = from->attributes;

    to->selector = from->selector;
    to->attributes = a & SEG_UNUSABLE ? 0 : (uint16_t)((a & 0xff) | (a >> 4 & 0xf00));
    to->limit = from->limit;
    to->base = from->base;
}

static inline void segment_load(struct segment *to, const struct vmcb_segment *from)
{
    uint32_t a = from->attributes;

    a = (a & 0xff) | (a & 0xf00) << 4;
    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->attributes = a & SEG_P ? a : a | SEG_UNUSABLE;
}

/*
 * CPUs do not keep G of every segment as it was loaded, nor that loading marks a segment as accessed; other CPUs check G
 * against the limit, and that a usable code or data segment is marked (SDM vol. 3C, 27.3.1.2).
 */
static inline void segment_complete(struct segment *segment)
{
    if ((segment->attributes & (SEG_S | SEG_P)) == (SEG_S | SEG_P))
        segment->attributes |= 1;
    if (segment->limit > 0xfffff)
        segment->attributes |= (uint32_t)SEG_G;
}

static void cs_ss_load(struct cpu_state *s, const struct vmcb *vmcb)
{
    segment_load(&s->seg[SEG_CS], &vmcb->cs);
    segment_load(&s->seg[SEG_SS], &vmcb->ss);
    segment_complete(&s->seg[SEG_CS]);
    segment_complete(&s->seg[SEG_SS]);
    /* The VMCB has CPL in a field of its own; in struct cpu_state it is SS.DPL (outside real and virtual-8086 mode). */
    if ((vmcb->cr0 & CR0_PE) && !(vmcb->rflags & RFLAGS_VM)) {
        uint32_t dpl = (uint32_t)vmcb->cpl << SEG_DPL_SHIFT;
        s->seg[SEG_SS].attributes = (s->seg[SEG_SS].attributes & ~(3u << SEG_DPL_SHIFT)) | dpl;
    }
}

static void segments_load(struct cpu_state *s, const struct vmcb *vmcb)
{
    cs_ss_load(s, vmcb);
    segment_load(&s->seg[SEG_ES], &vmcb->es);
    segment_load(&s->seg[SEG_DS], &vmcb->ds);
    segment_load(&s->seg[SEG_FS], &vmcb->fs);
    segment_load(&s->seg[SEG_GS], &vmcb->gs);
    segment_load(&s->seg[SEG_LDTR], &vmcb->ldtr);
    segment_load(&s->seg[SEG_TR], &vmcb->tr);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_complete(&s->seg[i]);
    s->seg[SEG_TR].attributes |= 2; /* a loaded task register is busy, whatever the CPU keeps of that */
}

static void segments_store(struct svm_vcpu *v, const struct cpu_state *s)
{
    struct vmcb *vmcb = v->vmcb;

    segment_store(&vmcb->cs, &s->seg[SEG_CS]);
    segment_store(&vmcb->ss, &s->seg[SEG_SS]);
    segment_store(&vmcb->es, &s->seg[SEG_ES]);
    segment_store(&vmcb->ds, &s->seg[SEG_DS]);
    segment_store(&vmcb->fs, &s->seg[SEG_FS]);
    segment_store(&vmcb->gs, &s->seg[SEG_GS]);
    segment_store(&vmcb->ldtr, &s->seg[SEG_LDTR]);
    segment_store(&vmcb->tr, &s->seg[SEG_TR]);
    /* CPL: SS.DPL, an unusable SS included. cpu_cpl() needs CR0 and RFLAGS, which may be newer in the VMCB. */
    if (!(vmcb->cr0 & CR0_PE))
        vmcb->cpl = 0;
    else if (s->rflags & RFLAGS_VM)
        vmcb->cpl = 3;
    else
        vmcb->cpl = s->seg[SEG_SS].attributes >> SEG_DPL_SHIFT & 3;
    vmcb->clean &= ~(uint32_t)SVM_CLEAN_SEG;
}

void svm_intercepts_update(struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;
    bool cr0 = v->cr0_hidden && !v->native_once;

    vmcb->cr_reads = cr0 ? BIT(0) : 0;
    vmcb->cr_writes = (uint16_t)((vmcb->cr_writes & BIT(8)) | BIT(4) | (cr0 ? BIT(0) : 0)); /* 8: windows_set */
    vmcb->intercepts1 &= ~(uint32_t)(SVM_I1_CR0_SELECTIVE | SVM_I1_IRET);
    if (!v->native_once)
        vmcb->intercepts1 |= SVM_I1_CR0_SELECTIVE;
    if (v->nmi_blocked && !v->iret_seen)
        vmcb->intercepts1 |= SVM_I1_IRET;
    vmcb->clean &= ~(uint32_t)SVM_CLEAN_INTERCEPTS;
}

static void control_store(struct svm_vcpu *v, const struct cpu_state *s)
{
    struct vmcb *vmcb = v->vmcb;
    uint64_t hidden = s->cr0 & (CR0_CD | CR0_NW);

    if (((vmcb->cr0 ^ s->cr0) & (CR0_PG | CR0_PE)) || vmcb->cr4 != s->cr4 || vmcb->efer != (s->efer | EFER_SVME))
        length_cache_clear(&v->lengths);
    vmcb->cr0 = (s->cr0 & ~hidden) | CR0_ET;
    vmcb->cr2 = s->cr2;
    vmcb->cr3 = s->cr3;
    vmcb->cr4 = s->cr4;
    vmcb->efer = s->efer | EFER_SVME;
    vmcb->clean &= ~(uint32_t)(SVM_CLEAN_CRX | SVM_CLEAN_CR2);
    if (hidden != v->cr0_hidden) {
        v->cr0_hidden = hidden;
        svm_intercepts_update(v);
    }
}

static void control_load(const struct svm_vcpu *v, struct cpu_state *s)
{
    const struct vmcb *vmcb = v->vmcb;

    s->cr0 = vmcb->cr0 | v->cr0_hidden;
    s->cr2 = vmcb->cr2;
    s->cr3 = vmcb->cr3;
    s->cr4 = vmcb->cr4;
    s->efer = vmcb->efer & ~EFER_SVME;
    /* pdpte: nested paging reads PDPTEs from memory when it walks (15.25.10), there is no copy to show. */
    for (unsigned i = 0; i < 4; i++)
        s->pdpte[i] = 0;
}

static void syscall_load(const struct vcpu *vcpu, struct svm_vcpu *v, struct cpu_state *s, bool in_cpu)
{
    const struct vmcb *vmcb = v->vmcb;

    (void)vcpu;
    s->star = vmcb->star;
    s->lstar = vmcb->lstar;
    s->cstar = vmcb->cstar;
    s->fmask = vmcb->sfmask;
    s->kernel_gs_base = vmcb->kernel_gs_base;
    s->sysenter_cs = vmcb->sysenter_cs;
    s->sysenter_esp = vmcb->sysenter_esp;
    s->sysenter_eip = vmcb->sysenter_eip;
    s->tsc_aux = in_cpu && cpu_features.rdtscp ? rdmsr(MSR_TSC_AUX) : v->regs.tsc_aux;
}

static void syscall_store(struct vcpu *vcpu, struct svm_vcpu *v, bool in_cpu)
{
    const struct cpu_state *s = &vcpu->state;
    struct vmcb *vmcb = v->vmcb;

    vmcb->star = s->star;
    vmcb->lstar = s->lstar;
    vmcb->cstar = s->cstar;
    vmcb->sfmask = s->fmask;
    vmcb->kernel_gs_base = s->kernel_gs_base;
    vmcb->sysenter_cs = s->sysenter_cs;
    vmcb->sysenter_esp = s->sysenter_esp;
    vmcb->sysenter_eip = s->sysenter_eip;
    v->regs.tsc_aux = (uint32_t)s->tsc_aux; /* the upper half is reserved and would fault */
    if (in_cpu && cpu_features.rdtscp)
        wrmsr(MSR_TSC_AUX, v->regs.tsc_aux);
}

static void debug_load(struct svm_vcpu *v, struct cpu_state *s, bool in_cpu)
{
    if (in_cpu)
        guest_regs_save(&v->regs);
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = v->regs.dr[i];
    s->dr6 = v->vmcb->dr6;
    s->dr7 = v->vmcb->dr7;
    s->debugctl = v->vmcb->lbr_control & SVM_LBR_VIRTUALIZE ? v->vmcb->debugctl & BIT(1) : 0;
}

static void debug_store(struct svm_vcpu *v, const struct cpu_state *s, bool in_cpu)
{
    if (in_cpu)
        v->regs.tsc_aux = cpu_features.rdtscp ? rdmsr(MSR_TSC_AUX) : 0;
    for (unsigned i = 0; i < 4; i++)
        v->regs.dr[i] = s->dr[i];
    if (in_cpu)
        guest_regs_restore(&v->regs);
    v->vmcb->dr6 = (uint32_t)s->dr6; /* bits 63-32 must be zero (15.5.1) */
    v->vmcb->dr7 = (uint32_t)s->dr7;
    v->vmcb->clean &= ~(uint32_t)SVM_CLEAN_DRX;
    if (svm_features.branch_step && (s->debugctl || v->vmcb->lbr_control)) { /* 15.23: switched only where it is asked for */
        v->vmcb->debugctl = s->debugctl & BIT(1);
        v->vmcb->lbr_control = s->debugctl & BIT(1) ? SVM_LBR_VIRTUALIZE : 0;
        v->vmcb->clean &= ~(uint32_t)SVM_CLEAN_LBR;
    }
}

static void interruptibility_store(struct svm_vcpu *v, const struct cpu_state *s)
{
    bool blocked = s->interruptibility & INTERRUPTIBILITY_NMI;

    v->shadow_step = s->interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    v->vmcb->int_state = v->shadow_step ? SVM_SHADOW : 0;
    if (v->shadow_step)
        v->wants = VCPU_WANTS_UNKNOWN; /* a step keeps the shadow, and brings the traps that it holds back */
    if (blocked != v->nmi_blocked) {
        v->nmi_blocked = blocked;
        v->iret_seen = false;
        svm_intercepts_update(v);
    }
}

static bool holds_cpu(const struct vcpu *vcpu)
{
    const struct svm_cpu *cpu = vmm_this_cpu();

    return cpu && cpu->current == vcpu;
}

void svm_load(struct vcpu *vcpu, unsigned groups)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    struct cpu_state *s = &vcpu->state;

    if (groups & STATE_CR)
        control_load(v, s);
    if (groups & STATE_SEG)
        segments_load(s, vmcb);
    else if ((groups & STATE_CS) && !(vcpu->valid & STATE_SEG))
        cs_ss_load(s, vmcb);
    if (groups & STATE_TABLE) {
        s->gdtr = (struct table_register){ vmcb->gdtr.base, (uint16_t)vmcb->gdtr.limit };
        s->idtr = (struct table_register){ vmcb->idtr.base, (uint16_t)vmcb->idtr.limit };
    }
    if (groups & (STATE_SYSCALL | STATE_DEBUG)) {
        uint64_t flags = irq_save(); /* nobody may take the CPU's registers over between the test and the reading */
        bool in_cpu = holds_cpu(vcpu);
        if (groups & STATE_SYSCALL)
            syscall_load(vcpu, v, s, in_cpu);
        if (groups & STATE_DEBUG)
            debug_load(v, s, in_cpu);
        irq_restore(flags);
    }
    if (groups & STATE_INTR)
        s->interruptibility = svm_interruptibility(v);
    if (groups & STATE_TRAP)
        s->pending_debug = v->held_debug;
    if (groups & STATE_MISC) {
        /* pat, xss: vcpu->state is their home; so it is of spec_ctrl, unless the CPU switches that */
        if (svm_features.virtual_spec_ctrl)
            s->spec_ctrl = vmcb->spec_ctrl & vcpu->vm->spec_ctrl_valid;
        vector_find_xcr0(vcpu);
    }
}

void svm_store(struct vcpu *vcpu, unsigned groups)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    const struct cpu_state *s = &vcpu->state;

    if (groups & STATE_CR)
        control_store(v, s);
    if (groups & STATE_SEG)
        segments_store(v, s); /* after CR: CPL depends on CR0.PE */
    if (groups & STATE_TABLE) {
        vmcb->gdtr.base = s->gdtr.base;
        vmcb->gdtr.limit = s->gdtr.limit;
        vmcb->idtr.base = s->idtr.base;
        vmcb->idtr.limit = s->idtr.limit;
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_DT;
    }
    if (groups & STATE_SYSCALL)
        syscall_store(vcpu, v, holds_cpu(vcpu));
    if (groups & STATE_DEBUG)
        debug_store(v, s, holds_cpu(vcpu));
    if (groups & STATE_INTR)
        interruptibility_store(v, s);
    if (groups & STATE_TRAP)
        v->held_debug = s->pending_debug;
    if (groups & STATE_MISC) {
        vmcb->g_pat = s->pat;
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_NP;
        if (svm_features.virtual_spec_ctrl)
            vmcb->spec_ctrl = s->spec_ctrl; /* the CPU joins the host's bits to it */
        if (guest_regs_changed(&v->regs, s)) {
            vmcb->msrpm_base = ((const struct svm_vm *)vcpu->vm->backend)->msr_bitmap_spec.v;
            vmcb->clean &= ~(uint32_t)SVM_CLEAN_MAPS;
        }
    }
}
