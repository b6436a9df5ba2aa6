/* SPDX-License-Identifier: MIT */
/* Addresses and ports (see mac_table.h). */
#include "net/mac_table.h"

static uint32_t bucket_of(const struct mac_table *table, uint64_t key)
{
    uint64_t hash = (key ^ table->seed) * 0x9e3779b97f4a7c15ull;

    hash = (hash ^ hash >> 29 ^ table->seed) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(hash >> 32) & (table->bucket_count - 1);
}

static struct mac_entry *in_chain(struct mac_table *table, uint32_t index, uint64_t key)
{
    for (; index != MAC_ENTRY_NONE; index = table->entry[index].next) {
        if (table->entry[index].key == key)
            return &table->entry[index];
    }
    return NULL;
}

void mac_table_init(struct mac_table *table, struct mac_entry *entries, uint32_t capacity, uint32_t *buckets,
                    uint32_t bucket_count, uint64_t seed)
{
    *table = (struct mac_table){ .entry = entries, .bucket = buckets, .capacity = capacity,
                                 .bucket_count = bucket_count, .free = MAC_ENTRY_NONE, .seed = seed };
    for (uint32_t i = 0; i < bucket_count; i++)
        buckets[i] = MAC_ENTRY_NONE;
    for (uint32_t i = capacity; i--; table->free = i)
        entries[i].next = table->free;
}

struct mac_entry *mac_table_find(struct mac_table *table, uint64_t key)
{
    return in_chain(table, table->bucket[bucket_of(table, key)], key);
}

struct mac_entry *mac_table_find_next(struct mac_table *table, const struct mac_entry *entry)
{
    return in_chain(table, entry->next, entry->key);
}

struct mac_entry *mac_table_add(struct mac_table *table, uint64_t key, void *port, uint64_t now_ns)
{
    uint32_t index = table->free, bucket = bucket_of(table, key);
    struct mac_entry *entry;

    if (index == MAC_ENTRY_NONE)
        return NULL;
    entry = &table->entry[index];
    table->free = entry->next;
    table->used++;
    *entry = (struct mac_entry){ .key = key, .seen_ns = now_ns, .port = port, .next = table->bucket[bucket] };
    table->bucket[bucket] = index;
    return entry;
}

void mac_table_sweep(struct mac_table *table, bool (*drop)(void *context, const struct mac_entry *entry), void *context)
{
    for (uint32_t i = 0; i < table->bucket_count; i++) {
        uint32_t *link = &table->bucket[i];

        while (*link != MAC_ENTRY_NONE) {
            uint32_t index = *link;
            struct mac_entry *entry = &table->entry[index];

            if (!drop(context, entry)) {
                link = &entry->next;
                continue;
            }
            *link = entry->next;
            entry->next = table->free;
            table->free = index;
            table->used--;
        }
    }
}
