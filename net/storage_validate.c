/* SPDX-License-Identifier: MIT */
/*
 * The validation of a storage's disk (net/scsi/scsi_validate.h): a second session with the same target, made for it and ended
 * after it. The storage is the validation's meanwhile, as it would be a VM's. See storage.h.
 *
 * The second session has another initiator name, as another node has, and not another ISID alone: LIO keeps what is registered
 * by the initiator's name, and takes two sessions of one name for one who may write.
 */
#include "net/storage_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"

#define SECOND_SLOTS 4u

/* A validation and its second session; of the thread that waits for it, and the service's while it is `begun`. */
struct storage_validation {
    const char *name;
    char initiator[ISCSI_NAME_MAX + 1];
    struct scsi_validate *core;
    char *text;
    size_t text_bytes;
    enum status status;
    bool begun, done;
    struct storage *storage;
    struct storage_user user;
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_slot slots[SECOND_SLOTS];
    struct iscsi_tcp tcp;
    struct scsi_talk talk;
    char problem[STORAGE_TEXT];
    uint8_t buffer[SCSI_VALIDATE_ROOM];
};

static struct wait_queue waiters;

static void lost(struct storage_user *user, const char *why)
{
    (void)user;
    (void)why;
}

static void back(struct storage_user *user)
{
    (void)user;
}

/* ---- The second session ---- */

static void on_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    iscsi_tcp_connect(&((struct storage_validation *)context)->tcp, connection, portal);
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    return iscsi_tcp_send(&((struct storage_validation *)context)->tcp, connection, vec, count);
}

static void on_close(void *context, uint32_t connection)
{
    iscsi_tcp_close(&((struct storage_validation *)context)->tcp, connection);
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct storage_validation *v = context;

    switch (event->kind) {
    case ISCSI_EVENT_READY:
        scsi_talk_logged_in(&v->talk, &v->session, time_now_ns());
        break;
    case ISCSI_EVENT_DOWN:
    case ISCSI_EVENT_REFUSED:
        str_copy(v->problem, sizeof v->problem, event->text);
        break;
    case ISCSI_EVENT_SLOW:
        iscsi_session_drop(&v->session, "the target does not answer a command of the validation", time_now_ns());
        break;
    default:
        break;
    }
}

static const struct iscsi_ops ops = { .connect = on_connect, .send = on_send, .close = on_close, .event = on_event,
                                      .random = storage_random };

static void set_up_session(struct storage_validation *v, const struct storage *s)
{
    v->settings = s->active->settings;
    v->settings.portal = s->active->session.portal;
    v->settings.prove = false;
    if (!v->initiator[0])
        snprintf(v->initiator, sizeof v->initiator, "%.200s.validate", s->config->initiator);
    v->settings.login.initiator = v->initiator;
    v->settings.login.isid[4] ^= 0x5a;
    v->settings.login.isid[5] ^= 0xa5;
    iscsi_session_init(&v->session, &v->settings, &ops, v, v->slots, SECOND_SLOTS);
    iscsi_tcp_init(&v->tcp, &v->session);
}

/* ---- The validation ---- */

static void over(struct scsi_talk *talk, bool was_lost)
{
    struct storage_validation *v = talk->owner;

    if (was_lost)
        snprintf(v->core->why, sizeof v->core->why, "a connection was lost, or the second one, as %.60s, was refused: %.110s. `disk "
                 "release` gives back what is left", v->initiator, v->problem[0] ? v->problem : v->storage->problem);
    if (v->session.state != ISCSI_IDLE)
        iscsi_session_stop(&v->session, time_now_ns());
    v->talk.active = false;
}

static void begin(void *arg)
{
    struct storage_validation *v = arg;
    struct storage *s = storage_find(v->name);

    v->status = storage_may_order(s, v->name, v->text, v->text_bytes);
    if (v->status != OK)
        return;
    if (s->user || s->disk.claim || s->validation) {
        snprintf(v->text, v->text_bytes, "storage %s: %s; it is validated when nobody uses it", v->name,
                 s->user ? s->user->name : "this node has reserved it: `disk release`");
        v->status = ERR_BUSY;
        return;
    }
    v->begun = true;
    v->storage = s;
    v->user = (struct storage_user){ .lost = lost, .back = back };
    str_copy(v->user.name, sizeof v->user.name, "disk validate");
    s->user = &v->user;
    s->lost = false;
    s->validation = v;
    set_up_session(v, s);
    v->core->key[0] = s->claim.key;
    v->core->key[1] = s->claim.key ^ 0xffff;
    v->core->blocks = s->disk.info.bytes / s->disk.info.block_bytes;
    v->core->block_bytes = s->disk.info.block_bytes;
    v->core->can_unmap = s->disk.info.can_unmap;
    v->core->buffer = v->buffer;
    v->talk.ops = &scsi_validate_ops;
    v->talk.core = v->core;
    v->talk.session[0] = &s->active->session;
    v->talk.session[1] = &v->session;
    memcpy(v->talk.lun, s->disk.lun, sizeof s->disk.lun);
    v->talk.over = over;
    v->talk.owner = v;
    scsi_validate_start(v->core);
    scsi_talk_start(&v->talk, time_now_ns());
}

void storage_validation_poll(struct storage *s, uint64_t now_ns)
{
    struct storage_validation *v = s->validation;

    if (!v)
        return;
    scsi_talk_tick(&v->talk, now_ns);
    if (now_ns >= iscsi_session_deadline(&v->session))
        iscsi_session_tick(&v->session, now_ns);
    iscsi_tcp_poll(&v->tcp, now_ns);
    if (v->talk.active || v->session.state != ISCSI_IDLE)
        return;
    s->validation = NULL;
    s->user = NULL;
    v->status = OK;
    wake_all_set(&waiters, &v->done); /* *v is the other thread's, and gone after this */
}

uint64_t storage_validation_deadline(const struct storage *s)
{
    const struct storage_validation *v = s->validation;

    if (!v)
        return UINT64_MAX;
    if (!v->talk.active && v->session.state == ISCSI_IDLE)
        return 0;
    return MIN(MIN(scsi_talk_deadline(&v->talk), iscsi_session_deadline(&v->session)), iscsi_tcp_deadline(&v->tcp));
}

enum status storage_validate(const char *name, const char *initiator, struct scsi_validate *core, char *text, size_t text_bytes)
{
    static bool ready;
    struct storage_validation *v = kzalloc(sizeof *v);

    if (!v) {
        snprintf(text, text_bytes, "storage %s: the node has no memory left; stop another VM", name);
        return ERR_NO_MEMORY;
    }
    if (!__atomic_exchange_n(&ready, true, __ATOMIC_ACQ_REL))
        wait_queue_init(&waiters, "storage validations");
    v->name = name;
    if (initiator && !str_copy(v->initiator, sizeof v->initiator, initiator)) {
        snprintf(text, text_bytes, "storage %s: the name of the second initiator is too long", name);
        kfree(v, sizeof *v);
        return ERR_RANGE;
    }
    v->core = core;
    v->text = text;
    v->text_bytes = text_bytes;
    enum status status = ERR_UNSUPPORTED;
    if (!net_call(begin, v)) {
        snprintf(text, text_bytes, "storage %s: this node has no network; add a [network NAME] section to tasuki.conf", name);
    } else {
        if (v->begun)
            wait_event(&waiters, __atomic_load_n(&v->done, __ATOMIC_ACQUIRE));
        status = v->status;
        if (status == OK)
            log_line(core->fit ? LOG_INFO : LOG_WARNING, "storage %s: validated: its target is %sfit for fencing%s%s", name,
                     core->fit ? "" : "not ", core->why[0] ? ": " : "", core->why);
    }
    kfree(v, sizeof *v);
    return status;
}
