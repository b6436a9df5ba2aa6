/* SPDX-License-Identifier: MIT */
/*
 * Duplicate IPv4 addresses (RFC 5227): whether a station on the LAN uses an address that this node has, or is to have.
 *
 * A configured address is asked for by probes before it is used: it becomes the interface's when nobody answers, and is left
 * alone and asked for again from time to time while somebody does. One that is in use is defended by an announcement, at most
 * once in DUPLICATE_DEFEND_NS, and never given up (RFC 5227, 2.4 c): the node's storage hangs on it. After the link was away
 * it is asked for again, and stays in use meanwhile.
 *
 * Pure: time is an argument, frames go out by the caller. One context, the network service's thread (net/network.c).
 */
#ifndef NET_DUPLICATE_H
#define NET_DUPLICATE_H

#include "kernel/types.h"
#include "net/announce.h"

#define DUPLICATE_PROBES 3
#define DUPLICATE_PROBE_NS UINT64_C(300000000)
#define DUPLICATE_WAIT_NS UINT64_C(500000000) /* after the last probe */
#define DUPLICATE_AGAIN_NS UINT64_C(15000000000)
#define DUPLICATE_DEFEND_NS UINT64_C(10000000000)
#define DUPLICATE_RECENT_NS UINT64_C(120000000000) /* so long after the last sign of it it is told as present */
#define DUPLICATE_ARP_BYTES 28

struct duplicate {
    uint64_t mac;            /* the node's; that of net/ethernet.h */
    uint8_t address[4];      /* zeros: none */
    bool in_use;             /* it is the interface's */
    bool taken;              /* not in use, for somebody else has it */
    unsigned probes;         /* to be sent */
    uint64_t next_ns;        /* the next step; UINT64_MAX: none */
    uint64_t other;          /* who used it last */
    uint64_t seen_ns;        /* when; 0: nobody ever */
    uint64_t defended_ns;    /* 0: never */
};

/* What is to be done; a set. */
enum duplicate_do {
    DUPLICATE_SEND = 1, /* the frame goes out */
    DUPLICATE_TAKE = 2, /* the address is free: it is the interface's from now on */
    DUPLICATE_TELL = 4, /* somebody (`other`) uses it */
};

/*
 * Watches over the address from now on. in_use: it is the interface's already. probe: it is asked for, from delay_ns on; not
 * in_use without probe makes no sense.
 */
void duplicate_watch(struct duplicate *d, uint64_t mac, const uint8_t address[4], bool in_use, bool probe, uint64_t delay_ns,
                     uint64_t now_ns);
/*
 * An ARP packet came, without its Ethernet header; `guest`: from one on this node, which is told of, but does not keep the node
 * from an address. A set of enum duplicate_do, with the frame for DUPLICATE_SEND.
 */
unsigned duplicate_arp(struct duplicate *d, const uint8_t arp[DUPLICATE_ARP_BYTES], bool guest, uint8_t frame[ANNOUNCE_BYTES],
                       uint64_t now_ns) MUST_CHECK;
/* Time has passed. Likewise. To be called every 100 ms or so. */
unsigned duplicate_tick(struct duplicate *d, uint8_t frame[ANNOUNCE_BYTES], uint64_t now_ns) MUST_CHECK;
/* Somebody uses the address, as far as is known now. */
bool duplicate_is_there(const struct duplicate *d, uint64_t now_ns) MUST_CHECK;

#endif
