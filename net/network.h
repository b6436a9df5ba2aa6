/* SPDX-License-Identifier: MIT */
/*
 * Private to net/: a network is one [network] section: an interface of lwIP's at the switch of its card (card.h), in a VLAN
 * or untagged. Everything here belongs to the service's thread.
 */
#ifndef NET_NETWORK_H
#define NET_NETWORK_H

#include "net/coalesce.h"
#include "net/duplicate.h"
#include "net/lwip_names.h"
#include "net/service.h"
#include "net/vswitch.h"

#include "lwip/netif.h"

struct card;

struct network {
    const struct config_network *config;
    const char *problem;
    struct card *card;
    struct network *next_on_card, *next;
    struct netif netif;
    struct netport port;      /* at the card's switch */
    struct vswitch_port vport;
    struct net_address said, said_gateway; /* what the log was told last */
    uint64_t received_frames, received_bytes, sent_frames, sent_bytes, dropped;
    struct coalesce packet;   /* segments of one connection that came in this batch, and their buffers */
    struct pbuf *parts[COALESCE_SEGMENTS_MAX];
    /* Who else has the address. */
    struct duplicate duplicate;
    bool offered;             /* what is watched was offered by DHCP, and declined */
    char other_guest[80];     /* the card of a guest that has it; "": somebody on the wire has it */
    uint64_t told_other, conflict_ns; /* what the log was told of it last, and when */
    unsigned told6;           /* IPv6 addresses that the log was told of, a bit for each */
    char notice[NET_NOTICE];
};

/* network.c */
/* Makes lwIP's interface on the card; false with network->problem set. */
bool network_open(struct network *network, struct card *card, const char *hostname) MUST_CHECK;
/* A batch of received frames is over: lwIP gets what was joined of them. */
void network_flush(struct network *network);
/* Gives lwIP back the buffers of frames that nobody holds any more. */
void network_collect(void);
/* The card's link came or went. */
void network_link(struct card *card);
/* Ten times a second. */
void network_tick(struct network *network, uint64_t now_ns);
/* What an admin should know of a network that works; "": nothing. */
void network_notice(const struct network *network, uint64_t now_ns, char *text, size_t text_bytes);
void network_address_get(const struct network *network, struct net_info *info);

/* service.c: where lwIP's pools are for a card; false: not memory that a card can be told of. */
bool net_physical(const void *address, uint64_t bytes, hpa_t *hpa) MUST_CHECK;

/* service.c: the network of that name, or NULL; and what wakes the service, in any context. */
struct network *network_find(const char *name);
void network_kicked(void *unused);
/* service.c: why no network leads to an address, and what helps. */
const char *net_no_way(void);
/* The configuration has a network of that name, whether there is a service or not. */
bool net_is_configured(const char *name);

/*
 * names.c: the name servers of a network's section, those of the sections before it first; and once a round, since DHCP would
 * replace them.
 */
void name_servers_add(const struct config_network *config);
void name_servers_keep(void);

/* guests.c: about every 50 ms while guests_wait() says so, else seldom. */
bool guests_wait(const struct card *cards);
void guests_tick(struct card *cards, uint64_t now_ns);

/* ping.c */
void ping_init(void);

#endif
