/* SPDX-License-Identifier: MIT */
/*
 * Commands on names: ls, mkdir, mv, cp, rm. Output puts the name last in its line, so that blanks in it break nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "say.h"
#include "tool.h"

static int close_with(struct tool *tool, int status)
{
    return tool_close(tool) ? status : EXIT_FAILED;
}

/* ---- ls ---- */

static void print_line(const struct csv_stat *stat, const char *name)
{
    static const char letter[] = "rwxrwxrwx";
    char mode[11], when[32], shown[CSV_NAME_BYTES * 4];
    time_t seconds = (time_t)(stat->modified_ns / 1000000000);
    struct tm broken;
    mode[0] = stat->type == CSV_IS_DIRECTORY ? 'd' : '-';
    for (unsigned bit = 0; bit < 9; bit++)
        mode[1 + bit] = stat->mode >> (8 - bit) & 1 ? letter[bit] : '-';
    mode[10] = 0;
    if (!localtime_r(&seconds, &broken) || !strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &broken))
        strcpy(when, "?");
    printf("%s %5u %5u %15" PRIu64 " %15" PRIu64 " %s %s\n", mode, stat->uid, stat->gid, stat->size,
           stat->blocks * CSV_BLOCK_BYTES, when, say_text(name, shown, sizeof(shown)));
}

static void print_json(const struct csv_stat *stat, const char *name, bool first)
{
    printf("%s{\"name\":", first ? "" : ",");
    print_json_text(name);
    printf(",\"type\":\"%s\",\"inode\":%" PRIu64 ",\"mode\":%u,\"uid\":%u,\"gid\":%u,\"%s\":%" PRIu64
           ",\"allocated_bytes\":%" PRIu64 ",\"modified_ns\":%" PRIi64 "}",
           stat->type == CSV_IS_DIRECTORY ? "directory" : "file", stat->inode, stat->mode, stat->uid, stat->gid,
           stat->type == CSV_IS_DIRECTORY ? "entries" : "size", stat->size, stat->blocks * CSV_BLOCK_BYTES,
           stat->modified_ns);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct csv_entry *)a)->name, ((const struct csv_entry *)b)->name);
}

/* All entries of a directory, sorted by name, to be freed by the caller. */
static enum status read_directory(struct tool *tool, uint64_t directory, struct csv_entry **list, size_t *count)
{
    struct csv_entry *entry = NULL;
    size_t room = 0;
    uint64_t cursor = 0;
    enum status status = OK;
    *count = 0;
    while (!status) {
        if (*count == room) {
            room = room ? room * 2 : 64;
            struct csv_entry *larger = realloc(entry, room * sizeof(*entry));
            if (!larger) {
                free(entry);
                return ERR_NO_MEMORY;
            }
            entry = larger;
        }
        status = csv_readdir(tool->volume, directory, &cursor, &entry[*count]);
        *count += !status;
    }
    if (status != ERR_NOT_FOUND) {
        free(entry);
        return status;
    }
    qsort(entry, *count, sizeof(*entry), by_name);
    *list = entry;
    return OK;
}

/* An entry that is not shown, for its inode is damaged, or free though the directory names it: the others are. */
static int tell_unreadable(const struct tool *tool, const char *path, const struct csv_entry *entry, enum status status)
{
    char shown[CSV_NAME_BYTES * 4];
    if (status != ERR_CORRUPT && status != ERR_INVALID)
        return tool_failed(tool, entry->name, status);
    say_error("%s: %s: its inode %" PRIu64 " cannot be read: %s: run `tasuki-csv fsck --repair`", path,
              say_text(entry->name, shown, sizeof(shown)), entry->inode, csv_problem(tool->volume));
    return EXIT_FAILED;
}

static int list_directory(struct tool *tool, const char *path, uint64_t inode, bool json)
{
    struct csv_entry *entry;
    struct csv_stat stat;
    size_t count;
    bool first = true;
    int result = EXIT_DONE;
    enum status status = read_directory(tool, inode, &entry, &count);
    if (status)
        return tool_failed(tool, path, status);
    for (size_t i = 0; i < count; i++) {
        status = csv_stat(tool->volume, entry[i].inode, &stat);
        if (status)
            result = tell_unreadable(tool, path, &entry[i], status);
        else if (json)
            print_json(&stat, entry[i].name, first);
        else
            print_line(&stat, entry[i].name);
        first = first && status;
    }
    free(entry);
    return result;
}

static int list(struct tool *tool, const char *path, bool json)
{
    struct csv_stat stat;
    uint64_t inode;
    int result = EXIT_DONE;
    enum status status = csv_walk(tool->volume, path, &inode);
    if (!status)
        status = csv_stat(tool->volume, inode, &stat);
    if (status)
        return tool_failed(tool, path, status);
    if (json)
        putchar('[');
    else
        printf("%-10s %5s %5s %15s %15s %-19s NAME\n", "MODE", "UID", "GID", "SIZE", "ALLOCATED", "MODIFIED");
    if (stat.type == CSV_IS_DIRECTORY)
        result = list_directory(tool, path, inode, json);
    else if (json)
        print_json(&stat, path, true);
    else
        print_line(&stat, path);
    if (json)
        puts("]");
    return result;
}

int command_ls(const struct invocation *call)
{
    struct tool tool;
    if (!tool_open(&tool, call, true))
        return EXIT_FAILED;
    return close_with(&tool, list(&tool, call->count ? call->argument[0] : "/", call->options->json));
}

/* ---- mkdir, mv, cp ---- */

int command_mkdir(const struct invocation *call)
{
    struct tool tool;
    uint64_t directory, inode;
    const char *name;
    size_t bytes;
    if (!tool_open(&tool, call, false))
        return EXIT_FAILED;
    enum status status = tool_split(&tool, call->argument[0], &directory, &name, &bytes);
    if (!status)
        status = csv_mkdir(tool.volume, directory, name, bytes, 0755, &inode);
    return close_with(&tool, status ? tool_failed(&tool, call->argument[0], status) : EXIT_DONE);
}

static int move(struct tool *tool, const char *from_path, const char *to_path)
{
    uint64_t from, to;
    const char *from_name, *to_name;
    size_t from_bytes, to_bytes;
    struct csv_entry entry;
    enum status status = tool_split(tool, from_path, &from, &from_name, &from_bytes);
    if (!status)
        status = csv_lookup(tool->volume, from, from_name, from_bytes, &entry);
    if (status)
        return tool_failed(tool, from_path, status);
    status = tool_target(tool, to_path, entry.name, &to, &to_name, &to_bytes);
    if (!status)
        status = csv_rename(tool->volume, from, from_name, from_bytes, to, to_name, to_bytes);
    if (status == ERR_INVALID) {
        say_error("%s: cannot become %s: a directory cannot move below itself nor replace a file, nor a file a "
                  "directory", from_path, to_path);
        return EXIT_FAILED;
    }
    return status ? tool_failed(tool, to_path, status) : EXIT_DONE;
}

int command_mv(const struct invocation *call)
{
    struct tool tool;
    if (!tool_open(&tool, call, false))
        return EXIT_FAILED;
    return close_with(&tool, move(&tool, call->argument[0], call->argument[1]));
}

static int clone(struct tool *tool, const char *from_path, const char *to_path)
{
    uint64_t inode, to, copy;
    const char *to_name;
    size_t to_bytes;
    struct csv_file *file;
    enum status status = csv_walk(tool->volume, from_path, &inode);
    if (!status)
        status = csv_open(tool->volume, inode, &file);
    if (status == ERR_INVALID) {
        say_error("%s: a directory; only files can be cloned", from_path);
        return EXIT_FAILED;
    }
    if (status)
        return tool_failed(tool, from_path, status);
    status = tool_target(tool, to_path, from_path, &to, &to_name, &to_bytes);
    if (!status)
        status = csv_clone(file, to, to_name, to_bytes, &copy);
    enum status closed = csv_close(file);
    status = status ? status : closed;
    return status ? tool_failed(tool, to_path, status) : EXIT_DONE;
}

int command_cp(const struct invocation *call)
{
    struct tool tool;
    if (!tool_open(&tool, call, false))
        return EXIT_FAILED;
    return close_with(&tool, clone(&tool, call->argument[0], call->argument[1]));
}

/* ---- rm ---- */

static enum status remove_entry(struct tool *tool, uint64_t directory, const char *name, size_t bytes, bool recursive)
{
    struct csv_entry entry, *list;
    size_t count;
    enum status status = csv_lookup(tool->volume, directory, name, bytes, &entry);
    if (status)
        return status;
    if (entry.type == CSV_IS_FILE)
        return csv_unlink(tool->volume, directory, name, bytes);
    if (recursive) {
        status = read_directory(tool, entry.inode, &list, &count);
        if (status)
            return status;
        for (size_t i = 0; i < count && !status; i++)
            status = say_interrupted() ? ERR_CANCELLED
                                       : remove_entry(tool, entry.inode, list[i].name, list[i].name_bytes, true);
        free(list);
    }
    return status ? status : csv_rmdir(tool->volume, directory, name, bytes);
}

int command_rm(const struct invocation *call)
{
    struct tool tool;
    uint64_t directory;
    const char *name;
    size_t bytes;
    if (!tool_open(&tool, call, false))
        return EXIT_FAILED;
    enum status status = tool_split(&tool, call->argument[0], &directory, &name, &bytes);
    if (!status)
        status = remove_entry(&tool, directory, name, bytes, call->options->recursive);
    return close_with(&tool, status ? tool_failed(&tool, call->argument[0], status) : EXIT_DONE);
}
