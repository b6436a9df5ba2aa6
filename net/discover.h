/* SPDX-License-Identifier: MIT */
/*
 * SendTargets discovery for an admin: a session of its own with a portal, ended after it (net/iscsi/iscsi_discovery.h). One at a
 * time. It belongs to the network service's thread; who asks waits in his own.
 */
#ifndef NET_DISCOVER_H
#define NET_DISCOVER_H

#include "net/iscsi/iscsi_discovery.h"
#include "vm/config.h"

struct net_discovery {
    struct config_portal portal;
    /*
     * Who asks, for targets show an initiator what is for it: the name and the secrets of `storage`, or without secrets
     * `initiator`, or, where both are NULL, "iqn.2026-11.tasuki:" and `node`. `storage` goes first.
     */
    const char *storage, *initiator, *node;
    char asked_as[ISCSI_NAME_MAX + 1];  /* out: who asked */
    struct iscsi_discovery list;        /* out, with OK */
};

/*
 * Asks and waits, 35 s at most. *discovery is 100 KiB, of the heap, and changes nothing of what it refers to. OK: the list is
 * whole but for what it says of itself. Else with text "OBJECT: CAUSE; CURE": ERR_NOT_FOUND: there is no such storage;
 * ERR_INVALID: the storage does not work, or the name is none; ERR_BUSY: another one is under way; ERR_UNSUPPORTED: no network;
 * ERR_IO: the portal does not answer as it should, or refuses; ERR_NO_MEMORY. Any thread but the service's.
 */
enum status net_discover(struct net_discovery *discovery, char *text, size_t text_bytes) MUST_CHECK;

/* Once a round of the service, and when to call it at the latest. */
void net_discover_poll(uint64_t now_ns);
uint64_t net_discover_deadline(void);

#endif
