/* SPDX-License-Identifier: MIT */
/*
 * Filling the cache of instruction lengths. vmm/length_cache.h is the description. Pure: guest memory is reached through
 * emu_ops.peek only. The walk here follows entries that the CPU itself has just used for the fetch, so it checks nothing
 * but that they lead on; a pointer that cannot be had means only that nothing is kept.
 */
#include "vmm/length_cache.h"

#include "vmm/emulate.h"

#define NO_RIP 0x8000000000000000ull /* not canonical */
#define PTE_P BIT(0)
#define PTE_PS BIT(7)
#define PTE_ADDRESS 0x000ffffffffff000ull

void length_cache_clear(struct length_cache *cache)
{
    for (unsigned i = 0; i < LENGTH_CACHE_ENTRIES; i++)
        cache->entry[i].rip = NO_RIP;
}

void length_cache_put(struct length_cache *cache, const struct cpu_state *state, const struct emu_ops *ops, unsigned length)
{
    struct length_cache_entry e = { .rip = state->rip, .cr3 = state->cr3, .length = length };
    uint64_t table = state->cr3 & PTE_ADDRESS, offset_mask = PAGE_BYTES - 1;
    unsigned level = 0;

    if (!ops->peek || !cpu_mode64(state) || !(state->cr0 & CR0_PG) || (state->cr4 & CR4_LA57) || length == 0 || length > 8 ||
        (e.rip & (PAGE_BYTES - 1)) > PAGE_BYTES - 8)
        return;
    for (; level < LENGTH_CACHE_LEVELS; level++) {
        unsigned shift = PAGE_SHIFT + 9 * (LENGTH_CACHE_LEVELS - 1 - level);
        e.slot[level] = ops->peek(ops->context, GPA(table + ((e.rip >> shift) & 511) * 8), 8);
        if (!e.slot[level])
            return;
        e.value[level] = *e.slot[level];
        if (!(e.value[level] & PTE_P))
            return;
        table = e.value[level] & PTE_ADDRESS;
        if (level > 0 && level < LENGTH_CACHE_LEVELS - 1 && (e.value[level] & PTE_PS)) {
            offset_mask = BIT(shift) - 1;
            break;
        }
    }
    for (unsigned last = MIN(level, LENGTH_CACHE_LEVELS - 1u), i = last + 1; i < LENGTH_CACHE_LEVELS; i++) {
        e.slot[i] = e.slot[last];
        e.value[i] = e.value[last];
    }
    e.code = ops->peek(ops->context, GPA((table & ~offset_mask) | (e.rip & offset_mask)), 8);
    if (!e.code)
        return;
    e.mask = length == 8 ? UINT64_MAX : BIT(8 * length) - 1;
    e.bytes = *e.code;
    cache->entry[length_cache_index(e.rip)] = e;
}
