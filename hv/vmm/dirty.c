/* SPDX-License-Identifier: MIT */
/*
 * The dirty log. vmm/dirty.h has the contract; here is how each 2 MiB frame keeps it. A frame is in one of these modes:
 *
 *  LARGE   One leaf of 2 MiB, read-only. The first write splits it (SPARSE or PML); so does a fetch where code must be in
 *          small pages, which leaves it without a page that counts as written. Where no table page is to be had,
 *          the leaf becomes writable and all 512 pages count as written: never too few.
 *  SPARSE  A leaf is writable only if its page is in the list or in the bitmap. A fault puts it there, then sets the
 *          right; a collect takes both away, and flushes. The low bits of the mode count faults since the last collect.
 *  DENSE   Leaves are writable and the CPU's dirty bits are the log. The directory entry is the gate: after a collect
 *          it is read-only (the frame is closed), and the first write opens it and sets the frame's `touched` bit.
 *  THIN    As DENSE, but with so few dirty pages at the last scan that the next write makes it SPARSE.
 *  PML     Leaves are writable, the CPU logs those whose dirty bit it sets.
 *
 * Why a dense frame is closed first and scanned after the flush. While a CPU has a stale writable translation it may set
 * a dirty bit at any time, also behind the scan; in a closed frame that nobody opens again it would not be found by the
 * next collect. After the flush nothing can set one. A write that faults on a closed frame before it was scanned
 * (`pending`) scans it first, then opens it. The pages that a stale translation still writes were all found dirty, or
 * get their dirty bit in a frame that is open, and so scanned by the next collect.
 *
 * Why the turn from DENSE to SPARSE is made by a fault, and never while a collect runs: rights of leaves are taken away
 * there without a flush, so no CPU may have a writable translation of the frame.
 *
 * The lock is that of stage2.h, taken for 16 MiB of guest memory (a "chunk": one word of the summary) at a time.
 */
#include "vmm/dirty.h"

#include <string.h>

#include "kernel/log.h"
#include "vmm/stage2.h"

#define CHUNK_FRAMES 8
#define CHUNK_PAGES 4096
#define FRAME_PAGES 512
#define FRAME_WORDS 8
#define CHUNKS_PER_GIB (HUGE_PAGE_BYTES / (CHUNK_PAGES * PAGE_BYTES))
/* So a GiB that has RAM, and so a directory, has nothing else: every entry of a directory is a frame of RAM, or empty. */
_Static_assert(GMEM_LOW_END % HUGE_PAGE_BYTES == 0 && GMEM_HIGH_BASE % HUGE_PAGE_BYTES == 0, "a GiB is RAM or is not");
#define CHUNKS_AT_ONCE 8      /* that a collect looks at; a power of two */
#define YIELD_CHUNKS 64       /* a chunk takes some ten microseconds at most */
#define CLEAR_BYTES (256 * KIB) /* likewise */
#define LIST_MIN 512ull       /* the list has room for a page of each frame, or this */
#define LIST_STEP 512         /* of its pages with the lock held */
#define DETACHED_MAX (PAGE_BYTES / sizeof(uint64_t))

#define MODE_LARGE 0x00
#define MODE_WHOLE 0x01       /* a large leaf that is writable: all of its pages are in the bitmap */
#define MODE_SPARSE DIRTY_MODE_SPARSE
#define MODE_DENSE 0x40
#define MODE_THIN 0x60
#define MODE_PML 0x80
#define MODE_MASK 0xe0

static unsigned popcount(uint64_t word)
{
    word -= word >> 1 & 0x5555555555555555ull;
    word = (word & 0x3333333333333333ull) + (word >> 2 & 0x3333333333333333ull);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0full;
    return (unsigned)(word * 0x0101010101010101ull >> 56);
}

static void set_bits(uint64_t *entry, uint64_t bits)
{
    __atomic_fetch_or(entry, bits, __ATOMIC_SEQ_CST);
}

static void clear_bits(uint64_t *entry, uint64_t bits)
{
    __atomic_fetch_and(entry, ~bits, __ATOMIC_SEQ_CST);
}

/*
 * Sets a bit of a bitmap, and counts it if it was clear. BTS finds the word by itself and leaves the old bit in the carry
 * flag: some cycles more than the same by hand, in less instructions.
 */
static inline void set_and_count(uint64_t *bitmap, uint64_t index, uint64_t *count)
{
    __asm__ volatile("btsq %2, (%1)\n\t"
                     "sbbq $-1, %0"
                     : "+r"(*count)
                     : "r"(bitmap), "r"(index)
                     : "cc", "memory");
}

/* Bit of a frame in touched[] and pending[]. */
static uint8_t frame_bit(uint64_t frame)
{
    return (uint8_t)(1u << frame % CHUNK_FRAMES);
}

/* ---- Write faults. All with the lock held. ---- */

/* Entries for all pages of a frame; `attributes` is all but the address. */
static void fill_table(uint64_t *table, uint64_t base, uint64_t attributes)
{
    uint64_t entry = base | attributes;

    for (unsigned i = 0; i < FRAME_PAGES; i += 4, entry += 4 * PAGE_BYTES) {
        stage2_set_entry(&table[i], entry);
        stage2_set_entry(&table[i + 1], entry + PAGE_BYTES);
        stage2_set_entry(&table[i + 2], entry + 2 * PAGE_BYTES);
        stage2_set_entry(&table[i + 3], entry + 3 * PAGE_BYTES);
    }
}

/* A frame becomes PML. */
static void begin_pml(struct dirty_log *log, uint64_t frame, const uint64_t *table)
{
    log->mode[frame] = MODE_PML;
    log->leaves[frame] = (uint64_t)table - frame * FRAME_PAGES * sizeof *table;
}

/* A frame becomes SPARSE with one page written. Nobody has a writable translation of it. */
static void begin_sparse(struct stage2 *stage2, uint64_t *table, uint64_t leaf, uint64_t gpa)
{
    const struct pt_format *format = stage2->core->stage2.format;
    uint64_t attributes = leaf & ~(PT_ADDRESS_MASK | format->large | format->write | format->dirty);
    uint64_t *written = &table[gpa / PAGE_BYTES % FRAME_PAGES];

    fill_table(table, leaf & PT_ADDRESS_MASK & ~(LARGE_PAGE_BYTES - 1), attributes | format->accessed);
    stage2->log.mode[gpa / LARGE_PAGE_BYTES] = MODE_SPARSE;
    (void)dirty_log_note(stage2->core, &stage2->log, written, gpa); /* the first of a frame: far from dense */
    set_bits(written, stage2->written);
}

/* No page for a table: all of the frame counts as written, until the next collect protects it again. */
static void whole_frame(struct stage2 *stage2, uint64_t *slot, uint64_t gpa)
{
    uint64_t first = ALIGN_DOWN(gpa, LARGE_PAGE_BYTES) / PAGE_BYTES;

    for (uint64_t gfn = first; gfn < first + FRAME_PAGES; gfn++)
        dirty_log_mark(stage2->core, gfn);
    stage2->log.mode[gpa / LARGE_PAGE_BYTES] = MODE_WHOLE;
    set_bits(slot, stage2->core->stage2.format->write);
}

static void split_frame(struct stage2 *stage2, uint64_t *slot, uint64_t leaf, uint64_t gpa)
{
    struct pt *pt = &stage2->core->stage2;
    hpa_t table;

    if (stage2->log.engine == DIRTY_OFF) {
        set_bits(slot, pt->format->write);
        return;
    }
    if (!pt_table_alloc(pt, 0, &table)) {
        whole_frame(stage2, slot, gpa);
        return;
    }
    if (stage2->log.engine == DIRTY_PML) {
        uint64_t attributes = leaf & ~(PT_ADDRESS_MASK | pt->format->large | pt->format->dirty);

        fill_table(phys_to_virt(table), leaf & PT_ADDRESS_MASK,
                   attributes | pt->format->accessed | pt->format->write);
        begin_pml(&stage2->log, gpa / LARGE_PAGE_BYTES, phys_to_virt(table));
    } else {
        begin_sparse(stage2, phys_to_virt(table), leaf, gpa);
    }
    stage2_set_entry(slot, table.v | pt->format->table_bits);
}

bool dirty_log_split(struct stage2 *stage2, uint64_t *slot, uint64_t gpa)
{
    struct pt *pt = &stage2->core->stage2;
    uint64_t leaf = stage2_entry(slot), attributes = leaf & ~(PT_ADDRESS_MASK | pt->format->large);
    struct dirty_log *log = &stage2->log;
    uint64_t frame = gpa / LARGE_PAGE_BYTES;
    hpa_t table;

    if (!pt_table_alloc(pt, 0, &table))
        return false;
    if (log->engine != DIRTY_OFF && (leaf & pt->format->write)) {
        /* Else the log is just being started and has not come to this frame: as if it were off. */
        if (log->mode[frame] == MODE_WHOLE)
            log->mode[frame] = MODE_SPARSE;
    } else if (log->engine == DIRTY_PML) {
        attributes = (attributes & ~pt->format->dirty) | pt->format->accessed | pt->format->write;
        begin_pml(log, frame, phys_to_virt(table));
    } else if (log->engine != DIRTY_OFF) {
        attributes = (attributes & ~pt->format->dirty) | pt->format->accessed;
        log->mode[frame] = MODE_SPARSE;
    }
    fill_table(phys_to_virt(table), leaf & PT_ADDRESS_MASK & ~(LARGE_PAGE_BYTES - 1), attributes);
    stage2_set_entry(slot, table.v | pt->format->table_bits);
    return true;
}

/*
 * SPARSE to DENSE. The clean leaves become writable; their stale dirty bits go. The written ones are in the list or the
 * bitmap, so it does not matter whether they keep theirs.
 */
void dirty_log_begin_dense(struct stage2 *stage2, uint64_t *leaf, uint64_t gpa)
{
    const struct pt_format *format = stage2->core->stage2.format;
    uint64_t *table = leaf - gpa / PAGE_BYTES % FRAME_PAGES, frame = gpa / LARGE_PAGE_BYTES;

    for (unsigned i = 0; i < FRAME_PAGES; i++)
        stage2_set_entry(&table[i], (stage2_entry(&table[i]) & ~format->dirty) | format->write);
    stage2->log.mode[frame] = MODE_DENSE;
    stage2->log.dense_begun = true;
    stage2->log.touched[frame / CHUNK_FRAMES] |= frame_bit(frame);
}

/* The dirty bit of any of eight leaves that nothing writes: the frame is closed and flushed. */
static inline uint64_t any_dirty(const uint64_t *leaf, uint64_t dirty)
{
    return (leaf[0] | leaf[1] | leaf[2] | leaf[3] | leaf[4] | leaf[5] | leaf[6] | leaf[7]) & dirty;
}

/* Moves the dirty bits of a closed frame into the collect that runs. */
static void scan_frame(struct stage2 *stage2, uint64_t frame, uint64_t entry)
{
    struct dirty_log *log = &stage2->log;
    uint64_t dirty = stage2->core->stage2.format->dirty, *leaf = pt_entry_table(entry), *out = &log->out[frame * FRAME_WORDS];
    unsigned found = 0;

    for (unsigned w = 0; w < FRAME_WORDS; w++) {
        uint64_t word = 0;

        for (uint64_t bit = 1; bit; bit <<= 8, leaf += 8) {
            if (!any_dirty(leaf, dirty))
                continue;
            for (unsigned i = 0; i < 8; i++) {
                if (leaf[i] & dirty) {
                    word |= bit << i;
                    clear_bits(&leaf[i], dirty);
                }
            }
        }
        if (word) {
            found += popcount(word);
            log->count += popcount(word & ~out[w]);
            out[w] |= word;
        }
    }
    log->mode[frame] = found < DIRTY_DENSE_FAULTS ? MODE_THIN : MODE_DENSE;
    log->pending[frame / CHUNK_FRAMES] &= (uint8_t)~frame_bit(frame);
}

/* A write to a closed frame. */
static void open_frame(struct stage2 *stage2, uint64_t *slot, uint64_t entry, uint64_t gpa)
{
    struct dirty_log *log = &stage2->log;
    uint64_t frame = gpa / LARGE_PAGE_BYTES, *table = pt_entry_table(entry);

    if (log->pending[frame / CHUNK_FRAMES] & frame_bit(frame))
        scan_frame(stage2, frame, entry);
    if (log->mode[frame] == MODE_THIN && !__atomic_load_n(&log->out, __ATOMIC_ACQUIRE))
        begin_sparse(stage2, table, table[0], gpa);
    else
        log->touched[frame / CHUNK_FRAMES] |= frame_bit(frame);
    set_bits(slot, stage2->core->stage2.format->write);
}

void dirty_log_open(struct stage2 *stage2, uint64_t *slot, uint64_t gpa)
{
    uint64_t entry = stage2_entry(slot);

    if (!(entry & STAGE2_LARGE))
        open_frame(stage2, slot, entry, gpa);
    else if (!(entry & STAGE2_WRITE)) /* else another vCPU was first */
        split_frame(stage2, slot, entry, gpa);
}

/* dirty_log_drain() while no collect takes the pages at once: they go to the list. */
static int drain_to_list(struct stage2 *stage2, uint64_t *entries, int next)
{
    struct dirty_log *log = &stage2->log;

    for (; next >= 0 && entries[next] != DIRTY_LOG_EMPTY; next--) {
        uint64_t gfn = entries[next] / PAGE_BYTES, base = gfn < log->bits ? log->leaves[gfn / FRAME_PAGES] : 0;

        entries[next] = DIRTY_LOG_EMPTY;
        if (likely(base) && log->list_count < log->list_max)
            log->list[log->list_count++] = (struct dirty_page){ gfn, (uint64_t *)(base + gfn * sizeof(uint64_t)) };
        else
            dirty_log_mark(stage2->core, gfn);
    }
    return next;
}

/*
 * dirty_log_drain() into a collect, as long as the entries' frames are in mode PML, which that of an empty entry never is.
 * A harvest of few pages is this loop: fifteen instructions an entry, for which it has to be a function of its own.
 */
static __attribute__((noinline)) int64_t drain_out(struct dirty_log *log, uint64_t *entries, int64_t next,
                                                   uint64_t dirty)
{
    const uint64_t *leaves = log->leaves, bits = log->bits;
    uint64_t *out = log->out, count = 0;

    for (; next >= 0; next--) {
        uint64_t gfn = entries[next] / PAGE_BYTES, base;

        if (gfn >= bits || !(base = leaves[gfn / FRAME_PAGES]))
            break;
        entries[next] = DIRTY_LOG_EMPTY;
        clear_bits((uint64_t *)(base + gfn * sizeof(uint64_t)), dirty);
        set_and_count(out, gfn, &count);
    }
    log->count += count;
    return next;
}

int dirty_log_drain(struct stage2 *stage2, uint64_t *entries, int next)
{
    struct dirty_log *log = &stage2->log;

    if (!__atomic_load_n(&log->draining, __ATOMIC_ACQUIRE))
        return drain_to_list(stage2, entries, next);
    for (;; next--) {
        next = (int)drain_out(log, entries, next, stage2->core->stage2.format->dirty);
        if (next < 0 || entries[next] == DIRTY_LOG_EMPTY)
            return next;
        dirty_log_mark(stage2->core, entries[next] / PAGE_BYTES);
        entries[next] = DIRTY_LOG_EMPTY;
    }
}

/* ---- Start ---- */

uint64_t dirty_log_bits(const struct stage2 *stage2)
{
    return ALIGN_UP(gmem_end(stage2->gmem) / PAGE_BYTES, CHUNK_PAGES);
}

/* Zeroes so much at a time that the thread is not kept from yielding. */
static void clear(void *memory, uint64_t bytes, const struct dirty_ops *ops)
{
    for (uint64_t done = 0; done < bytes; done += CLEAR_BYTES) {
        memset((char *)memory + done, 0, MIN(bytes - done, CLEAR_BYTES));
        if (ops->yield)
            ops->yield();
    }
}

/* The run: a page of detached tables, the two lists, bitmap, summary, leaves, mode, period, touched, pending. */
static bool allocate(struct stage2 *stage2, const struct dirty_ops *ops)
{
    struct dirty_log *log = &stage2->log;
    uint64_t bits = dirty_log_bits(stage2), frames = bits / FRAME_PAGES, chunks = bits / CHUNK_PAGES;
    uint64_t list_bytes = MAX(frames, LIST_MIN) * sizeof(struct dirty_page), padded = ALIGN_UP(chunks, CHUNKS_AT_ONCE);
    uint64_t bytes = PAGE_BYTES + 2 * list_bytes + bits / 8 + padded * 8 + frames * (8 + 2) + 2 * padded;
    hpa_t run;

    if (!log->bitmap) {
        log->run_pages = ALIGN_UP(bytes, PAGE_BYTES) / PAGE_BYTES;
        if (!page_alloc_run(log->run_pages, stage2->core->owner, 0, &run))
            return false;
        log->detached = phys_to_virt(run);
        log->list = (struct dirty_page *)(log->detached + DETACHED_MAX);
        log->taken = log->list + list_bytes / sizeof(struct dirty_page);
        log->bitmap = (uint64_t *)(log->taken + list_bytes / sizeof(struct dirty_page));
        log->summary = log->bitmap + bits / 64;
        log->leaves = log->summary + padded;
        log->mode = (uint8_t *)(log->leaves + frames);
        log->period = log->mode + frames;
        log->touched = log->period + frames;
        log->pending = log->touched + padded;
        log->bits = bits;
        stage2->core->dirty_bits = bits;
    }
    clear(log->detached, bytes, ops);
    log->list_count = 0;
    log->dense_begun = false;
    return true;
}

/*
 * Takes the right to write from all frames of a GiB, and puts those together that were split for fetches: their tables go
 * to detached[], which has room for one GiB.
 */
static unsigned protect_gib(struct stage2 *stage2, uint64_t gib)
{
    const struct pt_format *format = stage2->core->stage2.format;
    uint64_t rights = stage2_large_rights(stage2) & ~PT_WRITE, entry;
    unsigned count = 0;
    uint64_t flags = spin_lock_irqsave(&stage2->lock), *directory = stage2->directory[gib];

    if (directory) {
        uint64_t *slot = stage2_gib_slot(stage2, gib);

        for (unsigned i = 0; i < PT_TABLE_ENTRIES; i++) {
            entry = stage2_entry(&directory[i]);
            if ((entry & (format->write | format->large)) == (format->write | format->large)) {
                clear_bits(&directory[i], format->write);
            } else if (pt_entry_present(format, entry) && !(entry & format->large) &&
                       stage2->log.mode[gib * PT_TABLE_ENTRIES + i] == MODE_LARGE) {
                stage2->log.detached[count++] = entry & PT_ADDRESS_MASK;
                stage2_set_entry(&directory[i], pt_leaf_entry(format, HPA(*pt_entry_table(entry) & PT_ADDRESS_MASK),
                                                              LARGE_PAGE_BYTES, rights));
            }
        }
        if (pt_entry_is_leaf(format, stage2_entry(slot), HUGE_PAGE_BYTES))
            stage2_set_entry(slot, virt_to_phys(directory).v | format->table_bits);
    }
    spin_unlock_irqrestore(&stage2->lock, flags);
    return count;
}

static void free_detached(struct stage2 *stage2, unsigned *count)
{
    uint64_t flags;

    stage2->log.ops->flush_all(stage2->core);
    flags = spin_lock_irqsave(&stage2->lock);
    while (*count)
        pt_table_free(&stage2->core->stage2, HPA(stage2->log.detached[--*count]));
    spin_unlock_irqrestore(&stage2->lock, flags);
}

enum status dirty_log_start(struct stage2 *stage2, enum dirty_engine engine, const struct dirty_ops *ops)
{
    struct dirty_log *log = &stage2->log;
    uint64_t flags;

    if (log->engine != DIRTY_OFF)
        return ERR_BUSY;
    if (engine == DIRTY_OFF)
        return ERR_INVALID;
    if (!allocate(stage2, ops)) {
        log_error("dirty log: no memory for a bitmap of %llu pages", (unsigned long long)dirty_log_bits(stage2));
        return ERR_NO_MEMORY;
    }
    flags = spin_lock_irqsave(&stage2->lock);
    log->ops = ops;
    log->engine = engine;
    log->list_max = MAX(log->bits / FRAME_PAGES, LIST_MIN);
    __atomic_store_n(&stage2->core->dirty_bitmap, log->bitmap, __ATOMIC_SEQ_CST);
    spin_unlock_irqrestore(&stage2->lock, flags);
    for (uint64_t gib = 0; gib < stage2->gib_count; gib++) {
        unsigned count = protect_gib(stage2, gib);
        if (count)
            free_detached(stage2, &count);
    }
    ops->flush_all(stage2->core);
    return OK;
}

/* ---- Collect ---- */

static void maybe_yield(const struct dirty_log *log, unsigned *done)
{
    if (++*done % YIELD_CHUNKS == 0 && log->ops->yield)
        log->ops->yield();
}

/*
 * Pages of the list that this collect has taken: reports them and arms them again. A frame that became dense after its
 * pages were listed keeps its rights; that is rare enough to be looked at only if there was one. With the lock held.
 */
static void take_pages(struct stage2 *stage2, const struct dirty_page *page, const struct dirty_page *end, bool was_dense)
{
    struct dirty_log *log = &stage2->log;
    const uint64_t clear = log->engine == DIRTY_PML ? stage2->core->stage2.format->dirty : STAGE2_WRITE;
    uint64_t *out = log->out, count = 0;

    if (unlikely(was_dense || log->dense_begun)) {
        for (; page < end; page++) {
            set_and_count(out, page->gfn, &count);
            if ((log->mode[page->gfn / FRAME_PAGES] & MODE_MASK) == MODE_SPARSE)
                clear_bits(page->leaf, clear);
        }
    }
    for (; page < end; page++) {
        set_and_count(out, page->gfn, &count);
        clear_bits(page->leaf, clear);
    }
    log->count += count;
}

static void take_list(struct stage2 *stage2)
{
    struct dirty_log *log = &stage2->log;
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    struct dirty_page *page = log->list, *end = page + log->list_count;
    bool was_dense = log->dense_begun;
    unsigned done = 0;

    log->list = log->taken;
    log->taken = page;
    log->list_count = 0;
    log->dense_begun = false;
    log->draining = false;
    log->now++;
    while (end - page > LIST_STEP) {
        take_pages(stage2, page, page + LIST_STEP, was_dense);
        page += LIST_STEP;
        spin_unlock_irqrestore(&stage2->lock, flags);
        maybe_yield(log, &done);
        flags = spin_lock_irqsave(&stage2->lock);
    }
    if (page < end)
        take_pages(stage2, page, end, was_dense);
    spin_unlock_irqrestore(&stage2->lock, flags);
}

/* Takes these words of a chunk's bitmap and arms their pages again. `slots`: its 8 directory entries, or NULL. */
static void take_words(struct stage2 *stage2, uint64_t chunk, uint64_t words, uint64_t *slots)
{
    struct dirty_log *log = &stage2->log;
    const uint64_t dirty = stage2->core->stage2.format->dirty;
    uint64_t *bitmap = &log->bitmap[chunk * 64], *out = &log->out[chunk * 64], count = 0;
    const uint8_t *mode = &log->mode[chunk * CHUNK_FRAMES];

    for (; words; words &= words - 1) {
        unsigned w = (unsigned)__builtin_ctzll(words), frame = w / FRAME_WORDS;
        uint64_t bits = __atomic_exchange_n(&bitmap[w], 0, __ATOMIC_SEQ_CST), clear = STAGE2_WRITE, *leaf;

        if (unlikely(!bits))
            continue;
        if (unlikely(out[w] & bits))
            count -= popcount(out[w] & bits);
        out[w] |= bits;
        if (mode[frame] == MODE_PML) {
            clear = dirty;
        } else if ((mode[frame] & MODE_MASK) != MODE_SPARSE) {
            count += popcount(bits);
            if (slots && (stage2_entry(&slots[frame]) & STAGE2_LARGE))
                clear_bits(&slots[frame], STAGE2_WRITE);
            continue;
        }
        leaf = &pt_entry_table(stage2_entry(&slots[frame]))[w % FRAME_WORDS * 64];
        do {
            clear_bits(&leaf[__builtin_ctzll(bits)], clear);
            count++;
            bits &= bits - 1;
        } while (bits);
    }
    log->count += count;
}

/* Closes the dense frames of a chunk that were written, and takes its part of the bitmap. */
static void take_chunk(struct stage2 *stage2, uint64_t chunk)
{
    struct dirty_log *log = &stage2->log;
    uint64_t flags = spin_lock_irqsave(&stage2->lock), gib = chunk / CHUNKS_PER_GIB;
    uint64_t *slots = gib < stage2->gib_count ? stage2->directory[gib] : NULL;

    if (slots)
        slots += chunk % CHUNKS_PER_GIB * CHUNK_FRAMES;
    for (unsigned i = 0; log->touched[chunk] >> i; i++)
        if (log->touched[chunk] >> i & 1)
            clear_bits(&slots[i], STAGE2_WRITE);
    log->pending[chunk] |= log->touched[chunk];
    log->touched[chunk] = 0;
    take_words(stage2, chunk, __atomic_exchange_n(&log->summary[chunk], 0, __ATOMIC_SEQ_CST), slots);
    spin_unlock_irqrestore(&stage2->lock, flags);
}

/* The closed frames of a chunk that no fault has scanned in the meantime. */
static void scan_chunk(struct stage2 *stage2, uint64_t chunk)
{
    struct dirty_log *log = &stage2->log;
    uint64_t flags = spin_lock_irqsave(&stage2->lock);
    uint64_t *slots = &stage2->directory[chunk / CHUNKS_PER_GIB][chunk % CHUNKS_PER_GIB * CHUNK_FRAMES];

    for (unsigned i = 0; i < CHUNK_FRAMES; i++)
        if (log->pending[chunk] >> i & 1)
            scan_frame(stage2, chunk * CHUNK_FRAMES + i, stage2_entry(&slots[i]));
    spin_unlock_irqrestore(&stage2->lock, flags);
}

/* Is there nothing to take from CHUNKS_AT_ONCE chunks? The arrays go on, with zeroes, to the next multiple of that. */
static bool all_clean(const struct dirty_log *log, uint64_t chunk)
{
    const uint64_t *summary = &log->summary[chunk];
    uint64_t noted = __atomic_load_n((const uint64_t *)&log->touched[chunk], __ATOMIC_ACQUIRE);

    for (unsigned i = 0; i < CHUNKS_AT_ONCE; i++)
        noted |= __atomic_load_n(&summary[i], __ATOMIC_ACQUIRE);
    return !noted;
}

enum status dirty_log_collect(struct stage2 *stage2, uint64_t *bitmap_out, uint64_t *page_count)
{
    struct dirty_log *log = &stage2->log;
    uint64_t chunks = log->bits / CHUNK_PAGES;
    unsigned done = 0;

    if (log->engine == DIRTY_OFF)
        return ERR_INVALID;
    /*
     * No lock for these: who holds it and sees them too late comes before everything that is done with the lock below, as a
     * fault or a drain before this collect; when they are taken back, nothing is pending or drained into it any more.
     */
    log->count = 0;
    __atomic_store_n(&log->out, bitmap_out, __ATOMIC_RELEASE);
    if (log->engine == DIRTY_PML) {
        __atomic_store_n(&log->draining, true, __ATOMIC_RELEASE);
        log->ops->drain_all(stage2->core);
    }
    take_list(stage2);
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        if (chunk % CHUNKS_AT_ONCE == 0 && all_clean(log, chunk)) {
            chunk += CHUNKS_AT_ONCE - 1;
            continue;
        }
        if (__atomic_load_n(&log->summary[chunk], __ATOMIC_ACQUIRE) | __atomic_load_n(&log->touched[chunk], __ATOMIC_ACQUIRE)) {
            take_chunk(stage2, chunk);
            maybe_yield(log, &done);
        }
    }
    log->ops->flush_all(stage2->core);
    for (uint64_t chunk = 0; log->engine == DIRTY_ACCESSED_DIRTY && chunk < chunks; chunk++) {
        if (__atomic_load_n(&log->pending[chunk], __ATOMIC_ACQUIRE)) {
            scan_chunk(stage2, chunk);
            maybe_yield(log, &done);
        }
    }
    __atomic_store_n(&log->out, NULL, __ATOMIC_RELEASE);
    *page_count = log->count;
    return OK;
}

/* ---- Stop ---- */

/* Puts the frames of a chunk together again. Tables that fall off are added to detached[], which has room. */
static void merge_chunk(struct stage2 *stage2, uint64_t chunk, unsigned *count)
{
    const struct pt_format *format = stage2->core->stage2.format;
    uint64_t flags = spin_lock_irqsave(&stage2->lock), *slots = stage2->directory[chunk / CHUNKS_PER_GIB];

    for (unsigned i = 0; slots && i < CHUNK_FRAMES; i++) {
        uint64_t *slot = &slots[chunk % CHUNKS_PER_GIB * CHUNK_FRAMES + i], entry = stage2_entry(slot), base;

        if (!pt_entry_present(format, entry))
            continue;
        base = entry & PT_ADDRESS_MASK;
        if (!(entry & format->large)) {
            stage2->log.detached[(*count)++] = base;
            base = *pt_entry_table(entry) & PT_ADDRESS_MASK;
        }
        stage2_set_entry(slot, pt_leaf_entry(format, HPA(base), LARGE_PAGE_BYTES,
                                             stage2_large_rights(stage2)));
        stage2->log.mode[chunk * CHUNK_FRAMES + i] = MODE_LARGE;
        stage2->log.leaves[chunk * CHUNK_FRAMES + i] = 0;
    }
    if (chunk % CHUNKS_PER_GIB == CHUNKS_PER_GIB - 1)
        stage2_promote(stage2, chunk / CHUNKS_PER_GIB);
    spin_unlock_irqrestore(&stage2->lock, flags);
}

void dirty_log_stop(struct stage2 *stage2)
{
    struct dirty_log *log = &stage2->log;
    unsigned count = 0, done = 0;
    bool pml = log->engine == DIRTY_PML;
    uint64_t flags;

    if (log->engine == DIRTY_OFF)
        return;
    flags = spin_lock_irqsave(&stage2->lock);
    log->engine = DIRTY_OFF;
    log->list_max = log->list_count = 0;
    __atomic_store_n(&stage2->core->dirty_bitmap, NULL, __ATOMIC_SEQ_CST);
    spin_unlock_irqrestore(&stage2->lock, flags);
    for (uint64_t chunk = 0; chunk < stage2->gib_count * CHUNKS_PER_GIB && chunk < log->bits / CHUNK_PAGES; chunk++) {
        merge_chunk(stage2, chunk, &count);
        if (count > DETACHED_MAX - CHUNK_FRAMES)
            free_detached(stage2, &count);
        maybe_yield(log, &done);
    }
    free_detached(stage2, &count);
    if (pml) /* No leaf is clean any more, so these entries are the last. They are not for the next log. */
        log->ops->drain_all(stage2->core);
}

void dirty_log_destroy(struct stage2 *stage2)
{
    struct dirty_log *log = &stage2->log;

    __atomic_store_n(&stage2->core->dirty_bitmap, NULL, __ATOMIC_SEQ_CST);
    if (log->bitmap)
        page_free_run(virt_to_phys(log->detached), log->run_pages, stage2->core->owner);
    *log = (struct dirty_log){ .engine = DIRTY_OFF };
}
