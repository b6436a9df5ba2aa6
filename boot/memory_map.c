/* SPDX-License-Identifier: MIT */
/*
 * Memory: what the loader takes, and the list of ranges that the hypervisor gets.
 *
 * Everything that must outlive the loader is allocated as EfiLoaderData and noted in `taken`. The list is made of the
 * firmware's final map, sorted, with the noted ranges laid over it; the rest of the loader's and the boot services'
 * memory is free. Room for the list is reserved while allocation is still possible, with a reserve for the ranges that
 * the last allocations split.
 */
#include "boot/loader.h"

#define MAX_TAKEN 1280       /* 64 VMs with 18 files each, and the loader's own */
#define MAP_RESERVE 64       /* descriptors that may appear between memory_prepare() and the exit */
#define MEMORY_SPECIFIC 0x40000ull /* EFI_MEMORY_SP: set aside by the firmware for a purpose (UEFI 2.10, 7.2.3) */

static struct {
    uint64_t base, bytes;
    uint32_t type;
} taken[MAX_TAKEN]; /* by ascending base */
static unsigned taken_count;

static EFI_MEMORY_DESCRIPTOR *map; /* the firmware's list; its stride is descriptor_bytes */
static UINTN map_room, map_bytes, map_key, descriptor_bytes;
static uint64_t list_room; /* in ranges */

static void note(uint64_t base, uint64_t bytes, uint32_t type)
{
    unsigned i = taken_count++;

    for (; i && taken[i - 1].base > base; i--)
        taken[i] = taken[i - 1];
    taken[i].base = base;
    taken[i].bytes = bytes;
    taken[i].type = type;
}

static uint64_t take(uint64_t bytes, uint64_t align, uint64_t max_address, uint32_t type, EFI_MEMORY_TYPE memory_type)
{
    uint64_t size = (bytes + PAGE - 1) & ~(PAGE - 1), room, base, aligned;
    EFI_PHYSICAL_ADDRESS got = max_address;

    if (size < bytes || taken_count == MAX_TAKEN || size > ~align)
        return 0;
    if (!size)
        size = PAGE;
    room = size + align - PAGE;
    if (BS->AllocatePages(max_address == ANYWHERE ? AllocateAnyPages : AllocateMaxAddress, memory_type, room / PAGE, &got))
        return 0;
    base = got;
    aligned = (base + align - 1) & ~(align - 1);
    if (aligned > base)
        BS->FreePages(base, (aligned - base) / PAGE);
    if (base + room > aligned + size)
        BS->FreePages(aligned + size, (base + room - aligned - size) / PAGE);
    ZeroMem((void *)aligned, size);
    note(aligned, size, type);
    return aligned;
}

uint64_t take_aligned(uint64_t bytes, uint64_t align, uint64_t max_address, uint32_t type)
{
    return take(bytes, align, max_address, type, EfiLoaderData);
}

uint64_t take_code_page(uint64_t max_address, uint32_t type)
{
    return take(PAGE, PAGE, max_address, type, EfiLoaderCode);
}

uint64_t take_pages(uint64_t bytes, uint64_t max_address, uint32_t type)
{
    return take_aligned(bytes, PAGE, max_address, type);
}

void give_pages(uint64_t base)
{
    for (unsigned i = 0; i < taken_count; i++) {
        if (taken[i].base != base)
            continue;
        BS->FreePages(base, taken[i].bytes / PAGE);
        for (taken_count--; i < taken_count; i++)
            taken[i] = taken[i + 1];
        return;
    }
}

static EFI_MEMORY_DESCRIPTOR *descriptor(UINTN index)
{
    return (EFI_MEMORY_DESCRIPTOR *)((uint8_t *)map + index * descriptor_bytes);
}

/* Asks for the map into the buffer that is there. */
static EFI_STATUS read_map(void)
{
    UINT32 version;

    map_bytes = map_room;
    return BS->GetMemoryMap(&map_bytes, map, &map_key, &descriptor_bytes, &version);
}

/* Reads the map into a buffer that is large enough, with room for it to grow. */
static EFI_STATUS allocate_map(void)
{
    EFI_STATUS status = read_map();

    while (status == EFI_BUFFER_TOO_SMALL) {
        if (map)
            BS->FreePool(map);
        map = NULL;
        map_room = map_bytes + MAP_RESERVE * descriptor_bytes;
        status = BS->AllocatePool(EfiLoaderData, map_room, (void **)&map);
        if (status) {
            map_room = 0;
            break;
        }
        status = read_map();
    }
    return status;
}

static uint32_t range_type(const EFI_MEMORY_DESCRIPTOR *d)
{
    switch (d->Type) {
    case EfiLoaderCode:
    case EfiLoaderData:
    case EfiBootServicesCode:
    case EfiBootServicesData:
        return BOOT_MEM_FREE;
    case EfiConventionalMemory:
        return d->Attribute & MEMORY_SPECIFIC ? BOOT_MEM_RESERVED : BOOT_MEM_FREE;
    case EfiRuntimeServicesCode:
    case EfiRuntimeServicesData:
        return BOOT_MEM_RUNTIME;
    case EfiACPIReclaimMemory:
        return BOOT_MEM_ACPI;
    case EfiMemoryMappedIO:
    case EfiMemoryMappedIOPortSpace:
        return BOOT_MEM_MMIO;
    default: /* ACPI NVS included: the firmware writes it behind everybody's back */
        return BOOT_MEM_RESERVED;
    }
}

static uint64_t range_end(const EFI_MEMORY_DESCRIPTOR *d)
{
    return d->PhysicalStart + d->NumberOfPages * PAGE;
}

uint64_t memory_end(void)
{
    uint64_t end = 0;

    if (allocate_map())
        return 0;
    for (UINTN i = 0; i < map_bytes / descriptor_bytes; i++) {
        const EFI_MEMORY_DESCRIPTOR *d = descriptor(i);
        uint32_t type = range_type(d);
        if ((type == BOOT_MEM_FREE || type == BOOT_MEM_ACPI || type == BOOT_MEM_RUNTIME || d->Type == EfiACPIMemoryNVS) &&
            range_end(d) > end)
            end = range_end(d);
    }
    return end;
}

EFI_STATUS memory_prepare(struct boot_info *info)
{
    EFI_STATUS status = allocate_map();

    if (status)
        return status;
    /* A taken range splits the one around it in three at most. */
    list_room = map_bytes / descriptor_bytes + 2 * MAP_RESERVE + 2 * (taken_count + 1);
    info->mem = take_pages(list_room * sizeof(struct boot_mem_range), BELOW_4G, BOOT_MEM_LOADER);
    return info->mem ? EFI_SUCCESS : EFI_OUT_OF_RESOURCES;
}

/* Adds a range, joined to the last one where they are alike. */
static void append(struct boot_info *info, uint64_t base, uint64_t end, uint32_t type, uint32_t executable)
{
    struct boot_mem_range *list = (struct boot_mem_range *)info->mem;
    struct boot_mem_range *last = info->mem_count ? &list[info->mem_count - 1] : NULL;

    if (base >= end)
        return;
    if (last && last->type == type && last->executable == executable && last->base + last->bytes == base) {
        last->bytes += end - base;
        return;
    }
    if (info->mem_count == list_room)
        return; /* cannot be: see memory_prepare(). Memory that is not listed is not used. */
    list[info->mem_count].base = base;
    list[info->mem_count].bytes = end - base;
    list[info->mem_count].type = type;
    list[info->mem_count].executable = executable;
    info->mem_count++;
}

/* Insertion sort by address: most firmware hands the map over sorted or nearly so. */
static void sort_map(void)
{
    for (UINTN i = 1; i < map_bytes / descriptor_bytes; i++) {
        EFI_MEMORY_DESCRIPTOR moved = *descriptor(i);
        UINTN j = i;
        for (; j && descriptor(j - 1)->PhysicalStart > moved.PhysicalStart; j--)
            *descriptor(j) = *descriptor(j - 1);
        *descriptor(j) = moved;
    }
}

/* The list: sorted, what we took laid over it. A descriptor that overlaps the one before it loses the overlap. */
static void make_list(struct boot_info *info)
{
    uint64_t at = 0;
    unsigned t = 0;

    sort_map();
    for (UINTN i = 0; i < map_bytes / descriptor_bytes; i++) {
        const EFI_MEMORY_DESCRIPTOR *d = descriptor(i);
        uint32_t type = range_type(d), executable = d->Type == EfiRuntimeServicesCode;
        uint64_t end = range_end(d);
        if (at < d->PhysicalStart)
            at = d->PhysicalStart;
        for (; t < taken_count && taken[t].base < end; t++) {
            append(info, at, taken[t].base, type, executable);
            append(info, taken[t].base, taken[t].base + taken[t].bytes, taken[t].type, 0);
            at = taken[t].base + taken[t].bytes;
        }
        append(info, at, end, type, executable);
        if (at < end)
            at = end;
    }
}

EFI_STATUS leave_firmware(EFI_HANDLE image, struct boot_info *info)
{
    EFI_STATUS status = allocate_map();

    if (status)
        return status;
    /*
     * An event handler may change the map between the two calls; then the key is stale, and the map must be read again.
     * From the first failure on the firmware may be half shut down: only memory services are allowed (UEFI 2.10, 7.4.6).
     */
    for (int attempt = 0; attempt < 8; attempt++) {
        status = BS->ExitBootServices(image, map_key);
        if (!status) {
            make_list(info);
            return EFI_SUCCESS;
        }
        if (status != EFI_INVALID_PARAMETER || allocate_map())
            break;
    }
    stranded(status);
}
