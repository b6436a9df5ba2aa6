/* SPDX-License-Identifier: MIT */
/*
 * Orders about a unit's reservation: to look who has it, to take it, to give it back. Taking comes before the first write
 * of whoever mounts, or when an admin says so; what must be proven later, after each login, is scsi_proof.h.
 *
 * Keys. Bits 63 to 32 say which node's storage it is, 31 to 16 which life of that node (drawn at boot), 15 to 0 by which
 * path (the target's portal group). So keys of the same upper half are this node's: those of an earlier life were left
 * behind, by a loss of power say, and are taken away without asking; all others are strangers'.
 *
 * The type is "write exclusive, registrants only": who has no key may look and not write, and all members of a cluster, and
 * all paths of a node, may have keys. Who takes it, in this order:
 *   1. reads keys and reservation, of one moment; a stranger's is a refusal, by its key, unless the admin says that he is gone;
 *   2. registers its key, to outlive a loss of power where the target can;
 *   3. preempts the other keys and aborts their commands; where the target cannot abort, preempts them and resets the unit;
 *   4. reserves;
 *   5. reads keys and reservation again: it must be the only one there. Two who began at the same time see each other in 4
 *      or 5, and at most one of them stays.
 *
 * Pure: a core of scsi_talk.h.
 */
#ifndef NET_SCSI_SCSI_RESERVE_H
#define NET_SCSI_SCSI_RESERVE_H

#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_talk.h"

#define SCSI_KEY_NODE UINT64_C(0xffffffff00000000)
#define SCSI_KEY_LIFE UINT64_C(0xffffffffffff0000)

enum scsi_reserve_order { SCSI_RESERVE_LOOK, SCSI_RESERVE_TAKE, SCSI_RESERVE_RELEASE };

#define SCSI_RESERVE_KEYS 32u
#define SCSI_RESERVE_ROOM 4096u

/* Who has keys and the reservation. */
struct scsi_holding {
    bool known;              /* the target tells it */
    uint32_t generation;
    unsigned count, listed;  /* of keys; listed: that the target says it has */
    uint64_t keys[SCSI_RESERVE_KEYS];
    bool held;
    uint64_t key;            /* of the holder; 0: all who are registered are */
    uint8_t type;
    char holder[SCSI_NAME_BYTES]; /* the initiator of the holder, else of a key that is not ours; "": not told */
};

struct scsi_reserve {
    enum scsi_reserve_order order;
    uint64_t key;            /* this node's */
    enum scsi_pr_type type;  /* TAKE, RELEASE */
    bool take_over;          /* TAKE: strangers are preempted */
    uint8_t *buffer;         /* SCSI_RESERVE_ROOM bytes */
    /* The result. */
    enum status status;      /* ERR_BUSY: a stranger's; ERR_UNSUPPORTED: the target has no reservations; ERR_IO */
    char why[400];           /* for people, unless OK */
    struct scsi_holding holding;
    unsigned preempted;      /* strangers' keys that were taken away */
    uint64_t last_preempted;
    /* The order's own. */
    enum { RESERVE_KEYS, RESERVE_RESERVATION, RESERVE_STATUS, RESERVE_REGISTER, RESERVE_PREEMPT, RESERVE_RESET, RESERVE_RESERVE,
           RESERVE_RELEASE, RESERVE_UNREGISTER, RESERVE_OVER } step;
    bool registered, cannot_keep, cannot_abort, reset_due, again; /* again: given up, the key is to go */
    bool waiting;
    uint64_t delay_ns, victim;
    unsigned attempts, rounds, changes;
    struct scsi_cdb cdb;
};

/* What stands before "The result" is set. */
void scsi_reserve_start(struct scsi_reserve *reserve);
/* The core of a scsi_talk is the struct scsi_reserve. */
extern const struct scsi_talk_ops scsi_reserve_ops;

#endif
