/* SPDX-License-Identifier: MIT */
/*
 * Into a case's mode and back. faults_enter runs a case from 64-bit mode in 64-bit or compatibility mode: IRETQ leads
 * in, an exception leads out, on a stack of its own (IST 1). faults_enter_legacy leaves long mode first: to protected
 * mode, virtual-8086 mode or, through code copied to LOW, real mode; an exception leads back to long mode.
 *
 * Both read struct entry and fill struct taken (faults.c); the offsets are here and there.
 */
#include "long_mode.h"

#define LOW 0x6000          /* real-mode code is copied here: segment 0x600 */
#define LOW_SEGMENT 0x600
#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define FLAT_CS 0x18
#define REAL_CS 0x20
#define REAL_DS 0x28
#define LEGACY_TSS 0xd0

/* struct entry: gpr[16], rip, cs, rflags, rsp, ss, then real_or_v86, cr0, cr3, cr4, ds es fs gs (16 bits each). */
#define E_RIP 128
#define E_CS 136
#define E_RFLAGS 144
#define E_RSP 152
#define E_SS 160
#define E_KIND 168
#define E_CR0 176
#define E_CR3 184
#define E_CR4 192
#define E_DS 200
#define E_ES 202
#define E_FS 204
#define E_GS 206
/* struct taken: gpr[16], vector, error, rip, cs, rflags, rsp, ss, ds es fs gs. */
#define T_VECTOR 128
#define T_DS 184

.text
.code64
.macro SAVE
    push_kept
    pushfq
    movq %rsp, faults_rsp(%rip)
.endm

.global faults_enter
faults_enter:
    SAVE
    leaq faults_entry(%rip), %rdi
    pxor %xmm0, %xmm0
    pushq E_SS(%rdi)
    pushq E_RSP(%rdi)
    pushq E_RFLAGS(%rdi)
    pushq E_CS(%rdi)
    pushq E_RIP(%rdi)
    movq 0(%rdi), %rax
    movq 8(%rdi), %rcx
    movq 16(%rdi), %rdx
    movq 24(%rdi), %rbx
    movq 40(%rdi), %rbp
    movq 48(%rdi), %rsi
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    movq 8*\n(%rdi), %r\n
    .endr
    movq 56(%rdi), %rdi
    iretq

/* 32 entries of 16 bytes. */
.balign 16
.global faults_vectors
faults_vectors:
.set vector, 0
.rept 32
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp taken
    .set vector, vector + 1
.endr

taken:
    cld
    movq %rdi, faults_taken+56(%rip)
    leaq faults_taken(%rip), %rdi
    movq %rax, 0(%rdi)
    movq %rcx, 8(%rdi)
    movq %rdx, 16(%rdi)
    movq %rbx, 24(%rdi)
    movq %rbp, 40(%rdi)
    movq %rsi, 48(%rdi)
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    movq %r\n, 8*\n(%rdi)
    .endr
    movw %ds, T_DS(%rdi)
    movw %es, T_DS+2(%rdi)
    movw %fs, T_DS+4(%rdi)
    movw %gs, T_DS+6(%rdi)
    .irp n, 0, 8, 16, 24, 32, 40, 48
    popq T_VECTOR+\n(%rdi)
    .endr
    movq T_VECTOR+40(%rdi), %rax
    movq %rax, 32(%rdi)
back64:
    movl $KERNEL_DS, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movq faults_rsp(%rip), %rsp
    popfq
    pop_kept
    ret

/* ---- Out of long mode ---- */

.global faults_enter_legacy
faults_enter_legacy:
    SAVE
    movq %cr0, %rax
    movq %rax, faults_cr0(%rip)
    movq %cr4, %rax
    movq %rax, faults_cr4(%rip)
    pxor %xmm0, %xmm0
    pushq $FLAT_CS
    pushq $1f
    lretq
.code32
1:  movl $KERNEL_DS, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $faults_stack_end, %esp
    paging_off
    long_mode_disabled
    movl faults_entry+E_CR4, %eax
    movl %eax, %cr4
    cmpl $2, faults_entry+E_KIND
    je to_real
    movl faults_entry+E_CR3, %eax
    movl %eax, %cr3
    movl faults_entry+E_CR0, %eax
    movl %eax, %cr0
    lidt faults_legacy_idt_pointer
    movw $LEGACY_TSS, %ax
    ltr %ax
    /* An IRET frame: for virtual-8086 mode nine words, for ring 3 five, for ring 0 three on the case's own stack. */
    cmpl $1, faults_entry+E_KIND
    jne 2f
    pushl faults_entry+E_GS
    pushl faults_entry+E_FS
    pushl faults_entry+E_DS
    pushl faults_entry+E_ES
    jmp 3f
2:  testl $3, faults_entry+E_CS
    jnz 3f
    movl faults_entry+E_RSP, %esp
    jmp 4f
3:  pushl faults_entry+E_SS
    pushl faults_entry+E_RSP
4:  pushl faults_entry+E_RFLAGS
    pushl faults_entry+E_CS
    pushl faults_entry+E_RIP
    cmpl $1, faults_entry+E_KIND
    je 5f
    movw faults_entry+E_ES, %es
    movw faults_entry+E_FS, %fs
    movw faults_entry+E_GS, %gs
    pushl faults_entry+E_DS
    jmp 6f
5:  pushl $KERNEL_DS
6:  .irp n, 0, 8, 16, 24, 32, 40, 48, 56
    pushl faults_entry+\n
    .endr
    popal
    popl %ds
    iretl

.balign 16
.global faults_legacy_vectors
faults_legacy_vectors:
.set vector, 0
.rept 32
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushl $0
    .endif
    pushl $vector
    jmp legacy_taken
    .set vector, vector + 1
.endr

legacy_taken:
    cld
    pushal
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    movl $KERNEL_DS, %eax
    movw %ax, %ds
    movl %esp, faults_legacy_esp
    jmp to_long

.global faults_back32
faults_back32:
    movl $KERNEL_DS, %eax
    movw %ax, %ds
to_long:
    movl $KERNEL_DS, %eax
    movw %ax, %es
    movw %ax, %ss
    movl $faults_stack_end, %esp
    paging_off
    movl faults_cr4, %eax
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    long_mode_enabled
    movl faults_cr0, %eax
    movl %eax, %cr0
    ljmp $KERNEL_CS, $back64

to_real:
    lidt faults_real_idt_pointer
    movl $REAL_DS, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    ljmp $REAL_CS, $LOW

/* ---- Real mode: copied to LOW; its own variables are addressed from there ---- */

#define HERE(label) (label - faults_low)
.section .data
.balign 16
.global faults_low, faults_low_end, faults_low_entry, faults_low_taken
faults_low:
.code16
    movl %cr0, %eax
    andl $~1, %eax
    movl %eax, %cr0
    ljmpw $LOW_SEGMENT, $HERE(1f)
1:  movw %cs:HERE(faults_low_entry)+E_SS, %ss
    movl %cs:HERE(faults_low_entry)+E_RSP, %esp
    pushw %cs:HERE(faults_low_entry)+E_RFLAGS
    pushw %cs:HERE(faults_low_entry)+E_CS
    pushw %cs:HERE(faults_low_entry)+E_RIP
    movw %cs:HERE(faults_low_entry)+E_DS, %ds
    movw %cs:HERE(faults_low_entry)+E_ES, %es
    movw %cs:HERE(faults_low_entry)+E_FS, %fs
    movw %cs:HERE(faults_low_entry)+E_GS, %gs
    movl %cs:HERE(faults_low_entry)+0, %eax
    movl %cs:HERE(faults_low_entry)+8, %ecx
    movl %cs:HERE(faults_low_entry)+16, %edx
    movl %cs:HERE(faults_low_entry)+24, %ebx
    movl %cs:HERE(faults_low_entry)+40, %ebp
    movl %cs:HERE(faults_low_entry)+48, %esi
    movl %cs:HERE(faults_low_entry)+56, %edi
    iretw

/* 32 entries of 8 bytes. */
.balign 8
.global faults_low_vectors
faults_low_vectors:
.set vector, 0
.rept 32
    .balign 8
    pushw $vector
    jmp low_taken
    .set vector, vector + 1
.endr

low_taken:
    movl %eax, %cs:HERE(faults_low_taken)+0
    movl %ecx, %cs:HERE(faults_low_taken)+8
    movl %edx, %cs:HERE(faults_low_taken)+16
    movl %ebx, %cs:HERE(faults_low_taken)+24
    movl %ebp, %cs:HERE(faults_low_taken)+40
    movl %esi, %cs:HERE(faults_low_taken)+48
    movl %edi, %cs:HERE(faults_low_taken)+56
    popw %cs:HERE(faults_low_taken)+T_VECTOR
    popw %cs:HERE(faults_low_taken)+T_VECTOR+16
    popw %cs:HERE(faults_low_taken)+T_VECTOR+24
    popw %cs:HERE(faults_low_taken)+T_VECTOR+32
    movl %esp, %cs:HERE(faults_low_taken)+32
    movw %ss, %cs:HERE(faults_low_taken)+T_VECTOR+48
    movw %ds, %cs:HERE(faults_low_taken)+T_DS
    movw %es, %cs:HERE(faults_low_taken)+T_DS+2
    movw %fs, %cs:HERE(faults_low_taken)+T_DS+4
    movw %gs, %cs:HERE(faults_low_taken)+T_DS+6
    cld
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $FLAT_CS, $faults_back32
.balign 8
faults_low_entry: .skip 256
faults_low_taken: .skip 256
faults_low_end:

.section .bss
.balign 16
.global faults_stack_end, faults_ist_end
    .skip 8192
faults_stack_end:
    .skip 8192
faults_ist_end:
faults_rsp: .skip 8
faults_cr0: .skip 8
faults_cr4: .skip 8
.section .note.GNU-stack, "", @progbits
