/* SPDX-License-Identifier: MIT */
/*
 * What a guest did that the CPU could not do for it: one flat switch over struct vm_exit, one line a case, and the
 * handlers above it. They run on the vCPU's thread with host interrupts on.
 *
 * A handler either finishes the instruction (vcpu_skip), or injects the fault that the instruction would have had on a
 * real machine and leaves RIP where it is, or says that it does not know (vm_fail), which stops this VM with a report and
 * nothing else. Whatever a guest does, only the guest suffers.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/time.h"
#include "vm/machine.h"
#include "vmm/vector.h"
#include "vmm/length_cache.h"

/* Out of line: its frame and saved registers must not be the frequent exits' too. */
#define COLD __attribute__((noinline))

static struct machine_cpu *machine_cpu_of(struct vcpu *vcpu)
{
    return CONTAINER_OF(vcpu, struct machine_cpu, vcpu);
}

/* RIP past the instruction; where the CPU does not tell the length it is decoded. False: the guest takes it again. */
static COLD bool finish_unknown(struct vcpu *vcpu)
{
    unsigned length = vmm_instruction_length(vcpu);

    if (length)
        vcpu_skip(vcpu, length);
    return true;
}

static inline __attribute__((always_inline)) bool finish(struct vcpu *vcpu, const struct vm_exit *exit)
{
    if (unlikely(!exit->length))
        return finish_unknown(vcpu);
    vcpu_skip(vcpu, exit->length);
    return true;
}

static bool fault_gp(struct vcpu *vcpu)
{
    vcpu_inject_gp(vcpu);
    return true;
}

static bool fault_ud(struct vcpu *vcpu)
{
    vcpu_inject_ud(vcpu);
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

static bool exit_cpuid(struct vcpu *vcpu, const struct vm_exit *exit)
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

static uint32_t port_read(struct vm *vm, uint16_t port, unsigned size)
{
    uint64_t value;

    spin_lock(&vm->lock);
    (void)vbus_read(&vm->ports, port, size, &value, machine_now(vm));
    spin_unlock(&vm->lock);
    return (uint32_t)value;
}

static void port_write(struct vm *vm, uint16_t port, unsigned size, uint32_t value)
{
    spin_lock(&vm->lock);
    (void)vbus_write(&vm->ports, port, size, value, machine_now(vm));
    spin_unlock(&vm->lock);
}

static COLD bool exit_io(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;
    uint64_t *rax = &vcpu->state.gpr[GPR_RAX], mask = size_mask(exit->io.size);

    if (exit->io.in) {
        uint64_t value = port_read(vm, exit->io.port, exit->io.size) & mask;
        *rax = exit->io.size == 4 ? value : (*rax & ~mask) | value;
    } else {
        port_write(vm, exit->io.port, exit->io.size, (uint32_t)(*rax & mask));
    }
    return finish(vcpu, exit);
}

/* ---- Memory that is not RAM, and instructions that must be carried out here ---- */

static bool is_apic_page(const struct machine_cpu *cpu, gpa_t gpa)
{
    return (gpa.v & ~(PAGE_BYTES - 1)) == APIC_BASE_DEFAULT &&
           (cpu->apic.base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == APIC_BASE_ENABLE;
}

/* An access wider than a bus access is made of aligned pieces, as a CPU makes it for an uncached one. */
static bool emu_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    struct machine_cpu *cpu = context;
    struct vm *vm = cpu->vm;
    uint8_t *out = bytes;

    if (gmem_read(&vm->gmem, gpa, bytes, count))
        return true;
    while (count) {
        unsigned piece = count >= 8 && gpa.v % 8 == 0 ? 8 : count >= 4 && gpa.v % 4 == 0 ? 4 : count >= 2 && gpa.v % 2 == 0 ? 2 : 1;
        uint64_t value, now = machine_now(vm);
        if (is_apic_page(cpu, gpa)) {
            value = vlapic_mmio_read(&cpu->apic, gpa.v & (PAGE_BYTES - 1), piece, now);
        } else {
            spin_lock(&vm->lock);
            (void)vbus_read(&vm->mmio, gpa.v, piece, &value, now);
            spin_unlock(&vm->lock);
        }
        memcpy(out, &value, piece);
        out += piece;
        gpa.v += piece;
        count -= piece;
    }
    return true;
}

/* A doorbell of a virtio device: no lock, one bit and a wake-up. */
bool machine_doorbell(struct vm *vm, gpa_t gpa)
{
    for (unsigned i = 0; i < vm->device_count; i++) {
        uint64_t base, bytes;
        if (virtio_notify_range(vm->device[i], &base, &bytes) && gpa.v - base < bytes) {
            virtio_notify(vm->device[i], gpa.v - base);
            return true;
        }
    }
    return false;
}

static bool emu_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    struct machine_cpu *cpu = context;
    struct vm *vm = cpu->vm;
    const uint8_t *in = bytes;

    if (gmem_write(&vm->gmem, gpa, bytes, count))
        return true;
    while (count) {
        unsigned piece = count >= 8 && gpa.v % 8 == 0 ? 8 : count >= 4 && gpa.v % 4 == 0 ? 4 : count >= 2 && gpa.v % 2 == 0 ? 2 : 1;
        uint64_t value = 0, now = machine_now(vm);
        memcpy(&value, in, piece);
        if (is_apic_page(cpu, gpa)) {
            vlapic_mmio_write(&cpu->apic, gpa.v & (PAGE_BYTES - 1), piece, value, now);
            cpu->vcpu.state.cr8 = vlapic_cr8(&cpu->apic);
            vcpu_request(&cpu->vcpu, REQ_EVENT);
        } else if (!machine_doorbell(vm, gpa)) {
            spin_lock(&vm->lock);
            (void)vbus_write(&vm->mmio, gpa.v, piece, value, now);
            spin_unlock(&vm->lock);
        }
        in += piece;
        gpa.v += piece;
        count -= piece;
    }
    return true;
}

static bool emu_compare_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count,
                                 bool *equal)
{
    struct machine_cpu *cpu = context;
    uint8_t now[16];

    if (gmem_compare_exchange(&cpu->vm->gmem, gpa, expected, desired, count, equal))
        return true;
    if (!emu_read(context, gpa, now, count))
        return false;
    *equal = !memcmp(now, expected, count);
    return !*equal || emu_write(context, gpa, desired, count);
}

static bool emu_port_in(void *context, uint16_t port, unsigned size, uint32_t *value)
{
    struct machine_cpu *cpu = context;

    *value = port_read(cpu->vm, port, size);
    return true;
}

static bool emu_port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    struct machine_cpu *cpu = context;

    port_write(cpu->vm, port, size, value);
    return true;
}

static const void *emu_peek(void *context, gpa_t gpa, size_t count)
{
    struct machine_cpu *cpu = context;

    return gmem_peek(&cpu->vm->gmem, gpa, count);
}

static bool emu_vector_read(void *context, unsigned index, uint8_t bytes[64])
{
    struct machine_cpu *cpu = context;

    return vector_read(&cpu->vcpu, index, bytes);
}

static bool emu_vector_write(void *context, unsigned index, const uint8_t bytes[64])
{
    struct machine_cpu *cpu = context;

    return vector_write(&cpu->vcpu, index, bytes);
}

void machine_emu_ops(struct machine_cpu *cpu)
{
    length_cache_clear(&cpu->lengths);
    cpu->emu_ops = (struct emu_ops){
        .context = cpu,
        .read = emu_read,
        .write = emu_write,
        .compare_exchange = emu_compare_exchange,
        .port_in = emu_port_in,
        .port_out = emu_port_out,
        .peek = emu_peek,
        .vector_read = emu_vector_read,
        .vector_write = emu_vector_write,
    };
}

static COLD bool emulate(struct vcpu *vcpu, const uint8_t *bytes, unsigned byte_count)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    struct emu emu = {
        .state = &vcpu->state,
        .ops = &cpu->emu_ops,
        .physical_bits = cpu->vm->model.limits.physical_bits,
        .byte_count = (uint8_t)byte_count,
    };
    struct segment segments[SEG_COUNT];

    memcpy(emu.bytes, bytes, byte_count);
    vcpu_load(vmm, vcpu, STATE_ALL);
    if (vcpu->state.cr4 & CR4_PKE)
        vcpu->state.pkru = vector_pkru(vcpu);
    memcpy(segments, vcpu->state.seg, sizeof segments);
    uint64_t dr6 = vcpu->state.dr6;
    enum emu_result result = emu_step(&emu);
    vcpu->dirty |= STATE_BASE | STATE_INTR;
    if (vcpu->state.dr6 != dr6)
        vcpu->dirty |= STATE_DEBUG;
    if (memcmp(segments, vcpu->state.seg, sizeof segments))
        vcpu->dirty |= STATE_SEG;
    switch (result) {
    case EMU_DONE:
    case EMU_RETRY:
        return true;
    case EMU_FAULT:
        vcpu_inject_exception(vcpu, &emu.fault);
        return true;
    default:
        break;
    }
    uint8_t code[15];
    unsigned count = vmm_instruction_bytes(vcpu, code);
    char text[48] = "";
    for (unsigned i = 0; i < count; i++)
        snprintf(text + i * 3, sizeof text - i * 3, "%02x ", code[i]);
    vm_fail(cpu->vm, "vCPU %u: an instruction at 0x%lx that cannot be emulated: %s", vcpu->id, vcpu->state.rip, text);
    return false;
}

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
    if (vcpu->state.pending.type != EVENT_NONE) {
        vm_fail(cpu->vm, "vCPU %u: an interrupt or exception was to be delivered through 0x%lx, where there is no RAM",
                vcpu->id, exit->memory.gpa.v);
        return false;
    }
    if (exit->memory.walking) {
        vm_fail(cpu->vm, "vCPU %u: its page tables lie at 0x%lx, where there is no RAM", vcpu->id, exit->memory.gpa.v);
        return false;
    }
    return machine_simple_move(vcpu, exit) || emulate(vcpu, exit->memory.bytes, exit->memory.byte_count);
}

static bool exit_memory(struct vcpu *vcpu, const struct vm_exit *exit)
{
    enum stage2_result result = stage2_fault(&machine_cpu_of(vcpu)->vm->stage2, exit->memory.gpa, exit->memory.access);

    return likely(result == STAGE2_MAPPED) || memory_fault(vcpu, exit, result);
}

static bool exit_string_io(struct vcpu *vcpu)
{
    return emulate(vcpu, NULL, 0);
}

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
        *value = msr == MSR_TSC ? rdtsc() + vcpu->tsc_offset : cpu->tsc_adjust;
        return true;
    case MSR_IS_APIC:
        return vlapic_msr_read(&cpu->apic, msr, value, machine_now(vm));
    case MSR_IS_EFER:
        vcpu_load(vmm, vcpu, STATE_CR);
        *value = vcpu->state.efer;
        return true;
    case MSR_IS_HYPERV: {
        uint64_t tsc = rdtsc() + vcpu->tsc_offset - cpu->tsc_adjust; /* the machine's, whatever this guest wrote to its own */
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
    uint64_t delta = msr == MSR_TSC ? value - (rdtsc() + vcpu->tsc_offset) : value - cpu->tsc_adjust;

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
        vcpu->dirty |= STATE_SYSCALL | STATE_SEG | STATE_DEBUG | STATE_MISC;
        return true;
    case MSR_STORED:
        return msr_state_write(&cpu->msrs, &vm->model, msr, value);
    case MSR_IS_TSC:
        return guest_write_tsc(cpu, msr, value);
    case MSR_IS_APIC: {
        bool ok = vlapic_msr_write(&cpu->apic, msr, value, machine_now(vm));
        vcpu->state.cr8 = vlapic_cr8(&cpu->apic);
        vcpu_request(vcpu, REQ_EVENT);
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
        if (msr == MSR_PRED_CMD)
            wrmsr(MSR_PRED_CMD, value);
        return true;
    default:
        return false;
    }
}

/* The first touch of each MSR that does not exist is logged, up to a bound: a guest must not own the log. */
static void log_unknown_msr(struct vcpu *vcpu, uint32_t msr, bool write)
{
    struct vm *vm = machine_cpu_of(vcpu)->vm;

    spin_lock(&vm->lock);
    bool known = vm->unknown_msr_count == MACHINE_UNKNOWN_MSRS;
    for (unsigned i = 0; i < vm->unknown_msr_count && !known; i++)
        known = vm->unknown_msr[i] == msr;
    if (!known)
        vm->unknown_msr[vm->unknown_msr_count++] = msr;
    spin_unlock(&vm->lock);
    if (!known)
        log_info("vm %s: vCPU %u %s MSR 0x%x, which its CPU model does not have: #GP", vm->name, vcpu->id,
                 write ? "writes" : "reads", msr);
}

static COLD bool exit_rdmsr(struct vcpu *vcpu, const struct vm_exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->state.gpr[GPR_RCX];
    uint64_t value;

    if (!msr_read(machine_cpu_of(vcpu), msr, &value)) {
        log_unknown_msr(vcpu, msr, false);
        return fault_gp(vcpu);
    }
    vcpu->state.gpr[GPR_RAX] = (uint32_t)value;
    vcpu->state.gpr[GPR_RDX] = value >> 32;
    return finish(vcpu, exit);
}

static COLD bool exit_wrmsr(struct vcpu *vcpu, const struct vm_exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->state.gpr[GPR_RCX];
    uint64_t value = vcpu->state.gpr[GPR_RDX] << 32 | (uint32_t)vcpu->state.gpr[GPR_RAX];

    if (!msr_write(machine_cpu_of(vcpu), msr, value)) {
        log_unknown_msr(vcpu, msr, true);
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

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (s->efer & EFER_LME))
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

static COLD bool exit_cr_write(struct vcpu *vcpu, const struct vm_exit *exit)
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
            vlapic_set_cr8(&cpu->apic, value);
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

static COLD bool exit_cr_read(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct cpu_state *s = &vcpu->state;

    vcpu_load(vmm, vcpu, STATE_CR);
    s->gpr[exit->cr.gpr] = exit->cr.number == 0   ? s->cr0
                           : exit->cr.number == 3 ? s->cr3
                           : exit->cr.number == 4 ? s->cr4
                                                  : s->cr8;
    return finish(vcpu, exit);
}

static COLD bool exit_xsetbv(struct vcpu *vcpu, const struct vm_exit *exit)
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

static bool exit_window(struct vcpu *vcpu)
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

static COLD bool exit_exception(struct vcpu *vcpu, const struct vm_exit *exit)
{
    vcpu_inject_exception(vcpu, &exit->event);
    return true;
}

static inline bool dispatch(struct vcpu *vcpu, struct vm_exit *exit, enum exit_kind kind)
{
    switch (kind) {
    case EXIT_HOST: return true;
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
    case EXIT_WBINVD: return finish(vcpu, exit);
    case EXIT_HYPERCALL: return exit_hypercall(vcpu, exit);
    case EXIT_EXCEPTION: return exit_exception(vcpu, exit);
    case EXIT_UNDEFINED: return fault_ud(vcpu);
    case EXIT_IRQ_WINDOW: return exit_window(vcpu);
    case EXIT_NMI_WINDOW: return exit_window(vcpu);
    case EXIT_TPR: return exit_window(vcpu);
    case EXIT_SHUTDOWN: return exit_shutdown(vcpu);
    case EXIT_TASK_SWITCH: return exit_task_switch(vcpu);
    case EXIT_PML_FULL: return true;
    case EXIT_INVALID: return exit_invalid(vcpu, exit);
    case EXIT_KINDS: return exit_invalid(vcpu, exit);
    }
    __builtin_unreachable(); /* a kind comes from a backend alone: no range check */
}

bool machine_exit(struct vcpu *vcpu, struct vm_exit *exit)
{
    struct vlapic *apic = &machine_cpu_of(vcpu)->apic;

    /* CR8 is the high half of the APIC's TPR: the guest may have moved it without an exit. Handlers move it back. */
    if (unlikely(vcpu->state.cr8 != vlapic_cr8(apic))) {
        vlapic_set_cr8(apic, vcpu->state.cr8);
        vcpu_request(vcpu, REQ_EVENT);
    }
    enum exit_kind kind = exit->kind;
    vcpu->exits[kind]++;
    return dispatch(vcpu, exit, kind);
}

/* ---- For the backends: the instruction at CS:RIP ---- */

unsigned vmm_instruction_length(struct vcpu *vcpu)
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    struct emu emu = { .state = &vcpu->state, .ops = &cpu->emu_ops,
                       .physical_bits = cpu->vm->model.limits.physical_bits };

    vcpu_load(vmm, vcpu, STATE_CR | STATE_CS);
    unsigned length = emu_instruction_length(&emu);
    if (vcpu->lengths)
        length_cache_put(vcpu->lengths, &vcpu->state, &cpu->emu_ops, length);
    return length;
}

unsigned vmm_instruction_bytes(struct vcpu *vcpu, uint8_t bytes[15])
{
    struct machine_cpu *cpu = machine_cpu_of(vcpu);
    struct cpu_state *s = &vcpu->state;
    unsigned count = 0;

    vcpu_load(vmm, vcpu, STATE_CR | STATE_CS);
    while (count < 15) {
        uint64_t linear = s->rip + count + (cpu_mode64(s) ? 0 : s->seg[SEG_CS].base);
        struct event fault;
        gpa_t gpa;
        if (!cpu_mode64(s))
            linear = (uint32_t)linear;
        if (!guest_translate(s, &cpu->emu_ops, cpu->vm->model.limits.physical_bits, GVA(linear), ACCESS_FETCH, false,
                             &gpa, &fault))
            break;
        unsigned here = (unsigned)MIN(15 - count, PAGE_BYTES - linear % PAGE_BYTES);
        if (!gmem_read(&cpu->vm->gmem, gpa, bytes + count, here))
            break;
        count += here;
    }
    return count;
}
