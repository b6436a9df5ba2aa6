/* SPDX-License-Identifier: MIT */
/* Exceptions and interrupts of the host CPU: the IDT and who gets called. */
#ifndef KERNEL_TRAP_H
#define KERNEL_TRAP_H

#include "kernel/types.h"

/* Vectors of our own, above what the IOAPIC gives to devices. */
#define VECTOR_DEVICE_FIRST 0x30
#define VECTOR_DEVICE_LAST 0xdf
#define VECTOR_CALL 0xf1       /* run a function on this CPU */
#define VECTOR_KICK 0xf2       /* leave the guest, look at requests and the run queue */
#define VECTOR_TIMER 0xf3
#define VECTOR_SPURIOUS 0xff

/* What the stubs of entry.S leave on the stack. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Fills the IDT; boot CPU, once. */
void trap_init(void);
/* Loads GDT, TSS and IDT of a CPU with its stacks for NMI, #DF and #MC, and sets GS. On that CPU. */
struct cpu;
bool trap_cpu_init(struct cpu *cpu) MUST_CHECK;

/* Registers a handler; it runs with interrupts off and must not wait. The EOI is sent after it. */
void trap_set_handler(uint8_t vector, void (*handler)(void *arg), void *arg);
/* A free device vector, or 0. */
uint8_t trap_alloc_vector(void);

#endif
