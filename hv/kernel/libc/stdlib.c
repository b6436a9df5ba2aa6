/* SPDX-License-Identifier: MIT */
/* Numbers from text. One scanner finds sign, base and digits; the public functions differ in their limits. */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A') + 10;
    return UINT_MAX;
}

/* The magnitude; *overflow tells that it does not fit. Without a digit *end is `text` itself. */
static unsigned long scan(const char *text, char **end, int base, bool *negative, bool *overflow)
{
    const char *at = text;
    unsigned long value = 0;
    bool any = false;

    *negative = false;
    *overflow = false;
    while (*at == ' ' || (*at >= '\t' && *at <= '\r'))
        at++;
    if (*at == '-' || *at == '+')
        *negative = *at++ == '-';
    if ((base == 0 || base == 16) && at[0] == '0' && (at[1] == 'x' || at[1] == 'X') && digit_value(at[2]) < 16) {
        at += 2;
        base = 16;
    } else if (base == 0) {
        base = *at == '0' ? 8 : 10;
    }
    for (; digit_value(*at) < (unsigned)base; at++) {
        any = true;
        *overflow |= __builtin_mul_overflow(value, (unsigned long)base, &value);
        *overflow |= __builtin_add_overflow(value, digit_value(*at), &value);
    }
    if (end)
        *end = (char *)(uintptr_t)(any ? at : text);
    return value;
}

unsigned long strtoul(const char *restrict text, char **restrict end, int base)
{
    bool negative, overflow;
    unsigned long value = scan(text, end, base, &negative, &overflow);

    if (overflow)
        return ULONG_MAX;
    return negative ? 0 - value : value;
}

unsigned long long strtoull(const char *restrict text, char **restrict end, int base)
{
    return strtoul(text, end, base);
}

long strtol(const char *restrict text, char **restrict end, int base)
{
    bool negative, overflow;
    unsigned long value = scan(text, end, base, &negative, &overflow);

    if (negative)
        return overflow || value > (unsigned long)LONG_MAX ? LONG_MIN : -(long)value;
    return overflow || value > (unsigned long)LONG_MAX ? LONG_MAX : (long)value;
}
