/* SPDX-License-Identifier: MIT */
/*
 * tasuki-csv: makes, checks, fills, lists and mounts a cluster shared volume on an admin's machine, by the same code
 * that the hypervisor uses (csv/). Here: the command line.
 *
 *     tasuki-csv COMMAND [OPTION ...] VOLUME [ARGUMENT ...]
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/text.h"
#include "say.h"
#include "tool.h"

enum option_bit {
    OPT_FORCE = 1 << 0,
    OPT_RECURSIVE = 1 << 1,
    OPT_REPAIR = 1 << 2,
    OPT_LABEL = 1 << 3,
    OPT_SIZE = 1 << 4,
    OPT_QUIET = 1 << 5,
    OPT_JSON = 1 << 6,
    OPT_READ_ONLY = 1 << 7,
    OPT_FOREGROUND = 1 << 8,
    OPT_ALLOW_OTHER = 1 << 9,
    OPT_FORMAT = 1 << 10,
    OPT_TAKE_OVER = 1 << 11,
    OPT_INITIATOR = 1 << 12,
    OPT_HELP = 1 << 13,
};
#define OPT_ALWAYS (OPT_TAKE_OVER | OPT_INITIATOR | OPT_HELP)

static const struct {
    struct option_name {
        const char *name;
        char letter;
        bool value;
    } names;
    unsigned option;
    const char *help;
} option_table[] = {
    { { "force", 'f', false }, OPT_FORCE,
      "mkfs: although there is something on the disk; fsck --repair: discard what a damaged journal no longer tells" },
    { { "recursive", 'r', false }, OPT_RECURSIVE, "directories with all that is in them" },
    { { "repair", 0, false }, OPT_REPAIR, "repair what is damaged" },
    { { "label", 'L', true }, OPT_LABEL, "TEXT: the volume's label, at most 63 bytes" },
    { { "size", 's', true }, OPT_SIZE, "SIZE: make a file of this size if there is none (64M to 64T)" },
    { { "quiet", 'q', false }, OPT_QUIET, "no progress bar" },
    { { "json", 'j', false }, OPT_JSON, "output for programs" },
    { { "read-only", 0, false }, OPT_READ_ONLY, "change nothing" },
    { { "foreground", 0, false }, OPT_FOREGROUND, "stay in the foreground until the directory is unmounted" },
    { { "allow-other", 0, false }, OPT_ALLOW_OTHER, "other users may use the directory, as its permissions say" },
    { { "format", 'O', true }, OPT_FORMAT,
      "FORMAT: of the source, where it is not to be guessed (qcow2, vmdk, vhdx ...)" },
    { { "take-over", 0, false }, OPT_TAKE_OVER, "whoever has the volume mounted or reserved is certainly gone" },
    { { "initiator", 0, true }, OPT_INITIATOR, "NAME: iSCSI name of this side" },
    { { "help", 'h', false }, OPT_HELP, "this text" },
};

static const struct command {
    const char *name;
    int (*run)(const struct invocation *call);
    int least, most; /* arguments behind VOLUME */
    bool cleans_up;  /* when it is interrupted; the others just end */
    unsigned options;
    const char *arguments, *help;
} command_table[] = {
    { "mkfs", command_mkfs, 0, 0, false, OPT_FORCE | OPT_LABEL | OPT_SIZE, "",
      "make an empty volume; what was there is lost" },
    { "fsck", command_fsck, 0, 0, false, OPT_REPAIR | OPT_FORCE, "",
      "check everything; exit status 0: sound, 1: mended, 4: damaged, 8: not checked" },
    { "grow", command_grow, 0, 0, true, 0, "", "make the volume as large as its disk is now" },
    { "info", command_info, 0, 0, false, OPT_JSON, "", "identity, size and use of the volume" },
    { "df", command_df, 0, 0, false, OPT_JSON, "", "room on the volume" },
    { "ls", command_ls, 0, 1, false, OPT_JSON, "[PATH]", "list a directory, or show a file" },
    { "mkdir", command_mkdir, 1, 1, true, 0, "PATH", "make a directory" },
    { "put", command_put, 2, 2, true, OPT_QUIET, "SOURCE PATH",
      "copy a file from here (-: standard input) to the volume" },
    { "get", command_get, 2, 2, false, OPT_QUIET, "PATH TARGET",
      "copy a file from the volume to here (-: standard output)" },
    { "import", command_import, 2, 2, true, OPT_QUIET | OPT_FORMAT, "SOURCE PATH",
      "copy a disk image (qcow2, VMDK, VHDX and what else qemu-img reads) as a raw file" },
    { "mv", command_mv, 2, 2, true, 0, "PATH PATH", "rename or move; a file of the new name is replaced" },
    { "cp", command_cp, 2, 2, true, 0, "PATH PATH", "clone a file: both share their blocks until one is written" },
    { "mount", command_mount, 1, 1, true, OPT_READ_ONLY | OPT_FOREGROUND | OPT_ALLOW_OTHER, "DIRECTORY",
      "show the volume under a directory; `fusermount3 -u DIRECTORY` ends it" },
    { "rm", command_rm, 1, 1, true, OPT_RECURSIVE, "PATH", "remove a file, or an empty directory" },
};

static void usage_of(const struct command *command, FILE *to)
{
    fprintf(to, "usage: tasuki-csv %s [OPTION ...] VOLUME%s%s\n  %s\n", command->name, command->arguments[0] ? " " : "",
            command->arguments, command->help);
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        if (!((command->options | OPT_ALWAYS) & option_table[i].option))
            continue;
        fputs("  ", to);
        if (option_table[i].names.letter)
            fprintf(to, "-%c, ", option_table[i].names.letter);
        fprintf(to, "--%s  %s\n", option_table[i].names.name, option_table[i].help);
    }
}

static void usage(FILE *to)
{
    fputs("usage: tasuki-csv COMMAND [OPTION ...] VOLUME [ARGUMENT ...]\n"
          "VOLUME: a file, a block device, or iscsi://[USER%SECRET@]HOST[:PORT]/TARGET/LUN\n", to);
    for (size_t i = 0; i < ARRAY_COUNT(command_table); i++)
        fprintf(to, "  %-6s %-13s %s\n", command_table[i].name, command_table[i].arguments, command_table[i].help);
    fputs("`tasuki-csv COMMAND --help` shows its options; `man tasuki-csv` says more.\n", to);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(command_table); i++)
        if (!strcmp(command_table[i].name, name))
            return &command_table[i];
    return NULL;
}

/* False: the value is wrong, and was said. */
static bool take_option(struct options *options, unsigned option, const char *value)
{
    options->force |= option == OPT_FORCE;
    options->recursive |= option == OPT_RECURSIVE;
    options->repair |= option == OPT_REPAIR;
    options->quiet |= option == OPT_QUIET;
    options->json |= option == OPT_JSON;
    options->read_only |= option == OPT_READ_ONLY;
    options->foreground |= option == OPT_FOREGROUND;
    options->allow_other |= option == OPT_ALLOW_OTHER;
    options->take_over |= option == OPT_TAKE_OVER;
    if (option == OPT_LABEL)
        options->label = value;
    if (option == OPT_FORMAT)
        options->format = value;
    if (option == OPT_INITIATOR)
        options->initiator = value;
    if (option == OPT_SIZE && (text_to_bytes(value, &options->size_bytes) || options->size_bytes < CSV_MIN_BYTES ||
                             options->size_bytes > CSV_MAX_BYTES)) {
        say_error("--size %s: not a size of a volume; 64M to 64T, with K, M, G or T for powers of 1024", value);
        return false;
    }
    return true;
}

/* Reads the options of a command: EXIT_DONE, or how to exit; *help if that was asked for. */
static int read_options(const struct command *command, int count, char **argument, struct options *options, bool *help)
{
    struct option long_options[ARRAY_COUNT(option_table) + 1];
    char letters[2 * ARRAY_COUNT(option_table) + 1];
    size_t letter_count = 0, known = 0;
    int found;
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        const struct option_name *names = &option_table[i].names;
        if (!((command->options | OPT_ALWAYS) & option_table[i].option))
            continue;
        long_options[known++] = (struct option){ names->name, names->value ? required_argument : no_argument, NULL,
                                                 (int)(256 + i) };
        if (names->letter)
            letters[letter_count++] = names->letter;
        if (names->letter && names->value)
            letters[letter_count++] = ':';
    }
    long_options[known] = (struct option){ 0 };
    letters[letter_count] = 0;
    while ((found = getopt_long(count, argument, letters, long_options, NULL)) != -1) {
        size_t index = (size_t)found - 256;
        if (found == '?')
            return EXIT_USAGE; /* getopt has said it */
        for (size_t i = 0; found < 256 && i < ARRAY_COUNT(option_table); i++)
            if (option_table[i].names.letter == found)
                index = i;
        *help |= option_table[index].option == OPT_HELP;
        if (!take_option(options, option_table[index].option, optarg))
            return EXIT_USAGE;
    }
    return EXIT_DONE;
}

static void blank(char *from, const char *to)
{
    memset(from, 'x', (size_t)(to - from));
}

/* The volume's name, with its secrets taken out of what other users see of this process. */
static const char *take_volume(char *argument)
{
    static const char target_secret[] = "target_password=";
    static char *copy; /* for as long as the program runs */
    char *host = strchr(argument, '@'), *secret = strchr(argument, '%');
    copy = strdup(argument);
    if (!copy || !str_starts_with(argument, "iscsi://"))
        return copy ? copy : argument;
    if (host && secret && secret < host)
        blank(secret + 1, host);
    secret = strstr(argument, target_secret);
    if (secret)
        blank(secret + sizeof(target_secret) - 1, secret + strlen(secret));
    return copy;
}

int main(int count, char **argument)
{
    static char program[] = "tasuki-csv";
    struct options options = { 0 };
    bool help = false;
    if (count < 2 || !strcmp(argument[1], "--help") || !strcmp(argument[1], "-h") || !strcmp(argument[1], "help")) {
        usage(count < 2 ? stderr : stdout);
        return count < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    const struct command *command = find_command(argument[1]);
    if (!command) {
        say_error("%s: no such command; `tasuki-csv --help` lists them", argument[1]);
        return EXIT_USAGE;
    }
    argument[1] = program; /* for getopt's messages */
    int status = read_options(command, count - 1, argument + 1, &options, &help);
    if (status)
        return status;
    if (help) {
        usage_of(command, stdout);
        return EXIT_DONE;
    }
    argument += 1 + optind;
    count -= 1 + optind;
    if (count < 1 + command->least || count > 1 + command->most) {
        usage_of(command, stderr);
        return EXIT_USAGE;
    }
    if (command->cleans_up)
        say_catch_interrupts();
    signal(SIGPIPE, SIG_IGN); /* the write says it */
    struct invocation call = { .options = &options, .volume = take_volume(argument[0]), .argument = argument + 1,
                               .count = count - 1 };
    status = command->run(&call);
    if (fflush(stdout) || ferror(stdout)) {
        say_error("standard output: cannot be written; is the disk full?");
        return EXIT_FAILED;
    }
    return status;
}
