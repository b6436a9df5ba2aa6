/* SPDX-License-Identifier: MIT */
/*
 * Where a guest's CPU is put: pure choice, for thread.c. Cores are told apart by number; CPUs of one core are its threads.
 */
#ifndef KERNEL_PLACEMENT_H
#define KERNEL_PLACEMENT_H

#include "kernel/types.h"

struct placement_cpu {
    uint32_t core;
    unsigned guests; /* guests' CPUs that are there, of all VMs */
    unsigned mine;   /* those of them that belong to the same VM */
};

/*
 * The index of the best one of `count` (1 or more) CPUs: that with the fewest guests' CPUs; among them, where VMs take turns
 * on a core (`apart`), one whose core has the fewest of other VMs; then one whose core has the fewest; then the first.
 */
unsigned placement_pick(const struct placement_cpu *cpu, unsigned count, bool apart);

#endif
