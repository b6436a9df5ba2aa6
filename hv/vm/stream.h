/* SPDX-License-Identifier: MIT */
/*
 * The state stream: how a VM's state is written down, for save, restore and later every kind of move. Pure core.
 *
 * A stream is a header, sections, and an end section. Integers are little-endian. docs/state-stream.md has the bytes.
 *
 *   header:  magic "TSKSTATE" | u32 format version | u32 flags (0) | u32 CRC-32C of the 16 bytes before
 *   section: u8 tag[8] (ASCII, zero padded) | u32 instance | u16 version | u16 flags (bit 0: mandatory)
 *            | u64 payload bytes | payload | u32 CRC-32C of all of the section before it
 *   end:     a section "END" whose payload is the count of sections before it (u64) and the CRC-32C of the whole
 *            stream before the end section (u32)
 *
 * A writer appends to a sink; a reader gets the whole stream or a source, checks each section before it hands out a
 * byte of it, and never reads outside. Both have a sticky error: after the first failure every call does nothing and
 * the error is asked for once at the end, so device code has no error handling of its own.
 */
#ifndef VM_STREAM_H
#define VM_STREAM_H

#include "kernel/status.h"
#include "kernel/types.h"

#define STREAM_FORMAT_VERSION 1
#define STREAM_MANDATORY 1u /* section flag: a reader that does not know the tag must refuse */
#define STREAM_TAG_BYTES 8

/* Where written bytes go. Returns ERR_NO_MEMORY or ERR_IO to stop the writer. */
typedef enum status (*stream_sink_fn)(void *context, const void *bytes, size_t count);

struct stream_writer {
    stream_sink_fn sink;
    void *context;
    enum status error; /* first failure, sticky */
    uint64_t section_count;
    uint32_t total_crc;
    uint32_t section_crc;
    uint64_t section_left; /* payload bytes still owed to the open section */
    bool open;
    bool measuring; /* first pass over a section: count only */
    uint64_t measured;
};

void stream_writer_init(struct stream_writer *w, stream_sink_fn sink, void *context);

/*
 * Writes one section. `body` is called twice with the same argument: once to measure, once to write, and must write
 * the same bytes both times (so nobody has to know a payload's size beforehand).
 */
void stream_section(struct stream_writer *w, const char *tag, uint32_t instance, uint16_t version, uint16_t flags,
                    void (*body)(struct stream_writer *w, void *arg), void *arg);
void stream_put_u8(struct stream_writer *w, uint8_t value);
void stream_put_u16(struct stream_writer *w, uint16_t value);
void stream_put_u32(struct stream_writer *w, uint32_t value);
void stream_put_u64(struct stream_writer *w, uint64_t value);
void stream_put_bytes(struct stream_writer *w, const void *bytes, size_t count);
/* Writes the end section; returns the sticky error. */
enum status stream_finish(struct stream_writer *w) MUST_CHECK;

/*
 * A stream that is not in one piece: where its byte at `offset` (below its length) is, and how many follow it there. `hold`, if it
 * is not NULL, is called before any byte of a range is asked for, and what was held before is not asked for again: it may fetch
 * the range from where it takes time. Only stream_reader_init_source() and stream_next() call it. Not OK: the reader's error.
 */
struct stream_source {
    const uint8_t *(*at)(void *context, uint64_t offset, uint64_t *count);
    void *context;
    enum status (*hold)(void *context, uint64_t offset, uint64_t bytes);
};

struct stream_reader {
    const uint8_t *bytes; /* the whole stream, owned by the caller; NULL: it comes from `source` */
    struct stream_source source;
    uint64_t count;
    uint32_t total_crc;     /* of all before the section that stream_next looks at next */
    uint64_t position;      /* of the next unread byte of the stream */
    uint64_t section_end;   /* payload end of the current section */
    uint64_t section_count;
    enum status error;      /* first failure, sticky */
    char error_text[160];   /* names the section and what is wrong with it */
    char tag[STREAM_TAG_BYTES + 1];
    uint32_t instance;
    uint16_t version;
    uint16_t flags;
    bool at_end;
};

/* Checks the header. */
enum status stream_reader_init(struct stream_reader *r, const void *bytes, uint64_t count) MUST_CHECK;
/* The same for a stream in pieces; *source is copied, and what it gives out must stay while the reader is used. */
enum status stream_reader_init_source(struct stream_reader *r, const struct stream_source *source,
                                      uint64_t count) MUST_CHECK;
/* Walks and checks every section's checksum, order and the end section, without handing anything out. */
enum status stream_verify(const void *bytes, uint64_t count, char *error_text, size_t error_text_bytes) MUST_CHECK;
/* Goes to the next section (rest of the current one is skipped); false at the end or after an error. */
bool stream_next(struct stream_reader *r);
uint8_t stream_get_u8(struct stream_reader *r);
uint16_t stream_get_u16(struct stream_reader *r);
uint32_t stream_get_u32(struct stream_reader *r);
uint64_t stream_get_u64(struct stream_reader *r);
void stream_get_bytes(struct stream_reader *r, void *bytes, size_t count);
uint64_t stream_left(const struct stream_reader *r); /* payload bytes left in the section */
/*
 * For a section whose tag the caller does not know: fails with its name if it is mandatory, else nothing (stream_next
 * skips it). Every loop over sections ends with this.
 */
void stream_unknown(struct stream_reader *r);
/* Marks the stream bad with a reason: for a value that is out of range. The first call wins. */
void stream_fail(struct stream_reader *r, enum status error, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
