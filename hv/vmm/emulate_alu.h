/* SPDX-License-Identifier: MIT */
/*
 * Integer arithmetic as the CPU does it: values and flags in, values and flags out; no state, no memory.
 *
 * `bytes` is the operand size (1, 2, 4 or 8); operands may carry garbage above it, results never do. `flags` is RFLAGS:
 * the functions change exactly the status flags that the manual says the instruction changes; flags that it leaves
 * undefined get the value that today's CPUs and QEMU give where these agree, and are mentioned at the function.
 */
#ifndef VMM_EMULATE_ALU_H
#define VMM_EMULATE_ALU_H

#include "kernel/types.h"

/* a + b + carry (0 or 1), and a - b - borrow. All six flags. */
uint64_t alu_add(uint64_t a, uint64_t b, unsigned carry, unsigned bytes, uint64_t *flags);
uint64_t alu_sub(uint64_t a, uint64_t b, unsigned borrow, unsigned bytes, uint64_t *flags);
/* Flags of AND, OR, XOR and TEST for their result: CF and OF clear; AF (undefined) clear. */
uint64_t alu_logic(uint64_t result, unsigned bytes, uint64_t *flags);
/* INC and DEC keep CF. */
uint64_t alu_inc(uint64_t a, unsigned bytes, uint64_t *flags);
uint64_t alu_dec(uint64_t a, unsigned bytes, uint64_t *flags);

/* The order is that of ModRM.reg in opcodes C0, C1 and D0 to D3; 6 is an alias of SHL. */
enum alu_shift { ALU_ROL, ALU_ROR, ALU_RCL, ALU_RCR, ALU_SHL, ALU_SHR, ALU_SAL, ALU_SAR };
/*
 * Shifts and rotates; `count` is masked here. A masked count of 0 changes no flag. Undefined: OF for counts above 1
 * (the formula of count 1 is used), AF of shifts (clear), CF of SHL and SHR when the count exceeds the size (clear).
 */
uint64_t alu_shift(enum alu_shift op, uint64_t a, unsigned count, unsigned bytes, uint64_t *flags);
/* SHLD and SHRD; a 16-bit one with a count above 16 is undefined and behaves as on a 48-bit a:b:a string. */
uint64_t alu_shift_double(bool left, uint64_t a, uint64_t b, unsigned count, unsigned bytes, uint64_t *flags);

/* The double-width product; *high gets its upper half. CF, OF; SF, ZF, PF (undefined) follow the low half, AF clear. */
uint64_t alu_mul(uint64_t a, uint64_t b, unsigned bytes, bool is_signed, uint64_t *high, uint64_t *flags);
/* high:low divided by divisor. False: #DE (divisor 0, or the quotient does not fit). Flags (undefined) are kept. */
bool alu_div(uint64_t high, uint64_t low, uint64_t divisor, unsigned bytes, bool is_signed, uint64_t *quotient,
             uint64_t *remainder) MUST_CHECK;

/* The value with its byte order turned round. */
uint64_t alu_swap(uint64_t a, unsigned bytes);
/* PDEP and PEXT. */
uint64_t alu_deposit(uint64_t source, uint64_t mask);
uint64_t alu_extract(uint64_t source, uint64_t mask);
/* CRC32 (Castagnoli polynomial, reflected) over the low `bytes` of data. */
uint32_t alu_crc32c(uint32_t crc, uint64_t data, unsigned bytes);

/* Sign-extends from `bytes` to 64 bits. */
static inline int64_t alu_signed(uint64_t a, unsigned bytes)
{
    unsigned unused = 64 - 8 * bytes;
    return (int64_t)(a << unused) >> unused;
}

#endif
