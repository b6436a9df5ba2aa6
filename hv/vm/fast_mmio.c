/* SPDX-License-Identifier: MIT */
/*
 * The short way of a plain MOV to or from a device register: a virtio doorbell, the local APIC's page, an IOAPIC. The
 * emulator would decode the instruction and walk the guest's page tables for the code and for the operand; here the code
 * is found by the cache of instructions that exited before (vmm/length_cache.h), which proves itself, and the operand's
 * guest physical address is the one that the exit told.
 *
 * Rights need no check: the second stage is asked after the guest's own tables have allowed the access. What does not fit
 * in here exactly is left to the emulator, with nothing done.
 */
#include "vm/machine.h"
#include "vmm/length_cache.h"
#include "vmm/simple_move.h"

/* The emulator takes this one, and remembers it for the next time if it is one of ours. */
static bool learn(struct vcpu *vcpu, struct length_cache *cache)
{
    struct machine_cpu *cpu = CONTAINER_OF(vcpu, struct machine_cpu, vcpu);
    uint8_t bytes[15];
    uint64_t code = 0;
    struct simple_move move;
    unsigned count = MIN(vmm_instruction_bytes(vcpu, bytes), 8u);

    for (unsigned i = 0; i < count; i++)
        code |= (uint64_t)bytes[i] << 8 * i;
    if (count && simple_move_decode(&vcpu->state, code, count, &move))
        length_cache_put(cache, &vcpu->state, &cpu->emu_ops, move.length);
    return false;
}

bool machine_simple_move(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct machine_cpu *cpu = CONTAINER_OF(vcpu, struct machine_cpu, vcpu);
    struct length_cache *cache = vcpu->lengths ? vcpu->lengths : &cpu->lengths;
    struct cpu_state *s = &vcpu->state;
    struct simple_move move;
    uint64_t value;

    vcpu_load(vmm, vcpu, STATE_CR | STATE_CS);
    if (!cpu_mode64(s) || (s->cr4 & CR4_LA57))
        return false;
    const struct length_cache_entry *entry = length_cache_lookup(cache, s->rip, s->cr3);
    if (!entry)
        return learn(vcpu, cache);
    if (!simple_move_decode(s, entry->bytes, (unsigned)entry->length, &move))
        return false;
    /* The whole operand, naturally aligned, is where the CPU says, and it is this operand. */
    gpa_t gpa = exit->memory.gpa;
    if (((move.linear ^ gpa.v) & (PAGE_BYTES - 1)) || (gpa.v & (move.size - 1u)) ||
        move.store != (exit->memory.access == ACCESS_WRITE))
        return false;
    if (move.store) {
        if (!machine_doorbell(cpu->vm, gpa) && !cpu->emu_ops.write(cpu, gpa, &move.value, move.size))
            return false;
    } else {
        value = 0;
        if (!cpu->emu_ops.read(cpu, gpa, &value, move.size))
            return false;
        simple_move_finish(s, &move, value);
    }
    vcpu_skip(vcpu, move.length);
    return true;
}
