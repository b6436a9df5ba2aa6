/* SPDX-License-Identifier: MIT */
/*
 * The Internet checksum (RFC 1071), which is most of what a byte costs where the card does not do it. Adds eight bytes
 * at a time with end-around carry: 2^64 = 1 in this arithmetic, so a carry is added where it comes out, and one chain
 * of adds with carry serves 64 bytes. Pure; any context.
 */
#include <string.h>

#include "kernel/types.h"
#include "net/checksum.h"

struct words {
    uint64_t word[8];
} __attribute__((packed, may_alias));

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    bool carry = __builtin_add_overflow(a, b, &sum);

    return sum + carry;
}

uint64_t net_sum(const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint64_t sum = 0, word;

    for (; count >= 64; count -= 64, at += 64) {
        const struct words *w = (const void *)at;
        __asm__("addq %1, %0; adcq %2, %0; adcq %3, %0; adcq %4, %0;"
                "adcq %5, %0; adcq %6, %0; adcq %7, %0; adcq %8, %0; adcq $0, %0"
                : "+r"(sum)
                : "m"(w->word[0]), "m"(w->word[1]), "m"(w->word[2]), "m"(w->word[3]), "m"(w->word[4]), "m"(w->word[5]),
                  "m"(w->word[6]), "m"(w->word[7])
                : "cc");
    }
    for (; count >= 8; count -= 8, at += 8) {
        memcpy(&word, at, sizeof word);
        sum = plus(sum, word);
    }
    if (count) {
        word = 0;
        memcpy(&word, at, count);
        sum = plus(sum, word);
    }
    return sum;
}

uint16_t net_checksum(const void *bytes, int count)
{
    uint64_t sum = net_sum(bytes, count > 0 ? (size_t)count : 0);

    sum = (sum >> 32) + (uint32_t)sum; /* 2^32 = 1, too */
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}
