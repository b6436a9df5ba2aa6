/* SPDX-License-Identifier: MIT */
/* Promises of the serial port: nothing is lost or blocks, interrupts as drivers of a 16550A expect them, state. */
#include "fake_device.h"

#include "vdev/vuart.h"

static struct vuart uart;
static struct vbus ports;
static struct vtimer_queue queue;
static struct fake_line irq;
static char sent[4096];
static size_t sent_count;
static unsigned room_calls;
static const char *feed;
static uint64_t now;

static void sink_write(void *context, const void *bytes, size_t count)
{
    (void)context;
    assert_true(sent_count + count <= sizeof(sent));
    memcpy(sent + sent_count, bytes, count);
    sent_count += count;
}

/* Feeds what is left of `feed`, from within the call. */
static void room(void *context, uint64_t now_ns)
{
    room_calls++;
    if (feed)
        feed += vuart_input(context, feed, strlen(feed), now_ns);
}

static void out(unsigned reg, uint8_t value)
{
    fake_out(&ports, VUART_COM1 + reg, 1, value, now);
}

static uint8_t in(unsigned reg)
{
    return (uint8_t)fake_in(&ports, VUART_COM1 + reg, 1, now);
}

static int setup(void **state)
{
    (void)state;
    memset(&ports, 0, sizeof(ports));
    memset(&queue, 0, sizeof(queue));
    memset(&irq, 0, sizeof(irq));
    sent_count = room_calls = 0;
    feed = NULL;
    now = 1000;
    vuart_init(&uart, &queue, FAKE_LINE(&irq), (struct char_sink){ sink_write, NULL }, room, &uart);
    assert_int_equal(vbus_add(&ports, VUART_COM1, VUART_PORTS, &vuart_ops, &uart), OK);
    out(4, 0x0b);
    room_calls = 0;
    return 0;
}

static size_t input(const char *text)
{
    return vuart_input(&uart, text, strlen(text), now);
}

static void found_as_16550a(void **state)
{
    (void)state;
    out(7, 0x5a);
    assert_int_equal(in(7), 0x5a);
    out(1, 0xff);
    assert_int_equal(in(1), 0x0f);
    out(1, 0);
    assert_int_equal(in(2), 0x01);
    out(2, 0x01);
    assert_int_equal(in(2), 0xc1);
    out(2, 0x00);
    assert_int_equal(in(2), 0x01);
    assert_int_equal(in(5), 0x60);
    assert_int_equal(in(6), 0xb0);
    out(3, 0x83);
    out(0, 0x34);
    out(1, 0x12);
    assert_int_equal(in(0), 0x34);
    assert_int_equal(in(1), 0x12);
    out(3, 0x03);
    assert_int_equal(in(3), 0x03);
    assert_int_equal(in(1), 0);
    assert_int_equal(uart.divisor, 0x1234);
    assert_int_equal(sent_count, 0);
}

static void sends(void **state)
{
    (void)state;
    for (const char *c = "hello"; *c; c++) {
        assert_int_equal(in(5) & 0x20, 0x20);
        out(0, (uint8_t)*c);
    }
    assert_int_equal(sent_count, 5);
    assert_memory_equal(sent, "hello", 5);
    assert_int_equal(irq.rises, 0);
}

static void transmitter_interrupt(void **state)
{
    (void)state;
    out(2, 1);
    for (unsigned i = 0; i < 2; i++) { /* switching it on raises it, each time: drivers test for that */
        out(1, 2);
        assert_true(irq.level);
        assert_int_equal(in(2), 0xc2);
        assert_false(irq.level); /* reading IIR took it back */
        assert_int_equal(in(2), 0xc1);
        out(1, 0);
    }
    out(1, 2);
    out(1, 2); /* on already: no new one */
    assert_int_equal(in(2), 0xc2);
    out(1, 2);
    assert_false(irq.level);
    out(0, 'a');
    assert_true(irq.level);
    unsigned rises = irq.rises;
    out(0, 'b'); /* written without a look at IIR: an edge all the same */
    assert_int_equal(irq.rises, rises + 1);
    out(1, 0);
    assert_false(irq.level);
    out(4, 0x03); /* without OUT2 nothing reaches the bus */
    out(1, 2);
    assert_false(irq.level);
    assert_int_equal(in(2), 0xc2);
}

static void receives(void **state)
{
    (void)state;
    out(1, 1);
    assert_int_equal(input("abc"), 1); /* no FIFOs: one at a time */
    assert_true(irq.level);
    assert_int_equal(in(2), 0x04);
    assert_int_equal(in(5), 0x61);
    assert_int_equal(in(0), 'a');
    assert_int_equal(room_calls, 1);
    assert_false(irq.level);
    assert_int_equal(in(5), 0x60);
    assert_int_equal(in(0), 0);
    assert_int_equal(input("x"), 1);
    out(2, 0x81); /* FIFOs on, trigger at 8: empties */
    assert_int_equal(in(5), 0x60);
    assert_int_equal(input("0123456"), 7);
    assert_false(irq.level);
    assert_int_equal(input("7"), 1);
    assert_true(irq.level);
    assert_int_equal(in(2), 0xc4);
    assert_int_equal(input("89abcdefgh"), 8); /* 16 in all, the rest may come again */
    for (const char *c = "0123456789abcdef"; *c; c++)
        assert_int_equal(in(0), *c);
    assert_int_equal(in(5), 0x60);
}

static void nothing_is_lost(void **state)
{
    (void)state;
    static char text[2001];
    for (unsigned i = 0; i < 2000; i++)
        text[i] = (char)('!' + i % 90);
    out(2, 0xc1);
    out(1, 1);
    feed = text;
    feed += vuart_input(&uart, feed, strlen(feed), now);
    for (unsigned i = 0; i < 2000; i++) {
        assert_true(in(5) & 1);
        assert_int_equal(in(0), text[i]);
    }
    assert_int_equal(in(5), 0x60);
    assert_int_equal(uart.overrun, 0);
}

static void character_timeout(void **state)
{
    (void)state;
    out(2, 0xc1);
    out(1, 1);
    input("ab");
    assert_false(irq.level);
    uint64_t due = vtimer_next(&queue);
    assert_in_range(due - now, 300000, 400000); /* four characters at 115200 */
    now = due;
    vtimer_run(&queue, now);
    assert_true(irq.level);
    assert_int_equal(in(2), 0xcc);
    assert_int_equal(in(0), 'a');
    assert_false(irq.level); /* a read starts the time anew */
    now = vtimer_next(&queue);
    vtimer_run(&queue, now);
    assert_true(irq.level);
    assert_int_equal(in(0), 'b');
    assert_false(irq.level);
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
    input("c");
    out(2, 0xc3); /* cleared: no timeout for nothing */
    assert_true(vtimer_next(&queue) == VTIMER_OFF);
}

static void loopback(void **state)
{
    (void)state;
    out(2, 1);
    in(6);
    out(4, 0x1a);
    assert_int_equal(in(6) & 0xf0, 0x90);
    out(4, 0x1f);
    assert_int_equal(in(6), 0xf0 | 0x02); /* DSR has changed */
    assert_int_equal(in(6), 0xf0);
    out(1, 8);
    out(4, 0x1b); /* RI ends */
    assert_true(irq.level);
    assert_int_equal(in(2), 0xc0);
    assert_int_equal(in(6), 0xb4);
    assert_false(irq.level);
    out(1, 0);
    assert_int_equal(input("x"), 0); /* the line is cut off: it keeps its characters */
    for (unsigned i = 0; i < 17; i++)
        out(0, (uint8_t)i);
    assert_int_equal(sent_count, 0);
    out(1, 5);
    assert_int_equal(in(2), 0xc6); /* line status first */
    assert_int_equal(in(5), 0x63);
    assert_int_equal(in(5), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(0), i);
    feed = "y";
    out(4, 0x0b); /* leaving it lets input in again */
    assert_int_equal(in(0), 'y');
}

static void interrupt_order(void **state)
{
    (void)state;
    out(4, 0x1b);
    out(0, 1);
    out(0, 2); /* overrun, no FIFOs */
    out(4, 0x1a);
    out(1, 0x0f);
    static const uint8_t order[] = { 0x06, 0x04, 0x02, 0x00, 0x01 };
    static const uint8_t cure[] = { 5, 0, 2, 6, 7 };
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(uart.ier, 0x0f);
        if (order[i] != 0x02)
            assert_int_equal(in(2), order[i]);
        in(cure[i]);
    }
    assert_false(irq.level);
}

static void reset_is_quiet(void **state)
{
    (void)state;
    out(1, 3);
    input("a");
    assert_true(irq.level);
    vuart_reset(&uart);
    assert_false(irq.level);
    assert_int_equal(in(5), 0x60);
}

FAKE_ADAPT(vuart)

static void state_goes_on(void **state)
{
    (void)state;
    static struct fake_state saved, again;
    out(2, 0xc1);
    out(1, 3);
    input("xxabc");
    in(0);
    in(0); /* the FIFO's start is not at 0 any more */
    in(2);
    fake_save(vuart_do_save, &uart, now, &saved);
    uint64_t left = vtimer_next(&queue) - now;
    now = 9 * SECOND;
    memset(&queue, 0, sizeof(queue));
    memset(&irq, 0, sizeof(irq));
    vuart_init(&uart, &queue, FAKE_LINE(&irq), (struct char_sink){ sink_write, NULL }, room, &uart);
    assert_int_equal(fake_restore(vuart_do_restore, &uart, now, &saved), OK);
    assert_int_equal(irq.rises, 0);
    fake_save(vuart_do_save, &uart, now, &again);
    assert_memory_equal(again.bytes, saved.bytes, saved.count);
    assert_int_equal(vtimer_next(&queue) - now, left);
    now += left;
    vtimer_run(&queue, now);
    assert_int_equal(in(2), 0xcc);
    for (const char *c = "abc"; *c; c++)
        assert_int_equal(in(0), *c);
}

static void hostile_state(void **state)
{
    (void)state;
    static struct fake_state saved, bad;
    uint64_t seed = 9;
    input("a");
    fake_save(vuart_do_save, &uart, now, &saved);
    bad = saved;
    bad.count--;
    assert_int_not_equal(fake_restore(vuart_do_restore, &uart, now, &bad), OK);
    bad = saved;
    bad.bytes[bad.count - 17] = 2; /* two characters without FIFOs */
    assert_int_equal(fake_restore(vuart_do_restore, &uart, now, &bad), ERR_CORRUPT);
    bad.bytes[bad.count - 17] = 1;
    assert_int_equal(fake_restore(vuart_do_restore, &uart, now, &bad), OK);
    for (unsigned n = 0; n < 20000; n++) {
        bad = saved;
        fake_mutate(&bad, &seed);
        if (fake_restore(vuart_do_restore, &uart, now, &bad) != OK)
            continue;
        sent_count = 0;
        for (unsigned k = 0; k < 12; k++) {
            out((unsigned)(fake_random(&seed) % 8), (uint8_t)fake_random(&seed));
            in((unsigned)(fake_random(&seed) % 8));
            input(&"abcdefghijklmnopqrstuvwxyz"[fake_random(&seed) % 26]);
            now += fake_random(&seed) % MS;
            vtimer_run(&queue, now);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        TEST(found_as_16550a), TEST(sends), TEST(transmitter_interrupt), TEST(receives), TEST(nothing_is_lost),
        TEST(character_timeout), TEST(loopback), TEST(interrupt_order), TEST(reset_is_quiet), TEST(state_goes_on),
        TEST(hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
