/* SPDX-License-Identifier: MIT */
/*
 * The output of a command. A command says what it has (objects, arrays, fields) once, and gets either text for a person
 * (lists and tables that fit the terminal) or one JSON object in one line for a program. Pure core, bounded, streaming:
 * any number of rows.
 *
 * The root is an object that is there from out_begin to out_end; a command adds its fields. Names are lower case with
 * underscores, the same in JSON; a person sees "memory free" and "MEMORY FREE". What a person gets for
 *   a field of an object                 label and value, aligned; long text wrapped
 *   an object in an object               a heading and an indented list
 *   an array of objects                  a table, a row each (every row with the same fields, in the same order)
 *   an array of anything else            the elements behind one another, with commas
 *   an object in a row                   further columns; an array of objects in a row: its count
 *
 * Values may hold anything (a guest's or a peer's words): control characters and bytes that are not UTF-8 never reach
 * the terminal as such, nor break the JSON.
 */
#ifndef SHELL_OUTPUT_H
#define SHELL_OUTPUT_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "shell/grid.h"
#include "shell/json.h"
#include "shell/sink.h"

#define OUT_MAX_DEPTH 8
#define OUT_JOIN_BYTES 1024
#define OUT_FORMAT_BYTES 1024 /* of one formatted text; more is cut */

enum out_role { OUT_LIST, OUT_ARRAY, OUT_TABLE, OUT_JOIN, OUT_ROW, OUT_COLUMNS, OUT_COUNT, OUT_HIDDEN };

struct out_frame {
    bool array;
    enum out_role role;
    char name[GRID_NAME_BYTES];
    unsigned elements;
};

/* 20 KiB: never on a stack. For a command to read: json. */
struct out {
    const struct sink *sink;
    bool json;
    bool failed; /* out_error was called: nothing more is shown */
    unsigned columns;
    unsigned depth; /* of the innermost frame; the root is 0 */
    unsigned too_deep;
    bool wrote;
    bool blank_next; /* a section ended: an empty line before the next */
    bool grid_open;
    struct out_frame frame[OUT_MAX_DEPTH];
    struct json writer;
    struct grid grid;
    bool joined_full;
    char joined[OUT_JOIN_BYTES];
};

/* Begins the output of one command on a terminal of `columns` columns. */
void out_begin(struct out *out, const struct sink *sink, unsigned columns, bool json);

/* Ends it: closes what is open, writes what is left. */
void out_end(struct out *out);

/* Containers. `name` is ignored (and may be NULL) for an element of an array. Each begin has its end. */
void out_object_begin(struct out *out, const char *name);
void out_object_end(struct out *out);
void out_array_begin(struct out *out, const char *name);
void out_array_end(struct out *out);

/* Values. `name` as above; strings are copied or written at once. */
void out_string(struct out *out, const char *name, const char *value); /* NULL: as out_null */
void out_stringf(struct out *out, const char *name, const char *format, ...) PRINTF_LIKE(3, 4);
void out_uint(struct out *out, const char *name, uint64_t value);
void out_int(struct out *out, const char *name, int64_t value);
void out_bool(struct out *out, const char *name, bool value);   /* yes, no */
void out_null(struct out *out, const char *name);               /* unknown or not applicable: "-" */
void out_hex(struct out *out, const char *name, uint64_t value); /* 0x1f; in JSON a string */
/* A size: "1.5 GiB"; in JSON the number of bytes, and the name gets "_bytes" behind it. */
void out_bytes(struct out *out, const char *name, uint64_t bytes);
/* A duration: "2 min 5 s"; in JSON nanoseconds, and the name gets "_ns" behind it. */
void out_duration(struct out *out, const char *name, uint64_t ns);
/* A point in time, in seconds since 1970 (UTC): "2026-01-31T12:00:00Z" in both. */
void out_time(struct out *out, const char *name, uint64_t unix_seconds);

/* What a command that changes something did: a line by itself; in JSON the field "message". Once a command. */
void out_message(struct out *out, const char *format, ...) PRINTF_LIKE(2, 3);

/*
 * Why the command failed: closes what is open and writes `error: OBJECT: CAUSE; CURE`, in JSON the field "error" with
 * "status", "object", "cause", "cure". Without a cure (NULL) that is left out. What comes after it is not shown.
 * Returns `status`, for `return out_error(...)`.
 */
enum status out_error(struct out *out, enum status status, const char *object, const char *cure,
                      const char *cause_format, ...) PRINTF_LIKE(5, 6);

/*
 * The same from one text, "OBJECT: CAUSE; CURE" or "OBJECT: CAUSE". The object ends at the first ": ", the cure begins
 * behind the last "; ", both outside of double quotes: what is quoted, as a name that a user gave, may have either.
 * Without an object it is `object`. The text is changed.
 */
enum status out_error_text(struct out *out, enum status status, const char *object, char *text);

/* The texts that out_bytes, out_duration and out_time show; each at most 32 bytes with the NUL. */
void out_format_bytes(char text[32], uint64_t bytes);
void out_format_duration(char text[32], uint64_t ns);
void out_format_time(char text[32], uint64_t unix_seconds);

#endif
