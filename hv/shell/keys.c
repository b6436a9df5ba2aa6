/* SPDX-License-Identifier: MIT */
/*
 * The decoder of a terminal's bytes: escape sequences (ECMA-48, with the parameters that xterm gives its keys) and
 * UTF-8, one byte at a time. See keys.h.
 *
 * A lone ESC is not told from the start of a sequence by time, since there is no clock here: ESC and then a letter is
 * Alt with that letter.
 */
#include "shell/keys.h"

#include "kernel/text.h"

#define ESCAPE_MAX_BYTES 64
#define PARAMETERS_FOREIGN 99 /* the sequence is of a kind that no key here sends (ESC [ [ A, ESC [ ? 1 c) */

/* The key of a finished ESC [ ... `last` sequence. A second parameter of 2 or more is a modifier (xterm). */
static enum key csi_key(struct keys *keys, uint8_t last)
{
    bool modified = keys->parameter_count > 1 && keys->parameter[1] > 1;

    if (keys->parameter_count == PARAMETERS_FOREIGN)
        return KEY_NONE;
    switch (last) {
    case 'A': return KEY_UP;
    case 'B': return KEY_DOWN;
    case 'C': return modified ? KEY_WORD_RIGHT : KEY_RIGHT;
    case 'D': return modified ? KEY_WORD_LEFT : KEY_LEFT;
    case 'H': return KEY_HOME;
    case 'F': return KEY_END;
    case '~':
        break;
    default:
        return KEY_NONE;
    }
    switch (keys->parameter[0]) {
    case 1: case 7: return KEY_HOME;
    case 3: return KEY_DELETE;
    case 4: case 8: return KEY_END;
    case 200: keys->pasting = true; return KEY_NONE;
    case 201: keys->pasting = false; return KEY_NONE;
    default: return KEY_NONE;
    }
}

static enum key alt_key(uint8_t byte)
{
    switch (byte) {
    case 'b': case 'B': return KEY_WORD_LEFT;
    case 'f': case 'F': return KEY_WORD_RIGHT;
    case 'd': case 'D': return KEY_CUT_WORD;
    case CTRL('H'): case 0x7f: return KEY_CUT_WORD_BEFORE;
    default: return KEY_NONE;
    }
}

static void escape_parameter(struct keys *keys, uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        if (!keys->parameter_count)
            keys->parameter_count = 1;
        if (keys->parameter_count <= ARRAY_COUNT(keys->parameter)) {
            unsigned *value = &keys->parameter[keys->parameter_count - 1];

            *value = MIN(*value * 10 + (unsigned)(byte - '0'), 9999u);
        }
    } else if (byte == ';' && keys->parameter_count != PARAMETERS_FOREIGN) {
        keys->parameter_count = MIN(MAX(keys->parameter_count, 1u) + 1, 3u);
    } else {
        keys->parameter_count = PARAMETERS_FOREIGN;
    }
}

static void escape_begin(struct keys *keys, uint8_t byte)
{
    keys->parameter[0] = keys->parameter[1] = 0;
    keys->parameter_count = 0;
    keys->escape_bytes = 0;
    keys->escape = byte == '[' ? ESCAPE_CSI : byte == 'O' ? ESCAPE_SS3 : ESCAPE_STRING;
}

/*
 * A byte inside an escape sequence (ECMA-48 5.4: parameters and intermediates, then one final byte 0x40 to 0x7e).
 * Returns the key it completes, KEY_NONE where it does not, or the byte itself where it ended the sequence early.
 */
static unsigned escape_byte(struct keys *keys, uint8_t byte)
{
    enum keys_escape state = keys->escape;

    if (byte == 0x1b) {
        keys->escape = ESCAPE_START;
        return KEY_NONE;
    }
    if (byte < 0x20 && !(state == ESCAPE_START && byte == CTRL('H'))) {
        keys->escape = ESCAPE_NONE;
        return state == ESCAPE_STRING && byte == '\a' ? KEY_NONE : byte;
    }
    if (state == ESCAPE_START) {
        if (byte == '[' || byte == 'O' || byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_') {
            escape_begin(keys, byte);
            return KEY_NONE;
        }
        keys->escape = ESCAPE_NONE;
        return alt_key(byte);
    }
    keys->escape_bytes++;
    if (state == ESCAPE_SS3 || (state == ESCAPE_CSI && byte >= 0x40 && byte != '[')) {
        keys->escape = ESCAPE_NONE;
        return byte < 0x7f ? csi_key(keys, byte) : KEY_NONE;
    }
    if (state == ESCAPE_CSI)
        escape_parameter(keys, byte);
    if (keys->escape_bytes >= ESCAPE_MAX_BYTES)
        keys->escape = ESCAPE_NONE;
    return KEY_NONE;
}

/* A byte of text: collected until the character is whole. */
static unsigned text_byte(struct keys *keys, uint8_t byte)
{
    bool continues = (byte & 0xc0) == 0x80;
    uint8_t lead;
    uint32_t code_point;

    if (continues != (keys->pending_count > 0)) {
        keys->pending_count = 0;
        if (continues)
            return KEY_BAD;
    }
    keys->pending[keys->pending_count++] = (char)byte;
    lead = (uint8_t)keys->pending[0];
    keys->text_bytes = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (keys->pending_count < keys->text_bytes)
        return KEY_NONE;
    keys->pending_count = 0;
    if (!utf8_decode(keys->pending, keys->text_bytes, &code_point) || (code_point >= 0x7f && code_point < 0xa0))
        return KEY_BAD;
    for (unsigned i = 0; i < keys->text_bytes; i++)
        keys->text[i] = keys->pending[i];
    return KEY_TEXT;
}

/* A control character or a named key, as the state (after CR, in a paste) lets it through. */
static unsigned control_key(struct keys *keys, unsigned key)
{
    bool after_cr = keys->after_cr;

    keys->pending_count = 0;
    keys->after_cr = key == '\r';
    if (key == '\n' && after_cr)
        return KEY_NONE;
    if (keys->pasting && key != '\r' && key != '\n' && key != CTRL('C'))
        return KEY_NONE;
    return key;
}

unsigned keys_feed(struct keys *keys, uint8_t byte)
{
    unsigned key = byte;

    if (keys->escape != ESCAPE_NONE) {
        key = escape_byte(keys, byte);
        if (key == KEY_NONE)
            return KEY_NONE;
    } else if (byte == 0x1b) {
        keys->escape = ESCAPE_START;
        keys->pending_count = 0;
        return KEY_NONE;
    }
    if (keys->pasting && key == '\t')
        key = ' ';
    if (key < 0x20 || key >= KEY_NONE || key == 0x7f)
        return control_key(keys, key);
    keys->after_cr = false;
    return text_byte(keys, (uint8_t)key);
}
