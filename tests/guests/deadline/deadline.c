/* SPDX-License-Identifier: MIT */
/*
 * Spins with interrupts off and stores the TSC in memory with each turn. A stretch in which it did not run (longer than
 * gap= microseconds, 5000 by default) is told with the last value before and the first after it, so that a test can hold the former
 * against the run deadline:
 *     gap FROM TO
 */
#include "guest.h"

static volatile uint64_t last;

void guest_main(void)
{
    uint64_t limit = guest_tsc_hz() / 1000000 * guest_argument_number("gap", 5000);
    guest_note("tsc %lu Hz", guest_tsc_hz());
    guest_puts("spinning\n");
    interrupts_off();
    last = rdtsc();
    for (;;) {
        uint64_t now = rdtsc(), gap = now - last;
        if (gap < limit) {
            last = now;
            continue;
        }
        guest_printf("gap %lu %lu\r\n", last, now);
        last = rdtsc();
    }
}
