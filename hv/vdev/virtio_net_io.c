/* SPDX-License-Identifier: MIT */
/*
 * Packets of the virtio network card (see virtio_net.h), out of the guest and into it. Both run inside of
 * virtio_process, so that the driver sees nothing of a turn before its end: a packet in several receive buffers
 * appears whole or not at all, and one for which they do not suffice is taken back (virtio_rollback).
 */
#include <string.h>

#include "net/offload.h"
#include "vdev/virtio_net_private.h"

/* Fairness: what one turn does before it lets others have the device lock. */
#define CHAINS_PER_TURN 64
#define BYTES_PER_TURN (256 * KIB)
#define SEGMENT_COST 256 /* what finding the place of a segment costs, in bytes copied */

static uint64_t cost(const struct virtq_chain *chain, uint64_t bytes)
{
    return bytes + (uint64_t)(chain->readable_count + chain->writable_count) * SEGMENT_COST;
}

uint32_t net_offloads(uint64_t accepted)
{
    return (uint32_t)((accepted & F_GUEST_CSUM ? NETPORT_CHECKSUM : 0) | (accepted & F_GUEST_TSO4 ? NETPORT_TSO4 : 0) |
                      (accepted & F_GUEST_TSO6 ? NETPORT_TSO6 : 0) | (accepted & F_GUEST_ECN ? NETPORT_TSO_ECN : 0));
}

/* ---- Out of the guest ---- */

/* The rule that the header of a packet of `bytes` breaks, or NULL (5.1.6.2.1). */
static const char *header_breaks(uint64_t accepted, const struct net_header *header, uint32_t bytes)
{
    uint8_t type = header->gso_type & (uint8_t)~NET_HEADER_GSO_ECN;
    uint64_t feature = type == NET_HEADER_GSO_TCP4 ? F_HOST_TSO4 : type == NET_HEADER_GSO_TCP6 ? F_HOST_TSO6 : 0;

    if (header->flags & NET_HEADER_NEEDS_CSUM) {
        if (!(accepted & F_CSUM))
            return "a checksum was asked for that was not negotiated";
        if ((uint32_t)header->checksum_start + header->checksum_offset + 2 > bytes)
            return "a checksum beyond the end of its packet";
    }
    if (header->gso_type == NET_HEADER_GSO_NONE)
        return NULL;
    if (!(accepted & feature) || (header->gso_type & NET_HEADER_GSO_ECN && !(accepted & F_HOST_ECN)))
        return "a segmentation was asked for that was not negotiated";
    if (!(header->flags & NET_HEADER_NEEDS_CSUM))
        return "a segmentation without a checksum";
    if (!header->gso_bytes)
        return "a segmentation without a size";
    if (header->header_bytes > bytes)
        return "headers longer than their packet";
    return NULL;
}

static void copy_facts(struct frame *frame, const struct net_header *header)
{
    if (header->flags & NET_HEADER_NEEDS_CSUM) {
        frame->checksum = FRAME_CHECKSUM_MISSING;
        frame->checksum_start = header->checksum_start;
        frame->checksum_offset = header->checksum_offset;
    }
    if (header->gso_type != NET_HEADER_GSO_NONE) {
        frame->gso = (header->gso_type & ~NET_HEADER_GSO_ECN) == NET_HEADER_GSO_TCP4 ? FRAME_GSO_TCP4 : FRAME_GSO_TCP6;
        frame->gso_bytes = header->gso_bytes;
    }
}

/* Takes the tag out of the bytes of a frame that nobody else has. False: its checksum would begin within the tag. */
static bool take_tag(struct frame *frame)
{
    uint8_t *at = frame->segment[0].at;

    if (frame->segment[0].bytes < ETH_HEADER_BYTES + ETH_TAG_BYTES || be16_get(at + ETH_TYPE_OFFSET) != ETH_TYPE_VLAN)
        return true;
    if (frame->checksum == FRAME_CHECKSUM_MISSING) {
        if (frame->checksum_start < ETH_HEADER_BYTES + ETH_TAG_BYTES)
            return false;
        frame->checksum_start = (uint16_t)(frame->checksum_start - ETH_TAG_BYTES);
    }
    frame->tagged = true;
    frame->tci = be16_get(at + ETH_TYPE_OFFSET + 2);
    memmove(at + ETH_TAG_BYTES, at, ETH_TYPE_OFFSET);
    frame->segment[0].at += ETH_TAG_BYTES;
    frame->segment[0].bytes -= ETH_TAG_BYTES;
    frame->bytes -= ETH_TAG_BYTES;
    return true;
}

/* The packet of a chain as a frame: NULL, and the card is broken or the packet counted as malformed. */
static struct frame *take_packet(struct virtio_net *net, unsigned queue, const struct virtq_chain *chain)
{
    struct virtio_device *dev = &net->device;
    uint32_t bytes = (uint32_t)(chain->readable_bytes - sizeof(struct net_header)), done = 0;
    struct net_header header;
    struct frame *frame;
    const char *reason;

    if (virtq_read(&net->queue[queue], chain, 0, &header, sizeof(header)) != sizeof(header)) {
        virtio_break(dev, "a packet is not in RAM any more");
        return NULL;
    }
    reason = header_breaks(dev->accepted, &header, bytes);
    if (reason) {
        virtio_break(dev, reason);
        return NULL;
    }
    frame = frame_pool_get(&net->pool, bytes);
    for (unsigned i = 0; frame && i < frame->segment_count; i++) {
        const struct frame_segment *s = &frame->segment[i];

        if (virtq_read(&net->queue[queue], chain, sizeof(header) + done, s->at, s->bytes) != s->bytes) {
            virtio_break(dev, "a packet is not in RAM any more");
            frame_put(frame);
            return NULL;
        }
        done += s->bytes;
    }
    if (frame) {
        copy_facts(frame, &header);
        if (bytes >= ETH_HEADER_BYTES && take_tag(frame) && !offload_check(frame))
            return frame;
        frame_put(frame);
    }
    net->counters.send_malformed++;
    return NULL;
}

/* False: the chain is no packet, and the card is broken. */
static bool is_packet(struct virtio_device *dev, const struct virtq_chain *chain)
{
    if (chain->readable_bytes < sizeof(struct net_header))
        virtio_break(dev, "a packet without its header");
    else if (chain->readable_bytes > sizeof(struct net_header) + FRAME_BYTES_MAX)
        virtio_break(dev, "a packet longer than any");
    else if (chain->writable_bytes)
        virtio_break(dev, "a packet to be sent in a buffer to be written");
    else
        return true;
    return false;
}

bool net_transmit(struct virtio_net *net, unsigned queue)
{
    struct virtio_device *dev = &net->device;
    struct virtq_chain *chain = &net->chain;
    uint64_t bytes = 0;
    bool more = true, sent = false;

    for (unsigned i = 0; more && i < CHAINS_PER_TURN && bytes < BYTES_PER_TURN; i++) {
        struct virtio_mark mark = virtio_mark(dev, queue);
        struct frame *frame;

        if (!frame_queue_has_room(&net->port.inbox)) {
            net->counters.send_waits++;
            more = false;
            break;
        }
        if (virtio_pop(dev, queue, chain) != VIRTQ_CHAIN) {
            more = false;
            break;
        }
        bytes += cost(chain, chain->readable_bytes);
        if (!is_packet(dev, chain)) {
            virtio_push(dev, queue, chain, 0); /* gives the chain back; a broken device writes nothing */
            more = false;
            break;
        }
        if (!frame_pool_has(&net->pool, (uint32_t)(chain->readable_bytes - sizeof(struct net_header)))) {
            virtio_rollback(dev, queue, &mark);
            net->counters.send_waits++;
            more = false;
            break;
        }
        frame = take_packet(net, queue, chain);
        virtio_push(dev, queue, chain, 0);
        if (!frame)
            continue;
        net->counters.sent_frames++;
        net->counters.sent_bytes += frame->bytes;
        if (frame_queue_put(&net->port.inbox, frame))
            sent = true;
        else
            frame_put(frame); /* cannot be: there was room, and only we fill it */
    }
    if (sent)
        netport_kick(&net->port);
    return more;
}

/* ---- Into the guest ---- */

enum delivery { DELIVERED, LOST, LATER };

/* The frame's bytes as they go to the guest, its tag among them; returns the count of parts. `head` has 16 bytes. */
static unsigned parts_of(struct virtio_net *net, const struct frame *frame, uint8_t *head)
{
    unsigned count = 0;
    uint32_t skip = 0;

    if (frame->tagged) {
        skip = (uint32_t)frame_read(frame, 0, head, ETH_TYPE_OFFSET);
        be16_put(head + ETH_TYPE_OFFSET, ETH_TYPE_VLAN);
        be16_put(head + ETH_TYPE_OFFSET + 2, frame->tci);
        net->parts[count++] = (struct frame_segment){ head, ETH_TYPE_OFFSET + ETH_TAG_BYTES };
    }
    for (unsigned i = 0; i < frame->segment_count; i++) {
        struct frame_segment s = frame->segment[i];
        uint32_t less = MIN(skip, s.bytes);

        skip -= less;
        if (s.bytes > less)
            net->parts[count++] = (struct frame_segment){ s.at + less, s.bytes - less };
    }
    return count;
}

static struct net_header header_of(const struct virtio_net *net, const struct frame *frame, unsigned buffer_count)
{
    struct net_header header = { .buffer_count = (uint16_t)buffer_count };
    uint16_t tag = frame->tagged ? ETH_TAG_BYTES : 0;

    if (frame->checksum == FRAME_CHECKSUM_MISSING) {
        header.flags = NET_HEADER_NEEDS_CSUM;
        header.checksum_start = (uint16_t)(frame->checksum_start + tag);
        header.checksum_offset = frame->checksum_offset;
    } else if (frame->checksum == FRAME_CHECKSUM_GOOD && net->device.accepted & F_GUEST_CSUM) {
        header.flags = NET_HEADER_DATA_VALID;
    }
    if (frame->gso != FRAME_GSO_NONE) {
        header.gso_type = (uint8_t)((frame->gso == FRAME_GSO_TCP4 ? NET_HEADER_GSO_TCP4 : NET_HEADER_GSO_TCP6) |
                                    (frame->ecn ? NET_HEADER_GSO_ECN : 0));
        header.gso_bytes = frame->gso_bytes;
        header.header_bytes = (uint16_t)(frame->header_bytes + tag);
    }
    return header;
}

/* What is left to be copied of the parts. */
struct source { const struct frame_segment *part; uint32_t offset; uint32_t left; };

/* Fills a chain from `offset` on; returns where it ended. */
static uint32_t fill(const struct virtqueue *vq, const struct virtq_chain *chain, uint32_t offset,
                     struct source *source)
{
    while (source->left && offset < chain->writable_bytes) {
        uint64_t room = chain->writable_bytes - offset;
        uint32_t count = (uint32_t)MIN(room, (uint64_t)(source->part->bytes - source->offset));

        if (virtq_write(vq, chain, offset, source->part->at + source->offset, count) != count)
            break;
        offset += count;
        source->left -= count;
        source->offset += count;
        if (source->offset == source->part->bytes) {
            source->part++;
            source->offset = 0;
        }
    }
    return offset;
}

/* Takes a receive buffer. DELIVERED: it is in *chain. */
static enum delivery take_buffer(struct virtio_net *net, unsigned queue, struct virtq_chain *chain)
{
    struct virtio_device *dev = &net->device;

    if (virtio_pop(dev, queue, chain) != VIRTQ_CHAIN)
        return dev->shared.later ? LATER : LOST;
    if (chain->writable_bytes >= sizeof(struct net_header) && !chain->readable_bytes)
        return DELIVERED;
    virtio_break(dev, "a receive buffer that cannot hold a packet's header");
    virtio_push(dev, queue, chain, 0);
    return LOST;
}

/* Copies the frame into as many buffers as it takes; *bytes grows by what that cost. */
static enum delivery copy_frame(struct virtio_net *net, unsigned queue, const struct frame *frame, uint64_t *bytes)
{
    struct virtio_device *dev = &net->device;
    const struct virtqueue *vq = &net->queue[queue];
    struct source source = { .part = net->parts };
    struct virtio_mark mark = virtio_mark(dev, queue);
    uint32_t used = sizeof(struct net_header);
    struct virtq_chain *chain = &net->first;
    struct net_header header;
    unsigned buffers = 0;
    uint8_t head[ETH_TYPE_OFFSET + ETH_TAG_BYTES];

    (void)parts_of(net, frame, head);
    source.left = frame->bytes + (frame->tagged ? ETH_TAG_BYTES : 0);
    dev->shared.later = false;
    do {
        enum delivery taken = take_buffer(net, queue, chain);

        if (taken != DELIVERED) {
            if (virtio_is_live(dev))
                virtio_rollback(dev, queue, &mark);
            net->counters.receive_none += taken == LOST;
            return taken;
        }
        *bytes += cost(chain, 0);
        if (!(dev->accepted & F_MRG_RXBUF) && chain->writable_bytes - used < source.left) {
            virtio_rollback(dev, queue, &mark);
            net->counters.receive_small++;
            return LOST;
        }
        used = fill(vq, chain, used, &source);
        virtio_push(dev, queue, chain, used);
        buffers++;
        if (source.left && used < chain->writable_bytes) {
            virtio_break(dev, "a receive buffer is not in RAM any more");
            return LOST;
        }
        chain = &net->chain;
        used = 0;
    } while (source.left);
    header = header_of(net, frame, buffers);
    if (virtq_write(vq, &net->first, 0, &header, sizeof(header)) != sizeof(header)) {
        virtio_break(dev, "a receive buffer is not in RAM any more");
        return LOST;
    }
    *bytes += frame->bytes;
    net->counters.received_frames++;
    net->counters.received_bytes += frame->bytes;
    return DELIVERED;
}

static enum delivery deliver(struct virtio_net *net, const struct frame *frame, uint64_t *bytes)
{
    unsigned pair = net->active_pairs > 1 ? offload_flow(frame) % net->active_pairs : 0;

    if (!net_filter_passes(net, frame)) {
        net->counters.receive_filtered++;
        return LOST;
    }
    if (!netport_takes(net_offloads(net->device.accepted), frame)) {
        net->counters.receive_changed++;
        return LOST;
    }
    return copy_frame(net, 2 * pair, frame, bytes);
}

bool net_receive(struct virtio_net *net)
{
    struct frame_queue *q = &net->port.outbox;
    struct frame *frame;
    uint64_t bytes = 0;
    bool more = false;

    if (!frame_queue_begin(q))
        return false;
    for (unsigned i = 0; virtio_is_live(&net->device) && (frame = frame_queue_first(q)); i++) {
        if (i == CHAINS_PER_TURN || bytes >= BYTES_PER_TURN) {
            more = true;
            break;
        }
        if (deliver(net, frame, &bytes) == LATER)
            break; /* the turn that was asked for will find it here */
        frame_put(frame_queue_take(q));
    }
    (void)frame_queue_end(q); /* the switch does not wait for room */
    return more;
}
