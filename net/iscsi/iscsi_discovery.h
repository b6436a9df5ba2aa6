/* SPDX-License-Identifier: MIT */
/*
 * What a discovery session hears (RFC 7143, 4.3 and appendix C): the targets behind a portal, and by which portals each is
 * reached. The owner of the session hands its events on; here they become a list, which is bounded, and one end: all was
 * heard, or why not.
 *
 * One answer is enough: the session is ended at its first failure, but for the one more try with CHAP by MD5 that a login
 * makes by itself. What a target says is only counted where it is no name, no address, or more than there is room for.
 *
 * Pure; the context of the session. The glue is net/discover.c.
 */
#ifndef NET_ISCSI_ISCSI_DISCOVERY_H
#define NET_ISCSI_ISCSI_DISCOVERY_H

#include "net/iscsi/iscsi_session.h"

#define ISCSI_DISCOVERY_TARGETS 128u
#define ISCSI_DISCOVERY_PORTALS 256u  /* of all targets together */
#define ISCSI_DISCOVERY_WHY 480u
#define ISCSI_DISCOVERY_WORDS 80u

enum iscsi_discovery_state { ISCSI_DISCOVERY_RUNS, ISCSI_DISCOVERY_HEARD, ISCSI_DISCOVERY_FAILED };

struct iscsi_discovery_portal {
    unsigned target;              /* its place in `target` */
    struct iscsi_portal portal;
};

/* 100 KiB: never on a stack. To read: all but the last two members. */
struct iscsi_discovery {
    enum iscsi_discovery_state state;
    char why[ISCSI_DISCOVERY_WHY]; /* FAILED: "portal HOST:PORT: ...", printable */
    bool refused;                  /* ... and it was a matter of who we are */
    unsigned target_count, portal_count;
    char target[ISCSI_DISCOVERY_TARGETS][ISCSI_NAME_MAX + 1];
    struct iscsi_discovery_portal portal[ISCSI_DISCOVERY_PORTALS]; /* in the order in which they came; none twice */
    unsigned targets_left_out, portals_left_out; /* there was no room for them */
    unsigned ignored;              /* names and addresses that are none ... */
    char words[ISCSI_DISCOVERY_WORDS]; /* ... the first one, printable, cut */
    bool again;
    int current;                   /* the target whose addresses come; -1: nobody's that is kept */
};

void iscsi_discovery_init(struct iscsi_discovery *discovery);
/* An event of the session, whose settings have `discovery` set. May stop it. */
void iscsi_discovery_event(struct iscsi_discovery *discovery, struct iscsi_session *session, const struct iscsi_event *event,
                           uint64_t now_ns);
/* The owner waits no longer: a failure, unless it is over already. The session ends, which ISCSI_EVENT_STOPPED tells. */
void iscsi_discovery_give_up(struct iscsi_discovery *discovery, struct iscsi_session *session, uint64_t now_ns);

/* "10.0.0.5:3260", "[fe80::1]:3260". */
void iscsi_portal_text(const struct iscsi_portal *portal, char *text, size_t bytes);

#endif
