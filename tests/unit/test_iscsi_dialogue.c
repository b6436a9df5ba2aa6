/* SPDX-License-Identifier: MIT */
/*
 * The login's dialogue, response by response and without a session around it: what each header field must be, which
 * stage may follow which, how much text may come, and that CHAP both ways cannot be skipped, cut short or answered
 * wrongly in a single bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "net/iscsi/iscsi_login.h"

#define ITT 0x80000007u
#define TO_OPERATIONAL (ISCSI_LOGIN_TRANSIT | ISCSI_STAGE_SECURITY << 2 | ISCSI_STAGE_OPERATIONAL)
#define TO_FULL (ISCSI_LOGIN_TRANSIT | ISCSI_STAGE_OPERATIONAL << 2 | ISCSI_STAGE_FULL)
#define SECURITY (ISCSI_STAGE_SECURITY << 2)
#define OPERATIONAL (ISCSI_STAGE_OPERATIONAL << 2)

static struct iscsi_login login;
static struct iscsi_wishes wishes;
static struct iscsi_chap_account account;
static struct iscsi_login_setup setup;
static uint32_t stat_sn;
static uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1];
static char sent[ISCSI_LOGIN_SEGMENT + 1]; /* text of the last request */
static size_t sent_bytes;
static union iscsi_bhs request;

static void take_request(void)
{
    const void *text;
    uint32_t bytes;
    iscsi_login_request(&login, &request, &text, &bytes);
    assert_in_range(bytes, 0, ISCSI_LOGIN_SEGMENT);
    memcpy(sent, text, sent_bytes = bytes);
}

enum { PLAIN, ONE_WAY, BOTH_WAYS };

static void begin(unsigned chap)
{
    iscsi_wishes_default(&wishes);
    memset(&account, 0, sizeof(account));
    strcpy(account.name, "alpha");
    account.secret.count = 16;
    memcpy(account.secret.bytes, "a secret of ours", 16);
    account.mutual = chap == BOTH_WAYS;
    account.mutual_secret.count = 18;
    memcpy(account.mutual_secret.bytes, "a secret of theirs", 18);
    setup = (struct iscsi_login_setup){ .initiator = "iqn.2026-11.example:a", .target = "iqn.2026-11.example:b",
                                        .wishes = &wishes, .chap = chap == PLAIN ? NULL : &account,
                                        .isid = { 0x80, 1, 2, 3, 4, 5 } };
    for (unsigned i = 0; i < sizeof(fresh); i++)
        fresh[i] = (uint8_t)(i * 5 + 1);
    iscsi_login_start(&login, &setup, ITT, 77);
    stat_sn = 1000;
    take_request();
}

/* A response that has everything right; what is wrong about it is put in by the test. */
static union iscsi_bhs response(unsigned flags)
{
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_LOGIN_RESPONSE, flags, ITT);
    memcpy(bhs.login_response.isid, setup.isid, 6);
    be32_put(bhs.login_response.stat_sn, stat_sn);
    be32_put(bhs.login_response.exp_cmd_sn, 77);
    be32_put(bhs.login_response.max_cmd_sn, 100);
    if (flags & ISCSI_LOGIN_TRANSIT && ISCSI_LOGIN_NSG(flags) == ISCSI_STAGE_FULL)
        be16_put(bhs.login_response.tsih, 5);
    return bhs;
}

static enum iscsi_login_result give(const union iscsi_bhs *bhs, const char *text, size_t bytes)
{
    enum iscsi_login_result result = iscsi_login_response(&login, bhs, text, (uint32_t)bytes, fresh);
    stat_sn++;
    if (result == ISCSI_LOGIN_GO_ON)
        take_request();
    else if (result == ISCSI_LOGIN_REFUSED || result == ISCSI_LOGIN_BROKEN)
        assert_true(login.error[0]);
    return result;
}

static enum iscsi_login_result answer(unsigned flags, const char *text, size_t bytes)
{
    union iscsi_bhs bhs = response(flags);
    return give(&bhs, text, bytes);
}
#define SAY(flags, text) answer(flags, text, sizeof(text))

static bool was_sent(const char *pair)
{
    for (const char *at = sent; at < sent + sent_bytes; at += strlen(at) + 1)
        if (!strncmp(at, pair, strlen(pair)))
            return true;
    return false;
}

static void a_plain_login(void **state)
{
    (void)state;
    begin(PLAIN);
    assert_int_equal(request.login_request.flags, TO_OPERATIONAL);
    assert_int_equal(be32_get(request.login_request.cmd_sn), 77);
    assert_true(was_sent("AuthMethod=None") && was_sent("SessionType=Normal") && was_sent("TargetName="));
    assert_int_equal(SAY(TO_OPERATIONAL, "AuthMethod=None\0TargetPortalGroupTag=3"), ISCSI_LOGIN_GO_ON);
    assert_int_equal(request.login_request.flags, TO_FULL);
    assert_int_equal(be32_get(request.login_request.exp_stat_sn), 1001);
    assert_true(was_sent("HeaderDigest=CRC32C,None") && was_sent("ErrorRecoveryLevel=0"));
    assert_int_equal(SAY(TO_FULL, "MaxBurstLength=65536"), ISCSI_LOGIN_DONE);
    assert_int_equal(login.tsih, 5);
    assert_int_equal(login.exp_stat_sn, 1002);
    assert_int_equal(login.negotiation.result.portal_group, 3);
    assert_int_equal(login.negotiation.result.max_burst_bytes, 65536);
}

/* Each field of a header that is not what it must be. The first response and the second. */
static void fields_that_are_wrong(void **state)
{
    static const struct { const char *name; unsigned at; uint8_t change; bool first, second; } fields[] = {
        { "opcode", 0, 0x01, true, true }, { "version", 3, 0x01, true, true }, { "ISID", 8, 0x80, true, true },
        { "ISID's end", 13, 0x01, true, true }, { "tag", 16, 0x80, true, true }, { "tag's end", 19, 0x01, true, true },
        { "StatSN", 27, 0x01, false, true }, { "StatSN's front", 24, 0x80, false, true },
        { "TSIH", 15, 0x05, false, true }, { "stage", 1, 0x04, true, true }, { "next stage", 1, 0x03, true, true },
        { "T and C", 1, 0x40, true, true },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        for (unsigned second = 0; second < 2; second++) {
            begin(PLAIN);
            if (second)
                assert_int_equal(SAY(TO_OPERATIONAL, "AuthMethod=None"), ISCSI_LOGIN_GO_ON);
            union iscsi_bhs bhs = response(second ? TO_FULL : TO_OPERATIONAL);
            bhs.bytes[fields[i].at] ^= fields[i].change;
            enum iscsi_login_result result = give(&bhs, "TargetAlias=x", 14);
            bool wrong = second ? fields[i].second : fields[i].first;
            if ((result == ISCSI_LOGIN_BROKEN) != wrong)
                print_error("%s: %d\n", fields[i].name, result);
            assert_int_equal(result == ISCSI_LOGIN_BROKEN, wrong);
        }
}

static void stages_that_do_not_follow(void **state)
{
    (void)state;
    begin(ONE_WAY); /* T where we did not set it: authentication has only begun */
    assert_int_equal(request.login_request.flags & ISCSI_LOGIN_TRANSIT, 0);
    assert_int_equal(SAY(TO_OPERATIONAL, "AuthMethod=CHAP"), ISCSI_LOGIN_BROKEN);
    begin(ONE_WAY);
    assert_int_equal(SAY(TO_OPERATIONAL, "AuthMethod=None"), ISCSI_LOGIN_BROKEN);
    begin(PLAIN); /* two responses to one request */
    union iscsi_bhs bhs = response(SECURITY);
    assert_int_equal(iscsi_login_response(&login, &bhs, "TargetAlias=x", 14, fresh), ISCSI_LOGIN_GO_ON);
    be32_put(bhs.login_response.stat_sn, 1001);
    assert_int_equal(iscsi_login_response(&login, &bhs, "TargetAlias=x", 14, fresh), ISCSI_LOGIN_BROKEN);
    begin(PLAIN); /* AuthMethod twice, and in the wrong stage */
    assert_int_equal(SAY(SECURITY, "AuthMethod=None"), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(SECURITY, "AuthMethod=None"), ISCSI_LOGIN_BROKEN);
    begin(PLAIN);
    assert_int_equal(SAY(TO_OPERATIONAL, ""), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(OPERATIONAL, "AuthMethod=None"), ISCSI_LOGIN_BROKEN);
    begin(PLAIN); /* a target that never comes to an end */
    unsigned rounds = 0;
    while (SAY(SECURITY, "TargetAlias=x") == ISCSI_LOGIN_GO_ON)
        rounds++;
    assert_int_equal(rounds, ISCSI_LOGIN_ROUNDS);
}

static void text_without_end(void **state)
{
    static char text[8192];
    (void)state;
    memset(text, 'v', sizeof(text));
    memcpy(text, "TargetAlias=", 12);
    begin(PLAIN);
    assert_int_equal(answer(SECURITY | ISCSI_CONTINUE, text, 8000), ISCSI_LOGIN_GO_ON);
    assert_int_equal(sent_bytes, 0);
    assert_int_equal(request.login_request.flags & ISCSI_LOGIN_TRANSIT, 0);
    assert_int_equal(answer(SECURITY | ISCSI_CONTINUE, text, 8000), ISCSI_LOGIN_GO_ON);
    assert_int_equal(answer(SECURITY | ISCSI_CONTINUE, text, 385), ISCSI_LOGIN_BROKEN);
    assert_non_null(strstr(login.error, "16384"));
    begin(PLAIN); /* what came in pieces is read once, and forgotten */
    assert_int_equal(answer(SECURITY | ISCSI_CONTINUE, "AuthMeth", 8), ISCSI_LOGIN_GO_ON);
    assert_int_equal(answer(SECURITY, "od=None", 8), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(TO_OPERATIONAL, ""), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(TO_FULL, ""), ISCSI_LOGIN_DONE);
    begin(PLAIN); /* answers that do not fit into a request */
    size_t n = 0;
    for (unsigned i = 0; i < 700; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "X%07u=", i) + 1;
    assert_int_equal(answer(SECURITY, text, n), ISCSI_LOGIN_BROKEN);
    assert_non_null(strstr(login.error, "do not fit"));
}

/* ---- CHAP ---- */

/* Up to our answer; the target's challenge is "01020304...". */
static void challenge(unsigned chap, const char *algorithm, const char *identifier)
{
    char text[200];
    size_t n = 0;
    begin(chap);
    assert_int_equal(SAY(SECURITY, "AuthMethod=CHAP"), ISCSI_LOGIN_GO_ON);
    assert_true(was_sent("CHAP_A=7,5"));
    n += (size_t)sprintf(text + n, "CHAP_A=%s", algorithm) + 1;
    n += (size_t)sprintf(text + n, "CHAP_I=%s", identifier) + 1;
    n += (size_t)sprintf(text + n, "CHAP_C=0x0102030405060708") + 1;
    assert_int_equal(answer(SECURITY, text, n), ISCSI_LOGIN_GO_ON);
    assert_int_equal(request.login_request.flags, TO_OPERATIONAL);
}

static void hex_of(const uint8_t *bytes, size_t count, char *text)
{
    strcpy(text, "0x");
    for (size_t i = 0; i < count; i++)
        sprintf(text + 2 + 2 * i, "%02x", bytes[i]);
}

static void our_answer(void **state)
{
    static const uint8_t theirs[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    static const char *const algorithms[] = { "5", "7" }, *const identifiers[] = { "0", "0xff", "33" };
    static const uint8_t numbers[] = { 0, 255, 33 };
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < 3; k++) {
            uint8_t hash[ISCSI_CHAP_HASH_MAX];
            char pair[100] = "CHAP_R=";
            challenge(ONE_WAY, algorithms[i], identifiers[k]);
            size_t n = iscsi_chap_hash(i ? ISCSI_CHAP_SHA256 : ISCSI_CHAP_MD5, numbers[k], &account.secret, theirs, 8,
                                       hash);
            hex_of(hash, n, pair + 7);
            assert_true(was_sent(pair) && was_sent("CHAP_N=alpha"));
            assert_false(was_sent("CHAP_I") || was_sent("CHAP_C"));
            assert_int_equal(SAY(TO_OPERATIONAL, ""), ISCSI_LOGIN_GO_ON);
        }
    static const char *const bad[][3] = { { "6", "1", "0x01" }, { "8", "1", "0x01" }, { "5", "256", "0x01" },
                                          { "5", "-1", "0x01" }, { "5", "1", "01" }, { "5", "1", "0x" },
                                          { "7,5", "1", "0x01" }, { "", "1", "0x01" } };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        char text[100];
        size_t n = 0;
        begin(ONE_WAY);
        assert_int_equal(SAY(SECURITY, "AuthMethod=CHAP"), ISCSI_LOGIN_GO_ON);
        n += (size_t)sprintf(text + n, "CHAP_A=%s", bad[i][0]) + 1;
        n += (size_t)sprintf(text + n, "CHAP_I=%s", bad[i][1]) + 1;
        n += (size_t)sprintf(text + n, "CHAP_C=%s", bad[i][2]) + 1;
        assert_int_equal(answer(SECURITY, text, n), ISCSI_LOGIN_REFUSED);
    }
    static const char missing[][40] = { "CHAP_A=5\0CHAP_I=1", "CHAP_A=5\0CHAP_C=0x01", "CHAP_I=1\0CHAP_C=0x01", "" };
    for (unsigned i = 0; i < ARRAY_COUNT(missing); i++) {
        begin(ONE_WAY);
        assert_int_equal(SAY(SECURITY, "AuthMethod=CHAP"), ISCSI_LOGIN_GO_ON);
        assert_int_equal(answer(SECURITY, missing[i], sizeof(missing[i])), ISCSI_LOGIN_REFUSED);
    }
    begin(ONE_WAY); /* SHA-256 where MD5 alone was offered */
    login.chap.md5_only = true;
    assert_int_equal(SAY(SECURITY, "AuthMethod=CHAP"), ISCSI_LOGIN_GO_ON);
    assert_true(was_sent("CHAP_A=5"));
    assert_false(was_sent("CHAP_A=5,") || was_sent("CHAP_A=7"));
    assert_int_equal(SAY(SECURITY, "CHAP_A=7\0CHAP_I=1\0CHAP_C=0x01"), ISCSI_LOGIN_REFUSED);
}

/* The proof of the target's, right in all but one bit, cut, too long, in base64; and right. */
static void their_answer(void **state)
{
    uint8_t hash[ISCSI_CHAP_HASH_MAX + 1] = { 0 };
    char text[200];
    (void)state;
    for (unsigned algorithm = 5; algorithm <= 7; algorithm += 2) {
        size_t bytes = algorithm == 5 ? 16 : 32;
        for (unsigned bit = 0; bit <= bytes * 8 + 3; bit++) {
            size_t count = bytes, n;
            challenge(BOTH_WAYS, algorithm == 5 ? "5" : "7", "9");
            iscsi_chap_hash((enum iscsi_chap_algorithm)algorithm, fresh[32], &account.mutual_secret, fresh, 32, hash);
            if (bit < bytes * 8)
                hash[bit / 8] ^= (uint8_t)(1u << bit % 8);
            else if (bit == bytes * 8)
                count--;
            else if (bit == bytes * 8 + 1)
                count++;
            else if (bit == bytes * 8 + 2)
                memset(hash, 0, sizeof(hash));
            n = (size_t)sprintf(text, "CHAP_N=target") + 1;
            strcpy(text + n, "CHAP_R=");
            hex_of(hash, count, text + n + 7);
            n += strlen(text + n) + 1;
            bool right = bit == bytes * 8 + 3;
            assert_int_equal(answer(TO_OPERATIONAL, text, n), right ? ISCSI_LOGIN_GO_ON : ISCSI_LOGIN_REFUSED);
            if (!right)
                assert_null(strstr(login.error, "secret of theirs"));
        }
    }
}

/* Each way around the target's proof. */
static void proofs_that_are_skipped(void **state)
{
    (void)state;
    begin(BOTH_WAYS);
    assert_int_equal(SAY(SECURITY, "AuthMethod=None"), ISCSI_LOGIN_REFUSED);
    begin(BOTH_WAYS); /* no method at all */
    assert_int_equal(SAY(SECURITY, "TargetAlias=x"), ISCSI_LOGIN_REFUSED);
    begin(BOTH_WAYS);
    assert_int_equal(SAY(SECURITY, "AuthMethod=Reject"), ISCSI_LOGIN_REFUSED);
    challenge(BOTH_WAYS, "7", "9"); /* neither name nor answer */
    assert_int_equal(SAY(TO_OPERATIONAL, ""), ISCSI_LOGIN_REFUSED);
    challenge(BOTH_WAYS, "7", "9"); /* not yet, it says */
    assert_int_equal(SAY(SECURITY, ""), ISCSI_LOGIN_REFUSED);
    challenge(BOTH_WAYS, "7", "9"); /* straight into the full feature phase */
    union iscsi_bhs bhs = response(ISCSI_LOGIN_TRANSIT | SECURITY | ISCSI_STAGE_FULL);
    assert_int_equal(give(&bhs, "", 1), ISCSI_LOGIN_BROKEN);
    begin(BOTH_WAYS); /* its name and answer of before, in the challenge: they do not count later */
    assert_int_equal(SAY(SECURITY, "AuthMethod=CHAP"), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(SECURITY, "CHAP_A=7\0CHAP_I=1\0CHAP_C=0x01\0CHAP_N=t\0CHAP_R=0x00"), ISCSI_LOGIN_GO_ON);
    assert_int_equal(SAY(TO_OPERATIONAL, ""), ISCSI_LOGIN_REFUSED);
    assert_non_null(strstr(login.error, "did not prove"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_login),
        cmocka_unit_test(fields_that_are_wrong),
        cmocka_unit_test(stages_that_do_not_follow),
        cmocka_unit_test(text_without_end),
        cmocka_unit_test(our_answer),
        cmocka_unit_test(their_answer),
        cmocka_unit_test(proofs_that_are_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
