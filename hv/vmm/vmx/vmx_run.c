/* SPDX-License-Identifier: MIT */
/*
 * Between two entries. vmx_prepare makes the VMCS ready; vmx_after_exit takes an exit apart. The usual exit (nothing
 * dirty, nothing to inject, no new wish) costs a few dozen instructions here: v-> holds what the VMCS holds, so that
 * one expression finds out whether there is anything but RIP to write, and only the fields that a kind of exit needs
 * are read.
 *
 * GDTR and IDTR limits are 0xffff after an exit (SDM vol. 3C, 28.5.2). They stay so: only the hypervisor loads
 * selectors here, from a fixed set, and no vector lies beyond the IDT's 256 entries. cpu_disable() puts the right ones
 * back.
 */
#include "kernel/cpu.h"
#include "vmm/emulate.h"
#include "vmm/vmx/vmx.h"

/* Out of line, so that what is left of its caller needs neither stack nor saved registers. */
#define COLD __attribute__((noinline))

static void flush_now(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    /* Cleared before the entry: whoever sets it again kicks, and that interrupt ends the run before it begins. */
    if (v->pml_on)
        vmx_pml_drain_own(vcpu, true);
    else
        __atomic_store_n(&vcpu->flush_wanted, false, __ATOMIC_SEQ_CST);
    (void)invept(vmx_caps.invept_single ? INVALIDATE_SINGLE : INVALIDATE_ALL, v->eptp);
}

static void pml_switch(struct vmx_vcpu *v)
{
    v->pml_changed = false;
    v->secondary_controls &= ~(uint32_t)CPU2_PML;
    if (v->pml_on) {
        v->secondary_controls |= CPU2_PML;
        vmwrite(VMCS_PML_ADDRESS, v->pml_page.v);
        vmwrite(VMCS_GUEST_PML_INDEX, v->pml_next); /* of an empty log (pml() in vmx.c): nothing was logged since */
    }
    vmwrite(VMCS_SECONDARY_CONTROLS, v->secondary_controls);
}

/* 27.2.1.1: the threshold may not lie above CR8 at entry. Where it would, we look again at the next entry. */
static void wishes(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    uint32_t controls = vmx_caps.processor | (vcpu->want_irq_window ? CPU_INTERRUPT_WINDOW : 0) |
                        (vcpu->want_nmi_window ? CPU_NMI_WINDOW : 0);
    uint32_t threshold = MIN((uint32_t)vcpu->tpr_threshold, (uint32_t)vcpu->state.cr8);

    v->wants = threshold == vcpu->tpr_threshold ? vcpu_wants(vcpu) & ~0xffu : VCPU_WANTS_UNKNOWN;
    if (controls != v->processor_controls) {
        v->processor_controls = controls;
        vmwrite(VMCS_PROCESSOR_CONTROLS, controls);
    }
    if (threshold != v->tpr_threshold) {
        v->tpr_threshold = threshold;
        vmwrite(VMCS_TPR_THRESHOLD, threshold);
    }
    if (v->pml_changed)
        pml_switch(v);
    if (v->apic_changed)
        vmx_apic_store(vcpu, v);
}

/* 25.8.3. A software event without a length is not injected: RIP is at its instruction, which runs again. */
static void inject(struct vcpu *vcpu)
{
    static const uint8_t types[] = {
        [EVENT_EXTERNAL] = INTERRUPTION_EXTERNAL, [EVENT_NMI] = INTERRUPTION_NMI,
        [EVENT_EXCEPTION] = INTERRUPTION_EXCEPTION, [EVENT_SOFT_INT] = INTERRUPTION_SOFT_INT,
        [EVENT_SOFT_EXCEPTION] = INTERRUPTION_SOFT_EXCEPTION,
        [EVENT_PRIV_SOFT_EXCEPTION] = INTERRUPTION_PRIV_SOFT_EXCEPTION,
    };
    struct event *event = &vcpu->state.pending;
    unsigned type = event->type;
    uint64_t info;

    event->type = EVENT_NONE;
    if (type >= ARRAY_COUNT(types))
        return;
    info = INTERRUPTION_VALID | (uint64_t)types[type] << INTERRUPTION_TYPE_SHIFT |
           (type == EVENT_NMI ? EXC_NMI : event->vector);
    if (type >= EVENT_SOFT_INT) {
        if (!event->instruction_length)
            return;
        vmwrite(VMCS_ENTRY_INSTRUCTION_LENGTH, event->instruction_length);
    } else if (type == EVENT_EXCEPTION) {
        /* Real mode pushes no error codes (27.2.1.3). */
        if (event->has_error && (vmread(VMCS_GUEST_CR0) & CR0_PE)) {
            info |= INTERRUPTION_HAS_ERROR;
            vmwrite(VMCS_ENTRY_EXCEPTION_ERROR, event->error);
        }
        if (event->vector == EXC_PF)
            write_cr2(event->cr2);
    }
    vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, info);
}

static COLD int rip_refused(const struct vcpu *vcpu, const struct vmx_vcpu *v)
{
    vmx_write_failed(VMCS_GUEST_RIP, vcpu->state.rip);
    return v->launched;
}

static inline int prepare_rip(const struct vcpu *vcpu, const struct vmx_vcpu *v)
{
    if (vcpu->state.rip != v->rip && unlikely(!vmwrite_ok(VMCS_GUEST_RIP, vcpu->state.rip)))
        return rip_refused(vcpu, v);
    return v->launched;
}

static void base_store(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    if (vcpu->state.gpr[GPR_RSP] != v->rsp) {
        v->rsp = vcpu->state.gpr[GPR_RSP];
        vmwrite(VMCS_GUEST_RSP, v->rsp);
    }
    if (vcpu->state.rflags != v->rflags) {
        v->rflags = vcpu->state.rflags;
        vmwrite(VMCS_GUEST_RFLAGS, (v->rflags & 0x3f7fd7) | RFLAGS_FIXED);
    }
    if (vcpu->state.cr8 != v->cr8) {
        v->cr8 = vcpu->state.cr8;
        if (v->virtual_apic[VTPR] >> 4 != v->cr8) /* where the page has the whole TPR, its low half stays */
            v->virtual_apic[VTPR] = (uint8_t)(v->cr8 << 4);
        v->vtpr = v->virtual_apic[VTPR];
        v->wants = VCPU_WANTS_UNKNOWN; /* the threshold depends on it */
    }
}

static COLD int prepare_slow(struct vmx_cpu *cpu, struct vcpu *vcpu, struct vmx_vcpu *v, uint64_t host_rsp)
{
    if (cpu->current != vcpu && !vmx_attach(cpu, vcpu))
        return -1;
    if (host_rsp != v->host_rsp) {
        v->host_rsp = host_rsp;
        vmwrite(VMCS_HOST_RSP, host_rsp);
    }
    if (vcpu->flush_wanted)
        flush_now(vcpu, v);
    if (vcpu->dirty) {
        vmx_store(vcpu, vcpu->dirty);
        vcpu->dirty = 0;
    }
    base_store(vcpu, v);
    if (vcpu->tsc_offset_changed) {
        vcpu->tsc_offset_changed = false;
        vmwrite(VMCS_TSC_OFFSET, vcpu->tsc_offset);
    }
    if (vcpu_wants(vcpu) != v->wants)
        wishes(vcpu, v);
    if (vcpu->state.pending.type != EVENT_NONE)
        inject(vcpu);
    if (v->regs.swap) {
        v->wants = VCPU_WANTS_UNKNOWN; /* so that the next entry comes here too */
        guest_regs_enter(&v->regs, &vcpu->state);
    }
    int launched = prepare_rip(vcpu, v);
    v->launched = true;
    return launched;
}

int vmx_prepare(struct vcpu *vcpu, struct vm_exit *exit, uint64_t host_rsp)
{
    struct vmx_vcpu *v = vcpu->backend;
    struct vmx_cpu *cpu = vmm_this_cpu();

    v->exit = exit;
    uint64_t news = ((uint64_t)cpu->current ^ (uint64_t)vcpu) | (host_rsp ^ v->host_rsp) |
                    vcpu->dirty | vcpu->state.pending.type | vcpu->tsc_offset_changed |
                    (vcpu_wants(vcpu) ^ v->wants) | (vcpu->state.gpr[GPR_RSP] ^ v->rsp) |
                    (vcpu->state.rflags ^ v->rflags) | (vcpu->state.cr8 ^ v->cr8);
    return unlikely(news) ? prepare_slow(cpu, vcpu, v, host_rsp) : prepare_rip(vcpu, v);
}

void vmx_entry_failed(struct vcpu *vcpu, bool refused)
{
    struct vmx_vcpu *v = vcpu->backend;
    struct vm_exit *exit = v->exit;

    exit->kind = EXIT_INVALID;
    exit->length = 0;
    exit->raw_reason = UINT64_MAX;
    exit->raw_info1 = refused ? 0 : vmread(VMCS_INSTRUCTION_ERROR);
    exit->raw_info2 = refused;
    if (refused)
        return;
    v->rip = ~vcpu->state.rip;
    if (v->regs.swap)
        guest_regs_leave(&v->regs, &vcpu->state);
    vmx_release(vcpu); /* whether it was launched is in doubt: start over with VMCLEAR */
}

static void interruptibility_change(struct vcpu *vcpu, uint32_t clear, uint32_t set)
{
    vcpu->state.interruptibility = (vcpu->state.interruptibility & ~clear) | set;
    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vcpu->state.interruptibility);
}

/*
 * The exits that can come while an event is being delivered (28.2.4): it goes back to the slot. Software events do not:
 * RIP is at the instruction that raises them, and it runs again. An IRET that had ended NMI blocking before it faulted
 * has not ended it (28.2.3): `unblocked` says that the exit's information has bit 12 set. True: there was an event.
 */
static bool vectoring(struct vcpu *vcpu, bool unblocked)
{
    uint64_t info = vmread(VMCS_IDT_VECTORING_INFO);
    struct event *event = &vcpu->state.pending;

    if (likely(!(info & INTERRUPTION_VALID))) {
        if (unlikely(unblocked))
            interruptibility_change(vcpu, 0, INTERRUPTIBILITY_NMI);
        return false;
    }
    if (vcpu->apic_registers)
        info = vmx_apic_vectoring(vcpu, info);
    *event = (struct event){ .vector = (uint8_t)info };
    switch (info >> INTERRUPTION_TYPE_SHIFT & INTERRUPTION_TYPE_MASK) {
    case INTERRUPTION_EXTERNAL:
        event->type = EVENT_EXTERNAL;
        break;
    case INTERRUPTION_NMI:
        event->type = EVENT_NMI;
        interruptibility_change(vcpu, INTERRUPTIBILITY_NMI, 0);
        break;
    case INTERRUPTION_EXCEPTION:
        event->type = EVENT_EXCEPTION;
        event->has_error = info & INTERRUPTION_HAS_ERROR;
        if (event->has_error)
            event->error = (uint32_t)vmread(VMCS_IDT_VECTORING_ERROR);
        event->cr2 = read_cr2();
        break;
    }
    return true;
}

/* 28.2.1: the CPU tells what DR6 would have got but has not changed it, nor DR7.GD, DEBUGCTL.LBR and BTF. */
static void debug_exception(struct vcpu *vcpu)
{
    const uint64_t reported = 0xf | BIT(13) | BIT(14);
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);
    struct cpu_state *s = &vcpu->state;

    vcpu_load(&vmm_backend_vmx, vcpu, STATE_DEBUG);
    s->dr6 = (s->dr6 & ~0xfull) | (qualification & reported);
    s->dr7 &= ~BIT(13);
    s->debugctl &= ~(BIT(0) | BIT(1));
    vcpu->dirty |= STATE_DEBUG;
}

static COLD void exit_exception(struct vcpu *vcpu, struct vm_exit *exit)
{
    uint64_t info = vmread(VMCS_EXIT_INTERRUPTION_INFO);
    unsigned type = info >> INTERRUPTION_TYPE_SHIFT & INTERRUPTION_TYPE_MASK;
    uint8_t vector = (uint8_t)info;

    exit->raw_info1 = info;
    vectoring(vcpu, info & INTERRUPTION_NMI_UNBLOCKED);
    exit->kind = EXIT_HOST;
    if (type == INTERRUPTION_NMI) { /* the exit has taken it; our handler's IRET unblocks the next (28.5.5) */
        __asm__ volatile("int $2" : : : "memory");
        return;
    }
    if (vector == EXC_MC) {
        __asm__ volatile("int $18" : : : "memory");
        return;
    }
    exit->kind = EXIT_EXCEPTION;
    exit->event = (struct event){ .type = EVENT_EXCEPTION, .vector = vector };
    if (info & INTERRUPTION_HAS_ERROR) {
        exit->event.has_error = true;
        exit->event.error = (uint32_t)vmread(VMCS_EXIT_INTERRUPTION_ERROR);
    }
    if (type == INTERRUPTION_PRIV_SOFT_EXCEPTION) { /* INT1: returns behind itself, reports nothing in DR6 */
        exit->event.type = EVENT_PRIV_SOFT_EXCEPTION;
        exit->event.instruction_length = (uint8_t)vmread(VMCS_EXIT_INSTRUCTION_LENGTH);
        /* It has been executed, so a shadow that it stood in is over; with TF set the entry would be refused (27.3.1.5). */
        interruptibility_change(vcpu, INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS, 0);
    } else if (vector == EXC_DB) {
        debug_exception(vcpu);
    }
}

static COLD void exit_control(struct vcpu *vcpu, struct vm_exit *exit)
{
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);
    struct cpu_state *s = &vcpu->state;
    uint8_t gpr = qualification >> 8 & 0xf;

    vcpu_load(&vmm_backend_vmx, vcpu, STATE_CR | STATE_CS);
    exit->raw_info1 = qualification;
    exit->length = (uint8_t)vmread(VMCS_EXIT_INSTRUCTION_LENGTH);
    exit->kind = EXIT_CR_WRITE;
    exit->cr.number = qualification & 0xf;
    exit->cr.gpr = gpr;
    exit->cr.clts = false;
    exit->cr.lmsw = false;
    switch (qualification >> 4 & 3) {
    case 0:
        exit->cr.value = cpu_mode64(s) ? s->gpr[gpr] : (uint32_t)s->gpr[gpr];
        break;
    case 1:
        exit->kind = EXIT_CR_READ;
        break;
    case 2:
        exit->cr.clts = true;
        exit->cr.number = 0;
        exit->cr.value = s->cr0 & ~CR0_TS;
        break;
    case 3: /* sets PE but never clears it */
        exit->cr.lmsw = true;
        exit->cr.number = 0;
        exit->cr.value = (s->cr0 & ~0xeull) | (qualification >> 16 & 0xf);
        break;
    }
}

static COLD void exit_io(struct vm_exit *exit)
{
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);

    exit->kind = qualification & QUALIFICATION_IO_STRING ? EXIT_STRING_IO : EXIT_IO;
    exit->raw_info1 = qualification;
    exit->length = (uint8_t)vmread(VMCS_EXIT_INSTRUCTION_LENGTH);
    exit->io.port = (uint16_t)(qualification >> 16);
    exit->io.size = (uint8_t)((qualification & 7) + 1);
    exit->io.in = qualification & QUALIFICATION_IO_IN;
}

static COLD void exit_memory(struct vcpu *vcpu, struct vm_exit *exit)
{
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);

    exit->memory.delivering = vectoring(vcpu, qualification & QUALIFICATION_NMI_UNBLOCKED);
    exit->kind = EXIT_MEMORY;
    exit->raw_info1 = qualification;
    exit->memory.gpa = GPA(vmread(VMCS_GUEST_PHYSICAL_ADDRESS));
    exit->raw_info2 = exit->memory.gpa.v;
    exit->memory.access = qualification & QUALIFICATION_EPT_FETCH ? ACCESS_FETCH :
                          qualification & QUALIFICATION_EPT_WRITE ? ACCESS_WRITE : ACCESS_READ;
    exit->memory.byte_count = 0;
    exit->memory.gva_valid = qualification & QUALIFICATION_EPT_LINEAR;
    exit->memory.walking = exit->memory.gva_valid && !(qualification & QUALIFICATION_EPT_FINAL);
    if (exit->memory.gva_valid)
        exit->memory.gva = GVA(vmread(VMCS_GUEST_LINEAR_ADDRESS));
}

static COLD void exit_apic_access(struct vcpu *vcpu, struct vm_exit *exit)
{
    vectoring(vcpu, false);
    vmx_apic_access(vcpu, exit);
}

/* Both are traps: nothing is being delivered, RIP is behind the instruction (30.1.4, 30.4.3.3). */
static COLD void exit_apic_trap(struct vm_exit *exit, enum exit_kind kind)
{
    uint64_t qualification = vmread(VMCS_EXIT_QUALIFICATION);

    exit->kind = kind;
    exit->raw_info1 = qualification;
    exit->apic.offset = qualification & QUALIFICATION_APIC_OFFSET;
    exit->apic.vector = (uint8_t)qualification;
}

static COLD void exit_pml_full(struct vcpu *vcpu, struct vmx_vcpu *v, struct vm_exit *exit)
{
    vectoring(vcpu, vmread(VMCS_EXIT_QUALIFICATION) & QUALIFICATION_NMI_UNBLOCKED);
    vmx_pml_drain_own(vcpu, false);
    vmwrite(VMCS_GUEST_PML_INDEX, v->pml_next);
    exit->kind = EXIT_PML_FULL;
}

static COLD void exit_task_switch(struct vcpu *vcpu, struct vm_exit *exit)
{
    vectoring(vcpu, false);
    exit->kind = EXIT_TASK_SWITCH;
    exit->raw_info1 = vmread(VMCS_EXIT_QUALIFICATION);
}

static COLD void exit_unknown(struct vcpu *vcpu, struct vmx_vcpu *v, struct vm_exit *exit, uint64_t reason)
{
    exit->kind = EXIT_INVALID;
    exit->raw_reason = reason;
    exit->raw_info1 = vmread(VMCS_EXIT_QUALIFICATION);
    exit->raw_info2 = vmread(VMCS_GUEST_PHYSICAL_ADDRESS);
    if (reason & REASON_ENTRY_FAILURE) {
        v->rip = ~vcpu->state.rip; /* 27.8: nothing of the guest's state was saved */
        vmx_release(vcpu);
    }
}

static inline void exit_instruction(struct vm_exit *exit, enum exit_kind kind)
{
    exit->kind = kind;
    exit->length = (uint8_t)vmread(VMCS_EXIT_INSTRUCTION_LENGTH);
}

static inline void backend_decode_exit(struct vcpu *vcpu, struct vmx_vcpu *v, struct vm_exit *exit, uint64_t reason)
{
    switch (reason) {
    case REASON_CPUID: exit_instruction(exit, EXIT_CPUID); return;
    case REASON_HLT: exit_instruction(exit, EXIT_HLT); return;
    case REASON_PAUSE: exit_instruction(exit, EXIT_PAUSE); return;
    case REASON_IO: exit_io(exit); return;
    case REASON_EPT_VIOLATION: exit_memory(vcpu, exit); return;
    case REASON_RDMSR: exit_instruction(exit, EXIT_RDMSR); return;
    case REASON_WRMSR: exit_instruction(exit, EXIT_WRMSR); return;
    case REASON_CR: exit_control(vcpu, exit); return;
    case REASON_XSETBV: exit_instruction(exit, EXIT_XSETBV); return;
    case REASON_INVD:
    case REASON_WBINVD: exit_instruction(exit, EXIT_WBINVD); return;
    case REASON_VMCALL: exit_instruction(exit, EXIT_HYPERCALL); return;
    case REASON_EXCEPTION: exit_exception(vcpu, exit); return;
    case REASON_INTERRUPT: /* not acknowledged: taken when interrupts go on */
    case REASON_INIT:
    case REASON_SIPI:
    case REASON_PREEMPTION_TIMER: exit->kind = EXIT_HOST; return;
    case REASON_INTERRUPT_WINDOW: exit->kind = EXIT_IRQ_WINDOW; return;
    case REASON_NMI_WINDOW: exit->kind = EXIT_NMI_WINDOW; return;
    case REASON_TPR: exit->kind = EXIT_TPR; return;
    case REASON_APIC_ACCESS: exit_apic_access(vcpu, exit); return;
    case REASON_APIC_WRITE: exit_apic_trap(exit, EXIT_APIC_WRITE); return;
    case REASON_APIC_EOI: exit_apic_trap(exit, EXIT_APIC_EOI); return;
    case REASON_TRIPLE_FAULT: exit->kind = EXIT_SHUTDOWN; return;
    case REASON_TASK_SWITCH: exit_task_switch(vcpu, exit); return;
    case REASON_PML_FULL: exit_pml_full(vcpu, v, exit); return;
    case REASON_RDPMC: /* no counters: #GP, as for a counter that does not exist */
        exit->kind = EXIT_EXCEPTION;
        exit->event = (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_GP, .has_error = true };
        return;
    case REASON_GETSEC:
    case REASON_RSM:
    case REASON_VMCLEAR:
    case REASON_VMLAUNCH:
    case REASON_VMPTRLD:
    case REASON_VMPTRST:
    case REASON_VMREAD:
    case REASON_VMRESUME:
    case REASON_VMWRITE:
    case REASON_VMXOFF:
    case REASON_VMXON:
    case REASON_MWAIT:
    case REASON_MONITOR:
    case REASON_INVEPT:
    case REASON_INVVPID:
    case REASON_INVPCID:
    case REASON_RDTSCP:
    case REASON_VMFUNC:
    case REASON_ENCLS:
    case REASON_XSAVES:
    case REASON_XRSTORS: exit->kind = EXIT_UNDEFINED; return;
    default: exit_unknown(vcpu, v, exit, reason); return; /* REASON_EPT_MISCONFIG and failed entries among them */
    }
}

static COLD void swap_out(struct vcpu *vcpu, struct vmx_vcpu *v, struct vm_exit *exit, uint64_t reason)
{
    guest_regs_leave(&v->regs, &vcpu->state);
    backend_decode_exit(vcpu, v, exit, reason);
}

/* The guest has moved CR8 without an exit. */
static inline void cr8_moved(struct vcpu *vcpu, struct vmx_vcpu *v)
{
    v->vtpr = v->virtual_apic[VTPR];
    vcpu->state.cr8 = v->cr8 = v->vtpr >> 4;
    if (v->cr8 < v->tpr_threshold)
        v->wants = VCPU_WANTS_UNKNOWN;
}

void vmx_after_exit(struct vcpu *vcpu, uint64_t reason)
{
    struct vmx_vcpu *v = vcpu->backend;
    struct vm_exit *exit = v->exit;

    vcpu->state.rip = v->rip = vmread(VMCS_GUEST_RIP);
    vcpu->state.rflags = v->rflags = vmread(VMCS_GUEST_RFLAGS);
    vcpu->state.gpr[GPR_RSP] = v->rsp = vmread(VMCS_GUEST_RSP);
    /* Whoever skips an instruction needs it: cheaper here than by load(). */
    vcpu->state.interruptibility = (uint32_t)vmread(VMCS_GUEST_INTERRUPTIBILITY) &
                                   (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI);
    vcpu->valid = STATE_BASE | STATE_INTR;
    v->light_left = LIGHT_EXITS_MAX;
    if (unlikely(v->virtual_apic[VTPR] != v->vtpr))
        cr8_moved(vcpu, v);
    if (unlikely(v->regs.swap))
        swap_out(vcpu, v, exit, reason);
    else
        backend_decode_exit(vcpu, v, exit, reason);
}
