/* SPDX-License-Identifier: MIT */
/*
 * Second-stage translation: what a guest physical address means to the CPU that runs the guest.
 *
 * The tables (vm_core.stage2, an EPT or NPT) start empty. The first touch of a frame is a fault, which zeroes it and maps
 * all of its 2 MiB, write-back, with all rights. When the last frame of a 1 GiB piece has been mapped, one leaf of 1 GiB
 * takes the place of the 512; their table is kept aside, so that nothing has to be flushed then, nor allocated when the
 * dirty log wants the pieces back. The log is the only one that ever takes rights away.
 *
 * Small code. On CPUs where a guest that executes from large pages can stop the whole machine (iTLB multihit: a fetch that
 * meets two sizes of one translation; INTEL-SA-00210) large leaves are not executable. The first fetch from a frame splits
 * it into leaves of 4 KiB, which are; starting and stopping the log puts such frames together again. There are no leaves of
 * 1 GiB then.
 *
 * Flushing. Nothing here flushes. A fault that is resolved adds translations or rights, or replaces a leaf by others with
 * the same translation; a stale entry can then only cause another fault, which removes it (SDM vol. 3C, 29.4.3.1; APM
 * vol. 2, 5.5.2), and which stage2_fault answers with STAGE2_MAPPED. dirty_log_* flush through their callback before
 * they return. stage2_unmap's caller flushes all vCPUs before what was mapped there is used for anything else.
 *
 * Locking. One spinlock for each VM around every change of the tables; vCPUs walk them meanwhile.
 */
#ifndef VMM_STAGE2_H
#define VMM_STAGE2_H

#include "kernel/index_mask.h"
#include "kernel/spinlock.h"
#include "kernel/status.h"
#include "kernel/types.h"
#include "vmm/dirty.h"
#include "vmm/emulate.h"
#include "vmm/gmem.h"
#include "vmm/vmm.h"

struct stage2 {
    struct vm_core *core;
    struct gmem *gmem;
    struct spinlock lock;
    uint64_t gib_count;
    uint64_t **directory;   /* for each GiB with RAM: the 512 entries of its frames, NULL before the first touch */
    uint16_t *mapped;       /* for each GiB: frames that are mapped */
    uint64_t table_pages;   /* what the two take */
    uint64_t written;       /* what a leaf gets at its first write: the right, and accessed and dirty */
    bool small_code;        /* only 4 KiB leaves are executable; set before the first fault, or never */
    struct dirty_log log;
};

enum stage2_result {
    STAGE2_MAPPED,    /* enter the guest again */
    STAGE2_NOT_RAM,   /* MMIO, or nothing */
    STAGE2_NO_MEMORY, /* no page left for a table; logged. The vCPU is to be stopped */
};

/* Makes core->stage2 an empty table. max_leaf: LARGE_PAGE_BYTES, or HUGE_PAGE_BYTES if the CPU can. Thread context. */
enum status stage2_create(struct stage2 *stage2, struct vm_core *core, struct gmem *gmem, const struct pt_format *format,
                          uint64_t max_leaf) MUST_CHECK;
/* Frees every table, and the dirty log. No vCPU runs any more. Never created (core NULL): nothing. */
void stage2_destroy(struct stage2 *stage2);

/*
 * A second-stage fault at gpa, access as of enum access. Any vCPU thread, interrupts on or off, many at once. Zeroing a
 * frame takes up to some 100 microseconds.
 */
enum stage2_result stage2_fault(struct stage2 *stage2, gpa_t gpa, unsigned access) MUST_CHECK;

/* Maps and unmaps something outside of RAM (an APIC access page, a device's memory); pt_map and pt_unmap under the lock. */
enum status stage2_map(struct stage2 *stage2, gpa_t gpa, hpa_t hpa, uint64_t bytes, uint64_t rights) MUST_CHECK;
enum status stage2_unmap(struct stage2 *stage2, gpa_t gpa, uint64_t bytes) MUST_CHECK;

/* For stage2.c and dirty.c. These bits are the same in EPT and NPT entries; stage2_create makes sure of it. */
#define STAGE2_PRESENT BIT(0) /* readable, as all that is mapped for RAM */
#define STAGE2_WRITE BIT(1)
#define STAGE2_LARGE BIT(7)

#define STAGE2_RAM_RIGHTS (PT_READ | PT_WRITE | PT_EXEC | PT_ACCESSED | PT_DIRTY)
/* Those of a leaf of 2 MiB. */
static inline uint64_t stage2_large_rights(const struct stage2 *stage2)
{
    return stage2->small_code ? STAGE2_RAM_RIGHTS & ~PT_EXEC : STAGE2_RAM_RIGHTS;
}

/* The entry of the directory pointer table for a GiB that has a directory: a pointer to it, or a 1 GiB leaf. */
uint64_t *stage2_gib_slot(struct stage2 *stage2, uint64_t gib);
/*
 * One leaf for a GiB if all of its frames are mapped with all rights and are one piece of the host's memory too; else
 * nothing. The directory stays in directory[]. With the lock held.
 */
void stage2_promote(struct stage2 *stage2, uint64_t gib);

#define STAGE2_FRAMES_PER_GIB (HUGE_PAGE_BYTES / LARGE_PAGE_BYTES)

static inline uint64_t stage2_entry(const uint64_t *slot)
{
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

static inline void stage2_set_entry(uint64_t *slot, uint64_t entry)
{
    __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

/* The frame's directory entry if it is mapped already, else NULL. With the lock held. */
static inline uint64_t *stage2_mapped_slot(struct stage2 *stage2, uint64_t gpa)
{
    uint64_t gib = gpa / GIB;
    uint64_t *slot;

    if (unlikely(gib >= stage2->gib_count))
        return NULL;
    gib = index_mask(gib, stage2->gib_count);
    if (unlikely(!stage2->directory[gib]))
        return NULL;
    slot = &stage2->directory[gib][gpa / LARGE_PAGE_BYTES % STAGE2_FRAMES_PER_GIB];
    return stage2_entry(slot) & STAGE2_PRESENT ? slot : NULL;
}

/*
 * A write fault at gpa, whose directory entry `entry` is that of an open table. True: dirty_log_begin_dense is to be called
 * for the leaf. With the lock held.
 */
static inline bool stage2_page_written(struct stage2 *stage2, uint64_t *leaf, uint64_t gpa)
{
    bool dense;

    if (stage2_entry(leaf) & STAGE2_WRITE)
        return false; /* another vCPU was first */
    dense = dirty_log_note(stage2->core, &stage2->log, leaf, gpa);
    __atomic_fetch_or(leaf, stage2->written, __ATOMIC_SEQ_CST);
    return dense;
}

static inline uint64_t *stage2_leaf(uint64_t entry, uint64_t gpa)
{
    return &pt_entry_table(entry)[gpa / PAGE_BYTES % PT_TABLE_ENTRIES];
}

/*
 * A write fault at gpa that only has to be noted in the dirty log, with interrupts off; never waits. False: it is another
 * one, or the lock is held by somebody: nothing has been done, and stage2_fault() will.
 */
static inline __attribute__((always_inline)) bool stage2_write_fault_light(struct stage2 *stage2, uint64_t gpa)
{
    const uint64_t looked_at = STAGE2_PRESENT | STAGE2_WRITE | STAGE2_LARGE, open_table = STAGE2_PRESENT | STAGE2_WRITE;
    uint64_t *slot, entry;
    bool light;

    if (unlikely(!spin_trylock(&stage2->lock)))
        return false;
    slot = stage2_mapped_slot(stage2, gpa);
    entry = likely(slot != NULL) ? stage2_entry(slot) : 0;
    light = (entry & looked_at) == open_table && !dirty_log_turns_dense(&stage2->log, gpa);
    if (likely(light))
        (void)stage2_page_written(stage2, stage2_leaf(entry, gpa), gpa);
    spin_unlock(&stage2->lock);
    return light;
}

#endif
