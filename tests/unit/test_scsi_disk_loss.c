/* SPDX-License-Identifier: MIT */
/*
 * A disk whose session is lost, stopped or slow, and requests that are taken back (scsi_disk_fixture.h). Guarded: the loss of
 * a session or an abort costs time only, and no memory of a cancelled request is touched.
 */
#include "scsi_disk_fixture.h"

/* ---- Loss ---- */

static void a_cut_costs_time_only(void **state)
{
    (void)state;
    for (unsigned at = 1; at < 60; at++) {
        if (at > 1)
            assert_int_equal(set_up(state), 0);
        t.transfer_max = 64;
        start_good();
        t.bench->cut_out = t.bench->out_total + at * 4001;
        for (unsigned i = 0; i < 6; i++)
            submit(DISK_WRITE, i * 81920u, 81920, (uint8_t)(i + at));
        struct request *flush = submit(DISK_FLUSH, 0, 0, 0);
        pass(100 * SECOND, true);
        assert_int_equal(flush->status, OK);
        for (unsigned i = 0; i < 6; i++) {
            assert_int_equal(t.request[i].status, OK);
            on_disk(i * 81920u, 81920, (uint8_t)(i + at));
        }
        assert_int_equal(t.proofs, t.bench->cut_out ? 1 : 2);
        if (at < 59)
            assert_int_equal(tear_down(state), 0);
    }
}

static void a_target_that_is_away(void **state)
{
    (void)state;
    start_good();
    t.bench->absent = true;
    bench_cut(t.bench);
    uint64_t since = t.bench->now_ns;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(600 * SECOND, true);
    assert_int_equal(w->done_count, 0);
    assert_int_equal(scsi_disk_oldest_ns(&t.disk), since);
    assert_true(t.bench->session.timed_out);
    t.bench->absent = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void a_stopped_session_goes_on(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    bench_settle(t.bench);
    iscsi_session_stop(&t.bench->session, t.bench->now_ns);
    pass(20 * SECOND, true);
    assert_int_equal(t.bench->session.state, ISCSI_IDLE);
    assert_int_equal(w->done_count, 0);
    t.bench->target.manners.hold = false;
    iscsi_session_start(&t.bench->session, t.bench->now_ns);
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void cancelled_requests_are_not_touched(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 200000 / 512 * 512, 6), *r = submit(DISK_READ, 0, 65536, 7);
    bench_settle(t.bench);
    scsi_disk_cancel(&t.disk, t.bench->now_ns);
    assert_int_equal(w->status, ERR_CANCELLED);
    assert_int_equal(r->status, ERR_CANCELLED);
    assert_null(t.disk.first);
    t.bench->target.manners.hold = false;
    fake_target_release(&t.bench->target, false); /* get() and put() fail the test from now on */
    pass(10 * SECOND, false);
    assert_int_equal(t.disk.busy, 0);
    for (unsigned i = 0; i < 65536; i++)
        assert_int_equal(r->buffer[i], bench_byte(7, i));
    finished(submit(DISK_WRITE, 4096, 4096, 8), OK);
    on_disk(4096, 4096, 8);
}

static void cancelled_while_away(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    submit(DISK_WRITE, 0, 65536, 6);
    bench_settle(t.bench);
    t.bench->absent = true;
    bench_cut(t.bench);
    submit(DISK_WRITE, 65536, 65536, 6);
    pass(SECOND, false);
    scsi_disk_cancel(&t.disk, t.bench->now_ns);
    assert_int_equal(t.disk.busy, 0);
    t.bench->absent = t.bench->target.manners.hold = false;
    pass(20 * SECOND, false);
    assert_int_equal(t.bench->session.state, ISCSI_READY);
    all_are(0, 131072, 0);
}

static void memory_that_is_gone(void **state)
{
    (void)state;
    start_good();
    struct request *bad = &t.request[t.count++], *good;
    bad->buffer = calloc(1, 65536);
    bad->gone = true;
    bad->r = (struct disk_request){ .op = DISK_WRITE, .bytes = 65536, .get = get, .done = done, .owner = bad };
    scsi_disk_submit(&t.disk, &bad->r, t.bench->now_ns);
    good = submit(DISK_WRITE, 65536, 65536, 3);
    finished(good, OK);
    assert_int_equal(bad->status, ERR_IO);
    on_disk(65536, 65536, 3);
}

/* ---- Slow targets ---- */

static void a_slow_command_is_aborted(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(10 * SECOND, true);
    t.bench->target.manners.hold = false;
    pass(15 * SECOND, true);
    assert_int_equal(t.bench->target.tasks_seen, 1);
    assert_int_equal(w->status, OK);
    assert_int_equal(w->done_count, 1);
    on_disk(0, 4096, 6);
    assert_non_null(strstr(t.news, "it was aborted"));
    assert_int_equal(t.drops, 0);
}

static void where_nothing_is_aborted_the_session_ends(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = t.bench->target.manners.refuse_tasks = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(21 * SECOND, true);
    assert_int_equal(t.bench->target.tasks_seen, 2); /* the abort, the reset */
    assert_non_null(strstr(t.dropped, "aborts nothing"));
    t.bench->target.manners.hold = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

/* A command whose abort is under way when the connection goes is sent again, too. */
static void an_abort_that_is_lost(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    pass(20 * SECOND - 1, true);
    t.bench->target.manners.mute = true; /* the abort goes out, and nothing comes back */
    t.bench->freeze_out = true;
    pass(2 * SECOND, true);
    assert_true(t.disk.task_busy);
    bench_cut(t.bench);
    assert_false(t.disk.task_busy);
    t.bench->target.manners.hold = t.bench->target.manners.mute = t.bench->freeze_out = false;
    finished(w, OK);
    on_disk(0, 4096, 6);
}

static void a_reset_comes_before_a_proof_elsewhere(void **state)
{
    (void)state;
    start_good();
    t.bench->target.manners.hold = true;
    struct request *w = submit(DISK_WRITE, 0, 4096, 6);
    bench_settle(t.bench);
    t.bench->target.manners.hold = false;
    t.bench->target.manners.portal_group = 2;
    cut();
    finished(w, OK);
    on_disk(0, 4096, 6);
    assert_int_equal(t.bench->target.tasks_seen, 1);
    t.bench->target.manners.portal_group = 3;
    cut(); /* nothing is under way: nothing to reset */
    assert_int_equal(t.bench->target.tasks_seen, 1);
    assert_int_equal(t.proofs, 3);
    finished(submit(DISK_READ, 0, 512, 0), OK);
    t.bench->target.manners.hold = t.bench->target.manners.refuse_tasks = true;
    w = submit(DISK_WRITE, 0, 4096, 7);
    bench_settle(t.bench);
    t.bench->target.manners.hold = false;
    t.bench->target.manners.portal_group = 4;
    cut();
    assert_non_null(strstr(t.dropped, "by another portal may still land"));
    pass(20 * SECOND, true);
    assert_int_equal(w->done_count, 0);
    t.bench->target.manners.refuse_tasks = false;
    finished(w, OK);
    on_disk(0, 4096, 7);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_cut_costs_time_only),
        TEST(a_target_that_is_away),
        TEST(a_stopped_session_goes_on),
        TEST(cancelled_requests_are_not_touched),
        TEST(cancelled_while_away),
        TEST(memory_that_is_gone),
        TEST(a_slow_command_is_aborted),
        TEST(where_nothing_is_aborted_the_session_ends),
        TEST(an_abort_that_is_lost),
        TEST(a_reset_comes_before_a_proof_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
