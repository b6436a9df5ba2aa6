/* SPDX-License-Identifier: MIT */
/* What is told of storages, and what may be asked of them: by other threads, done in the service's. See storage.h. */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"
#include "net/storage_private.h"

#define STOP_NS (3 * NS_PER_S)

static const struct config *config;

void storage_configure(const struct config *node_config)
{
    config = node_config;
}

/* ---- What there is ---- */

const char *storage_state_name(const struct storage *s)
{
    return s->broken ? "does not work" : storage_session_name(&s->active->session);
}

const char *storage_session_name(const struct iscsi_session *session)
{
    switch (session->state) {
    case ISCSI_IDLE: return "logged out";
    case ISCSI_WAITING: return session->timed_out ? "away" : "waits to try again";
    case ISCSI_CONNECTING: return "connects";
    case ISCSI_LOGIN: return "logs in";
    case ISCSI_PROVING: return "looks at its disk";
    case ISCSI_READY: return "up";
    case ISCSI_LEAVING: return "logs out";
    }
    return "unknown";
}

void storage_portal_text(const struct iscsi_portal *portal, char *text, size_t text_bytes)
{
    bool v6 = strchr(portal->host, ':') != NULL;

    text[0] = '\0';
    if (portal->port)
        snprintf(text, text_bytes, "%s%.45s%s:%u", v6 ? "[" : "", portal->host, v6 ? "]" : "", portal->port);
}

static void describe(const struct config_storage *c, struct storage_info *info)
{
    *info = (struct storage_info){ .name = c->name, .target = c->target, .lun = c->lun, .portal_count = c->portal_count,
                                   .chap = c->chap_mutual ? 2 : c->chap ? 1 : 0 };
}

struct query {
    unsigned i;
    const char *name;
    struct storage_info *info;
    struct storage *storage;
    struct storage_user *user;
    char *text;
    size_t text_bytes;
    enum status status;
    bool flag;
};

static void get_info(void *arg)
{
    struct query *query = arg;
    const struct storage *s = storages;
    struct storage_info *info = query->info;

    for (unsigned i = 0; s && i < query->i; i++)
        s = s->next;
    if (!s)
        return;
    query->flag = true;
    info->state = storage_state_name(s);
    str_copy(info->problem, sizeof info->problem, s->fenced[0] ? s->fenced : s->problem);
    if (s->broken)
        return;
    storage_portal_text(&s->active->session.portal, info->portal, sizeof info->portal);
    info->header_digest = s->active->session.state >= ISCSI_PROVING && s->active->session.parameters.header_digest;
    info->data_digest = s->active->session.state >= ISCSI_PROVING && s->active->session.parameters.data_digest;
    info->since_ns = s->active->up_since_ns;
    info->retried = s->disk.retries;
    for (unsigned i = 0; i < s->path_count; i++) {
        const struct iscsi_counts *counts = &s->path[i]->session.counts;
        info->logins += counts->logins;
        info->retried += counts->retried;
        info->received_bytes += counts->bytes_in;
        info->sent_bytes += counts->bytes_out;
    }
    storage_paths_info(s, info);
    info->disk = s->disk.info;
    info->reads = s->disk.reads;
    info->writes = s->disk.writes;
    info->flushes = s->disk.flushes;
    info->errors = s->disk.errors;
    uint64_t oldest = scsi_disk_oldest_ns(&s->disk), time = time_now_ns();
    info->waiting_ns = oldest < time ? time - oldest : 0;
    if (s->user)
        str_copy(info->user, sizeof info->user, s->user->name);
    info->reserved = s->disk.claim && !s->disk.fenced;
    info->key = s->claim.key;
    str_copy(info->fenced, sizeof info->fenced, s->fenced);
}

bool storage_info_get(unsigned i, struct storage_info *info)
{
    struct query query = { .i = i, .info = info };

    if (!config || i >= config->storage_count)
        return false;
    describe(&config->storages[i], info);
    info->state = "does not work";
    if (!net_call(get_info, &query))
        str_copy(info->problem, sizeof info->problem, "this node has no network; add a [network NAME] section");
    else if (!query.flag)
        str_copy(info->problem, sizeof info->problem, "there was no memory for it; give the VMs less");
    return true;
}

/* ---- Orders ---- */

struct storage *storage_find(const char *name)
{
    struct storage *s = storages;

    while (s && strcmp(s->config->name, name))
        s = s->next;
    return s;
}

/* The storage of a query, or NULL with its words. */
static struct storage *wanted(struct query *query)
{
    struct storage *s = storage_find(query->name);

    query->status = s ? s->broken ? ERR_INVALID : OK : ERR_NOT_FOUND;
    if (!s)
        snprintf(query->text, query->text_bytes, "storage %s: there is no such storage; `iscsi list` shows those that there "
                                                 "are", query->name);
    else if (s->broken)
        snprintf(query->text, query->text_bytes, "storage %s: it does not work: %.160s", query->name, s->problem);
    return query->status == OK ? s : NULL;
}

static enum status ask(void (*fn)(void *arg), struct query *query)
{
    if (net_call(fn, query))
        return query->status;
    snprintf(query->text, query->text_bytes, "storage %s: this node has no network; add a [network NAME] section to tasuki.conf",
             query->name);
    return ERR_UNSUPPORTED;
}

static void do_login(void *arg)
{
    struct query *query = arg;
    struct storage *s = wanted(query);

    if (!s)
        return;
    if (s->active->session.state == ISCSI_READY) {
        snprintf(query->text, query->text_bytes, "storage %s: it is logged in already; `iscsi list` shows it", query->name);
        query->status = ERR_BUSY;
        return;
    }
    s->failures = 0;
    if (s->active->session.state == ISCSI_IDLE)
        iscsi_session_start(&s->active->session, time_now_ns());
}

static void do_logout(void *arg)
{
    struct query *query = arg;
    struct storage *s = wanted(query);

    if (!s)
        return;
    if (s->user) {
        snprintf(query->text, query->text_bytes, "storage %s: %s has its disk; stop the VM first (a volume keeps it as long as the node "
                                                 "runs)", query->name, s->user->name);
        query->status = ERR_BUSY;
    } else if (s->active->session.state == ISCSI_IDLE) {
        snprintf(query->text, query->text_bytes, "storage %s: it is logged out already; `iscsi login %s` logs in", query->name,
                 query->name);
        query->status = ERR_BUSY;
    } else {
        s->problem[0] = 0;
        iscsi_session_stop(&s->active->session, time_now_ns());
    }
}

enum status storage_login(const char *name, char *text, size_t text_bytes)
{
    return ask(do_login, &(struct query){ .name = name, .text = text, .text_bytes = text_bytes });
}

enum status storage_logout(const char *name, char *text, size_t text_bytes)
{
    return ask(do_logout, &(struct query){ .name = name, .text = text, .text_bytes = text_bytes });
}

static void do_stop(void *arg)
{
    bool *idle = arg;

    *idle = true;
    for (struct storage *s = storages; s; s = s->next) {
        if (s->broken || s->active->session.state == ISCSI_IDLE)
            continue;
        if (s->active->session.state != ISCSI_LEAVING)
            iscsi_session_stop(&s->active->session, time_now_ns());
        *idle = storage_paths_end(s) && s->active->session.state == ISCSI_IDLE && *idle;
    }
}

void storage_stop(void)
{
    uint64_t deadline = time_now_ns() + STOP_NS;
    bool idle = false;

    while (!idle && time_now_ns() < deadline && net_call(do_stop, &idle))
        if (!idle)
            thread_sleep_ns(10 * NS_PER_MS);
}

/* ---- Users ---- */

/* What keeps a storage away, without the name of its target, which stands in front in the log. */
static const char *problem_of(const struct storage *s)
{
    size_t name = strlen(s->config->target);
    const char *at = " at ";

    if (!s->problem[0])
        return "try again in a moment";
    if (strncmp(s->problem, s->config->target, name) || strncmp(s->problem + name, at, strlen(at)))
        return s->problem;
    return s->problem + name + strlen(at);
}

static void do_open(void *arg)
{
    struct query *query = arg;
    struct storage *s = wanted(query);

    if (!s)
        return;
    if (s->user) {
        snprintf(query->text, query->text_bytes, "storage %s: %s has its disk already; two users would destroy it", query->name,
                 s->user->name);
        query->status = ERR_BUSY;
    } else if (!s->disk.info.known || s->active->session.state == ISCSI_IDLE) {
        snprintf(query->text, query->text_bytes, "storage %s: its disk is not there (%s): %.160s", query->name,
                 storage_state_name(s), problem_of(s));
        query->status = ERR_IO;
    } else if (!query->user->reserves && s->disk.info.holding.held && (!s->disk.claim || s->disk.fenced)) {
        const struct scsi_holding *h = &s->disk.info.holding;
        bool ours = !((h->key ^ s->life) & SCSI_KEY_NODE);
        snprintf(query->text, query->text_bytes, "storage %s: its disk is reserved by %s, key 0x%016lx, %s; %s", query->name,
                 ours ? "an earlier life of this node" : "a stranger", (unsigned long)h->key, scsi_pr_type_name(h->type),
                 ours ? "`disk release` gives it back" : "let that one release it, or, if it is gone, `disk preempt`");
        query->status = ERR_BUSY;
    } else {
        if (s->disk.fenced)
            storage_fence_leave(s);
        s->user = query->user;
        s->user_bytes = s->disk.info.bytes;
        s->lost = false;
        *query->info = (struct storage_info){ .disk = s->disk.info };
        query->storage = s;
    }
}

enum status storage_open(const char *name, struct storage_user *user, struct storage **storage, struct scsi_disk_info *info,
                         char *text, size_t text_bytes)
{
    struct storage_info *whole = kzalloc(sizeof *whole);
    struct query query = { .name = name, .user = user, .info = whole, .text = text, .text_bytes = text_bytes };

    if (!whole) {
        snprintf(text, text_bytes, "storage %s: the node has no memory left; stop another VM", name);
        return ERR_NO_MEMORY;
    }
    if (!user->reserves)
        storage_look_one(name);
    enum status status = ask(do_open, &query);
    if (status == OK) {
        *storage = query.storage;
        *info = whole->disk;
    }
    kfree(whole, sizeof *whole);
    return status;
}

static void do_look(void *arg)
{
    struct query *query = arg;
    struct storage *s = storage_find(query->name);

    query->flag = s && !s->broken && s->active->session.state != ISCSI_IDLE && !s->disk.info.known;
}

bool storage_will_come(const char *name)
{
    struct query query = { .name = name };

    return net_call(do_look, &query) && query.flag;
}

static void do_cancel(void *arg)
{
    struct storage *s = arg;

    storage_take_queue(s, time_now_ns());
    scsi_disk_cancel(&s->disk, time_now_ns());
}

static void do_close(void *arg)
{
    struct storage *s = arg;

    do_cancel(s);
    s->user = NULL;
    s->lost = false;
    if (s->disk.fenced || !s->by_admin)
        storage_fence_leave(s);
}

void storage_cancel(struct storage *storage)
{
    (void)!net_call(do_cancel, storage);
}

void storage_close(struct storage *storage)
{
    (void)!net_call(do_close, storage);
}
