/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes both kernel loaders.
 *
 * Input: a byte that chooses the guest's memory (bits 0-2) and the modules (bits 3-4: none, an empty one, one of a
 * page, one of 20 MiB), then the kernel's file.
 *
 * What must hold: no access outside of the file or the guest's memory, words for every refusal, and after a success an
 * entry state that can enter and an entry point in RAM.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/kernel_image.h"
#include "vmm/cpu_state_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_range map[MEMORY_MAP_RANGES];
static struct memory_slot slot[MEMORY_MAP_SLOTS];
static unsigned map_count, slot_count;
static const struct cpu_limits limits = {
    .cr4_valid = CR4_PAE, .efer_valid = EFER_LME | EFER_LMA, .physical_bits = 39, .linear_bits = 48
};

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Guest memory keeps nothing, but all that is written is read from its source. */
static bool write_memory(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    static uint8_t sink[4096];
    (void)context;
    for (unsigned i = 0; i < slot_count; i++) {
        if (gpa.v < slot[i].base || !range_within(gpa.v - slot[i].base, count, slot[i].bytes))
            continue;
        for (uint64_t at = 0; at < count; at += sizeof(sink))
            memcpy(sink, (const uint8_t *)bytes + at, MIN(count - at, sizeof(sink)));
        return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t memory[] = { MIB, 2 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, GIB, 4 * GIB, 64 * GIB };
    static uint8_t *big;
    if (!big)
        big = calloc(1, 20 * MIB);
    if (!size)
        return 0;
    unsigned choice = data[0];
    map_count = memory_map_build(memory[choice & 7], map, MEMORY_MAP_RANGES);
    slot_count = memory_map_slots(memory[choice & 7], slot);
    static const uint64_t bytes[] = { 0, 0, 4096, 20 * MIB };
    struct boot_file module = { .bytes = big, .count = bytes[choice >> 3 & 3], .name = "initrd" };
    struct gmem_ops ops = { .write = write_memory };
    uint8_t *file = malloc(size); /* of the exact size, for the sanitizer */
    memcpy(file, data + 1, size - 1);
    struct boot_request request = {
        .memory = &ops, .map = map, .map_count = map_count,
        .kernel = { .bytes = file, .count = size - 1, .name = "kernel" },
        .modules = &module, .module_count = (choice >> 3 & 3) != 0, .cmdline = "console=ttyS0", .acpi_rsdp = 0xe0000,
    };
    char error[BOOT_ERROR_BYTES] = "";
    struct cpu_state state;
    if (kernel_image_boot(&request, &state, error) == OK) {
        require(cpu_state_check(&state, &limits, NULL, 0) == OK);
        require(memory_map_is_ram(map, map_count, state.rip, 1));
    } else {
        require(error[0]);
    }
    free(file);
    return 0;
}
