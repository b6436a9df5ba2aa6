/* SPDX-License-Identifier: MIT */
/*
 * Second-stage faults with simulated CPUs (fake_mmu.h). Promises guarded: a guest reaches its own RAM, all of it and
 * nothing else; frames arrive zeroed; 1 GiB leaves come where they may, without stale translations; the tables' memory
 * is accounted to the VM and given back; lack of memory is reported, not fatal.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_memory.h"
#include "fake_mmu.h"

#define RAM (6 * GIB)

static struct vm_core core;
static struct gmem gmem;
static struct stage2 stage2;
static struct page_totals totals_before;

static void start(uint64_t bytes, const struct pt_format *format, uint64_t max_leaf)
{
    fake_memory_start(RAM);
    memset(&core, 0, sizeof core);
    page_totals_get(&totals_before);
    assert_true(page_owner_create("demo", &core.owner));
    assert_int_equal(gmem_create(&gmem, &core, bytes), OK);
    assert_int_equal(stage2_create(&stage2, &core, &gmem, format, max_leaf), OK);
}

static void check_accounts(void)
{
    struct page_usage usage;

    assert_true(page_owner_usage(core.owner, &usage));
    assert_int_equal(usage.bytes, gmem.bytes + (gmem.table_pages + stage2.table_pages + stage2.log.run_pages +
                                                core.stage2.table_count) * PAGE_BYTES);
}

static void stop(void)
{
    struct page_totals after;

    check_accounts();
    stage2_destroy(&stage2);
    gmem_destroy(&gmem);
    assert_int_equal(core.stage2.table_count, 0);
    page_owner_destroy(core.owner);
    page_totals_get(&after);
    assert_memory_equal(&totals_before, &after, sizeof after);
    fake_memory_stop();
}

/* Lets the test touch gigabytes: frames count as zeroed, which fresh test memory is. */
static void pretend_touched(uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++)
        gmem.frames[i] &= ~(uint32_t)GMEM_UNTOUCHED;
}

static void check_translation(uint64_t gpa, uint64_t expect_bytes)
{
    uint64_t bytes, rights;
    hpa_t hpa, own;

    assert_non_null(pt_leaf(&core.stage2, gpa, &bytes));
    assert_int_equal(bytes, expect_bytes);
    assert_true(pt_lookup(&core.stage2, gpa, &hpa, &rights));
    assert_true(gmem_hpa(&gmem, GPA(gpa), &own));
    assert_int_equal(hpa.v, own.v);
    assert_int_equal(rights & ~PT_USER, STAGE2_RAM_RIGHTS);
}

static void faults(const struct pt_format *format)
{
    static const uint64_t ram[] = { 0, 5, PAGE_BYTES, 2 * MIB, 3 * GIB - 8, 2 * GIB, 4 * GIB, 4 * GIB + 6 * MIB - 8 };
    static const uint64_t other[] = { 3 * GIB, 0xfee00000, 4 * GIB - 8, 4 * GIB + 6 * MIB, 8 * GIB, BIT(39), BIT(47),
                                      BIT(52) - 8, UINT64_MAX };
    uint64_t bytes;

    start(3 * GIB + 6 * MIB, format, HUGE_PAGE_BYTES);
    for (unsigned i = 0; i < ARRAY_COUNT(ram); i++) {
        assert_int_equal(stage2_fault(&stage2, GPA(ram[i]), i % 2 ? ACCESS_WRITE : ACCESS_FETCH), STAGE2_MAPPED);
        check_translation(ram[i], LARGE_PAGE_BYTES);
        assert_int_equal(stage2_fault(&stage2, GPA(ram[i]), ACCESS_WRITE), STAGE2_MAPPED); /* another vCPU was first */
        check_translation(ram[i], LARGE_PAGE_BYTES);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(other); i++) {
        assert_int_equal(stage2_fault(&stage2, GPA(other[i]), ACCESS_WRITE), STAGE2_NOT_RAM);
        assert_int_equal(stage2_fault(&stage2, GPA(other[i]), ACCESS_READ), STAGE2_NOT_RAM);
        assert_true(other[i] >= BIT(48) || !pt_leaf(&core.stage2, other[i], &bytes));
    }
    /* What is mapped for a backend lies beside it. */
    assert_int_equal(stage2_map(&stage2, GPA(0xfee00000), HPA(5 * GIB), PAGE_BYTES, PT_READ | PT_WRITE), OK);
    assert_int_equal(stage2_map(&stage2, GPA(0xfee00000), HPA(5 * GIB), PAGE_BYTES, PT_READ), ERR_EXISTS);
    assert_non_null(pt_leaf(&core.stage2, 0xfee00000, &bytes));
    assert_int_equal(stage2_unmap(&stage2, GPA(0xfee00000), PAGE_BYTES), OK);
    assert_null(pt_leaf(&core.stage2, 0xfee00000, &bytes));
    stop();
}

/* Every leaf above 4 KiB that can be executed from. */
static unsigned large_code(void)
{
    unsigned count = 0;
    uint64_t bytes;

    for (uint64_t gpa = 0; gpa < gmem_end(&gmem); gpa += LARGE_PAGE_BYTES) {
        const uint64_t *leaf = pt_leaf(&core.stage2, gpa, &bytes);
        count += leaf && bytes > PAGE_BYTES && (pt_entry_rights(core.stage2.format, *leaf) & PT_EXEC);
    }
    return count;
}

/* iTLB multihit: no large leaf is executable, a fetch splits its frame and no other, and all else is as ever. */
static void small_code(const struct pt_format *format)
{
    uint64_t bytes, tables;

    start(GIB + 6 * MIB, format, HUGE_PAGE_BYTES);
    stage2.small_code = true;
    pretend_touched(0, 515);
    for (uint64_t gpa = 0; gpa < GIB + 6 * MIB; gpa += LARGE_PAGE_BYTES)
        assert_int_equal(stage2_fault(&stage2, GPA(gpa), gpa % (4 * MIB) ? ACCESS_READ : ACCESS_WRITE), STAGE2_MAPPED);
    assert_non_null(pt_leaf(&core.stage2, 0, &bytes));
    assert_int_equal(bytes, LARGE_PAGE_BYTES); /* and not the GiB */
    assert_int_equal(large_code(), 0);
    tables = core.stage2.table_count;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(stage2_fault(&stage2, GPA(8 * MIB + 5 * PAGE_BYTES + i * PAGE_BYTES), ACCESS_FETCH), STAGE2_MAPPED);
    assert_int_equal(core.stage2.table_count, tables + 1);
    for (uint64_t gpa = 8 * MIB; gpa < 10 * MIB; gpa += PAGE_BYTES)
        check_translation(gpa, PAGE_BYTES); /* with all rights */
    assert_int_equal(stage2_fault(&stage2, GPA(8 * MIB), ACCESS_WRITE), STAGE2_MAPPED);
    assert_non_null(pt_leaf(&core.stage2, 10 * MIB, &bytes));
    assert_int_equal(bytes, LARGE_PAGE_BYTES);
    assert_int_equal(large_code(), 0);

    /* A first touch by a fetch needs no second fault. */
    stop();
    start(8 * MIB, format, HUGE_PAGE_BYTES);
    stage2.small_code = true;
    assert_int_equal(stage2_fault(&stage2, GPA(4 * MIB + 8), ACCESS_FETCH), STAGE2_MAPPED);
    check_translation(4 * MIB, PAGE_BYTES);
    assert_int_equal(stage2_fault(&stage2, GPA(3 * GIB), ACCESS_FETCH), STAGE2_NOT_RAM);
    stop();
}

static void small_code_ept(void **state) { (void)state; small_code(&pt_format_ept); }
static void small_code_npt(void **state) { (void)state; small_code(&pt_format_npt); }

static void faults_ept(void **state) { (void)state; faults(&pt_format_ept); }
static void faults_npt(void **state) { (void)state; faults(&pt_format_npt); }

/* Bytes of the frame's former owner are gone at the first look, through the table and through gmem. */
static void zeroed(void **state)
{
    struct fake_vcpu vcpu;
    uint64_t value;

    (void)state;
    start(8 * MIB, &pt_format_npt, LARGE_PAGE_BYTES);
    for (unsigned i = 0; i < 4; i++)
        memset(gmem_window(HPA((gmem.frames[i] & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES)), 0x5a, LARGE_PAGE_BYTES);
    vcpu_init(&vcpu, &stage2, 0);
    for (uint64_t gpa = 0; gpa < 8 * MIB; gpa += 8 * 509) {
        assert_true(vcpu_access(&vcpu, gpa, false, &value));
        assert_int_equal(value, 0);
    }
    assert_int_equal(vcpu.fault_count, 4);
    vcpu_done(&vcpu);
    stop();
}

/* 512 frames become one leaf when the last one comes, wherever that is; a CPU with old translations goes on. */
static void promotion(void **state)
{
    struct fake_vcpu vcpu;
    uint64_t value, bytes, tables;

    (void)state;
    start(5 * GIB + 4 * MIB, &pt_format_ept, HUGE_PAGE_BYTES);
    pretend_touched(0, gmem.low_frames + gmem.high_frames);
    vcpu_init(&vcpu, &stage2, 1);
    for (unsigned i = 0; i < 512; i++) {
        uint64_t gpa = GIB + (i * 77 + 13) % 512 * LARGE_PAGE_BYTES + 8;
        if (i == 511)
            check_translation(GIB + 13 * LARGE_PAGE_BYTES, LARGE_PAGE_BYTES);
        assert_true(vcpu_access(&vcpu, gpa, i % 3 == 0, &value));
    }
    check_translation(GIB, GIB);
    check_translation(2 * GIB - 8, GIB);
    assert_int_equal(vcpu.fault_count, 512);
    tables = core.stage2.table_count;
    for (unsigned i = 0; i < 512; i++)
        assert_true(vcpu_access(&vcpu, GIB + i * LARGE_PAGE_BYTES + 8, true, &value));
    assert_int_equal(vcpu.fault_count, 512);
    /* A stale fault of another vCPU after the promotion changes nothing. */
    assert_int_equal(stage2_fault(&stage2, GPA(GIB + 5 * MIB), ACCESS_WRITE), STAGE2_MAPPED);
    check_translation(GIB, GIB);
    assert_int_equal(core.stage2.table_count, tables);
    /* The last GiB (of the high region) is no whole piece, so its frames stay. */
    for (uint64_t gpa = 6 * GIB; gpa < 6 * GIB + 4 * MIB; gpa += LARGE_PAGE_BYTES)
        assert_int_equal(stage2_fault(&stage2, GPA(gpa), ACCESS_READ), STAGE2_MAPPED);
    check_translation(6 * GIB, LARGE_PAGE_BYTES);
    /* In the high region frames are counted from another start. */
    for (uint64_t gpa = 4 * GIB; gpa < 5 * GIB; gpa += LARGE_PAGE_BYTES)
        assert_int_equal(stage2_fault(&stage2, GPA(gpa), ACCESS_READ), STAGE2_MAPPED);
    check_translation(4 * GIB, GIB);
    assert_non_null(pt_leaf(&core.stage2, 4 * GIB, &bytes));
    vcpu_done(&vcpu);
    stop();
}

static void no_promotion(void **state)
{
    (void)state;
    start(GIB, &pt_format_npt, LARGE_PAGE_BYTES); /* the CPU has no 1 GiB leaves */
    pretend_touched(0, 512);
    for (uint64_t gpa = 0; gpa < GIB; gpa += LARGE_PAGE_BYTES)
        assert_int_equal(stage2_fault(&stage2, GPA(gpa), ACCESS_READ), STAGE2_MAPPED);
    check_translation(0, LARGE_PAGE_BYTES);
    stop();
}

static void no_memory(void **state)
{
    hpa_t page, hoard = { 0 };

    (void)state;
    start(4 * MIB, &pt_format_ept, LARGE_PAGE_BYTES);
    while (page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &page)) { /* each page points to the one before */
        *(uint64_t *)phys_to_virt(page) = hoard.v;
        hoard = page;
    }
    assert_int_equal(stage2_fault(&stage2, GPA(0), ACCESS_WRITE), STAGE2_NO_MEMORY);
    while (hoard.v) {
        page = hoard;
        hoard.v = *(uint64_t *)phys_to_virt(page);
        page_free(page, PAGE_BYTES, PAGE_OWNER_HV);
    }
    assert_int_equal(stage2_fault(&stage2, GPA(0), ACCESS_WRITE), STAGE2_MAPPED);
    stop();
}

#define THREADS 4
static struct fake_vcpu vcpus[THREADS];
static pthread_barrier_t barrier;

static void *racer(void *argument)
{
    struct fake_vcpu *vcpu = argument;
    uintptr_t bad = 0;
    uint64_t value;

    for (uint64_t frame = 0; frame < 32; frame++) {
        pthread_barrier_wait(&barrier);
        for (unsigned i = 1; i <= 5; i++) {
            bad += !vcpu_access(vcpu, frame * LARGE_PAGE_BYTES + vcpu->id * 8, true, &value);
            bad += value != i;
        }
    }
    return (void *)bad;
}

static void racing_vcpus(void **state)
{
    pthread_t threads[THREADS];
    void *bad;

    (void)state;
    start(64 * MIB, &pt_format_npt, LARGE_PAGE_BYTES);
    for (uint64_t i = 0; i < 32; i++)
        memset(gmem_window(HPA((gmem.frames[i] & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES)), 0x5a, LARGE_PAGE_BYTES);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        vcpu_init(&vcpus[i], &stage2, i);
        vcpus[i].ad = true;
        assert_int_equal(pthread_create(&threads[i], NULL, racer, &vcpus[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &bad);
        assert_int_equal((uintptr_t)bad, 0);
        vcpu_done(&vcpus[i]);
    }
    pthread_barrier_destroy(&barrier);
    assert_int_equal(stage2.mapped[0], 32); /* each frame was counted once */
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_code_ept), cmocka_unit_test(small_code_npt), cmocka_unit_test(faults_ept),
        cmocka_unit_test(faults_npt),     cmocka_unit_test(zeroed),         cmocka_unit_test(promotion),
        cmocka_unit_test(no_promotion),   cmocka_unit_test(no_memory),      cmocka_unit_test(racing_vcpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
