/* SPDX-License-Identifier: MIT */
/*
 * The emulator against Unicorn: random instructions, registers and memory, in real mode, 16- and 32-bit protected mode
 * and 64-bit mode; every general register, RIP, every defined flag, the vector registers and every byte of memory must
 * come out the same. What Unicorn gets wrong, and what the manuals leave undefined, is masked in differential_masks.c,
 * each line with its proof. Instructions come from the tables in differential_tables.c.
 *
 * usage: emu_vs_unicorn [CASES [SEED]]      emu_vs_unicorn --repro LINE
 *
 * A mismatch prints a line that starts with `repro:`; what follows it runs that one case again. The last line counts.
 */
#include "differential.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicorn/unicorn.h>

/* ---- the two machines ---- */

/* One linear memory each; identical before a case, compared whole after it, put back from the pristine copy. */
static uint8_t pristine[MEMORY_BYTES], ours[MEMORY_BYTES];

#define MAX_WRITES 4096
#define MAX_MISMATCHES 50 /* then the run stops */
static struct {
    uint32_t at, count;
} writes[MAX_WRITES];
static unsigned write_count;
static uint8_t vectors[32][64];

static const int gpr_ids[GPR_COUNT] = {
    UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP,
    UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_R8,  UC_X86_REG_R9,  UC_X86_REG_R10, UC_X86_REG_R11,
    UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15,
};
static const int gpr_ids_32[8] = { UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
                                   UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI };
static const int seg_ids[6] = {
    UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS
};
static const char *const mode_names[MODE_COUNT] = { "real16", "prot16", "prot32", "long64" };

/* Unicorn fills a gigabyte when an engine first runs, so there is one engine at a time. */
struct machine {
    uc_engine *uc;
    uc_context
        *fresh; /* as it was set up: an exception leaves state behind that would turn the next into a double fault */
    uint8_t *memory;
    struct cpu_state state; /* as a case starts, but for registers, flags and RIP */
};
static int interrupt_seen;

static bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    if (!range_within(gpa.v, count, MEMORY_BYTES))
        return false;
    memcpy(bytes, ours + gpa.v, count);
    return true;
}

static bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    if (!range_within(gpa.v, count, MEMORY_BYTES) || write_count == MAX_WRITES)
        return false;
    writes[write_count].at = (uint32_t)gpa.v;
    writes[write_count++].count = (uint32_t)count;
    memcpy(ours + gpa.v, bytes, count);
    return true;
}

static bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count, bool *equal)
{
    if (!range_within(gpa.v, count, MEMORY_BYTES))
        return false;
    *equal = !memcmp(ours + gpa.v, expected, count);
    return !*equal || mem_write(context, gpa, desired, count);
}

static bool vector_read(void *context, unsigned index, uint8_t bytes[64])
{
    (void)context;
    memcpy(bytes, vectors[index], 64);
    return true;
}

static bool vector_write(void *context, unsigned index, const uint8_t bytes[64])
{
    (void)context;
    memcpy(vectors[index], bytes, 64);
    return true;
}

static const struct emu_ops ops = {
    .read = mem_read,
    .write = mem_write,
    .compare_exchange = mem_exchange,
    .vector_read = vector_read,
    .vector_write = vector_write,
};

static void die(const char *what, uc_err error)
{
    fprintf(stderr, "emu_vs_unicorn: %s: %s\n", what, uc_strerror(error));
    exit(2);
}

static void on_interrupt(uc_engine *uc, uint32_t number, void *context)
{
    (void)context;
    interrupt_seen = (int)number;
    uc_emu_stop(uc);
}

/* Segment bases differ from each other, so that a wrong segment is seen as a wrong address. */
static const uint32_t segment_bases[6] = { 0x400, CODE_BASE, 0x800, 0xc00, 0x1400, 0x1800 };

static uint64_t descriptor(uint32_t base, uint32_t units, unsigned access, unsigned flags)
{
    return (units & 0xffff) | ((uint64_t)(base & 0xffffff) << 16) | ((uint64_t)access << 40) |
           ((uint64_t)(units >> 16 & 15) << 48) | ((uint64_t)flags << 52) | ((uint64_t)(base >> 24) << 56);
}

static void set_up_segments(struct machine *m, unsigned mode)
{
    bool wide = mode == MODE_PROT32;
    m->state.cr0 = CR0_ET | (mode == MODE_REAL16 ? 0 : CR0_PE);
    m->state.cr4 = CR4_OSFXSR | CR4_OSXSAVE;
    m->state.xcr0 = 7;
    if (mode == MODE_LONG64)
        m->state.efer = EFER_LME | EFER_LMA;
    for (unsigned i = 0; i < 6; i++) {
        struct segment *seg = &m->state.seg[i];
        bool code = i == SEG_CS;
        seg->base = segment_bases[i];
        if (mode == MODE_REAL16) {
            seg->selector = (uint16_t)(segment_bases[i] >> 4);
            seg->limit = 0xffff;
            seg->attributes = 0x93;
        } else if (mode == MODE_LONG64) {
            seg->base = i >= SEG_FS ? segment_bases[i] : 0;
            seg->limit = 0xffffffff;
            seg->attributes = code ? 0xa09b : 0xc093;
        } else {
            seg->selector = (uint16_t)((i + 1) * 8);
            seg->limit = wide ? 0xffffffff : 0xffff;
            seg->attributes = (code ? 0x9b : 0x93) | (wide ? 0xc000 : 0);
            uint64_t raw = descriptor(segment_bases[i], wide ? 0xfffff : 0xffff, code ? 0x9b : 0x93, wide ? 0xc : 0);
            memcpy(m->memory + GDT_BASE + (i + 1) * 8, &raw, 8);
        }
    }
    m->state.gdtr = (struct table_register){ .base = GDT_BASE, .limit = 63 };
    m->state.seg[SEG_LDTR].attributes = m->state.seg[SEG_TR].attributes = SEG_UNUSABLE;
    if (mode == MODE_LONG64) {
        uc_reg_write(m->uc, UC_X86_REG_FS_BASE, &m->state.seg[SEG_FS].base);
        uc_reg_write(m->uc, UC_X86_REG_GS_BASE, &m->state.seg[SEG_GS].base);
        return;
    }
    if (mode != MODE_REAL16) {
        uc_x86_mmr gdtr = { .base = GDT_BASE, .limit = 63 };
        uc_reg_write(m->uc, UC_X86_REG_GDTR, &gdtr);
    }
    for (unsigned i = 0; i < 6; i++) {
        int selector = m->state.seg[i].selector;
        uc_err e = uc_reg_write(m->uc, seg_ids[i], &selector);
        if (e)
            die("segment register", e);
    }
}

static void machine_open(struct machine *m, unsigned mode)
{
    static const uc_mode uc_modes[MODE_COUNT] = { UC_MODE_16, UC_MODE_32, UC_MODE_32, UC_MODE_64 };
    uc_hook hook;
    memset(m, 0, sizeof(*m));
    uc_err e = uc_open(UC_ARCH_X86, uc_modes[mode], &m->uc);
    if (e)
        die("open", e);
    m->memory = aligned_alloc(4096, MEMORY_BYTES);
    memcpy(m->memory, pristine, MEMORY_BYTES);
    if ((e = uc_mem_map_ptr(m->uc, 0, MEMORY_BYTES, UC_PROT_ALL, m->memory)))
        die("map", e);
    if ((e = uc_hook_add(m->uc, &hook, UC_HOOK_INTR, (void *)on_interrupt, NULL, 1, 0)))
        die("hook", e);
    set_up_segments(m, mode);
    uint64_t cr4 = m->state.cr4;
    uc_reg_write(m->uc, UC_X86_REG_CR4, &cr4);
    if ((e = uc_context_alloc(m->uc, &m->fresh)) || (e = uc_context_save(m->uc, m->fresh)))
        die("context", e);
    memset(m->memory + GDT_BASE, 0, 64);
    memcpy(ours, m->memory, MEMORY_BYTES);
}

static void machine_close(struct machine *m)
{
    uc_context_free(m->fresh);
    uc_close(m->uc);
    free(m->memory);
}

/* ---- one case ---- */

static void load_unicorn(struct machine *m, const struct emu_case *c)
{
    bool wide = c->mode == MODE_LONG64;
    void *values[GPR_COUNT];
    int ids[GPR_COUNT];
    unsigned n = wide ? 16 : 8;
    uint64_t gpr[GPR_COUNT];
    for (unsigned i = 0; i < n; i++) {
        gpr[i] = c->gpr[i];
        ids[i] = wide ? gpr_ids[i] : gpr_ids_32[i];
        values[i] = &gpr[i];
    }
    uint64_t flags = c->flags;
    uc_reg_write_batch(m->uc, ids, values, (int)n);
    uc_reg_write(m->uc, UC_X86_REG_EFLAGS, &flags);
    for (unsigned i = 0; i < n; i++)
        uc_reg_write(m->uc, UC_X86_REG_XMM0 + (int)i, vectors[i]);
}

static bool report(const struct emu_case *c, const char *what, uint64_t our, uint64_t their)
{
    printf("mismatch: %s: %s: ours %" PRIx64 ", Unicorn's %" PRIx64 "\nrepro: ", c->name, what, our, their);
    printf("%s ", mode_names[c->mode]);
    for (unsigned i = 0; i < c->length; i++)
        printf("%02x", c->bytes[i]);
    printf(" %" PRIx64, c->flags);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        printf(" %" PRIx64, c->gpr[i]);
    printf("\n");
    return false;
}

static enum emu_result run_ours(const struct emu_case *c, struct cpu_state *state, struct event *fault)
{
    struct emu emu = { .state = state, .ops = &ops, .physical_bits = 40 };
    enum emu_result result;
    uint64_t rip = state->rip;
    unsigned steps = 0;
    do
        result = emu_step(&emu);
    while (result == EMU_DONE && !c->branch && state->rip == rip && ++steps < 100);
    *fault = emu.fault;
    return result;
}

static void restore_memory(struct machine *m, bool all)
{
    if (all || write_count == MAX_WRITES) {
        memcpy(ours, pristine, MEMORY_BYTES);
        memcpy(m->memory, pristine, MEMORY_BYTES);
    } else {
        for (unsigned i = 0; i < write_count; i++) {
            memcpy(ours + writes[i].at, pristine + writes[i].at, writes[i].count);
            memcpy(m->memory + writes[i].at, pristine + writes[i].at, writes[i].count);
        }
    }
    write_count = 0;
    memset(ours + CODE_BASE, 0x90, CODE_BYTES);
    memset(m->memory + CODE_BASE, 0x90, CODE_BYTES);
}

static bool compare_registers(struct machine *m, const struct emu_case *c, const struct cpu_state *state, bool faulted)
{
    uint64_t value;
    char what[32];
    bool wide = c->mode == MODE_LONG64;
    for (unsigned i = 0; i < (wide ? 16u : 8u); i++) {
        value = 0;
        uc_reg_read(m->uc, wide ? gpr_ids[i] : gpr_ids_32[i], &value);
        uint64_t differs = (value ^ state->gpr[i]) & ~masked_bits(c, i);
        if (wide ? differs : (uint32_t)differs) {
            snprintf(what, sizeof(what), "register %u", i);
            return report(c, what, state->gpr[i], value);
        }
    }
    for (unsigned i = 0; i < (wide ? 16u : 8u); i++) {
        uint8_t xmm[16];
        uc_reg_read(m->uc, UC_X86_REG_XMM0 + (int)i, xmm);
        if (memcmp(xmm, vectors[i], 16)) {
            uint64_t a, b;
            memcpy(&a, vectors[i], 8);
            memcpy(&b, xmm, 8);
            return report(c, "vector register", a, b);
        }
    }
    if (faulted)
        return true;
    value = 0;
    uc_reg_read(m->uc, wide ? UC_X86_REG_RIP : UC_X86_REG_EIP, &value);
    /* After a branch Unicorn reports a linear address where the code segment has a base: count=1 stops it before EIP
     * is. */
    if (value != state->rip && !(c->branch && value == state->rip + state->seg[SEG_CS].base))
        return report(c, "rip", state->rip, value);
    value = 0;
    uc_reg_read(m->uc, UC_X86_REG_EFLAGS, &value);
    uint64_t mask = 0x3f7fd5 & ~RFLAGS_RF & ~masked_flags(c);
    if ((value ^ state->rflags) & mask)
        return report(c, "flags", state->rflags & mask, value & mask);
    return true;
}

enum outcome { SAME, DIFFERENT, SKIPPED };

static enum outcome run_case(struct machine *m, const struct emu_case *c)
{
    uint8_t *theirs = m->memory;
    memcpy(ours + CODE_BASE + c->ip, c->bytes, sizeof(c->bytes));
    memcpy(theirs + CODE_BASE + c->ip, c->bytes, sizeof(c->bytes));
    for (unsigned i = 0; i < 32; i++)
        memcpy(vectors[i], pristine + DATA_BASE + i * 64, 64);

    struct cpu_state state = m->state;
    uint64_t linear = CODE_BASE + c->ip, code_base = m->state.seg[SEG_CS].base;
    memcpy(state.gpr, c->gpr, sizeof(state.gpr));
    state.rflags = c->flags;
    state.rip = linear - code_base;
    load_unicorn(m, c);
    uc_ctl_remove_cache(m->uc, linear, linear + 16);
    interrupt_seen = -1;
    /* Unicorn's uc_emu_start wants a linear address in real mode (it takes CS off) and an offset in protected mode. */
    uint64_t begin = c->mode == MODE_REAL16 ? linear : state.rip;
    uc_err e = uc_emu_start(m->uc, begin, c->branch ? 0 : linear + c->length, 0, c->branch ? 1 : 0);
    struct event fault;
    enum emu_result result = run_ours(c, &state, &fault);

    bool good = true;
    if (result == EMU_RETRY || e == UC_ERR_READ_UNMAPPED || e == UC_ERR_WRITE_UNMAPPED || e == UC_ERR_FETCH_UNMAPPED) {
        /* Unicorn does not check for canonical addresses; there is no memory at others. */
        bool left = result == EMU_RETRY || (result == EMU_FAULT && (fault.vector == EXC_GP || fault.vector == EXC_SS));
        if (left == (e != UC_ERR_OK)) {
            restore_memory(m, true);
            uc_context_restore(m->uc, m->fresh);
            return SKIPPED;
        }
        good = report(c, "unmapped access (emulator result, Unicorn error)", result, e);
    } else if (result == EMU_UNSUPPORTED) {
        good = report(c, "not supported", result, e);
    } else {
        int vector = result == EMU_FAULT ? fault.vector : -1;
        int their_vector = e == UC_ERR_INSN_INVALID ? EXC_UD : interrupt_seen;
        if (vector != their_vector)
            good = report(c, "exception", (uint64_t)(int64_t)vector, (uint64_t)(int64_t)their_vector);
        good = good && compare_registers(m, c, &state, vector >= 0);
        if (good && memcmp(ours, theirs, MEMORY_BYTES)) {
            unsigned at = 0;
            while (ours[at] == theirs[at])
                at++;
            good = report(c, "memory", ours[at], theirs[at]);
            printf("  at linear address %x\n", at);
        }
    }
    restore_memory(m, !good);
    if (e || interrupt_seen >= 0 || !good)
        uc_context_restore(m->uc, m->fresh);
    return good ? SAME : DIFFERENT;
}

/* ---- the program ---- */

static int reproduce(char *line)
{
    struct emu_case c = { 0 };
    char *word = strtok(line, " ");
    for (c.mode = 0; word && c.mode < MODE_COUNT && strcmp(word, mode_names[c.mode]); c.mode++)
        ;
    char *hex = strtok(NULL, " ");
    if (c.mode == MODE_COUNT || !hex)
        return fprintf(stderr, "emu_vs_unicorn: not a line that `repro:` printed\n"), 2;
    memset(c.bytes, 0x90, sizeof(c.bytes));
    for (c.length = 0; hex[2 * c.length] && c.length < 15; c.length++) {
        char digits[3] = { hex[2 * c.length], hex[2 * c.length + 1], 0 };
        c.bytes[c.length] = (uint8_t)strtoul(digits, NULL, 16);
    }
    word = strtok(NULL, " ");
    c.flags = word ? strtoull(word, NULL, 16) : 2;
    for (unsigned i = 0; i < GPR_COUNT && (word = strtok(NULL, " ")); i++)
        c.gpr[i] = strtoull(word, NULL, 16);
    case_identify(&c);
    struct machine m;
    machine_open(&m, c.mode);
    enum outcome outcome = run_case(&m, &c);
    machine_close(&m);
    printf("emu_vs_unicorn: 1 cases, %d mismatches\n", outcome == DIFFERENT);
    return outcome == DIFFERENT;
}

int main(int argc, char **argv)
{
    struct random random = { 0x7a5317 };
    fill_pristine(pristine, &random);
    memset(pristine + GDT_BASE, 0, 64);
    if (argc == 3 && !strcmp(argv[1], "--repro"))
        return reproduce(argv[2]);
    unsigned long cases = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000, done = 0, mismatches = 0, skipped = 0,
                  faults = 0;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    for (unsigned mode = 0; mode < MODE_COUNT && mismatches < MAX_MISMATCHES; mode++) {
        struct machine m;
        unsigned long end = cases * (mode + 1) / MODE_COUNT;
        machine_open(&m, mode);
        random.state = seed * MODE_COUNT + mode;
        random.state = random_next(&random);
        while (done < end && mismatches < MAX_MISMATCHES) {
            struct emu_case c;
            if (!generate_case(&c, mode, &random, pristine))
                continue;
            enum outcome outcome = run_case(&m, &c);
            if (outcome == SKIPPED) {
                skipped++;
                continue;
            }
            done++;
            faults += interrupt_seen >= 0;
            mismatches += outcome == DIFFERENT;
        }
        machine_close(&m);
    }
    printf("seed %" PRIu64 ": %lu cases with an exception, %lu more left out because they left memory on both sides\n",
           seed, faults, skipped);
    printf("emu_vs_unicorn: %lu cases, %lu mismatches\n", done, mismatches);
    return mismatches != 0;
}
