/* SPDX-License-Identifier: MIT */
/*
 * The state stream: what is written is read back; whatever is cut, flipped, newer or unknown is refused, by name. The
 * last test pins the bytes, so that a change of the format cannot happen unseen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernel/bytes.h"
#include "kernel/crc32c.h"
#include "vm/stream.h"

#define CAPACITY 4096

struct buffer {
    uint8_t bytes[CAPACITY];
    size_t count, limit;
};

static enum status sink(void *context, const void *bytes, size_t count)
{
    struct buffer *b = context;
    if (count > b->limit - b->count)
        return ERR_NO_MEMORY;
    memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
    return OK;
}

static void body_numbers(struct stream_writer *w, void *arg)
{
    (void)arg;
    stream_put_u8(w, 0x11);
    stream_put_u16(w, 0x2233);
    stream_put_u32(w, 0x44556677);
    stream_put_u64(w, 0x8899aabbccddeeff);
}

static void body_text(struct stream_writer *w, void *arg)
{
    stream_put_bytes(w, arg, strlen(arg));
}

static char some_bytes[] = "some bytes", xy[] = "xy";

static void body_flighty(struct stream_writer *w, void *arg)
{
    int *calls = arg;
    for (int i = 0; i < *calls; i++)
        stream_put_u8(w, 1);
    ++*calls;
}

static void make(struct buffer *b)
{
    struct stream_writer w;
    *b = (struct buffer){ .limit = CAPACITY };
    stream_writer_init(&w, sink, b);
    stream_section(&w, "NUMBERS", 3, 1, STREAM_MANDATORY, body_numbers, NULL);
    stream_section(&w, "TEXT", 0, 2, 0, body_text, some_bytes);
    stream_section(&w, "EMPTY", 7, 1, 0, NULL, NULL);
    assert_int_equal(stream_finish(&w), OK);
}

static void both_ways_of_crc32c_agree(void **state)
{
    (void)state;
    uint8_t bytes[700];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
    if (!__builtin_cpu_supports("sse4.2"))
        skip();
    for (unsigned from = 0; from < 9; from++)
        for (unsigned count = 0; count < sizeof(bytes) - from; count++) {
            crc32c_use_hardware(false);
            uint32_t expected = crc32c(from, bytes + from, count);
            crc32c_use_hardware(true);
            assert_int_equal(crc32c(from, bytes + from, count), expected);
        }
    crc32c_use_hardware(false);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct buffer b;
    struct stream_reader r;
    char text[10];
    make(&b);
    assert_int_equal(stream_reader_init(&r, b.bytes, b.count), OK);
    assert_true(stream_next(&r));
    assert_string_equal(r.tag, "NUMBERS");
    assert_int_equal(r.instance, 3);
    assert_int_equal(r.version, 1);
    assert_int_equal(r.flags, STREAM_MANDATORY);
    assert_int_equal(stream_left(&r), 15);
    assert_int_equal(stream_get_u8(&r), 0x11);
    assert_int_equal(stream_get_u16(&r), 0x2233);
    assert_int_equal(stream_get_u32(&r), 0x44556677);
    assert_int_equal(stream_get_u64(&r), 0x8899aabbccddeeff);
    assert_int_equal(stream_left(&r), 0);
    assert_true(stream_next(&r));
    assert_int_equal(r.version, 2);
    stream_get_bytes(&r, text, 10);
    assert_memory_equal(text, "some bytes", 10);
    assert_true(stream_next(&r));
    assert_string_equal(r.tag, "EMPTY");
    assert_false(stream_next(&r));
    assert_true(r.at_end);
    assert_int_equal(r.error, OK);
    assert_false(stream_next(&r));
}

static void a_section_can_be_skipped(void **state)
{
    (void)state;
    struct buffer b;
    struct stream_reader r;
    make(&b);
    assert_int_equal(stream_reader_init(&r, b.bytes, b.count), OK);
    assert_true(stream_next(&r));
    (void)stream_get_u8(&r);
    assert_true(stream_next(&r));
    assert_string_equal(r.tag, "TEXT");
    assert_int_equal(stream_get_u8(&r), 's');
}

/* The pieces are malloc'ed, so that a read behind the cut is an error of its own. */
static void every_cut_is_refused(void **state)
{
    (void)state;
    struct buffer b;
    make(&b);
    for (size_t count = 0; count < b.count; count++) {
        uint8_t *cut = malloc(count ? count : 1);
        char text[160];
        memcpy(cut, b.bytes, count);
        assert_int_equal(stream_verify(cut, count, text, sizeof(text)), ERR_TRUNCATED);
        assert_true(strlen(text) > 10);
        free(cut);
    }
}

/* Where each section of make() lies, for the names in the error texts. */
static const struct { const char *name; size_t end; } places[] = {
    { "header", 20 }, { "NUMBERS", 20 + 24 + 15 + 4 }, { "TEXT", 63 + 24 + 10 + 4 }, { "EMPTY", 101 + 24 + 4 },
    { "END", 129 + 24 + 12 + 4 },
};

static void every_flipped_bit_is_refused_by_name(void **state)
{
    (void)state;
    struct buffer b;
    make(&b);
    assert_int_equal(b.count, places[ARRAY_COUNT(places) - 1].end);
    unsigned place = 0;
    for (size_t at = 0; at < b.count; at++) {
        size_t start = place ? places[place - 1].end : 0;
        if (at == places[place].end)
            start = places[place++].end;
        for (unsigned bit = 0; bit < 8; bit++) {
            char text[160];
            b.bytes[at] ^= 1 << bit;
            assert_int_not_equal(stream_verify(b.bytes, b.count, text, sizeof(text)), OK);
            if (place == 0 || at >= start + 8) /* a flip in a tag changes the name itself */
                assert_non_null(strstr(text, places[place].name));
            b.bytes[at] ^= 1 << bit;
        }
    }
    assert_int_equal(place, ARRAY_COUNT(places) - 1);
    assert_int_equal(stream_verify(b.bytes, b.count, NULL, 0), OK);
}

static void bytes_behind_the_end_are_refused(void **state)
{
    (void)state;
    struct buffer b;
    char text[160];
    make(&b);
    b.bytes[b.count++] = 0;
    assert_int_equal(stream_verify(b.bytes, b.count, text, sizeof(text)), ERR_CORRUPT);
    assert_non_null(strstr(text, "END"));
}

static void a_section_that_vanished_is_missed(void **state)
{
    (void)state;
    struct buffer b;
    make(&b);
    memmove(b.bytes + 63, b.bytes + 101, b.count - 101); /* TEXT, whole */
    assert_int_equal(stream_verify(b.bytes, b.count - (101 - 63), NULL, 0), ERR_CORRUPT);
    make(&b);
    uint8_t text[38];
    memcpy(text, b.bytes + 63, sizeof(text)); /* TEXT and EMPTY in the other order */
    memmove(b.bytes + 63, b.bytes + 101, 28);
    memcpy(b.bytes + 63 + 28, text, sizeof(text));
    assert_int_equal(stream_verify(b.bytes, b.count, NULL, 0), ERR_CORRUPT);
}

static void a_newer_format_is_refused(void **state)
{
    (void)state;
    struct buffer b;
    char text[160];
    make(&b);
    le32_put(b.bytes + 8, STREAM_FORMAT_VERSION + 1);
    le32_put(b.bytes + 16, crc32c(0, b.bytes, 16));
    assert_int_equal(stream_verify(b.bytes, b.count, text, sizeof(text)), ERR_VERSION);
    assert_non_null(strstr(text, "version 2"));
    make(&b);
    le32_put(b.bytes + 12, 1);
    le32_put(b.bytes + 16, crc32c(0, b.bytes, 16));
    assert_int_equal(stream_verify(b.bytes, b.count, text, sizeof(text)), ERR_VERSION);
    assert_int_equal(stream_verify("not a stream at all..", 21, text, sizeof(text)), ERR_INVALID);
}

/* What every reader does with a tag that it does not know. */
static enum status read_known(const struct buffer *b, const char *known, char *text, size_t text_bytes)
{
    struct stream_reader r;
    (void)!stream_reader_init(&r, b->bytes, b->count);
    while (stream_next(&r))
        if (strcmp(r.tag, known))
            stream_unknown(&r);
    strncpy(text, r.error_text, text_bytes);
    return r.error;
}

static void unknown_sections(void **state)
{
    (void)state;
    struct buffer b;
    char text[160];
    make(&b);
    assert_int_equal(read_known(&b, "NUMBERS", text, sizeof(text)), OK); /* TEXT and EMPTY are optional */
    assert_int_equal(read_known(&b, "TEXT", text, sizeof(text)), ERR_VERSION);
    assert_non_null(strstr(text, "NUMBERS"));
}

static void reading_past_a_section_sticks(void **state)
{
    (void)state;
    struct buffer b;
    struct stream_reader r;
    uint8_t bytes[32];
    make(&b);
    assert_int_equal(stream_reader_init(&r, b.bytes, b.count), OK);
    assert_true(stream_next(&r));
    memset(bytes, 0xaa, sizeof(bytes));
    stream_get_bytes(&r, bytes, 16);
    assert_int_equal(bytes[0] | bytes[15], 0);
    assert_int_equal(r.error, ERR_TRUNCATED);
    assert_non_null(strstr(r.error_text, "NUMBERS 3"));
    assert_int_equal(stream_get_u64(&r), 0);
    assert_false(stream_next(&r));
    stream_fail(&r, ERR_CORRUPT, "later");
    assert_int_equal(r.error, ERR_TRUNCATED);
}

static void a_full_sink_stops_the_writer(void **state)
{
    (void)state;
    struct buffer whole;
    make(&whole);
    for (size_t limit = 0; limit < whole.count; limit++) {
        struct buffer b = { .limit = limit };
        struct stream_writer w;
        stream_writer_init(&w, sink, &b);
        stream_section(&w, "NUMBERS", 3, 1, STREAM_MANDATORY, body_numbers, NULL);
        stream_section(&w, "TEXT", 0, 2, 0, body_text, some_bytes);
        stream_section(&w, "EMPTY", 7, 1, 0, NULL, NULL);
        assert_int_equal(stream_finish(&w), ERR_NO_MEMORY);
    }
}

static void misuse_is_an_error(void **state)
{
    (void)state;
    static const char *const tags[] = { "", "TOOLONGTAG", "END", "A B", "\x80" };
    for (unsigned i = 0; i < ARRAY_COUNT(tags); i++) {
        struct buffer b = { .limit = CAPACITY };
        struct stream_writer w;
        stream_writer_init(&w, sink, &b);
        stream_section(&w, tags[i], 0, 1, 0, body_numbers, NULL);
        assert_int_equal(stream_finish(&w), ERR_INVALID);
    }
    for (int calls = 0; calls < 2; calls++) { /* more the second time; nothing outside a section */
        struct buffer b = { .limit = CAPACITY };
        struct stream_writer w;
        int count = 3;
        stream_writer_init(&w, sink, &b);
        if (calls)
            stream_section(&w, "FLIGHTY", 0, 1, 0, body_flighty, &count);
        else
            stream_put_u8(&w, 1);
        assert_int_equal(stream_finish(&w), ERR_INVALID);
    }
}

static void the_bytes_are_as_specified(void **state)
{
    (void)state;
    struct buffer b = { .limit = CAPACITY };
    struct stream_writer w;
    stream_writer_init(&w, sink, &b);
    stream_section(&w, "A", 2, 3, STREAM_MANDATORY, body_text, xy);
    assert_int_equal(stream_finish(&w), OK);
    static const uint8_t expected[] = {
        'T', 'S', 'K', 'S', 'T', 'A', 'T', 'E', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        'A', 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 'x', 'y', 0, 0, 0, 0,
        'E', 'N', 'D', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    };
    assert_int_equal(b.count, 20 + 24 + 2 + 4 + 24 + 12 + 4);
    assert_memory_equal(b.bytes, expected, 16);
    assert_memory_equal(b.bytes + 20, expected + 20, 26);
    assert_memory_equal(b.bytes + 50, expected + 50, 32);
    assert_int_equal(le32_get(b.bytes + 16), crc32c(0, b.bytes, 16));
    assert_int_equal(le32_get(b.bytes + 46), crc32c(0, b.bytes + 20, 26));
    assert_int_equal(le32_get(b.bytes + 82), crc32c(0, b.bytes, 50));
    assert_int_equal(le32_get(b.bytes + 86), crc32c(0, b.bytes + 50, 36));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_of_crc32c_agree),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_section_can_be_skipped),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused_by_name),
        cmocka_unit_test(bytes_behind_the_end_are_refused),
        cmocka_unit_test(a_section_that_vanished_is_missed),
        cmocka_unit_test(a_newer_format_is_refused),
        cmocka_unit_test(unknown_sections),
        cmocka_unit_test(reading_past_a_section_sticks),
        cmocka_unit_test(a_full_sink_stops_the_writer),
        cmocka_unit_test(misuse_is_an_error),
        cmocka_unit_test(the_bytes_are_as_specified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
