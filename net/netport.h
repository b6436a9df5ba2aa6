/* SPDX-License-Identifier: MIT */
/*
 * The interface between those who give and take frames (a card's driver, a guest's card, the node's own stack) and the
 * switch between them. Neither knows what the other is. Pure.
 *
 * Two directions:
 *
 *   - **To the switch** the port's user puts frames into `inbox` and calls netport_kick(). One context at a time puts
 *     (a guest's card: whoever holds its machine's device lock; a driver and the node's stack: the service context).
 *   - **From the switch** `ops->give` is called in the service context. It keeps the frame by a reference of its own,
 *     or says no. It never waits, copies nothing large, and takes no lock that is held for long: a guest's card puts
 *     the frame into `outbox`, and its machine's thread copies it into the guest later.
 *
 * Contexts. The switch runs in the service context alone. vCPU threads, a VM's thread and interrupt handlers put on
 * queues and wake; nothing of the switch is called from there but netport_kick, vswitch_port_deadline and the readers
 * of counters.
 *
 * Back-pressure, and who drops:
 *
 *   - A full inbox is not a loss. A guest's card leaves further frames in the guest's ring, which fills, and the
 *     guest's stack slows down; `ops->room` wakes the card. The same where the card's own pool is used up because its
 *     frames still wait at other ports. A physical card cannot be slowed: its driver drops and counts.
 *   - A port that says no to a frame loses it, and the switch counts it there. The switch never waits for a slow port,
 *     never keeps a frame, and never lets one port's slowness reach another. Nothing is ever resent here: that is
 *     TCP's work.
 *   - A port whose outbox is not emptied for VSWITCH_STALL_NS (its VM stands still) loses what waits there, so that
 *     the senders get their memory back.
 *
 * What a port can take is in `offloads`. Frames that ask for more are finished in software by the switch: checksums are
 * computed, large TCP packets cut, before `give` sees them. A port's user may change `offloads` at any time; frames
 * given before may still ask for what it could until then, so it checks each frame (netport_takes) and drops what it
 * cannot use.
 */
#ifndef NET_NETPORT_H
#define NET_NETPORT_H

#include "net/frame.h"

/* What a port's user can do with a frame that it is given. */
#define NETPORT_CHECKSUM BIT(0) /* FRAME_CHECKSUM_MISSING */
#define NETPORT_TSO4 BIT(1)     /* FRAME_GSO_TCP4 (and NETPORT_CHECKSUM) */
#define NETPORT_TSO6 BIT(2)
#define NETPORT_TSO_ECN BIT(3)  /* either, with CWR set */

#define NETPORT_MTU_MIN 68u      /* RFC 791 */
#define NETPORT_MTU_MAX 65535u

struct netport;

struct netport_ops {
    /*
     * A frame for the port's user, who takes a reference of its own if it keeps it. False: it does not, for want of
     * room or because it is not running. Service context.
     */
    bool (*give)(struct netport *port, struct frame *frame);
    /* The burst of frames is over: ring, notify, wake. May be NULL. Service context. */
    void (*flush)(struct netport *port);
    /* There is room in the inbox again after frame_queue_has_room said no. May be NULL. Only wakes. Any context. */
    void (*room)(struct netport *port);
};

struct netport {
    const struct netport_ops *ops;
    const char *name;         /* for people: "vm demo: card 0"; stays */
    uint64_t mac;             /* of the station behind the port; 0: there are many (a physical card). Stays */
    uint32_t mtu;             /* the largest IP packet it takes, 68 to 65535. Stays */
    uint32_t offloads;        /* atomic: NETPORT_... */
    uint32_t link;            /* atomic: 0 while frames can neither come nor go */
    struct frame_queue inbox;
    struct frame_queue outbox; /* of size 0 where `give` keeps frames elsewhere */
    void (*kick)(void *context); /* set by who runs the switch: the inbox wants a look. NULL: nobody does */
    void *kick_context;
};

/* Tells the switch that the inbox has frames. Any context. */
static inline void netport_kick(struct netport *port)
{
    if (port->kick)
        port->kick(port->kick_context);
}

static inline bool netport_is_up(const struct netport *port)
{
    return __atomic_load_n(&port->link, __ATOMIC_RELAXED);
}

/* True if a user with these offloads can use the frame as it is. */
static inline bool netport_takes(uint32_t offloads, const struct frame *frame)
{
    uint32_t needs = frame->checksum == FRAME_CHECKSUM_MISSING ? NETPORT_CHECKSUM : 0;

    if (frame->gso != FRAME_GSO_NONE)
        needs |= (uint32_t)(frame->gso == FRAME_GSO_TCP4 ? NETPORT_TSO4 : NETPORT_TSO6) |
                 (uint32_t)(frame->ecn ? NETPORT_TSO_ECN : 0);
    return !(needs & ~offloads);
}

#endif
