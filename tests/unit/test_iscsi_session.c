/* SPDX-License-Identifier: MIT */
/*
 * A session against the target in memory: data in every combination of what may be negotiated, sequence numbers that
 * wrap, streams cut into any pieces, windows, pings, task management, discovery, logout, proving and retrying. The
 * target judges each PDU; each test ends with no complaint of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_target.h"

#define SECOND UINT64_C(1000000000)

static void content(struct bench *b)
{
    if (b->target.complaints)
        print_error("the target: %s\n", b->target.complaint);
    assert_int_equal(b->target.complaints, 0);
}

static void good(const struct bench_command *c)
{
    assert_int_equal(c->done_count, 1);
    assert_int_equal(c->command.outcome, ISCSI_ANSWERED);
    assert_int_equal(c->command.status, 0);
}

static void same(const struct bench_command *c, uint8_t seed, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        assert_int_equal(c->buffer[i], bench_byte(seed, i));
}

/* Writes and reads back pieces of several sizes; the disk and what is read must be what was written. */
static void exercise(struct bench *b)
{
    static const uint32_t blocks[] = { 1, 2, 7, 16, 65, 200, 400 };
    for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
        b->stays = i % 2;
        bench_write(b, i, i * 100, blocks[i], (uint8_t)(i + 1));
        assert_true(bench_run(b));
        good(&b->command[i]);
        for (uint32_t k = 0; k < blocks[i] * 512; k++)
            assert_int_equal(b->target.disk[i * 100 * 512 + k], bench_byte((uint8_t)(i + 1), k));
        bench_read(b, 10 + i, i * 100, blocks[i]);
        assert_true(bench_run(b));
        good(&b->command[10 + i]);
        same(&b->command[10 + i], (uint8_t)(i + 1), blocks[i] * 512);
    }
    content(b);
}

static void every_combination(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 256; bits++) {
        struct bench *b = bench_new();
        struct fake_target_manners *m = &b->target.manners;
        b->wishes.values.initial_r2t = bits & 1;
        b->wishes.values.immediate_data = bits >> 1 & 1;
        b->wishes.header_digest = bits & 4 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_OFF;
        b->wishes.data_digest = bits & 8 ? ISCSI_DIGEST_PREFERRED : ISCSI_DIGEST_OFF;
        m->want.first_burst_bytes = bits & 16 ? 512 : 20000;
        m->want.max_burst_bytes = bits & 16 ? 1024 : 66000;
        m->want.max_recv_bytes = bits & 32 ? 512 : 9000;
        b->wishes.values.max_recv_bytes = bits & 32 ? 9000 : 512;
        b->wishes.values.data_pdu_in_order = b->wishes.values.data_sequence_in_order = bits >> 6 & 1;
        m->want.data_pdu_in_order = m->want.data_sequence_in_order = bits >> 6 & 1;
        m->reverse = !(bits & 64);
        m->r2t_bytes = bits & 128 ? 4096 : 0;
        m->status_apart = bits & 128;
        bench_start(b);
        exercise(b);
        assert_int_equal(b->session.parameters.initial_r2t, bits & 1);
        assert_int_equal(b->session.parameters.immediate_data, bits >> 1 & 1);
        assert_int_equal(b->session.parameters.header_digest, bits >> 2 & 1);
        assert_int_equal(b->session.parameters.data_digest, bits >> 3 & 1);
        assert_int_equal(b->target.immediate_bytes != 0, bits >> 1 & 1);
        assert_int_equal(b->target.logins, 1);
        assert_int_equal(b->session.counts.drops, 0);
        if (bits & 1)
            assert_int_equal(b->target.unsolicited_pdus, 0);
        else if (!(bits & 2))
            assert_true(b->target.unsolicited_pdus > 0);
        bench_free(b);
    }
}

static void every_split(void **state)
{
    (void)state;
    for (size_t chunk = 1; chunk < 140; chunk++) {
        struct bench *b = bench_new();
        b->in_chunk = chunk;
        b->out_chunk = chunk * 3 + 1;
        b->room = chunk + 60;
        b->target.manners.data_in_bytes = 700;
        b->target.manners.r2t_bytes = 1500;
        bench_start(b);
        bench_write(b, 0, 3, 20, 9);
        bench_read(b, 1, 900, 5);
        assert_true(bench_run(b));
        bench_read(b, 2, 3, 20);
        assert_true(bench_run(b));
        good(&b->command[0]);
        good(&b->command[1]);
        same(&b->command[2], 9, 20 * 512);
        content(b);
        assert_int_equal(b->session.counts.drops, 0);
        bench_free(b);
    }
}

static void numbers_wrap(void **state)
{
    (void)state;
    for (uint32_t start = 0xfffffff0u; start != 0x10; start++) {
        struct bench *b = bench_new();
        b->settings.first_cmd_sn = start;
        b->target.manners.first_stat_sn = start ^ 5;
        b->target.manners.window = 3;
        bench_start(b);
        for (unsigned i = 0; i < 40; i++)
            i % 2 ? bench_write(b, i, i, 1, (uint8_t)i) : bench_read(b, i, i, 3);
        assert_true(bench_run(b));
        for (unsigned i = 0; i < 40; i++)
            good(&b->command[i]);
        content(b);
        assert_int_equal(b->session.counts.drops, 0);
        bench_free(b);
    }
}

/* The tags of a slot wrap, too, and none is used twice at a time (the target would complain). */
static void tags_wrap(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    for (unsigned i = 0; i < ARRAY_COUNT(b->slots); i++)
        b->slots[i].itt = 0x7fffffe0u + i;
    b->session.own_tag = 0xfffffffdu;
    for (unsigned i = 0; i < 64; i++)
        bench_read(b, i, i, 1);
    assert_true(bench_run(b));
    bench_pass(b, 60 * SECOND);
    for (unsigned i = 0; i < 64; i++)
        good(&b->command[i]);
    assert_true(b->session.counts.pings > 5);
    content(b);
    assert_int_equal(b->session.counts.drops, 0);
    bench_free(b);
}

static void window_is_kept_full(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    b->target.manners.window = 5;
    bench_start(b);
    for (unsigned i = 0; i < 20; i++)
        bench_read(b, i, i, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 5); /* no answer has moved the window */
    fake_target_ping(&b->target);
    bench_settle(b);
    assert_int_equal(b->target.commands, 10);
    b->target.manners.hold = false;
    fake_target_release(&b->target, true);
    assert_true(bench_run(b));
    content(b);
    bench_free(b);

    b = bench_new(); /* 32 tags, 64 commands */
    b->target.manners.hold = true;
    b->target.manners.window = 60;
    bench_start(b);
    for (unsigned i = 0; i < 64; i++)
        bench_read(b, i, i, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 32);
    b->target.manners.hold = false;
    fake_target_release(&b->target, true);
    assert_true(bench_run(b));
    assert_int_equal(b->target.commands, 64);
    content(b);
    bench_free(b);
}

static void closed_window(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (t->test) /* nothing beyond what came */
        be32_put(bhs->nop_in.max_cmd_sn, be32_get(bhs->nop_in.exp_cmd_sn) - 1);
}

static void a_closed_window_is_obeyed(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.mangle = closed_window;
    b->target.test = b;
    bench_start(b);
    bench_read(b, 0, 0, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 0);
    assert_int_equal(b->session.state, ISCSI_READY);
    b->target.test = NULL;
    fake_target_ping(&b->target); /* brings a new window */
    assert_true(bench_run(b));
    good(&b->command[0]);
    assert_int_equal(b->target.pings_answered, 1);
    content(b);
    bench_free(b);
}

static void r2ts_are_served_in_numbers(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.r2t_bytes = 512;
    b->target.manners.want.max_outstanding_r2t = 8;
    b->target.manners.want.initial_r2t = 1;
    b->target.manners.want.immediate_data = 0;
    bench_start(b);
    for (unsigned i = 0; i < 6; i++)
        bench_write(b, i, i * 50, 50, (uint8_t)i);
    assert_true(bench_run(b));
    for (unsigned i = 0; i < 6; i++)
        good(&b->command[i]);
    assert_int_equal(b->target.r2ts, 300);
    assert_int_equal(b->target.most_outstanding, 8);
    content(b);
    bench_free(b);
}

static void errors_and_residuals(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    struct bench_command *c = bench_read(b, 0, 5000, 1);
    assert_true(bench_run(b));
    assert_int_equal(c->command.outcome, ISCSI_ANSWERED);
    assert_int_equal(c->command.status, 2);
    assert_int_equal(c->command.sense_bytes, 18);
    assert_int_equal(c->command.sense[12], 0x21);
    assert_true(c->command.underflow);
    assert_int_equal(c->command.residual, 512);
    c = bench_read(b, 1, 0, 1);
    assert_true(bench_run(b));
    c->done_count = 0; /* anew, as an INQUIRY with more room than there is data */
    memset(c->command.cdb, 0, 16);
    c->command.cdb[0] = 0x12;
    assert_int_equal(iscsi_submit(&b->session, &c->command, b->now_ns), OK);
    assert_true(bench_run(b));
    assert_int_equal(c->command.status, 0);
    assert_true(c->command.underflow);
    assert_int_equal(c->command.residual, 512 - 36);
    assert_int_equal(c->command.transferred, 36);
    content(b);
    bench_free(b);
}

static void pings_both_ways(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    fake_target_ping(&b->target);
    bench_settle(b);
    assert_int_equal(b->target.pings_answered, 1);
    bench_pass(b, 100 * SECOND);
    assert_in_range(b->session.counts.pings, 15, 25);
    assert_int_equal(b->session.counts.drops, 0);
    assert_int_equal(b->session.state, ISCSI_READY);
    b->target.manners.mute = true; /* its TCP lives, the target does not */
    bench_read(b, 0, 0, 1);
    bench_pass(b, 10 * SECOND + SECOND / 20);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "ping"));
    b->target.manners.mute = false;
    assert_true(bench_run(b));
    good(&b->command[0]);
    content(b);
    bench_free(b);
}

static void lost_connections_are_no_errors(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    for (unsigned i = 0; i < 10; i++)
        bench_write(b, i, 7, 3, (uint8_t)(i + 1)); /* over each other: the order shows */
    bench_settle(b);
    assert_int_equal(b->target.commands, 10);
    bench_cut(b);
    assert_int_equal(b->session.state, ISCSI_WAITING);
    assert_int_equal(bench_events(b, ISCSI_EVENT_DOWN), 1);
    b->target.manners.hold = false;
    b->auto_resume = false;
    bench_pass(b, SECOND);
    assert_int_equal(b->session.state, ISCSI_PROVING);
    assert_int_equal(b->target.commands, 10); /* nothing goes out before the proof */
    iscsi_session_resume(&b->session, b->now_ns);
    assert_true(bench_run(b));
    for (unsigned i = 0; i < 10; i++)
        good(&b->command[i]);
    assert_int_equal(b->target.commands, 20);
    for (uint32_t i = 0; i < 3 * 512; i++)
        assert_int_equal(b->target.disk[7 * 512 + i], bench_byte(10, i));
    content(b);
    bench_free(b);
}

static void stale_writes_are_discarded(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    b->epoch = 1;
    bench_start(b);
    for (unsigned i = 0; i < 4; i++)
        bench_write(b, i, i, 1, 0x55);
    bench_settle(b);
    bench_cut(b);
    b->epoch = 2; /* somebody took over */
    b->refuse_stale = true;
    b->target.manners.hold = false;
    bench_write(b, 4, 20, 1, 0x66);
    assert_true(bench_run(b));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(b->command[i].command.outcome, ISCSI_STALE);
        assert_true(b->command[i].command.was_sent);
    }
    good(&b->command[4]);
    assert_int_equal(b->target.commands, 5);
    assert_int_equal(b->target.disk[0], 0);
    content(b);
    bench_free(b);
}

static void only_probes_while_proving(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->auto_resume = false;
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    assert_int_equal(b->session.state, ISCSI_PROVING);
    bench_read(b, 3, 5, 1);
    b->probes = true;
    struct bench_command *c = bench_read(b, 1, 0, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 1);
    good(c);
    /* A proof that does not come to an end ends the connection; the probe under way is lost, the write waits. */
    b->target.manners.hold = true;
    c = bench_read(b, 2, 0, 1);
    b->probes = false;
    bench_pass(b, 21 * SECOND);
    assert_int_equal(c->command.outcome, ISCSI_LOST);
    assert_true(b->session.counts.drops >= 1);
    assert_int_equal(b->command[0].done_count, 0);
    iscsi_session_drop(&b->session, "not ours any more", b->now_ns);
    assert_non_null(strstr(b->text, "not ours any more"));
    b->target.manners.hold = false;
    b->auto_resume = true;
    assert_true(bench_run(b));
    good(&b->command[0]);
    content(b);
    bench_free(b);
}

static void a_long_outage_is_told_once(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->absent = true;
    bench_write(b, 0, 0, 1, 3);
    assert_true(bench_run(b));
    bench_write(b, 1, 1, 1, 4);
    bench_cut(b);
    bench_pass(b, 59 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 0);
    bench_pass(b, 600 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 1);
    assert_int_equal(b->command[1].done_count, 0);
    unsigned ready = bench_events(b, ISCSI_EVENT_READY);
    b->absent = false;
    assert_true(bench_run(b));
    assert_int_equal(bench_events(b, ISCSI_EVENT_READY), ready + 1);
    good(&b->command[1]);
    content(b);
    bench_free(b);
}

static struct iscsi_task task;
static unsigned task_done_count;
static void task_done(struct iscsi_task *t)
{
    assert_ptr_equal(t, &task);
    task_done_count++;
}

static void aborts(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    struct bench_command *c = bench_read(b, 0, 0, 1), *other = bench_read(b, 1, 1, 1);
    bench_settle(b);
    task = (struct iscsi_task){ .function = ISCSI_ABORT_TASK, .command = &c->command, .done = task_done };
    task_done_count = 0;
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    assert_int_equal(c->done_count, 0); /* not before the target has said so */
    bench_settle(b);
    assert_int_equal(task_done_count, 1);
    assert_int_equal(task.response, ISCSI_TASK_COMPLETE);
    assert_int_equal(c->command.outcome, ISCSI_ABORTED);
    assert_int_equal(other->done_count, 0);
    /* A late answer for the old tag finds nothing, and ends the connection: `take` would abort the test. */
    union iscsi_bhs late;
    iscsi_bhs_init(&late, ISCSI_DATA_IN, ISCSI_FINAL, c->command.itt);
    be32_put(late.data_in.ttt, ISCSI_TAG_NONE);
    fake_target_send(&b->target, &late, b->target.disk, 512, false);
    bench_settle(b);
    assert_int_equal(b->session.counts.drops, 1);
    b->target.manners.hold = false;
    assert_true(bench_run(b));
    good(other);

    /* Refused, then a reset of the logical unit. */
    b->target.manners.hold = b->target.manners.refuse_tasks = true;
    c = bench_write(b, 2, 0, 1, 1);
    bench_settle(b);
    task = (struct iscsi_task){ .function = ISCSI_ABORT_TASK, .command = &c->command, .done = task_done };
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    bench_settle(b);
    assert_int_equal(task.response, ISCSI_TASK_REJECTED);
    assert_int_equal(c->done_count, 0);
    b->target.manners.refuse_tasks = false;
    task = (struct iscsi_task){ .function = ISCSI_LOGICAL_UNIT_RESET, .done = task_done };
    iscsi_lun_encode(task.lun, 1);
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    bench_settle(b);
    assert_int_equal(c->command.outcome, ISCSI_ABORTED);

    /* Lost in between. */
    c = bench_write(b, 3, 0, 1, 1);
    bench_settle(b);
    task = (struct iscsi_task){ .function = ISCSI_ABORT_TASK, .command = &c->command, .done = task_done };
    b->freeze_out = true;
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    bench_cut(b);
    assert_true(task.lost);
    assert_int_equal(c->command.outcome, ISCSI_LOST);
    /* One that waits is aborted at once; no connection is needed. */
    c = bench_write(b, 4, 0, 1, 1);
    task = (struct iscsi_task){ .function = ISCSI_ABORT_TASK, .command = &c->command, .done = task_done };
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    assert_int_equal(c->command.outcome, ISCSI_ABORTED);
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), ERR_NOT_FOUND);
    content(b);
    bench_free(b);
}

static void withdrawing(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    struct bench_command *c = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    assert_int_equal(iscsi_withdraw(&b->session, &c->command), ERR_BUSY);
    assert_int_equal(iscsi_submit(&b->session, &c->command, b->now_ns), ERR_BUSY);
    b->absent = true;
    bench_cut(b);
    struct bench_command *fresh = bench_write(b, 1, 0, 1, 1);
    assert_int_equal(iscsi_withdraw(&b->session, &c->command), OK);
    assert_int_equal(iscsi_withdraw(&b->session, &fresh->command), OK);
    assert_true(c->command.was_sent);
    assert_false(fresh->command.was_sent);
    bench_pass(b, 100 * SECOND);
    assert_int_equal(c->done_count + fresh->done_count, 0);
    bench_free(b);
}

static void slow_commands_are_told(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    bench_read(b, 0, 0, 1);
    bench_pass(b, 60 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_SLOW), 1);
    assert_int_equal(b->session.counts.drops, 0);
    bench_free(b);
}

static void discovery(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetAddress=[fe80::1]:3261,2\0TargetName=iqn.2026-11.example:b\0"
                                  "TargetAddress=host";
    (void)state;
    for (size_t chunk = 0; chunk < 60; chunk += 7) {
        struct bench *b = bench_new();
        b->settings.login.discovery = true;
        b->target.manners.targets = targets;
        b->target.manners.targets_bytes = sizeof(targets);
        b->target.manners.text_chunk = chunk;
        bench_start(b);
        bench_settle(b);
        assert_string_equal(b->found,
                            "[iqn.2026-11.example:a]10.0.0.5:3260,1;fe80::1:3261,2;"
                            "[iqn.2026-11.example:b]host:3260,0;");
        assert_int_equal(b->session.state, ISCSI_IDLE);
        assert_int_equal(bench_events(b, ISCSI_EVENT_STOPPED), 1);
        assert_int_equal(b->target.logouts, 1);
        content(b);
        bench_free(b);
    }
}

static void stopping(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    b->target.manners.hold = true;
    bench_write(b, 1, 0, 1, 2);
    bench_settle(b);
    iscsi_session_stop(&b->session, b->now_ns);
    assert_int_equal(iscsi_submit(&b->session, &b->command[0].command, b->now_ns), ERR_INVALID);
    bench_pass(b, 3 * SECOND); /* the answer is waited for, then not */
    assert_int_equal(b->target.logouts, 1);
    assert_int_equal(b->session.state, ISCSI_IDLE);
    assert_int_equal(b->command[1].command.outcome, ISCSI_STOPPED);
    assert_false(b->up);
    b->target.manners.hold = false; /* and again */
    iscsi_session_start(&b->session, b->now_ns);
    bench_settle(b);
    bench_read(b, 0, 0, 1);
    assert_true(bench_run(b));
    good(&b->command[0]);
    content(b);
    bench_free(b);
}

/* Answered commands that submit another from done(), many times. */
static unsigned again_left;
static void again(struct bench_command *c)
{
    if (!again_left)
        return;
    again_left--;
    c->done_count = 0;
    assert_int_equal(iscsi_submit(&c->bench->session, &c->command, c->bench->now_ns), OK);
}

static void submitting_from_done(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    again_left = 5000;
    for (unsigned i = 0; i < 8; i++)
        (i % 2 ? bench_read(b, i, i * 8, 8) : bench_write(b, i, i * 8, 8, 1))->then = again;
    assert_true(bench_run(b));
    assert_int_equal(again_left, 0);
    assert_int_equal(b->target.commands, 5008);
    content(b);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination),
        cmocka_unit_test(every_split),
        cmocka_unit_test(numbers_wrap),
        cmocka_unit_test(tags_wrap),
        cmocka_unit_test(window_is_kept_full),
        cmocka_unit_test(a_closed_window_is_obeyed),
        cmocka_unit_test(r2ts_are_served_in_numbers),
        cmocka_unit_test(errors_and_residuals),
        cmocka_unit_test(pings_both_ways),
        cmocka_unit_test(lost_connections_are_no_errors),
        cmocka_unit_test(stale_writes_are_discarded),
        cmocka_unit_test(only_probes_while_proving),
        cmocka_unit_test(a_long_outage_is_told_once),
        cmocka_unit_test(aborts),
        cmocka_unit_test(withdrawing),
        cmocka_unit_test(slow_commands_are_told),
        cmocka_unit_test(discovery),
        cmocka_unit_test(stopping),
        cmocka_unit_test(submitting_from_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
