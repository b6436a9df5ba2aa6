/* SPDX-License-Identifier: MIT */
/*
 * The login side of the target in memory: stages, negotiation, CHAP, redirection, answers in pieces. See
 * fake_target.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_target.h"

static void put(struct fake_target *t, const char *key, const char *value)
{
    int n = snprintf(t->text + t->text_count, sizeof(t->text) - t->text_count, "%s=%s", key, value);
    t->text_count += (size_t)n + 1;
}

static void put_number(struct fake_target *t, const char *key, uint32_t value)
{
    char digits[16];
    snprintf(digits, sizeof(digits), "%u", value);
    put(t, key, digits);
}

static void put_hex(struct fake_target *t, const char *key, const uint8_t *bytes, size_t count)
{
    char text[256] = "0x";
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 + 2 * i, 3, "%02X", bytes[i]);
    put(t, key, text);
}

static void number(struct fake_target *t, const char *key, const char *value, bool larger, uint32_t want,
                   uint32_t *agreed)
{
    uint32_t theirs = (uint32_t)strtoul(value, NULL, 0);
    *agreed = larger ? MAX(theirs, want) : MIN(theirs, want);
    put_number(t, key, *agreed);
}

static void boolean(struct fake_target *t, const char *key, const char *value, bool either, uint32_t want,
                    uint32_t *agreed)
{
    bool theirs = !strcmp(value, "Yes");
    *agreed = either ? theirs || want : theirs && want;
    put(t, key, *agreed ? "Yes" : "No");
}

static void digest(struct fake_target *t, const char *key, const char *value, uint32_t want, uint32_t *agreed)
{
    *agreed = want && strstr(value, "CRC32C");
    put(t, key, *agreed ? "CRC32C" : strstr(value, "None") ? "None" : "Reject");
}

static void operational(struct fake_target *t, const char *key, const char *value)
{
    const struct iscsi_parameters *want = &t->manners.want;
    struct iscsi_parameters *agreed = &t->agreed;
    if (!strcmp(key, "HeaderDigest")) {
        digest(t, key, value, want->header_digest, &agreed->header_digest);
    } else if (!strcmp(key, "DataDigest")) {
        digest(t, key, value, want->data_digest, &agreed->data_digest);
    } else if (!strcmp(key, "MaxRecvDataSegmentLength")) {
        agreed->max_send_bytes = (uint32_t)strtoul(value, NULL, 0);
        put_number(t, key, want->max_recv_bytes);
    } else if (!strcmp(key, "InitialR2T")) {
        boolean(t, key, value, true, want->initial_r2t, &agreed->initial_r2t);
    } else if (!strcmp(key, "ImmediateData")) {
        boolean(t, key, value, false, want->immediate_data, &agreed->immediate_data);
    } else if (!strcmp(key, "MaxBurstLength")) {
        number(t, key, value, false, want->max_burst_bytes, &agreed->max_burst_bytes);
    } else if (!strcmp(key, "FirstBurstLength")) {
        number(t, key, value, false, want->first_burst_bytes, &agreed->first_burst_bytes);
    } else if (!strcmp(key, "DefaultTime2Wait")) {
        number(t, key, value, true, want->time2wait_s, &agreed->time2wait_s);
    } else if (!strcmp(key, "DefaultTime2Retain")) {
        number(t, key, value, false, want->time2retain_s, &agreed->time2retain_s);
    } else if (!strcmp(key, "MaxOutstandingR2T")) {
        number(t, key, value, false, want->max_outstanding_r2t, &agreed->max_outstanding_r2t);
    } else if (!strcmp(key, "DataPDUInOrder")) {
        boolean(t, key, value, true, want->data_pdu_in_order, &agreed->data_pdu_in_order);
    } else if (!strcmp(key, "DataSequenceInOrder")) {
        boolean(t, key, value, true, want->data_sequence_in_order, &agreed->data_sequence_in_order);
    } else if (!strcmp(key, "ErrorRecoveryLevel") || !strcmp(key, "MaxConnections")) {
        put(t, key, value);
    } else if (strcmp(value, "NotUnderstood") && strcmp(value, "No") && strcmp(value, "Reject") &&
               strcmp(key, "TaskReporting")) {
        fake_target_complain(t, "login: unknown %s=%s", key, value);
    }
}

static size_t from_hex(const char *text, uint8_t *bytes, size_t most)
{
    size_t n = 0;
    for (text += 2; *text && n < most; text += 2) {
        unsigned value;
        sscanf(text, "%2x", &value);
        bytes[n++] = (uint8_t)value;
    }
    return n;
}

static void security(struct fake_target *t, const char *key, const char *value)
{
    const struct iscsi_chap_account *chap = t->manners.chap;
    if (!strcmp(key, "AuthMethod")) {
        bool can = strstr(value, "CHAP");
        put(t, "AuthMethod", chap ? (can ? "CHAP" : "Reject") : strstr(value, "None") ? "None" : "Reject");
        put_number(t, "TargetPortalGroupTag", t->manners.portal_group);
        if (!chap)
            t->chap_step = 3;
    } else if (!strcmp(key, "CHAP_A")) {
        t->algorithm = t->manners.chap_algorithm ? t->manners.chap_algorithm : (unsigned)atoi(value);
        for (size_t i = 0; i < sizeof(t->challenge); i++)
            t->challenge[i] = (uint8_t)(i * 7 + t->logins);
        put_number(t, "CHAP_A", t->algorithm);
        t->identifier = (uint8_t)(0x20 + 37 * ++t->challenges);
        put_number(t, "CHAP_I", t->identifier);
        put_hex(t, "CHAP_C", t->challenge, sizeof(t->challenge));
        t->chap_step = 1;
    } else if (!strcmp(key, "CHAP_N")) {
        if (chap && strcmp(value, chap->name))
            t->text_flags = 0x0201;
    } else if (!strcmp(key, "CHAP_R") && chap) {
        uint8_t expected[ISCSI_CHAP_HASH_MAX];
        size_t n = iscsi_chap_hash(t->algorithm, t->identifier, &chap->secret, t->challenge, sizeof(t->challenge), expected);
        t->their_answer_bytes = from_hex(value, t->their_answer, sizeof(t->their_answer));
        if (t->manners.chap_no_sha && t->algorithm == ISCSI_CHAP_SHA256)
            t->text_flags = 0x0200;
        else if (t->their_answer_bytes != n || memcmp(t->their_answer, expected, n))
            t->text_flags = 0x0201;
        t->chap_step = 2;
    } else if (!strcmp(key, "CHAP_I")) {
        t->their_identifier = (uint8_t)atoi(value);
    } else if (!strcmp(key, "CHAP_C")) {
        t->their_challenge_bytes = from_hex(value, t->their_challenge, sizeof(t->their_challenge));
    }
}

static void prove(struct fake_target *t)
{
    const struct iscsi_chap_account *chap = t->manners.chap;
    uint8_t answer[ISCSI_CHAP_HASH_MAX];
    t->chap_step = 3;
    if (!t->their_challenge_bytes || t->manners.chap_skip_proof)
        return;
    size_t n = iscsi_chap_hash(t->algorithm, t->their_identifier, &chap->mutual_secret, t->their_challenge,
                               t->their_challenge_bytes, answer);
    put(t, "CHAP_N", chap->mutual_name[0] ? chap->mutual_name : "target");
    if (t->manners.chap_reflect)
        put_hex(t, "CHAP_R", t->their_answer, t->their_answer_bytes);
    else
        put_hex(t, "CHAP_R", answer, n);
}

static void respond(struct fake_target *t, const union iscsi_bhs *request, unsigned flags, const void *text,
                    uint32_t bytes,
                    unsigned status)
{
    union iscsi_bhs bhs;
    iscsi_bhs_init(&bhs, ISCSI_LOGIN_RESPONSE, flags, iscsi_itt(request));
    memcpy(bhs.login_response.isid, request->login_request.isid, 6);
    be16_put(bhs.login_response.tsih, flags & ISCSI_LOGIN_TRANSIT && ISCSI_LOGIN_NSG(flags) == 3 ? 0x77 : 0);
    bhs.login_response.status_class = (uint8_t)(status >> 8);
    bhs.login_response.status_detail = (uint8_t)status;
    fake_target_send(t, &bhs, text, bytes, true);
}

void fake_target_login(struct fake_target *t, const union iscsi_bhs *bhs, const uint8_t *data, uint32_t bytes)
{
    const struct iscsi_login_request *request = &bhs->login_request;
    struct iscsi_text_reader reader = iscsi_text_reader(data, bytes);
    const char *key, *value;
    size_t key_bytes;
    unsigned csg = ISCSI_LOGIN_CSG(request->flags), nsg = ISCSI_LOGIN_NSG(request->flags);
    bool transit = request->flags & ISCSI_LOGIN_TRANSIT;
    if (be16_get(request->tsih))
        fake_target_complain(t, "login: TSIH is not 0");
    if (!(request->opcode & ISCSI_IMMEDIATE))
        fake_target_complain(t, "login: not immediate");
    if (t->logins && memcmp(request->isid, t->isid, 6))
        fake_target_complain(t, "login: another ISID than before");
    memcpy(t->isid, request->isid, 6);
    t->cmd_sn = be32_get(request->cmd_sn);
    if (csg != t->stage)
        fake_target_complain(t, "login: stage %u in stage %u", csg, t->stage);

    if (t->text_sent < t->text_count) { /* the rest of an answer in pieces */
        if (bytes || transit)
            fake_target_complain(t, "login: text or T in answer to C");
    } else {
        t->text_count = t->text_sent = 0;
        t->text_flags = 0;
        if (t->manners.login_refusals) {
            t->manners.login_refusals--;
            if (t->manners.moved_to)
                put(t, "TargetAddress", t->manners.moved_to);
            respond(t, bhs, 0, t->text, (uint32_t)t->text_count, t->manners.login_status);
            t->text_count = 0;
            return;
        }
        while (iscsi_text_next(&reader, &key, &key_bytes, &value) == OK) {
            char name[64];
            snprintf(name, sizeof(name), "%.*s", (int)key_bytes, key);
            if (!strcmp(name, "SessionType"))
                t->discovery = !strcmp(value, "Discovery");
            else if (!strcmp(name, "InitiatorName") || !strcmp(name, "TargetName"))
                continue;
            else if (csg == ISCSI_STAGE_SECURITY)
                security(t, name, value);
            else
                operational(t, name, value);
        }
        if (t->text_flags) {
            respond(t, bhs, 0, NULL, 0, t->text_flags);
            return;
        }
        if (csg == ISCSI_STAGE_SECURITY && t->chap_step == 2)
            prove(t);
        if (csg == ISCSI_STAGE_SECURITY && t->chap_step != 3)
            transit = false;
        if (csg == ISCSI_STAGE_OPERATIONAL && t->manners.login_extra_bytes && !t->extra_sent) {
            t->extra_sent = true;
            transit = false;
            memcpy(t->text + t->text_count, t->manners.login_extra, t->manners.login_extra_bytes);
            t->text_count += t->manners.login_extra_bytes;
        }
        t->text_flags = transit;
    }
    size_t rest = t->text_count - t->text_sent;
    if (t->manners.login_chunk && (rest > t->manners.login_chunk || (t->text_flags && t->text_sent))) {
        /* T may only be set in answer to T: all of the text goes first, then an empty round. */
        uint32_t part = (uint32_t)MIN(rest, (size_t)t->manners.login_chunk);
        bool last = part == rest;
        t->text_sent += part;
        respond(t, bhs, (last ? 0 : ISCSI_CONTINUE) | csg << 2, t->text + t->text_sent - part, part, 0);
        if (last)
            t->text_count = t->text_sent = 0;
        return;
    }
    if (t->text_flags) {
        respond(t, bhs, ISCSI_LOGIN_TRANSIT | csg << 2 | nsg, t->text + t->text_sent, (uint32_t)rest, 0);
        t->stage = nsg;
        if (nsg == ISCSI_STAGE_FULL) {
            t->full = true;
            t->logins++;
        }
    } else {
        respond(t, bhs, csg << 2, t->text + t->text_sent, (uint32_t)rest, 0);
    }
    t->text_count = t->text_sent = 0;
}
