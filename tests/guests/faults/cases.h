/* SPDX-License-Identifier: MIT */
/*
 * Instructions that fault, or just do not, as cases that two sides carry out: a small guest natively (faults.c), and
 * the instruction emulator on Linux (tests/unit/test_fault_cases.c). Both give a struct fault_result to fault_print,
 * and the guest compares the lines (tests/system/test_faults.py brings the two together).
 *
 * A case is one instruction with everything that decides its fate. Its memory is alike on both sides:
 *
 *   paged modes   two pages each of code, data and stack at FAULT_CODE, FAULT_DATA and FAULT_STACK, with the page table
 *                 entries that the case gives; everything else that is mapped is for the supervisor only
 *   real, V86     64 KiB each of code, data, stack and extra at REAL_CODE, REAL_DATA, REAL_STACK and REAL_EXTRA, with
 *                 no limit but the mode's own
 *
 * Code is surrounded by INT3, so an instruction that succeeds ends there, and so does the target of a branch.
 * What a case can reach of its data and stack lies in the windows of fault_windows: these hold
 * fault_pattern(linear address) before, and are compared with that after.
 */
#ifndef FAULT_CASES_H
#define FAULT_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_mode { FAULT_LONG, FAULT_COMPAT32, FAULT_COMPAT16, FAULT_REAL, FAULT_V86, FAULT_PAE, FAULT_2LEVEL };

/* Linear addresses. */
#define FAULT_CODE 0x40000000ull
#define FAULT_DATA 0x40010000ull
#define FAULT_STACK 0x40020000ull
#define FAULT_REGION_BYTES 0x2000u
#define REAL_CODE 0x20000ull
#define REAL_DATA 0x30000ull
#define REAL_STACK 0x50000ull
#define REAL_EXTRA 0x70000ull

/* Order of the registers: as encoded. Order of the segments: ES CS SS DS FS GS. */
enum { FAULT_RAX, FAULT_RCX, FAULT_RDX, FAULT_RBX, FAULT_RSP, FAULT_RBP, FAULT_RSI, FAULT_RDI, FAULT_R8 };
enum { FAULT_ES, FAULT_CS, FAULT_SS, FAULT_DS, FAULT_FS, FAULT_GS, FAULT_SEGMENTS };

/* The descriptor table of protected modes: the segments of the case, and what cases load from. */
#define FAULT_SELECTOR(seg) (0x60 + 8 * (seg))
#define FAULT_LOADABLE 0x90 /* first of fault_descriptors */
enum {
    LOADABLE_DATA,        /* writable, DPL 3 */
    LOADABLE_READ_ONLY,
    LOADABLE_ABSENT,      /* writable data, DPL 3, not present */
    LOADABLE_DPL0,        /* writable data, DPL 0 */
    LOADABLE_CODE,        /* readable, DPL 3 */
    LOADABLE_EXECUTE_ONLY,
    LOADABLE_CONFORMING,  /* readable, DPL 0 */
    LOADABLE_SYSTEM,      /* a gate's type */
    LOADABLE_COUNT,
};
#define FAULT_LOADABLE_SELECTOR(which) (FAULT_LOADABLE + 8 * (which))
#define FAULT_GDT_LIMIT (FAULT_LOADABLE + 8 * LOADABLE_COUNT - 1)
extern const uint64_t fault_descriptors[LOADABLE_COUNT];

/* Attributes as in a descriptor's bits 40 to 55: type 0-3, S 4, DPL 5-6, P 7, L 13, D/B 14, G 15. 0: null selector. */
struct fault_segment {
    uint64_t base;
    uint32_t limit; /* the last valid offset (first invalid one if expand-down) */
    uint16_t attributes;
};

/* Bits of a page table entry, and of what a case switches on. */
#define FPTE_P 1ull
#define FPTE_W 2ull
#define FPTE_U 4ull
#define FPTE_RESERVED (1ull << 51)
#define FPTE_NX (1ull << 63)
#define FPTE_KEY(n) ((uint64_t)(n) << 59)
enum { FAULT_WP = 1, FAULT_AM = 2, FAULT_SMEP = 4, FAULT_SMAP = 8, FAULT_PKE = 16 };
enum { PAGE_CODE, PAGE_CODE1, PAGE_DATA, PAGE_DATA1, PAGE_STACK, PAGE_STACK1, FAULT_PAGES };

struct fault_case {
    char name[72];
    uint8_t mode, cpl;
    uint8_t code_bytes;
    uint8_t switches;
    uint8_t code[16];
    bool ends_qemu; /* QEMU 7.2's translator aborts at it: left out where the guest's command line says cpu=lax */
    uint64_t rip;  /* offset in CS */
    uint64_t gpr[16];
    uint64_t rflags;
    struct fault_segment seg[FAULT_SEGMENTS];
    uint64_t pte[FAULT_PAGES];
    uint32_t pkru;
    uint64_t target_at;       /* 0, or where (linear) eight bytes hold a branch's target: rip + 0x200 */
    uint32_t undefined_flags; /* that the instruction leaves undefined */
};

/* Calls `visit` for every case in order; the number of cases. */
typedef void fault_visit(void *context, unsigned index, const struct fault_case *c);
unsigned fault_cases(fault_visit *visit, void *context);

#define FAULT_TARGET(c) ((c)->rip + 0x200)

uint8_t fault_pattern(uint64_t linear);
/* The segment as a descriptor. */
uint64_t fault_descriptor(const struct fault_segment *segment);
/* The selector of a case's segment, RPL included; in real and V86 mode its paragraph. */
uint16_t fault_selector(const struct fault_case *c, unsigned seg);

/* Memory that is compared with its pattern after a case. */
struct fault_window { uint64_t linear; uint32_t bytes; };
const struct fault_window *fault_windows(unsigned mode, unsigned *count);

#define FAULT_DONE (-1)
#define FAULT_UNSUPPORTED (-2) /* the emulator does not know the instruction */
#define FAULT_SKIPPED (-3)     /* the CPU lacks a feature that the case needs */
struct fault_result {
    int vector;  /* or one of the above */
    uint64_t error, cr2, rip, rflags;
    uint64_t gpr[16];
    uint16_t selector[FAULT_SEGMENTS];
    uint64_t pte[FAULT_PAGES]; /* paged modes: the entries after it */
};

/*
 * Prints "INDEX OUTCOME" and what changed, one line. `memory` gives the bytes of a window by its first one's linear
 * address. The formats used are %s, %u, %x, %lx and %02x.
 */
void fault_print(const struct fault_case *c, unsigned index, const struct fault_result *r,
                 const uint8_t *(*memory)(void *context, uint64_t linear), void *context,
                 void (*print)(const char *format, ...));

#endif
