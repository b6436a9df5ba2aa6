/* SPDX-License-Identifier: MIT */
/*
 * Any frames into receive coalescing: no offset leads out of its frame, no packet outgrows its bounds, and a joined packet's
 * header has its length and checksum right. The input is a list of frames, each behind two bytes: what helps it (bits of
 * `help` below), and its length (in units of 4 bytes).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/bytes.h"
#include "net/checksum.h"
#include "net/coalesce.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum help {
    IS_GOOD = 1, /* its TCP checksum counts as right */
    REPAIR = 2,  /* IPv4's checksum is made right */
    FOLLOW = 4,  /* it has the header of the one before, and its sequence number follows */
    END = 8,     /* the packet is ended first */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct coalesce packet = { 0 };
    struct coalesce_segment segment;
    uint8_t first[2048] = { 0 };
    uint32_t payload = 0;

    while (size > 2) {
        unsigned help = data[0];
        size_t count = data[1] * 4u;
        data += 2;
        size -= 2;
        count = count < size ? count : size;
        uint8_t *frame = malloc(count + 1);
        memcpy(frame, data, count);
        uint8_t *ip = frame + 14;
        if (help & FOLLOW && packet.segment_count && count > packet.header_bytes) {
            unsigned ip_bytes = packet.is_ip6 ? 40 : 20;
            memcpy(frame, packet.header, packet.header_bytes);
            be16_put(ip + (packet.is_ip6 ? 4 : 2), (uint16_t)(count - 14 - (packet.is_ip6 ? 40 : 0)));
            be32_put(ip + ip_bytes + 4, packet.next_sequence);
        }
        if (help & REPAIR && count >= 34 && ip[0] == 0x45) {
            uint16_t sum = 0;
            memcpy(ip + 10, &sum, 2);
            sum = (uint16_t)~net_checksum(ip, 20);
            memcpy(ip + 10, &sum, 2);
        }
        frame = realloc(frame, count ? count : 1);
        enum coalesce_verdict verdict = coalesce_judge(&packet, frame, (uint32_t)count, help & IS_GOOD, &segment);
        if ((help & END && verdict == COALESCE_JOINS))
            verdict = COALESCE_BEGINS;
        if (verdict != COALESCE_JOINS && packet.segment_count) {
            bool is_ip6 = packet.is_ip6;
            uint32_t header = packet.header_bytes;
            coalesce_end(&packet, first);
            assert(!packet.segment_count);
            assert(be16_get(first + 14 + (is_ip6 ? 4 : 2)) == header - 14 - (is_ip6 ? 40 : 0) + payload);
            assert(is_ip6 || net_checksum(first + 14, 20) == 0xffff);
        }
        if (verdict != COALESCE_ALONE) {
            assert(segment.tcp + 20 <= segment.payload && segment.payload < segment.end && segment.end <= count);
            payload = (verdict == COALESCE_JOINS ? payload : 0) + segment.end - segment.payload;
        }
        if (verdict == COALESCE_BEGINS) {
            memcpy(first, frame, segment.end);
            coalesce_begin(&packet, frame, &segment);
        } else if (verdict == COALESCE_JOINS) {
            coalesce_join(&packet, frame, &segment);
        }
        assert(packet.segment_count <= COALESCE_SEGMENTS_MAX);
        assert(!packet.segment_count || packet.frame_bytes == packet.header_bytes + payload);
        free(frame);
        data += count;
        size -= count;
    }
    return 0;
}
