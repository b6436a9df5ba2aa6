/* SPDX-License-Identifier: MIT */
/* Promises of the real-time clock: the world's time in every format, setting it, its interrupts, memory, state. */
#include "fake_device.h"

#include <time.h>

#include "vdev/vrtc.h"

#define WORLD 1700000000ull /* 2023-11-14 22:13:20, a Tuesday */

static struct vrtc rtc;
static struct vbus ports;
static struct vtimer_queue queue;
static struct fake_line irq;
static uint64_t now;

static uint8_t get(uint8_t index)
{
    fake_out(&ports, 0x70, 1, index, now);
    return (uint8_t)fake_in(&ports, 0x71, 1, now);
}

static void set(uint8_t index, uint8_t value)
{
    fake_out(&ports, 0x70, 1, index, now);
    fake_out(&ports, 0x71, 1, value, now);
}

static int setup(void **state)
{
    (void)state;
    memset(&ports, 0, sizeof(ports));
    memset(&queue, 0, sizeof(queue));
    memset(&irq, 0, sizeof(irq));
    now = 1000000;
    vrtc_init(&rtc, &queue, FAKE_LINE(&irq), WORLD * SECOND, now);
    assert_int_equal(vrtc_attach(&rtc, &ports), OK);
    return 0;
}

static void run_until(uint64_t until)
{
    while (vtimer_next(&queue) <= until) {
        now = MAX(now, vtimer_next(&queue));
        vtimer_run(&queue, now);
    }
    now = until;
}

static unsigned bcd(uint8_t byte)
{
    return (byte >> 4) * 10u + (byte & 15u);
}

/* The clock as unix seconds, read in BCD and 24 hours. */
static int64_t clock_seconds(void)
{
    struct tm tm = { .tm_year = (int)(bcd(get(0x32)) * 100 + bcd(get(9))) - 1900, .tm_mon = (int)bcd(get(8)) - 1,
                     .tm_mday = (int)bcd(get(7)), .tm_hour = (int)bcd(get(4)), .tm_min = (int)bcd(get(2)),
                     .tm_sec = (int)bcd(get(0)) };
    return timegm(&tm);
}

static void shows_the_world(void **state)
{
    (void)state;
    assert_int_equal(get(0x32), 0x20);
    assert_int_equal(get(9), 0x23);
    assert_int_equal(get(8), 0x11);
    assert_int_equal(get(7), 0x14);
    assert_int_equal(get(6), 3);
    assert_int_equal(get(4), 0x22);
    assert_int_equal(get(2), 0x13);
    assert_int_equal(get(0), 0x20);
    assert_int_equal(get(0x0d), 0x80);
    now += 999999999;
    assert_int_equal(get(0), 0x20);
    now += 1;
    assert_int_equal(get(0), 0x21);
    set(0x0b, 0x06); /* binary */
    assert_int_equal(get(4), 22);
    assert_int_equal(get(9), 23);
    set(0x0b, 0x04); /* binary, 12 hours */
    assert_int_equal(get(4), 0x80 | 10);
    set(0x0b, 0x00);
    assert_int_equal(get(4), 0x80 | 0x10);
    now += 2 * 3600 * SECOND;
    assert_int_equal(get(4), 0x12); /* after midnight */
    now += 12 * 3600 * SECOND;
    assert_int_equal(get(4), 0x92);
}

static void calendar_is_right(void **state)
{
    (void)state;
    uint64_t seed = 17;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t unix_second = fake_random(&seed) % 18000000000ull; /* to the year 2540 */
        vrtc_set_world(&rtc, unix_second * SECOND, now);
        struct tm tm;
        time_t t = (time_t)unix_second;
        gmtime_r(&t, &tm);
        assert_int_equal(clock_seconds(), unix_second);
        assert_int_equal(get(6), tm.tm_wday + 1);
    }
}

static void can_be_set(void **state)
{
    (void)state;
    now += 700 * MS;
    set(0x0b, 0x82); /* SET, then the divider off: as Linux does it */
    set(0x0a, 0x76);
    static const uint8_t index[] = { 0x32, 9, 8, 7, 6, 4, 2, 0 };
    static const uint8_t value[] = { 0x19, 0x99, 0x12, 0x31, 0x02, 0x23, 0x59, 0x58 };
    for (unsigned i = 0; i < 8; i++)
        set(index[i], value[i]);
    now += 10 * SECOND; /* it stands */
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get(index[i]), value[i]);
    set(0x0b, 0x02);
    set(0x0a, 0x26);
    assert_int_equal(get(0), 0x58);
    now += 499999999;
    assert_int_equal(get(0), 0x58);
    now += 1; /* the first second after a divider reset is half a second */
    assert_int_equal(get(0), 0x59);
    assert_int_equal(get(6), 2); /* the day of the week that was set, right or wrong */
    now += SECOND;
    assert_int_equal(clock_seconds(), 946684800); /* 2000-01-01 */
    assert_int_equal(get(6), 3);
    set(4, 0x05); /* without SET: at once */
    assert_int_equal(clock_seconds(), 946684800 + 5 * 3600);
    now += 3 * SECOND;
    assert_int_equal(clock_seconds(), 946684803 + 5 * 3600);
    vrtc_set_world(&rtc, (WORLD + 1000) * SECOND, now); /* the offset to the world stays */
    assert_in_range(clock_seconds(), 946684800 + 5 * 3600 + 900, 946684800 + 5 * 3600 + 1000);
}

static void nonsense_becomes_a_time(void **state)
{
    (void)state;
    uint64_t seed = 23;
    for (unsigned i = 0; i < 20000; i++) {
        set((uint8_t)(fake_random(&seed) % 14), (uint8_t)fake_random(&seed));
        if (fake_random(&seed) % 4 == 0)
            set(0x32, (uint8_t)fake_random(&seed));
        now += fake_random(&seed) % SECOND;
        vtimer_run(&queue, now);
        for (uint8_t index = 0; index < 14; index++)
            get(index);
    }
    set(0x0a, 0x26);
    set(0x0b, 0x82);
    static const uint8_t index[] = { 0x32, 9, 8, 7, 6, 4, 2, 0 };
    for (unsigned i = 0; i < 8; i++)
        set(index[i], 0xff);
    set(0x0b, 0x02);
    assert_int_equal(get(8), 0x12);
    assert_int_equal(get(0), 0x59);
    now += 10 * SECOND; /* past the end of the calendar: it stands there */
    assert_int_equal(get(9), 0x99);
}

static void update_in_progress(void **state)
{
    (void)state;
    assert_int_equal(get(0x0a), 0x26);
    now += SECOND - 244141 - 1;
    assert_int_equal(get(0x0a), 0x26);
    now += 1;
    assert_int_equal(get(0x0a), 0xa6);
    now += 244141;
    assert_int_equal(get(0x0a), 0x26);
    set(0x0b, 0x82); /* no updates, no UIP */
    now += SECOND - 1000;
    assert_int_equal(get(0x0a), 0x26);
}

static void update_interrupt(void **state)
{
    (void)state;
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    now += 3 * SECOND;
    assert_int_equal(get(0x0c), 0x50); /* flags without an interrupt; the periodic one too */
    assert_int_equal(get(0x0c), 0x00);
    set(0x0b, 0x12);
    run_until(now + 3 * SECOND);
    assert_int_equal(irq.rises, 1); /* not acknowledged: no more */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    assert_int_equal(get(0x0c) & 0xb0, 0x90);
    assert_false(irq.level);
    for (unsigned i = 0; i < 10; i++) {
        run_until(now + SECOND);
        assert_int_equal(get(0x0c) & 0xb0, 0x90);
    }
    assert_int_equal(irq.rises, 11);
    set(0x0b, 0x92); /* SET takes UIE away */
    assert_int_equal(get(0x0b), 0x82);
}

static void alarm_interrupt(void **state)
{
    (void)state;
    set(5, 0x23); /* 23:00:05, in 46:45 minutes */
    set(3, 0x00);
    set(1, 0x05);
    set(0x0b, 0x22);
    uint64_t start = now;
    run_until(start + 2804 * SECOND);
    assert_int_equal(irq.rises, 0);
    assert_int_equal(vtimer_next(&queue), start + 2805 * SECOND); /* one timer, not one a second */
    run_until(start + 2805 * SECOND);
    assert_int_equal(irq.rises, 1);
    assert_int_equal(get(0x0c) & 0xa0, 0xa0);
    assert_int_equal(vtimer_next(&queue), start + (2805 + 86400) * SECOND); /* tomorrow again */
    set(5, 0xff); /* each hour */
    assert_int_equal(vtimer_next(&queue), now + 3600 * SECOND);
    set(3, 0xc0); /* each minute */
    assert_int_equal(vtimer_next(&queue), now + 60 * SECOND);
    set(1, 0xff); /* each second */
    assert_int_equal(vtimer_next(&queue), now + SECOND);
    set(1, 0x75); /* never */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    set(1, 0x10);
    set(0x0b, 0x02); /* the flag alone */
    get(0x0c);
    run_until(now + 120 * SECOND);
    assert_int_equal(get(0x0c) & 0x30, 0x30);
    set(0x0b, 0x20); /* 12 hours */
    set(5, 0x81);
    set(3, 0);
    set(1, 0);
    start = now;
    run_until(now + 86400 * SECOND);
    assert_int_equal(irq.rises, 2);
}

static void periodic_interrupt(void **state)
{
    (void)state;
    uint64_t start = now;
    set(0x0a, 0x2f); /* 2 Hz */
    set(0x0b, 0x42);
    unsigned count = 0;
    while (vtimer_next(&queue) <= start + 10 * SECOND) {
        now = vtimer_next(&queue);
        vtimer_run(&queue, now);
        assert_int_equal(get(0x0c) & 0xc0, 0xc0);
        count++;
    }
    assert_int_equal(count, 20);
    set(0x0a, 0x23); /* 8192 Hz */
    count = 0;
    start = now;
    while (vtimer_next(&queue) <= start + SECOND) {
        now = vtimer_next(&queue);
        vtimer_run(&queue, now);
        get(0x0c);
        count++;
    }
    assert_in_range(count, 8191, 8193);
    unsigned before = irq.rises;
    now += 60 * SECOND; /* a long stop: one */
    vtimer_run(&queue, now);
    assert_int_equal(irq.rises, before + 1);
    get(0x0c);
    assert_true(vtimer_next(&queue) > now);
    set(0x0a, 0x20); /* rate 0: off */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    set(0x0a, 0x76); /* divider off */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
}

static void memory(void **state)
{
    (void)state;
    for (unsigned i = 0x0e; i < 128; i++) {
        if (i == 0x32)
            continue;
        set((uint8_t)i, (uint8_t)(i ^ 0x5a));
        assert_int_equal(get((uint8_t)i), i ^ 0x5a);
    }
    for (unsigned i = 0; i < 128; i++) {
        fake_out(&ports, 0x72, 1, 0x80 | i, now);
        fake_out(&ports, 0x73, 1, i ^ 0xa5, now);
        assert_int_equal(fake_in(&ports, 0x73, 1, now), i ^ 0xa5);
    }
    assert_int_equal(get(0x0e), 0x0e ^ 0x5a); /* the banks are two */
    vrtc_set_cmos(&rtc, 0x34, 0x77);
    assert_int_equal(get(0x34), 0x77);
    vrtc_set_cmos(&rtc, 0x0b, 0x77);
    assert_int_equal(get(0x0b), 0x02);
    assert_false(vrtc_nmi_masked(&rtc));
    assert_int_equal(get(0x80 | 0x0b), 0x02);
    assert_true(vrtc_nmi_masked(&rtc));
    assert_int_equal(fake_in(&ports, 0x70, 1, now), 0xff);
    fake_out(&ports, 0x70, 2, 0x4210, now); /* index and data in one word */
    assert_int_equal(get(0x10), 0x42);
    set(0x0c, 0xff);
    set(0x0d, 0x00);
    assert_int_equal(get(0x0c), 0);
    assert_int_equal(get(0x0d), 0x80);
    set(0x0b, 0x72);
    vrtc_reset(&rtc, now);
    assert_int_equal(get(0x0b), 0x02);
    assert_int_equal(get(0x10), 0x42);
}

static void do_save(const void *device, struct stream_writer *w, uint64_t now_ns)
{
    vrtc_save(device, w, now_ns);
}

static uint64_t restore_world;

static void do_restore(void *device, struct stream_reader *r, uint64_t now_ns)
{
    vrtc_restore(device, r, restore_world * SECOND, now_ns);
}

static void state_shows_the_world(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    set(4, 0x20); /* two hours behind the world */
    set(0x0b, 0x22);
    set(5, 0x21);
    set(3, 0x00);
    set(1, 0x00);
    set(0x40, 0x99);
    now += 100 * SECOND;
    fake_save(do_save, &rtc, now, &saved);
    memset(&queue, 0, sizeof(queue));
    memset(&irq, 0, sizeof(irq));
    now = 7;
    vrtc_init(&rtc, &queue, FAKE_LINE(&irq), 0, now);
    restore_world = WORLD + 7200; /* two hours later in the world, none for the guest */
    assert_int_equal(fake_restore(do_restore, &rtc, now, &saved), OK);
    fake_save(do_save, &rtc, now, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_int_equal(clock_seconds(), WORLD);
    assert_int_equal(get(0x40), 0x99);
    assert_int_equal(irq.rises, 0);
    run_until(now + SECOND);
    assert_int_equal(irq.rises, 1); /* the alarm of 21:00 was passed: once */
    assert_int_equal(get(0x0c) & 0xa0, 0xa0);
    run_until(now + 3600 * SECOND);
    assert_int_equal(irq.rises, 1);
    restore_world = 1000; /* and into a world whose clock is behind */
    assert_int_equal(fake_restore(do_restore, &rtc, now, &saved), OK);
    run_until(now + SECOND);
    assert_int_equal(irq.rises, 1);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 29;
    set(0x0b, 0x72);
    fake_save(do_save, &rtc, now, &saved);
    restore_world = WORLD;
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(do_restore, &rtc, now, &bad), OK);
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        for (unsigned i = 0; i < 3; i++) /* mostly not in the plain memory */
            bad.bytes[fake_random(&seed) % 16] = (uint8_t)fake_random(&seed);
        bad.bytes[256 + fake_random(&seed) % (bad.count - 256)] = (uint8_t)fake_random(&seed);
        if (fake_restore(do_restore, &rtc, now, &bad) != OK)
            continue;
        for (unsigned k = 0; k < 8; k++) {
            set((uint8_t)(fake_random(&seed) % 16), (uint8_t)fake_random(&seed));
            get((uint8_t)(fake_random(&seed) % 16));
            now += fake_random(&seed) % SECOND;
            vtimer_run(&queue, now);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(shows_the_world), TEST(calendar_is_right), TEST(can_be_set), TEST(nonsense_becomes_a_time),
        TEST(update_in_progress), TEST(update_interrupt), TEST(alarm_interrupt), TEST(periodic_interrupt),
        TEST(memory), TEST(state_shows_the_world), TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
