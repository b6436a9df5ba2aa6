/* SPDX-License-Identifier: MIT */
/*
 * A guest that notices what a save and a restore must not do to it. Every CPU, for ever:
 *   - goes over 1 MiB of its own, where each word must be what it last wrote, and writes it anew;
 *   - looks whether its TSC, or the Hyper-V reference time that all CPUs share, goes back;
 *   - keeps values in SSE registers, debug registers and MSRs;
 *   - arms its APIC's timer again and again, by count or by TSC deadline: it must come, once, and not early.
 * The first CPU also reads the reference time from its TSC page and the PM timer, which must lie where the clock that all
 * agree on is, and does the same with the 8254 through the I/O APIC.
 *
 * Commands, a character each: `t` tells the clocks and counts, `q` ends it with the results.
 *     time ref R tsc T rtc YYYY-MM-DD HH:MM:SS rounds N ticks M pit P fails F
 */
#include "guest.h"

#define VECTOR_TIMER 0x60
#define VECTOR_PIT 0x61
#define WORDS (0x100000 / 8)
#define MSR_KERNEL_GS 0xc0000102u
#define MSR_STAR 0xc0000081u
#define MSR_DEADLINE 0x6e0u
#define HV_TIME 0x40000020u
#define HV_TSC_PAGE 0x40000021u
#define PM_TIMER 0x608
#define PM_HZ 3579545ull
#define PIT_HZ 1193182ull
#define IOAPIC 0xfec00000ull
#define COM1 0x3f8
#define LOST_US 5000000ull
#define SLACK 1000ull /* 100 ns: what reading and rounding may make of two clocks */

enum mistake {
    MEMORY, TSC_BACK, REFERENCE_BACK, REGISTERS, TIMER_TWICE, TIMER_EARLY, TIMER_LOST, PAGE_OFF, PM_OFF, TSC_OFF, PIT_TWICE,
    PIT_EARLY, PIT_LOST, MISTAKES
};
static const char *const names[MISTAKES] = {
    [MEMORY] = "memory is what was written", [TSC_BACK] = "the TSC never goes back",
    [REFERENCE_BACK] = "reference time never goes back on any CPU", [REGISTERS] = "registers and MSRs stay",
    [TIMER_TWICE] = "no APIC timer comes unasked", [TIMER_EARLY] = "no APIC timer comes early",
    [TIMER_LOST] = "no APIC timer is lost", [PAGE_OFF] = "the reference page and the MSR agree",
    [PM_OFF] = "the PM timer and reference time agree", [TSC_OFF] = "the TSC and reference time agree",
    [PIT_TWICE] = "no 8254 interrupt comes unasked", [PIT_EARLY] = "no 8254 interrupt comes early",
    [PIT_LOST] = "no 8254 interrupt is lost",
};

struct worker {
    uint64_t rounds, ticks;
    uint64_t armed_tsc;         /* the timer is to come at this TSC; 0: it is not armed */
    bool deadline;              /* TSC-deadline mode */
    uint64_t generation;
    uint64_t last_tsc;
    uint64_t *memory;
};

static struct worker workers[GUEST_CPUS];
static volatile uint64_t mistakes[MISTAKES], wanted[MISTAKES], got[MISTAKES], newest_reference, quit;
static uint64_t hz, pit_armed_tsc, pit_ticks;
static volatile uint8_t tsc_page[4096] __attribute__((aligned(4096)));

static void wrong(enum mistake kind, uint64_t want, uint64_t is)
{
    if (__atomic_fetch_add(&mistakes[kind], 1, __ATOMIC_SEQ_CST) == 0) {
        wanted[kind] = want;
        got[kind] = is;
    }
}

/* ---- Clocks ---- */

static uint64_t reference(void)
{
    uint64_t seen = __atomic_load_n(&newest_reference, __ATOMIC_SEQ_CST), now = rdmsr(HV_TIME);
    if (now < seen)
        wrong(REFERENCE_BACK, seen, now);
    while (now > seen && !__atomic_compare_exchange_n(&newest_reference, &seen, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return now;
}

static uint64_t page_reference(void)
{
    volatile uint32_t *sequence = (volatile uint32_t *)tsc_page;
    for (;;) {
        uint32_t before = *sequence;
        uint64_t scale = *(volatile uint64_t *)(tsc_page + 8), offset = *(volatile uint64_t *)(tsc_page + 16);
        uint64_t now = (uint64_t)(((unsigned __int128)rdtsc() * scale) >> 64) + offset;
        if (before && before == *sequence)
            return now;
    }
}

static void see_tsc(struct worker *w)
{
    uint64_t tsc = rdtsc();
    if (tsc < w->last_tsc)
        wrong(TSC_BACK, w->last_tsc, tsc);
    w->last_tsc = tsc;
}

/*
 * A clock beside the reference time. A reading lies between two looks at reference time, so what passed between two
 * readings lies between the nearest and the farthest ends of their intervals, however long the guest stood in one. The
 * first reading is the narrowest of many: the first turn through a path can take milliseconds where code is translated.
 */
struct compared {
    enum mistake mistake;
    uint64_t hz;
    uint64_t before, after, tries; /* the first reading's interval */
    uint64_t last, ticks;          /* since then; `last` is the newest reading */
};

static uint64_t to_reference(uint64_t ticks, uint64_t rate)
{
    return ticks / rate * 10000000 + ticks % rate * 10000000 / rate;
}

/* The clock was `value` at some time between `before` and `after`; `moved` is how far it went since the last call. */
static void compare(struct compared *clock, uint64_t before, uint64_t value, uint64_t moved, uint64_t after)
{
    const uint64_t first_readings = 64;

    clock->ticks += moved;
    clock->last = value;
    if (clock->tries < first_readings && (!clock->tries || after - before < clock->after - clock->before)) {
        clock->before = before;
        clock->after = after;
        clock->ticks = 0;
    }
    if (clock->tries < first_readings)
        clock->tries++;
    uint64_t passed = to_reference(clock->ticks, clock->hz), most = after - clock->before + SLACK;
    if (passed > most)
        wrong(clock->mistake, most, passed);
    if (before > clock->after + SLACK && passed < before - clock->after - SLACK)
        wrong(clock->mistake, before - clock->after - SLACK, passed);
}

static void compare_clocks(void)
{
    static struct compared pm = { .mistake = PM_OFF, .hz = PM_HZ }, tsc = { .mistake = TSC_OFF };
    uint64_t a = reference(), page = page_reference(), b = reference();

    if (page + 1 < a || page > b + 1)
        wrong(PAGE_OFF, a, page);
    a = reference();
    uint32_t pm_now = inl(PM_TIMER);
    compare(&pm, a, pm_now, pm_now - (uint32_t)pm.last, reference());
    tsc.hz = hz;
    a = reference();
    uint64_t tsc_now = rdtsc();
    compare(&tsc, a, tsc_now, tsc_now - tsc.last, reference());
}

/* ---- Timers ---- */

static void arm(struct worker *w)
{
    uint64_t us = 700 + w->ticks % 13 * 97;
    w->armed_tsc = rdtsc() + hz / 1000000 * us;
    if (w->deadline)
        wrmsr(MSR_DEADLINE, w->armed_tsc);
    else
        apic_write(APIC_TIMER_COUNT, (uint32_t)(us * 1000 + 2000)); /* a count is a nanosecond, and both clocks round */
}

static void on_timer(struct guest_frame *frame)
{
    struct worker *w = &workers[guest_cpu()];
    uint64_t now = rdtsc();
    (void)frame;
    if (!w->armed_tsc)
        wrong(TIMER_TWICE, 0, now);
    else if (now < w->armed_tsc)
        wrong(TIMER_EARLY, w->armed_tsc, now);
    w->armed_tsc = 0;
    w->ticks++;
    apic_eoi();
}

static void pit_arm(void)
{
    const unsigned count = 4000; /* 3.35 ms */
    pit_armed_tsc = rdtsc() + hz * (count - 1) / PIT_HZ;
    outb(0x43, 0x30); /* channel 0, both bytes, mode 0 */
    outb(0x40, count & 0xff);
    outb(0x40, count >> 8);
}

static void on_pit(struct guest_frame *frame)
{
    uint64_t now = rdtsc();
    (void)frame;
    if (!pit_armed_tsc)
        wrong(PIT_TWICE, 0, now);
    else if (now < pit_armed_tsc)
        wrong(PIT_EARLY, pit_armed_tsc, now);
    pit_armed_tsc = 0;
    pit_ticks++;
    apic_eoi();
}

static void see_timers(struct worker *w, bool first)
{
    uint64_t late = hz / 1000000 * LOST_US, armed = w->armed_tsc, now = rdtsc();
    if (armed && now > armed + late && w->armed_tsc == armed) {
        wrong(TIMER_LOST, armed, now);
        w->armed_tsc = armed = 0;
    }
    if (!w->armed_tsc)
        arm(w);
    if (!first)
        return;
    armed = pit_armed_tsc;
    if (armed && now > armed + late && pit_armed_tsc == armed) {
        wrong(PIT_LOST, armed, now);
        pit_armed_tsc = 0;
    }
    if (!pit_armed_tsc)
        pit_arm();
}

/* ---- Memory and registers ---- */

static uint64_t pattern(unsigned cpu, uint64_t generation, uint64_t word)
{
    return (word * 0x9e3779b97f4a7c15ull ^ generation * 0xd1b54a32d192ed03ull) + cpu;
}

static void go_over_memory(struct worker *w, unsigned cpu, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t want = pattern(cpu, w->generation, i), is = *(volatile uint64_t *)&w->memory[i];
        if (is != want)
            wrong(MEMORY, want, is);
        *(volatile uint64_t *)&w->memory[i] = pattern(cpu, w->generation + 1, i);
    }
}

static void set_registers(unsigned cpu)
{
    uint64_t low = 0x1111111111111111ull * (cpu + 1), high = ~low;
    write_cr4(read_cr4() | BIT(9) | BIT(10));
    write_cr0((read_cr0() & ~BIT(2)) | BIT(1));
    __asm__ volatile("movq %0, %%xmm5; movq %1, %%xmm15" : : "r"(low), "r"(high));
    __asm__ volatile("movq %0, %%dr0; movq %1, %%dr3" : : "r"(low & 0xffffffff), "r"(0x123450ull + cpu));
    wrmsr(MSR_KERNEL_GS, low & 0x7fffffffffffull);
    wrmsr(MSR_STAR, high);
}

static void see_registers(unsigned cpu)
{
    uint64_t low = 0x1111111111111111ull * (cpu + 1), high = ~low, a, b, c, d;
    __asm__ volatile("movq %%xmm5, %0; movq %%xmm15, %1" : "=r"(a), "=r"(b));
    __asm__ volatile("movq %%dr0, %0; movq %%dr3, %1" : "=r"(c), "=r"(d));
    if (a != low)
        wrong(REGISTERS, low, a);
    if (b != high)
        wrong(REGISTERS, high, b);
    if (c != (low & 0xffffffff) || d != 0x123450ull + cpu)
        wrong(REGISTERS, low & 0xffffffff, c);
    if (rdmsr(MSR_KERNEL_GS) != (low & 0x7fffffffffffull) || rdmsr(MSR_STAR) != high)
        wrong(REGISTERS, high, rdmsr(MSR_STAR));
}

/* ---- Commands ---- */

static unsigned rtc(unsigned index)
{
    outb(0x70, (uint8_t)index);
    return inb(0x71);
}

static unsigned rtc_number(unsigned index, bool binary)
{
    unsigned value = rtc(index);
    return binary ? value : (value >> 4) * 10 + (value & 15);
}

static void tell_time(unsigned cpus)
{
    uint64_t rounds = 0, ticks = 0, failures = 0, second;
    bool binary = rtc(0x0b) & 4;
    do {
        while (rtc(0x0a) & 0x80)
            cpu_pause();
        second = rtc(0);
    } while (rtc(0x0a) & 0x80 || second != rtc(0));
    for (unsigned i = 0; i < cpus; i++) {
        rounds += workers[i].rounds;
        ticks += workers[i].ticks;
    }
    for (unsigned i = 0; i < MISTAKES; i++)
        failures += mistakes[i];
    guest_printf("time ref %lu tsc %lu rtc %02u%02u-%02u-%02u %02u:%02u:%02u rounds %lu ticks %lu pit %lu fails %lu\r\n",
                 reference(), rdtsc(), rtc_number(0x32, binary), rtc_number(9, binary), rtc_number(8, binary),
                 rtc_number(7, binary), rtc_number(4, binary), rtc_number(2, binary), rtc_number(0, binary), rounds, ticks,
                 pit_ticks, failures);
}

static void obey(unsigned cpus)
{
    if (!(inb(COM1 + 5) & 1))
        return;
    char command = (char)inb(COM1);
    if (command == 't')
        tell_time(cpus);
    else if (command == 'q')
        quit = 1;
}

/* ---- All together ---- */

static void work(void *argument)
{
    unsigned me = guest_cpu();
    struct worker *w = &workers[me];
    unsigned cpus = (unsigned)(uint64_t)argument;
    const uint64_t step = 512;

    apic_enable();
    w->memory = (uint64_t *)(guest_program_end() + me * 0x100000ull);
    w->deadline = (me & 1) && (cpuid(1, 0).ecx & BIT(24));
    for (uint64_t i = 0; i < WORDS; i++)
        w->memory[i] = pattern(me, 0, i);
    set_registers(me);
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, (w->deadline ? 0x40000u : 0) | VECTOR_TIMER);
    interrupts_on();
    while (!quit) {
        for (uint64_t i = 0; i < WORDS && !quit; i += step) {
            go_over_memory(w, me, i, step);
            see_tsc(w);
            (void)reference();
            see_registers(me);
            see_timers(w, me == 0);
            if (me == 0) {
                compare_clocks();
                obey(cpus);
            }
        }
        if (quit)
            break;
        w->generation++;
        w->rounds++;
    }
    interrupts_off();
}

void guest_main(void)
{
    unsigned cpus = guest_cpu_count();
    hz = guest_tsc_hz();
    guest_handlers[VECTOR_TIMER] = on_timer;
    guest_handlers[VECTOR_PIT] = on_pit;
    wrmsr(HV_TSC_PAGE, (uint64_t)tsc_page | 1);
    apic_enable();
    mmio_write32(IOAPIC, 0x10 + 2 * 2 + 1);
    mmio_write32(IOAPIC + 0x10, 0);
    mmio_write32(IOAPIC, 0x10 + 2 * 2);
    mmio_write32(IOAPIC + 0x10, VECTOR_PIT);
    for (unsigned i = 1; i < cpus; i++)
        guest_check("a CPU starts", guest_start_cpu(i, work, (void *)(uint64_t)cpus));
    guest_printf("ready %u CPUs\r\n", cpus);
    work((void *)(uint64_t)cpus);
    for (unsigned i = 0; i < MISTAKES; i++) {
        guest_equal(names[i], 0, mistakes[i]);
        if (mistakes[i])
            guest_note("the first time: expected 0x%lx, got 0x%lx", wanted[i], got[i]);
    }
}
