/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC (82093AA datasheet; version 0x20 with the EOI register of the ICH family): 24 pins, their redirection
 * entries, messages to the local APICs. Called with the machine's device lock held.
 *
 * A line is logical: true is asserted, whatever the polarity bit of the entry says. Pin 2 is the 8254 (ISA interrupt 0
 * is overridden to it in the MADT), pins 16..23 are PCI INTx.
 */
#ifndef VDEV_VIOAPIC_H
#define VDEV_VIOAPIC_H

#include "vdev/vdev.h"
#include "vdev/vlapic.h"

#define VIOAPIC_PINS 24
#define VIOAPIC_BASE 0xfec00000ull
#define VIOAPIC_BYTES 0x1000ull

struct vioapic {
    struct vlapic_bus *bus;
    uint32_t id;                   /* 0..15 */
    uint8_t index;
    uint32_t lines;                /* bit per pin: asserted */
    uint64_t entry[VIOAPIC_PINS];
    uint8_t sent[VIOAPIC_PINS];    /* vector of the message that set remote IRR */
};

/* Power-up: all masked. `bus` outlives it. */
void vioapic_init(struct vioapic *io, struct vlapic_bus *bus, uint32_t id);
void vioapic_reset(struct vioapic *io);
/* A line changed. Fits struct vline: context is the struct vioapic. Pins that do not exist are ignored. */
void vioapic_set_line(void *io, unsigned pin, bool level);
/* An APIC ended a level-triggered interrupt with this vector: entries that wait for it may send again. */
void vioapic_eoi(struct vioapic *io, uint8_t vector);
/* For the MMIO bus at VIOAPIC_BASE; the device is the struct vioapic. */
extern const struct vdev_ops vioapic_ops;

/* Section bodies; restore takes all or nothing. */
void vioapic_save(const struct vioapic *io, struct stream_writer *w, uint64_t now_ns);
void vioapic_restore(struct vioapic *io, struct stream_reader *r, uint64_t now_ns);

#endif
