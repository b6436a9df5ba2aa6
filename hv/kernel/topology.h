/* SPDX-License-Identifier: MIT */
/*
 * Which CPUs are threads of one core, and which cores lie in one package: how an APIC ID falls apart. Pure core: CPUID
 * comes by a function, so that the layouts of all vendors are tested without them.
 *
 * An APIC ID is package, then core within it, then thread within that, each in a field of bits (SDM vol. 3A, 9.9;
 * APM vol. 3, appendix E.4.17). Fields may have gaps: numbers tell cores apart, and count nothing.
 */
#ifndef KERNEL_TOPOLOGY_H
#define KERNEL_TOPOLOGY_H

#include "kernel/types.h"
#include "kernel/x86.h"

struct topology {
    unsigned thread_bits;  /* lowest bits of an APIC ID: the thread within its core */
    unsigned package_bits; /* all bits below the package's number; at least thread_bits */
    const char *source;    /* the CPUID leaf that told, for the log */
};

/*
 * What CPUID says of this CPU. `read` is CPUID; amd: the vendor is AMD or Hygon, whose own leaves are used. Where no leaf
 * tells, each CPU is a core of its own package 0.
 */
struct topology topology_find(struct cpuid_regs (*read)(uint32_t leaf, uint32_t subleaf), bool amd);

static inline uint32_t topology_thread(const struct topology *t, uint32_t apic_id)
{
    return apic_id & (uint32_t)(BIT(t->thread_bits) - 1);
}
/* A number of the core, the same for all of its threads and for no other core of the machine. */
static inline uint32_t topology_core(const struct topology *t, uint32_t apic_id)
{
    return (uint32_t)((uint64_t)apic_id >> t->thread_bits);
}
static inline uint32_t topology_package(const struct topology *t, uint32_t apic_id)
{
    return (uint32_t)((uint64_t)apic_id >> t->package_bits);
}

#endif
