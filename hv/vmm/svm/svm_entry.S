/* SPDX-License-Identifier: MIT */
/*
 * The world switch of SVM: void svm_run(struct vcpu *vcpu, struct vm_exit *exit), called with interrupts off.
 *
 * C prepares the VMCB (svm_prepare), C decodes the exit (svm_after_exit, by a tail call). In between the CPU runs with
 * GIF clear, so neither an NMI nor an interrupt sees the guest's FS, GS, TR and LDTR, which VMRUN does not switch:
 * VMLOAD and VMSAVE do (AMD APM vol. 2, 15.5.2). With V_INTR_MASKING the host's IF at VMRUN decides whether a host
 * interrupt ends the guest's run (15.21.1), hence STI before it; the interrupt stays pending until the caller turns
 * interrupts on. A pending NMI is delivered at STGI, with the host's GS and TR already back.
 *
 * An exit begins with the registers that C may change; vmm/light.h says why it may end there too. One that is answered so
 * enters again with GIF clear all the while and the guest's FS, GS, TR and LDTR in the CPU.
 *
 * Stack while the guest runs: host VMCB, vcpu, six callee-saved registers.
 */
#include "vmm/offsets.h"

    .section .text
    .globl svm_run
    .type svm_run, @function
    .balign 16
svm_run:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    .globl svm_guard_entry, svm_guard_exit
svm_guard_entry:                    /* vmm/guard.c may have another function called here */
    call svm_prepare                /* RAX: guest VMCB, RDX: host VMCB */
    movq (%rsp), %rdi
    pushq %rdx
    clgi
    sti
    load_scratch_registers
    load_kept_registers
    movq VCPU_RDI(%rdi), %rdi
    vmload %rax
enter:
    vmrun %rax                      /* RAX is the host's again after it (15.5.1): the guest's VMCB */
    pushq %rdi
    movq 16(%rsp), %rdi
    save_scratch_registers
    popq VCPU_RDI(%rdi)
    movabsq $ENTRY_DIRECT_BASE, %rcx
    movl ENTRY_VMCB_EXIT_CODE(%rcx, %rax), %esi
    .globl svm_guard_light, svm_guard_full
svm_guard_light:                    /* JMP to the next line, or to full_exit on a CPU that needs a guard */
    .byte 0xe9
    .long 0
    cmpl $ENTRY_EXIT_CPUID, %esi
    je light_cpuid
    cmpl $ENTRY_EXIT_NPF, %esi
    je light_memory
svm_guard_full:
full_exit:
    save_kept_registers
    vmsave %rax
    popq %rax
    vmload %rax
    cli
    stgi
    popq %rdi
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
svm_guard_exit:                     /* and here */
    jmp svm_after_exit

light_cpuid:
    pushq %rax
    call svm_light_cpuid
    testb %al, %al
    popq %rax
    movq 8(%rsp), %rdi
    movl $ENTRY_EXIT_CPUID, %esi
    jz full_exit
    movq VCPU_RBX(%rdi), %rbx       /* the answer is in the vCPU's RBX, RCX and RDX, and in the VMCB's RAX */
    jmp enter_again

light_memory:                       /* only the dirty log has such faults */
    movq VCPU_VM(%rdi), %rcx
    cmpq $0, VM_DIRTY_BITMAP(%rcx)
    je full_exit
    pushq %rax
    call svm_light_memory
    testb %al, %al
    popq %rax
    movq 8(%rsp), %rdi
    movl $ENTRY_EXIT_NPF, %esi
    jz full_exit
enter_again:
    load_scratch_registers
    movq VCPU_RDI(%rdi), %rdi
    jmp enter
    .size svm_run, . - svm_run

    .section .note.GNU-stack, "", @progbits
