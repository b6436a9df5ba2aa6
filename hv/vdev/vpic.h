/* SPDX-License-Identifier: MIT */
/*
 * The pair of 8259A interrupt controllers of a PC (Intel 8259A datasheet) with the edge/level control registers of the
 * PIIX (ports 0x4d0, 0x4d1). Called with the machine's device lock held, but for vpic_output().
 */
#ifndef VDEV_VPIC_H
#define VDEV_VPIC_H

#include "vdev/vdev.h"

struct vpic_chip {
    uint8_t irr, imr, isr;
    uint8_t lines;        /* input levels */
    uint8_t elcr;         /* bit set: level-triggered */
    uint8_t base;         /* vector of input 0 */
    uint8_t lowest;       /* input of lowest priority, 0..7; 7 after initialisation */
    uint8_t init_step;    /* 0: initialised; else the ICW (2, 3, 4) that the next write to the odd port is */
    bool need_icw4, single;
    bool auto_eoi, rotate_auto, special_mask, special_nested, read_isr, poll;
};

struct vpic {
    struct vpic_chip chip[2]; /* master (inputs 0..7), slave (8..15) */
    struct vline intr;        /* INTR output of the master */
    bool output;
};

/* Power-up: everything masked until a guest programs it. */
void vpic_init(struct vpic *pic, struct vline intr);
void vpic_reset(struct vpic *pic);
/*
 * Which inputs are level-triggered: what firmware writes to ports 0x4d0 and 0x4d1 before it starts a system. A reset
 * makes them all edge-triggered. Bit n is input n; those that cannot be (0, 1, 2, 8, 13) stay edge-triggered.
 */
void vpic_set_levels(struct vpic *pic, uint16_t inputs);
/* An ISA interrupt line 0..15 changed (2, the cascade, is ignored). Fits struct vline: context is the struct vpic. */
void vpic_set_line(void *pic, unsigned irq, bool level);
/* INTR now. Any context: a hint without the lock, the truth with it. */
bool vpic_output(const struct vpic *pic);
/* The CPU's acknowledge cycle: the vector. If the request is gone, the vector of a spurious interrupt (IRQ 7 or 15). */
int vpic_acknowledge(struct vpic *pic);
/*
 * The vector that was acknowledged last has not reached the guest: its input asks again, as if nothing had been. Nothing
 * happens where the input is not in service (a spurious vector, or ended meanwhile), nor for a vector that is not one of the
 * sixteen. With automatic EOI no input ever is in service: any vector of the sixteen is taken for one that was served.
 */
void vpic_return(struct vpic *pic, uint8_t vector);

/* Ports 0x20-0x21, 0xa0-0xa1 and 0x4d0-0x4d1; the device is the struct vpic for all three. */
extern const struct vdev_ops vpic_master_ops, vpic_slave_ops, vpic_elcr_ops;
/* Puts all of them on the port bus. */
enum status vpic_attach(struct vpic *pic, struct vbus *ports) MUST_CHECK;

void vpic_save(const struct vpic *pic, struct stream_writer *w, uint64_t now_ns);
void vpic_restore(struct vpic *pic, struct stream_reader *r, uint64_t now_ns);

#endif
