/* SPDX-License-Identifier: MIT */
/*
 * Where free memory is; page_frames.h says what is asked of it.
 *
 * Two tables, both given by the caller of frames_init: one struct frame of 16 bytes for each 2 MiB of physical address
 * space, one struct gib of 16 bytes for each 1 GiB. Everything is found through lists and counts, so that every
 * operation but frames_take_run takes a bounded number of steps whatever the size of RAM:
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
 */
#include "kernel/page_frames.h"

#include <string.h>

#include "kernel/log.h"

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

static struct frame *frames;
static struct gib *gibs;
static uint32_t frame_count, gib_count;
static uint32_t gib_lists[GIB_LISTS];
static uint32_t split_list;
struct frames_counts frames_counts;

/* ---- Whole frames. ---- */

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
    frames_counts.free_pages += FRAME_PAGES;
    frames_counts.free_frames++;
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
    frames_counts.free_pages -= FRAME_PAGES;
    frames_counts.free_frames--;
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

bool frames_take_huge(page_owner_t owner, uint64_t *page)
{
    uint32_t g = gib_lists[GIB_WHOLE];

    if (g == NONE)
        return false;
    for (uint32_t f = g * GIB_FRAMES; f < (g + 1) * GIB_FRAMES; f++)
        frame_own(f, FRAME_HUGE, owner);
    gibs[g].first = NONE;
    gibs[g].free = 0;
    gib_relist(g);
    frames_counts.free_pages -= (uint64_t)FRAME_PAGES * GIB_FRAMES;
    frames_counts.free_frames -= GIB_FRAMES;
    *page = (uint64_t)g * GIB_FRAMES * FRAME_PAGES;
    return true;
}

/* ---- Split frames. ---- */

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
    frames_counts.record_pages++;
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
    frames_counts.free_pages++;
}

static void split_take(uint32_t f, unsigned index, page_owner_t owner)
{
    struct frame *frame = &frames[f];
    struct record *record = record_of(frame);

    record->free[index / 64] &= ~BIT(index % 64);
    record->owner[index] = owner;
    if (--frame->count == 0)
        split_unlink(f);
    frames_counts.free_pages--;
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
    frames_counts.free_pages += FRAME_PAGES - 1;
}

bool frames_take_small(page_owner_t owner, uint64_t *page)
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
        frames_counts.free_pages -= frame->count;
        frames_counts.record_pages--;
        page = frame->record;
        frame_put(f);
        if (own_record)
            return;
    }
}

/* ---- Runs. ---- */

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
    if (!frames_take_small(OWNER_RECORD, &record_page)) {
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

/* ---- What callers ask for ---- */

bool frames_take_large(page_owner_t owner, uint64_t *page)
{
    uint32_t f = frame_take_any();

    if (f == NONE)
        return false;
    frame_own(f, FRAME_LARGE, owner);
    *page = (uint64_t)f * FRAME_PAGES;
    return true;
}

bool frames_take_run(uint64_t page_count, page_owner_t owner, uint64_t *page)
{
    unsigned count = (unsigned)page_count;

    if (page_count > FRAME_PAGES)
        return run_of_frames((uint32_t)((page_count + FRAME_PAGES - 1) / FRAME_PAGES), owner, page);
    return run_in_split(count, owner, RUN_TRIES, page) || run_in_new(count, owner, page) ||
           run_in_split(count, owner, NONE, page);
}

bool frames_put_small(uint64_t page, page_owner_t owner)
{
    const struct frame *frame = &frames[page / FRAME_PAGES];

    if (frame->state != FRAME_SPLIT || record_of(frame)->owner[page % FRAME_PAGES] != owner)
        return false;
    small_put(page);
    return true;
}

bool frames_put_large(uint64_t page, page_owner_t owner)
{
    uint32_t f = (uint32_t)(page / FRAME_PAGES);

    if (frames[f].state != FRAME_LARGE || frames[f].count != owner)
        return false;
    frame_put(f);
    return true;
}

bool frames_put_huge(uint64_t page, page_owner_t owner)
{
    uint32_t first = (uint32_t)(page / FRAME_PAGES);

    if (frames[first].state != FRAME_HUGE || frames[first].count != owner)
        return false;
    for (uint32_t f = first; f < first + GIB_FRAMES; f++)
        frame_put(f);
    return true;
}

/* ---- Set-up ---- */

uint64_t frames_end(void)
{
    return (uint64_t)frame_count * LARGE_PAGE_BYTES;
}

static uint64_t frames_needed(uint64_t ram_end)
{
    return ALIGN_UP(MIN(ram_end, RAM_END_MAX), HUGE_PAGE_BYTES) / LARGE_PAGE_BYTES;
}

uint64_t frames_table_bytes(uint64_t ram_end)
{
    uint64_t count = frames_needed(ram_end);

    return ALIGN_UP(count * sizeof(struct frame) + count / GIB_FRAMES * sizeof(struct gib), PAGE_BYTES);
}

void frames_init(void *tables, uint64_t ram_end)
{
    if (ram_end > RAM_END_MAX)
        log_warning("memory: RAM above 16 TiB is not used");
    frames_counts = (struct frames_counts){ .table_bytes = frames_table_bytes(ram_end) };
    memset(tables, 0, frames_counts.table_bytes);
    frame_count = (uint32_t)frames_needed(ram_end);
    gib_count = frame_count / GIB_FRAMES;
    frames = tables;
    gibs = (struct gib *)(frames + frame_count);
    for (uint32_t g = 0; g < gib_count; g++)
        gibs[g].first = NONE;
    gib_lists[GIB_SOME] = gib_lists[GIB_WHOLE] = split_list = NONE;
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
        frames_counts.free_pages -= frames[f].count;
        frames_counts.record_pages--;
        frame_put(f);
    }
}

void frames_add(hpa_t base, uint64_t bytes)
{
    uint64_t limit = (uint64_t)frame_count * LARGE_PAGE_BYTES;
    uint64_t end = bytes < limit - MIN(base.v, limit) ? base.v + bytes : limit;
    uint64_t page = ALIGN_UP(MIN(MAX(base.v, LOW_RAM_END), limit), PAGE_BYTES) >> PAGE_SHIFT;
    uint64_t page_end = end >> PAGE_SHIFT;

    while (page < page_end) {
        uint32_t f = (uint32_t)(page / FRAME_PAGES);
        unsigned first = page % FRAME_PAGES;
        unsigned count = (unsigned)MIN(page_end - page, FRAME_PAGES - first);

        if (count == FRAME_PAGES && frames[f].state == FRAME_ABSENT)
            frame_put(f);
        else
            add_edge(f, first, count);
        frames_counts.ram_pages += count;
        page += count;
    }
}
