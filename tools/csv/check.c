/* SPDX-License-Identifier: MIT */
/*
 * Commands on a volume as a whole: mkfs, fsck, grow, info, df.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "say.h"
#include "tool.h"

/* ---- mkfs ---- */

/* True if the disk has nothing but zeros where file systems, partition tables and volumes have their beginnings. */
static bool looks_empty(struct device *device, bool *empty)
{
    static uint8_t bytes[65536];
    uint64_t places[] = { 0, device->disk.bytes - sizeof(bytes) };
    *empty = true;
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        uint64_t at = ALIGN_DOWN(places[i], device->disk.sector_bytes);
        if (device->disk.read(&device->disk, at, bytes, sizeof(bytes)))
            return false;
        for (size_t byte = 0; byte < sizeof(bytes); byte++)
            *empty &= !bytes[byte];
    }
    return true;
}

/* What the disk holds, for the refusal. */
static void name_content(struct device *device, char *text, size_t bytes)
{
    char message[CSV_MESSAGE_BYTES];
    struct csv_mount_options options = { .read_only = true };
    struct csv *volume;
    struct csv_info info;
    enum status status = csv_mount(&device->disk, &tool_memory, &options, &volume, message);
    if (status) {
        snprintf(text, bytes, "%s",
                 status == ERR_NOT_FOUND ? "data that is no volume" : "a volume that cannot be read");
        return;
    }
    csv_statfs(volume, &info);
    char label[CSV_LABEL_BYTES + 4];
    snprintf(text, bytes, "the volume \"%s\" (files and directories: %" PRIu64 ")",
             say_text(info.label, label, sizeof(label)), info.inodes - 1);
    csv_abandon(volume);
}

static int make(struct device *device, const struct invocation *call)
{
    struct csv_mkfs_options options = { .label = call->options->label, .now_ns = tool_now_ns() };
    char content[160], size[SAY_SIZE_BYTES];
    bool empty;
    if (device->disk.bytes < CSV_MIN_BYTES || device->disk.bytes > CSV_MAX_BYTES) {
        say_error("%s: has %s; a volume needs 64 MiB to 64 TiB", device->name, say_size(device->disk.bytes, size));
        return EXIT_FAILED;
    }
    if (!call->options->force) {
        if (!looks_empty(device, &empty))
            return EXIT_FAILED;
        if (!empty) {
            name_content(device, content, sizeof(content));
            say_error("%s: holds %s; if it may be lost, `mkfs --force`", device->name, content);
            return EXIT_FAILED;
        }
    }
    tool_random(options.uuid, sizeof(options.uuid));
    tool_random(options.hash_key, sizeof(options.hash_key));
    options.uuid[6] = (uint8_t)((options.uuid[6] & 0x0f) | 0x40); /* version 4, variant 1 (RFC 9562 section 5.4) */
    options.uuid[8] = (uint8_t)((options.uuid[8] & 0x3f) | 0x80);
    enum status status = csv_mkfs(&device->disk, &tool_memory, &options);
    if (!status)
        status = device->disk.flush(&device->disk);
    if (status == ERR_INVALID)
        say_error("--label %s: not a label; UTF-8, at most 63 bytes, no control characters", call->options->label);
    else if (status)
        say_error("%s: no volume was made: %s", device->name, say_status(status));
    return status ? EXIT_FAILED : EXIT_DONE;
}

int command_mkfs(const struct invocation *call)
{
    struct device *device = tool_open_device(call, DEVICE_WRITE, call->options->size_bytes);
    if (!device)
        return EXIT_FAILED;
    int status = make(device, call);
    return device_close(device) ? status : EXIT_FAILED;
}

/* ---- fsck ---- */

static void report(void *context, const char *text)
{
    (void)context;
    printf("%s\n", text);
}

static void report_mended(void *context, const char *text)
{
    (void)context;
    printf("mended: %s\n", text);
}

static int repair(const struct invocation *call)
{
    struct csv_repair repair = { .report = report_mended, .discard_journal = call->options->force };
    struct csv_mount_options options;
    char message[CSV_MESSAGE_BYTES], name[CSV_OWNER_NAME_BYTES];
    struct device *device = tool_open_device(call, DEVICE_WRITE, 0);
    if (!device)
        return EXIT_NOT_CHECKED;
    tool_mount_options(call, device, false, name, &options);
    enum status status = csv_repair(&device->disk, &tool_memory, &options, &repair, message);
    if (status)
        say_error("%s: %s%s", device->name, message,
                  status == ERR_BUSY ? " (--take-over)"
                  : status == ERR_CORRUPT && !repair.discard_journal ? " (--force)" : "");
    else
        printf("%s: %" PRIu64 " thing%s mended, %" PRIu64 " lost, %" PRIu64 " in /lost+found: sound\n", device->name,
               repair.mended, repair.mended == 1 ? "" : "s", repair.lost, repair.rescued);
    int result = status == ERR_CORRUPT ? EXIT_DAMAGED : status ? EXIT_NOT_CHECKED
                 : repair.mended ? EXIT_REPAIRED : EXIT_DONE;
    return device_close(device) ? result : EXIT_NOT_CHECKED;
}

int command_fsck(const struct invocation *call)
{
    struct csv_check check = { .report = report };
    struct csv_info info;
    struct tool tool;
    char size[SAY_SIZE_BYTES];
    if (call->options->repair)
        return repair(call);
    if (!tool_open(&tool, call, true))
        return tool.refused == ERR_CORRUPT ? EXIT_DAMAGED : EXIT_NOT_CHECKED;
    csv_statfs(tool.volume, &info);
    enum status status = csv_check(tool.volume, &check);
    if (status)
        say_error("%s: the check ended early: %s", tool.device->name, say_status(status));
    else
        printf("%s: %" PRIu64 " file%s, %" PRIu64 " director%s, %s in use, %" PRIu64
               " transaction%s in the journal: %s\n",
               tool.device->name, check.files, check.files == 1 ? "" : "s", check.directories,
               check.directories == 1 ? "y" : "ies", say_size(check.used_blocks * CSV_BLOCK_BYTES, size), info.replayed,
               info.replayed == 1 ? "" : "s", check.problems ? "DAMAGED" : "sound");
    int result = status ? EXIT_NOT_CHECKED : check.problems ? EXIT_DAMAGED : EXIT_DONE;
    return tool_close(&tool) ? result : EXIT_NOT_CHECKED;
}

/* ---- grow, info, df ---- */

int command_grow(const struct invocation *call)
{
    struct tool tool;
    struct csv_info before, after;
    char from[SAY_SIZE_BYTES], to[SAY_SIZE_BYTES];
    if (!tool_open(&tool, call, false))
        return EXIT_FAILED;
    csv_statfs(tool.volume, &before);
    enum status status = csv_grow(tool.volume);
    csv_statfs(tool.volume, &after);
    if (status)
        tool_failed(&tool, tool.device->name, status);
    else if (after.blocks == before.blocks)
        printf("%s: %s, as large as its disk already\n", tool.device->name,
               say_size(after.blocks * CSV_BLOCK_BYTES, to));
    else
        printf("%s: from %s to %s\n", tool.device->name, say_size(before.blocks * CSV_BLOCK_BYTES, from),
               say_size(after.blocks * CSV_BLOCK_BYTES, to));
    return tool_close(&tool) && !status ? EXIT_DONE : EXIT_FAILED;
}

static void print_uuid(const uint8_t *uuid)
{
    for (unsigned i = 0; i < 16; i++)
        printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

void print_json_text(const char *from)
{
    char text[CSV_NAME_BYTES + 8];
    say_text(from, text, sizeof(text));
    putchar('"');
    for (const char *at = text; *at; at++)
        printf(*at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
    putchar('"');
}

int command_info(const struct invocation *call)
{
    struct tool tool;
    struct csv_info info;
    char size[SAY_SIZE_BYTES], room[SAY_SIZE_BYTES], journal[SAY_SIZE_BYTES], label[CSV_LABEL_BYTES + 4];
    if (!tool_open(&tool, call, true))
        return EXIT_FAILED;
    csv_statfs(tool.volume, &info);
    uint64_t bytes = info.blocks * CSV_BLOCK_BYTES, free_bytes = info.free_blocks * CSV_BLOCK_BYTES;
    if (call->options->json) {
        printf("{\"uuid\":\"");
        print_uuid(info.uuid);
        printf("\",\"label\":");
        print_json_text(info.label);
        printf(",\"bytes\":%" PRIu64 ",\"free_bytes\":%" PRIu64 ",\"inodes\":%" PRIu64 ",\"mounts\":%" PRIu64
               ",\"journal_bytes\":%" PRIu64 ",\"journal_transactions\":%" PRIu64 "}\n", bytes, free_bytes, info.inodes,
               info.generation, info.journal_blocks * CSV_BLOCK_BYTES, info.replayed);
    } else {
        printf("label       %s\nUUID        ", say_text(info.label, label, sizeof(label)));
        print_uuid(info.uuid);
        printf("\nformat      version %u\nsize        %s\nfree        %s\n", CSV_FORMAT_VERSION, say_size(bytes, size),
               say_size(free_bytes, room));
        printf("inodes      %" PRIu64 "\njournal     %s, %" PRIu64 " transactions to replay\nmounts      %" PRIu64
               " for writing\n", info.inodes, say_size(info.journal_blocks * CSV_BLOCK_BYTES, journal), info.replayed,
               info.generation);
    }
    return tool_close(&tool) ? EXIT_DONE : EXIT_FAILED;
}

int command_df(const struct invocation *call)
{
    struct tool tool;
    struct csv_info info;
    char size[SAY_SIZE_BYTES], used[SAY_SIZE_BYTES], room[SAY_SIZE_BYTES], label[CSV_LABEL_BYTES + 4];
    if (!tool_open(&tool, call, true))
        return EXIT_FAILED;
    csv_statfs(tool.volume, &info);
    uint64_t used_blocks = info.blocks - info.free_blocks;
    if (call->options->json)
        printf("{\"bytes\":%" PRIu64 ",\"used_bytes\":%" PRIu64 ",\"free_bytes\":%" PRIu64 "}\n",
               info.blocks * CSV_BLOCK_BYTES, used_blocks * CSV_BLOCK_BYTES, info.free_blocks * CSV_BLOCK_BYTES);
    else
        printf("%10s  %10s  %10s  %4s  LABEL\n%10s  %10s  %10s  %3" PRIu64 "%%  %s\n", "SIZE", "USED", "FREE", "USED",
               say_size(info.blocks * CSV_BLOCK_BYTES, size), say_size(used_blocks * CSV_BLOCK_BYTES, used),
               say_size(info.free_blocks * CSV_BLOCK_BYTES, room), (used_blocks * 100 + info.blocks - 1) / info.blocks,
               say_text(info.label, label, sizeof(label)));
    return tool_close(&tool) ? EXIT_DONE : EXIT_FAILED;
}
