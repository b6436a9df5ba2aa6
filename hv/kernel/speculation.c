/* SPDX-License-Identifier: MIT */
/* From CPUID to a plan; kernel/speculation.h. Bits: SDM vol. 2A, CPUID; vol. 4, table 2-2; APM vol. 3, appendix E. */
#include "kernel/speculation.h"

/* CPUID leaf 7. */
#define EBX_RTM BIT(11)
#define EDX_MD_CLEAR BIT(10)
#define EDX_IBRS_IBPB BIT(26)
#define EDX_L1D_FLUSH BIT(28)
#define EDX2_BHI_CTRL BIT(4)
/* Leaf 8000_0008H EBX, leaf 8000_0021H. */
#define EBX_AMD_IBPB BIT(12)
#define EAX_VERW_CLEAR BIT(5)
#define EAX_AUTO_IBRS BIT(8)
#define EAX_SRSO_NO BIT(29)
#define ECX_TSA_SQ_NO BIT(1)
#define ECX_TSA_L1_NO BIT(2)
/* IA32_ARCH_CAPABILITIES. */
#define RDCL_NO BIT(0)
#define IBRS_ALL BIT(1)
#define SKIP_L1DFL_VMENTRY BIT(3)
#define MDS_NO BIT(5)
#define PSCHANGE_MC_NO BIT(6)
#define TAA_NO BIT(8)
#define MMIO_NO (BIT(13) | BIT(14) | BIT(15)) /* SBDR_SSDP_NO, FBSDP_NO, PSDP_NO */
#define FB_CLEAR BIT(17)
#define BHI_NO BIT(20)
#define PBRSB_NO BIT(24)
#define RFDS_NO BIT(27)
#define RFDS_CLEAR BIT(28)
#define ITS_NO BIT(62)

/* Family 6 models that Intel lists as not affected by iTLB multihit though PSCHANGE_MC_NO is not there: Atom, Xeon Phi. */
static bool no_multihit(uint32_t model)
{
    static const uint8_t models[] = {
        0x1c, 0x26, 0x27, 0x35, 0x36, 0x37, 0x4a, 0x4c, 0x4d, 0x57, 0x5a, 0x5c, 0x5d, 0x5f, 0x75, 0x7a, 0x85, 0x86, 0x8a,
        0x96, 0x9c,
    };

    for (unsigned i = 0; i < ARRAY_COUNT(models); i++)
        if (model == models[i])
            return true;
    return false;
}

/*
 * Indirect target selection (INTEL-SA-01153): family 6 models on which a guest may choose the targets of indirect branches
 * and returns of the host in spite of enhanced IBRS: Cascade Lake and Cooper Lake, late Whiskey Lake, Coffee Lake and Comet
 * Lake. On the later ones that have it (Ice Lake, Tiger Lake, Rocket Lake) it does not cross from guest to host.
 */
static bool targets_cross(uint32_t model)
{
    return model == 0x55 || model == 0x8e || model == 0x9e || model == 0xa5 || model == 0xa6;
}

static void plan_intel(const struct speculation_facts *f, struct speculation *s)
{
    uint64_t caps = f->arch_capabilities;

    s->always_ibrs = caps & IBRS_ALL;
    s->no_history = s->always_ibrs && (f->leaf7_2_edx & EDX2_BHI_CTRL) && !(caps & BHI_NO);
    s->ibpb = f->leaf7_edx & EDX_IBRS_IBPB;
    s->barrier_on_exit = !s->always_ibrs || (f->family == 6 && targets_cross(f->model) && !(caps & ITS_NO));
    s->return_on_exit = s->always_ibrs && !(caps & PBRSB_NO);
    s->verw = (f->leaf7_edx & EDX_MD_CLEAR) || (caps & (FB_CLEAR | RFDS_CLEAR));
    s->clear_on_entry = ((f->leaf7_edx & EDX_MD_CLEAR) && !(caps & MDS_NO)) ||
                        ((f->leaf7_edx & EDX_MD_CLEAR) && (f->leaf7_ebx & EBX_RTM) && !(caps & TAA_NO)) ||
                        ((caps & FB_CLEAR) && (caps & MMIO_NO) != MMIO_NO) || ((caps & RFDS_CLEAR) && !(caps & RFDS_NO));
    s->flush_l1d = (f->leaf7_edx & EDX_L1D_FLUSH) && !(caps & (RDCL_NO | SKIP_L1DFL_VMENTRY));
    s->small_code = f->family == 6 && !(caps & PSCHANGE_MC_NO) && !no_multihit(f->model);
}

static void plan_amd(const struct speculation_facts *f, struct speculation *s)
{
    bool zen = f->family >= 0x17 && f->family <= 0x19;

    s->auto_ibrs = f->ext21_eax & EAX_AUTO_IBRS;
    s->ibpb = (f->ext8_ebx & EBX_AMD_IBPB) || (f->leaf7_edx & EDX_IBRS_IBPB);
    /* SRSO: returns of the hypervisor can be steered in spite of automatic IBRS. */
    s->barrier_on_exit = !s->auto_ibrs || (zen && !(f->ext21_eax & EAX_SRSO_NO));
    s->verw = f->ext21_eax & EAX_VERW_CLEAR;
    s->clear_on_entry = s->verw && (f->ext21_ecx & (ECX_TSA_SQ_NO | ECX_TSA_L1_NO)) != (ECX_TSA_SQ_NO | ECX_TSA_L1_NO);
}

struct speculation speculation_plan(const struct speculation_facts *facts)
{
    struct speculation s = { 0 };

    if (facts->intel)
        plan_intel(facts, &s);
    else if (facts->amd)
        plan_amd(facts, &s);
    if (!s.ibpb)
        s.barrier_on_exit = false;
    return s;
}
