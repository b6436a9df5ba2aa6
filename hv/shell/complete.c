/* SPDX-License-Identifier: MIT */
/*
 * What may stand at the cursor of a command line: nouns, verbs, options, the words that an argument may be, and the
 * names of objects. Part of command.h; called by the line editor.
 *
 * The words before the cursor are read as the dispatcher reads them, but nothing in them is refused: a line that makes
 * no sense completes to nothing.
 */
#include <string.h>

#include "kernel/text.h"
#include "shell/command.h"

/* What is being completed, for the callbacks that offer names. */
struct completion {
    struct offers *offers;
    const char *prefix; /* what the name must begin with */
    const char *lead;   /* stands before the name in the line: "--to=" */
    size_t lead_bytes;
};

static void offer(void *to, const char *name)
{
    const struct completion *completion = to;
    char text[256];

    if (!str_starts_with(name, completion->prefix) || completion->lead_bytes >= sizeof(text))
        return;
    memcpy(text, completion->lead, completion->lead_bytes);
    if (args_quote(text + completion->lead_bytes, sizeof(text) - completion->lead_bytes, name))
        offers_add(completion->offers, text);
}

static void offer_choices(struct completion *completion, const char *choices)
{
    while (*choices) {
        char word[64];
        size_t bytes = strcspn(choices, "|");

        if (bytes < sizeof(word)) {
            memcpy(word, choices, bytes);
            word[bytes] = 0;
            offer(completion, word);
        }
        choices += bytes + (choices[bytes] == '|');
    }
}

static void offer_values(struct shell *shell, struct completion *completion, const char *choices,
                         command_names_fn names)
{
    if (choices)
        offer_choices(completion, choices);
    if (names)
        names(shell, offer, completion);
}

/* The option of that name (`bytes` bytes), or NULL. */
static const struct command_option *find_option(const struct command *command, const char *name, size_t bytes)
{
    const struct command_option *option = command->options;

    for (; option && option->name; option++) {
        if (strlen(option->name) == bytes && memcmp(option->name, name, bytes) == 0)
            return option;
    }
    return NULL;
}

/* True if the words from `first` up to the one at the cursor hold the option. */
static bool is_given(const struct args *args, unsigned first, const char *name)
{
    for (unsigned i = first; i + 1 < args->count; i++) {
        if (str_starts_with(args->value[i], name) && strcspn(args->value[i], "=") == strlen(name))
            return true;
    }
    return false;
}

static void offer_options(struct shell *shell, struct completion *completion, const struct command *command,
                          unsigned first)
{
    const struct command_option *option = command->options;

    for (; option && option->name; option++) {
        if (option->repeated || !is_given(&shell->args, first, option->name))
            offer(completion, option->name);
    }
    if (!is_given(&shell->args, first, "--json"))
        offer(completion, "--json");
    if (!is_given(&shell->args, first, "--help"))
        offer(completion, "--help");
}

/* "--to=al": the value behind the equals sign. */
static void offer_option_value(struct shell *shell, struct completion *completion, const struct command *command)
{
    size_t bytes = strcspn(completion->prefix, "=");
    const struct command_option *option = find_option(command, completion->prefix, bytes);

    if (!option || !option->value)
        return;
    completion->lead = completion->prefix;
    completion->lead_bytes = bytes + 1;
    completion->prefix += bytes + 1;
    offer_values(shell, completion, option->choices, option->names);
}

/* The last word is an argument or an option of `command`; its words begin at `first`. */
static void offer_for_command(struct shell *shell, struct completion *completion, const struct command *command,
                              unsigned first)
{
    const struct args *args = &shell->args;
    const struct command_argument *argument = command->arguments;
    bool options_end = false;

    for (unsigned i = first; i + 1 < args->count; i++) {
        const char *word = args->value[i];
        bool is_option = !options_end && !args->quoted[i] && str_starts_with(word, "--");
        const struct command_option *option = is_option ? find_option(command, word, strlen(word)) : NULL;

        if (is_option && !word[2])
            options_end = true;
        if (option && option->value && i + 2 == args->count) {
            offer_values(shell, completion, option->choices, option->names);
            return;
        }
        if (option && option->value)
            i++;
        if (!is_option && argument && argument->name && !argument->repeated)
            argument++;
    }
    if (!options_end && !args->quoted[args->count - 1] && str_starts_with(completion->prefix, "-")) {
        if (strchr(completion->prefix, '='))
            offer_option_value(shell, completion, command);
        else
            offer_options(shell, completion, command, first);
    } else if (argument && argument->name) {
        offer_values(shell, completion, argument->choices, argument->names);
    } else if (!options_end && !completion->prefix[0]) {
        offer_options(shell, completion, command, first);
    }
}

static void offer_nouns(struct shell *shell, struct completion *completion)
{
    const struct command *command = NULL;

    while ((command = shell_next(shell, command)))
        offer(completion, command->noun);
}

static void offer_verbs(struct shell *shell, struct completion *completion, const char *noun)
{
    const struct command *command = NULL;

    while ((command = shell_next(shell, command))) {
        if (command->verb && str_equal(command->noun, noun))
            offer(completion, command->verb);
    }
}

size_t shell_complete(void *context, const char *text, size_t cursor, struct offers *offers)
{
    struct shell *shell = context;
    struct args *args = &shell->args;
    struct completion completion = { .offers = offers, .lead = "" };
    const struct command *command;

    if (!args_split_partial(args, text, cursor))
        return cursor;
    completion.prefix = args->value[args->count - 1];
    if (args->count == 1) {
        offer_nouns(shell, &completion);
    } else {
        if (args->count == 2)
            offer_verbs(shell, &completion, args->value[0]);
        command = args->count > 2 ? shell_find(shell, args->value[0], args->value[1]) : NULL;
        if (command) {
            offer_for_command(shell, &completion, command, 2);
        } else {
            command = shell_find(shell, args->value[0], NULL);
            if (command)
                offer_for_command(shell, &completion, command, 1);
        }
    }
    if (offers->count == 1 && offers->text[strlen(offers->text) - 1] == '=')
        offers->unfinished = true;
    return args->start[args->count - 1];
}
