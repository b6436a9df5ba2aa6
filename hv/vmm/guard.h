/* SPDX-License-Identifier: MIT */
/*
 * What is done around each run of a guest, so that what it has taught the CPU's predictors does not steer the hypervisor,
 * and that what the hypervisor has left in buffers cannot be read by it. Which of it a CPU needs: kernel/speculation.h.
 */
#ifndef VMM_GUARD_H
#define VMM_GUARD_H

#include "kernel/types.h"

enum guard_mode {
    GUARD_AUTO,   /* what the CPU needs */
    GUARD_OFF,    /* nothing at exits: the admin trusts the guests */
    GUARD_ALWAYS, /* at exits also where the CPU does not need it, or has only a part of it */
};

/* Once, vmm_init done, before the first guest. Patches the world switch of the backend in use, and logs what is on. */
void guard_init(enum guard_mode mode);

/* What is done, as a list of words for people; "nothing" where it is nothing. */
void guard_describe(char *text, size_t bytes);

#endif
