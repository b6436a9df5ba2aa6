/* SPDX-License-Identifier: MIT */
/* See tsc.h. No division here is wider than 64 bits by 64, or 128 by 64 with a quotient that is known to fit. */
#include "vmm/tsc.h"

enum status tsc_multiplier(const struct tsc_scaling *scaling, uint32_t guest_khz, uint32_t host_khz,
                           uint64_t *multiplier, uint32_t *rate_khz)
{
    uint64_t value = guest_khz / host_khz, rest = guest_khz % host_khz;
    uint32_t apart = guest_khz > host_khz ? guest_khz - host_khz : host_khz - guest_khz;

    *multiplier = TSC_UNSCALED;
    *rate_khz = host_khz;
    if (!apart)
        return OK;
    if (!scaling->fraction_bits || value >> scaling->integer_bits)
        return apart * 1000000ull <= (uint64_t)host_khz * TSC_TOLERANCE_PPM ? OK : ERR_UNSUPPORTED;
    for (unsigned bits = 0; bits < scaling->fraction_bits; bits += 16) {
        rest <<= 16;
        value = value << 16 | rest / host_khz;
        rest %= host_khz;
    }
    /* To the nearest; the division of two 32-bit numbers cannot come so close to the next power that it overflows. */
    value += rest * 2 >= host_khz;
    *multiplier = value << (TSC_FRACTION_BITS - scaling->fraction_bits);
    *rate_khz = guest_khz;
    return OK;
}

uint64_t tsc_host_ticks(uint64_t multiplier, uint64_t guest)
{
    uint64_t high = guest >> (64 - TSC_FRACTION_BITS), low = guest << TSC_FRACTION_BITS, ticks, rest;

    if (high >= multiplier)
        return UINT64_MAX;
    __asm__("divq %4" : "=a"(ticks), "=d"(rest) : "a"(low), "d"(high), "r"(multiplier) : "cc");
    return ticks == UINT64_MAX ? ticks : ticks + (rest != 0);
}
