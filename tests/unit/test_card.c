/* SPDX-License-Identifier: MIT */
/*
 * A card that a node and guests share, with the real switch and the real lwIP: the test plays the card and the guests.
 * Guarded: a guest never holds a byte of the card's buffers; what it is given stays until it is done, and comes back to
 * lwIP only in the service; who is joined hears its VLAN and no other; a card listens to everything as long as guests
 * need that; a guest's memory is given back when its last frame has come home, and not before; links follow the card's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_kernel.h"
#include "fake_net_host.h"
#include "kernel/bytes.h"
#include "kernel/log.h"

#include "lwip/stats.h"

#define OUT 200
#define NODE 0x525400123456ull
#define ROUTER 0x020000000001ull
#define ALICE 0x0200000000aaull
#define BOB 0x0200000000bbull

static struct { uint8_t bytes[2048]; unsigned count; void *cookie; } out[OUT];
static unsigned out_count, kicks, link_changes;
static bool promiscuous, service;
static unsigned copied; /* frames that the card's copies are made of, in use */

void network_kicked(void *unused)
{
    (void)unused;
    kicks++;
}
bool net_call(void (*fn)(void *arg), void *arg)
{
    if (service)
        fn(arg);
    return service;
}
struct network *network_find(const char *name)
{
    return !strcmp(name, "plain") ? &networks[0] : !strcmp(name, "tagged") ? &networks[1] : NULL;
}
bool net_is_configured(const char *name)
{
    return network_find(name);
}

/* ---- The card ---- */

static bool card_send(struct nic *n, const struct nic_send *frame)
{
    (void)n;
    if (out_count == OUT)
        return false;
    out[out_count].count = 0;
    for (unsigned i = 0; i < frame->piece_count; i++) {
        assert_true(out[out_count].count + frame->piece[i].bytes <= sizeof out[0].bytes);
        memcpy(out[out_count].bytes + out[out_count].count, (void *)frame->piece[i].hpa.v, frame->piece[i].bytes);
        out[out_count].count += frame->piece[i].bytes;
    }
    out[out_count++].cookie = frame->cookie;
    return true;
}
static void card_filter(struct nic *n, bool all, const uint8_t (*multicast)[6], unsigned count)
{
    (void)n;
    (void)multicast;
    (void)count;
    promiscuous = all;
}
static const struct nic_ops ops = { .send = card_send, .filter = card_filter };

static void card_done(void)
{
    for (unsigned i = 0; i < out_count; i++)
        card_sent(&nic, out[i].cookie);
    out_count = 0;
    network_collect();
}

/* A frame: addresses, perhaps a tag, a type that nobody serves, and bytes that tell what it is. */
static unsigned make(uint8_t *frame, uint64_t to, uint64_t from, int vlan, uint8_t mark)
{
    unsigned at = 12;

    eth_address_put(frame, to);
    eth_address_put(frame + 6, from);
    if (vlan >= 0) {
        be16_put(frame + at, ETH_TYPE_VLAN);
        be16_put(frame + at + 2, (uint16_t)vlan);
        at += 4;
    }
    be16_put(frame + at, 0x88b5);
    memset(frame + at + 2, mark, 100);
    return at + 102;
}

static uint16_t unmade_start, unmade_at; /* the checksum of what arrives is still to be made */

/* It comes by the wire, in two pieces, whose memory is the card's again at once. */
static void arrive(uint64_t to, uint64_t from, int vlan, uint8_t mark)
{
    uint8_t frame[200];
    unsigned count = make(frame, to, from, vlan, mark);
    uint8_t *one = malloc(60), *two = malloc(count - 60);
    struct nic_received got = { .piece_count = 2, .piece = { { one, 60 }, { two, count - 60 } }, .bytes = count,
                                .checksum_good = unmade_at, .checksum_start = unmade_start, .checksum_at = unmade_at };

    memcpy(one, frame, 60);
    memcpy(two, frame + 60, count - 60);
    card_receive(&nic, &got);
    free(one);
    free(two);
    copied = card.copies.frame_count - card.copies.free_frame_count;
}

/* ---- Guests ---- */

struct player {
    struct netport port;
    struct frame_pool pool;
    struct frame frames[4];
    struct frame_chunk chunks[4];
    uint32_t numbers[4];
    struct frame *inbox[4], *outbox[8];
    struct net_guest guest;
    bool gone;
};
static struct player *alice, *bob;

static bool player_give(struct netport *port, struct frame *frame)
{
    if (frame_queue_put(&port->outbox, frame_get(frame)))
        return true;
    frame_put(frame);
    return false;
}
static const struct netport_ops player_ops = { .give = player_give };

static void player_link(void *context)
{
    (void)context;
    link_changes++;
}

static struct player *join(const char *network, uint64_t mac, enum status expected, const char *words)
{
    struct player *p = calloc(1, sizeof *p);
    char text[200] = "?";

    frame_pool_init(&p->pool, p->frames, 4, p->chunks, p->numbers, 4, NULL, NULL);
    p->port = (struct netport){ .ops = &player_ops, .name = "player", .mac = mac, .mtu = 1500, .link = 1 };
    frame_queue_init(&p->port.inbox, p->inbox, 4);
    frame_queue_init(&p->port.outbox, p->outbox, 8);
    p->guest = (struct net_guest){ .network = network, .port = &p->port, .deadline_ns = TIME_NEVER, .link_changed = player_link };
    assert_int_equal(net_guest_attach(&p->guest, text, sizeof text), expected);
    if (words && !strstr(text, words))
        fail_msg("\"%s\" does not say \"%s\"", text, words);
    if (!words)
        assert_string_equal(text, "");
    if (expected == OK)
        return p;
    free(p);
    return NULL;
}

static void player_gone(struct net_guest *guest)
{
    free(CONTAINER_OF(guest, struct player, guest));
    link_changes = 1000; /* a sign */
}

static void leave(struct player *p)
{
    bool wake;

    net_guest_detach(&p->guest);
    (void)frame_queue_purge(&p->port.outbox, &wake);
    link_changes = 0;
    net_guest_bury(&p->guest, &p->pool, player_gone);
}

static void say(struct player *p, uint64_t to, uint64_t from, uint8_t mark)
{
    uint8_t bytes[200];
    unsigned count = make(bytes, to, from, -1, mark);
    struct frame *frame = frame_pool_get(&p->pool, count);

    assert_non_null(frame);
    frame_write(frame, 0, bytes, count);
    assert_true(frame_queue_put(&p->port.inbox, frame));
    kicks = 0;
    netport_kick(&p->port);
    assert_int_equal(kicks, 1);
    (void)vswitch_run(&card.sw, now);
}

/* What the guest heard: the marks, in order. */
static const char *heard(struct player *p)
{
    static char marks[16];
    struct frame *frame;
    unsigned count = 0;

    assert_true(frame_queue_begin(&p->port.outbox));
    while ((frame = frame_queue_first(&p->port.outbox))) {
        uint8_t bytes[200];
        assert_false(frame->tagged);
        assert_int_equal(frame_read(frame, 0, bytes, sizeof bytes), 114);
        for (unsigned i = 15; i < 114; i++)
            assert_int_equal(bytes[i], bytes[14]);
        marks[count++] = (char)bytes[14];
        frame_put(frame_queue_take(&p->port.outbox));
    }
    (void)frame_queue_end(&p->port.outbox);
    marks[count] = '\0';
    return marks;
}

/* ---- Set-up ---- */

static int group_setup(void **state)
{
    (void)state;
    service = true;
    net_host_open(&ops, NULL);
    card_done();
    return 0;
}

static int setup(void **state)
{
    (void)state;
    alice = join("plain", ALICE, OK, NULL);
    bob = join("tagged", BOB, OK, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    card_done();
    leave(alice);
    assert_int_equal(link_changes, 1000);
    leave(bob);
    assert_null(card.guests);
    assert_true(frame_pool_idle(&card.made) && frame_pool_idle(&card.own_made) && frame_pool_idle(&card.copies));
    assert_int_equal(card.in_flight, 0);
    assert_false(card.own);
    return 0;
}

/* ---- Tests ---- */

/* An ARP reply from ALICE's card that says: 10.0.0.11, this node's address, is at `mac`. */
static void claim(struct player *p, uint64_t mac)
{
    uint8_t bytes[60];
    struct frame *frame = frame_pool_get(&p->pool, sizeof bytes);

    assert_non_null(frame);
    announce_arp(bytes, mac, (uint8_t[]){ 10, 0, 0, 11 });
    eth_address_put(bytes + 6, ALICE);
    bytes[21] = 2;
    frame_write(frame, 0, bytes, sizeof bytes);
    assert_true(frame_queue_put(&p->port.inbox, frame));
    (void)vswitch_run(&card.sw, now);
    network_collect();
}

static void forget_claims(void)
{
    bool wake;

    net_host_wait(130 * NS_PER_S);
    (void)frame_queue_purge(&alice->port.outbox, &wake);
    card_done();
}

/* A guest says that it has the node's address: that is told with its name, and keeps the node from nothing. */
static void a_guest_does_not_keep_the_node_from_its_address(void **state)
{
    struct duplicate *d = &networks[0].duplicate;
    char text[NET_NOTICE];
    (void)state;

    forget_claims();
    d->in_use = false; /* as at the beginning */
    claim(alice, ALICE);
    assert_false(d->taken);
    network_notice(&networks[0], now, text, sizeof text);
    assert_non_null(strstr(text, "player ("));
    assert_non_null(strstr(text, "uses this node's address 10.0.0.11 too"));
    d->in_use = true;
    forget_claims();
}

/* Nor does it fill the log, whatever names it gives itself; nor the wire. */
static void a_guest_does_not_fill_the_log(void **state)
{
    unsigned errors = fake_log_counts[LOG_ERROR];
    (void)state;

    forget_claims();
    for (unsigned i = 0; i < 600; i++) { /* a minute */
        bool wake;
        now += 100 * NS_PER_MS;
        claim(alice, 0x020000000000 + i);
        (void)frame_queue_purge(&alice->port.outbox, &wake);
        card_done();
    }
    assert_in_range(fake_log_counts[LOG_ERROR] - errors, 1, 5);
    forget_claims();
}

static void frames_from_the_wire_are_copied_only_for_guests(void **state)
{
    (void)state;
    arrive(ALICE, ROUTER, -1, 'a');
    assert_int_equal(copied, 1);
    arrive(NODE, ROUTER, -1, 'n');
    arrive(0x0200000000ccull, ROUTER, -1, 'x'); /* nobody here */
    assert_int_equal(copied, 1);
    arrive(BOB, ROUTER, 100, 'b');
    arrive(ALICE, ROUTER, 100, 'w'); /* not in that VLAN */
    arrive(BOB, ROUTER, -1, 'w');
    arrive(BOB, ROUTER, 101, 'w');
    arrive(ETH_BROADCAST, ROUTER, -1, 'c');
    arrive(ETH_BROADCAST, ROUTER, 100, 'd');
    assert_string_equal(heard(alice), "ac");
    assert_string_equal(heard(bob), "bd");
}

static void copies_that_run_out_are_counted_and_cost_the_node_nothing(void **state)
{
    uint64_t lost = card.no_room, received = networks[0].received_frames;
    struct frame *all[512];
    unsigned count = 0;
    (void)state;

    while ((all[count] = frame_pool_get(&card.copies, 100)))
        count++;
    assert_true(count >= 256);
    arrive(ALICE, ROUTER, -1, 'a');
    assert_int_equal(card.no_room, lost + 1);
    arrive(NODE, ROUTER, -1, 'n');
    assert_int_equal(networks[0].received_frames, received + 1);
    while (count)
        frame_put(all[--count]);
    arrive(ALICE, ROUTER, -1, 'b');
    assert_string_equal(heard(alice), "b");
}

/* A frame from the same machine may come without its checksum: no guest that cannot make it gets it so. */
static void a_checksum_that_was_not_made_is_made(void **state)
{
    (void)state;
    for (int vlan = -1; vlan <= 100; vlan += 101) {
        struct player *p = vlan < 0 ? alice : bob;
        uint8_t bytes[114];

        unmade_start = vlan < 0 ? 30 : 34;
        unmade_at = (uint16_t)(unmade_start + 17);
        arrive(vlan < 0 ? ALICE : BOB, ROUTER, vlan, 0x35);
        unmade_start = unmade_at = 0;
        struct frame *frame = frame_queue_first(&p->port.outbox);
        assert_non_null(frame);
        assert_int_equal(frame->checksum, FRAME_CHECKSUM_GOOD);
        assert_int_equal(frame_read(frame, 0, bytes, 114), 114);
        uint32_t plain = 0;
        for (unsigned i = 30; i < 114; i++)
            plain += i % 2 ? 0x35u : 0x3500u; /* with what stood where the checksum goes */
        while (plain >> 16)
            plain = (plain & 0xffff) + (plain >> 16);
        assert_int_equal(be16_get(bytes + 47), (uint16_t)~plain);
        assert_true(frame_queue_begin(&p->port.outbox));
        frame_put(frame_queue_take(&p->port.outbox));
        (void)frame_queue_end(&p->port.outbox);
    }
    alice->port.offloads = NETPORT_CHECKSUM; /* and who would make it itself is not told of a place that there is not */
    unmade_start = 30;
    unmade_at = 113; /* beyond the end */
    arrive(ALICE, ROUTER, -1, 'x');
    unmade_start = 16; /* within the tag */
    unmade_at = 40;
    arrive(BOB, ROUTER, 100, 'x');
    unmade_start = unmade_at = 0;
    assert_string_equal(heard(alice), "");
    assert_string_equal(heard(bob), "");
}

/* Who does not take its frames loses them, and nobody else does; a flood to all leaves room for those to one, too. */
static void a_slow_guest_does_not_take_what_others_need(void **state)
{
    static struct frame *queue[1024];
    struct frame_queue was = alice->port.outbox;
    uint64_t lost = card.no_room;
    bool wake;
    (void)state;

    for (unsigned group = 0; group < 2; group++) {
        frame_queue_init(&alice->port.outbox, queue, 1024);
        for (unsigned i = 0; i < 600; i++) {
            arrive(group ? ETH_BROADCAST : ALICE, ROUTER, -1, 'a');
            if (i % 4 == 0) {
                arrive(BOB, ROUTER, 100, (uint8_t)('a' + i % 26));
                assert_int_equal(heard(bob)[0], 'a' + i % 26);
            }
        }
        assert_true(card.no_room > lost + 100);
        lost = card.no_room;
        assert_true(frame_queue_count(&alice->port.outbox) >= 64);
        (void)frame_queue_purge(&alice->port.outbox, &wake);
    }
    alice->port.outbox = was;
    arrive(ALICE, ROUTER, -1, 'b');
    assert_string_equal(heard(alice), "b");
}

/* Guests that send as much as they can leave the node its part of the card: its storage may be behind it. */
static void a_flood_of_guests_leaves_room_for_the_node(void **state)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, 114, PBUF_RAM);
    struct frame *frames[255];
    struct frame_chunk *chunks = aligned_alloc(64, 255 * sizeof *chunks);
    static struct frame many[255];
    static uint32_t numbers[255];
    struct frame_pool pool;
    uint8_t bytes[200];
    unsigned sent = 0;
    (void)state;

    frame_pool_init(&pool, many, 255, chunks, numbers, 255, NULL, NULL);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 255; i++) {
            frames[i] = frame_pool_get(&pool, make(bytes, ROUTER, ALICE, -1, 'a'));
            frame_write(frames[i], 0, bytes, 114);
            vswitch_input(&card.sw, &alice->guest.vport, frames[i], now);
            frame_put(frames[i]);
        }
        assert_true(!round || out_count == sent); /* as much as the first time: what came back can be used again */
        sent = out_count;
        assert_true(sent >= 60 && sent < 128);
        (void)make(p->payload, ROUTER, NODE, -1, 'p');
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(networks[0].netif.linkoutput(&networks[0].netif, p), ERR_OK);
        assert_int_equal(out_count, sent + 20);
        card_done();
        assert_true(frame_pool_idle(&pool));
    }
    (void)pbuf_free(p);
    free(chunks);
}

/* Guests may use up what the switch has for tags: the node's own VLANs do not live of that. */
static void the_node_has_memory_of_its_own_for_tags(void **state)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, 114, PBUF_RAM);
    uint64_t received = networks[1].received_frames;
    struct frame *all[512];
    unsigned count = 0;
    (void)state;

    while ((all[count] = frame_pool_get(&card.made, 16)))
        count++;
    say(bob, ROUTER, BOB, 'b');
    assert_int_equal(out_count, 0);
    (void)make(p->payload, ROUTER, NODE, -1, 'p');
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(networks[1].netif.linkoutput(&networks[1].netif, p), ERR_OK);
    assert_int_equal(out_count, 60);
    assert_memory_equal(out[59].bytes + 12, "\x81\x00\x00\x64\x88\xb5", 6);
    arrive(NODE, ROUTER, 100, 'n');
    assert_int_equal(networks[1].received_frames, received + 1);
    while (count)
        frame_put(all[--count]);
    card_done();
    (void)pbuf_free(p);
    say(bob, ROUTER, BOB, 'b');
    assert_int_equal(out_count, 1);
}

static void a_guest_reaches_wire_and_node_and_none_of_another_vlan(void **state)
{
    uint64_t received[2] = { networks[0].received_frames, networks[1].received_frames };
    (void)state;

    say(alice, ROUTER, ALICE, 'a');
    assert_int_equal(out_count, 1);
    assert_int_equal(out[0].count, 114);
    assert_int_equal(out[0].bytes[113], 'a');
    say(bob, ROUTER, BOB, 'b');
    assert_int_equal(out_count, 2);
    assert_int_equal(out[1].count, 118);
    assert_memory_equal(out[1].bytes + 12, "\x81\x00\x00\x64\x88\xb5", 6);
    card_done();
    say(alice, NODE, ALICE, 'n');
    assert_int_equal(networks[0].received_frames, received[0] + 1);
    say(alice, BOB, ALICE, 'x');
    say(alice, ETH_BROADCAST, ALICE, 'y');
    assert_string_equal(heard(bob), "");
    assert_int_equal(networks[0].received_frames, received[0] + 2);
    assert_int_equal(networks[1].received_frames, received[1]);
}

static void a_stolen_address_is_dropped_and_counted(void **state)
{
    uint64_t before = alice->guest.vport.counters.drop[VSWITCH_DROP_SOURCE];
    (void)state;

    say(alice, ROUTER, BOB, 'a');
    say(alice, ROUTER, NODE, 'a');
    assert_int_equal(out_count, 0);
    assert_int_equal(alice->guest.vport.counters.drop[VSWITCH_DROP_SOURCE], before + 2);
}

static void lwip_gets_its_buffers_back_when_the_last_receiver_is_done(void **state)
{
    unsigned heap = lwip_stats.mem.used;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, 114, PBUF_RAM);
    (void)state;

    (void)make(p->payload, ETH_BROADCAST, NODE, -1, 'p');
    assert_int_equal(networks[0].netif.linkoutput(&networks[0].netif, p), ERR_OK);
    assert_int_equal(p->ref, 2);
    (void)pbuf_free(p);
    card_done();
    assert_true(lwip_stats.mem.used > heap); /* the guest has not looked yet */
    assert_string_equal(heard(alice), "p");
    assert_true(lwip_stats.mem.used > heap); /* and this may be another thread */
    network_collect();
    assert_int_equal(lwip_stats.mem.used, heap);
}

/* What the node says to a guest that does not listen, such as answers to its flood, leaves enough for the node's own work. */
static void a_guest_holds_no_more_than_a_part_of_lwips_buffers(void **state)
{
    static struct frame *queue[1024];
    struct frame_queue was = alice->port.outbox;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, 114, PBUF_RAM);
    unsigned sent = 0;
    bool wake;
    (void)state;

    frame_queue_init(&alice->port.outbox, queue, 1024);
    (void)make(p->payload, ALICE, NODE, -1, 'p');
    while (sent < 1024 && networks[0].netif.linkoutput(&networks[0].netif, p) == ERR_OK)
        sent++;
    assert_true(sent >= 64 && sent <= 128);
    (void)make(p->payload, ROUTER, NODE, -1, 'p');
    for (unsigned i = 0; i < 80; i++)
        assert_int_equal(networks[0].netif.linkoutput(&networks[0].netif, p), ERR_OK);
    card_done();
    assert_int_equal(frame_queue_purge(&alice->port.outbox, &wake), sent);
    (void)make(p->payload, ALICE, NODE, -1, 'q');
    assert_int_equal(networks[0].netif.linkoutput(&networks[0].netif, p), ERR_OK);
    (void)frame_queue_purge(&alice->port.outbox, &wake);
    alice->port.outbox = was;
    network_collect();
    assert_int_equal(p->ref, 1);
    (void)pbuf_free(p);
}

static void a_guests_memory_stays_until_its_last_frame_is_home(void **state)
{
    (void)state;
    say(alice, ROUTER, ALICE, 'a');
    say(alice, ETH_BROADCAST, ALICE, 'a');
    assert_int_equal(out_count, 2);
    leave(alice); /* its VM is gone; the sanitizer sees who touches what was freed too early */
    assert_int_equal(link_changes, 0);
    guests_tick(&card, now);
    assert_int_equal(link_changes, 0);
    assert_true(guests_wait(&card));
    assert_int_equal(((uint8_t *)((struct frame *)out[1].cookie)->segment[0].at)[20], 'a');
    card_done();
    guests_tick(&card, now);
    assert_int_equal(link_changes, 1000);
    alice = join("plain", ALICE, OK, NULL);
}

static void the_card_listens_to_all_as_long_as_there_are_guests(void **state)
{
    (void)state;
    assert_true(promiscuous);
    leave(bob);
    assert_true(promiscuous);
    leave(alice);
    assert_false(promiscuous);
    assert_false(guests_wait(&card));
    alice = join("plain", ALICE, OK, NULL);
    assert_true(promiscuous);
    bob = join("tagged", BOB, OK, NULL);
}

static void links_follow_the_cards(void **state)
{
    (void)state;
    assert_true(net_guest_link(&alice->guest) && net_guest_link(&bob->guest));
    link_changes = 0;
    nic.link_up = false;
    card_link(&nic);
    assert_int_equal(link_changes, 2);
    assert_false(net_guest_link(&alice->guest) || net_guest_link(&bob->guest));
    nic.link_up = true;
    card_link(&nic);
    assert_int_equal(link_changes, 4);
    assert_true(net_guest_link(&alice->guest));
}

/* A plug that shakes does not own the log. */
static void a_link_that_flaps_is_told_of_some_times_a_minute(void **state)
{
    unsigned before;
    (void)state;

    now += 61 * NS_PER_S;
    for (unsigned minute = 0; minute < 2; minute++) {
        before = fake_log_counts[LOG_INFO] + fake_log_counts[LOG_WARNING];
        for (unsigned i = 0; i < 100; i++, now += 100 * NS_PER_MS) {
            nic.link_up = i % 2;
            card_link(&nic);
            assert_int_equal(net_guest_link(&alice->guest), i % 2); /* but all is done */
        }
        before = fake_log_counts[LOG_INFO] + fake_log_counts[LOG_WARNING] - before;
        assert_true(before >= 5 && before <= 12);
        now += 61 * NS_PER_S;
    }
}

static void past_its_deadline_a_guest_is_mute_and_deaf(void **state)
{
    (void)state;
    net_guest_deadline(&alice->guest, now + 100);
    say(alice, ROUTER, ALICE, 'a');
    assert_int_equal(out_count, 1);
    now += 100;
    say(alice, ROUTER, ALICE, 'b');
    arrive(ALICE, ROUTER, -1, 'c');
    arrive(ETH_BROADCAST, ROUTER, -1, 'c');
    assert_int_equal(out_count, 1);
    assert_string_equal(heard(alice), "");
    net_guest_deadline(&alice->guest, TIME_NEVER);
    say(alice, ROUTER, ALICE, 'd');
    assert_int_equal(out_count, 2);
}

static void who_arrived_is_announced_some_times(void **state)
{
    uint64_t until = now + 3 * NS_PER_S;
    (void)state;

    net_guest_announce(&bob->guest);
    for (; now < until; now += 50 * NS_PER_MS)
        guests_tick(&card, now);
    assert_int_equal(out_count, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(eth_address(out[i].bytes), ETH_BROADCAST);
        assert_int_equal(eth_address(out[i].bytes + 6), BOB);
        assert_memory_equal(out[i].bytes + 12, "\x81\x00\x00\x64\x80\x35", 6);
    }
}

static void what_cannot_be_joined_says_why(void **state)
{
    (void)state;
    assert_null(join("nowhere", 0x02000000dd01ull, ERR_NOT_FOUND, "there is no network nowhere; `net show`"));
    assert_null(join("plain", ALICE, ERR_EXISTS, "0200000000aa is another's in network plain"));
    assert_null(join("plain", NODE, ERR_EXISTS, "another's"));
    networks[1].problem = "no such card is here";
    struct player *p = join("tagged", 0x02000000dd01ull, OK, "network tagged does not work: no such card is here; its link is down");
    assert_false(net_guest_link(&p->guest));
    leave(p);
    networks[1].problem = NULL;
    service = false;
    p = join("tagged", 0x02000000dd01ull, OK, "its link is down");
    leave(p);
    assert_null(join("nowhere", 0x02000000dd01ull, ERR_NOT_FOUND, "no network"));
    service = true;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(frames_from_the_wire_are_copied_only_for_guests),
        TEST(a_guest_does_not_keep_the_node_from_its_address),
        TEST(a_guest_does_not_fill_the_log),
        TEST(copies_that_run_out_are_counted_and_cost_the_node_nothing),
        TEST(a_checksum_that_was_not_made_is_made),
        TEST(a_slow_guest_does_not_take_what_others_need),
        TEST(a_flood_of_guests_leaves_room_for_the_node),
        TEST(the_node_has_memory_of_its_own_for_tags),
        TEST(a_guest_reaches_wire_and_node_and_none_of_another_vlan),
        TEST(a_stolen_address_is_dropped_and_counted),
        TEST(lwip_gets_its_buffers_back_when_the_last_receiver_is_done),
        TEST(a_guest_holds_no_more_than_a_part_of_lwips_buffers),
        TEST(a_guests_memory_stays_until_its_last_frame_is_home),
        TEST(the_card_listens_to_all_as_long_as_there_are_guests),
        TEST(links_follow_the_cards),
        TEST(a_link_that_flaps_is_told_of_some_times_a_minute),
        TEST(past_its_deadline_a_guest_is_mute_and_deaf),
        TEST(who_arrived_is_announced_some_times),
        TEST(what_cannot_be_joined_says_why),
    };
    return cmocka_run_group_tests(tests, group_setup, NULL);
}
