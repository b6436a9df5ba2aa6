/* SPDX-License-Identifier: MIT */
/* net: networks, cards, and whether somebody answers. */
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/service.h"
#include "shell/tables.h"

#define COUNT_DEFAULT 3
#define COUNT_MAX 1000
#define REPLY_NS (2 * NS_PER_S)
#define GAP_MS_DEFAULT 200
#define GAP_MS_MAX 60000
#define SIZE_DEFAULT 56

static void out_mac(struct out *out, const char *name, const uint8_t mac[6])
{
    char text[18];

    mac_to_text(mac, text);
    out_string(out, name, text);
}

static void out_address(struct out *out, const char *name, const struct net_address *address)
{
    char text[NET_ADDRESS_TEXT];

    address_to_text(address, true, text);
    out_string(out, name, address->family ? text : NULL);
}

static const char *state_of(const struct net_info *info)
{
    if (info->problem)
        return "does not work";
    if (!info->link_up)
        return "no link";
    if (info->taken)
        return "address in use";
    if (info->ipv4 == CONFIG_ADDRESS_AUTO && !info->address.family)
        return "waits for DHCP";
    if (info->ipv4 == CONFIG_ADDRESS_STATIC && !info->address.family)
        return "looks for others";
    return "up";
}

static void show_networks(struct out *out)
{
    struct net_info info;

    out_array_begin(out, "networks");
    for (unsigned i = 0; net_info_get(i, &info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "network", info.name);
        out_string(out, "state", state_of(&info));
        out_string(out, "card", info.card[0] ? info.card : NULL);
        if (info.vlan)
            out_uint(out, "vlan", info.vlan);
        else
            out_null(out, "vlan");
        out_address(out, "address", &info.address);
        out_address(out, "gateway", &info.gateway);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "ipv6");
    for (unsigned i = 0; net_info_get(i, &info); i++) {
        for (unsigned j = 0; j < ARRAY_COUNT(info.address6) && info.address6[j].family; j++) {
            out_object_begin(out, NULL);
            out_string(out, "network", info.name);
            out_address(out, "address", &info.address6[j]);
            out_object_end(out);
        }
    }
    out_array_end(out);
    out_array_begin(out, "problems");
    for (unsigned i = 0; net_info_get(i, &info); i++) {
        const char *problem = info.problem ? info.problem : info.notice;
        if (!*problem)
            continue;
        out_object_begin(out, NULL);
        out_string(out, "network", info.name);
        out_string(out, "problem", problem);
        out_object_end(out);
    }
    out_array_end(out);
}

static void show_cards(struct out *out)
{
    struct net_card_info info;

    out_array_begin(out, "cards");
    for (unsigned i = 0; net_card_get(i, &info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "card", info.name);
        out_string(out, "model", info.model);
        out_mac(out, "mac", info.mac);
        out_string(out, "link", info.failed ? "failed" : !info.link_up ? "down" : info.full_duplex ? "full duplex" : "half duplex");
        if (info.link_up)
            out_uint(out, "mbps", info.mbps);
        else
            out_null(out, "mbps");
        out_string(out, "interrupt", info.interrupt);
        out_object_end(out);
    }
    out_array_end(out);
}

static uint64_t dropped(const struct vswitch_counters *counters)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < VSWITCH_DROP_COUNT; i++)
        sum += counters->drop[i];
    return sum;
}

static void show_ports(struct out *out)
{
    struct net_port_info info;
    uint8_t mac[6];

    out_array_begin(out, "ports");
    for (unsigned i = 0; net_port_get(i, &info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "port", info.name);
        out_string(out, "network", info.network);
        eth_address_put(mac, info.mac);
        if (info.mac)
            out_mac(out, "mac", mac);
        else
            out_string(out, "mac", NULL);
        out_string(out, "link", info.expired ? "past its deadline" : info.link_up ? "up" : "down");
        out_uint(out, "in", info.counters.in_frames);
        out_uint(out, "out", info.counters.out_frames);
        out_uint(out, "dropped", dropped(&info.counters));
        out_object_end(out);
    }
    out_array_end(out);
}

static void show_port_counters(struct out *out)
{
    struct net_port_info info;

    out_array_begin(out, "switched");
    for (unsigned i = 0; net_port_get(i, &info); i++) {
        const struct vswitch_counters *c = &info.counters;
        out_object_begin(out, NULL);
        out_string(out, "port", info.name);
        out_uint(out, "in", c->in_frames);
        out_bytes(out, "in_size", c->in_bytes);
        out_uint(out, "out", c->out_frames);
        out_bytes(out, "out_size", c->out_bytes);
        out_uint(out, "flooded", c->flooded);
        out_uint(out, "finished", c->finished);
        if (out->json)
            out_uint(out, "learn_refused", c->learn_refused);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "drops");
    for (unsigned i = 0; net_port_get(i, &info); i++) {
        for (unsigned reason = 0; reason < VSWITCH_DROP_COUNT; reason++) {
            if (!info.counters.drop[reason])
                continue;
            out_object_begin(out, NULL);
            out_string(out, "port", info.name);
            out_string(out, "reason", vswitch_drop_name((enum vswitch_drop)reason));
            out_uint(out, "frames", info.counters.drop[reason]);
            out_object_end(out);
        }
    }
    out_array_end(out);
}

static void show_counters(struct out *out)
{
    struct net_info network;
    struct net_card_info info;
    struct net_pool_info pool;

    out_array_begin(out, "traffic");
    for (unsigned i = 0; net_info_get(i, &network); i++) {
        out_object_begin(out, NULL);
        out_string(out, "network", network.name);
        out_uint(out, "received", network.received_frames);
        out_bytes(out, "received_size", network.received_bytes);
        out_uint(out, "sent", network.sent_frames);
        out_bytes(out, "sent_size", network.sent_bytes);
        out_uint(out, "dropped", network.dropped);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "counters");
    for (unsigned i = 0; net_card_get(i, &info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "card", info.name);
        out_uint(out, "received", info.received_frames);
        out_bytes(out, "received_size", info.received_bytes);
        out_uint(out, "sent", info.sent_frames);
        out_bytes(out, "sent_size", info.sent_bytes);
        out_uint(out, "errors", info.receive_errors);
        out_uint(out, "missed", info.receive_missed);
        out_uint(out, "refused", info.send_refused);
        out_uint(out, "no_memory", info.no_memory);
        out_uint(out, "interrupts", info.interrupts);
        out_uint(out, "link_changes", info.link_changes);
        out_uint(out, "resets", info.resets);
        out_object_end(out);
    }
    out_array_end(out);
    out_array_begin(out, "memory");
    for (unsigned i = 0; net_pool_get(i, &pool); i++) {
        if (!pool.most && !pool.refused)
            continue;
        out_object_begin(out, NULL);
        out_string(out, "pool", pool.name);
        out_uint(out, "size", pool.size);
        out_uint(out, "used", pool.used);
        out_uint(out, "most", pool.most);
        out_uint(out, "refused", pool.refused);
        out_object_end(out);
    }
    out_array_end(out);
}

static enum status net_show(struct shell *shell, const struct command_call *call)
{
    show_networks(&shell->out);
    show_cards(&shell->out);
    show_ports(&shell->out);
    if (command_option(call, "--counters")) {
        show_counters(&shell->out);
        show_port_counters(&shell->out);
    }
    return OK;
}

/* One request and its reply, or none in time. */
static enum status ping_once(struct out *out, struct net_ping *ping, const char *text, bool *answered)
{
    uint64_t deadline = time_now_ns() + REPLY_NS;

    if (!net_call(net_ping_begin, ping))
        return out_error(out, ERR_UNSUPPORTED, "net", "write a [network NAME] section into tasuki.conf and restart the node",
                         "this node has no network");
    if (ping->sent)
        (void)net_wait(&ping->done, deadline);
    if (!net_call(net_ping_end, ping) || !ping->sent)
        return out_error(out, ERR_IO, text, "`net show` tells the node's networks and their state", "%s",
                         ping->problem ? ping->problem : "the request could not be sent");
    *answered = ping->done;
    out_object_begin(out, NULL);
    out_uint(out, "sequence", ping->sequence);
    out_string(out, "from", ping->done ? text : NULL);
    if (ping->done)
        out_duration(out, "time", ping->answered_ns - ping->sent_ns);
    else
        out_null(out, out->json ? "time_ns" : "time");
    out_object_end(out);
    return OK;
}

static enum status net_ping(struct shell *shell, const struct command_call *call)
{
    static uint16_t id;
    struct out *out = &shell->out;
    const char *text = call->argument[0], *option = command_option(call, "--count"), *gap = command_option(call, "--gap");
    const char *size = command_option(call, "--size");
    struct net_ping ping = { .id = ++id };
    uint64_t count = COUNT_DEFAULT, gap_ms = GAP_MS_DEFAULT, bytes = SIZE_DEFAULT, answers = 0;
    enum status status = OK;

    if (!text_to_address(text, &ping.to) || strchr(text, '/'))
        return out_error(out, ERR_INVALID, text, "write an address such as 10.0.0.1 or fd00::1", "it is not an IP address");
    if (option && (text_to_u64(option, &count) != OK || count < 1 || count > COUNT_MAX))
        return out_error(out, ERR_INVALID, option, "write a number from 1 to 1000", "it is not a number of requests");
    if (gap && (text_to_u64(gap, &gap_ms) != OK || gap_ms > GAP_MS_MAX))
        return out_error(out, ERR_INVALID, gap, "write a number from 0 to 60000", "it is not a number of milliseconds");
    if (size && (text_to_u64(size, &bytes) != OK || bytes > NET_PING_BYTES_MAX))
        return out_error(out, ERR_INVALID, size, "write a number from 0 to 16000", "it is not a number of bytes");
    ping.bytes = (uint16_t)bytes;
    out_array_begin(out, "replies");
    for (unsigned i = 1; i <= count && status == OK; i++) {
        bool answered = false;
        if (i > 1)
            thread_sleep_ns(gap_ms * NS_PER_MS);
        ping.sequence = (uint16_t)i;
        ping.sent = ping.done = false;
        ping.problem = NULL;
        status = ping_once(out, &ping, text, &answered);
        answers += answered;
    }
    if (status != OK)
        return status;
    out_array_end(out);
    if (!answers)
        return out_error(out, ERR_TIMEOUT, text, "check the address, the cable and the VLAN; some stations answer no echo "
                                                 "requests", "no reply within 2 s to any of %lu requests", count);
    out_uint(out, "sent", count);
    out_uint(out, "answered", answers);
    return OK;
}

static const struct command_option show_options[] = {
    { .name = "--counters", .help = "what networks, cards, ports and memory have counted, too" },
    { .name = NULL },
};
static const struct command_argument ping_arguments[] = {
    { .name = "ADDRESS", .help = "an IPv4 or IPv6 address" },
    { .name = NULL },
};
static const struct command_option ping_options[] = {
    { .name = "--count", .value = "N", .help = "how many requests, 1 to 1000; 3 without it" },
    { .name = "--gap", .value = "MS", .help = "milliseconds from a reply to the next request; 200 without it" },
    { .name = "--size", .value = "BYTES", .help = "of data in each request, 0 to 16000; 56 without it" },
    { .name = NULL },
};

const struct command net_commands[] = {
    { .noun = "net", .verb = "show", .summary = "Show the node's networks, their addresses and cards, and who is joined to them",
      .options = show_options, .run = net_show },
    { .noun = "net", .verb = "ping", .summary = "Ask a station for an echo", .arguments = ping_arguments,
      .options = ping_options, .run = net_ping },
    { .noun = NULL },
};
