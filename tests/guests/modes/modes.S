/* SPDX-License-Identifier: MIT */
/*
 * void modes_run(void): the walk that modes.c tells of. The code for 16 bits is copied to 0x9000 (modes_low); what it
 * finds it leaves from 0xa000 on. Selectors are the library's: 0x08 64-bit code, 0x10 flat data, 0x18 32-bit code, 0x20
 * and 0x28 16-bit code and data, 0x58 the 32-bit TSS.
 */
#include "long_mode.h"

#define LOW_BASE 0x9000
#define RESULTS 0xa000
#define LOW(label) (LOW_BASE + (label) - modes_low)
#define IOAPIC 0xfec00000

.section .bss
.balign 16
saved_rsp: .skip 8
saved_idt: .skip 16
idt32:  .skip 32 * 8
.skip 512
ring0_top:
.global modes_compat_leaf, modes_pm32_leaf, modes_pm32_device
.global modes_v86_flags, modes_v86_code, modes_v86_error, modes_tss
modes_compat_leaf: .skip 4
modes_pm32_leaf: .skip 4
modes_pm32_device: .skip 4
modes_v86_flags: .skip 4
modes_v86_code: .skip 4
modes_v86_error: .skip 4
saved_esp: .skip 4
.balign 16
modes_tss: .skip 104

.section .data
.balign 8
idt32_pointer:
    .word 32 * 8 - 1
    .long idt32

.text
.code64
.global modes_run
modes_run:
    push_kept
    movq %rsp, saved_rsp
    sidt saved_idt
    compatibility_mode
    xorl %eax, %eax
    cpuid
    movl %eax, modes_compat_leaf
    paging_off
    long_mode_disabled
    xorl %eax, %eax
    cpuid
    movl %eax, modes_pm32_leaf
    movl IOAPIC, %eax
    movl %eax, modes_pm32_device
    ljmp $0x20, $LOW(pm16)

/* From real mode: flat segments, then virtual 8086 mode. */
pm32_again:
    flat_data
    movl saved_rsp, %esp
    interrupt_gate32 v86_fault, "idt32 + 13 * 8"
    lidt idt32_pointer
    movl $ring0_top, modes_tss + 4
    movl $0x10, modes_tss + 8
    movl $104 << 16, modes_tss + 100
    movl $0x58, %eax
    ltr %ax
    movl %esp, saved_esp
    pushl $0                     /* GS, FS, DS, ES */
    pushl $0
    pushl $RESULTS / 16
    pushl $0
    pushl $0x800                 /* SS:ESP */
    pushl $0xf00
    pushl $0x20002               /* VM, IOPL 0 */
    pushl $LOW_BASE / 16
    pushl $v86 - modes_low
    iret
v86_fault:
    popl %eax
    movl %eax, %edx
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %edx, modes_v86_error
    movl 4(%esp), %eax
    movl %eax, modes_v86_code
    movl 8(%esp), %eax
    movl %eax, modes_v86_flags
    movl saved_esp, %esp
    /* Back to 64-bit mode; CR3 and CR4 have stayed. */
    long_mode_enabled
    paging_on
    ljmp $0x08, $5f
.code64
5:  flat_data
    movl %eax, %fs
    movl %eax, %gs
    lidt saved_idt
    movq saved_rsp, %rsp
    pop_kept
    ret

/* ---- Copied to LOW_BASE ---- */

.section .data
.balign 16
.global modes_low, modes_low_end
.code16
modes_low:
pm16:
    movw $0x10, %ax
    movw %ax, %fs                /* its limit of 4 GiB stays in real mode */
    movw $0x28, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $LOW_BASE - 16, %sp
    xorl %eax, %eax
    cpuid
    movl %eax, RESULTS + 0x00
    movl %cr0, %eax
    andl $~1, %eax
    movl %eax, %cr0
    ljmp $0, $LOW(real)
real:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $LOW_BASE - 16, %sp
    lidtl LOW(ivt)
    movw $LOW(on_int), 0x60 * 4
    movw $0, 0x60 * 4 + 2
    movw $LOW(on_divide), 0
    movw $0, 2
    xorl %eax, %eax
    cpuid
    movl %eax, RESULTS + 0x04
    int $0x60
    xorb %bl, %bl
    movw $1, %ax
    divb %bl
    movl $0x1b, %ecx
    rdmsr
    movl %eax, RESULTS + 0x10
    movw $(RESULTS + 0x10) / 16, %ax
    movw %ax, %es
    movw $0x1234, %es:4
    movw $0xffff, %ax
    movw %ax, %es
    movl %es:0x10, %eax
    movl %eax, RESULTS + 0x18
    movl $IOAPIC, %ebx
    addr32 movl %fs:(%ebx), %eax
    movl %eax, RESULTS + 0x1c
    movl $0x22, %eax
    addr32 movl %eax, %fs:(%ebx)
    xorl %eax, %eax
    movb $0x40, %al
    outb %al, $0x70
    inb $0x71, %al
    movl %eax, RESULTS + 0x20
    movw $RESULTS / 16, %ax
    movw %ax, %es
    movw $0x30, %di
    movw $8, %cx
    movw $0x5aa5, %ax
    cld
    rep stosw
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $pm32_again
on_int:
    incl %cs:RESULTS + 0x08
    iret
on_divide:
    incl %cs:RESULTS + 0x0c
    movw %sp, %bp
    addw $2, (%bp)
    iret
v86:
    xorl %eax, %eax
    cpuid
    movl %eax, 0x24
    movl $0x4321, 0x28
    int $0x21
.balign 4
ivt:
    .word 0x3ff
    .long 0
modes_low_end:

.section .note.GNU-stack, "", @progbits
