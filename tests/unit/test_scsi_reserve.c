/* SPDX-License-Identifier: MIT */
/*
 * Orders about a reservation against a unit with persistent reservations: who is refused and by which words, what is left
 * at the unit after each order, targets that have less, two nodes that begin at the same time in all orders of their
 * commands, and answers that are cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fake_unit.h"
#include "net/scsi/scsi_reserve.h"
#include "net/scsi/scsi_sense.h"

#define RO SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS
#define KEY_A UINT64_C(0xaaaaaaaa11110001)
#define KEY_A_BEFORE UINT64_C(0xaaaaaaaa22220001) /* the same node's, before its restart */
#define KEY_B UINT64_C(0xbbbbbbbb11110001)

static uint8_t disk[64 * 512], buffer_a[SCSI_RESERVE_ROOM], buffer_b[SCSI_RESERVE_ROOM];
static bool no_abort, no_keep;
static unsigned resets, waits;

static struct fake_unit empty(void)
{
    no_abort = no_keep = false;
    resets = waits = 0;
    return (struct fake_unit){ .disk = disk, .disk_bytes = sizeof disk, .generation = 3 };
}

static struct scsi_reserve order_of(enum scsi_reserve_order order, uint64_t key, bool take_over)
{
    return (struct scsi_reserve){ .order = order, .key = key, .type = RO, .take_over = take_over,
                                  .buffer = key == KEY_B ? buffer_b : buffer_a };
}

/* One step; false: it is over. `cut`: so many bytes of an answer are lost. */
static bool step(struct scsi_reserve *r, struct fake_unit *u, unsigned nexus, uint32_t cut)
{
    struct scsi_talk_step what = { 0 };
    uint8_t sense[18] = { 0 }, answer[4096];
    uint32_t bytes = 0;
    unsigned status;

    switch (scsi_reserve_ops.next(r, &what)) {
    case SCSI_TALK_SEND:
        if ((no_abort && what.cdb->bytes[0] == 0x5f && (what.cdb->bytes[1] & 31) == SCSI_PR_PREEMPT_AND_ABORT) ||
            (no_keep && what.cdb->bytes[0] == 0x5f && what.buffer[20] & 1)) {
            memcpy(sense, (uint8_t[]){ 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24 }, 13);
            status = SCSI_CHECK_CONDITION;
        } else {
            status = fake_unit_execute(u, nexus, what.cdb->bytes, what.buffer, what.cdb->write_bytes, answer,
                                       what.cdb->read_bytes, &bytes, sense);
            memset(what.buffer, 0xee, SCSI_RESERVE_ROOM);
            bytes -= MIN(bytes, cut);
            memcpy(what.buffer, answer, bytes);
        }
        scsi_reserve_ops.answer(r, status, sense, status == SCSI_CHECK_CONDITION ? 18 : 0,
                                what.cdb->write_bytes ? what.cdb->write_bytes : bytes);
        return true;
    case SCSI_TALK_RESET:
        resets++;
        scsi_reserve_ops.reset(r, true);
        return true;
    case SCSI_TALK_WAIT:
        assert_true(what.delay_ns > 0);
        waits++;
        scsi_reserve_ops.waited(r);
        return true;
    default:
        return false;
    }
}

static enum status run(struct scsi_reserve *r, struct fake_unit *u, unsigned nexus)
{
    scsi_reserve_start(r);
    for (unsigned i = 0; step(r, u, nexus, 0); i++)
        assert_true(i < 1000);
    assert_int_equal(r->status == OK, !r->why[0]);
    return r->status;
}

static void it_is_taken_and_given_back(void **state)
{
    struct fake_unit u = empty();
    struct scsi_reserve r = order_of(SCSI_RESERVE_LOOK, KEY_A, false);
    (void)state;

    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(r.holding.known && !r.holding.held && !r.holding.listed);
    r = order_of(SCSI_RESERVE_TAKE, KEY_A, false);
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(u.held && u.type == RO && u.holder == 0 && u.key[0] == KEY_A && u.keeps);
    assert_true(r.holding.held && r.holding.key == KEY_A && r.holding.count == 1 && !r.preempted);
    assert_int_equal(run(&r, &u, 0), OK); /* once more changes nothing */
    assert_true(u.held && u.holder == 0 && u.key[0] == KEY_A);
    r = order_of(SCSI_RESERVE_RELEASE, KEY_A, false);
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(!u.held && !u.key[0] && !r.holding.held);
    assert_int_equal(run(&r, &u, 0), OK); /* there is nothing to give back */
}

static void strangers_are_named(void **state)
{
    struct fake_unit u = empty();
    struct scsi_reserve r = order_of(SCSI_RESERVE_TAKE, KEY_A, false);
    (void)state;

    u.key[1] = KEY_B; /* registered only */
    assert_int_equal(run(&r, &u, 0), ERR_BUSY);
    assert_non_null(strstr(r.why, "0xbbbbbbbb11110001"));
    assert_true(!u.key[0] && !u.held);
    u.held = true;
    u.holder = 1;
    u.type = SCSI_PR_WRITE_EXCLUSIVE;
    assert_int_equal(run(&r, &u, 0), ERR_BUSY);
    assert_non_null(strstr(r.why, "reserved by a stranger, key 0xbbbbbbbb11110001"));
    assert_non_null(strstr(r.why, "write exclusive"));
    assert_true(!u.key[0] && u.holder == 1);
    r.take_over = true;
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(u.held && u.holder == 0 && u.type == RO && !u.key[1] && r.preempted == 1 && r.last_preempted == KEY_B);
    struct scsi_reserve other = order_of(SCSI_RESERVE_TAKE, KEY_B, false);
    assert_int_equal(run(&other, &u, 1), ERR_BUSY);
    assert_non_null(strstr(other.why, "0xaaaaaaaa11110001"));
    u = empty(); /* all who are registered hold it */
    u.key[1] = KEY_B;
    u.held = true;
    u.type = SCSI_PR_WRITE_EXCLUSIVE_ALL;
    r.take_over = false;
    assert_int_equal(run(&r, &u, 0), ERR_BUSY);
    r.take_over = true;
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(u.held && u.type == RO && u.holder == 0 && !u.key[1]);
}

static void what_an_earlier_life_left(void **state)
{
    struct fake_unit u = empty();
    struct scsi_reserve r = order_of(SCSI_RESERVE_TAKE, KEY_A, false);
    (void)state;

    u.key[2] = KEY_A_BEFORE; /* on another path */
    u.held = true;
    u.holder = 2;
    u.type = RO;
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(u.held && u.holder == 0 && !u.key[2] && r.preempted == 0);
    u = empty(); /* on the same one */
    u.key[0] = KEY_A_BEFORE;
    u.held = true;
    u.type = RO;
    assert_int_equal(run(&r, &u, 0), OK);
    assert_true(u.held && u.holder == 0 && u.key[0] == KEY_A);
}

static void targets_that_have_less(void **state)
{
    struct fake_unit u = empty();
    struct scsi_reserve r = order_of(SCSI_RESERVE_TAKE, KEY_A, true);
    (void)state;

    no_keep = no_abort = true;
    u.key[1] = KEY_B;
    u.held = true;
    u.holder = 1;
    u.type = SCSI_PR_WRITE_EXCLUSIVE;
    assert_int_equal(run(&r, &u, 0), OK); /* preempted, then the unit is reset */
    assert_true(u.held && u.holder == 0 && !u.keeps && !u.key[1] && r.cannot_keep);
    assert_int_equal(resets, 1);
    u = empty();
    u.no_reservations = true;
    assert_int_equal(run(&r, &u, 0), ERR_UNSUPPORTED);
    assert_non_null(strstr(r.why, "no persistent reservations"));
    u = empty();
    u.busy = 30;
    u.attention[0] = 0x2900;
    assert_int_equal(run(&r, &u, 0), OK);
    u.busy = 1000;
    assert_int_equal(run(&r, &u, 0), ERR_IO);
    for (uint32_t cut = 1; cut < 40; cut++) { /* never taken for good by half an answer */
        u = empty();
        u.key[1] = KEY_B;
        u.held = true;
        u.holder = 1;
        u.type = RO;
        r.take_over = false;
        scsi_reserve_start(&r);
        for (unsigned i = 0; step(&r, &u, 0, cut); i++)
            assert_true(i < 1000);
        assert_int_not_equal(r.status, OK);
        assert_true(u.holder == 1 && !u.key[0]);
    }
}

/* Two nodes at once, their commands in every order of the first 16: never both have it, and one of them when alone. */
static void two_at_the_same_time(void **state)
{
    unsigned a_has = 0, b_has = 0;
    (void)state;

    for (uint32_t order = 0; order < 1u << 16; order++) {
        struct fake_unit u = empty();
        struct scsi_reserve a = order_of(SCSI_RESERVE_TAKE, KEY_A, false), b = order_of(SCSI_RESERVE_TAKE, KEY_B, false);
        scsi_reserve_start(&a);
        scsi_reserve_start(&b);
        for (unsigned i = 0; i < 16; i++) {
            if (order >> i & 1)
                (void)step(&a, &u, 0, 0);
            else
                (void)step(&b, &u, 1, 0);
        }
        bool a_on = true, b_on = true;
        for (unsigned i = 0; a_on || b_on; i++) {
            assert_true(i < 1000);
            a_on = step(&a, &u, 0, 0);
            b_on = step(&b, &u, 1, 0);
        }
        if (a.status && b.status) print_message("order %x a %d %s b %d %s held %d holder %u keys %lx %lx\n", order, a.status, a.why, b.status, b.why, u.held, u.holder, u.key[0], u.key[1]);
        assert_false(a.status == OK && b.status == OK);
        assert_true((a.status == OK) == (u.held && u.holder == 0) && (b.status == OK) == (u.held && u.holder == 1));
        assert_int_equal(a.status == OK, u.key[0] != 0);
        assert_int_equal(b.status == OK, u.key[1] != 0);
        assert_true(a.status == OK || b.status == OK);
        a_has += a.status == OK;
        b_has += b.status == OK;
    }
    assert_true(a_has > 10000 && b_has > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_taken_and_given_back), cmocka_unit_test(strangers_are_named),
        cmocka_unit_test(what_an_earlier_life_left),  cmocka_unit_test(targets_that_have_less),
        cmocka_unit_test(two_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
