/* SPDX-License-Identifier: MIT */
/*
 * The world switch of VMX: void vmx_run(struct vcpu *vcpu, struct vm_exit *exit), called with interrupts off.
 *
 * C makes the VMCS ready (vmx_prepare), C decodes the exit (vmx_after_exit, by a tail call). HOST_RSP is the stack
 * pointer as it is while vmx_prepare is being called, which gets it as an argument and writes it only where it has
 * changed. General registers but RSP are not switched by the CPU (SDM vol. 3C, 28.5); they are moved here. Flags set
 * before the guest's registers are loaded still hold at the branch, since MOV changes none.
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
    load_guest_registers
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
    save_guest_registers
    popq VCPU_RDI(%rdi)
    popq %rdi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
vmx_guard_exit:                     /* and here */
    jmp vmx_after_exit
    .size vmx_exit_entry, . - vmx_exit_entry

    .section .note.GNU-stack, "", @progbits
