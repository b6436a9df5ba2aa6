/* SPDX-License-Identifier: MIT */
/*
 * The Linux/x86 boot protocol, 64-bit entry point (Linux: Documentation/x86/boot.rst, "64-bit boot protocol").
 * docs/guest-interface.md has the layout that the guest meets.
 */
#ifndef VM_BOOT_LINUX_H
#define VM_BOOT_LINUX_H

#include "vm/kernel_image.h"

/* What boot_linux puts below 640 KiB; the kernel leaves these pages once it has its own. */
#define BOOT_LINUX_GDT 0x1000ull
#define BOOT_LINUX_PARAMS 0x2000ull
#define BOOT_LINUX_CMDLINE 0x3000ull
#define BOOT_LINUX_CMDLINE_MAX 4095u    /* without the NUL */
#define BOOT_LINUX_TABLES 0x8000ull     /* PML4, PDPT, four page directories */

/* The fields of the setup header that matter, checked. Offsets are into the file. */
struct linux_header {
    uint16_t version;          /* 0x020c and up */
    uint32_t setup_bytes;      /* real-mode part: what precedes the protected-mode part */
    uint64_t kernel_bytes;     /* protected-mode part */
    uint32_t header_end;       /* file offset of the setup header's end */
    uint64_t preferred;        /* address */
    uint32_t alignment;        /* power of two */
    uint32_t init_bytes;       /* memory that the kernel needs from its load address until it has its own map */
    uint32_t initrd_max;       /* highest address that the initrd may occupy */
    uint32_t cmdline_max;      /* without the NUL */
    bool relocatable;
    bool above_4g;             /* initrd and the rest may lie above 4 GiB */
};

/* Reads and checks the header. Errors as kernel_image_boot. */
enum status linux_header_read(struct linux_header *header, const struct boot_file *kernel,
                              char error[BOOT_ERROR_BYTES]) MUST_CHECK;

/* As kernel_image_boot, for a bzImage. */
enum status boot_linux(const struct boot_request *request, struct cpu_state *state,
                       char error[BOOT_ERROR_BYTES]) MUST_CHECK;

#endif
