/* SPDX-License-Identifier: MIT */
/*
 * What the files of the loader share. The loader is a UEFI application that runs once, on one CPU, with the firmware's
 * identity map: an address is a pointer. Its layers, top down:
 *
 *   loader.c      the sequence: read, place, build tables, leave the firmware, jump
 *   files.c       the configuration and the modules that it names
 *   image.c       the hypervisor's ELF image and the page tables that it starts on
 *   memory_map.c  the firmware's memory map, with our own allocations marked, as struct boot_mem_range
 *   platform.c    what else the hypervisor wants to know: ACPI, SMBIOS, framebuffer, time, random seed
 *   handoff.S     the jump
 *
 * Every page that outlives the loader is taken by take_pages(), which notes it for the memory map; everything else is
 * the firmware's pool and free memory after the hand-over.
 */
#ifndef BOOT_LOADER_H
#define BOOT_LOADER_H

#include <efi.h>
#include <efilib.h>

#include "boot/boot_info.h"

#define PAGE 4096ull
#define BELOW_4G 0xffffffffull
#define ANYWHERE 0ull

/*
 * Takes `bytes` (rounded up to pages) of zeroed memory whose last byte is at or below `max_address` (ANYWHERE: no
 * limit), and notes it as `type` (enum boot_mem_type) for the memory map. 0 if there is none.
 */
uint64_t take_pages(uint64_t bytes, uint64_t max_address, uint32_t type);

/* The same, aligned to `align` bytes (a power of two, at least 4096). */
uint64_t take_aligned(uint64_t bytes, uint64_t align, uint64_t max_address, uint32_t type);

/* One page that is executed under the firmware's page tables: some firmware maps loader data without that right. */
uint64_t take_code_page(uint64_t max_address, uint32_t type);

/* Gives back what take_pages() returned last for this address. */
void give_pages(uint64_t base);

/* The end of RAM: one past the highest byte that the firmware's map calls memory of any kind. 0 if it has no map. */
uint64_t memory_end(void);

/* Reserves the room for the list of ranges. Call before leave_firmware(), after all other allocations. */
EFI_STATUS memory_prepare(struct boot_info *info);

/*
 * Leaves boot services and fills info->mem. After success nothing of the firmware but runtime services may be called. An
 * error means that boot services are whole still; where they may be half gone it does not return: see stranded().
 */
EFI_STATUS leave_firmware(EFI_HANDLE image, struct boot_info *info);

/*
 * The firmware would not let go, and its console must not be used any more: says so on the PC's first serial port, and
 * resets the machine by the runtime services.
 */
_Noreturn void stranded(EFI_STATUS status);

/* Reads \tasuki\tasuki.conf and every file that it names from the volume that `image` came from. Always returns. */
void read_files(EFI_HANDLE image, struct boot_info *info);

/* Places the embedded hypervisor; sets info->image_*. */
EFI_STATUS place_image(struct boot_info *info, uint64_t *entry);

/* Builds the page tables of boot_info.h, with `identity_page` mapped executable at its own address. 0 if no memory. */
uint64_t build_tables(const struct boot_info *info, uint64_t identity_page);

/* Fills in what the firmware and the CPU say about the machine. */
void read_platform(struct boot_info *info);

/* Says on the console what went wrong: object, cause, cure, and the firmware's word for it unless it is 0. */
void complain(const CHAR16 *object, const CHAR16 *cause, const CHAR16 *cure, EFI_STATUS status);

/* loader.c: where the firmware calls us. Returns only when the hypervisor cannot be started. */
EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);

/* handoff.S: position-independent, copied to a page of its own. Never returns. */
typedef void (*handoff_fn)(uint64_t cr3, uint64_t entry, uint64_t info) __attribute__((sysv_abi, noreturn));
extern const uint8_t handoff_start[], handoff_end[];

/* payload.S: the hypervisor's ELF file. */
extern const uint8_t payload_start[], payload_end[];

static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                     : "a"(leaf), "c"(subleaf));
}

#endif
