/* SPDX-License-Identifier: MIT */
/*
 * Any frames from the wire, into the real lwIP, on an untagged network and one with a VLAN: no invariant of lwIP breaks,
 * every frame that goes out has the form that a card takes, and memory is bounded. The input is a list of frames, each
 * behind two bytes: how much time passes first (in units of 64 ms), and its length (in units of 8 bytes). The first one's lowest
 * bits also say whether it is the last frame of its batch, and whether the card found its checksum right.
 */
#include <assert.h>

#include "fake_net_host.h"

#include "lwip/dhcp.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


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

static void adjust(struct config_network *config, unsigned i)
{
    config->ipv6 = CONFIG_ADDRESS_AUTO;
    if (i)
        config->ipv4 = CONFIG_ADDRESS_AUTO;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready)
        net_host_open(&ops, adjust);
    ready = true;
    while (size > 2) {
        size_t count = data[1] * 8u + 1;
        now += data[0] * 64 * NS_PER_MS;
        data += 2;
        size -= 2;
        count = count < size ? count : size;
        network_collect();
        sys_check_timeouts();
        for (unsigned i = 0; i < ARRAY_COUNT(networks); i++)
            network_tick(&networks[i], now);
        struct nic_received frame = { .piece_count = 1, .bytes = (uint32_t)count, .checksum_good = data[-2] & 2 };
        bool is_last = data[-2] & 1;
        uint8_t *copy = malloc(count); /* gone after the call, so that the sanitizer sees who keeps it */
        memcpy(copy, data, count);
        frame.piece[0].data = copy;
        frame.piece[0].bytes = (uint32_t)count;
        if (count >= NIC_HEADER_BYTES)
            card_receive(&nic, &frame);
        free(copy);
        if (is_last)
            vswitch_flush(&card.sw);
        data += count;
        size -= count;
    }
    vswitch_flush(&card.sw);
    assert(lwip_stats.memp[MEMP_PBUF_POOL]->used < 256);
    return 0;
}
