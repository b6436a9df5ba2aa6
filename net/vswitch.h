/* SPDX-License-Identifier: MIT */
/*
 * The virtual switch: frames between physical cards, guests' cards and the node's own port. Pure: memory is handed in,
 * time is an argument (ns of one monotonic clock), and all of it runs in one context, the service context, but for
 * what says otherwise.
 *
 * What it promises:
 *
 *   - A frame goes to the port that its destination was last seen at, else to all of its VLAN; never back to where it
 *     came from, never to a port of the same isolation group, never into another VLAN.
 *   - A port with an address of its own (a guest's, the node's) owns that address while it is alive: no other port can
 *     attract its frames by sending from it. By default it may send from no other (any_source), and gets no frames for
 *     unknown stations: a guest in promiscuous mode sees its own frames and those for groups.
 *   - Addresses are learnt from physical ports and from guests with any_source, each up to its quota. The quotas of
 *     all ports fit into the table together, so no port can push out or keep out another's.
 *   - What is behind a frame's tag does not become its tag: a frame that would leave a port untagged with a further 802.1Q
 *     tag in front is lost, for the next switch would take that for its VLAN. That is how a guest's two tags are no way
 *     into another VLAN, and why tags in tags reach trunks only.
 *   - Frames for the other end of a cable (IEEE 802.1Q, 8.6.3; PAUSE) are not passed on: a guest could stop a LAN with
 *     them.
 *   - Past a port's deadline nothing comes from it or goes to it: it is as if it were gone, and its address is free to
 *     be learnt elsewhere. That is how a VM's frames end with its run deadline, also those that were in its queue
 *     already.
 *   - Frames that ask for a checksum or for cutting get it in software where the port that they leave by cannot.
 *
 * There is no spanning tree: who puts two physical cards of one LAN into one switch puts them into one isolation group.
 * Multicast is flooded: nothing is learnt from IGMP or MLD.
 *
 * VLAN 0 is here the LAN of frames without a tag. An access port has one VLAN, untagged at the port. A trunk carries
 * the VLANs of a set with their tags, and one (its `vlan`, 0 by default) without. A tag with VLAN 0 carries only a
 * priority.
 */
#ifndef NET_VSWITCH_H
#define NET_VSWITCH_H

#include "kernel/status.h"
#include "net/ethernet.h"
#include "net/mac_table.h"
#include "net/netport.h"

#define VSWITCH_AGE_NS UINT64_C(300000000000) /* silent for so long: forgotten (IEEE 802.1Q, 8.8.3) */
#define VSWITCH_STALL_NS UINT64_C(100000000)  /* after this an outbox that nobody empties is emptied */
#define VSWITCH_BURST 32                      /* frames of one port before the next has its turn */
#define VSWITCH_TURN_BYTES (256 * 1024u)      /* of work, for all receivers, before vswitch_run returns: far below 1 ms */

enum vswitch_drop {
    /* Frames that came from the port. */
    VSWITCH_DROP_DOWN,      /* its link is down */
    VSWITCH_DROP_DEADLINE,  /* its VM's run deadline has passed (also of frames to it) */
    VSWITCH_DROP_MALFORMED, /* shorter than its header, its source cannot be a station, or TCP to a group */
    VSWITCH_DROP_SOURCE,    /* not the port's own address, or another port's */
    VSWITCH_DROP_VLAN,      /* a VLAN that the port is not in (also of frames to it: one that would seem to be in another) */
    VSWITCH_DROP_CONTROL,   /* meant for the other end of the cable */
    VSWITCH_DROP_LOCAL,     /* its destination is behind the same port, or in the same isolation group */
    /* Frames that were to leave by the port. */
    VSWITCH_DROP_BUSY,      /* the port had no room, or its user does not run */
    VSWITCH_DROP_TOO_BIG,   /* larger than the port's MTU */
    VSWITCH_DROP_MEMORY,    /* no memory to finish or tag it */
    VSWITCH_DROP_STALLED,   /* waited in the outbox of a user that does not run any more */
    VSWITCH_DROP_COUNT,
};

/* A word for it, lower case, without blanks, never NULL. */
const char *vswitch_drop_name(enum vswitch_drop drop);

/* In: from the port into the switch. Written in the service context; anybody may read them, each for itself. */
struct vswitch_counters {
    uint64_t in_frames, in_bytes;   /* taken, dropped ones included */
    uint64_t out_frames, out_bytes; /* given to the port's user, and kept by it */
    uint64_t flooded;               /* frames from the port that went to more than one place */
    uint64_t learn_refused;         /* stations that were not learnt, because the port's quota was used up */
    uint64_t finished;              /* frames to the port whose checksum or cutting was done in software */
    uint64_t drop[VSWITCH_DROP_COUNT];
};

struct vswitch_port_config {
    bool trunk;
    uint16_t vlan;             /* access: its VLAN; trunk: the VLAN that has no tag there. 0 to 4094 */
    const uint64_t *trunk_set; /* trunk: bit n of the 4096, VLAN n with its tag (64 words; copied); NULL: all */
    bool any_source;           /* may send from addresses other than netport.mac */
    uint32_t quota;            /* stations learnt at the port at most; 0 unless mac is 0 or any_source */
    uint8_t group;             /* ports of the same group, other than 0, do not reach each other */
};

/*
 * Where a port's frames of one source to one destination went last, so that the next ones need not be looked up: the switch's
 * whole answer, as long as `generation` is the switch's, which changes with the table and the ports, and for a second at
 * most, for a station that sends is not to be forgotten. Whether ports are alive is looked at for each frame all the same.
 */
#define VSWITCH_RECENT 8
struct vswitch_recent {
    uint64_t addresses;      /* the frame's first 8 bytes */
    uint32_t more_addresses; /* and the next 4 */
    uint16_t vlan;
    uint32_t generation;
    uint64_t until_ns;       /* 0: there is nothing here */
    struct vswitch_port *to;
};

struct vswitch_port {
    struct netport *port;
    struct vswitch_port *next;
    uint64_t member[VLAN_IDS / 64];
    uint16_t vlan;
    bool trunk, single; /* single: only netport.mac is behind it */
    uint8_t group;
    bool touched;       /* given frames in this burst */
    uint32_t quota, learnt;
    uint64_t deadline_ns; /* atomic */
    uint32_t stall_taken; /* outbox.taken at stall_ns */
    uint64_t stall_ns;
    struct vswitch_counters counters;
    struct vswitch_recent recent[VSWITCH_RECENT];
};

struct vswitch {
    struct vswitch_port *first;
    struct vswitch_port *turn; /* whose inbox is next */
    struct mac_table table;
    uint32_t port_count;
    uint32_t promised;       /* entries that ports are entitled to */
    uint32_t work;           /* in this turn, in bytes */
    struct frame_pool *pool; /* for what the switch makes itself */
    uint64_t swept_ns;
    uint32_t generation;     /* of table and ports: what was remembered under another one is void */
};

/*
 * `entries` and `buckets` (a power of two) as mac_table_init; `pool`: frames that the switch makes (pieces of cut
 * frames, tags, announcements), taken in the service context. All memory is the caller's and stays.
 */
void vswitch_init(struct vswitch *sw, struct mac_entry *entries, uint32_t capacity, uint32_t *buckets,
                  uint32_t bucket_count, uint64_t seed, struct frame_pool *pool);

/*
 * Joins a port. Both structures are the caller's and stay until vswitch_detach. ERR_INVALID: a VLAN that does not
 * exist, a quota without a use or a limit without an address, an MTU outside its range. ERR_EXISTS: another port has
 * that address in a VLAN of this one. ERR_NO_MEMORY: the quota does not fit into the table beside the others'.
 */
enum status vswitch_attach(struct vswitch *sw, struct vswitch_port *vp, struct netport *port,
                           const struct vswitch_port_config *config, uint64_t now_ns) MUST_CHECK;
/* Takes a port out and gives back all frames that wait at it. */
void vswitch_detach(struct vswitch *sw, struct vswitch_port *vp);

/* Past `deadline_ns` the port is dead; TIME_NEVER (as it begins): never. Any context; counts from the next frame on. */
void vswitch_port_deadline(struct vswitch_port *vp, uint64_t deadline_ns);

/*
 * Serves the inboxes in turn, VSWITCH_BURST frames of each port at most and VSWITCH_TURN_BYTES in all; the next call
 * goes on where this one ended, or begins with another port. True: some may have more.
 */
bool vswitch_run(struct vswitch *sw, uint64_t now_ns);

/*
 * One frame that came from the port, for users in the service context that need no inbox. The reference stays with the
 * caller. What it leads to is flushed by vswitch_flush.
 */
void vswitch_input(struct vswitch *sw, struct vswitch_port *vp, struct frame *frame, uint64_t now_ns);
void vswitch_flush(struct vswitch *sw);

/* Ages stations, frees what waits at ports that stand still. Wants to be called every 50 ms or so. */
void vswitch_tick(struct vswitch *sw, uint64_t now_ns);

/*
 * Tells the LAN where the station behind the port is, by a frame in its name (announce.h). ERR_INVALID: the port has no
 * address of its own; ERR_BUSY: it is down or past its deadline; ERR_NO_MEMORY.
 */
enum status vswitch_announce(struct vswitch *sw, struct vswitch_port *vp, uint64_t now_ns) MUST_CHECK;

/* The port that a station is known at, or NULL. For the shell. */
struct vswitch_port *vswitch_where(struct vswitch *sw, uint16_t vlan, uint64_t address, uint64_t now_ns);

#endif
