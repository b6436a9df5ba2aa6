/* SPDX-License-Identifier: MIT */
/*
 * The splitter of command lines: one pass, one character at a time, with a state of three quotes. See args.h.
 *
 * Invariant: the storage suffices, because an argument takes no more bytes there than in the line, and its NUL takes
 * the place of the separator (or of the line's own NUL).
 */
#include "shell/args.h"

#include <string.h>

#include "kernel/text.h"

enum quote { UNQUOTED, SINGLE, DOUBLE };

struct splitter {
    struct args *args;
    const char *line;
    size_t bytes;
    size_t at;
    unsigned column;     /* of line[at] */
    size_t used;         /* of the storage */
    enum quote quote;
    unsigned quote_column;
    bool open; /* inside an argument */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static enum status fail(struct splitter *s, enum status status, unsigned column, const char *error)
{
    s->args->error = error;
    s->args->error_column = column;
    return status;
}

static enum status open_argument(struct splitter *s)
{
    struct args *args = s->args;

    if (s->open)
        return OK;
    if (args->count == ARGS_MAX_COUNT)
        return fail(s, ERR_RANGE, s->column, "too many arguments");
    args->value[args->count] = args->storage + s->used;
    args->start[args->count] = (uint16_t)s->at;
    args->column[args->count] = (uint16_t)s->column;
    args->quoted[args->count] = false;
    s->open = true;
    return OK;
}

static void close_argument(struct splitter *s)
{
    if (!s->open)
        return;
    s->args->storage[s->used++] = 0;
    s->args->count++;
    s->open = false;
}

/* True if the backslash at line[at] takes the next character as it is. */
static bool escapes_next(const struct splitter *s)
{
    char next = s->at + 1 < s->bytes ? s->line[s->at + 1] : 0;

    if (s->quote == DOUBLE)
        return next == '"' || next == '\\';
    return s->quote == UNQUOTED && (is_blank(next) || next == '"' || next == '\'' || next == '\\');
}

/* Takes one character, of `length` bytes, into the open argument or as a separator, quote or escape. */
static enum status take(struct splitter *s, unsigned length)
{
    char c = s->line[s->at];
    enum status status;

    if (s->quote == UNQUOTED && is_blank(c)) {
        close_argument(s);
        return OK;
    }
    status = open_argument(s);
    if (status != OK)
        return status;
    if ((c == '"' && s->quote != SINGLE) || (c == '\'' && s->quote != DOUBLE)) {
        s->quote = s->quote != UNQUOTED ? UNQUOTED : c == '"' ? DOUBLE : SINGLE;
        s->quote_column = s->column;
        s->args->quoted[s->args->count] |= s->at == s->args->start[s->args->count];
        return OK;
    }
    if (c == '\\' && escapes_next(s)) {
        s->args->quoted[s->args->count] |= s->at == s->args->start[s->args->count];
        s->at++;
        s->column++;
    }
    memcpy(s->args->storage + s->used, s->line + s->at, length);
    s->used += length;
    return OK;
}

static enum status split(struct splitter *s)
{
    while (s->at < s->bytes) {
        uint32_t code_point;
        unsigned length = utf8_decode(s->line + s->at, s->bytes - s->at, &code_point);
        enum status status;

        if (!length)
            return fail(s, ERR_INVALID, s->column, "not UTF-8 text");
        if ((code_point < 0x20 && code_point != '\t') || (code_point >= 0x7f && code_point < 0xa0))
            return fail(s, ERR_INVALID, s->column, "a control character");
        status = take(s, length);
        if (status != OK)
            return status;
        s->at += length;
        s->column++;
    }
    return OK;
}

static struct splitter start(struct args *args, const char *line, size_t bytes)
{
    args->count = 0;
    args->value[0] = NULL;
    args->error = NULL;
    args->error_column = 0;
    return (struct splitter){ .args = args, .line = line, .bytes = bytes, .column = 1 };
}

enum status args_split(struct args *args, const char *line)
{
    size_t bytes = strnlen(line, ARGS_MAX_LINE_BYTES + 1);
    struct splitter s = start(args, line, bytes);
    enum status status;

    if (bytes > ARGS_MAX_LINE_BYTES)
        return fail(&s, ERR_RANGE, ARGS_MAX_LINE_BYTES + 1, "the line is too long");
    status = split(&s);
    if (status == OK && s.quote != UNQUOTED)
        status = fail(&s, ERR_INVALID, s.quote_column, s.quote == DOUBLE ? "a \" is not closed" : "a ' is not closed");
    if (status == OK)
        close_argument(&s);
    args->value[args->count] = NULL;
    return status;
}

bool args_split_partial(struct args *args, const char *line, size_t cursor)
{
    struct splitter s = start(args, line, cursor);
    enum status status;

    if (cursor > ARGS_MAX_LINE_BYTES)
        return false;
    status = split(&s);
    if (status == OK)
        status = open_argument(&s); /* an empty one, where the cursor stands behind a separator */
    if (status == OK)
        close_argument(&s);
    args->value[args->count] = NULL;
    return status == OK;
}

static bool needs_quotes(const char *value)
{
    if (!*value)
        return true;
    for (const char *at = value; *at; at++) {
        if (is_blank(*at) || *at == '"' || *at == '\'')
            return true;
        if (*at == '\\' && (at[1] == '\\' || at[1] == 0))
            return true;
    }
    return false;
}

bool args_quote(char *to, size_t bytes, const char *value)
{
    size_t used = 0;

    if (!needs_quotes(value))
        return bytes > 0 && str_copy(to, bytes, value);
    if (bytes < 3)
        return false;
    to[used++] = '"';
    for (; *value; value++) {
        if (used + 4 > bytes) /* an escape, the character, the quote and the NUL */
            return false;
        if (*value == '"' || *value == '\\')
            to[used++] = '\\';
        to[used++] = *value;
    }
    to[used++] = '"';
    to[used] = 0;
    return true;
}
