/* SPDX-License-Identifier: MIT */
/* Cases of one memory operand: segment limits and types, address wrap, canonical form, pages, alignment. */
#include "build.h"

#define HERE (FAULT_DATA + 0x800)

static const unsigned sizes[] = { 1, 2, 4, 8, 16 };
#define EACH_SIZE(size) for (unsigned i_ = 0, size; i_ < 5 && (size = sizes[i_], true); i_++)
#define EACH_OP(op) for (const struct op *op = fault_ops; op < fault_ops + fault_op_count; op++)
#define EACH_USUAL(op) EACH_OP(op) if (op->usual)

static void name_op(struct builder *b, const struct op *op, unsigned size, const char *where, int64_t delta)
{
    append(b, op->name);
    append_number(b, size * 8);
    append(b, where);
    if (delta > 0)
        append(b, "+");
    if (delta)
        append_number(b, delta);
}

/* ---- Limits ---- */

/* An operand whose last byte lies `past` bytes behind a limit. */
static void at_limit(struct builder *b, unsigned mode, unsigned cpl, const struct op *op, unsigned size, bool stack,
                     int64_t past)
{
    const struct encoding e = { .form = stack ? AT_BP : AT_BX };
    uint32_t limit = 0x7ff;
    begin(b, mode, cpl, stack ? "limit-ss" : "limit");
    name_op(b, op, size, "/end", past);
    unsigned seg = stack ? FAULT_SS : FAULT_DS;
    uint64_t offset = limit + 1 - size + (uint64_t)past;
    b->c.seg[seg].limit = limit;
    address(b, offset);
    encode(b, op, size, &e);
    finish(b);
}

static void limits(struct builder *b)
{
    EACH_OP(op) EACH_SIZE(size) {
        if (fault_op_fits(op, size, FAULT_COMPAT32)) {
            at_limit(b, FAULT_COMPAT32, 0, op, size, false, 0);
            at_limit(b, FAULT_COMPAT32, 0, op, size, false, 1);
        }
        if (op->usual && fault_op_fits(op, size, FAULT_COMPAT32)) {
            at_limit(b, FAULT_COMPAT32, 0, op, size, false, -1);
            if (size > 1)
                at_limit(b, FAULT_COMPAT32, 0, op, size, false, size);
            for (int past = 0; past < 2; past++) {
                at_limit(b, FAULT_COMPAT32, 0, op, size, true, past);
                at_limit(b, FAULT_COMPAT16, 3, op, size, false, past);
                at_limit(b, FAULT_COMPAT16, 3, op, size, true, past);
            }
        }
    }
}

/* One operand in an expand-down segment: first byte at `first`. */
static void in_expand_down(struct builder *b, const struct op *op, unsigned size, bool big, uint32_t first,
                           const char *where, int64_t delta)
{
    begin(b, FAULT_COMPAT32, 0, big ? "expand-down-32" : "expand-down-16");
    name_op(b, op, size, where, delta);
    b->c.seg[FAULT_DS].attributes = big ? 0x4097 : 0x0097;
    b->c.seg[FAULT_DS].limit = 0x7ff;
    place(b, FAULT_DS, first, HERE);
    address(b, first);
    encode(b, op, size, NULL);
    finish(b);
}

static void expand_down(struct builder *b)
{
    EACH_USUAL(op) EACH_SIZE(size) {
        if (!fault_op_fits(op, size, FAULT_COMPAT32))
            continue;
        for (int delta = -1; delta <= 1; delta++)
            for (int big = 0; big < 2; big++)
                in_expand_down(b, op, size, big, (uint32_t)(0x7ff + delta), "/limit", delta);
        in_expand_down(b, op, size, false, 0x10000 - size, "/top", 0);
        in_expand_down(b, op, size, false, 0x10001 - size, "/top", 1);
        in_expand_down(b, op, size, true, 0x10000, "/64K", 0);
        in_expand_down(b, op, size, true, 0u - size, "/top", 0);
    }
}

static void real_limits(struct builder *b, unsigned mode)
{
    unsigned cpl = mode == FAULT_V86 ? 3 : 0;
    EACH_OP(op) EACH_SIZE(size) {
        if (!fault_op_fits(op, size, mode))
            continue;
        for (unsigned past = 0; past < size && past < (op->usual ? 4 : 2); past++) {
            begin(b, mode, cpl, "limit");
            name_op(b, op, size, "/end", past);
            address(b, 0x10000 - size + past);
            encode(b, op, size, NULL);
            finish(b);
        }
        if (!op->usual)
            continue;
        for (unsigned past = 0; past < 2 && past < size; past++) {
            begin(b, mode, cpl, "limit-ss");
            name_op(b, op, size, "/end", past);
            address(b, 0x10000 - size + past);
            encode(b, op, size, &(struct encoding){ .form = AT_BP });
            finish(b);
        }
        begin(b, mode, cpl, "wrap");
        name_op(b, op, size, "", 0);
        address(b, 0xfff8);
        encode(b, op, size, &(struct encoding){ .form = AT_BX_DISP });
        finish(b);
        for (unsigned past = 0; past < 2; past++) {
            begin(b, mode, cpl, "address32");
            name_op(b, op, size, "/end", past);
            address(b, 0x10000 - size + past);
            encode(b, op, size, &(struct encoding){ .other_address = true });
            finish(b);
        }
        begin(b, mode, cpl, "override-es");
        name_op(b, op, size, "/end", size > 1);
        address(b, 0x10000 - size + (size > 1));
        encode(b, op, size, &(struct encoding){ .prefix = { 0x26 } });
        finish(b);
    }
}

/* Sums that are cut to the address size before the segment's base is added. */
static void wraps(struct builder *b)
{
    const struct encoding disp = { .form = AT_BX_DISP }, other = { .form = AT_BX_DISP, .other_address = true };
    EACH_USUAL(op) {
        begin(b, FAULT_COMPAT16, 0, "wrap");
        name_op(b, op, 4, "", 0);
        address(b, 0xfff8);
        encode(b, op, 4, &disp);
        finish(b);
        begin(b, FAULT_COMPAT32, 0, "wrap");
        name_op(b, op, 4, "", 0);
        address(b, 0xfffffff8);
        encode(b, op, 4, &disp);
        finish(b);
        begin(b, FAULT_COMPAT32, 0, "wrap-address16");
        name_op(b, op, 4, "", 0);
        address(b, 0x1234fff8);
        encode(b, op, 4, &other);
        finish(b);
        begin(b, FAULT_LONG, 0, "wrap-address32");
        name_op(b, op, 4, "/ok", 0);
        address(b, 0xffffffff00000000ull | (FAULT_DATA + 0x100));
        encode(b, op, 4, &other);
        finish(b);
        begin(b, FAULT_LONG, 0, "wrap-address32");
        name_op(b, op, 4, "/fs", 0);
        address(b, 0xfffffff8);
        b->c.seg[FAULT_FS].base = FAULT_DATA + 0x40;
        encode(b, op, 4, &(struct encoding){ .form = AT_BX_DISP, .prefix = { 0x64 }, .other_address = true });
        finish(b);
        /* The base is added in 32 bits. */
        begin(b, FAULT_COMPAT32, 0, "wrap-base");
        name_op(b, op, 4, "", 0);
        b->c.seg[FAULT_DS] = (struct fault_segment){ FAULT_DATA + 0x100 + 0x1000, 0xffffffff, 0xc093 };
        address(b, 0xfffff000);
        encode(b, op, 4, NULL);
        finish(b);
    }
}

/* ---- Types ---- */

static void of_type(struct builder *b, const struct op *op, unsigned size, unsigned attributes, unsigned prefix,
                    const char *type)
{
    const struct encoding e = { .prefix = { (uint8_t)prefix } };
    begin(b, FAULT_COMPAT32, 0, "type");
    name_op(b, op, size, "/", 0);
    append(b, type);
    if (prefix == 0x2e) {
        b->c.seg[FAULT_CS].attributes = (uint16_t)attributes;
        address(b, 0x800);
    } else {
        b->c.seg[prefix == 0x36 ? FAULT_SS : prefix == 0x64 ? FAULT_FS : FAULT_DS].attributes = (uint16_t)attributes;
    }
    encode(b, op, size, &e);
    finish(b);
}

static void types(struct builder *b)
{
    EACH_OP(op) EACH_SIZE(size) {
        unsigned wanted = (op->sizes & SIZE_B) && !op->usual ? 1 : 4;
        if (!fault_op_fits(op, size, FAULT_COMPAT32) || (!op->fixed && size != wanted))
            continue;
        of_type(b, op, size, 0x4091, 0, "read-only");
        of_type(b, op, size, 0, 0, "null");
        of_type(b, op, size, 0x4099, 0x2e, "execute-only");
        if (!op->usual)
            continue;
        of_type(b, op, size, 0x4095, 0, "read-only-expand-down");
        of_type(b, op, size, 0x409b, 0, "code");
        of_type(b, op, size, 0x409f, 0, "conforming");
        of_type(b, op, size, 0, 0x64, "null-fs");
        of_type(b, op, size, 0x4093, 0x36, "ss");
        begin(b, FAULT_LONG, 3, "type");
        name_op(b, op, size, "/null", 0);
        b->c.seg[FAULT_DS] = b->c.seg[FAULT_ES] = (struct fault_segment){ 0 };
        encode(b, op, size, NULL);
        finish(b);
    }
}

/* ---- Canonical addresses ---- */

static void canonical(struct builder *b)
{
    static const struct { const char *name; uint64_t last; } edges[] = {
        { "/low", 0x00007fffffffffffull }, { "/low+1", 0x0000800000000000ull }, { "/low+9", 0x0000800000000008ull },
        { "/high-1", 0xffff7fffffffffffull }, { "/high", 0xffff800000000007ull }, { "/middle", 0x1234567890abcdefull },
    };
    EACH_OP(op) EACH_SIZE(size) {
        if (!fault_op_fits(op, size, FAULT_LONG) || (!op->fixed && !op->usual && size != 8))
            continue;
        for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
            if (!op->usual && i != 1)
                continue;
            for (int form = AT_BX; form <= (op->usual ? AT_BP : AT_BX); form++) {
                begin(b, FAULT_LONG, 0, form == AT_BP ? "canonical-ss" : "canonical");
                name_op(b, op, size, edges[i].name, 0);
                address(b, edges[i].last - size + 1);
                encode(b, op, size, &(struct encoding){ .form = (enum form)form });
                finish(b);
            }
        }
    }
    EACH_USUAL(op) {
        for (unsigned prefix = 0; prefix < 3; prefix++) {
            /* The sum with FS's base counts, not its parts. SS and DS prefixes are ignored. */
            static const uint8_t prefixes[] = { 0x64, 0x36, 0x3e };
            static const char *const names[] = { "/fs", "/ss", "/ds" };
            begin(b, FAULT_LONG, 0, "canonical-override");
            name_op(b, op, 8, names[prefix], 0);
            b->c.seg[FAULT_FS].base = 0x0000700000000000ull;
            address(b, prefix ? 0x0000800000000000ull : 0x0000100000000000ull);
            encode(b, op, 8, &(struct encoding){ .form = prefix == 2 ? AT_BP : AT_BX, .prefix = { prefixes[prefix] } });
            finish(b);
        }
        begin(b, FAULT_LONG, 3, "canonical-override");
        name_op(b, op, 8, "/fs-wraps", 0);
        b->c.seg[FAULT_FS].base = 0xffffff0000000000ull;
        address(b, 0x10000000000ull + FAULT_DATA + 0x100);
        encode(b, op, 8, &(struct encoding){ .prefix = { 0x64 } });
        finish(b);
    }
}

void build_memory(struct builder *b)
{
    limits(b);
    expand_down(b);
    real_limits(b, FAULT_REAL);
    real_limits(b, FAULT_V86);
    wraps(b);
    types(b);
    canonical(b);
}

/* ---- Pages ---- */

struct layout {
    const char *name;
    uint64_t pte[2];
    uint8_t switches;
    bool usual; /* for more than the usual instructions */
};
#define RWU (FPTE_P | FPTE_W | FPTE_U)

/* An operand that begins `before` bytes before the second data page. */
static void on_pages(struct builder *b, unsigned mode, unsigned cpl, const struct op *op, unsigned size,
                     const struct layout *layout, unsigned before)
{
    begin(b, mode, cpl, "page");
    name_op(b, op, size, layout->name, -(int64_t)before);
    b->c.pte[PAGE_DATA] = layout->pte[0];
    b->c.pte[PAGE_DATA1] = layout->pte[1];
    b->c.switches = layout->switches;
    bool based = mode == FAULT_COMPAT32;
    address(b, (based ? 0 : FAULT_DATA) + 0x1000 - before);
    encode(b, op, size, NULL);
    finish(b);
}

static void pages(struct builder *b)
{
    static const struct layout layouts[] = {
        { "/present", { RWU, RWU }, FAULT_WP, true },
        { "/second-absent", { RWU, 0 }, FAULT_WP, true },
        { "/first-absent", { 0, RWU }, FAULT_WP, false },
        { "/second-read-only", { RWU, FPTE_P | FPTE_U }, FAULT_WP, true },
        { "/second-read-only-nowp", { RWU, FPTE_P | FPTE_U }, 0, false },
        { "/first-read-only", { FPTE_P | FPTE_U, RWU }, FAULT_WP, false },
        { "/supervisor", { RWU, FPTE_P | FPTE_W }, FAULT_WP, false },
        { "/no-execute", { RWU | FPTE_NX, RWU | FPTE_NX }, FAULT_WP, false },
    };
    for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        EACH_OP(op) EACH_SIZE(size) {
            if (!fault_op_fits(op, size, FAULT_LONG) || !(op->usual || layouts[i].usual))
                continue;
            if (!op->usual && !op->fixed && size != 4)
                continue;
            for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
                if (!op->usual && cpl)
                    continue;
                on_pages(b, FAULT_LONG, cpl, op, size, &layouts[i], size);
                if (size > 1)
                    on_pages(b, FAULT_LONG, cpl, op, size, &layouts[i], 1);
                if (op->usual && size == 4)
                    on_pages(b, FAULT_LONG, cpl, op, size, &layouts[i], 0);
            }
            if (op->usual && size == 4)
                for (unsigned mode = FAULT_COMPAT32; mode <= FAULT_2LEVEL; mode++)
                    if (mode == FAULT_COMPAT32 || mode == FAULT_2LEVEL || mode == FAULT_PAE)
                        for (unsigned cpl = 0; cpl <= 3; cpl += 3)
                            if (mode != FAULT_2LEVEL || !(layouts[i].pte[0] & FPTE_NX))
                                on_pages(b, mode, cpl, op, size, &layouts[i], 2);
        }
}

/* Supervisor-mode access prevention, protection keys, reserved bits. */
static void special_pages(struct builder *b)
{
    static const struct {
        const char *name;
        uint64_t pte[2], rflags;
        uint32_t pkru;
        uint8_t switches, levels; /* levels: 1 supervisor, 2 user */
    } layouts[] = {
        { "/smap", { RWU, FPTE_P | FPTE_W }, 2, 0, FAULT_WP | FAULT_SMAP, 3 },
        { "/smap-ac", { RWU, FPTE_P | FPTE_W }, 0x40002, 0, FAULT_WP | FAULT_SMAP, 1 },
        { "/smap-second", { FPTE_P | FPTE_W, RWU }, 2, 0, FAULT_WP | FAULT_SMAP, 1 },
        { "/key-closed", { RWU | FPTE_KEY(3), RWU }, 2, 0x40, FAULT_WP | FAULT_PKE, 3 },
        { "/key-second", { RWU, RWU | FPTE_KEY(3) }, 2, 0x40, FAULT_WP | FAULT_PKE, 3 },
        { "/key-read-only", { RWU | FPTE_KEY(15), RWU }, 2, 0x80000000u, FAULT_WP | FAULT_PKE, 3 },
        { "/key-read-only-nowp", { RWU | FPTE_KEY(15), RWU }, 2, 0x80000000u, FAULT_PKE, 3 },
        { "/key-of-supervisor", { FPTE_P | FPTE_W | FPTE_KEY(3), RWU }, 2, 0xc0, FAULT_WP | FAULT_PKE, 1 },
        { "/reserved", { RWU | FPTE_RESERVED, RWU }, 2, 0, FAULT_WP, 3 },
        { "/reserved-second", { RWU, RWU | FPTE_RESERVED }, 2, 0, FAULT_WP, 3 },
        { "/reserved-absent", { RWU, RWU & ~FPTE_P & (FPTE_RESERVED | 7) }, 2, 0, FAULT_WP, 3 },
    };
    for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        EACH_USUAL(op)
            for (unsigned cpl = 0; cpl <= 3; cpl += 3)
                for (unsigned pae = 0; pae < 2; pae++) {
                    const struct layout plain = { layouts[i].name, { layouts[i].pte[0], layouts[i].pte[1] },
                                                  layouts[i].switches, false };
                    if (!(layouts[i].levels & (cpl ? 2 : 1)) || (pae && (layouts[i].switches & FAULT_PKE)))
                        continue;
                    begin(b, pae ? FAULT_PAE : FAULT_LONG, cpl, "page");
                    name_op(b, op, 4, plain.name, 0);
                    b->c.pte[PAGE_DATA] = plain.pte[0];
                    b->c.pte[PAGE_DATA1] = plain.pte[1];
                    b->c.switches = plain.switches;
                    b->c.pkru = layouts[i].pkru;
                    b->c.rflags = layouts[i].rflags;
                    address(b, FAULT_DATA + 0x0ffe);
                    encode(b, op, 4, NULL);
                    finish(b);
                }
}

/* ---- Alignment ---- */

static void alignment(struct builder *b)
{
    EACH_OP(op) EACH_SIZE(size) {
        if (!fault_op_fits(op, size, FAULT_LONG) || (!op->usual && !op->fixed && size != 4))
            continue;
        for (unsigned by = 0; by < (size == 1 ? 1 : 2) + (size > 4 ? 1u : 0u); by++) {
            begin(b, FAULT_LONG, 3, "align");
            name_op(b, op, size, "", by == 2 ? (int)size / 2 : (int)by);
            b->c.switches |= FAULT_AM;
            b->c.rflags |= 0x40000;
            address(b, FAULT_DATA + 0x100 + (by == 2 ? size / 2 : by));
            encode(b, op, size, NULL);
            finish(b);
        }
    }
    EACH_USUAL(op)
        for (unsigned how = 0; how < 5; how++) {
            static const char *const names[] = { "/supervisor", "/am-off", "/ac-off", "/and-absent", "/and-limit" };
            begin(b, how == 4 ? FAULT_COMPAT32 : FAULT_LONG, how == 0 ? 0 : 3, "align");
            name_op(b, op, 4, names[how], 1);
            b->c.switches |= how == 1 ? 0 : FAULT_AM;
            b->c.rflags |= how == 2 ? 0 : 0x40000;
            address(b, (how == 4 ? 0 : FAULT_DATA) + 0x0ffd);
            if (how == 3)
                b->c.pte[PAGE_DATA1] = 0;
            if (how == 4)
                b->c.seg[FAULT_DS].limit = 0xffe;
            encode(b, op, 4, NULL);
            finish(b);
        }
    /* Without AC: what has an alignment of its own. */
    static const char *const strict[] = { "movaps-load", "movaps-store", "cmpxchg16b", "movups-load" };
    for (unsigned i = 0; i < 4; i++)
        for (unsigned by = 0; by < 2; by++) {
            const struct op *op = fault_op(strict[i]);
            begin(b, FAULT_LONG, 0, "align");
            name_op(b, op, 16, "/absent", by);
            b->c.pte[PAGE_DATA] = 0;
            address(b, FAULT_DATA + 0x100 + by);
            encode(b, op, 16, NULL);
            finish(b);
        }
}

void build_pages(struct builder *b)
{
    pages(b);
    special_pages(b);
    alignment(b);
}
