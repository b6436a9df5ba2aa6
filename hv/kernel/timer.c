/* SPDX-License-Identifier: MIT */
/*
 * Timers: one sorted list a CPU, one lock for all lists (arming is rare beside the exits that do not arm; the lists are
 * short: one timer a vCPU and a few of the hypervisor's own). The hardware timer is set to the head of the list.
 */
#include "kernel/timer.h"

#include "kernel/apic.h"
#include "kernel/spinlock.h"
#include "kernel/time.h"
#include "kernel/trap.h"

static struct spinlock timer_lock = SPINLOCK_INIT("timers");
static struct timer *firing[CPU_MAX]; /* by CPU: whose function is running there */

static void unlink_timer(struct timer *timer)
{
    for (struct timer **link = &timer->cpu->timers; *link; link = &(*link)->next) {
        if (*link == timer) {
            *link = timer->next;
            break;
        }
    }
    timer->cpu = NULL;
}

static void arm_hardware(const struct cpu *cpu)
{
    apic_timer_arm(cpu->timers ? time_ns_to_tsc(cpu->timers->deadline_ns) : UINT64_MAX);
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    uint64_t flags = spin_lock_irqsave(&timer_lock);
    struct cpu *cpu = this_cpu();
    const struct timer *old_head = cpu->timers;
    uint64_t old_deadline = old_head ? old_head->deadline_ns : TIME_NEVER;

    if (timer->cpu)
        unlink_timer(timer);
    if (deadline_ns != TIME_NEVER) {
        struct timer **link = &cpu->timers;
        while (*link && (*link)->deadline_ns <= deadline_ns)
            link = &(*link)->next;
        timer->deadline_ns = deadline_ns;
        timer->next = *link;
        timer->cpu = cpu;
        *link = timer;
    }
    if ((cpu->timers ? cpu->timers->deadline_ns : TIME_NEVER) != old_deadline)
        arm_hardware(cpu);
    spin_unlock_irqrestore(&timer_lock, flags);
}

void timer_cancel(struct timer *timer)
{
    for (;;) {
        uint64_t flags = spin_lock_irqsave(&timer_lock);
        bool busy = false;
        if (timer->cpu)
            unlink_timer(timer); /* the hardware may fire once for nothing */
        for (unsigned i = 0; i < CPU_MAX && !busy; i++)
            busy = firing[i] == timer && i != this_cpu()->id;
        spin_unlock_irqrestore(&timer_lock, flags);
        if (!busy)
            return;
        cpu_pause();
    }
}

static void timer_interrupt(void *arg)
{
    (void)arg;
    struct cpu *cpu = this_cpu();

    for (;;) {
        spin_lock(&timer_lock);
        struct timer *timer = cpu->timers;
        if (!timer || timer->deadline_ns > time_now_ns()) {
            firing[cpu->id] = NULL;
            arm_hardware(cpu);
            spin_unlock(&timer_lock);
            return;
        }
        cpu->timers = timer->next;
        timer->cpu = NULL;
        firing[cpu->id] = timer;
        spin_unlock(&timer_lock);
        timer->fire(timer);
    }
}

void timer_init_vector(void)
{
    trap_set_handler(VECTOR_TIMER, timer_interrupt, NULL);
}
