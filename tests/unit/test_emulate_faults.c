/* SPDX-License-Identifier: MIT */
/*
 * The emulator's faults: of each kind in each mode, in the right order, and that nothing has happened when one is
 * raised.
 */
#include "emulate_fixture.h"

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
    assert_int_equal(emu.fault.cr2, 0xb000);  /* the first byte that is missing */
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

static void rip_does_not_wrap(void **unused)
{
    (void)unused;
    state.rip = 0xfffe;
    state.gpr[GPR_RBX] = DATA;
    assert_int_equal(RUN(0x88, 0x07), EMU_DONE);
    assert_int_equal(state.rip, 0x10000); /* where the next fetch meets the limit */
    assert_exception(RUN(0x88, 0x07), EXC_GP, false, 0);
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

int main(void)
{
#define TEST(name, setup) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(non_canonical_addresses, mode_long),
        TEST(page_faults, mode_paged),
        TEST(second_page_faults, mode_paged),
        TEST(fetch_faults, mode_paged),
        TEST(segment_rights, mode_protected),
        TEST(segment_limits, mode_protected),
        TEST(real_mode_limits, mode_real),
        TEST(rip_does_not_wrap, mode_real),
        TEST(alignment_check, mode_long),
        TEST(wide_operands_align, mode_long),
        TEST(vector_upper_halves, mode_long),
        TEST(divide_errors, mode_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
