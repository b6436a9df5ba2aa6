/* SPDX-License-Identifier: MIT */
/* The font of the framebuffer console: printable ASCII in cells of 8 x 16 pixels. Pure. */
#ifndef KERNEL_FONT_H
#define KERNEL_FONT_H

#define FONT_WIDTH 8
#define FONT_HEIGHT 16

/*
 * FONT_WIDTH characters, '#' for a set pixel and '.' for one that is not, left to right: line y (below FONT_HEIGHT, from
 * the top) of the character. What is not printable ASCII looks like a hollow box. Not NUL-terminated.
 */
const char *font_line(unsigned char character, unsigned y);

#endif
