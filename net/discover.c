/* SPDX-License-Identifier: MIT */
/* A discovery's session, and who waits for it. See discover.h. */
#include "net/discover.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"
#include "net/storage_private.h"

#define PATIENCE_NS (30 * NS_PER_S) /* for all of it but the logout, which has its own */
#define NAME_PREFIX "iqn.2026-11.tasuki:"

/* Of the thread that waits for it, and the service's while it is `begun`. */
struct asking {
    struct net_discovery *discovery;
    char *text;
    size_t text_bytes;
    enum status status;
    bool begun, done;
    uint64_t until_ns;
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_chap_account account;
    struct iscsi_slot slot;
    struct iscsi_tcp tcp;
};

static struct asking *asking; /* the service's */
static struct wait_queue waiters;

/* ---- The session ---- */

static void on_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    iscsi_tcp_connect(&((struct asking *)context)->tcp, connection, portal);
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    return iscsi_tcp_send(&((struct asking *)context)->tcp, connection, vec, count);
}

static void on_close(void *context, uint32_t connection)
{
    iscsi_tcp_close(&((struct asking *)context)->tcp, connection);
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct asking *a = context;

    iscsi_discovery_event(&a->discovery->list, &a->session, event, time_now_ns());
}

static const struct iscsi_ops ops = { .connect = on_connect, .send = on_send, .close = on_close, .event = on_event,
                                      .random = storage_random };

/* ---- Beginning ---- */

/* The node's name as a part of an iSCSI name: lower case letters, digits, dots and hyphens. */
static void default_name(struct net_discovery *d)
{
    size_t n = sizeof NAME_PREFIX - 1;

    (void)str_copy(d->asked_as, sizeof d->asked_as, NAME_PREFIX);
    for (const char *c = d->node ? d->node : "node"; *c && n + 1 < sizeof d->asked_as; c++, n++)
        d->asked_as[n] = isalnum((unsigned char)*c) || *c == '.' ? (char)tolower((unsigned char)*c) : '-';
    d->asked_as[n] = 0;
}

/* Who asks; false, with text: nobody of that name. */
static bool identify(struct asking *a)
{
    struct net_discovery *d = a->discovery;
    const struct storage *s = d->storage ? storage_find(d->storage) : NULL;
    bool good = true;

    if (d->storage && (!s || s->broken)) {
        a->status = s ? ERR_INVALID : ERR_NOT_FOUND;
        snprintf(a->text, a->text_bytes, s ? "storage %s: it does not work: %.160s" :
                 "storage %s: there is no such storage; `iscsi list` shows those that there are", d->storage, s ? s->problem : "");
        return false;
    }
    if (!s && !d->initiator)
        default_name(d);
    else
        good = str_copy(d->asked_as, sizeof d->asked_as, s ? s->config->initiator : d->initiator);
    if (!good || !iscsi_name_valid(d->asked_as)) {
        a->status = ERR_INVALID;
        snprintf(a->text, a->text_bytes, "initiator %.60s: it is not the name of one; write one such as "
                                         "iqn.2026-11.example:alpha", d->asked_as);
        return false;
    }
    if (s && s->config->chap) {
        a->account = s->account;
        a->settings.login.chap = &a->account;
    }
    return true;
}

static void begin(void *arg)
{
    struct asking *a = arg;
    struct iscsi_login_setup *login = &a->settings.login;

    if (asking) {
        a->status = ERR_BUSY;
        snprintf(a->text, a->text_bytes, "discovery: another one is under way; try again when it has ended");
        return;
    }
    iscsi_settings_default(&a->settings);
    iscsi_wishes_default(&a->wishes);
    if (!identify(a))
        return;
    login->discovery = true;
    login->initiator = a->discovery->asked_as;
    login->wishes = &a->wishes;
    /* Drawn anew, and never that of a storage's session, which the login would end: the last two bytes of those are others. */
    storage_random(NULL, login->isid, sizeof login->isid);
    login->isid[0] = 0x80;
    login->isid[4] = 0xd1;
    login->isid[5] = 0x5c;
    address_to_text(&a->discovery->portal.address, false, a->settings.portal.host);
    a->settings.portal.port = a->discovery->portal.port;
    iscsi_discovery_init(&a->discovery->list);
    iscsi_session_init(&a->session, &a->settings, &ops, a, &a->slot, 1);
    iscsi_tcp_init(&a->tcp, &a->session);
    a->until_ns = time_now_ns() + PATIENCE_NS;
    a->begun = true;
    asking = a;
    iscsi_session_start(&a->session, time_now_ns());
}

/* ---- A round ---- */

void net_discover_poll(uint64_t now_ns)
{
    struct asking *a = asking;

    if (!a)
        return;
    if (now_ns >= a->until_ns) {
        a->until_ns = UINT64_MAX;
        iscsi_discovery_give_up(&a->discovery->list, &a->session, now_ns);
    }
    if (now_ns >= iscsi_session_deadline(&a->session))
        iscsi_session_tick(&a->session, now_ns);
    iscsi_tcp_poll(&a->tcp, now_ns);
    if (a->session.state != ISCSI_IDLE)
        return;
    asking = NULL;
    wake_all_set(&waiters, &a->done); /* *a is the other thread's, and gone after this */
}

uint64_t net_discover_deadline(void)
{
    const struct asking *a = asking;

    if (!a)
        return UINT64_MAX;
    if (a->session.state == ISCSI_IDLE)
        return 0;
    return MIN(MIN(a->until_ns, iscsi_session_deadline(&a->session)), iscsi_tcp_deadline(&a->tcp));
}

/* ---- Who asks ---- */

static enum status outcome(const struct asking *a)
{
    const struct iscsi_discovery *list = &a->discovery->list;

    if (list->state == ISCSI_DISCOVERY_HEARD)
        return OK;
    /* A login that was refused says what is to be looked at, and not with which words of ours. */
    snprintf(a->text, a->text_bytes, "%.340s%s", list->why,
             !list->refused          ? ""
             : a->discovery->storage ? "; compare the storage's chap and initiator with the target's accounts"
                                     : "; ask as a storage that has the secrets: --storage STORAGE");
    return ERR_IO;
}

enum status net_discover(struct net_discovery *discovery, char *text, size_t text_bytes)
{
    static bool ready;
    struct asking *a = kzalloc(sizeof *a);
    enum status status = ERR_UNSUPPORTED;

    if (!a) {
        snprintf(text, text_bytes, "discovery: the node has no memory left; stop another VM");
        return ERR_NO_MEMORY;
    }
    if (!__atomic_exchange_n(&ready, true, __ATOMIC_ACQ_REL))
        wait_queue_init(&waiters, "discoveries");
    a->discovery = discovery;
    a->text = text;
    a->text_bytes = text_bytes;
    if (!net_call(begin, a)) {
        snprintf(text, text_bytes, "discovery: this node has no network; add a [network NAME] section to tasuki.conf");
    } else if (!a->begun) {
        status = a->status;
    } else {
        wait_event(&waiters, __atomic_load_n(&a->done, __ATOMIC_ACQUIRE));
        status = outcome(a);
    }
    kfree(a, sizeof *a);
    return status;
}
