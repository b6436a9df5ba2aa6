/* SPDX-License-Identifier: MIT */
/*
 * From what a CPU says of itself to what is done. Guarded, for CPUs as their makers describe them: each known weakness is
 * answered, none that the CPU says it does not have, and no instruction is planned that the CPU does not have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/speculation.h"

#define INTEL .intel = true, .family = 6
#define AMD .amd = true

static void test_intel(void **state)
{
    (void)state;
    /* Skylake-SP with the microcode of 2019: no ARCH_CAPABILITIES. */
    struct speculation s = speculation_plan(&(struct speculation_facts){
        INTEL, .model = 0x55, .leaf7_ebx = BIT(11), .leaf7_edx = BIT(10) | BIT(26) | BIT(27) | BIT(28) | BIT(31) });
    assert_false(s.always_ibrs);
    assert_true(s.ibpb && s.barrier_on_exit && !s.return_on_exit);
    assert_true(s.verw && s.clear_on_entry && s.flush_l1d && s.small_code);

    /* The same before any of it was known: there is nothing to do it with. */
    s = speculation_plan(&(struct speculation_facts){ INTEL, .model = 0x55, .leaf7_ebx = BIT(11) });
    assert_false(s.ibpb || s.barrier_on_exit || s.verw || s.clear_on_entry || s.flush_l1d);
    assert_true(s.small_code);

    /* Cascade Lake: RDCL_NO, IBRS_ALL, SKIP_L1DFL, MDS_NO, TSX_CTRL; still TAA, MMIO stale data, multihit. */
    s = speculation_plan(&(struct speculation_facts){
        INTEL, .model = 0x55, .leaf7_ebx = BIT(11), .leaf7_edx = BIT(10) | BIT(26) | BIT(28) | BIT(29),
        .arch_capabilities = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(7) | BIT(17) });
    assert_true(s.always_ibrs && s.return_on_exit && s.clear_on_entry && !s.flush_l1d && s.small_code);
    assert_true(s.barrier_on_exit); /* indirect target selection */

    /* The same, if its microcode says that this is not so; and without a barrier that could be executed. */
    struct speculation_facts cascade = { INTEL, .model = 0x55, .leaf7_edx = BIT(10) | BIT(26) | BIT(28) | BIT(29),
                                         .arch_capabilities = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(62) };
    assert_false(speculation_plan(&cascade).barrier_on_exit);
    cascade.arch_capabilities &= ~BIT(62);
    assert_true(speculation_plan(&cascade).barrier_on_exit);
    cascade.leaf7_edx &= ~(uint32_t)BIT(26);
    assert_false(speculation_plan(&cascade).barrier_on_exit);

    /* Ice Lake-SP: MMIO stale data is left, until the CPU says that it is not. Target selection does not leave the guest. */
    struct speculation_facts ice = { INTEL, .model = 0x6a, .leaf7_edx = BIT(10) | BIT(26) | BIT(28) | BIT(29),
                                     .arch_capabilities = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(17) };
    s = speculation_plan(&ice);
    assert_true(s.clear_on_entry && !s.small_code && !s.flush_l1d && s.return_on_exit);
    ice.arch_capabilities |= BIT(13) | BIT(14);
    assert_true(speculation_plan(&ice).clear_on_entry);
    ice.arch_capabilities |= BIT(15) | BIT(24);
    s = speculation_plan(&ice);
    assert_false(s.clear_on_entry || s.return_on_exit || s.barrier_on_exit);
    assert_true(s.ibpb);

    /* Sapphire Rapids: branch history is left to BHI_DIS_S, unless the CPU says that it needs none. */
    struct speculation_facts rapids = { INTEL, .model = 0x8f, .leaf7_edx = BIT(10) | BIT(26) | BIT(29), .leaf7_2_edx = BIT(4),
                                        .arch_capabilities = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(8) };
    assert_true(speculation_plan(&rapids).no_history);
    rapids.arch_capabilities |= BIT(20);
    assert_false(speculation_plan(&rapids).no_history);
    rapids.arch_capabilities &= ~(BIT(20) | BIT(1));
    assert_false(speculation_plan(&rapids).no_history);

    /* Gracemont: register file data sampling. */
    struct speculation_facts atom = { INTEL, .model = 0xbe, .leaf7_edx = BIT(10) | BIT(26) | BIT(29),
                                      .arch_capabilities = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(28) };
    assert_true(speculation_plan(&atom).clear_on_entry);
    atom.arch_capabilities = (atom.arch_capabilities & ~BIT(28)) | BIT(27);
    assert_false(speculation_plan(&atom).clear_on_entry);

    /* Goldmont is not open to multihit, though it does not say so. */
    assert_false(speculation_plan(&(struct speculation_facts){ INTEL, .model = 0x5c }).small_code);
}

static void test_amd(void **state)
{
    (void)state;
    /* Zen 2: no automatic IBRS. */
    struct speculation s = speculation_plan(&(struct speculation_facts){ AMD, .family = 0x17, .model = 0x31,
                                                                         .ext8_ebx = BIT(12) | BIT(14) | BIT(15) });
    assert_true(s.ibpb && s.barrier_on_exit);
    assert_false(s.auto_ibrs || s.return_on_exit || s.clear_on_entry || s.flush_l1d || s.small_code);
    /* Zen 4: automatic IBRS, but SRSO. */
    struct speculation_facts zen4 = { AMD, .family = 0x19, .model = 0x11, .ext8_ebx = BIT(12), .ext21_eax = BIT(8) };
    assert_true(speculation_plan(&zen4).barrier_on_exit && speculation_plan(&zen4).auto_ibrs);
    zen4.ext21_eax |= BIT(29);
    assert_false(speculation_plan(&zen4).barrier_on_exit);
    /* Zen 4 with the microcode against transient scheduler attacks. */
    zen4.ext21_eax |= BIT(5);
    assert_true(speculation_plan(&zen4).clear_on_entry);
    zen4.ext21_ecx = BIT(1);
    assert_true(speculation_plan(&zen4).clear_on_entry);
    zen4.ext21_ecx = BIT(1) | BIT(2);
    assert_false(speculation_plan(&zen4).clear_on_entry);
    /* Zen 5. */
    s = speculation_plan(&(struct speculation_facts){ AMD, .family = 0x1a, .ext8_ebx = BIT(12), .ext21_eax = BIT(8) });
    assert_false(s.barrier_on_exit);
    /* Another vendor's bits mean nothing. */
    s = speculation_plan(&(struct speculation_facts){ AMD, .family = 0x19, .ext21_eax = BIT(8) | BIT(29),
                                                      .leaf7_edx = BIT(10) | BIT(28), .arch_capabilities = UINT64_MAX });
    assert_false(s.always_ibrs || s.verw || s.flush_l1d || s.clear_on_entry);
}

/* Whatever the CPU says: nothing is planned for which it has no instruction. */
static void test_never_without_the_means(void **state)
{
    (void)state;
    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        struct speculation_facts f = { .family = (uint32_t)rand() % 32, .model = (uint32_t)rand() % 256,
                                       .leaf7_ebx = (uint32_t)rand(), .leaf7_edx = (uint32_t)rand(),
                                       .arch_capabilities = (uint64_t)(uint32_t)rand(), .ext8_ebx = (uint32_t)rand(),
                                       .ext21_eax = (uint32_t)rand(), .ext21_ecx = (uint32_t)rand() };
        f.intel = i % 3 == 0;
        f.amd = i % 3 == 1;
        struct speculation s = speculation_plan(&f);
        assert_true(!s.barrier_on_exit || s.ibpb);
        assert_true(!s.clear_on_entry || s.verw);
        assert_true(!s.flush_l1d || (f.leaf7_edx & BIT(28)));
        assert_true(!s.ibpb || (f.leaf7_edx & BIT(26)) || (f.ext8_ebx & BIT(12)));
        if (i % 3 == 2)
            assert_false(s.ibpb || s.verw || s.flush_l1d || s.small_code || s.always_ibrs || s.auto_ibrs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intel), cmocka_unit_test(test_amd), cmocka_unit_test(test_never_without_the_means),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
