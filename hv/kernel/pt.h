/* SPDX-License-Identifier: MIT */
/*
 * One walker for every page table that the hypervisor writes: its own, EPT and NPT, told apart by a descriptor.
 * Pure core: table pages come from page_alloc, are reached by phys_to_virt, and the caller flushes TLBs.
 *
 * Callers serialize what changes one table; CPUs may walk it at any time. A table page is freed by pt_destroy only, so
 * that pt_unmap never gives back what a CPU may still have cached. Virtual addresses are 48-bit: host ones canonical,
 * guest physical ones below 2^48. Write combining is entry 1 of IA32_PAT (PWT alone): the CPU set-up puts 0x01 there.
 */
#ifndef KERNEL_PT_H
#define KERNEL_PT_H

#include "kernel/layout.h"
#include "kernel/page.h"
#include "kernel/status.h"
#include "kernel/types.h"

/* Rights and attributes, vendor-neutral. */
#define PT_READ BIT(0)
#define PT_WRITE BIT(1)
#define PT_EXEC BIT(2)
#define PT_USER BIT(3)
#define PT_GLOBAL BIT(4)
#define PT_ACCESSED BIT(5)
#define PT_DIRTY BIT(6)
#define PT_SOFT0 BIT(7) /* a bit that hardware ignores, for the owner of the table */
#define PT_UNCACHED BIT(8)
#define PT_WRITE_COMBINING BIT(9)

struct pt_format {
    const char *name;
    unsigned levels;        /* 4 */
    uint64_t present_mask;  /* an entry is present if any of these is set (EPT: R|W|X) */
    uint64_t table_bits;    /* what an entry that points to a table holds */
    uint64_t read, write, exec, no_exec, user, global, accessed, dirty, large, soft0;
    uint64_t memory_wb, memory_uc, memory_wc; /* memory type bits of a leaf */
    bool accessed_in_tables;
};
extern const struct pt_format pt_format_host, pt_format_ept, pt_format_npt;

struct pt {
    const struct pt_format *format;
    hpa_t root;
    page_owner_t owner;     /* of the table pages */
    uint64_t max_leaf;      /* largest leaf: PAGE_BYTES, LARGE_PAGE_BYTES or HUGE_PAGE_BYTES */
    uint64_t table_count;   /* table pages held */
};

bool pt_create(struct pt *pt, const struct pt_format *format, page_owner_t owner, uint64_t max_leaf) MUST_CHECK;
/* Frees every table page; leaves are not touched. */
void pt_destroy(struct pt *pt);

/* Maps [va, va + bytes) to hpa with the largest leaves that alignment allows. All of it must be unmapped before. */
enum status pt_map(struct pt *pt, uint64_t va, hpa_t hpa, uint64_t bytes, uint64_t rights) MUST_CHECK;
/* Takes a range out; leaves that stick out of it are split first (which can fail for memory). */
enum status pt_unmap(struct pt *pt, uint64_t va, uint64_t bytes) MUST_CHECK;
/* New rights for all that is mapped in the range; splits as above. */
enum status pt_protect(struct pt *pt, uint64_t va, uint64_t bytes, uint64_t rights) MUST_CHECK;

/* The leaf entry that maps va, and its size; NULL if none. The caller may change it with pt_entry_* and must flush. */
uint64_t *pt_leaf(const struct pt *pt, uint64_t va, uint64_t *leaf_bytes);
bool pt_lookup(const struct pt *pt, uint64_t va, hpa_t *hpa, uint64_t *rights);

/*
 * Parts for owners of tables that change single entries (stage2.c, dirty.c). Entries are written with atomic stores or
 * read-modify-writes, since CPUs that walk the table set accessed and dirty bits meanwhile.
 */
#define PT_ADDRESS_MASK 0x000ffffffffff000ull
#define PT_TABLE_ENTRIES 512

static inline bool pt_entry_present(const struct pt_format *format, uint64_t entry)
{
    return (entry & format->present_mask) != 0;
}
/* A present entry of the level whose entries cover `bytes`: a leaf, or a pointer to a table? */
static inline bool pt_entry_is_leaf(const struct pt_format *format, uint64_t entry, uint64_t bytes)
{
    return bytes == PAGE_BYTES || (entry & format->large);
}
/* The 512 entries of the table that a non-leaf entry points to. */
static inline uint64_t *pt_entry_table(uint64_t entry)
{
#ifdef TASUKI_HOST_TEST
    return phys_to_virt(HPA(entry & PT_ADDRESS_MASK));
#else
    return (uint64_t *)(HV_DIRECT_BASE + (entry & PT_ADDRESS_MASK)); /* phys_to_virt, for paths where a call counts */
#endif
}
/* The leaf entry for a page of `bytes` at hpa with these rights; and the rights of a leaf entry. */
uint64_t pt_leaf_entry(const struct pt_format *format, hpa_t hpa, uint64_t bytes, uint64_t rights);
uint64_t pt_entry_rights(const struct pt_format *format, uint64_t entry);

/* The entry for va at the level whose entries cover `bytes` (4 KiB to 512 GiB), NULL if the table has no such level. */
uint64_t *pt_entry_at(const struct pt *pt, uint64_t va, uint64_t bytes);

/*
 * Splits what maps va until its leaf is `bytes` or less. The new leaves have the rights, the memory type, and the
 * accessed, dirty and soft bits of the old one, and the same translation: stale large translations stay right until
 * the caller takes rights away or clears bits, and flushes then. Nothing mapped: OK.
 */
enum status pt_split(struct pt *pt, uint64_t va, uint64_t bytes) MUST_CHECK;

/* Table pages for who builds tables by hand; counted in table_count. Freed only when no CPU can walk them any more. */
bool pt_table_alloc(struct pt *pt, unsigned page_flags, hpa_t *table) MUST_CHECK;
void pt_table_free(struct pt *pt, hpa_t table);

#endif
