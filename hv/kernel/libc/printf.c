/* SPDX-License-Identifier: MIT */
/*
 * snprintf: one pass over the format, each conversion parsed into a struct spec and rendered as
 * [spaces] [sign or base] [zeros] [digits or text] [spaces]. The sink counts everything and stores what fits, so the
 * returned length is right also when the text was cut (ISO C 7.21.6.5). Output equals glibc's for all that is
 * supported, NULL strings and pointers included, so that a text has the same form in a node and in a test.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct sink {
    char *buffer;
    size_t room;   /* bytes for text, the NUL not counted */
    size_t length; /* of the whole text so far */
};

enum length { LENGTH_INT, LENGTH_CHAR, LENGTH_SHORT, LENGTH_LONG /* l, ll, z, j and t are all 64 bits here */ };

struct spec {
    bool left, plus, space, alternate, zero;
    bool has_precision;
    size_t width;
    size_t precision;
    enum length length;
};

static void put(struct sink *sink, const char *text, size_t count)
{
    if (sink->length < sink->room) {
        size_t fits = sink->room - sink->length;

        memcpy(sink->buffer + sink->length, text, count < fits ? count : fits);
    }
    sink->length += count;
}

static void pad(struct sink *sink, char c, size_t count)
{
    if (sink->length < sink->room) {
        size_t fits = sink->room - sink->length;

        memset(sink->buffer + sink->length, c, count < fits ? count : fits);
    }
    sink->length += count;
}

static void put_text(struct sink *sink, const struct spec *spec, const char *text, size_t count)
{
    size_t fill = spec->width > count ? spec->width - count : 0;

    if (!spec->left)
        pad(sink, ' ', fill);
    put(sink, text, count);
    if (spec->left)
        pad(sink, ' ', fill);
}

static void put_string(struct sink *sink, const struct spec *spec, const char *text)
{
    if (!text) {
        text = "(null)";
        if (spec->has_precision && spec->precision < 6)
            text = "";
    }
    put_text(sink, spec, text, spec->has_precision ? strnlen(text, spec->precision) : strlen(text));
}

/* Writes the digits of `value` so that they end at `end`; returns where they begin. Zero has no digits. */
static char *digits_of(uint64_t value, unsigned base, bool upper, char *end)
{
    const char *alphabet = upper ? "0123456789ABCDEF" : "0123456789abcdef";

    if (base == 10) {
        for (; value; value /= 10)
            *--end = (char)('0' + value % 10);
    } else {
        unsigned shift = base == 16 ? 4 : 3;

        for (; value; value >>= shift)
            *--end = alphabet[value & (base - 1)];
    }
    return end;
}

/* A number with `prefix` (a sign or "0x") before it. */
static void put_number(struct sink *sink, const struct spec *spec, uint64_t value, unsigned base, bool upper,
                       const char *prefix)
{
    char buffer[24]; /* 22 octal digits at most */
    char *end = buffer + sizeof(buffer);
    char *first = digits_of(value, base, upper, end);
    size_t digit_count = (size_t)(end - first);
    size_t least = spec->has_precision ? spec->precision : 1;
    size_t zeros = least > digit_count ? least - digit_count : 0;
    size_t prefix_count = strlen(prefix);
    size_t total;
    size_t fill;

    if (base == 8 && spec->alternate && !zeros && (!digit_count || *first != '0'))
        zeros = 1; /* ISO C: the precision is raised so that the first digit is a zero */
    total = prefix_count + zeros + digit_count;
    fill = spec->width > total ? spec->width - total : 0;
    if (fill && spec->zero && !spec->left && !spec->has_precision) {
        zeros += fill;
        fill = 0;
    }
    if (!spec->left)
        pad(sink, ' ', fill);
    put(sink, prefix, prefix_count);
    pad(sink, '0', zeros);
    put(sink, first, digit_count);
    if (spec->left)
        pad(sink, ' ', fill);
}

static void put_signed(struct sink *sink, const struct spec *spec, int64_t value)
{
    if (value < 0)
        put_number(sink, spec, 0 - (uint64_t)value, 10, false, "-");
    else
        put_number(sink, spec, (uint64_t)value, 10, false, spec->plus ? "+" : spec->space ? " " : "");
}

static void put_unsigned(struct sink *sink, const struct spec *spec, uint64_t value, char conversion)
{
    switch (conversion) {
    case 'o':
        put_number(sink, spec, value, 8, false, "");
        break;
    case 'x':
        put_number(sink, spec, value, 16, false, spec->alternate && value ? "0x" : "");
        break;
    case 'X':
        put_number(sink, spec, value, 16, true, spec->alternate && value ? "0X" : "");
        break;
    default:
        put_number(sink, spec, value, 10, false, "");
        break;
    }
}

/* NULL as a text, everything else as a signed conversion with "0x" would be, as glibc has it. */
static void put_pointer(struct sink *sink, const struct spec *spec, const void *pointer)
{
    if (!pointer)
        put_text(sink, spec, "(nil)", 5);
    else
        put_number(sink, spec, (uintptr_t)pointer, 16, false, spec->plus ? "+0x" : spec->space ? " 0x" : "0x");
}

static int64_t take_signed(enum length length, va_list *args)
{
    switch (length) {
    case LENGTH_CHAR: return (signed char)va_arg(*args, int);
    case LENGTH_SHORT: return (short)va_arg(*args, int);
    case LENGTH_LONG: return va_arg(*args, long);
    default: return va_arg(*args, int);
    }
}

static uint64_t take_unsigned(enum length length, va_list *args)
{
    switch (length) {
    case LENGTH_CHAR: return (unsigned char)va_arg(*args, unsigned);
    case LENGTH_SHORT: return (unsigned short)va_arg(*args, unsigned);
    case LENGTH_LONG: return va_arg(*args, unsigned long);
    default: return va_arg(*args, unsigned);
    }
}

/* Reads decimal digits; a number beyond INT_MAX stays there. */
static size_t parse_number(const char **at)
{
    size_t number = 0;

    for (; **at >= '0' && **at <= '9'; (*at)++) {
        number = number * 10 + (size_t)(**at - '0');
        if (number > INT_MAX)
            number = INT_MAX;
    }
    return number;
}

static const char *parse_flags(const char *at, struct spec *spec)
{
    for (;; at++) {
        switch (*at) {
        case '-': spec->left = true; break;
        case '+': spec->plus = true; break;
        case ' ': spec->space = true; break;
        case '#': spec->alternate = true; break;
        case '0': spec->zero = true; break;
        default: return at;
        }
    }
}

static const char *parse_sizes(const char *at, struct spec *spec, va_list *args)
{
    if (*at == '*') {
        int width = va_arg(*args, int);

        at++;
        spec->left |= width < 0;
        spec->width = width < 0 ? 0 - (size_t)width : (size_t)width;
    } else {
        spec->width = parse_number(&at);
    }
    if (*at != '.')
        return at;
    at++;
    spec->has_precision = true;
    if (*at == '*') {
        int precision = va_arg(*args, int);

        at++;
        spec->has_precision = precision >= 0;
        spec->precision = precision >= 0 ? (size_t)precision : 0;
    } else {
        spec->precision = parse_number(&at);
    }
    return at;
}

static const char *parse_length(const char *at, struct spec *spec)
{
    switch (*at) {
    case 'h':
        spec->length = at[1] == 'h' ? LENGTH_CHAR : LENGTH_SHORT;
        return at + (at[1] == 'h' ? 2 : 1);
    case 'l':
        spec->length = LENGTH_LONG;
        return at + (at[1] == 'l' ? 2 : 1);
    case 'z':
    case 'j':
    case 't':
        spec->length = LENGTH_LONG;
        return at + 1;
    default:
        return at;
    }
}

/* One conversion, `at` behind its '%'. Returns where the format goes on. */
static const char *convert(struct sink *sink, const char *at, va_list *args)
{
    const char *start = at - 1;
    struct spec spec = { 0 };
    char c;

    at = parse_flags(at, &spec);
    at = parse_sizes(at, &spec, args);
    at = parse_length(at, &spec);
    switch (*at) {
    case 'd':
    case 'i':
        put_signed(sink, &spec, take_signed(spec.length, args));
        break;
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        put_unsigned(sink, &spec, take_unsigned(spec.length, args), *at);
        break;
    case 'c':
        c = (char)va_arg(*args, int);
        put_text(sink, &spec, &c, 1);
        break;
    case 's':
        put_string(sink, &spec, va_arg(*args, const char *));
        break;
    case 'p':
        put_pointer(sink, &spec, va_arg(*args, const void *));
        break;
    case '%':
        put(sink, "%", 1);
        break;
    case 0:
        put(sink, start, (size_t)(at - start));
        return at;
    default:
        put(sink, start, (size_t)(at + 1 - start));
        break;
    }
    return at + 1;
}

int vsnprintf(char *restrict buffer, size_t bytes, const char *restrict format, va_list args)
{
    struct sink sink = { .buffer = buffer, .room = bytes ? bytes - 1 : 0 };
    const char *at = format;
    va_list rest;

    va_copy(rest, args);
    while (*at && sink.length <= INT_MAX) {
        size_t plain = 0;

        while (at[plain] && at[plain] != '%')
            plain++;
        put(&sink, at, plain);
        at += plain;
        if (*at)
            at = convert(&sink, at + 1, &rest);
    }
    va_end(rest);
    if (bytes)
        buffer[sink.length < sink.room ? sink.length : sink.room] = 0;
    return sink.length <= INT_MAX ? (int)sink.length : -1;
}

int snprintf(char *restrict buffer, size_t bytes, const char *restrict format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(buffer, bytes, format, args);
    va_end(args);
    return length;
}
