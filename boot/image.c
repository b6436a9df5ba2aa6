/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's image, and the page tables that it starts on.
 *
 * The ELF file is part of this program (payload.S). Its segments lie page-aligned in one gigabyte above HV_IMAGE_BASE
 * (linker.ld), so one contiguous area of physical memory holds them at the same distances, and one page directory maps
 * them, each with its own rights. A segment that is writable and executable is refused.
 *
 * The tables come from one pool that is sized beforehand. Four levels; entries as in SDM vol. 3A, 4.5.
 */
#include "boot/loader.h"

#define PTE_PRESENT 1ull
#define PTE_WRITE 2ull
#define PTE_LARGE 0x80ull
#define PTE_NX (1ull << 63)
#define GIB (1ull << 30)
#define LARGE (2ull << 20)

/* ELF-64 (System V ABI, chapters 4 and 5), as far as an executable needs it. */
struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments, sections;
    uint32_t flags;
    uint16_t header_bytes, segment_bytes, segment_count;
};
struct elf_segment {
    uint32_t type, flags;
    uint64_t offset, virtual_address, physical_address, file_bytes, memory_bytes, align;
};
#define ELF_LOAD 1
#define ELF_EXECUTE 1
#define ELF_WRITE 2

static const struct elf_header *elf = (const struct elf_header *)payload_start;

static const struct elf_segment *segment(unsigned index)
{
    const struct elf_segment *s = (const struct elf_segment *)(payload_start + elf->segments) + index;
    return s->type == ELF_LOAD && s->memory_bytes ? s : NULL;
}

/* Our own build made the file; this says so clearly where it went wrong. */
static int elf_is_good(void)
{
    uint64_t size = (uint64_t)(payload_end - payload_start);

    if (size < sizeof(*elf) || CompareMem(elf->ident, "\177ELF\2\1", 6) || elf->type != 2 || elf->machine != 62 ||
        elf->segment_bytes != sizeof(struct elf_segment) || elf->segments > size ||
        elf->segment_count > (size - elf->segments) / sizeof(struct elf_segment))
        return 0;
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *s = segment(i);
        if (!s)
            continue;
        if (s->offset > size || s->file_bytes > size - s->offset || s->file_bytes > s->memory_bytes ||
            s->virtual_address < HV_IMAGE_BASE || s->virtual_address - HV_IMAGE_BASE > GIB ||
            s->memory_bytes > GIB - (s->virtual_address - HV_IMAGE_BASE) || s->virtual_address % PAGE ||
            ((s->flags & ELF_WRITE) && (s->flags & ELF_EXECUTE)))
            return 0;
    }
    return 1;
}

EFI_STATUS place_image(struct boot_info *info, uint64_t *entry)
{
    uint64_t end = HV_IMAGE_BASE;

    if (!elf_is_good()) {
        complain(L"BOOTX64.EFI", L"the hypervisor inside is damaged", L"Copy the file again, or build it again.", 0);
        return EFI_LOAD_ERROR;
    }
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *s = segment(i);
        if (s && s->virtual_address + s->memory_bytes > end)
            end = s->virtual_address + s->memory_bytes;
    }
    info->image_bytes = (end - HV_IMAGE_BASE + PAGE - 1) & ~(PAGE - 1);
    info->image_base = take_aligned(info->image_bytes, LARGE, BELOW_4G, BOOT_MEM_IMAGE);
    if (!info->image_base) {
        complain(L"Hypervisor image", L"no memory is left for it below 4 GiB", L"Add memory to the machine.", 0);
        return EFI_OUT_OF_RESOURCES;
    }
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *s = segment(i);
        if (s)
            CopyMem((void *)(info->image_base + (s->virtual_address - HV_IMAGE_BASE)), (void *)(payload_start + s->offset),
                    s->file_bytes);
    }
    *entry = elf->entry;
    return EFI_SUCCESS;
}

static uint64_t pool, pool_end;

/* The table that an entry points to, made if there is none yet. The pool is zeroed and large enough. */
static uint64_t *table_at(uint64_t *entry)
{
    if (!(*entry & PTE_PRESENT)) {
        if (pool == pool_end)
            return NULL;
        *entry = pool | PTE_PRESENT | PTE_WRITE;
        pool += PAGE;
    }
    return (uint64_t *)(*entry & 0x000ffffffffff000ull);
}

/* Maps one page whose size is 1 << shift: 12, 21 or 30. 0 if the pool is used up. */
static int map_page(uint64_t *root, uint64_t address, uint64_t physical, unsigned shift, uint64_t rights)
{
    uint64_t *table = root;

    for (unsigned level = 39; level > shift; level -= 9) {
        table = table_at(&table[(address >> level) & 511]);
        if (!table)
            return 0;
    }
    table[(address >> shift) & 511] = physical | rights | PTE_PRESENT | (shift > 12 ? PTE_LARGE : 0);
    return 1;
}

static int map_image(uint64_t *root, const struct boot_info *info)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *s = segment(i);
        uint64_t rights;
        if (!s)
            continue;
        rights = (s->flags & ELF_WRITE ? PTE_WRITE : 0) | (s->flags & ELF_EXECUTE ? 0 : PTE_NX);
        for (uint64_t at = s->virtual_address; at < s->virtual_address + s->memory_bytes; at += PAGE)
            if (!map_page(root, at, info->image_base + (at - HV_IMAGE_BASE), 12, rights))
                return 0;
    }
    return 1;
}

static int has_1g_pages(void)
{
    uint32_t regs[4];

    cpuid(0x80000001, 0, regs);
    return regs[3] >> 26 & 1;
}

uint64_t build_tables(const struct boot_info *info, uint64_t identity_page)
{
    unsigned shift = has_1g_pages() ? 30 : 21;
    uint64_t end = memory_end(), pages, *root;

    if (end < 4 * GIB)
        end = 4 * GIB;
    end = (end + GIB - 1) & ~(GIB - 1);
    /* Root; per 512 GiB a PDPT; per GiB a directory, without 1 GiB pages; the image's; three for the identity page. */
    pages = 1 + (end / (512 * GIB) + 1) + (shift == 21 ? end / GIB : 0) + 2 + info->image_bytes / LARGE + 1 + 3;
    pool = take_pages(pages * PAGE, BELOW_4G, BOOT_MEM_LOADER);
    if (!pool)
        return 0;
    pool_end = pool + pages * PAGE;
    root = (uint64_t *)pool;
    pool += PAGE;
    for (uint64_t at = 0; at < end; at += 1ull << shift)
        if (!map_page(root, HV_DIRECT_BASE + at, at, shift, PTE_WRITE | PTE_NX))
            return 0;
    if (!map_image(root, info) || !map_page(root, identity_page, identity_page, 12, 0))
        return 0;
    return (uint64_t)root;
}
