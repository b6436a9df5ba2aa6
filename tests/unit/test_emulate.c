/* SPDX-License-Identifier: MIT */
/*
 * The emulator where Unicorn cannot judge it: what a device sees, locked operations under contention, single-
 * stepping, repeated instructions that stop and go on, ports, segment loads, and the instructions that Unicorn lacks
 * (against this machine's own CPU).
 */
#include "emulate_fixture.h"

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
    emu = (struct emu){
        .state = &state, .ops = &ops, .physical_bits = 40, .bytes = { 0xc6, 0x03, 0x7f }, .byte_count = 3
    };
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
    assert_int_equal(RUN(0x45, 0x89, 0x0c, 0x1d, 0x00, 0x01, 0x00, 0x00),
                     EMU_DONE); /* mov [rbx*1+0x100], r9d with REX.B */
    assert_int_equal(fetch(DATA, 4), 77);
}

int main(void)
{
#define TEST(name, setup) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(device_sees_access_sizes, mode_long),
        TEST(given_bytes_are_used, mode_long),
        TEST(unknown_is_refused, mode_long),
        TEST(retry_leaves_no_trace, mode_long),
        TEST(locked_operations, mode_long),
        TEST(single_step_and_shadows, mode_long),
        TEST(repeats_stop_and_go_on, mode_long),
        TEST(repeats_fault_in_the_middle, mode_paged),
        TEST(string_ports, mode_long),
        TEST(port_permission, mode_long),
        TEST(segment_loads, mode_protected),
        TEST(real_mode_segment_loads, mode_real),
        TEST(against_this_cpu, mode_long),
        TEST(index_without_base, mode_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
