/* SPDX-License-Identifier: MIT */
/*
 * Every virtio device of the machine gets queues full of nonsense: descriptors that point outside RAM, at each other in
 * a circle, beyond the table, into device memory; lengths that wrap; rings that lie nowhere. (Virtual I/O Device 1.1,
 * sections 2.6 and 4.1.) The part of RAM that no descriptor names must stay as it was.
 */
#include "hostile.h"

#define QUEUE_SIZE 8u
#define GUARD_WORDS 4096u

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct rings {
    struct descriptor table[QUEUE_SIZE];
    struct { uint16_t flags, index, ring[QUEUE_SIZE], event; } available;
    uint8_t pad[4096 - 16 * QUEUE_SIZE - 6 - 2 * QUEUE_SIZE];
    struct { uint16_t flags, index; struct { uint32_t id, length; } ring[QUEUE_SIZE]; uint16_t event; } used;
};

static volatile struct rings rings __attribute__((aligned(4096)));
static struct descriptor indirect[QUEUE_SIZE] __attribute__((aligned(16)));
static uint8_t target[4096] __attribute__((aligned(4096)));
static uint64_t guard[GUARD_WORDS] __attribute__((aligned(4096)));

struct device { uint64_t common, notify; uint32_t notify_multiplier; };

static uint32_t config_read(unsigned slot, unsigned offset)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc));
    return inl(0xcfc) >> (offset & 3) * 8;
}

static uint64_t bar_address(unsigned slot, unsigned bar)
{
    uint32_t low = config_read(slot, 0x10 + bar * 4);
    uint64_t high = (low & 6) == 4 ? config_read(slot, 0x14 + bar * 4) : 0;
    return high << 32 | (low & ~0xfu);
}

/* The common configuration and notification areas (4.1.4). */
static bool find_areas(unsigned slot, struct device *device)
{
    *device = (struct device){ 0 };
    for (unsigned at = config_read(slot, 0x34) & 0xff, i = 0; at && i < 48;
         at = config_read(slot, at + 1) & 0xff, i++) {
        if ((config_read(slot, at) & 0xff) != 9)
            continue;
        unsigned type = config_read(slot, at + 3) & 0xff, bar = config_read(slot, at + 4) & 0xff;
        uint64_t address = bar_address(slot, bar) + config_read(slot, at + 8);
        if (type == 1) {
            device->common = address;
        } else if (type == 2) {
            device->notify = address;
            device->notify_multiplier = config_read(slot, at + 16);
        }
    }
    return device->common && device->notify;
}

static void write8(uint64_t at, uint8_t value) { *(volatile uint8_t *)at = value; }
static void write16(uint64_t at, uint16_t value) { *(volatile uint16_t *)at = value; }
static void write64(uint64_t at, uint64_t value)
{
    mmio_write32(at, (uint32_t)value);
    mmio_write32(at + 4, (uint32_t)(value >> 32));
}

/* An address for a buffer: one that may be written, or one where nothing is; never RAM that something depends on. */
static uint64_t buffer(void)
{
    switch (any() % 6) {
    case 0: return (uint64_t)target + (any() & 0xfff);
    case 1: return guest_ram_end() - (any() & 1 ? 0 : 1);
    case 2: return UINT64_MAX - (any() & 0xfff);
    case 3: return 0xfee00000 + (any() & 0xff0);
    case 4: return BIT(32 + (any() & 31)) + (any() & 0xffff);
    default: return (uint64_t)target;
    }
}

static uint32_t length_for(uint64_t address)
{
    if (address >= (uint64_t)target && address < (uint64_t)target + sizeof(target))
        return (uint32_t)(any() % ((uint64_t)target + sizeof(target) - address + 1));
    return any() & 1 ? (uint32_t)any() : (uint32_t)(any() & 0xffff);
}

static void fill(volatile struct descriptor *table)
{
    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        uint64_t address = buffer();
        table[i].address = address;
        table[i].length = length_for(address);
        table[i].flags = (uint16_t)(any() & 7);
        table[i].next = (uint16_t)(any() & 3 ? any() % QUEUE_SIZE : any());
        if (table[i].flags & 4) { /* indirect: a table of its own, of the right size or not */
            table[i].address = any() & 3 ? (uint64_t)indirect : buffer();
            table[i].length = any() & 1 ? sizeof(indirect) : (uint32_t)(any() & 0xffff);
        }
    }
}

/* Rings: mostly these, sometimes outside RAM or misaligned. */
static uint64_t ring_address(volatile void *good)
{
    return any() % 8 ? (uint64_t)good : any() & 1 ? guest_ram_end() - 8 : nasty() | 1;
}

static void one_round(const struct device *device)
{
    uint64_t c = device->common;
    write8(c + 0x14, 0);
    write8(c + 0x14, 1);
    write8(c + 0x14, 3);
    mmio_write32(c + 8, 1);
    mmio_write32(c + 12, any() & 7 ? 1 : (uint32_t)any());
    mmio_write32(c + 8, 0);
    mmio_write32(c + 12, any() & 3 ? 0x30000000 : (uint32_t)any());
    if (any() & 7)
        write8(c + 0x14, 11);
    unsigned queues = *(volatile uint16_t *)(c + 0x12);
    for (unsigned q = 0; q < queues && q < 4; q++) {
        write16(c + 0x16, (uint16_t)(any() % 16 ? q : any()));
        write16(c + 0x18, (uint16_t)(any() & 7 ? QUEUE_SIZE : any()));
        fill(rings.table);
        fill(indirect);
        for (unsigned i = 0; i < QUEUE_SIZE; i++)
            rings.available.ring[i] = (uint16_t)(any() & 7 ? any() % QUEUE_SIZE : any());
        rings.available.index = (uint16_t)(any() & 3 ? any() % QUEUE_SIZE + 1 : any());
        rings.available.flags = (uint16_t)(any() & 1);
        rings.used.index = 0;
        write64(c + 0x20, ring_address(rings.table));
        write64(c + 0x28, ring_address(&rings.available));
        write64(c + 0x30, ring_address(&rings.used));
        write16(c + 0x1c, 1);
        if (any() & 7)
            write8(c + 0x14, 15);
        uint64_t bell = device->notify + (uint64_t)q * device->notify_multiplier;
        for (unsigned i = 0; i < 4; i++) {
            write16(bell, (uint16_t)(any() & 3 ? q : any()));
            rings.available.index++;
        }
        if (!(any() & 3))
            write8(c + 0x14, 0); /* while requests may be in flight */
    }
    guest_delay_us(50);
}

void hostile_devices(void)
{
    unsigned devices = 0;
    for (unsigned i = 0; i < GUARD_WORDS; i++)
        guard[i] = i * 0x9e3779b97f4a7c15ull;
    for (unsigned slot = 1; slot < 32; slot++) {
        struct device device;
        if ((config_read(slot, 0) & 0xffff) != 0x1af4 || !find_areas(slot, &device))
            continue;
        devices++;
        outl(0xcf8, 0x80000000u | slot << 11 | 4);
        outw(0xcfc, 6);
        guest_note("slot %u: device 0x%x", slot, config_read(slot, 2) & 0xffff);
        for (unsigned i = 0; i < 200; i++)
            one_round(&device);
        write8(device.common + 0x14, 0);
    }
    uint64_t changed = 0;
    for (unsigned i = 0; i < GUARD_WORDS; i++)
        changed += guard[i] != i * 0x9e3779b97f4a7c15ull;
    guest_check("there are virtio devices", devices > 0);
    guest_equal("devices wrote nothing but what descriptors named", 0, changed);
}
