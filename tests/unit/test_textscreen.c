/* SPDX-License-Identifier: MIT */
/*
 * The text screen paints into an array that stands for a framebuffer. The tests read text back by comparing cells with
 * the font, so they see what a person would. Guarded: text lands where it should, nothing is painted outside the visible
 * pixels, a line's cost does not depend on the size of the screen, and the font has a shape of its own for each character.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/font.h"
#include "kernel/textscreen.h"

#define INK 0x00c8c8c8u
#define PAPER 0x00101010u
#define OUTSIDE 0xdeadbeefu

struct fixture {
    struct textscreen screen;
    uint32_t *pixels;
    uint32_t width, height, stride;
};

static void start(struct fixture *f, uint32_t width, uint32_t height, uint32_t stride)
{
    f->width = width;
    f->height = height;
    f->stride = stride;
    f->pixels = malloc((size_t)stride * height * sizeof *f->pixels);
    for (size_t i = 0; i < (size_t)stride * height; i++)
        f->pixels[i] = OUTSIDE;
    assert_true(textscreen_init(&f->screen, f->pixels, width, height, stride));
    textscreen_set_colours(&f->screen, INK, PAPER);
    textscreen_clear(&f->screen);
}

static void put(struct fixture *f, const char *text)
{
    textscreen_write(&f->screen, text, strlen(text));
}

static void end(struct fixture *f)
{
    for (uint32_t y = 0; y < f->height; y++)
        for (uint32_t x = f->width; x < f->stride; x++)
            assert_int_equal(f->pixels[(size_t)y * f->stride + x], OUTSIDE);
    free(f->pixels);
}

static bool cell_shows(const struct fixture *f, uint32_t row, uint32_t column, unsigned char c)
{
    uint32_t scale = f->screen.scale;

    for (uint32_t y = 0; y < FONT_HEIGHT * scale; y++)
        for (uint32_t x = 0; x < FONT_WIDTH * scale; x++) {
            uint32_t pixel = f->pixels[(size_t)(row * FONT_HEIGHT * scale + y) * f->stride + column * FONT_WIDTH * scale + x];
            if (pixel != (font_line(c, y / scale)[x / scale] == '#' ? INK : PAPER))
                return false;
        }
    return true;
}

/* The row's text without the blanks at its end; 0x7f stands for the box. */
static const char *row_text(const struct fixture *f, uint32_t row)
{
    static char text[1024];
    uint32_t length = 0;

    for (uint32_t column = 0; column < f->screen.columns; column++) {
        unsigned char c = 0x20;
        while (!cell_shows(f, row, column, c)) {
            c++;
            assert_true(c <= 0x7f);
        }
        text[column] = (char)c;
        if (c != ' ')
            length = column + 1;
    }
    text[length] = '\0';
    return text;
}

static void every_character_has_a_shape_of_its_own(void **state)
{
    (void)state;
    for (unsigned a = 0x20; a <= 0x7f; a++) {
        unsigned set = 0;
        for (unsigned y = 0; y < FONT_HEIGHT; y++) {
            const char *line = font_line((unsigned char)a, y);
            for (unsigned x = 0; x < FONT_WIDTH; x++) {
                assert_true(line[x] == '#' || line[x] == '.');
                set += line[x] == '#';
            }
            /* A neighbour's column stays free, so that letters do not touch; the underscore shall. */
            assert_true(line[FONT_WIDTH - 1] == '.' || a == '_');
            assert_true(line[FONT_WIDTH] == (a % 8 == 7 ? '\0' : ' '));
        }
        assert_true(a == ' ' ? set == 0 : set > 0);
        for (unsigned b = 0x20; b < a; b++) {
            unsigned same = 0;
            for (unsigned y = 0; y < FONT_HEIGHT; y++)
                same += !memcmp(font_line((unsigned char)a, y), font_line((unsigned char)b, y), FONT_WIDTH);
            assert_int_not_equal(same, FONT_HEIGHT);
        }
    }
    for (unsigned c = 0x80; c < 0x100; c++)
        assert_ptr_equal(font_line((unsigned char)c, 0), font_line(0x7f, 0));
    assert_ptr_equal(font_line(0, 0), font_line(0x7f, 0));
}

static void too_small_a_screen_is_refused(void **state)
{
    struct textscreen screen;
    uint32_t pixel;
    (void)state;

    assert_false(textscreen_init(&screen, &pixel, 159, 600, 159));
    assert_false(textscreen_init(&screen, &pixel, 800, 63, 800));
    assert_false(textscreen_init(&screen, &pixel, 800, 600, 799));
    assert_true(textscreen_init(&screen, &pixel, 160, 64, 160));
}

static void text_lands_in_its_cells(void **state)
{
    struct fixture f;
    (void)state;

    start(&f, 200, 100, 224); /* 25 x 6 cells and a few pixels more at each side */
    assert_int_equal(f.screen.columns, 25);
    assert_int_equal(f.screen.rows, 6);
    put(&f, "[    0.000000] Tasuki\r\n");
    put(&f, "a\tb\n\nAn umlaut: ");
    put(&f, "\xc3\xa4\x01");
    assert_string_equal(row_text(&f, 0), "[    0.000000] Tasuki");
    assert_string_equal(row_text(&f, 1), "a       b");
    assert_string_equal(row_text(&f, 2), "");
    assert_string_equal(row_text(&f, 3), "An umlaut: \x7f\x7f");
    assert_string_equal(row_text(&f, 4), "");
    /* The strip below the last row was cleared as well. */
    assert_int_equal(f.pixels[99 * 224 + 199], PAPER);
    end(&f);
}

static void a_long_line_goes_on_in_the_next_row(void **state)
{
    struct fixture f;
    (void)state;

    start(&f, 160, 96, 160);
    put(&f, "12345678901234567890\n"); /* just fits: no blank row after it */
    put(&f, "abcdefghijklmnopqrstuvwxyz\n");
    put(&f, "1234567890123456789\tx");
    assert_string_equal(row_text(&f, 0), "12345678901234567890");
    assert_string_equal(row_text(&f, 1), "abcdefghijklmnopqrst");
    assert_string_equal(row_text(&f, 2), "uvwxyz");
    assert_string_equal(row_text(&f, 3), "1234567890123456789");
    assert_string_equal(row_text(&f, 4), "x");
    end(&f);
}

static void text_goes_on_at_the_top(void **state)
{
    struct fixture f;
    char line[32];
    (void)state;

    start(&f, 160, 80, 160); /* 5 rows */
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, i % 3 ? "line %u\n" : "line %u, longer\n", i);
        put(&f, line);
        line[strlen(line) - 1] = '\0';
        assert_string_equal(row_text(&f, i % 5), line);
        if (i >= 4)
            assert_string_equal(row_text(&f, (i + 1) % 5), "");
        if (i >= 3) {
            snprintf(line, sizeof line, (i - 3) % 3 ? "line %u" : "line %u, longer", i - 3);
            assert_string_equal(row_text(&f, (i - 3) % 5), line);
        }
    }
    end(&f);
}

static void wide_screens_get_large_letters(void **state)
{
    struct fixture f;
    (void)state;

    start(&f, 1920, 1080, 1920);
    assert_int_equal(f.screen.scale, 2);
    assert_int_equal(f.screen.columns, 120);
    assert_int_equal(f.screen.rows, 33);
    put(&f, "PANIC on CPU 0\nrax 0123456789abcdef");
    assert_string_equal(row_text(&f, 0), "PANIC on CPU 0");
    assert_string_equal(row_text(&f, 1), "rax 0123456789abcdef");
    end(&f);
}

/* Pixels are compared before and after: what a line touches is its own text and the row that it erases. */
static void a_line_costs_what_it_paints(void **state)
{
    struct fixture f;
    size_t pixels = (size_t)3840 * 2160, changed = 0;
    (void)state;

    start(&f, 3840, 2160, 3840);
    for (unsigned i = 0; i < 200; i++)
        put(&f, "0123456789012345678901234567890123456789012345678901234567890123456789\n");
    for (size_t i = 0; i < pixels; i++)
        f.pixels[i] = OUTSIDE;
    put(&f, "0123456789\n");
    for (size_t i = 0; i < pixels; i++)
        changed += f.pixels[i] != OUTSIDE;
    assert_int_equal(changed, (10 + 70) * FONT_WIDTH * FONT_HEIGHT * 4);
    free(f.pixels);
}

static void a_report_keeps_its_beginning(void **state)
{
    struct fixture f;
    char line[16];
    (void)state;

    start(&f, 160, 80, 160);
    textscreen_stop_at_bottom(&f.screen);
    for (unsigned i = 0; i < 20; i++) {
        snprintf(line, sizeof line, "line %u\n", i);
        put(&f, line);
    }
    for (unsigned i = 0; i < 5; i++) {
        snprintf(line, sizeof line, "line %u", i);
        assert_string_equal(row_text(&f, i), line);
    }
    textscreen_clear(&f.screen);
    put(&f, "again");
    assert_string_equal(row_text(&f, 0), "again");
    end(&f);
}

/* Any bytes, in any pieces, give what the same bytes give at once. */
static void pieces_do_not_matter(void **state)
{
    struct fixture whole, pieces;
    char text[4096];
    (void)state;

    srand(1);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(rand() % 8 ? 0x20 + rand() % 95 : rand() % 256);
    start(&whole, 168, 120, 168);
    start(&pieces, 168, 120, 168);
    textscreen_write(&whole.screen, text, sizeof text);
    for (size_t i = 0; i < sizeof text;) {
        size_t count = MIN((size_t)(rand() % 70), sizeof text - i);
        textscreen_write(&pieces.screen, text + i, count);
        i += count;
    }
    assert_memory_equal(whole.pixels, pieces.pixels, 168 * 120 * sizeof *whole.pixels);
    end(&whole);
    end(&pieces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_has_a_shape_of_its_own),
        cmocka_unit_test(too_small_a_screen_is_refused),
        cmocka_unit_test(text_lands_in_its_cells),
        cmocka_unit_test(a_long_line_goes_on_in_the_next_row),
        cmocka_unit_test(text_goes_on_at_the_top),
        cmocka_unit_test(wide_screens_get_large_letters),
        cmocka_unit_test(a_line_costs_what_it_paints),
        cmocka_unit_test(a_report_keeps_its_beginning),
        cmocka_unit_test(pieces_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
