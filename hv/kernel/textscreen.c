/* SPDX-License-Identifier: MIT */
/*
 * Painting text. All writes go from left to right and line by line over as many cells as there are together, so that a
 * write-combining mapping turns them into bursts.
 */
#include "kernel/textscreen.h"

#include <string.h>

#include "kernel/font.h"

#define WIDE_PIXELS 1600 /* from here on the font is doubled: 100 columns or more are left */
#define MIN_COLUMNS 20
#define MIN_ROWS 4
#define BOX 0x7f /* not printable: font_line() draws its box */

bool textscreen_init(struct textscreen *screen, volatile uint32_t *pixels, uint32_t width, uint32_t height, uint32_t stride)
{
    memset(screen, 0, sizeof *screen);
    screen->pixels = pixels;
    screen->width = width;
    screen->height = height;
    screen->stride = stride;
    screen->scale = width >= WIDE_PIXELS ? 2 : 1;
    screen->columns = MIN(width / (FONT_WIDTH * screen->scale), UINT16_MAX);
    screen->rows = MIN(height / (FONT_HEIGHT * screen->scale), TEXTSCREEN_MAX_ROWS);
    screen->foreground = 0xffffffff;
    return stride >= width && screen->columns >= MIN_COLUMNS && screen->rows >= MIN_ROWS;
}

void textscreen_set_colours(struct textscreen *screen, uint32_t foreground, uint32_t background)
{
    screen->foreground = foreground;
    screen->background = background;
}

/* A rectangle in the background colour. */
static void erase(struct textscreen *screen, uint32_t top, uint32_t lines, uint32_t width)
{
    for (uint32_t y = top; y < top + lines; y++) {
        volatile uint32_t *line = screen->pixels + (size_t)y * screen->stride;
        for (uint32_t x = 0; x < width; x++)
            line[x] = screen->background;
    }
}

static void erase_row(struct textscreen *screen, uint32_t row)
{
    uint32_t cell_height = FONT_HEIGHT * screen->scale;

    erase(screen, row * cell_height, cell_height, screen->used[row] * FONT_WIDTH * screen->scale);
    screen->used[row] = 0;
}

void textscreen_clear(struct textscreen *screen)
{
    erase(screen, 0, screen->height, screen->width);
    memset(screen->used, 0, sizeof screen->used);
    screen->row = screen->column = 0;
    screen->line_ended = screen->stopped = false;
}

void textscreen_stop_at_bottom(struct textscreen *screen)
{
    screen->stop_at_bottom = true;
}

/* Paints `count` cells of the row that text goes to, all of which fit. */
static void paint(struct textscreen *screen, const unsigned char *characters, uint32_t count)
{
    uint32_t scale = screen->scale;
    size_t start = (size_t)screen->row * FONT_HEIGHT * scale * screen->stride + screen->column * FONT_WIDTH * scale;

    for (uint32_t y = 0; y < FONT_HEIGHT * scale; y++) {
        volatile uint32_t *pixel = screen->pixels + start + (size_t)y * screen->stride;
        for (uint32_t i = 0; i < count; i++) {
            const char *line = font_line(characters[i], y / scale);
            for (uint32_t x = 0; x < FONT_WIDTH; x++) {
                uint32_t colour = line[x] == '#' ? screen->foreground : screen->background;
                for (uint32_t repeat = 0; repeat < scale; repeat++)
                    *pixel++ = colour;
            }
        }
    }
    screen->column += count;
    screen->used[screen->row] = (uint16_t)screen->column;
}

/* The row is blank already: it was erased when text came to the one before. */
static void next_row(struct textscreen *screen)
{
    uint32_t next = screen->row + 1 < screen->rows ? screen->row + 1 : 0;
    uint32_t after = next + 1 < screen->rows ? next + 1 : 0;

    screen->line_ended = false;
    if (!next && screen->stop_at_bottom) {
        screen->stopped = true;
        return;
    }
    screen->row = next;
    screen->column = 0;
    if (after || !screen->stop_at_bottom)
        erase_row(screen, after);
}

/* True if the byte goes on with the UTF-8 sequence whose first byte had its box. */
static bool is_continuation(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

void textscreen_write(struct textscreen *screen, const char *text, size_t count)
{
    unsigned char run[32];
    uint32_t length = 0;

    for (size_t i = 0; i <= count && !screen->stopped; i++) {
        unsigned char byte = i < count ? (unsigned char)text[i] : '\n';
        bool cell = byte != '\n' && byte != '\r' && byte != '\t';

        /* What is gathered is painted when it is full, reaches the margin, or something else comes. */
        if (length && (!cell || length == sizeof run || screen->column + length == screen->columns)) {
            paint(screen, run, length);
            length = 0;
        }
        if (i == count)
            return;
        if (byte == '\r' || is_continuation(byte))
            continue;
        if (screen->line_ended || (screen->column == screen->columns && byte != '\n'))
            next_row(screen);
        if (screen->stopped)
            return;
        if (byte == '\n') {
            screen->line_ended = true;
        } else if (byte == '\t') {
            static const unsigned char blanks[TEXTSCREEN_TAB] = "        ";
            uint32_t to_stop = TEXTSCREEN_TAB - screen->column % TEXTSCREEN_TAB;
            paint(screen, blanks, MIN(to_stop, screen->columns - screen->column));
        } else {
            run[length++] = byte >= 0x20 && byte < 0x7f ? byte : BOX;
        }
    }
}
