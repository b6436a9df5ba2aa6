/* SPDX-License-Identifier: MIT */
/*
 * Which VMX controls a CPU gets. Each capability MSR says in its low half which control bits must be 1 and in its high
 * half which may be 1 (SDM vol. 3D, A.3 to A.5). We name what we need and what we like to have; needing what is not
 * there is an error with the control's name, liking it is not. Pure: the MSR values are an argument.
 */
#include <stdio.h>

#include "vmm/vmx/vmx.h"

#define REVISION_BOCHS 0x2b /* the VMCS revision identifier by which Bochs is known */

struct control {
    uint64_t bit;
    const char *name;
};

static uint32_t must(uint64_t msr) { return (uint32_t)msr; }
static uint32_t may(uint64_t msr) { return (uint32_t)(msr >> 32); }

/* The first of the needed controls that the CPU does not allow, or NULL. */
static const char *first_missing(const struct control *needed, size_t count, uint32_t allowed)
{
    for (size_t i = 0; i < count; i++)
        if (!(needed[i].bit & allowed))
            return needed[i].name;
    return NULL;
}

static uint32_t wanted_bits(const struct control *needed, size_t count)
{
    uint32_t bits = 0;

    for (size_t i = 0; i < count; i++)
        bits |= (uint32_t)needed[i].bit;
    return bits;
}

static bool lacks(char *why, size_t why_bytes, const char *what)
{
    snprintf(why, why_bytes, "this CPU has VMX but lacks %s", what);
    return false;
}

static const struct control pin_needed[] = {
    { PIN_EXTERNAL_INTERRUPT, "external-interrupt exiting" },
    { PIN_NMI, "NMI exiting" },
    { PIN_VIRTUAL_NMI, "virtual NMIs" },
};
static const struct control processor_needed[] = {
    { CPU_TSC_OFFSET, "TSC offsetting" },
    { CPU_HLT, "HLT exiting" },
    { CPU_MWAIT, "MWAIT exiting" },
    { CPU_RDPMC, "RDPMC exiting" },
    { CPU_TPR_SHADOW, "the TPR shadow" },
    { CPU_IO, "unconditional I/O exiting" },
    { CPU_MSR_BITMAPS, "MSR bitmaps" },
    { CPU_MONITOR, "MONITOR exiting" },
    { CPU_SECONDARY, "secondary controls (EPT, unrestricted guest)" },
};
static const struct control secondary_needed[] = {
    { CPU2_EPT, "extended page tables (EPT)" },
    { CPU2_UNRESTRICTED, "unrestricted guest" },
};
static const struct control exit_needed[] = {
    { EXIT_SAVE_DEBUG, "saving of debug controls" },
    { EXIT_HOST_64, "64-bit hosts" },
    { EXIT_SAVE_PAT, "saving of IA32_PAT" },
    { EXIT_LOAD_PAT, "loading of IA32_PAT at exits" },
    { EXIT_SAVE_EFER, "saving of IA32_EFER" },
    { EXIT_LOAD_EFER, "loading of IA32_EFER at exits" },
};
static const struct control entry_needed[] = {
    { ENTRY_LOAD_DEBUG, "loading of debug controls" },
    { ENTRY_IA32E, "64-bit guests" },
    { ENTRY_LOAD_PAT, "loading of IA32_PAT at entries" },
    { ENTRY_LOAD_EFER, "loading of IA32_EFER at entries" },
};
/* Windows are switched on when they are wanted. */
static const struct control window_needed[] = {
    { CPU_INTERRUPT_WINDOW, "interrupt-window exiting" },
    { CPU_NMI_WINDOW, "NMI-window exiting" },
};
static const struct control ept_needed[] = {
    { EPT_CAP_WALK_4, "EPT with four levels" },
    { EPT_CAP_WB, "write-back EPT structures" },
    { EPT_CAP_2M, "EPT with 2 MiB pages" },
    { EPT_CAP_INVEPT, "INVEPT" },
};

#define NEED(list, allowed)                                                          \
    do {                                                                             \
        const char *missing = first_missing(list, ARRAY_COUNT(list), (allowed));     \
        if (missing)                                                                 \
            return lacks(why, why_bytes, missing);                                   \
    } while (0)

bool vmx_caps_compute(const struct vmx_msrs *msrs, struct vmx_caps *caps, struct vmm_features *features, char *why,
                      size_t why_bytes)
{
    const uint64_t ept = msrs->ept_vpid;
    const uint32_t unwanted = CPU_CR3_LOAD | CPU_CR3_STORE | CPU_CR8_LOAD | CPU_CR8_STORE | CPU_INVLPG | CPU_RDTSC |
                              CPU_MOV_DR | CPU_PAUSE;

    NEED(pin_needed, may(msrs->pin));
    NEED(processor_needed, may(msrs->processor));
    NEED(window_needed, may(msrs->processor));
    NEED(secondary_needed, may(msrs->secondary));
    NEED(exit_needed, may(msrs->exit));
    NEED(entry_needed, may(msrs->entry));
    NEED(ept_needed, (uint32_t)ept);
    if (!(ept & (EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL)))
        return lacks(why, why_bytes, "INVEPT of a context");
    if (must(msrs->processor) & unwanted)
        return lacks(why, why_bytes, "the TRUE control MSRs, without which guests cannot use CR3, CR8 or RDTSC freely");

    /* 25.6.2 and 27.2.1.1: all four, or the guest's APIC is software's alone. */
    const uint32_t assist = CPU2_APIC_ACCESS | CPU2_X2APIC | CPU2_APIC_REGISTER | CPU2_VIRTUAL_INTERRUPT;
    uint32_t liked = CPU2_RDTSCP | CPU2_WBINVD | CPU2_PAUSE_LOOP | CPU2_INVPCID | CPU2_XSAVES;
    bool vpid = (may(msrs->secondary) & CPU2_VPID) && (ept & EPT_CAP_INVVPID) &&
                (ept & (EPT_CAP_INVVPID_SINGLE | EPT_CAP_INVVPID_ALL));
    if (vpid)
        liked |= CPU2_VPID;

    *caps = (struct vmx_caps){
        .pin = must(msrs->pin) | wanted_bits(pin_needed, ARRAY_COUNT(pin_needed)) |
               (may(msrs->pin) & PIN_PREEMPTION_TIMER),
        .processor = must(msrs->processor) | wanted_bits(processor_needed, ARRAY_COUNT(processor_needed)),
        .secondary = must(msrs->secondary) | wanted_bits(secondary_needed, ARRAY_COUNT(secondary_needed)) |
                     (liked & may(msrs->secondary)),
        .secondary_allowed = may(msrs->secondary),
        .secondary_required = must(msrs->secondary),
        .exit = must(msrs->exit) | wanted_bits(exit_needed, ARRAY_COUNT(exit_needed)),
        .entry = (must(msrs->entry) | wanted_bits(entry_needed, ARRAY_COUNT(entry_needed))) & ~(uint32_t)ENTRY_IA32E,
        /* 24.8: the fixed bits; with unrestricted guest PE and PG are the guest's (A.7). */
        .cr0_set = msrs->cr0_fixed0 & ~(BIT(0) | BIT(31)),
        .cr4_set = msrs->cr4_fixed0,
        .cr4_allowed = msrs->cr4_fixed1,
        .host_cr0_set = msrs->cr0_fixed0,
        .host_cr0_allowed = msrs->cr0_fixed1,
        .eptp_bits = EPTP_WB | EPTP_WALK_4 | (ept & EPT_CAP_AD ? EPTP_AD : 0),
        .revision = (uint32_t)msrs->basic & 0x7fffffff,
        .invept_single = ept & EPT_CAP_INVEPT_SINGLE,
        .invvpid_single = ept & EPT_CAP_INVVPID_SINGLE,
        .vpid = vpid,
        .vectoring_stale = ((uint32_t)msrs->basic & 0x7fffffff) == REVISION_BOCHS,
    };
    *features = (struct vmm_features){
        .next_rip = true,
        .branch_step = true,
        .unrestricted = true,
        .vpid = vpid,
        .ept_ad = ept & EPT_CAP_AD,
        .pml = (may(msrs->secondary) & CPU2_PML) && (ept & EPT_CAP_AD),
        .preemption_timer = may(msrs->pin) & PIN_PREEMPTION_TIMER,
        .apic_register = may(msrs->secondary) & CPU2_APIC_REGISTER,
        .virtual_interrupt = may(msrs->secondary) & CPU2_VIRTUAL_INTERRUPT,
        .apic_assist = (may(msrs->secondary) & assist) == assist,
        .apic_assist_flawed = ((uint32_t)msrs->basic & 0x7fffffff) == REVISION_BOCHS,
        .posted_interrupt = may(msrs->pin) & PIN_POSTED_INTERRUPT,
        .second_stage_ad = ept & EPT_CAP_AD,
        .second_stage_1g = ept & EPT_CAP_1G,
        .tsc = { .integer_bits = 16, .fraction_bits = may(msrs->secondary) & CPU2_TSC_SCALING ? 48 : 0 },
        .rdtscp = may(msrs->secondary) & CPU2_RDTSCP,
        .invpcid = may(msrs->secondary) & CPU2_INVPCID,
        .xsaves = may(msrs->secondary) & CPU2_XSAVES,
        .asid_count = vpid ? 65536 : 0,
    };
    return true;
}
