/* SPDX-License-Identifier: MIT */
/*
 * Second-stage tables and their faults. vmm/stage2.h is the description.
 *
 * directory[] points straight at the 512 entries of 2 MiB of each GiB, so that the frequent fault (a first write to a
 * page under the dirty log) does not walk from the root. After a promotion to a 1 GiB leaf the directory is no longer
 * part of the tree, but a CPU may still have it in its paging-structure caches, so it stays as it is: the same
 * translations with the same rights.
 */
#include "vmm/stage2.h"

#include "kernel/log.h"

#define FRAMES_PER_GIB STAGE2_FRAMES_PER_GIB

static uint64_t table_bytes(const struct stage2 *stage2)
{
    return stage2->gib_count * (sizeof stage2->directory[0] + sizeof stage2->mapped[0]);
}

enum status stage2_create(struct stage2 *stage2, struct vm_core *core, struct gmem *gmem, const struct pt_format *format,
                          uint64_t max_leaf)
{
    hpa_t table;

    if (!(format->read & STAGE2_PRESENT) || format->write != STAGE2_WRITE || format->large != STAGE2_LARGE)
        panic("second-stage tables: the entries of %s are not as expected", format->name);
    *stage2 = (struct stage2){ .core = core, .gmem = gmem, .lock = SPINLOCK_INIT("stage2"),
                               .written = format->write | format->accessed | format->dirty };
    core->memory = stage2;
    stage2->gib_count = ALIGN_UP(gmem_end(gmem), GIB) / GIB;
    stage2->table_pages = ALIGN_UP(table_bytes(stage2), PAGE_BYTES) / PAGE_BYTES;
    if (!page_alloc_run(stage2->table_pages, core->owner, PAGE_ZERO, &table))
        goto no_memory;
    stage2->directory = phys_to_virt(table);
    stage2->mapped = (uint16_t *)(stage2->directory + stage2->gib_count);
    if (!pt_create(&core->stage2, format, core->owner, max_leaf))
        goto free_table;
    return OK;

free_table:
    page_free_run(table, stage2->table_pages, core->owner);
no_memory:
    stage2->core = NULL;
    log_error("second-stage tables: no memory for the first page");
    return ERR_NO_MEMORY;
}

uint64_t *stage2_gib_slot(struct stage2 *stage2, uint64_t gib)
{
    return pt_entry_at(&stage2->core->stage2, gib * GIB, HUGE_PAGE_BYTES);
}

void stage2_destroy(struct stage2 *stage2)
{
    struct vm_core *core = stage2->core;

    if (!core)
        return;
    dirty_log_destroy(stage2);
    /* Directories that a 1 GiB leaf has replaced are not in the tree that pt_destroy walks. */
    for (uint64_t gib = 0; gib < stage2->gib_count; gib++)
        if (stage2->directory[gib] &&
            pt_entry_is_leaf(core->stage2.format, stage2_entry(stage2_gib_slot(stage2, gib)), HUGE_PAGE_BYTES))
            pt_table_free(&core->stage2, virt_to_phys(stage2->directory[gib]));
    pt_destroy(&core->stage2);
    page_free_run(virt_to_phys(stage2->directory), stage2->table_pages, core->owner);
    stage2->core = NULL;
}

void stage2_promote(struct stage2 *stage2, uint64_t gib)
{
    const struct pt *pt = &stage2->core->stage2;
    uint64_t index;

    if (stage2->small_code || stage2->mapped[gib] < FRAMES_PER_GIB || pt->max_leaf < HUGE_PAGE_BYTES ||
        !gmem_index(stage2->gmem, gib * GIB, &index) || !(stage2->gmem->frames[index] & GMEM_HUGE))
        return;
    stage2_set_entry(stage2_gib_slot(stage2, gib), pt_leaf_entry(pt->format, gmem_frame(stage2->gmem, index),
                                                                 HUGE_PAGE_BYTES, STAGE2_RAM_RIGHTS));
}

/* The entry for a frame that is mapped for the first time. With the lock held; NULL: no memory. */
static uint64_t *map_frame(struct stage2 *stage2, uint64_t gpa, uint64_t index)
{
    struct pt *pt = &stage2->core->stage2;
    uint64_t gib = gpa / GIB, frame = ALIGN_DOWN(gpa, LARGE_PAGE_BYTES), rights = stage2_large_rights(stage2);
    hpa_t hpa = gmem_frame(stage2->gmem, index);
    uint64_t *slot;

    if (stage2->log.engine != DIRTY_OFF)
        rights &= ~PT_WRITE;
    if (!stage2->directory[gib]) {
        if (pt_map(pt, frame, hpa, LARGE_PAGE_BYTES, rights) != OK)
            return NULL;
        stage2->directory[gib] = pt_entry_at(pt, ALIGN_DOWN(gpa, GIB), LARGE_PAGE_BYTES);
    } else {
        stage2_set_entry(&stage2->directory[gib][gpa / LARGE_PAGE_BYTES % FRAMES_PER_GIB],
                         pt_leaf_entry(pt->format, hpa, LARGE_PAGE_BYTES, rights));
    }
    slot = &stage2->directory[gib][gpa / LARGE_PAGE_BYTES % FRAMES_PER_GIB];
    stage2->mapped[gib]++;
    if (stage2->log.engine == DIRTY_OFF)
        stage2_promote(stage2, gib);
    return slot;
}

/* A write fault at gpa, which lies in a frame that is mapped. With the lock held. */
static inline void write_fault(struct stage2 *stage2, uint64_t *slot, uint64_t gpa)
{
    uint64_t entry = stage2_entry(slot), *leaf;

    if (unlikely((entry & (STAGE2_WRITE | STAGE2_LARGE)) != STAGE2_WRITE)) {
        dirty_log_open(stage2, slot, gpa);
        entry = stage2_entry(slot);
        if (entry & STAGE2_LARGE)
            return;
    }
    leaf = stage2_leaf(entry, gpa);
    if (unlikely(stage2_page_written(stage2, leaf, gpa)))
        dirty_log_begin_dense(stage2, leaf, gpa);
}

/* A fetch from gpa, which lies in a frame that is mapped. With the lock held. False: no memory. */
static bool fetch_fault(struct stage2 *stage2, uint64_t *slot, uint64_t gpa)
{
    const struct pt_format *format = stage2->core->stage2.format;
    uint64_t *table, entry;

    if ((stage2_entry(slot) & STAGE2_LARGE) && !dirty_log_split(stage2, slot, gpa))
        return false;
    table = pt_entry_table(stage2_entry(slot));
    entry = stage2_entry(&table[gpa / PAGE_BYTES % PT_TABLE_ENTRIES]);
    if ((entry & format->exec) == format->exec && !(entry & format->no_exec))
        return true; /* another vCPU was first */
    for (unsigned i = 0; i < PT_TABLE_ENTRIES; i++) {
        if (format->exec)
            __atomic_fetch_or(&table[i], format->exec, __ATOMIC_SEQ_CST);
        else
            __atomic_fetch_and(&table[i], ~format->no_exec, __ATOMIC_SEQ_CST);
    }
    return true;
}

/* The frame at gpa is not mapped, or was not a moment ago. */
static enum stage2_result first_touch(struct stage2 *stage2, uint64_t gpa, unsigned access)
{
    uint64_t index, flags;
    uint64_t *slot;

    if (!gmem_index(stage2->gmem, gpa, &index))
        return STAGE2_NOT_RAM;
    (void)gmem_frame(stage2->gmem, index); /* zeroes it, without the lock */
    flags = spin_lock_irqsave(&stage2->lock);
    slot = stage2_mapped_slot(stage2, gpa);
    if (!slot)
        slot = map_frame(stage2, gpa, index);
    if (slot && (access & ACCESS_WRITE))
        write_fault(stage2, slot, gpa);
    else if (slot && (access & ACCESS_FETCH) && stage2->small_code && !fetch_fault(stage2, slot, gpa))
        slot = NULL;
    spin_unlock_irqrestore(&stage2->lock, flags);
    if (slot)
        return STAGE2_MAPPED;
    log_error("second-stage tables: no memory for a table at guest address 0x%llx", (unsigned long long)gpa);
    return STAGE2_NO_MEMORY;
}

enum stage2_result stage2_fault(struct stage2 *stage2, gpa_t gpa, unsigned access)
{
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    uint64_t *slot = stage2_mapped_slot(stage2, gpa.v);

    if (likely(slot != NULL) && (access & ACCESS_WRITE))
        write_fault(stage2, slot, gpa.v);
    else if (slot && (access & ACCESS_FETCH) && stage2->small_code && !fetch_fault(stage2, slot, gpa.v))
        slot = NULL; /* first_touch() tries again, and says why it fails */
    spin_unlock_irqrestore(&stage2->lock, flags);
    return likely(slot != NULL) ? STAGE2_MAPPED : first_touch(stage2, gpa.v, access);
}

enum status stage2_map(struct stage2 *stage2, gpa_t gpa, hpa_t hpa, uint64_t bytes, uint64_t rights)
{
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    enum status status = pt_map(&stage2->core->stage2, gpa.v, hpa, bytes, rights);

    spin_unlock_irqrestore(&stage2->lock, flags);
    return status;
}

enum status stage2_unmap(struct stage2 *stage2, gpa_t gpa, uint64_t bytes)
{
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    enum status status = pt_unmap(&stage2->core->stage2, gpa.v, bytes);

    spin_unlock_irqrestore(&stage2->lock, flags);
    return status;
}
