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
    load_guest_registers
    movq VCPU_RDI(%rdi), %rdi
    vmload %rax
    vmrun %rax
    vmsave %rax                     /* RAX is the host's again (15.5.1) */
    pushq %rdi
    movq 16(%rsp), %rdi
    save_guest_registers
    popq VCPU_RDI(%rdi)
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
    .size svm_run, . - svm_run

    .section .note.GNU-stack, "", @progbits
