/* SPDX-License-Identifier: MIT */
/*
 * What the differential test does not compare, with the reason for each. Two kinds: flags and results that the manuals
 * leave undefined, and places where Unicorn 2.0.1 is wrong by the manuals.
 */
#include "differential.h"

static unsigned shift_count(const struct emu_case *c, unsigned operand)
{
    const ZydisDecodedOperand *o = &c->operand[operand];
    unsigned count;
    if (c->insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (c->insn.opcode & 0xfe) == 0xd0)
        count = 1;
    else
        count = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (unsigned)o->imm.value.u : (unsigned)c->gpr[GPR_RCX];
    return count & (c->operand[0].size == 64 ? 63 : 31);
}

static unsigned register_of(const struct emu_case *c, unsigned operand)
{
    const ZydisDecodedOperand *o = &c->operand[operand];
    return o->reg.value - (o->size == 64 ? ZYDIS_REGISTER_RAX : ZYDIS_REGISTER_EAX);
}

/*
 * BZHI with an index, and BEXTR with a length, at or past the operand's size keep all bits (SDM vol. 2A; so did an AMD
 * EPYC). Unicorn clears the highest one, and the flags follow.
 */
static bool past_the_end(const struct emu_case *c)
{
    uint64_t control = c->gpr[register_of(c, 2)];
    unsigned bits = c->insn.mnemonic == ZYDIS_MNEMONIC_BZHI ? control & 0xff : (control >> 8) & 0xff;
    return bits >= c->operand[0].size;
}

uint64_t masked_flags(const struct emu_case *c)
{
    unsigned count;
    switch (c->insn.mnemonic) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST: return RFLAGS_AF; /* SDM vol. 2: undefined */
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_IMUL: return RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF; /* undefined */
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV: return FLAGS_STATUS; /* all six undefined */
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return shift_count(c, 1) > 1 ? RFLAGS_OF : 0; /* OF is defined for a count of 1 */
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        count = shift_count(c, 1);
        /* AF undefined; OF beyond a count of 1; CF of SHL and SHR from a count of the operand's size on. */
        return count == 0 ? 0
                          : RFLAGS_AF | (count > 1 ? RFLAGS_OF : 0) |
                                (count >= c->operand[0].size && c->insn.mnemonic != ZYDIS_MNEMONIC_SAR ? RFLAGS_CF : 0);
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        count = shift_count(c, 2);
        /* A count above the operand's size leaves all flags undefined. */
        return count == 0 ? 0 : count > c->operand[0].size ? FLAGS_STATUS : RFLAGS_AF | (count > 1 ? RFLAGS_OF : 0);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF; /* undefined */
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR: return FLAGS_STATUS & ~RFLAGS_ZF; /* undefined */
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT: return RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF; /* undefined */
    case ZYDIS_MNEMONIC_BLSI:
        /* Unicorn's CF is the opposite of the manual's (SDM vol. 2A, BLSI: set if the source is not 0; so on an AMD
         * EPYC). */
        return RFLAGS_CF | RFLAGS_AF | RFLAGS_PF;
    case ZYDIS_MNEMONIC_BZHI:
        /* Its CF is one off as well: set for the operand's highest bit already (SDM: if the index is above the
         * highest). */
        return RFLAGS_AF | RFLAGS_PF | (past_the_end(c) ? RFLAGS_SF | RFLAGS_ZF | RFLAGS_CF : 0) |
               ((c->gpr[register_of(c, 2)] & 0xff) == c->operand[0].size - 1u ? RFLAGS_CF : 0);
    case ZYDIS_MNEMONIC_NEG:
        /* Unicorn computes the flags of a locked NEG from the wrong value; an AMD EPYC agreed with ours a million
         * times. */
        return c->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK ? FLAGS_STATUS : 0;
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BLSMSK: return RFLAGS_AF | RFLAGS_PF; /* undefined */
    case ZYDIS_MNEMONIC_BEXTR:
        return RFLAGS_AF | RFLAGS_PF | RFLAGS_SF | (past_the_end(c) ? RFLAGS_ZF : 0); /* three undefined */
    default: return 0;
    }
}

uint64_t masked_bits(const struct emu_case *c, unsigned index)
{
    switch (c->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG:
        /*
         * On success Unicorn writes the accumulator with its own value, which clears its upper half for a 32-bit
         * operand. The manual writes it on failure only, and so does a CPU (an AMD EPYC kept RAX whole).
         */
        return index == GPR_RAX && c->mode == MODE_LONG64 && c->operand[0].size == 32 ? 0xffffffff00000000ull : 0;
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        /* Of 0 the target is undefined (SDM); AMD documents that it stays, Unicorn clears a 32-bit one's upper half. */
        return c->operand[0].size == 32 && index == register_of(c, 0) ? 0xffffffff00000000ull : 0;
    case ZYDIS_MNEMONIC_RET:
        /* Unicorn takes RET's count as signed; it is not (SDM vol. 2B, RET; an AMD EPYC added D740h). */
        return index == GPR_RSP && c->insn.opcode == 0xc2 && (c->insn.raw.imm[0].value.u & 0x8000) ? ~0ull : 0;
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_BEXTR: return past_the_end(c) && index == register_of(c, 0) ? ~0ull : 0;
    default: return 0;
    }
}
