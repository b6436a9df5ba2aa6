/* SPDX-License-Identifier: MIT */
/* Candidates of a completion. See offers.h. They are kept sorted by their bytes, so that lists read well. */
#include "shell/offers.h"

#include <stdio.h>
#include <string.h>

#include "kernel/text.h"

#define GAP_COLUMNS 2

void offers_clear(struct offers *offers)
{
    offers->used = 0;
    offers->count = 0;
    offers->dropped = 0;
    offers->unfinished = false;
}

/* Columns of a text, or -1 where it is not printable UTF-8. */
static int printable_columns(const char *text)
{
    size_t left = strlen(text);
    int columns = 0;

    while (left) {
        uint32_t code_point;
        unsigned length = utf8_decode(text, left, &code_point);

        if (!length || code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0))
            return -1;
        columns += (int)utf8_columns(code_point);
        text += length;
        left -= length;
    }
    return columns;
}

void offers_add(struct offers *offers, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *at = offers->text;

    if (bytes == 1 || printable_columns(text) < 0)
        return;
    for (unsigned i = 0; i < offers->count; i++, at += strlen(at) + 1) {
        int order = strcmp(at, text);

        if (order == 0)
            return;
        if (order > 0)
            break;
    }
    if (bytes > OFFERS_BYTES - offers->used) {
        offers->dropped++;
        return;
    }
    memmove(at + bytes, at, offers->used - (size_t)(at - offers->text));
    memcpy(at, text, bytes);
    offers->used += bytes;
    offers->count++;
}

size_t offers_common_bytes(const struct offers *offers)
{
    const char *at = offers->text;
    size_t common = offers->count ? strlen(at) : 0;

    for (unsigned i = 1; i < offers->count; i++) {
        at += strlen(at) + 1;
        for (size_t same = 0; same < common; same++) {
            if (at[same] != offers->text[same])
                common = same;
        }
    }
    while (common && ((unsigned char)offers->text[common] & 0xc0) == 0x80)
        common--;
    return common;
}

static const char *offer_at(const struct offers *offers, unsigned index)
{
    const char *at = offers->text;

    while (index--)
        at += strlen(at) + 1;
    return at;
}

void offers_print(const struct offers *offers, const struct sink *sink, unsigned columns, unsigned rows)
{
    unsigned widest = 1;
    unsigned across, down, shown, hidden;
    const char *at = offers->text;

    for (unsigned i = 0; i < offers->count; i++, at += strlen(at) + 1)
        widest = MAX(widest, (unsigned)printable_columns(at));
    across = MAX(columns / (widest + GAP_COLUMNS), 1u);
    down = MIN((offers->count + across - 1) / across, rows);
    shown = MIN(offers->count, down * across);
    hidden = offers->count - shown + offers->dropped;
    for (unsigned row = 0; row < down; row++) {
        for (unsigned i = row; i < shown; i += down) {
            const char *text = offer_at(offers, i);
            unsigned width = (unsigned)printable_columns(text);

            sink_puts(sink, text);
            for (; i + down < shown && width < widest + GAP_COLUMNS; width++)
                sink_puts(sink, " ");
        }
        sink_puts(sink, "\n");
    }
    if (hidden) {
        char text[48];

        snprintf(text, sizeof(text), "... and %u more\n", hidden);
        sink_puts(sink, text);
    }
}
