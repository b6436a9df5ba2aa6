/* SPDX-License-Identifier: MIT */
/* iscsi and disk: the storages of the configuration, their sessions and their disks; and what targets there are. */
#include <stdio.h>
#include <string.h>

#include "kernel/heap.h"
#include "kernel/time.h"
#include "net/discover.h"
#include "net/scsi/scsi_data.h"
#include "net/storage.h"
#include "shell/tables.h"

#define TEXT_BYTES 480

static const char *digests(const struct storage_info *info)
{
    return info->header_digest ? info->data_digest ? "header, data" : "header" : info->data_digest ? "data" : "none";
}

/* Each portal of storages that have several; in either list the same. */
static void show_paths(struct out *out, struct storage_info *info)
{
    out_array_begin(out, "paths");
    for (unsigned i = 0; storage_info_get(i, info); i++)
        for (unsigned k = 0; info->portal_count > 1 && k < info->portal_count && info->path[k].state; k++) {
            const struct storage_path_info *path = &info->path[k];
            out_object_begin(out, NULL);
            out_string(out, "storage", info->name);
            out_string(out, "portal", path->portal);
            out_string(out, "state", path->state);
            if (path->known_group)
                out_uint(out, "group", path->group);
            else
                out_null(out, "group");
            if (path->since_ns)
                out_duration(out, "up", time_now_ns() - path->since_ns);
            else
                out_null(out, out->json ? "up_ns" : "up");
            out_uint(out, "logins", path->logins);
            out_object_end(out);
        }
    out_array_end(out);
}

static void show_problems(struct out *out, struct storage_info *info)
{
    out_array_begin(out, "problems");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        for (unsigned k = 0; k <= info->portal_count; k++) { /* its own, then those of its paths */
            const char *problem = k ? info->path[k - 1].problem : info->problem;
            if (!problem[0])
                continue;
            out_object_begin(out, NULL);
            out_string(out, "storage", info->name);
            out_string(out, "problem", problem);
            out_object_end(out);
        }
    }
    out_array_end(out);
}

static enum status iscsi_list(struct shell *shell, const struct command_call *call)
{
    static const char *const chaps[] = { "none", "one way", "both ways" };
    struct out *out = &shell->out;
    struct storage_info *info = kzalloc(sizeof *info);
    (void)call;

    if (!info)
        return ERR_NO_MEMORY;
    out_array_begin(out, "sessions");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "storage", info->name);
        out_string(out, "state", info->state);
        out_string(out, "portal", info->portal[0] ? info->portal : NULL);
        out_string(out, "chap", chaps[info->chap]);
        out_string(out, "digests", digests(info));
        if (info->since_ns)
            out_duration(out, "up", time_now_ns() - info->since_ns);
        else
            out_null(out, out->json ? "up_ns" : "up");
        out_uint(out, "logins", info->logins);
        out_uint(out, "retried", info->retried);
        out_object_end(out);
    }
    out_array_end(out);
    show_paths(out, info);
    out_array_begin(out, "targets");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "storage", info->name);
        out_string(out, "target", info->target);
        out_uint(out, "lun", info->lun);
        out_uint(out, "portals", info->portal_count);
        out_bytes(out, "received", info->received_bytes);
        out_bytes(out, "sent", info->sent_bytes);
        out_object_end(out);
    }
    out_array_end(out);
    show_problems(out, info);
    kfree(info, sizeof *info);
    return OK;
}

static void out_reservation(struct out *out, const struct storage_info *info)
{
    const struct scsi_holding *h = &info->disk.holding;
    bool all = h->type == SCSI_PR_WRITE_EXCLUSIVE_ALL || h->type == SCSI_PR_EXCLUSIVE_ACCESS_ALL;

    if (!h->known)
        out_null(out, "reservation");
    else if (!h->held)
        out_string(out, "reservation", "none");
    else if (info->reserved && (all || h->key == info->key))
        out_string(out, "reservation", "ours");
    else if (all)
        out_stringf(out, "reservation", "reserved by all who are registered, %s", scsi_pr_type_name(h->type));
    else
        out_stringf(out, "reservation", "reserved by key 0x%016lx%s, %s", h->key,
                    (h->key ^ info->key) & SCSI_KEY_NODE ? "" : " (this node's, of before)", scsi_pr_type_name(h->type));
}

/* Who is registered, and the initiator of the reservation where the target tells it. */
static void show_keys(struct out *out, struct storage_info *info)
{
    out_array_begin(out, "keys");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        const struct scsi_holding *h = &info->disk.holding;
        for (unsigned k = 0; k < h->count; k++) {
            bool holds = h->held && h->key == h->keys[k];
            out_object_begin(out, NULL);
            out_string(out, "disk", info->name);
            out_stringf(out, "key", "0x%016lx", h->keys[k]);
            out_string(out, "of", !((h->keys[k] ^ info->key) & SCSI_KEY_LIFE)   ? "this node"
                                  : (h->keys[k] ^ info->key) & SCSI_KEY_NODE ? "a stranger"
                                                                                : "this node, before");
            out_bool(out, "holds", holds);
            out_string(out, "initiator", holds && h->holder[0] ? h->holder : NULL);
            out_object_end(out);
        }
    }
    out_array_end(out);
}

static enum status disk_list(struct shell *shell, const struct command_call *call)
{
    struct out *out = &shell->out;
    struct storage_info *info = kzalloc(sizeof *info);
    (void)call;

    if (!info)
        return ERR_NO_MEMORY;
    storage_look();
    out_array_begin(out, "disks");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        const struct scsi_disk_info *disk = &info->disk;
        out_object_begin(out, NULL);
        out_string(out, "disk", info->name);
        out_string(out, "path", info->state);
        if (disk->bytes)
            out_bytes(out, "size", disk->bytes);
        else
            out_null(out, out->json ? "size_bytes" : "size");
        if (disk->bytes)
            out_uint(out, "block", disk->block_bytes);
        else
            out_null(out, "block");
        if (disk->bytes)
            out_stringf(out, "model", "%s %s", disk->vendor, disk->product);
        else
            out_null(out, "model");
        out_reservation(out, info);
        out_string(out, "vm", info->user[0] ? info->user : NULL);
        out_object_end(out);
    }
    out_array_end(out);
    show_paths(out, info);
    out_array_begin(out, "requests");
    for (unsigned i = 0; storage_info_get(i, info); i++) {
        out_object_begin(out, NULL);
        out_string(out, "disk", info->name);
        out_string(out, "identity", info->disk.identity[0] ? info->disk.identity : NULL);
        out_uint(out, "reads", info->reads);
        out_uint(out, "writes", info->writes);
        out_uint(out, "flushes", info->flushes);
        out_uint(out, "errors", info->errors);
        if (info->waiting_ns)
            out_duration(out, "oldest_waits", info->waiting_ns);
        else
            out_null(out, out->json ? "oldest_waits_ns" : "oldest_waits");
        out_object_end(out);
    }
    out_array_end(out);
    show_keys(out, info);
    show_problems(out, info);
    kfree(info, sizeof *info);
    return OK;
}

static enum status told(struct shell *shell, enum status status, const char *name, char *text)
{
    if (status != OK)
        return out_error_text(&shell->out, status, name, text);
    out_message(&shell->out, "%s", text);
    return OK;
}

static enum status disk_reserve(struct shell *shell, const struct command_call *call)
{
    char text[TEXT_BYTES];
    enum status status = storage_reserve(call->argument[0], false, text, sizeof text);

    return told(shell, status, call->argument[0], text);
}

static enum status disk_preempt(struct shell *shell, const struct command_call *call)
{
    char text[TEXT_BYTES];
    enum status status = storage_reserve(call->argument[0], true, text, sizeof text);

    return told(shell, status, call->argument[0], text);
}

static enum status disk_release(struct shell *shell, const struct command_call *call)
{
    char text[TEXT_BYTES];
    enum status status = storage_release(call->argument[0], text, sizeof text);

    return told(shell, status, call->argument[0], text);
}

static enum status disk_validate(struct shell *shell, const struct command_call *call)
{
    static const char *const results[] = { [SCSI_NOT_TRIED] = "not tried", [SCSI_PASSED] = "yes", [SCSI_FAILED] = "no",
                                           [SCSI_ABSENT] = "not there" };
    const char *name = call->argument[0];
    struct out *out = &shell->out;
    struct scsi_validate *core = kzalloc(sizeof *core);
    char text[TEXT_BYTES];

    if (!core)
        return ERR_NO_MEMORY;
    core->force = command_option(call, "--force") != NULL;
    enum status status = storage_validate(name, command_option(call, "--initiator"), core, text, sizeof text);
    if (status == OK) {
        out_string(out, "disk", name);
        out_bool(out, "fit_for_fencing", core->fit);
        out_string(out, "problem", core->why[0] ? core->why : NULL);
        out_array_begin(out, "checks");
        for (unsigned i = 0; i < SCSI_CHECK_COUNT; i++) {
            out_object_begin(out, NULL);
            out_string(out, "check", scsi_check_name(i));
            out_string(out, "result", results[core->answer[i].result]);
            out_string(out, "answer", core->answer[i].words[0] ? core->answer[i].words : NULL);
            out_object_end(out);
        }
        out_array_end(out);
    }
    kfree(core, sizeof *core);
    return status == OK ? OK : out_error_text(out, status, name, text);
}

static enum status iscsi_login(struct shell *shell, const struct command_call *call)
{
    const char *name = call->argument[0];
    char text[TEXT_BYTES];
    enum status status = storage_login(name, text, sizeof text);

    if (status != OK)
        return out_error_text(&shell->out, status, name, text);
    out_message(&shell->out, "storage %s: logs in; `iscsi list` shows how far it is", name);
    return OK;
}

static enum status iscsi_logout(struct shell *shell, const struct command_call *call)
{
    const char *name = call->argument[0];
    char text[TEXT_BYTES];
    enum status status = storage_logout(name, text, sizeof text);

    if (status != OK)
        return out_error_text(&shell->out, status, name, text);
    out_message(&shell->out, "storage %s: logs out, until `iscsi login %s` or the node's restart", name, name);
    return OK;
}

/* ---- Discovery ---- */

/* A target's portals, a row each. One without an address is where it was asked for. */
static void show_found(struct out *out, const struct iscsi_discovery *list, unsigned target)
{
    char text[sizeof list->portal[0].portal.host + 16];
    unsigned shown = 0;

    for (unsigned i = 0; i < list->portal_count; i++) {
        const struct iscsi_discovery_portal *found = &list->portal[i];
        if (found->target != target)
            continue;
        shown++;
        iscsi_portal_text(&found->portal, text, sizeof text);
        out_object_begin(out, NULL);
        out_string(out, "target", list->target[target]);
        out_string(out, "portal", text);
        out_uint(out, "group", found->portal.group);
        out_object_end(out);
    }
    if (shown)
        return;
    out_object_begin(out, NULL);
    out_string(out, "target", list->target[target]);
    out_null(out, "portal");
    out_null(out, "group");
    out_object_end(out);
}

static void show_discovery(struct out *out, const struct net_discovery *d)
{
    const struct iscsi_discovery *list = &d->list;

    out_string(out, "initiator", d->asked_as);
    out_array_begin(out, "portals");
    for (unsigned i = 0; i < list->target_count; i++)
        show_found(out, list, i);
    out_array_end(out);
    out_array_begin(out, "notices");
    if (!list->target_count)
        out_string(out, NULL, "it names no target to this initiator: let that name in at the target, or ask as another one");
    if (list->targets_left_out || list->portals_left_out)
        out_stringf(out, NULL, "%u more targets and %u more portals are not shown: %u and %u are the most", list->targets_left_out,
                    list->portals_left_out, ISCSI_DISCOVERY_TARGETS, ISCSI_DISCOVERY_PORTALS);
    if (list->ignored)
        out_stringf(out, NULL, "%u names or addresses that are none were left out, the first one: %s", list->ignored, list->words);
    out_array_end(out);
}

static enum status iscsi_discover(struct shell *shell, const struct command_call *call)
{
    struct net_discovery *d = kzalloc(sizeof *d);
    struct out *out = &shell->out;
    char text[TEXT_BYTES];
    enum status status;

    if (!d)
        return ERR_NO_MEMORY;
    d->storage = command_option(call, "--storage");
    d->initiator = command_option(call, "--initiator");
    d->node = shell->node_name;
    if (!config_portal_parse(call->argument[0], &d->portal)) {
        kfree(d, sizeof *d);
        return out_error(out, ERR_INVALID, call->argument[0], "write the address of the target, such as 10.0.0.5 or "
                         "10.0.0.5:3260 or [fd00::5]:3260", "it is not a portal");
    }
    status = net_discover(d, text, sizeof text);
    if (status == OK)
        show_discovery(out, d);
    kfree(d, sizeof *d);
    return status == OK ? OK : out_error_text(out, status, call->argument[0], text);
}

static void storage_names(struct shell *shell, void (*offer)(void *to, const char *name), void *to)
{
    struct storage_info *info = kzalloc(sizeof *info);
    (void)shell;

    for (unsigned i = 0; info && storage_info_get(i, info); i++)
        offer(to, info->name);
    kfree(info, sizeof *info);
}

static const struct command_argument storage_argument[] = {
    { .name = "STORAGE", .help = "the name of a [storage NAME] section", .names = storage_names },
    { .name = NULL },
};

static const struct command_option validate_options[] = {
    { .name = "--force", .help = "also where the disk is not blank: nobody anywhere may be using it" },
    { .name = "--initiator", .value = "NAME", .help = "of the second session; left out: this node's, with .validate behind it" },
    { .name = NULL },
};

static const struct command_argument portal_argument[] = {
    { .name = "PORTAL", .help = "address of a target, or ADDRESS:PORT; an IPv6 address with a port in brackets" },
    { .name = NULL },
};

static const struct command_option discover_options[] = {
    { .name = "--storage", .value = "STORAGE", .help = "ask as this storage logs in: its initiator name and its secrets",
      .names = storage_names },
    { .name = "--initiator", .value = "NAME", .help = "ask by this initiator name; left out: iqn.2026-11.tasuki: and the node's name" },
    { .name = NULL },
};

const struct command storage_commands[] = {
    { .noun = "iscsi", .verb = "list", .summary = "List the storages and how their sessions are", .run = iscsi_list },
    { .noun = "iscsi", .verb = "login", .summary = "Log in to a storage that was logged out", .arguments = storage_argument,
      .run = iscsi_login },
    { .noun = "iscsi", .verb = "logout", .summary = "Log out of a storage that no VM uses", .arguments = storage_argument,
      .run = iscsi_logout },
    { .noun = "iscsi", .verb = "discover", .summary = "Ask a portal for the targets behind it", .arguments = portal_argument,
      .options = discover_options, .run = iscsi_discover,
      .help = "Targets show an initiator what is for it. What a storage's section needs is its target and portals as shown here." },
    { .noun = "disk", .verb = "list", .summary = "List the disks, their size, path and reservation", .run = disk_list },
    { .noun = "disk", .verb = "reserve", .summary = "Reserve a disk for this node, if nobody else has a key", .arguments =
      storage_argument, .run = disk_reserve,
      .help = "Others may read it and not write. A volume that is mounted has the reservation by itself." },
    { .noun = "disk", .verb = "release", .summary = "Give a reservation of this node back", .arguments = storage_argument,
      .run = disk_release },
    { .noun = "disk", .verb = "preempt", .summary = "Reserve a disk for this node, and take the keys of all others away",
      .arguments = storage_argument, .run = disk_preempt,
      .help = "Who has one cannot write any more, and what he has under way is ended. Only for who is certainly gone." },
    { .noun = "disk", .verb = "validate", .summary = "Try on a disk what fencing needs, and say each answer", .arguments =
      storage_argument, .options = validate_options, .run = disk_validate,
      .help = "What is on the disk stays as it is; while it lasts, nobody else can write to it." },
    { .noun = NULL },
};
