/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes a whole session with what a target could send after the login: every PDU, whole, cut, and in any number.
 *
 * Input: byte 0 chooses what is negotiated (digests, InitialR2T, ImmediateData, orders), byte 1 how many commands are
 * under way and the size of the pieces; the rest is the stream. Digests, StatSN and tags of commands under way are put
 * right in a copy first, as no fuzzer finds those, unless bit 7 of byte 0 says not to.
 *
 * What must hold: no access outside of a command's data (the sanitizer and the bench watch), every command ends once,
 * every drop has words, and the session can be stopped.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_target.h"
#include "kernel/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECOND UINT64_C(1000000000)

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* One PDU of the input, put right as far as it can be, is appended to the target's output. Returns the bytes used. */
static size_t repaired(struct bench *b, const uint8_t *data, size_t size)
{
    struct fake_target *t = &b->target;
    union iscsi_bhs bhs;
    memset(&bhs, 0, sizeof(bhs));
    memcpy(&bhs, data, MIN(size, sizeof(bhs)));
    size_t used = MIN(size, sizeof(bhs));
    uint32_t length = MIN(iscsi_data_length(&bhs), (uint32_t)(size - used));
    unsigned opcode = iscsi_opcode(&bhs);
    bhs.header.ahs_words = 0;
    be24_put(bhs.header.data_length, length);
    if (opcode == ISCSI_SCSI_RESPONSE || opcode == ISCSI_DATA_IN || opcode == ISCSI_R2T)
        for (unsigned i = 0; i < ARRAY_COUNT(b->slots); i++)
            if (b->slots[i].command && i % 4 == (bhs.header.itt[3] & 3u))
                be32_put(bhs.header.itt, b->slots[i].itt);
    bool counts = opcode != ISCSI_R2T && !(opcode == ISCSI_NOP_IN && iscsi_itt(&bhs) == ISCSI_TAG_NONE) &&
                  !(opcode == ISCSI_DATA_IN && !(bhs.data_in.flags & ISCSI_DATA_STATUS));
    t->stat_sn = b->session.exp_stat_sn;
    fake_target_send(t, &bhs, data + used, length, counts);
    return used + length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct bench *b = bench_new();
    unsigned choice = data[0], shape = data[1];
    b->wishes.header_digest = choice & 1 ? ISCSI_DIGEST_PREFERRED : ISCSI_DIGEST_OFF;
    b->wishes.data_digest = choice & 2 ? ISCSI_DIGEST_PREFERRED : ISCSI_DIGEST_OFF;
    b->wishes.values.initial_r2t = choice >> 2 & 1;
    b->wishes.values.immediate_data = choice >> 3 & 1;
    b->wishes.values.data_pdu_in_order = b->wishes.values.data_sequence_in_order = choice >> 4 & 1;
    b->target.manners.want.data_pdu_in_order = b->target.manners.want.data_sequence_in_order = 0;
    b->target.manners.mute = true;
    b->in_chunk = shape >> 4 ? (size_t)(shape >> 4) * 7 : 0;
    bench_start(b);
    for (unsigned i = 0; i < (shape & 15u); i++)
        i % 2 ? bench_read(b, i, i, 1 + i) : bench_write(b, i, i, 1 + 4 * i, (uint8_t)i);
    bench_settle(b);
    uint32_t connection = b->connection;
    for (size_t at = 2; at < size && b->up && b->connection == connection;) {
        if (choice & 0x80) {
            size_t part = MIN(size - at, 500);
            uint8_t *piece = malloc(part);
            memcpy(piece, data + at, part);
            iscsi_session_received(&b->session, b->connection, piece, part, choice & 0x40 && at + part < size, b->now_ns);
            free(piece);
            at += part;
        } else {
            at += repaired(b, data + at, size - at);
        }
        bench_settle(b);
    }
    if (b->session.counts.drops)
        require(b->text[0]);
    iscsi_session_stop(&b->session, b->now_ns);
    bench_pass(b, 30 * SECOND);
    require(b->session.state == ISCSI_IDLE);
    for (unsigned i = 0; i < (shape & 15u); i++)
        require(b->command[i].done_count == 1);
    bench_free(b);
    return 0;
}
