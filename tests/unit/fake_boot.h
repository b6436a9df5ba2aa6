/* SPDX-License-Identifier: MIT */
/*
 * A guest's memory for the tests of the kernel loaders: sparse, RAM as the memory map says, and every access outside of
 * it fails. Include it in one file of a program.
 */
#ifndef TESTS_FAKE_BOOT_H
#define TESTS_FAKE_BOOT_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm/kernel_image.h"
#include "vmm/cpu_limits.h"

struct fake_boot {
    struct memory_range map[MEMORY_MAP_RANGES];
    unsigned map_count;
    struct memory_slot slot[MEMORY_MAP_SLOTS];
    unsigned slot_count;
    uint64_t ram_bytes;
    uint8_t *ram;
    struct gmem_ops ops;
};

static uint8_t *fake_boot_at(struct fake_boot *f, gpa_t gpa, uint64_t count)
{
    for (unsigned i = 0; i < f->slot_count; i++)
        if (gpa.v >= f->slot[i].base && range_within(gpa.v - f->slot[i].base, count, f->slot[i].bytes))
            return f->ram + f->slot[i].offset + (gpa.v - f->slot[i].base);
    return NULL;
}

static bool fake_boot_read(void *context, gpa_t gpa, void *bytes, uint64_t count)
{
    const uint8_t *p = fake_boot_at(context, gpa, count);
    if (p)
        memcpy(bytes, p, count);
    return p;
}

static bool fake_boot_write(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    uint8_t *p = fake_boot_at(context, gpa, count);
    if (p)
        memcpy(p, bytes, count);
    return p;
}

static bool fake_boot_valid(void *context, gpa_t gpa, uint64_t count)
{
    return fake_boot_at(context, gpa, count);
}

static inline void fake_boot_start(struct fake_boot *f, uint64_t ram_bytes)
{
    f->map_count = memory_map_build(ram_bytes, f->map, MEMORY_MAP_RANGES);
    f->slot_count = memory_map_slots(ram_bytes, f->slot);
    f->ram_bytes = ram_bytes;
    f->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->ram == MAP_FAILED)
        abort();
    f->ops = (struct gmem_ops){ .context = f, .read = fake_boot_read, .write = fake_boot_write, .valid = fake_boot_valid };
}

static inline void fake_boot_stop(struct fake_boot *f)
{
    munmap(f->ram, f->ram_bytes);
}

static inline struct boot_request fake_boot_request(struct fake_boot *f, const void *kernel, uint64_t count)
{
    return (struct boot_request){ .memory = &f->ops, .map = f->map, .map_count = f->map_count,
                                  .kernel = { .bytes = kernel, .count = count, .name = "vmlinuz" }, .cmdline = "" };
}

/* Any limits: what every CPU model allows at least. */
static const struct cpu_limits fake_boot_limits = {
    .cr4_valid = CR4_PAE | CR4_PSE | CR4_PGE | CR4_OSFXSR, .efer_valid = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
    .physical_bits = 39, .linear_bits = 48,
};

#endif
