/* SPDX-License-Identifier: MIT */
/*
 * Receive coalescing against frames that are built here, and a sender that lies. Guarded: what follows each other joins, over
 * IPv4 and IPv6, with and without options, over the wrap of sequence numbers, and the joined packet's headers are those that a
 * sender would have made; of all bits of a header only those that may differ may differ; no damaged, fragmented, repeated,
 * overlapping or odd segment joins; nothing is read behind a frame's end; no packet is longer than lwIP's lengths can say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/bytes.h"
#include "net/coalesce.h"

#define ETH 14u
#define FIN 0x01
#define PSH 0x08
#define ACK 0x10

struct shape {
    bool is_ip6;
    unsigned options; /* bytes of TCP's */
};

static const struct shape shapes[] = { { false, 0 }, { false, 12 }, { false, 40 }, { true, 0 }, { true, 12 } };

static unsigned ip_bytes(const struct shape *s)
{
    return s->is_ip6 ? 40 : 20;
}
static unsigned header_bytes(const struct shape *s)
{
    return ETH + ip_bytes(s) + 20 + s->options;
}

static uint32_t add(uint32_t sum, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Sets both checksums of a frame as its lengths are. */
static void seal(uint8_t *frame, const struct shape *s)
{
    uint8_t *ip = frame + ETH, *tcp = ip + ip_bytes(s);
    unsigned bytes = s->is_ip6 ? be16_get(ip + 4) : be16_get(ip + 2) - 20u;

    if (!s->is_ip6) {
        be16_put(ip + 10, 0);
        be16_put(ip + 10, (uint16_t)~add(0, ip, 20));
    }
    be16_put(tcp + 16, 0);
    uint32_t sum = s->is_ip6 ? add(bytes + 6, ip + 8, 32) : add(bytes + 6, ip + 12, 8);
    be16_put(tcp + 16, (uint16_t)~add(sum, tcp, bytes));
}

/* A frame of `payload` bytes, whose first is `value`, on the heap; its length. */
static unsigned build(uint8_t **frame, const struct shape *s, uint32_t sequence, unsigned payload, uint8_t value, uint8_t flags)
{
    unsigned header = header_bytes(s), count = header + payload;
    uint8_t *f = *frame = calloc(1, count), *ip = f + ETH, *tcp = ip + ip_bytes(s);

    memcpy(f, "\x52\x54\x00\x12\x34\x56\x02\x00\x00\x00\x00\x01", 12);
    be16_put(f + 12, s->is_ip6 ? 0x86dd : 0x0800);
    if (s->is_ip6) {
        ip[0] = 0x60;
        be16_put(ip + 4, (uint16_t)(count - ETH - 40));
        ip[6] = 6;
        ip[7] = 64;
        memset(ip + 8, 0xfd, 32);
    } else {
        ip[0] = 0x45;
        be16_put(ip + 2, (uint16_t)(count - ETH));
        be16_put(ip + 4, (uint16_t)(sequence / 7));
        ip[6] = 0x40;
        ip[8] = 64;
        ip[9] = 6;
        memcpy(ip + 12, (uint8_t[]){ 10, 0, 0, 1, 10, 0, 0, 11 }, 8);
    }
    be16_put(tcp, 3260);
    be16_put(tcp + 2, 50000);
    be32_put(tcp + 4, sequence);
    be32_put(tcp + 8, 0x01020304);
    tcp[12] = (uint8_t)((20 + s->options) / 4 << 4);
    tcp[13] = flags;
    be16_put(tcp + 14, 4096);
    memset(tcp + 20, 1, s->options); /* no operation */
    for (unsigned i = 0; i < payload; i++)
        f[header + i] = (uint8_t)(value + i);
    seal(f, s);
    return count;
}

/* Judges it alone, behind nothing. */
static enum coalesce_verdict alone(const uint8_t *frame, unsigned count, bool is_good)
{
    struct coalesce none = { 0 };
    struct coalesce_segment segment;

    return coalesce_judge(&none, frame, count, is_good, &segment);
}

/* A packet that begins with a frame of 100 bytes of payload from 1000 on. */
static void start(struct coalesce *packet, const struct shape *s)
{
    struct coalesce_segment segment;
    uint8_t *frame;
    unsigned count = build(&frame, s, 1000, 100, 0, ACK);

    memset(packet, 0, sizeof *packet);
    assert_int_equal(coalesce_judge(packet, frame, count, false, &segment), COALESCE_BEGINS);
    coalesce_begin(packet, frame, &segment);
    free(frame);
}

static enum coalesce_verdict next(const struct coalesce *packet, const uint8_t *frame, unsigned count, bool is_good)
{
    struct coalesce_segment segment;

    return coalesce_judge(packet, frame, count, is_good, &segment);
}

static void what_follows_joins_and_looks_like_one_packet(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        const unsigned sizes[] = { 1448, 1448, 1, 300 };
        struct coalesce packet = { 0 };
        struct coalesce_segment segment;
        uint8_t *first = NULL, *frame, *whole = malloc(8192), *expected;
        uint32_t sequence = 0xfffffa00; /* wraps within the second */
        unsigned whole_bytes = 0, payload = 0;
        for (unsigned k = 0; k < ARRAY_COUNT(sizes); k++) {
            unsigned count = build(&frame, s, sequence, sizes[k], (uint8_t)payload, k == 2 ? ACK | PSH : ACK);
            assert_int_equal(coalesce_judge(&packet, frame, count, false, &segment), k ? COALESCE_JOINS : COALESCE_BEGINS);
            assert_int_equal(segment.payload, header_bytes(s));
            assert_int_equal(segment.end, count);
            (k ? coalesce_join : coalesce_begin)(&packet, frame, &segment);
            unsigned from = k ? segment.payload : 0;
            memcpy(whole + whole_bytes, frame + from, count - from);
            whole_bytes += count - from;
            payload += sizes[k];
            sequence += sizes[k];
            if (k)
                free(frame);
            else
                first = frame;
        }
        assert_int_equal(packet.segment_count, 4);
        coalesce_end(&packet, whole);
        assert_int_equal(packet.segment_count, 0);
        unsigned count = build(&expected, s, 0xfffffa00, payload, 0, ACK | PSH);
        assert_int_equal(count, whole_bytes);
        /* All but TCP's checksum, which nobody is to look at. */
        memset(expected + ETH + ip_bytes(s) + 16, 0, 2);
        memset(whole + ETH + ip_bytes(s) + 16, 0, 2);
        assert_memory_equal(whole, expected, count);
        free(first);
        free(whole);
        free(expected);
    }
}

static void one_segment_stays_as_it_is(void **state)
{
    struct coalesce packet;
    uint8_t *frame, *copy;
    (void)state;

    start(&packet, &shapes[0]);
    unsigned count = build(&frame, &shapes[0], 1000, 100, 0, ACK);
    copy = malloc(count);
    memcpy(copy, frame, count);
    coalesce_end(&packet, frame);
    assert_memory_equal(frame, copy, count);
    free(frame);
    free(copy);
}

/* Each bit of the header, with right checksums: the packet's identification and PSH may differ, a shorter length too. */
static void no_other_bit_may_differ(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        struct coalesce packet;
        unsigned joined = 0, tcp = ETH + ip_bytes(s);
        start(&packet, s);
        for (unsigned bit = 0; bit < header_bytes(s) * 8; bit++) {
            uint8_t *frame;
            unsigned count = build(&frame, s, 1100, 100, 100, ACK), at = bit / 8;
            bool is_sum = (!s->is_ip6 && (at == ETH + 10 || at == ETH + 11)) || at == tcp + 16 || at == tcp + 17;
            bool is_length = at == ETH + (s->is_ip6 ? 4 : 2) || at == ETH + (s->is_ip6 ? 5 : 3);
            frame[at] ^= (uint8_t)(1 << bit % 8);
            unsigned ip_end = ETH + (s->is_ip6 ? 40u + be16_get(frame + ETH + 4) : be16_get(frame + ETH + 2));
            bool may_join = (!s->is_ip6 && (at == ETH + 4 || at == ETH + 5)) || (at == tcp + 13 && bit % 8 == 3) ||
                            (is_length && ip_end < count && ip_end > header_bytes(s));
            if (ip_end <= count && ip_end >= tcp + 20 && !is_sum)
                seal(frame, s);
            bool joins = next(&packet, frame, count, false) == COALESCE_JOINS;
            assert_int_equal(joins, may_join);
            joined += joins;
            free(frame);
        }
        assert_true(joined >= 1 + (s->is_ip6 ? 0 : 16));
    }
}

static void gaps_overlaps_and_repetitions_do_not_join(void **state)
{
    const uint32_t from[] = { 1000, 1050, 1099, 1101, 1200, 900, 0, 0x80000000u + 1100, 1100 };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(from); i++) {
        struct coalesce packet;
        uint8_t *frame;
        start(&packet, &shapes[1]);
        unsigned count = build(&frame, &shapes[1], from[i], 100, 0, ACK);
        assert_int_equal(next(&packet, frame, count, true), from[i] == 1100 ? COALESCE_JOINS : COALESCE_BEGINS);
        free(frame);
    }
}

static void only_plain_flags_join(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags < 256; flags++) {
        bool plain = flags == ACK || flags == (ACK | PSH);
        struct coalesce packet;
        uint8_t *frame;
        start(&packet, &shapes[0]);
        unsigned count = build(&frame, &shapes[0], 1100, 100, 0, (uint8_t)flags);
        assert_int_equal(next(&packet, frame, count, false), plain ? COALESCE_JOINS : COALESCE_ALONE);
        assert_int_equal(alone(frame, count, false), plain ? COALESCE_BEGINS : COALESCE_ALONE);
        free(frame);
    }
}

static void damage_goes_alone(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        uint8_t *frame;
        unsigned count = build(&frame, s, 1100, 99, 0, ACK);
        for (unsigned at = ETH; at < count; at++) {
            frame[at] ^= 0x20;
            bool seen = alone(frame, count, false) != COALESCE_ALONE;
            /* Neither checksum covers IPv6's class, flow label and hop limit. */
            assert_int_equal(seen, s->is_ip6 && (at == ETH + 1 || at == ETH + 2 || at == ETH + 3 || at == ETH + 7));
            frame[at] ^= 0x20;
        }
        frame[count - 1] ^= 1; /* a card that says that it is right is believed */
        assert_int_equal(alone(frame, count, true), COALESCE_BEGINS);
        if (!s->is_ip6) { /* but it says nothing of IPv4's own checksum */
            frame[ETH + 10] ^= 1;
            assert_int_equal(alone(frame, count, true), COALESCE_ALONE);
        }
        free(frame);
    }
}

static void all_other_frames_go_alone(void **state)
{
    const struct shape *four = &shapes[0], *six = &shapes[3];
    uint8_t *frame;
    (void)state;

    for (unsigned i = 0; i < 12; i++) {
        const struct shape *s = i < 7 ? four : six;
        unsigned count = build(&frame, s, 1100, 100, 0, ACK);
        uint8_t *ip = frame + ETH, *tcp = ip + ip_bytes(s);
        switch (i) {
        case 0: ip[6] = 0x20; break;                    /* a first fragment */
        case 1: ip[7] = 1; break;                       /* a later one */
        case 2: ip[6] = 0x80; break;                    /* the reserved bit */
        case 3: ip[9] = 17; break;                      /* UDP */
        case 4: ip[0] = 0x46; break;                    /* options */
        case 5: be16_put(frame + 12, 0x0806); break;    /* ARP */
        case 6: be16_put(ip + 2, 40); break;            /* no payload: an acknowledgement */
        case 7: ip[6] = 0; break;                       /* hop-by-hop options */
        case 8: ip[6] = 44; break;                      /* a fragment */
        case 9: be16_put(ip + 4, 0); break;             /* a jumbogram (RFC 2675) */
        case 10: tcp[12] = 0x40; break;                 /* TCP's header shorter than it can be */
        case 11: tcp[12] = 0xf0; be16_put(ip + 4, 60); break; /* all of it header */
        }
        if (i != 9)
            seal(frame, s);
        assert_int_equal(alone(frame, count, true), COALESCE_ALONE);
        free(frame);
    }
}

/* Frames cut off at each length, each at the end of its memory: the sanitizer sees who reads further. */
static void nothing_is_read_behind_the_end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(shapes); i++) {
        uint8_t *frame;
        unsigned count = build(&frame, &shapes[i], 1100, 40, 0, ACK);
        for (unsigned part = 0; part < count; part++) {
            uint8_t *copy = malloc(part ? part : 1);
            memcpy(copy, frame, part);
            assert_int_equal(alone(copy, part, true), COALESCE_ALONE);
            free(copy);
        }
        assert_int_equal(alone(frame, count, true), COALESCE_BEGINS);
        free(frame);
    }
}

static void padding_is_no_payload(void **state)
{
    struct coalesce_segment segment;
    struct coalesce none = { 0 };
    uint8_t *frame;
    (void)state;

    unsigned count = build(&frame, &shapes[0], 1100, 1, 7, ACK);
    uint8_t *padded = malloc(60);
    memset(padded, 0xee, 60);
    memcpy(padded, frame, count);
    assert_int_equal(coalesce_judge(&none, padded, 60, false, &segment), COALESCE_BEGINS);
    assert_int_equal(segment.payload, count - 1);
    assert_int_equal(segment.end, count);
    free(padded);
    free(frame);
}

/* Segments of that size until one begins a new packet; how many joined. The packet's bytes are in bounds at any time. */
static unsigned fill(unsigned size, uint32_t *bytes)
{
    struct coalesce packet = { 0 };
    struct coalesce_segment segment;
    uint32_t sequence = 0;

    for (;;) {
        uint8_t *frame;
        unsigned count = build(&frame, &shapes[0], sequence, size, 0, ACK);
        enum coalesce_verdict verdict = coalesce_judge(&packet, frame, count, true, &segment);
        if (sequence && verdict == COALESCE_BEGINS) {
            free(frame);
            *bytes = packet.frame_bytes;
            return packet.segment_count;
        }
        assert_int_equal(verdict, sequence ? COALESCE_JOINS : COALESCE_BEGINS);
        (sequence ? coalesce_join : coalesce_begin)(&packet, frame, &segment);
        sequence += size;
        assert_true(packet.frame_bytes <= COALESCE_BYTES_MAX && packet.segment_count <= COALESCE_SEGMENTS_MAX);
        free(frame);
    }
}

static void a_packet_is_full_at_some_time(void **state)
{
    uint32_t bytes;
    uint8_t *frame;
    (void)state;

    assert_int_equal(fill(1, &bytes), COALESCE_SEGMENTS_MAX);
    assert_int_equal(fill(1460, &bytes), COALESCE_SEGMENTS_MAX);
    assert_int_equal(bytes, 54 + COALESCE_SEGMENTS_MAX * 1460);
    assert_int_equal(fill(8960, &bytes), 7);
    assert_int_equal(fill(65481, &bytes), 1);
    assert_int_equal(bytes, COALESCE_BYTES_MAX);
    unsigned count = build(&frame, &shapes[0], 0, 65482, 0, ACK); /* an IPv4 packet that long there can be */
    assert_int_equal(alone(frame, count, true), COALESCE_ALONE);
    free(frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_joins_and_looks_like_one_packet),
        cmocka_unit_test(one_segment_stays_as_it_is),
        cmocka_unit_test(no_other_bit_may_differ),
        cmocka_unit_test(gaps_overlaps_and_repetitions_do_not_join),
        cmocka_unit_test(only_plain_flags_join),
        cmocka_unit_test(damage_goes_alone),
        cmocka_unit_test(all_other_frames_go_alone),
        cmocka_unit_test(nothing_is_read_behind_the_end),
        cmocka_unit_test(padding_is_no_payload),
        cmocka_unit_test(a_packet_is_full_at_some_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
