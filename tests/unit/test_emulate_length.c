/* SPDX-License-Identifier: MIT */
/*
 * Instruction lengths: the short table against the decoder, faults of the fetch, and the hint that saves a page
 * walk.
 */
#include "emulate_fixture.h"

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
    static const struct {
        uint8_t bytes[8], count;
    } list[] = {
        { { 0x0f, 0xa2 }, 2 },
        { { 0x0f, 0x30 }, 2 },
        { { 0x0f, 0x32 }, 2 },
        { { 0xf4 }, 1 },
        { { 0xe4, 0x60 }, 2 },
        { { 0xef }, 1 },
        { { 0x66, 0xed }, 2 },
        { { 0xf3, 0x6c }, 2 },
        { { 0x0f, 0x01, 0xd9 }, 3 },
        { { 0x0f, 0x22, 0xc0 }, 3 },
        { { 0xcc }, 1 },
        { { 0xcd, 0x80 }, 2 },
        { { 0x0f, 0x01, 0x3c, 0x25, 0, 0, 0, 0 }, 8 },
        { { 0x0f, 0x09 }, 2 },
        { { 0x0f, 0x01, 0x58, 0x10 }, 4 },
        { { 0xf3, 0x90 }, 2 },
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

/* A hint saves the walk, and is not believed when the bytes are not the expected ones. */
static void length_hints(void **unused)
{
    (void)unused;
    struct emu_fetch_hint hint = { 0 };
    ops.peek = mem_peek;
    store(0x8010, 0xa20f, 2);
    store(0xa010, 0xa20f66, 3);
    state.rip = 0x8010;
#define LENGTH()                                                                                                       \
    (emu = (struct emu){ .state = &state, .ops = &ops, .physical_bits = 40, .hint = &hint, .expected = 0xa20f },       \
     emu_instruction_length(&emu))
    assert_int_equal(LENGTH(), 2);
    assert_int_equal(hint.gpa, 0x8000);
    store(PT + 8 * 8, 0, 8); /* only the hint can know the page now */
    assert_int_equal(LENGTH(), 2);
    store(PT + 8 * 8, 0xa007, 8); /* the page is mapped elsewhere, and there is other code where it was */
    store(0x8010, 0xf4f4, 2);
    assert_int_equal(LENGTH(), 3);
    assert_int_equal(hint.gpa, 0xa000);
    state.rip = 0xffff800000000000 + 0x8010;
    assert_int_equal(LENGTH(), 0); /* another page */
}

int main(void)
{
#define TEST(name, setup) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(known_lengths, mode_long),
        TEST(lengths_agree_with_decoder, mode_long),
        TEST(length_faults, mode_paged),
        TEST(length_hints, mode_paged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
