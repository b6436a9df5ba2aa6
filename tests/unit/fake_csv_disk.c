/* SPDX-License-Identifier: MIT */
/* The disk of fake_csv_disk.h: pages over a base, and a record of writes that can be replayed in part. */
#include "fake_csv_disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SECTOR 512u

uint64_t fake_random(uint64_t *seed)
{
    *seed += 0x9e3779b97f4a7c15;
    uint64_t x = *seed;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

void fake_disk_peek(const struct fake_csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    uint8_t *to = bytes;
    while (count) {
        uint64_t skip = offset % PAGE, part = MIN(count, PAGE - skip);
        const struct fake_csv_disk *at = disk;
        while (at && !at->page[offset / PAGE])
            at = at->base;
        if (at)
            memcpy(to, at->page[offset / PAGE] + skip, part);
        else
            memset(to, 0, part);
        to += part;
        offset += part;
        count -= part;
    }
}

/*
 * Pages and tables of pages are used again: a crash test makes a hundred thousand disks of a few pages each, and most
 * of its time would go to the allocator.
 */
#define SPARE_PAGES 8192
#define SPARE_TABLES 8
static uint8_t *spare_page[SPARE_PAGES];
static size_t spare_pages;
static struct {
    uint8_t **page; /* all NULL */
    uint64_t count;
} spare_table[SPARE_TABLES];

static uint8_t *page_new(void)
{
    return spare_pages ? spare_page[--spare_pages] : malloc(PAGE);
}

static void page_free(uint8_t *page)
{
    if (page && spare_pages < SPARE_PAGES)
        spare_page[spare_pages++] = page;
    else
        free(page);
}

static uint8_t **table_new(uint64_t count)
{
    for (size_t i = 0; i < SPARE_TABLES; i++)
        if (spare_table[i].page && spare_table[i].count == count) {
            uint8_t **page = spare_table[i].page;
            spare_table[i].page = NULL;
            return page;
        }
    return calloc(count, sizeof(uint8_t *));
}

static void table_free(uint8_t **page, uint64_t count)
{
    for (size_t i = 0; i < SPARE_TABLES && count < 65536; i++)
        if (!spare_table[i].page) {
            spare_table[i].page = page;
            spare_table[i].count = count;
            return;
        }
    free(page);
}

static void touch(struct fake_csv_disk *d, uint64_t index)
{
    if (d->touched_count == d->touched_room) {
        d->touched_room = d->touched_room ? d->touched_room * 2 : 128;
        d->touched = realloc(d->touched, d->touched_room * sizeof(*d->touched));
    }
    d->touched[d->touched_count++] = (uint32_t)index;
}

void fake_disk_poke(struct fake_csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count)
{
    const uint8_t *from = bytes;
    while (count) {
        uint64_t skip = offset % PAGE, part = MIN(count, PAGE - skip);
        uint8_t **page = &disk->page[offset / PAGE];
        if (!*page) {
            uint8_t *made = page_new();
            if (part < PAGE)
                fake_disk_peek(disk, offset - skip, made, PAGE);
            *page = made;
            touch(disk, offset / PAGE);
        }
        if (from)
            memcpy(*page + skip, from, part);
        else
            memset(*page + skip, 0, part);
        from = from ? from + part : NULL;
        offset += part;
        count -= part;
    }
}

static bool fails(struct fake_csv_disk *d)
{
    if (d->fail_after < 0)
        return false;
    if (!d->fail_after)
        return true;
    d->fail_after--;
    return false;
}

static void note(struct fake_csv_disk *d, uint64_t offset, const void *bytes, uint64_t count, bool fua, bool flush)
{
    if (!d->recording)
        return;
    if (d->record_count == d->record_room) {
        d->record_room = d->record_room ? d->record_room * 2 : 64;
        d->record = realloc(d->record, d->record_room * sizeof(*d->record));
    }
    struct fake_write *w = &d->record[d->record_count++];
    *w = (struct fake_write){ .offset = offset, .count = count, .fua = fua, .flush = flush };
    if (count) {
        w->bytes = malloc(count);
        if (bytes)
            memcpy(w->bytes, bytes, count);
        else
            memset(w->bytes, 0, count);
    }
}

static void check_range(const struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    assert(range_within(offset, count, disk->bytes) && !(offset % disk->sector_bytes) && !(count % disk->sector_bytes));
}

static enum status disk_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    struct fake_csv_disk *d = disk->context;
    check_range(disk, offset, count);
    if (fails(d))
        return ERR_IO;
    d->reads++;
    fake_disk_peek(d, offset, bytes, count);
    return OK;
}

static enum status disk_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    struct fake_csv_disk *d = disk->context;
    check_range(disk, offset, count);
    note(d, offset, bytes, count, fua, false);
    if (fails(d))
        return ERR_IO;
    d->writes++;
    d->blocks_written += count / PAGE;
    fake_disk_poke(d, offset, bytes, count);
    return OK;
}

static enum status disk_flush(struct csv_disk *disk)
{
    struct fake_csv_disk *d = disk->context;
    if (fails(d))
        return ERR_IO;
    d->flushes++;
    note(d, 0, NULL, 0, false, true);
    return OK;
}

static enum status disk_write_zeroes(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    struct fake_csv_disk *d = disk->context;
    check_range(disk, offset, count);
    if (fails(d))
        return ERR_IO;
    note(d, offset, NULL, count, false, false);
    if (!d->base && !d->recording)
        for (uint64_t at = offset; at < offset + count && !(at % PAGE); at += PAGE) {
            page_free(d->page[at / PAGE]);
            d->page[at / PAGE] = NULL;
        }
    else
        fake_disk_poke(d, offset, NULL, count);
    return OK;
}

/* What is discarded reads as something else: whoever still needs it will notice. */
static enum status disk_discard(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    struct fake_csv_disk *d = disk->context;
    uint8_t junk[PAGE];
    check_range(disk, offset, count);
    memset(junk, 0xdd, sizeof(junk));
    for (uint64_t at = offset; at < offset + count; at += PAGE) {
        note(d, at, junk, PAGE, false, false);
        fake_disk_poke(d, at, junk, PAGE);
    }
    return OK;
}

struct fake_csv_disk *fake_disk_new(uint64_t bytes)
{
    struct fake_csv_disk *d = calloc(1, sizeof(*d));
    d->disk = (struct csv_disk){ .bytes = bytes, .sector_bytes = SECTOR, .context = d, .read = disk_read,
                                 .write = disk_write, .flush = disk_flush, .write_zeroes = disk_write_zeroes,
                                 .discard = disk_discard };
    d->page = table_new(bytes / PAGE + 1);
    d->fail_after = -1;
    return d;
}

struct fake_csv_disk *fake_disk_over(const struct fake_csv_disk *base)
{
    struct fake_csv_disk *d = fake_disk_new(base->disk.bytes);
    d->base = base;
    return d;
}

struct fake_csv_disk *fake_disk_copy(const struct fake_csv_disk *from)
{
    struct fake_csv_disk *d = fake_disk_new(from->disk.bytes);
    for (const struct fake_csv_disk *at = from; at; at = at->base)
        for (size_t i = 0; i < at->touched_count; i++) {
            uint32_t index = at->touched[i];
            if (at->page[index] && !d->page[index])
                fake_disk_poke(d, (uint64_t)index * PAGE, at->page[index], PAGE);
        }
    return d;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

uint64_t fake_disk_hash(const struct fake_csv_disk *d, bool (*counts)(const struct fake_csv_disk *disk, uint64_t page))
{
    uint64_t sum = 0;
    uint8_t before[PAGE];
    for (size_t i = 0; i < d->touched_count; i++) {
        uint64_t index = d->touched[i], hash = mix(index + 1), word;
        if (!d->page[index] || (counts && !counts(d, index)))
            continue;
        fake_disk_peek(d->base, index * PAGE, before, PAGE);
        if (!memcmp(before, d->page[index], PAGE))
            continue;
        for (unsigned at = 0; at < PAGE; at += 8) {
            memcpy(&word, d->page[index] + at, 8);
            hash = (hash ^ word) * 0x9e3779b97f4a7c15;
            hash ^= hash >> 29;
        }
        sum += mix(hash); /* in any order */
    }
    return sum;
}

void fake_disk_record(struct fake_csv_disk *d)
{
    for (size_t i = 0; i < d->record_count; i++)
        free(d->record[i].bytes);
    d->record_count = 0;
    d->recording = true;
}

void fake_disk_free(struct fake_csv_disk *d)
{
    for (size_t i = 0; i < d->touched_count; i++) {
        page_free(d->page[d->touched[i]]);
        d->page[d->touched[i]] = NULL;
    }
    for (size_t i = 0; i < d->record_count; i++)
        free(d->record[i].bytes);
    free(d->record);
    free(d->touched);
    table_free(d->page, d->disk.bytes / PAGE + 1);
    free(d);
}

/* What a write that may be lost has left. */
static void land(struct fake_csv_disk *d, const struct fake_write *w, enum fake_cut cut, uint64_t *seed)
{
    if (cut == FAKE_CUT_NONE || w->flush)
        return;
    if (cut == FAKE_CUT_CHOSEN) {
        if (*seed & 1)
            fake_disk_poke(d, w->offset, w->bytes, w->count);
        *seed >>= 1;
        return;
    }
    uint64_t choice = cut == FAKE_CUT_ALL ? 0 : fake_random(seed) % 4;
    if (choice == 1)
        return;
    if (choice < 3) {
        fake_disk_poke(d, w->offset, w->bytes, w->count);
        return;
    }
    for (uint64_t at = 0; at < w->count; at += SECTOR)
        if (fake_random(seed) % 2)
            fake_disk_poke(d, w->offset + at, w->bytes + at, SECTOR);
}

/* Before it all of the first `count` entries is durable. */
static size_t last_flush(const struct fake_csv_disk *recorded, size_t count)
{
    while (count && !recorded->record[count - 1].flush)
        count--;
    return count ? count - 1 : 0;
}

size_t fake_disk_loose(const struct fake_csv_disk *recorded, size_t count)
{
    size_t loose = count < recorded->record_count && !recorded->record[count].flush;
    for (size_t i = last_flush(recorded, count); i < count; i++)
        loose += !recorded->record[i].flush && !recorded->record[i].fua;
    return loose;
}

struct fake_csv_disk *fake_disk_cut(const struct fake_csv_disk *start, const struct fake_csv_disk *recorded,
                                    size_t count, enum fake_cut cut, uint64_t *seed)
{
    struct fake_csv_disk *d = fake_disk_over(start);
    size_t flushed = last_flush(recorded, count);
    for (size_t i = 0; i < count; i++) {
        const struct fake_write *w = &recorded->record[i];
        if (w->flush)
            continue;
        if (i < flushed || w->fua)
            fake_disk_poke(d, w->offset, w->bytes, w->count);
        else
            land(d, w, cut, seed);
    }
    if (count < recorded->record_count && (cut == FAKE_CUT_RANDOM || cut == FAKE_CUT_CHOSEN))
        land(d, &recorded->record[count], cut, seed);
    return d;
}

/* ---- Memory ---- */

/* The one large block that each mount takes is kept for the next one; what lies beyond it is watched all the same. */
#define LARGE (128 * 1024u)
static void *large;
static size_t large_bytes;

static void *large_new(size_t bytes)
{
    void *ptr = large && large_bytes == bytes ? large : malloc(bytes);
    if (ptr == large)
        large = NULL;
    else
        memset(ptr, 0xa5, bytes);
    return ptr;
}

static void large_free(void *ptr, size_t bytes)
{
    free(large);
    large = ptr;
    large_bytes = bytes;
}

static void *memory_alloc(void *context, size_t bytes)
{
    struct fake_memory *m = context;
    m->allocations++;
    if (m->fail_after >= 0 && m->fail_after-- == 0) {
        m->fail_after = 0;
        return NULL;
    }
    m->used += bytes;
    m->peak = MAX(m->peak, m->used);
    if (bytes >= LARGE)
        return large_new(bytes);
    void *ptr = malloc(bytes);
    memset(ptr, 0xa5, bytes);
    return ptr;
}

static void memory_free(void *context, void *ptr, size_t bytes)
{
    struct fake_memory *m = context;
    assert(m->used >= bytes);
    m->used -= bytes;
    if (bytes >= LARGE)
        large_free(ptr, bytes);
    else
        free(ptr);
}

void fake_memory_init(struct fake_memory *m)
{
    *m = (struct fake_memory){ .memory = { m, memory_alloc, memory_free }, .fail_after = -1 };
}
