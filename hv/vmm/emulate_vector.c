/* SPDX-License-Identifier: MIT */
/*
 * SSE and AVX moves between memory and a vector register, by way of the two vector callbacks: what compilers and copy
 * loops use on device memory. A VEX-encoded load clears the register above what it loads, a legacy one leaves
 * everything above 128 bits alone. Arithmetic on vectors, MMX, masked moves and EVEX are not emulated.
 */
#include "vmm/emulate_internal.h"
#include <string.h>

#define XCR0_SSE BIT(1)
#define XCR0_AVX BIT(2)
#define NO_VECTOR 0xffu

enum kind {
    WHOLE,    /* all of the operand, any address */
    ALIGNED,  /* all of it, at an address that is a multiple of its size */
    LOW,      /* a part at the bottom; a load clears the rest of the 128 bits */
    LOW_HALF, /* 8 bytes at the bottom; a load keeps the rest */
    HIGH_HALF,
};

/* False: not a move that is known here. */
static bool classify(ZydisMnemonic mnemonic, enum kind *kind)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU: *kind = WHOLE; return true;
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA: *kind = ALIGNED; return true;
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVSD:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VMOVQ: *kind = LOW; return true;
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
    case ZYDIS_MNEMONIC_VMOVLPS:
    case ZYDIS_MNEMONIC_VMOVLPD: *kind = LOW_HALF; return true;
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
    case ZYDIS_MNEMONIC_VMOVHPS:
    case ZYDIS_MNEMONIC_VMOVHPD: *kind = HIGH_HALF; return true;
    default: return false;
    }
}

static unsigned vector_index(const ZydisDecodedOperand *operand)
{
    if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return NO_VECTOR;
    ZydisRegister reg = operand->reg.value;
    if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM31)
        return (unsigned)(reg - ZYDIS_REGISTER_XMM0);
    if (reg >= ZYDIS_REGISTER_YMM0 && reg <= ZYDIS_REGISTER_YMM31)
        return (unsigned)(reg - ZYDIS_REGISTER_YMM0);
    return NO_VECTOR;
}

/* Whether the guest has switched the registers on (SDM vol. 3A, 13.1.2 and 2.6; vol. 2A, 2.4.3). */
static void check_enabled(struct step *s, bool vex)
{
    const struct cpu_state *state = s->state;
    const uint64_t both = XCR0_SSE | XCR0_AVX;
    if (vex ? !(state->cr4 & CR4_OSXSAVE) || (state->xcr0 & both) != both
            : (state->cr0 & CR0_EM) || !(state->cr4 & CR4_OSFXSR))
        emu_raise(s, EXC_UD);
    if (state->cr0 & CR0_TS)
        emu_raise(s, EXC_NM);
}

static void get_vector(struct step *s, unsigned index, uint8_t bytes[64])
{
    memset(bytes, 0, 64);
    if (s->result == EMU_DONE && !s->ops->vector_read(s->ops->context, index, bytes))
        s->result = EMU_RETRY;
}

/* The memory side. */
static void resolve(struct step *s, unsigned i, unsigned bytes, bool aligned, unsigned access, struct emu_range *range)
{
    uint64_t offset = emu_effective(s, &s->operand[i]);
    enum seg seg = emu_segment(s, &s->operand[i]);
    if (aligned && (emu_linear(s, seg, offset, bytes, access) & (bytes - 1)))
        emu_raise(s, EXC_GP);
    emu_resolve(s, seg, offset, bytes, access, range);
}

/* Memory or a general register into vector register `index`. */
static void load(struct step *s, enum kind kind, unsigned index, bool vex)
{
    const ZydisDecodedOperand *source = &s->operand[1];
    unsigned bytes = source->size / 8;
    uint8_t data[64] = { 0 }, reg[64];
    if (source->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct emu_range range;
        resolve(s, 1, bytes, kind == ALIGNED, ACCESS_READ, &range);
        if (s->result == EMU_DONE)
            emu_read(s, &range, data);
    } else {
        uint64_t value = emu_source(s, 1);
        memcpy(data, &value, sizeof(value));
    }
    get_vector(s, index, reg);
    if (s->result != EMU_DONE)
        return;
    if (kind == LOW_HALF || kind == HIGH_HALF) {
        memcpy(reg + (kind == HIGH_HALF ? 8 : 0), data, 8);
    } else {
        memset(reg, 0, vex ? 64 : 16);
        memcpy(reg, data, bytes);
    }
    if (!s->ops->vector_write(s->ops->context, index, reg))
        s->result = EMU_RETRY;
}

/* Vector register `index` to memory or a general register. */
static void store(struct step *s, enum kind kind, unsigned index)
{
    const ZydisDecodedOperand *target = &s->operand[0];
    unsigned bytes = target->size / 8;
    uint8_t reg[64];
    if (target->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct emu_range range;
        resolve(s, 0, bytes, kind == ALIGNED, ACCESS_WRITE, &range);
        get_vector(s, index, reg);
        emu_write(s, &range, reg + (kind == HIGH_HALF ? 8 : 0));
    } else {
        struct emu_operand gpr;
        uint64_t value;
        emu_prepare(s, 0, ACCESS_WRITE, &gpr);
        get_vector(s, index, reg);
        memcpy(&value, reg, sizeof(value));
        emu_set(s, &gpr, value);
    }
}

bool emu_do_vector(struct step *s)
{
    enum kind kind;
    bool vex = s->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (!s->ops->vector_read || !s->ops->vector_write ||
        (!vex && s->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) || s->insn.operand_count_visible != 2 ||
        !classify(s->insn.mnemonic, &kind))
        return false;
    unsigned to = vector_index(&s->operand[0]), from = vector_index(&s->operand[1]);
    bool loads = to != NO_VECTOR && from == NO_VECTOR, stores = from != NO_VECTOR && to == NO_VECTOR;
    const ZydisDecodedOperand *other = &s->operand[loads ? 1 : 0];
    if ((!loads && !stores) || other->size > 256 || other->size < 32)
        return false;
    check_enabled(s, vex);
    if (loads)
        load(s, kind, to, vex);
    else
        store(s, kind, from);
    return true;
}
