/* SPDX-License-Identifier: MIT */
/*
 * Operands of an emulated instruction: registers, effective addresses, segment checks, translation, memory. Every check
 * that the CPU makes between an address in an instruction and bytes in memory is here, in the CPU's order: segment type
 * and limit (or canonical form), page rights of the first byte's page and then of the last one's, alignment
 * (SDM vol. 3A, 5.3 to 5.5 and table 6-2).
 */
#include "vmm/emulate_internal.h"
#include <string.h>

#define MAX_ATTEMPTS 16

#define TYPE_ACCESSED 1u
#define TYPE_WRITE 2u  /* data: writable; code: readable */
#define TYPE_EXPAND 4u /* data: expand-down */
#define TYPE_CODE 8u

void emu_raise_code(struct step *s, enum exception vector, uint32_t error)
{
    if (s->result != EMU_DONE)
        return;
    s->emu->fault = (struct event){ .type = EVENT_EXCEPTION, .vector = (uint8_t)vector };
    bool pushes = vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
    if (pushes && !cpu_real_mode(s->state)) {
        s->emu->fault.has_error = true;
        s->emu->fault.error = error;
    }
    s->result = EMU_FAULT;
}

void emu_raise(struct step *s, enum exception vector) { emu_raise_code(s, vector, 0); }

void emu_unsupported(struct step *s)
{
    if (s->result == EMU_DONE)
        s->result = EMU_UNSUPPORTED;
}

unsigned emu_stack_bytes(const struct step *s)
{
    return s->mode64 ? 8 : (s->state->seg[SEG_SS].attributes & SEG_DB) ? 4 : 2;
}

unsigned emu_operand_bytes(const struct step *s) { return s->insn.operand_width / 8; }

uint64_t emu_get_gpr(const struct step *s, unsigned index, unsigned bytes) { return s->gpr[index] & emu_mask(bytes); }

void emu_set_gpr(struct step *s, unsigned index, unsigned bytes, uint64_t value)
{
    if (s->result != EMU_DONE)
        return;
    uint64_t mask = emu_mask(bytes);
    s->gpr[index] = bytes >= 4 ? value & mask : (s->gpr[index] & ~mask) | (value & mask);
}

/* ---- addresses ---- */

/* A general register in the decoder's numbering: its index, and where in it the operand lies. */
static void locate_register(ZydisRegister reg, struct emu_operand *operand)
{
    operand->kind = OPERAND_REGISTER;
    operand->shift = 0;
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15) {
        operand->index = (uint8_t)(reg - ZYDIS_REGISTER_RAX);
        operand->bytes = 8;
    } else if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D) {
        operand->index = (uint8_t)(reg - ZYDIS_REGISTER_EAX);
        operand->bytes = 4;
    } else if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W) {
        operand->index = (uint8_t)(reg - ZYDIS_REGISTER_AX);
        operand->bytes = 2;
    } else {
        /* AL CL DL BL, AH CH DH BH, then SPL to R15B: the index is the encoding, but for the second four. */
        unsigned n = reg - ZYDIS_REGISTER_AL;
        operand->shift = n >= 4 && n < 8 ? 8 : 0;
        operand->index = (uint8_t)(n < 4 ? n : n - 4);
        operand->bytes = 1;
    }
}

static bool is_gpr(ZydisRegister reg) { return reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_R15; }

static uint64_t address_register(const struct step *s, ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return s->next_rip;
    if (!is_gpr(reg))
        return 0;
    struct emu_operand r;
    locate_register(reg, &r);
    return s->gpr[r.index] & emu_mask(r.bytes);
}

uint64_t emu_effective(const struct step *s, const ZydisDecodedOperand *operand)
{
    uint64_t address = address_register(s, operand->mem.index) * operand->mem.scale;
    /*
     * SIB with base 101b and mod 00b is [index + disp32] whatever REX.B says (SDM vol. 2A, table 2-5); Zydis 4.0.0
     * reports R13 and no displacement where REX.B is set.
     */
    if ((s->insn.attributes & ZYDIS_ATTRIB_HAS_SIB) && s->insn.raw.modrm.mod == 0 && s->insn.raw.sib.base == 5)
        address += (uint64_t)s->insn.raw.disp.value;
    else
        address += (uint64_t)operand->mem.disp.value + address_register(s, operand->mem.base);
    return address & emu_mask(s->insn.address_width / 8);
}

enum seg emu_segment(const struct step *s, const ZydisDecodedOperand *operand)
{
    ZydisRegister reg = operand->mem.segment;
    /* Before an indirect branch 3E is NOTRACK to Zydis, which then does not see that it overrides the segment too. */
    if ((s->insn.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && !s->mode64)
        return SEG_DS;
    return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS ? (enum seg)(reg - ZYDIS_REGISTER_ES) : SEG_DS;
}

enum seg emu_source_segment(const struct step *s)
{
    ZydisInstructionAttributes a = s->insn.attributes;
    if (a & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        return SEG_FS;
    if (a & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
        return SEG_GS;
    if (s->mode64)
        return SEG_DS;
    if (a & ZYDIS_ATTRIB_HAS_SEGMENT_CS)
        return SEG_CS;
    if (a & ZYDIS_ATTRIB_HAS_SEGMENT_SS)
        return SEG_SS;
    return a & ZYDIS_ATTRIB_HAS_SEGMENT_ES ? SEG_ES : SEG_DS;
}

/* True if the segment's type allows the access (SDM vol. 3A, 5.5; not checked in real and virtual-8086 mode). */
static bool type_allows(const struct segment *segment, unsigned access)
{
    unsigned type = segment->attributes & SEG_TYPE_MASK;
    if ((segment->attributes & SEG_UNUSABLE) || !(segment->attributes & SEG_P) || !(segment->attributes & SEG_S))
        return false;
    if (type & TYPE_CODE)
        return !(access & ACCESS_WRITE) && (type & TYPE_WRITE);
    return !(access & ACCESS_WRITE) || (type & TYPE_WRITE);
}

static bool limit_allows(const struct segment *segment, uint64_t offset, unsigned bytes)
{
    uint64_t last = offset + bytes - 1;
    if ((segment->attributes & (TYPE_CODE | TYPE_EXPAND)) != TYPE_EXPAND)
        return last <= segment->limit;
    return offset > segment->limit && last <= ((segment->attributes & SEG_DB) ? 0xffffffffu : 0xffffu);
}

uint64_t emu_linear(struct step *s, enum seg seg, uint64_t offset, unsigned bytes, unsigned access)
{
    const struct segment *segment = &s->state->seg[seg];
    enum exception vector = seg == SEG_SS ? EXC_SS : EXC_GP;
    if (s->mode64) {
        uint64_t linear = offset + (seg >= SEG_FS ? segment->base : 0);
        unsigned levels = s->state->cr4 & CR4_LA57 ? 5 : 4;
        if (!emu_canonical(linear, levels) || !emu_canonical(linear + bytes - 1, levels))
            emu_raise(s, vector);
        return linear;
    }
    bool typed = !cpu_real_mode(s->state) && !cpu_v86(s->state);
    if (typed ? !type_allows(segment, access) || !limit_allows(segment, offset, bytes)
              : offset + bytes - 1 > segment->limit)
        emu_raise(s, vector);
    return (uint32_t)(segment->base + offset);
}

/* Translates a linear range that passed its segment's checks. */
static void translate(struct step *s, uint64_t linear, unsigned bytes, unsigned access, bool stack,
                      struct emu_range *range)
{
    unsigned on_page = (unsigned)(PAGE_BYTES - (linear & (PAGE_BYTES - 1)));
    bool crosses = bytes > on_page;
    gva_t first = GVA(linear);
    unsigned width = s->emu->physical_bits;
    range->bytes = (uint8_t)bytes;
    range->first_bytes = (uint8_t)(crosses ? on_page : bytes);
    struct event *fault = &s->emu->fault;
    /* Both pages are judged before the first one gets its accessed and dirty bits. */
    bool ok = guest_translate(s->state, s->ops, width, first, crosses ? access | ACCESS_PROBE : access, stack,
                              &range->gpa[0], fault);
    if (ok && crosses) {
        gva_t second = GVA(s->mode64 ? linear + on_page : (uint32_t)(linear + on_page));
        ok = guest_translate(s->state, s->ops, width, second, access, stack, &range->gpa[1], fault) &&
             guest_translate(s->state, s->ops, width, first, access, stack, &range->gpa[0], fault);
    }
    if (!ok)
        s->result = EMU_FAULT;
}

void emu_resolve(struct step *s, enum seg seg, uint64_t offset, unsigned bytes, unsigned access,
                 struct emu_range *range)
{
    uint64_t linear = emu_linear(s, seg, offset, bytes, access);
    if (s->result != EMU_DONE)
        return;
    bool checked = (s->state->rflags & RFLAGS_AC) && (s->state->cr0 & CR0_AM) && cpu_cpl(s->state) == 3;
    /* Far pointers align as their offset does; other operands above 8 bytes have rules in their handlers. */
    unsigned alignment = bytes == 10 ? 8 : bytes == 6 ? 4 : bytes <= 8 ? bytes : 1;
    bool misaligned = checked && (linear & (alignment - 1));
    translate(s, linear, bytes, misaligned ? access | ACCESS_PROBE : access, seg == SEG_SS, range);
    if (misaligned)
        emu_raise(s, EXC_AC);
}

void emu_resolve_system(struct step *s, uint64_t linear, unsigned bytes, unsigned access, struct emu_range *range)
{
    if (!cpu_long_mode(s->state))
        linear = (uint32_t)linear;
    if (s->result == EMU_DONE)
        translate(s, linear, bytes, access | ACCESS_IMPLICIT, false, range);
}

/* ---- memory ---- */

void emu_read(struct step *s, const struct emu_range *range, void *bytes)
{
    if (s->result != EMU_DONE) {
        memset(bytes, 0, range->bytes <= 64 ? range->bytes : 0);
        return;
    }
    unsigned first = range->first_bytes, rest = range->bytes - first;
    if (!s->ops->read(s->ops->context, range->gpa[0], bytes, first) ||
        (rest && !s->ops->read(s->ops->context, range->gpa[1], (uint8_t *)bytes + first, rest)))
        s->result = EMU_RETRY;
}

void emu_write(struct step *s, const struct emu_range *range, const void *bytes)
{
    if (s->result != EMU_DONE)
        return;
    unsigned first = range->first_bytes, rest = range->bytes - first;
    if (!s->ops->write(s->ops->context, range->gpa[0], bytes, first) ||
        (rest && !s->ops->write(s->ops->context, range->gpa[1], (const uint8_t *)bytes + first, rest)))
        s->result = EMU_RETRY;
}

uint64_t emu_read_value(struct step *s, const struct emu_range *range)
{
    uint64_t value = 0;
    if (s->result == EMU_DONE)
        emu_read(s, range, &value);
    return s->result == EMU_DONE ? value : 0;
}

void emu_write_value(struct step *s, const struct emu_range *range, uint64_t value) { emu_write(s, range, &value); }

bool emu_exchange(struct step *s, const struct emu_range *range, const void *expected, const void *desired)
{
    if (s->result != EMU_DONE)
        return true;
    if (range->first_bytes != range->bytes) {
        /* A locked operation across two pages: no callback can do both at once, so it is not atomic. */
        emu_write(s, range, desired);
        return true;
    }
    bool equal = false;
    if (!s->ops->compare_exchange(s->ops->context, range->gpa[0], expected, desired, range->bytes, &equal))
        s->result = EMU_RETRY;
    else if (!equal && ++s->attempts >= MAX_ATTEMPTS)
        s->result = EMU_RETRY;
    return equal || s->result != EMU_DONE;
}

/* ---- operands ---- */

void emu_prepare(struct step *s, unsigned i, unsigned access, struct emu_operand *operand)
{
    const ZydisDecodedOperand *decoded = &s->operand[i];
    memset(operand, 0, sizeof(*operand));
    operand->bytes = (uint8_t)(decoded->size / 8);
    switch (decoded->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (is_gpr(decoded->reg.value)) {
            locate_register(decoded->reg.value, operand);
            return;
        }
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        operand->kind = OPERAND_IMMEDIATE;
        operand->value = decoded->imm.value.u;
        return;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        operand->kind = OPERAND_MEMORY;
        if (operand->bytes == 1 || operand->bytes == 2 || operand->bytes == 4 || operand->bytes == 8) {
            emu_resolve(s, emu_segment(s, decoded), emu_effective(s, decoded), operand->bytes, access, &operand->range);
            return;
        }
        break;
    default: break;
    }
    operand->bytes = 8; /* harmless, should the handler go on */
    emu_unsupported(s);
}

uint64_t emu_get(struct step *s, const struct emu_operand *operand)
{
    switch (operand->kind) {
    case OPERAND_MEMORY: return emu_read_value(s, &operand->range);
    case OPERAND_REGISTER: return (s->gpr[operand->index] >> operand->shift) & emu_mask(operand->bytes);
    default: return operand->value;
    }
}

void emu_set(struct step *s, const struct emu_operand *operand, uint64_t value)
{
    if (operand->kind == OPERAND_MEMORY)
        emu_write_value(s, &operand->range, value);
    else if (operand->shift && s->result == EMU_DONE)
        s->gpr[operand->index] = (s->gpr[operand->index] & ~0xff00ull) | ((value & 0xff) << 8);
    else
        emu_set_gpr(s, operand->index, operand->bytes, value);
}

bool emu_update(struct step *s, const struct emu_operand *operand, uint64_t old, uint64_t value)
{
    if (s->lock && operand->kind == OPERAND_MEMORY)
        return emu_exchange(s, &operand->range, &old, &value);
    emu_set(s, operand, value);
    return true;
}

uint64_t emu_source(struct step *s, unsigned i)
{
    struct emu_operand operand;
    emu_prepare(s, i, ACCESS_READ, &operand);
    return emu_get(s, &operand);
}
