/* SPDX-License-Identifier: MIT */
/*
 * The guest that the tests of the dirty log share: some memory, simulated CPUs (fake_mmu.h) that keep stale translations
 * as long as they may, and a copy of the guest's memory, to which the reported pages are copied after each collect as a
 * live migration would do. Each test program includes it once.
 */
#ifndef DIRTY_FIXTURE_H
#define DIRTY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_memory.h"
#include "fake_mmu.h"

#define RAM (6 * GIB)
#define VCPUS 4
#define HYPERVISOR VCPUS    /* the writer number of gmem_write */
#define PAGES (48 * MIB / PAGE_BYTES) /* of a guest that is written: 32 MiB low, 16 MiB from 4 GiB on */
#define LOW_PAGES (32 * MIB / PAGE_BYTES)

static struct vm_core core;
static struct gmem gmem;
static struct stage2 stage2;
static struct fake_vcpu vcpus[VCPUS];
static struct page_totals totals_before;
static uint64_t *out;        /* as dirty_log_collect fills it */
static uint64_t out_words;
static uint64_t (*copy)[8];  /* the first 64 bytes of each page, as last copied */

/* Test pages 0 .. PAGES - 1 as guest physical addresses. */
static uint64_t gpa_of(uint64_t page)
{
    return page < LOW_PAGES ? page * PAGE_BYTES : 4 * GIB + (page - LOW_PAGES) * PAGE_BYTES;
}

static inline bool reported(uint64_t page)
{
    uint64_t gfn = gpa_of(page) / PAGE_BYTES;
    return out[gfn / 64] >> gfn % 64 & 1;
}

/* ---- Set-up ---- */

struct variant {
    const struct pt_format *format;
    enum dirty_engine engine;
    bool ad, small_code;
};

static const struct variant variants[] = {
    { &pt_format_ept, DIRTY_WRITE_PROTECT, false, false }, { &pt_format_ept, DIRTY_WRITE_PROTECT, true, false },
    { &pt_format_npt, DIRTY_WRITE_PROTECT, true, false },  { &pt_format_ept, DIRTY_ACCESSED_DIRTY, true, false },
    { &pt_format_npt, DIRTY_ACCESSED_DIRTY, true, false }, { &pt_format_ept, DIRTY_PML, true, false },
    { &pt_format_ept, DIRTY_WRITE_PROTECT, false, true },  { &pt_format_ept, DIRTY_ACCESSED_DIRTY, true, true },
    { &pt_format_ept, DIRTY_PML, true, true },             { &pt_format_npt, DIRTY_ACCESSED_DIRTY, true, true },
};

static void fixture_start(const struct variant *variant, uint64_t ram, uint64_t bytes)
{
    fake_memory_start(ram);
    memset(&core, 0, sizeof core);
    page_totals_get(&totals_before);
    assert_true(page_owner_create("demo", &core.owner));
    assert_int_equal(gmem_create(&gmem, &core, bytes), OK);
    assert_int_equal(stage2_create(&stage2, &core, &gmem, variant->format, HUGE_PAGE_BYTES), OK);
    stage2.small_code = variant->small_code;
    for (unsigned i = 0; i < VCPUS; i++) {
        vcpu_init(&vcpus[i], &stage2, i);
        vcpus[i].ad = variant->ad;
        vcpus[i].pml = variant->engine == DIRTY_PML;
    }
    out_words = dirty_log_bits(&stage2) / 64;
    out = calloc(out_words, 8);
    copy = calloc(PAGES, sizeof *copy);
}

/* Gives the tests' own memory back, not the guest's. */
static void fixture_free(void)
{
    free(out);
    free(copy);
    fake_memory_stop();
}

static void fixture_stop(void)
{
    struct page_totals after;

    for (unsigned i = 0; i < VCPUS; i++)
        vcpu_done(&vcpus[i]);
    stage2_destroy(&stage2);
    gmem_destroy(&gmem);
    page_owner_destroy(core.owner);
    page_totals_get(&after);
    assert_memory_equal(&totals_before, &after, sizeof after);
    fixture_free();
}

static inline void copy_page(uint64_t page)
{
    assert_true(gmem_read(&gmem, GPA(gpa_of(page)), copy[page], sizeof copy[page]));
}

static inline void check_copy(void)
{
    uint64_t now[8];

    for (uint64_t page = 0; page < PAGES; page++) {
        assert_true(gmem_read(&gmem, GPA(gpa_of(page)), now, sizeof now));
        assert_memory_equal(now, copy[page], sizeof now);
    }
}

#endif
