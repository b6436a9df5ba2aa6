/* SPDX-License-Identifier: MIT */
/* The end of the hypervisor. See panic.c for what happens in which order. */
#ifndef KERNEL_PANIC_H
#define KERNEL_PANIC_H

#include "kernel/trap.h"
#include "kernel/types.h"

/* panic() with the registers of a trap. */
NORETURN void panic_frame(const struct trap_frame *frame, const char *format, ...) PRINTF_LIKE(2, 3);

/* Called on every NMI: does not return if another CPU panics. */
void panic_nmi(const struct trap_frame *frame);

/* What to do after the report: reset (true) or wait for a person (false). From the configuration. */
void panic_set_reset(bool reset);

/* Runs first in a panic, on the panicking CPU, all others stopped: stops guests from being entered again. */
void panic_set_hook(void (*hook)(void));

#endif
