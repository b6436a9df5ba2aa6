/* SPDX-License-Identifier: MIT */
/*
 * The short way of plain MOVs (vmm/simple_move.c), and the cache that finds them (vmm/length_cache.c): what is decoded is
 * decoded right, all else is refused, and a cached length is never used once anything that it rests on has changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/emulate.h"
#include "vmm/length_cache.h"
#include "vmm/simple_move.h"

static struct cpu_state fresh_state(void)
{
    struct cpu_state s = { .rip = 0x401000, .cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE, .efer = EFER_LME | EFER_LMA };

    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = 0x1111111111110000ull * (i % 8) + 0x1000 * i + i;
    s.seg[SEG_CS].attributes = SEG_L | SEG_P | SEG_S | 0xb;
    return s;
}

static uint64_t code_of(const uint8_t *bytes, unsigned count)
{
    uint64_t code = 0;

    for (unsigned i = 0; i < count; i++)
        code |= (uint64_t)bytes[i] << 8 * i;
    return code;
}

#define CODE(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static bool decode(const uint8_t *bytes, unsigned count, struct simple_move *move)
{
    struct cpu_state s = fresh_state();

    return simple_move_decode(&s, code_of(bytes, count), count, move);
}

static void stores(void **unused)
{
    struct cpu_state s = fresh_state();
    struct simple_move m;

    (void)unused;
    assert_true(decode(CODE(0x66, 0x89, 0x03), &m)); /* mov [rbx], ax */
    assert_true(m.store);
    assert_int_equal(m.size, 2);
    assert_int_equal(m.length, 3);
    assert_true(m.linear == s.gpr[GPR_RBX] && m.value == s.gpr[GPR_RAX]);
    assert_true(decode(CODE(0x4d, 0x89, 0x44, 0xd1, 0xf8), &m)); /* mov [r9 + rdx * 8 - 8], r8 */
    assert_int_equal(m.size, 8);
    assert_true(m.linear == s.gpr[9] + s.gpr[GPR_RDX] * 8 - 8 && m.value == s.gpr[8]);
    assert_true(decode(CODE(0x89, 0x3d, 0xfc, 0xff, 0xff, 0xff), &m)); /* mov [rip - 4], edi */
    assert_true(m.linear == s.rip + 6 - 4 && m.value == s.gpr[GPR_RDI] && m.size == 4);
    assert_true(decode(CODE(0x66, 0xc7, 0x47, 0x10, 0x34, 0x82), &m)); /* mov word [rdi + 16], 0x8234 */
    assert_true(m.linear == s.gpr[GPR_RDI] + 16 && (uint16_t)m.value == 0x8234 && m.size == 2 && m.length == 6);
    assert_false(decode(CODE(0xc6, 0x04, 0x25, 0x00, 0x00, 0xe0, 0xfe), &m)); /* its immediate is missing */
}

static void loads(void **unused)
{
    struct cpu_state s = fresh_state();
    struct simple_move m;

    (void)unused;
    assert_true(decode(CODE(0x8b, 0x14, 0x25, 0x20, 0x00, 0xe0, 0xfe), &m)); /* mov edx, [0xfffffffffee00020] */
    assert_true(!m.store && m.size == 4 && m.gpr == GPR_RDX && m.linear == 0xfffffffffee00020ull && m.length == 7);
    simple_move_finish(&s, &m, 0x89abcdef);
    assert_true(s.gpr[GPR_RDX] == 0x89abcdef);
    assert_true(decode(CODE(0x40, 0x8a, 0x37), &m)); /* mov sil, [rdi] */
    simple_move_finish(&s, &m, 0x77);
    assert_true(s.gpr[GPR_RSI] == ((fresh_state().gpr[GPR_RSI] & ~0xffull) | 0x77));
    assert_true(decode(CODE(0x0f, 0xb7, 0x07), &m)); /* movzx eax, word [rdi] */
    assert_true(m.size == 2 && m.gpr_size == 4);
    simple_move_finish(&s, &m, 0xbeef);
    assert_true(s.gpr[GPR_RAX] == 0xbeef);
    assert_true(decode(CODE(0x66, 0x8b, 0x07), &m)); /* mov ax, [rdi] */
    s.gpr[GPR_RAX] = UINT64_MAX;
    simple_move_finish(&s, &m, 0x1234);
    assert_true(s.gpr[GPR_RAX] == 0xffffffffffff1234ull);
}

static void refusals(void **unused)
{
    static const uint8_t refused[][8] = {
        { 0x89, 0xc3 },             /* register to register */
        { 0x88, 0x27 },             /* AH */
        { 0x8a, 0x3f },             /* BH */
        { 0xf0, 0x89, 0x03 },       /* LOCK */
        { 0x64, 0x89, 0x03 },       /* FS */
        { 0xf3, 0xa5 },             /* string */
        { 0x67, 0x89, 0x03 },       /* 32-bit address */
        { 0xc7, 0x0f, 1, 2, 3, 4 }, /* C7 with another field */
        { 0x0f, 0xbe, 0x07 },       /* MOVSX */
        { 0x87, 0x03 },             /* XCHG */
        { 0x48, 0x66, 0x89, 0x03 }, /* REX not next to the opcode */
    };
    struct simple_move m;

    (void)unused;
    for (unsigned i = 0; i < ARRAY_COUNT(refused); i++)
        assert_false(decode(refused[i], 8, &m));
    for (unsigned have = 1; have < 7; have++) /* cut off anywhere */
        assert_false(decode((const uint8_t[]){ 0x89, 0x14, 0x25, 0x20, 0x00, 0xe0, 0xfe }, have, &m));
}

/* Guest memory of eight pages from 0: PML4, PDPT, PD, PT, code. */
static uint64_t memory[8][512];

static const void *peek(void *context, gpa_t gpa, size_t count)
{
    (void)context;
    return gpa.v + count <= sizeof memory ? (const char *)memory + gpa.v : NULL;
}

static void length_cache(void **unused)
{
    struct emu_ops ops = { .peek = peek };
    struct cpu_state s = fresh_state();
    struct length_cache cache;
    uint64_t *changes[] = { &memory[0][0], &memory[1][0], &memory[2][2], &memory[3][1], &memory[4][0] };

    (void)unused;
    memset(memory, 0, sizeof memory);
    memory[0][0] = 0x1000 | 7;
    memory[1][0] = 0x2000 | 7;
    memory[2][2] = 0x3000 | 7; /* 0x400000 */
    memory[3][1] = 0x4000 | 7; /* 0x401000 */
    memory[4][0] = 0x9090909090a20full;
    length_cache_clear(&cache);
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 0);
    length_cache_put(&cache, &s, &ops, 2);
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 2);
    assert_int_equal(length_cache_find(&cache, s.rip + 64, s.cr3), 0);
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3 + 0x1000), 0);
    for (unsigned i = 0; i < ARRAY_COUNT(changes); i++) {
        *changes[i] ^= 0x20;
        assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 0);
        *changes[i] ^= 0x20;
        assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 2);
    }
    memory[4][0] ^= 0xff0000; /* behind the instruction */
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 2);

    memory[2][2] = 0x80 | 7; /* a large page at guest physical 0 */
    length_cache_clear(&cache);
    s.rip = 0x404000;
    length_cache_put(&cache, &s, &ops, 2);
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 2);
    s.rip = 0x404ffc; /* eight bytes would cross the page */
    length_cache_put(&cache, &s, &ops, 2);
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 0);
    s.rip = 0x404000;
    s.seg[SEG_CS].attributes &= ~SEG_L;
    length_cache_clear(&cache);
    length_cache_put(&cache, &s, &ops, 2); /* compatibility mode */
    assert_int_equal(length_cache_find(&cache, s.rip, s.cr3), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores),
        cmocka_unit_test(loads),
        cmocka_unit_test(refusals),
        cmocka_unit_test(length_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
