/* SPDX-License-Identifier: MIT */
/* vm: the virtual machines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "net/ethernet.h"
#include "shell/cmd_vm.h"
#include "shell/service.h"
#include "shell/tables.h"
#include "vm/vm.h"
#include "volume/volume.h"

#define ESCAPE_KEY 0x1d /* Ctrl-] */
#define DEADLINE_MAX_MS (UINT64_C(366) * 24 * 3600 * 1000)
#define CONSOLE_KEYS 32 /* between two looks at the output */
#define CONSOLE_POLL_NS (5 * NS_PER_MS)
#define CONSOLE_PIECE_BYTES 256
#define CONSOLE_MARKER_BYTES 96

void shell_vm_names(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    struct vm_info info;
    (void)shell;

    for (unsigned i = 0; vm_info_get(i, &info); i++)
        offer(to, info.name);
}

static const struct command_argument name_argument[] = {
    { .name = "NAME", .help = "the VM", .names = shell_vm_names },
    { .name = NULL },
};

/* The texts of vm/ are "OBJECT: CAUSE; CURE" already. */
static enum status fail(struct shell *shell, enum status status, char *text)
{
    return out_error_text(&shell->out, status, "vm", text);
}

static enum status no_vm(struct shell *shell, const char *name)
{
    char text[VM_TEXT_BYTES];

    snprintf(text, sizeof text, "vm %s: there is no such VM; `vm list` shows those that there are", name);
    return fail(shell, ERR_NOT_FOUND, text);
}

static enum status order(struct shell *shell, const char *name, enum vm_order what, const char *done)
{
    char text[VM_TEXT_BYTES] = "";
    enum status status = vm_order(name, what, text, sizeof text);

    if (status != OK)
        return fail(shell, status, text);
    if (*text)
        out_message(&shell->out, "%s", text);
    else
        out_message(&shell->out, "vm %s: %s", name, done);
    return OK;
}

static enum status vm_list(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct vm_info info;
    (void)call;

    out_array_begin(out, "vms");
    for (unsigned i = 0; vm_info_get(i, &info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "name", info.name);
        out_string(out, "state", vm_state_name(info.state));
        out_uint(out, "vcpus", info.vcpu_count);
        out_bytes(out, "memory", info.memory_bytes);
        out_duration(out, "since", time_now_ns() - info.since_ns);
        out_uint(out, "resets", info.reset_count);
        out_string(out, "volume", info.volume[0] ? info.volume : NULL);
        out_string(out, "reason", info.reason[0] ? info.reason : info.problem);
        out_object_end(out);
    }
    out_array_end(out);
    return OK;
}

static void show_directory(struct out *out, const struct vm_info *info)
{
    if (!info->volume[0])
        return;
    out_stringf(out, "directory", VOLUME_ROOT "%s/%s", info->volume, info->name);
    out_string(out, "uuid", info->uuid[0] ? info->uuid : NULL);
    out_string(out, "owner", info->owner[0] ? info->owner : NULL);
    if (info->problem[0])
        out_string(out, "problem", info->problem);
    out_bool(out, "changed", info->changed);
}

static void show_cards(struct out *out, const struct vm_info *info)
{
    uint8_t mac[6];
    char text[18];

    if (!info->card_count && !out->json)
        return;
    out_array_begin(out, "networks");
    for (unsigned i = 0; i < info->card_count; i++) {
        eth_address_put(mac, info->card[i].mac);
        mac_to_text(mac, text);
        out_object_begin(out, NULL);
        out_uint(out, "card", i);
        out_string(out, "network", info->card[i].network);
        out_string(out, "mac", text);
        out_object_end(out);
    }
    out_array_end(out);
}

static void show_disks(struct out *out, const char *name)
{
    char path[VM_DISK_BYTES];

    out_array_begin(out, "disk_paths");
    for (unsigned i = 0; vm_disk_get(name, i, path); i++)
        out_string(out, NULL, path);
    out_array_end(out);
}

static enum status vm_show(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct vm_info info;

    if (!vm_info_find(call->argument[0], &info))
        return no_vm(shell, call->argument[0]);
    out_string(out, "name", info.name);
    out_string(out, "state", vm_state_name(info.state));
    if (info.reason[0])
        out_string(out, "reason", info.reason);
    out_duration(out, "since", time_now_ns() - info.since_ns);
    show_directory(out, &info);
    out_uint(out, "vcpus", info.vcpu_count);
    out_string(out, "cpu_model", info.cpu_model);
    if (info.tsc_khz)
        out_uint(out, "tsc_khz", info.tsc_khz);
    out_bytes(out, "memory", info.memory_bytes);
    out_bytes(out, "held", info.held_bytes);
    if (info.saved_bytes)
        out_bytes(out, "saved", info.saved_bytes);
    out_uint(out, "disks", info.disk_count);
    out_uint(out, "cards", info.card_count);
    out_bool(out, "apic_virtualization", info.apic_virtualization);
    out_uint(out, "exits", info.exits);
    out_duration(out, "guest_time", info.guest_ns);
    out_uint(out, "resets", info.reset_count);
    show_disks(out, info.name);
    show_cards(out, &info);
    return OK;
}

static enum status vm_start(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_START, "started");
}

static enum status vm_stop(struct shell *shell, const struct command_call *call)
{
    if (command_option(call, "--hard"))
        return order(shell, call->argument[0], VM_ORDER_STOP, "stopped");
    return order(shell, call->argument[0], VM_ORDER_SHUTDOWN, "asked to shut down");
}

static enum status vm_reset(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_RESET, "reset");
}

static enum status vm_pause(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_PAUSE, "paused");
}

static enum status vm_resume(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_RESUME, "resumed");
}

static enum status vm_inspect(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_INSPECT, "its registers are in the log");
}

static enum status vm_save(struct shell *shell, const struct command_call *call)
{
    struct vm_info info;
    bool on_volume = vm_info_find(call->argument[0], &info) && info.volume[0];

    return order(shell, call->argument[0], VM_ORDER_SAVE, on_volume ? "saved on its volume" : "saved in the node's memory");
}

static enum status vm_restore(struct shell *shell, const struct command_call *call)
{
    return order(shell, call->argument[0], VM_ORDER_RESTORE, "restored; it runs on");
}

static void show_saved(struct out *out, const struct vm_saved *saved)
{
    out_bytes(out, "size", saved->bytes);
    out_uint(out, "count", saved->section_count);
    out_bool(out, "good", !saved->error[0]);
    if (saved->error[0])
        out_string(out, "reason", saved->error);
    out_array_begin(out, "sections");
    for (unsigned i = 0; i < saved->row_count; i++) {
        const struct save_row *row = &saved->row[i];
        out_object_begin(out, NULL);
        out_string(out, "tag", row->tag);
        out_uint(out, "first", row->first);
        out_uint(out, "last", row->last);
        out_uint(out, "count", row->count);
        out_uint(out, "version", row->version);
        out_bool(out, "mandatory", row->mandatory);
        out_bytes(out, "size", row->bytes);
        out_object_end(out);
    }
    out_array_end(out);
}

static enum status vm_state(struct shell *shell, const struct command_call *call)
{
    struct vm_saved *saved = kzalloc(sizeof *saved);
    char text[VM_TEXT_BYTES] = "";

    if (!saved)
        return ERR_NO_MEMORY;
    enum status status = vm_saved_describe(call->argument[0], saved, text, sizeof text);
    if (status == OK)
        show_saved(&shell->out, saved);
    else
        (void)fail(shell, status, text);
    kfree(saved, sizeof *saved);
    return status;
}

static void show_ranges(struct out *out, const struct vm_dirty *dirty)
{
    out_uint(out, "range_count", dirty->range_count);
    out_array_begin(out, "ranges");
    for (uint64_t i = 0; i < MIN(dirty->range_count, (uint64_t)VM_DIRTY_RANGES); i++) {
        out_object_begin(out, NULL);
        out_hex(out, "address", dirty->range[i].gfn * PAGE_BYTES);
        out_uint(out, "pages", dirty->range[i].count);
        out_object_end(out);
    }
    out_array_end(out);
}

static enum status dirty_order(struct shell *shell, const struct command_call *call, struct vm_dirty *dirty)
{
    const char *what = call->argument[1], *engine = command_option(call, "--engine");
    enum vm_order given = VM_ORDER_DIRTY_COLLECT;
    char text[VM_TEXT_BYTES] = "";

    if (!strcmp(what, "start")) {
        given = VM_ORDER_DIRTY_START;
        for (enum dirty_engine e = DIRTY_WRITE_PROTECT; engine && e <= DIRTY_PML; e++)
            if (!strcmp(engine, vm_dirty_engine_name(e)))
                dirty->engine = e;
    } else if (!strcmp(what, "stop")) {
        given = VM_ORDER_DIRTY_STOP;
    }
    enum status status = vm_dirty(call->argument[0], given, dirty, text, sizeof text);
    if (status != OK)
        return fail(shell, status, text);
    out_string(&shell->out, "engine", vm_dirty_engine_name(dirty->engine));
    if (given != VM_ORDER_DIRTY_COLLECT) {
        out_message(&shell->out, "vm %s: dirty log %s", call->argument[0],
                    given == VM_ORDER_DIRTY_START ? "started" : "stopped");
        return OK;
    }
    out_uint(&shell->out, "pages", dirty->page_count);
    out_uint(&shell->out, "ticks", dirty->ticks);
    if (command_option(call, "--pages"))
        show_ranges(&shell->out, dirty);
    return OK;
}

static enum status vm_dirty_command(struct shell *shell, const struct command_call *call)
{
    struct vm_dirty *dirty = kzalloc(sizeof *dirty);

    if (!dirty)
        return ERR_NO_MEMORY;
    enum status status = dirty_order(shell, call, dirty);
    kfree(dirty, sizeof *dirty);
    return status;
}

static enum status vm_deadline(struct shell *shell, const struct command_call *call)
{
    char text[VM_TEXT_BYTES] = "", *end;
    uint64_t deadline = TIME_NEVER;

    if (strcmp(call->argument[1], "none")) {
        unsigned long ms = strtoul(call->argument[1], &end, 10);
        if (*end || !*call->argument[1] || ms > DEADLINE_MAX_MS)
            return out_error(&shell->out, ERR_INVALID, "MS", "give milliseconds from now, up to a year, or none",
                             "\"%s\" is no such number", call->argument[1]);
        deadline = time_now_ns() + ms * NS_PER_MS;
    }
    enum status status = vm_set_deadline(call->argument[0], deadline, text, sizeof text);
    if (status != OK)
        return fail(shell, status, text);
    out_message(&shell->out, "vm %s: %s", call->argument[0],
                deadline == TIME_NEVER ? "runs without a deadline" : "deadline set");
    struct vm_info info;
    /* In the guest's own clock, for whoever asks it. */
    if (deadline != TIME_NEVER && vm_info_find(call->argument[0], &info) && info.guest_zero_ns)
        out_duration(&shell->out, "guest_time", deadline - info.guest_zero_ns);
    return OK;
}

/* What is on its way to the terminal: output of the guest, before it a word about what is lost. */
struct console_piece {
    char text[CONSOLE_MARKER_BYTES + CONSOLE_PIECE_BYTES];
    size_t first, end;
};

static void console_fetch(struct console_piece *piece, const char *name, uint64_t *position)
{
    char marker[CONSOLE_MARKER_BYTES];
    uint64_t lost;

    piece->first = CONSOLE_MARKER_BYTES;
    piece->end = piece->first + vm_console_read(name, position, piece->text + piece->first, CONSOLE_PIECE_BYTES, &lost);
    if (!lost)
        return;
    int count = snprintf(marker, sizeof marker,
                         "\r\n[console: %lu bytes lost: this line is slower than the guest]\r\n", lost);
    piece->first -= (size_t)count;
    memcpy(piece->text + piece->first, marker, (size_t)count);
}

static enum status vm_console(struct shell *shell, const struct command_call *call)
{
    static const char hello[] = "[console: Ctrl-] leaves]\r\n";
    const char *name = call->argument[0];
    struct console_piece piece = { .first = 0 };
    struct vm_info info;
    uint64_t position;
    char key;

    if (!vm_console_open(name, &position))
        return no_vm(shell, name);
    (void)shell_terminal_write(hello, sizeof hello - 1);
    for (;;) {
        /* One piece of output, then the keys: a guest that never stops printing must not shut the admin out. */
        if (piece.first == piece.end)
            console_fetch(&piece, name, &position);
        size_t taken = shell_terminal_write(piece.text + piece.first, piece.end - piece.first);
        piece.first += taken;
        /* A key at a time: what follows Ctrl-] is for the shell. */
        uint64_t until = taken ? 0 : time_now_ns() + CONSOLE_POLL_NS;
        for (unsigned keys = 0; keys < CONSOLE_KEYS && shell_terminal_read(&key, 1, until); keys++, until = 0) {
            if (key == ESCAPE_KEY) {
                vm_console_close(name);
                (void)shell_terminal_write("\r\n", 2);
                return OK;
            }
            (void)vm_console_write(name, &key, 1);
        }
        if (!vm_info_find(name, &info))
            return no_vm(shell, name);
    }
}

static const struct command_option stop_options[] = {
    { .name = "--hard", .help = "pull the plug instead of asking the guest" },
    { .name = NULL },
};

static const struct command_argument dirty_arguments[] = {
    { .name = "NAME", .help = "the VM", .names = shell_vm_names },
    { .name = "WHAT", .help = "start it, collect what was written since, stop it", .choices = "start|collect|stop" },
    { .name = NULL },
};

static const struct command_option dirty_options[] = {
    { .name = "--engine", .value = "ENGINE", .help = "write protection, accessed/dirty bits, page-modification logging",
      .choices = "wp|ad|pml" },
    { .name = "--pages", .help = "collect: show which pages, as ranges (the first 512)" },
    { .name = NULL },
};

static const struct command_argument deadline_arguments[] = {
    { .name = "NAME", .help = "the VM", .names = shell_vm_names },
    { .name = "MS", .help = "milliseconds from now, or none" },
    { .name = NULL },
};

const struct command vm_commands[] = {
    { .noun = "vm", .verb = "list", .summary = "List the VMs", .run = vm_list },
    { .noun = "vm", .verb = "show", .summary = "Show one VM", .arguments = name_argument, .run = vm_show },
    { .noun = "vm", .verb = "start", .summary = "Start a VM", .arguments = name_argument, .run = vm_start },
    { .noun = "vm", .verb = "stop", .summary = "Ask a guest to shut down, or pull its plug", .arguments = name_argument,
      .options = stop_options, .run = vm_stop },
    { .noun = "vm", .verb = "reset", .summary = "Reset a VM", .arguments = name_argument, .run = vm_reset },
    { .noun = "vm", .verb = "pause", .summary = "Stop a VM's CPUs and clocks", .arguments = name_argument,
      .run = vm_pause },
    { .noun = "vm", .verb = "resume", .summary = "Let a paused VM go on", .arguments = name_argument,
      .run = vm_resume },
    { .noun = "vm", .verb = "save", .summary = "Save a VM's state; it is then stopped",
      .arguments = name_argument, .run = vm_save,
      .help = "The guest's clocks stand until it is restored; its real-time clock does not. The state of a VM on a "
              "volume is written there and outlives the node; that of another is in memory, takes up to as much again "
              "as the VM has, and is lost when the node restarts." },
    { .noun = "vm", .verb = "restore", .summary = "Let a saved VM go on where it was", .arguments = name_argument,
      .run = vm_restore },
    { .noun = "vm", .verb = "state", .summary = "Show what the state of a saved VM holds, and check it",
      .arguments = name_argument, .run = vm_state },
    { .noun = "vm", .verb = "dirty", .summary = "Find out which pages a VM writes", .arguments = dirty_arguments,
      .options = dirty_options, .run = vm_dirty_command,
      .help = "Without --engine the best one that the CPU has is taken. Beside what was written, the guest's own page "
              "tables are reported when a CPU walks them." },
    { .noun = "vm", .verb = "console", .summary = "Use a VM's consoles, serial and virtio; Ctrl-] leaves",
      .arguments = name_argument, .run = vm_console,
      .help = "First shows the last 64 KiB of output. Keys go to the console that showed something last, until Ctrl-]. "
              "The guest never waits for the terminal: of what it prints faster than that, 1 MiB is kept, and what is "
              "lost is said." },
    { .noun = "vm", .verb = "inspect", .summary = "Write the registers of a VM's CPUs to the log",
      .arguments = name_argument, .run = vm_inspect },
    { .noun = "vm", .verb = "deadline", .summary = "Set the time after which a VM must not run",
      .arguments = deadline_arguments, .run = vm_deadline,
      .help = "Past its run deadline no instruction of the VM runs, until the deadline is moved or taken away." },
    { .noun = NULL },
};
