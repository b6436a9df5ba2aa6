/* SPDX-License-Identifier: MIT */
/*
 * The jump into the hypervisor: handoff(rdi = cr3, rsi = entry point, rdx = boot_info). loader.c copies these bytes to
 * a page that the new tables map at its own address; they run there, from before the switch to after it, so nothing in
 * them may refer to anything outside.
 *
 * EFER.NXE comes before CR3, because the new tables use the NX bit, which is reserved without it (SDM vol. 3A, 4.6).
 * CR4.PGE goes off so that no global translation of the firmware survives, and with it PCIDE (which wants CR3[11:0]
 * to be a PCID) and CET.
 */
        .section .text.handoff, "ax"
        .globl  handoff_start, handoff_end
        .balign 16
handoff_start:
        cli
        cld
        mov     %rdx, %r8
        mov     %cr4, %rax
        and     $~((1 << 7) | (1 << 17) | (1 << 23)), %rax
        mov     %rax, %cr4
        mov     $0xc0000080, %ecx               /* IA32_EFER */
        rdmsr
        or      $(1 << 11), %eax                /* NXE */
        wrmsr
        mov     %rdi, %cr3
        mov     %r8, %rdi
        jmp     *%rsi
handoff_end:
        .section .note.GNU-stack, "", @progbits
