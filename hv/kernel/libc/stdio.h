/* SPDX-License-Identifier: MIT */
/*
 * Formatting into a buffer; there are no files here. Conversions d i u x X o c s p %, flags - + space # 0, width and
 * precision (both may be *), lengths hh h l ll z j t. No floating point, no %n. Any context; nothing is allocated.
 */
#ifndef LIBC_STDIO_H
#define LIBC_STDIO_H

#include <stdarg.h>
#include <stddef.h>

/*
 * Write at most `bytes` bytes, the NUL included (nothing with 0), and return the length that the whole text has, or -1
 * where that is beyond INT_MAX. A conversion that is not known is written as it stands.
 */
int snprintf(char *restrict buffer, size_t bytes, const char *restrict format, ...)
    __attribute__((format(printf, 3, 4)));
int vsnprintf(char *restrict buffer, size_t bytes, const char *restrict format, va_list args)
    __attribute__((format(printf, 3, 0)));

#endif
