/* SPDX-License-Identifier: MIT */
/*
 * Frames that tell a LAN where a station is now, so that its switches send to the right port: after a VM has moved, or
 * a node has come up. Pure.
 */
#ifndef NET_ANNOUNCE_H
#define NET_ANNOUNCE_H

#include "kernel/types.h"

#define ANNOUNCE_BYTES 60u /* the smallest frame of a wire */

/*
 * A broadcast "reverse request" for the station's own address (RFC 903): for who does not know the IP addresses behind
 * it, as is so with a VM. Switches learn the port from its source; hosts ignore it.
 */
void announce_rarp(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac);

/*
 * A gratuitous ARP request (RFC 5944, 4.6): hosts also put a new MAC address into their tables. `ip4`: four bytes, in
 * the order of the wire.
 */
void announce_arp(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac, const uint8_t ip4[4]);

/* An ARP probe (RFC 5227, 2.1.1): asks whether somebody has the address, and changes nobody's table. */
void announce_probe(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac, const uint8_t ip4[4]);

#endif
