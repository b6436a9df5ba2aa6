/* SPDX-License-Identifier: MIT */
/* The log on the firmware's framebuffer, for machines that have a screen. The shell is on the serial port only. */
#ifndef KERNEL_FRAMEBUFFER_H
#define KERNEL_FRAMEBUFFER_H

#include "boot/boot_info.h"
#include "kernel/types.h"

/*
 * Shows the log on the framebuffer from now on, the lines that were logged before first. Does nothing where there is
 * none; logs why where there is one that cannot be used. Boot CPU, once, after vmap_init and trap_init, before other
 * CPUs run (a line that they log meanwhile could be missed or shown twice).
 */
void framebuffer_init(const struct boot_framebuffer *info);

/*
 * For panic, when all other CPUs have been told to stop: takes no lock. The first call clears the screen, so that the
 * report begins at its top; what does not fit is dropped, so that its beginning, which says why, stays.
 */
void framebuffer_panic_write(const char *text, size_t count);

/* True if a panic report is seen by whoever looks at the screen. */
bool framebuffer_in_use(void);

#endif
