/* SPDX-License-Identifier: MIT */
/*
 * mount: the volume under a directory until that is unmounted (`fusermount3 -u`, `umount`) or a signal comes. In the
 * background by default: then a child opens the volume and mounts it, and the parent waits for its word, so that the
 * directory is ready, or the reason why not has been said, when the command returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs.h"
#include "say.h"

#define SYNC_MS 5000 /* at the latest so long after a change it is durable */
#define IDLE_MS 1000

/* ---- The session ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Requests one by one, and a sync when it is time. */
static void serve(struct fs *fs, struct fuse_session *session)
{
    struct pollfd wait = { .fd = fuse_session_fd(session), .events = POLLIN };
    struct fuse_buf request = { 0 };
    int64_t since = 0; /* when the oldest change came that is not durable; 0: none */
    struct device *device = fs->tool.device;
    int most = device->idle ? IDLE_MS : -1;
    while (!fuse_session_exited(session) && !say_interrupted()) {
        int left = since ? (int)MAX(since + SYNC_MS - now_ms(), 0) : most;
        int ready = poll(&wait, 1, most < 0 ? left : MIN(left, most));
        if (!ready && device->idle)
            device->idle(device);
        if (ready > 0) {
            int got = fuse_session_receive_buf(session, &request);
            if (got == -EINTR || got == -EAGAIN)
                continue;
            if (got <= 0)
                break;
            fuse_session_process_buf(session, &request);
        }
        if (fs->dirty && !since)
            since = now_ms();
        if (since && now_ms() >= since + SYNC_MS) {
            enum status status = csv_sync(fs->tool.volume);
            if (status)
                say_error("%s: changes could not be made durable: %s", fs->tool.device->name, say_status(status));
            fs->dirty = false;
            since = 0;
        }
    }
    free(request.mem);
}

/* What to tell whoever waits, once the directory is mounted. */
static void tell_ready(int pipe_fd)
{
    int null = pipe_fd < 0 ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    say_to_syslog();
    setsid();
    if (chdir("/") || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
        say_note("%s", strerror(errno));
    close(null);
    if (write(pipe_fd, "", 1) != 1)
        say_note("%s", strerror(errno));
    close(pipe_fd);
}

/* A comma ends an option of FUSE's. */
static void fuse_name(const char *name, char *text, size_t bytes)
{
    size_t at = 0;
    for (; *name && at + 3 < bytes; name++) {
        if (*name == ',' || *name == '\\')
            text[at++] = '\\';
        text[at++] = *name;
    }
    text[at] = 0;
}

static int run(struct fs *fs, const struct invocation *call, const char *directory, int pipe_fd)
{
    struct fuse_lowlevel_ops operations = { 0 };
    char program[] = "tasuki-csv", flag[] = "-o", name[sizeof(fs->tool.device->name) * 2], options[sizeof(name) + 128];
    char *argument[] = { program, flag, options, NULL };
    struct fuse_args arguments = FUSE_ARGS_INIT(3, argument);
    int result = EXIT_FAILED;
    fuse_name(fs->tool.device->name, name, sizeof(name));
    snprintf(options, sizeof(options), "fsname=%s,subtype=tasuki-csv,default_permissions%s%s", name,
             fs->read_only ? ",ro" : "", call->options->allow_other ? ",allow_other" : "");
    fs->root.inode = csv_root(fs->tool.volume);
    fs_nodes_operations(&operations);
    fs_names_operations(&operations);
    fs_files_operations(&operations);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof(operations), fs);
    if (session && !fuse_session_mount(session, directory)) {
        tell_ready(pipe_fd);
        serve(fs, session);
        fuse_session_unmount(session);
        fs_files_close(fs);
        fs_nodes_free(fs);
        result = EXIT_DONE;
    } else {
        say_error("%s: cannot be mounted on: is FUSE there (/dev/fuse, fusermount3), and may this user mount there%s?",
                  directory, call->options->allow_other ? ", with user_allow_other in /etc/fuse.conf" : "");
    }
    if (session)
        fuse_session_destroy(session);
    fuse_opt_free_args(&arguments);
    return result;
}

static int mount_and_run(const struct invocation *call, const char *directory, int pipe_fd)
{
    struct fs fs = { .read_only = call->options->read_only };
    if (!tool_open(&fs.tool, call, fs.read_only))
        return EXIT_FAILED;
    int result = run(&fs, call, directory, pipe_fd);
    return tool_close(&fs.tool) ? result : EXIT_FAILED;
}

/* ---- In the background ---- */

static int in_background(const struct invocation *call, const char *directory)
{
    int ends[2], status;
    char word;
    if (pipe2(ends, O_CLOEXEC)) {
        say_error("%s: cannot be mounted: %s", directory, strerror(errno));
        return EXIT_FAILED;
    }
    pid_t child = fork();
    if (child < 0) {
        say_error("%s: cannot be mounted: %s", directory, strerror(errno));
        return EXIT_FAILED;
    }
    if (!child) {
        close(ends[0]);
        exit(mount_and_run(call, directory, ends[1]));
    }
    close(ends[1]);
    ssize_t got;
    do
        got = read(ends[0], &word, 1);
    while (got < 0 && errno == EINTR && !say_interrupted());
    close(ends[0]);
    if (got == 1)
        return EXIT_DONE;
    if (say_interrupted())
        kill(child, SIGTERM);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status)
                                                                                           : EXIT_FAILED;
}

int command_mount(const struct invocation *call)
{
    struct stat stat_of;
    char *directory = realpath(call->argument[0], NULL);
    if (!directory || stat(directory, &stat_of) || !S_ISDIR(stat_of.st_mode)) {
        say_error("%s: no directory to mount on: %s", call->argument[0],
                  directory           ? "it is something else"
                  : errno == ENOTCONN ? "a mount whose program has ended is still there; fusermount3 -u takes it away"
                                      : strerror(errno));
        free(directory);
        return EXIT_FAILED;
    }
    int result = call->options->foreground ? mount_and_run(call, directory, -1) : in_background(call, directory);
    free(directory);
    return result;
}
