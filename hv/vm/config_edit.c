/* SPDX-License-Identifier: MIT */
/*
 * Editing a vm.conf. See config_edit.h. Lines are told apart as the parser (config.c) does it: LF or CR LF at their
 * end, blanks around what counts, '#' at the start or behind a blank begins a comment. Two walks: the first finds where
 * the new lines belong, the second copies.
 */
#include "vm/config_edit.h"

#include <string.h>

struct line {
    const char *begin, *end, *next; /* end: without its line end */
    const char *first;              /* that is no blank; `end`: none */
};

struct text {
    char *at;
    size_t room;
    bool full;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct line take_line(const char *at, const char *end)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    struct line line = { .begin = at, .end = newline ? newline : end, .next = newline ? newline + 1 : end };

    if (line.end > at && line.end[-1] == '\r')
        line.end--;
    for (line.first = at; line.first < line.end && is_blank(*line.first); line.first++)
        ;
    return line;
}

/* Whether the line begins a section; *vm: that of a VM. */
static bool begins_section(const struct line *line, bool *vm)
{
    const char *at = line->first;

    if (at == line->end || *at != '[')
        return false;
    for (at++; at < line->end && is_blank(*at); at++)
        ;
    *vm = line->end - at > 2 && at[0] == 'v' && at[1] == 'm' && is_blank(at[2]);
    return true;
}

static bool is_setting(const struct line *line)
{
    return line->first < line->end && *line->first != '#' && *line->first != '[';
}

static bool sets(const struct line *line, const char *key)
{
    size_t bytes = strlen(key);
    const char *at = line->first;

    if (!is_setting(line) || (size_t)(line->end - at) < bytes || memcmp(at, key, bytes))
        return false;
    for (at += bytes; at < line->end && is_blank(*at); at++)
        ;
    return at < line->end && *at == '=';
}

/* The comment behind a setting, with the blanks before it. */
static const char *comment_of(const struct line *line)
{
    for (const char *at = line->first; at < line->end; at++) {
        if (*at != '#' || at == line->begin || !is_blank(at[-1]))
            continue;
        while (is_blank(at[-1]))
            at--;
        return at;
    }
    return line->end;
}

static bool can_be_written(const char *value)
{
    for (const char *at = value; *at; at++)
        if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7f ||
            (*at == '#' && (at == value || is_blank(at[-1]))))
            return false;
    return true;
}

static void put(struct text *t, const char *bytes, size_t count)
{
    if (count > t->room) {
        t->full = true;
        return;
    }
    memcpy(t->at, bytes, count);
    t->at += count;
    t->room -= count;
}

static void put_lines(struct text *t, const struct config_change *c, const char *comment, size_t comment_bytes,
                      const char *line_end)
{
    for (unsigned i = 0; i < c->count; i++) {
        put(t, c->key, strlen(c->key));
        put(t, " = ", 3);
        put(t, c->values[i], strlen(c->values[i]));
        put(t, comment, i ? 0 : comment_bytes);
        put(t, line_end, strlen(line_end));
    }
}

/* The line behind which, or in whose place, the new lines go; NULL: there is no section. */
static const char *find_place(const char *text, const char *end, const struct config_change *c, bool *replaces,
                              const char **line_end)
{
    const char *place = NULL;
    bool inside = false, found = false, begun = false;

    *replaces = false;
    for (struct line line = { .next = text }; line.next < end;) {
        line = take_line(line.next, end);
        bool vm;
        if (begins_section(&line, &vm)) {
            inside = vm && !begun;
            if (inside) {
                begun = true;
                place = line.begin;
                *line_end = line.next > line.end + 1 ? "\r\n" : "\n";
            }
        } else if (inside && is_setting(&line)) {
            bool same = sets(&line, c->key);
            if (!found || (same && c->add))
                place = line.begin;
            if (same && !found) {
                found = true;
                *replaces = !c->add;
            }
        }
    }
    return place;
}

enum status config_edit(const char *text, size_t bytes, const struct config_change *change, char *out, size_t room,
                        size_t *out_bytes)
{
    struct text t = { .at = out, .room = room };
    const char *end = text + bytes, *line_end = "\n";
    bool replaces, inside = false, begun = false;

    for (unsigned i = 0; i < change->count; i++)
        if (!can_be_written(change->values[i]))
            return ERR_INVALID;
    if (bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) { /* a byte order mark is no part of the first line */
        put(&t, text, 3);
        text += 3;
    }
    const char *place = find_place(text, end, change, &replaces, &line_end);
    if (!place)
        return ERR_NOT_FOUND;
    for (struct line line = { .next = text }; line.next < end;) {
        line = take_line(line.next, end);
        bool vm;
        if (begins_section(&line, &vm)) {
            inside = vm && !begun;
            begun |= vm;
        }
        bool dropped = inside && !change->add && sets(&line, change->key);
        if (!dropped)
            put(&t, line.begin, (size_t)(line.next - line.begin));
        if (line.begin != place)
            continue;
        if (!dropped && line.next == line.end) /* the text's last line, which has no end */
            put(&t, line_end, strlen(line_end));
        const char *comment = replaces ? comment_of(&line) : line.end;
        put_lines(&t, change, comment, (size_t)(line.end - comment), line_end);
    }
    *out_bytes = room - t.room;
    return t.full ? ERR_RANGE : OK;
}
