/* SPDX-License-Identifier: MIT */
/*
 * What tests of single devices share: a line that is written down, accesses by port, and the state stream: a device
 * saved to a payload of bytes, and restored from any payload, true or made up.
 */
#ifndef TESTS_FAKE_DEVICE_H
#define TESTS_FAKE_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vdev/vdev.h"
#include "vm/stream.h"

#define MS 1000000ull
#define SECOND 1000000000ull

struct fake_line { bool level; unsigned rises, falls, pin; };

static inline void fake_line_set(void *context, unsigned pin, bool level)
{
    struct fake_line *line = context;
    line->rises += level && !line->level;
    line->falls += !level && line->level;
    line->level = level;
    line->pin = pin;
}

#define FAKE_LINE(line) ((struct vline){ fake_line_set, (line), 0 })

/* A read that must be answered, and a write. */
static inline uint64_t fake_in(const struct vbus *bus, uint64_t address, unsigned size, uint64_t now_ns)
{
    uint64_t value;
    assert_true(vbus_read(bus, address, size, &value, now_ns));
    return value;
}

static inline void fake_out(const struct vbus *bus, uint64_t address, unsigned size, uint64_t value, uint64_t now_ns)
{
    assert_true(vbus_write(bus, address, size, value, now_ns));
}

/* ---- State ---- */

#define FAKE_STATE 8192
#define FAKE_STREAM_HEADER 20
#define FAKE_SECTION_HEADER 24

struct fake_state { uint8_t bytes[FAKE_STATE]; size_t count; };

struct fake_body { void (*save)(const void *device, struct stream_writer *w, uint64_t now_ns); const void *device;
                   uint64_t now_ns; };

static inline enum status fake_state_sink(void *context, const void *bytes, size_t count)
{
    struct fake_state *state = context;
    assert_true(state->count + count <= sizeof(state->bytes));
    memcpy(state->bytes + state->count, bytes, count);
    state->count += count;
    return OK;
}

static inline void fake_body_save(struct stream_writer *w, void *arg)
{
    struct fake_body *body = arg;
    body->save(body->device, w, body->now_ns);
}

static inline void fake_body_raw(struct stream_writer *w, void *arg)
{
    struct fake_state *payload = arg;
    stream_put_bytes(w, payload->bytes, payload->count);
}

/* The payload that the device's save writes. */
static inline void fake_save(void (*save)(const void *, struct stream_writer *, uint64_t), const void *device,
                             uint64_t now_ns, struct fake_state *payload)
{
    static struct fake_state stream;
    struct stream_writer w;
    struct fake_body body = { save, device, now_ns };
    stream.count = 0;
    stream_writer_init(&w, fake_state_sink, &stream);
    stream_section(&w, "DEVICE", 0, 1, STREAM_MANDATORY, fake_body_save, &body);
    payload->count = (size_t)(stream.count - FAKE_STREAM_HEADER - FAKE_SECTION_HEADER - 4);
    memcpy(payload->bytes, stream.bytes + FAKE_STREAM_HEADER + FAKE_SECTION_HEADER, payload->count);
    assert_int_equal(stream_finish(&w), OK);
}

/* Restores from a payload; the reader's error, or ERR_INVALID if the restore left bytes unread. */
static inline enum status fake_restore(void (*restore)(void *, struct stream_reader *, uint64_t), void *device,
                                       uint64_t now_ns, struct fake_state *payload)
{
    static struct fake_state stream;
    struct stream_writer w;
    struct stream_reader r;
    stream.count = 0;
    stream_writer_init(&w, fake_state_sink, &stream);
    stream_section(&w, "DEVICE", 0, 1, STREAM_MANDATORY, fake_body_raw, payload);
    assert_int_equal(stream_finish(&w), OK);
    assert_int_equal(stream_reader_init(&r, stream.bytes, stream.count), OK);
    assert_true(stream_next(&r));
    restore(device, &r, now_ns);
    return r.error == OK && stream_left(&r) ? ERR_INVALID : r.error;
}

/* A repeatable stream of numbers (xorshift). */
static inline uint64_t fake_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Changes one to four bytes of a payload. */
static inline void fake_mutate(struct fake_state *payload, uint64_t *seed)
{
    for (unsigned i = 0, n = 1 + fake_random(seed) % 4; i < n; i++)
        payload->bytes[fake_random(seed) % payload->count] = (uint8_t)fake_random(seed);
}

/* Adapters from a device's own types. */
#define FAKE_ADAPT(type)                                                                                               \
    static void type##_do_save(const void *device, struct stream_writer *w, uint64_t now_ns)                           \
    {                                                                                                                  \
        type##_save(device, w, now_ns);                                                                                \
    }                                                                                                                  \
    static void type##_do_restore(void *device, struct stream_reader *r, uint64_t now_ns)                              \
    {                                                                                                                  \
        type##_restore(device, r, now_ns);                                                                             \
    }

#endif
