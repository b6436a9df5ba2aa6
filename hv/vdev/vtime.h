/* SPDX-License-Identifier: MIT */
/*
 * Conversions between guest nanoseconds and the ticks of a device clock, exact for every 64-bit time and every clock
 * up to 1 GHz: a device that computes its deadlines from tick numbers never drifts. No 128-bit division is needed.
 */
#ifndef VDEV_VTIME_H
#define VDEV_VTIME_H

#include "kernel/types.h"

#define NS_PER_SECOND 1000000000ull

/* Whole ticks of a clock of `hz` that have passed at `ns`. */
static inline uint64_t vtime_ticks(uint64_t ns, uint32_t hz)
{
    return ns / NS_PER_SECOND * hz + ns % NS_PER_SECOND * hz / NS_PER_SECOND;
}

/* The first nanosecond at which vtime_ticks() is `ticks`; the end of time if there is none. */
static inline uint64_t vtime_ns(uint64_t ticks, uint32_t hz)
{
    uint64_t seconds = ticks / hz;
    if (seconds >= UINT64_MAX / NS_PER_SECOND)
        return UINT64_MAX - 1;
    return seconds * NS_PER_SECOND + (ticks % hz * NS_PER_SECOND + hz - 1) / hz;
}

#endif
