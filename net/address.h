/* SPDX-License-Identifier: MIT */
/*
 * Addresses as an admin writes them: MAC, IPv4, IPv6, a prefix length behind a slash. Pure; without printf, for the loader
 * reads the configuration too. Addresses are bytes in the order of the wire.
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include "kernel/status.h"
#include "kernel/types.h"

#define NET_ADDRESS_TEXT 48 /* the longest text of any address with a prefix, and its NUL */

enum net_family { NET_NONE, NET_IPV4, NET_IPV6 };

struct net_address {
    enum net_family family;
    uint8_t bytes[16]; /* IPv4: the first four */
    uint8_t prefix;    /* bits of the network; where none was written, all */
};

static inline unsigned net_address_bits(enum net_family family)
{
    return family == NET_IPV4 ? 32 : family == NET_IPV6 ? 128 : 0;
}

/* Six pairs of hexadecimal digits with colons (or hyphens) between. False: it is none, and mac is unchanged. */
bool text_to_mac(const char *text, uint8_t mac[6]) MUST_CHECK;
void mac_to_text(const uint8_t mac[6], char text[18]);

/*
 * "10.0.0.1", "10.0.0.1/24", "fd00::1", "fd00::1/64" (RFC 4291, 2.2; no zone). IPv4 is four decimal numbers without leading
 * zeros. False: it is none, and *address is unchanged.
 */
bool text_to_address(const char *text, struct net_address *address) MUST_CHECK;
/* As RFC 5952 wants it; with the prefix where it is shorter than the address and `prefix` is set. "-" for NET_NONE. */
void address_to_text(const struct net_address *address, bool prefix, char text[NET_ADDRESS_TEXT]);

/* Both in the network that a's prefix tells. */
bool net_address_same_network(const struct net_address *a, const struct net_address *b);

#endif
