/* SPDX-License-Identifier: MIT */
/*
 * What a completion could be: a bounded list of texts that may stand in place of the word at the cursor. Filled by the
 * one who knows the words, used by the line editor. Pure core.
 */
#ifndef SHELL_OFFERS_H
#define SHELL_OFFERS_H

#include "kernel/types.h"
#include "shell/sink.h"

#define OFFERS_BYTES 4096

struct offers {
    char text[OFFERS_BYTES]; /* the offers, each with its NUL */
    size_t used;
    unsigned count;
    unsigned dropped;  /* had no room */
    bool unfinished;   /* a single offer gets no space behind it (it ends in '=', say) */
};

void offers_clear(struct offers *offers);

/* Adds one, unless it is there already. It must be UTF-8 without control characters: others are not taken. */
void offers_add(struct offers *offers, const char *text);

/* Bytes that all offers have in common at the start, whole characters only. 0 without offers. */
size_t offers_common_bytes(const struct offers *offers);

/* Writes the offers in columns, sorted downwards, at most `columns` wide and `rows` high, and how many are left out. */
void offers_print(const struct offers *offers, const struct sink *sink, unsigned columns, unsigned rows);

#endif
