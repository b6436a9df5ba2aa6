/* SPDX-License-Identifier: MIT */
/*
 * Private to net/: a card in use, and the switch that joins it with the node's own networks on it and with guests' cards.
 * Each card has a switch of its own: cards of different LANs are never joined, and VLANs are told apart by their tags.
 *
 * Everything here belongs to the service's thread.
 *
 * The card as a port of its switch: what the switch gives it is sent as it lies, by reference, and comes back when the
 * card is done. What the card received lies in buffers that are the card's again when the call returns, so a frame that
 * a guest may get is copied into the port's own pool, and all others are looked at in place.
 *
 * Nobody's flood takes all: guests leave a part of the card's descriptors to the node's own frames (its storage may be
 * behind the same card) and memory to tag them, and one guest that is slow to take its frames has no more than its share of the copies.
 */
#ifndef NET_CARD_H
#define NET_CARD_H

#include "drivers/nic.h"
#include "net/guest.h"
#include "net/vswitch.h"

struct network;

struct multicast {
    uint8_t mac[6];
    unsigned users;
};

struct card {
    struct nic *nic;
    struct network *networks; /* on this card */
    struct net_guest *guests; /* on these networks */
    bool wanted;              /* it interrupted */
    bool more;                /* its last poll left something */
    bool refused;             /* it had no room for a frame since that was cleared */
    struct multicast multicast[NIC_MAX_MULTICAST];
    unsigned multicast_count, multicast_left_out;
    struct vswitch sw;
    struct netport port;      /* the card as a port */
    struct vswitch_port vport;
    struct frame_pool made;   /* what the switch makes: tags, pieces, announcements */
    struct frame_pool own_made; /* the same of frames from the node and to it */
    struct frame_pool copies; /* of received frames, for guests; without memory until there is one */
    uint64_t no_room;         /* received frames lost for want of a copy */
    uint32_t in_flight;       /* descriptors that the card has, about */
    bool own;                 /* what comes now is the node's own (card_own) */
    uint64_t link_since_ns;   /* of the minute in which this many changes of the link were told */
    unsigned link_told;
    bool joined;              /* the switch is there */
    struct card *next;
};

/* Makes the card's switch; further calls do nothing. ERR_NO_MEMORY. */
enum status card_join(struct card *card, uint64_t now_ns) MUST_CHECK;

/*
 * Joins a guest's card to the switch, in that network's VLAN. kick(context), any context, is called when its inbox wants
 * a look. ERR_EXISTS: somebody in that VLAN has its address; ERR_NO_MEMORY.
 */
enum status card_attach(struct card *card, struct network *network, struct net_guest *guest, void (*kick)(void *context),
                        void *context, uint64_t now_ns) MUST_CHECK;
/* Takes it out; nothing is given to it any more. */
void card_detach(struct card *card, struct net_guest *guest);

/* Whether what is put into the switch from now on is the node's own; returns what it was, to be set again. */
bool card_own(struct card *card, bool own);

/* A multicast address that somebody wants, or no longer does. */
void card_multicast(struct card *card, const uint8_t mac[6], bool add);

/* What the driver calls (struct nic_user). */
void card_receive(struct nic *nic, const struct nic_received *frame);
void card_sent(struct nic *nic, void *cookie);
void card_link(struct nic *nic);

#endif
