/* SPDX-License-Identifier: MIT */
/*
 * The guest's ACPI tables. Laid out in one run: RSDP, FACS (64-byte aligned), then DSDT, FADT, MADT, RSDT and XSDT,
 * each on 16 bytes, in the order in which they point to each other. Every table is written through one bounded writer
 * (struct aml, which is also what the AML comes from), so a short buffer shows at the end and nowhere else.
 */
#include "vdev/vacpi.h"

#include <string.h>

#include "vdev/vacpi_aml.h"
#include "vdev/vgsi.h"
#include "vdev/vpm.h"
#include "vdev/vrtc.h"
#include "vdev/vuart.h"

#define RSDP_BYTES 36u
#define FACS_OFFSET 64u
#define FACS_BYTES 64u

#define FADT_WBINVD BIT(0)
#define FADT_PROC_C1 BIT(2)
#define FADT_NO_SLEEP_BUTTON BIT(5)
#define FADT_NO_FIXED_RTC BIT(6)
#define FADT_TIMER_32 BIT(8)
#define FADT_RESET_REGISTER BIT(10)
#define BOOT_LEGACY_DEVICES 0x01u
#define BOOT_NO_VGA 0x04u
#define BOOT_NO_ASPM 0x10u

#define MADT_PCAT_COMPATIBLE 1u
#define INTI_CONFORMS 0u
#define INTI_HIGH_LEVEL 0x0du

static uint8_t byte_sum(const uint8_t *bytes, size_t count)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum;
}

static void put_text(struct aml *a, const char *text, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        aml_u8(a, (uint8_t)(*text ? *text++ : ' '));
}

static void zeroes(struct aml *a, size_t count)
{
    while (count--)
        aml_u8(a, 0);
}

static void align(struct aml *a, size_t to)
{
    while (!a->overflow && a->used % to)
        aml_u8(a, 0);
}

/* Begins a table on the next 16 bytes; returns its offset. */
static size_t begin(struct aml *a, const char *signature, uint8_t revision)
{
    align(a, 16);
    size_t at = a->used;
    put_text(a, signature, 4);
    aml_u32(a, 0); /* length, by finish() */
    aml_u8(a, revision);
    aml_u8(a, 0);  /* checksum */
    put_text(a, "TASUKI", 6);
    put_text(a, "TASUKIVM", 8);
    aml_u32(a, 1);
    put_text(a, "TSKI", 4);
    aml_u32(a, 1);
    return at;
}

static void finish(struct aml *a, size_t at)
{
    if (a->overflow)
        return;
    size_t bytes = a->used - at;
    for (unsigned i = 0; i < 4; i++)
        a->bytes[at + 4 + i] = (uint8_t)(bytes >> 8 * i);
    a->bytes[at + 9] = (uint8_t)-byte_sum(a->bytes + at, bytes);
}

/* ---- DSDT ---- */

/* Each slot's four pins, wired to fixed GSIs: those of the I/O APIC's own pins, or the 8259's inputs. */
static void put_routes(struct aml *a, const char *name, unsigned slot_count, bool apic)
{
    aml_name(a, name);
    aml_mark table = aml_package(a, (uint8_t)(slot_count * 4));
    for (unsigned slot = 0; slot < slot_count; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            aml_mark entry = aml_package(a, 4);
            aml_integer(a, (uint64_t)slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_integer(a, 0);
            aml_integer(a, apic ? vgsi_pci(slot, pin) : vgsi_pci_irq(vgsi_pci(slot, pin)));
            aml_close(a, entry);
        }
    }
    aml_close(a, table);
}

/* _PRT (ACPI 6.4, 6.2.13), by what the guest told _PIC. */
static void put_routing(struct aml *a, unsigned slot_count)
{
    put_routes(a, "PRTP", slot_count, false);
    put_routes(a, "PRTA", slot_count, true);
    aml_mark method = aml_method(a, "_PRT", 0);
    aml_mark apic = aml_if(a, "PICM");
    aml_return(a, "PRTA");
    aml_close(a, apic);
    aml_return(a, "PRTP");
    aml_close(a, method);
}

/* \_PIC (ACPI 6.4, 5.8.1): 0 the 8259s, which is also what holds when it is never called, 1 the I/O APIC. */
static void put_interrupt_model(struct aml *a)
{
    aml_name(a, "PICM");
    aml_integer(a, 0);
    aml_mark method = aml_method(a, "_PIC", 1);
    aml_store_arg0(a, "PICM");
    aml_close(a, method);
}

static void put_host_bridge(struct aml *a, const struct vacpi_config *config)
{
    aml_mark device = aml_device(a, "PCI0");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A03");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_BBN");
    aml_integer(a, 0);
    aml_name(a, "_CRS");
    struct aml_resources crs = aml_resources(a);
    aml_bus_range(a, 0, config->bus_last);
    aml_io_ports(a, 0xcf8, 8);
    aml_io_window(a, 0x0000, 0x0cf7);
    aml_io_window(a, 0x0d00, 0xffff);
    if (config->mmio32.bytes)
        aml_memory32_window(a, (uint32_t)config->mmio32.base,
                            (uint32_t)(config->mmio32.base + config->mmio32.bytes - 1));
    if (config->mmio64.bytes)
        aml_memory64_window(a, config->mmio64.base, config->mmio64.base + config->mmio64.bytes - 1);
    aml_resources_close(a, crs);
    if (config->slot_count)
        put_routing(a, config->slot_count);
    aml_close(a, device);
}

static void put_isa_device(struct aml *a, const char *name, const char *id, unsigned uid, uint16_t port,
                           uint8_t port_count, unsigned irq)
{
    aml_mark device = aml_device(a, name);
    aml_name(a, "_HID");
    aml_eisa_id(a, id);
    aml_name(a, "_UID");
    aml_integer(a, uid);
    aml_name(a, "_CRS");
    struct aml_resources crs = aml_resources(a);
    aml_io_ports(a, port, port_count);
    aml_irq(a, irq);
    aml_resources_close(a, crs);
    aml_close(a, device);
}

static size_t put_dsdt(struct aml *a, const struct vacpi_config *config)
{
    size_t at = begin(a, "DSDT", 2);
    aml_name(a, "_S5");
    aml_mark sleep = aml_package(a, 4);
    aml_integer(a, VPM_SLP_TYP_S5);
    aml_integer(a, VPM_SLP_TYP_S5);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_close(a, sleep);
    put_interrupt_model(a);
    aml_mark scope = aml_scope(a, "_SB");
    put_host_bridge(a, config);
    put_isa_device(a, "RTC0", "PNP0B00", 0, 0x70, 4, GSI_RTC);
    if (config->com1)
        put_isa_device(a, "COM1", "PNP0501", 1, VUART_COM1, VUART_PORTS, GSI_COM1);
    aml_close(a, scope);
    finish(a, at);
    return at;
}

/* ---- Static tables ---- */

/* A generic address structure of an I/O port; access: 1 byte, 2 word, 3 dword. */
static void put_port(struct aml *a, uint16_t port, uint8_t bits, uint8_t access)
{
    aml_u8(a, port ? 1 : 0);
    aml_u8(a, port ? bits : 0);
    aml_u8(a, 0);
    aml_u8(a, port ? access : 0);
    aml_u64(a, port);
}

/* ACPI 6.4, table 5.9. What is not named is zero: no SMI port, no GPEs, no C states beyond C1. */
static size_t put_fadt(struct aml *a, const struct vacpi_config *config, uint64_t facs, uint64_t dsdt)
{
    uint16_t pm = config->pm_base;
    size_t at = begin(a, "FACP", 6);
    aml_u32(a, (uint32_t)facs);
    aml_u32(a, (uint32_t)dsdt);
    aml_u8(a, 0);
    aml_u8(a, 0);                      /* power profile: unspecified */
    aml_u16(a, GSI_SCI);
    zeroes(a, 8);                      /* SMI command and its values */
    aml_u32(a, pm);                    /* PM1a event */
    aml_u32(a, 0);
    aml_u32(a, pm + 4u);               /* PM1a control */
    zeroes(a, 8);
    aml_u32(a, pm + 8u);               /* PM timer */
    zeroes(a, 8);
    aml_u8(a, 4);                      /* lengths: PM1 event, PM1 control, PM2, timer */
    aml_u8(a, 2);
    aml_u8(a, 0);
    aml_u8(a, 4);
    zeroes(a, 4);
    aml_u16(a, 0xfff);                 /* C2 and C3 latencies: too long to be there */
    aml_u16(a, 0xfff);
    zeroes(a, 4 + 2 + 2);              /* cache flushing, duty cycle, alarms */
    aml_u8(a, VRTC_CENTURY);
    aml_u16(a, BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM);
    aml_u8(a, 0);
    aml_u32(a, (uint32_t)(FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_TIMER_32
                          | FADT_RESET_REGISTER));
    put_port(a, config->reset_port, 8, 1);
    aml_u8(a, VPM_RESET_VALUE);
    aml_u16(a, 0);
    aml_u8(a, 4);                      /* minor version: 6.4 */
    aml_u64(a, 0);                     /* FACS is below 4 GiB and named above */
    aml_u64(a, dsdt);
    put_port(a, pm, 32, 2);
    put_port(a, 0, 0, 0);
    put_port(a, (uint16_t)(pm + 4), 16, 2);
    put_port(a, 0, 0, 0);
    put_port(a, 0, 0, 0);
    put_port(a, (uint16_t)(pm + 8), 32, 3);
    for (unsigned i = 0; i < 4; i++)   /* GPE0, GPE1, sleep control and status */
        put_port(a, 0, 0, 0);
    put_text(a, "TASUKI", 6);       /* hypervisor vendor */
    zeroes(a, 2);
    finish(a, at);
    return at;
}

static void put_override(struct aml *a, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    aml_u8(a, 2);
    aml_u8(a, 10);
    aml_u8(a, 0);
    aml_u8(a, irq);
    aml_u32(a, gsi);
    aml_u16(a, flags);
}

static size_t put_madt(struct aml *a, const struct vacpi_config *config)
{
    size_t at = begin(a, "APIC", 5);
    aml_u32(a, (uint32_t)APIC_BASE_DEFAULT);
    aml_u32(a, MADT_PCAT_COMPATIBLE);
    for (unsigned cpu = 0; cpu < config->cpu_count; cpu++) {
        aml_u8(a, 0);
        aml_u8(a, 8);
        aml_u8(a, (uint8_t)cpu); /* UID */
        aml_u8(a, (uint8_t)cpu); /* APIC ID */
        aml_u32(a, 1);           /* enabled */
    }
    aml_u8(a, 1); /* I/O APIC */
    aml_u8(a, 12);
    aml_u8(a, config->ioapic_id);
    aml_u8(a, 0);
    aml_u32(a, (uint32_t)VIOAPIC_BASE);
    aml_u32(a, 0);
    put_override(a, GSI_PIT, 2, INTI_CONFORMS);
    put_override(a, GSI_SCI, GSI_SCI, INTI_HIGH_LEVEL);
    aml_u8(a, 4); /* NMI on LINT1 of every processor */
    aml_u8(a, 6);
    aml_u8(a, 0xff);
    aml_u16(a, INTI_CONFORMS);
    aml_u8(a, 1);
    finish(a, at);
    return at;
}

static void put_facs(struct aml *a)
{
    put_text(a, "FACS", 4);
    aml_u32(a, FACS_BYTES);
    zeroes(a, 24);
    aml_u8(a, 2); /* version */
    zeroes(a, FACS_BYTES - 33);
}

/* ACPI 6.4, table 5.3; two checksums, of the first 20 bytes and of all. */
static void put_rsdp(struct aml *a, uint64_t rsdt, uint64_t xsdt)
{
    put_text(a, "RSD PTR ", 8);
    aml_u8(a, 0);
    put_text(a, "TASUKI", 6);
    aml_u8(a, 2);
    aml_u32(a, (uint32_t)rsdt);
    aml_u32(a, RSDP_BYTES);
    aml_u64(a, xsdt);
    zeroes(a, 4);
    if (a->overflow)
        return;
    a->bytes[8] = (uint8_t)-byte_sum(a->bytes, 20);
    a->bytes[32] = (uint8_t)-byte_sum(a->bytes, RSDP_BYTES);
}

static bool window_valid(const struct vacpi_window *window, uint64_t low, uint64_t high)
{
    return !window->bytes || (window->base >= low && range_within(window->base, window->bytes, high));
}

size_t vacpi_build(const struct vacpi_config *config, void *buffer, size_t bytes, uint64_t gpa_base)
{
    if (!config->cpu_count || config->cpu_count > VLAPIC_MAX || config->slot_count > 32 || config->ioapic_id > 15
        || !config->pm_base || config->pm_base > 0xfff0 || !config->reset_port
        || gpa_base % 64 || !range_within(gpa_base, bytes, 4 * GIB) || bytes < FACS_OFFSET + FACS_BYTES
        || !window_valid(&config->mmio32, 0, 4 * GIB) || !window_valid(&config->mmio64, 4 * GIB, UINT64_MAX))
        return 0;
    struct aml a = { .bytes = buffer, .capacity = bytes, .used = FACS_OFFSET };
    memset(buffer, 0, bytes);
    put_facs(&a);
    uint64_t dsdt = gpa_base + put_dsdt(&a, config);
    uint64_t fadt = gpa_base + put_fadt(&a, config, gpa_base + FACS_OFFSET, dsdt);
    uint64_t madt = gpa_base + put_madt(&a, config);
    size_t rsdt = begin(&a, "RSDT", 1);
    aml_u32(&a, (uint32_t)fadt);
    aml_u32(&a, (uint32_t)madt);
    finish(&a, rsdt);
    size_t xsdt = begin(&a, "XSDT", 1);
    aml_u64(&a, fadt);
    aml_u64(&a, madt);
    finish(&a, xsdt);
    if (a.overflow)
        return 0;
    struct aml head = { .bytes = buffer, .capacity = FACS_OFFSET };
    put_rsdp(&head, gpa_base + rsdt, gpa_base + xsdt);
    return a.used;
}

const void *vacpi_find(const void *buffer, size_t bytes, const char *signature, size_t *table_bytes)
{
    const uint8_t *at = buffer;
    for (size_t offset = FACS_OFFSET; offset + 8 <= bytes; offset += 16) {
        if (memcmp(at + offset, signature, 4) != 0)
            continue;
        const uint8_t *length = at + offset + 4;
        size_t size = (size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
        if (!range_within(offset, size, bytes))
            return NULL;
        *table_bytes = size;
        return at + offset;
    }
    return NULL;
}
