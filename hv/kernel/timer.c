/* SPDX-License-Identifier: MIT */
/*
 * Timers: one sorted list a CPU, with a lock of its own (the lists are short: one timer a vCPU and a few of the
 * hypervisor's own). The hardware timer is set to the head of the list.
 *
 * timer->cpu says on whose list a timer is, and changes under that list's lock only. Mostly the CPU that arms a timer is
 * the one that has it, and then CPUs do not meet here at all. A CPU sets its own hardware timer, with interrupts off, once
 * it has let go of the lock: the access may take long where the machine is emulated, and nobody should spin meanwhile.
 * Another CPU that takes the head away leaves the hardware as it is: it fires for nothing then.
 */
#include "kernel/timer.h"

#include "kernel/apic.h"
#include "kernel/time.h"
#include "kernel/trap.h"

static struct timer *firing[CPU_MAX]; /* by CPU: whose function is running there */

/* The list that the timer is on is locked. */
static void unlink_timer(struct timer *timer)
{
    for (struct timer **link = &timer->cpu->timers; *link; link = &(*link)->next) {
        if (*link == timer) {
            *link = timer->next;
            break;
        }
    }
    __atomic_store_n(&timer->cpu, NULL, __ATOMIC_RELEASE);
}

/* Takes the timer off the list that it is on. Interrupts off, no list locked. */
static void remove_timer(struct timer *timer)
{
    struct cpu *cpu;

    while ((cpu = __atomic_load_n(&timer->cpu, __ATOMIC_ACQUIRE))) {
        spin_lock(&cpu->timers_lock);
        if (timer->cpu == cpu) /* it has not fired meanwhile */
            unlink_timer(timer);
        spin_unlock(&cpu->timers_lock);
    }
}

static uint64_t next_deadline(const struct cpu *cpu)
{
    return cpu->timers ? cpu->timers->deadline_ns : TIME_NEVER;
}

static void arm_hardware(uint64_t deadline_ns)
{
    apic_timer_arm(time_ns_to_tsc(deadline_ns));
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    uint64_t flags = irq_save();
    struct cpu *cpu = this_cpu(), *armed = __atomic_load_n(&timer->cpu, __ATOMIC_ACQUIRE);

    /* As it is: nobody else arms this timer, and where it is armed here it does not fire meanwhile. */
    if (armed ? armed == cpu && timer->deadline_ns == deadline_ns : deadline_ns == TIME_NEVER) {
        irq_restore(flags);
        return;
    }
    if (armed != cpu)
        remove_timer(timer);
    spin_lock(&cpu->timers_lock);
    uint64_t old = next_deadline(cpu);
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
    uint64_t now = next_deadline(cpu);
    spin_unlock(&cpu->timers_lock);
    if (now != old)
        arm_hardware(now);
    irq_restore(flags);
}

void timer_cancel(struct timer *timer)
{
    for (;;) {
        uint64_t flags = irq_save();
        bool busy = false;
        remove_timer(timer); /* the hardware may fire once for nothing */
        for (unsigned i = 0; i < cpu_count && !busy; i++)
            busy = __atomic_load_n(&firing[i], __ATOMIC_ACQUIRE) == timer && i != this_cpu()->id;
        irq_restore(flags);
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
        __atomic_store_n(&firing[cpu->id], NULL, __ATOMIC_RELEASE);
        spin_lock(&cpu->timers_lock);
        struct timer *timer = cpu->timers;
        if (!timer || timer->deadline_ns > time_now_ns()) {
            uint64_t deadline = next_deadline(cpu);
            spin_unlock(&cpu->timers_lock);
            arm_hardware(deadline);
            return;
        }
        /* In this order: who finds that it is not armed any more must see it firing. */
        __atomic_store_n(&firing[cpu->id], timer, __ATOMIC_RELAXED);
        cpu->timers = timer->next;
        __atomic_store_n(&timer->cpu, NULL, __ATOMIC_RELEASE);
        spin_unlock(&cpu->timers_lock);
        timer->fire(timer);
    }
}

void timer_init_vector(void)
{
    trap_set_handler(VECTOR_TIMER, timer_interrupt, NULL);
}
