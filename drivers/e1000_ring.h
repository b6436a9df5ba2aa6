/* SPDX-License-Identifier: MIT */
/*
 * Descriptor rings of the Intel gigabit family in their legacy format, which all its members have: what the driver and the
 * card tell each other in memory. Pure core over memory that it is given; the doorbells (tail registers) are the driver's.
 *
 * Both rings: `next` is the oldest descriptor that the card has, `tail` the first that it has not; equal means empty, so
 * one descriptor always stays unused. A descriptor is looked at only when the card has set its "done" bit, and that bit is
 * read before everything else. Section numbers: Intel, PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual, 317453-006.
 */
#ifndef DRIVERS_E1000_RING_H
#define DRIVERS_E1000_RING_H

#include "kernel/types.h"

#define E1000_RING_MAX 4096 /* descriptors; a multiple of 8 */

/* 3.2.3 */
struct e1000_receive {
    uint64_t address;
    uint16_t bytes, checksum;
    uint8_t status, errors;
    uint16_t special;
};
_Static_assert(sizeof(struct e1000_receive) == 16, "317453, table 3-1");
#define E1000_RECEIVE_DONE 0x01
#define E1000_RECEIVE_END 0x02            /* the frame's last */
#define E1000_RECEIVE_NO_CHECKSUM 0x04    /* the card looked at no checksum */
#define E1000_RECEIVE_TCP_CHECKSUM 0x20   /* it looked at TCP's or UDP's */
#define E1000_RECEIVE_IP_CHECKSUM 0x40
#define E1000_ERROR_TCP_CHECKSUM 0x20
#define E1000_ERROR_IP_CHECKSUM 0x40
#define E1000_ERROR_FRAME 0x97            /* CRC, symbol, sequence, carrier extension, data: the frame is damaged */

/* 3.3.3 */
struct e1000_transmit {
    uint64_t address;
    uint16_t bytes;
    uint8_t checksum_at, command, status, checksum_start;
    uint16_t special;
};
_Static_assert(sizeof(struct e1000_transmit) == 16, "317453, table 3-8");
#define E1000_TRANSMIT_END 0x01
#define E1000_TRANSMIT_FCS 0x02           /* the card appends the frame's checksum */
#define E1000_TRANSMIT_CHECKSUM 0x04      /* the card inserts one at checksum_at */
#define E1000_TRANSMIT_REPORT 0x08        /* the card sets DONE */
#define E1000_TRANSMIT_DELAY 0x80         /* and interrupts for it a little later */
#define E1000_TRANSMIT_DONE 0x01          /* in status */

/* ---- Receiving ---- */

struct e1000_receive_ring {
    volatile struct e1000_receive *desc;
    unsigned count;      /* of descriptors */
    unsigned next, tail;
    uint32_t buffer_bytes;
};

/* `desc` has room for `count` descriptors, which are cleared. Every buffer has buffer_bytes bytes (a power of two up to 16 KiB). */
void e1000_receive_init(struct e1000_receive_ring *ring, void *desc, unsigned count, uint32_t buffer_bytes);
/* How many more buffers the ring takes. */
unsigned e1000_receive_room(const struct e1000_receive_ring *ring);
/* Gives the card a buffer; there must be room. Returns its place in the ring. */
unsigned e1000_receive_give(struct e1000_receive_ring *ring, uint64_t buffer);

enum e1000_frame {
    E1000_FRAME_NONE,     /* no whole frame yet */
    E1000_FRAME_GOOD,
    E1000_FRAME_DAMAGED,  /* its error bits say so */
    E1000_FRAME_TOO_LONG, /* more than max_pieces or max_bytes */
    E1000_FRAME_NONSENSE, /* a length that its buffer does not have: the card is not right */
};
struct e1000_received {
    unsigned first, count; /* its descriptors: first, first + 1, ... modulo the ring's count */
    uint32_t bytes;
    bool checksum_good;    /* TCP's or UDP's, and IPv4's: looked at and right */
};
/*
 * Takes the oldest whole frame out of the ring: its descriptors are the caller's to give again. In all cases but NONE
 * *frame says which; then at most max_pieces (1 or more) are in a GOOD one. A frame of more descriptors than max_pieces
 * or than the ring can ever hold comes as TOO_LONG, in several calls maybe.
 */
enum e1000_frame e1000_receive_take(struct e1000_receive_ring *ring, unsigned max_pieces, uint32_t max_bytes,
                                    struct e1000_received *frame);
/* The bytes that the card put into descriptor `at` of a frame that was taken. */
uint32_t e1000_receive_bytes(const struct e1000_receive_ring *ring, unsigned at);

/* ---- Sending ---- */

/* What is known of a frame, kept where the card cannot write: by its first descriptor. */
struct e1000_sent {
    void *cookie;
    unsigned end; /* its last descriptor */
};
struct e1000_transmit_ring {
    volatile struct e1000_transmit *desc;
    struct e1000_sent *sent;
    unsigned count;
    unsigned next, tail;
};

/* `desc` and `sent` have room for `count` elements. */
void e1000_transmit_init(struct e1000_transmit_ring *ring, void *desc, struct e1000_sent *sent, unsigned count);
unsigned e1000_transmit_room(const struct e1000_transmit_ring *ring);

struct e1000_piece {
    uint64_t address;
    uint32_t bytes; /* 1..16288 (3.3.3) */
};
/*
 * Puts a frame of `pieces` pieces into the ring. checksum_start and checksum_at (both below 256) as nic_send; 0: none.
 * False, and nothing done: not enough room, no piece, or a piece or a place that a descriptor cannot say.
 */
bool e1000_transmit_put(struct e1000_transmit_ring *ring, const struct e1000_piece *piece, unsigned pieces, void *cookie,
                        unsigned checksum_start, unsigned checksum_at) MUST_CHECK;
/* Takes the oldest frame out if the card is done with it: true, and its cookie. */
bool e1000_transmit_take(struct e1000_transmit_ring *ring, void **cookie);
/* After the card was stopped: takes the oldest frame out, sent or not. */
bool e1000_transmit_drop(struct e1000_transmit_ring *ring, void **cookie);

#endif
