/* SPDX-License-Identifier: MIT */
/* What the two files of the checker share: check.c walks what there is, check_space.c compares it with the bitmaps. */
#ifndef CSV_CHECK_H
#define CSV_CHECK_H

#include "csv/tree.h"

/* A place where the number of references changes, as the extents say. */
struct csv_edge {
    uint64_t block;
    int32_t references; /* + 1 at the beginning of an extent, - 1 at its end */
    int32_t exclusive;  /* the same, for extents that are not marked as shared */
};

struct csv_place {
    uint64_t inode, parent;
};

struct csv_checker {
    struct csv *v;
    struct csv_check *check;
    uint8_t *used; /* a bit for each block: it has its use */
    struct csv_edge *edge;
    size_t edge_count, edge_room;
    struct csv_place *directory; /* found, not yet read */
    size_t directory_count, directory_room;
    uint64_t inodes, counted_blocks, orphan_records;
    uint64_t generation; /* the next one that the volume gives out */
    struct csv_record previous; /* of the directory that is walked */
    /* Of the tree that is walked. */
    uint64_t owner, blocks, entries, last_end, size_blocks;
};

void csv_check_say(struct csv_checker *c, const char *format, ...) PRINTF_LIKE(2, 3);
/* Reports ERR_CORRUPT, which is OK then; other errors end the check. */
enum status csv_check_pass(struct csv_checker *c, enum status status) MUST_CHECK;
/* Gives a block its use; says so if it has one already. False then. */
bool csv_check_use(struct csv_checker *c, uint64_t number, const char *what);
/* An array with room for one more element. */
enum status csv_check_room(struct csv *v, void **array, size_t count, size_t *room, size_t bytes) MUST_CHECK;

/* Goes through all records of a tree in order. */
enum status csv_check_tree(struct csv_checker *c, struct csv_tree *tree,
                           enum status (*each)(struct csv_checker *c, const struct csv_record *record)) MUST_CHECK;

/* Extents against counts, all uses against bitmaps, counters. */
enum status csv_check_space(struct csv_checker *c) MUST_CHECK;

#endif
