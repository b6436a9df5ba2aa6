/* SPDX-License-Identifier: MIT */
/*
 * Promises of frames, pools and queues, and of checksums and cutting in software: each result is compared, byte by
 * byte, with a packet that was built on its own by fake_net.h, or judged by its plain checksum.
 */
#include <pthread.h>

#include "fake_net.h"
#include "net/offload.h"

static uint8_t raw[FRAME_BYTES_MAX], flat[FRAME_BYTES_MAX], expected[FRAME_BYTES_MAX];

static uint64_t seed = 88172645463325252ull;
static uint32_t below(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed % limit);
}

/* ---- Frames and pools ---- */

static void a_frame_holds_what_was_written(void **state)
{
    struct fake_pool p;
    struct frame *frame;

    (void)state;
    fake_pool_make(&p, 2, 40);
    for (uint32_t i = 0; i < sizeof(raw); i++)
        raw[i] = fake_payload(i);
    frame = fake_frame(&p, raw, FRAME_BYTES_MAX);
    assert_int_equal(frame->segment_count, 33);
    assert_int_equal(frame_read(frame, 0, flat, sizeof(flat)), sizeof(flat));
    assert_memory_equal(flat, raw, sizeof(raw));
    assert_int_equal(frame_read(frame, FRAME_BYTES_MAX - 3, flat, 10), 3);
    assert_int_equal(frame_read(frame, FRAME_BYTES_MAX, flat, 10), 0);
    assert_int_equal(frame_read(frame, 1983, flat, 4), 4); /* over the end of the first chunk */
    assert_memory_equal(flat, raw + 1983, 4);
    assert_null(frame_pool_get(&p.pool, FRAME_BYTES_MAX + 1));
    memcpy(frame_push_head(frame, 4), "abcd", 4);
    assert_int_equal(frame->bytes, FRAME_BYTES_MAX + 4);
    frame_read(frame, 0, flat, 8);
    assert_memory_equal(flat, "abcd", 4);
    assert_memory_equal(flat + 4, raw, 4);
    frame_put(frame);
    fake_pool_free(&p);
}

static void memory_comes_back_with_the_last_reference(void **state)
{
    struct fake_pool p;
    struct frame *frame, *part, *second;

    (void)state;
    fake_pool_make(&p, 3, 4);
    frame = fake_frame(&p, raw, 3000);
    part = frame_pool_get(&p.pool, 10);
    assert_true(frame_append_part(part, frame, 100, 2000));
    assert_int_equal(part->bytes, 2010);
    frame_read(part, 10, flat, 2000);
    assert_memory_equal(flat, raw + 100, 2000);
    assert_false(frame_append_part(part, frame, 2999, 2));
    assert_int_equal(frame->references, 2);
    frame_put(frame);
    assert_false(frame_pool_idle(&p.pool));
    second = frame_pool_get(&p.pool, 1);
    assert_non_null(second);
    assert_null(frame_pool_get(&p.pool, 1));
    assert_false(frame_pool_has(&p.pool, 1));
    assert_int_equal(p.freed, 0);
    frame_put(part); /* and with it its parent */
    assert_int_equal(p.freed, 1);
    frame_put(second);
    assert_int_equal(p.freed, 1); /* nobody waits any more */
    assert_true(frame_pool_has(&p.pool, 3 * FRAME_CHUNK_BYTES));
    assert_false(frame_pool_has(&p.pool, 4 * FRAME_CHUNK_BYTES)); /* the headroom is in it */
    fake_pool_free(&p);
}

static void a_queue_says_when_there_is_room(void **state)
{
    struct frame *slot[2];
    struct frame_queue q;
    struct fake_pool p;
    bool wake;

    (void)state;
    fake_pool_make(&p, 4, 4);
    frame_queue_init(&q, slot, 2);
    assert_true(frame_queue_begin(&q));
    assert_null(frame_queue_first(&q));
    assert_false(frame_queue_end(&q));
    assert_true(frame_queue_has_room(&q));
    struct frame *a = fake_frame(&p, "a", 1), *b = fake_frame(&p, "b", 1);
    assert_true(frame_queue_put(&q, a));
    assert_true(frame_queue_put(&q, b));
    assert_false(frame_queue_put(&q, b));
    assert_false(frame_queue_has_room(&q));
    assert_true(frame_queue_begin(&q));
    assert_false(frame_queue_begin(&q)); /* one at a time */
    assert_int_equal(frame_queue_purge(&q, &wake), 0);
    assert_false(wake);
    assert_ptr_equal(frame_queue_first(&q), a);
    frame_put(frame_queue_take(&q));
    assert_true(frame_queue_end(&q));
    assert_true(frame_queue_begin(&q));
    assert_false(frame_queue_end(&q)); /* said once */
    assert_int_equal(frame_queue_count(&q), 1);
    assert_int_equal(frame_queue_purge(&q, &wake), 1);
    assert_false(wake);
    assert_int_equal(frame_queue_count(&q), 0);
    fake_pool_free(&p);
}

/*
 * Two threads: one takes frames and queues them, the other gives them back; nothing is lost, nothing doubled. Who finds no
 * room, or no frame, waits until it is told: a word that gets lost would be for ever.
 */
struct race { struct fake_pool p; struct frame_queue q; struct frame *slot[8]; unsigned got, rooms; uint64_t sum; };
#define RACE_FRAMES 50000u

static void *consume(void *arg)
{
    struct race *r = arg;

    while (r->got < RACE_FRAMES) {
        struct frame *frame;

        if (!frame_queue_begin(&r->q))
            continue;
        while ((frame = frame_queue_first(&r->q))) {
            uint32_t value;

            assert_int_equal(frame_read(frame, 0, &value, 4), 4);
            assert_int_equal(value, r->got);
            frame_queue_take(&r->q);
            frame_put(frame);
            r->sum += value;
            r->got++;
        }
        if (frame_queue_end(&r->q))
            __atomic_fetch_add(&r->rooms, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void wait_for_change(const unsigned *count, unsigned before)
{
    time_t deadline = time(NULL) + 30;

    while (__atomic_load_n(count, __ATOMIC_SEQ_CST) == before) {
        assert_true(time(NULL) < deadline);
        sched_yield();
    }
}

static void cross(uint32_t frames, uint32_t slots)
{
    static struct race r;
    pthread_t thread;

    memset(&r, 0, sizeof(r));
    fake_pool_make(&r.p, frames, frames);
    frame_queue_init(&r.q, r.slot, slots);
    assert_int_equal(pthread_create(&thread, NULL, consume, &r), 0);
    for (uint32_t i = 0; i < RACE_FRAMES;) {
        unsigned freed = __atomic_load_n(&r.p.freed, __ATOMIC_SEQ_CST), rooms = __atomic_load_n(&r.rooms, __ATOMIC_SEQ_CST);
        struct frame *frame;

        for (volatile unsigned moment = i % 97; moment; moment--) /* so that the two meet at each of their steps */
            ;
        if (!frame_queue_has_room(&r.q)) {
            wait_for_change(&r.rooms, rooms);
            continue;
        }
        if (!frame_pool_has(&r.p.pool, 4)) {
            wait_for_change(&r.p.freed, freed);
            continue;
        }
        frame = frame_pool_get(&r.p.pool, 4);
        assert_non_null(frame);
        frame_write(frame, 0, &i, 4);
        assert_true(frame_queue_put(&r.q, frame));
        i++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(r.sum, (uint64_t)RACE_FRAMES * (RACE_FRAMES - 1) / 2);
    fake_pool_free(&r.p);
}

static void frames_cross_between_two_threads(void **state)
{
    (void)state;
    cross(1, 4); /* frames are what is short */
    cross(16, 1); /* room is */
    cross(16, 8);
}

/* ---- Sums ---- */

static void sums_are_the_plain_ones_whatever_the_segments(void **state)
{
    struct fake_pool p;

    (void)state;
    fake_pool_make(&p, 4, 80);
    for (unsigned round = 0; round < 2000; round++) {
        uint32_t bytes = 1 + below(round % 10 ? 300 : 60000), offset, count;
        struct frame *frame, *scattered;

        for (uint32_t i = 0; i < bytes; i++)
            raw[i] = round % 3 ? (uint8_t)below(256) : 0xff;
        frame = fake_frame(&p, raw, bytes);
        /* The same bytes in pieces of odd sizes. */
        scattered = frame_pool_get(&p.pool, 0);
        for (uint32_t at = 0; at < bytes;) {
            uint32_t few = 1 + below(29), part = scattered->segment_count > 2 ? bytes - at : MIN(bytes - at, few);

            assert_true(frame_append_part(scattered, frame, at, part));
            at += part;
        }
        offset = below(bytes);
        count = below(bytes - offset + 1);
        assert_int_equal(offload_sum(frame, offset, count), fake_sum(raw + offset, count, 0));
        assert_int_equal(offload_sum(scattered, offset, count), fake_sum(raw + offset, count, 0));
        frame_put(scattered);
        frame_put(frame);
    }
    fake_pool_free(&p);
}

static struct frame *partial(struct fake_pool *p, const struct fake_packet *packet)
{
    uint32_t bytes = fake_packet_build(packet, raw, true);
    struct frame *frame = fake_frame(p, raw, bytes);

    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = (uint16_t)fake_packet_transport(packet);
    frame->checksum_offset = packet->udp ? 6 : 16;
    return frame;
}

static void a_missing_checksum_is_completed(void **state)
{
    struct fake_pool p;

    (void)state;
    fake_pool_make(&p, 4, 80);
    for (unsigned round = 0; round < 500; round++) {
        struct fake_packet packet = { .ip6 = below(2), .udp = below(2), .tags = below(3), .payload = below(1400),
                                      .ip_options = 8 * below(3), .tcp_options = 4 * below(4), .flags = 0x18 };
        struct frame *frame = partial(&p, &packet), *done;
        uint32_t bytes = frame->bytes;

        assert_null(offload_check(frame));
        done = offload_checksum(&p.pool, frame);
        assert_non_null(done);
        assert_int_equal(done->checksum, FRAME_CHECKSUM_GOOD);
        frame_read(frame, 0, flat, bytes);
        assert_memory_equal(flat, raw, bytes); /* the first one is as it was */
        assert_int_equal(fake_packet_build(&packet, expected, false), bytes);
        assert_int_equal(frame_read(done, 0, flat, sizeof(flat)), bytes);
        assert_memory_equal(flat, expected, bytes);
        frame_put(frame);
        frame_put(done);
    }
    fake_pool_free(&p);
}

static void a_udp_checksum_of_zero_is_sent_as_ffff(void **state)
{
    struct fake_packet packet = { .udp = true, .payload = 2 };
    struct fake_pool p;
    struct frame *frame, *done;
    uint32_t at = fake_packet_transport(&packet), bytes = fake_packet_build(&packet, raw, true);

    (void)state;
    fake_pool_make(&p, 4, 8);
    /* A payload that makes the sum 0xffff, so that its complement is 0. */
    be16_put(raw + at + 8, 0);
    be16_put(raw + at + 8, (uint16_t)~fake_sum(raw + at, bytes - at, 0));
    frame = fake_frame(&p, raw, bytes);
    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = (uint16_t)at;
    frame->checksum_offset = 6;
    done = offload_checksum(&p.pool, frame);
    frame_read(done, at + 6, flat, 2);
    assert_int_equal(be16_get(flat), 0xffff);
    frame_put(frame);
    frame_put(done);
    /* A checksum far behind what fits into a chunk. */
    frame = fake_frame(&p, raw, 6000);
    frame->checksum = FRAME_CHECKSUM_MISSING;
    frame->checksum_start = 5001;
    frame->checksum_offset = 500;
    assert_null(offload_check(frame));
    done = offload_checksum(&p.pool, frame);
    frame_read(done, 0, flat, 6000);
    assert_memory_equal(flat, raw, 5501);
    assert_memory_equal(flat + 5503, raw + 5503, 497);
    assert_int_equal(be16_get(flat + 5501), (uint16_t)~fake_sum(raw + 5001, 999, 0));
    frame_put(frame);
    frame_put(done);
    fake_pool_free(&p);
}

/* ---- Cutting ---- */

/* Cuts the packet and compares each piece with one that was built for its part of the payload. */
static void check_cut(struct fake_pool *p, const struct fake_packet *packet, uint16_t gso, bool checksum)
{
    struct frame *frame = partial(p, packet), *piece;
    uint32_t done = 0, pieces = 0, header = fake_packet_transport(packet) + 20 + packet->tcp_options;
    struct offload_cut cut;

    frame->gso = packet->ip6 ? FRAME_GSO_TCP6 : FRAME_GSO_TCP4;
    frame->gso_bytes = gso;
    frame->tagged = true;
    frame->tci = 0x600a;
    assert_null(offload_check(frame));
    assert_int_equal(frame->header_bytes, header);
    assert_int_equal(frame->ecn, packet->flags >> 7);
    assert_true(offload_cut_begin(&cut, frame, checksum));
    while ((piece = offload_cut_next(&cut, &p->pool))) {
        uint32_t payload = MIN(gso, packet->payload - done), bytes;
        bool last = done + payload == packet->payload;
        struct fake_packet part = *packet;

        part.payload = payload;
        part.sequence += done;
        part.id = (uint16_t)(part.id + pieces);
        part.flags &= (uint8_t)~((pieces ? 0x80 : 0) | (last ? 0 : 0x09));
        bytes = fake_packet_build(&part, expected, true);
        for (uint32_t i = 0; i < payload; i++) /* the payload of a piece goes on where the last one ended */
            expected[header + i] = fake_payload(done + i);
        if (checksum) {
            uint8_t *ip = expected + 14 + 4 * part.tags, *tcp = expected + fake_packet_transport(&part);
            uint32_t tcp_bytes = bytes - fake_packet_transport(&part);
            uint16_t sum;

            be16_put(tcp + 16, 0);
            sum = (uint16_t)~fake_sum(tcp, tcp_bytes, fake_pseudo(ip, 6, tcp_bytes));
            be16_put(tcp + 16, sum ? sum : 0xffff); /* the same number */
        }
        assert_int_equal(piece->bytes, bytes);
        assert_int_equal(frame_read(piece, 0, flat, sizeof(flat)), bytes);
        assert_memory_equal(flat, expected, bytes);
        assert_int_equal(piece->checksum, checksum ? FRAME_CHECKSUM_GOOD : FRAME_CHECKSUM_MISSING);
        assert_int_equal(piece->gso, FRAME_GSO_NONE);
        assert_true(piece->tagged && piece->tci == 0x600a && !piece->ecn);
        if (!checksum)
            assert_int_equal(piece->checksum_start + piece->checksum_offset, fake_packet_transport(packet) + 16);
        done += payload;
        pieces++;
        frame_put(piece);
    }
    assert_false(cut.failed);
    assert_int_equal(done, packet->payload);
    assert_int_equal(pieces, MAX(1u, (packet->payload + gso - 1) / gso));
    frame_put(frame);
}

static void large_packets_are_cut_as_a_sender_would(void **state)
{
    struct fake_pool p;

    (void)state;
    fake_pool_make(&p, 8, 80);
    for (unsigned round = 0; round < 400; round++) {
        struct fake_packet packet = { .ip6 = below(2), .tags = below(3), .ip_options = 8 * below(4),
                                      .tcp_options = 4 * below(11), .payload = below(60000), .sequence = below(~0u),
                                      .id = (uint16_t)below(65536), .flags = (uint8_t)below(256) };
        uint16_t gso = (uint16_t)(300 + below(9000));

        check_cut(&p, &packet, gso, round & 1);
    }
    /* Edges: no payload, one byte, exact multiples, a sequence that wraps. */
    struct fake_packet edge = { .sequence = 0xfffffff0, .id = 0xffff, .flags = 0x99 };
    for (unsigned payload = 0; payload < 4 * 100 + 2; payload++) {
        edge.payload = payload;
        check_cut(&p, &edge, 100, true);
        edge.ip6 = !edge.ip6;
    }
    fake_pool_free(&p);
}

/*
 * A large packet on the way by a routing header (RFC 8200, 4.4): who checks the pieces at the end does so with the last
 * destination, which is not the one in the header now.
 */
static void pieces_of_a_routed_packet_are_good_at_their_end(void **state)
{
    struct fake_packet packet = { .ip6 = true, .payload = 3001, .ip_options = 24, .flags = 0x18 };
    uint32_t transport = fake_packet_transport(&packet), total = 20 + packet.payload, done = 0;
    uint8_t *ip = raw + 14;
    struct fake_pool p;
    struct offload_cut cut;
    struct frame *frame, *piece;
    (void)state;

    for (unsigned left = 0; left < 2; left++) {
        fake_pool_make(&p, 8, 80);
        (void)fake_packet_build(&packet, raw, true);
        ip[6] = 43;
        ip[42] = 2;
        ip[43] = (uint8_t)left;
        memset(ip + 48, 0xd7, 16);
        uint8_t now_to[16], last[16];
        memcpy(now_to, ip + 24, 16);
        memcpy(last, left ? ip + 48 : now_to, 16);
        memcpy(ip + 24, last, 16);
        be16_put(raw + transport + 16, fake_pseudo(ip, 6, total));
        memcpy(ip + 24, now_to, 16);
        frame = fake_frame(&p, raw, transport + total);
        frame->checksum = FRAME_CHECKSUM_MISSING;
        frame->checksum_start = (uint16_t)transport;
        frame->checksum_offset = 16;
        frame->gso = FRAME_GSO_TCP6;
        frame->gso_bytes = 1000;
        assert_null(offload_check(frame));
        assert_true(offload_cut_begin(&cut, frame, true));
        for (done = 0; (piece = offload_cut_next(&cut, &p.pool)); frame_put(piece)) {
            uint32_t bytes = (uint32_t)frame_read(piece, 0, flat, sizeof(flat)) - transport;
            memcpy(flat + 14 + 24, last, 16);
            assert_int_equal(fake_sum(flat + transport, bytes, fake_pseudo(flat + 14, 6, bytes)), 0xffff);
            done += bytes - 20;
        }
        assert_int_equal(done, packet.payload);
        frame_put(frame);
        fake_pool_free(&p);
    }
}

static void cutting_stops_cleanly_without_memory(void **state)
{
    struct fake_packet packet = { .payload = 10000 };
    struct fake_pool p, small;
    struct offload_cut cut;
    struct frame *frame, *piece[2];

    (void)state;
    fake_pool_make(&p, 2, 80);
    fake_pool_make(&small, 2, 2);
    frame = partial(&p, &packet);
    frame->gso = FRAME_GSO_TCP4;
    frame->gso_bytes = 1000;
    assert_null(offload_check(frame));
    assert_true(offload_cut_begin(&cut, frame, true));
    piece[0] = offload_cut_next(&cut, &small.pool);
    piece[1] = offload_cut_next(&cut, &small.pool);
    assert_true(piece[0] && piece[1] && !cut.failed);
    assert_null(offload_cut_next(&cut, &small.pool));
    assert_true(cut.failed);
    frame_put(frame);
    assert_int_equal(frame_read(piece[1], 54, flat, 4), 4); /* the pieces keep it alive */
    assert_int_equal(flat[0], fake_payload(1000));
    frame_put(piece[0]);
    frame_put(piece[1]);
    fake_pool_free(&small);
    fake_pool_free(&p);
}

/* ---- What is refused ---- */

static const char *judge(struct fake_pool *p, void (*spoil)(struct frame *frame, uint8_t *bytes), bool ip6)
{
    struct fake_packet packet = { .ip6 = ip6, .payload = 3000 };
    uint32_t bytes = fake_packet_build(&packet, raw, true);
    struct frame model = { .checksum = FRAME_CHECKSUM_MISSING, .checksum_start = ip6 ? 54 : 34, .checksum_offset = 16,
                           .gso = ip6 ? FRAME_GSO_TCP6 : FRAME_GSO_TCP4, .gso_bytes = 1000, .bytes = bytes };
    struct frame *frame;
    const char *reason;

    spoil(&model, raw);
    frame = fake_frame(p, raw, model.bytes);
    frame_copy_facts(frame, &model);
    reason = offload_check(frame);
    frame_put(frame);
    return reason;
}

static void good(struct frame *frame, uint8_t *bytes)
{
    (void)frame, (void)bytes;
}
static void sum_beyond(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum_start = (uint16_t)(frame->bytes - 17);
}
static void sum_wraps(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum_start = frame->checksum_offset = 65535;
}
static void sum_in_address(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum_start = 13;
}
static void sum_at_the_end(struct frame *frame, uint8_t *bytes)
{
    frame->bytes = FRAME_BYTES_MAX;
    frame->checksum_start = 65530;
    frame->gso = FRAME_GSO_NONE;
    (void)bytes;
}
static void no_size(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->gso_bytes = 0;
}
static void tiny_size(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->gso_bytes = 1;
}
static void no_sum(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum = FRAME_CHECKSUM_THERE;
}
static void other_ip(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->gso ^= FRAME_GSO_TCP4 ^ FRAME_GSO_TCP6;
}
static void other_type(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[13] = 6;
}
static void short_ip(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[14] = 0x44;
}
static void version(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[14] ^= 0x10;
}
static void long_ip(struct frame *frame, uint8_t *bytes)
{
    bytes[16] = 0xff;
    bytes[18] = 0xff;
    (void)frame;
}
static void fragment(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[20] |= 0x20;
}
static void not_tcp(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[23] = bytes[20] = 17;
}
static void short_tcp(struct frame *frame, uint8_t *bytes)
{
    bytes[frame->checksum_start + 12] = 0x40;
}
static void long_tcp(struct frame *frame, uint8_t *bytes)
{
    bytes[frame->checksum_start + 12] = 0xf0;
    frame->bytes = frame->checksum_start + 24u;
    be16_put(bytes + (frame->gso == FRAME_GSO_TCP4 ? 16 : 18), frame->gso == FRAME_GSO_TCP4 ? 44 : 24);
}
static void cut_off(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->bytes = 60;
}
static void other_place(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum_start += 2;
}
static void other_field(struct frame *frame, uint8_t *bytes)
{
    (void)bytes;
    frame->checksum_offset = 6;
}
static void endless_options(struct frame *frame, uint8_t *bytes)
{
    (void)frame;
    bytes[20] = 60;
    memset(bytes + 54, 60, 200);
}

static void what_a_frame_asks_for_is_checked(void **state)
{
    static void (*const both[])(struct frame *, uint8_t *) = {
        sum_beyond, sum_wraps, sum_in_address, sum_at_the_end, no_size, tiny_size, no_sum,    other_ip,    other_type,
        version,    long_ip,   not_tcp,        short_tcp, long_tcp, cut_off, other_place, other_field,
    };
    struct fake_pool p;

    (void)state;
    fake_pool_make(&p, 4, 80);
    assert_null(judge(&p, good, false));
    assert_null(judge(&p, good, true));
    for (unsigned i = 0; i < ARRAY_COUNT(both); i++) {
        assert_non_null(judge(&p, both[i], false));
        assert_non_null(judge(&p, both[i], true));
    }
    assert_non_null(judge(&p, short_ip, false));
    assert_non_null(judge(&p, fragment, false));
    assert_non_null(judge(&p, endless_options, true));
    fake_pool_free(&p);
}

static void random_headers_never_lead_outside(void **state)
{
    struct fake_pool p;

    (void)state;
    fake_pool_make(&p, 300, 400);
    for (unsigned round = 0; round < 20000; round++) {
        struct fake_packet packet = { .ip6 = below(2), .tags = below(3), .payload = below(600),
                                      .ip_options = 8 * below(3) };
        struct frame *frame = partial(&p, &packet), *piece;
        struct offload_cut cut;
        uint32_t total = 0;

        frame->gso = packet.ip6 ? FRAME_GSO_TCP6 : FRAME_GSO_TCP4;
        frame->gso_bytes = (uint16_t)(1 + below(300));
        for (unsigned i = below(4); i; i--)
            frame->segment[0].at[12 + below(60)] = (uint8_t)below(256);
        if (below(4) == 0)
            frame->segment[0].bytes = frame->bytes = 1 + below(frame->bytes);
        (void)offload_flow(frame);
        if (!offload_check(frame)) {
            assert_true(offload_cut_begin(&cut, frame, true));
            while ((piece = offload_cut_next(&cut, &p.pool))) {
                total += piece->bytes - frame->header_bytes;
                frame_put(piece);
            }
            assert_true(!cut.failed && total + frame->header_bytes <= frame->bytes);
        }
        frame_put(frame);
    }
    fake_pool_free(&p);
}

/* ---- Tags and flows ---- */

static void a_tag_goes_behind_the_addresses(void **state)
{
    struct fake_packet packet = { .payload = 100 };
    struct fake_pool p;
    struct frame *frame, *tagged, *done;

    (void)state;
    fake_pool_make(&p, 4, 8);
    frame = partial(&p, &packet);
    frame->tagged = true;
    frame->tci = 0xa123;
    tagged = offload_tag(&p.pool, frame);
    assert_int_equal(tagged->bytes, frame->bytes + 4);
    assert_false(tagged->tagged);
    frame_read(tagged, 0, flat, sizeof(flat));
    assert_memory_equal(flat, raw, 12);
    assert_memory_equal(flat + 12, "\x81\x00\xa1\x23", 4);
    assert_memory_equal(flat + 16, raw + 12, frame->bytes - 12);
    done = offload_checksum(&p.pool, tagged); /* its place moved with it */
    fake_packet_build(&packet, expected, false);
    frame_read(done, 0, flat, sizeof(flat));
    assert_memory_equal(flat + 16, expected + 12, frame->bytes - 12);
    frame_put(frame);
    frame_put(tagged);
    frame_put(done);
    fake_pool_free(&p);
}

static void both_directions_are_one_flow(void **state)
{
    struct fake_pool p;
    unsigned used[4] = { 0 };

    (void)state;
    fake_pool_make(&p, 4, 8);
    for (unsigned port = 0; port < 64; port++) {
        for (unsigned ip6 = 0; ip6 < 2; ip6++) {
            struct fake_packet packet = { .ip6 = ip6, .payload = 10 };
            uint32_t bytes = fake_packet_build(&packet, raw, true), at = fake_packet_transport(&packet), there;
            unsigned half = ip6 ? 16 : 4, first = ip6 ? 22 : 26;
            struct frame *frame;
            uint8_t swap[16];

            be16_put(raw + at, (uint16_t)(40000 + port));
            frame = fake_frame(&p, raw, bytes);
            there = offload_flow(frame);
            used[there % 4]++;
            frame_put(frame);
            memcpy(swap, raw + first, half);
            memcpy(raw + first, raw + first + half, half);
            memcpy(raw + first + half, swap, half);
            memcpy(swap, raw + at, 2);
            memcpy(raw + at, raw + at + 2, 2);
            memcpy(raw + at + 2, swap, 2);
            frame = fake_frame(&p, raw, bytes);
            assert_int_equal(offload_flow(frame), there);
            frame_put(frame);
        }
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(used[i] >= 10); /* of 128 */
    fake_pool_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_holds_what_was_written),
        cmocka_unit_test(memory_comes_back_with_the_last_reference),
        cmocka_unit_test(a_queue_says_when_there_is_room),
        cmocka_unit_test(frames_cross_between_two_threads),
        cmocka_unit_test(sums_are_the_plain_ones_whatever_the_segments),
        cmocka_unit_test(a_missing_checksum_is_completed),
        cmocka_unit_test(a_udp_checksum_of_zero_is_sent_as_ffff),
        cmocka_unit_test(large_packets_are_cut_as_a_sender_would),
        cmocka_unit_test(cutting_stops_cleanly_without_memory),
        cmocka_unit_test(pieces_of_a_routed_packet_are_good_at_their_end),
        cmocka_unit_test(what_a_frame_asks_for_is_checked),
        cmocka_unit_test(random_headers_never_lead_outside),
        cmocka_unit_test(a_tag_goes_behind_the_addresses),
        cmocka_unit_test(both_directions_are_one_flow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
