/* SPDX-License-Identifier: MIT */
/*
 * What a guest may put into the registers that CPUID governs: derived from the CPU model (cpuid_model.h), asked by the
 * handlers of MOV to CR4, WRMSR EFER and XSETBV, and by everything that takes a register from outside (restore).
 */
#ifndef VMM_CPU_LIMITS_H
#define VMM_CPU_LIMITS_H

#include "kernel/types.h"
#include "vmm/cpu_state.h"

struct cpu_limits {
    uint64_t cr4_valid;       /* bits that the guest may set */
    uint64_t efer_valid;      /* likewise, LMA included */
    uint64_t xcr0_valid;      /* 0: the model has no XSAVE; XCR0 is then 1 */
    uint64_t xss_valid;
    uint64_t spec_ctrl_valid; /* 0: no IA32_SPEC_CTRL */
    uint8_t physical_bits;    /* of a guest physical address, 32..52 */
    uint8_t linear_bits;      /* 48, or 57 when the model has LA57 */
};

/* True if the address is canonical for the widest paging that the model has. */
static inline bool cpu_canonical(const struct cpu_limits *limits, uint64_t address)
{
    unsigned shift = 64u - limits->linear_bits;
    return (uint64_t)((int64_t)(address << shift) >> shift) == address;
}

#endif
