/* SPDX-License-Identifier: MIT */
/*
 * Where a guest's RAM lies in its physical address space, and what firmware would say about it (E820). Pure.
 *
 *   0 .. 0x9fc00                   RAM
 *   0x9fc00 .. 0x100000            reserved: EBDA, video memory, ROM area; the ACPI tables are at 0xe0000
 *   1 MiB .. min(ram, 3 GiB)       RAM
 *   0xc0000000 .. 0xfec00000       not listed: PCI devices' memory
 *   0xfec00000 .. 4 GiB            reserved: IOAPIC, local APIC, room for firmware
 *   4 GiB ..                       the RAM beyond 3 GiB
 *
 * A guest's memory is backed in two slots: [0, min(ram, 3 GiB)), which includes the reserved bytes below 1 MiB, and
 * the rest from 4 GiB. So a guest with `ram` bytes has exactly that many bytes of backing, and a byte's place in the
 * backing follows from its address alone.
 */
#ifndef VM_MEMORY_MAP_H
#define VM_MEMORY_MAP_H

#include "kernel/types.h"

#define MEMORY_MAP_EBDA 0x9fc00ull          /* end of conventional RAM */
#define MEMORY_MAP_ACPI 0xe0000ull          /* where ACPI tables go, to 1 MiB */
#define MEMORY_MAP_ACPI_BYTES 0x20000ull
#define MEMORY_MAP_LOW_TOP 0xc0000000ull    /* RAM below 4 GiB ends here at the latest; the PCI window begins */
#define MEMORY_MAP_PCI_END 0xfec00000ull    /* the PCI window ends */
#define MEMORY_MAP_HIGH 0x100000000ull      /* RAM beyond 3 GiB is here */
#define MEMORY_MAP_RANGES 6                 /* at most, of memory_map_build */
#define MEMORY_MAP_SLOTS 2

/* E820 types (ACPI 6.4, table 15.4). */
enum memory_type { MEMORY_RAM = 1, MEMORY_RESERVED = 2, MEMORY_ACPI = 3, MEMORY_NVS = 4 };

struct memory_range {
    uint64_t base, bytes;
    enum memory_type type;
};

/* A run of guest physical addresses with RAM behind it. */
struct memory_slot {
    uint64_t base, bytes;
    uint64_t offset; /* of its first byte in the guest's backing */
};

/*
 * Fills `out` with the map of a guest with `ram_bytes` of RAM (at least 1 MiB; rounded down to 4 KiB), ascending and
 * without overlap. Returns the count, or 0 if `capacity` is less than it (MEMORY_MAP_RANGES always suffices).
 */
unsigned memory_map_build(uint64_t ram_bytes, struct memory_range *out, unsigned capacity);

/* The backing of such a guest: 1 or 2 slots. */
unsigned memory_map_slots(uint64_t ram_bytes, struct memory_slot out[MEMORY_MAP_SLOTS]);

/* True if [base, base + bytes) is inside one RAM range of the map. */
bool memory_map_is_ram(const struct memory_range *map, unsigned count, uint64_t base, uint64_t bytes);

/*
 * The highest (or lowest) multiple of `alignment` (a power of two) at which `bytes` fit into RAM within [low, high),
 * not touching any of the `taken` ranges. UINT64_MAX if there is none.
 */
uint64_t memory_map_place_high(const struct memory_range *map, unsigned count, const struct memory_range *taken,
                               unsigned taken_count, uint64_t bytes, uint64_t alignment, uint64_t low, uint64_t high);
uint64_t memory_map_place_low(const struct memory_range *map, unsigned count, const struct memory_range *taken,
                              unsigned taken_count, uint64_t bytes, uint64_t alignment, uint64_t low, uint64_t high);

#endif
