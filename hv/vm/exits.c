/* SPDX-License-Identifier: MIT */
/*
 * What a guest did that the CPU could not do for it: one flat switch over struct vm_exit, one line a case, and the
 * handlers above it. They run on the vCPU's thread with host interrupts on.
 *
 * A handler either finishes the instruction (vcpu_skip), or injects the fault that the instruction would have had on a
 * real machine and leaves RIP where it is, or says that it does not know (vm_fail), which stops this VM with a report and
 * nothing else. Whatever a guest does, only the guest suffers.
 */
#include "kernel/log.h"
#include "kernel/time.h"
#include "vm/exits.h"
#include "vmm/core.h"
#include "vmm/length_cache.h"

COLD bool exit_finish_unknown(struct vcpu *vcpu)
{
    unsigned length = vmm_instruction_length(vcpu);

    if (length)
        vcpu_skip(vcpu, length);
    else
        vcpu->flush_wanted = true; /* a stale translation, where another vCPU took the page away, would bring it here for ever */
    return true;
}

/* ---- CPUID ---- */

/* A leaf with subleaves, or one that depends on the vCPU. */
static COLD void cpuid_special(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    uint64_t *gpr = vcpu->state.gpr;
    uint32_t out[4];

    vcpu_load(vmm, vcpu, STATE_CR | STATE_MISC);
    struct cpuid_dynamic dynamic = {
        .apic_id = vcpu->id,
        .apic_enabled = cpu->apic.base_msr & APIC_BASE_ENABLE,
        .cr4 = vcpu->state.cr4,
        .xcr0 = vcpu->state.xcr0,
        .xss = vcpu->state.xss,
    };
    cpuid_read(&cpu->vm->model, (uint32_t)gpr[GPR_RAX], (uint32_t)gpr[GPR_RCX], &dynamic, out);
    gpr[GPR_RAX] = out[0];
    gpr[GPR_RBX] = out[1];
    gpr[GPR_RCX] = out[2];
    gpr[GPR_RDX] = out[3];
}

static COLD bool exit_cpuid(struct vcpu *vcpu, const struct vm_exit *exit)
{
    uint64_t *gpr = vcpu->state.gpr;
    const struct cpuid_entry *entry = cpuid_find_first(&machine_cpu_of(vcpu)->vm->model, (uint32_t)gpr[GPR_RAX]);

    if (unlikely(entry->flags)) {
        cpuid_special(vcpu);
    } else {
        gpr[GPR_RAX] = entry->eax;
        gpr[GPR_RBX] = entry->ebx;
        gpr[GPR_RCX] = entry->ecx;
        gpr[GPR_RDX] = entry->edx;
    }
    return finish(vcpu, exit);
}

/* ---- Ports ---- */

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(size * 8) - 1;
}

static COLD bool exit_io(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;
    uint64_t *rax = &vcpu->state.gpr[GPR_RAX], mask = size_mask(exit->io.size);

    if (exit->io.in) {
        uint64_t value = machine_port_read(vm, exit->io.port, exit->io.size) & mask;
        *rax = exit->io.size == 4 ? value : (*rax & ~mask) | value;
    } else {
        machine_port_write(vm, exit->io.port, exit->io.size, (uint32_t)(*rax & mask));
    }
    return finish(vcpu, exit);
}

/* ---- Memory ---- */

/* A fault that was not a page of RAM waiting to be mapped, or to be noted in the dirty log. */
static COLD bool memory_fault(struct vcpu *vcpu, const struct vm_exit *exit, enum stage2_result result)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    switch (result) {
    case STAGE2_NO_MEMORY:
        vm_fail(cpu->vm, "vCPU %u: the node has no memory left for second-stage tables", vcpu->id);
        return false;
    default:
        break;
    }
    if (exit->memory.delivering) {
        vm_fail(cpu->vm, "vCPU %u: an interrupt or exception was to be delivered through 0x%lx, where there is no RAM",
                vcpu->id, exit->memory.gpa.v);
        return false;
    }
    if (exit->memory.walking) {
        vmm->dump(vcpu);
        vcpu_load(vmm, vcpu, STATE_CR);
        vm_fail(cpu->vm, "vCPU %u: its page tables lie at 0x%lx, where there is no RAM (RIP 0x%lx, CR3 0x%lx)", vcpu->id,
                exit->memory.gpa.v, vcpu->state.rip, vcpu->state.cr3);
        return false;
    }
    return machine_simple_move(vcpu, exit) || exit_emulate(vcpu, exit->memory.bytes, exit->memory.byte_count);
}

static COLD bool exit_memory(struct vcpu *vcpu, const struct vm_exit *exit)
{
    enum stage2_result result = stage2_fault(&machine_cpu_of(vcpu)->vm->stage2, exit->memory.gpa, exit->memory.access);

    return likely(result == STAGE2_MAPPED) || memory_fault(vcpu, exit, result);
}

static COLD bool exit_string_io(struct vcpu *vcpu)
{
    return exit_emulate(vcpu, NULL, 0);
}

/* ---- The rest ---- */

static COLD bool exit_hypercall(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    uint64_t *gpr = vcpu->state.gpr, result;

    vcpu_load(vmm, vcpu, STATE_CR | STATE_CS);
    bool wide = cpu_mode64(&vcpu->state);
    uint64_t input = wide ? gpr[GPR_RCX] : gpr[GPR_RDX] << 32 | (uint32_t)gpr[GPR_RAX];
    if (cpu_real_mode(&vcpu->state) || cpu_cpl(&vcpu->state) || !hyperv_hypercall(&cpu->vm->hyperv, input, &result))
        return fault_ud(vcpu);
    gpr[GPR_RAX] = wide ? result : (uint32_t)result;
    if (!wide)
        gpr[GPR_RDX] = result >> 32;
    return finish(vcpu, exit);
}

/* ---- The local APIC, where the CPU has carried out a part ---- */

static COLD bool exit_apic_write(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);

    vlapic_page_written(&cpu->apic, exit->apic.offset, machine_now(cpu->vm));
    vcpu_request(vcpu, REQ_EVENT);
    return true;
}

static COLD bool exit_apic_eoi(struct vcpu *vcpu, const struct vm_exit *exit)
{
    vlapic_page_eoi(&machine_cpu_of(vcpu)->apic, exit->apic.vector);
    return true;
}

static COLD bool exit_hlt(struct vcpu *vcpu, const struct vm_exit *exit)
{
    vcpu->state.halted = true;
    vcpu_request(vcpu, REQ_EVENT);
    return finish(vcpu, exit);
}

static COLD bool exit_pause(struct vcpu *vcpu, const struct vm_exit *exit)
{
    finish(vcpu, exit);
    thread_yield(); /* the vCPU that holds the lock may be waiting for this CPU */
    return true;
}

static COLD bool exit_window(struct vcpu *vcpu)
{
    vcpu_request(vcpu, REQ_EVENT);
    return true;
}

static COLD bool exit_shutdown(struct vcpu *vcpu)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;

    log_warning("vm %s: triple fault on vCPU %u at 0x%lx: the VM is reset", vm->name, vcpu->id, vcpu->state.rip);
    vm_signal(vm, ORDER_GUEST_RESET);
    return false;
}

static COLD bool exit_invalid(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;

    vmm->dump(vcpu);
    vm_fail(vm, "vCPU %u: %s exit 0x%lx (0x%lx, 0x%lx) at 0x%lx is not understood", vcpu->id, vmm->name, exit->raw_reason,
            exit->raw_info1, exit->raw_info2, vcpu->state.rip);
    return false;
}

static COLD bool exit_task_switch(struct vcpu *vcpu)
{
    vm_fail(machine_cpu_of(vcpu)->vm, "vCPU %u: a hardware task switch at 0x%lx, which is not emulated", vcpu->id,
            vcpu->state.rip);
    return false;
}

/* Comes at least once a time slice, so it is here that the promise about a core's threads is checked. */
static COLD bool exit_host(struct vcpu *vcpu)
{
    core_check(vcpu);
    return true;
}

static COLD bool exit_undefined(struct vcpu *vcpu)
{
    return fault_ud(vcpu);
}

static COLD bool exit_wbinvd(struct vcpu *vcpu, const struct vm_exit *exit)
{
    return finish(vcpu, exit);
}

static COLD bool exit_exception(struct vcpu *vcpu, const struct vm_exit *exit)
{
    vcpu_inject_exception(vcpu, &exit->event);
    return true;
}

/* All handlers are called last, so that the way to them needs neither stack nor saved registers. */
static inline bool dispatch(struct vcpu *vcpu, struct vm_exit *exit)
{
    enum exit_kind kind = exit->kind;

    vcpu->exits[kind]++;
    switch (kind) {
    case EXIT_HOST: return exit_host(vcpu);
    case EXIT_CPUID: return exit_cpuid(vcpu, exit);
    case EXIT_HLT: return exit_hlt(vcpu, exit);
    case EXIT_PAUSE: return exit_pause(vcpu, exit);
    case EXIT_IO: return exit_io(vcpu, exit);
    case EXIT_STRING_IO: return exit_string_io(vcpu);
    case EXIT_MEMORY: return exit_memory(vcpu, exit);
    case EXIT_RDMSR: return exit_rdmsr(vcpu, exit);
    case EXIT_WRMSR: return exit_wrmsr(vcpu, exit);
    case EXIT_CR_WRITE: return exit_cr_write(vcpu, exit);
    case EXIT_CR_READ: return exit_cr_read(vcpu, exit);
    case EXIT_XSETBV: return exit_xsetbv(vcpu, exit);
    case EXIT_WBINVD: return exit_wbinvd(vcpu, exit);
    case EXIT_HYPERCALL: return exit_hypercall(vcpu, exit);
    case EXIT_EXCEPTION: return exit_exception(vcpu, exit);
    case EXIT_UNDEFINED: return exit_undefined(vcpu);
    case EXIT_IRQ_WINDOW: return exit_window(vcpu);
    case EXIT_NMI_WINDOW: return exit_window(vcpu);
    case EXIT_TPR: return exit_window(vcpu);
    case EXIT_APIC_WRITE: return exit_apic_write(vcpu, exit);
    case EXIT_APIC_EOI: return exit_apic_eoi(vcpu, exit);
    case EXIT_SHUTDOWN: return exit_shutdown(vcpu);
    case EXIT_TASK_SWITCH: return exit_task_switch(vcpu);
    case EXIT_PML_FULL: return true;
    case EXIT_INVALID: return exit_invalid(vcpu, exit);
    case EXIT_KINDS: return exit_invalid(vcpu, exit);
    }
    __builtin_unreachable(); /* a kind comes from a backend alone: no range check */
}

/* CR8 is the high half of the APIC's TPR: the guest may have moved it without an exit. Handlers move it back. */
static COLD bool exit_cr8_moved(struct vcpu *vcpu, struct vm_exit *exit)
{
    if (vlapic_set_cr8(&machine_cpu_of(vcpu)->apic, vcpu->state.cr8))
        vcpu_request(vcpu, REQ_EVENT);
    return dispatch(vcpu, exit);
}

bool machine_exit(struct vcpu *vcpu, struct vm_exit *exit)
{
    if (unlikely(vcpu->state.cr8 != vlapic_cr8(&machine_cpu_of(vcpu)->apic)))
        return exit_cr8_moved(vcpu, exit);
    return dispatch(vcpu, exit);
}
