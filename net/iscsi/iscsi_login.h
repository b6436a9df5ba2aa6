/* SPDX-License-Identifier: MIT */
/*
 * Login (RFC 7143 sections 6.3 and 11.12): a dialogue of Login Requests and Responses in two stages. Security: names,
 * AuthMethod, CHAP where it is configured. Operational: all keys of iscsi_keys.h in one request. Then full feature.
 *
 * One request is outstanding at a time. Text of a response may be spread over several (C bit): it is put together, and
 * read once it is whole. Text of ours always fits into one request. The dialogue is bounded in rounds and in bytes, so
 * that a target cannot keep it going for ever.
 *
 * A login always has TSIH 0: a session of the same initiator name, ISID and portal group that the target still has is
 * ended by it (session reinstatement, 6.3.5) and its tasks with it. So an ISID belongs to one session, for good: two
 * that share one would end each other in turn, and a registered key is the nexus's, whose name the ISID is part of.
 *
 * Pure: requests and responses go in and out as a header and text; the session frames them. Used by iscsi_session.c.
 */
#ifndef NET_ISCSI_ISCSI_LOGIN_H
#define NET_ISCSI_ISCSI_LOGIN_H

#include "net/iscsi/iscsi_chap.h"
#include "net/iscsi/iscsi_keys.h"
#include "net/iscsi/iscsi_pdu.h"

#define ISCSI_LOGIN_SEGMENT 8192u /* largest data segment before the negotiation (13.12) */
#define ISCSI_LOGIN_TEXT 16384u   /* largest text of one answer, over all its responses */
#define ISCSI_LOGIN_ROUNDS 128u

struct iscsi_login_setup {
    const char *initiator;                   /* our iSCSI name */
    const char *target;                      /* the target's; ignored in a discovery session */
    const struct iscsi_chap_account *chap;   /* NULL: no authentication */
    const struct iscsi_wishes *wishes;
    bool discovery;
    uint8_t isid[6];                         /* the same at each login, another for each session (11.12.5) */
};

enum iscsi_login_result {
    ISCSI_LOGIN_GO_ON,    /* a request is to be sent (iscsi_login_request) */
    ISCSI_LOGIN_DONE,     /* full feature phase; ->negotiation.result, ->tsih and the sequence numbers are set */
    ISCSI_LOGIN_MOVED,    /* log in at ->portal instead */
    ISCSI_LOGIN_REFUSED,  /* by the target, or by us for authentication's sake; ->error */
    ISCSI_LOGIN_BROKEN,   /* the target broke the protocol; ->error */
};

struct iscsi_login {
    const struct iscsi_login_setup *setup;
    struct iscsi_negotiation negotiation;
    struct iscsi_chap chap;
    enum iscsi_stage stage;
    bool asked_method, chap_chosen, offered, security_over, moved_for_good, again, first_response;
    bool transit;               /* the request to be sent has T */
    bool waiting;               /* a request was sent and not answered */
    bool portal_known;          /* a TargetAddress came */
    unsigned rounds;
    uint32_t itt, cmd_sn, exp_stat_sn, exp_cmd_sn, max_cmd_sn;
    uint16_t tsih;
    uint8_t status_class, status_detail;
    struct iscsi_portal portal;
    char error[ISCSI_ERROR_TEXT + 160];
    size_t in_count, out_count;
    char in[ISCSI_LOGIN_TEXT], out[ISCSI_LOGIN_SEGMENT];
};

/* Starts; the setup must outlive the login. `cmd_sn` is the first command's number. */
void iscsi_login_start(struct iscsi_login *login, const struct iscsi_login_setup *setup, uint32_t itt, uint32_t cmd_sn);
/*
 * The request that is to be sent: header (digests are never on) and *bytes of text, valid until the response is
 * taken.
 */
void iscsi_login_request(struct iscsi_login *login, union iscsi_bhs *bhs, const void **text, uint32_t *bytes);
/* Takes a PDU that came during login. `fresh`: random bytes for CHAP, never used before. */
enum iscsi_login_result iscsi_login_response(struct iscsi_login *login, const union iscsi_bhs *bhs, const void *text,
                                             uint32_t bytes, const uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1]);

#endif
