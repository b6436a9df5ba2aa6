/* SPDX-License-Identifier: MIT */
/*
 * A guest for device tests: RAM with a hole, a PCI bus with its lines and messages written down, and the driver's side
 * of a split virtqueue. RAM is [0, 4 MiB) and [5 MiB, 8 MiB); the hole between them stands for MMIO.
 *
 * Each access of the device to RAM is put into a trace, and a hook may change RAM just after the device has read it, as
 * another vCPU could.
 */
#ifndef TESTS_FAKE_GUEST_H
#define TESTS_FAKE_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vdev/virtio_pci.h"
#include "vm/stream.h"

#define FAKE_RAM_BYTES (8 * MIB)
#define FAKE_HOLE (4 * MIB)
#define FAKE_HOLE_BYTES (1 * MIB)
#define FAKE_MMIO_BASE 0xe0000000ull
#define FAKE_MMIO_END 0xe1000000ull
#define FAKE_TRACE 256

struct fake_access { uint64_t gpa, count; bool write; };

struct fake_guest {
    uint8_t ram[FAKE_RAM_BYTES];
    struct gmem_ops memory;
    struct fake_access trace[FAKE_TRACE];
    unsigned trace_count;
    void (*after_read)(struct fake_guest *guest, uint64_t gpa, uint64_t count);
    struct vbus ports, mmio;
    struct vpci pci;
    bool gsi[32];
    unsigned gsi_changes;
    uint64_t msi_address[64];
    uint32_t msi_data[64];
    unsigned msi_count;
    unsigned doorbells, moves;
    uint8_t stream[65536];
    size_t stream_bytes;
};

static inline bool fake_valid(void *context, gpa_t gpa, uint64_t count)
{
    (void)context;
    return range_within(gpa.v, count, FAKE_RAM_BYTES) && !range_overlaps(gpa.v, count, FAKE_HOLE, FAKE_HOLE_BYTES);
}

static inline void fake_note(struct fake_guest *guest, gpa_t gpa, uint64_t count, bool write)
{
    if (guest->trace_count < FAKE_TRACE)
        guest->trace[guest->trace_count++] = (struct fake_access){ gpa.v, count, write };
}

static inline bool fake_read(void *context, gpa_t gpa, void *bytes, uint64_t count)
{
    struct fake_guest *guest = context;

    if (!fake_valid(context, gpa, count))
        return false;
    memcpy(bytes, guest->ram + gpa.v, count);
    fake_note(guest, gpa, count, false);
    if (guest->after_read)
        guest->after_read(guest, gpa.v, count);
    return true;
}

static inline bool fake_write(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    struct fake_guest *guest = context;

    if (!fake_valid(context, gpa, count))
        return false;
    memcpy(guest->ram + gpa.v, bytes, count);
    fake_note(guest, gpa, count, true);
    return true;
}

static inline void fake_gsi(void *context, unsigned pin, bool level)
{
    struct fake_guest *guest = context;

    assert_true(pin >= 16 && pin < 24);
    guest->gsi_changes += guest->gsi[pin] != level;
    guest->gsi[pin] = level;
}

static inline void fake_msi(void *context, uint64_t address, uint32_t data)
{
    struct fake_guest *guest = context;

    assert_true(guest->msi_count < ARRAY_COUNT(guest->msi_data));
    guest->msi_address[guest->msi_count] = address;
    guest->msi_data[guest->msi_count++] = data;
}

static inline void fake_doorbell(void *context, struct virtio_device *dev)
{
    (void)dev;
    ((struct fake_guest *)context)->doorbells++;
}

static inline void fake_moved(void *context, struct virtio_device *dev)
{
    (void)dev;
    ((struct fake_guest *)context)->moves++;
}

/* A fresh guest with an empty bus. Free it with free(). */
static inline struct fake_guest *fake_guest_new(void)
{
    struct fake_guest *guest = calloc(1, sizeof(*guest));

    assert_non_null(guest);
    guest->memory = (struct gmem_ops){ .context = guest, .read = fake_read, .write = fake_write, .valid = fake_valid };
    const struct vpci_wiring wiring = {
        .ports = &guest->ports,
        .mmio = &guest->mmio,
        .mmio_base = FAKE_MMIO_BASE,
        .mmio_end = FAKE_MMIO_END,
        .gsi = { .set = fake_gsi, .context = guest },
        .msi = { .send = fake_msi, .context = guest },
    };
    assert_int_equal(vpci_init(&guest->pci, &wiring), OK);
    return guest;
}

static inline struct virtio_owner fake_owner(struct fake_guest *guest)
{
    return (struct virtio_owner){ .name = "vm test: device", .memory = &guest->memory, .doorbell = fake_doorbell,
                                  .notify_moved = fake_moved, .context = guest };
}

/* ---- Accesses as a guest makes them ---- */

static inline uint64_t fake_mmio_read(struct fake_guest *guest, uint64_t address, unsigned size)
{
    uint64_t value;

    vbus_read(&guest->mmio, address, size, &value, 0);
    return value;
}

static inline void fake_mmio_write(struct fake_guest *guest, uint64_t address, unsigned size, uint64_t value)
{
    vbus_write(&guest->mmio, address, size, value, 0);
}

static inline uint32_t fake_config_read(struct fake_guest *guest, unsigned slot, unsigned offset, unsigned size)
{
    uint64_t value;

    vbus_write(&guest->ports, 0xcf8, 4, 0x80000000u | slot << 11 | (offset & 0xfc), 0);
    vbus_read(&guest->ports, 0xcfc + (offset & 3), size, &value, 0);
    return (uint32_t)value;
}

static inline void fake_config_write(struct fake_guest *guest, unsigned slot, unsigned offset, unsigned size,
                                     uint32_t value)
{
    vbus_write(&guest->ports, 0xcf8, 4, 0x80000000u | slot << 11 | (offset & 0xfc), 0);
    vbus_write(&guest->ports, 0xcfc + (offset & 3), size, value, 0);
}

static inline uint64_t fake_bar(struct fake_guest *guest, unsigned slot)
{
    return fake_config_read(guest, slot, PCI_BAR0, 4) & ~15u;
}

/* Registers of the common configuration. */
static inline uint32_t fake_reg(struct fake_guest *guest, struct virtio_device *dev, unsigned offset, unsigned size)
{
    return (uint32_t)fake_mmio_read(guest, fake_bar(guest, dev->function.slot) + offset, size);
}

static inline void fake_set_reg(struct fake_guest *guest, struct virtio_device *dev, unsigned offset, unsigned size,
                                uint32_t value)
{
    fake_mmio_write(guest, fake_bar(guest, dev->function.slot) + offset, size, value);
}

#define REG_OFFERED_SELECT 0x00
#define REG_OFFERED 0x04
#define REG_ACCEPTED_SELECT 0x08
#define REG_ACCEPTED 0x0c
#define REG_CONFIG_VECTOR 0x10
#define REG_QUEUE_COUNT 0x12
#define REG_STATUS 0x14
#define REG_GENERATION 0x15
#define REG_QUEUE_SELECT 0x16
#define REG_QUEUE_SIZE 0x18
#define REG_QUEUE_VECTOR 0x1a
#define REG_QUEUE_ENABLE 0x1c
#define REG_NOTIFY_OFF 0x1e
#define REG_DESC 0x20
#define REG_ISR 0x400
#define REG_DEVICE 0x800

/* ---- The driver's side of a queue ---- */

struct fake_queue {
    struct fake_guest *guest;
    uint16_t size, avail_idx, used_idx, next_desc;
    uint64_t desc, avail, used;
    bool event_idx;
};

static inline void fake_put16(struct fake_guest *guest, uint64_t gpa, uint16_t value)
{
    memcpy(guest->ram + gpa, &value, 2);
}

static inline uint16_t fake_get16(struct fake_guest *guest, uint64_t gpa)
{
    uint16_t value;

    memcpy(&value, guest->ram + gpa, 2);
    return value;
}

/* Rings at `base`: descriptors, then avail at + 0x8000, used at + 0xc000. */
static inline struct fake_queue fake_queue_at(struct fake_guest *guest, uint64_t base, uint16_t size)
{
    return (struct fake_queue){ .guest = guest, .size = size, .desc = base, .avail = base + 0x8000,
                                .used = base + 0xc000 };
}

static inline void fake_desc(struct fake_guest *guest, uint64_t table, uint16_t index, uint64_t address,
                             uint32_t bytes, uint16_t flags, uint16_t next)
{
    const struct virtq_desc desc = { address, bytes, flags, next };

    memcpy(guest->ram + table + 16ull * index, &desc, sizeof(desc));
}

/* Puts a head into avail and shows it. */
static inline void fake_offer(struct fake_queue *q, uint16_t head)
{
    fake_put16(q->guest, q->avail + 4 + 2ull * (q->avail_idx % q->size), head);
    fake_put16(q->guest, q->avail + 2, ++q->avail_idx);
}

/* A chain of segments, the first `readable` of them for reading, in fresh descriptors. Returns the head. */
static inline uint16_t fake_chain(struct fake_queue *q, const struct gmem_segment *segment, unsigned readable,
                                  unsigned writable)
{
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < readable + writable; i++) {
        bool last = i + 1 == readable + writable;
        uint16_t index = (uint16_t)(q->next_desc % q->size), next = (uint16_t)((index + 1u) % q->size);

        fake_desc(q->guest, q->desc, index, segment[i].gpa.v, segment[i].bytes,
                  (uint16_t)((i >= readable ? VIRTQ_DESC_WRITE : 0u) | (last ? 0u : VIRTQ_DESC_NEXT)), next);
        q->next_desc = next;
    }
    fake_offer(q, head);
    return head;
}

/* The next used entry, or false. */
static inline bool fake_used(struct fake_queue *q, uint32_t *id, uint32_t *written)
{
    if (fake_get16(q->guest, q->used + 2) == q->used_idx)
        return false;
    memcpy(id, q->guest->ram + q->used + 4 + 8ull * (q->used_idx % q->size), 4);
    memcpy(written, q->guest->ram + q->used + 8 + 8ull * (q->used_idx % q->size), 4);
    q->used_idx++;
    return true;
}

/* ---- Bringing a device up, as a driver does (VIRTIO 1.2, 3.1.1) ---- */

static inline uint64_t fake_features(struct fake_guest *guest, struct virtio_device *dev)
{
    uint64_t features;

    fake_set_reg(guest, dev, REG_OFFERED_SELECT, 4, 0);
    features = fake_reg(guest, dev, REG_OFFERED, 4);
    fake_set_reg(guest, dev, REG_OFFERED_SELECT, 4, 1);
    return features | (uint64_t)fake_reg(guest, dev, REG_OFFERED, 4) << 32;
}

static inline void fake_accept(struct fake_guest *guest, struct virtio_device *dev, uint64_t features)
{
    fake_set_reg(guest, dev, REG_ACCEPTED_SELECT, 4, 0);
    fake_set_reg(guest, dev, REG_ACCEPTED, 4, (uint32_t)features);
    fake_set_reg(guest, dev, REG_ACCEPTED_SELECT, 4, 1);
    fake_set_reg(guest, dev, REG_ACCEPTED, 4, (uint32_t)(features >> 32));
}

static inline void fake_setup_queue(struct fake_guest *guest, struct virtio_device *dev, unsigned index,
                                    const struct fake_queue *q)
{
    const uint64_t area[] = { q->desc, q->avail, q->used };

    fake_set_reg(guest, dev, REG_QUEUE_SELECT, 2, index);
    fake_set_reg(guest, dev, REG_QUEUE_SIZE, 2, q->size);
    for (unsigned i = 0; i < 6; i++)
        fake_set_reg(guest, dev, REG_DESC + 4 * i, 4, (uint32_t)(area[i / 2] >> 32 * (i % 2)));
    fake_set_reg(guest, dev, REG_QUEUE_ENABLE, 2, 1);
}

/* Reset, features (all that are offered and in the mask), up to FEATURES_OK. Switches bus mastering on. */
static inline void fake_negotiate(struct fake_guest *guest, struct virtio_device *dev, uint64_t mask)
{
    unsigned slot = dev->function.slot;

    fake_config_write(guest, slot, PCI_COMMAND, 2, fake_config_read(guest, slot, PCI_COMMAND, 2) | PCI_COMMAND_MASTER);
    fake_set_reg(guest, dev, REG_STATUS, 1, 0);
    fake_set_reg(guest, dev, REG_STATUS, 1, 1);
    fake_set_reg(guest, dev, REG_STATUS, 1, 3);
    fake_accept(guest, dev, fake_features(guest, dev) & (mask | VIRTIO_F_VERSION_1));
    fake_set_reg(guest, dev, REG_STATUS, 1, 0xb);
    assert_int_equal(fake_reg(guest, dev, REG_STATUS, 1), 0xb);
}

static inline void fake_driver_ok(struct fake_guest *guest, struct virtio_device *dev)
{
    fake_set_reg(guest, dev, REG_STATUS, 1, 0xf);
}

/* MSI-X on, vector v with data 0x40 + v, unmasked; queue q on vector q + 1, configuration on 0. */
static inline void fake_msix_on(struct fake_guest *guest, struct virtio_device *dev)
{
    uint64_t table = fake_bar(guest, dev->function.slot) + 0x2000;
    unsigned control = dev->function.msix.offset + 2;

    fake_config_write(guest, dev->function.slot, control, 2, 0x8000);
    for (unsigned i = 0; i < dev->function.msix.count; i++) {
        fake_mmio_write(guest, table + 16 * i, 4, 0xfee00000);
        fake_mmio_write(guest, table + 16 * i + 4, 4, 0);
        fake_mmio_write(guest, table + 16 * i + 8, 4, 0x40 + i);
        fake_mmio_write(guest, table + 16 * i + 12, 4, 0);
    }
    fake_set_reg(guest, dev, REG_CONFIG_VECTOR, 2, 0);
    for (unsigned i = 0; i < dev->model->queue_count; i++) {
        fake_set_reg(guest, dev, REG_QUEUE_SELECT, 2, i);
        fake_set_reg(guest, dev, REG_QUEUE_VECTOR, 2, i + 1);
    }
}

static inline void fake_kick(struct fake_guest *guest, struct virtio_device *dev, unsigned queue)
{
    fake_mmio_write(guest, fake_bar(guest, dev->function.slot) + VIRTIO_NOTIFY_OFFSET + 4 * queue, 2, queue);
}

/* Kicks the queue and lets the device work until it has nothing left. */
static inline void fake_run(struct fake_guest *guest, struct virtio_device *dev, unsigned queue)
{
    unsigned rounds = 0;

    fake_kick(guest, dev, queue);
    while (virtio_process(dev, 0))
        assert_true(++rounds < 10000);
}

/* ---- State stream in memory ---- */

static inline enum status fake_sink(void *context, const void *bytes, size_t count)
{
    struct fake_guest *guest = context;

    if (guest->stream_bytes + count > sizeof(guest->stream))
        return ERR_NO_MEMORY;
    memcpy(guest->stream + guest->stream_bytes, bytes, count);
    guest->stream_bytes += count;
    return OK;
}

static inline enum status fake_save(struct fake_guest *guest, struct virtio_device *dev)
{
    struct stream_writer w;

    guest->stream_bytes = 0;
    stream_writer_init(&w, fake_sink, guest);
    vpci_save(&guest->pci, &w);
    if (dev)
        virtio_save(dev, &w);
    return stream_finish(&w);
}

/* Restores from the stream of `from`, in the order it was saved. */
static inline enum status fake_restore(struct fake_guest *guest, struct virtio_device *dev,
                                       const struct fake_guest *from)
{
    struct stream_reader r;

    if (stream_reader_init(&r, from->stream, from->stream_bytes) != OK)
        return r.error;
    while (stream_next(&r)) {
        if (!strcmp(r.tag, VPCI_STREAM_TAG))
            vpci_restore(&guest->pci, &r);
        else if (dev && !strcmp(r.tag, VIRTIO_STREAM_TAG) && r.instance == dev->function.slot)
            virtio_restore(dev, &r);
    }
    return r.error;
}

#endif
