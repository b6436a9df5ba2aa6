/* SPDX-License-Identifier: MIT */
/*
 * Writes JSON (RFC 8259) to a sink, in one line, piece by piece. Pure core; nothing is held back but the small buffer.
 * Whatever the strings hold, the text is valid: control characters are escaped (DEL and U+0080 to U+009F too, for the
 * terminal's sake), bytes that are not UTF-8 become U+FFFD.
 *
 * The caller opens and closes in the right order; names are given inside objects and only there.
 */
#ifndef SHELL_JSON_H
#define SHELL_JSON_H

#include "kernel/types.h"
#include "shell/sink.h"

struct json {
    const struct sink *sink;
    size_t used;
    bool comma; /* something stands before the next value in the same container */
    char buffer[256];
};

void json_init(struct json *json, const struct sink *sink);
void json_open(struct json *json, const char *name, char bracket); /* '{' or '['; name is NULL outside objects */
void json_close(struct json *json, char bracket);                  /* '}' or ']' */
void json_string(struct json *json, const char *name, const char *value);
/* A number, true, false or null, under `name` with `suffix` behind it. */
void json_plain(struct json *json, const char *name, const char *suffix, const char *text);
void json_flush(struct json *json);

#endif
