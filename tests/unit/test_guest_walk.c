/* SPDX-License-Identifier: MIT */
/*
 * Guest paging: every mode's walk, the rights of each kind of access, reserved bits, accessed and dirty bits, and what
 * happens when another vCPU changes the tables under a walk. The guest's memory is an array; the tables are built in
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/emulate.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define NX (1ull << 63)

#define MEMORY 0x40000u
static uint8_t memory[MEMORY];
static struct cpu_state state;
static struct event fault;
static gpa_t result;
static unsigned exchanges, reads, interfere;
static uint64_t interfere_at, interfere_value;

static bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    reads++;
    if (!range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(bytes, memory + gpa.v, count);
    return true;
}

static bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    (void)gpa;
    (void)bytes;
    (void)count;
    fail_msg("a walk never writes");
    return false;
}

static bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count, bool *equal)
{
    (void)context;
    exchanges++;
    if (interfere) {
        interfere--;
        memcpy(memory + interfere_at, &interfere_value, 8);
    }
    *equal = !memcmp(memory + gpa.v, expected, count);
    if (*equal)
        memcpy(memory + gpa.v, desired, count);
    return true;
}

static const void *mem_peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    return range_within(gpa.v, count, MEMORY) ? memory + gpa.v : NULL;
}

static struct emu_ops ops = { .read = mem_read, .write = mem_write, .compare_exchange = mem_exchange };

static void put(uint64_t at, uint64_t entry) { memcpy(memory + at, &entry, 8); }
static uint64_t get(uint64_t at)
{
    uint64_t entry;
    memcpy(&entry, memory + at, 8);
    return entry;
}
static void put32(uint64_t at, uint32_t entry) { memcpy(memory + at, &entry, 4); }

static int reset(void **unused)
{
    (void)unused;
    memset(memory, 0, sizeof(memory));
    memset(&state, 0, sizeof(state));
    ops.peek = mem_peek;
    exchanges = reads = interfere = 0;
    state.cr0 = CR0_PE | CR0_PG;
    return 0;
}

static bool walk(uint64_t gva, unsigned access)
{
    memset(&fault, 0, sizeof(fault));
    return guest_translate(&state, &ops, 40, GVA(gva), access, false, &result, &fault);
}

static void assert_fault(uint64_t gva, unsigned access, unsigned error)
{
    assert_false(walk(gva, access));
    assert_int_equal(fault.type, EVENT_EXCEPTION);
    assert_int_equal(fault.vector, EXC_PF);
    assert_true(fault.has_error);
    assert_int_equal(fault.error, error);
    assert_int_equal(fault.cr2, gva);
}

static void user_mode(bool user) { state.seg[SEG_SS].attributes = user ? 3u << SEG_DPL_SHIFT : 0; }

/* PML4 at 1000, PDPT 2000, PD 3000, PT 4000; the page at linear 0x8000201000 is 0x9000. Entry flags as given. */
#define LINEAR 0x8000201abcull
#define PML4E (0x1000 + 8 * 1)
#define PDPTE 0x2000
#define PDE (0x3000 + 8 * 1)
#define PTE (0x4000 + 8 * 1)
static void build_long(uint64_t flags)
{
    state.efer = EFER_LME | EFER_LMA;
    state.cr4 = CR4_PAE;
    state.cr3 = 0x1000;
    put(PML4E, 0x2000 | flags);
    put(PDPTE, 0x3000 | flags);
    put(PDE, 0x4000 | flags);
    put(PTE, 0x9000 | flags);
}

static void unpaged_is_identity(void **unused)
{
    (void)unused;
    state.cr0 = CR0_PE;
    assert_true(walk(0xfedcba98, ACCESS_WRITE));
    assert_int_equal(result.v, 0xfedcba98);
}

static void long_mode_sizes(void **unused)
{
    (void)unused;
    build_long(P | W | U | A | D);
    assert_true(walk(LINEAR, ACCESS_WRITE));
    assert_int_equal(result.v, 0x9abc);
    put(PDE, 0x40000000 | P | W | A | D | PS);
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_int_equal(result.v, 0x40001abc);
    put(PDPTE, 0x80000000 | P | W | A | D | PS);
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_int_equal(result.v, 0x80201abc);
    assert_int_equal(exchanges, 0);
}

static void five_levels(void **unused)
{
    (void)unused;
    build_long(P | W | U | A | D);
    put(0x5000 + 8 * 3, 0x1000 | P | W | A);
    state.cr3 = 0x5000;
    state.cr4 |= CR4_LA57;
    assert_true(walk((3ull << 48) | LINEAR, ACCESS_READ));
    assert_int_equal(result.v, 0x9abc);
    put(0x5000 + 8 * 3, 0x1000 | P | W | A | PS);
    assert_fault((3ull << 48) | LINEAR, ACCESS_READ, 9);
}

static void works_without_peek(void **unused)
{
    (void)unused;
    build_long(P | W | A | D);
    ops.peek = NULL;
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_int_equal(reads, 4);
}

static void non_canonical(void **unused)
{
    (void)unused;
    build_long(P | W);
    assert_false(walk(0x800000000000, ACCESS_READ));
    assert_int_equal(fault.vector, EXC_GP);
    assert_true(fault.has_error);
    assert_false(guest_translate(&state, &ops, 40, GVA(0xffff7fffffffffff), ACCESS_READ, true, &result, &fault));
    assert_int_equal(fault.vector, EXC_SS);
}

/* A level that is missing, at each level; and the error code's bits. */
static void not_present(void **unused)
{
    (void)unused;
    static const uint64_t entries[] = { PML4E, PDPTE, PDE, PTE };
    for (unsigned i = 0; i < 4; i++) {
        build_long(P | W | U);
        put(entries[i], get(entries[i]) & ~P);
        assert_fault(LINEAR, ACCESS_READ, 0);
        assert_fault(LINEAR, ACCESS_READ | ACCESS_WRITE, 2);
        assert_fault(LINEAR, ACCESS_FETCH, 0);
        state.efer |= EFER_NXE;
        assert_fault(LINEAR, ACCESS_FETCH, 16);
        user_mode(true);
        assert_fault(LINEAR, ACCESS_FETCH, 20);
        assert_fault(LINEAR, ACCESS_READ | ACCESS_IMPLICIT, 0);
        user_mode(false);
    }
    assert_int_equal(exchanges, 0);
}

/* The most restrictive level decides, for W and U alike. */
static void rights_combine(void **unused)
{
    (void)unused;
    static const uint64_t entries[] = { PML4E, PDPTE, PDE, PTE };
    for (unsigned i = 0; i < 4; i++) {
        build_long(P | W | U);
        put(entries[i], get(entries[i]) & ~W);
        assert_true(walk(LINEAR, ACCESS_WRITE));
        state.cr0 |= CR0_WP;
        assert_fault(LINEAR, ACCESS_WRITE, 3);
        state.cr0 &= ~CR0_WP;
        user_mode(true);
        assert_fault(LINEAR, ACCESS_WRITE, 7);
        assert_true(walk(LINEAR, ACCESS_READ));
        build_long(P | W | U);
        put(entries[i], get(entries[i]) & ~U);
        assert_fault(LINEAR, ACCESS_READ, 5);
        assert_true(walk(LINEAR, ACCESS_READ | ACCESS_IMPLICIT));
        user_mode(false);
        assert_true(walk(LINEAR, ACCESS_READ));
    }
}

static void execute_disable(void **unused)
{
    (void)unused;
    static const uint64_t entries[] = { PML4E, PDPTE, PDE, PTE };
    for (unsigned i = 0; i < 4; i++) {
        build_long(P | W);
        put(entries[i], get(entries[i]) | NX);
        assert_fault(LINEAR, ACCESS_READ, 9); /* reserved while NXE is clear */
        state.efer |= EFER_NXE;
        assert_true(walk(LINEAR, ACCESS_READ));
        assert_fault(LINEAR, ACCESS_FETCH, 17);
    }
}

static void smep_and_smap(void **unused)
{
    (void)unused;
    build_long(P | W | U);
    state.cr4 |= CR4_SMEP;
    assert_fault(LINEAR, ACCESS_FETCH, 17);
    assert_true(walk(LINEAR, ACCESS_READ));
    state.cr4 |= CR4_SMAP;
    assert_fault(LINEAR, ACCESS_READ, 1);
    assert_fault(LINEAR, ACCESS_WRITE, 3);
    state.rflags |= RFLAGS_AC;
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_fault(LINEAR, ACCESS_READ | ACCESS_IMPLICIT, 1);
    state.rflags = 0;
    user_mode(true);
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_true(walk(LINEAR, ACCESS_FETCH));
    assert_fault(LINEAR, ACCESS_READ | ACCESS_IMPLICIT, 1);
}

static void protection_keys(void **unused)
{
    (void)unused;
    build_long(P | W | U);
    put(PTE, get(PTE) | (5ull << 59));
    state.cr4 |= CR4_PKE;
    user_mode(true);
    assert_true(walk(LINEAR, ACCESS_WRITE));
    state.pkru = 2u << 10; /* key 5: no writes */
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_fault(LINEAR, ACCESS_WRITE, 0x27);
    state.pkru = 1u << 10; /* no access */
    assert_fault(LINEAR, ACCESS_READ, 0x25);
    assert_true(walk(LINEAR, ACCESS_FETCH));
    user_mode(false);
    state.pkru = 2u << 10;
    assert_true(walk(LINEAR, ACCESS_WRITE));
    state.cr0 |= CR0_WP;
    assert_fault(LINEAR, ACCESS_WRITE, 0x23);
}

static void reserved_bits(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t at, bits;
    } cases[] = {
        { PML4E, 1ull << 40 },
        { PDPTE, 1ull << 51 },
        { PDE, 1ull << 45 },
        { PTE, 1ull << 40 },
        { PML4E, PS },
        { PDE, PS | 0x2000 },
        { PDE, PS | 0x100000 },
        { PDPTE, PS | 0x200000 },
        { PDPTE, PS | 0x20000000 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        build_long(P | W);
        put(PDPTE, get(PDPTE) & ~(cases[i].bits & PS ? 0x3000ull : 0));
        put(PDE, get(PDE) & ~(cases[i].bits & PS ? 0x4000ull : 0));
        if (cases[i].at == PDE)
            put(PDPTE, 0x3000 | P | W);
        put(cases[i].at, get(cases[i].at) | cases[i].bits);
        assert_fault(LINEAR, ACCESS_READ, 9);
    }
    /* Bits that are ignored, and the PAT bit of a large page, are not reserved. */
    build_long(P | W);
    put(PTE, get(PTE) | 0x7ff0000000000e80ull);
    assert_true(walk(LINEAR, ACCESS_READ));
    put(PDE, P | W | PS | 0x1000);
    assert_true(walk(LINEAR, ACCESS_READ));
}

/* Tables where there is no memory read as all ones: a reserved bit, not a crash. */
static void tables_outside_memory(void **unused)
{
    (void)unused;
    build_long(P | W);
    put(PDE, 0x7f000000 | P | W);
    assert_fault(LINEAR, ACCESS_READ, 9);
}

static void accessed_and_dirty(void **unused)
{
    (void)unused;
    build_long(P | W | U);
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_int_equal(exchanges, 4);
    assert_int_equal(get(PML4E), 0x2000 | P | W | U | A);
    assert_int_equal(get(PTE), 0x9000 | P | W | U | A);
    assert_true(walk(LINEAR, ACCESS_WRITE));
    assert_int_equal(exchanges, 5);
    assert_int_equal(get(PTE), 0x9000 | P | W | U | A | D);
    assert_int_equal(get(PDE), 0x4000 | P | W | U | A);
    assert_true(walk(LINEAR, ACCESS_WRITE));
    assert_int_equal(exchanges, 5);
    /* A forbidden access marks nothing. */
    build_long(P);
    state.cr0 |= CR0_WP;
    assert_fault(LINEAR, ACCESS_WRITE, 3);
    assert_int_equal(get(PML4E), 0x2000 | P);
    assert_int_equal(exchanges, 5);
}

/* Another vCPU moves the page just before the accessed bit is set: the walk must give the new page. */
static void tables_change_during_walk(void **unused)
{
    (void)unused;
    build_long(P | W);
    interfere = 1;
    interfere_at = PTE;
    interfere_value = 0xa000 | P | W;
    put(PML4E, get(PML4E) | A);
    put(PDPTE, get(PDPTE) | A);
    put(PDE, get(PDE) | A);
    assert_true(walk(LINEAR, ACCESS_READ));
    assert_int_equal(result.v, 0xaabc);
    assert_int_equal(get(PTE), 0xa000 | P | W | A);
    /* Or takes it away. */
    build_long(P | W);
    interfere = 1;
    interfere_value = 0;
    assert_fault(LINEAR, ACCESS_READ, 0);
}

static void pae(void **unused)
{
    (void)unused;
    state.cr4 = CR4_PAE;
    state.cr3 = 0x1020;
    put(0x1020 + 8 * 2, 0x3000 | P);
    put(0x3000 + 8 * 1, 0x4000 | P | W | U);
    put(0x4000 + 8 * 1, 0x9000 | P | W | U);
    assert_true(walk(0x80201123, ACCESS_WRITE)); /* the PDPTEs come from memory while the state caches none */
    assert_int_equal(result.v, 0x9123);
    put(0x1020 + 8 * 2, 0x3000 | P | A); /* as a CPU may leave one that it walked itself */
    assert_true(walk(0x80201123, ACCESS_READ));
    state.pdpte[2] = 0x5000 | P;
    put(0x5000 + 8 * 1, 0x40000000 | P | W | PS);
    assert_true(walk(0x80201123, ACCESS_WRITE));
    assert_int_equal(result.v, 0x40001123);
    assert_fault(0x201123, ACCESS_READ, 0);
    put(0x5000 + 8 * 1, 0x40000000 | P | W | PS | (1ull << 52));
    assert_fault(0x80201123, ACCESS_READ, 9);
    put(0x5000 + 8 * 1, 0x40000000 | P | W | PS | NX);
    assert_fault(0x80201123, ACCESS_READ, 9);
    state.efer = EFER_NXE;
    assert_fault(0x80201123, ACCESS_FETCH, 17);
    state.pdpte[2] |= W; /* reserved in a PDPTE */
    assert_fault(0x80201123, ACCESS_READ, 9);
}

static void two_levels(void **unused)
{
    (void)unused;
    state.cr3 = 0x1000;
    put32(0x1000 + 4 * 0x200, (uint32_t)(0x2000 | P | W | U));
    put32(0x2000 + 4 * 0x201, (uint32_t)(0x9000 | P | W | U));
    assert_true(walk(0x80201456, ACCESS_WRITE));
    assert_int_equal(result.v, 0x9456);
    assert_int_equal(get(0x2000 + 4 * 0x201) & 0xffffffff, 0x9000 | P | W | U | A | D);
    assert_int_equal(get(0x1000 + 4 * 0x200) & 0xffffffff, 0x2000 | P | W | U | A);
    /* Four MiB pages, above 4 GiB by PSE-36; without CR4.PSE the bit means nothing. */
    put32(0x1000 + 4 * 0x200, (uint32_t)(0x00400000 | P | W | PS | (5u << 13)));
    state.cr4 = CR4_PSE;
    assert_true(walk(0x80201456, ACCESS_READ));
    assert_int_equal(result.v, 0x500601456);
    put32(0x1000 + 4 * 0x200, (uint32_t)(P | W | PS | (1u << 21)));
    assert_fault(0x80201456, ACCESS_READ, 9);
    put32(0x1000 + 4 * 0x200, (uint32_t)(0x2000 | P | PS));
    state.cr4 = 0;
    assert_true(walk(0x80201456, ACCESS_READ));
    state.cr0 |= CR0_WP;
    assert_fault(0x80201456, ACCESS_WRITE, 3);
    user_mode(true);
    assert_fault(0x80201456, ACCESS_READ, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(unpaged_is_identity, reset),
        cmocka_unit_test_setup(long_mode_sizes, reset),
        cmocka_unit_test_setup(five_levels, reset),
        cmocka_unit_test_setup(works_without_peek, reset),
        cmocka_unit_test_setup(non_canonical, reset),
        cmocka_unit_test_setup(not_present, reset),
        cmocka_unit_test_setup(rights_combine, reset),
        cmocka_unit_test_setup(execute_disable, reset),
        cmocka_unit_test_setup(smep_and_smap, reset),
        cmocka_unit_test_setup(protection_keys, reset),
        cmocka_unit_test_setup(reserved_bits, reset),
        cmocka_unit_test_setup(tables_outside_memory, reset),
        cmocka_unit_test_setup(accessed_and_dirty, reset),
        cmocka_unit_test_setup(tables_change_during_walk, reset),
        cmocka_unit_test_setup(pae, reset),
        cmocka_unit_test_setup(two_levels, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
