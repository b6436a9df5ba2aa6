/* SPDX-License-Identifier: MIT */
/*
 * Which MSRs a guest has, and what each is. Pure: a switch over the number (msr_policy), the list of registers that a
 * backend may open in its MSR bitmap (msr_open), and the state of those that are nothing but memory (MTRRs and a
 * few more: struct msr_state). What is not listed does not exist: #GP, and one line in the log for the first of each.
 */
#ifndef VMM_MSR_POLICY_H
#define VMM_MSR_POLICY_H

#include "kernel/msr.h"
#include "kernel/types.h"
#include "vm/stream.h"
#include "vmm/cpuid_model.h"

enum msr_kind {
    MSR_DENY,       /* #GP on both */
    MSR_SWITCHED,   /* a register of struct cpu_state that the backend loads and stores */
    MSR_CONSTANT,   /* reads give .value; a write is #GP, or dropped if .drop_writes */
    MSR_STORED,     /* msr_state_read and msr_state_write */
    /* Handled by the part that owns them: */
    MSR_IS_TSC,     /* the guest's TSC, and TSC_ADJUST */
    MSR_IS_APIC,    /* vlapic_msr_read, vlapic_msr_write: APIC_BASE, TSC_DEADLINE, 0x800..0x8ff */
    MSR_IS_EFER,
    MSR_IS_HYPERV,  /* hyperv_msr_read, hyperv_msr_write */
    MSR_COMMAND,    /* write only: bits of .value may be set, the rest is #GP; reads are #GP */
};

struct msr_rule {
    uint8_t kind; /* enum msr_kind */
    bool drop_writes;
    uint64_t value;
};

/* What `msr` is in this model. */
struct msr_rule msr_policy(const struct cpuid_model *model, uint32_t msr);

/*
 * Those that a backend may open in its bitmap, MSR_SWITCHED for reads and writes, MSR_COMMAND for writes, since the CPU
 * itself makes every check; ends with 0. What the VM's model has them as, msr_policy says. (XSS and DEBUGCTL are not among
 * them: the CPU would take bits that the model lacks. It does so with SPEC_CTRL too, where guest_regs.h drops them.)
 */
extern const uint32_t msr_open[];

/*
 * Reads and writes an MSR_SWITCHED register in a cpu_state, for a backend that does not open it (or a test). A write
 * checks what the CPU checks (canonical addresses, PAT types, reserved bits); false means #GP and nothing has changed.
 */
bool msr_switched_read(const struct cpu_state *state, uint32_t msr, uint64_t *value);
bool msr_switched_write(struct cpu_state *state, const struct cpu_limits *limits, uint32_t msr, uint64_t value);

/* True if EFER may become `value` now (SDM vol. 3A, 2.2.1; APM vol. 2, 3.1.7): LME not while paging, no other bits. */
bool msr_efer_ok(const struct cpu_state *state, const struct cpu_limits *limits, uint64_t value);

/* The MSRs of one vCPU that are only memory. MTRRs change nothing: the second stage decides what memory is. */
#define MTRR_VARIABLE 8u
#define MTRR_FIXED 11u
struct msr_state {
    uint64_t mtrr_def_type;
    uint64_t mtrr_base[MTRR_VARIABLE], mtrr_mask[MTRR_VARIABLE];
    uint64_t mtrr_fixed[MTRR_FIXED]; /* 0x250, 0x258, 0x259, 0x268..0x26f */
    uint64_t misc_enable, mcg_status, bios_sign_id;
};
void msr_state_reset(struct msr_state *state, const struct cpuid_model *model);
bool msr_state_read(const struct msr_state *state, const struct cpuid_model *model, uint32_t msr, uint64_t *value);
bool msr_state_write(struct msr_state *state, const struct cpuid_model *model, uint32_t msr, uint64_t value);

/*
 * Sets the MTRRs as firmware leaves them: write-back everywhere except video memory and the PCI hole (SDM vol. 3A,
 * 11.11). For direct boot, where no firmware runs; call it for every vCPU.
 */
void msr_state_firmware_mtrrs(struct msr_state *state, const struct cpuid_model *model);

/* The payload of an "MSR" section, instance = vCPU. Restore checks every value as a write does. */
#define MSR_SECTION_TAG "MSR"
#define MSR_SECTION_VERSION 1
void msr_state_save(const struct msr_state *state, struct stream_writer *w);
void msr_state_restore(struct msr_state *state, const struct cpuid_model *model, struct stream_reader *r);

#endif
