/* SPDX-License-Identifier: MIT */
/*
 * The CPU model: nothing that is not on the allow-list is shown on any host, a feature's registers may be used exactly
 * when it is shown, the portable model is the same on both vendors, the fast look-up agrees with a plain search, and a
 * stream cannot bring a model that this host or this program does not support.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_cpuid.h"
#include "fake_stream.h"
#include "vm/config.h"
#include "vmm/cpuid_features.h"
#include "vmm/hyperv.h"
#include "vmm/vmm.h"

static struct cpuid_model model, ceiling, restored;
static char text[160];

static void build(struct cpuid_model *m, const char *name, const struct cpuid_host *host)
{
    enum status status = cpuid_model_build(m, name, host, &fake_abilities, text, sizeof(text));
    if (status)
        fail_msg("%s: %s", name, text);
}

static uint32_t reg(const struct cpuid_model *m, uint32_t leaf, uint32_t subleaf, unsigned r)
{
    return cpuid_entry_register(cpuid_find(m, leaf, subleaf), r);
}

struct bit { uint32_t leaf, subleaf; unsigned reg, bit; };

static void nothing_forbidden_is_ever_shown(void **state)
{
    (void)state;
    static const struct bit forbidden[] = {
        { 1, 0, REG_ECX, 2 },           { 1, 0, REG_ECX, 3 },           { 1, 0, REG_ECX, 5 },
        { 1, 0, REG_ECX, 6 },           { 1, 0, REG_ECX, 7 },           { 1, 0, REG_ECX, 8 },
        { 1, 0, REG_ECX, 11 },          { 1, 0, REG_ECX, 15 },          { 1, 0, REG_ECX, 18 },
        { 1, 0, REG_ECX, 27 },          { 1, 0, REG_EDX, 21 },          { 1, 0, REG_EDX, 22 },
        { 1, 0, REG_EDX, 29 },          { 1, 0, REG_EDX, 31 },          { 7, 0, REG_EBX, 2 },
        { 7, 0, REG_EBX, 4 },           { 7, 0, REG_EBX, 11 },          { 7, 0, REG_EBX, 12 },
        { 7, 0, REG_EBX, 14 },          { 7, 0, REG_EBX, 15 },          { 7, 0, REG_EBX, 25 },
        { 7, 0, REG_ECX, 4 },           { 7, 0, REG_ECX, 5 },           { 7, 0, REG_ECX, 7 },
        { 7, 0, REG_ECX, 13 },          { 7, 0, REG_ECX, 23 },          { 7, 0, REG_ECX, 24 },
        { 7, 0, REG_ECX, 29 },          { 7, 0, REG_ECX, 30 },          { 7, 0, REG_ECX, 31 },
        { 7, 0, REG_EDX, 5 },           { 7, 0, REG_EDX, 11 },          { 7, 0, REG_EDX, 15 },
        { 7, 0, REG_EDX, 18 },          { 7, 0, REG_EDX, 19 },          { 7, 0, REG_EDX, 20 },
        { 7, 0, REG_EDX, 22 },          { 7, 0, REG_EDX, 24 },          { 7, 0, REG_EDX, 25 },
        { 7, 2, REG_EDX, 6 },           { 7, 0, REG_EDX, 30 },          { 7, 1, REG_EAX, 17 },
        { 7, 1, REG_EAX, 26 },          { 0xd, 1, REG_EAX, 4 },         { 0x80000001, 0, REG_ECX, 2 },
        { 0x80000001, 0, REG_ECX, 3 },  { 0x80000001, 0, REG_ECX, 10 }, { 0x80000001, 0, REG_ECX, 12 },
        { 0x80000001, 0, REG_ECX, 15 }, { 0x80000001, 0, REG_ECX, 19 }, { 0x80000001, 0, REG_ECX, 23 },
        { 0x80000001, 0, REG_ECX, 29 }, { 0x80000001, 0, REG_EDX, 31 }, { 0x80000008, 0, REG_EBX, 3 },
        { 0x80000008, 0, REG_EBX, 25 }, { 0x80000021, 0, REG_EAX, 1 },
    };
    static void (*vendors[])(void *, uint32_t, uint32_t, uint32_t[4]) = { fake_intel, fake_amd };
    struct cpuid_abilities all = fake_abilities;
    all.xcr0 = UINT64_MAX;
    for (unsigned v = 0; v < 2; v++) {
        struct cpuid_host host = { fake_everything, &vendors[v] };
        assert_int_equal(cpuid_model_build(&model, "host", &host, &all, text, sizeof(text)), OK);
        for (unsigned i = 0; i < ARRAY_COUNT(forbidden); i++) {
            const struct bit *b = &forbidden[i];
            assert_int_equal(reg(&model, b->leaf, b->subleaf, b->reg) >> b->bit & 1, 0);
        }
        static const uint32_t absent[] = { 3,    5,          8,          9,          0xa,        0xc,       0xf,
                                           0x10, 0x12,       0x14,       0x17,       0x18,       0x19,      0x1a,
                                           0x1d, 0x8000000a, 0x8000001b, 0x8000001c, 0x8000001f, 0x80000020 };
        for (unsigned i = 0; i < ARRAY_COUNT(absent); i++)
            for (unsigned r = 0; r < 4; r++)
                assert_int_equal(reg(&model, absent[i], 0, r), 0);
        for (unsigned i = 1; i < model.count; i++)
            for (unsigned r = 0; r < 4; r++) {
                const struct cpuid_entry *e = &model.entry[i];
                uint32_t mask = cpuid_feature_mask(e->leaf, e->subleaf, r);
                if (e->leaf == 0x80000001 && r == REG_EDX && model.vendor == CPU_VENDOR_AMD)
                    mask |= 0x0183f3ff;
                if (mask)
                    assert_int_equal(cpuid_entry_register(e, r) & ~mask, 0);
            }
        assert_int_equal(model.limits.xcr0_valid, 0x2e7 & (v ? 0x207 | 0xe0 : 0x2e7));
        assert_int_equal(model.limits.cr4_valid & (CR4_VMXE | CR4_SMXE | BIT(23) | BIT(24)), 0);
        assert_int_equal(model.limits.efer_valid & EFER_SVME, 0);
    }
}

static void an_ability_that_is_missing_takes_its_feature_away(void **state)
{
    (void)state;
    struct cpuid_abilities none = { .vcpu_count = 1, .tsc_khz = 1000000, .apic_khz = APIC_TIMER_KHZ };
    assert_int_equal(cpuid_model_build(&model, "host", &fake_intel_host, &none, text, sizeof(text)), OK);
    assert_int_equal(reg(&model, 1, 0, REG_ECX) & (BIT(12) | BIT(21) | BIT(24) | BIT(26) | BIT(28) | BIT(29)), 0);
    assert_int_equal(reg(&model, 1, 0, REG_EDX) & BIT(28), 0);
    assert_int_equal(reg(&model, 7, 0, REG_EBX) & (BIT(1) | BIT(5) | BIT(10) | BIT(16) | 0xd0200000), 0);
    assert_int_equal(reg(&model, 7, 0, REG_ECX) & (BIT(3) | BIT(16)), 0);
    assert_int_equal(reg(&model, 7, 0, REG_EDX) & 0xac000000, 0);
    assert_int_equal(reg(&model, 0x80000001, 0, REG_EDX) & BIT(27), 0);
    assert_int_equal(reg(&model, 0x80000007, 0, REG_EDX), 0);
    assert_int_equal(reg(&model, 0xd, 0, REG_EAX), 0);
    assert_int_equal(model.limits.xcr0_valid | model.limits.spec_ctrl_valid | model.arch_capabilities, 0);
    assert_int_equal(model.limits.cr4_valid & (CR4_OSXSAVE | CR4_PKE | CR4_LA57), 0);
    assert_int_equal(model.xsave.area_bytes, 576);
}

static void the_host_model_shows_what_the_host_has(void **state)
{
    (void)state;
    build(&model, NULL, &fake_intel_host);
    assert_string_equal(model.name, "host");
    assert_int_equal(model.vendor, CPU_VENDOR_INTEL);
    assert_int_equal(reg(&model, 0, 0, REG_EAX), 0x1f);
    assert_int_equal(reg(&model, 1, 0, REG_EAX), 0x50657);
    assert_int_equal(reg(&model, 1, 0, REG_ECX) & (BIT(12) | BIT(17) | BIT(21) | BIT(24) | BIT(26) | BIT(28) | BIT(31)),
                     BIT(12) | BIT(17) | BIT(21) | BIT(24) | BIT(26) | BIT(28) | BIT(31));
    assert_int_equal(reg(&model, 7, 0, REG_EBX) & BIT(16), BIT(16));
    assert_int_equal(model.limits.xcr0_valid, 0x2e7);
    assert_int_equal(model.xsave.area_bytes, 2696);
    assert_int_equal(model.xsave.component[6].offset, 1152);
    assert_int_equal(model.arch_capabilities, 0x2b);
    assert_int_equal(model.limits.physical_bits, 46);
    assert_true(model.limits.cr4_valid & CR4_PKE);
    assert_false(model.cross_vendor);
    build(&model, "", &fake_amd_host);
    assert_int_equal(model.vendor, CPU_VENDOR_AMD);
    assert_int_equal(reg(&model, 0x80000000, 0, REG_EAX), 0x80000021);
    assert_int_equal(reg(&model, 0x80000001, 0, REG_EDX) & 0x3ff, reg(&model, 1, 0, REG_EDX) & 0x3ff);
    assert_int_equal(reg(&model, 0x80000008, 0, REG_ECX), 3 | 2 << 12);
    assert_int_equal(model.xsave.component[9].offset, 832);
    assert_int_equal(reg(&model, 0x15, 0, REG_EAX), 0);
    assert_int_equal(model.arch_capabilities, 0);
    assert_true(model.limits.efer_valid & EFER_FFXSR);
    struct cpuid_abilities narrow = fake_abilities;
    narrow.physical_bits = 40;
    assert_int_equal(cpuid_model_build(&model, "host", &fake_amd_host, &narrow, text, sizeof(text)), OK);
    assert_int_equal(model.limits.physical_bits, 40);
}

static void the_portable_model_is_the_same_on_both(void **state)
{
    (void)state;
    static struct cpuid_model amd;
    struct cpuid_abilities other = fake_abilities;
    other.xcr0 = 0x7, other.invpcid = other.spec_ctrl = other.la57 = other.xsaves = other.tsc_adjust = false;
    other.invariant_tsc = false, other.arch_capabilities = 0;
    build(&model, "portable", &fake_intel_host);
    assert_int_equal(cpuid_model_build(&amd, "portable-1", &fake_amd_host, &other, text, sizeof(text)), OK);
    assert_string_equal(model.name, "portable-1");
    assert_int_equal(model.count, amd.count);
    assert_memory_equal(model.entry, amd.entry, model.count * sizeof(model.entry[0]));
    assert_memory_equal(&model.limits, &amd.limits, sizeof(model.limits));
    assert_memory_equal(&model.xsave, &amd.xsave, sizeof(model.xsave));
    assert_int_equal(model.vendor, CPU_VENDOR_INTEL);
    assert_false(model.cross_vendor);
    assert_true(amd.cross_vendor);
    /* x86-64-v2. */
    assert_int_equal(reg(&model, 1, 0, REG_ECX) & (BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23)),
                     BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23));
    assert_int_equal(reg(&model, 0x80000001, 0, REG_ECX), 1);
    assert_int_equal(reg(&model, 7, 0, REG_EBX), 0);
}

static void speculation_controls_follow_cpuid(void **state)
{
    (void)state;
    /* Bits of SPEC_CTRL by the CPUID bit that brings them (SDM vol. 4, table 2-2; APM vol. 2, 3.2.9). */
    static const struct { const struct cpuid_host *host; uint32_t leaf, subleaf; unsigned reg, bit; uint64_t valid; } cases[] = {
        { &fake_intel_host, 7, 0, REG_EDX, 26, 1 },    { &fake_intel_host, 7, 0, REG_EDX, 27, 2 },
        { &fake_intel_host, 7, 0, REG_EDX, 31, 4 },    { &fake_intel_host, 7, 2, REG_EDX, 0, 0x80 },
        { &fake_intel_host, 7, 2, REG_EDX, 1, 0x18 },  { &fake_intel_host, 7, 2, REG_EDX, 2, 0x60 },
        { &fake_intel_host, 7, 2, REG_EDX, 3, 0x100 }, { &fake_intel_host, 7, 2, REG_EDX, 4, 0x400 },
        { &fake_amd_host, 0x80000008, 0, REG_EBX, 14, 1 }, { &fake_amd_host, 0x80000008, 0, REG_EBX, 15, 2 },
        { &fake_amd_host, 0x80000008, 0, REG_EBX, 24, 4 }, { &fake_amd_host, 0x80000008, 0, REG_EBX, 28, 0x80 },
    };
    static void (*vendors[])(void *, uint32_t, uint32_t, uint32_t[4]) = { fake_intel, fake_amd };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct cpuid_host everything = { fake_everything, &vendors[cases[i].host == &fake_amd_host] };
        build(&model, "host", &everything);
        assert_true(reg(&model, cases[i].leaf, cases[i].subleaf, cases[i].reg) >> cases[i].bit & 1);
        assert_int_equal(model.limits.spec_ctrl_valid & cases[i].valid, cases[i].valid);
        /* Without the bit, and the other vendor's for the same: */
        for (unsigned e = 1; e < model.count; e++) {
            struct cpuid_entry *entry = &model.entry[e];
            if (entry->leaf == 0x80000008)
                entry->ebx = 0;
            if (entry->leaf == 7 && entry->subleaf == 0)
                entry->edx = 0;
            if (entry->leaf == 7 && entry->subleaf == 2)
                entry->edx = 0;
        }
        cpuid_model_index(&model);
        assert_int_equal(model.limits.spec_ctrl_valid, 0);
        for (unsigned e = 1; e < model.count; e++) {
            struct cpuid_entry *entry = &model.entry[e];
            if (entry->leaf == cases[i].leaf && entry->subleaf == cases[i].subleaf)
                *(cases[i].reg == REG_EBX ? &entry->ebx : &entry->edx) = 1u << cases[i].bit;
        }
        cpuid_model_index(&model);
        assert_int_equal(model.limits.spec_ctrl_valid, cases[i].valid);
    }
    /* Automatic IBRS is a bit of EFER, on AMD alone. */
    struct cpuid_host amd = { fake_everything, &vendors[1] }, intel = { fake_everything, &vendors[0] };
    build(&model, "host", &amd);
    assert_true(model.limits.efer_valid & EFER_AIBRSE);
    build(&model, "host", &intel);
    assert_false(model.limits.efer_valid & EFER_AIBRSE);
    assert_int_equal(model.limits.spec_ctrl_valid, 0x5ff);
    struct cpuid_abilities all = fake_abilities;
    all.arch_capabilities = UINT64_MAX;
    assert_int_equal(cpuid_model_build(&model, "host", &intel, &all, NULL, 0), OK);
    /* No control that has an MSR of its own: TSX, MCU, MISC_PACKAGE, energy, DOITM, FB_CLEAR, xAPIC, overclocking, GDS. */
    assert_int_equal(model.arch_capabilities & (BIT(7) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(18) | BIT(21) | BIT(23) |
                                                BIT(25)), 0);
    assert_int_equal(model.arch_capabilities >> 32, 1u << 30); /* ITS_NO alone */
    build(&model, "portable", &intel);
    assert_int_equal(model.limits.spec_ctrl_valid | model.arch_capabilities, 0);
}

static uint32_t taken_bit;
static void fake_lacking(void *context, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    fake_amd(context, leaf, subleaf, out);
    if (leaf == 1)
        out[REG_ECX] &= ~(1u << taken_bit);
}

static void models_that_cannot_be_had_are_refused_by_name(void **state)
{
    (void)state;
    struct cpuid_host host = { fake_lacking, NULL };
    taken_bit = 25;
    assert_int_equal(cpuid_model_build(&model, "portable", &host, &fake_abilities, text, sizeof(text)),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "aes"));
    assert_int_equal(cpuid_model_build(&model, "host", &host, &fake_abilities, text, sizeof(text)), OK);
    assert_int_equal(cpuid_model_build(&model, "pentium", &host, &fake_abilities, text, sizeof(text)), ERR_NOT_FOUND);
    assert_non_null(strstr(text, "pentium"));
    struct cpuid_abilities bad = fake_abilities;
    bad.vcpu_count = 33;
    assert_int_equal(cpuid_model_build(&model, "host", &host, &bad, NULL, 0), ERR_INVALID);
    bad = fake_abilities, bad.tsc_khz = 0;
    assert_int_equal(cpuid_model_build(&model, "host", &host, &bad, NULL, 0), ERR_INVALID);
    bad = fake_abilities, bad.rdtscp = false;
    assert_int_equal(cpuid_model_build(&model, "portable", &fake_intel_host, &bad, text, sizeof(text)),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "rdtscp"));
    for (unsigned i = 0; cpuid_model_name(i); i++) {
        struct config_vm vm = { 0 };
        assert_int_equal(config_vm_set(&vm, "cpu", cpuid_model_name(i), NULL, 0), OK);
        assert_int_equal(cpuid_model_build(&model, cpuid_model_name(i), &fake_intel_host, &fake_abilities, NULL, 0),
                         OK);
    }
}

static void look_up_agrees_with_a_plain_search(void **state)
{
    (void)state;
    const struct cpuid_host *hosts[] = { &fake_intel_host, &fake_amd_host };
    for (unsigned h = 0; h < 2; h++) {
        build(&model, "host", hosts[h]);
        static const uint32_t bases[] = { 0,          0x3fffff00, 0x40000000, 0x40000100,
                                          0x7fffff00, 0x80000000, 0xc0000000, 0xffffff00 };
        for (unsigned b = 0; b < ARRAY_COUNT(bases); b++)
            for (uint32_t i = 0; i < 0x200; i++)
                for (uint32_t sub = 0; sub < 24; sub++) {
                    uint32_t leaf = bases[b] + i;
                    const struct cpuid_entry *found = &model.entry[0];
                    for (unsigned k = 1; k < model.count; k++)
                        if (model.entry[k].leaf == leaf &&
                            (model.entry[k].subleaf == sub || !(model.entry[k].flags & CPUID_INDEXED)))
                            found = &model.entry[k];
                    assert_ptr_equal(cpuid_find(&model, leaf, sub), found);
                }
        for (unsigned k = 2; k < model.count; k++) {
            const struct cpuid_entry *a = &model.entry[k - 1], *c = &model.entry[k];
            assert_true(a->leaf < c->leaf || (a->leaf == c->leaf && a->subleaf < c->subleaf));
        }
        assert_true(model.count < CPUID_ENTRIES);
    }
}

static void what_depends_on_the_vcpu_does(void **state)
{
    (void)state;
    uint32_t out[4];
    struct cpuid_dynamic d = { .apic_id = 3, .apic_enabled = true, .xcr0 = 1 };
    build(&model, "host", &fake_intel_host);
    cpuid_read(&model, 1, 0, &d, out);
    assert_int_equal(out[REG_EBX] >> 24, 3);
    assert_int_equal(out[REG_ECX] & BIT(27), 0);
    assert_int_equal(out[REG_EDX] & BIT(9), BIT(9));
    cpuid_read(&model, 0xd, 0, &d, out);
    assert_int_equal(out[REG_EBX], 576);
    assert_int_equal(out[REG_ECX], 2696);
    d = (struct cpuid_dynamic){ .apic_id = 2, .cr4 = CR4_OSXSAVE | CR4_PKE, .xcr0 = 0x207 };
    cpuid_read(&model, 1, 0, &d, out);
    assert_int_equal(out[REG_ECX] & BIT(27), BIT(27));
    assert_int_equal(out[REG_EDX] & BIT(9), 0);
    cpuid_read(&model, 7, 0, &d, out);
    assert_int_equal(out[REG_ECX] & BIT(4), BIT(4));
    cpuid_read(&model, 0xd, 0, &d, out);
    assert_int_equal(out[REG_EBX], 2696);
    cpuid_read(&model, 0xd, 1, &d, out);
    assert_int_equal(out[REG_EBX], 576 + 256 + 8);
    d.xcr0 = 0xe7;
    cpuid_read(&model, 0xd, 1, &d, out);
    assert_int_equal(out[REG_EBX], 576 + 256 + 64 + 512 + 1024);
    for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x14)
        for (uint32_t sub = 0; sub < 3; sub++) {
            cpuid_read(&model, leaf, sub, &d, out);
            assert_int_equal(out[REG_EDX], 2);
            assert_int_equal(out[REG_ECX] & 0xff, sub);
        }
    build(&model, "host", &fake_amd_host);
    cpuid_read(&model, 0x8000001e, 0, &d, out);
    assert_int_equal(out[REG_EAX], 2);
    /* Entries that are not marked dynamic need no adjusting. */
    for (unsigned i = 1; i < model.count; i++) {
        const struct cpuid_entry *e = &model.entry[i];
        if (e->flags & CPUID_DYNAMIC)
            continue;
        cpuid_adjust(&model, e, &d, out);
        assert_memory_equal(out, &e->eax, 16);
    }
}

static void topology_is_one_core_for_each_vcpu(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 32; n++) {
        struct cpuid_abilities a = fake_abilities;
        a.vcpu_count = n;
        assert_int_equal(cpuid_model_build(&model, "host", &fake_intel_host, &a, NULL, 0), OK);
        unsigned shift = reg(&model, 0xb, 1, REG_EAX);
        assert_true((1u << shift) >= n && (shift == 0 || (1u << (shift - 1)) < n));
        assert_int_equal(reg(&model, 0xb, 1, REG_EBX), n);
        assert_int_equal(reg(&model, 0xb, 0, REG_EBX), 1);
        assert_int_equal(reg(&model, 1, 0, REG_EBX) >> 16 & 0xff, 1u << shift);
        assert_int_equal(reg(&model, 1, 0, REG_EDX) >> 28 & 1, n > 1);
        assert_int_equal(reg(&model, 4, 0, REG_EAX) >> 26, (1u << shift) - 1);
        assert_int_equal(reg(&model, 4, 0, REG_EAX) >> 14 & 0xfff, 0);
        assert_int_equal(reg(&model, 4, 3, REG_EAX) >> 14 & 0xfff, (1u << shift) - 1);
        assert_int_equal(reg(&model, 4, 4, REG_EAX), 0);
    }
}

static void frequencies_and_hypervisor_leaves(void **state)
{
    (void)state;
    build(&model, "portable", &fake_amd_host);
    uint64_t crystal = reg(&model, 0x15, 0, REG_ECX);
    assert_int_equal(crystal * reg(&model, 0x15, 0, REG_EBX) / reg(&model, 0x15, 0, REG_EAX), 2400000000);
    assert_int_equal(crystal, APIC_TIMER_KHZ * 1000ull);
    assert_int_equal(reg(&model, 0x16, 0, REG_EAX), 2400);
    assert_memory_equal(&cpuid_find(&model, 0x40000000, 0)->ebx, "Microsoft Hv", 12);
    assert_in_range(reg(&model, 0x40000000, 0, REG_EAX), 0x40000005, 0x4000ffff);
    assert_memory_equal(&cpuid_find(&model, 0x40000001, 0)->eax, "Hv#1", 4);
    /* Linux wants these two to believe in the rest; SynIC, timers and the root's privileges must not be there. */
    uint32_t features = reg(&model, 0x40000003, 0, REG_EAX);
    assert_int_equal(features & (BIT(5) | BIT(6)), BIT(5) | BIT(6));
    assert_int_equal(features & (BIT(2) | BIT(3) | BIT(4) | BIT(13) | BIT(15)), 0);
    assert_int_equal(reg(&model, 0x40000003, 0, REG_EBX), 0);
    assert_int_equal(reg(&model, 0x40000004, 0, REG_EAX), HV_HINTS_EAX);
    assert_memory_equal(&cpuid_find(&model, 0x40000100, 0)->ebx, "TasukiTasuki", 12);
}

static void instructions_and_their_registers_go_together(void **state)
{
    (void)state;
    const struct cpuid_host *const hosts[] = { &fake_intel_host, &fake_amd_host };
    for (unsigned h = 0; h < 2; h++)
        for (unsigned without = 0; without < 8; without++) {
            struct cpuid_abilities some = fake_abilities;
            some.rdtscp = !(without & INSTRUCTION_RDTSCP);
            some.invpcid = !(without & INSTRUCTION_INVPCID);
            some.xsaves = !(without & INSTRUCTION_XSAVES);
            assert_int_equal(cpuid_model_build(&model, "host", hosts[h], &some, NULL, 0), OK);
            /* The AMD server's CPU has no INVPCID. */
            uint32_t there = (h ? 5 : 7) & ~without;
            assert_int_equal(cpuid_instructions(&model), there);
            assert_int_equal(reg(&model, 7, 0, REG_EBX) >> 10 & 1, there >> 1 & 1);
            assert_int_equal(reg(&model, 0xd, 1, REG_EAX) >> 3 & 1, there >> 2);
            assert_int_equal(model.limits.xss_valid, 0);
            assert_int_equal(reg(&model, 0xd, 1, REG_ECX) | reg(&model, 0xd, 1, REG_EDX), 0);
        }
    build(&model, "portable", &fake_intel_host);
    assert_int_equal(cpuid_instructions(&model), INSTRUCTION_RDTSCP);
}

static void xcr0_follows_the_rules(void **state)
{
    (void)state;
    build(&model, "host", &fake_intel_host);
    static const struct { uint64_t value; bool ok;
    } cases[] = {
        { 1, true },     { 3, true },      { 7, true },      { 0x203, true },        { 0xe7, true },  { 0x2e7, true },
        { 0, false },    { 2, false },     { 5, false },     { 0x27, false },        { 0xe3, false }, { 0x67, false },
        { 0x1f, false }, { 0x107, false }, { 0x407, false }, { BIT(63) | 7, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(cpuid_xcr0_ok(&model, cases[i].value), cases[i].ok);
    build(&model, "portable", &fake_intel_host);
    assert_false(cpuid_xcr0_ok(&model, 1));
}

/* ---- Stream ---- */

static struct fake_stream stream;

static void body(struct stream_writer *w, void *arg)
{
    cpuid_model_save(arg, w);
}

static enum status restore(void)
{
    struct stream_reader *r = fake_stream_read(&stream);
    cpuid_model_restore(&restored, r, &ceiling);
    memcpy(text, r->error_text, sizeof(text));
    return r->error;
}

static void a_model_comes_back_where_the_host_has_it(void **state)
{
    (void)state;
    build(&ceiling, "host", &fake_intel_host);
    for (unsigned i = 0; cpuid_model_name(i); i++) {
        build(&model, cpuid_model_name(i), &fake_intel_host);
        fake_stream_write(&stream, CPUID_SECTION_VERSION, body, &model);
        assert_int_equal(restore(), OK);
        assert_memory_equal(&restored, &model, sizeof(model));
    }
    /* Portable goes to the other vendor; "host" does not, nor to a host with less. */
    build(&ceiling, "host", &fake_amd_host);
    assert_int_equal(restore(), OK);
    assert_true(restored.cross_vendor);
    build(&model, "host", &fake_intel_host);
    fake_stream_write(&stream, CPUID_SECTION_VERSION, body, &model);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "vendor"));
    struct cpuid_abilities less = fake_abilities;
    less.invpcid = false;
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "invpcid"));
    less = fake_abilities, less.xsaves = false;
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "xsaves"));
    less = fake_abilities, less.xcr0 = 7;
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    /* The same offsets, but a component that is aligned in the compacted format: guests' areas would not fit. */
    build(&ceiling, "host", &fake_intel_host);
    for (unsigned i = 1; i < ceiling.count; i++)
        if (ceiling.entry[i].leaf == 0xd && ceiling.entry[i].subleaf == 6)
            ceiling.entry[i].ecx |= BIT(1);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "component 6"));
    less = fake_abilities, less.physical_bits = 40;
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    less = fake_abilities, less.arch_capabilities = 0x2a;
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), ERR_UNSUPPORTED);
    assert_non_null(strstr(text, "ARCH_CAPABILITIES"));
    /* A clear bit promises too: return predictions that do not fall back on others (bits 2 and 19). */
    for (unsigned bit = 2; bit <= 19; bit += 17) {
        less = fake_abilities, less.arch_capabilities |= BIT(bit);
        assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
        assert_int_equal(restore(), ERR_UNSUPPORTED);
        assert_non_null(strstr(text, "ARCH_CAPABILITIES"));
    }
    less = fake_abilities, less.arch_capabilities |= BIT(17);
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), OK);
    less = fake_abilities, less.vcpu_count = 1; /* the count is the VM's own */
    assert_int_equal(cpuid_model_build(&ceiling, "host", &fake_intel_host, &less, NULL, 0), OK);
    assert_int_equal(restore(), OK);
}

#define ENTRIES_AT (CPUID_NAME_BYTES + 4 * 4 + 8 + 4)

/* No bit that a stream sets in a feature register can turn on what is not on the list. */
static void forged_features_are_refused(void **state)
{
    (void)state;
    build(&ceiling, "host", &fake_intel_host);
    build(&model, "host", &fake_intel_host);
    for (unsigned i = 1; i < model.count; i++) {
        const struct cpuid_entry e = model.entry[i];
        for (unsigned r = 0; r < 4; r++) {
            uint32_t value = cpuid_entry_register(&e, r), mask = cpuid_feature_mask(e.leaf, e.subleaf, r);
            for (unsigned bit = 0; bit < 32 && mask; bit++) {
                if ((value >> bit & 1) || (e.leaf == 0x80000001 && r == REG_ECX && bit == 1))
                    continue;
                fake_stream_write(&stream, CPUID_SECTION_VERSION, body, &model);
                fake_stream_patch(&stream, ENTRIES_AT + 24 * (i - 1) + 8 + 4 * r, value | 1u << bit, 4);
                enum status status = restore();
                if (status != ERR_CORRUPT && status != ERR_UNSUPPORTED)
                    fail_msg("leaf 0x%x.%u register %u bit %u was taken", e.leaf, e.subleaf, r, bit);
            }
        }
    }
    static const struct { size_t at; uint64_t value; } patches[] = {
        { 0, 0 }, { 0, 0x8080808080808080 }, { CPUID_NAME_BYTES, 3 }, { CPUID_NAME_BYTES + 4, 0 },
        { CPUID_NAME_BYTES + 4, 33 }, { CPUID_NAME_BYTES + 8, 0 }, { CPUID_NAME_BYTES + 12, 999 },
        { ENTRIES_AT - 4, 0 }, { ENTRIES_AT - 4, CPUID_ENTRIES }, { ENTRIES_AT - 4, UINT32_MAX },
        { ENTRIES_AT, 1 }, { ENTRIES_AT, 5 }, { ENTRIES_AT, UINT32_MAX }, { ENTRIES_AT + 24, 0 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
        fake_stream_write(&stream, CPUID_SECTION_VERSION, body, &model);
        fake_stream_patch(&stream, patches[i].at, patches[i].value, 4);
        assert_int_not_equal(restore(), OK);
    }
    for (size_t i = 0; i < fake_stream_payload(&stream); i += 5) {
        fake_stream_write(&stream, CPUID_SECTION_VERSION, body, &model);
        fake_stream_cut(&stream, i);
        assert_int_not_equal(restore(), OK);
    }
    fake_stream_write(&stream, CPUID_SECTION_VERSION + 1, body, &model);
    assert_int_equal(restore(), ERR_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_forbidden_is_ever_shown),
        cmocka_unit_test(an_ability_that_is_missing_takes_its_feature_away),
        cmocka_unit_test(the_host_model_shows_what_the_host_has),
        cmocka_unit_test(the_portable_model_is_the_same_on_both),
        cmocka_unit_test(models_that_cannot_be_had_are_refused_by_name),
        cmocka_unit_test(look_up_agrees_with_a_plain_search),
        cmocka_unit_test(what_depends_on_the_vcpu_does),
        cmocka_unit_test(topology_is_one_core_for_each_vcpu),
        cmocka_unit_test(frequencies_and_hypervisor_leaves),
        cmocka_unit_test(instructions_and_their_registers_go_together),
        cmocka_unit_test(xcr0_follows_the_rules),
        cmocka_unit_test(speculation_controls_follow_cpuid),
        cmocka_unit_test(a_model_comes_back_where_the_host_has_it),
        cmocka_unit_test(forged_features_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
