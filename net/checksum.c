/* SPDX-License-Identifier: MIT */
/*
 * The Internet checksum (RFC 1071), which is most of what a byte costs where the card does not do it. Adds eight bytes
 * at a time with end-around carry: 2^64 = 1 in this arithmetic, so a carry is added where it comes out, and one chain
 * of adds with carry serves 256 bytes. Most of what is summed is either a segment's payload or a header of 8 to 60 bytes, so
 * the end takes few steps as well. Pure; any context.
 */
#include "kernel/types.h"
#include "net/checksum.h"

#define BLOCK 256u

struct block {
    uint8_t bytes[BLOCK];
} __attribute__((packed, may_alias));

typedef uint64_t __attribute__((may_alias, aligned(1))) word64;
typedef uint32_t __attribute__((may_alias, aligned(1))) word32;
typedef uint16_t __attribute__((may_alias, aligned(1))) word16;

static inline uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    bool carry = __builtin_add_overflow(a, b, &sum);

    return sum + carry;
}

static inline uint64_t add_block(uint64_t sum, const uint8_t *at)
{
    const struct block *block = (const void *)at;

    __asm__("addq (%1), %0; adcq 8(%1), %0; adcq 16(%1), %0; adcq 24(%1), %0;"
            "adcq 32(%1), %0; adcq 40(%1), %0; adcq 48(%1), %0; adcq 56(%1), %0;"
            "adcq 64(%1), %0; adcq 72(%1), %0; adcq 80(%1), %0; adcq 88(%1), %0;"
            "adcq 96(%1), %0; adcq 104(%1), %0; adcq 112(%1), %0; adcq 120(%1), %0;"
            "adcq 128(%1), %0; adcq 136(%1), %0; adcq 144(%1), %0; adcq 152(%1), %0;"
            "adcq 160(%1), %0; adcq 168(%1), %0; adcq 176(%1), %0; adcq 184(%1), %0;"
            "adcq 192(%1), %0; adcq 200(%1), %0; adcq 208(%1), %0; adcq 216(%1), %0;"
            "adcq 224(%1), %0; adcq 232(%1), %0; adcq 240(%1), %0; adcq 248(%1), %0; adcq $0, %0"
            : "+r"(sum) : "r"(at), "m"(*block) : "cc");
    return sum;
}

uint64_t net_sum(const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint64_t sum = 0;

    for (; count >= BLOCK; count -= BLOCK, at += BLOCK)
        sum = add_block(sum, at);
    for (; count >= 16; count -= 16, at += 16)
        sum = plus(plus(sum, *(const word64 *)at), *(const word64 *)(at + 8));
    if (count & 8) {
        sum = plus(sum, *(const word64 *)at);
        at += 8;
    }
    if (count & 4) {
        sum = plus(sum, *(const word32 *)at);
        at += 4;
    }
    if (count & 2) {
        sum = plus(sum, *(const word16 *)at);
        at += 2;
    }
    return count & 1 ? plus(sum, *at) : sum;
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
