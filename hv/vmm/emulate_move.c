/* SPDX-License-Identifier: MIT */
/*
 * Moves: MOV in all its forms, extensions, conditional moves and sets, far pointer loads, the stack, and near branches
 * that read their target or write their return address. Far branches are not here: nobody keeps far pointers in a
 * device, and the tables that they need are the guest's whole protection.
 */
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"
#include <string.h>

/* The sixteen conditions, by the low four bits of the opcode (SDM vol. 1, appendix B). */
static bool condition(const struct step *s)
{
    uint64_t f = s->flags;
    bool sign_differs = !(f & RFLAGS_SF) != !(f & RFLAGS_OF), r;
    switch ((s->insn.opcode >> 1) & 7) {
    case 0: r = f & RFLAGS_OF; break;
    case 1: r = f & RFLAGS_CF; break;
    case 2: r = f & RFLAGS_ZF; break;
    case 3: r = f & (RFLAGS_CF | RFLAGS_ZF); break;
    case 4: r = f & RFLAGS_SF; break;
    case 5: r = f & RFLAGS_PF; break;
    case 6: r = sign_differs; break;
    default: r = sign_differs || (f & RFLAGS_ZF); break;
    }
    return s->insn.opcode & 1 ? !r : r;
}

static bool is_segment_register(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && operand->reg.value >= ZYDIS_REGISTER_ES &&
           operand->reg.value <= ZYDIS_REGISTER_GS;
}

static enum seg segment_of(const ZydisDecodedOperand *operand)
{
    return (enum seg)(operand->reg.value - ZYDIS_REGISTER_ES);
}

static void move(struct step *s)
{
    struct emu_operand target;
    if (is_segment_register(&s->operand[0])) {
        uint16_t selector = (uint16_t)emu_source(s, 1);
        emu_load_segment(s, segment_of(&s->operand[0]), selector);
        return;
    }
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    if (is_segment_register(&s->operand[1]))
        emu_set(s, &target, s->state->seg[segment_of(&s->operand[1])].selector);
    else
        emu_set(s, &target, emu_source(s, 1));
}

static void move_extended(struct step *s, bool is_signed)
{
    struct emu_operand source, target;
    emu_prepare(s, 1, ACCESS_READ, &source);
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    uint64_t value = emu_get(s, &source);
    emu_set(s, &target, is_signed ? (uint64_t)alu_signed(value, source.bytes) : value);
}

static void move_swapped(struct step *s)
{
    struct emu_operand source, target;
    emu_prepare(s, 1, ACCESS_READ, &source);
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, alu_swap(emu_get(s, &source), source.bytes));
}

/* The source is read, and may fault, whatever the condition; a 32-bit target is cleared above in both cases. */
static void move_conditional(struct step *s)
{
    struct emu_operand target;
    uint64_t value = emu_source(s, 1);
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, condition(s) ? value : emu_get(s, &target));
}

static void set_conditional(struct step *s)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, condition(s));
}

static void translate_byte(struct step *s)
{
    struct emu_range range;
    uint64_t offset = (s->gpr[GPR_RBX] + (s->gpr[GPR_RAX] & 0xff)) & emu_mask(s->insn.address_width / 8);
    emu_resolve(s, emu_source_segment(s), offset, 1, ACCESS_READ, &range);
    emu_set_gpr(s, GPR_RAX, 1, emu_read_value(s, &range));
}

/* LES LDS LSS LFS LGS: an offset, and after it a selector. */
static void load_far_pointer(struct step *s, enum seg seg)
{
    struct emu_operand target;
    struct emu_range range;
    uint8_t bytes[16] = { 0 };
    uint64_t offset = 0;
    uint16_t selector;
    unsigned width = emu_operand_bytes(s);
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_resolve(s, emu_segment(s, &s->operand[1]), emu_effective(s, &s->operand[1]), width + 2, ACCESS_READ, &range);
    if (s->result != EMU_DONE)
        return;
    emu_read(s, &range, bytes);
    memcpy(&offset, bytes, width);
    memcpy(&selector, bytes + width, 2);
    emu_load_segment(s, seg, selector);
    emu_set(s, &target, offset);
}

static void load_address(struct step *s)
{
    struct emu_operand target;
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, emu_effective(s, &s->operand[1]));
}

/* ---- the stack ---- */

static void resolve_push(struct step *s, unsigned bytes, struct emu_range *range)
{
    uint64_t sp = (s->gpr[GPR_RSP] - bytes) & emu_mask(emu_stack_bytes(s));
    emu_resolve(s, SEG_SS, sp, bytes, ACCESS_WRITE, range);
}

static void resolve_pop(struct step *s, unsigned bytes, struct emu_range *range)
{
    emu_resolve(s, SEG_SS, emu_get_gpr(s, GPR_RSP, emu_stack_bytes(s)), bytes, ACCESS_READ, range);
}

static void move_stack(struct step *s, int64_t delta)
{
    emu_set_gpr(s, GPR_RSP, emu_stack_bytes(s), s->gpr[GPR_RSP] + (uint64_t)delta);
}

static void push(struct step *s)
{
    struct emu_operand source;
    struct emu_range stack;
    unsigned bytes = emu_operand_bytes(s);
    bool segment = is_segment_register(&s->operand[0]);
    if (!segment)
        emu_prepare(s, 0, ACCESS_READ, &source);
    resolve_push(s, bytes, &stack);
    uint64_t value = segment ? s->state->seg[segment_of(&s->operand[0])].selector : emu_get(s, &source);
    emu_write_value(s, &stack, value);
    move_stack(s, -(int64_t)bytes);
}

static void pop(struct step *s)
{
    struct emu_operand target;
    struct emu_range stack;
    unsigned bytes = emu_operand_bytes(s);
    resolve_pop(s, bytes, &stack);
    /* An address that is built on rSP sees it after the pop; POP rSP keeps what was popped (SDM vol. 2B, POP). */
    move_stack(s, bytes);
    if (is_segment_register(&s->operand[0])) {
        emu_load_segment(s, segment_of(&s->operand[0]), (uint16_t)emu_read_value(s, &stack));
        return;
    }
    emu_prepare(s, 0, ACCESS_WRITE, &target);
    emu_set(s, &target, emu_read_value(s, &stack));
}

static void leave(struct step *s)
{
    struct emu_range stack;
    unsigned bytes = emu_operand_bytes(s);
    emu_set_gpr(s, GPR_RSP, emu_stack_bytes(s), s->gpr[GPR_RBP]);
    resolve_pop(s, bytes, &stack);
    uint64_t value = emu_read_value(s, &stack);
    move_stack(s, bytes);
    emu_set_gpr(s, GPR_RBP, bytes, value);
}

/* ---- near branches ---- */

/* The target of a JMP or CALL, cut to the operand size and checked; or a fault. */
static uint64_t checked_target(struct step *s, uint64_t target)
{
    target &= emu_mask(emu_operand_bytes(s));
    if (s->mode64 ? !emu_canonical(target, s->state->cr4 & CR4_LA57 ? 5 : 4) : target > s->state->seg[SEG_CS].limit)
        emu_raise(s, EXC_GP);
    return target;
}

static void branch(struct step *s, bool call)
{
    struct emu_range stack;
    unsigned bytes = emu_operand_bytes(s);
    if (s->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        emu_unsupported(s);
        return;
    }
    uint64_t target = emu_source(s, 0);
    if (s->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        target += s->next_rip;
    target = checked_target(s, target);
    if (call) {
        resolve_push(s, bytes, &stack);
        emu_write_value(s, &stack, s->next_rip);
        move_stack(s, -(int64_t)bytes);
    }
    s->next_rip = target;
    s->branched = true;
}

static void return_near(struct step *s)
{
    struct emu_range stack;
    unsigned bytes = emu_operand_bytes(s);
    if (s->insn.opcode != 0xc3 && s->insn.opcode != 0xc2) {
        emu_unsupported(s);
        return;
    }
    resolve_pop(s, bytes, &stack);
    s->next_rip = checked_target(s, emu_read_value(s, &stack));
    move_stack(s, bytes + (s->insn.opcode == 0xc2 ? (int64_t)(s->operand[0].imm.value.u & 0xffff) : 0));
    s->branched = true;
}

/* CLFLUSH and its like read a byte's address, and there is no cache to flush here. */
static void touch(struct step *s)
{
    struct emu_range range;
    emu_resolve(s, emu_segment(s, &s->operand[0]), emu_effective(s, &s->operand[0]), 1, ACCESS_READ, &range);
}

bool emu_do_move(struct step *s)
{
    if (s->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && s->insn.opcode_map == ZYDIS_OPCODE_MAP_0F) {
        unsigned row = s->insn.opcode & 0xf0;
        if (row == 0x40 || row == 0x90) {
            (row == 0x40 ? move_conditional : set_conditional)(s);
            return true;
        }
    }
    switch (s->insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_MOVDIRI: move(s); return true;
    case ZYDIS_MNEMONIC_MOVZX: move_extended(s, false); return true;
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: move_extended(s, true); return true;
    case ZYDIS_MNEMONIC_MOVBE: move_swapped(s); return true;
    case ZYDIS_MNEMONIC_XLAT: translate_byte(s); return true;
    case ZYDIS_MNEMONIC_LES: load_far_pointer(s, SEG_ES); return true;
    case ZYDIS_MNEMONIC_LDS: load_far_pointer(s, SEG_DS); return true;
    case ZYDIS_MNEMONIC_LSS: load_far_pointer(s, SEG_SS); return true;
    case ZYDIS_MNEMONIC_LFS: load_far_pointer(s, SEG_FS); return true;
    case ZYDIS_MNEMONIC_LGS: load_far_pointer(s, SEG_GS); return true;
    case ZYDIS_MNEMONIC_LEA: load_address(s); return true;
    case ZYDIS_MNEMONIC_PUSH: push(s); return true;
    case ZYDIS_MNEMONIC_POP: pop(s); return true;
    case ZYDIS_MNEMONIC_LEAVE: leave(s); return true;
    case ZYDIS_MNEMONIC_CALL: branch(s, true); return true;
    case ZYDIS_MNEMONIC_JMP: branch(s, false); return true;
    case ZYDIS_MNEMONIC_RET: return_near(s); return true;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2: emu_raise(s, EXC_UD); return true;
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: touch(s); return true;
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2: return true;
    default: return false;
    }
}
