/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC-4 section 5.12), for one host at a time: "write exclusive", so that only the holder
 * writes, and others may look.
 *
 * A key's upper 48 bits are this host's (tool_identity()), its lower 16 are drawn at each run and at each new
 * connection. So a key tells which host left it. A run that was killed leaves its reservation behind; the next one on
 * this host takes it back, since a lock on this machine (device_iscsi.c) proves that the older run has ended. Whatever
 * has another host's key is a stranger's, and is only preempted when the admin says that he is gone.
 *
 * Where the target can keep registrations over a loss of its power, they are made so (APTPL, SPC-4 5.12.5): it is restarted
 * and nobody else could write meanwhile.
 *
 * When a connection was lost, the new one may count as another nexus, or as the same. Either way the new key is
 * registered first; if the reservation then has an older key of this run, it is another nexus, and PREEMPT moves the
 * reservation in one step, if nobody else has done so before. A reservation that is gone is not taken again: while it
 * was gone, somebody else may have written. Then the volume is read-only for the rest of the run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iscsi_lun.h"
#include "say.h"
#include "tool.h"

#define TYPE SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE
#define HOST_MASK (~UINT64_C(0xffff))

struct holding {
    bool reserved;
    uint64_t holder;
    int type;
    uint64_t key[LUN_MOST_KEYS]; /* registered, no more than these */
    unsigned count;
};

static enum lun_result pr_out(struct lun *l, int action, uint64_t key, uint64_t action_key)
{
    struct lun_command command = { .kind = LUN_PR_OUT, .action = action, .type = TYPE, .key = key,
                                   .action_key = action_key };
    /* The last registration's bit counts for all of them, also one that takes a key away. */
    command.keep = l->keeps && (action == SCSI_PERSISTENT_RESERVE_REGISTER ||
                                action == SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY);
    return lun_ask(l, &command, NULL);
}

/* Whether the target can keep registrations when its power goes. One that does not tell counts as one that cannot. */
static bool can_keep(struct lun *l)
{
    struct lun_command command = { .kind = LUN_PR_IN, .action = SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, .count = 8 };
    struct scsi_task *task;
    if (lun_ask(l, &command, &task))
        return false;
    struct scsi_persistent_reserve_in_report_capabilities *can = scsi_datain_unmarshall(task);
    bool keeps = can && can->ptpl_c;
    scsi_free_scsi_task(task);
    return keeps;
}

static enum lun_result read_keys(struct lun *l, struct holding *h)
{
    struct lun_command command = { .kind = LUN_PR_IN, .action = SCSI_PERSISTENT_RESERVE_READ_KEYS, .count = 8192 };
    struct scsi_task *task;
    enum lun_result result = lun_ask(l, &command, &task);
    if (result)
        return result;
    struct scsi_persistent_reserve_in_read_keys *keys = scsi_datain_unmarshall(task);
    h->count = 0;
    for (int i = 0; keys && i < keys->num_keys && h->count < LUN_MOST_KEYS; i++)
        h->key[h->count++] = keys->keys[i];
    scsi_free_scsi_task(task);
    return keys ? LUN_GOOD : LUN_REFUSED;
}

static enum lun_result look(struct lun *l, struct holding *h)
{
    struct lun_command command = { .kind = LUN_PR_IN, .action = SCSI_PERSISTENT_RESERVE_READ_RESERVATION, .count = 64 };
    struct scsi_task *task;
    enum lun_result result = lun_ask(l, &command, &task);
    memset(h, 0, sizeof(*h));
    if (result)
        return result;
    struct scsi_persistent_reserve_in_read_reservation *held = scsi_datain_unmarshall(task);
    if (held && held->reserved) {
        h->reserved = true;
        h->holder = held->reservation_key;
        h->type = held->pr_type;
    }
    scsi_free_scsi_task(task);
    return held ? read_keys(l, h) : LUN_REFUSED;
}

static bool is_ours(const struct lun *l, uint64_t key)
{
    return (key & HOST_MASK) == (l->key & HOST_MASK);
}

static bool any_stranger(const struct lun *l, const struct holding *h)
{
    bool found = h->reserved && !is_ours(l, h->holder);
    for (unsigned i = 0; i < h->count; i++)
        found |= !is_ours(l, h->key[i]);
    return found;
}

/* Says that others are there, with their keys. */
static void say_strangers(const struct lun *l, const struct holding *h, const char *cure)
{
    char text[256] = "";
    size_t at = 0;
    for (unsigned i = 0; i < h->count && at < sizeof(text) - 40; i++)
        if (!is_ours(l, h->key[i]))
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s0x%016" PRIx64, at ? ", " : "", h->key[i]);
    if (h->reserved && !is_ours(l, h->holder))
        say_error("%s: reserved by another host with key 0x%016" PRIx64 " (%s); registered keys: %s; %s",
                  l->device.name, h->holder, scsi_pr_type_str((enum scsi_persistent_out_type)h->type),
                  at ? text : "none", cure);
    else
        say_error("%s: in use by other hosts, which have registered the keys %s; %s", l->device.name, text, cure);
}

static bool unreadable(struct lun *l)
{
    say_error("%s: the target has no persistent reservations, or does not tell them: %s; without them nothing keeps "
              "others from writing: use another target", l->device.name, l->words);
    return false;
}

bool reservation_absent(struct lun *l)
{
    struct holding h;
    if (look(l, &h))
        return true; /* where there are no reservations nobody has one */
    if (!h.reserved || is_ours(l, h.holder))
        return true;
    say_strangers(l, &h, "unmount the volume there first");
    return false;
}

/* A new key of this host's, for this nexus. */
static void draw_key(struct lun *l)
{
    uint16_t low;
    tool_random(&low, sizeof(low));
    l->key = (l->key & HOST_MASK) | (low ? low : 1);
    l->drawn[l->drawn_count++ % LUN_MOST_KEYS] = l->key;
}

/* True if a key was drawn by this run. */
static bool is_mine(const struct lun *l, uint64_t key)
{
    bool found = false;
    for (unsigned i = 0; i < MIN(l->drawn_count, LUN_MOST_KEYS); i++)
        found |= l->drawn[i] == key;
    return found;
}

/* Registers l->key for this nexus, whatever was registered before. */
static enum lun_result enter(struct lun *l)
{
    enum lun_result result = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, l->key);
    if (result == LUN_REFUSED && l->keeps) { /* it promised more than it does */
        l->keeps = false;
        result = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, l->key);
    }
    return result;
}

static bool has_key(const struct holding *h, uint64_t key)
{
    bool found = h->reserved && h->holder == key;
    for (unsigned i = 0; i < h->count; i++)
        found |= h->key[i] == key;
    return found;
}

/*
 * With our key registered: takes the reservation, and away all other keys, those of this host's earlier runs and, if the
 * admin says so, of strangers that he was told of (`told`). Who came in between is left alone; one of us is faster.
 */
static enum lun_result reserve(struct lun *l, const struct holding *told, bool take_over)
{
    struct holding h;
    enum lun_result result = look(l, &h);
    if (!result && h.reserved && h.holder != l->key) {
        if (!is_ours(l, h.holder) && !(take_over && has_key(told, h.holder)))
            return LUN_CONFLICT;
        result = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, l->key, h.holder);
        if (result == LUN_REFUSED) /* a target that cannot abort */
            result = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT, l->key, h.holder);
    } else if (!result && !h.reserved) { /* first of all: istgt takes no PREEMPT while nothing is reserved */
        result = pr_out(l, SCSI_PERSISTENT_RESERVE_RESERVE, l->key, 0);
    }
    for (unsigned i = 0; i < h.count && !result; i++)
        if (h.key[i] != l->key && !(h.reserved && h.key[i] == h.holder) &&
            (is_ours(l, h.key[i]) || (take_over && has_key(told, h.key[i]))))
            result = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT, l->key, h.key[i]);
    return result;
}

bool reservation_take(struct lun *l, bool take_over)
{
    struct holding h;
    draw_key(l);
    if (look(l, &h))
        return unreadable(l);
    if (any_stranger(l, &h) && !take_over) {
        say_strangers(l, &h, "unmount the volume there first, or, if those are certainly gone, --take-over");
        return false;
    }
    l->keeps = can_keep(l);
    enum lun_result result = enter(l);
    if (!result)
        result = reserve(l, &h, take_over);
    if (!result)
        result = look(l, &h);
    if (!result && h.reserved && h.holder == l->key && h.type == TYPE) {
        l->reserves = true;
        l->device.key = l->key;
        return true;
    }
    if (result)
        say_error("%s: the reservation could not be taken: %s", l->device.name,
                  result == LUN_CONFLICT ? "somebody else was faster; try again" : l->words);
    else
        say_error("%s: the target said that the reservation was taken, and does not show it; use another target",
                  l->device.name);
    (void)pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER, l->key, 0);
    return false;
}

bool reservation_prove(struct lun *l)
{
    struct holding h = { 0 };
    if (!l->reserves)
        return true;
    draw_key(l);
    enum lun_result result = enter(l);
    if (!result)
        result = look(l, &h);
    if (!result && h.reserved && h.holder != l->key && is_mine(l, h.holder)) {
        result = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT, l->key, h.holder);
        if (!result)
            result = look(l, &h);
    }
    if (result == LUN_GONE)
        return true; /* the next connection tries again */
    if (!result && h.reserved && h.holder == l->key) {
        l->device.key = l->key;
        return true;
    }
    l->lost = true;
    if (!result && h.reserved)
        say_error("%s: the reservation was taken by key 0x%016" PRIx64 " while this one was away; nothing more is "
                  "written; see who that is before mounting again", l->device.name, h.holder);
    else if (!result)
        say_error("%s: the target has lost the reservation (was it restarted?), and somebody else may have written; "
                  "nothing more is written; run the command again", l->device.name);
    else
        say_error("%s: whether the reservation is still held cannot be told: %s; nothing more is written; run the "
                  "command again", l->device.name, result == LUN_CONFLICT ? "there is another one" : l->words);
    return false;
}

bool reservation_release(struct lun *l)
{
    if (!l->reserves || l->lost)
        return true;
    enum lun_result result = pr_out(l, SCSI_PERSISTENT_RESERVE_RELEASE, l->key, 0);
    if (!result)
        result = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER, l->key, 0);
    if (!result)
        return true;
    say_error("%s: the reservation could not be released (key 0x%016" PRIx64 "): %s; the next run of this tool on this "
              "host does it", l->device.name, l->key, l->words);
    return false;
}
