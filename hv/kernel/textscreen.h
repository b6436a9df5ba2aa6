/* SPDX-License-Identifier: MIT */
/*
 * A screen of text on a linear framebuffer with 32 bits a pixel. Pure: it writes pixels to where it is told to, and
 * never reads one back (reading a framebuffer is very slow).
 *
 * There is no scrolling, for that would repaint the whole screen for each line. Text runs down the screen and goes on at
 * its top; the row after the newest one is kept blank, and marks where the newest text ends. So a line costs what it
 * paints itself and the erasing of one row, however large the screen is: each row's length is remembered, and only what
 * was painted is erased.
 */
#ifndef KERNEL_TEXTSCREEN_H
#define KERNEL_TEXTSCREEN_H

#include "kernel/types.h"

#define TEXTSCREEN_MAX_ROWS 512
#define TEXTSCREEN_TAB 8

struct textscreen {
    volatile uint32_t *pixels;
    uint32_t width, height, stride; /* pixels; stride: from a line to the next */
    uint32_t scale;                 /* a pixel of the font is scale x scale on the screen */
    uint32_t columns, rows;         /* cells */
    uint32_t foreground, background;
    uint32_t row, column;               /* where the next character goes; column may be = columns */
    bool line_ended;                    /* a newline came: the next character starts a new row */
    bool stop_at_bottom, stopped;       /* see textscreen_stop_at_bottom */
    uint16_t used[TEXTSCREEN_MAX_ROWS]; /* cells painted in each row, from its left */
};

/*
 * Makes a screen of what lies at `pixels`: `height` lines of `width` pixels, `stride` pixels apart, all of which the
 * caller owns. False, and the screen unusable, where not even 20 x 4 cells fit. Paints nothing: textscreen_clear next.
 */
bool textscreen_init(struct textscreen *screen, volatile uint32_t *pixels, uint32_t width, uint32_t height,
                     uint32_t stride) MUST_CHECK;

/* Colours as the framebuffer stores them; they hold for what is painted from now on. */
void textscreen_set_colours(struct textscreen *screen, uint32_t foreground, uint32_t background);

/* Paints the whole screen in the background colour; text goes on at its top. The one call that costs a whole screen. */
void textscreen_clear(struct textscreen *screen);

/* From now on text that does not fit above the bottom is dropped instead of going on at the top. */
void textscreen_stop_at_bottom(struct textscreen *screen);

/*
 * Writes text: newline, carriage return (ignored) and tab are obeyed, a UTF-8 sequence or anything else that is not
 * printable ASCII takes one cell as a box. What is wider than the screen goes on in the next row.
 */
void textscreen_write(struct textscreen *screen, const char *text, size_t count);

#endif
