/* SPDX-License-Identifier: MIT */
/*
 * Sources, best first: AMD's leaf 8000_0026H, Intel's 1FH, the leaf 0BH of both (one format: levels from the thread
 * upwards, each with the number of bits to shift the APIC ID by for the next level's number); AMD's 8000_001EH, which
 * tells threads of a core; last, the counts of leaves 1 and 4 (Intel) or 8000_0008H (AMD), rounded up to powers of 2.
 *
 * AMD's families 15H and 16H call two cores that share fetch, decode and predictors a compute unit, and 8000_001EH
 * counts them where later families count threads: they are taken for threads here, since what they share leaks alike.
 */
#include "kernel/topology.h"

#define LEVEL_NONE 0
#define LEVEL_THREAD 1 /* leaf 8000_0026H calls the level that is above the thread "core" and gives it the number 1 */
#define LEVELS_MAX 8
#define APIC_ID_BITS 32

static unsigned bits_for(uint32_t count)
{
    unsigned bits = 0;

    while (bits < APIC_ID_BITS && (1ull << bits) < count)
        bits++;
    return bits;
}

/*
 * Leaves 0BH, 1FH and 8000_0026H: ECX[15:8] is the level's type, EAX[4:0] the shift from this level's number to the
 * next one's, EBX[15:0] the logical processors in it, 0 where there is no level. In all three type 1 is the level whose
 * members are threads and whose shift leads to the core.
 */
static bool from_levels(struct cpuid_regs (*read)(uint32_t, uint32_t), uint32_t leaf, struct topology *found)
{
    bool any = false, thread = false;

    for (uint32_t level = 0; level < LEVELS_MAX; level++) {
        struct cpuid_regs r = read(leaf, level);
        unsigned shift = r.eax & 0x1f;
        if (!(r.ebx & 0xffff) || (r.ecx >> 8 & 0xff) == LEVEL_NONE)
            break;
        if ((r.ecx >> 8 & 0xff) == LEVEL_THREAD) {
            found->thread_bits = shift;
            thread = true;
        }
        if (shift > found->package_bits)
            found->package_bits = shift;
        any = true;
    }
    return any && thread && found->package_bits >= found->thread_bits;
}

struct topology topology_find(struct cpuid_regs (*read)(uint32_t leaf, uint32_t subleaf), bool amd)
{
    static const struct { uint32_t leaf; bool amd_only; const char *name; } leveled[] = {
        { 0x80000026, true, "8000_0026H" }, { 0x1f, false, "1FH" }, { 0xb, false, "0BH" },
    };
    const struct topology none = { 0, 0, "none" };
    uint32_t max = read(0, 0).eax, max_extended = read(0x80000000, 0).eax;
    struct topology t;

    if (max_extended < 0x80000000 || max_extended > 0x8000ffff)
        max_extended = 0; /* a CPU without the range answers with another leaf */
    for (unsigned i = 0; i < ARRAY_COUNT(leveled); i++) {
        uint32_t limit = leveled[i].leaf & 0x80000000 ? max_extended : max;
        t = none;
        if ((leveled[i].amd_only && !amd) || limit < leveled[i].leaf || !from_levels(read, leveled[i].leaf, &t))
            continue;
        t.source = leveled[i].name;
        return t;
    }

    struct cpuid_regs one = read(1, 0);
    uint32_t logical = one.edx & BIT(28) ? one.ebx >> 16 & 0xff : 1; /* HTT: the field is valid */
    t = none;
    if (amd) {
        struct cpuid_regs eight = max_extended >= 0x80000008 ? read(0x80000008, 0) : (struct cpuid_regs){ 0 };
        unsigned size = eight.ecx >> 12 & 0xf; /* ApicIdSize; 0: the count tells */
        t.package_bits = size ? size : bits_for(max_extended >= 0x80000008 ? (eight.ecx & 0xff) + 1 : logical);
        t.source = "8000_0008H";
        if (max_extended >= 0x8000001e && (read(0x80000001, 0).ecx & BIT(22))) { /* TopologyExtensions */
            t.thread_bits = bits_for((read(0x8000001e, 0).ebx >> 8 & 0xff) + 1);
            t.source = "8000_001EH";
        }
    } else {
        uint32_t cores = max >= 4 ? (read(4, 0).eax >> 26 & 0x3f) + 1 : 1;
        t.package_bits = bits_for(logical);
        t.thread_bits = bits_for(cores) < t.package_bits ? t.package_bits - bits_for(cores) : 0;
        t.source = max >= 4 ? "4" : "1";
    }
    if (t.thread_bits > t.package_bits)
        t.package_bits = t.thread_bits;
    return t;
}
