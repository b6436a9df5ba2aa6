/* SPDX-License-Identifier: MIT */
/*
 * What a CPU that leaks by speculation has done around each run of a guest: see vmm/guard.c, which patches the world
 * switches to come through here. A CPU that does not need it never does, and pays nothing.
 *
 * ON_EXIT functions take the place of the jump to NAME_after_exit: the guest's registers have been saved and the host's
 * restored, RDI is the argument, and neither a RET nor an indirect or conditional branch has been executed since the
 * exit. They have none before the barrier either: each is for one need, so that there is nothing to decide.
 */
    .section .text

    .macro barrier                  /* IBPB: nothing that the guest has taught predictors of branches is used any more */
    movl $0x49, %ecx
    movl $1, %eax
    xorl %edx, %edx
    wrmsr
    .endm

    /* Return addresses of the hypervisor in all places of the return stack. INT3 stops who follows one speculatively. */
    .macro fill
    .rept 32
    call 1f
    int3
1:
    .endr
    addq $32 * 8, %rsp
    lfence
    .endm

    /* A CALL and a barrier: the first RET is not predicted from behind the guest's last (PBRSB). */
    .macro one_return
    call 1f
    int3
1:
    addq $8, %rsp
    lfence
    .endm

    .macro on_exit name after
    .globl \name\()_exit_\after
    .type \name\()_exit_\after, @function
    .balign 16
\name\()_exit_\after:
    .endm

    .macro guards name
    on_exit \name barrier
    barrier
    fill
    jmp \name\()_after_exit
    .size \name\()_exit_barrier, . - \name\()_exit_barrier

    on_exit \name fill
    fill
    jmp \name\()_after_exit
    .size \name\()_exit_fill, . - \name\()_exit_fill

    on_exit \name return
    one_return
    jmp \name\()_after_exit
    .size \name\()_exit_return, . - \name\()_exit_return

    /* In place of NAME_prepare, with its arguments and results: VERW clears buffers last, before the guest's registers. */
    .globl \name\()_entry_clear
    .type \name\()_entry_clear, @function
    .balign 16
\name\()_entry_clear:
    subq $8, %rsp
    call \name\()_prepare
    verw selector(%rip)
    addq $8, %rsp
    ret
    .size \name\()_entry_clear, . - \name\()_entry_clear
    .endm

    guards svm
    guards vmx

    .section .rodata
    .balign 2
selector:
    .word 0x10                      /* SEL_KERNEL_DS: VERW of a selector that is not valid may not clear anything */

    .section .note.GNU-stack, "", @progbits
