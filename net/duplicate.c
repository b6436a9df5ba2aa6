/* SPDX-License-Identifier: MIT */
/* Duplicate IPv4 addresses. See duplicate.h; the packets are ARP's (RFC 826), as RFC 5227 wants them. */
#include "net/duplicate.h"
#include "net/ethernet.h"

/* In an ARP packet for IPv4 over Ethernet. */
#define ARP_KIND 0           /* hardware type 1, protocol IPv4, lengths 6 and 4 */
#define ARP_OPERATION 6
#define ARP_SENDER_MAC 8
#define ARP_SENDER 14
#define ARP_TARGET 24
#define ARP_REQUEST 1u

static const uint8_t nobody[4];

void duplicate_watch(struct duplicate *d, uint64_t mac, const uint8_t address[4], bool in_use, bool probe, uint64_t delay_ns,
                     uint64_t now_ns)
{
    if (memcmp(d->address, address, 4))
        memset(d, 0, sizeof *d);
    if (in_use && !d->in_use)
        d->seen_ns = 0; /* whoever it was, he is gone */
    d->mac = mac;
    memcpy(d->address, address, 4);
    d->in_use = in_use;
    d->taken &= !in_use;
    d->probes = probe ? DUPLICATE_PROBES : 0;
    d->next_ns = probe ? now_ns + delay_ns : UINT64_MAX;
}

/* The sender uses the address, or, while this node does not, wants to use it, too (RFC 5227, 2.1.1). */
static bool claims(const struct duplicate *d, const uint8_t *arp)
{
    static const uint8_t kind[6] = { 0, 1, 8, 0, 6, 4 };

    if (memcmp(arp + ARP_KIND, kind, sizeof kind) || eth_address(arp + ARP_SENDER_MAC) == d->mac)
        return false;
    if (!memcmp(arp + ARP_SENDER, d->address, 4))
        return true;
    return !d->in_use && be16_get(arp + ARP_OPERATION) == ARP_REQUEST && !memcmp(arp + ARP_SENDER, nobody, 4) &&
           !memcmp(arp + ARP_TARGET, d->address, 4);
}

unsigned duplicate_arp(struct duplicate *d, const uint8_t arp[DUPLICATE_ARP_BYTES], bool guest, uint8_t frame[ANNOUNCE_BYTES],
                       uint64_t now_ns)
{
    if (!memcmp(d->address, nobody, 4) || !claims(d, arp))
        return 0;
    d->other = eth_address(arp + ARP_SENDER_MAC);
    d->seen_ns = now_ns;
    if (!d->in_use && guest)
        return DUPLICATE_TELL;
    if (!d->in_use) {
        d->taken = true;
        d->probes = DUPLICATE_PROBES;
        d->next_ns = now_ns + DUPLICATE_AGAIN_NS;
        return DUPLICATE_TELL;
    }
    if (d->defended_ns && now_ns - d->defended_ns < DUPLICATE_DEFEND_NS)
        return DUPLICATE_TELL;
    d->defended_ns = now_ns;
    announce_arp(frame, d->mac, d->address);
    return DUPLICATE_TELL | DUPLICATE_SEND;
}

unsigned duplicate_tick(struct duplicate *d, uint8_t frame[ANNOUNCE_BYTES], uint64_t now_ns)
{
    if (now_ns < d->next_ns || !memcmp(d->address, nobody, 4))
        return 0;
    if (d->probes) {
        d->next_ns = now_ns + (--d->probes ? DUPLICATE_PROBE_NS : DUPLICATE_WAIT_NS);
        announce_probe(frame, d->mac, d->address);
        return DUPLICATE_SEND;
    }
    d->next_ns = UINT64_MAX;
    if (d->in_use)
        return 0;
    d->in_use = true;
    d->taken = false;
    d->seen_ns = 0;
    return DUPLICATE_TAKE;
}

bool duplicate_is_there(const struct duplicate *d, uint64_t now_ns)
{
    return d->taken || (d->seen_ns && now_ns - d->seen_ns < DUPLICATE_RECENT_NS);
}
