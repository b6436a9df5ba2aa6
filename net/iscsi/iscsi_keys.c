/* SPDX-License-Identifier: MIT */
/* The table of operational keys and the one function that applies its rules. See iscsi_keys.h. Pure. */
#include "net/iscsi/iscsi_keys.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

enum rule {
    RULE_AND,
    RULE_OR,
    RULE_SMALLER,
    RULE_LARGER,
    RULE_DECLARED, /* a number, each side's own */
    RULE_DIGEST,   /* a list of CRC32C and None */
    RULE_NOTE,     /* declared by the target, text that is of no use here */
    RULE_REPORTING, /* TaskReporting (13.23): only what RFC 3720 has */
    RULE_MARKER,    /* obsolete (13.25): No */
    RULE_REFUSED,   /* Reject: obsolete, or of another transport */
};

#define DISCOVERY_BYTES 8192u

#define AT(field) offsetof(struct iscsi_parameters, field)

/* Where a parameter is used only in a session with SCSI commands, `full_only` is set: a discovery session is silent. */
static const struct key {
    const char *name;
    enum rule rule;
    bool offered, full_only;
    uint32_t minimum, maximum, otherwise; /* range, default */
    size_t at;
} keys[] = {
    { "HeaderDigest", RULE_DIGEST, true, false, 0, 1, 0, AT(header_digest) },
    { "DataDigest", RULE_DIGEST, true, false, 0, 1, 0, AT(data_digest) },
    { "MaxRecvDataSegmentLength", RULE_DECLARED, true, false, 512, 0xffffff, 8192, AT(max_send_bytes) },
    { "InitialR2T", RULE_OR, true, true, 0, 1, 1, AT(initial_r2t) },
    { "ImmediateData", RULE_AND, true, true, 0, 1, 1, AT(immediate_data) },
    { "MaxBurstLength", RULE_SMALLER, true, true, 512, 0xffffff, 262144, AT(max_burst_bytes) },
    { "FirstBurstLength", RULE_SMALLER, true, true, 512, 0xffffff, 65536, AT(first_burst_bytes) },
    { "DefaultTime2Wait", RULE_LARGER, true, false, 0, 3600, 2, AT(time2wait_s) },
    { "DefaultTime2Retain", RULE_SMALLER, true, false, 0, 3600, 20, AT(time2retain_s) },
    { "MaxOutstandingR2T", RULE_SMALLER, true, true, 1, 65535, 1, AT(max_outstanding_r2t) },
    { "DataPDUInOrder", RULE_OR, true, true, 0, 1, 1, AT(data_pdu_in_order) },
    { "DataSequenceInOrder", RULE_OR, true, true, 0, 1, 1, AT(data_sequence_in_order) },
    { "ErrorRecoveryLevel", RULE_SMALLER, true, false, 0, 2, 0, AT(error_recovery_level) },
    { "MaxConnections", RULE_SMALLER, true, true, 1, 65535, 1, AT(max_connections) },
    { "iSCSIProtocolLevel", RULE_SMALLER, false, true, 0, 31, 1, AT(protocol_level) },
    { "TargetPortalGroupTag", RULE_DECLARED, false, false, 0, 65535, 0, AT(portal_group) },
    { "TargetAlias", RULE_NOTE, false, false, 0, 0, 0, 0 },
    { "TargetAddress", RULE_NOTE, false, false, 0, 0, 0, 0 },
    { "TargetName", RULE_NOTE, false, false, 0, 0, 0, 0 },
    { "TaskReporting", RULE_REPORTING, false, true, 0, 0, 0, 0 },
    { "IFMarker", RULE_MARKER, false, false, 0, 0, 0, 0 },
    { "OFMarker", RULE_MARKER, false, false, 0, 0, 0, 0 },
    { "IFMarkInt", RULE_REFUSED, false, false, 0, 0, 0, 0 },
    { "OFMarkInt", RULE_REFUSED, false, false, 0, 0, 0, 0 },
    { "RDMAExtensions", RULE_REFUSED, false, false, 0, 0, 0, 0 },
};
static_assert(ARRAY_COUNT(keys) <= 64, "a bit for each key");

static uint32_t *number_at(const struct iscsi_parameters *parameters, const struct key *key)
{
    return (uint32_t *)((char *)(uintptr_t)parameters + key->at);
}

void iscsi_wishes_default(struct iscsi_wishes *wishes)
{
    *wishes = (struct iscsi_wishes){
        .header_digest = ISCSI_DIGEST_PREFERRED,
        .data_digest = ISCSI_DIGEST_PREFERRED,
        .values = {
            .max_recv_bytes = 256 * 1024,
            .initial_r2t = 0,
            .immediate_data = 1,
            .max_burst_bytes = 1024 * 1024,
            .first_burst_bytes = 256 * 1024,
            .time2wait_s = 0,
            .time2retain_s = 0,
            .max_outstanding_r2t = 8,
            .data_pdu_in_order = 1,
            .data_sequence_in_order = 1,
            .error_recovery_level = 0,
            .max_connections = 1,
            .protocol_level = 1,
        },
    };
}

/* What we declare. In a discovery session there is nothing but text, which is read from a small buffer. */
static uint32_t receives(const struct iscsi_negotiation *negotiation)
{
    uint32_t wish = negotiation->wishes->values.max_recv_bytes;
    return negotiation->discovery ? MIN(wish, DISCOVERY_BYTES) : wish;
}

void iscsi_negotiation_start(struct iscsi_negotiation *negotiation, const struct iscsi_wishes *wishes, bool discovery)
{
    memset(negotiation, 0, sizeof(*negotiation));
    negotiation->wishes = wishes;
    negotiation->discovery = discovery;
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        if (keys[i].rule <= RULE_DIGEST)
            *number_at(&negotiation->result, &keys[i]) = keys[i].otherwise;
    negotiation->result.max_recv_bytes = receives(negotiation);
}

static uint32_t wish_for(const struct iscsi_negotiation *negotiation, const struct key *key)
{
    if (key->at == AT(max_send_bytes))
        return receives(negotiation); /* what we declare under the same key */
    return *number_at(&negotiation->wishes->values, key);
}

static const char *digest_list(const struct iscsi_negotiation *negotiation, const struct key *key)
{
    enum iscsi_digest_wish wish = key->at == AT(header_digest) ? negotiation->wishes->header_digest
                                                               : negotiation->wishes->data_digest;
    return wish == ISCSI_DIGEST_OFF ? "None" : wish == ISCSI_DIGEST_PREFERRED ? "CRC32C,None" : "CRC32C";
}

void iscsi_negotiation_offer(struct iscsi_negotiation *negotiation, struct iscsi_text_writer *writer)
{
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        const struct key *key = &keys[i];
        if (!key->offered || (key->full_only && negotiation->discovery))
            continue;
        if (key->rule == RULE_DIGEST)
            iscsi_text_put(writer, key->name, digest_list(negotiation, key));
        else if (key->rule == RULE_AND || key->rule == RULE_OR)
            iscsi_text_put(writer, key->name, wish_for(negotiation, key) ? "Yes" : "No");
        else
            iscsi_text_put_number(writer, key->name, wish_for(negotiation, key));
        negotiation->offered |= BIT(i);
        /* An answer may be left out where the offer decides (6.2.2). */
        uint32_t wish = wish_for(negotiation, key);
        if ((key->rule == RULE_AND && !wish) || (key->rule == RULE_OR && wish))
            *number_at(&negotiation->result, key) = wish;
    }
}

static enum status fail(struct iscsi_negotiation *negotiation, const char *format, ...) PRINTF_LIKE(2, 3);
static enum status fail(struct iscsi_negotiation *negotiation, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(negotiation->error, sizeof(negotiation->error), format, arguments);
    va_end(arguments);
    return ERR_INVALID;
}

/* Reads the value of a boolean or a number within the key's range. */
static enum status read_value(struct iscsi_negotiation *negotiation, const struct key *key, const char *value,
                              uint32_t *number)
{
    if (key->rule == RULE_AND || key->rule == RULE_OR) {
        if (!str_equal(value, "Yes") && !str_equal(value, "No"))
            return fail(negotiation, "%s=%.40s is neither Yes nor No", key->name, value);
        *number = value[0] == 'Y';
        return OK;
    }
    uint64_t wide;
    if (iscsi_text_number(value, &wide) != OK)
        return fail(negotiation, "%s=%.40s is not a number", key->name, value);
    if (wide < key->minimum || wide > key->maximum)
        return fail(negotiation, "%s=%lu is outside of %u to %u", key->name, (unsigned long)wide, key->minimum,
                    key->maximum);
    *number = (uint32_t)wide;
    return OK;
}

static uint32_t outcome(enum rule rule, uint32_t a, uint32_t b)
{
    switch (rule) {
    case RULE_AND: return a && b;
    case RULE_OR: return a || b;
    case RULE_LARGER: return MAX(a, b);
    default: return MIN(a, b);
    }
}

/* The target's answer to our offer. */
static enum status take_answer(struct iscsi_negotiation *negotiation, const struct key *key, const char *value)
{
    uint32_t *result = number_at(&negotiation->result, key), wish = wish_for(negotiation, key), theirs;
    if (key->rule == RULE_DIGEST) {
        if (!iscsi_list_has(digest_list(negotiation, key), value, strlen(value)))
            return fail(negotiation, "%s=%.40s was not offered (%s)", key->name, value, digest_list(negotiation, key));
        *result = str_equal(value, "CRC32C");
        return OK;
    }
    if (read_value(negotiation, key, value, &theirs) != OK)
        return ERR_INVALID;
    if (key->rule != RULE_DECLARED && outcome(key->rule, wish, theirs) != theirs)
        return fail(negotiation, "%s=%.40s cannot be the answer to the offer of %u", key->name, value, wish);
    *result = theirs;
    return OK;
}

/* The target's offer: what comes out is written as our answer. */
static enum status take_offer(struct iscsi_negotiation *negotiation, const struct key *key, const char *value,
                              struct iscsi_text_writer *writer)
{
    uint32_t *result = number_at(&negotiation->result, key), theirs;
    switch (key->rule) {
    case RULE_NOTE:
        return OK;
    case RULE_MARKER:
        iscsi_text_put(writer, key->name, "No");
        return OK;
    case RULE_REFUSED:
        iscsi_text_put(writer, key->name, "Reject");
        return OK;
    case RULE_REPORTING:
        iscsi_text_put(writer, key->name, iscsi_list_has(value, "RFC3720", 7) ? "RFC3720" : "Reject");
        return OK;
    case RULE_DIGEST: {
        bool crc = str_starts_with(digest_list(negotiation, key), "CRC32C") && iscsi_list_has(value, "CRC32C", 6);
        bool none = iscsi_list_has(value, "None", 4) && iscsi_list_has(digest_list(negotiation, key), "None", 4);
        *result = crc;
        iscsi_text_put(writer, key->name, crc ? "CRC32C" : none ? "None" : "Reject");
        return OK;
    }
    default:
        break;
    }
    if (read_value(negotiation, key, value, &theirs) != OK)
        return ERR_INVALID;
    if (key->rule == RULE_DECLARED) {
        *result = theirs;
        return OK;
    }
    *result = outcome(key->rule, wish_for(negotiation, key), theirs);
    if (key->rule == RULE_AND || key->rule == RULE_OR)
        iscsi_text_put(writer, key->name, *result ? "Yes" : "No");
    else
        iscsi_text_put_number(writer, key->name, *result);
    return OK;
}

enum status iscsi_negotiation_take(struct iscsi_negotiation *negotiation, const char *key, size_t key_bytes,
                                   const char *value, struct iscsi_text_writer *writer)
{
    bool no_answer = str_equal(value, "NotUnderstood") || str_equal(value, "Irrelevant") || str_equal(value, "Reject");
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        if (!iscsi_key_is(key, key_bytes, keys[i].name))
            continue;
        if (negotiation->settled & BIT(i) && keys[i].rule != RULE_NOTE)
            return fail(negotiation, "%s came twice", keys[i].name);
        negotiation->settled |= BIT(i);
        if (no_answer)
            return OK;
        return negotiation->offered & BIT(i) ? take_answer(negotiation, &keys[i], value)
                                             : take_offer(negotiation, &keys[i], value, writer);
    }
    if (!no_answer)
        iscsi_text_put_key(writer, key, key_bytes, "NotUnderstood");
    return OK;
}

enum status iscsi_negotiation_finish(struct iscsi_negotiation *negotiation)
{
    struct iscsi_parameters *p = &negotiation->result;
    if (negotiation->wishes->header_digest == ISCSI_DIGEST_REQUIRED && !p->header_digest)
        return fail(negotiation, "header digests are required here, and the target does not offer them: allow them there");
    if (negotiation->wishes->data_digest == ISCSI_DIGEST_REQUIRED && !p->data_digest)
        return fail(negotiation, "data digests are required here, and the target does not offer them: allow them there");
    /* FirstBurstLength must not be beyond MaxBurstLength (13.14); where the answers say otherwise the smaller holds. */
    p->first_burst_bytes = MIN(p->first_burst_bytes, p->max_burst_bytes);
    return OK;
}
