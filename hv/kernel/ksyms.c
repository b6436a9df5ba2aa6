/* SPDX-License-Identifier: MIT */
/*
 * The lookup in the table of function names that tools/ksyms.py makes from the first link: ksym_table is
 *
 *     u32 count, u32 start[count], u32 name[count], names
 *
 * start: offsets from __text_start, ascending; name: offsets into names, which are NUL-terminated. In the first link,
 * and in any build without the tool, the count is 0.
 */
#include "kernel/ksyms.h"

#include "kernel/layout.h"

extern const uint32_t ksym_table[];

const char *ksym_lookup(uint64_t address, uint64_t *offset)
{
    uint32_t count = ksym_table[0], low = 0, high = count;
    const uint32_t *start = ksym_table + 1, *name = start + count;
    uint64_t at = address - (uint64_t)__text_start;

    if (address < (uint64_t)__text_start || address >= (uint64_t)__text_end || !count || at < start[0])
        return 0;
    /* start[low] <= at < start[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (start[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    *offset = at - start[low];
    return (const char *)(name + count) + name[low];
}
