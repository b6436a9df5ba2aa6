/* SPDX-License-Identifier: MIT */
/*
 * The instruction emulator's side of the fault comparison (tests/guests/faults/cases.h): every case on emu_step, with
 * memory laid out as the small guest has it. As a test it checks what needs no other CPU: that the emulator knows every
 * instruction, that both of its page walks agree, that what faults has changed nothing. With --print it tells each
 * outcome, "NAME [CODE]<tab>INDEX OUTCOME", for tests/system/test_faults.py to compare with real CPUs' outcomes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/emulate.h"

#include "tests/guests/faults/cases.c"
#include "tests/guests/faults/cases_fetch.c"
#include "tests/guests/faults/cases_memory.c"
#include "tests/guests/faults/cases_stack.c"
#include "tests/guests/faults/outcome.c"

/* Physical memory: what real mode sees is at its start, tables and pages follow. */
#define MEMORY 0x200000u
#define PML4 0x100000u
#define PDPT 0x101000u
#define DIRECTORY 0x102000u /* of the first GiB */
#define REGION_DIRECTORY 0x103000u
#define REGION 0x104000u
#define PAE_TOP 0x105000u
#define DIRECTORY32 0x106000u
#define REGION32 0x107000u
#define GDT 0x108000u
#define PAGES 0x110000u
#define PHYSICAL_BITS 40
#define MAX_STEPS 10000

static uint8_t memory[MEMORY];
static uint8_t xmm[64];
static const uint64_t page_linear[FAULT_PAGES] = { FAULT_CODE,          FAULT_CODE + 0x1000, FAULT_DATA,
                                                   FAULT_DATA + 0x1000, FAULT_STACK,         FAULT_STACK + 0x1000 };

static bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    if (!range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(bytes, memory + gpa.v, count);
    return true;
}

static bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    if (!range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(memory + gpa.v, bytes, count);
    return true;
}

static bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count, bool *equal)
{
    (void)context;
    if (!range_within(gpa.v, count, MEMORY))
        return false;
    *equal = !memcmp(memory + gpa.v, expected, count);
    if (*equal)
        memcpy(memory + gpa.v, desired, count);
    return true;
}

static const void *mem_peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    return range_within(gpa.v, count, MEMORY) ? memory + gpa.v : NULL;
}

static bool vector_read(void *context, unsigned index, uint8_t bytes[64])
{
    (void)context;
    (void)index;
    memcpy(bytes, xmm, sizeof(xmm));
    return true;
}

static bool vector_write(void *context, unsigned index, const uint8_t bytes[64])
{
    (void)context;
    (void)index;
    (void)bytes;
    return true;
}

/* Ports where nothing is. */
static bool port_in(void *context, uint16_t port, unsigned size, uint32_t *value)
{
    (void)context;
    (void)port;
    *value = UINT32_MAX >> (32 - 8 * size);
    return true;
}

static bool port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    (void)context;
    (void)port;
    (void)size;
    (void)value;
    return true;
}

static struct emu_ops ops = { .read = mem_read, .write = mem_write, .compare_exchange = mem_exchange,
                              .vector_read = vector_read, .vector_write = vector_write,
                              .port_in = port_in, .port_out = port_out };

/* ---- Memory as the guest has it ---- */

static void put64(uint64_t at, uint64_t value) { memcpy(memory + at, &value, 8); }
static void put32(uint64_t at, uint32_t value) { memcpy(memory + at, &value, 4); }

static bool real_like(const struct fault_case *c) { return c->mode == FAULT_REAL || c->mode == FAULT_V86; }

static uint8_t *reach(const struct fault_case *c, uint64_t linear)
{
    if (real_like(c))
        return memory + linear;
    for (unsigned i = 0; i < FAULT_PAGES; i++)
        if (linear - page_linear[i] < 4096)
            return memory + PAGES + i * 4096 + (linear - page_linear[i]);
    abort();
}

static const uint8_t *memory_at(void *context, uint64_t linear) { return reach(context, linear); }

static void set_tables(const struct fault_case *c)
{
    put64(PML4, PDPT | 7);
    put64(PDPT, DIRECTORY | 7);
    put64(PDPT + 8, REGION_DIRECTORY | 7);
    put64(DIRECTORY, 0x83);
    put64(REGION_DIRECTORY, REGION | 7);
    put64(PAE_TOP, DIRECTORY | 1);
    put64(PAE_TOP + 8, REGION_DIRECTORY | 1);
    put32(DIRECTORY32, 0x83);
    put32(DIRECTORY32 + 4 * (FAULT_CODE >> 22), REGION32 | 7);
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        uint64_t index = (page_linear[i] - FAULT_CODE) >> 12, at = PAGES + i * 4096;
        put64(REGION + 8 * index, c->pte[i] ? at | c->pte[i] : 0);
        put32(REGION32 + 4 * index, c->pte[i] ? (uint32_t)(at | (c->pte[i] & 0xfff)) : 0);
    }
    memset(memory + GDT, 0, FAULT_GDT_LIMIT + 1);
    for (unsigned i = 0; i < LOADABLE_COUNT; i++)
        put64(GDT + FAULT_LOADABLE_SELECTOR(i), fault_descriptors[i]);
}

static void set_memory(const struct fault_case *c)
{
    bool flat = c->seg[FAULT_CS].base == 0;
    uint64_t offset = c->rip - (flat ? FAULT_CODE : 0), base = real_like(c) ? REAL_CODE : FAULT_CODE;
    uint64_t room = real_like(c) ? 0x10000 : FAULT_REGION_BYTES;
    for (unsigned i = PAGE_DATA; i < FAULT_PAGES; i++)
        for (unsigned at = 0; at < 4096; at++)
            memory[PAGES + i * 4096 + at] = fault_pattern(page_linear[i] + at);
    memset(reach(c, base), 0xcc, room);
    for (unsigned i = 0; i < c->code_bytes && offset + i < room; i++)
        *reach(c, base + offset + i) = c->code[i];
    unsigned windows;
    const struct fault_window *window = fault_windows(c->mode, &windows);
    for (unsigned i = 0; i < windows; i++)
        for (uint32_t at = 0; at < window[i].bytes; at++)
            *reach(c, window[i].linear + at) = fault_pattern(window[i].linear + at);
    for (unsigned i = 0; i < 8 && c->target_at; i++)
        *reach(c, c->target_at + i) = (uint8_t)(FAULT_TARGET(c) >> 8 * i);
}

static void set_state(struct cpu_state *s, const struct fault_case *c)
{
    bool long_mode = c->mode <= FAULT_COMPAT16, paged = !real_like(c);
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, c->gpr, sizeof(s->gpr));
    s->rip = c->rip;
    s->rflags = c->rflags | (c->mode == FAULT_V86 ? RFLAGS_VM : 0);
    s->cr0 = CR0_ET | CR0_NE | (c->mode == FAULT_REAL ? 0 : CR0_PE) | (paged ? CR0_PG : 0) |
             (c->switches & FAULT_WP ? CR0_WP : 0) | (c->switches & FAULT_AM ? CR0_AM : 0);
    s->cr4 = CR4_OSFXSR | CR4_PSE | (long_mode || c->mode == FAULT_PAE ? CR4_PAE : 0) |
             (c->switches & FAULT_SMEP ? CR4_SMEP : 0) | (c->switches & FAULT_SMAP ? CR4_SMAP : 0) |
             (c->switches & FAULT_PKE ? CR4_PKE : 0);
    s->cr3 = long_mode ? PML4 : c->mode == FAULT_PAE ? PAE_TOP : DIRECTORY32;
    s->efer = EFER_NXE | (long_mode ? EFER_LME | EFER_LMA : 0);
    s->pkru = c->pkru;
    s->gdtr = (struct table_register){ GDT, FAULT_GDT_LIMIT };
    s->seg[SEG_LDTR].attributes = s->seg[SEG_TR].attributes = SEG_UNUSABLE;
    for (unsigned i = 0; i < FAULT_SEGMENTS; i++)
        s->seg[i] = (struct segment){
            .base = c->seg[i].base,
            .limit = c->seg[i].limit,
            .attributes = c->seg[i].attributes ? c->seg[i].attributes : SEG_UNUSABLE | c->cpl << SEG_DPL_SHIFT,
            .selector = fault_selector(c, i),
        };
}

/* ---- One case ---- */

static void carry_out(const struct fault_case *c, struct fault_result *r)
{
    struct cpu_state state;
    set_tables(c);
    set_memory(c);
    set_state(&state, c);
    *r = (struct fault_result){ .vector = FAULT_UNSUPPORTED };
    for (unsigned steps = 0; steps < MAX_STEPS; steps++) {
        struct emu emu = { .state = &state, .ops = &ops, .physical_bits = PHYSICAL_BITS };
        enum emu_result result = emu_step(&emu);
        if (result == EMU_DONE && state.pending.type == EVENT_NONE)
            continue;
        if (result == EMU_DONE || result == EMU_FAULT) {
            const struct event *e = result == EMU_DONE ? &state.pending : &emu.fault;
            r->vector = e->vector;
            r->error = e->has_error ? e->error : 0;
            r->cr2 = e->cr2;
        } else if (steps > 0 && emu.byte_count && emu.bytes[0] == 0xcc) {
            r->vector = FAULT_DONE;
        }
        break;
    }
    r->rip = state.rip;
    r->rflags = state.rflags;
    memcpy(r->gpr, state.gpr, sizeof(r->gpr));
    for (unsigned i = 0; i < FAULT_SEGMENTS; i++)
        r->selector[i] = state.seg[i].selector;
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        uint64_t index = (page_linear[i] - FAULT_CODE) >> 12;
        if (c->mode == FAULT_2LEVEL)
            memcpy(&r->pte[i], memory + REGION32 + 4 * index, 4);
        else
            memcpy(&r->pte[i], memory + REGION + 8 * index, 8);
    }
}

/* ---- As a test ---- */

static void known_to_the_emulator(void *context, unsigned index, const struct fault_case *c)
{
    struct fault_result r;
    (void)index;
    carry_out(c, &r);
    if (r.vector == FAULT_UNSUPPORTED) {
        print_error("%s: the emulator does not know it\n", c->name);
        ++*(unsigned *)context;
    }
}

static void knows_every_instruction(void **unused)
{
    unsigned unknown = 0;
    (void)unused;
    assert_true(fault_cases(known_to_the_emulator, &unknown) > 1000);
    assert_int_equal(unknown, 0);
}

static void walked_alike(void *context, unsigned index, const struct fault_case *c)
{
    struct fault_result with, without;
    (void)index;
    ops.peek = mem_peek;
    carry_out(c, &with);
    ops.peek = NULL;
    carry_out(c, &without);
    if (memcmp(&with, &without, sizeof(with))) {
        print_error("%s: the quick page walk and the thorough one differ\n", c->name);
        ++*(unsigned *)context;
    }
}

static void page_walks_agree(void **unused)
{
    unsigned different = 0;
    (void)unused;
    (void)fault_cases(walked_alike, &different);
    assert_int_equal(different, 0);
}

static void traceless(void *context, unsigned index, const struct fault_case *c)
{
    struct fault_result r;
    unsigned windows, changed = 0;
    const struct fault_window *window = fault_windows(c->mode, &windows);
    (void)index;
    carry_out(c, &r);
    /* A repeated instruction has done what came before; one that succeeded may end where no INT3 can be fetched. */
    if (r.vector < 0 || r.vector == EXC_DB || strstr(c->name, "/rep") || r.rip != c->rip)
        return;
    for (unsigned i = 0; i < windows; i++)
        for (uint32_t at = 0; at < window[i].bytes; at++)
            if (window[i].linear + at - c->target_at >= 8)
                changed += *reach(c, window[i].linear + at) != fault_pattern(window[i].linear + at);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        changed += r.gpr[i] != c->gpr[i];
    changed += ((r.rflags ^ c->rflags) & ~(uint64_t)RFLAGS_VM) != 0;
    for (unsigned i = PAGE_DATA; i < FAULT_PAGES; i++)
        changed += (r.pte[i] & 0x40) != 0;
    if (changed) {
        print_error("%s: faulted and left a trace\n", c->name);
        ++*(unsigned *)context;
    }
}

static void faults_leave_no_trace(void **unused)
{
    unsigned marked = 0;
    (void)unused;
    (void)fault_cases(traceless, &marked);
    assert_int_equal(marked, 0);
}

struct names { char (*name)[sizeof(((struct fault_case *)0)->name)]; };

static void keep_name(void *context, unsigned index, const struct fault_case *c)
{
    struct names *names = context;
    names->name = realloc(names->name, (index + 1) * sizeof(*names->name));
    assert_non_null(names->name);
    memcpy(names->name[index], c->name, sizeof(c->name));
}

static int compare_names(const void *a, const void *b) { return strcmp(a, b); }

static void names_are_unique(void **unused)
{
    struct names names = { NULL };
    (void)unused;
    unsigned count = fault_cases(keep_name, &names), twice = 0;
    qsort(names.name, count, sizeof(*names.name), compare_names);
    for (unsigned i = 1; i < count; i++)
        if (!strcmp(names.name[i], names.name[i - 1])) {
            print_error("%s: is there twice\n", names.name[i]);
            twice++;
        }
    free(names.name);
    assert_int_equal(twice, 0);
}

/* ---- As a program ---- */

static void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}

static void tell(void *context, unsigned index, const struct fault_case *c)
{
    struct fault_result r;
    (void)context;
    carry_out(c, &r);
    printf("%s [", c->name);
    for (unsigned i = 0; i < c->code_bytes; i++)
        printf("%02x", c->code[i]);
    printf("]\t");
    fault_print(c, index, &r, memory_at, (void *)c, print);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_every_instruction),
        cmocka_unit_test(page_walks_agree),
        cmocka_unit_test(faults_leave_no_trace),
        cmocka_unit_test(names_are_unique),
    };
    if (argc > 1 && !strcmp(argv[1], "--print")) {
        ops.peek = mem_peek;
        (void)fault_cases(tell, NULL);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
