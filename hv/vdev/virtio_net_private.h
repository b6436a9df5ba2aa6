/* SPDX-License-Identifier: MIT */
/* What the files of the virtio network card share; nobody else includes it. */
#ifndef VDEV_VIRTIO_NET_PRIVATE_H
#define VDEV_VIRTIO_NET_PRIVATE_H

#include "vdev/virtio_net.h"

/* Feature bits (VIRTIO 1.2, 5.1.3). */
#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_MTU BIT(3)
#define F_MAC BIT(5)
#define F_GUEST_TSO4 BIT(7)
#define F_GUEST_TSO6 BIT(8)
#define F_GUEST_ECN BIT(9)
#define F_HOST_TSO4 BIT(11)
#define F_HOST_TSO6 BIT(12)
#define F_HOST_ECN BIT(13)
#define F_MRG_RXBUF BIT(15)
#define F_STATUS BIT(16)
#define F_CTRL_VQ BIT(17)
#define F_CTRL_RX BIT(18)
#define F_CTRL_VLAN BIT(19)
#define F_CTRL_RX_EXTRA BIT(20)
#define F_GUEST_ANNOUNCE BIT(21)
#define F_MQ BIT(22)
#define F_CTRL_MAC_ADDR BIT(23)
#define F_SPEED_DUPLEX BIT(63)

/* struct virtio_net_hdr (5.1.6), as it is for every driver of VIRTIO 1. */
struct net_header {
    uint8_t flags, gso_type;
    uint16_t header_bytes, gso_bytes, checksum_start, checksum_offset, buffer_count;
};
_Static_assert(sizeof(struct net_header) == 12, "net_header is 12 bytes in guest memory");
#define NET_HEADER_NEEDS_CSUM 1u
#define NET_HEADER_DATA_VALID 2u
#define NET_HEADER_GSO_NONE 0u
#define NET_HEADER_GSO_TCP4 1u
#define NET_HEADER_GSO_TCP6 4u
#define NET_HEADER_GSO_ECN 0x80u

/* virtio_net.modes: the first six as commands 0 to 5 of class RX set them (5.1.6.5.1). */
#define MODE_PROMISCUOUS BIT(0)
#define MODE_ALL_MULTICAST BIT(1)
#define MODE_ALL_UNICAST BIT(2)
#define MODE_NO_MULTICAST BIT(3)
#define MODE_NO_UNICAST BIT(4)
#define MODE_NO_BROADCAST BIT(5)
#define MODE_MANY_UNICAST BIT(6)   /* the guest named more addresses than are kept: all pass */
#define MODE_MANY_MULTICAST BIT(7)

static inline struct virtio_net *net_of(struct virtio_device *dev)
{
    return CONTAINER_OF(dev, struct virtio_net, device);
}

/* Queue pairs that there are for this driver: without MQ one (5.1.2). */
static inline unsigned net_usable_pairs(const struct virtio_net *net)
{
    return net->device.accepted & F_MQ ? net->pairs : 1;
}

/* virtio_net_io.c. True: more to do. */
bool net_transmit(struct virtio_net *net, unsigned queue);
bool net_receive(struct virtio_net *net);
/* What the driver can take, by its features, as NETPORT_... */
uint32_t net_offloads(uint64_t accepted);

/* virtio_net_ctrl.c */
bool net_control(struct virtio_net *net, unsigned queue);
/* As after a reset. */
void net_filter_reset(struct virtio_net *net);
/* True: the guest wants this frame. */
bool net_filter_passes(const struct virtio_net *net, const struct frame *frame);

#endif
