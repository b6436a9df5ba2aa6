/* SPDX-License-Identifier: MIT */
/*
 * What a guest's instruction reaches when the hypervisor carries it out: RAM through gmem, the local APIC's page, device
 * registers and ports over the machine's buses with the device lock held, doorbells without it, vector registers. The
 * emulator sees all of it through struct emu_ops. The backends' requests for the bytes at CS:RIP are answered here too.
 */
#include <stdio.h>
#include <string.h>

#include "kernel/time.h"
#include "vm/exits.h"
#include "vmm/length_cache.h"
#include "vmm/vector.h"

/* ---- Ports ---- */

uint32_t machine_port_read(struct vm *vm, uint16_t port, unsigned size)
{
    uint64_t value;

    spin_lock(&vm->lock);
    (void)vbus_read(&vm->ports, port, size, &value, machine_now(vm));
    spin_unlock(&vm->lock);
    return (uint32_t)value;
}

void machine_port_write(struct vm *vm, uint16_t port, unsigned size, uint32_t value)
{
    spin_lock(&vm->lock);
    (void)vbus_write(&vm->ports, port, size, value, machine_now(vm));
    spin_unlock(&vm->lock);
}

/* ---- Memory and registers, for the emulator ---- */

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

    *value = machine_port_read(cpu->vm, port, size);
    return true;
}

static bool emu_port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    struct machine_cpu *cpu = context;

    machine_port_write(cpu->vm, port, size, value);
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

bool exit_emulate(struct vcpu *vcpu, const uint8_t *bytes, unsigned byte_count)
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
    uint64_t dr6 = vcpu->state.dr6, debugctl = vcpu->state.debugctl;
    uint32_t traps = vcpu->state.pending_debug;
    enum emu_result result = emu_step(&emu);
    vcpu->dirty |= STATE_BASE | STATE_INTR;
    if (vcpu->state.dr6 != dr6 || vcpu->state.debugctl != debugctl)
        vcpu->dirty |= STATE_DEBUG;
    if (vcpu->state.pending_debug != traps)
        vcpu->dirty |= STATE_TRAP;
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
