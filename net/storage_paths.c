/* SPDX-License-Identifier: MIT */
/*
 * The paths of a storage: which portals are whose, the sessions that stand by, and the move to one of them when the session
 * in use is lost. What is done on a path, and why it is safe, stands in net/scsi/scsi_path.h. See storage.h.
 *
 * Without a reservation there is one session, which takes all portals in turn. With one, each further portal is given to a
 * session of its own, with another ISID, so that its login ends nobody's session. The login tells the portal group. Where
 * another path has that group already, the session is ended, and the portal is from then on one of that path's, which takes
 * its portals in turn: within a group a login in the lost session's place is what ends it. So there is one path for each
 * portal group, and no two have the same key. When the reservation is given back, or this node is fenced, the sessions
 * that stand by are logged out.
 *
 * The service's thread.
 */
#include "net/storage_private.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/time.h"

/* ---- Portals ---- */

void storage_portal(const struct storage *s, unsigned number, struct iscsi_portal *portal)
{
    const struct config_portal *from = &s->config->portals[number];

    *portal = (struct iscsi_portal){ .port = from->port };
    address_to_text(&from->address, false, portal->host);
}

static bool owns(const struct storage_path *path, unsigned portal)
{
    return !path->storage->split || path->storage->owner[portal] == path->number;
}

/* The portal of the path's next try. */
static void next_is(struct storage_path *path, unsigned portal)
{
    path->next_portal = portal;
    storage_portal(path->storage, portal, &path->settings.portal);
}

/* The next one behind `from` that is its own; `from` itself where there is none. */
static void go_on_behind(struct storage_path *path, unsigned from)
{
    unsigned count = path->storage->config->portal_count, at = from;

    do
        at = (at + 1) % count;
    while (at != from && !owns(path, at));
    next_is(path, at);
}

void storage_path_connect(void *context, uint32_t connection, const struct iscsi_portal *portal)
{
    struct storage_path *path = context;
    bool sent_on = strcmp(portal->host, path->settings.portal.host) || portal->port != path->settings.portal.port;

    iscsi_tcp_connect(&path->tcp, connection, portal);
    if (sent_on) /* by the target: the turn stays as it is */
        return;
    path->portal = path->next_portal;
    go_on_behind(path, path->portal);
}

/* ---- Setting up ---- */

static void set_up(struct storage *s, struct storage_path *path, const struct iscsi_ops *ops)
{
    path->storage = s;
    path->number = s->path_count;
    if (path != &s->first)
        path->settings = s->first.settings;
    path->settings.login.isid[5] = (uint8_t)path->number;
    next_is(path, 0);
    iscsi_session_init(&path->session, &path->settings, ops, path, path->slots, STORAGE_SLOTS);
    iscsi_tcp_init(&path->tcp, &path->session);
    scsi_path_init(&path->path, &path->session, &s->disk);
    s->path[s->path_count++] = path;
}

void storage_paths_set_up(struct storage *s, const struct iscsi_ops *ops)
{
    struct storage_path *more;

    set_up(s, &s->first, ops);
    while (s->path_count < s->config->portal_count && (more = kzalloc(sizeof *more)))
        set_up(s, more, ops);
    if (s->path_count < s->config->portal_count)
        log_warning("storage %s: no memory for a path of each portal: the others take turns. Give the VMs less memory",
                    s->config->name);
}

/* ---- Which portals are whose ---- */

/* Paths may stand by: this node has the disk, and a key to fence a lost path by. */
static bool wanted(const struct storage *s)
{
    const struct iscsi_session *session = &s->active->session;

    return s->disk.claim && !s->disk.fenced && !s->single && session->state != ISCSI_IDLE && session->state != ISCSI_LEAVING;
}

static void split(struct storage *s)
{
    unsigned used = s->active->number, number = 0;

    s->split = true;
    for (unsigned portal = 0; portal < s->config->portal_count; portal++) {
        s->owner[portal] = (uint8_t)used;
        if (portal == s->active->portal)
            continue;
        number += number == used;
        if (number < s->path_count) /* else it stays the active one's */
            s->owner[portal] = (uint8_t)number++;
    }
    go_on_behind(s->active, s->active->portal);
}

static void join(struct storage *s)
{
    s->split = false;
    go_on_behind(s->active, s->active->portal);
}

/* The first of its portals; false: it has none. */
static bool first_of(const struct storage_path *path, unsigned *portal)
{
    for (*portal = 0; *portal < path->storage->config->portal_count; ++*portal)
        if (owns(path, *portal))
            return true;
    return false;
}

/* Another path has been at this one's portal group: its portals are that one's. */
static void merge(struct storage_path *path, struct storage_path *into)
{
    struct storage *s = path->storage;
    unsigned portal;
    char text[64];

    storage_portal_text(&path->session.portal, text, sizeof text);
    log_info("storage %s: %s belongs to the same portal group, %u, as another portal: these take turns", s->config->name, text,
             path->session.parameters.portal_group);
    while (first_of(path, &portal))
        s->owner[portal] = (uint8_t)into->number;
    path->problem[0] = '\0';
    scsi_path_forget(&path->path);
    iscsi_session_stop(&path->session, time_now_ns());
    go_on_behind(into, into->portal);
}

static struct storage_path *of_the_same_group(const struct storage_path *path)
{
    const struct storage *s = path->storage;
    unsigned portal;

    for (unsigned i = 0; i < s->path_count; i++) {
        struct storage_path *other = s->path[i];
        if (other != path && other->session.counts.logins && first_of(other, &portal) &&
            other->session.parameters.portal_group == path->session.parameters.portal_group)
            return other;
    }
    return NULL;
}

void storage_paths_logged_in(struct storage_path *path)
{
    struct storage_path *other;

    while (path->storage->split && (other = of_the_same_group(path)))
        merge(other, path);
}

/* ---- Sessions that stand by ---- */

static void down(struct storage_path *path, const char *text)
{
    bool known = path->problem[0] != '\0';

    path->up_since_ns = 0;
    scsi_path_forget(&path->path);
    str_copy(path->problem, sizeof path->problem, text);
    if (!known)
        log_warning("storage %s: a path that is not in use is lost; it is tried again: %s", path->storage->config->name, text);
}

void storage_path_event(struct storage_path *path, const struct iscsi_event *event)
{
    struct storage *s = path->storage;
    struct storage_path *other;
    uint64_t now_ns = time_now_ns();
    char text[64];

    switch (event->kind) {
    case ISCSI_EVENT_PROVE:
        if (!wanted(s) || !s->split)
            iscsi_session_stop(&path->session, now_ns);
        else if ((other = of_the_same_group(path)))
            merge(path, other);
        else
            scsi_path_prepare(&path->path, storage_fence_key(path), now_ns);
        break;
    case ISCSI_EVENT_READY:
        path->up_since_ns = now_ns;
        path->problem[0] = '\0';
        storage_portal_text(&path->session.portal, text, sizeof text);
        log_info("storage %s: logged in at %s, too: a path that stands by", s->config->name, text);
        break;
    case ISCSI_EVENT_DOWN:
    case ISCSI_EVENT_REFUSED:
        down(path, event->text);
        break;
    case ISCSI_EVENT_STOPPED:
        path->up_since_ns = 0;
        path->problem[0] = '\0';
        scsi_path_forget(&path->path);
        break;
    case ISCSI_EVENT_SLOW:
        iscsi_session_drop(&path->session, "the target does not answer a command", now_ns);
        break;
    default:
        break;
    }
}

void storage_paths_proven(struct storage *s)
{
    for (unsigned i = 0; i < s->path_count; i++)
        if (s->path[i] != s->active)
            scsi_path_again(&s->path[i]->path, time_now_ns());
}

bool storage_paths_end(struct storage *s)
{
    bool idle = true;

    s->single = true;
    for (unsigned i = 0; i < s->path_count; i++) {
        struct storage_path *path = s->path[i];
        if (path == s->active)
            continue;
        if (path->session.state != ISCSI_IDLE && path->session.state != ISCSI_LEAVING)
            iscsi_session_stop(&path->session, time_now_ns());
        idle &= path->session.state == ISCSI_IDLE;
    }
    return idle;
}

/* ---- The move ---- */

/* The session in use has no connection to the target, and a path that has could be used. */
static struct storage_path *successor(const struct storage *s)
{
    const struct iscsi_session *session = &s->active->session;
    bool away = session->state == ISCSI_WAITING || session->state == ISCSI_CONNECTING || session->state == ISCSI_LOGIN;

    for (unsigned i = 0; away && s->split && i < s->path_count; i++)
        if (s->path[i] != s->active && scsi_path_ready(&s->path[i]->path))
            return s->path[i];
    return NULL;
}

static void move(struct storage *s, struct storage_path *to, uint64_t now_ns)
{
    struct storage_path *from = s->active;
    char text[64], was[64];
    bool stood_by = s->claim.stood_by;

    storage_portal_text(&from->session.portal, was, sizeof was);
    storage_portal_text(&to->session.portal, text, sizeof text);
    s->active = to;
    s->claim.stood_by = true;
    if (scsi_path_take_over(&to->path, now_ns) != OK) {
        s->active = from;
        s->claim.stood_by = stood_by;
        return;
    }
    s->moved = true;
    storage_fence_moved(s);
    log_warning("storage %s: the path by %s is lost; it goes on by %s, which stood by", s->config->name, was, text);
    from->up_since_ns = 0;
    str_copy(from->problem, sizeof from->problem, s->problem);
}

/* ---- A round ---- */

static void keep(struct storage *s, struct storage_path *path, bool want, uint64_t now_ns)
{
    enum iscsi_state state = path->session.state;
    unsigned portal;

    if (want && state == ISCSI_IDLE && first_of(path, &portal)) {
        next_is(path, portal);
        iscsi_session_start(&path->session, now_ns);
    } else if (!want && state != ISCSI_IDLE && state != ISCSI_LEAVING) {
        iscsi_session_stop(&path->session, now_ns);
    }
    if (now_ns >= iscsi_session_deadline(&path->session))
        iscsi_session_tick(&path->session, now_ns);
    if (!s->order) /* which looks at the keys */
        scsi_path_tick(&path->path, now_ns);
    iscsi_tcp_poll(&path->tcp, now_ns);
}

void storage_paths_poll(struct storage *s, uint64_t now_ns)
{
    bool want = wanted(s), idle = true;
    struct storage_path *to;

    if (want && !s->split && s->active->session.state == ISCSI_READY)
        split(s);
    for (unsigned i = 0; i < s->path_count; i++) {
        if (s->path[i] == s->active)
            continue;
        keep(s, s->path[i], want && s->split, now_ns);
        idle &= s->path[i]->session.state == ISCSI_IDLE;
    }
    if (s->split && !want && idle)
        join(s);
    if (want && (to = successor(s)))
        move(s, to, now_ns);
}

uint64_t storage_paths_deadline(const struct storage *s)
{
    uint64_t at = UINT64_MAX;

    for (unsigned i = 0; i < s->path_count; i++) {
        const struct storage_path *path = s->path[i];
        if (path == s->active)
            continue;
        at = MIN(at, MIN(iscsi_session_deadline(&path->session), iscsi_tcp_deadline(&path->tcp)));
        at = s->order ? at : MIN(at, scsi_path_deadline(&path->path));
    }
    return wanted(s) && successor(s) ? 0 : at;
}

/* ---- What there is ---- */

static void describe(const struct storage_path *path, unsigned portal, struct storage_path_info *info)
{
    const struct storage *s = path->storage;
    const struct iscsi_session *session = &path->session;
    struct iscsi_portal configured;

    storage_portal(s, portal, &configured);
    storage_portal_text(&configured, info->portal, sizeof info->portal);
    info->state = "takes turns";
    if (portal != path->portal)
        return;
    info->known_group = session->counts.logins != 0;
    info->group = session->parameters.portal_group;
    info->since_ns = path->up_since_ns;
    info->logins = session->counts.logins;
    if (path == s->active) {
        info->state = session->state == ISCSI_READY ? "in use" : storage_session_name(session);
        return;
    }
    bool stands_by = session->state == ISCSI_READY;
    info->state = !stands_by ? storage_session_name(session) : path->path.registered ? "stands by" : "stands by, without its key";
    str_copy(info->problem, sizeof info->problem, stands_by ? path->path.problem : path->problem);
}

void storage_paths_info(const struct storage *s, struct storage_info *info)
{
    for (unsigned i = 0; i < s->config->portal_count; i++)
        describe(s->split ? s->path[s->owner[i]] : s->active, i, &info->path[i]);
}
