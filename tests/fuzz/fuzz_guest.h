/* SPDX-License-Identifier: MIT */
/*
 * What fuzz targets of devices share: the input as a stream of numbers (zeros behind its end), and a guest's memory with a
 * hole, which may change under whoever reads it. RAM_BYTES, HOLE and HOLE_BYTES are the target's.
 */
#ifndef TESTS_FUZZ_GUEST_H
#define TESTS_FUZZ_GUEST_H

#include <stdlib.h>
#include <string.h>

#include "kernel/types.h"
#include "vdev/vdev.h"

static uint8_t *ram;
static const uint8_t *input;
static size_t left, tail;
static bool mutate; /* what is read changes behind the reader */

static void require(bool condition)
{
    if (!condition)
        abort();
}

static uint8_t next8(void)
{
    if (!left)
        return 0;
    left--;
    return *input++;
}

static uint16_t next16(void)
{
    uint16_t low = next8();

    return (uint16_t)(low | next8() << 8);
}

static uint32_t next32(void)
{
    uint32_t low = next16();

    return low | (uint32_t)next16() << 16;
}

static bool valid(void *context, gpa_t gpa, uint64_t count)
{
    (void)context;
    return range_within(gpa.v, count, RAM_BYTES) && !range_overlaps(gpa.v, count, HOLE, HOLE_BYTES);
}

static bool read_ram(void *context, gpa_t gpa, void *bytes, uint64_t count)
{
    if (!valid(context, gpa, count))
        return false;
    memcpy(bytes, ram + gpa.v, count);
    for (uint64_t i = 0; mutate && i < MIN(count, 16); i++)
        ram[gpa.v + i] ^= input[tail++ % left];
    return true;
}

static bool write_ram(void *context, gpa_t gpa, const void *bytes, uint64_t count)
{
    if (!valid(context, gpa, count))
        return false;
    memcpy(ram + gpa.v, bytes, count);
    return true;
}

static const struct gmem_ops memory = { .read = read_ram, .write = write_ram, .valid = valid };

#endif
