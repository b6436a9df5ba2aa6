/* SPDX-License-Identifier: MIT */
/*
 * Where the hypervisor meets the CPU: the entry from the loader, the entry of the other CPUs, the interrupt stubs, and
 * the switch between two kernel threads. Everything else is C.
 */
    .section .text, "ax"

/* From the loader: RDI = struct boot_info in the direct map; see boot/boot_info.h. */
    .globl _start
_start:
    cli
    cld
    leaq boot_stack_top(%rip), %rsp
    xorl %ebp, %ebp
    call hv_start
1:  hlt
    jmp 1b

/*
 * void stack_switch_and_call(void *stack_top, void (*fn)(void)): leaves the boot stack for one with a guard page.
 */
    .globl stack_switch_and_call
stack_switch_and_call:
    movq %rdi, %rsp
    xorl %ebp, %ebp
    pushq $0
    jmp *%rsi

/*
 * void thread_switch(uint64_t *save_rsp, uint64_t load_rsp): saves what the C calling convention preserves on the old
 * stack and continues the new thread where it called this, or at thread_entry.
 */
    .globl thread_switch
thread_switch:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* First code of a new thread: thread_create left the function in RBX and its argument in R12. */
    .globl thread_entry
thread_entry:
    xorl %ebp, %ebp
    movq %rbx, %rdi
    movq %r12, %rsi
    call thread_main
    ud2

/*
 * bool rdmsr_safe(uint32_t msr, uint64_t *value), bool wrmsr_safe(uint32_t msr, uint64_t value): a #GP at the marked
 * instructions continues at the fix-up (trap.c looks these addresses up).
 */
    .globl rdmsr_safe, rdmsr_safe_access, rdmsr_safe_fixup
rdmsr_safe:
    movl %edi, %ecx
rdmsr_safe_access:
    rdmsr
    shlq $32, %rdx
    movl %eax, %eax
    orq %rdx, %rax
    movq %rax, (%rsi)
    movl $1, %eax
    ret
rdmsr_safe_fixup:
    xorl %eax, %eax
    ret

    .globl wrmsr_safe, wrmsr_safe_access, wrmsr_safe_fixup
wrmsr_safe:
    movl %edi, %ecx
    movl %esi, %eax
    movq %rsi, %rdx
    shrq $32, %rdx
wrmsr_safe_access:
    wrmsr
    movl $1, %eax
    ret
wrmsr_safe_fixup:
    xorl %eax, %eax
    ret

/* One stub for each vector, 16 bytes apart; those without an error code push a zero, so that all frames look alike. */
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

    .balign 16
trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap_dispatch
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

/*
 * The other CPUs. This code is copied to a page below 1 MiB and starts there in real mode at CS:0 (SDM vol. 3A, 9.4.4).
 * The words at its end are filled in by smp.c: physical address of the page, a CR3 below 4 GiB that maps both the page
 * and the hypervisor, the stack, the struct cpu.
 */
    .section .rodata
    .balign 16
    .globl ap_start, ap_end, ap_page, ap_cr3, ap_stack, ap_cpu, ap_entry, ap_efer
    .code16
ap_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    movl ap_page - ap_start, %ebx
    leal ap_gdt - ap_start(%ebx), %eax
    movl %eax, ap_gdtr - ap_start + 2
    leal ap_long - ap_start(%ebx), %eax
    movl %eax, ap_far - ap_start
    movl $0xe0, %eax                    /* PGE | MCE | PAE */
    movl %eax, %cr4
    movl ap_cr3 - ap_start, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl ap_efer - ap_start, %eax
    wrmsr
    lgdtl ap_gdtr - ap_start
    movl $0x80010033, %eax              /* PG | WP | NE | ET | MP | PE */
    movl %eax, %cr0
    ljmpl *ap_far - ap_start
    .code64
ap_long:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    xorl %esp, %esp
    xchgq %rsp, ap_stack - ap_start(%rbx) /* taken, so that a CPU that comes late finds none */
    testq %rsp, %rsp
    jz ap_halt
    movq ap_cpu - ap_start(%rbx), %rdi
    movq ap_entry - ap_start(%rbx), %rax
    xorl %ebp, %ebp
    pushq $0
    jmp *%rax
ap_halt:
    cli
    hlt
    jmp ap_halt
    .balign 8
ap_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
ap_gdtr:
    .word 23
    .long 0
    .word 0
ap_far:
    .long 0
    .word 8
    .balign 8
ap_page:
    .quad 0
ap_cr3:
    .quad 0
ap_stack:
    .quad 0
ap_cpu:
    .quad 0
ap_entry:
    .quad 0
ap_efer:
    .quad 0
ap_end:

    .section .bss
    .balign 16
boot_stack:
    .skip 16384
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
