/* SPDX-License-Identifier: MIT */
/*
 * A saved stream in memory. See saved.h. A chunk is found by two look-ups, so a reader may go anywhere at once, and the
 * tables take 8 bytes for each 2 MiB.
 */
#include "vm/saved.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"

#define CHUNK_BYTES LARGE_PAGE_BYTES
#define TABLE_CHUNKS (PAGE_BYTES / sizeof(hpa_t))

struct saved *saved_create(const char *vm_name)
{
    struct saved *saved = kzalloc(sizeof *saved);
    char name[32];

    snprintf(name, sizeof name, "saved %s", vm_name);
    if (saved && !page_owner_create(name, &saved->owner)) {
        kfree(saved, sizeof *saved);
        saved = NULL;
    }
    return saved;
}

static hpa_t *chunk_slot(struct saved *saved, uint64_t chunk)
{
    return &saved->table[chunk / TABLE_CHUNKS][chunk % TABLE_CHUNKS];
}

void saved_destroy(struct saved *saved)
{
    if (!saved)
        return;
    if (saved->end)
        saved->end(saved->source.context);
    for (uint64_t i = 0; i < saved->chunk_count; i++)
        if (chunk_slot(saved, i)->v)
            page_free(*chunk_slot(saved, i), CHUNK_BYTES, saved->owner);
    for (unsigned i = 0; i < SAVED_TABLES && saved->table[i]; i++)
        page_free(virt_to_phys(saved->table[i]), PAGE_BYTES, saved->owner);
    page_owner_destroy(saved->owner);
    kfree(saved, sizeof *saved);
}

static bool add_chunk(struct saved *saved)
{
    uint64_t chunk = saved->chunk_count;
    struct page_totals totals;
    hpa_t page;

    page_totals_get(&totals);
    if (chunk / TABLE_CHUNKS == SAVED_TABLES || totals.free_bytes < SAVED_LEFT_FREE + CHUNK_BYTES)
        return false;
    if (!saved->table[chunk / TABLE_CHUNKS]) {
        if (!page_alloc(PAGE_BYTES, saved->owner, PAGE_ZERO, &page))
            return false;
        saved->table[chunk / TABLE_CHUNKS] = phys_to_virt(page);
    }
    if (!page_alloc(CHUNK_BYTES, saved->owner, 0, chunk_slot(saved, chunk)))
        return false;
    saved->chunk_count++;
    return true;
}

enum status saved_sink(void *context, const void *bytes, size_t count)
{
    struct saved *saved = context;
    const uint8_t *from = bytes;

    while (count) {
        uint64_t at = saved->bytes % CHUNK_BYTES, step = MIN(count, CHUNK_BYTES - at);
        if (saved->bytes == saved->chunk_count * CHUNK_BYTES && !add_chunk(saved))
            return ERR_NO_MEMORY;
        memcpy((uint8_t *)phys_to_virt(*chunk_slot(saved, saved->bytes / CHUNK_BYTES)) + at, from, step);
        saved->bytes += step;
        from += step;
        count -= step;
    }
    if (saved->out.spill && saved->may_wait && saved->bytes - saved->spilled >= CHUNK_BYTES)
        return saved->out.spill(saved->out.context, saved);
    return OK;
}

void saved_forget(struct saved *saved, uint64_t offset)
{
    for (uint64_t i = saved->spilled / CHUNK_BYTES; i < offset / CHUNK_BYTES; i++) {
        page_free(*chunk_slot(saved, i), CHUNK_BYTES, saved->owner);
        chunk_slot(saved, i)->v = 0;
    }
    saved->spilled = offset;
}

const uint8_t *saved_at(struct saved *saved, uint64_t offset, uint64_t *count)
{
    uint64_t at = offset % CHUNK_BYTES;

    *count = MIN(CHUNK_BYTES - at, saved->bytes - offset);
    return (const uint8_t *)phys_to_virt(*chunk_slot(saved, offset / CHUNK_BYTES)) + at;
}

static const uint8_t *byte_at(void *context, uint64_t offset, uint64_t *count)
{
    return saved_at(context, offset, count);
}

enum status saved_reader(struct saved *saved, struct stream_reader *r)
{
    struct stream_source source = { byte_at, saved, NULL };

    if (saved->source.at)
        return stream_reader_init_source(r, &saved->source, saved->bytes);
    return stream_reader_init_source(r, &source, saved->bytes);
}
