/* SPDX-License-Identifier: MIT */
/*
 * The 8254 interval timer (Intel 8254 datasheet), 1193182 Hz, and port 0x61 of a PC, which gates channel 2 and shows
 * its output and the refresh toggle. Channel 0's output is a line (ISA interrupt 0), channels 1 and 2 drive nothing.
 * Device lock held.
 *
 * Counters are functions of the tick number, not counted down: a periodic channel keeps its phase for ever. Channel 0
 * served late gives one edge for all the periods that it missed, and never more edges than one in VPIT_MIN_PERIOD_NS.
 */
#ifndef VDEV_VPIT_H
#define VDEV_VPIT_H

#include "vdev/vdev.h"

#define VPIT_HZ 1193182u
#define VPIT_MIN_PERIOD_NS 20000

struct vpit_channel {
    uint8_t mode;           /* 0..5 */
    uint8_t access;         /* 1 low byte, 2 high byte, 3 low then high */
    bool bcd;
    bool gate;
    bool loaded;            /* a count was written after the mode */
    bool counting;          /* modes 1 and 5 wait for the gate to rise; the others count when loaded */
    bool write_high;        /* access 3: the next written byte is the high one */
    bool read_high;
    uint8_t write_low;      /* the low byte that waits for its high byte */
    uint8_t latched;        /* bytes of the latched count still to be read, 0..2 */
    uint16_t latch;
    bool status_latched;
    uint8_t status;
    uint32_t count;         /* 1..65536, as a number; 0 = none yet */
    uint32_t next_count;    /* what the next period (modes 2, 3) or trigger (1, 5) loads; 0 = nothing new */
    uint64_t start_tick;    /* tick of the load or trigger */
    uint64_t paused_ticks;  /* gate low in modes 0, 2, 3, 4: the ticks that had been counted */
};

struct vpit {
    struct vpit_channel channel[3];
    struct vline irq;
    struct vtimer timer;      /* the next edge of channel 0's output */
    uint8_t port61;           /* bits 0 and 1 as written */
    uint64_t origin_ns;       /* tick 0 */
};

void vpit_init(struct vpit *pit, struct vtimer_queue *queue, struct vline irq, uint64_t now_ns);
void vpit_reset(struct vpit *pit, uint64_t now_ns);
/* Ports 0x40-0x43 and 0x61; the device is the struct vpit for both. */
extern const struct vdev_ops vpit_ops, vpit_port61_ops;
enum status vpit_attach(struct vpit *pit, struct vbus *ports) MUST_CHECK;

void vpit_save(const struct vpit *pit, struct stream_writer *w, uint64_t now_ns);
void vpit_restore(struct vpit *pit, struct stream_reader *r, uint64_t now_ns);

#endif
