/* SPDX-License-Identifier: MIT */
/*
 * Small objects: one free list for each power of two from 16 to 2048 bytes, carved from pages; larger ones are runs of
 * pages. Freed memory is zeroed when it is given out again, so nothing leaks from one object into the next.
 */
#include "kernel/heap.h"

#include <string.h>

#include "kernel/page.h"
#include "kernel/spinlock.h"

#define SMALLEST_SHIFT 4
#define LARGEST_SHIFT 11
#define CLASSES (LARGEST_SHIFT - SMALLEST_SHIFT + 1)

struct free_object {
    struct free_object *next;
};

static struct spinlock heap_lock = SPINLOCK_INIT("heap");
static struct free_object *free_objects[CLASSES];

static unsigned class_of(size_t bytes)
{
    unsigned class = 0;

    while (((size_t)1 << (class + SMALLEST_SHIFT)) < bytes)
        class++;
    return class;
}

static bool refill(unsigned class)
{
    size_t size = (size_t)1 << (class + SMALLEST_SHIFT);
    hpa_t page;

    if (!page_alloc(PAGE_BYTES, PAGE_OWNER_HV, 0, &page))
        return false;
    char *base = phys_to_virt(page);
    for (size_t offset = 0; offset < PAGE_BYTES; offset += size) {
        struct free_object *object = (struct free_object *)(base + offset);
        object->next = free_objects[class];
        free_objects[class] = object;
    }
    return true;
}

void *kzalloc(size_t bytes)
{
    void *result = NULL;

    if (bytes > (size_t)1 << LARGEST_SHIFT) {
        hpa_t run;
        if (!page_alloc_run(ALIGN_UP(bytes, PAGE_BYTES) / PAGE_BYTES, PAGE_OWNER_HV, PAGE_ZERO, &run))
            return NULL;
        return phys_to_virt(run);
    }
    unsigned class = class_of(bytes);
    uint64_t flags = spin_lock_irqsave(&heap_lock);
    if (free_objects[class] || refill(class)) {
        result = free_objects[class];
        free_objects[class] = free_objects[class]->next;
    }
    spin_unlock_irqrestore(&heap_lock, flags);
    return result ? memset(result, 0, (size_t)1 << (class + SMALLEST_SHIFT)) : NULL;
}

void kfree(void *ptr, size_t bytes)
{
    if (!ptr)
        return;
    if (bytes > (size_t)1 << LARGEST_SHIFT) {
        page_free_run(virt_to_phys(ptr), ALIGN_UP(bytes, PAGE_BYTES) / PAGE_BYTES, PAGE_OWNER_HV);
        return;
    }
    unsigned class = class_of(bytes);
    struct free_object *object = ptr;
    uint64_t flags = spin_lock_irqsave(&heap_lock);
    object->next = free_objects[class];
    free_objects[class] = object;
    spin_unlock_irqrestore(&heap_lock, flags);
}
