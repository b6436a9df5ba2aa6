/* SPDX-License-Identifier: MIT */
/*
 * The mem* and str* functions. The compiler calls the first four on its own, so they must exist under these names, and
 * nothing in them may be turned back into a call of themselves (the pragma; clang heeds -ffreestanding).
 *
 * Copies use words of 8 bytes, not `rep movsb`: processors with fast strings (ERMS) move both at the same speed, older
 * ones and every emulator move words faster. A copy's last word is loaded before its first store, so the forward
 * path is also right for a memmove to a lower address; the backward path takes the other direction.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif

#define LIBC_PLAIN_NAMES
#include <stdint.h>
#include <string.h>

/* From this many bytes on a string instruction beats a loop. */
#define STRING_INSTRUCTION_BYTES 128

typedef uint64_t __attribute__((may_alias, aligned(1))) word64;
typedef uint32_t __attribute__((may_alias, aligned(1))) word32;
typedef uint16_t __attribute__((may_alias, aligned(1))) word16;

/* Up to 16 bytes; everything is loaded before anything is stored. */
static inline void copy_small(unsigned char *to, const unsigned char *from, size_t count)
{
    if (count >= 8) {
        uint64_t head = *(const word64 *)from;
        uint64_t tail = *(const word64 *)(from + count - 8);

        *(word64 *)to = head;
        *(word64 *)(to + count - 8) = tail;
    } else if (count >= 4) {
        uint32_t head = *(const word32 *)from;
        uint32_t tail = *(const word32 *)(from + count - 4);

        *(word32 *)to = head;
        *(word32 *)(to + count - 4) = tail;
    } else if (count >= 2) {
        uint16_t head = *(const word16 *)from;
        uint16_t tail = *(const word16 *)(from + count - 2);

        *(word16 *)to = head;
        *(word16 *)(to + count - 2) = tail;
    } else if (count) {
        *to = *from;
    }
}

static inline void copy_forward(unsigned char *to, const unsigned char *from, size_t count)
{
    unsigned char *last = to + count - 8;
    uint64_t tail = *(const word64 *)(from + count - 8);

    if (count >= STRING_INSTRUCTION_BYTES) {
        size_t words = count / 8;

        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    } else {
        for (; to < last; to += 8, from += 8)
            *(word64 *)to = *(const word64 *)from;
    }
    *(word64 *)last = tail;
}

static inline void copy_backward(unsigned char *to, const unsigned char *from, size_t count)
{
    uint64_t head = *(const word64 *)from;
    size_t left;

    for (left = count; left > 8; left -= 8)
        *(word64 *)(to + left - 8) = *(const word64 *)(from + left - 8);
    *(word64 *)to = head;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    if (count <= 16)
        copy_small(to, from, count);
    else
        copy_forward(to, from, count);
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    if (count <= 16)
        copy_small(to, from, count);
    else if ((uintptr_t)to - (uintptr_t)from >= count) /* below `from`, or past its end */
        copy_forward(to, from, count);
    else
        copy_backward(to, from, count);
    return to;
}

void *memset(void *to, int byte, size_t count)
{
    unsigned char *at = to;
    uint64_t pattern = 0x0101010101010101ull * (unsigned char)byte;

    if (count >= 8) {
        unsigned char *last = at + count - 8;

        if (count >= STRING_INSTRUCTION_BYTES) {
            size_t words = count / 8;

            __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(pattern) : "memory");
        } else {
            for (; at < last; at += 8)
                *(word64 *)at = pattern;
        }
        *(word64 *)last = pattern;
    } else if (count >= 4) {
        *(word32 *)at = (uint32_t)pattern;
        *(word32 *)(at + count - 4) = (uint32_t)pattern;
    } else {
        while (count)
            at[--count] = (unsigned char)byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const unsigned char *x = a;
    const unsigned char *y = b;

    for (; count >= 8; count -= 8, x += 8, y += 8) {
        if (*(const word64 *)x != *(const word64 *)y)
            break;
    }
    for (; count; count--, x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

void *memchr(const void *bytes, int byte, size_t count)
{
    const unsigned char *at = bytes;

    for (; count; count--, at++) {
        if (*at == (unsigned char)byte)
            return (void *)(uintptr_t)at;
    }
    return NULL;
}

size_t strlen(const char *text)
{
    const char *end = text;

    while (*end)
        end++;
    return (size_t)(end - text);
}

size_t strnlen(const char *text, size_t limit)
{
    size_t length = 0;

    while (length < limit && text[length])
        length++;
    return length;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t limit)
{
    for (; limit; limit--, a++, b++) {
        if (*a != *b || !*a)
            return (unsigned char)*a - (unsigned char)*b;
    }
    return 0;
}

char *strchr(const char *text, int c)
{
    for (; *text != (char)c; text++) {
        if (!*text)
            return NULL;
    }
    return (char *)(uintptr_t)text;
}

char *strrchr(const char *text, int c)
{
    const char *found = NULL;

    for (;; text++) {
        if (*text == (char)c)
            found = text;
        if (!*text)
            return (char *)(uintptr_t)found;
    }
}

char *strstr(const char *text, const char *part)
{
    size_t length = strlen(part);

    for (;; text++) {
        if (strncmp(text, part, length) == 0)
            return (char *)(uintptr_t)text;
        if (!*text)
            return NULL;
    }
}

size_t strspn(const char *text, const char *accepted)
{
    size_t length = 0;

    while (text[length] && strchr(accepted, text[length]))
        length++;
    return length;
}

size_t strcspn(const char *text, const char *rejected)
{
    size_t length = 0;

    while (text[length] && !strchr(rejected, text[length]))
        length++;
    return length;
}
