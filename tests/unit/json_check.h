/* SPDX-License-Identifier: MIT */
/*
 * A strict reader of JSON (RFC 8259) for tests: says whether a text is exactly one value, and finds values by a path.
 * Header only: each test that wants it includes it once.
 */
#ifndef TESTS_JSON_CHECK_H
#define TESTS_JSON_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

static const char *json_value(const char *at);

static inline const char *json_space(const char *at)
{
    while (at && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static inline const char *json_text(const char *at)
{
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        uint32_t code_point;
        unsigned length;

        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at == '\\') {
            if (at[1] == 'u') {
                if (strspn(at + 2, "0123456789abcdefABCDEF") < 4)
                    return NULL;
                at += 6;
            } else {
                if (!at[1] || !strchr("\"\\/bfnrt", at[1]))
                    return NULL;
                at += 2;
            }
            continue;
        }
        length = utf8_decode(at, strlen(at), &code_point);
        if (!length)
            return NULL;
        at += length;
    }
    return at + 1;
}

static inline const char *json_number(const char *at)
{
    size_t digits;

    at += *at == '-';
    digits = strspn(at, "0123456789");
    if (!digits || (digits > 1 && *at == '0'))
        return NULL;
    return at + digits; /* nothing here writes fractions */
}

/* Behind the container's bracket; `name` true for an object. Fails on a name that comes twice. */
static inline const char *json_members(const char *at, bool names, char close)
{
    const char *first = at;
    unsigned count = 0;

    for (at = json_space(at); at && *at != close; count++) {
        if (count) {
            if (*at != ',')
                return NULL;
            at = json_space(at + 1);
        }
        if (names) {
            const char *name = at;
            const char *other = json_space(first);

            at = json_text(at);
            if (!at)
                return NULL;
            for (unsigned i = 0; i < count; i++) {
                const char *end = json_text(other);

                if (end - other == at - name && memcmp(other, name, (size_t)(at - name)) == 0)
                    return NULL;
                other = json_space(json_value(json_space(json_space(end) + 1)));
                other = json_space(other + 1);
            }
            at = json_space(at);
            if (*at != ':')
                return NULL;
            at = json_space(at + 1);
        }
        at = json_space(json_value(at));
    }
    return at ? at + 1 : NULL;
}

/* The end of the value that begins at `at`, or NULL. */
static inline const char *json_value(const char *at)
{
    switch (*at) {
    case '{': return json_members(at + 1, true, '}');
    case '[': return json_members(at + 1, false, ']');
    case '"': return json_text(at);
    case 't': return strncmp(at, "true", 4) == 0 ? at + 4 : NULL;
    case 'f': return strncmp(at, "false", 5) == 0 ? at + 5 : NULL;
    case 'n': return strncmp(at, "null", 4) == 0 ? at + 4 : NULL;
    default: return json_number(at);
    }
}

/* True if the text is one JSON value in one line, with its new line. */
static inline bool json_valid(const char *text)
{
    const char *end = json_value(text);

    return end && strcmp(end, "\n") == 0;
}

/*
 * The value at a path ("vms.0.name"), as it stands in the text, into `value` (256 bytes); "" where there is none. The
 * text must be valid.
 */
static inline const char *json_at(const char *text, const char *path, char *value)
{
    const char *at = text;

    *value = 0;
    while (*path) {
        size_t part = strcspn(path, ".");
        bool object = *at == '{';
        unsigned wanted = 0;
        bool found = false;

        if (!object && *at != '[')
            return value;
        for (size_t i = 0; !object && i < part; i++)
            wanted = wanted * 10 + (unsigned)(path[i] - '0');
        at = json_space(at + 1);
        for (unsigned i = 0; *at != '}' && *at != ']' && !found; i++) {
            if (i)
                at = json_space(at + 1);
            if (object) {
                const char *end = json_text(at);

                found = (size_t)(end - at) == part + 2 && memcmp(at + 1, path, part) == 0;
                at = json_space(json_space(end) + 1);
            } else {
                found = i == wanted;
            }
            if (!found)
                at = json_space(json_value(at));
        }
        if (!found)
            return value;
        path += part + (path[part] == '.');
    }
    snprintf(value, 256, "%.*s", (int)(json_value(at) - at), at);
    return value;
}

#endif
