/* SPDX-License-Identifier: MIT */
/*
 * A neighbour: counts, with a line each 50 ms of its time, and watches over its memory: a pattern in all RAM that the
 * program does not use must stay as it was. Never ends.
 *     count N
 *     fail memory at ADDRESS: expected X, got Y
 */
#include "guest.h"

#define LINE_US 50000

static uint64_t pattern(uint64_t address)
{
    return address * 0x9e3779b97f4a7c15ull ^ 0x5bd1e995;
}

void guest_main(void)
{
    uint64_t begin = guest_program_end(), end = guest_ram_end(), at = begin;
    for (uint64_t p = begin; p < end; p += 8)
        *(volatile uint64_t *)p = pattern(p);
    for (uint64_t count = 1;; count++) {
        uint64_t until = rdtsc() + guest_tsc_hz() / 1000000 * LINE_US;
        while (rdtsc() < until) {
            for (unsigned i = 0; i < 64; i++) {
                uint64_t got = *(volatile uint64_t *)at;
                if (got != pattern(at))
                    guest_printf("fail memory at 0x%lx: expected 0x%lx, got 0x%lx\r\n", at, pattern(at), got);
                at = at + 8 < end ? at + 8 : begin;
            }
        }
        guest_printf("count %lu\r\n", count);
    }
}
