/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is on one core: VMs take turns, so that the core's threads never run vCPUs of two VMs at the same moment.
 * Pure core: no lock, no clock, no CPU; core.c is the glue around it.
 *
 * A VM has the core from its first vCPU's enter until the last one has left. While others wait for it and its time is
 * over, the turn is being ended: those that are inside are asked to leave and nobody enters. The next turn is that of the
 * first in the queue; whoever of the last VM still waits goes to its end. So VMs take turns in a circle, and none starves.
 *
 * Invariant: vm is 0 only while nobody is inside and nobody waits; all that are inside entered for vm.
 */
#ifndef VMM_CORE_TURN_H
#define VMM_CORE_TURN_H

#include "kernel/types.h"

#define CORE_TURN_NS 4000000ull /* as long as a time slice of the scheduler */

struct core_waiter { /* a vCPU in the queue */
    struct core_waiter *next;
    uint64_t vm;
    bool queued;
};

struct core_turn { /* zeroed: free */
    uint64_t vm;        /* serial number of the VM whose turn it is; 0: nobody's */
    uint64_t ends_ns;   /* from then on others may end the turn */
    unsigned inside;    /* how many of the core's threads are in the VM's hands */
    bool ending;
    struct core_waiter *first; /* in the order in which they came */
};

struct core_order { /* what the caller has to do */
    bool leave;         /* ask all that are inside to leave: their CPUs call core_turn_leave() as soon as they can */
    bool wake;          /* those who wait for turn->vm may enter now */
};

/* A vCPU of `vm` wants in. True: it is. False: it is in the queue. */
bool core_turn_enter(struct core_turn *turn, struct core_waiter *waiter, uint64_t vm, uint64_t now_ns) MUST_CHECK;
/* One of those that are inside leaves. */
struct core_order core_turn_leave(struct core_turn *turn, uint64_t now_ns);
/* The waiter wants in no longer; nothing where it does not wait. */
struct core_order core_turn_cancel(struct core_turn *turn, struct core_waiter *waiter, uint64_t now_ns);
/* The waiter, which is queued, has waited until now: ends the turn of another VM whose time is over. */
struct core_order core_turn_press(struct core_turn *turn, const struct core_waiter *waiter, uint64_t now_ns);

#endif
