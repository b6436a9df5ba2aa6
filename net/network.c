/* SPDX-License-Identifier: MIT */
/*
 * A network: lwIP's interface on a card.
 *
 * Received frames are copied once, from the card's buffer into lwIP's, so that the card's buffers never wait for a peer.
 * Sent ones are not copied: the card reads lwIP's buffers, and a reference keeps them until it is done. A VLAN tag is four
 * bytes of constant memory, sent as a piece of its own between the addresses and the type.
 */
#include "net/network.h"

#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/page.h"
#include "kernel/time.h"

#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/mld6.h"
#include "lwip/pbuf.h"
#include "netif/ethernet.h"

#define ADDRESSES_BYTES 12
#define TYPE_VLAN 0x8100
#define TYPE_ARP 0x0806
#define ARP_BYTES 28
#define VLAN_MASK 0x0fff
#define CHECKED_BY_CARD \
    (NETIF_CHECKSUM_ENABLE_ALL & ~(NETIF_CHECKSUM_CHECK_UDP | NETIF_CHECKSUM_CHECK_TCP))
#define CONFLICT_NS (60 * NS_PER_S)

/* ---- Receiving ---- */

static void copy_out(const struct nic_received *frame, uint32_t from, void *to, uint32_t bytes)
{
    for (unsigned i = 0; i < frame->piece_count && bytes; i++) {
        uint32_t here = frame->piece[i].bytes;
        if (from >= here) {
            from -= here;
            continue;
        }
        uint32_t count = MIN(here - from, bytes);
        memcpy(to, (const uint8_t *)frame->piece[i].data + from, count);
        to = (uint8_t *)to + count;
        bytes -= count;
        from = 0;
    }
}

/* Somebody else says that our address is his (RFC 5227, 2.4, as far as an admin is told). */
static void watch_for_duplicate(struct network *n, const struct nic_received *frame, uint32_t at)
{
    uint8_t arp[ARP_BYTES];
    uint32_t own = netif_ip4_addr(&n->netif)->addr;
    uint64_t now = time_now_ns();

    if (!own || frame->bytes - at < ARP_BYTES)
        return;
    copy_out(frame, at, arp, ARP_BYTES);
    if (memcmp(arp + 14, &own, 4) || !memcmp(arp + 8, n->netif.hwaddr, 6) ||
        (n->conflict_ns && now - n->conflict_ns < CONFLICT_NS))
        return;
    n->conflict_ns = now;
    log_error("network %s: the station %02x:%02x:%02x:%02x:%02x:%02x uses this node's address %u.%u.%u.%u too; give one of "
              "them another address", n->config->name, arp[8], arp[9], arp[10], arp[11], arp[12], arp[13], arp[14], arp[15],
              arp[16], arp[17]);
}

void network_receive(struct nic *nic, const struct nic_received *frame)
{
    struct card *card = nic->user_data;
    uint8_t head[ADDRESSES_BYTES + 6];
    uint16_t type, vlan = 0;
    uint32_t skip = 0;
    struct network *n;

    if (frame->bytes < sizeof head)
        return; /* nothing that is sent on Ethernet is so short */
    copy_out(frame, 0, head, sizeof head);
    type = (uint16_t)(head[12] << 8 | head[13]);
    if (type == TYPE_VLAN) {
        vlan = (uint16_t)((head[14] << 8 | head[15]) & VLAN_MASK);
        type = (uint16_t)(head[16] << 8 | head[17]);
        skip = NIC_VLAN_BYTES;
    }
    for (n = card->networks; n && n->config->vlan != vlan; n = n->next_on_card)
        ;
    if (!n)
        return;
    if (type == TYPE_ARP)
        watch_for_duplicate(n, frame, NIC_HEADER_BYTES + skip);
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)(frame->bytes - skip), PBUF_POOL);
    if (!p) {
        n->dropped++;
        return;
    }
    uint32_t at = 0;
    for (struct pbuf *q = p; q; q = q->next) {
        uint32_t to_addresses = at < ADDRESSES_BYTES ? MIN(ADDRESSES_BYTES - at, (uint32_t)q->len) : 0;
        copy_out(frame, at, q->payload, to_addresses);
        copy_out(frame, at + to_addresses + skip, (uint8_t *)q->payload + to_addresses, q->len - to_addresses);
        at += q->len;
    }
    n->received_frames++;
    n->received_bytes += frame->bytes;
    /* Input is done with the frame, or has put it aside as a fragment, when it returns: the setting is this frame's alone. */
    NETIF_SET_CHECKSUM_CTRL(&n->netif, frame->checksum_good ? CHECKED_BY_CARD : NETIF_CHECKSUM_ENABLE_ALL);
    if (n->netif.input(p, &n->netif) != ERR_OK)
        (void)pbuf_free(p);
}

/* ---- Sending ---- */

/* The pieces of a frame where they lie; false: some of it is where no card can read it, or it is too many. */
static bool pieces_of(const struct network *n, const struct pbuf *p, struct nic_send *send)
{
    unsigned count = 0;
    bool tagged = !n->tag;

    for (; p; p = p->next) {
        const uint8_t *from = p->payload;
        uint32_t bytes = p->len;
        if (!bytes)
            continue;
        if (count + 3 > NIC_MAX_PIECES)
            return false;
        if (!tagged) {
            if (bytes < ADDRESSES_BYTES || !net_physical(from, ADDRESSES_BYTES, &send->piece[count].hpa))
                return false;
            send->piece[count++].bytes = ADDRESSES_BYTES;
            if (!net_physical(n->tag, NIC_VLAN_BYTES, &send->piece[count].hpa))
                return false;
            send->piece[count++].bytes = NIC_VLAN_BYTES;
            from += ADDRESSES_BYTES;
            bytes -= ADDRESSES_BYTES;
            tagged = true;
            if (!bytes)
                continue;
        }
        if (!net_physical(from, bytes, &send->piece[count].hpa))
            return false;
        send->piece[count++].bytes = bytes;
    }
    send->piece_count = count;
    return count > 0;
}

static bool volatile_data(const struct pbuf *p)
{
    for (; p; p = p->next)
        if (PBUF_NEEDS_COPY(p))
            return true;
    return false;
}

static err_t output(struct netif *netif, struct pbuf *p)
{
    struct network *n = netif->state;
    struct nic_send send = { .checksum_at = 0 };
    struct nic *nic = n->card->nic;

    if (volatile_data(p) || !pieces_of(n, p, &send)) {
        struct pbuf *copy = pbuf_clone(PBUF_RAW, PBUF_RAM, p);
        if (!copy || !pieces_of(n, copy, &send)) {
            if (copy)
                (void)pbuf_free(copy);
            n->dropped++;
            return ERR_MEM;
        }
        p = copy;
    } else {
        pbuf_ref(p);
    }
    send.cookie = p;
    if (!nic->ops->send(nic, &send)) {
        (void)pbuf_free(p);
        n->dropped++;
        return nic->link_up ? ERR_MEM : ERR_CONN;
    }
    n->sent_frames++;
    n->sent_bytes += p->tot_len;
    return ERR_OK;
}

void network_sent(struct nic *nic, void *cookie)
{
    (void)nic;
    (void)pbuf_free(cookie);
}

/* ---- The interface ---- */

void network_link(struct nic *nic)
{
    struct card *card = nic->user_data;

    if (nic->link_up)
        log_info("%s: the link is up, %u Mbit/s, %s duplex", nic->name, nic->mbps, nic->full_duplex ? "full" : "half");
    else
        log_warning("%s: the link is down", nic->name);
    for (struct network *n = card->networks; n; n = n->next_on_card) {
        if (nic->link_up)
            netif_set_link_up(&n->netif);
        else
            netif_set_link_down(&n->netif);
    }
}

static void from_ip4(const ip4_addr_t *from, struct net_address *to)
{
    *to = (struct net_address){ .family = from->addr ? NET_IPV4 : NET_NONE, .prefix = 32 };
    memcpy(to->bytes, &from->addr, 4);
}

void network_address_get(const struct network *n, struct net_info *info)
{
    uint32_t mask = lwip_ntohl(netif_ip4_netmask(&n->netif)->addr);
    unsigned count = 0;

    from_ip4(netif_ip4_addr(&n->netif), &info->address);
    if (info->address.family)
        info->address.prefix = (uint8_t)(mask ? 32 - __builtin_ctz(mask) : 0);
    from_ip4(netif_ip4_gw(&n->netif), &info->gateway);
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES && count < ARRAY_COUNT(info->address6); i++) {
        if (!ip6_addr_isvalid(netif_ip6_addr_state(&n->netif, i)))
            continue;
        struct net_address *a = &info->address6[count++];
        *a = (struct net_address){ .family = NET_IPV6, .prefix = 64 };
        memcpy(a->bytes, netif_ip6_addr(&n->netif, i)->addr, 16);
    }
}

static bool equal(const struct net_address *a, const struct net_address *b)
{
    return a->family == b->family && a->prefix == b->prefix && !memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

/* lwIP calls this for anything that changed; the log is told of IPv4 addresses that came or went. */
static void address_changed(struct netif *netif)
{
    struct network *n = netif->state;
    struct net_info info = { .name = n->config->name };
    char address[NET_ADDRESS_TEXT], gateway[NET_ADDRESS_TEXT];
    bool had = n->said.family != NET_NONE, dhcp = n->config->ipv4 == CONFIG_ADDRESS_AUTO;

    network_address_get(n, &info);
    if (equal(&info.address, &n->said) && equal(&info.gateway, &n->said_gateway))
        return;
    n->said = info.address;
    n->said_gateway = info.gateway;
    address_to_text(&info.address, true, address);
    address_to_text(&info.gateway, false, gateway);
    if (info.address.family)
        log_info("network %s: address %s, gateway %s%s", n->config->name, address, gateway, dhcp ? ", by DHCP" : "");
    else if (had)
        log_warning("network %s: its address is gone%s", n->config->name, dhcp ? "; no DHCP server renews it" : "");
}

static void set_filter(struct card *card)
{
    uint8_t list[NIC_MAX_MULTICAST + 1][6];
    unsigned count = card->multicast_count;

    for (unsigned i = 0; i < count; i++)
        memcpy(list[i], card->multicast[i].mac, 6);
    if (card->multicast_left_out)
        count = NIC_MAX_MULTICAST + 1; /* more than a card is told one by one: all */
    card->nic->ops->filter(card->nic, false, (const uint8_t (*)[6])list, count);
}

/* Multicast addresses of a card, counted: several networks and protocols may want one. */
static err_t multicast(struct card *card, const uint8_t mac[6], bool add)
{
    struct multicast *m = card->multicast, *end = m + card->multicast_count;

    while (m < end && memcmp(m->mac, mac, 6))
        m++;
    if (m < end && add) {
        m->users++;
        return ERR_OK;
    }
    if (add) {
        if (card->multicast_count == NIC_MAX_MULTICAST) {
            card->multicast_left_out++;
        } else {
            memcpy(m->mac, mac, 6);
            m->users = 1;
            card->multicast_count++;
        }
    } else if (m == end) {
        if (card->multicast_left_out)
            card->multicast_left_out--;
    } else if (--m->users == 0) {
        *m = card->multicast[--card->multicast_count];
    } else {
        return ERR_OK;
    }
    set_filter(card);
    return ERR_OK;
}

/* 33:33 and the address's last four bytes (RFC 2464, 7). */
static err_t mld_filter(struct netif *netif, const ip6_addr_t *group, enum netif_mac_filter_action action)
{
    struct network *n = netif->state;
    uint8_t mac[6] = { 0x33, 0x33 };

    memcpy(mac + 2, &group->addr[3], 4);
    return multicast(n->card, mac, action == NETIF_ADD_MAC_FILTER);
}

static err_t init(struct netif *netif)
{
    struct network *n = netif->state;

    netif->name[0] = 'n';
    netif->name[1] = 'w';
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = output;
    netif->mld_mac_filter = mld_filter;
    netif->hwaddr_len = 6;
    memcpy(netif->hwaddr, n->card->nic->mac, 6);
    netif->mtu = n->config->mtu;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_MLD6;
    return ERR_OK;
}

static void set_ipv6(struct network *n)
{
    ip6_addr_t all_nodes;

    if (n->config->ipv6 == CONFIG_ADDRESS_NONE)
        return;
    /* Routers advertise to all nodes, a group that nobody joins: lwIP takes it for granted that the card lets it in. */
    ip6_addr_set_allnodes_linklocal(&all_nodes);
    (void)mld_filter(&n->netif, &all_nodes, NETIF_ADD_MAC_FILTER);
    netif_create_ip6_linklocal_address(&n->netif, 1);
    if (n->config->ipv6 == CONFIG_ADDRESS_AUTO) {
        netif_set_ip6_autoconfig_enabled(&n->netif, 1);
    } else {
        ip6_addr_t address;
        memset(&address, 0, sizeof address);
        memcpy(address.addr, n->config->address6.bytes, 16);
        netif_ip6_addr_set(&n->netif, 1, &address);
        netif_ip6_addr_set_state(&n->netif, 1, IP6_ADDR_TENTATIVE);
    }
}

bool network_open(struct network *n, struct card *card, const char *hostname)
{
    const struct config_network *config = n->config;
    ip4_addr_t address = { 0 }, mask = { 0 }, gateway = { 0 };

    n->card = card;
    if (config->vlan) {
        n->tag = kzalloc(16);
        if (!n->tag) {
            n->problem = "no memory for it";
            return false;
        }
        n->tag[0] = TYPE_VLAN >> 8;
        n->tag[2] = (uint8_t)(config->vlan >> 8);
        n->tag[3] = (uint8_t)config->vlan;
    }
    if (config->ipv4 == CONFIG_ADDRESS_STATIC) {
        memcpy(&address.addr, config->address.bytes, 4);
        mask.addr = lwip_htonl(0xffffffffu << (32 - config->address.prefix));
        memcpy(&gateway.addr, config->gateway.bytes, 4);
    }
    if (!netif_add(&n->netif, &address, &mask, &gateway, n, init, ethernet_input)) {
        n->problem = "no memory for it";
        return false;
    }
    n->next_on_card = card->networks;
    card->networks = n;
    netif_set_hostname(&n->netif, hostname);
    netif_set_status_callback(&n->netif, address_changed);
    netif_set_up(&n->netif);
    if (card->nic->link_up)
        netif_set_link_up(&n->netif);
    set_ipv6(n);
    if (config->ipv4 == CONFIG_ADDRESS_STATIC)
        address_changed(&n->netif);
    if (config->ipv4 == CONFIG_ADDRESS_AUTO && dhcp_start(&n->netif) != ERR_OK)
        n->problem = "no memory for DHCP";
    return true;
}
