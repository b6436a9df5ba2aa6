/* SPDX-License-Identifier: MIT */
/* Texts of addresses. See address.h. */
#include "net/address.h"

#include <string.h>

#define GROUPS 8 /* of an IPv6 address, 16 bits each */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool text_to_mac(const char *text, uint8_t mac[6])
{
    uint8_t bytes[6];

    for (unsigned i = 0; i < 6; i++) {
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
        if (i < 5 && *text != ':' && *text != '-')
            return false;
        text += i < 5;
    }
    if (*text)
        return false;
    memcpy(mac, bytes, 6);
    return true;
}

/* Hexadecimal without leading zeros (or with, up to `width`), lower case; returns the end. */
static char *put_hex(char *to, uint32_t value, unsigned width)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        if (value >> shift || (unsigned)shift < 4 * width || shift == 0)
            *to++ = "0123456789abcdef"[value >> shift & 15];
    return to;
}

static char *put_decimal(char *to, unsigned value)
{
    if (value >= 100)
        *to++ = (char)('0' + value / 100);
    if (value >= 10)
        *to++ = (char)('0' + value / 10 % 10);
    *to++ = (char)('0' + value % 10);
    return to;
}

void mac_to_text(const uint8_t mac[6], char text[18])
{
    for (unsigned i = 0; i < 6; i++) {
        text = put_hex(text, mac[i], 2);
        *text++ = i < 5 ? ':' : 0;
    }
}

/* A decimal number up to `limit` without leading zeros; NULL where there is none. */
static const char *get_decimal(const char *text, unsigned limit, unsigned *value)
{
    const char *begin = text;

    for (*value = 0; *text >= '0' && *text <= '9' && text - begin < 4; text++)
        *value = *value * 10 + (unsigned)(*text - '0');
    if (text == begin || *value > limit || (*begin == '0' && text - begin > 1))
        return NULL;
    return text;
}

/* Four numbers; returns what is behind them, or NULL. */
static const char *get_ipv4(const char *text, uint8_t bytes[4])
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned value;
        if (i && *text++ != '.')
            return NULL;
        text = get_decimal(text, 255, &value);
        if (!text)
            return NULL;
        bytes[i] = (uint8_t)value;
    }
    return text;
}

/* Groups of up to four digits, one "::" for the zeros that are left out, IPv4 in the last two groups. */
static const char *get_ipv6(const char *text, uint8_t bytes[16])
{
    unsigned count = 0, gap = GROUPS + 1;
    uint8_t got[16] = { 0 };

    if (text[0] == ':' && text[1] == ':') {
        gap = 0;
        text += 2;
    }
    while (count < GROUPS && hex_digit(*text) >= 0) {
        const char *begin = text, *behind;
        uint32_t value = 0;
        if (count <= GROUPS - 2 && (behind = get_ipv4(text, got + 2 * count)) != NULL) {
            text = behind;
            count += 2;
            break;
        }
        for (; hex_digit(*text) >= 0 && text - begin < 4; text++)
            value = value << 4 | (uint32_t)hex_digit(*text);
        got[2 * count] = (uint8_t)(value >> 8);
        got[2 * count + 1] = (uint8_t)value;
        count++;
        if (text[0] == ':' && text[1] == ':' && gap > GROUPS) {
            gap = count;
            text += 2;
        } else if (text[0] == ':' && hex_digit(text[1]) >= 0 && count < GROUPS) {
            text++;
        } else {
            break;
        }
    }
    if (gap > GROUPS ? count != GROUPS : count >= GROUPS)
        return NULL;
    memset(bytes, 0, 16);
    unsigned before = gap > GROUPS ? GROUPS : gap;
    memcpy(bytes, got, 2 * before);
    memcpy(bytes + 16 - 2 * (count - MIN(before, count)), got + 2 * before, 2 * (count - MIN(before, count)));
    return text;
}

bool text_to_address(const char *text, struct net_address *address)
{
    struct net_address a = { .family = NET_IPV4, .prefix = 32 };
    const char *behind = get_ipv4(text, a.bytes);
    unsigned prefix;

    if (!behind) {
        a = (struct net_address){ .family = NET_IPV6, .prefix = 128 };
        behind = get_ipv6(text, a.bytes);
    }
    if (behind && *behind == '/') {
        behind = get_decimal(behind + 1, net_address_bits(a.family), &prefix);
        a.prefix = (uint8_t)prefix;
    }
    if (!behind || *behind)
        return false;
    *address = a;
    return true;
}

static unsigned group(const struct net_address *a, unsigned i)
{
    return (unsigned)a->bytes[2 * i] << 8 | a->bytes[2 * i + 1];
}

/* The longest run of two or more zero groups is left out, the first of equals (RFC 5952, 4.2). */
static char *put_ipv6(char *to, const struct net_address *a)
{
    unsigned first = GROUPS, longest = 1;

    for (unsigned i = 0; i < GROUPS; i++) {
        unsigned n = 0;
        while (i + n < GROUPS && group(a, i + n) == 0)
            n++;
        if (n > longest) {
            first = i;
            longest = n;
        }
    }
    for (unsigned i = 0; i < GROUPS; i++) {
        if (i == first) {
            *to++ = ':';
            i += longest - 1;
            if (i == GROUPS - 1)
                *to++ = ':';
            continue;
        }
        if (i)
            *to++ = ':';
        to = put_hex(to, group(a, i), 1);
    }
    return to;
}

void address_to_text(const struct net_address *a, bool prefix, char text[NET_ADDRESS_TEXT])
{
    char *to = text;

    if (a->family == NET_IPV6) {
        to = put_ipv6(to, a);
    } else if (a->family == NET_IPV4) {
        for (unsigned i = 0; i < 4; i++) {
            to = put_decimal(to, a->bytes[i]);
            *to++ = '.';
        }
        to--;
    } else {
        *to++ = '-';
    }
    if (prefix && a->prefix < net_address_bits(a->family)) {
        *to++ = '/';
        to = put_decimal(to, a->prefix);
    }
    *to = 0;
}

bool net_address_same_network(const struct net_address *a, const struct net_address *b)
{
    unsigned whole = a->prefix / 8, rest = a->prefix % 8;

    if (a->family != b->family || memcmp(a->bytes, b->bytes, whole))
        return false;
    return !rest || !((a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest));
}
