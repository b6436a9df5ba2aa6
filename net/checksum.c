/* SPDX-License-Identifier: MIT */
/*
 * The Internet checksum (RFC 1071), which is most of what a byte costs where the card does not do it. Adds eight bytes at
 * a time with end-around carry. Pure; any context.
 */
#include <string.h>

#include "kernel/types.h"
#include "net/checksum.h"

uint16_t net_checksum(const void *bytes, int count)
{
    const unsigned char *at = bytes;
    uint64_t sum = 0, word, carry = 0;

    for (; count >= 32; count -= 32, at += 32) {
        uint64_t w[4];
        memcpy(w, at, sizeof w);
        for (unsigned i = 0; i < 4; i++)
            carry += __builtin_add_overflow(sum, w[i], &sum);
    }
    for (; count >= 8; count -= 8, at += 8) {
        memcpy(&word, at, sizeof word);
        carry += __builtin_add_overflow(sum, word, &sum);
    }
    if (count > 0) {
        word = 0;
        memcpy(&word, at, (size_t)count);
        carry += __builtin_add_overflow(sum, word, &sum);
    }
    sum = (sum >> 32) + (uint32_t)sum + carry; /* 2^32 = 1 in this arithmetic, and so is 2^64 */
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}
