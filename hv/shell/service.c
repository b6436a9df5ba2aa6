/* SPDX-License-Identifier: MIT */
/*
 * The shell's thread. It sleeps until the serial port has something (by its interrupt; polled where that cannot be
 * routed), feeds the line editor, and runs the line that comes out.
 *
 * A log line that comes while the admin types is printed above the line: the log calls the hooks below with its lock
 * held, from any CPU. While a command is in the middle of a line of its output, log lines wait until that line is out, so
 * that neither cuts the other. `screen_lock` keeps log, editor and commands apart; whoever holds it never logs.
 */
#include "shell/service.h"

#include <stdio.h>
#include <string.h>

#include "drivers/uart.h"
#include "kernel/log.h"
#include "kernel/spinlock.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "shell/command.h"
#include "shell/line.h"
#include "shell/tables.h"
#include "vm/vm.h"

#define POLL_NS (1 * NS_PER_MS) /* less than the port's FIFO takes to fill */
#define CHECK_NS (250 * NS_PER_MS) /* with interrupts: only in case that one is lost */
#define TERMINAL_COLUMNS 80
#define YIELD_NS (1 * NS_PER_MS)
#define FIFO_SLEEP_NS (NS_PER_MS / 5) /* a full FIFO takes 1.4 ms at 115200 baud */
#define STALL_SLEEPS 10000 /* 2 s at least: a listener on a busy machine is slow, not gone */

static struct spinlock screen_lock = SPINLOCK_INIT("screen");
static struct line line;
static struct shell shell;
static bool editing;
static bool in_a_line;     /* a command's line is on its way out: log lines wait */
static bool at_line_start = true; /* of the terminal, after what commands and consoles wrote; changed while in_a_line */
static struct wait_queue keys = WAIT_QUEUE_INIT("keys");
static bool interrupts; /* the port interrupts when a byte arrives */

static const struct command *const tables[] = { node_commands, cpu_commands, memory_commands, log_commands, config_commands,
                                                thread_commands, net_commands, pci_commands, storage_commands, volume_commands,
                                                vm_commands, vm_settings_commands, help_commands, NULL };

/*
 * Bytes as they are, for commands and consoles: at the line's pace, without keeping this CPU. While the port's FIFO empties
 * the thread sleeps; where the line is quick it yields each millisecond, not after each piece, for the turn of a guest that
 * gets the CPU then is many times as long as a piece. Stops where the line does not move for STALL_SLEEPS, and then waits no
 * more until it does.
 */
static size_t write_slowly(const void *bytes, size_t count)
{
    static bool stalled;
    const char *from = bytes;
    uint64_t begin = time_now_ns();
    unsigned sleeps = 0;
    size_t done = 0;

    while (done < count && sleeps < (stalled ? 1 : STALL_SLEEPS)) {
        size_t taken = uart_write_some(from + done, count - done);
        done += taken;
        if (!taken) {
            sleeps++;
            thread_sleep_ns(FIFO_SLEEP_NS);
            begin = time_now_ns();
            continue;
        }
        sleeps = 0;
        stalled = false;
        if (time_now_ns() - begin > YIELD_NS) {
            thread_yield();
            begin = time_now_ns();
        }
    }
    stalled = done < count;
    if (done)
        at_line_start = from[done - 1] == '\n';
    return done;
}

/* Log lines wait from here on. */
static void begin_line(void)
{
    uint64_t flags = spin_lock_irqsave(&screen_lock);
    in_a_line = true;
    spin_unlock_irqrestore(&screen_lock, flags);
}

/* Log lines that waited are printed now. */
static void end_line(void)
{
    uint64_t flags = spin_lock_irqsave(&screen_lock);
    in_a_line = false;
    spin_unlock_irqrestore(&screen_lock, flags);
    while (log_console_resume())
        thread_yield();
}

size_t shell_terminal_write(const void *bytes, size_t count)
{
    size_t done;

    begin_line();
    done = write_slowly(bytes, count);
    end_line();
    return done;
}

/* Text with lines ended by \n, to a writer that wants \r\n. */
static void write_lines(const char *text, size_t count, size_t (*write)(const void *bytes, size_t count))
{
    while (count) {
        const char *newline = memchr(text, '\n', count);
        size_t piece = newline ? (size_t)(newline - text) : count;
        (void)write(text, piece);
        if (newline) {
            (void)write("\r\n", 2);
            piece++;
        }
        text += piece;
        count -= piece;
    }
}

/* A piece of a line, or its end; log lines wait from the first piece to the end. */
static size_t write_piece(const void *bytes, size_t count)
{
    size_t done;

    begin_line();
    done = write_slowly(bytes, count);
    if (count && ((const char *)bytes)[count - 1] == '\n')
        end_line();
    return done;
}

/* For commands, which write a line in several pieces. */
static void sink_write_command(void *context, const char *bytes, size_t count)
{
    (void)context;
    write_lines(bytes, count, write_piece);
}

/* For the line editor, which is called with screen_lock held: short, and without a wait. */
static void sink_write_editor(void *context, const char *bytes, size_t count)
{
    (void)context;
    write_lines(bytes, count, uart_write);
}

static const struct sink terminal = { sink_write_editor, NULL };
static const struct sink command_output = { sink_write_command, NULL };

/* The log has switched interrupts off. */
static bool hide_line(void)
{
    spin_lock(&screen_lock);
    if (in_a_line) {
        spin_unlock(&screen_lock);
        return false;
    }
    if (editing)
        line_hide(&line);
    else if (!at_line_start)
        (void)uart_write("\r\n", 2);
    at_line_start = true;
    return true;
}

static void show_line(void)
{
    if (editing)
        line_show(&line);
    spin_unlock(&screen_lock);
}

static void key_arrived(void)
{
    wake_all(&keys);
}

size_t shell_terminal_read(void *bytes, size_t count, uint64_t deadline_ns)
{
    for (;;) {
        size_t got = uart_read(bytes, count);
        uint64_t now = time_now_ns();
        if (got || now >= deadline_ns)
            return got;
        (void)wait_event_until(&keys, uart_pending(), MIN(now + (interrupts ? CHECK_NS : POLL_NS), deadline_ns));
    }
}

static void start_line(void)
{
    char prompt[LINE_PROMPT_BYTES];

    shell_prompt(&shell, prompt, sizeof prompt);
    uint64_t flags = spin_lock_irqsave(&screen_lock);
    line_start(&line, prompt);
    editing = true;
    spin_unlock_irqrestore(&screen_lock, flags);
}

/* What an admin who sees this for the first time needs to know; the VM is one that there is. */
static void greet(const char *node_name)
{
    char text[240];
    struct vm_info info;

    snprintf(text, sizeof text, "\nThis is the shell of node \"%s\". `help` lists the commands.\n", node_name);
    sink_puts(&terminal, text);
    if (vm_info_get(0, &info)) {
        snprintf(text, sizeof text, "`vm console %s` shows the console of a VM; Ctrl-] leaves it.\n", info.name);
        sink_puts(&terminal, text);
    }
    sink_puts(&terminal, "\n");
}

static void shell_thread(void *arg)
{
    uint8_t byte;

    interrupts = uart_listen(key_arrived);
    greet(arg);
    start_line();
    for (;;) {
        /* A key at a time: what was typed ahead belongs to the command that this line starts. */
        (void)shell_terminal_read(&byte, 1, TIME_NEVER);
        uint64_t flags = spin_lock_irqsave(&screen_lock);
        enum line_result result = line_feed(&line, byte);
        editing = result == LINE_MORE;
        spin_unlock_irqrestore(&screen_lock, flags);
        if (result == LINE_MORE)
            continue;
        if (result == LINE_DONE)
            shell_run(&shell, line.text);
        end_line(); /* what a command left unended must not keep the log waiting */
        start_line();
    }
}

enum status shell_service_start(const char *node_name)
{
    shell_init(&shell, &command_output, tables, node_name, NULL);
    line_init(&line, &terminal, TERMINAL_COLUMNS, shell_complete, &shell);
    log_set_console_hooks(hide_line, show_line);
    return thread_create("shell", 0, shell_thread, (void *)(uintptr_t)node_name) ? OK : ERR_NO_MEMORY;
}
