/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the parsers of what a logical unit answers: INQUIRY and its pages, capacities, units, modes, persistent
 * reservations, and sense data with the decision that follows from it.
 *
 * Input: byte 0 chooses the parser, byte 1 the status and the number of attempts; the rest is the answer. Byte 0 FFh:
 * the proof that a node may still write, with answers of a byte of status, a byte of length and so many bytes each.
 *
 * What must hold: no access outside of the answer (it is in memory of exactly its size), counts within the room that
 * was given, texts that end, and decisions that are among those that there are; a proof holds only if the key, the type
 * of the reservation and the epoch were among the answers, which no run of this target gives.
 */
#include <stdlib.h>
#include <string.h>

#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_proof.h"
#include "net/scsi/scsi_sense.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void sense(const uint8_t *data, size_t bytes, unsigned status, unsigned attempts)
{
    struct scsi_sense sense;
    char text[100];
    memset(text, 1, sizeof(text));
    scsi_parse_sense(data, bytes, &sense);
    scsi_describe(status, &sense, text, sizeof(text));
    require(memchr(text, 0, sizeof(text)) && text[0]);
    struct scsi_verdict verdict = scsi_decide(status, &sense, attempts);
    require(verdict.action <= SCSI_FAIL);
    require((verdict.action == SCSI_RETRY_LATER) == (verdict.delay_ns != 0));
    require(status != SCSI_RESERVATION_CONFLICT || verdict.action == SCSI_CONFLICT);
}

static bool no_epoch(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch)
{
    *epoch = count ? bytes[count - 1] : 0;
    return claim->blocks * claim->block_bytes == count;
}

static void proof(const uint8_t *data, size_t size, unsigned choice)
{
    static uint8_t buffer[SCSI_PROOF_ROOM_MIN];
    struct scsi_claim claim = { .key = choice & 1 ? 0x1122334455667788 : 1, .type = SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS,
                                .restore = choice & 2, .epoch = 0x1ff, .block = 1, .blocks = 1, .block_bytes = 512,
                                .read_epoch = no_epoch };
    struct scsi_proof p;
    scsi_proof_start(&p, &claim, buffer, sizeof(buffer), choice & 4);
    for (size_t at = 0; size - at >= 2 && scsi_proof_next(&p) != SCSI_PROOF_OVER;) {
        size_t count = MIN((size_t)data[at + 1], size - at - 2);
        uint8_t sense[18] = { 0x70 };
        memcpy(sense + 1, data + at + 2, MIN(count, sizeof(sense) - 1));
        memcpy(buffer, data + at + 2, count);
        if (scsi_proof_next(&p) == SCSI_PROOF_RESET)
            scsi_proof_reset(&p, data[at] & 1);
        else if (scsi_proof_next(&p) == SCSI_PROOF_WAIT)
            scsi_proof_waited(&p);
        else
            scsi_proof_answer(&p, data[at] & 0x7e, sense, MIN(count + 1, sizeof(sense)),
                              data[at] & 1 ? p.cdb.read_bytes : (uint32_t)count);
        at += 2 + count;
    }
    require(p.verdict != SCSI_PROOF_HOLDS);
    require(p.verdict == SCSI_PROOF_PENDING || p.why[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const uint8_t statuses[] = { 0, 2, 4, 8, 0x18, 0x28, 0x30, 0x40, 0x7f };
    if (size < 2)
        return 0;
    size_t bytes = size - 2;
    if (input[0] == 0xff) {
        proof(input + 2, bytes, input[1]);
        return 0;
    }
    uint8_t *data = malloc(bytes + !bytes);
    memcpy(data, input + 2, bytes);
    struct scsi_inquiry inquiry;
    struct scsi_page_set pages;
    struct scsi_identity identity;
    struct scsi_limits limits;
    struct scsi_provisioning provisioning;
    struct scsi_capacity capacity;
    struct scsi_mode mode;
    struct scsi_reservation reservation;
    struct scsi_pr_capabilities capabilities;
    struct scsi_full_status full;
    struct scsi_registration registration;
    uint8_t luns[4][8];
    uint64_t keys[4];
    uint32_t generation;
    uint16_t rotation;
    unsigned count, listed, steps = 0;
    char text[20];
    switch (input[0] % 14) {
    case 0:
        if (scsi_parse_inquiry(data, bytes, &inquiry) == OK)
            require(strlen(inquiry.product) <= 16);
        break;
    case 1: (void)!scsi_parse_pages(data, bytes, &pages); break;
    case 2:
        if (scsi_parse_serial(data, bytes, text, sizeof(text)) == OK)
            require(strlen(text) < sizeof(text));
        break;
    case 3:
        if (scsi_parse_identity(data, bytes, &identity) == OK)
            require(identity.name[0] && strlen(identity.name) < SCSI_NAME_BYTES);
        break;
    case 4: (void)!scsi_parse_limits(data, bytes, &limits); break;
    case 5: (void)!scsi_parse_characteristics(data, bytes, &rotation); break;
    case 6: (void)!scsi_parse_provisioning(data, bytes, &provisioning); break;
    case 7:
        if (scsi_parse_capacity16(data, bytes, &capacity) == OK)
            require(capacity.blocks && capacity.blocks <= (UINT64_C(1) << 63) / capacity.block_bytes);
        if (scsi_parse_capacity10(data, bytes, &capacity) == OK)
            require(capacity.blocks);
        break;
    case 8:
        if (scsi_parse_luns(data, bytes, luns, 4, &count, &listed) == OK)
            require(count <= 4 && count <= listed);
        break;
    case 9:
        (void)!scsi_parse_mode6(data, bytes, &mode);
        (void)!scsi_parse_mode10(data, bytes, &mode);
        break;
    case 10:
        if (scsi_parse_keys(data, bytes, &generation, keys, 4, &count, &listed) == OK)
            require(count <= 4 && count <= listed);
        (void)!scsi_parse_reservation(data, bytes, &reservation);
        break;
    case 11: (void)!scsi_parse_pr_capabilities(data, bytes, &capabilities); break;
    case 12:
        if (scsi_full_status_start(&full, data, bytes) == OK)
            while (scsi_full_status_next(&full, &registration) == OK)
                require(strlen(registration.initiator) < SCSI_NAME_BYTES && ++steps <= bytes / 24);
        break;
    case 13: sense(data, bytes, statuses[input[1] % sizeof(statuses)], input[1] / sizeof(statuses)); break;
    }
    free(data);
    return 0;
}
