/* SPDX-License-Identifier: MIT */
/*
 * The ways to reset a PC: the reset control register 0xcf9, the register that the FADT names, the keyboard controller,
 * port 0x92, a triple fault. Each must bring the machine back as it was when it was switched on: the kernel is loaded
 * anew, devices and CPU have lost what the last life did to them, and only CMOS is as it was left. So CMOS holds which
 * life this is, what went wrong in earlier ones, and what the machine looked like in the first.
 */
#include "guest.h"

#define CMOS_LIFE 0x50
#define CMOS_WRONG 0x51 /* a byte for each life */
#define CMOS_LOOKS 0x58 /* four bytes for each part */
#define IOAPIC 0xfec00000ull
#define PCI_ENABLE 0x80000000u

static volatile uint64_t mark = 0x600d;

static uint8_t cmos_read(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void cmos_write(uint8_t index, uint8_t value)
{
    outb(0x70, index);
    outb(0x71, value);
}

static uint32_t pci_read(unsigned slot, unsigned reg)
{
    outl(0xcf8, PCI_ENABLE | slot << 11 | reg);
    return inl(0xcfc);
}

static void pci_write(unsigned slot, unsigned reg, uint32_t value)
{
    outl(0xcf8, PCI_ENABLE | slot << 11 | reg);
    outl(0xcfc, value);
}

static uint32_t ioapic_read(uint32_t reg)
{
    mmio_write32(IOAPIC, reg);
    return mmio_read32(IOAPIC + 0x10);
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
    mmio_write32(IOAPIC, reg);
    mmio_write32(IOAPIC + 0x10, value);
}

static uint32_t mix(uint32_t sum, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8)
        sum = (sum ^ (value & 0xff)) * 16777619u; /* FNV-1a */
    return sum;
}

enum part { CPU, APIC, IO_APIC, PIC, PCI, SERIAL, KERNEL, PARTS };
static const char *const part_names[PARTS] = { "MSRs", "local APIC", "IOAPIC", "8259", "PCI", "serial port", "kernel" };

/* What a reset must bring back, a number for each part. */
static void look(uint32_t sum[PARTS])
{
    static const uint32_t msrs[] = { MSR_APIC_BASE, 0x277, 0x2ff, 0x200, 0x174, 0xc0000102 };
    static const unsigned apic[] = { APIC_TPR, APIC_LDR, APIC_SVR, APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
                                     APIC_LVT_ERROR, APIC_TIMER_COUNT, APIC_TIMER_DIVIDE };

    for (unsigned i = 0; i < PARTS; i++)
        sum[i] = 2166136261u;
    for (unsigned i = 0; i < COUNT(msrs); i++)
        sum[CPU] = mix(sum[CPU], rdmsr(msrs[i]));
    for (unsigned i = 0; i < COUNT(apic); i++)
        sum[APIC] = mix(sum[APIC], apic_read(apic[i]));
    for (uint32_t reg = 0x10; reg < 0x40; reg++)
        sum[IO_APIC] = mix(sum[IO_APIC], ioapic_read(reg));
    sum[PIC] = mix(sum[PIC], inb(0x21) | inb(0xa1) << 8 | (uint32_t)inb(0x4d0) << 16 | (uint32_t)inb(0x4d1) << 24);
    for (unsigned slot = 0; slot < 4; slot++)
        for (unsigned reg = 0; reg < 0x40; reg += 4)
            sum[PCI] = mix(sum[PCI], pci_read(slot, reg));
    sum[SERIAL] = mix(sum[SERIAL], inb(0x3f9) | inb(0x3fb) << 8 | (uint32_t)inb(0x3fc) << 16);
    sum[KERNEL] = mix(sum[KERNEL], mark);
}

/* Leaves traces in all that look() looks at. */
static void spoil(void)
{
    wrmsr(0x277, 0x0606060606060606);
    wrmsr(0x2ff, 0xc00);
    wrmsr(0x200, 0x12345000);
    wrmsr(0x174, 0x10);
    wrmsr(0xc0000102, 0x1234);
    apic_write(APIC_TPR, 0x20);
    apic_write(APIC_LDR, 0x5000000);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_LVT_ERROR, 0x77);
    apic_write(APIC_LVT_TIMER, 0x20078);
    apic_write(APIC_TIMER_COUNT, 0x10000000);
    for (uint32_t reg = 0x10; reg < 0x40; reg += 2)
        ioapic_write(reg, 0x18000 | reg);
    outb(0x21, 0x12);
    outb(0xa1, 0x34);
    outb(0x4d0, 0x20);
    outb(0x4d1, 0x02);
    for (unsigned slot = 1; slot < 4; slot++) {
        pci_write(slot, 0x10, 0xe8000000u + slot * 0x100000);
        pci_write(slot, 0x04, 0x407);
        pci_write(slot, 0x3c, 5);
    }
    outb(0x3fc, 0x1b);
    mark = 0xbad;
}

static const uint8_t *find_table(const char *signature)
{
    for (const uint8_t *p = (const uint8_t *)0xe0000ull; p < (const uint8_t *)0x100000ull; p += 16) {
        if (memcmp(p, "RSD PTR ", 8))
            continue;
        const uint8_t *xsdt = (const uint8_t *)*(const uint64_t *)(p + 24);
        for (uint32_t at = 36; at < *(const uint32_t *)(xsdt + 4); at += 8) {
            uint64_t address;
            memcpy(&address, xsdt + at, 8);
            if (!memcmp((const void *)address, signature, 4))
                return (const uint8_t *)address;
        }
    }
    return NULL;
}

/* ACPI 6.4, 5.2.9: flag 10 of the FADT says that the register is there. */
static void reset_by_acpi(void)
{
    const uint8_t *fadt = find_table("FACP");
    uint64_t port = 0;

    if (!guest_check("there is a FADT with a reset register in I/O space",
                     fadt && (*(const uint32_t *)(fadt + 112) & BIT(10)) && fadt[116] == 1))
        return;
    memcpy(&port, fadt + 120, 8);
    outb((uint16_t)port, fadt[128]);
}

static void reset_by(unsigned life)
{
    static const uint64_t no_idt[2];

    switch (life) {
    case 0: outb(0xcf9, 0x02); outb(0xcf9, 0x06); break;
    case 1: reset_by_acpi(); break;
    case 2: outb(0x64, 0xfe); break;
    case 3: outb(0x92, 0x03); break;
    case 4: __asm__ volatile("lidt %0; int3" : : "m"(no_idt)); break;
    }
    guest_delay_us(200000);
    guest_check("the machine is reset", false);
    guest_finish();
}

void guest_main(void)
{
    static const char *const ways[] = { "port 0xcf9", "ACPI's reset register", "the keyboard controller", "port 0x92",
                                        "a triple fault" };
    unsigned life = cmos_read(CMOS_LIFE);
    uint32_t now[PARTS], spoilt[PARTS];
    uint8_t wrong = 0;

    look(now);
    for (unsigned part = 0; part < PARTS; part++) {
        for (unsigned i = 0; i < 4; i++) {
            uint8_t index = (uint8_t)(CMOS_LOOKS + part * 4 + i), byte = (uint8_t)(now[part] >> (8 * i));
            if (life == 0)
                cmos_write(index, byte);
            else if (cmos_read(index) != byte)
                wrong |= (uint8_t)BIT(part);
        }
    }
    cmos_write((uint8_t)(CMOS_WRONG + life), wrong);
    if (life < COUNT(ways)) {
        spoil();
        look(spoilt);
        for (unsigned part = 0; part < PARTS; part++)
            if (spoilt[part] == now[part])
                guest_printf("fail %s cannot be spoilt, so what a reset does there is not seen\n", part_names[part]);
        cmos_write(CMOS_LIFE, (uint8_t)(life + 1));
        reset_by(life);
    }
    /* What firmware would have set up: a system may use the 8259s for PCI as it finds them. */
    guest_equal("level-triggered inputs of the 8259s (ELCR)", 0x0e00, inb(0x4d0) | inb(0x4d1) << 8);
    for (unsigned slot = 1; slot < 3; slot++)
        guest_equal("Interrupt Line and Pin", 0x0100u | (slot % 2 ? 11 : 10), pci_read(slot, 0x3c) & 0xffff);
    for (unsigned i = 0; i < COUNT(ways); i++) {
        guest_note("reset by %s", ways[i]);
        for (unsigned part = 0; part < PARTS; part++) {
            guest_equal(part_names[part], 0, cmos_read((uint8_t)(CMOS_WRONG + i + 1)) >> part & 1);
        }
    }
}
