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
    struct frame_pool copies; /* of received frames, for guests; without memory until there is one */
    uint64_t no_room;         /* received frames lost for want of a copy */
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

/* A multicast address that somebody wants, or no longer does. */
void card_multicast(struct card *card, const uint8_t mac[6], bool add);

/* What the driver calls (struct nic_user). */
void card_receive(struct nic *nic, const struct nic_received *frame);
void card_sent(struct nic *nic, void *cookie);
void card_link(struct nic *nic);

#endif
