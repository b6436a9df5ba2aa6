/* SPDX-License-Identifier: MIT */
/* Where a guest's CPU is put; kernel/placement.h is the description. */
#include "kernel/placement.h"

struct rank { unsigned others, here, core; };

static struct rank rank(const struct placement_cpu *cpu, unsigned count, unsigned at, bool apart)
{
    struct rank r = { .here = cpu[at].guests };

    for (unsigned i = 0; i < count; i++) {
        if (cpu[i].core != cpu[at].core)
            continue;
        r.core += cpu[i].guests;
        if (apart)
            r.others += cpu[i].guests - cpu[i].mine;
    }
    return r;
}

static bool better(struct rank a, struct rank b)
{
    if (a.here != b.here)
        return a.here < b.here;
    return a.others != b.others ? a.others < b.others : a.core < b.core;
}

unsigned placement_pick(const struct placement_cpu *cpu, unsigned count, bool apart)
{
    unsigned best = 0;

    for (unsigned i = 1; i < count; i++)
        if (better(rank(cpu, count, i, apart), rank(cpu, count, best, apart)))
            best = i;
    return best;
}
