/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a session and its commands when things do not end as they should: connections that come and go
 * without any progress, logouts that drag on, windows that never open, data that overlap, aborts that are rejected,
 * logins at another portal group. What must hold: nothing waits for ever unseen, no command is done twice that must be
 * done once, and nothing is called complete that is not.
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

/* ---- Data in any order ---- */

static struct bench *any_order(void)
{
    struct bench *b = bench_new();
    b->wishes.values.data_pdu_in_order = b->wishes.values.data_sequence_in_order = 0;
    b->target.manners.want.data_pdu_in_order = b->target.manners.want.data_sequence_in_order = 0;
    b->target.manners.want.max_burst_bytes = 512;
    b->target.manners.want.first_burst_bytes = 512;
    b->target.manners.want.max_outstanding_r2t = 8;
    b->target.manners.want.immediate_data = 0;
    b->target.manners.want.initial_r2t = 1;
    b->target.manners.data_in_bytes = 512;
    return b;
}

static unsigned seen;
static bool told;

/* The second piece lies where the first one was: the sum of all is right, and there is a hole. */
static void overlap_in(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (!t->full || told || iscsi_opcode(bhs) != ISCSI_DATA_IN || seen++ != 1)
        return;
    told = true;
    be32_put(bhs->data_in.offset, 0);
}

static void data_in_that_overlaps(void **state)
{
    (void)state;
    seen = 0;
    told = false;
    struct bench *b = any_order();
    b->target.manners.mangle = overlap_in;
    memset(b->target.disk, 0x77, 4096);
    bench_start(b);
    struct bench_command *c = bench_read(b, 0, 0, 8);
    assert_true(bench_run(b));
    assert_true(told);
    assert_int_equal(b->session.counts.drops, 1);
    good(c);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(c->buffer[i], 0x77);
    bench_free(b);
}

static void overlap_out(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (!t->full || told || iscsi_opcode(bhs) != ISCSI_R2T || seen++ != 1)
        return;
    told = true;
    be32_put(bhs->r2t.offset, 0);
    for (unsigned i = 0; i < FAKE_TASKS; i++) /* the liar believes itself */
        if (t->task[i].active && t->task[i].itt == iscsi_itt(bhs))
            t->task[i].r2t[1].offset = 0;
}

static void requests_that_overlap(void **state)
{
    (void)state;
    seen = 0;
    told = false;
    struct bench *b = any_order();
    b->target.manners.mangle = overlap_out;
    bench_start(b);
    bench_write(b, 0, 0, 8, 3);
    assert_true(bench_run(b));
    assert_true(told);
    assert_int_equal(b->session.counts.drops, 1);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(b->target.disk[i], bench_byte(3, i));
    content(b);
    bench_free(b);
}

/* Pieces in any permutation are joined, whatever the order. */
static const uint8_t *order;
static void permute(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    if (!t->full || iscsi_opcode(bhs) != ISCSI_DATA_IN)
        return;
    unsigned piece = order[be32_get(bhs->data_in.offset) / 512];
    be32_put(bhs->data_in.offset, piece * 512);
    memcpy(data, t->disk + piece * 512, *bytes);
}

static void any_permutation(void **state)
{
    static const uint8_t orders[][6] = {
        { 0, 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1, 0 }, { 0, 2, 4, 1, 3, 5 }, { 1, 3, 5, 0, 2, 4 }, { 3, 0, 5, 2, 4, 1 },
        { 2, 3, 0, 1, 5, 4 }, { 5, 0, 4, 1, 3, 2 },
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(orders); i++) {
        struct bench *b = any_order();
        b->target.manners.mangle = permute;
        b->target.manners.status_apart = true;
        order = orders[i];
        for (unsigned k = 0; k < 3072; k++)
            b->target.disk[k] = bench_byte(9, k);
        bench_start(b);
        struct bench_command *c = bench_read(b, 0, 0, 6);
        assert_true(bench_run(b));
        good(c);
        assert_memory_equal(c->buffer, b->target.disk, 3072);
        assert_int_equal(b->session.counts.drops, 0);
        bench_free(b);
    }
}

/* ---- Windows ---- */

static uint32_t login_exp, login_max;
static void odd_window(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (!t->full && iscsi_opcode(bhs) == ISCSI_LOGIN_RESPONSE) {
        be32_put(bhs->login_response.exp_cmd_sn, login_exp);
        be32_put(bhs->login_response.max_cmd_sn, login_max);
    }
}

/* Numbers that make no sense are not taken, so that the next ones that do are not "older". */
static void a_login_with_an_odd_window(void **state)
{
    static const uint32_t odd[][2] = { { 1, 0x80000005 }, { 0x70000000, 0x70000010 }, { 0, 0 }, { 2, 0x7fffffff },
                                       { 0x90000000, 0x90000010 } };
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(odd); i++) {
        struct bench *b = bench_new();
        b->target.manners.mangle = odd_window;
        b->target.manners.window = 4;
        b->target.manners.hold = true;
        login_exp = odd[i][0];
        login_max = odd[i][1];
        bench_start(b);
        for (unsigned k = 0; k < 20; k++)
            bench_read(b, k, k, 1);
        bench_settle(b);
        assert_int_equal(b->target.commands, 0);
        fake_target_ping(&b->target);
        bench_settle(b);
        assert_int_equal(b->target.commands, 4);
        b->target.manners.hold = false;
        fake_target_release(&b->target, false);
        assert_true(bench_run(b));
        assert_int_equal(b->session.counts.drops, 0);
        bench_free(b);
    }
}

static void shut(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (t->full)
        be32_put(bhs->nop_in.max_cmd_sn, be32_get(bhs->nop_in.exp_cmd_sn) - 1);
}

static void a_window_that_stays_shut_is_told(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.mangle = shut;
    login_exp = 1;
    bench_start(b);
    bench_settle(b);
    for (unsigned i = 0; i < 16; i++) /* what the login allowed */
        bench_read(b, i, i, 1);
    bench_settle(b);
    unsigned before = b->target.commands;
    bench_read(b, 20, 0, 1);
    bench_read(b, 21, 0, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, before);
    assert_int_equal(b->session.state, ISCSI_READY);
    bench_pass(b, 100 * SECOND);
    assert_int_equal(b->session.counts.drops, 0);
    assert_int_equal(bench_events(b, ISCSI_EVENT_SLOW), 1);
    b->target.manners.mangle = NULL;
    fake_target_ping(&b->target);
    assert_true(bench_run(b));
    good(&b->command[20]);
    content(b);
    bench_free(b);
}

/* ---- The end of a session ---- */

static void message(struct bench *b, unsigned event, unsigned p2, unsigned p3)
{
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_ASYNC, ISCSI_FINAL, ISCSI_TAG_NONE);
    bhs.async.event = (uint8_t)event;
    iscsi_lun_encode(bhs.async.lun, 1);
    be16_put(bhs.async.parameter[1], (uint16_t)p2);
    be16_put(bhs.async.parameter[2], (uint16_t)p3);
    fake_target_send(&b->target, &bhs, NULL, 0, true);
}

/* After a Logout Request no other request goes out (11.14). The target judges that. */
static void nothing_follows_a_logout(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->settings.idle_ns = SECOND / 2;
    b->target.manners.mute = true;
    bench_start(b);
    bench_settle(b);
    iscsi_session_stop(&b->session, b->now_ns);
    bench_settle(b);
    assert_int_equal(b->target.logouts, 1);
    fake_target_ping(&b->target);
    message(b, ISCSI_ASYNC_NEGOTIATE, 0, 0);
    struct iscsi_task late = { .function = ISCSI_LOGICAL_UNIT_RESET };
    assert_int_equal(iscsi_task_submit(&b->session, &late, b->now_ns), ERR_BUSY);
    bench_pass(b, 6 * SECOND);
    assert_int_equal(b->session.state, ISCSI_IDLE);
    content(b);
    bench_free(b);
}

/* A target that gives us 18 hours to log out does not stop new commands for 9. */
static void a_logout_does_not_drag_on(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->target.manners.hold = true;
    bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    message(b, ISCSI_ASYNC_LOGOUT, 0, 65535);
    bench_settle(b);
    bench_write(b, 1, 1, 1, 2);
    b->target.manners.hold = false;
    bench_pass(b, 15 * SECOND);
    good(&b->command[0]);
    good(&b->command[1]);
    assert_int_equal(b->target.logouts, 1);
    assert_int_equal(b->target.logins, 2);
    content(b);
    bench_free(b);
}

/* ---- No progress is told ---- */

/* Each login succeeds, no command is ever answered: that is no usable session, however often it is READY. */
static void a_session_that_flaps_times_out(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    for (unsigned i = 0; i < 100; i++) {
        bench_pass(b, SECOND);
        bench_cut(b);
    }
    assert_true(b->session.counts.logins > 10);
    assert_true(bench_events(b, ISCSI_EVENT_TIMED_OUT) >= 1);
    bench_free(b);

    b = bench_new(); /* the same with answers in between is fine */
    bench_start(b);
    for (unsigned i = 0; i < 60; i++) {
        bench_write(b, i, 0, 1, 1);
        bench_pass(b, 6 * SECOND);
        good(&b->command[i]);
        bench_cut(b);
    }
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 0);
    bench_free(b);
}

static void logouts_instead_of_proofs_time_out(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->auto_resume = false;
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    for (unsigned i = 0; i < 120; i++) {
        bench_pass(b, SECOND);
        if (b->session.state == ISCSI_PROVING)
            message(b, ISCSI_ASYNC_LOGOUT, 0, 1);
    }
    assert_true(b->target.logouts > 5);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 1);
    bench_free(b);
}

/* ---- Commands ---- */

/* The request to abort is rejected; the command lives, and outlives the connection. */
static void reject_task(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    if (!t->full || iscsi_opcode(bhs) != ISCSI_TASK_RESPONSE)
        return;
    union iscsi_bhs ours;
    iscsi_bhs_init(&ours, ISCSI_TASK_REQUEST | ISCSI_IMMEDIATE, ISCSI_FINAL, iscsi_itt(bhs));
    memcpy(data, &ours, *bytes = sizeof(ours));
    be24_put(bhs->header.data_length, *bytes);
    bhs->header.opcode = ISCSI_REJECT;
    bhs->reject.reason = ISCSI_REJECT_TOO_MANY_IMMEDIATE;
    be32_put(bhs->header.itt, ISCSI_TAG_NONE);
}

static void no_word(struct iscsi_task *t)
{
    (void)t;
}

static void an_abort_that_is_rejected(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = b->target.manners.refuse_tasks = true;
    b->target.manners.mangle = reject_task;
    bench_start(b);
    struct bench_command *c = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    struct iscsi_task task = { .function = ISCSI_ABORT_TASK, .command = &c->command, .done = no_word };
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), OK);
    assert_int_equal(iscsi_task_submit(&b->session, &task, b->now_ns), ERR_BUSY); /* it is queued already */
    bench_settle(b);
    assert_int_equal(task.response, ISCSI_TASK_REJECTED);
    assert_int_equal(b->session.counts.drops, 0);
    assert_int_equal(c->done_count, 0);
    b->target.manners.hold = false;
    bench_cut(b);
    assert_true(bench_run(b));
    good(c);
    content(b);
    bench_free(b);
}

/* A probe is sent once, in READY as well: COMPARE AND WRITE and PERSISTENT RESERVE OUT must not be done twice. */
static void a_probe_is_not_sent_again(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->session.state, ISCSI_READY);
    b->probes = true;
    struct bench_command *c = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 1);
    bench_cut(b);
    assert_int_equal(c->command.outcome, ISCSI_LOST);
    b->target.manners.hold = false;
    bench_pass(b, 10 * SECOND);
    assert_int_equal(b->session.state, ISCSI_READY);
    assert_int_equal(b->target.commands, 1);
    assert_int_equal(c->done_count, 1);
    bench_free(b);
}

/* What may be sent is asked when it goes out, not only after a login: an epoch may end while the window is shut. */
static void an_epoch_that_ends_while_a_write_waits(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.window = 1;
    b->target.manners.hold = true;
    b->refuse_stale = true;
    b->epoch = 1;
    bench_start(b);
    for (unsigned i = 0; i < 3; i++)
        bench_write(b, i, i, 1, 1);
    bench_settle(b);
    assert_int_equal(b->target.commands, 1);
    b->epoch = 2;
    bench_write(b, 3, 3, 1, 1);
    b->target.manners.hold = false;
    fake_target_release(&b->target, false);
    assert_true(bench_run(b));
    good(&b->command[0]); /* it was sent while it might be */
    assert_int_equal(b->command[1].command.outcome, ISCSI_STALE);
    assert_int_equal(b->command[2].command.outcome, ISCSI_STALE);
    assert_false(b->command[1].command.was_sent);
    good(&b->command[3]);
    assert_int_equal(b->target.commands, 2);
    assert_int_equal(b->session.counts.drops, 0);
    content(b);
    bench_free(b);
}

/* What the target says it ended without being asked is begun anew, after the proof; it is no answer to anybody. */
static void tasks_that_the_target_ended(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.hold = true;
    bench_start(b);
    struct bench_command *c = bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    message(b, ISCSI_ASYNC_TASKS_TERMINATED, 0, 0);
    bench_settle(b);
    assert_int_equal(b->session.counts.drops, 1);
    assert_int_equal(c->done_count, 0);
    b->target.manners.hold = false;
    assert_true(bench_run(b));
    good(c);
    assert_int_equal(b->prove_calls, 2);
    content(b);
    bench_free(b);
}

/* The target's Time2Wait is kept after a connection that was lost, and after a logout. */
static void time_to_wait_is_kept(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.want.time2wait_s = 7;
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->target.logins, 1);
    bench_cut(b);
    bench_pass(b, 6 * SECOND + SECOND / 2);
    assert_int_equal(b->target.logins, 1);
    bench_pass(b, SECOND);
    assert_int_equal(b->target.logins, 2);
    bench_free(b);
}

/*
 * A login at the same portal group ends the session that was there, and its tasks; one at another does not, and the
 * proof is told so until it is done.
 */
static void another_portal_group(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->prove_code, ISCSI_PROVE_PLAIN);
    b->target.manners.hold = true;
    bench_write(b, 0, 0, 1, 1);
    bench_settle(b);
    bench_cut(b);
    bench_pass(b, SECOND); /* the same group */
    assert_int_equal(b->prove_calls, 2);
    assert_int_equal(b->prove_code, ISCSI_PROVE_PLAIN);
    b->auto_resume = false;
    b->target.manners.portal_group = 2;
    bench_cut(b);
    bench_pass(b, SECOND);
    assert_int_equal(b->prove_calls, 3);
    assert_int_equal(b->prove_code, ISCSI_PROVE_STRAYS);
    b->target.manners.hold = false; /* a probe there changes nothing about it, nor does the next login there */
    b->probes = true;
    good((bench_read(b, 1, 0, 1), bench_settle(b), &b->command[1]));
    b->probes = false;
    bench_cut(b);
    bench_pass(b, SECOND);
    assert_int_equal(b->prove_calls, 4);
    assert_int_equal(b->prove_code, ISCSI_PROVE_STRAYS);
    iscsi_session_resume(&b->session, b->now_ns);
    assert_true(bench_run(b));
    good(&b->command[0]);
    b->target.manners.portal_group = 1; /* nothing under way: it does not matter where */
    bench_cut(b);
    bench_pass(b, 10 * SECOND);
    assert_int_equal(b->prove_calls, 5);
    assert_int_equal(b->prove_code, ISCSI_PROVE_PLAIN);
    content(b);
    bench_free(b);
}

/* What is not whole is not called so, whatever the status. */
static void completeness(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    struct bench_command *r = bench_read(b, 0, 0, 100), *w = bench_write(b, 1, 0, 300, 1);
    struct bench_command *beyond = bench_read(b, 2, 9999, 1);
    assert_true(bench_run(b));
    assert_true(r->command.complete && w->command.complete);
    assert_false(beyond->command.complete);
    r = bench_read(b, 3, 0, 1);
    assert_true(bench_run(b));
    r->done_count = 0;
    r->command.cdb[0] = 0x12; /* an INQUIRY: 36 of 512 bytes, GOOD */
    assert_int_equal(iscsi_submit(&b->session, &r->command, b->now_ns), OK);
    assert_true(bench_run(b));
    good(r);
    assert_false(r->command.complete);
    content(b);
    bench_free(b);
}

/* ---- Text ---- */

/* More names than fit into one answer of a login's size all arrive. */
static void a_long_discovery(void **state)
{
    static char targets[64 * 1024];
    size_t n = 0;
    (void)state;
    for (unsigned i = 0; i < 150; i++) {
        n += (size_t)snprintf(targets + n, sizeof(targets) - n, "TargetName=iqn.2026-11.example:%0180u", i);
        targets[n++] = 0;
    }
    assert_true(n > 30000);
    struct bench *b = bench_new();
    b->settings.login.discovery = true;
    b->target.manners.targets = targets;
    b->target.manners.targets_bytes = n;
    bench_start(b);
    bench_settle(b);
    assert_int_equal(bench_events(b, ISCSI_EVENT_TARGET), 150);
    assert_int_equal(bench_events(b, ISCSI_EVENT_STOPPED), 1);
    assert_int_equal(b->session.counts.drops, 0);
    content(b);
    bench_free(b);
}

/* The addresses of a target whose name is none are not given to the one before it. */
static void a_name_that_is_none(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetName=not a name\0TargetAddress=10.0.0.66:3260,1\0"
                                  "TargetName=iqn.2026-11.example:b\0TargetAddress=10.0.0.7:3260,1";
    (void)state;
    struct bench *b = bench_new();
    b->settings.login.discovery = true;
    b->target.manners.targets = targets;
    b->target.manners.targets_bytes = sizeof(targets);
    bench_start(b);
    bench_settle(b);
    assert_string_equal(b->found, "[iqn.2026-11.example:a]10.0.0.5:3260,1;[iqn.2026-11.example:b]10.0.0.7:3260,1;");
    bench_free(b);
}

/* What a target says goes to an admin's terminal: no byte of it may steer that. */
static void words_are_printable(void **state)
{
    static const char extra[] = "X=\x1b[2J\0ErrorRecoveryLevel=\x1b]0;evil\x07\n";
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.login_extra = extra;
    b->target.manners.login_extra_bytes = sizeof(extra);
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "came twice"));
    bench_free(b);
    b = bench_new();
    static const char other[] = "iSCSIProtocolLevel=\x1b]0;evil\x07\n\xff";
    b->target.manners.login_extra = other;
    b->target.manners.login_extra_bytes = sizeof(other);
    bench_start(b);
    bench_settle(b);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "iSCSIProtocolLevel=.]0;evil..."));
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_in_that_overlaps),
        cmocka_unit_test(requests_that_overlap),
        cmocka_unit_test(any_permutation),
        cmocka_unit_test(a_login_with_an_odd_window),
        cmocka_unit_test(a_window_that_stays_shut_is_told),
        cmocka_unit_test(nothing_follows_a_logout),
        cmocka_unit_test(a_logout_does_not_drag_on),
        cmocka_unit_test(a_session_that_flaps_times_out),
        cmocka_unit_test(logouts_instead_of_proofs_time_out),
        cmocka_unit_test(an_abort_that_is_rejected),
        cmocka_unit_test(a_probe_is_not_sent_again),
        cmocka_unit_test(an_epoch_that_ends_while_a_write_waits),
        cmocka_unit_test(tasks_that_the_target_ended),
        cmocka_unit_test(time_to_wait_is_kept),
        cmocka_unit_test(another_portal_group),
        cmocka_unit_test(completeness),
        cmocka_unit_test(a_long_discovery),
        cmocka_unit_test(a_name_that_is_none),
        cmocka_unit_test(words_are_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
