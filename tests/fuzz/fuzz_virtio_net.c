/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the virtio network card, its rings, packet headers and commands, together with the switch behind it: what the
 * guest sends goes through the real switch to a port that can do nothing by itself, so that checksums and cutting in
 * software meet every packet that the card lets through; what the other port sends comes back into the guest's buffers.
 *
 * Input: flags (bit 0: event indices, 1: indirect tables, 2: RAM changes under reads, 3: two queue pairs, 4: the guest
 * may take any address, 5: no merged buffers, 6: no offloads for the guest), log2 of the rings' size (3 bits), u16
 * bytes of RAM image at address 0, the image, commands. Queue i has descriptors at 0x2000 * i, avail at + 0x800, used
 * at + 0x1000; RAM is 128 KiB with a hole at 0xc000.
 *
 * What must hold: no access outside of RAM or of a frame (the sanitizer watches), no endless turn, nothing in flight
 * between turns, nothing at the other port that asks for more than it can, all memory back at the end.
 */
#include "net/offload.h"
#include "net/vswitch.h"
#include "vdev/virtio_net.h"

#define RAM_BYTES 0x20000u
#define HOLE 0xc000u
#define HOLE_BYTES 0x1000u
#define QUEUE_BYTES 0x2000u
#define AVAIL 0x800u
#define USED 0x1000u
#define MMIO_BASE 0xe0000000ull
#define PCI_SLOT 1
#define MAC_GUEST 0x020000000001ull
#define MAC_PEER 0x020000000002ull
#define FRAMES 64
#define CHUNKS 64
#define F_MRG BIT(15)
#define F_MQ BIT(22)
#define F_GUEST_OFFLOADS (BIT(1) | BIT(7) | BIT(8) | BIT(9))

#include "fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vbus ports, mmio;
static struct vpci pci;
static struct virtio_net net;
static struct vswitch sw;
static struct vswitch_port guest_port, peer_port;
static struct netport peer;
static struct frame_pool pool;
static uint64_t now_ns;

static void no_message(void *context, uint64_t address, uint32_t data)
{
    (void)context, (void)data;
    require(address >> 20 == 0xfee);
}

static void put(unsigned offset, unsigned bytes, uint32_t value)
{
    (void)vbus_write(&mmio, MMIO_BASE + offset, bytes, value, 0);
}

static void bring_up(uint64_t features, unsigned ring_size)
{
    vpci_config_write(&pci, PCI_SLOT, 0, PCI_BAR0, 4, (uint32_t)MMIO_BASE);
    vpci_config_write(&pci, PCI_SLOT, 0, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put(0x14, 1, 0);
    put(0x14, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        put(0x08, 4, i);
        put(0x0c, 4, (uint32_t)(features >> 32 * i));
    }
    put(0x14, 1, 0xb);
    for (unsigned q = 0; q < net.model.queue_count; q++) {
        const uint32_t area[] = { q * QUEUE_BYTES, q * QUEUE_BYTES + AVAIL, q * QUEUE_BYTES + USED };

        put(0x16, 2, q);
        put(0x18, 2, ring_size);
        for (unsigned i = 0; i < 3; i++) {
            put(0x20 + 8 * i, 4, area[i]);
            put(0x24 + 8 * i, 4, 0);
        }
        put(0x1c, 2, 1);
    }
    put(0x14, 1, 0xf);
}

static void process(void)
{
    for (unsigned i = 0; i < 64 && virtio_process(&net.device, 0); i++)
        ;
    require(virtio_in_flight(&net.device) == 0);
}

/* ---- The other port: it can do nothing by itself, and checks that it need not ---- */

static bool peer_give(struct netport *port, struct frame *frame)
{
    uint8_t header[ETH_HEADER_BYTES];
    uint32_t bytes = 0;

    require(netport_takes(port->offloads, frame));
    require(frame_read(frame, 0, header, sizeof(header)) == sizeof(header));
    require(frame->bytes - ETH_HEADER_BYTES <= port->mtu && frame->segment_count <= FRAME_SEGMENTS_MAX);
    for (unsigned i = 0; i < frame->segment_count; i++)
        bytes += frame->segment[i].bytes;
    require(bytes == frame->bytes);
    (void)offload_sum(frame, 0, frame->bytes);
    return true;
}

static const struct netport_ops peer_ops = { .give = peer_give };

static void peer_send(unsigned shape)
{
    uint32_t bytes = next16();
    struct frame *frame = frame_pool_get(&pool, MAX(bytes, ETH_HEADER_BYTES));
    uint8_t head[64];

    if (!frame)
        return;
    for (unsigned i = 0; i < frame->segment_count; i++)
        memset(frame->segment[i].at, (int)i, frame->segment[i].bytes);
    for (unsigned i = 0; i < sizeof(head); i++)
        head[i] = next8();
    eth_address_put(head, head[0] & 1 ? ETH_BROADCAST : MAC_GUEST);
    eth_address_put(head + ETH_ADDRESS_BYTES, MAC_PEER);
    frame_write(frame, 0, head, sizeof(head));
    frame->tagged = shape & 1;
    frame->tci = shape & 1 ? next16() & 0xe00f : 0;
    frame->checksum = shape & 2 ? FRAME_CHECKSUM_MISSING : FRAME_CHECKSUM_GOOD;
    frame->checksum_start = next8();
    frame->checksum_offset = next8();
    if (shape & 4) {
        frame->gso = shape & 8 ? FRAME_GSO_TCP6 : FRAME_GSO_TCP4;
        frame->gso_bytes = next16();
    }
    if (!offload_check(frame)) {
        vswitch_input(&sw, &peer_port, frame, now_ns);
        vswitch_flush(&sw);
    }
    frame_put(frame);
}

/* ---- State ---- */

static uint8_t stream[4096], payload[2048];
static size_t stream_bytes, payload_bytes;

static enum status collect(void *context, const void *bytes, size_t count)
{
    (void)context;
    require(stream_bytes + count <= sizeof(stream));
    memcpy(stream + stream_bytes, bytes, count);
    stream_bytes += count;
    return OK;
}

static void put_payload(struct stream_writer *w, void *arg)
{
    (void)arg;
    stream_put_bytes(w, payload, payload_bytes);
}

/* Saves the card, changes some bytes of the payload, seals it again and restores it. */
static void save_and_restore(unsigned changes)
{
    struct stream_writer w;
    struct stream_reader r;

    stream_bytes = 0;
    stream_writer_init(&w, collect, NULL);
    virtio_save(&net.device, &w);
    require(stream_finish(&w) == OK);
    require(stream_reader_init(&r, stream, stream_bytes) == OK && stream_next(&r));
    payload_bytes = stream_left(&r);
    require(payload_bytes <= sizeof(payload));
    stream_get_bytes(&r, payload, payload_bytes);
    for (unsigned i = 0; i < changes; i++) {
        unsigned at = next16();

        payload[at % payload_bytes] ^= next8();
    }
    stream_bytes = 0;
    stream_writer_init(&w, collect, NULL);
    stream_section(&w, VIRTIO_STREAM_TAG, PCI_SLOT, VIRTIO_STREAM_VERSION, STREAM_MANDATORY, put_payload, NULL);
    require(stream_finish(&w) == OK);
    require(stream_reader_init(&r, stream, stream_bytes) == OK && stream_next(&r));
    virtio_restore(&net.device, &r);
    require(r.error == OK || (changes && net.device.status == 0)); /* what it has written it reads */
    require(net.active_pairs >= 1 && net.active_pairs <= net.pairs);
    virtio_resume(&net.device);
}

/* ---- Commands ---- */

static void command(uint8_t code, uint64_t features, unsigned ring_size)
{
    unsigned queue = code >> 4 & 7, bytes = 1u << (code >> 4 & 3), offset;
    uint64_t value;

    switch (code & 15) {
    case 0:
        virtio_notify(&net.device, 4 * queue);
        process();
        break;
    case 1: /* the driver writes to its memory */
        offset = next16() * 2u;
        for (unsigned i = next8(); i; i--)
            ram[offset++ % RAM_BYTES] = next8();
        break;
    case 2: { /* the driver offers a head */
        unsigned base = queue % net.model.queue_count * QUEUE_BYTES + AVAIL;
        uint16_t idx;

        memcpy(&idx, ram + base + 2, 2);
        ram[base + 4 + 2 * (idx & (ring_size - 1))] = next8();
        idx++;
        memcpy(ram + base + 2, &idx, 2);
        break;
    }
    case 3: peer_send(code >> 4); break;
    case 4: bring_up(features, ring_size); break;
    case 5: (void)vbus_write(&mmio, MMIO_BASE + (next16() & 0x3fff), bytes, next32(), 0); break;
    case 6: (void)vbus_read(&mmio, MMIO_BASE + (next16() & 0x3fff), bytes, &value, 0); break;
    case 7: vpci_config_write(&pci, PCI_SLOT, 0, next8(), MIN(bytes, 4), next32()); break;
    case 8:
        while (vswitch_run(&sw, now_ns))
            ;
        break;
    case 9: process(); break;
    case 10: virtio_quiesce(&net.device); break;
    case 11: virtio_resume(&net.device); break;
    case 12: virtio_net_set_link(&net, code & 16); break;
    case 13: save_and_restore(code >> 4); break;
    case 14: (void)virtio_net_announce(&net); break;
    default: vswitch_tick(&sw, now_ns += 60000000ull * (code >> 4)); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct frame frames[2][FRAMES];
    static struct frame_chunk chunks[2][CHUNKS];
    static uint32_t numbers[2][CHUNKS], buckets[16];
    static struct frame *inbox[16], *outbox[16];
    static struct mac_entry entries[64];
    const struct vpci_wiring wiring = { .ports = &ports, .mmio = &mmio, .mmio_base = MMIO_BASE,
                                        .mmio_end = MMIO_BASE + 0x100000, .msi = { .send = no_message } };
    const struct virtio_owner owner = { .name = "fuzz", .memory = &memory };
    struct vswitch_port_config plain = { .trunk = true, .any_source = true, .quota = 16 };
    struct virtio_net_config config = {
        .mac = MAC_GUEST, .mtu = 1500, .frames = frames[0], .chunks = chunks[0], .chunk_numbers = numbers[0],
        .frame_count = FRAMES, .chunk_count = CHUNKS, .inbox = inbox, .outbox = outbox, .inbox_size = 16,
        .outbox_size = 16,
    };
    uint64_t features = ~0ull & ~(VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
    unsigned ring_size, image_bytes;
    uint8_t flags;
    bool wake;

    if (!ram)
        ram = malloc(RAM_BYTES);
    require(ram != NULL);
    if (size < 4)
        return 0;
    input = data;
    left = size;
    tail = 0;
    now_ns = 1;
    flags = next8();
    ring_size = 1u << (next8() & 7);
    image_bytes = next16();
    features |= (flags & 1 ? VIRTIO_F_EVENT_IDX : 0) | (flags & 2 ? VIRTIO_F_INDIRECT_DESC : 0);
    features &= ~((flags & 32 ? F_MRG : 0) | (flags & 64 ? F_GUEST_OFFLOADS : 0));
    config.pairs = flags & 8 ? 2 : 1;
    config.mac_changes = plain.any_source = flags & 16;
    plain.quota = flags & 16 ? 16 : 0;
    mutate = false;
    memset(ram, 0, RAM_BYTES);
    memset(&ports, 0, sizeof(ports));
    memset(&mmio, 0, sizeof(mmio));
    frame_pool_init(&pool, frames[1], FRAMES, chunks[1], numbers[1], CHUNKS, NULL, NULL);
    vswitch_init(&sw, entries, ARRAY_COUNT(entries), buckets, ARRAY_COUNT(buckets), 1, &pool);
    peer = (struct netport){ .ops = &peer_ops, .name = "peer", .mac = MAC_PEER, .mtu = 1500, .link = 1 };
    require(vpci_init(&pci, &wiring) == OK);
    require(virtio_net_init(&net, &owner, &pci, PCI_SLOT, &config) == OK);
    require(vswitch_attach(&sw, &guest_port, &net.port, &plain, 0) == OK);
    plain = (struct vswitch_port_config){ .trunk = true };
    require(vswitch_attach(&sw, &peer_port, &peer, &plain, 0) == OK);
    for (unsigned i = 0; i < image_bytes && left; i++)
        ram[i] = next8();
    /* Only what is offered can be accepted. */
    features &= net.device.offered;
    bring_up(features, ring_size);

    while (left) {
        uint8_t code = next8();

        mutate = flags & 4 && left;
        command(code, features, ring_size);
        mutate = false;
        require(virtio_in_flight(&net.device) == 0);
    }
    process();
    vswitch_detach(&sw, &guest_port);
    virtio_reset(&net.device);
    virtio_net_close(&net);
    (void)frame_queue_purge(&net.port.inbox, &wake);
    require(frame_pool_idle(&net.pool) && frame_pool_idle(&pool));
    require(net.pool.free_chunk_count == CHUNKS && pool.free_chunk_count == CHUNKS);
    require(net.device.status == 0);
    return 0;
}
