/* SPDX-License-Identifier: MIT */
/*
 * What the entry code in assembly knows of struct vcpu, by number. C files of both backends include this header too, so
 * that a struct that moved does not compile. Numbers of registers are those of enum gpr.
 */
#ifndef VMM_OFFSETS_H
#define VMM_OFFSETS_H

#define VCPU_RAX 0
#define VCPU_RCX 8
#define VCPU_RDX 16
#define VCPU_RBX 24
#define VCPU_RBP 40
#define VCPU_RSI 48
#define VCPU_RDI 56
#define VCPU_R8 64
#define VCPU_R9 72
#define VCPU_R10 80
#define VCPU_R11 88
#define VCPU_R12 96
#define VCPU_R13 104
#define VCPU_R14 112
#define VCPU_R15 120

/* Every register but RAX, RSP and RDI, in both directions: \vcpu must be RDI. Flags survive (MOV changes none). */
#ifdef __ASSEMBLER__
.macro load_guest_registers
    movq VCPU_RCX(%rdi), %rcx
    movq VCPU_RDX(%rdi), %rdx
    movq VCPU_RBX(%rdi), %rbx
    movq VCPU_RBP(%rdi), %rbp
    movq VCPU_RSI(%rdi), %rsi
    movq VCPU_R8(%rdi), %r8
    movq VCPU_R9(%rdi), %r9
    movq VCPU_R10(%rdi), %r10
    movq VCPU_R11(%rdi), %r11
    movq VCPU_R12(%rdi), %r12
    movq VCPU_R13(%rdi), %r13
    movq VCPU_R14(%rdi), %r14
    movq VCPU_R15(%rdi), %r15
.endm
.macro save_guest_registers
    movq %rcx, VCPU_RCX(%rdi)
    movq %rdx, VCPU_RDX(%rdi)
    movq %rbx, VCPU_RBX(%rdi)
    movq %rbp, VCPU_RBP(%rdi)
    movq %rsi, VCPU_RSI(%rdi)
    movq %r8, VCPU_R8(%rdi)
    movq %r9, VCPU_R9(%rdi)
    movq %r10, VCPU_R10(%rdi)
    movq %r11, VCPU_R11(%rdi)
    movq %r12, VCPU_R12(%rdi)
    movq %r13, VCPU_R13(%rdi)
    movq %r14, VCPU_R14(%rdi)
    movq %r15, VCPU_R15(%rdi)
.endm
#else
#include "kernel/cpu.h"
#include "vmm/vmm.h"

#define VCPU_GPR_AT(name) _Static_assert(offsetof(struct vcpu, state.gpr[GPR_##name]) == VCPU_##name, "VCPU_" #name)
VCPU_GPR_AT(RAX);
VCPU_GPR_AT(RCX);
VCPU_GPR_AT(RDX);
VCPU_GPR_AT(RBX);
VCPU_GPR_AT(RBP);
VCPU_GPR_AT(RSI);
VCPU_GPR_AT(RDI);
VCPU_GPR_AT(R8);
VCPU_GPR_AT(R9);
VCPU_GPR_AT(R10);
VCPU_GPR_AT(R11);
VCPU_GPR_AT(R12);
VCPU_GPR_AT(R13);
VCPU_GPR_AT(R14);
VCPU_GPR_AT(R15);
#undef VCPU_GPR_AT

/*
 * The four wishes of shared code that change what an entry asks of the CPU lie side by side, so that the usual case
 * (nothing changed since the last entry) is one comparison of one word. Byte 0 is flush_wanted.
 */
#define VCPU_WANTS_AT offsetof(struct vcpu, flush_wanted)
_Static_assert(VCPU_WANTS_AT % 4 == 0, "the wishes are one aligned word");
_Static_assert(offsetof(struct vcpu, want_irq_window) == VCPU_WANTS_AT + 1, "wishes lie side by side");
_Static_assert(offsetof(struct vcpu, want_nmi_window) == VCPU_WANTS_AT + 2, "wishes lie side by side");
_Static_assert(offsetof(struct vcpu, tpr_threshold) == VCPU_WANTS_AT + 3, "wishes lie side by side");
#define VCPU_WANTS_UNKNOWN 0xffffffffu /* no real word: its bytes 0 to 2 are 0 or 1 */

typedef uint32_t __attribute__((may_alias)) vcpu_wants_t;

static inline uint32_t vcpu_wants(const struct vcpu *vcpu)
{
    return *(const volatile vcpu_wants_t *)((const char *)vcpu + VCPU_WANTS_AT);
}

/* The backend's state of this CPU: struct cpu.vmm, in one instruction. */
static inline void *vmm_this_cpu(void)
{
    void *vmm;
    __asm__ volatile("movq %%gs:%c1, %0" : "=r"(vmm) : "i"(offsetof(struct cpu, vmm)));
    return vmm;
}
#endif
#endif
