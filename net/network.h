/* SPDX-License-Identifier: MIT */
/*
 * Private to net/: a card in use and the networks on it. A network is one [network] section: an interface of lwIP's on a
 * card, with a VLAN tag or without. Everything here belongs to the service's thread.
 */
#ifndef NET_NETWORK_H
#define NET_NETWORK_H

#include "drivers/nic.h"
#include "net/lwip_names.h"
#include "net/service.h"

#include "lwip/netif.h"

struct multicast {
    uint8_t mac[6];
    unsigned users;
};

struct card {
    struct nic *nic;
    struct network *networks; /* on this card */
    uint32_t mtu;             /* the largest of theirs */
    bool wanted;              /* it interrupted */
    bool more;                /* its last poll left something */
    struct multicast multicast[NIC_MAX_MULTICAST];
    unsigned multicast_count, multicast_left_out;
    struct card *next;
};

struct network {
    const struct config_network *config;
    const char *problem;
    struct card *card;
    struct network *next_on_card, *next;
    struct netif netif;
    uint8_t *tag;             /* the four bytes of its VLAN tag, where a card can read them */
    struct net_address said, said_gateway; /* what the log was told last */
    uint64_t received_frames, received_bytes, sent_frames, sent_bytes, dropped;
    uint64_t conflict_ns;     /* when a duplicate address was reported last */
};

/* network.c */
/* Makes lwIP's interface on the card; false with network->problem set. */
bool network_open(struct network *network, struct card *card, const char *hostname) MUST_CHECK;
/* A frame from the card, for whichever network it is. */
void network_receive(struct nic *nic, const struct nic_received *frame);
void network_sent(struct nic *nic, void *cookie);
void network_link(struct nic *nic);
void network_address_get(const struct network *network, struct net_info *info);

/* service.c: where lwIP's pools are for a card; false: not memory that a card can be told of. */
bool net_physical(const void *address, uint64_t bytes, hpa_t *hpa) MUST_CHECK;

/* ping.c */
void ping_init(void);

#endif
