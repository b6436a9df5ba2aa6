/* SPDX-License-Identifier: MIT */
/*
 * The one kind of B+tree of the volume: 64-bit keys, values of 1 to 264 bytes, the root node inside of another block.
 * Section 8 of docs/csv-format.md is its form on disk.
 *
 * All calls that change a tree are made within an operation (volume.h), and leave it half changed when they fail:
 * csv_end() puts it right. The block that holds the root belongs to the caller and must be in memory throughout.
 */
#ifndef CSV_TREE_H
#define CSV_TREE_H

#include "csv/volume.h"

#define CSV_VALUE_BYTES (CSV_ENTRY_FIXED_BYTES + CSV_NAME_BYTES)

/* ---- One node: node.c. `area` is `bytes` long; all but the first rely on csv_node_fault() having given NULL. ---- */

static inline unsigned csv_node_level(const uint8_t *area) { return le16_get(area + CSV_N_LEVEL); }
static inline unsigned csv_node_count(const uint8_t *area) { return le16_get(area + CSV_N_COUNT); }

/* What is wrong with a node of a tree of this type, or NULL. */
const char *csv_node_fault(const uint8_t *area, unsigned bytes, uint32_t type);
/* An area of zeros is not yet a node. */
void csv_node_init(uint8_t *area, unsigned bytes, unsigned level);
uint64_t csv_node_key(const uint8_t *area, unsigned index);
void csv_node_set_key(uint8_t *area, unsigned index, uint64_t key);
uint8_t *csv_node_value(uint8_t *area, unsigned index, unsigned *bytes);
/* The first record with a key of at least `key`; the count if there is none. */
unsigned csv_node_find(const uint8_t *area, uint64_t key);
/* Bytes of records, and bytes that are left for more; a record takes its value and CSV_N_SLOT_BYTES. */
unsigned csv_node_used(const uint8_t *area, unsigned bytes);
unsigned csv_node_room(const uint8_t *area);
/* There must be room. */
void csv_node_insert(uint8_t *area, unsigned index, uint64_t key, const void *value, unsigned value_bytes);
void csv_node_remove(uint8_t *area, unsigned index);
/* Moves the records from `index` on to the end of another node. */
void csv_node_move(uint8_t *from, unsigned index, uint8_t *to);

/* ---- Trees: tree.c ---- */

struct csv_tree {
    struct csv *v;
    struct csv_block *root;
    unsigned offset, bytes; /* of the root node in its block */
    uint32_t type;
    uint64_t owner;
};

struct csv_record {
    uint64_t key;
    unsigned bytes;
    uint8_t value[CSV_VALUE_BYTES];
};

/* The tree of an inode: extents of a file, entries of a directory. */
struct csv_tree csv_inode_tree(struct csv *v, struct csv_block *inode);
struct csv_tree csv_counts_tree(struct csv *v, struct csv_block *root);
struct csv_tree csv_orphans_tree(struct csv *v, struct csv_block *root);

/* The first record with a key of at least `key`; the last one with a key of at most `key`. ERR_NOT_FOUND: none. */
enum status csv_tree_from(struct csv_tree *tree, uint64_t key, struct csv_record *record) MUST_CHECK;
enum status csv_tree_upto(struct csv_tree *tree, uint64_t key, struct csv_record *record) MUST_CHECK;

enum status csv_tree_insert(struct csv_tree *tree, uint64_t key, const void *value, unsigned bytes) MUST_CHECK;
enum status csv_tree_remove(struct csv_tree *tree, uint64_t key) MUST_CHECK;
/* A new value of the same length. */
enum status csv_tree_replace(struct csv_tree *tree, uint64_t key, const void *value, unsigned bytes) MUST_CHECK;

#endif
