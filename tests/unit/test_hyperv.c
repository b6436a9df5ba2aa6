/* SPDX-License-Identifier: MIT */
/*
 * The Hyper-V interface: the clock that a guest computes from the page is the MSR's, to the last unit, at every
 * frequency; it never goes back over save, restore and a change of the TSC; pages are written where the guest says, and
 * nowhere else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_boot.h"
#include "fake_stream.h"
#include "vmm/hyperv.h"

static struct fake_boot guest;
static struct hyperv hv;
static struct hyperv_vcpu vcpu;
static uint64_t reported[5];
static char message[HV_CRASH_MESSAGE_BYTES + 1];
static unsigned reports;

#define GHZ2 2000000u
#define PAGE 0x200000ull

static void crashed(void *context, const uint64_t parameters[5], const char *text)
{
    (void)context;
    memcpy(reported, parameters, sizeof(reported));
    strcpy(message, text);
    reports++;
}

static int start(void **state)
{
    (void)state;
    fake_boot_start(&guest, 16 * MIB);
    hyperv_init(&hv, &guest.ops, 2, GHZ2, 1000000, false, 0, 0);
    hv.crashed = crashed;
    hyperv_vcpu_init(&vcpu, 1);
    reports = 0;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_boot_stop(&guest);
    return 0;
}

static uint64_t rd(uint32_t msr, uint64_t tsc)
{
    uint64_t value = 0;
    assert_true(hyperv_msr_read(&hv, &vcpu, msr, &value, tsc, 12345));
    return value;
}

static bool wr(uint32_t msr, uint64_t value)
{
    return hyperv_msr_write(&hv, &vcpu, msr, value);
}

/* What a guest does with its page (TLFS 12.8.4). */
static uint64_t guest_clock(uint64_t tsc)
{
    const uint8_t *page = guest.ram + PAGE;
    assert_int_not_equal(le32_get(page), 0);
    return (uint64_t)(((unsigned __int128)tsc * le64_get(page + 8)) >> 64) + le64_get(page + 16);
}

static void page_and_msr_agree_at_every_frequency(void **state)
{
    (void)state;
    static const uint32_t khz[] = { 10001,   999999,  1000000, 1000001, 1896000,
                                    2000000, 2399998, 3700000, 5800000, UINT32_MAX };
    static const uint64_t tsc[] = { 0, 1, 999, 1ull << 32, 123456789012345, 1ull << 62, UINT64_MAX };
    for (unsigned i = 0; i < ARRAY_COUNT(khz); i++) {
        hyperv_init(&hv, &guest.ops, 2, khz[i], 1000000, false, 0, 0);
        assert_true(wr(HV_MSR_REFERENCE_TSC, PAGE | 1));
        for (unsigned k = 0; k < ARRAY_COUNT(tsc); k++) {
            assert_int_equal(rd(HV_MSR_TIME_REF_COUNT, tsc[k]), guest_clock(tsc[k]));
            /* Against exact arithmetic: scale is rounded down, so at most one unit in 2^64 ticks too few. */
            uint64_t exact = (uint64_t)((unsigned __int128)tsc[k] * 10000 / khz[i]);
            uint64_t got = rd(HV_MSR_TIME_REF_COUNT, tsc[k]);
            assert_true(got == exact || got + 1 == exact);
        }
        assert_int_equal(rd(HV_MSR_TSC_FREQUENCY, 0), khz[i] * 1000ull);
    }
    assert_int_equal(rd(HV_MSR_APIC_FREQUENCY, 0), 1000000000);
}

static void the_clock_starts_at_the_guests_time(void **state)
{
    (void)state;
    hyperv_init(&hv, &guest.ops, 1, GHZ2, 1000000, false, 777777777, 5000000000);
    assert_int_equal(hyperv_time(&hv, 777777777), 50000000);
    assert_int_equal(hyperv_time(&hv, 2777777777), 60000000);
}

static void the_clock_never_goes_back(void **state)
{
    (void)state;
    assert_true(wr(HV_MSR_REFERENCE_TSC, PAGE | 1));
    uint64_t before = guest_clock(4000000000);
    uint32_t sequence = le32_get(guest.ram + PAGE);
    /* Another frequency, the TSC starts anew, and the guest's time is a little behind what the guest has seen. */
    hyperv_retime(&hv, 3000000, 1000, 1999000000, before);
    assert_int_equal(guest_clock(1000), before);
    assert_in_range(guest_clock(1000 + 3000000000), before + 9999999, before + 10000000);
    assert_int_not_equal(le32_get(guest.ram + PAGE), sequence);
    hyperv_retime(&hv, 3000000, 2000, 9000000000, before);
    assert_int_equal(guest_clock(2000), 90000000);
    hv.sequence = UINT32_MAX - 1;
    hyperv_retime(&hv, 3000000, 2000, 9000000000, 0);
    assert_int_equal(le32_get(guest.ram + PAGE), 1);
}

static void the_frequency_that_is_told_is_the_models(void **state)
{
    (void)state;
    hv.model_khz = 2000100; /* of a host that cannot scale, and is that near */
    assert_true(wr(HV_MSR_REFERENCE_TSC, PAGE | 1));
    assert_int_equal(rd(HV_MSR_TSC_FREQUENCY, 0), 2000100000);
    assert_in_range(guest_clock(2000000000), 9999999, 10000000); /* a second by the rate that the TSC has */
    hyperv_retime(&hv, 2000200, 0, 0, 0);
    assert_int_equal(rd(HV_MSR_TSC_FREQUENCY, 0), 2000100000);
    assert_in_range(guest_clock(2000200000), 9999999, 10000000);
}

static void the_hypercall_page_is_for_guests_that_say_who_they_are(void **state)
{
    (void)state;
    uint64_t result = 99;
    assert_true(wr(HV_MSR_HYPERCALL, PAGE | 1));
    assert_int_equal(rd(HV_MSR_HYPERCALL, 0) & 1, 0);
    assert_int_equal(guest.ram[PAGE], 0);
    assert_false(hyperv_hypercall(&hv, 0, &result));
    assert_true(wr(HV_MSR_GUEST_OS_ID, 0x8100060100000000));
    assert_true(wr(HV_MSR_HYPERCALL, PAGE | 1));
    assert_int_equal(rd(HV_MSR_HYPERCALL, 0), PAGE | 1);
    assert_memory_equal(guest.ram + PAGE, "\x0f\x01\xc1\xc3", 4);
    assert_int_equal(guest.ram[PAGE + 4095], 0xcc);
    assert_int_equal(guest.ram[PAGE + 4096], 0);
    assert_true(hyperv_hypercall(&hv, 0x5c, &result));
    assert_int_equal(result, HV_STATUS_INVALID_HYPERCALL_CODE);
    assert_true(hyperv_hypercall(&hv, 1ull << 16 | HV_CALL_NOTIFY_LONG_SPIN_WAIT, &result));
    assert_int_equal(result, HV_STATUS_SUCCESS);
    hv.vmmcall = true;
    assert_true(wr(HV_MSR_HYPERCALL, (PAGE + 0x1000) | 3));
    assert_memory_equal(guest.ram + PAGE + 0x1000, "\x0f\x01\xd9\xc3", 4);
    assert_true(wr(HV_MSR_HYPERCALL, PAGE | 1)); /* locked now */
    assert_int_equal(rd(HV_MSR_HYPERCALL, 0), (PAGE + 0x1000) | 3);
    assert_true(wr(HV_MSR_GUEST_OS_ID, 0));
    assert_false(hyperv_hypercall(&hv, 0, &result));
}

static void pages_outside_of_memory_are_refused(void **state)
{
    (void)state;
    static const uint64_t bad[] = { 16 * MIB, 0xfee00000, 1ull << 52, ~0xfffull };
    assert_true(wr(HV_MSR_GUEST_OS_ID, 1));
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_false(wr(HV_MSR_HYPERCALL, bad[i] | 1));
        assert_false(wr(HV_MSR_REFERENCE_TSC, bad[i] | 1));
        assert_false(wr(HV_MSR_VP_ASSIST_PAGE, bad[i] | 1));
        assert_int_equal(rd(HV_MSR_HYPERCALL, 0) | rd(HV_MSR_REFERENCE_TSC, 0) | rd(HV_MSR_VP_ASSIST_PAGE, 0), 0);
        assert_true(wr(HV_MSR_REFERENCE_TSC, bad[i])); /* not enabled: just a number */
        assert_true(wr(HV_MSR_REFERENCE_TSC, 0));
    }
    memset(guest.ram + PAGE, 0x55, 4096);
    assert_true(wr(HV_MSR_VP_ASSIST_PAGE, PAGE | 1));
    assert_int_equal(guest.ram[PAGE], 0);
    assert_int_equal(rd(HV_MSR_VP_ASSIST_PAGE, 0), PAGE | 1);
}

static void what_is_not_offered_is_not_there(void **state)
{
    (void)state;
    uint64_t value;
    unsigned readable = 0, writable = 0;
    for (uint32_t msr = 0x40000000; msr < 0x40000200; msr++) {
        readable += hyperv_msr_read(&hv, &vcpu, msr, &value, 0, 0);
        writable += hyperv_msr_write(&hv, &vcpu, msr, 0);
    }
    assert_int_equal(readable, 15);
    assert_int_equal(writable, 10);
    assert_false(wr(HV_MSR_VP_INDEX, 0));
    assert_false(wr(HV_MSR_TIME_REF_COUNT, 0));
    assert_false(wr(HV_MSR_TSC_FREQUENCY, 0));
    assert_int_equal(rd(HV_MSR_VP_INDEX, 0), 1);
    assert_int_equal(rd(HV_MSR_VP_RUNTIME, 0), 123);
}

static void a_crash_is_reported_with_its_text(void **state)
{
    (void)state;
    memcpy(guest.ram + PAGE, "Kernel panic\n\x1b[2J\xff", 18);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(wr(HV_MSR_CRASH_P0 + i, 100 + i));
    assert_true(wr(HV_MSR_CRASH_P0 + 3, PAGE));
    assert_true(wr(HV_MSR_CRASH_P0 + 4, 18));
    assert_true(wr(HV_MSR_CRASH_CTL, HV_CRASH_MESSAGE)); /* without notify: nothing */
    assert_int_equal(reports, 0);
    assert_true(wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE));
    assert_int_equal(reports, 1);
    assert_int_equal(reported[2], 102);
    assert_string_equal(message, "Kernel panic\n?[2J?");
    assert_true(wr(HV_MSR_CRASH_P4, UINT64_MAX)); /* the longest */
    assert_true(wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE));
    assert_true(wr(HV_MSR_CRASH_P0 + 3, UINT64_MAX));
    assert_true(wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE));
    assert_int_equal(reports, 3);
    assert_string_equal(message, "");
}

static void save(struct stream_writer *w, void *arg)
{
    (void)arg;
    hyperv_save(&hv, w);
}

static void save_vcpu(struct stream_writer *w, void *arg)
{
    (void)arg;
    hyperv_vcpu_save(&vcpu, w);
}

static void saved_and_restored_it_goes_on(void **state)
{
    (void)state;
    static struct fake_stream stream;
    assert_true(wr(HV_MSR_GUEST_OS_ID, 1));
    assert_true(wr(HV_MSR_HYPERCALL, (PAGE + 0x1000) | 1));
    assert_true(wr(HV_MSR_REFERENCE_TSC, PAGE | 1));
    const uint64_t tsc = 987654321987;
    uint64_t seen = rd(HV_MSR_TIME_REF_COUNT, tsc);
    fake_stream_write(&stream, HYPERV_SECTION_VERSION, save, NULL);

    hyperv_init(&hv, &guest.ops, 2, 2500000, 1000000, true, 0, 0); /* another host: AMD, another TSC */
    struct stream_reader *r = fake_stream_read(&stream);
    hyperv_restore(&hv, r);
    assert_int_equal(r->error, OK);
    assert_int_equal(stream_left(r), 0);
    assert_int_equal(hyperv_time(&hv, tsc), seen);
    hyperv_retime(&hv, 2500000, 500, seen * 100, hyperv_time(&hv, tsc));
    assert_int_equal(guest_clock(500), seen);
    assert_memory_equal(guest.ram + PAGE + 0x1000, "\x0f\x01\xd9\xc3", 4);

    static const struct { size_t at; uint64_t value; } patches[] = { { 72, 0 }, { 76, 0 }, { 80, 5 } };
    for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
        struct fake_stream bad = stream;
        fake_stream_patch(&bad, patches[i].at, patches[i].value, 4);
        r = fake_stream_read(&bad);
        hyperv_restore(&hv, r);
        assert_int_equal(r->error, ERR_CORRUPT);
    }
    for (size_t cut = 0; cut < 84; cut++) {
        struct fake_stream bad = stream;
        fake_stream_cut(&bad, cut);
        r = fake_stream_read(&bad);
        hyperv_restore(&hv, r);
        assert_int_equal(r->error, ERR_TRUNCATED);
    }
    assert_true(wr(HV_MSR_VP_ASSIST_PAGE, PAGE | 1));
    fake_stream_write(&stream, HYPERV_SECTION_VERSION, save_vcpu, NULL);
    struct hyperv_vcpu other;
    hyperv_vcpu_init(&other, 1);
    hyperv_vcpu_restore(&other, fake_stream_read(&stream));
    assert_int_equal(other.assist_page, PAGE | 1);
    hyperv_vcpu_init(&other, 0);
    r = fake_stream_read(&stream);
    hyperv_vcpu_restore(&other, r);
    assert_int_equal(r->error, ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(page_and_msr_agree_at_every_frequency, start, stop),
        cmocka_unit_test_setup_teardown(the_clock_starts_at_the_guests_time, start, stop),
        cmocka_unit_test_setup_teardown(the_clock_never_goes_back, start, stop),
        cmocka_unit_test_setup_teardown(the_frequency_that_is_told_is_the_models, start, stop),
        cmocka_unit_test_setup_teardown(the_hypercall_page_is_for_guests_that_say_who_they_are, start, stop),
        cmocka_unit_test_setup_teardown(pages_outside_of_memory_are_refused, start, stop),
        cmocka_unit_test_setup_teardown(what_is_not_offered_is_not_there, start, stop),
        cmocka_unit_test_setup_teardown(a_crash_is_reported_with_its_text, start, stop),
        cmocka_unit_test_setup_teardown(saved_and_restored_it_goes_on, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
