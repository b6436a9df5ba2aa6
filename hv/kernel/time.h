/* SPDX-License-Identifier: MIT */
/* The host's clocks: the TSC, calibrated, and the wall clock derived from what the firmware said at boot. */
#ifndef KERNEL_TIME_H
#define KERNEL_TIME_H

#include "kernel/types.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define TIME_NEVER UINT64_MAX

/* Calibrates the TSC: CPUID leaf 15H, else the ACPI PM timer (its port, 0 = none), else the 8254. */
void time_init(uint16_t pm_timer_port, uint64_t unix_time_s, uint64_t tsc_at_exit);
uint64_t time_tsc_khz(void);
/* Nanoseconds since the loader left the firmware. Any context. */
uint64_t time_now_ns(void);
uint64_t time_tsc_to_ns(uint64_t tsc);
/* The length of so many ticks of the TSC; UINT64_MAX if that is more than 584 years. */
uint64_t time_ticks_to_ns(uint64_t ticks);
/* The TSC value at which time_now_ns() reaches ns; UINT64_MAX stays UINT64_MAX. */
uint64_t time_ns_to_tsc(uint64_t ns);
/* UTC, nanoseconds since 1970. */
uint64_t time_unix_ns(void);
/* Waits by spinning: set-up of hardware only. */
void time_spin_ns(uint64_t ns);

#endif
