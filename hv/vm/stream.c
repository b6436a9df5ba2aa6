/* SPDX-License-Identifier: MIT */
/*
 * The state stream's writer and reader. docs/state-stream.md is the specification of the bytes.
 *
 * The writer runs each section's body twice, so that the length stands before the payload without a buffer for it: the
 * first pass only counts, and the second one must come to the same count, or the stream ends with an error. The reader
 * checks a section's length against the bytes that there are, then its checksum, and only then lets anybody read it;
 * so a body that is handed out is what was written, and what remains for its owner is to check values.
 */
#include "vm/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/bytes.h"
#include "kernel/crc32c.h"

#define HEADER_BYTES 20u
#define SECTION_HEADER_BYTES 24u /* tag, instance, version, flags, payload bytes */
#define CRC_BYTES 4u
#define END_PAYLOAD_BYTES 12u

static const char magic[8] = "TSKSTATE";
static const char end_tag[STREAM_TAG_BYTES] = "END";

/* ---- Writer ---- */

/* To the sink, without the section's account; `total` says if the bytes count for the end section's checksum. */
static void emit(struct stream_writer *w, const void *bytes, size_t count, bool total)
{
    if (w->error || !count)
        return;
    if (total)
        w->total_crc = crc32c(w->total_crc, bytes, count);
    w->error = w->sink(w->context, bytes, count);
}

void stream_writer_init(struct stream_writer *w, stream_sink_fn sink, void *context)
{
    memset(w, 0, sizeof(*w));
    w->sink = sink;
    w->context = context;
    uint8_t header[HEADER_BYTES];
    memcpy(header, magic, sizeof(magic));
    le_put(header + 8, STREAM_FORMAT_VERSION, 4);
    le_put(header + 12, 0, 4);
    le_put(header + 16, crc32c(0, header, 16), 4);
    emit(w, header, sizeof(header), true);
}

static void section_header(uint8_t header[SECTION_HEADER_BYTES], const char tag[STREAM_TAG_BYTES], uint32_t instance,
                           uint16_t version, uint16_t flags, uint64_t payload_bytes)
{
    memcpy(header, tag, STREAM_TAG_BYTES);
    le_put(header + 8, instance, 4);
    le_put(header + 12, version, 2);
    le_put(header + 14, flags, 2);
    le_put(header + 16, payload_bytes, 8);
}

/* 1 to 8 printable ASCII characters other than space, zero padded. */
static bool tag_ok(const char tag[STREAM_TAG_BYTES])
{
    unsigned i = 0;
    while (i < STREAM_TAG_BYTES && tag[i] > 0x20 && tag[i] < 0x7f)
        i++;
    if (!i)
        return false;
    while (i < STREAM_TAG_BYTES)
        if (tag[i++])
            return false;
    return true;
}

void stream_section(struct stream_writer *w, const char *tag, uint32_t instance, uint16_t version, uint16_t flags,
                    void (*body)(struct stream_writer *w, void *arg), void *arg)
{
    if (w->error)
        return;
    char padded[STREAM_TAG_BYTES] = { 0 };
    size_t length = strlen(tag);
    if (length <= STREAM_TAG_BYTES)
        memcpy(padded, tag, length);
    if (w->open || !tag_ok(padded) || !memcmp(padded, end_tag, sizeof(end_tag)) || (flags & ~STREAM_MANDATORY)) {
        w->error = ERR_INVALID;
        return;
    }

    w->open = true;
    w->measuring = true;
    w->measured = 0;
    if (body)
        body(w, arg);
    w->measuring = false;
    if (w->error)
        return;

    uint8_t header[SECTION_HEADER_BYTES];
    section_header(header, padded, instance, version, flags, w->measured);
    w->section_crc = crc32c(0, header, sizeof(header));
    w->section_left = w->measured;
    emit(w, header, sizeof(header), true);
    if (body)
        body(w, arg);
    if (!w->error && w->section_left)
        w->error = ERR_INVALID; /* the body wrote less than it had announced */
    uint8_t crc[CRC_BYTES];
    le_put(crc, w->section_crc, sizeof(crc));
    emit(w, crc, sizeof(crc), true);
    w->section_count++;
    w->open = false;
}

void stream_put_bytes(struct stream_writer *w, const void *bytes, size_t count)
{
    if (w->error)
        return;
    if (!w->open) {
        w->error = ERR_INVALID;
        return;
    }
    if (w->measuring) {
        w->measured += count;
        return;
    }
    if (count > w->section_left) {
        w->error = ERR_INVALID;
        return;
    }
    w->section_left -= count;
    w->section_crc = crc32c(w->section_crc, bytes, count);
    emit(w, bytes, count, true);
}

static void put_integer(struct stream_writer *w, uint64_t value, unsigned count)
{
    uint8_t bytes[8];
    le_put(bytes, value, count);
    stream_put_bytes(w, bytes, count);
}

void stream_put_u8(struct stream_writer *w, uint8_t value)
{
    put_integer(w, value, 1);
}

void stream_put_u16(struct stream_writer *w, uint16_t value)
{
    put_integer(w, value, 2);
}

void stream_put_u32(struct stream_writer *w, uint32_t value)
{
    put_integer(w, value, 4);
}

void stream_put_u64(struct stream_writer *w, uint64_t value)
{
    put_integer(w, value, 8);
}

enum status stream_finish(struct stream_writer *w)
{
    if (!w->error && w->open)
        w->error = ERR_INVALID;
    uint8_t end[SECTION_HEADER_BYTES + END_PAYLOAD_BYTES + CRC_BYTES];
    section_header(end, end_tag, 0, 1, STREAM_MANDATORY, END_PAYLOAD_BYTES);
    le_put(end + SECTION_HEADER_BYTES, w->section_count, 8);
    le_put(end + SECTION_HEADER_BYTES + 8, w->total_crc, 4);
    le_put(end + SECTION_HEADER_BYTES + END_PAYLOAD_BYTES,
           crc32c(0, end, SECTION_HEADER_BYTES + END_PAYLOAD_BYTES), CRC_BYTES);
    emit(w, end, sizeof(end), false);
    return w->error;
}

/* ---- Reader ---- */

/* The byte at `offset`, and in *count how many of the `want` from there on lie in one piece: at least 1. */
static const uint8_t *piece(const struct stream_reader *r, uint64_t offset, uint64_t want, uint64_t *count)
{
    uint64_t there = want;
    const uint8_t *p = r->bytes ? r->bytes + offset : r->source.at(r->source.context, offset, &there);
    *count = MIN(want, there);
    return p;
}

static uint32_t crc_of(const struct stream_reader *r, uint32_t crc, uint64_t offset, uint64_t count)
{
    for (uint64_t step; count; offset += step, count -= step) {
        const uint8_t *p = piece(r, offset, count, &step);
        crc = crc32c(crc, p, step);
    }
    return crc;
}

static void copy(const struct stream_reader *r, uint64_t offset, void *bytes, uint64_t count)
{
    uint8_t *to = bytes;
    for (uint64_t step; count; offset += step, to += step, count -= step) {
        const uint8_t *p = piece(r, offset, count, &step);
        memcpy(to, p, step);
    }
}

static uint64_t integer_at(const struct stream_reader *r, uint64_t offset, unsigned width)
{
    uint8_t bytes[8];
    copy(r, offset, bytes, width);
    return le_get(bytes, width);
}

void stream_fail(struct stream_reader *r, enum status error, const char *format, ...)
{
    if (r->error)
        return;
    r->error = error;
    int used = 0;
    if (r->tag[0])
        used = snprintf(r->error_text, sizeof(r->error_text), "section %s %u: ", r->tag, r->instance);
    va_list args;
    va_start(args, format);
    vsnprintf(r->error_text + used, sizeof(r->error_text) - (size_t)used, format, args);
    va_end(args);
}

/* What is looked at next; false: an error. */
static bool hold(struct stream_reader *r, uint64_t offset, uint64_t bytes)
{
    enum status status = !r->bytes && r->source.hold ? r->source.hold(r->source.context, offset, bytes) : OK;

    if (status != OK)
        stream_fail(r, status, "the stream could not be read at byte %llu", (unsigned long long)offset);
    return status == OK;
}

static enum status check_header(struct stream_reader *r)
{
    uint8_t header[HEADER_BYTES];
    if (r->count < HEADER_BYTES) {
        stream_fail(r, ERR_TRUNCATED, "header: the stream is cut after %llu bytes", (unsigned long long)r->count);
        return r->error;
    }
    if (!hold(r, 0, HEADER_BYTES))
        return r->error;
    copy(r, 0, header, sizeof(header));
    unsigned version = (unsigned)le_get(header + 8, 4), flags = (unsigned)le_get(header + 12, 4);
    if (memcmp(header, magic, sizeof(magic)))
        stream_fail(r, ERR_INVALID, "header: this is not a saved state (no TSKSTATE at its start)");
    else if (crc32c(0, header, 16) != le_get(header + 16, 4))
        stream_fail(r, ERR_CORRUPT, "header: its checksum is wrong");
    else if (version > STREAM_FORMAT_VERSION)
        stream_fail(r, ERR_VERSION, "header: format version %u, this node reads up to %u: update it", version,
                    STREAM_FORMAT_VERSION);
    else if (version == 0 || flags)
        stream_fail(r, ERR_VERSION, "header: version %u with flags 0x%x is unknown", version, flags);
    r->total_crc = crc32c(0, header, sizeof(header));
    r->position = r->section_end = HEADER_BYTES;
    return r->error;
}

enum status stream_reader_init(struct stream_reader *r, const void *bytes, uint64_t count)
{
    memset(r, 0, sizeof(*r));
    r->bytes = bytes;
    r->count = count;
    return check_header(r);
}

enum status stream_reader_init_source(struct stream_reader *r, const struct stream_source *source, uint64_t count)
{
    memset(r, 0, sizeof(*r));
    r->source = *source;
    r->count = count;
    return check_header(r);
}

/* The end section: the count of sections, the checksum of all before it, and nothing behind it. */
static void check_end(struct stream_reader *r)
{
    uint8_t payload[END_PAYLOAD_BYTES] = { 0 };
    if (r->section_end - r->position == END_PAYLOAD_BYTES)
        copy(r, r->position, payload, sizeof(payload));
    if (r->section_end - r->position != END_PAYLOAD_BYTES || r->version != 1)
        stream_fail(r, ERR_CORRUPT, "it is malformed");
    else if (le_get(payload, 8) != r->section_count)
        stream_fail(r, ERR_CORRUPT, "it counts %llu sections, there are %llu", (unsigned long long)le_get(payload, 8),
                    (unsigned long long)r->section_count);
    else if (le_get(payload + 8, 4) != r->total_crc)
        stream_fail(r, ERR_CORRUPT, "the checksum of the whole stream is wrong");
    else if (r->section_end + CRC_BYTES != r->count)
        stream_fail(r, ERR_CORRUPT, "%llu bytes follow it",
                    (unsigned long long)(r->count - r->section_end - CRC_BYTES));
    r->at_end = true;
}

bool stream_next(struct stream_reader *r)
{
    if (r->error || r->at_end)
        return false;
    /* Behind the current section lies its checksum; behind the header, nothing. */
    uint64_t start = r->section_end + (r->tag[0] ? CRC_BYTES : 0);
    uint64_t left = r->count - start;
    r->position = r->section_end = start;

    char previous[STREAM_TAG_BYTES + 1];
    memcpy(previous, r->tag, sizeof(previous));
    if (left < SECTION_HEADER_BYTES) {
        r->tag[0] = 0;
        stream_fail(r, ERR_TRUNCATED, "the stream is cut after %s%s: %s", previous[0] ? "section " : "its header",
                    previous, left ? "the next section's header is incomplete" : "no end section");
        return false;
    }
    uint8_t header[SECTION_HEADER_BYTES];
    if (!hold(r, start, SECTION_HEADER_BYTES))
        return false;
    copy(r, start, header, sizeof(header));
    if (!tag_ok((const char *)header)) {
        r->tag[0] = 0;
        stream_fail(r, ERR_CORRUPT, "the tag of the section after %s%s is damaged",
                    previous[0] ? "section " : "the header", previous);
        return false;
    }
    memcpy(r->tag, header, STREAM_TAG_BYTES);
    r->tag[STREAM_TAG_BYTES] = 0;
    r->instance = (uint32_t)le_get(header + 8, 4);
    r->version = (uint16_t)le_get(header + 12, 2);
    r->flags = (uint16_t)le_get(header + 14, 2);
    uint64_t payload = le_get(header + 16, 8);
    if (!range_within(SECTION_HEADER_BYTES, payload, left) || left - SECTION_HEADER_BYTES - payload < CRC_BYTES) {
        stream_fail(r, ERR_TRUNCATED, "the stream is cut or the length is damaged: it says %llu bytes, %llu are left",
                    (unsigned long long)payload, (unsigned long long)(left - SECTION_HEADER_BYTES));
        return false;
    }
    r->position = start + SECTION_HEADER_BYTES;
    r->section_end = r->position + payload;
    if (!hold(r, start, SECTION_HEADER_BYTES + payload + CRC_BYTES)) {
        r->position = r->section_end;
        return false;
    }
    if (crc_of(r, 0, start, SECTION_HEADER_BYTES + payload) != integer_at(r, r->section_end, CRC_BYTES)) {
        stream_fail(r, ERR_CORRUPT, "its checksum is wrong");
        r->position = r->section_end;
        return false;
    }
    if (!memcmp(r->tag, end_tag, sizeof(end_tag))) {
        check_end(r);
        r->position = r->section_end;
        return false;
    }
    r->total_crc = crc_of(r, r->total_crc, start, SECTION_HEADER_BYTES + payload + CRC_BYTES);
    r->section_count++;
    return true;
}

void stream_unknown(struct stream_reader *r)
{
    if (!r->error && r->tag[0] && (r->flags & STREAM_MANDATORY))
        stream_fail(r, ERR_VERSION, "this node does not know it and may not skip it: update the node");
}

enum status stream_verify(const void *bytes, uint64_t count, char *error_text, size_t error_text_bytes)
{
    struct stream_reader r;
    if (stream_reader_init(&r, bytes, count) == OK)
        while (stream_next(&r))
            ;
    if (error_text_bytes)
        snprintf(error_text, error_text_bytes, "%s", r.error_text);
    return r.error;
}

uint64_t stream_left(const struct stream_reader *r)
{
    return r->error ? 0 : r->section_end - r->position;
}

void stream_get_bytes(struct stream_reader *r, void *bytes, size_t count)
{
    if (!r->error && count > stream_left(r))
        stream_fail(r, ERR_TRUNCATED, "it ends before its last field");
    if (r->error) {
        memset(bytes, 0, count);
        return;
    }
    copy(r, r->position, bytes, count);
    r->position += count;
}

static uint64_t get_integer(struct stream_reader *r, unsigned count)
{
    uint8_t bytes[8];
    stream_get_bytes(r, bytes, count);
    return le_get(bytes, count);
}

uint8_t stream_get_u8(struct stream_reader *r)
{
    return (uint8_t)get_integer(r, 1);
}

uint16_t stream_get_u16(struct stream_reader *r)
{
    return (uint16_t)get_integer(r, 2);
}

uint32_t stream_get_u32(struct stream_reader *r)
{
    return (uint32_t)get_integer(r, 4);
}

uint64_t stream_get_u64(struct stream_reader *r)
{
    return get_integer(r, 8);
}
