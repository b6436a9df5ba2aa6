/* SPDX-License-Identifier: MIT */
/*
 * Which MSRs a guest has (msr_policy.h). Numbers and names are those of the SDM (vol. 4) and the APM (vol. 2, appendix
 * A). The list is what unmodified systems touch without asking CPUID first, plus what CPUID promises; a register that
 * an operating system probes with a handler for #GP is better left out than half there.
 */
#include "vmm/msr_policy.h"

#include <string.h>

#include "kernel/index_mask.h"
#include "vmm/vmm.h"

#define RULE(k, ...) (struct msr_rule){ .kind = (k), __VA_ARGS__ }

/* MCG_CAP without banks; MTRRCAP: 8 variable ranges, fixed ranges, write-combining. */
#define MCG_CAP_VALUE 0u
#define MTRRCAP_VALUE (MTRR_VARIABLE | BIT(8) | BIT(10))
/* IA32_MISC_ENABLE: fast strings on; BTS and PEBS unavailable. The guest may change bit 0 only. */
#define MISC_ENABLE_RESET (BIT(0) | BIT(11) | BIT(12))
#define MISC_ENABLE_WRITABLE BIT(0)
/* HWCR: the TSC counts at the P0 rate (bit 24); SMM is locked (bit 0). DE_CFG: LFENCE serializes (bit 1). */
#define HWCR_VALUE (BIT(24) | BIT(0))
#define DE_CFG_VALUE BIT(1)
#define MICROCODE_REVISION (0xffffffffull << 32) /* newer than any that a kernel might miss */

/* Not PAT, which is written a few times in a guest's life: QEMU 7.2 has one for host and guests (APM vol. 2, 15.25.4). */
const uint32_t msr_open[] = {
    MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK, MSR_TSC_AUX,
    MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_SPEC_CTRL, MSR_PRED_CMD, MSR_FLUSH_CMD, 0,
};

/* Registers that only CPUs of one vendor have; a vendor that is neither gets both sets. */
static struct msr_rule vendor_policy(const struct cpuid_model *m, uint32_t msr)
{
    bool amd = m->vendor != CPU_VENDOR_INTEL, intel = m->vendor != CPU_VENDOR_AMD;
    switch (msr) {
    case MSR_PLATFORM_ID:
    case MSR_EBL_CR_POWERON:
        return intel ? RULE(MSR_CONSTANT) : RULE(MSR_DENY);
    case MSR_FEATURE_CONTROL: /* locked, VMX off */
        return intel ? RULE(MSR_CONSTANT, .value = 1) : RULE(MSR_DENY);
    case MSR_PERF_STATUS:
    case MSR_PLATFORM_INFO: /* the ratio of the TSC to 100 MHz */
        return intel ? RULE(MSR_CONSTANT, .value = (uint64_t)(m->tsc_khz / 100000 & 0xff) << 8) : RULE(MSR_DENY);
    case MSR_MISC_FEATURES: /* no CPUID faulting: only 0 can be written */
        return intel ? RULE(MSR_CONSTANT, .drop_writes = true) : RULE(MSR_DENY);
    case MSR_MISC_ENABLE:
        return intel ? RULE(MSR_STORED) : RULE(MSR_DENY);
    case MSR_BIOS_UPDT_TRIG: /* a guest that loads microcode is thanked, and ignored */
        return intel ? RULE(MSR_COMMAND, .value = UINT64_MAX) : RULE(MSR_DENY);
    case MSR_ARCH_CAPABILITIES:
        return cpuid_find(m, 7, 0)->edx & BIT(29) ? RULE(MSR_CONSTANT, .value = m->arch_capabilities) : RULE(MSR_DENY);
    case MSR_AMD_SYSCFG:
    case MSR_AMD_CLK_CTL:
    case MSR_AMD_NB_CFG: /* Linux turns on extended configuration space by CF8 here, and lives without */
    case MSR_AMD_MMIO_CONF_BASE:
    case MSR_AMD_DC_CFG:
    case MSR_AMD_BU_CFG2:
    case MSR_AMD_EX_CFG:
    case MSR_AMD_INT_PENDING:
    case MSR_AMD_PSTATE_LIMIT:
    case MSR_AMD_PSTATE_CONTROL:
    case MSR_AMD_PSTATE_STATUS:
        return amd ? RULE(MSR_CONSTANT, .drop_writes = true) : RULE(MSR_DENY);
    case MSR_AMD_HWCR:
        return amd ? RULE(MSR_CONSTANT, .value = HWCR_VALUE, .drop_writes = true) : RULE(MSR_DENY);
    case MSR_AMD_DE_CFG:
        return amd ? RULE(MSR_CONSTANT, .value = DE_CFG_VALUE, .drop_writes = true) : RULE(MSR_DENY);
    case MSR_AMD_PATCH_LOADER:
        return amd ? RULE(MSR_COMMAND, .value = UINT64_MAX) : RULE(MSR_DENY);
    default:
        return RULE(MSR_DENY);
    }
}

struct msr_rule msr_policy(const struct cpuid_model *m, uint32_t msr)
{
    switch (msr) {
    case MSR_TSC:
        return RULE(MSR_IS_TSC);
    case MSR_TSC_ADJUST:
        return cpuid_find(m, 7, 0)->ebx & BIT(1) ? RULE(MSR_IS_TSC) : RULE(MSR_DENY);
    case MSR_APIC_BASE:
        return RULE(MSR_IS_APIC);
    case MSR_TSC_DEADLINE:
        return cpuid_find(m, 1, 0)->ecx & BIT(24) ? RULE(MSR_IS_APIC) : RULE(MSR_DENY);
    case MSR_X2APIC_FIRST ... MSR_X2APIC_LAST:
        return cpuid_find(m, 1, 0)->ecx & BIT(21) ? RULE(MSR_IS_APIC) : RULE(MSR_DENY);
    case MSR_HYPERV_FIRST ... MSR_HYPERV_LAST:
        return RULE(MSR_IS_HYPERV);
    case MSR_EFER:
        return RULE(MSR_IS_EFER);
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
    case MSR_STAR:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_FMASK:
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
    case MSR_PAT:
    case MSR_DEBUGCTL:
        return RULE(MSR_SWITCHED);
    case MSR_TSC_AUX:
        return cpuid_instructions(m) & INSTRUCTION_RDTSCP ? RULE(MSR_SWITCHED) : RULE(MSR_DENY);
    case MSR_XSS:
        return cpuid_instructions(m) & INSTRUCTION_XSAVES ? RULE(MSR_SWITCHED) : RULE(MSR_DENY);
    case MSR_SPEC_CTRL:
        return m->limits.spec_ctrl_valid ? RULE(MSR_SWITCHED) : RULE(MSR_DENY);
    case MSR_PRED_CMD: /* IBPB, SBPB */
        return cpuid_find(m, 7, 0)->edx & BIT(26) || cpuid_find(m, 0x80000008, 0)->ebx & BIT(12)
                   ? RULE(MSR_COMMAND, .value = 1 | (cpuid_find(m, 0x80000021, 0)->eax & BIT(27) ? BIT(7) : 0))
                   : RULE(MSR_DENY);
    case MSR_FLUSH_CMD: /* the L1 data cache */
        return cpuid_find(m, 7, 0)->edx & BIT(28) ? RULE(MSR_COMMAND, .value = 1) : RULE(MSR_DENY);
    case MSR_MTRRCAP:
        return RULE(MSR_CONSTANT, .value = MTRRCAP_VALUE);
    case MSR_MCG_CAP:
        return RULE(MSR_CONSTANT, .value = MCG_CAP_VALUE);
    case MSR_MCG_STATUS:
    case MSR_BIOS_SIGN_ID: /* AMD: PATCH_LEVEL */
    case MSR_MTRR_DEF_TYPE:
    case MSR_MTRR_PHYSBASE0 ... MSR_MTRR_PHYSBASE0 + 2 * MTRR_VARIABLE - 1:
    case MSR_MTRR_FIX64K:
    case 0x258 ... 0x259:
    case 0x268 ... 0x26f:
        return RULE(MSR_STORED);
    default:
        return vendor_policy(m, msr);
    }
}

/* ---- Registers of struct cpu_state ---- */

bool msr_switched_read(const struct cpu_state *s, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_FS_BASE: *value = s->seg[SEG_FS].base; return true;
    case MSR_GS_BASE: *value = s->seg[SEG_GS].base; return true;
    case MSR_KERNEL_GS_BASE: *value = s->kernel_gs_base; return true;
    case MSR_STAR: *value = s->star; return true;
    case MSR_LSTAR: *value = s->lstar; return true;
    case MSR_CSTAR: *value = s->cstar; return true;
    case MSR_FMASK: *value = s->fmask; return true;
    case MSR_TSC_AUX: *value = s->tsc_aux; return true;
    case MSR_SYSENTER_CS: *value = s->sysenter_cs; return true;
    case MSR_SYSENTER_ESP: *value = s->sysenter_esp; return true;
    case MSR_SYSENTER_EIP: *value = s->sysenter_eip; return true;
    case MSR_PAT: *value = s->pat; return true;
    case MSR_DEBUGCTL: *value = s->debugctl; return true;
    case MSR_XSS: *value = s->xss; return true;
    case MSR_SPEC_CTRL: *value = s->spec_ctrl; return true;
    default: return false;
    }
}

/* UC, WC, WT, WP, WB; and UC- in PAT only (SDM vol. 3A, tables 11-8 and 11-10). */
static bool memory_type_ok(uint64_t type)
{
    return type == 0 || type == 1 || type == 4 || type == 5 || type == 6;
}

static bool pat_ok(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++, pat >>= 8)
        if (!memory_type_ok(pat & 0xff) && (pat & 0xff) != 7)
            return false;
    return true;
}

static bool set(uint64_t *field, uint64_t value, bool ok)
{
    if (ok)
        *field = value;
    return ok;
}

bool msr_switched_write(struct cpu_state *s, const struct cpu_limits *limits, uint32_t msr, uint64_t value)
{
    bool canonical = cpu_canonical(limits, value), word = value <= UINT32_MAX;
    switch (msr) {
    case MSR_FS_BASE: return set(&s->seg[SEG_FS].base, value, canonical);
    case MSR_GS_BASE: return set(&s->seg[SEG_GS].base, value, canonical);
    case MSR_KERNEL_GS_BASE: return set(&s->kernel_gs_base, value, canonical);
    case MSR_STAR: return set(&s->star, value, true);
    case MSR_LSTAR: return set(&s->lstar, value, canonical);
    case MSR_CSTAR: return set(&s->cstar, value, canonical);
    case MSR_FMASK: return set(&s->fmask, value, word);
    case MSR_TSC_AUX: return set(&s->tsc_aux, value, word);
    /* Bits 63:32 are ignored (SDM) or not there (APM). */
    case MSR_SYSENTER_CS: return set(&s->sysenter_cs, value & UINT32_MAX, true);
    case MSR_SYSENTER_ESP: return set(&s->sysenter_esp, value, canonical);
    case MSR_SYSENTER_EIP: return set(&s->sysenter_eip, value, canonical);
    case MSR_PAT: return set(&s->pat, value, pat_ok(value));
    /* LBR and BTF: LBR is accepted and counts nothing. */
    case MSR_DEBUGCTL: return set(&s->debugctl, value & BIT(1), !(value & ~(BIT(0) | BIT(1))));
    case MSR_XSS: return set(&s->xss, value, !(value & ~limits->xss_valid));
    case MSR_SPEC_CTRL: return set(&s->spec_ctrl, value, !(value & ~limits->spec_ctrl_valid));
    default: return false;
    }
}

bool msr_efer_ok(const struct cpu_state *s, const struct cpu_limits *limits, uint64_t value)
{
    if (value & ~limits->efer_valid)
        return false;
    return !((value ^ s->efer) & EFER_LME) || !(s->cr0 & CR0_PG);
}

/* ---- Registers that are only memory ---- */

/* Index of a fixed-range MTRR, in the order of their numbers. */
static int fixed_index(uint32_t msr)
{
    if (msr == MSR_MTRR_FIX64K)
        return 0;
    if (msr == 0x258 || msr == 0x259)
        return (int)index_mask(msr - 0x258 + 1, MTRR_FIXED);
    return msr >= 0x268 && msr <= 0x26f ? (int)index_mask(msr - 0x268 + 3, MTRR_FIXED) : -1;
}

void msr_state_reset(struct msr_state *state, const struct cpuid_model *model)
{
    (void)model;
    memset(state, 0, sizeof(*state));
    state->misc_enable = MISC_ENABLE_RESET;
    state->bios_sign_id = MICROCODE_REVISION;
}

bool msr_state_read(const struct msr_state *state, const struct cpuid_model *model, uint32_t msr, uint64_t *value)
{
    uint32_t variable = msr - MSR_MTRR_PHYSBASE0;
    int fixed = fixed_index(msr);
    if (msr_policy(model, msr).kind != MSR_STORED)
        return false;
    if (variable < 2 * MTRR_VARIABLE) {
        variable = (uint32_t)index_mask(variable, 2 * MTRR_VARIABLE);
        *value = variable & 1 ? state->mtrr_mask[variable / 2] : state->mtrr_base[variable / 2];
    } else if (fixed >= 0)
        *value = state->mtrr_fixed[fixed];
    else if (msr == MSR_MTRR_DEF_TYPE)
        *value = state->mtrr_def_type;
    else if (msr == MSR_MISC_ENABLE)
        *value = state->misc_enable;
    else if (msr == MSR_MCG_STATUS)
        *value = state->mcg_status;
    else
        *value = model->vendor == CPU_VENDOR_AMD ? state->bios_sign_id >> 32 : state->bios_sign_id;
    return true;
}

static bool write_variable(struct msr_state *state, const struct cpuid_model *model, uint32_t index, uint64_t value)
{
    uint64_t physical = BIT(model->limits.physical_bits) - 1;
    if (index & 1) {
        if (value & ~(physical & ~0x7ffull)) /* mask, and valid in bit 11 (SDM vol. 3A, figure 11-7) */
            return false;
        state->mtrr_mask[index / 2] = value;
        return true;
    }
    if ((value & ~physical) || (value & 0xf00) || !memory_type_ok(value & 0xff))
        return false;
    state->mtrr_base[index / 2] = value;
    return true;
}

bool msr_state_write(struct msr_state *state, const struct cpuid_model *model, uint32_t msr, uint64_t value)
{
    uint32_t variable = msr - MSR_MTRR_PHYSBASE0;
    int fixed = fixed_index(msr);
    if (msr_policy(model, msr).kind != MSR_STORED)
        return false;
    if (variable < 2 * MTRR_VARIABLE)
        return write_variable(state, model, (uint32_t)index_mask(variable, 2 * MTRR_VARIABLE), value);
    if (fixed >= 0) {
        for (unsigned i = 0; i < 8; i++)
            if (!memory_type_ok(value >> (8 * i) & 0xff))
                return false;
        state->mtrr_fixed[fixed] = value;
        return true;
    }
    switch (msr) {
    case MSR_MTRR_DEF_TYPE:
        return set(&state->mtrr_def_type, value, !(value & ~0xcffull) && memory_type_ok(value & 0xff));
    case MSR_MISC_ENABLE:
        state->misc_enable = (state->misc_enable & ~MISC_ENABLE_WRITABLE) | (value & MISC_ENABLE_WRITABLE);
        return true;
    case MSR_MCG_STATUS:
        return set(&state->mcg_status, value, !(value & ~7ull));
    case MSR_BIOS_SIGN_ID: /* Intel kernels write 0, execute CPUID and read the revision: it stays */
        return true;
    default:
        return false;
    }
}

void msr_state_firmware_mtrrs(struct msr_state *state, const struct cpuid_model *model)
{
    enum { WRITE_BACK = 6 };
    uint64_t physical = BIT(model->limits.physical_bits) - 1;
    for (unsigned i = 0; i < MTRR_FIXED; i++)
        state->mtrr_fixed[i] = WRITE_BACK * 0x0101010101010101ull;
    state->mtrr_fixed[2] = 0; /* 0x259: 0xa0000 to 0xbffff, video memory: uncached */
    /* 3 GiB to 4 GiB: uncached. */
    state->mtrr_base[0] = 0xc0000000;
    state->mtrr_mask[0] = (physical & ~0x3fffffffull) | BIT(11);
    state->mtrr_def_type = BIT(11) | BIT(10) | WRITE_BACK;
}

/* ---- Stream ---- */

/* The registers by number, in the order of the stream. */
static const uint32_t stored_msrs[] = {
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, MSR_MTRR_DEF_TYPE, MSR_MCG_STATUS,
};

/* Where a register of that list lies; written and read without the model's view of it. */
static uint64_t *stored_field(struct msr_state *state, uint32_t msr)
{
    uint32_t variable = msr - MSR_MTRR_PHYSBASE0;
    if (variable < 2 * MTRR_VARIABLE)
        return variable & 1 ? &state->mtrr_mask[variable / 2] : &state->mtrr_base[variable / 2];
    if (msr == MSR_MTRR_DEF_TYPE)
        return &state->mtrr_def_type;
    return msr == MSR_MCG_STATUS ? &state->mcg_status : &state->mtrr_fixed[fixed_index(msr)];
}

void msr_state_save(const struct msr_state *state, struct stream_writer *w)
{
    struct msr_state copy = *state;
    for (unsigned i = 0; i < ARRAY_COUNT(stored_msrs); i++)
        stream_put_u64(w, *stored_field(&copy, stored_msrs[i]));
    stream_put_u64(w, state->misc_enable);
    stream_put_u64(w, state->bios_sign_id);
}

void msr_state_restore(struct msr_state *state, const struct cpuid_model *model, struct stream_reader *r)
{
    msr_state_reset(state, model);
    if (!r->error && r->version != MSR_SECTION_VERSION)
        stream_fail(r, ERR_VERSION, "version %u, this node reads %u: update it", r->version, MSR_SECTION_VERSION);
    for (unsigned i = 0; i < ARRAY_COUNT(stored_msrs); i++) {
        uint64_t value = stream_get_u64(r);
        if (!r->error && !msr_state_write(state, model, stored_msrs[i], value))
            stream_fail(r, ERR_CORRUPT, "MSR 0x%x cannot be 0x%llx", stored_msrs[i], (unsigned long long)value);
    }
    uint64_t misc_enable = stream_get_u64(r);
    if (!r->error && (misc_enable & ~MISC_ENABLE_WRITABLE) != (MISC_ENABLE_RESET & ~MISC_ENABLE_WRITABLE))
        stream_fail(r, ERR_CORRUPT, "MSR 0x1a0 cannot be 0x%llx", (unsigned long long)misc_enable);
    state->misc_enable = misc_enable;
    state->bios_sign_id = stream_get_u64(r);
}
