/* SPDX-License-Identifier: MIT */
/*
 * The bzImage loader. A bzImage is a real-mode part, whose second half of the first sector is the setup header, and a
 * protected-mode part, which is what we load; it decompresses the kernel in place. The 64-bit entry point, 0x200 behind
 * its start, wants long mode with the low memory mapped one to one, flat segments, and RSI on the boot parameters: one
 * page that starts from zero, takes over the setup header, and gets the fields that a loader owes.
 *
 * Order: check all of the header, find places for everything, write. Nothing in the file is believed to be in range.
 */
#include "vm/boot_linux.h"

#include <string.h>

#include "kernel/bytes.h"

/* Offsets in the file's first sectors and, the same, in the boot parameters. */
enum {
    EXT_RAMDISK_IMAGE = 0x0c0,
    EXT_RAMDISK_SIZE = 0x0c4,
    ACPI_RSDP_ADDR = 0x070,
    E820_ENTRIES = 0x1e8,
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    VID_MODE = 0x1fa,
    BOOT_FLAG = 0x1fe,
    JUMP_LENGTH = 0x201,
    HEADER_MAGIC = 0x202,
    VERSION = 0x206,
    TYPE_OF_LOADER = 0x210,
    LOADFLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    CMD_LINE_PTR = 0x228,
    INITRD_ADDR_MAX = 0x22c,
    KERNEL_ALIGNMENT = 0x230,
    RELOCATABLE_KERNEL = 0x234,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END_212 = 0x268, /* of version 2.12, with the handover offset */
    HEADER_ROOM = 0x290,    /* what follows in the boot parameters is not the header's */
    E820_TABLE = 0x2d0,
    E820_ENTRY_BYTES = 20,
    E820_MAX = 128,
};

#define LOADED_HIGH 1
#define XLF_KERNEL_64 BIT(0)
#define XLF_CAN_BE_LOADED_ABOVE_4G BIT(1)
#define ENTRY_64 0x200u
#define SECTOR 512u

#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

static unsigned long long mib_up(uint64_t bytes)
{
    return (bytes + MIB - 1) / MIB;
}

enum status linux_header_read(struct linux_header *h, const struct boot_file *kernel, char error[BOOT_ERROR_BYTES])
{
    const uint8_t *p = kernel->bytes;
    if (kernel->count < HEADER_END_212)
        return boot_error(error, ERR_TRUNCATED,
                          "kernel %s is cut: %llu bytes do not hold a bzImage header; copy it anew", kernel->name,
                          (unsigned long long)kernel->count);
    if (le16_get(p + BOOT_FLAG) != 0xaa55 || memcmp(p + HEADER_MAGIC, "HdrS", 4))
        return boot_error(error, ERR_INVALID, "kernel %s is not a bzImage: no boot signature and HdrS", kernel->name);

    memset(h, 0, sizeof(*h));
    h->version = le16_get(p + VERSION);
    if (h->version < 0x020c)
        return boot_error(error, ERR_UNSUPPORTED,
                          "kernel %s has boot protocol %u.%02u, 2.12 is needed; use Linux 3.8 or later", kernel->name,
                          h->version >> 8, h->version & 0xff);
    uint16_t xloadflags = le16_get(p + XLOADFLAGS);
    if (!(xloadflags & XLF_KERNEL_64))
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s has no 64-bit entry; use an x86-64 kernel", kernel->name);
    if (!(p[LOADFLAGS] & LOADED_HIGH))
        return boot_error(error, ERR_INVALID,
                          "kernel %s is damaged: a 64-bit kernel that is not loaded high; copy it anew", kernel->name);

    h->header_end = HEADER_MAGIC + p[JUMP_LENGTH];
    if (h->header_end < HEADER_END_212 - 4 || h->header_end > HEADER_ROOM)
        return boot_error(error, ERR_INVALID, "kernel %s is damaged: its setup header ends at 0x%x; copy it anew",
                          kernel->name, h->header_end);

    unsigned sectors = p[SETUP_SECTS] ? p[SETUP_SECTS] : 4;
    h->setup_bytes = (sectors + 1) * SECTOR;
    h->kernel_bytes = (uint64_t)le32_get(p + SYSSIZE) * 16;
    /* The last paragraph of the file may be incomplete: SYSSIZE is rounded up. */
    if (h->kernel_bytes < ENTRY_64 + 16 || h->setup_bytes >= kernel->count || h->header_end > h->setup_bytes ||
        h->kernel_bytes - 15 > kernel->count - h->setup_bytes)
        return boot_error(error, ERR_TRUNCATED,
                          "kernel %s is cut: its header says %llu bytes, the file has %llu; copy it anew", kernel->name,
                          (unsigned long long)(h->setup_bytes + h->kernel_bytes), (unsigned long long)kernel->count);
    h->kernel_bytes = MIN(h->kernel_bytes, kernel->count - h->setup_bytes);
    if (!range_within(le32_get(p + PAYLOAD_OFFSET), le32_get(p + PAYLOAD_LENGTH), h->kernel_bytes))
        return boot_error(error, ERR_INVALID, "kernel %s is damaged: its payload is outside the file; copy it anew",
                          kernel->name);

    h->relocatable = p[RELOCATABLE_KERNEL];
    h->above_4g = xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G;
    h->alignment = le32_get(p + KERNEL_ALIGNMENT);
    h->preferred = le64_get(p + PREF_ADDRESS);
    h->init_bytes = le32_get(p + INIT_SIZE);
    h->initrd_max = le32_get(p + INITRD_ADDR_MAX);
    h->cmdline_max = MIN(le32_get(p + CMDLINE_SIZE), BOOT_LINUX_CMDLINE_MAX);
    if (!h->alignment || (h->alignment & (h->alignment - 1)) || h->alignment > GIB || h->preferred < MIB ||
        h->preferred > MEMORY_MAP_LOW_TOP || (h->relocatable && h->preferred % h->alignment))
        return boot_error(error, ERR_INVALID,
                          "kernel %s is damaged: preferred address 0x%llx with alignment 0x%x; copy it anew",
                          kernel->name, (unsigned long long)h->preferred, h->alignment);
    return OK;
}

/* ---- Places ---- */

struct placement {
    uint64_t kernel, kernel_room;
    uint64_t initrd;
};

static enum status place(struct placement *place, const struct linux_header *h, const struct boot_request *request,
                         char error[BOOT_ERROR_BYTES])
{
    place->kernel_room = ALIGN_UP(MAX((uint64_t)h->init_bytes, h->kernel_bytes), PAGE_BYTES);
    if (h->relocatable)
        place->kernel = memory_map_place_low(request->map, request->map_count, NULL, 0, place->kernel_room,
                                             h->alignment, h->preferred, MEMORY_MAP_HIGH);
    else
        place->kernel = memory_map_is_ram(request->map, request->map_count, h->preferred, place->kernel_room)
                            ? h->preferred
                            : UINT64_MAX;
    if (place->kernel == UINT64_MAX)
        return boot_error(
            error, ERR_RANGE, "kernel %s does not fit: it needs %llu MiB of memory; set memory = %lluM or more",
            request->kernel.name, mib_up(h->preferred + place->kernel_room), mib_up(h->preferred + place->kernel_room));

    place->initrd = 0;
    if (!request->module_count)
        return OK;
    const struct boot_file *initrd = &request->modules[0];
    const struct memory_range taken = { place->kernel, place->kernel_room, MEMORY_RAM };
    uint64_t bytes = initrd->count;
    place->initrd = memory_map_place_high(request->map, request->map_count, &taken, 1, bytes, PAGE_BYTES, MIB,
                                          (uint64_t)h->initrd_max + 1);
    if (place->initrd == UINT64_MAX && h->above_4g)
        place->initrd = memory_map_place_high(request->map, request->map_count, &taken, 1, bytes, PAGE_BYTES, MIB,
                                              UINT64_MAX);
    if (place->initrd == UINT64_MAX)
        return boot_error(error, ERR_RANGE,
                          "initrd %s (%llu MiB) does not fit beside the kernel; set memory = %lluM or more",
                          initrd->name, mib_up(bytes), mib_up(place->kernel + place->kernel_room) + mib_up(bytes) + 1);
    return OK;
}

/* ---- Writing ---- */

static bool put(const struct boot_request *request, uint64_t gpa, const void *bytes, uint64_t count)
{
    return request->memory->write(request->memory->context, GPA(gpa), bytes, count);
}

static bool write_params(const struct linux_header *h, const struct placement *place,
                         const struct boot_request *request)
{
    uint8_t page[PAGE_BYTES] = { 0 };
    const uint8_t *file = request->kernel.bytes;
    memcpy(page + SETUP_SECTS, file + SETUP_SECTS, h->header_end - SETUP_SECTS);

    page[TYPE_OF_LOADER] = 0xff; /* a loader without a number of its own */
    le16_put(page + VID_MODE, 0xffff);
    le32_put(page + CODE32_START, (uint32_t)place->kernel);
    le32_put(page + CMD_LINE_PTR, (uint32_t)BOOT_LINUX_CMDLINE);
    le64_put(page + ACPI_RSDP_ADDR, request->acpi_rsdp);
    if (request->module_count) {
        uint64_t bytes = request->modules[0].count;
        le32_put(page + RAMDISK_IMAGE, (uint32_t)place->initrd);
        le32_put(page + RAMDISK_SIZE, (uint32_t)bytes);
        le32_put(page + EXT_RAMDISK_IMAGE, (uint32_t)(place->initrd >> 32));
        le32_put(page + EXT_RAMDISK_SIZE, (uint32_t)(bytes >> 32));
    }
    unsigned entries = MIN(request->map_count, (unsigned)E820_MAX);
    page[E820_ENTRIES] = (uint8_t)entries;
    for (unsigned i = 0; i < entries; i++) {
        uint8_t *entry = page + E820_TABLE + i * E820_ENTRY_BYTES;
        le64_put(entry, request->map[i].base);
        le64_put(entry + 8, request->map[i].bytes);
        le32_put(entry + 16, request->map[i].type);
    }
    return put(request, BOOT_LINUX_PARAMS, page, sizeof(page));
}

/* The first 4 GiB one to one, in 2 MiB pages: a PML4, a PDPT and four page directories, one page each. */
static bool write_tables(const struct boot_request *request)
{
    enum { PRESENT_WRITABLE = 3, LARGE = 0x80 };
    uint8_t page[PAGE_BYTES] = { 0 };
    le64_put(page, (BOOT_LINUX_TABLES + PAGE_BYTES) | PRESENT_WRITABLE);
    if (!put(request, BOOT_LINUX_TABLES, page, sizeof(page)))
        return false;
    for (uint64_t i = 0; i < 4; i++)
        le64_put(page + 8 * i, (BOOT_LINUX_TABLES + (2 + i) * PAGE_BYTES) | PRESENT_WRITABLE);
    if (!put(request, BOOT_LINUX_TABLES + PAGE_BYTES, page, sizeof(page)))
        return false;
    for (uint64_t directory = 0; directory < 4; directory++) {
        for (uint64_t i = 0; i < 512; i++)
            le64_put(page + 8 * i, (directory * GIB + i * LARGE_PAGE_BYTES) | PRESENT_WRITABLE | LARGE);
        if (!put(request, BOOT_LINUX_TABLES + (2 + directory) * PAGE_BYTES, page, sizeof(page)))
            return false;
    }
    return true;
}

static bool write_gdt(const struct boot_request *request)
{
    uint8_t gdt[32] = { 0 };
    le64_put(gdt + BOOT_CS, 0x00af9b000000ffff); /* 64-bit code, accessed */
    le64_put(gdt + BOOT_DS, 0x00cf93000000ffff); /* flat data, accessed */
    return put(request, BOOT_LINUX_GDT, gdt, sizeof(gdt));
}

static void entry_state(struct cpu_state *s, uint64_t entry)
{
    cpu_state_reset(s);
    s->rip = entry;
    s->gpr[GPR_RSI] = BOOT_LINUX_PARAMS;
    s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    s->cr3 = BOOT_LINUX_TABLES;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc093, .selector = BOOT_DS };
    s->seg[SEG_CS] = (struct segment){ .limit = 0xffffffff, .attributes = 0xa09b, .selector = BOOT_CS };
    s->seg[SEG_LDTR] = (struct segment){ .attributes = SEG_UNUSABLE };
    s->seg[SEG_TR] = (struct segment){ .limit = 0x67, .attributes = 0x8b };
    s->gdtr = (struct table_register){ BOOT_LINUX_GDT, 31 };
    s->idtr = (struct table_register){ 0, 0 };
}

enum status boot_linux(const struct boot_request *request, struct cpu_state *state, char error[BOOT_ERROR_BYTES])
{
    struct linux_header header;
    enum status status = linux_header_read(&header, &request->kernel, error);
    if (status)
        return status;
    if (request->module_count > 1)
        return boot_error(error, ERR_INVALID, "kernel %s: Linux takes one initrd, %u are named", request->kernel.name,
                          request->module_count);
    size_t cmdline_bytes = strlen(request->cmdline);
    if (cmdline_bytes > header.cmdline_max)
        return boot_error(error, ERR_RANGE, "kernel %s takes a cmdline of %u characters, this one has %zu; shorten it",
                          request->kernel.name, header.cmdline_max, cmdline_bytes);
    struct placement places;
    status = place(&places, &header, request, error);
    if (status)
        return status;

    const uint8_t *file = request->kernel.bytes;
    if (!put(request, places.kernel, file + header.setup_bytes, header.kernel_bytes) ||
        (request->module_count && request->modules[0].count &&
         !put(request, places.initrd, request->modules[0].bytes, request->modules[0].count)) ||
        !put(request, BOOT_LINUX_CMDLINE, request->cmdline, cmdline_bytes + 1) ||
        !write_params(&header, &places, request) || !write_tables(request) || !write_gdt(request) ||
        !boot_write_bios_data(request->memory))
        return boot_error(error, ERR_RANGE, "kernel %s: the guest's memory is not where its map says",
                          request->kernel.name);
    entry_state(state, places.kernel + ENTRY_64);
    return OK;
}
