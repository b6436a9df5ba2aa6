/* SPDX-License-Identifier: MIT */
/*
 * The edges of a session that an ordinary conversation never comes to: answers while a PDU is half sent, requests
 * beyond what was agreed, data of odd lengths, memory that is gone, task management that crosses an answer, calls about
 * connections that are gone, clocks that go back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_target.h"

#define SECOND UINT64_C(1000000000)

static void good(const struct bench_command *c)
{
    assert_int_equal(c->done_count, 1);
    assert_int_equal(c->command.outcome, ISCSI_ANSWERED);
    assert_int_equal(c->command.status, 0);
}

static void content(struct bench *b)
{
    if (b->target.complaints)
        print_error("the target: %s\n", b->target.complaint);
    assert_int_equal(b->target.complaints, 0);
}

/* ---- A write that is stuck in the middle of its data ---- */

static void freeze_at_r2t(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    struct bench *b = t->test;
    if (t->full && iscsi_opcode(bhs) == ISCSI_R2T && !b->freeze_out) {
        b->freeze_out = true;
        b->room = b->pending_count + 60; /* the header fits, the data do not */
    }
}

/* A write of `blocks` whose first Data-Out is under way, and can neither end nor arrive. */
static struct bench *stuck_write(uint32_t blocks)
{
    struct bench *b = bench_new();
    b->target.manners.want.immediate_data = 0;
    b->target.manners.want.initial_r2t = 1;
    b->target.manners.want.max_burst_bytes = 512;
    b->target.manners.want.first_burst_bytes = 512;
    b->target.manners.want.max_outstanding_r2t = 2;
    b->target.manners.mangle = freeze_at_r2t;
    b->target.test = b;
    bench_start(b);
    bench_write(b, 0, 0, blocks, 1);
    bench_settle(b);
    assert_true(b->freeze_out);
    assert_true(b->session.tx.active);
    assert_ptr_equal(b->session.tx.command, &b->command[0].command);
    return b;
}

static void thaw(struct bench *b)
{
    b->freeze_out = false;
    b->room = FAKE_STREAM_BYTES;
    b->target.manners.mangle = NULL;
    iscsi_session_writable(&b->session, b->connection, b->now_ns);
}

/* The target answers without waiting for the data. */
static void respond(struct bench *b, uint8_t status)
{
    union iscsi_bhs bhs;
    for (unsigned i = 0; i < FAKE_TASKS; i++)
        if (b->target.task[i].active) {
            free(b->target.task[i].data);
            memset(&b->target.task[i], 0, sizeof(b->target.task[i]));
        }
    iscsi_bhs_init(&bhs, ISCSI_SCSI_RESPONSE, ISCSI_FINAL, b->command[0].command.itt);
    bhs.response.status = status;
    fake_target_send(&b->target, &bhs, NULL, 0, true);
    bench_settle(b);
}

/* All data are handed out, and yet the target cannot have them: GOOD is a lie. */
static void good_before_the_data_left(void **state)
{
    (void)state;
    struct bench *b = stuck_write(1);
    assert_int_equal(b->command[0].command.transferred, 512);
    respond(b, 0);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "GOOD after"));
    assert_int_equal(b->command[0].done_count, 0);
    thaw(b);
    assert_true(bench_run(b));
    good(&b->command[0]);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(b->target.disk[i], bench_byte(1, i));
    bench_free(b);
}

/* An error may come early; the command stays until the PDU with its bytes is out. */
static void an_error_before_the_data_left(void **state)
{
    (void)state;
    struct bench *b = stuck_write(1);
    respond(b, 8);
    assert_int_equal(b->session.counts.drops, 0);
    assert_int_equal(b->command[0].done_count, 0);
    thaw(b);
    bench_settle(b);
    assert_int_equal(b->command[0].done_count, 1);
    assert_int_equal(b->command[0].command.status, 8);
    assert_false(b->command[0].command.complete);
    assert_int_equal(b->session.counts.drops, 0);
    bench_free(b);
}

static void ask_more(struct bench *b, uint32_t sn)
{
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_R2T, ISCSI_FINAL, b->command[0].command.itt);
    be32_put(bhs.r2t.ttt, 0x7000 + sn);
    be32_put(bhs.r2t.r2t_sn, sn);
    be32_put(bhs.r2t.offset, sn * 512);
    be32_put(bhs.r2t.desired_length, 512);
    fake_target_send(&b->target, &bhs, NULL, 0, false);
    bench_settle(b);
}

static void more_requests_than_agreed(void **state)
{
    (void)state;
    struct bench *b = stuck_write(8);
    assert_int_equal(b->session.parameters.max_outstanding_r2t, 2);
    assert_int_equal(b->command[0].command.r2t_count, 1); /* one is being served, one waits */
    ask_more(b, 2);
    assert_int_equal(b->session.counts.drops, 0);
    ask_more(b, 3);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "more than 2 pieces"));
    thaw(b);
    assert_true(bench_run(b));
    good(&b->command[0]);
    bench_free(b);
}

/* ---- Pieces ---- */

static uint32_t scattered; /* every second block first: so many pieces apart from each other */
static void scatter(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (!t->full || iscsi_opcode(bhs) != ISCSI_DATA_IN || !scattered)
        return;
    uint32_t i = be32_get(bhs->data_in.offset) / 512, apart = scattered;
    if (i == 2 * apart - 1) /* the last one: next time all is well */
        scattered = 0;
    be32_put(bhs->data_in.offset, i % apart * 1024 + i / apart * 512);
}

/* Any order, but not any number of holes: the room for them is bounded, and the command does not suffer. */
static void data_in_too_many_places(void **state)
{
    (void)state;
    for (uint32_t apart = ISCSI_COMMAND_PIECES; apart < ISCSI_COMMAND_PIECES + 3; apart++) {
        struct bench *b = bench_new();
        b->wishes.values.data_pdu_in_order = b->wishes.values.data_sequence_in_order = 0;
        b->target.manners.want.data_pdu_in_order = b->target.manners.want.data_sequence_in_order = 0;
        b->target.manners.data_in_bytes = 512;
        b->target.manners.mangle = scatter;
        scattered = apart;
        memset(b->target.disk, 0x5a, 2 * apart * 512);
        bench_start(b);
        struct bench_command *c = bench_read(b, 0, 0, 2 * apart);
        assert_true(bench_run(b));
        assert_int_equal(b->session.counts.drops, apart > ISCSI_COMMAND_PIECES);
        assert_int_equal(strstr(b->text, "too many places") != NULL, apart > ISCSI_COMMAND_PIECES);
        good(c);
        for (unsigned i = 0; i < 2 * apart * 512; i++)
            assert_int_equal(c->buffer[i], 0x5a);
        bench_free(b);
    }
}

/* ---- Data of other sizes, and memory that is gone ---- */

/* Lengths that are no multiple of a word are padded, and the padding is in the digest. */
static void odd_lengths(void **state)
{
    (void)state;
    for (uint32_t bytes = 1; bytes < 14; bytes++)
        for (unsigned chunk = 0; chunk < 6; chunk += 5) {
            struct bench *b = bench_new();
            b->wishes.header_digest = b->wishes.data_digest = ISCSI_DIGEST_REQUIRED;
            b->in_chunk = b->out_chunk = chunk;
            b->target.manners.data_in_bytes = 5;
            bench_start(b);
            struct bench_command *w = bench_write(b, 0, 0, 1, 7);
            assert_true(bench_run(b));
            w->done_count = 0;
            w->command.write_bytes = bytes;
            for (unsigned i = 0; i < 512; i++)
                w->buffer[i] = (uint8_t)(0xc0 + i);
            assert_int_equal(iscsi_submit(&b->session, &w->command, b->now_ns), OK);
            assert_true(bench_run(b));
            good(w);
            for (unsigned i = 0; i < 512; i++)
                assert_int_equal(b->target.disk[i], i < bytes ? (uint8_t)(0xc0 + i) : bench_byte(7, i));
            struct bench_command *r = bench_read(b, 1, 3, 1);
            assert_true(bench_run(b));
            r->done_count = 0;
            r->command.read_bytes = bytes;
            memset(r->command.cdb + 2, 0, 8);
            memset(r->buffer, 0, 512);
            assert_int_equal(iscsi_submit(&b->session, &r->command, b->now_ns), OK);
            assert_true(bench_run(b));
            good(r);
            for (unsigned i = 0; i < 512; i++)
                assert_int_equal(r->buffer[i], i < bytes ? (uint8_t)(0xc0 + i) : 0);
            assert_int_equal(b->session.counts.drops, 0);
            content(b);
            bench_free(b);
        }
}

static unsigned gone_how;
static const void *give_wrong(struct iscsi_command *command, uint32_t offset, uint32_t *count, void *bounce,
                              bool *stays)
{
    (void)command;
    (void)offset;
    (void)stays;
    memset(bounce, 0, *count);
    if (gone_how == 1)
        *count = 0;
    if (gone_how == 2)
        *count += 1;
    return gone_how ? bounce : NULL;
}

static bool take_wrong(struct iscsi_command *command, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)command;
    (void)offset;
    (void)bytes;
    (void)count;
    return false;
}

/* A command whose memory is gone ends, and takes nobody with it. */
static void memory_that_is_gone(void **state)
{
    static const struct iscsi_data_ops wrong = { .give = give_wrong, .take = take_wrong };
    (void)state;
    for (gone_how = 0; gone_how < 4; gone_how++) {
        struct bench *b = bench_new();
        bench_start(b);
        bench_settle(b);
        b->absent = true;
        bench_cut(b);
        struct bench_command *bad = gone_how == 3 ? bench_read(b, 0, 0, 4) : bench_write(b, 0, 0, 4, 1);
        struct bench_command *fine = bench_write(b, 1, 9, 4, 2);
        bad->command.data = &wrong;
        b->absent = false;
        assert_true(bench_run(b));
        assert_int_equal(bad->command.outcome, ISCSI_LOST);
        assert_int_equal(bad->done_count, 1);
        good(fine);
        assert_int_equal(b->session.counts.drops, 2);
        assert_non_null(strstr(b->text, "is gone"));
        bench_free(b);
    }
}

/* More data than anybody asked for in a PDU that needs none: dropped, not kept. */
static void data_where_none_is_needed(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_NOP_IN, ISCSI_FINAL, ISCSI_TAG_NONE);
    be32_put(bhs.nop_in.ttt, ISCSI_TAG_NONE);
    memset(b->target.disk, 0xa5, 200 * 1024);
    fake_target_send(&b->target, &bhs, b->target.disk, 200 * 1024, false);
    bench_settle(b);
    struct bench_command *c = bench_read(b, 0, 0, 8);
    assert_true(bench_run(b));
    good(c);
    assert_int_equal(b->session.counts.drops, 0);
    bench_free(b);
}

/* ---- Pings and text ---- */

static void as_many_pings_as_there_is_room_for(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra < 2; extra++) {
        struct bench *b = bench_new();
        bench_start(b);
        bench_settle(b);
        b->freeze_out = true;
        b->room = b->pending_count;
        b->in_chunk = ISCSI_BHS_BYTES + ISCSI_DIGEST_BYTES; /* one at a time */
        for (unsigned i = 0; i < ISCSI_PINGS_MAX + 1 + extra; i++) /* one answer is being sent */
            fake_target_ping(&b->target);
        bench_settle(b);
        assert_int_equal(b->session.counts.drops, extra);
        b->freeze_out = false;
        b->room = FAKE_STREAM_BYTES;
        if (!extra) {
            iscsi_session_writable(&b->session, b->connection, b->now_ns);
            bench_settle(b);
            assert_int_equal(b->target.pings_answered, ISCSI_PINGS_MAX + 1);
        }
        content(b);
        bench_free(b);
    }
}

/* A target may ask for a negotiation and change the one number that may change (13.12), to something that it may be. */
static void a_new_negotiation(void **state)
{
    static const struct { const char *text; uint32_t bytes; } says[] = {
        { "MaxRecvDataSegmentLength=1024", 1024 }, { "MaxRecvDataSegmentLength=100", 65536 },
        { "MaxRecvDataSegmentLength=16777216", 65536 }, { "Other=7", 65536 },
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(says); i++) {
        struct bench *b = bench_new();
        b->target.manners.targets = says[i].text;
        b->target.manners.targets_bytes = strlen(says[i].text) + 1;
        bench_start(b);
        bench_settle(b);
        assert_int_equal(b->session.parameters.max_send_bytes, 65536);
        union iscsi_bhs bhs;
        iscsi_bhs_init(&bhs, ISCSI_ASYNC, ISCSI_FINAL, ISCSI_TAG_NONE);
        bhs.async.event = ISCSI_ASYNC_NEGOTIATE;
        fake_target_send(&b->target, &bhs, NULL, 0, true);
        bench_settle(b);
        assert_int_equal(b->session.parameters.max_send_bytes, says[i].bytes);
        b->target.manners.want.max_recv_bytes = says[i].bytes; /* the judge of what comes now */
        bench_write(b, 0, 0, 100, 1);
        assert_true(bench_run(b));
        good(&b->command[0]);
        content(b);
        bench_free(b);
    }
}

/* ---- Task management ---- */

static unsigned tasks_done;
static void count_task(struct iscsi_task *t)
{
    (void)t;
    tasks_done++;
}

static unsigned resubmissions;
static void resubmit(struct bench_command *c)
{
    if (resubmissions++)
        return;
    c->done_count = 0;
    assert_int_equal(iscsi_submit(&c->bench->session, &c->command, c->bench->now_ns), OK);
}

/* The answer crosses the request to abort it; the structure is in use again when "no such task" comes. */
static void an_answer_that_crosses_an_abort(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    struct bench_command *c = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    c->then = resubmit;
    resubmissions = tasks_done = 0;
    struct iscsi_task task = { .function = ISCSI_ABORT_TASK, .command = &c->command, .done = count_task };
    b->freeze_out = true;
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    fake_target_release(&b->target, false);
    bench_settle(b);
    assert_int_equal(resubmissions, 1);
    b->freeze_out = false;
    bench_settle(b);
    assert_int_equal(tasks_done, 1);
    assert_int_equal(task.response, ISCSI_TASK_NO_TASK);
    assert_int_equal(c->done_count, 0); /* the second life is not what was aborted */
    fake_target_release(&b->target, false);
    bench_settle(b);
    assert_int_equal(resubmissions, 2);
    good(c);
    content(b);
    bench_free(b);
}

static void a_reset_spares_what_came_after_it(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    struct bench_command *before = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    struct iscsi_task task = { .function = ISCSI_LOGICAL_UNIT_RESET, .done = count_task };
    iscsi_lun_encode(task.lun, 1);
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    struct bench_command *after = bench_write(b, 1, 1, 1, 2);
    bench_settle(b);
    assert_int_equal(before->command.outcome, ISCSI_ABORTED);
    assert_int_equal(after->done_count, 0);
    fake_target_release(&b->target, false);
    bench_settle(b);
    good(after);
    content(b);
    bench_free(b);
}

static uint8_t task_answer;
static void answer_tasks(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (t->full && iscsi_opcode(bhs) == ISCSI_TASK_RESPONSE)
        bhs->task_response.response = task_answer;
}

/* Each answer to an abort: what ends the command, what leaves it to be retried after a loss. */
static void answers_to_an_abort(void **state)
{
    static const uint8_t answers[] = { ISCSI_TASK_COMPLETE, ISCSI_TASK_NO_TASK, ISCSI_TASK_NO_LUN,
                                       ISCSI_TASK_STILL_ALLEGIANT, ISCSI_TASK_NO_REASSIGN, ISCSI_TASK_UNSUPPORTED,
                                       ISCSI_TASK_UNAUTHORIZED, ISCSI_TASK_REJECTED };
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(answers); i++) {
        struct bench *b = bench_new();
        b->target.manners.hold = true;
        b->target.manners.mangle = answer_tasks;
        task_answer = answers[i];
        bench_start(b);
        struct bench_command *c = bench_write(b, 0, 0, 1, 1);
        bench_settle(b);
        struct iscsi_task task = { .function = ISCSI_ABORT_TASK, .command = &c->command, .done = count_task };
        assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
        bench_settle(b);
        assert_int_equal(task.response, answers[i]);
        if (answers[i] <= ISCSI_TASK_NO_TASK) {
            assert_int_equal(c->command.outcome, ISCSI_ABORTED);
        } else {
            assert_int_equal(c->done_count, 0);
            b->target.manners.hold = false;
            bench_cut(b);
            assert_true(bench_run(b));
            good(c);
        }
        bench_free(b);
    }
}

/* ---- Answers ---- */

static void long_sense(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    if (t->full && iscsi_opcode(bhs) == ISCSI_SCSI_RESPONSE && *bytes)
        be16_put(data, 0xffff);
}

static void sense_that_is_shorter_than_it_says(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.mangle = long_sense;
    bench_start(b);
    struct bench_command *c = bench_read(b, 0, 9999, 1);
    assert_true(bench_run(b));
    assert_int_equal(c->command.status, 2);
    assert_int_equal(c->command.sense_bytes, 18);
    bench_free(b);
}

/* ---- Time and calls ---- */

static void a_wait_has_an_end(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_ASYNC, ISCSI_FINAL, ISCSI_TAG_NONE);
    bhs.async.event = ISCSI_ASYNC_DROP_SESSION;
    be16_put(bhs.async.parameter[1], 65535);
    fake_target_send(&b->target, &bhs, NULL, 0, true);
    bench_pass(b, 59 * SECOND);
    assert_int_equal(b->target.logins, 1);
    bench_pass(b, 2 * SECOND);
    assert_int_equal(b->target.logins, 2);
    bench_free(b);
}

static void the_wait_after_a_logout(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.logout_wait = 9;
    bench_start(b);
    bench_settle(b);
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_ASYNC, ISCSI_FINAL, ISCSI_TAG_NONE);
    bhs.async.event = ISCSI_ASYNC_LOGOUT;
    fake_target_send(&b->target, &bhs, NULL, 0, true);
    bench_settle(b);
    assert_int_equal(b->target.logouts, 1);
    bench_pass(b, 8 * SECOND);
    assert_int_equal(b->target.logins, 1);
    bench_pass(b, 2 * SECOND);
    assert_int_equal(b->target.logins, 2);
    bench_free(b);
}

/* What is said of a connection that is gone changes nothing of the one that is there. */
static void calls_that_come_late(void **state)
{
    static const uint8_t junk[100] = { 0x2f };
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    uint32_t first = b->connection;
    bench_cut(b);
    bench_pass(b, SECOND);
    assert_int_not_equal(b->connection, first);
    assert_int_equal(b->session.state, ISCSI_READY);
    iscsi_session_received(&b->session, first, junk, sizeof(junk), false, b->now_ns);
    iscsi_session_closed(&b->session, first, "late", b->now_ns);
    iscsi_session_connected(&b->session, first, b->now_ns);
    iscsi_session_writable(&b->session, first, b->now_ns);
    assert_int_equal(b->session.counts.drops, 1);
    assert_int_equal(b->session.state, ISCSI_READY);
    b->stays = true;
    b->target.manners.hold = true;
    struct bench_command *c = bench_write(b, 0, 0, 8, 2);
    bench_settle(b);
    b->session.acknowledged = 0;
    iscsi_session_acknowledged(&b->session, first, UINT64_MAX - 1, b->now_ns);
    fake_target_release(&b->target, false);
    bench_settle(b);
    assert_int_equal(c->done_count, 0);
    iscsi_session_acknowledged(&b->session, b->connection, b->out_total, b->now_ns);
    good(c);
    /* Acknowledgements that come in another order do not take back what was acknowledged. */
    c = bench_write(b, 1, 0, 8, 3);
    bench_settle(b);
    iscsi_session_acknowledged(&b->session, b->connection, 5, b->now_ns);
    fake_target_release(&b->target, false);
    bench_settle(b);
    good(c);
    content(b);
    bench_free(b);
}

static void a_clock_that_goes_back(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->absent = true;
    bench_cut(b);
    bench_pass(b, SECOND);
    iscsi_session_tick(&b->session, b->now_ns - 500 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 0);
    assert_true(iscsi_session_deadline(&b->session) >= b->now_ns - SECOND);
    b->absent = false;
    bench_pass(b, 20 * SECOND);
    assert_int_equal(b->session.state, ISCSI_READY);
    bench_free(b);
}

/* An outage counts from its beginning, however long ago the last command was. */
static void an_idle_session_that_is_lost(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_pass(b, 100 * SECOND);
    b->absent = true;
    bench_cut(b);
    bench_pass(b, 59 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 0);
    bench_pass(b, 2 * SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 1);
    bench_free(b);
}

/* It sends and sends, but never answers our ping: alive is who answers. */
static void chatter_is_no_answer(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->target.manners.mute = true;
    bench_pass(b, 6 * SECOND);
    for (unsigned i = 0; i < 30 && !b->session.counts.drops; i++) {
        fake_target_ping(&b->target);
        bench_pass(b, SECOND);
    }
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "ping"));
    bench_free(b);
}

static void withdrawing_is_for_sessions_that_are_gone(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.window = 1;
    b->target.manners.hold = true;
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    struct bench_command *waits = NULL;
    for (unsigned i = 1; i < 4; i++)
        waits = bench_write(b, i, i, 1, 1);
    bench_settle(b);
    assert_false(waits->command.was_sent);
    assert_int_equal(iscsi_withdraw(&b->session, &waits->command), ERR_BUSY);
    b->target.manners.hold = false;
    fake_target_release(&b->target, false);
    assert_true(bench_run(b));
    good(waits);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_before_the_data_left),
        cmocka_unit_test(an_error_before_the_data_left),
        cmocka_unit_test(more_requests_than_agreed),
        cmocka_unit_test(data_in_too_many_places),
        cmocka_unit_test(odd_lengths),
        cmocka_unit_test(memory_that_is_gone),
        cmocka_unit_test(data_where_none_is_needed),
        cmocka_unit_test(as_many_pings_as_there_is_room_for),
        cmocka_unit_test(a_new_negotiation),
        cmocka_unit_test(an_answer_that_crosses_an_abort),
        cmocka_unit_test(a_reset_spares_what_came_after_it),
        cmocka_unit_test(answers_to_an_abort),
        cmocka_unit_test(sense_that_is_shorter_than_it_says),
        cmocka_unit_test(a_wait_has_an_end),
        cmocka_unit_test(the_wait_after_a_logout),
        cmocka_unit_test(calls_that_come_late),
        cmocka_unit_test(a_clock_that_goes_back),
        cmocka_unit_test(an_idle_session_that_is_lost),
        cmocka_unit_test(chatter_is_no_answer),
        cmocka_unit_test(withdrawing_is_for_sessions_that_are_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
