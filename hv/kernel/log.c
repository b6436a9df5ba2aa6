/* SPDX-License-Identifier: MIT */
/*
 * The log. A ring of fixed-size entries that never allocates and can be written from any context; the console gets each
 * line as it is written. The lock is taken with interrupts off; panic reads the ring without it.
 */
#include "kernel/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "drivers/uart.h"
#include "kernel/spinlock.h"
#include "kernel/time.h"

#define LOG_ENTRIES 1024
#define LOG_SINKS 2

static struct log_entry ring[LOG_ENTRIES];
static uint64_t next_sequence;
static struct spinlock log_lock = SPINLOCK_INIT("log");
static enum log_level console_level = LOG_INFO;
static void (*hide_hook)(void), (*show_hook)(void);
static void (*sinks[LOG_SINKS])(const char *text, size_t count);

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = { "debug", "info", "warning", "error" };
    return names[level];
}

void log_set_console_level(enum log_level level)
{
    console_level = level;
}

void log_set_console_hooks(void (*hide)(void), void (*show)(void))
{
    uint64_t flags = spin_lock_irqsave(&log_lock);
    hide_hook = hide;
    show_hook = show;
    spin_unlock_irqrestore(&log_lock, flags);
}

void log_add_sink(void (*write)(const char *text, size_t count))
{
    for (unsigned i = 0; i < LOG_SINKS; i++) {
        if (!sinks[i]) {
            sinks[i] = write;
            return;
        }
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[sizeof ring[0].text + 40];
    va_list args;
    uint64_t now = time_now_ns();
    uint64_t flags = spin_lock_irqsave(&log_lock);
    struct log_entry *entry = &ring[next_sequence % LOG_ENTRIES];

    entry->sequence = next_sequence++;
    entry->time_ns = now;
    entry->level = level;
    va_start(args, format);
    vsnprintf(entry->text, sizeof entry->text, format, args);
    va_end(args);
    /* Some of the text comes from guests and peers: nothing that a terminal would obey gets through. */
    for (char *c = entry->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (level >= console_level) {
        int count = snprintf(line, sizeof line, "[%5lu.%06lu] %s%s\r\n", now / NS_PER_S, now % NS_PER_S / 1000,
                             level == LOG_ERROR ? "error: " : level == LOG_WARNING ? "warning: " : "", entry->text);
        size_t bytes = MIN((size_t)count, sizeof line - 1);
        if (hide_hook)
            hide_hook();
        uart_write(line, bytes);
        for (unsigned i = 0; i < LOG_SINKS && sinks[i]; i++)
            sinks[i](line, bytes);
        if (show_hook)
            show_hook();
    }
    spin_unlock_irqrestore(&log_lock, flags);
}

bool log_read(uint64_t sequence, struct log_entry *entry)
{
    uint64_t flags = spin_lock_irqsave(&log_lock);
    uint64_t oldest = next_sequence > LOG_ENTRIES ? next_sequence - LOG_ENTRIES : 0;
    bool found;

    if (sequence < oldest)
        sequence = oldest;
    found = sequence < next_sequence;
    if (found)
        *entry = ring[sequence % LOG_ENTRIES];
    spin_unlock_irqrestore(&log_lock, flags);
    return found;
}

uint64_t log_next_sequence(void)
{
    return __atomic_load_n(&next_sequence, __ATOMIC_ACQUIRE);
}

const struct log_entry *log_peek(uint64_t back);
/* For panic: the entry `back` lines ago, without the lock; NULL if there is none. */
const struct log_entry *log_peek(uint64_t back)
{
    if (back >= next_sequence || back >= LOG_ENTRIES)
        return NULL;
    return &ring[(next_sequence - 1 - back) % LOG_ENTRIES];
}
