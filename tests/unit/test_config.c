/* SPDX-License-Identifier: MIT */
/*
 * Guards the promises of hv/vm/config.h: the fixed format is read as documented, whatever is wrong costs its own line and
 * gets a diagnostic with its place, object, cause and cure, and no bytes make the parser leave its buffers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"

static struct config config;
static char *strings;

/* Parses from a buffer of the exact size that is gone afterwards, so that the sanitizers see what the parser may not do. */
static void parse_bytes(const char *text, size_t bytes)
{
    char *copy = malloc(bytes ? bytes : 1);

    free(strings);
    strings = malloc(bytes + 1);
    assert_non_null(copy);
    assert_non_null(strings);
    if (bytes)
        memcpy(copy, text, bytes);
    config_parse(&config, copy, bytes, strings);
    free(copy);
}

static void parse(const char *text)
{
    parse_bytes(text, strlen(text));
}

static void expect_diagnostic(unsigned index, enum config_severity severity, uint32_t line, uint32_t column,
                              const char *part)
{
    assert_true(index < config.diagnostic_count);
    if (!strstr(config.diagnostics[index].text, part))
        fail_msg("diagnostic \"%s\" does not say \"%s\"", config.diagnostics[index].text, part);
    assert_int_equal(config.diagnostics[index].severity, severity);
    assert_int_equal(config.diagnostics[index].line, line);
    assert_int_equal(config.diagnostics[index].column, column);
}

static void only_diagnostic(enum config_severity severity, uint32_t line, uint32_t column, const char *part)
{
    expect_diagnostic(0, severity, line, column, part);
    assert_int_equal(config.diagnostic_count, 1);
}

static void nothing_gives_the_defaults(void **state)
{
    (void)state;
    parse_bytes(NULL, 0);
    assert_string_equal(config.node.name, "node");
    assert_int_equal(config.node.panic, CONFIG_PANIC_RESET);
    assert_int_equal(config.node.log, CONFIG_LOG_INFO);
    assert_int_equal(config.node.serial, 1);
    assert_false(config.node.share_cores);
    assert_int_equal(config.node.exit_barrier, CONFIG_EXIT_BARRIER_AUTO);
    assert_int_equal(config.node.apic, CONFIG_APIC_AUTO);
    assert_int_equal(config.vm_count, 0);
    assert_int_equal(config.diagnostic_count, 0);
}

static void the_documented_example_is_read(void **state)
{
    const struct config_vm *vm;

    (void)state;
    parse("[node]\n"
          "name = alpha\n"
          "\n"
          "[vm demo]\n"
          "memory = 256M\n"
          "vcpus = 2\n"
          "kernel = \\tasuki\\images\\vmlinuz      # a Linux bzImage\n"
          "initrd = \\tasuki\\images\\initrd.img   # optional\n"
          "cmdline = console=ttyS0\n"
          "disk = \\tasuki\\images\\disk.raw       # optional, repeatable\n"
          "disk = /tasuki/images/second.raw\n"
          "start = auto                         # or manual\n"
          "cpu = portable\n"
          "tsc-frequency = 2.4 GHz\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_string_equal(config.node.name, "alpha");
    assert_int_equal(config.vm_count, 1);
    vm = config_find_vm(&config, "demo");
    assert_non_null(vm);
    assert_int_equal(vm->memory_bytes, 256 * MIB);
    assert_int_equal(vm->vcpus, 2);
    assert_string_equal(vm->kernel, "\\tasuki\\images\\vmlinuz");
    assert_string_equal(vm->initrd, "\\tasuki\\images\\initrd.img");
    assert_string_equal(vm->cmdline, "console=ttyS0");
    assert_int_equal(vm->disk_count, 2);
    assert_string_equal(vm->disks[0], "\\tasuki\\images\\disk.raw");
    assert_string_equal(vm->disks[1], "/tasuki/images/second.raw");
    assert_int_equal(vm->start, CONFIG_START_AUTO);
    assert_string_equal(vm->cpu, "portable");
    assert_int_equal(vm->tsc_khz, 2400000);
    assert_int_equal(vm->line, 4);
    assert_int_equal(vm->key_line[CONFIG_VM_KERNEL], 7);
    assert_int_equal(vm->disk_line[1], 11);
    assert_int_equal(vm->error_count, 0);
    assert_null(config_find_vm(&config, "dem"));
}

static void every_value_of_the_node_is_read(void **state)
{
    (void)state;
    parse("[node]\npanic=wait\nlog = debug\nserial\t=\tcom3\napic-virtualization = on");
    assert_int_equal(config.node.apic, CONFIG_APIC_ON);
    assert_int_equal(config.diagnostic_count, 0);
    assert_int_equal(config.node.panic, CONFIG_PANIC_WAIT);
    assert_int_equal(config.node.log, CONFIG_LOG_DEBUG);
    assert_int_equal(config.node.serial, 3);
    parse("[node]\nserial = none\nlog = warning\napic-virtualization = off\n[ node ]\npanic = reset\n");
    assert_int_equal(config.node.apic, CONFIG_APIC_OFF);
    assert_int_equal(config.diagnostic_count, 0);
    assert_int_equal(config.node.serial, 0);
    assert_int_equal(config.node.log, CONFIG_LOG_WARNING);
    parse("[node]\nshare-cores = yes\nexit-barrier = always\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_true(config.node.share_cores);
    assert_int_equal(config.node.exit_barrier, CONFIG_EXIT_BARRIER_ALWAYS);
    parse("[node]\nshare-cores = true\nexit-barrier = no\n"); /* what is not understood stays on the safe side */
    assert_int_equal(config.diagnostic_count, 1);
    assert_false(config.node.share_cores);
    assert_int_equal(config.node.exit_barrier, CONFIG_EXIT_BARRIER_NO);
}

static void a_comment_begins_only_after_a_blank(void **state)
{
    (void)state;
    parse("# first\n  # second\n[vm a] # third\nkernel = \\k#1#2 # fourth # fifth\ncmdline = a=#b\t# c\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_string_equal(config.vms[0].kernel, "\\k#1#2");
    assert_string_equal(config.vms[0].cmdline, "a=#b");
    parse("[vm a]\nkernel = \\k\ncmdline = # nothing\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_string_equal(config.vms[0].cmdline, "");
}

static void files_of_other_systems_are_read(void **state)
{
    (void)state;
    parse("\xef\xbb\xbf[vm a]\r\nkernel = \\\xc3\xa4\xe2\x82\xac\r\nmemory = 1G\r\n");
    assert_int_equal(config.diagnostic_count, 0);
    assert_string_equal(config.vms[0].kernel, "\\\xc3\xa4\xe2\x82\xac");
    assert_int_equal(config.vms[0].memory_bytes, GIB);
    parse_bytes("\xff\xfe[\0n\0", 6);
    only_diagnostic(CONFIG_ERROR, 0, 0, "UTF-16");
}

static void sizes_have_bounds_and_units(void **state)
{
    static const struct {
        const char *value;
        uint64_t bytes; /* 0: refused */
        const char *says;
    } cases[] = {
        { "1M", MIB, NULL },
        { "1024k", MIB, NULL },
        { "64G", 64 * GIB, NULL },
        { "65536G", CONFIG_MAX_MEMORY, NULL },
        { "65537G", 0, "out of range" },
        { "1023K", 0, "out of range" },
        { "0", 0, "out of range" },
        { "512", 0, "out of range" },
        { "1025K", 0, "multiple of 4K" },
        { "99999999999999999999999G", 0, "out of range" },
        { "18446744073709551615G", 0, "out of range" },
        { "1.5G", 0, "not a size" },
        { "-1M", 0, "not a size" },
        { "1MM", 0, "not a size" },
        { "M", 0, "not a size" },
        { "", 0, "not a size" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), "[vm a]\nkernel=\\k\nmemory = %s\n", cases[i].value);
        parse(text);
        assert_int_equal(config.vms[0].memory_bytes, cases[i].bytes ? cases[i].bytes : 256 * MIB);
        assert_int_equal(config.vms[0].error_count, cases[i].bytes ? 0 : 1);
        if (!cases[i].bytes)
            only_diagnostic(CONFIG_ERROR, 3, cases[i].value[0] ? 10 : 9, cases[i].says);
    }
}

static void wrong_values_keep_the_default_and_say_what_is_right(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        { "vcpus = 0", "1 to 32" },
        { "vcpus = 33", "1 to 32" },
        { "vcpus = two", "1 to 32" },
        { "start = now", "manual or auto" },
        { "cpu = a b", "host, portable or portable-1" },
        { "cpu = pentium", "\"pentium\" is not known here" },
        { "cpu =", "host, portable or portable-1" },
        { "initrd =", "path is empty" },
        { "disk =", "path is empty" },
        { "tsc-frequency = fast", "such as 2400 MHz" },
        { "tsc-frequency = 99999 kHz", "100 MHz to 10 GHz" },
        { "tsc-frequency = 10000001 kHz", "100 MHz to 10 GHz" },
        { "tsc-frequency = 5000 GHz", "100 MHz to 10 GHz" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), "[vm a]\nkernel=\\k\n%s\n[vm b]\nkernel = \\k\n", cases[i].line);
        parse(text);
        assert_int_equal(config.diagnostic_count, 1);
        assert_non_null(strstr(config.diagnostics[0].text, "vm a: "));
        assert_non_null(strstr(config.diagnostics[0].text, cases[i].says));
        assert_int_equal(config.vms[0].error_count, 1);
        assert_int_equal(config.vms[0].vcpus, 1);
        assert_int_equal(config.vms[0].tsc_khz, 0);
        assert_int_equal(config.vms[1].error_count, 0);
    }
    parse("[node]\nname = a b\npanic = no\n");
    expect_diagnostic(0, CONFIG_ERROR, 2, 8, "node: name: \"a b\"");
    expect_diagnostic(1, CONFIG_ERROR, 3, 9, "reset or wait");
    assert_string_equal(config.node.name, "node");
}

static void unknown_names_are_warnings_with_their_place(void **state)
{
    (void)state;
    parse("[node]\n  colour = red\n[cluster x]\nanything = 1\nat all\n[vm a]\nkernel = \\k\nmemroy = 1G\n");
    assert_int_equal(config.diagnostic_count, 3);
    expect_diagnostic(0, CONFIG_WARNING, 2, 3, "node: unknown key \"colour\"");
    expect_diagnostic(1, CONFIG_WARNING, 3, 2, "unknown section \"cluster x\"");
    expect_diagnostic(2, CONFIG_WARNING, 8, 1, "vm a: unknown key \"memroy\": known here are memory, vcpus");
    assert_int_equal(config.vms[0].error_count, 0);
}

static void columns_count_characters(void **state)
{
    (void)state;
    parse("[vm a]\nkernel=\\k\n\xc3\xa4\xc3\xb6 = 1\ndisk = \xe2\x82\xac\x01\n");
    expect_diagnostic(0, CONFIG_WARNING, 3, 1, "\xc3\xa4\xc3\xb6");
    expect_diagnostic(1, CONFIG_ERROR, 4, 9, "not text");
}

static void a_key_set_twice_counts_last_and_warns(void **state)
{
    (void)state;
    parse("[vm a]\nkernel = \\one\nkernel = \\two\n");
    only_diagnostic(CONFIG_WARNING, 3, 1, "kernel was set in line 2");
    assert_string_equal(config.vms[0].kernel, "\\two");
}

static void wrong_sections_are_skipped_whole(void **state)
{
    (void)state;
    parse("key = 1\n[vm a]\nkernel=\\k\n[vm a]\nvcpus = 4\n[vm b\nvcpus = 4\n[vm c] d\nvcpus = 4\n[vm e f]\nvcpus = 4\n[]\n[vm]\n");
    expect_diagnostic(0, CONFIG_ERROR, 1, 1, "outside of any section");
    expect_diagnostic(1, CONFIG_ERROR, 4, 5, "the first is in line 2");
    expect_diagnostic(2, CONFIG_ERROR, 6, 1, "without ']'");
    expect_diagnostic(3, CONFIG_ERROR, 8, 7, "after a section's ']'");
    expect_diagnostic(4, CONFIG_ERROR, 10, 5, "\"e f\"");
    expect_diagnostic(5, CONFIG_WARNING, 12, 2, "unknown section");
    expect_diagnostic(6, CONFIG_ERROR, 13, 4, "cannot be called \"\"");
    assert_int_equal(config.diagnostic_count, 7);
    assert_int_equal(config.vm_count, 1);
    assert_int_equal(config.vms[0].vcpus, 1);
}

static void a_vm_without_a_kernel_is_an_error_at_its_header(void **state)
{
    (void)state;
    parse("[vm a]\nmemory = 64M\n[vm b]\nkernel = \\k\nvcpus = x\n");
    assert_int_equal(config.diagnostic_count, 2);
    expect_diagnostic(0, CONFIG_ERROR, 1, 1, "vm a: there is no kernel");
    expect_diagnostic(1, CONFIG_ERROR, 5, 9, "vm b: vcpus");
    assert_int_equal(config.vms[0].error_count, 1);
}

static void lines_that_are_not_settings_are_named(void **state)
{
    (void)state;
    parse("[vm a]\nkernel = \\k\nfoo\n= 3\n");
    expect_diagnostic(0, CONFIG_ERROR, 3, 1, "\"foo\" is neither");
    expect_diagnostic(1, CONFIG_ERROR, 4, 1, "\"= 3\" is neither");
}

static void bytes_that_are_not_text_cost_their_line(void **state)
{
    static const char text[] = "[vm a]\nkernel = \\k\0k\nkernel = \\\xc0\xaf\nkernel = \\ok\ndisk = \\\xed\xa0\x80\ninitrd = \x7f";

    (void)state;
    parse_bytes(text, sizeof(text) - 1);
    assert_int_equal(config.diagnostic_count, 4);
    expect_diagnostic(0, CONFIG_ERROR, 2, 12, "not text");
    assert_string_equal(config.vms[0].kernel, "\\ok");
    assert_int_equal(config.vms[0].disk_count, 0);
}

static void too_much_of_anything_is_refused(void **state)
{
    char *text = malloc(2u << 20), *at = text;

    (void)state;
    assert_non_null(text);
    at += sprintf(at, "[vm a]\nkernel = \\k\n");
    for (int i = 0; i < CONFIG_MAX_DISKS + 1; i++)
        at += sprintf(at, "disk = \\%d\n", i);
    parse(text);
    assert_int_equal(config.vms[0].disk_count, CONFIG_MAX_DISKS);
    only_diagnostic(CONFIG_ERROR, 3 + CONFIG_MAX_DISKS, 8, "at most 16");

    at = text;
    for (int i = 0; i < CONFIG_MAX_VMS + 1; i++)
        at += sprintf(at, "[vm v%d]\nkernel = \\k\n", i);
    parse(text);
    assert_int_equal(config.vm_count, CONFIG_MAX_VMS);
    only_diagnostic(CONFIG_ERROR, 1 + 2 * CONFIG_MAX_VMS, 5, "vm v64 is skipped");

    at = text;
    for (int i = 0; i < CONFIG_MAX_DIAGNOSTICS + 5; i++)
        at += sprintf(at, "nonsense\n");
    parse(text);
    assert_int_equal(config.diagnostic_count, CONFIG_MAX_DIAGNOSTICS);
    assert_int_equal(config.diagnostics_dropped, 5);

    at = text + sprintf(text, "[vm a]\nkernel=\\k\ncmdline = ");
    memset(at, 'x', CONFIG_MAX_LINE_BYTES);
    strcpy(at + CONFIG_MAX_CMDLINE_BYTES, "\n");
    parse(text);
    assert_int_equal(config.diagnostic_count, 0);
    memset(at, 'x', CONFIG_MAX_LINE_BYTES);
    strcpy(at + CONFIG_MAX_CMDLINE_BYTES + 1, "\n");
    parse(text);
    only_diagnostic(CONFIG_ERROR, 3, 11, "too long");
    memset(at, 'x', CONFIG_MAX_LINE_BYTES);
    at[CONFIG_MAX_LINE_BYTES] = 0;
    parse(text);
    only_diagnostic(CONFIG_ERROR, 3, 1, "longer than 4096");

    memset(text, '\n', 2u << 20);
    parse_bytes(text, 2u << 20);
    only_diagnostic(CONFIG_ERROR, 0, 0, "larger than 1 MiB");
    free(text);
}

static void long_names_are_cut_between_characters(void **state)
{
    char text[512] = "[vm a]\nkernel = \\k\n";

    (void)state;
    for (int i = 0; i < 100; i++)
        strcat(text, "\xe2\x82\xac");
    strcat(text, " = 1\n");
    parse(text);
    assert_int_equal(config.diagnostic_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "\xe2\x82\xac...\""));
}

static void one_key_at_a_time_for_the_shell(void **state)
{
    struct config_vm vm;
    char reason[CONFIG_DIAGNOSTIC_BYTES];

    (void)state;
    config_vm_defaults(&vm, "x");
    assert_int_equal(config_vm_set(&vm, "memory", "1G", reason, sizeof(reason)), OK);
    assert_int_equal(vm.memory_bytes, GIB);
    assert_int_equal(config_vm_set(&vm, "memory", "1X", reason, sizeof(reason)), ERR_INVALID);
    assert_non_null(strstr(reason, "not a size"));
    assert_int_equal(vm.memory_bytes, GIB);
    assert_int_equal(config_vm_set(&vm, "memo", "1G", reason, sizeof(reason)), ERR_NOT_FOUND);
    for (int i = 0; i < CONFIG_MAX_DISKS; i++)
        assert_int_equal(config_vm_set(&vm, "disk", "\\d", reason, sizeof(reason)), OK);
    assert_int_equal(config_vm_set(&vm, "disk", "\\d", reason, 8), ERR_NO_MEMORY);
    assert_string_equal(reason, "one dis");
    assert_int_equal(config_vm_set(&vm, "vcpus", "0", NULL, 0), ERR_INVALID);
    assert_string_equal(config_vm_key_name(CONFIG_VM_CPU), "cpu");
    assert_true(config_name_ok("a.b_c-1"));
    assert_false(config_name_ok("-a"));
    assert_false(config_name_ok(""));
}

static void every_prefix_of_a_file_is_safe(void **state)
{
    static const char text[] = "\xef\xbb\xbf[node]\nname = a # c\n[vm x]\r\nkernel = \\\xe2\x82\xac\ndisk=\\d\n[vm y]\ncpu = z\n#";

    (void)state;
    for (size_t bytes = 0; bytes < sizeof(text); bytes++)
        parse_bytes(text, bytes);
}

static int free_strings(void **state)
{
    (void)state;
    free(strings);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_gives_the_defaults),
        cmocka_unit_test(the_documented_example_is_read),
        cmocka_unit_test(every_value_of_the_node_is_read),
        cmocka_unit_test(a_comment_begins_only_after_a_blank),
        cmocka_unit_test(files_of_other_systems_are_read),
        cmocka_unit_test(sizes_have_bounds_and_units),
        cmocka_unit_test(wrong_values_keep_the_default_and_say_what_is_right),
        cmocka_unit_test(unknown_names_are_warnings_with_their_place),
        cmocka_unit_test(columns_count_characters),
        cmocka_unit_test(a_key_set_twice_counts_last_and_warns),
        cmocka_unit_test(wrong_sections_are_skipped_whole),
        cmocka_unit_test(a_vm_without_a_kernel_is_an_error_at_its_header),
        cmocka_unit_test(lines_that_are_not_settings_are_named),
        cmocka_unit_test(bytes_that_are_not_text_cost_their_line),
        cmocka_unit_test(too_much_of_anything_is_refused),
        cmocka_unit_test(long_names_are_cut_between_characters),
        cmocka_unit_test(one_key_at_a_time_for_the_shell),
        cmocka_unit_test(every_prefix_of_a_file_is_safe),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, free_strings);
}
