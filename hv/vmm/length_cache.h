/* SPDX-License-Identifier: MIT */
/*
 * Lengths of instructions that have exited before, for CPUs that do not report them. Finding a length in guest memory is a
 * walk of the guest's page tables, which costs more than the rest of an exit; an instruction that exits usually does so
 * again from the same place.
 *
 * A hit is never a guess. An entry holds where the walk went: host pointers to the page-table entries and to the code, and
 * what was read there. It is used only while RIP and CR3 are the same, those entries still have these values, and the
 * code's bytes are the same. Only 64-bit code under four-level paging is kept, and only that may be looked up: a caller
 * that does not look at CR0, CR4 and EFER each time empties the cache when one of them is changed.
 *
 * Invariant: pointers of an entry are to guest RAM, which stays where it is as long as the VM.
 */
#ifndef VMM_LENGTH_CACHE_H
#define VMM_LENGTH_CACHE_H

#include "kernel/types.h"
#include "vmm/cpu_state.h"

struct emu_ops;

#define LENGTH_CACHE_ENTRIES 16
#define LENGTH_CACHE_LEVELS 4

struct length_cache_entry {
    uint64_t rip, cr3; /* an empty entry has a RIP that no CPU can have */
    const volatile uint64_t *slot[LENGTH_CACHE_LEVELS]; /* of a large page: the last one again */
    uint64_t value[LENGTH_CACHE_LEVELS];
    const volatile uint64_t *code; /* eight bytes that do not cross a page */
    uint64_t bytes, mask;          /* what they hold, and which of them are the instruction's */
    uint64_t length;
    uint64_t unused[2]; /* a power of two in size: an index becomes an address by a shift */
};
_Static_assert(sizeof(struct length_cache_entry) == 128, "size of a cache entry");

struct length_cache {
    struct length_cache_entry entry[LENGTH_CACHE_ENTRIES];
};

static inline unsigned length_cache_index(uint64_t rip)
{
    return (rip >> 2) % LENGTH_CACHE_ENTRIES;
}

/* The entry of the 64-bit instruction at rip, or NULL: it is not known. */
static inline const struct length_cache_entry *length_cache_lookup(const struct length_cache *cache, uint64_t rip,
                                                                   uint64_t cr3)
{
    const struct length_cache_entry *e = &cache->entry[length_cache_index(rip)];

    if (unlikely((e->rip ^ rip) | (e->cr3 ^ cr3)))
        return NULL;
    uint64_t changed = (*e->slot[0] ^ e->value[0]) | (*e->slot[1] ^ e->value[1]) | (*e->slot[2] ^ e->value[2]) |
                       (*e->slot[3] ^ e->value[3]);
    return likely(!(changed | ((*e->code ^ e->bytes) & e->mask))) ? e : NULL;
}

/* Its length, or 0. */
static inline unsigned length_cache_find(const struct length_cache *cache, uint64_t rip, uint64_t cr3)
{
    const struct length_cache_entry *e = length_cache_lookup(cache, rip, cr3);

    return likely(e != NULL) ? (unsigned)e->length : 0;
}

/* Keeps the length of the instruction at state->rip (STATE_CR and STATE_CS are there) if it can be kept. */
void length_cache_put(struct length_cache *cache, const struct cpu_state *state, const struct emu_ops *ops, unsigned length);
/* Empties it; also before its first use. */
void length_cache_clear(struct length_cache *cache);

#endif
