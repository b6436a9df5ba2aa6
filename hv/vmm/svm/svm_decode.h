/* SPDX-License-Identifier: MIT */
/* What the SVM backend has to know of an instruction that the CPU does not tell, from its bytes. Pure. */
#ifndef VMM_SVM_SVM_DECODE_H
#define VMM_SVM_SVM_DECODE_H

#include "kernel/types.h"

/*
 * An instruction that met an intercept of CR0 or CR4, from its bytes. OTHER: it needs more than its bytes (LMSW and
 * SMSW with an operand in memory), or it has been changed meanwhile. SMSW into a register is a read of as much of CR0
 * as the operand has room for: its size is the mode's usual one, the other one of 16 and 32 bits, or 64. Pure.
 */
enum cr_operation { CR_OTHER, CR_MOV_TO, CR_MOV_FROM, CR_CLTS, CR_LMSW, CR_SMSW };
struct cr_instruction {
    enum cr_operation operation;
    uint8_t number, gpr, length;
    bool other_size, wide; /* prefixes 66 and REX.W */
};
struct cr_instruction svm_decode_cr(const uint8_t *bytes, unsigned count, bool mode64);

/* What an instruction does with the TF of a single step: STORED is to its stack or to R11, where the guest sees it. Pure. */
enum flags_use { FLAGS_KEPT, FLAGS_LOADED, FLAGS_STORED };
enum flags_use svm_decode_flags(const uint8_t *bytes, unsigned count, bool mode64);

#endif
