/* SPDX-License-Identifier: MIT */
/*
 * Echo requests of ICMP and ICMPv6 (RFC 792, RFC 4443), for `net ping`. Whoever asks has a struct net_ping; those that wait
 * are in a list. A reply is one that has the identifier and the sequence number of a request, and comes from its address,
 * with all the bytes that were sent: lwIP hands packets over before it has looked at ICMP's checksum.
 */
#include <string.h>

#include "kernel/time.h"
#include "net/network.h"

#include "lwip/icmp.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/raw.h"

#define REPLY4 0
#define REPLY6 129

static struct raw_pcb *pcb4, *pcb6;
static struct net_ping *waiting;

static bool same(const struct net_address *a, const ip_addr_t *b)
{
    if (IP_IS_V6(b))
        return a->family == NET_IPV6 && !memcmp(a->bytes, ip_2_ip6(b)->addr, 16);
    return a->family == NET_IPV4 && !memcmp(a->bytes, &ip_2_ip4(b)->addr, 4);
}

static uint8_t data_byte(unsigned i)
{
    return (uint8_t)(i + (i >> 8));
}

/* The data behind `at` is what was sent. */
static bool same_data(const struct net_ping *ping, const struct pbuf *p, unsigned at)
{
    if (p->tot_len != at + ping->bytes)
        return false;
    for (unsigned i = 0; i < ping->bytes; i++)
        if (pbuf_get_at(p, (u16_t)(at + i)) != data_byte(i))
            return false;
    return true;
}

/* 1: the packet was a reply for us, and is eaten; 0: lwIP goes on with it. */
static u8_t arrived(void *arg, struct raw_pcb *pcb, struct pbuf *p, const ip_addr_t *from)
{
    struct icmp_echo_hdr echo;
    u16_t header = IP_IS_V6(from) ? ip_current_header_tot_len() : (u16_t)(IPH_HL_BYTES((struct ip_hdr *)p->payload));
    (void)arg;
    (void)pcb;

    if (pbuf_copy_partial(p, &echo, sizeof echo, header) != sizeof echo ||
        echo.type != (IP_IS_V6(from) ? REPLY6 : REPLY4))
        return 0;
    for (struct net_ping *ping = waiting; ping; ping = ping->next) {
        if (ping->done || echo.id != lwip_htons(ping->id) || echo.seqno != lwip_htons(ping->sequence) ||
            !same(&ping->to, from) || !same_data(ping, p, header + sizeof echo))
            continue;
        ping->answered_ns = time_now_ns();
        ping->done = true;
        net_notify();
        (void)pbuf_free(p);
        return 1;
    }
    return 0;
}

void ping_init(void)
{
    pcb4 = raw_new_ip_type(IPADDR_TYPE_V4, IP_PROTO_ICMP);
    pcb6 = raw_new_ip_type(IPADDR_TYPE_V6, IP6_NEXTH_ICMP6);
    if (pcb4) {
        raw_recv(pcb4, arrived, NULL);
        (void)raw_bind(pcb4, IP4_ADDR_ANY);
    }
    if (pcb6) {
        raw_recv(pcb6, arrived, NULL);
        (void)raw_bind(pcb6, IP6_ADDR_ANY);
        pcb6->chksum_reqd = 1;
        pcb6->chksum_offset = 2;
    }
}

static const char *problem_of(err_t error)
{
    switch (error) {
    case ERR_RTE: return "there is no way there: no network of this node has an address and a gateway for it";
    case ERR_MEM:
    case ERR_BUF: return "the network's memory is used up";
    default: return "the card did not take it";
    }
}

void net_ping_begin(void *arg)
{
    struct net_ping *ping = arg;
    bool v6 = ping->to.family == NET_IPV6;
    struct raw_pcb *pcb = v6 ? pcb6 : pcb4;
    struct pbuf *p = pbuf_alloc(PBUF_IP, (u16_t)(sizeof(struct icmp_echo_hdr) + ping->bytes), PBUF_RAM);
    ip_addr_t to;
    err_t error;

    ping->next = waiting;
    waiting = ping;
    ping->sent_ns = time_now_ns();
    if (!p || !pcb) {
        ping->problem = problem_of(ERR_MEM);
        if (p)
            (void)pbuf_free(p);
        return;
    }
    memset(&to, 0, sizeof to);
    IP_SET_TYPE_VAL(to, v6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
    memcpy(v6 ? (void *)ip_2_ip6(&to)->addr : (void *)&ip_2_ip4(&to)->addr, ping->to.bytes, v6 ? 16 : 4);

    struct icmp_echo_hdr *echo = p->payload;
    echo->type = v6 ? ICMP6_TYPE_EREQ : ICMP_ECHO;
    echo->code = 0;
    echo->chksum = 0;
    echo->id = lwip_htons(ping->id);
    echo->seqno = lwip_htons(ping->sequence);
    for (unsigned i = 0; i < ping->bytes; i++)
        ((uint8_t *)(echo + 1))[i] = data_byte(i);
    if (!v6)
        echo->chksum = inet_chksum(echo, p->len);
    error = raw_sendto(pcb, p, &to);
    (void)pbuf_free(p);
    if (error != ERR_OK)
        ping->problem = problem_of(error);
    ping->sent = error == ERR_OK;
}

void net_ping_end(void *arg)
{
    for (struct net_ping **link = &waiting; *link; link = &(*link)->next) {
        if (*link == arg) {
            *link = (*link)->next;
            return;
        }
    }
}
