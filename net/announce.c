/* SPDX-License-Identifier: MIT */
/* Announcements (see announce.h): ARP and RARP have one format (RFC 826, RFC 903). */
#include "net/announce.h"
#include "net/ethernet.h"

#define HARDWARE_ETHERNET 1u
#define ARP_REQUEST 1u
#define RARP_REQUEST 3u

static void build(uint8_t *frame, uint16_t type, uint16_t operation, uint64_t mac, uint64_t target, const uint8_t *ip4)
{
    uint8_t *arp = frame + ETH_HEADER_BYTES;

    memset(frame, 0, ANNOUNCE_BYTES);
    eth_address_put(frame, ETH_BROADCAST);
    eth_address_put(frame + ETH_ADDRESS_BYTES, mac);
    be16_put(frame + ETH_TYPE_OFFSET, type);
    be16_put(arp, HARDWARE_ETHERNET);
    be16_put(arp + 2, ETH_TYPE_IPV4);
    arp[4] = ETH_ADDRESS_BYTES;
    arp[5] = 4;
    be16_put(arp + 6, operation);
    eth_address_put(arp + 8, mac);
    memcpy(arp + 14, ip4, 4);
    eth_address_put(arp + 18, target);
    memcpy(arp + 24, ip4, 4);
}

void announce_rarp(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac)
{
    static const uint8_t unknown[4];

    build(frame, ETH_TYPE_RARP, RARP_REQUEST, mac, mac, unknown);
}

void announce_probe(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac, const uint8_t ip4[4])
{
    announce_arp(frame, mac, ip4);
    memset(frame + ETH_HEADER_BYTES + 14, 0, 4);
}

void announce_arp(uint8_t frame[ANNOUNCE_BYTES], uint64_t mac, const uint8_t ip4[4])
{
    build(frame, ETH_TYPE_ARP, ARP_REQUEST, mac, 0, ip4);
}
