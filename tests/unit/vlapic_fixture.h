/* SPDX-License-Identifier: MIT */
/*
 * The APICs that their tests share: some on one bus, with counters for whoever they wake, and a clock that a test moves.
 * Each test program includes it once.
 */
#ifndef VLAPIC_FIXTURE_H
#define VLAPIC_FIXTURE_H

#include "fake_device.h"

#include "vdev/vlapic.h"

#define CPUS 4
#define LEVEL 0x8000u
#define ENABLED (APIC_BASE_DEFAULT | APIC_BASE_ENABLE)

struct cpu { unsigned kicks, nmis, inits, sipis; uint8_t sipi_vector; };

static struct vlapic apic[VLAPIC_MAX];
static struct cpu cpu[VLAPIC_MAX];
static struct vlapic_bus bus;
static struct vtimer_queue queue;
static uint64_t now, tsc_shift;
static unsigned eois;
static uint8_t eoi_vector;

static void kick(void *c)
{
    __atomic_fetch_add(&((struct cpu *)c)->kicks, 1, __ATOMIC_SEQ_CST);
}

static void nmi(void *c)
{
    ((struct cpu *)c)->nmis++;
}

static void init(void *c)
{
    ((struct cpu *)c)->inits++;
}

static void sipi(void *c, uint8_t vector)
{
    ((struct cpu *)c)->sipis++;
    ((struct cpu *)c)->sipi_vector = vector;
}

/* The guest's TSC runs at 3 GHz. */
static uint64_t tsc(void *c)
{
    (void)c;
    return now * 3 + tsc_shift;
}

static uint64_t tsc_to_ns(void *c, uint64_t value)
{
    (void)c;
    return value < tsc_shift ? 0 : (value - tsc_shift) / 3; /* rounds down, as a careless owner would */
}

static const struct vlapic_ops ops = { kick, nmi, init, sipi, tsc, tsc_to_ns };

static void bus_eoi(void *context, uint8_t vector)
{
    (void)context;
    eois++;
    eoi_vector = vector;
}

static int setup_count(unsigned count)
{
    memset(&bus, 0, sizeof(bus));
    memset(&queue, 0, sizeof(queue));
    memset(cpu, 0, sizeof(cpu));
    bus.eoi = bus_eoi;
    now = 1000;
    tsc_shift = 5000;
    eois = 0;
    for (unsigned i = 0; i < count; i++) {
        vlapic_init(&apic[i], &bus, &ops, &cpu[i], i, i == 0, &queue);
        vlapic_mmio_write(&apic[i], 0xf0, 4, 0x1ff, now);
    }
    return 0;
}

static inline int setup(void **state)
{
    (void)state;
    return setup_count(CPUS);
}

static inline uint32_t get(unsigned i, unsigned offset)
{
    return (uint32_t)vlapic_mmio_read(&apic[i], offset, 4, now);
}

static inline void set(unsigned i, unsigned offset, uint32_t value)
{
    vlapic_mmio_write(&apic[i], offset, 4, value, now);
}

static inline bool wr(unsigned i, uint32_t msr, uint64_t value)
{
    return vlapic_msr_write(&apic[i], msr, value, now);
}

static inline uint64_t rd(unsigned i, uint32_t msr)
{
    uint64_t value;
    assert_true(vlapic_msr_read(&apic[i], msr, &value, now));
    return value;
}

static inline bool readable(unsigned i, uint32_t msr)
{
    uint64_t value;
    return vlapic_msr_read(&apic[i], msr, &value, now);
}

/* Takes what is pending, as an entry would. */
static inline int take(unsigned i)
{
    int vector = vlapic_pending(&apic[i]);
    if (vector >= 0)
        vlapic_accept(&apic[i], (uint8_t)vector);
    return vector;
}

/* Which APICs have the vector requested; they then have not. */
static inline unsigned who(uint8_t vector)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < bus.count; i++) {
        uint32_t bit = 1u << vector % 32;
        if (!(apic[i].irr[vector / 32] & bit))
            continue;
        mask |= 1u << i;
        apic[i].irr[vector / 32] &= ~bit;
    }
    return mask;
}

static inline void run_until(uint64_t until)
{
    while (vtimer_next(&queue) <= until) {
        now = MAX(now, vtimer_next(&queue));
        vtimer_run(&queue, now);
    }
    now = until;
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

#endif
