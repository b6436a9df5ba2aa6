/* SPDX-License-Identifier: MIT */
/*
 * The line editor. See line.h for what it does.
 *
 * Layers, from the bottom: characters (utf8, columns), drawing (draw() derives the whole row from the state), edits
 * (each changes text and cursor and leaves drawing to the caller), history and search, completion, keys. The bytes that
 * a terminal sends become keys in keys.c.
 *
 * Invariants: text[0, length) is valid UTF-8 without control characters and text[length] is 0; first <= length and
 * cursor <= length stand between characters.
 */
#include "shell/line.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

#define LIST_ROWS 20
#define MIN_TEXT_COLUMNS 8
#define MARGIN 3 /* columns that the window keeps from the cursor on: a wide character and the mark */

/* ---- Characters ---- */

static unsigned columns_between(const char *text, size_t from, size_t to)
{
    unsigned columns = 0;

    while (from < to) {
        uint32_t code_point;
        unsigned length = utf8_decode(text + from, to - from, &code_point);

        columns += length ? utf8_columns(code_point) : 1;
        from += length ? length : 1;
    }
    return columns;
}

/* True where a character begins that joins the one before it (an accent, say): the cursor never stands there. */
static bool joins(const struct line *line, size_t at)
{
    uint32_t code_point;

    return at && at < line->length && (unsigned char)line->text[at] >= 0x80 &&
           (!utf8_decode(line->text + at, line->length - at, &code_point) || !utf8_columns(code_point));
}

static size_t next_byte(const struct line *line, size_t at)
{
    if (at < line->length)
        at++;
    while (joins(line, at))
        at++;
    return at;
}

static size_t previous_byte(const struct line *line, size_t at)
{
    if (at)
        at--;
    while (joins(line, at))
        at--;
    return at;
}

static bool is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static size_t word_start_before(const struct line *line, size_t at)
{
    while (at && !is_word_byte(line->text[at - 1]))
        at--;
    while (at && is_word_byte(line->text[at - 1]))
        at--;
    return at;
}

static size_t word_end_after(const struct line *line, size_t at)
{
    while (at < line->length && !is_word_byte(line->text[at]))
        at++;
    while (at < line->length && is_word_byte(line->text[at]))
        at++;
    return at;
}

/* ---- Drawing ---- */

static void write_text(const struct line *line, const char *text)
{
    sink_puts(line->sink, text);
}

static void bell(const struct line *line)
{
    write_text(line, "\a");
}

static unsigned prompt_columns(const struct line *line)
{
    return columns_between(line->prompt, 0, strlen(line->prompt));
}

/* Columns for the text; the terminal's last one stays free, so that it never wraps by itself. */
static unsigned text_columns(const struct line *line)
{
    unsigned prompt = prompt_columns(line);

    return prompt + 1 + MIN_TEXT_COLUMNS <= line->columns ? line->columns - prompt - 1 : MIN_TEXT_COLUMNS;
}

/* The first byte to show if the cursor shall stand at most `columns` columns behind it. */
static size_t scroll_back(const struct line *line, unsigned columns)
{
    size_t at = line->cursor;
    unsigned used = 0;

    while (at) {
        size_t before = previous_byte(line, at);

        used += columns_between(line->text, before, at);
        if (used > columns)
            break;
        at = before;
    }
    return at;
}

/* Moves the window so that the cursor is in it, with room for the marks at both ends. */
static void scroll(struct line *line)
{
    unsigned room = text_columns(line);

    while (joins(line, line->cursor)) /* an edit may have joined an accent to the character before the cursor */
        line->cursor++;
    while (joins(line, line->first))
        line->first--;
    if (columns_between(line->text, 0, line->length) < room) {
        line->first = 0;
        return;
    }
    if (line->cursor <= line->first || columns_between(line->text, line->first, line->cursor) + MARGIN > room)
        line->first = scroll_back(line, line->cursor == line->length ? room * 3 / 4 : room / 2);
    if (line->first && columns_between(line->text, 0, line->cursor) + MARGIN <= room)
        line->first = 0;
}

static void draw(struct line *line)
{
    unsigned room = text_columns(line);
    unsigned used = 0;
    unsigned cursor_column;
    size_t at;
    char move[24];

    scroll(line);
    at = line->first;
    write_text(line, "\r");
    write_text(line, line->prompt);
    if (at) { /* the mark takes the place of one character, a wide one included */
        size_t hidden = at;

        at = next_byte(line, at);
        write_text(line, columns_between(line->text, hidden, at) > 1 ? "< " : "<");
        used = MAX(columns_between(line->text, hidden, at), 1u);
    }
    while (at < line->length) {
        size_t next = next_byte(line, at);
        unsigned width = columns_between(line->text, at, next);

        if (used + width + (next < line->length) > room) {
            write_text(line, ">");
            break;
        }
        sink_write(line->sink, line->text + at, next - at);
        used += width;
        at = next;
    }
    write_text(line, "\x1b[K\r");
    cursor_column = prompt_columns(line) + columns_between(line->text, line->first, line->cursor);
    if (cursor_column) {
        snprintf(move, sizeof(move), "\x1b[%uC", cursor_column);
        write_text(line, move);
    }
}

static void draw_search(struct line *line)
{
    const char *match = line->found >= 0 ? history_get(&line->history, (unsigned)line->found) : "";
    size_t bytes = strlen(match);
    unsigned room;
    size_t shown = 0;
    unsigned used = 0;

    write_text(line, line->found >= 0 || !line->query[0] ? "\rsearch \"" : "\rnothing with \"");
    write_text(line, line->query);
    write_text(line, "\": ");
    used = columns_between(line->query, 0, strlen(line->query)) + 18;
    room = line->columns > used + 1 ? line->columns - used - 1 : 0;
    used = 0;
    while (shown < bytes) {
        uint32_t code_point;
        unsigned length = utf8_decode(match + shown, bytes - shown, &code_point);

        if (!length || used + utf8_columns(code_point) > room)
            break;
        used += utf8_columns(code_point);
        shown += length;
    }
    sink_write(line->sink, match, shown);
    write_text(line, "\x1b[K");
}

void line_hide(struct line *line)
{
    write_text(line, "\r\x1b[K");
}

void line_show(struct line *line)
{
    if (line->searching)
        draw_search(line);
    else
        draw(line);
}

/* ---- Edits ---- */

static void set_text(struct line *line, const char *text)
{
    (void)str_copy(line->text, sizeof(line->text), text);
    line->length = strlen(line->text);
    line->cursor = line->length;
    line->first = 0;
}

/* Puts `count` bytes of whole, checked characters at the cursor; false (and a bell) where they do not fit. */
static bool insert(struct line *line, const char *bytes, size_t count)
{
    if (count > LINE_MAX_BYTES - line->length) {
        bell(line);
        return false;
    }
    memmove(line->text + line->cursor + count, line->text + line->cursor, line->length - line->cursor + 1);
    memcpy(line->text + line->cursor, bytes, count);
    line->length += count;
    line->cursor += count;
    return true;
}

static void erase(struct line *line, size_t from, size_t to)
{
    memmove(line->text + from, line->text + to, line->length - to + 1);
    line->length -= to - from;
    line->cursor = from;
    line->first = MIN(line->first, line->cursor);
}

static void cut(struct line *line, size_t from, size_t to)
{
    if (from == to)
        return;
    memcpy(line->cut, line->text + from, to - from);
    line->cut[to - from] = 0;
    erase(line, from, to);
}

/* A typed character. At the end of the line, where the row has room, the character itself is all that must be drawn. */
static void type(struct line *line, const char *bytes, unsigned count)
{
    bool at_end = line->cursor == line->length;

    if (!insert(line, bytes, count))
        return;
    if (at_end && columns_between(line->text, line->first, line->length) + MARGIN <= text_columns(line))
        sink_write(line->sink, bytes, count);
    else
        draw(line);
}

static void reverse(char *bytes, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        char kept = bytes[i];

        bytes[i] = bytes[count - 1 - i];
        bytes[count - 1 - i] = kept;
    }
}

/* The character at the cursor and the one before it change places (at the end of the line: the last two). */
static void swap_characters(struct line *line)
{
    size_t end = next_byte(line, line->cursor);
    size_t middle = previous_byte(line, end);
    size_t start = previous_byte(line, middle);

    if (start == middle || middle == end) {
        bell(line);
        return;
    }
    reverse(line->text + start, middle - start);
    reverse(line->text + middle, end - middle);
    reverse(line->text + start, end - start);
    line->cursor = end;
}

/* The start of the word before the cursor, words being what spaces separate. */
static size_t blank_word_start(const struct line *line)
{
    size_t at = line->cursor;

    while (at && line->text[at - 1] == ' ')
        at--;
    while (at && line->text[at - 1] != ' ')
        at--;
    return at;
}

/* ---- History and search ---- */

static void show_history(struct line *line, int age)
{
    const char *text = age >= 0 ? history_get(&line->history, (unsigned)age) : line->draft;

    if (age < -1 || !text) {
        bell(line);
        return;
    }
    if (line->age < 0)
        memcpy(line->draft, line->text, line->length + 1);
    line->age = age;
    set_text(line, text);
}

static void search_start(struct line *line)
{
    line->searching = true;
    line->query[0] = 0;
    line->found = -1;
    draw_search(line);
}

/* Looks for the query from `age` on to older lines; without a match a bell, and the last match stays if `keep`. */
static void search_from(struct line *line, int age, bool keep)
{
    int found = line->query[0] ? history_find(&line->history, line->query, (unsigned)MAX(age, 0)) : -1;

    if (found < 0 && line->query[0])
        bell(line);
    if (found >= 0 || !keep)
        line->found = found;
    draw_search(line);
}

static void search_end(struct line *line, bool take)
{
    line->searching = false;
    if (take && line->found >= 0)
        show_history(line, line->found);
    draw(line);
}

/* Returns true where the key belongs to the search; otherwise the search has ended and the key is an ordinary one. */
static bool search_key(struct line *line, unsigned key)
{
    size_t length = strlen(line->query);

    switch (key) {
    case CTRL('R'):
        search_from(line, line->found + 1, true);
        return true;
    case CTRL('G'):
        search_end(line, false);
        return true;
    case CTRL('C'):
        search_end(line, false);
        return false;
    case CTRL('H'):
    case 0x7f:
        while (length && ((unsigned char)line->query[length - 1] & 0xc0) == 0x80)
            length--;
        line->query[length ? length - 1 : 0] = 0;
        search_from(line, 0, false);
        return true;
    default:
        search_end(line, true);
        return false;
    }
}

static void search_type(struct line *line, const char *bytes, unsigned count)
{
    size_t length = strlen(line->query);

    if (length + count >= sizeof(line->query)) {
        bell(line);
        return;
    }
    memcpy(line->query + length, bytes, count);
    line->query[length + count] = 0;
    search_from(line, line->found, false);
}

/* ---- Completion ---- */

static void complete(struct line *line)
{
    bool second = line->tab_before;
    size_t start, common;

    line->tab_before = false;
    offers_clear(&line->offers);
    if (!line->complete)
        return;
    start = line->complete(line->complete_context, line->text, line->cursor, &line->offers);
    if (!line->offers.count || start > line->cursor) {
        bell(line);
        return;
    }
    common = offers_common_bytes(&line->offers);
    if (line->offers.dropped)
        common = MIN(common, line->cursor - start); /* of those that were dropped nothing is known */
    if (line->offers.count == 1 || common > line->cursor - start) {
        bool space = line->offers.count == 1 && !line->offers.dropped && !line->offers.unfinished;

        if (common + space > LINE_MAX_BYTES - (line->length - (line->cursor - start))) {
            bell(line);
            return;
        }
        erase(line, start, line->cursor);
        if (insert(line, line->offers.text, common) && space && line->text[line->cursor] != ' ')
            (void)insert(line, " ", 1);
        draw(line);
    } else if (second) {
        write_text(line, "\n");
        offers_print(&line->offers, line->sink, line->columns - 1, LIST_ROWS);
        draw(line);
    } else {
        line->tab_before = true;
        bell(line);
    }
}

/* ---- Keys ---- */

static enum line_result enter(struct line *line)
{
    line->cursor = line->length;
    draw(line);
    write_text(line, "\n");
    history_add(&line->history, line->text);
    return LINE_DONE;
}

static enum line_result interrupt(struct line *line)
{
    line->cursor = line->length;
    draw(line);
    write_text(line, "^C\n");
    set_text(line, "");
    return LINE_INTERRUPTED;
}

/* Moves and edits; false where the key is none of them. */
static bool edit_key(struct line *line, unsigned key)
{
    switch (key) {
    case CTRL('A'): case KEY_HOME: line->cursor = 0; break;
    case CTRL('E'): case KEY_END: line->cursor = line->length; break;
    case CTRL('B'): case KEY_LEFT: line->cursor = previous_byte(line, line->cursor); break;
    case CTRL('F'): case KEY_RIGHT: line->cursor = next_byte(line, line->cursor); break;
    case KEY_WORD_LEFT: line->cursor = word_start_before(line, line->cursor); break;
    case KEY_WORD_RIGHT: line->cursor = word_end_after(line, line->cursor); break;
    case CTRL('H'): case 0x7f: erase(line, previous_byte(line, line->cursor), line->cursor); break;
    case CTRL('D'): case KEY_DELETE: erase(line, line->cursor, next_byte(line, line->cursor)); break;
    case CTRL('K'): cut(line, line->cursor, line->length); break;
    case CTRL('U'): cut(line, 0, line->cursor); break;
    case CTRL('W'): cut(line, blank_word_start(line), line->cursor); break;
    case KEY_CUT_WORD: cut(line, line->cursor, word_end_after(line, line->cursor)); break;
    case KEY_CUT_WORD_BEFORE: cut(line, word_start_before(line, line->cursor), line->cursor); break;
    case CTRL('Y'): (void)insert(line, line->cut, strlen(line->cut)); break;
    case CTRL('T'): swap_characters(line); break;
    case CTRL('P'): case KEY_UP: show_history(line, line->age + 1); break;
    case CTRL('N'): case KEY_DOWN: show_history(line, line->age - 1); break;
    case CTRL('L'): write_text(line, "\x1b[H\x1b[2J"); break;
    default: return false;
    }
    draw(line);
    return true;
}

/* A key that is not a printable character. */
static enum line_result press(struct line *line, unsigned key)
{
    bool tab_before = line->tab_before;

    if (line->searching && search_key(line, key))
        return LINE_MORE;
    line->tab_before = false;
    switch (key) {
    case '\r':
    case '\n':
        return enter(line);
    case '\t':
        line->tab_before = tab_before;
        complete(line);
        return LINE_MORE;
    case CTRL('C'):
        return interrupt(line);
    case CTRL('R'):
        search_start(line);
        return LINE_MORE;
    case CTRL('D'):
        if (!line->length) {
            write_text(line, "\n");
            return LINE_END;
        }
        break;
    }
    (void)edit_key(line, key); /* any other control character does nothing */
    return LINE_MORE;
}

enum line_result line_feed(struct line *line, uint8_t byte)
{
    unsigned key = keys_feed(&line->keys, byte);

    switch (key) {
    case KEY_NONE:
        return LINE_MORE;
    case KEY_BAD:
        bell(line);
        return LINE_MORE;
    case KEY_TEXT:
        line->tab_before = false;
        if (line->searching)
            search_type(line, line->keys.text, line->keys.text_bytes);
        else
            type(line, line->keys.text, line->keys.text_bytes);
        return LINE_MORE;
    default:
        return press(line, key);
    }
}

void line_init(struct line *line, const struct sink *sink, unsigned columns, line_complete_fn complete_fn,
               void *context)
{
    memset(line, 0, sizeof(*line));
    line->sink = sink;
    line->columns = MAX(columns, 20u);
    line->complete = complete_fn;
    line->complete_context = context;
}

void line_start(struct line *line, const char *prompt)
{
    (void)str_copy(line->prompt, sizeof(line->prompt), prompt);
    set_text(line, "");
    line->age = -1;
    line->searching = false;
    line->tab_before = false;
    draw(line);
}
