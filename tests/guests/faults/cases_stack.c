/* SPDX-License-Identifier: MIT */
/* Cases of the stack, of near branches, and of string instructions. */
#include "build.h"

/* What uses the stack. `width` is what it pushes or pops in 64-bit mode and 32-bit mode; 16-bit mode halves. */
static const struct stack_op {
    const char *name;
    uint8_t code[4], bytes;
    bool pops;
    bool frame; /* through rBP */
} stack_ops[] = {
    { "push-reg", { 0x50 }, 1, false, false },
    { "push-imm8", { 0x6a, 0xf0 }, 2, false, false },
    { "push-sreg", { 0x0f, 0xa0 }, 2, false, false },
    { "push16", { 0x66, 0x50 }, 2, false, false },
    { "pop-reg", { 0x58 }, 1, true, false },
    { "pop16", { 0x66, 0x58 }, 2, true, false },
    { "pop-sp", { 0x5c }, 1, true, false },
    { "call", { 0xff, 0xd1 }, 2, false, false },
    { "ret", { 0xc3 }, 1, true, false },
    { "ret-imm", { 0xc2, 0x10, 0x00 }, 3, true, false },
    { "leave", { 0xc9 }, 1, true, true },
};
#define STACK_OPS (sizeof(stack_ops) / sizeof(stack_ops[0]))

static unsigned stack_width(const struct stack_op *op, unsigned mode)
{
    unsigned usual = mode == FAULT_LONG ? 8 : mode_wide(mode) ? 4 : 2;
    return op->code[0] != 0x66 ? usual : usual == 2 ? 4 : 2;
}

/* The stack operand's first byte at `at` of its segment; CALL goes to an INT3. */
static void stack_case(struct builder *b, unsigned mode, unsigned cpl, const char *group, const struct stack_op *op,
                       uint64_t at, const char *where, int64_t delta)
{
    begin(b, mode, cpl, group);
    append(b, op->name);
    append(b, where);
    if (delta)
        append_number(b, delta);
    uint64_t sp = op->pops ? at : at + stack_width(op, mode);
    if (op->frame)
        b->c.gpr[FAULT_RBP] = sp;
    else
        b->c.gpr[FAULT_RSP] = sp;
    b->c.gpr[FAULT_RCX] = FAULT_TARGET(&b->c);
    emit_bytes(b, op->code, op->bytes);
    uint64_t base = mode_real_like(mode) ? REAL_STACK : mode == FAULT_LONG ? 0 : FAULT_STACK, linear = base + at;
    bool inside = mode_real_like(mode) || linear - FAULT_STACK < FAULT_REGION_BYTES - 8;
    if (op->pops && inside)
        b->c.target_at = linear;
}

static void stack_places(struct builder *b)
{
    for (const struct stack_op *op = stack_ops; op < stack_ops + STACK_OPS; op++) {
        for (unsigned mode = FAULT_COMPAT32; mode <= FAULT_COMPAT16; mode++) {
            unsigned cpl = mode == FAULT_COMPAT32 ? 0 : 3, width = stack_width(op, mode);
            for (int past = 0; past < 2; past++) {
                stack_case(b, mode, cpl, "stack", op, 0x800 - width + (unsigned)past, "/end+", past);
                b->c.seg[FAULT_SS].limit = 0x7ff;
                finish(b);
            }
            /* Expand-down: the first valid offset is one above the limit. */
            for (int below = 0; below < 2; below++) {
                stack_case(b, mode, cpl, "stack-down", op, 0x800 - (unsigned)below, "/limit-", below);
                b->c.seg[FAULT_SS].limit = 0x7ff;
                b->c.seg[FAULT_SS].attributes = (uint16_t)(b->c.seg[FAULT_SS].attributes | 4);
                finish(b);
            }
            /* SP at 0, or a push that goes below: it wraps as wide as SS is. */
            if (!op->pops && !op->frame) {
                stack_case(b, mode, cpl, "stack", op, 0ull - width, "/wraps", 0);
                b->c.gpr[FAULT_RSP] = 0;
                finish(b);
                stack_case(b, mode, cpl, "stack", op, 0, "/half-wraps", 0);
                b->c.gpr[FAULT_RSP] = 1;
                finish(b);
                stack_case(b, mode, cpl, "stack", op, 0, "/wraps-16", 0);
                b->c.seg[FAULT_SS] = (struct fault_segment){ FAULT_STACK - 0xf000, 0xffff,
                                                             (uint16_t)(0x0093 | cpl << 5) };
                b->c.gpr[FAULT_RSP] = 0;
                finish(b);
            }
        }
        /* Not in real mode: the exception's frame would lie where the operand did. */
        for (int past = 0; past < 2; past++) {
            uint64_t at = 0x10000 - stack_width(op, FAULT_V86) + (unsigned)past;
            stack_case(b, FAULT_V86, 3, "stack", op, at, "/end+", past);
            b->c.gpr[op->frame ? FAULT_RBP : FAULT_RSP] &= 0xffff;
            finish(b);
        }
        /* 64-bit mode: pages and canonical form. */
        unsigned width = stack_width(op, FAULT_LONG);
        for (unsigned cpl = 0; cpl <= 3; cpl += 3)
            for (unsigned layout = 0; layout < 4; layout++) {
                static const char *const names[] = { "/present", "/second-absent", "/first-absent",
                                                     "/second-read-only" };
                stack_case(b, FAULT_LONG, cpl, "stack", op, FAULT_STACK + 0x1000 - width + 1, names[layout], 0);
                if (layout == 1 || layout == 2)
                    b->c.pte[layout == 1 ? PAGE_STACK1 : PAGE_STACK] = 0;
                if (layout == 3)
                    b->c.pte[PAGE_STACK1] = FPTE_P | FPTE_U;
                finish(b);
            }
        static const uint64_t last[] = { 0x00007fffffffffffull, 0x0000800000000000ull, 0x0000800000000007ull,
                                         0xffff7fffffffffffull, 0xffff800000000007ull };
        for (unsigned i = 0; i < 5; i++) {
            stack_case(b, FAULT_LONG, 0, "stack-canonical", op, last[i] - width + 1, "/", (int64_t)i + 1);
            finish(b);
        }
        stack_case(b, FAULT_LONG, 3, "stack-align", op, FAULT_STACK + 0x101, "", 0);
        b->c.switches |= FAULT_AM;
        b->c.rflags |= 0x40000;
        finish(b);
    }
}

/* PUSH, POP, CALL, JMP with an operand in memory: two operands, each of which may fault. */
static void stack_and_memory(struct builder *b)
{
    static const struct { const char *name; uint8_t code[2]; } ops[] = {
        { "push-mem", { 0xff, 0x33 } },
        { "pop-mem", { 0x8f, 0x03 } },
        { "call-mem", { 0xff, 0x13 } },
        { "jmp-mem", { 0xff, 0x23 } },
    };
    for (unsigned i = 0; i < 4; i++)
        for (unsigned bad = 0; bad < 4; bad++) {
            static const char *const names[] = { "/fine", "/memory", "/stack", "/both" };
            begin(b, FAULT_LONG, 0, "stack-mem");
            append(b, ops[i].name);
            append(b, names[bad]);
            emit_bytes(b, ops[i].code, 2);
            if (bad & 1)
                b->c.pte[PAGE_DATA] = 0;
            if (bad & 2)
                b->c.pte[PAGE_STACK] = 0;
            b->c.target_at = FAULT_DATA + 0x100;
            finish(b);
            begin(b, FAULT_LONG, 0, "stack-mem-canonical");
            append(b, ops[i].name);
            append(b, names[bad]);
            emit_bytes(b, ops[i].code, 2);
            if (bad & 1)
                b->c.gpr[FAULT_RBX] = 0x0000800000000000ull;
            if (bad & 2)
                b->c.gpr[FAULT_RSP] = 0x0000900000000000ull;
            finish(b);
            begin(b, FAULT_COMPAT32, 3, "stack-mem");
            append(b, ops[i].name);
            append(b, names[bad]);
            emit_bytes(b, ops[i].code, 2);
            if (bad & 1)
                b->c.seg[FAULT_DS].limit = 0x22;
            if (bad & 2)
                b->c.seg[FAULT_SS].limit = 0x1f;
            b->c.target_at = FAULT_DATA + 0x20;
            finish(b);
        }
    /* POP to an address that is built on rSP sees it after the pop. */
    for (unsigned cross = 0; cross < 2; cross++) {
        static const uint8_t pop_at_sp[] = { 0x8f, 0x04, 0x24 };
        begin(b, FAULT_LONG, 0, "stack-mem");
        append(b, cross ? "pop-sp-mem/next-absent" : "pop-sp-mem");
        emit_bytes(b, pop_at_sp, 3);
        b->c.gpr[FAULT_RSP] = FAULT_STACK + 0x0ff8;
        if (cross)
            b->c.pte[PAGE_STACK1] = 0;
        finish(b);
    }
}

/* ---- Where near branches lead ---- */

static void branches(struct builder *b)
{
    static const uint64_t targets[] = { 0x00007fffffffffffull, 0x0000800000000000ull, 0xffff7fffffffffffull,
                                        0xffff800000000000ull };
    for (unsigned i = 0; i < 4; i++)
        for (unsigned call = 0; call < 2; call++) {
            begin(b, FAULT_LONG, 3, "branch-canonical");
            append(b, call ? "call-reg/" : "jmp-reg/");
            append_number(b, i);
            emit_byte(b, 0xff);
            emit_byte(b, call ? 0xd1 : 0xe1);
            b->c.gpr[FAULT_RCX] = targets[i];
            finish(b);
        }
    for (unsigned mode = FAULT_COMPAT32; mode <= FAULT_V86; mode++)
        for (unsigned past = 0; past < 2; past++)
            for (unsigned call = 0; call < 2; call++) {
                begin(b, mode, mode == FAULT_V86 ? 3 : 0, "branch-limit");
                append(b, call ? "call-reg/end+" : "jmp-reg/end+");
                append_number(b, past);
                if (!mode_wide(mode)) /* a 32-bit target in 16-bit code may lie beyond 64 KiB */
                    emit_byte(b, 0x66);
                emit_byte(b, 0xff);
                emit_byte(b, call ? 0xd1 : 0xe1);
                bool real = mode_real_like(mode);
                b->c.seg[FAULT_CS].limit = real ? 0xffff : 0x7ff;
                b->c.gpr[FAULT_RCX] = (real ? 0xffff : 0x7ff) + past;
                finish(b);
            }
    /* A call whose target and whose stack are both bad. */
    begin(b, FAULT_COMPAT32, 0, "branch-limit");
    append(b, "call-reg/target-and-stack");
    emit_byte(b, 0xff);
    emit_byte(b, 0xd1);
    b->c.seg[FAULT_CS].limit = 0x7ff;
    b->c.seg[FAULT_SS].limit = 0x100;
    b->c.gpr[FAULT_RCX] = 0x1000;
    finish(b);
}

void build_stack(struct builder *b)
{
    stack_places(b);
    stack_and_memory(b);
    branches(b);
}

/* ---- Strings ---- */

static const struct string_op { const char *name; uint8_t opcode; bool source, target, port; } string_ops[] = {
    { "movs", 0xa4, true, true, false },  { "stos", 0xaa, false, true, false }, { "lods", 0xac, true, false, false },
    { "cmps", 0xa6, true, true, false },  { "scas", 0xae, false, true, false }, { "ins", 0x6c, false, true, true },
    { "outs", 0x6e, true, false, true },
};
#define STRING_OPS (sizeof(string_ops) / sizeof(string_ops[0]))
#define FREE_PORT 0xe8 /* nothing is there on a PC: reads all ones */

static void begin_string(struct builder *b, unsigned mode, unsigned cpl, const struct string_op *op, unsigned size,
                         unsigned repeat, const char *where)
{
    begin(b, mode, cpl, "string");
    append(b, repeat == 0xf3 ? "rep-" : repeat ? "repne-" : "");
    append(b, op->name);
    append_number(b, size * 8);
    append(b, where);
    if (repeat)
        emit_byte(b, repeat);
    if (size == (mode_wide(mode) ? 2u : 4u))
        emit_byte(b, 0x66);
    if (size == 8)
        emit_byte(b, 0x48);
    emit_byte(b, size == 1 ? op->opcode : op->opcode | 1u);
    b->c.gpr[FAULT_RCX] = 8;
    if (op->port) {
        b->c.gpr[FAULT_RDX] = FREE_PORT;
        b->c.rflags |= 0x3000; /* IOPL 3 */
    }
}

static void strings(struct builder *b)
{
    for (const struct string_op *op = string_ops; op < string_ops + STRING_OPS; op++)
        for (unsigned size = 1; size <= (op->port ? 4 : 8); size *= 2)
            for (unsigned repeat = 0; repeat < 2; repeat++) {
                unsigned prefix = !repeat ? 0 : op->opcode == 0xa6 || op->opcode == 0xae ? 0xf2 : 0xf3;
                uint64_t before = repeat ? 4 * size : size - 1;
                /* 64-bit mode, upwards into a page that is not there: source, target, both. */
                for (unsigned bad = 1; bad < 4; bad++) {
                    static const char *const names[] = { "", "/source-absent", "/target-absent", "/both-absent" };
                    if ((bad & 1 && !op->source) || (bad & 2 && !op->target))
                        continue;
                    begin_string(b, FAULT_LONG, 3, op, size, prefix, names[bad]);
                    b->c.gpr[FAULT_RSI] = (bad & 1 ? FAULT_DATA : FAULT_STACK) + 0x1000 - before;
                    b->c.gpr[FAULT_RDI] = (bad & 2 ? FAULT_DATA : FAULT_STACK) + 0x1000 - before;
                    if (bad == 3) /* the source is the one that faults */
                        b->c.gpr[FAULT_RDI] -= 0x10 * size;
                    b->c.pte[PAGE_DATA1] = 0;
                    finish(b);
                }
                /* Segments' ends. */
                if (size < 8)
                    for (unsigned mode = FAULT_COMPAT32; mode <= FAULT_V86; mode++)
                        for (unsigned target = 0; target < 2; target++) {
                            if (!(target ? op->target : op->source) || (op->port && mode == FAULT_V86))
                                continue; /* ports need a bit map in virtual-8086 mode */
                            begin_string(b, mode, mode == FAULT_V86 ? 3 : 0, op, size, prefix,
                                         target ? "/target-limit" : "/source-limit");
                            uint64_t end = 0x10000;
                            if (!mode_real_like(mode)) {
                                b->c.seg[target ? FAULT_ES : FAULT_DS].limit = 0x7ff;
                                end = 0x800;
                            }
                            /* A single byte at the very end is fine; a wider one begins one too late. */
                            uint64_t room = repeat ? 2 * size + (size > 1) : size - (size > 1);
                            b->c.gpr[target ? FAULT_RDI : FAULT_RSI] = end - room;
                            b->c.gpr[target ? FAULT_RSI : FAULT_RDI] = 0x20;
                            finish(b);
                        }
                if (size == 4 && op->target) {
                    begin_string(b, FAULT_COMPAT32, 0, op, size, prefix, "/target-null");
                    b->c.seg[FAULT_ES].attributes = 0;
                    b->c.gpr[FAULT_RDI] = 0x200;
                    finish(b);
                    begin_string(b, FAULT_COMPAT32, 3, op, size, prefix, "/target-read-only");
                    b->c.seg[FAULT_ES].attributes = 0x40f1;
                    b->c.gpr[FAULT_RDI] = 0x200;
                    finish(b);
                    begin_string(b, FAULT_LONG, 0, op, size, prefix, "/target-canonical");
                    b->c.gpr[FAULT_RDI] = 0x0000800000000000ull - before - 1;
                    finish(b);
                }
                if (size == 4 && op->source) {
                    begin_string(b, FAULT_LONG, 0, op, size, prefix, "/source-canonical");
                    b->c.gpr[FAULT_RSI] = 0xffff7fffffffffffull;
                    finish(b);
                }
                /* Downwards out of the page. */
                if (size <= 4) {
                    begin_string(b, FAULT_LONG, 0, op, size, prefix, "/down");
                    b->c.rflags |= 0x400;
                    b->c.gpr[FAULT_RSI] = FAULT_DATA + 0x1000 + (repeat ? 2 * size : 0) - (size > 1);
                    b->c.gpr[FAULT_RDI] = FAULT_STACK + 0x1000 + (repeat ? 2 * size : 0) - (size > 1);
                    b->c.pte[op->target ? PAGE_STACK : PAGE_DATA] = 0;
                    finish(b);
                }
            }
    for (const struct string_op *op = string_ops; op < string_ops + STRING_OPS; op++) {
        if (op->port) { /* a level that may not use ports: that comes before the page that is not there */
            begin_string(b, FAULT_LONG, 3, op, 4, 0, "/no-port");
            b->c.rflags &= ~0x3000ull;
            b->c.pte[PAGE_DATA] = 0;
            finish(b);
        }
        /* Nothing to do: no access, no fault. */
        begin_string(b, FAULT_LONG, 3, op, 4, 0xf3, "/count-0");
        b->c.gpr[FAULT_RCX] = 0;
        address(b, 0x0000800000000000ull);
        finish(b);
        /* 16-bit indexes wrap between elements. */
        begin_string(b, FAULT_REAL, 0, op, 1, op->opcode == 0xa6 || op->opcode == 0xae ? 0xf2 : 0xf3, "/wraps");
        b->c.gpr[FAULT_RSI] = 0x1234fffe;
        b->c.gpr[FAULT_RDI] = 0x4321fffc;
        b->c.gpr[FAULT_RCX] = 0x70006;
        finish(b);
        /* A step at a time. */
        begin_string(b, FAULT_LONG, 0, op, 1, op->opcode == 0xa6 || op->opcode == 0xae ? 0xf2 : 0xf3, "/stepped");
        b->c.gpr[FAULT_RDI] = FAULT_STACK + 0x100;
        b->c.rflags |= 0x100;
        finish(b);
    }
}

void build_strings(struct builder *b)
{
    strings(b);
}
