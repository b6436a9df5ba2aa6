/* SPDX-License-Identifier: MIT */
/* Names of the hypervisor's functions, for backtraces. */
#ifndef KERNEL_KSYMS_H
#define KERNEL_KSYMS_H

#include <stdint.h>

/*
 * The function that `address` lies in, and in *offset how many bytes behind its start; NULL for an address outside of
 * the hypervisor's text. A return address points behind its call, perhaps into the next function: look up address - 1.
 * Any context, also in a panic: it only reads a constant table.
 */
const char *ksym_lookup(uint64_t address, uint64_t *offset);

#endif
