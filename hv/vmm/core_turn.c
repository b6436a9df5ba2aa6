/* SPDX-License-Identifier: MIT */
/* Turns of VMs on a core; vmm/core_turn.h is the description. */
#include "vmm/core_turn.h"

static void append(struct core_turn *turn, struct core_waiter *waiter)
{
    struct core_waiter **link = &turn->first;

    while (*link)
        link = &(*link)->next;
    waiter->next = NULL;
    waiter->queued = true;
    *link = waiter;
}

static void take_out(struct core_turn *turn, struct core_waiter *waiter)
{
    struct core_waiter **link = &turn->first;

    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
    waiter->next = NULL;
    waiter->queued = false;
}

static bool waits(const struct core_turn *turn, uint64_t vm)
{
    for (const struct core_waiter *w = turn->first; w; w = w->next)
        if (w->vm == vm)
            return true;
    return false;
}

/* Nobody is inside: the next one's turn. Whoever of the last turn's VM still waits goes behind all others. */
static struct core_order pass(struct core_turn *turn, uint64_t now_ns)
{
    struct core_waiter *all = turn->first, *next;

    turn->first = NULL;
    for (unsigned last = 0; last < 2; last++) {
        struct core_waiter **link = &all;
        while ((next = *link)) {
            if (last || next->vm != turn->vm) {
                *link = next->next;
                append(turn, next);
            } else {
                link = &next->next;
            }
        }
    }
    turn->vm = turn->first ? turn->first->vm : 0;
    turn->ends_ns = now_ns + CORE_TURN_NS;
    turn->ending = false;
    return (struct core_order){ .wake = turn->first != NULL };
}

bool core_turn_enter(struct core_turn *turn, struct core_waiter *waiter, uint64_t vm, uint64_t now_ns)
{
    if (turn->vm && (turn->vm != vm || turn->ending)) {
        waiter->vm = vm;
        if (!waiter->queued)
            append(turn, waiter);
        return false;
    }
    if (waiter->queued)
        take_out(turn, waiter);
    if (!turn->vm) {
        turn->vm = vm;
        turn->ends_ns = now_ns + CORE_TURN_NS;
    }
    turn->inside++;
    return true;
}

struct core_order core_turn_leave(struct core_turn *turn, uint64_t now_ns)
{
    return --turn->inside ? (struct core_order){ 0 } : pass(turn, now_ns);
}

struct core_order core_turn_cancel(struct core_turn *turn, struct core_waiter *waiter, uint64_t now_ns)
{
    if (!waiter->queued)
        return (struct core_order){ 0 };
    take_out(turn, waiter);
    /* It may have been the only one for whom the turn was kept. */
    return turn->inside || waits(turn, turn->vm) ? (struct core_order){ 0 } : pass(turn, now_ns);
}

struct core_order core_turn_press(struct core_turn *turn, const struct core_waiter *waiter, uint64_t now_ns)
{
    if (!waiter->queued || waiter->vm == turn->vm || turn->ending || now_ns < turn->ends_ns)
        return (struct core_order){ 0 };
    if (!turn->inside)
        return pass(turn, now_ns);
    turn->ending = true;
    return (struct core_order){ .leave = true };
}
