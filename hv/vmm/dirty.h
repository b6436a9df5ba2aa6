/* SPDX-License-Identifier: MIT */
/*
 * The dirty log of a VM: which 4 KiB pages were written, by a vCPU or by the hypervisor on a device's behalf.
 *
 * Contract. Every page that is written between two collects is in the second one. A write that runs at the same time as
 * a collect is in that one (whoever copies the page after it has returned gets what was written) or in the next. No
 * page that nobody wrote is reported, except the guest's own page tables, which a CPU's nested walk marks.
 *
 * Engines. All of them leave frames of 2 MiB in one piece and write-protected until the first write to them, so that
 * what a guest does not write costs nothing.
 *
 *  - Write protection: the leaf of each clean page is read-only. Its first write is a fault, which sets the bit.
 *  - Accessed/dirty: a frame with few writes is handled as above, since finding one dirty bit in 512 entries would
 *    cost more than the fault. After DIRTY_DENSE_FAULTS faults in one frame between two collects its leaves become writable,
 *    and the CPU's dirty bits are scanned. From then on it takes one fault for the frame, on the directory entry, after
 *    each collect, until it is found to have fewer dirty pages than that again.
 *  - PML: leaves are writable with the dirty bit clear; the CPU logs what it sets, the backend brings that in with
 *    dirty_log_drain(), and a collect clears the dirty bits of the pages that it takes.
 *
 * The bitmap is indexed by guest frame number and has a second bitmap right behind it: one bit for each of its 64-bit
 * words that may have a bit set. So a collect looks at nothing that is clean. Pages that a fault has made writable go to
 * a list first, which is shorter work for both sides, and to the bitmap when the list is full.
 *
 * Order. A writer changes the memory first and sets the bit then; the bitmap first and the summary then. A collect takes
 * the summary first, then the bitmap, then protects; what is copied afterwards has all of it.
 *
 * Context. start, collect and stop: thread context, no lock held, one at a time for each VM (the caller's mutex). The
 * others as they say.
 */
#ifndef VMM_DIRTY_H
#define VMM_DIRTY_H

#include "kernel/index_mask.h"
#include "kernel/status.h"
#include "kernel/types.h"
#include "vmm/vmm.h"

struct stage2;

enum dirty_engine { DIRTY_OFF, DIRTY_WRITE_PROTECT, DIRTY_ACCESSED_DIRTY, DIRTY_PML };

/* What the log needs of who runs the vCPUs. */
struct dirty_ops {
    /*
     * Returns when every vCPU of the VM has been outside of the guest since the call, and will flush its cached
     * second-stage translations before it is inside again.
     */
    void (*flush_all)(struct vm_core *core);
    /* The same, and each vCPU has brought in its page-modification log (dirty_log_drain). For PML only. */
    void (*drain_all)(struct vm_core *core);
    /* Called now and then in long collects, so that the thread can yield; may be NULL. */
    void (*yield)(void);
};

/* A page that a fault has made writable. */
struct dirty_page {
    uint64_t gfn;
    uint64_t *leaf;
};

struct dirty_log {
    enum dirty_engine engine;
    const struct dirty_ops *ops;
    struct dirty_page *list;    /* since the last collect */
    uint64_t list_count;
    uint64_t list_max;          /* 0 while the log is off */
    bool dense_begun;           /* a frame became dense since its pages may have been listed */
    struct dirty_page *taken;   /* the list of the collect that runs, else empty; the two change places */
    /* One run of pages, kept from the first start until the VM is destroyed: a late marker still finds it there. */
    uint64_t *bitmap;     /* bit = guest frame number */
    uint64_t *summary;    /* bit = word of the bitmap */
    uint8_t *mode;        /* of each 2 MiB frame; dirty.c */
    uint8_t *period;      /* of each frame: the period in which the faults that `mode` counts were */
    uint8_t now;          /* the period: changes with each collect */
    uint64_t *leaves;     /* of each frame in mode PML: where its table would begin if it began with page 0; else 0 */
    uint8_t *touched;     /* a byte for 8 frames: dense ones that were written since they were closed */
    uint8_t *pending;     /* the same: dense ones that were closed and whose dirty bits are still to be scanned */
    uint64_t bits;        /* of the bitmap; a multiple of 4096 */
    uint64_t run_pages;
    uint64_t *detached;   /* within the run: tables that wait for a flush until they are freed */
    uint64_t *out;        /* while a collect runs */
    bool draining;        /* it brings in what the CPUs have logged: such pages go to `out` at once */
    uint64_t count;
};

/*
 * Notes a write of the page with this number. Lock-free; any context. Its memory must have been written before, and a
 * full barrier must lie between (dirty_log_wrote has it; a VM exit is one): the loads here must not pass the stores.
 */
static inline void dirty_log_mark(struct vm_core *core, uint64_t gfn)
{
    uint64_t *bitmap = __atomic_load_n(&core->dirty_bitmap, __ATOMIC_ACQUIRE);
    uint64_t *word, *summary, bit = BIT(gfn % 64), summary_bit = BIT(gfn / 64 % 64);

    if (!bitmap || gfn >= core->dirty_bits)
        return;
    gfn = index_mask(gfn, core->dirty_bits);
    word = &bitmap[gfn / 64];
    summary = &bitmap[core->dirty_bits / 64 + gfn / 4096];
    if (!(__atomic_load_n(word, __ATOMIC_ACQUIRE) & bit))
        __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
    if (!(__atomic_load_n(summary, __ATOMIC_ACQUIRE) & summary_bit))
        __atomic_fetch_or(summary, summary_bit, __ATOMIC_SEQ_CST);
}

/* An entry of a page-modification log that the CPU has not filled; the others are guest physical addresses. */
#define DIRTY_LOG_EMPTY UINT64_MAX

/*
 * Notes the pages that a CPU's page-modification log names, and empties it: from entries[next] down, as the CPU fills it
 * (SDM vol. 3C, 29.3.6), to the first empty entry. Returns the index of that, -1 where there is none. With the stage-2
 * lock held, and the vCPU outside of the guest: the CPU may write an entry before it sets the page's dirty bit, which is
 * cleared here.
 */
int dirty_log_drain(struct stage2 *stage2, uint64_t *entries, int next);

/* Notes that the hypervisor has just written count (1 or more) bytes at gpa. Lock-free; any context. */
static inline void dirty_log_wrote(struct vm_core *core, gpa_t gpa, uint64_t count)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (likely(!__atomic_load_n(&core->dirty_bitmap, __ATOMIC_RELAXED)))
        return;
    for (uint64_t gfn = gpa.v / PAGE_BYTES; gfn <= (gpa.v + count - 1) / PAGE_BYTES; gfn++)
        dirty_log_mark(core, gfn);
}

/*
 * Starts the log; the first collect has what is written from now on. The caller has seen that the CPU has what the engine
 * needs (A/D bits in second-stage tables; PML, switched on for every vCPU before this). ops must stay.
 * ERR_BUSY: it is on. ERR_NO_MEMORY: it is off, and nothing has changed for the guest.
 */
enum status dirty_log_start(struct stage2 *stage2, enum dirty_engine engine, const struct dirty_ops *ops) MUST_CHECK;

/* Bits of the bitmap that collect fills, a multiple of 4096: enough for every guest frame number of RAM. */
uint64_t dirty_log_bits(const struct stage2 *stage2);

/*
 * Sets the bits of all pages written since the last collect (or the start) in bitmap_out, which others may be set in
 * already, and clears them in the log. *page_count: how many bits of bitmap_out were set that were not before.
 * ERR_INVALID: the log is off.
 */
enum status dirty_log_collect(struct stage2 *stage2, uint64_t *bitmap_out, uint64_t *page_count) MUST_CHECK;

/* Ends it: the frames are put together again and the tables freed. What was not collected is lost. Off already: nothing. */
void dirty_log_stop(struct stage2 *stage2);

/* Faults in one frame between two collects that make scanning the cheaper way: 512 entries twice against a fault each. */
#define DIRTY_DENSE_FAULTS 16
/* Of dirty_log.mode; the others are dirty.c's own. */
#define DIRTY_MODE_SPARSE 0x20
#define DIRTY_MODE_COUNT 0x1f

/*
 * A fetch wants the large leaf of a frame in pieces (stage2.h, small code); they get its rights, and the log is kept. With
 * the lock held. False: no memory, nothing changed.
 */
bool dirty_log_split(struct stage2 *stage2, uint64_t *slot, uint64_t gpa) MUST_CHECK;
/*
 * For stage2.h, with the stage-2 lock held: a write fault at gpa. dirty_log_open where the directory entry `slot` is not an
 * open table; dirty_log_note for a page of such a table whose leaf is read-only and will be writable at once. True from
 * the latter: dirty_log_begin_dense is to be called then.
 */
void dirty_log_open(struct stage2 *stage2, uint64_t *slot, uint64_t gpa);
void dirty_log_begin_dense(struct stage2 *stage2, uint64_t *leaf, uint64_t gpa);

/* Is the next fault in the frame of gpa the one that makes it dense? */
static inline bool dirty_log_turns_dense(const struct dirty_log *log, uint64_t gpa)
{
    uint64_t frame = gpa / LARGE_PAGE_BYTES;

    return log->engine == DIRTY_ACCESSED_DIRTY && log->period[frame] == log->now &&
           (log->mode[frame] & DIRTY_MODE_COUNT) == DIRTY_DENSE_FAULTS - 1;
}

/* Counts a fault of a sparse frame. True: it is to become dense. */
static inline bool dirty_log_count_fault(struct dirty_log *log, uint64_t gpa)
{
    uint64_t frame = gpa / LARGE_PAGE_BYTES;

    if (log->engine != DIRTY_ACCESSED_DIRTY)
        return false;
    if (log->period[frame] != log->now) {
        log->period[frame] = log->now;
        log->mode[frame] = DIRTY_MODE_SPARSE;
    }
    return (++log->mode[frame] & DIRTY_MODE_COUNT) == DIRTY_DENSE_FAULTS;
}

static inline bool dirty_log_note(struct vm_core *core, struct dirty_log *log, uint64_t *leaf, uint64_t gpa)
{
    if (likely(log->list_count < log->list_max))
        log->list[log->list_count++] = (struct dirty_page){ gpa / PAGE_BYTES, leaf };
    else
        dirty_log_mark(core, gpa / PAGE_BYTES);
    return dirty_log_count_fault(log, gpa);
}
/* For stage2_destroy: frees the log's memory, with nothing running any more. */
void dirty_log_destroy(struct stage2 *stage2);

#endif
