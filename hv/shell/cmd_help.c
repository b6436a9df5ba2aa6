/* SPDX-License-Identifier: MIT */
/* `help`: all commands; `help NOUN`: those of a noun; `help NOUN VERB`: one command in full. */
#include "kernel/text.h"
#include "shell/command.h"

/* Lists the commands of a noun, or all with NULL. */
static void list_commands(struct shell *shell, const char *noun)
{
    struct out *out = &shell->out;
    const struct command *command = NULL;
    char text[COMMAND_USAGE_BYTES];

    out_array_begin(out, "commands");
    while ((command = shell_next(shell, command))) {
        if (noun && !str_equal(command->noun, noun))
            continue;
        out_object_begin(out, NULL);
        command_name(command, text, sizeof(text));
        out_string(out, "command", text);
        out_string(out, "summary", command->summary);
        out_object_end(out);
    }
    out_array_end(out);
}

static enum status run_help(struct shell *shell, const struct command_call *call)
{
    const char *noun = call->argument[0];
    const char *verb = noun ? call->argument[1] : NULL;
    const struct command *command;

    if (!noun) {
        list_commands(shell, NULL);
        if (!shell->out.json)
            out_message(&shell->out, "\"help COMMAND\" explains a command; a tab completes what you type.");
        return OK;
    }
    command = shell_find(shell, noun, verb);
    if (command)
        command_explain(shell, command);
    else if (!verb && shell_find_noun(shell, noun))
        list_commands(shell, noun);
    else
        return out_error(&shell->out, ERR_NOT_FOUND, verb ? verb : noun, "\"help\" lists the commands",
                         "no such command%s%s", verb ? " of " : "", verb ? noun : "");
    return OK;
}

/* Nouns for the first word, the verbs of that noun for the second. */
static void help_nouns(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    const struct command *command = NULL;

    while ((command = shell_next(shell, command)))
        offer(to, command->noun);
}

static void help_verbs(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    const struct command *command = NULL;

    while (shell->args.count > 1 && (command = shell_next(shell, command))) {
        if (command->verb && str_equal(command->noun, shell->args.value[1]))
            offer(to, command->verb);
    }
}

static const struct command_argument help_arguments[] = {
    { .name = "NOUN", .help = "what the command is about: vm, node", .names = help_nouns, .optional = true },
    { .name = "VERB", .help = "what it does: list, start", .names = help_verbs, .optional = true },
    { 0 },
};

const struct command help_commands[] = {
    { .noun = "help",
      .summary = "list the commands, or explain one",
      .help = "Commands are a noun and a verb, then arguments and options: \"vm start web1\". A text with spaces goes "
              "in quotes. Every command takes --json, and then prints one JSON object in one line; where it failed, "
              "that object has a field named error.",
      .arguments = help_arguments,
      .run = run_help },
    { 0 },
};
