/* SPDX-License-Identifier: MIT */
/*
 * Indexes that a guest chooses. A branch that refuses one that is too large may be predicted to let it pass, and what is
 * then loaded from behind the array, before the CPU finds out, leaves a trace in the cache that the guest can measure
 * (bounds check bypass, Spectre variant 1). So such an index goes through here after its check: arithmetic is not predicted.
 */
#ifndef KERNEL_INDEX_MASK_H
#define KERNEL_INDEX_MASK_H

#include "kernel/types.h"

/* `index` where it is below `count`, else 0. */
static inline uint64_t index_mask(uint64_t index, uint64_t count)
{
    uint64_t mask;

    /* The carry of the comparison is all bits set where index < count. */
    __asm__("cmpq %2, %1; sbbq %0, %0" : "=r"(mask) : "r"(index), "rm"(count) : "cc");
    return index & mask;
}

/*
 * `index` modulo `count`, a power of 2: one instruction, where the array is as large. The empty statement keeps the compiler
 * from leaving it out because of the check.
 */
static inline uint64_t index_wrap(uint64_t index, uint64_t count)
{
    __asm__("" : "+r"(index));
    return index & (count - 1);
}

#endif
