/* SPDX-License-Identifier: MIT */
/*
 * Where the shell's bytes go: a serial port, a network stream, a buffer of a test. A new line is a single '\n'; a sink
 * that ends in a terminal puts the '\r' before it. What is written is UTF-8 (a piece may end within a character),
 * without any control byte but '\n' and, from the line editor only, '\r', BEL and escape sequences.
 */
#ifndef SHELL_SINK_H
#define SHELL_SINK_H

#include "kernel/types.h"

struct sink {
    void (*write)(void *context, const char *bytes, size_t count); /* takes all of them; may block the calling thread */
    void *context;
};

static inline void sink_write(const struct sink *sink, const char *bytes, size_t count)
{
    if (count)
        sink->write(sink->context, bytes, count);
}

static inline void sink_puts(const struct sink *sink, const char *text)
{
    sink_write(sink, text, __builtin_strlen(text));
}

#endif
