/* SPDX-License-Identifier: MIT */
/*
 * PCI and PCI Express configuration space: what devices there are, where their registers lie, how they interrupt.
 *
 * Pure core over two functions that read and write configuration space, so that the tests can play a machine with a
 * bridge that lies or a capability list that loops. drivers/pci_host.h is the machine under it, and what drivers call.
 * Everything is segment 0. Section numbers are those of the PCI Local Bus Specification 3.0 and of the PCI-to-PCI Bridge
 * Architecture Specification 1.2.
 */
#ifndef DRIVERS_PCI_H
#define DRIVERS_PCI_H

#include "kernel/status.h"
#include "kernel/types.h"

#define PCI_BARS 6
#define PCI_MAX_DEVICES 256 /* functions; more are not listed, and said so */

/* Configuration registers (6.1). */
#define PCI_VENDOR 0x00
#define PCI_DEVICE 0x02
#define PCI_COMMAND 0x04
#define PCI_STATUS 0x06
#define PCI_REVISION 0x08
#define PCI_CLASS 0x09 /* interface, sub-class, class */
#define PCI_CACHE_LINE 0x0c
#define PCI_LATENCY 0x0d
#define PCI_HEADER_TYPE 0x0e
#define PCI_BAR0 0x10
#define PCI_SECONDARY_BUS 0x19
#define PCI_SUBORDINATE_BUS 0x1a
#define PCI_CAPABILITIES 0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN 0x3d

#define PCI_COMMAND_IO BIT(0)
#define PCI_COMMAND_MEMORY BIT(1)
#define PCI_COMMAND_MASTER BIT(2)
#define PCI_COMMAND_NO_INTX BIT(10)
#define PCI_STATUS_CAPABILITIES BIT(4)

#define PCI_CAP_POWER 0x01
#define PCI_CAP_MSI 0x05
#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_EXPRESS 0x10
#define PCI_CAP_MSIX 0x11

#define PCI_CLASS_NETWORK 0x02
#define PCI_CLASS_DISPLAY 0x03
#define PCI_CLASS_BRIDGE 0x06

struct pci_address {
    uint8_t bus, device, function;
};

/* The access to configuration space. bytes: 1, 2 or 4; offset is aligned to it. What is not there reads as all ones. */
struct pci_access {
    uint32_t (*read)(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes);
    void (*write)(const struct pci_access *access, struct pci_address at, unsigned offset, unsigned bytes, uint32_t value);
};

enum pci_interrupt { PCI_INTERRUPT_NONE, PCI_INTERRUPT_POLLED, PCI_INTERRUPT_INTX, PCI_INTERRUPT_MSI, PCI_INTERRUPT_MSIX };

struct pci_function {
    struct pci_address at;
    uint16_t vendor, device;
    uint8_t class, subclass, interface, revision;
    uint8_t header;                 /* 0 device, 1 bridge to PCI, 2 to CardBus */
    uint8_t line, pin;              /* as the firmware left them; pin 0: no INTx */
    const char *driver;             /* who has it; NULL: nobody */
    enum pci_interrupt interrupt;   /* what the driver got */
    uint8_t vector;                 /* of its message; private to pci_host.c */
};

/* The devices of a machine. */
struct pci_table {
    unsigned count, left_out;
    struct pci_function function[PCI_MAX_DEVICES];
    uint8_t bus_seen[32];           /* a bit for each bus that was walked */
};

/*
 * Walks bus `bus` and, through bridges, those behind it, and adds what is found to the table; a bus is walked once however
 * bridges point. The table is zeroed before the first call.
 */
void pci_walk(const struct pci_access *access, struct pci_table *table, unsigned bus);
static inline bool pci_bus_seen(const struct pci_table *table, unsigned bus)
{
    return table->bus_seen[bus / 8] >> bus % 8 & 1;
}

/*
 * Takes the right to reach memory by itself away from a function that no driver has, and that to hold up an INTx line, which
 * others may share. Bridges keep both, for they only pass on what is behind them; a display, whose picture may be in RAM,
 * keeps the first. True: the firmware had left it on, and it is off.
 */
bool pci_quiesce(const struct pci_access *access, const struct pci_function *function);

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_MEMORY, PCI_BAR_IO };
struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetchable;
    uint64_t base, bytes;
};
/*
 * Reads and sizes a device's base address registers (6.2.5.1); bar[1] of a 64-bit bar[0] is PCI_BAR_NONE. The device does
 * not decode meanwhile, so nothing may use it. What has no address, wraps or is not a power of two is PCI_BAR_NONE.
 */
void pci_read_bars(const struct pci_access *access, const struct pci_function *function, struct pci_bar bar[PCI_BARS]);

/* The offset of the first capability of that kind behind offset `after` (0: the first of all), or 0. Ends on any list. */
unsigned pci_find_capability(const struct pci_access *access, const struct pci_function *function, unsigned id,
                             unsigned after);

/*
 * Wakes a device that the firmware has left in a state of low power, D1 to D3 (PCI Power Management 1.2, 3.2.4 and 5.4): begin
 * tells whether it is in one and orders it to D0; PCI_WAKE_NS later end gives it back what it may have forgotten of its header.
 */
#define PCI_KEPT 10
#define PCI_WAKE_NS UINT64_C(10000000)
bool pci_wake_begin(const struct pci_access *access, const struct pci_function *function, uint32_t header[PCI_KEPT]) MUST_CHECK;
void pci_wake_end(const struct pci_access *access, const struct pci_function *function, const uint32_t header[PCI_KEPT]);

/* Sets and clears bits of the command register. */
void pci_command(const struct pci_access *access, const struct pci_function *function, uint32_t set, uint32_t clear);

/*
 * Message signalled interrupts (6.8): one message, to the local APIC `apic_id` (below 256) with `vector`, edge-triggered
 * (SDM vol. 3A, 11.11). INTx is switched off. pci_msi_enable: ERR_UNSUPPORTED where there is no capability.
 */
enum status pci_msi_enable(const struct pci_access *access, const struct pci_function *function, uint32_t apic_id,
                           uint8_t vector) MUST_CHECK;
/* Where a function's MSI-X table is, from its capability: a bar, an offset in it, and the number of entries. */
struct pci_msix {
    unsigned capability, bar, entry_count;
    uint64_t offset;
};
/* False: no such capability, or one that points outside the bar. */
bool pci_msix_find(const struct pci_access *access, const struct pci_function *function,
                   const struct pci_bar bar[PCI_BARS], struct pci_msix *msix) MUST_CHECK;
/* Writes message 0 into the mapped table, masks all others, and switches MSI-X on and INTx off. */
void pci_msix_enable(const struct pci_access *access, const struct pci_function *function, const struct pci_msix *msix,
                     volatile uint32_t *table, uint32_t apic_id, uint8_t vector);
void pci_interrupts_off(const struct pci_access *access, const struct pci_function *function);

/* What a function is, in words; never NULL. */
const char *pci_class_name(const struct pci_function *function);
const char *pci_interrupt_name(enum pci_interrupt interrupt);

#endif
