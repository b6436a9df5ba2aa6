/* SPDX-License-Identifier: MIT */
/* Power-off and reset of the node, by UEFI runtime services (so there is no AML interpreter). */
#ifndef KERNEL_POWER_H
#define KERNEL_POWER_H

#include "boot/boot_info.h"
#include "kernel/types.h"

/* Keeps what is needed of boot_info; builds the identity map that runtime services run in. */
void power_init(const struct boot_info *info);
/* Stops all CPUs' guests is the caller's business; these do not return. */
NORETURN void power_reboot(void);
NORETURN void power_off(void);
/* From a panic: no locks, no services but the last resort ones. */
NORETURN void power_reset_now(void);

#endif
