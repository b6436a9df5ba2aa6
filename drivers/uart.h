/* SPDX-License-Identifier: MIT */
/* The host's serial port: a 16550 at a legacy port. It carries the log and the admin shell. */
#ifndef DRIVERS_UART_H
#define DRIVERS_UART_H

#include "kernel/types.h"

/*
 * 115200 8N1, FIFO on. false: nothing answers there, and the port that was in use, if any, stays. Port 0: none from now
 * on. No other CPU may be writing.
 */
bool uart_init(uint16_t port);
/*
 * Writes all of it, waiting for the FIFO where it must. Returns how much was written: less than all where the line has not
 * moved for long (somebody holds it, or it is dead); without a port all, which goes nowhere. Any context; own lock.
 */
size_t uart_write(const void *bytes, size_t count);
/* As much as the port takes at once: up to its FIFO if that is empty, else nothing. Without a port all. Any context; own lock. */
size_t uart_write_some(const void *bytes, size_t count);
/* As uart_write without the lock, for panic. */
size_t uart_write_unlocked(const void *bytes, size_t count);
/* What has arrived, up to count bytes. One reader. */
size_t uart_read(void *bytes, size_t count);
/* Waits until the last byte has left the port: before it loses its power. Bounded; any context. */
void uart_drain(void);
/* True if uart_read would return something. */
bool uart_pending(void);
/*
 * Has the port interrupt this CPU when a byte arrives: arrived() then runs there, with interrupts off; the byte is in
 * the ring already. false: its interrupt cannot be routed, so it has to be polled. Again after each uart_init.
 */
bool uart_listen(void (*arrived)(void)) MUST_CHECK;

#endif
