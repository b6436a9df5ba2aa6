/* SPDX-License-Identifier: MIT */
/*
 * The servers that lwIP asks for names. It has one list for all networks, and puts there what DHCP offers, over whatever stands
 * there: what the configuration has is put back then.
 */
#include <string.h>

#include "kernel/log.h"
#include "net/network.h"

#include "lwip/dns.h"

static ip_addr_t servers[DNS_MAX_SERVERS];
static u8_t count;

void name_servers_add(const struct config_network *c)
{
    for (uint32_t i = 0; i < c->dns_count; i++) {
        bool v6 = c->dns[i].family == NET_IPV6;
        if (count == DNS_MAX_SERVERS) {
            log_warning("network %s: further name servers are not asked; the node has %u already", c->name, count);
            return;
        }
        ip_addr_t *server = &servers[count++];
        IP_SET_TYPE_VAL(*server, v6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
        memcpy(v6 ? (void *)ip_2_ip6(server)->addr : (void *)&ip_2_ip4(server)->addr, c->dns[i].bytes, v6 ? 16 : 4);
    }
    name_servers_keep();
}

void name_servers_keep(void)
{
    for (u8_t i = 0; i < count; i++)
        if (!ip_addr_cmp(dns_getserver(i), &servers[i]))
            dns_setserver(i, &servers[i]);
}
