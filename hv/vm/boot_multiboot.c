/* SPDX-License-Identifier: MIT */
/*
 * The Multiboot 1 loader. Section numbers are those of the Multiboot Specification 0.6.96.
 *
 * A kernel is a list of segments (bytes of the file, an address, a size in memory) and an entry; the header's address
 * fields (3.1.3) or the ELF program headers give them. Behind the highest segment come the modules, page aligned; the
 * information structure with all that it points to is one block, in low memory where it fits. ELF64 is loaded like
 * ELF32, as long as everything lies below 4 GiB: the entry is in 32-bit mode either way.
 */
#include "vm/boot_multiboot.h"

#include <string.h>

#include "kernel/bytes.h"

#define SEGMENTS_MAX 32u
#define KNOWN_REQUIREMENTS (MULTIBOOT_FLAG_PAGE_ALIGN | MULTIBOOT_FLAG_MEMORY_INFO | MULTIBOOT_FLAG_VIDEO)
#define LIMIT_32 0x100000000ull

/* Information structure (3.3): offsets and flags. */
enum {
    INFO_FLAGS = 0, INFO_MEM_LOWER = 4, INFO_MEM_UPPER = 8, INFO_CMDLINE = 16, INFO_MODS_COUNT = 20, INFO_MODS = 24,
    INFO_MMAP_BYTES = 44, INFO_MMAP = 48, INFO_LOADER = 64, INFO_BYTES = 120,
};
#define HAS_MEMORY BIT(0)
#define HAS_CMDLINE BIT(2)
#define HAS_MODULES BIT(3)
#define HAS_MMAP BIT(6)
#define HAS_LOADER BIT(9)
#define MMAP_ENTRY_BYTES 24u
#define MODULE_ENTRY_BYTES 16u
#define GDT_BYTES 32u
static const char loader_name[] = "Tasuki";

struct load_segment {
    uint64_t offset, file_bytes; /* in the file */
    uint64_t address, bytes;     /* in memory */
};

struct load_plan {
    struct load_segment segment[SEGMENTS_MAX];
    unsigned count;
    uint64_t entry;
    /* Segments, then modules, then the information block. */
    struct memory_range taken[SEGMENTS_MAX + BOOT_MODULES_MAX + 1];
    unsigned taken_count;
    uint64_t kernel_end;
    uint64_t module[BOOT_MODULES_MAX];
    uint64_t info;
};

bool multiboot_find_header(struct multiboot_header *header, const void *bytes, uint64_t count)
{
    const uint8_t *p = bytes;
    uint64_t end = MIN(count, (uint64_t)MULTIBOOT_SEARCH_BYTES);
    for (uint64_t at = 0; range_within(at, 12, end); at += 4) {
        uint32_t flags = le32_get(p + at + 4);
        if (le32_get(p + at) != MULTIBOOT_HEADER_MAGIC || MULTIBOOT_HEADER_MAGIC + flags + le32_get(p + at + 8) != 0)
            continue;
        memset(header, 0, sizeof(*header));
        header->flags = flags;
        header->offset = at;
        if (flags & MULTIBOOT_FLAG_ADDRESSES) {
            if (!range_within(at, 32, count))
                return false;
            header->header_addr = le32_get(p + at + 12);
            header->load_addr = le32_get(p + at + 16);
            header->load_end_addr = le32_get(p + at + 20);
            header->bss_end_addr = le32_get(p + at + 24);
            header->entry_addr = le32_get(p + at + 28);
        }
        return true;
    }
    return false;
}

static enum status damaged(const struct boot_file *kernel, char error[BOOT_ERROR_BYTES], const char *what)
{
    return boot_error(error, ERR_INVALID, "kernel %s is damaged: %s; copy it anew", kernel->name, what);
}

static enum status add_segment(struct load_plan *plan, const struct boot_request *request, struct load_segment segment,
                               char error[BOOT_ERROR_BYTES])
{
    const struct boot_file *kernel = &request->kernel;
    if (!segment.bytes)
        return OK;
    if (segment.file_bytes > segment.bytes || !range_within(segment.offset, segment.file_bytes, kernel->count))
        return damaged(kernel, error, "a segment lies outside the file");
    if (plan->count == SEGMENTS_MAX)
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s has more than %u segments", kernel->name, SEGMENTS_MAX);
    if (!range_within(segment.address, segment.bytes, LIMIT_32) ||
        !memory_map_is_ram(request->map, request->map_count, segment.address, segment.bytes))
        return boot_error(error, ERR_RANGE,
                          "kernel %s wants memory at 0x%llx for 0x%llx bytes, where the guest has none; set a larger "
                          "memory or link it elsewhere",
                          kernel->name, (unsigned long long)segment.address, (unsigned long long)segment.bytes);
    plan->segment[plan->count++] = segment;
    plan->taken[plan->taken_count++] = (struct memory_range){ segment.address, segment.bytes, MEMORY_RAM };
    plan->kernel_end = MAX(plan->kernel_end, segment.address + segment.bytes);
    return OK;
}

/* The header's address fields: the file is one segment. */
static enum status plan_flat(struct load_plan *plan, const struct multiboot_header *h,
                             const struct boot_request *request, char error[BOOT_ERROR_BYTES])
{
    const struct boot_file *kernel = &request->kernel;
    if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > h->offset)
        return damaged(kernel, error, "its Multiboot header's load address is before the file");
    uint64_t offset = h->offset - (h->header_addr - h->load_addr);
    uint64_t file_bytes = kernel->count - offset;
    if (h->load_end_addr) {
        if (h->load_end_addr < h->load_addr)
            return damaged(kernel, error, "its Multiboot header's load end is before its start");
        file_bytes = h->load_end_addr - h->load_addr;
    }
    uint64_t bytes = file_bytes;
    if (h->bss_end_addr) {
        if (h->bss_end_addr < h->load_addr || h->bss_end_addr - h->load_addr < file_bytes)
            return damaged(kernel, error, "its Multiboot header's BSS ends before the data");
        bytes = h->bss_end_addr - h->load_addr;
    }
    plan->entry = h->entry_addr;
    return add_segment(plan, request, (struct load_segment){ offset, file_bytes, h->load_addr, bytes }, error);
}

/* The layout of the two ELF classes, as far as it differs (ELF specification 1.2, "Program Header"; ELF-64, 1.5). */
struct elf_class {
    uint16_t machine;
    uint8_t word;                             /* width of addresses and offsets */
    uint8_t entry, phoff, phentsize, phnum, header_bytes;
    uint8_t p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, ph_bytes;
};
static const struct elf_class elf32 = { 3, 4, 24, 28, 42, 44, 52, 4, 8, 12, 16, 20, 32 };
static const struct elf_class elf64 = { 62, 8, 24, 32, 54, 56, 64, 8, 16, 24, 32, 40, 56 };

static enum status plan_elf(struct load_plan *plan, const struct boot_request *request, char error[BOOT_ERROR_BYTES])
{
    enum { ET_EXEC = 2, PT_LOAD = 1 };
    const struct boot_file *kernel = &request->kernel;
    const uint8_t *p = kernel->bytes;
    if (kernel->count < 52 || memcmp(p, "\177ELF", 4))
        return boot_error(error, ERR_INVALID, "kernel %s has a Multiboot header without addresses and is not ELF",
                          kernel->name);
    const struct elf_class *c = p[4] == 1 ? &elf32 : p[4] == 2 ? &elf64 : NULL;
    if (!c || p[5] != 1 || kernel->count < c->header_bytes || le16_get(p + 18) != c->machine)
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s is not an ELF file for x86", kernel->name);
    if (le16_get(p + 16) != ET_EXEC)
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s is ELF but no executable; link it to fixed addresses",
                          kernel->name);

    uint64_t table = le_get(p + c->phoff, c->word);
    uint64_t entry_bytes = le16_get(p + c->phentsize), entries = le16_get(p + c->phnum);
    if (entry_bytes < c->ph_bytes || !range_within(table, entry_bytes * entries, kernel->count))
        return damaged(kernel, error, "its program headers lie outside the file");

    uint64_t entry = le_get(p + c->entry, c->word);
    plan->entry = entry;
    for (uint64_t i = 0; i < entries; i++) {
        const uint8_t *ph = p + table + i * entry_bytes;
        if (le32_get(ph) != PT_LOAD)
            continue;
        uint64_t virtual = le_get(ph + c->p_vaddr, c->word);
        struct load_segment segment = {
            .offset = le_get(ph + c->p_offset, c->word),
            .file_bytes = le_get(ph + c->p_filesz, c->word),
            .address = le_get(ph + c->p_paddr, c->word),
            .bytes = le_get(ph + c->p_memsz, c->word),
        };
        enum status status = add_segment(plan, request, segment, error);
        if (status)
            return status;
        /* An entry that is a virtual address means the byte that is loaded for it. */
        if (entry >= virtual && entry - virtual < segment.bytes)
            plan->entry = segment.address + (entry - virtual);
    }
    return OK;
}

static const char *module_string(const struct boot_file *module)
{
    return module->cmdline ? module->cmdline : module->name;
}

static uint64_t info_bytes(const struct boot_request *request)
{
    uint64_t bytes = INFO_BYTES + GDT_BYTES + request->map_count * MMAP_ENTRY_BYTES +
                     request->module_count * MODULE_ENTRY_BYTES + strlen(request->cmdline) + 1 + sizeof(loader_name);
    for (unsigned i = 0; i < request->module_count; i++)
        bytes += strlen(module_string(&request->modules[i])) + 1;
    return bytes;
}

static enum status plan_rest(struct load_plan *plan, const struct boot_request *request, char error[BOOT_ERROR_BYTES])
{
    uint64_t from = MAX(plan->kernel_end, MIB);
    for (unsigned i = 0; i < request->module_count; i++) {
        const struct boot_file *module = &request->modules[i];
        uint64_t bytes = MAX(module->count, 1u);
        plan->module[i] = memory_map_place_low(request->map, request->map_count, plan->taken, plan->taken_count, bytes,
                                               PAGE_BYTES, from, LIMIT_32);
        if (plan->module[i] == UINT64_MAX)
            return boot_error(error, ERR_RANGE,
                              "module %s (%llu bytes) does not fit behind the kernel; set a larger memory",
                              module->name, (unsigned long long)module->count);
        plan->taken[plan->taken_count++] = (struct memory_range){ plan->module[i], bytes, MEMORY_RAM };
    }
    /* Above the BIOS data area, and below 640 KiB where a kernel leaves room there. */
    plan->info = memory_map_place_low(request->map, request->map_count, plan->taken, plan->taken_count,
                                      info_bytes(request), 16, PAGE_BYTES, LIMIT_32);
    if (plan->info == UINT64_MAX)
        return boot_error(error, ERR_RANGE, "kernel %s leaves no room for the boot information; set a larger memory",
                          request->kernel.name);
    return OK;
}

/* A cursor through the information block, which is written piece by piece. */
struct info_writer {
    const struct gmem_ops *memory;
    uint64_t at;
    bool failed;
};

/* Appends and returns the address of the bytes. */
static uint32_t append(struct info_writer *w, const void *bytes, uint64_t count)
{
    uint64_t address = w->at;
    w->failed |= !w->memory->write(w->memory->context, GPA(address), bytes, count);
    w->at += count;
    return (uint32_t)address;
}

static bool write_info(const struct load_plan *plan, const struct boot_request *request)
{
    struct info_writer w = { request->memory, plan->info + INFO_BYTES, false };
    uint8_t info[INFO_BYTES] = { 0 };
    uint8_t gdt[GDT_BYTES] = { 0 };
    le64_put(gdt + 0x10, 0x00cf9b000000ffff);
    le64_put(gdt + 0x18, 0x00cf93000000ffff);
    append(&w, gdt, sizeof(gdt));

    uint32_t map = (uint32_t)w.at;
    uint64_t upper = 0;
    for (unsigned i = 0; i < request->map_count; i++) {
        const struct memory_range *range = &request->map[i];
        uint8_t entry[MMAP_ENTRY_BYTES];
        le32_put(entry, MMAP_ENTRY_BYTES - 4);
        le64_put(entry + 4, range->base);
        le64_put(entry + 12, range->bytes);
        le32_put(entry + 20, range->type);
        append(&w, entry, sizeof(entry));
        if (range->type == MEMORY_RAM && range->base == MIB)
            upper = range->bytes;
    }

    uint32_t string[BOOT_MODULES_MAX];
    for (unsigned i = 0; i < request->module_count; i++) {
        const char *text = module_string(&request->modules[i]);
        string[i] = append(&w, text, strlen(text) + 1);
    }
    uint32_t cmdline = append(&w, request->cmdline, strlen(request->cmdline) + 1);
    uint32_t loader = append(&w, loader_name, sizeof(loader_name));
    uint32_t modules = (uint32_t)w.at;
    for (unsigned i = 0; i < request->module_count; i++) {
        uint8_t entry[MODULE_ENTRY_BYTES] = { 0 };
        le32_put(entry, (uint32_t)plan->module[i]);
        le32_put(entry + 4, (uint32_t)(plan->module[i] + request->modules[i].count));
        le32_put(entry + 8, string[i]);
        append(&w, entry, sizeof(entry));
    }

    le32_put(info + INFO_FLAGS, HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MMAP | HAS_LOADER);
    le32_put(info + INFO_MEM_LOWER, MEMORY_MAP_EBDA / KIB);
    le32_put(info + INFO_MEM_UPPER, (uint32_t)(upper / KIB));
    le32_put(info + INFO_CMDLINE, cmdline);
    le32_put(info + INFO_MODS_COUNT, request->module_count);
    le32_put(info + INFO_MODS, modules);
    le32_put(info + INFO_MMAP_BYTES, request->map_count * MMAP_ENTRY_BYTES);
    le32_put(info + INFO_MMAP, map);
    le32_put(info + INFO_LOADER, loader);
    w.at = plan->info;
    append(&w, info, sizeof(info));
    return !w.failed;
}

/* Machine state (3.2): flat 32-bit segments, paging off, interrupts off. */
static void entry_state(struct cpu_state *s, const struct load_plan *plan)
{
    cpu_state_reset(s);
    s->rip = plan->entry;
    s->gpr[GPR_RAX] = MULTIBOOT_ENTRY_MAGIC;
    s->gpr[GPR_RBX] = plan->info;
    s->cr0 = CR0_PE | CR0_ET;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc093, .selector = 0x18 };
    s->seg[SEG_CS] = (struct segment){ .limit = 0xffffffff, .attributes = 0xc09b, .selector = 0x10 };
    s->seg[SEG_LDTR] = (struct segment){ .attributes = SEG_UNUSABLE };
    s->seg[SEG_TR] = (struct segment){ .limit = 0x67, .attributes = 0x8b };
    s->gdtr = (struct table_register){ plan->info + INFO_BYTES, GDT_BYTES - 1 };
    s->idtr = (struct table_register){ 0, 0 };
}

static bool write_files(const struct load_plan *plan, const struct boot_request *request)
{
    const struct gmem_ops *memory = request->memory;
    const uint8_t *file = request->kernel.bytes;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct load_segment *segment = &plan->segment[i];
        if (segment->file_bytes && !memory->write(memory->context, GPA(segment->address), file + segment->offset,
                                                  segment->file_bytes))
            return false;
    }
    for (unsigned i = 0; i < request->module_count; i++) {
        const struct boot_file *module = &request->modules[i];
        if (module->count && !memory->write(memory->context, GPA(plan->module[i]), module->bytes, module->count))
            return false;
    }
    return true;
}

enum status boot_multiboot(const struct boot_request *request, struct cpu_state *state, char error[BOOT_ERROR_BYTES])
{
    const struct boot_file *kernel = &request->kernel;
    struct multiboot_header header;
    if (!multiboot_find_header(&header, kernel->bytes, kernel->count))
        return boot_error(error, ERR_INVALID, "kernel %s has no Multiboot header in its first %u bytes", kernel->name,
                          MULTIBOOT_SEARCH_BYTES);
    if (header.flags & 0xffff & ~KNOWN_REQUIREMENTS)
        return boot_error(error, ERR_UNSUPPORTED, "kernel %s requires Multiboot features 0x%x, which are not offered",
                          kernel->name, (unsigned)(header.flags & 0xffff & ~KNOWN_REQUIREMENTS));
    if (request->module_count > BOOT_MODULES_MAX)
        return boot_error(error, ERR_INVALID, "kernel %s: %u modules are named, %u is the most", kernel->name,
                          request->module_count, BOOT_MODULES_MAX);

    struct load_plan plan;
    memset(&plan, 0, sizeof(plan));
    enum status status = header.flags & MULTIBOOT_FLAG_ADDRESSES ? plan_flat(&plan, &header, request, error)
                                                                 : plan_elf(&plan, request, error);
    if (status)
        return status;
    bool entry_loaded = false;
    for (unsigned i = 0; i < plan.count; i++)
        entry_loaded |= plan.entry >= plan.segment[i].address &&
                        plan.entry - plan.segment[i].address < plan.segment[i].file_bytes;
    if (!entry_loaded)
        return damaged(kernel, error, "its entry point is outside what is loaded");
    status = plan_rest(&plan, request, error);
    if (status)
        return status;
    if (!boot_write_bios_data(request->memory) || !write_files(&plan, request) || !write_info(&plan, request))
        return boot_error(error, ERR_RANGE, "kernel %s: the guest's memory is not where its map says", kernel->name);
    entry_state(state, &plan);
    return OK;
}
