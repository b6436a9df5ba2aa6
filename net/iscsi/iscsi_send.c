/* SPDX-License-Identifier: MIT */
/*
 * PDUs to bytes. Nothing is queued: whenever there is room, the next PDU is chosen and built, in this order: answers to
 * the target's pings, our own ping, logout and text; task requests; data that the target asked for or that a command
 * owes unsolicited; new commands, as long as CmdSN is within the target's window and a tag is free. So sequence numbers
 * and ExpStatSN are those of the moment of sending, and the window is kept full. Data before commands also keeps
 * unsolicited data in the order of their commands (RFC 7143 section 4.2.5.2).
 *
 * Data are asked from the command piece by piece; the digest is computed over what is sent, once, so a guest that
 * changes its buffer meanwhile gets its own mixture and never a broken connection (its pieces are copies).
 */
#include <string.h>

#include "kernel/crc32c.h"
#include "net/iscsi/iscsi_session.h"

void iscsi_send_reset(struct iscsi_session *session)
{
    session->tx.active = false;
    session->tx.command = NULL;
    session->tx.piece_left = session->tx.left = 0;
    session->tx.position = 0;
}

uint32_t iscsi_own_tag(struct iscsi_session *session)
{
    session->own_tag = (session->own_tag + 1) | 0x80000000u;
    if (session->own_tag == ISCSI_TAG_NONE)
        session->own_tag = 0x80000000u;
    return session->own_tag;
}

/* Chooses and builds the next PDU. False: there is nothing to send now. */
static bool choose(struct iscsi_session *session)
{
    struct iscsi_sender *tx = &session->tx;
    union iscsi_bhs bhs;
    const void *text = NULL;
    uint32_t bytes = 0;
    bool digests = iscsi_in_full_feature(session);
    tx->command = NULL;
    tx->offset = 0;
    if (session->state == ISCSI_LOGIN) {
        if (!session->login_ready)
            return false;
        session->login_ready = false;
        iscsi_login_request(&session->login, &bhs, &text, &bytes);
    } else if (!digests ||
               (!iscsi_build_other(session, &bhs, &text, &bytes) && !iscsi_build_task(session, &bhs) &&
                !iscsi_build_data_out(session, &bhs) && !iscsi_build_command(session, &bhs))) {
        return false;
    }
    tx->data_bytes = iscsi_data_length(&bhs);
    memcpy(tx->head, bhs.bytes, ISCSI_BHS_BYTES);
    tx->head_bytes = ISCSI_BHS_BYTES;
    if (digests && session->parameters.header_digest) {
        le32_put(tx->head + ISCSI_BHS_BYTES, crc32c(0, tx->head, ISCSI_BHS_BYTES));
        tx->head_bytes += ISCSI_DIGEST_BYTES;
    }
    tx->digest_data = digests && session->parameters.data_digest && tx->data_bytes;
    tx->head_sent = tx->tail_sent = 0;
    memset(tx->tail, 0, sizeof(tx->tail));
    tx->tail_bytes = iscsi_padding(tx->data_bytes) + (tx->digest_data ? ISCSI_DIGEST_BYTES : 0);
    tx->left = tx->data_bytes;
    tx->piece_left = 0;
    tx->crc = 0;
    tx->text = text;
    tx->active = true;
    return true;
}

/* Gets the next piece of data, if the last one is gone. False: the connection was dropped. */
static bool next_piece(struct iscsi_session *session)
{
    struct iscsi_sender *tx = &session->tx;
    if (tx->piece_left || !tx->left)
        return true;
    uint32_t count = tx->left;
    tx->piece_stays = false;
    if (tx->command) {
        struct iscsi_command *command = tx->command;
        count = MIN(count, ISCSI_BOUNCE_BYTES);
        uint32_t asked = count;
        bool stays = false;
        const uint8_t *piece = command->data->give(command, tx->offset, &count, tx->bounce, &stays);
        if (!piece || !count || count > asked) {
            command->cancelled = true;
            iscsi_fail(session, ISCSI_EVENT_DOWN, "the memory that a command writes from is gone");
            return false;
        }
        tx->piece = piece;
        tx->piece_stays = stays;
    } else {
        tx->piece = tx->text;
        tx->text += count;
    }
    tx->piece_left = count;
    tx->offset += count;
    tx->left -= count;
    if (tx->digest_data)
        tx->crc = crc32c(tx->crc, tx->piece, count);
    if (!tx->left && tx->digest_data) {
        uint32_t padding = iscsi_padding(tx->data_bytes);
        tx->crc = crc32c(tx->crc, tx->tail, padding);
        le32_put(tx->tail + padding, tx->crc);
    }
    return true;
}

static uint32_t advance(uint32_t *total, uint32_t part)
{
    uint32_t taken = MIN(*total, part);
    *total -= taken;
    return taken;
}

/* Gives what is left of the PDU to the owner. True: all of it was taken. */
static bool push(struct iscsi_session *session)
{
    struct iscsi_sender *tx = &session->tx;
    for (;;) {
        struct iscsi_vec vec[3];
        unsigned count = 0;
        uint32_t asked = 0;
        if (!next_piece(session))
            return false;
        if (tx->head_sent < tx->head_bytes)
            vec[count++] = (struct iscsi_vec){ tx->head + tx->head_sent, tx->head_bytes - tx->head_sent, false };
        if (tx->piece_left)
            vec[count++] = (struct iscsi_vec){ tx->piece, tx->piece_left, tx->piece_stays };
        if (!tx->left && tx->tail_sent < tx->tail_bytes)
            vec[count++] = (struct iscsi_vec){ tx->tail + tx->tail_sent, tx->tail_bytes - tx->tail_sent, false };
        for (unsigned i = 0; i < count; i++)
            asked += (uint32_t)vec[i].count;
        if (!asked) {
            tx->active = false;
            tx->command = NULL;
            session->counts.pdus_out++;
            return true;
        }
        size_t sent = session->ops->send(session->context, session->connection, vec, count);
        uint32_t taken = sent > asked ? asked : (uint32_t)sent, rest = taken;
        uint32_t part = advance(&rest, tx->head_bytes - tx->head_sent);
        tx->head_sent += part;
        tx->position += part;
        part = advance(&rest, tx->piece_left);
        tx->piece += part;
        tx->piece_left -= part;
        tx->position += part;
        if (part && tx->piece_stays)
            tx->command->referenced_until = tx->position;
        tx->tail_sent += rest;
        tx->position += rest;
        session->counts.bytes_out += taken;
        if (taken < asked)
            return false;
    }
}

void iscsi_send(struct iscsi_session *session)
{
    while (session->connected && (session->tx.active || choose(session)))
        if (!push(session))
            return;
}
