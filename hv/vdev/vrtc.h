/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock and CMOS memory of a PC (Motorola MC146818A datasheet): ports 0x70-0x71 and the second bank at
 * 0x72-0x73. Device lock held.
 *
 * The clock shows world time plus what the guest set it off by. World time comes in at init, at restore and whenever
 * the guest's time has stood still (vrtc_set_world): in between it runs with guest time.
 */
#ifndef VDEV_VRTC_H
#define VDEV_VRTC_H

#include "vdev/vdev.h"

#define VRTC_CENTURY 0x32 /* CMOS index of the century, for the FADT */

struct vrtc {
    struct vline irq;          /* ISA interrupt 8, asserted while a flag of register C asks for it */
    struct vtimer timer;
    uint8_t cmos[256];         /* bank 0, then bank 1; time and registers A..D in bank 0 are kept current at access */
    uint8_t index, index_high;
    bool nmi_masked;
    bool stopped;              /* SET, or the divider chain is off: the time registers stand */
    uint64_t world_ns;         /* unix nanoseconds at guest time world_at_ns */
    uint64_t world_at_ns;
    int64_t offset_seconds;    /* clock minus world: whole seconds, which may be negative, */
    uint32_t offset_ns;        /* and 0..999999999 ns */
    uint8_t weekday_offset;    /* guest's day of week minus the calendar's, modulo 7 */
    int64_t seen_second;       /* last clock second whose update and alarm flags were worked out */
    uint64_t origin_ns;        /* tick 0 of the 32768 Hz chain */
    uint64_t seen_tick;        /* last tick of it whose periodic flag was worked out */
};

/* `unix_ns`: world time at guest time `now_ns`. */
void vrtc_init(struct vrtc *rtc, struct vtimer_queue *queue, struct vline irq, uint64_t unix_ns, uint64_t now_ns);
/* The reset line: interrupts off, time and memory kept. */
void vrtc_reset(struct vrtc *rtc, uint64_t now_ns);
/* After a pause: the world's time is `unix_ns` now. An alarm that was passed meanwhile goes off once. */
void vrtc_set_world(struct vrtc *rtc, uint64_t unix_ns, uint64_t now_ns);
/* CMOS bytes outside of the clock (memory sizes, boot order), as firmware leaves them. index 0x0e..0xff. */
void vrtc_set_cmos(struct vrtc *rtc, uint8_t index, uint8_t value);
/* Bit 7 of port 0x70: NMIs of the board (not IPIs) are off. */
bool vrtc_nmi_masked(const struct vrtc *rtc);

/* Ports 0x70-0x73. */
extern const struct vdev_ops vrtc_ops;
enum status vrtc_attach(struct vrtc *rtc, struct vbus *ports) MUST_CHECK;

void vrtc_save(const struct vrtc *rtc, struct stream_writer *w, uint64_t now_ns);
/* `unix_ns`: world time at guest time `now_ns`, the moment of the restore. */
void vrtc_restore(struct vrtc *rtc, struct stream_reader *r, uint64_t unix_ns, uint64_t now_ns);

#endif
