/* SPDX-License-Identifier: MIT */
/*
 * put and get: files between the machine and the volume, holes kept. A file that is put is written under a name of its
 * own first, made durable, and then renamed, so that its name stands for the old file or the whole new one whatever
 * happens; what is left of an attempt that was killed begins with `.tasuki-csv-`.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "say.h"
#include "tool.h"
#include "transfer.h"

#define CHUNK_BYTES (4 * MIB)
#define PIECE_BYTES (64 * KIB)

/* ---- A file that grows under another name ---- */

enum status growing_begin(struct growing *g, struct tool *tool, uint64_t directory, const char *name, size_t bytes,
                          uint32_t mode)
{
    uint64_t number, inode;
    struct csv_entry entry;
    memset(g, 0, sizeof(*g));
    g->tool = tool;
    g->directory = directory;
    g->name = name;
    g->bytes = bytes;
    enum status status = csv_lookup(tool->volume, directory, name, bytes, &entry);
    if (status && status != ERR_NOT_FOUND)
        return status;
    if (!status && entry.type != CSV_IS_FILE)
        return ERR_EXISTS;
    tool_random(&number, sizeof(number));
    snprintf(g->temporary, sizeof(g->temporary), ".tasuki-csv-%016" PRIx64, number);
    csv_set_time(tool->volume, tool_now_ns());
    status = csv_create(tool->volume, directory, g->temporary, strlen(g->temporary), mode, &inode);
    if (status)
        return status;
    status = csv_open(tool->volume, inode, &g->file);
    return status ? growing_end(g, status) : OK;
}

enum status growing_end(struct growing *g, enum status status)
{
    struct csv *volume = g->tool->volume;
    csv_set_time(volume, tool_now_ns());
    if (!status)
        status = csv_sync(volume);
    if (g->file) {
        enum status closed = csv_close(g->file);
        status = status ? status : closed;
    }
    if (!status)
        status = csv_rename(volume, g->directory, g->temporary, strlen(g->temporary), g->directory, g->name, g->bytes);
    if (status && csv_unlink(volume, g->directory, g->temporary, strlen(g->temporary)))
        say_note("%s: is left on the volume; remove it", g->temporary);
    return status;
}

/* ---- put ---- */

/* The next range that may have data, from `at` on; false: none. Where holes cannot be asked for all is data. */
static bool next_data(int fd, uint64_t at, uint64_t size, uint64_t *from, uint64_t *to)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return false;
    *from = data < 0 ? at : (uint64_t)data;
    off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    *to = hole < 0 ? size : (uint64_t)hole;
    return *from < size;
}

/* As many bytes as there are, up to `count`; ERR_TRUNCATED after a failure, which is said. */
static enum status read_some(const char *source, int fd, uint8_t *bytes, uint64_t count, bool stream, uint64_t offset,
                             uint64_t *done)
{
    for (*done = 0; *done < count;) {
        ssize_t got = stream ? read(fd, bytes + *done, count - *done)
                             : pread(fd, bytes + *done, count - *done, (off_t)(offset + *done));
        if (say_interrupted())
            return ERR_CANCELLED;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            say_error("%s: cannot be read: %s", source, strerror(errno));
            return ERR_TRUNCATED;
        }
        if (!got)
            return OK; /* the end, or the file was cut meanwhile */
        *done += (uint64_t)got;
    }
    return OK;
}

static bool all_zeros(const uint8_t *bytes, uint64_t count)
{
    return !count || (!bytes[0] && !memcmp(bytes, bytes + 1, count - 1));
}

/* Copies [from, to) of a file, in which holes were left out already. */
static enum status put_range(struct growing *g, const char *source, int fd, uint64_t from, uint64_t to, uint8_t *buffer)
{
    while (from < to) {
        uint64_t got;
        enum status status = read_some(source, fd, buffer, MIN(CHUNK_BYTES, to - from), false, from, &got);
        if (!status && got)
            status = csv_write(g->file, from, buffer, got);
        if (status || !got)
            return status;
        from += got;
        progress_step(from);
    }
    return OK;
}

/* Copies all that comes (a pipe, a block device); pieces that are all zeros become holes. */
static enum status put_stream(struct growing *g, const char *source, int fd, uint8_t *buffer)
{
    for (uint64_t at = 0;;) {
        uint64_t got;
        enum status status = read_some(source, fd, buffer, CHUNK_BYTES, true, at, &got);
        if (status)
            return status;
        for (uint64_t from = 0, to; from < got && !status; from = to) {
            bool zeros = all_zeros(buffer + from, MIN(PIECE_BYTES, got - from));
            for (to = from; to < got && all_zeros(buffer + to, MIN(PIECE_BYTES, got - to)) == zeros; to += PIECE_BYTES)
                ;
            to = MIN(to, got);
            if (!zeros)
                status = csv_write(g->file, at + from, buffer + from, to - from);
        }
        at += got;
        progress_step(at);
        if (status || got < CHUNK_BYTES)
            return status ? status : csv_set_size(g->file, at);
    }
}

static enum status put_data(struct growing *g, const char *source, int fd, const struct stat *stat, bool quiet)
{
    bool stream = !S_ISREG(stat->st_mode);
    uint64_t size = stream ? 0 : (uint64_t)stat->st_size, from, to;
    uint8_t *buffer = malloc(CHUNK_BYTES);
    if (!buffer)
        return ERR_NO_MEMORY;
    progress_begin(source, size, !quiet);
    enum status status = stream ? put_stream(g, source, fd, buffer) : OK;
    for (uint64_t at = 0; !status && !stream && next_data(fd, at, size, &from, &to); at = to)
        status = put_range(g, source, fd, from, MIN(to, size), buffer);
    if (!status && !stream)
        status = csv_set_size(g->file, size);
    progress_end();
    free(buffer);
    return status;
}

static int put(struct tool *tool, const struct invocation *call, int fd, const struct stat *stat)
{
    const char *source = call->argument[0], *path = call->argument[1], *name;
    uint64_t directory;
    size_t bytes;
    struct growing growing;
    enum status status = tool_target(tool, path, source, &directory, &name, &bytes);
    if (!status)
        status = growing_begin(&growing, tool, directory, name, bytes,
                               S_ISREG(stat->st_mode) ? stat->st_mode & 0777 : 0644);
    if (status)
        return tool_failed(tool, path, status);
    status = growing_end(&growing, put_data(&growing, source, fd, stat, call->options->quiet));
    return status ? tool_failed(tool, path, status) : EXIT_DONE;
}

int command_put(const struct invocation *call)
{
    const char *source = call->argument[0];
    struct stat stat;
    struct tool tool;
    bool standard = !strcmp(source, "-");
    int fd = standard ? STDIN_FILENO : open(source, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) || S_ISDIR(stat.st_mode)) {
        say_error("%s: cannot be read: %s", source, fd < 0 ? strerror(errno) : "a directory; put its files one by one");
        if (fd >= 0 && !standard)
            close(fd);
        return EXIT_FAILED;
    }
    int status = EXIT_FAILED;
    if (tool_open(&tool, call, false)) {
        status = put(&tool, call, fd, &stat);
        if (!tool_close(&tool))
            status = EXIT_FAILED;
    }
    if (!standard)
        close(fd);
    return status;
}

/* ---- get ---- */

static bool write_all(int fd, const uint8_t *bytes, uint64_t count, bool stream, uint64_t offset)
{
    for (uint64_t done = 0; done < count;) {
        ssize_t part = stream ? write(fd, bytes + done, count - done)
                              : pwrite(fd, bytes + done, count - done, (off_t)(offset + done));
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return false;
        done += (uint64_t)part;
    }
    return true;
}

/* `sparse`: the target is an empty file, where what is not written is a hole. */
static enum status get_data(struct csv_file *file, const char *target, int fd, bool sparse)
{
    uint64_t size = csv_size(file), done;
    struct csv_mapping mapping;
    uint8_t *buffer = malloc(CHUNK_BYTES);
    if (!buffer)
        return ERR_NO_MEMORY;
    enum status status = OK;
    bool written = true;
    for (uint64_t at = 0; at < size && !status && written; progress_step(at)) {
        status = csv_map(file, at, MIN(CHUNK_BYTES, size - at), &mapping);
        if (status)
            break;
        bool zeros = mapping.kind == CSV_MAP_HOLE || mapping.kind == CSV_MAP_UNWRITTEN;
        if (!zeros || !sparse) {
            status = csv_read(file, at, buffer, mapping.bytes, &done);
            written = status || write_all(fd, buffer, done, !sparse, at);
        }
        at += mapping.bytes;
    }
    if (!status && written && sparse)
        written = !ftruncate(fd, (off_t)size);
    if (!status && written)
        written = !fsync(fd) || errno == EINVAL || errno == EROFS; /* a pipe has nothing to make durable */
    if (!written) {
        say_error("%s: cannot be written: %s", target, strerror(errno));
        status = ERR_TRUNCATED;
    }
    free(buffer);
    return status;
}

static enum status get_to(struct tool *tool, const struct invocation *call, struct csv_file *file, uint32_t mode,
                          const char *target)
{
    struct stat stat;
    bool standard = !strcmp(target, "-");
    int fd = standard ? STDOUT_FILENO : open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode & 0777);
    if (fd < 0 || fstat(fd, &stat)) {
        say_error("%s: cannot be written: %s", target, strerror(errno));
        if (fd >= 0 && !standard)
            close(fd);
        return ERR_TRUNCATED;
    }
    progress_begin(call->argument[0], csv_size(file), !standard && !call->options->quiet);
    enum status status = get_data(file, target, fd, !standard && S_ISREG(stat.st_mode));
    progress_end();
    if (status)
        tool_failed(tool, call->argument[0], status);
    if (!standard && close(fd) && !status) {
        say_error("%s: cannot be written: %s", target, strerror(errno));
        status = ERR_TRUNCATED;
    }
    return status;
}

static int get(struct tool *tool, const struct invocation *call)
{
    const char *path = call->argument[0], *target = call->argument[1], *last = strrchr(path, '/');
    char *inside = NULL;
    uint64_t inode;
    struct csv_file *file;
    struct csv_stat from;
    struct stat to;
    enum status status = csv_walk(tool->volume, path, &inode);
    if (!status)
        status = csv_stat(tool->volume, inode, &from);
    if (!status && from.type != CSV_IS_FILE) {
        say_error("%s: a directory; get its files one by one", path);
        return EXIT_FAILED;
    }
    if (!status)
        status = csv_open(tool->volume, inode, &file);
    if (status)
        return tool_failed(tool, path, status);
    if (strcmp(target, "-") && !stat(target, &to) && S_ISDIR(to.st_mode) &&
        asprintf(&inside, "%s/%s", target, last ? last + 1 : path) > 0)
        target = inside;
    status = get_to(tool, call, file, from.mode, target);
    free(inside);
    enum status closed = csv_close(file);
    return status || closed ? EXIT_FAILED : EXIT_DONE;
}

int command_get(const struct invocation *call)
{
    struct tool tool;
    if (!tool_open(&tool, call, true))
        return EXIT_FAILED;
    int status = get(&tool, call);
    return tool_close(&tool) ? status : EXIT_FAILED;
}
