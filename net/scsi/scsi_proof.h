/* SPDX-License-Identifier: MIT */
/*
 * The proof that this node may still write to a logical unit. After every login, and after news of SCSI_NEWS_PROVE,
 * nothing that was queued goes out before it: while the node was away another one may have fenced it and taken its
 * volume over, and a write of before would land over the new owner's.
 *
 * What is proven, in this order:
 *   1. Where copies of earlier commands may still be under way (ISCSI_PROVE_STRAYS), they are ended by a reset of the
 *      logical unit.
 *   2. The epoch: the volume's own record still says this node's.
 *   3. The key: the registration of this node and path is in the unit's list.
 *   4. The reservation: the claimed type is in force, so that the unit itself refuses whoever has no key. Keys and
 *      reservation are read in two commands; the generation says whether they are of one moment, else both are read
 *      again.
 *
 * Why that is enough. Who fences a node is registered, preempts its key, and only then writes the new epoch. If the key
 * is there (3) after the epoch was read (2), nobody had preempted it, so nobody had written another epoch before (2).
 * Whoever preempts it after (3) makes the unit refuse what is sent, for the reservation is in force (4). What the unit
 * forgets in a loss of power, connections are lost with, and the proof is made anew.
 *
 * What it relies on
 *   - A key belongs to one life of a node on one path. A node that was fenced registers another one; it never takes the
 *     old one again.
 *   - Whoever takes a volume over writes another epoch into its record before anything else, and after the preemption.
 *   - A command carries the epoch in which it was queued; may_send() of the session is scsi_proof_allows().
 *
 * A unit that loses its registrations with its power (no APTPL, or a target that forgets them) has an empty list
 * afterwards. `restore` allows to register and reserve anew then, and only then: where anybody else is registered, the
 * key may have been preempted. The epoch is read again after it, so a takeover of before is seen: a fence whose keys
 * were forgotten still holds.
 *
 * What it does not prove: that the key is registered for this very nexus, and not for one at another portal group. The
 * unit refuses what is written then. A RESERVATION CONFLICT soon after a proof that held means just that: register the
 * key on this path.
 *
 * Pure: commands go out and answers come in. The owner sends each as a probe (iscsi_command.probe) on the session that
 * is proving; where one is not answered, or the connection goes, it forgets the proof and starts another after the next
 * login. How long it may take is the session's prove_ns. Above net/iscsi, beside the disk.
 */
#ifndef NET_SCSI_SCSI_PROOF_H
#define NET_SCSI_SCSI_PROOF_H

#include "net/scsi/scsi_cdb.h"

/* What a node says of itself and a unit. Must outlive a proof; changed by its owner between proofs only. */
struct scsi_claim {
    uint64_t key;           /* registered for this node and path; 0: no reservation is used, only the epoch */
    enum scsi_pr_type type; /* the reservation that must be in force */
    bool keep;              /* `restore` registers with APTPL */
    bool restore;           /* an empty list of keys: register and reserve anew */
    uint64_t epoch;         /* of this node for the volume */
    /* Where the volume keeps it: `blocks` blocks from `block` on; 0 blocks: there is no volume yet, and no epoch. */
    uint64_t block;
    uint32_t blocks, block_bytes;
    /* Finds the epoch in them; false: they cannot be read as such a record. */
    bool (*read_epoch)(const struct scsi_claim *claim, const uint8_t *bytes, size_t count, uint64_t *epoch);
    void *owner;
};

enum scsi_proof_verdict {
    SCSI_PROOF_PENDING,
    SCSI_PROOF_HOLDS,       /* iscsi_session_resume() */
    SCSI_PROOF_FENCED,      /* key or epoch are not this node's any more: what it has queued is stale, for good */
    SCSI_PROOF_UNPROTECTED, /* registered, but the reservation is not in force: an admin, or who mounts, must take it */
    SCSI_PROOF_UNSURE,      /* could not be told: iscsi_session_drop(), and again */
};

enum scsi_proof_action {
    SCSI_PROOF_SEND,  /* `cdb`, its data from or to `buffer`; then scsi_proof_answer() */
    SCSI_PROOF_RESET, /* LOGICAL UNIT RESET; then scsi_proof_reset() */
    SCSI_PROOF_WAIT,  /* for delay_ns; then scsi_proof_waited() */
    SCSI_PROOF_OVER,  /* `verdict` and `why` */
};

#define SCSI_PROOF_ROOM_MIN 4096u

struct scsi_proof {
    const struct scsi_claim *claim;
    uint8_t *buffer;
    uint32_t room;
    struct scsi_cdb cdb;    /* SCSI_PROOF_SEND */
    uint64_t delay_ns;      /* SCSI_PROOF_WAIT */
    enum scsi_proof_verdict verdict;
    unsigned news;          /* SCSI_NEWS_* that came with the answers */
    uint32_t generation;    /* of the registrations, as they were last read */
    uint64_t found_epoch;
    bool restored;          /* key and reservation were lost, and are there again */
    char why[200];          /* for people, unless it holds */

    /* The proof's own. */
    enum { PROOF_SETTLE, PROOF_EPOCH, PROOF_KEYS, PROOF_RESERVATION, PROOF_REGISTER, PROOF_RESERVE } step;
    bool waiting, refused;
    unsigned attempts, rounds, listed;
};

/*
 * Starts. `buffer` is for the data of the commands: `room` bytes, SCSI_PROOF_ROOM_MIN at least, and enough for the
 * record of the epoch. `strays`: the session said ISCSI_PROVE_STRAYS.
 */
void scsi_proof_start(struct scsi_proof *proof, const struct scsi_claim *claim, uint8_t *buffer, uint32_t room,
                      bool strays);
/* What is to be done next; the same until it is answered. */
enum scsi_proof_action scsi_proof_next(const struct scsi_proof *proof);
/* The command was answered, with so many bytes of data in the buffer. */
void scsi_proof_answer(struct scsi_proof *proof, unsigned status, const uint8_t *sense, size_t sense_bytes,
                       uint32_t transferred);
/* The unit was reset, or the target would not. */
void scsi_proof_reset(struct scsi_proof *proof, bool done);
void scsi_proof_waited(struct scsi_proof *proof);

/* Whether a command that was queued in `epoch` may be sent. */
static inline bool scsi_proof_allows(const struct scsi_proof *proof, uint64_t epoch)
{
    return proof->verdict == SCSI_PROOF_HOLDS && epoch == proof->claim->epoch;
}

#endif
