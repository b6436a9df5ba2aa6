/* SPDX-License-Identifier: MIT */
/*
 * Host virtual memory. The loader's tables are replaced by these at once: RAM in the direct map and in the guest
 * windows, writable and never executable, without the image, so that no writable alias of the text exists; the image
 * by its segments; nothing in the lower half.
 *
 * vmap space is handed out upwards and stacks are recycled through a free list by size (there are only two sizes), so
 * there is no general allocator of addresses to go wrong. An address that was unmapped is flushed on all CPUs before
 * its list entry is used again: stacks stay mapped while they are on the list.
 */
#include "kernel/vmap.h"

#include <string.h>

#include "kernel/cpu.h"
#include "kernel/layout.h"
#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/thread.h"

struct pt host_pt;

static struct spinlock vmap_lock = SPINLOCK_INIT("vmap");
static uint64_t vmap_next = HV_VMAP_BASE;
static uint64_t image_hpa;

struct free_stack {
    struct free_stack *next;
    uint64_t bytes;
};
static struct free_stack *free_stacks; /* each record lies in the stack that it describes */

void *phys_to_virt(hpa_t hpa)
{
    return (void *)(HV_DIRECT_BASE + hpa.v);
}

hpa_t virt_to_phys(const void *address)
{
    uint64_t va = (uint64_t)address;
    if (va >= HV_IMAGE_BASE)
        return HPA(va - HV_IMAGE_BASE + image_hpa);
    return HPA(va - HV_DIRECT_BASE);
}

static void must_map(uint64_t va, uint64_t hpa, uint64_t bytes, uint64_t rights)
{
    enum status status = pt_map(&host_pt, va, HPA(hpa), bytes, rights);
    if (status != OK)
        panic("vmap: cannot map 0x%lx to 0x%lx (0x%lx bytes): status %d", va, hpa, bytes, status);
}

static bool in_direct_map(uint32_t type)
{
    return type == BOOT_MEM_FREE || type == BOOT_MEM_LOADER || type == BOOT_MEM_MODULE || type == BOOT_MEM_ACPI ||
           type == BOOT_MEM_RUNTIME || type == BOOT_MEM_RESERVED;
}

static void map_image(const char *start, const char *end, uint64_t rights)
{
    uint64_t from = ALIGN_DOWN((uint64_t)start, PAGE_BYTES), to = ALIGN_UP((uint64_t)end, PAGE_BYTES);
    must_map(from, from - HV_IMAGE_BASE + image_hpa, to - from, rights | PT_GLOBAL);
}

void vmap_init(const struct boot_info *info)
{
    const struct boot_mem_range *range = phys_to_virt(HPA(info->mem));

    image_hpa = info->image_base;
    if (!pt_create(&host_pt, &pt_format_host, PAGE_OWNER_HV, cpu_features.huge_pages ? HUGE_PAGE_BYTES : LARGE_PAGE_BYTES))
        panic("vmap: no memory for page tables");

    /* Neighbours of a kind are joined, so that a map of many small ranges still gets large leaves. */
    for (uint64_t i = 0; i < info->mem_count;) {
        if (!in_direct_map(range[i].type)) {
            i++;
            continue;
        }
        uint64_t base = range[i].base, end = base + range[i].bytes;
        for (i++; i < info->mem_count && in_direct_map(range[i].type) && range[i].base == end; i++)
            end = range[i].base + range[i].bytes;
        must_map(HV_DIRECT_BASE + base, base, end - base, PT_READ | PT_WRITE | PT_GLOBAL);
        must_map(HV_GUEST_BASE + base, base, end - base, PT_READ | PT_WRITE | PT_GLOBAL);
    }
    map_image(__text_start, __text_end, PT_READ | PT_EXEC);
    map_image(__rodata_start, __rodata_end, PT_READ);
    map_image(__data_start, __image_end, PT_READ | PT_WRITE);
    write_cr3(host_pt.root.v);
}

static uint64_t reserve(uint64_t bytes)
{
    uint64_t flags = spin_lock_irqsave(&vmap_lock);
    uint64_t va = vmap_next;
    vmap_next += bytes + PAGE_BYTES;
    spin_unlock_irqrestore(&vmap_lock, flags);
    if (va + bytes > HV_VMAP_BASE + HV_VMAP_BYTES)
        panic("vmap: address space used up");
    return va;
}

static void *map_device(hpa_t hpa, uint64_t bytes, uint64_t rights)
{
    uint64_t offset = hpa.v % PAGE_BYTES, whole = ALIGN_UP(offset + bytes, PAGE_BYTES);
    uint64_t va = reserve(whole);
    uint64_t flags = spin_lock_irqsave(&vmap_lock);
    enum status status = pt_map(&host_pt, va, HPA(hpa.v - offset), whole, rights);
    spin_unlock_irqrestore(&vmap_lock, flags);
    return status == OK ? (void *)(va + offset) : NULL;
}

void *vmap_mmio(hpa_t hpa, uint64_t bytes)
{
    return map_device(hpa, bytes, PT_READ | PT_WRITE | PT_GLOBAL | PT_UNCACHED);
}

void *vmap_framebuffer(hpa_t hpa, uint64_t bytes)
{
    return map_device(hpa, bytes, PT_READ | PT_WRITE | PT_GLOBAL | PT_WRITE_COMBINING);
}

void *vmap_stack(uint64_t bytes)
{
    uint64_t flags = spin_lock_irqsave(&vmap_lock);
    for (struct free_stack **link = &free_stacks; *link; link = &(*link)->next) {
        if ((*link)->bytes == bytes) {
            struct free_stack *stack = *link;
            *link = stack->next;
            spin_unlock_irqrestore(&vmap_lock, flags);
            return (char *)stack + sizeof *stack;
        }
    }
    spin_unlock_irqrestore(&vmap_lock, flags);

    uint64_t guard = reserve(bytes + PAGE_BYTES), base = guard + PAGE_BYTES;
    for (uint64_t offset = 0; offset < bytes; offset += PAGE_BYTES) {
        hpa_t page;
        if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &page))
            return NULL; /* what was mapped stays as the start of a stack that nobody gets */
        flags = spin_lock_irqsave(&vmap_lock);
        enum status status = pt_map(&host_pt, base + offset, page, PAGE_BYTES, PT_READ | PT_WRITE | PT_GLOBAL);
        spin_unlock_irqrestore(&vmap_lock, flags);
        if (status != OK)
            return NULL;
    }
    return (void *)(base + bytes);
}

void vmap_stack_free(void *top, uint64_t bytes)
{
    struct free_stack *stack = (struct free_stack *)((char *)top - sizeof *stack);
    uint64_t flags = spin_lock_irqsave(&vmap_lock);
    stack->bytes = bytes;
    stack->next = free_stacks;
    free_stacks = stack;
    spin_unlock_irqrestore(&vmap_lock, flags);
}

bool vmap_back(char *start, char *end, hpa_t *hpa)
{
    uint64_t bytes = (uint64_t)(end - start);

    if (!page_alloc_run(bytes / PAGE_BYTES, PAGE_OWNER_HV, 0, hpa))
        return false;
    for (uint64_t offset = 0; offset < bytes; offset += PAGE_BYTES) {
        uint64_t flags = spin_lock_irqsave(&vmap_lock);
        enum status status = pt_map(&host_pt, (uint64_t)start + offset, HPA(hpa->v + offset), PAGE_BYTES,
                                    PT_READ | PT_WRITE | PT_GLOBAL);
        spin_unlock_irqrestore(&vmap_lock, flags);
        if (status != OK)
            return false;
        memset(start + offset, 0, PAGE_BYTES);
        if (thread_should_yield())
            thread_yield();
    }
    return true;
}

bool vmap_is_guard(uint64_t address)
{
    return address >= HV_VMAP_BASE && address < vmap_next && !pt_leaf(&host_pt, address, &(uint64_t){ 0 });
}
