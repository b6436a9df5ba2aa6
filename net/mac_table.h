/* SPDX-License-Identifier: MIT */
/*
 * Which addresses are behind which port: a hash table with chains, in memory that is handed in. It knows nothing of
 * what a port is, and decides nothing: who may be in it, and who has to make room, is the switch's business. Pure; one
 * context.
 *
 * A key is a VLAN and an address. Several entries may have the same key (an address that two ports lay claim to); the
 * caller looks at all of them. `seed` should be random: it keeps a stranger from choosing addresses that all meet in
 * one chain.
 */
#ifndef NET_MAC_TABLE_H
#define NET_MAC_TABLE_H

#include "kernel/types.h"

#define MAC_ENTRY_NONE UINT32_MAX

struct mac_entry {
    uint64_t key;
    uint64_t seen_ns;
    void *port;
    uint32_t next;  /* in the chain, or in the list of free ones */
};

struct mac_table {
    struct mac_entry *entry;
    uint32_t *bucket;      /* heads of chains */
    uint32_t capacity, bucket_count; /* entries; a power of two */
    uint32_t used, free;
    uint64_t seed;
};

static inline uint64_t mac_key(uint16_t vlan, uint64_t address)
{
    return (uint64_t)vlan << 48 | address;
}

void mac_table_init(struct mac_table *table, struct mac_entry *entries, uint32_t capacity, uint32_t *buckets,
                    uint32_t bucket_count, uint64_t seed);
/* The first, and the next, entry with that key, or NULL. */
struct mac_entry *mac_table_find(struct mac_table *table, uint64_t key);
struct mac_entry *mac_table_find_next(struct mac_table *table, const struct mac_entry *entry);
/* A new entry, or NULL where the table is full. */
struct mac_entry *mac_table_add(struct mac_table *table, uint64_t key, void *port, uint64_t now_ns);
/* Removes all entries for which `drop` says so. */
void mac_table_sweep(struct mac_table *table, bool (*drop)(void *context, const struct mac_entry *entry),
                     void *context);

#endif
