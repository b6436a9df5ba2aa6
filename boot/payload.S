/* SPDX-License-Identifier: MIT */
/* The hypervisor, as the ELF file that PAYLOAD_FILE names (the Makefile defines it). */
        .section .rodata.payload, "a"
        .globl  payload_start, payload_end
        .balign 4096
payload_start:
        .incbin PAYLOAD_FILE
payload_end:
        .section .note.GNU-stack, "", @progbits
