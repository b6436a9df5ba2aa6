/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of a guest's TSC. Pure.
 *
 *     guest TSC = (host TSC * multiplier >> 48) + offset
 *
 * The multiplier has 48 fractional bits, as VMX has it (SDM vol. 3C, 25.6.5); SVM's ratio has 32 (APM vol. 2, 15.30.5),
 * which is the same number with the low 16 bits clear. What is computed here is what the CPU computes, to the last bit:
 * both cut the product, add the offset after it, and let the sum wrap.
 *
 * A guest's TSC is said to run at the frequency of its CPU model, whatever the host's is. A host that can scale makes
 * it so. One that cannot runs a guest at its own rate where the two are close: two measurements of equal CPUs differ by
 * that much, and a guest's own discipline of its clock (NTP corrects 500 ppm) takes it. Beyond that it refuses.
 */
#ifndef VMM_TSC_H
#define VMM_TSC_H

#include "kernel/status.h"
#include "kernel/types.h"

#define TSC_FRACTION_BITS 48
#define TSC_UNSCALED BIT(TSC_FRACTION_BITS) /* the multiplier 1 */
#define TSC_TOLERANCE_PPM 250u

/* What a CPU can multiply with; fraction_bits 0: nothing but 1. */
struct tsc_scaling {
    uint8_t integer_bits, fraction_bits; /* at most 16, and 32 or 48 */
};

/* The guest's TSC at a host TSC, without its offset. */
static inline uint64_t tsc_scale(uint64_t multiplier, uint64_t host)
{
    return (uint64_t)((unsigned __int128)host * multiplier >> TSC_FRACTION_BITS);
}

/*
 * The multiplier for a guest of `guest_khz` on a host of `host_khz` (neither 0), and *rate_khz, the frequency at which
 * the guest's TSC then really runs: guest_khz where the CPU scales, host_khz where it need not or cannot.
 * ERR_UNSUPPORTED: it cannot, and the frequencies are too far apart.
 */
enum status tsc_multiplier(const struct tsc_scaling *scaling, uint32_t guest_khz, uint32_t host_khz,
                           uint64_t *multiplier, uint32_t *rate_khz) MUST_CHECK;

/*
 * The fewest ticks of the host's TSC in which the guest's moves on by `guest` ticks or more, whenever they begin;
 * UINT64_MAX if there are not so many.
 */
uint64_t tsc_host_ticks(uint64_t multiplier, uint64_t guest);

#endif
