/* SPDX-License-Identifier: MIT */
/*
 * The hand-over from the loader to the hypervisor.
 *
 * The loader (boot/) runs as a UEFI application; the hypervisor (hv/) never talks to boot services. All that the loader
 * learned goes over in one struct boot_info, which both sides compile from this file. Nothing in it needs relocation:
 * every address is a host physical address, every list an address and a count.
 *
 * What holds when the hypervisor's entry point runs, on the boot CPU alone:
 *  - long mode, paging on, interrupts off, direction flag clear, RDI = the virtual address of boot_info in the direct
 *    map; RSP is undefined, the entry code sets its own stack;
 *  - HV_DIRECT_BASE + p maps physical address p, writable, never executable, for every p below max(4 GiB, end of RAM);
 *  - the image is mapped at its link address with the rights of its ELF segments;
 *  - one identity-mapped page is left over: the one that loaded CR3. The hypervisor builds tables of its own at once and
 *    gives the loader's memory (BOOT_MEM_LOADER) back when it no longer needs boot_info.
 */
#ifndef BOOT_BOOT_INFO_H
#define BOOT_BOOT_INFO_H

#include <stdint.h>

#define HV_DIRECT_BASE 0xffff800000000000ull /* all physical memory, RW, NX */
#define HV_IMAGE_BASE 0xffffffff80000000ull  /* where linker.ld puts the hypervisor */

#define BOOT_INFO_MAGIC 0x464e494b55534154ull /* "TASUKINF" as little-endian bytes */
#define BOOT_INFO_VERSION 1
#define BOOT_CPUS 256

enum boot_mem_type {
    BOOT_MEM_FREE = 1,     /* RAM, free to use (boot services' memory included) */
    BOOT_MEM_LOADER = 2,   /* RAM: boot_info, its lists, the loader's page tables; free after take-over */
    BOOT_MEM_IMAGE = 3,    /* RAM: the hypervisor's image */
    BOOT_MEM_MODULE = 4,   /* RAM: a boot module's bytes */
    BOOT_MEM_ACPI = 5,     /* RAM: ACPI tables (reclaimable), kept */
    BOOT_MEM_RUNTIME = 6,  /* UEFI runtime code or data: kept, identity-mapped for runtime calls */
    BOOT_MEM_RESERVED = 7, /* RAM or not: hands off */
    BOOT_MEM_MMIO = 8,     /* device registers named by the firmware's map */
};

struct boot_mem_range {
    uint64_t base;       /* bytes, multiple of 4096 */
    uint64_t bytes;      /* multiple of 4096 */
    uint32_t type;       /* enum boot_mem_type */
    uint32_t executable; /* BOOT_MEM_RUNTIME: 1 = code */
};

/* One file that the configuration names, read whole. A file that could not be read is listed with error != 0. */
struct boot_module {
    uint64_t path;       /* hpa of the path as the configuration spells it: UTF-8, NUL-terminated */
    uint64_t base;       /* hpa, 4 KiB aligned */
    uint64_t bytes;      /* exact size; the rest of the last page is zero */
    uint64_t efi_status; /* 0 = read; otherwise the firmware's status, and base and bytes are 0 */
};

/* A linear framebuffer in a 32-bit format; width is 0 where there is none. */
struct boot_framebuffer {
    uint64_t base;
    uint64_t bytes;
    uint32_t width, height; /* pixels */
    uint32_t stride;        /* pixels per line */
    uint32_t format;        /* 0 = byte order RGBX, 1 = BGRX */
};

struct boot_info {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /* sizeof(struct boot_info) of the loader */

    uint64_t mem; /* hpa of struct boot_mem_range[mem_count], ascending, not overlapping */
    uint64_t mem_count;

    uint64_t image_base; /* hpa of the image, contiguous: HV_IMAGE_BASE maps to it */
    uint64_t image_bytes;

    uint64_t modules; /* hpa of struct boot_module[module_count] */
    uint64_t module_count;

    uint64_t config; /* hpa of the text of tasuki.conf, NUL-terminated; 0 if there was none to read */
    uint64_t config_bytes;
    uint64_t config_status; /* 0, or the firmware's status for the file */

    uint64_t rsdp;              /* hpa of the ACPI root pointer (2.0 preferred); 0 if the firmware has none */
    uint64_t smbios;            /* hpa of the SMBIOS entry point (3.x preferred); 0 if none */
    uint64_t efi_runtime;       /* hpa of EFI_RUNTIME_SERVICES, called in an identity map; 0 if none */
    uint64_t ap_trampoline;     /* hpa of two pages below 1 MiB for starting CPUs (BOOT_MEM_RESERVED); 0 = none */
    uint64_t unix_time_s;       /* wall clock at hand-over, UTC; 0 if the firmware could not say */
    uint64_t tsc_at_exit;       /* TSC just after ExitBootServices: where the boot time starts to count */
    uint8_t random_seed[64];    /* from EFI_RNG_PROTOCOL, else RDSEED/RDRAND, else 0: see random_source */
    uint32_t random_source;     /* 0 none, 1 EFI_RNG_PROTOCOL, 2 RDSEED, 3 RDRAND */
    uint32_t secure_boot;       /* 1 = the firmware says that it is on */

    struct boot_framebuffer framebuffer;

    /* What EFI_MP_SERVICES_PROTOCOL says, for machines whose firmware has no MADT; count 0 if there is no such protocol. */
    uint32_t cpu_count;
    uint32_t cpu_apic_id[BOOT_CPUS]; /* of the enabled CPUs, the boot CPU among them */
};

_Static_assert(sizeof(struct boot_mem_range) == 24, "hand-over layout");
_Static_assert(sizeof(struct boot_module) == 32, "hand-over layout");
_Static_assert(sizeof(struct boot_framebuffer) == 32, "hand-over layout");

#endif
