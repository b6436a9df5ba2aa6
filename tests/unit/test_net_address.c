/* SPDX-License-Identifier: MIT */
/* Addresses as text, and the Internet checksum against its definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/address.h"
#include "net/checksum.h"

static void addresses_are_read_and_written(void **state)
{
    static const struct { const char *text, *canonical; unsigned prefix; } good[] = {
        { "10.0.0.1", NULL, 32 }, { "10.0.0.1/24", NULL, 24 }, { "255.255.255.255/0", NULL, 0 }, { "0.0.0.0", NULL, 32 },
        { "::", NULL, 128 }, { "::1", NULL, 128 }, { "1::", NULL, 128 }, { "fd00::11/64", NULL, 64 },
        { "fe80::5054:ff:fe12:3456", NULL, 128 }, { "1:2:3:4:5:6:7:8", NULL, 128 }, { "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0", 128 },
        { "::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8", 128 }, { "2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1", 128 },
        { "::ffff:10.0.0.1", "::ffff:a00:1", 128 }, { "64:ff9b::192.0.2.33", "64:ff9b::c000:221", 128 },
        { "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304", 128 }, { "::1.2.3.4", "::102:304", 128 }, { "0001::00ff", "1::ff", 128 },
    };
    char text[NET_ADDRESS_TEXT];
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        struct net_address a, again;
        assert_true(text_to_address(good[i].text, &a));
        assert_int_equal(a.prefix, good[i].prefix);
        address_to_text(&a, true, text);
        assert_string_equal(text, good[i].canonical ? good[i].canonical : good[i].text);
        assert_true(text_to_address(text, &again));
        assert_memory_equal(&a, &again, sizeof a);
    }
}

static void what_is_no_address_is_refused(void **state)
{
    static const char *const bad[] = {
        "", " ", "10", "10.0.0", "10.0.0.", "10.0.0.256", "10.0.0.1.", "10.0.0.1.2", "10.0.0.01", "10.0.0.-1", "10.0.0.1/",
        "10.0.0.1/33", "10.0.0.1/1x", "10.0.0.1 ", " 10.0.0.1", "0x10.0.0.1", ":", ":::", "1:::2", "1::2::3", "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "12345::", "g::", "fe80::1%eth0", "::1/129", "1:2:3:4:5:6:7:",
        ":1:2:3:4:5:6:7", "::1.2.3", "::1.2.3.4.5", "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "99999999999999999999.0.0.1",
    };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        struct net_address a = { .prefix = 77 };
        char *exact = strdup(bad[i]); /* for the sanitizer: not a byte behind it is read */
        if (text_to_address(exact, &a))
            fail_msg("\"%s\" was taken for an address", bad[i]);
        assert_int_equal(a.prefix, 77);
        free(exact);
    }
}

static void mac_addresses(void **state)
{
    static const char *const bad[] = { "", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:", "525400123456", "g2:54:00:12:34:56",
                                       "52:54:00:12:34:567", "5:254:00:12:34:56" };
    uint8_t mac[6];
    char text[18];
    (void)state;

    assert_true(text_to_mac("52:54:00:AB:cd:0f", mac));
    assert_memory_equal(mac, "\x52\x54\x00\xab\xcd\x0f", 6);
    mac_to_text(mac, text);
    assert_string_equal(text, "52:54:00:ab:cd:0f");
    assert_true(text_to_mac("52-54-00-ab-cd-0f", mac));
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(text_to_mac(bad[i], mac));
}

static bool same(const char *a, const char *b)
{
    struct net_address x, y;

    assert_true(text_to_address(a, &x));
    assert_true(text_to_address(b, &y));
    return net_address_same_network(&x, &y);
}

static void networks_are_told_apart(void **state)
{
    (void)state;
    assert_true(same("10.0.0.11/24", "10.0.0.1"));
    assert_false(same("10.0.0.11/24", "10.0.1.1"));
    assert_true(same("10.0.0.11/23", "10.0.1.1"));
    assert_false(same("10.0.0.11/32", "10.0.0.12"));
    assert_true(same("10.0.0.11/0", "192.168.1.1"));
    assert_true(same("fd00::1/64", "fd00::2:3"));
    assert_false(same("fd00::1/64", "fd00:0:0:1::1"));
    assert_false(same("10.0.0.11/0", "::1"));
}

/* RFC 1071, word by word. */
static uint16_t plain(const uint8_t *bytes, int count)
{
    uint64_t sum = 0;

    for (int i = 0; i < count; i += 2)
        sum += (unsigned)bytes[i] | (i + 1 < count ? (unsigned)bytes[i + 1] << 8 : 0);
    while (sum >> 16)
        sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}

static void checksums_of_all_lengths_and_alignments(void **state)
{
    uint8_t bytes[320];
    (void)state;

    for (unsigned pattern = 0; pattern < 4; pattern++) {
        for (unsigned i = 0; i < sizeof bytes; i++)
            bytes[i] = pattern == 0 ? 0 : pattern == 1 ? 0xff : pattern == 2 ? (uint8_t)(i * 37 + 11) : (uint8_t)(i % 8 ? 0xff : 0xfe);
        for (int from = 0; from < 9; from++) {
            for (int count = 0; count <= 300; count++) {
                uint8_t *exact = malloc((size_t)count + 1);
                memcpy(exact + 1, bytes + from, (size_t)count);
                uint16_t expected = plain(bytes + from, count), got = net_checksum(exact + 1, count);
                /* Zero has two forms, 0 and 0xffff; all zeros give 0 and nothing else does. */
                assert_int_equal(got, expected);
                free(exact);
            }
        }
    }
}

static void a_whole_packet_of_ones(void **state)
{
    uint8_t *bytes = malloc(65535);
    (void)state;

    memset(bytes, 0xff, 65535);
    assert_int_equal(net_checksum(bytes, 65535), plain(bytes, 65535));
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written), cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(mac_addresses), cmocka_unit_test(networks_are_told_apart),
        cmocka_unit_test(checksums_of_all_lengths_and_alignments), cmocka_unit_test(a_whole_packet_of_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
