/* SPDX-License-Identifier: MIT */
/*
 * What hardware may have been asked to do with a frame, done in software: the Internet checksum (RFC 1071), and
 * cutting a large TCP packet into pieces (over IPv4 and IPv6). Also the reading of headers that this needs, and
 * checking the word of whoever asked for it. Pure; any context but for the pool's, which is the caller's.
 *
 * Frames are never changed: the results are new frames, with headers of their own and the payload of the first one,
 * which they hold as their parent.
 */
#ifndef NET_OFFLOAD_H
#define NET_OFFLOAD_H

#include "net/frame.h"

#define OFFLOAD_HEADER_MAX 256u /* up to the end of the TCP header: two tags, IPv6 with extensions, TCP options */
#define OFFLOAD_PIECES_MAX 256u /* of one frame; more are refused: a guest may not multiply its work by thousands */

/* Where the headers of a frame are. Offsets count from the destination address. */
struct offload_headers {
    uint8_t bytes[OFFLOAD_HEADER_MAX]; /* the first `count` bytes of the frame, copied */
    uint32_t count;
    uint16_t type;            /* EtherType behind further tags */
    uint32_t network;         /* of the IP header */
    bool is_ip6, is_fragment;
    bool is_routed;           /* its destination is not the last one (RFC 8200, 4.4) */
    uint8_t protocol;         /* of the transport header; 0 where there is none to be seen */
    uint32_t transport;       /* of the transport header */
    uint32_t packet_bytes;    /* of the IP packet, by its own header */
};

/*
 * Finds the headers. False: no IPv4 or IPv6 packet that is consistent as far as its transport header (lengths,
 * versions); in particular all lengths are within the frame, and `transport` within `count`.
 */
bool offload_headers(const struct frame *frame, struct offload_headers *h);

/*
 * Checks what the frame asks for, against its bytes: a checksum must lie within the frame; a frame to be cut must be a
 * TCP packet of that version of IP, unfragmented, its checksum asked for at the right place, not cut into more than
 * OFFLOAD_PIECES_MAX. Sets header_bytes from the frame's own headers, and `ecn` from CWR. NULL, or what is wrong. For
 * who takes frames in from outside; everything below relies on it.
 */
const char *offload_check(struct frame *frame);

/* The sum of RFC 1071 (not complemented) over [offset, offset + count), which is within the frame; odd ends padded. */
uint16_t offload_sum(const struct frame *frame, uint32_t offset, uint32_t count);

/* A frame like this one with its missing checksum computed. NULL: no memory. One reference is the caller's. */
struct frame *offload_checksum(struct frame_pool *pool, struct frame *frame);

/* A frame like this one with its tag among its bytes, and no longer in `tci`. NULL: no memory. It must be tagged. */
struct frame *offload_tag(struct frame_pool *pool, struct frame *frame);

/* Cutting: begin, then next until it gives NULL. */
struct offload_cut {
    struct frame *frame;
    struct offload_headers headers;
    uint32_t done;       /* bytes of payload in pieces so far */
    uint32_t piece_count;
    bool checksum;       /* complete the checksums; else they stay missing in each piece */
    bool failed;         /* the pool was empty, pieces are missing */
};

/* The frame has passed offload_check and is held by the caller until the end. False: it is not to be cut. */
bool offload_cut_begin(struct offload_cut *cut, struct frame *frame, bool checksum);
/* The next piece, in order; one reference is the caller's. NULL: that was all, or cut->failed. */
struct frame *offload_cut_next(struct offload_cut *cut, struct frame_pool *pool);

/* The same number for both directions of a TCP or UDP flow, or of a pair of addresses; else 0. */
uint32_t offload_flow(const struct frame *frame);

#endif
