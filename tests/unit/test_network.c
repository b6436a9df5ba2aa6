/* SPDX-License-Identifier: MIT */
/*
 * A network on a card that the test plays, with the real lwIP: frames in, frames out. Guarded: a frame goes to the network
 * whose VLAN tag it has and to no other; tags are put in and taken out at the right place; what is sent lies where a card
 * can read it and stays until the card is done; nothing is lost of lwIP's memory however frames are cut, damaged or refused;
 * a station with our address is reported.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_kernel.h"
#include "fake_net_host.h"
#include "kernel/log.h"

#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"

#define OUT 64

static struct out_frame {
    uint8_t bytes[2048];
    unsigned count, pieces;
    void *cookie;
} out[OUT];
static unsigned out_count, groups;
static uint8_t group[NIC_MAX_MULTICAST][6];
static bool card_full, promiscuous, checked_by_card;
static const uint8_t router[6] = { 0x02, 0, 0, 0, 0, 0x01 };


/* ---- The card ---- */

static bool card_send(struct nic *n, const struct nic_send *frame)
{
    struct out_frame *f = &out[out_count];
    (void)n;

    if (card_full)
        return false;
    assert_true(out_count < OUT && frame->piece_count >= 1 && frame->piece_count <= NIC_MAX_PIECES);
    f->count = 0;
    for (unsigned i = 0; i < frame->piece_count; i++) {
        assert_true(frame->piece[i].bytes > 0 && f->count + frame->piece[i].bytes <= sizeof f->bytes);
        memcpy(f->bytes + f->count, (void *)frame->piece[i].hpa.v, frame->piece[i].bytes);
        f->count += frame->piece[i].bytes;
    }
    f->pieces = frame->piece_count;
    f->cookie = frame->cookie;
    out_count++;
    return true;
}
static void card_filter(struct nic *n, bool all, const uint8_t (*multicast)[6], unsigned count)
{
    (void)n;
    promiscuous = all;
    groups = count;
    if (count <= NIC_MAX_MULTICAST)
        memcpy(group, multicast, count * 6);
}
static const struct nic_ops ops = { .send = card_send, .filter = card_filter };

/* The card is done with all that it was given. */
static void card_done(void)
{
    for (unsigned i = 0; i < out_count; i++)
        card_sent(&nic, out[i].cookie);
    network_collect();
    out_count = 0;
}

/* A frame of `count` bytes comes, in pieces of `piece` bytes. */
static void arrive(const uint8_t *bytes, unsigned count, unsigned piece)
{
    struct nic_received frame = { .bytes = count, .checksum_good = checked_by_card };
    uint8_t *copy = malloc(count);

    memcpy(copy, bytes, count);
    for (unsigned at = 0; at < count; at += piece) {
        assert_true(frame.piece_count < NIC_MAX_PIECES);
        frame.piece[frame.piece_count].data = copy + at;
        frame.piece[frame.piece_count++].bytes = MIN(piece, count - at);
    }
    card_receive(&nic, &frame);
    free(copy); /* the card's buffer is its own again */
}

/* ---- Frames ---- */

static unsigned tag(uint8_t *frame, unsigned count, uint16_t vlan)
{
    memmove(frame + 16, frame + 12, count - 12);
    memcpy(frame + 12, (uint8_t[]){ 0x81, 0, (uint8_t)(vlan >> 8), (uint8_t)vlan }, 4);
    return count + 4;
}

/* A station with this MAC and address asks for 10.0.N.11, or answers that it is it. */
static unsigned arp(uint8_t *frame, const uint8_t *mac, const uint8_t *ip, uint8_t n, bool reply)
{
    memset(frame, 0, 60);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00", 9);
    frame[21] = reply ? 2 : 1;
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 28, ip, 4);
    memcpy(frame + 38, (uint8_t[]){ 10, 0, n, 11 }, 4);
    return 60;
}

static uint16_t sum(const uint8_t *bytes, unsigned count)
{
    uint32_t total = 0;

    for (unsigned i = 0; i < count; i += 2)
        total += (uint32_t)bytes[i] << 8 | (i + 1 < count ? bytes[i + 1] : 0);
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)~total;
}

/* An echo request of `data` bytes from 10.0.N.1 to 10.0.N.11. */
static unsigned echo(uint8_t *frame, uint8_t n, unsigned data)
{
    unsigned ip = 20 + 8 + data;

    memset(frame, 0, 14 + ip);
    memcpy(frame, nic.mac, 6);
    memcpy(frame + 6, router, 6);
    memcpy(frame + 12, (uint8_t[]){ 8, 0, 0x45, 0, (uint8_t)(ip >> 8), (uint8_t)ip, 0, 1, 0, 0, 64, 1 }, 12);
    memcpy(frame + 26, (uint8_t[]){ 10, 0, n, 1, 10, 0, n, 11, 8, 0, 0, 0, 0, 7, 0, 9 }, 16);
    for (unsigned i = 0; i < data; i++)
        frame[42 + i] = (uint8_t)i;
    uint16_t header = sum(frame + 14, 20), icmp = sum(frame + 34, 8 + data);
    frame[24] = (uint8_t)(header >> 8);
    frame[25] = (uint8_t)header;
    frame[36] = (uint8_t)(icmp >> 8);
    frame[37] = (uint8_t)icmp;
    return 14 + ip;
}

static void know_router(uint8_t n, uint16_t vlan)
{
    uint8_t frame[64];
    unsigned count = arp(frame, router, (uint8_t[]){ 10, 0, n, 1 }, n, false);

    arrive(frame, vlan ? tag(frame, count, vlan) : count, 2048);
    card_done();
}

/* ---- Set-up: one untagged network, and one on VLAN 100, both on one card ---- */

static int group_setup(void **state)
{
    (void)state;
    net_host_open(&ops, NULL);
    card_done();
    return 0;
}

static unsigned pool_used, heap_used;

static int setup(void **state)
{
    (void)state;
    card_done();
    card_full = checked_by_card = false;
    notified = 0;
    know_router(0, 0);
    know_router(1, 100);
    pool_used = lwip_stats.memp[MEMP_PBUF_POOL]->used;
    heap_used = lwip_stats.mem.used;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    card_done();
    assert_int_equal(lwip_stats.memp[MEMP_PBUF_POOL]->used, pool_used);
    assert_int_equal(lwip_stats.mem.used, heap_used);
    return 0;
}

/* ---- Tests ---- */

static void an_echo_is_answered_however_it_is_cut(void **state)
{
    static const unsigned pieces[] = { 2048, 1000, 100, 75 };
    uint8_t frame[1600];
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(pieces); i++) {
        unsigned count = echo(frame, 0, 1400);
        arrive(frame, count, pieces[i]);
        assert_int_equal(out_count, 1);
        assert_int_equal(out[0].count, count);
        assert_memory_equal(out[0].bytes, router, 6);
        assert_memory_equal(out[0].bytes + 6, nic.mac, 6);
        assert_int_equal(out[0].bytes[34], 0); /* a reply */
        assert_memory_equal(out[0].bytes + 38, frame + 38, count - 38);
        card_done();
    }
}

static void tags_are_taken_out_and_put_in(void **state)
{
    uint8_t frame[1600], plain[1600];
    (void)state;

    for (unsigned piece = 200; piece <= 2048; piece += 924) {
        unsigned count = echo(frame, 1, 1000);
        memcpy(plain, frame, count);
        arrive(frame, tag(frame, count, 100), piece);
        assert_int_equal(out_count, 1);
        assert_int_equal(out[0].count, count + 4);
        assert_memory_equal(out[0].bytes, router, 6);
        assert_memory_equal(out[0].bytes + 12, "\x81\x00\x00\x64\x08\x00", 6);
        assert_memory_equal(out[0].bytes + 42, plain + 38, count - 38);
        card_done();
    }
}

static void no_frame_reaches_another_vlan(void **state)
{
    static const struct { uint8_t network; uint16_t vlan; } wrong[] = { { 0, 100 }, { 1, 0 }, { 1, 101 }, { 0, 1 }, { 1, 0xfff } };
    uint8_t frame[200];
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
        unsigned count = echo(frame, wrong[i].network, 64);
        arrive(frame, wrong[i].vlan ? tag(frame, count, wrong[i].vlan) : count, 2048);
        assert_int_equal(out_count, 0);
    }
    unsigned count = echo(frame, 1, 64);
    arrive(frame, tag(frame, count, 100 | 5 << 13), 2048); /* a priority changes nothing */
    assert_int_equal(out_count, 1);
    card_done();
    count = echo(frame, 0, 64);
    arrive(frame, tag(frame, count, 3 << 13), 2048); /* VLAN 0: only a priority */
    assert_int_equal(out_count, 1);
}

static void short_and_cut_frames_do_no_harm(void **state)
{
    uint8_t frame[200];
    (void)state;

    for (unsigned tagged = 0; tagged < 2; tagged++) {
        unsigned count = echo(frame, (uint8_t)tagged, 64);
        if (tagged)
            count = tag(frame, count, 100);
        for (unsigned cut = NIC_HEADER_BYTES; cut < count; cut++)
            arrive(frame, cut, 2048);
        assert_int_equal(out_count, 0);
    }
}

static void what_the_card_refuses_is_not_leaked(void **state)
{
    uint8_t frame[200];
    uint64_t dropped = networks[0].dropped;
    (void)state;

    card_full = true;
    for (unsigned i = 0; i < 100; i++)
        arrive(frame, echo(frame, 0, 64), 2048);
    assert_int_equal(networks[0].dropped, dropped + 100);
    assert_int_equal(out_count, 0);
}

static void what_is_sent_stays_until_the_card_is_done(void **state)
{
    uint8_t frame[200];
    unsigned count = echo(frame, 0, 64);
    (void)state;

    arrive(frame, count, 2048);
    struct frame *sent = out[0].cookie;
    assert_int_equal(sent->references, 1);
    assert_int_equal(sent->bytes, count);
    uint8_t before[200];
    memcpy(before, sent->segment[0].at, sent->segment[0].bytes);
    for (unsigned i = 0; i < 20; i++)
        arrive(frame, count, 2048);
    assert_memory_equal(before, sent->segment[0].at, sent->segment[0].bytes);
}

static void a_duplicate_address_is_reported_once_a_minute(void **state)
{
    static const uint8_t thief[6] = { 0x02, 0, 0, 0, 0, 0x65 };
    uint8_t frame[64];
    (void)state;

    unsigned errors = fake_log_counts[LOG_ERROR];
    unsigned count = arp(frame, thief, (uint8_t[]){ 10, 0, 0, 11 }, 0, true);
    arrive(frame, count, 2048);
    arrive(frame, count, 2048);
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 1);
    now += 61 * NS_PER_S;
    arrive(frame, count, 2048);
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 2);
    count = arp(frame, thief, (uint8_t[]){ 10, 0, 1, 11 }, 1, true);
    arrive(frame, count, 2048); /* the other network's address, on this one */
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 2);
    arrive(frame, tag(frame, count, 100), 2048);
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 3);
    count = arp(frame, nic.mac, (uint8_t[]){ 10, 0, 0, 11 }, 0, true);
    now += 61 * NS_PER_S;
    arrive(frame, count, 2048); /* our own, come back */
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 3);
}

static const uint8_t thief[6] = { 0x02, 0, 0, 0, 0, 0x66 };

/* Frame number i is ARP from this node, asking for, or telling, 10.0.0.11; true: a probe, which no table is changed by. */
static bool is_probe(unsigned i)
{
    const uint8_t *f = out[i].bytes;

    assert_int_equal(out[i].count, 60);
    assert_memory_equal(f, "\xff\xff\xff\xff\xff\xff", 6);
    assert_memory_equal(f + 6, nic.mac, 6);
    assert_memory_equal(f + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
    assert_memory_equal(f + 22, nic.mac, 6);
    assert_memory_equal(f + 32, "\0\0\0\0\0\0", 6);
    assert_memory_equal(f + 38, "\x0a\0\0\x0b", 4);
    if (!memcmp(f + 28, "\0\0\0\0", 4))
        return true;
    assert_memory_equal(f + 28, "\x0a\0\0\x0b", 4);
    return false;
}

static struct net_info shown(const struct network *n)
{
    struct net_info info = { 0 };

    network_address_get(n, &info);
    network_notice(n, now, info.notice, sizeof info.notice);
    return info;
}

static void an_address_in_use_is_defended_and_kept(void **state)
{
    uint8_t frame[64];
    unsigned count = arp(frame, thief, (uint8_t[]){ 10, 0, 0, 11 }, 0, true);
    (void)state;

    net_host_wait(130 * NS_PER_S);
    card_done();
    assert_string_equal(shown(&networks[0]).notice, "");
    arrive(frame, count, 2048);
    assert_int_equal(out_count, 1);
    assert_false(is_probe(0));
    assert_non_null(strstr(shown(&networks[0]).notice, "02:00:00:00:00:66 uses this node's address 10.0.0.11 too"));
    assert_string_equal(shown(&networks[1]).notice, "");
    for (unsigned i = 0; i < 9; i++) { /* he defends himself, too: that must not become a storm */
        net_host_wait(NS_PER_S);
        arrive(frame, count, 2048);
    }
    assert_int_equal(out_count, 1);
    net_host_wait(2 * NS_PER_S);
    arrive(frame, count, 2048);
    assert_int_equal(out_count, 2);
    assert_int_equal(shown(&networks[0]).address.family, NET_IPV4);
    net_host_wait(121 * NS_PER_S);
    assert_string_equal(shown(&networks[0]).notice, "");
    count = arp(frame, thief, (uint8_t[]){ 0, 0, 0, 0 }, 0, false);
    frame[38 + 3] = 11;
    arrive(frame, count, 2048); /* he asks first, and is told: that is no claim yet */
    assert_string_equal(shown(&networks[0]).notice, "");
}

/* A link that was away: who has come meanwhile is found, and the address stays in use. */
static void after_the_link_was_away_it_is_asked_for_again(void **state)
{
    uint8_t frame[64];
    unsigned probes = 0;
    (void)state;

    net_host_wait(130 * NS_PER_S);
    nic.link_up = false;
    card_link(&nic);
    net_host_wait(NS_PER_S);
    nic.link_up = true;
    card_link(&nic);
    card_done();
    net_host_wait(2 * NS_PER_S);
    for (unsigned i = 0; i < out_count; i++)
        probes += out[i].bytes[12] == 0x08 && is_probe(i);
    assert_int_equal(probes, DUPLICATE_PROBES);
    arrive(frame, arp(frame, thief, (uint8_t[]){ 10, 0, 0, 11 }, 0, true), 2048);
    assert_non_null(strstr(shown(&networks[0]).notice, "too"));
    assert_int_equal(shown(&networks[0]).address.family, NET_IPV4);
    net_host_wait(130 * NS_PER_S);
}

static void tick_one(struct network *n, uint64_t ns)
{
    for (uint64_t end = now + ns; now < end;) {
        now += 100 * NS_PER_MS;
        network_tick(n, now);
        sys_check_timeouts();
    }
}

/* A third network, on VLAN 7; frames come and go with that tag. */
static void open_third(struct network *n, struct config_network *config)
{
    n->config = config;
    assert_true(network_open(n, &card, "node"));
}

static const struct out_frame *third[OUT];

/* Other networks send something now and then, too. */
static unsigned arps_of_third(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < out_count; i++)
        if (!memcmp(out[i].bytes + 12, "\x81\x00\x00\x07\x08\x06", 6))
            third[count++] = &out[i];
    return count;
}

static void an_address_that_somebody_has_is_not_taken(void **state)
{
    static struct network network;
    static struct config_network config = { .name = "third", .mtu = 1500, .vlan = 7, .ipv4 = CONFIG_ADDRESS_STATIC };
    uint8_t frame[64];
    (void)state;

    assert_true(text_to_address("10.0.7.11/24", &config.address));
    open_third(&network, &config);
    unsigned errors = fake_log_counts[LOG_ERROR];
    card_done();
    tick_one(&network, 400 * NS_PER_MS);
    assert_true(out_count >= 1);
    assert_memory_equal(out[0].bytes + 12, "\x81\x00\x00\x07\x08\x06", 6);
    assert_memory_equal(out[0].bytes + 32, "\0\0\0\0", 4);
    card_done();
    assert_int_equal(shown(&network).address.family, NET_NONE);
    /* He answers. */
    unsigned count = tag(frame, arp(frame, thief, (uint8_t[]){ 10, 0, 7, 11 }, 7, true), 7);
    arrive(frame, count, 2048);
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 1);
    tick_one(&network, 14 * NS_PER_S);
    assert_int_equal(arps_of_third(), 0);
    assert_int_equal(shown(&network).address.family, NET_NONE);
    assert_non_null(strstr(shown(&network).notice, "02:00:00:00:00:66 uses 10.0.7.11, so this node does not"));
    /* Another one wants it at the same time, which is the same (RFC 5227, 2.1.1). */
    tick_one(&network, 2 * NS_PER_S);
    assert_true(out_count >= 1);
    card_done();
    count = arp(frame, thief, (uint8_t[]){ 0, 0, 0, 0 }, 7, false);
    arrive(frame, tag(frame, count, 7), 2048);
    tick_one(&network, 5 * NS_PER_S);
    assert_int_equal(shown(&network).address.family, NET_NONE);
    assert_int_equal(arps_of_third(), 0);
    /* Nobody answers any more. */
    tick_one(&network, 15 * NS_PER_S);
    assert_int_equal(shown(&network).address.family, NET_IPV4);
    assert_string_equal(shown(&network).notice, "");
    assert_int_equal(arps_of_third(), DUPLICATE_PROBES + 1);
    assert_memory_equal(third[DUPLICATE_PROBES]->bytes + 32, "\x0a\0\x07\x0b", 4);
    card_done();
    pool_used = lwip_stats.memp[MEMP_PBUF_POOL]->used;
    heap_used = lwip_stats.mem.used;
}

/* A DHCP server's answer (RFC 2131) to request number i of `out`: it offers 10.0.8.N, or acknowledges it. */
static unsigned dhcp_answer(uint8_t *frame, unsigned i, uint8_t kind, uint8_t n)
{
    static const uint8_t server[4] = { 10, 0, 8, 1 };
    const uint8_t *request = out[i].bytes + 18 + 28;
    uint8_t *m = frame + 14 + 28;
    unsigned ip = 20 + 8 + 300;

    memset(frame, 0, 14 + ip);
    memcpy(frame, nic.mac, 6);
    memcpy(frame + 6, router, 6);
    memcpy(frame + 12, (uint8_t[]){ 8, 0, 0x45, 0, (uint8_t)(ip >> 8), (uint8_t)ip, 0, 1, 0, 0, 64, 17 }, 12);
    memcpy(frame + 26, server, 4);
    memset(frame + 30, 0xff, 4);
    memcpy(frame + 34, (uint8_t[]){ 0, 67, 0, 68, (uint8_t)((ip - 20) >> 8), (uint8_t)(ip - 20) }, 6);
    memcpy(m, (uint8_t[]){ 2, 1, 6, 0 }, 4);
    memcpy(m + 4, request + 4, 4); /* xid */
    memcpy(m + 16, (uint8_t[]){ 10, 0, 8, n }, 4);
    memcpy(m + 28, nic.mac, 6);
    memcpy(m + 236, (uint8_t[]){ 0x63, 0x82, 0x53, 0x63, 53, 1, kind, 54, 4, 10, 0, 8, 1, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255,
                                 255, 0, 6, 4, 10, 0, 8, 2, 255 }, 32);
    uint16_t header = sum(frame + 14, 20);
    frame[24] = (uint8_t)(header >> 8);
    frame[25] = (uint8_t)header;
    return tag(frame, 14 + ip, 8);
}

static void an_offered_address_that_somebody_has_is_declined_and_told(void **state)
{
    static struct network network;
    static struct config_network config = { .name = "fourth", .mtu = 1500, .vlan = 8, .ipv4 = CONFIG_ADDRESS_AUTO };
    uint8_t frame[400];
    (void)state;

    card_done();
    assert_true(text_to_address("192.0.2.53", &config.dns[0]));
    config.dns_count = 1;
    name_servers_add(&config);
    open_third(&network, &config);
    unsigned errors = fake_log_counts[LOG_ERROR];
    assert_int_equal(out_count, 1); /* discover */
    unsigned count = dhcp_answer(frame, 0, 2, 50);
    card_done();
    arrive(frame, count, 2048);
    assert_int_equal(out_count, 1); /* request */
    count = dhcp_answer(frame, 0, 5, 50);
    card_done();
    arrive(frame, count, 2048);
    assert_true(out_count >= 1); /* is it free? */
    assert_memory_equal(out[0].bytes + 16, "\x08\x06", 2);
    card_done();
    count = arp(frame, thief, (uint8_t[]){ 10, 0, 8, 50 }, 8, true);
    memcpy(frame + 38, "\0\0\0\0", 4);
    arrive(frame, tag(frame, count, 8), 2048);
    assert_int_equal(fake_log_counts[LOG_ERROR], errors + 1);
    assert_non_null(strstr(shown(&network).notice, "02:00:00:00:00:66 uses 10.0.8.50, which DHCP offered"));
    assert_int_equal(shown(&network).address.family, NET_NONE);
    assert_int_equal(out_count, 1);
    assert_memory_equal(out[0].bytes + 18 + 28 + 236, "\x63\x82\x53\x63\x35\x01\x04", 7); /* decline */
    card_done();
    tick_one(&network, 40 * NS_PER_S); /* it must not take it by itself */
    assert_int_equal(shown(&network).address.family, NET_NONE);
    card_done();
    tick_one(&network, 60 * NS_PER_S);
    unsigned discover = 0;
    while (discover < out_count && memcmp(out[discover].bytes + 18 + 28 + 236, "\x63\x82\x53\x63\x35\x01\x01", 7))
        discover++;
    assert_true(discover < out_count);
    count = dhcp_answer(frame, discover, 2, 51);
    card_done();
    arrive(frame, count, 2048);
    count = dhcp_answer(frame, 0, 5, 51);
    card_done();
    arrive(frame, count, 2048);
    tick_one(&network, 5 * NS_PER_S);
    assert_int_equal(shown(&network).address.bytes[3], 51);
    assert_string_equal(ipaddr_ntoa(dns_getserver(0)), "10.0.8.2"); /* as lwIP has it */
    name_servers_keep();
    assert_string_equal(ipaddr_ntoa(dns_getserver(0)), "192.0.2.53");
    assert_string_equal(shown(&network).notice, "");
    card_done();
    arrive(frame, tag(frame, arp(frame, thief, (uint8_t[]){ 10, 0, 8, 51 }, 8, true), 8), 2048);
    assert_non_null(strstr(shown(&network).notice, "this node's address 10.0.8.51 too"));
    card_done();
    pool_used = lwip_stats.memp[MEMP_PBUF_POOL]->used;
    heap_used = lwip_stats.mem.used;
}

static void an_echo_of_ours_is_answered_by_who_was_asked(void **state)
{
    struct net_ping ping = { .id = 7, .sequence = 9, .bytes = 56 };
    uint8_t frame[200];
    (void)state;

    assert_true(text_to_address("10.0.1.1", &ping.to));
    net_ping_begin(&ping);
    assert_true(ping.sent && !ping.problem);
    assert_int_equal(out_count, 1);
    assert_memory_equal(out[0].bytes + 12, "\x81\x00\x00\x64", 4);
    unsigned count = echo(frame, 1, 56);
    frame[34] = 0; /* a reply: its checksum changes by the type's 0x0800 */
    frame[36] = (uint8_t)(frame[36] + 8);
    uint8_t other[200];
    memcpy(other, frame, count);
    other[29] = 2; /* from 10.0.1.2 */
    other[25]--;
    arrive(other, tag(other, count, 100), 2048);
    assert_false(ping.done);
    for (unsigned i = 39; i <= 41; i += 2) { /* another's, or of another request of ours */
        memcpy(other, frame, count);
        other[i] ^= 1;
        arrive(other, tag(other, count, 100), 2048);
        assert_false(ping.done);
    }
    memcpy(other, frame, count);
    other[70] ^= 1; /* not what was sent */
    arrive(other, tag(other, count, 100), 2048);
    assert_false(ping.done);
    now += 5 * NS_PER_MS;
    arrive(frame, tag(frame, count, 100), 2048);
    assert_true(ping.done);
    assert_int_equal(notified, 1);
    assert_int_equal(ping.answered_ns - ping.sent_ns, 5 * NS_PER_MS);
    net_ping_end(&ping);

    assert_true(text_to_address("192.168.7.7", &ping.to));
    ping.sent = false;
    net_ping_begin(&ping);
    assert_false(ping.sent);
    assert_non_null(strstr(ping.problem, "no way there"));
    net_ping_end(&ping);
}

static void a_frame_of_many_pieces_is_put_together(void **state)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, 14, PBUF_RAM), *q;
    uint8_t *bytes;
    (void)state;

    memset(p->payload, 0xaa, 14);
    memcpy((uint8_t *)p->payload + 6, nic.mac, 6); /* the switch passes no other */
    for (unsigned i = 0; i < 40; i++) {
        q = pbuf_alloc(PBUF_RAW, 10, PBUF_RAM);
        memset(q->payload, (int)i, 10);
        pbuf_cat(p, q);
    }
    assert_int_equal(networks[1].netif.linkoutput(&networks[1].netif, p), ERR_OK);
    (void)pbuf_free(p);
    assert_int_equal(out_count, 1);
    assert_int_equal(out[0].count, 14 + 400 + 4);
    bytes = out[0].bytes;
    assert_int_equal(bytes[12], 0x81);
    for (unsigned i = 0; i < 400; i++)
        assert_int_equal(bytes[18 + i], i / 10);
}

static unsigned datagrams;

static void datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port)
{
    (void)arg;
    (void)pcb;
    (void)from;
    (void)port;
    datagrams++;
    (void)pbuf_free(p);
}

static void a_checksum_is_looked_at_unless_the_card_has(void **state)
{
    struct udp_pcb *pcb = udp_new();
    uint8_t frame[100];
    (void)state;

    udp_recv(pcb, datagram, NULL);
    assert_int_equal(udp_bind(pcb, IP4_ADDR_ANY, 4000), ERR_OK);
    unsigned count = echo(frame, 0, 12);
    frame[23] = 17; /* UDP, so the header's sum is less by 16 */
    frame[25] = (uint8_t)(frame[25] - 16);
    memcpy(frame + 34, "\x0f\xa0\x0f\xa0\x00\x14\x12\x34", 8); /* a wrong checksum */
    datagrams = 0;
    arrive(frame, count, 2048);
    assert_int_equal(datagrams, 0);
    checked_by_card = true;
    arrive(frame, count, 2048);
    assert_int_equal(datagrams, 1);
    frame[22]++; /* the header's own is looked at in any case: not all cards do */
    arrive(frame, count, 2048);
    assert_int_equal(datagrams, 1);
    frame[22]--;
    checked_by_card = false;
    arrive(frame, count, 2048);
    assert_int_equal(datagrams, 1);
    udp_remove(pcb);
}

/* A segment of `data` bytes from 10.0.N.1 to a port of 10.0.N.11 where nobody listens. */
static unsigned segment(uint8_t *frame, uint8_t n, uint32_t sequence, unsigned data)
{
    unsigned ip = 40 + data;
    uint8_t pseudo[1700] = { 10, 0, n, 1, 10, 0, n, 11, 0, 6, (uint8_t)((20 + data) >> 8), (uint8_t)(20 + data) };

    memset(frame, 0, 14 + ip);
    memcpy(frame, nic.mac, 6);
    memcpy(frame + 6, router, 6);
    memcpy(frame + 12, (uint8_t[]){ 8, 0, 0x45, 0, (uint8_t)(ip >> 8), (uint8_t)ip, 0, 1, 0x40, 0, 64, 6 }, 12);
    memcpy(frame + 26, pseudo, 8);
    uint16_t header = sum(frame + 14, 20);
    memcpy(frame + 24, (uint8_t[]){ (uint8_t)(header >> 8), (uint8_t)header }, 2);
    memcpy(frame + 34, (uint8_t[]){ 0x10, 0, 0x27, 0x0f, (uint8_t)(sequence >> 24), (uint8_t)(sequence >> 16),
                                    (uint8_t)(sequence >> 8), (uint8_t)sequence, 1, 2, 3, 4, 0x50, 0x10, 0x10, 0 }, 16);
    memset(frame + 54, 0x5a, data);
    memcpy(pseudo + 12, frame + 34, 20 + data);
    uint16_t tcp = sum(pseudo, 32 + data);
    memcpy(frame + 50, (uint8_t[]){ (uint8_t)(tcp >> 8), (uint8_t)tcp }, 2);
    return 14 + ip;
}

static uint32_t word(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* lwIP answers each packet to a port that nobody has with a reset, which says how far the packet went. */
static void segments_of_a_batch_are_one_packet(void **state)
{
    uint8_t frame[1700];
    (void)state;

    for (unsigned i = 0; i < 6; i++) {
        uint8_t n = i % 2;
        unsigned count, had = lwip_stats.memp[MEMP_PBUF_POOL]->used;
        checked_by_card = i >= 4;
        for (unsigned k = 0; k < 3; k++) {
            count = segment(frame, n, 5000 + 1460 * k, 1460);
            if (i < 2 && k == 1)
                frame[80] ^= 1; /* damaged: what came before it is a packet, and so is what came behind it */
            arrive(frame, n ? tag(frame, count, 100) : count, 2048);
        }
        if (i < 2) {
            assert_int_equal(out_count, 1);
        } else {
            assert_int_equal(out_count, 0);
            assert_int_equal(lwip_stats.memp[MEMP_PBUF_POOL]->used, had + 3);
        }
        if (i >= 4) { /* what comes behind them is answered behind them */
            count = echo(frame, n, 100);
            arrive(frame, n ? tag(frame, count, 100) : count, 2048);
        }
        vswitch_flush(&card.sw);
        assert_int_equal(out_count, i >= 2 && i < 4 ? 1 : 2);
        const uint8_t *tcp = out[0].bytes + 34 + 4 * n;
        assert_int_equal(tcp[13] & 4, 4); /* a reset */
        assert_int_equal(word(tcp + 8), 5000 + 1460 * (i < 2 ? 1 : 3));
        if (i < 2)
            assert_int_equal(word(out[1].bytes + 34 + 4 * n + 8), 5000 + 1460 * 3);
        else if (i >= 4)
            assert_int_equal(out[1].bytes[23 + 4 * n], 1); /* ICMP */
        card_done();
    }
}

static void addresses_are_shown(void **state)
{
    struct net_info info = { 0 };
    char text[NET_ADDRESS_TEXT];
    (void)state;

    network_address_get(&networks[1], &info);
    address_to_text(&info.address, true, text);
    assert_string_equal(text, "10.0.1.11/24");
    assert_int_equal(info.gateway.family, NET_NONE);
    assert_int_equal(info.address6[0].family, NET_NONE);
}

static bool lets_in(const char *mac)
{
    for (unsigned i = 0; i < groups; i++)
        if (!memcmp(group[i], mac, 6))
            return true;
    return false;
}

/* IPv6 wants two groups from the card: its own solicited node, and all nodes, to which routers advertise. */
static void ipv6_has_the_card_let_its_groups_in(void **state)
{
    static struct network network;
    static struct config_network config = { .name = "six", .mtu = 1500, .vlan = 6, .ipv6 = CONFIG_ADDRESS_AUTO };
    (void)state;

    assert_false(lets_in("\x33\x33\0\0\0\x01"));
    network.config = &config;
    assert_true(network_open(&network, &card, "node"));
    assert_true(lets_in("\x33\x33\0\0\0\x01"));
    for (unsigned i = 0; i < 3; i++) { /* it looks for its address before it has it */
        card_done();
        now += NS_PER_S;
        sys_check_timeouts();
    }
    assert_true(lets_in("\x33\x33\xff\x12\x34\x56"));
    card_done();
    pool_used = lwip_stats.memp[MEMP_PBUF_POOL]->used;
    heap_used = lwip_stats.mem.used; /* an interface of lwIP's is never taken away again */
}

static void the_link_follows_the_card(void **state)
{
    (void)state;
    nic.link_up = false;
    card_link(&nic);
    assert_false(netif_is_link_up(&networks[0].netif) || netif_is_link_up(&networks[1].netif));
    nic.link_up = true;
    card_link(&nic);
    assert_true(netif_is_link_up(&networks[0].netif) && netif_is_link_up(&networks[1].netif));
    assert_int_equal(out_count, 2); /* each says who it is */
    assert_int_equal(out[0].bytes[0], 0xff);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_echo_is_answered_however_it_is_cut),
        TEST(tags_are_taken_out_and_put_in),
        TEST(no_frame_reaches_another_vlan),
        TEST(short_and_cut_frames_do_no_harm),
        TEST(what_the_card_refuses_is_not_leaked),
        TEST(what_is_sent_stays_until_the_card_is_done),
        TEST(a_duplicate_address_is_reported_once_a_minute),
        TEST(an_echo_of_ours_is_answered_by_who_was_asked),
        TEST(a_frame_of_many_pieces_is_put_together),
        TEST(a_checksum_is_looked_at_unless_the_card_has),
        TEST(segments_of_a_batch_are_one_packet),
        TEST(addresses_are_shown),
        TEST(the_link_follows_the_card),
        TEST(ipv6_has_the_card_let_its_groups_in),
        TEST(an_address_in_use_is_defended_and_kept),
        TEST(after_the_link_was_away_it_is_asked_for_again),
        TEST(an_address_that_somebody_has_is_not_taken),
        TEST(an_offered_address_that_somebody_has_is_declined_and_told),
    };
    return cmocka_run_group_tests(tests, group_setup, NULL);
}
