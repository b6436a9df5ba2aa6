/* SPDX-License-Identifier: MIT */
/* "Did you mean": how far apart two words are. Pure core. */
#ifndef SHELL_SUGGEST_H
#define SHELL_SUGGEST_H

#include "kernel/types.h"

#define SUGGEST_MAX_BYTES 48

/* The best of the words that were offered so far. */
struct suggestion {
    const char *wanted;
    const char *best; /* NULL = none is near enough */
    unsigned distance;
};

void suggest_begin(struct suggestion *suggestion, const char *wanted);

/* Offers a word, which must outlive the suggestion. Near enough: about a third of the wanted word's letters differ. */
void suggest_offer(struct suggestion *suggestion, const char *word);

/*
 * Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (optimal string alignment); words
 * longer than SUGGEST_MAX_BYTES are as far apart as their bytes are many.
 */
unsigned suggest_distance(const char *a, const char *b);

#endif
