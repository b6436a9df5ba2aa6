/* SPDX-License-Identifier: MIT */
/* The lines that were entered before, newest first: 4 KiB of text, the oldest lines make room. Pure core. */
#ifndef SHELL_HISTORY_H
#define SHELL_HISTORY_H

#include "kernel/types.h"

#define HISTORY_BYTES 4096

struct history {
    char text[HISTORY_BYTES]; /* the lines, oldest first, each with its NUL */
    size_t used;
    unsigned count;
};

/*
 * Remembers a line. Not taken: an empty one, one like the newest, one that begins with a space (so that a secret can be
 * kept out), one that is too long.
 */
void history_add(struct history *history, const char *line);

/* The line that was entered `age` lines ago (0 = the newest), or NULL. Valid until the next history_add. */
const char *history_get(const struct history *history, unsigned age);

/* The age of the newest line that is `age` or older and contains `part`; -1 where there is none. */
int history_find(const struct history *history, const char *part, unsigned age);

#endif
