/* SPDX-License-Identifier: MIT */
/*
 * [storage NAME] in tasuki.conf, and disks of VMs that name one. Guarded: what is documented is read; a wrong value says
 * what is right and counts against its section alone; what only the whole can tell is told at the header; and a secret is
 * in no message, whatever is wrong with its line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"

#define WHOLE "portal = 10.0.0.5\ntarget = iqn.2026-11.example:lun\ninitiator = iqn.2026-11.example:alpha\n"
#define SECRET "a-secret-of-ours"

static struct config config;
static char *strings;

static void parse(const char *text)
{
    free(strings);
    strings = malloc(strlen(text) + 1);
    config_parse(&config, text, strlen(text), strings);
    for (uint32_t i = 0; i < config.diagnostic_count; i++)
        assert_null(strstr(config.diagnostics[i].text, SECRET));
}

/* One storage of these lines, and one diagnostic with this text, or none. */
static const struct config_storage *parse_one(const char *lines, const char *diagnostic)
{
    char text[1024];

    snprintf(text, sizeof text, "[storage san]\n%s\n", lines);
    parse(text);
    assert_int_equal(config.storage_count, 1);
    if (diagnostic && !strstr(config.diagnostics[0].text, diagnostic))
        fail_msg("%s: \"%s\" does not say \"%s\"", lines, config.diagnostics[0].text, diagnostic);
    if (config.diagnostic_count != (diagnostic != NULL))
        fail_msg("%s: %u diagnostics, the first \"%s\"", lines, config.diagnostic_count, config.diagnostics[0].text);
    assert_int_equal(config.storages[0].error_count, diagnostic != NULL);
    return &config.storages[0];
}

static void the_least(void **state)
{
    const struct config_storage *s = parse_one(WHOLE, NULL);
    (void)state;

    assert_string_equal(s->name, "san");
    assert_int_equal(s->line, 1);
    assert_int_equal(s->portal_count, 1);
    assert_int_equal(s->portals[0].port, 3260);
    assert_int_equal(s->portals[0].address.bytes[3], 5);
    assert_string_equal(s->target, "iqn.2026-11.example:lun");
    assert_string_equal(s->initiator, "iqn.2026-11.example:alpha");
    assert_int_equal(s->lun, 0);
    assert_int_equal(s->timeout_s, 60);
    assert_null(s->chap);
    assert_null(s->chap_mutual);
    assert_null(s->volume);
}

static void everything(void **state)
{
    const struct config_storage *s = parse_one(WHOLE "portal = 10.0.0.6:3261\nportal = fd00::5\nportal = [fd00::6]:9\n"
                                               "lun = 16383\nchap = user  " SECRET "\nchap-mutual = disk another-secret\n"
                                               "timeout = 5\nvolume = Volume1\n", NULL);
    (void)state;

    assert_int_equal(s->portal_count, 4);
    assert_int_equal(s->portals[1].port, 3261);
    assert_int_equal(s->portals[2].address.family, NET_IPV6);
    assert_int_equal(s->portals[2].port, 3260);
    assert_int_equal(s->portals[3].address.bytes[15], 6);
    assert_int_equal(s->portals[3].port, 9);
    assert_int_equal(s->lun, 16383);
    assert_string_equal(config_chap_secret(s->chap), SECRET);
    assert_string_equal(config_chap_secret(s->chap_mutual), "another-secret");
    assert_int_equal(s->timeout_s, 5);
    assert_string_equal(s->volume, "Volume1");
}

static void wrong_values(void **state)
{
    static const char *const cases[][2] = {
        { WHOLE "portal = target.example", "is not a portal" },
        { WHOLE "portal = 10.0.0.5:0", "is not a portal" },
        { WHOLE "portal = 10.0.0.5:65536", "is not a portal" },
        { WHOLE "portal = 10.0.0.5/24", "is not a portal" },
        { WHOLE "portal = [fd00::5", "is not a portal" },
        { WHOLE "portal = [fd00::5]x", "is not a portal" },
        { WHOLE "portal = 10.0.0.1\nportal = 10.0.0.2\nportal = 10.0.0.3\nportal = 10.0.0.4", "at most 4" },
        { WHOLE "lun = 16384", "is not the number of a logical unit" },
        { WHOLE "lun = one", "is not the number of a logical unit" },
        { WHOLE "timeout = 4", "is not a number of seconds" },
        { WHOLE "timeout = 86401", "is not a number of seconds" },
        { WHOLE "volume = a/b", "cannot be a volume's name" },
        { WHOLE "chap = " SECRET, "a name and a secret" },
        { WHOLE "chap = user short", "12 to 255" },
        { WHOLE "chap = user " SECRET "\nchap-mutual = disk short", "12 to 255" },
        { WHOLE "chap = user " SECRET "\nchap-mutual = disk " SECRET, "the same secret" },
        { WHOLE "chap-mutual = disk " SECRET, "no chap beside" },
        { WHOLE "chap user " SECRET, "neither a section nor a setting" },
        { "target = iqn.2026-11.example:lun\ninitiator = iqn.2026-11.example:a", "no portal" },
        { "portal = 10.0.0.5\ninitiator = iqn.2026-11.example:a", "no target" },
        { "portal = 10.0.0.5\ntarget = iqn.2026-11.example:lun", "no initiator" },
        { "portal = 10.0.0.5\ntarget = lun\ninitiator = iqn.2026-11.example:a", "is not the name of a target" },
        { "portal = 10.0.0.5\ntarget = iqn.2026-11.example:lun\ninitiator = iqn.a b", "is not the name of an initiator" },
    };
    (void)state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        parse_one(cases[i][0], cases[i][1]);
}

static void one_unit_has_one_section(void **state)
{
    (void)state;

    parse("[storage a]\n" WHOLE "lun = 1\n[storage b]\n" WHOLE "lun = 2\n");
    assert_int_equal(config.diagnostic_count, 0);
    parse("[storage a]\n" WHOLE "lun = 1\n[storage b]\n" WHOLE "lun = 1\n");
    assert_int_equal(config.diagnostic_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "the same target and lun as storage a"));
    assert_int_equal(config.storages[0].error_count, 0);
    assert_int_equal(config.storages[1].error_count, 1);
    parse("[storage a]\n" WHOLE "[storage a]\n" WHOLE);
    assert_int_equal(config.storage_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "a second section of that name"));
}

static void disks_of_vms(void **state)
{
    (void)state;

    parse("[vm demo]\nkernel = k\ndisk = a.img\ndisk = storage:san\n[storage san]\n" WHOLE);
    assert_int_equal(config.diagnostic_count, 0);
    assert_null(config_disk_storage(config.vms[0].disks[0]));
    assert_string_equal(config_disk_storage(config.vms[0].disks[1]), "san");
    parse("[vm demo]\nkernel = k\ndisk = storage:sun\n[storage san]\n" WHOLE);
    assert_int_equal(config.diagnostic_count, 1);
    assert_int_equal(config.vms[0].error_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "there is no [storage sun]"));
    parse("[vm demo]\nkernel = k\ndisk = storage:san\n[storage san]\n" WHOLE "volume = Volume1\n");
    assert_int_equal(config.vms[0].error_count, 1);
    assert_non_null(strstr(config.diagnostics[0].text, "Volume1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least),
        cmocka_unit_test(everything),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(one_unit_has_one_section),
        cmocka_unit_test(disks_of_vms),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);

    free(strings);
    return failures;
}
