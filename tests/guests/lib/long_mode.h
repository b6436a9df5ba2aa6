/* SPDX-License-Identifier: MIT */
/*
 * Into long mode and out of it, for guests' assembly: the steps of SDM vol. 3A, 10.8.5 and 10.8.5.4, as macros. Selectors
 * are those of start.S: 0x08 64-bit code, 0x10 flat data, 0x18 flat 32-bit code.
 */
#ifndef GUEST_LONG_MODE_H
#define GUEST_LONG_MODE_H

    /* 64-bit code: the registers that a C caller wants to find again. */
    .macro push_kept
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    .endm

    .macro pop_kept
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    .endm

    /* Flat data in DS, ES and SS. Changes EAX. */
    .macro flat_data
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    .endm

    /* 64-bit code, on a stack below 4 GiB: goes on in compatibility mode with flat segments. Changes RAX. */
    .macro compatibility_mode
    pushq $0x18
    leaq .Lcompatibility_\@(%rip), %rax
    pushq %rax
    lretq
    .code32
.Lcompatibility_\@:
    flat_data
    .endm

    /* EFER.LME. Change EAX, ECX and EDX. */
    .macro long_mode_enabled
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    .endm

    .macro long_mode_disabled
    movl $0xc0000080, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    .endm

    /* 32-bit code: CR0.PG. Change EAX. */
    .macro paging_on
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    .endm

    .macro paging_off
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    .endm

    /* A 32-bit interrupt gate of selector 0x18 at this place of a table. Changes EAX and ECX. */
    .macro interrupt_gate32 handler place
    movl $\handler, %eax
    movl %eax, %ecx
    andl $0xffff, %eax
    orl $0x180000, %eax
    andl $0xffff0000, %ecx
    orl $0x8e00, %ecx
    movl %eax, \place
    movl %ecx, \place + 4
    .endm

#endif
