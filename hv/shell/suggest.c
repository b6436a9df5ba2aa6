/* SPDX-License-Identifier: MIT */
/* Distances between words, by dynamic programming over three rows. See suggest.h. */
#include "shell/suggest.h"

#include <string.h>

unsigned suggest_distance(const char *a, const char *b)
{
    unsigned rows[3][SUGGEST_MAX_BYTES + 1];
    size_t a_length = strnlen(a, SUGGEST_MAX_BYTES + 1);
    size_t b_length = strnlen(b, SUGGEST_MAX_BYTES + 1);

    if (a_length > SUGGEST_MAX_BYTES || b_length > SUGGEST_MAX_BYTES)
        return (unsigned)MAX(a_length, b_length);
    for (unsigned j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        const unsigned *before = rows[(i + 1) % 3]; /* row i - 2 */
        const unsigned *above = rows[(i - 1) % 3];
        unsigned *row = rows[i % 3];

        row[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);

            best = MIN(best, above[j] + 1);
            best = MIN(best, row[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, before[j - 2] + 1);
            row[j] = best;
        }
    }
    return rows[a_length % 3][b_length];
}

void suggest_begin(struct suggestion *suggestion, const char *wanted)
{
    suggestion->wanted = wanted;
    suggestion->best = NULL;
    suggestion->distance = (unsigned)(strlen(wanted) + 2) / 3 + 1; /* to be stayed below */
}

void suggest_offer(struct suggestion *suggestion, const char *word)
{
    unsigned distance = suggest_distance(suggestion->wanted, word);

    if (distance < suggestion->distance) {
        suggestion->best = word;
        suggestion->distance = distance;
    }
}
