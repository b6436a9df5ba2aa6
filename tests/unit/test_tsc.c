/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of a guest's TSC: a multiplier gives the frequency that was asked for, at any host TSC and without
 * overflow; a conversion there and back is never early and never a tick late; and through pauses, saves and restores on
 * hosts of other frequencies the guest's TSC neither goes back nor leaves its frequency.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/tsc.h"

static const struct tsc_scaling vmx = { 16, 48 }, svm = { 8, 32 }, none = { 0, 0 };
static const uint32_t frequencies[] = { 100000, 200006, 1000000, 1596003, 2000000, 2596054, 3700000, 5800000, 10000000 };

static uint64_t multiplier(const struct tsc_scaling *scaling, uint32_t guest, uint32_t host)
{
    uint64_t value = 0;
    uint32_t rate = 0;
    assert_int_equal(tsc_multiplier(scaling, guest, host, &value, &rate), OK);
    assert_int_equal(rate, guest == host || scaling->fraction_bits ? guest : host);
    return value;
}

static uint64_t difference(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static void equal_frequencies_are_left_alone(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(frequencies); i++) {
        assert_int_equal(multiplier(&vmx, frequencies[i], frequencies[i]), TSC_UNSCALED);
        assert_int_equal(multiplier(&none, frequencies[i], frequencies[i]), TSC_UNSCALED);
    }
    for (uint64_t tsc = 1; tsc; tsc <<= 1) {
        assert_int_equal(tsc_scale(TSC_UNSCALED, tsc - 1), tsc - 1);
        assert_int_equal(tsc_host_ticks(TSC_UNSCALED, tsc - 1), tsc - 1);
    }
    assert_int_equal(tsc_scale(TSC_UNSCALED, UINT64_MAX), UINT64_MAX);
    assert_int_equal(tsc_host_ticks(TSC_UNSCALED, UINT64_MAX), UINT64_MAX);
}

static void multipliers_are_those_of_the_manuals(void **state)
{
    (void)state;
    assert_int_equal(multiplier(&vmx, 1000000, 2000000), BIT(47));
    assert_int_equal(multiplier(&svm, 1000000, 2000000), BIT(47));
    assert_int_equal(multiplier(&vmx, 3000000, 2000000), 3 * BIT(47));
    assert_int_equal(multiplier(&vmx, 1000000, 3000000), BIT(48) / 3);
    assert_int_equal(multiplier(&vmx, 2000000, 3000000), 2 * BIT(48) / 3 + 1); /* to the nearest: ...666 is rounded up */
    assert_int_equal(multiplier(&svm, 2000000, 3000000), (2 * BIT(32) / 3 + 1) << 16);
    /* An SVM ratio has 32 fractional bits and no more, and 8 integer bits above them. */
    for (unsigned g = 0; g < ARRAY_COUNT(frequencies); g++)
        for (unsigned h = 0; h < ARRAY_COUNT(frequencies); h++) {
            uint64_t value = multiplier(&svm, frequencies[g], frequencies[h]);
            assert_int_equal(value & 0xffff, 0);
            assert_int_equal(value >> 56, 0);
        }
}

static void a_second_of_the_host_is_a_second_of_the_guest(void **state)
{
    (void)state;
    const struct tsc_scaling *const scalings[] = { &vmx, &svm };
    for (unsigned s = 0; s < 2; s++)
        for (unsigned g = 0; g < ARRAY_COUNT(frequencies); g++)
            for (unsigned h = 0; h < ARRAY_COUNT(frequencies); h++) {
                uint64_t m = multiplier(scalings[s], frequencies[g], frequencies[h]);
                uint64_t day = 86400000ull; /* in ms, so that kHz times it are ticks */
                uint64_t got = tsc_scale(m, frequencies[h] * day), want = frequencies[g] * day;
                /* Half of the last bit for each tick of the host, and the cut. */
                uint64_t slack = (frequencies[h] * day >> (scalings[s]->fraction_bits + 1)) + 1;
                assert_in_range(difference(got, want), 0, slack);
            }
}

static void the_largest_numbers_do_not_overflow(void **state)
{
    (void)state;
    uint64_t value;
    uint32_t rate;
    assert_int_equal(multiplier(&vmx, UINT32_MAX, 65536), (uint64_t)UINT32_MAX << 32);
    assert_int_equal(tsc_multiplier(&vmx, UINT32_MAX, 65535, &value, &rate), ERR_UNSUPPORTED); /* 65537 times */
    assert_int_equal(tsc_multiplier(&vmx, UINT32_MAX, 1, &value, &rate), ERR_UNSUPPORTED);
    assert_int_equal(tsc_multiplier(&svm, 25600000, 100000, &value, &rate), ERR_UNSUPPORTED);
    assert_int_equal(multiplier(&svm, 25599999, 100000) >> 48, 255);
    assert_int_equal(multiplier(&vmx, UINT32_MAX - 1, UINT32_MAX), BIT(48) - BIT(16));
    assert_int_not_equal(multiplier(&svm, 1, UINT32_MAX), 0);
    /* The product is cut to 64 bits, as the CPU cuts it; what wraps goes on from there. */
    uint64_t m = multiplier(&vmx, 3000000, 1000000), edge = UINT64_MAX / 3;
    assert_int_equal(tsc_scale(m, edge + 1) - tsc_scale(m, edge), 3);
    assert_int_equal(tsc_host_ticks(multiplier(&vmx, 100000, 10000000), UINT64_MAX), UINT64_MAX);
    assert_int_equal(tsc_host_ticks(1, 1ull << 20), UINT64_MAX);
    assert_int_equal(tsc_host_ticks(1, 1), BIT(48));
}

static void what_cannot_scale_runs_what_is_close(void **state)
{
    (void)state;
    uint64_t value = 0;
    uint32_t rate = 0;
    static const struct { uint32_t guest, host; enum status status; } cases[] = {
        { 2596054, 2596005, OK },                   /* one machine, measured twice */
        { 2000500, 2000000, OK },                   /* 250 in a million */
        { 1999500, 2000000, OK },
        { 2000501, 2000000, ERR_UNSUPPORTED },
        { 1999499, 2000000, ERR_UNSUPPORTED },
        { 1000000, 2000000, ERR_UNSUPPORTED },
        { UINT32_MAX, 1, ERR_UNSUPPORTED },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(tsc_multiplier(&none, cases[i].guest, cases[i].host, &value, &rate), cases[i].status);
        if (cases[i].status)
            continue;
        assert_int_equal(value, TSC_UNSCALED);
        assert_int_equal(rate, cases[i].host);
    }
    /* Who can scale does, however little it is. */
    assert_int_not_equal(multiplier(&vmx, 2596054, 2596005), TSC_UNSCALED);
}

static uint64_t random_word(void)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 5; i++)
        value = value << 15 ^ (uint64_t)rand();
    return value;
}

/* A deadline in guest ticks becomes a wait in host ticks: not early wherever it begins, and not a tick too long. */
static void deadlines_come_neither_early_nor_late(void **state)
{
    (void)state;
    srand(1);
    const struct tsc_scaling *const scalings[] = { &vmx, &svm };
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t guest = frequencies[(unsigned)rand() % ARRAY_COUNT(frequencies)] + (uint32_t)rand() % 1000;
        uint32_t host = frequencies[(unsigned)rand() % ARRAY_COUNT(frequencies)] + (uint32_t)rand() % 1000;
        uint64_t m = multiplier(scalings[i & 1], guest, host);
        uint64_t wait = random_word() >> (rand() % 48 + 10), now = random_word() >> 8;
        uint64_t ticks = tsc_host_ticks(m, wait);
        assert_true(tsc_scale(m, now + ticks) - tsc_scale(m, now) >= wait);
        if (ticks)
            assert_true(tsc_scale(m, ticks - 1) < wait);
        else
            assert_int_equal(wait, 0);
    }
}

/*
 * A guest's life over hosts of all frequencies, with the rules of vm_stop_clocks, vm_start_clocks and a restore: its TSC
 * never goes back, stands while it is paused, and counts its own frequency over the time that it ran.
 */
static void the_clock_survives_pauses_and_moves(void **state)
{
    (void)state;
    srand(2);
    for (unsigned life = 0; life < 200; life++) {
        const struct tsc_scaling *scaling = life & 1 ? &svm : &vmx;
        uint32_t guest_khz = frequencies[(unsigned)rand() % ARRAY_COUNT(frequencies)] + (uint32_t)rand() % 1000;
        uint32_t host_khz = frequencies[life % ARRAY_COUNT(frequencies)];
        uint64_t host = random_word() >> 16, m = multiplier(scaling, guest_khz, host_khz);
        uint64_t offset = -tsc_scale(m, host), last = 0, slack = 0;
        double ran_ms = 0;
        for (unsigned i = 0; i < 100; i++) {
            uint64_t ran = random_word() >> 30; /* seconds */
            host += ran;
            ran_ms += (double)ran / host_khz;
            slack += (ran >> (scaling->fraction_bits + 1)) + 2;
            uint64_t tsc = tsc_scale(m, host) + offset;
            assert_true(tsc >= last);
            last = tsc;
            if (rand() % 2) { /* a pause */
                uint64_t resumed = host + (random_word() >> 30);
                offset -= tsc_scale(m, resumed) - tsc_scale(m, host);
                host = resumed;
            } else { /* a move: another host, another uptime */
                host_khz = frequencies[(unsigned)rand() % ARRAY_COUNT(frequencies)];
                host = random_word() >> 16;
                m = multiplier(scaling, guest_khz, host_khz);
                offset = tsc - tsc_scale(m, host);
            }
            assert_int_equal(tsc_scale(m, host) + offset, tsc);
        }
        double want = ran_ms * guest_khz, rounding = want * 1e-15 * 100;
        double apart = want > (double)last ? want - (double)last : (double)last - want;
        assert_true(apart <= (double)slack + rounding);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_frequencies_are_left_alone),
        cmocka_unit_test(multipliers_are_those_of_the_manuals),
        cmocka_unit_test(a_second_of_the_host_is_a_second_of_the_guest),
        cmocka_unit_test(the_largest_numbers_do_not_overflow),
        cmocka_unit_test(what_cannot_scale_runs_what_is_close),
        cmocka_unit_test(deadlines_come_neither_early_nor_late),
        cmocka_unit_test(the_clock_survives_pauses_and_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
