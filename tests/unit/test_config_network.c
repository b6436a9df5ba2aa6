/* SPDX-License-Identifier: MIT */
/*
 * [network NAME] in tasuki.conf. Guarded: what is documented is read; a wrong value keeps the default, says what is right
 * and counts against its network alone; what only the whole section can tell is told at its header.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"

static struct config config;
static char *strings;

static void parse(const char *text)
{
    free(strings);
    strings = malloc(strlen(text) + 1);
    config_parse(&config, text, strlen(text), strings);
}

/* One network of these lines, and one diagnostic with this text, or none. */
static const struct config_network *parse_one(const char *lines, const char *diagnostic)
{
    char text[1024];

    snprintf(text, sizeof text, "[network lan]\n%s\n", lines);
    parse(text);
    assert_int_equal(config.network_count, 1);
    if (diagnostic && !strstr(config.diagnostics[0].text, diagnostic))
        fail_msg("%s: \"%s\" does not say \"%s\"", lines, config.diagnostics[0].text, diagnostic);
    if (config.diagnostic_count != (diagnostic != NULL))
        fail_msg("%s: %u diagnostics, the first \"%s\"", lines, config.diagnostic_count, config.diagnostics[0].text);
    assert_int_equal(config.networks[0].error_count, diagnostic != NULL);
    return &config.networks[0];
}

static void nothing_gives_the_defaults(void **state)
{
    const struct config_network *n = parse_one("", NULL);
    (void)state;

    assert_string_equal(n->name, "lan");
    assert_int_equal(n->line, 1);
    assert_int_equal(n->card, CONFIG_CARD_FIRST);
    assert_int_equal(n->ipv4, CONFIG_ADDRESS_NONE);
    assert_int_equal(n->ipv6, CONFIG_ADDRESS_NONE);
    assert_int_equal(n->gateway.family, NET_NONE);
    assert_int_equal(n->vlan, 0);
    assert_int_equal(n->mtu, 1500);
    assert_int_equal(n->dns_count, 0);
    parse("[node]\nname = a\n");
    assert_int_equal(config.network_count, 0);
}

static void the_documented_example_is_read(void **state)
{
    const struct config_network *n;
    (void)state;

    parse("[network lan]\n"
          "card = 52:54:00:12:34:56          # or a PCI address; left out: the first card\n"
          "address = 10.0.0.11/24\n"
          "gateway = 10.0.0.1\n"
          "address6 = fd00::11/64\n"
          "dns = 10.0.0.1\n"
          "dns = fd00::1\n"
          "mtu = 9000\n"
          "[vm a]\nkernel = \\k\n"
          "[network san]\ncard = 00:1f.6\nvlan = 100\naddress = dhcp\naddress6 = auto\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_int_equal(config.network_count, 2);
    assert_int_equal(config.vm_count, 1);
    n = &config.networks[0];
    assert_int_equal(n->card, CONFIG_CARD_MAC);
    assert_memory_equal(n->mac, "\x52\x54\x00\x12\x34\x56", 6);
    assert_int_equal(n->ipv4, CONFIG_ADDRESS_STATIC);
    assert_memory_equal(n->address.bytes, "\x0a\x00\x00\x0b", 4);
    assert_int_equal(n->address.prefix, 24);
    assert_memory_equal(n->gateway.bytes, "\x0a\x00\x00\x01", 4);
    assert_int_equal(n->ipv6, CONFIG_ADDRESS_STATIC);
    assert_int_equal(n->address6.prefix, 64);
    assert_int_equal(n->dns_count, 2);
    assert_int_equal(n->dns[1].family, NET_IPV6);
    assert_int_equal(n->mtu, 9000);
    n = &config.networks[1];
    assert_int_equal(n->card, CONFIG_CARD_PCI);
    assert_true(n->pci_bus == 0 && n->pci_device == 0x1f && n->pci_function == 6);
    assert_int_equal(n->vlan, 100);
    assert_int_equal(n->ipv4, CONFIG_ADDRESS_AUTO);
    assert_int_equal(n->ipv6, CONFIG_ADDRESS_AUTO);
}

static void wrong_values_say_what_is_right(void **state)
{
    static const struct { const char *line, *part; } cases[] = {
        { "card = eth0", "PCI address" }, { "card = 00:20.0", "PCI address" }, { "card = 00:1f.8", "PCI address" },
        { "card = 00:1f.6x", "PCI address" }, { "card = 52:54:00:12:34", "MAC" }, { "card =", "MAC" },
        { "address = 10.0.0.11", "prefix length" }, { "address = 10.0.0/24", "not an IPv4 address" },
        { "address = fd00::1/64", "not an IPv4 address" }, { "address = auto", "not an IPv4 address" },
        { "address = 224.0.0.1/24", "own address" }, { "address = 127.0.0.1/8", "own address" },
        { "address = 10.0.0.0/24", "whole network" }, { "address = 10.0.0.255/24", "whole network" },
        { "address = 10.0.0.128/25", "whole network" }, { "address = 10.0.0.7/30", "whole network" },
        { "address = 0.0.0.1/8", "own address" }, { "address = 10.0.0.1/0", "own address" },
        { "address6 = dhcp", "not an IPv6 address" }, { "address6 = 10.0.0.1/24", "not an IPv6 address" },
        { "address6 = fd00::1", "prefix length" }, { "address6 = fd00::1/48", "write /64" }, { "address6 = ff02::1/64", "own address" },
        { "gateway = router", "not an IPv4 address" }, { "gateway = 10.0.0.1/24", "not an IPv4 address" },
        { "gateway = fd00::1", "not an IPv4 address" }, { "vlan = 0", "1 to 4094" }, { "vlan = 4095", "1 to 4094" }, { "vlan = red", "1 to 4094" },
        { "mtu = 575", "576 to 9000" }, { "mtu = 9001", "576 to 9000" }, { "dns = name", "name server" }, { "dns = 10.0.0.1/8", "name server" },
        { "dns = 10.0.0.1\ndns = 10.0.0.2\ndns = 10.0.0.3", "at most 2" },
    };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        const struct config_network *n = parse_one(cases[i].line, cases[i].part);
        assert_non_null(strstr(config.diagnostics[0].text, "network lan: "));
        assert_true(n->card == CONFIG_CARD_FIRST && n->ipv4 == CONFIG_ADDRESS_NONE && n->ipv6 == CONFIG_ADDRESS_NONE);
        assert_true(n->gateway.family == NET_NONE && n->vlan == 0 && n->mtu == 1500);
    }
}

static void what_does_not_fit_together_is_told(void **state)
{
    (void)state;
    parse_one("address = dhcp\ngateway = 10.0.0.1", "brings its own");
    parse_one("gateway = 10.0.0.1", "without an address");
    parse_one("address = 10.0.0.11/24\ngateway = 10.0.1.1", "never be reached");
    parse_one("address = 10.0.0.11/23\ngateway = 10.0.1.1", NULL);
    parse_one("address = 10.0.0.11/24\ngateway = 10.0.0.11", "node's own address");
    parse_one("address = 10.0.0.255/23\ngateway = 10.0.1.0", NULL); /* stations like others in that network */
    parse_one("address = 10.0.0.0/31\ngateway = 10.0.0.1", NULL);
    parse_one("address = 10.0.0.255/32", NULL);
    parse_one("address6 = auto\nmtu = 1279", "1280");
    parse_one("address = none\naddress6 = none\nmtu = 1279", NULL);
    assert_int_equal(config.diagnostic_count, 0);
}

static void two_networks_on_one_wire(void **state)
{
    static const struct { const char *a, *b, *part; } cases[] = {
        { "", "", "say which card" }, { "vlan = 5", "vlan = 5", "say which card" }, { "", "vlan = 5", NULL },
        { "card = 00:02.0", "card = 00:02.0", "another vlan" }, { "card = 00:02.0", "card = 00:02.1", NULL },
        { "card = 52:54:00:12:34:56", "card = 52:54:00:12:34:56", "another vlan" },
        { "card = 52:54:00:12:34:56", "card = 52:54:00:12:34:57", NULL }, { "", "card = 00:02.0", NULL },
    };
    char text[200];
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        snprintf(text, sizeof text, "[network one]\n%s\n[network two]\n%s\n", cases[i].a, cases[i].b);
        parse(text);
        assert_int_equal(config.network_count, 2);
        assert_int_equal(config.diagnostic_count, cases[i].part != NULL);
        assert_int_equal(config.networks[0].error_count, 0);
        assert_int_equal(config.networks[1].error_count, cases[i].part != NULL);
        if (cases[i].part)
            assert_non_null(strstr(config.diagnostics[0].text, cases[i].part));
    }
}

static void names_are_unique_and_bounded(void **state)
{
    char *text = calloc(1, 64 * (CONFIG_MAX_NETWORKS + 1));
    (void)state;

    parse("[network lan]\n[network lan]\nmtu = 9000\n[network -x]\nmtu = 1\n[vm lan]\nkernel = \\k\n");
    assert_int_equal(config.network_count, 1);
    assert_int_equal(config.vm_count, 1);
    assert_int_equal(config.diagnostic_count, 2);
    assert_non_null(strstr(config.diagnostics[0].text, "the first is in line 1"));
    assert_non_null(strstr(config.diagnostics[1].text, "network cannot be called"));
    assert_int_equal(config.networks[0].mtu, 1500);
    for (unsigned i = 0; i <= CONFIG_MAX_NETWORKS; i++)
        sprintf(text + strlen(text), "[network n%u]\nvlan = %u\n", i, i + 1);
    parse(text);
    assert_int_equal(config.network_count, CONFIG_MAX_NETWORKS);
    assert_int_equal(config.diagnostic_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "at most 16 networks"));
    free(text);
}

static int free_strings(void **state)
{
    (void)state;
    free(strings);
    return 0;
}

static void cards_of_vms(void **state)
{
    static const struct { const char *line, *part; } wrong[] = {
        { "network = lan 52:54:00:12:34", "is not a MAC address" }, { "network = lan 53:54:00:12:34:56", "first byte is even" },
        { "network = lan 00:00:00:00:00:00", "not all bytes are 0" }, { "network = -", "no name of a network" },
        { "network =", "no name of a network" }, { "network = wan", "there is no network wan: add a section [network NAME]" },
        { "network = lan\nnetwork = lan\nnetwork = lan\nnetwork = lan\nnetwork = lan\nnetwork = lan\nnetwork = lan\n"
          "network = lan\nnetwork = lan", "at most 8" },
    };
    char text[512], reason[200];
    const struct config_vm *vm;
    struct config_vm made;
    (void)state;

    parse("[vm a]\nkernel = \\k\nnetwork = lan\nnetwork = san\t 52:54:00:12:34:57\n[network lan]\n[network san]\nvlan = 5\n");
    assert_int_equal(config.diagnostic_count, 0);
    vm = &config.vms[0];
    assert_int_equal(vm->card_count, 2);
    assert_string_equal(vm->cards[0].network, "lan");
    assert_true(vm->cards[0].mac == 0 && vm->cards[0].line == 3 && vm->cards[1].line == 4);
    assert_string_equal(vm->cards[1].network, "san");
    assert_true(vm->cards[1].mac == 0x525400123457ull);
    assert_ptr_equal(config_find_network(&config, "san"), &config.networks[1]);
    assert_null(config_find_network(&config, "sa"));
    for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
        snprintf(text, sizeof text, "[vm a]\nkernel = \\k\n%s\n[network lan]\n", wrong[i].line);
        parse(text);
        if (config.diagnostic_count != 1 || !strstr(config.diagnostics[0].text, wrong[i].part))
            fail_msg("%s: %u diagnostics, the first \"%s\"", wrong[i].line, config.diagnostic_count, config.diagnostics[0].text);
        assert_non_null(strstr(config.diagnostics[0].text, "vm a: "));
        assert_int_equal(config.vms[0].error_count, 1);
        assert_true(config.diagnostics[0].line >= 3);
    }
    config_vm_defaults(&made, "b"); /* from the shell: whether the network is there is told when it starts */
    assert_int_equal(config_vm_set(&made, "network", "any", reason, sizeof reason), OK);
    for (unsigned i = 1; i < CONFIG_MAX_CARDS; i++)
        assert_int_equal(config_vm_set(&made, "network", "any", reason, sizeof reason), OK);
    assert_int_equal(config_vm_set(&made, "network", "any", reason, sizeof reason), ERR_NO_MEMORY);
    assert_int_equal(made.card_count, CONFIG_MAX_CARDS);
}

static void addresses_of_cards_are_stable_and_apart(void **state)
{
    static const char *const nodes[] = { "node", "alpha", "beta" }, *const vms[] = { "a", "b", "demo", "demo1", "nodea" };
    uint64_t seen[3 * 5 * CONFIG_MAX_CARDS];
    unsigned count = 0;
    (void)state;

    assert_true(config_card_mac("node", "demo", 0) == 0x2a8208581fdaull); /* guests keep it for ever: it may never change */
    assert_true(config_card_mac("ab", "c", 0) != config_card_mac("a", "bc", 0));
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < 5; j++)
            for (uint32_t k = 0; k < CONFIG_MAX_CARDS; k++) {
                uint64_t mac = config_card_mac(nodes[i], vms[j], k);
                assert_true(mac >> 40 << 40 == (mac & 0xff0000000000ull) && (mac >> 40 & 3) == 2 && mac >> 48 == 0);
                for (unsigned n = 0; n < count; n++)
                    assert_true(seen[n] != mac);
                seen[count++] = mac;
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cards_of_vms),
        cmocka_unit_test(addresses_of_cards_are_stable_and_apart),
        cmocka_unit_test(nothing_gives_the_defaults),       cmocka_unit_test(the_documented_example_is_read),
        cmocka_unit_test(wrong_values_say_what_is_right),   cmocka_unit_test(what_does_not_fit_together_is_told),
        cmocka_unit_test(two_networks_on_one_wire),         cmocka_unit_test(names_are_unique_and_bounded),
    };

    return cmocka_run_group_tests_name("config network", tests, NULL, free_strings);
}
