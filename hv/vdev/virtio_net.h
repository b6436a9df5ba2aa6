/* SPDX-License-Identifier: MIT */
/*
 * A virtio network card (VIRTIO 1.2, 5.1), in front of a struct netport.
 *
 * Out of the guest: a packet is copied once, out of the guest's buffers into a frame of the card's own pool, and its
 * header is judged by that copy; the chain goes back at once, so nothing is ever in flight, and neither a reset nor a
 * save has to wait. A full inbox or an empty pool leaves packets in the guest's ring: the guest's stack slows down,
 * nothing is lost.
 *
 * Into the guest: the switch puts references to frames into the port's outbox (any CPU), and the owner's I/O thread
 * copies them into the guest's buffers. A frame that finds no buffer, or too few, is lost and counted: a card never
 * waits for its guest. One exception: guest memory that has to be made ready first (gmem_ops.prepare) makes the frame
 * wait for the next turn.
 *
 * Several queue pairs: a flow is always received by the same one, chosen by its addresses and ports.
 *
 * A driver that breaks the rules breaks the card until it resets it: packets without their header, longer than any
 * packet, a checksum beyond the packet's end, segmentation without a size or that was not agreed on, receive buffers
 * that cannot hold a header, control commands without a place for the answer. A packet that only makes no sense (what
 * is to be cut is no TCP) is lost and counted.
 */
#ifndef VDEV_VIRTIO_NET_H
#define VDEV_VIRTIO_NET_H

#include "net/ethernet.h"
#include "net/netport.h"
#include "vdev/virtio_pci.h"

#define VIRTIO_NET_PAIRS_MAX 8
#define VIRTIO_NET_QUEUES_MAX (2 * VIRTIO_NET_PAIRS_MAX + 1)
#define VIRTIO_NET_QUEUE_SIZE 512
#define VIRTIO_NET_UNICAST_MAX 32
#define VIRTIO_NET_MULTICAST_MAX 64
#define VIRTIO_NET_CHUNKS_MIN 40 /* of the pool: the largest packet, and some */

/* What the owner decides. Memory is the owner's and stays. */
struct virtio_net_config {
    uint64_t mac;
    uint32_t mtu;        /* told to the guest; 68 to 65535 */
    unsigned pairs;      /* queue pairs offered, 1 to VIRTIO_NET_PAIRS_MAX */
    bool mac_changes;    /* the guest may take another address: only where the switch lets it send from any */
    struct frame *frames;
    struct frame_chunk *chunks;
    uint32_t *chunk_numbers;
    uint32_t frame_count, chunk_count;
    struct frame **inbox, **outbox;
    uint32_t inbox_size, outbox_size; /* powers of two */
};

/* For `vm show`; not saved. What a wire would not have lost is counted by the switch instead. */
struct virtio_net_counters {
    uint64_t sent_frames, sent_bytes, received_frames, received_bytes;
    uint64_t send_malformed;   /* packets from the guest that make no sense, not sent */
    uint64_t send_waits;       /* times that the guest's ring had to wait for room */
    uint64_t receive_none;     /* lost: the guest had no buffers, or too few */
    uint64_t receive_small;    /* lost: the guest's buffer was too small */
    uint64_t receive_filtered; /* not for this guest, by its own filters */
    uint64_t receive_changed;  /* lost: needed a feature that the guest's new driver does not have */
};

struct virtio_net {
    struct virtio_device device;
    struct virtio_model model;
    struct virtqueue queue[VIRTIO_NET_QUEUES_MAX];
    struct netport port;
    struct frame_pool pool;
    unsigned pairs;
    bool mac_changes;
    uint64_t configured_mac;
    uint32_t open; /* atomic: frames may be put into the outbox */
    /* What the driver has set, and a save keeps. */
    uint64_t mac;
    bool announce;                /* the guest is asked to announce itself */
    unsigned active_pairs;
    uint8_t modes;                /* virtio_net_private.h */
    unsigned unicast_count, multicast_count;
    uint64_t unicast[VIRTIO_NET_UNICAST_MAX], multicast[VIRTIO_NET_MULTICAST_MAX];
    uint64_t vlans[VLAN_IDS / 64];
    /* The packet that is being worked on. */
    struct virtq_chain first, chain;
    struct frame_segment parts[FRAME_SEGMENTS_MAX + 1];
    struct virtio_net_counters counters;
};

/*
 * A card in that slot of the bus. Its `port` is then ready for vswitch_attach, its link up. Errors: ERR_INVALID where
 * the configuration is not as it says above; else as virtio_init.
 */
enum status virtio_net_init(struct virtio_net *net, const struct virtio_owner *owner, struct vpci *pci, unsigned slot,
                            const struct virtio_net_config *config) MUST_CHECK;

/* Plugs the cable in or out: the guest sees it, and the switch. Device lock held. */
void virtio_net_set_link(struct virtio_net *net, bool up);

/*
 * Asks the guest to tell the LAN its addresses, after a move (VIRTIO 1.2, 5.1.6.5.4). False: its driver cannot; what
 * vswitch_announce does is all there is then. Device lock held.
 */
bool virtio_net_announce(struct virtio_net *net);

/*
 * Gives back all frames that wait for the guest. For the end of the machine: after vswitch_detach, before its memory
 * goes; the pool's memory may go when frame_pool_idle says so. Device lock held.
 */
void virtio_net_close(struct virtio_net *net);

#endif
