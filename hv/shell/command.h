/* SPDX-License-Identifier: MIT */
/*
 * Commands: how they are described, found, parsed, run, completed and explained. Pure core: a command's own function is
 * where the rest of the hypervisor begins.
 *
 * A command is `noun verb`, then its arguments, with options (--name, --name VALUE, --name=VALUE) anywhere behind the
 * verb; "--" ends the options. Every command takes --json, and --help, which explains instead of running. A file
 * cmd_NOUN.c holds the table of a noun's commands; the shell is given all tables.
 */
#ifndef SHELL_COMMAND_H
#define SHELL_COMMAND_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "shell/args.h"
#include "shell/offers.h"
#include "shell/output.h"
#include "shell/sink.h"

#define COMMAND_MAX_OPTIONS 16 /* of one command */
#define COMMAND_USAGE_BYTES 256

struct shell;

/* The exit status of a command line. */
enum shell_exit {
    SHELL_OK = 0,
    SHELL_FAILED = 1,         /* the command ran and failed */
    SHELL_NOT_UNDERSTOOD = 2, /* no such command, or not with such arguments: nothing was done */
};

/* Calls offer(to, NAME) for the name of each object that there is (a VM, a volume); the shell picks those that fit. */
typedef void (*command_names_fn)(struct shell *shell, void (*offer)(void *to, const char *name), void *to);

struct command_argument {
    const char *name;       /* as in the usage: "NAME" */
    const char *help;       /* one line */
    const char *choices;    /* "start|collect|stop": nothing else is taken; NULL = any text */
    command_names_fn names; /* for completion; may be NULL */
    bool optional;          /* only optional ones may follow it */
    bool repeated;          /* it and any number more; the last one */
};

struct command_option {
    const char *name;       /* with its dashes: "--to" */
    const char *value;      /* as in the usage: "NODE"; NULL = a flag */
    const char *help;       /* one line */
    const char *choices;
    command_names_fn names;
    bool repeated;          /* may be given more than once: command_option_at(); with a value */
};

struct command_value {
    unsigned option; /* its place in command.options */
    const char *value;
};

/* What a command was called with. The texts live until it returns. */
struct command_call {
    const struct command *command;
    unsigned count;                                  /* of arguments */
    const char *argument[ARGS_MAX_COUNT + 1];        /* NULL behind the last */
    const char *option[COMMAND_MAX_OPTIONS];         /* by the option's place, its first; NULL = none; "" for a flag */
    unsigned again_count;                            /* further values of repeated options, in the line's order */
    struct command_value again[ARGS_MAX_COUNT];
};

struct command {
    const char *noun;
    const char *verb;    /* NULL for a command of one word; NULL noun ends a table */
    const char *summary; /* one line, no full stop */
    const char *help;    /* more, for `help COMMAND`; may be NULL */
    const struct command_argument *arguments; /* ends with a NULL name; NULL = none */
    const struct command_option *options;     /* likewise */
    /*
     * Does it: output and errors go to shell->out (out_error for what failed). Returns OK or the status of the failure;
     * if that comes without an out_error, the shell says what the status says.
     */
    enum status (*run)(struct shell *shell, const struct command_call *call);
};

/* A shell: one admin at one terminal. 32 KiB: never on a stack. One thread at a time. */
struct shell {
    const struct sink *sink;
    const char *node_name; /* for the prompt; NULL or "" = "node" */
    unsigned columns;      /* of the terminal */
    const struct command *const *tables; /* of commands, each ended by a NULL noun; the list by NULL */
    void *user;            /* whatever the commands need */
    enum shell_exit last;  /* exit status of the last command */
    struct out out;
    struct args args;
    struct command_call call;
};

/* A shell on a terminal of 80 columns. All pointers must outlive it; `node_name` may be changed between commands. */
void shell_init(struct shell *shell, const struct sink *sink, const struct command *const *tables,
                const char *node_name, void *user);

/* "tasuki:NAME> ", the name cut at 40 characters. */
void shell_prompt(const struct shell *shell, char *text, size_t bytes);

/* Runs one line; an empty one does nothing. The exit status is in shell->last too. */
enum shell_exit shell_run(struct shell *shell, const char *line);

/* A line_complete_fn (line.h): `shell` is the struct shell. Nouns, verbs, options, choices, names. */
size_t shell_complete(void *shell, const char *text, size_t cursor, struct offers *offers);

/* The value of an option, or NULL where it was not given (a flag has the value ""). The name must be the command's. */
const char *command_option(const struct command_call *call, const char *name);

/* The same for each value of a repeated option, from 0; NULL where there are not so many. */
const char *command_option_at(const struct command_call *call, const char *name, unsigned index);

/* The command of that noun and verb (NULL for a command of one word), or NULL. */
const struct command *shell_find(const struct shell *shell, const char *noun, const char *verb);

/* The first command of that noun, or NULL. */
const struct command *shell_find_noun(const struct shell *shell, const char *noun);

/* Walks all commands: the one behind `command`, the first one with NULL; NULL at the end. */
const struct command *shell_next(const struct shell *shell, const struct command *command);

/* "vm start" and "vm start NAME [--wait SECONDS]"; cut at `bytes`. */
void command_name(const struct command *command, char *text, size_t bytes);
void command_usage(const struct command *command, char *text, size_t bytes);

/* Explains a command on shell->out: what `help COMMAND` prints. */
void command_explain(struct shell *shell, const struct command *command);

/* `help`. cmd_help.c */
extern const struct command help_commands[];

#endif
