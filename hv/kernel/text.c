/* SPDX-License-Identifier: MIT */
/* Bounded text, numbers and UTF-8. See text.h for the contract. */
#include "kernel/text.h"

#include <string.h>

bool str_copy(char *to, size_t bytes, const char *from)
{
    size_t length = strlen(from);
    bool fits = length < bytes;

    if (!fits) {
        length = bytes - 1;
        while (length && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(to, from, length);
    to[length] = 0;
    return fits;
}

bool str_append(char *to, size_t bytes, const char *from)
{
    size_t used = strnlen(to, bytes);

    if (used == bytes)
        return false;
    return str_copy(to + used, bytes - used, from);
}

bool str_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return 16;
}

/* Scans digits from *at on and leaves *at behind them. */
static enum status scan_u64(const char **at, uint64_t *value)
{
    unsigned base = 10;
    uint64_t number = 0;

    if ((*at)[0] == '0' && ((*at)[1] == 'x' || (*at)[1] == 'X')) {
        base = 16;
        *at += 2;
    }
    if (digit_value(**at) >= base)
        return ERR_INVALID;
    for (; digit_value(**at) < base; (*at)++) {
        if (__builtin_mul_overflow(number, base, &number) ||
            __builtin_add_overflow(number, digit_value(**at), &number))
            return ERR_RANGE;
    }
    *value = number;
    return OK;
}

enum status text_to_u64(const char *text, uint64_t *value)
{
    uint64_t number;
    enum status status = scan_u64(&text, &number);

    if (status == OK && *text)
        status = ERR_INVALID;
    if (status == OK)
        *value = number;
    return status;
}

enum status text_to_bytes(const char *text, uint64_t *bytes)
{
    uint64_t number;
    enum status status = scan_u64(&text, &number);
    unsigned shift = 0;

    if (status != OK)
        return status;
    switch (*text) {
    case 0: break;
    case 'B': case 'b': break;
    case 'K': case 'k': shift = 10; break;
    case 'M': case 'm': shift = 20; break;
    case 'G': case 'g': shift = 30; break;
    case 'T': case 't': shift = 40; break;
    default: return ERR_INVALID;
    }
    if (*text)
        text++;
    if (shift && str_equal(text, "iB"))
        text += 2;
    if (*text)
        return ERR_INVALID;
    if (number > UINT64_MAX >> shift)
        return ERR_RANGE;
    *bytes = number << shift;
    return OK;
}

enum status text_to_khz(const char *text, uint32_t *khz)
{
    uint64_t unit = 1, number = 0, part = 0;
    unsigned decimals = 0;
    bool point = false;

    if (*text < '0' || *text > '9')
        return ERR_INVALID;
    for (; (*text >= '0' && *text <= '9') || (*text == '.' && !point); text++) {
        if (*text == '.') {
            point = true;
        } else if (!point) {
            number = number * 10 + digit_value(*text);
            if (number > UINT32_MAX)
                return ERR_RANGE;
        } else if (++decimals <= 6) { /* what follows must be zeros: GHz have 6 places down to kHz */
            part = part * 10 + digit_value(*text);
        } else if (*text != '0') {
            return ERR_INVALID;
        }
    }
    while (*text == ' ' || *text == '\t')
        text++;
    if ((*text | 0x20) == 'm')
        unit = 1000;
    else if ((*text | 0x20) == 'g')
        unit = 1000000;
    else if ((*text | 0x20) != 'k')
        return ERR_INVALID;
    if ((text[1] | 0x20) != 'h' || (text[2] | 0x20) != 'z' || text[3] || (point && !decimals))
        return ERR_INVALID;
    uint64_t places = 1;
    for (unsigned i = 0; i < MIN(decimals, 6u); i++)
        places *= 10;
    if (part * unit % places)
        return ERR_INVALID;
    number = number * unit + part * unit / places;
    if (number > UINT32_MAX)
        return ERR_RANGE;
    *khz = (uint32_t)number;
    return OK;
}

unsigned utf8_decode(const char *text, size_t count, uint32_t *code_point)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *at = (const unsigned char *)text;
    unsigned length;
    uint32_t value;

    if (at[0] < 0x80) {
        *code_point = at[0];
        return 1;
    }
    if (at[0] < 0xc2 || at[0] > 0xf4)
        return 0;
    length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (length > count)
        return 0;
    value = at[0] & (0x7fu >> length);
    for (unsigned i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (at[i] & 0x3fu);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code_point = value;
    return length;
}

unsigned utf8_columns(uint32_t code_point)
{
    /* The blocks that terminals agree on (Unicode UAX #11, and general categories Mn, Me and Cf). */
    static const struct { uint32_t first, last; unsigned columns; } ranges[] = {
        { 0x0300, 0x036f, 0 }, { 0x0483, 0x0489, 0 }, { 0x0591, 0x05bd, 0 }, { 0x0610, 0x061a, 0 },
        { 0x064b, 0x065f, 0 }, { 0x1100, 0x115f, 2 }, { 0x1ab0, 0x1aff, 0 }, { 0x1dc0, 0x1dff, 0 },
        { 0x200b, 0x200f, 0 }, { 0x202a, 0x202e, 0 }, { 0x2060, 0x2064, 0 }, { 0x20d0, 0x20f0, 0 },
        { 0x2e80, 0x303e, 2 }, { 0x3041, 0x33ff, 2 }, { 0x3400, 0x4dbf, 2 }, { 0x4e00, 0x9fff, 2 },
        { 0xa000, 0xa4cf, 2 }, { 0xac00, 0xd7a3, 2 }, { 0xf900, 0xfaff, 2 }, { 0xfe00, 0xfe0f, 0 },
        { 0xfe20, 0xfe2f, 0 }, { 0xfe30, 0xfe6f, 2 }, { 0xfeff, 0xfeff, 0 }, { 0xff00, 0xff60, 2 },
        { 0xffe0, 0xffe6, 2 }, { 0x1f300, 0x1f64f, 2 }, { 0x1f900, 0x1f9ff, 2 }, { 0x20000, 0x3fffd, 2 },
    };

    if (code_point < ranges[0].first)
        return 1;
    for (size_t i = 0; i < ARRAY_COUNT(ranges); i++) {
        if (code_point >= ranges[i].first && code_point <= ranges[i].last)
            return ranges[i].columns;
    }
    return 1;
}
