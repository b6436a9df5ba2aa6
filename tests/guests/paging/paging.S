/* SPDX-License-Identifier: MIT */
/*
 * void paging_run(uint32_t mode, struct results *results): leaves 64-bit mode for protected mode, turns on 32-bit
 * paging with 4 MiB pages (mode 0) or PAE paging (mode 1), uses it, and comes back.
 *
 * The first 4 GiB are one to one by large pages but for the second half's first large page, which is of small ones:
 *     0x80000000 a page of RAM, 0x80001000 the IOAPIC, 0x80002000 the RAM read-only, 0x80003000 nothing
 */
#include "long_mode.h"

#define IOAPIC 0xfec00000

.section .bss
.balign 4096
dir32:  .skip 4096
table32: .skip 4096
pae_pdpt: .skip 4096
pae_dir: .skip 4 * 4096
pae_table: .skip 4096
ram:    .skip 4096
saved_rsp: .skip 8
saved_cr3: .skip 8
saved_cr4: .skip 8
saved_idt: .skip 16
idt32:  .skip 32 * 8
mode:   .skip 4
results: .skip 4
.section .data
.balign 8
idt32_pointer:
    .word 32 * 8 - 1
    .long idt32

.text
.code64
.global paging_run
paging_run:
    push_kept
    movl %edi, mode
    movl %esi, results
    movq %rsp, saved_rsp
    movq %cr3, %rax
    movq %rax, saved_cr3
    movq %cr4, %rax
    movq %rax, saved_cr4
    sidt saved_idt
    compatibility_mode
    paging_off
    long_mode_disabled
    interrupt_gate32 page_fault, "idt32 + 14 * 8"
    lidt idt32_pointer
    movl $0x11223344, ram
    movl results, %ebp
    cmpl $0, mode
    jne pae

    /* 32-bit paging */
    xorl %ecx, %ecx
    movl $0x83, %eax
2:  movl %eax, dir32(, %ecx, 4)
    addl $0x400000, %eax
    incl %ecx
    cmpl $1024, %ecx
    jb 2b
    movl $table32 + 3, dir32 + 512 * 4
    movl $ram + 3, table32
    movl $IOAPIC + 3, table32 + 4
    movl $ram + 1, table32 + 8
    movl $0, table32 + 12
    movl $dir32, %eax
    movl %eax, %cr3
    movl $0x10, %eax             /* PSE */
    movl %eax, %cr4
    call with_paging
    movl table32, %eax
    movl %eax, 24(%ebp)
    movl dir32 + 512 * 4, %eax
    movl %eax, 28(%ebp)
    movl table32 + 4, %eax
    movl %eax, 32(%ebp)
    jmp back

pae:
    xorl %ecx, %ecx
    movl $0x83, %eax
3:  movl %eax, pae_dir(, %ecx, 8)
    movl $0, pae_dir + 4(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 3b
    movl $pae_table + 3, pae_dir + 1024 * 8
    movl $ram + 3, pae_table
    movl $IOAPIC + 3, pae_table + 8
    movl $ram + 1, pae_table + 16
    movl $0, pae_table + 24
    movl $pae_dir + 1, pae_pdpt
    movl $pae_dir + 0x1001, pae_pdpt + 8
    movl $pae_dir + 0x2001, pae_pdpt + 16
    movl $pae_dir + 0x3001, pae_pdpt + 24
    movl $pae_pdpt, %eax
    movl %eax, %cr3
    movl $0x20, %eax             /* PAE */
    movl %eax, %cr4
    call with_paging
    movl pae_table, %eax
    movl %eax, 24(%ebp)
    movl pae_dir + 1024 * 8, %eax
    movl %eax, 28(%ebp)
    movl pae_table + 8, %eax
    movl %eax, 32(%ebp)

back:
    movl saved_cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl saved_cr3, %eax
    movl %eax, %cr3
    long_mode_enabled
    paging_on
    ljmp $0x08, $5f
.code64
5:  flat_data
    lidt saved_idt
    movq saved_rsp, %rsp
    pop_kept
    ret

.code32
/* Paging on, the accesses, paging off. EBP: results. */
with_paging:
    paging_on
    movl 0x80000000, %eax
    movl %eax, 0(%ebp)
    movl $0x55667788, 0x80000000
    movl ram, %eax
    movl %eax, 36(%ebp)
    movl 0x80001000, %eax
    movl %eax, 4(%ebp)
    movl $0x2c, 0x80001000
    movl $ram, %eax
    movl (%eax), %eax
    movl %eax, 8(%ebp)
    movl IOAPIC, %eax
    movl %eax, 12(%ebp)
    movl $1, 0x80003004          /* faults: page_fault goes on behind it */
    nop
    paging_off
    ret

page_fault:
    popl %eax
    movl %eax, 16(%ebp)
    movl %cr2, %eax
    movl %eax, 20(%ebp)
    addl $10, (%esp)             /* MOV imm32 to an absolute address: 10 bytes */
    iret

.section .note.GNU-stack, "", @progbits
