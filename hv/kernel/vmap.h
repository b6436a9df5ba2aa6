/* SPDX-License-Identifier: MIT */
/* The hypervisor's own page tables and what is mapped by them at run time: device registers and stacks. */
#ifndef KERNEL_VMAP_H
#define KERNEL_VMAP_H

#include "boot/boot_info.h"
#include "kernel/pt.h"
#include "kernel/types.h"

extern struct pt host_pt;

/* Builds the tables (direct map, guest windows, image) and loads CR3. Boot CPU, once, after page_add. */
void vmap_init(const struct boot_info *info);

/* Maps device registers uncached; never unmapped. NULL where memory ran out. The address need not be aligned. */
void *vmap_mmio(hpa_t hpa, uint64_t bytes) MUST_CHECK;
/* The same for a framebuffer: write combining. */
void *vmap_framebuffer(hpa_t hpa, uint64_t bytes) MUST_CHECK;

/*
 * A stack of `bytes` (multiple of 4096) with an unmapped guard page below it. Returns the top (highest address + 1,
 * aligned to 16), or NULL where memory ran out. vmap_stack_free wants all CPUs to be done with it.
 */
void *vmap_stack(uint64_t bytes) MUST_CHECK;
void vmap_stack_free(void *top, uint64_t bytes);

/*
 * Puts zeroed memory, contiguous in host physical memory from *hpa on, where the image has addresses and no memory of its
 * own: [start, end), both on page boundaries. For ever. False where memory ran out. Thread context.
 */
bool vmap_back(char *start, char *end, hpa_t *hpa) MUST_CHECK;

/* True if the address is in a guard page: a stack overflow. */
bool vmap_is_guard(uint64_t address);

#endif
