/* SPDX-License-Identifier: MIT */
/*
 * Frames of 2 MiB, whole or split into small pages: the page allocator's inner half, private to page.c, whose lock is held
 * around every call. Pages are named by their numbers (address / 4096).
 */
#ifndef KERNEL_PAGE_FRAMES_H
#define KERNEL_PAGE_FRAMES_H

#include "kernel/page.h"

#define FRAME_PAGES 512

/* Changed by page_frames.c alone. */
struct frames_counts {
    uint64_t ram_pages;    /* all that was given */
    uint64_t free_pages;
    uint64_t free_frames;  /* whole ones */
    uint64_t record_pages; /* small pages that hold the records of split frames */
    uint64_t table_bytes;
};
extern struct frames_counts frames_counts;

/* Set-up, as page_table_bytes, page_init and page_add. */
uint64_t frames_table_bytes(uint64_t ram_end);
void frames_init(void *tables, uint64_t ram_end);
void frames_add(hpa_t base, uint64_t bytes);
/* The end of the address space that the tables cover. */
uint64_t frames_end(void);

/* *page: the first of 1, 512 or 512 * 512 pages, aligned to that. false: there are none. */
bool frames_take_small(page_owner_t owner, uint64_t *page) MUST_CHECK;
bool frames_take_large(page_owner_t owner, uint64_t *page) MUST_CHECK;
bool frames_take_huge(page_owner_t owner, uint64_t *page) MUST_CHECK;
/* Pages that follow each other: up to FRAME_PAGES small ones, or as many whole frames as hold more. */
bool frames_take_run(uint64_t page_count, page_owner_t owner, uint64_t *page) MUST_CHECK;

/* Gives back what was taken, `page` being below frames_end and aligned. false: the owner does not hold it. */
bool frames_put_small(uint64_t page, page_owner_t owner) MUST_CHECK;
bool frames_put_large(uint64_t page, page_owner_t owner) MUST_CHECK;
bool frames_put_huge(uint64_t page, page_owner_t owner) MUST_CHECK;

#endif
