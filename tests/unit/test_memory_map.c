/* SPDX-License-Identifier: MIT */
/*
 * The guest's memory map: that the ranges and the backing agree for every size of memory, and that the search for free
 * places finds the best one and never one that is taken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vm/memory_map.h"

static void ram_of_the_map_is_what_was_asked_for(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { MIB, MIB + PAGE_BYTES, 16 * MIB, 256 * MIB, 3 * GIB - PAGE_BYTES, 3 * GIB,
                                      3 * GIB + PAGE_BYTES, 4 * GIB, 64 * GIB, 1ull << 46 };
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct memory_range map[MEMORY_MAP_RANGES];
        struct memory_slot slot[MEMORY_MAP_SLOTS];
        unsigned count = memory_map_build(sizes[i], map, MEMORY_MAP_RANGES), slots = memory_map_slots(sizes[i], slot);
        uint64_t backed = 0, ram = 0;
        for (unsigned k = 0; k < slots; k++) {
            assert_int_equal(slot[k].offset, backed);
            backed += slot[k].bytes;
        }
        assert_int_equal(backed, sizes[i]);
        for (unsigned k = 0; k < count; k++) {
            if (k)
                assert_true(map[k].base >= map[k - 1].base + map[k - 1].bytes);
            if (map[k].type != MEMORY_RAM)
                continue;
            ram += map[k].bytes;
            bool inside = false;
            for (unsigned s = 0; s < slots; s++)
                inside |= map[k].base >= slot[s].base &&
                          range_within(map[k].base - slot[s].base, map[k].bytes, slot[s].bytes);
            assert_true(inside);
        }
        assert_int_equal(ram, sizes[i] - (MIB - MEMORY_MAP_EBDA));
        assert_int_equal(memory_map_build(sizes[i], map, count - 1), 0);
    }
}

static void odd_sizes_are_rounded_down(void **state)
{
    (void)state;
    struct memory_slot slot[MEMORY_MAP_SLOTS];
    assert_int_equal(memory_map_slots(2 * MIB + 4095, slot), 1);
    assert_int_equal(slot[0].bytes, 2 * MIB);
}

static void is_ram_knows_the_edges(void **state)
{
    (void)state;
    struct memory_range map[MEMORY_MAP_RANGES];
    unsigned n = memory_map_build(4 * GIB, map, MEMORY_MAP_RANGES);
    assert_true(memory_map_is_ram(map, n, 0, MEMORY_MAP_EBDA));
    assert_false(memory_map_is_ram(map, n, 0, MEMORY_MAP_EBDA + 1));
    assert_false(memory_map_is_ram(map, n, MEMORY_MAP_ACPI, 1));
    assert_true(memory_map_is_ram(map, n, 3 * GIB - 1, 1));
    assert_false(memory_map_is_ram(map, n, 3 * GIB - 1, 2));
    assert_false(memory_map_is_ram(map, n, MEMORY_MAP_HIGH - 1, 2));
    assert_true(memory_map_is_ram(map, n, 5 * GIB - 1, 1));
    assert_false(memory_map_is_ram(map, n, 5 * GIB, 1));
    assert_false(memory_map_is_ram(map, n, UINT64_MAX, 1));
    assert_false(memory_map_is_ram(map, n, MIB, UINT64_MAX));
}

static void places_avoid_what_is_taken(void **state)
{
    (void)state;
    struct memory_range map[MEMORY_MAP_RANGES];
    unsigned n = memory_map_build(64 * MIB, map, MEMORY_MAP_RANGES);
    struct memory_range taken[] = { { 60 * MIB, 4 * MIB, MEMORY_RAM }, { 16 * MIB, 8 * MIB, MEMORY_RAM } };
    assert_int_equal(memory_map_place_high(map, n, NULL, 0, MIB, PAGE_BYTES, MIB, UINT64_MAX), 63 * MIB);
    assert_int_equal(memory_map_place_high(map, n, taken, 2, MIB, PAGE_BYTES, MIB, UINT64_MAX), 59 * MIB);
    assert_int_equal(memory_map_place_high(map, n, taken, 2, 36 * MIB, PAGE_BYTES, MIB, UINT64_MAX), 24 * MIB);
    assert_int_equal(memory_map_place_high(map, n, taken, 2, 37 * MIB, PAGE_BYTES, MIB, UINT64_MAX), UINT64_MAX);
    assert_int_equal(memory_map_place_low(map, n, taken, 2, 15 * MIB, PAGE_BYTES, MIB, UINT64_MAX), MIB);
    assert_int_equal(memory_map_place_low(map, n, taken, 2, 15 * MIB + 1, PAGE_BYTES, MIB, UINT64_MAX), 24 * MIB);
    assert_int_equal(memory_map_place_low(map, n, taken, 2, MIB, 32 * MIB, MIB, UINT64_MAX), 32 * MIB);
    assert_int_equal(memory_map_place_low(map, n, taken, 2, MIB, PAGE_BYTES, MIB, 2 * MIB - 1), UINT64_MAX);
    assert_int_equal(memory_map_place_low(map, n, taken, 2, UINT64_MAX, PAGE_BYTES, 0, UINT64_MAX), UINT64_MAX);
    assert_int_equal(memory_map_place_high(map, n, taken, 2, UINT64_MAX, PAGE_BYTES, 0, UINT64_MAX), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram_of_the_map_is_what_was_asked_for),
        cmocka_unit_test(odd_sizes_are_rounded_down),
        cmocka_unit_test(is_ram_knows_the_edges),
        cmocka_unit_test(places_avoid_what_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
