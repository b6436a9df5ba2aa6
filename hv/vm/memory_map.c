/* SPDX-License-Identifier: MIT */
/*
 * The guest's memory map and the search for free places in it. The map is short (six ranges at most), so all searches
 * are plain loops.
 */
#include "vm/memory_map.h"

unsigned memory_map_slots(uint64_t ram_bytes, struct memory_slot out[MEMORY_MAP_SLOTS])
{
    ram_bytes = ALIGN_DOWN(ram_bytes, PAGE_BYTES);
    uint64_t low = MIN(ram_bytes, MEMORY_MAP_LOW_TOP);
    out[0] = (struct memory_slot){ 0, low, 0 };
    if (ram_bytes == low)
        return 1;
    out[1] = (struct memory_slot){ MEMORY_MAP_HIGH, ram_bytes - low, low };
    return 2;
}

unsigned memory_map_build(uint64_t ram_bytes, struct memory_range *out, unsigned capacity)
{
    struct memory_slot slot[MEMORY_MAP_SLOTS];
    unsigned slots = memory_map_slots(ram_bytes, slot);
    struct memory_range map[MEMORY_MAP_RANGES];
    unsigned count = 0;
    map[count++] = (struct memory_range){ 0, MEMORY_MAP_EBDA, MEMORY_RAM };
    map[count++] = (struct memory_range){ MEMORY_MAP_EBDA, MIB - MEMORY_MAP_EBDA, MEMORY_RESERVED };
    if (slot[0].bytes > MIB)
        map[count++] = (struct memory_range){ MIB, slot[0].bytes - MIB, MEMORY_RAM };
    map[count++] = (struct memory_range){ MEMORY_MAP_PCI_END, MEMORY_MAP_HIGH - MEMORY_MAP_PCI_END, MEMORY_RESERVED };
    if (slots == 2)
        map[count++] = (struct memory_range){ slot[1].base, slot[1].bytes, MEMORY_RAM };
    if (count > capacity)
        return 0;
    for (unsigned i = 0; i < count; i++)
        out[i] = map[i];
    return count;
}

bool memory_map_is_ram(const struct memory_range *map, unsigned count, uint64_t base, uint64_t bytes)
{
    for (unsigned i = 0; i < count; i++)
        if (map[i].type == MEMORY_RAM && base >= map[i].base && range_within(base - map[i].base, bytes, map[i].bytes))
            return true;
    return false;
}

/* The first taken range that [base, base + bytes) touches, or NULL. */
static const struct memory_range *collision(const struct memory_range *taken, unsigned taken_count, uint64_t base,
                                            uint64_t bytes)
{
    for (unsigned i = 0; i < taken_count; i++)
        if (range_overlaps(base, bytes, taken[i].base, taken[i].bytes))
            return &taken[i];
    return NULL;
}

uint64_t memory_map_place_high(const struct memory_range *map, unsigned count, const struct memory_range *taken,
                               unsigned taken_count, uint64_t bytes, uint64_t alignment, uint64_t low, uint64_t high)
{
    for (unsigned i = count; i-- > 0;) {
        if (map[i].type != MEMORY_RAM)
            continue;
        uint64_t first = MAX(map[i].base, low);
        uint64_t end = MIN(map[i].base + map[i].bytes, high);
        while (end >= first && end - first >= bytes) {
            uint64_t base = ALIGN_DOWN(end - bytes, alignment);
            if (base < first)
                break;
            const struct memory_range *hit = collision(taken, taken_count, base, bytes);
            if (!hit)
                return base;
            end = hit->base; /* every place between has this collision too */
        }
    }
    return UINT64_MAX;
}

uint64_t memory_map_place_low(const struct memory_range *map, unsigned count, const struct memory_range *taken,
                              unsigned taken_count, uint64_t bytes, uint64_t alignment, uint64_t low, uint64_t high)
{
    for (unsigned i = 0; i < count; i++) {
        if (map[i].type != MEMORY_RAM)
            continue;
        uint64_t first = MAX(map[i].base, low);
        uint64_t end = MIN(map[i].base + map[i].bytes, high);
        while (first <= end) {
            uint64_t base = ALIGN_UP(first, alignment);
            if (base < first || base > end || end - base < bytes)
                break;
            const struct memory_range *hit = collision(taken, taken_count, base, bytes);
            if (!hit)
                return base;
            first = hit->base + hit->bytes;
        }
    }
    return UINT64_MAX;
}
