/* SPDX-License-Identifier: MIT */
/*
 * CRC-32C in two ways with one result. The tables serve eight bytes a step ("slicing"): table[k][b] is what byte b
 * contributes when k more bytes follow it in the step. They are computed at the first use; two CPUs that do so at the
 * same time write the same values, and `ready` is set after them.
 */
#include "kernel/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* 0x1edc6f41 with its bits reversed */

static uint32_t table[8][256];
static bool ready;
static bool hardware;

static void make_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int k = 1; k < 8; k++)
            table[k][byte] = table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xff];
    __atomic_store_n(&ready, true, __ATOMIC_RELEASE);
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof(value));
    return value;
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t count)
{
    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
        make_tables();
    for (; count >= 8; p += 8, count -= 8) {
        uint64_t word = load64(p) ^ crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= table[7 - k][word >> (8 * k) & 0xff];
    }
    for (; count; p++, count--)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
    return crc;
}

#define BLOCK 256u /* bytes between two looks at the count */

struct block {
    uint8_t bytes[BLOCK];
} __attribute__((packed, may_alias));

static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t count)
{
    uint64_t wide = crc;
    for (; count >= BLOCK; p += BLOCK, count -= BLOCK) {
        const struct block *block = (const void *)p;
        __asm__("crc32q (%1), %0; crc32q 8(%1), %0; crc32q 16(%1), %0; crc32q 24(%1), %0;"
                "crc32q 32(%1), %0; crc32q 40(%1), %0; crc32q 48(%1), %0; crc32q 56(%1), %0;"
                "crc32q 64(%1), %0; crc32q 72(%1), %0; crc32q 80(%1), %0; crc32q 88(%1), %0;"
                "crc32q 96(%1), %0; crc32q 104(%1), %0; crc32q 112(%1), %0; crc32q 120(%1), %0;"
                "crc32q 128(%1), %0; crc32q 136(%1), %0; crc32q 144(%1), %0; crc32q 152(%1), %0;"
                "crc32q 160(%1), %0; crc32q 168(%1), %0; crc32q 176(%1), %0; crc32q 184(%1), %0;"
                "crc32q 192(%1), %0; crc32q 200(%1), %0; crc32q 208(%1), %0; crc32q 216(%1), %0;"
                "crc32q 224(%1), %0; crc32q 232(%1), %0; crc32q 240(%1), %0; crc32q 248(%1), %0"
                : "+r"(wide) : "r"(p), "m"(*block));
    }
    for (; count >= 16; p += 16, count -= 16)
        __asm__("crc32q %1, %0; crc32q %2, %0" : "+r"(wide) : "r"(load64(p)), "r"(load64(p + 8)));
    if (count & 8) {
        __asm__("crc32q %1, %0" : "+r"(wide) : "r"(load64(p)));
        p += 8;
    }
    uint32_t narrow = (uint32_t)wide;
    if (count & 4) {
        uint32_t word;
        memcpy(&word, p, sizeof(word));
        __asm__("crc32l %1, %0" : "+r"(narrow) : "r"(word));
        p += 4;
    }
    for (count &= 3; count; p++, count--)
        __asm__("crc32b %1, %0" : "+r"(narrow) : "r"(*p));
    return narrow;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t count)
{
    if (!count)
        return crc;
    return ~(hardware ? by_instruction(~crc, bytes, count) : by_table(~crc, bytes, count));
}

void crc32c_use_hardware(bool available)
{
    hardware = available;
}
