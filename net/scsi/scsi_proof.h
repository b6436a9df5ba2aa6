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
 *   3. The key: the registration of this node and path is in the unit's list, or one of this life's other paths.
 *   4. The reservation: the claimed type is in force, so that the unit itself refuses whoever has no key. Keys and
 *      reservation are read in two commands; the generation says whether they are of one moment, else both are read
 *      again.
 *   5. The nexus: the key is put in the place of itself (REGISTER), which succeeds only where this very nexus has it,
 *      and not one at another portal group, or a session of before that the target does not know us by any more (tgt).
 *      It changes nothing but the generation.
 *
 * Why that is enough. Whoever takes a volume over does three things, in this order: it preempts the keys of who had it,
 * writes another epoch, and looks at the list once more; where such a key is there again, it preempts it again. Only
 * then the volume is its own. Take any moment after that. If this node's key was never registered anew since the last
 * look, it is not there, and the unit refuses what is sent, for the reservation is in force (4). If it was, then by a
 * proof (below), which read the epoch after it, saw the other one, and did not hold. What the unit forgets in a loss of
 * power, connections are lost with, and the proof is made anew.
 *
 * What it relies on
 *   - Takeovers are done as above.
 *   - A key belongs to one life of a node on one path, and is registered by its owner before the first write, then by
 *     proofs alone, never while commands of before may be under way.
 *   - A command carries the epoch in which it was queued; may_send() of the session is scsi_proof_allows().
 *
 * A unit that loses its registrations with its power (no APTPL, or a target that forgets them) has an empty list
 * afterwards; one that does not know us any more has our key for a nexus that is gone. `restore` allows to register and
 * reserve anew then, and only where nobody else is registered: else the key may have been preempted, or the cluster
 * decides. The proof begins anew after it, with the epoch, so a takeover of before is seen: a fence whose keys were
 * forgotten still holds. Without a record of the epoch (a unit that an admin has reserved) there is no `restore`; only a
 * key whose nexus is gone is registered anew, and then it must be the only one and have the reservation itself: whoever
 * fenced this node meanwhile would have taken that.
 *
 * A path that stands by is registered before it is needed, and not by a proof; but nothing is sent on it before one, which reads
 * the epoch after that registration, as above.
 *
 * A node that comes back on another path registers that path's key, proves it, and preempts and aborts the key of the path
 * that it was on: so no command that is still under way there lands after what is sent here.
 *
 * Pure: commands go out and answers come in. The owner sends each as a probe (iscsi_command.probe) on the session that
 * is proving; where one is not answered, or the connection goes, it forgets the proof and starts another after the next
 * login (scsi_talk.h does that). How long it may take is the session's prove_ns. Above net/iscsi, beside the disk.
 */
#ifndef NET_SCSI_SCSI_PROOF_H
#define NET_SCSI_SCSI_PROOF_H

#include "net/scsi/scsi_cdb.h"
#include "net/scsi/scsi_talk.h"

/* What a node says of itself and a unit. Must outlive a proof; changed by its owner between proofs only. */
struct scsi_claim {
    uint64_t key;           /* registered for this node and path; 0: no reservation is used, only the epoch */
    enum scsi_pr_type type; /* the reservation that must be in force */
    bool keep;              /* `restore` registers with APTPL */
    bool restore;           /* where nobody else is registered: register and reserve anew what was forgotten */
    /*
     * Bits of the key that tell this life's paths apart; 0: there is one path. A key that differs in them only was
     * registered on a path that is given up: it shows that this life was not fenced, and is preempted and aborted.
     */
    uint64_t path_bits;
    /*
     * The key was registered while another path was in use (scsi_path.h), and so perhaps after this node was fenced there. With a
     * record of the epoch that is seen by the epoch; without one the reservation itself must be this key's, or become so
     * with the other path's.
     */
    bool stood_by;
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
    bool moved;             /* they were another path's of this life */
    char why[200];          /* for people, unless it holds */

    /* The proof's own. */
    enum { PROOF_SETTLE, PROOF_EPOCH, PROOF_KEYS, PROOF_RESERVATION, PROOF_NEXUS, PROOF_REGISTER, PROOF_RESERVE, PROOF_SHED } step;
    bool waiting, refused, alone; /* alone: no other node's key is in the list */
    bool may_rejoin, rejoined; /* registered anew without an epoch to show a fence */
    bool no_abort;           /* the target preempts only: the unit is reset then */
    uint64_t kin;            /* the key of another path of this life; 0: none is there */
    unsigned attempts, rounds;
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
/* The same as a core of scsi_talk.h. */
extern const struct scsi_talk_ops scsi_proof_talk;

/* Whether a command that was queued in `epoch` may be sent. */
static inline bool scsi_proof_allows(const struct scsi_proof *proof, uint64_t epoch)
{
    return proof->verdict == SCSI_PROOF_HOLDS && epoch == proof->claim->epoch;
}

#endif
