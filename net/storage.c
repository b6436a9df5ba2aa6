/* SPDX-License-Identifier: MIT */
/*
 * Storages: what glues a session (net/iscsi), its connection (iscsi_tcp.h) and its disk (net/scsi) together. See storage.h.
 *
 * Portals are tried in turn, one session at a time. A target ends an initiator's earlier session when the same initiator
 * logs in anew at the same portal group (RFC 7143, 6.3.5), and with it what that session left under way. Where the new
 * portal is of another group, the unit is reset before anything goes out: so no write of before can land over a later one.
 *
 * `storage_lock` guards the queues of requests that were handed over; all else belongs to the service's thread.
 */
#include "net/storage.h"

#include <stdio.h>
#include <string.h>

#include "kernel/crc32c.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/random.h"
#include "kernel/spinlock.h"
#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/iscsi_tcp.h"
#include "net/service.h"

#define SLOTS 128u                 /* of commands: those of a disk and its probe, a power of two */
#define PIECES 64u                 /* of memory from which is sent: 1 MiB */
#define SAY_AGAIN_NS (60 * NS_PER_S)
#define STOP_NS (3 * NS_PER_S)

struct storage {
    const struct config_storage *config;
    char problem[STORAGE_TEXT];     /* why it cannot or does not work; "" */
    bool broken;                    /* it is never logged in */
    struct iscsi_session session;
    struct iscsi_settings settings;
    struct iscsi_wishes wishes;
    struct iscsi_chap_account account;
    struct iscsi_slot slots[SLOTS];
    struct iscsi_tcp tcp;
    struct scsi_disk disk;
    struct scsi_disk_piece pieces[PIECES];
    unsigned next_portal;
    uint32_t group;                 /* the portal group of the last session that was up */
    bool was_up;
    uint64_t up_since_ns;
    /* What the log was told. */
    unsigned failures;
    uint64_t said_ns;
    /* Its user. */
    struct storage_user *user;
    bool lost;
    struct disk_request *queue, **queue_end; /* under storage_lock */
    struct storage *next;
};

static const struct config *config;
static struct storage *storages;
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
    log_line(level, "storage %s: %s", s->config->name, text);
}

static void up(struct storage *s)
{
    char size[32];

    s->was_up = true;
    s->group = s->session.parameters.portal_group;
    s->up_since_ns = now();
    s->failures = 0;
    s->problem[0] = 0;
    snprintf(size, sizeof size, "%lu MiB", s->disk.info.bytes / MIB);
    log_info("storage %s: logged in at %s, port %u; %s %s, %s", s->config->name, s->session.portal.host, s->session.portal.port,
             s->disk.info.vendor, s->disk.info.product, size);
    scsi_disk_ready(&s->disk, now());
}

static void on_event(void *context, const struct iscsi_event *event)
{
    struct storage *s = context;

    switch (event->kind) {
    case ISCSI_EVENT_PROVE:
        scsi_disk_prove(&s->disk, s->was_up && s->session.parameters.portal_group != s->group, now());
        break;
    case ISCSI_EVENT_READY:
        up(s);
        break;
    case ISCSI_EVENT_DOWN:
    case ISCSI_EVENT_REFUSED:
        s->up_since_ns = 0;
        say_failure(s, event->kind == ISCSI_EVENT_REFUSED ? LOG_ERROR : LOG_WARNING, event->text);
        break;
    case ISCSI_EVENT_TIMED_OUT:
        log_error("storage %s: away for %u s: %s", s->config->name, s->config->timeout_s, s->problem);
        break;
    case ISCSI_EVENT_STOPPED:
        s->up_since_ns = 0;
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
        break; /* of discovery sessions */
    }
}

static void on_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    struct storage *s = context;
    const struct config_portal *next;

    iscsi_tcp_connect(&s->tcp, connection, portal);
    /* The portal of the next try. */
    s->next_portal = (s->next_portal + 1) % s->config->portal_count;
    next = &s->config->portals[s->next_portal];
    address_to_text(&next->address, false, s->settings.portal.host);
    s->settings.portal.port = next->port;
}

static size_t on_send(void *context, uint32_t connection, const struct iscsi_vec *vec, unsigned count)
{
    struct storage *s = context;

    return iscsi_tcp_send(&s->tcp, connection, vec, count);
}

static void on_close(void *context, uint32_t connection)
{
    struct storage *s = context;

    iscsi_tcp_close(&s->tcp, connection);
}

static bool may_send(void *context, const struct iscsi_command *command)
{
    (void)context;

    return scsi_disk_may_send(command);
}

static void on_random(void *context, void *bytes, size_t count)
{
    (void)context;
    random_bytes(bytes, count);
}

static const struct iscsi_ops session_ops = {
    .connect = on_connect, .send = on_send, .close = on_close, .event = on_event, .may_send = may_send, .random = on_random,
};

/* ---- The disk's words ---- */

static void on_proved(void *context)
{
    struct storage *s = context;

    iscsi_session_resume(&s->session, now());
}

static void on_drop(void *context, const char *why)
{
    struct storage *s = context;

    iscsi_session_drop(&s->session, why, now());
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

static const struct scsi_disk_ops disk_ops = { .proved = on_proved, .drop = on_drop, .news = on_news };

/* ---- Setting up ---- */

void storage_configure(const struct config *node_config)
{
    config = node_config;
}

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

static void set_up_one(struct storage *s)
{
    const struct config_storage *c = s->config;
    struct iscsi_login_setup *login = &s->settings.login;
    const char *why;
    uint32_t hash;

    if (c->error_count) {
        s->broken = true;
        str_copy(s->problem, sizeof s->problem, "its section in the configuration has errors; `config show` lists them");
        return;
    }
    iscsi_wishes_default(&s->wishes);
    iscsi_settings_default(&s->settings);
    s->settings.timeout_ns = c->timeout_s * NS_PER_S;
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
    address_to_text(&c->portals[0].address, false, s->settings.portal.host);
    s->settings.portal.port = c->portals[0].port;
    iscsi_session_init(&s->session, &s->settings, &session_ops, s, s->slots, SLOTS);
    iscsi_tcp_init(&s->tcp, &s->session);
    scsi_disk_init(&s->disk, &s->session, c->lun, &disk_ops, s);
    for (unsigned i = 0; i < PIECES; i++) /* fewer cost copies, not more */
        if ((s->pieces[i].memory = kzalloc(SCSI_DISK_PIECE_BYTES)))
            scsi_disk_lend(&s->disk, &s->pieces[i]);
    iscsi_session_start(&s->session, now());
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
        s->queue_end = &s->queue;
        *last = s;
        last = &s->next;
        set_up_one(s);
        if (s->broken)
            log_error("storage %s: it does not work: %s", s->config->name, s->problem);
    }
}

/* ---- A round ---- */

static void take_queue(struct storage *s, uint64_t now_ns)
{
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

    if (s->session.state == ISCSI_IDLE || (s->session.state != ISCSI_READY && s->session.timed_out))
        return true;
    return oldest != UINT64_MAX && now_ns >= oldest && now_ns - oldest >= timeout_ns(s);
}

static void watch(struct storage *s, uint64_t now_ns)
{
    bool lost = is_lost(s, now_ns);

    if (!s->user || lost == s->lost || (!lost && s->session.state != ISCSI_READY))
        return;
    s->lost = lost;
    if (lost)
        s->user->lost(s->user, s->session.state != ISCSI_READY && s->problem[0] ? s->problem : "the target does not carry out "
                                                                                             "what it was asked for");
    else
        s->user->back(s->user);
}

void storage_poll(uint64_t now_ns)
{
    for (struct storage *s = storages; s; s = s->next) {
        if (s->broken)
            continue;
        take_queue(s, now_ns);
        if (now_ns >= iscsi_session_deadline(&s->session))
            iscsi_session_tick(&s->session, now_ns);
        if (now_ns >= scsi_disk_deadline(&s->disk))
            scsi_disk_tick(&s->disk, now_ns);
        iscsi_tcp_poll(&s->tcp, now_ns);
        watch(s, now_ns);
    }
}

uint64_t storage_deadline(void)
{
    uint64_t at = UINT64_MAX;

    for (const struct storage *s = storages; s; s = s->next) {
        if (s->broken)
            continue;
        at = MIN(at, iscsi_session_deadline(&s->session));
        at = MIN(at, scsi_disk_deadline(&s->disk));
        at = MIN(at, iscsi_tcp_deadline(&s->tcp));
        uint64_t oldest = scsi_disk_oldest_ns(&s->disk);
        if (s->user && !s->lost && oldest != UINT64_MAX)
            at = MIN(at, oldest + timeout_ns(s));
    }
    return at;
}

/* ---- What there is ---- */

static const char *state_of(const struct storage *s)
{
    if (s->broken)
        return "does not work";
    switch (s->session.state) {
    case ISCSI_IDLE: return "logged out";
    case ISCSI_WAITING: return s->session.timed_out ? "away" : "waits to try again";
    case ISCSI_CONNECTING: return "connects";
    case ISCSI_LOGIN: return "logs in";
    case ISCSI_PROVING: return "looks at its disk";
    case ISCSI_READY: return "up";
    case ISCSI_LEAVING: return "logs out";
    }
    return "unknown";
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
    info->state = state_of(s);
    str_copy(info->problem, sizeof info->problem, s->problem);
    if (s->broken)
        return;
    bool v6 = strchr(s->session.portal.host, ':') != NULL;
    if (s->session.portal.port)
        snprintf(info->portal, sizeof info->portal, "%s%.45s%s:%u", v6 ? "[" : "", s->session.portal.host, v6 ? "]" : "",
                 s->session.portal.port);
    info->header_digest = s->session.state >= ISCSI_PROVING && s->session.parameters.header_digest;
    info->data_digest = s->session.state >= ISCSI_PROVING && s->session.parameters.data_digest;
    info->since_ns = s->up_since_ns;
    info->logins = s->session.counts.logins;
    info->retried = s->session.counts.retried + s->disk.retries;
    info->received_bytes = s->session.counts.bytes_in;
    info->sent_bytes = s->session.counts.bytes_out;
    info->disk = s->disk.info;
    info->reads = s->disk.reads;
    info->writes = s->disk.writes;
    info->flushes = s->disk.flushes;
    info->errors = s->disk.errors;
    uint64_t oldest = scsi_disk_oldest_ns(&s->disk), time = now();
    info->waiting_ns = oldest < time ? time - oldest : 0;
    if (s->user)
        str_copy(info->user, sizeof info->user, s->user->name);
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

static struct storage *find(const char *name)
{
    struct storage *s = storages;

    while (s && strcmp(s->config->name, name))
        s = s->next;
    return s;
}

/* The storage of a query, or NULL with its words. */
static struct storage *wanted(struct query *query)
{
    struct storage *s = find(query->name);

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
    if (s->session.state == ISCSI_READY) {
        snprintf(query->text, query->text_bytes, "storage %s: it is logged in already; `iscsi list` shows it", query->name);
        query->status = ERR_BUSY;
        return;
    }
    s->failures = 0;
    if (s->session.state == ISCSI_IDLE)
        iscsi_session_start(&s->session, now());
}

static void do_logout(void *arg)
{
    struct query *query = arg;
    struct storage *s = wanted(query);

    if (!s)
        return;
    if (s->user) {
        snprintf(query->text, query->text_bytes, "storage %s: VM %s has its disk; stop the VM first", query->name, s->user->name);
        query->status = ERR_BUSY;
    } else if (s->session.state == ISCSI_IDLE) {
        snprintf(query->text, query->text_bytes, "storage %s: it is logged out already; `iscsi login %s` logs in", query->name,
                 query->name);
        query->status = ERR_BUSY;
    } else {
        s->problem[0] = 0;
        iscsi_session_stop(&s->session, now());
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
        if (s->broken || s->session.state == ISCSI_IDLE)
            continue;
        if (s->session.state != ISCSI_LEAVING)
            iscsi_session_stop(&s->session, now());
        *idle = s->session.state == ISCSI_IDLE && *idle;
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

static void do_open(void *arg)
{
    struct query *query = arg;
    struct storage *s = wanted(query);

    if (!s)
        return;
    if (s->user) {
        snprintf(query->text, query->text_bytes, "storage %s: VM %s has its disk already; two VMs would destroy it", query->name,
                 s->user->name);
        query->status = ERR_BUSY;
    } else if (!s->disk.info.known || s->session.state == ISCSI_IDLE) {
        snprintf(query->text, query->text_bytes, "storage %s: its disk is not there (%s): %.120s", query->name, state_of(s),
                 s->problem[0] ? s->problem : "try again in a moment");
        query->status = ERR_IO;
    } else {
        s->user = query->user;
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
    struct storage *s = find(query->name);

    query->flag = s && !s->broken && s->session.state != ISCSI_IDLE && !s->disk.info.known;
}

bool storage_will_come(const char *name)
{
    struct query query = { .name = name };

    return net_call(do_look, &query) && query.flag;
}

static void do_cancel(void *arg)
{
    struct storage *s = arg;

    take_queue(s, now());
    scsi_disk_cancel(&s->disk, now());
}

static void do_close(void *arg)
{
    struct storage *s = arg;

    do_cancel(s);
    s->user = NULL;
    s->lost = false;
}

void storage_cancel(struct storage *storage)
{
    (void)!net_call(do_cancel, storage);
}

void storage_close(struct storage *storage)
{
    (void)!net_call(do_close, storage);
}

void storage_submit(struct storage *storage, struct disk_request *request)
{
    request->next = NULL;
    spin_lock(&storage_lock);
    *storage->queue_end = request;
    storage->queue_end = &request->next;
    spin_unlock(&storage_lock);
    net_poke();
}
