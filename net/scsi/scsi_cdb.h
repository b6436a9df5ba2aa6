/* SPDX-License-Identifier: MIT */
/*
 * SCSI commands as bytes: descriptor blocks (CDBs) and the parameter lists that go with some of them (SPC-4, SBC-3; the
 * sections are named with each). A builder fills a struct scsi_cdb: the block, and how many bytes the command reads or
 * writes, which is what the transport must be told.
 *
 * Everything is big-endian. Addresses and counts are in logical blocks of the unit, sizes in bytes. Builders trust
 * their caller, who has checked ranges against the capacity and the limits of the unit (VPD page B0h).
 *
 * Pure; any context. Above net/iscsi (or any other transport), below the disk.
 */
#ifndef NET_SCSI_SCSI_CDB_H
#define NET_SCSI_SCSI_CDB_H

#include "kernel/status.h"
#include "kernel/types.h"

struct scsi_cdb {
    uint8_t bytes[16];
    uint8_t length;                   /* 6, 10, 12 or 16; the rest is zero */
    uint32_t read_bytes, write_bytes; /* at most one is not 0 */
};

/* ---- SPC-4 ---- */

void scsi_test_unit_ready(struct scsi_cdb *cdb);                               /* 6.47 */
#define SCSI_STANDARD_INQUIRY (-1)
/* `page`: a VPD page, or SCSI_STANDARD_INQUIRY. */
void scsi_inquiry(struct scsi_cdb *cdb, int page, uint16_t room);              /* 6.6 */
void scsi_request_sense(struct scsi_cdb *cdb, bool descriptor, uint8_t room);  /* 6.39 */
void scsi_report_luns(struct scsi_cdb *cdb, uint32_t room);                    /* 6.33 */
/* All pages (3Fh), no block descriptors; of use for the write-protect bit. MODE SENSE (6) and (10). */
void scsi_mode_sense6(struct scsi_cdb *cdb, uint8_t room);                     /* 6.11 */
void scsi_mode_sense10(struct scsi_cdb *cdb, uint16_t room);                   /* 6.12 */

/* Persistent reservations: types (SPC-4 table 54). */
enum scsi_pr_type {
    SCSI_PR_WRITE_EXCLUSIVE = 1,
    SCSI_PR_EXCLUSIVE_ACCESS = 3,
    SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS = 5,
    SCSI_PR_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
    SCSI_PR_WRITE_EXCLUSIVE_ALL = 7,
    SCSI_PR_EXCLUSIVE_ACCESS_ALL = 8,
};
enum scsi_pr_in_action { SCSI_PR_READ_KEYS, SCSI_PR_READ_RESERVATION, SCSI_PR_REPORT_CAPABILITIES,
                         SCSI_PR_READ_FULL_STATUS };
enum scsi_pr_out_action {
    SCSI_PR_REGISTER,
    SCSI_PR_RESERVE,
    SCSI_PR_RELEASE,
    SCSI_PR_CLEAR,
    SCSI_PR_PREEMPT,
    SCSI_PR_PREEMPT_AND_ABORT,
    SCSI_PR_REGISTER_AND_IGNORE,
    SCSI_PR_REGISTER_AND_MOVE,
};
#define SCSI_PR_OUT_BYTES 24u
void scsi_persistent_reserve_in(struct scsi_cdb *cdb, enum scsi_pr_in_action action, uint16_t room); /* 6.15 */
/* `type` counts for RESERVE, RELEASE, PREEMPT, PREEMPT AND ABORT and REGISTER AND MOVE. */
void scsi_persistent_reserve_out(struct scsi_cdb *cdb, enum scsi_pr_out_action action, enum scsi_pr_type type,
                                 uint32_t list_bytes);                                               /* 6.16 */
/*
 * The parameter list of all actions but REGISTER AND MOVE (6.16.3). `key` is the one that this I_T nexus has registered
 * (0: none yet), `action_key` the new one (REGISTER...) or the victim's (PREEMPT...). `keep`: APTPL, registrations
 * outlive a loss of power of the target; only for REGISTER and REGISTER AND IGNORE EXISTING KEY.
 */
void scsi_pr_out_list(uint8_t list[SCSI_PR_OUT_BYTES], uint64_t key, uint64_t action_key, bool keep);
/*
 * The parameter list of REGISTER AND MOVE (6.16.4): the new holder is the iSCSI initiator port NAME,i,0xISID of the
 * target port with that relative identifier. Returns its length, a multiple of 4; ERR_RANGE: `room` is too small, or
 * the name.
 */
enum status scsi_pr_move_list(uint8_t *list, uint32_t room, uint64_t key, uint64_t action_key, bool unregister,
                              bool keep, uint16_t relative_port, const char *initiator, const uint8_t isid[6],
                              uint32_t *list_bytes) MUST_CHECK;

/* ---- SBC-3 ---- */

void scsi_read_capacity10(struct scsi_cdb *cdb);                               /* 5.15: 8 bytes */
#define SCSI_CAPACITY16_BYTES 32u
void scsi_read_capacity16(struct scsi_cdb *cdb);                               /* 5.16 */
/* `fua`: not answered before the data are on the medium. blocks * block_bytes must fit into 32 bits. */
void scsi_read16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes, bool fua);  /* 5.12 */
void scsi_write16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes, bool fua); /* 5.34 */
/* 0 blocks: to the end of the unit. */
void scsi_synchronize_cache16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks);                     /* 5.27 */
/*
 * One block of data is written to all; `unmap`: the unit may unmap them instead, where the block is all zero. 0 blocks:
 * to the end of the unit!
 */
void scsi_write_same16(struct scsi_cdb *cdb, uint64_t block, uint32_t blocks, uint32_t block_bytes,
                       bool unmap); /* 5.42 */
/* The data are the blocks that must be there, then those to write. 1 to 255 blocks. */
void scsi_compare_and_write(struct scsi_cdb *cdb, uint64_t block, uint8_t blocks, uint32_t block_bytes);  /* 5.2 */

struct scsi_range {
    uint64_t block;
    uint32_t blocks;
};
#define SCSI_UNMAP_LIST_BYTES(ranges) (8u + 16u * (ranges))
void scsi_unmap(struct scsi_cdb *cdb, unsigned ranges);                        /* 5.28 */
/* The parameter list: SCSI_UNMAP_LIST_BYTES(count) bytes; count is at most 4095. */
void scsi_unmap_list(uint8_t *list, const struct scsi_range *ranges, unsigned count);

#endif
