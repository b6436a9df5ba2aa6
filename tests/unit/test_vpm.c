/* SPDX-License-Identifier: MIT */
/* Promises of power management: the PM timer, events and SCI, soft off, the ways to reset, state. */
#include "fake_device.h"

#include "vdev/vpm.h"
#include "vdev/vtime.h"

static struct vpm pm;
static struct vbus ports;
static struct vtimer_queue queue;
static struct fake_line sci;
static unsigned resets, offs;
static uint64_t now;

static void power_off(void *context)
{
    (void)context;
    offs++;
}

static void reset(void *context)
{
    (void)context;
    resets++;
}

static const struct vpm_events events = { power_off, reset, NULL };

static void out(unsigned port, unsigned size, uint64_t value)
{
    fake_out(&ports, port, size, value, now);
}

static uint64_t in(unsigned port, unsigned size)
{
    return fake_in(&ports, port, size, now);
}

static int setup(void **state)
{
    (void)state;
    memset(&ports, 0, sizeof(ports));
    memset(&queue, 0, sizeof(queue));
    memset(&sci, 0, sizeof(sci));
    resets = offs = 0;
    now = 555;
    vpm_init(&pm, &queue, FAKE_LINE(&sci), events, now);
    assert_int_equal(vpm_attach(&pm, &ports), OK);
    assert_int_equal(vbus_add(&ports, VPM_CF9_PORT, 1, &vpm_cf9_ops, &pm), OK);
    return 0;
}

static void timer_counts(void **state)
{
    (void)state;
    uint64_t start = now;
    assert_int_equal(in(VPM_BASE + 8, 4), 0);
    now = start + SECOND;
    assert_int_equal(in(VPM_BASE + 8, 4), VPM_TIMER_HZ);
    now = start + 86400 * 365 * SECOND;
    assert_int_equal(in(VPM_BASE + 8, 4), 86400ull * 365 * VPM_TIMER_HZ & 0xffffffff);
    assert_int_equal(in(VPM_BASE + 9, 1), 86400ull * 365 * VPM_TIMER_HZ >> 8 & 0xff);
    out(VPM_BASE + 8, 4, 0); /* read-only */
    assert_int_equal(in(VPM_BASE + 8, 4), 86400ull * 365 * VPM_TIMER_HZ & 0xffffffff);
}

static void timer_event(void **state)
{
    (void)state;
    uint64_t half = vtime_ns(1ull << 31, VPM_TIMER_HZ), start = now;
    out(VPM_BASE + 2, 2, 1);
    assert_int_equal(vtimer_next(&queue), start + half);
    now = start + half - 1;
    vtimer_run(&queue, now);
    assert_false(sci.level);
    now = start + half;
    vtimer_run(&queue, now);
    assert_true(sci.level);
    assert_true(vtimer_next(&queue) == VTIMER_OFF); /* nothing more until it is cleared */
    assert_int_equal(in(VPM_BASE, 2), 1);
    out(VPM_BASE, 2, 1);
    assert_false(sci.level);
    assert_int_equal(vtimer_next(&queue), start + vtime_ns(2ull << 31, VPM_TIMER_HZ));
    now = start + 100 * half;
    vtimer_run(&queue, now);
    assert_int_equal(sci.rises, 2); /* once for all that was missed */
    out(VPM_BASE, 2, 0xffff);
    out(VPM_BASE + 2, 2, 0);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
}

static void power_button(void **state)
{
    (void)state;
    assert_false(vpm_button_enabled(&pm));
    vpm_power_button(&pm);
    assert_false(sci.level);
    assert_int_equal(in(VPM_BASE, 2), 0x100);
    out(VPM_BASE, 2, 0x100);
    assert_int_equal(in(VPM_BASE, 2), 0);
    out(VPM_BASE + 3, 1, 0x01); /* by bytes */
    assert_int_equal(in(VPM_BASE + 2, 2), 0x100);
    assert_true(vpm_button_enabled(&pm));
    vpm_power_button(&pm);
    assert_true(sci.level);
    out(VPM_BASE, 2, 0); /* zeroes clear nothing */
    assert_true(sci.level);
    assert_int_equal(in(VPM_BASE, 4), 0x01000100);
    out(VPM_BASE + 1, 1, 1);
    assert_false(sci.level);
    out(VPM_BASE + 2, 2, 0xffff);
    assert_int_equal(in(VPM_BASE + 2, 2), 0x0521);
}

static void soft_off(void **state)
{
    (void)state;
    assert_int_equal(in(VPM_BASE + 4, 2), 1); /* SCI_EN always */
    out(VPM_BASE + 4, 2, VPM_SLP_TYP_S5 << 10);
    assert_int_equal(offs, 0);
    assert_int_equal(in(VPM_BASE + 4, 2), VPM_SLP_TYP_S5 << 10 | 1);
    out(VPM_BASE + 4, 2, VPM_SLP_TYP_S5 << 10 | 0x2000);
    assert_int_equal(offs, 1);
    assert_int_equal(in(VPM_BASE + 4, 2), VPM_SLP_TYP_S5 << 10 | 1);
    out(VPM_BASE + 4, 2, 1 << 10 | 0x2000); /* other states are not there */
    assert_int_equal(offs, 1);
}

static void resets_by_all_doors(void **state)
{
    (void)state;
    out(VPM_BASE + VPM_RESET_OFFSET, 1, VPM_RESET_VALUE);
    assert_int_equal(resets, 1);
    vpm_reset(&pm, now);
    out(VPM_CF9_PORT, 1, 0x02);
    assert_int_equal(in(VPM_CF9_PORT, 1), 0x02);
    assert_int_equal(resets, 1);
    out(VPM_CF9_PORT, 1, 0x06);
    out(VPM_CF9_PORT, 1, 0x06); /* the bit rises once */
    assert_int_equal(resets, 2);
    out(0x64, 1, 0xfe);
    assert_int_equal(resets, 3);
    out(0x64, 1, 0xd1);
    out(0x64, 1, 0xff);
    assert_int_equal(in(0x64, 1), 0xff);
    assert_int_equal(in(0x92, 1), 2);
    out(0x92, 1, 0);
    assert_int_equal(in(0x92, 1), 0);
    assert_int_equal(resets, 3);
    out(0x92, 1, 3);
    assert_int_equal(resets, 4);
}

FAKE_ADAPT(vpm)

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    out(VPM_BASE + 2, 2, 0x101);
    now += 700 * SECOND; /* past the top bit's change: not served yet */
    uint64_t ticks = in(VPM_BASE + 8, 4);
    fake_save(vpm_do_save, &pm, now, &saved);
    now = 3;
    memset(&queue, 0, sizeof(queue));
    memset(&sci, 0, sizeof(sci));
    vpm_init(&pm, &queue, FAKE_LINE(&sci), events, now);
    now = 10;
    assert_int_equal(fake_restore(vpm_do_restore, &pm, now, &saved), OK);
    fake_save(vpm_do_save, &pm, now, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_int_equal(in(VPM_BASE + 8, 4), ticks);
    assert_int_equal(sci.rises, 0);
    while (!sci.level) {
        assert_true(vtimer_next(&queue) != VTIMER_OFF);
        now = MAX(now, vtimer_next(&queue));
        assert_true(now < SECOND);
        vtimer_run(&queue, now);
    }
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 13;
    fake_save(vpm_do_save, &pm, now, &saved);
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(vpm_do_restore, &pm, now, &bad), OK);
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        if (fake_restore(vpm_do_restore, &pm, now, &bad) != OK)
            continue;
        for (unsigned k = 0; k < 8; k++) {
            unsigned size = 1u << fake_random(&seed) % 4;
            unsigned offset = (unsigned)(fake_random(&seed) % (VPM_PORTS - size + 1));
            out(VPM_BASE + offset, size, fake_random(&seed));
            in(VPM_BASE + offset, size);
            now += fake_random(&seed) % (1000 * SECOND);
            vtimer_run(&queue, now);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(timer_counts), TEST(timer_event), TEST(power_button), TEST(soft_off), TEST(resets_by_all_doors),
        TEST(state_goes_on), TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
