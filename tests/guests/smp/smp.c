/* SPDX-License-Identifier: MIT */
/*
 * All CPUs: each that the ACPI tables name starts by INIT and SIPI, has an APIC ID and CPUID of its own, runs at the
 * same time as the others, sees their stores and locked operations, takes their interrupts, and can be reset and
 * started again.
 */
#include "guest.h"

#define VECTOR_PING 0x50
#define VECTOR_ALL 0x51
#define HOPS 1200 /* of the interrupt that is passed round, by all CPUs together */

static volatile uint64_t arrived, stop, counters[GUEST_CPUS][8], shared_counter, pings[GUEST_CPUS],
    broadcasts[GUEST_CPUS];
static volatile uint64_t seen_id[GUEST_CPUS], seen_count[GUEST_CPUS], seen_msr_id[GUEST_CPUS], turn, nmis[GUEST_CPUS];
static volatile uint64_t seen_tsc[GUEST_CPUS];
static unsigned cpu_count;
static uint64_t rounds;

static void on_ping(struct guest_frame *frame)
{
    (void)frame;
    pings[guest_cpu()]++;
    apic_eoi();
}

static void on_all(struct guest_frame *frame)
{
    (void)frame;
    broadcasts[guest_cpu()]++;
    apic_eoi();
}

static void on_nmi(struct guest_frame *frame)
{
    (void)frame;
    nmis[guest_cpu()]++;
}

/* What every CPU but the first does: tells who it is, counts, and takes interrupts until it is told to stop. */
static void worker(void *argument)
{
    unsigned me = guest_cpu();
    (void)argument;
    apic_enable();
    seen_id[me] = cpuid(1, 0).ebx >> 24;
    seen_msr_id[me] = apic_read(APIC_ID) >> (apic_is_x2() ? 0 : 24);
    seen_count[me] = cpuid(0xb, 1).ebx;
    seen_tsc[me] = rdtsc();
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    interrupts_on();
    while (!stop) {
        counters[me][0]++;
        __atomic_add_fetch(&shared_counter, 1, __ATOMIC_SEQ_CST);
        counters[me][1]++;
    }
    interrupts_off();
}

/* Waits in HLT for each ping and passes it to the next CPU. */
static void passer(void *argument)
{
    unsigned me = guest_cpu();
    (void)argument;
    apic_enable();
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    for (uint64_t round = 1; round <= rounds; round++) {
        while (pings[me] < round)
            wait_for_interrupt();
        apic_send((me + 1) % cpu_count, VECTOR_PING);
    }
}

static void sleeper(void *argument)
{
    (void)argument;
    apic_enable();
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static bool start_all(void (*function)(void *))
{
    bool all = true;
    arrived = 0;
    for (unsigned i = 1; i < cpu_count; i++)
        all &= guest_start_cpu(i, function, NULL);
    return all & guest_wait(&arrived, cpu_count - 1, 5000000);
}

static bool all_done(void)
{
    uint64_t began = rdtsc();
    for (unsigned i = 1; i < cpu_count; i++)
        while (!guest_cpu_done(i)) {
            if (rdtsc() - began > 20 * guest_tsc_hz())
                return false;
            cpu_pause();
        }
    return true;
}

static void start_and_count(void)
{
    guest_check("every CPU starts by INIT and SIPI", start_all(worker));
    bool ids = true, counts = true, moving = true;
    uint64_t before[GUEST_CPUS];
    for (unsigned i = 1; i < cpu_count; i++) {
        ids &= seen_id[i] == i && seen_msr_id[i] == i;
        counts &= cpuid(0, 0).eax < 0xb || seen_count[i] == cpu_count;
        before[i] = counters[i][0];
    }
    guest_check("CPUID and APIC agree on each CPU's ID", ids);
    guest_check("CPUID leaf 0xb counts the CPUs", counts);
    for (unsigned i = 1; i < cpu_count; i++)
        moving &= guest_wait(&counters[i][0], before[i] + 1000, 10000000);
    guest_check("all CPUs count at the same time", moving);

    for (unsigned i = 1; i < cpu_count; i++)
        apic_send(i, VECTOR_PING);
    apic_send(0, 0xc0000 | VECTOR_ALL); /* all but self */
    bool pinged = true, all = true, single = true;
    for (unsigned i = 1; i < cpu_count; i++) {
        pinged &= guest_wait(&pings[i], 1, 5000000);
        all &= guest_wait(&broadcasts[i], 1, 5000000);
    }
    guest_check("each CPU takes an interrupt sent to it", pinged);
    guest_check("all but self reaches every other CPU", all);
    guest_equal("all but self spares the sender", 0, broadcasts[0]);
    for (unsigned i = 1; i < cpu_count; i++)
        apic_send(i, 0x4400); /* NMI */
    bool nmi = true;
    for (unsigned i = 1; i < cpu_count; i++)
        nmi &= guest_wait(&nmis[i], 1, 5000000);
    guest_check("each CPU takes an NMI", nmi);
    stop = 1;
    guest_check("all CPUs see the stop", all_done());
    uint64_t sum = 0;
    for (unsigned i = 1; i < cpu_count; i++) {
        sum += counters[i][1];
        single &= pings[i] == 1 && broadcasts[i] == 1 && nmis[i] == 1;
    }
    guest_equal("locked additions of all CPUs add up", sum, shared_counter);
    guest_check("no interrupt arrived twice", single);
}

/* A ring of HLT and IPI: a wake-up that comes just before HLT must not be lost. */
static void pass_round(void)
{
    for (unsigned i = 0; i < cpu_count; i++)
        pings[i] = 0;
    if (!guest_check("CPUs start again after they have halted", start_all(passer)))
        return;
    uint64_t began = rdtsc();
    for (turn = 1; turn <= rounds; turn++) {
        apic_send(1, VECTOR_PING);
        while (pings[0] < turn && rdtsc() - began < 60 * guest_tsc_hz())
            take_interrupts();
        if (pings[0] < turn)
            break;
    }
    guest_equal("an IPI passed round between halted CPUs is never lost", rounds + 1, turn);
    guest_check("every passer ends", all_done());
}

static void reset_and_start(void)
{
    unsigned last = cpu_count - 1;
    bool again = true;
    for (unsigned i = 0; i < 5 && again; i++) {
        arrived = 0;
        again = guest_start_cpu(last, sleeper, NULL) && guest_wait(&arrived, 1, 5000000);
    }
    guest_check("INIT and SIPI reset a CPU that sleeps with interrupts off, 5 times", again);
    /* SIPI without INIT is ignored. */
    arrived = 0;
    apic_send(last, 0x4608);
    guest_check("SIPI to a CPU that runs is ignored", !guest_wait(&arrived, 1, 20000));
}

void guest_main(void)
{
    cpu_count = guest_cpu_count();
    rounds = HOPS / cpu_count;
    guest_note("%u CPUs", cpu_count);
    guest_handlers[VECTOR_PING] = on_ping;
    guest_handlers[VECTOR_ALL] = on_all;
    guest_handlers[2] = on_nmi;
    apic_enable();
    guest_check("the first CPU is the bootstrap processor", rdmsr(MSR_APIC_BASE) & BIT(8));
    if (cpu_count < 2)
        return;
    start_and_count();
    pass_round();
    reset_and_start();
}
