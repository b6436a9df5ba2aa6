/* SPDX-License-Identifier: MIT */
/*
 * The line editor: keys of a VT100 in, one byte at a time, and what the terminal must show out, to a sink. Pure core:
 * no clock, no thread, no allocation; any bytes at all are safe.
 *
 * The line takes one row of the terminal and scrolls sideways where it is longer ('<' and '>' show that there is more).
 * The line is always valid UTF-8 without control characters: what is not is dropped at the door with a bell.
 *
 *   ^A ^E Home End ^B ^F arrows      move; alt-B, alt-F and ctrl-arrows by words
 *   ^H Backspace ^D Delete           delete a character (^D on an empty line: LINE_END)
 *   ^K ^U ^W alt-D alt-Backspace     cut to the end, to the start, a word; ^Y puts it back; ^T swaps two characters
 *   ^P ^N up down                    history; ^R searches it backwards, ^G gives up
 *   Tab                              completes; twice: lists
 *   ^L ^C Enter                      clear the screen, drop the line, done
 *
 * A tab in pasted text (where the terminal marks it: ESC [200~ ... ESC [201~) is a space and completes nothing.
 */
#ifndef SHELL_LINE_H
#define SHELL_LINE_H

#include "kernel/types.h"
#include "shell/history.h"
#include "shell/keys.h"
#include "shell/offers.h"
#include "shell/sink.h"

#define LINE_MAX_BYTES 4000
#define LINE_PROMPT_BYTES 128
#define LINE_QUERY_BYTES 64

enum line_result {
    LINE_MORE,        /* the line is still being edited */
    LINE_DONE,        /* line->text is what was entered */
    LINE_INTERRUPTED, /* ^C: line->text is empty */
    LINE_END,         /* ^D on an empty line */
};

/*
 * Offers what may stand at the cursor of `text`: returns where (a byte of the text, at most `cursor`) the word begins
 * that the offers would replace, up to the cursor.
 */
typedef size_t (*line_complete_fn)(void *context, const char *text, size_t cursor, struct offers *offers);

/* 20 KiB: never on a stack. Only `text` and `history` are for others to look at. */
struct line {
    char text[LINE_MAX_BYTES + 1]; /* NUL-terminated UTF-8 */
    size_t length;
    size_t cursor;
    struct history history;

    const struct sink *sink;
    unsigned columns; /* of the terminal */
    line_complete_fn complete;
    void *complete_context;
    char prompt[LINE_PROMPT_BYTES];
    size_t first; /* byte of text that is shown first */
    int age;      /* of the history line that is shown; -1 = the new line */
    char draft[LINE_MAX_BYTES + 1]; /* the new line, while an old one is shown */
    char cut[LINE_MAX_BYTES + 1];
    struct offers offers;
    bool tab_before; /* the last key was a tab that completed nothing */

    bool searching;
    char query[LINE_QUERY_BYTES];
    int found; /* age of the line that was found, or -1 */
    struct keys keys;
};

/* `columns` is the terminal's width (20 or more); `complete` may be NULL. The sink must outlive the line. */
void line_init(struct line *line, const struct sink *sink, unsigned columns, line_complete_fn complete, void *context);

/* Begins an empty line: writes the prompt (cut at LINE_PROMPT_BYTES - 1), and keys may come. */
void line_start(struct line *line, const char *prompt);

/* One byte from the terminal. After anything but LINE_MORE, call line_start before the next byte. */
enum line_result line_feed(struct line *line, uint8_t byte) MUST_CHECK;

/* For output that comes while a line is being edited: takes the line off the screen, and brings it back below. */
void line_hide(struct line *line);
void line_show(struct line *line);

#endif
