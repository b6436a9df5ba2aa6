/* SPDX-License-Identifier: MIT */
/*
 * The steps of a proof. See scsi_proof.h. Each step is one command; what its answer means is in the function of the
 * step's name, and leads to the next step or to the verdict. Everything that is not understood leads to UNSURE, never
 * to HOLDS. Pure.
 */
#include "net/scsi/scsi_proof.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_sense.h"

#define ROUNDS_MAX 8u    /* how often keys that change under the proof are read again */
#define ATTEMPTS_MAX 64u /* how often a command is answered with nothing but news */

static void end(struct scsi_proof *proof, enum scsi_proof_verdict verdict, const char *format, ...) PRINTF_LIKE(3, 4);
static void end(struct scsi_proof *proof, enum scsi_proof_verdict verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(proof->why, sizeof(proof->why), format, arguments);
    va_end(arguments);
    proof->verdict = verdict;
}
#define UNSURE(...) end(proof, SCSI_PROOF_UNSURE, __VA_ARGS__)

static void hold(struct scsi_proof *proof)
{
    proof->why[0] = 0;
    proof->verdict = SCSI_PROOF_HOLDS;
}

static void build(struct scsi_proof *proof)
{
    const struct scsi_claim *claim = proof->claim;
    uint16_t room = (uint16_t)MIN(proof->room, UINT32_C(0xfff8));
    switch (proof->step) {
    case PROOF_SETTLE:
        break;
    case PROOF_EPOCH:
        scsi_read16(&proof->cdb, claim->block, claim->blocks, claim->block_bytes, false);
        break;
    case PROOF_KEYS:
        scsi_persistent_reserve_in(&proof->cdb, SCSI_PR_READ_KEYS, room);
        break;
    case PROOF_RESERVATION:
        scsi_persistent_reserve_in(&proof->cdb, SCSI_PR_READ_RESERVATION, room);
        break;
    case PROOF_NEXUS:
        scsi_persistent_reserve_out(&proof->cdb, SCSI_PR_REGISTER, claim->type, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(proof->buffer, claim->key, claim->key, claim->keep);
        break;
    case PROOF_REGISTER:
        scsi_persistent_reserve_out(&proof->cdb, SCSI_PR_REGISTER, claim->type, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(proof->buffer, 0, claim->key, claim->keep);
        break;
    case PROOF_RESERVE:
        scsi_persistent_reserve_out(&proof->cdb, SCSI_PR_RESERVE, claim->type, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(proof->buffer, claim->key, 0, false);
        break;
    case PROOF_SHED:
        scsi_persistent_reserve_out(&proof->cdb, proof->no_abort ? SCSI_PR_PREEMPT : SCSI_PR_PREEMPT_AND_ABORT, claim->type,
                                    SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(proof->buffer, claim->key, proof->kin, false);
        break;
    }
}

static void go(struct scsi_proof *proof, int step)
{
    proof->step = step;
    proof->attempts = 0;
    build(proof);
}

/* Goes back to an earlier step, as something has changed; not for ever. */
static void again(struct scsi_proof *proof, int step)
{
    if (++proof->rounds > ROUNDS_MAX)
        UNSURE("the unit's registrations change faster than they can be read");
    else
        go(proof, step);
}

/* From the first step that there is. */
static void begin(struct scsi_proof *proof)
{
    if (proof->claim->blocks)
        go(proof, PROOF_EPOCH);
    else if (proof->claim->key)
        go(proof, PROOF_KEYS);
    else
        UNSURE("there is neither an epoch nor a key to prove by");
}

void scsi_proof_start(struct scsi_proof *proof, const struct scsi_claim *claim, uint8_t *buffer, uint32_t room,
                      bool strays)
{
    *proof = (struct scsi_proof){ .claim = claim, .buffer = buffer, .room = room };
    if (room < SCSI_PROOF_ROOM_MIN || (uint64_t)claim->blocks * claim->block_bytes > room)
        UNSURE("the buffer of the proof is too small for its record");
    else if (strays)
        go(proof, PROOF_SETTLE);
    else
        begin(proof);
}

enum scsi_proof_action scsi_proof_next(const struct scsi_proof *proof)
{
    if (proof->verdict != SCSI_PROOF_PENDING)
        return SCSI_PROOF_OVER;
    if (proof->waiting)
        return SCSI_PROOF_WAIT;
    return proof->step == PROOF_SETTLE ? SCSI_PROOF_RESET : SCSI_PROOF_SEND;
}

void scsi_proof_reset(struct scsi_proof *proof, bool done)
{
    if (scsi_proof_next(proof) != SCSI_PROOF_RESET)
        return;
    if (done)
        begin(proof);
    else
        UNSURE("the target would not reset the unit, and writes of an earlier login may still be under way there");
}

void scsi_proof_waited(struct scsi_proof *proof)
{
    if (proof->waiting) {
        proof->waiting = false;
        build(proof); /* the buffer may have been overwritten */
    }
}

/* ---- Answers ---- */

static void epoch(struct scsi_proof *proof, uint32_t bytes)
{
    const struct scsi_claim *claim = proof->claim;
    if (bytes != claim->blocks * claim->block_bytes)
        UNSURE("only %u bytes of the volume's record came", bytes);
    else if (!claim->read_epoch(claim, proof->buffer, bytes, &proof->found_epoch))
        UNSURE("the volume's record of who owns it cannot be read");
    else if (proof->found_epoch != claim->epoch)
        end(proof, SCSI_PROOF_FENCED,
            "another node has taken the volume over: its epoch is %lu, and this node wrote in epoch %lu",
            (unsigned long)proof->found_epoch, (unsigned long)claim->epoch);
    else if (!claim->key)
        hold(proof);
    else {
        proof->refused = false;
        go(proof, PROOF_KEYS);
    }
}

/* A key of this life on another path. */
static bool is_kin(const struct scsi_claim *claim, uint64_t key)
{
    return key != claim->key && !((key ^ claim->key) & ~claim->path_bits);
}

static void keys(struct scsi_proof *proof, uint32_t bytes)
{
    uint64_t key, key_wanted = proof->claim->key;
    unsigned count, listed, found = 0, kin = 0;
    /* One key at a time from the buffer: the list needs no second place. */
    if (scsi_parse_keys(proof->buffer, bytes, &proof->generation, &key, 1, &count, &listed) != OK) {
        UNSURE("the unit's answer to READ KEYS is cut");
        return;
    }
    count = (unsigned)MIN((size_t)listed, (bytes - 8u) / 8);
    proof->kin = 0;
    for (unsigned i = 0; i < count; i++) {
        key = be64_get(proof->buffer + 8 + 8 * i);
        found += key == key_wanted;
        kin += is_kin(proof->claim, key);
        proof->kin = is_kin(proof->claim, key) ? key : proof->kin;
    }
    proof->alone = found + kin == listed;
    if (found && kin)
        go(proof, PROOF_SHED);
    else if (found)
        go(proof, PROOF_RESERVATION);
    else if (kin) {
        proof->rejoined |= !proof->claim->blocks;
        proof->moved = true;
        go(proof, PROOF_REGISTER);
    }
    else if (count < listed)
        UNSURE("the unit has %u registrations, and only %u of them could be read", listed, count);
    else if (proof->alone && proof->claim->restore)
        go(proof, PROOF_REGISTER);
    else
        end(proof, SCSI_PROOF_FENCED, "the key 0x%016lx is not registered any more: %s", (unsigned long)key_wanted,
            listed ? "another node has fenced this one" : "the target has forgotten all keys");
}

static void reservation(struct scsi_proof *proof, uint32_t bytes)
{
    const struct scsi_claim *claim = proof->claim;
    struct scsi_reservation r;
    if (scsi_parse_reservation(proof->buffer, bytes, &r) != OK) {
        UNSURE("the unit's answer to READ RESERVATION is cut");
    } else if (r.generation != proof->generation) {
        again(proof, PROOF_KEYS);
    } else if (!r.held) {
        if (claim->restore && proof->alone)
            go(proof, PROOF_RESERVE);
        else
            end(proof, SCSI_PROOF_UNPROTECTED, "the unit is not reserved: nothing would keep a fenced node out");
    } else if (r.type != claim->type) {
        end(proof, SCSI_PROOF_UNPROTECTED, "the unit is reserved as %s by the key 0x%016lx, and not as %s",
            scsi_pr_type_name(r.type), (unsigned long)r.key, scsi_pr_type_name(claim->type));
    } else if ((r.type == SCSI_PR_WRITE_EXCLUSIVE || r.type == SCSI_PR_EXCLUSIVE_ACCESS) && r.key != claim->key) {
        end(proof, SCSI_PROOF_FENCED, "the unit is reserved by the key 0x%016lx alone", (unsigned long)r.key);
    } else if (proof->rejoined && (!proof->alone || r.key != claim->key)) {
        end(proof, SCSI_PROOF_FENCED, "another initiator has come while this path was away: the unit is reserved by the key "
            "0x%016lx", (unsigned long)r.key);
    } else if (claim->stood_by && !claim->blocks && r.key != claim->key) {
        end(proof, SCSI_PROOF_FENCED, "another initiator has come while another path was in use: the unit is reserved by the key "
            "0x%016lx", (unsigned long)r.key);
    } else {
        /* Only where the reservation is this very key's can it be told later that nobody has fenced it meanwhile. */
        proof->may_rejoin = !claim->blocks && proof->alone && r.key == claim->key;
        go(proof, PROOF_NEXUS);
    }
}

/* A reservation kept the command out. */
static void conflict(struct scsi_proof *proof)
{
    switch (proof->step) {
    case PROOF_EPOCH: /* not even reading: the keys say more */
        proof->refused = true;
        if (proof->claim->key)
            go(proof, PROOF_KEYS);
        else
            end(proof, SCSI_PROOF_UNPROTECTED, "somebody else has reserved the unit");
        break;
    case PROOF_NEXUS:
        if ((proof->claim->restore && proof->alone) || proof->may_rejoin) {
            proof->rejoined = proof->may_rejoin;
            go(proof, PROOF_REGISTER);
        } else
            end(proof, SCSI_PROOF_UNPROTECTED, "the key 0x%016lx is registered, but not on this path: register it here",
                (unsigned long)proof->claim->key);
        break;
    case PROOF_REGISTER: /* somebody was faster */
    case PROOF_RESERVE:
    case PROOF_SHED: /* that path's key went by itself, or ours was preempted */
        if (++proof->rounds > ROUNDS_MAX)
            UNSURE("the unit refuses to register or to reserve");
        else
            begin(proof);
        break;
    default:
        UNSURE("the unit does not tell its registrations: a reservation of an old kind is in the way");
        break;
    }
}

static void done(struct scsi_proof *proof, uint32_t bytes)
{
    switch (proof->step) {
    case PROOF_EPOCH:
        epoch(proof, bytes);
        break;
    case PROOF_KEYS:
        keys(proof, bytes);
        break;
    case PROOF_RESERVATION:
        reservation(proof, bytes);
        break;
    case PROOF_NEXUS:
        if (proof->refused) /* and yet the record could not be read */
            again(proof, proof->claim->blocks ? PROOF_EPOCH : PROOF_KEYS);
        else
            hold(proof);
        break;
    case PROOF_REGISTER: /* whatever was written before we were registered is seen now; then perhaps RESERVE */
    case PROOF_RESERVE:
        proof->restored = true;
        begin(proof);
        break;
    case PROOF_SHED:
        if (proof->no_abort)
            go(proof, PROOF_SETTLE);
        else
            begin(proof);
        break;
    case PROOF_SETTLE:
        break;
    }
}

void scsi_proof_answer(struct scsi_proof *proof, unsigned status, const uint8_t *sense, size_t sense_bytes,
                       uint32_t transferred)
{
    struct scsi_sense parsed;
    char words[120];
    if (scsi_proof_next(proof) != SCSI_PROOF_SEND)
        return;
    scsi_parse_sense(sense, sense_bytes, &parsed);
    struct scsi_verdict verdict = scsi_decide(status, &parsed, proof->attempts);
    proof->news |= verdict.news;
    if (verdict.action == SCSI_DONE) {
        done(proof, MIN(transferred, proof->cdb.read_bytes));
        return;
    }
    if (verdict.action == SCSI_CONFLICT && status == SCSI_RESERVATION_CONFLICT) {
        conflict(proof);
        return;
    }
    if (verdict.action == SCSI_UNSUPPORTED && proof->step == PROOF_SHED && !proof->no_abort) {
        proof->no_abort = true;
        build(proof);
        return;
    }
    scsi_describe(status, &parsed, words, sizeof(words));
    bool news = verdict.action == SCSI_RETRY || verdict.action == SCSI_CONFLICT; /* the command itself was not done */
    if (++proof->attempts > ATTEMPTS_MAX || (!news && verdict.action != SCSI_RETRY_LATER)) {
        bool none = verdict.action == SCSI_UNSUPPORTED && proof->step != PROOF_EPOCH;
        end(proof, none ? SCSI_PROOF_UNPROTECTED : SCSI_PROOF_UNSURE, "%s%s",
            none ? "the target has no persistent reservations: " : "", words);
        return;
    }
    proof->waiting = !news;
    proof->delay_ns = verdict.delay_ns;
    if (news)
        build(proof);
}

/* ---- As a conversation ---- */

static enum scsi_talk_action talk_next(void *core, struct scsi_talk_step *step)
{
    static const enum scsi_talk_action actions[] = { [SCSI_PROOF_SEND] = SCSI_TALK_SEND, [SCSI_PROOF_RESET] = SCSI_TALK_RESET,
                                                     [SCSI_PROOF_WAIT] = SCSI_TALK_WAIT, [SCSI_PROOF_OVER] = SCSI_TALK_OVER };
    struct scsi_proof *proof = core;

    *step = (struct scsi_talk_step){ .cdb = &proof->cdb, .buffer = proof->buffer, .delay_ns = proof->delay_ns };
    return actions[scsi_proof_next(proof)];
}

static void talk_answer(void *core, unsigned status, const uint8_t *sense, size_t sense_bytes, uint32_t transferred)
{
    scsi_proof_answer(core, status, sense, sense_bytes, transferred);
}

static void talk_reset(void *core, bool done)
{
    scsi_proof_reset(core, done);
}

static void talk_waited(void *core)
{
    scsi_proof_waited(core);
}

const struct scsi_talk_ops scsi_proof_talk = { .next = talk_next, .answer = talk_answer, .reset = talk_reset,
                                               .waited = talk_waited };
