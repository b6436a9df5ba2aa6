/* SPDX-License-Identifier: MIT */
/* The library of the small guests (guest.h): interrupts and exceptions, the local APIC, more CPUs. */
#include "guest.h"

#define TRAMPOLINE 0x8000ull
#define KERNEL_CODE 0x08
#define TSS_SELECTOR 0x48

struct gate { uint64_t low, high; };
extern struct gate guest_idt[256];
extern uint64_t guest_gdt[];
extern uint8_t guest_stacks[];
extern uint8_t guest_trampoline[], guest_trampoline_end[];
extern uint8_t guest_try_landing[];
int64_t guest_try_call(void (*function)(void *), void *argument, uint64_t *try_rsp);
void guest_interrupts_init(void);
void guest_interrupt(struct guest_frame *frame);
_Noreturn void guest_ap_start(void);

uint32_t guest_ap_stack;
guest_handler *guest_handlers[256];

/* At the lower end of each CPU's stack. */
struct guest_cpu {
    uint64_t id;
    uint64_t try_rsp, try_rflags; /* 0: no try */
    struct guest_fault fault;
    void (*function)(void *);
    void *argument;
    volatile uint64_t started, done;
};

static struct guest_cpu *cpu_by_id(unsigned id)
{
    return (struct guest_cpu *)(guest_stacks + id * GUEST_STACK_BYTES);
}

static struct guest_cpu *this_cpu(void)
{
    uint64_t rsp;
    __asm__ volatile("movq %%rsp, %0" : "=r"(rsp));
    return (struct guest_cpu *)(rsp & ~(GUEST_STACK_BYTES - 1));
}

unsigned guest_cpu(void)
{
    return (unsigned)(((uint64_t)this_cpu() - (uint64_t)guest_stacks) / GUEST_STACK_BYTES);
}

/* ---- Interrupts ---- */

void guest_gate(unsigned vector, const void *entry, unsigned ring)
{
    uint64_t at = (uint64_t)entry;
    guest_idt[vector].low =
        (at & 0xffff) | KERNEL_CODE << 16 | (0x8e00ull | ring << 13) << 32 | (at >> 16 & 0xffff) << 48;
    guest_idt[vector].high = at >> 32;
}

static uint32_t tss[26];
static uint8_t ring0_stack[GUEST_STACK_BYTES] __attribute__((aligned(16384)));

uint64_t guest_ring0_stack(void)
{
    return (uint64_t)(ring0_stack + sizeof(ring0_stack));
}

void guest_interrupts_init(void)
{
    uint64_t base = (uint64_t)tss, rsp0 = guest_ring0_stack();
    for (unsigned i = 0; i < 256; i++)
        guest_gate(i, guest_vectors + i * 16, 0);
    tss[1] = (uint32_t)rsp0;
    tss[25] = sizeof(tss) << 16;
    guest_gdt[TSS_SELECTOR / 8] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24) << 56;
    guest_gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

/* The CPU whose guest_try may be meant: an entry from ring 3 is on a stack that is no CPU's, and the boot CPU's. */
static struct guest_cpu *trying_cpu(void)
{
    struct guest_cpu *cpu = this_cpu();
    return (uint8_t *)cpu == ring0_stack ? cpu_by_id(0) : cpu;
}

void guest_interrupt(struct guest_frame *frame)
{
    if (guest_handlers[frame->vector]) {
        guest_handlers[frame->vector](frame);
        return;
    }
    struct guest_cpu *cpu = trying_cpu();
    if (frame->vector < 32 && cpu->try_rsp) {
        cpu->fault =
            (struct guest_fault){ (int)frame->vector, frame->error, frame->rip, read_cr2(), frame->rflags, frame->rsp };
        frame->rip = (uint64_t)guest_try_landing;
        frame->rsp = cpu->try_rsp;
        frame->rflags = cpu->try_rflags;
        frame->cs = KERNEL_CODE;
        frame->ss = 0x10;
        frame->rax = frame->vector;
        return;
    }
    guest_printf("fail no interrupt unasked: expected none, got vector %lu error 0x%lx rip 0x%lx cr2 0x%lx cpu %u\r\n",
                 frame->vector, frame->error, frame->rip, read_cr2(), guest_cpu());
    guest_printf("done 0 passed 1 failed\r\n");
    guest_power_off();
}

struct guest_fault guest_try(void (*function)(void *), void *argument)
{
    struct guest_cpu *cpu = this_cpu();
    __asm__ volatile("pushfq; popq %0" : "=r"(cpu->try_rflags));
    cpu->fault = (struct guest_fault){ .vector = -1 };
    (void)guest_try_call(function, argument, &cpu->try_rsp);
    cpu->try_rsp = 0;
    return cpu->fault;
}

struct msr_access { uint32_t msr; uint64_t value; };

static void try_read(void *argument)
{
    struct msr_access *access = argument;
    access->value = rdmsr(access->msr);
}

static void try_write(void *argument)
{
    struct msr_access *access = argument;
    wrmsr(access->msr, access->value);
}

static bool msr_result(struct guest_fault fault, uint32_t msr)
{
    if (fault.vector == -1)
        return true;
    if (fault.vector != 13 || fault.error)
        guest_printf("fail MSR 0x%x: expected #GP(0), got vector %d error 0x%lx\r\n", msr, fault.vector, fault.error);
    return false;
}

bool guest_rdmsr(uint32_t msr, uint64_t *value)
{
    struct msr_access access = { msr, 0 };
    bool ok = msr_result(guest_try(try_read, &access), msr);
    *value = access.value;
    return ok;
}

bool guest_wrmsr(uint32_t msr, uint64_t value)
{
    struct msr_access access = { msr, value };
    return msr_result(guest_try(try_write, &access), msr);
}

/* ---- Local APIC ---- */

bool apic_is_x2(void)
{
    return rdmsr(MSR_APIC_BASE) & BIT(10);
}

uint32_t apic_read(unsigned reg)
{
    return apic_is_x2() ? (uint32_t)rdmsr(0x800 + reg / 16) : mmio_read32(APIC_PAGE + reg);
}

void apic_write(unsigned reg, uint32_t value)
{
    if (apic_is_x2())
        wrmsr(0x800 + reg / 16, value);
    else
        mmio_write32(APIC_PAGE + reg, value);
}

void apic_send(uint32_t destination, uint32_t command)
{
    if (apic_is_x2()) {
        wrmsr(0x800 + APIC_ICR / 16, (uint64_t)destination << 32 | command);
        return;
    }
    mmio_write32(APIC_PAGE + APIC_ICR_HIGH, destination << 24);
    mmio_write32(APIC_PAGE + APIC_ICR, command);
    while (mmio_read32(APIC_PAGE + APIC_ICR) & BIT(12))
        cpu_pause();
}

void apic_enable(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_write(APIC_SVR, 0x1ff);
}

void apic_enter_x2(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
}

/* ---- More CPUs ---- */

void guest_ap_start(void)
{
    struct guest_cpu *cpu = this_cpu();
    cpu->started = 1;
    cpu->function(cpu->argument);
    cpu->done = 1;
    guest_halt();
}

bool guest_start_cpu(unsigned id, void (*function)(void *), void *argument)
{
    struct guest_cpu *cpu = cpu_by_id(id);
    memcpy((void *)TRAMPOLINE, guest_trampoline, (size_t)(guest_trampoline_end - guest_trampoline));
    cpu->id = id;
    cpu->function = function;
    cpu->argument = argument;
    cpu->try_rsp = 0;
    cpu->started = cpu->done = 0;
    guest_ap_stack = (uint32_t)((uint64_t)cpu + GUEST_STACK_BYTES);
    apic_send(id, 0x4500);                     /* INIT, assert */
    guest_delay_us(200);
    apic_send(id, 0x4600 | TRAMPOLINE >> 12);  /* SIPI */
    if (!guest_wait(&cpu->started, 1, 100000)) {
        apic_send(id, 0x4600 | TRAMPOLINE >> 12);
        return guest_wait(&cpu->started, 1, 2000000);
    }
    return true;
}

bool guest_cpu_done(unsigned id)
{
    return cpu_by_id(id)->done;
}
