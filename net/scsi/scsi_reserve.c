/* SPDX-License-Identifier: MIT */
/* Taking a reservation and giving it back, step by step. See scsi_reserve.h. */
#include "net/scsi/scsi_reserve.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "net/scsi/scsi_sense.h"

#define ROUNDS_MAX 8u
#define HOLDER_ROUNDS_MAX 24u /* of two who came at the same time the one that reserved waits for the other to go */
#define ATTEMPTS_MAX 64u
#define AGAIN_NS UINT64_C(200000000) /* until it is looked whether somebody who came at the same time has gone */

static bool is_ours(uint64_t key, uint64_t ours)
{
    return !((key ^ ours) & SCSI_KEY_NODE);
}

static bool for_all(unsigned type)
{
    return type == SCSI_PR_WRITE_EXCLUSIVE_ALL || type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;
}

/* Whether somebody who is not this node has a key, or the reservation. */
static bool has_strangers(const struct scsi_holding *h, uint64_t key)
{
    bool found = (h->held && !for_all(h->type) && !is_ours(h->key, key)) || h->listed > h->count;

    for (unsigned i = 0; i < h->count; i++)
        found |= !is_ours(h->keys[i], key);
    return found;
}

static void end(struct scsi_reserve *r, enum status status, const char *format, ...) PRINTF_LIKE(3, 4);
static void end(struct scsi_reserve *r, enum status status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(r->why, sizeof r->why, format, arguments);
    va_end(arguments);
    r->status = status;
    r->step = RESERVE_OVER;
}

static void out(struct scsi_reserve *r, enum scsi_pr_out_action action, uint64_t key, uint64_t action_key, bool keep)
{
    scsi_persistent_reserve_out(&r->cdb, action, r->type, SCSI_PR_OUT_BYTES);
    scsi_pr_out_list(r->buffer, key, action_key, keep);
}

static void build(struct scsi_reserve *r)
{
    switch (r->step) {
    case RESERVE_KEYS: scsi_persistent_reserve_in(&r->cdb, SCSI_PR_READ_KEYS, SCSI_RESERVE_ROOM); break;
    case RESERVE_RESERVATION: scsi_persistent_reserve_in(&r->cdb, SCSI_PR_READ_RESERVATION, SCSI_RESERVE_ROOM); break;
    case RESERVE_STATUS: scsi_persistent_reserve_in(&r->cdb, SCSI_PR_READ_FULL_STATUS, SCSI_RESERVE_ROOM); break;
    case RESERVE_REGISTER: out(r, SCSI_PR_REGISTER_AND_IGNORE, 0, r->key, !r->cannot_keep); break;
    case RESERVE_PREEMPT:
        out(r, r->cannot_abort ? SCSI_PR_PREEMPT : SCSI_PR_PREEMPT_AND_ABORT, r->key, r->victim, false);
        break;
    case RESERVE_RESERVE: out(r, SCSI_PR_RESERVE, r->key, 0, false); break;
    case RESERVE_RELEASE: out(r, SCSI_PR_RELEASE, r->key, 0, false); break;
    case RESERVE_UNREGISTER: out(r, SCSI_PR_REGISTER, r->key, 0, false); break;
    case RESERVE_RESET:
    case RESERVE_OVER: break;
    }
}

static void go(struct scsi_reserve *r, int step)
{
    r->step = step;
    r->attempts = 0;
    build(r);
}

/* It was refused, the words are there: what was registered is taken away again. */
static void give_up(struct scsi_reserve *r)
{
    r->again = r->registered;
    if (r->registered)
        go(r, RESERVE_UNREGISTER);
}

static void look_again(struct scsi_reserve *r, const char *why)
{
    if (++r->changes <= HOLDER_ROUNDS_MAX) {
        go(r, RESERVE_KEYS);
        return;
    }
    end(r, ERR_BUSY, "%s; try again", why);
    give_up(r);
}

/* ---- What a look leads to ---- */

static void say_strangers(struct scsi_reserve *r)
{
    const struct scsi_holding *h = &r->holding;
    char keys[120] = "", by[SCSI_NAME_BYTES + 8] = "";
    size_t at = 0;

    for (unsigned i = 0; i < h->count && at + 22 < sizeof keys; i++)
        if (!is_ours(h->keys[i], r->key))
            at += (size_t)snprintf(keys + at, sizeof keys - at, "%s0x%016lx", at ? ", " : "", (unsigned long)h->keys[i]);
    if (h->holder[0])
        snprintf(by, sizeof by, " (%.120s)", h->holder);
    if (h->held && (for_all(h->type) || !is_ours(h->key, r->key)))
        end(r, ERR_BUSY, "reserved by a stranger, key 0x%016lx%s, %s; registered: %s", (unsigned long)h->key, by,
            scsi_pr_type_name(h->type), keys[0] ? keys : "nobody");
    else
        end(r, ERR_BUSY, "strangers have registered with it: %s%s", keys, by);
}

/* A key that is to go, the holder's first; false: there is none. */
static bool find_victim(struct scsi_reserve *r)
{
    const struct scsi_holding *h = &r->holding;

    if (h->held && h->key != r->key) {
        bool others = false;
        for (unsigned i = 0; i < h->count; i++)
            others |= h->keys[i] != r->key;
        r->victim = h->key;
        if (!for_all(h->type) || others)
            return true;
    }
    for (unsigned i = 0; i < h->count; i++)
        if (h->keys[i] != r->key) {
            r->victim = h->keys[i];
            return true;
        }
    return false;
}

static void take(struct scsi_reserve *r)
{
    const struct scsi_holding *h = &r->holding;
    bool strangers = has_strangers(h, r->key);

    if (!r->registered) {
        if (strangers && !r->take_over)
            say_strangers(r);
        else
            go(r, RESERVE_REGISTER);
    } else if (strangers && !r->take_over && h->held) { /* who came at the same time: who could not reserve goes first */
        if (++r->rounds <= (h->held && h->key == r->key ? HOLDER_ROUNDS_MAX : ROUNDS_MAX)) {
            go(r, RESERVE_KEYS);
            r->waiting = true;
            r->delay_ns = AGAIN_NS;
        } else {
            say_strangers(r);
            give_up(r);
        }
    } else if (strangers && !r->take_over) {
        go(r, RESERVE_RESERVE);
    } else if (find_victim(r)) {
        go(r, RESERVE_PREEMPT);
    } else if (r->reset_due) {
        go(r, RESERVE_RESET);
    } else if (!h->held || h->type != r->type) {
        if (h->held) /* ours, of another type */
            go(r, RESERVE_RELEASE);
        else
            go(r, RESERVE_RESERVE);
    } else {
        r->status = OK;
        r->why[0] = '\0';
        r->step = RESERVE_OVER;
    }
}

static void looked(struct scsi_reserve *r)
{
    r->holding.known = true;
    if (r->order == SCSI_RESERVE_TAKE)
        take(r);
    else
        r->step = RESERVE_OVER; /* of a release: what is left */
}

/* ---- Answers ---- */

static void keys(struct scsi_reserve *r, uint32_t bytes)
{
    struct scsi_holding *h = &r->holding;

    memset(h, 0, sizeof *h);
    if (scsi_parse_keys(r->buffer, bytes, &h->generation, h->keys, SCSI_RESERVE_KEYS, &h->count, &h->listed) != OK)
        end(r, ERR_IO, "the unit's answer to READ KEYS is cut");
    else
        go(r, RESERVE_RESERVATION);
}

static void reservation(struct scsi_reserve *r, uint32_t bytes)
{
    struct scsi_holding *h = &r->holding;
    struct scsi_reservation found;

    if (scsi_parse_reservation(r->buffer, bytes, &found) != OK) {
        end(r, ERR_IO, "the unit's answer to READ RESERVATION is cut");
    } else if (found.generation != h->generation) {
        look_again(r, "the unit's registrations change faster than they can be read");
    } else {
        h->held = found.held;
        h->key = found.key;
        h->type = found.type;
        if (h->listed)
            go(r, RESERVE_STATUS);
        else
            looked(r);
    }
}

/* Which initiator it is that has the reservation, or the first stranger. What is cut is passed over. */
static void full_status(struct scsi_reserve *r, uint32_t bytes)
{
    struct scsi_full_status status;
    struct scsi_registration one;

    if (scsi_full_status_start(&status, r->buffer, bytes) != OK)
        return;
    while (scsi_full_status_next(&status, &one) == OK) {
        bool better = one.holder || (!is_ours(one.key, r->key) && !r->holding.held);
        if (better && !r->holding.holder[0])
            memcpy(r->holding.holder, one.initiator, sizeof r->holding.holder);
    }
}

static void done(struct scsi_reserve *r, uint32_t bytes)
{
    switch (r->step) {
    case RESERVE_KEYS:
        keys(r, bytes);
        break;
    case RESERVE_RESERVATION:
        reservation(r, bytes);
        break;
    case RESERVE_STATUS:
        full_status(r, bytes);
        looked(r);
        break;
    case RESERVE_REGISTER:
        r->registered = true;
        go(r, RESERVE_KEYS);
        break;
    case RESERVE_PREEMPT:
        if (!is_ours(r->victim, r->key)) {
            r->preempted++;
            r->last_preempted = r->victim;
        }
        r->reset_due |= r->cannot_abort;
        go(r, RESERVE_KEYS);
        break;
    case RESERVE_RESERVE:
        go(r, RESERVE_KEYS);
        break;
    case RESERVE_RELEASE:
        go(r, r->order == SCSI_RESERVE_TAKE ? RESERVE_RESERVE : RESERVE_UNREGISTER);
        break;
    case RESERVE_UNREGISTER:
        if (r->again)
            r->step = RESERVE_OVER; /* refused; the words are there */
        else
            go(r, RESERVE_KEYS);
        break;
    case RESERVE_RESET:
    case RESERVE_OVER:
        break;
    }
}

static void conflict(struct scsi_reserve *r)
{
    switch (r->step) {
    case RESERVE_PREEMPT: /* that key has gone by itself, or ours has: another one is faster */
    case RESERVE_RESERVE:
        r->registered = r->step == RESERVE_RESERVE; /* else it is registered anew */
        look_again(r, "another initiator takes the unit at the same time");
        break;
    case RESERVE_RELEASE: /* our key is not there any more: there is nothing to give back */
    case RESERVE_UNREGISTER:
        if (r->again)
            r->step = RESERVE_OVER;
        else if (r->order == SCSI_RESERVE_TAKE)
            look_again(r, "another initiator takes the unit at the same time");
        else
            go(r, RESERVE_KEYS);
        break;
    default:
        end(r, ERR_BUSY, "a reservation of an old kind is in the way, or the unit does not tell its registrations");
        break;
    }
}

/* The unit does not have this; false: it cannot be done without. */
static bool without(struct scsi_reserve *r)
{
    if (r->step == RESERVE_STATUS) {
        looked(r);
    } else if (r->step == RESERVE_REGISTER && !r->cannot_keep) {
        r->cannot_keep = true;
        build(r);
    } else if (r->step == RESERVE_PREEMPT && !r->cannot_abort) {
        r->cannot_abort = true;
        build(r);
    } else if (r->step == RESERVE_RELEASE) { /* it is of another type: not ours to give back */
        go(r, RESERVE_UNREGISTER);
    } else {
        return false;
    }
    return true;
}

static void answer(void *core, unsigned status, const uint8_t *sense, size_t sense_bytes, uint32_t transferred)
{
    struct scsi_reserve *r = core;
    struct scsi_sense parsed;
    char words[120];

    scsi_parse_sense(sense, sense_bytes, &parsed);
    struct scsi_verdict verdict = scsi_decide(status, &parsed, r->attempts);
    if (verdict.action == SCSI_DONE) {
        done(r, MIN(transferred, r->cdb.read_bytes));
        return;
    }
    if (verdict.action == SCSI_CONFLICT && status == SCSI_RESERVATION_CONFLICT) {
        conflict(r);
        return;
    }
    if (verdict.action == SCSI_UNSUPPORTED && without(r))
        return;
    bool at_once = verdict.action == SCSI_RETRY || verdict.action == SCSI_CONFLICT; /* news: the command itself was not done */
    if (++r->attempts > ATTEMPTS_MAX || (!at_once && verdict.action != SCSI_RETRY_LATER)) {
        scsi_describe(status, &parsed, words, sizeof words);
        bool none = verdict.action == SCSI_UNSUPPORTED;
        end(r, none ? ERR_UNSUPPORTED : ERR_IO, "%s%s", none ? "the target has no persistent reservations: " : "", words);
        return;
    }
    r->waiting = !at_once;
    r->delay_ns = verdict.delay_ns;
    if (at_once)
        build(r);
}

static enum scsi_talk_action next(void *core, struct scsi_talk_step *step)
{
    struct scsi_reserve *r = core;

    if (r->step == RESERVE_OVER)
        return SCSI_TALK_OVER;
    if (r->waiting) {
        step->delay_ns = r->delay_ns;
        return SCSI_TALK_WAIT;
    }
    step->cdb = &r->cdb;
    step->buffer = r->buffer;
    step->nexus = 0;
    return r->step == RESERVE_RESET ? SCSI_TALK_RESET : SCSI_TALK_SEND;
}

static void waited(void *core)
{
    struct scsi_reserve *r = core;

    r->waiting = false;
    build(r);
}

static void was_reset(void *core, bool good)
{
    struct scsi_reserve *r = core;

    r->reset_due = false;
    if (good)
        go(r, RESERVE_KEYS);
    else
        end(r, ERR_IO, "the target neither aborts the commands of who was preempted nor resets the unit: they may still land; "
                       "restart the target");
}

void scsi_reserve_start(struct scsi_reserve *r)
{
    r->status = OK;
    r->why[0] = '\0';
    r->preempted = 0;
    r->registered = r->cannot_keep = r->cannot_abort = r->reset_due = r->again = r->waiting = false;
    r->rounds = r->changes = 0;
    memset(&r->holding, 0, sizeof r->holding);
    go(r, r->order == SCSI_RESERVE_RELEASE ? RESERVE_RELEASE : RESERVE_KEYS);
}

const struct scsi_talk_ops scsi_reserve_ops = { .next = next, .answer = answer, .reset = was_reset, .waited = waited };
