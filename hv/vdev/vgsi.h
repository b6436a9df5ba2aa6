/* SPDX-License-Identifier: MIT */
/*
 * The wires from the devices to both interrupt controllers: GSI 0..15 reach the 8259 pair (same number) and the I/O
 * APIC (same pin; GSI 0 goes to pin 2). The lines of the PCI bus, GSI 16..23, reach the I/O APIC's pins of their own,
 * and interrupts 10 (the even ones) and 11 (the odd ones) on both controllers, as a chipset's interrupt router sends
 * them to the 8259s. Interrupts 10 and 11 have no other source. A struct vline {vgsi_set_line, gsi, n} is what a device
 * is given. Device lock held.
 *
 * Invariant: interrupts 10 and 11 are asserted while one of the lines that share them is. The I/O APIC's own record of
 * its lines says which are, so there is nothing here to be saved.
 */
#ifndef VDEV_VGSI_H
#define VDEV_VGSI_H

#include "vdev/vioapic.h"
#include "vdev/vpci.h"
#include "vdev/vpic.h"

#define GSI_PIT 0u
#define GSI_COM1 4u
#define GSI_RTC 8u
#define GSI_SCI 9u
/* The inputs of the 8259 pair that firmware makes level-triggered (ELCR): the SCI and those of the PCI bus. */
#define GSI_LEVEL_INPUTS (1u << GSI_SCI | ((1u << VPCI_IRQ_COUNT) - 1) << VPCI_IRQ_BASE)

struct vgsi {
    struct vpic *pic;
    struct vioapic *ioapic;
};

/* The 8259's input that a line of the PCI bus (16..23) reaches. */
static inline unsigned vgsi_pci_irq(unsigned gsi)
{
    return VPCI_IRQ_BASE + (gsi - VPCI_GSI_BASE) % VPCI_IRQ_COUNT;
}

/* Whether one of the PCI bus's lines that share this input is asserted. */
static inline bool vgsi_pci_asserted(const struct vgsi *wires, unsigned irq)
{
    for (unsigned gsi = VPCI_GSI_BASE; gsi < VPCI_GSI_BASE + VPCI_GSI_COUNT; gsi++)
        if (vgsi_pci_irq(gsi) == irq && wires->ioapic->lines >> gsi & 1)
            return true;
    return false;
}

static inline void vgsi_set_line(void *context, unsigned gsi, bool level)
{
    struct vgsi *wires = context;
    if (gsi >= VPCI_GSI_BASE) {
        vioapic_set_line(wires->ioapic, gsi, level);
        gsi = vgsi_pci_irq(gsi);
        level = vgsi_pci_asserted(wires, gsi);
    }
    vpic_set_line(wires->pic, gsi, level);
    vioapic_set_line(wires->ioapic, gsi == GSI_PIT ? 2 : gsi, level);
}

static inline struct vline vgsi_line(struct vgsi *wires, unsigned gsi)
{
    return (struct vline){ vgsi_set_line, wires, gsi };
}

/*
 * The GSI of a PCI interrupt pin (0 = INTA) of a slot on bus 0: what _PRT says to a guest that uses the I/O APIC, and
 * what the PCI bus must drive.
 */
static inline unsigned vgsi_pci(unsigned slot, unsigned pin)
{
    return VPCI_GSI_BASE + (slot + pin) % VPCI_GSI_COUNT;
}

#endif
