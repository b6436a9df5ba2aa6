/* SPDX-License-Identifier: MIT */
/*
 * The log's turn on the serial port. A fake port collects what is written; the hooks refuse when the test says so.
 * Guarded: a line is printed at once where nobody refuses; lines that waited come out whole, once and in their order, few at
 * a time; what the ring lost meanwhile is counted; quiet levels stay in the ring; the screen does not wait for the port.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The test programs' own log_line and panic are linked too. */
#define log_line tested_log_line
#include "kernel/log.c"

#define PORT_BYTES 400000

static char port[PORT_BYTES], screen[PORT_BYTES];
static size_t port_count, screen_count;
static bool refuse;
static unsigned hidden, shown;
static size_t turn_begin, longest_turn; /* bytes between hide and show: interrupts are off meanwhile */
static uint64_t now;

uint64_t time_now_ns(void)
{
    return now += 1000;
}

size_t uart_write(const void *bytes, size_t count)
{
    assert_true(port_count + count < sizeof port);
    memcpy(port + port_count, bytes, count);
    port_count += count;
    port[port_count] = 0;
    return count;
}

static void to_screen(const char *text, size_t count)
{
    assert_true(screen_count + count < sizeof screen);
    memcpy(screen + screen_count, text, count);
    screen_count += count;
    screen[screen_count] = 0;
}

static bool hide(void)
{
    if (refuse)
        return false;
    assert_int_equal(hidden, shown); /* in pairs */
    hidden++;
    turn_begin = port_count;
    return true;
}

static void show(void)
{
    shown++;
    assert_int_equal(hidden, shown);
    longest_turn = MAX(longest_turn, port_count - turn_begin);
}

static int begin(void **state)
{
    (void)state;
    memset(ring, 0, sizeof ring);
    next_sequence = console_sequence = waiting = lost = now = 0;
    memset(sinks, 0, sizeof sinks);
    port_count = screen_count = hidden = shown = longest_turn = 0;
    port[0] = screen[0] = 0;
    refuse = false;
    log_set_console_level(LOG_INFO);
    log_set_console_hooks(hide, show);
    log_add_sink(to_screen);
    return 0;
}

static void a_line_is_printed_at_once(void **state)
{
    (void)state;
    log_info("disk %d: here", 7);
    log_error("disk 8: gone");
    assert_string_equal(port, "[    0.000001] disk 7: here\r\n[    0.000002] error: disk 8: gone\r\n");
    assert_string_equal(screen, port);
    assert_int_equal(shown, 2);
}

static void without_hooks_too(void **state)
{
    (void)state;
    log_set_console_hooks(NULL, NULL);
    log_warning("early");
    assert_string_equal(port, "[    0.000001] warning: early\r\n");
}

static void quiet_lines_stay_in_the_ring(void **state)
{
    struct log_entry entry;

    (void)state;
    log_debug("one");
    assert_int_equal(port_count + screen_count, 0);
    assert_int_equal(hidden, 0); /* the line that is being edited is left in peace */
    assert_true(log_read(0, &entry));
    assert_string_equal(entry.text, "one");
}

static void lines_wait_and_come_in_order(void **state)
{
    (void)state;
    log_info("a");
    refuse = true;
    log_info("b");
    log_debug("not this");
    log_info("c");
    assert_false(log_console_resume()); /* still refused */
    assert_string_equal(port, "[    0.000001] a\r\n");
    assert_non_null(strstr(screen, "] c\r\n"));
    refuse = false;
    assert_int_equal(log_unprinted(), 3);
    assert_true(log_console_resume());
    assert_false(log_console_resume());
    assert_string_equal(port, "[    0.000001] a\r\n[    0.000002] b\r\n[    0.000004] c\r\n");
    assert_int_equal(shown, 3);
    assert_false(log_console_resume());
    assert_int_equal(shown, 3);
    assert_int_equal(log_unprinted(), 0);
}

static void the_next_line_brings_those_that_waited(void **state)
{
    (void)state;
    refuse = true;
    log_info("b");
    refuse = false;
    log_info("c");
    assert_string_equal(port, "[    0.000001] b\r\n[    0.000002] c\r\n");
}

static void resume_all(void)
{
    while (log_console_resume())
        continue;
}

static void what_the_ring_lost_is_said(void **state)
{
    (void)state;
    refuse = true;
    for (unsigned i = 0; i < LOG_ENTRIES + 5; i++)
        log_info("line %u", i);
    assert_int_equal(log_unprinted(), LOG_ENTRIES);
    refuse = false;
    resume_all();
    assert_memory_equal(port, "[log: lines left out here: 5]\r\n[    0.000006] line 5\r\n", 52);
    assert_non_null(strstr(port, "] line 1028\r\n"));
    port_count = 0;
    log_info("after");
    assert_string_equal(port, "[    0.001030] after\r\n");
}

static void quiet_lines_are_not_counted_as_lost(void **state)
{
    (void)state;
    refuse = true;
    log_info("first");
    for (unsigned i = 0; i < LOG_ENTRIES + 7; i++)
        log_debug("quiet");
    log_info("last");
    refuse = false;
    resume_all();
    assert_string_equal(port, "[log: lines left out here: 1]\r\n[    0.001033] last\r\n");
}

/* The level counts that was set when the line was written. */
static void the_level_may_change_while_lines_wait(void **state)
{
    (void)state;
    refuse = true;
    log_debug("quiet");
    log_info("loud");
    log_set_console_level(LOG_DEBUG);
    log_debug("now loud");
    log_set_console_level(LOG_ERROR);
    refuse = false;
    resume_all();
    assert_string_equal(port, "[    0.000002] loud\r\n[    0.000003] now loud\r\n");
}

/* Nobody pays for more than a line or two of others with interrupts off. */
static void turns_are_short(void **state)
{
    char text[sizeof ring[0].text];

    (void)state;
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    refuse = true;
    for (unsigned i = 0; i < 700; i++)
        log_warning("%s", text);
    refuse = false;
    log_info("one more");
    assert_in_range(port_count, 1, LINES_AT_ONCE * LOG_LINE_BYTES);
    resume_all();
    assert_in_range(longest_turn, 1, LINES_AT_ONCE * LOG_LINE_BYTES);
    assert_string_equal(port + port_count - 10, "one more\r\n");
    assert_int_equal(port_count, screen_count);
    assert_memory_equal(port, screen, port_count);
}

static void a_flush_asks_nobody(void **state)
{
    (void)state;
    refuse = true;
    for (unsigned i = 0; i < 3; i++)
        log_info("line %u", i);
    log_console_flush();
    assert_string_equal(port, "[    0.000001] line 0\r\n[    0.000002] line 1\r\n[    0.000003] line 2\r\n");
    log_console_flush();
    assert_int_equal(shown, 0);
    assert_int_equal(log_unprinted(), 0);
}

static void a_guest_writes_no_controls(void **state)
{
    (void)state;
    log_info("vm %s", "\x1b[2J\r\n\x7f");
    assert_string_equal(port, "[    0.000001] vm ?[2J???\r\n");
}

static void a_long_line_is_cut_at_its_end(void **state)
{
    char text[600];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    log_error("%s", text);
    assert_int_equal(port_count, strlen("[    0.000001] error: ") + sizeof ring[0].text - 1 + 2);
    assert_memory_equal(port + port_count - 3, "x\r\n", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_line_is_printed_at_once, begin),
        cmocka_unit_test_setup(without_hooks_too, begin),
        cmocka_unit_test_setup(quiet_lines_stay_in_the_ring, begin),
        cmocka_unit_test_setup(lines_wait_and_come_in_order, begin),
        cmocka_unit_test_setup(the_next_line_brings_those_that_waited, begin),
        cmocka_unit_test_setup(what_the_ring_lost_is_said, begin),
        cmocka_unit_test_setup(quiet_lines_are_not_counted_as_lost, begin),
        cmocka_unit_test_setup(the_level_may_change_while_lines_wait, begin),
        cmocka_unit_test_setup(turns_are_short, begin),
        cmocka_unit_test_setup(a_flush_asks_nobody, begin),
        cmocka_unit_test_setup(a_guest_writes_no_controls, begin),
        cmocka_unit_test_setup(a_long_line_is_cut_at_its_end, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
