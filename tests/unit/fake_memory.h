/* SPDX-License-Identifier: MIT */
/*
 * Physical memory for tests: address space is reserved, and only what is touched takes memory, so that a test can have
 * gigabytes of it. Gives phys_to_virt and gmem_window their definitions: include it in one file of a test program.
 * A small random generator is here too, since all users of this want one.
 */
#ifndef TESTS_FAKE_MEMORY_H
#define TESTS_FAKE_MEMORY_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/page.h"

static char *fake_ram;
static uint64_t fake_ram_end;

void *phys_to_virt(hpa_t hpa)
{
    if (hpa.v >= fake_ram_end) {
        fprintf(stderr, "phys_to_virt: 0x%llx is outside of RAM\n", (unsigned long long)hpa.v);
        abort();
    }
    return fake_ram + hpa.v;
}

hpa_t virt_to_phys(const void *address)
{
    uint64_t offset = (uint64_t)((const char *)address - fake_ram);
    if (offset >= fake_ram_end)
        abort();
    return HPA(offset);
}

void *gmem_window(hpa_t hpa);
void *gmem_window(hpa_t hpa)
{
    return phys_to_virt(hpa);
}

/* A machine with RAM below `end`, all of it free but for the allocator's tables, which lie from 1 MiB on. */
static inline void fake_memory_start(uint64_t end)
{
    uint64_t tables = page_table_bytes(end);

    fake_ram_end = end;
    fake_ram = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fake_ram == MAP_FAILED)
        abort();
    page_init(fake_ram + MIB, end);
    page_add(HPA(MIB + tables), end - MIB - tables);
}

static inline void fake_memory_stop(void)
{
    munmap(fake_ram, fake_ram_end);
    fake_ram = NULL;
    fake_ram_end = 0;
}

/* xorshift64*: the same numbers in every run of the same seed. */
static uint64_t fake_random_state = 0x9e3779b97f4a7c15ull;

static inline uint64_t fake_random(void)
{
    fake_random_state ^= fake_random_state >> 12;
    fake_random_state ^= fake_random_state << 25;
    fake_random_state ^= fake_random_state >> 27;
    return fake_random_state * 0x2545f4914f6cdd1dull;
}

static inline uint64_t fake_below(uint64_t limit)
{
    return fake_random() % limit;
}

#endif
