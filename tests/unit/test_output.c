/* SPDX-License-Identifier: MIT */
/* The output of commands: what a person sees fits the terminal, what a program gets is valid JSON, always. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json_check.h"
#include "kernel/text.h"
#include "shell/output.h"

static char text[1 << 20];
static size_t text_used;
static struct out out;
static char value[256];

static void keep(void *context, const char *bytes, size_t count)
{
    (void)context;
    assert_true(text_used + count < sizeof(text));
    memcpy(text + text_used, bytes, count);
    text_used += count;
    text[text_used] = 0;
}

static const struct sink sink = { .write = keep };

static void begin(bool json)
{
    text_used = 0;
    text[0] = 0;
    out_begin(&out, &sink, 80, json);
}

/* Every line is at most `limit` columns of printable text, with no blank at its end. */
static void check_lines(unsigned limit)
{
    unsigned columns = 0;

    for (size_t at = 0; at < text_used;) {
        uint32_t code_point;
        unsigned length = utf8_decode(text + at, text_used - at, &code_point);

        assert_int_not_equal(length, 0);
        if (code_point == '\n') {
            assert_true(columns <= limit);
            columns = 0;
        } else {
            assert_false(code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0));
            columns += utf8_columns(code_point);
        }
        at += length;
    }
    assert_int_equal(columns, 0);
}

/* A bit of everything; shown in both forms by the tests. */
static void show_node(void)
{
    out_string(&out, "name", "alpha");
    out_bytes(&out, "memory_free", 1536 * MIB);
    out_duration(&out, "uptime", 125000000000ull);
    out_bool(&out, "iommu", false);
    out_array_begin(&out, "features");
    out_string(&out, NULL, "npt");
    out_string(&out, NULL, "nrips");
    out_array_end(&out);
    out_array_begin(&out, "warnings");
    out_array_end(&out);
    out_object_begin(&out, "boot_info");
    out_string(&out, "firmware", "EDK II");
    out_hex(&out, "rsdp", 0x7f77e014);
    out_object_end(&out);
    out_array_begin(&out, "cpus");
    for (unsigned i = 0; i < 2; i++) {
        out_object_begin(&out, NULL);
        out_uint(&out, "cpu", i * 10);
        out_string(&out, "state", i ? "offline" : "up");
        out_null(&out, "load");
        out_object_begin(&out, "apic");
        out_uint(&out, "id", i + 99);
        out_object_end(&out);
        out_array_begin(&out, "vms");
        out_string(&out, NULL, "web1");
        out_string(&out, NULL, "db1");
        out_array_end(&out);
        out_object_end(&out);
    }
    out_array_end(&out);
    out_int(&out, "offset", -5);
}

static void a_person_gets_lists_and_tables(void **state)
{
    (void)state;
    begin(false);
    show_node();
    out_end(&out);
    assert_string_equal(text, "name         alpha\n"
                              "memory free  1.5 GiB\n"
                              "uptime       2 min 5 s\n"
                              "iommu        no\n"
                              "features     npt, nrips\n"
                              "warnings     none\n"
                              "\n"
                              "boot info:\n"
                              "  firmware  EDK II\n"
                              "  rsdp      0x7f77e014\n"
                              "\n"
                              "cpus:\n"
                              "  CPU  STATE    LOAD  APIC ID  VMS\n"
                              "    0  up          -       99  web1, db1\n"
                              "   10  offline     -      100  web1, db1\n"
                              "\n"
                              "offset  -5\n");
}

static void a_program_gets_one_json_object(void **state)
{
    (void)state;
    begin(true);
    show_node();
    out_end(&out);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "memory_free_bytes", value), "1610612736");
    assert_string_equal(json_at(text, "uptime_ns", value), "125000000000");
    assert_string_equal(json_at(text, "iommu", value), "false");
    assert_string_equal(json_at(text, "features.1", value), "\"nrips\"");
    assert_string_equal(json_at(text, "warnings", value), "[]");
    assert_string_equal(json_at(text, "boot_info.rsdp", value), "\"0x7f77e014\"");
    assert_string_equal(json_at(text, "cpus.1.apic.id", value), "100");
    assert_string_equal(json_at(text, "cpus.1.load", value), "null");
    assert_string_equal(json_at(text, "offset", value), "-5");
}

static void nothing_to_show_is_still_valid(void **state)
{
    (void)state;
    begin(true);
    out_end(&out);
    assert_string_equal(text, "{}\n");
    begin(false);
    out_end(&out);
    assert_string_equal(text, "");
    begin(false);
    out_array_begin(&out, "vms");
    out_array_end(&out);
    out_end(&out);
    assert_string_equal(text, "vms  none\n");
}

static void a_table_alone_has_no_heading_line(void **state)
{
    (void)state;
    begin(false);
    out_array_begin(&out, "vms");
    out_object_begin(&out, NULL);
    out_string(&out, "name", "web1");
    out_bytes(&out, "memory", 256 * MIB);
    out_string(&out, "state", "running");
    out_object_end(&out);
    out_array_end(&out);
    out_end(&out);
    assert_string_equal(text, "NAME   MEMORY  STATE\n"
                              "web1  256 MiB  running\n");
}

static void hostile_texts_break_neither_form(void **state)
{
    static const char *const hostile[] = { "\x1b[2J\x07", "a\"b\\c\n\r\t", "\xff\xfe", "\xc2\x9bxx", "\x7f", "",
                                           "caf\xc3\xa9 \xe6\xbc\xa2", "\xed\xa0\x80" };

    (void)state;
    for (int json = 0; json < 2; json++) {
        begin(json);
        for (size_t i = 0; i < ARRAY_COUNT(hostile); i++) {
            char name[32];

            snprintf(name, sizeof(name), "n%zu %s", i, hostile[i]);
            out_string(&out, name, hostile[i]);
        }
        out_array_begin(&out, "a\nb");
        for (size_t i = 0; i < ARRAY_COUNT(hostile); i++) {
            out_object_begin(&out, NULL);
            out_string(&out, "x\x1b", hostile[i]);
            out_string(&out, "y", hostile[i]);
            out_object_end(&out);
        }
        out_array_end(&out);
        out_end(&out);
        check_lines(json ? 10000 : 80);
        if (json) {
            assert_true(json_valid(text));
            assert_string_equal(json_at(text, "a\\nb.0.y", value), "\"\\u001b[2J\\u0007\"");
            assert_string_equal(json_at(text, "a\\nb.2.y", value), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
        } else {
            assert_non_null(strstr(text, "\\x1b[2J\\x07"));
            assert_non_null(strstr(text, "\\xff\\xfe"));
        }
    }
}

static void wide_tables_are_cut_and_wrapped_to_the_terminal(void **state)
{
    (void)state;
    begin(false);
    out_array_begin(&out, "events");
    for (unsigned i = 0; i < 3; i++) {
        out_object_begin(&out, NULL);
        out_uint(&out, "number", 1135);
        out_string(&out, "node", "a-node-with-a-name-that-nobody-would-want-to-type-twice-in-his-life");
        out_string(&out, "text", "The node was removed from the cluster because it did not answer for 2.5 seconds on "
                                 "any network, and its registrations were preempted.");
        out_object_end(&out);
    }
    out_array_end(&out);
    out_end(&out);
    check_lines(80);
    assert_non_null(strstr(text, "\xe2\x80\xa6  The node was removed"));
    assert_non_null(strstr(text, "preempted.\n"));
}

static void tables_that_cannot_fit_become_records(void **state)
{
    (void)state;
    begin(false);
    out_array_begin(&out, "rows");
    for (unsigned i = 0; i < 2; i++) {
        out_object_begin(&out, NULL);
        for (unsigned j = 0; j < 12; j++) {
            char name[24];

            snprintf(name, sizeof(name), "column_%u", j);
            out_uint(&out, name, UINT64_MAX - i);
        }
        out_object_end(&out);
    }
    out_array_end(&out);
    out_end(&out);
    check_lines(80);
    assert_non_null(strstr(text, "column 11  18446744073709551615\n\ncolumn 0   18446744073709551614\n"));
}

static void long_values_wrap_in_lists(void **state)
{
    (void)state;
    begin(false);
    out_string(&out, "help", "Commands are a noun and a verb, then arguments and options. A text with spaces goes in "
                             "quotes, and every command takes the option --json.");
    out_string(&out, "path", "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
                             "8901234567890123456789");
    out_end(&out);
    check_lines(80);
    assert_non_null(strstr(text, "help  Commands are a noun"));
    assert_non_null(strstr(text, "\n      "));
}

static void any_number_of_rows_streams(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        unsigned rows = 0;

        begin(json);
        out_array_begin(&out, "lines");
        for (unsigned i = 0; i < 1000; i++) {
            out_object_begin(&out, NULL);
            out_uint(&out, "n", i < 900 ? i : i * 100000000ull);
            out_stringf(&out, "text", "line %u of the log", i);
            out_object_end(&out);
        }
        out_array_end(&out);
        out_end(&out);
        for (size_t i = 0; i < text_used; i++)
            rows += text[i] == '\n';
        assert_int_equal(rows, json ? 1 : 1001);
        if (json)
            assert_true(json_valid(text));
        else
            assert_non_null(strstr(text, "\n99900000000  line 999 of the log\n"));
    }
}

static void huge_cells_are_bounded(void **state)
{
    static char huge[60000];

    (void)state;
    memset(huge, 'x', sizeof(huge) - 1);
    begin(false);
    out_string(&out, "huge", huge);
    out_array_begin(&out, "joined");
    for (unsigned i = 0; i < 2000; i++)
        out_uint(&out, NULL, i);
    out_array_end(&out);
    out_array_begin(&out, "rows");
    for (unsigned i = 0; i < 20; i++) {
        out_object_begin(&out, NULL);
        for (unsigned j = 0; j < 30; j++) {
            char name[24];

            snprintf(name, sizeof(name), "c%u", j);
            out_string(&out, name, huge);
        }
        out_object_end(&out);
    }
    out_array_end(&out);
    out_end(&out);
    check_lines(80);

    begin(true);
    out_string(&out, "huge", huge);
    out_end(&out);
    assert_true(json_valid(text));
    assert_true(text_used > sizeof(huge));
}

static void nesting_is_closed_however_the_command_ends(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        begin(json);
        for (unsigned i = 0; i < 40; i++)
            i % 2 ? out_array_begin(&out, "a") : out_object_begin(&out, "o");
        out_uint(&out, "deep", 1);
        for (unsigned i = 0; i < 60; i++)
            out_object_end(&out);
        out_uint(&out, "shallow", 2);
        out_array_begin(&out, "open");
        out_object_begin(&out, NULL);
        out_uint(&out, "x", 1);
        out_end(&out);
        check_lines(10000);
        if (json) {
            assert_true(json_valid(text));
            assert_string_equal(json_at(text, "shallow", value), "2");
        }
    }
}

/* The output has this string there; NULL: there is nothing. */
static void assert_json_text(const char *path, const char *want)
{
    char quoted[160];
    size_t used = 0;

    if (!want) {
        assert_string_equal(json_at(text, path, value), "");
        return;
    }
    quoted[used++] = '"';
    for (; *want; want++) {
        if (*want == '"')
            quoted[used++] = '\\';
        quoted[used++] = *want;
    }
    strcpy(quoted + used, "\"");
    assert_string_equal(json_at(text, path, value), quoted);
}

static void one_text_is_split_into_an_error(void **state)
{
    static const struct { const char *text, *object, *cause, *cure; } cases[] = {
        { "vm a: is off; start it", "vm a", "is off", "start it" },
        { "vm a: is off", "vm a", "is off", NULL },
        { "is off; start it", "vm", "is off", "start it" },
        { "is off", "vm", "is off", NULL },
        { "vm a: is off; or was; start it", "vm a", "is off; or was", "start it" },
        /* What is quoted is never split, */
        { "vm a: \"x; y: z\" is no file; give another", "vm a", "\"x; y: z\" is no file", "give another" },
        { "vm a: \"x; y\" is no file", "vm a", "\"x; y\" is no file", NULL },
        { "vm a: no file; is it \"x; y\"?", "vm a", "no file", "is it \"x; y\"?" },
        { "vm a: \"x\" is off; start \"y; z\"", "vm a", "\"x\" is off", "start \"y; z\"" },
        { "\"x: y; z\" is no file", "vm", "\"x: y; z\" is no file", NULL },
        { "vm a: \"\"; give a name", "vm a", "\"\"", "give a name" },
        /* but a quote that nothing closes quotes nothing. */
        { "vm a: 5\" is no size; give another", "vm a", "5\" is no size", "give another" },
        { "vm a: \"x\" y\"; give another", "vm a", "\"x\" y\"", "give another" },
        { "vm a: is off; \"", "vm a", "is off", "\"" },
        { "vm a: is off; ", "vm a", "is off", "" },
        { "vm a: is off;", "vm a", "is off;", NULL },
    };
    char one[80], want[160];

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        begin(false);
        strcpy(one, cases[i].text);
        assert_int_equal(out_error_text(&out, ERR_BUSY, "vm", one), ERR_BUSY);
        out_end(&out);
        snprintf(want, sizeof(want), "error: %s: %s%s%s\n", cases[i].object, cases[i].cause, cases[i].cure ? "; " : "",
                 cases[i].cure ? cases[i].cure : "");
        assert_string_equal(text, want);
        begin(true);
        strcpy(one, cases[i].text);
        (void)out_error_text(&out, ERR_BUSY, "vm", one);
        out_end(&out);
        assert_json_text("error.object", cases[i].object);
        assert_json_text("error.cause", cases[i].cause);
        assert_json_text("error.cure", cases[i].cure);
    }
}

static void errors_say_object_cause_and_cure(void **state)
{
    (void)state;
    begin(false);
    out_string(&out, "before", "x");
    assert_int_equal(out_error(&out, ERR_BUSY, "vm web\x1b", "stop it first", "is running on %s", "alpha"), ERR_BUSY);
    out_string(&out, "after", "not shown");
    out_end(&out);
    assert_string_equal(text, "before  x\nerror: vm web\\x1b: is running on alpha; stop it first\n");

    begin(true);
    out_array_begin(&out, "vms");
    out_object_begin(&out, NULL);
    out_string(&out, "name", "a");
    (void)out_error(&out, ERR_BUSY, "vm web", "stop it first", "is \"running\"");
    (void)out_error(&out, ERR_IO, "second", "none", "not shown");
    out_object_end(&out);
    out_end(&out);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "error.status", value), "\"busy\"");
    assert_string_equal(json_at(text, "error.object", value), "\"vm web\"");
    assert_string_equal(json_at(text, "error.cause", value), "\"is \\\"running\\\"\"");
    assert_string_equal(json_at(text, "error.cure", value), "\"stop it first\"");
    assert_string_equal(json_at(text, "vms.0.name", value), "\"a\"");
}

static void messages_are_lines_or_fields(void **state)
{
    (void)state;
    begin(false);
    out_message(&out, "vm %s: started", "web1");
    out_end(&out);
    assert_string_equal(text, "vm web1: started\n");
    begin(true);
    out_message(&out, "vm %s: started", "web1");
    out_end(&out);
    assert_string_equal(text, "{\"message\": \"vm web1: started\"}\n");
}

static void sizes_and_times_read_well(void **state)
{
    static const struct { uint64_t bytes; const char *text; } sizes[] = {
        { 0, "0 B" }, { 1023, "1023 B" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" }, { 256 * MIB, "256 MiB" },
        { GIB - 1, "1023.9 MiB" }, { 64 * GIB, "64 GiB" }, { UINT64_MAX, "15.9 EiB" },
    };
    static const struct { uint64_t ns; const char *text; } durations[] = {
        { 0, "0 ns" }, { 999, "999 ns" }, { 1500, "1.5 us" }, { 2050000, "2.0 ms" }, { 1234567890, "1.23 s" },
        { 125000000000, "2 min 5 s" }, { 7260000000000, "2 h 1 min" }, { 90000000000000, "1 d 1 h" },
        { UINT64_MAX, "213503 d 23 h" },
    };
    static const struct { uint64_t seconds; const char *text; } times[] = {
        { 0, "1970-01-01T00:00:00Z" }, { 951782400, "2000-02-29T00:00:00Z" }, { 1709251199, "2024-02-29T23:59:59Z" },
        { 4107542400, "2100-03-01T00:00:00Z" }, { 253402300799, "9999-12-31T23:59:59Z" },
        { 16725225599, "2499-12-31T23:59:59Z" },
    };
    char shown[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        out_format_bytes(shown, sizes[i].bytes);
        assert_string_equal(shown, sizes[i].text);
    }
    for (size_t i = 0; i < ARRAY_COUNT(durations); i++) {
        out_format_duration(shown, durations[i].ns);
        assert_string_equal(shown, durations[i].text);
    }
    for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
        out_format_time(shown, times[i].seconds);
        assert_string_equal(shown, times[i].text);
    }
    out_format_time(shown, UINT64_MAX);
}

/* Random structures with random texts: JSON is always valid, text always fits. */
static void random_structures_are_always_valid(void **state)
{
    static const char *const texts[] = {
        "a", "web1", "", "\x1b[31m", "caf\xc3\xa9", "a longer text with a few words in it", "\xff\xff",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    };
    static const char *const names[] = { "name", "state", "memory", "node_name", "x", "vms" };
    unsigned random = 1;

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        unsigned unique = 0;

        begin(round & 1);
        for (unsigned i = 0; i < 80; i++) {
            char name[32];

            random = random * 1664525u + 1013904223u;
            snprintf(name, sizeof(name), "%s_%u", names[(random >> 8) % ARRAY_COUNT(names)], unique++);
            switch ((random >> 16) % 10) {
            case 0: out_object_begin(&out, name); break;
            case 1: out_array_begin(&out, name); break;
            case 2:
            case 3: out_object_end(&out); break;
            case 4: out_uint(&out, name, random); break;
            case 5: out_bytes(&out, name, random); break;
            case 6: out_null(&out, name); break;
            default: out_string(&out, name, texts[(random >> 24) % ARRAY_COUNT(texts)]); break;
            }
        }
        out_end(&out);
        if (round & 1) {
            if (!json_valid(text))
                fail_msg("not JSON: %s", text);
        } else {
            check_lines(80);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_person_gets_lists_and_tables),
        cmocka_unit_test(a_program_gets_one_json_object),
        cmocka_unit_test(nothing_to_show_is_still_valid),
        cmocka_unit_test(a_table_alone_has_no_heading_line),
        cmocka_unit_test(hostile_texts_break_neither_form),
        cmocka_unit_test(wide_tables_are_cut_and_wrapped_to_the_terminal),
        cmocka_unit_test(tables_that_cannot_fit_become_records),
        cmocka_unit_test(long_values_wrap_in_lists),
        cmocka_unit_test(any_number_of_rows_streams),
        cmocka_unit_test(huge_cells_are_bounded),
        cmocka_unit_test(nesting_is_closed_however_the_command_ends),
        cmocka_unit_test(errors_say_object_cause_and_cure),
        cmocka_unit_test(one_text_is_split_into_an_error),
        cmocka_unit_test(messages_are_lines_or_fields),
        cmocka_unit_test(sizes_and_times_read_well),
        cmocka_unit_test(random_structures_are_always_valid),
    };

    return cmocka_run_group_tests_name("output", tests, NULL, NULL);
}
