/* SPDX-License-Identifier: MIT */
/*
 * Storages: what glues a session (net/iscsi), its connection (iscsi_tcp.h) and its disk (net/scsi) together. See storage.h.
 *
 * One session is in use at a time. Portals of one portal group are tried in turn by one session: a target ends an
 * initiator's earlier session when the same initiator logs in anew at the same portal group (RFC 7143, 6.3.5), and with it
 * what that session left under way. Where the new portal is of another group, the unit is reset before anything goes out: so
 * no write of before can land over a later one. A disk that this node has reserved has a session for each portal group,
 * of which all but one stand by (storage_paths.c).
 *
 * `storage_lock` guards the queues of requests that were handed over; all else belongs to the service's thread.
 */
#include "net/storage_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/crc32c.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/spinlock.h"
#include "kernel/text.h"
#include "kernel/time.h"
#include "net/service.h"

#define SAY_AGAIN_NS (60 * NS_PER_S)
#define BOOTING_NS (15 * NS_PER_S) /* until then it is no wonder that a network has no address yet */

struct storage *storages;
static struct spinlock storage_lock = SPINLOCK_INIT("storage queue");

/* ---- The session's events ---- */

static uint64_t now(void)
{
    return time_now_ns();
}

/* A failure that repeats itself is logged for each portal once, then once a minute. */
static void say_failure(struct storage *s, enum log_level level, const char *text)
{
    str_copy(s->problem, sizeof s->problem, text);
    if (++s->failures > s->config->portal_count && now() - s->said_ns < SAY_AGAIN_NS)
        return;
    s->said_ns = now();
    if (level == LOG_WARNING && !s->was_up && s->said_ns < BOOTING_NS)
        level = LOG_INFO;
    log_line(level, "storage %s: %s", s->config->name, text);
}

/* A disk that is smaller than it was is refused before this (scsi_probe.c). */
static void tell_growth(struct storage *s)
{
    uint64_t before = s->user_bytes, bytes = s->disk.info.bytes;

    if (!s->user || !s->user->grown || bytes <= before)
        return;
    s->user_bytes = bytes;
    log_info("storage %s: its disk has grown from %lu MiB to %lu MiB", s->config->name, before / MIB, bytes / MIB);
    s->user->grown(s->user, bytes);
}

static void up(struct storage *s)
{
    s->was_up = true;
    s->active->up_since_ns = now();
    s->failures = 0;
    s->problem[0] = 0;
    log_info("storage %s: %s at %s, port %u; %s %s, %lu MiB", s->config->name, s->moved ? "goes on" : "logged in",
             s->active->session.portal.host, s->active->session.portal.port, s->disk.info.vendor, s->disk.info.product,
             s->disk.info.bytes / MIB);
    s->moved = false;
    tell_growth(s);
    scsi_disk_ready(&s->disk, now());
    if (s->path_count > 1)
        storage_paths_proven(s);
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct storage_path *path = context;
    struct storage *s = path->storage;

    if (path != s->active) {
        storage_path_event(path, event);
        return;
    }
    switch (event->kind) {
    case ISCSI_EVENT_PROVE:
        storage_paths_logged_in(path);
        storage_fence_prove(s);
        scsi_disk_prove(&s->disk, event->code == ISCSI_PROVE_STRAYS, now());
        break;
    case ISCSI_EVENT_READY:
        up(s);
        break;
    case ISCSI_EVENT_DOWN:
    case ISCSI_EVENT_REFUSED:
        s->active->up_since_ns = 0;
        s->moved = false;
        say_failure(s, event->kind == ISCSI_EVENT_REFUSED ? LOG_ERROR : LOG_WARNING, event->text);
        break;
    case ISCSI_EVENT_TIMED_OUT:
        log_error("storage %s: away for %u s: %s", s->config->name, s->config->timeout_s, s->problem);
        break;
    case ISCSI_EVENT_STOPPED:
        s->active->up_since_ns = 0;
        log_info("storage %s: logged out", s->config->name);
        break;
    case ISCSI_EVENT_MOVED:
        log_info("storage %s: the target sends this node to %s, port %u: %s", s->config->name, event->portal->host,
                 event->portal->port, event->text);
        break;
    case ISCSI_EVENT_ASYNC:
        log_info("storage %s: the target says: %s", s->config->name, event->text);
        break;
    case ISCSI_EVENT_SLOW:
        scsi_disk_slow(&s->disk, event->command, now());
        break;
    case ISCSI_EVENT_TARGET:
    case ISCSI_EVENT_ADDRESS:
    case ISCSI_EVENT_IGNORED:
        break; /* of discovery sessions */
    }
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    struct storage_path *path = context;

    return iscsi_tcp_send(&path->tcp, connection, vec, count);
}

static void on_close(void *context, uint32_t connection)
{
    struct storage_path *path = context;

    iscsi_tcp_close(&path->tcp, connection);
}

static bool may_send(void *context, const struct iscsi_command *command)
{
    (void)context;

    return scsi_disk_may_send(command);
}

void storage_random(void *context, void *bytes, size_t count)
{
    (void)context;
    random_bytes(bytes, count);
}

static const struct iscsi_ops session_ops = {
    .connect = storage_path_connect, .send = on_send, .close = on_close, .event = on_event, .may_send = may_send, .random = storage_random,
};

/* ---- The disk's words ---- */

static void on_proved(void *context)
{
    struct storage *s = context;

    iscsi_session_resume(&s->active->session, now());
}

static void on_drop(void *context, const char *why)
{
    struct storage *s = context;

    iscsi_session_drop(&s->active->session, why, now());
}

static void on_news(void *context, unsigned news, const char *text)
{
    struct storage *s = context;
    /* What each login brings. */
    unsigned expected = SCSI_NEWS_RESET | SCSI_NEWS_NEXUS_LOSS | SCSI_NEWS_OTHER;

    if (news & ~expected)
        log_warning("storage %s: the unit reports: %s", s->config->name, text);
    else if (!news)
        log_error("storage %s: %s", s->config->name, text);
}

static const struct scsi_disk_ops disk_ops = { .proved = on_proved, .drop = on_drop, .news = on_news, .fenced = storage_fenced };

/* ---- Setting up ---- */

/* "NAME SECRET" into its two places. */
static void take_account(const char *value, char *name, size_t name_bytes, struct iscsi_secret *secret)
{
    const char *from = config_chap_secret(value);
    size_t count = MIN(strcspn(value, " \t"), name_bytes - 1);

    memcpy(name, value, count);
    name[count] = 0;
    secret->count = (uint8_t)MIN(strlen(from), (size_t)ISCSI_CHAP_SECRET_MAX);
    memcpy(secret->bytes, from, secret->count);
}

static void set_up_one(struct storage *s, const char *node)
{
    const struct config_storage *c = s->config;
    struct iscsi_login_setup *login = &s->first.settings.login;
    const char *why;
    uint32_t hash;

    if (c->error_count) {
        s->broken = true;
        str_copy(s->problem, sizeof s->problem, "its section in the configuration has errors; `config show` lists them");
        return;
    }
    iscsi_wishes_default(&s->wishes);
    iscsi_settings_default(&s->active->settings);
    s->active->settings.timeout_ns = c->timeout_s * NS_PER_S;
    login->initiator = c->initiator;
    login->target = c->target;
    login->wishes = &s->wishes;
    /* Random by kind (RFC 7143, 11.12.5), and the same after a restart: so the target ends what was left of before. */
    hash = crc32c(crc32c(0, c->initiator, strlen(c->initiator)), c->name, strlen(c->name));
    login->isid[0] = 0x80;
    login->isid[1] = (uint8_t)(hash >> 16);
    login->isid[2] = (uint8_t)(hash >> 8);
    login->isid[3] = (uint8_t)hash;
    if (c->chap) {
        login->chap = &s->account;
        take_account(c->chap, s->account.name, sizeof s->account.name, &s->account.secret);
        s->account.mutual = c->chap_mutual != NULL;
        if (c->chap_mutual)
            take_account(c->chap_mutual, s->account.mutual_name, sizeof s->account.mutual_name, &s->account.mutual_secret);
        if (iscsi_chap_check(&s->account, &why) != OK) {
            s->broken = true;
            str_copy(s->problem, sizeof s->problem, why);
            return;
        }
    }
    storage_paths_set_up(s, &session_ops);
    scsi_disk_init(&s->disk, &s->active->session, c->lun, &disk_ops, s);
    for (unsigned i = 0; i < STORAGE_PIECES; i++) /* fewer cost copies, not more */
        if ((s->pieces[i].memory = kzalloc(SCSI_DISK_PIECE_BYTES)))
            scsi_disk_lend(&s->disk, &s->pieces[i]);
    storage_fence_set_up(s, node);
    iscsi_session_start(&s->active->session, now());
}

void storage_set_up(const struct config *node_config)
{
    struct storage **last = &storages;

    for (uint32_t i = 0; i < node_config->storage_count; i++) {
        struct storage *s = kzalloc(sizeof *s);
        if (!s) {
            log_error("storage %s: no memory for it. Give the VMs less memory", node_config->storages[i].name);
            return;
        }
        s->config = &node_config->storages[i];
        s->active = &s->first;
        s->queue_end = &s->queue;
        *last = s;
        last = &s->next;
        set_up_one(s, node_config->node.name ? node_config->node.name : "node");
        if (s->broken)
            log_error("storage %s: it does not work: %s", s->config->name, s->problem);
    }
}

/* ---- A round ---- */

void storage_submit(struct storage *storage, struct disk_request *request)
{
    request->next = NULL;
    spin_lock(&storage_lock);
    bool first = !storage->queue; /* else the service knows already: it takes all at once */
    *storage->queue_end = request;
    storage->queue_end = &request->next;
    spin_unlock(&storage_lock);
    if (first)
        net_poke();
}

void storage_take_queue(struct storage *s, uint64_t now_ns)
{
    if (!__atomic_load_n(&s->queue, __ATOMIC_ACQUIRE))
        return;
    spin_lock(&storage_lock);
    struct disk_request *request = s->queue;
    s->queue = NULL;
    s->queue_end = &s->queue;
    spin_unlock(&storage_lock);
    while (request) {
        struct disk_request *next = request->next;
        scsi_disk_submit(&s->disk, request, now_ns);
        request = next;
    }
}

static uint64_t timeout_ns(const struct storage *s)
{
    return s->config->timeout_s * NS_PER_S;
}

/* A request waits for longer than the admin said, or could only wait. */
static bool is_lost(const struct storage *s, uint64_t now_ns)
{
    uint64_t oldest = scsi_disk_oldest_ns(&s->disk);

    if (s->active->session.state == ISCSI_IDLE || (s->active->session.state != ISCSI_READY && s->active->session.timed_out))
        return true;
    return oldest != UINT64_MAX && now_ns >= oldest && now_ns - oldest >= timeout_ns(s);
}

static void watch(struct storage *s, uint64_t now_ns)
{
    bool lost = is_lost(s, now_ns);

    if (!s->user || s->fenced[0] || lost == s->lost || (!lost && s->active->session.state != ISCSI_READY))
        return;
    s->lost = lost;
    if (lost)
        s->user->lost(s->user, s->active->session.state != ISCSI_READY && s->problem[0] ? s->problem : "the target does not carry out "
                                                                                             "what it was asked for");
    else
        s->user->back(s->user);
}

void storage_poll(uint64_t now_ns)
{
    for (struct storage *s = storages; s; s = s->next) {
        if (s->broken)
            continue;
        storage_take_queue(s, now_ns);
        if (now_ns >= iscsi_session_deadline(&s->active->session))
            iscsi_session_tick(&s->active->session, now_ns);
        if (now_ns >= scsi_disk_deadline(&s->disk))
            scsi_disk_tick(&s->disk, now_ns);
        scsi_talk_tick(&s->order_talk, now_ns);
        storage_validation_poll(s, now_ns);
        iscsi_tcp_poll(&s->active->tcp, now_ns);
        if (s->path_count > 1)
            storage_paths_poll(s, now_ns);
        watch(s, now_ns);
    }
}

uint64_t storage_deadline(void)
{
    uint64_t at = UINT64_MAX;

    for (const struct storage *s = storages; s; s = s->next) {
        if (s->broken)
            continue;
        at = MIN(at, iscsi_session_deadline(&s->active->session));
        at = MIN(at, scsi_disk_deadline(&s->disk));
        at = MIN(at, scsi_talk_deadline(&s->order_talk));
        at = MIN(at, storage_validation_deadline(s));
        at = MIN(at, iscsi_tcp_deadline(&s->active->tcp));
        if (s->path_count > 1)
            at = MIN(at, storage_paths_deadline(s));
        uint64_t oldest = scsi_disk_oldest_ns(&s->disk);
        if (s->user && !s->lost && oldest != UINT64_MAX)
            at = MIN(at, oldest + timeout_ns(s));
    }
    return at;
}
