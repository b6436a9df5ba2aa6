/* SPDX-License-Identifier: MIT */
/*
 * The world switch of VMX: void vmx_run(struct vcpu *vcpu, struct vm_exit *exit), called with interrupts off.
 *
 * C makes the VMCS ready (vmx_prepare), C decodes the exit (vmx_after_exit, by a tail call). HOST_RSP is the stack
 * pointer as it is while vmx_prepare is being called, which gets it as an argument and writes it only where it has
 * changed. General registers but RSP are not switched by the CPU (SDM vol. 3C, 28.5); they are moved here. Flags set
 * before the guest's registers are loaded still hold at the branch, since MOV changes none.
 *
 * An exit begins with the registers that C may change; vmm/light.h says why it may end there too. One that is answered so
 * enters again from here.
 *
 * Stack while the guest runs: vcpu, six callee-saved registers.
 */
#include "vmm/offsets.h"

    .section .text
    .globl vmx_run
    .type vmx_run, @function
    .balign 16
vmx_run:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    movq %rsp, %rdx
    .globl vmx_guard_entry, vmx_guard_exit
vmx_guard_entry:                    /* vmm/guard.c may have another function called here */
    call vmx_prepare
    movq (%rsp), %rdi
    testl %eax, %eax
    js refused
    load_scratch_registers
    load_kept_registers
    movq VCPU_RAX(%rdi), %rax
    movq VCPU_RDI(%rdi), %rdi
    jz launch
    vmresume
    jmp failed
launch:
    vmlaunch
failed:
    xorl %esi, %esi
leave_failed:
    popq %rdi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    jmp vmx_entry_failed
refused:
    movl $1, %esi
    jmp leave_failed
    .size vmx_run, . - vmx_run

    .globl vmx_exit_entry
    .type vmx_exit_entry, @function
    .balign 16
vmx_exit_entry:
    pushq %rdi
    movq 8(%rsp), %rdi
    movq %rax, VCPU_RAX(%rdi)
    save_scratch_registers
    popq VCPU_RDI(%rdi)
    movl $ENTRY_VMCS_EXIT_REASON, %eax
    vmread %rax, %rsi
    .globl vmx_guard_light, vmx_guard_full
vmx_guard_light:                    /* JMP to the next line, or to full_exit on a CPU that needs a guard */
    .byte 0xe9
    .long 0
    cmpl $ENTRY_REASON_CPUID, %esi
    je light_cpuid
    cmpl $ENTRY_REASON_EPT_VIOLATION, %esi
    je light_memory
vmx_guard_full:
full_exit:
    save_kept_registers
    popq %rdi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
vmx_guard_exit:                     /* and here */
    jmp vmx_after_exit

light_cpuid:
    call vmx_light_cpuid
    movq (%rsp), %rdi
    movl $ENTRY_REASON_CPUID, %esi
    testb %al, %al
    jz full_exit
    movq VCPU_RBX(%rdi), %rbx       /* the answer is in the vCPU's RAX, RBX, RCX and RDX */
    jmp enter_again

light_memory:                       /* only the dirty log has such faults */
    movq VCPU_VM(%rdi), %rcx
    cmpq $0, VM_DIRTY_BITMAP(%rcx)
    je full_exit
    call vmx_light_memory
    movq (%rsp), %rdi
    movl $ENTRY_REASON_EPT_VIOLATION, %esi
    testb %al, %al
    jz full_exit
enter_again:
    load_scratch_registers
    movq VCPU_RAX(%rdi), %rax
    movq VCPU_RDI(%rdi), %rdi
    vmresume
    pushq %rdi                      /* refused: as if there had been no exit in between */
    movq 8(%rsp), %rdi
    save_kept_registers
    popq VCPU_RDI(%rdi)
    jmp failed
    .size vmx_exit_entry, . - vmx_exit_entry

    .section .note.GNU-stack, "", @progbits
