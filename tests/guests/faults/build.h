/* SPDX-License-Identifier: MIT */
/* How the groups of cases are built (cases.c, cases_memory.c, cases_stack.c, cases_fetch.c). */
#ifndef FAULT_BUILD_H
#define FAULT_BUILD_H

#include "cases.h"

#if __STDC_HOSTED__
#include <string.h>
#else
#include "guest.h"
#endif

struct builder {
    fault_visit *visit;
    void *context;
    unsigned count;
    struct fault_case c; /* in progress */
};

enum { SIZE_B = 1, SIZE_W = 2, SIZE_D = 4, SIZE_Q = 8, SIZE_X = 16, SIZE_ANY = 15 };
enum { UNDEFINED_AF = 0x10, UNDEFINED_BT = 0x894, UNDEFINED_MUL = 0xd4, UNDEFINED_SHLD = 0x810 };

/* An instruction with a memory operand. */
struct op {
    const char *name;
    uint8_t opcode[2], opcode_bytes;
    uint8_t reg;       /* in ModRM */
    uint8_t sizes;     /* of the memory operand, a mask of SIZE_* */
    uint8_t immediate; /* 0, 1, or 4: as the operand, at most 4 bytes */
    uint8_t prefix;    /* mandatory one */
    bool fixed;        /* no operand-size prefix, no byte form */
    bool wide;         /* REX.W, so long mode only */
    bool usual;        /* of those few that the larger products of cases use */
    uint16_t undefined;
};
extern const struct op fault_ops[];
extern const unsigned fault_op_count;
const struct op *fault_op(const char *name);
bool fault_op_fits(const struct op *op, unsigned size, unsigned mode);

enum form { AT_BX, AT_BP, AT_BX_DISP }; /* [rBX], [rBP + 0], [rBX + 16] */
struct encoding {
    enum form form;
    uint8_t prefix[3];     /* segment, LOCK ... */
    bool other_address;    /* 67h: 32 bits for 16, 16 for 32, 32 for 64 */
};

/* A fresh case: mode, level, whole memory present; the name begins with the mode's and the group's. */
void begin(struct builder *b, unsigned mode, unsigned cpl, const char *group);
void append(struct builder *b, const char *text);
void append_number(struct builder *b, int64_t number);
void emit_byte(struct builder *b, unsigned byte);
void emit_bytes(struct builder *b, const uint8_t *bytes, unsigned count);
/* The instruction, `size` bytes wide, at the place that `e` tells. */
void encode(struct builder *b, const struct op *op, unsigned size, const struct encoding *e);
/* Makes `offset` of a segment lie at `linear`, by its base. */
void place(struct builder *b, unsigned seg, uint64_t offset, uint64_t linear);
/* All address registers that a form may use. */
void address(struct builder *b, uint64_t value);
/* Moves the case's code to `offset` of its two pages (of its segment in real mode). */
void code_at(struct builder *b, uint64_t offset);
void finish(struct builder *b);

bool mode_real_like(unsigned mode);
bool mode_wide(unsigned mode); /* 32-bit operands without a prefix */

void build_memory(struct builder *b);
void build_pages(struct builder *b);
void build_stack(struct builder *b);
void build_strings(struct builder *b);
void build_fetch(struct builder *b);
void build_segments(struct builder *b);

#endif
