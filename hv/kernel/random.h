/* SPDX-License-Identifier: MIT */
/* Random numbers fit for keys. */
#ifndef KERNEL_RANDOM_H
#define KERNEL_RANDOM_H

#include "kernel/types.h"

/* Mixes a seed in; at boot with the loader's, later with whatever is unpredictable. Any thread context. */
void random_seed(const void *bytes, size_t count);
/* Fills a buffer. Any thread context. */
void random_bytes(void *bytes, size_t count);

#endif
