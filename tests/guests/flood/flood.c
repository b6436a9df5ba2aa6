/* SPDX-License-Identifier: MIT */
/*
 * Prints numbered lines as fast as it can, once somebody has typed a key: lines= of them, each of 62 characters.
 *     flood ready
 *     line 000000 ...
 *     flood end
 * Never ends.
 */
#include "guest.h"

#define COM1 0x3f8
#define LSR 0x3fd

void guest_main(void)
{
    uint64_t lines = guest_argument_number("lines", 1000);
    char text[] = "line 000000 ................................................\r\n";

    _Static_assert(sizeof text == 64 - 1, "62 characters and an end");
    guest_puts("flood ready\n");
    while (!(inb(LSR) & 1))
        ;
    (void)inb(COM1);
    for (uint64_t i = 0; i < lines; i++) {
        uint64_t number = i;
        for (unsigned digit = 11; digit-- > 5; number /= 10)
            text[digit] = (char)('0' + number % 10);
        for (const char *c = text; *c; c++)
            outb(COM1, (uint8_t)*c);
    }
    guest_puts("flood end\n");
    guest_halt();
}
