/* SPDX-License-Identifier: MIT */
/*
 * The page allocator; kernel/page.h says what it promises.
 *
 * Two tables, both given by the caller of page_init: one struct frame of 16 bytes for each 2 MiB of physical address
 * space, one struct gib of 16 bytes for each 1 GiB. Everything is found through lists and counts, so that every
 * operation but page_alloc_run takes a bounded number of steps whatever the size of RAM:
 *
 *  - a GiB keeps a list and a count of its free frames. It is itself on one of two lists: those with all 512 frames
 *    free, and those with some. A 2 MiB request takes from the second list first, so that 1 GiB pieces survive, and a
 *    1 GiB request takes the first GiB of the first list;
 *  - split frames with a free small page are on a list. One that was full and got a page back goes to its head: the
 *    fullest frames are used first, and the emptier ones get a chance to become whole again.
 *
 * A split frame needs a bitmap and the owner of each page. That record lies in a small page of the frame itself, which
 * therefore needs no allocation and cannot recurse. The one exception is a run of 512 pages, which leaves no room: its
 * record is a small page taken from another frame. Record pages count as tables of the allocator.
 *
 * Frames that RAM fills only in part (the edges of the memory map) are split from the start and never become whole; the
 * pages that are not RAM are simply never free.
 *
 * Lock order: the allocator's lock is near the innermost (kernel/spinlock.h); nothing is called with it held. Pages are
 * zeroed after it has been released.
 */
#include "kernel/page.h"

#include <string.h>

#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/text.h"

#define FRAME_PAGES 512
#define GIB_FRAMES 512
#define NONE UINT32_MAX
#define LOW_RAM_END MIB          /* below this nothing is given out: the BIOS data area, start-up code of CPUs */
#define RAM_END_MAX (16ull << 40) /* 32-bit page numbers */
#define RUN_TRIES 8              /* split frames that are searched for a run before a frame is split for it */

enum frame_state { FRAME_ABSENT, FRAME_FREE, FRAME_LARGE, FRAME_HUGE, FRAME_SPLIT };

struct frame {
    uint8_t state;
    bool edge;           /* split: not all of its pages are RAM */
    uint16_t count;      /* split: free pages; large, huge: the owner */
    uint32_t next, prev; /* free: in its GiB's list; split with free pages: in split_list */
    uint32_t record;     /* split: number of the page that holds its struct record */
};
_Static_assert(sizeof(struct frame) == 16, "16 bytes of table for each 2 MiB");

enum gib_list { GIB_NO_LIST, GIB_SOME, GIB_WHOLE, GIB_LISTS };

struct gib {
    uint32_t first;      /* free frames */
    uint32_t next, prev; /* in the list that `list` names */
    uint16_t free;       /* frames */
    uint8_t list;
};
_Static_assert(sizeof(struct gib) == 16, "16 bytes of table for each 1 GiB");

/* Owners of small pages that are no owners. */
#define OWNER_NOT_RAM 0xffff
#define OWNER_FREE 0xfffe
#define OWNER_RECORD 0xfffd

struct record {
    uint64_t free[FRAME_PAGES / 64]; /* a bit for each free page */
    page_owner_t owner[FRAME_PAGES];
};
_Static_assert(sizeof(struct record) <= PAGE_BYTES, "a record is one small page");

enum owner_state { SLOT_FREE, SLOT_LIVE, SLOT_RETIRED };

struct owner {
    char name[32];
    uint64_t small, large, huge;
    enum owner_state state;
};

static struct spinlock lock = SPINLOCK_INIT("page allocator");
static struct frame *frames;
static struct gib *gibs;
static uint32_t frame_count, gib_count;
static uint32_t gib_lists[GIB_LISTS];
static uint32_t split_list;
static uint64_t ram_pages, free_pages, free_frames, record_pages, table_bytes;
static struct owner owners[PAGE_OWNERS];

/* ---- Whole frames. All with the lock held. ---- */

static void gib_unlink(uint32_t g)
{
    struct gib *gib = &gibs[g];

    if (gib->list == GIB_NO_LIST)
        return;
    if (gib->prev == NONE)
        gib_lists[gib->list] = gib->next;
    else
        gibs[gib->prev].next = gib->next;
    if (gib->next != NONE)
        gibs[gib->next].prev = gib->prev;
    gib->list = GIB_NO_LIST;
}

/* Puts a GiB whose count changed on the list where it belongs. */
static void gib_relist(uint32_t g)
{
    struct gib *gib = &gibs[g];
    uint8_t list = gib->free == GIB_FRAMES ? GIB_WHOLE : gib->free ? GIB_SOME : GIB_NO_LIST;

    if (list == gib->list)
        return;
    gib_unlink(g);
    gib->list = list;
    if (list == GIB_NO_LIST)
        return;
    gib->prev = NONE;
    gib->next = gib_lists[list];
    if (gib->next != NONE)
        gibs[gib->next].prev = g;
    gib_lists[list] = g;
}

static void frame_put(uint32_t f)
{
    struct frame *frame = &frames[f];
    struct gib *gib = &gibs[f / GIB_FRAMES];

    frame->state = FRAME_FREE;
    frame->edge = false;
    frame->count = 0;
    frame->prev = NONE;
    frame->next = gib->first;
    if (frame->next != NONE)
        frames[frame->next].prev = f;
    gib->first = f;
    gib->free++;
    gib_relist(f / GIB_FRAMES);
    free_pages += FRAME_PAGES;
    free_frames++;
}

/* Takes this free frame off its list; its state is the caller's to set. */
static void frame_take(uint32_t f)
{
    struct frame *frame = &frames[f];
    struct gib *gib = &gibs[f / GIB_FRAMES];

    if (frame->prev == NONE)
        gib->first = frame->next;
    else
        frames[frame->prev].next = frame->next;
    if (frame->next != NONE)
        frames[frame->next].prev = frame->prev;
    gib->free--;
    gib_relist(f / GIB_FRAMES);
    free_pages -= FRAME_PAGES;
    free_frames--;
}

/* Any free frame, or NONE. */
static uint32_t frame_take_any(void)
{
    uint32_t g = gib_lists[GIB_SOME] != NONE ? gib_lists[GIB_SOME] : gib_lists[GIB_WHOLE];
    uint32_t f;

    if (g == NONE)
        return NONE;
    f = gibs[g].first;
    frame_take(f);
    return f;
}

static void frame_own(uint32_t f, enum frame_state state, page_owner_t owner)
{
    frames[f].state = (uint8_t)state;
    frames[f].count = owner;
}

static bool huge_take(page_owner_t owner, uint64_t *base)
{
    uint32_t g = gib_lists[GIB_WHOLE];

    if (g == NONE)
        return false;
    for (uint32_t f = g * GIB_FRAMES; f < (g + 1) * GIB_FRAMES; f++)
        frame_own(f, FRAME_HUGE, owner);
    gibs[g].first = NONE;
    gibs[g].free = 0;
    gib_relist(g);
    free_pages -= (uint64_t)FRAME_PAGES * GIB_FRAMES;
    free_frames -= GIB_FRAMES;
    *base = (uint64_t)g * HUGE_PAGE_BYTES;
    return true;
}

/* ---- Split frames. All with the lock held. ---- */

static struct record *record_of(const struct frame *frame)
{
    return phys_to_virt(HPA((uint64_t)frame->record << PAGE_SHIFT));
}

static void split_link(uint32_t f)
{
    frames[f].prev = NONE;
    frames[f].next = split_list;
    if (split_list != NONE)
        frames[split_list].prev = f;
    split_list = f;
}

static void split_unlink(uint32_t f)
{
    struct frame *frame = &frames[f];

    if (frame->prev == NONE)
        split_list = frame->next;
    else
        frames[frame->prev].next = frame->next;
    if (frame->next != NONE)
        frames[frame->next].prev = frame->prev;
}

/* Makes a frame that is on no list a split one without free pages, with its record in page number `record_page`. */
static void split_begin(uint32_t f, uint64_t record_page, page_owner_t fill)
{
    struct frame *frame = &frames[f];
    struct record *record;

    frame->state = FRAME_SPLIT;
    frame->edge = fill == OWNER_NOT_RAM;
    frame->count = 0;
    frame->record = (uint32_t)record_page;
    record = record_of(frame);
    memset(record->free, 0, sizeof record->free);
    for (unsigned i = 0; i < FRAME_PAGES; i++)
        record->owner[i] = fill;
    record_pages++;
}

/* Gives one page of a split frame to the free ones. */
static void split_add(uint32_t f, unsigned index)
{
    struct frame *frame = &frames[f];
    struct record *record = record_of(frame);

    record->free[index / 64] |= BIT(index % 64);
    record->owner[index] = OWNER_FREE;
    if (frame->count++ == 0)
        split_link(f);
    free_pages++;
}

static void split_take(uint32_t f, unsigned index, page_owner_t owner)
{
    struct frame *frame = &frames[f];
    struct record *record = record_of(frame);

    record->free[index / 64] &= ~BIT(index % 64);
    record->owner[index] = owner;
    if (--frame->count == 0)
        split_unlink(f);
    free_pages--;
}

/* Splits a whole frame (on no list) whose record is its own page `record_index`; the others become free. */
static void split_whole(uint32_t f, unsigned record_index)
{
    struct record *record;

    split_begin(f, (uint64_t)f * FRAME_PAGES + record_index, OWNER_FREE);
    record = record_of(&frames[f]);
    memset(record->free, 0xff, sizeof record->free);
    record->free[record_index / 64] &= ~BIT(record_index % 64);
    record->owner[record_index] = OWNER_RECORD;
    frames[f].count = FRAME_PAGES - 1;
    split_link(f);
    free_pages += FRAME_PAGES - 1;
}

static bool small_take(page_owner_t owner, uint64_t *page)
{
    uint32_t f = split_list;
    const struct record *record;

    if (f == NONE) {
        f = frame_take_any();
        if (f == NONE)
            return false;
        split_whole(f, 0);
    }
    record = record_of(&frames[f]);
    for (unsigned word = 0; word < ARRAY_COUNT(record->free); word++) {
        if (record->free[word]) {
            unsigned index = word * 64 + (unsigned)__builtin_ctzll(record->free[word]);
            split_take(f, index, owner);
            *page = (uint64_t)f * FRAME_PAGES + index;
            return true;
        }
    }
    panic("page allocator: frame 0x%x is listed and has no free page", f);
}

/* Frees a small page. A frame that became whole frees its record too, which may lie in another frame: hence the loop. */
static void small_put(uint64_t page)
{
    for (;;) {
        uint32_t f = (uint32_t)(page / FRAME_PAGES);
        struct frame *frame = &frames[f];
        bool own_record = frame->record / FRAME_PAGES == f;

        split_add(f, page % FRAME_PAGES);
        if (frame->edge || frame->count + own_record < FRAME_PAGES)
            return;
        split_unlink(f);
        free_pages -= frame->count;
        record_pages--;
        page = frame->record;
        frame_put(f);
        if (own_record)
            return;
    }
}

/* ---- Runs. All with the lock held. ---- */

/* First page of `count` free ones in a row, or FRAME_PAGES. */
static unsigned run_find(const struct record *record, unsigned count)
{
    unsigned length = 0;

    for (unsigned i = 0; i < FRAME_PAGES; i++) {
        length = record->free[i / 64] & BIT(i % 64) ? length + 1 : 0;
        if (length == count)
            return i + 1 - count;
    }
    return FRAME_PAGES;
}

static void run_own(uint32_t f, unsigned first, unsigned count, page_owner_t owner)
{
    for (unsigned i = first; i < first + count; i++)
        split_take(f, i, owner);
}

/* A run in one of the first `tries` split frames. */
static bool run_in_split(unsigned count, page_owner_t owner, uint32_t tries, uint64_t *page)
{
    for (uint32_t f = split_list; f != NONE && tries; f = frames[f].next, tries--) {
        unsigned first;

        if (frames[f].count < count)
            continue;
        first = run_find(record_of(&frames[f]), count);
        if (first < FRAME_PAGES) {
            run_own(f, first, count, owner);
            *page = (uint64_t)f * FRAME_PAGES + first;
            return true;
        }
    }
    return false;
}

/* A run in a frame that is split for it. */
static bool run_in_new(unsigned count, page_owner_t owner, uint64_t *page)
{
    uint32_t f = frame_take_any();
    uint64_t record_page;

    if (f == NONE)
        return false;
    *page = (uint64_t)f * FRAME_PAGES;
    if (count < FRAME_PAGES) {
        split_whole(f, FRAME_PAGES - 1);
        run_own(f, 0, count, owner);
        return true;
    }
    if (!small_take(OWNER_RECORD, &record_page)) {
        frame_put(f);
        return false;
    }
    split_begin(f, record_page, owner);
    return true;
}

/* A run of whole frames. */
static bool run_of_frames(uint32_t count, page_owner_t owner, uint64_t *page)
{
    uint32_t length = 0;

    for (uint32_t f = 0; f < frame_count; f++) {
        length = frames[f].state == FRAME_FREE ? length + 1 : 0;
        if (length == count) {
            for (uint32_t i = f + 1 - count; i <= f; i++) {
                frame_take(i);
                frame_own(i, FRAME_LARGE, owner);
            }
            *page = (uint64_t)(f + 1 - count) * FRAME_PAGES;
            return true;
        }
    }
    return false;
}

/* ---- Checks of what callers give back. All with the lock held. ---- */

static void check_owner(page_owner_t owner)
{
    if (owner >= PAGE_OWNERS || (owner != PAGE_OWNER_HV && owners[owner].state == SLOT_FREE))
        panic("page allocator: no owner %u", owner);
}

static struct frame *frame_of(uint64_t address, uint64_t bytes)
{
    if (address % bytes != 0 || !range_within(address, bytes, (uint64_t)frame_count * LARGE_PAGE_BYTES))
        panic("page allocator: 0x%llx is no page of 0x%llx bytes", (unsigned long long)address,
              (unsigned long long)bytes);
    return &frames[address / LARGE_PAGE_BYTES];
}

static NORETURN void bad_free(uint64_t address, uint64_t bytes, page_owner_t owner)
{
    panic("page allocator: owner %u frees 0x%llx (0x%llx bytes), which it does not hold", owner,
          (unsigned long long)address, (unsigned long long)bytes);
}

static void small_free(uint64_t address, page_owner_t owner)
{
    const struct frame *frame = frame_of(address, PAGE_BYTES);
    uint64_t page = address >> PAGE_SHIFT;

    if (frame->state != FRAME_SPLIT || record_of(frame)->owner[page % FRAME_PAGES] != owner)
        bad_free(address, PAGE_BYTES, owner);
    owners[owner].small--;
    small_put(page);
}

static void large_free(uint64_t address, page_owner_t owner)
{
    const struct frame *frame = frame_of(address, LARGE_PAGE_BYTES);

    if (frame->state != FRAME_LARGE || frame->count != owner)
        bad_free(address, LARGE_PAGE_BYTES, owner);
    owners[owner].large--;
    frame_put((uint32_t)(address / LARGE_PAGE_BYTES));
}

static void huge_free(uint64_t address, page_owner_t owner)
{
    const struct frame *frame = frame_of(address, HUGE_PAGE_BYTES);
    uint32_t first = (uint32_t)(address / LARGE_PAGE_BYTES);

    if (frame->state != FRAME_HUGE || frame->count != owner)
        bad_free(address, HUGE_PAGE_BYTES, owner);
    owners[owner].huge--;
    for (uint32_t f = first; f < first + GIB_FRAMES; f++)
        frame_put(f);
}

/* ---- The interface ---- */

bool page_alloc(uint64_t bytes, page_owner_t owner, unsigned flags, hpa_t *out)
{
    uint64_t saved = spin_lock_irqsave(&lock), at = 0;
    bool found;

    check_owner(owner);
    if (bytes == PAGE_BYTES) {
        found = small_take(owner, &at);
        at <<= PAGE_SHIFT;
        owners[owner].small += found;
    } else if (bytes == LARGE_PAGE_BYTES) {
        uint32_t f = frame_take_any();
        found = f != NONE;
        if (found) {
            frame_own(f, FRAME_LARGE, owner);
            at = (uint64_t)f * LARGE_PAGE_BYTES;
        }
        owners[owner].large += found;
    } else if (bytes == HUGE_PAGE_BYTES) {
        found = huge_take(owner, &at);
        owners[owner].huge += found;
    } else {
        panic("page allocator: no pages of 0x%llx bytes", (unsigned long long)bytes);
    }
    spin_unlock_irqrestore(&lock, saved);
    if (!found)
        return false;
    *out = HPA(at);
    if (flags & PAGE_ZERO)
        memset(phys_to_virt(*out), 0, bytes);
    return true;
}

void page_free(hpa_t hpa, uint64_t bytes, page_owner_t owner)
{
    uint64_t saved = spin_lock_irqsave(&lock);

    check_owner(owner);
    if (bytes == PAGE_BYTES)
        small_free(hpa.v, owner);
    else if (bytes == LARGE_PAGE_BYTES)
        large_free(hpa.v, owner);
    else if (bytes == HUGE_PAGE_BYTES)
        huge_free(hpa.v, owner);
    else
        bad_free(hpa.v, bytes, owner);
    spin_unlock_irqrestore(&lock, saved);
}

bool page_alloc_run(uint64_t page_count, page_owner_t owner, unsigned flags, hpa_t *out)
{
    uint64_t saved, page = 0;
    bool found;

    if (page_count == 0 || page_count > ram_pages)
        return false;
    saved = spin_lock_irqsave(&lock);
    check_owner(owner);
    if (page_count > FRAME_PAGES) {
        uint32_t run = (uint32_t)((page_count + FRAME_PAGES - 1) / FRAME_PAGES);
        found = run_of_frames(run, owner, &page);
        owners[owner].large += found ? run : 0;
    } else {
        unsigned count = (unsigned)page_count;
        found = run_in_split(count, owner, RUN_TRIES, &page) || run_in_new(count, owner, &page) ||
                run_in_split(count, owner, NONE, &page);
        owners[owner].small += found ? count : 0;
    }
    spin_unlock_irqrestore(&lock, saved);
    if (!found)
        return false;
    *out = HPA(page << PAGE_SHIFT);
    if (flags & PAGE_ZERO)
        memset(phys_to_virt(*out), 0, page_count * PAGE_BYTES);
    return true;
}

void page_free_run(hpa_t hpa, uint64_t page_count, page_owner_t owner)
{
    uint64_t step = page_count > FRAME_PAGES ? LARGE_PAGE_BYTES : PAGE_BYTES;

    for (uint64_t at = 0; at < page_count * PAGE_BYTES; at += step)
        page_free(HPA(hpa.v + at), step, owner);
}

bool page_owner_create(const char *name, page_owner_t *owner)
{
    uint64_t saved = spin_lock_irqsave(&lock);
    bool found = false;

    for (unsigned i = PAGE_OWNER_HV + 1; i < PAGE_OWNERS && !found; i++) {
        if (owners[i].state != SLOT_FREE)
            continue;
        owners[i] = (struct owner){ .state = SLOT_LIVE };
        str_copy(owners[i].name, sizeof owners[i].name, name);
        *owner = (page_owner_t)i;
        found = true;
    }
    spin_unlock_irqrestore(&lock, saved);
    return found;
}

static uint64_t owner_bytes(const struct owner *owner)
{
    return owner->small * PAGE_BYTES + owner->large * LARGE_PAGE_BYTES + owner->huge * HUGE_PAGE_BYTES;
}

void page_owner_destroy(page_owner_t owner)
{
    uint64_t saved = spin_lock_irqsave(&lock), leaked;

    check_owner(owner);
    if (owner == PAGE_OWNER_HV)
        panic("page allocator: the hypervisor's own memory cannot be destroyed");
    leaked = owner_bytes(&owners[owner]);
    owners[owner].state = leaked ? SLOT_RETIRED : SLOT_FREE;
    spin_unlock_irqrestore(&lock, saved);
    if (leaked)
        log_error("page allocator: %s is gone and still holds %llu bytes", owners[owner].name,
                  (unsigned long long)leaked);
}

bool page_owner_usage(page_owner_t owner, struct page_usage *usage)
{
    uint64_t saved;
    struct owner copy;

    if (owner >= PAGE_OWNERS)
        return false;
    saved = spin_lock_irqsave(&lock);
    copy = owners[owner];
    spin_unlock_irqrestore(&lock, saved);
    if (owner != PAGE_OWNER_HV && copy.state == SLOT_FREE)
        return false;
    *usage = (struct page_usage){ .small_pages = copy.small, .large_pages = copy.large, .huge_pages = copy.huge,
                                  .bytes = owner_bytes(&copy) };
    str_copy(usage->name, sizeof usage->name, owner == PAGE_OWNER_HV ? "hypervisor" : copy.name);
    return true;
}

void page_totals_get(struct page_totals *totals)
{
    uint64_t saved = spin_lock_irqsave(&lock);

    totals->ram_bytes = ram_pages * PAGE_BYTES;
    totals->free_bytes = free_pages * PAGE_BYTES;
    totals->free_large_bytes = free_frames * LARGE_PAGE_BYTES;
    totals->table_bytes = table_bytes + record_pages * PAGE_BYTES;
    spin_unlock_irqrestore(&lock, saved);
}

/* ---- Set-up ---- */

static uint64_t frames_needed(uint64_t ram_end)
{
    return ALIGN_UP(MIN(ram_end, RAM_END_MAX), HUGE_PAGE_BYTES) / LARGE_PAGE_BYTES;
}

uint64_t page_table_bytes(uint64_t ram_end)
{
    uint64_t count = frames_needed(ram_end);

    return ALIGN_UP(count * sizeof(struct frame) + count / GIB_FRAMES * sizeof(struct gib), PAGE_BYTES);
}

void page_init(void *tables, uint64_t ram_end)
{
    if (ram_end > RAM_END_MAX)
        log_warning("memory: RAM above 16 TiB is not used");
    table_bytes = page_table_bytes(ram_end);
    memset(tables, 0, table_bytes);
    frame_count = (uint32_t)frames_needed(ram_end);
    gib_count = frame_count / GIB_FRAMES;
    frames = tables;
    gibs = (struct gib *)(frames + frame_count);
    for (uint32_t g = 0; g < gib_count; g++)
        gibs[g].first = NONE;
    gib_lists[GIB_SOME] = gib_lists[GIB_WHOLE] = split_list = NONE;
    ram_pages = free_pages = free_frames = record_pages = 0;
    memset(owners, 0, sizeof owners);
    owners[PAGE_OWNER_HV].state = SLOT_LIVE;
}

/* Pages [first, first + count) of one frame, not all of it. A frame that is complete with them becomes a free one. */
static void add_edge(uint32_t f, unsigned first, unsigned count)
{
    unsigned index = first;
    const struct record *record;

    if (frames[f].state == FRAME_ABSENT) {
        split_begin(f, (uint64_t)f * FRAME_PAGES + first, OWNER_NOT_RAM);
        record_of(&frames[f])->owner[index++] = OWNER_RECORD;
    }
    if (frames[f].state != FRAME_SPLIT)
        panic("page allocator: memory at 0x%llx was added twice", (unsigned long long)f * LARGE_PAGE_BYTES);
    record = record_of(&frames[f]);
    for (; index < first + count; index++) {
        if (record->owner[index] != OWNER_NOT_RAM)
            panic("page allocator: memory at 0x%llx was added twice", (unsigned long long)f * LARGE_PAGE_BYTES);
        split_add(f, index);
    }
    for (index = 0; index < FRAME_PAGES; index++)
        if (record->owner[index] == OWNER_NOT_RAM)
            return;
    frames[f].edge = false;
    if (frames[f].count == FRAME_PAGES - 1) {
        split_unlink(f);
        free_pages -= frames[f].count;
        record_pages--;
        frame_put(f);
    }
}

void page_add(hpa_t base, uint64_t bytes)
{
    uint64_t limit = (uint64_t)frame_count * LARGE_PAGE_BYTES;
    uint64_t end = bytes < limit - MIN(base.v, limit) ? base.v + bytes : limit;
    uint64_t page = ALIGN_UP(MIN(MAX(base.v, LOW_RAM_END), limit), PAGE_BYTES) >> PAGE_SHIFT;
    uint64_t page_end = end >> PAGE_SHIFT;
    uint64_t saved = spin_lock_irqsave(&lock);

    while (page < page_end) {
        uint32_t f = (uint32_t)(page / FRAME_PAGES);
        unsigned first = page % FRAME_PAGES;
        unsigned count = (unsigned)MIN(page_end - page, FRAME_PAGES - first);

        if (count == FRAME_PAGES && frames[f].state == FRAME_ABSENT)
            frame_put(f);
        else
            add_edge(f, first, count);
        ram_pages += count;
        page += count;
    }
    spin_unlock_irqrestore(&lock, saved);
}
