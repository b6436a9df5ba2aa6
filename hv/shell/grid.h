/* SPDX-License-Identifier: MIT */
/*
 * Rows of text cells, aligned in columns for a terminal: as a table (a heading, the columns as wide as they need and no
 * wider than the terminal), or as a list (a label and a value on each line). Pure core, bounded: after GRID_ROWS rows,
 * or when the room for text is used up, the rows so far are written; later ones may get wider columns, never narrower.
 *
 * Cells hold whatever a guest or a peer called things: control characters are shown as \xHH, and so are bytes that are
 * not UTF-8. Cells that are too wide are cut with an ellipsis; the last column, if it is text, is wrapped instead.
 * A table that cannot be fitted at all is written as one list for each row.
 */
#ifndef SHELL_GRID_H
#define SHELL_GRID_H

#include "kernel/types.h"
#include "shell/sink.h"

#define GRID_ROWS 64
#define GRID_COLUMNS 20
#define GRID_NAME_BYTES 40
#define GRID_TEXT_BYTES 12288
#define GRID_CELL_BYTES 2048 /* of one cell; the rest of a longer one is not shown */

struct grid {
    const struct sink *sink;
    unsigned columns;  /* of the terminal */
    unsigned indent;
    bool list;         /* two cells a row: label and value; no heading */
    bool fixed;        /* something was written: the columns stay as they are */
    bool records;      /* does not fit as a table: a list for each row */
    unsigned column_count;
    unsigned row_count;   /* finished rows in the buffer */
    bool row_open;
    size_t used;
    unsigned widest_label;                          /* of records */
    char name[GRID_COLUMNS][GRID_NAME_BYTES];       /* of the columns, as the caller gave them */
    bool number[GRID_COLUMNS];                      /* only numbers in it: aligned right, never cut */
    uint16_t width[GRID_COLUMNS];                   /* what the widest cell needs, then what it gets */
    uint16_t cell[GRID_ROWS + 1][GRID_COLUMNS];     /* offset + 1 of the cell's text; 0 = none */
    char text[GRID_TEXT_BYTES];
};

/* An empty table (or list) that begins at column `indent`. */
void grid_begin(struct grid *grid, const struct sink *sink, unsigned columns, unsigned indent, bool list);

/*
 * Adds a cell to the open row, in the column of that name, which is made if it is new (beyond GRID_COLUMNS, or where
 * the heading is out already, the cell is not shown: so every row gives the same columns). For a list, `name` is the
 * label and each cell is a row of its own. `number`: to be aligned right.
 */
void grid_cell(struct grid *grid, const char *name, const char *value, bool number);
void grid_row_end(struct grid *grid);

/* Writes what is left. True if anything was written since grid_begin. */
bool grid_end(struct grid *grid);

/* Columns of a text as it is shown here, escapes included. */
unsigned grid_columns_of(const char *text);

/* Writes a text as a cell is written (escapes included), without cutting or wrapping. */
void grid_put_safe(const struct sink *sink, const char *text);

#endif
