/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC. An edge-triggered pin sends one message when its line rises, unless it is masked (the edge is then
 * lost, as in the 82093AA). A level-triggered pin sends while its line is asserted, it is not masked and remote IRR is
 * clear; sending sets remote IRR, an EOI with the vector that was sent clears it and the pin is looked at again.
 *
 * Remote IRR is set only if an APIC took the message: a request that nobody took is tried again whenever the pin is
 * looked at, so a level-triggered interrupt is never stuck behind an APIC that was off. The vector that was sent is
 * remembered beside the entry, so that an entry which was rewritten while its interrupt was in service is released too.
 */
#include "vdev/vioapic.h"

#include <string.h>

#include "kernel/index_mask.h"

#define RTE_VECTOR 0xffull
#define RTE_DESTINATION_LOGICAL BIT(11)
#define RTE_STATUS BIT(12)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define RTE_READ_ONLY (RTE_STATUS | RTE_REMOTE_IRR)
#define RTE_WRITABLE (0xff0000000001ffffull & ~RTE_READ_ONLY)

#define VERSION 0x20u

#define OFFSET_INDEX 0x00u
#define OFFSET_DATA 0x10u
#define OFFSET_EOI 0x40u

#define INDEX_ID 0u
#define INDEX_VERSION 1u
#define INDEX_ARBITRATION 2u
#define INDEX_ENTRIES 0x10u

void vioapic_init(struct vioapic *io, struct vlapic_bus *bus, uint32_t id)
{
    memset(io, 0, sizeof(*io));
    io->bus = bus;
    io->id = id & 15;
    vioapic_reset(io);
}

void vioapic_reset(struct vioapic *io)
{
    io->index = 0;
    for (unsigned pin = 0; pin < VIOAPIC_PINS; pin++) {
        io->entry[pin] = RTE_MASKED;
        io->sent[pin] = 0;
    }
}

/* True if an APIC took it. */
static bool send(struct vioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];
    uint64_t address = 0xfee00000ull | (entry >> 56) << 12 | (entry & RTE_DESTINATION_LOGICAL ? 4 : 0);
    uint32_t data = (uint32_t)(entry & 0x7ff) | 0x4000 | (entry & RTE_LEVEL ? 0x8000 : 0);
    return vlapic_bus_message(io->bus, address, data);
}

/* Fixed and lowest priority: the modes that come with an EOI. */
static bool has_eoi(uint64_t entry)
{
    return (entry >> 8 & 7) <= 1;
}

/* A level-triggered pin: sends if it may and must. */
static void look(struct vioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];
    if (!(entry & RTE_LEVEL) || entry & (RTE_MASKED | RTE_REMOTE_IRR) || !(io->lines & 1u << pin))
        return;
    if (send(io, pin) && has_eoi(entry)) {
        io->entry[pin] |= RTE_REMOTE_IRR;
        io->sent[pin] = (uint8_t)entry;
    }
}

void vioapic_set_line(void *context, unsigned pin, bool level)
{
    struct vioapic *io = context;
    if (pin >= VIOAPIC_PINS)
        return;
    bool before = io->lines >> pin & 1;
    io->lines = (io->lines & ~(1u << pin)) | (uint32_t)level << pin;
    if (io->entry[pin] & RTE_LEVEL)
        look(io, pin);
    else if (level && !before && !(io->entry[pin] & RTE_MASKED))
        send(io, pin);
}

void vioapic_eoi(struct vioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < VIOAPIC_PINS; pin++) {
        if (!(io->entry[pin] & RTE_LEVEL))
            continue;
        if (io->entry[pin] & RTE_REMOTE_IRR && (io->sent[pin] == vector || (io->entry[pin] & RTE_VECTOR) == vector))
            io->entry[pin] &= ~RTE_REMOTE_IRR;
        look(io, pin);
    }
}

static void write_entry(struct vioapic *io, unsigned pin, bool high, uint32_t value)
{
    uint64_t entry = io->entry[pin];
    uint64_t written = high ? (entry & UINT32_MAX) | (uint64_t)value << 32 : (entry & ~(uint64_t)UINT32_MAX) | value;
    written = (written & RTE_WRITABLE) | (entry & RTE_READ_ONLY);
    if (!(written & RTE_LEVEL))
        written &= ~RTE_REMOTE_IRR; /* an edge-triggered entry has none; guests clear a stuck one this way */
    io->entry[pin] = written;
    look(io, pin);
}

static uint32_t read_register(const struct vioapic *io)
{
    unsigned entry = (unsigned)io->index - INDEX_ENTRIES;
    switch (io->index) {
    case INDEX_ID: return io->id << 24;
    case INDEX_VERSION: return VERSION | (VIOAPIC_PINS - 1) << 16;
    case INDEX_ARBITRATION: return io->id << 24;
    default:
        if (io->index < INDEX_ENTRIES || entry >= 2 * VIOAPIC_PINS)
            return 0;
        return (uint32_t)(io->entry[index_mask(entry / 2, VIOAPIC_PINS)] >> (entry % 2 ? 32 : 0));
    }
}

static uint64_t mmio_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    const struct vioapic *io = device;
    (void)now_ns;
    if (size > 4)
        return 0;
    switch (offset) {
    case OFFSET_INDEX: return io->index;
    case OFFSET_DATA: return read_register(io);
    default: return 0;
    }
}

static void mmio_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vioapic *io = device;
    unsigned entry = (unsigned)io->index - INDEX_ENTRIES;
    (void)now_ns;
    if (offset == OFFSET_INDEX) {
        io->index = (uint8_t)value;
    } else if (offset == OFFSET_DATA && size == 4) {
        if (io->index == INDEX_ID)
            io->id = (uint32_t)value >> 24 & 15;
        else if (io->index >= INDEX_ENTRIES && entry < 2 * VIOAPIC_PINS)
            write_entry(io, (unsigned)index_mask(entry / 2, VIOAPIC_PINS), entry % 2, (uint32_t)value);
    } else if (offset == OFFSET_EOI) {
        vioapic_eoi(io, (uint8_t)value);
    }
}

const struct vdev_ops vioapic_ops = { .read = mmio_read, .write = mmio_write };

void vioapic_save(const struct vioapic *io, struct stream_writer *w, uint64_t now_ns)
{
    (void)now_ns;
    stream_put_u32(w, io->id);
    stream_put_u8(w, io->index);
    stream_put_u32(w, io->lines);
    for (unsigned pin = 0; pin < VIOAPIC_PINS; pin++) {
        stream_put_u64(w, io->entry[pin]);
        stream_put_u8(w, io->sent[pin]);
    }
}

void vioapic_restore(struct vioapic *io, struct stream_reader *r, uint64_t now_ns)
{
    struct vioapic new = *io;
    bool good = true;
    (void)now_ns;
    new.id = stream_get_u32(r);
    new.index = stream_get_u8(r);
    new.lines = stream_get_u32(r);
    good &= new.id < 16 && new.lines < 1u << VIOAPIC_PINS;
    for (unsigned pin = 0; pin < VIOAPIC_PINS; pin++) {
        new.entry[pin] = stream_get_u64(r);
        new.sent[pin] = stream_get_u8(r);
        good &= !(new.entry[pin] & ~(RTE_WRITABLE | RTE_REMOTE_IRR));
        good &= !(new.entry[pin] & RTE_REMOTE_IRR) || new.entry[pin] & RTE_LEVEL;
    }
    if (r->error != OK)
        return;
    if (!good) {
        stream_fail(r, ERR_CORRUPT, "I/O APIC: value out of range");
        return;
    }
    *io = new;
}
