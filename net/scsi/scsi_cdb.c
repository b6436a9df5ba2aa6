/* SPDX-License-Identifier: MIT */
/* Descriptor blocks and parameter lists. See scsi_cdb.h. Pure. */
#include "net/scsi/scsi_cdb.h"

#include <string.h>

#include "kernel/bytes.h"

static void start(struct scsi_cdb *cdb, uint8_t opcode, uint8_t length)
{
    memset(cdb, 0, sizeof(*cdb));
    cdb->bytes[0] = opcode;
    cdb->length = length;
}

void scsi_test_unit_ready(struct scsi_cdb *cdb)
{
    start(cdb, 0x00, 6);
}

void scsi_inquiry(struct scsi_cdb *cdb, int page, uint16_t room)
{
    start(cdb, 0x12, 6);
    if (page >= 0) {
        cdb->bytes[1] = 1; /* EVPD */
        cdb->bytes[2] = (uint8_t)page;
    }
    be16_put(cdb->bytes + 3, room);
    cdb->read_bytes = room;
}

void scsi_request_sense(struct scsi_cdb *cdb, bool descriptor, uint8_t room)
{
    start(cdb, 0x03, 6);
    cdb->bytes[1] = descriptor;
    cdb->bytes[4] = room;
    cdb->read_bytes = room;
}

void scsi_report_luns(struct scsi_cdb *cdb, uint32_t room)
{
    start(cdb, 0xa0, 12);
    be32_put(cdb->bytes + 6, room);
    cdb->read_bytes = room;
}

void scsi_mode_sense6(struct scsi_cdb *cdb, uint8_t room)
{
    start(cdb, 0x1a, 6);
    cdb->bytes[1] = 0x08; /* DBD */
    cdb->bytes[2] = 0x3f;
    cdb->bytes[4] = room;
    cdb->read_bytes = room;
}

void scsi_mode_sense10(struct scsi_cdb *cdb, uint16_t room)
{
    start(cdb, 0x5a, 10);
    cdb->bytes[1] = 0x08;
    cdb->bytes[2] = 0x3f;
    be16_put(cdb->bytes + 7, room);
    cdb->read_bytes = room;
}

void scsi_persistent_reserve_in(struct scsi_cdb *cdb, enum scsi_pr_in_action action, uint16_t room)
{
    start(cdb, 0x5e, 10);
    cdb->bytes[1] = (uint8_t)action;
    be16_put(cdb->bytes + 7, room);
    cdb->read_bytes = room;
}

void scsi_persistent_reserve_out(struct scsi_cdb *cdb, enum scsi_pr_out_action action, enum scsi_pr_type type,
                                 uint32_t list_bytes)
{
    bool typed = action == SCSI_PR_RESERVE || action == SCSI_PR_RELEASE || action == SCSI_PR_PREEMPT ||
                 action == SCSI_PR_PREEMPT_AND_ABORT || action == SCSI_PR_REGISTER_AND_MOVE;
    start(cdb, 0x5f, 10);
    cdb->bytes[1] = (uint8_t)action;
    cdb->bytes[2] = typed ? (uint8_t)type : 0; /* scope 0: the logical unit */
    be32_put(cdb->bytes + 5, list_bytes);
    cdb->write_bytes = list_bytes;
}

void scsi_pr_out_list(uint8_t list[SCSI_PR_OUT_BYTES], uint64_t key, uint64_t action_key, bool keep)
{
    memset(list, 0, SCSI_PR_OUT_BYTES);
    be64_put(list, key);
    be64_put(list + 8, action_key);
    list[20] = keep;
}

enum status scsi_pr_move_list(uint8_t *list, uint32_t room, uint64_t key, uint64_t action_key, bool unregister,
                              bool keep, uint16_t relative_port, const char *initiator, const uint8_t isid[6],
                              uint32_t *list_bytes)
{
    /* TransportID of an iSCSI initiator port, format 01b (SPC-4 7.6.4.6): name, ",i,0x", ISID in hex, NUL, padding. */
    static const char digit[] = "0123456789abcdef";
    size_t name_bytes = strlen(initiator);
    uint32_t text_bytes = (uint32_t)name_bytes + 5 + 12 + 1, padded = MAX((text_bytes + 3) & ~3u, 20u);
    if (name_bytes > 223 || room < 24 + 4 + padded)
        return ERR_RANGE;
    memset(list, 0, 24 + 4 + padded);
    be64_put(list, key);
    be64_put(list + 8, action_key);
    list[17] = (uint8_t)((unregister ? 2 : 0) | keep);
    be16_put(list + 18, relative_port);
    be32_put(list + 20, 4 + padded);
    uint8_t *id = list + 24;
    id[0] = 0x45;
    be16_put(id + 2, (uint16_t)padded);
    memcpy(id + 4, initiator, name_bytes);
    uint8_t *text = id + 4 + name_bytes;
    memcpy(text, ",i,0x", 5);
    for (unsigned i = 0; i < 6; i++) {
        text[5 + 2 * i] = (uint8_t)digit[isid[i] >> 4];
        text[6 + 2 * i] = (uint8_t)digit[isid[i] & 15];
    }
    *list_bytes = 24 + 4 + padded;
    return OK;
}

void scsi_read_capacity10(struct scsi_cdb *cdb)
{
    start(cdb, 0x25, 10);
    cdb->read_bytes = 8;
}

void scsi_read_capacity16(struct scsi_cdb *cdb)
{
    start(cdb, 0x9e, 16);
    cdb->bytes[1] = 0x10;
    be32_put(cdb->bytes + 10, SCSI_CAPACITY16_BYTES);
    cdb->read_bytes = SCSI_CAPACITY16_BYTES;
}

static void ranged(struct scsi_cdb *cdb, uint8_t opcode, uint64_t block, uint32_t blocks, uint8_t flags)
{
    start(cdb, opcode, 16);
    cdb->bytes[1] = flags;
    be64_put(cdb->bytes + 2, block);
    be32_put(cdb->bytes + 10, blocks);
}

void scsi_read16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes, bool fua)
{
    ranged(cdb, 0x88, block, blocks, fua ? 0x08 : 0);
    cdb->read_bytes = blocks * block_bytes;
}

void scsi_write16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes, bool fua)
{
    ranged(cdb, 0x8a, block, blocks, fua ? 0x08 : 0);
    cdb->write_bytes = blocks * block_bytes;
}

void scsi_synchronize_cache16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks)
{
    ranged(cdb, 0x91, block, blocks, 0);
}

void scsi_write_same16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes, bool unmap)
{
    ranged(cdb, 0x93, block, blocks, unmap ? 0x08 : 0);
    cdb->write_bytes = block_bytes;
}

void scsi_compare_and_write(struct scsi_cdb *cdb, uint64_t block, uint8_t blocks, uint32_t block_bytes)
{
    start(cdb, 0x89, 16);
    be64_put(cdb->bytes + 2, block);
    cdb->bytes[13] = blocks;
    cdb->write_bytes = 2u * blocks * block_bytes;
}

void scsi_unmap(struct scsi_cdb *cdb, unsigned ranges)
{
    start(cdb, 0x42, 10);
    be16_put(cdb->bytes + 7, (uint16_t)SCSI_UNMAP_LIST_BYTES(ranges));
    cdb->write_bytes = SCSI_UNMAP_LIST_BYTES(ranges);
}

void scsi_unmap_list(uint8_t *list, const struct scsi_range *ranges, unsigned count)
{
    memset(list, 0, SCSI_UNMAP_LIST_BYTES(count));
    be16_put(list, (uint16_t)(6 + 16 * count));
    be16_put(list + 2, (uint16_t)(16 * count));
    for (unsigned i = 0; i < count; i++) {
        be64_put(list + 8 + 16 * i, ranges[i].block);
        be32_put(list + 16 + 16 * i, ranges[i].blocks);
    }
}
