/* SPDX-License-Identifier: MIT */
/*
 * Between two VMRUNs. svm_prepare makes the VMCB ready for an entry; svm_after_exit takes an exit apart. The usual exit
 * (nothing dirty, nothing to inject, no new wish) goes through a few dozen instructions here: all the rare things are
 * found by one test on each side and handled out of line.
 *
 * NMIs. The CPU has no NMI mask of its own for a guest, so blocking is kept here: an injected NMI blocks, an
 * intercepted IRET announces the end, and the instruction after it ends it. Where shared code waits for that moment (or
 * for the end of an interrupt shadow), the guest runs one instruction with TF set, and the #DB that follows is kept
 * from it (svm_step.c).
 *
 * Windows. An interrupt window is a virtual interrupt that is never taken, because its intercept comes first: with TPR
 * ignored it fires as soon as RFLAGS.IF and the shadow allow. For CR8 to fall, its writes are intercepted: CPUs disagree
 * whether a virtual interrupt whose priority equals V_TPR may come, and QEMU 7.2 ends with a failed assertion when a guest
 * writes CR8 itself while a virtual interrupt is pending.
 *
 * Shadows. Where a host interrupt ends the run in the shadow of STI or MOV SS, the next entry runs one instruction by TF
 * and with no virtual interrupt. The VMCB's shadow bit should be enough, but QEMU 7.2 does not load it: an interrupt
 * would come between STI and HLT, and the guest would sleep on.
 */
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/trap.h"
#include "vmm/emulate.h"
#include "vmm/svm/svm.h"

/* Out of line, so that what is left of its caller needs neither stack nor saved registers. */
#define COLD __attribute__((noinline))

void svm_evict(struct svm_cpu *cpu)
{
    if (!cpu->current)
        return;
    struct svm_vcpu *v = cpu->current->backend;
    guest_regs_save(&v->regs);
    cpu->current = NULL;
}

void svm_set_tsc_ratio(struct svm_cpu *cpu, uint64_t multiplier)
{
    if (!svm_features.tsc.fraction_bits || cpu->tsc_multiplier == multiplier)
        return;
    wrmsr(MSR_AMD_TSC_RATIO, multiplier >> (TSC_FRACTION_BITS - 32)); /* 8.32 */
    cpu->tsc_multiplier = multiplier;
}

/* A fresh ASID has no translations anywhere. When all are used, the CPU drops everything and we start again (15.16). */
static void asid_new(struct svm_cpu *cpu, struct svm_vcpu *v)
{
    if (cpu->next_asid >= svm_features.asid_count) {
        cpu->next_asid = 1;
        cpu->asid_generation++;
        v->vmcb->tlb_control = SVM_TLB_ALL;
    }
    v->vmcb->asid = cpu->next_asid++;
    v->asid_generation = cpu->asid_generation;
    v->vmcb->clean &= ~(uint32_t)SVM_CLEAN_ASID;
}

/* The CPU held another vCPU's registers, or none: make it this one's. */
static void attach(struct svm_cpu *cpu, struct vcpu *vcpu, struct svm_vcpu *v)
{
    int id = (int)this_cpu()->id;

    svm_evict(cpu);
    guest_regs_restore(&v->regs);
    svm_set_tsc_ratio(cpu, vcpu->vm->tsc_multiplier);
    cpu->current = vcpu;
    if (vcpu->last_cpu != id) {
        v->vmcb->clean = 0; /* 15.15.2: another CPU may have cached an older VMCB */
        v->asid_generation = 0;
        vcpu->last_cpu = id;
    }
    if (v->asid_generation != cpu->asid_generation)
        asid_new(cpu, v);
}

static void flush_now(struct svm_cpu *cpu, struct vcpu *vcpu, struct svm_vcpu *v)
{
    /* Cleared before the entry: whoever sets it again kicks, and that interrupt ends the run before it begins. */
    __atomic_store_n(&vcpu->flush_wanted, false, __ATOMIC_SEQ_CST);
    if (v->vmcb->tlb_control == SVM_TLB_ALL)
        return; /* ASIDs have just wrapped: the next entry drops everything, and nothing less will do */
    if (svm_features.flush_by_asid)
        v->vmcb->tlb_control = SVM_TLB_GUEST;
    else
        asid_new(cpu, v);
}

static bool injectable(const struct event *event)
{
    return event->type == EVENT_EXTERNAL || event->type == EVENT_NMI || event->type == EVENT_EXCEPTION;
}

/*
 * What cannot be asked for by an intercept: the end of a shadow, the moment when an NMI can be taken, and the end of an
 * instruction that runs without its intercept. An event that this entry delivers ends all three by itself, and a step
 * would put our TF on its stack; where an NMI waits behind it, the guest is left again before its handler begins.
 * Returns whether the shadow is still to be kept.
 */
static COLD bool step_set(struct vcpu *vcpu, struct svm_vcpu *v, bool shadow, bool nmi)
{
    bool leave = false;

    v->wants = VCPU_WANTS_UNKNOWN;
    if (injectable(&vcpu->state.pending)) {
        leave = nmi;
        shadow = false;
    } else if (!svm_step_start(vcpu)) {
        /* It stores RFLAGS, on the stack as it is now or in R11: an event in front of it is as good as behind it. */
        v->vmcb->int_state &= ~SVM_SHADOW;
        vcpu->state.interruptibility &= ~(uint32_t)(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
        leave = nmi;
        shadow = false;
    }
    v->shadow_step = shadow;
    if (leave) {
        v->leaving = true;
        v->odd = true;
        apic_ipi(this_cpu()->apic_id, VECTOR_KICK);
    }
    return shadow;
}

static void windows_set(struct vcpu *vcpu, struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;
    uint32_t int_ctl = vmcb->int_ctl & ~(uint32_t)(SVM_V_IRQ | SVM_V_IGN_TPR | 0xful << SVM_V_INTR_PRIO_SHIFT);
    uint32_t intercepts = vmcb->intercepts1 & ~(uint32_t)SVM_I1_VINTR;
    uint16_t cr_writes = vmcb->cr_writes & (uint16_t)~BIT(8);
    bool shadow = v->shadow_step && (vcpu->state.interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
    /* Blocked by an NMI handler whose IRET is not in sight: the IRET intercept is on and comes back here. */
    bool nmi = vcpu->want_nmi_window && vcpu->state.pending.type != EVENT_NMI && !(v->nmi_blocked && !v->iret_seen);

    v->wants = vcpu_wants(vcpu) & ~0xffu;
    if (shadow || nmi || v->native_once)
        shadow = step_set(vcpu, v, shadow, nmi);
    if (vcpu->want_irq_window && !shadow) {
        int_ctl |= SVM_V_IRQ | SVM_V_IGN_TPR | 0xful << SVM_V_INTR_PRIO_SHIFT;
        intercepts |= SVM_I1_VINTR;
    }
    if (vcpu->want_irq_window || vcpu->tpr_threshold)
        cr_writes |= (uint16_t)BIT(8);
    if (int_ctl != vmcb->int_ctl) {
        vmcb->int_ctl = int_ctl;
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_TPR;
    }
    if (intercepts != vmcb->intercepts1 || cr_writes != vmcb->cr_writes) {
        vmcb->intercepts1 = intercepts;
        vmcb->cr_writes = cr_writes;
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_INTERCEPTS;
    }
}

/*
 * Software interrupts and exceptions are not injected: RIP still points at the instruction that raised them (APM vol.
 * 2, 15.7.2), so the guest raises them again itself, with the right return address on every CPU.
 */
static void inject(struct svm_vcpu *v, struct event *event)
{
    static const uint8_t types[] = { [EVENT_EXTERNAL] = SVM_EVENT_INTR, [EVENT_NMI] = SVM_EVENT_NMI,
                                     [EVENT_EXCEPTION] = SVM_EVENT_EXCEPTION };
    unsigned type = event->type;
    uint8_t vector = type == EVENT_NMI ? EXC_NMI : event->vector;

    bool deliver = injectable(event);
    event->type = EVENT_NONE;
    if (!deliver)
        return;
    if (v->iret_seen || v->native_once) { /* the instruction at RIP is not the next one any more */
        v->iret_seen = false;
        v->native_once = false;
        svm_intercepts_update(v);
    }
    bool has_error = event->has_error && (v->vmcb->cr0 & CR0_PE); /* real mode pushes no error codes */
    v->vmcb->event_inject = SVM_EVENT_VALID | (uint64_t)types[type] << SVM_EVENT_TYPE_SHIFT | vector |
                            (has_error ? SVM_EVENT_HAS_ERROR | (uint64_t)event->error << 32 : 0);
    if (type == EVENT_NMI) {
        v->nmi_blocked = true;
        v->iret_seen = false;
        svm_intercepts_update(v);
    } else if (type == EVENT_EXCEPTION && vector == EXC_PF) {
        v->vmcb->cr2 = event->cr2;
        v->vmcb->clean &= ~(uint32_t)SVM_CLEAN_CR2;
    }
}

static inline struct svm_entry prepare_base(const struct svm_cpu *cpu, const struct vcpu *vcpu, struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;

    vmcb->rip = vcpu->state.rip;
    vmcb->rflags = vcpu->state.rflags;
    vmcb->rsp = vcpu->state.gpr[GPR_RSP];
    vmcb->rax = vcpu->state.gpr[GPR_RAX];
    return (struct svm_entry){ v->vmcb_hpa, cpu->host_vmcb };
}

static COLD struct svm_entry prepare_slow(struct svm_cpu *cpu, struct vcpu *vcpu, struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;

    v->prepared = true;
    if (cpu->current != vcpu)
        attach(cpu, vcpu, v);
    if (vcpu->flush_wanted)
        flush_now(cpu, vcpu, v);
    if (vcpu->dirty) {
        svm_store(vcpu, vcpu->dirty);
        vcpu->dirty = 0;
    }
    if ((vcpu->state.cr8 & 0xf) != (vmcb->int_ctl & SVM_V_TPR_MASK)) {
        vmcb->int_ctl = (vmcb->int_ctl & ~SVM_V_TPR_MASK) | (vcpu->state.cr8 & 0xf);
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_TPR;
    }
    if (vcpu->tsc_offset_changed) {
        vcpu->tsc_offset_changed = false;
        vmcb->tsc_offset = vcpu->tsc_offset;
        vmcb->clean &= ~(uint32_t)SVM_CLEAN_INTERCEPTS;
    }
    if (vcpu_wants(vcpu) != v->wants)
        windows_set(vcpu, v);
    if (vcpu->state.pending.type != EVENT_NONE)
        inject(v, &vcpu->state.pending);
    if (v->regs.swap) {
        v->odd = true;
        v->wants = VCPU_WANTS_UNKNOWN; /* so that the next entry comes here too */
        guest_regs_enter(&v->regs, &vcpu->state);
    }
    return prepare_base(cpu, vcpu, v);
}

struct svm_entry svm_prepare(struct vcpu *vcpu, struct vm_exit *exit)
{
    struct svm_vcpu *v = vcpu->backend;
    struct svm_cpu *cpu = vmm_this_cpu();
    struct vmcb *vmcb = v->vmcb;

    v->exit = exit;
    uint64_t news = ((uint64_t)cpu->current ^ (uint64_t)vcpu) | vcpu->dirty |
                    vcpu->state.pending.type | vcpu->tsc_offset_changed |
                    (vcpu_wants(vcpu) ^ v->wants) | (vcpu->state.cr8 ^ (uint8_t)vmcb->int_ctl);
    return unlikely(news) ? prepare_slow(cpu, vcpu, v) : prepare_base(cpu, vcpu, v);
}

/* The exit came while an event was being delivered: it goes back to the slot (15.20). */
static COLD void vectoring(struct vcpu *vcpu, struct svm_vcpu *v)
{
    uint64_t info = v->vmcb->exit_int_info;
    unsigned type = info >> SVM_EVENT_TYPE_SHIFT & SVM_EVENT_TYPE_MASK;
    uint8_t vector = (uint8_t)info;
    struct event *event = &vcpu->state.pending;

    *event = (struct event){ .vector = vector };
    if (type == SVM_EVENT_INTR) {
        event->type = EVENT_EXTERNAL;
    } else if (type == SVM_EVENT_NMI) {
        event->type = EVENT_NMI;
        v->nmi_blocked = false; /* not delivered after all; the next injection blocks again */
        svm_intercepts_update(v);
    } else if (type == SVM_EVENT_EXCEPTION && vector < 32 && vector != EXC_BP && vector != EXC_OF) {
        event->type = EVENT_EXCEPTION;
        event->has_error = info & SVM_EVENT_HAS_ERROR;
        event->error = (uint32_t)(info >> 32);
        event->cr2 = v->vmcb->cr2;
    } /* INT n, INT3, INTO: executed again; and there are no exceptions above 31 (8.2), which an entry would refuse */
}

/*
 * The IRET that was announced has been executed: it went on, or it faulted, which ends NMI blocking too (SDM vol. 3A,
 * 6.7.1). A #DB that leaves RIP at it is a breakpoint on its address, and comes before it.
 */
static bool iret_done(const struct svm_vcpu *v)
{
    uint64_t vector = v->vmcb->exit_code - SVM_EXIT_EXCEPTION;

    return v->vmcb->rip != v->iret_rip || (vector < 32 && vector != EXC_DB && vector != EXC_MC);
}

/*
 * The instruction behind a MOV SS is over, and with it the time of the traps that the MOV SS held back: they come with
 * the step's, or with the guest's own single step; a fault drops them. True: they make a #DB of it.
 */
static bool held_debug_deliver(struct svm_vcpu *v, bool trapped)
{
    uint32_t held = v->held_debug;

    v->held_debug = 0;
    if (!trapped)
        return false;
    v->vmcb->dr6 |= held & (PENDING_DEBUG_HITS | PENDING_DEBUG_STEP);
    v->vmcb->clean &= ~(uint32_t)SVM_CLEAN_DRX;
    return held & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_STEP);
}

/* What is left of rare things. True: the exit was the backend's own business. */
static COLD bool odd_exit(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit)
{
    bool mine = false;

    if (v->regs.swap)
        guest_regs_leave(&v->regs, &vcpu->state);
    if (v->native_once) {
        v->native_once = false;
        svm_intercepts_update(v);
    }
    if (v->iret_seen && iret_done(v)) {
        v->iret_seen = false;
        v->nmi_blocked = false;
    }
    bool trapped = v->vmcb->exit_code == SVM_EXIT_EXCEPTION + EXC_DB && (v->vmcb->dr6 & PENDING_DEBUG_STEP);
    if (v->stepping)
        mine = svm_step_end(vcpu);
    if (v->held_debug && (trapped || v->vmcb->rip != v->step_rip))
        mine &= !held_debug_deliver(v, trapped);
    if (v->leaving && v->vmcb->exit_code == SVM_EXIT_INTR) /* taken when interrupts go on, as any host interrupt */
        mine = true;
    v->leaving = false;
    v->odd = v->iret_seen;
    if (mine) {
        bool open = !v->nmi_blocked && !(v->vmcb->int_state & SVM_SHADOW);
        exit->kind = vcpu->want_nmi_window && open ? EXIT_NMI_WINDOW : EXIT_HOST;
    }
    return mine;
}

static COLD void exit_io(struct vm_exit *exit, const struct vmcb *vmcb)
{
    uint64_t info = vmcb->exit_info1;

    exit->kind = info & SVM_IO_STRING ? EXIT_STRING_IO : EXIT_IO;
    exit->length = (uint8_t)(vmcb->exit_info2 - vmcb->rip); /* the next RIP, on every CPU (15.10.2) */
    exit->io.port = (uint16_t)(info >> 16);
    exit->io.size = info >> SVM_IO_SIZE_SHIFT & 7; /* one bit for 1, 2, 4: the size itself */
    exit->io.in = info & SVM_IO_IN;
}

static COLD void exit_memory(struct vm_exit *exit, const struct vmcb *vmcb)
{
    uint64_t info = vmcb->exit_info1;

    exit->kind = EXIT_MEMORY;
    exit->memory.gpa = GPA(vmcb->exit_info2);
    exit->memory.access = info & SVM_NPF_FETCH ? ACCESS_FETCH : info & SVM_NPF_WRITE ? ACCESS_WRITE : ACCESS_READ;
    exit->memory.delivering = vmcb->exit_int_info & SVM_EVENT_VALID;
    exit->memory.walking = info & SVM_NPF_TABLE;
    exit->memory.gva_valid = false;
    exit->memory.byte_count = 0;
    if (svm_features.decode_assists && exit->memory.access != ACCESS_FETCH) {
        exit->memory.byte_count = MIN(vmcb->byte_count, 15);
        for (unsigned i = 0; i < 15; i++)
            exit->memory.bytes[i] = vmcb->bytes[i];
    }
}

/* Lets the CPU execute the instruction that met a CR0 intercept: it cannot change what the intercepts guard. */
static void pass_once(struct svm_vcpu *v, struct vm_exit *exit)
{
    v->native_once = true;
    v->odd = true;
    v->wants = VCPU_WANTS_UNKNOWN; /* windows_set sees to it that it is only one */
    svm_intercepts_update(v);
    exit->kind = EXIT_HOST;
}

static COLD void exit_control(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit)
{
    struct cpu_state *s = &vcpu->state;
    const struct vmcb *vmcb = v->vmcb;
    struct cr_instruction in = { .operation = CR_OTHER };
    uint64_t mask;

    vcpu_load(&vmm_backend_svm, vcpu, STATE_CR | STATE_CS);
    mask = cpu_mode64(s) ? UINT64_MAX : UINT32_MAX;
    if (svm_features.decode_assists && (vmcb->exit_info1 & SVM_CR_IS_MOV)) {
        in.operation = vmcb->exit_code == SVM_EXIT_CR0_READ ? CR_MOV_FROM : CR_MOV_TO;
        /* 0x00 to 0x1f name the register in their low bits; the selective intercept of CR0 has a code of its own. */
        in.number = vmcb->exit_code == SVM_EXIT_CR0_SELECTIVE ? 0 : vmcb->exit_code & 0xf;
        in.gpr = vmcb->exit_info1 & 0xf;
        in.length = svm_instruction_length(v);
    } else {
        uint8_t bytes[15];
        unsigned count = vmm_instruction_bytes(vcpu, bytes);
        if (!count) { /* another vCPU took the page away: without a stale translation the CPU takes the fetch fault */
            vcpu->flush_wanted = true;
            exit->kind = EXIT_HOST;
            return;
        }
        in = svm_decode_cr(bytes, count, cpu_mode64(s));
    }
    exit->length = in.length;
    exit->cr.number = in.number;
    exit->cr.gpr = in.gpr;
    exit->cr.clts = in.operation == CR_CLTS;
    exit->cr.lmsw = in.operation == CR_LMSW;
    switch (in.operation) {
    case CR_MOV_TO:
        exit->kind = EXIT_CR_WRITE;
        exit->cr.value = s->gpr[in.gpr] & mask;
        break;
    case CR_MOV_FROM:
        exit->kind = EXIT_CR_READ;
        break;
    case CR_CLTS:
        exit->kind = EXIT_CR_WRITE;
        exit->cr.number = 0;
        exit->cr.value = s->cr0 & ~CR0_TS;
        break;
    case CR_LMSW: /* sets PE but never clears it */
        exit->kind = EXIT_CR_WRITE;
        exit->cr.number = 0;
        exit->cr.value = (s->cr0 & ~0xeull) | (s->gpr[in.gpr] & 0xf);
        break;
    case CR_SMSW:
        if (!in.wide && (cpu_mode64(s) || (s->seg[SEG_CS].attributes & SEG_DB)) == in.other_size) {
            pass_once(v, exit); /* 16 bits: nothing of what is hidden is among them */
            break;
        }
        exit->kind = EXIT_CR_READ;
        exit->cr.number = 0;
        break;
    case CR_OTHER:
        pass_once(v, exit);
        break;
    }
}

static COLD void exit_exception(struct vm_exit *exit, const struct vmcb *vmcb)
{
    uint8_t vector = (uint8_t)(vmcb->exit_code - SVM_EXIT_EXCEPTION);

    if (vector == EXC_MC) { /* the machine's, not the guest's: our own handler looks at it */
        __asm__ volatile("int $18" : : : "memory");
        exit->kind = EXIT_HOST;
        return;
    }
    exit->kind = EXIT_EXCEPTION;
    exit->event = (struct event){ .type = EVENT_EXCEPTION, .vector = vector, .error = (uint32_t)vmcb->exit_info1,
                                  .has_error = SVM_ERROR_VECTORS >> vector & 1 };
    if (vector == EXC_PF) /* the intercept comes before CR2 is written (15.12.15) */
        exit->event.cr2 = vmcb->exit_info2;
}

static COLD void exit_virtual_interrupt(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit)
{
    v->wants = VCPU_WANTS_UNKNOWN;
    exit->kind = vcpu->want_irq_window ? EXIT_IRQ_WINDOW : EXIT_HOST;
}

static COLD void exit_iret(struct svm_vcpu *v, struct vm_exit *exit)
{
    v->iret_seen = true;
    v->iret_rip = v->vmcb->rip;
    v->odd = true;
    v->wants = VCPU_WANTS_UNKNOWN; /* a wish for an NMI window is looked at again */
    svm_intercepts_update(v);
    exit->kind = EXIT_HOST;
}

static inline void exit_instruction(struct vm_exit *exit, enum exit_kind kind, const struct svm_vcpu *v)
{
    exit->kind = kind;
    exit->length = svm_instruction_length(v);
}

static COLD void exit_unknown(struct vm_exit *exit, const struct vmcb *vmcb)
{
    exit->kind = EXIT_INVALID;
    exit->raw_reason = vmcb->exit_code;
    exit->raw_info1 = vmcb->exit_info1;
    exit->raw_info2 = vmcb->exit_info2;
}

static inline __attribute__((always_inline)) void backend_decode_exit(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit,
                                                                uint32_t code)
{
    const struct vmcb *vmcb = v->vmcb;

    switch (code) {
    case SVM_EXIT_CPUID: exit_instruction(exit, EXIT_CPUID, v); return;
    case SVM_EXIT_HLT: exit_instruction(exit, EXIT_HLT, v); return;
    case SVM_EXIT_PAUSE: exit_instruction(exit, EXIT_PAUSE, v); return;
    case SVM_EXIT_IOIO: exit_io(exit, vmcb); return;
    case SVM_EXIT_NPF: exit_memory(exit, vmcb); return;
    case SVM_EXIT_MSR: exit_instruction(exit, vmcb->exit_info1 & 1 ? EXIT_WRMSR : EXIT_RDMSR, v); return;
    case SVM_EXIT_CR0_READ:
    case SVM_EXIT_CR0_WRITE:
    case SVM_EXIT_CR4_WRITE:
    case SVM_EXIT_CR8_WRITE:
    case SVM_EXIT_CR0_SELECTIVE: exit_control(vcpu, v, exit); return;
    case SVM_EXIT_XSETBV: exit_instruction(exit, EXIT_XSETBV, v); return;
    case SVM_EXIT_INVD:
    case SVM_EXIT_WBINVD: exit_instruction(exit, EXIT_WBINVD, v); return;
    case SVM_EXIT_VMMCALL: exit_instruction(exit, EXIT_HYPERCALL, v); return;
    case SVM_EXIT_EXCEPTION + EXC_DB:
    case SVM_EXIT_EXCEPTION + EXC_AC:
    case SVM_EXIT_EXCEPTION + EXC_MC: exit_exception(exit, vmcb); return;
    case SVM_EXIT_INTR:
    case SVM_EXIT_NMI:
    case SVM_EXIT_SMI:
    case SVM_EXIT_INIT: exit->kind = EXIT_HOST; return; /* pending still: taken at STGI or when interrupts go on */
    case SVM_EXIT_VINTR: exit_virtual_interrupt(vcpu, v, exit); return;
    case SVM_EXIT_IRET: exit_iret(v, exit); return;
    case SVM_EXIT_SHUTDOWN: exit->kind = EXIT_SHUTDOWN; return;
    case SVM_EXIT_TASK_SWITCH: exit->kind = EXIT_TASK_SWITCH; return;
    case SVM_EXIT_RDPMC: /* no counters: #GP, as for a counter that does not exist */
        exit->kind = EXIT_EXCEPTION;
        exit->event = (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_GP, .has_error = true };
        return;
    case SVM_EXIT_RSM:
    case SVM_EXIT_INVLPGA:
    case SVM_EXIT_VMRUN:
    case SVM_EXIT_VMLOAD:
    case SVM_EXIT_VMSAVE:
    case SVM_EXIT_STGI:
    case SVM_EXIT_CLGI:
    case SVM_EXIT_SKINIT:
    case SVM_EXIT_RDTSCP:
    case SVM_EXIT_MONITOR:
    case SVM_EXIT_MWAIT:
    case SVM_EXIT_MWAIT_ARMED:
    case SVM_EXIT_RDPRU:
    case SVM_EXIT_INVLPGB:
    case SVM_EXIT_INVLPGB_ILLEGAL:
    case SVM_EXIT_INVPCID:
    case SVM_EXIT_MCOMMIT:
    case SVM_EXIT_TLBSYNC: exit->kind = EXIT_UNDEFINED; return;
    default:
        if (vmcb->exit_code - SVM_EXIT_EXCEPTION < 32) /* intercepted during a step only */
            exit_exception(exit, vmcb);
        else
            exit_unknown(exit, vmcb); /* SVM_EXIT_INVALID among them */
        return;
    }
}

/* The same, not inlined: for where speed does not matter. */
static COLD void decode_exit_again(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit)
{
    backend_decode_exit(vcpu, v, exit, (uint32_t)v->vmcb->exit_code);
}

/*
 * An exit between two instructions, in a shadow: told by the CPU, or the step over its end was not begun (a single-step
 * trap goes before interrupts, so RIP where it was means that).
 */
static void shadow_find(struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;
    bool between = vmcb->exit_code == SVM_EXIT_INTR || vmcb->exit_code == SVM_EXIT_NMI ||
                   vmcb->exit_code == SVM_EXIT_SMI || vmcb->exit_code == SVM_EXIT_INIT;

    v->shadow_step = between && ((vmcb->int_state & SVM_SHADOW) || (v->shadow_step && vmcb->rip == v->step_rip));
    if (v->shadow_step) {
        vmcb->int_state |= SVM_SHADOW;
        v->wants = VCPU_WANTS_UNKNOWN;
    }
}

static COLD void after_exit_slow(struct vcpu *vcpu, struct svm_vcpu *v, struct vm_exit *exit)
{
    bool mine = false;

    if (v->prepared) {
        v->prepared = false;
        if ((uint32_t)v->vmcb->exit_code == (uint32_t)SVM_EXIT_INVALID && /* QEMU writes the low half only */
            v->vmcb->tlb_control == SVM_TLB_ALL)
            ((struct svm_cpu *)vmm_this_cpu())->next_asid = svm_features.asid_count; /* not entered, not flushed: wrap again */
        v->vmcb->clean = SVM_CLEAN_ALL; /* ignored by CPUs without clean bits */
        v->vmcb->tlb_control = SVM_TLB_NONE;
        v->vmcb->event_inject = 0;
    }
    if (v->vmcb->exit_int_info & SVM_EVENT_VALID)
        vectoring(vcpu, v);
    if (v->odd)
        mine = odd_exit(vcpu, v, exit);
    shadow_find(v);
    vcpu->state.interruptibility = svm_interruptibility(v);
    if (!mine)
        decode_exit_again(vcpu, v, exit);
}

void svm_after_exit(struct vcpu *vcpu, uint32_t code)
{
    struct svm_vcpu *v = vcpu->backend;
    struct vmcb *vmcb = v->vmcb;
    struct vm_exit *exit = v->exit;

    v->codes[0] = v->codes[1];
    v->codes[1] = code;
    vcpu->state.rip = vmcb->rip;
    vcpu->state.rflags = vmcb->rflags;
    vcpu->state.gpr[GPR_RSP] = vmcb->rsp;
    vcpu->state.gpr[GPR_RAX] = vmcb->rax;
    vcpu->state.cr8 = (uint8_t)vmcb->int_ctl & 0xf;
    vcpu->state.interruptibility = 0;
    vcpu->valid = STATE_BASE | STATE_INTR;
    if (unlikely(svm_exit_unusual(v, vmcb)))
        after_exit_slow(vcpu, v, exit);
    else
        backend_decode_exit(vcpu, v, exit, code);
}
