/* SPDX-License-Identifier: MIT */
/*
 * A disk of the worst legal kind: what was not flushed may be there or not, in any combination, and a write that was
 * under way may have reached any of its 512-byte sectors. It records what is written; each moment of the record can be
 * made into the disk that a power cut at that moment could have left.
 *
 * Also memory that counts what is in use, and fails at a chosen allocation.
 */
#ifndef FAKE_CSV_DISK_H
#define FAKE_CSV_DISK_H

#include "csv/disk.h"

struct fake_write {
    uint64_t offset, count;
    uint8_t *bytes;
    bool fua, flush; /* a flush has no bytes */
};

struct fake_csv_disk {
    struct csv_disk disk;
    const struct fake_csv_disk *base; /* what is not in `page` is there; NULL: zeros */
    uint8_t **page;                   /* of 4096 bytes */
    uint32_t *touched;                /* pages that may be there */
    size_t touched_count, touched_room;
    bool recording;
    struct fake_write *record;
    size_t record_count, record_room;
    uint64_t reads, writes, flushes, blocks_written;
    long fail_after; /* accesses that still work; < 0: all */
};

/* Zeros, or a copy-on-write view of another disk, which must stay unchanged meanwhile. */
struct fake_csv_disk *fake_disk_new(uint64_t bytes);
struct fake_csv_disk *fake_disk_over(const struct fake_csv_disk *base);
struct fake_csv_disk *fake_disk_copy(const struct fake_csv_disk *from);
void fake_disk_free(struct fake_csv_disk *disk);
/* Begins a new record. */
void fake_disk_record(struct fake_csv_disk *disk);

void fake_disk_peek(const struct fake_csv_disk *disk, uint64_t offset, void *bytes, uint64_t count);
void fake_disk_poke(struct fake_csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count);

enum fake_cut {
    FAKE_CUT_ALL,    /* all that was answered is there */
    FAKE_CUT_NONE,   /* only what had to be */
    FAKE_CUT_RANDOM, /* a subset, some of it torn */
    FAKE_CUT_CHOSEN, /* the first of what may be lost is there if bit 0 of *seed is 1, and so on; nothing is torn */
};
/*
 * What a cut leaves when the first `count` entries of the record were answered and the next one was under way. `start`
 * is the disk as it was when the record began. `*seed` goes on.
 */
struct fake_csv_disk *fake_disk_cut(const struct fake_csv_disk *start, const struct fake_csv_disk *recorded,
                                    size_t count, enum fake_cut cut, uint64_t *seed);

/* How many writes of those may be lost, the one under way among them. */
size_t fake_disk_loose(const struct fake_csv_disk *recorded, size_t count);

/*
 * A hash of where a disk over another one differs from it. `counts`: whether a page does (NULL: all do).
 */
uint64_t fake_disk_hash(const struct fake_csv_disk *disk,
                        bool (*counts)(const struct fake_csv_disk *disk, uint64_t page));

uint64_t fake_random(uint64_t *seed);

struct fake_memory {
    struct csv_memory memory;
    size_t used, peak, allocations;
    long fail_after; /* allocations that still work; < 0: all */
};
void fake_memory_init(struct fake_memory *memory);

#endif
