/* SPDX-License-Identifier: MIT */
/*
 * The local APIC on one CPU, first through its page, then through its MSRs: registers, interrupts to itself, priorities
 * (TPR, CR8, PPR), level-triggered interrupts, masking, the timer's three modes, NMI, and what x2APIC mode refuses.
 *
 * With `rounds=N` on the command line, nothing of that: N times in each mode it writes and reads TPR, sends itself an
 * interrupt and ends it, says `note counted N`, and stands still, so that whoever counts exits can look.
 */
#include "guest.h"

#define VECTOR_A 0x41
#define VECTOR_B 0x82
#define VECTOR_TIMER 0x60
#define VECTOR_LEVEL 0x73
#define IOAPIC 0xfec00000ull
#define IOAPIC_COM1 (0x10 + 2 * 4) /* the low half of pin 4's entry */
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define COM1 0x3f8
#define MSR_TSC_DEADLINE 0x6e0u
#define LVT_MASKED BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE (2ull << 17)
#define TO_SELF 0x40000u

static volatile uint64_t count_a, count_b, timers, nmis, errors, order[8], order_count, timer_at;
static volatile uint64_t isr_seen, levels;

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

/* Ends the interrupt with its line still up; the second time it takes the line down before. */
static void on_level(struct guest_frame *frame)
{
    (void)frame;
    if (++levels == 2)
        outb(COM1 + 1, 0);
    apic_eoi();
}

static void clear(void)
{
    count_a = levels = count_b = timers = nmis = errors = order_count = 0;
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

/*
 * A host's interrupt may come at any time: it must not bring the guest's own with it. Nothing between the CLI and the end
 * of the wait needs an exit where the CPU carries out the APIC's accesses.
 */
static void held_back(void)
{
    bool x2 = apic_is_x2();
    uint64_t early = 0;

    clear();
    for (unsigned i = 0; i < 60; i++) {
        uint64_t before = count_a;
        interrupts_on();
        interrupts_off();
        if (x2)
            wrmsr(0x83f, VECTOR_A);
        else
            mmio_write32(APIC_PAGE + APIC_ICR, TO_SELF | VECTOR_A);
        guest_delay_us(300);
        early += count_a - before;
        take_interrupts();
    }
    guest_equal("with interrupts off it waits, however long", 0, early);
    guest_equal("and then comes once each time", 60, count_a);
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

static uint32_t ioapic_read(uint32_t index)
{
    mmio_write32(IOAPIC, index);
    return mmio_read32(IOAPIC + 0x10);
}

static void ioapic_write(uint32_t index, uint32_t value)
{
    mmio_write32(IOAPIC, index);
    mmio_write32(IOAPIC + 0x10, value);
}

/* The serial port's "transmitter empty" stays until it is looked at. Nothing is printed meanwhile. */
static void level_triggered(void)
{
    clear();
    outb(COM1 + 4, 0x0b);
    ioapic_write(IOAPIC_COM1 + 1, 0);
    ioapic_write(IOAPIC_COM1, VECTOR_LEVEL | RTE_LEVEL);
    outb(COM1 + 1, 2);
    uint32_t waiting = ioapic_read(IOAPIC_COM1), requested = bank(APIC_IRR, VECTOR_LEVEL), how = bank(APIC_TMR, VECTOR_LEVEL);
    take_interrupts();
    take_interrupts();
    take_interrupts();
    outb(COM1 + 1, 0);
    uint32_t after = ioapic_read(IOAPIC_COM1);
    ioapic_write(IOAPIC_COM1, VECTOR_LEVEL | RTE_MASKED);
    outb(COM1 + 4, 0);
    guest_equal("level-triggered: it waits in IRR", 1, requested);
    guest_equal("level-triggered: TMR says so", 1, how);
    guest_equal("level-triggered: remote IRR is set", RTE_REMOTE_IRR, waiting & RTE_REMOTE_IRR);
    guest_equal("level-triggered: again after an EOI while the line is up, then no more", 2, levels);
    guest_equal("level-triggered: an EOI clears remote IRR", 0, after & RTE_REMOTE_IRR);
    apic_send(0, TO_SELF | VECTOR_A);
    take_interrupts();
    guest_equal("level-triggered: TMR of an edge-triggered vector", 0, bank(APIC_TMR, VECTOR_A));
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

/* Each by itself, since the library's functions ask IA32_APIC_BASE for the mode each time, which is an exit. */
static bool rounds_x2;

static void on_round(struct guest_frame *frame)
{
    (void)frame;
    count_a++;
    if (rounds_x2)
        wrmsr(0x800 + APIC_EOI / 16, 0);
    else
        mmio_write32(APIC_PAGE + APIC_EOI, 0);
}

static void rounds(uint64_t count)
{
    uint64_t wrong = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t tpr = i & 1 ? 0x10 : 0x20;
        if (rounds_x2) {
            wrmsr(0x800 + APIC_TPR / 16, tpr);
            wrong += rdmsr(0x800 + APIC_TPR / 16) != tpr;
            wrmsr(0x83f, VECTOR_A);
        } else {
            mmio_write32(APIC_PAGE + APIC_TPR, tpr);
            wrong += mmio_read32(APIC_PAGE + APIC_TPR) != tpr;
            mmio_write32(APIC_PAGE + APIC_ICR, TO_SELF | VECTOR_A);
        }
        take_interrupts();
    }
    guest_equal("TPR keeps what is written", 0, wrong);
}

static void stand_still(uint64_t count)
{
    guest_handlers[VECTOR_A] = on_round;
    apic_enable();
    rounds(count);
    apic_enter_x2();
    rounds_x2 = true;
    rounds(count);
    guest_equal("each interrupt came", 2 * count, count_a);
    guest_note("counted %lu", count_a);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void guest_main(void)
{
    guest_handlers[VECTOR_A] = on_a;
    guest_handlers[VECTOR_B] = on_b;
    guest_handlers[VECTOR_TIMER] = on_timer;
    guest_handlers[VECTOR_LEVEL] = on_level;
    guest_handlers[2] = on_nmi;
    guest_handlers[0xfe] = on_error;
    if (guest_argument_number("rounds", 0))
        stand_still(guest_argument_number("rounds", 0));
    apic_enable();
    guest_note("xAPIC");
    registers();
    self();
    if (!guest_argument_number("early", 0))
        held_back();
    priorities();
    level_triggered();
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
    if (!guest_argument_number("early", 0))
        held_back();
    priorities();
    level_triggered();
    timer_modes();
    others();
    refusals();
}
