/* SPDX-License-Identifier: MIT */
/*
 * A disk whose unit this node has reserved, above a session with the target in memory and a unit with persistent
 * reservations: orders over the session, the proof after each login, and what becomes of requests. Guarded: nothing that was
 * queued goes out unproven; a node that was fenced, noticed at once or after it was away, tries not one write, ends its
 * requests as fenced, and says so once; what a target forgets is there again only where nobody else has come.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fake_target.h"
#include "fake_unit.h"
#include "net/scsi/scsi_disk.h"

#define SECOND UINT64_C(1000000000)
#define RO SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS
#define KEY_A UINT64_C(0xaaaaaaaa11110001)
#define KEY_A2 UINT64_C(0xaaaaaaaa11110002) /* the same life, on another path */
#define KEY_B UINT64_C(0xbbbbbbbb11110001)
#define RECORD 16u /* block of the epoch */
#define DATA 40u
#define WRITES 70u /* more than there are commands */

struct request {
    struct disk_request r;
    uint8_t value;
    unsigned done_count;
    enum status status;
};

static struct {
    struct bench *bench;
    struct scsi_disk disk;
    struct iscsi_ops ops;
    const struct iscsi_ops *bench_ops;
    struct fake_unit unit;
    unsigned nexus;              /* that the node is to the unit */
    unsigned ambush;             /* another one takes the unit over before this command, counted from 1; 0: never */
    bool ambush_goes;            /* ... and has gone before it is executed */
    struct scsi_claim claim;
    struct scsi_talk talk;
    struct scsi_reserve order;
    uint8_t buffer[SCSI_RESERVE_ROOM];
    bool over, lost;
    struct request request[WRITES + 10];
    unsigned count, proofs, drops, fences;
    char why[300], dropped[300];
} t;

/* ---- The unit ---- */

static void takeover(uint64_t victim, bool goes);

static void scsi(struct fake_target *target, struct fake_task *task)
{
    static uint8_t in[FAKE_DISK_BYTES];
    uint8_t data[64] = { 0, 0, 6, 2, 31 }, sense[18];
    uint32_t bytes;
    bool reads = task->flags & ISCSI_COMMAND_READ;

    switch (task->cdb[0]) {
    case 0x12:
        memcpy(data + 8, "FAKE    UNIT            0001", 28);
        if (task->cdb[1] & 1)
            fake_target_status(target, task, 2, (uint8_t[18]){ 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24 });
        else
            fake_target_data(target, task, data, 36);
        return;
    case 0x9e:
        memset(data, 0, sizeof data);
        be64_put(data, 127);
        be32_put(data + 8, 512);
        fake_target_data(target, task, data, 32);
        return;
    case 0x1a:
        fake_target_data(target, task, (uint8_t[]){ 3, 0, 0x10, 0 }, 4);
        return;
    default:
        break;
    }
    if (t.ambush && !--t.ambush)
        takeover(KEY_A, t.ambush_goes);
    unsigned status = fake_unit_execute(&t.unit, t.nexus, task->cdb, task->data, reads ? 0 : task->expected, in,
                                        reads ? task->expected : 0, &bytes, sense);
    if (!status && reads)
        fake_target_data(target, task, in, bytes);
    else
        fake_target_status(target, task, (uint8_t)status, status == 2 ? sense : NULL);
}

static void by_another(enum scsi_pr_out_action action, uint64_t key, uint64_t action_key)
{
    struct scsi_cdb cdb;
    uint8_t list[SCSI_PR_OUT_BYTES], sense[18];
    uint32_t bytes;

    scsi_persistent_reserve_out(&cdb, action, RO, SCSI_PR_OUT_BYTES);
    scsi_pr_out_list(list, key, action_key, false);
    assert_int_equal(fake_unit_execute(&t.unit, 3, cdb.bytes, list, 24, NULL, 0, &bytes, sense), SCSI_GOOD);
}

/* Another node takes the unit, writes its epoch, and goes again if it is to. */
static void takeover(uint64_t victim, bool goes)
{
    by_another(SCSI_PR_REGISTER, 0, KEY_B);
    by_another(SCSI_PR_PREEMPT_AND_ABORT, KEY_B, victim);
    if (t.unit.key[1] == KEY_A2) /* it was about to move to another path */
        by_another(SCSI_PR_PREEMPT_AND_ABORT, KEY_B, KEY_A2);
    be64_put(t.bench->target.disk + RECORD * 512, 6);
    memset(t.bench->target.disk + DATA * 512, 0x99, (128 - DATA) * 512);
    if (goes)
        by_another(SCSI_PR_REGISTER, KEY_B, 0);
}

/* ---- The owner ---- */

static void on_event(void *context, const struct iscsi_event *event)
{
    t.bench_ops->event(context, event);
    if (event->kind == ISCSI_EVENT_PROVE)
        scsi_disk_prove(&t.disk, event->code == ISCSI_PROVE_STRAYS, t.bench->now_ns);
    if (event->kind == ISCSI_EVENT_READY)
        scsi_disk_ready(&t.disk, t.bench->now_ns);
}

static bool may_send(void *context, const struct iscsi_command *command)
{
    (void)context;
    return scsi_disk_may_send(command);
}

static void proved(void *context)
{
    (void)context;
    t.proofs++;
    iscsi_session_resume(&t.bench->session, t.bench->now_ns);
}

static void drop(void *context, const char *why)
{
    (void)context;
    t.drops++;
    snprintf(t.dropped, sizeof t.dropped, "%s", why);
    iscsi_session_drop(&t.bench->session, t.dropped, t.bench->now_ns);
}

static void news(void *context, unsigned what, const char *text)
{
    (void)context, (void)what, (void)text;
}

static void fenced(void *context, const char *why)
{
    (void)context;
    t.fences++;
    snprintf(t.why, sizeof t.why, "%s", why);
    for (unsigned i = 0; i < t.count; i++) /* told before the requests are ended */
        assert_true(!t.request[i].done_count || t.request[i].status == OK);
}

static const struct scsi_disk_ops disk_ops = { .proved = proved, .drop = drop, .news = news, .fenced = fenced };

static void pass(uint64_t ns)
{
    for (uint64_t end = t.bench->now_ns + ns; t.bench->now_ns < end;) {
        bench_settle(t.bench);
        uint64_t next = MIN(MIN(scsi_disk_deadline(&t.disk), iscsi_session_deadline(&t.bench->session)), end);
        t.bench->now_ns = MAX(t.bench->now_ns, MIN(next, scsi_talk_deadline(&t.talk)));
        iscsi_session_tick(&t.bench->session, t.bench->now_ns);
        scsi_disk_tick(&t.disk, t.bench->now_ns);
        scsi_talk_tick(&t.talk, t.bench->now_ns);
    }
    bench_settle(t.bench);
}

static bool get(struct disk_request *r, uint64_t at, void *bytes, uint32_t count)
{
    struct request *request = r->owner;
    (void)at;
    assert_int_equal(request->done_count, 0);
    memset(bytes, request->value, count);
    return true;
}

static bool put(struct disk_request *r, uint64_t at, const void *bytes, uint32_t count)
{
    (void)r, (void)at, (void)bytes, (void)count;
    return true;
}

static void done(struct disk_request *r, enum status status)
{
    struct request *request = r->owner;
    assert_int_equal(request->done_count++, 0);
    request->status = status;
}

static struct request *submit(enum disk_op op, unsigned block, uint8_t value)
{
    struct request *request = &t.request[t.count++];

    *request = (struct request){ .value = value };
    request->r = (struct disk_request){ .op = op, .offset = block * 512, .bytes = 512, .get = get, .put = put, .done = done,
                                        .owner = request };
    scsi_disk_submit(&t.disk, &request->r, t.bench->now_ns);
    return request;
}

static void order_over(struct scsi_talk *talk, bool lost)
{
    (void)talk;
    t.over = true;
    t.lost = lost;
}

static enum status order(enum scsi_reserve_order what, bool take_over)
{
    t.order = (struct scsi_reserve){ .order = what, .key = t.claim.key, .type = RO, .take_over = take_over, .buffer = t.buffer };
    t.talk.ops = &scsi_reserve_ops;
    t.talk.core = &t.order;
    t.talk.session[0] = &t.bench->session;
    memcpy(t.talk.lun, t.disk.lun, sizeof t.disk.lun);
    t.talk.over = order_over;
    t.over = false;
    scsi_reserve_start(&t.order);
    scsi_talk_start(&t.talk, t.bench->now_ns);
    for (unsigned i = 0; !t.over && i < 100; i++)
        pass(SECOND);
    assert_true(t.over && !t.lost);
    return t.order.status;
}

static bool read_epoch(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    (void)claim;
    assert_int_equal(count, 512);
    *epoch = be64_get(bytes);
    return true;
}

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    t.bench = bench_new();
    t.bench->auto_resume = false;
    t.bench->target.manners.scsi = scsi;
    t.unit = (struct fake_unit){ .disk = t.bench->target.disk, .disk_bytes = 128 * 512, .generation = 3 };
    be64_put(t.bench->target.disk + RECORD * 512, 5);
    t.claim = (struct scsi_claim){ .key = KEY_A, .type = RO, .keep = true, .epoch = 1, .path_bits = 0xffff };
    bench_start(t.bench);
    t.bench_ops = t.bench->session.ops;
    t.ops = *t.bench_ops;
    t.ops.event = on_event;
    t.ops.may_send = may_send;
    t.bench->session.ops = &t.ops;
    scsi_disk_init(&t.disk, &t.bench->session, 1, &disk_ops, NULL);
    bench_settle(t.bench);
    return t.proofs != 1;
}

static int tear_down(void **state)
{
    unsigned complaints = t.bench->target.complaints;
    (void)state;
    if (complaints)
        print_error("the target: %s\n", t.bench->target.complaint);
    bench_free(t.bench);
    return complaints != 0;
}

/* Takes the reservation; with the record of an epoch, as a volume has one, or without. */
static void claim(bool record)
{
    assert_int_equal(order(SCSI_RESERVE_TAKE, false), OK);
    if (record) {
        t.claim.block = RECORD;
        t.claim.blocks = 1;
        t.claim.block_bytes = 512;
        t.claim.epoch = 5;
        t.claim.restore = true;
        t.claim.read_epoch = read_epoch;
    }
    scsi_disk_claim(&t.disk, &t.claim, t.bench->now_ns);
    struct request *r = submit(DISK_WRITE, DATA, 1);
    pass(SECOND);
    assert_true(r->done_count && r->status == OK);
    t.count = 0;
}

/* Writes some of which are under way and some of which wait, then the connection goes. */
static void go_away(void)
{
    t.bench->target.manners.hold = true;
    for (unsigned i = 0; i < WRITES; i++)
        (void)submit(DISK_WRITE, DATA + i, (uint8_t)(i + 1));
    bench_settle(t.bench);
    t.bench->absent = true;
    bench_cut(t.bench);
    t.bench->target.manners.hold = false;
    (void)submit(DISK_WRITE, DATA + WRITES, 0x77);
    pass(20 * SECOND);
    for (unsigned i = 0; i < t.count; i++)
        assert_int_equal(t.request[i].done_count, 0);
}

static void come_back(void)
{
    t.bench->absent = false;
    pass(30 * SECOND);
}

static void all_written(void)
{
    assert_int_equal(t.fences, 0);
    for (unsigned i = 0; i < t.count; i++) {
        assert_true(t.request[i].done_count && t.request[i].status == OK);
        assert_int_equal(t.bench->target.disk[(DATA + i) * 512], t.request[i].value);
    }
}

static void nothing_written(unsigned writes, unsigned conflicts)
{
    assert_int_equal(t.fences, 1);
    assert_int_equal(t.unit.writes, writes);
    assert_int_equal(t.unit.conflicts, conflicts);
    for (unsigned i = 0; i < t.count; i++)
        assert_true(t.request[i].done_count && t.request[i].status == ERR_FENCED);
    for (unsigned i = DATA * 512; i < 128 * 512; i++)
        assert_int_equal(t.bench->target.disk[i], 0x99);
    struct request *later = submit(DISK_WRITE, DATA, 1);
    assert_true(later->done_count && later->status == ERR_FENCED);
    pass(10 * SECOND);
    assert_int_equal(t.unit.writes, writes);
    assert_int_equal(t.fences, 1);
}

static void nobody_came(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++) {
        claim(record);
        go_away();
        come_back();
        all_written();
        t.count = 0;
    }
    assert_int_equal(order(SCSI_RESERVE_RELEASE, false), OK);
    assert_true(!t.unit.held && !t.unit.key[0]);
    scsi_disk_claim(&t.disk, NULL, t.bench->now_ns);
    go_away();
    come_back();
    all_written();
}

/* `goes`: the other one has released all before this node is back; `forgets`: the target has lost its power, too. */
static void fenced_while_away(bool record, bool goes, bool forgets)
{
    claim(record);
    go_away();
    takeover(KEY_A, goes);
    if (forgets) {
        t.unit.keeps = false;
        fake_unit_power_loss(&t.unit);
    }
    unsigned writes = t.unit.writes;
    come_back();
    nothing_written(writes, 0); /* not one was even tried */
    if (record)
        assert_non_null(strstr(t.why, "epoch is 6"));
    else if (!goes && !forgets)
        assert_non_null(strstr(t.why, "another node has fenced this one"));
    scsi_disk_claim(&t.disk, NULL, t.bench->now_ns); /* who used it has gone; it can be read */
    struct request *r = submit(DISK_READ, DATA, 0);
    pass(SECOND);
    assert_true(r->done_count && r->status == OK);
}

static void away_and_fenced(void **state) { (void)state; fenced_while_away(true, false, false); }
static void away_and_left(void **state) { (void)state; fenced_while_away(true, true, false); }
static void away_and_forgotten(void **state) { (void)state; fenced_while_away(true, false, true); }
static void no_record_fenced(void **state) { (void)state; fenced_while_away(false, false, false); }
static void no_record_left(void **state) { (void)state; fenced_while_away(false, true, false); }
static void no_record_forgotten(void **state) { (void)state; fenced_while_away(false, false, true); }

/* The connection stays, and the next command, of whichever kind, brings the news. */
static void fenced_while_there(void **state)
{
    (void)state;
    claim(true);
    takeover(KEY_A, true); /* the unit would take writes of anybody now */
    unsigned writes = t.unit.writes;
    struct request *r = submit(DISK_READ, DATA, 0);
    bench_settle(t.bench);
    (void)submit(DISK_WRITE, DATA, 1);
    pass(30 * SECOND);
    assert_int_equal(r->status, ERR_FENCED);
    nothing_written(writes, 0);
}

static void what_the_target_forgot(void **state)
{
    (void)state;
    claim(true);
    t.unit.keeps = false;
    go_away();
    fake_unit_power_loss(&t.unit);
    come_back();
    all_written();
    assert_true(t.unit.held && t.unit.key[0] == KEY_A && t.unit.type == RO);
}

/* A target that takes each login for somebody new: the key is there, of a nexus that is gone. */
static void another_nexus(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++) {
        claim(record);
        go_away();
        t.nexus = !t.nexus;
        t.unit.attention[t.nexus] = 0;
        come_back();
        all_written();
        assert_int_equal(t.unit.key[t.nexus], KEY_A);
        t.count = 0;
    }
}

/*
 * Another one takes the unit over before the first, the second, ... command of who comes back: on the same nexus, or one that
 * the target takes for another, or another path; with the record of an epoch and without. What it wrote stays.
 */
static void taken_over_at_each_moment(void **state)
{
    unsigned met = 0;

    for (unsigned kind = 0; kind < 12; kind++) {
        for (unsigned at = 1;; at++) {
            (void)tear_down(state);
            assert_int_equal(set_up(state), 0);
            claim(kind & 1);
            go_away();
            t.nexus = kind / 4 ? 1 : 0;
            t.claim.key = kind / 4 == 2 ? KEY_A2 : KEY_A;
            t.ambush = at;
            t.ambush_goes = kind & 2;
            unsigned writes = t.unit.writes;
            come_back();
            pass(30 * SECOND);
            if (t.ambush || (t.unit.writes != writes && t.ambush_goes))
                break; /* it was too late: the proof held, and held truly */
            met++;
            for (unsigned i = DATA * 512; i < 128 * 512; i++)
                assert_int_equal(t.bench->target.disk[i], 0x99);
            for (unsigned i = 0; i < t.count; i++)
                assert_true(!t.request[i].done_count || t.request[i].status != OK || t.unit.writes != writes);
            assert_true(at < 200);
        }
    }
    assert_true(met > 60);
}

/* The session comes back on another path, whose key is another one. */
static void another_path(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++) {
        t.claim.key = KEY_A;
        t.nexus = 0;
        claim(record);
        go_away();
        t.claim.key = KEY_A2;
        t.nexus = 1;
        come_back();
        all_written();
        assert_true(t.disk.proof.moved && t.unit.key[1] == KEY_A2 && !t.unit.key[0] && t.unit.held && t.unit.holder == 1);
        t.unit.attention[0] = 0;
        assert_int_equal(order(SCSI_RESERVE_RELEASE, false), OK);
        scsi_disk_claim(&t.disk, NULL, t.bench->now_ns);
        t.count = 0;
    }
    t.claim.key = KEY_A; /* the same, and fenced meanwhile: nothing of this life is registered any more */
    t.claim.blocks = 0;
    t.nexus = 0;
    claim(true);
    go_away();
    takeover(KEY_A, false);
    unsigned writes = t.unit.writes;
    t.claim.key = KEY_A2;
    t.nexus = 1;
    come_back();
    nothing_written(writes, 0);
    assert_int_equal(t.unit.key[1], 0);
}

/* What was queued before the epoch changed is not sent in the new one. */
static void of_an_earlier_epoch(void **state)
{
    (void)state;
    claim(false);
    go_away();
    unsigned writes = t.unit.writes;
    t.claim.epoch++;
    scsi_disk_claim(&t.disk, &t.claim, t.bench->now_ns);
    come_back();
    assert_int_equal(t.unit.writes, writes);
    for (unsigned i = 0; i < t.count; i++)
        assert_true(t.request[i].done_count && t.request[i].status == ERR_FENCED);
    struct request *r = submit(DISK_WRITE, DATA, 1);
    pass(SECOND);
    assert_true(r->done_count && r->status == OK);
}

/* The connection goes in the middle of an order, at each place. */
static void orders_that_are_cut(void **state)
{
    (void)state;
    for (uint64_t at = 1; at < 700; at += 7) {
        t.order = (struct scsi_reserve){ .order = SCSI_RESERVE_TAKE, .key = KEY_A, .type = RO, .buffer = t.buffer };
        t.talk.ops = &scsi_reserve_ops;
        t.talk.core = &t.order;
        t.talk.session[0] = &t.bench->session;
        memcpy(t.talk.lun, t.disk.lun, sizeof t.disk.lun);
        t.talk.over = order_over;
        t.over = t.lost = false;
        t.bench->cut_in = t.bench->in_total + at;
        scsi_reserve_start(&t.order);
        scsi_talk_start(&t.talk, t.bench->now_ns);
        pass(10 * SECOND);
        assert_true(t.over && (t.lost || t.order.status == OK));
        t.bench->cut_in = 0;
        pass(10 * SECOND);
        assert_int_equal(order(SCSI_RESERVE_TAKE, false), OK); /* whatever was left of it */
        assert_int_equal(order(SCSI_RESERVE_RELEASE, false), OK);
        assert_true(!t.unit.held && !t.unit.key[0]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_came),         TEST(away_and_fenced),    TEST(away_and_left),
        TEST(away_and_forgotten),  TEST(no_record_fenced),   TEST(no_record_left),
        TEST(no_record_forgotten), TEST(fenced_while_there), TEST(what_the_target_forgot),
        TEST(another_nexus),       TEST(taken_over_at_each_moment), TEST(another_path),
        TEST(of_an_earlier_epoch), TEST(orders_that_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
