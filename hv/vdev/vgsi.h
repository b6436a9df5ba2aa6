/* SPDX-License-Identifier: MIT */
/*
 * The wires from the devices to both interrupt controllers: GSI 0..15 reach the 8259 pair (same number) and the I/O
 * APIC (same pin; GSI 0 goes to pin 2), GSI 16..23 the I/O APIC only. A struct vline {vgsi_set_line, gsi, n} is what a
 * device is given. Device lock held.
 */
#ifndef VDEV_VGSI_H
#define VDEV_VGSI_H

#include "vdev/vioapic.h"
#include "vdev/vpic.h"

#define GSI_PIT 0u
#define GSI_COM1 4u
#define GSI_RTC 8u
#define GSI_SCI 9u
#define GSI_PCI_FIRST 16u

struct vgsi {
    struct vpic *pic;
    struct vioapic *ioapic;
};

static inline void vgsi_set_line(void *context, unsigned gsi, bool level)
{
    struct vgsi *wires = context;
    if (gsi < 16)
        vpic_set_line(wires->pic, gsi, level);
    vioapic_set_line(wires->ioapic, gsi == GSI_PIT ? 2 : gsi, level);
}

static inline struct vline vgsi_line(struct vgsi *wires, unsigned gsi)
{
    return (struct vline){ vgsi_set_line, wires, gsi };
}

/* The GSI of a PCI interrupt pin (0 = INTA) of a slot on bus 0: what _PRT says and what the PCI bus must drive. */
static inline unsigned vgsi_pci(unsigned slot, unsigned pin)
{
    return GSI_PCI_FIRST + ((slot + pin) & 7);
}

#endif
