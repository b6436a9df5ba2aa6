/* SPDX-License-Identifier: MIT */
/* The shell's history: strings one behind the other; walked, since there are at most a few hundred. See history.h. */
#include "shell/history.h"

#include <string.h>

void history_add(struct history *history, const char *line)
{
    size_t bytes = strlen(line) + 1;
    const char *newest = history_get(history, 0);
    size_t drop = 0;

    if (bytes == 1 || bytes > HISTORY_BYTES || line[0] == ' ' || (newest && strcmp(newest, line) == 0))
        return;
    while (history->used - drop + bytes > HISTORY_BYTES) {
        drop += strlen(history->text + drop) + 1;
        history->count--;
    }
    memmove(history->text, history->text + drop, history->used - drop);
    history->used -= drop;
    memcpy(history->text + history->used, line, bytes);
    history->used += bytes;
    history->count++;
}

const char *history_get(const struct history *history, unsigned age)
{
    const char *line = history->text;

    if (age >= history->count)
        return NULL;
    for (unsigned skip = history->count - 1 - age; skip; skip--)
        line += strlen(line) + 1;
    return line;
}

int history_find(const struct history *history, const char *part, unsigned age)
{
    for (; age < history->count; age++) {
        if (strstr(history_get(history, age), part))
            return (int)age;
    }
    return -1;
}
