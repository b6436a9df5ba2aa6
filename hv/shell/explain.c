/* SPDX-License-Identifier: MIT */
/* What a command's description says of it: its name, its usage, its help. Part of command.h. */
#include <string.h>

#include "kernel/text.h"
#include "shell/command.h"

void command_name(const struct command *command, char *text, size_t bytes)
{
    (void)str_copy(text, bytes, command->noun);
    if (command->verb) {
        (void)str_append(text, bytes, " ");
        (void)str_append(text, bytes, command->verb);
    }
}

/* "NAME", "start|stop", "[NAME]", "NAME...", "[NAME...]". */
static void argument_usage(const struct command_argument *argument, char *text, size_t bytes)
{
    (void)str_copy(text, bytes, argument->optional ? "[" : "");
    (void)str_append(text, bytes, argument->choices ? argument->choices : argument->name);
    (void)str_append(text, bytes, argument->repeated ? "..." : "");
    (void)str_append(text, bytes, argument->optional ? "]" : "");
}

/* "--to NODE", "--force". */
static void option_usage(const struct command_option *option, char *text, size_t bytes)
{
    (void)str_copy(text, bytes, option->name);
    if (option->value) {
        (void)str_append(text, bytes, " ");
        (void)str_append(text, bytes, option->choices ? option->choices : option->value);
    }
}

void command_usage(const struct command *command, char *text, size_t bytes)
{
    const struct command_argument *argument = command->arguments;
    const struct command_option *option = command->options;
    char part[128];

    command_name(command, text, bytes);
    for (; argument && argument->name; argument++) {
        argument_usage(argument, part, sizeof(part));
        (void)str_append(text, bytes, " ");
        (void)str_append(text, bytes, part);
    }
    for (; option && option->name; option++) {
        option_usage(option, part, sizeof(part));
        (void)str_append(text, bytes, " [");
        (void)str_append(text, bytes, part);
        (void)str_append(text, bytes, option->repeated ? "]..." : "]");
    }
}

static void explain_option(struct out *out, const char *usage, const char *help)
{
    out_object_begin(out, NULL);
    out_string(out, "option", usage);
    out_string(out, "meaning", help);
    out_object_end(out);
}

void command_explain(struct shell *shell, const struct command *command)
{
    struct out *out = &shell->out;
    const struct command_argument *argument = command->arguments;
    const struct command_option *option = command->options;
    char text[COMMAND_USAGE_BYTES];

    command_usage(command, text, sizeof(text));
    out_string(out, "usage", text);
    out_string(out, "summary", command->summary);
    if (command->help)
        out_string(out, "help", command->help);
    if (argument && argument->name) {
        out_array_begin(out, "arguments");
        for (; argument->name; argument++) {
            argument_usage(argument, text, sizeof(text));
            out_object_begin(out, NULL);
            out_string(out, "argument", text);
            out_string(out, "meaning", argument->help);
            out_object_end(out);
        }
        out_array_end(out);
    }
    out_array_begin(out, "options");
    for (; option && option->name; option++) {
        option_usage(option, text, sizeof(text));
        explain_option(out, text, option->help);
    }
    explain_option(out, "--json", "print one JSON object instead of text");
    explain_option(out, "--help", "explain this command and do nothing");
    out_array_end(out);
}
