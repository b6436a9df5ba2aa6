/* SPDX-License-Identifier: MIT */
/*
 * Text of a diagnostic, put together piece by piece into room that somebody else has; cut where the room ends, never in the
 * middle of a character. Private to the parser of tasuki.conf (config.c), which runs in the loader too, without printf.
 */
#ifndef VM_CONFIG_MESSAGE_H
#define VM_CONFIG_MESSAGE_H

#include <string.h>

#include "kernel/types.h"

struct message {
    char *at;
    size_t room; /* left, the NUL's place included */
};

static inline void add_bytes(struct message *m, const char *bytes, size_t count)
{
    if (m->room <= 1)
        return;
    if (count > m->room - 1) {
        count = m->room - 1;
        while (count && ((unsigned char)bytes[count] & 0xc0) == 0x80)
            count--;
        m->room = count + 1; /* nothing fits after a cut */
    }
    memcpy(m->at, bytes, count);
    m->at += count;
    m->room -= count;
    *m->at = 0;
}

static inline void add(struct message *m, const char *text)
{
    add_bytes(m, text, strlen(text));
}

/* A name or value that the admin wrote, in quotes, at most 40 bytes of it. */
static inline void add_quoted(struct message *m, const char *bytes, size_t count)
{
    size_t shown = count;

    if (shown > 40) {
        shown = 40;
        while (shown && ((unsigned char)bytes[shown] & 0xc0) == 0x80)
            shown--;
    }
    add(m, "\"");
    add_bytes(m, bytes, shown);
    add(m, shown < count ? "...\"" : "\"");
}

static inline void add_number(struct message *m, uint64_t value)
{
    char digits[20];
    size_t first = sizeof(digits);

    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    add_bytes(m, digits + first, sizeof(digits) - first);
}

/* One word of a fixed list; its index, or -1 with the list as the reason. */
static inline int choose(const char *value, const char *const *words, size_t word_count, struct message *reason)
{
    for (size_t i = 0; i < word_count; i++)
        if (!strcmp(value, words[i]))
            return (int)i;
    add_quoted(reason, value, strlen(value));
    add(reason, " is not known here: write ");
    for (size_t i = 0; i < word_count; i++) {
        add(reason, i == 0 ? "" : i + 1 == word_count ? " or " : ", ");
        add(reason, words[i]);
    }
    return -1;
}

#endif
