/* SPDX-License-Identifier: MIT */
/*
 * The plain MOVs with which drivers reach device registers, decoded in a few dozen instructions: 64-bit code, one register
 * or immediate, one operand in memory. All else (segment overrides, locked and repeated forms, AH to DH, string moves) is
 * the emulator's. Pure.
 */
#ifndef VMM_SIMPLE_MOVE_H
#define VMM_SIMPLE_MOVE_H

#include "kernel/types.h"
#include "vmm/cpu_state.h"

struct simple_move {
    uint64_t linear;   /* of the operand in memory */
    uint64_t value;    /* a store's */
    uint8_t length;    /* of the instruction */
    uint8_t size;      /* of the operand in memory: 1, 2, 4 or 8 */
    bool store;
    uint8_t gpr;       /* a load's destination */
    uint8_t gpr_size;  /* how much of it is written; 4 clears the upper half as always */
};

/* The instruction in the low `count` bytes of `code` (1 to 8). False: not one of these. */
bool simple_move_decode(const struct cpu_state *state, uint64_t code, unsigned count, struct simple_move *move);

/* Puts what a load read into its register. */
static inline void simple_move_finish(struct cpu_state *state, const struct simple_move *move, uint64_t value)
{
    uint64_t *gpr = &state->gpr[move->gpr];

    switch (move->gpr_size) {
    case 1: *gpr = (*gpr & ~0xffull) | (uint8_t)value; break;
    case 2: *gpr = (*gpr & ~0xffffull) | (uint16_t)value; break;
    case 4: *gpr = (uint32_t)value; break;
    default: *gpr = value; break;
    }
}

#endif
