/* SPDX-License-Identifier: MIT */
/*
 * Configuration space of this machine, and the interrupts of its devices.
 *
 * Configuration space is memory where ACPI's MCFG says so (a megabyte a bus, mapped when the bus is first looked at), else
 * the ports 0xcf8 and 0xcfc, which every PC has. A machine with several sockets has several root buses, which only AML
 * could name: where the chipset is not one of those that are known to have one, the ports are asked for each bus that no
 * bridge led to.
 *
 * INTx: which input of the I/O APIC a slot is wired to is also in AML. On PIIX3 and ICH9 (and the emulators that
 * play them) the firmware routes each slot to an ISA interrupt and says which in the Interrupt Line register, and the I/O
 * APIC has that interrupt at the same number; elsewhere such a device is polled.
 *
 * The table is written at boot, and by the one driver that claims a device; nobody else writes.
 */
#include "drivers/pci_host.h"

#include <stdio.h>

#include "kernel/acpi.h"
#include "kernel/cpu.h"
#include "kernel/heap.h"
#include "kernel/ioapic.h"
#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/thread.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"

#define PORT_ADDRESS 0xcf8
#define PORT_DATA 0xcfc
#define ADDRESS_ENABLE 0x80000000u
#define BUS_BYTES (1u << 20)
#define MSI_CPUS 256 /* an 8-bit destination; others need interrupt remapping */
#define LINE_SHARERS 8
#define UNCLAIMED_LIMIT 1000 /* interrupts of a line in a row that none of its devices wanted */

static struct spinlock config_lock = SPINLOCK_INIT("pci");
static volatile uint8_t *bus_space[256];
static struct pci_table *table;
static bool lines_known, silenced;
static struct spinlock master_lock = SPINLOCK_INIT("pci masters"); /* taken before config_lock */

static struct line {
    bool routed, dead;
    unsigned unclaimed;
    struct { bool (*handler)(void *arg); void *arg; struct pci_function *owner; } sharer[LINE_SHARERS];
} lines[16];
static struct message {
    bool (*handler)(void *arg);
    void *arg;
} messages[256]; /* by vector */

/* ---- Configuration space ---- */

static uint32_t port_read(struct pci_address at, unsigned offset, unsigned bytes)
{
    uint64_t flags = spin_lock_irqsave(&config_lock);

    out32(PORT_ADDRESS, ADDRESS_ENABLE | (uint32_t)at.bus << 16 | (uint32_t)at.device << 11 | (uint32_t)at.function << 8 |
                            (offset & 0xfc));
    uint16_t port = (uint16_t)(PORT_DATA + offset % 4);
    uint32_t value = bytes == 1 ? in8(port) : bytes == 2 ? in16(port) : in32(port);
    spin_unlock_irqrestore(&config_lock, flags);
    return value;
}

static void port_write(struct pci_address at, unsigned offset, unsigned bytes, uint32_t value)
{
    uint64_t flags = spin_lock_irqsave(&config_lock);

    out32(PORT_ADDRESS, ADDRESS_ENABLE | (uint32_t)at.bus << 16 | (uint32_t)at.device << 11 | (uint32_t)at.function << 8 |
                            (offset & 0xfc));
    uint16_t port = (uint16_t)(PORT_DATA + offset % 4);
    if (bytes == 1)
        out8(port, (uint8_t)value);
    else if (bytes == 2)
        out16(port, (uint16_t)value);
    else
        out32(port, value);
    spin_unlock_irqrestore(&config_lock, flags);
}

/* Where a function's configuration space is in memory, or NULL: by ports. */
static volatile uint8_t *function_space(struct pci_address at)
{
    if (!acpi_info.mcfg_base || at.bus < acpi_info.mcfg_first_bus || at.bus > acpi_info.mcfg_last_bus)
        return NULL;
    if (!bus_space[at.bus])
        bus_space[at.bus] = vmap_mmio(HPA(acpi_info.mcfg_base + (uint64_t)at.bus * BUS_BYTES), BUS_BYTES);
    return bus_space[at.bus] ? bus_space[at.bus] + ((uint32_t)at.device << 15 | (uint32_t)at.function << 12) : NULL;
}

static uint32_t host_read(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes)
{
    volatile uint8_t *space = function_space(at);
    (void)access;

    if (!space)
        return port_read(at, offset, bytes);
    space += offset;
    return bytes == 1 ? *space : bytes == 2 ? *(volatile uint16_t *)space : *(volatile uint32_t *)space;
}

static void host_write(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes, uint32_t value)
{
    volatile uint8_t *space = function_space(at);
    (void)access;

    if (!space) {
        port_write(at, offset, bytes, value);
        return;
    }
    space += offset;
    if (bytes == 1)
        *space = (uint8_t)value;
    else if (bytes == 2)
        *(volatile uint16_t *)space = (uint16_t)value;
    else
        *(volatile uint32_t *)space = value;
}

static const struct pci_access host_access = { host_read, host_write };

const struct pci_access *pci_access(void)
{
    return &host_access;
}

uint32_t pci_read(const struct pci_function *f, unsigned offset, unsigned bytes)
{
    return host_read(&host_access, f->at, offset, bytes);
}

/* ---- What there is ---- */

struct pci_function *pci_get(unsigned i)
{
    return table && i < table->count ? &table->function[i] : NULL;
}

void pci_name(const struct pci_function *f, char name[PCI_NAME_BYTES])
{
    snprintf(name, PCI_NAME_BYTES, "%02x:%02x.%x", f->at.bus, f->at.device & 31u, f->at.function & 7u);
}

/* One of the chipsets of which it is known that bus 0 is their only root, and that they route INTx as above. */
static bool known_chipset(void)
{
    struct pci_address host = { 0, 0, 0 };
    uint32_t id = host_read(&host_access, host, PCI_VENDOR, 4);

    return id == 0x12378086 /* 440FX, with PIIX3 */ || id == 0x29c08086 /* Q35, with ICH9 */;
}

static bool answers(unsigned bus)
{
    for (uint8_t device = 0; device < 32; device++)
        if ((port_read((struct pci_address){ (uint8_t)bus, device, 0 }, PCI_VENDOR, 4) & 0xffff) != 0xffff)
            return true;
    return false;
}

void pci_init(void)
{
    unsigned quiet = 0;

    table = kzalloc(sizeof *table);
    if (!table) {
        log_error("pci: no memory for the list of devices, so none can be used");
        return;
    }
    pci_walk(&host_access, table, 0);
    lines_known = known_chipset();
    for (unsigned bus = 1; bus < 256 && !lines_known; bus++)
        if (!pci_bus_seen(table, bus) && answers(bus))
            pci_walk(&host_access, table, bus);
    for (unsigned i = 0; i < table->count; i++)
        quiet += pci_quiesce(&host_access, &table->function[i]);
    log_debug("pci: %u devices; bus mastering was on in %u of them and is off", table->count, quiet);
    if (table->left_out)
        log_warning("pci: %u devices more than the %u that fit the list; they keep what the firmware left them",
                    table->left_out, PCI_MAX_DEVICES);
}

/* ---- For drivers ---- */

enum status pci_claim(struct pci_function *f, const char *driver, struct pci_bar bar[PCI_BARS])
{
    uint32_t header[PCI_KEPT];
    char name[PCI_NAME_BYTES];

    if (f->driver)
        return ERR_BUSY;
    f->driver = driver;
    f->interrupt = PCI_INTERRUPT_NONE;
    if (pci_wake_begin(&host_access, f, header)) {
        thread_sleep_ns(PCI_WAKE_NS);
        pci_wake_end(&host_access, f, header);
        pci_name(f, name);
        log_info("%s %s: the firmware had put it to sleep", driver, name);
    }
    pci_read_bars(&host_access, f, bar);
    pci_command(&host_access, f, PCI_COMMAND_MEMORY | PCI_COMMAND_NO_INTX, PCI_COMMAND_MASTER);
    return OK;
}

volatile void *pci_map(const struct pci_bar *bar, uint64_t bytes)
{
    return bar->kind == PCI_BAR_MEMORY && bar->bytes >= bytes ? vmap_mmio(HPA(bar->base), bytes) : NULL;
}

void pci_master(const struct pci_function *f, bool on)
{
    uint64_t flags = spin_lock_irqsave(&master_lock);

    on = on && !silenced;
    pci_command(&host_access, f, on ? PCI_COMMAND_MASTER : 0, on ? 0 : PCI_COMMAND_MASTER);
    spin_unlock_irqrestore(&master_lock, flags);
}

/* Drivers go on for a moment, on other CPUs: one that has just reset its card may not let it reach memory again. */
void pci_silence(void)
{
    uint64_t flags = spin_lock_irqsave(&master_lock);

    silenced = true;
    spin_unlock_irqrestore(&master_lock, flags);
    for (unsigned i = 0; table && i < table->count; i++)
        if (table->function[i].driver)
            pci_master(&table->function[i], false);
}

/* ---- Interrupts ---- */

/* A handler is taken away by the CPU that it runs on, so never while it runs. */
static void message_arrived(void *arg)
{
    const struct message *message = arg;

    if (message->handler)
        (void)message->handler(message->arg);
}

/*
 * The line stays up until each of its devices has been served. One that stays up although none of them wants anything is
 * held by something else, and would keep this CPU for ever: it is given up, and its devices are polled.
 */
static void line_raised(void *arg)
{
    struct line *line = arg;
    bool claimed = false;

    for (unsigned i = 0; i < LINE_SHARERS; i++) {
        bool (*handler)(void *arg) = __atomic_load_n(&line->sharer[i].handler, __ATOMIC_ACQUIRE);
        if (handler)
            claimed |= handler(line->sharer[i].arg);
    }
    line->unclaimed = claimed ? 0 : line->unclaimed + 1;
    if (line->unclaimed < UNCLAIMED_LIMIT || line->dead)
        return;
    line->dead = true;
    ioapic_mask_isa((unsigned)(line - lines));
    for (unsigned i = 0; i < LINE_SHARERS; i++)
        if (line->sharer[i].handler)
            line->sharer[i].owner->interrupt = PCI_INTERRUPT_POLLED;
    log_error("pci: interrupt line %u is held up by a device that no driver has; the cards on it are polled from now on. Put "
              "them into other slots", (unsigned)(line - lines));
}

static bool listen_to_line(struct pci_function *f, bool (*handler)(void *arg), void *arg)
{
    struct line *line;
    unsigned place = 0;

    if (!lines_known || !f->pin || f->line == 0 || f->line >= ARRAY_COUNT(lines))
        return false;
    line = &lines[f->line];
    while (place < LINE_SHARERS && line->sharer[place].handler)
        place++;
    if (place == LINE_SHARERS || line->dead)
        return false;
    line->sharer[place].owner = f;
    line->sharer[place].arg = arg;
    __atomic_store_n(&line->sharer[place].handler, handler, __ATOMIC_RELEASE);
    if (!line->routed)
        line->routed = ioapic_route_pci(f->line, line_raised, line);
    if (!line->routed) {
        line->sharer[place].handler = NULL;
        return false;
    }
    pci_command(&host_access, f, 0, PCI_COMMAND_NO_INTX);
    return true;
}

enum pci_interrupt pci_listen(struct pci_function *f, const struct pci_bar bar[PCI_BARS], unsigned allow,
                              bool (*handler)(void *arg), void *arg)
{
    struct pci_msix msix;
    bool has_msix = (allow & PCI_ALLOW_MSIX) && pci_msix_find(&host_access, f, bar, &msix);
    bool has_msi = (allow & PCI_ALLOW_MSI) && pci_find_capability(&host_access, f, PCI_CAP_MSI, 0);
    uint32_t apic_id = this_cpu()->apic_id;
    volatile uint32_t *entries = NULL;
    uint8_t vector = (has_msix || has_msi) && apic_id < MSI_CPUS ? trap_alloc_vector() : 0;

    if (vector && has_msix)
        entries = vmap_mmio(HPA(bar[msix.bar].base + msix.offset), (uint64_t)msix.entry_count * 16);
    if (vector) {
        messages[vector].handler = handler;
        messages[vector].arg = arg;
        trap_set_handler(vector, message_arrived, &messages[vector]);
        f->vector = vector;
    }
    if (vector && entries) {
        pci_msix_enable(&host_access, f, &msix, entries, apic_id, vector);
        f->interrupt = PCI_INTERRUPT_MSIX;
    } else if (vector && has_msi && pci_msi_enable(&host_access, f, apic_id, vector) == OK) {
        f->interrupt = PCI_INTERRUPT_MSI;
    } else {
        f->interrupt = listen_to_line(f, handler, arg) ? PCI_INTERRUPT_INTX : PCI_INTERRUPT_POLLED;
    }
    return f->interrupt;
}

void pci_release(struct pci_function *f)
{
    pci_interrupts_off(&host_access, f);
    pci_master(f, false);
    messages[f->vector].handler = NULL;
    for (unsigned i = 0; i < ARRAY_COUNT(lines) * LINE_SHARERS; i++)
        if (lines[i / LINE_SHARERS].sharer[i % LINE_SHARERS].owner == f)
            lines[i / LINE_SHARERS].sharer[i % LINE_SHARERS].handler = NULL;
    f->vector = 0;
    f->interrupt = PCI_INTERRUPT_NONE;
    f->driver = NULL;
}
