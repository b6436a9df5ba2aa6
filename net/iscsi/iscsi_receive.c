/* SPDX-License-Identifier: MIT */
/*
 * Bytes to PDUs. The stream may be cut anywhere: each stage (header, AHS, header digest, data, padding, data digest)
 * knows how much it still needs. Payload of Data-In goes straight to the command's buffers, all other data to rx->data.
 * A header is looked at only after its digest, and a PDU takes effect only after its data digest.
 *
 * Any call into the rest may end the connection; `alive` is asked after each.
 */
#include <string.h>

#include "kernel/crc32c.h"
#include "net/iscsi/iscsi_session.h"

void iscsi_receive_reset(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    rx->stage = RX_HEADER;
    rx->have = 0;
    rx->need = ISCSI_BHS_BYTES;
    rx->crc = 0;
    rx->command = NULL;
    rx->kept = 0;
}

static void next_stage(struct iscsi_receiver *rx, unsigned stage, uint32_t need)
{
    rx->stage = stage;
    rx->have = 0;
    rx->need = need;
}

/* The data are complete: dispatch. */
static void pdu_done(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    session->counts.pdus_in++;
    /* Where it leads may reset the receiver; a PDU that is over is not touched after it. */
    next_stage(rx, RX_HEADER, ISCSI_BHS_BYTES);
    rx->crc = 0;
    if (session->state == ISCSI_LOGIN) {
        iscsi_login_pdu(session);
        return;
    }
    iscsi_take_window(session);
    switch (iscsi_opcode(&rx->bhs)) {
    case ISCSI_DATA_IN: iscsi_data_in_done(session); break;
    case ISCSI_R2T: iscsi_r2t_pdu(session); break;
    case ISCSI_SCSI_RESPONSE: iscsi_response_pdu(session); break;
    case ISCSI_TASK_RESPONSE: iscsi_task_response_pdu(session); break;
    default: iscsi_other_pdu(session); break;
    }
}

/* The header is good: where do the data go? */
static bool header_done(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    uint32_t length = iscsi_data_length(&rx->bhs);
    rx->command = NULL;
    rx->kept = 0;
    rx->crc = 0;
    uint32_t most = session->state == ISCSI_LOGIN ? ISCSI_LOGIN_SEGMENT : session->parameters.max_recv_bytes;
    if (length > most) {
        iscsi_fail(session, ISCSI_EVENT_DOWN, "the target sent %u bytes of data in a %s, and %u is agreed", length,
                   iscsi_opcode_name(rx->bhs.header.opcode), most);
        return false;
    }
    if (session->state != ISCSI_LOGIN && iscsi_opcode(&rx->bhs) == ISCSI_DATA_IN && !iscsi_data_in_header(session))
        return false;
    next_stage(rx, RX_DATA, length);
    return true;
}

static bool alive(const struct iscsi_session *session, uint32_t connection)
{
    return session->open && session->connection == connection;
}

/* Puts some payload where it belongs. */
static void take_data(struct iscsi_session *session, const uint8_t *bytes, uint32_t count)
{
    struct iscsi_receiver *rx = &session->rx;
    if (session->parameters.data_digest && iscsi_in_full_feature(session))
        rx->crc = crc32c(rx->crc, bytes, count);
    if (rx->command) {
        if (!rx->command->data->take(rx->command, rx->offset + rx->have, bytes, count)) {
            rx->command->cancelled = true;
            iscsi_fail(session, ISCSI_EVENT_DOWN, "the memory that a command reads into is gone");
        }
        return;
    }
    uint32_t room = (uint32_t)sizeof(rx->data) - rx->kept, keep = MIN(count, room);
    memcpy(rx->data + rx->kept, bytes, keep);
    rx->kept += keep;
}

/* Takes `count` (at most what is missing) bytes of the present stage. */
static void take(struct iscsi_session *session, const uint8_t *bytes, uint32_t count)
{
    struct iscsi_receiver *rx = &session->rx;
    bool digests = iscsi_in_full_feature(session);
    switch (rx->stage) {
    case RX_HEADER:
        memcpy(rx->bhs.bytes + rx->have, bytes, count);
        break;
    case RX_HEADER_DIGEST:
    case RX_DATA_DIGEST:
        memcpy(rx->digest + rx->have, bytes, count);
        break;
    case RX_DATA:
        take_data(session, bytes, count);
        break;
    case RX_AHS:
    case RX_PADDING:
        break;
    }
    bool padding = rx->stage == RX_PADDING && session->parameters.data_digest;
    if (digests && (rx->stage == RX_HEADER || rx->stage == RX_AHS || padding))
        rx->crc = crc32c(rx->crc, bytes, count);
    rx->have += count;
}

/* The present stage has all of its bytes. False: the connection is gone. */
static bool stage_done(struct iscsi_session *session)
{
    struct iscsi_receiver *rx = &session->rx;
    bool digests = iscsi_in_full_feature(session);
    uint32_t connection = session->connection;
    switch (rx->stage) {
    case RX_HEADER:
        next_stage(rx, RX_AHS, rx->bhs.header.ahs_words * 4u);
        return true;
    case RX_AHS:
        if (digests && session->parameters.header_digest) {
            next_stage(rx, RX_HEADER_DIGEST, ISCSI_DIGEST_BYTES);
            return true;
        }
        return header_done(session);
    case RX_HEADER_DIGEST:
        if (le32_get(rx->digest) != rx->crc) {
            iscsi_fail(session, ISCSI_EVENT_DOWN,
                       "a header of the target's has a wrong digest: bytes were corrupted on the way; check cables, cards and "
                       "switches there");
            return false;
        }
        return header_done(session);
    case RX_DATA:
        next_stage(rx, RX_PADDING, iscsi_padding(rx->have));
        return true;
    case RX_PADDING:
        if (digests && session->parameters.data_digest && iscsi_data_length(&rx->bhs)) {
            next_stage(rx, RX_DATA_DIGEST, ISCSI_DIGEST_BYTES);
            return true;
        }
        break;
    case RX_DATA_DIGEST:
        if (le32_get(rx->digest) != rx->crc) {
            iscsi_fail(session, ISCSI_EVENT_DOWN,
                       "data of the target's have a wrong digest: bytes were corrupted on the way; check cables, cards and "
                       "switches there");
            return false;
        }
        break;
    }
    pdu_done(session);
    return alive(session, connection);
}

void iscsi_receive(struct iscsi_session *session, const uint8_t *bytes, size_t count)
{
    struct iscsi_receiver *rx = &session->rx;
    uint32_t connection = session->connection;
    session->counts.bytes_in += count;
    for (;;) {
        while (rx->have == rx->need)
            if (!stage_done(session))
                return;
        if (!count)
            return;
        uint32_t part = (uint32_t)MIN(count, (size_t)(rx->need - rx->have));
        take(session, bytes, part);
        if (!alive(session, connection))
            return;
        bytes += part;
        count -= part;
    }
}
