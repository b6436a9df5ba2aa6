/* SPDX-License-Identifier: MIT */
/*
 * The page allocator: host physical memory in 4 KiB, 2 MiB and 1 GiB pieces, each accounted to an owner.
 *
 * RAM is kept in frames of 2 MiB, 16 bytes of table each (so the tables are 0.0008 % of RAM). A frame is free, whole
 * (given out as 2 MiB, or part of a 1 GiB run), or split into 512 small pages with a bitmap. Small pages come from
 * few frames, so that large ones stay whole. Pure core: it gets the memory list and a function that maps a physical
 * address; the lock is a kernel spinlock around it. Any thread context, interrupts on or off; not from NMI.
 */
#ifndef KERNEL_PAGE_H
#define KERNEL_PAGE_H

#include "kernel/status.h"
#include "kernel/types.h"

/* Who the memory is accounted to. 0 is the hypervisor; a VM gets an owner of its own. */
typedef uint16_t page_owner_t;
#define PAGE_OWNER_HV 0
#define PAGE_OWNERS 1024

enum page_flags { PAGE_ZERO = 1 /* filled with zero */ };

/*
 * `bytes` is PAGE_BYTES, LARGE_PAGE_BYTES or HUGE_PAGE_BYTES; the result is aligned to it. false: no such memory left.
 */
bool page_alloc(uint64_t bytes, page_owner_t owner, unsigned flags, hpa_t *out) MUST_CHECK;
/* The same size and owner as at page_alloc; a mismatch is a panic. */
void page_free(hpa_t hpa, uint64_t bytes, page_owner_t owner);

/*
 * One run of 4 KiB pages that is contiguous (for tables of devices and bitmaps). More than 2 MiB takes whole frames, which
 * are found by looking at all of RAM's. Freed with the same count.
 */
bool page_alloc_run(uint64_t page_count, page_owner_t owner, unsigned flags, hpa_t *out) MUST_CHECK;
void page_free_run(hpa_t hpa, uint64_t page_count, page_owner_t owner);

bool page_owner_create(const char *name, page_owner_t *owner) MUST_CHECK;
/* The owner must hold nothing; a leak is logged with its size, and the number is not used again. */
void page_owner_destroy(page_owner_t owner);

struct page_usage {
    char name[32];
    uint64_t small_pages, large_pages, huge_pages; /* held, by size */
    uint64_t bytes;                                /* sum */
};
bool page_owner_usage(page_owner_t owner, struct page_usage *usage); /* false: no such owner */
struct page_totals {
    uint64_t ram_bytes;   /* all usable RAM that the allocator was given */
    uint64_t free_bytes;
    uint64_t free_large_bytes; /* in whole 2 MiB frames */
    uint64_t table_bytes; /* the allocator's own tables */
};
void page_totals_get(struct page_totals *totals);

/*
 * Set-up. page_init gets the highest RAM address and a place for its tables (page_table_bytes() of them); then page_add
 * gives it each free range once. Ranges are cut to whole 4 KiB pages; memory below 1 MiB is never given out.
 */
uint64_t page_table_bytes(uint64_t ram_end);
void page_init(void *tables, uint64_t ram_end);
void page_add(hpa_t base, uint64_t bytes);

/* Host virtual address of hypervisor-owned RAM in the direct map, and back. */
void *phys_to_virt(hpa_t hpa);
hpa_t virt_to_phys(const void *direct_map_address);

#endif
