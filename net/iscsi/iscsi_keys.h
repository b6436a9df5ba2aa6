/* SPDX-License-Identifier: MIT */
/*
 * Operational negotiation (RFC 7143 sections 6.2 and 13): which keys there are, what may be offered, what an answer may
 * be, and what comes out. One table in iscsi_keys.c holds every operational key; its rules are these:
 *
 *   and, or          the result is a AND b, a OR b; an answer is optional where the offer decides alone
 *   smaller, larger  the result is the smaller or larger of both
 *   declared         each side says its own, nothing is agreed
 *   list             the answer is the first of the offered values that the other side can
 *
 * A pair that comes from the target is an answer if we offered its key, else an offer, to which we answer. A key twice,
 * an answer outside of its range or of the function's result is an error that ends the login. "NotUnderstood",
 * "Irrelevant" and "Reject" leave the default. Keys that nobody knows are answered "NotUnderstood".
 *
 * Pure; used by iscsi_login.c. The keys of the security stage are iscsi_login.c's and iscsi_chap.c's.
 */
#ifndef NET_ISCSI_ISCSI_KEYS_H
#define NET_ISCSI_ISCSI_KEYS_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "net/iscsi/iscsi_text.h"

/* What is in force. All numbers are uint32_t, booleans 0 or 1, so that the table can point at them. */
struct iscsi_parameters {
    uint32_t header_digest, data_digest; /* CRC-32C or none */
    uint32_t max_recv_bytes;             /* data segment that we take */
    uint32_t max_send_bytes;             /* data segment that the target takes */
    uint32_t initial_r2t, immediate_data;
    uint32_t max_burst_bytes, first_burst_bytes;
    uint32_t time2wait_s, time2retain_s;
    uint32_t max_outstanding_r2t;
    uint32_t data_pdu_in_order, data_sequence_in_order;
    uint32_t error_recovery_level;
    uint32_t max_connections;
    uint32_t protocol_level;
    uint32_t portal_group;
};

enum iscsi_digest_wish { ISCSI_DIGEST_OFF, ISCSI_DIGEST_PREFERRED, ISCSI_DIGEST_REQUIRED };

/* What we offer. */
struct iscsi_wishes {
    enum iscsi_digest_wish header_digest, data_digest;
    struct iscsi_parameters values; /* those that have a wish of their own here; max_send_bytes is ignored */
};

/* Good values: digests preferred, immediate and unsolicited data, 256 KiB segments, bursts of 1 MiB, 8 R2Ts. */
void iscsi_wishes_default(struct iscsi_wishes *wishes);

#define ISCSI_ERROR_TEXT 200

struct iscsi_negotiation {
    const struct iscsi_wishes *wishes;
    struct iscsi_parameters result;
    uint64_t offered, settled; /* bits by the table's index: sent by us, settled or declared by the target */
    bool discovery;            /* keys that have no meaning in a discovery session are not offered */
    char error[ISCSI_ERROR_TEXT];
};

/* `wishes` must outlive the negotiation. */
void iscsi_negotiation_start(struct iscsi_negotiation *negotiation, const struct iscsi_wishes *wishes, bool discovery);
/* Writes our offers. */
void iscsi_negotiation_offer(struct iscsi_negotiation *negotiation, struct iscsi_text_writer *writer);
/*
 * Takes a pair of the target's; what is to be answered goes to the writer. ERR_INVALID: the login must end,
 * negotiation->error says why.
 */
enum status iscsi_negotiation_take(struct iscsi_negotiation *negotiation, const char *key, size_t key_bytes,
                                   const char *value, struct iscsi_text_writer *writer) MUST_CHECK;
/* At the end of the login: ERR_INVALID where a digest that is required is off, with the reason in ->error. */
enum status iscsi_negotiation_finish(struct iscsi_negotiation *negotiation) MUST_CHECK;

#endif
