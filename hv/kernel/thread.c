/* SPDX-License-Identifier: MIT */
/*
 * The scheduler: one run queue a CPU, first in first out, no priorities, no migration.
 *
 * State changes of a thread are made under its CPU's run-queue lock. wait_prepare() marks the running thread WAITING
 * while it still runs; wait_block() then gives up the CPU only if it is still WAITING. A wake-up in between turns it
 * RUNNING again, so it is not lost, and a thread is on the run queue only when it is off the CPU.
 *
 * cpu->reschedule is the wish that the running thread should give way: a wake-up sets it at once, so that short work is
 * done soon, and a switch clears it. If others still wait then, a timer sets it again after a time slice: that is how
 * guests share a CPU.
 *
 * A dead thread cannot free the stack that it stands on: the next thread on that CPU does it.
 */
#include "kernel/thread.h"

#include <stdio.h>
#include <string.h>

#include "kernel/apic.h"
#include "kernel/heap.h"
#include "kernel/log.h"
#include "kernel/placement.h"
#include "kernel/time.h"
#include "kernel/timer.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"


#define SLICE_NS (4 * NS_PER_MS)
#define WATCHDOG_NS (1 * NS_PER_MS)
#define WATCHDOG_REPORTS 3 /* for each thread: the list has the worst */

struct thread {
    uint64_t rsp;
    char name[32];
    enum thread_state state;
    struct cpu *cpu;
    struct thread *next;          /* run queue */
    struct wait_queue *queue;     /* waits there */
    struct thread *wait_next;
    struct thread *all_next;
    void *stack_top;
    void (*fn)(void *arg);
    void *arg;
    struct timer timer;
    uint64_t started_ns, run_ns;
    uint64_t offered_ns, longest_ns; /* when it last had the CPU given to it or asked whether somebody wants it */
    bool guest;                   /* it runs a guest most of the time: not the watchdog's business */
    unsigned watchdog_reports;
};

struct runqueue {
    struct spinlock lock;
    struct thread *first, **last;
    struct thread idle;
    struct thread *dead;
    struct timer slice;
    unsigned thread_count, guest_count;
};

static struct spinlock all_lock = SPINLOCK_INIT("threads");
static struct thread *all_threads;
static void (*guest_hook)(void);
static void (*switch_hook)(const struct thread *from, bool from_stays, const struct thread *to, bool to_guest);

void thread_switch(uint64_t *save_rsp, uint64_t load_rsp);
void thread_entry(void);
NORETURN void thread_main(void (*fn)(void *arg), void *arg);

struct thread *thread_current(void)
{
    struct thread *thread;
    __asm__("movq %%gs:8, %0" : "=r"(thread));
    return thread;
}

const char *thread_name(const struct thread *thread)
{
    return thread ? thread->name : "(none)";
}

/* The longest a thread went without asking; what it did when nobody waited counts too. */
static uint64_t note_stretch(struct thread *thread, uint64_t now_ns)
{
    uint64_t stretch = now_ns - thread->offered_ns;

    thread->offered_ns = now_ns;
    if (stretch > thread->longest_ns)
        thread->longest_ns = stretch;
    return stretch;
}

bool thread_should_yield(void)
{
    (void)note_stretch(thread_current(), time_now_ns());
    return this_cpu()->reschedule;
}

static void enqueue(struct runqueue *rq, struct thread *thread)
{
    thread->next = NULL;
    *rq->last = thread;
    rq->last = &thread->next;
}

/*
 * Makes a waiting thread runnable. Returns the CPU that must be told by a kick, or NULL. Whoever holds a lock lets go of
 * it first: an access to the local APIC takes long where the machine is emulated. Any context.
 */
static MUST_CHECK struct cpu *make_runnable(struct thread *thread)
{
    struct cpu *cpu = thread->cpu;
    struct runqueue *rq = cpu->runqueue;
    uint64_t flags = spin_lock_irqsave(&rq->lock);
    bool kick = false;

    if (thread->state == THREAD_WAITING) {
        if (cpu->current == thread) {
            thread->state = THREAD_RUNNING;
        } else {
            thread->state = THREAD_RUNNABLE;
            enqueue(rq, thread);
            cpu->reschedule = true;
            kick = cpu != this_cpu();
        }
    }
    spin_unlock_irqrestore(&rq->lock, flags);
    return kick ? cpu : NULL;
}

static void kick_cpu(const struct cpu *cpu)
{
    if (cpu)
        apic_ipi(cpu->apic_id, VECTOR_KICK);
}

static void wake_thread(struct thread *thread)
{
    kick_cpu(make_runnable(thread));
}

/* Adds up; returns how long the thread had the CPU if the watchdog wants that reported, else 0. */
static uint64_t account(struct runqueue *rq, struct thread *thread, uint64_t now_ns)
{
    thread->run_ns += now_ns - thread->started_ns;
    if (thread->guest || thread == &rq->idle)
        return 0;
    uint64_t stretch = note_stretch(thread, now_ns);
    return stretch > WATCHDOG_NS && thread->watchdog_reports++ < WATCHDOG_REPORTS ? stretch : 0;
}

static void free_dead(struct runqueue *rq)
{
    struct thread *dead = rq->dead;

    if (!dead)
        return;
    rq->dead = NULL;
    uint64_t flags = spin_lock_irqsave(&all_lock);
    for (struct thread **link = &all_threads; *link; link = &(*link)->all_next) {
        if (*link == dead) {
            *link = dead->all_next;
            break;
        }
    }
    rq->thread_count--;
    spin_unlock_irqrestore(&all_lock, flags);
    vmap_stack_free(dead->stack_top, THREAD_STACK_BYTES);
    kfree(dead, sizeof *dead);
}

/* Gives the CPU to the next runnable thread. The caller has set its own state. */
static void schedule(void)
{
    uint64_t flags = irq_save();
    struct cpu *cpu = this_cpu();
    struct runqueue *rq = cpu->runqueue;
    struct thread *old = cpu->current, *next;
    uint64_t now = time_now_ns();

    spin_lock(&rq->lock);
    if (old->state == THREAD_RUNNING) {
        if (!rq->first) {
            (void)note_stretch(old, now);
            cpu->reschedule = false;
            spin_unlock(&rq->lock);
            irq_restore(flags);
            return;
        }
        old->state = THREAD_RUNNABLE;
        if (old != &rq->idle)
            enqueue(rq, old);
    }
    next = rq->first;
    if (next) {
        rq->first = next->next;
        if (!rq->first)
            rq->last = &rq->first;
    } else {
        next = &rq->idle;
    }
    cpu->reschedule = false;
    next->state = THREAD_RUNNING;
    bool others = rq->first;
    if (next != old) {
        uint64_t too_long = account(rq, old, now);
        next->started_ns = next->offered_ns = now;
        cpu->current = next;
        bool stays = old->state == THREAD_RUNNABLE;
        if (old->state == THREAD_DEAD)
            rq->dead = old;
        spin_unlock(&rq->lock);
        if (too_long)
            log_debug("watchdog: thread %s kept CPU %u for %lu us without a yield", old->name, cpu->id, too_long / 1000);
        if (next->guest && guest_hook)
            guest_hook();
        if ((old->guest || next->guest) && switch_hook)
            switch_hook(old, stays, next, next->guest);
        timer_arm(&rq->slice, others ? now + SLICE_NS : TIME_NEVER);
        thread_switch(&old->rsp, next->rsp);
        free_dead(this_cpu()->runqueue);
    } else {
        spin_unlock(&rq->lock);
    }
    irq_restore(flags);
}

void thread_yield(void)
{
    schedule();
}

void thread_main(void (*fn)(void *arg), void *arg)
{
    free_dead(this_cpu()->runqueue);
    irq_enable();
    fn(arg);
    irq_disable();
    thread_current()->state = THREAD_DEAD;
    schedule();
    panic("thread: a dead thread was run");
}

unsigned thread_pick_cpu(void)
{
    unsigned best = 0;

    for (unsigned i = 1; i < cpu_count; i++)
        if (cpus[i]->runqueue->thread_count < cpus[best]->runqueue->thread_count)
            best = i;
    return best;
}

void thread_set_guest_hook(void (*hook)(void))
{
    guest_hook = hook;
}

void thread_runs_guest(void)
{
    thread_current()->guest = true;
}

void thread_set_switch_hook(void (*hook)(const struct thread *, bool, const struct thread *, bool))
{
    switch_hook = hook;
}

/*
 * In QEMU 7.2's emulation FXRSTOR and its like on any CPU change a word of the boot CPU's state, without a lock, in which
 * that CPU's VMRUN and #VMEXIT keep whether nested paging is on (docs/platform.md). So no guest runs there.
 */
static unsigned guest_cpus_begin(void)
{
    return cpu_features.tcg && cpu_count > 1;
}

unsigned thread_guest_cpu_take(const unsigned *mine, unsigned mine_count, bool apart)
{
    static struct placement_cpu table[CPU_MAX]; /* under the lock */
    uint64_t flags = spin_lock_irqsave(&all_lock);

    for (unsigned i = 0; i < cpu_count; i++)
        table[i] = (struct placement_cpu){ .core = cpus[i]->core, .guests = cpus[i]->runqueue->guest_count };
    for (unsigned i = 0; i < mine_count; i++)
        table[mine[i]].mine++;
    unsigned first = guest_cpus_begin(), best = first + placement_pick(table + first, cpu_count - first, apart);
    cpus[best]->runqueue->guest_count++;
    spin_unlock_irqrestore(&all_lock, flags);
    return best;
}

void thread_guest_cpu_give(unsigned cpu)
{
    uint64_t flags = spin_lock_irqsave(&all_lock);
    cpus[cpu]->runqueue->guest_count--;
    spin_unlock_irqrestore(&all_lock, flags);
}

static void slice_ended(struct timer *timer)
{
    (void)timer;
    this_cpu()->reschedule = true;
}

struct thread *thread_create(const char *name, unsigned cpu, void (*fn)(void *arg), void *arg)
{
    struct thread *thread = kzalloc(sizeof *thread);

    if (!thread)
        return NULL;
    thread->stack_top = vmap_stack(THREAD_STACK_BYTES);
    if (!thread->stack_top) {
        kfree(thread, sizeof *thread);
        return NULL;
    }
    snprintf(thread->name, sizeof thread->name, "%s", name);
    thread->cpu = cpus[cpu];

    /* What thread_switch pops: r15 r14 r13 r12 rbp rbx, then the return address; RSP is 16-aligned at thread_entry. */
    uint64_t *sp = (uint64_t *)thread->stack_top - 2;
    *--sp = (uint64_t)thread_entry;
    *--sp = (uint64_t)fn;  /* rbx */
    *--sp = 0;             /* rbp */
    *--sp = (uint64_t)arg; /* r12 */
    *--sp = 0;
    *--sp = 0;
    *--sp = 0;
    thread->rsp = (uint64_t)sp;

    uint64_t flags = spin_lock_irqsave(&all_lock);
    thread->all_next = all_threads;
    all_threads = thread;
    thread->cpu->runqueue->thread_count++;
    spin_unlock_irqrestore(&all_lock, flags);

    thread->state = THREAD_WAITING;
    wake_thread(thread);
    return thread;
}

void wait_queue_init(struct wait_queue *queue, const char *name)
{
    *queue = (struct wait_queue)WAIT_QUEUE_INIT(name);
}

void wait_prepare(struct wait_queue *queue)
{
    struct thread *self = thread_current();
    uint64_t flags = spin_lock_irqsave(&queue->lock);

    if (!self->queue) {
        self->queue = queue;
        self->wait_next = queue->first;
        queue->first = self;
    }
    spin_lock(&self->cpu->runqueue->lock);
    self->state = THREAD_WAITING;
    spin_unlock(&self->cpu->runqueue->lock);
    spin_unlock_irqrestore(&queue->lock, flags);
}

void wait_finish(struct wait_queue *queue)
{
    struct thread *self = thread_current();
    uint64_t flags = spin_lock_irqsave(&queue->lock);

    for (struct thread **link = &queue->first; *link; link = &(*link)->wait_next) {
        if (*link == self) {
            *link = self->wait_next;
            break;
        }
    }
    self->queue = NULL;
    spin_lock(&self->cpu->runqueue->lock);
    self->state = THREAD_RUNNING;
    spin_unlock(&self->cpu->runqueue->lock);
    spin_unlock_irqrestore(&queue->lock, flags);
}

static void wait_timeout(struct timer *timer)
{
    wake_thread(CONTAINER_OF(timer, struct thread, timer));
}

void wait_block(uint64_t deadline_ns)
{
    struct thread *self = thread_current();

    if (deadline_ns != TIME_NEVER) {
        timer_init(&self->timer, wait_timeout);
        timer_arm(&self->timer, deadline_ns);
    }
    schedule();
    if (deadline_ns != TIME_NEVER)
        timer_cancel(&self->timer);
}

/* Wakes who waits there and lets go of the queue, which is locked. Most have one thread: its kick comes last. */
static void wake_and_unlock(struct wait_queue *queue, uint64_t flags)
{
    struct cpu *kick = NULL;

    for (struct thread *thread = queue->first; thread; thread = thread->wait_next) {
        struct cpu *cpu = make_runnable(thread);
        if (cpu && cpu != kick) {
            kick_cpu(kick);
            kick = cpu;
        }
    }
    spin_unlock_irqrestore(&queue->lock, flags);
    kick_cpu(kick);
}

void wake_all(struct wait_queue *queue)
{
    wake_and_unlock(queue, spin_lock_irqsave(&queue->lock));
}

void wake_all_set(struct wait_queue *queue, bool *flag)
{
    uint64_t flags = spin_lock_irqsave(&queue->lock);

    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
    wake_and_unlock(queue, flags);
}

void thread_sleep_ns(uint64_t ns)
{
    struct wait_queue queue = WAIT_QUEUE_INIT("sleep");
    uint64_t deadline = time_now_ns() + ns;

    (void)wait_event_until(&queue, false, deadline);
}

void thread_init_cpu(struct cpu *cpu)
{
    struct runqueue *rq = kzalloc(sizeof *rq);

    if (!rq)
        panic("thread: no memory for the run queue of CPU %u", cpu->id);
    rq->lock = (struct spinlock)SPINLOCK_INIT("run queue");
    rq->last = &rq->first;
    timer_init(&rq->slice, slice_ended);
    snprintf(rq->idle.name, sizeof rq->idle.name, "idle%u", cpu->id);
    rq->idle.cpu = cpu;
    rq->idle.state = THREAD_RUNNING;
    rq->idle.started_ns = time_now_ns();
    cpu->runqueue = rq;
    cpu->current = &rq->idle;
}

void thread_idle(void)
{
    for (;;) {
        schedule();
        irq_disable();
        if (!this_cpu()->runqueue->first)
            __asm__ volatile("sti; hlt" : : : "memory"); /* STI's shadow: no interrupt slips in between */
        else
            irq_enable();
    }
}

unsigned thread_list(struct thread_info *info, unsigned capacity)
{
    unsigned count = 0;
    uint64_t flags = spin_lock_irqsave(&all_lock);

    for (struct thread *t = all_threads; t && count < capacity; t = t->all_next, count++) {
        memcpy(info[count].name, t->name, sizeof info[count].name);
        info[count].cpu = t->cpu->id;
        info[count].state = t->state;
        info[count].run_ns = t->run_ns;
        info[count].longest_ns = t->longest_ns;
    }
    spin_unlock_irqrestore(&all_lock, flags);
    return count;
}
