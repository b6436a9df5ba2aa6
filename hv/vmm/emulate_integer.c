/* SPDX-License-Identifier: MIT */
/*
 * Arithmetic, logic, shifts, multiplication, division and exchanges on integer operands. A memory destination is
 * resolved for reading and writing before anything is read; under LOCK (XCHG with memory implies it) the update is a
 * compare-exchange that starts over when another CPU was faster.
 */
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"
#include <string.h>

/* Two operands, the first is the destination (ADD OR ADC SBB AND SUB XOR), or is only looked at (CMP TEST). */
static void binary(struct step *s, ZydisMnemonic mnemonic)
{
    bool compares = mnemonic == ZYDIS_MNEMONIC_CMP || mnemonic == ZYDIS_MNEMONIC_TEST;
    struct emu_operand target, other;
    emu_prepare(s, 0, compares ? ACCESS_READ : ACCESS_READ | ACCESS_WRITE, &target);
    emu_prepare(s, 1, ACCESS_READ, &other);
    uint64_t b = emu_get(s, &other), a, r;
    do {
        uint64_t flags = s->flags;
        unsigned carry = s->state->rflags & RFLAGS_CF ? 1 : 0;
        a = emu_get(s, &target);
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_ADD: r = alu_add(a, b, 0, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_ADC: r = alu_add(a, b, carry, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_SBB: r = alu_sub(a, b, carry, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_OR: r = alu_logic(a | b, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_XOR: r = alu_logic(a ^ b, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_AND:
        case ZYDIS_MNEMONIC_TEST: r = alu_logic(a & b, target.bytes, &flags); break;
        default: r = alu_sub(a, b, 0, target.bytes, &flags); break;
        }
        s->flags = flags;
    } while (!compares && !emu_update(s, &target, a, r));
}

/* INC DEC NEG NOT. */
static void unary(struct step *s, ZydisMnemonic mnemonic)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &target);
    uint64_t a, r;
    do {
        a = emu_get(s, &target);
        uint64_t flags = s->state->rflags;
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_INC: r = alu_inc(a, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_DEC: r = alu_dec(a, target.bytes, &flags); break;
        case ZYDIS_MNEMONIC_NEG: r = alu_sub(0, a, 0, target.bytes, &flags); break;
        default: r = ~a; break;
        }
        s->flags = flags;
    } while (!emu_update(s, &target, a, r));
}

static void shift(struct step *s, enum alu_shift op)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &target);
    /* Opcodes D0 and D1 shift by one; the decoder may or may not show that as an operand. */
    unsigned count = (s->insn.opcode & 0xfe) == 0xd0 ? 1 : (unsigned)emu_source(s, 1) & 0xff;
    emu_set(s, &target, alu_shift(op, emu_get(s, &target), count, target.bytes, &s->flags));
}

static void shift_double(struct step *s, bool left)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &target);
    uint64_t other = emu_source(s, 1);
    unsigned count = (unsigned)emu_source(s, 2) & 0xff;
    emu_set(s, &target, alu_shift_double(left, emu_get(s, &target), other, count, target.bytes, &s->flags));
}

/* The one-operand forms' double-width register: AX for bytes, otherwise rDX:rAX. */
static void set_wide(struct step *s, unsigned bytes, uint64_t high, uint64_t low)
{
    if (bytes == 1) {
        emu_set_gpr(s, GPR_RAX, 2, (low & 0xff) | ((high & 0xff) << 8));
    } else {
        emu_set_gpr(s, GPR_RAX, bytes, low);
        emu_set_gpr(s, GPR_RDX, bytes, high);
    }
}

static void multiply(struct step *s, bool is_signed)
{
    struct emu_operand source;
    uint64_t high;
    if (is_signed && s->insn.opcode_map == ZYDIS_OPCODE_MAP_0F) { /* IMUL r, r/m */
        uint64_t b = emu_source(s, 1);
        emu_prepare(s, 0, ACCESS_READ, &source);
        emu_set(s, &source, alu_mul(emu_get(s, &source), b, source.bytes, true, &high, &s->flags));
    } else if (is_signed && (s->insn.opcode == 0x69 || s->insn.opcode == 0x6b)) { /* IMUL r, r/m, imm */
        uint64_t a = emu_source(s, 1), b = emu_source(s, 2);
        emu_prepare(s, 0, ACCESS_READ, &source);
        emu_set(s, &source, alu_mul(a, b, source.bytes, true, &high, &s->flags));
    } else {
        emu_prepare(s, 0, ACCESS_READ, &source);
        uint64_t a = emu_get_gpr(s, GPR_RAX, source.bytes), b = emu_get(s, &source);
        uint64_t low = alu_mul(a, b, source.bytes, is_signed, &high, &s->flags);
        set_wide(s, source.bytes, high, low);
    }
}

static void divide(struct step *s, bool is_signed)
{
    struct emu_operand source;
    emu_prepare(s, 0, ACCESS_READ, &source);
    uint64_t divisor = emu_get(s, &source), low = emu_get_gpr(s, GPR_RAX, source.bytes), quotient, remainder;
    uint64_t high = source.bytes == 1 ? emu_get_gpr(s, GPR_RAX, 2) >> 8 : emu_get_gpr(s, GPR_RDX, source.bytes);
    if (alu_div(high, low, divisor, source.bytes, is_signed, &quotient, &remainder))
        set_wide(s, source.bytes, remainder, quotient);
    else
        emu_raise(s, EXC_DE);
}

static void exchange(struct step *s)
{
    struct emu_operand a, b;
    s->lock = true; /* with a memory operand, whatever the prefix says (SDM vol. 2D, XCHG) */
    /* Either operand may be the memory one. */
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &a);
    emu_prepare(s, 1, ACCESS_READ | ACCESS_WRITE, &b);
    const struct emu_operand *memory = b.kind == OPERAND_MEMORY ? &b : &a, *reg = memory == &b ? &a : &b;
    uint64_t given = emu_get(s, reg), old;
    do
        old = emu_get(s, memory);
    while (!emu_update(s, memory, old, given));
    emu_set(s, reg, old);
}

static void exchange_add(struct step *s)
{
    struct emu_operand target, source;
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &target);
    emu_prepare(s, 1, ACCESS_READ, &source);
    uint64_t b = emu_get(s, &source), old, sum;
    if (target.kind == OPERAND_REGISTER) {
        old = emu_get(s, &target);
        sum = alu_add(old, b, 0, target.bytes, &s->flags);
        emu_set(s, &source, old); /* first, so that XADD of a register with itself leaves the sum */
        emu_set(s, &target, sum);
        return;
    }
    do {
        old = emu_get(s, &target);
        sum = alu_add(old, b, 0, target.bytes, &s->flags);
    } while (!emu_update(s, &target, old, sum));
    emu_set(s, &source, old);
}

static void compare_exchange(struct step *s)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_READ | ACCESS_WRITE, &target);
    uint64_t desired = emu_source(s, 1), accumulator = emu_get_gpr(s, GPR_RAX, target.bytes), old;
    /* Memory is written either way: with its own value when it does not compare (SDM vol. 2A, CMPXCHG). */
    do
        old = emu_get(s, &target);
    while (!emu_update(s, &target, old, old == accumulator ? desired : old));
    alu_sub(accumulator, old, 0, target.bytes, &s->flags);
    if (old != accumulator)
        emu_set_gpr(s, GPR_RAX, target.bytes, old);
}

/* CMPXCHG8B and CMPXCHG16B: rDX:rAX is compared, rCX:rBX stored; only ZF tells. */
static void compare_exchange_wide(struct step *s, unsigned half)
{
    uint64_t offset = emu_effective(s, &s->operand[0]);
    enum seg seg = emu_segment(s, &s->operand[0]);
    if (half == 8 && (emu_linear(s, seg, offset, 16, ACCESS_READ | ACCESS_WRITE) & 15))
        emu_raise(s, EXC_GP);
    struct emu_range range;
    emu_resolve(s, seg, offset, 2 * half, ACCESS_READ | ACCESS_WRITE, &range);
    uint8_t old[16], desired[16];
    uint64_t low, high;
    do {
        if (s->result != EMU_DONE)
            return;
        emu_read(s, &range, old);
        low = high = 0;
        memcpy(&low, old, half);
        memcpy(&high, old + half, half);
        bool equal = low == emu_get_gpr(s, GPR_RAX, half) && high == emu_get_gpr(s, GPR_RDX, half);
        s->flags = equal ? s->flags | RFLAGS_ZF : s->flags & ~RFLAGS_ZF;
        memcpy(desired, old, sizeof(desired));
        if (equal) {
            memcpy(desired, &s->gpr[GPR_RBX], half);
            memcpy(desired + half, &s->gpr[GPR_RCX], half);
        }
    } while (
        !emu_exchange(s, &range, old, desired)); /* the exchange also proves that the two halves were read at once */
    if (!(s->flags & RFLAGS_ZF)) {
        emu_set_gpr(s, GPR_RAX, half, low);
        emu_set_gpr(s, GPR_RDX, half, high);
    }
}

bool emu_do_integer(struct step *s)
{
    ZydisMnemonic mnemonic = s->insn.mnemonic;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST: binary(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT: unary(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_ROL: shift(s, ALU_ROL); return true;
    case ZYDIS_MNEMONIC_ROR: shift(s, ALU_ROR); return true;
    case ZYDIS_MNEMONIC_RCL: shift(s, ALU_RCL); return true;
    case ZYDIS_MNEMONIC_RCR: shift(s, ALU_RCR); return true;
    case ZYDIS_MNEMONIC_SHL: shift(s, ALU_SHL); return true;
    case ZYDIS_MNEMONIC_SHR: shift(s, ALU_SHR); return true;
    case ZYDIS_MNEMONIC_SAR: shift(s, ALU_SAR); return true;
    case ZYDIS_MNEMONIC_SHLD: shift_double(s, true); return true;
    case ZYDIS_MNEMONIC_SHRD: shift_double(s, false); return true;
    case ZYDIS_MNEMONIC_MUL: multiply(s, false); return true;
    case ZYDIS_MNEMONIC_IMUL: multiply(s, true); return true;
    case ZYDIS_MNEMONIC_DIV: divide(s, false); return true;
    case ZYDIS_MNEMONIC_IDIV: divide(s, true); return true;
    case ZYDIS_MNEMONIC_XCHG: exchange(s); return true;
    case ZYDIS_MNEMONIC_XADD: exchange_add(s); return true;
    case ZYDIS_MNEMONIC_CMPXCHG: compare_exchange(s); return true;
    case ZYDIS_MNEMONIC_CMPXCHG8B: compare_exchange_wide(s, 4); return true;
    case ZYDIS_MNEMONIC_CMPXCHG16B: compare_exchange_wide(s, 8); return true;
    default: return false;
    }
}
