/* SPDX-License-Identifier: MIT */
/*
 * Memory and strings, as ISO C 7.24 (and POSIX for strnlen) has them. Only what is used here; bounded copies of strings
 * are in kernel/text.h, which Linux test programs have too. Any context.
 */
#ifndef LIBC_STRING_H
#define LIBC_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);
void *memchr(const void *bytes, int byte, size_t count);

/*
 * A freestanding compiler takes these for functions like any other. Under their other names it knows them, and writes moves
 * instead of a call where the count is a small constant. Who defines them wants them plain.
 */
#ifndef LIBC_PLAIN_NAMES
#define memcpy(to, from, count) __builtin_memcpy((to), (from), (count))
#define memset(to, byte, count) __builtin_memset((to), (byte), (count))
#define memcmp(a, b, count) __builtin_memcmp((a), (b), (count))
#endif

size_t strlen(const char *text);
size_t strnlen(const char *text, size_t limit);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t limit);
char *strchr(const char *text, int c);
char *strrchr(const char *text, int c);
char *strstr(const char *text, const char *part);
size_t strspn(const char *text, const char *accepted);
size_t strcspn(const char *text, const char *rejected);

#endif
