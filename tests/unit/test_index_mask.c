/* SPDX-License-Identifier: MIT */
/* Guarded: an index within its array stays what it is, any other becomes 0, at every edge and without a branch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/index_mask.h"

static void test_edges(void **state)
{
    static const uint64_t values[] = { 0, 1, 2, 3, 255, 256, INT64_MAX, BIT(63), BIT(63) + 1, UINT64_MAX - 1, UINT64_MAX };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(values); i++)
        for (unsigned j = 0; j < ARRAY_COUNT(values); j++)
            assert_true(index_mask(values[i], values[j]) == (values[i] < values[j] ? values[i] : 0));
}

static void test_small(void **state)
{
    (void)state;
    for (uint64_t count = 0; count < 40; count++)
        for (uint64_t index = 0; index < 80; index++)
            assert_true(index_mask(index, count) == (index < count ? index : 0));
}

static void test_wrap(void **state)
{
    (void)state;
    for (uint64_t index = 0; index < 1000; index++)
        assert_true(index_wrap(index, 128) == index % 128);
    assert_true(index_wrap(UINT64_MAX, 128) == 127);
    assert_true(index_wrap(UINT64_MAX, 1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_edges), cmocka_unit_test(test_small),
                                       cmocka_unit_test(test_wrap) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
