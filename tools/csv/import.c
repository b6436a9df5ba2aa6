/* SPDX-License-Identifier: MIT */
/*
 * import: a disk image of any kind that qemu-img reads becomes a raw, sparse file. qemu-img itself writes it: it is
 * started with one end of a pair of sockets, as the client of an NBD server (nbd.c) that is this program, so no copy of
 * the image lies anywhere in between. Before that, qemu-img is asked for the image's size and how much of it is data.
 *
 * What qemu-img has to say goes to standard error as it is; it names the image and the cause.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd.h"
#include "say.h"
#include "transfer.h"

/* qemu-img, with `fd` (-1: none) kept open for it and its standard output to `out` (-1: as it is). */
static pid_t start(char *const argument[], int fd, int out)
{
    pid_t child = fork();
    if (child)
        return child;
    signal(SIGPIPE, SIG_DFL);
    if ((fd >= 0 && fcntl(fd, F_SETFD, 0)) || (out >= 0 && dup2(out, STDOUT_FILENO) < 0))
        _exit(127);
    execvp(argument[0], argument);
    say_error("%s: cannot be run: %s; install qemu-utils", argument[0], strerror(errno));
    _exit(127);
}

static bool ended_well(pid_t child)
{
    int status;
    pid_t ended;
    do
        ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    return ended == child && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* The number behind a key of `qemu-img measure --output=json`, whose answer is one flat object. */
static bool number_of(const char *text, const char *key, uint64_t *value)
{
    const char *at = strstr(text, key);
    at = at ? strchr(at, ':') : NULL;
    if (!at)
        return false;
    char *end;
    errno = 0;
    *value = strtoull(at + 1, &end, 10);
    return end != at + 1 && !errno;
}

/* The image's size, and how much of it is data. */
static bool measure(const struct invocation *call, uint64_t *size, uint64_t *data)
{
    const char *argument[12] = { "qemu-img", "measure", "--output=json", "-O", "raw" };
    unsigned count = 5;
    char text[1024];
    size_t used = 0;
    int ends[2];
    if (call->options->format) {
        argument[count++] = "-f";
        argument[count++] = call->options->format;
    }
    argument[count++] = "--";
    argument[count] = call->argument[0];
    if (pipe2(ends, O_CLOEXEC)) {
        say_error("%s: %s", call->argument[0], strerror(errno));
        return false;
    }
    pid_t child = start((char *const *)(uintptr_t)argument, -1, ends[1]);
    close(ends[1]);
    while (child > 0 && used < sizeof(text) - 1) {
        ssize_t part = read(ends[0], text + used, sizeof(text) - 1 - used);
        if (part < 0 && errno == EINTR && !say_interrupted())
            continue;
        if (part <= 0)
            break;
        used += (size_t)part;
    }
    close(ends[0]);
    text[used] = 0;
    if (child > 0 && ended_well(child) && number_of(text, "\"fully-allocated\"", size) &&
        number_of(text, "\"required\"", data))
        return true;
    say_error("%s: qemu-img cannot read it; its format can be told by --format", call->argument[0]);
    return false;
}

static enum status convert(const struct invocation *call, struct growing *growing, uint64_t size, uint64_t data)
{
    const char *argument[20] = { "qemu-img", "convert", "-n", "--target-is-zero", "--target-image-opts" };
    unsigned count = 5;
    char target[80];
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return ERR_IO;
    snprintf(target, sizeof(target), "driver=nbd,server.type=fd,server.str=%d", ends[1]);
    if (call->options->format) {
        argument[count++] = "-f";
        argument[count++] = call->options->format;
    }
    argument[count++] = "--";
    argument[count++] = call->argument[0];
    argument[count++] = target;
    pid_t child = start((char *const *)(uintptr_t)argument, ends[1], -1);
    close(ends[1]);
    struct nbd nbd = { .fd = ends[0], .file = growing->file, .size = size, .progress = progress_step };
    enum status status = child > 0 ? OK : ERR_NO_MEMORY;
    progress_begin(call->argument[0], data, !call->options->quiet);
    if (!status)
        status = nbd_serve(&nbd);
    progress_end();
    close(ends[0]);
    if (child > 0 && say_interrupted())
        kill(child, SIGTERM);
    bool good = child > 0 && ended_well(child);
    if (nbd.failed && nbd.failed != ERR_RANGE)
        return nbd.failed;
    if (say_interrupted())
        return ERR_CANCELLED;
    if (!good || status || nbd.failed) {
        say_error("%s: qemu-img could not read all of it, for the reason that it gave", call->argument[0]);
        return ERR_TRUNCATED;
    }
    return OK;
}

/* The name that an image gets in a directory: its own, with `.img` for what said what format it had. */
static void name_in_directory(const char *source, char *name, size_t bytes)
{
    const char *last = strrchr(source, '/');
    snprintf(name, bytes, "%s", last ? last + 1 : source);
    char *dot = strrchr(name, '.');
    size_t at = dot && dot != name ? (size_t)(dot - name) : strlen(name);
    if (at + sizeof(".img") <= bytes)
        strcpy(name + at, ".img");
}

static int import(struct tool *tool, const struct invocation *call, uint64_t size, uint64_t data)
{
    const char *path = call->argument[1], *name;
    char own[CSV_NAME_BYTES + 1];
    uint64_t directory;
    size_t bytes;
    struct growing growing;
    name_in_directory(call->argument[0], own, sizeof(own));
    enum status status = tool_target(tool, path, own, &directory, &name, &bytes);
    if (!status)
        status = growing_begin(&growing, tool, directory, name, bytes, 0644);
    if (status)
        return tool_failed(tool, path, status);
    status = csv_set_size(growing.file, size);
    if (!status)
        status = convert(call, &growing, size, data);
    status = growing_end(&growing, status);
    return status ? tool_failed(tool, path, status) : EXIT_DONE;
}

int command_import(const struct invocation *call)
{
    struct tool tool;
    uint64_t size, data;
    if (!measure(call, &size, &data) || !tool_open(&tool, call, false))
        return EXIT_FAILED;
    int status = import(&tool, call, size, data);
    return tool_close(&tool) ? status : EXIT_FAILED;
}
