/* SPDX-License-Identifier: MIT */
/* Promises of the choice of VMX controls: what is needed is there or named as missing, what is liked is taken in whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/vmx/vmx.h"

#define ASSIST (CPU2_APIC_ACCESS | CPU2_X2APIC | CPU2_APIC_REGISTER | CPU2_VIRTUAL_INTERRUPT)

static struct vmx_msrs msrs;
static struct vmx_caps caps;
static struct vmm_features features;
static char why[160];

/* A CPU that allows everything and wants nothing. */
static int setup(void **state)
{
    (void)state;
    const uint64_t all = (uint64_t)UINT32_MAX << 32;
    msrs = (struct vmx_msrs){ .basic = 4, .pin = all, .processor = all, .secondary = all, .exit = all, .entry = all,
                              .ept_vpid = UINT64_MAX, .cr0_fixed0 = 0x80000021, .cr0_fixed1 = UINT32_MAX,
                              .cr4_fixed0 = 0x2000, .cr4_fixed1 = UINT32_MAX };
    return 0;
}

static bool compute(void)
{
    memset(why, 0, sizeof why);
    return vmx_caps_compute(&msrs, &caps, &features, why, sizeof why);
}

static void everything(void **state)
{
    (void)state;
    assert_true(compute());
    assert_true(features.apic_assist && features.pml && features.vpid && features.posted_interrupt);
    assert_false(caps.vectoring_stale || features.apic_assist_flawed);
    msrs.basic = 0x2b;
    assert_true(compute());
    assert_true(caps.vectoring_stale && features.apic_assist && features.apic_assist_flawed);
}

static void the_apic_is_virtualized_in_whole_or_not(void **state)
{
    (void)state;
    assert_true(compute());
    assert_int_equal(caps.secondary & ASSIST, 0); /* not before a vCPU asks */
    assert_int_equal(caps.secondary_allowed & ASSIST, ASSIST);
    for (uint64_t rest = ASSIST; rest; rest &= rest - 1) {
        setup(NULL);
        msrs.secondary &= ~((rest & -rest) << 32);
        assert_true(compute());
        assert_false(features.apic_assist);
    }
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    static const struct { uint64_t *msr; uint64_t bit; const char *name; } needed[] = {
        { &msrs.pin, PIN_VIRTUAL_NMI, "virtual NMIs" },
        { &msrs.processor, CPU_TPR_SHADOW, "TPR shadow" },
        { &msrs.processor, CPU_NMI_WINDOW, "NMI-window" },
        { &msrs.secondary, CPU2_UNRESTRICTED, "unrestricted guest" },
        { &msrs.exit, EXIT_LOAD_EFER, "IA32_EFER" },
        { &msrs.entry, ENTRY_IA32E, "64-bit guests" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(needed); i++) {
        setup(NULL);
        *needed[i].msr &= ~(needed[i].bit << 32);
        assert_false(compute());
        assert_non_null(strstr(why, needed[i].name));
    }
    setup(NULL);
    msrs.processor |= CPU_CR3_LOAD; /* cannot be switched off */
    assert_false(compute());
    assert_non_null(strstr(why, "TRUE control"));
}

static void fixed_bits_are_kept(void **state)
{
    (void)state;
    msrs.secondary |= CPU2_WBINVD;
    msrs.exit |= BIT(1);
    assert_true(compute());
    assert_true(caps.secondary & CPU2_WBINVD);
    assert_true(caps.exit & BIT(1));
    assert_int_equal(caps.cr0_set, 0x20); /* PE and PG are the guest's */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(everything), TEST(the_apic_is_virtualized_in_whole_or_not), TEST(what_is_missing_is_named), TEST(fixed_bits_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
