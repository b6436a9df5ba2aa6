/* SPDX-License-Identifier: MIT */
/*
 * Bit tests, scans and counts, the BMI groups, the two-carry additions and CRC32. Of a bit string in memory that a
 * register addresses, only the operand-sized unit that holds the bit is touched (SDM vol. 2A, BT).
 */
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"

static void set_flags(struct step *s, uint64_t which, uint64_t value) { s->flags = (s->flags & ~which) | value; }

static uint64_t flag_if(bool condition, uint64_t flag) { return condition ? flag : 0; }

/* CF, ZF, SF as given or by the result; OF clear; AF and PF (undefined) clear. What all of BMI1's group 17 does. */
static void set_bmi_flags(struct step *s, uint64_t result, unsigned bytes, bool carry)
{
    set_flags(s, FLAGS_STATUS,
              flag_if(carry, RFLAGS_CF) | flag_if(result == 0, RFLAGS_ZF) |
                  flag_if(alu_signed(result, bytes) < 0, RFLAGS_SF));
}

static unsigned count_ones(uint64_t a)
{
    unsigned n = 0;
    for (; a; a &= a - 1)
        n++;
    return n;
}

static void bit_test(struct step *s, ZydisMnemonic mnemonic)
{
    const ZydisDecodedOperand *where = &s->operand[0];
    unsigned access = mnemonic == ZYDIS_MNEMONIC_BT ? ACCESS_READ : ACCESS_READ | ACCESS_WRITE;
    struct emu_operand target;
    uint64_t index = emu_source(s, 1), a, r;
    if (where->type == ZYDIS_OPERAND_TYPE_MEMORY && s->operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned bytes = where->size / 8;
        if (bytes != 2 && bytes != 4 && bytes != 8) {
            emu_unsupported(s);
            return;
        }
        int64_t unit = alu_signed(index, bytes) >> (bytes == 2 ? 4 : bytes == 4 ? 5 : 6);
        uint64_t offset = (emu_effective(s, where) + (uint64_t)unit * bytes) & emu_mask(s->insn.address_width / 8);
        target = (struct emu_operand){ .kind = OPERAND_MEMORY, .bytes = (uint8_t)bytes };
        emu_resolve(s, emu_segment(s, where), offset, bytes, access, &target.range);
    } else {
        emu_prepare(s, 0, access, &target);
    }
    uint64_t bit = 1ull << (index & (8 * target.bytes - 1));
    do {
        a = emu_get(s, &target);
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_BTS: r = a | bit; break;
        case ZYDIS_MNEMONIC_BTR: r = a & ~bit; break;
        default: r = a ^ bit; break;
        }
    } while (mnemonic != ZYDIS_MNEMONIC_BT && !emu_update(s, &target, a, r));
    set_flags(s, RFLAGS_CF, flag_if(a & bit, RFLAGS_CF));
}

/* BSF BSR TZCNT LZCNT POPCNT. */
static void scan(struct step *s, ZydisMnemonic mnemonic)
{
    struct emu_operand target;
    uint64_t a = emu_source(s, 1), r;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    unsigned bits = 8 * target.bytes;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        /* Of nothing: the target stays (APM vol. 3, BSF), the other flags (undefined) too. */
        set_flags(s, RFLAGS_ZF, flag_if(a == 0, RFLAGS_ZF));
        if (a)
            emu_set(s, &target,
                    mnemonic == ZYDIS_MNEMONIC_BSF ? (unsigned)__builtin_ctzll(a) : 63 - (unsigned)__builtin_clzll(a));
        return;
    case ZYDIS_MNEMONIC_POPCNT:
        r = count_ones(a);
        set_flags(s, FLAGS_STATUS, flag_if(a == 0, RFLAGS_ZF));
        break;
    default:
        r = !a                                 ? bits
            : mnemonic == ZYDIS_MNEMONIC_TZCNT ? (unsigned)__builtin_ctzll(a)
                                               : bits - 64 + (unsigned)__builtin_clzll(a);
        set_flags(s, RFLAGS_CF | RFLAGS_ZF, flag_if(a == 0, RFLAGS_CF) | flag_if(r == 0, RFLAGS_ZF));
        break;
    }
    emu_set(s, &target, r);
}

/* BLSI BLSR BLSMSK: target, source. */
static void lowest_bit(struct step *s, ZydisMnemonic mnemonic)
{
    struct emu_operand target;
    uint64_t a = emu_source(s, 1), r;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    r = mnemonic == ZYDIS_MNEMONIC_BLSI ? a & -a : mnemonic == ZYDIS_MNEMONIC_BLSR ? a & (a - 1) : a ^ (a - 1);
    r &= emu_mask(target.bytes);
    set_bmi_flags(s, r, target.bytes, mnemonic == ZYDIS_MNEMONIC_BLSI ? a != 0 : a == 0);
    emu_set(s, &target, r);
}

/* Target, source, control: BEXTR BZHI SARX SHLX SHRX RORX PDEP PEXT, and ANDN. */
static void three_operand(struct step *s, ZydisMnemonic mnemonic)
{
    struct emu_operand target;
    uint64_t a = emu_source(s, 1), b = emu_source(s, 2), r;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    unsigned bytes = target.bytes, bits = 8 * bytes, count = b & (bits - 1), index = b & 0xff, length = (b >> 8) & 0xff;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ANDN:
        r = ~a & b & emu_mask(bytes);
        set_bmi_flags(s, r, bytes, false);
        break;
    case ZYDIS_MNEMONIC_BEXTR:
        r = index < bits ? a >> index : 0;
        r = length < 64 ? r & ((1ull << length) - 1) : r;
        set_bmi_flags(s, r, bytes, false);
        break;
    case ZYDIS_MNEMONIC_BZHI:
        r = index < bits ? a & ((1ull << index) - 1) : a;
        set_bmi_flags(s, r, bytes, index >= bits);
        break;
    case ZYDIS_MNEMONIC_SARX: r = (uint64_t)(alu_signed(a, bytes) >> count); break;
    case ZYDIS_MNEMONIC_SHLX: r = a << count; break;
    case ZYDIS_MNEMONIC_SHRX: r = a >> count; break;
    case ZYDIS_MNEMONIC_RORX: r = count ? (a >> count) | (a << (bits - count)) : a; break;
    case ZYDIS_MNEMONIC_PDEP: r = alu_deposit(a, b); break;
    default: r = alu_extract(a, b); break;
    }
    emu_set(s, &target, r);
}

static void multiply_flagless(struct step *s)
{
    struct emu_operand high_target, low_target;
    uint64_t b = emu_source(s, 2), high, flags = 0;
    emu_prepare(s, 0, ACCESS_WRITE, &high_target);
    emu_prepare(s, 1, ACCESS_WRITE, &low_target);
    uint64_t low = alu_mul(s->gpr[GPR_RDX], b, high_target.bytes, false, &high, &flags);
    emu_set(s, &low_target, low);
    emu_set(s, &high_target, high); /* second: it wins where both are the same register */
}

/* ADCX carries through CF alone, ADOX through OF alone. */
static void add_with(struct step *s, uint64_t flag)
{
    struct emu_operand target;
    uint64_t b = emu_source(s, 1), carry = 0;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    uint64_t r = alu_add(emu_get(s, &target), b, s->flags & flag ? 1 : 0, target.bytes, &carry);
    set_flags(s, flag, flag_if(carry & RFLAGS_CF, flag));
    emu_set(s, &target, r);
}

static void crc32(struct step *s)
{
    struct emu_operand target, source;
    emu_prepare(s, 1, ACCESS_READ, &source);
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, alu_crc32c((uint32_t)emu_get(s, &target), emu_get(s, &source), source.bytes));
}

bool emu_do_bits(struct step *s)
{
    ZydisMnemonic mnemonic = s->insn.mnemonic;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: bit_test(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT: scan(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BLSMSK: lowest_bit(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT: three_operand(s, mnemonic); return true;
    case ZYDIS_MNEMONIC_MULX: multiply_flagless(s); return true;
    case ZYDIS_MNEMONIC_ADCX: add_with(s, RFLAGS_CF); return true;
    case ZYDIS_MNEMONIC_ADOX: add_with(s, RFLAGS_OF); return true;
    case ZYDIS_MNEMONIC_CRC32: crc32(s); return true;
    default: return false;
    }
}
