/* SPDX-License-Identifier: MIT */
/* Spelling of pairs, numbers, binary values, lists, addresses and names in iSCSI text. See iscsi_text.h. Pure. */
#include "net/iscsi/iscsi_text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

static bool key_character(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '-' || c == '+' || c == '@' || c == '_' || c == '#';
}

enum status iscsi_text_next(struct iscsi_text_reader *reader, const char **key, size_t *key_bytes, const char **value)
{
    /* Targets pad with NULs. */
    while (reader->at < reader->end && !*reader->at)
        reader->at++;
    if (reader->at == reader->end)
        return ERR_NOT_FOUND;
    const char *start = reader->at;
    const char *nul = memchr(start, 0, (size_t)(reader->end - start));
    const char *equals = memchr(start, '=', (size_t)(reader->end - start));
    if (!nul || !equals || equals > nul)
        return ERR_INVALID;
    size_t bytes = (size_t)(equals - start);
    if (!bytes || bytes > ISCSI_KEY_MAX || (size_t)(nul - equals - 1) > ISCSI_VALUE_MAX)
        return ERR_INVALID;
    for (size_t i = 0; i < bytes; i++)
        if (!key_character(start[i]))
            return ERR_INVALID;
    *key = start;
    *key_bytes = bytes;
    *value = equals + 1;
    reader->at = nul + 1;
    return OK;
}

bool iscsi_key_is(const char *key, size_t key_bytes, const char *name)
{
    return strlen(name) == key_bytes && !memcmp(key, name, key_bytes);
}

void iscsi_text_put_key(struct iscsi_text_writer *writer, const char *key, size_t key_bytes, const char *value)
{
    size_t value_bytes = strlen(value), need = key_bytes + 1 + value_bytes + 1;
    if (need > writer->bytes - writer->count) {
        writer->full = true;
        return;
    }
    char *to = writer->text + writer->count;
    memcpy(to, key, key_bytes);
    to[key_bytes] = '=';
    memcpy(to + key_bytes + 1, value, value_bytes + 1);
    writer->count += need;
}

void iscsi_text_put(struct iscsi_text_writer *writer, const char *key, const char *value)
{
    iscsi_text_put_key(writer, key, strlen(key), value);
}

void iscsi_text_put_number(struct iscsi_text_writer *writer, const char *key, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof(digits), "%lu", (unsigned long)number);
    iscsi_text_put(writer, key, digits);
}

void iscsi_text_put_binary(struct iscsi_text_writer *writer, const char *key, const uint8_t *bytes, size_t count)
{
    static const char digit[] = "0123456789abcdef";
    size_t key_bytes = strlen(key), need = key_bytes + 3 + 2 * count + 1;
    if (need > writer->bytes - writer->count) {
        writer->full = true;
        return;
    }
    char *to = writer->text + writer->count;
    memcpy(to, key, key_bytes);
    memcpy(to + key_bytes, "=0x", 3);
    to += key_bytes + 3;
    for (size_t i = 0; i < count; i++) {
        *to++ = digit[bytes[i] >> 4];
        *to++ = digit[bytes[i] & 15];
    }
    *to = 0;
    writer->count += need;
}

enum status iscsi_text_number(const char *value, uint64_t *number)
{
    return text_to_u64(value, number) == OK ? OK : ERR_INVALID;
}

static int hex_value(char c)
{
    if (isdigit((unsigned char)c))
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum status from_hex(const char *digits, uint8_t *bytes, size_t capacity, size_t *count)
{
    size_t length = strlen(digits), odd = length & 1;
    if (!length)
        return ERR_INVALID;
    if ((length + 1) / 2 > capacity)
        return ERR_RANGE;
    memset(bytes, 0, (length + 1) / 2);
    for (size_t i = 0; i < length; i++) {
        int value = hex_value(digits[i]);
        if (value < 0)
            return ERR_INVALID;
        bytes[(i + odd) / 2] |= (uint8_t)((i + odd) % 2 ? value : value << 4);
    }
    *count = (length + 1) / 2;
    return OK;
}

static int base64_value(char c)
{
    if (isupper((unsigned char)c))
        return c - 'A';
    if (islower((unsigned char)c))
        return c - 'a' + 26;
    if (isdigit((unsigned char)c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static enum status from_base64(const char *text, uint8_t *bytes, size_t capacity, size_t *count)
{
    size_t length = strlen(text), padding = 0;
    if (!length || length % 4)
        return ERR_INVALID;
    while (padding < 2 && text[length - 1 - padding] == '=')
        padding++;
    size_t need = length / 4 * 3 - padding;
    if (need > capacity)
        return ERR_RANGE;
    uint32_t bits = 0;
    size_t out = 0;
    for (size_t i = 0; i < length; i++) {
        int value = i >= length - padding ? 0 : base64_value(text[i]);
        if (value < 0)
            return ERR_INVALID;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 3)
            for (int k = 2; k >= 0 && out < need; k--)
                bytes[out++] = (uint8_t)(bits >> (8 * k));
    }
    *count = need;
    return OK;
}

enum status iscsi_text_binary(const char *value, uint8_t *bytes, size_t capacity, size_t *count)
{
    if (value[0] != '0')
        return ERR_INVALID;
    if (value[1] == 'x' || value[1] == 'X')
        return from_hex(value + 2, bytes, capacity, count);
    if (value[1] == 'b' || value[1] == 'B')
        return from_base64(value + 2, bytes, capacity, count);
    return ERR_INVALID;
}

bool iscsi_list_next(const char **list, const char **item, size_t *item_bytes)
{
    if (!**list)
        return false;
    *item = *list;
    *item_bytes = strcspn(*list, ",");
    *list += *item_bytes;
    if (**list)
        ++*list;
    return true;
}

bool iscsi_list_has(const char *list, const char *item, size_t item_bytes)
{
    const char *at;
    size_t bytes;
    while (iscsi_list_next(&list, &at, &bytes))
        if (bytes == item_bytes && !memcmp(at, item, bytes))
            return true;
    return false;
}

/* A decimal number of 16 bits that ends at `stop`. */
static bool small_number(const char *text, const char *stop, uint16_t *number)
{
    uint32_t value = 0;
    if (text == stop)
        return false;
    for (; text < stop; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        value = value * 10 + (uint32_t)(*text - '0');
        if (value > 0xffff)
            return false;
    }
    *number = (uint16_t)value;
    return true;
}

enum status iscsi_portal_parse(const char *text, struct iscsi_portal *portal)
{
    const char *host = text, *host_end, *rest;
    *portal = (struct iscsi_portal){ .port = 3260 };
    if (*text == '[') {
        host = text + 1;
        host_end = strchr(host, ']');
        if (!host_end)
            return ERR_INVALID;
        rest = host_end + 1;
    } else {
        host_end = rest = text + strcspn(text, ":,");
    }
    size_t bytes = (size_t)(host_end - host);
    if (!bytes || bytes >= sizeof(portal->host))
        return ERR_INVALID;
    for (size_t i = 0; i < bytes; i++)
        if (!isgraph((unsigned char)host[i]))
            return ERR_INVALID;
    memcpy(portal->host, host, bytes);
    if (*rest == ':') {
        const char *stop = rest + strcspn(rest, ",");
        if (!small_number(rest + 1, stop, &portal->port) || !portal->port)
            return ERR_INVALID;
        rest = stop;
    }
    if (*rest == ',') {
        const char *stop = rest + strlen(rest);
        if (!small_number(rest + 1, stop, &portal->group))
            return ERR_INVALID;
        rest = stop;
    }
    return *rest ? ERR_INVALID : OK;
}

bool iscsi_name_valid(const char *name)
{
    size_t bytes = strlen(name);
    if (bytes <= 4 || bytes > ISCSI_NAME_MAX)
        return false;
    if (!str_starts_with(name, "iqn.") && !str_starts_with(name, "eui.") && !str_starts_with(name, "naa."))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-.:", name[i]) && (unsigned char)name[i] < 0x80)
            return false;
    return true;
}
