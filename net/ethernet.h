/* SPDX-License-Identifier: MIT */
/*
 * Words of the wire that every part of net/ uses: Ethernet addresses and types, and integers in the network's byte
 * order (big-endian) at any address. Pure.
 */
#ifndef NET_ETHERNET_H
#define NET_ETHERNET_H

#include <string.h>

#include "kernel/bytes.h"
#include "kernel/types.h"

#define ETH_ADDRESS_BYTES 6
#define ETH_HEADER_BYTES 14u
#define ETH_TYPE_OFFSET 12u
#define ETH_TAG_BYTES 4u      /* an IEEE 802.1Q tag: its type and the tag control information */
#define ETH_MIN_BYTES 60u     /* without the checksum at the end (IEEE 802.3, 4A.2.3.2.4); who sends pads */

#define ETH_TYPE_IPV4 0x0800u
#define ETH_TYPE_ARP 0x0806u
#define ETH_TYPE_RARP 0x8035u
#define ETH_TYPE_VLAN 0x8100u
#define ETH_TYPE_SERVICE_VLAN 0x88a8u
#define ETH_TYPE_IPV6 0x86ddu
#define ETH_TYPE_MAC_CONTROL 0x8808u /* PAUSE frames: between two ends of one cable */

#define VLAN_ID_MASK 0x0fffu
#define VLAN_IDS 4096u
#define VLAN_ID_RESERVED 0xfffu /* IEEE 802.1Q, table 9-2 */

#define IP_PROTOCOL_TCP 6u
#define IP_PROTOCOL_UDP 17u

/* An address as a number, for tables and comparisons: the first byte is the highest of 48 bits. */
static inline uint64_t eth_address(const uint8_t *p)
{
    return (uint64_t)be16_get(p) << 32 | be32_get(p + 2);
}
static inline void eth_address_put(uint8_t *p, uint64_t address)
{
    be16_put(p, (uint16_t)(address >> 32));
    be32_put(p + 2, (uint32_t)address);
}

#define ETH_BROADCAST 0xffffffffffffull

/* Multicast and broadcast addresses. */
static inline bool eth_is_group(uint64_t address)
{
    return address >> 40 & 1;
}

/* 01-80-c2-00-00-00 to -0f: meant for the other end of the cable, never passed on by a bridge (IEEE 802.1Q, 8.6.3). */
static inline bool eth_is_link_local(uint64_t address)
{
    return (address & ~0xfull) == 0x0180c2000000ull;
}

/* An address that a station can have: neither a group nor all zeros. */
static inline bool eth_is_station(uint64_t address)
{
    return address && !eth_is_group(address);
}

#endif
