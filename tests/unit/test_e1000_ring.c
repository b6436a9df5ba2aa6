/* SPDX-License-Identifier: MIT */
/*
 * The rings of the Intel gigabit driver, against a card played by the test: it writes descriptors as the manual says a card
 * does, in pieces, late, with errors and with lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/e1000_ring.h"

#define COUNT 16
#define BUFFER 2048
#define PIECES 4
#define LONGEST 6000

static struct e1000_receive_ring rx;
static struct e1000_transmit_ring tx;
static struct e1000_receive rx_desc[COUNT];
static struct e1000_transmit tx_desc[COUNT];
static struct e1000_sent sent[COUNT];
static unsigned card; /* the descriptor that the card is at */

static int setup(void **state)
{
    (void)state;
    memset(rx_desc, 0xff, sizeof rx_desc);
    memset(tx_desc, 0xff, sizeof tx_desc);
    e1000_receive_init(&rx, rx_desc, COUNT, BUFFER);
    e1000_transmit_init(&tx, tx_desc, sent, COUNT);
    card = 0;
    return 0;
}

static void fill(void)
{
    while (e1000_receive_room(&rx)) {
        unsigned at = e1000_receive_give(&rx, 0x100000 + rx.tail * BUFFER);
        assert_int_equal(rx_desc[at].address, 0x100000 + at * BUFFER);
    }
}

/* The card writes one descriptor back. */
static void write_back(unsigned bytes, uint8_t status, uint8_t errors)
{
    assert_int_not_equal(card, rx.tail); /* beyond the tail nothing is the card's */
    rx_desc[card].bytes = (uint16_t)bytes;
    rx_desc[card].errors = errors;
    rx_desc[card].status = status;
    card = (card + 1) % COUNT;
}

static void expect(enum e1000_frame kind, unsigned first, unsigned count, unsigned bytes)
{
    struct e1000_received frame;

    assert_int_equal(e1000_receive_take(&rx, PIECES, LONGEST, &frame), kind);
    if (kind == E1000_FRAME_NONE)
        return;
    assert_int_equal(frame.first, first);
    assert_int_equal(frame.count, count);
    assert_int_equal(frame.bytes, bytes);
}

static void one_descriptor_stays_unused(void **state)
{
    (void)state;
    assert_int_equal(e1000_receive_room(&rx), COUNT - 1);
    fill();
    assert_int_equal(e1000_receive_room(&rx), 0);
    assert_int_equal(rx.tail, COUNT - 1);
    expect(E1000_FRAME_NONE, 0, 0, 0);
}

static void an_empty_ring_has_no_frame_whatever_its_memory_says(void **state)
{
    (void)state;
    memset(rx_desc, 0xff, sizeof rx_desc);
    expect(E1000_FRAME_NONE, 0, 0, 0);
}

static void frames_go_round_the_ring(void **state)
{
    (void)state;
    fill();
    for (unsigned i = 0; i < 5 * COUNT; i++) {
        unsigned at = i % COUNT;
        write_back(60 + i, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
        expect(E1000_FRAME_GOOD, at, 1, 60 + i);
        assert_int_equal(e1000_receive_bytes(&rx, at), 60 + i);
        expect(E1000_FRAME_NONE, 0, 0, 0);
        assert_int_equal(e1000_receive_room(&rx), 1);
        fill();
    }
}

static void a_full_ring_is_taken_in_order(void **state)
{
    (void)state;
    fill();
    for (unsigned i = 0; i < COUNT - 1; i++)
        write_back(100 + i, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    for (unsigned i = 0; i < COUNT - 1; i++)
        expect(E1000_FRAME_GOOD, i, 1, 100 + i);
    expect(E1000_FRAME_NONE, 0, 0, 0);
    assert_int_equal(e1000_receive_room(&rx), COUNT - 1);
}

static void nothing_is_read_before_done(void **state)
{
    (void)state;
    fill();
    rx_desc[0].bytes = 500; /* the card has written the length, and not yet the status */
    rx_desc[0].status = E1000_RECEIVE_END;
    expect(E1000_FRAME_NONE, 0, 0, 0);
    rx_desc[0].status |= E1000_RECEIVE_DONE;
    expect(E1000_FRAME_GOOD, 0, 1, 500);
}

static void a_frame_of_several_descriptors_waits_for_its_last(void **state)
{
    (void)state;
    fill();
    card = rx.next = COUNT - 2; /* across the end of the ring */
    rx.tail = COUNT - 3;
    write_back(BUFFER, E1000_RECEIVE_DONE, 0);
    expect(E1000_FRAME_NONE, 0, 0, 0);
    write_back(BUFFER, E1000_RECEIVE_DONE, 0);
    expect(E1000_FRAME_NONE, 0, 0, 0);
    write_back(10, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    expect(E1000_FRAME_GOOD, COUNT - 2, 3, 2 * BUFFER + 10);
    assert_int_equal(rx.next, 1);
}

static void what_is_too_long_costs_only_itself(void **state)
{
    (void)state;
    fill();
    for (unsigned i = 0; i < PIECES; i++)
        write_back(100, E1000_RECEIVE_DONE, 0);
    write_back(100, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    write_back(BUFFER, E1000_RECEIVE_DONE, 0);
    write_back(BUFFER, E1000_RECEIVE_DONE, 0);
    write_back(BUFFER, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    write_back(77, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    expect(E1000_FRAME_TOO_LONG, 0, PIECES + 1, 100 * (PIECES + 1)); /* too many pieces */
    expect(E1000_FRAME_TOO_LONG, PIECES + 1, 3, 3 * BUFFER);         /* too many bytes */
    expect(E1000_FRAME_GOOD, PIECES + 4, 1, 77);
}

static void a_frame_without_an_end_does_not_stop_the_ring(void **state)
{
    (void)state;
    fill();
    for (unsigned i = 0; i < COUNT - 1; i++)
        write_back(1, E1000_RECEIVE_DONE, 0);
    expect(E1000_FRAME_TOO_LONG, 0, COUNT - 1, COUNT - 1);
    assert_int_equal(e1000_receive_room(&rx), COUNT - 1);
}

static void a_length_beyond_the_buffer_is_nonsense(void **state)
{
    (void)state;
    fill();
    write_back(BUFFER + 1, E1000_RECEIVE_DONE | E1000_RECEIVE_END, 0);
    write_back(0xffff, E1000_RECEIVE_DONE, 0);
    expect(E1000_FRAME_NONSENSE, 0, 1, BUFFER + 1);
    expect(E1000_FRAME_NONSENSE, 1, 1, 0xffff);
}

static void damaged_frames_say_so(void **state)
{
    (void)state;
    fill();
    for (unsigned bit = 0; bit < 8; bit++) {
        write_back(60, E1000_RECEIVE_DONE | E1000_RECEIVE_END, (uint8_t)(1u << bit));
        expect(E1000_ERROR_FRAME >> bit & 1 ? E1000_FRAME_DAMAGED : E1000_FRAME_GOOD, bit, 1, 60);
    }
}

static void a_checksum_is_good_only_if_the_card_looked(void **state)
{
    static const struct { uint8_t status, errors; bool good; } cases[] = {
        { 0, 0, false },
        { E1000_RECEIVE_TCP_CHECKSUM | E1000_RECEIVE_IP_CHECKSUM, 0, true },
        { E1000_RECEIVE_TCP_CHECKSUM, 0, true }, /* IPv6 has none of its own */
        { E1000_RECEIVE_IP_CHECKSUM, 0, false },
        { E1000_RECEIVE_TCP_CHECKSUM | E1000_RECEIVE_NO_CHECKSUM, 0, false },
        { E1000_RECEIVE_TCP_CHECKSUM, E1000_ERROR_TCP_CHECKSUM, false },
        { E1000_RECEIVE_TCP_CHECKSUM, E1000_ERROR_IP_CHECKSUM, false },
    };
    struct e1000_received frame;
    (void)state;

    fill();
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        write_back(60, E1000_RECEIVE_DONE | E1000_RECEIVE_END | cases[i].status, cases[i].errors);
        assert_int_equal(e1000_receive_take(&rx, PIECES, LONGEST, &frame), E1000_FRAME_GOOD);
        assert_int_equal(frame.checksum_good, cases[i].good);
    }
}

/* ---- Sending ---- */

static int cookies[4 * COUNT];

static bool put(unsigned pieces, unsigned number)
{
    struct e1000_piece piece[COUNT + 1];

    for (unsigned i = 0; i < pieces; i++)
        piece[i] = (struct e1000_piece){ 0x5000 + 0x1000 * i, 100 + i };
    return e1000_transmit_put(&tx, piece, pieces, &cookies[number], 0, 0);
}

/* The card sends one frame: it reports only where it is asked to. */
static void card_sends(void)
{
    for (bool end = false; !end; card = (card + 1) % COUNT) {
        assert_int_not_equal(card, tx.tail);
        end = tx_desc[card].command & E1000_TRANSMIT_END;
        if (tx_desc[card].command & E1000_TRANSMIT_REPORT)
            tx_desc[card].status = E1000_TRANSMIT_DONE;
    }
}

static void a_frame_is_what_the_manual_says(void **state)
{
    struct e1000_piece piece[2] = { { 0x123456789abc, 14 }, { 0x1000, 1500 } };
    (void)state;

    assert_true(e1000_transmit_put(&tx, piece, 2, NULL, 34, 50));
    assert_int_equal(tx_desc[0].address, 0x123456789abc);
    assert_int_equal(tx_desc[0].bytes, 14);
    assert_int_equal(tx_desc[0].command, E1000_TRANSMIT_FCS | E1000_TRANSMIT_CHECKSUM);
    assert_int_equal(tx_desc[1].bytes, 1500);
    assert_int_equal(tx_desc[1].command, E1000_TRANSMIT_FCS | E1000_TRANSMIT_CHECKSUM | E1000_TRANSMIT_END |
                                             E1000_TRANSMIT_REPORT | E1000_TRANSMIT_DELAY);
    assert_int_equal(tx_desc[1].checksum_start, 34);
    assert_int_equal(tx_desc[1].checksum_at, 50);
    assert_int_equal(tx_desc[1].status, 0);
    assert_int_equal(tx.tail, 2);
}

static void frames_come_back_in_order_and_only_when_sent(void **state)
{
    unsigned given = 0, back = 0;
    void *cookie;
    (void)state;

    for (unsigned round = 0; round < 40; round++) {
        while (put(1 + given % 3, given % (4 * COUNT)))
            given++;
        assert_false(e1000_transmit_take(&tx, &cookie));
        card_sends();
        assert_true(e1000_transmit_take(&tx, &cookie));
        assert_ptr_equal(cookie, &cookies[back++ % (4 * COUNT)]);
        assert_false(e1000_transmit_take(&tx, &cookie));
    }
    assert_true(given > 40);
    while (e1000_transmit_drop(&tx, &cookie))
        assert_ptr_equal(cookie, &cookies[back++ % (4 * COUNT)]);
    assert_int_equal(back, given);
    assert_int_equal(e1000_transmit_room(&tx), COUNT - 1);
    assert_false(e1000_transmit_take(&tx, &cookie));
}

static void what_does_not_fit_changes_nothing(void **state)
{
    struct e1000_piece piece = { 0x1000, 60 }, none = { 0x1000, 0 }, huge = { 0x1000, 16289 };
    (void)state;

    assert_false(put(0, 0));
    assert_false(put(COUNT, 0));
    assert_false(e1000_transmit_put(&tx, &none, 1, NULL, 0, 0));
    assert_false(e1000_transmit_put(&tx, &huge, 1, NULL, 0, 0));
    assert_false(e1000_transmit_put(&tx, &piece, 1, NULL, 14, 256));
    assert_false(e1000_transmit_put(&tx, &piece, 1, NULL, 256, 50));
    assert_int_equal(tx.tail, 0);
    assert_true(put(COUNT - 1, 0));
    assert_int_equal(e1000_transmit_room(&tx), 0);
    assert_false(put(1, 1));
    assert_int_equal(tx.tail, COUNT - 1);
}

static void a_card_that_writes_commands_breaks_nothing(void **state)
{
    void *cookie;
    (void)state;

    assert_true(put(3, 0));
    for (unsigned i = 0; i < COUNT; i++)
        tx_desc[i].command = 0;
    assert_false(e1000_transmit_take(&tx, &cookie));
    assert_true(e1000_transmit_drop(&tx, &cookie));
    assert_false(e1000_transmit_drop(&tx, &cookie));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_descriptor_stays_unused, setup),
        cmocka_unit_test_setup(an_empty_ring_has_no_frame_whatever_its_memory_says, setup),
        cmocka_unit_test_setup(frames_go_round_the_ring, setup),
        cmocka_unit_test_setup(a_full_ring_is_taken_in_order, setup),
        cmocka_unit_test_setup(nothing_is_read_before_done, setup),
        cmocka_unit_test_setup(a_frame_of_several_descriptors_waits_for_its_last, setup),
        cmocka_unit_test_setup(what_is_too_long_costs_only_itself, setup),
        cmocka_unit_test_setup(a_frame_without_an_end_does_not_stop_the_ring, setup),
        cmocka_unit_test_setup(a_length_beyond_the_buffer_is_nonsense, setup),
        cmocka_unit_test_setup(damaged_frames_say_so, setup),
        cmocka_unit_test_setup(a_checksum_is_good_only_if_the_card_looked, setup),
        cmocka_unit_test_setup(a_frame_is_what_the_manual_says, setup),
        cmocka_unit_test_setup(frames_come_back_in_order_and_only_when_sent, setup),
        cmocka_unit_test_setup(what_does_not_fit_changes_nothing, setup),
        cmocka_unit_test_setup(a_card_that_writes_commands_breaks_nothing, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
