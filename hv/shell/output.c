/* SPDX-License-Identifier: MIT */
/*
 * The structure of a command's output. See output.h for the contract; json.c and grid.c write.
 *
 * For JSON a frame is a bracket to be closed. For a person each frame has a role, decided when it begins (an array's
 * when its first element comes), and at most one grid is open: that of the innermost list or table. A list that is
 * interrupted by a section goes on as a new list after it.
 */
#include "shell/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

#define INDENT 2

static struct out_frame *top(struct out *out)
{
    return &out->frame[out->depth];
}

/* ---- Text for a person ---- */

/* The depth of lists and tables, for the indentation. */
static unsigned indent_of(const struct out *out)
{
    unsigned lists = 0;

    for (unsigned i = 0; i <= out->depth; i++)
        lists += out->frame[i].role == OUT_LIST;
    return lists ? (lists - 1) * INDENT : 0;
}

static void close_grid(struct out *out)
{
    if (out->grid_open && grid_end(&out->grid))
        out->wrote = true;
    out->grid_open = false;
}

static void before_text(struct out *out)
{
    if (out->blank_next && out->wrote)
        sink_puts(out->sink, "\n");
    out->blank_next = false;
}

/* A section's heading, an empty line before it. */
static void begin_section(struct out *out, const char *name, unsigned indent)
{
    char text[GRID_NAME_BYTES + 1];

    for (unsigned i = 0; i < indent; i++)
        sink_puts(out->sink, " ");
    (void)str_copy(text, sizeof(text), name);
    for (char *at = text; *at; at++) {
        if (*at == '_')
            *at = ' ';
    }
    grid_put_safe(out->sink, text);
    sink_puts(out->sink, ":\n");
    out->wrote = true;
}

/* Decides what an array is, when its first element comes. */
static void decide_array(struct out *out, bool objects)
{
    struct out_frame *frame = top(out);

    if (frame->role != OUT_ARRAY)
        return;
    if (!objects) {
        frame->role = OUT_JOIN;
    } else if (out->frame[out->depth - 1].role != OUT_LIST) {
        frame->role = OUT_COUNT;
    } else {
        bool heading;

        close_grid(out);
        heading = out->wrote;
        out->blank_next = true;
        before_text(out);
        if (heading)
            begin_section(out, frame->name, indent_of(out));
        frame->role = OUT_TABLE;
        grid_begin(&out->grid, out->sink, out->columns, indent_of(out) + (heading ? INDENT : 0), false);
        out->grid_open = true;
    }
}

/* A column's name in a row: the names of the objects that it is in, joined. */
static void column_name(const struct out *out, const char *name, char *text)
{
    unsigned first = out->depth;

    while (first && out->frame[first].role == OUT_COLUMNS)
        first--;
    text[0] = 0;
    for (unsigned i = first + 1; i <= out->depth; i++) {
        (void)str_append(text, GRID_NAME_BYTES, out->frame[i].name);
        (void)str_append(text, GRID_NAME_BYTES, "_");
    }
    (void)str_append(text, GRID_NAME_BYTES, name);
}

/* Appends an element to the joined ones; an ellipsis stands for those that do not fit. */
static void join(struct out *out, const char *value, bool first)
{
    const size_t room = sizeof(out->joined) - sizeof("\xe2\x80\xa6");

    if (out->joined_full)
        return;
    if ((!first && !str_append(out->joined, room, ", ")) || !str_append(out->joined, room, value)) {
        (void)str_append(out->joined, sizeof(out->joined), "\xe2\x80\xa6");
        out->joined_full = true;
    }
}

/* Shows one value where the innermost frame wants it. */
static void show(struct out *out, const char *name, const char *value, bool number)
{
    struct out_frame *frame = top(out);
    char column[GRID_NAME_BYTES];

    if (frame->array)
        decide_array(out, false);
    switch (frame->role) {
    case OUT_LIST:
        if (!out->grid_open) {
            before_text(out);
            grid_begin(&out->grid, out->sink, out->columns, indent_of(out), true);
            out->grid_open = true;
        }
        grid_cell(&out->grid, name, value, number);
        break;
    case OUT_ROW:
    case OUT_COLUMNS:
        column_name(out, name, column);
        grid_cell(&out->grid, column, value, number);
        break;
    case OUT_JOIN:
        join(out, value, frame->elements == 0);
        break;
    default: /* a table's stray value, or the inside of something that is only counted */
        break;
    }
    frame->elements++;
}

static enum out_role object_role(struct out *out)
{
    switch (top(out)->role) {
    case OUT_LIST: return OUT_LIST;
    case OUT_TABLE: return OUT_ROW;
    case OUT_ROW:
    case OUT_COLUMNS: return OUT_COLUMNS;
    default: return OUT_HIDDEN;
    }
}

static enum out_role array_role(struct out *out)
{
    switch (top(out)->role) {
    case OUT_LIST:
    case OUT_ROW:
    case OUT_COLUMNS: return OUT_ARRAY;
    default: return OUT_HIDDEN;
    }
}

/* ---- Frames ---- */

static const char *name_in(struct out *out, const char *name)
{
    if (top(out)->array)
        return NULL;
    return name ? name : "value";
}

static bool ignores(const struct out *out)
{
    return out->failed || out->too_deep;
}

static void push(struct out *out, const char *name, bool array)
{
    const char *inner = name_in(out, name);
    enum out_role role = OUT_HIDDEN;
    struct out_frame *frame;

    if (out->failed)
        return;
    if (out->too_deep || out->depth + 1 == OUT_MAX_DEPTH) {
        out->too_deep++;
        return;
    }
    if (out->json) {
        json_open(&out->writer, inner, array ? '[' : '{');
    } else {
        if (top(out)->array)
            decide_array(out, !array);
        role = array ? array_role(out) : object_role(out);
        if (role == OUT_LIST) {
            close_grid(out);
            out->blank_next = true;
            before_text(out);
            begin_section(out, inner ? inner : "", indent_of(out));
        }
    }
    top(out)->elements++;
    frame = &out->frame[++out->depth];
    frame->array = array;
    frame->role = role;
    frame->elements = 0;
    (void)str_copy(frame->name, sizeof(frame->name), inner ? inner : "");
    if (role == OUT_ARRAY) {
        out->joined[0] = 0;
        out->joined_full = false;
    }
}

/* An array that is not a table becomes one value of the object that it is in. */
static void show_array(struct out *out, const struct out_frame *array)
{
    char text[32];

    if (array->role == OUT_JOIN) {
        show(out, array->name, out->joined, false);
    } else if (array->role == OUT_COUNT) {
        snprintf(text, sizeof(text), "%u", array->elements);
        show(out, array->name, text, true);
    } else if (array->role == OUT_ARRAY) {
        show(out, array->name, "none", false);
    }
}

static void pop(struct out *out)
{
    struct out_frame *frame = top(out);

    if (out->failed)
        return;
    if (out->too_deep) {
        out->too_deep--;
        return;
    }
    if (!out->depth)
        return;
    if (out->json) {
        json_close(&out->writer, frame->array ? ']' : '}');
        out->depth--;
        return;
    }
    if (frame->role == OUT_ROW)
        grid_row_end(&out->grid);
    if (frame->role == OUT_TABLE || frame->role == OUT_LIST) {
        close_grid(out);
        out->blank_next = true;
    }
    out->depth--;
    show_array(out, frame);
}

void out_object_begin(struct out *out, const char *name)
{
    push(out, name, false);
}

void out_object_end(struct out *out)
{
    pop(out);
}

void out_array_begin(struct out *out, const char *name)
{
    push(out, name, true);
}

void out_array_end(struct out *out)
{
    pop(out);
}

void out_begin(struct out *out, const struct sink *sink, unsigned columns, bool json)
{
    out->sink = sink;
    out->json = json;
    out->failed = false;
    out->columns = columns;
    out->depth = 0;
    out->too_deep = 0;
    out->wrote = false;
    out->blank_next = false;
    out->grid_open = false;
    out->frame[0] = (struct out_frame){ .role = OUT_LIST };
    json_init(&out->writer, sink);
    if (json)
        json_open(&out->writer, NULL, '{');
}

static void close_frames(struct out *out)
{
    out->too_deep = 0;
    while (out->depth)
        pop(out);
    close_grid(out);
}

void out_end(struct out *out)
{
    if (!out->failed)
        close_frames(out);
    if (!out->json)
        return;
    json_close(&out->writer, '}');
    json_flush(&out->writer);
    sink_puts(out->sink, "\n");
}

/* ---- Values ---- */

/* A value that JSON shows as `plain` under the name and `suffix`, and a person as `text`. */
static void put_plain(struct out *out, const char *name, const char *suffix, const char *plain, const char *text,
                      bool number)
{
    const char *inner = name_in(out, name);

    if (ignores(out))
        return;
    if (out->json)
        json_plain(&out->writer, inner, suffix, plain);
    else
        show(out, inner ? inner : "", text, number);
}

static void put_string(struct out *out, const char *name, const char *value, bool number)
{
    const char *inner = name_in(out, name);

    if (ignores(out))
        return;
    if (out->json)
        json_string(&out->writer, inner, value);
    else
        show(out, inner ? inner : "", value, number);
}

void out_string(struct out *out, const char *name, const char *value)
{
    if (value)
        put_string(out, name, value, false);
    else
        out_null(out, name);
}

void out_stringf(struct out *out, const char *name, const char *format, ...)
{
    char text[OUT_FORMAT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put_string(out, name, text, false);
}

void out_uint(struct out *out, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    put_plain(out, name, "", text, text, true);
}

void out_int(struct out *out, const char *name, int64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)value);
    put_plain(out, name, "", text, text, true);
}

void out_bool(struct out *out, const char *name, bool value)
{
    put_plain(out, name, "", value ? "true" : "false", value ? "yes" : "no", false);
}

void out_null(struct out *out, const char *name)
{
    put_plain(out, name, "", "null", "-", true); /* so that a column of numbers stays one */
}

void out_hex(struct out *out, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
    put_string(out, name, text, true);
}

void out_bytes(struct out *out, const char *name, uint64_t bytes)
{
    char plain[24];
    char text[32];

    snprintf(plain, sizeof(plain), "%llu", (unsigned long long)bytes);
    out_format_bytes(text, bytes);
    put_plain(out, name, "_bytes", plain, text, true);
}

void out_duration(struct out *out, const char *name, uint64_t ns)
{
    char plain[24];
    char text[32];

    snprintf(plain, sizeof(plain), "%llu", (unsigned long long)ns);
    out_format_duration(text, ns);
    put_plain(out, name, "_ns", plain, text, true);
}

void out_time(struct out *out, const char *name, uint64_t unix_seconds)
{
    char text[32];

    out_format_time(text, unix_seconds);
    put_string(out, name, text, false);
}

/* ---- Messages and errors ---- */

void out_message(struct out *out, const char *format, ...)
{
    char text[OUT_FORMAT_BYTES];
    va_list args;

    if (ignores(out))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (out->json) {
        json_string(&out->writer, name_in(out, "message"), text);
        return;
    }
    close_grid(out);
    before_text(out);
    grid_put_safe(out->sink, text);
    sink_puts(out->sink, "\n");
    out->wrote = true;
}

enum status out_error(struct out *out, enum status status, const char *object, const char *cure,
                      const char *cause_format, ...)
{
    char cause[OUT_FORMAT_BYTES];
    va_list args;

    if (out->failed)
        return status;
    va_start(args, cause_format);
    vsnprintf(cause, sizeof(cause), cause_format, args);
    va_end(args);
    close_frames(out);
    if (out->json) {
        json_open(&out->writer, "error", '{');
        json_string(&out->writer, "status", status_name(status));
        json_string(&out->writer, "object", object);
        json_string(&out->writer, "cause", cause);
        if (cure)
            json_string(&out->writer, "cure", cure);
        json_close(&out->writer, '}');
    } else {
        sink_puts(out->sink, "error: ");
        grid_put_safe(out->sink, object);
        sink_puts(out->sink, ": ");
        grid_put_safe(out->sink, cause);
        if (cure) {
            sink_puts(out->sink, "; ");
            grid_put_safe(out->sink, cure);
        }
        sink_puts(out->sink, "\n");
    }
    out->failed = true;
    return status;
}

/* The first separator (two characters) that is not between double quotes; a quote that nothing closes is a character. */
static char *find_unquoted(char *text, const char *separator)
{
    for (char *at = text; *at; at++) {
        char *close = *at == '"' ? strchr(at + 1, '"') : NULL;

        if (close)
            at = close;
        else if (at[0] == separator[0] && at[1] == separator[1])
            return at;
    }
    return NULL;
}

enum status out_error_text(struct out *out, enum status status, const char *object, char *text)
{
    char *cause = find_unquoted(text, ": "), *cure = NULL;

    if (cause) {
        *cause = 0;
        cause += 2;
        object = text;
    } else {
        cause = text;
    }
    for (char *at = cause; (at = find_unquoted(at, "; ")); at += 2)
        cure = at;
    if (cure) {
        *cure = 0;
        cure += 2;
    }
    return out_error(out, status, object, cure, "%s", cause);
}
