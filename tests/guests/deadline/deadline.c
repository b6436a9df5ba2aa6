/* SPDX-License-Identifier: MIT */
/*
 * Spins with interrupts off and stores the TSC in memory with each turn. A stretch in which it did not run (longer than
 * gap= microseconds, 5000 by default) is told with the last value before and the first after it, in nanoseconds of the
 * guest's clock (Hyper-V's reference time), so that a test can hold the former against the run deadline:
 *     gap FROM TO
 * interrupts=1 spins with interrupts on; cpuid=1 does nothing but CPUID in between.
 */
#include "guest.h"

static uint64_t reference[512] __attribute__((aligned(4096)));
static volatile uint64_t last;

static uint64_t clock_ns(uint64_t tsc)
{
    return ((uint64_t)(((unsigned __int128)tsc * reference[1]) >> 64) + reference[2]) * 100;
}

void guest_main(void)
{
    uint64_t limit = guest_tsc_hz() / 1000000 * guest_argument_number("gap", 5000);
    bool exits = guest_argument_number("cpuid", 0);
    wrmsr(0x40000021, (uint64_t)reference | 1);
    guest_puts("spinning\n");
    if (guest_argument_number("interrupts", 0))
        interrupts_on();
    last = rdtsc();
    for (;;) {
        if (exits)
            (void)cpuid(0, 0);
        uint64_t now = rdtsc(), gap = now - last;
        if (gap < limit) {
            last = now;
            continue;
        }
        guest_printf("gap %lu %lu\r\n", clock_ns(last), clock_ns(now));
        last = rdtsc();
    }
}
