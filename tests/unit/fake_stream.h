/* SPDX-License-Identifier: MIT */
/*
 * One section into a buffer and back, for the tests of everything that saves itself. Sections are written with a
 * version of 1 and the tag "TEST"; a test may change payload bytes with fake_stream_patch, which puts the checksums
 * right.
 */
#ifndef TESTS_FAKE_STREAM_H
#define TESTS_FAKE_STREAM_H

#include <stdlib.h>
#include <string.h>

#include "kernel/bytes.h"
#include "kernel/crc32c.h"
#include "vm/stream.h"

#define FAKE_STREAM_BYTES 16384u
#define FAKE_STREAM_PAYLOAD 44u /* offset of the payload */

struct fake_stream {
    uint8_t bytes[FAKE_STREAM_BYTES];
    size_t count;
    struct stream_reader reader;
};

static enum status fake_stream_sink(void *context, const void *bytes, size_t count)
{
    struct fake_stream *f = context;
    if (count > sizeof(f->bytes) - f->count)
        return ERR_NO_MEMORY;
    memcpy(f->bytes + f->count, bytes, count);
    f->count += count;
    return OK;
}

static inline void fake_stream_write(struct fake_stream *f, uint16_t version,
                                     void (*body)(struct stream_writer *, void *), void *arg)
{
    struct stream_writer w;
    f->count = 0;
    stream_writer_init(&w, fake_stream_sink, f);
    stream_section(&w, "TEST", 0, version, STREAM_MANDATORY, body, arg);
    if (stream_finish(&w))
        abort();
}

/* A reader in the section. */
static inline struct stream_reader *fake_stream_read(struct fake_stream *f)
{
    if (stream_reader_init(&f->reader, f->bytes, f->count) || !stream_next(&f->reader))
        abort();
    return &f->reader;
}

static inline size_t fake_stream_payload(const struct fake_stream *f)
{
    return le64_get(f->bytes + 36);
}

static inline void fake_stream_fix(struct fake_stream *f)
{
    size_t end = FAKE_STREAM_PAYLOAD + fake_stream_payload(f);
    le32_put(f->bytes + end, crc32c(0, f->bytes + 20, end - 20));
}

static inline void fake_stream_patch(struct fake_stream *f, size_t offset, uint64_t value, unsigned width)
{
    le_put(f->bytes + FAKE_STREAM_PAYLOAD + offset, value, width);
    fake_stream_fix(f);
}

/* The section with its payload cut to `count` bytes. */
static inline void fake_stream_cut(struct fake_stream *f, size_t count)
{
    le64_put(f->bytes + 36, count);
    fake_stream_fix(f);
    f->count = FAKE_STREAM_PAYLOAD + count + 4;
}

#endif
