/* SPDX-License-Identifier: MIT */
/*
 * The page allocator; kernel/page.h says what it promises. Here is who holds what: owners, their accounts, and the checks of
 * what callers give back. Where the memory is taken from is page_frames.c's business.
 *
 * Lock order: the allocator's lock is near the innermost (kernel/spinlock.h); nothing is called with it held but
 * page_frames.c. Pages are zeroed after it has been released.
 */
#include "kernel/page.h"

#include <string.h>

#include "kernel/log.h"
#include "kernel/page_frames.h"
#include "kernel/spinlock.h"
#include "kernel/text.h"

enum owner_state { SLOT_FREE, SLOT_LIVE, SLOT_RETIRED };

struct owner {
    char name[32];
    uint64_t small, large, huge;
    enum owner_state state;
};

static struct spinlock lock = SPINLOCK_INIT("page allocator");
static struct owner owners[PAGE_OWNERS];

/* ---- Checks of what callers give back. All with the lock held. ---- */

static void check_owner(page_owner_t owner)
{
    if (owner >= PAGE_OWNERS || (owner != PAGE_OWNER_HV && owners[owner].state == SLOT_FREE))
        panic("page allocator: no owner %u", owner);
}

/* The number of the page at an address that a caller gives back. */
static uint64_t page_of(uint64_t address, uint64_t bytes)
{
    if (address % bytes != 0 || !range_within(address, bytes, frames_end()))
        panic("page allocator: 0x%llx is no page of 0x%llx bytes", (unsigned long long)address,
              (unsigned long long)bytes);
    return address >> PAGE_SHIFT;
}

static NORETURN void bad_free(uint64_t address, uint64_t bytes, page_owner_t owner)
{
    panic("page allocator: owner %u frees 0x%llx (0x%llx bytes), which it does not hold", owner,
          (unsigned long long)address, (unsigned long long)bytes);
}

/* ---- The interface ---- */

bool page_alloc(uint64_t bytes, page_owner_t owner, unsigned flags, hpa_t *out)
{
    uint64_t saved = spin_lock_irqsave(&lock), page = 0;
    bool found;

    check_owner(owner);
    if (bytes == PAGE_BYTES) {
        found = frames_take_small(owner, &page);
        owners[owner].small += found;
    } else if (bytes == LARGE_PAGE_BYTES) {
        found = frames_take_large(owner, &page);
        owners[owner].large += found;
    } else if (bytes == HUGE_PAGE_BYTES) {
        found = frames_take_huge(owner, &page);
        owners[owner].huge += found;
    } else {
        panic("page allocator: no pages of 0x%llx bytes", (unsigned long long)bytes);
    }
    spin_unlock_irqrestore(&lock, saved);
    if (!found)
        return false;
    *out = HPA(page << PAGE_SHIFT);
    if (flags & PAGE_ZERO)
        memset(phys_to_virt(*out), 0, bytes);
    return true;
}

void page_free(hpa_t hpa, uint64_t bytes, page_owner_t owner)
{
    uint64_t saved = spin_lock_irqsave(&lock);
    bool held = false;

    check_owner(owner);
    if (bytes == PAGE_BYTES) {
        held = frames_put_small(page_of(hpa.v, bytes), owner);
        owners[owner].small -= held;
    } else if (bytes == LARGE_PAGE_BYTES) {
        held = frames_put_large(page_of(hpa.v, bytes), owner);
        owners[owner].large -= held;
    } else if (bytes == HUGE_PAGE_BYTES) {
        held = frames_put_huge(page_of(hpa.v, bytes), owner);
        owners[owner].huge -= held;
    }
    if (!held)
        bad_free(hpa.v, bytes, owner);
    spin_unlock_irqrestore(&lock, saved);
}

bool page_alloc_run(uint64_t page_count, page_owner_t owner, unsigned flags, hpa_t *out)
{
    uint64_t saved, page = 0;

    if (page_count == 0 || page_count > frames_counts.ram_pages)
        return false;
    saved = spin_lock_irqsave(&lock);
    check_owner(owner);
    bool found = frames_take_run(page_count, owner, &page);
    if (found && page_count > FRAME_PAGES)
        owners[owner].large += (page_count + FRAME_PAGES - 1) / FRAME_PAGES;
    else if (found)
        owners[owner].small += page_count;
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

    totals->ram_bytes = frames_counts.ram_pages * PAGE_BYTES;
    totals->free_bytes = frames_counts.free_pages * PAGE_BYTES;
    totals->free_large_bytes = frames_counts.free_frames * LARGE_PAGE_BYTES;
    totals->table_bytes = frames_counts.table_bytes + frames_counts.record_pages * PAGE_BYTES;
    spin_unlock_irqrestore(&lock, saved);
}

/* ---- Set-up ---- */

uint64_t page_table_bytes(uint64_t ram_end)
{
    return frames_table_bytes(ram_end);
}

void page_init(void *tables, uint64_t ram_end)
{
    frames_init(tables, ram_end);
    memset(owners, 0, sizeof owners);
    owners[PAGE_OWNER_HV].state = SLOT_LIVE;
}

void page_add(hpa_t base, uint64_t bytes)
{
    uint64_t saved = spin_lock_irqsave(&lock);

    frames_add(base, bytes);
    spin_unlock_irqrestore(&lock, saved);
}
