/* SPDX-License-Identifier: MIT */
/*
 * One-shot timers. A timer belongs to the CPU that armed it and fires there, in interrupt context with interrupts off:
 * the function wakes a thread or kicks a vCPU, and no more.
 */
#ifndef KERNEL_TIMER_H
#define KERNEL_TIMER_H

#include "kernel/cpu.h"
#include "kernel/types.h"

struct timer {
    uint64_t deadline_ns;
    void (*fire)(struct timer *timer);
    struct cpu *cpu;      /* armed there; NULL: not armed */
    struct timer *next;
};

static inline void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
    timer->cpu = NULL;
    timer->next = NULL;
    timer->fire = fire;
}

/*
 * (Re)arms on this CPU for time_now_ns() >= deadline_ns; TIME_NEVER only cancels. Any context; but one caller at a time
 * for each timer, which its owner sees to.
 */
void timer_arm(struct timer *timer, uint64_t deadline_ns);
/*
 * After it returns the timer is not armed. If it is firing on another CPU at this moment, waits until that is over, so
 * the memory may be freed then. Not from the timer's own function.
 */
void timer_cancel(struct timer *timer);
/* Each CPU, once: the vector's handler is shared. */
void timer_init_vector(void);

#endif
