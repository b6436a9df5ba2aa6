/* SPDX-License-Identifier: MIT */
/*
 * Tables and lists. See grid.h. Cells are made safe when they are stored, so that everything below deals with printable
 * UTF-8 only. Two steps then: widths (fit), and rows (write). A list is a grid of two columns without a heading.
 */
#include "shell/grid.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

#define GAP 2
#define MIN_TEXT_WIDTH 8
#define ELLIPSIS "\xe2\x80\xa6"

/* ---- Safe text ---- */

/* The next character of `text` as it is shown, in `shown` (5 bytes), and its columns. Returns its bytes in `text`. */
static unsigned safe_character(const char *text, size_t left, char *shown, unsigned *columns)
{
    uint32_t code_point;
    unsigned length = utf8_decode(text, left, &code_point);

    if (!length || code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0)) {
        snprintf(shown, 5, "\\x%02x", length > 1 ? (unsigned)code_point : (unsigned)(unsigned char)*text);
        *columns = 4;
        return MAX(length, 1u);
    }
    memcpy(shown, text, length);
    shown[length] = 0;
    *columns = utf8_columns(code_point);
    return length;
}

unsigned grid_columns_of(const char *text)
{
    size_t left = strlen(text);
    unsigned total = 0;

    while (left) {
        char shown[5];
        unsigned columns;
        unsigned length = safe_character(text, left, shown, &columns);

        total += columns;
        text += length;
        left -= length;
    }
    return total;
}

void grid_put_safe(const struct sink *sink, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        char shown[5];
        unsigned columns;
        unsigned length = safe_character(text, left, shown, &columns);

        sink_puts(sink, shown);
        text += length;
        left -= length;
    }
}

/* Stores a cell's text, safe; returns offset + 1. There is room for GRID_CELL_BYTES. */
static uint16_t store(struct grid *grid, const char *value)
{
    size_t start = grid->used;
    size_t left = strnlen(value, GRID_CELL_BYTES + 4);
    bool cut_short = false;

    while (left && !cut_short) {
        char shown[5];
        unsigned columns;
        unsigned length = safe_character(value, left, shown, &columns);
        size_t bytes = strlen(shown);

        cut_short = grid->used - start + bytes > GRID_CELL_BYTES - 4;
        if (cut_short) {
            memcpy(shown, ELLIPSIS, sizeof(ELLIPSIS));
            bytes = sizeof(ELLIPSIS) - 1;
        }
        memcpy(grid->text + grid->used, shown, bytes);
        grid->used += bytes;
        value += length;
        left -= length;
    }
    grid->text[grid->used++] = 0;
    return (uint16_t)(start + 1);
}

/* ---- Writing ---- */

static void spaces(const struct grid *grid, unsigned count)
{
    static const char blank[] = "                ";

    for (; count > sizeof(blank) - 1; count -= sizeof(blank) - 1)
        sink_puts(grid->sink, blank);
    sink_write(grid->sink, blank, count);
}

/* Bytes of `text` that fit `width` columns, whole characters; *columns is what they take. */
static size_t fitting(const char *text, unsigned width, unsigned *columns)
{
    size_t left = strlen(text);
    size_t bytes = 0;
    unsigned used = 0;

    while (left) {
        char shown[5];
        unsigned wide;
        unsigned length = safe_character(text + bytes, left, shown, &wide);

        if (used + wide > width)
            break;
        used += wide;
        bytes += length;
        left -= length;
    }
    *columns = used;
    return bytes;
}

/*
 * A cell in `width` columns. One that is wider is cut with an ellipsis if it is text, and pushes the rest of its row
 * aside if it is a number (`right`). `last`: nothing follows, so no spaces after it.
 */
static void put_cell(const struct grid *grid, const char *text, unsigned width, bool right, bool last)
{
    unsigned columns = grid_columns_of(text);
    size_t bytes = strlen(text);
    bool cut = columns > width && !right;

    if (cut)
        bytes = fitting(text, width - 1, &columns);
    columns += cut;
    if (right && columns < width)
        spaces(grid, width - columns);
    sink_write(grid->sink, text, bytes);
    if (cut)
        sink_puts(grid->sink, ELLIPSIS);
    if (!right && !last)
        spaces(grid, width - columns);
}

/* Text in lines of at most `width` columns, all but the first at `column`; broken at spaces where possible. */
static void put_wrapped(const struct grid *grid, const char *text, unsigned column, unsigned width)
{
    bool first = true;

    for (;;) {
        unsigned columns;
        size_t bytes = fitting(text, width, &columns);
        size_t line = bytes;

        if (!bytes && *text) { /* one character is wider than the line: show it anyway */
            char shown[5];

            bytes = line = safe_character(text, strlen(text), shown, &columns);
        }
        if (text[bytes]) {
            size_t space = text[bytes] == ' ' ? bytes : 0;

            for (size_t i = bytes; !space && i > 1; i--)
                space = text[i - 1] == ' ' ? i - 1 : 0;
            if (space)
                line = bytes = space;
            while (text[bytes] == ' ')
                bytes++;
        }
        if (!first)
            spaces(grid, column);
        sink_write(grid->sink, text, line);
        sink_puts(grid->sink, "\n");
        text += bytes;
        first = false;
        if (!*text)
            return;
    }
}

/* "some_name" as a heading or a label: safe, at most GRID_NAME_BYTES. */
static void make_label(const char *name, bool upper, char *label)
{
    size_t left = strlen(name);
    char shown[5];
    unsigned columns;

    label[0] = 0;
    while (left) {
        unsigned length = safe_character(name, left, shown, &columns);

        if (shown[0] == '_')
            shown[0] = ' ';
        if (upper && shown[0] >= 'a' && shown[0] <= 'z')
            shown[0] = (char)(shown[0] - ('a' - 'A'));
        if (!str_append(label, GRID_NAME_BYTES, shown))
            return;
        name += length;
        left -= length;
    }
}

static const char *cell_text(const struct grid *grid, unsigned row, unsigned column)
{
    return grid->cell[row][column] ? grid->text + grid->cell[row][column] - 1 : "-";
}

static void write_table_row(const struct grid *grid, unsigned row)
{
    unsigned at = grid->indent;

    spaces(grid, grid->indent);
    for (unsigned i = 0; i < grid->column_count; i++) {
        bool last = i + 1 == grid->column_count;
        const char *text = cell_text(grid, row, i);

        if (last && !grid->number[i]) {
            put_wrapped(grid, text, at, MAX(grid->columns - at, grid->width[i]));
            return;
        }
        put_cell(grid, text, grid->width[i], grid->number[i], last);
        sink_puts(grid->sink, last ? "\n" : "  ");
        at += grid->width[i] + GAP;
    }
}

static void write_heading(const struct grid *grid)
{
    spaces(grid, grid->indent);
    for (unsigned i = 0; i < grid->column_count; i++) {
        bool last = i + 1 == grid->column_count;
        char label[GRID_NAME_BYTES];

        make_label(grid->name[i], true, label);
        put_cell(grid, label, grid->width[i], grid->number[i], last);
        sink_puts(grid->sink, last ? "\n" : "  ");
    }
}

static void write_labelled(const struct grid *grid, const char *label, unsigned label_width, const char *value)
{
    unsigned at = grid->indent + label_width + GAP;

    spaces(grid, grid->indent);
    put_cell(grid, label, label_width, false, false);
    spaces(grid, GAP);
    put_wrapped(grid, value, at, at + MIN_TEXT_WIDTH < grid->columns ? grid->columns - at : MIN_TEXT_WIDTH);
}

static void write_record(const struct grid *grid, unsigned row)
{
    for (unsigned i = 0; i < grid->column_count; i++) {
        char label[GRID_NAME_BYTES];

        make_label(grid->name[i], false, label);
        write_labelled(grid, label, grid->widest_label, cell_text(grid, row, i));
    }
}

/* ---- Widths ---- */

static unsigned heading_columns(const struct grid *grid, unsigned column)
{
    char label[GRID_NAME_BYTES];

    make_label(grid->name[column], true, label);
    return grid_columns_of(label);
}

/*
 * Fits the table into the terminal: the widest text column gives way, one column at a time, down to MIN_TEXT_WIDTH or
 * its heading. False where that is not enough.
 */
static bool fit(struct grid *grid)
{
    unsigned total = grid->indent;

    for (unsigned i = 0; i < grid->column_count; i++)
        total += grid->width[i] + (i ? GAP : 0);
    while (total > grid->columns) {
        unsigned widest = GRID_COLUMNS;

        for (unsigned i = 0; i < grid->column_count; i++) {
            unsigned least = MAX(heading_columns(grid, i), (unsigned)MIN_TEXT_WIDTH);

            if (!grid->number[i] && grid->width[i] > least &&
                (widest == GRID_COLUMNS || grid->width[i] >= grid->width[widest]))
                widest = i;
        }
        if (widest == GRID_COLUMNS)
            return false;
        grid->width[widest]--;
        total--;
    }
    return true;
}

/* Widths never shrink from one batch of rows to the next. */
static void measure(struct grid *grid)
{
    for (unsigned i = 0; i < grid->column_count; i++) {
        unsigned heading = heading_columns(grid, i);

        grid->width[i] = (uint16_t)MAX(grid->width[i], heading);
        grid->widest_label = MAX(grid->widest_label, heading);
        for (unsigned row = 0; row < grid->row_count; row++)
            grid->width[i] = (uint16_t)MAX(grid->width[i], grid_columns_of(cell_text(grid, row, i)));
    }
}

/* ---- The public functions ---- */

void grid_begin(struct grid *grid, const struct sink *sink, unsigned columns, unsigned indent, bool list)
{
    grid->sink = sink;
    grid->columns = columns;
    grid->indent = MIN(indent, columns / 2);
    grid->list = list;
    grid->fixed = false;
    grid->records = false;
    grid->column_count = list ? 2 : 0;
    grid->row_count = 0;
    grid->row_open = false;
    grid->used = 0;
    grid->widest_label = 0;
    if (list) {
        grid->name[0][0] = grid->name[1][0] = 0;
        grid->number[0] = grid->number[1] = false;
        grid->width[0] = grid->width[1] = 0;
    }
}

/* Writes the finished rows. */
static void flush(struct grid *grid)
{
    if (!grid->row_count || !grid->column_count) {
        grid->row_count = 0;
        return;
    }
    measure(grid);
    if (grid->list)
        grid->width[0] = (uint16_t)MIN(grid->width[0], grid->columns / 2);
    else
        grid->records = grid->records || !fit(grid);
    if (!grid->fixed && !grid->list && !grid->records)
        write_heading(grid);
    for (unsigned row = 0; row < grid->row_count; row++) {
        if (grid->list) {
            write_labelled(grid, cell_text(grid, row, 0), grid->width[0], cell_text(grid, row, 1));
        } else if (grid->records) {
            if (row || grid->fixed)
                sink_puts(grid->sink, "\n");
            write_record(grid, row);
        } else {
            write_table_row(grid, row);
        }
    }
    grid->fixed = true;
    grid->row_count = 0;
    grid->used = 0;
}

/* Makes room for the open row and one more cell: the rows before it are written, and it moves to the front. */
static void make_room(struct grid *grid)
{
    size_t start = GRID_TEXT_BYTES;
    unsigned open = grid->row_count;

    if (grid->used + 2 * GRID_CELL_BYTES <= GRID_TEXT_BYTES || !open)
        return;
    for (unsigned i = 0; grid->row_open && i < GRID_COLUMNS; i++) {
        if (grid->cell[open][i])
            start = MIN(start, (size_t)grid->cell[open][i] - 1);
    }
    if (start == GRID_TEXT_BYTES) {
        flush(grid);
        return;
    }
    {
        size_t kept = grid->used - start;

        flush(grid);
        memmove(grid->text, grid->text + start, kept);
        memcpy(grid->cell[0], grid->cell[open], sizeof(grid->cell[0]));
        for (unsigned i = 0; i < GRID_COLUMNS; i++) {
            if (grid->cell[0][i])
                grid->cell[0][i] = (uint16_t)(grid->cell[0][i] - start);
        }
        grid->used = kept;
    }
}

static unsigned find_column(struct grid *grid, const char *name, bool number)
{
    unsigned i;
    char known[GRID_NAME_BYTES];

    (void)str_copy(known, sizeof(known), name);
    for (i = 0; i < grid->column_count; i++) {
        if (str_equal(grid->name[i], known))
            return i;
    }
    if (grid->fixed || i == GRID_COLUMNS)
        return GRID_COLUMNS;
    memcpy(grid->name[i], known, sizeof(known));
    grid->number[i] = number;
    grid->width[i] = 0;
    grid->column_count++;
    return i;
}

static void open_row(struct grid *grid)
{
    if (!grid->row_open)
        memset(grid->cell[grid->row_count], 0, sizeof(grid->cell[0]));
    grid->row_open = true;
}

void grid_cell(struct grid *grid, const char *name, const char *value, bool number)
{
    unsigned column;

    open_row(grid);
    make_room(grid);
    if (grid->used + GRID_CELL_BYTES > GRID_TEXT_BYTES)
        return; /* a row of that many long cells shows the first ones */
    if (grid->list) {
        char label[GRID_NAME_BYTES];

        make_label(name, false, label);
        grid->cell[grid->row_count][0] = store(grid, label);
        grid->cell[grid->row_count][1] = 0;
        if (grid->used + GRID_CELL_BYTES <= GRID_TEXT_BYTES)
            grid->cell[grid->row_count][1] = store(grid, value);
        grid_row_end(grid);
        return;
    }
    column = find_column(grid, name, number);
    if (column == GRID_COLUMNS)
        return;
    grid->number[column] = grid->number[column] && number;
    grid->cell[grid->row_count][column] = store(grid, value);
}

void grid_row_end(struct grid *grid)
{
    open_row(grid);
    grid->row_open = false;
    grid->row_count++;
    if (grid->row_count == GRID_ROWS)
        flush(grid);
}

bool grid_end(struct grid *grid)
{
    if (grid->row_open)
        grid_row_end(grid);
    flush(grid);
    return grid->fixed;
}
