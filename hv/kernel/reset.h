/* SPDX-License-Identifier: MIT */
/* Restarting the machine without its firmware's services: one means after the other, until one works. */
#ifndef KERNEL_RESET_H
#define KERNEL_RESET_H

#include "kernel/types.h"

/* Maps ACPI's reset register where it lies in memory. Boot CPU, once, after acpi_init and vmap_init. */
void reset_init(void);
/* Brings the chipset to where its firmware can start from. Right before a reset of any kind, the firmware's own included. */
void reset_prepare(void);
/*
 * Tries ACPI's reset register, the chipset's reset port, the keyboard controller and a triple fault, and gives each half a
 * second. `log`: each that is tried is logged (false: from a panic, no lock is taken). Any context.
 */
NORETURN void reset_machine(bool log);

#endif
