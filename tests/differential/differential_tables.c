/* SPDX-License-Identifier: MIT */
/*
 * The instructions of the differential test, and how a random case is made of one: prefixes, ModRM and the bytes after
 * it are diced, the decoder says what came out, and then registers (or the displacement) are bent so that the memory
 * operand lies in the data area. Everything else in the registers stays noise.
 */
#include "differential.h"
#include <string.h>

#define LOCKABLE 1u /* with memory as destination */
#define REPEATS 2u
#define NO_MODRM 4u
#define STACK 8u
#define BRANCH 16u
#define NOT64 32u
#define ONLY64 64u
#define MEMORY 128u       /* memory form only */
#define WIDE_TARGETS 256u /* reads a branch target from memory */
#define NO_66 512u
#define VEX 1024u  /* map and mandatory prefix are in `map` and `prefix` */
#define NO_W 2048u /* VEX.W and REX.W stay 0 */

#define ANY 8 /* any ModRM.reg */

struct entry {
    uint8_t map; /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t opcode;
    uint8_t reg;    /* ModRM.reg, or ANY */
    uint8_t prefix; /* mandatory prefix, or 0 */
    uint16_t flags;
};

#define ONE(map, op) { map, op, ANY, 0, 0 }
#define ROW(op, l)                                                                                                    \
    { 0, op, ANY, 0, l }, { 0, op + 1, ANY, 0, l }, ONE(0, op + 2), ONE(0, op + 3), { 0, op + 4, ANY, 0, NO_MODRM },  \
    { 0, op + 5, ANY, 0, NO_MODRM }
#define GROUP8(op, l)                                                                                                 \
    { 0, op, 0, 0, l }, { 0, op, 1, 0, l }, { 0, op, 2, 0, l }, { 0, op, 3, 0, l }, { 0, op, 4, 0, l },               \
    { 0, op, 5, 0, l }, { 0, op, 6, 0, l }, { 0, op, 7, 0, 0 }
#define SHIFTS(op)                                                                                                    \
    { 0, op, 0, 0, 0 }, { 0, op, 1, 0, 0 }, { 0, op, 2, 0, 0 }, { 0, op, 3, 0, 0 }, { 0, op, 4, 0, 0 },               \
    { 0, op, 5, 0, 0 }, { 0, op, 7, 0, 0 }
#define FOUR(map, op) ONE(map, op), ONE(map, op + 1), ONE(map, op + 2), ONE(map, op + 3)
#define SIXTEEN(op) FOUR(1, op), FOUR(1, op + 4), FOUR(1, op + 8), FOUR(1, op + 12)

static const struct entry table[] = {
    /* moves */
    { 0, 0x88, ANY, 0, 0 }, { 0, 0x89, ANY, 0, 0 }, { 0, 0x8a, ANY, 0, 0 }, { 0, 0x8b, ANY, 0, 0 },
    { 0, 0xc6, 0, 0, 0 }, { 0, 0xc7, 0, 0, 0 }, { 0, 0xa0, ANY, 0, NO_MODRM }, { 0, 0xa1, ANY, 0, NO_MODRM },
    { 0, 0xa2, ANY, 0, NO_MODRM }, { 0, 0xa3, ANY, 0, NO_MODRM }, { 0, 0x8c, ANY, 0, MEMORY },
    { 0, 0x63, ANY, 0, ONLY64 }, { 1, 0xb6, ANY, 0, 0 }, { 1, 0xb7, ANY, 0, 0 }, { 1, 0xbe, ANY, 0, 0 },
    { 1, 0xbf, ANY, 0, 0 }, { 1, 0xc3, ANY, 0, MEMORY | NO_66 }, { 0, 0xd7, ANY, 0, NO_MODRM },
    { 0, 0x8d, ANY, 0, MEMORY }, { 0, 0xb0, ANY, 0, NO_MODRM }, { 0, 0xb9, ANY, 0, NO_MODRM }, SIXTEEN(0x40),
    SIXTEEN(0x90),
    /* stack and branches */
    { 0, 0xff, 6, 0, STACK }, { 0, 0x8f, 0, 0, STACK }, { 0, 0x50, ANY, 0, NO_MODRM | STACK },
    { 0, 0x5b, ANY, 0, NO_MODRM | STACK }, { 0, 0x54, ANY, 0, NO_MODRM | STACK },
    { 0, 0x5c, ANY, 0, NO_MODRM | STACK }, { 0, 0x68, ANY, 0, NO_MODRM | STACK },
    { 0, 0x6a, ANY, 0, NO_MODRM | STACK }, { 0, 0xc9, ANY, 0, NO_MODRM | STACK },
    { 0, 0xff, 2, 0, STACK | BRANCH | MEMORY | WIDE_TARGETS | NO_66 },
    { 0, 0xff, 4, 0, BRANCH | MEMORY | WIDE_TARGETS | NO_66 },
    { 0, 0xc3, ANY, 0, NO_MODRM | STACK | BRANCH | WIDE_TARGETS | NO_66 },
    { 0, 0xc2, ANY, 0, NO_MODRM | STACK | BRANCH | WIDE_TARGETS | NO_66 },
    /* strings */
    { 0, 0xa4, ANY, 0, NO_MODRM | REPEATS }, { 0, 0xa5, ANY, 0, NO_MODRM | REPEATS },
    { 0, 0xa6, ANY, 0, NO_MODRM | REPEATS }, { 0, 0xa7, ANY, 0, NO_MODRM | REPEATS },
    { 0, 0xaa, ANY, 0, NO_MODRM | REPEATS }, { 0, 0xab, ANY, 0, NO_MODRM | REPEATS },
    { 0, 0xac, ANY, 0, NO_MODRM | REPEATS }, { 0, 0xad, ANY, 0, NO_MODRM | REPEATS },
    { 0, 0xae, ANY, 0, NO_MODRM | REPEATS }, { 0, 0xaf, ANY, 0, NO_MODRM | REPEATS },
    /* arithmetic and logic */
    ROW(0x00, LOCKABLE), ROW(0x08, LOCKABLE), ROW(0x10, LOCKABLE), ROW(0x18, LOCKABLE), ROW(0x20, LOCKABLE),
    ROW(0x28, LOCKABLE), ROW(0x30, LOCKABLE), ROW(0x38, 0), GROUP8(0x80, LOCKABLE), GROUP8(0x81, LOCKABLE),
    GROUP8(0x83, LOCKABLE), { 0, 0x84, ANY, 0, 0 }, { 0, 0x85, ANY, 0, 0 }, { 0, 0xa8, ANY, 0, NO_MODRM },
    { 0, 0xa9, ANY, 0, NO_MODRM }, { 0, 0xf6, 0, 0, 0 }, { 0, 0xf6, 2, 0, LOCKABLE }, { 0, 0xf6, 3, 0, LOCKABLE },
    { 0, 0xf6, 4, 0, 0 }, { 0, 0xf6, 5, 0, 0 }, { 0, 0xf6, 6, 0, 0 }, { 0, 0xf6, 7, 0, 0 }, { 0, 0xf7, 0, 0, 0 },
    { 0, 0xf7, 2, 0, LOCKABLE }, { 0, 0xf7, 3, 0, LOCKABLE }, { 0, 0xf7, 4, 0, 0 }, { 0, 0xf7, 5, 0, 0 },
    { 0, 0xf7, 6, 0, 0 }, { 0, 0xf7, 7, 0, 0 }, { 0, 0xfe, 0, 0, LOCKABLE }, { 0, 0xfe, 1, 0, LOCKABLE },
    { 0, 0xff, 0, 0, LOCKABLE }, { 0, 0xff, 1, 0, LOCKABLE }, { 1, 0xaf, ANY, 0, 0 }, { 0, 0x69, ANY, 0, 0 },
    { 0, 0x6b, ANY, 0, 0 }, SHIFTS(0xc0), SHIFTS(0xc1), SHIFTS(0xd0), SHIFTS(0xd1), SHIFTS(0xd2), SHIFTS(0xd3),
    { 1, 0xa4, ANY, 0, 0 }, { 1, 0xa5, ANY, 0, 0 }, { 1, 0xac, ANY, 0, 0 }, { 1, 0xad, ANY, 0, 0 },
    /* vector moves */
    { 1, 0x10, ANY, 0, MEMORY | NO_66 }, { 1, 0x11, ANY, 0, MEMORY | NO_66 }, { 1, 0x10, ANY, 0x66, MEMORY },
    { 1, 0x11, ANY, 0x66, MEMORY }, { 1, 0x10, ANY, 0xf3, MEMORY | NO_66 }, { 1, 0x11, ANY, 0xf3, MEMORY | NO_66 },
    { 1, 0x10, ANY, 0xf2, MEMORY | NO_66 }, { 1, 0x11, ANY, 0xf2, MEMORY | NO_66 },
    { 1, 0x12, ANY, 0, MEMORY | NO_66 }, { 1, 0x13, ANY, 0, MEMORY | NO_66 }, { 1, 0x16, ANY, 0x66, MEMORY },
    { 1, 0x17, ANY, 0, MEMORY | NO_66 }, { 1, 0x28, ANY, 0, MEMORY | NO_66 }, { 1, 0x29, ANY, 0x66, MEMORY },
    { 1, 0x2b, ANY, 0, MEMORY | NO_66 }, { 1, 0x6f, ANY, 0xf3, MEMORY | NO_66 },
    { 1, 0x7f, ANY, 0xf3, MEMORY | NO_66 }, { 1, 0x6f, ANY, 0x66, MEMORY }, { 1, 0x7f, ANY, 0x66, MEMORY },
    { 1, 0xe7, ANY, 0x66, MEMORY }, { 1, 0x6e, ANY, 0x66, 0 }, { 1, 0x7e, ANY, 0x66, 0 },
    { 1, 0x7e, ANY, 0xf3, MEMORY | NO_66 }, { 1, 0xd6, ANY, 0x66, MEMORY }, { 1, 0xf0, ANY, 0xf2, MEMORY | NO_66 },
    { 2, 0x2a, ANY, 0x66, MEMORY },
    /* exchanges */
    { 0, 0x86, ANY, 0, LOCKABLE }, { 0, 0x87, ANY, 0, LOCKABLE }, { 1, 0xc0, ANY, 0, LOCKABLE },
    { 1, 0xc1, ANY, 0, LOCKABLE }, { 1, 0xb0, ANY, 0, LOCKABLE }, { 1, 0xb1, ANY, 0, LOCKABLE },
    { 1, 0xc7, 1, 0, LOCKABLE | MEMORY | NO_66 },
    /* bits */
    { 1, 0xa3, ANY, 0, 0 }, { 1, 0xab, ANY, 0, LOCKABLE }, { 1, 0xb3, ANY, 0, LOCKABLE },
    { 1, 0xbb, ANY, 0, LOCKABLE }, { 1, 0xba, 4, 0, 0 }, { 1, 0xba, 5, 0, LOCKABLE }, { 1, 0xba, 6, 0, LOCKABLE },
    { 1, 0xba, 7, 0, LOCKABLE }, { 1, 0xbc, ANY, 0, 0 }, { 1, 0xbd, ANY, 0, 0 }, { 1, 0xbc, ANY, 0xf3, 0 },
    { 1, 0xbd, ANY, 0xf3, 0 }, { 2, 0xf0, ANY, 0xf2, NO_66 }, { 2, 0xf1, ANY, 0xf2, 0 }, { 2, 0xf6, ANY, 0x66, 0 },
    { 2, 0xf6, ANY, 0xf3, NO_66 }, { 2, 0xf2, ANY, 0, VEX }, { 2, 0xf7, ANY, 0, VEX }, { 2, 0xf7, ANY, 0x66, VEX },
    { 2, 0xf7, ANY, 0xf2, VEX }, { 2, 0xf7, ANY, 0xf3, VEX }, { 2, 0xf5, ANY, 0, VEX }, { 2, 0xf6, ANY, 0xf2, VEX },
    { 3, 0xf0, ANY, 0xf2, VEX }, { 2, 0xf3, 1, 0, VEX }, { 2, 0xf3, 2, 0, VEX }, { 2, 0xf3, 3, 0, VEX },
};

uint64_t random_next(struct random *r)
{
    /* splitmix64: a counter and a mixing function, so that any seed is as good as another. */
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static unsigned dice(struct random *r, unsigned sides) { return (unsigned)(random_next(r) >> 33) % sides; }

static uint64_t interesting(struct random *r)
{
    static const uint64_t borders[] = { 0,
                                        1,
                                        2,
                                        0x7f,
                                        0x80,
                                        0xff,
                                        0x7fff,
                                        0x8000,
                                        0xffff,
                                        0x7fffffff,
                                        0x80000000,
                                        0xffffffff,
                                        0x7fffffffffffffff,
                                        0x8000000000000000,
                                        ~0ull,
                                        0x80808080 };
    uint64_t value = random_next(r);
    switch (dice(r, 4)) {
    case 0: return borders[dice(r, ARRAY_COUNT(borders))];
    case 1: return value >> dice(r, 64);
    default: return value;
    }
}

void fill_pristine(uint8_t *memory, struct random *r)
{
    for (unsigned at = 0; at < MEMORY_BYTES; at += 8) {
        uint64_t value = interesting(r);
        memcpy(memory + at, &value, 8);
    }
    memset(memory + 0x6000, 0, 0x400); /* runs of equal bytes, for CMPS and SCAS */
    memset(memory + 0x9000, 0x5a, 0x400);
    for (unsigned at = 0; at < 0x200; at += 8) { /* branch targets that are valid offsets in every mode */
        uint64_t value = 0x100 + dice(r, 0xe00);
        memcpy(memory + 0xc000 + at, &value, 8);
    }
    memset(memory + CODE_BASE, 0x90, CODE_BYTES);
}

bool case_identify(struct emu_case *c)
{
    ZydisDecoder decoder;
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth stack;
    } modes[MODE_COUNT] = {
        { ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16 },
        { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
        { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
        { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
    };
    ZydisDecoderInit(&decoder, modes[c->mode].mode, modes[c->mode].stack);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, c->bytes, 15, &c->insn, c->operand)))
        return false;
    /* What emu_effective and emu_segment correct in Zydis's operands. */
    if ((c->insn.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && c->mode != MODE_LONG64)
        c->operand[0].mem.segment = ZYDIS_REGISTER_DS;
    if ((c->insn.attributes & ZYDIS_ATTRIB_HAS_SIB) && c->insn.raw.modrm.mod == 0 && c->insn.raw.sib.base == 5)
        for (unsigned i = 0; i < c->insn.operand_count_visible; i++)
            if (c->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
                c->operand[i].mem.base = ZYDIS_REGISTER_NONE;
                c->operand[i].mem.disp.value = c->insn.raw.disp.value;
            }
    c->length = c->insn.length;
    c->name = ZydisMnemonicGetString(c->insn.mnemonic);
    c->branch = c->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
    return true;
}

static bool is_vector(const struct entry *e)
{
    return (e->map == 2 && e->opcode == 0x2a) ||
           (e->map == 1 && (e->opcode < 0x40 || (e->opcode >= 0x6e && e->opcode < 0x80) || e->opcode == 0xd6 ||
                            e->opcode == 0xe7 || e->opcode == 0xf0));
}

/*
 * Instructions that Unicorn 2.0.1 does not have, or has wrong throughout, are not in the table: POPCNT and MOVBE (its
 * CPUID denies them under every CPU model, and they raise #UD), PDEP and PEXT (source and mask are swapped: of 1000
 * random pairs all gave what a CPU gives for the swapped pair). The unit tests compare them with the host's. Left out
 * in some modes:
 */
static bool left_out(unsigned mode, const struct entry *e)
{
    bool code16 = mode == MODE_REAL16 || mode == MODE_PROT16;
    /* Unicorn knows VEX in 32-bit and 64-bit code only (SDM vol. 2A, 2.3: protected mode of any size). */
    if ((e->flags & VEX) && code16)
        return true;
    /* ADCX, ADOX and all of SSE raise #UD in Unicorn's real mode, where it does not let CR4.OSFXSR be set. */
    if (mode == MODE_REAL16 && e->map == 2 && e->opcode == 0xf6 && e->prefix)
        return true;
    if (is_vector(e) && mode == MODE_REAL16)
        return true;
    /* CRC32 with a 16-bit source: Unicorn takes it from the prefix alone and not from the mode (SDM vol. 1, 3.6.1). */
    return code16 && e->map == 2 && e->opcode == 0xf1;
}

/* Writes prefixes and opcode; returns how many bytes. */
static unsigned assemble(struct emu_case *c, const struct entry *e, struct random *r, bool lock)
{
    uint8_t *b = c->bytes;
    unsigned n = 0;
    bool long64 = c->mode == MODE_LONG64;
    static const uint8_t overrides[] = { 0x26, 0x36, 0x3e, 0x64, 0x65, 0x2e };
    if (lock)
        b[n++] = 0xf0;
    if (dice(r, 6) == 0)
        b[n++] = overrides[dice(r, c->mode == MODE_LONG64 ? 6 : 5)];
    if (dice(r, 8) == 0)
        b[n++] = 0x67;
    if (e->flags & VEX) {
        uint8_t pp = e->prefix == 0x66 ? 1 : e->prefix == 0xf3 ? 2 : e->prefix == 0xf2 ? 3 : 0;
        b[n++] = 0xc4;
        b[n++] = (uint8_t)((long64 ? dice(r, 8) << 5 : 7 << 5) | e->map);
        b[n++] = (uint8_t)((dice(r, 2) << 7) | ((long64 ? dice(r, 16) : 8 + dice(r, 8)) << 3) | pp);
        b[n++] = e->opcode;
        return n;
    }
    if (!(e->flags & NO_66) && e->prefix != 0x66 && dice(r, 4) == 0)
        b[n++] = 0x66;
    if (e->prefix)
        b[n++] = e->prefix;
    else if ((e->flags & REPEATS) && dice(r, 3))
        b[n++] = (uint8_t)(0xf2 + dice(r, 2));
    /* Unicorn takes REX.R of C6 and C7 as part of the opcode and refuses it; a CPU ignores it (seen on an AMD EPYC). */
    bool one_of_group = !e->map && (e->opcode & 0xfe) == 0xc6;
    if (long64 && dice(r, 2))
        b[n++] = (uint8_t)(0x40 | (dice(r, 16) & (one_of_group ? 11 : 15)));
    if (e->map)
        b[n++] = 0x0f;
    if (e->map >= 2)
        b[n++] = e->map == 2 ? 0x38 : 0x3a;
    b[n++] = e->opcode;
    return n;
}

static int gpr_index(ZydisRegister reg)
{
    static const ZydisRegister first[] = { ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_AX };
    for (unsigned i = 0; i < 3; i++)
        if (reg >= first[i] && reg < first[i] + 16)
            return (int)(reg - first[i]);
    return -1;
}

/* Replaces the low `bytes` of a register. */
static void bend(struct emu_case *c, unsigned index, unsigned bytes, uint64_t value)
{
    uint64_t mask = emu_mask(bytes);
    c->gpr[index] = (c->gpr[index] & ~mask) | (value & mask);
}

static uint64_t segment_base(const struct emu_case *c, ZydisRegister seg)
{
    static const uint32_t bases[6] = { 0x400, CODE_BASE, 0x800, 0xc00, 0x1400, 0x1800 };
    if (c->mode == MODE_LONG64 && seg != ZYDIS_REGISTER_FS && seg != ZYDIS_REGISTER_GS)
        return 0;
    return bases[seg - ZYDIS_REGISTER_ES];
}

/* Makes operand `o` point at linear address `target`. */
static bool aim(struct emu_case *c, const ZydisDecodedOperand *o, uint64_t target)
{
    uint64_t offset = target - segment_base(c, o->mem.segment);
    unsigned bytes = c->insn.address_width / 8;
    int base = gpr_index(o->mem.base), index = gpr_index(o->mem.index);
    uint64_t disp = (uint64_t)o->mem.disp.value;
    if (o->mem.segment == ZYDIS_REGISTER_CS && c->mode != MODE_LONG64)
        return false;
    if (base >= 0) {
        if (base == index)
            return false;
        uint64_t indexed = index >= 0 ? (c->gpr[index] & emu_mask(bytes)) * o->mem.scale : 0;
        bend(c, (unsigned)base, bytes, offset - indexed - disp);
        return true;
    }
    if (!c->insn.raw.disp.size)
        return false;
    if (index >= 0) {
        bend(c, (unsigned)index, bytes, c->gpr[index] & 0x3f);
        offset -= (c->gpr[index] & emu_mask(bytes)) * o->mem.scale;
    }
    /* Unicorn forgets the immediate byte of these when it counts from RIP, and is one off (SDM vol. 2A, 2.2.1.6). */
    ZydisMnemonic m = c->insn.mnemonic;
    bool forgets = m == ZYDIS_MNEMONIC_SHLD || m == ZYDIS_MNEMONIC_SHRD || m == ZYDIS_MNEMONIC_RORX;
    if (c->mode == MODE_LONG64 && forgets && o->mem.base != ZYDIS_REGISTER_NONE)
        return false;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        offset -= CODE_BASE + c->ip + c->length;
    memcpy(c->bytes + c->insn.raw.disp.offset, &offset, c->insn.raw.disp.size / 8);
    return case_identify(c);
}

/* Values that make the interesting branch of some instructions likely. */
static bool season(struct emu_case *c, struct random *r, const uint8_t *memory, uint64_t target)
{
    switch (c->insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (c->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY && c->operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int index = gpr_index(c->operand[1].reg.value);
            if (index == gpr_index(c->operand[0].mem.base) || index == gpr_index(c->operand[0].mem.index))
                return false;
            bend(c, (unsigned)index, c->operand[1].size / 8, (uint64_t)dice(r, 0x2000) - 0x1000);
        }
        return true;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        if (c->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY && dice(r, 2)) {
            bool wide = c->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
            if (gpr_index(c->operand[0].mem.base) == GPR_RAX || gpr_index(c->operand[0].mem.index) == GPR_RAX ||
                gpr_index(c->operand[0].mem.base) == GPR_RDX || gpr_index(c->operand[0].mem.index) == GPR_RDX)
                return true;
            memcpy(&c->gpr[GPR_RAX], memory + target, 8);
            memcpy(&c->gpr[GPR_RDX], memory + target + (wide ? 8 : 4), 8);
        }
        return true;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (dice(r, 4) && gpr_index(c->operand[0].mem.base) != GPR_RDX && gpr_index(c->operand[0].mem.index) != GPR_RDX)
            c->gpr[GPR_RDX] = c->insn.mnemonic == ZYDIS_MNEMONIC_IDIV && dice(r, 2) ? ~0ull : dice(r, 3);
        return true;
    default: return true;
    }
}

bool generate_case(struct emu_case *c, unsigned mode, struct random *r, const uint8_t *memory)
{
    const struct entry *e = &table[dice(r, ARRAY_COUNT(table))];
    memset(c, 0, sizeof(*c));
    c->mode = mode;
    bool long64 = c->mode == MODE_LONG64;
    if ((e->flags & (long64 ? NOT64 : ONLY64)) || left_out(mode, e))
        return false;
    bool to_memory = (e->flags & MEMORY) || dice(r, 8) != 0;
    bool lock = (e->flags & LOCKABLE) && to_memory && dice(r, 4) == 0;
    unsigned n = assemble(c, e, r, lock);
    for (unsigned i = n; i < 16; i++)
        c->bytes[i] = (uint8_t)random_next(r);
    if (!(e->flags & NO_MODRM)) {
        unsigned mod = to_memory ? dice(r, 3) : 3, reg = e->reg == ANY ? dice(r, 8) : e->reg;
        c->bytes[n] = (uint8_t)(mod << 6 | reg << 3 | dice(r, 8));
    }
    c->ip = 16 * dice(r, (CODE_BYTES - 32) / 16);
    if (!case_identify(c))
        return false;
    for (unsigned i = c->length; i < 16; i++)
        c->bytes[i] = 0x90;

    for (unsigned i = 0; i < GPR_COUNT; i++)
        c->gpr[i] = interesting(r);
    c->flags = RFLAGS_FIXED | (random_next(r) & (FLAGS_STATUS | RFLAGS_DF | RFLAGS_ID));
    if (!long64)
        for (unsigned i = 0; i < GPR_COUNT; i++)
            c->gpr[i] = i < 8 ? (uint32_t)c->gpr[i] : 0;
    unsigned stack_bytes = long64 ? 8 : c->mode == MODE_PROT32 ? 4 : 2;
    uint64_t stack_base = segment_base(c, ZYDIS_REGISTER_SS);
    if (e->flags & STACK) {
        uint64_t at = (e->flags & WIDE_TARGETS) && (e->flags & NO_MODRM) ? 0xc000 + 8 * dice(r, 60)
                                                                         : DATA_BASE + 0x40 + dice(r, 0x4000);
        bend(c, GPR_RSP, stack_bytes, at - stack_base);
        bend(c, GPR_RBP, long64 ? 8 : 4, DATA_BASE + 0x1000 + dice(r, 0x4000));
    }
    if (e->flags & REPEATS) {
        static const unsigned most[] = { 3, 20, 300 };
        bend(c, GPR_RCX, c->insn.address_width / 8, dice(r, most[dice(r, 3)]));
    }
    uint64_t target = DATA_BASE + 0x400 + dice(r, DATA_END - DATA_BASE - 0x800);
    if (dice(r, 8) == 0)
        target = (target | 0xfff) - dice(r, 9);
    /* Unicorn does not check the alignment of vector moves (SDM vol. 2B, MOVAPS): the unit tests do. */
    if (is_vector(e) || (c->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B && dice(r, 8)))
        target &= ~15ull;
    if ((e->flags & WIDE_TARGETS) && !(e->flags & NO_MODRM))
        target = 0xc000 + 8 * dice(r, 60);
    unsigned operands = c->insn.operand_count;
    for (unsigned i = 0; i < operands; i++) {
        ZydisDecodedOperand o = c->operand[i];
        if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        bool string = e->flags & REPEATS;
        if (o.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && !string)
            continue; /* the stack */
        if (string) {
            static const unsigned places[] = { 0x6000, 0x6100, 0x9000, 0x9200 };
            target = dice(r, 3) ? DATA_BASE + 0x1000 + dice(r, DATA_END - DATA_BASE - 0x2000) : places[dice(r, 4)];
        }
        if (!aim(c, &o, target))
            return false;
    }
    if (c->insn.mnemonic == ZYDIS_MNEMONIC_XLAT)
        bend(c, GPR_RBX, c->insn.address_width / 8,
             target - segment_base(c, ZYDIS_REGISTER_DS) - (c->gpr[GPR_RAX] & 0xff));
    return season(c, r, memory, target);
}
