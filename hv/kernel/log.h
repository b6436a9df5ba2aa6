/* SPDX-License-Identifier: MIT */
/* The log: lines with a level and a time in a ring, printed on the serial port and the framebuffer as they come. */
#ifndef KERNEL_LOG_H
#define KERNEL_LOG_H

#include "kernel/types.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/*
 * Logs one line (no newline at its end; longer than 240 bytes is cut). Any context, interrupt handlers included.
 * Say the object first: "vm demo: ...". Secrets never go here.
 */
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

/* Lines below this level stay in the ring only. */
void log_set_console_level(enum log_level level);
/*
 * The console takes turns: while the admin types, a log line is printed above the line that is being edited. `hide` is
 * called before lines are printed and may refuse (false) while the terminal is in the middle of a line: the lines then
 * wait in the ring for log_console_resume(). `show` is called after them, where hide did not refuse. Both run with the
 * log lock held and interrupts off; they must not log.
 */
void log_set_console_hooks(bool (*hide)(void), void (*show)(void));
/*
 * Prints one of the lines that wait; true: there are more. Called until it is false by whoever made `hide` refuse, soon
 * after, with interrupts on and without a lock.
 */
bool log_console_resume(void);
/* Before the node is switched off or reset: prints what waits without asking. Any context. */
void log_console_flush(void);
/* For panic: how many of the newest entries have not been on the serial port, without the lock. */
uint64_t log_unprinted(void);
/* Another place for log lines (the framebuffer). Called with the log lock held, whole lines with their newline. */
void log_add_sink(void (*write)(const char *text, size_t count));

struct log_entry {
    uint64_t sequence; /* counts from 0 */
    uint64_t time_ns;  /* time_now_ns() */
    enum log_level level;
    bool console; /* meant for the serial port */
    char text[243];
};
/* Copies the entry with that sequence number, or the oldest that is still there after it; false if there is none. */
bool log_read(uint64_t sequence, struct log_entry *entry);
uint64_t log_next_sequence(void);
const char *log_level_name(enum log_level level);
/* For panic: the entry `back` lines ago, without the lock; NULL if there is none. */
const struct log_entry *log_peek(uint64_t back);

/* The hypervisor's own fault: registers, backtrace, last log lines; all CPUs stop. Never for a guest's or peer's fault. */
NORETURN void panic(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
