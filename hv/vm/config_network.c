/* SPDX-License-Identifier: MIT */
/*
 * [network NAME]: one network that this node is on, by which card, and with which addresses. The keys' values, and what
 * only all of them together can tell. And `network =` of a VM, its card at such a network. Pure; runs in the loader too.
 */
#include "vm/config_network.h"

#include <string.h>

#include "kernel/bytes.h"
#include "kernel/text.h"
#include "net/ethernet.h"

#define MTU_MIN 576u
#define MTU_MIN_IPV6 1280u
#define MTU_MAX 9000u

void config_network_defaults(struct config_network *network, const char *name)
{
    memset(network, 0, sizeof(*network));
    network->name = name;
    network->mtu = 1500;
}

static bool refuse(struct message *reason, const char *value, const char *why)
{
    add_quoted(reason, value, strlen(value));
    add(reason, why);
    return false;
}

/* Two hexadecimal digits, or one; the value, or -1. */
static int hex_number(const char **text, unsigned digits)
{
    int value = -1;

    for (; digits; digits--, (*text)++) {
        char c = **text;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = (value < 0 ? 0 : value << 4) | digit;
    }
    return value;
}

/* "00:1f.6", or "0000:00:1f.6". */
static bool parse_pci(const char *text, struct config_network *network)
{
    if (str_starts_with(text, "0000:"))
        text += 5;
    int bus = hex_number(&text, 2);
    if (bus < 0 || *text++ != ':')
        return false;
    int device = hex_number(&text, 2);
    if (device < 0 || device > 31 || *text++ != '.')
        return false;
    int function = hex_number(&text, 1);
    if (function < 0 || function > 7 || *text)
        return false;
    network->pci_bus = (uint8_t)bus;
    network->pci_device = (uint8_t)device;
    network->pci_function = (uint8_t)function;
    return true;
}

static bool set_card(struct config_network *network, const char *value, struct message *reason)
{
    if (text_to_mac(value, network->mac)) {
        network->card = CONFIG_CARD_MAC;
        return true;
    }
    if (parse_pci(value, network)) {
        network->card = CONFIG_CARD_PCI;
        return true;
    }
    return refuse(reason, value, " is neither a MAC address (52:54:00:12:34:56) nor a PCI address (00:1f.6): `net show` and "
                                 "`pci list` tell both");
}

/* All bits behind the prefix are alike: the network itself, or its broadcast. Prefixes of 31 and 32 have neither (RFC 3021). */
static bool names_all(const struct net_address *a)
{
    uint32_t ip = be32_get(a->bytes), host = a->prefix < 31 ? UINT32_MAX >> a->prefix : 0;

    return host && ((ip & host) == 0 || (ip & host) == host);
}

/* An address of one family with the length of its prefix. */
static bool parse_own(const char *value, enum net_family family, struct net_address *address, struct message *reason)
{
    struct net_address a;

    if (!text_to_address(value, &a) || a.family != family)
        return refuse(reason, value, family == NET_IPV4 ? " is not an IPv4 address: write dhcp, none, or one with its prefix "
                                                          "length, such as 10.0.0.11/24"
                                                        : " is not an IPv6 address: write auto, none, or one with its prefix "
                                                          "length, such as fd00::11/64");
    if (!strchr(value, '/'))
        return refuse(reason, value, " has no prefix length, so it is not known who is on the same network: write it "
                                     "behind a slash, such as /24");
    if (a.prefix == 0 || (family == NET_IPV4 && (a.bytes[0] == 0 || a.bytes[0] == 127 || a.bytes[0] >= 224)) ||
        (family == NET_IPV6 && a.bytes[0] == 0xff))
        return refuse(reason, value, " cannot be a node's own address");
    if (family == NET_IPV4 && names_all(&a))
        return refuse(reason, value, " cannot be a node's own address, for it names the whole network: write a station's, such as "
                                     "10.0.0.11/24");
    if (family == NET_IPV6 && a.prefix != 64)
        return refuse(reason, value, " has a prefix that is not of 64 bits, which is all that is supported: write /64");
    *address = a;
    return true;
}

static bool set_address(struct config_network *network, const char *value, struct message *reason)
{
    if (!strcmp(value, "dhcp") || !strcmp(value, "none")) {
        network->ipv4 = *value == 'd' ? CONFIG_ADDRESS_AUTO : CONFIG_ADDRESS_NONE;
        return true;
    }
    if (!parse_own(value, NET_IPV4, &network->address, reason))
        return false;
    network->ipv4 = CONFIG_ADDRESS_STATIC;
    return true;
}

static bool set_address6(struct config_network *network, const char *value, struct message *reason)
{
    if (!strcmp(value, "auto") || !strcmp(value, "none")) {
        network->ipv6 = *value == 'a' ? CONFIG_ADDRESS_AUTO : CONFIG_ADDRESS_NONE;
        return true;
    }
    if (!parse_own(value, NET_IPV6, &network->address6, reason))
        return false;
    network->ipv6 = CONFIG_ADDRESS_STATIC;
    return true;
}

static bool set_gateway(struct config_network *network, const char *value, struct message *reason)
{
    struct net_address a;

    if (!text_to_address(value, &a) || a.family != NET_IPV4 || strchr(value, '/'))
        return refuse(reason, value, " is not an IPv4 address: write the router's, such as 10.0.0.1");
    network->gateway = a;
    return true;
}

static bool set_vlan(struct config_network *network, const char *value, struct message *reason)
{
    uint64_t id;

    if (text_to_u64(value, &id) != OK || id < 1 || id > 4094)
        return refuse(reason, value, " is not a VLAN: write 1 to 4094, or delete the line for untagged frames");
    network->vlan = (uint16_t)id;
    return true;
}

static bool set_mtu(struct config_network *network, const char *value, struct message *reason)
{
    uint64_t mtu;

    if (text_to_u64(value, &mtu) != OK || mtu < MTU_MIN || mtu > MTU_MAX)
        return refuse(reason, value, " is not an MTU: write 576 to 9000; all stations of the network must have the same");
    network->mtu = (uint16_t)mtu;
    return true;
}

static bool set_dns(struct config_network *network, const char *value, struct message *reason)
{
    struct net_address a;

    if (!text_to_address(value, &a) || strchr(value, '/'))
        return refuse(reason, value, " is not the address of a name server: write one, such as 10.0.0.1");
    if (network->dns_count == CONFIG_MAX_DNS) {
        add(reason, "one name server too many: at most ");
        add_number(reason, CONFIG_MAX_DNS);
        add(reason, " are asked");
        return false;
    }
    network->dns[network->dns_count++] = a;
    return true;
}

static const struct {
    const char *name;
    bool (*set)(struct config_network *network, const char *value, struct message *reason);
} keys[CONFIG_NETWORK_KEYS] = {
    [CONFIG_NETWORK_CARD] = { "card", set_card },
    [CONFIG_NETWORK_ADDRESS] = { "address", set_address },
    [CONFIG_NETWORK_ADDRESS6] = { "address6", set_address6 },
    [CONFIG_NETWORK_GATEWAY] = { "gateway", set_gateway },
    [CONFIG_NETWORK_VLAN] = { "vlan", set_vlan },
    [CONFIG_NETWORK_MTU] = { "mtu", set_mtu },
    [CONFIG_NETWORK_DNS] = { "dns", set_dns },
};

const char *config_network_key_name(unsigned key)
{
    return keys[key].name;
}

bool config_network_set(struct config_network *network, unsigned key, const char *value, struct message *reason)
{
    return keys[key].set(network, value, reason);
}

static bool same_card(const struct config_network *a, const struct config_network *b)
{
    if (a->card != b->card)
        return false;
    if (a->card == CONFIG_CARD_MAC)
        return !memcmp(a->mac, b->mac, 6);
    return a->card == CONFIG_CARD_FIRST || (a->pci_bus == b->pci_bus && a->pci_device == b->pci_device &&
                                            a->pci_function == b->pci_function);
}

bool config_network_check(const struct config *config, const struct config_network *network, struct message *reason)
{
    for (const struct config_network *other = config->networks; other < network; other++) {
        if (other->vlan != network->vlan || !same_card(other, network))
            continue;
        add(reason, "it has the same card and VLAN as network ");
        add(reason, other->name);
        add(reason, network->card == CONFIG_CARD_FIRST ? ": say which card with card =" : ": give one of them another vlan");
        return false;
    }
    if (network->gateway.family && network->ipv4 != CONFIG_ADDRESS_STATIC) {
        add(reason, network->ipv4 == CONFIG_ADDRESS_AUTO ? "gateway is given, but address = dhcp brings its own: delete one"
                                                         : "gateway is given without an address: add address =");
        return false;
    }
    if (network->gateway.family && !net_address_same_network(&network->address, &network->gateway)) {
        add(reason, "the gateway is not in the network of the address, so it can never be reached: correct one of them");
        return false;
    }
    if (network->gateway.family && !memcmp(network->gateway.bytes, network->address.bytes, 4)) {
        add(reason, "the gateway is the node's own address: write the router's");
        return false;
    }
    if (network->ipv6 != CONFIG_ADDRESS_NONE && network->mtu < MTU_MIN_IPV6) {
        add(reason, "IPv6 wants an mtu of 1280 or more: raise it, or write address6 = none");
        return false;
    }
    return true;
}

const struct config_network *config_find_network(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->network_count; i++)
        if (!strcmp(config->networks[i].name, name))
            return &config->networks[i];
    return NULL;
}

/* ---- Cards of VMs ---- */

bool config_vm_add_card(struct config_vm *vm, const char *value, struct message *reason)
{
    struct config_card_of_vm card = { .mac = 0 };
    size_t name_bytes = 0;
    uint8_t mac[6];

    while (value[name_bytes] && value[name_bytes] != ' ' && value[name_bytes] != '\t')
        name_bytes++;
    if (name_bytes < sizeof card.network)
        memcpy(card.network, value, name_bytes);
    if (!config_name_ok(card.network))
        return refuse(reason, value, " begins with no name of a network: write NAME, or NAME and a MAC address");
    const char *rest = value + name_bytes;
    while (*rest == ' ' || *rest == '\t')
        rest++;
    if (*rest && !text_to_mac(rest, mac))
        return refuse(reason, rest, " is not a MAC address: write one such as 52:54:00:12:34:56, or nothing for one that is "
                                    "made of the VM's name");
    if (*rest)
        card.mac = eth_address(mac);
    if (*rest && !eth_is_station(card.mac))
        return refuse(reason, rest, " cannot be a card's address: its first byte is even, and not all bytes are 0");
    vm->cards[vm->card_count++] = card;
    return true;
}

bool config_card_check(const struct config *config, const struct config_card_of_vm *card, struct message *reason)
{
    if (config_find_network(config, card->network))
        return true;
    add(reason, "there is no network ");
    add(reason, card->network);
    add(reason, ": add a section [network NAME] of that name, or correct the name");
    return false;
}

/* FNV-1a, and a finishing mix so that each bit of the input reaches each of the result. */
static uint64_t mix_text(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3ull;
    while (*text++);
    return hash;
}

uint64_t config_card_mac(const char *node, const char *vm, uint32_t card)
{
    uint64_t hash = mix_text(mix_text(0xcbf29ce484222325ull, node), vm);

    hash = (hash ^ card) * 0x100000001b3ull;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ull;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ull;
    hash ^= hash >> 32;
    return (hash & 0xfcffffffffffull) | 0x020000000000ull;
}
