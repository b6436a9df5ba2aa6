/* SPDX-License-Identifier: MIT */
/*
 * The control queue of the virtio network card (VIRTIO 1.2, 5.1.6.5), and the filters that it sets. A command is
 * copied out of the chain and then looked at; one that is unknown, not negotiated or out of range is answered with an
 * error and changes nothing. One that leaves no room for an answer breaks the card.
 */
#include <string.h>

#include "kernel/bytes.h"
#include "kernel/index_mask.h"
#include "vdev/virtio_net_private.h"

#define COMMANDS_PER_TURN 16

#define CLASS_RX 0u
#define RX_LAST 5u      /* the commands are the numbers of the bits in `modes` */
#define RX_BASIC_LAST 1u
#define CLASS_MAC 1u
#define MAC_TABLE_SET 0u
#define MAC_ADDR_SET 1u
#define CLASS_VLAN 2u
#define VLAN_ADD 0u
#define VLAN_DELETE 1u
#define CLASS_ANNOUNCE 3u
#define ANNOUNCE_ACK 0u
#define CLASS_MQ 4u
#define MQ_PAIRS_SET 0u

#define ACK_OK 0u
#define ACK_ERROR 1u

/* ---- Filters ---- */

void net_filter_reset(struct virtio_net *net)
{
    /* A driver that sets no mode gets all that the switch lets through; so does one without the commands for it. */
    net->modes = MODE_PROMISCUOUS;
    net->unicast_count = net->multicast_count = 0;
    memset(net->vlans, 0, sizeof(net->vlans));
}

static bool is_in(const uint64_t *table, unsigned count, uint64_t address)
{
    for (unsigned i = 0; i < count; i++) {
        if (table[i] == address)
            return true;
    }
    return false;
}

static bool passes_address(const struct virtio_net *net, uint64_t to)
{
    uint8_t modes = net->modes;

    if (!(net->device.accepted & F_CTRL_RX) || modes & MODE_PROMISCUOUS)
        return true;
    if (to == ETH_BROADCAST)
        return !(modes & MODE_NO_BROADCAST);
    if (eth_is_group(to))
        return !(modes & MODE_NO_MULTICAST) && (modes & (MODE_ALL_MULTICAST | MODE_MANY_MULTICAST) ||
                                                is_in(net->multicast, net->multicast_count, to));
    return !(modes & MODE_NO_UNICAST) && (modes & (MODE_ALL_UNICAST | MODE_MANY_UNICAST) || to == net->mac ||
                                          is_in(net->unicast, net->unicast_count, to));
}

bool net_filter_passes(const struct virtio_net *net, const struct frame *frame)
{
    uint16_t vlan = frame->tci & VLAN_ID_MASK;
    uint8_t to[ETH_ADDRESS_BYTES];

    if (frame_read(frame, 0, to, sizeof(to)) != sizeof(to))
        return false;
    if (frame->tagged && net->device.accepted & F_CTRL_VLAN && !(net->vlans[vlan / 64] >> vlan % 64 & 1))
        return false;
    return passes_address(net, eth_address(to));
}

/* ---- Commands ---- */

/* A command, being read: the data behind class and command. */
struct command {
    const struct virtqueue *vq;
    const struct virtq_chain *chain;
    uint8_t kind, code;
    uint64_t bytes; /* of data */
};

/* Copies `count` bytes of the data from `offset` on. */
static bool read_data(const struct command *c, uint64_t offset, void *bytes, size_t count)
{
    return range_within(offset, count, c->bytes) && virtq_read(c->vq, c->chain, 2 + offset, bytes, count) == count;
}

static bool set_mode(struct virtio_net *net, const struct command *c)
{
    uint64_t feature = c->code <= RX_BASIC_LAST ? F_CTRL_RX : F_CTRL_RX_EXTRA;
    uint8_t on;

    if (!(net->device.accepted & feature) || c->code > RX_LAST || c->bytes != 1 || !read_data(c, 0, &on, 1) || on > 1)
        return false;
    net->modes = (uint8_t)((net->modes & ~(1u << c->code)) | (unsigned)on << c->code);
    return true;
}

/*
 * One of the two tables at *offset, which moves behind it: count, addresses. A table with more than `max` is not kept,
 * and *many is set: all pass then.
 */
static bool read_table(const struct command *c, uint64_t *offset, uint64_t *table, unsigned max, unsigned *count,
                       bool *many)
{
    uint8_t bytes[VIRTIO_NET_MULTICAST_MAX * ETH_ADDRESS_BYTES];
    uint32_t there;

    if (!read_data(c, *offset, bytes, 4))
        return false;
    there = le32_get(bytes);
    *offset += 4;
    if (!range_within(*offset, (uint64_t)there * ETH_ADDRESS_BYTES, c->bytes))
        return false;
    *many = there > max;
    *count = *many ? 0 : there;
    if (!read_data(c, *offset, bytes, *count * ETH_ADDRESS_BYTES))
        return false;
    for (unsigned i = 0; i < *count; i++)
        table[i] = eth_address(bytes + i * ETH_ADDRESS_BYTES);
    *offset += (uint64_t)there * ETH_ADDRESS_BYTES;
    return true;
}

static bool set_tables(struct virtio_net *net, const struct command *c)
{
    uint64_t unicast[VIRTIO_NET_UNICAST_MAX], multicast[VIRTIO_NET_MULTICAST_MAX], offset = 0;
    unsigned unicast_count, multicast_count;
    bool many_unicast, many_multicast;

    if (!(net->device.accepted & F_CTRL_RX) ||
        !read_table(c, &offset, unicast, VIRTIO_NET_UNICAST_MAX, &unicast_count, &many_unicast) ||
        !read_table(c, &offset, multicast, VIRTIO_NET_MULTICAST_MAX, &multicast_count, &many_multicast) ||
        offset != c->bytes)
        return false;
    net->unicast_count = unicast_count;
    net->multicast_count = multicast_count;
    memcpy(net->unicast, unicast, unicast_count * sizeof(unicast[0]));
    memcpy(net->multicast, multicast, multicast_count * sizeof(multicast[0]));
    net->modes = (uint8_t)((net->modes & ~(MODE_MANY_UNICAST | MODE_MANY_MULTICAST)) |
                           (many_unicast ? MODE_MANY_UNICAST : 0) | (many_multicast ? MODE_MANY_MULTICAST : 0));
    return true;
}

static bool set_address(struct virtio_net *net, const struct command *c)
{
    uint8_t bytes[ETH_ADDRESS_BYTES];

    if (!(net->device.accepted & F_CTRL_MAC_ADDR) || c->bytes != sizeof(bytes) ||
        !read_data(c, 0, bytes, sizeof(bytes)) || !eth_is_station(eth_address(bytes)))
        return false;
    net->mac = eth_address(bytes);
    return true;
}

static bool set_addresses(struct virtio_net *net, const struct command *c)
{
    return c->code == MAC_TABLE_SET ? set_tables(net, c) : c->code == MAC_ADDR_SET && set_address(net, c);
}

static bool set_vlan(struct virtio_net *net, const struct command *c)
{
    uint8_t bytes[2];
    uint16_t vlan;

    if (!(net->device.accepted & F_CTRL_VLAN) || c->code > VLAN_DELETE || c->bytes != 2 || !read_data(c, 0, bytes, 2))
        return false;
    vlan = le16_get(bytes);
    if (vlan >= VLAN_IDS)
        return false;
    vlan = (uint16_t)index_mask(vlan, VLAN_IDS);
    if (c->code == VLAN_ADD)
        net->vlans[vlan / 64] |= BIT(vlan % 64);
    else
        net->vlans[vlan / 64] &= ~BIT(vlan % 64);
    return true;
}

static bool acknowledge_announce(struct virtio_net *net, const struct command *c)
{
    if (!(net->device.accepted & F_GUEST_ANNOUNCE) || c->code != ANNOUNCE_ACK || c->bytes)
        return false;
    net->announce = false;
    return true;
}

static bool set_pairs(struct virtio_net *net, const struct command *c)
{
    uint8_t bytes[2];
    unsigned pairs;

    if (!(net->device.accepted & F_MQ) || c->code != MQ_PAIRS_SET || c->bytes != 2 || !read_data(c, 0, bytes, 2))
        return false;
    pairs = le16_get(bytes);
    if (!pairs || pairs > net->pairs)
        return false;
    net->active_pairs = pairs;
    return true;
}

static bool carry_out(struct virtio_net *net, const struct command *c)
{
    switch (c->kind) {
    case CLASS_RX: return set_mode(net, c);
    case CLASS_MAC: return set_addresses(net, c);
    case CLASS_VLAN: return set_vlan(net, c);
    case CLASS_ANNOUNCE: return acknowledge_announce(net, c);
    case CLASS_MQ: return set_pairs(net, c);
    default: return false;
    }
}

static void serve(struct virtio_net *net, unsigned queue, const struct virtq_chain *chain)
{
    struct virtio_device *dev = &net->device;
    struct command c = { .vq = &net->queue[queue], .chain = chain };
    uint8_t head[2], ack;

    if (chain->readable_bytes < sizeof(head) || !chain->writable_bytes ||
        virtq_read(c.vq, chain, 0, head, sizeof(head)) != sizeof(head)) {
        virtio_break(dev, "a command without its head, or without a place for the answer");
        return;
    }
    c.kind = head[0];
    c.code = head[1];
    c.bytes = chain->readable_bytes - sizeof(head);
    ack = carry_out(net, &c) ? ACK_OK : ACK_ERROR;
    if (virtq_write(c.vq, chain, 0, &ack, 1) != 1)
        virtio_break(dev, "the answer to a command is not in RAM any more");
}

bool net_control(struct virtio_net *net, unsigned queue)
{
    for (unsigned i = 0; i < COMMANDS_PER_TURN; i++) {
        if (virtio_pop(&net->device, queue, &net->chain) != VIRTQ_CHAIN)
            return false;
        serve(net, queue, &net->chain);
        virtio_push(&net->device, queue, &net->chain, 1);
    }
    return true;
}
