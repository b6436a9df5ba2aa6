/* SPDX-License-Identifier: MIT */
/*
 * Kernel threads. Cooperative: a thread runs until it waits or yields, on the CPU it was made for. A thread that stays
 * on for more than a millisecond is named by the watchdog; guests' time does not count, for a vCPU thread yields
 * whenever the scheduler wants the CPU.
 *
 * Waiting: a wait queue and a condition, always together.
 *
 *     wait_event(&queue, condition);                       // sleeps until the condition holds
 *     bool in_time = wait_event_until(&queue, condition, deadline_ns);
 *
 * and whoever makes the condition true calls wake_all(&queue) after it. A wake-up is never lost: the thread is on the
 * queue before it looks at the condition.
 */
#ifndef KERNEL_THREAD_H
#define KERNEL_THREAD_H

#include "kernel/cpu.h"
#include "kernel/spinlock.h"
#include "kernel/types.h"

#define THREAD_STACK_BYTES 32768

enum thread_state { THREAD_RUNNABLE, THREAD_RUNNING, THREAD_WAITING, THREAD_DEAD };

struct wait_queue {
    struct spinlock lock;
    struct thread *first;
};
#define WAIT_QUEUE_INIT(name) { SPINLOCK_INIT(name), NULL }

struct thread;

/*
 * Makes a thread on CPU `cpu` and lets it run. The name is copied. NULL where memory ran out. When fn returns the
 * thread ends and its memory is given back.
 */
struct thread *thread_create(const char *name, unsigned cpu, void (*fn)(void *arg), void *arg) MUST_CHECK;
/* The CPU with the fewest threads, for spreading them. */
unsigned thread_pick_cpu(void);
/*
 * Called on the switch to a thread that runs a guest, when another thread had the CPU: what that one left in the CPU's
 * buffers is not for the guest. Interrupts off.
 */
void thread_set_guest_hook(void (*hook)(void));
/*
 * Called on every switch from or to a thread that runs a guest. from_stays: `from` is runnable still, only preempted.
 * Interrupts off, no lock held.
 */
void thread_set_switch_hook(void (*hook)(const struct thread *from, bool from_stays, const struct thread *to, bool to_guest));
/* The calling thread runs a guest from now on: its stretches on the CPU are not the watchdog's business. */
void thread_runs_guest(void);
/*
 * The CPU that suits best (kernel/placement.h) for one more CPU of a VM that has `mine_count` at mine[] already. It is
 * counted there, and given back when that thread has ended.
 */
unsigned thread_guest_cpu_take(const unsigned *mine, unsigned mine_count, bool apart);
void thread_guest_cpu_give(unsigned cpu);

struct thread *thread_current(void);
const char *thread_name(const struct thread *thread);
/* Lets others run; returns at once if nobody wants to. */
void thread_yield(void);
/* True if somebody waits for this CPU: a long-running loop should yield. */
bool thread_should_yield(void);
void thread_sleep_ns(uint64_t ns);

void wait_queue_init(struct wait_queue *queue, const char *name);
/* Any context. */
void wake_all(struct wait_queue *queue);
/*
 * Sets *flag and wakes, all under the queue's lock: for the last word of an object's user. A waiter that saw the flag
 * (with wait_event) may free queue and flag: nobody touches them any more.
 */
void wake_all_set(struct wait_queue *queue, bool *flag);
/* The parts of wait_event; see there. */
void wait_prepare(struct wait_queue *queue);
void wait_finish(struct wait_queue *queue);
void wait_block(uint64_t deadline_ns);

#define wait_event_until(queue, condition, deadline_ns)                            \
    ({                                                                             \
        bool wait_ok_;                                                             \
        uint64_t wait_deadline_ = (deadline_ns);                                   \
        for (;;) {                                                                 \
            wait_prepare(queue);                                                   \
            wait_ok_ = (condition);                                                \
            if (wait_ok_ || time_now_ns() >= wait_deadline_)                       \
                break;                                                             \
            wait_block(wait_deadline_);                                            \
        }                                                                          \
        wait_finish(queue);                                                        \
        wait_ok_;                                                                  \
    })
#define wait_event(queue, condition) ((void)wait_event_until(queue, condition, UINT64_MAX))

/* Each CPU: makes the calling context its idle thread. */
void thread_init_cpu(struct cpu *cpu);
/* Runs the threads of this CPU, for ever. */
NORETURN void thread_idle(void);

struct thread_info {
    char name[32];
    unsigned cpu;
    enum thread_state state;
    uint64_t run_ns;      /* CPU time so far */
    uint64_t longest_ns;  /* longest stretch without a yield; 0 for a thread that runs a guest */
};
/* Copies up to `capacity` entries; returns the count. */
unsigned thread_list(struct thread_info *info, unsigned capacity);

#endif
