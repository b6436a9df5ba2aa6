/* SPDX-License-Identifier: MIT */
/*
 * Exits that a hypervisor may answer in a hurry: CPUID, thousands of times from the same place, so that whatever it keeps
 * of an instruction is there. What must hold all the same: registers, single steps, interrupt shadows, the wrap at 4 GiB, and
 * that a CPU which does nothing else takes its timer, other CPUs' interrupts and NMIs.
 */
#include "guest.h"

#define VECTOR_TIMER 0x40
#define VECTOR_IPI 0x41
#define TO_SELF 0x40000
#define RFLAGS_TF BIT(8)
#define WARM 20
#define MESSAGES 100

/* ---- Registers ---- */

/* Loads 15 registers from `in`, executes CPUID, stores them to `out`. In the order of their numbers, RSP left out. */
void light_registers(const uint64_t in[16], uint64_t out[16]);
__asm__(".pushsection .text\n"
        "light_registers:\n"
        "pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15; pushq %rsi\n"
        "movq 8(%rdi), %rcx; movq 16(%rdi), %rdx; movq 24(%rdi), %rbx; movq 40(%rdi), %rbp; movq 48(%rdi), %rsi\n"
        "movq 64(%rdi), %r8; movq 72(%rdi), %r9; movq 80(%rdi), %r10; movq 88(%rdi), %r11; movq 96(%rdi), %r12\n"
        "movq 104(%rdi), %r13; movq 112(%rdi), %r14; movq 120(%rdi), %r15; movq (%rdi), %rax; movq 56(%rdi), %rdi\n"
        "cpuid\n"
        "pushq %rdi; movq 8(%rsp), %rdi\n"
        "movq %rax, (%rdi); movq %rcx, 8(%rdi); movq %rdx, 16(%rdi); movq %rbx, 24(%rdi); movq %rbp, 40(%rdi)\n"
        "movq %rsi, 48(%rdi); movq %r8, 64(%rdi); movq %r9, 72(%rdi); movq %r10, 80(%rdi); movq %r11, 88(%rdi)\n"
        "movq %r12, 96(%rdi); movq %r13, 104(%rdi); movq %r14, 112(%rdi); movq %r15, 120(%rdi)\n"
        "popq %rax; movq %rax, 56(%rdi)\n"
        "popq %rsi; popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret\n"
        ".popsection");

static void registers(void)
{
    struct guest_cpuid want = cpuid(0, 0);
    unsigned changed = 0, wrong = 0;

    for (unsigned turn = 0; turn < 1000; turn++) {
        uint64_t in[16], out[16] = { 0 }, seed = turn + 1;
        for (unsigned i = 0; i < 16; i++)
            in[i] = guest_random(&seed);
        in[0] &= 0xffffffff00000000; /* leaf 0; the upper half does not count */
        light_registers(in, out);
        wrong += out[0] != want.eax || out[1] != want.ecx || out[2] != want.edx || out[3] != want.ebx;
        for (unsigned i = 5; i < 16; i++)
            changed += out[i] != in[i];
    }
    guest_equal("CPUID answers in whole registers, 1000 times", 0, wrong);
    guest_equal("and changes no other", 0, changed);
}

/* ---- Single steps and shadows ---- */

extern uint8_t light_before[], light_at[], light_after[], light_end[];
static volatile uint64_t steps_at[4]; /* before, at, after the instruction; elsewhere */

static void on_step(struct guest_frame *frame)
{
    uint64_t rip = frame->rip;

    steps_at[rip == (uint64_t)light_before ? 0 : rip == (uint64_t)light_at ? 1 : rip == (uint64_t)light_after ? 2 : 3]++;
    if (rip == (uint64_t)light_end)
        frame->rflags &= ~RFLAGS_TF;
}

/* flags: what is set in RFLAGS before it. shadow: MOV SS comes right before CPUID. */
static __attribute__((noinline)) void stepped(uint64_t flags, uint64_t shadow)
{
    __asm__ volatile("movl %%ss, %%r8d\n"
                     "pushfq\n orq %0, (%%rsp)\n popfq\n"
                     "light_before: xorl %%eax, %%eax\n testq %1, %1\n jz light_at\n"
                     "movl %%r8d, %%ss\n"
                     "light_at: cpuid\n"
                     "light_after: nop\n"
                     "light_end: nop\n"
                     : : "r"(flags), "r"(shadow) : "rax", "rbx", "rcx", "rdx", "r8", "memory", "cc");
}

static void single_steps(void)
{
    guest_handlers[1] = on_step;
    for (unsigned shadow = 0; shadow < 2; shadow++) {
        for (unsigned i = 0; i < WARM; i++)
            stepped(0, shadow);
        for (unsigned i = 0; i < 4; i++)
            steps_at[i] = 0;
        stepped(RFLAGS_TF, shadow);
        guest_equal(shadow ? "behind MOV SS: no step before CPUID" : "a step before CPUID", !shadow, steps_at[1]);
        guest_equal(shadow ? "behind MOV SS: one step after CPUID" : "one step after CPUID", 1, steps_at[2]);
        uint64_t dr6;
        __asm__ volatile("movq %%dr6, %0" : "=r"(dr6));
        guest_equal("DR6.BS tells it", 1, dr6 >> 14 & 1);
    }
    guest_handlers[1] = NULL;
}

static volatile uint64_t taken, taken_rip;

static void on_ipi(struct guest_frame *frame)
{
    taken++;
    taken_rip = frame->rip;
    apic_eoi();
}

/* STI; CPUID, with an interrupt pending if `send`. Returns what is behind CPUID. */
static __attribute__((noinline)) uint64_t shadowed(bool send)
{
    uint64_t after;

    taken = taken_rip = 0;
    if (send)
        apic_send(0, TO_SELF | VECTOR_IPI);
    __asm__ volatile("xorl %%eax, %%eax\n sti\n cpuid\n 1: nop\n nop\n cli\n leaq 1b(%%rip), %0"
                     : "=r"(after) : : "rax", "rbx", "rcx", "rdx", "memory", "cc");
    return after;
}

static void shadow(void)
{
    guest_handlers[VECTOR_IPI] = on_ipi;
    for (unsigned i = 0; i < WARM; i++)
        shadowed(false);
    uint64_t after = shadowed(true);
    guest_equal("an interrupt is taken once after STI; CPUID", 1, taken);
    guest_equal("and behind CPUID", after, taken_rip);
}

/* ---- The end of 4 GiB ---- */

extern volatile uint64_t guest_pml4[512];

/*
 * In compatibility mode CPUID is the last instruction of the 4 GiB: the next one is at 0. The last page is mapped to
 * RAM for that, and a far jump back put at address 0.
 */
static void wrap(void)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    static volatile uint64_t table[512] __attribute__((aligned(4096)));
    static const uint8_t code[] = { 0x31, 0xc0, 0x0f, 0xa2 }; /* XOR EAX, EAX; CPUID */
    volatile uint64_t *pdpt = (volatile uint64_t *)(guest_pml4[0] & ~0xfffull);
    volatile uint64_t *pd = (volatile uint64_t *)(pdpt[3] & ~0xfffull);
    uint64_t large = pd[511];
    volatile uint8_t *zero = (volatile uint8_t *)(guest_ram_end() - guest_ram_end()); /* not a null pointer to the compiler */
    uint8_t saved[7];
    uint32_t eax, wanted = cpuid(0, 0).eax, back;

    memcpy(page + 4096 - sizeof code, code, sizeof code);
    for (unsigned i = 0; i < 512; i++)
        table[i] = 0;
    table[511] = (uint64_t)page | 3;
    pd[511] = (uint64_t)table | 3;
    write_cr3(read_cr3());
    __asm__("movl $light_back, %0" : "=r"(back));
    for (unsigned i = 0; i < sizeof saved; i++)
        saved[i] = zero[i];
    for (unsigned turn = 0; turn < WARM; turn++) {
        zero[0] = 0xea; /* JMP FAR to 64-bit code */
        for (unsigned i = 0; i < 4; i++)
            zero[1 + i] = (uint8_t)(back >> 8 * i);
        zero[5] = 0x08;
        zero[6] = 0;
        __asm__ volatile("pushq $0x18\n pushq %1\n lretq\n light_back:"
                         : "=a"(eax) : "r"(0xfffffffcull) : "rbx", "rcx", "rdx", "memory", "cc");
        if (eax != wanted)
            break;
    }
    for (unsigned i = 0; i < sizeof saved; i++)
        zero[i] = saved[i];
    pd[511] = large;
    write_cr3(read_cr3());
    guest_equal("CPUID at the end of 4 GiB goes on at 0", wanted, eax);
}

/* ---- A CPU that does nothing but CPUID ---- */

static volatile uint64_t ticks, messages, nmis, stop, with_interrupts;

static void on_timer(struct guest_frame *frame)
{
    (void)frame;
    ticks++;
    apic_eoi();
}

static void on_message(struct guest_frame *frame)
{
    (void)frame;
    messages++;
    apic_eoi();
}

static void on_nmi(struct guest_frame *frame)
{
    (void)frame;
    nmis++;
}

static void turns(volatile uint64_t *until, uint64_t value)
{
    uint64_t began = rdtsc();

    while (*until < value && rdtsc() - began < 20 * guest_tsc_hz())
        for (unsigned i = 0; i < 100; i++)
            __asm__ volatile("xorl %%eax, %%eax; cpuid" : : : "rax", "rbx", "rcx", "rdx", "memory");
}

static void timer(void)
{
    guest_handlers[VECTOR_TIMER] = on_timer;
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | BIT(17));
    apic_write(APIC_TIMER_COUNT, 1000000);
    interrupts_on();
    turns(&ticks, 20);
    interrupts_off();
    apic_write(APIC_TIMER_COUNT, 0);
    guest_check("the timer ticks meanwhile", ticks >= 20);
}

static void looper(void *argument)
{
    (void)argument;
    apic_enable();
    if (with_interrupts)
        interrupts_on();
    __atomic_add_fetch(&taken, 1, __ATOMIC_SEQ_CST);
    turns(&stop, 1);
    interrupts_off();
}

static bool finished(unsigned id)
{
    uint64_t began = rdtsc();

    stop = 1;
    while (!guest_cpu_done(id) && rdtsc() - began < 10 * guest_tsc_hz())
        cpu_pause();
    stop = 0;
    return guest_cpu_done(id);
}

static void other_cpu(void)
{
    uint64_t arrived = 0;

    guest_handlers[VECTOR_IPI] = on_message;
    guest_handlers[2] = on_nmi;
    for (unsigned turn = 0; turn < 2; turn++) {
        taken = 0;
        with_interrupts = !turn;
        if (!guest_check("the other CPU starts", guest_start_cpu(1, looper, NULL) && guest_wait(&taken, 1, 5000000)))
            return;
        for (arrived = 0; arrived < MESSAGES && !turn; arrived++) {
            apic_send(1, VECTOR_IPI);
            if (!guest_wait(&messages, arrived + 1, 5000000))
                break;
        }
        if (!turn)
            guest_equal("it takes each interrupt that is sent to it", MESSAGES, arrived);
        for (arrived = 0; arrived < MESSAGES && turn; arrived++) {
            apic_send(1, 0x4400);
            if (!guest_wait(&nmis, arrived + 1, 5000000))
                break;
        }
        if (turn)
            guest_equal("it takes each NMI with interrupts off", MESSAGES, arrived);
        guest_check("and it goes on", finished(1));
    }
}

void guest_main(void)
{
    apic_enable();
    registers();
    single_steps();
    shadow();
    wrap();
    timer();
    if (guest_cpu_count() > 1)
        other_cpu();
}
