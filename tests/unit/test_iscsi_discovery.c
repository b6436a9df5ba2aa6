/* SPDX-License-Identifier: MIT */
/*
 * What a discovery makes of a target's answer: a list of targets and portals that is right however the answer was cut, that is
 * bounded and says what it left out, and that no name of a target's can spoil; and an end in any case, with words.
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
#include "net/iscsi/iscsi_discovery.h"

#define SECOND UINT64_C(1000000000)

static struct iscsi_discovery found;

static void on_event(struct bench *b, const struct iscsi_event *event)
{
    iscsi_discovery_event(&found, &b->session, event, b->now_ns);
}

static struct bench *begin(const char *targets, size_t bytes)
{
    struct bench *b = bench_new();

    iscsi_discovery_init(&found);
    b->settings.login.discovery = true;
    b->on_event = on_event;
    b->target.manners.targets = targets;
    b->target.manners.targets_bytes = bytes;
    return b;
}

/* "[target]portal,group portal,group;" ... */
static void check_list(const char *expected)
{
    char text[2048] = "", portal[300];
    size_t n = 0;

    for (unsigned i = 0; i < found.target_count; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "[%s]", found.target[i]);
        for (unsigned k = 0; k < found.portal_count; k++) {
            if (found.portal[k].target != i)
                continue;
            iscsi_portal_text(&found.portal[k].portal, portal, sizeof(portal));
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s,%u;", portal, found.portal[k].portal.group);
        }
    }
    assert_string_equal(text, expected);
}

static void check_printable(const char *text)
{
    assert_true(text[0]);
    for (const char *c = text; *c; c++)
        assert_in_range((unsigned char)*c, 0x20, 0x7e);
}

static void ask(struct bench *b)
{
    bench_start(b);
    bench_settle(b);
    bench_pass(b, SECOND);
}

/* ---- What is heard ---- */

static void an_answer_in_pieces_of_any_size(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetAddress=[fe80::1]:3261,2\0TargetName=iqn.2026-11.example:b\0"
                                  "TargetName=iqn.2026-11.example:c\0TargetAddress=san.example,65535";
    (void)state;
    for (size_t chunk = 0; chunk <= sizeof(targets); chunk++)
        for (size_t stream = 0; stream < 70; stream += 23) {
            struct bench *b = begin(targets, sizeof(targets));
            b->target.manners.text_chunk = chunk;
            b->in_chunk = stream;
            ask(b);
            assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
            check_list("[iqn.2026-11.example:a]10.0.0.5:3260,1;[fe80::1]:3261,2;[iqn.2026-11.example:b]"
                       "[iqn.2026-11.example:c]san.example:3260,65535;");
            assert_int_equal(found.ignored + found.targets_left_out + found.portals_left_out, 0);
            assert_int_equal(b->session.state, ISCSI_IDLE);
            assert_int_equal(b->target.logouts, 1);
            bench_free(b);
        }
}

static void no_target_at_all(void **state)
{
    (void)state;
    struct bench *b = begin("", 0);
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
    check_list("");
    bench_free(b);
}

static void what_is_said_twice_is_listed_once(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetName=iqn.2026-11.example:b\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1\0"
                                  "TargetAddress=10.0.0.5:3260,2\0TargetAddress=10.0.0.5,2";
    (void)state;
    struct bench *b = begin(targets, sizeof(targets));
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
    check_list("[iqn.2026-11.example:a]10.0.0.5:3260,1;10.0.0.5:3260,2;[iqn.2026-11.example:b]10.0.0.5:3260,1;");
    bench_free(b);
}

/* Too long, of no known kind, with bytes for a terminal; addresses that are none. What follows such a name is nobody's. */
static void what_is_no_name_or_address_is_counted(void **state)
{
    static char targets[4096];
    char longest[ISCSI_NAME_MAX + 2];
    size_t n = 0;
    (void)state;
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "iqn.", 4);
    longest[ISCSI_NAME_MAX + 1] = 0;
#define SAY(...) (n += (size_t)snprintf(targets + n, sizeof(targets) - n, __VA_ARGS__) + 1)
    SAY("TargetName=iqn.2026-11.example:\x1b]0;evil\x07");
    SAY("TargetAddress=10.0.0.66:3260,1");
    SAY("TargetName=%s", longest); /* one byte too many */
    SAY("TargetAddress=10.0.0.66:3260,1");
    SAY("TargetName=%.*s", (int)ISCSI_NAME_MAX, longest);
    SAY("TargetAddress=10.0.0.7:3260,1");
    SAY("TargetAddress=10.0.0.8:0,1");
    SAY("TargetAddress=10.0.0.8:70000,1");
    SAY("TargetAddress=10.0.0.8:3260,70000");
    SAY("TargetAddress=[fe80::1");
    SAY("TargetAddress=");
    SAY("TargetAddress=a b");
    SAY("TargetAddress=%0300u", 1);
    SAY("TargetAlias=\x1b[2J");
    SAY("TargetName=");
    struct bench *b = begin(targets, n);
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
    assert_int_equal(found.target_count, 1);
    assert_int_equal(strlen(found.target[0]), ISCSI_NAME_MAX);
    assert_int_equal(found.portal_count, 1);
    assert_string_equal(found.portal[0].portal.host, "10.0.0.7");
    assert_int_equal(found.ignored, 10);
    check_printable(found.words);
    assert_string_equal(found.words, "iqn.2026-11.example:.]0;evil.");
    bench_free(b);
}

/* What does not fit is counted; the addresses of a target that was left out are not another one's. */
static void more_than_there_is_room_for(void **state)
{
    static char targets[64 * 1024];
    size_t n = 0;
    (void)state;
    for (unsigned i = 0; i < ISCSI_DISCOVERY_TARGETS + 22; i++) {
        SAY("TargetName=iqn.2026-11.example:%u", i);
        SAY("TargetAddress=10.0.%u.%u,1", i / 256, i % 256);
        SAY("TargetAddress=10.1.%u.%u,2", i / 256, i % 256);
        if (i == 5)
            for (unsigned k = 0; k < 10; k++)
                SAY("TargetAddress=10.2.0.%u,3", k);
    }
    struct bench *b = begin(targets, n);
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
    assert_int_equal(found.target_count, ISCSI_DISCOVERY_TARGETS);
    assert_int_equal(found.targets_left_out, 22);
    assert_int_equal(found.portal_count, ISCSI_DISCOVERY_PORTALS);
    assert_int_equal(found.portals_left_out, 10);
    for (unsigned i = 0; i < found.portal_count; i++) {
        char expected[32];
        snprintf(expected, sizeof(expected), "10.%c.%u.%u", found.portal[i].portal.host[3], found.portal[i].target / 256,
                 found.portal[i].target % 256);
        if (found.portal[i].portal.group != 3)
            assert_string_equal(found.portal[i].portal.host, expected);
    }
    bench_free(b);
}

/* ---- How it ends ---- */

static struct iscsi_chap_account account(bool mutual)
{
    struct iscsi_chap_account a = { .name = "alpha", .mutual = mutual, .mutual_name = "the-disk" };

    a.secret.count = a.mutual_secret.count = 16;
    memcpy(a.secret.bytes, "a secret of ours", 16);
    memcpy(a.mutual_secret.bytes, "secret of theirs", 16);
    return a;
}

static void with_secrets(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a";
    (void)state;
    for (unsigned no_sha = 0; no_sha < 2; no_sha++) { /* the second try, with MD5, is no failure */
        struct iscsi_chap_account ours = account(true), theirs = account(true);
        struct bench *b = begin(targets, sizeof(targets));
        b->settings.login.chap = &ours;
        b->target.manners.chap = &theirs;
        b->target.manners.chap_no_sha = no_sha;
        ask(b);
        assert_int_equal(found.state, ISCSI_DISCOVERY_HEARD);
        check_list("[iqn.2026-11.example:a]");
        bench_free(b);
    }
    for (unsigned none = 0; none < 2; none++) { /* a wrong secret, and none at all */
        struct iscsi_chap_account ours = account(false), theirs = account(false);
        struct bench *b = begin(targets, sizeof(targets));
        theirs.secret.bytes[3] ^= 1;
        b->settings.login.chap = none ? NULL : &ours;
        b->target.manners.chap = &theirs;
        ask(b);
        assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
        assert_true(found.refused);
        assert_memory_equal(found.why, "portal ", 7);
        check_printable(found.why);
        assert_null(strstr(found.why, "secret of ours"));
        assert_int_equal(b->session.state, ISCSI_IDLE);
        bench_pass(b, 60 * SECOND); /* and that was it */
        assert_int_equal(b->session.state, ISCSI_IDLE);
        bench_free(b);
    }
}

/* At every byte of the conversation: either all was heard, or it failed, with words; it never goes on, and never half. */
static void a_connection_that_ends_at_any_byte(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a\0TargetAddress=10.0.0.5:3260,1";
    unsigned heard = 0, failed = 0;
    uint64_t whole = 1000;
    (void)state;
    for (uint64_t at = 1; at < whole; at++) {
        struct bench *b = begin(targets, sizeof(targets));
        b->target.manners.text_chunk = 20;
        b->cut_in = at;
        ask(b);
        if (found.state == ISCSI_DISCOVERY_HEARD) {
            heard++;
            check_list("[iqn.2026-11.example:a]10.0.0.5:3260,1;");
        } else {
            failed++;
            assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
            assert_false(found.refused);
            assert_memory_equal(found.why, "portal ", 7);
        }
        assert_int_equal(b->session.state, ISCSI_IDLE);
        if (b->cut_in) /* it was over before */
            whole = at;
        bench_free(b);
    }
    assert_true(failed > 300 && heard > 20);
}

static void nobody_is_there(void **state)
{
    (void)state;
    struct bench *b = begin("", 0);
    b->absent = true;
    bench_start(b);
    bench_pass(b, 11 * SECOND);
    assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
    assert_int_equal(b->session.state, ISCSI_IDLE);
    check_printable(found.why);
    bench_free(b);
}

/* It answers pings and not what was asked. */
static void forget_text(struct fake_target *target, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)target;
    (void)data;
    if (iscsi_opcode(bhs) == ISCSI_TEXT_RESPONSE) { /* a word about its numbers instead */
        iscsi_bhs_init(bhs, ISCSI_NOP_IN, ISCSI_FINAL, ISCSI_TAG_NONE);
        be32_put(bhs->nop_in.ttt, ISCSI_TAG_NONE);
        *bytes = 0;
    }
}

static void no_answer_is_waited_for_so_long(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a";
    (void)state;
    struct bench *b = begin(targets, sizeof(targets));
    b->target.manners.mangle = forget_text;
    bench_start(b);
    bench_settle(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_RUNS);
    iscsi_discovery_give_up(&found, &b->session, b->now_ns);
    bench_pass(b, 10 * SECOND);
    assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
    assert_non_null(strstr(found.why, "in time; "));
    assert_int_equal(b->session.state, ISCSI_IDLE);
    iscsi_discovery_give_up(&found, &b->session, b->now_ns); /* late: nothing */
    bench_free(b);
}

/* There is always more to come. */
static void go_on(struct fake_target *target, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)target;
    (void)data;
    (void)bytes;
    if (iscsi_opcode(bhs) == ISCSI_TEXT_RESPONSE) {
        bhs->text_response.flags = ISCSI_CONTINUE;
        be32_put(bhs->text_response.ttt, 0x99);
    }
}

static void an_answer_without_end(void **state)
{
    static const char targets[] = "TargetName=iqn.2026-11.example:a";
    (void)state;
    struct bench *b = begin(targets, sizeof(targets));
    b->target.manners.mangle = go_on;
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
    assert_non_null(strstr(found.why, "does not end"));
    assert_int_equal(b->session.state, ISCSI_IDLE);
    bench_free(b);
}

/* A pair that is longer than there is room for, and text that is none. */
static void text_that_is_none(void **state)
{
    static char endless[ISCSI_LOGIN_TEXT * 2];
    static const char none[] = "TargetName=iqn.2026-11.example:a\0rubbish";
    (void)state;
    memset(endless, 'x', sizeof(endless));
    memcpy(endless, "TargetName=", 11);
    struct bench *b = begin(endless, sizeof(endless));
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
    assert_non_null(strstr(found.why, "longer than"));
    bench_free(b);
    b = begin(none, sizeof(none));
    ask(b);
    assert_int_equal(found.state, ISCSI_DISCOVERY_FAILED);
    assert_non_null(strstr(found.why, "key=value"));
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_in_pieces_of_any_size),
        cmocka_unit_test(no_target_at_all),
        cmocka_unit_test(what_is_said_twice_is_listed_once),
        cmocka_unit_test(what_is_no_name_or_address_is_counted),
        cmocka_unit_test(more_than_there_is_room_for),
        cmocka_unit_test(with_secrets),
        cmocka_unit_test(a_connection_that_ends_at_any_byte),
        cmocka_unit_test(nobody_is_there),
        cmocka_unit_test(no_answer_is_waited_for_so_long),
        cmocka_unit_test(an_answer_without_end),
        cmocka_unit_test(text_that_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
