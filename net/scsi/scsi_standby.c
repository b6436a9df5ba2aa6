/* SPDX-License-Identifier: MIT */
/* The steps of a path that is to stand by. See scsi_standby.h. Whatever is not understood leaves it unregistered. Pure. */
#include "net/scsi/scsi_standby.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "net/scsi/scsi_sense.h"

#define TYPE SCSI_PR_WRITE_EXCLUSIVE_REGISTRANTS /* registering does not look at it */
#define PAGE_IDENTITY 0x83
#define NAME_BYTES 512u
#define ATTEMPTS_MAX 40u

static void end(struct scsi_standby *s, const char *format, ...) PRINTF_LIKE(2, 3);
static void end(struct scsi_standby *s, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(s->why, sizeof s->why, format, arguments);
    va_end(arguments);
    s->step = STANDBY_OVER;
}

static void build(struct scsi_standby *s)
{
    switch (s->step) {
    case STANDBY_NAME:
        scsi_inquiry(&s->cdb, PAGE_IDENTITY, NAME_BYTES);
        break;
    case STANDBY_LOOK:
    case STANDBY_CHECK:
        scsi_persistent_reserve_in(&s->cdb, SCSI_PR_READ_KEYS, SCSI_STANDBY_ROOM);
        break;
    case STANDBY_SWAP:
        scsi_persistent_reserve_out(&s->cdb, SCSI_PR_REGISTER, TYPE, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(s->buffer, s->key, s->key, s->keep);
        break;
    case STANDBY_REGISTER:
        scsi_persistent_reserve_out(&s->cdb, SCSI_PR_REGISTER, TYPE, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(s->buffer, 0, s->key, s->keep);
        break;
    case STANDBY_UNREGISTER:
        scsi_persistent_reserve_out(&s->cdb, SCSI_PR_REGISTER, TYPE, SCSI_PR_OUT_BYTES);
        scsi_pr_out_list(s->buffer, s->key, 0, s->keep);
        break;
    case STANDBY_OVER:
        break;
    }
}

static void go(struct scsi_standby *s, int step)
{
    s->step = step;
    s->attempts = 0;
    build(s);
}

/* ---- Answers ---- */

static void name(struct scsi_standby *s, uint32_t bytes)
{
    struct scsi_identity identity;

    if (s->identity[0] && scsi_parse_identity(s->buffer, bytes, &identity) == OK &&
        !strcmp(identity.name, s->identity)) {
        go(s, STANDBY_LOOK);
        return;
    }
    s->other = true;
    end(s, "another unit is there, or one without a name (VPD page 83h); correct portal, or map the same unit there");
}

static void keys(struct scsi_standby *s, uint32_t bytes)
{
    uint32_t generation;
    uint64_t first;
    unsigned count, listed;
    bool used = false, own = false;

    if (scsi_parse_keys(s->buffer, bytes, &generation, &first, 1, &count, &listed) != OK) {
        end(s, "the unit's answer to READ KEYS is cut");
        return;
    }
    count = (unsigned)MIN((size_t)listed, (bytes - 8u) / 8);
    for (unsigned i = 0; i < count; i++) {
        used |= be64_get(s->buffer + 8 + 8 * i) == s->used;
        own |= be64_get(s->buffer + 8 + 8 * i) == s->key;
    }
    if (s->step == STANDBY_LOOK && used) {
        go(s, STANDBY_SWAP);
    } else if (s->step == STANDBY_LOOK) {
        end(s, "the key of the path in use, 0x%016lx, is not registered now", (unsigned long)s->used);
    } else if (used && own) {
        s->registered = true;
        end(s, "%s", "");
    } else if (own) {
        go(s, STANDBY_UNREGISTER);
    } else {
        end(s, "its key, 0x%016lx, was taken away again", (unsigned long)s->key);
    }
}

static void done(struct scsi_standby *s, uint32_t bytes)
{
    switch (s->step) {
    case STANDBY_NAME:
        name(s, bytes);
        break;
    case STANDBY_LOOK:
    case STANDBY_CHECK:
        keys(s, bytes);
        break;
    case STANDBY_SWAP:
    case STANDBY_REGISTER:
        go(s, STANDBY_CHECK);
        break;
    case STANDBY_UNREGISTER:
        end(s, "the key of the path in use, 0x%016lx, is not registered any more", (unsigned long)s->used);
        break;
    case STANDBY_OVER:
        break;
    }
}

static void answer(void *core, unsigned status, const uint8_t *sense, size_t sense_bytes, uint32_t transferred)
{
    struct scsi_standby *s = core;
    struct scsi_sense parsed;
    char words[100];

    scsi_parse_sense(sense, sense_bytes, &parsed);
    struct scsi_verdict verdict = scsi_decide(status, &parsed, s->attempts);
    if (verdict.action == SCSI_DONE) {
        done(s, MIN(transferred, s->cdb.read_bytes));
        return;
    }
    bool conflict = verdict.action == SCSI_CONFLICT && status == SCSI_RESERVATION_CONFLICT;
    if (conflict && s->step == STANDBY_SWAP) { /* this nexus has none yet */
        go(s, STANDBY_REGISTER);
        return;
    }
    bool at_once = verdict.action == SCSI_RETRY || (verdict.action == SCSI_CONFLICT && !conflict);
    if (++s->attempts > ATTEMPTS_MAX || (!at_once && verdict.action != SCSI_RETRY_LATER)) {
        scsi_describe(status, &parsed, words, sizeof words);
        s->other = s->step == STANDBY_NAME;
        end(s, "the unit %s: %s", s->other ? "does not tell its name" : "does not register its key", words);
        return;
    }
    s->waiting = !at_once;
    s->delay_ns = verdict.delay_ns;
    if (at_once)
        build(s);
}

static enum scsi_talk_action next(void *core, struct scsi_talk_step *step)
{
    struct scsi_standby *s = core;

    *step = (struct scsi_talk_step){ .cdb = &s->cdb, .buffer = s->buffer, .delay_ns = s->delay_ns };
    return s->step == STANDBY_OVER ? SCSI_TALK_OVER : s->waiting ? SCSI_TALK_WAIT : SCSI_TALK_SEND;
}

static void waited(void *core)
{
    struct scsi_standby *s = core;

    s->waiting = false;
    build(s);
}

static void was_reset(void *core, bool good)
{
    (void)core;
    (void)good;
}

void scsi_standby_start(struct scsi_standby *s)
{
    s->other = s->registered = s->waiting = false;
    s->why[0] = '\0';
    go(s, STANDBY_NAME);
}

const struct scsi_talk_ops scsi_standby_ops = { .next = next, .answer = answer, .reset = was_reset, .waited = waited };
