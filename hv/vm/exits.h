/* SPDX-License-Identifier: MIT */
/*
 * The exit handlers and what they share; private to vm/. exits.c has the switch and the plain ones, exit_registers.c
 * MSRs and control registers, access.c all that touches memory or ports on the guest's behalf. A handler returns true if
 * the vCPU goes on.
 */
#ifndef VM_EXITS_H
#define VM_EXITS_H

#include "vm/machine.h"

/* Out of line: its frame and saved registers must not be the frequent exits' too. */
#define COLD __attribute__((noinline))

static inline struct machine_cpu *machine_cpu_of(struct vcpu *vcpu)
{
    return CONTAINER_OF(vcpu, struct machine_cpu, vcpu);
}

/* The same where the CPU does not tell the length: it is decoded. exits.c */
bool exit_finish_unknown(struct vcpu *vcpu);

/*
 * RIP past the instruction. A length that cannot be told leaves RIP where it is: the guest takes the instruction again,
 * with no stale translation of its page, so that a CPU whose own walk finds no page either takes the fault.
 */
static inline __attribute__((always_inline)) bool finish(struct vcpu *vcpu, const struct vm_exit *exit)
{
    if (unlikely(!exit->length))
        return exit_finish_unknown(vcpu);
    vcpu_skip(vcpu, exit->length);
    return true;
}

static inline bool fault_gp(struct vcpu *vcpu)
{
    vcpu_inject_gp(vcpu);
    return true;
}

static inline bool fault_ud(struct vcpu *vcpu)
{
    vcpu_inject_ud(vcpu);
    return true;
}

/* exit_registers.c */
bool exit_rdmsr(struct vcpu *vcpu, const struct vm_exit *exit);
bool exit_wrmsr(struct vcpu *vcpu, const struct vm_exit *exit);
bool exit_cr_write(struct vcpu *vcpu, const struct vm_exit *exit);
bool exit_cr_read(struct vcpu *vcpu, const struct vm_exit *exit);
bool exit_xsetbv(struct vcpu *vcpu, const struct vm_exit *exit);

/* access.c */
uint32_t machine_port_read(struct vm *vm, uint16_t port, unsigned size);
void machine_port_write(struct vm *vm, uint16_t port, unsigned size, uint32_t value);
/* Carries out the instruction at CS:RIP; `bytes` are those that the CPU gave, if any. */
bool exit_emulate(struct vcpu *vcpu, const uint8_t *bytes, unsigned byte_count);

#endif
