/* SPDX-License-Identifier: MIT */
/*
 * The emulator where Unicorn cannot judge it: faults of every kind and that they leave no trace, segments, paging across a
 * page's end, single-stepping, repeated instructions that stop and go on, ports, locked operations under contention,
 * instruction lengths, and the instructions that Unicorn lacks (against this machine's own CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/emulate.h"
#include "vmm/emulate_alu.h"
#include "vmm/emulate_internal.h"

#define MEMORY 0x20000u
#define CODE 0x8000u
#define DATA 0x9000u
#define GDT 0x400u
#define TSS 0x600u

static uint8_t memory[MEMORY];
static struct cpu_state state, before;
static struct emu emu;
static unsigned reads, writes, exchanges, contention;
static size_t last_count;
static uint32_t last_port, port_value, port_accesses;
static uint8_t vector[64];
static bool memory_gone;

static bool mem_read(void *context, gpa_t gpa, void *bytes, size_t count)
{
    (void)context;
    assert_true(count >= 1 && count <= 64 && (gpa.v & 0xfff) + count <= 0x1000);
    reads++;
    last_count = count;
    if (memory_gone || !range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(bytes, memory + gpa.v, count);
    return true;
}

static bool mem_write(void *context, gpa_t gpa, const void *bytes, size_t count)
{
    (void)context;
    assert_true(count >= 1 && count <= 64 && (gpa.v & 0xfff) + count <= 0x1000);
    writes++;
    last_count = count;
    if (memory_gone || !range_within(gpa.v, count, MEMORY))
        return false;
    memcpy(memory + gpa.v, bytes, count);
    return true;
}

static bool mem_exchange(void *context, gpa_t gpa, const void *expected, const void *desired, size_t count, bool *equal)
{
    (void)context;
    exchanges++;
    if (contention) {
        contention--;
        memory[gpa.v]++; /* another vCPU was faster */
    }
    *equal = !memcmp(memory + gpa.v, expected, count);
    if (*equal)
        memcpy(memory + gpa.v, desired, count);
    return true;
}

static bool port_in(void *context, uint16_t port, unsigned size, uint32_t *value)
{
    (void)context;
    (void)size;
    last_port = port;
    port_accesses++;
    *value = port_value++;
    return true;
}

static bool port_out(void *context, uint16_t port, unsigned size, uint32_t value)
{
    (void)context;
    (void)size;
    last_port = port;
    port_accesses++;
    port_value = value;
    return true;
}

static bool vector_get(void *context, unsigned index, uint8_t bytes[64])
{
    (void)context;
    (void)index;
    memcpy(bytes, vector, 64);
    return true;
}

static bool vector_put(void *context, unsigned index, const uint8_t bytes[64])
{
    (void)context;
    (void)index;
    memcpy(vector, bytes, 64);
    return true;
}

static const void *mem_peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    return range_within(gpa.v, count, MEMORY) ? memory + gpa.v : NULL;
}

static struct emu_ops ops;

static void set_segment(enum seg seg, uint32_t base, uint32_t limit, uint32_t attributes)
{
    state.seg[seg] = (struct segment){ .base = base, .limit = limit, .attributes = attributes };
}

/* 64-bit code, unpaged for the walk's sake (CR0.PG clear): linear is physical. */
static int mode_long(void **unused)
{
    (void)unused;
    memset(memory, 0, sizeof(memory));
    memset(&state, 0, sizeof(state));
    ops = (struct emu_ops){ .read = mem_read, .write = mem_write, .compare_exchange = mem_exchange, .port_in = port_in,
                            .port_out = port_out, .vector_read = vector_get, .vector_write = vector_put };
    reads = writes = exchanges = contention = port_accesses = 0;
    memory_gone = false;
    port_value = 0x41;
    state.cr0 = CR0_PE;
    state.efer = EFER_LME | EFER_LMA;
    state.rflags = RFLAGS_FIXED;
    for (unsigned i = 0; i < 6; i++)
        set_segment((enum seg)i, 0, 0xffffffff, 0xc093);
    state.seg[SEG_CS].attributes = 0xa09b;
    state.seg[SEG_LDTR].attributes = SEG_UNUSABLE;
    set_segment(SEG_TR, TSS, 0x67, 0x8b);
    state.rip = CODE;
    state.gdtr = (struct table_register){ .base = GDT, .limit = 0x7f };
    return 0;
}

static int mode_protected(void **unused)
{
    mode_long(unused);
    state.efer = 0;
    state.seg[SEG_CS].attributes = 0xc09b;
    return 0;
}

static int mode_real(void **unused)
{
    mode_long(unused);
    state.efer = 0;
    state.cr0 = 0;
    for (unsigned i = 0; i < 6; i++)
        set_segment((enum seg)i, 0, 0xffff, 0x93);
    return 0;
}

/* Identity-mapped pages of 4 KiB in four levels; page 0xb000 is missing, 0xd000 is read-only. */
#define PT 0x4000
static int mode_paged(void **unused)
{
    mode_long(unused);
    static const uint64_t tables[] = { 0x1000, 0x2000, 0x3000, PT };
    for (unsigned i = 0; i < 3; i++) {
        uint64_t entry = tables[i + 1] | 7;
        memcpy(memory + tables[i], &entry, 8);
    }
    for (uint64_t page = 0; page < MEMORY; page += 0x1000) {
        uint64_t entry = page | (page == 0xb000 ? 0 : page == 0xd000 ? 5 : 7);
        memcpy(memory + PT + page / 512, &entry, 8);
    }
    state.cr3 = 0x1000;
    state.cr4 = CR4_PAE;
    state.cr0 = CR0_PE | CR0_PG | CR0_WP;
    return 0;
}

static uint64_t leaf(uint64_t page)
{
    uint64_t entry;
    memcpy(&entry, memory + PT + page / 512, 8);
    return entry;
}

/* Puts the bytes at CS:RIP and steps once. */
#define RUN(...)                                                                                                          \
    run((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
static enum emu_result run(const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memory[(state.seg[SEG_CS].base + state.rip + i) % MEMORY] = bytes[i];
    before = state;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    return emu_step(&emu);
}

static void store(uint64_t at, uint64_t value, unsigned bytes) { memcpy(memory + at, &value, bytes); }
static uint64_t fetch(uint64_t at, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, memory + at, bytes);
    return value;
}

static void assert_exception(enum emu_result result, unsigned exception, bool has_error, unsigned error)
{
    assert_int_equal(result, EMU_FAULT);
    assert_int_equal(emu.fault.type, EVENT_EXCEPTION);
    assert_int_equal(emu.fault.vector, exception);
    assert_int_equal(emu.fault.has_error, has_error);
    assert_int_equal(emu.fault.error, error);
    assert_memory_equal(&state, &before, sizeof(state));
}

/* ---- moves and what reaches a device ---- */

static void device_sees_access_sizes(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    state.gpr[GPR_RAX] = 0x1122334455667788;
    assert_int_equal(RUN(0x88, 0x03), EMU_DONE); /* mov [rbx], al */
    assert_int_equal(last_count, 1);
    assert_int_equal(RUN(0x66, 0x89, 0x03), EMU_DONE);
    assert_int_equal(last_count, 2);
    assert_int_equal(RUN(0x89, 0x03), EMU_DONE);
    assert_int_equal(last_count, 4);
    assert_int_equal(RUN(0x48, 0x89, 0x03), EMU_DONE);
    assert_int_equal(last_count, 8);
    assert_int_equal(writes, 4);
    assert_int_equal(state.rip, CODE + 2 + 3 + 2 + 3);
    assert_int_equal(fetch(DATA, 8), 0x1122334455667788);
    assert_int_equal(RUN(0x0f, 0xb6, 0x0b), EMU_DONE); /* movzx ecx, byte [rbx] */
    assert_int_equal(last_count, 1);
    assert_int_equal(state.gpr[GPR_RCX], 0x88);
    assert_int_equal(emu.length, 3);
    assert_int_equal(RUN(0x48, 0x0f, 0xbe, 0x0b), EMU_DONE); /* movsx rcx, byte [rbx] */
    assert_int_equal(state.gpr[GPR_RCX], (uint64_t)-0x78);
    assert_int_equal(RUN(0x8a, 0x23), EMU_DONE); /* mov ah, [rbx] */
    assert_int_equal(state.gpr[GPR_RAX], 0x1122334455668888);
    assert_int_equal(RUN(0x40, 0x8a, 0x23), EMU_DONE); /* mov spl, [rbx] */
    assert_int_equal(state.gpr[GPR_RSP], 0x88);
    state.gpr[GPR_RCX] = ~0ull;
    assert_int_equal(RUN(0x8b, 0x0b), EMU_DONE);
    assert_int_equal(state.gpr[GPR_RCX], 0x55667788);
}

static void given_bytes_are_used(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40, .bytes = { 0xc6, 0x03, 0x7f }, .byte_count = 3 };
    assert_int_equal(emu_step(&emu), EMU_DONE);
    assert_int_equal(memory[DATA], 0x7f);
    assert_int_equal(reads, 0);
    /* Fewer than the instruction has: the rest is fetched. */
    memory[CODE + 5] = 0x99;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40, .bytes = { 0xc6, 0x03 }, .byte_count = 2 };
    assert_int_equal(emu_step(&emu), EMU_DONE);
    assert_int_equal(memory[DATA], 0x99);
}

static void unknown_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(RUN(0xd8, 0x03), EMU_UNSUPPORTED); /* fadd [rbx] */
    assert_memory_equal(&state, &before, sizeof(state));
    assert_int_equal(emu.length, 2);
    assert_exception(RUN(0x0f, 0xff, 0xc0), EXC_UD, false, 0); /* UD0 */
    assert_exception(RUN(0x0f, 0x0b), EXC_UD, false, 0);       /* UD2 */
    assert_exception(RUN(0x06), EXC_UD, false, 0);             /* PUSH ES in 64-bit mode */
}

static void retry_leaves_no_trace(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = MEMORY + 0x1000;
    assert_int_equal(RUN(0xff, 0x03), EMU_RETRY); /* inc dword [rbx] */
    assert_memory_equal(&state, &before, sizeof(state));
    state.gpr[GPR_RBX] = DATA;
    memory[CODE] = 0xff;
    memory[CODE + 1] = 0x03;
    memory_gone = true;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40, .bytes = { 0xff, 0x03 }, .byte_count = 2 };
    assert_int_equal(emu_step(&emu), EMU_RETRY);
}

/* ---- faults ---- */

static void non_canonical_addresses(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = 0x7ffffffffffe; /* the last two bytes of the lower half: four do not fit */
    assert_exception(RUN(0x8b, 0x03), EXC_GP, true, 0);
    state.gpr[GPR_RBX] = 0x800000000000;
    assert_exception(RUN(0x8b, 0x03), EXC_GP, true, 0);
    state.gpr[GPR_RBP] = 0x800000000000;
    assert_exception(RUN(0x8b, 0x45, 0x00), EXC_SS, true, 0); /* [rbp] is in SS */
    assert_exception(RUN(0x64, 0x8b, 0x45, 0x00), EXC_GP, true, 0);
    state.gpr[GPR_RSP] = 0xffff800000000000;
    assert_exception(RUN(0xff, 0x33), EXC_GP, true, 0); /* push [rbx]: the source is first */
    state.gpr[GPR_RBX] = DATA;
    assert_exception(RUN(0xff, 0x33), EXC_SS, true, 0);
    store(DATA, 0x1234800000000000, 8);
    state.gpr[GPR_RSP] = DATA + 0x100;
    assert_exception(RUN(0xff, 0x13), EXC_GP, true, 0); /* call [rbx] to nowhere pushes nothing */
    assert_int_equal(writes, 0);
}

static void page_faults(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = 0xb010;
    assert_exception(RUN(0x8b, 0x03), EXC_PF, true, 0);
    assert_int_equal(emu.fault.cr2, 0xb010);
    assert_exception(RUN(0x89, 0x03), EXC_PF, true, 2);
    assert_exception(RUN(0xff, 0x03), EXC_PF, true, 2); /* a read-modify-write counts as a write */
    state.gpr[GPR_RBX] = 0xd000;
    assert_exception(RUN(0x89, 0x03), EXC_PF, true, 3);
    assert_exception(RUN(0xff, 0x03), EXC_PF, true, 3);
    assert_exception(RUN(0x0f, 0xb1, 0x03), EXC_PF, true, 3); /* cmpxchg needs the right even if it will not store */
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
    assert_int_equal(writes, 0);
}

static void second_page_faults(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = 0xaffd;
    state.gpr[GPR_RAX] = 0x11223344;
    assert_exception(RUN(0x89, 0x03), EXC_PF, true, 2);
    assert_int_equal(emu.fault.cr2, 0xb000); /* the first byte that is missing */
    assert_int_equal(leaf(0xa000) & 0x60, 0); /* not even the first page's bits */
    assert_int_equal(fetch(0xaffd, 3), 0);
    state.gpr[GPR_RBX] = 0xbffe; /* both sides in order: the lower one is reported */
    assert_exception(RUN(0x89, 0x03), EXC_PF, true, 2);
    assert_int_equal(emu.fault.cr2, 0xbffe);
    state.gpr[GPR_RBX] = 0x9ffd;
    assert_int_equal(RUN(0x89, 0x03), EMU_DONE);
    assert_int_equal(writes, 2);
    assert_int_equal(fetch(0x9ffd, 4), 0x11223344);
    assert_int_equal(leaf(0x9000) & 0x60, 0x60);
    assert_int_equal(leaf(0xa000) & 0x60, 0x60);
}

static void fetch_faults(void **unused)
{
    (void)unused;
    state.rip = 0xaffe;
    state.gpr[GPR_RBX] = DATA;
    assert_int_equal(RUN(0x89, 0x03), EMU_DONE); /* ends with the page: the next one is not looked at */
    state.rip = 0xaffd;
    store(0xaffd, 0x0003c7, 3); /* mov dword [rbx], imm32 goes on there */
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    before = state;
    assert_exception(emu_step(&emu), EXC_PF, true, 0);
    assert_int_equal(emu.fault.cr2, 0xb000);
    state.rip = CODE;
    memset(memory + CODE, 0x66, 15); /* too long to be one */
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    before = state;
    assert_exception(emu_step(&emu), EXC_GP, true, 0);
}

static void segment_rights(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    state.gpr[GPR_RBP] = DATA;
    state.seg[SEG_DS].attributes = 0xc091; /* read-only */
    assert_exception(RUN(0x89, 0x03), EXC_GP, true, 0);
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
    assert_exception(RUN(0x2e, 0x89, 0x03), EXC_GP, true, 0); /* code is never written */
    state.seg[SEG_CS].attributes = 0xc099;                    /* execute-only */
    assert_exception(RUN(0x2e, 0x8b, 0x03), EXC_GP, true, 0);
    state.seg[SEG_DS].attributes = SEG_UNUSABLE;
    assert_exception(RUN(0x8b, 0x03), EXC_GP, true, 0);
    state.seg[SEG_SS].attributes = SEG_UNUSABLE;
    assert_exception(RUN(0x8b, 0x45, 0x00), EXC_SS, true, 0);
}

static void segment_limits(void **unused)
{
    (void)unused;
    set_segment(SEG_DS, 0x1000, DATA + 2, 0x4093);
    state.gpr[GPR_RBX] = DATA;
    assert_exception(RUN(0x8b, 0x03), EXC_GP, true, 0);
    state.gpr[GPR_RBX] = DATA - 1;
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
    /* Expand-down: what is above the limit, to 4 GiB or to 64 KiB. */
    set_segment(SEG_DS, 0, DATA - 1, 0x4097);
    assert_exception(RUN(0x8b, 0x03), EXC_GP, true, 0);
    state.gpr[GPR_RBX] = DATA;
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
    set_segment(SEG_SS, 0, DATA - 1, 0x0097);
    state.gpr[GPR_RBP] = 0xfffd;
    assert_exception(RUN(0x8b, 0x45, 0x00), EXC_SS, true, 0);
    /* Linear addresses wrap at 4 GiB. */
    set_segment(SEG_DS, 0xffffff00, 0xffffffff, 0xc093);
    state.gpr[GPR_RBX] = DATA + 0x100;
    store(DATA, 0xabcdef01, 4);
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
    assert_int_equal(state.gpr[GPR_RAX], 0xabcdef01);
}

static void real_mode_limits(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = 0xffff;
    assert_exception(RUN(0x8b, 0x07), EXC_GP, false, 0); /* mov ax, [bx]: no error code in real mode */
    state.gpr[GPR_RBP] = 0xffff;
    assert_exception(RUN(0x8b, 0x46, 0x00), EXC_SS, false, 0);
    assert_int_equal(RUN(0x8a, 0x07), EMU_DONE);
    state.gpr[GPR_RBX] = 0x4000;
    state.gpr[GPR_RSI] = 0xc100; /* [bx+si] wraps within the segment */
    memory[0x100] = 0x5c;
    assert_int_equal(RUN(0x8a, 0x00), EMU_DONE);
    assert_int_equal(state.gpr[GPR_RAX] & 0xff, 0x5c);
    /* Code segments are written in real mode, as all are. */
    assert_int_equal(RUN(0x2e, 0x88, 0x07), EMU_DONE);
    /* Virtual-8086 mode has the same limits, and error codes. */
    state.cr0 = CR0_PE;
    state.rflags |= RFLAGS_VM;
    state.gpr[GPR_RBX] = 0xffff;
    assert_exception(RUN(0x8b, 0x07), EXC_GP, true, 0);
}

static void rip_wraps(void **unused)
{
    (void)unused;
    state.rip = 0xfffe;
    state.gpr[GPR_RBX] = DATA;
    assert_int_equal(RUN(0x88, 0x07), EMU_DONE);
    assert_int_equal(state.rip, 0);
    state.rip = 0xffff; /* an instruction that would go past the limit */
    assert_exception(RUN(0x88, 0x07), EXC_GP, false, 0);
}

static void alignment_check(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA + 1;
    state.cr0 |= CR0_AM;
    state.rflags |= RFLAGS_AC;
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE); /* not at CPL 0 */
    state.seg[SEG_SS].attributes |= 3 << SEG_DPL_SHIFT;
    assert_exception(RUN(0x8b, 0x03), EXC_AC, true, 0);
    assert_int_equal(RUN(0x8a, 0x03), EMU_DONE);
    state.rflags &= ~RFLAGS_AC;
    assert_int_equal(RUN(0x8b, 0x03), EMU_DONE);
}

static void wide_operands_align(void **unused)
{
    (void)unused;
    state.cr4 |= CR4_OSFXSR;
    state.gpr[GPR_RBX] = DATA + 8;
    assert_exception(RUN(0x48, 0x0f, 0xc7, 0x0b), EXC_GP, true, 0); /* cmpxchg16b */
    assert_exception(RUN(0x0f, 0x29, 0x03), EXC_GP, true, 0);       /* movaps */
    assert_int_equal(RUN(0x0f, 0x11, 0x03), EMU_DONE);              /* movups */
    assert_int_equal(last_count, 16);
    state.cr0 |= CR0_TS;
    assert_exception(RUN(0x0f, 0x11, 0x03), EXC_NM, false, 0);
    state.cr4 = 0;
    assert_exception(RUN(0x0f, 0x11, 0x03), EXC_UD, false, 0);
    ops.vector_read = NULL;
    assert_int_equal(RUN(0x0f, 0x11, 0x03), EMU_UNSUPPORTED);
}

/* A VEX load clears the register above, a legacy one does not; 32 bytes go in one access. */
static void vector_upper_halves(void **unused)
{
    (void)unused;
    state.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    state.gpr[GPR_RBX] = DATA;
    memset(memory + DATA, 0x22, 64);
    memset(vector, 0x11, sizeof(vector));
    assert_int_equal(RUN(0xf3, 0x0f, 0x10, 0x03), EMU_DONE); /* movss xmm0, [rbx] */
    assert_int_equal(vector[3], 0x22);
    assert_int_equal(vector[4], 0);
    assert_int_equal(vector[15], 0);
    assert_int_equal(vector[16], 0x11);
    assert_exception(RUN(0xc5, 0xfc, 0x10, 0x03), EXC_UD, false, 0); /* vmovups without XCR0 */
    state.xcr0 = 7;
    assert_int_equal(RUN(0xc5, 0xfc, 0x10, 0x03), EMU_DONE);
    assert_int_equal(last_count, 32);
    assert_int_equal(vector[31], 0x22);
    assert_int_equal(vector[32], 0);
}

static void divide_errors(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    state.gpr[GPR_RDX] = 5;
    assert_exception(RUN(0xf7, 0x33), EXC_DE, false, 0); /* by 0 */
    store(DATA, 5, 4);
    assert_exception(RUN(0xf7, 0x33), EXC_DE, false, 0); /* the quotient does not fit */
    state.gpr[GPR_RDX] = 0xffffffff;
    state.gpr[GPR_RAX] = 0x80000000;
    store(DATA, 0xffffffff, 4);
    assert_exception(RUN(0xf7, 0x3b), EXC_DE, false, 0); /* -2^31 / -1 */
}

/* ---- locked operations ---- */

static void locked_operations(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    state.gpr[GPR_RAX] = 5;
    contention = 3;
    assert_int_equal(RUN(0xf0, 0x01, 0x03), EMU_DONE); /* lock add [rbx], eax */
    assert_int_equal(exchanges, 4);
    assert_int_equal(fetch(DATA, 4), 8); /* three times incremented by the other one, and 5 */
    assert_int_equal(writes, 0);
    assert_int_equal(RUN(0x87, 0x03), EMU_DONE); /* xchg locks by itself */
    assert_int_equal(exchanges, 5);
    assert_int_equal(state.gpr[GPR_RAX], 8);
    contention = 1000;
    assert_int_equal(RUN(0xf0, 0xff, 0x03), EMU_RETRY); /* bounded */
    assert_memory_equal(&state, &before, sizeof(state));
    contention = 0;
    assert_exception(RUN(0xf0, 0x01, 0xc3), EXC_UD, false, 0); /* a register cannot be locked */
    assert_exception(RUN(0xf0, 0x89, 0x03), EXC_UD, false, 0); /* nor a MOV */
    assert_exception(RUN(0xf0, 0x3b, 0x03), EXC_UD, false, 0);
}

/* ---- what follows an instruction ---- */

static void single_step_and_shadows(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    state.rflags |= RFLAGS_TF | RFLAGS_RF;
    state.interruptibility = INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI;
    assert_int_equal(RUN(0x89, 0x03), EMU_DONE);
    assert_int_equal(state.pending.type, EVENT_EXCEPTION);
    assert_int_equal(state.pending.vector, EXC_DB);
    assert_false(state.pending.has_error);
    assert_true(state.dr6 & BIT(14));
    assert_false(state.rflags & RFLAGS_RF);
    assert_true(state.rflags & RFLAGS_TF);
    assert_int_equal(state.interruptibility, INTERRUPTIBILITY_NMI);
    /* A fault takes precedence and shows nothing of it. */
    memset(&state.pending, 0, sizeof(state.pending));
    state.gpr[GPR_RBX] = 0x800000000000;
    assert_exception(RUN(0x89, 0x03), EXC_GP, true, 0);
    /* Branch stepping: only branches trap. */
    state.debugctl = 2;
    state.gpr[GPR_RBX] = DATA;
    assert_int_equal(RUN(0x89, 0x03), EMU_DONE);
    assert_int_equal(state.pending.type, EVENT_NONE);
    store(DATA, CODE, 8);
    assert_int_equal(RUN(0xff, 0x23), EMU_DONE);
    assert_int_equal(state.pending.vector, EXC_DB);
    assert_int_equal(state.rip, CODE);
}

static void repeats_stop_and_go_on(void **unused)
{
    (void)unused;
    state.gpr[GPR_RDI] = DATA;
    state.gpr[GPR_RCX] = 1000;
    state.gpr[GPR_RAX] = 0x77;
    unsigned steps = 1;
    while (RUN(0xf3, 0xaa) == EMU_DONE && state.rip == CODE)
        steps++;
    assert_in_range(steps, 2, 100);
    assert_int_equal(state.gpr[GPR_RCX], 0);
    assert_int_equal(state.gpr[GPR_RDI], DATA + 1000);
    assert_int_equal(memory[DATA + 999], 0x77);
    assert_int_equal(memory[DATA + 1000], 0);
    /* Nothing to do: the address is not even looked at. */
    state.gpr[GPR_RDI] = 0x800000000000;
    assert_int_equal(RUN(0xf3, 0xaa), EMU_DONE);
    /* One iteration when single-stepping, and a trap after each. */
    state.rip = CODE;
    state.gpr[GPR_RDI] = DATA;
    state.gpr[GPR_RCX] = 2;
    state.rflags |= RFLAGS_TF;
    assert_int_equal(RUN(0xf3, 0xaa), EMU_DONE);
    assert_int_equal(state.gpr[GPR_RCX], 1);
    assert_int_equal(state.rip, CODE);
    assert_int_equal(state.pending.vector, EXC_DB);
    assert_int_equal(RUN(0xf3, 0xaa), EMU_DONE);
    assert_int_equal(state.rip, CODE + 2);
}

static void repeats_fault_in_the_middle(void **unused)
{
    (void)unused;
    state.gpr[GPR_RSI] = DATA;
    state.gpr[GPR_RDI] = 0xaff0; /* four dwords before the missing page */
    state.gpr[GPR_RCX] = 10;
    memset(memory + DATA, 0x33, 64);
    assert_int_equal(RUN(0xf3, 0xa5), EMU_DONE); /* what was done stands */
    assert_int_equal(state.gpr[GPR_RCX], 6);
    assert_int_equal(state.gpr[GPR_RSI], DATA + 16);
    assert_int_equal(state.gpr[GPR_RDI], 0xb000);
    assert_int_equal(state.rip, CODE);
    assert_exception(RUN(0xf3, 0xa5), EXC_PF, true, 2);
    assert_int_equal(emu.fault.cr2, 0xb000);
    assert_int_equal(memory[0xafff], 0x33);
}

/* ---- ports ---- */

static void string_ports(void **unused)
{
    (void)unused;
    state.gpr[GPR_RDX] = 0x3f8;
    state.gpr[GPR_RDI] = DATA;
    state.gpr[GPR_RCX] = 4;
    assert_int_equal(RUN(0xf3, 0x6c), EMU_DONE);
    assert_int_equal(fetch(DATA, 4), 0x44434241);
    state.gpr[GPR_RSI] = DATA;
    state.rip = CODE;
    assert_int_equal(RUN(0x6e), EMU_DONE);
    assert_int_equal(port_value, 0x41);
    assert_int_equal(last_port, 0x3f8);
    /* The target is checked before the device is read. */
    port_accesses = 0;
    state.gpr[GPR_RDI] = 0x800000000000;
    assert_exception(RUN(0x6c), EXC_GP, true, 0);
    assert_int_equal(port_accesses, 0);
    ops.port_in = NULL;
    state.gpr[GPR_RDI] = DATA;
    assert_int_equal(RUN(0x6c), EMU_UNSUPPORTED);
    assert_memory_equal(&state, &before, sizeof(state));
}

static void port_permission(void **unused)
{
    (void)unused;
    state.gpr[GPR_RDX] = 0x3f8;
    state.gpr[GPR_RDI] = DATA;
    state.seg[SEG_SS].attributes |= 3 << SEG_DPL_SHIFT;
    assert_exception(RUN(0x6c), EXC_GP, true, 0); /* the TSS ends before a bit map */
    state.seg[SEG_TR].limit = 0x68 + 0x3f8 / 8 + 1;
    store(TSS + 102, 0x68, 2);
    assert_int_equal(RUN(0x6c), EMU_DONE);
    memory[TSS + 0x68 + 0x3f8 / 8] = 0x02; /* 3F9h is closed: only wider accesses notice */
    assert_int_equal(RUN(0x6c), EMU_DONE);
    assert_exception(RUN(0x66, 0x6d), EXC_GP, true, 0);
    state.gpr[GPR_RDX] = 0x400; /* its byte of the map is the last one, and a second is needed */
    assert_exception(RUN(0x6c), EXC_GP, true, 0);
    state.rflags |= 3 * RFLAGS_IOPL;
    assert_int_equal(RUN(0x66, 0x6d), EMU_DONE);
}

/* ---- segment loads ---- */

static uint64_t descriptor(uint32_t base, unsigned access)
{
    return 0xffffull | ((uint64_t)(base & 0xffffff) << 16) | ((uint64_t)access << 40) | (0xcfull << 48) |
           ((uint64_t)(base >> 24) << 56);
}

static void segment_loads(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    store(GDT + 0x10, descriptor(0x12345678, 0x92), 8);
    store(DATA, 0x10, 2);
    assert_int_equal(RUN(0x8e, 0x1b), EMU_DONE); /* mov ds, [ebx] */
    assert_int_equal(state.seg[SEG_DS].base, 0x12345678);
    assert_int_equal(state.seg[SEG_DS].limit, 0xffffffff);
    assert_int_equal(state.seg[SEG_DS].attributes, 0xc093);
    assert_int_equal(state.seg[SEG_DS].selector, 0x10);
    assert_int_equal(fetch(GDT + 0x10, 8), descriptor(0x12345678, 0x93)); /* accessed */
    state.seg[SEG_DS] = state.seg[SEG_ES];
    store(DATA, 0x80, 2);
    assert_exception(RUN(0x8e, 0x1b), EXC_GP, true, 0x80); /* past the table */
    store(DATA, 0x14, 2);
    assert_exception(RUN(0x8e, 0x1b), EXC_GP, true, 0x14); /* no LDT */
    store(GDT + 0x18, descriptor(0, 0x12), 8);
    store(DATA, 0x18, 2);
    assert_exception(RUN(0x8e, 0x1b), EXC_NP, true, 0x18);
    assert_exception(RUN(0x8e, 0x13), EXC_SS, true, 0x18);
    store(GDT + 0x18, descriptor(0, 0x98), 8);
    assert_exception(RUN(0x8e, 0x1b), EXC_GP, true, 0x18); /* execute-only */
    store(GDT + 0x18, descriptor(0, 0x90), 8);
    assert_exception(RUN(0x8e, 0x13), EXC_GP, true, 0x18); /* a stack must be writable */
    store(DATA, 0, 2);
    assert_exception(RUN(0x8e, 0x13), EXC_GP, true, 0);
    assert_int_equal(RUN(0x8e, 0x03), EMU_DONE); /* a null ES is fine until it is used */
    assert_true(state.seg[SEG_ES].attributes & SEG_UNUSABLE);
    store(DATA, 0x10, 2);
    state.rflags |= RFLAGS_TF;
    assert_int_equal(RUN(0x8e, 0x13), EMU_DONE); /* mov ss opens a shadow and holds the trap back */
    assert_int_equal(state.interruptibility, INTERRUPTIBILITY_MOV_SS);
    assert_int_equal(state.pending.type, EVENT_NONE);
}

static void real_mode_segment_loads(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA;
    store(DATA, 0x12345678, 4);
    assert_int_equal(RUN(0xc4, 0x37), EMU_DONE); /* les si, [bx] */
    assert_int_equal(state.gpr[GPR_RSI], 0x5678);
    assert_int_equal(state.seg[SEG_ES].base, 0x12340);
    assert_int_equal(state.seg[SEG_ES].limit, 0xffff);
    assert_int_equal(RUN(0x8c, 0x07), EMU_DONE); /* mov [bx], es */
    assert_int_equal(fetch(DATA, 4), 0x12341234);
}

/* ---- lengths ---- */

static unsigned length_of(const uint8_t *bytes, unsigned count, bool fast)
{
    memset(memory + CODE, 0x90, 16);
    memcpy(memory + CODE, bytes, count);
    ops.peek = fast ? mem_peek : NULL;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    return fast ? emu_instruction_length(&emu) : emu_decoded_length(&emu);
}

static void known_lengths(void **unused)
{
    static const struct { uint8_t bytes[8], count; } list[] = {
        { { 0x0f, 0xa2 }, 2 }, { { 0x0f, 0x30 }, 2 }, { { 0x0f, 0x32 }, 2 }, { { 0xf4 }, 1 }, { { 0xe4, 0x60 }, 2 },
        { { 0xef }, 1 }, { { 0x66, 0xed }, 2 }, { { 0xf3, 0x6c }, 2 }, { { 0x0f, 0x01, 0xd9 }, 3 }, { { 0x0f, 0x22, 0xc0 }, 3 },
        { { 0xcc }, 1 }, { { 0xcd, 0x80 }, 2 }, { { 0x0f, 0x01, 0x3c, 0x25, 0, 0, 0, 0 }, 8 }, { { 0x0f, 0x09 }, 2 },
        { { 0x0f, 0x01, 0x58, 0x10 }, 4 }, { { 0xf3, 0x90 }, 2 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(list); i++) {
        assert_int_equal(length_of(list[i].bytes, list[i].count, true), list[i].count);
        assert_int_equal(emu.length, list[i].count);
        assert_int_equal(emu.fault.type, EVENT_NONE);
    }
    (void)unused;
}

/* Whatever the short table says of random bytes, the decoder says too. */
static void lengths_agree_with_decoder(void **unused)
{
    static int (*const modes[])(void **) = { mode_long, mode_protected, mode_real };
    static const uint8_t first[] = { 0x0f, 0x66, 0x67, 0xf3, 0x48, 0x2e, 0xe4, 0xee, 0xf4, 0x6c, 0xcd, 0x0f, 0x0f };
    static const uint8_t second[] = { 0x00, 0x01, 0x20, 0x22, 0x30, 0x32, 0xa2, 0xc7, 0x0f, 0xed, 0x09 };
    uint32_t noise = 12345;
    for (unsigned i = 0; i < 300000; i++) {
        uint8_t bytes[12];
        for (unsigned k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
        if (i & 3) {
            bytes[0] = first[bytes[0] % sizeof(first)];
            bytes[1] = second[bytes[1] % sizeof(second)];
        }
        if (i % 100000 == 0)
            modes[i / 100000](unused);
        unsigned decoded = length_of(bytes, sizeof(bytes), false), fast = length_of(bytes, sizeof(bytes), true);
        if (decoded)
            assert_int_equal(fast, decoded);
    }
}

static void length_faults(void **unused)
{
    (void)unused;
    state.rip = 0xb000;
    ops.peek = mem_peek;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    assert_int_equal(emu_instruction_length(&emu), 0);
    assert_int_equal(emu.fault.vector, EXC_PF);
    state.rip = 0xafff;
    memory[0xafff] = 0x0f;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    assert_int_equal(emu_instruction_length(&emu), 0);
    assert_int_equal(emu.fault.vector, EXC_PF);
    state.rip = CODE;
    store(CODE, 0xff0f, 2);
    store(CODE, 0x04c7, 2); /* C7 /0 with SIB: not in the short table */
    memory[CODE + 2] = 0x25;
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    assert_int_equal(emu_instruction_length(&emu), 11);
    store(CODE, 0xff06, 2); /* PUSH ES: not an instruction in 64-bit mode */
    emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40 };
    assert_int_equal(emu_instruction_length(&emu), 0);
    assert_int_equal(emu.fault.type, EVENT_NONE);
}

/* ---- what Unicorn lacks, against this CPU ---- */

static void against_this_cpu(void **unused)
{
    uint64_t a = 0x0123456789abcdef, b = 0xfedcba9876543210, r, x;
    mode_long(unused);
    for (unsigned i = 0; i < 20000; i++) {
        a = a * 6364136223846793005ull + 1442695040888963407ull;
        b ^= a >> (i % 63);
        state.gpr[GPR_RBX] = DATA;
        state.rip = CODE;
        store(DATA, b, 8);
        if (__builtin_cpu_supports("popcnt")) {
            assert_int_equal(RUN(0xf3, 0x48, 0x0f, 0xb8, 0x03), EMU_DONE);
            __asm__("popcnt %1, %0" : "=r"(r) : "r"(b) : "cc");
            assert_int_equal(state.gpr[GPR_RAX], r);
        }
        assert_int_equal(RUN(0x66, 0x0f, 0x38, 0xf1, 0x0b), EMU_DONE); /* movbe [rbx], cx */
        assert_int_equal(fetch(DATA, 2), alu_swap(state.gpr[GPR_RCX], 2));
        assert_int_equal(RUN(0x48, 0x0f, 0x38, 0xf0, 0x0b), EMU_DONE); /* movbe rcx, [rbx] */
        assert_int_equal(state.gpr[GPR_RCX], __builtin_bswap64(fetch(DATA, 8)));
        if (__builtin_cpu_supports("bmi2")) {
            __asm__("pext %2, %1, %0" : "=r"(r) : "r"(a), "r"(b));
            assert_int_equal(alu_extract(a, b), r);
            __asm__("pdep %2, %1, %0" : "=r"(r) : "r"(a), "r"(b));
            assert_int_equal(alu_deposit(a, b), r);
        }
        uint64_t flags = RFLAGS_FIXED, cpu;
        x = b;
        __asm__ volatile("negq %0; pushfq; popq %1" : "+r"(x), "=r"(cpu) : : "cc", "memory");
        assert_int_equal(alu_sub(0, b, 0, 8, &flags), x);
        assert_int_equal(flags & FLAGS_STATUS, cpu & FLAGS_STATUS);
    }
}

/* Zydis 4.0.0 takes R13 for a base that is not there; see emu_effective. */
static void index_without_base(void **unused)
{
    (void)unused;
    state.gpr[GPR_RBX] = DATA - 0x100;
    state.gpr[GPR_R13] = 0x5555555555;
    state.gpr[GPR_R9] = 77;
    assert_int_equal(RUN(0x45, 0x89, 0x0c, 0x1d, 0x00, 0x01, 0x00, 0x00), EMU_DONE); /* mov [rbx*1+0x100], r9d with REX.B */
    assert_int_equal(fetch(DATA, 4), 77);
}

int main(void)
{
#define TEST(name, setup) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(device_sees_access_sizes, mode_long), TEST(given_bytes_are_used, mode_long), TEST(unknown_is_refused, mode_long),
        TEST(retry_leaves_no_trace, mode_long), TEST(non_canonical_addresses, mode_long), TEST(page_faults, mode_paged),
        TEST(second_page_faults, mode_paged), TEST(fetch_faults, mode_paged), TEST(segment_rights, mode_protected),
        TEST(segment_limits, mode_protected), TEST(real_mode_limits, mode_real), TEST(rip_wraps, mode_real),
        TEST(alignment_check, mode_long), TEST(wide_operands_align, mode_long), TEST(vector_upper_halves, mode_long),
        TEST(divide_errors, mode_long), TEST(locked_operations, mode_long), TEST(single_step_and_shadows, mode_long),
        TEST(repeats_stop_and_go_on, mode_long), TEST(repeats_fault_in_the_middle, mode_paged), TEST(string_ports, mode_long),
        TEST(port_permission, mode_long), TEST(segment_loads, mode_protected), TEST(real_mode_segment_loads, mode_real),
        TEST(known_lengths, mode_long), TEST(lengths_agree_with_decoder, mode_long), TEST(length_faults, mode_paged),
        TEST(against_this_cpu, mode_long), TEST(index_without_base, mode_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
