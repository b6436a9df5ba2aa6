/* SPDX-License-Identifier: MIT */
/* Power-off and reset of the node: by UEFI runtime services, so there is no AML interpreter; a reset also without them. */
#ifndef KERNEL_POWER_H
#define KERNEL_POWER_H

#include "boot/boot_info.h"
#include "kernel/types.h"

/* Keeps what is needed of boot_info; builds the identity map that runtime services run in. After acpi_init. */
void power_init(const struct boot_info *info);
/*
 * Stopping all CPUs' guests is the caller's business. Threads of the boot CPU, interrupts on. Where the node cannot be
 * switched off, that is logged and it stands still.
 */
NORETURN void power_reboot(void);
NORETURN void power_off(void);
/* From a panic: no locks, no services of the firmware. */
NORETURN void power_reset_now(void);

#endif
