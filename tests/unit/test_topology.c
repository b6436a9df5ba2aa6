/* SPDX-License-Identifier: MIT */
/*
 * Topology from CPUID, and where guests' CPUs are put. Guarded: two threads of one core are never taken for two cores,
 * for any vendor's layout of APIC IDs; nonsense in CPUID makes no field wider than an APIC ID; VMs are spread over cores.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/placement.h"
#include "kernel/topology.h"

struct leaf { uint32_t leaf, subleaf; struct cpuid_regs r; };
static const struct leaf *leaves;
static unsigned leaf_count;

static struct cpuid_regs read_leaf(uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < leaf_count; i++)
        if (leaves[i].leaf == leaf && leaves[i].subleaf == subleaf)
            return leaves[i].r;
    return (struct cpuid_regs){ 0 };
}

#define FIND(table, amd) (leaves = (table), leaf_count = ARRAY_COUNT(table), topology_find(read_leaf, amd))

static void check(struct topology t, unsigned thread_bits, unsigned package_bits, const char *source)
{
    assert_int_equal(t.thread_bits, thread_bits);
    assert_int_equal(t.package_bits, package_bits);
    assert_string_equal(t.source, source);
}

/* A server of 28 cores with two threads each: leaf 0BH alone. */
static const struct leaf intel_0b[] = {
    { 0, 0, { 0x16, 0, 0, 0 } }, { 0x80000000, 0, { 0x80000008, 0, 0, 0 } },
    { 1, 0, { 0x50657, 0x00400800, 0, BIT(28) } }, { 4, 0, { 0x7c004121, 0, 0, 0 } },
    { 0xb, 0, { 1, 2, 0x100, 0 } }, { 0xb, 1, { 6, 56, 0x201, 0 } }, { 0xb, 2, { 0, 0, 2, 0 } },
};
/* Leaf 1FH with tiles and dies above the cores; 0BH beside it knows less. */
static const struct leaf intel_1f[] = {
    { 0, 0, { 0x20, 0, 0, 0 } }, { 0x80000000, 0, { 0x80000008, 0, 0, 0 } },
    { 0x1f, 0, { 1, 2, 0x100, 0 } }, { 0x1f, 1, { 5, 24, 0x201, 0 } }, { 0x1f, 2, { 6, 48, 0x402, 0 } },
    { 0x1f, 3, { 7, 96, 0x503, 0 } }, { 0xb, 0, { 1, 2, 0x100, 0 } }, { 0xb, 1, { 6, 48, 0x201, 0 } },
};
/* SMT switched off in the firmware: the field of the thread may stay in the APIC ID, or be gone. */
static const struct leaf intel_off[] = {
    { 0, 0, { 0x16, 0, 0, 0 } }, { 0xb, 0, { 0, 1, 0x100, 0 } }, { 0xb, 1, { 5, 28, 0x201, 0 } },
};
/* Before 0BH: 16 numbers a package, 4 cores in it, so 4 threads a core. */
static const struct leaf intel_4[] = {
    { 0, 0, { 0xa, 0, 0, 0 } }, { 1, 0, { 0x6f0, 0x00100800, 0, BIT(28) } }, { 4, 0, { 3u << 26, 0, 0, 0 } },
};
/* A package of 6 cores without threads: its fields are as wide as 8. */
static const struct leaf intel_6[] = {
    { 0, 0, { 0xa, 0, 0, 0 } }, { 1, 0, { 0x6f0, 0x00080800, 0, BIT(28) } }, { 4, 0, { 5u << 26, 0, 0, 0 } },
};
static const struct leaf intel_one[] = {
    { 0, 0, { 4, 0, 0, 0 } }, { 1, 0, { 0x6f0, 0xff, 0, 0 } }, { 4, 0, { 0, 0, 0, 0 } },
};
/* Zen 2: 0BH and 8000_001EH. */
static const struct leaf amd_zen2[] = {
    { 0, 0, { 0x10, 0, 0, 0 } }, { 0x80000000, 0, { 0x8000001e, 0, 0, 0 } }, { 0x80000001, 0, { 0, 0, BIT(22), 0 } },
    { 0xb, 0, { 1, 2, 0x100, 0 } }, { 0xb, 1, { 7, 128, 0x201, 0 } }, { 0x8000001e, 0, { 0, 0x100, 0, 0 } },
};
/* Zen 4: 8000_0026H with core, complex, die. */
static const struct leaf amd_zen4[] = {
    { 0, 0, { 0x10, 0, 0, 0 } }, { 0x80000000, 0, { 0x80000028, 0, 0, 0 } },
    { 0xb, 0, { 1, 2, 0x100, 0 } }, { 0xb, 1, { 7, 128, 0x201, 0 } },
    { 0x80000026, 0, { 1, 2, 0x100, 0 } }, { 0x80000026, 1, { 4, 16, 0x201, 0 } }, { 0x80000026, 2, { 8, 192, 0x302, 0 } },
};
/* Zen 1: 8000_001EH alone. */
static const struct leaf amd_zen1[] = {
    { 0, 0, { 0xd, 0, 0, 0 } }, { 0x80000000, 0, { 0x8000001f, 0, 0, 0 } }, { 0x80000001, 0, { 0, 0, BIT(22), 0 } },
    { 1, 0, { 0, 0x00100800, 0, BIT(28) } }, { 0x80000008, 0, { 0, 0, 0x400f, 0 } }, { 0x8000001e, 0, { 0, 0x100, 0, 0 } },
};
/* Family 15H: compute units of two cores. */
static const struct leaf amd_15h[] = {
    { 0, 0, { 0xd, 0, 0, 0 } }, { 0x80000000, 0, { 0x8000001e, 0, 0, 0 } }, { 0x80000001, 0, { 0, 0, BIT(22), 0 } },
    { 1, 0, { 0, 0x00080800, 0, BIT(28) } }, { 0x80000008, 0, { 0, 0, 0x3007, 0 } }, { 0x8000001e, 0, { 0, 0x103, 0, 0 } },
};
/* Family 10H: cores only. */
static const struct leaf amd_10h[] = {
    { 0, 0, { 5, 0, 0, 0 } }, { 0x80000000, 0, { 0x8000001b, 0, 0, 0 } }, { 1, 0, { 0, 0x00060800, 0, BIT(28) } },
    { 0x80000008, 0, { 0, 0, 0x3005, 0 } },
};
/* Every field as large as it can be, in an endless list of levels. */
static struct cpuid_regs read_ones(uint32_t leaf, uint32_t subleaf)
{
    (void)subleaf;
    if (!(leaf & 0x7fffffff))
        return (struct cpuid_regs){ leaf + 0x80, 0, 0, 0 };
    return (struct cpuid_regs){ ~0u, ~0u, 0x1ff, ~0u };
}

static void test_layouts(void **state)
{
    (void)state;
    check(FIND(intel_0b, false), 1, 6, "0BH");
    check(FIND(intel_1f, false), 1, 7, "1FH");
    check(FIND(intel_off, false), 0, 5, "0BH");
    check(FIND(intel_4, false), 2, 4, "4");
    check(FIND(intel_6, false), 0, 3, "4");
    check(FIND(intel_one, false), 0, 0, "4");
    check(FIND(amd_zen2, true), 1, 7, "0BH");
    check(FIND(amd_zen4, true), 1, 8, "8000_0026H");
    check(FIND(amd_zen1, true), 1, 4, "8000_001EH");
    check(FIND(amd_15h, true), 1, 3, "8000_001EH");
    check(FIND(amd_10h, true), 0, 3, "8000_0008H");
    check(FIND(amd_zen4, false), 1, 7, "0BH"); /* AMD's leaves are AMD's alone */
}

static void test_nonsense(void **state)
{
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        struct topology t = topology_find(read_ones, amd);
        assert_true(t.thread_bits <= t.package_bits && t.package_bits <= 32);
        (void)topology_core(&t, ~0u);
        (void)topology_package(&t, ~0u);
    }
    struct topology wide = { 32, 32, "" };
    assert_int_equal(topology_core(&wide, 0xffffffff), 0);
    assert_int_equal(topology_thread(&wide, 0xffffffff), 0xffffffff);
}

static void test_numbers(void **state)
{
    struct topology t = { 1, 6, "" };
    (void)state;

    assert_int_equal(topology_core(&t, 0x43), 0x21);
    assert_int_equal(topology_core(&t, 0x42), 0x21);
    assert_int_equal(topology_thread(&t, 0x43), 1);
    assert_int_equal(topology_package(&t, 0x43), 1);
    assert_int_not_equal(topology_core(&t, 0x03), topology_core(&t, 0x43)); /* the same core of two packages */
}

/* Puts `count` CPUs of one VM; where they went, as text of digits. */
static void put(struct placement_cpu *cpu, unsigned cpus, unsigned count, bool apart, const char *expected)
{
    char where[16] = "";

    for (unsigned i = 0; i < cpus; i++)
        cpu[i].mine = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = placement_pick(cpu, cpus, apart);
        cpu[at].guests++;
        cpu[at].mine++;
        where[i] = (char)('0' + at);
    }
    assert_string_equal(where, expected);
}

static void test_placement(void **state)
{
    (void)state;
    struct placement_cpu smt[4] = { { .core = 0 }, { .core = 0 }, { .core = 1 }, { .core = 1 } };
    put(smt, 4, 2, true, "02"); /* a core each, as long as there are free ones */
    put(smt, 4, 4, true, "1302"); /* none is left: evenly */

    struct placement_cpu two[4] = { { .core = 0 }, { .core = 0 }, { .core = 1 }, { .core = 1 } };
    put(two, 4, 1, true, "0");
    put(two, 4, 2, true, "23"); /* the other thread of its own core, before a thread of another VM's core */
    put(two, 4, 2, true, "10"); /* a CPU that nobody uses; then the core with the fewest of others */

    struct placement_cpu shared[4] = { { .core = 0 }, { .core = 0 }, { .core = 1 }, { .core = 1 } };
    put(shared, 4, 1, false, "0");
    put(shared, 4, 3, false, "213"); /* free cores first, then free threads */

    struct placement_cpu plain[3] = { { .core = 0 }, { .core = 1 }, { .core = 2 } };
    put(plain, 3, 2, true, "01");
    put(plain, 3, 3, false, "201");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_nonsense), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_placement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
