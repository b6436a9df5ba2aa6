/* SPDX-License-Identifier: MIT */
/*
 * A disk with two paths to one unit with persistent reservations, each a session with a target in memory and a nexus of its
 * own. Guarded: the path that stands by is registered and takes over without a login; a write that the dead path still holds,
 * in the target's queue or on the wire, never lands over a newer one, at whichever moment of the move it comes; what is cut,
 * one path or both, at each command of the move ends with everything written; a node that another one has fenced, at each
 * moment of the move or of what makes a path stand by, writes nothing.
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
#include "fake_unit.h"
#include "net/scsi/scsi_path.h"

#define SECOND UINT64_C(1000000000)
#define RO SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS
#define KEY UINT64_C(0xaaaaaaaa11110001) /* of path 0; of path 1 one more */
#define STRANGER UINT64_C(0xbbbbbbbb11110001)
#define RECORD 16u
#define DATA 40u
#define WRITES 70u

struct request {
    struct disk_request r;
    uint8_t value;
    unsigned done_count;
    enum status status;
};

struct path {
    struct bench *bench;
    struct iscsi_ops ops;
    const struct iscsi_ops *bench_ops;
    struct scsi_path path;
};

enum stray { NO_STRAY, QUEUED, ON_THE_WIRE };

static struct {
    struct path path[2];
    unsigned used;
    struct scsi_disk disk;
    struct fake_unit unit;
    uint8_t medium[FAKE_DISK_BYTES];
    uint64_t serial[2];
    struct scsi_claim claim;
    struct request request[WRITES + 20];
    unsigned count, moves, fences, drops;
    char dropped[300];
    /* Commands of path `counted` since a moment, and what happens before number `at` of them. */
    unsigned counted, commands, at;
    void (*then)(void);
    /* A write that the dead path has. */
    enum stray stray;
    unsigned resets;        /* seen when it came to be */
    uint8_t stray_value;
    struct scsi_talk talk;
    struct scsi_reserve order;
    uint8_t buffer[SCSI_RESERVE_ROOM];
    bool over;
    unsigned dying;         /* paths that are cut when the target has done with what it has: bits */
    bool careless;          /* breaks the rules: what had no answer is forgotten, and no key is another path's */
} t;

/* ---- The unit ---- */

static void scsi(struct fake_target *target, struct fake_task *task)
{
    static uint8_t in[FAKE_DISK_BYTES];
    uint8_t data[64] = { 0, 0, 6, 2, 31 }, sense[18];
    unsigned nexus = target != &t.path[0].bench->target;
    uint32_t bytes;
    bool reads = task->flags & ISCSI_COMMAND_READ;

    if (nexus == t.counted && t.then && ++t.commands == t.at) {
        void (*then)(void) = t.then;
        t.then = NULL;
        then();
    }
    if (t.dying & 1u << nexus) /* it is not answered any more */
        return;
    switch (task->cdb[0]) {
    case 0x12:
        memcpy(data + 8, "FAKE    UNIT            0001", 28);
        if (task->cdb[1] & 1) {
            uint8_t page[16] = { 0, task->cdb[2], 0, task->cdb[2] ? 12 : 2, 0, 0x83 };
            if (task->cdb[2] == 0x83) {
                memcpy(page + 4, (uint8_t[]){ 1, 3, 0, 8, 0x50 }, 5);
                be32_put(page + 12, (uint32_t)t.serial[nexus]);
            }
            fake_target_data(target, task, page, page[3] + 4);
        } else {
            fake_target_data(target, task, data, 36);
        }
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
    bool registered = t.unit.key[!nexus];
    unsigned status = fake_unit_execute(&t.unit, nexus, task->cdb, task->data, reads ? 0 : task->expected, in,
                                        reads ? task->expected : 0, &bytes, sense);
    if (t.stray == QUEUED && task->cdb[0] == 0x5f && (task->cdb[1] & 31) == SCSI_PR_PREEMPT_AND_ABORT && registered &&
        !t.unit.key[!nexus])
        t.stray = NO_STRAY; /* its key was preempted, and it was aborted */
    if (!status && reads)
        fake_target_data(target, task, in, bytes);
    else
        fake_target_status(target, task, (uint8_t)status, status == 2 ? sense : NULL);
}

/* What the dead path still has comes to the unit. */
static void stray_lands(void)
{
    struct scsi_cdb cdb;
    uint8_t block[512], sense[18];
    uint32_t bytes;

    if (t.stray == QUEUED && t.path[1].bench->target.tasks_seen != t.resets)
        t.stray = NO_STRAY;
    memset(block, t.stray_value, sizeof block);
    if (t.stray == QUEUED) { /* it was let in already */
        memcpy(t.medium + DATA * 512, block, 512);
    } else if (t.stray == ON_THE_WIRE) {
        scsi_write16(&cdb, DATA, 1, 512, false);
        t.unit.attention[0] = 0;
        (void)fake_unit_execute(&t.unit, 0, cdb.bytes, block, 512, NULL, 0, &bytes, sense);
    }
    t.stray = NO_STRAY;
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

/* Another node takes the unit over, as scsi_proof.h says it does. */
static void takeover(void)
{
    by_another(SCSI_PR_REGISTER, 0, STRANGER);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 2; i++)
            if (t.unit.key[i])
                by_another(SCSI_PR_PREEMPT_AND_ABORT, STRANGER, t.unit.key[i]);
        be64_put(t.medium + RECORD * 512, 6);
    }
    if (!t.unit.held || t.unit.holder != 3)
        by_another(SCSI_PR_RESERVE, STRANGER, 0);
    memset(t.medium + DATA * 512, 0x99, (128 - DATA) * 512);
}

/* ---- The owner ---- */

static struct path *of(void *context)
{
    return context == t.path[0].bench ? &t.path[0] : &t.path[1];
}

static uint64_t now(void)
{
    return t.path[0].bench->now_ns;
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct path *path = of(context);
    bool used = path == &t.path[t.used];
    uint64_t key = KEY + (path == &t.path[1]);

    path->bench_ops->event(context, event);
    if (event->kind == ISCSI_EVENT_PROVE && !used && path == &t.path[0])
        t.stray = NO_STRAY; /* a login in the place of the session that was lost ends that one */
    if (event->kind == ISCSI_EVENT_PROVE && used) {
        t.claim.key = key;
        scsi_disk_prove(&t.disk, event->code == ISCSI_PROVE_STRAYS && !t.careless, now());
    } else if (event->kind == ISCSI_EVENT_PROVE && (!t.disk.claim || t.disk.fenced)) {
        iscsi_session_stop(&path->bench->session, now());
    } else if (event->kind == ISCSI_EVENT_PROVE) {
        scsi_path_prepare(&path->path, key, now());
    } else if (event->kind == ISCSI_EVENT_READY && used) {
        scsi_disk_ready(&t.disk, now());
        scsi_path_again(&t.path[!t.used].path, now());
    } else if (event->kind == ISCSI_EVENT_DOWN && !used) {
        scsi_path_forget(&path->path);
    }
}

static bool may_send(void *context, const struct iscsi_command *command)
{
    (void)context;
    return scsi_disk_may_send(command);
}

static void proved(void *context)
{
    (void)context;
    iscsi_session_resume(&t.path[t.used].bench->session, now());
}

static void drop(void *context, const char *why)
{
    (void)context;
    t.drops++;
    snprintf(t.dropped, sizeof t.dropped, "%s", why);
    iscsi_session_drop(&t.path[t.used].bench->session, t.dropped, now());
}

static void news(void *context, unsigned what, const char *text)
{
    (void)context, (void)what, (void)text;
}

static void fenced(void *context, const char *why)
{
    (void)context, (void)why;
    t.fences++;
}

static const struct scsi_disk_ops disk_ops = { .proved = proved, .drop = drop, .news = news, .fenced = fenced };

/* Path i is dead: nobody answers there until it is good again. */
static void kill(unsigned i)
{
    t.path[i].bench->absent = true;
    bench_cut(t.path[i].bench);
}

static void move_if_lost(void)
{
    const struct iscsi_session *session = &t.path[t.used].bench->session;

    if (!t.disk.claim || t.disk.fenced || session->state == ISCSI_READY || session->state == ISCSI_PROVING ||
        !scsi_path_ready(&t.path[!t.used].path))
        return;
    t.used = !t.used;
    t.claim.stood_by = true;
    assert_int_equal(scsi_path_take_over(&t.path[t.used].path, now()), OK);
    t.moves++;
}

static void settle(void)
{
    for (unsigned i = 0; i < 4; i++) {
        bench_settle(t.path[0].bench);
        bench_settle(t.path[1].bench);
        for (unsigned path = 0; path < 2; path++)
            if (t.dying & 1u << path)
                kill(path);
        t.dying = 0;
        move_if_lost();
    }
}

static void pass(uint64_t ns)
{
    for (uint64_t end = now() + ns; now() < end;) {
        settle();
        uint64_t next = MIN(MIN(scsi_disk_deadline(&t.disk), scsi_talk_deadline(&t.talk)), end);
        for (unsigned i = 0; i < 2; i++)
            next = MIN(next, MIN(iscsi_session_deadline(&t.path[i].bench->session), scsi_path_deadline(&t.path[i].path)));
        next = MAX(now() + 1, next);
        for (unsigned i = 0; i < 2; i++)
            t.path[i].bench->now_ns = next;
        for (unsigned i = 0; i < 2; i++) {
            iscsi_session_tick(&t.path[i].bench->session, next);
            if (i != t.used)
                scsi_path_tick(&t.path[i].path, next);
        }
        scsi_disk_tick(&t.disk, next);
        scsi_talk_tick(&t.talk, next);
    }
    settle();
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

static struct request *submit(unsigned block, uint8_t value)
{
    struct request *request = &t.request[t.count++];

    assert_true(t.count <= ARRAY_COUNT(t.request));
    *request = (struct request){ .value = value };
    request->r = (struct disk_request){ .op = DISK_WRITE, .offset = block * 512, .bytes = 512, .get = get, .put = put, .done = done,
                                        .owner = request };
    scsi_disk_submit(&t.disk, &request->r, now());
    return request;
}

static bool read_epoch(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    (void)claim;
    assert_int_equal(count, 512);
    *epoch = be64_get(bytes);
    return true;
}

static void order_over(struct scsi_talk *talk, bool lost)
{
    (void)talk;
    assert_false(lost);
    t.over = true;
}

static void add_path(unsigned i)
{
    static uint8_t streams[3][FAKE_STREAM_BYTES];
    struct bench *b = t.path[i].bench = bench_new();

    if (i) { /* two at once: this one has streams of its own */
        b->target.in = streams[0];
        b->target.out = streams[1];
        b->pending = streams[2];
    }
    b->auto_resume = false;
    b->target.manners.scsi = scsi;
    b->target.manners.portal_group = i + 1;
    b->settings.login.isid[5] = (uint8_t)i;
    b->now_ns = now();
    b->absent = true;
    bench_start(b);
    t.path[i].bench_ops = b->session.ops;
    t.path[i].ops = *b->session.ops;
    t.path[i].ops.event = on_event;
    t.path[i].ops.may_send = may_send;
    b->session.ops = &t.path[i].ops;
    scsi_path_init(&t.path[i].path, &b->session, &t.disk);
    b->absent = false;
}

/* The unit is reserved by path 0, with the record of an epoch or without, and path 1 stands by. */
static void begin(bool record)
{
    memset(&t, 0, sizeof t);
    t.serial[0] = t.serial[1] = 7;
    t.unit = (struct fake_unit){ .disk = t.medium, .disk_bytes = 128 * 512, .generation = 3 };
    be64_put(t.medium + RECORD * 512, 5);
    t.claim = (struct scsi_claim){ .key = KEY, .type = RO, .keep = true, .epoch = 1, .path_bits = 0xffff };
    add_path(0);
    scsi_disk_init(&t.disk, &t.path[0].bench->session, 1, &disk_ops, NULL);
    bench_settle(t.path[0].bench);
    assert_int_equal(t.path[0].bench->session.state, ISCSI_READY);
    t.order = (struct scsi_reserve){ .order = SCSI_RESERVE_TAKE, .key = KEY, .type = RO, .buffer = t.buffer };
    t.talk = (struct scsi_talk){ .ops = &scsi_reserve_ops, .core = &t.order, .over = order_over };
    t.talk.session[0] = &t.path[0].bench->session;
    memcpy(t.talk.lun, t.disk.lun, sizeof t.disk.lun);
    scsi_reserve_start(&t.order);
    scsi_talk_start(&t.talk, now());
    bench_settle(t.path[0].bench);
    assert_true(t.over && t.order.status == OK);
    if (record) {
        t.claim.block = RECORD;
        t.claim.blocks = 1;
        t.claim.block_bytes = 512;
        t.claim.epoch = 5;
        t.claim.restore = true;
        t.claim.read_epoch = read_epoch;
    }
    scsi_disk_claim(&t.disk, &t.claim, now());
    add_path(1);
    pass(SECOND);
}

static void end(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (t.path[i].bench->target.complaints)
            print_error("target %u: %s\n", i, t.path[i].bench->target.complaint);
        assert_int_equal(t.path[i].bench->target.complaints, 0);
        bench_free(t.path[i].bench);
    }
}

/* Writes of which some are under way, then path 0 dies. The first one is that of the stray. */
static void lose_the_first(enum stray stray)
{
    t.path[0].bench->target.manners.hold = true;
    for (unsigned i = 0; i < WRITES; i++)
        (void)submit(DATA + i, (uint8_t)(i + 1));
    settle();
    t.stray = stray;
    t.stray_value = 1;
    t.resets = t.path[1].bench->target.tasks_seen;
    t.path[0].bench->target.manners.hold = false;
    kill(0);
}

static void all_written(void)
{
    assert_int_equal(t.fences, 0);
    for (unsigned i = 0; i < t.count; i++)
        assert_true(t.request[i].done_count && t.request[i].status == OK);
    for (unsigned i = 1; i < WRITES; i++)
        assert_int_equal(t.medium[(DATA + i) * 512], t.request[i].value);
}

/* ---- Tests ---- */

static void a_path_stands_by(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++) {
        begin(record);
        assert_true(t.path[1].path.registered && scsi_path_ready(&t.path[1].path));
        assert_true(t.unit.key[0] == KEY && t.unit.key[1] == KEY + 1 && t.unit.holder == 0);
        iscsi_session_drop(&t.path[0].bench->session, "a proof of the path in use takes the other key away", now());
        t.path[1].bench->absent = true; /* the move is not meant here */
        kill(1);
        pass(SECOND);
        assert_int_equal(t.unit.key[1], 0);
        t.path[1].bench->absent = false;
        pass(30 * SECOND);
        assert_true(t.unit.key[1] == KEY + 1 && t.path[1].path.registered && t.moves == 0);
        end();
    }
}

/* Not while it is being registered, and nothing is registered for a node that was fenced, nor before its time. */
static void it_takes_over_when_it_is_ready_only(void **state)
{
    struct scsi_path *path = &t.path[1].path;
    (void)state;
    begin(true);
    scsi_path_prepare(path, KEY + 1, now());
    assert_false(scsi_path_ready(path));
    assert_int_equal(scsi_path_take_over(path, now()), ERR_BUSY);
    assert_ptr_equal(t.disk.session, &t.path[0].bench->session);
    settle();
    pass(SECOND);
    assert_true(scsi_path_ready(path) && path->registered);
    scsi_path_again(path, now() + 1);
    scsi_path_tick(path, now());
    assert_false(path->talk.active);
    assert_int_equal(scsi_path_deadline(path), now() + 1);
    scsi_path_again(path, now());
    t.disk.fenced = true;
    scsi_path_tick(path, now());
    assert_false(path->talk.active);
    assert_int_equal(scsi_path_deadline(path), UINT64_MAX);
    t.disk.fenced = false;
    scsi_path_tick(path, now());
    assert_true(path->talk.active);
    settle();
    pass(SECOND);
    assert_true(scsi_path_ready(path) && path->registered);
    end();
}

static void another_unit_stands_not_by(void **state)
{
    (void)state;
    begin(true);
    t.serial[1] = 8;
    kill(1);
    t.path[1].bench->absent = false;
    pass(10 * SECOND);
    assert_false(scsi_path_ready(&t.path[1].path));
    assert_non_null(strstr(t.path[1].path.problem, "another unit"));
    lose_the_first(NO_STRAY);
    pass(20 * SECOND);
    assert_int_equal(t.moves, 0);
    t.path[0].bench->absent = false;
    pass(20 * SECOND);
    all_written();
    end();
}

static void it_takes_over_without_a_login(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++) {
        begin(record);
        uint64_t logins = t.path[1].bench->session.counts.logins;
        lose_the_first(NO_STRAY);
        settle(); /* no time passes */
        pass(1);
        assert_int_equal(t.moves, 1);
        all_written();
        assert_int_equal(t.path[1].bench->session.counts.logins, logins);
        assert_true(!t.unit.key[0] && t.unit.key[1] == KEY + 1 && t.unit.held && t.unit.holder == 1);
        t.path[0].bench->absent = false; /* and back again */
        pass(20 * SECOND);
        assert_true(t.unit.key[0] == KEY && t.path[0].path.registered);
        kill(1);
        (void)submit(DATA, 0x55);
        pass(1);
        assert_int_equal(t.moves, 2);
        assert_true(t.request[t.count - 1].done_count && t.medium[DATA * 512] == 0x55 && t.unit.holder == 0);
        end();
    }
}

/* What the dead path has lands before the first, the second, ... command of the move, and after a newer write. */
static unsigned strays(bool record, enum stray stray, bool break_it)
{
    unsigned harm = 0;

    for (unsigned at = 1;; at++) {
        begin(record);
        t.careless = break_it;
        t.claim.path_bits = break_it ? 0 : 0xffff;
        t.counted = 1;
        t.at = at;
        t.then = stray_lands;
        lose_the_first(stray);
        settle();
        pass(SECOND);
        bool late = t.then != NULL; /* the move had fewer commands than that */
        all_written();
        t.then = NULL;
        struct request *newer = submit(DATA, 0xee);
        pass(SECOND);
        assert_true(newer->done_count && newer->status == OK);
        stray_lands();
        harm += t.medium[DATA * 512] != 0xee;
        end();
        if (late)
            return harm;
        assert_true(at < 300);
    }
}

static void what_was_held_back_does_not_land(void **state)
{
    (void)state;
    for (unsigned record = 0; record < 2; record++)
        for (enum stray stray = QUEUED; stray <= ON_THE_WIRE; stray++)
            assert_int_equal(strays(record, stray, false), 0);
    assert_true(strays(true, QUEUED, true) && strays(true, ON_THE_WIRE, true)); /* or this would show nothing */
}

static void cut_used(void)
{
    t.dying = 2;
}

static void cut_both(void)
{
    t.dying = 3;
}

/* The path that takes over dies at each command of the move, with the other one there again, or only later, or both later. */
static void paths_that_die_during_the_move(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 8; kind++)
        for (unsigned at = 1;; at++) {
            begin(kind & 1);
            t.counted = 1;
            t.at = at;
            t.then = kind & 2 ? cut_both : cut_used;
            lose_the_first(kind & 4 ? ON_THE_WIRE : QUEUED);
            settle();
            bool late = t.then != NULL;
            t.then = NULL;
            t.path[0].bench->absent = kind & 2;
            pass(20 * SECOND);
            if (kind & 2)
                t.path[at & 1].bench->absent = false;
            pass(40 * SECOND);
            all_written();
            t.path[0].bench->absent = t.path[1].bench->absent = false;
            struct request *newer = submit(DATA, 0xee);
            pass(20 * SECOND);
            assert_true(newer->done_count && newer->status == OK);
            if (t.used) /* else the login of path 0 has ended what it had left */
                stray_lands();
            assert_int_equal(t.medium[DATA * 512], 0xee);
            end();
            if (late)
                break;
            assert_true(at < 300);
        }
}

/* Another node takes the unit over before each command of the move, and of what makes a path stand by. */
static void taken_over_at_each_moment(void **state)
{
    unsigned met = 0;
    (void)state;

    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned at = 1;; at++) {
            begin(kind & 1);
            t.counted = 1;
            t.at = at;
            if (kind & 2) { /* while path 1 is to stand by once more; then path 0 is lost */
                t.then = takeover;
                kill(1);
                t.path[1].bench->absent = false;
                pass(SECOND);
                if (!t.then) {
                    lose_the_first(NO_STRAY);
                    pass(30 * SECOND);
                }
            } else {
                t.then = takeover;
                lose_the_first(NO_STRAY);
                settle();
                pass(30 * SECOND);
            }
            bool late = t.then != NULL;
            bool whole = true;
            for (unsigned i = DATA * 512; i < 128 * 512; i++)
                whole &= t.medium[i] == 0x99;
            bool all = true;
            for (unsigned i = 0; i < t.count; i++)
                all &= t.request[i].done_count && t.request[i].status == ERR_FENCED;
            if (!late && all) {
                assert_true(whole && t.fences == 1);
                met++;
            } else if (!late) { /* it came when writes flowed already: none after it has landed */
                assert_true(whole);
                assert_int_equal(t.fences, 1);
            }
            end();
            if (late)
                break;
            assert_true(at < 300);
        }
    assert_true(met > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_stands_by),
        cmocka_unit_test(it_takes_over_when_it_is_ready_only),
        cmocka_unit_test(another_unit_stands_not_by),
        cmocka_unit_test(it_takes_over_without_a_login),
        cmocka_unit_test(what_was_held_back_does_not_land),
        cmocka_unit_test(paths_that_die_during_the_move),
        cmocka_unit_test(taken_over_at_each_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
