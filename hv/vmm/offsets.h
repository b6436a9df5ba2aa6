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
#define VCPU_VM 648
#define VM_DIRTY_BITMAP 72

/* Of the manuals, what the entry code looks at; checked against the vendors' lists in vmx_light.c and svm_light.c. */
#define ENTRY_VMCS_EXIT_REASON 0x4402
#define ENTRY_REASON_CPUID 10
#define ENTRY_REASON_EPT_VIOLATION 48
#define ENTRY_VMCB_EXIT_CODE 0x70
#define ENTRY_EXIT_CPUID 0x72
#define ENTRY_EXIT_NPF 0x400
#define ENTRY_DIRECT_BASE 0xffff800000000000

/*
 * Every register but RAX, RSP and RDI, in two parts: those that a C function may change, and those that it keeps. vcpu must
 * be in RDI. Flags survive (MOV changes none).
 */
#ifdef __ASSEMBLER__
.macro load_scratch_registers
    movq VCPU_RCX(%rdi), %rcx
    movq VCPU_RDX(%rdi), %rdx
    movq VCPU_RSI(%rdi), %rsi
    movq VCPU_R8(%rdi), %r8
    movq VCPU_R9(%rdi), %r9
    movq VCPU_R10(%rdi), %r10
    movq VCPU_R11(%rdi), %r11
.endm
.macro load_kept_registers
    movq VCPU_RBX(%rdi), %rbx
    movq VCPU_RBP(%rdi), %rbp
    movq VCPU_R12(%rdi), %r12
    movq VCPU_R13(%rdi), %r13
    movq VCPU_R14(%rdi), %r14
    movq VCPU_R15(%rdi), %r15
.endm
.macro save_scratch_registers
    movq %rcx, VCPU_RCX(%rdi)
    movq %rdx, VCPU_RDX(%rdi)
    movq %rsi, VCPU_RSI(%rdi)
    movq %r8, VCPU_R8(%rdi)
    movq %r9, VCPU_R9(%rdi)
    movq %r10, VCPU_R10(%rdi)
    movq %r11, VCPU_R11(%rdi)
.endm
.macro save_kept_registers
    movq %rbx, VCPU_RBX(%rdi)
    movq %rbp, VCPU_RBP(%rdi)
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
_Static_assert(offsetof(struct vcpu, vm) == VCPU_VM, "VCPU_VM");
_Static_assert(offsetof(struct vm_core, dirty_bitmap) == VM_DIRTY_BITMAP, "VM_DIRTY_BITMAP");

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
    void *state;
    __asm__ volatile("movq %%gs:%c1, %0" : "=r"(state) : "i"(offsetof(struct cpu, vmm)));
    return state;
}
#endif
#endif
