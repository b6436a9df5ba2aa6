/* SPDX-License-Identifier: MIT */
/*
 * The dirty log's contract, exactly, for its three engines, on EPT and NPT, with simulated CPUs in one thread.
 *
 * Two judges. An oracle knows when each page was written: what was written between two collects must be in the second,
 * what was written while one ran must be in that or the next, and nothing else may be reported. And the fixture's copy of
 * the guest's memory must equal the memory at the end.
 */
#include "dirty_fixture.h"

/* ---- The oracle ---- */

enum phase { BETWEEN, COLLECTING };
static enum phase phase;
static bool *written_between, *written_collecting, *written_last_collect;

static void note(uint64_t page)
{
    (phase == BETWEEN ? written_between : written_collecting)[page] = true;
}

/* Where code must be in small pages, a fetch leaves its page executable, and no large leaf ever is. */
static void fetch(uint64_t page)
{
    uint64_t bytes;

    assert_int_equal(stage2_fault(&stage2, GPA(gpa_of(page)), ACCESS_FETCH), STAGE2_MAPPED);
    const uint64_t *leaf = pt_leaf(&core.stage2, gpa_of(page), &bytes);
    assert_non_null(leaf);
    assert_true(pt_entry_rights(core.stage2.format, *leaf) & PT_EXEC);
    assert_true(!stage2.small_code || bytes == PAGE_BYTES);
    for (uint64_t frame = 0; frame < PAGES / 512; frame++) {
        leaf = pt_leaf(&core.stage2, gpa_of(frame * 512), &bytes);
        if (stage2.small_code && leaf && bytes > PAGE_BYTES)
            assert_false(pt_entry_rights(core.stage2.format, *leaf) & PT_EXEC);
    }
}

static void write_by(unsigned writer, uint64_t page)
{
    uint64_t gpa = gpa_of(page) + writer * 8, value;

    if (writer == HYPERVISOR) {
        assert_true(gmem_read(&gmem, GPA(gpa), &value, 8));
        value++;
        assert_true(gmem_write(&gmem, GPA(gpa), &value, 8));
    } else {
        assert_true(vcpu_access(&vcpus[writer], gpa, true, &value));
    }
    note(page);
}

/* A burst of accesses with one of several shapes: sparse, dense, local, reading. Half of the local ones meet in a frame. */
static uint64_t hot_frame;

static void burst(unsigned accesses)
{
    unsigned shape = (unsigned)fake_below(5), writer = (unsigned)fake_below(VCPUS + 1);
    uint64_t frame = fake_below(2) ? hot_frame : fake_below(PAGES / 512), value;

    for (unsigned i = 0; i < accesses; i++) {
        uint64_t page = fake_below(PAGES);
        if (shape == 1)
            page = frame * 512 + i % 512;
        else if (shape == 2)
            page = frame * 512 + fake_below(8) * 3;
        else if (shape == 3)
            page = frame * 512 + fake_below(512);
        if (fake_below(16) == 0)
            fetch(page);
        if (shape == 4 || fake_below(4) == 0)
            assert_true(vcpu_access(&vcpus[fake_below(VCPUS)], gpa_of(page) + 8 * HYPERVISOR, false, &value));
        else
            write_by(fake_below(8) ? writer : (unsigned)fake_below(VCPUS + 1), page);
    }
}

/* ---- Flushing, in one thread: guests write on with their stale translations until it is their turn. ---- */

static bool write_while_flushing;
static void (*during_flush)(void);
static uint64_t tables_at_flush;

static void all_outside(struct vm_core *of, bool drain)
{
    unsigned first = (unsigned)fake_below(VCPUS);

    assert_ptr_equal(of, &core);
    if (during_flush)
        during_flush();
    for (unsigned i = 0; i < VCPUS; i++) {
        vcpus[i].drain_wanted |= drain;
        vcpus[i].flush_wanted = true;
    }
    for (unsigned i = 0; i < VCPUS; i++) {
        if (write_while_flushing && fake_below(2))
            burst(1 + (unsigned)fake_below(40));
        if (drain || fake_below(2))
            vcpu_outside(&vcpus[(first + i) % VCPUS]);
        else
            vcpu_flush(&vcpus[(first + i) % VCPUS]);
    }
    if (write_while_flushing && fake_below(2))
        burst(1 + (unsigned)fake_below(40));
}

static void flush_all(struct vm_core *of)
{
    tables_at_flush = core.stage2.table_count;
    all_outside(of, false);
}

static void drain_all(struct vm_core *of)
{
    all_outside(of, true);
}

static void yield(void)
{
    if (write_while_flushing)
        burst(10);
}

static const struct dirty_ops ops = { flush_all, drain_all, yield };

static void start_vm(const struct variant *variant, uint64_t bytes)
{
    fixture_start(variant, RAM, bytes);
    written_between = calloc(PAGES, 1);
    written_collecting = calloc(PAGES, 1);
    written_last_collect = calloc(PAGES, 1);
    phase = BETWEEN;
    write_while_flushing = false;
}

static void oracle_free(void)
{
    free(written_between);
    free(written_collecting);
    free(written_last_collect);
}

static void stop_vm(void)
{
    fixture_stop();
    oracle_free();
}

/* One collect, judged. Returns how many pages it reported. */
static uint64_t collect(void)
{
    uint64_t count, pages = 0, bits = 0;

    memset(out, 0, out_words * 8);
    phase = COLLECTING;
    assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
    phase = BETWEEN;
    for (uint64_t page = 0; page < PAGES; page++) {
        bool is = reported(page);
        if (written_between[page] && !is)
            fail_msg("page %llu was written and is not reported", (unsigned long long)page);
        if (is && !written_between[page] && !written_collecting[page] && !written_last_collect[page])
            fail_msg("page %llu is reported and was not written", (unsigned long long)page);
        pages += is;
        if (is)
            copy_page(page);
        /* What was written while this ran and is not in it must be in the next; what is may be in the next. */
        written_between[page] = written_collecting[page] && !is;
        written_last_collect[page] = written_collecting[page];
        written_collecting[page] = false;
    }
    for (uint64_t word = 0; word < out_words; word++)
        bits += (uint64_t)__builtin_popcountll(out[word]);
    assert_int_equal(bits, pages); /* nothing outside of the pages that were written */
    assert_int_equal(count, pages);
    return pages;
}

static void begin(const struct variant *variant)
{
    memset(written_collecting, 0, PAGES);
    phase = COLLECTING; /* what is written while it starts may be in the first collect */
    assert_int_equal(dirty_log_start(&stage2, variant->engine, &ops), OK);
    phase = BETWEEN;
    memset(written_between, 0, PAGES);
    memcpy(written_last_collect, written_collecting, PAGES);
    memset(written_collecting, 0, PAGES);
    for (uint64_t page = 0; page < PAGES; page++)
        copy_page(page);
}

/*
 * After stop: whole frames with all rights again, and no table more than without the log. Where code must be in small
 * pages, frames that were split for fetches before the log are whole now, others may have been split meanwhile.
 */
static void check_merged(uint64_t tables, bool fetched)
{
    uint64_t bytes, rights;
    hpa_t hpa, own;

    if (stage2.small_code)
        assert_true(fetched || core.stage2.table_count <= tables);
    else
        assert_int_equal(core.stage2.table_count, tables);
    assert_null(core.dirty_bitmap);
    for (uint64_t page = 0; page < PAGES; page += 64) {
        if (!pt_leaf(&core.stage2, gpa_of(page), &bytes))
            continue;
        assert_true(bytes >= LARGE_PAGE_BYTES || (stage2.small_code && fetched));
        assert_true(pt_lookup(&core.stage2, gpa_of(page), &hpa, &rights));
        assert_true(gmem_hpa(&gmem, GPA(gpa_of(page)), &own));
        assert_int_equal(hpa.v, own.v);
        if (bytes == PAGE_BYTES)
            assert_true(rights & PT_EXEC);
        else
            assert_int_equal(rights & (PT_READ | PT_WRITE | PT_EXEC),
                             stage2_large_rights(&stage2) & (PT_READ | PT_WRITE | PT_EXEC));
    }
}

/* ---- Tests ---- */

/* Rounds of random bursts and collects; guests may also write while a collect, a start or a stop runs. */
static void random_rounds(const struct variant *variant, bool concurrent)
{
    uint64_t count;

    start_vm(variant, 3 * GIB + 16 * MIB);
    burst(2000);
    for (unsigned run = 0; run < 2; run++) {
        for (uint64_t page = 0; run && page < PAGES; page += 512) /* then all frames are mapped, and stay so */
            write_by(0, page);
        uint64_t tables = core.stage2.table_count;

        write_while_flushing = concurrent;
        begin(variant);
        for (unsigned round = 0; round < 40; round++) {
            if (round % 8 == 0)
                hot_frame = fake_below(PAGES / 512);
            for (unsigned n = (unsigned)fake_below(6); n; n--)
                burst(1 + (unsigned)fake_below(fake_below(3) ? 60 : 1000));
            collect();
        }
        write_while_flushing = false;
        collect();
        collect();
        assert_int_equal(collect(), 0);
        check_copy();
        write_while_flushing = concurrent;
        burst(500);
        tables_at_flush = 0;
        dirty_log_stop(&stage2);
        if (!concurrent) /* no table is freed before the flush */
            assert_true(tables_at_flush > core.stage2.table_count);
        write_while_flushing = false;
        check_merged(run ? tables : core.stage2.table_count, concurrent);
        assert_int_equal(dirty_log_collect(&stage2, out, &count), ERR_INVALID);
        burst(500);
        for (unsigned i = 0; i < VCPUS; i++) /* nothing is left for the next log */
            assert_int_equal(vcpus[i].log_index, vcpus[i].log_next);
    }
    stop_vm();
}

static void random_quiet(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++)
        random_rounds(&variants[i], false);
}

static void random_concurrent(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++)
        random_rounds(&variants[i], true);
}

static uint64_t all_faults(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < VCPUS; i++)
        sum += vcpus[i].fault_count;
    return sum;
}

/*
 * What each engine costs in faults, once it has settled: all pages written, and two in 512. A/D bits: one for each frame
 * when dense, one for each page when sparse; PML: none.
 */
static void fault_counts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++) {
        enum dirty_engine engine = variants[i].engine;
        uint64_t before, per_dense_frame = 0, frames = PAGES / 512;

        start_vm(&variants[i], 3 * GIB + 16 * MIB);
        for (uint64_t page = 0; page < PAGES; page++)
            write_by(0, page);
        begin(&variants[i]);
        for (unsigned round = 0; round < 3; round++) {
            before = all_faults();
            for (uint64_t page = 0; page < PAGES; page++)
                write_by(0, page);
            per_dense_frame = (all_faults() - before) / frames;
            if (engine == DIRTY_ACCESSED_DIRTY)
                assert_in_range(per_dense_frame, 1, round ? 1 : 16);
            assert_int_equal(collect(), PAGES);
        }
        assert_int_equal(per_dense_frame, engine == DIRTY_WRITE_PROTECT ? 512 : engine == DIRTY_PML ? 0 : 1);
        for (unsigned round = 0; round < 12; round++) {
            before = all_faults();
            for (uint64_t page = round; page < PAGES; page += 256)
                write_by(0, page);
            /* The first time finds dense frames and opens each with one. */
            if (engine != DIRTY_ACCESSED_DIRTY || round)
                assert_int_equal(all_faults() - before, engine == DIRTY_PML ? 0 : 2 * frames);
            assert_int_equal(collect(), 2 * frames);
        }
        stop_vm();
    }
}

/*
 * A CPU may set a dirty bit through a translation that a collect has made stale, until it is flushed. It had only read
 * the page, so the page is clean when the collect looks. dense or thin: with or without another write that opens the
 * frame at that very moment.
 */
static unsigned stale_page;
static bool open_too;

static void stale_write(void)
{
    if (open_too)
        write_by(2, 7);
    write_by(1, stale_page);
    during_flush = NULL;
}

static void stale_translations(void **state)
{
    uint64_t value;

    (void)state;
    for (unsigned i = 0; i < 4 * ARRAY_COUNT(variants); i++) {
        const struct variant *variant = &variants[i / 4];
        unsigned dirty = i & 1 ? 3 : 40;

        start_vm(variant, 3 * GIB + 16 * MIB);
        vcpus[1].blind = true;
        open_too = i & 2;
        write_by(0, 0);
        begin(variant);
        for (uint64_t page = 0; page < 512; page++)
            write_by(0, page);
        assert_int_equal(collect(), 512); /* A/D: the frame is dense now */
        for (stale_page = 100; stale_page < 110; stale_page++) {
            for (uint64_t page = 0; page < dirty; page++)
                write_by(0, page);
            assert_true(vcpu_access(&vcpus[1], gpa_of(stale_page) + 8, false, &value));
            during_flush = stale_write;
            collect(); /* A/D: thin, if few were dirty */
            if (stale_page % 2)
                write_by(3, 200);
            collect();
            collect();
            check_copy();
        }
        stop_vm();
    }
}

/* Pages that only the hypervisor writes, in frames that the guest never touched or only read. */
static void hypervisor_only(void **state)
{
    uint64_t value;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++) {
        start_vm(&variants[i], 3 * GIB + 16 * MIB);
        assert_true(vcpu_access(&vcpus[0], gpa_of(512), false, &value));
        begin(&variants[i]);
        assert_int_equal(collect(), 0);
        for (unsigned round = 0; round < 3; round++) {
            write_by(HYPERVISOR, 5);            /* never touched */
            write_by(HYPERVISOR, 600);          /* read by the guest */
            write_by(HYPERVISOR, LOW_PAGES);
            write_by(HYPERVISOR, PAGES - 1);
            write_by(2, 600 + round % 2);
            assert_int_equal(collect(), 4 + round % 2);
            assert_int_equal(collect(), 0);
        }
        check_copy();
        stop_vm();
    }
}

/* Bits that the caller has set already stay, and are not counted again. */
static void accumulates(void **state)
{
    uint64_t count;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++) {
        start_vm(&variants[i], 3 * GIB + 16 * MIB);
        begin(&variants[i]);
        for (uint64_t page = 0; page < 512; page++)
            write_by(0, page);
        for (uint64_t page = 512; page < 520; page++)
            write_by(1, page);
        write_by(HYPERVISOR, 3);
        out[0] = 0xff;
        out[8] = 2;
        out[9] = 1;
        assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
        assert_int_equal(count, 512 - 8 + 8 - 1);
        assert_int_equal(out[0], UINT64_MAX);
        assert_int_equal(out[8], 0xff);
        assert_int_equal(out[9], 1);
        write_by(0, 7);
        write_by(0, 700);
        assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
        assert_int_equal(count, 1);
        stop_vm();
    }
}

/* 1 GiB leaves are taken apart for the log and come back after it, with the same tables. */
static void huge_leaves(void **state)
{
    uint64_t bytes, tables, count;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++) {
        if (variants[i].small_code)
            continue; /* there are none */
        start_vm(&variants[i], 3 * GIB + 16 * MIB);
        for (uint64_t n = 0; n < 512; n++)
            gmem.frames[n] &= ~(uint32_t)GMEM_UNTOUCHED; /* fresh test memory is zero */
        for (uint64_t frame = 0; frame < 512; frame++)
            assert_int_equal(stage2_fault(&stage2, GPA(frame * LARGE_PAGE_BYTES), ACCESS_READ), STAGE2_MAPPED);
        assert_non_null(pt_leaf(&core.stage2, 0, &bytes));
        assert_int_equal(bytes, GIB);
        tables = core.stage2.table_count;
        burst(1000);
        for (uint64_t page = LOW_PAGES; page < PAGES; page += 512)
            write_by(0, page);
        tables += 1; /* of the high region */
        for (unsigned run = 0; run < 2; run++) {
            begin(&variants[i]);
            write_by(1, 1);
            write_by(2, 600);
            assert_int_equal(collect(), 2);
            burst(3000);
            collect();
            dirty_log_stop(&stage2);
            assert_non_null(pt_leaf(&core.stage2, 0, &bytes));
            assert_int_equal(bytes, GIB);
            assert_int_equal(core.stage2.table_count, tables);
            burst(1000);
            for (unsigned v = 0; v < VCPUS; v++)
                assert_int_equal(vcpus[v].log_index, vcpus[v].log_next);
        }
        assert_int_equal(dirty_log_start(&stage2, DIRTY_OFF, &ops), ERR_INVALID);
        assert_int_equal(dirty_log_start(&stage2, variants[i].engine, &ops), OK);
        assert_int_equal(dirty_log_start(&stage2, variants[i].engine, &ops), ERR_BUSY);
        assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
        stop_vm(); /* with the log on */
    }
}

/* Without memory for tables whole frames are reported, never too little; with memory again it is exact again. */
static void scarce_memory(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(variants); i++) {
        hpa_t page, hoard = { 0 };
        uint64_t count;

        start_vm(&variants[i], 3 * GIB + 16 * MIB);
        for (uint64_t p = 0; p < PAGES; p += 512)
            write_by(0, p);
        begin(&variants[i]);
        while (page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &page)) {
            *(uint64_t *)phys_to_virt(page) = hoard.v;
            hoard = page;
        }
        write_by(1, 100);
        write_by(2, 200);
        write_by(3, 1000);
        memset(out, 0, out_words * 8);
        assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
        assert_int_equal(count, 1024);
        assert_true(reported(100) && reported(200) && reported(1000));
        assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
        assert_int_equal(count, 0);
        while (hoard.v) {
            page = hoard;
            hoard.v = *(uint64_t *)phys_to_virt(page);
            page_free(page, PAGE_BYTES, PAGE_OWNER_HV);
        }
        memset(written_between, 0, PAGES);
        write_by(1, 100);
        write_by(3, 1001);
        assert_int_equal(collect(), 2);
        dirty_log_stop(&stage2);
        stop_vm();
    }
}

/* A start that fails leaves the guest as it was. */
static void start_fails(void **state)
{
    hpa_t page;
    uint64_t faults, bytes;

    (void)state;
    start_vm(&variants[0], 3 * GIB + 16 * MIB);
    write_by(0, 0);
    while (page_alloc(PAGE_BYTES, core.owner, 0, &page))
        *(uint64_t *)phys_to_virt(page) = bytes = page.v;
    faults = all_faults();
    assert_int_equal(dirty_log_start(&stage2, DIRTY_WRITE_PROTECT, &ops), ERR_NO_MEMORY);
    assert_null(core.dirty_bitmap);
    for (unsigned i = 0; i < VCPUS; i++)
        vcpus[i].flush_wanted = true, vcpu_outside(&vcpus[i]);
    write_by(0, 0);
    assert_int_equal(all_faults(), faults);
    for (unsigned i = 0; i < VCPUS; i++)
        vcpu_done(&vcpus[i]);
    fixture_free(); /* with all that was taken */
    oracle_free();
}

/* The log of a guest whose bitmap alone takes several large pages: what is written at its end is found there. */
static void large_guest(void **state)
{
    const uint64_t bytes = 130 * GIB, gpas[] = { 0, 65 * GIB, 100 * GIB + 5 * PAGE_BYTES, bytes + GIB - PAGE_BYTES };
    uint64_t value, count;

    (void)state;
    for (unsigned v = 1; v < 6; v += 2) { /* each engine once */
        fixture_start(&variants[v], 133 * GIB, bytes);
        write_while_flushing = false;
        assert_true(dirty_log_bits(&stage2) / 8 > 2 * LARGE_PAGE_BYTES);
        assert_int_equal(dirty_log_start(&stage2, variants[v].engine, &ops), OK);
        for (unsigned round = 0; round < 2; round++) {
            for (unsigned i = 0; i < ARRAY_COUNT(gpas); i++)
                assert_true(vcpu_access(&vcpus[i % VCPUS], gpas[i], true, &value));
            memset(out, 0, out_words * 8);
            assert_int_equal(dirty_log_collect(&stage2, out, &count), OK);
            assert_int_equal(count, ARRAY_COUNT(gpas));
            for (unsigned i = 0; i < ARRAY_COUNT(gpas); i++)
                assert_true(out[gpas[i] / PAGE_BYTES / 64] >> gpas[i] / PAGE_BYTES % 64 & 1);
        }
        dirty_log_stop(&stage2);
        fixture_stop();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_quiet),  cmocka_unit_test(random_concurrent), cmocka_unit_test(fault_counts),
        cmocka_unit_test(stale_translations), cmocka_unit_test(hypervisor_only),
        cmocka_unit_test(accumulates),   cmocka_unit_test(huge_leaves),
        cmocka_unit_test(scarce_memory), cmocka_unit_test(start_fails),       cmocka_unit_test(large_guest),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
