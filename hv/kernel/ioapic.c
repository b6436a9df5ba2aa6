/* SPDX-License-Identifier: MIT */
/*
 * ISA interrupts by way of the I/O APIC. ISA interrupt n is GSI n, edge-triggered and active high, unless the MADT's
 * source overrides say otherwise (ACPI 6.4, 5.2.12.5). What the firmware left unmasked is masked first: nobody here would
 * acknowledge it.
 */
#include "kernel/ioapic.h"

#include "kernel/acpi.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"

#define DEFAULT_ADDRESS 0xfec00000u
#define REG_VERSION 1
#define REG_ENTRY 0x10
#define ENTRY_MASKED BIT(16)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_ACTIVE_LOW BIT(13)
/* MADT flags: two bits each, 3 = active low, level. */
#define OVERRIDE_POLARITY(flags) ((flags) & 3)
#define OVERRIDE_TRIGGER(flags) ((flags) >> 2 & 3)

struct ioapic {
    volatile uint32_t *page;
    uint32_t gsi_base, pin_count;
};

static struct spinlock ioapic_lock = SPINLOCK_INIT("ioapic");
static struct ioapic ioapics[ACPI_IOAPICS];
static unsigned ioapic_count;

static uint32_t ioapic_read(const struct ioapic *io, uint32_t reg)
{
    io->page[0] = reg;
    return io->page[4];
}

static void ioapic_write(const struct ioapic *io, uint32_t reg, uint32_t value)
{
    io->page[0] = reg;
    io->page[4] = value;
}

static void set_entry(const struct ioapic *io, uint32_t pin, uint64_t entry)
{
    ioapic_write(io, REG_ENTRY + pin * 2, (uint32_t)ENTRY_MASKED);
    ioapic_write(io, REG_ENTRY + pin * 2 + 1, (uint32_t)(entry >> 32));
    ioapic_write(io, REG_ENTRY + pin * 2, (uint32_t)entry);
}

static void add(uint32_t address, uint32_t gsi_base)
{
    struct ioapic *io = &ioapics[ioapic_count];

    io->page = vmap_mmio(HPA(address), PAGE_BYTES);
    if (!io->page)
        return;
    uint32_t version = ioapic_read(io, REG_VERSION);
    if (version == 0 || version == UINT32_MAX)
        return; /* nobody answers */
    io->gsi_base = gsi_base;
    io->pin_count = (version >> 16 & 0xff) + 1;
    for (uint32_t pin = 0; pin < io->pin_count; pin++)
        set_entry(io, pin, ENTRY_MASKED);
    ioapic_count++;
}

void ioapic_init(void)
{
    for (unsigned i = 0; i < acpi_info.ioapic_count; i++)
        add(acpi_info.ioapic[i].address, acpi_info.ioapic[i].gsi_base);
    if (!acpi_info.ioapic_count)
        add(DEFAULT_ADDRESS, 0);
}

/* The I/O APIC and pin of an ISA interrupt, and its flags; NULL: none has it. */
static const struct ioapic *find(unsigned irq, uint32_t *pin, uint16_t *override)
{
    uint32_t gsi = irq;

    *override = 0;
    if (irq >= ARRAY_COUNT(acpi_info.isa_irq))
        return NULL;
    if (acpi_info.isa_irq[irq].set) {
        gsi = acpi_info.isa_irq[irq].gsi;
        *override = acpi_info.isa_irq[irq].flags;
    }
    for (unsigned i = 0; i < ioapic_count; i++) {
        if (gsi >= ioapics[i].gsi_base && gsi - ioapics[i].gsi_base < ioapics[i].pin_count) {
            *pin = gsi - ioapics[i].gsi_base;
            return &ioapics[i];
        }
    }
    return NULL;
}

/* An ISA interrupt is an edge where the MADT says nothing else; one that PCI devices share is a level. */
static bool route(unsigned irq, bool level, void (*handler)(void *arg), void *arg)
{
    uint32_t pin, apic = this_cpu()->apic_id;
    uint16_t override;
    const struct ioapic *io = find(irq, &pin, &override);
    uint8_t vector = io && apic <= 0xff ? trap_alloc_vector() : 0; /* an 8-bit destination: others need remapping */

    if (!vector)
        return false;
    trap_set_handler(vector, handler, arg);
    uint64_t flags = spin_lock_irqsave(&ioapic_lock);
    set_entry(io, pin, (uint64_t)apic << 56 | vector | (level || OVERRIDE_TRIGGER(override) == 3 ? ENTRY_LEVEL : 0) |
                           (OVERRIDE_POLARITY(override) == 3 ? ENTRY_ACTIVE_LOW : 0));
    spin_unlock_irqrestore(&ioapic_lock, flags);
    return true;
}

void ioapic_mask_isa(unsigned irq)
{
    uint32_t pin;
    uint16_t override;
    const struct ioapic *io = find(irq, &pin, &override);

    if (!io)
        return;
    uint64_t flags = spin_lock_irqsave(&ioapic_lock);
    set_entry(io, pin, ENTRY_MASKED);
    spin_unlock_irqrestore(&ioapic_lock, flags);
}

bool ioapic_route_isa(unsigned irq, void (*handler)(void *arg), void *arg)
{
    return route(irq, false, handler, arg);
}

bool ioapic_route_pci(unsigned irq, void (*handler)(void *arg), void *arg)
{
    return route(irq, true, handler, arg);
}
