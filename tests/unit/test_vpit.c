/* SPDX-License-Identifier: MIT */
/* Promises of the 8254 and port 0x61: counts and outputs of all modes, latches, edges without drift or flood, state. */
#include "fake_device.h"

#include "vdev/vpit.h"
#include "vdev/vtime.h"

static struct vpit pit;
static struct vbus ports;
static struct vtimer_queue queue;
static struct fake_line irq;
static uint64_t now;

static void out(uint16_t port, uint8_t value)
{
    fake_out(&ports, port, 1, value, now);
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)fake_in(&ports, port, 1, now);
}

static int setup(void **state)
{
    (void)state;
    memset(&ports, 0, sizeof(ports));
    memset(&queue, 0, sizeof(queue));
    memset(&irq, 0, sizeof(irq));
    now = 123456789;
    vpit_init(&pit, &queue, FAKE_LINE(&irq), now);
    assert_int_equal(vpit_attach(&pit, &ports), OK);
    return 0;
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
    out(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out((uint16_t)(0x40 + channel), (uint8_t)count);
    out((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static unsigned counter(unsigned channel)
{
    out(0x43, (uint8_t)(channel << 6));
    unsigned low = in((uint16_t)(0x40 + channel));
    return low | (unsigned)in((uint16_t)(0x40 + channel)) << 8;
}

static bool out2(void)
{
    return in(0x61) & 0x20;
}

/* To the first nanosecond of the tick so many ticks after the device's tick zero. */
static void at_tick(uint64_t tick)
{
    now = pit.origin_ns + vtime_ns(tick, VPIT_HZ);
}

static void run_until(uint64_t until)
{
    while (vtimer_next(&queue) <= until) {
        now = MAX(now, vtimer_next(&queue));
        vtimer_run(&queue, now);
    }
    now = until;
}

static void rate_generator(void **state)
{
    (void)state;
    program(0, 2, 11932);
    unsigned before = irq.rises;
    assert_int_equal(counter(0), 11932);
    at_tick(1000);
    assert_int_equal(counter(0), 10932);
    at_tick(11931);
    assert_int_equal(counter(0), 1);
    run_until(now + 1000);
    assert_int_equal(irq.rises, before + 1);
    assert_int_equal(counter(0), 11932);
    uint64_t start = pit.origin_ns;
    run_until(start + 3600 * SECOND); /* an hour: not one edge too many or too few */
    assert_int_equal(irq.rises - before, 3600ull * VPIT_HZ / 11932);
}

static void late_edges_come_once(void **state)
{
    (void)state;
    program(0, 2, 1193);
    unsigned before = irq.rises;
    at_tick(1193 * 1000 + 7);
    vtimer_run(&queue, now);
    assert_int_equal(irq.rises, before + 1);
    vtimer_run(&queue, now);
    assert_int_equal(irq.rises, before + 1);
    assert_true(vtimer_next(&queue) == pit.origin_ns + vtime_ns(1193 * 1001, VPIT_HZ)); /* phase kept */
    program(0, 2, 1); /* an impossible rate */
    before = irq.rises;
    run_until(now + 10 * MS);
    assert_in_range(irq.rises - before, 300, 10 * MS / VPIT_MIN_PERIOD_NS + 1);
}

static void terminal_count(void **state)
{
    (void)state;
    vline_set(&pit.irq, true);
    program(0, 0, 1000);
    assert_false(irq.level);
    at_tick(400);
    assert_int_equal(counter(0), 600);
    program(0, 0, 1000); /* written anew: starts anew */
    at_tick(1399);
    vtimer_run(&queue, now);
    assert_false(irq.level);
    at_tick(1400);
    vtimer_run(&queue, now);
    assert_true(irq.level);
    at_tick(1405);
    assert_int_equal(counter(0), 65536 - 5); /* goes on below zero */
    unsigned rises = irq.rises;
    run_until(now + SECOND);
    assert_int_equal(irq.rises, rises);
    program(0, 0, 0); /* 65536 */
    uint64_t start = now;
    assert_int_equal(counter(0), 0);
    run_until(start + 65536 * SECOND / VPIT_HZ - 2000);
    assert_false(irq.level);
    run_until(now + 4000);
    assert_true(irq.level);
}

static void square_wave(void **state)
{
    (void)state;
    out(0x61, 1);
    program(2, 3, 1001);
    assert_true(out2());
    assert_int_equal(counter(2), 1000);
    at_tick(500);
    assert_true(out2());
    assert_int_equal(counter(2), 0);
    at_tick(501);
    assert_false(out2());
    assert_int_equal(counter(2), 1000);
    at_tick(1000);
    assert_false(out2());
    at_tick(1001);
    assert_true(out2());
    program(0, 3, 4);
    assert_int_equal(counter(0), 4);
    program(2, 3, 1000);
    uint64_t start = pit.channel[2].start_tick;
    out(0x42, 0x64); /* a new count: from the next period on */
    out(0x42, 0);
    at_tick(start + 999);
    assert_false(out2());
    at_tick(start + 1049);
    assert_true(out2());
    at_tick(start + 1050);
    assert_false(out2());
    at_tick(start + 1100);
    assert_true(out2());
    at_tick(start + 1000 + 5 * 100 + 20); /* periods later, unobserved: still from the next one on */
    out(0x42, 200);
    out(0x42, 0);
    at_tick(start + 1599);
    assert_false(out2());
    at_tick(start + 1699);
    assert_true(out2());
    at_tick(start + 1700);
    assert_false(out2());
}

static void strobe(void **state)
{
    (void)state;
    out(0x61, 1);
    program(2, 4, 100);
    at_tick(99);
    assert_true(out2());
    at_tick(100);
    assert_false(out2());
    at_tick(101);
    assert_true(out2());
    program(0, 4, 100);
    unsigned before = irq.rises;
    run_until(now + SECOND);
    assert_int_equal(irq.rises, before + 1);
}

static void gate(void **state)
{
    (void)state;
    assert_false(in(0x61) & 1);
    program(2, 0, 1000); /* gate low: waits */
    at_tick(500);
    assert_int_equal(counter(2), 1000);
    out(0x61, 1);
    at_tick(700);
    assert_int_equal(counter(2), 800);
    out(0x61, 0);
    at_tick(5000);
    assert_int_equal(counter(2), 800);
    assert_false(out2());
    out(0x61, 3);
    assert_int_equal(in(0x61) & 0x0f, 3);
    at_tick(5799);
    assert_false(out2());
    at_tick(5800);
    assert_true(out2());

    program(2, 1, 300); /* one-shot: the gate's edge starts it */
    assert_true(out2());
    out(0x61, 0);
    assert_true(out2());
    at_tick(6000);
    out(0x61, 1);
    assert_false(out2());
    at_tick(6200);
    out(0x61, 0);
    out(0x61, 1); /* and starts it again */
    at_tick(6400);
    assert_false(out2());
    at_tick(6500);
    assert_true(out2());

    program(2, 5, 300);
    out(0x61, 0);
    out(0x61, 1);
    at_tick(6800);
    assert_false(out2());
    at_tick(6801);
    assert_true(out2());

    program(2, 2, 300);
    at_tick(6901);
    out(0x61, 0); /* output high at once, counting stops */
    assert_true(out2());
    at_tick(8000);
    out(0x61, 1); /* from the start */
    assert_int_equal(counter(2), 300);
    at_tick(8299);
    assert_false(out2());
}

static void latches(void **state)
{
    (void)state;
    program(0, 2, 50000);
    at_tick(100);
    out(0x43, 0x00);
    at_tick(200);
    out(0x43, 0x00); /* the first latch stands */
    assert_int_equal(in(0x40), 49900 & 0xff);
    assert_int_equal(in(0x40), 49900 >> 8);
    assert_int_equal(in(0x40), 49800 & 0xff); /* live now */
    assert_int_equal(in(0x40), 49800 >> 8);
    out(0x43, 0xc2); /* read back: status and count of channel 0 */
    assert_int_equal(in(0x40), 0x80 | 0x30 | 2 << 1);
    assert_int_equal(in(0x40), 49800 & 0xff);
    assert_int_equal(in(0x40), 49800 >> 8);
    out(0x43, 0xee); /* status of all three */
    in(0x40);
    assert_int_equal(in(0x41) & 0x40, 0x40); /* no count yet */
    out(0x43, 0xdc); /* counts of 1 and 2 */
    assert_int_equal(pit.channel[1].latched, 2);
    assert_int_equal(pit.channel[2].latched, 2);
    assert_int_equal(pit.channel[0].latched, 0);
    out(0x43, 0x54 | 0x00); /* channel 1, low byte only, mode 2 */
    out(0x41, 18);
    assert_int_equal(in(0x41), 18);
    out(0x43, 0xa4); /* channel 2, high byte only, mode 2 */
    out(0x42, 0x12);
    out(0x61, 1);
    assert_int_equal(in(0x42), 0x12);
    assert_int_equal(in(0x43), 0xff);
    assert_int_equal(fake_in(&ports, 0x41, 1, now), 18);
}

static void bcd(void **state)
{
    (void)state;
    out(0x43, 0x35); /* mode 2, BCD */
    out(0x40, 0x00);
    out(0x40, 0x10);
    assert_int_equal(counter(0), 0x1000);
    at_tick(1);
    assert_int_equal(counter(0), 0x0999);
    out(0x43, 0x31); /* mode 0 */
    out(0x40, 0);
    out(0x40, 0); /* 10000 */
    uint64_t start = pit.channel[0].start_tick;
    assert_int_equal(counter(0), 0);
    at_tick(start + 1);
    assert_int_equal(counter(0), 0x9999);
    at_tick(start + 10001);
    assert_int_equal(counter(0), 0x9999);
    out(0x43, 0x35);
    out(0x40, 0xff);
    out(0x40, 0xff); /* no digits: any count, no harm */
    counter(0);
}

static void refresh_toggles(void **state)
{
    (void)state;
    unsigned changes = 0;
    uint8_t before = in(0x61) & 0x10;
    for (unsigned us = 0; us < 15085; us++, now += 1000) {
        uint8_t bit = in(0x61) & 0x10;
        changes += bit != before;
        before = bit;
    }
    assert_in_range(changes, 998, 1001); /* each 15.085 microseconds */
}

FAKE_ADAPT(vpit)

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    program(0, 2, 11932);
    out(0x61, 1);
    program(2, 0, 20000);
    at_tick(100 * 11932 + 5000);
    vtimer_run(&queue, now);
    out(0x43, 0x80); /* a latched count too */
    unsigned latched = (0x10000 + 20000 - (100 * 11932 + 5000) % 0x10000) & 0xffff;
    uint64_t left = vtimer_next(&queue) - now;
    fake_save(vpit_do_save, &pit, now, &saved);
    now = 5;
    memset(&queue, 0, sizeof(queue));
    vpit_init(&pit, &queue, FAKE_LINE(&irq), now);
    now = 42; /* the new machine's clock is behind the old one's tick zero */
    unsigned before = irq.rises;
    assert_int_equal(fake_restore(vpit_do_restore, &pit, now, &saved), OK);
    assert_int_equal(irq.rises, before);
    assert_int_equal(vtimer_next(&queue) - now, left);
    fake_save(vpit_do_save, &pit, now, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_int_equal(counter(0), 11932 - 5000);
    assert_int_equal(in(0x42), latched & 0xff);
    assert_int_equal(in(0x42), latched >> 8);
    run_until(now + SECOND);
    assert_in_range(irq.rises - before, 99, 100);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 7;
    program(0, 2, 1000);
    fake_save(vpit_do_save, &pit, now, &saved);
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(vpit_do_restore, &pit, now, &bad), OK);
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        if (fake_restore(vpit_do_restore, &pit, now, &bad) != OK)
            continue;
        for (unsigned k = 0; k < 8; k++) {
            uint16_t port = (uint16_t)(fake_random(&seed) % 5 + 0x40);
            out(port == 0x44 ? 0x61 : port, (uint8_t)fake_random(&seed));
            in(port == 0x44 ? 0x61 : port);
            now += fake_random(&seed) % MS;
            vtimer_run(&queue, now);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(rate_generator), TEST(late_edges_come_once), TEST(terminal_count), TEST(square_wave), TEST(strobe),
        TEST(gate), TEST(latches), TEST(bcd), TEST(refresh_toggles), TEST(state_goes_on), TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
