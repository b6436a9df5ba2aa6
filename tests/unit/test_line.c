/* SPDX-License-Identifier: MIT */
/*
 * The line editor, driven by the bytes of a terminal and watched on a terminal: a small emulator interprets what the
 * editor writes, and after every key the row that it shows must be the line that the editor holds, with the cursor on
 * the right character. Random keys then look for a state where that is not so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/text.h"
#include "shell/line.h"

/* ---- A terminal of 80 columns; only the row with the cursor is looked at ---- */

enum { WIDTH = 80 };

static struct {
    char cell[WIDTH][16]; /* the character (with its accents) in each column; "" = the right half of a wide one */
    unsigned column;
    unsigned lines;       /* new lines so far */
    unsigned bells;
    unsigned clears;
    char before[4096];    /* the rows that were finished by a new line, blanks at their ends cut */
} screen;

static struct line line;

static void clear_from(unsigned column)
{
    for (; column < WIDTH; column++)
        strcpy(screen.cell[column], " ");
}

static void row_text(char *text)
{
    size_t end;

    *text = 0;
    for (unsigned i = 0; i < WIDTH; i++)
        strcat(text, screen.cell[i]);
    end = strlen(text);
    while (end && text[end - 1] == ' ')
        text[--end] = 0;
}

static size_t screen_escape(const char *bytes, size_t count)
{
    size_t used = 2;
    unsigned number = 0;

    assert_true(count > 2 && bytes[1] == '[');
    for (; used < count && bytes[used] >= '0' && bytes[used] <= '9'; used++)
        number = number * 10 + (unsigned)(bytes[used] - '0');
    assert_true(used < count);
    switch (bytes[used]) {
    case 'K': clear_from(screen.column); break;
    case 'C': screen.column += number; break;
    case 'H': screen.column = 0; break;
    case 'J': clear_from(0); screen.clears++; break;
    default: fail_msg("the terminal does not know ESC [ %u %c", number, bytes[used]);
    }
    return used + 1;
}

static void screen_character(const char *bytes, unsigned length, unsigned columns)
{
    if (!columns) {
        unsigned at = screen.column;

        while (at && !screen.cell[at - 1][0])
            at--;
        if (at && strlen(screen.cell[at - 1]) + length < sizeof(screen.cell[0]))
            strncat(screen.cell[at - 1], bytes, length);
        return;
    }
    if (screen.column + columns > WIDTH)
        fail_msg("the row wraps");
    snprintf(screen.cell[screen.column], sizeof(screen.cell[0]), "%.*s", (int)length, bytes);
    if (columns == 2)
        screen.cell[screen.column + 1][0] = 0;
    screen.column += columns;
}

static void screen_write(void *context, const char *bytes, size_t count)
{
    (void)context;
    while (count) {
        uint32_t code_point;
        unsigned length = utf8_decode(bytes, count, &code_point);
        size_t used = length;

        assert_int_not_equal(length, 0);
        switch (code_point) {
        case '\r': screen.column = 0; break;
        case '\a': screen.bells++; break;
        case '\b': screen.column -= screen.column > 0; break;
        case 0x1b: used = screen_escape(bytes, count); break;
        case '\n': {
            char row[WIDTH * 16];

            row_text(row);
            if (strlen(screen.before) + strlen(row) + 2 < sizeof(screen.before)) {
                strcat(screen.before, row);
                strcat(screen.before, "\n");
            }
            screen.column = 0;
            screen.lines++;
            clear_from(0);
            break;
        }
        default:
            assert_false(code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0));
            screen_character(bytes, length, utf8_columns(code_point));
        }
        bytes += used;
        count -= used;
    }
}

static const struct sink sink = { .write = screen_write };

/* ---- The check after every key ---- */

static unsigned columns_of(const char *text, size_t bytes)
{
    unsigned columns = 0;

    for (size_t at = 0; at < bytes;) {
        uint32_t code_point;
        unsigned length = utf8_decode(text + at, bytes - at, &code_point);

        assert_int_not_equal(length, 0);
        assert_false(code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0));
        columns += utf8_columns(code_point);
        at += length;
    }
    return columns;
}

/* The terminal shows the prompt and the line (or the part around the cursor), and its cursor is on line.cursor. */
static void check_screen(const char *prompt)
{
    unsigned start = (unsigned)strlen(prompt);
    unsigned total = columns_of(line.text, line.length);
    char row[WIDTH * 16];

    assert_int_equal(strlen(line.text), line.length);
    assert_true(line.cursor <= line.length);
    if (line.searching)
        return;
    row_text(row);
    assert_memory_equal(row, prompt, strlen(prompt) - 1); /* its last blank may be cut */
    if (start + total + 1 < WIDTH) {
        char expected[sizeof(line.text) + LINE_PROMPT_BYTES];
        size_t end;

        snprintf(expected, sizeof(expected), "%s%s", prompt, line.text);
        for (end = strlen(expected); end && expected[end - 1] == ' ';)
            expected[--end] = 0;
        assert_string_equal(row, expected);
        assert_int_equal(screen.column, start + columns_of(line.text, line.cursor));
    } else {
        const char *cell = screen.cell[screen.column];

        assert_true(screen.column >= start && screen.column < WIDTH);
        if (line.cursor == line.length)
            assert_string_equal(cell, " ");
        else if (line.cursor || (unsigned char)line.text[0] != 0xcc) /* an accent at the start joins the prompt */
            assert_memory_equal(cell, line.text + line.cursor, 1);
    }
}

#define PROMPT "tasuki:node> "

static void fresh(line_complete_fn complete)
{
    memset(&screen, 0, sizeof(screen));
    clear_from(0);
    line_init(&line, &sink, WIDTH, complete, NULL);
    line_start(&line, PROMPT);
}

/* Types bytes; each must leave the line unfinished and the screen right. */
static void keys(const char *bytes)
{
    for (; *bytes; bytes++) {
        assert_int_equal(line_feed(&line, (uint8_t)*bytes), LINE_MORE);
        check_screen(PROMPT);
    }
}

static void enter(const char *bytes)
{
    keys(bytes);
    assert_int_equal(line_feed(&line, '\r'), LINE_DONE);
}

static void again(void)
{
    line_start(&line, PROMPT);
}

/* The line is `before` and `after` with the cursor between. */
static void line_is(const char *before, const char *after)
{
    char expected[256];

    snprintf(expected, sizeof(expected), "%s%s", before, after);
    assert_string_equal(line.text, expected);
    assert_int_equal(line.cursor, strlen(before));
}

/* ---- Tests ---- */

static void typed_text_is_the_line(void **state)
{
    (void)state;
    fresh(NULL);
    enter("vm list");
    assert_string_equal(line.text, "vm list");
    assert_string_equal(screen.before, PROMPT "vm list\n");
}

static void enter_may_be_cr_lf_or_both(void **state)
{
    (void)state;
    fresh(NULL);
    enter("a");
    again();
    assert_int_equal(line_feed(&line, '\n'), LINE_MORE);
    keys("b");
    assert_int_equal(line_feed(&line, '\n'), LINE_DONE);
    again();
    assert_int_equal(line_feed(&line, '\n'), LINE_DONE);
    assert_string_equal(line.text, "");
}

static void the_cursor_moves_by_every_key(void **state)
{
    (void)state;
    fresh(NULL);
    keys("alpha beta-gamma");
    keys("\x01");
    line_is("", "alpha beta-gamma");
    keys("\x06\x1b[C\x1bOC");
    line_is("alp", "ha beta-gamma");
    keys("\x02\x1b[D");
    line_is("a", "lpha beta-gamma");
    keys("\x1b" "f");
    line_is("alpha", " beta-gamma");
    keys("\x1b[1;5C");
    line_is("alpha beta", "-gamma");
    keys("\x1b" "b");
    line_is("alpha ", "beta-gamma");
    keys("\x05\x1b[1;5D");
    line_is("alpha beta-", "gamma");
    keys("\x1b[H");
    line_is("", "alpha beta-gamma");
    keys("\x1b[F");
    line_is("alpha beta-gamma", "");
    keys("\x1b[1~\x1b[D");
    line_is("", "alpha beta-gamma");
    keys("\x1b[4~\x1b[C");
    line_is("alpha beta-gamma", "");
}

static void characters_and_words_are_deleted_cut_and_put_back(void **state)
{
    (void)state;
    fresh(NULL);
    keys("alpha beta-gamma");
    keys("\x7f\x08");
    line_is("alpha beta-gam", "");
    keys("\x01\x04\x1b[3~");
    line_is("", "pha beta-gam");
    keys("\x05\x17");
    line_is("pha ", "");
    keys("\x19\x19");
    line_is("pha beta-gambeta-gam", "");
    keys("\x1b\x7f");
    line_is("pha beta-gambeta-", "");
    keys("\x1b" "b\x0b\x19");
    line_is("pha beta-gambeta-", "");
    keys("\x1b" "b\x15");
    line_is("", "gambeta-");
    keys("\x1b" "d");
    line_is("", "-");
    keys("\x05" "ab\x14");
    line_is("-ba", "");
    keys("\x02\x14");
    line_is("-ab", "");
}

static void utf8_moves_and_is_deleted_whole(void **state)
{
    (void)state;
    fresh(NULL);
    keys("gr\xc3\xbc\xe6\xbc\xa2x");
    keys("\x02\x02");
    line_is("gr\xc3\xbc", "\xe6\xbc\xa2x");
    keys("\x14");
    line_is("gr\xe6\xbc\xa2\xc3\xbc", "x");
    keys("\x7f\x7f");
    line_is("gr", "x");
    keys("e\xcc\x81\x02\x1b[C\x7f");
    line_is("gr", "x");
    assert_int_equal(screen.bells, 0);
}

static void bytes_that_are_not_utf8_never_get_into_the_line(void **state)
{
    (void)state;
    fresh(NULL);
    keys("a\xff\x80\xc3(\xc2\x9b\xed\xa0\x80z");
    line_is("a(z", "");
    assert_true(screen.bells > 0);
    keys("\xe2\x82\x1b[D\xac");
    line_is("a(", "z");
}

static void escape_sequences_of_any_length_are_swallowed(void **state)
{
    (void)state;
    fresh(NULL);
    keys("a\x1b[99999999999999999999;1;2;3;4;5;6R\x1b]0;title\x07\x1bP1$r\x1b\\\x1b[[A\x1b[?1;2cb");
    line_is("ab", "");
    for (int i = 0; i < 2000; i++)
        keys("\x1b[");
    keys("\x1b[");
    for (int i = 0; i < 200; i++)
        assert_int_equal(line_feed(&line, '0'), LINE_MORE);
    assert_true(line.length < 200);
    assert_int_equal(line_feed(&line, '\r'), LINE_DONE);
}

static void long_lines_scroll_sideways(void **state)
{
    (void)state;
    fresh(NULL);
    for (int i = 0; i < 60; i++)
        keys("0123456789");
    for (int i = 0; i < 150; i++)
        keys("\x1b[D");
    keys("\x01\x05\x01");
    for (int i = 0; i < 150; i++)
        keys("\x1b[C");
    keys("inserted\x7f\x7f");
    keys("\x05\x15");
    line_is("", "");
    while (line.length < LINE_MAX_BYTES)
        assert_int_equal(line_feed(&line, 'x'), LINE_MORE);
    keys("y");
    assert_int_equal(screen.bells, 1);
    assert_int_equal(line.length, LINE_MAX_BYTES);
    keys("\x15\x19\x19");
    assert_int_equal(line.length, LINE_MAX_BYTES);
}

static void pasted_lines_come_one_by_one_and_complete_nothing(void **state)
{
    const char *paste = "\x1b[200~vm\tlist\x1b[A\x12\x1b[201~";

    (void)state;
    fresh(NULL);
    enter("old");
    again();
    keys(paste);
    line_is("vm list", "");
    assert_int_equal(line_feed(&line, '\r'), LINE_DONE);
    again();
    keys("\x1b[200~a");
    assert_int_equal(line_feed(&line, '\n'), LINE_DONE);
    again();
    keys("b\x1b[201~");
    line_is("b", "");
}

static void control_c_drops_the_line_and_control_d_ends(void **state)
{
    (void)state;
    fresh(NULL);
    keys("vm delete");
    assert_int_equal(line_feed(&line, 3), LINE_INTERRUPTED);
    assert_string_equal(line.text, "");
    assert_string_equal(screen.before, PROMPT "vm delete^C\n");
    again();
    assert_int_equal(line_feed(&line, 4), LINE_END);
    again();
    keys("\x1b[A");
    line_is("", "");
}

static void history_goes_back_and_forth_and_keeps_the_draft(void **state)
{
    (void)state;
    fresh(NULL);
    enter("one");
    again();
    enter("two");
    again();
    enter("two");
    again();
    enter("");
    again();
    enter(" secret");
    again();
    keys("draft\x1b[A");
    line_is("two", "");
    keys("\x10");
    line_is("one", "");
    keys("\x10");
    line_is("one", "");
    assert_int_equal(screen.bells, 1);
    keys("\x1b[B\x0e");
    line_is("draft", "");
    keys("\x0e");
    assert_int_equal(screen.bells, 2);
}

static void history_forgets_the_oldest_lines(void **state)
{
    static struct history history;
    static char text[HISTORY_BYTES + 1];
    unsigned count;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(text, sizeof(text), "command %u", i);
        history_add(&history, text);
    }
    count = history.count;
    assert_true(count > 250);
    assert_string_equal(history_get(&history, 0), "command 4999");
    snprintf(text, sizeof(text), "command %u", 5000 - count);
    assert_string_equal(history_get(&history, count - 1), text);
    assert_null(history_get(&history, count));
    assert_int_equal(history_find(&history, "4990", 0), 9);
    assert_int_equal(history_find(&history, "4990", 10), -1);
    memset(text, 'x', sizeof(text) - 1);
    text[HISTORY_BYTES] = 0;
    history_add(&history, text);
    assert_int_equal(history.count, count);
    text[HISTORY_BYTES - 1] = 0;
    history_add(&history, text);
    assert_int_equal(history.count, 1);
}

static void search_finds_older_lines(void **state)
{
    char row[WIDTH * 16];

    (void)state;
    fresh(NULL);
    enter("vm start web1");
    again();
    enter("vm start db1");
    again();
    enter("log show");
    again();
    keys("\x12sta");
    row_text(row);
    assert_string_equal(row, "search \"sta\": vm start db1");
    keys("\x12");
    row_text(row);
    assert_string_equal(row, "search \"sta\": vm start web1");
    keys("\x12");
    assert_int_equal(screen.bells, 1);
    keys("\x01");
    line_is("", "vm start web1");
    keys("\x15\x0b\x12" "db");
    assert_int_equal(line_feed(&line, '\r'), LINE_DONE);
    assert_string_equal(line.text, "vm start db1");
    again();
    keys("mine\x12zzz");
    row_text(row);
    assert_string_equal(row, "nothing with \"zzz\":");
    keys("\x7f\x7f\x7f\x07");
    line_is("mine", "");
}

static size_t complete_vms(void *context, const char *text, size_t cursor, struct offers *offers)
{
    static const char *const names[] = { "web1", "web2", "db", "gr\xc3\xbcn", "gr\xc3\xbb" };
    size_t start = cursor;

    (void)context;
    while (start && text[start - 1] != ' ')
        start--;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (strncmp(names[i], text + start, cursor - start) == 0)
            offers_add(offers, names[i]);
    }
    return start;
}

static void tab_completes_and_lists(void **state)
{
    (void)state;
    fresh(complete_vms);
    keys("vm start d\t");
    line_is("vm start db ", "");
    keys("w\t");
    line_is("vm start db web", "");
    assert_int_equal(screen.bells, 0);
    keys("\t");
    assert_int_equal(screen.bells, 1);
    keys("\t");
    assert_string_equal(screen.before, PROMPT "vm start db web\nweb1  web2\n");
    line_is("vm start db web", "");
    keys("2\t");
    line_is("vm start db web2 ", "");
    keys("x\t");
    assert_int_equal(screen.bells, 2);
    keys("\x7fg\t");
    line_is("vm start db web2 gr", ""); /* not half of a character */
    keys("\x01");
    keys("\x1b" "f\x1b" "f d\t");
    line_is("vm start db", " db web2 gr");
}

static size_t complete_many(void *context, const char *text, size_t cursor, struct offers *offers)
{
    char name[32];

    (void)context;
    (void)text;
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "machine-%03u", i);
        offers_add(offers, name);
    }
    offers_add(offers, "bad\x1b[2J");
    return cursor;
}

static void long_lists_of_offers_are_cut(void **state)
{
    (void)state;
    fresh(complete_many);
    keys("machine-\t\t");
    assert_non_null(strstr(screen.before, "\nmachine-000  "));
    assert_non_null(strstr(screen.before, "\n... and "));
    assert_true(screen.lines <= 22);
    assert_int_equal(screen.clears, 0);
}

static void output_can_come_while_a_line_is_edited(void **state)
{
    (void)state;
    fresh(NULL);
    keys("half a li");
    line_hide(&line);
    screen_write(NULL, "vm demo: stopped\n", 17);
    line_show(&line);
    check_screen(PROMPT);
    assert_string_equal(screen.before, "vm demo: stopped\n");
    keys("\x0c");
    assert_int_equal(screen.clears, 1);
}

static void random_keys_never_confuse_screen_and_line(void **state)
{
    static const char *const pieces[] = {
        "a", "b", " ", "vm start ", "-", "\xc3\xbc", "\xe6\xbc\xa2", "\xcc\x81", "\xf0\x9f\x98\x80", "\x01",
        "\x02", "\x04", "\x05", "\x06", "\x08", "\x0b", "\x0c", "\x14", "\x15", "\x17", "\x19", "\x19", "\x10",
        "\x0e", "\x12", "\x07", "\t", "\t\t", "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[H", "\x1b[F",
        "\x1b[3~", "\x1b" "b", "\x1b" "f", "\x1b" "d", "\x1b\x7f", "\x1b[200~", "\x1b[201~", "\xff",
        "\x1b[1;5D", "0123456789012345678901234567890123456789", "\x7f", "w", "d", "gr",
    };
    const char *seed = getenv("TEST_SEED"); /* to look further by hand */
    unsigned random = seed ? (unsigned)atoi(seed) : 1;

    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        fresh(complete_vms);
        for (unsigned i = 0; i < 600; i++) {
            const char *piece;

            random = random * 1664525u + 1013904223u;
            piece = pieces[(random >> 12) % ARRAY_COUNT(pieces)];
            if ((random >> 8) % 50 == 0)
                piece = "\r";
            for (; *piece; piece++) {
                enum line_result result = line_feed(&line, (uint8_t)*piece);

                if (result != LINE_MORE)
                    again();
                check_screen(PROMPT);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typed_text_is_the_line),
        cmocka_unit_test(enter_may_be_cr_lf_or_both),
        cmocka_unit_test(the_cursor_moves_by_every_key),
        cmocka_unit_test(characters_and_words_are_deleted_cut_and_put_back),
        cmocka_unit_test(utf8_moves_and_is_deleted_whole),
        cmocka_unit_test(bytes_that_are_not_utf8_never_get_into_the_line),
        cmocka_unit_test(escape_sequences_of_any_length_are_swallowed),
        cmocka_unit_test(long_lines_scroll_sideways),
        cmocka_unit_test(pasted_lines_come_one_by_one_and_complete_nothing),
        cmocka_unit_test(control_c_drops_the_line_and_control_d_ends),
        cmocka_unit_test(history_goes_back_and_forth_and_keeps_the_draft),
        cmocka_unit_test(history_forgets_the_oldest_lines),
        cmocka_unit_test(search_finds_older_lines),
        cmocka_unit_test(tab_completes_and_lists),
        cmocka_unit_test(long_lists_of_offers_are_cut),
        cmocka_unit_test(output_can_come_while_a_line_is_edited),
        cmocka_unit_test(random_keys_never_confuse_screen_and_line),
    };

    return cmocka_run_group_tests_name("line", tests, NULL, NULL);
}
