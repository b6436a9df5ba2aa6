/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the virtio network card share: a card on the bus of a fake guest, a driver that runs it, and the
 * side of the switch. Each test program includes it once.
 */
#ifndef TESTS_NET_CARD_FIXTURE_H
#define TESTS_NET_CARD_FIXTURE_H

#include "fake_guest.h"
#include "fake_net.h"
#include "vdev/virtio_net.h"

#define SLOT 2
#define RING 0x100000ull
#define BUFFERS 0x200000ull /* of the receive queues */
#define COMMAND 0x1b0000ull
#define MAC 0x025400aabbccull

#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_GUEST_TSO4 BIT(7)
#define F_GUEST_TSO6 BIT(8)
#define F_GUEST_ECN BIT(9)
#define F_HOST_TSO4 BIT(11)
#define F_HOST_TSO6 BIT(12)
#define F_HOST_ECN BIT(13)
#define F_MRG BIT(15)
#define F_CTRL_VQ BIT(17)
#define F_CTRL_RX BIT(18)
#define F_CTRL_VLAN BIT(19)
#define F_RX_EXTRA BIT(20)
#define F_ANNOUNCE BIT(21)
#define F_MQ BIT(22)
#define F_CTRL_MAC BIT(23)
#define ALL_FEATURES (~0ull & ~VIRTIO_F_EVENT_IDX)

struct header { uint8_t flags, gso_type; uint16_t header_bytes, gso_bytes, start, offset, buffers; };

struct bench {
    struct fake_guest *guest;
    struct virtio_net net;
    struct virtio_device *dev;
    struct fake_queue q[VIRTIO_NET_QUEUES_MAX];
    unsigned control; /* number of the control queue */
    struct frame *inbox[8], *outbox[16];
    struct frame *frames;
    struct frame_chunk *chunks;
    uint32_t numbers[48];
    struct fake_pool pool; /* of the other side */
    unsigned kicks;
};

static inline void kicked(void *context)
{
    ((struct bench *)context)->kicks++;
}

static inline enum status make(struct bench *b, unsigned pairs, bool mac_changes)
{
    struct virtio_owner owner = fake_owner(b->guest);
    const struct virtio_net_config config = {
        .mac = MAC, .mtu = 1500, .pairs = pairs, .mac_changes = mac_changes, .frames = b->frames, .chunks = b->chunks,
        .chunk_numbers = b->numbers, .frame_count = 16, .chunk_count = 48, .inbox = b->inbox, .outbox = b->outbox,
        .inbox_size = 8, .outbox_size = 16,
    };

    return virtio_net_init(&b->net, &owner, &b->guest->pci, SLOT, &config);
}

static inline void bring_up(struct bench *b, uint64_t features)
{
    unsigned queues;

    fake_negotiate(b->guest, b->dev, features);
    b->control = b->dev->accepted & F_MQ ? 2 * b->net.pairs : 2;
    queues = b->control + 1;
    for (unsigned i = 0; i < queues; i++) {
        memset(b->guest->ram + RING + i * 0x10000, 0, 0x10000);
        b->q[i] = fake_queue_at(b->guest, RING + i * 0x10000, 256);
        fake_setup_queue(b->guest, b->dev, i, &b->q[i]);
    }
    fake_driver_ok(b->guest, b->dev);
    fake_run(b->guest, b->dev, 0);
}

static inline struct bench *bench_pairs(uint64_t features, unsigned pairs, bool mac_changes)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->guest = fake_guest_new();
    b->dev = &b->net.device;
    b->frames = calloc(16, sizeof(*b->frames));
    b->chunks = aligned_alloc(64, 48 * sizeof(*b->chunks));
    fake_pool_make(&b->pool, 64, 128);
    assert_int_equal(make(b, pairs, mac_changes), OK);
    b->net.port.kick = kicked;
    b->net.port.kick_context = b;
    if (features)
        bring_up(b, features);
    return b;
}

static inline struct bench *bench_new(uint64_t features)
{
    return bench_pairs(features, 1, false);
}

static inline void bench_free(struct bench *b)
{
    bool wake;

    virtio_net_close(&b->net);
    frame_queue_purge(&b->net.port.inbox, &wake);
    assert_true(frame_pool_idle(&b->net.pool));
    assert_int_equal(virtio_in_flight(b->dev), 0);
    fake_pool_free(&b->pool);
    free(b->frames);
    free(b->chunks);
    free(b->guest);
    free(b);
}

static inline bool broken(struct bench *b)
{
    return fake_reg(b->guest, b->dev, REG_STATUS, 1) & VIRTIO_STATUS_NEEDS_RESET;
}

/* ---- The driver's transmit side, and what the card hands to the switch ---- */

/* Puts header and packet into the transmit ring, cut into buffers of at most `cut` bytes. */
static inline void offer_packet(struct bench *b, unsigned queue, const struct header *header, const uint8_t *bytes,
                         uint32_t count, uint32_t cut)
{
    struct gmem_segment s[128];
    unsigned segments = 0;
    uint64_t at = 0x500000 + (b->q[queue].avail_idx % 16) * 0x18000;

    memcpy(b->guest->ram + at, header, 12);
    if (count)
        memcpy(b->guest->ram + at + 12, bytes, count);
    for (uint32_t done = 0; done < count + 12; done += s[segments++].bytes)
        s[segments] = (struct gmem_segment){ GPA(at + done), MIN(cut, count + 12 - done) };
    fake_chain(&b->q[queue], s, segments, 0);
}

static inline struct frame *sent(struct bench *b)
{
    struct frame *frame;

    if (!frame_queue_first(&b->net.port.inbox))
        return NULL;
    assert_true(frame_queue_begin(&b->net.port.inbox));
    frame = frame_queue_take(&b->net.port.inbox);
    if (frame_queue_end(&b->net.port.inbox))
        b->net.port.ops->room(&b->net.port);
    return frame;
}

static uint8_t raw[FRAME_BYTES_MAX + 16], flat[FRAME_BYTES_MAX + 16];

/* ---- The switch's side, and the driver's receive side ---- */

static inline void offer_buffers(struct bench *b, unsigned queue, unsigned count, uint32_t bytes)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = BUFFERS + (queue / 2) * 0x80000 + (b->q[queue].avail_idx % 128) * 0x1000;

        memset(b->guest->ram + at, 0xcc, 0x1000);
        fake_chain(&b->q[queue], &(struct gmem_segment){ GPA(at), bytes }, 0, 1);
    }
    fake_run(b->guest, b->dev, queue);
}

/* The switch's side: gives the frame and lets the card work. */
static inline bool give(struct bench *b, struct frame *frame)
{
    bool taken = b->net.port.ops->give(&b->net.port, frame);

    b->net.port.ops->flush(&b->net.port);
    while (virtio_process(b->dev, 0))
        ;
    return taken;
}

/* Reads a packet from the used ring into `flat` (header first); returns its bytes without the header, or -1. */
static inline int received(struct bench *b, unsigned queue, struct header *header)
{
    uint32_t id, written, bytes = 0;
    unsigned buffers = 1;

    for (unsigned i = 0; i < buffers; i++) {
        struct virtq_desc desc;

        if (!fake_used(&b->q[queue], &id, &written)) {
            assert_int_equal(i, 0); /* a packet appears whole or not at all */
            return -1;
        }
        memcpy(&desc, b->guest->ram + b->q[queue].desc + 16ull * id, 16);
        assert_true(written <= desc.bytes);
        memcpy(flat + bytes, b->guest->ram + desc.address, written);
        bytes += written;
        if (!i) {
            memcpy(header, flat, 12);
            buffers = header->buffers;
            assert_true(buffers >= 1);
        }
    }
    memmove(flat, flat + 12, bytes - 12);
    return (int)bytes - 12;
}

static inline struct frame *inward(struct bench *b, uint32_t payload)
{
    struct fake_packet packet = { .payload = payload };
    uint32_t bytes = fake_packet_build(&packet, raw, false);

    eth_address_put(raw, MAC);
    return fake_frame(&b->pool, raw, bytes);
}

#endif
