/* SPDX-License-Identifier: MIT */
/*
 * A guest's card at one of the node's networks: what a VM and the network service have in common. The VM makes the card
 * (vdev/virtio_net.h) and lends its port to the service; in between there are only the port's queues.
 *
 * Life: net_guest_attach, then frames, then net_guest_detach, then net_guest_bury, which gives the memory back as soon as
 * nobody holds a frame of the card's any more: that may be later than its VM's end, for a frame may wait in a physical
 * card without a link. So everything that a frame's return touches is in that memory.
 *
 * All functions: thread context, but not the service's thread, where it is not said otherwise.
 */
#ifndef NET_GUEST_H
#define NET_GUEST_H

#include "kernel/status.h"
#include "net/vswitch.h"

struct card;
struct network;

struct net_guest {
    /* The VM's; they stay from net_guest_attach to net_guest_detach. */
    const char *network;             /* by its name */
    struct netport *port;
    uint64_t deadline_ns;            /* the VM's run deadline when it is attached; TIME_NEVER: none */
    void (*link_changed)(void *context); /* net_guest_link says something else. The service's thread: it only wakes */
    void *context;
    /* The service's. */
    struct network *at;              /* NULL: not attached */
    struct card *card;
    struct vswitch_port vport;
    uint32_t link;                   /* atomic */
    unsigned announcements;          /* still to be made */
    uint64_t announce_ns;            /* when the next is due */
    struct net_guest *next;          /* at the card */
    struct frame_pool *pool;         /* buried: until it is idle */
    void (*gone)(struct net_guest *guest);
    struct net_guest *next_buried;
};

/*
 * Joins the card to its network. OK with `text` empty; OK with `text` set: the network does not work, and the guest finds
 * its link down. ERR_NOT_FOUND: there is no such network; ERR_EXISTS: the address is in use there; ERR_NO_MEMORY.
 */
enum status net_guest_attach(struct net_guest *guest, char *text, size_t text_bytes) MUST_CHECK;
/* Takes it out of the switch. One that is not attached: nothing. */
void net_guest_detach(struct net_guest *guest);

/*
 * The card is not attached, its VM touches it no more, and its queues are empty: gone(guest), in any thread, perhaps the
 * caller's and at once, when all frames of `pool` are back. gone() frees.
 */
void net_guest_bury(struct net_guest *guest, struct frame_pool *pool, void (*gone)(struct net_guest *guest));

/* Whether the cable is in: attached, and the physical card has a link. Any context. */
static inline bool net_guest_link(const struct net_guest *guest)
{
    return __atomic_load_n(&guest->link, __ATOMIC_ACQUIRE);
}

/* Moves the run deadline, past which no frame comes from the guest or goes to it. Any context while it is attached. */
static inline void net_guest_deadline(struct net_guest *guest, uint64_t deadline_ns)
{
    vswitch_port_deadline(&guest->vport, deadline_ns);
}

/* Tells the LAN where the guest is now, some times within a second. Attached or not. */
void net_guest_announce(struct net_guest *guest);

#endif
