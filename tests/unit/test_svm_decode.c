/* SPDX-License-Identifier: MIT */
/*
 * What the SVM backend tells of an instruction from its bytes (vmm/svm/svm_decode.c): accesses to control registers with
 * all their prefixes, and what an instruction does with RFLAGS.TF. Bytes that do not suffice are never taken for more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/svm/svm_decode.h"

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static struct cr_instruction decode(const uint8_t *bytes, size_t count, bool mode64)
{
    return svm_decode_cr(bytes, (unsigned)count, mode64);
}

static enum flags_use use(const uint8_t *bytes, size_t count, bool mode64)
{
    return svm_decode_flags(bytes, (unsigned)count, mode64);
}

static void expect(struct cr_instruction in, enum cr_operation operation, unsigned number, unsigned gpr, unsigned length)
{
    assert_int_equal(in.operation, operation);
    assert_int_equal(in.number, number);
    assert_int_equal(in.gpr, gpr);
    assert_int_equal(in.length, length);
}

static void control_registers(void **state)
{
    (void)state;
    expect(decode(BYTES(0x0f, 0x22, 0xc3), true), CR_MOV_TO, 0, 3, 3);
    expect(decode(BYTES(0x41, 0x0f, 0x22, 0xe0), true), CR_MOV_TO, 4, 8, 4);
    expect(decode(BYTES(0x44, 0x0f, 0x20, 0xc1), true), CR_MOV_FROM, 8, 1, 4);
    expect(decode(BYTES(0xf0, 0x0f, 0x20, 0xc1), false), CR_MOV_FROM, 8, 1, 4);
    expect(decode(BYTES(0x66, 0x0f, 0x22, 0x03), false), CR_MOV_TO, 0, 3, 4); /* ModRM.mod is ignored */
    assert_int_equal(decode(BYTES(0x44, 0x0f, 0x20, 0xc1), false).operation, CR_OTHER); /* INC ESP there */
    expect(decode(BYTES(0x0f, 0x06), true), CR_CLTS, 0, 0, 2);
}

static void status_word(void **state)
{
    (void)state;
    expect(decode(BYTES(0x0f, 0x01, 0xf2), false), CR_LMSW, 0, 2, 3);
    assert_int_equal(decode(BYTES(0x0f, 0x01, 0x30), false).operation, CR_OTHER); /* from memory */
    struct cr_instruction in = decode(BYTES(0x0f, 0x01, 0xe2), true);
    expect(in, CR_SMSW, 0, 2, 3);
    assert_false(in.other_size || in.wide);
    in = decode(BYTES(0x66, 0x0f, 0x01, 0xe2), true);
    assert_true(in.operation == CR_SMSW && in.other_size && !in.wide);
    in = decode(BYTES(0x66, 0x49, 0x0f, 0x01, 0xe2), true);
    assert_true(in.operation == CR_SMSW && in.other_size && in.wide && in.gpr == 10);
    assert_int_equal(decode(BYTES(0x0f, 0x01, 0x20), true).operation, CR_OTHER);
}

static void cut_short(void **state)
{
    (void)state;
    const uint8_t mov[] = { 0x66, 0x41, 0x0f, 0x22, 0xc0 };
    for (unsigned count = 0; count < sizeof(mov); count++)
        assert_int_equal(svm_decode_cr(mov, count, true).operation, CR_OTHER);
    const uint8_t syscall[] = { 0x66, 0x48, 0x0f, 0x05 };
    for (unsigned count = 0; count < sizeof(syscall); count++)
        assert_int_equal(svm_decode_flags(syscall, count, true), FLAGS_KEPT);
}

static void flags(void **state)
{
    (void)state;
    assert_int_equal(use(BYTES(0x9c), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0x66, 0x9c), false), FLAGS_STORED);
    assert_int_equal(use(BYTES(0x48, 0x9c), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0xcc), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0xcd, 0x80), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0xce), false), FLAGS_STORED);
    assert_int_equal(use(BYTES(0xf1), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0x0f, 0x05), true), FLAGS_STORED);
    assert_int_equal(use(BYTES(0x9d), true), FLAGS_LOADED);
    assert_int_equal(use(BYTES(0x48, 0xcf), true), FLAGS_LOADED);
    assert_int_equal(use(BYTES(0x48, 0x0f, 0x07), true), FLAGS_LOADED);
    assert_int_equal(use(BYTES(0x48, 0x9c), false), FLAGS_KEPT); /* DEC EAX */
    assert_int_equal(use(BYTES(0x90, 0x9c), true), FLAGS_KEPT);
    assert_int_equal(use(BYTES(0x0f, 0x34), true), FLAGS_KEPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_registers),
        cmocka_unit_test(status_word),
        cmocka_unit_test(cut_short),
        cmocka_unit_test(flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
