/* SPDX-License-Identifier: MIT */
/* The parts of the hostile guest. Each does its worst with a fixed seed and returns when it survives itself. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "guest.h"

extern uint64_t hostile_seed;
static inline uint64_t any(void) { return guest_random(&hostile_seed); }
/* A value that tends to hit something: small, all ones, one bit, an address of RAM or next to it, or anything. */
uint64_t nasty(void);

void hostile_devices(void);
void hostile_opcodes(uint64_t count);

#endif
