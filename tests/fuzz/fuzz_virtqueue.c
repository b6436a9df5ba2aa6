/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the virtqueue walker through a whole virtio disk: rings, descriptors and requests are the input's bytes, the
 * driver's register accesses are commands in it, RAM may change under the device after each of its reads, and the
 * device's state may be saved, changed and restored.
 *
 * Input: flags (bit 0: event indices, 1: indirect tables, 2: a backend that answers late, 3: RAM changes under reads,
 * 4: no flush, discard and write zeroes, 5: the rings are set up by commands), log2 of the ring's size (3 bits), u16
 * bytes of RAM image at address 0, the image, commands. Descriptors are at 0, avail at 0x800, used at 0x1000; RAM is 64
 * KiB with a hole at 0x8000.
 *
 * What must hold: no access outside of RAM (the sanitizer watches), no endless turn, slots and chains in flight agree,
 * and after all answers have come a reset brings the device back to status 0.
 */
#include "vdev/ramdisk.h"
#include "vdev/virtio_blk.h"

#define RAM_BYTES 0x10000u
#define HOLE 0x8000u
#define HOLE_BYTES 0x1000u
#define AVAIL 0x800u
#define USED 0x1000u
#define DISK_BYTES 0x8000u
#define MMIO_BASE 0xe0000000ull
#define SLOTS 3
#define PCI_SLOT 1

#include "fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *disk_memory;
static struct blk_request *waiting[SLOTS];
static unsigned waiting_count;
static struct vbus ports, mmio;
static struct vpci pci;
static struct virtio_blk disk;
static struct virtio_blk_slot slots[SLOTS];

static void *chunk(void *context, uint64_t index, bool write)
{
    (void)write;
    (void)context;
    require(index == 0);
    return disk_memory;
}

static void submit_late(struct blkdev *dev, struct blk_request *request)
{
    (void)dev;
    require(waiting_count < SLOTS);
    require(request->op > BLK_WRITE || request->bytes % 512 == 0);
    require(request->op == BLK_FLUSH || range_within(request->offset, request->bytes, DISK_BYTES));
    waiting[waiting_count++] = request;
}

static void answer(enum status status)
{
    if (waiting_count) {
        struct blk_request *request = waiting[--waiting_count];

        request->done(request, status);
    }
}

static void no_message(void *context, uint64_t address, uint32_t data)
{
    (void)context, (void)data;
    require(address >> 20 == 0xfee);
}

static uint64_t bar(void)
{
    return vpci_config_read(&pci, PCI_SLOT, 0, PCI_BAR0, 4) & ~15u;
}

static void put(unsigned offset, unsigned bytes, uint32_t value)
{
    (void)vbus_write(&mmio, MMIO_BASE + offset, bytes, value, 0);
}

/* A driver's set-up with the rings at their places. */
static void bring_up(uint64_t features, unsigned ring_size, bool rings)
{
    const uint32_t area[] = { 0, AVAIL, USED };

    vpci_config_write(&pci, PCI_SLOT, 0, PCI_BAR0, 4, (uint32_t)MMIO_BASE);
    vpci_config_write(&pci, PCI_SLOT, 0, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put(0x14, 1, 0);
    put(0x14, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        put(0x08, 4, i);
        put(0x0c, 4, (uint32_t)(features >> 32 * i));
    }
    put(0x14, 1, 0xb);
    if (!rings)
        return;
    put(0x16, 2, 0);
    put(0x18, 2, ring_size);
    for (unsigned i = 0; i < 3; i++) {
        put(0x20 + 8 * i, 4, area[i]);
        put(0x24 + 8 * i, 4, 0);
    }
    put(0x1c, 2, 1);
    put(0x14, 1, 0xf);
}

static void process(void)
{
    for (unsigned i = 0; i < 64 && virtio_process(&disk.device, 0); i++)
        ;
}

/* A state stream in memory, and the payload of its section for the device. */
static uint8_t stream[1024], payload[256];
static size_t stream_bytes, payload_bytes;

static enum status collect(void *context, const void *bytes, size_t count)
{
    (void)context;
    require(stream_bytes + count <= sizeof(stream));
    memcpy(stream + stream_bytes, bytes, count);
    stream_bytes += count;
    return OK;
}

static enum status save(void)
{
    struct stream_writer w;

    stream_bytes = 0;
    stream_writer_init(&w, collect, NULL);
    virtio_save(&disk.device, &w);
    return stream_finish(&w);
}

static void put_payload(struct stream_writer *w, void *arg)
{
    (void)arg;
    stream_put_bytes(w, payload, payload_bytes);
}

/* Saves the device, changes some bytes of the payload, seals it again and restores it. */
static void save_and_restore(unsigned changes)
{
    struct stream_writer w;
    struct stream_reader r;

    if (save() != OK)
        return;
    require(stream_reader_init(&r, stream, stream_bytes) == OK && stream_next(&r));
    payload_bytes = stream_left(&r);
    require(payload_bytes <= sizeof(payload));
    stream_get_bytes(&r, payload, payload_bytes);
    while (changes--) {
        unsigned at = next8();

        payload[at % payload_bytes] ^= next8();
    }
    stream_bytes = 0;
    stream_writer_init(&w, collect, NULL);
    stream_section(&w, VIRTIO_STREAM_TAG, PCI_SLOT, VIRTIO_STREAM_VERSION, STREAM_MANDATORY, put_payload, NULL);
    require(stream_finish(&w) == OK);
    require(stream_reader_init(&r, stream, stream_bytes) == OK && stream_next(&r));
    virtio_restore(&disk.device, &r);
    require(r.error == OK || disk.device.status == 0);
}

static void command(uint8_t code, uint64_t features, unsigned ring_size)
{
    unsigned bytes = 1u << (code >> 4 & 3), offset;
    uint64_t value;

    switch (code & 15) {
    case 0:
        virtio_notify(&disk.device, 0);
        process();
        break;
    case 1: /* the driver writes to its memory */
        offset = next16();
        for (unsigned i = next8(); i; i--)
            ram[offset++ % RAM_BYTES] = next8();
        break;
    case 2: { /* the driver offers a head */
        uint16_t idx;

        memcpy(&idx, ram + AVAIL + 2, 2);
        ram[AVAIL + 4 + 2 * (idx & (ring_size - 1))] = next8();
        idx++;
        memcpy(ram + AVAIL + 2, &idx, 2);
        break;
    }
    case 3: answer(code >> 4 ? ERR_IO : OK); break;
    case 4: bring_up(features, ring_size, true); break;
    case 5:
        offset = next16() & 0x3fff;
        (void)vbus_write(&mmio, bar() + offset, bytes, next32(), 0);
        break;
    case 6: (void)vbus_read(&mmio, bar() + (next16() & 0x3fff), bytes, &value, 0); break;
    case 7:
        offset = next8();
        vpci_config_write(&pci, PCI_SLOT, 0, offset, MIN(bytes, 4), next32());
        break;
    case 8: (void)vpci_config_read(&pci, PCI_SLOT, 0, next8(), MIN(bytes, 4)); break;
    case 9: process(); break;
    case 10: virtio_quiesce(&disk.device); break;
    case 11: virtio_resume(&disk.device); break;
    case 12: require(save() == (virtio_in_flight(&disk.device) ? ERR_BUSY : OK)); break;
    case 13: save_and_restore(code >> 4); break;
    default: break;
    }
}

static void check(void)
{
    unsigned busy = 0;

    for (unsigned i = 0; i < SLOTS; i++)
        busy += slots[i].busy;
    require(busy == disk.device.in_flight);
    require(busy == waiting_count);
    require(disk.queue[0].in_flight <= 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ramdisk backend;
    static struct blkdev late;
    const struct vpci_wiring wiring = { .ports = &ports, .mmio = &mmio, .mmio_base = MMIO_BASE,
                                        .mmio_end = MMIO_BASE + 0x100000, .msi = { .send = no_message } };
    const struct virtio_owner owner = { .name = "fuzz", .memory = &memory };
    uint64_t features = VIRTIO_F_VERSION_1;
    unsigned ring_size, image_bytes;
    uint8_t flags;

    if (!ram) {
        ram = malloc(RAM_BYTES);
        disk_memory = malloc(DISK_BYTES);
        require(ram && disk_memory);
    }
    if (size < 4)
        return 0;
    input = data;
    left = size;
    tail = 0;
    flags = next8();
    ring_size = 1u << (next8() & 7);
    image_bytes = next16();
    features |= flags & 16 ? 0 : BIT(9) | BIT(13) | BIT(14);
    features |= (flags & 1 ? VIRTIO_F_EVENT_IDX : 0) | (flags & 2 ? VIRTIO_F_INDIRECT_DESC : 0);
    mutate = false;
    memset(ram, 0, RAM_BYTES);
    memset(disk_memory, 0x5a, DISK_BYTES);
    memset(&ports, 0, sizeof(ports));
    memset(&mmio, 0, sizeof(mmio));
    memset(slots, 0, sizeof(slots));
    waiting_count = 0;
    ramdisk_init(&backend, DISK_BYTES, false, chunk, NULL);
    late = (struct blkdev){ .bytes = DISK_BYTES, .submit = submit_late };
    require(vpci_init(&pci, &wiring) == OK);
    require(virtio_blk_init(&disk, &owner, &pci, PCI_SLOT, flags & 4 ? &late : &backend.dev, "fuzz", slots, SLOTS) ==
            OK);
    for (unsigned i = 0; i < image_bytes && left; i++)
        ram[i] = next8();
    bring_up(features, ring_size, !(flags & 32));

    while (left) {
        uint8_t code = next8();

        mutate = flags & 8 && left;
        command(code, features, ring_size);
        mutate = false;
        check();
    }
    process();
    while (waiting_count)
        answer(OK);
    check();
    virtio_reset(&disk.device);
    require(disk.device.status == 0 && disk.device.in_flight == 0);
    return 0;
}
