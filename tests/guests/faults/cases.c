/* SPDX-License-Identifier: MIT */
/* The frame of every case: modes as they are before the case changes something, encoding, names. */
#include "build.h"

#define B SIZE_B
#define W SIZE_W
#define D SIZE_D
#define Q SIZE_Q
#define X SIZE_X

const struct op fault_ops[] = {
    { "load", { 0x8b }, 1, 1, SIZE_ANY, .usual = true },
    { "store", { 0x89 }, 1, 1, SIZE_ANY, .usual = true },
    { "store-imm", { 0xc7 }, 1, 0, SIZE_ANY, .immediate = 4 },
    { "add-to", { 0x01 }, 1, 1, SIZE_ANY, .usual = true },
    { "add-from", { 0x03 }, 1, 1, SIZE_ANY, .immediate = 0 },
    { "sbb-imm8", { 0x83 }, 1, 3, W | D | Q, .immediate = 1 },
    { "cmp", { 0x39 }, 1, 1, SIZE_ANY, .immediate = 0 },
    { "test", { 0x85 }, 1, 1, SIZE_ANY, .undefined = UNDEFINED_AF },
    { "inc", { 0xff }, 1, 0, SIZE_ANY, .immediate = 0 },
    { "not", { 0xf7 }, 1, 2, SIZE_ANY, .immediate = 0 },
    { "neg", { 0xf7 }, 1, 3, SIZE_ANY, .immediate = 0 },
    { "shl", { 0xd1 }, 1, 4, SIZE_ANY, .undefined = UNDEFINED_AF },
    { "shld", { 0x0f, 0xa4 }, 2, 1, W | D | Q, .immediate = 1, .undefined = UNDEFINED_SHLD },
    { "mul", { 0xf7 }, 1, 4, SIZE_ANY, .undefined = UNDEFINED_MUL },
    { "imul", { 0x0f, 0xaf }, 2, 1, W | D | Q, .undefined = UNDEFINED_MUL },
    { "xchg", { 0x87 }, 1, 1, SIZE_ANY, .usual = true },
    { "xadd", { 0x0f, 0xc1 }, 2, 1, SIZE_ANY, .immediate = 0 },
    { "cmpxchg", { 0x0f, 0xb1 }, 2, 1, SIZE_ANY, .usual = true },
    { "cmpxchg8b", { 0x0f, 0xc7 }, 2, 1, Q, .fixed = true },
    { "cmpxchg16b", { 0x0f, 0xc7 }, 2, 1, X, .fixed = true, .wide = true },
    { "bt", { 0x0f, 0xa3 }, 2, 2, W | D | Q, .undefined = UNDEFINED_BT },
    { "bts", { 0x0f, 0xab }, 2, 2, W | D | Q, .undefined = UNDEFINED_BT },
    { "btr-imm", { 0x0f, 0xba }, 2, 6, W | D | Q, .immediate = 1, .undefined = UNDEFINED_BT },
    { "movzx", { 0x0f, 0xb6 }, 2, 1, B, .fixed = true },
    { "movsx", { 0x0f, 0xbf }, 2, 1, W, .fixed = true },
    { "cmove", { 0x0f, 0x44 }, 2, 1, W | D | Q, .immediate = 0 },
    { "setne", { 0x0f, 0x95 }, 2, 0, B, .fixed = true },
    { "movnti", { 0x0f, 0xc3 }, 2, 1, D, .fixed = true },
    { "mov-from-sreg", { 0x8c }, 1, FAULT_DS, W, .fixed = true },
    { "movups-load", { 0x0f, 0x10 }, 2, 0, X, .fixed = true },
    { "movups-store", { 0x0f, 0x11 }, 2, 0, X, .fixed = true },
    { "movaps-load", { 0x0f, 0x28 }, 2, 0, X, .fixed = true },
    { "movaps-store", { 0x0f, 0x29 }, 2, 0, X, .fixed = true },
    { "movdqu-store", { 0x0f, 0x7f }, 2, 0, X, .prefix = 0xf3, .fixed = true },
    { "movq-store", { 0x0f, 0xd6 }, 2, 0, Q, .prefix = 0x66, .fixed = true },
};
#undef B
#undef W
#undef D
#undef Q
#undef X

const unsigned fault_op_count = sizeof(fault_ops) / sizeof(fault_ops[0]);

const struct op *fault_op(const char *name)
{
    for (unsigned i = 0; i < fault_op_count; i++)
        if (strlen(name) == strlen(fault_ops[i].name) && !memcmp(name, fault_ops[i].name, strlen(name)))
            return &fault_ops[i];
    return NULL;
}

bool mode_real_like(unsigned mode) { return mode == FAULT_REAL || mode == FAULT_V86; }

bool mode_wide(unsigned mode) { return !mode_real_like(mode) && mode != FAULT_COMPAT16; }

bool fault_op_fits(const struct op *op, unsigned size, unsigned mode)
{
    if (!(op->sizes & size) || (op->wide && mode != FAULT_LONG))
        return false;
    return op->fixed || size != SIZE_Q || mode == FAULT_LONG;
}

/* ---- Names and bytes ---- */

void append(struct builder *b, const char *text)
{
    size_t length = strlen(b->c.name), more = strlen(text), room = sizeof(b->c.name) - 1 - length;
    memcpy(b->c.name + length, text, more < room ? more : room);
}

void append_number(struct builder *b, int64_t number)
{
    char text[24];
    unsigned at = sizeof(text) - 1;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    text[at] = 0;
    do
        text[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        text[--at] = '-';
    append(b, text + at);
}

void emit_byte(struct builder *b, unsigned byte)
{
    if (b->c.code_bytes < sizeof(b->c.code))
        b->c.code[b->c.code_bytes++] = (uint8_t)byte;
}

void emit_bytes(struct builder *b, const uint8_t *bytes, unsigned count)
{
    while (count--)
        emit_byte(b, *bytes++);
}

void encode(struct builder *b, const struct op *op, unsigned size, const struct encoding *e)
{
    static const struct encoding plain = { .form = AT_BX };
    unsigned mode = b->c.mode, reg = (unsigned)op->reg << 3;
    if (!e)
        e = &plain;
    for (unsigned i = 0; i < sizeof(e->prefix); i++)
        if (e->prefix[i])
            emit_byte(b, e->prefix[i]);
    if (e->other_address)
        emit_byte(b, 0x67);
    if (!op->fixed && size == (mode_wide(mode) ? SIZE_W : SIZE_D))
        emit_byte(b, 0x66);
    if (op->prefix)
        emit_byte(b, op->prefix);
    if (op->wide || (!op->fixed && size == SIZE_Q))
        emit_byte(b, 0x48);
    emit_bytes(b, op->opcode, op->opcode_bytes);
    if (!op->fixed && size == SIZE_B)
        b->c.code[b->c.code_bytes - 1] &= 0xfe;
    bool address16 = !mode_wide(mode) != e->other_address && mode != FAULT_LONG;
    switch (e->form) {
    case AT_BX: emit_byte(b, reg | (address16 ? 7 : 3)); break;
    case AT_BP:
        emit_byte(b, 0x40 | reg | (address16 ? 6 : 5));
        emit_byte(b, 0);
        break;
    default:
        emit_byte(b, 0x40 | reg | (address16 ? 7 : 3));
        emit_byte(b, 0x10);
        break;
    }
    unsigned immediate = op->immediate == 4 ? (size < 4 ? size : 4) : op->immediate;
    while (immediate--)
        emit_byte(b, 0x20 + immediate);
    b->c.undefined_flags = op->undefined;
}

/* ---- Cases ---- */

static void segments(struct fault_case *c)
{
    static const uint64_t real_base[] = { REAL_EXTRA, REAL_CODE, REAL_STACK, REAL_DATA, REAL_DATA, REAL_DATA };
    uint16_t level = (uint16_t)(c->cpl << 5);
    for (unsigned i = 0; i < FAULT_SEGMENTS; i++) {
        struct fault_segment *s = &c->seg[i];
        unsigned type = i == FAULT_CS ? 0x9b : 0x93;
        uint64_t base = i == FAULT_CS ? FAULT_CODE : i == FAULT_SS ? FAULT_STACK : FAULT_DATA;
        switch (c->mode) {
        case FAULT_LONG:
            *s = (struct fault_segment){ 0, 0xffffffff, (uint16_t)((i == FAULT_CS ? 0xa000 : 0xc000) | type | level) };
            break;
        case FAULT_PAE:
        case FAULT_2LEVEL: *s = (struct fault_segment){ 0, 0xffffffff, (uint16_t)(0xc000 | type | level) }; break;
        case FAULT_COMPAT32: *s = (struct fault_segment){ base, 0x1fff, (uint16_t)(0x4000 | type | level) }; break;
        case FAULT_COMPAT16: *s = (struct fault_segment){ base, 0x1fff, (uint16_t)(type | level) }; break;
        default: *s = (struct fault_segment){ real_base[i], 0xffff, (uint16_t)(0x93 | level) }; break;
        }
    }
}

void begin(struct builder *b, unsigned mode, unsigned cpl, const char *group)
{
    static const char *const modes[] = { "long", "compat32", "compat16", "real", "v86", "pae", "2level" };
    struct fault_case *c = &b->c;
    memset(c, 0, sizeof(*c));
    c->mode = (uint8_t)mode;
    c->cpl = (uint8_t)cpl;
    append(b, modes[mode]);
    append(b, cpl && mode != FAULT_V86 ? "-user/" : "/");
    append(b, group);
    append(b, "/");
    for (unsigned i = 0; i < FAULT_PAGES; i++)
        c->pte[i] = FPTE_P | FPTE_W | (i >= PAGE_DATA || cpl ? FPTE_U : 0);
    c->switches = FAULT_WP;
    c->rflags = 2;
    segments(c);
    bool flat = mode == FAULT_LONG || mode == FAULT_PAE || mode == FAULT_2LEVEL;
    /* In the modes without a stack of its own for exceptions, their frames must not lie in memory that is compared. */
    bool pushes = mode_real_like(mode) || (!cpl && (mode == FAULT_PAE || mode == FAULT_2LEVEL));
    uint64_t mask = mode == FAULT_LONG ? ~0ull : 0xffffffffull;
    c->gpr[FAULT_RAX] = 0x1122334455667788ull & mask;
    c->gpr[FAULT_RCX] = 0x8877665544332211ull & mask;
    c->gpr[FAULT_RDX] = 5;
    c->gpr[FAULT_RSP] = pushes ? (mode_real_like(mode) ? 0x8000 : 0x8f000) : 0x200 + (flat ? FAULT_STACK : 0);
    c->gpr[FAULT_R8] = 0x0123456789abcdefull & mask;
    code_at(b, 0x100);
    address(b, flat ? FAULT_DATA + 0x100 : 0x20);
}

void address(struct builder *b, uint64_t value)
{
    b->c.gpr[FAULT_RBX] = b->c.gpr[FAULT_RBP] = b->c.gpr[FAULT_RSI] = b->c.gpr[FAULT_RDI] = value;
}

void code_at(struct builder *b, uint64_t offset)
{
    bool flat = b->c.mode == FAULT_LONG || b->c.mode == FAULT_PAE || b->c.mode == FAULT_2LEVEL;
    b->c.rip = offset + (flat ? FAULT_CODE : 0);
}

void place(struct builder *b, unsigned seg, uint64_t offset, uint64_t linear)
{
    b->c.seg[seg].base = (uint32_t)(linear - offset);
}

void finish(struct builder *b)
{
    b->visit(b->context, b->count++, &b->c);
}

unsigned fault_cases(fault_visit *visit, void *context)
{
    static struct builder b;
    b = (struct builder){ .visit = visit, .context = context };
    build_memory(&b);
    build_pages(&b);
    build_stack(&b);
    build_strings(&b);
    build_fetch(&b);
    build_segments(&b);
    return b.count;
}
