/* SPDX-License-Identifier: MIT */
/*
 * Integer arithmetic with flags; see emulate_alu.h. Each function cuts its operands to size first and sets flags last.
 * The formulas are those of SDM vol. 1, appendix A, and of the instruction pages in SDM vol. 2.
 */
#include "vmm/emulate_alu.h"
#include "vmm/cpu_state.h"

#define FLAGS_ALL (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

static uint64_t mask_of(unsigned bytes) { return ~0ull >> (64 - 8 * bytes); }

static uint64_t flag_if(bool condition, uint64_t flag) { return condition ? flag : 0; }

/* Bit `index` of a; 0 for an index outside the value. */
static bool bit_of(uint64_t a, unsigned index) { return index < 64 && ((a >> index) & 1); }

/* SF, ZF and PF of a result that is cut to size. PF looks at the low byte only. */
static uint64_t result_flags(uint64_t result, unsigned bytes)
{
    return flag_if(bit_of(result, 8 * bytes - 1), RFLAGS_SF) | flag_if(result == 0, RFLAGS_ZF) |
           flag_if(!__builtin_parity((unsigned)result & 0xff), RFLAGS_PF);
}

static void replace(uint64_t *flags, uint64_t which, uint64_t value) { *flags = (*flags & ~which) | (value & which); }

uint64_t alu_add(uint64_t a, uint64_t b, unsigned carry, unsigned bytes, uint64_t *flags)
{
    uint64_t mask = mask_of(bytes), top = 1ull << (8 * bytes - 1);
    a &= mask;
    b &= mask;
    uint64_t r = (a + b + carry) & mask;
    uint64_t carries = (a & b) | ((a | b) & ~r); /* the carry out of each bit */
    replace(flags, FLAGS_ALL,
            result_flags(r, bytes) | flag_if(carries & top, RFLAGS_CF) | flag_if(carries & 8, RFLAGS_AF) |
                flag_if((a ^ r) & (b ^ r) & top, RFLAGS_OF));
    return r;
}

uint64_t alu_sub(uint64_t a, uint64_t b, unsigned borrow, unsigned bytes, uint64_t *flags)
{
    uint64_t mask = mask_of(bytes), top = 1ull << (8 * bytes - 1);
    a &= mask;
    b &= mask;
    uint64_t r = (a - b - borrow) & mask;
    uint64_t borrows = (~a & b) | ((~a | b) & r); /* the borrow into each bit's next */
    replace(flags, FLAGS_ALL,
            result_flags(r, bytes) | flag_if(borrows & top, RFLAGS_CF) | flag_if(borrows & 8, RFLAGS_AF) |
                flag_if((a ^ b) & (a ^ r) & top, RFLAGS_OF));
    return r;
}

uint64_t alu_logic(uint64_t result, unsigned bytes, uint64_t *flags)
{
    result &= mask_of(bytes);
    replace(flags, FLAGS_ALL, result_flags(result, bytes));
    return result;
}

uint64_t alu_inc(uint64_t a, unsigned bytes, uint64_t *flags)
{
    uint64_t carry = *flags & RFLAGS_CF;
    uint64_t r = alu_add(a, 1, 0, bytes, flags);
    replace(flags, RFLAGS_CF, carry);
    return r;
}

uint64_t alu_dec(uint64_t a, unsigned bytes, uint64_t *flags)
{
    uint64_t carry = *flags & RFLAGS_CF;
    uint64_t r = alu_sub(a, 1, 0, bytes, flags);
    replace(flags, RFLAGS_CF, carry);
    return r;
}

/* ROL and ROR. CF is the bit that went round last, also when whole turns leave the value as it was. */
static uint64_t rotate(bool left, uint64_t a, unsigned count, unsigned bytes, uint64_t *flags)
{
    unsigned bits = 8 * bytes, n = count % bits;
    uint64_t r = a;
    if (n)
        r = left ? (a << n) | (a >> (bits - n)) : (a >> n) | (a << (bits - n));
    r &= mask_of(bytes);
    bool top = bit_of(r, bits - 1);
    bool carry = left ? bit_of(r, 0) : top;
    bool overflow = left ? top != carry : top != bit_of(r, bits - 2);
    replace(flags, RFLAGS_CF | RFLAGS_OF, flag_if(carry, RFLAGS_CF) | flag_if(overflow, RFLAGS_OF));
    return r;
}

/* RCL and RCR: the carry takes part, so a turn is one bit longer than the operand. */
static uint64_t rotate_carry(bool left, uint64_t a, unsigned count, unsigned bytes, uint64_t *flags)
{
    unsigned bits = 8 * bytes;
    bool carry = *flags & RFLAGS_CF;
    count %= bits + 1;
    if (count == 0)
        return a;
    for (unsigned i = 0; i < count; i++) {
        bool out = left ? bit_of(a, bits - 1) : bit_of(a, 0);
        a = left ? (a << 1) | carry : (a >> 1) | ((uint64_t)carry << (bits - 1));
        carry = out;
    }
    a &= mask_of(bytes);
    bool top = bit_of(a, bits - 1);
    bool overflow = left ? top != carry : top != bit_of(a, bits - 2);
    replace(flags, RFLAGS_CF | RFLAGS_OF, flag_if(carry, RFLAGS_CF) | flag_if(overflow, RFLAGS_OF));
    return a;
}

uint64_t alu_shift(enum alu_shift op, uint64_t a, unsigned count, unsigned bytes, uint64_t *flags)
{
    unsigned bits = 8 * bytes;
    a &= mask_of(bytes);
    count &= bytes == 8 ? 63 : 31;
    if (count == 0)
        return a;
    uint64_t before, r; /* the value one step before the end, and at the end */
    bool carry;
    switch (op) {
    case ALU_ROL:
    case ALU_ROR: return rotate(op == ALU_ROL, a, count, bytes, flags);
    case ALU_RCL:
    case ALU_RCR: return rotate_carry(op == ALU_RCL, a, count, bytes, flags);
    case ALU_SHR:
        before = a >> (count - 1);
        r = before >> 1;
        carry = before & 1;
        break;
    case ALU_SAR:
        before = (uint64_t)(alu_signed(a, bytes) >> (count - 1));
        r = (uint64_t)((int64_t)before >> 1);
        carry = before & 1;
        break;
    default:
        before = a << (count - 1);
        r = before << 1;
        carry = bit_of(before, bits - 1);
        break;
    }
    bool overflow = bit_of(before ^ r, bits - 1);
    r &= mask_of(bytes);
    replace(flags, FLAGS_ALL, result_flags(r, bytes) | flag_if(carry, RFLAGS_CF) | flag_if(overflow, RFLAGS_OF));
    return r;
}

uint64_t alu_shift_double(bool left, uint64_t a, uint64_t b, unsigned count, unsigned bytes, uint64_t *flags)
{
    unsigned bits = 8 * bytes;
    a &= mask_of(bytes);
    b &= mask_of(bytes);
    count &= bytes == 8 ? 63 : 31;
    if (count == 0)
        return a;
    /* The string that is shifted, wide enough for a 16-bit operand with a count up to 31: a:b:a, or a:b where that
     * fits. */
    unsigned __int128 string;
    uint64_t before, r;
    if (left) {
        string = bytes == 2 ? ((unsigned __int128)a << 32) | (b << 16) | a : ((unsigned __int128)a << bits) | b;
        unsigned low = bytes == 2 ? 32 : bits;
        before = (uint64_t)((string << (count - 1)) >> low);
        r = (uint64_t)((string << count) >> low);
    } else {
        string = bytes == 2 ? ((unsigned __int128)a << 32) | (b << 16) | a : ((unsigned __int128)b << bits) | a;
        before = (uint64_t)(string >> (count - 1));
        r = (uint64_t)(string >> count);
    }
    bool carry = left ? bit_of(before, bits - 1) : before & 1;
    bool overflow = bit_of(before ^ r, bits - 1);
    r &= mask_of(bytes);
    replace(flags, FLAGS_ALL, result_flags(r, bytes) | flag_if(carry, RFLAGS_CF) | flag_if(overflow, RFLAGS_OF));
    return r;
}

uint64_t alu_mul(uint64_t a, uint64_t b, unsigned bytes, bool is_signed, uint64_t *high, uint64_t *flags)
{
    unsigned bits = 8 * bytes;
    uint64_t low;
    bool overflow;
    if (is_signed) {
        __int128 product = (__int128)alu_signed(a, bytes) * alu_signed(b, bytes);
        low = (uint64_t)product & mask_of(bytes);
        *high = (uint64_t)(product >> bits) & mask_of(bytes);
        overflow = product != alu_signed(low, bytes);
    } else {
        unsigned __int128 product = (unsigned __int128)(a & mask_of(bytes)) * (b & mask_of(bytes));
        low = (uint64_t)product & mask_of(bytes);
        *high = (uint64_t)(product >> bits) & mask_of(bytes);
        overflow = *high != 0;
    }
    replace(flags, FLAGS_ALL, result_flags(low, bytes) | (overflow ? RFLAGS_CF | RFLAGS_OF : 0));
    return low;
}

/* 128 by 64 bits with a quotient that is known to fit (high < divisor): one DIV, without a library's long division. */
static uint64_t divide_wide(uint64_t high, uint64_t low, uint64_t divisor, uint64_t *remainder)
{
    uint64_t quotient;
    __asm__("divq %4" : "=a"(quotient), "=d"(*remainder) : "a"(low), "d"(high), "r"(divisor) : "cc");
    return quotient;
}

bool alu_div(uint64_t high, uint64_t low, uint64_t divisor, unsigned bytes, bool is_signed, uint64_t *quotient,
             uint64_t *remainder)
{
    unsigned bits = 8 * bytes;
    uint64_t mask = mask_of(bytes), top = 1ull << (bits - 1);
    bool minus_dividend = is_signed && (high & top), minus_divisor = is_signed && (divisor & top);
    unsigned __int128 dividend = ((unsigned __int128)(high & mask) << bits) | (low & mask);
    divisor &= mask;
    /* Division of magnitudes; the remainder has the dividend's sign (SDM vol. 2A, IDIV). */
    if (minus_dividend)
        dividend = (-dividend) & ~(unsigned __int128)0 >> (128 - 2 * bits);
    if (minus_divisor)
        divisor = -divisor & mask;
    if (divisor == 0 || (uint64_t)(dividend >> bits) >= divisor)
        return false;
    uint64_t r, q = divide_wide((uint64_t)(dividend >> 64), (uint64_t)dividend, divisor, &r);
    if (is_signed && q > (minus_dividend != minus_divisor ? top : top - 1))
        return false;
    *quotient = (minus_dividend != minus_divisor ? -q : q) & mask;
    *remainder = (minus_dividend ? -r : r) & mask;
    return true;
}

uint64_t alu_swap(uint64_t a, unsigned bytes) { return __builtin_bswap64(a) >> (64 - 8 * bytes); }

uint64_t alu_deposit(uint64_t source, uint64_t mask)
{
    uint64_t r = 0;
    for (; mask; mask &= mask - 1, source >>= 1)
        if (source & 1)
            r |= mask & -mask;
    return r;
}

uint64_t alu_extract(uint64_t source, uint64_t mask)
{
    uint64_t r = 0;
    for (unsigned i = 0; mask; mask &= mask - 1, i++)
        if (source & mask & -mask)
            r |= 1ull << i;
    return r;
}

uint32_t alu_crc32c(uint32_t crc, uint64_t data, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        crc ^= (uint8_t)(data >> (8 * i));
        for (unsigned bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return crc;
}
