/* SPDX-License-Identifier: MIT */
/*
 * Small, safe work on text that the standard library does badly: bounded copies that always end in a NUL, numbers that
 * are a number from the first to the last character, sizes as an admin writes them. Pure; any context; in the
 * hypervisor and in Linux test programs alike.
 */
#ifndef KERNEL_TEXT_H
#define KERNEL_TEXT_H

#include "kernel/status.h"
#include "kernel/types.h"

/* Copies `from` to the `bytes` (1 or more) bytes at `to`, the NUL included. False: it was cut, between characters. */
bool str_copy(char *to, size_t bytes, const char *from);

/* Appends `from` to the string at `to`, which has room for `bytes` bytes in all. False: it was cut. */
bool str_append(char *to, size_t bytes, const char *from);

static inline bool str_equal(const char *a, const char *b)
{
    return __builtin_strcmp(a, b) == 0;
}

/* True if `text` begins with `prefix`. */
bool str_starts_with(const char *text, const char *prefix);

/*
 * A whole number, decimal or with 0x hexadecimal, nothing before or after it. ERR_INVALID: not one; ERR_RANGE: beyond
 * 64 bits. On failure *value is unchanged.
 */
enum status text_to_u64(const char *text, uint64_t *value) MUST_CHECK;

/* A size: a whole number, then nothing or B (bytes), K, M, G or T (powers of 1024), either case, "iB" allowed after. */
enum status text_to_bytes(const char *text, uint64_t *bytes) MUST_CHECK;

/*
 * A frequency: a decimal number, with a point or not, blanks or none, and kHz, MHz or GHz, either case. ERR_INVALID: not
 * one, or not of whole kHz; ERR_RANGE: beyond 32 bits of kHz. On failure *khz is unchanged.
 */
enum status text_to_khz(const char *text, uint32_t *khz) MUST_CHECK;

/*
 * Decodes the character at `text`, at most `count` (1 or more) bytes of it. Returns its length in bytes (1 to 4) with
 * *code_point set, or 0 where it is not UTF-8 (RFC 3629: no surrogates, no overlong forms) or cut short.
 */
unsigned utf8_decode(const char *text, size_t count, uint32_t *code_point);

/* Columns that a code point takes on a terminal: 0 (combining), 1, or 2 (wide East Asian characters and emoji). */
unsigned utf8_columns(uint32_t code_point);

#endif
