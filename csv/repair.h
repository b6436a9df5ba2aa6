/* SPDX-License-Identifier: MIT */
/*
 * What the files of the repair share. repair.c has the order of things and what is neither file nor directory,
 * repair_walk.c reads trees of which parts may be missing and finds out what there is, repair_tree.c decides what stays
 * of a file or directory, and writes a tree anew.
 */
#ifndef CSV_REPAIR_H
#define CSV_REPAIR_H

#include "csv/tree.h"

/* Records one behind the other: key (8 bytes), length (2), value. */
struct csv_list {
    uint8_t *bytes;
    size_t used, room, count;
};

/* An inode that is kept. */
struct csv_found {
    uint64_t inode;
    uint64_t parent; /* the directory that has it; CSV_NO_PARENT: it goes to lost+found */
    uint64_t key;    /* of its entry there */
    uint64_t type;
};
#define CSV_NO_PARENT UINT64_MAX

/* A place where the number of references of data changes. */
struct csv_turn {
    uint64_t block;
    int64_t references;
};

struct csv_fixer {
    struct csv *v;
    struct csv_repair *repair;
    struct csv_found *found; /* sorted by inode when csv_fix_lookup() is used */
    size_t found_count, found_room;
    size_t walked;           /* of them, directories whose entries were looked at */
    struct csv_turn *turn;
    size_t turn_count, turn_room;
    uint8_t *seen;           /* bits: inodes that are in `found` */
    uint8_t *meta, *data;    /* bits: blocks in use as fixed places, inodes and nodes; by extents */
    bool names_lost;         /* a part of a directory is gone: what it named may be found by its inode */
    bool had_orphans;        /* their blocks become free without a word */
    bool new_journal;
};

static inline bool csv_bit(const uint8_t *map, uint64_t bit) { return map[bit / 8] >> bit % 8 & 1; }
static inline void csv_bit_set(uint8_t *map, uint64_t bit) { map[bit / 8] |= (uint8_t)(1u << bit % 8); }

/* Tells what is mended, and counts it. */
void csv_fix_say(struct csv_fixer *f, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- repair_walk.c ---- */

enum status csv_list_add(struct csv *v, struct csv_list *list, uint64_t key, const void *value, unsigned bytes)
    MUST_CHECK;
/* The record at *at (0: the first), and moves *at behind it; false: no more. */
bool csv_list_next(const struct csv_list *list, size_t *at, struct csv_record *record);
void csv_list_free(struct csv *v, struct csv_list *list);

/*
 * All records of a tree that can be had, in ascending order; *damaged if there were more. The blocks of its nodes are
 * marked in `nodes` (NULL: not).
 */
enum status csv_fix_collect(struct csv_fixer *f, struct csv_tree *tree, struct csv_list *list, uint8_t *nodes,
                            bool *damaged) MUST_CHECK;
/* Enters an inode that may be kept, and if it is a directory all that it has. */
enum status csv_fix_enter(struct csv_fixer *f, uint64_t inode, uint64_t parent, uint64_t key) MUST_CHECK;
enum status csv_fix_walk(struct csv_fixer *f) MUST_CHECK;
/* Marks all blocks of what was found, and enters the turns of its extents, sorted. */
enum status csv_fix_claim(struct csv_fixer *f) MUST_CHECK;
/* Looks for inodes that nothing names any more. */
enum status csv_fix_scan(struct csv_fixer *f) MUST_CHECK;
const struct csv_found *csv_fix_lookup(const struct csv_fixer *f, uint64_t inode);

/* ---- repair_tree.c ---- */

/* Each inode that was found gets what is good of it. */
enum status csv_fix_inodes(struct csv_fixer *f) MUST_CHECK;
/* The reference counts become what the extents say. */
enum status csv_fix_counts(struct csv_fixer *f) MUST_CHECK;
enum status csv_fix_lost_and_found(struct csv_fixer *f) MUST_CHECK;

#endif
