/* SPDX-License-Identifier: MIT */
/*
 * Bytes of a VT100 (or anything that calls itself an xterm) to keys. Pure core; any bytes are safe: an escape sequence
 * ends after a bounded number of bytes whatever it says, and text that is not UTF-8 never becomes a character.
 */
#ifndef SHELL_KEYS_H
#define SHELL_KEYS_H

#include "kernel/types.h"

/* A key is a control character (below 0x20, or 0x7f) or one of these. */
enum key {
    KEY_NONE = 0x100, /* nothing yet */
    KEY_TEXT,         /* a character: keys->text */
    KEY_BAD,          /* bytes that are no character were dropped */
    KEY_LEFT,
    KEY_RIGHT,
    KEY_UP,
    KEY_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_CUT_WORD,
    KEY_CUT_WORD_BEFORE,
};

#define CTRL(c) ((c) & 0x1f)

enum keys_escape { ESCAPE_NONE, ESCAPE_START, ESCAPE_CSI, ESCAPE_SS3, ESCAPE_STRING };

/* All zero is the state at the start. */
struct keys {
    char text[4]; /* with KEY_TEXT: one valid UTF-8 character, no control character */
    unsigned text_bytes;

    enum keys_escape escape;
    unsigned escape_bytes;
    unsigned parameter[2];
    unsigned parameter_count;
    bool pasting; /* between ESC [ 200 ~ and ESC [ 201 ~: a tab is a space, and only Enter and ^C are keys */
    bool after_cr;
    char pending[4]; /* an unfinished character */
    unsigned pending_count;
};

/* Takes one byte; returns the key it completes. Enter is '\r' or '\n' (CR LF is one key). */
unsigned keys_feed(struct keys *keys, uint8_t byte) MUST_CHECK;

#endif
