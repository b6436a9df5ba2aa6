/* SPDX-License-Identifier: MIT */
/*
 * Text, keys, CHAP and the login: spelling, the rules of every operational key, hashes against published values, both
 * directions of CHAP with each way to cheat, redirection, refusals, answers in pieces.
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

static void pairs(void **state)
{
    static const char text[] = "A=1\0\0\0X-com.example.k=a=b\0Empty=\0";
    struct iscsi_text_reader r = iscsi_text_reader(text, sizeof(text) - 1);
    const char *key, *value;
    size_t n;
    (void)state;
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), OK);
    assert_true(iscsi_key_is(key, n, "A"));
    assert_string_equal(value, "1");
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), OK);
    assert_true(iscsi_key_is(key, n, "X-com.example.k"));
    assert_string_equal(value, "a=b");
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), OK);
    assert_string_equal(value, "");
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), ERR_NOT_FOUND);
    static const struct { const char *text; size_t bytes; } bad[] = {
        { "A=1", 3 }, { "A\0", 2 }, { "=1\0", 3 }, { "A B=1\0", 6 }, { "A\0B=1\0", 6 },
        { "KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK=1\0", 67 },
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char *copy = malloc(bad[i].bytes);
        memcpy(copy, bad[i].text, bad[i].bytes);
        r = iscsi_text_reader(copy, bad[i].bytes);
        assert_int_equal(iscsi_text_next(&r, &key, &n, &value), ERR_INVALID);
        free(copy);
    }
    char *large = malloc(ISCSI_VALUE_MAX + 4); /* the longest value, and one character more */
    memset(large, 'v', ISCSI_VALUE_MAX + 4);
    memcpy(large, "K=", 2);
    large[ISCSI_VALUE_MAX + 2] = 0;
    r = iscsi_text_reader(large, ISCSI_VALUE_MAX + 3);
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), OK);
    large[ISCSI_VALUE_MAX + 2] = 'v';
    large[ISCSI_VALUE_MAX + 3] = 0;
    r = iscsi_text_reader(large, ISCSI_VALUE_MAX + 4);
    assert_int_equal(iscsi_text_next(&r, &key, &n, &value), ERR_INVALID);
    free(large);
}

static void binary_values(void **state)
{
    uint8_t bytes[8];
    size_t n;
    (void)state;
    assert_int_equal(iscsi_text_binary("0x0aFf", bytes, 8, &n), OK);
    assert_int_equal(n, 2);
    assert_memory_equal(bytes, "\x0a\xff", 2);
    assert_int_equal(iscsi_text_binary("0xabc", bytes, 8, &n), OK);
    assert_memory_equal(bytes, "\x0a\xbc", 2);
    assert_int_equal(iscsi_text_binary("0bTWFu", bytes, 8, &n), OK);
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "Man", 3);
    assert_int_equal(iscsi_text_binary("0BTWE=", bytes, 8, &n), OK);
    assert_int_equal(n, 2);
    assert_int_equal(iscsi_text_binary("0bTQ==", bytes, 8, &n), OK);
    assert_int_equal(n, 1);
    static const char *const bad[] = { "", "0", "12", "0x", "0xzz", "0b", "0bTW", "0b====", "0bT=WF", "0bTW?u", "xab" };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(iscsi_text_binary(bad[i], bytes, 8, &n), ERR_INVALID);
    assert_int_equal(iscsi_text_binary("0x112233445566778899", bytes, 8, &n), ERR_RANGE);
    uint8_t *exact = malloc(8); /* so that a sanitizer sees one byte too many */
    assert_int_equal(iscsi_text_binary("0x11223344556677889", exact, 8, &n), ERR_RANGE);
    assert_int_equal(iscsi_text_binary("0x112233445566778", exact, 8, &n), OK);
    assert_int_equal(exact[0], 1);
    free(exact);
    assert_int_equal(iscsi_text_binary("0bAAAAAAAAAAAAAAAA", bytes, 8, &n), ERR_RANGE);
}

static void portals_and_names(void **state)
{
    struct iscsi_portal p;
    (void)state;
    assert_int_equal(iscsi_portal_parse("10.0.0.5", &p), OK);
    assert_int_equal(p.port, 3260);
    assert_int_equal(iscsi_portal_parse("[fe80::1]:99,7", &p), OK);
    assert_string_equal(p.host, "fe80::1");
    assert_int_equal(p.port, 99);
    assert_int_equal(p.group, 7);
    static const char *const bad[] = { "", ":3260", "a:", "a:0", "a:65536", "a:1,", "a,x", "[::1", "[]:1", "[::1]x",
                                       "a b", "a:1,70000" };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(iscsi_portal_parse(bad[i], &p), ERR_INVALID);
    assert_true(iscsi_name_valid("iqn.2026-11.example:lun"));
    assert_true(iscsi_name_valid("eui.02004567A425678D"));
    assert_false(iscsi_name_valid("iqn."));
    assert_false(iscsi_name_valid("foo.2026"));
    assert_false(iscsi_name_valid("iqn.2026-11.example/lun"));
    char longest[300];
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "iqn.", 4);
    longest[223] = 0;
    assert_true(iscsi_name_valid(longest));
    longest[223] = 'a';
    longest[224] = 0;
    assert_false(iscsi_name_valid(longest));
}

static void logical_unit_numbers(void **state)
{
    uint8_t lun[8];
    (void)state;
    for (unsigned i = 0; i < 16384; i++) {
        assert_true(iscsi_lun_encode(lun, i));
        assert_int_equal(iscsi_lun_decode(lun), i);
    }
    assert_false(iscsi_lun_encode(lun, 16384));
    assert_memory_equal((iscsi_lun_encode(lun, 5), lun), "\0\5\0\0\0\0\0\0", 8);
    assert_memory_equal((iscsi_lun_encode(lun, 300), lun), "\x41\x2c\0\0\0\0\0\0", 8);
    lun[3] = 1;
    assert_int_equal(iscsi_lun_decode(lun), -1);
}

/* One pair taken after our offers; the answer, if any, is in `out`. */
static struct iscsi_wishes wishes;
static char out[1024];
static enum status one(struct iscsi_negotiation *n, const char *key, const char *value, bool offer)
{
    char offers[1024];
    struct iscsi_text_writer w = { .text = offers, .bytes = sizeof(offers) }, answer = { .text = out,
                                                                                         .bytes = sizeof(out) };
    iscsi_negotiation_start(n, &wishes, false);
    if (offer)
        iscsi_negotiation_offer(n, &w);
    out[0] = 0;
    return iscsi_negotiation_take(n, key, strlen(key), value, &answer);
}

static void rules_of_the_keys(void **state)
{
    struct iscsi_negotiation n;
    (void)state;
    iscsi_wishes_default(&wishes);
    wishes.values.initial_r2t = 0;
    wishes.values.time2wait_s = 3;
    /* Answers. */
    assert_int_equal(one(&n, "HeaderDigest", "CRC32C", true), OK);
    assert_int_equal(n.result.header_digest, 1);
    assert_int_equal(one(&n, "HeaderDigest", "None", true), OK);
    assert_int_equal(n.result.header_digest, 0);
    assert_int_equal(one(&n, "HeaderDigest", "MD5", true), ERR_INVALID);
    assert_int_equal(one(&n, "InitialR2T", "Yes", true), OK);
    assert_int_equal(n.result.initial_r2t, 1);
    assert_int_equal(one(&n, "InitialR2T", "No", true), OK);
    assert_int_equal(n.result.initial_r2t, 0);
    assert_int_equal(one(&n, "InitialR2T", "yes", true), ERR_INVALID);
    assert_int_equal(one(&n, "ImmediateData", "No", true), OK);
    assert_int_equal(n.result.immediate_data, 0);
    assert_int_equal(one(&n, "MaxBurstLength", "1048576", true), OK);
    assert_int_equal(one(&n, "MaxBurstLength", "0x200", true), OK);
    assert_int_equal(n.result.max_burst_bytes, 512);
    assert_int_equal(one(&n, "MaxBurstLength", "1048577", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxBurstLength", "511", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxBurstLength", "x", true), ERR_INVALID);
    assert_int_equal(one(&n, "DefaultTime2Wait", "20", true), OK);
    assert_int_equal(n.result.time2wait_s, 20);
    assert_int_equal(one(&n, "DefaultTime2Wait", "2", true), ERR_INVALID);
    assert_int_equal(one(&n, "DefaultTime2Retain", "1", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxOutstandingR2T", "0", true), ERR_INVALID);
    assert_int_equal(one(&n, "ErrorRecoveryLevel", "1", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxConnections", "2", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxRecvDataSegmentLength", "16777215", true), OK);
    assert_int_equal(n.result.max_send_bytes, 16777215);
    assert_int_equal(one(&n, "MaxRecvDataSegmentLength", "16777216", true), ERR_INVALID);
    assert_int_equal(one(&n, "MaxBurstLength", "Irrelevant", true), OK);
    assert_int_equal(n.result.max_burst_bytes, 262144);
    assert_string_equal(out, "");
    /* Offers of the target's: what comes out is said. */
    assert_int_equal(one(&n, "InitialR2T", "No", false), OK);
    assert_string_equal(out, "InitialR2T=No");
    assert_int_equal(one(&n, "ImmediateData", "Yes", false), OK);
    assert_string_equal(out, "ImmediateData=Yes");
    assert_int_equal(one(&n, "MaxBurstLength", "8192", false), OK);
    assert_string_equal(out, "MaxBurstLength=8192");
    assert_int_equal(one(&n, "DefaultTime2Wait", "1", false), OK);
    assert_string_equal(out, "DefaultTime2Wait=3");
    assert_int_equal(one(&n, "DataDigest", "None,CRC32C", false), OK);
    assert_string_equal(out, "DataDigest=CRC32C");
    assert_int_equal(one(&n, "ErrorRecoveryLevel", "2", false), OK);
    assert_string_equal(out, "ErrorRecoveryLevel=0");
    assert_int_equal(one(&n, "iSCSIProtocolLevel", "2", true), OK);
    assert_string_equal(out, "iSCSIProtocolLevel=1");
    assert_int_equal(one(&n, "TaskReporting", "ResponseFence,RFC3720", true), OK);
    assert_string_equal(out, "TaskReporting=RFC3720");
    assert_int_equal(one(&n, "IFMarker", "Yes", true), OK);
    assert_string_equal(out, "IFMarker=No");
    assert_int_equal(one(&n, "OFMarkInt", "1~2", true), OK);
    assert_string_equal(out, "OFMarkInt=Reject");
    assert_int_equal(one(&n, "X-org.example.thing", "7", true), OK);
    assert_string_equal(out, "X-org.example.thing=NotUnderstood");
    assert_int_equal(one(&n, "X-org.example.thing", "NotUnderstood", true), OK);
    assert_string_equal(out, "");
    assert_int_equal(one(&n, "TargetAlias", "disk", true), OK);
    assert_string_equal(out, "");
    assert_int_equal(one(&n, "TargetPortalGroupTag", "9", true), OK);
    assert_int_equal(n.result.portal_group, 9);
    /* What the offer decides alone holds without an answer; so does every default. */
    struct iscsi_text_writer w = { .text = out, .bytes = sizeof(out) };
    wishes.values.immediate_data = 0;
    iscsi_negotiation_start(&n, &wishes, false);
    iscsi_negotiation_offer(&n, &w);
    assert_int_equal(iscsi_negotiation_finish(&n), OK);
    assert_int_equal(n.result.immediate_data, 0);
    assert_int_equal(n.result.initial_r2t, 1);
    assert_int_equal(n.result.max_send_bytes, 8192);
    assert_int_equal(n.result.first_burst_bytes, 65536);
    wishes.values.immediate_data = 1;
    static const char *const nothing[] = { "NotUnderstood", "Irrelevant", "Reject" };
    for (size_t i = 0; i < ARRAY_COUNT(nothing); i++) {
        assert_int_equal(one(&n, "InitialR2T", nothing[i], true), OK);
        assert_int_equal(n.result.initial_r2t, 1);
        assert_int_equal(one(&n, "MaxRecvDataSegmentLength", nothing[i], true), OK);
        assert_int_equal(n.result.max_send_bytes, 8192);
        assert_int_equal(one(&n, "DataDigest", nothing[i], true), OK);
        assert_int_equal(n.result.data_digest, 0);
        assert_string_equal(out, "");
    }
    wishes.header_digest = ISCSI_DIGEST_REQUIRED; /* an offer that leaves out what is required */
    assert_int_equal(one(&n, "HeaderDigest", "None", false), OK);
    assert_string_equal(out, "HeaderDigest=Reject");
    wishes.header_digest = ISCSI_DIGEST_PREFERRED;
    assert_int_equal(one(&n, "HeaderDigest", "None", false), OK);
    assert_string_equal(out, "HeaderDigest=None");
    /* Twice; a required digest that is not there; bursts that contradict each other. */
    w = (struct iscsi_text_writer){ .text = out, .bytes = sizeof(out) };
    assert_int_equal(one(&n, "InitialR2T", "Yes", true), OK);
    assert_int_equal(iscsi_negotiation_take(&n, "InitialR2T", 10, "Yes", &w), ERR_INVALID);
    wishes.header_digest = ISCSI_DIGEST_REQUIRED;
    assert_int_equal(one(&n, "HeaderDigest", "Reject", true), OK);
    assert_int_equal(iscsi_negotiation_finish(&n), ERR_INVALID);
    assert_non_null(strstr(n.error, "required"));
    wishes.header_digest = ISCSI_DIGEST_OFF;
    assert_int_equal(one(&n, "MaxBurstLength", "512", true), OK);
    assert_int_equal(iscsi_negotiation_finish(&n), OK);
    assert_int_equal(n.result.first_burst_bytes, 512);
}

static void set_secret(struct iscsi_secret *secret, const char *text)
{
    secret->count = (uint8_t)strlen(text);
    memcpy(secret->bytes, text, secret->count);
}

static void hashes(void **state)
{
    /* RFC 1321 A.5 and FIPS 180-2 B.1: "abc", as identifier 'a', secret "b", challenge "c". */
    static const uint8_t md5[] = { 0x90, 0x01, 0x50, 0x98, 0x3c, 0xd2, 0x4f, 0xb0, 0xd6, 0x96, 0x3f, 0x7d, 0x28, 0xe1,
                                   0x7f, 0x72 };
    static const uint8_t sha[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
                                   0x22, 0x23,
                                   0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
                                       0x15, 0xad };
    struct iscsi_secret secret = { .bytes = "b", .count = 1 };
    uint8_t hash[ISCSI_CHAP_HASH_MAX];
    (void)state;
    assert_int_equal(iscsi_chap_hash(ISCSI_CHAP_MD5, 'a', &secret, (const uint8_t *)"c", 1, hash), 16);
    assert_memory_equal(hash, md5, 16);
    assert_int_equal(iscsi_chap_hash(ISCSI_CHAP_SHA256, 'a', &secret, (const uint8_t *)"c", 1, hash), 32);
    assert_memory_equal(hash, sha, 32);
}

static struct iscsi_chap_account account(bool mutual)
{
    struct iscsi_chap_account a = { .mutual = mutual };
    strcpy(a.name, "alpha");
    set_secret(&a.secret, "a secret of ours");
    if (mutual) {
        strcpy(a.mutual_name, "the-target");
        set_secret(&a.mutual_secret, "a secret of theirs");
    }
    return a;
}

static void accounts_are_checked(void **state)
{
    struct iscsi_chap_account a = account(true);
    const char *why;
    (void)state;
    assert_int_equal(iscsi_chap_check(&a, &why), OK);
    set_secret(&a.mutual_secret, "a secret of ours");
    assert_int_equal(iscsi_chap_check(&a, &why), ERR_INVALID);
    assert_non_null(strstr(why, "same secret"));
    set_secret(&a.mutual_secret, "eleven char");
    assert_int_equal(iscsi_chap_check(&a, &why), ERR_INVALID);
    a = account(false);
    set_secret(&a.secret, "eleven char");
    assert_int_equal(iscsi_chap_check(&a, &why), ERR_INVALID);
    a = account(false);
    a.name[0] = 0;
    assert_int_equal(iscsi_chap_check(&a, &why), ERR_INVALID);
}

/* Starts a session and expects READY, or a refusal with these words. */
static struct bench *attempt(struct bench *b, const char *words)
{
    bench_start(b);
    bench_settle(b);
    if (words) {
        if (bench_events(b, ISCSI_EVENT_REFUSED) + bench_events(b, ISCSI_EVENT_DOWN) != 1 || !strstr(b->text, words))
            print_error("%s\n", b->text);
        assert_int_equal(bench_events(b, ISCSI_EVENT_REFUSED) + bench_events(b, ISCSI_EVENT_DOWN), 1);
        assert_non_null(strstr(b->text, words));
        assert_null(strstr(b->text, "secret of ours"));
        assert_null(strstr(b->text, "secret of theirs"));
        assert_int_equal(b->session.counts.logins, 0);
    } else {
        if (b->session.state != ISCSI_READY)
            print_error("%s\n", b->text);
        assert_int_equal(b->session.state, ISCSI_READY);
    }
    assert_int_equal(b->target.complaints, 0);
    return b;
}

static void chap_logins(void **state)
{
    (void)state;
    for (unsigned mutual = 0; mutual < 2; mutual++)
        for (unsigned algorithm = 5; algorithm <= 7; algorithm += 2)
            for (unsigned chunk = 0; chunk < 40; chunk += 13) {
                struct iscsi_chap_account ours = account(mutual), theirs = account(mutual);
                struct bench *b = bench_new();
                b->settings.login.chap = &ours;
                b->target.manners.chap = &theirs;
                b->target.manners.chap_algorithm = algorithm;
                b->target.manners.login_chunk = chunk;
                attempt(b, NULL);
                assert_int_equal(b->target.algorithm, algorithm);
                bench_free(b);
            }
    struct bench *b = bench_new(); /* SHA-256 is preferred */
    struct iscsi_chap_account ours = account(false), theirs = account(false);
    b->settings.login.chap = &ours;
    b->target.manners.chap = &theirs;
    attempt(b, NULL);
    assert_int_equal(b->target.algorithm, 7);
    bench_free(b);

    b = bench_new(); /* 7 is something else there: MD5 at the next try, and then for good */
    b->settings.login.chap = &ours;
    b->target.manners.chap = &theirs;
    b->target.manners.chap_no_sha = true;
    attempt(b, "once more with MD5");
    bench_pass(b, SECOND);
    assert_int_equal(b->session.state, ISCSI_READY);
    assert_int_equal(b->target.algorithm, 5);
    bench_cut(b);
    bench_pass(b, SECOND);
    assert_int_equal(b->session.state, ISCSI_READY);
    assert_int_equal(b->session.counts.drops, 2);
    bench_free(b);

    b = bench_new(); /* a wrong secret is refused with both, and told */
    set_secret(&theirs.secret, "not this secret!");
    b->settings.login.chap = &ours;
    b->target.manners.chap = &theirs;
    bench_start(b);
    bench_pass(b, SECOND);
    assert_int_equal(bench_events(b, ISCSI_EVENT_REFUSED), 1);
    assert_int_equal(bench_events(b, ISCSI_EVENT_DOWN), 1);
    bench_free(b);
}

static void chap_refusals(void **state)
{
    struct iscsi_chap_account one_way = account(false), both = account(true), wrong = account(false),
        other = account(true);
    (void)state;
    set_secret(&wrong.secret, "not this secret!");
    set_secret(&other.mutual_secret, "another secret of theirs");
    struct bench *b = bench_new();
    b->settings.login.chap = &wrong;
    b->target.manners.chap = &one_way;
    b->target.manners.chap_algorithm = 5;
    attempt(b, "authentication failed");
    assert_int_equal(bench_events(b, ISCSI_EVENT_REFUSED), 1);
    bench_free(b);

    b = bench_new(); /* none configured here */
    b->target.manners.chap = &one_way;
    bench_free(attempt(b, "configure CHAP"));

    b = bench_new(); /* the target wants none: fine one way, refused both ways */
    b->settings.login.chap = &one_way;
    bench_free(attempt(b, NULL));
    b = bench_new();
    b->settings.login.chap = &both;
    bench_free(attempt(b, "no way to authenticate in common"));

    b = bench_new();
    b->settings.login.chap = &both;
    b->target.manners.chap = &other;
    attempt(b, "does not know the secret");
    assert_int_equal(bench_events(b, ISCSI_EVENT_REFUSED), 1); /* no second try with a weaker hash */
    assert_false(b->session.md5_only);
    bench_free(b);

    b = bench_new();
    b->settings.login.chap = &both;
    b->target.manners.chap = &both;
    b->target.manners.chap_skip_proof = true;
    bench_free(attempt(b, "did not prove"));

    b = bench_new();
    b->settings.login.chap = &both;
    b->target.manners.chap = &both;
    b->target.manners.chap_reflect = true;
    bench_free(attempt(b, "our own CHAP answer"));

    b = bench_new();
    b->settings.login.chap = &both;
    other = account(true);
    strcpy(other.mutual_name, "somebody");
    b->target.manners.chap = &other;
    bench_free(attempt(b, "another CHAP name"));

    b = bench_new();
    b->settings.login.chap = &both;
    b->target.manners.chap = &both;
    b->target.manners.chap_algorithm = 6;
    bench_free(attempt(b, "not offered"));
}

static void a_reflected_challenge(void **state)
{
    struct iscsi_chap_account both = account(true);
    struct iscsi_chap chap;
    uint8_t fresh[33];
    char text[512], hex[80] = "0x";
    struct iscsi_text_writer w = { .text = text, .bytes = sizeof(text) };
    (void)state;
    memset(fresh, 0xa5, sizeof(fresh));
    for (int i = 0; i < 32; i++)
        strcat(hex, "a5");
    iscsi_chap_start(&chap, &both);
    assert_int_equal(iscsi_chap_step(&chap, fresh, &w), OK);
    assert_true(iscsi_chap_take(&chap, "CHAP_A", 6, "7"));
    assert_true(iscsi_chap_take(&chap, "CHAP_I", 6, "1"));
    assert_true(iscsi_chap_take(&chap, "CHAP_C", 6, hex));
    assert_false(iscsi_chap_take(&chap, "CHAP_X", 6, hex));
    assert_int_equal(iscsi_chap_step(&chap, fresh, &w), ERR_INVALID);
    iscsi_chap_start(&chap, &both); /* a key twice */
    assert_int_equal(iscsi_chap_step(&chap, fresh, &w), OK);
    iscsi_chap_take(&chap, "CHAP_A", 6, "7");
    iscsi_chap_take(&chap, "CHAP_A", 6, "7");
    assert_int_equal(iscsi_chap_step(&chap, fresh, &w), ERR_INVALID);
    assert_non_null(strstr(chap.error, "twice"));
}

static void answers_in_pieces(void **state)
{
    (void)state;
    for (unsigned chunk = 1; chunk < 200; chunk += 1 + chunk / 8) {
        struct bench *b = bench_new();
        b->target.manners.login_chunk = chunk;
        bench_start(b);
        bench_settle(b);
        if (chunk >= 8) /* else it is more rounds than a login may take */
            assert_int_equal(b->session.state, ISCSI_READY);
        else if (chunk < 3)
            assert_non_null(strstr(b->text, "rounds"));
        assert_int_equal(b->target.complaints, 0);
        bench_free(b);
    }
}

static void offers_of_the_target(void **state)
{
    static const char extra[] = "IFMarker=Yes\0X-org.example=1\0TaskReporting=FastAbort\0TargetAlias=a disk";
    (void)state;
    struct bench *b = bench_new();
    b->target.manners.login_extra = extra;
    b->target.manners.login_extra_bytes = sizeof(extra);
    bench_free(attempt(b, NULL));
    static const char twice[] = "DataDigest=None";
    b = bench_new();
    b->target.manners.login_extra = twice;
    b->target.manners.login_extra_bytes = sizeof(twice);
    bench_free(attempt(b, "came twice"));
}

static void statuses(void **state)
{
    static const struct { unsigned status; bool again; const char *words; } table[] = {
        { 0x0201, false, "authentication failed" }, { 0x0202, false, "access list" }, { 0x0203, false,
                                                                                        "no target of that name" },
        { 0x0300, true, "error of its own" }, { 0x0301, true, "not available" }, { 0x0302, true, "resources" },
        { 0x0299, false, "error of the initiator's" }, { 0x7f01, true, "not in the standard" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        struct bench *b = bench_new();
        b->target.manners.login_refusals = 1;
        b->target.manners.login_status = table[i].status;
        attempt(b, table[i].words);
        assert_int_equal(bench_events(b, ISCSI_EVENT_REFUSED), !table[i].again);
        bench_pass(b, 10 * SECOND); /* it is tried again in any case: somebody may have put it right */
        assert_int_equal(b->session.state, ISCSI_READY);
        bench_free(b);
    }
}

static void redirection(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct bench *b = bench_new();
        b->target.manners.login_refusals = 2;
        b->target.manners.login_status = 0x0101 + i;
        b->target.manners.moved_to = "[fe80::7]:3333,4";
        attempt(b, NULL);
        assert_int_equal(bench_events(b, ISCSI_EVENT_MOVED), 2);
        assert_int_equal(b->target.logins, 1);
        assert_string_equal(b->session.portal.host, "fe80::7");
        assert_int_equal(b->session.portal.port, 3333);
        bench_cut(b); /* after a loss the configured address comes first */
        assert_string_equal(b->session.portal.host, "10.0.0.5");
        bench_free(b);
    }
    struct bench *b = bench_new(); /* for ever */
    b->target.manners.login_refusals = 100;
    b->target.manners.login_status = 0x0101;
    b->target.manners.moved_to = "10.0.0.6";
    bench_free(attempt(b, "times in a row"));
    b = bench_new(); /* nowhere */
    b->target.manners.login_refusals = 1;
    b->target.manners.login_status = 0x0101;
    bench_free(attempt(b, "not where to"));
}

static void patience(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    b->absent = true;
    bench_start(b);
    bench_pass(b, 10 * SECOND);
    assert_non_null(strstr(b->text, "nobody answers"));
    b->absent = false;
    b->freeze_out = true;
    bench_pass(b, 16 * SECOND);
    assert_non_null(strstr(b->text, "takes too long"));
    bench_free(b);
}

static bool odd_login_bit(struct fake_target *t)
{
    return !t->full;
}
static unsigned change_at;
static uint8_t change_bit;
static void change_login(struct fake_target *t, union iscsi_bhs *bhs, uint8_t *data, uint32_t *bytes)
{
    (void)data;
    (void)bytes;
    if (odd_login_bit(t) && t->pdus_out == 1)
        bhs->bytes[change_at] ^= change_bit;
}

/* Every bit of the second login response's header: refused or harmless, never a hang or a crash. */
static void login_headers(void **state)
{
    (void)state;
    for (change_at = 0; change_at < 48; change_at++)
        for (change_bit = 1; change_bit; change_bit = (uint8_t)(change_bit << 1)) {
            struct bench *b = bench_new();
            b->target.manners.mangle = change_login;
            bench_start(b);
            bench_pass(b, 100 * SECOND);
            assert_int_equal(b->session.state, ISCSI_READY);
            bench_free(b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs),
        cmocka_unit_test(binary_values),
        cmocka_unit_test(portals_and_names),
        cmocka_unit_test(logical_unit_numbers),
        cmocka_unit_test(rules_of_the_keys),
        cmocka_unit_test(hashes),
        cmocka_unit_test(accounts_are_checked),
        cmocka_unit_test(chap_logins),
        cmocka_unit_test(chap_refusals),
        cmocka_unit_test(a_reflected_challenge),
        cmocka_unit_test(answers_in_pieces),
        cmocka_unit_test(offers_of_the_target),
        cmocka_unit_test(statuses),
        cmocka_unit_test(redirection),
        cmocka_unit_test(patience),
        cmocka_unit_test(login_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
