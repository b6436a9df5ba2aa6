/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the login and the text that belongs to it: pairs, numbers, binary values, addresses, names, negotiation, CHAP.
 *
 * Input: byte 0 chooses CHAP (none, one way, both ways) and digests; then Login Responses, each two bytes of flags, two
 * bytes of status, two bytes (little-endian) of length and that much text. Tags, stages and StatSN are put right, as no
 * fuzzer finds those.
 *
 * What must hold: no access outside of the text, the login ends or asks for more, with words where it fails, a result
 * only with values in their ranges, and with CHAP both ways never a result without the target's proof.
 */
#include <stdlib.h>
#include <string.h>

#include "net/iscsi/iscsi_login.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct iscsi_login login;
    struct iscsi_wishes wishes;
    struct iscsi_chap_account account = { .name = "alpha", .mutual_name = "target" };
    uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1] = { 1, 2, 3 };
    union iscsi_bhs bhs;
    const void *text;
    uint32_t bytes;
    if (!size)
        return 0;
    memcpy(account.secret.bytes, "a secret of ours", account.secret.count = 16);
    memcpy(account.mutual_secret.bytes, "a secret of theirs", account.mutual_secret.count = 18);
    account.mutual = data[0] & 2;
    iscsi_wishes_default(&wishes);
    wishes.header_digest = data[0] & 4 ? ISCSI_DIGEST_REQUIRED : ISCSI_DIGEST_PREFERRED;
    struct iscsi_login_setup setup = {
        .initiator = "iqn.2026-11.example:a", .target = "iqn.2026-11.example:b", .wishes = &wishes,
        .chap = data[0] & 3 ? &account : NULL, .discovery = data[0] & 8,
    };
    iscsi_login_start(&login, &setup, 0x80000001, 1);
    enum iscsi_login_result result = ISCSI_LOGIN_GO_ON;
    for (size_t at = 1; result == ISCSI_LOGIN_GO_ON && size - at >= 6;) {
        iscsi_login_request(&login, &bhs, &text, &bytes);
        require(bytes <= ISCSI_LOGIN_SEGMENT);
        unsigned flags = data[at] & (ISCSI_CONTINUE | ISCSI_LOGIN_TRANSIT);
        unsigned stage = ISCSI_LOGIN_CSG(bhs.login_request.flags);
        uint32_t length = MIN((uint32_t)le16_get(data + at + 4), (uint32_t)(size - at - 6));
        flags |= stage << 2 | (flags & ISCSI_LOGIN_TRANSIT ? stage ? 3 : 1 : 0);
        iscsi_bhs_init(&bhs, ISCSI_LOGIN_RESPONSE, flags, 0x80000001);
        be32_put(bhs.login_response.stat_sn, login.first_response ? 5 : login.exp_stat_sn);
        be16_put(bhs.login_response.tsih, data[at + 1]);
        if (data[at + 1] & 1) {
            bhs.login_response.status_class = data[at + 2];
            bhs.login_response.status_detail = data[at + 3];
        }
        be24_put(bhs.login_response.data_length, length);
        uint8_t *copy = malloc(length + !length);
        memcpy(copy, data + at + 6, length);
        result = iscsi_login_response(&login, &bhs, copy, length, fresh);
        free(copy);
        at += 6 + length;
    }
    if (result == ISCSI_LOGIN_REFUSED || result == ISCSI_LOGIN_BROKEN)
        require(login.error[0]);
    if (result == ISCSI_LOGIN_DONE) {
        const struct iscsi_parameters *p = &login.negotiation.result;
        require(p->max_send_bytes >= 512 && p->max_send_bytes <= ISCSI_DATA_MAX && p->max_burst_bytes >= 512);
        require(p->first_burst_bytes <= p->max_burst_bytes && p->max_burst_bytes <= wishes.values.max_burst_bytes);
        require(p->max_outstanding_r2t >= 1 && p->max_outstanding_r2t <= 8 && !p->error_recovery_level);
        require(!account.mutual || !setup.chap || login.chap.state == CHAP_DONE);
        require(!(data[0] & 4) || p->header_digest);
    }
    if (result == ISCSI_LOGIN_MOVED)
        require(login.portal.host[0] && login.portal.port);

    /* The spelling alone, on the input as one string. */
    char *string = malloc(size + 1);
    uint8_t *binary = malloc(16);
    struct iscsi_portal portal;
    uint64_t number;
    size_t count;
    memcpy(string, data, size);
    string[size] = 0;
    if (iscsi_text_binary(string, binary, 16, &count) == OK)
        require(count <= 16);
    (void)!iscsi_text_number(string, &number);
    if (iscsi_portal_parse(string, &portal) == OK)
        require(portal.host[0] && portal.port);
    if (iscsi_name_valid(string))
        require(strlen(string) <= ISCSI_NAME_MAX);
    free(binary);
    free(string);
    return 0;
}
