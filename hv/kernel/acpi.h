/* SPDX-License-Identifier: MIT */
/* The few facts that are read from ACPI tables. No AML. */
#ifndef KERNEL_ACPI_H
#define KERNEL_ACPI_H

#include "kernel/types.h"

#define ACPI_CPUS 256
#define ACPI_IOAPICS 16

/* The FADT's reset register: writing `value` to the byte at `address` restarts the machine (ACPI 6.4, 4.8.3.6). */
struct acpi_reset {
    bool found;
    uint8_t space, value; /* space: 0 memory, 1 port, 2 PCI configuration space of bus 0 */
    uint64_t address;
};

struct acpi_info {
    bool found;
    uint64_t apic_page;
    unsigned cpu_count;
    uint32_t cpu_apic_id[ACPI_CPUS]; /* usable CPUs, in MADT order */
    unsigned ioapic_count;
    struct { uint8_t id; uint32_t address, gsi_base; } ioapic[ACPI_IOAPICS];
    struct { uint32_t gsi; uint16_t flags; bool set; } isa_irq[16]; /* interrupt source overrides */
    uint16_t pm_timer_port;          /* 0: none */
    struct acpi_reset reset;
    uint64_t mcfg_base;              /* PCI segment 0's configuration space; 0: none */
    uint8_t mcfg_first_bus, mcfg_last_bus;
};
extern struct acpi_info acpi_info;

/*
 * Reads RSDP, XSDT or RSDT, MADT, FADT, MCFG. Tables with a wrong length or checksum are named in a warning and left
 * out. `map` gives a pointer to physical memory; tables are only read.
 */
void acpi_init(uint64_t rsdp);

#endif
