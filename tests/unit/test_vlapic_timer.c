/* SPDX-License-Identifier: MIT */
/* Promises of the local APIC's timer, and of its state: saved and restored it goes on, and no timer is lost. */
#include "vlapic_fixture.h"

/* ---- Timer ---- */

static void timer_one_shot(void **state)
{
    (void)state;
    set(0, 0x320, 0x30);
    set(0, 0x3e0, 0x3); /* by 16 */
    set(0, 0x380, 1000);
    assert_int_equal(get(0, 0x390), 1000);
    uint64_t start = now;
    now = start + 8000;
    assert_int_equal(get(0, 0x390), 500);
    run_until(start + 15999);
    assert_int_equal(take(0), -1);
    run_until(start + 16000);
    assert_int_equal(take(0), 0x30);
    assert_int_equal(get(0, 0x390), 0);
    set(0, 0xb0, 0);
    run_until(start + 1000000);
    assert_int_equal(take(0), -1);
    set(0, 0x380, 1000);
    set(0, 0x380, 0); /* stopped */
    run_until(now + 100000);
    assert_int_equal(take(0), -1);
    static const unsigned divisors[16] = { 2, 4, 8, 16, 0, 0, 0, 0, 32, 64, 128, 1 };
    for (unsigned code = 0; code < 12; code++) {
        if (!divisors[code])
            continue;
        set(0, 0x3e0, code);
        set(0, 0x380, 100000);
        run_until(now + 12800);
        assert_int_equal(get(0, 0x390), 100000 - 12800 / divisors[code]);
    }
}

static void timer_periodic(void **state)
{
    (void)state;
    set(0, 0x320, 0x20030);
    set(0, 0x3e0, 0xb);
    set(0, 0x380, 1000003);
    uint64_t start = now;
    for (unsigned n = 1; n <= 50; n++) {
        uint64_t late = n % 7 * 1000; /* served late: no drift */
        now = start + n * 1000003ull + late;
        assert_int_equal(vtimer_next(&queue), start + n * 1000003ull);
        vtimer_run(&queue, now);
        assert_int_equal(take(0), 0x30);
        set(0, 0xb0, 0);
        assert_int_equal(get(0, 0x390), 1000003 - late);
    }
    now = start + 100000 * 1000003ull + 5; /* after a long stop: one interrupt, phase kept */
    vtimer_run(&queue, now);
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    vtimer_run(&queue, now);
    assert_int_equal(take(0), -1);
    assert_int_equal(vtimer_next(&queue), start + 100001 * 1000003ull);
}

static void timer_does_not_flood(void **state)
{
    (void)state;
    set(0, 0x320, 0x20030);
    set(0, 0x3e0, 0xb);
    set(0, 0x380, 1);
    unsigned fired = 0;
    uint64_t start = now;
    while (vtimer_next(&queue) <= start + 10 * MS) {
        now = vtimer_next(&queue);
        vtimer_run(&queue, now);
        fired++;
    }
    assert_in_range(fired, 400, 10 * MS / VLAPIC_MIN_PERIOD_NS + 1);
    set(0, 0x380, 0xffffffff);
    assert_true(vtimer_next(&queue) > now + SECOND);
}

static void timer_changes_while_armed(void **state)
{
    (void)state;
    set(0, 0x320, 0x30);
    set(0, 0x3e0, 0xb);
    set(0, 0x380, 1000000);
    uint64_t start = now;
    run_until(start + 400000);
    set(0, 0x3e0, 0x0); /* by 2: the count stays, the rest takes twice as long */
    assert_int_equal(get(0, 0x390), 600000);
    assert_int_equal(vtimer_next(&queue), now + 1200000);
    set(0, 0x320, 0x20030); /* to periodic: goes on counting */
    assert_int_equal(get(0, 0x390), 600000);
    run_until(now + 1200000);
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    assert_int_equal(vtimer_next(&queue), now + 2000000);
    run_until(now + 500000);
    set(0, 0x320, 0x30); /* and back: fires at the end of this period, then no more */
    run_until(now + 1500000);
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    set(0, 0x320, 0x20030); /* an expired one stays expired */
    assert_int_equal(get(0, 0x390), 0);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);

    set(0, 0x380, 1000000); /* masked: counts, does not interrupt, comes back in phase */
    start = now;
    set(0, 0x320, 0x30030);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    now = start + 5000000;
    assert_int_equal(get(0, 0x390), 500000);
    set(0, 0x320, 0x20031);
    assert_int_equal(take(0), -1);
    assert_int_equal(vtimer_next(&queue), start + 6000000);

    now = start + 6000010; /* due, not served yet, and the guest stops it: the interrupt has come */
    set(0, 0x380, 0);
    assert_int_equal(take(0), 0x31);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    set(0, 0xb0, 0);

    set(0, 0x320, 0x30);
    set(0, 0x380, 1000);
    set(0, 0x320, 0x10030);
    now += 3000;
    set(0, 0x320, 0x30); /* expired while masked: lost */
    run_until(now + SECOND);
    assert_int_equal(take(0), -1);

    set(0, 0x380, 1000000);
    set(0, 0x320, 0x40030); /* to deadline mode: disarmed */
    assert_int_equal(get(0, 0x380), 0);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    set(0, 0x380, 1000);
    assert_int_equal(get(0, 0x380), 0);
    set(0, 0x320, 0x20030);
    set(0, 0x380, 1000);
    set(0, 0xf0, 0xff); /* software-disabled: masked */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
}

static void timer_tsc_deadline(void **state)
{
    (void)state;
    assert_true(wr(0, 0x6e0, tsc(NULL) + 300)); /* not in that mode: ignored */
    assert_int_equal(rd(0, 0x6e0), 0);
    set(0, 0x320, 0x40030);
    uint64_t deadline = tsc(NULL) + 3001;
    assert_true(wr(0, 0x6e0, deadline));
    assert_int_equal(rd(0, 0x6e0), deadline);
    assert_int_equal(get(0, 0x390), 0);
    run_until(now + 1000);
    assert_int_equal(take(0), -1); /* the TSC has not got there, although the conversion rounded down */
    run_until(now + 1);
    assert_true(tsc(NULL) >= deadline);
    assert_int_equal(take(0), 0x30);
    assert_int_equal(rd(0, 0x6e0), 0);
    set(0, 0xb0, 0);
    assert_true(wr(0, 0x6e0, tsc(NULL))); /* in the past: at once */
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    assert_true(wr(0, 0x6e0, 1));
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    assert_true(wr(0, 0x6e0, tsc(NULL) + 3000));
    assert_true(wr(0, 0x6e0, 0)); /* disarmed */
    run_until(now + MS);
    assert_int_equal(take(0), -1);
    assert_true(wr(0, 0x6e0, UINT64_MAX));
    assert_true(vtimer_next(&queue) != VTIMER_OFF);
    assert_true(wr(0, 0x6e0, tsc(NULL) + 3000));
    set(0, 0x320, 0x50030); /* masked over the deadline: lost */
    now += MS;
    assert_int_equal(rd(0, 0x6e0), 0);
    set(0, 0x320, 0x40030);
    run_until(now + MS);
    assert_int_equal(take(0), -1);
    assert_true(wr(0, 0x6e0, tsc(NULL) + 3000));
    set(0, 0x320, 0x30); /* mode change disarms */
    assert_int_equal(rd(0, 0x6e0), 0);
    run_until(now + MS);
    assert_int_equal(take(0), -1);
}

/* ---- State ---- */

FAKE_ADAPT(vlapic)

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    set(0, 0x320, 0x20030);
    set(0, 0x3e0, 0xb);
    set(0, 0x380, 1000000);
    set(0, 0x80, 0x20);
    vlapic_post(&apic[0], 0x81, true);
    take(0);
    vlapic_post(&apic[0], 0x91, false);
    vlapic_post(&apic[0], 0x41, true);
    now += 300000;
    fake_save(vlapic_do_save, &apic[0], now, &saved);
    setup_count(CPUS); /* another machine, whose clock is elsewhere */
    now = 77;
    assert_int_equal(fake_restore(vlapic_do_restore, &apic[0], now, &saved), OK);
    assert_int_equal(get(0, 0x390), 700000);
    assert_int_equal(vtimer_next(&queue), now + 700000);
    fake_save(vlapic_do_save, &apic[0], now, &again);
    assert_int_equal(again.count, saved.count);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_int_equal(take(0), 0x91);
    set(0, 0xb0, 0);
    set(0, 0xb0, 0);
    assert_int_equal(eoi_vector, 0x81);
    assert_int_equal(take(0), 0x41);
    set(0, 0xb0, 0);
    assert_int_equal(eois, 2);
    run_until(now + 700000);
    assert_int_equal(take(0), 0x30);
}

static void late_timer_is_not_lost(void **state)
{
    (void)state;
    static struct fake_state saved;
    set(0, 0x320, 0x30);
    set(0, 0x3e0, 0xb);
    set(0, 0x380, 1000);
    now += 5000; /* expired, nobody looked, saved */
    fake_save(vlapic_do_save, &apic[0], now, &saved);
    setup_count(CPUS);
    now = SECOND;
    assert_int_equal(fake_restore(vlapic_do_restore, &apic[0], now, &saved), OK);
    run_until(now + 1);
    assert_int_equal(take(0), 0x30);
    set(0, 0xb0, 0);
    run_until(now + SECOND);
    assert_int_equal(take(0), -1);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 11, value;
    set(0, 0x320, 0x20030);
    set(0, 0x380, 1000000);
    vlapic_post(&apic[0], 0x91, false);
    fake_save(vlapic_do_save, &apic[0], now, &saved);
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(vlapic_do_restore, &apic[0], now, &bad), OK);
    assert_int_equal(fake_restore(vlapic_do_restore, &apic[1], now, &saved), ERR_CORRUPT); /* another's */
    unsigned good = 0;
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        good += fake_restore(vlapic_do_restore, &apic[0], now, &bad) == OK;
        for (unsigned k = 0; k < 8; k++) {
            unsigned offset = (unsigned)(fake_random(&seed) % 0x40) * 16;
            get(0, offset);
            set(0, offset, (uint32_t)fake_random(&seed));
            vlapic_msr_write(&apic[0], 0x6e0, fake_random(&seed) >> fake_random(&seed) % 64, now);
            vlapic_msr_read(&apic[0], 0x800 + (uint32_t)(fake_random(&seed) % 0x40), &value, now);
            take(0);
            now += fake_random(&seed) % MS;
            vtimer_run(&queue, now);
        }
        if (fake_random(&seed) % 8 == 0)
            setup_count(CPUS);
    }
    assert_in_range(good, 1000, 19999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timer_one_shot), TEST(timer_periodic), TEST(timer_does_not_flood), TEST(timer_changes_while_armed),
        TEST(timer_tsc_deadline), TEST(state_goes_on), TEST(late_timer_is_not_lost), TEST(hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
