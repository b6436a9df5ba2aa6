/* SPDX-License-Identifier: MIT */
/*
 * The MSR policy: what exists follows from the model and nothing else does; what a backend may open is harmless; every
 * write that is accepted reads back, every one that a CPU refuses is refused; and the state survives the stream.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_cpuid.h"
#include "fake_stream.h"
#include "vmm/msr_policy.h"

static struct cpuid_model intel, amd, portable;
static struct msr_state msrs;

static int start(void **state)
{
    (void)state;
    assert_int_equal(cpuid_model_build(&intel, "host", &fake_intel_host, &fake_abilities, NULL, 0), OK);
    assert_int_equal(cpuid_model_build(&amd, "host", &fake_amd_host, &fake_abilities, NULL, 0), OK);
    assert_int_equal(cpuid_model_build(&portable, "portable", &fake_amd_host, &fake_abilities, NULL, 0), OK);
    msr_state_reset(&msrs, &intel);
    return 0;
}

static unsigned kind(const struct cpuid_model *m, uint32_t msr)
{
    return msr_policy(m, msr).kind;
}

static void what_exists_follows_from_the_model(void **state)
{
    (void)state;
    assert_int_equal(kind(&intel, MSR_TSC_DEADLINE), MSR_IS_APIC);
    assert_int_equal(kind(&intel, 0x830), MSR_IS_APIC);
    assert_int_equal(kind(&intel, MSR_TSC_AUX), MSR_SWITCHED);
    assert_int_equal(kind(&intel, MSR_XSS), MSR_SWITCHED);
    assert_int_equal(kind(&portable, MSR_XSS), MSR_DENY);
    assert_int_equal(kind(&intel, MSR_SPEC_CTRL), MSR_SWITCHED);
    assert_int_equal(kind(&portable, MSR_SPEC_CTRL), MSR_DENY);
    assert_int_equal(kind(&intel, MSR_PRED_CMD), MSR_COMMAND);
    assert_int_equal(kind(&amd, MSR_PRED_CMD), MSR_COMMAND);
    assert_int_equal(kind(&portable, MSR_PRED_CMD), MSR_DENY);
    assert_int_equal(msr_policy(&intel, MSR_PRED_CMD).value, 1);
    assert_int_equal(kind(&intel, MSR_FLUSH_CMD), MSR_COMMAND);
    assert_int_equal(msr_policy(&intel, MSR_FLUSH_CMD).value, 1);
    assert_int_equal(kind(&amd, MSR_FLUSH_CMD), MSR_DENY);
    assert_int_equal(kind(&portable, MSR_FLUSH_CMD), MSR_DENY);
    assert_int_equal(kind(&intel, MSR_ARCH_CAPABILITIES), MSR_CONSTANT);
    assert_int_equal(msr_policy(&intel, MSR_ARCH_CAPABILITIES).value, 0x2b);
    assert_int_equal(kind(&amd, MSR_ARCH_CAPABILITIES), MSR_DENY);
    assert_int_equal(kind(&intel, MSR_MISC_ENABLE), MSR_STORED);
    assert_int_equal(kind(&amd, MSR_MISC_ENABLE), MSR_DENY);
    assert_int_equal(kind(&amd, MSR_AMD_HWCR), MSR_CONSTANT);
    assert_int_equal(kind(&intel, MSR_AMD_HWCR), MSR_DENY);
    assert_int_equal(kind(&portable, MSR_AMD_HWCR), MSR_DENY);
    assert_int_equal(kind(&portable, MSR_MISC_ENABLE), MSR_STORED);
    assert_int_equal(msr_policy(&intel, MSR_PLATFORM_INFO).value, 24 << 8);
    struct cpuid_abilities none = { .vcpu_count = 1, .tsc_khz = 1000000, .apic_khz = APIC_TIMER_KHZ };
    static struct cpuid_model bare;
    assert_int_equal(cpuid_model_build(&bare, "host", &fake_intel_host, &none, NULL, 0), OK);
    static const uint32_t gone[] = {
        MSR_TSC_ADJUST, MSR_TSC_DEADLINE, 0x800, 0x8ff, MSR_TSC_AUX, MSR_SPEC_CTRL, MSR_XSS
    };
    for (unsigned i = 0; i < ARRAY_COUNT(gone); i++)
        assert_int_equal(kind(&bare, gone[i]), MSR_DENY);
}

/* VMX and SVM, performance counters, LBR, PT, machine check banks, CET, and the host's own machinery. */
static void what_is_not_listed_does_not_exist(void **state)
{
    (void)state;
    static const uint32_t absent[] = {
        0x0,        0x11,       0x33,       0x34,       0xc1,           0xe7,       0x10c,      0x122,
        0x186,      0x199,      0x1a4,      0x1b0,      0x1c9,          0x210,      0x2a0,      0x309,
        0x345,      0x38d,      0x38f,      0x3f1,      0x400,          0x480,      0x491,      0x4c1,
        0x560,      0x570,      0x600,      0x606,      0x6a0,          0x7ff,      0x900,      0xc80,
        0xd90,      0x3fffffff, 0x40000200, 0xc0000000, 0xc0000084 + 1, 0xc0000104, 0xc0010000, 0xc0010114,
        0xc0010117, 0xc0010131, 0xc0011020, UINT32_MAX
    };
    const struct cpuid_model *models[] = { &intel, &amd, &portable };
    for (unsigned m = 0; m < 3; m++) {
        for (unsigned i = 0; i < ARRAY_COUNT(absent); i++) {
            uint64_t value;
            assert_int_equal(kind(models[m], absent[i]), MSR_DENY);
            assert_false(msr_state_read(&msrs, models[m], absent[i], &value));
            assert_false(msr_state_write(&msrs, models[m], absent[i], 0));
        }
        unsigned count = 0;
        for (uint32_t msr = 0; msr < 0x2000; msr++)
            count += kind(models[m], msr) != MSR_DENY;
        assert_in_range(count, 256 + 35, 256 + 60);
    }
}

static void what_a_backend_may_open_is_checked_by_the_cpu(void **state)
{
    (void)state;
    for (const uint32_t *msr = msr_open; *msr; msr++) {
        uint64_t value;
        struct cpu_state s = { 0 };
        unsigned k = kind(&intel, *msr);
        if (*msr == MSR_PRED_CMD || *msr == MSR_FLUSH_CMD) { /* commands: nothing to keep, and nothing to read */
            assert_int_equal(k, MSR_COMMAND);
            assert_false(msr_switched_read(&s, *msr, &value));
            continue;
        }
        assert_int_equal(k, MSR_SWITCHED);
        assert_true(msr_switched_read(&s, *msr, &value));
        assert_true(*msr != MSR_XSS && *msr != MSR_DEBUGCTL && *msr != MSR_EFER && *msr != MSR_TSC &&
                    *msr != MSR_APIC_BASE);
    }
}

static void switched_registers_take_what_the_cpu_takes(void **state)
{
    (void)state;
    static const struct { uint32_t msr; uint64_t value; bool ok; } cases[] = {
        { MSR_LSTAR, 0xffffffff81000000, true }, { MSR_LSTAR, 0x800000000000, false }, { MSR_CSTAR, BIT(63), false },
        { MSR_KERNEL_GS_BASE, 0xffff800000000000, true }, { MSR_FS_BASE, 0x8000000000000000, false },
        { MSR_GS_BASE, 0x7fffffffffff, true }, { MSR_STAR, UINT64_MAX, true }, { MSR_FMASK, UINT32_MAX, true },
        { MSR_FMASK, BIT(32), false }, { MSR_TSC_AUX, 7, true }, { MSR_TSC_AUX, BIT(32), false },
        { MSR_SYSENTER_ESP, BIT(48), false }, { MSR_SYSENTER_EIP, 0x1000, true }, { MSR_PAT, 0x0007040600070406, true },
        { MSR_PAT, 0x0007010600070106, true }, { MSR_PAT, 2, false }, { MSR_PAT, 0x0300000000000000, false },
        { MSR_PAT, 0x80, false }, { MSR_SPEC_CTRL, 7, true }, { MSR_SPEC_CTRL, 8, false }, { MSR_XSS, 0, true },
        { MSR_XSS, 0x100, false }, { MSR_DEBUGCTL, 2, true }, { MSR_DEBUGCTL, 0x40, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct cpu_state s, before;
        uint64_t value = 0;
        memset(&s, 0, sizeof(s));
        before = s;
        assert_int_equal(msr_switched_write(&s, &intel.limits, cases[i].msr, cases[i].value), cases[i].ok);
        if (!cases[i].ok)
            assert_memory_equal(&s, &before, sizeof(s));
        assert_true(msr_switched_read(&s, cases[i].msr, &value));
        assert_int_equal(value, cases[i].ok ? cases[i].value : 0);
    }
    struct cpu_state s = { 0 };
    assert_true(msr_switched_write(&s, &intel.limits, MSR_SYSENTER_CS, 0x1234500000010));
    assert_int_equal(s.sysenter_cs, 0x10);
    assert_false(msr_switched_write(&s, &intel.limits, MSR_EFER, 0));
}

static void efer_follows_the_rules(void **state)
{
    (void)state;
    struct cpu_state s = { .efer = EFER_LME | EFER_LMA, .cr0 = CR0_PE | CR0_PG };
    assert_true(msr_efer_ok(&s, &intel.limits, EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE));
    assert_false(msr_efer_ok(&s, &intel.limits, EFER_SCE)); /* LME while paging */
    assert_false(msr_efer_ok(&s, &intel.limits, EFER_LME | EFER_LMA | EFER_SVME));
    assert_false(msr_efer_ok(&s, &intel.limits, EFER_LME | EFER_LMA | EFER_FFXSR));
    assert_true(msr_efer_ok(&s, &amd.limits, EFER_LME | EFER_LMA | EFER_FFXSR));
    s.cr0 = CR0_PE, s.efer = 0;
    assert_true(msr_efer_ok(&s, &intel.limits, EFER_LME));
}

static void stored_registers_read_back_and_refuse_nonsense(void **state)
{
    (void)state;
    static const struct { uint32_t msr; uint64_t value; bool ok;
    } cases[] = {
        { 0x200, 0xc0000000, true },
        { 0x200, 0xc0000006, true },
        { 0x200, 0xc0000002, false },
        { 0x200, 0xc0000106, false },
        { 0x20e, BIT(46) | 6, false },
        { 0x201, 0x3fffc0000800, true },
        { 0x201, 0x400000000800, false },
        { 0x20f, 0x400, false },
        { 0x250, 0x0606060606060606, true },
        { 0x26f, 0x0606060606060602, false },
        { 0x258, 0x0700000000000000, false },
        { 0x2ff, 0xc06, true },
        { 0x2ff, 0x1c06, false },
        { 0x2ff, 0xc07, false },
        { 0x17a, 7, true },
        { 0x17a, 8, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        uint64_t value = 99;
        msr_state_reset(&msrs, &intel);
        assert_int_equal(msr_state_write(&msrs, &intel, cases[i].msr, cases[i].value), cases[i].ok);
        assert_true(msr_state_read(&msrs, &intel, cases[i].msr, &value));
        assert_int_equal(value, cases[i].ok ? cases[i].value : 0);
    }
    uint64_t value;
    assert_true(msr_state_write(&msrs, &intel, MSR_MISC_ENABLE, UINT64_MAX)); /* all but bit 0 stays */
    assert_true(msr_state_read(&msrs, &intel, MSR_MISC_ENABLE, &value));
    assert_int_equal(value, BIT(0) | BIT(11) | BIT(12));
    assert_true(msr_state_write(&msrs, &intel, MSR_BIOS_SIGN_ID, 0));
    assert_true(msr_state_read(&msrs, &intel, MSR_BIOS_SIGN_ID, &value));
    assert_int_equal(value >> 32, UINT32_MAX);
    assert_true(msr_state_read(&msrs, &amd, MSR_BIOS_SIGN_ID, &value));
    assert_int_equal(value, UINT32_MAX);
}

static void every_stored_register_is_its_own(void **state)
{
    (void)state;
    uint32_t stored[64];
    unsigned count = 0;
    for (uint32_t msr = 0x200; msr < 0x300; msr++)
        if (kind(&intel, msr) == MSR_STORED)
            stored[count++] = msr;
    assert_int_equal(count, 2 * MTRR_VARIABLE + MTRR_FIXED + 1);
    for (unsigned i = 0; i < count; i++) {
        uint64_t one = stored[i] == 0x2ff ? 0x806 : stored[i] < 0x210 && (stored[i] & 1) ? 0x800 : 6;
        msr_state_reset(&msrs, &intel);
        assert_true(msr_state_write(&msrs, &intel, stored[i], one));
        for (unsigned k = 0; k < count; k++) {
            uint64_t value;
            assert_true(msr_state_read(&msrs, &intel, stored[k], &value));
            assert_int_equal(value, k == i ? one : 0);
        }
    }
}

static void firmware_leaves_mtrrs_that_make_sense(void **state)
{
    (void)state;
    const struct cpuid_model *models[] = { &intel, &amd, &portable };
    for (unsigned m = 0; m < 3; m++) {
        struct msr_state fresh;
        msr_state_reset(&fresh, models[m]);
        msr_state_reset(&msrs, models[m]);
        msr_state_firmware_mtrrs(&msrs, models[m]);
        for (uint32_t msr = 0x200; msr < 0x300; msr++) {
            uint64_t value;
            if (msr_state_read(&msrs, models[m], msr, &value))
                assert_true(msr_state_write(&fresh, models[m], msr, value));
        }
        assert_memory_equal(&fresh, &msrs, sizeof(fresh));
        uint64_t mask = msrs.mtrr_mask[0] & ~0xfffull;
        assert_int_equal(0xfee00000 & mask, msrs.mtrr_base[0] & mask);
        assert_int_not_equal(0xbffff000 & mask, msrs.mtrr_base[0] & mask);
        assert_int_not_equal(0x1fee00000 & mask, msrs.mtrr_base[0] & mask);
        assert_int_equal(msrs.mtrr_def_type, 0xc06);
    }
}

static void body(struct stream_writer *w, void *arg)
{
    msr_state_save(arg, w);
}

static void the_state_survives_the_stream(void **state)
{
    (void)state;
    static struct fake_stream stream;
    struct msr_state back;
    msr_state_reset(&msrs, &intel);
    msr_state_firmware_mtrrs(&msrs, &intel);
    msrs.mcg_status = 5;
    msrs.misc_enable &= ~BIT(0);
    fake_stream_write(&stream, MSR_SECTION_VERSION, body, &msrs);
    struct stream_reader *r = fake_stream_read(&stream);
    msr_state_restore(&back, &intel, r);
    assert_int_equal(r->error, OK);
    assert_int_equal(stream_left(r), 0);
    assert_memory_equal(&back, &msrs, sizeof(msrs));
    r = fake_stream_read(&stream); /* registers that only Intel has do not hinder another vendor's model */
    msr_state_restore(&back, &portable, r);
    assert_int_equal(r->error, ERR_CORRUPT); /* 46 bits of address in a mask, 39 in this model */

    static const struct { size_t at; uint64_t value; const char *name; } patches[] = {
        { 0, 2, "0x200" }, { 8, BIT(60), "0x201" }, { 16 * 8, 0xff, "0x250" }, { 27 * 8, 0x1000, "0x2ff" },
        { 28 * 8, 8, "0x17a" }, { 29 * 8, BIT(34), "0x1a0" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
        fake_stream_write(&stream, MSR_SECTION_VERSION, body, &msrs);
        fake_stream_patch(&stream, patches[i].at, patches[i].value, 8);
        r = fake_stream_read(&stream);
        msr_state_restore(&back, &intel, r);
        assert_int_equal(r->error, ERR_CORRUPT);
        assert_non_null(strstr(r->error_text, patches[i].name));
    }
    fake_stream_write(&stream, MSR_SECTION_VERSION + 1, body, &msrs);
    r = fake_stream_read(&stream);
    msr_state_restore(&back, &intel, r);
    assert_int_equal(r->error, ERR_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_exists_follows_from_the_model),
        cmocka_unit_test(what_is_not_listed_does_not_exist),
        cmocka_unit_test(what_a_backend_may_open_is_checked_by_the_cpu),
        cmocka_unit_test(switched_registers_take_what_the_cpu_takes),
        cmocka_unit_test(efer_follows_the_rules),
        cmocka_unit_test(stored_registers_read_back_and_refuse_nonsense),
        cmocka_unit_test(every_stored_register_is_its_own),
        cmocka_unit_test(firmware_leaves_mtrrs_that_make_sense),
        cmocka_unit_test(the_state_survives_the_stream),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
