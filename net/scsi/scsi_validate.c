/* SPDX-License-Identifier: MIT */
/* The validation's script, and how each answer is judged. See scsi_validate.h. */
#include "net/scsi/scsi_validate.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "net/scsi/scsi_data.h"
#include "net/scsi/scsi_sense.h"

#define TYPE SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS
#define ATTEMPTS_MAX 64u
#define CANDIDATES 64u
#define BLANK_AT (64u * 1024) /* besides the beginning: where btrfs begins */

enum op { OP_BLANK, OP_BLANK_64K, OP_CANDIDATE, OP_KEYS, OP_RESERVATION, OP_CAPABILITIES, OP_REGISTER, OP_RESERVE, OP_LOGIN, OP_READY,
          OP_WRITE, OP_UNMAP, OP_SAME, OP_COMPARE, OP_PREEMPT, OP_ABORT, OP_RESET, OP_SAME_KEY, OP_RELEASE, OP_UNREGISTER, OP_FORGET,
          OP_KEYS_GONE, OP_END };
enum expect {
    MUST,    /* else there is no going on */
    GOOD,    /* the check fails otherwise */
    REFUSED, /* by the reservation; the check fails otherwise */
    ANY,
};

struct step {
    uint8_t nexus, op, expect, check;
    const char *what; /* in the check's words: what it was that went wrong */
};
#define NONE SCSI_CHECK_COUNT

static const struct step script[] = {
    { 0, OP_BLANK, MUST, NONE, "reading the first blocks" },
    { 0, OP_BLANK_64K, MUST, NONE, "reading a block" },
    { 0, OP_CANDIDATE, MUST, NONE, "reading a block" },
    { 0, OP_KEYS, MUST, NONE, "READ KEYS" },
    { 0, OP_RESERVATION, MUST, NONE, "READ RESERVATION" },
    { 0, OP_CAPABILITIES, ANY, SCSI_CHECK_POWER, "REPORT CAPABILITIES" },
    { 0, OP_REGISTER, MUST, NONE, "REGISTER" },
    { 0, OP_RESERVE, MUST, NONE, "RESERVE, write exclusive, registrants only," },
    { 1, OP_LOGIN, MUST, NONE, "a second session" },
    { 1, OP_READY, MUST, NONE, "TEST UNIT READY" },
    { 1, OP_WRITE, REFUSED, SCSI_CHECK_WRITE, "a write without a key" },
    { 1, OP_UNMAP, REFUSED, SCSI_CHECK_UNMAP, "an UNMAP without a key" },
    { 0, OP_WRITE, GOOD, SCSI_CHECK_HOLDER, "a write of the holder" },
    { 1, OP_SAME, REFUSED, SCSI_CHECK_SAME, "a WRITE SAME without a key" },
    { 1, OP_COMPARE, REFUSED, SCSI_CHECK_COMPARE, "a COMPARE AND WRITE without a key" },
    { 1, OP_REGISTER, GOOD, SCSI_CHECK_MEMBERS, "a second REGISTER" },
    { 1, OP_WRITE, GOOD, SCSI_CHECK_MEMBERS, "a write of another one who is registered" },
    { 0, OP_PREEMPT, GOOD, SCSI_CHECK_PREEMPT, "PREEMPT" },
    { 1, OP_WRITE, REFUSED, SCSI_CHECK_PREEMPT, "a write of who was preempted" },
    { 1, OP_REGISTER, GOOD, SCSI_CHECK_ABORT, "a REGISTER anew" },
    { 0, OP_ABORT, GOOD, SCSI_CHECK_ABORT, "PREEMPT AND ABORT" },
    { 1, OP_WRITE, REFUSED, SCSI_CHECK_ABORT, "a write of who was preempted" },
    { 0, OP_PREEMPT, ANY, NONE, "PREEMPT" }, /* where it cannot abort */
    { 0, OP_RESET, GOOD, SCSI_CHECK_RESET, "LOGICAL UNIT RESET" },
    { 1, OP_WRITE, REFUSED, SCSI_CHECK_RESET, "a write without a key after the reset" },
    { 0, OP_WRITE, GOOD, SCSI_CHECK_RESET, "a write of the holder after the reset" },
    { 1, OP_REGISTER, GOOD, SCSI_CHECK_TAKEOVER, "a REGISTER anew" },
    { 1, OP_PREEMPT, GOOD, SCSI_CHECK_TAKEOVER, "PREEMPT of the holder" },
    { 0, OP_WRITE, REFUSED, SCSI_CHECK_TAKEOVER, "a write of the holder that was preempted" },
    { 1, OP_LOGIN, GOOD, SCSI_CHECK_RECONNECT, "a login anew" },
    { 1, OP_READY, ANY, NONE, "TEST UNIT READY" },
    { 0, OP_WRITE, REFUSED, SCSI_CHECK_RECONNECT, "a write without a key after the holder's reconnect" },
    { 1, OP_SAME_KEY, GOOD, SCSI_CHECK_RECONNECT, "the key of who has come back" },
    { 1, OP_WRITE, GOOD, SCSI_CHECK_RECONNECT, "a write of who has come back" },
    /* Tidying up; from here on whatever happened. */
    { 0, OP_REGISTER, ANY, NONE, "REGISTER" },
    { 0, OP_PREEMPT, ANY, NONE, "PREEMPT" },
    { 0, OP_WRITE, ANY, NONE, "a write" },
    { 0, OP_RELEASE, ANY, NONE, "RELEASE" },
    { 0, OP_UNREGISTER, ANY, NONE, "REGISTER" },
    { 1, OP_FORGET, ANY, NONE, "REGISTER" }, /* whatever key the target has for it: istgt changes it */
    { 0, OP_KEYS_GONE, GOOD, SCSI_CHECK_CLEAN, "READ KEYS" },
    { 0, OP_END, ANY, NONE, "" },
};
#define TIDY_STEPS 8u

const char *scsi_check_name(enum scsi_check check)
{
    static const char *const names[] = {
        [SCSI_CHECK_WRITE] = "a write without a key is refused",
        [SCSI_CHECK_UNMAP] = "an UNMAP without a key is refused",
        [SCSI_CHECK_SAME] = "a WRITE SAME without a key is refused",
        [SCSI_CHECK_COMPARE] = "a COMPARE AND WRITE without a key is refused",
        [SCSI_CHECK_HOLDER] = "the holder writes",
        [SCSI_CHECK_MEMBERS] = "all who are registered write",
        [SCSI_CHECK_PREEMPT] = "PREEMPT keeps a node out",
        [SCSI_CHECK_ABORT] = "PREEMPT AND ABORT keeps a node out",
        [SCSI_CHECK_RESET] = "a reset of the unit keeps the reservation",
        [SCSI_CHECK_TAKEOVER] = "the holder can be preempted",
        [SCSI_CHECK_RECONNECT] = "key and reservation outlive a reconnect",
        [SCSI_CHECK_POWER] = "the target can keep them over its loss of power",
        [SCSI_CHECK_CLEAN] = "nothing is left of the validation",
    };

    return check < SCSI_CHECK_COUNT ? names[check] : "";
}

static const struct step *now(const struct scsi_validate *v)
{
    return &script[v->step];
}

static void judge(struct scsi_validate *v, unsigned check, enum scsi_result result, const char *format, ...) PRINTF_LIKE(4, 5);
static void judge(struct scsi_validate *v, unsigned check, enum scsi_result result, const char *format, ...)
{
    va_list arguments;

    /* What has failed stays so; what is not there is said once. */
    if (check == NONE || v->answer[check].result == SCSI_FAILED || (v->answer[check].result == SCSI_ABSENT && result == SCSI_PASSED))
        return;
    va_start(arguments, format);
    vsnprintf(v->answer[check].words, sizeof v->answer[check].words, format, arguments);
    va_end(arguments);
    v->answer[check].result = result;
}

static void finish(struct scsi_validate *v)
{
    static const uint8_t needed[] = { SCSI_CHECK_WRITE, SCSI_CHECK_HOLDER, SCSI_CHECK_MEMBERS, SCSI_CHECK_PREEMPT,
                                      SCSI_CHECK_TAKEOVER, SCSI_CHECK_RECONNECT, SCSI_CHECK_POWER, SCSI_CHECK_CLEAN };
    static const uint8_t unless_absent[] = { SCSI_CHECK_UNMAP, SCSI_CHECK_SAME, SCSI_CHECK_COMPARE };
    bool aborts = v->answer[SCSI_CHECK_ABORT].result == SCSI_PASSED;
    bool resets = v->answer[SCSI_CHECK_RESET].result == SCSI_PASSED;

    v->over = true;
    v->fit = !v->why[0] && (aborts || (v->answer[SCSI_CHECK_ABORT].result == SCSI_ABSENT && resets)) &&
             v->answer[SCSI_CHECK_RESET].result != SCSI_FAILED;
    for (unsigned i = 0; i < ARRAY_COUNT(needed); i++)
        v->fit &= v->answer[needed[i]].result == SCSI_PASSED;
    for (unsigned i = 0; i < ARRAY_COUNT(unless_absent); i++)
        v->fit &= v->answer[unless_absent[i]].result == SCSI_PASSED || v->answer[unless_absent[i]].result == SCSI_ABSENT;
}

/* ---- Commands ---- */

static void out(struct scsi_validate *v, enum scsi_pr_out_action action, uint64_t key, uint64_t action_key)
{
    bool keep = action == SCSI_PR_REGISTER_AND_IGNORE && action_key && !v->cannot_keep;

    scsi_persistent_reserve_out(&v->cdb, action, TYPE, SCSI_PR_OUT_BYTES);
    scsi_pr_out_list(v->buffer, key, action_key, keep);
}

static uint64_t candidate(const struct scsi_validate *v)
{
    return v->blocks - 1 - v->blocks / CANDIDATES * v->tried; /* the end first */
}

static void build(struct scsi_validate *v)
{
    const struct step *s = now(v);
    uint64_t key = v->key[s->nexus], other = v->key[!s->nexus];
    uint32_t size = v->block_bytes, blank = SCSI_VALIDATE_ROOM / size;
    struct scsi_range range = { v->block, 1 };

    memset(v->buffer, 0, s->op == OP_COMPARE ? 2 * size : SCSI_VALIDATE_BLOCK); /* what is written is what is there */
    switch ((enum op)s->op) {
    case OP_BLANK: scsi_read16(&v->cdb, 0, blank, size, false); break;
    case OP_BLANK_64K: scsi_read16(&v->cdb, BLANK_AT / size, blank, size, false); break;
    case OP_CANDIDATE: scsi_read16(&v->cdb, candidate(v), 1, size, false); break;
    case OP_KEYS:
    case OP_KEYS_GONE: scsi_persistent_reserve_in(&v->cdb, SCSI_PR_READ_KEYS, 4096); break;
    case OP_RESERVATION: scsi_persistent_reserve_in(&v->cdb, SCSI_PR_READ_RESERVATION, 64); break;
    case OP_CAPABILITIES: scsi_persistent_reserve_in(&v->cdb, SCSI_PR_REPORT_CAPABILITIES, 64); break;
    case OP_REGISTER: out(v, SCSI_PR_REGISTER_AND_IGNORE, 0, key); break;
    case OP_RESERVE: out(v, SCSI_PR_RESERVE, key, 0); break;
    case OP_READY: scsi_test_unit_ready(&v->cdb); break;
    case OP_WRITE: scsi_write16(&v->cdb, v->block, 1, size, false); break;
    case OP_UNMAP:
        scsi_unmap(&v->cdb, 1);
        scsi_unmap_list(v->buffer, &range, 1);
        break;
    case OP_SAME: scsi_write_same16(&v->cdb, v->block, 1, size, false); break;
    case OP_COMPARE: scsi_compare_and_write(&v->cdb, v->block, 1, size); break;
    case OP_PREEMPT: out(v, SCSI_PR_PREEMPT, key, other); break;
    case OP_ABORT: out(v, SCSI_PR_PREEMPT_AND_ABORT, key, other); break;
    case OP_SAME_KEY: out(v, SCSI_PR_REGISTER, key, key); break;
    case OP_RELEASE: out(v, SCSI_PR_RELEASE, key, 0); break;
    case OP_UNREGISTER: out(v, SCSI_PR_REGISTER, key, 0); break;
    case OP_FORGET: out(v, SCSI_PR_REGISTER_AND_IGNORE, 0, 0); break;
    case OP_LOGIN:
    case OP_RESET:
    case OP_END: break;
    }
}

static void go(struct scsi_validate *v, unsigned step)
{
    v->step = step;
    v->attempts = 0;
    if (now(v)->op == OP_END) {
        finish(v);
        return;
    }
    if (now(v)->op == OP_UNMAP && !v->can_unmap) {
        judge(v, SCSI_CHECK_UNMAP, SCSI_ABSENT, "the unit has no UNMAP");
        go(v, step + 1);
        return;
    }
    if (now(v)->op == OP_FORGET && !v->second) {
        go(v, step + 1);
        return;
    }
    build(v);
}

static void tidy_up(struct scsi_validate *v)
{
    unsigned first = ARRAY_COUNT(script) - TIDY_STEPS;

    if (v->step < first)
        go(v, first);
    else
        go(v, v->step + 1);
}

static void stop(struct scsi_validate *v, const char *format, ...) PRINTF_LIKE(2, 3);
static void stop(struct scsi_validate *v, const char *format, ...)
{
    va_list arguments;
    bool begun = now(v)->op != OP_BLANK && v->step > 6;

    va_start(arguments, format);
    vsnprintf(v->why, sizeof v->why, format, arguments);
    va_end(arguments);
    if (begun)
        tidy_up(v);
    else
        finish(v);
}

/* ---- Answers ---- */

static bool blank(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (bytes[i])
            return false;
    return true;
}

/* A step whose answer has data; false: the validation is over, or goes on elsewhere. */
static bool understand(struct scsi_validate *v, uint32_t bytes)
{
    struct scsi_pr_capabilities capabilities;
    struct scsi_reservation reservation;
    uint32_t generation;
    uint64_t key;
    unsigned count, listed;

    switch ((enum op)now(v)->op) {
    case OP_BLANK:
    case OP_BLANK_64K:
        if (bytes == v->cdb.read_bytes && blank(v->buffer, bytes))
            return true;
        if (v->force && bytes == v->cdb.read_bytes)
            return true;
        stop(v, "the disk is not blank, and somebody may be using it whose writes would be refused meanwhile; where nobody is, "
                "`--force`");
        return false;
    case OP_CANDIDATE:
        if (bytes == v->block_bytes && blank(v->buffer, bytes)) {
            v->block = candidate(v);
            return true;
        }
        if (++v->tried < CANDIDATES) {
            go(v, v->step);
            return false;
        }
        stop(v, "no block of zeros was found, and nothing else is written to; delete something that is not needed");
        return false;
    case OP_KEYS:
    case OP_KEYS_GONE:
        if (scsi_parse_keys(v->buffer, bytes, &generation, &key, 1, &count, &listed) != OK) {
            stop(v, "the unit's answer to READ KEYS is cut");
            return false;
        }
        if (listed && now(v)->op == OP_KEYS) {
            stop(v, "somebody is registered, key 0x%016lx; `disk list` says who. Nobody may be using the disk", (unsigned long)key);
            return false;
        }
        if (listed) {
            judge(v, now(v)->check, SCSI_FAILED, "the key 0x%016lx is still there", (unsigned long)key);
            go(v, v->step + 1);
            return false;
        }
        return true;
    case OP_RESERVATION:
        if (scsi_parse_reservation(v->buffer, bytes, &reservation) == OK && !reservation.held)
            return true;
        stop(v, "somebody has reserved the disk");
        return false;
    case OP_CAPABILITIES:
        if (scsi_parse_pr_capabilities(v->buffer, bytes, &capabilities) == OK && capabilities.keeps)
            judge(v, SCSI_CHECK_POWER, SCSI_PASSED, "it says so (PTPL_C)");
        else
            judge(v, SCSI_CHECK_POWER, SCSI_FAILED, "it says that it cannot: whoever restarts it opens the disk to all");
        return true;
    default:
        return true;
    }
}

static void worked(struct scsi_validate *v, uint32_t bytes)
{
    const struct step *s = now(v);

    if (!understand(v, bytes))
        return;
    if (s->expect == REFUSED)
        judge(v, s->check, SCSI_FAILED, "%s was taken", s->what);
    else if (s->op == OP_KEYS_GONE)
        judge(v, s->check, SCSI_PASSED, "no key and no reservation");
    else if (s->op != OP_CAPABILITIES)
        judge(v, s->check, SCSI_PASSED, "%s was taken", s->what);
    go(v, v->step + 1);
}

static void refused(struct scsi_validate *v)
{
    const struct step *s = now(v);

    if (s->expect == MUST) {
        stop(v, "%s meets a reservation conflict", s->what);
        return;
    }
    if (s->expect == REFUSED)
        judge(v, s->check, SCSI_PASSED, "%s was refused", s->what);
    else if (s->op == OP_SAME_KEY)
        judge(v, s->check, SCSI_FAILED, "who comes back has not the key that it had: the target takes it for another, or "
                                                      "changed it");
    else
        judge(v, s->check, SCSI_FAILED, "%s was refused", s->what);
    go(v, v->step + 1);
}

static void failed(struct scsi_validate *v, enum scsi_action action, const char *words)
{
    const struct step *s = now(v);

    if (action == SCSI_UNSUPPORTED && s->op == OP_REGISTER && !v->cannot_keep) {
        v->cannot_keep = true;
        judge(v, SCSI_CHECK_POWER, SCSI_FAILED, "REGISTER with APTPL is refused: %.70s", words);
        build(v);
    } else if (s->expect == MUST) {
        stop(v, "%s: %.120s", s->what, words);
    } else if (action == SCSI_UNSUPPORTED && (s->expect == REFUSED || s->op == OP_ABORT)) {
        judge(v, s->check, SCSI_ABSENT, "the unit has none: %.90s", words);
        go(v, v->step + 1 + (s->op == OP_ABORT)); /* and then there is nobody who was preempted */
    } else if (action == SCSI_UNSUPPORTED && s->op == OP_CAPABILITIES) {
        judge(v, s->check, SCSI_FAILED, "the target does not tell: %.80s", words);
        go(v, v->step + 1);
    } else {
        judge(v, s->check, SCSI_FAILED, "%s: %.70s", s->what, words);
        go(v, v->step + 1);
    }
}

static void answer(void *core, unsigned status, const uint8_t *sense, size_t sense_bytes, uint32_t transferred)
{
    struct scsi_validate *v = core;
    struct scsi_sense parsed;
    char words[120];

    scsi_parse_sense(sense, sense_bytes, &parsed);
    struct scsi_verdict verdict = scsi_decide(status, &parsed, v->attempts);
    if (verdict.action == SCSI_DONE) {
        worked(v, MIN(transferred, v->cdb.read_bytes));
        return;
    }
    if (verdict.action == SCSI_CONFLICT && status == SCSI_RESERVATION_CONFLICT) {
        refused(v);
        return;
    }
    bool at_once = verdict.action == SCSI_RETRY || verdict.action == SCSI_CONFLICT; /* news: the command itself was not done */
    if (++v->attempts <= ATTEMPTS_MAX && (at_once || verdict.action == SCSI_RETRY_LATER)) {
        v->waiting = !at_once;
        v->delay_ns = verdict.delay_ns;
        if (at_once)
            build(v);
        return;
    }
    scsi_describe(status, &parsed, words, sizeof words);
    failed(v, verdict.action, words);
}

static enum scsi_talk_action next(void *core, struct scsi_talk_step *step)
{
    struct scsi_validate *v = core;

    if (v->over)
        return SCSI_TALK_OVER;
    *step = (struct scsi_talk_step){ .cdb = &v->cdb, .buffer = v->buffer, .delay_ns = v->delay_ns, .nexus = now(v)->nexus };
    if (v->waiting)
        return SCSI_TALK_WAIT;
    return now(v)->op == OP_LOGIN ? SCSI_TALK_LOGIN : now(v)->op == OP_RESET ? SCSI_TALK_RESET : SCSI_TALK_SEND;
}

static void waited(void *core)
{
    struct scsi_validate *v = core;

    v->waiting = false;
    build(v);
}

static void was_reset(void *core, bool done)
{
    struct scsi_validate *v = core;

    judge(v, now(v)->check, done ? SCSI_PASSED : SCSI_FAILED, done ? "the target resets the unit" : "the target does not reset the unit");
    go(v, v->step + 1);
}

static void logged_in(void *core)
{
    struct scsi_validate *v = core;

    v->second = true;
    go(v, v->step + 1);
}

void scsi_validate_start(struct scsi_validate *v)
{
    memset(v->answer, 0, sizeof v->answer);
    v->why[0] = '\0';
    v->step = v->attempts = v->tried = 0;
    v->over = v->second = v->waiting = v->cannot_keep = v->fit = false;
    if (v->block_bytes > SCSI_VALIDATE_BLOCK || v->blocks < 1024)
        stop(v, "units of fewer than 1024 blocks, or of blocks larger than 4 KiB, are not validated");
    else
        go(v, 0);
}

const struct scsi_talk_ops scsi_validate_ops = { .next = next, .answer = answer, .reset = was_reset, .waited = waited,
                                                 .logged_in = logged_in };
