/* SPDX-License-Identifier: MIT */
/*
 * Numbers from text, as ISO C 7.22 has them, without errno: a value that is out of range is the largest (or smallest)
 * there is. For input that an admin or a peer wrote, kernel/text.h has stricter ones. Any context.
 */
#ifndef LIBC_STDLIB_H
#define LIBC_STDLIB_H

#include <stddef.h>

/* base is 0 (by prefix: 0x, 0, none) or 2 to 36; *end (where end is not NULL) is the first character not used. */
unsigned long strtoul(const char *restrict text, char **restrict end, int base);
unsigned long long strtoull(const char *restrict text, char **restrict end, int base);
long strtol(const char *restrict text, char **restrict end, int base);

static inline int atoi(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

static inline int abs(int value)
{
    return value < 0 ? -value : value;
}

#endif
