/* SPDX-License-Identifier: MIT */
/*
 * Entry of a guest: from Multiboot's 32-bit protected mode (boot CPU) or real mode (the others) to 64-bit mode with the
 * first 4 GiB mapped one to one by 2 MiB pages; and the interrupt entries.
 *
 * A CPU's stack is 16 KiB and aligned so; struct guest_cpu lies at its lower end. No segment base or MSR is needed to
 * find it, so guests may do to these what they like.
 */
#include "long_mode.h"

#define STACK_BYTES 0x4000
#define CPUS 32
#define TRAMPOLINE 0x8000

.section .multiboot, "ax"
.balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

.code32
.global guest_entry
guest_entry:
    cli
    movl $guest_stacks + STACK_BYTES, %esp
    movl %eax, guest_boot_magic
    movl %ebx, guest_boot_info
    /* Page tables: PML4[0] -> four directories of 2 MiB pages. */
    movl $guest_pdpt + 7, guest_pml4
    movl $guest_pd + 7, %eax
    xorl %ecx, %ecx
1:  movl %eax, guest_pdpt(, %ecx, 8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 1b
    xorl %ecx, %ecx
    movl $0x87, %eax
2:  movl %eax, guest_pd(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 2b
    jmp to_long

/* 32-bit, ESP set. The stack is kept. */
to_long:
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    long_mode_enabled
    movl %cr0, %eax
    orl $0x80000023, %eax            /* PG, PE, MP, NE */
    andl $~0x60000000, %eax          /* CD and NW, which a CPU has set at INIT */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $long_mode

.code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl %esp, %esp
    lidt guest_idt_pointer
    xorl %ebp, %ebp
    movl %esp, %eax
    decl %eax
    andl $~(STACK_BYTES - 1), %eax
    cmpl $guest_stacks, %eax
    jne 1f
    call guest_start
1:  call guest_ap_start
2:  hlt
    jmp 2b

/* ---- Where a CPU other than the first begins: copied to TRAMPOLINE, real mode, CS:IP = TRAMPOLINE/16:0 ---- */

.section .data
.balign 16
.global guest_trampoline, guest_trampoline_end
.code16
guest_trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + (low_gdt_pointer - guest_trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $ap_protected
.balign 8
low_gdt_pointer:
    .word guest_gdt_end - guest_gdt - 1
    .long guest_gdt
guest_trampoline_end:

.text
.code32
ap_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl guest_ap_stack, %esp
    jmp to_long

.section .data
.balign 16
.global guest_gdt, guest_gdt_end
guest_gdt:
    .quad 0
    .quad 0x00af9b000000ffff         /* 0x08 64-bit code */
    .quad 0x00cf93000000ffff         /* 0x10 data */
    .quad 0x00cf9b000000ffff         /* 0x18 32-bit code */
    .quad 0x00009b000000ffff         /* 0x20 16-bit code, base 0 */
    .quad 0x000093000000ffff         /* 0x28 16-bit data, base 0 */
    .quad 0x00cffb000000ffff         /* 0x33 32-bit code, ring 3 */
    .quad 0x00cff3000000ffff         /* 0x3b data, ring 3 */
    .quad 0x00affb000000ffff         /* 0x43 64-bit code, ring 3 */
    .quad 0, 0                       /* 0x48 TSS, by guest_start */
    .quad 0                          /* 0x58 for the guest */
guest_gdt_end:
.global gdt_pointer, guest_idt_pointer
gdt_pointer:
    .word guest_gdt_end - guest_gdt - 1
    .quad guest_gdt
.balign 8
guest_idt_pointer:
    .word 256 * 16 - 1
    .quad guest_idt

.section .bss
.balign 16384
.global guest_stacks
guest_stacks: .skip STACK_BYTES * CPUS
.balign 4096
.global guest_pml4, guest_pdpt, guest_pd
guest_pml4: .skip 4096
guest_pdpt: .skip 4096
guest_pd:   .skip 4 * 4096
.global guest_idt
guest_idt:  .skip 4096

/* ---- Interrupts ---- */

.text
.code64
/* 256 entries of 16 bytes. Exceptions 8, 10-14, 17, 21, 29 and 30 have an error code of their own. */
.balign 16
.global guest_vectors
guest_vectors:
.set vector, 0
.rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp interrupt
    .set vector, vector + 1
.endr

interrupt:
    cld
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call guest_interrupt
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq

/*
 * int guest_try_call(void (*function)(void *), void *argument, uint64_t *try_rsp): -1, or the vector that ended it:
 * guest_interrupt returns to guest_try_landing with RSP = *try_rsp and the vector in RAX.
 */
.global guest_try_call, guest_try_landing
guest_try_call:
    push_kept
    subq $8, %rsp
    movq %rsp, (%rdx)
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    movq $-1, %rax
guest_try_landing:
    addq $8, %rsp
    pop_kept
    ret

.section .note.GNU-stack, "", @progbits
