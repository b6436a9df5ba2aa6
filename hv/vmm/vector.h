/* SPDX-License-Identifier: MIT */
/*
 * The vector state of guests (x87, SSE, AVX, AVX-512, PKRU: all that XCR0 names). The hypervisor uses general registers
 * only, so the state of the guest that ran last on a CPU stays in its registers until another vCPU comes; nearly all
 * exits leave it alone (docs/decisions/0003). A vCPU that comes from another VM also finds what the last one
 * left in predictors and buffers cleared, where CPUID says that the CPU leaks.
 */
#ifndef VMM_VECTOR_H
#define VMM_VECTOR_H

#include "kernel/cpu.h"
#include "vmm/vmm.h"

/* Whose state is in the registers, by CPU; NULL: nobody's. */
extern struct vcpu *vector_owner[CPU_MAX];

/* The CPU has XSAVEC, and it keeps what it is given; otherwise guests get neither XSAVEC nor XSAVES. */
extern bool vector_compacts;

/*
 * Once, before the first guest: has L1 flushed where a guest gets a CPU back, if the CPU leaks by it, and tries XSAVEC out.
 * The vector registers are nobody's then. Thread context.
 */
void vector_init(void);
/* Before an entry of a vCPU that is not the owner. Interrupts off. */
void vector_acquire(struct vcpu *vcpu);
/* The registers' contents go to vcpu->xsave, if they are this vCPU's. Its thread, or its CPU with interrupts off. */
void vector_release(struct vcpu *vcpu);

/*
 * Brings vcpu->state.xcr0 up to date where the vCPU's registers are in the CPU: QEMU 7.2 knows no intercept of XSETBV, so
 * that a guest may have written XCR0 by itself. The vCPU's own thread, or its CPU with interrupts off.
 */
void vector_find_xcr0(struct vcpu *vcpu);
/* XCR0 of the guest; the value has been checked. The vCPU's own thread. */
void vcpu_set_xcr0(struct vcpu *vcpu, uint64_t value);

/*
 * Vector register 0 to 15 as the emulator wants it (emulate.h): 64 bytes, what the guest's XCR0 leaves out reads 0 and
 * is dropped. The vCPU's own thread.
 */
bool vector_read(struct vcpu *vcpu, unsigned index, uint8_t bytes[64]);
bool vector_write(struct vcpu *vcpu, unsigned index, const uint8_t bytes[64]);
/* PKRU of the guest, 0 where it has none. */
uint32_t vector_pkru(struct vcpu *vcpu);

#endif
