/* SPDX-License-Identifier: MIT */
/*
 * The emulator's entry: fetch the bytes, decode them, hand the instruction to the file that knows it, commit. See
 * emulate.h for the contract and emulate_internal.h for how the files divide the work.
 */
#include "vmm/emulate_internal.h"
#include <string.h>

#define MAX_INSTRUCTION_BYTES 15
#define DR6_BS BIT(14)
#define DEBUGCTL_BTF BIT(1)

/* How far a fetch got, and what stopped it. */
struct fetch {
    struct emu *emu;
    uint64_t limit_bytes; /* from RIP to the end of the code segment, at most 15 */
    unsigned have;        /* bytes in emu->bytes */
    enum emu_result result;
};

static void fetch_fault(struct fetch *f, enum exception vector)
{
    bool real = cpu_real_mode(f->emu->state);
    f->emu->fault = (struct event){ .type = EVENT_EXCEPTION, .vector = (uint8_t)vector, .has_error = !real };
    f->result = EMU_FAULT;
}

/* The linear address of byte `index` of the instruction. */
static uint64_t fetch_linear(const struct cpu_state *state, unsigned index)
{
    if (cpu_mode64(state))
        return state->rip + index;
    return (uint32_t)(state->seg[SEG_CS].base + (uint32_t)state->rip + index);
}

/*
 * Makes at least one more byte available: up to the end of the page on which the next one lies. False: nothing more can
 * be had, and f->result says why. A page after the first is touched only when the decoder asks for it, so an
 * instruction that ends at a page's end does not fault on the next one.
 */
static bool fetch_more(struct fetch *f)
{
    struct emu *emu = f->emu;
    gpa_t gpa;
    if (f->have >= f->limit_bytes || f->have >= MAX_INSTRUCTION_BYTES) {
        fetch_fault(f, EXC_GP); /* past the segment's limit, or longer than an instruction may be */
        return false;
    }
    uint64_t linear = fetch_linear(emu->state, f->have);
    if (!guest_translate(emu->state, emu->ops, emu->physical_bits, GVA(linear), ACCESS_FETCH, false, &gpa,
                         &emu->fault)) {
        f->result = EMU_FAULT;
        return false;
    }
    size_t count = MIN(MAX_INSTRUCTION_BYTES - f->have, PAGE_BYTES - (linear & (PAGE_BYTES - 1)));
    count = MIN(count, f->limit_bytes - f->have);
    const void *host = emu->ops->peek ? emu->ops->peek(emu->ops->context, gpa, count) : NULL;
    if (host) {
        memcpy(emu->bytes + f->have, host, count);
    } else if (!emu->ops->read(emu->ops->context, gpa, emu->bytes + f->have, count)) {
        f->result = EMU_RETRY;
        return false;
    }
    f->have += (unsigned)count;
    return true;
}

static void fetch_begin(struct fetch *f, struct emu *emu)
{
    const struct cpu_state *state = emu->state;
    f->emu = emu;
    f->result = EMU_DONE;
    f->have = MIN(emu->byte_count, MAX_INSTRUCTION_BYTES);
    f->limit_bytes = MAX_INSTRUCTION_BYTES;
    if (!cpu_mode64(state)) {
        uint32_t limit = state->seg[SEG_CS].limit, rip = (uint32_t)state->rip;
        uint64_t room = rip > limit ? 0 : (uint64_t)limit - rip + 1;
        f->limit_bytes = MIN(room, MAX_INSTRUCTION_BYTES);
    }
    emu->length = 0;
    emu->fault.type = EVENT_NONE;
}

static void decoder_for(const struct cpu_state *state, ZydisDecoder *decoder)
{
    bool wide = state->seg[SEG_CS].attributes & SEG_DB;
    if (cpu_mode64(state))
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (wide)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else if (cpu_real_mode(state) || cpu_v86(state))
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
    else
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
}

/* Fetches and decodes. `operands` may be NULL: only the length is wanted. */
static enum emu_result decode(struct emu *emu, ZydisDecodedInstruction *insn, ZydisDecodedOperand *operands)
{
    struct fetch f;
    ZydisDecoder decoder;
    ZydisDecoderContext context;
    fetch_begin(&f, emu);
    decoder_for(emu->state, &decoder);
    if (f.have == 0 && !fetch_more(&f))
        return f.result;
    for (;;) {
        ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, &context, emu->bytes, f.have, insn);
        if (ZYAN_SUCCESS(status))
            break;
        if (status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) {
            if (!fetch_more(&f))
                return f.result;
            continue;
        }
        fetch_fault(&f, EXC_UD);
        emu->fault.has_error = false;
        return f.result;
    }
    emu->byte_count = (uint8_t)f.have;
    emu->length = insn->length;
    unsigned visible = MIN(insn->operand_count_visible, MAX_VISIBLE_OPERANDS);
    if (operands && !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, insn, operands, (ZyanU8)visible)))
        return EMU_UNSUPPORTED;
    return EMU_DONE;
}

/*
 * RIP after `length` bytes. In 16-bit code it does not wrap at 64 KiB: execution that runs past offset 0xffff meets the
 * segment's limit at the next fetch (Intel 80386 Programmer's Reference Manual, 14.7).
 */
static uint64_t advance_rip(const struct cpu_state *state, unsigned length)
{
    uint64_t next = state->rip + length;
    return cpu_mode64(state) ? next : (uint32_t)next;
}

static void commit(struct step *s)
{
    struct cpu_state *state = s->state;
    /* Branch stepping (DEBUGCTL.BTF) traps on taken branches only; MOV SS holds back the trap of its own step. */
    bool trap = (state->rflags & RFLAGS_TF) && !s->loaded_ss && (s->branched || !(state->debugctl & DEBUGCTL_BTF));
    /* What a MOV SS before this instruction held back comes with it. */
    uint32_t held = state->interruptibility & INTERRUPTIBILITY_MOV_SS ? state->pending_debug : 0;
    memcpy(state->gpr, s->gpr, sizeof(state->gpr));
    state->rflags = s->flags;
    state->interruptibility &= (uint32_t) ~(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    if (s->load_segment < SEG_COUNT)
        state->seg[s->load_segment] = s->segment;
    if (s->loaded_ss)
        state->interruptibility |= INTERRUPTIBILITY_MOV_SS;
    if (!s->unfinished) {
        state->rflags &= ~RFLAGS_RF;
        state->rip = s->next_rip;
    }
    if (held) {
        state->pending_debug = 0;
        state->dr6 |= held & (PENDING_DEBUG_HITS | PENDING_DEBUG_STEP);
    }
    if (trap)
        state->dr6 |= DR6_BS;
    if (trap || (held & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_STEP))) {
        state->debugctl &= ~DEBUGCTL_BTF; /* as any #DB (SDM vol. 3B, 18.4.3) */
        if (state->pending.type == EVENT_NONE)
            state->pending = (struct event){ .type = EVENT_EXCEPTION, .vector = EXC_DB };
    }
}

enum emu_result emu_step(struct emu *emu)
{
    struct step s;
    enum emu_result result = decode(emu, &s.insn, s.operand);
    if (result != EMU_DONE)
        return result;
    s.emu = emu;
    s.state = emu->state;
    s.ops = emu->ops;
    s.result = EMU_DONE;
    s.mode64 = cpu_mode64(s.state);
    s.lock = s.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK;
    s.unfinished = s.branched = s.loaded_ss = false;
    s.attempts = 0;
    s.load_segment = SEG_COUNT;
    memcpy(s.gpr, s.state->gpr, sizeof(s.gpr));
    s.flags = s.state->rflags;
    s.next_rip = advance_rip(s.state, s.insn.length);

    if (!emu_do_move(&s) && !emu_do_integer(&s) && !emu_do_string(&s) && !emu_do_bits(&s) && !emu_do_vector(&s))
        return EMU_UNSUPPORTED;
    /* LSS loads SS too, but only MOV and POP open a shadow (SDM vol. 3A, 6.8.3). */
    s.loaded_ss = s.load_segment == SEG_SS && s.insn.mnemonic != ZYDIS_MNEMONIC_LSS;
    if (s.result == EMU_DONE)
        commit(&s);
    return s.result;
}

unsigned emu_decoded_length(struct emu *emu)
{
    ZydisDecodedInstruction insn;
    enum emu_result result = decode(emu, &insn, NULL);
    if (result == EMU_FAULT && emu->fault.vector == EXC_UD)
        emu->fault.type = EVENT_NONE;
    return result == EMU_DONE ? insn.length : 0;
}
