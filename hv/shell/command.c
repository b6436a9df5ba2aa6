/* SPDX-License-Identifier: MIT */
/*
 * From a line to a command's function: find the command, sort options from arguments, check them against its
 * description, run it. See command.h; complete.c holds the completion, explain.c what a command's description says.
 *
 * Everything that can be wrong with a line is found before the command runs, and each refusal names the object (the
 * word that is wrong), the cause and the cure.
 */
#include "shell/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/text.h"
#include "shell/suggest.h"

#define DEFAULT_COLUMNS 80
#define PROMPT_NAME_BYTES 41

void shell_init(struct shell *shell, const struct sink *sink, const struct command *const *tables,
                const char *node_name, void *user)
{
    memset(shell, 0, sizeof(*shell));
    shell->sink = sink;
    shell->node_name = node_name;
    shell->columns = DEFAULT_COLUMNS;
    shell->tables = tables;
    shell->user = user;
}

void shell_prompt(const struct shell *shell, char *text, size_t bytes)
{
    char name[PROMPT_NAME_BYTES];

    (void)str_copy(name, sizeof(name), shell->node_name && *shell->node_name ? shell->node_name : "node");
    snprintf(text, bytes, "tasuki:%s> ", name);
}

/* ---- Looking commands up ---- */

const struct command *shell_next(const struct shell *shell, const struct command *command)
{
    const struct command *const *table = shell->tables;

    if (command) {
        if (command[1].noun)
            return command + 1;
        for (; *table; table++) { /* the table that `command` is the last of */
            const struct command *last = *table;

            while (last->noun && last != command)
                last++;
            if (last == command)
                break;
        }
        table += *table != NULL;
    }
    while (*table && !(*table)->noun)
        table++;
    return *table;
}

const struct command *shell_find_noun(const struct shell *shell, const char *noun)
{
    const struct command *command = NULL;

    while ((command = shell_next(shell, command))) {
        if (str_equal(command->noun, noun))
            return command;
    }
    return NULL;
}

const struct command *shell_find(const struct shell *shell, const char *noun, const char *verb)
{
    const struct command *command = NULL;

    while ((command = shell_next(shell, command))) {
        if (str_equal(command->noun, noun) &&
            (command->verb && verb ? str_equal(command->verb, verb) : command->verb == verb))
            return command;
    }
    return NULL;
}

const char *command_option_at(const struct command_call *call, const char *name, unsigned index)
{
    const struct command_option *options = call->command->options;
    unsigned place = 0;

    while (options && options[place].name && place < COMMAND_MAX_OPTIONS && !str_equal(options[place].name, name))
        place++;
    if (!options || !options[place].name || place == COMMAND_MAX_OPTIONS)
        return NULL;
    if (!index)
        return call->option[place];
    for (unsigned i = 0; i < call->again_count; i++) {
        if (call->again[i].option == place && !--index)
            return call->again[i].value;
    }
    return NULL;
}

const char *command_option(const struct command_call *call, const char *name)
{
    return command_option_at(call, name, 0);
}

/* ---- Refusals ---- */

static enum shell_exit no_such_noun(struct shell *shell, const char *noun, const char *verb)
{
    const struct command *command = NULL;
    struct suggestion suggestion;

    if (verb && shell_find(shell, verb, noun)) {
        (void)out_error(&shell->out, ERR_NOT_FOUND, noun, "\"help\" lists the commands",
                        "no such command; did you mean \"%s %s\"?", verb, noun);
        return SHELL_NOT_UNDERSTOOD;
    }
    suggest_begin(&suggestion, noun);
    while ((command = shell_next(shell, command)))
        suggest_offer(&suggestion, command->noun);
    if (suggestion.best)
        (void)out_error(&shell->out, ERR_NOT_FOUND, noun, "\"help\" lists the commands",
                        "no such command; did you mean \"%s\"?", suggestion.best);
    else
        (void)out_error(&shell->out, ERR_NOT_FOUND, noun, "\"help\" lists the commands", "no such command");
    return SHELL_NOT_UNDERSTOOD;
}

static enum shell_exit no_such_verb(struct shell *shell, const char *noun, const char *verb)
{
    const struct command *command = NULL;
    struct suggestion suggestion;
    char object[96];
    char cure[OUT_FORMAT_BYTES / 2];

    (void)str_copy(object, sizeof(object), noun);
    (void)str_copy(cure, sizeof(cure), "say one of: ");
    suggest_begin(&suggestion, verb ? verb : "");
    while ((command = shell_next(shell, command))) {
        if (!str_equal(command->noun, noun) || !command->verb)
            continue;
        if (cure[strlen(cure) - 1] != ' ')
            (void)str_append(cure, sizeof(cure), ", ");
        (void)str_append(cure, sizeof(cure), command->verb);
        suggest_offer(&suggestion, command->verb);
    }
    if (!verb) {
        (void)out_error(&shell->out, ERR_INVALID, object, cure, "what to do with it is missing");
        return SHELL_NOT_UNDERSTOOD;
    }
    (void)str_append(object, sizeof(object), " ");
    (void)str_append(object, sizeof(object), verb);
    if (suggestion.best)
        (void)out_error(&shell->out, ERR_NOT_FOUND, object, cure, "no such command; did you mean \"%s %s\"?", noun,
                        suggestion.best);
    else
        (void)out_error(&shell->out, ERR_NOT_FOUND, object, cure, "no such command");
    return SHELL_NOT_UNDERSTOOD;
}

/* A refusal of an argument or option: the cure is the usage. */
static enum status refuse(struct shell *shell, const char *object, const char *cause_format, ...) PRINTF_LIKE(3, 4);

static enum status refuse(struct shell *shell, const char *object, const char *cause_format, ...)
{
    char usage[COMMAND_USAGE_BYTES];
    char cure[COMMAND_USAGE_BYTES + 16];
    char cause[OUT_FORMAT_BYTES / 2];
    va_list args;

    va_start(args, cause_format);
    vsnprintf(cause, sizeof(cause), cause_format, args);
    va_end(args);
    command_usage(shell->call.command, usage, sizeof(usage));
    snprintf(cure, sizeof(cure), "usage: %s", usage);
    return out_error(&shell->out, ERR_INVALID, object, cure, "%s", cause);
}

/* ---- Options and arguments ---- */

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);

    for (;;) {
        size_t bytes = strcspn(choices, "|");

        if (bytes == length && memcmp(choices, value, bytes) == 0)
            return true;
        if (!choices[bytes])
            return false;
        choices += bytes + 1;
    }
}

static enum status unknown_option(struct shell *shell, const char *word)
{
    const struct command_option *options = shell->call.command->options;
    struct suggestion suggestion;
    char name[SUGGEST_MAX_BYTES];

    (void)str_copy(name, sizeof(name), word);
    name[strcspn(name, "=")] = 0;
    suggest_begin(&suggestion, name);
    suggest_offer(&suggestion, "--json");
    suggest_offer(&suggestion, "--help");
    for (unsigned i = 0; options && options[i].name; i++)
        suggest_offer(&suggestion, options[i].name);
    if (suggestion.best)
        return refuse(shell, name, "no such option here; did you mean \"%s\"?", suggestion.best);
    return refuse(shell, name, "no such option here (an argument that begins with a dash comes after \"--\")");
}

/* A word that is an option is no option's value: that was forgotten. In quotes, or as --option=--word, it is meant. */
static bool is_option(const struct shell *shell, unsigned at)
{
    const struct command_option *options = shell->call.command->options;
    const char *word = shell->args.value[at];

    if (shell->args.quoted[at])
        return false;
    size_t bytes = strcspn(word, "=");

    for (unsigned i = 0; options && options[i].name; i++)
        if (strlen(options[i].name) == bytes && memcmp(options[i].name, word, bytes) == 0)
            return true;
    return !strcmp(word, "--json") || !strcmp(word, "--help");
}

/* Takes the option in args.value[*at], and its value, which may be the next argument; moves *at to its last word. */
static enum status take_option(struct shell *shell, unsigned *at)
{
    const struct command_option *options = shell->call.command->options;
    const char *word = shell->args.value[*at];
    size_t bytes = strcspn(word, "=");
    const char *value = word[bytes] ? word + bytes + 1 : NULL;

    for (unsigned i = 0; options && options[i].name && i < COMMAND_MAX_OPTIONS; i++) {
        const struct command_option *option = &options[i];

        if (strlen(option->name) != bytes || memcmp(option->name, word, bytes) != 0)
            continue;
        if (shell->call.option[i] && !option->repeated)
            return refuse(shell, option->name, "given twice");
        if (!option->value) {
            shell->call.option[i] = "";
            return value ? refuse(shell, option->name, "takes no value") : OK;
        }
        if (!value && *at + 1 < shell->args.count && !is_option(shell, *at + 1))
            value = shell->args.value[++*at];
        if (!value)
            return refuse(shell, option->name, "its value %s is missing", option->value);
        if (option->choices && !is_choice(option->choices, value))
            return refuse(shell, option->name, "\"%s\" is none of %s", value, option->choices);
        if (!shell->call.option[i])
            shell->call.option[i] = value;
        else /* there is room: a value needs a word of its own */
            shell->call.again[shell->call.again_count++] = (struct command_value){ i, value };
        return OK;
    }
    return unknown_option(shell, word);
}

/* Checks the number of arguments, and those that must be one of a few words. */
static enum status check_arguments(struct shell *shell)
{
    const struct command_call *call = &shell->call;
    const struct command_argument *wanted = call->command->arguments;
    unsigned i = 0;

    for (; wanted && wanted->name; wanted++) {
        unsigned taken = 0;

        for (; i < call->count && (!taken || wanted->repeated); i++, taken++) {
            if (wanted->choices && !is_choice(wanted->choices, call->argument[i]))
                return refuse(shell, wanted->name, "\"%s\" is none of %s", call->argument[i], wanted->choices);
        }
        if (!taken && !wanted->optional)
            return refuse(shell, wanted->name, "this argument is missing");
    }
    if (i < call->count)
        return refuse(shell, call->argument[i], "one argument too many");
    return OK;
}

/* Sorts the words from `first` on into options and arguments. */
static enum status parse(struct shell *shell, unsigned first, bool *help)
{
    bool options_end = false;

    for (unsigned i = first; i < shell->args.count; i++) {
        const char *word = shell->args.value[i];

        if (options_end || shell->args.quoted[i] || word[0] != '-' || word[1] != '-') {
            shell->call.argument[shell->call.count++] = word;
        } else if (str_equal(word, "--")) {
            options_end = true;
        } else if (str_equal(word, "--help")) {
            *help = true;
        } else if (!str_equal(word, "--json")) {
            enum status status = take_option(shell, &i);

            if (status != OK)
                return status;
        }
    }
    shell->call.argument[shell->call.count] = NULL;
    return *help ? OK : check_arguments(shell);
}

/* ---- Running ---- */

static enum shell_exit run_command(struct shell *shell, unsigned first)
{
    bool help = false;
    enum status status;

    if (parse(shell, first, &help) != OK)
        return SHELL_NOT_UNDERSTOOD;
    if (help) {
        command_explain(shell, shell->call.command);
        return SHELL_OK;
    }
    status = shell->call.command->run(shell, &shell->call);
    if (status != OK && !shell->out.failed) {
        char name[64];

        command_name(shell->call.command, name, sizeof(name));
        (void)out_error(&shell->out, status, name, "\"log show\" may say more", "%s", status_name(status));
    }
    return shell->out.failed ? SHELL_FAILED : SHELL_OK;
}

/* The line's words are in shell->args, at least one. */
static enum shell_exit dispatch(struct shell *shell)
{
    const char *noun = shell->args.value[0];
    const char *verb = NULL;

    if (shell->args.count > 1 && !str_starts_with(shell->args.value[1], "--"))
        verb = shell->args.value[1];
    shell->call.command = verb ? shell_find(shell, noun, verb) : NULL;
    if (shell->call.command)
        return run_command(shell, 2);
    shell->call.command = shell_find(shell, noun, NULL);
    if (shell->call.command)
        return run_command(shell, 1);
    if (shell_find_noun(shell, noun))
        return no_such_verb(shell, noun, verb);
    return no_such_noun(shell, noun, verb);
}

/* True if the words hold --json as an option, also where the rest of the line makes no sense. */
static bool wants_json(const struct args *args)
{
    for (unsigned i = 0; i < args->count; i++) {
        if (args->quoted[i])
            continue;
        if (str_equal(args->value[i], "--"))
            return false;
        if (str_equal(args->value[i], "--json"))
            return true;
    }
    return false;
}

enum shell_exit shell_run(struct shell *shell, const char *line)
{
    enum status status = args_split(&shell->args, line);

    if (status == OK && !shell->args.count)
        return SHELL_OK;
    memset(&shell->call, 0, sizeof(shell->call));
    out_begin(&shell->out, shell->sink, shell->columns, wants_json(&shell->args));
    if (status != OK) {
        char object[40];

        snprintf(object, sizeof(object), "column %u", shell->args.error_column);
        (void)out_error(&shell->out, status, object, "correct the line and enter it again", "%s", shell->args.error);
        shell->last = SHELL_NOT_UNDERSTOOD;
    } else {
        shell->last = dispatch(shell);
    }
    out_end(&shell->out);
    return shell->last;
}
