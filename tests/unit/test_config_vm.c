/* SPDX-License-Identifier: MIT */
/*
 * vm.conf: a VM's own file on a volume. Guarded: it is read as its section in tasuki.conf would be, with UUID and owner, and
 * has nothing else; what is wrong is told with line and column; a change to its text changes what it is asked to and nothing
 * beside it, whatever the text is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"
#include "vm/config_edit.h"

#define UUID "5f0c2f6e-3d0a-4b53-9f6b-0c1d2e3f4a5b"

static struct config node, config, other;
static char strings[4096], other_strings[4096], node_strings[4096];

static const struct config_vm *parse(const char *text)
{
    static const char conf[] = "[network lan]\naddress = dhcp\n[storage san]\nportal = 10.0.0.5\ntarget = iqn.2026-11.example:lun\n"
                               "initiator = iqn.2026-11.example:alpha\n";

    config_parse(&node, conf, strlen(conf), node_strings);
    assert_int_equal(node.diagnostic_count, 0);
    config_parse_vm(&config, &node, "demo", text, strlen(text), strings);
    return config.vm_count ? &config.vms[0] : NULL;
}

static void a_whole_one(void **state)
{
    const struct config_vm *vm = parse("# mine\n[vm demo]\nmemory = 64M\nuuid = " UUID "\nowner = alpha\nkernel = vmlinuz\n"
                                       "disk = disk0.img\ndisk = storage:san\nnetwork = lan\nstart = auto\n");
    (void)state;

    assert_int_equal(config.diagnostic_count, 0);
    assert_non_null(vm);
    assert_string_equal(vm->uuid, UUID);
    assert_string_equal(vm->owner, "alpha");
    assert_string_equal(vm->kernel, "vmlinuz");
    assert_int_equal(vm->disk_count, 2);
    assert_int_equal(vm->card_count, 1);
    assert_int_equal(vm->start, CONFIG_START_AUTO);
}

static void without_identity(void **state)
{
    const struct config_vm *vm = parse("[vm demo]\nkernel = k\n");
    (void)state;

    assert_non_null(vm);
    assert_null(vm->uuid);
    assert_null(vm->owner);
    assert_int_equal(vm->error_count, 0);
}

static void what_is_wrong(void **state)
{
    static const struct { const char *text, *says; unsigned line, column; bool vm; } cases[] = {
        { "", "there is no section [vm demo]", 0, 0, false },
        { "memory = 64M\n", "outside of any section", 1, 1, false },
        { "[vm other]\nkernel = k\n", "\"other\" is not the name of its directory", 1, 5, false },
        { "[vm demo]\nkernel = k\n[vm other]\nkernel = k\n", "\"other\" is not the name", 3, 5, true },
        { "[vm demo]\nkernel = k\n[vm demo]\nkernel = k\n", "a second section", 3, 5, true },
        { "[vm demo]\nkernel = k\n[node]\nname = me\n", "belongs into tasuki.conf", 3, 2, true },
        { "[vm demo]\nkernel = k\n[network lan]\n", "belongs into tasuki.conf", 3, 2, true },
        { "[vm demo]\nkernel = k\n[storage lan]\n", "belongs into tasuki.conf", 3, 2, true },
        { "[vm demo]\nkernel = k\n  memory = 12X\n", "\"12X\" is not a size", 3, 12, true },
        { "[vm demo]\nkernel = k\nuuid = 5F0c2f6e-3d0a-4b53-9f6b-0c1d2e3f4a5b\n", "not a UUID", 3, 8, true },
        { "[vm demo]\nkernel = k\nuuid = " UUID "0\n", "not a UUID", 3, 8, true },
        { "[vm demo]\nkernel = k\nuuid = 5f0c2f6e\n", "not a UUID", 3, 8, true },
        { "[vm demo]\nkernel = k\nowner = a b\n", "cannot be a node", 3, 9, true },
        { "[vm demo]\nkernel = k\nnetwork = wan\n", "there is no network wan", 3, 1, true },
        { "[vm demo]\nkernel = k\ndisk = storage:nas\n", "there is no [storage nas]", 1, 1, true },
        { "[vm demo]\n", "there is no kernel", 1, 1, true },
    };
    (void)state;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct config_vm *vm = parse(cases[i].text);
        assert_true(config.diagnostic_count >= 1);
        const struct config_diagnostic *d = &config.diagnostics[0];
        if (!strstr(d->text, cases[i].says) || d->line != cases[i].line || d->column != cases[i].column)
            fail_msg("%s: line %u, column %u: %s", cases[i].text, d->line, d->column, d->text);
        assert_int_equal(d->severity, CONFIG_ERROR);
        assert_int_equal(vm != NULL, cases[i].vm);
    }
}

static void identity_is_not_for_tasuki_conf(void **state)
{
    static const char text[] = "[vm demo]\nkernel = k\nuuid = " UUID "\nowner = alpha\n";
    (void)state;

    config_parse(&config, text, strlen(text), strings);
    assert_int_equal(config.diagnostic_count, 2);
    assert_non_null(strstr(config.diagnostics[0].text, "uuid belongs to VMs on a volume"));
    assert_null(config.vms[0].uuid);
    assert_null(config.vms[0].owner);
}

/* ---- Changes ---- */

static enum status edit(const char *text, const struct config_change *change, char *out, size_t room)
{
    size_t bytes = 0;
    char *copy = malloc(strlen(text) + 1); /* of the exact size: a byte too far is seen */

    memcpy(copy, text, strlen(text));
    enum status status = config_edit(copy, strlen(text), change, out, room - 1, &bytes);
    free(copy);
    out[status == OK ? bytes : 0] = 0;
    return status;
}

static void changes_leave_the_rest(void **state)
{
    static const char *const one[] = { "1G" }, *const two[] = { "a.img", "b.img" };
    static const struct { const char *text, *key; const char *const *values; unsigned count; bool add; const char *result; } cases[] = {
        { "[vm d]\nmemory = 64M\n", "memory", one, 1, false, "[vm d]\nmemory = 1G\n" },
        { "# x\n[vm d]\n\tmemory=64M # big\nvcpus = 2\n", "memory", one, 1, false, "# x\n[vm d]\nmemory = 1G # big\nvcpus = 2\n" },
        { "[vm d]\nmemory = 1M\nvcpus = 2\nmemory = 2M\n", "memory", one, 1, false, "[vm d]\nmemory = 1G\nvcpus = 2\n" },
        { "[vm d]\nvcpus = 2\n\n# end\n", "memory", one, 1, false, "[vm d]\nvcpus = 2\nmemory = 1G\n\n# end\n" },
        { "[vm d]\r\nvcpus = 2\r\n", "memory", one, 1, false, "[vm d]\r\nvcpus = 2\r\nmemory = 1G\r\n" },
        { "[vm d]", "memory", one, 1, false, "[vm d]\nmemory = 1G\n" },
        { "[vm d]\nmemory = 2M", "memory", one, 1, false, "[vm d]\nmemory = 1G\n" },
        { "[vm d]\nvcpus = 2", "memory", one, 1, false, "[vm d]\nvcpus = 2\nmemory = 1G\n" },
        { "[vm d]\nmemory = 1M\nvcpus = 2\n", "memory", NULL, 0, false, "[vm d]\nvcpus = 2\n" },
        { "[vm d]\nvcpus = 2\n", "memory", NULL, 0, false, "[vm d]\nvcpus = 2\n" },
        { "[vm d]\ndisk = x\nvcpus = 2\ndisk = y\n", "disk", two, 2, false, "[vm d]\ndisk = a.img\ndisk = b.img\nvcpus = 2\n" },
        { "[vm d]\ndisk = x\nvcpus = 2\ndisk = y\nstart = auto\n", "disk", two, 1, true,
          "[vm d]\ndisk = x\nvcpus = 2\ndisk = y\ndisk = a.img\nstart = auto\n" },
        { "\xef\xbb\xbf[vm d]\nmemory = 1M\n", "memory", one, 1, false, "\xef\xbb\xbf[vm d]\nmemory = 1G\n" },
        { "[vm d]\n#memory = 1M\n", "memory", one, 1, false, "[vm d]\nmemory = 1G\n#memory = 1M\n" },
        { "[vm d]\nmemory-x = 1M\n", "memory", one, 1, false, "[vm d]\nmemory-x = 1M\nmemory = 1G\n" },
        { "[node]\nmemory = 1\n[vm d]\nvcpus = 1\n[net]\nmemory = 3\n", "memory", one, 1, false,
          "[node]\nmemory = 1\n[vm d]\nvcpus = 1\nmemory = 1G\n[net]\nmemory = 3\n" },
    };
    char out[512];
    (void)state;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config_change change = { cases[i].key, cases[i].values, cases[i].count, cases[i].add };
        assert_int_equal(edit(cases[i].text, &change, out, sizeof out), OK);
        assert_string_equal(out, cases[i].result);
    }
}

static void what_cannot_be_changed(void **state)
{
    static const char *const bad[] = { "a #b", "#a", "a\nb", "a\x7f" };
    const char *fine = "a=#b";
    char out[64];
    (void)state;

    struct config_change change = { "cmdline", &fine, 1, false };
    assert_int_equal(edit("[vm d]\n", &change, out, sizeof out), OK);
    assert_string_equal(out, "[vm d]\ncmdline = a=#b\n");
    for (size_t room = 1; room < 23; room++)
        assert_int_equal(edit("[vm d]\n", &change, out, room), ERR_RANGE);
    assert_int_equal(edit("", &change, out, sizeof out), ERR_NOT_FOUND);
    assert_int_equal(edit("[node]\n[vmx]\n", &change, out, sizeof out), ERR_NOT_FOUND);
    for (unsigned i = 0; i < 4; i++) {
        change.values = &bad[i];
        assert_int_equal(edit("[vm d]\n", &change, out, sizeof out), ERR_INVALID);
    }
}

/* Whatever the text: what is read of the changed one is what was read before, but for the key. */
static void changes_of_any_text(void **state)
{
    static const char *const pieces[] = { "[vm demo]\n", "[vm demo]\r\n", "memory = 64M\n", " memory=1M # x\n", "vcpus = 3\r\n", "#memory = 2M\n",
                                          "\n", "disk = a\n", "disk = b #c\n", "cmdline = a#b\n", "kernel = k\n", "start = auto",
                                          "owner = alpha\n", "[node]\n", "[vm other]\n", "memory\n", "\t[ vm demo ]\n" };
    static const char *const values[] = { "128M" };
    struct config_change change = { "memory", values, 1, false };
    char text[512], out[1024], message[] = "the same but for its memory";
    unsigned seed = 7, changed = 0;
    (void)state;

    for (unsigned turn = 0; turn < 20000; turn++) {
        text[0] = 0;
        for (unsigned n = 1 + (seed = seed * 1103515245 + 12345) / 65536 % 8; n--;)
            strcat(text, pieces[(seed = seed * 1103515245 + 12345) / 65536 % (sizeof pieces / sizeof pieces[0])]);
        enum status status = edit(text, &change, out, sizeof out);
        const struct config_vm *before = parse(text);
        if (!before)
            continue;
        assert_int_equal(status, OK);
        config_parse_vm(&other, &node, "demo", out, strlen(out), other_strings);
        assert_int_equal(other.vm_count, 1);
        const struct config_vm *after = &other.vms[0];
        if (text == strstr(text, "[vm other]")) /* the first section of the text is the one that is changed */
            continue;
        changed++;
        if (after->memory_bytes != 128ull << 20 && !strstr(text, "[vm other]"))
            fail_msg("not changed: %s\n->\n%s", text, out);
        if (after->vcpus != before->vcpus || after->disk_count != before->disk_count || after->start != before->start ||
            (before->kernel == NULL) != (after->kernel == NULL) || strcmp(after->cmdline, before->cmdline) ||
            (before->owner == NULL) != (after->owner == NULL))
            fail_msg("not %s: %s\n->\n%s", message, text, out);
        for (unsigned i = 0; i < before->disk_count; i++)
            assert_string_equal(before->disks[i], after->disks[i]);
    }
    assert_true(changed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_one),
        cmocka_unit_test(without_identity),
        cmocka_unit_test(what_is_wrong),
        cmocka_unit_test(identity_is_not_for_tasuki_conf),
        cmocka_unit_test(changes_leave_the_rest),
        cmocka_unit_test(what_cannot_be_changed),
        cmocka_unit_test(changes_of_any_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
