/* SPDX-License-Identifier: MIT */
/* A discovery's list and its end. See iscsi_discovery.h. Pure. */
#include "net/iscsi/iscsi_discovery.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

void iscsi_portal_text(const struct iscsi_portal *portal, char *text, size_t bytes)
{
    bool v6 = strchr(portal->host, ':') != NULL;

    snprintf(text, bytes, "%s%s%s:%u", v6 ? "[" : "", portal->host, v6 ? "]" : "", portal->port);
}

void iscsi_discovery_init(struct iscsi_discovery *d)
{
    memset(d, 0, sizeof(*d));
    d->current = -1;
}

/* ---- The list ---- */

static void add_target(struct iscsi_discovery *d, const char *name)
{
    d->current = -1;
    for (unsigned i = 0; i < d->target_count; i++)
        if (!strcmp(d->target[i], name))
            d->current = (int)i; /* it goes on about one that it had named before */
    if (d->current >= 0)
        return;
    if (d->target_count == ISCSI_DISCOVERY_TARGETS) {
        d->targets_left_out++;
        return;
    }
    d->current = (int)d->target_count++;
    (void)str_copy(d->target[d->current], sizeof(d->target[0]), name); /* the session has looked at its length */
}

static void add_portal(struct iscsi_discovery *d, const struct iscsi_portal *portal)
{
    if (d->current < 0)
        return;
    for (unsigned i = 0; i < d->portal_count; i++) {
        const struct iscsi_discovery_portal *known = &d->portal[i];
        if (known->target == (unsigned)d->current && known->portal.port == portal->port &&
            known->portal.group == portal->group && !strcmp(known->portal.host, portal->host))
            return;
    }
    if (d->portal_count == ISCSI_DISCOVERY_PORTALS) {
        d->portals_left_out++;
        return;
    }
    d->portal[d->portal_count++] = (struct iscsi_discovery_portal){ .target = (unsigned)d->current, .portal = *portal };
}

static void ignore(struct iscsi_discovery *d, const char *text)
{
    if (d->ignored++)
        return;
    snprintf(d->words, sizeof(d->words), "%s", text);
    for (char *c = d->words; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '.';
}

/* ---- The end ---- */

static void fail(struct iscsi_discovery *d, struct iscsi_session *session, const char *text, uint64_t now_ns)
{
    if (d->state != ISCSI_DISCOVERY_RUNS)
        return;
    d->state = ISCSI_DISCOVERY_FAILED;
    /* The session's words begin with its name for itself. */
    snprintf(d->why, sizeof(d->why), "portal %s", str_starts_with(text, "discovery at ") ? text + 13 : text);
    iscsi_session_stop(session, now_ns);
}

void iscsi_discovery_give_up(struct iscsi_discovery *d, struct iscsi_session *session, uint64_t now_ns)
{
    char text[400], portal[300];

    iscsi_portal_text(&session->portal, portal, sizeof(portal));
    snprintf(text, sizeof(text), "%.280s: it did not tell all of its targets in time; see the target's log", portal);
    fail(d, session, text, now_ns);
}

void iscsi_discovery_event(struct iscsi_discovery *d, struct iscsi_session *session, const struct iscsi_event *event,
                           uint64_t now_ns)
{
    switch (event->kind) {
    case ISCSI_EVENT_TARGET:
        add_target(d, event->text);
        break;
    case ISCSI_EVENT_ADDRESS:
        add_portal(d, event->portal);
        break;
    case ISCSI_EVENT_IGNORED:
        ignore(d, event->text);
        break;
    case ISCSI_EVENT_DOWN:
        if (session->md5_only && !d->again) /* the login tries it once more */
            d->again = true;
        else
            fail(d, session, event->text, now_ns);
        break;
    case ISCSI_EVENT_REFUSED:
        d->refused = d->state == ISCSI_DISCOVERY_RUNS;
        fail(d, session, event->text, now_ns);
        break;
    case ISCSI_EVENT_STOPPED:
        if (d->state == ISCSI_DISCOVERY_RUNS)
            d->state = ISCSI_DISCOVERY_HEARD;
        break;
    default:
        break;
    }
}
