/* SPDX-License-Identifier: MIT */
/*
 * A session against a target, or a network, that means no good: connections that end at every byte of a conversation,
 * bytes that are flipped anywhere, answers with wrong tags, numbers, lengths and residuals, answers twice, floods,
 * messages of every kind. What must hold: commands end once and right or wait for the next connection, no byte lands
 * outside of a command's buffer or after its end (the bench aborts), and every drop has words.
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

/* A conversation with everything in it; small, as it is done once for each of its bytes. */
static struct bench *conversation(void)
{
    struct bench *b = bench_new();
    b->target.manners.want.first_burst_bytes = 1024;
    b->target.manners.want.max_recv_bytes = 600;
    b->target.manners.want.max_burst_bytes = 2048;
    b->target.manners.data_in_bytes = 900;
    b->target.manners.status_apart = true;
    return b;
}

static void hold_conversation(struct bench *b)
{
    bench_start(b);
    bench_write(b, 0, 5, 7, 0x41);
    bench_write(b, 1, 20, 2, 0x42);
    bench_read(b, 2, 100, 3);
    assert_true(bench_run(b));
    bench_read(b, 3, 5, 7);
    assert_true(bench_run(b));
    for (unsigned i = 0; i < 4; i++)
        good(&b->command[i]);
    for (uint32_t i = 0; i < 7 * 512; i++) {
        assert_int_equal(b->target.disk[5 * 512 + i], bench_byte(0x41, i));
        assert_int_equal(b->command[3].buffer[i], bench_byte(0x41, i));
    }
    for (uint32_t i = 0; i < 2 * 512; i++)
        assert_int_equal(b->target.disk[20 * 512 + i], bench_byte(0x42, i));
    if (b->target.complaints)
        print_error("the target: %s\n", b->target.complaint);
    assert_int_equal(b->target.complaints, 0);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    struct bench *b = conversation();
    hold_conversation(b);
    uint64_t in = b->in_total, out = b->out_total;
    bench_free(b);
    assert_true(in > 5000 && out > 4000);
    for (uint64_t at = 1; at <= in; at++) {
        b = conversation();
        b->cut_in = at;
        hold_conversation(b);
        assert_int_equal(b->session.counts.drops, 1);
        assert_int_equal(bench_events(b, ISCSI_EVENT_DOWN), 1);
        bench_free(b);
    }
    for (uint64_t at = 1; at <= out; at++) {
        b = conversation();
        b->cut_out = at;
        b->room = 100; /* the session is in the middle of a PDU when it ends */
        hold_conversation(b);
        assert_int_equal(b->session.counts.drops, 1);
        bench_free(b);
    }
}

/* With digests on, no flipped bit of the full feature phase gets through: each is a drop, and then all is well. */
static void flip_every_byte(void **state)
{
    (void)state;
    struct bench *b = conversation();
    b->wishes.header_digest = b->wishes.data_digest = ISCSI_DIGEST_REQUIRED;
    bench_start(b);
    bench_settle(b);
    uint64_t login = b->in_total;
    bench_free(b);
    b = conversation();
    hold_conversation(b);
    uint64_t in = b->in_total;
    bench_free(b);
    for (uint64_t at = login + 1; at <= in; at++) {
        b = conversation();
        b->wishes.header_digest = b->wishes.data_digest = ISCSI_DIGEST_REQUIRED;
        b->flip_in = at;
        hold_conversation(b);
        assert_int_equal(b->session.counts.drops, 1);
        bench_free(b);
    }
    /* The login has no digests: it may come to another result, but never to a crash or a hang. */
    for (uint64_t at = 1; at <= login; at++) {
        b = conversation();
        b->flip_in = at;
        bench_start(b);
        bench_write(b, 0, 5, 7, 0x41);
        bench_pass(b, 30 * SECOND);
        iscsi_session_stop(&b->session, b->now_ns);
        bench_pass(b, 30 * SECOND);
        assert_int_equal(b->command[0].done_count, 1);
        bench_free(b);
    }
}

/* ---- Wrong answers ---- */

struct lie {
    const char *name;
    unsigned opcode;      /* to which kind of PDU it is done */
    unsigned skip;        /* not to the first so many */
    void (*change)(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes);
    const char *words;    /* part of what is said */
};

static const struct lie *lie;
static unsigned lie_left;
static bool lie_told;

static void mangle(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    if (!t->full || lie_told || iscsi_opcode(bhs) != lie->opcode || lie_left--)
        return;
    lie_told = true;
    lie->change(t, bhs, data, bytes);
}

#define CHANGE(name, ...) \
    static void name(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes) \
    { \
        (void)t, (void)bhs, (void)data, (void)bytes; \
        __VA_ARGS__; \
    }
CHANGE(wrong_tag, be32_put(bhs->header.itt, 0x12345678))
CHANGE(old_tag, be32_put(bhs->header.itt, iscsi_itt(bhs) - 32))
CHANGE(own_tag_range, be32_put(bhs->header.itt, 0x80000003))
CHANGE(no_tag, be32_put(bhs->header.itt, ISCSI_TAG_NONE))
CHANGE(stat_sn_ahead, be32_put(bhs->response.stat_sn, be32_get(bhs->response.stat_sn) + 1))
CHANGE(stat_sn_behind, be32_put(bhs->response.stat_sn, be32_get(bhs->response.stat_sn) - 1))
CHANGE(data_sn_ahead, be32_put(bhs->data_in.data_sn, be32_get(bhs->data_in.data_sn) + 1))
CHANGE(offset_outside, be32_put(bhs->data_in.offset, 0x7ffffff0))
CHANGE(offset_wraps, be32_put(bhs->data_in.offset, 0xfffffffc))
CHANGE(offset_moved, be32_put(bhs->data_in.offset, be32_get(bhs->data_in.offset) + 4))
CHANGE(data_for_a_write, be32_put(bhs->header.itt, t->test ? *(uint32_t *)t->test : 1))
CHANGE(length_huge, be24_put(bhs->header.data_length, 0xffffff))
CHANGE(status_without_final, bhs->data_in.flags = ISCSI_DATA_STATUS)
CHANGE(early_status, bhs->data_in.flags |= ISCSI_DATA_STATUS | ISCSI_FINAL)
CHANGE(both_residuals, bhs->response.flags |= ISCSI_RESIDUAL_OVERFLOW | ISCSI_RESIDUAL_UNDERFLOW)
CHANGE(residual_beyond, bhs->response.flags |= ISCSI_RESIDUAL_UNDERFLOW; be32_put(bhs->response.residual, 0xffffffff))
CHANGE(r2t_nothing, be32_put(bhs->r2t.desired_length, 0))
CHANGE(r2t_much, be32_put(bhs->r2t.desired_length, 4096))
CHANGE(r2t_outside, be32_put(bhs->r2t.offset, 1000000))
CHANGE(r2t_wraps, be32_put(bhs->r2t.offset, 0xfffffe00))
CHANGE(r2t_skips, be32_put(bhs->r2t.offset, be32_get(bhs->r2t.offset) + 512))
CHANGE(r2t_no_tag, be32_put(bhs->r2t.ttt, ISCSI_TAG_NONE))
CHANGE(r2t_sn, be32_put(bhs->r2t.r2t_sn, 7))
CHANGE(opcode_unknown, bhs->header.opcode = 0x2f)
CHANGE(opcode_ours, bhs->header.opcode = ISCSI_SCSI_COMMAND)
CHANGE(opcode_login, bhs->header.opcode = ISCSI_LOGIN_RESPONSE)
CHANGE(opcode_task, bhs->header.opcode = ISCSI_TASK_RESPONSE)
CHANGE(opcode_text, bhs->header.opcode = ISCSI_TEXT_RESPONSE)
CHANGE(opcode_logout, bhs->header.opcode = ISCSI_LOGOUT_RESPONSE)
CHANGE(opcode_nop, bhs->header.opcode = ISCSI_NOP_IN)
CHANGE(opcode_reject, bhs->header.opcode = ISCSI_REJECT)
CHANGE(answer_early, bhs->header.opcode = ISCSI_SCSI_RESPONSE; t->stat_sn++; memset(bhs->bytes + 36, 0, 12))

static const struct lie lies[] = {
    { "response: unknown tag", ISCSI_SCSI_RESPONSE, 0, wrong_tag, "not in use" },
    { "response: tag of an earlier use", ISCSI_SCSI_RESPONSE, 0, old_tag, "not in use" },
    { "response: tag of a ping", ISCSI_SCSI_RESPONSE, 0, own_tag_range, "not in use" },
    { "response: reserved tag", ISCSI_SCSI_RESPONSE, 1, no_tag, "not in use" },
    { "response: StatSN ahead", ISCSI_SCSI_RESPONSE, 0, stat_sn_ahead, "StatSN" },
    { "response: StatSN behind", ISCSI_SCSI_RESPONSE, 1, stat_sn_behind, "StatSN" },
    { "response: both residuals", ISCSI_SCSI_RESPONSE, 0, both_residuals, "overflow and an underflow" },
    { "response: residual too large", ISCSI_SCSI_RESPONSE, 0, residual_beyond, "residual" },
    { "data: unknown tag", ISCSI_DATA_IN, 0, wrong_tag, "not in use" },
    { "data: for a write", ISCSI_DATA_IN, 0, data_for_a_write, "reads 0 bytes" },
    { "data: DataSN", ISCSI_DATA_IN, 1, data_sn_ahead, "DataSN" },
    { "data: outside", ISCSI_DATA_IN, 0, offset_outside, "reads" },
    { "data: offset wraps", ISCSI_DATA_IN, 0, offset_wraps, "reads" },
    { "data: elsewhere", ISCSI_DATA_IN, 0, offset_moved, "offset" },
    { "data: length", ISCSI_DATA_IN, 0, length_huge, "agreed" },
    { "data: status without F", ISCSI_DATA_IN, 0, status_without_final, "no F bit" },
    { "data: good too early", ISCSI_DATA_IN, 0, early_status, "" },
    { "R2T: nothing", ISCSI_R2T, 0, r2t_nothing, "asked for 0" },
    { "R2T: beyond MaxBurstLength", ISCSI_R2T, 0, r2t_much, "MaxBurstLength" },
    { "R2T: outside", ISCSI_R2T, 0, r2t_outside, "writes" },
    { "R2T: offset wraps", ISCSI_R2T, 0, r2t_wraps, "writes" },
    { "R2T: leaves a hole", ISCSI_R2T, 0, r2t_skips, "due" },
    { "R2T: no tag", ISCSI_R2T, 0, r2t_no_tag, "tag" },
    { "R2T: number", ISCSI_R2T, 0, r2t_sn, "R2TSN" },
    { "R2T: unknown tag", ISCSI_R2T, 0, wrong_tag, "not in use" },
    { "GOOD before the data were taken", ISCSI_R2T, 0, answer_early, "GOOD after" },
    { "an unknown PDU", ISCSI_SCSI_RESPONSE, 0, opcode_unknown, "no place" },
    { "a command", ISCSI_SCSI_RESPONSE, 0, opcode_ours, "no place" },
    { "a login response", ISCSI_SCSI_RESPONSE, 0, opcode_login, "no place" },
    { "a task response", ISCSI_SCSI_RESPONSE, 0, opcode_task, "not made" },
    { "a text response", ISCSI_SCSI_RESPONSE, 0, opcode_text, "not made" },
    { "a logout response", ISCSI_SCSI_RESPONSE, 0, opcode_logout, "not asked" },
    { "an answer to no ping", ISCSI_SCSI_RESPONSE, 0, opcode_nop, "ping" },
    { "a reject of nothing", ISCSI_SCSI_RESPONSE, 0, opcode_reject, "rejected" },
};

static void lies_are_found_out(void **state)
{
    (void)state;
    uint32_t first_itt = 32; /* the first use of slot 0: a write */
    for (unsigned digests = 0; digests < 2; digests++)
        for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
            struct bench *b = conversation();
            b->wishes.header_digest = b->wishes.data_digest = digests ? ISCSI_DIGEST_PREFERRED : ISCSI_DIGEST_OFF;
            lie = &lies[i];
            lie_left = lie->skip;
            lie_told = false;
            b->target.manners.mangle = mangle;
            b->target.test = &first_itt;
            hold_conversation(b);
            assert_true(lie_told);
            if (!b->session.counts.drops || (*lie->words && !strstr(b->text, lie->words)))
                print_error("%s: %s\n", lie->name, b->text);
            assert_int_equal(b->session.counts.drops, 1);
            assert_non_null(strstr(b->text, lie->words));
            assert_non_null(strstr(b->text, "iqn.2026-11.example:lun at 10.0.0.5:3260: "));
            bench_free(b);
        }
}

/* Every PDU of the target's twice in a row: at most a drop each time, never a command that is done twice. */
static unsigned repeat_at, repeat_seen;
static void repeat(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    static bool inside;
    if (inside || !t->full || repeat_seen++ != repeat_at)
        return;
    inside = true;
    union iscsi_bhs copy = *bhs;
    uint8_t *copy_data = malloc(*bytes + 1);
    uint32_t stat_sn = t->stat_sn, count = *bytes;
    memcpy(copy_data, data, *bytes);
    fake_target_send(t, &copy, copy_data, count, false);
    t->stat_sn = stat_sn;
    memcpy(data, copy_data, count);
    free(copy_data);
    inside = false;
}

static void repetitions(void **state)
{
    (void)state;
    for (repeat_at = 0; repeat_at < 20; repeat_at++) {
        struct bench *b = conversation();
        repeat_seen = 0;
        b->target.manners.mangle = repeat;
        hold_conversation(b);
        assert_in_range(b->session.counts.drops, 0, 1);
        bench_free(b);
    }
}

/*
 * Each PDU of the target's lost, or sent after the one that follows it. What leaves a gap in the numbers is found out by
 * itself. A lost R2T leaves none: the command is told as slow, and its owner (net/scsi/scsi_recover.c) ends the connection.
 */
static void lost_and_swapped(void **state)
{
    unsigned slow = 0, drops = 0;
    (void)state;
    for (unsigned swap = 0; swap < 2; swap++)
        for (unsigned at = 1; at <= 30; at++) {
            struct bench *b = conversation();
            b->target.manners.trouble = swap ? FAKE_SWAP : FAKE_LOSE;
            b->target.manners.trouble_at = at;
            bench_start(b);
            bench_write(b, 0, 5, 7, 0x41);
            bench_read(b, 1, 100, 3);
            if (!bench_run(b)) {
                slow++;
                assert_int_equal(bench_events(b, ISCSI_EVENT_SLOW), 1);
                assert_int_equal(b->session.counts.drops, 0);
                iscsi_session_drop(&b->session, "no answer", b->now_ns);
                assert_true(bench_run(b));
            }
            bench_read(b, 2, 5, 7);
            if (!bench_run(b)) { /* the trouble may come as late as here */
                iscsi_session_drop(&b->session, "no answer", b->now_ns);
                assert_true(bench_run(b));
            }
            for (unsigned i = 0; i < 3; i++)
                good(&b->command[i]);
            for (uint32_t i = 0; i < 7 * 512; i++)
                assert_int_equal(b->command[2].buffer[i], bench_byte(0x41, i));
            assert_in_range(b->session.counts.drops, 0, 1);
            assert_int_equal(b->target.complaints, 0);
            drops += b->session.counts.drops;
            bench_free(b);
        }
    assert_true(slow >= 1 && drops >= 20);
}

/* The stream stands still after any of its bytes: for 3 s, which costs nothing, and for 60 s, which costs the connection. */
static void a_stall_at_every_byte(void **state)
{
    (void)state;
    struct bench *b = conversation();
    hold_conversation(b);
    uint64_t in = b->in_total;
    bench_free(b);
    for (unsigned longer = 0; longer < 2; longer++)
        for (uint64_t at = 1; at < in; at += longer ? 7 : 3) {
            b = conversation();
            b->stall_in = at;
            b->stall_ns = (longer ? 60 : 3) * SECOND;
            hold_conversation(b);
            assert_int_equal(b->stall_in, 0);
            assert_int_equal(b->session.counts.drops, longer);
            assert_int_equal(bench_events(b, ISCSI_EVENT_TIMED_OUT), 0);
            bench_free(b);
        }
}

/* Random changes of any byte of any PDU, with digests that are right. */
static uint32_t seed;
static uint32_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}
static void scramble(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (t->full && t->pdus_out < 60 && next_random() % 4 == 0)
        bhs->bytes[next_random() % 48] ^= (uint8_t)(1u << next_random() % 8);
}

static void scrambled_headers(void **state)
{
    (void)state;
    for (uint32_t run = 1; run < 2000; run++) {
        struct bench *b = conversation();
        seed = run * 2654435761u;
        b->target.manners.mangle = scramble;
        bench_start(b);
        for (unsigned i = 0; i < 6; i++)
            i % 2 ? bench_read(b, i, i * 3, 5) : bench_write(b, i, i * 8, 5, 7);
        bench_pass(b, 100 * SECOND);
        iscsi_session_stop(&b->session, b->now_ns);
        bench_pass(b, 20 * SECOND);
        for (unsigned i = 0; i < 6; i++)
            assert_int_equal(b->command[i].done_count, 1);
        assert_int_equal(b->session.state, ISCSI_IDLE);
        bench_free(b);
    }
}

/* ---- Messages ---- */

static void send_async(struct bench *b, unsigned event, unsigned p1, unsigned p2, unsigned p3)
{
    union iscsi_bhs bhs;
    static const uint8_t sense[20] = { 0, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 9 };
    iscsi_bhs_init(&bhs, ISCSI_ASYNC, ISCSI_FINAL, ISCSI_TAG_NONE);
    bhs.async.event = (uint8_t)event;
    iscsi_lun_encode(bhs.async.lun, 1);
    be16_put(bhs.async.parameter[0], (uint16_t)p1);
    be16_put(bhs.async.parameter[1], (uint16_t)p2);
    be16_put(bhs.async.parameter[2], (uint16_t)p3);
    fake_target_send(&b->target, &bhs, sense, event ? 0 : sizeof(sense), true);
}

static void asynchronous_messages(void **state)
{
    (void)state;
    for (unsigned event = 0; event < 8; event++) {
        struct bench *b = bench_new();
        b->target.manners.targets = "";
        bench_start(b);
        bench_settle(b);
        b->target.manners.hold = true;
        bench_write(b, 0, 0, 1, 1);
        bench_settle(b);
        unsigned code = event == 7 ? ISCSI_ASYNC_VENDOR : event;
        send_async(b, code, 0, 3, 4);
        bench_settle(b);
        assert_int_equal(bench_events(b, ISCSI_EVENT_ASYNC), 1);
        assert_int_equal(b->async_code, code);
        b->target.manners.hold = false;
        switch (code) {
        case ISCSI_ASYNC_LOGOUT: /* waits for the answer under way, logs out, comes back */
            assert_int_equal(b->session.state, ISCSI_LEAVING);
            bench_write(b, 1, 1, 1, 2);
            bench_settle(b);
            assert_int_equal(b->target.commands, 1);
            fake_target_release(&b->target, false);
            bench_settle(b);
            assert_int_equal(b->target.logouts, 1);
            assert_true(bench_run(b));
            good(&b->command[0]);
            good(&b->command[1]);
            assert_int_equal(b->target.logins, 2);
            break;
        case ISCSI_ASYNC_DROP_CONNECTION:
        case ISCSI_ASYNC_DROP_SESSION: /* not before three seconds */
            assert_int_equal(b->session.state, ISCSI_WAITING);
            bench_pass(b, 2 * SECOND);
            assert_int_equal(b->target.logins, 1);
            assert_true(bench_run(b));
            good(&b->command[0]);
            break;
        case ISCSI_ASYNC_TASKS_TERMINATED: /* was not agreed: all begins anew */
            assert_int_equal(b->session.counts.drops, 1);
            assert_true(bench_run(b));
            good(&b->command[0]);
            break;
        default:
            fake_target_release(&b->target, false);
            assert_true(bench_run(b));
            good(&b->command[0]);
            assert_int_equal(b->session.counts.drops, 0);
        }
        assert_int_equal(b->target.complaints, 0);
        bench_free(b);
    }
}

static void rejected(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    if (!t->full || iscsi_opcode(bhs) != ISCSI_SCSI_RESPONSE)
        return;
    union iscsi_bhs ours;
    iscsi_bhs_init(&ours, ISCSI_SCSI_COMMAND, ISCSI_FINAL, iscsi_itt(bhs));
    memcpy(data, &ours, *bytes = sizeof(ours));
    be24_put(bhs->header.data_length, *bytes);
    bhs->header.opcode = ISCSI_REJECT;
    bhs->reject.reason = ISCSI_REJECT_UNSUPPORTED;
    be32_put(bhs->header.itt, ISCSI_TAG_NONE);
}

static void what_is_always_rejected_ends(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.mangle = rejected;
    bench_start(b);
    bench_write(b, 0, 0, 1, 1);
    bench_read(b, 1, 0, 1);
    assert_true(bench_run(b));
    assert_int_equal(b->command[0].command.outcome, ISCSI_REFUSED);
    good(&b->command[1]);
    assert_int_equal(b->session.counts.drops, 3);
    assert_non_null(strstr(b->text, "not supported"));
    bench_free(b);
}

static void a_flood_of_pings(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->freeze_out = true;
    b->room = 0;
    for (unsigned i = 0; i < 100; i++)
        fake_target_ping(&b->target);
    bench_settle(b);
    assert_int_equal(b->session.counts.drops, 1);
    assert_non_null(strstr(b->text, "pings"));
    bench_free(b);
}

/* The other end takes nothing: a stuck connection is found out although our ping cannot leave. */
static void a_peer_that_takes_nothing(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->freeze_out = true;
    b->room = 1000;
    bench_write(b, 0, 0, 100, 1);
    bench_pass(b, 10 * SECOND + SECOND / 20);
    assert_int_equal(b->session.counts.drops, 1);
    b->freeze_out = false;
    b->room = FAKE_STREAM_BYTES;
    assert_true(bench_run(b));
    good(&b->command[0]);
    bench_free(b);
}

/* Bytes that are referred to stay the session's until the peer has them, although the answer is there. */
static void referred_bytes_stay(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    bench_start(b);
    bench_settle(b);
    b->stays = true;
    bench_write(b, 0, 0, 8, 1);
    bench_settle(b);
    good(&b->command[0]);
    b->target.manners.hold = true;
    struct bench_command *c = bench_write(b, 1, 0, 8, 2);
    bench_settle(b);
    b->session.acknowledged = 0; /* as if the acknowledgements were late */
    fake_target_release(&b->target, false);
    bench_settle(b);
    uint32_t connection = b->connection;
    assert_int_equal(c->command.status, 0);
    iscsi_session_acknowledged(&b->session, connection, 5, b->now_ns);
    assert_int_equal(c->done_count, 0);
    iscsi_session_acknowledged(&b->session, connection, b->out_total, b->now_ns);
    good(c);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(flip_every_byte),
        cmocka_unit_test(lies_are_found_out),
        cmocka_unit_test(repetitions),
        cmocka_unit_test(lost_and_swapped),
        cmocka_unit_test(a_stall_at_every_byte),
        cmocka_unit_test(scrambled_headers),
        cmocka_unit_test(asynchronous_messages),
        cmocka_unit_test(what_is_always_rejected_ends),
        cmocka_unit_test(a_flood_of_pings),
        cmocka_unit_test(a_peer_that_takes_nothing),
        cmocka_unit_test(referred_bytes_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
