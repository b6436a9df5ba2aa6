/* SPDX-License-Identifier: MIT */
/* Cases of fetching and decoding, single steps, and loads of segment registers. */
#include "build.h"

#define RWU (FPTE_P | FPTE_W | FPTE_U)

/* MOV [rBX], imm32: six bytes. */
static const uint8_t store_immediate[] = { 0xc7, 0x03, 0x20, 0x21, 0x22, 0x23 };

static void fetch_pages(struct builder *b)
{
    static const struct { const char *name; uint64_t pte; uint8_t switches, levels; } layouts[] = {
        { "/present", RWU, FAULT_WP, 2 },
        { "/absent", 0, FAULT_WP, 3 },
        { "/no-execute", RWU | FPTE_NX, FAULT_WP, 3 },
        { "/supervisor", FPTE_P | FPTE_W, FAULT_WP, 3 },
        { "/smep", RWU, FAULT_WP | FAULT_SMEP, 3 },
        { "/reserved", RWU | FPTE_RESERVED, FAULT_WP, 3 },
        { "/absent-smep", 0, FAULT_WP | FAULT_SMEP, 3 },
    };
    for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        for (unsigned cpl = 0; cpl <= 3; cpl += 3)
            for (unsigned mode = 0; mode <= FAULT_2LEVEL; mode++)
                for (unsigned on_first = 0; on_first <= 6; on_first += mode == FAULT_LONG ? 1 : 3) {
                    bool long_pte = mode != FAULT_2LEVEL;
                    if (mode_real_like(mode) || !(layouts[i].levels & (cpl ? 2 : 1)) || on_first == 0)
                        continue;
                    if (!long_pte && layouts[i].pte >> 32)
                        continue;
                    begin(b, mode, cpl, "fetch");
                    append(b, "store-imm");
                    append(b, layouts[i].name);
                    append_number(b, -(int64_t)on_first);
                    b->c.pte[PAGE_CODE1] = layouts[i].pte;
                    b->c.switches = layouts[i].switches;
                    code_at(b, 0x1000 - on_first);
                    if (mode == FAULT_COMPAT16) {
                        emit_byte(b, 0x66);
                        emit_byte(b, 0xc7);
                        emit_byte(b, 0x07);
                        emit_bytes(b, store_immediate + 2, 4);
                    } else {
                        emit_bytes(b, store_immediate, 6);
                    }
                    finish(b);
                }
}

static void fetch_limits(struct builder *b)
{
    for (unsigned past = 0; past <= 6; past++) {
        begin(b, FAULT_COMPAT32, 0, "fetch-limit");
        append(b, "store-imm/end+");
        append_number(b, past);
        b->c.seg[FAULT_CS].limit = 0x7ff;
        code_at(b, 0x800 - 6 + past);
        emit_bytes(b, store_immediate, 6);
        if (past < 6) /* IRET itself refuses a target beyond the limit */
            finish(b);
        for (unsigned mode = FAULT_REAL; mode <= FAULT_V86; mode++) {
            begin(b, mode, mode == FAULT_V86 ? 3 : 0, "fetch-limit");
            append(b, "store-imm/end+");
            append_number(b, past);
            code_at(b, 0x10000 - 7 + past);
            emit_byte(b, 0x66);
            emit_byte(b, 0xc7);
            emit_byte(b, 0x07);
            emit_bytes(b, store_immediate + 2, 4);
            finish(b);
        }
    }
}

/* Instructions as long as they may be, and longer. */
static void lengths(struct builder *b)
{
    static const uint8_t modes[] = { FAULT_LONG, FAULT_COMPAT32, FAULT_COMPAT16, FAULT_REAL };
    for (unsigned m = 0; m < 4; m++)
        for (unsigned length = 14; length <= 16; length++)
            for (unsigned kind = 0; kind < 3; kind++) {
                static const char *const names[] = { "/store", "/store-to-absent", "/at-page-end" };
                if (kind && m == 3)
                    continue;
                begin(b, modes[m], 0, "length");
                append_number(b, length);
                append(b, names[kind]);
                for (unsigned i = 0; i < length - 2; i++)
                    emit_byte(b, 0x3e);
                emit_byte(b, 0x89);
                emit_byte(b, mode_wide(modes[m]) ? 0x0b : 0x0f);
                if (kind == 1)
                    b->c.pte[PAGE_DATA] = 0;
                if (kind == 2) { /* fifteen bytes, then a page that is not there */
                    code_at(b, 0x1000 - 15);
                    b->c.pte[PAGE_CODE1] = 0;
                }
                finish(b);
            }
}

static void undefined(struct builder *b)
{
    static const struct { const char *name; uint8_t code[6], bytes; bool long_only, ends_qemu; } list[] = {
        { "lock-add-reg", { 0xf0, 0x01, 0xc8 }, 3, .long_only = false },
        { "lock-mov-store", { 0xf0, 0x89, 0x0b }, 3, .long_only = false },
        { "lock-load", { 0xf0, 0x8b, 0x0b }, 3, .long_only = false },
        { "lock-cmp", { 0xf0, 0x39, 0x0b }, 3, .long_only = false },
        { "lock-bt", { 0xf0, 0x0f, 0xa3, 0x13 }, 4, .long_only = false },
        { "lock-bts-reg", { 0xf0, 0x0f, 0xab, 0xd1 }, 4, .ends_qemu = true },
        { "lock-bts", { 0xf0, 0x0f, 0xab, 0x13 }, 4, .long_only = false },
        { "lock-add", { 0xf0, 0x01, 0x0b }, 3, .long_only = false },
        { "lock-add-load", { 0xf0, 0x03, 0x0b }, 3, .long_only = false },
        { "lock-xchg", { 0xf0, 0x87, 0x0b }, 3, .long_only = false },
        { "lock-xchg-reg", { 0xf0, 0x87, 0xc1 }, 3, .long_only = false },
        { "lock-neg", { 0xf0, 0xf7, 0x1b }, 3, .long_only = false },
        { "lock-shl", { 0xf0, 0xd1, 0x23 }, 3, .long_only = false },
        { "lock-cmpxchg-reg", { 0xf0, 0x0f, 0xb1, 0xc8 }, 4, .long_only = false },
        { "lock-movs", { 0xf0, 0xa4 }, 2, .long_only = false },
        { "lock-push", { 0xf0, 0x50 }, 2, .long_only = false },
        { "lock-nop", { 0xf0, 0x90 }, 2, .long_only = false },
        { "lea-reg", { 0x8d, 0xc0 }, 2, .long_only = false },
        { "cmpxchg8b-reg", { 0x0f, 0xc7, 0xc8 }, 3, .long_only = false },
        { "movnti-reg", { 0x0f, 0xc3, 0xc8 }, 3, .long_only = false },
        { "mov-to-cs", { 0x8e, 0xc8 }, 2, .long_only = false },
        { "mov-to-sreg6", { 0x8e, 0xf0 }, 2, .long_only = false },
        { "mov-from-sreg7", { 0x8c, 0xf8 }, 2, .long_only = false },
        { "c7-reg1", { 0xc7, 0x0b, 1, 2, 3, 4 }, 6, .long_only = false },
        { "8f-reg1", { 0x8f, 0x0b }, 2, .long_only = false },
        { "fe-reg2", { 0xfe, 0x13 }, 2, .long_only = false },
        { "ff-reg7", { 0xff, 0x3b }, 2, .long_only = false },
        { "bt-imm-reg0", { 0x0f, 0xba, 0x03, 1 }, 4, .long_only = false },
        { "ud2", { 0x0f, 0x0b }, 2, .long_only = false },
        { "lds-reg", { 0xc5, 0xc0, 0, 0 }, 2, .long_only = false },
        { "lfs-reg", { 0x0f, 0xb4, 0xc0 }, 3, .long_only = false },
        { "push-es", { 0x06 }, 1, .long_only = true },
        { "les", { 0xc4, 0x03, 0, 0 }, 4, .long_only = true },
        { "mov-82", { 0x82, 0x03, 0 }, 3, .long_only = true },
    };
    for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        for (unsigned wide = 0; wide < 2; wide++) {
            /* C5 and C4 with a register operand are VEX in compatibility mode too, and need not be undefined there. */
            if ((!wide && list[i].long_only) || ((list[i].code[0] & 0xfe) == 0xc4))
                continue;
            begin(b, wide ? FAULT_LONG : FAULT_COMPAT32, 3, "undefined");
            append(b, list[i].name);
            emit_bytes(b, list[i].code, list[i].bytes);
            b->c.undefined_flags = UNDEFINED_BT;
            b->c.ends_qemu = list[i].ends_qemu;
            finish(b);
        }
}

static void steps(struct builder *b)
{
    for (unsigned i = 0; i < fault_op_count; i++) {
        const struct op *op = &fault_ops[i];
        if (!op->usual)
            continue;
        for (unsigned absent = 0; absent < 2; absent++) {
            begin(b, FAULT_LONG, 3, "stepped");
            append(b, op->name);
            append(b, absent ? "/absent" : "/present");
            b->c.rflags |= 0x100;
            if (absent)
                b->c.pte[PAGE_DATA] = 0;
            encode(b, op, 4, NULL);
            finish(b);
        }
        begin(b, FAULT_V86, 3, "stepped");
        append(b, op->name);
        b->c.rflags |= 0x100;
        encode(b, op, 2, NULL);
        finish(b);
    }
}

/* Bits that a register addresses lie anywhere around the operand. */
static void far_bits(struct builder *b)
{
    static const char *const names[] = { "bt", "bts" };
    static const struct { const char *name; int64_t index; } places[] = {
        { "/above", 8 * 0xf00 }, { "/below", -8 * 0x101 }, { "/unit-before", -1 }, { "/far", 0x7fffffffffll },
    };
    for (unsigned i = 0; i < 2; i++)
        for (unsigned at = 0; at < 4; at++)
            for (unsigned size = 2; size <= 8; size *= 2) {
                const struct op *op = fault_op(names[i]);
                begin(b, FAULT_LONG, 3, "bits");
                append(b, names[i]);
                append_number(b, size * 8);
                append(b, places[at].name);
                b->c.gpr[FAULT_RDX] = (uint64_t)places[at].index;
                b->c.pte[PAGE_DATA1] = 0;
                encode(b, op, size, NULL);
                finish(b);
                if (size == 8)
                    continue;
                begin(b, FAULT_COMPAT32, 3, "bits");
                append(b, names[i]);
                append_number(b, size * 8);
                append(b, places[at].name);
                b->c.gpr[FAULT_RDX] = (uint32_t)places[at].index;
                b->c.seg[FAULT_DS].limit = 0x7ff;
                encode(b, op, size, NULL);
                finish(b);
            }
}

void build_fetch(struct builder *b)
{
    fetch_pages(b);
    fetch_limits(b);
    lengths(b);
    undefined(b);
    steps(b);
    far_bits(b);
}

/* ---- Segment registers ---- */

static void load_case(struct builder *b, unsigned mode, unsigned cpl, unsigned seg, unsigned selector, const char *name)
{
    static const char *const to[] = { "es", "cs", "ss", "ds", "fs", "gs" };
    begin(b, mode, cpl, "load");
    append(b, to[seg]);
    append(b, "/");
    append(b, name);
    emit_byte(b, 0x8e);
    emit_byte(b, 0xc0 | seg << 3);
    b->c.gpr[FAULT_RAX] = selector;
    finish(b);
}

void build_segments(struct builder *b)
{
    static const char *const names[LOADABLE_COUNT] = { "data",          "read-only",  "absent", "dpl0", "code",
                                                       "execute-only", "conforming", "system" };
    static const uint8_t targets[] = { FAULT_ES, FAULT_DS, FAULT_SS, FAULT_FS };
    for (unsigned cpl = 0; cpl <= 3; cpl += 3)
        for (unsigned mode = FAULT_LONG; mode <= FAULT_COMPAT32; mode++)
            for (unsigned t = 0; t < 4; t++) {
                for (unsigned i = 0; i < LOADABLE_COUNT; i++)
                    load_case(b, mode, cpl, targets[t], FAULT_LOADABLE_SELECTOR(i) | cpl, names[i]);
                load_case(b, mode, cpl, targets[t], FAULT_LOADABLE_SELECTOR(LOADABLE_DPL0) | 3, "dpl0-rpl3");
                load_case(b, mode, cpl, targets[t], FAULT_LOADABLE_SELECTOR(LOADABLE_DATA), "data-rpl0");
                load_case(b, mode, cpl, targets[t], cpl, "null");
                load_case(b, mode, cpl, targets[t], cpl ^ 3, "null-other-rpl");
                load_case(b, mode, cpl, targets[t], FAULT_GDT_LIMIT + 1 + cpl, "beyond");
                load_case(b, mode, cpl, targets[t], FAULT_LOADABLE_SELECTOR(LOADABLE_DATA) | 4 | cpl, "local");
            }
    /* From memory: MOV and the far loads, of a good pointer and of a bad one, with the operand's second page absent. */
    for (unsigned pop = 0; pop < 2; pop++)
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
            begin(b, FAULT_COMPAT32, cpl, "load-memory");
            append(b, pop ? "pop-ds" : "mov-ds");
            emit_byte(b, pop ? 0x1f : 0x8e);
            if (!pop)
                emit_byte(b, 0x1b);
            b->c.pte[PAGE_DATA1] = b->c.pte[PAGE_STACK1] = 0;
            address(b, 0xfff);
            b->c.gpr[FAULT_RSP] = 0xffd;
            finish(b);
            begin(b, FAULT_COMPAT32, cpl, "load-memory");
            append(b, pop ? "lds" : "lfs");
            emit_byte(b, pop ? 0xc5 : 0x0f);
            if (!pop)
                emit_byte(b, 0xb4);
            emit_byte(b, 0x0b);
            b->c.pte[PAGE_DATA1] = 0;
            address(b, 0xffb);
            finish(b);
            begin(b, FAULT_COMPAT32, cpl, "load-memory");
            append(b, pop ? "lds/selector" : "lfs/selector");
            emit_byte(b, pop ? 0xc5 : 0x0f);
            if (!pop)
                emit_byte(b, 0xb4);
            emit_byte(b, 0x0b);
            finish(b);
        }
}
