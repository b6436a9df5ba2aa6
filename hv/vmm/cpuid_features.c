/* SPDX-License-Identifier: MIT */
/*
 * The allow-list (cpuid_features.h). Bits and names are those of the SDM (vol. 2A, CPUID) and the APM (vol. 3, appendix
 * E).
 *
 * In: instructions that work in a guest without help, and what is emulated whole. Out, and why:
 *   MONITOR, WAITPKG, MWAITX   a guest must not put a CPU to sleep; HLT does
 *   VMX, SVM, SMX, SKINIT      no nested virtualization
 *   PMU, DS, PT, LBR, IBS, LWP, PERFCTR   counters and traces of the host are not switched
 *   SGX, TME, SME, SEV, KL     no enclaves or keys
 *   MPX, HLE, RTM              withdrawn by their makers; TSX aborts leak
 *   CET, PKS, AMX, XFD, UINTR  state that is not switched
 *   RDT, thermal, P-states     they steer the host
 *   OSVW, NODEID_MSR           MSRs of the host's errata and topology
 *   ENQCMD, BUS_LOCK_DETECT    need PASIDs or DEBUGCTL bits
 *   3DNow!                     gone from CPUs since 2010
 */
#include "vmm/cpuid_features.h"

#define B(l, s, r, b, n) { l, s, REG_##r, b, NEED_HOST, 0, n }        /* from the host */
#define P(l, s, r, b, n) { l, s, REG_##r, b, NEED_HOST, 1, n }        /* likewise, and portable */
#define N(l, s, r, b, need, n) { l, s, REG_##r, b, NEED_##need, 0, n }
#define M(l, s, r, b, need, n) { l, s, REG_##r, b, NEED_##need, 1, n } /* with a need, and portable */

const struct cpuid_feature cpuid_features[] = {
    P(1, 0, EDX, 0, "fpu"), B(1, 0, EDX, 1, "vme"), P(1, 0, EDX, 2, "de"), P(1, 0, EDX, 3, "pse"),
    P(1, 0, EDX, 4, "tsc"),
    P(1, 0, EDX, 5, "msr"), P(1, 0, EDX, 6, "pae"), P(1, 0, EDX, 8, "cx8"), P(1, 0, EDX, 11, "sep"),
    P(1, 0, EDX, 13, "pge"), P(1, 0, EDX, 15, "cmov"), P(1, 0, EDX, 16, "pat"), P(1, 0, EDX, 17, "pse36"),
    P(1, 0, EDX, 19, "clflush"), P(1, 0, EDX, 23, "mmx"), P(1, 0, EDX, 24, "fxsr"), P(1, 0, EDX, 25, "sse"),
    P(1, 0, EDX, 26, "sse2"), B(1, 0, EDX, 27, "ss"),
    /* Machine checks: no banks, but the handler may be set up. MTRRs and the APIC are emulated. */
    M(1, 0, EDX, 7, EMULATED, "mce"), M(1, 0, EDX, 9, EMULATED, "apic"), M(1, 0, EDX, 12, EMULATED, "mtrr"),
    M(1, 0, EDX, 14, EMULATED, "mca"), M(1, 0, EDX, 28, SMP, "htt"),

    P(1, 0, ECX, 0, "sse3"), P(1, 0, ECX, 1, "pclmulqdq"), P(1, 0, ECX, 9, "ssse3"), P(1, 0, ECX, 13, "cx16"),
    P(1, 0, ECX, 19, "sse4.1"), P(1, 0, ECX, 20, "sse4.2"), P(1, 0, ECX, 23, "popcnt"), P(1, 0, ECX, 25, "aes"),
    B(1, 0, ECX, 17, "pcid"), B(1, 0, ECX, 22, "movbe"), B(1, 0, ECX, 30, "rdrand"),
    M(1, 0, ECX, 21, X2APIC, "x2apic"), M(1, 0, ECX, 24, TSC_DEADLINE, "tsc-deadline"),
    M(1, 0, ECX, 31, EMULATED, "hypervisor"),
    N(1, 0, ECX, 26, XSAVE, "xsave"), N(1, 0, ECX, 12, AVX, "fma"), N(1, 0, ECX, 28, AVX, "avx"),
    N(1, 0, ECX, 29, AVX, "f16c"),

    /* The virtual APIC timer never stops. */
    M(6, 0, EAX, 2, EMULATED, "arat"),

    B(7, 0, EBX, 0, "fsgsbase"), N(7, 0, EBX, 1, TSC_ADJUST, "tsc-adjust"), B(7, 0, EBX, 3, "bmi1"),
    N(7, 0, EBX, 5, AVX, "avx2"), B(7, 0, EBX, 6, "fdp-excptn-only"), B(7, 0, EBX, 7, "smep"), B(7, 0, EBX, 8, "bmi2"),
    B(7, 0, EBX, 9, "erms"), N(7, 0, EBX, 10, INVPCID, "invpcid"), B(7, 0, EBX, 13, "zero-fcs-fds"),
    N(7, 0, EBX, 16, AVX512, "avx512f"), N(7, 0, EBX, 17, AVX512, "avx512dq"), B(7, 0, EBX, 18, "rdseed"),
    B(7, 0, EBX, 19, "adx"), B(7, 0, EBX, 20, "smap"), N(7, 0, EBX, 21, AVX512, "avx512ifma"),
    B(7, 0, EBX, 23, "clflushopt"), B(7, 0, EBX, 24, "clwb"), N(7, 0, EBX, 26, AVX512, "avx512pf"),
    N(7, 0, EBX, 27, AVX512, "avx512er"), N(7, 0, EBX, 28, AVX512, "avx512cd"), B(7, 0, EBX, 29, "sha"),
    N(7, 0, EBX, 30, AVX512, "avx512bw"), N(7, 0, EBX, 31, AVX512, "avx512vl"),

    B(7, 0, ECX, 0, "prefetchwt1"), N(7, 0, ECX, 1, AVX512, "avx512vbmi"), B(7, 0, ECX, 2, "umip"),
    N(7, 0, ECX, 3, PKU, "pku"), N(7, 0, ECX, 6, AVX512, "avx512vbmi2"), B(7, 0, ECX, 8, "gfni"),
    N(7, 0, ECX, 9, AVX, "vaes"), N(7, 0, ECX, 10, AVX, "vpclmulqdq"), N(7, 0, ECX, 11, AVX512, "avx512vnni"),
    N(7, 0, ECX, 12, AVX512, "avx512bitalg"), N(7, 0, ECX, 14, AVX512, "avx512vpopcntdq"),
    N(7, 0, ECX, 16, LA57, "la57"),
    N(7, 0, ECX, 22, RDTSCP, "rdpid"), B(7, 0, ECX, 25, "cldemote"), B(7, 0, ECX, 27, "movdiri"),
    B(7, 0, ECX, 28, "movdir64b"),

    N(7, 0, EDX, 2, AVX512, "avx512-4vnniw"), N(7, 0, EDX, 3, AVX512, "avx512-4fmaps"), B(7, 0, EDX, 4, "fsrm"),
    N(7, 0, EDX, 8, AVX512, "avx512-vp2intersect"), B(7, 0, EDX, 10, "md-clear"), B(7, 0, EDX, 14, "serialize"),
    N(7, 0, EDX, 23, AVX512, "avx512-fp16"), N(7, 0, EDX, 26, SPEC_CTRL, "spec-ctrl"),
    N(7, 0, EDX, 27, SPEC_CTRL, "stibp"), N(7, 0, EDX, 28, SPEC_CTRL, "flush-l1d"),
    N(7, 0, EDX, 29, ARCH_CAP, "arch-capabilities"),
    N(7, 0, EDX, 31, SPEC_CTRL, "ssbd"),

    N(7, 1, EAX, 4, AVX, "avx-vnni"), N(7, 1, EAX, 5, AVX512, "avx512-bf16"), B(7, 1, EAX, 10, "fzrm"),
    B(7, 1, EAX, 11, "fsrs"), B(7, 1, EAX, 12, "fsrc"), N(7, 1, EAX, 23, AVX, "avx-ifma"),
    N(7, 1, EDX, 4, AVX, "avx-vnni-int8"), N(7, 1, EDX, 5, AVX, "avx-ne-convert"),
    N(7, 2, EDX, 0, SPEC_CTRL, "intel-psfd"), N(7, 2, EDX, 1, SPEC_CTRL, "ipred-ctrl"),
    N(7, 2, EDX, 2, SPEC_CTRL, "rrsba-ctrl"), N(7, 2, EDX, 3, SPEC_CTRL, "ddpd-u"),
    N(7, 2, EDX, 4, SPEC_CTRL, "bhi-ctrl"),
    B(7, 2, EDX, 5, "mcdt-no"),

    N(0xd, 1, EAX, 0, XSAVE, "xsaveopt"), N(0xd, 1, EAX, 1, XSAVEC, "xsavec"), N(0xd, 1, EAX, 2, XSAVE, "xgetbv1"),
    N(0xd, 1, EAX, 3, XSAVES, "xsaves"),

    P(0x80000001, 0, ECX, 0, "lahf"), N(0x80000001, 0, ECX, 1, SMP, "cmp-legacy"), B(0x80000001, 0, ECX, 5, "lzcnt"),
    N(0x80000001, 0, ECX, 6, AMD, "sse4a"), N(0x80000001, 0, ECX, 7, AMD, "misalignsse"),
    B(0x80000001, 0, ECX, 8, "prefetchw"), N(0x80000001, 0, ECX, 11, AVX, "xop"),
    N(0x80000001, 0, ECX, 16, AVX, "fma4"),
    N(0x80000001, 0, ECX, 21, AMD, "tbm"), N(0x80000001, 0, ECX, 22, AMD, "topoext"),
    P(0x80000001, 0, EDX, 11, "syscall"), P(0x80000001, 0, EDX, 20, "nx"), N(0x80000001, 0, EDX, 22, AMD, "mmxext"),
    N(0x80000001, 0, EDX, 25, AMD, "fxsr-opt"), B(0x80000001, 0, EDX, 26, "pdpe1gb"),
    M(0x80000001, 0, EDX, 27, RDTSCP, "rdtscp"), P(0x80000001, 0, EDX, 29, "lm"),

    N(0x80000007, 0, EDX, 8, INVARIANT, "invariant-tsc"),

    N(0x80000008, 0, EBX, 0, AMD, "clzero"), N(0x80000008, 0, EBX, 2, AMD, "xsaveerptr"),
    B(0x80000008, 0, EBX, 9, "wbnoinvd"),
    N(0x80000008, 0, EBX, 12, SPEC_CTRL, "ibpb"), N(0x80000008, 0, EBX, 14, SPEC_CTRL, "ibrs"),
    N(0x80000008, 0, EBX, 15, SPEC_CTRL, "amd-stibp"), N(0x80000008, 0, EBX, 16, SPEC_CTRL, "ibrs-always-on"),
    N(0x80000008, 0, EBX, 17, SPEC_CTRL, "stibp-always-on"), N(0x80000008, 0, EBX, 18, SPEC_CTRL, "ibrs-preferred"),
    N(0x80000008, 0, EBX, 19, SPEC_CTRL, "ibrs-same-mode"), N(0x80000008, 0, EBX, 24, SPEC_CTRL, "amd-ssbd"),
    N(0x80000008, 0, EBX, 26, AMD, "ssb-no"),
    N(0x80000008, 0, EBX, 28, SPEC_CTRL, "psfd"), N(0x80000008, 0, EBX, 29, AMD, "btc-no"),
    N(0x80000008, 0, EBX, 30, SPEC_CTRL, "ibpb-ret"),
    N(0x80000021, 0, EAX, 0, AMD, "no-nested-data-bp"), N(0x80000021, 0, EAX, 2, AMD, "lfence-serializing"),
    N(0x80000021, 0, EAX, 6, AMD, "null-sel-clears-base"), N(0x80000021, 0, EAX, 8, AMD, "automatic-ibrs"),
    N(0x80000021, 0, EAX, 27, SPEC_CTRL, "sbpb"), N(0x80000021, 0, EAX, 28, SPEC_CTRL, "ibpb-brtype"),
    N(0x80000021, 0, EAX, 29, AMD, "srso-no"), N(0x80000021, 0, EAX, 30, AMD, "srso-user-kernel-no"),
};
const unsigned cpuid_feature_count = ARRAY_COUNT(cpuid_features);

bool cpuid_need_emulated(const struct cpuid_feature *feature)
{
    return feature->need >= NEED_EMULATED && feature->need <= NEED_SMP;
}

bool cpuid_need_met(const struct cpuid_feature *feature, const struct cpuid_abilities *a, enum cpu_vendor vendor)
{
    enum { X87_SSE = 3, AVX = 7, AVX512 = 0xe7 };
    uint64_t xcr0 = a->xcr0;
    switch ((enum cpuid_need)feature->need) {
    case NEED_HOST:
    case NEED_EMULATED:
        return true;
    case NEED_X2APIC:
        return a->x2apic;
    case NEED_TSC_DEADLINE:
        return a->tsc_deadline;
    case NEED_TSC_ADJUST:
        return a->tsc_adjust;
    case NEED_SMP: /* CMP_LEGACY is AMD's word for the same */
        return a->vcpu_count > 1 && (feature->leaf == 1 || vendor == CPU_VENDOR_AMD);
    case NEED_AMD:
        return vendor == CPU_VENDOR_AMD;
    case NEED_INVARIANT:
        return a->invariant_tsc;
    case NEED_RDTSCP:
        return a->rdtscp;
    case NEED_INVPCID:
        return a->invpcid;
    case NEED_XSAVEC:
        return a->xsavec && (xcr0 & X87_SSE) == X87_SSE;
    case NEED_XSAVES:
        return a->xsaves && (xcr0 & X87_SSE) == X87_SSE;
    case NEED_SPEC_CTRL:
        return a->spec_ctrl;
    case NEED_ARCH_CAP:
        return a->arch_capabilities && vendor == CPU_VENDOR_INTEL;
    case NEED_LA57:
        return a->la57;
    case NEED_XSAVE:
        return (xcr0 & X87_SSE) == X87_SSE;
    case NEED_AVX:
        return (xcr0 & AVX) == AVX;
    case NEED_AVX512:
        return (xcr0 & AVX512) == AVX512;
    case NEED_PKU:
        return xcr0 & BIT(9);
    }
    return false;
}

uint32_t cpuid_feature_mask(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf == leaf && f->subleaf == subleaf && f->reg == reg)
            mask |= 1u << f->bit;
    }
    return mask;
}
