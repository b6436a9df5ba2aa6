/* SPDX-License-Identifier: MIT */
/*
 * What the emulator's files share. One instruction in progress is a struct step. Its handlers read like the manual's
 * pseudocode because failure is sticky: the first fault, retry or refusal is kept in step->result, and from then on
 * operand functions do nothing and return 0. Handlers compute on step->gpr, step->flags and step->next_rip;
 * commit (emulate.c) copies them to the vCPU's state if nothing failed.
 *
 * The rule that keeps "a fault leaves no trace" true: a handler resolves (checks and translates) every address that it
 * will touch before it reads the first of them, and its writes come last.
 */
#ifndef VMM_EMULATE_INTERNAL_H
#define VMM_EMULATE_INTERNAL_H

#ifndef ZYAN_NO_LIBC
#define ZYAN_NO_LIBC
#endif
#ifndef ZYDIS_STATIC_BUILD
#define ZYDIS_STATIC_BUILD
#endif
#ifndef ZYCORE_STATIC_BUILD
#define ZYCORE_STATIC_BUILD
#endif
#include <Zydis/Decoder.h>

#include "vmm/emulate.h"

/* With other bits of enum access: check and translate, but set no accessed or dirty bit. */
#define ACCESS_PROBE 0x100u

#define MAX_VISIBLE_OPERANDS 5
#define FLAGS_STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

/* True if a linear address is sign-extended from bit 47 (four levels) or 56 (five). */
static inline bool emu_canonical(uint64_t linear, unsigned levels)
{
    unsigned unused = levels == 5 ? 64 - 57 : 64 - 48;
    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

/* All ones in the low `bytes` (1, 2, 4 or 8) bytes. */
static inline uint64_t emu_mask(unsigned bytes) { return ~0ull >> (64 - 8 * bytes); }

/* A checked and translated piece of guest memory of at most 64 bytes, on one page or two. */
struct emu_range {
    gpa_t gpa[2];
    uint8_t bytes;
    uint8_t first_bytes; /* of these on the first page */
};

enum operand_kind { OPERAND_REGISTER, OPERAND_MEMORY, OPERAND_IMMEDIATE };

/* An integer operand that is ready for use. */
struct emu_operand {
    uint8_t kind;
    uint8_t bytes;  /* 1, 2, 4 or 8 */
    uint8_t index;  /* register */
    uint8_t shift;  /* 8 for AH, CH, DH and BH, otherwise 0 */
    uint64_t value; /* immediate, sign-extended by the decoder where the instruction does so */
    struct emu_range range;
};

struct step {
    struct emu *emu;
    struct cpu_state *state;
    const struct emu_ops *ops;
    enum emu_result result; /* EMU_DONE as long as nothing failed */
    bool mode64;
    bool lock;
    bool unfinished; /* RIP stays: a repeated string instruction has iterations left */
    bool branched;
    bool loaded_ss;
    uint8_t attempts;     /* of a locked operation */
    uint8_t load_segment; /* enum seg that `segment` goes to, or SEG_COUNT */
    struct segment segment;
    uint64_t gpr[GPR_COUNT];
    uint64_t flags;
    uint64_t next_rip;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[MAX_VISIBLE_OPERANDS];
};

/* ---- emulate_operand.c: faults, addresses, registers, memory ---- */

/* Makes the instruction fail with an exception. An error code is dropped in real mode, which pushes none. */
void emu_raise(struct step *s, enum exception vector);
void emu_raise_code(struct step *s, enum exception vector, uint32_t error);
void emu_unsupported(struct step *s);

/*
 * The linear address of seg:offset for `bytes` bytes, after the segment, limit and canonical checks of the mode.
 * `offset` must have been cut to the address size.
 */
uint64_t emu_linear(struct step *s, enum seg seg, uint64_t offset, unsigned bytes, unsigned access);
/* Checks and translates seg:offset, #AC for operands of up to 8 bytes and for far pointers included. */
void emu_resolve(struct step *s, enum seg seg, uint64_t offset, unsigned bytes, unsigned access,
                 struct emu_range *range);
/* The same from a linear address, as the CPU accesses its own tables: always with supervisor rights. */
void emu_resolve_system(struct step *s, uint64_t linear, unsigned bytes, unsigned access, struct emu_range *range);

/* The effective address (offset in its segment) of a memory operand, and its segment. */
uint64_t emu_effective(const struct step *s, const ZydisDecodedOperand *operand);
enum seg emu_segment(const struct step *s, const ZydisDecodedOperand *operand);
/* The segment of an implied DS:rSI-like operand: DS, or what a prefix says. */
enum seg emu_source_segment(const struct step *s);

void emu_read(struct step *s, const struct emu_range *range, void *bytes);
void emu_write(struct step *s, const struct emu_range *range, const void *bytes);
uint64_t emu_read_value(struct step *s, const struct emu_range *range);
void emu_write_value(struct step *s, const struct emu_range *range, uint64_t value);
/*
 * Puts `desired` where `expected` is. True: it is done (or the step has failed): go on. False: memory had changed; read
 * again. After too many attempts the step becomes EMU_RETRY.
 */
bool emu_exchange(struct step *s, const struct emu_range *range, const void *expected, const void *desired);

/* Register access by size: 32-bit writes clear the upper half, smaller ones keep the rest. */
uint64_t emu_get_gpr(const struct step *s, unsigned index, unsigned bytes);
void emu_set_gpr(struct step *s, unsigned index, unsigned bytes, uint64_t value);

/* Prepares visible operand `i`; memory is resolved for `access` (a mask of ACCESS_READ and ACCESS_WRITE). */
void emu_prepare(struct step *s, unsigned i, unsigned access, struct emu_operand *operand);
uint64_t emu_get(struct step *s, const struct emu_operand *operand);
void emu_set(struct step *s, const struct emu_operand *operand, uint64_t value);
/* Ends a read-modify-write: like emu_set, but under LOCK an exchange against `old`. False: do it again from emu_get. */
bool emu_update(struct step *s, const struct emu_operand *operand, uint64_t old, uint64_t value);
/* Prepare and read in one. */
uint64_t emu_source(struct step *s, unsigned i);

unsigned emu_stack_bytes(const struct step *s);   /* 2, 4 or 8: how much of RSP counts */
unsigned emu_operand_bytes(const struct step *s); /* 2, 4 or 8: the effective operand size */

/* The length of the instruction at CS:RIP by the decoder, or 0 as emu_instruction_length says (emulate.c). */
unsigned emu_decoded_length(struct emu *emu);

/* ---- handlers: true if the mnemonic is theirs (the step then holds what came of it) ---- */

bool emu_do_integer(struct step *s); /* emulate_integer.c: arithmetic, logic, shifts, exchanges, bits */
bool emu_do_bits(struct step *s);    /* emulate_bits.c: bit tests and scans, BMI, ADX */
bool emu_do_move(struct step *s);    /* emulate_move.c: moves, stack, near branches through memory */
bool emu_do_string(struct step *s);  /* emulate_string.c: string instructions and ports */
bool emu_do_vector(struct step *s);  /* emulate_vector.c: SSE and AVX moves */

/* Loads a segment register as MOV, POP and LDS do; commit writes it (emulate_segment.c). */
void emu_load_segment(struct step *s, enum seg seg, uint16_t selector);

#endif
