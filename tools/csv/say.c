/* SPDX-License-Identifier: MIT */
/*
 * Words for people. Messages go to standard error, one line each; a mount in the background has none, and uses the
 * system's log. The progress bar draws over itself ten times a second at most, and takes itself away before a message
 * and at its end, so that what is left on the screen reads as if it had never been there.
 */
#include "say.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "kernel/text.h"

static bool to_syslog;
static volatile sig_atomic_t interrupted;

static struct {
    bool shown;
    const char *what;
    uint64_t total, done;
    int64_t began_ms, drawn_ms;
} bar;

static void bar_hide(void)
{
    if (bar.shown && bar.drawn_ms)
        fputs("\r\033[K", stderr);
}

static void say(int priority, const char *format, va_list arguments)
{
    char text[1024];
    vsnprintf(text, sizeof(text), format, arguments);
    if (to_syslog) {
        syslog(priority, "%s", text);
        return;
    }
    bar_hide();
    fprintf(stderr, "tasuki-csv: %s\n", text);
}

void say_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(LOG_ERR, format, arguments);
    va_end(arguments);
}

void say_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(LOG_NOTICE, format, arguments);
    va_end(arguments);
}

void say_to_syslog(void)
{
    openlog("tasuki-csv", LOG_PID, LOG_DAEMON);
    to_syslog = true;
}

const char *say_status(enum status status)
{
    switch (status) {
    case OK:
        return "done";
    case ERR_NO_MEMORY:
        return "memory is used up; end other programs and try again";
    case ERR_INVALID:
        return "not possible: a name is not one (1 to 255 bytes of UTF-8, no control characters), or a file stands "
               "where a directory is needed, or the other way round";
    case ERR_RANGE:
        return "too large: a file has at most 64 TiB";
    case ERR_NOT_FOUND:
        return "not there; `ls` shows what is";
    case ERR_EXISTS:
        return "there already; remove it first, or take another name";
    case ERR_BUSY:
        return "in use; end what uses it";
    case ERR_UNSUPPORTED:
    case ERR_VERSION:
        return "this program is too old for it; use a newer one";
    case ERR_CORRUPT:
        return "the volume is damaged; run `fsck`";
    case ERR_IO:
        return "the disk failed, as said before; mend that and try again";
    case ERR_NO_SPACE:
        return "the volume is full; `df` shows its room, remove what is not needed";
    case ERR_READ_ONLY:
        return "the volume takes no changes: it is open for reading only, or its disk has failed";
    case ERR_NOT_EMPTY:
        return "the directory has entries; remove them first, or use `rm -r`";
    case ERR_FENCED:
        return "another host has taken the disk over; see who that is before trying again";
    case ERR_CANCELLED:
        return "interrupted; nothing was changed";
    case ERR_TRUNCATED:
    case ERR_TIMEOUT:
        break;
    }
    return status_name(status);
}

const char *say_text(const char *from, char *text, size_t bytes)
{
    size_t at = 0, left = strlen(from);
    while (left && at + 4 < bytes) {
        uint32_t code;
        unsigned length = utf8_decode(from, left, &code);
        bool shown = length && code >= 32 && (code < 127 || code >= 160);
        length = length ? length : 1;
        if (shown)
            memcpy(text + at, from, length);
        else
            text[at] = '?';
        at += shown ? length : 1;
        from += length;
        left -= length;
    }
    text[at] = 0;
    return text;
}

const char *say_size(uint64_t bytes, char text[SAY_SIZE_BYTES])
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    unsigned step = 0;
    uint64_t tenths = bytes * 10;
    if (bytes < 1024) {
        snprintf(text, SAY_SIZE_BYTES, "%" PRIu64 " B", bytes);
        return text;
    }
    for (; tenths >= 10240 && step + 1 < ARRAY_COUNT(unit); step++)
        tenths = (tenths + 512) / 1024;
    snprintf(text, SAY_SIZE_BYTES, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, unit[step]);
    return text;
}

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

bool say_interrupted(void)
{
    return interrupted;
}

void say_catch_interrupts(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* ---- The bar ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void bar_draw(void)
{
    char done[SAY_SIZE_BYTES], rate[SAY_SIZE_BYTES];
    int64_t now = now_ms(), took = MAX(now - bar.began_ms, 1);
    if (bar.drawn_ms && now - bar.drawn_ms < 100)
        return;
    bar.drawn_ms = now;
    say_size(bar.done, done);
    say_size((uint64_t)((double)bar.done * 1000 / (double)took), rate);
    if (bar.total) {
        char cells[31];
        double part = bar.done >= bar.total ? 1 : (double)bar.done / (double)bar.total;
        unsigned filled = (unsigned)(part * 30);
        memset(cells, '.', 30);
        memset(cells, '#', filled);
        cells[30] = 0;
        fprintf(stderr, "\r\033[K%.40s [%s] %3.0f %%  %s  %s/s", bar.what, cells, part * 100, done, rate);
    } else {
        fprintf(stderr, "\r\033[K%.40s  %s  %s/s", bar.what, done, rate);
    }
    fflush(stderr);
}

void progress_begin(const char *what, uint64_t total, bool wanted)
{
    const char *name = strrchr(what, '/');
    memset(&bar, 0, sizeof(bar));
    bar.shown = wanted && isatty(STDERR_FILENO);
    bar.what = name && name[1] ? name + 1 : what;
    bar.total = total;
    bar.began_ms = now_ms();
}

void progress_step(uint64_t done)
{
    bar.done = done;
    if (bar.shown)
        bar_draw();
}

void progress_end(void)
{
    bar_hide();
    bar.shown = false;
}
