/* SPDX-License-Identifier: MIT */
/* The host's I/O APICs (82093AA datasheet), as far as ISA interrupts, and PCI interrupts that are routed to them, go. */
#ifndef KERNEL_IOAPIC_H
#define KERNEL_IOAPIC_H

#include "kernel/types.h"

/* Finds them: the MADT's, else the one where every PC has it, if something answers there. All pins are masked. */
void ioapic_init(void);

/*
 * Delivers ISA interrupt 0..15 to this CPU: handler(arg) runs there with interrupts off. false: no I/O APIC has that pin,
 * or no vector is left; the device has to be polled then. Thread context.
 */
bool ioapic_route_isa(unsigned irq, void (*handler)(void *arg), void *arg) MUST_CHECK;
/* The same for an ISA interrupt that a chipset's PCI lines are routed to: a level, with the polarity of the ISA interrupt. */
bool ioapic_route_pci(unsigned irq, void (*handler)(void *arg), void *arg) MUST_CHECK;
/* Takes a routing back: the interrupt does not arrive any more. Any context. */
void ioapic_mask_isa(unsigned irq);

#endif
