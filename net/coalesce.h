/* SPDX-License-Identifier: MIT */
/*
 * Receive coalescing: TCP segments that came in one batch and follow each other in one connection become one packet, for
 * a receiver whose cost is by the packet. Pure: it judges the bytes of frames and rewrites the first one's header; who
 * calls it holds the frames, puts the payloads behind each other, and ends the packet with each batch, so that nothing
 * ever waits for a frame to come.
 *
 * Who reads the joined packet must not be able to tell it from one that the sender might have sent. So a segment joins
 * only if
 *
 *   - it is TCP right behind Ethernet and IPv4 without options, or IPv6 without extension headers, whole (no fragment,
 *     all of it in the frame), with payload, and IPv4's header checksum and TCP's own were verified;
 *   - of TCP's flags it has ACK, perhaps PSH, and no other: SYN, FIN, RST, URG, and ECE and CWR, go by themselves;
 *   - both addresses of Ethernet and of IP, the ports, the kind of service (ECN's mark in it) or flow label, the time to
 *     live, the fragment bits, the acknowledged number, the window and all options, byte by byte, are those of the packet;
 *     so no acknowledgement is swallowed, and with timestamps only segments of the same stamp join;
 *   - its sequence number is the next one: no gap, no overlap, no repetition;
 *   - the whole does not get longer than an IPv4 packet can be, or than COALESCE_SEGMENTS_MAX segments.
 *
 * Any other frame ends the packet and goes behind it, so frames of one sender are never reordered.
 */
#ifndef NET_COALESCE_H
#define NET_COALESCE_H

#include "kernel/types.h"

#define COALESCE_SEGMENTS_MAX 32u
#define COALESCE_BYTES_MAX 65535u  /* with the Ethernet header: lengths have 16 bits in lwIP */
#define COALESCE_HEADER_MAX 114u   /* Ethernet, IPv6, TCP with 40 bytes of options */

enum coalesce_verdict {
    COALESCE_ALONE,  /* a frame that others may not join */
    COALESCE_BEGINS, /* one that may be the next packet's first; its checksums are right */
    COALESCE_JOINS,  /* its payload belongs behind the packet's; its checksums are right */
};

/* A packet that segments join. All zeros: there is none. */
struct coalesce {
    uint32_t segment_count;              /* 0: there is no packet */
    uint8_t header[COALESCE_HEADER_MAX]; /* of its first segment */
    uint32_t header_bytes;               /* up to the first segment's payload */
    uint32_t frame_bytes;                /* of the whole, from Ethernet's header on */
    uint32_t next_sequence;
    bool is_ip6, push;                   /* push: one of them has PSH */
};

/* A segment in its frame: TCP's header, its payload, and the end of the packet, behind which there may be padding. */
struct coalesce_segment {
    uint32_t tcp, payload, end;
    bool is_ip6;
};

/*
 * Judges a frame of `count` bytes from the destination address on, all at `frame`. `is_good`: TCP's checksum was verified
 * already, else it is here, where it matters. Unless the frame is ALONE, *segment tells where the segment is. Nothing
 * changes: unless it JOINS, the caller ends the packet before anything else.
 */
enum coalesce_verdict coalesce_judge(const struct coalesce *packet, const uint8_t *frame, uint32_t count, bool is_good,
                                     struct coalesce_segment *segment);

/* Makes a frame that BEGINS a packet; there is none. */
void coalesce_begin(struct coalesce *packet, const uint8_t *frame, const struct coalesce_segment *segment);

/* Counts a frame that JOINS; the caller puts [payload, end) of it behind what the packet has. */
void coalesce_join(struct coalesce *packet, const uint8_t *frame, const struct coalesce_segment *segment);

/*
 * Ends the packet, if there is one, and makes the headers in its first frame those of the whole: length, IPv4's checksum,
 * PSH. TCP's own checksum stays the first segment's: the receiver has to be told that it is not to be looked at. A packet
 * of one segment is left as it is.
 */
void coalesce_end(struct coalesce *packet, uint8_t *first_frame);

#endif
