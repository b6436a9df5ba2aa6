/* SPDX-License-Identifier: MIT */
/*
 * The memory of a guest, as the hypervisor sees it.
 *
 * RAM lies in two regions of guest physical addresses: [0, 3 GiB) as far as it goes, and the rest from 4 GiB on. It is
 * reserved in whole when the VM is created, in frames of 2 MiB (of a 1 GiB piece where the layout and the host allow
 * that), and accounted to the VM. struct gmem has one 32-bit word for each frame: its host frame number and its state.
 *
 * A frame is zeroed when it is first touched, by the guest (stage2.c) or by a function of this file, and by one CPU: the
 * one that claims it. Others wait until it is published. So no byte of another VM can ever be read, and creating a VM
 * costs nothing for each byte.
 *
 * Host pointers to guest memory come from gmem_window() alone: a region of virtual addresses of its own.
 *
 * Everything here that writes to the guest marks the dirty log, after the bytes are written (dirty.h says why).
 * All functions but create and destroy may be called from any thread and from exit handlers, by many CPUs at once.
 */
#ifndef VMM_GMEM_H
#define VMM_GMEM_H

#include "kernel/index_mask.h"
#include "kernel/layout.h"
#include "kernel/page.h"
#include "kernel/status.h"
#include "kernel/types.h"
#include "vmm/vmm.h"

#define GMEM_LOW_END 0xc0000000ull
#define GMEM_HIGH_BASE (4 * GIB)

/* A word of struct gmem's frames[]. */
#define GMEM_UNTOUCHED BIT(31) /* may still hold somebody else's bytes */
#define GMEM_CLAIMED BIT(30)   /* untouched, and a CPU is zeroing it */
#define GMEM_HUGE BIT(29)      /* part of a 1 GiB piece, at the place in it that its guest address says */
#define GMEM_NUMBER_MASK (BIT(29) - 1)

struct gmem {
    struct vm_core *core;
    uint32_t *frames;      /* low region, then high region */
    uint64_t low_frames, high_frames;
    uint64_t bytes;        /* of RAM */
    uint64_t table_pages;  /* what frames[] takes */
};

/*
 * Reserves `bytes` (1 or more; rounded up to 2 MiB) for the VM of core->owner. ERR_NO_MEMORY: nothing is held. The VM's
 * name in the log is its owner's. Thread context.
 */
enum status gmem_create(struct gmem *gmem, struct vm_core *core, uint64_t bytes) MUST_CHECK;
/* Gives all of it back. No vCPU, device or stage-2 table may use it any more. NULL frames (never created): nothing. */
void gmem_destroy(struct gmem *gmem);

/* One byte after the last guest physical address of RAM. */
uint64_t gmem_end(const struct gmem *gmem);

/* Zeroes and publishes a frame that was UNTOUCHED, or waits until somebody has. */
void gmem_touch(struct gmem *gmem, uint64_t index);

#ifdef TASUKI_HOST_TEST
void *gmem_window(hpa_t hpa);
#else
/* Where guest RAM at hpa can be reached, to the end of its frame. */
static inline void *gmem_window(hpa_t hpa)
{
    return (void *)(HV_GUEST_BASE + hpa.v);
}
#endif

/* The frame of a guest physical address, as an index of frames[]. */
static inline bool gmem_index(const struct gmem *gmem, uint64_t gpa, uint64_t *index)
{
    uint64_t frame = gpa / LARGE_PAGE_BYTES, above = frame - GMEM_HIGH_BASE / LARGE_PAGE_BYTES;

    if (frame < gmem->low_frames)
        *index = index_mask(frame, gmem->low_frames);
    else if (above < gmem->high_frames)
        *index = index_mask(above, gmem->high_frames) + gmem->low_frames;
    else
        return false;
    return true;
}

/* The host address of a frame, which is zeroed first if need be. */
static inline hpa_t gmem_frame(struct gmem *gmem, uint64_t index)
{
    uint32_t word = __atomic_load_n(&gmem->frames[index], __ATOMIC_ACQUIRE);

    if (unlikely(word & GMEM_UNTOUCHED))
        gmem_touch(gmem, index);
    return HPA((word & GMEM_NUMBER_MASK) * LARGE_PAGE_BYTES);
}

/* The host physical address of guest RAM; good to the end of its 2 MiB frame. false: no RAM there. */
static inline bool gmem_hpa(struct gmem *gmem, gpa_t gpa, hpa_t *hpa)
{
    uint64_t index;

    if (unlikely(!gmem_index(gmem, gpa.v, &index)))
        return false;
    *hpa = HPA(gmem_frame(gmem, index).v | (gpa.v & (LARGE_PAGE_BYTES - 1)));
    return true;
}

/*
 * A host pointer for reading `count` bytes that lie within one page, or NULL where that is not RAM. The guest may
 * change them at any time: read each once. Valid as long as the VM.
 */
static inline const void *gmem_peek(struct gmem *gmem, gpa_t gpa, size_t count)
{
    hpa_t hpa;

    if (unlikely((gpa.v & (PAGE_BYTES - 1)) + count > PAGE_BYTES) || unlikely(!gmem_hpa(gmem, gpa, &hpa)))
        return NULL;
    return gmem_window(hpa);
}

/* True if all of the range is RAM of one region. An empty range is. */
bool gmem_valid(const struct gmem *gmem, gpa_t gpa, uint64_t count);

/*
 * Zeroes those frames of a valid range that nobody has touched yet, at most *budget of them, which it counts off. False:
 * there are more. So a caller can give the CPU away between two.
 */
bool gmem_prepare(struct gmem *gmem, gpa_t gpa, uint64_t count, unsigned *budget) MUST_CHECK;

/* Copies and fills; false, and nothing done, if any byte of the range is not RAM. */
bool gmem_read(struct gmem *gmem, gpa_t gpa, void *bytes, uint64_t count) MUST_CHECK;
bool gmem_write(struct gmem *gmem, gpa_t gpa, const void *bytes, uint64_t count) MUST_CHECK;
bool gmem_zero(struct gmem *gmem, gpa_t gpa, uint64_t count) MUST_CHECK;

/*
 * Stores `desired` if the memory holds `expected`, atomically against the guest; *equal tells. count is 1, 2, 4, 8 or 16
 * and the range lies within one page; 16 bytes must be aligned. false: not so, or not RAM. Marks dirty what it changed.
 */
bool gmem_compare_exchange(struct gmem *gmem, gpa_t gpa, const void *expected, const void *desired, size_t count,
                           bool *equal) MUST_CHECK;

/* Fills the table through which device models do DMA (vdev/vdev.h). */
struct gmem_ops;
void gmem_ops_init(struct gmem_ops *ops, struct gmem *gmem);

#endif
