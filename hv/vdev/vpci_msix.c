/* SPDX-License-Identifier: MIT */
/*
 * MSI-X of the guest's PCI functions (PCI 3.0, 6.8.2), and the bus's section of the state stream.
 *
 * A vector that is notified while it, its function, or bus mastering is off stays in the pending bits and is sent once
 * when the last of them opens. Notifying a pending vector again changes nothing. Messages that do not go to the APICs'
 * area are dropped: they are no way to write to memory.
 */
#include <string.h>

#include "kernel/index_mask.h"
#include "vdev/vpci.h"
#include "vdev/vpci_internal.h"

#define MSIX_CONTROL 2u
#define MSIX_CONTROL_ENABLE 0x80u /* of its upper byte */
#define MSIX_CONTROL_MASK 0x40u
#define MSIX_ENTRY_BYTES 16u
#define MSIX_ENTRY_MASKED 1u
#define MSI_ADDRESS_BASE 0xfee00000ull
#define MSI_ADDRESS_BYTES 0x100000ull

static uint8_t msix_control(const struct vpci_function *fn)
{
    return fn->config[fn->msix.offset + MSIX_CONTROL + 1];
}

bool vpci_msix_enabled(const struct vpci_function *fn)
{
    return fn->msix.count && msix_control(fn) & MSIX_CONTROL_ENABLE;
}

static bool is_open(const struct vpci_function *fn, unsigned vector)
{
    return !(msix_control(fn) & MSIX_CONTROL_MASK) && vpci_is_master(fn) &&
           !(fn->msix.entry[vector].control & MSIX_ENTRY_MASKED);
}

static void send(struct vpci_function *fn, unsigned vector)
{
    const struct vpci_msix_entry *entry = &fn->msix.entry[vector];
    const struct vmsi_sink *sink = &fn->bus->wiring.msi;

    if (sink->send && range_within(entry->address - MSI_ADDRESS_BASE, 4, MSI_ADDRESS_BYTES))
        sink->send(sink->context, entry->address, entry->data);
}

void vpci_msix_notify(struct vpci_function *fn, unsigned vector)
{
    if (!fn->bus || !vpci_msix_enabled(fn) || vector >= fn->msix.count)
        return;
    if (is_open(fn, vector))
        send(fn, vector);
    else
        fn->msix.pending |= BIT(vector);
}

void vpci_msix_flush(struct vpci_function *fn)
{
    if (!fn->bus || !vpci_msix_enabled(fn))
        return;
    for (unsigned i = 0; i < fn->msix.count && fn->msix.pending; i++) {
        if (fn->msix.pending & BIT(i) && is_open(fn, i)) {
            fn->msix.pending &= ~BIT(i);
            send(fn, i);
        }
    }
}

void vpci_msix_reset(struct vpci_function *fn)
{
    memset(fn->msix.entry, 0, sizeof(fn->msix.entry));
    for (unsigned i = 0; i < fn->msix.count; i++)
        fn->msix.entry[i].control = MSIX_ENTRY_MASKED;
    fn->msix.pending = 0;
}

enum status vpci_add_msix(struct vpci_function *fn, unsigned count, unsigned bar, uint32_t table_offset,
                          uint32_t pba_offset)
{
    uint8_t cap[12] = { PCI_CAP_MSIX };
    enum status status;

    if (!count || count > VPCI_MSIX_MAX || bar >= VPCI_BARS || (table_offset | pba_offset) & 7 ||
        !range_within(table_offset, (uint64_t)count * MSIX_ENTRY_BYTES, fn->bar[bar].bytes) ||
        !range_within(pba_offset, 8, fn->bar[bar].bytes))
        return ERR_INVALID;
    vpci_put16(cap + MSIX_CONTROL, (uint16_t)(count - 1));
    vpci_put32(cap + 4, table_offset | bar);
    vpci_put32(cap + 8, pba_offset | bar);
    status = vpci_add_cap(fn, cap, sizeof(cap), &fn->msix.offset);
    if (status != OK)
        return status;
    fn->msix.count = count;
    fn->writable[fn->msix.offset + MSIX_CONTROL + 1] = MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK;
    vpci_msix_reset(fn);
    return OK;
}

static uint32_t table_dword(const struct vpci_function *fn, uint64_t offset)
{
    const struct vpci_msix_entry *entry;

    if (offset / MSIX_ENTRY_BYTES >= fn->msix.count)
        return 0;
    entry = &fn->msix.entry[index_mask(offset / MSIX_ENTRY_BYTES, fn->msix.count)];
    switch (offset % MSIX_ENTRY_BYTES / 4) {
    case 0: return (uint32_t)entry->address;
    case 1: return (uint32_t)(entry->address >> 32);
    case 2: return entry->data;
    default: return entry->control;
    }
}

static uint32_t pba_dword(const struct vpci_function *fn, uint64_t offset)
{
    return offset < 8 ? (uint32_t)(fn->msix.pending >> 8 * (offset & 4)) : 0;
}

uint64_t vpci_msix_read(const struct vpci_function *fn, bool pba, uint64_t offset, unsigned size)
{
    uint64_t base = offset & ~3ull, value;

    value = pba ? pba_dword(fn, base) : table_dword(fn, base);
    if (size == 8)
        value |= (uint64_t)(pba ? pba_dword(fn, base + 4) : table_dword(fn, base + 4)) << 32;
    value >>= 8 * (offset & 3);
    return size < 8 ? value & (BIT(8 * size) - 1) : value;
}

static void write_dword(struct vpci_function *fn, uint64_t offset, uint32_t value)
{
    struct vpci_msix_entry *entry;

    if (offset / MSIX_ENTRY_BYTES >= fn->msix.count)
        return;
    entry = &fn->msix.entry[index_mask(offset / MSIX_ENTRY_BYTES, fn->msix.count)];
    switch (offset % MSIX_ENTRY_BYTES / 4) {
    case 0: entry->address = (entry->address & ~0xffffffffull) | (value & ~3u); break;
    case 1: entry->address = (uint32_t)entry->address | (uint64_t)value << 32; break;
    case 2: entry->data = value; break;
    default: entry->control = value & MSIX_ENTRY_MASKED; break;
    }
}

void vpci_msix_write(struct vpci_function *fn, uint64_t offset, unsigned size, uint64_t value)
{
    if ((size != 4 && size != 8) || offset % size)
        return; /* PCI 3.0, 6.8.2: software uses aligned dwords and qwords only */
    write_dword(fn, offset, (uint32_t)value);
    if (size == 8)
        write_dword(fn, offset + 4, (uint32_t)(value >> 32));
    vpci_msix_flush(fn);
}

/* ---- State ---- */

static void save_body(struct stream_writer *w, void *arg)
{
    const struct vpci *pci = arg;
    unsigned count = 0;

    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++)
        count += pci->function[slot] != NULL;
    stream_put_u32(w, pci->address);
    stream_put_u8(w, (uint8_t)count);
    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++) {
        const struct vpci_function *fn = pci->function[slot];

        if (!fn)
            continue;
        stream_put_u8(w, (uint8_t)slot);
        stream_put_u8(w, fn->intx_wanted);
        stream_put_bytes(w, fn->config, sizeof(fn->config));
        stream_put_u8(w, (uint8_t)fn->msix.count);
        stream_put_u64(w, fn->msix.pending);
        for (unsigned i = 0; i < fn->msix.count; i++) {
            stream_put_u64(w, fn->msix.entry[i].address);
            stream_put_u32(w, fn->msix.entry[i].data);
            stream_put_u32(w, fn->msix.entry[i].control);
        }
    }
}

void vpci_save(const struct vpci *pci, struct stream_writer *w)
{
    stream_section(w, VPCI_STREAM_TAG, 0, VPCI_STREAM_VERSION, STREAM_MANDATORY, save_body, (void *)(uintptr_t)pci);
}

static void restore_msix(struct vpci_function *fn, struct stream_reader *r)
{
    unsigned count = stream_get_u8(r);
    uint64_t pending = stream_get_u64(r);

    if (!r->error && count != fn->msix.count)
        stream_fail(r, ERR_RANGE, "PCI slot %u: %u MSI-X vectors, this machine has %u", fn->slot, count,
                    fn->msix.count);
    for (unsigned i = 0; !r->error && i < count; i++) {
        uint64_t address = stream_get_u64(r);
        uint32_t data = stream_get_u32(r), control = stream_get_u32(r);

        fn->msix.entry[i] = (struct vpci_msix_entry){ .address = address & ~3ull, .data = data,
                                                      .control = control & MSIX_ENTRY_MASKED };
    }
    if (!r->error)
        fn->msix.pending = count == 64 ? pending : pending & (BIT(count) - 1);
}

/* Takes over what a guest may write; all else is this machine's own and must agree where it names the function. */
static void restore_function(struct vpci *pci, struct stream_reader *r, uint32_t *seen)
{
    unsigned slot = stream_get_u8(r), intx = stream_get_u8(r);
    uint8_t config[256] = { 0 };
    struct vpci_function *fn;

    stream_get_bytes(r, config, sizeof(config));
    if (r->error)
        return;
    fn = slot < VPCI_SLOTS ? pci->function[slot] : NULL;
    if (!fn || *seen & 1u << slot) {
        stream_fail(r, ERR_RANGE, "PCI slot %u is empty in this machine, or comes twice", slot);
        return;
    }
    *seen |= 1u << slot;
    if (memcmp(config, fn->config, 4) != 0) {
        stream_fail(r, ERR_RANGE, "PCI slot %u holds another device (%08x) than this machine's (%08x)", slot,
                    vpci_get32(config), vpci_get32(fn->config));
        return;
    }
    if (intx > 1) {
        stream_fail(r, ERR_RANGE, "PCI slot %u: interrupt level %u", slot, intx);
        return;
    }
    for (unsigned i = 0; i < sizeof(config); i++)
        fn->config[i] = (uint8_t)((fn->config[i] & ~fn->writable[i]) | (config[i] & fn->writable[i]));
    fn->intx_wanted = intx;
    restore_msix(fn, r);
}

void vpci_restore(struct vpci *pci, struct stream_reader *r)
{
    uint32_t address, seen = 0;
    unsigned count, have = 0;

    if (r->version > VPCI_STREAM_VERSION) {
        stream_fail(r, ERR_VERSION, "PCI section of version %u, this one knows %u", r->version, VPCI_STREAM_VERSION);
        return;
    }
    vpci_reset(pci);
    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++)
        have += pci->function[slot] != NULL;
    address = stream_get_u32(r);
    count = stream_get_u8(r);
    if (!r->error && count != have)
        stream_fail(r, ERR_RANGE, "PCI: %u functions, this machine has %u", count, have);
    for (unsigned i = 0; !r->error && i < count; i++)
        restore_function(pci, r, &seen);
    if (r->error) {
        vpci_reset(pci);
        return;
    }
    pci->address = address & 0x80fffffc;
    vpci_map_bars(pci);
    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++) {
        if (pci->function[slot])
            vpci_update_intx(pci->function[slot]);
    }
}
