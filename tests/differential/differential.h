/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the differential test share: the layout of memory, one test case, and who makes and judges it.
 * emu_vs_unicorn.c runs cases, differential_tables.c makes them, differential_masks.c says what is not compared and
 * why.
 */
#ifndef DIFFERENTIAL_H
#define DIFFERENTIAL_H

#include "vmm/emulate.h"
#include "vmm/emulate_internal.h"

#define MEMORY_BYTES 0x21000u
#define GDT_BASE 0x200u
#define CODE_BASE 0x1f000u /* one page, so that no data access of a generated instruction falls into it */
#define CODE_BYTES 0x1000u
#define DATA_BASE 0x4000u /* effective addresses aim between here and DATA_END, as linear addresses */
#define DATA_END 0xe000u

enum { MODE_REAL16, MODE_PROT16, MODE_PROT32, MODE_LONG64, MODE_COUNT };

struct emu_case {
    unsigned mode;
    uint8_t bytes[16];
    unsigned length;
    unsigned ip; /* offset in the code page */
    bool branch;
    uint64_t gpr[GPR_COUNT];
    uint64_t flags;
    /* For messages and masks, from the decoder. */
    const char *name;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

struct random {
    uint64_t state;
};

uint64_t random_next(struct random *r);
/* Memory as every case starts with it: noise with many values that arithmetic has borders at. */
void fill_pristine(uint8_t *memory, struct random *r);
/* Makes a case; false if the dice gave nothing that can be run (try again). */
bool generate_case(struct emu_case *c, unsigned mode, struct random *r, const uint8_t *memory);
/* Fills what is derived from mode and bytes. False: the bytes do not decode. */
bool case_identify(struct emu_case *c);

/* Status flags that are not compared for this case. */
uint64_t masked_flags(const struct emu_case *c);
/* Bits of general register `index` that are not compared. */
uint64_t masked_bits(const struct emu_case *c, unsigned index);

#endif
