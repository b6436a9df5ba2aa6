/* SPDX-License-Identifier: MIT */
/*
 * Direct boot of a kernel: what a firmware and a boot loader would have done, done from outside before the first
 * instruction of the guest. Pure: the images are bytes in the hypervisor's memory, the guest's memory is behind
 * struct gmem_ops, and the result is a struct cpu_state for the boot vCPU.
 *
 * Two formats, told apart by their headers: Linux bzImage (boot_linux.c) and Multiboot 1 (boot_multiboot.c). Images are
 * outside bytes: every field is checked before it is used, and a damaged image costs its VM only.
 */
#ifndef VM_KERNEL_IMAGE_H
#define VM_KERNEL_IMAGE_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "vdev/vdev.h"
#include "vm/memory_map.h"
#include "vmm/cpu_state.h"

enum kernel_kind { KERNEL_UNKNOWN, KERNEL_LINUX, KERNEL_MULTIBOOT };

/* A file that the loader has read. */
struct boot_file {
    const void *bytes;
    uint64_t count;
    const char *name;    /* as the admin wrote it: for error texts */
    const char *cmdline; /* a Multiboot module's string; NULL = the name */
};

#define BOOT_MODULES_MAX 16
#define BOOT_ERROR_BYTES 256

struct boot_request {
    const struct gmem_ops *memory; /* all RAM is zero */
    const struct memory_range *map; /* of memory_map_build */
    unsigned map_count;
    struct boot_file kernel;
    const struct boot_file *modules; /* Linux: the initrd, at most one. Multiboot: its modules */
    unsigned module_count;
    const char *cmdline;  /* "" for none */
    uint64_t acpi_rsdp;   /* guest physical address; 0 = none */
};

/* What kind of kernel the bytes are, by magic numbers alone; KERNEL_UNKNOWN for anything else and for a short file. */
enum kernel_kind kernel_image_kind(const void *bytes, uint64_t count);

/*
 * Writes the kernel, its modules and what they need to guest memory and sets *state to the first instruction. On
 * failure `error` (BOOT_ERROR_BYTES) names the file, the cause and the cure, and guest memory holds anything:
 * ERR_INVALID (not a kernel, or a damaged one), ERR_TRUNCATED, ERR_UNSUPPORTED (a kernel of a kind that cannot be
 * booted so), ERR_RANGE (the guest's memory is too small, or the command line too long).
 */
enum status kernel_image_boot(const struct boot_request *request, struct cpu_state *state,
                              char error[BOOT_ERROR_BYTES]) MUST_CHECK;

/* ---- For the two loaders ---- */

/* The state of a CPU after RESET or INIT (SDM vol. 3A, table 9-1), RDX 0; also what a vCPU has before its SIPI. */
void cpu_state_reset(struct cpu_state *state);

/* Writes the bytes of the BIOS data area that kernels look at (base memory size, EBDA segment, COM1). */
bool boot_write_bios_data(const struct gmem_ops *memory);

/* snprintf into the error text, and returns `status`. */
enum status boot_error(char error[BOOT_ERROR_BYTES], enum status status, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
