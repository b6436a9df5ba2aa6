/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables of a guest (ACPI 6.4, chapter 5): RSDP, RSDT, XSDT, FADT, FACS, MADT and a DSDT with the PCI host
 * bridge, its interrupt routing, COM1, the RTC and the soft-off state. Pure: bytes into a buffer.
 *
 * Fixed by the machine: PM registers at pm_base as vpm.h lays them out, SCI on GSI 9 (level, active high), the 8254 on
 * GSI 2, PCI INTx of slot s, pin p on GSI vgsi_pci(s, p), and where the guest uses the 8259s instead (it never calls
 * _PIC, or with 0) on their input vgsi_pci_irq of that GSI. The power button is a fixed feature.
 */
#ifndef VDEV_VACPI_H
#define VDEV_VACPI_H

#include "kernel/types.h"

#define VACPI_BASE 0xf0000ull          /* a good gpa_base: a guest looks for the RSDP within 0xe0000..0xfffff */
#define VACPI_BYTES_MAX 0x4000ull      /* enough for 32 processors and 32 PCI slots */

struct vacpi_window { uint64_t base, bytes; }; /* bytes 0: none */
struct vacpi_config {
    unsigned cpu_count;                /* 1..32; APIC ID = number */
    uint8_t ioapic_id;
    uint16_t pm_base;                  /* VPM_BASE */
    uint16_t reset_port;               /* VPM_CF9_PORT, or pm_base + VPM_RESET_OFFSET */
    bool com1;
    uint8_t bus_last;                  /* PCI buses 0..bus_last */
    unsigned slot_count;               /* slots of bus 0 with an interrupt routing, 0..32 */
    struct vacpi_window mmio32;        /* below 4 GiB */
    struct vacpi_window mmio64;        /* above 4 GiB */
};

/*
 * Writes all tables; the RSDP is the first byte. `gpa_base` is where the guest will see `buffer`; a multiple of 64.
 * Returns the bytes used, or 0 if `bytes` is too few or the configuration is out of range.
 */
size_t vacpi_build(const struct vacpi_config *config, void *buffer, size_t bytes, uint64_t gpa_base);

/* Where a table of `signature` (four characters) lies in what vacpi_build wrote, or NULL; for tests and fuzzing. */
const void *vacpi_find(const void *buffer, size_t bytes, const char *signature, size_t *table_bytes);

#endif
