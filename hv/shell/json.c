/* SPDX-License-Identifier: MIT */
/* JSON, written as a stream. See json.h. */
#include "shell/json.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

void json_init(struct json *json, const struct sink *sink)
{
    json->sink = sink;
    json->used = 0;
    json->comma = false;
}

void json_flush(struct json *json)
{
    sink_write(json->sink, json->buffer, json->used);
    json->used = 0;
}

static void put(struct json *json, const char *bytes, size_t count)
{
    while (count) {
        size_t part;

        if (json->used == sizeof(json->buffer))
            json_flush(json);
        part = MIN(count, sizeof(json->buffer) - json->used);
        memcpy(json->buffer + json->used, bytes, part);
        json->used += part;
        bytes += part;
        count -= part;
    }
}

static void put_character(struct json *json, const char *bytes, unsigned length, uint32_t code_point)
{
    char escape[8];

    switch (code_point) {
    case '"': put(json, "\\\"", 2); return;
    case '\\': put(json, "\\\\", 2); return;
    case '\n': put(json, "\\n", 2); return;
    case '\r': put(json, "\\r", 2); return;
    case '\t': put(json, "\\t", 2); return;
    }
    if (code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0)) {
        snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)code_point);
        put(json, escape, 6);
    } else {
        put(json, bytes, length);
    }
}

static void put_characters(struct json *json, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        uint32_t code_point;
        unsigned length = utf8_decode(text, left, &code_point);

        if (length) {
            put_character(json, text, length, code_point);
        } else {
            put(json, "\xef\xbf\xbd", 3);
            length = 1;
        }
        text += length;
        left -= length;
    }
}

static void put_name(struct json *json, const char *name, const char *suffix)
{
    if (json->comma)
        put(json, ", ", 2);
    json->comma = true;
    if (!name)
        return;
    put(json, "\"", 1);
    put_characters(json, name);
    put_characters(json, suffix);
    put(json, "\": ", 3);
}

void json_open(struct json *json, const char *name, char bracket)
{
    put_name(json, name, "");
    put(json, &bracket, 1);
    json->comma = false;
}

void json_close(struct json *json, char bracket)
{
    put(json, &bracket, 1);
    json->comma = true;
}

void json_string(struct json *json, const char *name, const char *value)
{
    put_name(json, name, "");
    put(json, "\"", 1);
    put_characters(json, value);
    put(json, "\"", 1);
}

void json_plain(struct json *json, const char *name, const char *suffix, const char *text)
{
    put_name(json, name, suffix);
    put(json, text, strlen(text));
}
