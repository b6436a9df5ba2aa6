/* SPDX-License-Identifier: MIT */
/*
 * The validation of a unit: what fencing needs is tried on the real one, with two nexuses of this node's own, and each answer
 * is written down. The first nexus reserves the unit; the second one, without a key, tries to write; then each is preempted
 * by the other, comes back, and is looked at again.
 *
 * What is on the disk stays as it is: what is written is what was read before, into one block that is all zeros; so a unit
 * that takes an UNMAP or a WRITE SAME which it should have refused loses nothing. Where no such block is found among those
 * that are looked at, UNMAP is not tried, which is an answer, too. Not begun: where anybody has a key or the reservation, and,
 * without `force`, where the beginning of the disk is not blank, for somebody without a key may be using it, and would meet
 * the reservation.
 *
 * Pure: a core of scsi_talk.h with two sessions.
 */
#ifndef NET_SCSI_SCSI_VALIDATE_H
#define NET_SCSI_SCSI_VALIDATE_H

#include "net/scsi/scsi_cdb.h"
#include "net/scsi/scsi_talk.h"

enum scsi_check {
    SCSI_CHECK_WRITE,      /* without a key is refused; likewise the next three */
    SCSI_CHECK_UNMAP,
    SCSI_CHECK_SAME,
    SCSI_CHECK_COMPARE,
    SCSI_CHECK_HOLDER,     /* who has it writes */
    SCSI_CHECK_MEMBERS,    /* and whoever is registered */
    SCSI_CHECK_PREEMPT,    /* takes a key away, and with it the right to write */
    SCSI_CHECK_ABORT,      /* PREEMPT AND ABORT does */
    SCSI_CHECK_RESET,      /* the unit can be reset, and is reserved afterwards */
    SCSI_CHECK_TAKEOVER,   /* who has it can be preempted himself */
    SCSI_CHECK_RECONNECT,  /* key and reservation outlive the connection */
    SCSI_CHECK_POWER,      /* and a loss of power, the target says */
    SCSI_CHECK_CLEAN,      /* nothing is left of it all */
    SCSI_CHECK_COUNT,
};
const char *scsi_check_name(enum scsi_check check);

enum scsi_result { SCSI_NOT_TRIED, SCSI_PASSED, SCSI_FAILED, SCSI_ABSENT };

struct scsi_check_answer {
    enum scsi_result result;
    char words[120];
};

#define SCSI_VALIDATE_ROOM 8192u
#define SCSI_VALIDATE_BLOCK 4096u /* larger blocks are not validated */

struct scsi_validate {
    uint64_t key[2];          /* of the two nexuses */
    uint64_t blocks;          /* of the unit */
    uint32_t block_bytes;
    bool can_unmap;           /* the unit says that it has UNMAP */
    bool force;               /* also where the disk is not blank */
    uint8_t *buffer;          /* SCSI_VALIDATE_ROOM bytes */
    /* The result. */
    struct scsi_check_answer answer[SCSI_CHECK_COUNT];
    bool fit;                 /* for fencing: all that must pass has passed */
    char why[240];            /* why it was not begun or not ended; "" */
    /* The validation's own. */
    unsigned step, attempts, tried;
    bool over, second, waiting, cannot_keep;
    uint64_t delay_ns, block;
    struct scsi_cdb cdb;
};

/* What stands before "The result" is set. */
void scsi_validate_start(struct scsi_validate *v);
/* The core is the struct scsi_validate; session 0 may send, session 1 is idle. */
extern const struct scsi_talk_ops scsi_validate_ops;

#endif
