/* SPDX-License-Identifier: MIT */
/*
 * The guest's PCI bus (see vpci.h): configuration space, BARs, INTx. MSI-X and the state stream are in vpci_msix.c.
 *
 * A function's configuration space is bytes with a mask of what a guest may change; sizing a BAR works by itself, since
 * the mask of a BAR leaves out the bits below its size. After each write that could matter, the decode of all BARs is
 * worked out anew: first what is no longer wanted goes from the MMIO bus, then what is wanted and fits comes. So two
 * BARs that a guest swaps end up right, whatever the order.
 */
#include <string.h>

#include "vdev/vpci.h"
#include "kernel/index_mask.h"
#include "vdev/vpci_internal.h"

#define CONFIG_ENABLE 0x80000000u
#define RESET_CONTROL_OFFSET 1u /* port 0xcf9 */

void vpci_put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

void vpci_put32(uint8_t *bytes, uint32_t value)
{
    vpci_put16(bytes, (uint16_t)value);
    vpci_put16(bytes + 2, (uint16_t)(value >> 16));
}

uint32_t vpci_get32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* ---- BARs ---- */

static uint64_t bar_address(const struct vpci_function *fn, unsigned bar)
{
    uint64_t address = vpci_get32(fn->config + PCI_BAR0 + 4 * bar) & ~15u;

    if (fn->bar[bar].is_64bit)
        address |= (uint64_t)vpci_get32(fn->config + PCI_BAR0 + 4 * (bar + 1)) << 32;
    return address;
}

static bool bar_wanted(const struct vpci_function *fn, unsigned bar, uint64_t *address)
{
    const struct vpci_wiring *wiring = &fn->bus->wiring;

    *address = bar_address(fn, bar);
    return fn->bar[bar].bytes && vpci_command(fn) & PCI_COMMAND_MEMORY && *address >= wiring->mmio_base &&
           range_within(*address, fn->bar[bar].bytes, wiring->mmio_end);
}

static void tell_moved(struct vpci_function *fn, unsigned changed)
{
    for (unsigned i = 0; i < VPCI_BARS; i++) {
        if (changed & 1u << i && fn->ops && fn->ops->bar_moved)
            fn->ops->bar_moved(fn->device, i);
    }
}

void vpci_map_bars(struct vpci *pci)
{
    uint8_t changed[VPCI_SLOTS] = { 0 };

    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++) {
        struct vpci_function *fn = pci->function[slot];

        for (unsigned i = 0; fn && i < VPCI_BARS; i++) {
            uint64_t address;
            bool wanted = bar_wanted(fn, i, &address);

            if (!fn->bar[i].is_mapped || (wanted && address == fn->bar[i].mapped))
                continue;
            vbus_remove(pci->wiring.mmio, fn->bar[i].mapped, fn->device);
            fn->bar[i].is_mapped = false;
            changed[slot] |= (uint8_t)(1u << i);
        }
    }
    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++) {
        struct vpci_function *fn = pci->function[slot];

        for (unsigned i = 0; fn && i < VPCI_BARS; i++) {
            uint64_t address;

            if (!bar_wanted(fn, i, &address) || fn->bar[i].is_mapped ||
                vbus_add(pci->wiring.mmio, address, fn->bar[i].bytes, fn->bar[i].ops, fn->device) != OK)
                continue;
            fn->bar[i].is_mapped = true;
            fn->bar[i].mapped = address;
            changed[slot] |= (uint8_t)(1u << i);
        }
        if (fn)
            tell_moved(fn, changed[slot]);
    }
}

/* ---- INTx ---- */

void vpci_update_intx(struct vpci_function *fn)
{
    struct vpci *pci = fn->bus;
    unsigned line;
    bool level;

    if (fn->intx_wanted)
        fn->config[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        fn->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    if (!pci)
        return;
    line = fn->slot % VPCI_GSI_COUNT;
    level = fn->intx_wanted && !(vpci_command(fn) & PCI_COMMAND_INTX_OFF) && !vpci_msix_enabled(fn);
    if (level)
        pci->intx_slots[line] |= 1u << fn->slot;
    else
        pci->intx_slots[line] &= ~(1u << fn->slot);
    if (pci->wiring.gsi.set)
        pci->wiring.gsi.set(pci->wiring.gsi.context, VPCI_GSI_BASE + line, pci->intx_slots[line] != 0);
}

void vpci_set_intx(struct vpci_function *fn, bool level)
{
    if (fn->intx_wanted == level)
        return;
    fn->intx_wanted = level;
    vpci_update_intx(fn);
}

/* ---- Configuration space ---- */

static struct vpci_function *find(struct vpci *pci, unsigned slot, unsigned function)
{
    return slot < VPCI_SLOTS && function == 0 ? pci->function[index_mask(slot, VPCI_SLOTS)] : NULL;
}

static bool in_dword(unsigned offset, unsigned size)
{
    return (size == 1 || size == 2 || size == 4) && range_within(offset & 3, size, 4) && offset < 256;
}

static bool is_hooked(const struct vpci_function *fn, unsigned offset, unsigned size)
{
    return range_overlaps(offset, size, fn->hook_base, fn->hook_bytes);
}

uint32_t vpci_config_read(struct vpci *pci, unsigned slot, unsigned function, unsigned offset, unsigned size)
{
    struct vpci_function *fn = find(pci, slot, function);
    uint32_t value = 0;

    if (!fn || !in_dword(offset, size))
        return size < 4 ? (1u << 8 * size) - 1 : ~0u;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)fn->config[index_mask(offset + i, sizeof fn->config)] << 8 * i;
    if (fn->ops && fn->ops->config_read && is_hooked(fn, offset, size))
        value = fn->ops->config_read(fn->device, offset, size, value);
    return value;
}

void vpci_config_write(struct vpci *pci, unsigned slot, unsigned function, unsigned offset, unsigned size,
                       uint32_t value)
{
    struct vpci_function *fn = find(pci, slot, function);
    uint16_t command;

    if (!fn || !in_dword(offset, size))
        return;
    command = vpci_command(fn);
    offset = (unsigned)index_mask(offset, sizeof fn->config);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = fn->writable[offset + i];

        fn->config[offset + i] = (uint8_t)((fn->config[offset + i] & ~mask) | ((value >> 8 * i) & mask));
    }
    if (fn->ops && fn->ops->config_write && is_hooked(fn, offset, size))
        fn->ops->config_write(fn->device, offset, size, value);
    if (vpci_command(fn) != command || range_overlaps(offset, size, PCI_BAR0, 4 * VPCI_BARS))
        vpci_map_bars(pci);
    if (vpci_command(fn) != command || (fn->msix.count && range_overlaps(offset, size, fn->msix.offset, 4))) {
        vpci_update_intx(fn);
        vpci_msix_flush(fn);
    }
    if (vpci_command(fn) != command && fn->ops && fn->ops->command_changed)
        fn->ops->command_changed(fn->device);
}

/* ---- Ports 0xcf8 to 0xcff ---- */

static uint64_t port_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    struct vpci *pci = device;
    const struct vpci_wiring *wiring = &pci->wiring;
    uint32_t ones = size < 4 ? (1u << 8 * size) - 1 : ~0u;

    if (offset == 0 && size == 4)
        return pci->address;
    if (offset == RESET_CONTROL_OFFSET && size == 1 && wiring->reset_control)
        return wiring->reset_control->read(wiring->reset_control_device, 0, size, now_ns);
    if (offset < 4 || size > 4 || !(pci->address & CONFIG_ENABLE) || pci->address & 0xff0000)
        return ones;
    return vpci_config_read(pci, pci->address >> 11 & 31, pci->address >> 8 & 7,
                            (pci->address & 0xfc) + (unsigned)(offset - 4), size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpci *pci = device;
    const struct vpci_wiring *wiring = &pci->wiring;

    if (offset == 0 && size == 4)
        pci->address = (uint32_t)value & 0x80fffffc;
    else if (offset == RESET_CONTROL_OFFSET && size == 1 && wiring->reset_control)
        wiring->reset_control->write(wiring->reset_control_device, 0, size, value, now_ns);
    else if (offset >= 4 && size <= 4 && pci->address & CONFIG_ENABLE && !(pci->address & 0xff0000))
        vpci_config_write(pci, pci->address >> 11 & 31, pci->address >> 8 & 7,
                          (pci->address & 0xfc) + (unsigned)(offset - 4), size, (uint32_t)value);
}

static const struct vdev_ops port_ops = { .read = port_read, .write = port_write };

/* ---- Building ---- */

void vpci_function_init(struct vpci_function *fn, const struct vpci_function_ops *ops, void *device, uint16_t vendor,
                        uint16_t device_id, uint8_t revision, uint32_t class_code, uint16_t subsystem_vendor,
                        uint16_t subsystem_id)
{
    memset(fn, 0, sizeof(*fn));
    fn->ops = ops;
    fn->device = device;
    fn->cap_next = 0x40;
    vpci_put16(fn->config + PCI_VENDOR_ID, vendor);
    vpci_put16(fn->config + PCI_DEVICE_ID, device_id);
    fn->config[PCI_REVISION] = revision;
    fn->config[PCI_CLASS_PROG] = (uint8_t)class_code;
    vpci_put16(fn->config + PCI_CLASS_PROG + 1, (uint16_t)(class_code >> 8));
    vpci_put16(fn->config + PCI_SUBSYSTEM_VENDOR, subsystem_vendor);
    vpci_put16(fn->config + PCI_SUBSYSTEM_ID, subsystem_id);
    vpci_put16(fn->writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF | 0x0140);
    fn->writable[PCI_CACHE_LINE] = 0xff;
    fn->writable[PCI_INTERRUPT_LINE] = 0xff;
}

enum status vpci_add_bar(struct vpci_function *fn, unsigned bar, uint64_t bytes, bool is_64bit, bool prefetchable,
                         const struct vdev_ops *ops)
{
    uint32_t flags = (is_64bit ? 4u : 0u) | (prefetchable ? 8u : 0u);

    if (bar + (is_64bit ? 1 : 0) >= VPCI_BARS || bytes < 16 || bytes > 2 * GIB || bytes & (bytes - 1))
        return ERR_INVALID;
    if (fn->bar[bar].bytes || (bar && fn->bar[bar - 1].bytes && fn->bar[bar - 1].is_64bit) ||
        (is_64bit && fn->bar[bar + 1].bytes))
        return ERR_INVALID;
    fn->bar[bar] = (struct vpci_bar){ .bytes = bytes, .is_64bit = is_64bit, .prefetchable = prefetchable, .ops = ops };
    vpci_put32(fn->config + PCI_BAR0 + 4 * bar, flags);
    vpci_put32(fn->writable + PCI_BAR0 + 4 * bar, (uint32_t)~(bytes - 1));
    if (is_64bit)
        vpci_put32(fn->writable + PCI_BAR0 + 4 * (bar + 1), ~0u);
    return OK;
}

enum status vpci_add_cap(struct vpci_function *fn, const uint8_t *bytes, unsigned count, unsigned *offset)
{
    unsigned at = fn->cap_next;

    if (count < 2 || !range_within(at, count, sizeof(fn->config)))
        return ERR_NO_MEMORY;
    memcpy(fn->config + at, bytes, count);
    fn->config[at + 1] = 0;
    if (fn->cap_last)
        fn->config[fn->cap_last + 1] = (uint8_t)at;
    else
        fn->config[PCI_CAP_POINTER] = (uint8_t)at;
    fn->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    fn->cap_last = at;
    fn->cap_next = (unsigned)ALIGN_UP(at + count, 4);
    if (offset)
        *offset = at;
    return OK;
}

void vpci_hook_config(struct vpci_function *fn, unsigned offset, unsigned bytes)
{
    fn->hook_base = offset;
    fn->hook_bytes = bytes;
}

static enum status give_addresses(struct vpci *pci, struct vpci_function *fn)
{
    uint64_t next = pci->mmio_next;

    for (unsigned i = 0; i < VPCI_BARS; i++) {
        uint64_t bytes = MAX(fn->bar[i].bytes, PAGE_BYTES); /* no two BARs in one page */

        if (!fn->bar[i].bytes)
            continue;
        next = ALIGN_UP(next, bytes);
        if (!range_within(next, bytes, pci->wiring.mmio_end))
            return ERR_NO_MEMORY;
        fn->bar[i].initial = next;
        vpci_put32(fn->config + PCI_BAR0 + 4 * i,
                   (uint32_t)next | (vpci_get32(fn->config + PCI_BAR0 + 4 * i) & 15));
        next += bytes;
    }
    pci->mmio_next = next;
    return OK;
}

static enum status attach(struct vpci *pci, struct vpci_function *fn, unsigned slot)
{
    uint64_t old_next = pci->mmio_next;

    if (pci->function[slot])
        return ERR_EXISTS;
    if (give_addresses(pci, fn) != OK)
        return ERR_NO_MEMORY;
    fn->bus = pci;
    fn->slot = slot;
    vpci_put16(fn->config + PCI_COMMAND, PCI_COMMAND_MEMORY);
    if (slot) {
        fn->config[PCI_INTERRUPT_LINE] = (uint8_t)vpci_irq(slot);
        fn->config[PCI_INTERRUPT_PIN] = 1;
    }
    memcpy(fn->initial, fn->config, sizeof(fn->initial));
    pci->function[slot] = fn;
    vpci_map_bars(pci);
    for (unsigned i = 0; i < VPCI_BARS; i++) {
        if (!fn->bar[i].bytes || fn->bar[i].is_mapped)
            continue;
        vpci_put16(fn->config + PCI_COMMAND, 0);
        vpci_map_bars(pci); /* takes away what was mapped of it */
        pci->function[slot] = NULL;
        pci->mmio_next = old_next;
        fn->bus = NULL;
        return ERR_NO_MEMORY;
    }
    return OK;
}

enum status vpci_attach(struct vpci *pci, struct vpci_function *fn, unsigned slot)
{
    return slot >= 1 && slot < VPCI_SLOTS ? attach(pci, fn, slot) : ERR_INVALID;
}

enum status vpci_init(struct vpci *pci, const struct vpci_wiring *wiring)
{
    if (wiring->mmio_base >= wiring->mmio_end || wiring->mmio_end > 4 * GIB ||
        (wiring->mmio_base | wiring->mmio_end) & (PAGE_BYTES - 1))
        return ERR_INVALID;
    memset(pci, 0, sizeof(*pci));
    pci->wiring = *wiring;
    pci->mmio_next = wiring->mmio_base;
    /* The registered identity of a generic virtual host bridge, which operating systems have no quirks for. */
    vpci_function_init(&pci->host_bridge, NULL, NULL, 0x1b36, 0x0008, 0, 0x060000, 0x1af4, 0x1100);
    (void)attach(pci, &pci->host_bridge, 0); /* has no BARs: nothing can fail */
    return vbus_add(wiring->ports, VPCI_PORT_BASE, VPCI_PORT_BYTES, &port_ops, pci);
}

void vpci_reset(struct vpci *pci)
{
    pci->address = 0;
    for (unsigned slot = 0; slot < VPCI_SLOTS; slot++) {
        struct vpci_function *fn = pci->function[slot];

        if (!fn)
            continue;
        memcpy(fn->config, fn->initial, sizeof(fn->config));
        vpci_msix_reset(fn);
        fn->intx_wanted = false;
        vpci_update_intx(fn);
    }
    vpci_map_bars(pci);
}
