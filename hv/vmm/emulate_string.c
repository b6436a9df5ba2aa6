/* SPDX-License-Identifier: MIT */
/*
 * String instructions and port access. A repeated instruction does a bounded batch per step; registers move on with
 * each iteration that is complete, so it can stop anywhere and be started again: at a fault, at the batch's end (an
 * interrupt may be waiting), after one iteration when the guest single-steps.
 *
 * Neighbouring iterations mostly stay on a page. The translation of each side is kept for the batch, and used again as
 * long as the element lies on the same page; the checks of segment and limit are made each time.
 */
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"

#define BATCH 256

#define TSS_MINIMUM_LIMIT 103 /* of a TSS that can have an I/O map (SDM vol. 1, 19.5.2) */
#define TSS_IO_MAP_OFFSET 102

/* One side of a string operation: where the last element was. */
struct side {
    bool valid;
    uint64_t page; /* linear */
    struct emu_range range;
};

struct string {
    unsigned bytes;         /* of an element */
    unsigned address_bytes; /* how much of rSI, rDI and rCX counts */
    struct side source, target;
};

static void resolve_element(struct step *s, struct string *str, struct side *side, enum seg seg, enum gpr index,
                            unsigned access)
{
    uint64_t offset = emu_get_gpr(s, index, str->address_bytes);
    if (side->valid) {
        uint64_t linear = emu_linear(s, seg, offset, str->bytes, access);
        uint64_t in_page = linear & (PAGE_BYTES - 1);
        bool aligned = !(linear & (str->bytes - 1));
        if (s->result == EMU_DONE && aligned && linear - in_page == side->page) {
            side->range.gpa[0].v = ALIGN_DOWN(side->range.gpa[0].v, PAGE_BYTES) | in_page;
            return;
        }
    }
    emu_resolve(s, seg, offset, str->bytes, access, &side->range);
    if (s->result != EMU_DONE)
        return;
    side->valid = side->range.first_bytes == side->range.bytes;
    side->page = ALIGN_DOWN(emu_linear(s, seg, offset, str->bytes, access), PAGE_BYTES);
}

static void resolve_source(struct step *s, struct string *str)
{
    resolve_element(s, str, &str->source, emu_source_segment(s), GPR_RSI, ACCESS_READ);
}

/* The target is in ES, whatever prefixes say. */
static void resolve_target(struct step *s, struct string *str, unsigned access)
{
    resolve_element(s, str, &str->target, SEG_ES, GPR_RDI, access);
}

static void advance(struct step *s, const struct string *str, enum gpr index)
{
    uint64_t delta = s->flags & RFLAGS_DF ? -(uint64_t)str->bytes : str->bytes;
    emu_set_gpr(s, index, str->address_bytes, s->gpr[index] + delta);
}

/*
 * May this code use the ports? Above IOPL, and in virtual-8086 mode always, the TSS's bit map decides
 * (SDM vol. 1, 19.5). Two bytes are read, as the CPU does, so the limit must cover both.
 */
static void check_port(struct step *s, uint16_t port, unsigned bytes)
{
    const struct cpu_state *state = s->state;
    const struct segment *tss = &state->seg[SEG_TR];
    unsigned iopl = (unsigned)(state->rflags / RFLAGS_IOPL) & 3;
    struct emu_range range;
    if (!cpu_v86(state) && cpu_cpl(state) <= iopl)
        return;
    if ((tss->attributes & SEG_UNUSABLE) || !(tss->attributes & 8) || tss->limit < TSS_MINIMUM_LIMIT) {
        emu_raise(s, EXC_GP);
        return;
    }
    emu_resolve_system(s, tss->base + TSS_IO_MAP_OFFSET, 2, ACCESS_READ, &range);
    uint64_t map = emu_read_value(s, &range) + port / 8;
    if (map + 1 > tss->limit) {
        emu_raise(s, EXC_GP);
        return;
    }
    emu_resolve_system(s, tss->base + map, 2, ACCESS_READ, &range);
    if ((emu_read_value(s, &range) >> (port % 8)) & ((1u << bytes) - 1))
        emu_raise(s, EXC_GP);
}

static uint32_t read_port(struct step *s, uint16_t port, unsigned bytes)
{
    uint32_t value = 0;
    if (s->result == EMU_DONE && !s->ops->port_in)
        s->result = EMU_UNSUPPORTED;
    if (s->result == EMU_DONE && !s->ops->port_in(s->ops->context, port, bytes, &value))
        s->result = EMU_RETRY;
    return value;
}

static void write_port(struct step *s, uint16_t port, unsigned bytes, uint64_t value)
{
    if (s->result == EMU_DONE && !s->ops->port_out)
        s->result = EMU_UNSUPPORTED;
    if (s->result == EMU_DONE && !s->ops->port_out(s->ops->context, port, bytes, (uint32_t)value))
        s->result = EMU_RETRY;
}

/* One iteration. Addresses first, the source's before the target's; then data; pointers last. */
static void iterate(struct step *s, struct string *str, char operation)
{
    uint16_t port = (uint16_t)s->gpr[GPR_RDX];
    uint64_t value;
    switch (operation) {
    case 'M': /* MOVS */
        resolve_source(s, str);
        resolve_target(s, str, ACCESS_WRITE);
        emu_write_value(s, &str->target.range, emu_read_value(s, &str->source.range));
        advance(s, str, GPR_RSI);
        advance(s, str, GPR_RDI);
        break;
    case 'S': /* STOS */
        resolve_target(s, str, ACCESS_WRITE);
        emu_write_value(s, &str->target.range, s->gpr[GPR_RAX]);
        advance(s, str, GPR_RDI);
        break;
    case 'L': /* LODS */
        resolve_source(s, str);
        emu_set_gpr(s, GPR_RAX, str->bytes, emu_read_value(s, &str->source.range));
        advance(s, str, GPR_RSI);
        break;
    case 'C': /* CMPS */
        resolve_source(s, str);
        resolve_target(s, str, ACCESS_READ);
        value = emu_read_value(s, &str->source.range);
        alu_sub(value, emu_read_value(s, &str->target.range), 0, str->bytes, &s->flags);
        advance(s, str, GPR_RSI);
        advance(s, str, GPR_RDI);
        break;
    case 'A': /* SCAS */
        resolve_target(s, str, ACCESS_READ);
        alu_sub(s->gpr[GPR_RAX], emu_read_value(s, &str->target.range), 0, str->bytes, &s->flags);
        advance(s, str, GPR_RDI);
        break;
    case 'I': /* INS */
        check_port(s, port, str->bytes);
        resolve_target(s, str, ACCESS_WRITE);
        emu_write_value(s, &str->target.range, read_port(s, port, str->bytes));
        advance(s, str, GPR_RDI);
        break;
    default: /* OUTS */
        check_port(s, port, str->bytes);
        resolve_source(s, str);
        write_port(s, port, str->bytes, emu_read_value(s, &str->source.range));
        advance(s, str, GPR_RSI);
        break;
    }
}

/* The last repeat prefix, or 0. Where the instruction compares nothing, F2 repeats as F3 does. */
static uint8_t repeat_prefix(const struct step *s)
{
    for (unsigned i = s->insn.raw.prefix_count; i-- > 0;)
        if (s->insn.raw.prefixes[i].value == 0xf2 || s->insn.raw.prefixes[i].value == 0xf3)
            return s->insn.raw.prefixes[i].value;
    return 0;
}

static void run(struct step *s, char operation, unsigned bytes)
{
    struct string str = { .bytes = bytes, .address_bytes = s->insn.address_width / 8 };
    uint8_t repeat = repeat_prefix(s);
    if (!repeat) {
        iterate(s, &str, operation);
        return;
    }
    uint64_t left = emu_get_gpr(s, GPR_RCX, str.address_bytes);
    bool compares = operation == 'C' || operation == 'A';
    unsigned limit = s->state->rflags & RFLAGS_TF ? 1 : BATCH;
    for (unsigned done = 0; left > 0; done++) {
        if (done == limit) {
            s->unfinished = true;
            return;
        }
        uint64_t flags = s->flags;
        iterate(s, &str, operation);
        if (s->result != EMU_DONE) {
            /*
             * What was done before stands, the flags of the last comparison with it; the guest takes the fault itself
             * when it comes back to this instruction.
             */
            if (done > 0) {
                s->flags = flags;
                s->result = EMU_DONE;
                s->unfinished = true;
            }
            return;
        }
        left--;
        emu_set_gpr(s, GPR_RCX, str.address_bytes, left);
        if (compares && !(s->flags & RFLAGS_ZF) == (repeat == 0xf3))
            return;
    }
}

/* IN and OUT: the accumulator and a port from DX or an immediate byte. */
static void port_access(struct step *s, bool out)
{
    bool from_dx = s->insn.opcode & 8;
    unsigned bytes = !(s->insn.opcode & 1) ? 1 : emu_operand_bytes(s) == 2 ? 2 : 4;
    uint16_t port = from_dx ? (uint16_t)s->gpr[GPR_RDX] : (uint16_t)(s->insn.raw.imm[0].value.u & 0xff);
    check_port(s, port, bytes);
    if (out)
        write_port(s, port, bytes, emu_get_gpr(s, GPR_RAX, bytes));
    else
        emu_set_gpr(s, GPR_RAX, bytes, read_port(s, port, bytes));
}

bool emu_do_string(struct step *s)
{
    /* MOVSD and CMPSD are SSE instructions too, but in other opcode maps. */
    if (s->insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    unsigned wide = emu_operand_bytes(s);
    switch (s->insn.opcode) {
    case 0xa4: run(s, 'M', 1); return true;
    case 0xa5: run(s, 'M', wide); return true;
    case 0xa6: run(s, 'C', 1); return true;
    case 0xa7: run(s, 'C', wide); return true;
    case 0xaa: run(s, 'S', 1); return true;
    case 0xab: run(s, 'S', wide); return true;
    case 0xac: run(s, 'L', 1); return true;
    case 0xad: run(s, 'L', wide); return true;
    case 0xae: run(s, 'A', 1); return true;
    case 0xaf: run(s, 'A', wide); return true;
    case 0x6c: run(s, 'I', 1); return true;
    case 0x6d: run(s, 'I', wide == 2 ? 2 : 4); return true;
    case 0x6e: run(s, 'O', 1); return true;
    case 0x6f: run(s, 'O', wide == 2 ? 2 : 4); return true;
    case 0xe4:
    case 0xe5:
    case 0xec:
    case 0xed: port_access(s, false); return true;
    case 0xe6:
    case 0xe7:
    case 0xee:
    case 0xef: port_access(s, true); return true;
    default: return false;
    }
}
