/* SPDX-License-Identifier: MIT */
/*
 * Page tables of all three formats against a model that knows the translation of every 4 KiB page. The table is read
 * back by a walker of its own, written from the manuals: reserved bits must be clear, leaves aligned, rights right.
 * Promises guarded: map, unmap, protect and split do just what they say; a failure for lack of memory leaves the
 * translations as they were; accessed, dirty and soft bits survive splits; every table page is given back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_memory.h"
#include "kernel/pt.h"

#define RAM (64 * MIB)
#define WINDOW (4 * GIB)             /* the model's part of the address space */
#define WINDOW_PAGES (WINDOW / PAGE_BYTES)
#define RIGHTS_KEPT (PT_ACCESSED | PT_DIRTY | PT_SOFT0)

struct page {
    uint64_t hpa;
    uint16_t rights; /* 0: not mapped */
};

static struct page *model;
static const struct pt_format *format;
static struct pt pt;
static uint64_t base;

static struct page *model_at(uint64_t va)
{
    return &model[(va - base) / PAGE_BYTES];
}

/* What hardware makes of a walk: false for not present; a reserved bit or a bad combination fails the test. */
static bool hardware_walk(uint64_t va, uint64_t *hpa, uint64_t *rights, uint64_t *size)
{
    bool ept = format == &pt_format_ept;
    uint64_t table = pt.root.v, entry, bytes = BIT(39), may = PT_READ | PT_WRITE | PT_EXEC | PT_USER;

    for (;; bytes /= 512) {
        entry = ((uint64_t *)phys_to_virt(HPA(table)))[va / bytes % 512];
        if (ept ? !(entry & 7) : !(entry & 1))
            return false;
        bool leaf = bytes == PAGE_BYTES || (entry & 0x80);
        if (ept) {
            assert_true((entry & 3) != 2); /* write without read is a misconfiguration */
            may &= ~(uint64_t)((entry & 1 ? 0 : PT_READ) | (entry & 2 ? 0 : PT_WRITE) | (entry & 4 ? 0 : PT_EXEC));
            may &= ~PT_USER;
            if (!leaf)
                assert_int_equal(entry & 0xf8, 0);
        } else {
            may &= ~(uint64_t)((entry & 2 ? 0 : PT_WRITE) | (entry & 4 ? 0 : PT_USER) | (entry >> 63 ? PT_EXEC : 0));
        }
        if (leaf)
            break;
        assert_int_equal(entry & (ept ? 0xfff0000000000000ull : 0x7ff0000000000000ull), 0);
        table = entry & PT_ADDRESS_MASK;
    }
    assert_true(bytes <= GIB);
    assert_int_equal(entry & PT_ADDRESS_MASK & (bytes - 1), 0);
    *size = bytes;
    *hpa = (entry & PT_ADDRESS_MASK) + (va & (bytes - 1));
    if (ept) {
        unsigned type = entry >> 3 & 7;
        assert_true(type == 6 || type == 0 || type == 1);
        assert_int_equal(entry & 0x40, 0);
        may |= type == 0 ? PT_UNCACHED : type == 1 ? PT_WRITE_COMBINING : 0;
        may |= (entry & 0x100 ? PT_ACCESSED : 0) | (entry & 0x200 ? PT_DIRTY : 0) | (entry & 0x800 ? PT_SOFT0 : 0);
    } else {
        unsigned type = entry >> 3 & 3;
        assert_true(type == 0 || type == 3 || type == 1);
        assert_true(bytes > PAGE_BYTES || !(entry & 0x80)); /* the PAT bit */
        may |= type == 3 ? PT_UNCACHED : type == 1 ? PT_WRITE_COMBINING : 0;
        may |= (entry & 0x20 ? PT_ACCESSED : 0) | (entry & 0x40 ? PT_DIRTY : 0) | (entry & 0x200 ? PT_SOFT0 : 0);
        may |= format == &pt_format_host && (entry & 0x100) ? PT_GLOBAL : 0;
        if (format == &pt_format_npt)
            assert_true(may & PT_USER);
    }
    if (format != &pt_format_host)
        may &= ~PT_USER;
    *rights = may;
    return true;
}

static void check(uint64_t va)
{
    const struct page *page = model_at(va);
    uint64_t hpa, rights, size, leaf_bytes;
    hpa_t looked_up;
    bool mapped = hardware_walk(va, &hpa, &rights, &size);

    assert_int_equal(mapped, page->rights != 0);
    assert_int_equal(pt_leaf(&pt, va, &leaf_bytes) != NULL, mapped);
    if (mapped) {
        assert_int_equal(hpa, page->hpa);
        assert_int_equal(rights, page->rights);
        assert_int_equal(leaf_bytes, size);
        assert_true(size <= pt.max_leaf);
        assert_true(pt_lookup(&pt, va + 5, &looked_up, &rights));
        assert_int_equal(looked_up.v, hpa + 5);
        if (format != &pt_format_host)
            rights &= ~PT_USER;
        assert_int_equal(rights, page->rights);
    } else {
        assert_false(pt_lookup(&pt, va, &looked_up, &rights));
    }
}

static void check_all(uint64_t step)
{
    for (uint64_t va = base; va < base + WINDOW; va += step)
        check(va + fake_below(step / PAGE_BYTES) * PAGE_BYTES);
}

static uint64_t random_rights(void)
{
    uint64_t rights = PT_READ | (fake_random() & (PT_WRITE | PT_EXEC));
    unsigned type = (unsigned)fake_below(6);

    if (format == &pt_format_host)
        rights |= fake_random() & (PT_USER | PT_GLOBAL);
    return rights | (type == 0 ? PT_UNCACHED : type == 1 ? PT_WRITE_COMBINING : 0);
}

static void random_range(uint64_t *va, uint64_t *bytes)
{
    static const uint64_t units[] = { PAGE_BYTES, PAGE_BYTES, LARGE_PAGE_BYTES, 64 * LARGE_PAGE_BYTES, GIB };
    uint64_t unit = units[fake_below(ARRAY_COUNT(units))];
    uint64_t grain = fake_below(3) ? unit : MIN(unit, PAGE_BYTES);

    *bytes = MIN((1 + fake_below(3)) * unit, WINDOW);
    *va = base + ALIGN_DOWN(fake_below(WINDOW - *bytes + 1), grain);
}

/* One random operation, on the table and on the model. */
static void step(void)
{
    uint64_t va, bytes, what = fake_below(10), rights = random_rights();
    uint64_t hpa = ALIGN_DOWN(fake_below(BIT(40)), fake_below(2) ? GIB : fake_below(2) ? LARGE_PAGE_BYTES : PAGE_BYTES);
    bool any = false;
    enum status status;

    random_range(&va, &bytes);
    if (fake_below(2))
        hpa = ALIGN_DOWN(hpa, GIB) + va % GIB;
    if (what < 4) {
        for (uint64_t at = va; at < va + bytes; at += PAGE_BYTES)
            any |= model_at(at)->rights != 0;
        status = pt_map(&pt, va, HPA(hpa), bytes, rights);
        assert_true(status == (any ? ERR_EXISTS : OK) || status == ERR_NO_MEMORY);
        for (uint64_t at = va; status == OK && at < va + bytes; at += PAGE_BYTES)
            *model_at(at) = (struct page){ hpa + (at - va), (uint16_t)rights };
    } else if (what < 6) {
        status = pt_unmap(&pt, va, bytes);
        assert_true(status == OK || status == ERR_NO_MEMORY);
        for (uint64_t at = va; status == OK && at < va + bytes; at += PAGE_BYTES)
            model_at(at)->rights = 0;
    } else if (what < 8) {
        status = pt_protect(&pt, va, bytes, rights);
        assert_true(status == OK || status == ERR_NO_MEMORY);
        for (uint64_t at = va; status == OK && at < va + bytes; at += PAGE_BYTES)
            if (model_at(at)->rights)
                model_at(at)->rights = (uint16_t)(rights | (model_at(at)->rights & RIGHTS_KEPT));
    } else if (what < 9) {
        uint64_t size = fake_below(2) ? PAGE_BYTES : LARGE_PAGE_BYTES, found;
        status = pt_split(&pt, va, size);
        assert_true(status == OK || status == ERR_NO_MEMORY);
        if (status == OK && pt_leaf(&pt, va, &found))
            assert_true(found <= size);
    } else {
        /* The CPU sets bits in a leaf: all pages under it have them then. */
        uint64_t leaf_bytes, *leaf = pt_leaf(&pt, va, &leaf_bytes), set = fake_random() & RIGHTS_KEPT;
        if (leaf) {
            *leaf |= (set & PT_ACCESSED ? format->accessed : 0) | (set & PT_DIRTY ? format->dirty : 0) |
                     (set & PT_SOFT0 ? format->soft0 : 0);
            for (uint64_t at = ALIGN_DOWN(va, leaf_bytes), end = at + leaf_bytes; at < end; at += PAGE_BYTES)
                model_at(at)->rights |= (uint16_t)set;
        }
    }
    check(va);
    check(va + bytes - PAGE_BYTES);
    check(va + fake_below(bytes / PAGE_BYTES) * PAGE_BYTES);
    if (va > base)
        check(va - PAGE_BYTES);
    if (va + bytes < base + WINDOW)
        check(va + bytes);
}

static void random_against_model(const struct pt_format *of, uint64_t at, uint64_t max_leaf, bool scarce)
{
    struct page_totals before, after;
    uint64_t held = 0;
    hpa_t *hoard;

    format = of;
    base = at;
    fake_memory_start(RAM);
    hoard = calloc(RAM / PAGE_BYTES, sizeof *hoard);
    model = calloc(WINDOW_PAGES, sizeof *model);
    page_totals_get(&before);
    assert_true(pt_create(&pt, format, PAGE_OWNER_HV, max_leaf));
    if (scarce) { /* leave room for 60 tables */
        while (page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &hoard[held]))
            held++;
        for (unsigned i = 0; i < 60; i++)
            page_free(hoard[--held], PAGE_BYTES, PAGE_OWNER_HV);
    }
    for (unsigned round = 0; round < 800; round++) {
        step();
        if (round % 100 == 0)
            check_all(256 * KIB);
        if (round % 300 == 299) { /* the table is emptied by unmapping, or made anew */
            if (fake_below(2)) {
                assert_int_equal(pt_unmap(&pt, base, WINDOW), OK);
            } else {
                pt_destroy(&pt);
                assert_int_equal(pt.table_count, 0);
                assert_true(pt_create(&pt, format, PAGE_OWNER_HV, max_leaf));
            }
            memset(model, 0, WINDOW_PAGES * sizeof *model);
        }
        struct page_usage usage;
        assert_true(page_owner_usage(PAGE_OWNER_HV, &usage));
        assert_int_equal(usage.small_pages, pt.table_count + held);
    }
    check_all(PAGE_BYTES);
    pt_destroy(&pt);
    while (held)
        page_free(hoard[--held], PAGE_BYTES, PAGE_OWNER_HV);
    page_totals_get(&after);
    assert_memory_equal(&before, &after, sizeof before);
    free(hoard);
    free(model);
    fake_memory_stop();
}

static void host_format(void **state)
{
    (void)state;
    random_against_model(&pt_format_host, 0xffff800000000000ull, HUGE_PAGE_BYTES, false);
    random_against_model(&pt_format_host, 0ull - WINDOW, HUGE_PAGE_BYTES, false);
    random_against_model(&pt_format_host, 0, LARGE_PAGE_BYTES, false);
}

static void ept_format(void **state)
{
    (void)state;
    random_against_model(&pt_format_ept, 0, HUGE_PAGE_BYTES, false);
    random_against_model(&pt_format_ept, BIT(48) - WINDOW, LARGE_PAGE_BYTES, false);
}

static void npt_format(void **state)
{
    (void)state;
    random_against_model(&pt_format_npt, 0, HUGE_PAGE_BYTES, false);
    random_against_model(&pt_format_npt, BIT(39) - 2 * GIB, PAGE_BYTES, true);
}

static void scarce_memory(void **state)
{
    (void)state;
    random_against_model(&pt_format_npt, GIB, HUGE_PAGE_BYTES, true);
    random_against_model(&pt_format_ept, 3 * GIB, LARGE_PAGE_BYTES, true);
}

static void largest_leaves_are_used(void **state)
{
    uint64_t bytes;

    (void)state;
    fake_memory_start(RAM);
    assert_true(pt_create(&pt, &pt_format_ept, PAGE_OWNER_HV, HUGE_PAGE_BYTES));
    /* 4 KiB below a 1 GiB border to 4 KiB above the next but one. */
    assert_int_equal(pt_map(&pt, GIB - PAGE_BYTES, HPA(7 * GIB - PAGE_BYTES), 2 * GIB + 2 * PAGE_BYTES, PT_READ), OK);
    assert_int_equal(pt.table_count, 1 + 1 + 2 + 2);
    assert_non_null(pt_leaf(&pt, GIB, &bytes));
    assert_int_equal(bytes, GIB);
    assert_null(pt_entry_at(&pt, GIB, LARGE_PAGE_BYTES));
    assert_int_equal(pt_split(&pt, GIB + 5 * MIB, LARGE_PAGE_BYTES), OK);
    assert_non_null(pt_entry_at(&pt, GIB, LARGE_PAGE_BYTES));
    pt_destroy(&pt);
    fake_memory_stop();
}

static void bad_arguments(void **state)
{
    (void)state;
    fake_memory_start(RAM);
    assert_true(pt_create(&pt, &pt_format_host, PAGE_OWNER_HV, HUGE_PAGE_BYTES));
    assert_int_equal(pt_map(&pt, 1, HPA(0), PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0, HPA(1), PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0, HPA(0), 5, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0, HPA(0), PAGE_BYTES, PT_WRITE), ERR_INVALID);
    assert_int_equal(pt_map(&pt, BIT(48), HPA(0), PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0xfffe800000000000ull, HPA(0), PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0ull - PAGE_BYTES, HPA(0), 2 * PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0, HPA(BIT(52)), PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_map(&pt, 0, HPA(BIT(52) - PAGE_BYTES), 2 * PAGE_BYTES, PT_READ), ERR_RANGE);
    assert_int_equal(pt_protect(&pt, 0, PAGE_BYTES, PT_EXEC), ERR_INVALID);
    assert_int_equal(pt_unmap(&pt, 0, 0), OK);
    assert_int_equal(pt.table_count, 1);
    pt_destroy(&pt);
    fake_memory_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_format),   cmocka_unit_test(ept_format),
        cmocka_unit_test(npt_format),    cmocka_unit_test(scarce_memory),
        cmocka_unit_test(largest_leaves_are_used), cmocka_unit_test(bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
