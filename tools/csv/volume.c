/* SPDX-License-Identifier: MIT */
/*
 * Opening a volume: the device with its lock or reservation first, then the mount, so that nothing is written before
 * this host is known to be alone. Also what the volume's core wants handed in: memory, time, an identity.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "say.h"
#include "tool.h"

static void *memory_alloc(void *context, size_t bytes)
{
    (void)context;
    return malloc(bytes);
}

static void memory_free(void *context, void *ptr, size_t bytes)
{
    (void)context;
    (void)bytes;
    free(ptr);
}

const struct csv_memory tool_memory = { .alloc = memory_alloc, .free = memory_free };

int64_t tool_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void tool_random(void *bytes, size_t count)
{
    if (getrandom(bytes, count, 0) != (ssize_t)count) {
        say_error("the system has no random numbers");
        abort();
    }
}

/* FNV-1a with 64 bits: spreads, and hides nothing. */
static uint64_t hash(uint64_t from, const char *text)
{
    for (; *text; text++)
        from = (from ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return from;
}

void tool_identity(uint8_t uuid[16], char name[CSV_OWNER_NAME_BYTES], uint64_t *key)
{
    char machine[64] = "";
    FILE *file = fopen("/etc/machine-id", "re");
    if (file && !fgets(machine, sizeof(machine), file))
        machine[0] = 0;
    if (file)
        fclose(file);
    if (gethostname(name, CSV_OWNER_NAME_BYTES))
        snprintf(name, CSV_OWNER_NAME_BYTES, "unknown");
    name[CSV_OWNER_NAME_BYTES - 1] = 0;
    for (unsigned half = 0; half < 2; half++) {
        uint64_t part = hash(UINT64_C(0xcbf29ce484222325) + half, "tasuki-csv ");
        part = hash(hash(part, machine), name);
        memcpy(uuid + half * 8, &part, sizeof(part));
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80); /* version 8, variant 1 (RFC 9562 section 5.8) */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    memcpy(key, uuid, sizeof(*key));
    *key |= 1;
}

struct device *tool_open_device(const struct invocation *call, enum device_use use, uint64_t create_bytes)
{
    uint8_t uuid[16];
    char name[CSV_OWNER_NAME_BYTES];
    struct device_options options = { .use = use, .create_bytes = create_bytes,
                                      .take_over = call->options->take_over, .initiator = call->options->initiator };
    tool_identity(uuid, name, &options.key);
    return device_open(call->volume, &options);
}

void tool_mount_options(const struct invocation *call, const struct device *device, bool read_only,
                        char name[CSV_OWNER_NAME_BYTES], struct csv_mount_options *options)
{
    uint64_t key;
    *options = (struct csv_mount_options){ .read_only = read_only, .owner_kind = 1,
                                           .take_over = call->options->take_over, .now_ns = tool_now_ns(),
                                           .cache_blocks = 16384, .discard = true };
    tool_identity(options->owner_uuid, name, &key);
    options->owner_name = name;
    options->owner_key = device->key;
}

bool tool_open(struct tool *tool, const struct invocation *call, bool read_only)
{
    char message[CSV_MESSAGE_BYTES], name[CSV_OWNER_NAME_BYTES];
    struct csv_mount_options options;
    memset(tool, 0, sizeof(*tool));
    tool->device = tool_open_device(call, read_only ? DEVICE_READ : DEVICE_WRITE, 0);
    if (!tool->device)
        return false;
    tool_mount_options(call, tool->device, read_only, name, &options);
    enum status status = csv_mount(&tool->device->disk, &tool_memory, &options, &tool->volume, message);
    if (!status)
        return true;
    tool->refused = status;
    say_error("%s: %s%s", tool->device->name, message, status == ERR_BUSY ? " (--take-over)" : "");
    device_close(tool->device);
    return false;
}

bool tool_close(struct tool *tool)
{
    csv_set_time(tool->volume, tool_now_ns());
    enum status status = csv_unmount(tool->volume);
    if (status)
        say_error("%s: the volume could not be unmounted: %s; the next run replays its journal", tool->device->name,
                  say_status(status));
    return device_close(tool->device) && !status;
}

int tool_failed(const struct tool *tool, const char *path, enum status status)
{
    if (status == ERR_TRUNCATED)
        return EXIT_FAILED;
    const char *problem = status == ERR_CORRUPT ? csv_problem(tool->volume) : "";
    say_error("%s: %s%s%s", path, problem, problem[0] ? ": " : "", say_status(status));
    return EXIT_FAILED;
}

enum status tool_split(struct tool *tool, const char *path, uint64_t *directory, const char **name, size_t *bytes)
{
    size_t end = strlen(path);
    while (end && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin && path[begin - 1] != '/')
        begin--;
    if (begin == end)
        return ERR_INVALID;
    *name = path + begin;
    *bytes = end - begin;
    char *parent = strndup(path, begin);
    if (!parent)
        return ERR_NO_MEMORY;
    enum status status = csv_walk(tool->volume, parent, directory);
    free(parent);
    return status;
}

enum status tool_target(struct tool *tool, const char *path, const char *name, uint64_t *directory,
                        const char **target, size_t *bytes)
{
    struct csv_stat stat;
    uint64_t inode;
    enum status status = csv_walk(tool->volume, path, &inode);
    if (!status)
        status = csv_stat(tool->volume, inode, &stat);
    if (!status && stat.type == CSV_IS_DIRECTORY) {
        const char *last = strrchr(name, '/');
        *target = last ? last + 1 : name;
        *bytes = strlen(*target);
        *directory = inode;
        return OK;
    }
    if (status && status != ERR_NOT_FOUND)
        return status;
    return tool_split(tool, path, directory, target, bytes);
}
