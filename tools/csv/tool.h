/* SPDX-License-Identifier: MIT */
/*
 * tasuki-csv: what its files share. main.c reads the command line, finds the command in its table, and calls it with
 * its options and arguments; a command opens the volume by tool_open(), works through csv/csv.h, says what fails where
 * it fails, and ends with tool_close().
 */
#ifndef TOOLS_CSV_TOOL_H
#define TOOLS_CSV_TOOL_H

#include "csv/csv.h"
#include "device.h"

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    /* fsck, as such programs do */
    EXIT_REPAIRED = 1,
    EXIT_DAMAGED = 4,
    EXIT_NOT_CHECKED = 8,
};

struct options {
    bool force, recursive, take_over, repair, read_only, foreground, allow_other, quiet, json;
    const char *label, *format, *initiator;
    uint64_t size_bytes;
};

/* What a command is called with. */
struct invocation {
    const struct options *options;
    const char *volume;
    char **argument; /* those behind VOLUME */
    int count;
};

/* An open volume. */
struct tool {
    struct device *device;
    struct csv *volume;
    enum status refused; /* why the mount failed, if it was that */
};

/* ---- volume.c ---- */

extern const struct csv_memory tool_memory;
int64_t tool_now_ns(void);
/* Random bytes of the system's. */
void tool_random(void *bytes, size_t count);
/* Who this host is, in mount records: always the same on one machine. The key is derived from it, and never 0. */
void tool_identity(uint8_t uuid[16], char name[CSV_OWNER_NAME_BYTES], uint64_t *key);

/* For csv_mount() and its like; `name` is room for this host's, and must live as long as the options. */
void tool_mount_options(const struct invocation *call, const struct device *device, bool read_only,
                        char name[CSV_OWNER_NAME_BYTES], struct csv_mount_options *options);
struct device *tool_open_device(const struct invocation *call, enum device_use use, uint64_t create_bytes);
/* Opens the device and mounts the volume. False: it failed, and was said. */
bool tool_open(struct tool *tool, const struct invocation *call, bool read_only);
/* Unmounts and closes. False: that failed, and was said. */
bool tool_close(struct tool *tool);
/* Says that an operation on a path failed, and returns EXIT_FAILED. ERR_TRUNCATED: it was said where it happened. */
int tool_failed(const struct tool *tool, const char *path, enum status status);

/* The directory that holds the last part of a path, and that part. The root itself: ERR_INVALID. */
enum status tool_split(struct tool *tool, const char *path, uint64_t *directory, const char **name, size_t *bytes)
    MUST_CHECK;
/* Where something called `name` goes that is to be put at `path`: into it, if it is a directory; else at it. */
enum status tool_target(struct tool *tool, const char *path, const char *name, uint64_t *directory,
                        const char **target, size_t *bytes) MUST_CHECK;

/* ---- Commands: each returns an exit status ---- */

/* Prints a label or a name as a string of JSON. */
void print_json_text(const char *text);

int command_mkfs(const struct invocation *call);
int command_fsck(const struct invocation *call);
int command_grow(const struct invocation *call);
int command_info(const struct invocation *call);
int command_df(const struct invocation *call);
int command_ls(const struct invocation *call);
int command_mkdir(const struct invocation *call);
int command_mv(const struct invocation *call);
int command_cp(const struct invocation *call);
int command_rm(const struct invocation *call);
int command_put(const struct invocation *call);
int command_get(const struct invocation *call);
int command_import(const struct invocation *call);
int command_mount(const struct invocation *call);

#endif
