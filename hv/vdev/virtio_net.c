/* SPDX-License-Identifier: MIT */
/*
 * The virtio network card (see virtio_net.h): what it is and offers, which queue is what, its port, its state. Packets
 * are in virtio_net_io.c, commands and filters in virtio_net_ctrl.c.
 */
#include <string.h>

#include "vdev/virtio_net_private.h"

/* struct virtio_net_config (5.1.4), up to where our features reach. */
struct net_config {
    uint8_t mac[ETH_ADDRESS_BYTES];
    uint16_t status, max_pairs, mtu;
    uint32_t speed;
    uint8_t duplex, unused[3];
};
_Static_assert(sizeof(struct net_config) == 20, "net_config has 17 bytes and the tail of its 4-byte alignment");
#define CONFIG_BYTES 17
#define STATUS_LINK_UP 1u
#define STATUS_ANNOUNCE 2u
#define SPEED_MBPS 10000u /* a word for the guest's tools (bonding wants one); nothing is slowed down to it */
#define DUPLEX_FULL 1u

#define FEATURES (F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_HOST_TSO4 | \
                  F_HOST_TSO6 | F_HOST_ECN | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | \
                  F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE | F_SPEED_DUPLEX)

/* A feature that needs one of others (5.1.3.1). */
static const struct { uint64_t feature, needs; } needs[] = {
    { F_GUEST_TSO4, F_GUEST_CSUM },   { F_GUEST_TSO6, F_GUEST_CSUM },  { F_GUEST_ECN, F_GUEST_TSO4 | F_GUEST_TSO6 },
    { F_HOST_TSO4, F_CSUM },          { F_HOST_TSO6, F_CSUM },         { F_HOST_ECN, F_HOST_TSO4 | F_HOST_TSO6 },
    { F_CTRL_RX, F_CTRL_VQ },         { F_CTRL_VLAN, F_CTRL_VQ },      { F_CTRL_RX_EXTRA, F_CTRL_VQ },
    { F_GUEST_ANNOUNCE, F_CTRL_VQ },  { F_MQ, F_CTRL_VQ },             { F_CTRL_MAC_ADDR, F_CTRL_VQ },
};

static bool features_ok(uint64_t accepted)
{
    for (unsigned i = 0; i < ARRAY_COUNT(needs); i++) {
        if (accepted & needs[i].feature && !(accepted & needs[i].needs))
            return false;
    }
    return true;
}

/* ---- Queues ---- */

/* Receive and transmit queues take turns; the control queue is behind those that this driver has (5.1.2). */
static bool process(struct virtio_device *dev, unsigned queue, uint64_t now_ns)
{
    struct virtio_net *net = net_of(dev);
    unsigned pairs = net_usable_pairs(net);

    (void)now_ns;
    __atomic_store_n(&net->port.offloads, net_offloads(dev->accepted), __ATOMIC_RELAXED);
    __atomic_store_n(&net->open, 1, __ATOMIC_RELEASE);
    if (queue < 2 * pairs)
        return queue & 1 ? net_transmit(net, queue) : net_receive(net);
    if (queue == 2 * pairs && dev->accepted & F_CTRL_VQ)
        return net_control(net, queue);
    return false;
}

/* ---- The port ---- */

static bool give(struct netport *port, struct frame *frame)
{
    struct virtio_net *net = CONTAINER_OF(port, struct virtio_net, port);

    if (!__atomic_load_n(&net->open, __ATOMIC_ACQUIRE) || !virtio_may_work(&net->device))
        return false;
    if (!frame_queue_put(&port->outbox, frame_get(frame))) {
        frame_put(frame);
        return false;
    }
    return true;
}

static void flush(struct netport *port)
{
    virtio_want(&CONTAINER_OF(port, struct virtio_net, port)->device, 0);
}

/* There is room in the inbox or in the pool: all transmit queues get a look. */
static void wake_senders(struct virtio_net *net)
{
    for (unsigned i = 0; i < net->pairs; i++)
        virtio_want(&net->device, 2 * i + 1);
}

static void room(struct netport *port)
{
    wake_senders(CONTAINER_OF(port, struct virtio_net, port));
}

static void pool_freed(void *context)
{
    wake_senders(context);
}

static const struct netport_ops port_ops = { .give = give, .flush = flush, .room = room };

static void purge(struct virtio_net *net)
{
    bool wake;

    (void)frame_queue_purge(&net->port.outbox, &wake); /* the switch does not wait for room */
}

void virtio_net_set_link(struct virtio_net *net, bool up)
{
    if (netport_is_up(&net->port) == up)
        return;
    __atomic_store_n(&net->port.link, up, __ATOMIC_RELAXED);
    if (!up)
        purge(net);
    virtio_config_changed(&net->device);
}

bool virtio_net_announce(struct virtio_net *net)
{
    if (!virtio_is_live(&net->device) || !(net->device.accepted & F_GUEST_ANNOUNCE))
        return false;
    net->announce = true;
    virtio_config_changed(&net->device);
    return true;
}

void virtio_net_close(struct virtio_net *net)
{
    __atomic_store_n(&net->open, 0, __ATOMIC_SEQ_CST);
    purge(net);
}

/* ---- Configuration and state ---- */

static void config_read(struct virtio_device *dev, unsigned offset, unsigned size, uint8_t *bytes)
{
    struct virtio_net *net = net_of(dev);
    struct net_config config = {
        .status = (uint16_t)((netport_is_up(&net->port) ? STATUS_LINK_UP : 0) | (net->announce ? STATUS_ANNOUNCE : 0)),
        .max_pairs = (uint16_t)net->pairs,
        .mtu = (uint16_t)net->port.mtu,
        .speed = SPEED_MBPS,
        .duplex = DUPLEX_FULL,
    };

    eth_address_put(config.mac, net->mac);
    memcpy(bytes, (const uint8_t *)&config + offset, size);
}

static void reset(struct virtio_device *dev)
{
    struct virtio_net *net = net_of(dev);

    __atomic_store_n(&net->open, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&net->port.offloads, 0, __ATOMIC_RELAXED);
    purge(net);
    net->mac = net->configured_mac;
    net->announce = false;
    net->active_pairs = 1;
    net_filter_reset(net);
}

static void save(const struct virtio_device *dev, struct stream_writer *w)
{
    const struct virtio_net *net = CONTAINER_OF(dev, const struct virtio_net, device);

    stream_put_u64(w, net->configured_mac);
    stream_put_u16(w, (uint16_t)net->port.mtu);
    stream_put_u64(w, net->mac);
    stream_put_u8(w, net->announce);
    stream_put_u8(w, (uint8_t)net->active_pairs);
    stream_put_u8(w, net->modes);
    stream_put_u8(w, (uint8_t)net->unicast_count);
    for (unsigned i = 0; i < net->unicast_count; i++)
        stream_put_u64(w, net->unicast[i]);
    stream_put_u8(w, (uint8_t)net->multicast_count);
    for (unsigned i = 0; i < net->multicast_count; i++)
        stream_put_u64(w, net->multicast[i]);
    for (unsigned i = 0; i < ARRAY_COUNT(net->vlans); i++)
        stream_put_u64(w, net->vlans[i]);
}

/* A filter's table; returns its length. */
static unsigned restore_table(const char *name, struct stream_reader *r, uint64_t *table, unsigned max)
{
    unsigned count = stream_get_u8(r);

    if (!r->error && count > max)
        stream_fail(r, ERR_RANGE, "%s: a filter of %u addresses, at most %u are kept", name, count, max);
    for (unsigned i = 0; !r->error && i < count; i++) {
        table[i] = stream_get_u64(r);
        if (!r->error && table[i] >> 48)
            stream_fail(r, ERR_RANGE, "%s: an address in a filter has more than 48 bits", name);
    }
    return r->error ? 0 : count;
}

static void restore(struct virtio_device *dev, struct stream_reader *r)
{
    struct virtio_net *net = net_of(dev);
    const char *name = dev->owner.name;
    uint64_t configured = stream_get_u64(r), mac;
    unsigned mtu = stream_get_u16(r), announce;

    mac = stream_get_u64(r);
    announce = stream_get_u8(r);
    net->active_pairs = stream_get_u8(r);
    net->modes = stream_get_u8(r);
    if (!r->error && configured != net->configured_mac)
        stream_fail(r, ERR_RANGE, "%s: the card had the address %012llx, this one has %012llx", name,
                    (unsigned long long)configured, (unsigned long long)net->configured_mac);
    if (!r->error && mtu != net->port.mtu)
        stream_fail(r, ERR_RANGE, "%s: the card had an MTU of %u, this one has %u", name, mtu, net->port.mtu);
    if (!r->error && (!eth_is_station(mac) || mac >> 48 || (mac != configured && !(dev->accepted & F_CTRL_MAC_ADDR))))
        stream_fail(r, ERR_RANGE, "%s: the guest has taken the address %012llx, which it cannot", name,
                    (unsigned long long)mac);
    if (!r->error && (announce > 1 || (announce && !(dev->accepted & F_GUEST_ANNOUNCE))))
        stream_fail(r, ERR_RANGE, "%s: an announcement that the guest does not know", name);
    if (!r->error && (!net->active_pairs || net->active_pairs > net_usable_pairs(net)))
        stream_fail(r, ERR_RANGE, "%s: %u queue pairs in use of %u", name, net->active_pairs, net_usable_pairs(net));
    net->unicast_count = restore_table(name, r, net->unicast, VIRTIO_NET_UNICAST_MAX);
    net->multicast_count = restore_table(name, r, net->multicast, VIRTIO_NET_MULTICAST_MAX);
    for (unsigned i = 0; i < ARRAY_COUNT(net->vlans); i++)
        net->vlans[i] = stream_get_u64(r);
    if (r->error)
        return; /* the device is reset for it, and that with it */
    net->mac = mac;
    net->announce = announce;
}

/* ---- Building ---- */

static const struct virtio_model net_model = {
    .kind = "virtio-net",
    .type = VIRTIO_TYPE_NET,
    .class_code = 0x020000, /* Ethernet controller */
    .queue_size = VIRTIO_NET_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .process = process,
    .features_ok = features_ok,
    .config_read = config_read,
    .reset = reset,
    .save = save,
    .restore = restore,
};

static bool is_power_of_two(uint32_t value)
{
    return value && !(value & (value - 1));
}

enum status virtio_net_init(struct virtio_net *net, const struct virtio_owner *owner, struct vpci *pci, unsigned slot,
                            const struct virtio_net_config *config)
{
    uint64_t features = FEATURES | (config->pairs > 1 ? F_MQ : 0) | (config->mac_changes ? F_CTRL_MAC_ADDR : 0);

    if (!eth_is_station(config->mac) || config->mac >> 48 || config->mtu < NETPORT_MTU_MIN ||
        config->mtu > NETPORT_MTU_MAX || !config->pairs || config->pairs > VIRTIO_NET_PAIRS_MAX ||
        !is_power_of_two(config->inbox_size) || !is_power_of_two(config->outbox_size) || !config->frame_count ||
        config->chunk_count < VIRTIO_NET_CHUNKS_MIN)
        return ERR_INVALID;
    memset(net, 0, sizeof(*net));
    net->pairs = config->pairs;
    net->mac_changes = config->mac_changes;
    net->mac = net->configured_mac = config->mac;
    net->active_pairs = 1;
    net_filter_reset(net);
    net->port = (struct netport){ .ops = &port_ops, .name = owner->name, .mac = config->mac, .mtu = config->mtu,
                                  .link = 1 };
    frame_queue_init(&net->port.inbox, config->inbox, config->inbox_size);
    frame_queue_init(&net->port.outbox, config->outbox, config->outbox_size);
    frame_pool_init(&net->pool, config->frames, config->frame_count, config->chunks, config->chunk_numbers,
                    config->chunk_count, pool_freed, net);
    net->model = net_model;
    net->model.queue_count = 2 * config->pairs + 1;
    return virtio_init(&net->device, &net->model, owner, net->queue, features, pci, slot);
}
