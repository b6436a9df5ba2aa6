/* SPDX-License-Identifier: MIT */
/*
 * Exceptions, and events around VM exits: every vector that can be raised comes with the right error code and address;
 * single steps, interrupt shadows and NMI blocking hold over instructions that exit; a page fault on device memory is a
 * page fault; HLT loses no wake-up. cpu=lax leaves out what QEMU 7.2 gets wrong by itself, no VM exit involved: INT1,
 * #SS for an address that is not canonical, #XM, the P bit in the error code of a reserved bit's page fault, and that
 * MOV SS holds back debug traps. cpu=strict leaves out what Bochs does not have: DEBUGCTL.BTF.
 */
#include "guest.h"
#include "nmi.h"

static bool lax, bochs;

#define VECTOR_IPI 0x50
#define VECTOR_TIMER 0x51
#define TO_SELF 0x40000u
#define WINDOW (1ull << 39)
#define RFLAGS_TF BIT(8)

extern volatile uint64_t guest_pml4[512], guest_gdt[];
static volatile uint64_t window_pdpt[512] __attribute__((aligned(4096))), window_pd[512] __attribute__((aligned(4096)));
static volatile uint64_t window_pt[512] __attribute__((aligned(4096)));
static uint8_t page[4096] __attribute__((aligned(4096)));

/* Page `index` of a window that is mapped by 4 KiB pages. */
static uint8_t *map(unsigned index, uint64_t entry)
{
    guest_pml4[1] = (uint64_t)window_pdpt | 7;
    window_pdpt[0] = (uint64_t)window_pd | 7;
    window_pd[0] = (uint64_t)window_pt | 7;
    window_pt[index] = entry;
    uint8_t *at = (uint8_t *)(WINDOW + index * 4096ull);
    __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory");
    return at;
}

/* ---- Every vector ---- */

#define RAISE(name, code)                                                                                              \
    static void name(void *argument)                                                                                   \
    {                                                                                                                  \
        uint64_t a = (uint64_t)argument;                                                                               \
        (void)a;                                                                                                       \
        __asm__ volatile(code : "+r"(a) : : "rax", "rcx", "rdx", "rbp", "memory", "cc");                               \
    }
RAISE(raise_de, "xorl %%edx, %%edx; xorl %%ecx, %%ecx; divl %%ecx")
RAISE(raise_db, ".byte 0xf1")
RAISE(raise_bp, "int3")
RAISE(raise_ud, "ud2")
RAISE(raise_nm, "fnop")
RAISE(raise_gp, "movq $0x8000000000000000, %%rax; movl (%%rax), %%ecx")
RAISE(raise_gp_selector, "movl $0xfff8, %%eax; movl %%eax, %%fs")
RAISE(raise_np, "movl $0x58, %%eax; movl %%eax, %%fs")
RAISE(raise_ss, "movq $0x8000000000000000, %%rbp; movl (%%rbp), %%ecx")
RAISE(raise_mf, "fninit; pushq $0x37b; fldcw (%%rsp); popq %%rax; fld1; fldz; fdivrp; fwait; fninit")
RAISE(raise_xm,
      "pushq $0x1d80; ldmxcsr (%%rsp); popq %%rax; pxor %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; pslld $25, %%xmm1;"
      "psrld $2, %%xmm1; divss %%xmm0, %%xmm1")
RAISE(read_at, "movl (%0), %%eax")
RAISE(write_at, "movl $1, (%0)")
RAISE(execute_at, "call *%0")
RAISE(rep_write, "movq %0, %%rdi; movl $4, %%ecx; rep stosl")
RAISE(hidden_msr, "movl $0x20000000, %%ecx; rdmsr")

static void expect(const char *text, void (*raise)(void *), void *argument, int vector, uint64_t error)
{
    struct guest_fault fault = guest_try(raise, argument);
    guest_equal(text, (uint64_t)vector << 32 | error, (uint64_t)(unsigned)fault.vector << 32 | fault.error);
}

static void double_fault(void)
{
    /* Vectors from 9 on are beyond the IDT's end: the #GP cannot be delivered, its #GP neither: #DF. */
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) idt, small;
    __asm__ volatile("sidt %0" : "=m"(idt));
    small = idt;
    small.limit = 9 * 16 - 1;
    __asm__ volatile("lidt %0" : : "m"(small));
    expect("#DF when #GP cannot be delivered", raise_gp, NULL, 8, 0);
    __asm__ volatile("lidt %0" : : "m"(idt));
}

static void vectors(void)
{
    expect("#DE", raise_de, NULL, 0, 0);
    if (!lax)
        expect("#DB by INT1", raise_db, NULL, 1, 0);
    expect("#BP", raise_bp, NULL, 3, 0);
    expect("#UD", raise_ud, NULL, 6, 0);
    write_cr0(read_cr0() | BIT(3));
    expect("#NM", raise_nm, NULL, 7, 0);
    write_cr0(read_cr0() & ~BIT(3));
    double_fault();
    guest_gdt[0x58 / 8] = 0x00cf13000000ffff; /* a data segment that is not present */
    expect("#NP names the selector", raise_np, NULL, 11, 0x58);
    if (!lax)
        expect("#SS", raise_ss, NULL, 12, 0);
    expect("#GP", raise_gp, NULL, 13, 0);
    expect("#GP names the selector", raise_gp_selector, NULL, 13, 0xfff8);
    expect("#GP of an instruction that exits", hidden_msr, NULL, 13, 0);
    expect("#MF", raise_mf, NULL, 16, 0);
    write_cr4(read_cr4() | BIT(9) | BIT(10));
    if (!lax)
        expect("#XM", raise_xm, NULL, 19, 0);
    struct guest_fault fault = guest_try(raise_bp, NULL);
    guest_equal("#BP points after INT3", 0xcc, *(uint8_t *)(fault.rip - 1));
    fault = guest_try(raise_ud, NULL);
    guest_equal("#UD points at UD2", 0x0b0f, *(uint16_t *)fault.rip);
}

/* ---- Page faults ---- */

static void page_faults(void)
{
    uint8_t *absent = map(0, 0), *read_only = map(1, (uint64_t)page | 1),
            *no_execute = map(2, (uint64_t)page | 3 | BIT(63));
    uint8_t *reserved = map(3, (uint64_t)page | 3 | BIT(51)), *device = map(4, 0xfec00000 | 1),
            *device_absent = map(5, 0xfec00000);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | BIT(11));
    write_cr0(read_cr0() | BIT(16));
    expect("#PF: read of a page that is not there", read_at, absent + 0x123, 14, 0);
    guest_equal("CR2 has the address", (uint64_t)absent + 0x123, read_cr2());
    expect("#PF: write to it", write_at, absent, 14, 2);
    expect("#PF: write to a read-only page", write_at, read_only, 14, 3);
    expect("#PF: execution", execute_at, no_execute, 14, 0x11);
    if (!lax)
        expect("#PF: reserved bit", read_at, reserved, 14, 9);
    expect("#PF on device memory: write to a read-only mapping", write_at, device, 14, 3);
    expect("#PF on device memory: mapping that is not there", read_at, device_absent, 14, 0);
    expect("no #PF: read of device memory", read_at, device, -1, 0);
    /* A store that begins in device memory and ends in a page that is not there. */
    map(5, 0xfec00000 | 3);
    map(6, 0);
    struct guest_fault fault = guest_try(rep_write, device_absent + 4096 - 8);
    guest_equal("#PF in the middle of REP STOS over a page's end", 14, (uint64_t)fault.vector);
    guest_equal("with the address of the second page", (uint64_t)device_absent + 4096, fault.cr2);
    fault = guest_try(write_at, device_absent + 4096 - 2);
    guest_equal("#PF of a store that straddles the end", 14, (uint64_t)fault.vector);
    guest_equal("with the second page's address", (uint64_t)device_absent + 4096, fault.cr2);
    write_cr0(read_cr0() & ~BIT(16));
}

/* ---- Single steps ---- */

static volatile uint64_t step_count, step_rip[16];
extern uint8_t step_begin[], step_cpuid[], step_in[], step_rdmsr[], step_mmio[], step_out[], step_xchg[], step_end[];

static void on_step(struct guest_frame *frame)
{
    if (step_count < COUNT(step_rip))
        step_rip[step_count] = frame->rip;
    step_count++;
    if (frame->rip == (uint64_t)step_end || step_count > 15)
        frame->rflags &= ~RFLAGS_TF;
}

static void single_step(void)
{
    guest_handlers[1] = on_step;
    step_count = 0;
    __asm__ volatile("movl $0x10, %%ecx\n"
                     "pushfq\n orq $0x100, (%%rsp)\n popfq\n"
                     "step_begin: nop\n"
                     "step_cpuid: xorl %%eax, %%eax; cpuid\n"
                     "step_in: movl $0x70, %%edx; inb %%dx, %%al\n"
                     "step_rdmsr: movl $0x1b, %%ecx; rdmsr\n"
                     "step_mmio: movl $0xfee00020, %%ebx; movl (%%rbx), %%eax\n"
                     "step_out: outb %%al, $0x80\n"
                     "step_xchg: nop\n"
                     "step_end: nop\n"
                     : : : "rax", "rbx", "rcx", "rdx", "memory", "cc");
    uint64_t want[] = { (uint64_t)step_cpuid, (uint64_t)step_cpuid + 2, (uint64_t)step_in, (uint64_t)step_in + 5,
                        (uint64_t)step_rdmsr, (uint64_t)step_rdmsr + 5, (uint64_t)step_mmio, (uint64_t)step_mmio + 5,
                        (uint64_t)step_out, (uint64_t)step_xchg, (uint64_t)step_end };
    guest_equal("a step for each instruction, those that exit too", COUNT(want), step_count);
    unsigned wrong = 0;
    for (unsigned i = 0; i < COUNT(want); i++)
        if (step_rip[i] != want[i] && !wrong++)
            guest_note("step %u at 0x%lx, not 0x%lx", i, step_rip[i], want[i]);
    guest_equal("each at the next instruction", 0, wrong);
    guest_handlers[1] = NULL;
}

/* Branch stepping, where DEBUGCTL.BTF stays set; else each instruction steps. Those that exit are no exception. */
extern uint8_t branch_begin[], branch_target[], branch_end[];

static void on_branch_step(struct guest_frame *frame)
{
    step_count++;
    if (frame->rip >= (uint64_t)branch_end || step_count > 15)
        frame->rflags &= ~RFLAGS_TF;
    else
        wrmsr(0x1d9, 2); /* the #DB has cleared it */
}

static void branch_step(void)
{
    guest_handlers[1] = on_branch_step;
    wrmsr(0x1d9, 1);
    guest_equal("DEBUGCTL.LBR is taken and reads 0", 0, rdmsr(0x1d9));
    wrmsr(0x1d9, 2);
    bool branches = rdmsr(0x1d9) & 2;
    guest_note("DEBUGCTL.BTF %s", branches ? "stays" : "reads 0");
    step_count = 0;
    __asm__ volatile("xorl %%eax, %%eax; pushfq\n orq $0x100, (%%rsp)\n popfq\n"
                     "branch_begin: nop; cpuid; movl $0x70, %%edx; inb %%dx, %%al; jmp branch_target\n nop\n"
                     "branch_target: nop; jmp branch_end\n nop\n"
                     "branch_end: nop\n pushfq\n andq $~0x100, (%%rsp)\n popfq"
                     : : : "rax", "rbx", "rcx", "rdx", "memory", "cc");
    if (branches && bochs)
        guest_note("%lu steps with BTF, which Bochs takes and does not heed", step_count);
    else
        guest_equal("steps of a program with two branches", branches ? 2 : 7, step_count);
    wrmsr(0x1d9, 0);
    guest_handlers[1] = NULL;
}

static volatile uint64_t debug_hits, debug_dr6;

static void on_debug(struct guest_frame *frame)
{
    uint64_t dr6;
    __asm__ volatile("movq %%dr6, %0" : "=r"(dr6));
    debug_dr6 = dr6;
    debug_hits++;
    frame->rflags |= BIT(16); /* RF: over an instruction breakpoint */
}

static void breakpoints(void)
{
    static volatile uint64_t watched;
    guest_handlers[1] = on_debug;
    __asm__ volatile("movq %0, %%dr0; movq %1, %%dr6; movq %2, %%dr7"
                     :
                     : "r"(&watched), "r"(0ull), "r"(0x90002ull | BIT(10)));
    watched = 1;
    __asm__ volatile("nop");
    guest_equal("a data breakpoint hits once", 1, debug_hits);
    guest_equal("DR6 names it", 1, debug_dr6 & 0xf);
    (void)cpuid(0, 0);
    uint64_t dr0, dr7;
    __asm__ volatile("movq %%dr0, %0; movq %%dr7, %1" : "=r"(dr0), "=r"(dr7));
    guest_equal("DR0 outlives an exit", (uint64_t)&watched, dr0);
    guest_equal("DR7 too", 0x90402, dr7);
    __asm__ volatile("movq %0, %%dr7" : : "r"(0x400ull));
    watched = 2;
    guest_equal("switched off it is silent", 1, debug_hits);
    guest_handlers[1] = NULL;
}

/* ---- Debug traps that MOV SS holds back ---- */

static volatile uint16_t stack_selector = 0x10;
static volatile uint64_t taken, taken_rip, trap_rip, trap_order;

static void on_held_trap(struct guest_frame *frame)
{
    uint64_t dr6;
    __asm__ volatile("movq %%dr6, %0; movq %1, %%dr6" : "=&r"(dr6) : "r"(0ull));
    debug_dr6 = dr6;
    debug_hits++;
    trap_rip = frame->rip;
    trap_order = taken;
    frame->rflags &= ~RFLAGS_TF;
}

/* MOV SS from a watched word, then `code`: the trap comes behind that. */
#define HELD(text, before, code, dr6)                                                                                  \
    do {                                                                                                               \
        uint64_t after;                                                                                                \
        debug_hits = debug_dr6 = trap_rip = trap_order = 0;                                                            \
        __asm__ volatile(before "; movw %1, %%ss; " code "\n1: nop\n nop\n cli\n leaq 1b(%%rip), %0"                  \
                         : "=r"(after)                                                                                 \
                         : "m"(stack_selector)                                                                         \
                         : "rax", "rbx", "rcx", "rdx", "memory", "cc");                                                \
        guest_equal("one trap: " text, 1, debug_hits);                                                                 \
        guest_equal("with the reasons: " text, dr6, debug_dr6 & 0x400f);                                               \
        guest_equal("behind the next instruction: " text, after, trap_rip);                                            \
    } while (0)

#define WITH_TF "pushfq; orq $0x100, (%%rsp); movl $0xfee00020, %%ebx; xorl %%eax, %%eax; popfq"

static void on_ipi(struct guest_frame *frame);
static void held_traps(void)
{
    guest_handlers[1] = on_held_trap;
    guest_handlers[VECTOR_IPI] = on_ipi;
    __asm__ volatile("movq %0, %%dr0; movq %1, %%dr6; movq %2, %%dr7"
                     :
                     : "r"(&stack_selector), "r"(0ull), "r"(0x70002ull | BIT(10)));
    HELD("MOV SS, NOP", "", "nop", 1);
    HELD("MOV SS, CPUID", "xorl %%eax, %%eax", "cpuid", 1);
    HELD("MOV SS, RDMSR", "movl $0x1b, %%ecx", "rdmsr", 1);
    HELD("MOV SS, load from device memory", "movl $0xfee00020, %%ebx", "movl (%%rbx), %%eax", 1);
    taken = 0;
    apic_send(0, TO_SELF | VECTOR_IPI);
    HELD("MOV SS, CPUID, interrupt", "xorl %%eax, %%eax; sti", "cpuid", 1);
    guest_equal("before the interrupt", 0, trap_order);
    guest_equal("which comes too", 1, taken);
    taken = 0;
    apic_send(0, TO_SELF | VECTOR_IPI);
    HELD("MOV SS, device memory, interrupt", "movl $0xfee00020, %%ebx; sti", "movl (%%rbx), %%eax", 1);
    guest_equal("before this one, too", 0, trap_order);
    guest_equal("which comes as well", 1, taken);
    HELD("single step over MOV SS, CPUID", WITH_TF, "cpuid", 0x4001);
    HELD("single step over MOV SS, load from device memory", WITH_TF, "movl (%%rbx), %%eax", 0x4001);
    HELD("single step over MOV SS, NOP", WITH_TF, "nop", 0x4001);
    __asm__ volatile("movq %0, %%dr7" : : "r"(0x400ull));
    guest_handlers[1] = NULL;
}

/* ---- Interrupt shadows ---- */


static void on_ipi(struct guest_frame *frame)
{
    taken++;
    taken_rip = frame->rip;
    apic_eoi();
}

/* With an interrupt pending: it must come at `after`, not before. */
#define SHADOW(text, code)                                                                                             \
    do {                                                                                                               \
        uint64_t after;                                                                                                \
        taken = taken_rip = 0;                                                                                         \
        apic_send(0, TO_SELF | VECTOR_IPI);                                                                            \
        __asm__ volatile(code "\n1: nop\n nop\n cli\n leaq 1b(%%rip), %0"                         \
                         : "=r"(after)                                                                                 \
                         :                                                                                             \
                         : "rax", "rbx", "rcx", "rdx", "memory", "cc");                                         \
        guest_equal("taken once after " text, 1, taken);                                                               \
        guest_equal("behind the shadow: " text, after, taken_rip);                                                     \
    } while (0)

static void shadows(void)
{
    guest_handlers[VECTOR_IPI] = on_ipi;
    SHADOW("STI, NOP", "sti; nop");
    SHADOW("STI, CPUID", "xorl %%eax, %%eax; sti; cpuid");
    SHADOW("STI, IN", "movl $0x70, %%edx; sti; inb %%dx, %%al");
    SHADOW("STI, RDMSR", "movl $0x1b, %%ecx; sti; rdmsr");
    SHADOW("STI, load from device memory", "movl $0xfee00020, %%ebx; sti; movl (%%rbx), %%eax");
}

/* ---- NMI ---- */

static volatile uint64_t nmi_count, nmi_depth, nmi_nested;

static void on_nmi(struct guest_frame *frame)
{
    (void)frame;
    nmi_nested |= nmi_depth++;
    if (nmi_count++ < 3) {
        apic_send(0, 0x4400);
        (void)cpuid(0, 0);
        guest_delay_us(20);
    }
    nmi_depth--;
}

static void nmis(void)
{
    guest_handlers[2] = on_nmi;
    apic_send(0, 0x4400);
    guest_delay_us(500);
    guest_equal("an NMI during an NMI comes after it", 4, nmi_count);
    guest_equal("and never within", 0, nmi_nested);
}

/* ---- HLT and the timer, and interrupts everywhere ---- */

static volatile uint64_t ticks;

static void on_timer(struct guest_frame *frame)
{
    (void)frame;
    ticks++;
    apic_eoi();
}

static void hlt_races(void)
{
    uint64_t seed = 42, rounds = 1000;
    guest_handlers[VECTOR_TIMER] = on_timer;
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    ticks = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        apic_write(APIC_TIMER_COUNT, (uint32_t)(guest_random(&seed) % 60000 + 1));
        if (i & 1)
            for (uint64_t spin = guest_random(&seed) % 200; spin; spin--)
                cpu_pause();
        if (ticks == i)
            wait_for_interrupt();
    }
    guest_equal("HLT ends for every timer interrupt, however soon", rounds, ticks);
}

static void storm(void)
{
    struct guest_cpuid first = cpuid(0, 0);
    uint64_t wrong = 0, base = rdmsr(0x1b);
    outb(0x70, 0x0e);
    ticks = 0;
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | 1 << 17);
    apic_write(APIC_TIMER_COUNT, 30000);
    interrupts_on();
    uint64_t began = rdtsc();
    for (uint64_t i = 0; ticks < 300 && rdtsc() - began < 20 * guest_tsc_hz(); i++) {
        struct guest_cpuid now = cpuid(0, 0);
        wrong += memcmp(&now, &first, sizeof(now)) != 0;
        wrong += rdmsr(0x1b) != base;
        wrong += mmio_read32(APIC_PAGE + APIC_ID) != 0;
        outb(0x80, (uint8_t)i);
        if (i % 16 == 0) {
            struct guest_fault fault = guest_try(raise_ud, NULL);
            wrong += fault.vector != 6;
        }
    }
    interrupts_off();
    apic_write(APIC_TIMER_COUNT, 0);
    take_interrupts();
    guest_check("300 timer interrupts among exits and exceptions", ticks >= 300);
    guest_equal("and every result was right", 0, wrong);
}

static volatile uint64_t soft, soft_rip;
static void on_soft(struct guest_frame *frame)
{
    soft++;
    soft_rip = frame->rip;
}

void guest_main(void)
{
    const char *cpu = guest_argument("cpu");
    lax = cpu && !strncmp(cpu, "lax", 4);
    bochs = cpu && !strncmp(cpu, "strict", 7);
    apic_enable();
    vectors();
    guest_handlers[0x80] = on_soft;
    uint64_t after;
    __asm__ volatile("int $0x80; 1: leaq 1b(%%rip), %0" : "=r"(after));
    guest_equal("INT n comes once", 1, soft);
    guest_equal("and returns behind itself", after, soft_rip);
    page_faults();
    single_step();
    branch_step();
    breakpoints();
    if (!lax)
        held_traps();
    shadows();
    nmis();
    hlt_races();
    storm();
    nmi_tests();
}
