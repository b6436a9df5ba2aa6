/* SPDX-License-Identifier: MIT */
/* The host's local APIC (xAPIC page or x2APIC MSRs), IPIs and the one-shot timer; SDM vol. 3A, chapter 11. */
#ifndef KERNEL_APIC_H
#define KERNEL_APIC_H

#include "kernel/types.h"

/* Boot CPU: finds the mode and maps the page. */
void apic_init(uint64_t page_hpa);
/* Each CPU: software enable, all LVTs masked, timer in its mode. */
void apic_cpu_init(void);
uint32_t apic_id(void);
void apic_eoi(void);
void apic_ipi(uint32_t apic_id, uint8_t vector);
void apic_ipi_nmi_others(void);
/* INIT, then STARTUP twice, at page `page_hpa` below 1 MiB. */
void apic_start_cpu(uint32_t apic_id, uint64_t page_hpa);
/* Arms this CPU's timer for a TSC value (in the past: as soon as possible); UINT64_MAX switches it off. */
void apic_timer_arm(uint64_t tsc);
/* Boot CPU, once, after time_init and apic_cpu_init: counts the timer against the TSC where TSC deadlines do not serve. */
void apic_timer_calibrate(void);

#endif
