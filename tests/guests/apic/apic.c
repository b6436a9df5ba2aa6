/* SPDX-License-Identifier: MIT */
/*
 * The local APIC on one CPU, first through its page, then through its MSRs: registers, interrupts to itself, priorities
 * (TPR, CR8, PPR), masking, the timer's three modes, NMI, and what x2APIC mode refuses.
 */
#include "guest.h"

#define VECTOR_A 0x41
#define VECTOR_B 0x82
#define VECTOR_TIMER 0x60
#define MSR_TSC_DEADLINE 0x6e0u
#define LVT_MASKED BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE (2ull << 17)
#define TO_SELF 0x40000u

static volatile uint64_t count_a, count_b, timers, nmis, errors, order[8], order_count, timer_at;
static volatile uint64_t isr_seen;

static uint32_t bank(unsigned reg, unsigned vector)
{
    return apic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

static void note_order(uint64_t what)
{
    if (order_count < COUNT(order))
        order[order_count] = what;
    order_count++;
}

static void on_a(struct guest_frame *frame)
{
    (void)frame;
    count_a++;
    note_order(VECTOR_A);
    isr_seen = bank(APIC_ISR, VECTOR_A);
    apic_eoi();
}

static void on_b(struct guest_frame *frame)
{
    (void)frame;
    count_b++;
    note_order(VECTOR_B);
    apic_eoi();
}

/* Stays in service while B (higher) and A (lower) are asked for and interrupts are on. */
static void on_nested(struct guest_frame *frame)
{
    (void)frame;
    apic_send(0, TO_SELF | VECTOR_A);
    apic_send(0, TO_SELF | VECTOR_B);
    interrupts_on();
    __asm__ volatile("nop; nop; nop; nop");
    interrupts_off();
    note_order(0x61);
    apic_eoi();
}

static void on_timer(struct guest_frame *frame)
{
    (void)frame;
    timer_at = rdtsc();
    timers++;
    apic_eoi();
}

static void on_nmi(struct guest_frame *frame)
{
    (void)frame;
    nmis++;
}

static void on_error(struct guest_frame *frame)
{
    (void)frame;
    errors++;
    apic_eoi();
}

static void clear(void)
{
    count_a = count_b = timers = nmis = errors = order_count = 0;
}

static void registers(void)
{
    guest_equal("version is 0x14 or later, with 5 or 6 LVT entries or more", 1,
                (apic_read(APIC_VERSION) & 0xff) >= 0x10 && (apic_read(APIC_VERSION) >> 16 & 0xff) >= 3);
    guest_equal("ID", 0, apic_read(APIC_ID) >> (apic_is_x2() ? 0 : 24));
    apic_write(APIC_TPR, 0x5a);
    guest_equal("TPR keeps what is written", 0x5a, apic_read(APIC_TPR));
    guest_equal("CR8 is TPR's high half", 5, read_cr8());
    write_cr8(9);
    guest_equal("TPR follows CR8", 0x90, apic_read(APIC_TPR));
    guest_equal("PPR follows TPR", 0x90, apic_read(APIC_PPR) & 0xf0);
    write_cr8(0);
    guest_equal("PPR with nothing in service", 0, apic_read(APIC_PPR));
    apic_write(APIC_LVT_ERROR, 0xfe);
    guest_equal("LVT error keeps its vector", 0xfe, apic_read(APIC_LVT_ERROR) & 0x100ff);
    apic_write(APIC_SVR, 0xff);
    guest_equal("switching the APIC off masks the LVT", LVT_MASKED, apic_read(APIC_LVT_ERROR) & LVT_MASKED);
    apic_write(APIC_SVR, 0x1ff);
    guest_equal("switching it on leaves the LVT masked", LVT_MASKED, apic_read(APIC_LVT_ERROR) & LVT_MASKED);
}

static void self(void)
{
    clear();
    apic_send(0, TO_SELF | VECTOR_A);
    guest_equal("with interrupts off it waits in IRR", 1, bank(APIC_IRR, VECTOR_A));
    guest_equal("and is not taken", 0, count_a);
    take_interrupts();
    guest_equal("then it is taken once", 1, count_a);
    guest_equal("in service while its handler runs", 1, isr_seen);
    guest_equal("not in service after EOI", 0, bank(APIC_ISR, VECTOR_A));
    guest_equal("gone from IRR", 0, bank(APIC_IRR, VECTOR_A));
    apic_send(0, TO_SELF | VECTOR_A);
    apic_send(0, TO_SELF | VECTOR_A);
    take_interrupts();
    guest_equal("two of a kind that wait are one", 2, count_a);
    apic_send(0, VECTOR_A);
    take_interrupts();
    guest_equal("by its own ID", 3, count_a);
    apic_send(0, 0x80000 | VECTOR_A);
    take_interrupts();
    guest_equal("to all including self", 4, count_a);
    apic_send(0, 0xc0000 | VECTOR_A);
    take_interrupts();
    guest_equal("to all but self", 4, count_a);
    if (!apic_is_x2()) {
        apic_write(APIC_DFR, 0xffffffff);
        apic_write(APIC_LDR, 0x02000000);
        apic_send(2, 0x800 | VECTOR_A);
        take_interrupts();
        guest_equal("by its logical ID", 5, count_a);
        apic_send(4, 0x800 | VECTOR_A);
        take_interrupts();
        guest_equal("another's logical ID", 5, count_a);
    } else {
        apic_send(apic_read(APIC_LDR), 0x800 | VECTOR_A);
        take_interrupts();
        guest_equal("by its logical ID", 5, count_a);
        wrmsr(0x83f, VECTOR_A);
        take_interrupts();
        guest_equal("by the SELF IPI register", 6, count_a);
    }
    clear();
    interrupts_on();
    for (unsigned i = 0; i < 1000; i++)
        apic_send(0, TO_SELF | VECTOR_A);
    interrupts_off();
    guest_equal("1000 with interrupts on", 1000, count_a);
}

static void priorities(void)
{
    clear();
    apic_send(0, TO_SELF | VECTOR_A);
    apic_send(0, TO_SELF | VECTOR_B);
    interrupts_on();
    interrupts_off();
    guest_equal("the higher vector is first", VECTOR_B, order[0]);
    guest_equal("the lower one second", VECTOR_A, order[1]);
    clear();
    write_cr8(VECTOR_A >> 4);
    apic_send(0, TO_SELF | VECTOR_A);
    apic_send(0, TO_SELF | VECTOR_B);
    interrupts_on();
    guest_equal("CR8 holds back its own class", 0, count_a);
    guest_equal("and lets a higher one through", 1, count_b);
    write_cr8((VECTOR_A >> 4) - 1);
    guest_equal("lowering CR8 lets it come", 1, count_a);
    write_cr8(15);
    apic_send(0, TO_SELF | VECTOR_B);
    guest_equal("CR8 15 holds back all", 1, count_b);
    apic_write(APIC_TPR, 0);
    guest_equal("lowering TPR lets it come", 2, count_b);
    interrupts_off();
    clear();
    guest_handlers[0x61] = on_nested;
    apic_send(0, TO_SELF | 0x61);
    interrupts_on();
    __asm__ volatile("nop; nop; nop; nop");
    interrupts_off();
    guest_equal("a higher vector interrupts a handler", VECTOR_B, order[0]);
    guest_equal("a lower one waits for its end", 0x61, order[1]);
    guest_equal("and then comes", VECTOR_A, order[2]);
}

static uint64_t elapsed_us(uint64_t since)
{
    return (timer_at - since) / (guest_tsc_hz() / 1000000);
}

/* Timers may be late on a busy host, never early. */
static void timer_modes(void)
{
    clear();
    apic_write(APIC_TIMER_DIVIDE, 0xb); /* 1 */
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_TIMER_COUNT, 4000000000);
    uint32_t first = apic_read(APIC_TIMER_NOW);
    guest_check("the count goes down", first < 4000000000 && apic_read(APIC_TIMER_NOW) < first);
    uint64_t began = rdtsc();
    apic_write(APIC_TIMER_COUNT, 2000000);
    while (!timers && rdtsc() - began < guest_tsc_hz() * 5)
        wait_for_interrupt();
    guest_equal("one-shot: one interrupt", 1, timers);
    guest_check("one-shot: not early (2 ms at 1 GHz)", elapsed_us(began) >= 1990);
    interrupts_on();
    guest_delay_us(5000);
    interrupts_off();
    guest_equal("one-shot: no second", 1, timers);
    guest_equal("one-shot: the count has stopped at 0", 0, apic_read(APIC_TIMER_NOW));

    clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | LVT_PERIODIC);
    apic_write(APIC_TIMER_DIVIDE, 0x3); /* 16 */
    began = rdtsc();
    apic_write(APIC_TIMER_COUNT, 125000); /* 2 ms */
    while (timers < 10 && rdtsc() - began < guest_tsc_hz() * 10)
        wait_for_interrupt();
    guest_equal("periodic: ten interrupts", 10, timers);
    guest_check("periodic: the tenth is not early (20 ms)", elapsed_us(began) >= 19900);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | LVT_PERIODIC | LVT_MASKED);
    take_interrupts();
    uint64_t masked = timers;
    interrupts_on();
    guest_delay_us(5000);
    interrupts_off();
    guest_equal("periodic: masked is silent", masked, timers);
    apic_write(APIC_TIMER_COUNT, 0);
    guest_equal("count 0 stops it", 0, apic_read(APIC_TIMER_NOW));

    if (!(cpuid(1, 0).ecx & BIT(24))) {
        guest_note("no TSC deadline");
        return;
    }
    clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | LVT_DEADLINE);
    uint64_t deadline = rdtsc() + guest_tsc_hz() * 1000;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    guest_equal("TSC deadline: reads back while armed", deadline, rdmsr(MSR_TSC_DEADLINE));
    deadline = rdtsc() + guest_tsc_hz() / 500;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    began = rdtsc();
    while (!timers && rdtsc() - began < guest_tsc_hz() * 5)
        wait_for_interrupt();
    guest_equal("TSC deadline: one interrupt", 1, timers);
    guest_check("TSC deadline: not early", timer_at >= deadline);
    guest_equal("TSC deadline: reads 0 after", 0, rdmsr(MSR_TSC_DEADLINE));
    wrmsr(MSR_TSC_DEADLINE, 1);
    began = rdtsc();
    while (timers < 2 && rdtsc() - began < guest_tsc_hz())
        take_interrupts();
    guest_equal("TSC deadline: one in the past is due at once", 2, timers);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + guest_tsc_hz() / 10);
    wrmsr(MSR_TSC_DEADLINE, 0);
    interrupts_on();
    guest_delay_us(110000);
    interrupts_off();
    guest_equal("TSC deadline: 0 disarms", 2, timers);
    wrmsr(MSR_TSC_DEADLINE, UINT64_MAX);
    interrupts_on();
    guest_delay_us(1000);
    interrupts_off();
    guest_equal("TSC deadline: the end of time is not now", 2, timers);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    guest_equal("TSC deadline: another mode disarms", 0, rdmsr(MSR_TSC_DEADLINE));
}

static void others(void)
{
    clear();
    apic_send(0, 0x4400);
    guest_delay_us(10);
    guest_equal("an NMI to itself comes with interrupts off", 1, nmis);
    apic_write(APIC_LVT_ERROR, 0xfe);
    apic_write(APIC_ESR, 0);
    apic_send(0, TO_SELF | 5); /* vectors below 16 are illegal */
    take_interrupts();
    apic_write(APIC_ESR, 0);
    guest_check("an illegal vector is an error", apic_read(APIC_ESR) & (BIT(5) | BIT(6)));
    guest_equal("and interrupts through LVT error", 1, errors);
    apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

static void refusals(void)
{
    uint64_t value;
    guest_check("x2APIC: EOI takes 0 only", !guest_wrmsr(0x80b, 1));
    guest_check("x2APIC: the ID cannot be written", !guest_wrmsr(0x802, 1));
    guest_check("x2APIC: EOI cannot be read", !guest_rdmsr(0x80b, &value));
    guest_check("x2APIC: no DFR", !guest_rdmsr(0x80e, &value));
    guest_check("x2APIC: no ICR high", !guest_rdmsr(0x831, &value));
    guest_check("x2APIC: reserved bits of TPR", !guest_wrmsr(0x808, 0x100));
    guest_check("x2APIC: back to xAPIC without disabling is refused",
                !guest_wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~BIT(10)));
    uint64_t base = rdmsr(MSR_APIC_BASE);
    guest_check("APIC base: reserved bits are refused", !guest_wrmsr(MSR_APIC_BASE, base | BIT(0)));
    guest_check("disabling is accepted", guest_wrmsr(MSR_APIC_BASE, base & ~(BIT(10) | BIT(11))));
    guest_equal("disabled: CPUID says so", 0, cpuid(1, 0).edx >> 9 & 1);
    guest_check("disabled: x2APIC registers are gone", !guest_rdmsr(0x802, &value));
    guest_check("disabled: no direct way to x2APIC", !guest_wrmsr(MSR_APIC_BASE, base));
    guest_check("enabling is accepted", guest_wrmsr(MSR_APIC_BASE, (base & ~BIT(10)) | BIT(11)));
    guest_equal("xAPIC again: the page answers", 0, mmio_read32(APIC_PAGE + APIC_ID) >> 24);
    guest_equal("enabled: CPUID says so", 1, cpuid(1, 0).edx >> 9 & 1);
    clear();
    apic_enable();
    apic_send(0, TO_SELF | VECTOR_A);
    take_interrupts();
    guest_equal("and it works", 1, count_a);
}

void guest_main(void)
{
    guest_handlers[VECTOR_A] = on_a;
    guest_handlers[VECTOR_B] = on_b;
    guest_handlers[VECTOR_TIMER] = on_timer;
    guest_handlers[2] = on_nmi;
    guest_handlers[0xfe] = on_error;
    apic_enable();
    guest_note("xAPIC");
    registers();
    self();
    priorities();
    timer_modes();
    others();
    if (!(cpuid(1, 0).ecx & BIT(21))) {
        guest_note("no x2APIC");
        return;
    }
    guest_note("x2APIC");
    apic_enter_x2();
    registers();
    self();
    priorities();
    timer_modes();
    others();
    refusals();
}
