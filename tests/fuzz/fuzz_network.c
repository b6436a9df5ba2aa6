/* SPDX-License-Identifier: MIT */
/*
 * Any frames from the wire, into the real lwIP, on an untagged network and one with a VLAN: no invariant of lwIP breaks,
 * every frame that goes out has the form that a card takes, and memory is bounded. The input is a list of frames, each
 * behind two bytes: how much time passes first (in units of 64 ms), and its length (in units of 8 bytes).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/random.h"
#include "kernel/time.h"
#include "net/card.h"
#include "net/network.h"

#include "lwip/dhcp.h"
#include "lwip/init.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t now = NS_PER_S;
static struct nic nic = { .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 }, .link_up = true, .max_frame = 1518 };
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
}

static bool card_send(struct nic *n, const struct nic_send *frame)
{
    uint64_t bytes = 0;
    volatile uint8_t sum = 0;
    (void)n;

    assert(frame->piece_count >= 1 && frame->piece_count <= NIC_MAX_PIECES);
    for (unsigned i = 0; i < frame->piece_count; i++) {
        assert(frame->piece[i].bytes > 0);
        bytes += frame->piece[i].bytes;
        for (uint32_t j = 0; j < frame->piece[i].bytes; j++)
            sum = (uint8_t)(sum + ((const uint8_t *)frame->piece[i].hpa.v)[j]);
    }
    assert(bytes >= NIC_HEADER_BYTES && bytes <= 1500 + NIC_HEADER_BYTES + NIC_VLAN_BYTES);
    card_sent(&nic, frame->cookie);
    return true;
}
static void card_filter(struct nic *n, bool all, const uint8_t (*multicast)[6], unsigned count)
{
    (void)n;
    (void)all;
    (void)multicast;
    (void)count;
}
static const struct nic_ops ops = { .send = card_send, .filter = card_filter };

static void set_up(void)
{
    lwip_init();
    ping_init();
    nic.ops = &ops;
    nic.user_data = &card;
    for (unsigned i = 0; i < 2; i++) {
        configs[i] = (struct config_network){ .name = "fuzz", .mtu = 1500, .vlan = i ? 100 : 0, .ipv6 = CONFIG_ADDRESS_AUTO,
                                              .ipv4 = i ? CONFIG_ADDRESS_AUTO : CONFIG_ADDRESS_STATIC };
        if (!text_to_address("10.0.0.11/24", &configs[i].address))
            abort();
        networks[i].config = &configs[i];
        if (!network_open(&networks[i], &card, "node"))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready)
        set_up();
    ready = true;
    while (size > 2) {
        size_t count = data[1] * 8u + 1;
        now += data[0] * 64 * NS_PER_MS;
        data += 2;
        size -= 2;
        count = count < size ? count : size;
        network_collect();
        sys_check_timeouts();
        struct nic_received frame = { .piece_count = 1, .bytes = (uint32_t)count };
        uint8_t *copy = malloc(count); /* gone after the call, so that the sanitizer sees who keeps it */
        memcpy(copy, data, count);
        frame.piece[0].data = copy;
        frame.piece[0].bytes = (uint32_t)count;
        if (count >= NIC_HEADER_BYTES)
            card_receive(&nic, &frame);
        free(copy);
        data += count;
        size -= count;
    }
    assert(lwip_stats.memp[MEMP_PBUF_POOL]->used < 256);
    return 0;
}
