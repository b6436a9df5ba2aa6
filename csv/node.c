/* SPDX-License-Identifier: MIT */
/*
 * One node of a tree: a sorted array of slots from the front, the values packed at the back. Removing a value moves
 * those before it up, so there are never gaps, and room is one subtraction. A node holds a few hundred records at
 * most; moving them costs less than the read of one block.
 */
#include <string.h>

#include "csv/tree.h"

#define CHILD_BYTES 8u

static const uint8_t *slot_at(const uint8_t *area, unsigned index)
{
    return area + CSV_N_SLOTS + index * CSV_N_SLOT_BYTES;
}

static unsigned value_offset(const uint8_t *area, unsigned index)
{
    return le16_get(slot_at(area, index) + 8);
}

static unsigned value_bytes(const uint8_t *area, unsigned index)
{
    return le16_get(slot_at(area, index) + 10);
}

/* Values have the length that their tree says, lie in the area, and neither overlap nor leave gaps. */
static const char *values_fault(const uint8_t *area, unsigned bytes, uint32_t type)
{
    unsigned low = type == CSV_EXTENTS ? CSV_EXTENT_VALUE_BYTES : type == CSV_COUNTS ? CSV_COUNT_VALUE_BYTES
                   : type == CSV_ORPHANS ? CSV_ORPHAN_VALUE_BYTES : CSV_ENTRY_FIXED_BYTES + 1;
    unsigned high = type == CSV_DIRECTORY ? CSV_VALUE_BYTES : low;
    unsigned begin = le16_get(area + CSV_N_VALUES), total = 0;
    uint64_t taken[CSV_BLOCK_BYTES / 64] = { 0 }; /* a bit for each byte that is in a value */
    if (csv_node_level(area))
        low = high = CHILD_BYTES;
    for (unsigned i = 0; i < csv_node_count(area); i++) {
        unsigned offset = value_offset(area, i), length = value_bytes(area, i);
        if (length < low || length > high || offset < begin || offset + length > bytes)
            return "a tree node with a value out of place";
        for (unsigned at = offset; at < offset + length; at++) {
            if (taken[at / 64] & BIT(at % 64))
                return "a tree node whose values overlap";
            taken[at / 64] |= BIT(at % 64);
        }
        total += length;
    }
    return total == bytes - begin ? NULL : "a tree node with gaps between its values";
}

const char *csv_node_fault(const uint8_t *area, unsigned bytes, uint32_t type)
{
    unsigned count = csv_node_count(area), begin = le16_get(area + CSV_N_VALUES);
    if (csv_node_level(area) > CSV_MAX_LEVEL)
        return "a tree node of an impossible level";
    if (begin > bytes || CSV_N_SLOTS + count * CSV_N_SLOT_BYTES > begin)
        return "a tree node whose records do not fit";
    for (unsigned i = 1; i < count; i++)
        if (csv_node_key(area, i - 1) >= csv_node_key(area, i))
            return "a tree node whose keys do not ascend";
    return values_fault(area, bytes, type);
}

void csv_node_init(uint8_t *area, unsigned bytes, unsigned level)
{
    memset(area, 0, bytes);
    le16_put(area + CSV_N_LEVEL, (uint16_t)level);
    le16_put(area + CSV_N_VALUES, (uint16_t)bytes);
}

uint64_t csv_node_key(const uint8_t *area, unsigned index)
{
    return le64_get(slot_at(area, index));
}

void csv_node_set_key(uint8_t *area, unsigned index, uint64_t key)
{
    le64_put(area + CSV_N_SLOTS + index * CSV_N_SLOT_BYTES, key);
}

uint8_t *csv_node_value(uint8_t *area, unsigned index, unsigned *bytes)
{
    if (bytes)
        *bytes = value_bytes(area, index);
    return area + value_offset(area, index);
}

unsigned csv_node_find(const uint8_t *area, uint64_t key)
{
    unsigned low = 0, high = csv_node_count(area);
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (csv_node_key(area, middle) < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

unsigned csv_node_used(const uint8_t *area, unsigned bytes)
{
    return csv_node_count(area) * CSV_N_SLOT_BYTES + (bytes - le16_get(area + CSV_N_VALUES));
}

unsigned csv_node_room(const uint8_t *area)
{
    return le16_get(area + CSV_N_VALUES) - (CSV_N_SLOTS + csv_node_count(area) * CSV_N_SLOT_BYTES);
}

void csv_node_insert(uint8_t *area, unsigned index, uint64_t key, const void *value, unsigned count)
{
    unsigned records = csv_node_count(area), offset = le16_get(area + CSV_N_VALUES) - count;
    uint8_t *slot = area + CSV_N_SLOTS + index * CSV_N_SLOT_BYTES;
    memmove(slot + CSV_N_SLOT_BYTES, slot, (records - index) * CSV_N_SLOT_BYTES);
    le64_put(slot, key);
    le16_put(slot + 8, (uint16_t)offset);
    le16_put(slot + 10, (uint16_t)count);
    memcpy(area + offset, value, count);
    le16_put(area + CSV_N_COUNT, (uint16_t)(records + 1));
    le16_put(area + CSV_N_VALUES, (uint16_t)offset);
}

void csv_node_remove(uint8_t *area, unsigned index)
{
    unsigned records = csv_node_count(area), begin = le16_get(area + CSV_N_VALUES);
    unsigned offset = value_offset(area, index), length = value_bytes(area, index);
    uint8_t *slot = area + CSV_N_SLOTS + index * CSV_N_SLOT_BYTES;
    memmove(area + begin + length, area + begin, offset - begin);
    memset(area + begin, 0, length);
    memmove(slot, slot + CSV_N_SLOT_BYTES, (records - index - 1) * CSV_N_SLOT_BYTES);
    memset(area + CSV_N_SLOTS + (records - 1) * CSV_N_SLOT_BYTES, 0, CSV_N_SLOT_BYTES);
    le16_put(area + CSV_N_COUNT, (uint16_t)(records - 1));
    le16_put(area + CSV_N_VALUES, (uint16_t)(begin + length));
    for (unsigned i = 0; i < records - 1; i++) {
        uint8_t *other = area + CSV_N_SLOTS + i * CSV_N_SLOT_BYTES;
        if (le16_get(other + 8) < offset)
            le16_put(other + 8, (uint16_t)(le16_get(other + 8) + length));
    }
}

void csv_node_move(uint8_t *from, unsigned index, uint8_t *to)
{
    for (unsigned i = index; i < csv_node_count(from); i++) {
        unsigned bytes;
        const uint8_t *value = csv_node_value(from, i, &bytes);
        csv_node_insert(to, csv_node_count(to), csv_node_key(from, i), value, bytes);
    }
    while (csv_node_count(from) > index)
        csv_node_remove(from, csv_node_count(from) - 1);
}
