/* SPDX-License-Identifier: MIT */
/* What both sides of the fault comparison share beside the cases: descriptors, memory, how a result is told. */
#include "cases.h"

#define STATUS_FLAGS 0x8d5u
#define STEPPED_FLAGS (STATUS_FLAGS | 0x400u) /* DF too */

/* Base 0, limit 0xfffff in pages, 32 bits, accessed. */
#define FLAT(type_and_dpl) (0x00cf00000000ffffull | (uint64_t)(type_and_dpl) << 40)
const uint64_t fault_descriptors[LOADABLE_COUNT] = {
    [LOADABLE_DATA] = FLAT(0xf3),         [LOADABLE_READ_ONLY] = FLAT(0xf1),    [LOADABLE_ABSENT] = FLAT(0x73),
    [LOADABLE_DPL0] = FLAT(0x93),         [LOADABLE_CODE] = FLAT(0xfb),         [LOADABLE_EXECUTE_ONLY] = FLAT(0xf9),
    [LOADABLE_CONFORMING] = FLAT(0x9f),   [LOADABLE_SYSTEM] = FLAT(0xe2),
};

uint8_t fault_pattern(uint64_t linear)
{
    return (uint8_t)(linear * 0x35 + (linear >> 8) * 7 + 0x11);
}

uint64_t fault_descriptor(const struct fault_segment *segment)
{
    uint64_t limit = segment->attributes & 0x8000 ? segment->limit >> 12 : segment->limit, base = segment->base;
    return (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)segment->attributes << 40 | (limit >> 16 & 15) << 48 |
           (base >> 24 & 0xff) << 56;
}

uint16_t fault_selector(const struct fault_case *c, unsigned seg)
{
    if (c->mode == FAULT_REAL || c->mode == FAULT_V86)
        return (uint16_t)(c->seg[seg].base >> 4);
    return c->seg[seg].attributes ? (uint16_t)(FAULT_SELECTOR(seg) | c->cpl) : 0;
}

const struct fault_window *fault_windows(unsigned mode, unsigned *count)
{
    static const struct fault_window paged[] = {
        { FAULT_DATA, 0x140 },          { FAULT_DATA + 0x1e0, 0x60 },  { FAULT_DATA + 0x7e0, 0x60 },
        { FAULT_DATA + 0xf40, 0x120 },  { FAULT_STACK, 0x140 },        { FAULT_STACK + 0x1e0, 0x60 },
        { FAULT_STACK + 0x7e0, 0x60 },  { FAULT_STACK + 0xf40, 0x120 },
    };
    static const struct fault_window real[] = {
        { REAL_DATA, 64 },  { REAL_DATA + 0x4000, 64 },  { REAL_DATA + 0xffc0, 128 },
        { REAL_STACK, 64 }, { REAL_STACK + 0xffe0, 96 }, { REAL_EXTRA, 64 },
        { REAL_EXTRA + 0xffc0, 128 },
    };
    bool low = mode == FAULT_REAL || mode == FAULT_V86;
    *count = low ? sizeof(real) / sizeof(real[0]) : sizeof(paged) / sizeof(paged[0]);
    return low ? real : paged;
}

static const char *const register_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
static const char *const segment_names[FAULT_SEGMENTS] = { "es", "cs", "ss", "ds", "fs", "gs" };

/* Runs of changed bytes, lowest first. */
static void print_memory(const struct fault_case *c, const uint8_t *(*memory)(void *, uint64_t), void *context,
                         void (*print)(const char *, ...))
{
    unsigned windows;
    const struct fault_window *window = fault_windows(c->mode, &windows);
    for (unsigned i = 0; i < windows; i++) {
        const uint8_t *bytes = memory(context, window[i].linear);
        bool inside = false;
        for (uint32_t at = 0; at < window[i].bytes; at++) {
            uint64_t linear = window[i].linear + at;
            uint8_t now = bytes[at];
            if (now == fault_pattern(linear)) {
                inside = false;
                continue;
            }
            if (!inside)
                print(" @%lx=", (unsigned long)linear);
            print("%02x", now);
            inside = true;
        }
    }
}

void fault_print(const struct fault_case *c, unsigned index, const struct fault_result *r,
                 const uint8_t *(*memory)(void *context, uint64_t linear), void *context,
                 void (*print)(const char *format, ...))
{
    print("%u ", index);
    if (r->vector == FAULT_SKIPPED || r->vector == FAULT_UNSUPPORTED) {
        print(r->vector == FAULT_SKIPPED ? "skipped\n" : "unsupported\n");
        return;
    }
    if (r->vector == FAULT_DONE) {
        print("done");
    } else {
        print("%u", (unsigned)r->vector);
        bool code = r->vector == 8 || (r->vector >= 10 && r->vector <= 14) || r->vector == 17;
        if (code && c->mode != FAULT_REAL)
            print("(%lx)", (unsigned long)r->error);
        if (r->vector == 14)
            print(" cr2=%lx", (unsigned long)r->cr2);
    }
    bool wide = c->mode == FAULT_LONG;
    uint64_t rip = r->rip & (c->mode == FAULT_REAL ? 0xffff : ~0ull); /* all that the exception's frame holds */
    if (rip != c->rip)
        print(" rip=%lx", (unsigned long)rip);
    for (unsigned i = 0; i < (wide ? 16 : 8); i++) {
        uint64_t mask = wide ? ~0ull : 0xffffffffull;
        /* IRET to a 16-bit stack loads SP and leaves the rest of ESP as it was. */
        if (i == FAULT_RSP && !wide && !(c->seg[FAULT_SS].attributes & 0x4000))
            mask = 0xffff;
        if ((r->gpr[i] ^ c->gpr[i]) & mask)
            print(" %s=%lx", register_names[i], (unsigned long)(r->gpr[i] & mask));
    }
    unsigned compared = STEPPED_FLAGS & ~c->undefined_flags;
    if ((r->rflags ^ c->rflags) & compared)
        print(" flags=%lx", (unsigned long)(r->rflags & compared));
    for (unsigned i = 0; i < FAULT_SEGMENTS; i++)
        if (r->selector[i] != fault_selector(c, i))
            print(" %s=%x", segment_names[i], r->selector[i]);
    print_memory(c, memory, context, print);
    /* Of an instruction that faulted, a CPU may have set accessed bits or not. */
    if (r->vector == FAULT_DONE && c->mode != FAULT_REAL && c->mode != FAULT_V86)
        for (unsigned i = PAGE_DATA; i < FAULT_PAGES; i++)
            if (r->pte[i] & 0x60)
                print(" p%u=%lx", i, (unsigned long)(r->pte[i] & 0x60));
    print("\n");
}
