/* SPDX-License-Identifier: MIT */
/* Bringing CPUs up: kernel/ only. */
#ifndef KERNEL_CPU_SETUP_H
#define KERNEL_CPU_SETUP_H

#include "boot/boot_info.h"
#include "kernel/types.h"

/* CR0, CR4, EFER, PAT and XCR0 of this CPU as cpu_features say. */
void cpu_setup_control(void);

/* True if this CPU has what cpu_features says; on another CPU than the boot CPU. */
bool cpu_same_as_boot(void);

/* Starts every CPU of the list but this one, one after the other; fills cpus[] and cpu_count. */
void smp_start(const struct boot_info *info);
/* Finds out which CPUs are threads of one core: cpus[]->core and its neighbours. After smp_start. */
void smp_find_cores(void);

#endif
