/* SPDX-License-Identifier: MIT */
/*
 * What programs around net/ share that play a card themselves: what net/ calls of the kernel and of its service, and two
 * networks on one card, untagged and on VLAN 100. For unit tests and fuzzers. Each program includes it once.
 */
#ifndef TESTS_FAKE_NET_HOST_H
#define TESTS_FAKE_NET_HOST_H

#include <stdlib.h>
#include <string.h>

#include "kernel/random.h"
#include "kernel/time.h"
#include "net/card.h"
#include "net/network.h"

#include "lwip/init.h"

static uint64_t now = NS_PER_S;
static unsigned notified;
static struct nic nic = { .name = "test", .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 }, .link_up = true, .max_frame = 1518 };
static struct card card = { .nic = &nic };
static struct network networks[2];
static struct config_network configs[2];

uint64_t time_now_ns(void)
{
    return now;
}
void random_bytes(void *bytes, size_t count)
{
    memset(bytes, 0x42, count);
}
bool net_physical(const void *address, uint64_t bytes, hpa_t *hpa)
{
    (void)bytes;
    *hpa = HPA((uint64_t)address);
    return true;
}
void net_notify(void)
{
    notified++;
}

/* Time passes, as the service lets it pass for networks. */
static void net_host_wait(uint64_t ns)
{
    for (uint64_t end = now + ns; now < end;) {
        now += 100 * NS_PER_MS;
        for (unsigned i = 0; i < 2; i++)
            network_tick(&networks[i], now);
    }
}

/* 10.0.0.11/24 and 10.0.1.11/24; `adjust` (may be NULL) changes that. */
static void net_host_open(const struct nic_ops *ops, void (*adjust)(struct config_network *config, unsigned i))
{
    static char address[2][16] = { "10.0.0.11/24", "10.0.1.11/24" };

    lwip_init();
    ping_init();
    nic.ops = ops;
    nic.user_data = &card;
    for (unsigned i = 0; i < 2; i++) {
        configs[i] = (struct config_network){ .name = i ? "tagged" : "plain", .mtu = 1500, .vlan = i ? 100 : 0,
                                              .ipv4 = CONFIG_ADDRESS_STATIC };
        networks[i].config = &configs[i];
        if (!text_to_address(address[i], &configs[i].address))
            abort();
        if (adjust)
            adjust(&configs[i], i);
        if (!network_open(&networks[i], &card, "node"))
            abort();
    }
    net_host_wait(2 * NS_PER_S); /* until it is clear that nobody else has the addresses */
}

#endif
