/* SPDX-License-Identifier: MIT */
/* vm create, set, delete, disk: what VMs are, as cmd_vm.c is about what they do. */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/text.h"
#include "shell/cmd_vm.h"
#include "shell/tables.h"
#include "vm/vm_directory.h"
#include "volume/volume.h"

#define KEYS "memory|vcpus|kernel|initrd|cmdline|disk|cpu|tsc-frequency|network|start|owner|uuid"
#define MAX_SETTINGS (CONFIG_MAX_DISKS + CONFIG_MAX_CARDS + CONFIG_VM_KEYS)

static void volume_names(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    struct volume_info *info = kzalloc(sizeof *info);
    (void)shell;

    for (unsigned i = 0; info && volume_info_get(i, info); i++)
        offer(to, info->name);
    kfree(info, sizeof *info);
}

/* The texts of vm/ are "OBJECT: CAUSE; CURE" already. */
static enum status finish(struct shell *shell, enum status status, const char *name, const char *done, char *text)
{
    if (status != OK)
        return out_error_text(&shell->out, status, "vm", text);
    if (*text)
        out_message(&shell->out, "%s", text);
    else
        out_message(&shell->out, "vm %s: %s", name, done);
    return OK;
}

/* The reasons of config_vm_set() are "CAUSE: CURE"; a value that is quoted in the cause may have a colon too. */
static enum status fail_option(struct shell *shell, enum status status, const char *option, char *reason)
{
    char *cure = NULL;

    for (char *at = reason; (at = strstr(at, ": ")); at += 2)
        cure = at;
    if (cure) {
        *cure = '\0';
        cure += 2;
    }
    return out_error(&shell->out, status, option, cure, "%s", reason);
}

/* ---- create ---- */

static enum status vm_create_command(struct shell *shell, const struct command_call *call)
{
    static const char *const options[] = { "memory", "vcpus", "kernel", "initrd", "cmdline", "disk", "cpu",
                                           "tsc-frequency", "network", "start" };
    const char *name = call->argument[0], *volume = command_option(call, "--volume");
    struct vm_setting settings[MAX_SETTINGS];
    struct config_vm config;
    char text[VM_TEXT_BYTES] = "", option[24];
    unsigned count = 0;

    if (!config_name_ok(name))
        return out_error(&shell->out, ERR_INVALID, "vm",
                         "use up to 63 letters, digits, '.', '_' and '-', a letter or digit first",
                         "\"%s\" is not a name", name);
    config_vm_defaults(&config, name);
    for (unsigned i = 0; i < ARRAY_COUNT(options); i++) {
        const char *value;
        snprintf(option, sizeof option, "--%s", options[i]);
        for (unsigned n = 0; (value = command_option_at(call, option, n)); n++) {
            enum status status = config_vm_set(&config, options[i], value, text, sizeof text);
            if (status != OK)
                return fail_option(shell, status, option, text);
            if (count < MAX_SETTINGS)
                settings[count++] = (struct vm_setting){ options[i], value };
        }
    }
    if (volume) {
        enum status status = vm_directory_create(volume, name, settings, count, text, sizeof text);
        char done[CONFIG_MAX_NAME_BYTES * 2 + 64];
        snprintf(done, sizeof done, "created in " VOLUME_ROOT "%.63s/%.63s", volume, name);
        return finish(shell, status, name, done, text);
    }
    if (command_option(call, "--start"))
        return out_error(&shell->out, ERR_INVALID, "--start", "add --volume VOLUME",
                         "a VM that is on no volume is forgotten before it could start by itself");
    enum status status = vm_create(&config, text, sizeof text);
    return finish(shell, status, name, "created; it is forgotten when the node restarts, for it is on no volume", text);
}

/* ---- set ---- */

static enum status vm_set(struct shell *shell, const struct command_call *call)
{
    char text[VM_TEXT_BYTES] = "", done[64];
    bool none = command_option(call, "--default");
    struct config_change change = { .key = call->argument[1], .values = call->argument + 2, .count = call->count - 2 };

    if (none == (change.count > 0))
        return out_error(&shell->out, ERR_INVALID, change.key,
                         "write the value, or --default for what it is without the key",
                         none ? "there is a value beside --default" : "there is no value");
    snprintf(done, sizeof done, "%s is %s", change.key, none ? "what it is without the key" : "set");
    bool take_over = command_option(call, "--take-over");
    enum status status = vm_directory_set(call->argument[0], &change, take_over, text, sizeof text);
    return finish(shell, status, call->argument[0], done, text);
}

/* ---- delete ---- */

static enum status vm_delete_command(struct shell *shell, const struct command_call *call)
{
    char text[VM_TEXT_BYTES] = "";
    enum status status = vm_delete(call->argument[0], command_option(call, "--disks"), text, sizeof text);

    return finish(shell, status, call->argument[0], "deleted", text);
}

/* ---- disk ---- */

static enum status not_so(struct shell *shell, const char *what)
{
    return out_error(&shell->out, ERR_INVALID, what, "`help vm disk` shows how each is written",
                     "its arguments are others");
}

static enum status take_size(struct shell *shell, const char *option, const char *value, uint64_t *bytes)
{
    if (text_to_bytes(value, bytes) == OK && *bytes)
        return OK;
    return out_error(&shell->out, ERR_INVALID, option, "write a whole number and K, M, G or T, such as 10G",
                     "\"%s\" is not a size", value);
}

static enum status vm_disk(struct shell *shell, const struct command_call *call)
{
    static const char *const words[] = { [VM_DISK_ADD] = "add", [VM_DISK_GROW] = "grow", [VM_DISK_CLONE] = "clone",
                                         [VM_DISK_SNAPSHOT] = "snapshot", [VM_DISK_REVERT] = "revert" };
    static const char *const done[] = { [VM_DISK_ADD] = "has the disk", [VM_DISK_GROW] = "its disk is larger",
                                        [VM_DISK_CLONE] = "its disk is cloned",
                                        [VM_DISK_SNAPSHOT] = "its disk has a snapshot",
                                        [VM_DISK_REVERT] = "its disk is what the snapshot is" };
    const char *name = call->argument[1], *more = call->argument[3], *size = command_option(call, "--size");
    struct vm_disk_order order = { .work = VM_DISK_ADD, .disk = call->argument[2], .to = more };
    char text[VM_TEXT_BYTES] = "";
    enum status status = OK;

    while (strcmp(words[order.work], call->argument[0]))
        order.work++;
    order.preallocate = command_option(call, "--preallocate");
    order.keep = command_option(call, "--keep");
    order.discard = command_option(call, "--discard");
    bool adds = order.work == VM_DISK_ADD, reverts = order.work == VM_DISK_REVERT;
    if (adds == (more != NULL) || (!adds && (size || order.preallocate)) || (order.preallocate && !size) ||
        (!reverts && (order.keep || order.discard)) || (order.keep && order.discard))
        return not_so(shell, words[order.work]);
    if (size)
        status = take_size(shell, "--size", size, &order.bytes);
    else if (order.work == VM_DISK_GROW)
        status = take_size(shell, "SIZE", more, &order.bytes);
    if (status != OK)
        return status;
    status = vm_directory_disk(name, &order, text, sizeof text);
    return finish(shell, status, name, done[order.work], text);
}

/* ---- The tables ---- */

static const struct command_argument create_arguments[] = {
    { .name = "NAME", .help = "the VM" },
    { .name = NULL },
};

static const struct command_option create_options[] = {
    { .name = "--volume", .value = "VOLUME", .help = "where its directory is made", .names = volume_names },
    { .name = "--memory", .value = "SIZE", .help = "RAM, as in 256M" },
    { .name = "--vcpus", .value = "N", .help = "1 to 32" },
    { .name = "--kernel", .value = "PATH", .help = "a file on a volume, or one that was read at boot" },
    { .name = "--initrd", .value = "PATH", .help = "likewise" },
    { .name = "--cmdline", .value = "TEXT", .help = "the kernel's command line" },
    { .name = "--disk", .value = "PATH", .help = "likewise, for each disk; or storage:NAME", .repeated = true },
    { .name = "--cpu", .value = "MODEL", .help = "CPU model" },
    { .name = "--network", .value = "NETWORK", .help = "a card there; \"NETWORK MAC\" with that address",
      .repeated = true },
    { .name = "--tsc-frequency", .value = "HZ", .help = "of its TSC, as in 2400MHz" },
    { .name = "--start", .value = "WHEN", .help = "with its volume, or by `vm start`", .choices = "auto|manual" },
    { .name = NULL },
};

static const struct command_argument set_arguments[] = {
    { .name = "NAME", .help = "the VM, on a volume", .names = shell_vm_names },
    { .name = "KEY", .help = "of its vm.conf", .choices = KEYS },
    { .name = "VALUE", .help = "in quotes where it has blanks; disk and network take several", .optional = true,
      .repeated = true },
    { .name = NULL },
};

static const struct command_option set_options[] = {
    { .name = "--default", .help = "take the key away" },
    { .name = "--take-over", .help = "owner: also of a VM of another node, which is sure not to run it" },
    { .name = NULL },
};

static const struct command_argument delete_arguments[] = {
    { .name = "NAME", .help = "the VM", .names = shell_vm_names },
    { .name = NULL },
};

static const struct command_option delete_options[] = {
    { .name = "--disks", .help = "also the disks in its directory on a volume" },
    { .name = NULL },
};

static const struct command_argument disk_arguments[] = {
    { .name = "WHAT", .help = "what to do", .choices = "add|grow|clone|snapshot|revert" },
    { .name = "NAME", .help = "the VM, on a volume", .names = shell_vm_names },
    { .name = "DISK", .help = "the file, as in its vm.conf: from its directory on" },
    { .name = "MORE", .help = "grow: the new SIZE; clone: the copy's path; snapshot, revert: its name, behind the disk's",
      .optional = true },
    { .name = NULL },
};

static const struct command_option disk_options[] = {
    { .name = "--size", .value = "SIZE", .help = "add: make the file, of that size" },
    { .name = "--preallocate", .help = "add: give it all of its blocks now" },
    { .name = "--keep", .value = "LABEL", .help = "revert: what the disk is now stays as that snapshot" },
    { .name = "--discard", .help = "revert: what the disk is now is lost" },
    { .name = NULL },
};

const struct command vm_settings_commands[] = {
    { .noun = "vm", .verb = "create", .summary = "Make a VM", .arguments = create_arguments,
      .options = create_options, .run = vm_create_command,
      .help = "With --volume it is a directory there, with a vm.conf of these settings and a UUID of its own, and "
              "belongs to this node. Paths are then from its directory on." },
    { .noun = "vm", .verb = "delete", .summary = "Forget a stopped VM", .arguments = delete_arguments,
      .options = delete_options, .run = vm_delete_command,
      .help = "Of a VM on a volume the vm.conf and the saved state are removed, its disks only with --disks, its "
              "directory if nothing else is in it." },
    { .noun = "vm", .verb = "set", .summary = "Change the vm.conf of a VM on a volume", .arguments = set_arguments,
      .options = set_options, .run = vm_set,
      .help = "The file is replaced at once, durably, or not at all; a VM that runs has it from its next start on. "
              "`owner` is the node that may run it." },
    { .noun = "vm", .verb = "disk", .summary = "Add, enlarge, copy or revert disks of a VM",
      .arguments = disk_arguments, .options = disk_options, .run = vm_disk,
      .help = "Of a VM on a volume. add: one more, made by --size, else a file that is there. grow: larger, and the guest of "
              "a VM that runs is told. clone and snapshot: a copy that shares its blocks, of a VM that runs as its disk is "
              "at that moment. revert: of a stopped VM, back to a snapshot, at once or not at all; what the disk was is "
              "then the snapshot before-LABEL." },
    { .noun = NULL },
};
