/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: any bytes from a terminal, through the line editor, the splitter, the dispatcher and completion, and
 * back out in both forms.
 *
 * Checked besides memory: the line stays valid UTF-8 without control characters, its cursor between characters; what
 * reaches the terminal holds no control character that the shell did not mean; quoting an argument and splitting it
 * again gives the argument; output under --json is one line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/text.h"
#include "shell/command.h"
#include "shell/line.h"

static struct line line;
static struct shell shell;
static struct args args;
static bool in_command;     /* the sink gets a command's output, not the editor's */
static unsigned newlines;   /* of that output */

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_output(void *context, const char *bytes, size_t count)
{
    (void)context;
    while (count) {
        uint32_t code_point = 0;
        unsigned length = utf8_decode(bytes, count, &code_point);

        if (in_command && !length)
            return; /* JSON is written in pieces of a fixed size, which may end within a character */
        require(length != 0);
        require(code_point < 0x7f || code_point >= 0xa0);
        if (code_point == '\n')
            newlines += in_command;
        else if (in_command)
            require(code_point >= 0x20);
        else
            require(code_point >= 0x20 || code_point == '\r' || code_point == '\a' || code_point == 0x1b);
        bytes += length;
        count -= length;
    }
}

static const struct sink sink = { .write = check_output };

static void names(struct shell *s, void (*offer)(void *to, const char *name), void *to)
{
    (void)s;
    offer(to, "web1");
    offer(to, "my vm");
    offer(to, "a\"b\\");
}

/* Prints whatever it was called with, as a list and as a table. */
static enum status run_echo(struct shell *s, const struct command_call *call)
{
    out_array_begin(&s->out, "rows");
    for (unsigned i = 0; i < call->count; i++) {
        out_object_begin(&s->out, NULL);
        out_uint(&s->out, "number", i);
        out_string(&s->out, "text", call->argument[i]);
        out_string(&s->out, "again", call->argument[call->count - 1 - i]);
        out_object_end(&s->out);
    }
    out_array_end(&s->out);
    out_string(&s->out, "to", command_option(call, "--to"));
    if (call->count > 3)
        return out_error(&s->out, ERR_INVALID, call->argument[0], call->argument[1], "%s", call->argument[2]);
    return OK;
}

static const struct command_argument echo_arguments[] = {
    { .name = "TEXT", .help = "anything", .names = names, .optional = true, .repeated = true },
    { 0 },
};
static const struct command_option echo_options[] = {
    { .name = "--to", .value = "NODE", .help = "anything", .names = names },
    { 0 },
};
static const struct command echo_commands[] = {
    { .noun = "vm", .verb = "a", .summary = "echo", .arguments = echo_arguments, .options = echo_options,
      .run = run_echo },
    { 0 },
};
static const struct command *const tables[] = { help_commands, echo_commands, NULL };

static void check_line(void)
{
    bool cursor_seen = false;

    require(line.length <= LINE_MAX_BYTES && line.text[line.length] == 0 && line.cursor <= line.length);
    for (size_t at = 0; at < line.length;) {
        uint32_t code_point;
        unsigned length = utf8_decode(line.text + at, line.length - at, &code_point);

        require(length && code_point >= 0x20 && (code_point < 0x7f || code_point >= 0xa0));
        cursor_seen |= at == line.cursor;
        at += length;
    }
    require(cursor_seen || line.cursor == line.length);
}

/* Each argument, quoted, must split into itself. */
static void check_args(const char *text)
{
    static char quoted[2 * ARGS_MAX_LINE_BYTES + 3];
    static char value[ARGS_MAX_LINE_BYTES + 1];

    if (args_split(&args, text) != OK) {
        require(args.error && args.error_column);
        return;
    }
    for (unsigned i = 0; i < args.count; i++) {
        require(args_split(&args, text) == OK);
        (void)str_copy(value, sizeof(value), args.value[i]);
        require(args_quote(quoted, sizeof(quoted), value));
        if (strlen(quoted) > ARGS_MAX_LINE_BYTES)
            continue;
        require(args_split(&args, quoted) == OK && args.count == 1 && str_equal(args.value[0], value));
        require(args_split(&args, text) == OK);
    }
}

static void run_line(void)
{
    check_args(line.text);
    newlines = 0;
    in_command = true;
    (void)shell_run(&shell, line.text);
    if (shell.out.json && line.length)
        require(newlines <= 1);
    in_command = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char raw[4096];

    shell_init(&shell, &sink, tables, "alpha", NULL);
    line_init(&line, &sink, size ? 20 + data[0] % 100 : 80, shell_complete, &shell);
    line_start(&line, "tasuki:alpha> ");
    for (size_t i = 0; i < size; i++) {
        switch (line_feed(&line, data[i])) {
        case LINE_MORE:
            check_line();
            break;
        case LINE_DONE:
            check_line();
            run_line();
            line_start(&line, "tasuki:alpha> ");
            break;
        default:
            line_start(&line, "tasuki:alpha> ");
            break;
        }
    }
    if (size < sizeof(raw)) { /* the splitter also gets what no editor lets through */
        memcpy(raw, data, size);
        raw[size] = 0;
        check_args(raw);
        (void)args_split_partial(&args, raw, size / 2);
    }
    return 0;
}
