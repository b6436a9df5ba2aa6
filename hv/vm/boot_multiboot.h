/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 (Multiboot Specification version 0.6.96): ELF32 and ELF64 kernels and flat ones with the header's address
 * fields; 32-bit protected-mode entry with EAX = 0x2badb002 and EBX = the information structure.
 */
#ifndef VM_BOOT_MULTIBOOT_H
#define VM_BOOT_MULTIBOOT_H

#include "vm/kernel_image.h"

#define MULTIBOOT_SEARCH_BYTES 8192u     /* the header lies wholly within, 4-byte aligned */
#define MULTIBOOT_HEADER_MAGIC 0x1badb002u
#define MULTIBOOT_ENTRY_MAGIC 0x2badb002u
#define MULTIBOOT_FLAG_PAGE_ALIGN BIT(0)
#define MULTIBOOT_FLAG_MEMORY_INFO BIT(1)
#define MULTIBOOT_FLAG_VIDEO BIT(2)      /* a wish: there is no display, so it is not granted */
#define MULTIBOOT_FLAG_ADDRESSES BIT(16)

struct multiboot_header {
    uint32_t flags;
    uint64_t offset; /* in the file */
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; /* with FLAG_ADDRESSES */
};

/* Finds the header (magic and checksum right); false if there is none. */
bool multiboot_find_header(struct multiboot_header *header, const void *bytes, uint64_t count);

/* As kernel_image_boot, for a Multiboot kernel. */
enum status boot_multiboot(const struct boot_request *request, struct cpu_state *state,
                           char error[BOOT_ERROR_BYTES]) MUST_CHECK;

#endif
