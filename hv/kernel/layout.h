/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's virtual address space. Everything is in the upper half; nothing is mapped in the lower one.
 *
 *   0xffff800000000000  direct map: RAM that is not the image, RW NX, at HV_DIRECT_BASE + hpa
 *   0xffffc00000000000  guest windows: the same RAM a second time, for gmem_window() alone, so that it can be left out
 *   0xffffe00000000000  vmap: MMIO (uncached) and stacks, each with an unmapped page below it
 *   0xffffffff80000000  the image: text RX, rodata R, data RW NX
 *   0xffffffffc0000000  the network's memory, RW NX, where there is one (linker.ld, vmap_back)
 */
#ifndef KERNEL_LAYOUT_H
#define KERNEL_LAYOUT_H

#include "boot/boot_info.h"

#define HV_GUEST_BASE 0xffffc00000000000ull
#define HV_VMAP_BASE 0xffffe00000000000ull
#define HV_VMAP_BYTES (1ull << 40)

extern char __text_start[], __text_end[], __rodata_start[], __rodata_end[], __data_start[], __data_end[], __bss_start[],
    __bss_end[], __image_end[];

#endif
