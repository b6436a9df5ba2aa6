/* SPDX-License-Identifier: MIT */
/*
 * The validation against a unit in memory that keeps all rules, and against units that each break one: that very check fails,
 * and only the first unit is fit. In each case what was on the disk is there afterwards, and no key and no reservation is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fake_unit.h"
#include "kernel/bytes.h"
#include "net/scsi/scsi_sense.h"
#include "net/scsi/scsi_validate.h"

#define BLOCKS 1024u
#define DATA_BLOCKS 900u /* of the beginning, where there is something */

static uint8_t disk[BLOCKS * 512], before[BLOCKS * 512], buffer[SCSI_VALIDATE_ROOM];
static struct fake_unit unit;

static struct {
    bool new_nexus;        /* who comes back is somebody else */
    bool loses;            /* a connection's end takes its key away */
    bool reset_loses;      /* a reset does */
    bool no_reset, no_abort, no_keep;
    bool preempt_nothing;  /* PREEMPT is answered and not done */
    bool takes_key;        /* who preempts the holder is registered with the holder's key afterwards, as on istgt */
    uint8_t wild;          /* a command that is answered with a hardware error */
} flaw;

static unsigned nexus_b, logins;

static unsigned execute(unsigned nexus, const struct scsi_cdb *cdb, uint8_t *data, uint32_t *bytes, uint8_t sense[18])
{
    static uint8_t answer[SCSI_VALIDATE_ROOM];
    unsigned action = cdb->bytes[0] == 0x5f ? cdb->bytes[1] & 31u : 99;

    *bytes = 0;
    bool unknown = (flaw.no_abort && action == SCSI_PR_PREEMPT_AND_ABORT) ||
                   (flaw.no_keep && action == SCSI_PR_REGISTER_AND_IGNORE && data[20] & 1);
    if (unknown || (flaw.wild && flaw.wild == cdb->bytes[0])) {
        memset(sense, 0, 18);
        sense[0] = 0x70;
        sense[2] = unknown ? SCSI_ILLEGAL_REQUEST : SCSI_HARDWARE_ERROR;
        sense[7] = 10;
        sense[12] = unknown ? 0x24 : 0x44;
        return SCSI_CHECK_CONDITION;
    }
    if (flaw.preempt_nothing && (action == SCSI_PR_PREEMPT || action == SCSI_PR_PREEMPT_AND_ABORT))
        return SCSI_GOOD;
    unsigned status = fake_unit_execute(&unit, nexus ? nexus_b : 0, cdb->bytes, data, cdb->write_bytes, answer, cdb->read_bytes,
                                        bytes, sense);
    if (flaw.takes_key && action == SCSI_PR_PREEMPT && status == SCSI_GOOD && nexus && unit.held && unit.holder == nexus_b)
        unit.key[nexus_b] = be64_get(data + 8);
    memcpy(data, answer, *bytes);
    return status;
}

static void run(struct scsi_validate *v)
{
    struct scsi_talk_step step;

    scsi_validate_start(v);
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t sense[18] = { 0 };
        uint32_t bytes;
        switch (scsi_validate_ops.next(v, &step)) {
        case SCSI_TALK_SEND: {
            unsigned status = execute(step.nexus, step.cdb, step.buffer, &bytes, sense);
            scsi_validate_ops.answer(v, status, sense, status == 2 ? 18 : 0, step.cdb->write_bytes ? step.cdb->write_bytes : bytes);
            break;
        }
        case SCSI_TALK_RESET:
            if (flaw.reset_loses) {
                unit.keeps = false;
                fake_unit_power_loss(&unit);
            }
            scsi_validate_ops.reset(v, !flaw.no_reset);
            break;
        case SCSI_TALK_WAIT:
            scsi_validate_ops.waited(v);
            break;
        case SCSI_TALK_LOGIN:
            assert_int_equal(step.nexus, 1);
            if (logins++ && flaw.new_nexus)
                nexus_b = 2;
            if (logins > 1 && flaw.loses) {
                unit.key[nexus_b] = 0;
                unit.held = false;
            }
            unit.attention[nexus_b] = 0x2907;
            scsi_validate_ops.logged_in(v);
            break;
        case SCSI_TALK_OVER:
            return;
        }
    }
    fail_msg("it does not end");
}

static struct scsi_validate fresh(void)
{
    memset(&flaw, 0, sizeof flaw);
    for (unsigned i = 0; i < sizeof disk; i++)
        disk[i] = i < DATA_BLOCKS * 512 ? (uint8_t)(i * 7 + 1) : 0;
    memset(disk + sizeof disk - 512, 0x55, 512); /* the last block, too */
    memcpy(before, disk, sizeof disk);
    unit = (struct fake_unit){ .disk = disk, .disk_bytes = sizeof disk, .extras = true, .generation = 1 };
    nexus_b = 1;
    logins = 0;
    return (struct scsi_validate){ .key = { 0x1111222233330001, 0x1111222233330002 }, .blocks = BLOCKS, .block_bytes = 512,
                                   .can_unmap = true, .force = true, .buffer = buffer };
}

static void nothing_is_left(void)
{
    assert_memory_equal(disk, before, sizeof disk);
    assert_false(unit.held);
    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        assert_int_equal(unit.key[i], 0);
}

/* That check fails, no other one does, and the unit is not fit. */
static void fails(struct scsi_validate *v, enum scsi_check check)
{
    run(v);
    for (unsigned i = 0; i < SCSI_CHECK_COUNT; i++) {
        if ((v->answer[i].result == SCSI_FAILED) != (i == check))
            print_message("%s: %s\n", scsi_check_name(i), v->answer[i].words);
        assert_int_equal(v->answer[i].result == SCSI_FAILED, i == check);
    }
    assert_false(v->fit);
    assert_true(v->answer[check].words[0]);
    nothing_is_left();
}

static void one_that_is_fit(void **state)
{
    struct scsi_validate v = fresh();
    (void)state;

    run(&v);

    for (unsigned i = 0; i < SCSI_CHECK_COUNT; i++) {
        if (v.answer[i].result != SCSI_PASSED)
            print_message("%s: %s\n", scsi_check_name(i), v.answer[i].words);
        assert_int_equal(v.answer[i].result, SCSI_PASSED);
        assert_true(scsi_check_name(i)[0]);
    }
    assert_true(v.fit && !v.why[0]);
    assert_int_equal(logins, 2);
    nothing_is_left();
    v = fresh(); /* has nothing to unmap with */
    unit.extras = v.can_unmap = false;
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_UNMAP].result, SCSI_ABSENT);
    assert_int_equal(v.answer[SCSI_CHECK_SAME].result, SCSI_ABSENT);
    assert_int_equal(v.answer[SCSI_CHECK_COMPARE].result, SCSI_ABSENT);
    assert_int_equal(v.answer[SCSI_CHECK_POWER].result, SCSI_FAILED); /* that it does not tell */
    assert_false(v.fit);
    nothing_is_left();
    v = fresh();
    flaw.no_abort = true; /* it can be reset instead */
    run(&v);
    assert_true(v.fit);
    assert_int_equal(v.answer[SCSI_CHECK_ABORT].result, SCSI_ABSENT);
    nothing_is_left();
}

static void each_flaw_is_found(void **state)
{
    static const struct {
        uint8_t code;
        enum scsi_check check;
    } leaks[] = { { 0x42, SCSI_CHECK_UNMAP }, { 0x93, SCSI_CHECK_SAME }, { 0x89, SCSI_CHECK_COMPARE } };
    struct scsi_validate v;
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(leaks); i++) {
        v = fresh();
        unit.leaks = leaks[i].code;
        fails(&v, leaks[i].check);
    }
    v = fresh();
    flaw.new_nexus = true;
    fails(&v, SCSI_CHECK_RECONNECT);
    v = fresh();
    flaw.takes_key = true;
    fails(&v, SCSI_CHECK_RECONNECT);
    v = fresh();
    flaw.no_reset = true;
    fails(&v, SCSI_CHECK_RESET);
    v = fresh();
    flaw.no_keep = true;
    fails(&v, SCSI_CHECK_POWER);
    v = fresh(); /* these break more than one check */
    unit.leaks = 0x8a;
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_WRITE].result, SCSI_FAILED);
    assert_int_equal(v.answer[SCSI_CHECK_PREEMPT].result, SCSI_FAILED);
    assert_false(v.fit);
    nothing_is_left();
    v = fresh();
    flaw.loses = true;
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_RECONNECT].result, SCSI_FAILED);
    assert_int_equal(v.answer[SCSI_CHECK_WRITE].result, SCSI_PASSED);
    assert_false(v.fit);
    nothing_is_left();
    v = fresh();
    flaw.reset_loses = true;
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_RESET].result, SCSI_FAILED);
    assert_false(v.fit);
    nothing_is_left();
    v = fresh();
    flaw.preempt_nothing = true;
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_PREEMPT].result, SCSI_FAILED);
    assert_int_equal(v.answer[SCSI_CHECK_ABORT].result, SCSI_FAILED);
    assert_int_equal(v.answer[SCSI_CHECK_TAKEOVER].result, SCSI_FAILED);
    assert_false(v.fit);
    nothing_is_left(); /* each of the two takes its own key away */
    v = fresh();
    flaw.preempt_nothing = flaw.new_nexus = true; /* nobody can take away the key of the one that is gone */
    run(&v);
    assert_int_equal(v.answer[SCSI_CHECK_CLEAN].result, SCSI_FAILED);
    assert_false(v.fit);
    assert_memory_equal(disk, before, sizeof disk);
}

static void it_is_not_begun(void **state)
{
    struct scsi_validate v = fresh();
    (void)state;

    v.force = false; /* there is something on it */
    run(&v);
    assert_non_null(strstr(v.why, "--force"));
    assert_true(!v.fit && !unit.writes && unit.generation == 1);
    v = fresh();
    unit.key[3] = 0xabc;
    run(&v);
    assert_non_null(strstr(v.why, "0x0000000000000abc"));
    assert_true(unit.key[3] == 0xabc && !unit.key[0] && !unit.writes);
    v = fresh();
    memset(disk, 1, sizeof disk); /* nothing that could be written over */
    run(&v);
    assert_non_null(strstr(v.why, "no block of zeros"));
    assert_true(!unit.writes && !unit.key[0]);
    v = fresh();
    unit.no_reservations = true;
    run(&v);
    assert_non_null(strstr(v.why, "READ KEYS"));
    assert_true(!v.fit && !unit.writes);
    v = fresh();
    v.block_bytes = 8192;
    run(&v);
    assert_true(v.why[0] && !unit.commands);
    for (unsigned code = 1; code < 256; code++) { /* whatever does not work: it ends, and nothing is broken */
        v = fresh();
        flaw.wild = (uint8_t)code;
        run(&v);
        assert_memory_equal(disk, before, sizeof disk);
        assert_int_equal(v.fit, !memchr((uint8_t[]){ 0x42, 0x5e, 0x5f, 0x88, 0x89, 0x8a, 0x93 }, (int)code, 7));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_is_fit),
        cmocka_unit_test(each_flaw_is_found),
        cmocka_unit_test(it_is_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
