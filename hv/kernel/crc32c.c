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

struct words {
    uint64_t word[8];
} __attribute__((packed, may_alias));

static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t count)
{
    uint64_t wide = crc;
    for (; count >= 64; p += 64, count -= 64) {
        const struct words *w = (const void *)p;
        __asm__("crc32q %1, %0; crc32q %2, %0; crc32q %3, %0; crc32q %4, %0;"
                "crc32q %5, %0; crc32q %6, %0; crc32q %7, %0; crc32q %8, %0"
                : "+r"(wide)
                : "m"(w->word[0]), "m"(w->word[1]), "m"(w->word[2]), "m"(w->word[3]), "m"(w->word[4]), "m"(w->word[5]),
                  "m"(w->word[6]), "m"(w->word[7]));
    }
    for (; count >= 8; p += 8, count -= 8)
        __asm__("crc32q %1, %0" : "+r"(wide) : "r"(load64(p)));
    uint32_t narrow = (uint32_t)wide;
    for (; count; p++, count--)
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
