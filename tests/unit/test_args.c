/* SPDX-License-Identifier: MIT */
/* Splitting command lines: quotes, escapes, errors with their column, and the way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shell/args.h"

static struct args args;

/* Expects the line to split into the words, which are separated by '|' in `expected`. */
static void splits_into(const char *line, const char *expected)
{
    char got[256] = "";

    assert_int_equal(args_split(&args, line), OK);
    for (unsigned i = 0; i < args.count; i++) {
        if (i)
            strcat(got, "|");
        strcat(got, args.value[i]);
    }
    assert_string_equal(got, expected);
    assert_null(args.value[args.count]);
}

static void fails_at(const char *line, enum status status, unsigned column, unsigned words_before)
{
    assert_int_equal(args_split(&args, line), status);
    assert_non_null(args.error);
    assert_int_equal(args.error_column, column);
    assert_int_equal(args.count, words_before);
}

static void words_are_separated_by_blanks(void **state)
{
    (void)state;
    splits_into("", "");
    splits_into(" \t ", "");
    splits_into("vm list", "vm|list");
    splits_into("  vm\t\tstart   web1 ", "vm|start|web1");
    assert_int_equal(args.column[1], 7);
    assert_int_equal(args.start[2], 14);
    splits_into("a # b", "a|#|b");
    splits_into("vm show gr\xc3\xbc\xc3\x9f", "vm|show|gr\xc3\xbc\xc3\x9f");
}

static void quotes_keep_blanks(void **state)
{
    (void)state;
    splits_into("a 'b c' d", "a|b c|d");
    splits_into("a \"b  c\"", "a|b  c");
    splits_into("a '' \"\" b", "a|||b");
    splits_into("--name=\"web 1\"x", "--name=web 1x");
    assert_false(args.quoted[0]);
    splits_into("\"--json\"", "--json");
    assert_true(args.quoted[0]);
    splits_into("'a\"b' \"c'd\"", "a\"b|c'd");
}

static void a_backslash_escapes_only_what_would_be_special(void **state)
{
    (void)state;
    splits_into("\\tasuki\\images\\disk.raw", "\\tasuki\\images\\disk.raw");
    splits_into("a\\ b \\\"c\\\" \\'d", "a b|\"c\"|'d");
    splits_into("a\\\\b", "a\\b");
    splits_into("\"a\\\"b\\\\c\\d\"", "a\"b\\c\\d");
    splits_into("'a\\'", "a\\");
    splits_into("dir\\", "dir\\");
}

static void errors_name_the_column(void **state)
{
    static char longest[ARGS_MAX_LINE_BYTES + 2];
    static char many[2 * ARGS_MAX_COUNT + 3];

    (void)state;
    fails_at("vm start \"web", ERR_INVALID, 10, 2);
    fails_at("vm 'x", ERR_INVALID, 4, 1);
    fails_at("gr\xc3\xbc\xc3\x9f \xff", ERR_INVALID, 6, 1);
    fails_at("a\x1b[2J", ERR_INVALID, 2, 0);
    fails_at("a \xc2\x9b", ERR_INVALID, 3, 1);
    memset(longest, 'a', sizeof(longest) - 1);
    fails_at(longest, ERR_RANGE, ARGS_MAX_LINE_BYTES + 1, 0);
    longest[ARGS_MAX_LINE_BYTES] = 0;
    assert_int_equal(args_split(&args, longest), OK);
    assert_int_equal(strlen(args.value[0]), ARGS_MAX_LINE_BYTES);
    for (unsigned i = 0; i < ARGS_MAX_COUNT; i++)
        memcpy(many + 2 * i, "a ", 2);
    assert_int_equal(args_split(&args, many), OK);
    assert_int_equal(args.count, ARGS_MAX_COUNT);
    strcat(many, "a");
    fails_at(many, ERR_RANGE, 2 * ARGS_MAX_COUNT + 1, ARGS_MAX_COUNT);
}

static void a_line_that_is_being_typed_splits_up_to_the_cursor(void **state)
{
    (void)state;
    assert_true(args_split_partial(&args, "vm start web1", 6));
    assert_int_equal(args.count, 2);
    assert_string_equal(args.value[1], "sta");
    assert_int_equal(args.start[1], 3);
    assert_true(args_split_partial(&args, "vm ", 3));
    assert_int_equal(args.count, 2);
    assert_string_equal(args.value[1], "");
    assert_int_equal(args.start[1], 3);
    assert_true(args_split_partial(&args, "vm show \"my v", 13));
    assert_string_equal(args.value[2], "my v");
    assert_int_equal(args.start[2], 8);
    assert_true(args_split_partial(&args, "", 0));
    assert_int_equal(args.count, 1);
}

static void what_is_quoted_splits_into_itself(void **state)
{
    static const char *const values[] = { "", "a", "a b", "\\", "a\\", "\\\\x", "\"", "'", "a\"b\\\"c",
                                          "\\tasuki\\x", "\t", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac" };
    char quoted[64];
    char line[96];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        assert_true(args_quote(quoted, sizeof(quoted), values[i]));
        snprintf(line, sizeof(line), "a %s b", quoted);
        assert_int_equal(args_split(&args, line), OK);
        assert_int_equal(args.count, 3);
        assert_string_equal(args.value[1], values[i]);
    }
    assert_false(args_quote(quoted, 3, "abc"));
    assert_false(args_quote(quoted, 4, "a b"));
    assert_false(args_quote(quoted, 0, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_separated_by_blanks),
        cmocka_unit_test(quotes_keep_blanks),
        cmocka_unit_test(a_backslash_escapes_only_what_would_be_special),
        cmocka_unit_test(errors_name_the_column),
        cmocka_unit_test(a_line_that_is_being_typed_splits_up_to_the_cursor),
        cmocka_unit_test(what_is_quoted_splits_into_itself),
    };

    return cmocka_run_group_tests_name("args", tests, NULL, NULL);
}
