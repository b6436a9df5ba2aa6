/* SPDX-License-Identifier: MIT */
/*
 * The local APIC of each host CPU. x2APIC where the CPU has it (or the firmware already switched it on), else the page.
 * The timer is one-shot: TSC deadline mode where it is there and keeps to the TSC, else a count at divide-by-one that is
 * measured once.
 */
#include "kernel/apic.h"

#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "kernel/trap.h"
#include "kernel/vmap.h"

#define REG_ID 0x20
#define REG_TPR 0x80
#define REG_EOI 0xb0
#define REG_SVR 0xf0
#define REG_IRR 0x200
#define REG_ESR 0x280
#define REG_LVT_CMCI 0x2f0
#define REG_ICR_LOW 0x300
#define REG_ICR_HIGH 0x310
#define REG_LVT_TIMER 0x320
#define REG_LVT_THERMAL 0x330
#define REG_LVT_PERF 0x340
#define REG_LVT_LINT0 0x350
#define REG_LVT_LINT1 0x360
#define REG_LVT_ERROR 0x370
#define REG_TIMER_INITIAL 0x380
#define REG_TIMER_CURRENT 0x390
#define REG_TIMER_DIVIDE 0x3e0

#define BASE_X2APIC BIT(10)
#define BASE_ENABLE BIT(11)
#define SVR_ENABLE BIT(8)
#define LVT_MASKED BIT(16)
#define LVT_NMI (4u << 8)
#define LVT_TSC_DEADLINE (2u << 17)
#define ICR_PENDING BIT(12)
#define ICR_ASSERT BIT(14)
#define ICR_INIT (5u << 8)
#define ICR_STARTUP (6u << 8)
#define ICR_NMI (4u << 8)
#define ICR_OTHERS (3u << 18)

#define DEADLINE_TEST_NS 1000000
#define DEADLINE_LOOK_NS 20000

static bool x2apic;
static bool deadline_mode;
static volatile uint32_t *page;
static uint64_t counts_per_tsc_fixed; /* APIC timer counts for one TSC tick, 32.32 */

static uint32_t apic_read(unsigned reg)
{
    return x2apic ? (uint32_t)rdmsr(0x800 + reg / 16) : page[reg / 4];
}

static void apic_write(unsigned reg, uint32_t value)
{
    if (x2apic)
        wrmsr(0x800 + reg / 16, value);
    else
        page[reg / 4] = value;
}

static void icr_write(uint32_t destination, uint32_t command)
{
    if (x2apic) {
        /* WRMSR to the x2APIC is not serializing: what was written before must be seen by the target (SDM 11.12.3). */
        __asm__ volatile("mfence; lfence" : : : "memory");
        wrmsr(0x800 + REG_ICR_LOW / 16, (uint64_t)destination << 32 | command);
        return;
    }
    uint64_t flags = irq_save();
    while (apic_read(REG_ICR_LOW) & ICR_PENDING)
        cpu_pause();
    apic_write(REG_ICR_HIGH, destination << 24);
    apic_write(REG_ICR_LOW, command);
    irq_restore(flags);
}

void apic_init(uint64_t page_hpa)
{
    x2apic = cpu_features.x2apic;
    deadline_mode = cpu_features.tsc_deadline;
    if (!x2apic) {
        page = vmap_mmio(HPA(page_hpa), PAGE_BYTES);
        if (!page)
            panic("apic: no memory to map the local APIC");
    }
}

void apic_cpu_init(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);

    if (!(base & BASE_ENABLE))
        wrmsr(MSR_APIC_BASE, base |= BASE_ENABLE);
    if (x2apic && !(base & BASE_X2APIC))
        wrmsr(MSR_APIC_BASE, base | BASE_X2APIC);
    apic_write(REG_TPR, 0);
    apic_write(REG_LVT_LINT0, LVT_MASKED);
    apic_write(REG_LVT_LINT1, LVT_NMI);
    apic_write(REG_LVT_ERROR, LVT_MASKED);
    apic_write(REG_LVT_PERF, LVT_MASKED);
    apic_write(REG_LVT_THERMAL, LVT_MASKED);
    apic_write(REG_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    apic_write(REG_TIMER_DIVIDE, 0xb); /* by one */
    apic_write(REG_LVT_TIMER, VECTOR_TIMER | (deadline_mode ? LVT_TSC_DEADLINE : 0));
    __asm__ volatile("mfence" : : : "memory"); /* SDM 11.5.4.1: before the first write of the deadline */
    apic_eoi();
}

uint32_t apic_id(void)
{
    return x2apic ? apic_read(REG_ID) : apic_read(REG_ID) >> 24;
}

void apic_eoi(void)
{
    apic_write(REG_EOI, 0);
}

void apic_ipi(uint32_t id, uint8_t vector)
{
    icr_write(id, ICR_ASSERT | vector);
}

void apic_ipi_nmi_others(void)
{
    icr_write(0, ICR_OTHERS | ICR_ASSERT | ICR_NMI);
}

void apic_start_cpu(uint32_t id, uint64_t page_hpa)
{
    icr_write(id, ICR_ASSERT | ICR_INIT);
    time_spin_ns(10000000);
    for (unsigned i = 0; i < 2; i++) {
        icr_write(id, ICR_ASSERT | ICR_STARTUP | (uint32_t)(page_hpa >> PAGE_SHIFT));
        time_spin_ns(200000);
    }
}

void apic_timer_arm(uint64_t tsc)
{
    if (deadline_mode) {
        wrmsr(MSR_TSC_DEADLINE, tsc == UINT64_MAX ? 0 : tsc ? tsc : 1);
        return;
    }
    if (tsc == UINT64_MAX) {
        apic_write(REG_TIMER_INITIAL, 0);
        return;
    }
    uint64_t now = rdtsc(), ticks = tsc > now ? tsc - now : 0;
    uint64_t counts = (uint64_t)((unsigned __int128)ticks * counts_per_tsc_fixed >> 32) + 1;
    apic_write(REG_TIMER_INITIAL, counts > UINT32_MAX ? UINT32_MAX : (uint32_t)counts);
}

/*
 * False if the interrupt of a deadline comes long before it. Bochs 2.7 compares the deadline not with the TSC but with the
 * ticks since it was started, so once the machine has been reset, which begins the TSC anew, each deadline is past. The
 * interrupt that came too early is served when interrupts are on, and is one for nothing.
 *
 * The boot CPU speaks for all: it is a fault of the whole machine's clock. What could differ is looked at when a CPU comes up:
 * whether it says the same of its TSC and deadlines (cpu_same_as_boot()), and what its TSC shows (tsc_compare() of smp.c).
 */
static bool deadline_keeps_to_tsc(void)
{
    uint64_t flags = irq_save(), deadline = rdtsc() + time_tsc_khz() * (DEADLINE_TEST_NS / 1000) / 1000;

    wrmsr(MSR_TSC_DEADLINE, deadline);
    time_spin_ns(DEADLINE_LOOK_NS);
    bool fired = apic_read(REG_IRR + VECTOR_TIMER / 32 * 0x10) >> VECTOR_TIMER % 32 & 1;
    bool early = rdtsc() < deadline; /* else the CPU was away for longer than that, and nothing is known */
    wrmsr(MSR_TSC_DEADLINE, 0);
    irq_restore(flags);
    return !(fired && early);
}

void apic_timer_calibrate(void)
{
    if (deadline_mode && deadline_keeps_to_tsc())
        return;
    if (deadline_mode)
        log_info("apic: the timer's TSC deadlines come too early; it counts instead");
    deadline_mode = false;
    uint64_t flags = irq_save(), best = UINT64_MAX;

    apic_write(REG_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    /* The smallest of a few: a disturbance can only make the TSC run further for the same count. */
    for (unsigned i = 0; i < 3; i++) {
        apic_write(REG_TIMER_INITIAL, UINT32_MAX);
        uint64_t start = rdtsc();
        uint32_t first = apic_read(REG_TIMER_CURRENT);
        time_spin_ns(500000);
        uint32_t last = apic_read(REG_TIMER_CURRENT);
        uint64_t ticks = rdtsc() - start, counts = first - last;
        if (counts && ticks)
            best = MIN(best, (counts << 32) / ticks);
    }
    apic_write(REG_TIMER_INITIAL, 0);
    apic_write(REG_LVT_TIMER, VECTOR_TIMER);
    irq_restore(flags);
    if (best == UINT64_MAX || !best)
        panic("apic: the timer does not count");
    counts_per_tsc_fixed = best;
    log_debug("apic: timer runs at %lu kHz", (uint64_t)((unsigned __int128)best * time_tsc_khz() >> 32));
}
