/* SPDX-License-Identifier: MIT */
/*
 * Where a saved VM's stream lies: chunks of 2 MiB of the node's memory, accounted to an owner of its own ("saved NAME"),
 * added as the stream grows. Written once from front to back, then only read. Or it goes through that memory to somewhere else
 * and comes back from there: then only what is under way is here. The VM's thread.
 */
#ifndef VM_SAVED_H
#define VM_SAVED_H

#include "kernel/page.h"
#include "kernel/status.h"
#include "vm/stream.h"

#define SAVED_TABLES 1024u                /* of 512 chunks: 1 TiB */
#define SAVED_LEFT_FREE (16 * MIB)        /* what a growing stream leaves to the rest of the node */

struct saved;

/*
 * Where a stream goes on to. spill() takes the bytes from saved->spilled on, all or some of them, and tells by saved_forget(). It
 * is called only while saved->may_wait.
 */
struct saved_spill {
    enum status (*spill)(void *context, struct saved *saved);
    void *context;
};

struct saved {
    page_owner_t owner;
    struct saved_spill out;   /* .spill NULL: it stays */
    bool may_wait;
    uint64_t spilled;         /* of the first bytes */
    struct stream_source source; /* .at NULL: it is here */
    void (*end)(void *context);  /* of the source; saved_destroy() calls it */
    uint64_t bytes;           /* of the stream */
    uint64_t chunk_count;
    hpa_t *table[SAVED_TABLES]; /* a page of 512 chunks each */
};

/* NULL: no memory, or the node accounts for too many. */
struct saved *saved_create(const char *vm_name) MUST_CHECK;
/* Gives everything back; NULL: nothing. */
void saved_destroy(struct saved *saved);
/* A stream_sink_fn; the context is the struct saved. ERR_NO_MEMORY: the node would have less than SAVED_LEFT_FREE. */
enum status saved_sink(void *saved, const void *bytes, size_t count) MUST_CHECK;
/* The bytes before `offset` are somewhere else. */
void saved_forget(struct saved *saved, uint64_t offset);
/* The byte at `offset` (below its length), and how many follow it there. */
const uint8_t *saved_at(struct saved *saved, uint64_t offset, uint64_t *count);
/* A reader over all of it; as stream_reader_init. */
enum status saved_reader(struct saved *saved, struct stream_reader *r) MUST_CHECK;

#endif
