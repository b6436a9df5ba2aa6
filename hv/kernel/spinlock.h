/* SPDX-License-Identifier: MIT */
/*
 * Ticket spinlocks. Kernel threads are cooperative, so a lock is held for a few instructions and never across a wait.
 * A lock that an interrupt handler also takes is taken with the irqsave form everywhere.
 *
 * The local APIC is left alone under the locks that CPUs contend for (wait queues, timers): where the machine is
 * emulated, an access waits for the emulator's own lock, which CPUs that spin here keep busy (docs/platform.md).
 *
 * Order, outermost first. Whoever holds a lock takes only locks further down:
 *   vm list -> machine (device lock) -> volume -> volume's file -> vm disk -> vm console -> gmem/stage2 -> core -> wait queue
 *   -> run queue -> timer list
 *   -> page allocator -> heap -> log -> screen (the shell's line) -> serial
 */
#ifndef KERNEL_SPINLOCK_H
#define KERNEL_SPINLOCK_H

#include "kernel/types.h"

struct spinlock {
    uint32_t next, serving;
    const char *name;
};
#define SPINLOCK_INIT(lock_name) { 0, 0, lock_name }

static inline void spin_lock(struct spinlock *lock)
{
    uint32_t ticket = __atomic_fetch_add(&lock->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE) != ticket)
        __builtin_ia32_pause();
}

/* Takes the lock if it is free this moment. */
static inline bool spin_trylock(struct spinlock *lock)
{
    uint32_t ticket = __atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE);

    return __atomic_compare_exchange_n(&lock->next, &ticket, ticket + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void spin_unlock(struct spinlock *lock)
{
    __atomic_store_n(&lock->serving, lock->serving + 1, __ATOMIC_RELEASE);
}

static inline uint64_t spin_lock_irqsave(struct spinlock *lock)
{
    uint64_t flags = 0;
#ifndef TASUKI_HOST_TEST
    __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
#endif
    spin_lock(lock);
    return flags;
}

static inline void spin_unlock_irqrestore(struct spinlock *lock, uint64_t flags)
{
    spin_unlock(lock);
#ifndef TASUKI_HOST_TEST
    if (flags & 0x200)
        __asm__ volatile("sti" : : : "memory");
#else
    (void)flags;
#endif
}

#endif
