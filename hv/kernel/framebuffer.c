/* SPDX-License-Identifier: MIT */
/*
 * The log on the framebuffer. textscreen.c paints; this file finds the pixels, and is the log's sink.
 *
 * The sink runs with the log's lock held and interrupts off, so what it does for one line must be short. It is: a line is
 * painted once and one row is erased (textscreen.h), at most some 100 KiB of write-combined stores on a screen of
 * 3840 x 2160. The log's lock is also what keeps two CPUs from painting at once. Panic paints without it.
 */
#include "kernel/framebuffer.h"

#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/textscreen.h"
#include "kernel/time.h"
#include "kernel/vmap.h"

#define BLACK 0
#define LIGHT_GREY 0x00c8c8c8 /* the same in both byte orders */
#define WHITE 0x00ffffff
#define DARK_RED_RGBX 0x00000070
#define DARK_RED_BGRX 0x00700000
#define FORMAT_RGBX 0

static struct textscreen screen;
static bool usable;
static uint32_t panic_background;
static struct cpu *painter; /* the CPU that paints now, for a panic that comes from painting */

static void write_log(const char *text, size_t count)
{
    __atomic_store_n(&painter, this_cpu(), __ATOMIC_RELAXED);
    textscreen_write(&screen, text, count);
    __atomic_store_n(&painter, NULL, __ATOMIC_RELAXED);
}

static void show_earlier_lines(void)
{
    static struct log_entry entry; /* too large for a stack, and this runs once */
    char line[sizeof entry.text + 40];

    for (uint64_t next = 0; log_read(next, &entry); next = entry.sequence + 1) {
        if (entry.level == LOG_DEBUG)
            continue;
        int count = snprintf(line, sizeof line, "[%5lu.%06lu] %s%s\n", entry.time_ns / NS_PER_S,
                             entry.time_ns % NS_PER_S / 1000,
                             entry.level == LOG_ERROR ? "error: " : entry.level == LOG_WARNING ? "warning: " : "",
                             entry.text);
        textscreen_write(&screen, line, MIN((size_t)count, sizeof line - 1));
    }
}

void framebuffer_init(const struct boot_framebuffer *info)
{
    static const char title[] = "Tasuki. This screen shows the log; the shell is on the serial port.\n\n";

    if (!info->width)
        return;
    /* stride and height are 32 bits wide, so their product in pixels cannot overflow; nor can four times it. */
    uint64_t bytes = (uint64_t)info->stride * info->height;
    if (info->stride < info->width || bytes > info->bytes / sizeof(uint32_t)) {
        log_warning("framebuffer: %u x %u pixels, %u to a line, do not fit into the %lu bytes that the firmware names; "
                    "the screen stays as it is", info->width, info->height, info->stride, info->bytes);
        return;
    }
    bytes *= sizeof(uint32_t);
    volatile uint32_t *pixels = vmap_framebuffer(HPA(info->base), bytes);
    if (!pixels) {
        log_warning("framebuffer: no memory to map it; the screen stays as it is");
        return;
    }
    if (!textscreen_init(&screen, pixels, info->width, info->height, info->stride)) {
        log_warning("framebuffer: %u x %u pixels are too few for text", info->width, info->height);
        return;
    }
    panic_background = info->format == FORMAT_RGBX ? DARK_RED_RGBX : DARK_RED_BGRX;
    textscreen_set_colours(&screen, LIGHT_GREY, BLACK);
    textscreen_clear(&screen);
    textscreen_write(&screen, title, sizeof title - 1);
    show_earlier_lines();
    usable = true;
    log_add_sink(write_log);
    log_info("framebuffer: %u x %u pixels, %u columns and %u rows of text", info->width, info->height, screen.columns,
             screen.rows);
}

bool framebuffer_in_use(void)
{
    return usable;
}

void framebuffer_panic_write(const char *text, size_t count)
{
    static bool cleared, busy;

    /* Where painting itself faulted, painting again would only fault again. */
    if (!usable || busy || __atomic_load_n(&painter, __ATOMIC_RELAXED) == this_cpu())
        return;
    busy = true;
    if (!cleared) {
        cleared = true;
        textscreen_set_colours(&screen, WHITE, panic_background);
        textscreen_clear(&screen);
        textscreen_stop_at_bottom(&screen);
    }
    textscreen_write(&screen, text, count);
    busy = false;
}
