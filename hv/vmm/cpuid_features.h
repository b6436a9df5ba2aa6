/* SPDX-License-Identifier: MIT */
/*
 * The allow-list of CPU features: private to the CPU model. One row a feature: where CPUID shows it, its name, what it
 * depends on, and whether portable models have it. A bit without a row is never shown to a guest.
 */
#ifndef VMM_CPUID_FEATURES_H
#define VMM_CPUID_FEATURES_H

#include "vmm/cpuid_model.h"

enum cpuid_register { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

enum cpuid_need {
    NEED_HOST,         /* the host's bit */
    NEED_EMULATED,     /* nothing: the hypervisor makes it */
    NEED_X2APIC,       /* emulated, if the ability is there; so are the next two */
    NEED_TSC_DEADLINE,
    NEED_TSC_ADJUST,
    NEED_SMP,          /* emulated, if there is more than one vCPU */
    NEED_AMD,          /* the host's bit, in a model of AMD's vendor only */
    NEED_INVARIANT,    /* the host's bit and the ability; so are the rest */
    NEED_RDTSCP,
    NEED_INVPCID,
    NEED_XSAVEC,
    NEED_XSAVES,
    NEED_SPEC_CTRL,
    NEED_ARCH_CAP,
    NEED_LA57,
    NEED_XSAVE,        /* the host's bit, and XCR0 has x87 and SSE; then likewise for the components' bits */
    NEED_AVX,
    NEED_AVX512,
    NEED_PKU,
};

struct cpuid_feature {
    uint32_t leaf;
    uint8_t subleaf, reg, bit, need;
    uint8_t portable; /* first portable model that has it, 0 = none */
    const char *name;
};

extern const struct cpuid_feature cpuid_features[];
extern const unsigned cpuid_feature_count;

/*
 * Bits of IA32_ARCH_CAPABILITIES that are as true in a guest as on the host: that the CPU is not affected (0, 1, 3-6, 8,
 * 13-15, 20, 24, 26, 27, 62), that VERW clears what it is to clear (17, 28), and that return predictors may fall back on
 * others (2, 19). Controls, which would come with MSRs of their own, are not shown.
 */
#define CPUID_ARCH_CAPABILITIES_SHOWN 0x400000001d1ae17full
#define CPUID_ARCH_CAPABILITIES_RISKS (BIT(2) | BIT(19)) /* here a set bit is the warning, a clear one the promise */

/* The register of an entry, by enum cpuid_register. */
static inline uint32_t cpuid_entry_register(const struct cpuid_entry *entry, unsigned reg)
{
    return reg == REG_EAX ? entry->eax : reg == REG_EBX ? entry->ebx : reg == REG_ECX ? entry->ecx : entry->edx;
}

/* True if the ability or the XCR0 components that a row asks for are there (the host's bit is another matter). */
bool cpuid_need_met(const struct cpuid_feature *feature, const struct cpuid_abilities *abilities,
                    enum cpu_vendor vendor);
/* True if the row does not depend on the host's CPUID. */
bool cpuid_need_emulated(const struct cpuid_feature *feature);
/* All bits of a register that have a row, 0 if none: such a register is no feature register. */
uint32_t cpuid_feature_mask(uint32_t leaf, uint32_t subleaf, unsigned reg);

/* Derives what follows from the entries: slots, flags, limits, the XSAVE layout. */
void cpuid_model_index(struct cpuid_model *model);

#endif
