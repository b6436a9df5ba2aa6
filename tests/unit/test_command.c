/* SPDX-License-Identifier: MIT */
/*
 * The command registry, with a few commands of a made-up shell: what is understood, what is refused and how, help,
 * completion, and one implementation giving both forms of output. The last test types into the line editor and lets
 * the shell complete and run, as a node does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "json_check.h"
#include "kernel/text.h"
#include "shell/command.h"
#include "shell/line.h"
#include "shell/suggest.h"

static char text[65536];
static size_t text_used;
static char value[256];
static struct shell shell;
static char called[1024]; /* what the last command was called with */

static void keep(void *context, const char *bytes, size_t count)
{
    (void)context;
    assert_true(text_used + count < sizeof(text));
    memcpy(text + text_used, bytes, count);
    text_used += count;
    text[text_used] = 0;
}

static const struct sink sink = { .write = keep };

/* ---- A small set of commands ---- */

static void vm_names(struct shell *s, void (*offer)(void *to, const char *name), void *to)
{
    assert_ptr_equal(s, &shell);
    offer(to, "web1");
    offer(to, "web2");
    offer(to, "my vm");
}

static enum status run_record(struct shell *s, const struct command_call *call)
{
    const char *to = call->command->options ? command_option(call, "--to") : NULL;

    (void)s;
    called[0] = 0;
    for (unsigned i = 0; i < call->count; i++) {
        strcat(called, call->argument[i]);
        strcat(called, "|");
    }
    if (to)
        snprintf(called + strlen(called), 64, "to=%s", to);
    if (command_option(call, "--force"))
        strcat(called, "force");
    for (unsigned n = 0; command_option_at(call, "--disk", n); n++)
        snprintf(called + strlen(called), 64, "%u=%s;", n, command_option_at(call, "--disk", n));
    assert_null(call->argument[call->count]);
    return OK;
}

static enum status run_list(struct shell *s, const struct command_call *call)
{
    (void)call;
    out_array_begin(&s->out, "vms");
    out_object_begin(&s->out, NULL);
    out_string(&s->out, "name", "my vm");
    out_bytes(&s->out, "memory", 256 * MIB);
    out_object_end(&s->out);
    out_array_end(&s->out);
    return OK;
}

static enum status run_stop(struct shell *s, const struct command_call *call)
{
    char object[64];

    if (str_equal(call->argument[0], "odd"))
        return ERR_TIMEOUT;
    snprintf(object, sizeof(object), "vm %s", call->argument[0]);
    return out_error(&s->out, ERR_NOT_FOUND, object, "\"vm list\" shows those that there are", "no VM of that name");
}

static const struct command_argument name_argument[] = {
    { .name = "NAME", .help = "the VM", .names = vm_names },
    { 0 },
};
static const struct command_argument dirty_arguments[] = {
    { .name = "NAME", .help = "the VM", .names = vm_names },
    { .name = "ACTION", .help = "what to do", .choices = "start|collect|stop" },
    { 0 },
};
static const struct command_argument create_arguments[] = {
    { .name = "NAME", .help = "the VM" },
    { .name = "KEY=VALUE", .help = "a setting", .repeated = true },
    { 0 },
};
static const struct command_option move_options[] = {
    { .name = "--to", .value = "NODE", .help = "where to", .names = vm_names },
    { .name = "--mode", .value = "MODE", .help = "how", .choices = "live|quick" },
    { .name = "--force", .help = "even so" },
    { 0 },
};
static const struct command_option create_options[] = {
    { .name = "--disk", .value = "PATH", .help = "a disk", .repeated = true },
    { .name = "--to", .value = "NODE", .help = "where" },
    { 0 },
};
static const struct command vm_commands[] = {
    { .noun = "vm", .verb = "list", .summary = "list the VMs", .run = run_list },
    { .noun = "vm", .verb = "stop", .summary = "stop a VM", .arguments = name_argument, .run = run_stop },
    { .noun = "vm", .verb = "dirty", .summary = "log its writes", .arguments = dirty_arguments, .run = run_record },
    { .noun = "vm", .verb = "create", .summary = "make a VM", .arguments = create_arguments, .options = create_options,
      .run = run_record },
    { .noun = "vm", .verb = "move", .summary = "move a VM", .help = "Moves it while it runs.",
      .arguments = name_argument, .options = move_options, .run = run_record },
    { 0 },
};
static const struct command node_commands[] = {
    { .noun = "node", .verb = "show", .summary = "show the node", .run = run_record },
    { 0 },
};
static const struct command empty_commands[] = { { 0 } };
static const struct command *const tables[] = { help_commands, empty_commands, vm_commands, node_commands, NULL };

static enum shell_exit run(const char *line)
{
    enum shell_exit status;

    text_used = 0;
    text[0] = 0;
    called[0] = 0;
    status = shell_run(&shell, line);
    assert_int_equal(shell.last, status);
    return status;
}

static int set_up(void **state)
{
    (void)state;
    shell_init(&shell, &sink, tables, NULL, NULL);
    return 0;
}

static void refuses(const char *line, const char *message)
{
    assert_int_equal(run(line), SHELL_NOT_UNDERSTOOD);
    assert_string_equal(text, message);
    assert_string_equal(called, "");
}

/* ---- Tests ---- */

static void the_prompt_names_the_node(void **state)
{
    char prompt[LINE_PROMPT_BYTES];

    (void)state;
    shell_prompt(&shell, prompt, sizeof(prompt));
    assert_string_equal(prompt, "tasuki:node> ");
    shell.node_name = "alpha";
    shell_prompt(&shell, prompt, sizeof(prompt));
    assert_string_equal(prompt, "tasuki:alpha> ");
}

static void all_commands_are_walked(void **state)
{
    const struct command *command = NULL;
    unsigned count = 0;

    (void)state;
    while ((command = shell_next(&shell, command)))
        count++;
    assert_int_equal(count, 7);
    assert_ptr_equal(shell_find(&shell, "node", "show"), &node_commands[0]);
    assert_ptr_equal(shell_find(&shell, "help", NULL), &help_commands[0]);
    assert_null(shell_find(&shell, "vm", NULL));
}

static void one_command_gives_text_and_json(void **state)
{
    (void)state;
    assert_int_equal(run("vm list"), SHELL_OK);
    assert_string_equal(text, "NAME    MEMORY\nmy vm  256 MiB\n");
    assert_int_equal(run("vm list --json"), SHELL_OK);
    assert_string_equal(text, "{\"vms\": [{\"name\": \"my vm\", \"memory_bytes\": 268435456}]}\n");
    assert_int_equal(run("node show --json"), SHELL_OK);
    assert_string_equal(text, "{}\n");
    assert_int_equal(run("  "), SHELL_OK);
    assert_string_equal(text, "");
}

static void arguments_and_options_are_sorted(void **state)
{
    (void)state;
    assert_int_equal(run("vm move web1 --to beta"), SHELL_OK);
    assert_string_equal(called, "web1|to=beta");
    assert_int_equal(run("vm move --to=\"my node\" --force 'my vm'"), SHELL_OK);
    assert_string_equal(called, "my vm|to=my nodeforce");
    assert_int_equal(run("vm move --force -- --to"), SHELL_OK);
    assert_string_equal(called, "--to|force");
    assert_int_equal(run("vm move \"--to\""), SHELL_OK);
    assert_string_equal(called, "--to|");
    assert_int_equal(run("vm move a --to '--force'"), SHELL_OK);
    assert_string_equal(called, "a|to=--force");
    assert_int_equal(run("vm move a --to=--force"), SHELL_OK);
    assert_string_equal(called, "a|to=--force");
    assert_int_equal(run("vm create web1 memory=1G kernel=\\tasuki\\vmlinuz"), SHELL_OK);
    assert_string_equal(called, "web1|memory=1G|kernel=\\tasuki\\vmlinuz|");
    assert_int_equal(run("vm dirty web1 collect"), SHELL_OK);
    assert_string_equal(called, "web1|collect|");
    assert_int_equal(run("vm create --disk a web1 --disk=b --to x memory=1G --disk 'c d'"), SHELL_OK);
    assert_string_equal(called, "web1|memory=1G|to=x0=a;1=b;2=c d;");
}

/* As many values as a line has words. */
static void repeated_options_fill_the_line(void **state)
{
    char line[1024] = "vm create a b";

    (void)state;
    for (unsigned i = 0; i < ARGS_MAX_COUNT - 4; i++)
        strcat(line, " --disk=x");
    assert_int_equal(run(line), SHELL_OK);
    assert_true(strlen(called) > 4 && !strncmp(called, "a|b|0=x;", 8));
    assert_non_null(strstr(called, ";59=x;"));
    assert_null(strstr(called, "60="));
    strcat(line, " --disk=x");
    assert_int_equal(run(line), SHELL_NOT_UNDERSTOOD);
}

static void what_makes_no_sense_is_refused_with_the_cure(void **state)
{
    (void)state;
    refuses("vn list", "error: vn: no such command; did you mean \"vm\"?; \"help\" lists the commands\n");
    refuses("list vm", "error: list: no such command; did you mean \"vm list\"?; \"help\" lists the commands\n");
    refuses("xyzzy", "error: xyzzy: no such command; \"help\" lists the commands\n");
    refuses("vm", "error: vm: what to do with it is missing; say one of: list, stop, dirty, create, move\n");
    refuses("vm lsit", "error: vm lsit: no such command; did you mean \"vm list\"?; say one of: list, stop, dirty, "
                       "create, move\n");
    refuses("vm stop", "error: NAME: this argument is missing; usage: vm stop NAME\n");
    refuses("vm stop a b", "error: b: one argument too many; usage: vm stop NAME\n");
    refuses("vm create a", "error: KEY=VALUE: this argument is missing; usage: vm create NAME KEY=VALUE... "
                         "[--disk PATH]... [--to NODE]\n");
    refuses("vm create a b --to c --to d", "error: --to: given twice; usage: vm create NAME KEY=VALUE... [--disk PATH]... "
                                           "[--to NODE]\n");
    refuses("vm create a b --disk c --disk", "error: --disk: its value PATH is missing; usage: vm create NAME "
                                             "KEY=VALUE... [--disk PATH]... [--to NODE]\n");
    refuses("vm dirty a go", "error: ACTION: \"go\" is none of start|collect|stop; usage: vm dirty NAME "
                             "start|collect|stop\n");
    refuses("node show --jsno", "error: --jsno: no such option here; did you mean \"--json\"?; usage: node show\n");
    refuses("vm move a --to", "error: --to: its value NODE is missing; usage: vm move NAME [--to NODE] "
                              "[--mode live|quick] [--force]\n");
    refuses("vm move a --to --force", "error: --to: its value NODE is missing; usage: vm move NAME [--to NODE] "
                                      "[--mode live|quick] [--force]\n");
    refuses("vm move a --to --help --force", "error: --to: its value NODE is missing; usage: vm move NAME [--to NODE] "
                                             "[--mode live|quick] [--force]\n");
    refuses("vm move a --mode=slow", "error: --mode: \"slow\" is none of live|quick; usage: vm move NAME [--to NODE] "
                                     "[--mode live|quick] [--force]\n");
    refuses("vm move a --force --force", "error: --force: given twice; usage: vm move NAME [--to NODE] "
                                         "[--mode live|quick] [--force]\n");
    refuses("vm stop \"web", "error: column 9: a \" is not closed; correct the line and enter it again\n");
}

static void failures_have_an_exit_status_and_a_json_form(void **state)
{
    (void)state;
    assert_int_equal(run("vm stop web9"), SHELL_FAILED);
    assert_string_equal(text, "error: vm web9: no VM of that name; \"vm list\" shows those that there are\n");
    assert_int_equal(run("vm stop web9 --json"), SHELL_FAILED);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "error.object", value), "\"vm web9\"");
    assert_string_equal(json_at(text, "error.status", value), "\"not found\"");
    assert_int_equal(run("vm stop odd"), SHELL_FAILED);
    assert_string_equal(text, "error: vm stop: timed out; \"log show\" may say more\n");
    assert_int_equal(run("vm lsit --json"), SHELL_NOT_UNDERSTOOD);
    assert_true(json_valid(text));
    assert_int_equal(run("--json vm stop \"x"), SHELL_NOT_UNDERSTOOD);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "error.object", value), "\"column 16\"");
}

static void help_lists_and_explains(void **state)
{
    (void)state;
    assert_int_equal(run("help"), SHELL_OK);
    assert_non_null(strstr(text, "\nvm move    move a VM\n"));
    assert_non_null(strstr(text, "\nhelp       list the commands"));
    assert_int_equal(run("help vm"), SHELL_OK);
    assert_non_null(strstr(text, "vm stop"));
    assert_null(strstr(text, "node show"));
    assert_int_equal(run("help vm move"), SHELL_OK);
    assert_string_equal(text, "usage    vm move NAME [--to NODE] [--mode live|quick] [--force]\n"
                              "summary  move a VM\n"
                              "help     Moves it while it runs.\n"
                              "\n"
                              "arguments:\n"
                              "  ARGUMENT  MEANING\n"
                              "  NAME      the VM\n"
                              "\n"
                              "options:\n"
                              "  OPTION             MEANING\n"
                              "  --to NODE          where to\n"
                              "  --mode live|quick  how\n"
                              "  --force            even so\n"
                              "  --json             print one JSON object instead of text\n"
                              "  --help             explain this command and do nothing\n");
    {
        char explained[4096];

        strcpy(explained, text);
        assert_int_equal(run("vm move --help"), SHELL_OK);
        assert_string_equal(text, explained);
        assert_string_equal(called, "");
    }
    assert_int_equal(run("help vm move --json"), SHELL_OK);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "options.0.option", value), "\"--to NODE\"");
    assert_int_equal(run("help --json"), SHELL_OK);
    assert_true(json_valid(text));
    assert_string_equal(json_at(text, "commands.1.command", value), "\"vm list\"");
    assert_int_equal(run("help help"), SHELL_OK);
    assert_int_equal(run("help vm fly"), SHELL_FAILED);
    assert_string_equal(text, "error: fly: no such command of vm; \"help\" lists the commands\n");
}

/* Expects the offers for the text, with the cursor at its end, separated by '|', and the word's start. */
static void offers_are(const char *line, size_t start, const char *expected)
{
    static struct offers offers;
    char got[1024] = "";
    const char *at = offers.text;

    offers_clear(&offers);
    assert_int_equal(shell_complete(&shell, line, strlen(line), &offers), start);
    for (unsigned i = 0; i < offers.count; i++, at += strlen(at) + 1) {
        if (i)
            strcat(got, "|");
        strcat(got, at);
    }
    assert_string_equal(got, expected);
}

static void completion_knows_nouns_verbs_options_and_names(void **state)
{
    (void)state;
    offers_are("", 0, "help|node|vm");
    offers_are("v", 0, "vm");
    offers_are("vm ", 3, "create|dirty|list|move|stop");
    offers_are("vm m", 3, "move");
    offers_are("vm stop ", 8, "\"my vm\"|web1|web2");
    offers_are("vm stop we", 8, "web1|web2");
    offers_are("vm stop \"my", 8, "\"my vm\"");
    offers_are("vm stop web1 ", 13, "--help|--json");
    offers_are("vm dirty web1 ", 14, "collect|start|stop");
    offers_are("vm dirty web1 st", 14, "start|stop");
    offers_are("vm move web1 --", 13, "--force|--help|--json|--mode|--to");
    offers_are("vm move --force --t", 16, "--to");
    offers_are("vm create a --to x --disk b --", 28, "--disk|--help|--json");
    offers_are("vm move --force --", 16, "--help|--json|--mode|--to");
    offers_are("vm move --to ", 13, "\"my vm\"|web1|web2");
    offers_are("vm move --to=w", 8, "--to=web1|--to=web2");
    offers_are("vm move --to=\"my", 8, "--to=\"my vm\"");
    offers_are("vm move --mode=", 8, "--mode=live|--mode=quick");
    offers_are("vm move --to x w", 15, "web1|web2");
    offers_are("vm move -- --", 11, "");
    offers_are("help ", 5, "help|node|vm");
    offers_are("help vm s", 8, "stop");
    offers_are("xyzzy a", 6, "");
    offers_are("vm \x01", 4, "");
}

static void distances_count_letters(void **state)
{
    (void)state;
    assert_int_equal(suggest_distance("", ""), 0);
    assert_int_equal(suggest_distance("abc", "abc"), 0);
    assert_int_equal(suggest_distance("abc", ""), 3);
    assert_int_equal(suggest_distance("kitten", "sitting"), 3);
    assert_int_equal(suggest_distance("lsit", "list"), 1);
    assert_int_equal(suggest_distance("start", "strat"), 1);
    assert_int_equal(suggest_distance("ca", "abc"), 3);
    assert_int_equal(suggest_distance("0123456789012345678901234567890123456789012345678", "x"), 49);
}

static void an_admin_types_completes_and_runs(void **state)
{
    static struct line line;
    const char *typed = "vm mo\tweb\t\t2 --f\t\r";
    char prompt[LINE_PROMPT_BYTES];
    enum line_result result = LINE_MORE;

    (void)state;
    shell_prompt(&shell, prompt, sizeof(prompt));
    text_used = 0;
    line_init(&line, &sink, 80, shell_complete, &shell);
    line_start(&line, prompt);
    for (; *typed; typed++)
        result = line_feed(&line, (uint8_t)*typed);
    assert_int_equal(result, LINE_DONE);
    assert_string_equal(line.text, "vm move web2 --force ");
    assert_int_equal(run(line.text), SHELL_OK);
    assert_string_equal(called, "web2|force");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_prompt_names_the_node, set_up),
        cmocka_unit_test_setup(all_commands_are_walked, set_up),
        cmocka_unit_test_setup(one_command_gives_text_and_json, set_up),
        cmocka_unit_test_setup(arguments_and_options_are_sorted, set_up),
        cmocka_unit_test_setup(repeated_options_fill_the_line, set_up),
        cmocka_unit_test_setup(what_makes_no_sense_is_refused_with_the_cure, set_up),
        cmocka_unit_test_setup(failures_have_an_exit_status_and_a_json_form, set_up),
        cmocka_unit_test_setup(help_lists_and_explains, set_up),
        cmocka_unit_test_setup(completion_knows_nouns_verbs_options_and_names, set_up),
        cmocka_unit_test_setup(distances_count_letters, set_up),
        cmocka_unit_test_setup(an_admin_types_completes_and_runs, set_up),
    };

    return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
