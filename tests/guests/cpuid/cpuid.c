/* SPDX-License-Identifier: MIT */
/*
 * CPUID: every leaf and subleaf is printed, for a test to compare; every CPU shows the same but for its own number; what
 * lies beyond the highest leaves is zero.
 */
#include "guest.h"

#define LEAVES 256

struct line { uint32_t leaf, subleaf; struct guest_cpuid value; };
static struct line lines[2][LEAVES];
static unsigned counts[2];
static volatile uint64_t done;

static bool is_zero(struct guest_cpuid v)
{
    return !(v.eax | v.ebx | v.ecx | v.edx);
}

/* Leaves with subleaves, and how many at most are looked at. */
static unsigned subleaves(uint32_t leaf)
{
    switch (leaf) {
    case 4: case 7: case 0xb: case 0x1f: case 0x8000001d: return 8;
    case 0xd: return 64;
    default: return 1;
    }
}

/* What belongs to one CPU: the APIC ID in leaf 1, in the topology leaves and in AMD's 0x8000001e. */
static void blank_number(struct line *line)
{
    if (line->leaf == 1)
        line->value.ebx &= 0xffffff;
    if (line->leaf == 0xb || line->leaf == 0x1f)
        line->value.edx = 0;
    if (line->leaf == 0x8000001e)
        line->value.eax = 0, line->value.ebx &= ~0xffu;
}

static void collect(void *argument)
{
    static const uint32_t firsts[] = { 0, 0x40000000, 0x40000100, 0x80000000 };
    unsigned me = *(unsigned *)argument, count = 0;

    for (unsigned f = 0; f < COUNT(firsts); f++) {
        uint32_t last = cpuid(firsts[f], 0).eax;
        for (uint32_t leaf = firsts[f]; leaf <= last && leaf < firsts[f] + 0x40; leaf++) {
            for (uint32_t subleaf = 0; subleaf < subleaves(leaf) && count < LEAVES; subleaf++) {
                struct line line = { leaf, subleaf, cpuid(leaf, subleaf) };
                if (is_zero(line.value))
                    continue;
                blank_number(&line);
                lines[me][count++] = line;
            }
        }
    }
    counts[me] = count;
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
}

static void nothing_beyond(void)
{
    static const uint32_t firsts[] = { 0x40000200, 0x40010000, 0x80000200, 0x8fffffff, 0xc0000000, 0xffffffff };
    uint64_t stray = 0;

    for (unsigned i = 0; i < COUNT(firsts); i++)
        stray += !is_zero(cpuid(firsts[i], 0));
    for (uint32_t leaf = cpuid(0, 0).eax + 1; leaf < 0x100; leaf++)
        stray += !is_zero(cpuid(leaf, 0));
    for (uint32_t leaf = cpuid(0x80000000, 0).eax + 1; leaf < 0x80000100; leaf++)
        stray += !is_zero(cpuid(leaf, 0));
    guest_equal("leaves beyond the highest are zero", 0, stray);
}

void guest_main(void)
{
    unsigned zero = 0, one = 1;

    collect(&zero);
    for (unsigned i = 0; i < counts[0]; i++) {
        struct guest_cpuid v = lines[0][i].value;
        guest_printf("cpuid %x.%x: %08x %08x %08x %08x\n", lines[0][i].leaf, lines[0][i].subleaf, v.eax, v.ebx, v.ecx,
                     v.edx);
    }
    guest_check("some leaves are there", counts[0] > 10 && counts[0] < LEAVES);
    nothing_beyond();
    guest_check("the second CPU starts", guest_start_cpu(1, collect, &one) && guest_wait(&done, 2, 5000000));
    guest_equal("all CPUs show the same", 0,
                counts[0] != counts[1] || memcmp(lines[0], lines[1], counts[0] * sizeof(lines[0][0])));
}
