/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: reserving it, the first touch of a frame, and the copy functions. vmm/gmem.h is the description.
 *
 * A frame's word goes from UNTOUCHED to UNTOUCHED|CLAIMED by the one CPU whose compare-and-exchange succeeds. That CPU
 * zeroes the frame and then stores the plain word with release order; whoever loads the plain word with acquire order
 * therefore sees zeros. Zeroing never waits for anything, so those who spin for it wait for some 100 microseconds.
 */
#include "vmm/gmem.h"

#include <string.h>

#include "kernel/log.h"
#include "vdev/vdev.h"
#include "vmm/dirty.h"

#define FRAMES_PER_GIB (HUGE_PAGE_BYTES / LARGE_PAGE_BYTES)

/* ---- Creation ---- */

static uint64_t frame_total(const struct gmem *gmem)
{
    return gmem->low_frames + gmem->high_frames;
}

/* Can the frames from `index` on be a 1 GiB piece: aligned in the guest, and all of it RAM? */
static bool huge_possible(const struct gmem *gmem, uint64_t index)
{
    /* The low region starts at 0 and the high one at 4 GiB, so that frames count from a GiB border in both. */
    bool low = index < gmem->low_frames;
    uint64_t place = low ? index : index - gmem->low_frames, size = low ? gmem->low_frames : gmem->high_frames;

    return place % FRAMES_PER_GIB == 0 && size - place >= FRAMES_PER_GIB;
}

static void release_frames(struct gmem *gmem, uint64_t count)
{
    for (uint64_t i = 0; i < count;) {
        uint64_t bytes = gmem->frames[i] & GMEM_HUGE ? HUGE_PAGE_BYTES : LARGE_PAGE_BYTES;

        page_free(HPA((gmem->frames[i] & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES), bytes, gmem->core->owner);
        i += bytes / LARGE_PAGE_BYTES;
    }
}

static bool reserve_frames(struct gmem *gmem)
{
    uint64_t i = 0;
    hpa_t hpa;

    while (i < frame_total(gmem)) {
        uint32_t flags = (uint32_t)GMEM_UNTOUCHED, count = 1;

        if (huge_possible(gmem, i) && page_alloc(HUGE_PAGE_BYTES, gmem->core->owner, 0, &hpa)) {
            flags |= (uint32_t)GMEM_HUGE;
            count = FRAMES_PER_GIB;
        } else if (!page_alloc(LARGE_PAGE_BYTES, gmem->core->owner, 0, &hpa)) {
            release_frames(gmem, i);
            return false;
        }
        for (uint32_t n = 0; n < count; n++)
            gmem->frames[i++] = ((uint32_t)(hpa.v / LARGE_PAGE_BYTES) + n) | flags;
    }
    return true;
}

enum status gmem_create(struct gmem *gmem, struct vm_core *core, uint64_t bytes)
{
    hpa_t table;

    *gmem = (struct gmem){ .core = core };
    if (bytes == 0 || bytes > BIT(48))
        return ERR_INVALID;
    gmem->bytes = ALIGN_UP(bytes, LARGE_PAGE_BYTES);
    gmem->low_frames = MIN(gmem->bytes, GMEM_LOW_END) / LARGE_PAGE_BYTES;
    gmem->high_frames = gmem->bytes / LARGE_PAGE_BYTES - gmem->low_frames;
    gmem->table_pages = ALIGN_UP(frame_total(gmem) * sizeof gmem->frames[0], PAGE_BYTES) / PAGE_BYTES;
    if (page_alloc_run(gmem->table_pages, core->owner, PAGE_ZERO, &table)) {
        gmem->frames = phys_to_virt(table);
        if (reserve_frames(gmem))
            return OK;
        gmem->frames = NULL;
        page_free_run(table, gmem->table_pages, core->owner);
    }
    return ERR_NO_MEMORY;
}

void gmem_destroy(struct gmem *gmem)
{
    if (!gmem->frames)
        return;
    release_frames(gmem, frame_total(gmem));
    page_free_run(virt_to_phys(gmem->frames), gmem->table_pages, gmem->core->owner);
    gmem->frames = NULL;
    gmem->low_frames = gmem->high_frames = 0;
}

uint64_t gmem_end(const struct gmem *gmem)
{
    return gmem->high_frames ? GMEM_HIGH_BASE + gmem->high_frames * LARGE_PAGE_BYTES
                             : gmem->low_frames * LARGE_PAGE_BYTES;
}

/* ---- First touch ---- */

void gmem_touch(struct gmem *gmem, uint64_t index)
{
    uint32_t *slot = &gmem->frames[index], word = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

    while (word & GMEM_UNTOUCHED) {
        if (word & GMEM_CLAIMED) {
            __builtin_ia32_pause();
            word = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
        } else if (__atomic_compare_exchange_n(slot, &word, word | (uint32_t)GMEM_CLAIMED, false, __ATOMIC_ACQUIRE,
                                               __ATOMIC_ACQUIRE)) {
            memset(gmem_window(HPA((word & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES)), 0, LARGE_PAGE_BYTES);
            __atomic_store_n(slot, word & ~(uint32_t)GMEM_UNTOUCHED, __ATOMIC_RELEASE);
            return;
        }
    }
}

bool gmem_prepare(struct gmem *gmem, gpa_t gpa, uint64_t count, unsigned *budget)
{
    uint64_t index, last;

    if (!count || !gmem_index(gmem, gpa.v, &index) || !gmem_index(gmem, gpa.v + count - 1, &last))
        return true;
    for (; index <= last; index++) {
        if (likely(!(__atomic_load_n(&gmem->frames[index], __ATOMIC_ACQUIRE) & GMEM_UNTOUCHED)))
            continue;
        if (!*budget)
            return false;
        --*budget;
        gmem_touch(gmem, index);
    }
    return true;
}

/* ---- Copies ---- */

bool gmem_valid(const struct gmem *gmem, gpa_t gpa, uint64_t count)
{
    return count == 0 || range_within(gpa.v, count, gmem->low_frames * LARGE_PAGE_BYTES) ||
           (gpa.v >= GMEM_HIGH_BASE &&
            range_within(gpa.v - GMEM_HIGH_BASE, count, gmem->high_frames * LARGE_PAGE_BYTES));
}

/* Where a piece of a valid range is, and how much of it lies in one frame. */
static void *piece_at(struct gmem *gmem, uint64_t gpa, uint64_t left, uint64_t *bytes)
{
    hpa_t hpa = { 0 };

    *bytes = MIN(left, LARGE_PAGE_BYTES - gpa % LARGE_PAGE_BYTES);
    if (unlikely(!gmem_hpa(gmem, GPA(gpa), &hpa)))
        panic("gmem: 0x%llx was checked and is no RAM", (unsigned long long)gpa);
    return gmem_window(hpa);
}

bool gmem_read(struct gmem *gmem, gpa_t gpa, void *bytes, uint64_t count)
{
    uint64_t step;

    if (!gmem_valid(gmem, gpa, count))
        return false;
    for (uint64_t done = 0; done < count; done += step) {
        const void *from = piece_at(gmem, gpa.v + done, count - done, &step);
        memcpy((char *)bytes + done, from, step);
    }
    return true;
}

bool gmem_write(struct gmem *gmem, gpa_t gpa, const void *bytes, uint64_t count)
{
    uint64_t step;

    if (!gmem_valid(gmem, gpa, count))
        return false;
    for (uint64_t done = 0; done < count; done += step) {
        void *to = piece_at(gmem, gpa.v + done, count - done, &step);
        memcpy(to, (const char *)bytes + done, step);
    }
    if (count)
        dirty_log_wrote(gmem->core, gpa, count);
    return true;
}

bool gmem_zero(struct gmem *gmem, gpa_t gpa, uint64_t count)
{
    uint64_t step;

    if (!gmem_valid(gmem, gpa, count))
        return false;
    for (uint64_t done = 0; done < count; done += step) {
        void *to = piece_at(gmem, gpa.v + done, count - done, &step);
        memset(to, 0, step);
    }
    if (count)
        dirty_log_wrote(gmem->core, gpa, count);
    return true;
}

/*
 * One locked instruction on memory that need not be aligned, which the C language does not offer. A guest may rely on
 * it (SDM vol. 3A, 9.1.2.2), except for 16 bytes, which must be aligned.
 */
#define EXCHANGE(type, suffix)                                                                                           \
    do {                                                                                                                 \
        type old, new;                                                                                                   \
        memcpy(&old, expected, sizeof old);                                                                              \
        memcpy(&new, desired, sizeof new);                                                                               \
        __asm__ volatile("lock; cmpxchg" suffix " %[new], (%[at])"                                                       \
                         : "+a"(old), "=@ccz"(done)                                                                      \
                         : [new] "q"(new), [at] "r"(at)                                                                  \
                         : "memory");                                                                                    \
    } while (0)

static bool exchange_16(void *at, const void *expected, const void *desired)
{
    uint64_t old[2], new[2];
    bool done;

    memcpy(old, expected, sizeof old);
    memcpy(new, desired, sizeof new);
    __asm__ volatile("lock; cmpxchg16b (%[at])"
                     : "+a"(old[0]), "+d"(old[1]), "=@ccz"(done)
                     : "b"(new[0]), "c"(new[1]), [at] "r"(at)
                     : "memory");
    return done;
}

bool gmem_compare_exchange(struct gmem *gmem, gpa_t gpa, const void *expected, const void *desired, size_t count,
                           bool *equal)
{
    bool done = false;
    hpa_t hpa;
    void *at;

    if (count > 16 || gpa.v % PAGE_BYTES + count > PAGE_BYTES || (count == 16 && gpa.v % 16 != 0) ||
        !gmem_hpa(gmem, gpa, &hpa))
        return false;
    at = gmem_window(hpa);
    switch (count) {
    case 1: EXCHANGE(uint8_t, "b"); break;
    case 2: EXCHANGE(uint16_t, "w"); break;
    case 4: EXCHANGE(uint32_t, "l"); break;
    case 8: EXCHANGE(uint64_t, "q"); break;
    case 16: done = exchange_16(at, expected, desired); break;
    default: return false;
    }
    if (done)
        dirty_log_wrote(gmem->core, gpa, count);
    *equal = done;
    return true;
}

/* ---- For devices ---- */

static bool ops_read(void *context, gpa_t gpa, void *bytes, uint64_t count)
{
    return gmem_read(context, gpa, bytes, count);
}

static bool ops_write(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    return gmem_write(context, gpa, bytes, count);
}

static bool ops_valid(void *context, gpa_t gpa, uint64_t count)
{
    return gmem_valid(context, gpa, count);
}

static bool ops_prepare(void *context, gpa_t gpa, uint64_t count, unsigned *budget)
{
    return gmem_prepare(context, gpa, count, budget);
}

void gmem_ops_init(struct gmem_ops *ops, struct gmem *gmem)
{
    *ops = (struct gmem_ops){
        .context = gmem, .read = ops_read, .write = ops_write, .valid = ops_valid, .prepare = ops_prepare,
    };
}
