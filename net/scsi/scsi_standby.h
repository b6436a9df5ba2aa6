/* SPDX-License-Identifier: MIT */
/*
 * What is asked and done on a path to a unit before it may stand by: that the unit is the one that the path in use leads
 * to, by its name (VPD page 83h), and that this path's key is registered, so that a path that is lost can be fenced at once.
 *
 *   1. the name;
 *   2. the list of keys: the key of the path in use must be there, else this node may be fenced, and registers nothing;
 *   3. this path's key is put in the place of itself, or registered where that nexus has none;
 *   4. the list again: the key of the path in use must still be there, and this one; else this one is taken away again.
 *
 * Why that fences nobody less. Who takes the unit over preempts the keys that he sees and looks once more before it is his
 * (scsi_proof.h): a key of step 3 that he saw is preempted, too. One that came after his last look came after he
 * preempted the key of the path in use, which 4 sees. And nothing is written on a path that stood by before a proof, which
 * reads the record of the epoch after step 3, or wants the reservation to be this node's (scsi_claim.stood_by).
 *
 * Pure: a core of scsi_talk.h. Used by scsi_path.h.
 */
#ifndef NET_SCSI_SCSI_STANDBY_H
#define NET_SCSI_SCSI_STANDBY_H

#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_talk.h"

#define SCSI_STANDBY_ROOM 2048u

struct scsi_standby {
    const char *identity;   /* of the unit; "": it has none, and is not known again */
    uint64_t key, used;     /* this path's; that of the path in use */
    bool keep;              /* registers with APTPL */
    uint8_t *buffer;        /* SCSI_STANDBY_ROOM bytes */
    /* The result. */
    bool other;             /* it is another unit, or cannot be told: this path must not be used */
    bool registered;        /* else the path can be used, where the proof holds */
    char why[160];          /* for people, unless registered */
    /* The core's own. */
    enum { STANDBY_NAME, STANDBY_LOOK, STANDBY_SWAP, STANDBY_REGISTER, STANDBY_CHECK, STANDBY_UNREGISTER, STANDBY_OVER } step;
    bool waiting;
    uint64_t delay_ns;
    unsigned attempts;
    struct scsi_cdb cdb;
};

/* What stands before "The result" is set. */
void scsi_standby_start(struct scsi_standby *standby);
/* The core of a scsi_talk is the struct scsi_standby. */
extern const struct scsi_talk_ops scsi_standby_ops;

#endif
