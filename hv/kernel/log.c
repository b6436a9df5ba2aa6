/* SPDX-License-Identifier: MIT */
/*
 * The log. A ring of fixed-size entries that never allocates and can be written from any context; the console gets each
 * line as it is written, or, where the terminal is in the middle of a line, as soon as that has ended. The lock is taken
 * with interrupts off; panic reads the ring without it.
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
#define LINES_AT_ONCE 2
#define LOG_LINE_BYTES (sizeof ((struct log_entry *)0)->text + 40)

static struct log_entry ring[LOG_ENTRIES];
static uint64_t next_sequence;
static struct spinlock log_lock = SPINLOCK_INIT("log");
static enum log_level console_level = LOG_INFO;
static uint64_t console_sequence; /* what is before it has been on the serial port, or is not meant for it */
static uint64_t waiting;          /* entries from there on that are meant for it */
static uint64_t lost;             /* entries that were, and were overwritten before */
static bool (*hide_hook)(void);
static void (*show_hook)(void);
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

void log_set_console_hooks(bool (*hide)(void), void (*show)(void))
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

/* An entry as the consoles show it, with its newline; how many bytes. */
static size_t format_entry(const struct log_entry *entry, char line[LOG_LINE_BYTES])
{
    int count = snprintf(line, LOG_LINE_BYTES, "[%5lu.%06lu] %s%s\r\n", entry->time_ns / NS_PER_S,
                         entry->time_ns % NS_PER_S / 1000,
                         entry->level == LOG_ERROR     ? "error: "
                         : entry->level == LOG_WARNING ? "warning: "
                                                       : "",
                         entry->text);
    return MIN((size_t)count, LOG_LINE_BYTES - 1u);
}

/* The oldest line that waits, or what tells that some are lost; false: none waits. With the lock and the terminal. */
static bool print_one(void)
{
    char line[LOG_LINE_BYTES];

    if (lost) {
        int count = snprintf(line, sizeof line, "[log: lines left out here: %lu]\r\n", lost);
        (void)uart_write(line, (size_t)count);
        lost = 0;
        return true;
    }
    for (; console_sequence < next_sequence; console_sequence++) {
        const struct log_entry *entry = &ring[console_sequence % LOG_ENTRIES];
        if (!entry->console)
            continue;
        (void)uart_write(line, format_entry(entry, line));
        waiting--;
        console_sequence++;
        return true;
    }
    return false;
}

/*
 * At most `most` of the lines that wait, if they may go out now; whether some still wait and may. A line takes up to 25 ms
 * at 115200 baud, with interrupts off and every CPU that logs behind it: so a caller of log_line() prints two of those that
 * waited at most, and whoever kept them waiting prints the rest one by one.
 */
static bool print_waiting(unsigned most)
{
    if (!waiting && !lost)
        return false;
    if (hide_hook && !hide_hook())
        return false;
    while (most-- && print_one())
        continue;
    if (show_hook)
        show_hook();
    return waiting || lost;
}

bool log_console_resume(void)
{
    uint64_t flags = spin_lock_irqsave(&log_lock);
    bool more = print_waiting(1);
    spin_unlock_irqrestore(&log_lock, flags);
    return more;
}

void log_console_flush(void)
{
    bool more;

    do {
        uint64_t flags = spin_lock_irqsave(&log_lock);
        more = (waiting || lost) && print_one();
        spin_unlock_irqrestore(&log_lock, flags);
    } while (more);
}

uint64_t log_unprinted(void)
{
    return waiting ? MIN(next_sequence - console_sequence, (uint64_t)LOG_ENTRIES) : 0;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_BYTES];
    va_list args;
    uint64_t now = time_now_ns();
    uint64_t flags = spin_lock_irqsave(&log_lock);
    struct log_entry *entry = &ring[next_sequence % LOG_ENTRIES];

    if (next_sequence - console_sequence == LOG_ENTRIES) {
        if (entry->console) {
            waiting--;
            lost++;
        }
        console_sequence++;
    }
    entry->sequence = next_sequence++;
    entry->time_ns = now;
    entry->level = level;
    entry->console = level >= console_level;
    va_start(args, format);
    vsnprintf(entry->text, sizeof entry->text, format, args);
    va_end(args);
    /* Some of the text comes from guests and peers: nothing that a terminal would obey gets through. */
    for (char *c = entry->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (entry->console) {
        waiting++;
        size_t bytes = format_entry(entry, line);
        for (unsigned i = 0; i < LOG_SINKS && sinks[i]; i++)
            sinks[i](line, bytes);
    }
    (void)print_waiting(LINES_AT_ONCE);
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

const struct log_entry *log_peek(uint64_t back)
{
    if (back >= next_sequence || back >= LOG_ENTRIES)
        return NULL;
    return &ring[(next_sequence - 1 - back) % LOG_ENTRIES];
}
