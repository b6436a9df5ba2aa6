/* SPDX-License-Identifier: MIT */
/*
 * A network: lwIP's interface at a port of its card's switch, in the network's VLAN. No guest is needed for that: the
 * switch is what joins the card and the node, and tags and tells apart what is on the card.
 *
 * Received frames are copied once, into lwIP's buffers, and never kept. Segments of one connection that came in one batch
 * are joined into one packet, a chain of these buffers (coalesce.h), for what a packet costs lwIP, and everything above it,
 * depends little on its length. Jumbo frames, which take several buffers each, are not. Sent ones are not copied: the frame's segments
 * are lwIP's buffers, and a reference keeps them until the last of all receivers is done, which may be a guest: frames
 * come back on a list, in any context, and are given to lwIP in the service's. What lwIP may change after it has handed
 * it over (PBUF_NEEDS_COPY) is copied; a segment of TCP's it leaves alone while somebody else holds it.
 *
 * A frame that the card has no room for is not lost but refused, and TCP comes back with it.
 */
#include "net/network.h"

#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/text.h"
#include "kernel/time.h"
#include "net/card.h"

#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/mld6.h"
#include "lwip/pbuf.h"
#include "lwip/prot/dhcp.h"
#include "netif/ethernet.h"

#define CHECKED_ELSEWHERE (NETIF_CHECKSUM_ENABLE_ALL & ~(NETIF_CHECKSUM_CHECK_UDP | NETIF_CHECKSUM_CHECK_TCP))
#define CONFLICT_NS (60 * NS_PER_S)
#define OTHER_CONFLICT_NS (15 * NS_PER_S)
#define DELAY_MAX_NS (200 * NS_PER_MS) /* of the first probe: many nodes may start at once */
#define SENDING 512 /* frames of all networks that are on their way */
#define SENDING_TO_GUESTS 128 /* of them on their way, and frames to guests are refused */
#define PIECES_MAX (NIC_MAX_PIECES - 2) /* of them; a tag makes two more */

/* ---- Addresses that somebody else has ---- */

/* The log is told once a minute, of another station a little sooner: what they are called is up to them. */
static void tell_duplicate(struct network *n, uint64_t now_ns)
{
    uint64_t again_ns = n->told_other == n->duplicate.other ? CONFLICT_NS : OTHER_CONFLICT_NS;

    if (n->conflict_ns && now_ns - n->conflict_ns < again_ns)
        return;
    n->told_other = n->duplicate.other;
    n->conflict_ns = now_ns;
    network_notice(n, now_ns, n->notice, sizeof n->notice);
    log_error("network %s: %s", n->config->name, n->notice);
}

void network_notice(const struct network *n, uint64_t now_ns, char *text, size_t text_bytes)
{
    const struct duplicate *d = &n->duplicate;
    struct net_address address = { .family = NET_IPV4, .prefix = 32 };
    uint8_t bytes[ETH_ADDRESS_BYTES];
    char ip[NET_ADDRESS_TEXT], mac[18], who[120];

    *text = 0;
    if (!duplicate_is_there(d, now_ns))
        return;
    memcpy(address.bytes, d->address, sizeof d->address);
    address_to_text(&address, false, ip);
    eth_address_put(bytes, d->other);
    mac_to_text(bytes, mac);
    if (n->other_guest[0])
        snprintf(who, sizeof who, "%s (%s)", n->other_guest, mac);
    else
        snprintf(who, sizeof who, "the station %s", mac);
    if (n->offered)
        snprintf(text, text_bytes, "%s uses %s, which DHCP offered, so it was declined; give that station another address, or "
                                   "take this one from the server's range", who, ip);
    else if (d->taken)
        snprintf(text, text_bytes, "%s uses %s, so this node does not; give one of them another address", who, ip);
    else
        snprintf(text, text_bytes, "%s uses this node's address %s too; give one of them another address", who, ip);
}

static void send_bytes(struct network *n, const uint8_t *bytes, unsigned count)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)count, PBUF_RAM);

    if (!p)
        return; /* it is not the last one */
    memcpy(p->payload, bytes, count);
    (void)n->netif.linkoutput(&n->netif, p);
    (void)pbuf_free(p);
}

static void take_address(struct network *n)
{
    const struct config_network *c = n->config;
    ip4_addr_t address, mask, gateway;

    memcpy(&address.addr, c->address.bytes, 4);
    mask.addr = lwip_htonl(0xffffffffu << (32 - c->address.prefix));
    memcpy(&gateway.addr, c->gateway.bytes, 4);
    n->conflict_ns = 0; /* if he comes back, that is news */
    netif_set_addr(&n->netif, &address, &mask, &gateway); /* which announces it */
}

static void carry_out(struct network *n, unsigned what, const uint8_t *frame, uint64_t now_ns)
{
    if (what & DUPLICATE_TELL)
        tell_duplicate(n, now_ns);
    if (what & DUPLICATE_SEND)
        send_bytes(n, frame, ANNOUNCE_BYTES);
    if (what & DUPLICATE_TAKE)
        take_address(n);
}

/* Of the address that DHCP has offered, lwIP finds out by itself whether somebody has it; the admin is told here. */
static const uint8_t *offered_address(const struct network *n)
{
    const struct dhcp *dhcp = netif_dhcp_data(&n->netif);

    return dhcp && dhcp->state == DHCP_STATE_CHECKING ? (const uint8_t *)&dhcp->offered_ip_addr.addr : NULL;
}

/* The guest's port on this node that the frame comes from, or NULL. The switch lets a guest send from its own address alone. */
static const struct vswitch_port *guest_of(const struct network *n, const struct frame *frame, uint64_t now_ns)
{
    uint8_t source[ETH_ADDRESS_BYTES];

    if (frame_read(frame, ETH_ADDRESS_BYTES, source, sizeof source) != sizeof source)
        return NULL;
    const struct vswitch_port *from = vswitch_where(&n->card->sw, n->config->vlan, eth_address(source), now_ns);
    return from && from->single && from != &n->vport ? from : NULL;
}

/* True: lwIP is not to see it, for a guest could keep the node from every address that DHCP offers. */
static bool watch_for_duplicate(struct network *n, const struct frame *frame)
{
    uint8_t arp[DUPLICATE_ARP_BYTES], answer[ANNOUNCE_BYTES];
    uint64_t now_ns = time_now_ns();
    const uint8_t *offered = offered_address(n);

    if (frame_read(frame, ETH_HEADER_BYTES, arp, sizeof arp) != sizeof arp)
        return false;
    const struct vswitch_port *guest = guest_of(n, frame, now_ns);
    if (offered && !n->duplicate.in_use) {
        duplicate_watch(&n->duplicate, eth_address(n->netif.hwaddr), offered, false, false, 0, now_ns);
        n->offered = !guest;
    }
    unsigned what = duplicate_arp(&n->duplicate, arp, guest, answer, now_ns);
    if (what & DUPLICATE_TELL)
        str_copy(n->other_guest, sizeof n->other_guest, guest ? guest->port->name : "");
    carry_out(n, what, answer, now_ns);
    return guest && offered && what & DUPLICATE_TELL;
}

/* The interface's address is another one now, or the link is back. */
static void watch_address(struct network *n)
{
    static const uint8_t none[4];
    const uint8_t *own = (const uint8_t *)&netif_ip4_addr(&n->netif)->addr;
    uint64_t mac = eth_address(n->netif.hwaddr), delay_ns = mac % DELAY_MAX_NS, now_ns = time_now_ns();
    bool has = !ip4_addr_isany(netif_ip4_addr(&n->netif)), up = netif_is_link_up(&n->netif);

    if (n->config->ipv4 == CONFIG_ADDRESS_STATIC)
        duplicate_watch(&n->duplicate, mac, n->config->address.bytes, has, up, delay_ns, now_ns);
    else if (has || !n->offered)
        duplicate_watch(&n->duplicate, mac, has ? own : none, has, false, 0, now_ns);
    if (has)
        n->offered = false;
}

/* lwIP looks for duplicates of IPv6 addresses (RFC 4862, 5.4), and says nothing. */
static void tell_duplicates6(struct network *n)
{
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        struct net_address address = { .family = NET_IPV6, .prefix = 128 };
        char text[NET_ADDRESS_TEXT];
        if (!ip6_addr_isduplicated(netif_ip6_addr_state(&n->netif, i)) || n->told6 & BIT(i))
            continue;
        n->told6 |= BIT(i);
        memcpy(address.bytes, netif_ip6_addr(&n->netif, i)->addr, 16);
        address_to_text(&address, false, text);
        log_error("network %s: another station has %s, so this node does not use it; give one of them another address",
                  n->config->name, text);
    }
}

void network_tick(struct network *n, uint64_t now_ns)
{
    uint8_t frame[ANNOUNCE_BYTES];

    if (!n->card || n->problem)
        return;
    if (n->config->ipv4 == CONFIG_ADDRESS_STATIC && netif_is_link_up(&n->netif))
        carry_out(n, duplicate_tick(&n->duplicate, frame, now_ns), frame, now_ns);
    tell_duplicates6(n);
}

/* ---- Receiving ---- */

/* Input is done with the packet, or has put it aside as a fragment, when it returns: the setting is this packet's alone. */
static void input(struct network *n, struct pbuf *p, bool is_checked)
{
    NETIF_SET_CHECKSUM_CTRL(&n->netif, is_checked ? CHECKED_ELSEWHERE : NETIF_CHECKSUM_ENABLE_ALL);
    if (n->netif.input(p, &n->netif) != ERR_OK)
        (void)pbuf_free(p);
}

void network_flush(struct network *n)
{
    unsigned i = n->packet.segment_count;

    if (!i)
        return;
    for (i--; i; i--) {
        n->parts[i - 1]->next = n->parts[i];
        n->parts[i - 1]->tot_len = (u16_t)(n->parts[i - 1]->len + n->parts[i]->tot_len);
    }
    coalesce_end(&n->packet, n->parts[0]->payload);
    input(n, n->parts[0], true);
}

/* A frame in one buffer: joined to what came before it, or what others may join, or for lwIP at once. */
static void coalesce(struct network *n, struct pbuf *p, bool is_checked)
{
    struct coalesce_segment segment;
    enum coalesce_verdict verdict = coalesce_judge(&n->packet, p->payload, p->len, is_checked, &segment);

    if (verdict != COALESCE_JOINS)
        network_flush(n);
    if (verdict == COALESCE_ALONE) {
        input(n, p, is_checked);
        return;
    }
    if (verdict == COALESCE_BEGINS)
        coalesce_begin(&n->packet, p->payload, &segment);
    else
        coalesce_join(&n->packet, p->payload, &segment);
    p->len = p->tot_len = (u16_t)segment.end; /* without padding */
    if (verdict == COALESCE_JOINS)
        (void)pbuf_remove_header(p, segment.payload);
    n->parts[n->packet.segment_count - 1] = p;
}

static bool give(struct netport *port, struct frame *frame)
{
    struct network *n = CONTAINER_OF(port, struct network, port);
    bool is_checked = frame->checksum != FRAME_CHECKSUM_THERE;
    uint8_t type[2];

    if (frame_read(frame, ETH_TYPE_OFFSET, type, sizeof type) == sizeof type && be16_get(type) == ETH_TYPE_ARP &&
        watch_for_duplicate(n, frame))
        return true;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)frame->bytes, PBUF_POOL);
    if (!p) {
        n->dropped++;
        return false;
    }
    uint32_t at = 0;
    for (struct pbuf *q = p; q; q = q->next)
        at += (uint32_t)frame_read(frame, at, q->payload, q->len);
    n->received_frames++;
    n->received_bytes += frame->bytes;
    if (!p->next) {
        coalesce(n, p, is_checked);
    } else {
        network_flush(n);
        input(n, p, is_checked);
    }
    return true;
}

static void batch_is_over(struct netport *port)
{
    network_flush(CONTAINER_OF(port, struct network, port));
}

static const struct netport_ops network_port = { .give = give, .flush = batch_is_over };

/* ---- Sending ---- */

/* A frame of lwIP's buffers. */
struct sending {
    struct frame frame; /* first member */
    struct pbuf *buffers;
};

static struct sending *sendings;
static struct frame *free_sendings;
static unsigned sending_count; /* that are not free */
static struct frame *returned; /* atomic: from any context */

static void come_back(struct frame_owner *owner, struct frame *frame)
{
    struct frame *first = __atomic_load_n(&returned, __ATOMIC_RELAXED);
    (void)owner;

    do
        frame->next = first;
    while (!__atomic_compare_exchange_n(&returned, &first, frame, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static struct frame_owner sending_owner = { come_back };

static bool make_sendings(void)
{
    if (sendings)
        return true;
    sendings = kzalloc(SENDING * sizeof *sendings);
    for (unsigned i = 0; sendings && i < SENDING; i++) {
        sendings[i].frame.next = free_sendings;
        free_sendings = &sendings[i].frame;
    }
    return sendings;
}

void network_collect(void)
{
    struct frame *frame = __atomic_load_n(&returned, __ATOMIC_RELAXED);

    if (!frame)
        return;
    for (frame = __atomic_exchange_n(&returned, NULL, __ATOMIC_ACQUIRE); frame;) {
        struct frame *next = frame->next;
        (void)pbuf_free(((struct sending *)frame)->buffers);
        frame->next = free_sendings;
        free_sendings = frame;
        sending_count--;
        frame = next;
    }
}

/* True if the buffers can be sent as they lie: not too many, where cards can read them, and not to be changed. */
static bool can_lend(const struct pbuf *p)
{
    unsigned count = 0;
    hpa_t hpa;

    for (; p; p = p->next)
        if (PBUF_NEEDS_COPY(p) || ++count > PIECES_MAX || (p->len && !net_physical(p->payload, p->len, &hpa)))
            return false;
    return true;
}

/* A frame of the buffers, with a reference to them or to a copy; NULL: no memory. */
static struct frame *frame_of(struct pbuf *p)
{
    if (!free_sendings)
        network_collect();
    struct frame *frame = free_sendings;
    if (!frame)
        return NULL;
    if (can_lend(p))
        pbuf_ref(p);
    else if (!(p = pbuf_clone(PBUF_RAW, PBUF_RAM, p)))
        return NULL;
    free_sendings = frame->next;
    sending_count++;
    frame_init(frame, &sending_owner);
    ((struct sending *)frame)->buffers = p;
    frame->checksum = FRAME_CHECKSUM_GOOD;
    frame->bytes = p->tot_len;
    for (; p; p = p->next)
        if (p->len)
            frame->segment[frame->segment_count++] = (struct frame_segment){ p->payload, p->len };
    return frame;
}

/*
 * Frames that wait at guests leave enough for the node's own work: past SENDING_TO_GUESTS no more go to one. (An address that
 * does not lie in one piece is nobody's business here: it is then as if it were unknown.)
 */
static bool may_send(struct network *n, const struct pbuf *p, uint64_t now_ns)
{
    if (sending_count >= SENDING_TO_GUESTS)
        network_collect();
    if (sending_count < SENDING_TO_GUESTS || p->len < ETH_ADDRESS_BYTES)
        return true;
    struct vswitch_port *to = vswitch_where(&n->card->sw, n->config->vlan, eth_address(p->payload), now_ns);
    return !to || !to->port->outbox.size;
}

static err_t output(struct netif *netif, struct pbuf *p)
{
    struct network *n = netif->state;
    struct card *card = n->card;
    uint64_t now_ns = time_now_ns();
    struct frame *frame = card->nic->link_up && may_send(n, p, now_ns) ? frame_of(p) : NULL;

    if (!frame) {
        n->dropped++;
        return card->nic->link_up ? ERR_MEM : ERR_CONN;
    }
    card->refused = false;
    bool was = card_own(card, true);
    vswitch_input(&card->sw, &n->vport, frame, now_ns);
    (void)card_own(card, was);
    frame_put(frame);
    if (card->refused) {
        n->dropped++;
        return ERR_MEM;
    }
    n->sent_frames++;
    n->sent_bytes += p->tot_len;
    return ERR_OK;
}

/* ---- The interface ---- */

void network_link(struct card *card)
{
    for (struct network *n = card->networks; n; n = n->next_on_card) {
        if (card->nic->link_up)
            netif_set_link_up(&n->netif);
        else
            netif_set_link_down(&n->netif);
        if (card->nic->link_up)
            watch_address(n);
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
    if (dhcp)
        watch_address(n);
    n->said = info.address;
    n->said_gateway = info.gateway;
    address_to_text(&info.address, true, address);
    address_to_text(&info.gateway, false, gateway);
    if (info.address.family)
        log_info("network %s: address %s, gateway %s%s", n->config->name, address, gateway, dhcp ? ", by DHCP" : "");
    else if (had)
        log_warning("network %s: its address is gone%s", n->config->name, dhcp ? "; no DHCP server renews it" : "");
}

/* 33:33 and the address's last four bytes (RFC 2464, 7). */
static err_t mld_filter(struct netif *netif, const ip6_addr_t *group, enum netif_mac_filter_action action)
{
    struct network *n = netif->state;
    uint8_t mac[6] = { 0x33, 0x33 };

    memcpy(mac + 2, &group->addr[3], 4);
    card_multicast(n->card, mac, action == NETIF_ADD_MAC_FILTER);
    return ERR_OK;
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
    struct vswitch_port_config port = { .vlan = config->vlan };
    ip4_addr_t none = { 0 };

    n->card = card;
    if (!make_sendings() || card_join(card, time_now_ns()) != OK) {
        n->problem = "no memory for it";
        return false;
    }
    n->port = (struct netport){ .ops = &network_port, .name = config->name, .mac = eth_address(card->nic->mac),
                                .mtu = config->mtu, .offloads = NETPORT_CHECKSUM, .link = 1 };
    if (vswitch_attach(&card->sw, &n->vport, &n->port, &port, time_now_ns()) != OK) {
        n->problem = "another network has this card and VLAN";
        return false;
    }
    if (!netif_add(&n->netif, &none, &none, &none, n, init, ethernet_input)) {
        vswitch_detach(&card->sw, &n->vport);
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
    watch_address(n);
    if (config->ipv4 == CONFIG_ADDRESS_AUTO && dhcp_start(&n->netif) != ERR_OK)
        n->problem = "no memory for DHCP";
    return true;
}
