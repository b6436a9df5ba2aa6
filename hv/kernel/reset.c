/* SPDX-License-Identifier: MIT */
/*
 * The means to restart a PC, from the one that the firmware names to the one that no CPU can refuse. Whether one works is
 * seen only by this code being gone; where it is still there half a second later, the next one's turn comes.
 *
 * Configuration space is reached by ports 0xcf8 and 0xcfc (PCI Local Bus Specification 3.0, 3.2.2.3.2), which nobody else
 * uses any more at that time.
 */
#include "kernel/reset.h"

#include "drivers/uart.h"
#include "kernel/acpi.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "kernel/vmap.h"
#include "kernel/x86.h"

#define WAIT_NS (500 * NS_PER_MS)
#define KEYBOARD_WAIT_NS (50 * NS_PER_MS)

#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define PCI_DEVICES 32u

/* Intel 82371AB (PIIX4), function 3, power management: the datasheet's 7.1 and 7.2. */
#define PIIX4_POWER_ID 0x71138086u
#define PIIX4_POWER_FUNCTION 3u
#define PIIX4_PMREGMISC 0x80u
#define PIIX4_PMIOSE BIT(0) /* the registers at PMBA answer */

#define RESET_PORT 0xcf9
#define RESET_SYSTEM 0x02 /* all of the machine, not only the CPU */
#define RESET_GO 0x04     /* its rising edge resets */

#define KEYBOARD_COMMAND 0x64
#define KEYBOARD_BUSY BIT(1)
#define KEYBOARD_PULSE_RESET 0xfe

/* ACPI's address spaces (ACPI 6.4, 5.2.3.2). */
enum { SPACE_MEMORY, SPACE_PORT, SPACE_PCI };

static volatile uint8_t *reset_register; /* where it lies in memory */

/* ---- PCI configuration space, bus 0 ---- */

static uint32_t pci_address(unsigned device, unsigned function, unsigned offset)
{
    return 0x80000000u | device << 11 | function << 8 | (offset & 0xfcu);
}

static uint32_t pci_read(unsigned device, unsigned function, unsigned offset)
{
    out32(PCI_ADDRESS, pci_address(device, function, offset));
    return in32(PCI_DATA);
}

static void pci_write8(unsigned device, unsigned function, unsigned offset, uint8_t value)
{
    out32(PCI_ADDRESS, pci_address(device, function, offset));
    out8((uint16_t)(PCI_DATA + (offset & 3)), value);
}

/* ---- The means ---- */

static void by_acpi(void)
{
    const struct acpi_reset *r = &acpi_info.reset;

    if (r->space == SPACE_PORT)
        out8((uint16_t)r->address, r->value);
    else if (r->space == SPACE_PCI) /* device in bits 32 to 47, function in 16 to 31, offset in 0 to 15 */
        pci_write8((unsigned)(r->address >> 32) & 31, (unsigned)(r->address >> 16) & 7, (unsigned)r->address & 0xff, r->value);
    else if (reset_register)
        *reset_register = r->value;
}

static void by_chipset(void)
{
    out8(RESET_PORT, RESET_SYSTEM);
    out8(RESET_PORT, RESET_SYSTEM | RESET_GO);
}

static void by_keyboard(void)
{
    uint64_t end = time_now_ns() + KEYBOARD_WAIT_NS;

    while ((in8(KEYBOARD_COMMAND) & KEYBOARD_BUSY) && time_now_ns() < end)
        cpu_pause();
    out8(KEYBOARD_COMMAND, KEYBOARD_PULSE_RESET);
}

static void by_triple_fault(void)
{
    struct PACKED {
        uint16_t limit;
        uint64_t base;
    } no_idt = { 0, 0 };

    __asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
}

static const struct {
    const char *name;
    void (*reset)(void);
} means[] = {
    { "ACPI's reset register", by_acpi },
    { "the chipset's reset port", by_chipset },
    { "the keyboard controller", by_keyboard },
    { "a triple fault", by_triple_fault },
};

/* ---- For others ---- */

void reset_init(void)
{
    const struct acpi_reset *r = &acpi_info.reset;

    if (r->found && r->space == SPACE_MEMORY)
        reset_register = vmap_mmio(HPA(r->address), 1);
}

/*
 * A PIIX4 leaves reset with its power management ports off (PMREGMISC is 0) and their base address 0. Bochs' model of it
 * takes the base away and leaves the ports on; OVMF then takes the base for its own and waits for ever for a timer that
 * counts at another address. Switched off by hand they are as the datasheet has them. From here to the reset the ACPI timer
 * does not count.
 */
void reset_prepare(void)
{
    for (unsigned device = 0; device < PCI_DEVICES; device++) {
        if (pci_read(device, PIIX4_POWER_FUNCTION, 0) != PIIX4_POWER_ID)
            continue;
        uint32_t value = pci_read(device, PIIX4_POWER_FUNCTION, PIIX4_PMREGMISC);
        pci_write8(device, PIIX4_POWER_FUNCTION, PIIX4_PMREGMISC, (uint8_t)(value & ~PIIX4_PMIOSE));
    }
}

void reset_machine(bool log)
{
    irq_disable();
    reset_prepare();
    for (unsigned i = 0; i < ARRAY_COUNT(means); i++) {
        if (means[i].reset == by_acpi && !acpi_info.reset.found)
            continue;
        if (log)
            log_warning("power: restarting by %s", means[i].name);
        uart_drain();
        means[i].reset();
        time_spin_ns(WAIT_NS);
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}
