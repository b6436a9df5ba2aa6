/* SPDX-License-Identifier: MIT */
/* Promises of timer queues, buses and the clock arithmetic. */
#include "fake_device.h"

#include "vdev/vtime.h"

struct alarm { struct vtimer timer; unsigned fired; uint64_t at, again; struct alarm *cancels; };

static unsigned changes;

static void changed(void *context)
{
    (void)context;
    changes++;
}

static void alarm_fire(struct vtimer *timer, uint64_t now_ns)
{
    struct alarm *alarm = CONTAINER_OF(timer, struct alarm, timer);
    alarm->fired++;
    alarm->at = now_ns;
    if (alarm->again)
        vtimer_arm(timer, alarm->again);
    if (alarm->cancels)
        vtimer_arm(&alarm->cancels->timer, VTIMER_OFF);
}

static void timers_fire_in_order(void **state)
{
    (void)state;
    struct vtimer_queue queue = { .changed = changed };
    struct alarm a = { 0 }, b = { 0 }, c = { 0 };
    changes = 0;
    vtimer_init(&a.timer, &queue, alarm_fire);
    vtimer_init(&b.timer, &queue, alarm_fire);
    vtimer_init(&c.timer, &queue, alarm_fire);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    vtimer_arm(&a.timer, 100);
    assert_int_equal(changes, 1);
    vtimer_arm(&b.timer, 200);
    assert_int_equal(changes, 1);
    vtimer_arm(&c.timer, 50);
    assert_int_equal(changes, 2);
    vtimer_run(&queue, 49);
    assert_int_equal(c.fired, 0);
    vtimer_run(&queue, 150);
    assert_int_equal(c.fired, 1);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 0);
    assert_int_equal(vtimer_next(&queue), 200);
    assert_int_equal(changes, 3); /* once for the whole run */
    vtimer_arm(&b.timer, VTIMER_OFF);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    vtimer_arm(&b.timer, VTIMER_OFF);
    vtimer_run(&queue, UINT64_MAX - 1);
    assert_int_equal(b.fired, 0);
}

static void timers_fire_once_a_run(void **state)
{
    (void)state;
    struct vtimer_queue queue = { 0 };
    struct alarm a = { .again = 10 }, b = { 0 }, c = { 0 };
    vtimer_init(&a.timer, &queue, alarm_fire);
    vtimer_init(&b.timer, &queue, alarm_fire);
    vtimer_init(&c.timer, &queue, alarm_fire);
    a.cancels = &b;
    vtimer_arm(&a.timer, 5);
    vtimer_arm(&b.timer, 6);
    vtimer_arm(&c.timer, 7);
    vtimer_run(&queue, 1000);
    assert_int_equal(a.fired, 1); /* although it armed itself into the past */
    assert_int_equal(b.fired, 0); /* taken away by a */
    assert_int_equal(c.fired, 1);
    assert_int_equal(vtimer_next(&queue), 10);
    vtimer_run(&queue, 1000);
    assert_int_equal(a.fired, 2);
    a.again = 0;
    vtimer_run(&queue, 1000);
    assert_int_equal(a.fired, 3);
    assert_null(queue.first);
}

static uint64_t bus_offset, bus_value;

static uint64_t bus_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    (void)size, (void)now_ns;
    bus_offset = offset;
    return *(uint64_t *)device;
}

static void bus_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)device, (void)size, (void)now_ns;
    bus_offset = offset;
    bus_value = value;
}

static const struct vdev_ops bus_ops = { bus_read, bus_write };

static void bus_finds_ranges(void **state)
{
    (void)state;
    struct vbus bus = { 0 };
    uint64_t one = 0x1111222233334444, two = 2, value;
    assert_int_equal(vbus_add(&bus, 0x100, 8, &bus_ops, &one), OK);
    assert_int_equal(vbus_add(&bus, 0x80, 0x80, &bus_ops, &two), OK);
    assert_int_equal(vbus_add(&bus, 0x107, 1, &bus_ops, &two), ERR_EXISTS);
    assert_int_equal(vbus_add(&bus, 0x0, 0x81, &bus_ops, &two), ERR_EXISTS);
    assert_int_equal(vbus_add(&bus, 0x10, 0, &bus_ops, &two), ERR_INVALID);
    assert_int_equal(vbus_add(&bus, UINT64_MAX, 2, &bus_ops, &two), ERR_INVALID);
    assert_int_equal(vbus_add(&bus, UINT64_MAX, 1, &bus_ops, &two), OK);
    assert_true(vbus_read(&bus, 0x104, 2, &value, 0));
    assert_int_equal(value, 0x4444); /* cut to the size */
    assert_int_equal(bus_offset, 4);
    assert_true(vbus_write(&bus, 0xff, 1, 0x1234, 0));
    assert_int_equal(bus_offset, 0x7f);
    assert_int_equal(bus_value, 0x34);
    assert_false(vbus_read(&bus, 0x107, 2, &value, 0)); /* over the end */
    assert_int_equal(value, 0xffff);
    assert_false(vbus_read(&bus, 0x7f, 8, &value, 0));
    assert_true(value == UINT64_MAX);
    assert_false(vbus_read(&bus, UINT64_MAX, 8, &value, 0));
    assert_false(vbus_write(&bus, 0x108, 4, 1, 0));
    vbus_remove(&bus, 0x100, &two); /* not its owner */
    assert_non_null(vbus_find(&bus, 0x100, 8));
    vbus_remove(&bus, 0x100, &one);
    assert_null(vbus_find(&bus, 0x100, 1));
    assert_non_null(vbus_find(&bus, 0x80, 1));
}

static void bus_fills_up(void **state)
{
    (void)state;
    struct vbus bus = { 0 };
    uint64_t device = 0;
    for (uint64_t i = VBUS_RANGES; i-- > 0;)
        assert_int_equal(vbus_add(&bus, i * 16, 16, &bus_ops, &device), OK);
    assert_int_equal(vbus_add(&bus, VBUS_RANGES * 16, 1, &bus_ops, &device), ERR_NO_MEMORY);
    for (unsigned i = 0; i < VBUS_RANGES; i++)
        assert_int_equal(vbus_find(&bus, i * 16 + 15, 1)->base, i * 16);
}

static void ticks_are_exact(void **state)
{
    static const uint32_t clocks[] = { 1193182, 3579545, 32768, 1, 1000000000 };
    uint64_t seed = 1;
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(clocks); i++) {
        for (unsigned n = 0; n < 20000; n++) {
            uint64_t ns = fake_random(&seed) >> fake_random(&seed) % 60;
            uint64_t ticks = vtime_ticks(ns, clocks[i]);
            assert_true(ticks == (uint64_t)((unsigned __int128)ns * clocks[i] / SECOND));
            uint64_t back = vtime_ns(ticks, clocks[i]);
            assert_true(back <= ns && vtime_ticks(back, clocks[i]) == ticks);
            if (back && clocks[i] < SECOND)
                assert_true(vtime_ticks(back - 1, clocks[i]) < ticks);
        }
        assert_true(vtime_ns(UINT64_MAX, clocks[i]) <= UINT64_MAX - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order), cmocka_unit_test(timers_fire_once_a_run),
        cmocka_unit_test(bus_finds_ranges), cmocka_unit_test(bus_fills_up), cmocka_unit_test(ticks_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
