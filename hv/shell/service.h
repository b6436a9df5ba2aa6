/* SPDX-License-Identifier: MIT */
/* The shell on the serial port: the thread that joins line editor, commands and port. */
#ifndef SHELL_SERVICE_H
#define SHELL_SERVICE_H

#include "kernel/status.h"
#include "kernel/types.h"

/* Starts the thread on CPU 0. `node_name` must stay. */
enum status shell_service_start(const char *node_name) MUST_CHECK;

/*
 * For a command that takes the terminal over (a VM's console): waits until a key comes or `deadline_ns` (host time), and
 * returns the bytes read. On the shell's thread.
 */
size_t shell_terminal_read(void *bytes, size_t count, uint64_t deadline_ns);
/* Raw bytes to the terminal. Returns how many it took: less than all where the line does not move. */
size_t shell_terminal_write(const void *bytes, size_t count);

#endif
