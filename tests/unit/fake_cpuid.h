/* SPDX-License-Identifier: MIT */
/*
 * Hosts for the tests of the CPU model: an Intel and an AMD server of 2019 as their CPUID would describe them, and one
 * that claims everything. Only the leaves that the model reads are there.
 */
#ifndef TESTS_FAKE_CPUID_H
#define TESTS_FAKE_CPUID_H

#include <string.h>

#include "vmm/cpuid_model.h"

struct fake_leaf { uint32_t leaf, subleaf, eax, ebx, ecx, edx; };

static const struct fake_leaf fake_intel_leaves[] = {
    { 0, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69 },
    { 1, 0, 0x00050657, 0x00400800, 0x7ffefbff, 0xbfebfbff },
    { 4, 0, 0x7c004121, 0x01c0003f, 0x3f, 0 },
    { 4, 1, 0x7c004122, 0x01c0003f, 0x3f, 0 },
    { 4, 2, 0x7c004143, 0x03c0003f, 0x3ff, 0 },
    { 4, 3, 0x7c07c163, 0x0280003f, 0x9fff, 4 },
    { 6, 0, 0xef7, 2, 9, 0 },
    { 7, 0, 0, 0xd39ffffb, 0x00000818, 0xbc000400 },
    { 0xd, 0, 0x2ff, 2696, 2696, 0 },
    { 0xd, 1, 0xf, 2568, 0x100, 0 },
    { 0xd, 2, 256, 576, 0, 0 },
    { 0xd, 3, 64, 960, 0, 0 },
    { 0xd, 4, 64, 1024, 0, 0 },
    { 0xd, 5, 64, 1088, 0, 0 },
    { 0xd, 6, 512, 1152, 0, 0 },
    { 0xd, 7, 1024, 1664, 0, 0 },
    { 0xd, 8, 128, 0, 1, 0 },
    { 0xd, 9, 8, 2688, 0, 0 },
    { 0x80000000, 0, 0x80000008, 0, 0, 0 },
    { 0x80000001, 0, 0, 0, 0x121, 0x2c100800 },
    { 0x80000002, 0, 0x65746e49, 0, 0, 0 },
    { 0x80000006, 0, 0, 0, 0x01006040, 0 },
    { 0x80000007, 0, 0, 0, 0, 0x100 },
    { 0x80000008, 0, 0x302e, 0, 0, 0 },
};

static const struct fake_leaf fake_amd_leaves[] = {
    { 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65 },
    { 1, 0, 0x00830f10, 0x00400800, 0x7ef8320b, 0x178bfbff },
    { 6, 0, 4, 0, 1, 0 },
    { 7, 0, 0, 0x219c91a9, 0x00400004, 0 },
    { 0xd, 0, 0x207, 896, 896, 0 }, { 0xd, 1, 0xf, 896, 0, 0 }, { 0xd, 2, 256, 576, 0, 0 }, { 0xd, 9, 8, 832, 0, 0 },
    { 0x80000000, 0, 0x80000021, 0x68747541, 0x444d4163, 0x69746e65 },
    { 0x80000001, 0, 0x00830f10, 0x40000000, 0x75c237ff, 0x2fd3fbff },
    { 0x80000002, 0, 0x20444d41, 0, 0, 0 }, { 0x80000005, 0, 1, 2, 3, 4 }, { 0x80000006, 0, 5, 6, 7, 8 },
    { 0x80000007, 0, 0, 0x3b, 0, 0x6799 }, { 0x80000008, 0, 0x3030, 0x018cf757, 0x707f, 0x10000 },
    { 0x8000000a, 0, 1, 0x8000, 0, 0x1013bcff }, { 0x80000019, 0, 0xf040f040, 0, 0, 0 }, { 0x8000001a, 0, 6, 0, 0, 0 },
    { 0x8000001d, 0, 0x4121, 0x01c0003f, 0x3f, 0 }, { 0x8000001d, 1, 0x4122, 0x01c0003f, 0x3f, 0 },
    { 0x8000001d, 2, 0x4143, 0x01c0003f, 0x3ff, 2 }, { 0x8000001d, 3, 0x1c163, 0x03c0003f, 0x3fff, 1 },
    { 0x8000001e, 0, 5, 0x102, 0x301, 0 }, { 0x8000001f, 0, 0x1000f, 0x16f, 509, 1 }, { 0x80000021, 0, 0x45, 0, 0, 0 },
};

static void fake_leaves(const struct fake_leaf *leaves, unsigned count, uint32_t leaf, uint32_t subleaf,
                        uint32_t out[4])
{
    memset(out, 0, 16);
    for (unsigned i = 0; i < count; i++)
        if (leaves[i].leaf == leaf && leaves[i].subleaf == subleaf)
            memcpy(out, &leaves[i].eax, 16);
}

static void fake_intel(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)context;
    fake_leaves(fake_intel_leaves, ARRAY_COUNT(fake_intel_leaves), leaf, subleaf, out);
}

static void fake_amd(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)context;
    fake_leaves(fake_amd_leaves, ARRAY_COUNT(fake_amd_leaves), leaf, subleaf, out);
}

/* All bits of all feature leaves, with the vendor and the widths of `context` (one of the two above). */
static inline void fake_everything(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    void (*const *base)(void *, uint32_t, uint32_t, uint32_t[4]) = context;
    (*base)(NULL, leaf, subleaf, out);
    if (leaf == 0)
        out[0] = 0x20;
    else if (leaf == 0x80000000)
        out[0] = 0x80000028;
    else if (leaf != 4 && leaf != 0x8000001d && leaf != 0x80000008 && leaf != 0xd)
        memset(out, 0xff, 16);
    else if (leaf == 0x80000008)
        out[1] = 0xffffffff;
    else if (leaf == 0xd && subleaf < 2)
        out[0] = out[2] = out[3] = 0xffffffff;
}

__attribute__((unused)) static const struct cpuid_host fake_intel_host = { fake_intel, NULL };
__attribute__((unused)) static const struct cpuid_host fake_amd_host = { fake_amd, NULL };

static const struct cpuid_abilities fake_abilities = {
    .vcpu_count = 4, .tsc_khz = 2400000, .apic_khz = APIC_TIMER_KHZ, .mxcsr_mask = 0xffff, .xcr0 = 0x2e7,
    .arch_capabilities = 0x2b, .x2apic = true, .tsc_deadline = true, .tsc_adjust = true, .invariant_tsc = true,
    .rdtscp = true, .invpcid = true, .xsavec = true, .xsaves = true, .spec_ctrl = true, .la57 = true,
};

#endif
