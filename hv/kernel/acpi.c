/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables (ACPI 6.4, chapter 5): who the CPUs are, where the interrupt controllers are, where the PM timer is, how the
 * machine is reset. Every length comes from firmware and is checked before it is followed. Tables are reached through a
 * small mapping each, for firmware may keep them in memory of any type.
 */
#include "kernel/acpi.h"

#include <string.h>

#include "kernel/log.h"
#include "kernel/vmap.h"

struct PACKED acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision, creator_id, creator_revision;
};
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.4, table 5.4");

struct PACKED acpi_rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
};
_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.4, table 5.3");

#define TABLE_LIMIT (1u << 20)
#define FADT_PM_TIMER_PORT 76
#define FADT_PM_TIMER_LENGTH 91
#define FADT_FLAGS 112
#define FADT_FLAG_RESET BIT(10)
#define FADT_RESET 116 /* a generic address: space, width in bits, offset in bits, access size, address */
#define FADT_RESET_VALUE 128

struct acpi_info acpi_info;

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t total = 0;

    while (count--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

static const struct acpi_header *map_table(uint64_t hpa)
{
    const struct acpi_header *header = vmap_mmio(HPA(hpa), sizeof *header);

    if (!header)
        return NULL;
    uint32_t length = header->length;
    if (length < sizeof *header || length > TABLE_LIMIT) {
        log_warning("acpi: table %.4s at 0x%lx has length %u and is left out", header->signature, hpa, length);
        return NULL;
    }
    header = vmap_mmio(HPA(hpa), length);
    if (header && sum((const uint8_t *)header, length)) {
        log_warning("acpi: table %.4s at 0x%lx has a wrong checksum and is left out", header->signature, hpa);
        return NULL;
    }
    return header;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static void add_cpu(uint32_t apic_id, uint32_t flags)
{
    if (!(flags & 1)) /* enabled; "online capable" is for hot plug */
        return;
    for (unsigned i = 0; i < acpi_info.cpu_count; i++)
        if (acpi_info.cpu_apic_id[i] == apic_id)
            return;
    if (acpi_info.cpu_count == ACPI_CPUS) {
        log_warning("acpi: more than %u CPUs; the one with APIC ID %u stays off", ACPI_CPUS, apic_id);
        return;
    }
    acpi_info.cpu_apic_id[acpi_info.cpu_count++] = apic_id;
}

/* MADT entries: ACPI 6.4, 5.2.12. */
static void read_madt(const struct acpi_header *table)
{
    const uint8_t *p = (const uint8_t *)table + 44, *end = (const uint8_t *)table + table->length;

    if (table->length < 44)
        return;
    acpi_info.apic_page = get32((const uint8_t *)table + 36);
    while (end - p >= 2 && p[1] >= 2 && p[1] <= end - p) {
        unsigned type = p[0], length = p[1];
        if (type == 0 && length >= 8 && p[3] != 0xff) {
            add_cpu(p[3], get32(p + 4));
        } else if (type == 9 && length >= 16) {
            add_cpu(get32(p + 4), get32(p + 8));
        } else if (type == 1 && length >= 12 && acpi_info.ioapic_count < ACPI_IOAPICS) {
            acpi_info.ioapic[acpi_info.ioapic_count].id = p[2];
            acpi_info.ioapic[acpi_info.ioapic_count].address = get32(p + 4);
            acpi_info.ioapic[acpi_info.ioapic_count++].gsi_base = get32(p + 8);
        } else if (type == 2 && length >= 10 && p[3] < 16) {
            acpi_info.isa_irq[p[3]].gsi = get32(p + 4);
            acpi_info.isa_irq[p[3]].flags = (uint16_t)(p[8] | p[9] << 8);
            acpi_info.isa_irq[p[3]].set = true;
        } else if (type == 5 && length >= 12) {
            memcpy(&acpi_info.apic_page, p + 4, 8);
        }
        p += length;
    }
}

/* ACPI 6.4, 5.2.9 and 4.8.3.6: a byte in memory, a port or bus 0's configuration space; anything else is not taken. */
static void read_reset_register(const struct acpi_header *table)
{
    const uint8_t *p = (const uint8_t *)table, *gas = p + FADT_RESET;

    if (table->length <= FADT_RESET_VALUE || !(get32(p + FADT_FLAGS) & FADT_FLAG_RESET) || gas[0] > 2 || gas[1] != 8 || gas[2])
        return;
    acpi_info.reset.space = gas[0];
    memcpy(&acpi_info.reset.address, gas + 4, 8);
    acpi_info.reset.value = p[FADT_RESET_VALUE];
    acpi_info.reset.found = true;
}

static void read_table(const struct acpi_header *table)
{
    const uint8_t *p = (const uint8_t *)table;

    if (!memcmp(table->signature, "APIC", 4)) {
        read_madt(table);
    } else if (!memcmp(table->signature, "FACP", 4)) {
        if (table->length > FADT_PM_TIMER_LENGTH && p[FADT_PM_TIMER_LENGTH] == 4)
            acpi_info.pm_timer_port = (uint16_t)get32(p + FADT_PM_TIMER_PORT);
        read_reset_register(table);
    } else if (!memcmp(table->signature, "MCFG", 4) && table->length >= 60) {
        memcpy(&acpi_info.mcfg_base, p + 44, 8);
        acpi_info.mcfg_first_bus = p[54];
        acpi_info.mcfg_last_bus = p[55];
    }
}

void acpi_init(uint64_t rsdp_hpa)
{
    const struct acpi_rsdp *rsdp = rsdp_hpa ? vmap_mmio(HPA(rsdp_hpa), sizeof *rsdp) : NULL;

    if (!rsdp || memcmp(rsdp->signature, "RSD PTR ", 8) || sum((const uint8_t *)rsdp, 20)) {
        log_warning("acpi: the firmware gave no usable ACPI root; CPUs are taken from the firmware's own list, and clocks and "
                    "interrupt controllers from where PCs have them. If this machine can do ACPI, switch it on in its setup");
        return;
    }
    bool extended = rsdp->revision >= 2 && rsdp->xsdt && !sum((const uint8_t *)rsdp, sizeof *rsdp);
    const struct acpi_header *root = map_table(extended ? rsdp->xsdt : rsdp->rsdt);
    if (!root)
        return;
    size_t entry_bytes = extended ? 8 : 4;
    for (size_t offset = sizeof *root; offset + entry_bytes <= root->length; offset += entry_bytes) {
        uint64_t address = 0;
        memcpy(&address, (const uint8_t *)root + offset, entry_bytes);
        const struct acpi_header *table = address ? map_table(address) : NULL;
        if (table)
            read_table(table);
    }
    acpi_info.found = acpi_info.cpu_count > 0;
    log_info("acpi: %u CPUs, %u IOAPICs", acpi_info.cpu_count, acpi_info.ioapic_count);
}
